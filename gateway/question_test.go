package gateway_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
)

// Applications have sign-in pages of their own, on their host or on another.
func TestSignInURL(t *testing.T) {
	for to, want := range map[string]string{
		"/sign-in":                       origin + "/sign-in?return_to=%2Forders%3Fa%3D1",
		"/sign-in?lang=de":               origin + "/sign-in?lang=de&return_to=%2Forders%3Fa%3D1",
		"https://id.example.com/login":   "https://id.example.com/login?return_to=https%3A%2F%2Fshop.example.com%2Forders%3Fa%3D1",
		origin + "/sign-in":              origin + "/sign-in?return_to=%2Forders%3Fa%3D1",
		"http://id.localhost:7070/login": "http://id.localhost:7070/login?return_to=https%3A%2F%2Fshop.example.com%2Forders%3Fa%3D1",
	} {
		d := open(t, func(_ *gateway.Options, a *gateway.App) { a.SignInURL = to })
		has(t, d.ask("", "GET", "/orders?a=1", navigation), "Location", want)
		long := d.ask("", "GET", "/orders?a="+strings.Repeat("%C3", 660), navigation).Header.Get("Location")
		if !strings.HasSuffix(long, "%2F") || strings.Contains(long, "orders") {
			t.Errorf("%s: %s", to, long)
		}
	}
}

// The application's own sign-in page is there for who is not signed in, whatever else is demanded, and leads nobody to
// itself.
func TestOwnSignInPage(t *testing.T) {
	for name, d := range map[string]*door{
		"no rules": open(t, func(_ *gateway.Options, a *gateway.App) { a.SignInURL = "/sign-in?lang=de" }),
		"rules": open(t, withRules(gateway.Rule{Path: "/*", Scopes: []string{"admin"}}),
			func(_ *gateway.Options, a *gateway.App) { a.SignInURL = origin + "/sign-in" }),
	} {
		for _, target := range []string{"/sign-in?return_to=%2F", "/%73ign-in"} {
			resp := d.ask("", "POST", target, navigation)
			status(t, resp, 200)
			has(t, resp, gateway.HeaderSubject, "-")
		}
		for _, target := range []string{"/sign-in/", "/sign-in/x", "/"} {
			if got := d.ask("", "GET", target, navigation).StatusCode; got != 303 {
				t.Errorf("%s: %s: %d", name, target, got)
			}
		}
		status(t, d.ask("", "GET", "/sign-in%2f", navigation), 400)
	}
	// A rule for the page is what counts: then it leads nowhere, rather than round and round.
	d := open(t, withRules(gateway.Rule{Path: "/sign-in", Methods: []string{"GET"}}),
		func(_ *gateway.Options, a *gateway.App) { a.SignInURL = "/sign-in" })
	status(t, d.ask("", "GET", "/sign-in", navigation), 401)
	// The page here is none of the application's own.
	d = open(t, func(_ *gateway.Options, a *gateway.App) { a.SignInURL = "/.afterlogin/login" })
	status(t, d.ask("", "GET", "/a;b", navigation), 303)
}

// A key that is used too often is told for how long to wait; on public paths it is nobody's meanwhile.
func TestRate(t *testing.T) {
	d := open(t, withRules(gateway.Rule{Path: "/public/", Public: true}))
	key, _ := d.issue(func(r *afterlogin.IssueRequest) { r.Kind, r.Rate = afterlogin.KindAPIKey, 2 })
	limited := false
	for range 5 {
		resp := d.ask("", "GET", "/", header("X-Api-Key", key))
		if resp.StatusCode == 429 {
			limited = true
			if resp.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			break
		}
	}
	if !limited {
		t.Fatal("not limited")
	}
	status(t, d.ask("/nginx", "GET", "/", header("X-Api-Key", key)), 403)
	status(t, d.ask("/answer", "GET", "/", header("X-Api-Key", key)), 429)
	resp := d.ask("/traefik", "GET", "/public/", header("X-Api-Key", key))
	status(t, resp, 200)
	has(t, resp, gateway.HeaderSubject, "-")
	has(t, resp, "X-Api-Key", "")
}

// What an operator has set up wrongly is in the log, and does not fill it.
func TestWarnings(t *testing.T) {
	d := open(t)
	for range 50 {
		d.ask("", "GET", "/", func(r *http.Request) { r.RemoteAddr = "198.51.100.1:1" })
		d.ask("", "GET", "/", replaced("X-Forwarded-Host", "other.example"))
		d.ask("", "GET", "/a%2fb")
		d.ask("", "GET", "/.afterlogin")
		d.ask("", "GET", "/%2eafterlogin/login")
	}
	if n := strings.Count(d.log.String(), "level=WARN"); n != 2 {
		t.Errorf("%d warnings, want 2", n)
	}
	contains(t, d.log.String(), "gateway.proxies")
	contains(t, d.log.String(), "https://other.example")
	d.ask("", "GET", "/.afterlogin/login")
	contains(t, d.log.String(), "own_path")
}

// public reports whether the target is one that everybody may see.
func public(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	decoded, err := url.PathUnescape(path)
	return err == nil && (decoded == "/public" || strings.HasPrefix(decoded, "/public/"))
}

// Whatever a proxy says, and a client through it: nobody is let in but with a good credential, as its owner, and what is
// answered has the form that it must have.
func FuzzForwardAuth(f *testing.F) {
	f.Add("", "GET", "https", "shop.example.com", "/orders?page=2", "203.0.113.7", "Cookie", "a=1")
	f.Add("/traefik", "POST", "wss", "Shop.Example.com:443", "/admin/..%2f", "1.2.3.4, 10.0.0.1", "Authorization", "Bearer x")
	f.Add("/nginx", "OPTIONS", "http", "shop.example.com", "/public/;x", "::1", "X-Api-Key", "alk_")
	f.Add("/answer", "GET", "https", "shop.example.com", "/?t=als_", "", "Accept", "text/html")
	f.Add("/envoy", "GET", "https", "shop.example.com", "/public/", "192.0.2.1", "Cookie", "__Host-Http-session_id=")
	d := open(f, withRules(gateway.Rule{Path: "/public/", Public: true}, gateway.Rule{Path: "/admin/", Scopes: []string{"admin"}}))
	token, s := d.issue()
	f.Fuzz(func(t *testing.T, variant, method, proto, host, target, from, name, value string) {
		for _, signedIn := range []bool{false, true} {
			r := httptest.NewRequest("GET", "http://127.0.0.1"+gateway.Path, nil)
			r.RequestURI, r.URL.Path = gateway.Path+variant, gateway.Path+variant
			if variant == "/envoy" {
				r.RequestURI, r.Host, r.Method = gateway.Path+variant+target, host, method
			}
			r.RemoteAddr = "192.0.2.10:40000"
			r.Header[http.CanonicalHeaderKey(name)] = []string{value}
			r.Header["X-Forwarded-Method"], r.Header["X-Forwarded-Uri"] = []string{method}, []string{target}
			r.Header["X-Forwarded-Proto"], r.Header["X-Forwarded-Host"] = []string{proto}, []string{host}
			r.Header["X-Forwarded-For"] = []string{from}
			if signedIn {
				cookie(token)(r)
			}
			w := httptest.NewRecorder()
			d.ServeHTTP(w, r)
			h := w.Header()
			who := h.Get(gateway.HeaderSubject)
			switch {
			case w.Code == 500 || w.Body.Len() > 1024:
				t.Fatalf("%d, %d bytes", w.Code, w.Body.Len())
			case w.Code == 200 && variant == "/answer":
				t.Fatal("a yes for the client")
			case w.Code == 200 && !signedIn && (who != "-" || h.Get(gateway.HeaderAssertion) != "-" || !public(target)):
				t.Fatalf("somebody is let in as %q", who)
			case w.Code == 200 && signedIn && who != "mia" && who != "-":
				t.Fatalf("mia is %q", who)
			case w.Code != 200 && who != "":
				t.Fatalf("%d names %q", w.Code, who)
			}
			for key, values := range h {
				for _, v := range values {
					if strings.ContainsAny(v, "\r\n") || strings.Contains(v, token[20:]) {
						t.Fatalf("%s: %q", key, v)
					}
				}
			}
		}
		if got, err := d.a.Session(context.Background(), s.ID); err != nil || !got.Ended.IsZero() {
			token, s = d.issue() // it stood in the address
		}
	})
}
