package afterlogin

import (
	"context"
	"errors"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// codeRetry is for how long after its redemption a code that comes again from whom it was for is only refused: the
// answer may have been lost, and the client tried again.
const codeRetry = 10 * time.Second

// CodeRequest says what authorization code to make.
type CodeRequest struct {
	Client string // required
	// Detail is what the authorization request said and the token request must match: redirect URI, code challenge, and
	// so on. The authority keeps it and does not look at it. At most 4 KiB.
	Detail string
	// Lifetime shortens that of the policy "code".
	Lifetime time.Duration
}

// IssueCode makes an authorization code below the session, good once and for a short time.
func (a *Authority) IssueCode(ctx context.Context, s *Session, r CodeRequest) (Issued, error) {
	switch {
	case r.Client == "" || !plain(r.Client, store.MaxText):
		return Issued{}, badRequest("client: want 1 to %d bytes of UTF-8 without control characters", store.MaxText)
	case len(r.Detail) > 4<<10:
		return Issued{}, badRequest("detail: over 4 KiB")
	}
	x, err := a.signedIn(ctx, s, "a code")
	if err != nil {
		return Issued{}, err
	}
	return a.once(ctx, x, KindCode, PolicyCode, r.Client, r.Detail, r.Lifetime)
}

// once makes a token below x that is good once.
func (a *Authority) once(ctx context.Context, x *exam, kind Kind, policy, client, detail string, life time.Duration) (Issued, error) {
	if err := a.budget(x); err != nil {
		return Issued{}, err
	}
	above, err := x.under()
	if err != nil {
		return Issued{}, err
	}
	st := &state{policy: policy, detail: detail, above: above, authAt: x.state.authAt, methods: x.state.methods}
	c, err := a.newChild(x, kind, st, shorter(a.policy(policy).Absolute, life), client)
	if err != nil {
		return Issued{}, err
	}
	y := x.examOf(c)
	err = a.apply(ctx, c.rec.ID.Root(), a.wrote(c.rec.ID, c.state.op), c.op, store.Emit(y.event(kinds[kind].event+"created", "", forWhom(client))))
	if err != nil {
		return Issued{}, unlikely(err)
	}
	return Issued{Token: c.token, Session: y.session()}, nil
}

// A Code is what Redeem shows of an authorization code before it is redeemed.
type Code struct {
	// Session is what the code was made below.
	Session *Session
	Client  string
	Detail  string
}

// Redeem exchanges an authorization code for a grant, once. It calls check with what is known of the code: check returns
// the grant to make, or an error if the request does not fit the code (another client, redirect URI or verifier), which
// Redeem returns as it is; the code then stays good.
//
// A code that was redeemed before is refused with ReasonUsed. If check passes, so that whoever presents it knows all that
// goes with it, what it was redeemed for is ended, durably, before that: somebody has a copy of everything. Not within 10
// seconds, when the client has lost the answer and tries again; and not if check fails: a code alone, which is found in
// histories and logs, must not end anything (OAuth 2.1, 4.1.3).
func (a *Authority) Redeem(ctx context.Context, t Token, check func(*Code) (GrantRequest, error)) (_ Grant, err error) {
	defer a.counts.noted(&err)
	tok, err := a.parse(t, nil)
	if err != nil {
		return Grant{}, err
	}
	if Kind(tok.Kind) != KindCode {
		return Grant{}, refuse(ReasonWrongKind)
	}
	for range attempts {
		x, err := a.look(ctx, &tok, a.now())
		if err != nil {
			return Grant{}, err
		}
		switch {
		case x.rec == nil:
			return Grant{}, refuse(ReasonUnknown)
		case Kind(x.rec.Kind) != KindCode || a.judge(x, clientHash{}) != current:
			return Grant{}, refuse(ReasonForged)
		}
		g, err := a.redeem(ctx, x, check)
		if err != errConflict {
			return g, err
		}
	}
	return Grant{}, exhausted("redeem")
}

func (a *Authority) redeem(ctx context.Context, x *exam, check func(*Code) (GrantRequest, error)) (Grant, error) {
	parent := &exam{now: x.now, standpoint: x.above[0], subject: x.subject, above: x.above[1:]}
	code := &Code{Session: parent.session(), Client: x.rec.Client, Detail: x.state.detail}
	if x.state.used != 0 {
		return Grant{}, a.replayed(ctx, x, code, check)
	}
	if why, cause, at := x.standing(); why != "" {
		return Grant{}, x.refusal(why, cause, at)
	}
	r, err := check(code)
	if err != nil {
		return Grant{}, err
	}
	switch {
	case r.Tenant != x.rec.Tenant:
		return Grant{}, x.refusal(ReasonWrongTenant, "", time.Time{})
	case r.Client != code.Client:
		return Grant{}, x.refusal(ReasonWrongClient, "", time.Time{})
	}
	if err := r.check(); err != nil {
		return Grant{}, err
	}
	p, err := a.planGrant(parent, &r)
	if err != nil {
		return Grant{}, err
	}
	st := x.state.clone()
	st.used, st.made, st.op = x.now.UnixMilli(), p.result(), newOp()
	payload, err := st.encode()
	if err != nil {
		return Grant{}, err
	}
	rec := next(x.rec)
	ops := []store.Op{a.put(rec, x.rec.Version, payload), store.Emit(x.event(EventCodeRedeemed, "", forWhom(r.Client)))}
	// A grant under the session is made with the redemption, or not at all. An offline one is a root of its own: after a
	// crash between the two the code is used up and there is no grant, and the person signs in again.
	if !r.Offline || p.refresh == nil {
		ops = append(ops, p.ops()...)
	}
	if err := a.apply(ctx, rec.ID.Root(), a.wrote(rec.ID, st.op), ops...); err != nil {
		return Grant{}, err
	}
	if r.Offline && p.refresh != nil {
		if err := a.carryOut(ctx, p); err != nil {
			return Grant{}, err
		}
		if err := p.lookBack(ctx, a); err != nil {
			return Grant{}, err
		}
		if err := a.lookBackAtCode(ctx, x, p); err != nil {
			return Grant{}, err
		}
	}
	return p.grant(), nil
}

// lookBackAtCode ends an offline grant that was made while the code was replayed: the replay found nothing to end yet.
func (a *Authority) lookBackAtCode(ctx context.Context, x *exam, p *plan) error {
	rs, err := a.store.Get(ctx, x.rec.ID)
	if err != nil {
		return unavailable("read", err)
	}
	if rs[0] == nil || rs[0].Marked == 0 {
		return nil
	}
	ctx, cancel := unhurried(ctx)
	defer cancel()
	if err := a.revoke(ctx, p.refresh.rec, p.refresh.rec, ReasonUsed); err != nil {
		return err
	}
	return x.refusal(ReasonUsed, "", x.now)
}

// replayed refuses a code that was redeemed before, and ends what came of it if it is presented late, with all that goes
// with it.
func (a *Authority) replayed(ctx context.Context, x *exam, code *Code, check func(*Code) (GrantRequest, error)) error {
	used := fromMillis(x.state.used)
	refusal := x.refusal(ReasonUsed, "", used)
	if r, err := check(code); err != nil || r.Client != code.Client || x.now.Sub(used) < codeRetry {
		return refusal
	}
	ctx, cancel := unhurried(ctx)
	defer cancel()
	if x.rec.Marked == 0 { // first of all: who is redeeming it at this moment looks back
		err := a.apply(ctx, x.rec.ID.Root(), nil, store.Mark(x.rec.ID, x.now.UnixMilli(), string(ReasonUsed)),
			store.Emit(x.event(EventCodeReplayed, ReasonUsed, "what it was redeemed for is ended")))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	if x.state.made.IsZero() { // it was redeemed for a JWT, of which there is no record: its time is short
		return refusal
	}
	rs, err := a.store.Get(ctx, x.state.made)
	switch {
	case err != nil:
		return unavailable("read", err)
	case rs[0] == nil || rs[0].Marked != 0:
		return refusal
	}
	root := x.root().rec
	if rs[0].ID.IsRoot() { // an offline grant
		root = rs[0]
	}
	if err := a.revoke(ctx, rs[0], root, ReasonUsed); err != nil && err != ErrNoSession {
		return err
	}
	return refusal
}
