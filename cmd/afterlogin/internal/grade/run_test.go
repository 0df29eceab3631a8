package grade

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/grade/badshop"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// TestHTTPAuth examines a site that is made with httpauth, over TLS, where nothing is let off.
func TestHTTPAuth(t *testing.T) {
	t.Parallel()
	authority, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer authority.Close()
	auth, err := httpauth.New(authority, httpauth.Options{SignInURL: "/sign-in"})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	page := func(w http.ResponseWriter, body string) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprint(w, body)
	}
	mux.HandleFunc("GET /sign-in", func(w http.ResponseWriter, r *http.Request) {
		page(w, `<form method=post><input name=user><input name=password type=password><input type=hidden name=csrf_token value="`+html.EscapeString(auth.CSRFToken(r))+`"></form>`)
	})
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		mark, err := auth.Begin(r, r.FormValue("user"))
		if err == nil && r.FormValue("password") != badshop.Password {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if err == nil {
			_, err = auth.SignIn(w, r, httpauth.SignIn{Subject: r.FormValue("user"), Mark: mark})
		}
		if err != nil {
			httpauth.Answer(w, r, err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.Handle("GET /{$}", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page(w, `<form method=post action="/sign-out"><input type=hidden name=csrf_token value="`+html.EscapeString(auth.CSRFToken(r))+`"><button>Sign out</button></form>`)
	})))
	mux.Handle("POST /sign-out", auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := auth.SignOut(w, r); err != nil {
			httpauth.Answer(w, r, err)
		}
	})))
	site, pool := secure(t, auth.Optional(mux))
	r := run(t, Options{URL: site, Roots: pool, Samples: 150})
	if got := findings(r); got != nil || r.Grade != "A" || !r.Complete || r.Credential != "cookie __Host-Http-session_id" {
		t.Errorf("grade %s, %q\n%s", r.Grade, got, seen(r))
	}
}

// TestJSON examines an API whose sign-in answers with a bearer token, opaque and as a JWT.
func TestJSON(t *testing.T) {
	t.Parallel()
	for want, weak := range map[string][]badshop.Weakness{
		"":                             nil,
		"jwt-none":                     {badshop.JWT, badshop.AlgNone},
		"token-counter,token-entropy":  {badshop.Counter},
		"cache-cookie,cache-page high": {badshop.Public},
	} {
		r := examine(t, Options{JSON: true, Login: "/api/login", Page: "/account", Logout: "/logout", Samples: 160}, weak...)
		if got := strings.Join(findings(r), ","); got != want || r.Credential != "bearer token" {
			t.Errorf("found %q, want %q\n%s", got, want, seen(r))
		}
	}
}

// TestPlainElsewhere examines a site over plain HTTP that is not on this machine, as far as its name says.
func TestPlainElsewhere(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(badshop.New(badshop.NoSecure))
	defer s.Close()
	u, _ := url.Parse(s.URL)
	o := Options{URL: "http://shop.test:" + u.Port() + "/", AllowHosts: []string{"shop.test"}, User: badshop.User, Password: badshop.Password, Samples: 20}
	base, err := o.check()
	if err != nil {
		t.Fatal(err)
	}
	e := &examination{Options: &o, base: base, web: newWeb(&o, base), report: &Report{}}
	defer e.web.close()
	e.web.pinned.addrs["shop.test"] = []netip.Addr{netip.MustParseAddr("127.0.0.1")} // what a resolver would say
	if err := e.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.sample(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.examineTravel(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.report.finish(e)
	if got := findings(e.report); strings.Join(got, ",") != "transport" {
		t.Errorf("%q\n%s", got, seen(e.report))
	}
}

// TestOnlyAllowedHosts checks that nothing but what is allowed is asked, whatever answers and names say.
func TestOnlyAllowedHosts(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1) }))
	defer elsewhere.Close()
	port := strings.TrimPrefix(elsewhere.URL, "http://127.0.0.1:") // which would be asked if names did not count
	only := Options{User: "mia", Password: "x", AllowHosts: []string{"shop.test"}, resolved: map[string]netip.Addr{"shop.test": netip.MustParseAddr("127.0.0.1"), "evil.test": netip.MustParseAddr("127.0.0.1")}}
	for name, site := range map[string]http.HandlerFunc{
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.test:"+port+"/", http.StatusFound)
		},
		"a form": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `<form method=post action="http://evil.test:%s/"><input name=u><input type=password name=p></form>`, port)
		},
		"another scheme": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		},
	} {
		s := httptest.NewServer(site)
		o := only
		o.URL = strings.Replace(s.URL, "127.0.0.1", "shop.test", 1)
		_, err := Run(t.Context(), o)
		s.Close()
		if !errors.Is(err, ErrSignIn) && !errors.Is(err, ErrNotAllowed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, u := range []string{"http://192.0.2.7/", "https://shop.example/", "http://localhost.shop.example/", "http://127.0.0.1.shop.example/", "ftp://localhost/", "http://mia:pw@localhost/"} {
		if _, err := Run(t.Context(), Options{URL: u, User: "mia", Password: "x"}); !errors.Is(err, ErrNotAllowed) && !errors.Is(err, ErrOption) {
			t.Errorf("%s: %v", u, err)
		}
	}
	// A name of this machine that resolves elsewhere, and an allowed one that moves.
	w := newWeb(&Options{Now: time.Now, AllowHosts: []string{"192.0.2.7", "169.254.169.254", "0.0.0.0"}}, &url.URL{Host: "localhost"})
	defer w.close()
	for host, ok := range map[string]bool{"localhost": true, "a.localhost": true, "127.8.9.1": true, "::1": true, "192.0.2.7": true, "192.0.2.8": false, "169.254.169.254": false, "0.0.0.0": false} {
		if _, err := w.resolve(t.Context(), host); (err == nil) != ok {
			t.Errorf("%s: %v", host, err)
		}
	}
	if asked.Load() > 0 {
		t.Errorf("%d requests went elsewhere", asked.Load())
	}
}

// TestBounds checks that requests, redirects and bodies are bounded, and that a password never goes into an address.
func TestBounds(t *testing.T) {
	t.Parallel()
	loop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/"+strings.Repeat("x", len(r.URL.Path)%50), http.StatusFound)
	}))
	defer loop.Close()
	if _, err := Run(t.Context(), Options{URL: loop.URL, User: "mia", Password: "x"}); !errors.Is(err, ErrSignIn) || !strings.Contains(err.Error(), "10 redirects") {
		t.Errorf("a loop: %v", err)
	}
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte(strings.Repeat("<form><input name=a>", 1000))); err != nil {
				return
			}
		}
	}))
	defer endless.Close()
	if _, err := Run(t.Context(), Options{URL: endless.URL, User: "mia", Password: "x"}); !errors.Is(err, ErrSignIn) {
		t.Errorf("an endless page: %v", err)
	}
	var query atomic.Bool
	get := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query.Store(query.Load() || r.URL.RawQuery != "")
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, `<form action=/in><input name=u><input type=password name=p></form>`)
	}))
	defer get.Close()
	if _, err := Run(t.Context(), Options{URL: get.URL, User: "mia", Password: "x"}); !errors.Is(err, ErrSignIn) || query.Load() {
		t.Errorf("a form with GET: %v, sent: %v", err, query.Load())
	}
	shop := httptest.NewServer(badshop.New(badshop.NoPrefix, badshop.NoSecure))
	defer shop.Close()
	r, err := Run(t.Context(), Options{URL: shop.URL, User: badshop.User, Password: badshop.Password, MaxRequests: 60})
	if err != nil || r.Requests > 60 || r.Complete || r.SignIns == 0 {
		t.Errorf("few requests: %v %+v", err, r)
	}
	good := httptest.NewServer(badshop.New())
	defer good.Close()
	for most := 20; most <= 60; most += 20 {
		r, err := Run(t.Context(), Options{URL: good.URL, User: badshop.User, Password: badshop.Password, MaxRequests: most})
		if errors.Is(err, ErrBudget) && most < 40 {
			continue
		}
		if err != nil || r.SignIns < 2 || r.Requests > most || findings(r) != nil {
			t.Errorf("%d requests: %v %q", most, err, findings(r))
		}
		if entropy := result(r, "token-entropy"); r.SignIns < fewest != (entropy == ResultUnknown) {
			t.Errorf("%d tokens: entropy %s", r.SignIns, entropy)
		}
	}
	same := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if r.Method == http.MethodPost {
			http.SetCookie(w, &http.Cookie{Name: "s", Value: "1"})
			fmt.Fprint(w, "welcome")
			return
		}
		fmt.Fprint(w, `<form method=post action=/in><input name=u><input type=password name=p></form>`)
	}))
	defer same.Close()
	if _, err := Run(t.Context(), Options{URL: same.URL, User: "mia", Password: "x"}); !errors.Is(err, ErrTell) {
		t.Errorf("a page that looks the same: %v", err)
	}
	other := httptest.NewServer(badshop.New(badshop.NoPrefix, badshop.NoSecure))
	defer other.Close()
	if _, err := Run(t.Context(), Options{URL: other.URL, User: badshop.User, Password: badshop.Password, CookieName: "theme"}); !errors.Is(err, ErrSignIn) || !strings.Contains(err.Error(), "there are: session") {
		t.Errorf("a cookie that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Options{URL: shop.URL, User: "mia", Password: "x"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestErrorsAreNotRefusals checks that a site which fails is not taken for one that refuses.
func TestErrorsAreNotRefusals(t *testing.T) {
	t.Parallel()
	shop := badshop.New(badshop.SurvivesOut, badshop.NoPrefix, badshop.NoSecure)
	var out atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if out.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		shop.ServeHTTP(w, r)
		if r.URL.Path == "/logout" {
			out.Store(true)
		}
	}))
	defer s.Close()
	r, err := Run(t.Context(), Options{URL: s.URL, User: badshop.User, Password: badshop.Password, Samples: 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Checks {
		if c.ID == "sign-out" && c.Result != ResultUnknown {
			t.Errorf("sign-out: %s", c.Result)
		}
	}
	if r.Complete || r.Stopped == "" {
		t.Errorf("complete: %v, stopped: %q", r.Complete, r.Stopped)
	}
}

func TestGrades(t *testing.T) {
	t.Parallel()
	for want, severities := range map[string][]string{
		"A": {}, "B": {Low, Low}, "C": {Medium, Medium, Low}, "D": {Medium, Medium, Medium}, "F": {High, High},
	} {
		var r Report
		for _, s := range severities {
			r.Checks = append(r.Checks, Check{Result: ResultFinding, Severity: s})
		}
		if r.count(); r.Grade != want {
			t.Errorf("%q: %s, want %s", severities, r.Grade, want)
		}
		if r.Worst(Medium) != (want > "B") || r.Worst("none") || r.Worst(Low) != (want > "A") {
			t.Errorf("%q: worst", severities)
		}
	}
}

// TestChecksAreDescribed checks that every check has all that a report needs.
func TestChecksAreDescribed(t *testing.T) {
	t.Parallel()
	if len(order) != len(kinds) {
		t.Errorf("%d checks in order, %d described", len(order), len(kinds))
	}
	for _, id := range order {
		k := kinds[id]
		if k.title == "" || k.why == "" || k.remedy == "" || k.severity == "" || len(k.references) == 0 {
			t.Errorf("%s: %+v", id, k)
		}
	}
}

// TestDocumented checks that docs/grade.md has every check, as it is.
func TestDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../../../docs/grade.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range order {
		k := kinds[id]
		var refs []string
		for _, r := range k.references {
			refs = append(refs, strings.TrimPrefix(strings.TrimPrefix(r, "ASVS v5.0.0-"), "WSTG-"))
		}
		if row := fmt.Sprintf("| `%s` | %s | %s | %s |\n", id, k.title, k.severity, strings.Join(refs, ", ")); !strings.Contains(string(doc), row) {
			t.Errorf("docs/grade.md lacks:\n%s", row)
		}
	}
	for _, n := range notExamined {
		if what, _, _ := strings.Cut(n, ":"); !strings.Contains(strings.Join(strings.Fields(string(doc)), " "), what) {
			t.Errorf("docs/grade.md does not say that this is not examined: %s", what)
		}
	}
}
