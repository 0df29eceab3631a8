package gateway_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
)

const (
	origin = "https://shop.example.com"
	issuer = "https://id.example.com"
	html   = "text/html,application/xhtml+xml"
)

// A door is a gateway on a real authority, with a clock of its own and a store that fails on demand.
type door struct {
	testing.TB
	*gateway.Gateway
	a      *afterlogin.Authority
	store  *faultyStore
	keys   *keyring.Ring
	log    lockedBuffer
	start  time.Time
	offset atomic.Int64
	signed atomic.Int64 // how many assertions
	broken atomic.Pointer[error]
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// open makes a gateway with one application, which the changes are made to.
func open(t testing.TB, change ...func(*gateway.Options, *gateway.App)) *door {
	t.Helper()
	d := &door{TB: t, store: &faultyStore{Store: memstore.New()}, keys: keyring.New(), start: time.Now()}
	log := slog.New(slog.NewTextHandler(&d.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	d.a, err = afterlogin.New(afterlogin.Config{Store: d.store, Keys: d.keys, Issuer: issuer, Now: d.now, Logger: log, CacheSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.a.Close() })
	app := gateway.App{Origin: origin}
	o := gateway.Options{
		Authority: d.a, Proxies: prefixes("192.0.2.0/24"), Logger: log, Now: d.now,
		Sign: func(typ string, c *jwt.Claims) (string, error) {
			d.signed.Add(1)
			if err := d.broken.Load(); err != nil {
				return "", *err
			}
			key, err := d.keys.Signer(jwt.EdDSA, d.now())
			if err != nil {
				return "", err
			}
			return key.Sign(typ, c)
		},
	}
	for _, f := range change {
		f(&o, &app)
	}
	o.Apps = append(o.Apps, app)
	if d.Gateway, err = gateway.New(o); err != nil {
		t.Fatal(err)
	}
	return d
}

// withRules is a change of open.
func withRules(rules ...gateway.Rule) func(*gateway.Options, *gateway.App) {
	return func(_ *gateway.Options, a *gateway.App) { a.Rules = rules }
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func (d *door) now() time.Time          { return d.start.Add(time.Duration(d.offset.Load())) }
func (d *door) pass(span time.Duration) { d.offset.Add(int64(span)) }

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// issue makes a session of mia's, which the changes are made to, and returns its token.
func (d *door) issue(change ...func(*afterlogin.IssueRequest)) (string, *afterlogin.Session) {
	d.Helper()
	r := afterlogin.IssueRequest{Subject: "mia", Scopes: []string{"orders:read"}, Auth: afterlogin.Authentication{Methods: []string{"pwd"}}}
	for _, f := range change {
		f(&r)
	}
	got := must[afterlogin.Issued](d)(d.a.Issue(context.Background(), r))
	return got.Token.Reveal(), got.Session
}

// cookie returns a change of ask that sends the session cookie.
func cookie(token string) func(*http.Request) {
	return header("Cookie", httpauth.CookieName+"="+token)
}

// header returns a change of ask that adds a header; an empty value takes it out.
func header(name, value string) func(*http.Request) {
	return func(r *http.Request) {
		if value == "" {
			delete(r.Header, http.CanonicalHeaderKey(name))
			return
		}
		r.Header.Add(name, value)
	}
}

func replaced(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// navigation makes it the request of a browser that shows the answer as a page.
func navigation(r *http.Request) {
	r.Header.Set("Accept", html)
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
}

// ask asks about a request for the target as a proxy would, through the variant: "", "/nginx", and so on.
func (d *door) ask(variant, method, target string, change ...func(*http.Request)) *http.Response {
	d.Helper()
	r := httptest.NewRequest("GET", "http://127.0.0.1:7070"+gateway.Path+variant, nil)
	r.RequestURI = gateway.Path + variant
	r.RemoteAddr = "192.0.2.10:40000"
	r.Header.Set("X-Forwarded-Method", method)
	r.Header.Set("X-Forwarded-Proto", "https")
	r.Header.Set("X-Forwarded-Host", "shop.example.com")
	r.Header.Set("X-Forwarded-Uri", target)
	r.Header.Set("X-Forwarded-For", "203.0.113.7")
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "ABC") // of whoever has the gateway in hand
	d.ServeHTTP(w, r)
	resp := w.Result()
	d.checkAnswer(variant, resp, w.Body.Len())
	return resp
}

// identityHeaders are those that every 2xx answer must carry.
var identityHeaders = []string{
	gateway.HeaderSubject, gateway.HeaderSession, gateway.HeaderKind, gateway.HeaderScopes, gateway.HeaderTime,
	gateway.HeaderAssertion, gateway.HeaderCookie, gateway.HeaderAuthorization,
}

// checkAnswer holds what is true of every answer, whatever it says.
func (d *door) checkAnswer(variant string, resp *http.Response, size int) {
	d.Helper()
	if size > 1024 {
		d.Errorf("a body of %d bytes", size)
	}
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		d.Errorf("%d: Cache-Control: %q", resp.StatusCode, got)
	}
	if len(resp.Header["Set-Cookie"]) > 0 {
		d.Errorf("an answer to a proxy sets a cookie")
	}
	if l := len(resp.Header.Get("Location")); l > 3<<10 {
		d.Errorf("a Location of %d bytes", l)
	}
	passes := resp.StatusCode >= 200 && resp.StatusCode < 300
	for _, name := range identityHeaders {
		if got := len(resp.Header[name]); passes && got != 1 || !passes && got != 0 {
			d.Errorf("%d: %d headers %s", resp.StatusCode, got, name)
		}
	}
	switch {
	case variant == "/answer" && passes:
		d.Errorf("/answer says %d", resp.StatusCode)
	case variant == "/nginx" && resp.StatusCode != 200 && resp.StatusCode != 401 && resp.StatusCode != 403 && resp.StatusCode < 500:
		d.Errorf("/nginx says %d", resp.StatusCode)
	}
	if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
		d.Error("503 without Retry-After")
	}
}

// verify returns the claims of an assertion for the audience.
func (d *door) verify(assertion, audience string) *jwt.Claims {
	d.Helper()
	v := jwt.Verifier{Keys: d.a.JWKS(), Issuer: issuer, Audience: []string{audience}, Type: gateway.TypeAssertion, Now: d.now, Leeway: -1}
	return must[*jwt.Claims](d)(v.Verify(context.Background(), assertion))
}

func status(t testing.TB, resp *http.Response, want int) {
	t.Helper()
	if resp.StatusCode != want {
		t.Errorf("got %d, want %d: %v", resp.StatusCode, want, resp.Header)
	}
}

func has(t testing.TB, resp *http.Response, name, want string) {
	t.Helper()
	if got := resp.Header.Get(name); got != want {
		t.Errorf("%s: got %q, want %q", name, got, want)
	}
}

func contains(t testing.TB, text, want string) {
	t.Helper()
	if !strings.Contains(text, want) {
		t.Errorf("%q is not in %q", want, text)
	}
}

// panics is a way to sign that is broken.
func panics(string, *jwt.Claims) (string, error) { panic("no key") }
