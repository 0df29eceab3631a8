package afterlogin

import (
	"context"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// exam is everything that one look at the store tells about a token.
type exam struct {
	tok presented
	now time.Time
	standpoint
	above   []standpoint  // of a child: what it lives under, nearest first; the root is the last
	subject *subjectState // the root's; nil: there is none, or the session is anonymous
	fill    filling
}

// standpoint is one record, opened.
type standpoint struct {
	rec    *store.Record // nil: there is none
	state  *state
	policy Policy
}

// root returns the record that the examined one lives under: itself, if it is a root.
func (x *exam) root() *standpoint {
	if n := len(x.above); n > 0 {
		return &x.above[n-1]
	}
	return &x.standpoint
}

// look reads the token's record, those above it, and its subject from the store. The error is ErrUnavailable; that there
// is no record is no error.
func (a *Authority) look(ctx context.Context, tok *presented, now time.Time) (*exam, error) {
	x := &exam{tok: *tok, now: now}
	return x, a.read(ctx, x, tok.ID)
}

// read fills in x from the record with the id, which may not be there.
func (a *Authority) read(ctx context.Context, x *exam, id store.ID) error {
	x.fill = a.cache.begin(id)
	sent := x.now
	uses := a.touches.peek(id)
	ids, n := [3]store.ID{id, id.Root(), store.SubjectOf(id)}, 1
	var rootUses [2]store.Touch
	if id.IsChild() {
		n, rootUses = 2, a.touches.peek(id.Root())
	} else {
		ids[1] = ids[2]
	}
	rs, err := a.store.Get(ctx, ids[:n+1]...)
	if err != nil {
		return unavailable("read", err)
	}
	a.lease.extend(sent)
	if rs[0] == nil || rs[n-1] == nil || rs[0].Kind == kindData {
		return nil // what lives under nothing is nothing, and data is no credential
	}
	p, err := a.open(rs[0], uses)
	if err != nil {
		return err
	}
	x.standpoint = p
	if id.IsChild() {
		root, err := a.open(rs[1], rootUses)
		if err != nil {
			return err
		}
		if err := a.withAbove(ctx, x, root); err != nil || x.rec == nil {
			return err
		}
	}
	if r := rs[n]; r != nil && hasEpochs(x.root().rec) {
		x.subject, err = a.openSubject(r)
	}
	return err
}

// withAbove reads the children that the examined one lives under.
func (a *Authority) withAbove(ctx context.Context, x *exam, root standpoint) error {
	x.above = make([]standpoint, 0, len(x.state.above)+1)
	if n := len(x.state.above); n > 0 {
		ids := make([]store.ID, n)
		uses := make([][2]store.Touch, n)
		for i, c := range x.state.above {
			ids[i] = c.under(root.rec.ID)
			uses[i] = a.touches.peek(ids[i])
		}
		rs, err := a.store.Get(ctx, ids...)
		if err != nil {
			return unavailable("read", err)
		}
		for i, r := range rs {
			if r == nil {
				x.standpoint = standpoint{}
				return nil
			}
			p, err := a.open(r, uses[i])
			if err != nil {
				return err
			}
			x.above = append(x.above, p)
		}
	}
	x.above = append(x.above, root)
	return nil
}

// open opens a credential's record. uses was peeked before the record was read.
func (a *Authority) open(r *store.Record, uses [2]store.Touch) (standpoint, error) {
	plain, err := a.sealer.Open(r)
	p := standpoint{rec: r}
	if err == nil {
		p.state, err = decodeState(plain)
	}
	if err != nil {
		a.log.Error("a record does not open", "record", r.ID, "err", err)
		return standpoint{}, unavailable("open", err)
	}
	overlay(r, uses)
	p.policy = a.policy(p.state.policy)
	return p, nil
}

// subjectID returns the id of the subject that the credential ends with, zero if there is none.
func (x *exam) subjectID() store.ID {
	if r := x.root().rec; hasEpochs(r) {
		return store.SubjectID(r.Tenant, r.Subject)
	}
	return store.ID{}
}

// hasEpochs reports whether a root ends with its subject's others: everything that somebody signed in to.
func hasEpochs(r *store.Record) bool { return r.Subject != "" && !impersonal(Kind(r.Kind)) }

// impersonal reports whether roots of the kind belong to nobody: their subject is that of a list.
func impersonal(k Kind) bool { return k == KindClient || k == KindEntry }

// standing says why the credential is over, whichever token of it is presented: "" if it is not. It is in the order of
// DESIGN: revoked, subject, absolute, idle; its own and those of what it lives under. Last comes what is not over but on
// hold: ReasonFrozen.
func (x *exam) standing() (why, cause Reason, at time.Time) {
	if why, cause, at = x.marked(); why != "" {
		return why, cause, at
	}
	for i := range x.above {
		if why, cause, at = x.above[i].marked(); why != "" {
			return why, cause, at
		}
	}
	root := x.root()
	if hasEpochs(root.rec) && (x.subject == nil || !x.subject.admits(Kind(root.rec.Kind), root.rec.ID, root.state.stamp)) {
		return x.signedOut()
	}
	if why, at = x.over(x.now); why != "" {
		return why, "", at
	}
	for i := range x.above {
		if why, at = x.above[i].over(x.now); why != "" {
			return why, "", at
		}
	}
	if why, cause, at = x.held(); why != "" {
		return why, cause, at
	}
	for i := range x.above {
		if why, cause, at = x.above[i].held(); why != "" {
			return why, cause, at
		}
	}
	return "", "", time.Time{}
}

// held says whether the record is on hold.
func (p *standpoint) held() (why, cause Reason, at time.Time) {
	if p.state.frozen == 0 {
		return "", "", time.Time{}
	}
	return ReasonFrozen, p.state.frozenFor, fromMillis(p.state.frozen)
}

// signedOut says why the subject's sign-ins were ended, and when, as far as the subject's record remembers.
func (x *exam) signedOut() (why, cause Reason, at time.Time) {
	if x.subject == nil {
		return ReasonSignedOutAll, "", x.now
	}
	root := x.root()
	cause, at = x.subject.ending(Kind(root.rec.Kind), root.rec.ID, root.state.stamp, x.now)
	if cause == ReasonSignedOutAll {
		cause = ""
	}
	return ReasonSignedOutAll, cause, at
}

// marked says whether the record was ended on purpose.
func (p *standpoint) marked() (why, cause Reason, at time.Time) {
	switch {
	case p.rec.Marked == 0:
		return "", "", time.Time{}
	case Reason(p.rec.Reason) == ReasonSuperseded:
		return ReasonSuperseded, "", fromMillis(p.rec.Marked)
	}
	return ReasonRevoked, Reason(p.rec.Reason), fromMillis(p.rec.Marked)
}

// over says whether time has ended the record.
func (p *standpoint) over(now time.Time) (why Reason, at time.Time) {
	ms := now.UnixMilli()
	switch {
	case neverMade(p.rec):
		return ReasonNotMade, fromMillis(p.rec.Absolute)
	case p.rec.Absolute != 0 && ms >= p.rec.Absolute:
		return ReasonExpired, fromMillis(p.rec.Absolute)
	case p.policy.Idle != 0 && ms >= p.rec.LastSeen+p.policy.Idle.Milliseconds():
		return ReasonIdle, fromMillis(p.rec.LastSeen + p.policy.Idle.Milliseconds())
	}
	return "", time.Time{}
}

// end returns when time ends the record if it is not used any more, in milliseconds; 0: never.
func (p *standpoint) end() int64 {
	end := p.rec.Absolute
	if p.policy.Idle != 0 {
		end = sooner(end, p.rec.LastSeen+p.policy.Idle.Milliseconds())
	}
	return end
}

// session returns what the record says, for the caller.
func (x *exam) session() *Session {
	r, st, root := x.rec, x.state, x.root()
	s := &Session{
		ID: newSessionID(Kind(r.Kind), r.ID), Kind: Kind(r.Kind), Tenant: r.Tenant, Subject: root.rec.Subject, Client: r.Client,
		Name: st.name, Policy: st.policy, Persistent: x.policy.Persistent,
		Created: fromMillis(r.Created), LastSeen: fromMillis(r.LastSeen), Absolute: fromMillis(r.Absolute),
		Auth:   Authentication{Methods: st.methods, At: fromMillis(st.authAt)},
		Scopes: st.scopes, Audience: st.audience,
		Device: st.device, Generation: st.generation, Renewed: fromMillis(st.renewed),
		record: r.ID, rootAs: Kind(root.rec.Kind),
	}
	s.actors = st.actor
	if r := root.state; r.rate > 0 || len(r.networks) > 0 {
		s.Limits = &Limits{Networks: r.networks, Rate: int(r.rate)}
	}
	s.Root = s.ID
	if r.ID.IsChild() {
		s.Root = newSessionID(s.rootAs, root.rec.ID)
	}
	if s.rootAs == KindClient {
		s.Subject = root.rec.Client
	}
	for i := range x.above {
		if k := Kind(x.above[i].rec.Kind); k == KindRefresh {
			s.Grant = newSessionID(k, x.above[i].rec.ID)
			break
		}
	}
	if !st.origin.IsZero() {
		s.Origin = newSessionID(KindSession, st.origin)
	}
	s.used(r.LastSeen, x.policy.Idle.Milliseconds(), r.Absolute)
	return s
}

// refusal makes the error for this session.
func (x *exam) refusal(why, cause Reason, at time.Time) error {
	return &Refusal{
		Reason: why, Cause: cause, Session: newSessionID(Kind(x.rec.Kind), x.rec.ID), At: at,
		Recent: why == ReasonSuperseded && (at.IsZero() || x.now.Sub(at) < moved), // by a step-up, or by a sign-in
	}
}
