package httpauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// A shop is a small application on the real authority, served over TLS, with a clock of its own.
type shop struct {
	*testing.T
	*httptest.Server
	mux   *http.ServeMux
	auth  *httpauth.Auth
	a     *afterlogin.Authority
	store *faultyStore
	log   lockedBuffer

	offset atomic.Int64 // of the clock
	mu     sync.Mutex
	events []afterlogin.Event
}

// open makes a shop. wrap, if not nil, is put around everything.
func open(t *testing.T, o httpauth.Options, wrap func(http.Handler) http.Handler) *shop {
	t.Helper()
	return openWith(t, o, wrap, afterlogin.Config{})
}

// openWith is open with settings of the authority.
func openWith(t *testing.T, o httpauth.Options, wrap func(http.Handler) http.Handler, c afterlogin.Config) *shop {
	t.Helper()
	s := &shop{T: t, mux: http.NewServeMux(), store: &faultyStore{Store: memstore.New()}}
	start := time.Now()
	log := slog.New(slog.NewTextHandler(&s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	c.Store, c.Logger, c.CacheSize = s.store, log, 1000
	c.Now = func() time.Time { return start.Add(time.Duration(s.offset.Load())) }
	c.Observe = func(e afterlogin.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}
	s.a, err = afterlogin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.a.Close() })
	o.Logger = log
	if s.auth, err = httpauth.New(s.a, o); err != nil {
		t.Fatal(err)
	}
	x := s.auth
	optional := func(f http.HandlerFunc) http.Handler { return x.Optional(f) }
	s.mux.Handle("GET /{$}", optional(s.home))
	s.mux.Handle("GET /cart", optional(s.cart))
	s.mux.Handle("POST /cart", optional(s.addToCart))
	s.mux.Handle("POST /sign-in", optional(s.signIn))
	s.mux.Handle("POST /sign-out", optional(func(w http.ResponseWriter, r *http.Request) {
		if err := x.SignOut(w, r); err != nil {
			httpauth.Answer(w, r, err)
		}
	}))
	s.mux.Handle("POST /step-up", x.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := x.StepUp(w, r, afterlogin.Authentication{Methods: []string{"otp"}}); err != nil {
			httpauth.Answer(w, r, err)
		}
	})))
	s.mux.Handle("/account", x.Require(http.HandlerFunc(s.home)))
	s.mux.Handle("/danger", x.Require(http.HandlerFunc(s.home), httpauth.MaxAge(5*time.Minute)))
	s.mux.Handle("/api", x.Require(http.HandlerFunc(s.home),
		httpauth.Kinds(afterlogin.KindSession, afterlogin.KindAPIKey), httpauth.Scopes("orders:read")))
	s.mux.Handle("/machines", x.Require(http.HandlerFunc(s.home), httpauth.Kinds(afterlogin.KindAPIKey)))
	var h http.Handler = s.mux
	if wrap != nil {
		h = wrap(h)
	}
	s.Server = httptest.NewUnstartedServer(h)
	s.Server.Config.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	if o.PlainLoopback {
		s.Server.Start()
	} else {
		s.Server.StartTLS()
	}
	t.Cleanup(s.Server.Close)
	return s
}

// home says who is asking, in one line.
func (s *shop) home(w http.ResponseWriter, r *http.Request) {
	in, ok := httpauth.Session(r.Context())
	refusal, refused := httpauth.RefusalFrom(r.Context())
	switch {
	case refused:
		fmt.Fprintf(w, "refused %s %s", refusal.Reason, refusal.Message())
	case !ok:
		io.WriteString(w, "nobody")
	case in.Anonymous():
		io.WriteString(w, "anonymous "+s.auth.CSRFToken(r))
	default:
		io.WriteString(w, in.Subject+" "+s.auth.CSRFToken(r))
	}
}

func (s *shop) cart(w http.ResponseWriter, r *http.Request) {
	d, err := s.auth.Data(r)
	if err != nil {
		httpauth.Answer(w, r, err)
		return
	}
	w.Write(d.JSON("cart"))
}

func (s *shop) addToCart(w http.ResponseWriter, r *http.Request) {
	err := s.auth.UpdateData(w, r, func(d *afterlogin.Data) error {
		var items []string
		if _, err := d.Get("cart", &items); err != nil {
			return err
		}
		return d.Set("cart", append(items, r.FormValue("item")))
	})
	if err != nil {
		httpauth.Answer(w, r, err)
	}
}

func (s *shop) signIn(w http.ResponseWriter, r *http.Request) {
	mark, err := s.auth.Begin(r, r.FormValue("name"))
	if err == nil {
		_, err = s.auth.SignIn(w, r, httpauth.SignIn{
			Subject: r.FormValue("name"), Mark: mark, Remember: r.FormValue("remember") != "", Methods: []string{"pwd"},
		})
	}
	if err != nil {
		httpauth.Answer(w, r, err)
	}
}

func (s *shop) pass(d time.Duration) { s.offset.Add(int64(d)) }

// saw returns the events of the type.
func (s *shop) saw(typ string) (found []afterlogin.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Type == typ {
			found = append(found, e)
		}
	}
	return found
}

// issue makes a session, or what r says, past HTTP.
func (s *shop) issue(r afterlogin.IssueRequest) afterlogin.Issued {
	s.Helper()
	got, err := s.a.Issue(s.Context(), r)
	if err != nil {
		s.Fatal(err)
	}
	return got
}

// name is the name of the session cookie.
func (s *shop) name() string {
	if s.Server.TLS == nil {
		return httpauth.PlainCookieName
	}
	return httpauth.CookieName
}

// An answer is an answer, read to its end.
type answer struct {
	*http.Response
	body string
}

// cookies returns the Set-Cookie lines of the session cookie.
func (a answer) cookies() (set []string) {
	for _, c := range a.Header["Set-Cookie"] {
		if strings.HasPrefix(c, httpauth.CookieName+"=") || strings.HasPrefix(c, httpauth.PlainCookieName+"=") {
			set = append(set, c)
		}
	}
	return set
}

// value returns the value of the one session cookie that is set, or "".
func (a answer) value() string {
	set := a.cookies()
	if len(set) == 0 {
		return ""
	}
	v := strings.TrimPrefix(strings.TrimPrefix(set[0], httpauth.CookieName+"="), httpauth.PlainCookieName+"=")
	v, _, _ = strings.Cut(v, ";")
	return v
}

// do sends a request with the headers, given as "Name: value". It checks what holds of every answer.
func (s *shop) do(client *http.Client, method, path, form string, headers ...string) answer {
	s.Helper()
	a, err := s.try(client, method, path, form, headers...)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (s *shop) try(client *http.Client, method, path, form string, headers ...string) (answer, error) {
	var body io.Reader
	if form != "" {
		body = strings.NewReader(form)
	}
	r, err := http.NewRequestWithContext(s.Context(), method, s.URL+path, body)
	if err != nil {
		return answer{}, err
	}
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		r.Header[http.CanonicalHeaderKey(k)] = append(r.Header[http.CanonicalHeaderKey(k)], v)
	}
	resp, err := client.Do(r)
	if err != nil {
		return answer{}, err
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return answer{}, err
	}
	a := answer{resp, string(b)}
	set := a.cookies()
	if len(set) > 1 {
		s.Errorf("%s %s sets the cookie %d times", method, path, len(set))
	}
	if len(set) > 0 && a.Header.Get("Cache-Control") != "no-store" {
		s.Errorf("%s %s sets the cookie with Cache-Control %q", method, path, a.Header.Get("Cache-Control"))
	}
	if v := a.value(); v != "" && strings.Contains(a.body, v) {
		s.Errorf("%s %s has the token in its body", method, path)
	}
	return a, nil
}

// anybody is a client without a cookie jar that follows no redirects.
func (s *shop) anybody() *http.Client {
	c := *s.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

// browser is a client with a cookie jar.
func (s *shop) browser() *http.Client {
	c := s.anybody()
	c.Jar, _ = cookiejar.New(nil)
	return c
}

// held returns the token that the browser's jar holds.
func (s *shop) held(c *http.Client) string {
	u, _ := url.Parse(s.URL)
	for _, k := range c.Jar.Cookies(u) {
		if k.Name == s.name() {
			return k.Value
		}
	}
	return ""
}

// csrf returns the CSRF token of the browser's session as the home page shows it.
func (s *shop) csrf(c *http.Client) string {
	s.Helper()
	_, token, _ := strings.Cut(s.do(c, "GET", "/", "").body, " ")
	return token
}

// signedIn returns a browser in which somebody has signed in.
func (s *shop) signedIn(name string) *http.Client {
	s.Helper()
	c := s.browser()
	if got := s.do(c, "POST", "/sign-in", "name="+name); got.StatusCode != 200 || s.held(c) == "" {
		s.Fatalf("sign-in: %s %s", got.Status, got.body)
	}
	return c
}

// cookie is a Cookie header with the token.
func (s *shop) cookie(token string) string { return "Cookie: " + s.name() + "=" + token }

// check asks the authority about a token, and returns the reason of a refusal.
func (s *shop) check(token string) (*afterlogin.Session, afterlogin.Reason) {
	in, err := s.a.Validate(context.Background(), afterlogin.TokenFrom(token), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}})
	return in, afterlogin.ReasonOf(err)
}

// want fails unless the answer has the status and its body contains the text.
func (s *shop) want(a answer, status int, text string) {
	s.Helper()
	if a.StatusCode != status || !strings.Contains(a.body, text) {
		s.Errorf("%s %s: got %d %q, want %d %q", a.Request.Method, a.Request.URL.Path, a.StatusCode, a.body, status, text)
	}
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

// faultyStore fails in the way that is set: a real store with bad days.
type faultyStore struct {
	store.Store
	fault atomic.Int32
	gets  atomic.Int64
	gate  chan bool
}

const (
	healthy      = iota
	readsFail    // every Get fails
	writesFail   // every Apply fails, and nothing happens
	writesUnsure // every Apply happens, and says that it does not know; reads fail
	writesHang   // every Apply waits for its context
	writesGated  // the next Apply sends to gate, and goes on when it can receive from it
)

var errFaulty = errors.New("the disk is on fire")

func (f *faultyStore) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	f.gets.Add(1)
	if n := f.fault.Load(); n == readsFail {
		return nil, errFaulty
	}
	return f.Store.Get(ctx, ids...)
}

func (f *faultyStore) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	switch f.fault.Load() {
	case writesFail, readsFail:
		return errFaulty
	case writesUnsure:
		f.fault.Store(readsFail)
		if err := f.Store.Apply(ctx, root, ops...); err != nil {
			return err
		}
		return store.ErrUnknown
	case writesGated:
		f.fault.Store(healthy)
		f.gate <- true
		<-f.gate
	case writesHang:
		<-ctx.Done()
		return ctx.Err()
	}
	return f.Store.Apply(ctx, root, ops...)
}

// problemOf decodes a problem+json body.
func problemOf(t *testing.T, a answer) (reason string) {
	t.Helper()
	var p struct {
		Title  string
		Status int
		Detail string
		Reason string
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Status != a.StatusCode || p.Title == "" || p.Detail == "" {
		t.Errorf("not a problem: %s %q (%v)", a.Header.Get("Content-Type"), a.body, err)
	}
	return p.Reason
}
