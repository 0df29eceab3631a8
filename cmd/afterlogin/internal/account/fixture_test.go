package account

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
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
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/geo"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/geo/geotest"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/login"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// Where people are, and what with.
const (
	cologne   = "81.2.69.5"
	lyon      = "81.2.75.5"
	firefox   = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0"
	safari    = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
	chromium  = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
	password  = "correct horse battery"
	otherWord = "staple the battery well"
)

// fixture is the pages for people on two hosts: an application's, below a base, and the server's own.
type fixture struct {
	t       testing.TB
	a       *afterlogin.Authority
	store   *storetest.Faulty
	account *Account
	login   *login.Login
	users   *users.Users
	app     *Site
	home    *Site
	roots   *x509.CertPool
	tenant  uint32

	mu     sync.Mutex
	at     time.Time
	from   netip.Addr
	log    bytes.Buffer
	events []afterlogin.Event
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

// be has the requests that follow come from the address.
func (f *fixture) be(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from = netip.MustParseAddr(addr)
}

func (f *fixture) seen(typ string) (out []afterlogin.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		if e.Type == typ {
			out = append(out, e)
		}
	}
	return out
}

// places writes a small database of places.
func places(t testing.TB) *geo.DB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "places.mmdb")
	b := geotest.Database("DBIP-City-Lite", map[string]geotest.Map{
		"81.2.69.0/24": geotest.City(map[string]string{"en": "Cologne", "de": "Köln"}, map[string]string{"en": "Germany", "de": "Deutschland"}),
		"81.2.75.0/24": geotest.City(map[string]string{"en": "Lyon"}, map[string]string{"en": "France", "de": "Frankreich"}),
	})
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := geo.Open(geo.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func open(t testing.TB, change func(*Options)) *fixture {
	t.Helper()
	return openAt(t, "example.com", change) // which the test servers' certificate is for
}

func openAt(t testing.TB, domain string, change func(*Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, at: time.Now().Truncate(time.Hour), from: netip.MustParseAddr(cologne), store: storetest.NewFaulty(memstore.New(), nil)}
	log := slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ring := keyring.New()
	var err error
	f.a, err = afterlogin.New(afterlogin.Config{
		Store: f.store, Keys: ring, Now: f.clock, CacheSize: -1, KeepEnded: 48 * time.Hour,
		Observe: func(e afterlogin.Event) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, e)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f.users, err = users.New(users.Options{Authority: f.a, Keys: ring, Now: f.clock, Logger: log, Params: users.Params{Memory: 64, Time: 1, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	// A browser of an earlier test may still be knocking at the port when the server is not put together yet.
	ready := make(chan struct{})
	// What the server does: these pages, the sign-in pages, and an application that says who is signed in.
	handler := func(site func() *Site) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-ready
			at := site()
			path := strings.TrimPrefix(r.URL.Path, at.Base)
			switch {
			case strings.HasPrefix(r.URL.Path, "/test/"):
				at.Auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.application(w, r, at) })).ServeHTTP(w, r)
			case Handles(path):
				f.account.ServeHTTP(w, r)
			default:
				f.login.ServeHTTP(w, r)
			}
		})
	}
	appServer := httptest.NewTLSServer(handler(func() *Site { return f.app }))
	homeServer := httptest.NewTLSServer(handler(func() *Site { return f.home }))
	f.roots = x509.NewCertPool()
	f.roots.AddCert(appServer.Certificate())
	site := func(origin, base string, over ...string) *Site {
		auth, err := httpauth.New(f.a, httpauth.Options{
			Origin: origin, HandOverTo: over, SignInURL: base + "/login", Logger: log, Refuse: Refuse(login.Refuse),
			ClientAddr: func(*http.Request) netip.Addr { f.mu.Lock(); defer f.mu.Unlock(); return f.from },
		})
		if err != nil {
			t.Fatal(err)
		}
		return &Site{Origin: origin, Base: base, Auth: auth}
	}
	at := func(name string, s *httptest.Server) string { // two hosts: cookies do not tell ports apart
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		return "https://" + name + "." + domain + ":" + u.Port()
	}
	shop, auth := at("shop", appServer), at("auth", homeServer)
	f.app, f.home = site(shop, "/.afterlogin"), site(auth, "", shop)
	find := func(r *http.Request) (*Site, error) {
		switch "https://" + r.Host {
		case f.app.Origin:
			return f.app, nil
		case f.home.Origin:
			return f.home, nil
		}
		return nil, errors.New("no such site")
	}
	o := Options{
		Authority: f.a, Logger: log, Now: f.clock, Site: find, Places: places(t), Providers: map[string]string{"corp": "Example Corp"},
		Password: func(s *afterlogin.Session) bool { return users.CheckName(s.Subject) == nil },
	}
	if change != nil {
		change(&o)
	}
	if f.account, err = New(o); err != nil {
		t.Fatal(err)
	}
	f.login, err = login.New(login.Options{
		Authority: f.a, Users: f.users, Home: auth, Returns: []string{shop}, HandOver: []string{shop}, Logger: log, Now: f.clock, Account: true,
		Site: func(r *http.Request) (*login.Site, error) {
			at, err := find(r)
			if err != nil {
				return nil, err
			}
			return (*login.Site)(at), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	close(ready)
	for _, name := range []string{"mia", "tom"} {
		if _, err := f.users.Add(t.Context(), name, password, nil); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		appServer.Close()
		homeServer.Close()
		f.a.Close()
		f.store.Close()
		for _, secret := range []string{password, "als_", "alt_", "alr_", "alk_", cologne, lyon} {
			if strings.Contains(f.log.String(), secret) {
				t.Errorf("%q stands in the log: %s", secret, f.log.String())
			}
		}
	})
	return f
}

// application is what is not the pages': it signs people in, /test/in?subject=…, and says who they are, /test/who.
func (f *fixture) application(w http.ResponseWriter, r *http.Request, site *Site) {
	q := r.URL.Query()
	switch r.URL.Path {
	case "/test/in":
		in := httpauth.SignIn{Subject: q.Get("subject"), Remember: q.Has("remember"), Methods: q["method"]}
		if _, err := site.Auth.SignIn(w, r, in); err != nil {
			httpauth.Answer(w, r, err)
		}
	case "/test/frame":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<!doctype html><html lang="en"><title>frame</title><main><h1>The shop</h1><iframe title="Devices" width="380" height="900" src="`+site.Base+`/account/sessions?embed=1"></iframe></main>`)
	default:
		who := "nobody"
		if s, ok := httpauth.Session(r.Context()); ok && !s.Anonymous() {
			who = s.Subject
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, `<!doctype html><html lang="en"><title>who</title><main><h1>Who</h1><p id=who>`+html.EscapeString(who)+"</p></main>")
	}
}

// browser is a browser, with cookies, that sends what browsers send.
type browser struct {
	f     *fixture
	http  *http.Client
	site  *Site
	agent string
}

func (f *fixture) browser(site *Site, agent string) *browser {
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
	return &browser{f, c, site, agent}
}

// in is a browser in which the subject has signed in.
func (f *fixture) in(subject, agent string, more ...string) *browser {
	f.t.Helper()
	b := f.browser(f.app, agent)
	if a := b.get("/test/in?subject=" + url.QueryEscape(subject) + strings.Join(more, "")); a.status != http.StatusOK {
		f.t.Fatalf("%d %s", a.status, a.body)
	}
	return b
}

type reply struct {
	status int
	header http.Header
	body   string
	to     string // Location
}

// do sends a request; headers in the form "Name: value" may follow, without a value to leave one out.
func (b *browser) do(method, target, body string, headers ...string) *reply {
	b.f.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = b.site.Origin + target
	}
	r, err := http.NewRequestWithContext(b.f.t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		b.f.t.Fatal(err)
	}
	r.Header.Set("User-Agent", b.agent)
	r.Header.Set("Accept", "text/html")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	if method != "GET" {
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
	a := &reply{resp.StatusCode, resp.Header, string(text), resp.Header.Get("Location")}
	b.f.check(method+" "+target, a)
	return a
}

func (b *browser) get(target string) *reply { b.f.t.Helper(); return b.do("GET", target, "") }

// list fetches the page.
func (b *browser) list() *reply {
	b.f.t.Helper()
	a := b.get(b.site.Base + sessionsPath)
	if a.status != http.StatusOK {
		b.f.t.Fatalf("the list: %d to %s: %s", a.status, a.to, a.body)
	}
	return a
}

// program sends a request as a script of the site does; csrf is the CSRF token.
func (b *browser) program(method, path, body, csrf string, headers ...string) *reply {
	b.f.t.Helper()
	h := []string{"Accept: application/json", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Content-Type: "}
	if body != "" {
		h[3] += "application/json"
	}
	if csrf != "" {
		h = append(h, "X-Csrf-Token: "+csrf)
	}
	return b.do(method, b.site.Base+path, body, append(h, headers...)...)
}

// json fetches the list as a program does, with the CSRF token.
func (b *browser) json() (got jsonAnswer, csrf string) {
	b.f.t.Helper()
	a := b.program("GET", sessionsPath, "", "")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/json" {
		b.f.t.Fatalf("the list: %d %s", a.status, a.body)
	}
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil {
		b.f.t.Fatalf("%v: %s", err, a.body)
	}
	return got, a.header.Get("X-Csrf-Token")
}

// jsonAnswer is the list as a program reads it.
type jsonAnswer struct {
	Subject string `json:"subject"`
	Devices []struct {
		ID         string    `json:"id"`
		Here       bool      `json:"this_device"`
		Name       string    `json:"name"`
		Place      string    `json:"place"`
		SignedIn   time.Time `json:"signed_in_at"`
		LastSeen   time.Time `json:"last_seen_at"`
		Methods    []string  `json:"methods"`
		Provider   string    `json:"provider"`
		Remembered bool      `json:"remembered"`
		Held       bool      `json:"on_hold"`
	} `json:"devices"`
	Apps []struct {
		ID       string    `json:"id"`
		Name     string    `json:"name"`
		Since    time.Time `json:"since"`
		LastUsed time.Time `json:"last_used_at"`
		Scopes   []string  `json:"scopes"`
		Held     bool      `json:"on_hold"`
	} `json:"apps"`
	APIKeys []struct {
		ID       string     `json:"id"`
		Name     string     `json:"name"`
		Created  time.Time  `json:"created_at"`
		LastUsed time.Time  `json:"last_used_at"`
		Expires  *time.Time `json:"expires_at"`
		Scopes   []string   `json:"scopes"`
		Held     bool       `json:"on_hold"`
	} `json:"api_keys"`
	Ended []struct {
		ID     string    `json:"id"`
		Kind   string    `json:"kind"`
		Name   string    `json:"name"`
		Place  string    `json:"place"`
		Since  time.Time `json:"since"`
		Ended  time.Time `json:"ended_at"`
		Reason string    `json:"reason"`
		Why    string    `json:"why"`
	} `json:"ended"`
	More   bool `json:"more"`
	Source *struct {
		Text string `json:"text"`
		URL  string `json:"url"`
	} `json:"place_source"`
}

var (
	tokens = regexp.MustCompile(`\bal[a-z]_[A-Za-z0-9_-]{20}`)
	ids    = regexp.MustCompile(`\bid="([^"]*)"`)
	refs   = regexp.MustCompile(`\b(?:for|aria-describedby|aria-labelledby)="([^"]*)"`)
	hidden = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// check holds every answer against what is true of all of them: among other things that no token and no address stands in
// one.
func (f *fixture) check(what string, a *reply) {
	f.t.Helper()
	for name, values := range a.header {
		if name != "Set-Cookie" && (tokens.MatchString(strings.Join(values, " "))) && !strings.Contains(a.to, "ticket=") {
			f.t.Errorf("%s: a token stands in %s", what, name)
		}
	}
	if tokens.MatchString(a.body) && !strings.Contains(a.to, "ticket=") {
		f.t.Errorf("%s: a token stands in the answer: %s", what, a.body)
	}
	for _, secret := range []string{cologne, lyon, "81.2.6", "81.2.7", password} {
		if strings.Contains(a.body, secret) {
			f.t.Errorf("%s: %s stands in the answer", what, secret)
		}
	}
	path := strings.TrimPrefix(what[strings.Index(what, " ")+1:], "https://")
	_, path, _ = strings.Cut(path, "/")
	if !strings.HasPrefix(path, "account/") && !strings.HasPrefix(path, ".afterlogin/account/") {
		return
	}
	if a.header.Get("X-Content-Type-Options") != "nosniff" {
		f.t.Errorf("%s: no nosniff", what)
	}
	if strings.Contains(path, "/style-") && a.status == http.StatusOK {
		return
	}
	if cc := a.header.Get("Cache-Control"); !strings.Contains(cc, "no-store") {
		f.t.Errorf("%s: Cache-Control %q", what, cc)
	}
	if v := strings.Join(a.header["Vary"], ", "); !strings.Contains(v, "Accept-Language") || a.status == http.StatusOK && !strings.Contains(v, "Cookie") {
		f.t.Errorf("%s: Vary %q", what, v)
	}
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, "<h1>") {
		return
	}
	csp := a.header.Get("Content-Security-Policy")
	frames := "frame-ancestors 'none'"
	if strings.Contains(what, "embed=1") {
		frames = "frame-ancestors 'self'"
	}
	for _, part := range []string{"default-src 'none'", frames, "base-uri 'none'", "form-action 'self'", styleHash} {
		if !strings.Contains(csp, part) {
			f.t.Errorf("%s: the policy lacks %s: %s", what, part, csp)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "script-src") || strings.Contains(a.body, "<script") || strings.Contains(a.body, "style=") || strings.Contains(a.body, " on") && regexp.MustCompile(`<[^>]* on[a-z]+=`).MatchString(a.body) {
		f.t.Errorf("%s: the policy or the page lets scripts or styles in: %s", what, csp)
	}
	if strings.Contains(a.body, "ZgotmplZ") || strings.Contains(a.body, "%!") || strings.Contains(a.body, "<no value>") {
		f.t.Errorf("%s: a text is broken: %s", what, a.body)
	}
	known := make(map[string]bool)
	for _, m := range ids.FindAllStringSubmatch(a.body, -1) {
		if known[m[1]] {
			f.t.Errorf("%s: the id %s stands there twice", what, m[1])
		}
		known[m[1]] = true
	}
	for _, m := range refs.FindAllStringSubmatch(a.body, -1) {
		if !known[m[1]] {
			f.t.Errorf("%s: there is no %s", what, m[1])
		}
	}
}

// csrf returns the token of the page's forms.
func (a *reply) csrf(t testing.TB) string {
	t.Helper()
	for _, m := range hidden.FindAllStringSubmatch(a.body, -1) {
		if m[1] == httpauth.CSRFField {
			return m[2]
		}
	}
	t.Fatalf("no form: %s", a.body)
	return ""
}

// form returns the fields of the first form that has the field with the value.
func (a *reply) form(t testing.TB, name, value string) string {
	t.Helper()
	for part := range strings.SplitSeq(a.body, "<form") {
		part, _, _ = strings.Cut(part, "</form>")
		v := make(url.Values)
		for _, m := range hidden.FindAllStringSubmatch(part, -1) {
			v.Set(html.UnescapeString(m[1]), html.UnescapeString(m[2]))
		}
		if v.Get(name) == value {
			return v.Encode()
		}
	}
	t.Fatalf("no form with %s=%s: %s", name, value, a.body)
	return ""
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

// session is the session that the browser is signed in with, or why it is not.
func (b *browser) session() (*afterlogin.Session, error) {
	return b.f.a.Validate(b.f.t.Context(), afterlogin.TokenFrom(b.token()), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}})
}

// id is the handle of the browser's device.
func (b *browser) id() string {
	b.f.t.Helper()
	s, err := b.session()
	if err != nil {
		b.f.t.Fatal(err)
	}
	return string(s.Root)
}

// over reports why the browser is signed out, "" if it is not.
func (b *browser) over() afterlogin.Reason {
	_, err := b.session()
	var refused *afterlogin.Refusal
	if !errors.As(err, &refused) {
		return ""
	}
	if refused.Cause != "" {
		return refused.Cause
	}
	return refused.Reason
}

func (a *reply) wants(t testing.TB, what string, status int, parts ...string) {
	t.Helper()
	if a.status != status {
		t.Errorf("%s: %d, want %d: %s", what, a.status, status, a.body)
		return
	}
	for _, p := range parts {
		if !strings.Contains(a.body, html.EscapeString(p)) && !strings.Contains(a.body, p) {
			t.Errorf("%s: the answer does not say %q: %s", what, p, a.body)
		}
	}
}

func (a *reply) lacks(t testing.TB, what string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if strings.Contains(a.body, p) {
			t.Errorf("%s: the answer says %q: %s", what, p, a.body)
		}
	}
}

// follow goes on until there is no redirect, or it leads to the address.
func (b *browser) follow(a *reply, until string) *reply {
	b.f.t.Helper()
	at := b.site.Origin
	for n := 0; a.status == http.StatusSeeOther && n < 10; n++ {
		from, err := url.Parse(at)
		if err != nil {
			b.f.t.Fatal(err)
		}
		u, err := from.Parse(a.to)
		if err != nil {
			b.f.t.Fatal(err)
		}
		if at = u.String(); strings.HasPrefix(at, until) {
			break
		}
		a = b.get(at)
	}
	return a
}
