package oauth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// stores are what runs on both.
var stores = map[string]func(t testing.TB) store.Store{
	"memstore": func(testing.TB) store.Store { return memstore.New() },
	"pebblestore": func(t testing.TB) store.Store {
		s, err := pebblestore.Open(t.TempDir(), pebblestore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	},
}

// fixture is a server on an authority of its own, behind real HTTP, with a clock that stands still until it is moved, and
// an application beside it that has a sign-in page.
type fixture struct {
	t      testing.TB
	a      *afterlogin.Authority
	s      *Server
	url    string
	store  *switchable
	secret map[string]string // of clients

	mu   sync.Mutex
	now  time.Time
	seen []afterlogin.Event
	log  bytes.Buffer
}

// switchable is a store that can be made to fail.
type switchable struct {
	store.Store
	mu   sync.Mutex
	down bool
	left int // how many changes succeed before it fails; 0: any number
}

var errDown = errors.New("the store is down")

func (s *switchable) set(down bool) { s.mu.Lock(); s.down = down; s.mu.Unlock() }

// after has the store fail after so many changes.
func (s *switchable) after(n int) { s.mu.Lock(); s.left = n; s.mu.Unlock() }

func (s *switchable) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errDown
	}
	return nil
}

func (s *switchable) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, ids...)
}

func (s *switchable) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if err := s.err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.left > 0 {
		s.left--
		s.down = s.left == 0
	}
	s.mu.Unlock()
	return s.Store.Apply(ctx, root, ops...)
}

func (f *fixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fixture) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

func (f *fixture) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(b)
}

func newFixture(t testing.TB, st store.Store, change ...func(*afterlogin.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, now: time.Now(), store: &switchable{Store: st}, secret: make(map[string]string)}
	log := slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var handler http.Handler
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	f.url = "http://" + web.Listener.Addr().String()
	ring := keyring.New()
	var err error
	c := afterlogin.Config{
		Store: f.store, Keys: ring, Now: f.clock, Logger: log, Issuer: f.url,
		Observe: func(e afterlogin.Event) {
			f.mu.Lock()
			f.seen = append(f.seen, e)
			f.mu.Unlock()
			if f.s != nil {
				f.s.Observe(e)
			}
		},
	}
	for _, f := range change {
		f(&c)
	}
	f.a, err = afterlogin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	f.s, err = New(Options{
		Authority: f.a, SignInURL: "/login", Logger: log, Now: f.clock, Algorithm: string(jwt.EdDSA),
		Sign: func(typ string, payload []byte) (string, error) {
			key, err := ring.Signer(jwt.EdDSA, f.clock())
			if err != nil {
				return "", err
			}
			return key.SignPayload(typ, payload)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	auth, err := httpauth.New(f.a, httpauth.Options{PlainLoopback: true})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for _, p := range Paths() {
		mux.Handle(p, f.s)
	}
	mux.Handle("GET /login", auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := auth.SignIn(w, r, httpauth.SignIn{Subject: "mia", Methods: []string{"pwd"}}); err != nil {
			httpauth.Answer(w, r, err)
			return
		}
		http.Redirect(w, r, httpauth.SafeReturn(r.URL.Query().Get("return_to")), http.StatusSeeOther)
	})))
	mux.HandleFunc("GET /callback", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "done") })
	handler = mux
	web.Start()
	t.Cleanup(func() {
		web.Close()
		f.store.set(false)
		f.a.Close()
		st.Close()
		if log := f.log.String(); anySecret.MatchString(log) {
			t.Errorf("a secret stands in the log: %s", anySecret.FindString(log)[:12])
		}
	})
	return f
}

// anySecret matches every kind of token and secret.
var anySecret = regexp.MustCompile(`al[a-z]_[A-Za-z0-9_-]{60,}|cs_[A-Za-z0-9_-]{40,}|eyJ[A-Za-z0-9_-]{20,}\.`)

// client registers a client. A secret is made for it if it wants one.
func (f *fixture) client(id string, s clients.Settings) {
	f.t.Helper()
	if s.Name == "" {
		s.Name = "Client " + id
	}
	if s.Auth == clients.Secret {
		text, hash := clients.NewSecret(f.clock())
		s.Secrets, f.secret[id] = []clients.SecretHash{hash}, text
	}
	if err := s.Check(); err != nil {
		f.t.Fatalf("client %s: %v", id, err)
	}
	if _, err := f.a.AddClient(f.t.Context(), 0, id, s.JSON()); err != nil {
		f.t.Fatalf("client %s: %v", id, err)
	}
}

const api, other = "https://api.example.com", "https://other.example.com"

// usual registers the clients that most tests need.
func (f *fixture) usual() *fixture {
	all := []string{clients.AuthorizationCode, clients.RefreshToken}
	f.client("web", clients.Settings{Auth: clients.Secret, GrantTypes: all, RedirectURIs: []string{f.url + "/callback", "https://web.example.com/cb"},
		Scopes: []string{"read", "write"}, DefaultScopes: []string{"read"}, FirstParty: true, Offline: true})
	f.client("app", clients.Settings{Auth: clients.None, GrantTypes: all, RedirectURIs: []string{"http://127.0.0.1/cb", "com.example.app:/cb"},
		Scopes: []string{"read", "write"}, Offline: true})
	f.client("job", clients.Settings{Auth: clients.Secret, GrantTypes: []string{clients.ClientCredentials}, Scopes: []string{"read", "write"},
		Resources: []string{api, other}})
	f.client("rs", clients.Settings{Auth: clients.Secret, Introspects: []string{api}})
	f.client("bff", clients.Settings{Auth: clients.Secret, GrantTypes: []string{clients.TokenExchange, clients.ClientCredentials}, Scopes: []string{"read", "write"},
		Resources: []string{api}, Introspects: []string{api}})
	return f
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
	fields map[string]any
}

func (a *answer) text(name string) string { s, _ := a.fields[name].(string); return s }

// send makes a request as it is given.
func (f *fixture) send(r *http.Request) *answer {
	f.t.Helper()
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, body: string(b)}
	json.Unmarshal(b, &a.fields)
	return a
}

// post sends a form, with the credentials of the client in the header if it has a secret, and in the body otherwise.
func (f *fixture) post(path, client string, pairs ...string) *answer {
	f.t.Helper()
	v := make(url.Values)
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	if f.secret[client] == "" && client != "" {
		v.Set("client_id", client)
	}
	r, err := http.NewRequestWithContext(f.t.Context(), "POST", f.url+path, strings.NewReader(v.Encode()))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if secret := f.secret[client]; secret != "" {
		r.SetBasicAuth(client, secret)
	}
	return f.send(r)
}

// ok is post for what must succeed.
func (f *fixture) ok(path, client string, pairs ...string) *answer {
	f.t.Helper()
	a := f.post(path, client, pairs...)
	if a.status != http.StatusOK {
		f.t.Fatalf("%s as %s: %d %s", path, client, a.status, a.body)
	}
	return a
}

// active asks as the client whether the token is good.
func (f *fixture) active(client, token string) bool {
	f.t.Helper()
	a := f.ok(IntrospectPath, client, "token", token)
	active, ok := a.fields["active"].(bool)
	if !ok || !active && a.body != `{"active":false}` {
		f.t.Errorf("introspection answers %s", a.body)
	}
	return active
}

// signIn makes a session of the subject.
func (f *fixture) signIn(subject string, scopes ...string) afterlogin.Issued {
	f.t.Helper()
	got, err := f.a.Issue(f.t.Context(), afterlogin.IssueRequest{Subject: subject, Scopes: scopes, Auth: afterlogin.Authentication{Methods: []string{"pwd"}}})
	if err != nil {
		f.t.Fatal(err)
	}
	return got
}

const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"

func challengeOf(verifier string) string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// authorization returns the parameters of an authorization request, with changes: an empty value takes one away.
func authorization(client, redirect string, pairs ...string) url.Values {
	v := url.Values{
		"response_type": {"code"}, "client_id": {client}, "redirect_uri": {redirect}, "state": {"xyz ~1"}, "scope": {"read"},
		"code_challenge": {challengeOf(verifier)}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(pairs); i += 2 {
		if v.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			v.Del(pairs[i])
		}
	}
	return v
}

// ask sends an authorization request with the session's cookie.
func (f *fixture) ask(session afterlogin.Token, v url.Values) *answer {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), "GET", f.url+AuthorizePath+"?"+v.Encode(), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	if !session.IsZero() {
		r.Header.Set("Cookie", httpauth.PlainCookieName+"="+session.Reveal())
	}
	r.Header.Set("Accept", "text/html")
	return f.send(r)
}

// returned reads what an answer sends to the client.
func (f *fixture) returned(a *answer) url.Values {
	f.t.Helper()
	u, err := url.Parse(a.header.Get("Location"))
	if err != nil || a.status != http.StatusSeeOther {
		f.t.Fatalf("want a redirect, got %d %s", a.status, a.body)
	}
	return u.Query()
}

var hidden = regexp.MustCompile(`name="([a-z_]+)" value="([^"]*)"`)

// code goes through the authorization endpoint, and the consent page if there is one.
func (f *fixture) code(session afterlogin.Token, v url.Values) string {
	f.t.Helper()
	a := f.ask(session, v)
	if a.status == http.StatusOK {
		a = f.decide(session, a.body, "allow")
	}
	got := f.returned(a)
	if got.Get("code") == "" || got.Get("state") != v.Get("state") || got.Get("iss") != f.url {
		f.t.Fatalf("no code in %v", maps.Collect(maps.All(got)))
	}
	return got.Get("code")
}

// decide sends the form of the consent page.
func (f *fixture) decide(session afterlogin.Token, page, decision string) *answer {
	f.t.Helper()
	form := url.Values{"decision": {decision}}
	for _, m := range hidden.FindAllStringSubmatch(page, -1) {
		if m[1] != "decision" {
			form.Set(m[1], unhtml.Replace(m[2]))
		}
	}
	r, err := http.NewRequestWithContext(f.t.Context(), "POST", f.url+AuthorizePath, strings.NewReader(form.Encode()))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Cookie", httpauth.PlainCookieName+"="+session.Reveal())
	r.Header.Set("Origin", f.url)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return f.send(r)
}

var unhtml = strings.NewReplacer("&amp;", "&", "&#43;", "+", "&#34;", `"`, "&#39;", "'")

// grant goes through the whole flow and returns the token endpoint's answer.
func (f *fixture) grant(session afterlogin.Token, client, redirect, scope string) *answer {
	f.t.Helper()
	code := f.code(session, authorization(client, redirect, "scope", scope))
	return f.ok(TokenPath, client, "grant_type", clients.AuthorizationCode, "code", code, "redirect_uri", redirect, "code_verifier", verifier)
}

// browser returns an HTTP client that keeps cookies, as a browser does.
func browser(t testing.TB) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar}
}
