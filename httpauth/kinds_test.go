package httpauth_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/memstore"
)

const issuer = "https://auth.example"

// service is a shop that takes every kind of credential, and calls itself orders.
func service(t *testing.T, o httpauth.Options) *shop {
	o.Audience = []string{"orders"}
	s := openWith(t, o, nil, afterlogin.Config{Issuer: issuer, ImportedKeys: true})
	handle := func(pattern string, opts ...httpauth.Requirement) {
		s.mux.Handle(pattern, s.auth.Require(http.HandlerFunc(s.home), opts...))
	}
	handle("/tokens", httpauth.Kinds(afterlogin.KindAccess, afterlogin.KindJWT))
	handle("/all", httpauth.Kinds(afterlogin.KindSession, afterlogin.KindAPIKey, afterlogin.KindAccess, afterlogin.KindJWT, afterlogin.KindTicket))
	handle("/scoped", httpauth.Kinds(afterlogin.KindAccess, afterlogin.KindJWT, afterlogin.KindAPIKey), httpauth.Scopes("orders:read"))
	handle("/files/{name}", httpauth.Kinds(afterlogin.KindTicket))
	handle("/both/{name}", httpauth.Kinds(afterlogin.KindTicket, afterlogin.KindSession))
	handle("/safe/{name}", httpauth.Kinds(afterlogin.KindTicket), httpauth.Scopes("files"))
	handle("/fresh/{name}", httpauth.Kinds(afterlogin.KindTicket), httpauth.MaxAge(time.Hour))
	return s
}

// access makes an access token below a session of mia's, and returns its text.
func (s *shop) access(in *afterlogin.Session, r afterlogin.AccessRequest) string {
	s.Helper()
	got, err := s.a.IssueAccess(s.Context(), in, r)
	if err != nil {
		s.Fatal(err)
	}
	return got.Token.Reveal()
}

func TestBearerKinds(t *testing.T) {
	s := service(t, httpauth.Options{})
	in := s.issue(afterlogin.IssueRequest{Subject: "mia"})
	orders, others := []string{"orders"}, []string{"invoices"}
	opaque := s.access(in.Session, afterlogin.AccessRequest{Scopes: []string{"orders:read"}})
	forOthers := s.access(in.Session, afterlogin.AccessRequest{Audience: others})
	jwt := s.access(in.Session, afterlogin.AccessRequest{JWT: true, Audience: orders, Scopes: []string{"orders:read"}})
	poor := s.access(in.Session, afterlogin.AccessRequest{JWT: true, Audience: orders, Scopes: []string{"x"}})
	jwtForOthers := s.access(in.Session, afterlogin.AccessRequest{JWT: true, Audience: others})
	key := func(r afterlogin.IssueRequest) string {
		r.Subject, r.Kind, r.Scopes = "robot", afterlogin.KindAPIKey, []string{"orders:read"}
		return s.issue(r).Token.Reveal()
	}
	local := key(afterlogin.IssueRequest{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}})
	far := key(afterlogin.IssueRequest{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	const made = "sk_live_51H8,Qe.K2xvFZ+y/0d~42=="
	if _, err := s.a.ImportKey(t.Context(), afterlogin.IssueRequest{Subject: "partner", Scopes: []string{"orders:read"}}, sha256.Sum256([]byte(made))); err != nil {
		t.Fatal(err)
	}
	ticket, err := s.a.IssueTicket(t.Context(), in.Session, afterlogin.TicketRequest{Target: "/all"})
	if err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		name, path string
		header     string
		status     int
		want       string // of the body
		challenge  string
	}{
		{"access token", "/tokens", "Authorization: Bearer " + opaque, 200, "mia", ""},
		{"JWT", "/tokens", "Authorization: Bearer " + jwt, 200, "mia", ""},
		{"JWT among all", "/all", "Authorization: Bearer " + jwt, 200, "mia", ""},
		{"session where tokens are wanted", "/tokens", "Authorization: Bearer " + in.Token.Reveal(), 401, "wrong_kind", "invalid_token"},
		{"access token where sessions are wanted", "/account", "Authorization: Bearer " + opaque, 401, "wrong_kind", "invalid_token"},
		{"JWT where sessions are wanted", "/account", "Authorization: Bearer " + jwt, 401, "malformed", "invalid_token"},
		{"access token for others", "/tokens", "Authorization: Bearer " + forOthers, 401, "wrong_audience", "another service"},
		{"JWT for others", "/tokens", "Authorization: Bearer " + jwtForOthers, 401, "wrong_audience", "another service"},
		{"JWT, altered", "/tokens", "Authorization: Bearer " + jwt[:len(jwt)-5] + "AAAA" + jwt[len(jwt)-1:], 401, "forged", "invalid_token"},
		{"JWT of nobody", "/tokens", "Authorization: Bearer eyJhbGciOiJub25lIn0.e30.", 401, "", "invalid_token"},
		{"scope of an access token", "/scoped", "Authorization: Bearer " + opaque, 200, "mia", ""},
		{"scope of a JWT", "/scoped", "Authorization: Bearer " + jwt, 200, "mia", ""},
		{"no scope in a JWT", "/scoped", "Authorization: Bearer " + poor, 403, "scope", `error="insufficient_scope"`},
		{"ticket as a bearer", "/all", "Authorization: Bearer " + ticket.Token.Reveal(), 401, "wrong_kind", "invalid_token"},
		{"session as a bearer where only tickets are served", "/files/a", "Authorization: Bearer " + in.Token.Reveal(), 401, "wrong_kind", ""},
		{"API key in its network", "/scoped", "X-Api-Key: " + local, 200, "robot", ""},
		{"API key elsewhere", "/scoped", "X-Api-Key: " + far, 403, "wrong_network", ""},
		{"imported key", "/scoped", "X-Api-Key: " + made, 200, "partner", ""},
		{"imported key as a bearer", "/scoped", "Authorization: Bearer " + made, 200, "partner", ""},
		{"another text", "/scoped", "X-Api-Key: " + made + "x", 401, "unknown", "invalid_token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := s.do(s.anybody(), "POST", tt.path, "", tt.header, "Accept: application/json")
			s.want(got, tt.status, tt.want)
			if h := got.Header.Get("WWW-Authenticate"); !strings.Contains(h, tt.challenge) || tt.status == 403 && tt.challenge == "" && h != "" {
				t.Errorf("challenge %q, want %q", h, tt.challenge)
			}
		})
	}
	if err := s.a.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{opaque, jwt} {
		s.want(s.do(s.anybody(), "GET", "/tokens", "", "Authorization: Bearer "+token), 401, "revoked")
	}
}

// A key that is used too often is answered 429, with the time to wait.
func TestRate(t *testing.T) {
	s := service(t, httpauth.Options{})
	key := s.issue(afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey, Rate: 2, Scopes: []string{"orders:read"}}).Token.Reveal()
	for range 2 {
		s.want(s.do(s.anybody(), "GET", "/scoped", "", "X-Api-Key: "+key), 200, "robot")
	}
	got := s.do(s.anybody(), "GET", "/scoped", "", "X-Api-Key: "+key)
	s.want(got, 429, "rate_limited")
	if w := got.Header.Get("Retry-After"); w != "30" {
		t.Errorf("Retry-After %q, want 30", w)
	}
	if got.Header.Get("WWW-Authenticate") != "" {
		t.Error("a challenge")
	}
	s.pass(30 * time.Second)
	s.want(s.do(s.anybody(), "GET", "/scoped", "", "X-Api-Key: "+key), 200, "robot")
}

// A JWT in a cookie lets in where JWTs are taken, is protected like any cookie, and is never renewed.
func TestJWTCookie(t *testing.T) {
	const name = "__Host-Http-jwt"
	s := service(t, httpauth.Options{JWTCookie: name, SignInURL: "/enter"})
	s.mux.Handle("POST /jwt-cookie", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.auth.SetJWTCookie(w, r, afterlogin.AccessRequest{Scopes: []string{"orders:read"}}); err != nil {
			httpauth.Answer(w, r, err)
		}
	})))
	s.mux.Handle("POST /leave", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.auth.SignOut(w, r); err != nil {
			httpauth.Answer(w, r, err)
		}
	}), httpauth.Kinds(afterlogin.KindSession, afterlogin.KindJWT)))

	c := s.signedIn("mia")
	csrf := s.csrf(c)
	got := s.do(c, "POST", "/jwt-cookie", "", "X-Csrf-Token: "+csrf)
	s.want(got, 200, "")
	set := got.Header["Set-Cookie"]
	if len(set) != 1 || !strings.HasPrefix(set[0], name+"=eyJ") || !strings.Contains(set[0], "; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=299") && !strings.Contains(set[0], "; Max-Age=300") ||
		got.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("Set-Cookie %q, Cache-Control %q", set, got.Header.Get("Cache-Control"))
	}
	jwt := strings.TrimPrefix(set[0][:strings.Index(set[0], ";")], name+"=")
	alone := "Cookie: " + name + "=" + jwt

	got = s.do(s.anybody(), "GET", "/tokens", "", alone)
	s.want(got, 200, "mia")
	if len(got.cookies()) > 0 || got.Header.Get("Cache-Control") != "private, no-cache" {
		t.Errorf("headers %v", got.Header)
	}
	s.want(s.do(s.anybody(), "GET", "/account", "", alone), 401, "not signed in")
	s.want(s.do(s.anybody(), "GET", "/", "", alone), 200, "nobody")
	s.want(s.do(s.anybody(), "GET", "/tokens", "", alone+"; "+name+"="+jwt), 401, "two credentials")
	s.want(s.do(s.anybody(), "GET", "/tokens", "", alone, "Authorization: Bearer "+jwt), 401, "two credentials")
	s.want(s.do(s.anybody(), "GET", "/tokens", "", "Cookie: "+name+"="+s.held(c)), 401, "not accepted here")
	s.want(s.do(s.anybody(), "POST", "/tokens", "", alone), 403, "CSRF token is missing")
	s.want(s.do(s.anybody(), "POST", "/tokens", "", alone, "Origin: https://evil.example"), 403, "another site")
	s.want(s.do(s.anybody(), "POST", "/tokens", "", alone, "X-Csrf-Token: "+csrf), 200, "mia")
	// Beside the session cookie it stands back, whatever it holds.
	s.want(s.do(s.anybody(), "GET", "/all", "", "Cookie: "+name+"=junk; "+s.name()+"="+s.held(c)), 200, "mia")

	s.pass(20 * time.Minute) // the session is due for a renewal; the JWT is over
	got = s.do(s.anybody(), "GET", "/tokens", "", alone, "Accept: text/html", "Sec-Fetch-Mode: navigate")
	if got.StatusCode != 303 || !strings.HasPrefix(got.Header.Get("Location"), "/enter?return_to=") || len(got.cookies()) > 0 {
		t.Errorf("an expired JWT: %s %v", got.Status, got.Header)
	}
	fresh := s.access(s.session(c), afterlogin.AccessRequest{JWT: true, Audience: []string{"orders"}})
	got = s.do(s.anybody(), "GET", "/tokens", "", "Cookie: "+name+"="+fresh)
	if s.want(got, 200, "mia"); len(got.cookies()) > 0 {
		t.Errorf("a JWT was renewed: %q", got.cookies())
	}
	got = s.do(s.anybody(), "POST", "/leave", "", "Cookie: "+name+"="+fresh, "X-Csrf-Token: "+csrf)
	s.want(got, 200, "")
	if set := got.Header["Set-Cookie"]; len(set) != 1 || !strings.HasPrefix(set[0], name+"=;") || !strings.HasSuffix(set[0], "Max-Age=0") {
		t.Errorf("sign-out sets %q", set)
	}
	if _, why := s.check(s.held(c)); why != afterlogin.ReasonRevoked {
		t.Errorf("after a sign-out by its JWT the session is %q", why)
	}
}

// session returns the session that the browser's cookie stands for.
func (s *shop) session(c *http.Client) *afterlogin.Session {
	s.Helper()
	in, why := s.check(s.held(c))
	if in == nil {
		s.Fatalf("no session: %s", why)
	}
	return in
}

// A session gives JWTs for the services behind, and the same one again while that is young.
func TestJWTForServices(t *testing.T) {
	s := service(t, httpauth.Options{})
	ask := afterlogin.AccessRequest{Audience: []string{"orders"}, Scopes: []string{"orders:read"}}
	s.mux.Handle("POST /token", s.auth.JWTHandler(ask))
	s.mux.Handle("GET /call", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, err := s.auth.JWT(r, afterlogin.AccessRequest{Audience: []string{r.FormValue("aud")}, Scopes: []string{"orders:read"}})
		if err != nil {
			httpauth.Answer(w, r, err)
			return
		}
		out, _ := http.NewRequestWithContext(r.Context(), "GET", s.URL+"/tokens", nil)
		out.Header.Set("Authorization", "Bearer "+token.Reveal())
		resp, err := s.Client().Do(out)
		if err != nil {
			t.Error(err)
			return
		}
		resp.Body.Close()
		w.Header().Set("X-Same", fmt.Sprintf("%x", sha256.Sum256([]byte(token.Reveal()))))
		fmt.Fprint(w, "the service says ", resp.StatusCode)
	}), httpauth.Kinds(afterlogin.KindSession, afterlogin.KindAPIKey)))

	c := s.signedIn("mia")
	first := s.do(c, "GET", "/call?aud=orders", "")
	s.want(first, 200, "the service says 200")
	for range 300 { // more than one session may make in half an hour
		got := s.do(c, "GET", "/call?aud=orders", "")
		if s.want(got, 200, "the service says 200"); got.Header.Get("X-Same") != first.Header.Get("X-Same") {
			t.Fatal("another token, though the first is young")
		}
	}
	s.want(s.do(c, "GET", "/call?aud=invoices", ""), 200, "the service says 401")
	if got := s.do(s.signedIn("tom"), "GET", "/call?aud=orders", ""); got.Header.Get("X-Same") == first.Header.Get("X-Same") {
		t.Fatal("tom got mia's token")
	}
	key := s.issue(afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey}).Token.Reveal()
	s.want(s.do(s.anybody(), "GET", "/call?aud=orders", "", "X-Api-Key: "+key), 403, "scope")

	csrf := s.csrf(c)
	got := s.do(c, "POST", "/token", "", "X-Csrf-Token: "+csrf)
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil || got.StatusCode != 200 || answer.TokenType != "Bearer" ||
		answer.ExpiresIn < 200 || answer.ExpiresIn > 300 || got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s %v: %s", got.Status, got.Header, got.body)
	}
	s.want(s.do(s.anybody(), "GET", "/scoped", "", "Authorization: Bearer "+answer.AccessToken), 200, "mia")
	s.want(s.do(c, "POST", "/token", ""), 403, "CSRF token is missing")
	s.want(s.do(c, "GET", "/token", ""), 405, "")
	s.want(s.do(s.anybody(), "POST", "/token", ""), 401, "not signed in")
	s.want(s.do(c, "POST", "/sign-out", "", "X-Csrf-Token: "+csrf), 200, "")
	s.want(s.do(s.anybody(), "GET", "/scoped", "", "Authorization: Bearer "+answer.AccessToken), 401, "revoked")
	if strings.Contains(s.log.String(), "eyJ") {
		t.Error("a JWT is in the log")
	}
}

func TestKindsPanics(t *testing.T) {
	for _, k := range []afterlogin.Kind{afterlogin.KindRefresh, afterlogin.KindCode, afterlogin.KindClient, 0, 'x'} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Kinds(%v) does not panic", k)
				}
			}()
			httpauth.Kinds(afterlogin.KindSession, k)
		}()
	}
}

// Who signs out of a page with a JWT in a cookie ends the session behind it, and never an API key, a client or an
// offline grant; nor does a sign-out end an API key that a page does not take.
func TestSignOutByJWT(t *testing.T) {
	const name = "__Host-Http-jwt"
	s := service(t, httpauth.Options{JWTCookie: name})
	leave := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.auth.SignOut(w, r); err != nil {
			w.WriteHeader(http.StatusConflict)
		}
	})
	s.mux.Handle("GET /leave", s.auth.Require(leave, httpauth.Kinds(afterlogin.KindSession, afterlogin.KindJWT)))
	s.mux.Handle("GET /bye", s.auth.Optional(leave))
	ask := afterlogin.AccessRequest{JWT: true, Audience: []string{"orders"}}
	mia := s.issue(afterlogin.IssueRequest{Subject: "mia"})
	key := s.issue(afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey})
	client, err := s.a.AddClient(t.Context(), 0, "app", []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	grant := func(offline bool) afterlogin.Grant {
		g, err := s.a.IssueGrant(t.Context(), mia.Session, afterlogin.GrantRequest{Client: "app", Offline: offline, Audience: []string{"orders"}, Access: ask})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	online, offline, other := grant(false), grant(true), grant(false)
	tokens := []string{
		s.access(key.Session, ask), s.access(client.Session, ask), offline.Access.Token.Reveal(), online.Access.Token.Reveal(),
		other.Access.Token.Reveal(), s.access(mia.Session, ask),
	}
	for i, of := range []string{"API key", "client", "offline grant", "online grant", "", "session"} {
		if of == "" {
			continue
		}
		got := s.do(s.anybody(), "GET", "/leave", "", "Cookie: "+name+"="+tokens[i])
		if set := got.Header["Set-Cookie"]; got.StatusCode != 200 || len(set) != 1 || !strings.HasPrefix(set[0], name+"=;") {
			t.Errorf("%s: %d %q", of, got.StatusCode, set)
		}
		for j, token := range tokens {
			want := 200
			if j == 3 && i >= 3 || j > 3 && i == 5 { // the online grant by itself; then the session with its other grant
				want = 401
			}
			if got := s.do(s.anybody(), "GET", "/tokens", "", "Authorization: Bearer "+token); got.StatusCode != want {
				t.Errorf("after a sign-out by the JWT of the %s, JWT %d is answered %d, want %d", of, j, got.StatusCode, want)
			}
		}
	}

	text := key.Token.Reveal()
	s.want(s.do(s.anybody(), "GET", "/bye", "", "Authorization: Bearer "+text), 409, "")
	s.want(s.do(s.anybody(), "GET", "/bye", "", s.cookie(text)), 200, "")
	s.want(s.do(s.anybody(), "GET", "/machines", "", "Authorization: Bearer "+text), 200, "robot")
}

// A machine with a bad key is not told to sign in again.
func TestBadKeyIsToldSo(t *testing.T) {
	a, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	auth, err := httpauth.New(a, httpauth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := auth.Require(http.NotFoundHandler(), httpauth.Kinds(afterlogin.KindAPIKey))
	r := httptest.NewRequest("GET", "https://shop.example/", nil)
	r.Header.Set("X-Api-Key", "nonsense")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != 401 || !strings.Contains(w.Body.String(), "The API key is not good any more, or never was (malformed)") || strings.Contains(w.Body.String(), "nonsense") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
