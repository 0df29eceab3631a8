package afterlogin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// A SessionLimit says how many sessions, API keys or offline grants one subject may have at once.
type SessionLimit struct {
	// Max is how many, 1 to 100.
	Max int
	// AtLimit says what gives way to one more.
	AtLimit AtLimit
}

// AtLimit says what happens when there is one too many.
type AtLimit uint8

// What happens at the limit.
const (
	// DenyNew refuses the new one with ErrSessionLimit.
	DenyNew AtLimit = iota
	// EndOldest ends the one that was made first, with ReasonLimit. It has ended, durably, before the new one is there.
	EndOldest
)

// String returns "deny" or "end_oldest", as settings have it.
func (l AtLimit) String() string {
	switch l {
	case DenyNew:
		return "deny"
	case EndOldest:
		return "end_oldest"
	}
	return "unknown"
}

// ErrSessionLimit is returned by Issue, ImportKey, RotateKey, IssueGrant and Redeem: the subject has as many of the kind
// as it may have, and none of them gives way.
var ErrSessionLimit = errors.New("session limit reached")

// maxSessions is the largest limit. The list of what counts stands in the subject's record, which every validation reads
// that misses the cache.
const maxSessions = 100

const (
	// seatTime is after how long without a record a seat is taken away from whoever reserved it.
	seatTime = 30 * time.Second
	// makeTime is how long whoever has reserved, or has seen that it need not, may take to make the record. It ends well
	// before seatTime: the clocks of two nodes may differ by the rest.
	makeTime = 15 * time.Second
	// reserveTime bounds the choice of what gives way, and what has to be ended before that.
	reserveTime = 15 * time.Second
	// roomTime is how long a sign-in waits for others that are about to be made, so that the oldest of them can go.
	roomTime = 10 * time.Second
)

// checkLimits reports what is wrong with the limits, if anything.
func checkLimits(limits map[Kind]SessionLimit) error {
	for kind, l := range limits {
		switch {
		case kind != KindSession && kind != KindAPIKey && kind != KindRefresh:
			return badRequest("Config.Limits: %v is none of session, api_key and refresh_token: nothing else is counted", kind)
		case l.Max < 1 || l.Max > maxSessions:
			return badRequest("Config.Limits: %v: max: %d is not between 1 and %d", kind, l.Max, maxSessions)
		case l.AtLimit > EndOldest:
			return badRequest("Config.Limits: %v: at_limit is neither DenyNew nor EndOldest", kind)
		}
	}
	return nil
}

// opening is a root that is about to be made, as far as limits need to know of it.
type opening struct {
	kind    Kind
	tenant  uint32
	subject string
	id      store.ID
	stamp   epochs // what it is going to carry
	// replaces is the session that this one takes the place of in the same browser; zero: none.
	replaces store.ID
	imported bool // the id comes from the key's text
	keepAll  bool // nothing else is ended for its sake: it is denied instead

	// Set by reserve.
	at       time.Time // when its seat was taken
	out      store.ID  // what gives way for it; zero: nothing
	replaced bool      // what it replaces has ended already
}

// counted reports whether there is a limit for what is about to be made.
func (a *Authority) counted(o *opening) bool {
	_, limited := a.limit(o.tenant, o.kind)
	return limited && o.subject != ""
}

// limit returns the limit of the kind for a tenant's subjects, if there is one.
func (a *Authority) limit(tenant uint32, kind Kind) (SessionLimit, bool) {
	if slices.Contains(a.unlimited, tenant) {
		return SessionLimit{}, false
	}
	l, ok := a.most[kind]
	return l, ok
}

// errWaitForRoom is what a reservation fails with while nothing can be ended yet.
var errWaitForRoom = errors.New("all places are being taken")

// inPlace has write make the root c, of the subject of x, where that may have one more.
func (a *Authority) inPlace(ctx context.Context, x *exam, c *child, keepAll bool, write func(context.Context) error) error {
	making, cancel := context.WithTimeout(ctx, makeTime)
	defer cancel()
	o := &opening{
		kind: Kind(c.rec.Kind), tenant: c.rec.Tenant, subject: c.rec.Subject, id: c.rec.ID, stamp: c.state.stamp, keepAll: keepAll,
	}
	if !a.counted(o) {
		if err := a.untrack(making, o, x.subject); err != nil {
			return err
		}
		return write(making)
	}
	return a.reserved(ctx, o, write)
}

// reserved has write make the root, which is counted, in a seat that is reserved for it. It has until makeTime after the
// seat was taken, however long the end of what gives way took.
func (a *Authority) reserved(ctx context.Context, o *opening, write func(context.Context) error) error {
	if err := a.reserve(ctx, o); err != nil {
		return err
	}
	making, cancel := a.making(ctx, o)
	defer cancel()
	err := making.Err()
	if err != nil {
		err = unavailable("sign in", err)
	} else {
		err = write(making)
	}
	if err != nil {
		a.release(ctx, o, errors.Is(err, store.ErrUnknown))
	}
	return err
}

// making returns the context of a sign-in whose seat is taken.
func (a *Authority) making(ctx context.Context, o *opening) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, min(makeTime, makeTime-a.now().Sub(o.at)))
}

// reserve takes a seat in the subject's list for the root, which is counted, before it is made, ending what has to go for
// it. What was reserved is made before the context of making ends, or given back with release.
//
// It is the first of three steps: the seat and who gives way for it, in one conditional write of the subject's record;
// the end of that one, durably; the new root. Whoever comes in between counts all three that may be good, and makes room
// for itself. So there are at no time more good roots than may be, wherever it is interrupted.
func (a *Authority) reserve(ctx context.Context, o *opening) error {
	ctx, cancel := context.WithTimeout(ctx, reserveTime)
	defer cancel()
	limit, _ := a.limit(o.tenant, o.kind)
	if o.imported { // before anything is ended for it
		found, err := a.seated(ctx, []store.ID{o.id})
		if err != nil {
			return err
		}
		if found[0].rec != nil {
			return errImported
		}
	}
	wait := time.NewTimer(0)
	defer wait.Stop()
	started := time.Now() // not the authority's clock: this is about patience
	for try := 0; try < attempts; try++ {
		err := a.reserveOnce(ctx, o, limit)
		var pause time.Duration
		switch {
		case err == errConflict:
			pause = time.Duration(1<<min(try, 3)) * time.Millisecond
		case err == errWaitForRoom && time.Since(started) > roomTime:
			return unavailable("sign in", fmt.Errorf("%d others are signing in at once", limit.Max))
		case err == errWaitForRoom:
			pause, try = 10*time.Millisecond, 0
		default:
			return err
		}
		wait.Reset(pause/2 + rand.N(pause))
		select {
		case <-wait.C:
		case <-ctx.Done():
			return unavailable("sign in", ctx.Err())
		}
	}
	return exhausted("sign in")
}

func (a *Authority) reserveOnce(ctx context.Context, o *opening, limit SessionLimit) error {
	st, rec, err := a.subject(ctx, store.SubjectID(o.tenant, o.subject))
	if err != nil {
		return err
	}
	if st == nil || !st.admits(o.kind, o.id, o.stamp) {
		return ErrStaleSignIn // signed out everywhere since it was admitted
	}
	all, err := decodeSeats(st.seats)
	if err != nil {
		a.log.Error("a subject's list of sessions does not open", "record", rec.ID)
		return unavailable("open", err)
	}
	list, all := seatsOf(all, o.kind)
	out, err := a.makeRoom(ctx, o, limit, st, list)
	if errors.Is(err, ErrSessionLimit) {
		a.keepList(ctx, o, list, all, rec)
	}
	if err != nil {
		return err
	}
	if o.out = (store.ID{}); out.rec != nil {
		o.out = out.rec.ID
	}
	list.flag(o.out)
	list.drop(func(m seat) bool { return m.id == o.id }) // an import that is tried again
	o.at = a.now()
	mine := seat{id: o.id, at: o.at.UnixMilli()}
	if o.imported {
		mine.flags = seatImported
	}
	list.seats = append(list.seats, mine)
	if list.since == 0 {
		list.since = mine.at
	}
	making, cancel := a.making(ctx, o)
	defer cancel()
	encoded := encodeSeats(all)
	err = a.putSubject(making, o.tenant, o.subject, rec, func(st *subjectState) { st.seats = encoded })
	if err == nil && out.rec != nil {
		err = a.vacate(making, o, out)
		o.replaced = err == nil && out.rec.ID == o.replaces
	}
	if err != nil && err != errConflict {
		a.release(ctx, o, false)
	}
	return err
}

// keepList stores what was found out for a sign-in that is refused, so that the next ones need not search once more. If
// that fails, they do.
func (a *Authority) keepList(ctx context.Context, o *opening, list *seating, all []seating, rec *store.Record) {
	if list.since != 0 || len(list.seats) > maxSessions {
		return
	}
	list.since = a.now().UnixMilli()
	encoded := encodeSeats(all)
	if err := a.putSubject(ctx, o.tenant, o.subject, rec, func(st *subjectState) { st.seats = encoded }); err != nil {
		a.log.Debug("a subject's list of sessions was not stored", "record", rec.ID, "err", err)
	}
}

// untracked sees to it that no list claims to be complete of a kind that this node does not limit, before the node makes
// a root that is not in it. It returns errConflict if the record was changed meanwhile.
func (a *Authority) untracked(ctx context.Context, kind Kind, st *subjectState, rec *store.Record) error {
	if _, limited := a.limit(rec.Tenant, kind); limited || len(st.seats) == 0 {
		return nil
	}
	all, err := decodeSeats(st.seats)
	if err != nil {
		return unavailable("open", err)
	}
	list, all := seatsOf(all, kind)
	if list.since == 0 {
		return nil
	}
	list.since = 0
	encoded := encodeSeats(all)
	return a.putSubject(ctx, rec.Tenant, rec.Subject, rec, func(st *subjectState) { st.seats = encoded })
}

// untrack is untracked for what was read before, with the record that there is now.
func (a *Authority) untrack(ctx context.Context, o *opening, seen *subjectState) error {
	if seen == nil || len(seen.seats) == 0 {
		return nil
	}
	for range attempts {
		st, rec, err := a.subject(ctx, store.SubjectID(o.tenant, o.subject))
		if err != nil {
			return err
		}
		if st == nil {
			return ErrStaleSignIn
		}
		if err := a.untracked(ctx, o.kind, st, rec); err != errConflict {
			return err
		}
	}
	return exhausted("sign in")
}
