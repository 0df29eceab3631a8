package httpauth_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// TestStory is a shopper's day: a cart, a sign-in, a renewal, a thief, and the way out.
func TestStory(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	c := s.browser()

	if got := s.do(c, "GET", "/", ""); got.body != "nobody" || len(got.cookies()) != 0 {
		t.Errorf("a first visit: %q, cookies %v; want nobody, and no cookie", got.body, got.cookies())
	}
	s.want(s.do(c, "POST", "/cart", "item=tea"), 200, "")
	anonymous := s.held(c)
	if anonymous == "" {
		t.Fatal("a first item in the cart makes no session")
	}
	token := s.csrf(c)
	s.want(s.do(c, "POST", "/cart", "item=cup&csrf_token="+token), 200, "")
	s.want(s.do(c, "GET", "/cart", ""), 200, `["tea","cup"]`)
	s.want(s.do(c, "GET", "/account", ""), 401, "not signed in")
	s.want(s.do(c, "POST", "/sign-in", "name=mia"), 403, "CSRF") // an anonymous session has one, too
	s.want(s.do(c, "POST", "/sign-in", "name=mia&csrf_token="+token), 200, "")

	first := s.held(c)
	if first == anonymous {
		t.Fatal("the cookie did not change at sign-in")
	}
	if _, why := s.check(anonymous); why != afterlogin.ReasonSuperseded {
		t.Errorf("the cookie from before the sign-in: %q, want superseded", why)
	}
	s.want(s.do(c, "GET", "/cart", ""), 200, `["tea","cup"]`)
	s.want(s.do(c, "GET", "/account", ""), 200, "mia")
	if s.csrf(c) == token {
		t.Error("the CSRF token did not change at sign-in")
	}

	s.pass(16 * time.Minute)
	token = s.csrf(c) // renews
	second := s.held(c)
	if second == first || len(second) != len(first) {
		t.Fatalf("renewal: %d characters, changed: %v", len(second), second != first)
	}
	s.want(s.do(c, "POST", "/cart", "item=pot&csrf_token="+token), 200, "")

	s.pass(time.Minute)
	thief := s.anybody()
	got := s.do(thief, "GET", "/account", "", s.cookie(first), "Accept: application/json")
	if reason := problemOf(t, got); got.StatusCode != 401 || reason != "reused" {
		t.Errorf("the thief: %d %s, want 401 reused", got.StatusCode, reason)
	}
	s.want(s.do(c, "GET", "/", ""), 200, "refused revoked This sign-in was ended because an out-of-date copy of it was used.")
	s.want(s.do(c, "GET", "/account", ""), 401, "out-of-date copy")
	if s.held(c) != second {
		t.Error("a refusal changed the cookie")
	}
	if len(s.saw(afterlogin.EventReuse)) != 1 {
		t.Error("no event for the reuse")
	}

	s.want(s.do(c, "POST", "/sign-in", "name=mia"), 200, "")
	s.want(s.do(c, "GET", "/cart", ""), 200, `["tea","cup","pot"]`)
	third := s.held(c)
	s.want(s.do(c, "POST", "/sign-out", "csrf_token="+s.csrf(c)), 200, "")
	if s.held(c) != "" {
		t.Error("the cookie is still there after the sign-out")
	}
	if _, why := s.check(third); why != afterlogin.ReasonRevoked {
		t.Errorf("after the sign-out: %q, want revoked", why)
	}
	s.want(s.do(c, "GET", "/account", ""), 401, "")
	if got := s.do(c, "POST", "/sign-out", ""); got.StatusCode != 200 || len(got.Header["Set-Cookie"]) != 0 {
		t.Errorf("a second sign-out: %d, sets %v", got.StatusCode, got.Header["Set-Cookie"])
	}

	for _, secret := range []string{anonymous, first, second, third} {
		if strings.Contains(s.log.String(), secret) {
			t.Error("a token is in the log")
		}
	}
}

// A token that somebody planted is not adopted, whether it is ours or not.
func TestFixation(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	tom := s.signedIn("tom")
	planted := s.held(tom)
	s.want(s.do(tom, "POST", "/cart", "item=bait&csrf_token="+s.csrf(tom)), 200, "")

	for _, value := range []string{"nonsense", planted[:len(planted)-1] + "A", planted} {
		headers := []string{s.cookie(value)}
		form := "name=mia"
		if value == planted {
			form += "&csrf_token=" + s.csrf(tom)
		}
		got := s.do(s.anybody(), "POST", "/sign-in", form, headers...)
		s.want(got, 200, "")
		if got.value() == value || got.value() == "" {
			t.Errorf("sign-in with a planted cookie sets %d characters, the same: %v", len(got.value()), got.value() == value)
		}
		s.want(s.do(s.anybody(), "GET", "/account", "", s.cookie(got.value())), 200, "mia")
		s.want(s.do(s.anybody(), "GET", "/cart", "", s.cookie(got.value())), 200, "")
		if body := s.do(s.anybody(), "GET", "/cart", "", s.cookie(got.value())).body; body != "" {
			t.Errorf("tom's data moved to mia: %q", body)
		}
	}
	// Two people in one browser: the session of the first is over.
	if _, why := s.check(planted); why != afterlogin.ReasonSuperseded {
		t.Errorf("the session of the first: %q, want superseded", why)
	}
}

func TestSignInWithinOneRequest(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	s.mux.Handle("POST /both", s.auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.addToCart(w, r)
		if in, ok := httpauth.Session(r.Context()); !ok || !in.Anonymous() || s.auth.CSRFToken(r) == "" {
			t.Error("no anonymous session after UpdateData")
		}
		s.addToCart(w, r)
		s.signIn(w, r)
		if in, ok := httpauth.Session(r.Context()); !ok || in.Subject != "mia" {
			t.Error("no session after SignIn")
		}
		w.Header().Set("Cache-Control", "public, max-age=600")
	})))
	c := s.browser()
	s.want(s.do(c, "POST", "/both", "item=tea&name=mia"), 200, "")
	s.want(s.do(c, "GET", "/cart", ""), 200, `["tea","tea"]`)
	s.want(s.do(c, "GET", "/account", ""), 200, "mia")
}

func TestStaleSignIn(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	s.signedIn("mia")
	s.mux.Handle("POST /slow-sign-in", s.auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mark, err := s.auth.Begin(r, "mia")
		if err != nil {
			t.Error(err)
		}
		if err := s.a.RevokeSubject(r.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
			t.Error(err)
		}
		if _, err := s.auth.SignIn(w, r, httpauth.SignIn{Subject: "mia", Mark: mark}); err != nil {
			httpauth.Answer(w, r, err)
		}
	})))
	got := s.do(s.browser(), "POST", "/slow-sign-in", "")
	s.want(got, 409, "Sign in again")
	if len(got.cookies()) != 0 {
		t.Error("a stale sign-in sets a cookie")
	}
}

func TestStepUp(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	c := s.signedIn("mia")
	s.pass(10 * time.Minute)
	got := s.do(c, "GET", "/danger", "", "Accept: application/json")
	if h := got.Header.Get("WWW-Authenticate"); got.StatusCode != 401 ||
		!strings.Contains(h, `error="insufficient_user_authentication"`) || !strings.Contains(h, `max_age="300"`) {
		t.Errorf("%d %s, want the challenge of RFC 9470", got.StatusCode, h)
	}
	old := s.held(c)
	token := s.csrf(c)

	// Other tabs load while the person types the second factor.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := s.try(s.anybody(), "GET", "/account", "", s.cookie(old)); err != nil || got.StatusCode != 200 && got.StatusCode != 401 || len(got.cookies()) != 0 {
				t.Errorf("a tab beside the step-up: %v %v", got.Response, err)
			}
		})
	}
	wg.Go(func() { s.want(s.do(c, "POST", "/step-up", "csrf_token="+token), 200, "") })
	wg.Wait()

	if s.held(c) == old {
		t.Fatal("the cookie did not change")
	}
	s.want(s.do(s.anybody(), "GET", "/account", "", s.cookie(old)), 401, "")
	s.want(s.do(c, "GET", "/danger", ""), 200, "mia")
	if s.csrf(c) != token {
		t.Error("the CSRF token changed: forms in other tabs would fail")
	}
	in, _ := s.check(s.held(c))
	if in == nil || strings.Join(in.Auth.Methods, " ") != "pwd otp" {
		t.Errorf("methods: %+v", in)
	}
	s.want(s.do(s.anybody(), "POST", "/step-up", "", "Authorization: Bearer "+s.held(c)), 401, "not signed in")
	s.want(s.do(c, "GET", "/account", ""), 200, "mia")
}

func TestRemember(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	c := s.browser()
	got := s.do(c, "POST", "/sign-in", "name=mia&remember=on")
	want := httpauth.CookieName + "=" + got.value() + "; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=2592000"
	if set := got.cookies(); len(set) != 1 || set[0] != want {
		t.Errorf("got  %v\nwant %s", set, want)
	}
	s.pass(10 * 24 * time.Hour)
	got = s.do(c, "GET", "/account", "")
	if set := got.cookies(); len(set) != 1 || !strings.HasSuffix(set[0], "; Max-Age=1728000") {
		t.Errorf("renewed: %v, want what is left of 30 days", set)
	}
}

func TestCookieAttributes(t *testing.T) {
	tests := []struct {
		o    httpauth.Options
		want string
	}{
		{httpauth.Options{}, "__Host-Http-session_id=%; Path=/; Secure; HttpOnly; SameSite=Lax"},
		{httpauth.Options{SameSite: http.SameSiteStrictMode, CookieName: "__Host-id"}, "__Host-id=%; Path=/; Secure; HttpOnly; SameSite=Strict"},
		{httpauth.Options{SameSite: http.SameSiteNoneMode}, "__Host-Http-session_id=%; Path=/; Secure; HttpOnly; SameSite=None"},
		{httpauth.Options{PlainLoopback: true}, "session_id=%; Path=/; HttpOnly; SameSite=Lax"},
	}
	for _, tt := range tests {
		s := open(t, tt.o, nil)
		c := s.browser()
		got := s.do(c, "POST", "/sign-in", "name=mia")
		set := strings.Join(got.Header["Set-Cookie"], "\n")
		name, rest, _ := strings.Cut(set, "=")
		value, attributes, _ := strings.Cut(rest, ";")
		if have := name + "=%;" + attributes; have != tt.want || len(value) != 88 {
			t.Errorf("got %q with a value of %d characters, want %q", have, len(value), tt.want)
		}
		form := url.Values{"csrf_token": {s.csrf(c)}}.Encode()
		got = s.do(c, "POST", "/sign-out", form)
		if want := strings.Replace(tt.want, "%", "", 1) + "; Max-Age=0"; strings.Join(got.Header["Set-Cookie"], "\n") != want {
			t.Errorf("sign-out: got %q, want %q", got.Header["Set-Cookie"], want)
		}
	}
}

func TestSignOut(t *testing.T) {
	s := open(t, httpauth.Options{ClearSiteData: []string{"cache", "storage"}}, nil)
	c := s.signedIn("mia")
	first := s.held(c)
	s.pass(16 * time.Minute)
	token := s.csrf(c)

	// A tab that still holds the old cookie signs out: the session ends, whatever became of its token.
	got := s.do(s.anybody(), "POST", "/sign-out", "csrf_token="+token, s.cookie(first))
	s.want(got, 200, "")
	if h := got.Header.Get("Clear-Site-Data"); h != `"cache", "storage"` {
		t.Errorf("Clear-Site-Data: %s", h)
	}
	if _, why := s.check(s.held(c)); why != afterlogin.ReasonRevoked {
		t.Errorf("the session: %q, want revoked", why)
	}
	// And a bearer of it.
	tom := s.issue(afterlogin.IssueRequest{Subject: "tom"})
	got = s.do(s.anybody(), "POST", "/sign-out", "", "Authorization: Bearer "+tom.Token.Reveal())
	if _, why := s.check(tom.Token.Reveal()); got.StatusCode != 200 || why != afterlogin.ReasonRevoked || len(got.cookies()) != 0 {
		t.Errorf("%d %s %v", got.StatusCode, why, got.cookies())
	}
	// An out-of-date cookie whose session has gone on without it.
	c = s.signedIn("mia")
	first = s.held(c)
	s.pass(16 * time.Minute)
	s.csrf(c)
	s.csrf(c)
	s.pass(time.Hour / 2)
	got = s.do(s.anybody(), "POST", "/sign-out", "", s.cookie(first))
	if _, why := s.check(s.held(c)); got.StatusCode != 200 || why != afterlogin.ReasonRevoked {
		t.Errorf("%d, the session: %q, want revoked", got.StatusCode, why)
	}
}

func TestUpdateDataMakesNothingOfNothing(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	s.mux.Handle("POST /nothing", s.auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.auth.UpdateData(w, r, func(d *afterlogin.Data) error { d.Delete("cart"); return nil }); err != nil {
			t.Error(err)
		}
	})))
	s.mux.Handle("POST /too-much", s.auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := s.auth.UpdateData(w, r, func(d *afterlogin.Data) error {
			return d.Set("all", strings.Repeat("x", afterlogin.MaxData))
		})
		httpauth.Answer(w, r, err)
	})))
	if got := s.do(s.anybody(), "POST", "/nothing", ""); got.StatusCode != 200 || len(got.cookies()) != 0 {
		t.Errorf("nothing stored: %d, cookies %v", got.StatusCode, got.cookies())
	}
	if got := s.do(s.anybody(), "POST", "/too-much", ""); got.StatusCode != 413 || len(got.cookies()) != 0 {
		t.Errorf("too much: %d, cookies %v", got.StatusCode, got.cookies())
	}
	// A refused bearer gets no cookie instead.
	got := s.do(s.anybody(), "POST", "/cart", "item=tea", "Authorization: Bearer nonsense")
	if got.StatusCode != 401 || len(got.cookies()) != 0 {
		t.Errorf("a refused bearer: %d, cookies %v", got.StatusCode, got.cookies())
	}
}

// The mark reaches the authority: a change of the password, even one that spares the session, wins over a confirmation
// with the old one, and the answer carries no cookie.
func TestStepUpWithAStaleMark(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	s.mux.Handle("POST /confirm", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mark, err := s.auth.Begin(r, "mia")
		if err != nil {
			t.Error(err)
		}
		if r.FormValue("change") == "on" {
			in, _ := httpauth.Session(r.Context())
			if err := s.a.RevokeOthers(r.Context(), in.ID, afterlogin.ReasonSignedOutAll); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.auth.StepUpSince(w, r, mark, afterlogin.Authentication{Methods: []string{"pwd"}}); err != nil {
			httpauth.Answer(w, r, err)
		}
	})))
	c := s.signedIn("mia")
	old := s.held(c)
	got := s.do(c, "POST", "/confirm", "change=on&csrf_token="+s.csrf(c))
	s.want(got, 409, "Sign in again")
	if len(got.cookies()) != 0 || s.held(c) != old {
		t.Error("a stale confirmation sets a cookie")
	}
	s.want(s.do(c, "POST", "/confirm", "csrf_token="+s.csrf(c)), 200, "")
	if s.held(c) == old {
		t.Error("the cookie did not change")
	}
}

// A browser whose session is on hold keeps its cookie, also where a cart would make an anonymous session.
func TestOnHold(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	c := s.signedIn("mia")
	held := s.held(c)
	in, _ := s.check(held)
	if err := s.a.Freeze(t.Context(), in.ID, "incident 7"); err != nil {
		t.Fatal(err)
	}
	if got := s.do(c, "POST", "/cart", "item=tea"); got.StatusCode != 401 || len(got.cookies()) != 0 {
		t.Errorf("a cart while on hold: %d, cookies %v; want 401, and none", got.StatusCode, got.cookies())
	}
	if err := s.a.Thaw(t.Context(), in.ID, ""); err != nil {
		t.Fatal(err)
	}
	s.want(s.do(c, "GET", "/account", ""), 200, "mia")
}
