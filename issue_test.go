package afterlogin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

func (h *house) anonymous(cart string) afterlogin.Issued {
	h.t.Helper()
	got, err := h.Issue(h.t.Context(), afterlogin.IssueRequest{Data: jsonData(cart), Device: home})
	if err != nil {
		h.t.Fatal(err)
	}
	return got
}

func TestAnonymousBecomesSignedIn(t *testing.T) {
	h := newHouse(t)
	anon := h.anonymous(`["mug"]`)
	if !h.use(anon.Token, home, "").Anonymous() {
		t.Fatal("not anonymous")
	}
	in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: anon.Token})
	if err != nil {
		t.Fatal(err)
	}
	if in.Session.ID == anon.Session.ID || same(in.Token, anon.Token) {
		t.Error("the sign-in keeps the session id or the token")
	}
	if got := h.cart(in.Session); got != `["mug"]` {
		t.Errorf("the cart after the sign-in: %s", got)
	}
	h.use(anon.Token, home, afterlogin.ReasonSuperseded)
	h.clock.pass(2 * time.Hour)
	h.use(anon.Token, thief, afterlogin.ReasonSuperseded) // never theft, however late
}

// The answer to a sign-in is lost: the browser still has the anonymous cookie, and the second try has the cart.
func TestALostSignInAnswerKeepsTheCart(t *testing.T) {
	h := newHouse(t)
	anon := h.anonymous(`["mug"]`)
	for _, tt := range []struct {
		after time.Duration
		want  string
	}{{0, `["mug"]`}, {59 * time.Second, `["mug"]`}, {time.Minute, ""}} {
		h.clock.pass(tt.after)
		in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: anon.Token})
		if err != nil || h.cart(in.Session) != tt.want {
			t.Errorf("%v later: %v, cart %q, want %q", tt.after, err, h.cart(in.Session), tt.want)
		}
	}
}

func TestSignInOverASignedInSession(t *testing.T) {
	for _, tt := range []struct{ who, cart string }{{"mia", `["mug"]`}, {"tom", ""}} {
		h := newHouse(t)
		in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Data: jsonData(`["mug"]`)})
		if err != nil {
			t.Fatal(err)
		}
		again, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: tt.who, From: in.Token})
		if err != nil {
			t.Fatal(err)
		}
		h.use(in.Token, home, afterlogin.ReasonSuperseded)
		if got := h.cart(again.Session); got != tt.cart {
			t.Errorf("%s signs in over mia's session: cart %q, want %q", tt.who, got, tt.cart)
		}
	}
}

func TestSignInAfterATheftKeepsTheCart(t *testing.T) {
	h := newHouse(t)
	in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Data: jsonData(`["mug"]`)})
	if err != nil {
		t.Fatal(err)
	}
	next := h.renewed(in.Token, home)
	h.use(next, home, "")
	h.clock.pass(time.Minute)
	h.use(in.Token, thief, afterlogin.ReasonReused)
	h.use(next, home, afterlogin.ReasonRevoked)

	// The thief knows another account's password, not hers.
	tom, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "tom", From: in.Token})
	if err != nil || h.cart(tom.Session) != "" {
		t.Fatalf("tom signs in with mia's old token: %v, cart %q", err, h.cart(tom.Session))
	}
	mia, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: next})
	if err != nil || h.cart(mia.Session) != `["mug"]` {
		t.Fatalf("mia signs in again: %v, cart %q", err, h.cart(mia.Session))
	}
}

func TestNothingMovesFromASignedOutSession(t *testing.T) {
	h := newHouse(t)
	in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Data: jsonData(`["mug"]`)})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	again, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: in.Token})
	if err != nil || h.cart(again.Session) != "" {
		t.Fatalf("%v, cart %q", err, h.cart(again.Session))
	}
}

func TestAPlantedTokenIsNotAdopted(t *testing.T) {
	h := newHouse(t)
	other := newHouse(t) // another installation, whose tokens mean nothing here
	for name, planted := range map[string]afterlogin.Token{
		"junk":            afterlogin.TokenFrom("als_fixed"),
		"another's token": other.signIn("eve").Token,
	} {
		in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: planted})
		if err != nil || same(in.Token, planted) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Writes to the cart that are answered before or during a sign-in are in the new session; those after it are refused.
func TestNoCartWriteIsLostInASignIn(t *testing.T) {
	for range 30 {
		h := newHouse(t)
		anon := h.anonymous(`{}`)
		const n = 8
		wrote := make([]bool, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				err := h.UpdateData(t.Context(), anon.Session, func(d *afterlogin.Data) error {
					return d.Set(fmt.Sprint("item", i), true)
				})
				wrote[i] = err == nil
				if err != nil && !errors.Is(err, afterlogin.ErrUnavailable) && afterlogin.ReasonOf(err) != afterlogin.ReasonSuperseded {
					t.Errorf("write %d: %v", i, err)
				}
			})
		}
		var in afterlogin.Issued
		wg.Go(func() {
			var err error
			if in, err = h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: anon.Token}); err != nil {
				t.Errorf("sign-in: %v", err)
			}
		})
		wg.Wait()
		if t.Failed() {
			return
		}
		d, err := h.Data(t.Context(), in.Session)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if wrote[i] && d.JSON(fmt.Sprint("item", i)) == nil {
				t.Fatalf("item %d was acknowledged and is not in the new cart", i)
			}
		}
	}
}

func TestConcurrentSignInsFromOneSessionBothGetTheCart(t *testing.T) {
	h := newHouse(t)
	anon := h.anonymous(`["mug"]`)
	got := make([]afterlogin.Issued, 4)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: anon.Token}); err != nil {
				t.Errorf("sign-in %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	with := 0
	for _, g := range got {
		if g.Session != nil && h.cart(g.Session) == `["mug"]` {
			with++
		}
	}
	if with == 0 {
		t.Error("no sign-in got the cart")
	}
	h.use(anon.Token, home, afterlogin.ReasonSuperseded)
}

func TestBegin(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	issue := func(m afterlogin.Mark) error {
		_, err := h.Issue(ctx, afterlogin.IssueRequest{Subject: "mia", Mark: m})
		return err
	}
	begin := func(subject string) afterlogin.Mark {
		m, err := h.Begin(ctx, 0, subject)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first := begin("mia") // before the first sign-in ever
	if err := issue(first); err != nil {
		t.Fatal(err)
	}
	if err := issue(first); err != nil {
		t.Errorf("another first sign-in at the same time: %v", err)
	}
	second := begin("mia")
	if err := h.RevokeSubject(ctx, 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil { // the password was changed
		t.Fatal(err)
	}
	for name, m := range map[string]afterlogin.Mark{"first": first, "second": second} {
		if err := issue(m); !errors.Is(err, afterlogin.ErrStaleSignIn) {
			t.Errorf("%s mark after a sign-out everywhere: %v, want ErrStaleSignIn", name, err)
		}
	}
	if err := issue(begin("tom")); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("a mark of another subject: %v, want ErrBadRequest", err)
	}
	if err := issue(begin("mia")); err != nil {
		t.Error(err)
	}
	// Signed out before the first sign-in.
	eve := begin("eve")
	if err := h.RevokeSubject(ctx, 0, "eve", afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Issue(ctx, afterlogin.IssueRequest{Subject: "eve", Mark: eve}); !errors.Is(err, afterlogin.ErrStaleSignIn) {
		t.Errorf("a first sign-in across a sign-out: %v", err)
	}
}

func TestIssueRefusesNonsense(t *testing.T) {
	h := newHouse(t)
	for name, r := range map[string]afterlogin.IssueRequest{
		"nobody, and no data":                       {},
		"an over-long subject":                      {Subject: strings.Repeat("x", 513)},
		"a subject that is not UTF-8":               {Subject: "\xff"},
		"an unknown policy":                         {Subject: "mia", Policy: "weekend"},
		"an unknown kind":                           {Subject: "mia", Kind: 'z'},
		"an empty scope":                            {Subject: "mia", Scopes: []string{""}},
		"a negative lifetime":                       {Subject: "mia", Lifetime: -1},
		"a session without end":                     {Subject: "mia", NoExpiry: true},
		"a key without end under a policy with one": {Subject: "mia", Kind: afterlogin.KindAPIKey, NoExpiry: true},
		"data that is not JSON":                     {Subject: "mia", Data: map[string]json.RawMessage{"a": json.RawMessage("{")}},
		"over-long scopes":                          {Subject: "mia", Scopes: slicesOf(100, strings.Repeat("s", 128))},
	} {
		if _, err := h.Issue(t.Context(), r); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("%s: %v, want ErrBadRequest", name, err)
		}
	}
	big := map[string]json.RawMessage{"a": json.RawMessage(`"` + strings.Repeat("x", 64<<10) + `"`)}
	var tooLarge *afterlogin.DataTooLargeError
	if _, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Data: big}); !errors.As(err, &tooLarge) {
		t.Errorf("too much data: %v", err)
	}
}

func slicesOf(n int, s string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func TestLifetimeShortensOnly(t *testing.T) {
	h := newHouse(t)
	for _, tt := range []struct{ ask, want time.Duration }{{0, 24 * time.Hour}, {time.Hour, time.Hour}, {1000 * time.Hour, 24 * time.Hour}} {
		in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Lifetime: tt.ask})
		if err != nil {
			t.Fatal(err)
		}
		if got := in.Session.Absolute.Sub(h.clock.now()); got != tt.want {
			t.Errorf("lifetime %v gives %v, want %v", tt.ask, got, tt.want)
		}
	}
}

func TestAPIKey(t *testing.T) {
	h := newHouse(t)
	key, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey, Name: "nightly", Scopes: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	e := afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}, Scopes: []string{"a"}}
	if _, err := h.Validate(t.Context(), key.Token, e); err != nil {
		t.Error(err)
	}
	h.use(key.Token, home, afterlogin.ReasonWrongKind) // not as a cookie
	if _, err := h.Validate(t.Context(), h.signIn("mia").Token, e); afterlogin.ReasonOf(err) != afterlogin.ReasonWrongKind {
		t.Errorf("a session as an API key: %v", err)
	}
	e.Scopes = []string{"a", "c"}
	if _, err := h.Validate(t.Context(), key.Token, e); afterlogin.ReasonOf(err) != afterlogin.ReasonScope {
		t.Errorf("a scope that it lacks: %v", err)
	}
	e.Scopes = nil
	h.clock.pass(300 * 24 * time.Hour) // unused for long: keys have no idle limit
	if _, err := h.Validate(t.Context(), key.Token, e); err != nil {
		t.Error(err)
	}
	if err := h.RevokeSubject(t.Context(), 0, "robot", afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Validate(t.Context(), key.Token, e); err != nil {
		t.Errorf("signing out everywhere ended the API key: %v", err)
	}
	if err := h.RevokeSubject(t.Context(), 0, "robot", afterlogin.Everything, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Validate(t.Context(), key.Token, e); afterlogin.ReasonOf(err) != afterlogin.ReasonSignedOutAll {
		t.Errorf("after the end of everything: %v", err)
	}
}

func TestAPIKeyWithoutEnd(t *testing.T) {
	h := newHouse(t, func(c *afterlogin.Config) {
		c.Policies = map[string]afterlogin.Policy{afterlogin.PolicyAPIKey: {KeepOnReuse: true}}
	})
	if _, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey}); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("without an end, without asking for it: %v", err)
	}
	key, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey, NoExpiry: true})
	if err != nil {
		t.Fatal(err)
	}
	h.clock.pass(10 * 365 * 24 * time.Hour)
	if _, err := h.Validate(t.Context(), key.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}}); err != nil {
		t.Error(err)
	}
}
