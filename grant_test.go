package afterlogin_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

const issuer = "https://login.example"

func withIssuer(c *afterlogin.Config) { c.Issuer = issuer }

// check validates a token of a kind as a service would.
func (h *house) check(t afterlogin.Token, k afterlogin.Kind, want afterlogin.Reason) *afterlogin.Session {
	h.t.Helper()
	s, err := h.Validate(h.t.Context(), t, afterlogin.Expect{Kinds: []afterlogin.Kind{k}})
	if want == "" && err != nil || want != "" && afterlogin.ReasonOf(err) != want {
		h.t.Fatalf("Validate of a %v = %v, want %q", k, err, want)
	}
	return s
}

func (h *house) grant(s *afterlogin.Session, r afterlogin.GrantRequest) afterlogin.Grant {
	h.t.Helper()
	if r.Client == "" {
		r.Client = "app"
	}
	g, err := h.IssueGrant(h.t.Context(), s, r)
	if err != nil {
		h.t.Fatalf("IssueGrant: %v", err)
	}
	return g
}

func (h *house) refresh(t afterlogin.Token, want afterlogin.Reason) afterlogin.Grant {
	h.t.Helper()
	g, err := h.Refresh(h.t.Context(), t, afterlogin.RefreshRequest{Client: "app"})
	if want == "" && err != nil || want != "" && afterlogin.ReasonOf(err) != want {
		h.t.Fatalf("Refresh = %v, want %q", err, want)
	}
	return g
}

func TestAGrantUnderASession(t *testing.T) {
	h := newHouse(t)
	s := h.signIn("mia").Session
	g := h.grant(s, afterlogin.GrantRequest{Scopes: []string{"orders"}})
	if len(g.Refresh.Token.Reveal()) != 100 || g.Refresh.Session.Root != s.ID || g.Refresh.Session.Subject != "mia" {
		t.Errorf("an online grant is %+v, want a child of %s", g.Refresh.Session, s.ID)
	}
	a := h.check(g.Access.Token, afterlogin.KindAccess, "")
	if a.Grant != g.Refresh.Session.ID || a.Root != s.ID || a.Subject != "mia" || a.Client != "app" || len(a.Scopes) != 1 {
		t.Errorf("the access token says %+v", a)
	}
	if got := a.Absolute.Sub(h.clock.now()); got != 30*time.Minute {
		t.Errorf("an access token lives %v, want 30m", got)
	}
	for range 5 {
		next := h.refresh(g.Refresh.Token, "")
		h.check(next.Access.Token, afterlogin.KindAccess, "")
		if same(next.Refresh.Token, g.Refresh.Token) || same(next.Access.Token, g.Access.Token) {
			t.Fatal("a refresh gives an old token")
		}
		g = next
		h.clock.pass(10 * time.Minute)
	}
	// A refresh is a use of the session: 50 minutes after the sign-in, and now 55 after the last refresh, it is not over.
	h.clock.pass(45 * time.Minute)
	g = h.refresh(g.Refresh.Token, "")
	// Access tokens are not: an application in the background keeps nobody signed in.
	h.clock.pass(29 * time.Minute)
	h.check(g.Access.Token, afterlogin.KindAccess, "")
	h.clock.pass(32 * time.Minute)
	h.refresh(g.Refresh.Token, afterlogin.ReasonIdle)
}

func TestAnOfflineGrantOutlivesItsSession(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	g := h.grant(in.Session, afterlogin.GrantRequest{Offline: true, Public: true})
	if g.Refresh.Session.Root != g.Refresh.Session.ID || g.Refresh.Session.Origin != in.Session.ID || g.Refresh.Session.Subject != "mia" {
		t.Errorf("an offline grant is %+v, want a root of mia's that came from %s", g.Refresh.Session, in.Session.ID)
	}
	if err := h.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	g = h.refresh(g.Refresh.Token, "")
	h.check(g.Access.Token, afterlogin.KindAccess, "")
	h.clock.pass(8 * 24 * time.Hour)
	h.refresh(g.Refresh.Token, afterlogin.ReasonIdle)
}

// A session with a cookie, two online grants, three access tokens and a JWT below it: one revoke, and all are refused by
// the next call. The offline grant and the API key go with "everything", and with "this and all that came from it".
func TestOneRevokeEndsEverythingBelow(t *testing.T) {
	for name, end := range map[string]struct {
		do      func(*house, *afterlogin.Session) error
		offline bool // whether the offline grant and the key end, too
	}{
		"one session": {func(h *house, s *afterlogin.Session) error {
			return h.Revoke(t.Context(), s.ID, afterlogin.ReasonAdministrator)
		}, false},
		"everything": {func(h *house, s *afterlogin.Session) error {
			return h.RevokeSubject(t.Context(), 0, "mia", afterlogin.Everything, afterlogin.ReasonAdministrator)
		}, true},
		"this and what came from it": {func(h *house, s *afterlogin.Session) error {
			n, err := h.RevokeFrom(t.Context(), s.ID, afterlogin.ReasonAdministrator)
			if n != 3 {
				t.Errorf("RevokeFrom ended %d roots, want 3", n)
			}
			return err
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, withIssuer)
			in := h.signIn("mia")
			one := h.grant(in.Session, afterlogin.GrantRequest{Scopes: []string{"a", "b"}})
			two := h.grant(in.Session, afterlogin.GrantRequest{Client: "other"})
			off := h.grant(in.Session, afterlogin.GrantRequest{Offline: true})
			third, err := h.IssueAccess(t.Context(), in.Session, afterlogin.AccessRequest{Scopes: []string{"x"}})
			if err != nil {
				t.Fatal(err)
			}
			jwt, err := h.IssueAccess(t.Context(), in.Session, afterlogin.AccessRequest{JWT: true})
			if err != nil {
				t.Fatal(err)
			}
			ofGrant, err := h.IssueAccess(t.Context(), one.Refresh.Session, afterlogin.AccessRequest{JWT: true, Scopes: []string{"a"}})
			if err != nil {
				t.Fatal(err)
			}
			key, err := h.Issue(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "mia", Origin: in.Session.ID})
			if err != nil {
				t.Fatal(err)
			}
			all := map[afterlogin.Kind][]afterlogin.Token{
				afterlogin.KindSession: {in.Token},
				afterlogin.KindRefresh: {one.Refresh.Token, two.Refresh.Token},
				afterlogin.KindAccess:  {one.Access.Token, two.Access.Token, third.Token},
				afterlogin.KindJWT:     {jwt.Token, ofGrant.Token},
			}
			rest := map[afterlogin.Kind][]afterlogin.Token{
				afterlogin.KindRefresh: {off.Refresh.Token}, afterlogin.KindAccess: {off.Access.Token}, afterlogin.KindAPIKey: {key.Token},
			}
			for range 2 { // from the store, and from the cache
				for _, set := range []map[afterlogin.Kind][]afterlogin.Token{all, rest} {
					for k, toks := range set {
						for _, tok := range toks {
							h.check(tok, k, "")
						}
					}
				}
			}
			if err := end.do(h, in.Session); err != nil {
				t.Fatal(err)
			}
			refused := func(set map[afterlogin.Kind][]afterlogin.Token, want bool) {
				t.Helper()
				for k, toks := range set {
					for i, tok := range toks {
						_, err := h.Validate(t.Context(), tok, afterlogin.Expect{Kinds: []afterlogin.Kind{k}})
						if errors.Is(err, afterlogin.ErrInvalidToken) != want || !want && err != nil {
							t.Errorf("%v %d after the end: %v", k, i, err)
						}
					}
				}
			}
			refused(all, true)
			refused(rest, end.offline)
		})
	}
}

func TestFiftyRefreshesOfOneToken(t *testing.T) {
	h := newHouse(t)
	g := h.grant(h.signIn("mia").Session, afterlogin.GrantRequest{Offline: true})
	old := g.Refresh.Token
	got := make([]afterlogin.Grant, 50)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = h.Refresh(t.Context(), old, afterlogin.RefreshRequest{Client: "app"}); err != nil {
				t.Errorf("refresh %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for i := range got {
		if !same(got[i].Refresh.Token, got[0].Refresh.Token) {
			t.Errorf("refresh %d got another successor", i)
		}
		if !same(got[i].Access.Token, got[0].Access.Token) {
			t.Errorf("refresh %d got another access token", i)
		}
		h.check(got[i].Access.Token, afterlogin.KindAccess, "")
	}
	next := h.refresh(got[7].Refresh.Token, "")
	// The thief's late replay: the family ends, the newest token with it.
	h.clock.pass(time.Minute)
	h.refresh(old, afterlogin.ReasonReused)
	h.refresh(next.Refresh.Token, afterlogin.ReasonRevoked)
	h.check(next.Access.Token, afterlogin.KindAccess, afterlogin.ReasonRevoked)
	h.check(got[0].Access.Token, afterlogin.KindAccess, afterlogin.ReasonRevoked)
}

// Of an online grant, theft ends the grant and not the session that it stands under.
func TestTheftOfARefreshTokenEndsItsGrantAlone(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	g := h.grant(in.Session, afterlogin.GrantRequest{})
	other := h.grant(in.Session, afterlogin.GrantRequest{})
	old := g.Refresh.Token
	g = h.refresh(old, "")
	g = h.refresh(g.Refresh.Token, "")
	h.clock.pass(time.Minute)
	h.refresh(old, afterlogin.ReasonReused)
	h.refresh(g.Refresh.Token, afterlogin.ReasonRevoked)
	h.check(g.Access.Token, afterlogin.KindAccess, afterlogin.ReasonRevoked)
	h.use(in.Token, home, "")
	h.refresh(other.Refresh.Token, "")
}

func TestALostAnswerIsForgiven(t *testing.T) {
	h := newHouse(t)
	g := h.grant(h.signIn("mia").Session, afterlogin.GrantRequest{Offline: true})
	lost := h.refresh(g.Refresh.Token, "")
	again := h.refresh(g.Refresh.Token, "")
	if !same(lost.Refresh.Token, again.Refresh.Token) || !same(lost.Access.Token, again.Access.Token) {
		t.Error("the second try gets other tokens than the lost answer held")
	}
	h.clock.pass(time.Hour) // later than any grace
	late := h.refresh(g.Refresh.Token, "")
	h.check(late.Access.Token, afterlogin.KindAccess, "")
	h.refresh(late.Refresh.Token, "")
}

// Whoever uses the access token has received the answer, and the refresh token beside it.
func TestUseOfTheAccessTokenIsASightOfTheRefreshToken(t *testing.T) {
	h := newHouse(t)
	g := h.grant(h.signIn("mia").Session, afterlogin.GrantRequest{Offline: true})
	old := g.Refresh.Token
	g = h.refresh(old, "")
	h.check(g.Access.Token, afterlogin.KindAccess, "") // within the grace it says nothing yet
	if again := h.refresh(old, ""); !same(again.Refresh.Token, g.Refresh.Token) {
		t.Error("a refresh at the same time gets another successor because the access token was used")
	}
	h.clock.pass(11 * time.Second)
	h.check(g.Access.Token, afterlogin.KindAccess, "")
	h.clock.pass(10 * time.Second)
	h.refresh(old, afterlogin.ReasonReused)
	h.check(g.Access.Token, afterlogin.KindAccess, afterlogin.ReasonRevoked)
}

func TestOtherWishesGetOtherAccessTokens(t *testing.T) {
	h := newHouse(t)
	g := h.grant(h.signIn("mia").Session, afterlogin.GrantRequest{Offline: true, Scopes: []string{"a", "b", "c"}})
	wish := func(scopes ...string) (afterlogin.Grant, error) {
		return h.Refresh(t.Context(), g.Refresh.Token, afterlogin.RefreshRequest{Client: "app", Access: afterlogin.AccessRequest{Scopes: scopes}})
	}
	one, err := wish("a")
	if err != nil {
		t.Fatal(err)
	}
	two, err := wish("b")
	if err != nil {
		t.Fatal(err)
	}
	if !same(one.Refresh.Token, two.Refresh.Token) || same(one.Access.Token, two.Access.Token) {
		t.Error("other scopes: want the same successor and another access token")
	}
	if s := h.check(two.Access.Token, afterlogin.KindAccess, ""); len(s.Scopes) != 1 || s.Scopes[0] != "b" {
		t.Errorf("scopes %v, want b", s.Scopes)
	}
	if _, err := wish("d"); afterlogin.ReasonOf(err) != afterlogin.ReasonScope {
		t.Errorf("a scope that was not granted: %v", err)
	}
	wishes := [][]string{{"c"}, {"a", "b"}, {"a", "c"}, {"b", "c"}, {"a", "b", "c"}, nil}
	var limited int
	for _, w := range append(wishes, []string{"a"}, []string{"b", "a"}, []string{"c", "a", "b"}) {
		if _, err := wish(w...); err != nil {
			t.Errorf("%v: %v", w, err)
		}
	}
	for _, aud := range []string{"u", "v", "w"} {
		_, err := h.Refresh(t.Context(), g.Refresh.Token, afterlogin.RefreshRequest{Client: "app", Access: afterlogin.AccessRequest{Audience: []string{aud}}})
		if errors.Is(err, afterlogin.ErrRateLimited) {
			limited++
		} else if err != nil {
			t.Error(err)
		}
	}
	if limited != 2 {
		t.Errorf("%d of 3 further wishes were refused, want 2: 8 tokens are the limit of a generation", limited)
	}
}

func TestARefreshTokenBelongsToItsClient(t *testing.T) {
	h := newHouse(t)
	g := h.grant(h.signIn("mia").Session, afterlogin.GrantRequest{Offline: true})
	_, err := h.Refresh(t.Context(), g.Refresh.Token, afterlogin.RefreshRequest{Client: "other"})
	if afterlogin.ReasonOf(err) != afterlogin.ReasonWrongClient {
		t.Errorf("another client: %v", err)
	}
	old := g.Refresh.Token
	g = h.refresh(old, "")
	g = h.refresh(g.Refresh.Token, "")
	h.clock.pass(time.Minute)
	// Another client with an old token must not be able to end the grant.
	if _, err := h.Refresh(t.Context(), old, afterlogin.RefreshRequest{Client: "other"}); afterlogin.ReasonOf(err) != afterlogin.ReasonWrongClient {
		t.Errorf("another client with an old token: %v", err)
	}
	h.refresh(g.Refresh.Token, "")
	if _, err := h.Refresh(t.Context(), h.signIn("mia").Token, afterlogin.RefreshRequest{Client: "app"}); afterlogin.ReasonOf(err) != afterlogin.ReasonWrongKind {
		t.Errorf("a session token at refresh: %v", err)
	}
}

func TestGrantsEndWithTheirSubject(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	g := h.grant(in.Session, afterlogin.GrantRequest{Offline: true})
	if err := h.RevokeSubject(t.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	h.refresh(g.Refresh.Token, afterlogin.ReasonSignedOutAll)
	h.check(g.Access.Token, afterlogin.KindAccess, afterlogin.ReasonSignedOutAll)
	// Sign out everywhere else: what the spared session makes from now on is good.
	in = h.signIn("mia")
	if err := h.RevokeOthers(t.Context(), in.Session.ID, afterlogin.ReasonSignedOutAll); err != nil {
		t.Fatal(err)
	}
	g = h.grant(in.Session, afterlogin.GrantRequest{Offline: true})
	h.refresh(g.Refresh.Token, "")
	g = h.grant(in.Session, afterlogin.GrantRequest{})
	h.refresh(g.Refresh.Token, "")
}

func TestExchangeNarrows(t *testing.T) {
	h := newHouse(t)
	g := h.grant(h.signIn("mia").Session, afterlogin.GrantRequest{Offline: true, Scopes: []string{"a", "b"}, Audience: []string{"x", "y"}})
	top := h.check(g.Access.Token, afterlogin.KindAccess, "")
	narrow, err := h.IssueAccess(t.Context(), top, afterlogin.AccessRequest{Client: "svc", Scopes: []string{"a"}, Audience: []string{"x"}, Actor: "svc"})
	if err != nil {
		t.Fatal(err)
	}
	s := h.check(narrow.Token, afterlogin.KindAccess, "")
	if s.Actor() != "svc" || s.Client != "svc" || s.Subject != "mia" || len(s.Scopes) != 1 || s.Grant != g.Refresh.Session.ID || s.Absolute.After(top.Absolute) {
		t.Errorf("the narrower token says %+v", s)
	}
	if _, err := h.IssueAccess(t.Context(), s, afterlogin.AccessRequest{Scopes: []string{"b"}}); afterlogin.ReasonOf(err) != afterlogin.ReasonScope {
		t.Errorf("more scopes: %v", err)
	}
	if _, err := h.IssueAccess(t.Context(), s, afterlogin.AccessRequest{Audience: []string{"y"}}); afterlogin.ReasonOf(err) != afterlogin.ReasonWrongAudience {
		t.Errorf("another audience: %v", err)
	}
	if _, err := h.Validate(t.Context(), narrow.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAccess}, Audience: []string{"y"}}); afterlogin.ReasonOf(err) != afterlogin.ReasonWrongAudience {
		t.Errorf("used at another service: %v", err)
	}
	// The end of the access token in the middle is the end of what was made from it.
	if _, err := h.RevokeToken(t.Context(), g.Access.Token, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	h.check(narrow.Token, afterlogin.KindAccess, afterlogin.ReasonRevoked)
	h.refresh(g.Refresh.Token, "")
	deep := h.grant(h.signIn("mia").Session, afterlogin.GrantRequest{}).Access
	for i := range 6 {
		next, err := h.IssueAccess(t.Context(), deep.Session, afterlogin.AccessRequest{})
		if err != nil {
			if !errors.Is(err, afterlogin.ErrBadRequest) || i < 2 {
				t.Errorf("%d deep: %v", i, err)
			}
			return
		}
		deep = next
	}
	t.Error("tokens can be exchanged without an end")
}

func TestTheNumberOfTokensUnderARootIsBounded(t *testing.T) {
	h := newHouse(t)
	s := h.signIn("mia").Session
	for i := range 300 {
		_, err := h.IssueAccess(t.Context(), s, afterlogin.AccessRequest{})
		if errors.Is(err, afterlogin.ErrRateLimited) {
			if i < 256 {
				t.Errorf("refused after %d", i)
			}
			h.clock.pass(time.Hour - time.Second)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Error("300 tokens within no time")
}
