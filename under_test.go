package afterlogin_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
)

// What stands under what, and what must not be made of it: the attacks on children, one by one.

// A token that was given to somebody else reaches no further than it was made for.
func TestNoTokenBecomesMore(t *testing.T) {
	h := newHouse(t, withIssuer)
	in := h.signIn("mia")
	g := h.grant(in.Session, afterlogin.GrantRequest{Scopes: []string{"read"}})
	key := h.key(afterlogin.IssueRequest{Subject: "mia"})
	jwt := h.jwt(in.Session, afterlogin.AccessRequest{Scopes: []string{"read"}})
	for name, s := range map[string]*afterlogin.Session{
		"a JWT": h.jwtAt(jwt.Token, issuer, ""), "an access token": h.check(g.Access.Token, afterlogin.KindAccess, ""),
		"a grant": g.Refresh.Session, "an API key": key.Session,
	} {
		if _, err := h.IssueGrant(t.Context(), s, afterlogin.GrantRequest{Client: "app", Offline: true, Scopes: []string{"admin"}}); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("%s becomes a grant: %v", name, err)
		}
		if _, err := h.IssueTicket(t.Context(), s, afterlogin.TicketRequest{Target: "/x"}); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("%s becomes a ticket: %v", name, err)
		}
		if _, err := h.IssueCode(t.Context(), s, afterlogin.CodeRequest{Client: "app"}); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("%s becomes a code: %v", name, err)
		}
	}
	for name, tok := range map[string]afterlogin.Token{"a refresh token": g.Refresh.Token, "an access token": g.Access.Token, "a code": h.code(in.Session)} {
		for _, k := range []afterlogin.Kind{afterlogin.KindRefresh, afterlogin.KindAccess, afterlogin.KindCode} {
			if got, err := h.Rotate(t.Context(), tok, afterlogin.Expect{Kinds: []afterlogin.Kind{k}}); err == nil || !got.Token.IsZero() {
				t.Errorf("%s is rotated as a session", name)
			}
		}
		if got, err := h.Renew(t.Context(), tok, nil, home); err != nil || !got.Token.IsZero() {
			t.Errorf("%s is renewed as a session: %v", name, err)
		}
	}
}

func TestAJWTDoesNotOutliveItselfByExchange(t *testing.T) {
	h := newHouse(t, withIssuer)
	j := h.jwt(h.signIn("mia").Session, afterlogin.AccessRequest{Lifetime: time.Minute})
	s := h.jwtAt(j.Token, issuer, "")
	for _, r := range []afterlogin.AccessRequest{{}, {JWT: true}} {
		got, err := h.IssueAccess(t.Context(), s, r)
		if err != nil {
			t.Fatal(err)
		}
		if got.Session.Absolute.After(j.Session.Absolute) {
			t.Errorf("until %v, from a JWT until %v", got.Session.Absolute, j.Session.Absolute)
		}
	}
	h.clock.pass(time.Minute)
	if _, err := h.IssueAccess(t.Context(), s, afterlogin.AccessRequest{}); afterlogin.ReasonOf(err) != afterlogin.ReasonExpired {
		t.Errorf("from a JWT that is over: %v", err)
	}
}

func TestAJWTEndsWithWhateverItWasMadeUnder(t *testing.T) {
	h := newHouse(t, withIssuer)
	in := h.signIn("mia")
	ticket, err := h.IssueTicket(t.Context(), in.Session, afterlogin.TicketRequest{Target: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	there, err := h.RedeemTicket(t.Context(), ticket.Token, afterlogin.TicketUse{Target: "/x", Open: true})
	if err != nil {
		t.Fatal(err)
	}
	g := h.grant(in.Session, afterlogin.GrantRequest{})
	access := h.check(g.Access.Token, afterlogin.KindAccess, "")
	of := h.jwt(there.Session, afterlogin.AccessRequest{})
	below := h.jwt(access, afterlogin.AccessRequest{})
	h.jwtAt(of.Token, issuer, "")
	h.jwtAt(below.Token, issuer, "")
	if err := h.Revoke(t.Context(), there.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	h.jwtAt(of.Token, issuer, afterlogin.ReasonRevoked)
	if _, err := h.RevokeToken(t.Context(), g.Access.Token, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	h.jwtAt(below.Token, issuer, afterlogin.ReasonRevoked)
	below = h.jwt(h.refresh(g.Refresh.Token, "").Access.Session, afterlogin.AccessRequest{})
	if err := h.Revoke(t.Context(), g.Refresh.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	h.jwtAt(below.Token, issuer, afterlogin.ReasonRevoked)
}

func TestRateAndBudgetAreTwoThings(t *testing.T) {
	h := newHouse(t)
	k := h.key(afterlogin.IssueRequest{Rate: 60})
	used, made := 0, 0
	for range 400 {
		if _, err := h.keyFrom(k.Token, home); err == nil {
			used++
		}
		if _, err := h.IssueAccess(t.Context(), k.Session, afterlogin.AccessRequest{}); err == nil {
			made++
		}
	}
	if used != 60 || made != 256 {
		t.Errorf("%d requests and %d tokens, want 60 and 256", used, made)
	}
}

// What cannot be answered costs neither the code nor the refresh token.
func TestABadWishCostsNothing(t *testing.T) {
	h := newHouse(t, withIssuer)
	in := h.signIn("mia")
	bad := afterlogin.AccessRequest{JWT: true, Scopes: []string{`say"hi`}}
	g := h.grant(in.Session, afterlogin.GrantRequest{Offline: true, Scopes: []string{`say"hi`, "ok"}})
	for range 3 {
		if _, err := h.Refresh(t.Context(), g.Refresh.Token, afterlogin.RefreshRequest{Client: "app", Access: bad}); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Fatalf("Refresh: %v", err)
		}
		h.clock.pass(15 * time.Second)
	}
	if g = h.refresh(g.Refresh.Token, ""); g.Refresh.Session.Generation != 2 {
		t.Errorf("generation %d after three bad requests and a good one", g.Refresh.Session.Generation)
	}
	code := h.code(in.Session)
	redeem := func(access afterlogin.AccessRequest) error {
		_, err := h.Redeem(t.Context(), code, func(*afterlogin.Code) (afterlogin.GrantRequest, error) {
			return afterlogin.GrantRequest{Client: "app", Scopes: access.Scopes, Access: access}, nil
		})
		return err
	}
	if err := redeem(bad); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Fatalf("Redeem: %v", err)
	}
	if err := redeem(afterlogin.AccessRequest{}); err != nil {
		t.Errorf("the code after a bad request: %v", err)
	}
}

// A key that is ended, or rotated, while it is being rotated leaves no sibling behind.
func TestRotationOfAKeyThatEndsMeanwhile(t *testing.T) {
	for name, meanwhile := range map[string]func(h *house, in afterlogin.Issued, k afterlogin.Issued) error{
		"revoked": func(h *house, in, k afterlogin.Issued) error {
			return h.Revoke(t.Context(), k.Session.ID, afterlogin.ReasonAdministrator)
		},
		"ended with its origin": func(h *house, in, k afterlogin.Issued) error {
			_, err := h.RevokeFrom(t.Context(), in.Session.ID, afterlogin.ReasonAdministrator)
			return err
		},
		"signed out": func(h *house, in, k afterlogin.Issued) error {
			return h.RevokeSubject(t.Context(), 0, "mia", afterlogin.Everything, afterlogin.ReasonAdministrator)
		},
	} {
		gate := &gated{}
		h := newHouse(t, func(c *afterlogin.Config) { gate.Store, c.Store = c.Store, gate })
		in := h.signIn("mia")
		k := h.key(afterlogin.IssueRequest{Subject: "mia", Origin: in.Session.ID})
		gate.before = func() {
			if err := meanwhile(h, in, k); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		gate.armed = true
		if got, err := h.RotateKey(t.Context(), k.Session.ID, time.Hour); !errors.Is(err, afterlogin.ErrInvalidToken) || !got.Token.IsZero() {
			t.Errorf("%s: RotateKey = %v", name, err)
		}
		for s, err := range h.Sessions(t.Context(), afterlogin.Query{Subject: "mia", Kind: afterlogin.KindAPIKey}) {
			t.Errorf("%s: %s is still good (%v)", name, s.ID, err)
		}
	}
	gate := &gated{}
	h := newHouse(t, func(c *afterlogin.Config) { gate.Store, c.Store = c.Store, gate })
	k := h.key(afterlogin.IssueRequest{})
	gate.before = func() {
		if _, err := h.RotateKey(t.Context(), k.Session.ID, time.Hour); err != nil {
			t.Error(err)
		}
	}
	gate.armed = true
	if _, err := h.RotateKey(t.Context(), k.Session.ID, time.Hour); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("a second rotation at the same time: %v", err)
	}
	good := 0
	for range h.Sessions(t.Context(), afterlogin.Query{Subject: "svc"}) {
		good++
	}
	if good != 2 {
		t.Errorf("%d good keys, want the old one and one successor", good)
	}
}

// A successor lives as long as the first key was made for, also where an earlier successor was revoked.
func TestTheLifeOfASecondSuccessor(t *testing.T) {
	h := newHouse(t)
	k := h.key(afterlogin.IssueRequest{})
	lost, err := h.RotateKey(t.Context(), k.Session.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Revoke(t.Context(), lost.Session.ID, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	next, err := h.RotateKey(t.Context(), k.Session.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if got := next.Session.Absolute.Sub(h.clock.now()); got != 365*24*time.Hour {
		t.Errorf("it lives %v, want a year", got)
	}
}

func TestEventsNameWhatEnded(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	k := h.key(afterlogin.IssueRequest{})
	below, err := h.IssueAccess(t.Context(), k.Session, afterlogin.AccessRequest{})
	if err != nil {
		t.Fatal(err)
	}
	off := h.grant(in.Session, afterlogin.GrantRequest{Offline: true})
	code := h.code(in.Session)
	replayed, err := h.redeem(code, true, true)
	if err != nil {
		t.Fatal(err)
	}
	h.clock.pass(15 * time.Second)
	_, err = h.redeem(code, true, true)
	if afterlogin.ReasonOf(err) != afterlogin.ReasonUsed {
		t.Fatal(err)
	}
	for _, id := range []afterlogin.SessionID{below.Session.ID, k.Session.ID, off.Refresh.Session.ID} {
		if err := h.Revoke(t.Context(), id, afterlogin.ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.AddClient(t.Context(), 0, "backend", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if err := h.RemoveClient(t.Context(), 0, "backend"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]afterlogin.Event{}
	for len(h.events) > 0 {
		e := <-h.events
		seen[e.Type+" "+string(e.Session)] = e
		if strings.ContainsAny(e.Type, "@") || strings.Contains(e.Subject, "\x00") {
			t.Errorf("event %+v", e)
		}
	}
	for _, want := range []struct {
		typ      string
		id, root afterlogin.SessionID
	}{
		{afterlogin.EventAccessRevoked, below.Session.ID, k.Session.ID},
		{afterlogin.EventKeyRevoked, k.Session.ID, k.Session.ID},
		{afterlogin.EventGrantRevoked, off.Refresh.Session.ID, off.Refresh.Session.ID},
		{afterlogin.EventGrantRevoked, replayed.Refresh.Session.ID, replayed.Refresh.Session.ID},
	} {
		if e, ok := seen[want.typ+" "+string(want.id)]; !ok || e.Root != want.root {
			t.Errorf("%s of %s: %+v, want it below %s", want.typ, want.id, e, want.root)
		}
	}
}

func TestActorsStandBehindEachOther(t *testing.T) {
	h := newHouse(t, withIssuer)
	s := h.signIn("mia").Session
	one, err := h.IssueAccess(t.Context(), s, afterlogin.AccessRequest{Actor: "svc-a"})
	if err != nil {
		t.Fatal(err)
	}
	two, err := h.IssueAccess(t.Context(), one.Session, afterlogin.AccessRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := h.check(two.Token, afterlogin.KindAccess, ""); got.Actor() != "svc-a" {
		t.Errorf("the actor is %q after an exchange without one", got.Actor())
	}
	three := h.jwt(two.Session, afterlogin.AccessRequest{Actor: "svc-b"})
	got := h.jwtAt(three.Token, issuer, "")
	if got.Actor() != "svc-b" || !slices.Equal(got.Actors(), []string{"svc-b", "svc-a"}) {
		t.Errorf("actors %q", got.Actors())
	}
}

func TestLimitsOfAKeyHoldBelowIt(t *testing.T) {
	h := newHouse(t, withIssuer)
	k := h.key(afterlogin.IssueRequest{Rate: 10, Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	tok, err := h.IssueAccess(t.Context(), k.Session, afterlogin.AccessRequest{})
	if err != nil {
		t.Fatal(err)
	}
	jwt := h.jwt(k.Session, afterlogin.AccessRequest{})
	use := func(from afterlogin.Client, tok afterlogin.Token, k afterlogin.Kind) error {
		_, err := h.Validate(t.Context(), tok, afterlogin.Expect{Kinds: []afterlogin.Kind{k}, From: from})
		return err
	}
	for range 2 {
		for tok, k := range map[*afterlogin.Token]afterlogin.Kind{&tok.Token: afterlogin.KindAccess, &jwt.Token: afterlogin.KindJWT} {
			if err := use(thief, *tok, k); afterlogin.ReasonOf(err) != afterlogin.ReasonWrongNetwork {
				t.Errorf("a %v from elsewhere: %v", k, err)
			}
		}
	}
	n := 0
	for range 30 {
		for tok, k := range map[*afterlogin.Token]afterlogin.Kind{&tok.Token: afterlogin.KindAccess, &jwt.Token: afterlogin.KindJWT} {
			if use(home, *tok, k) == nil {
				n++
			}
		}
	}
	if n != 10 {
		t.Errorf("%d requests, want 10", n)
	}
}

func TestAnIdleKeyEndsWhatIsBelow(t *testing.T) {
	h := newHouse(t, func(c *afterlogin.Config) {
		c.Policies = map[string]afterlogin.Policy{afterlogin.PolicyAPIKey: {Idle: 10 * time.Minute, KeepOnReuse: true}}
	})
	k := h.key(afterlogin.IssueRequest{NoExpiry: true})
	tok, err := h.IssueAccess(t.Context(), k.Session, afterlogin.AccessRequest{})
	if err != nil {
		t.Fatal(err)
	}
	h.check(tok.Token, afterlogin.KindAccess, "")
	h.clock.pass(11 * time.Minute)
	h.check(tok.Token, afterlogin.KindAccess, afterlogin.ReasonIdle)
}

func TestAJWTKeepsItsOwnAuthentication(t *testing.T) {
	h := newHouse(t, withIssuer)
	in := h.signIn("mia")
	h.clock.pass(2 * time.Minute)
	j := h.jwt(in.Session, afterlogin.AccessRequest{})
	if _, err := h.StepUp(t.Context(), in.Token, afterlogin.Authentication{Methods: []string{"otp"}}, home); err != nil {
		t.Fatal(err)
	}
	_, err := h.Validate(t.Context(), j.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindJWT}, MaxAge: time.Minute})
	if afterlogin.ReasonOf(err) != afterlogin.ReasonStaleAuth {
		t.Errorf("a JWT from before a step-up, where the sign-in must be fresh: %v", err)
	}
}

// The access token may be used within the grace alone: refresh, call, sleep. That is a sight, too.
func TestASightWithinTheGraceCountsAfterIt(t *testing.T) {
	h := newHouse(t)
	g := h.grant(h.signIn("mia").Session, afterlogin.GrantRequest{Offline: true})
	old := g.Refresh.Token
	g = h.refresh(old, "")
	h.clock.pass(time.Second)
	h.check(g.Access.Token, afterlogin.KindAccess, "")
	if again := h.refresh(old, ""); !same(again.Refresh.Token, g.Refresh.Token) {
		t.Error("a refresh at the same time gets another successor")
	}
	h.clock.pass(10 * time.Minute)
	h.refresh(old, afterlogin.ReasonReused)
}

func TestTenantsKeepTheirGrants(t *testing.T) {
	h := newHouse(t)
	in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Tenant: 7})
	if err != nil {
		t.Fatal(err)
	}
	g := h.grant(in.Session, afterlogin.GrantRequest{Offline: true})
	h.refresh(g.Refresh.Token, afterlogin.ReasonWrongTenant)
	if _, err := h.Refresh(t.Context(), g.Refresh.Token, afterlogin.RefreshRequest{Client: "app", Tenant: 7}); err != nil {
		t.Errorf("its own tenant's client: %v", err)
	}
	code, err := h.IssueCode(t.Context(), in.Session, afterlogin.CodeRequest{Client: "app"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Redeem(t.Context(), code.Token, func(*afterlogin.Code) (afterlogin.GrantRequest, error) {
		return afterlogin.GrantRequest{Client: "app"}, nil
	})
	if afterlogin.ReasonOf(err) != afterlogin.ReasonWrongTenant {
		t.Errorf("another tenant's client with a code: %v", err)
	}
}

// An offline grant is made in a second write. A replay of the code between the two finds nothing to end; the redemption
// looks back.
func TestACodeReplayedWhileItIsRedeemed(t *testing.T) {
	gate := &gated{}
	h := newHouse(t, func(c *afterlogin.Config) { gate.Store, c.Store = c.Store, gate })
	code := h.code(h.signIn("mia").Session)
	n := 0
	gate.before = func() {
		if n++; n == 1 { // the code
			gate.armed = true
			return
		}
		h.clock.pass(15 * time.Second) // the second write hangs for as long
		if _, err := h.redeem(code, true, true); afterlogin.ReasonOf(err) != afterlogin.ReasonUsed {
			t.Errorf("the replay: %v", err)
		}
	}
	gate.armed = true
	if g, err := h.redeem(code, true, true); afterlogin.ReasonOf(err) != afterlogin.ReasonUsed || !g.Refresh.Token.IsZero() {
		t.Errorf("a redemption whose code is replayed meanwhile: %v", err)
	}
	for s := range h.Sessions(t.Context(), afterlogin.Query{Subject: "mia", Kind: afterlogin.KindRefresh}) {
		t.Errorf("%s is still good", s.ID)
	}
}

// One record that does not open keeps nobody else's signed in.
func TestRevokeFromPassesOverWhatDoesNotOpen(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	other := h.signIn("mia")
	var grants []afterlogin.Grant
	for range 4 {
		grants = append(grants, h.grant(in.Session, afterlogin.GrantRequest{Offline: true}))
	}
	for r, err := range h.store.List(t.Context(), store.Query{Subject: "mia"}) {
		if err != nil {
			t.Fatal(err)
		}
		if s, err := h.Session(t.Context(), other.Session.ID); err == nil && r.Created == s.Created.UnixMilli() && r.Kind == 's' {
			spoiled := *r
			spoiled.Payload = []byte("spoiled")
			spoiled.Version++
			if err := h.store.Apply(t.Context(), r.ID, store.Put(&spoiled, r.Version)); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	h.RevokeFrom(t.Context(), in.Session.ID, afterlogin.ReasonAdministrator) // the error names the spoiled one, if it is another
	for i, g := range grants {
		if _, err := h.Refresh(t.Context(), g.Refresh.Token, afterlogin.RefreshRequest{Client: "app"}); !errors.Is(err, afterlogin.ErrInvalidToken) {
			t.Errorf("grant %d: %v", i, err)
		}
	}
}

// A token made below a client is no reason to read the others again.
func TestANewTokenLeavesTheOthersCached(t *testing.T) {
	gets := &counted{}
	h := newHouse(t, func(c *afterlogin.Config) { gets.Store, c.Store = c.Store, gets })
	reg, err := h.AddClient(t.Context(), 0, "backend", []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := h.IssueAccess(t.Context(), reg.Session, afterlogin.AccessRequest{})
	if err != nil {
		t.Fatal(err)
	}
	h.check(tok.Token, afterlogin.KindAccess, "")
	for range 100 {
		if _, err := h.IssueAccess(t.Context(), reg.Session, afterlogin.AccessRequest{}); err != nil {
			t.Fatal(err)
		}
		before := gets.n.Load()
		h.check(tok.Token, afterlogin.KindAccess, "")
		if gets.n.Load() != before {
			t.Fatal("a validation reads the store because another token was made")
		}
	}
}

// counted counts the reads of a store.
type counted struct {
	store.Store
	n atomic.Int64
}

func (c *counted) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	c.n.Add(1)
	return c.Store.Get(ctx, ids...)
}

func TestAGrantThatCanBeMadeCanBeRefreshed(t *testing.T) {
	h := newHouse(t)
	s := h.signIn("mia").Session
	for n := 90; ; n-- {
		scopes := make([]string, n)
		for i := range scopes {
			scopes[i] = strings.Repeat("x", 100) + string(rune('a'+i/26)) + string(rune('a'+i%26))
		}
		got, err := h.IssueGrant(t.Context(), s, afterlogin.GrantRequest{Client: "app", Offline: true, Scopes: scopes})
		if errors.Is(err, afterlogin.ErrBadRequest) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 8 {
			got = h.refresh(got.Refresh.Token, "")
			h.clock.pass(time.Minute)
		}
		return
	}
}

func TestDataIsNoCredential(t *testing.T) {
	h := newHouse(t)
	in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Data: jsonData(`1`)})
	if err != nil {
		t.Fatal(err)
	}
	// The handle of a session's data can be made from that of the session.
	data := in.Session.ID + afterlogin.SessionID(strings.Repeat("A", 35-23))
	for name, err := range map[string]error{
		"Revoke": h.Revoke(t.Context(), data, "x"), "RevokeOthers": h.RevokeOthers(t.Context(), data, afterlogin.ReasonSignedOutAll),
		"Session": second(h.Session(t.Context(), data)),
	} {
		if err == nil || errors.Is(err, afterlogin.ErrUnavailable) {
			t.Errorf("%s of a session's data: %v", name, err)
		}
	}
	h.use(in.Token, home, "")
}

func second[T any](_ T, err error) error { return err }
