package afterlogin

import (
	"context"
	"crypto/subtle"
	"errors"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/store"
)

// Expect is what a caller demands of a token. Kinds is required: there is no way to accept just anything.
type Expect struct {
	Kinds  []Kind
	Tenant uint32
	Client string   // the OAuth client the token must be of; empty: any
	Scopes []string // all of these must be granted
	// MaxAge is how long ago the person may have proved who they are. Zero: any time.
	MaxAge time.Duration
	// CanRenew says that the answer can carry a new token (a cookie, say), and that Renew will be called for it. Where
	// that is so, a token that is out of date because an answer was lost is good once more.
	CanRenew bool
	// From is where the request came from. It only decides whether a renewed token may be handed out again.
	From Client
}

// Validate says whether the token is good for what is expected, and returns its session. It writes nothing and waits for
// no write, with one exception: an out-of-date token that only a copy can still hold ends the session (if its policy
// says so), durably, before it is refused.
//
// The error is a *Refusal (ErrInvalidToken) if the token is not good, and ErrUnavailable if that cannot be known now.
func (a *Authority) Validate(ctx context.Context, t Token, e Expect) (*Session, error) {
	if len(e.Kinds) == 0 {
		return nil, badRequest("Expect.Kinds is empty: name the kinds of token that are accepted")
	}
	tok, trust, err := a.parse(t)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(e.Kinds, Kind(tok.Kind)) {
		return nil, refuse(ReasonWrongKind)
	}
	now := a.now()
	if s := a.cached(&tok, &e, now); s != nil {
		return s, nil
	}
	return a.ask(ctx, tok, trust, now, e)
}

// ask validates on a read of the store. It takes copies, so that nothing of the path through the cache escapes to the
// heap for its sake.
func (a *Authority) ask(ctx context.Context, tok opaque.Token, trust opaque.Trust, now time.Time, e Expect) (*Session, error) {
	x, err := a.look(ctx, &tok, trust, now)
	if err != nil {
		return nil, err
	}
	s, _, err := a.decide(ctx, x, &e)
	return s, err
}

// parse checks the token's form and MAC: everything that can be said of it without the store.
func (a *Authority) parse(t Token) (tok opaque.Token, trust opaque.Trust, err error) {
	if tok, err = opaque.Parse(t.Reveal()); err != nil {
		return tok, trust, refuse(ReasonMalformed)
	}
	if trust = a.codec.Verify(&tok); trust == opaque.Forged {
		return tok, trust, refuse(ReasonForged)
	}
	return tok, trust, nil
}

// cached returns the session if the cache can say yes, and nil if it cannot.
func (a *Authority) cached(tok *opaque.Token, e *Expect, now time.Time) *Session {
	c := a.cache.get(tok.ID)
	if c == nil || c.generation != tok.Generation || !a.lease.holds(now) {
		return nil
	}
	v := opaque.Verifier(tok.ID, tok.Generation, &tok.Secret)
	if subtle.ConstantTimeCompare(v[:], c.verifier[:]) != 1 {
		return nil
	}
	ms, seen := now.UnixMilli(), c.lastSeen.Load()
	if c.absolute != 0 && ms >= c.absolute || c.idle != 0 && ms >= seen+c.idle || byte(c.session.Kind) != tok.Kind {
		return nil
	}
	if e.mismatch(&c.session) != "" || e.lacks(&c.session, now) != "" {
		return nil
	}
	a.use(c, ms, seen)
	s := new(Session)
	*s = c.session
	s.used(max(ms, seen), c.idle, c.absolute)
	s.renewal = c.renewalAt != 0 && ms >= c.renewalAt
	return s
}

// used sets the times that depend on the last use.
func (s *Session) used(at, idle, absolute int64) {
	s.LastSeen = fromMillis(at)
	if idle != 0 {
		s.Idle = fromMillis(min(at+idle, absolute))
	}
}

// use notes that the current token was used. It writes to memory only; the toucher does the rest.
func (a *Authority) use(c *entry, ms, seen int64) {
	if !c.seen.Load() && c.seen.CompareAndSwap(false, true) {
		c.lastSeen.Store(max(ms, seen))
		a.touches.add(c.id, ms, c.generation, true)
		return
	}
	if ms-seen >= c.touch && c.lastSeen.CompareAndSwap(seen, ms) {
		a.touches.add(c.id, ms, c.generation, false)
	}
}

func due(p Policy, renewed, now time.Time) bool {
	return p.Renewal > 0 && now.Sub(renewed) >= p.Renewal
}

// mismatch checks what stands before the generation in the order of checks. The empty reason means nothing is amiss.
func (e *Expect) mismatch(s *Session) Reason {
	switch {
	case s.Tenant != e.Tenant:
		return ReasonWrongTenant
	case e.Client != "" && s.Client != e.Client:
		return ReasonWrongClient
	}
	return ""
}

// lacks checks what stands behind the generation in the order of checks.
func (e *Expect) lacks(s *Session, now time.Time) Reason {
	switch {
	case !has(s.Scopes, e.Scopes):
		return ReasonScope
	case e.MaxAge > 0 && (s.Anonymous() || now.Sub(s.Auth.At) > e.MaxAge):
		return ReasonStaleAuth
	}
	return ""
}

// exam is everything that one look at the store tells about a token.
type exam struct {
	tok     opaque.Token
	trust   opaque.Trust
	now     time.Time
	rec     *store.Record // nil: there is none
	state   *state
	subject *subjectState // nil: there is none, or the session is anonymous
	policy  Policy
	fill    filling
}

// look reads the token's record and its subject from the store. The error is ErrUnavailable; that there is no record is
// no error.
func (a *Authority) look(ctx context.Context, tok *opaque.Token, trust opaque.Trust, now time.Time) (*exam, error) {
	x := &exam{tok: *tok, trust: trust, now: now, fill: a.cache.begin(tok.ID)}
	uses := a.touches.peek(tok.ID)
	rs, err := a.store.Get(ctx, tok.ID)
	if err != nil {
		return nil, unavailable("read", err)
	}
	a.lease.extend(now)
	if rs[0] == nil {
		return x, nil
	}
	return x, a.open(ctx, x, rs[0], uses)
}

// open fills in x from the record, reading the subject's.
func (a *Authority) open(ctx context.Context, x *exam, r *store.Record, uses [2]store.Touch) error {
	x.rec = r
	plain, err := a.sealer.Open(r)
	if err == nil {
		x.state, err = decodeState(plain)
	}
	if err != nil {
		a.log.Error("a record does not open", "record", r.ID, "err", err)
		return unavailable("open", err)
	}
	overlay(r, uses)
	x.policy = a.policy(x.state.policy)
	if r.Subject == "" {
		return nil
	}
	id := store.SubjectID(r.Tenant, r.Subject)
	a.cache.beginSubject(&x.fill, id)
	x.subject, _, err = a.subject(ctx, id)
	return err
}

// standing says why the credential is over, whichever token of it is presented: "" if it is not. It is in the order of
// DESIGN: revoked, subject, absolute, idle.
func (x *exam) standing() (why, cause Reason, at time.Time) {
	r := x.rec
	ms := x.now.UnixMilli()
	switch {
	case r.Marked != 0 && Reason(r.Reason) == ReasonSuperseded:
		return ReasonSuperseded, "", fromMillis(r.Marked)
	case r.Marked != 0:
		return ReasonRevoked, Reason(r.Reason), fromMillis(r.Marked)
	case r.Subject != "" && (x.subject == nil || !x.subject.admits(Kind(r.Kind), r.ID.Root(), x.state.stamp)):
		return ReasonSignedOutAll, "", x.now
	case r.Absolute != 0 && ms >= r.Absolute:
		return ReasonExpired, "", fromMillis(r.Absolute)
	case x.policy.Idle != 0 && ms >= r.LastSeen+x.policy.Idle.Milliseconds():
		return ReasonIdle, "", fromMillis(r.LastSeen + x.policy.Idle.Milliseconds())
	}
	return "", "", time.Time{}
}

// session returns what the record says, for the caller.
func (x *exam) session() *Session {
	r, st := x.rec, x.state
	s := &Session{
		ID: newSessionID(Kind(r.Kind), r.ID), Kind: Kind(r.Kind), Tenant: r.Tenant, Subject: r.Subject, Client: r.Client,
		Name: st.name, Policy: st.policy, Persistent: x.policy.Persistent,
		Created: fromMillis(r.Created), LastSeen: fromMillis(r.LastSeen), Absolute: fromMillis(r.Absolute),
		Auth:   Authentication{Methods: st.methods, At: fromMillis(st.authAt)},
		Scopes: st.scopes, Device: st.device, Generation: st.generation, Renewed: fromMillis(st.renewed),
		record: r.ID,
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

// decide runs the checks in their order on what the store said. Nothing before the generation writes, and nothing after
// a failed check revokes: who lacks the right client, say, must not be able to end the session with an old token.
func (a *Authority) decide(ctx context.Context, x *exam, e *Expect) (*Session, verdict, error) {
	if x.rec == nil {
		return nil, forged, refuse(ReasonUnknown)
	}
	if x.tok.Kind != x.rec.Kind || !slices.Contains(e.Kinds, Kind(x.tok.Kind)) {
		return nil, forged, x.refusal(ReasonWrongKind, "", time.Time{})
	}
	if why, cause, at := x.standing(); why != "" {
		return nil, forged, x.refusal(why, cause, at)
	}
	s := x.session()
	if why := e.mismatch(s); why != "" {
		return nil, forged, x.refusal(why, "", time.Time{})
	}
	v := a.judge(x, e.From.hash())
	switch v {
	case current:
		a.sawCurrent(x, s)
		s.renewal = due(x.policy, s.Renewed, x.now)
	case graced:
	case handOut:
		s.renewal = e.CanRenew
	case lostAnswer:
		if !e.CanRenew {
			return nil, v, x.refusal(ReasonRenew, "", time.Time{})
		}
		s.renewal, s.lost = true, true
	default:
		return nil, v, a.condemn(ctx, x, v)
	}
	if why := e.lacks(s, x.now); why != "" {
		return nil, v, x.refusal(why, "", time.Time{})
	}
	return s, v, nil
}

// sawCurrent notes the use of the current token and keeps the session for the next time.
func (a *Authority) sawCurrent(x *exam, s *Session) {
	ms, seen := x.now.UnixMilli(), x.rec.LastSeen
	c := &entry{
		id: x.rec.ID, generation: x.state.generation, verifier: x.state.verifier,
		absolute: x.rec.Absolute, idle: x.policy.Idle.Milliseconds(), touch: x.policy.touchInterval().Milliseconds(),
		session: *s,
	}
	if x.policy.Renewal > 0 {
		c.renewalAt = x.state.renewed + x.policy.Renewal.Milliseconds()
	}
	c.lastSeen.Store(seen)
	c.seen.Store(x.rec.SeenGen >= x.state.generation)
	a.use(c, ms, seen)
	s.used(max(ms, seen), c.idle, c.absolute)
	a.cache.put(x.fill, c)
}

// condemn answers for a token that the generation check refuses. Reuse, and a token from the future, end the session
// before they are refused.
func (a *Authority) condemn(ctx context.Context, x *exam, v verdict) error {
	switch v {
	case replaced:
		return x.refusal(ReasonSuperseded, "", time.Time{})
	case reuse:
		if x.policy.KeepOnReuse {
			a.Report(newEvent(x.event(EventReuse, ReasonReused, "an out-of-date token was refused; the policy keeps the session")))
			return x.refusal(ReasonReused, "", time.Time{})
		}
		if err := a.end(ctx, x, EventReuse, ReasonReused); err != nil {
			return err
		}
		return x.refusal(ReasonReused, "", x.now)
	case ahead:
		a.log.Error("the store has lost changes: a token is newer than its record", "session", newSessionID(Kind(x.rec.Kind), x.rec.ID))
		if err := a.end(ctx, x, EventRolledBack, ReasonRolledBack); err != nil {
			return err
		}
		return x.refusal(ReasonRolledBack, "", x.now)
	default:
		return x.refusal(ReasonForged, "", time.Time{})
	}
}

// end marks the examined credential's root as ended, durably.
func (a *Authority) end(ctx context.Context, x *exam, event string, why Reason) error {
	ctx, cancel := unhurried(ctx)
	defer cancel()
	err := a.apply(ctx, x.rec.ID.Root(), nil,
		store.Mark(x.rec.ID.Root(), x.now.UnixMilli(), string(why)),
		store.Emit(x.event(event, why, "generation "+itoa(x.tok.Generation)+" was used after generation "+itoa(x.state.generation))))
	if errors.Is(err, store.ErrNotFound) {
		return nil // purged meanwhile: over, too
	}
	return err
}

// event makes an event about the examined credential.
func (x *exam) event(typ string, why Reason, detail string) store.Event {
	if Kind(x.rec.Kind) == KindAPIKey && typ == EventReuse {
		typ = EventKeyReuse
	}
	return store.Event{
		At: x.now.UnixMilli(), Type: typ, ID: x.rec.ID, Tenant: x.rec.Tenant, Subject: x.rec.Subject,
		Reason: string(why), Detail: detail,
	}
}
