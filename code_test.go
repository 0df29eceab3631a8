package afterlogin_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

var errVerifier = errors.New("wrong verifier")

func (h *house) code(s *afterlogin.Session) afterlogin.Token {
	h.t.Helper()
	got, err := h.IssueCode(h.t.Context(), s, afterlogin.CodeRequest{Client: "app", Detail: "challenge"})
	if err != nil {
		h.t.Fatal(err)
	}
	return got.Token
}

// redeem is the token request of the client, with the right verifier or a wrong one.
func (h *house) redeem(code afterlogin.Token, offline, right bool) (afterlogin.Grant, error) {
	return h.Redeem(h.t.Context(), code, func(c *afterlogin.Code) (afterlogin.GrantRequest, error) {
		if c.Detail != "challenge" || c.Client != "app" || c.Session.Subject != "mia" {
			h.t.Errorf("the code says %+v", c)
		}
		if !right {
			return afterlogin.GrantRequest{}, errVerifier
		}
		return afterlogin.GrantRequest{Client: "app", Offline: offline, Scopes: []string{"orders"}}, nil
	})
}

func TestACodeIsGoodOnce(t *testing.T) {
	for _, offline := range []bool{false, true} {
		h := newHouse(t)
		in := h.signIn("mia")
		code := h.code(in.Session)
		if _, err := h.redeem(code, offline, false); err != errVerifier {
			t.Fatalf("a wrong verifier: %v", err)
		}
		g, err := h.redeem(code, offline, true)
		if err != nil {
			t.Fatal(err)
		}
		if offline != (g.Refresh.Session.Root == g.Refresh.Session.ID) {
			t.Errorf("offline %v: %+v", offline, g.Refresh.Session)
		}
		h.check(g.Access.Token, afterlogin.KindAccess, "")
		// The client tries again: refused, and nothing ends.
		if _, err := h.redeem(code, offline, true); afterlogin.ReasonOf(err) != afterlogin.ReasonUsed {
			t.Errorf("the second try: %v", err)
		}
		g = h.refresh(g.Refresh.Token, "")
		// Somebody without the verifier: refused, however late, and nothing ends. A code alone is found in many places.
		h.clock.pass(15 * time.Second)
		if _, err := h.redeem(code, offline, false); afterlogin.ReasonOf(err) != afterlogin.ReasonUsed {
			t.Errorf("a replay: %v", err)
		}
		g = h.refresh(g.Refresh.Token, "")
		// Somebody with everything: what it was redeemed for ends, and nothing else.
		if _, err := h.redeem(code, offline, true); afterlogin.ReasonOf(err) != afterlogin.ReasonUsed {
			t.Errorf("a full replay: %v", err)
		}
		h.refresh(g.Refresh.Token, afterlogin.ReasonRevoked)
		h.check(g.Access.Token, afterlogin.KindAccess, afterlogin.ReasonRevoked)
		h.use(in.Token, home, "")
	}
}

func TestALateSecondTryIsAReplay(t *testing.T) {
	h := newHouse(t)
	code := h.code(h.signIn("mia").Session)
	g, err := h.redeem(code, true, true)
	if err != nil {
		t.Fatal(err)
	}
	h.clock.pass(11 * time.Second)
	if _, err := h.redeem(code, true, true); afterlogin.ReasonOf(err) != afterlogin.ReasonUsed {
		t.Errorf("a late second try: %v", err)
	}
	h.refresh(g.Refresh.Token, afterlogin.ReasonRevoked)
}

func TestACodeEnds(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	code := h.code(in.Session)
	h.clock.pass(time.Minute)
	if _, err := h.redeem(code, true, true); afterlogin.ReasonOf(err) != afterlogin.ReasonExpired {
		t.Errorf("after a minute: %v", err)
	}
	code = h.code(in.Session)
	h.check(code, afterlogin.KindCode, "") // it can be examined like any token, and lets nobody in anywhere
	if err := h.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	if _, err := h.redeem(code, true, true); afterlogin.ReasonOf(err) != afterlogin.ReasonRevoked {
		t.Errorf("after the sign-out: %v", err)
	}
	if _, err := h.redeem(in.Token, true, true); afterlogin.ReasonOf(err) != afterlogin.ReasonWrongKind {
		t.Errorf("a session token: %v", err)
	}
}

func TestManyRedeemOneCode(t *testing.T) {
	for _, offline := range []bool{false, true} {
		h := newHouse(t)
		code := h.code(h.signIn("mia").Session)
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				switch _, err := h.redeem(code, offline, true); {
				case err == nil:
					won.Add(1)
				case afterlogin.ReasonOf(err) != afterlogin.ReasonUsed:
					t.Errorf("redeem: %v", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("offline %v: %d redemptions of one code", offline, won.Load())
		}
	}
}

func TestTickets(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	ticket := func(nonce string) afterlogin.Token {
		t.Helper()
		got, err := h.IssueTicket(t.Context(), in.Session, afterlogin.TicketRequest{Target: "https://b.example/start", Nonce: nonce})
		if err != nil {
			t.Fatal(err)
		}
		return got.Token
	}
	redeem := func(tok afterlogin.Token, target, nonce string, open bool, want afterlogin.Reason) afterlogin.Issued {
		t.Helper()
		got, err := h.RedeemTicket(t.Context(), tok, afterlogin.TicketUse{Target: target, Nonce: nonce, Open: open, Device: home})
		if afterlogin.ReasonOf(err) != want || want == "" && err != nil {
			t.Fatalf("RedeemTicket = %v, want %q", err, want)
		}
		return got
	}
	tok := ticket("n")
	redeem(tok, "https://b.example/other", "n", true, afterlogin.ReasonWrongTarget)
	redeem(tok, "https://b.example/start", "", true, afterlogin.ReasonWrongTarget)
	redeem(tok, "https://b.example/start", "other browser", true, afterlogin.ReasonWrongTarget)
	there := redeem(tok, "https://b.example/start", "n", true, "")
	redeem(tok, "https://b.example/start", "n", true, afterlogin.ReasonUsed)
	s := h.use(there.Token, home, "")
	if s.Root != in.Session.ID || s.ID == in.Session.ID || s.Subject != "mia" || s.Kind != afterlogin.KindSession {
		t.Errorf("the session on the other host is %+v, want a child of %s", s, in.Session.ID)
	}
	h.use(in.Token, home, "") // a replay ends nothing

	// It is renewed by itself, and its use keeps the one above signed in.
	for range 6 {
		h.clock.pass(15 * time.Minute)
		if next := h.renew(there.Token, home); !next.IsZero() {
			there.Token = next
		}
	}
	h.use(in.Token, home, "")
	h.use(there.Token, home, "")
	if err := h.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	h.use(there.Token, home, afterlogin.ReasonRevoked)

	in = h.signIn("mia")
	if got := redeem(ticket(""), "https://b.example/start", "", false, ""); got.Session.ID != in.Session.ID || !got.Token.IsZero() {
		t.Errorf("a ticket for one request gives %+v", got)
	}
	late := ticket("")
	h.clock.pass(30 * time.Second)
	redeem(late, "https://b.example/start", "", false, afterlogin.ReasonExpired)
	redeem(in.Token, "https://b.example/start", "", false, afterlogin.ReasonWrongKind)
	h.check(late, afterlogin.KindTicket, afterlogin.ReasonExpired)
}

func TestASessionHandedOverEndsAlone(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	tok, err := h.IssueTicket(t.Context(), in.Session, afterlogin.TicketRequest{Target: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	there, err := h.RedeemTicket(t.Context(), tok.Token, afterlogin.TicketUse{Target: "/x", Open: true, Device: home})
	if err != nil {
		t.Fatal(err)
	}
	// The two share the data of the one above.
	if err := h.UpdateData(t.Context(), there.Session, func(d *afterlogin.Data) error { return d.Set("cart", "tea") }); err != nil {
		t.Fatal(err)
	}
	if got := h.cart(in.Session); got != `"tea"` {
		t.Errorf("the cart above is %s", got)
	}
	if err := h.Revoke(t.Context(), there.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	h.use(there.Token, home, afterlogin.ReasonRevoked)
	h.use(in.Token, home, "")
	s, err := h.Session(t.Context(), there.Session.ID)
	if err != nil || s.Why != afterlogin.ReasonSignedOut || s.Root != in.Session.ID {
		t.Errorf("Session of the child = %+v, %v", s, err)
	}
}

func TestOneTicketLetsInOne(t *testing.T) {
	h := newHouse(t)
	tok, err := h.IssueTicket(t.Context(), h.signIn("mia").Session, afterlogin.TicketRequest{Target: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	var in atomic.Int32
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			switch _, err := h.RedeemTicket(t.Context(), tok.Token, afterlogin.TicketUse{Target: "/x"}); {
			case err == nil:
				in.Add(1)
			case afterlogin.ReasonOf(err) != afterlogin.ReasonUsed:
				t.Errorf("redeem: %v", err)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Errorf("one ticket let in %d", in.Load())
	}
}
