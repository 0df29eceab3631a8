package login

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// Passwords that the tests use: none may stand in a log, nor in a page.
const (
	good  = "correct horse battery"
	other = "staple the battery well"
	bad   = "not the password at all"
)

// fixture is the pages on two hosts: an application's, below a base, and the server's own.
type fixture struct {
	t     testing.TB
	a     *afterlogin.Authority
	store *storetest.Faulty
	users *users.Users
	login *Login
	app   *Site
	home  *Site
	from  netip.Addr // where requests come from
	roots *x509.CertPool

	mu  sync.Mutex
	at  time.Time
	log bytes.Buffer
}

func (f *fixture) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(b)
}

func (f *fixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

func (f *fixture) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = f.at.Add(d)
}

func open(t testing.TB, change func(*Options)) *fixture {
	t.Helper()
	return openAt(t, "example.com", change) // which the test servers' certificate is for
}

// openAt is open with hosts of another domain.
func openAt(t testing.TB, domain string, change func(*Options)) *fixture {
	t.Helper()
	return openLimited(t, domain, nil, change)
}

// openLimited is openAt with limits on how many sessions somebody may have.
func openLimited(t testing.TB, domain string, limits map[afterlogin.Kind]afterlogin.SessionLimit, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, at: time.Now(), from: netip.MustParseAddr("192.0.2.1"), store: storetest.NewFaulty(memstore.New(), nil)}
	log := slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ring := keyring.New()
	var err error
	if f.a, err = afterlogin.New(afterlogin.Config{Store: f.store, Keys: ring, Now: f.clock, CacheSize: -1, Limits: limits}); err != nil {
		t.Fatal(err)
	}
	f.users, err = users.New(users.Options{Authority: f.a, Keys: ring, Now: f.clock, Logger: log, Params: users.Params{Memory: 64, Time: 1, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	handler := func(site func() *Site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/test/") { // what is not the pages': an upstream that has answered
				s := site()
				s.Auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.upstream(w, r, s) })).ServeHTTP(w, r)
				return
			}
			f.login.ServeHTTP(w, r)
		})
	}
	appServer := httptest.NewTLSServer(handler(func() *Site { return f.app }))
	homeServer := httptest.NewTLSServer(handler(func() *Site { return f.home }))
	f.roots = x509.NewCertPool()
	f.roots.AddCert(appServer.Certificate())
	site := func(origin, base string, over ...string) *Site {
		auth, err := httpauth.New(f.a, httpauth.Options{
			Origin: origin, HandOverTo: over, SignInURL: base + "/login", Logger: log, Refuse: Refuse,
			ClientAddr: func(*http.Request) netip.Addr { return f.from },
		})
		if err != nil {
			t.Fatal(err)
		}
		return &Site{Origin: origin, Base: base, Auth: auth}
	}
	// Two hosts: cookies do not tell ports apart.
	at := func(name string, s *httptest.Server) string {
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		return "https://" + name + "." + domain + ":" + u.Port()
	}
	shop, auth := at("shop", appServer), at("auth", homeServer)
	f.app, f.home = site(shop, "/.afterlogin"), site(auth, "", shop)
	o := Options{
		Authority: f.a, Users: f.users, Returns: []string{f.app.Origin, "https://other.example"}, Home: f.home.Origin, HandOver: []string{f.app.Origin}, Logger: log, Now: f.clock,
		Providers: []Provider{{ID: "corp", Name: "Example Corp", ACR: []string{"gold"}}},
		Site: func(r *http.Request) (*Site, error) {
			switch "https://" + r.Host {
			case f.app.Origin:
				return f.app, nil
			case f.home.Origin:
				return f.home, nil
			}
			return nil, errors.New("no such site")
		},
	}
	if change != nil {
		change(&o)
	}
	if f.login, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		appServer.Close()
		homeServer.Close()
		f.a.Close()
		f.store.Close()
		for _, secret := range []string{good, other, bad, "argon2id", "als_", "alt_"} {
			if strings.Contains(f.log.String(), secret) {
				t.Errorf("%q stands in the log: %s", secret, f.log.String())
			}
		}
	})
	for _, name := range []string{"mia", "tom"} {
		if _, err := f.users.Add(t.Context(), name, good, []string{"read"}); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// upstream stands for a provider whose callback signs somebody in, /test/complete?subject=…, and for an application that says
// who that is, /test/who.
func (f *fixture) upstream(w http.ResponseWriter, r *http.Request, site *Site) {
	q := r.URL.Query()
	if r.URL.Path == "/test/who" {
		who := "nobody"
		if s := session(r); s != nil {
			who = s.Subject
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, "<!doctype html><title>who</title><p id=who>"+html.EscapeString(who))
		return
	}
	id := Identity{Subject: q.Get("subject"), Methods: []string{"otp"}, ACR: q.Get("acr"), Confirm: q.Has("confirm"), Remember: q.Has("remember"), At: f.clock()}
	if q.Has("stale") {
		mark, err := f.a.Begin(r.Context(), 0, id.Subject)
		if err != nil {
			f.t.Error(err)
		}
		if err := f.a.RevokeSubject(r.Context(), 0, id.Subject, afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
			f.t.Error(err)
		}
		id.Mark = mark
	}
	f.login.Complete(w, r, site, id, q.Get("return_to"))
}

// browser is a browser, with cookies, that sends what browsers send.
type browser struct {
	f    *fixture
	http *http.Client
	site *Site
}

func (f *fixture) browser(site *Site) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		f.t.Fatal(err)
	}
	t := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: f.roots},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) { // every name is this machine
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+port)
		},
	}
	f.t.Cleanup(t.CloseIdleConnections)
	c := &http.Client{Jar: jar, Transport: t}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &browser{f, c, site}
}

type answer struct {
	status int
	header http.Header
	body   string
	to     string // Location
}

// do sends a request; a header in the form "Name: value" may follow.
func (b *browser) do(method, target string, form url.Values, headers ...string) *answer {
	b.f.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = b.site.Origin + target
	}
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(b.f.t.Context(), method, target, body)
	if err != nil {
		b.f.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("Origin", b.site.Origin)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Del(name)
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	resp, err := b.http.Do(r)
	if err != nil {
		b.f.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.f.t.Fatal(err)
	}
	a := &answer{resp.StatusCode, resp.Header, string(text), resp.Header.Get("Location")}
	b.f.check(method+" "+target, a)
	return a
}

func (b *browser) get(target string) *answer { b.f.t.Helper(); return b.do("GET", target, nil) }

var (
	hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
	ids    = regexp.MustCompile(`\bid="([^"]*)"`)
	refs   = regexp.MustCompile(`\b(?:for|aria-describedby)="([^"]*)"`)
	inputs = regexp.MustCompile(`<input id="([^"]*)"`)
)

// check holds every answer against what is true of all of them.
func (f *fixture) check(what string, a *answer) {
	f.t.Helper()
	if cc := a.header.Get("Cache-Control"); !strings.Contains(cc, "no-store") {
		f.t.Errorf("%s: Cache-Control %q", what, cc)
	}
	for _, secret := range []string{good, other, bad} {
		if strings.Contains(html.UnescapeString(a.body), secret) {
			f.t.Errorf("%s: a password stands in the page", what)
		}
	}
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, "<h1>") {
		return
	}
	csp := a.header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action ", styleHash} {
		if !strings.Contains(csp, part) {
			f.t.Errorf("%s: the policy lacks %s: %s", what, part, csp)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") || strings.Contains(a.body, "<script") || strings.Contains(a.body, "style=") {
		f.t.Errorf("%s: the policy or the page lets scripts or styles in: %s", what, csp)
	}
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin"} {
		if name == "Referrer-Policy" && strings.Contains(what, "ticket=") {
			want = "no-referrer"
		}
		if a.header.Get(name) != want {
			f.t.Errorf("%s: %s is %q", what, name, a.header.Get(name))
		}
	}
	known := make(map[string]bool)
	for _, m := range ids.FindAllStringSubmatch(a.body, -1) {
		if known[m[1]] {
			f.t.Errorf("%s: the id %s stands there twice", what, m[1])
		}
		known[m[1]] = true
	}
	labelled := make(map[string]bool)
	for _, m := range refs.FindAllStringSubmatch(a.body, -1) {
		for _, id := range strings.Fields(m[1]) {
			labelled[id] = true
			if !known[id] {
				f.t.Errorf("%s: there is no %s", what, id)
			}
		}
	}
	for _, m := range inputs.FindAllStringSubmatch(a.body, -1) {
		if !labelled[m[1]] {
			f.t.Errorf("%s: %s has no label", what, m[1])
		}
	}
	if strings.Count(a.body, "autofocus") > 1 {
		f.t.Errorf("%s: two things have the focus", what)
	}
}

// form returns the hidden fields of the first form of the page.
func (a *answer) form() url.Values {
	out := make(url.Values)
	_, rest, _ := strings.Cut(a.body, "<form")
	rest, _, _ = strings.Cut(rest, "</form>")
	for _, m := range hidden.FindAllStringSubmatch(rest, -1) {
		out.Set(html.UnescapeString(m[1]), html.UnescapeString(m[2]))
	}
	return out
}

// fill returns the fields of the first form with others: name, value, name, value.
func (a *answer) fill(pairs ...string) url.Values {
	f := a.form()
	for i := 0; i < len(pairs); i += 2 {
		f.Set(pairs[i], pairs[i+1])
	}
	return f
}

// signIn goes through the form.
func (b *browser) signIn(name, password, returnTo string, more ...string) *answer {
	b.f.t.Helper()
	target := b.site.Base + "/login"
	if returnTo != "" {
		target += "?return_to=" + url.QueryEscape(returnTo)
	}
	page := b.get(target)
	return b.do("POST", b.site.Base+"/login", page.fill(append([]string{"name", name, "password", password}, more...)...))
}

// token is the session's token that the browser holds, "" if it holds none.
func (b *browser) token() string {
	u, _ := url.Parse(b.site.Origin)
	for _, c := range b.http.Jar.Cookies(u) {
		if c.Name == httpauth.CookieName {
			return c.Value
		}
	}
	return ""
}

// session is the session that the browser is signed in with, or nil.
func (b *browser) session() *afterlogin.Session {
	b.f.t.Helper()
	if b.token() == "" {
		return nil
	}
	s, err := b.f.a.Validate(b.f.t.Context(), afterlogin.TokenFrom(b.token()), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}})
	if err != nil && !errors.Is(err, afterlogin.ErrInvalidToken) {
		b.f.t.Fatal(err)
	}
	return s
}

func (a *answer) wants(t testing.TB, what string, status int, parts ...string) {
	t.Helper()
	if a.status != status {
		t.Errorf("%s: %d, want %d: %s", what, a.status, status, a.body)
		return
	}
	for _, p := range parts {
		if !strings.Contains(a.body, html.EscapeString(p)) && !strings.Contains(a.body, p) {
			t.Errorf("%s: the page does not say %q: %s", what, p, a.body)
		}
	}
}
