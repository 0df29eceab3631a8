package afterlogin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/store"
)

// Expect is what a caller demands of a token. Kinds is required: there is no way to accept just anything.
type Expect struct {
	Kinds  []Kind
	Tenant uint32
	Client string // the OAuth client the token must be of; empty: any
	// Audience is what the service that asks is called. A token that is for certain services only must be for one of
	// these. Empty: any; of a JWT, which always is for somebody, the issuer itself.
	Audience []string
	Scopes   []string // all of these must be granted
	// MaxAge is how long ago the person may have proved who they are. Zero: any time.
	MaxAge time.Duration
	// Fresh has the store asked whatever the cache says: what any node has revoked before is refused. Without it another
	// node's revocation may take up to store.Lease to be heard of.
	Fresh bool
	// CanRenew says that the answer can carry a new token (a cookie, say), and that Renew will be called for it. Where
	// that is so, a token that is out of date because an answer was lost is good once more.
	CanRenew bool
	// Watch says that the request only watches, as a page does that keeps itself up to date while nobody may be there: it is
	// no use of the session, whose idle time goes on. Only the first sight of a new token is one, whoever it is: from then
	// on an old copy of it is known for what it is.
	Watch bool
	// From is where the request came from. It decides whether a renewed token may be handed out again, and whether an
	// API key that is bound to networks is good.
	From Client
}

// Validate says whether the token is good for what is expected, and returns its session. It writes nothing and waits for
// no write, with one exception: an out-of-date token that only a copy can still hold ends the session (if its policy
// says so), durably, before it is refused.
//
// The error is a *Refusal (ErrInvalidToken) if the token is not good, ErrUnavailable if that cannot be known now, and a
// *LimitError if an API key is used more often than it may be.
func (a *Authority) Validate(ctx context.Context, t Token, e Expect) (*Session, error) {
	if len(e.Kinds) == 0 {
		return nil, badRequest("Expect.Kinds is empty: name the kinds of token that are accepted")
	}
	if looksLikeJWT(t) && slices.Contains(e.Kinds, KindJWT) {
		s, err := a.validateJWT(ctx, t, e)
		if err != nil {
			return nil, a.counts.no(ctx, err)
		}
		return a.limited(ctx, s, a.now())
	}
	tok, err := a.parse(t, e.Kinds)
	if err != nil {
		return nil, a.counts.no(ctx, err)
	}
	if !slices.Contains(e.Kinds, Kind(tok.Kind)) {
		return nil, a.counts.no(ctx, refuse(ReasonWrongKind))
	}
	now := a.now()
	var s *Session
	if !e.Fresh {
		if s = a.cached(&tok, &e, now); s != nil && !s.rated() {
			return s, nil
		}
	}
	if s == nil {
		a.counts.misses.Add(1)
		if s, err = a.ask(ctx, tok, now, e); err != nil {
			return nil, a.counts.noAfter(ctx, a.now().Sub(now), err)
		}
	}
	return a.limited(ctx, s, now)
}

// limited counts the request against the rate, if there is one, and as a validation that is good.
func (a *Authority) limited(ctx context.Context, s *Session, now time.Time) (*Session, error) {
	if s.rated() {
		if err := a.limits.take(s, now); err != nil {
			return nil, a.counts.no(ctx, err)
		}
	}
	a.counts.valid.Add(1)
	return s, nil
}

// rated reports whether it may be used only so often.
func (s *Session) rated() bool { return s.Limits != nil && s.Limits.Rate > 0 }

// ask validates on a read of the store. It takes copies, so that nothing of the path through the cache escapes to the
// heap for its sake.
func (a *Authority) ask(ctx context.Context, tok presented, now time.Time, e Expect) (*Session, error) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	x, err := a.look(ctx, &tok, now)
	if err != nil {
		return nil, err
	}
	s, _, err := a.decide(ctx, x, &e)
	return s, err
}

// bounded bounds a validation that needs the store, whatever the caller's context says: nobody waits for ever to hear
// that it is not known now. A disk may be slow for a while; a server that does not answer soon is not going to.
func (a *Authority) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.shared != nil {
		return context.WithTimeout(ctx, sharedTimeout)
	}
	return context.WithTimeout(ctx, askTimeout)
}

const (
	askTimeout    = 10 * time.Second
	sharedTimeout = 2 * time.Second
)

// presented is a token as somebody presented it, as far as that can be told without the store.
type presented struct {
	opaque.Token
	verifier [opaque.VerifierSize]byte // of the secret that was presented
	trust    opaque.Trust
}

// parse checks the token's form and MAC: everything that can be said of it without the store. Text that is not ours may
// be an imported API key, if one is accepted.
func (a *Authority) parse(t Token, accepted []Kind) (p presented, err error) {
	text := t.Reveal()
	if p.Token, err = opaque.Parse(text); err != nil {
		if a.imported && slices.Contains(accepted, KindAPIKey) && couldBeImported(text) {
			return presentedImport(text), nil
		}
		return p, refuse(ReasonMalformed)
	}
	if p.trust, err = a.codec.Verify(&p.Token); err != nil {
		return p, unavailable("keys", err)
	}
	if p.trust == opaque.Forged {
		return p, refuse(ReasonForged)
	}
	p.verifier = opaque.Verifier(p.ID, p.Generation, &p.Secret)
	return p, nil
}

// cached returns the session if the cache can say yes, and nil if it cannot. A yes is counted as valid here, unless a rate may
// still refuse it: what was once counted is never taken back.
func (a *Authority) cached(tok *presented, e *Expect, now time.Time) *Session {
	c, leased := a.held(tok.ID, now)
	if c == nil || c.generation != tok.Generation {
		return nil
	}
	shard := a.cache.shard(tok.ID.Hash())
	if !leased {
		shard.unleased.Add(1)
		return nil
	}
	if subtle.ConstantTimeCompare(tok.verifier[:], c.verifier[:]) != 1 {
		return nil
	}
	ms, seen := now.UnixMilli(), c.lastSeen.Load()
	s := c.session.Load()
	if c.absolute != 0 && ms >= c.absolute || c.idle != 0 && ms >= seen+c.idle || byte(s.Kind) != tok.Kind {
		return nil
	}
	if e.mismatch(s) != "" || e.lacks(s, now) != "" {
		return nil
	}
	if s.rated() {
		shard.partial.Add(1)
	} else {
		shard.hits.Add(1)
	}
	if e.Watch && c.seen.Load() {
		return c.snapshot(s, seen, c.renewalAt != 0 && ms >= c.renewalAt)
	}
	if r := a.rehearsal; r != nil {
		r.look(s, ms, seen, c.touch, &c.quiet)
	}
	a.use(c, ms, seen)
	return c.snapshot(s, max(ms, seen), c.renewalAt != 0 && ms >= c.renewalAt)
}

// snapshotAge is how far, in milliseconds, the times in a snapshot may be behind.
const snapshotAge = 1000

// snapshot returns s, or a newer one if its times are too old or the renewal has come due since.
func (c *entry) snapshot(s *Session, at int64, renewal bool) *Session {
	if age := at - s.LastSeen.UnixMilli(); 0 <= age && age < snapshotAge && s.renewal == renewal {
		return s
	}
	n := new(Session)
	*n = *s
	n.used(at, c.idle, c.absolute)
	n.renewal = renewal
	c.session.Store(n)
	return n
}

// used sets the times that depend on the last use.
func (s *Session) used(at, idle, absolute int64) {
	s.LastSeen = fromMillis(at)
	if idle != 0 {
		s.Idle = fromMillis(sooner(at+idle, absolute))
	}
}

// use notes that the current token was used. It writes to memory only; the toucher does the rest.
func (a *Authority) use(c *entry, ms, seen int64) {
	if !c.seen.Load() && c.seen.CompareAndSwap(false, true) {
		c.lastSeen.Store(max(ms, seen))
		if g := c.grant; g != nil {
			a.touches.add(g.id, max(ms, g.from), g.generation, true)
		} else {
			a.touches.add(c.id, ms, c.generation, true)
		}
	} else if ms-seen >= c.touch && c.lastSeen.CompareAndSwap(seen, ms) {
		a.touches.add(c.id, ms, c.generation, false)
	} else {
		return
	}
	if c.id.IsChild() && c.session.Load().Kind == KindSession { // handed over: the one above is used, too
		a.touches.add(c.id.Root(), ms, 0, false)
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
	case len(e.Audience) > 0 && len(s.Audience) > 0 && !slices.ContainsFunc(s.Audience, func(aud string) bool { return slices.Contains(e.Audience, aud) }):
		return ReasonWrongAudience
	case s.Limits != nil && len(s.Limits.Networks) > 0 && !within(s.Limits.Networks, e.From.Addr):
		return ReasonWrongNetwork
	}
	return ""
}

// within reports whether the address is in one of the networks. No address is in none.
func within(networks []netip.Prefix, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
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
	v := a.judge(x, x.clientHash(e.From))
	switch v {
	case current:
		if x.state.used == 0 && (!e.Watch || x.rec.SeenGen < x.state.generation) {
			a.sawCurrent(x, s)
		}
		s.renewal = due(x.policy, s.Renewed, x.now)
	case graced:
		a.counts.grace.Add(1)
	case handOut:
		a.counts.grace.Add(1)
		s.renewal = e.CanRenew
	case lostAnswer:
		if !e.CanRenew {
			return nil, v, x.refusal(ReasonRenew, "", time.Time{})
		}
		s.renewal, s.lost = true, true
	default:
		return nil, v, a.condemn(ctx, x, v)
	}
	if x.state.used != 0 {
		return nil, v, x.refusal(ReasonUsed, "", fromMillis(x.state.used))
	}
	if why := e.lacks(s, x.now); why != "" {
		return nil, v, x.refusal(why, "", time.Time{})
	}
	if r := a.rehearsal; r != nil && !e.Watch {
		r.decided(a, x, s, v, e)
	}
	return s, v, nil
}

// clientHash returns what tells the clients of this credential apart: of an OAuth grant, the client it is for, whose
// requests may come from anywhere.
func (x *exam) clientHash(from Client) clientHash {
	if Kind(x.rec.Kind) == KindRefresh {
		sum := sha256.Sum256([]byte("afterlogin/oauth-client/1\x00" + x.rec.Client))
		return clientHash(sum[:8])
	}
	return from.hash()
}

// sawCurrent notes the use of the current token and keeps the session for the next time. A grant's is not kept: nobody
// validates a refresh token often.
func (a *Authority) sawCurrent(x *exam, s *Session) {
	if Kind(x.rec.Kind) == KindRefresh {
		return // its use is the refresh, which writes
	}
	ms, seen := x.now.UnixMilli(), x.rec.LastSeen
	c := &entry{
		id: x.rec.ID, generation: x.state.generation, verifier: x.state.verifier,
		absolute: x.rec.Absolute, idle: x.policy.Idle.Milliseconds(), touch: x.policy.touchInterval().Milliseconds(),
	}
	for i := range x.above {
		c.absolute = sooner(c.absolute, x.above[i].end())
	}
	if x.policy.Renewal > 0 {
		c.renewalAt = x.state.renewed + x.policy.Renewal.Milliseconds()
	}
	c.lastSeen.Store(seen)
	c.seen.Store(x.rec.SeenGen >= x.state.generation)
	if Kind(x.rec.Kind) == KindAccess {
		a.sightOfGrant(x, c)
	}
	s.used(max(ms, seen), c.idle, x.rec.Absolute)
	kept := *s // the caller's still gets a renewal, perhaps
	c.session.Store(&kept)
	a.use(c, ms, seen)
	a.cache.put(x.fill, x.subjectID(), c)
}

// sightOfGrant makes the use of an access token a sign that the answer with it arrived, and so the refresh token beside
// it: the grant's generation has been seen. As of the end of the grace of the refresh token before that: whoever refreshes
// at the same time is still handed the same answer.
func (a *Authority) sightOfGrant(x *exam, c *entry) {
	c.seen.Store(true)
	c.touch = math.MaxInt64 // nobody asks when an access token was last used
	if x.state.madeBy == 0 {
		return
	}
	g := &x.above[0]
	if g.state.generation != x.state.madeBy || g.rec.SeenGen >= x.state.madeBy {
		return
	}
	c.grant = &sight{id: g.rec.ID, generation: x.state.madeBy, from: g.state.renewed + g.policy.Grace.Milliseconds()}
	c.seen.Store(false)
}

// sooner returns the earlier of two ends, of which 0 is never.
func sooner(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
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

// end marks as ended, durably, what the examined token is the credential of: the session, or of tokens below one the
// grant alone. Where the store was rolled back, nothing under the root can be believed any more.
func (a *Authority) end(ctx context.Context, x *exam, event string, why Reason) error {
	ctx, cancel := unhurried(ctx)
	defer cancel()
	id, root := x.rec.ID, x.rec.ID.Root()
	if why == ReasonRolledBack {
		id = root
	}
	err := a.apply(ctx, root, nil,
		store.Mark(id, x.now.UnixMilli(), string(why)),
		store.Emit(x.event(event, why, "generation "+itoa(x.tok.Generation)+" was used after generation "+itoa(x.state.generation))))
	if errors.Is(err, store.ErrNotFound) {
		return nil // purged meanwhile: over, too
	}
	return err
}

// event makes an event about the examined credential. Of the events of sessions, those of other kinds have the same
// names behind the kind's own.
func (x *exam) event(typ string, why Reason, detail string) store.Event {
	if rest, ok := strings.CutPrefix(typ, kinds[KindSession].event); ok {
		typ = kinds[Kind(x.rec.Kind)].event + rest
	}
	root := x.root().rec
	e := store.Event{
		At: x.now.UnixMilli(), Type: eventType(typ, root), ID: x.rec.ID, Tenant: root.Tenant, Subject: eventSubject(root),
		Reason: string(why), Detail: detail,
	}
	if typ == EventRolledBack {
		e.ID = root.ID
	}
	return e
}
