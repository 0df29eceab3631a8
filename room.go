package afterlogin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/internal/seal"
	"github.com/afterlogin/afterlogin/store"
)

// maxEnded bounds what one sign-in ends where there is far too much: the next one goes on.
const maxEnded = 500

// makeRoom takes off the list what is over, and returns what has to be ended for the new root, if anything. It fails with
// ErrSessionLimit if nothing may be, and with errWaitForRoom if that depends on sign-ins that have not come so far.
func (a *Authority) makeRoom(ctx context.Context, o *opening, limit SessionLimit, st *subjectState, list *seating) (out standpoint, err error) {
	if !list.settled(a.now().UnixMilli()) {
		if err := a.fill(ctx, o, limit, st, list); err != nil {
			return out, err
		}
	} else if len(list.seats) < limit.Max {
		return out, nil
	}
	in, err := a.occupants(ctx, o, st, list)
	if err != nil {
		return out, err
	}
	replaces := in.replaced.rec != nil
	count, most := in.pending+len(in.good), limit.Max // without the one that is replaced
	if replaces {
		most--
	}
	switch {
	case count < most:
		return out, nil
	case count < limit.Max:
		return in.replaced, nil
	case !limit.ends(o) && count-min(in.flagged, in.pending) < limit.Max:
		return out, errWaitForRoom // one of the two is not going to be: the one that gives way, or what it does so for
	case !limit.ends(o):
		return out, fmt.Errorf("%w: %d of at most %d (%v)", ErrSessionLimit, count, limit.Max, o.kind)
	}
	// One is flagged. What is over the limit besides, since that was set or lowered, or since it gives way to somebody else,
	// goes at once: it would have to anyway.
	for ; count > most && len(in.good) > 0; count-- {
		if err := a.vacate(ctx, o, in.good[0]); err != nil {
			return out, err
		}
		id := in.good[0].rec.ID
		list.drop(func(m seat) bool { return m.id == id })
		in.good = in.good[1:]
	}
	switch {
	case count > most:
	case replaces:
		return in.replaced, nil
	case len(in.good) > 0:
		return in.good[0], nil
	}
	return out, errWaitForRoom
}

// ends reports whether something else may be ended for the root.
func (l SessionLimit) ends(o *opening) bool { return l.AtLimit == EndOldest && !o.keepAll }

// occupants are what counts on a list, as one more finds it.
type occupants struct {
	good     []standpoint // who is the first to go comes first
	replaced standpoint   // what the new one takes the place of, which is in good no more
	flagged  int          // those of good that give way to another one already
	pending  int          // those that are about to be made
}

// occupants looks at everything on the list, and takes off it what does not count.
func (a *Authority) occupants(ctx context.Context, o *opening, st *subjectState, list *seating) (in occupants, err error) {
	ids := make([]store.ID, len(list.seats))
	for i, m := range list.seats {
		ids[i] = m.id
	}
	found, err := a.seated(ctx, ids)
	if err != nil {
		return in, err
	}
	left := make(map[store.ID]standpoint)
	for i, p := range found {
		m := list.seats[i]
		held, err := a.holds(ctx, o, st, m, p)
		if err != nil {
			return in, err
		}
		if held {
			left[m.id] = p
		}
		if held && p.rec == nil && m.id != o.id {
			in.pending++
		}
	}
	list.drop(func(m seat) bool { _, held := left[m.id]; return !held })
	var flagged, over, good []standpoint // each the oldest first
	for _, m := range list.seats {
		p := left[m.id]
		switch {
		case p.rec == nil:
		case m.id == o.replaces:
			in.replaced = p
		case m.flags&seatEnding != 0 && in.pending > 0: // with none pending, what it was to make room for is not to come
			flagged = append(flagged, p)
		case p.isOver(a.now()):
			over = append(over, p)
		default:
			good = append(good, p)
		}
	}
	in.flagged, in.good = len(flagged), slices.Concat(flagged, over, good)
	return in, nil
}

// seated reads the records of seats, nil where there is none.
func (a *Authority) seated(ctx context.Context, ids []store.ID) ([]standpoint, error) {
	out := make([]standpoint, len(ids))
	for done := 0; done < len(ids); done += entryLooks {
		part := ids[done:min(done+entryLooks, len(ids))]
		uses := make([][2]store.Touch, len(part))
		for i, id := range part {
			uses[i] = a.touches.peek(id)
		}
		rs, err := a.store.Get(ctx, part...)
		if err != nil {
			return nil, unavailable("read", err)
		}
		for i, r := range rs {
			if r == nil {
				continue
			}
			p, err := a.open(r, uses[i])
			switch {
			case errors.Is(err, seal.ErrBroken) || err != nil && r.Marked != 0:
				p = standpoint{rec: r} // it opens nothing for anybody; it is ended like one that is over
			case err != nil: // a newer node may be able to read it
				return nil, err
			}
			out[done+i] = p
		}
	}
	return out, nil
}

// fill adds to the list what the subject has and the list does not know of: everything at first, and for a moment longer
// what nodes may have been making that did not know of the list. Where that is far more than any limit, it does not go
// through all of it: nothing is left to decide for one who is denied, and of the others all but the newest are ended as
// they are found.
func (a *Authority) fill(ctx context.Context, o *opening, limit SessionLimit, st *subjectState, list *seating) error {
	now := a.now()
	var found []standpoint
	ended := 0
	end := func(p standpoint) error {
		if ended++; ended > maxEnded {
			return unavailable("sign in", fmt.Errorf("%d were ended that were over or too many, and there are more", maxEnded))
		}
		return a.vacate(ctx, o, p)
	}
	for r, err := range a.store.List(ctx, store.Query{Tenant: o.tenant, Subject: o.subject}) {
		if err != nil {
			return unavailable("list", err)
		}
		if Kind(r.Kind) != o.kind || r.Marked != 0 || neverMade(r) || list.find(r.ID) >= 0 {
			continue
		}
		if r.Absolute != 0 && now.UnixMilli() > r.Absolute+seatTime.Milliseconds() {
			continue // on every node's clock
		}
		p, err := a.open(r, a.touches.peek(r.ID))
		switch {
		case errors.Is(err, seal.ErrBroken):
			continue // it opens nothing for anybody
		case err != nil: // it may on another node
			return err
		case !st.admits(o.kind, r.ID, p.state.stamp):
			continue
		case p.isOver(now.Add(-seatTime)):
			if err := end(p); err != nil {
				return err
			}
			continue
		}
		found = append(found, p)
		switch {
		case len(found) <= maxSessions:
		case !limit.ends(o):
			list.add(found) // so that it is seen to be too long to be stored
			return fmt.Errorf("%w: over %d of at most %d (%v)", ErrSessionLimit, maxSessions, limit.Max, o.kind)
		case len(found) > 2*maxSessions:
			newestFirst(found)
			for _, p := range found[maxSessions:] {
				if err := end(p); err != nil {
					return err
				}
			}
			clear(found[maxSessions:])
			found = found[:maxSessions]
		}
	}
	list.add(found)
	return nil
}

// add puts what was found into the list, which is in the order of their making.
func (s *seating) add(found []standpoint) {
	for _, p := range found {
		s.seats = append(s.seats, seat{id: p.rec.ID, at: p.rec.Created})
	}
	slices.SortStableFunc(s.seats, func(x, y seat) int { return cmp.Compare(x.at, y.at) })
}

func newestFirst(ps []standpoint) {
	slices.SortStableFunc(ps, func(x, y standpoint) int { return cmp.Compare(y.rec.Created, x.rec.Created) })
}

// isOver reports whether time has ended the record.
func (p *standpoint) isOver(now time.Time) bool {
	why, _ := p.over(now)
	return why != ""
}

// holds reports whether a seat counts. Time frees one only when it has come to every node's clock. One that is idle is
// ended for good before it is free: a use that another node is about to write must not revive it. One whose root was
// never made is taken away from its maker.
func (a *Authority) holds(ctx context.Context, o *opening, st *subjectState, m seat, p standpoint) (bool, error) {
	now := a.now()
	switch {
	case p.rec == nil && now.UnixMilli() < m.at+seatTime.Milliseconds():
		return true, nil
	case p.rec == nil && now.UnixMilli() > m.id.Bucket().End()+seatTime.Milliseconds():
		return false, nil // it was cleaned up; and what is made with this id now is over
	case p.rec == nil && m.flags&seatImported != 0:
		return false, nil
	case p.rec == nil:
		return false, a.claim(ctx, o, m.id, st.epochs)
	case p.rec.Subject != o.subject || p.rec.Tenant != o.tenant: // a key that somebody else imported at the same moment
		return false, nil
	case p.state == nil: // it does not open
		return false, a.vacate(ctx, o, p)
	case a.shared != nil && (p.rec.Marked != 0 || neverMade(p.rec)): // once more, for it to be confirmed
		return false, a.vacate(ctx, o, p)
	case p.rec.Marked != 0 || neverMade(p.rec) || !st.admits(o.kind, m.id, p.state.stamp):
		return false, nil
	}
	switch why, _ := p.over(now.Add(-seatTime)); why {
	case "":
		return true, nil
	case ReasonExpired: // nothing makes it longer
		return false, nil
	}
	return false, a.vacate(ctx, o, p)
}

// vacate ends what gives way to the new root, durably.
func (a *Authority) vacate(ctx context.Context, o *opening, p standpoint) error {
	word, why := kinds[Kind(p.rec.Kind)].event, Reason("")
	if p.state != nil {
		why, _ = p.over(a.now())
	}
	by := string(newSessionID(o.kind, o.id))
	switch {
	case why != "":
		return a.vacateFor(ctx, p.rec, word+"revoked", why, "it was over, and its place was needed")
	case p.rec.ID == o.replaces:
		return a.vacateFor(ctx, p.rec, word+"superseded", ReasonSuperseded, "by "+by)
	}
	return a.vacateFor(ctx, p.rec, word+"revoked", ReasonLimit, "for "+by)
}

// vacateFor marks a root as ended, with an event. Of one that is marked already it sees to it that the mark stays.
func (a *Authority) vacateFor(ctx context.Context, r *store.Record, event string, why Reason, detail string) error {
	if r.Marked == 0 { // sign-ins that come at the same moment end the same one: who comes later need not tell of it again
		rs, err := a.store.Get(ctx, r.ID)
		if err != nil {
			return unavailable("read", err)
		}
		if r = rs[0]; r == nil {
			return nil
		}
	}
	if r.Marked != 0 && a.shared == nil {
		return nil // what is read is durable
	}
	now := a.now().UnixMilli()
	ops := []store.Op{store.Mark(r.ID, now, string(why))}
	if r.Marked == 0 && !neverMade(r) {
		ops = append(ops, store.Emit(store.Event{
			At: now, Type: eventType(event, r), ID: r.ID, Tenant: r.Tenant, Subject: r.Subject, Reason: string(why), Detail: detail,
		}))
	}
	err := a.apply(ctx, r.ID, nil, ops...)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// claim puts a root that was over before it began in the place of one that was reserved and never made: whoever is still
// about to make it finds the place taken. It returns errConflict if it was made after all.
func (a *Authority) claim(ctx context.Context, o *opening, id store.ID, stamp epochs) error {
	over := a.now().Add(-seatTime).UnixMilli() // on every node's clock
	secret := newSecret()
	st := &state{generation: 1, verifier: opaque.Verifier(id, 1, &secret), renewed: over, stamp: stamp, op: newOp(), policy: PolicyBrowser}
	payload, err := st.encode()
	if err != nil {
		return err
	}
	rec := &store.Record{
		ID: id, Kind: byte(o.kind), Tenant: o.tenant, Subject: o.subject, Created: over, Absolute: over, LastSeen: over,
	}
	return a.apply(ctx, id, a.wrote(id, st.op), a.put(rec, 0, payload))
}

// neverMade reports whether a root is what claim puts. Every other one has a life, if a short one.
func neverMade(r *store.Record) bool { return r.ID.IsRoot() && r.Absolute == r.Created }

// releaseTime bounds how long a sign-in that failed goes on for the next one's sake.
const releaseTime = 2 * time.Second

// release gives back what reserve took, after the root could not be made, or nobody knows whether it was: then it is
// ended, since nobody holds its token. If that fails, too, time does it.
func (a *Authority) release(ctx context.Context, o *opening, unknown bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	if err := a.giveBack(ctx, o, unknown); err != nil {
		a.log.Debug("a place in a subject's list stays taken for a moment", "root", newSessionID(o.kind, o.id), "err", err)
	}
}

func (a *Authority) giveBack(ctx context.Context, o *opening, unknown bool) error {
	if unknown && !o.imported {
		if err := a.unmake(ctx, o); err != nil {
			return err
		}
	}
	for range attempts {
		st, rec, err := a.subject(ctx, store.SubjectID(o.tenant, o.subject))
		if err != nil || st == nil {
			return err
		}
		all, err := decodeSeats(st.seats)
		if err != nil {
			return err
		}
		list, all := seatsOf(all, o.kind)
		mine, out := list.find(o.id), list.find(o.out)
		if mine < 0 {
			return nil
		}
		if out >= 0 {
			list.seats[out].flags &^= seatEnding // nothing takes its place
		}
		if !o.imported { // a key may be one that was imported before: time tells
			list.seats = slices.Delete(list.seats, mine, mine+1)
		}
		encoded := encodeSeats(all)
		err = a.putSubject(ctx, o.tenant, o.subject, rec, func(st *subjectState) { st.seats = encoded })
		if err != errConflict {
			return err
		}
	}
	return exhausted("give back")
}

// unmake sees to it that a root whose write failed in an unknown way is not there, and is not going to be.
func (a *Authority) unmake(ctx context.Context, o *opening) error {
	err := a.claim(ctx, o, o.id, o.stamp)
	if err != errConflict {
		return err
	}
	found, err := a.seated(ctx, []store.ID{o.id})
	if err != nil || found[0].rec == nil {
		return err
	}
	return a.vacateFor(ctx, found[0].rec, kinds[o.kind].event+"revoked", ReasonNotMade, "its sign-in failed")
}
