package afterlogin

import (
	"context"
	"time"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

// GrantRequest says what OAuth grant to make: a refresh token and the first access token with it.
type GrantRequest struct {
	Tenant uint32
	Client string // required
	// Public says that the client cannot keep a secret: the shorter of the two policies.
	Public bool
	// Offline makes a grant that outlives the session: a root of its own with the same subject. Otherwise it lives under
	// the session and ends with it.
	Offline bool
	// Bare asks for the access token alone, below the session.
	Bare   bool
	Scopes []string
	// Audience are the services that the grant is for; none: any.
	Audience []string
	Name     string // what people call it: the client's name
	Device   Client
	// Access says what the access token is to be; its Client is the grant's, its Scopes and Audience default to the
	// grant's.
	Access AccessRequest
}

// A Grant is what a client gets: tokens that are shown this once.
type Grant struct {
	// Refresh is the refresh token and the grant that it stands for. Its Token is zero where there is none.
	Refresh Issued
	// Access is the access token, opaque or a JWT.
	Access Issued
}

func (r *GrantRequest) check() error {
	if r.Client == "" || !plain(r.Client, store.MaxText) {
		return badRequest("client: want 1 to %d bytes of UTF-8 without control characters", store.MaxText)
	}
	if len(r.Name) > 128 || !utf8.ValidString(r.Name) {
		return badRequest("name: over 128 bytes, or not UTF-8")
	}
	if err := checkNames("scope", r.Scopes, maxScopes); err != nil {
		return err
	}
	if err := checkAudience(r.Audience); err != nil {
		return err
	}
	return r.Access.check()
}

// IssueGrant makes a grant for a client that the person of the session has consented to, or that needs no consent. When
// it returns nil the grant is durable. Through an authorization code, Redeem does the same.
//
// Errors are those of IssueAccess, and ErrSessionLimit for an offline grant.
func (a *Authority) IssueGrant(ctx context.Context, s *Session, r GrantRequest) (Grant, error) {
	if err := r.check(); err != nil {
		return Grant{}, err
	}
	x, err := a.signedIn(ctx, s, "a grant")
	if err != nil {
		return Grant{}, err
	}
	if err := a.budget(x); err != nil {
		return Grant{}, err
	}
	p, err := a.planGrant(x, &r)
	if err != nil {
		return Grant{}, err
	}
	if err := a.carryOut(ctx, p); err != nil {
		return Grant{}, err
	}
	if err := p.lookBack(ctx, a); err != nil {
		return Grant{}, err
	}
	return p.grant(), nil
}

// carryOut writes what is planned: of an offline grant, where the subject may have one more.
func (a *Authority) carryOut(ctx context.Context, p *plan) error {
	if p.refresh == nil || !p.refresh.rec.ID.IsRoot() {
		return unlikely(a.apply(ctx, p.root(), p.happened(a), p.ops()...))
	}
	err := a.inPlace(ctx, p.x, p.refresh, false, func(ctx context.Context) error {
		return unlikely(a.apply(ctx, p.root(), p.happened(a), p.ops()...))
	})
	if err == ErrStaleSignIn {
		return p.x.refusal(ReasonSignedOutAll, "", p.x.now)
	}
	return err
}

// plan is a grant that is about to be made: what is written, and what is handed out.
type plan struct {
	x       *exam  // what it is made under
	refresh *child // nil: none, the access token is all
	access  *child // nil: a JWT
	made    *exam  // the grant's own
	r       *GrantRequest
	signed  Issued // the JWT
}

// planGrant makes the records of a grant under x, whose root must be a session.
func (a *Authority) planGrant(x *exam, r *GrantRequest) (*plan, error) {
	if Kind(x.root().rec.Kind) != KindSession || x.root().rec.Subject == "" {
		return nil, badRequest("a grant needs a session that somebody signed in to")
	}
	p := &plan{x: x, r: r, made: x}
	if !r.Bare {
		if err := a.planRefresh(p); err != nil {
			return nil, err
		}
	}
	access := r.Access
	access.Client = r.Client
	if len(access.Audience) == 0 {
		access.Audience = r.Audience
	}
	if len(access.Scopes) == 0 {
		access.Scopes = r.Scopes
	}
	if r.Bare && len(r.Scopes) > 0 && !has(r.Scopes, access.Scopes) {
		return nil, x.refusal(ReasonScope, "", time.Time{})
	}
	st, err := a.accessState(p.made, p.made.session(), &access)
	if err != nil {
		return nil, err
	}
	if r.Access.JWT { // signed before anything is written: what cannot be signed costs nothing
		p.signed, err = a.signAccess(p.made, st, &access)
		return p, err
	}
	if p.refresh != nil {
		st.madeBy = 1
	}
	p.access, err = a.newChild(p.made, KindAccess, st, shorter(a.policy(PolicyAccess).Absolute, r.Access.Lifetime), r.Client)
	return p, err
}

// planRefresh makes the grant's own record: a child of the session, or a root.
func (a *Authority) planRefresh(p *plan) error {
	x, r := p.x, p.r
	root := x.root()
	st := &state{
		policy: PolicyRefreshConfidential, name: r.Name, scopes: r.Scopes, audience: r.Audience,
		authAt: x.state.authAt, methods: x.state.methods, device: r.Device.trimmed(),
	}
	if r.Public {
		st.policy = PolicyRefreshPublic
	}
	life := a.policy(st.policy).Absolute
	if !r.Offline {
		var err error
		if st.above, err = x.under(); err != nil {
			return err
		}
		if p.refresh, err = a.newChild(x, KindRefresh, st, life, r.Client); err != nil {
			return err
		}
		p.made = x.examOf(p.refresh)
		return nil
	}
	st.origin = root.rec.ID
	var err error
	if p.refresh, err = a.newRoot(x, KindRefresh, st, x.now.Add(life).UnixMilli(), r.Client); err != nil {
		return err
	}
	p.made = &exam{now: x.now, standpoint: p.refresh.standpoint, subject: x.subject}
	return nil
}

// root returns the root that the plan changes.
func (p *plan) root() store.ID { return p.made.rec.ID.Root() }

// ops returns the operations of the plan.
func (p *plan) ops() []store.Op {
	var ops []store.Op
	if p.refresh != nil {
		ops = append(ops, p.refresh.op, store.Emit(p.made.event(EventGrantCreated, "", forWhom(p.r.Client))))
	}
	if p.access != nil {
		ops = append(ops, p.access.op)
		if p.refresh == nil {
			ops = append(ops, store.Emit(p.x.examOf(p.access).event(EventAccessCreated, "", forWhom(p.r.Client))))
		}
	}
	return ops
}

// happened tells after an unknown outcome whether the plan was carried out.
func (p *plan) happened(a *Authority) func(context.Context) (bool, error) {
	switch {
	case p.refresh != nil:
		return a.wrote(p.refresh.rec.ID, p.refresh.state.op)
	case p.access != nil:
		return a.wrote(p.access.rec.ID, p.access.state.op)
	}
	return nil
}

// result returns the id of what a code was redeemed for: what a replay of the code ends.
func (p *plan) result() store.ID {
	switch {
	case p.refresh != nil:
		return p.refresh.rec.ID
	case p.access != nil:
		return p.access.rec.ID
	}
	return store.ID{}
}

// lookBack fails if the session that an offline grant came from was ended while the grant was made.
func (p *plan) lookBack(ctx context.Context, a *Authority) error {
	if p.refresh == nil || !p.r.Offline {
		return nil
	}
	made := p.made.session()
	if err := a.lookBack(ctx, made, p.refresh.state.origin); err != nil {
		return err
	}
	a.rehearseLimit(ctx, made)
	return nil
}

// grant returns what the client gets.
func (p *plan) grant() (g Grant) {
	if p.refresh != nil {
		g.Refresh = Issued{Token: p.refresh.token, Session: p.made.session()}
	}
	if p.access != nil {
		g.Access = Issued{Token: p.access.token, Session: p.made.examOf(p.access).session()}
	} else {
		g.Access = p.signed
	}
	return g
}

// RefreshRequest says what comes with a refresh token.
type RefreshRequest struct {
	Tenant uint32
	Client string // who presents it, authenticated if it can be; required
	// Access narrows the access token, and says what it is to be; the grant stays what it is.
	Access AccessRequest
}

// Refresh exchanges a refresh token for its successor and an access token, durably, by the five rules of
// docs/rotation.md. However many requests present one token at once, they get the same successor, and for the same
// wishes the same access token, until the successor has been used. A late copy ends the grant, with every token made from
// it, before it is refused.
//
// Errors: a *Refusal; ErrBadRequest; a *LimitError for more than 8 different wishes with one token; ErrUnavailable, after
// which the client tries again with the same token.
func (a *Authority) Refresh(ctx context.Context, t Token, r RefreshRequest) (_ Grant, err error) {
	defer a.counts.noted(&err)
	if r.Client == "" {
		return Grant{}, badRequest("client: a refresh token belongs to a client")
	}
	if err := r.Access.check(); err != nil {
		return Grant{}, err
	}
	r.Access.Client = r.Client
	e := Expect{Kinds: []Kind{KindRefresh}, Tenant: r.Tenant, Client: r.Client, CanRenew: true}
	tok, err := a.parse(t, nil)
	if err != nil {
		return Grant{}, err
	}
	for range attempts {
		x, err := a.look(ctx, &tok, a.now())
		if err != nil {
			return Grant{}, err
		}
		s, v, err := a.decide(ctx, x, &e)
		if err != nil {
			return Grant{}, err
		}
		g, err := a.refreshOnce(ctx, t, x, s, v, &r)
		if err != errConflict {
			return g, err
		}
	}
	return Grant{}, exhausted("refresh")
}

func (a *Authority) refreshOnce(ctx context.Context, t Token, x *exam, s *Session, v verdict, r *RefreshRequest) (Grant, error) {
	switch st, err := a.accessState(x, s, &r.Access); {
	case err != nil:
		return Grant{}, err
	case v == current && x.state.full(x.now.UnixMilli(), x.policy):
		// The token stays what it is for a moment.
		return a.mintMore(ctx, x, Issued{Token: t, Session: s}, x.tok.Secret, st, r)
	case v == current || v == lostAnswer:
		return a.refreshed(ctx, x, st, r)
	case v == handOut:
		secret, err := a.successor(x)
		if err != nil {
			a.log.Warn("a successor is not handed out again", "session", s.ID, "err", err)
			return Grant{}, unavailable("recompute the successor", err)
		}
		refresh := Issued{Token: a.token(x.rec, x.state.generation, secret), Session: s}
		return a.mintMore(ctx, x, refresh, secret, st, r)
	default: // its successor is in use: somebody has the answer already
		return Grant{}, &Refusal{Reason: ReasonSuperseded, Session: s.ID, Recent: true}
	}
}

// refreshed makes the next generation and its first access token: one conditional write.
func (a *Authority) refreshed(ctx context.Context, x *exam, st *state, r *RefreshRequest) (Grant, error) {
	var access *child
	var signed Issued
	if r.Access.JWT { // before the refresh token is used up
		var err error
		if signed, err = a.signAccess(x, st, &r.Access); err != nil {
			return Grant{}, err
		}
	}
	how := rotation{}
	how.with = func(next *state, secret *[opaque.SecretSize]byte) ([]store.Op, error) {
		if r.Access.JWT {
			return nil, nil
		}
		var err error
		access, err = a.mint(x, next, secret, st, r)
		if err != nil {
			return nil, err
		}
		return []store.Op{access.op}, nil
	}
	got, err := a.advance(ctx, x, how, x.tok.Generation)
	if err != nil {
		return Grant{}, err
	}
	if x.rec.ID.IsChild() { // whoever refreshes uses the session that it is under
		a.touches.add(x.rec.ID.Root(), x.now.UnixMilli(), 0, false)
	}
	g := Grant{Refresh: got, Access: signed}
	if access != nil {
		g.Access = Issued{Token: access.token, Session: x.examOf(access).session()}
	}
	return g, nil
}

// mint derives an access token from the refresh token of the grant's newest generation, and notes in next that it did.
func (a *Authority) mint(x *exam, next *state, refresh *[opaque.SecretSize]byte, st *state, r *RefreshRequest) (*child, error) {
	absolute := a.childEnd(x, shorter(a.policy(PolicyAccess).Absolute, r.Access.Lifetime))
	id := a.childID(x, absolute)
	st.madeBy = next.generation
	var secret *[opaque.SecretSize]byte
	if l := next.link(next.generation); l != nil {
		if key, ok := a.keys.Key(keyring.Rotation, l.key); ok {
			s := opaque.Access(key, id, next.generation, &l.nonce, refresh)
			secret = &s
			next.minted = append(next.minted, mint{refOf(id), wanted(st, r.Access.Lifetime)})
		}
	}
	return a.makeChild(x, KindAccess, st, absolute, r.Client, id, secret)
}

// mintMore answers for a generation that was handed out before: with the access token that went with it then, or, for
// other wishes, with another one.
func (a *Authority) mintMore(ctx context.Context, x *exam, refresh Issued, secret [opaque.SecretSize]byte, st *state, r *RefreshRequest) (Grant, error) {
	g := Grant{Refresh: refresh}
	if r.Access.JWT {
		var err error
		g.Access, err = a.signAccess(x, st, &r.Access)
		return g, err
	}
	want := wanted(st, r.Access.Lifetime)
	for _, m := range x.state.minted {
		if m.want == want {
			if again, err := a.mintedBefore(ctx, x, m, &secret); err != nil || !again.Token.IsZero() {
				g.Access = again
				return g, err
			}
		}
	}
	if len(x.state.minted) >= maxMinted {
		return Grant{}, &LimitError{Session: refresh.Session.ID, RetryAfter: x.policy.Grace + time.Second}
	}
	more := x.state.clone()
	access, err := a.mint(x, more, &secret, st, r)
	if err != nil {
		return Grant{}, err
	}
	more.op = newOp()
	payload, err := more.encode()
	if err != nil {
		return Grant{}, err
	}
	rec := next(x.rec)
	err = a.apply(ctx, rec.ID.Root(), a.wrote(rec.ID, more.op), a.put(rec, x.rec.Version, payload), access.op)
	if err != nil {
		return Grant{}, err
	}
	g.Access = Issued{Token: access.token, Session: x.examOf(access).session()}
	return g, nil
}

// mintedBefore recomputes an access token, or returns none if that is over or its key is gone.
func (a *Authority) mintedBefore(ctx context.Context, x *exam, m mint, refresh *[opaque.SecretSize]byte) (Issued, error) {
	id := m.child.under(x.rec.ID.Root())
	y := &exam{now: x.now}
	if err := a.read(ctx, y, id); err != nil {
		return Issued{}, err
	}
	l := x.state.link(x.state.generation)
	if y.rec == nil || l == nil {
		return Issued{}, nil
	}
	key, ok := a.keys.Key(keyring.Rotation, l.key)
	if why, _, _ := y.standing(); !ok || why != "" {
		return Issued{}, nil
	}
	secret := opaque.Access(key, id, x.state.generation, &l.nonce, refresh)
	if opaque.Verifier(id, 1, &secret) != y.state.verifier {
		return Issued{}, nil
	}
	return Issued{Token: a.token(y.rec, 1, secret), Session: y.session()}, nil
}
