package grade

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/grade/badshop"
)

// target counts what arrives at another server on this machine, and remembers whether something secret did.
type target struct {
	*httptest.Server
	asked, secret atomic.Int32
}

func newTarget(t *testing.T) *target {
	t.Helper()
	g := &target{}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.asked.Add(1)
		r.ParseForm()
		if r.Method != http.MethodGet || r.Header.Get("Authorization") != "" || strings.Contains(fmt.Sprint(r.Form), "tea and biscuits") {
			g.secret.Add(1)
		}
		fmt.Fprint(w, "hello")
	}))
	t.Cleanup(g.Close)
	return g
}

// site shows a form, and does with it what the test is about. %s is the other server.
func badSite(t *testing.T, g *target, action, onPost string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			status, to, _ := strings.Cut(onPost, " ")
			http.SetCookie(w, &http.Cookie{Name: "s", Value: "0123456789abcdef0123456789abcdef"})
			w.Header().Set("Location", strings.ReplaceAll(to, "OTHER", g.URL))
			code := 0
			fmt.Sscan(status, &code)
			w.WriteHeader(code)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<form method=post action="%s"><input name=u><input type=password name=p></form>`, strings.ReplaceAll(action, "OTHER", g.URL))
	}))
	t.Cleanup(s.Close)
	return s
}

// TestPasswordStays checks that the password goes to the origin that asks for it, whatever forms and redirects say, and
// that nothing at all is sent to what listens on this machine if the site is elsewhere.
func TestPasswordStays(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ action, onPost string }{
		"a form":             {"OTHER/steal", "200 "},
		"307":                {"/in", "307 OTHER/steal"},
		"308":                {"/in", "308 OTHER/steal"},
		"303":                {"/in", "303 OTHER/"},
		"302":                {"/in", "302 OTHER/"},
		"by another name":    {strings.Replace("OTHER/steal", "OTHER", "http://localhost:PORT", 1), "200 "},
		"307 to another one": {"/in", "307 http://localhost:PORT/steal"},
	} {
		g := newTarget(t)
		port := g.URL[strings.LastIndexByte(g.URL, ':')+1:]
		s := badSite(t, g, strings.ReplaceAll(tt.action, "PORT", port), strings.ReplaceAll(tt.onPost, "PORT", port))
		own := s.URL[strings.LastIndexByte(s.URL, ':')+1:]
		_, err := Run(t.Context(), Options{URL: s.URL, User: "mia", Password: badshop.Password})
		if !errors.Is(err, ErrSignIn) && !errors.Is(err, ErrTell) {
			t.Errorf("%s, from this machine: %v", name, err)
		}
		if g.secret.Load() > 0 {
			t.Errorf("%s: a password or a form arrived", name)
		}
		g.asked.Store(0)
		_, err = Run(t.Context(), Options{URL: "http://shop.test:" + own + "/", User: "mia", Password: badshop.Password, AllowHosts: []string{"Shop.Test."},
			resolved: map[string]netip.Addr{"shop.test": netip.MustParseAddr("127.0.0.1")}})
		if !errors.Is(err, ErrSignIn) && !errors.Is(err, ErrTell) && !errors.Is(err, ErrNotAllowed) {
			t.Errorf("%s, from elsewhere: %v", name, err)
		}
		if g.asked.Load() > 0 {
			t.Errorf("%s: %d requests arrived on this machine", name, g.asked.Load())
		}
	}
	// With the other one named it may be asked, and still gets no password.
	g := newTarget(t)
	s := badSite(t, g, "OTHER/steal", "200 ")
	if _, err := Run(t.Context(), Options{URL: s.URL, User: "mia", Password: badshop.Password, AllowHosts: []string{"127.0.0.1"}}); !errors.Is(err, ErrSignIn) || g.asked.Load() > 0 {
		t.Errorf("a named one: %v, %d requests", err, g.asked.Load())
	}
}

// TestSignOutStays checks that the form of a sign-out is not sent to another origin of this machine.
func TestSignOutStays(t *testing.T) {
	t.Parallel()
	g := newTarget(t)
	shop := badshop.New(badshop.HiddenOut)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shop.ServeHTTP(w, r)
		if r.URL.Path == "/account" && w.Header().Get("Location") == "" {
			fmt.Fprintf(w, `<form method=post action="%s/logout"><button>Sign out</button></form>`, g.URL)
		}
	}))
	defer s.Close()
	r := run(t, Options{URL: s.URL, Samples: 12})
	if g.secret.Load() > 0 || result(r, "sign-out") != ResultUnknown {
		t.Errorf("%d forms arrived\n%s", g.secret.Load(), seen(r))
	}
}

// TestOrigin checks that forms are sent with the origin of their page.
func TestOrigin(t *testing.T) {
	t.Parallel()
	var origins atomic.Pointer[string]
	shop := badshop.New()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o := r.Header.Get("Origin"); r.Method == http.MethodPost && o != "http://"+r.Host || r.Method == http.MethodGet && o != "" {
			origins.Store(&o)
		}
		shop.ServeHTTP(w, r)
	}))
	defer s.Close()
	run(t, Options{URL: s.URL, Samples: 2})
	if o := origins.Load(); o != nil {
		t.Errorf("Origin: %q", *o)
	}
	at, _ := url.Parse("https://shop.example/a")
	f := form{method: "POST", action: "https://other.example/b"}
	if q, err := f.request(at, nil); err != nil || q.origin != "https://shop.example" {
		t.Errorf("%q %v", q.origin, err)
	}
}

// TestPlainHTTP checks that neither password nor token goes from HTTPS to plain HTTP, and that this is a finding.
func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ action, onPost string }{"a form": {"OTHER/in", "200 "}, "307": {"/in", "307 OTHER/in"}} {
		g := newTarget(t)
		plain := badSite(t, g, strings.Replace(tt.action, "OTHER", strings.Replace(g.URL, "127.0.0.1", "shop.localhost", 1), 1), strings.Replace(tt.onPost, "OTHER", strings.Replace(g.URL, "127.0.0.1", "shop.localhost", 1), 1))
		site, pool := secure(t, plain.Config.Handler)
		r := run(t, Options{URL: site, Roots: pool})
		if got := strings.Join(findings(r), ","); got != "transport" || g.asked.Load() > 0 || r.Grade != "D" || !errors.Is(r.Err(), ErrSignIn) || !r.Worst(High) {
			t.Errorf("%s: %s, grade %s, %v, %d requests\n%s", name, got, r.Grade, r.Err(), g.asked.Load(), seen(r))
		}
	}
	// A sign-in that leads to plain HTTP.
	shop := badshop.New()
	var back atomic.Pointer[string]
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hop" {
			http.Redirect(w, r, *back.Load()+"account", http.StatusSeeOther)
			return
		}
		shop.ServeHTTP(w, r)
	}))
	defer plain.Close()
	to := strings.Replace(plain.URL, "127.0.0.1", "shop.localhost", 1) + "/account"
	site, pool := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/login" {
			w = &moved{w, to}
		}
		shop.ServeHTTP(w, r)
	}))
	if r := run(t, Options{URL: site, Roots: pool, Samples: 12}); result(r, "transport") != ResultFinding {
		t.Errorf("a sign-in that leads to plain HTTP\n%s", seen(r))
	}
	// One that leads through it.
	site, pool = secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/login" {
			w = &moved{w, strings.Replace(to, "/account", "/hop", 1)}
		}
		shop.ServeHTTP(w, r)
	}))
	back.Store(&site)
	if r := run(t, Options{URL: site, Roots: pool, Samples: 12}); result(r, "transport") != ResultFinding {
		t.Errorf("a sign-in that leads through plain HTTP\n%s", seen(r))
	}
	// A bearer token.
	g := newTarget(t)
	o := Options{MaxRequests: 20, Now: time.Now}
	base, _ := url.Parse("https://shop.localhost/")
	page, _ := url.Parse(g.URL)
	e := &examination{Options: &o, base: base, web: newWeb(&o, base), judge: judge{page: page}, report: &Report{}}
	defer e.web.close()
	if err := e.findCredential(t.Context(), &visitor{e: e, bearer: "0123456789abcdef"}); !errors.Is(err, ErrSignIn) || g.secret.Load() > 0 || len(e.report.Notes) != 1 {
		t.Errorf("a page elsewhere: %v, %d tokens arrived, %q", err, g.secret.Load(), e.report.Notes)
	}
	site, pool = secure(t, shop)
	_, err := Run(t.Context(), Options{URL: site, Roots: pool, User: badshop.User, Password: badshop.Password, JSON: true, Login: "/api/login", Page: strings.Replace(g.URL, "127.0.0.1", "shop.localhost", 1) + "/"})
	if err == nil || g.asked.Load() == 0 || g.secret.Load() > 0 {
		t.Errorf("a bearer token: %v, %d requests, %d with something secret", err, g.asked.Load(), g.secret.Load())
	}
	_, err = Run(t.Context(), Options{URL: site, Roots: pool, User: badshop.User, Password: badshop.Password, JSON: true, Login: g.URL + "/api/login"})
	if !errors.Is(err, ErrSignIn) && err != nil || g.secret.Load() > 0 {
		t.Errorf("JSON over plain HTTP: %v", err)
	}
}

// moved sends redirects elsewhere.
type moved struct {
	http.ResponseWriter
	to string
}

func (m *moved) WriteHeader(code int) {
	if code == http.StatusSeeOther {
		m.Header().Set("Location", m.to)
	}
	m.ResponseWriter.WriteHeader(code)
}

func TestTrusts(t *testing.T) {
	t.Parallel()
	parse := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, tt := range []struct {
		base, target, page, to string
		want                   bool
	}{
		{"https://shop.example/", "", "", "https://shop.example:443/x", true},
		{"https://shop.example/", "", "", "https://SHOP.example./x", true},
		{"https://shop.example/", "", "", "http://shop.example/x", false},
		{"https://shop.example/", "", "http://shop.example/x", "http://shop.example/x", false},
		{"https://shop.example/", "", "", "https://shop.example:8443/x", false},
		{"https://shop.example/", "", "", "https://api.shop.example/x", false},
		{"https://shop.example/", "https://api.shop.example/in", "", "https://api.shop.example/x", true},
		{"https://shop.example/", "", "https://api.shop.example/me", "https://api.shop.example/x", true},
		{"http://localhost:1/", "", "", "http://localhost:2/", false},
		{"http://localhost:1/", "", "", "https://localhost:1/", false},
	} {
		e := &examination{Options: &Options{Page: tt.page}, base: parse(tt.base)}
		if tt.target != "" {
			e.recipe.target = parse(tt.target)
		}
		if got := e.trusts(parse(tt.to)); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// TestSecretsInErrors has a site put tokens where errors would quote them.
func TestSecretsInErrors(t *testing.T) {
	t.Parallel()
	const token = "als_0123456789ab" // of 16 characters: shorter than what is cut out of paths by its length
	for _, location := range []string{"/%zz?sid=elsewhere-" + token, "/account/" + token, "/a/b/c/d/e/f/g/h/i/j/k/l/" + token + "/m", "http://" + token + ".localhost:1/", "http://\u009b2J.localhost:1/"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				http.SetCookie(w, &http.Cookie{Name: "s", Value: token})
				w.Header()["Location"] = []string{location}
				w.WriteHeader(http.StatusSeeOther)
				return
			}
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, `<form method=post><input name=u><input type=password name=p></form>`)
		}))
		_, err := Run(t.Context(), Options{URL: s.URL, User: "mia", Password: "x"})
		s.Close()
		if err == nil || strings.Contains(err.Error(), "0123456789ab") || strings.ContainsRune(err.Error(), '\u009b') {
			t.Errorf("%q: %q", location, err)
		}
	}
	if got := place(&url.URL{Scheme: "http", Host: "a\u009b2J"}); got != "http://a?2J" {
		t.Errorf("%q", got)
	}
	// What a site has a say in is printed without what terminals obey.
	r := &Report{Notes: []string{"a\x1b[2Jb"}}
	if strings.ContainsRune(seen(r), '\x1b') {
		t.Errorf("%q", seen(r))
	}
	r.Notes, r.Target = []string{"a\u009b2Jb"}, "\x1b"
	w := newWeb(&Options{}, &url.URL{})
	if r.clean(&w.secrets); r.Notes[0] != "a?2Jb" || r.Target != "?" {
		t.Errorf("%q %q", r.Notes, r.Target)
	}
}

// TestLimited examines a site that refuses after some sign-ins: what was not looked at is not fine.
func TestLimited(t *testing.T) {
	t.Parallel()
	for _, most := range []int32{0, 1, 2, 3, 8} {
		shop := badshop.New()
		var posts atomic.Int32
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && posts.Add(1) > most {
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			shop.ServeHTTP(w, r)
		}))
		r, err := Run(t.Context(), Options{URL: s.URL, User: badshop.User, Password: badshop.Password, Samples: 5})
		s.Close()
		if most < 3 {
			if !errors.Is(err, ErrSignIn) {
				t.Errorf("%d sign-ins: %v", most, err)
			}
			continue
		}
		if err != nil || r.Grade != "" || r.Complete || !errors.Is(r.Err(), ErrSignIn) || r.Stopped != r.Err().Error() || !strings.Contains(seen(r), "grade none (incomplete)") {
			t.Errorf("%d sign-ins: %v\n%s", most, err, seen(r))
		}
		if got := findings(r); got != nil {
			t.Errorf("%d sign-ins: %q", most, got)
		}
	}
	// What was found by then counts.
	shop := httptest.NewServer(badshop.New(badshop.NoHTTPOnly))
	defer shop.Close()
	if r := run(t, Options{URL: shop.URL, Samples: 2, MaxRequests: 40}); r.Grade != "C" || r.Stopped == "" {
		t.Errorf("%s", seen(r))
	}
}

// TestLeavesQueries checks that sessions whose token was sent in an address are signed out again.
func TestLeavesQueries(t *testing.T) {
	t.Parallel()
	for _, weak := range [][]badshop.Weakness{nil, {badshop.QueryToken}} {
		shop := badshop.New(weak...)
		sent := make(map[string]bool)
		site, pool := secure(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if sid := r.URL.Query().Get("sid"); sid != "" {
				sent[sid] = true
			}
			shop.ServeHTTP(w, r)
		}))
		run(t, Options{URL: site, Roots: pool, Samples: 2})
		if len(sent) == 0 {
			t.Fatal("none was sent")
		}
		for token := range sent {
			r := httptest.NewRequest(http.MethodGet, "/account", nil)
			r.AddCookie(&http.Cookie{Name: "__Host-session", Value: token})
			w := httptest.NewRecorder()
			if shop.ServeHTTP(w, r); w.Code != http.StatusSeeOther {
				t.Errorf("%q: a token that was in an address is still signed in", weak)
			}
		}
	}
}

func TestAllowHosts(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"shop.example": true, "192.0.2.7": true, "2001:db8::7": true, "::1": true, "shop_1.example.": true,
		"": false, "*.example": false, "https://shop.example": false, "shop.example:443": false, "a b": false, "[::1]": false, "shop::evil": false, "x::y/z": false,
		"mia@shop.example": false, "..": false, strings.Repeat("a", 254): false, "shop.example\n": false, "sh\u00f6p.example": false,
	} {
		_, err := (&Options{URL: "http://localhost/", User: "mia", Password: "x", AllowHosts: []string{host}}).check()
		if (err == nil) != want || err != nil && !errors.Is(err, ErrOption) {
			t.Errorf("%.30q: %v", host, err)
		}
	}
	w := newWeb(&Options{AllowHosts: []string{"2001:DB8:0::7", "::ffff:192.0.2.7"}}, &url.URL{Host: "shop.example"})
	for host, want := range map[string]bool{"2001:db8::7": true, "192.0.2.7": true, "192.0.2.8": false} {
		if w.named(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
	if tr, ok := w.client.Transport.(*http.Transport); !ok || tr.Proxy != nil {
		t.Error("a proxy of the environment would be asked for hosts that nobody allowed")
	}
}

// TestStanding checks what an answer says about who asked.
func TestStanding(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]standing{200: in, 204: in, 303: out, 401: out, 403: out, 404: out, 429: unclear, 500: unclear, 503: unclear} {
		if got := (&judge{}).standing(&answer{status: status}); got != want {
			t.Errorf("%d: %v, want %v", status, got, want)
		}
	}
}

// TestRequestAddress checks that the addresses that are asked for count, even where no answer has led there.
func TestRequestAddress(t *testing.T) {
	t.Parallel()
	e := &examination{report: &Report{}, cred: credential{kind: kindCookie, name: "s"}}
	at, _ := url.Parse("https://shop.example/a?back=als_0123456789ab")
	v := &visitor{e: e, trail: []*answer{{method: "GET", url: at, status: 200, header: http.Header{}}}}
	if err := e.leaks(v, "als_0123456789ab"); err != nil || result(e.report, "token-in-url") != ResultFinding {
		t.Errorf("%v\n%s", err, seen(e.report))
	}
	doc, err := json.Marshal(e.report)
	if err != nil || strings.Contains(string(doc), "0123456789ab") {
		t.Errorf("%v: %s", err, doc)
	}
}

// TestHashedNumbers checks how far small numbers are tried.
func TestHashedNumbers(t *testing.T) {
	t.Parallel()
	at := time.Now()
	when := []span{{at, at}, {at, at}}
	list := knowns("mia", "localhost")
	of := func(texts ...string) (tokens []string) {
		for _, text := range texts {
			tokens = append(tokens, fmt.Sprintf("%x", hashes[0].sum([]byte(text))))
		}
		return tokens
	}
	if got := guessable(of("49998", "49999"), when, list); got != "the token is the MD5 of a small number" {
		t.Errorf("%q", got)
	}
	if got := guessable(of("mia:4998", "mia:4999"), when, list); got != "the token is the MD5 of the user's name and a small number" {
		t.Errorf("%q", got)
	}
	if got := guessable(of("50001", "50002"), when, list); got != "" {
		t.Errorf("%q", got)
	}
}
