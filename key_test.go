package afterlogin_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
)

func (h *house) key(r afterlogin.IssueRequest) afterlogin.Issued {
	h.t.Helper()
	r.Kind = afterlogin.KindAPIKey
	if r.Subject == "" {
		r.Subject = "svc"
	}
	got, err := h.Issue(h.t.Context(), r)
	if err != nil {
		h.t.Fatal(err)
	}
	return got
}

func (h *house) keyFrom(t afterlogin.Token, from afterlogin.Client) (*afterlogin.Session, error) {
	return h.Validate(h.t.Context(), t, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}, From: from})
}

func TestAKeyIsBoundToNetworks(t *testing.T) {
	h := newHouse(t)
	k := h.key(afterlogin.IssueRequest{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/32")}})
	for range 2 {
		if _, err := h.keyFrom(k.Token, home); err != nil {
			t.Errorf("from its network: %v", err)
		}
		for _, c := range []afterlogin.Client{thief, {}, {Addr: netip.MustParseAddr("2001:db9::1")}} {
			if _, err := h.keyFrom(k.Token, c); afterlogin.ReasonOf(err) != afterlogin.ReasonWrongNetwork {
				t.Errorf("from %v: %v", c.Addr, err)
			}
		}
		if _, err := h.keyFrom(k.Token, afterlogin.Client{Addr: netip.MustParseAddr("::ffff:198.51.100.9")}); err != nil {
			t.Errorf("from a mapped address: %v", err)
		}
	}
	if _, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Rate: 1}); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("a session with a rate: %v", err)
	}
}

func TestAKeyHasARate(t *testing.T) {
	h := newHouse(t)
	k := h.key(afterlogin.IssueRequest{Rate: 60})
	other := h.key(afterlogin.IssueRequest{Rate: 60})
	for i := range 60 {
		if _, err := h.keyFrom(k.Token, home); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	_, err := h.keyFrom(k.Token, home)
	var limit *afterlogin.LimitError
	if !errors.As(err, &limit) || limit.RetryAfter <= 0 || limit.RetryAfter > time.Second || limit.Session != k.Session.ID || errors.Is(err, afterlogin.ErrInvalidToken) {
		t.Fatalf("request 61: %v", err)
	}
	if _, err := h.keyFrom(other.Token, home); err != nil {
		t.Errorf("another key: %v", err)
	}
	h.clock.pass(time.Second)
	if _, err := h.keyFrom(k.Token, home); err != nil {
		t.Errorf("a second later: %v", err)
	}
	if _, err := h.keyFrom(k.Token, home); !errors.Is(err, afterlogin.ErrRateLimited) {
		t.Errorf("two in that second: %v", err)
	}
	h.clock.pass(-time.Hour) // the clock goes back: nobody is shut out for an hour
	if _, err := h.keyFrom(k.Token, home); err != nil {
		t.Errorf("after the clock went back: %v", err)
	}
}

func TestAKeyIsRotatedByASibling(t *testing.T) {
	h := newHouse(t)
	k := h.key(afterlogin.IssueRequest{Name: "ci", Scopes: []string{"deploy"}, Rate: 5000, Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	h.clock.pass(24 * time.Hour)
	next, err := h.RotateKey(t.Context(), k.Session.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.keyFrom(next.Token, home)
	if err != nil || s.ID == k.Session.ID || s.Name != "ci" || s.Scopes[0] != "deploy" || s.Limits == nil || s.Limits.Rate != 5000 || len(s.Limits.Networks) != 1 {
		t.Errorf("the sibling is %+v, %v", s, err)
	}
	if got := s.Absolute.Sub(h.clock.now()); got != 365*24*time.Hour {
		t.Errorf("it lives %v, want as long as the old one was made for", got)
	}
	if _, err := h.RotateKey(t.Context(), k.Session.ID, time.Hour); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("a second rotation of the old one: %v", err)
	}
	h.clock.pass(time.Hour - time.Second)
	if _, err := h.keyFrom(k.Token, home); err != nil {
		t.Errorf("the old one in its overlap: %v", err)
	}
	h.clock.pass(time.Second)
	if _, err := h.keyFrom(k.Token, home); afterlogin.ReasonOf(err) != afterlogin.ReasonExpired {
		t.Errorf("the old one after its overlap: %v", err)
	}
	if _, err := h.keyFrom(next.Token, home); err != nil {
		t.Errorf("the new one: %v", err)
	}
	if _, err := h.RotateKey(t.Context(), k.Session.ID, 0); afterlogin.ReasonOf(err) != afterlogin.ReasonExpired {
		t.Errorf("rotation of a key that is over: %v", err)
	}
	// At once.
	last, err := h.RotateKey(t.Context(), next.Session.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.keyFrom(next.Token, home); afterlogin.ReasonOf(err) != afterlogin.ReasonExpired {
		t.Errorf("without an overlap: %v", err)
	}
	// A rotation whose answer was lost: revoke the one that nobody holds, and rotate again.
	k = h.key(afterlogin.IssueRequest{})
	lost, err := h.RotateKey(t.Context(), k.Session.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Revoke(t.Context(), lost.Session.ID, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	if _, err := h.RotateKey(t.Context(), k.Session.ID, time.Hour); err != nil {
		t.Errorf("again, after the successor was revoked: %v", err)
	}
	if _, err := h.RotateKey(t.Context(), h.signIn("mia").Session.ID, time.Hour); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("a session: %v", err)
	}
	_ = last
}

func TestAnImportedKey(t *testing.T) {
	h := newHouse(t, func(c *afterlogin.Config) { c.ImportedKeys = true })
	text := "sk_live_" + "4f8a3c6e9b1d2f7a5c8e0b3d6f9a1c4e"
	tok := afterlogin.TokenFrom(text)
	if _, err := h.keyFrom(tok, home); afterlogin.ReasonOf(err) != afterlogin.ReasonUnknown {
		t.Errorf("before the import: %v", err)
	}
	r := afterlogin.IssueRequest{Subject: "svc", Name: "old", Scopes: []string{"read"}}
	s, err := h.ImportKey(t.Context(), r, sha256.Sum256([]byte(text)))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := h.keyFrom(tok, home)
		if err != nil || got.ID != s.ID || got.Subject != "svc" || got.Scopes[0] != "read" {
			t.Errorf("after the import: %+v, %v", got, err)
		}
	}
	if _, err := h.ImportKey(t.Context(), r, sha256.Sum256([]byte(text))); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("a second import: %v", err)
	}
	listed := 0
	for k, err := range h.Sessions(t.Context(), afterlogin.Query{Subject: "svc"}) {
		if err != nil || k.ID != s.ID {
			t.Errorf("list: %+v, %v", k, err)
		}
		listed++
	}
	if listed != 1 {
		t.Errorf("it is listed %d times", listed)
	}
	for _, bad := range []string{"short", text + "x", "sk_live_with space 4f8a3c6e9b1d2f7a5c8e0b3d6f9a1c4e"} {
		if _, err := h.keyFrom(afterlogin.TokenFrom(bad), home); !errors.Is(err, afterlogin.ErrInvalidToken) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	// Where keys are not expected, its text is no token.
	if _, err := h.Validate(t.Context(), tok, sessionFrom(home)); afterlogin.ReasonOf(err) != afterlogin.ReasonMalformed {
		t.Errorf("as a session: %v", err)
	}
	next, err := h.RotateKey(t.Context(), s.ID, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.keyFrom(next.Token, home); err != nil {
		t.Errorf("its successor: %v", err)
	}
	if _, err := h.RevokeToken(t.Context(), tok, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	if _, err := h.keyFrom(tok, home); afterlogin.ReasonOf(err) != afterlogin.ReasonRevoked {
		t.Errorf("after its end: %v", err)
	}
}

func TestImportedKeysAreOff(t *testing.T) {
	h := newHouse(t)
	if _, err := h.keyFrom(afterlogin.TokenFrom("sk_live_4f8a3c6e9b1d2f7a5c8e0b3d6f9a1c4e"), home); afterlogin.ReasonOf(err) != afterlogin.ReasonMalformed {
		t.Errorf("foreign text: %v", err)
	}
	if _, err := h.ImportKey(t.Context(), afterlogin.IssueRequest{Subject: "svc"}, [32]byte{1}); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("ImportKey: %v", err)
	}
}

// A hold on the session meanwhile ends nothing.
func TestWhatIsMadeWhileItsOriginIsPutOnHold(t *testing.T) {
	gate := &gated{}
	h := newHouse(t, func(c *afterlogin.Config) { gate.Store, c.Store = c.Store, gate })
	in := h.signIn("mia")
	gate.before = func() { h.must(h.Freeze(t.Context(), in.Session.ID, "incident 7")) }
	gate.armed = true
	key, err := h.Issue(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "mia", Origin: in.Session.ID})
	h.must(err)
	h.use(in.Token, home, afterlogin.ReasonFrozen)
	h.check(key.Token, afterlogin.KindAPIKey, "")
}

// A key that is made while its session is being ended with all that came from it does not survive.
func TestWhatIsMadeWhileItsOriginEnds(t *testing.T) {
	gate := &gated{}
	h := newHouse(t, func(c *afterlogin.Config) { gate.Store, c.Store = c.Store, gate })
	in := h.signIn("mia")
	gate.before = func() {
		if _, err := h.RevokeFrom(t.Context(), in.Session.ID, afterlogin.ReasonAdministrator); err != nil {
			t.Error(err)
		}
	}
	gate.armed = true
	_, err := h.Issue(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "mia", Origin: in.Session.ID})
	if afterlogin.ReasonOf(err) != afterlogin.ReasonRevoked {
		t.Errorf("a key from a session that is ended meanwhile: %v", err)
	}
	for s := range h.Sessions(t.Context(), afterlogin.Query{Subject: "mia"}) {
		t.Errorf("%s is still good", s.ID)
	}
	in = h.signIn("mia")
	gate.before = func() {
		if _, err := h.RevokeFrom(t.Context(), in.Session.ID, afterlogin.ReasonAdministrator); err != nil {
			t.Error(err)
		}
	}
	gate.armed = true
	if _, err = h.IssueGrant(t.Context(), in.Session, afterlogin.GrantRequest{Client: "app", Offline: true}); afterlogin.ReasonOf(err) != afterlogin.ReasonRevoked {
		t.Errorf("a grant from a session that is ended meanwhile: %v", err)
	}
	for s := range h.Sessions(t.Context(), afterlogin.Query{Subject: "mia"}) {
		t.Errorf("%s is still good", s.ID)
	}
}

// gated is a store that does something before the next Apply.
type gated struct {
	store.Store
	armed  bool
	before func()
}

func (g *gated) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if f := g.before; f != nil && g.armed {
		g.armed = false
		f()
	}
	return g.Store.Apply(ctx, root, ops...)
}
