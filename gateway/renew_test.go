package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/httpauth"
)

// renew asks for the renewal as the proxy passes it on.
func (d *door) renew(target string, change ...func(*http.Request)) *http.Response {
	d.Helper()
	r := httptest.NewRequest("GET", target, nil)
	r.Host = "127.0.0.1:7070" // a proxy that does not pass it on
	r.RemoteAddr = "192.0.2.10:40000"
	r.Header.Set("X-Forwarded-Proto", "https")
	r.Header.Set("X-Forwarded-Host", "shop.example.com")
	r.Header.Set("X-Forwarded-For", "203.0.113.7")
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	d.Renew(w, r)
	return w.Result()
}

// path returns what a browser asks its host for when it is sent to the address.
func (d *door) path(resp *http.Response) string {
	d.Helper()
	status(d, resp, 303)
	path, ok := strings.CutPrefix(resp.Header.Get("Location"), origin)
	if !ok && !strings.HasPrefix(path, "/") {
		d.Fatalf("sent to %q", resp.Header.Get("Location"))
	}
	return path
}

// A browser whose token is due goes by the renewal, once, and comes back with a new one.
func TestRenewal(t *testing.T) {
	d := open(t)
	token, s := d.issue()
	status(t, d.ask("", "GET", "/orders?page=2", cookie(token), navigation), 200)
	d.pass(16 * time.Minute)
	for name, sent := range map[string][]func(*http.Request){
		"program":  {cookie(token)},
		"script":   {cookie(token), header("Accept", html), header("Sec-Fetch-Mode", "cors")},
		"bearer":   {header("Authorization", "Bearer "+token), navigation},
		"prefetch": {cookie(token), navigation, header("Sec-Purpose", "prefetch;prerender")},
		"range":    {cookie(token), navigation, header("Range", "bytes=0-1")},
	} {
		if got := d.ask("", "GET", "/orders", sent...).StatusCode; got != 200 {
			t.Errorf("%s: %d", name, got)
		}
	}
	status(t, d.ask("", "HEAD", "/orders", cookie(token), navigation), 200)
	status(t, d.ask("", "POST", "/orders", cookie(token), navigation), 200)

	status(t, d.ask("/nginx", "GET", "/orders?page=2", cookie(token), navigation), 401)
	hop := d.path(d.ask("/answer", "GET", "/orders?page=2", cookie(token), navigation))
	if hop != "/.afterlogin/renew?return_to=%2Forders%3Fpage%3D2" {
		t.Fatalf("sent to %s", hop)
	}
	resp := d.renew(hop, cookie(token), navigation)
	if back := d.path(resp); back != "/orders?page=2" {
		t.Errorf("back to %s", back)
	}
	has(t, resp, "Cache-Control", "no-store")
	var renewed string
	for _, c := range resp.Cookies() {
		if c.Name == httpauth.CookieName && c.Secure && c.HttpOnly {
			renewed = c.Value
		}
	}
	if renewed == "" || renewed == token {
		t.Fatalf("no new cookie: %v", resp.Header)
	}
	resp = d.ask("", "GET", "/orders?page=2", cookie(renewed), navigation)
	status(t, resp, 200)
	has(t, resp, gateway.HeaderSession, string(s.ID))
	// A browser that does not keep the new cookie is served with the old one while that is good, and is not sent round.
	status(t, d.ask("", "GET", "/orders", cookie(token), navigation), 200)
}

// A renewal that does not succeed ends with the page itself, however often it is tried.
func TestRenewalNoLoop(t *testing.T) {
	for _, variant := range []string{"", "/nginx"} {
		d := open(t)
		token, _ := d.issue()
		status(t, d.ask("", "GET", "/", cookie(token), navigation), 200)
		d.pass(16 * time.Minute)
		d.store.fault.Store(writesFail)
		hops := 0
		for {
			resp := d.ask(variant, "GET", "/orders", cookie(token), navigation)
			if resp.StatusCode == 200 {
				break
			}
			if variant == "/nginx" {
				status(t, resp, 401)
				resp = d.ask("/answer", "GET", "/orders", cookie(token), navigation)
			}
			hop := d.path(resp)
			if !strings.HasPrefix(hop, "/.afterlogin/renew") {
				t.Fatalf("sent to %s", hop)
			}
			if resp := d.renew(hop, cookie(token), navigation); d.path(resp) != "/orders" || len(resp.Cookies()) > 0 {
				t.Fatalf("the hop: %v", resp.Header)
			}
			if hops++; hops > 5 {
				t.Fatal("a loop")
			}
		}
		if hops == 0 {
			t.Error("the renewal was not tried")
		}
		// Later it is tried again.
		d.store.fault.Store(healthy)
		d.pass(time.Minute)
		if hop := d.path(d.ask("", "GET", "/orders", cookie(token), navigation)); !strings.HasPrefix(hop, "/.afterlogin/renew") {
			t.Errorf("sent to %s", hop)
		}
	}
}

// A token that is good for nothing but a renewal, since the answer with its successor was lost, is renewed.
func TestRenewalAfterLostAnswer(t *testing.T) {
	d := open(t, withRules(gateway.Rule{Path: "/public/", Public: true}))
	token, _ := d.issue()
	d.pass(16 * time.Minute)
	d.path(d.renew("/.afterlogin/renew?return_to=%2F", cookie(token))) // and its answer is lost
	d.pass(2 * time.Minute)
	resp := d.ask("", "GET", "/", cookie(token))
	status(t, resp, 401)
	contains(t, resp.Header.Get("WWW-Authenticate"), "renew it")
	resp = d.ask("", "GET", "/public/", cookie(token))
	status(t, resp, 200)
	has(t, resp, gateway.HeaderSubject, "-")
	status(t, d.ask("", "HEAD", "/", cookie(token), navigation), 401)
	if hop := d.path(d.ask("", "GET", "/public/", cookie(token), navigation)); !strings.HasPrefix(hop, "/.afterlogin/renew") {
		t.Errorf("a public page: sent to %s", hop)
	}
	hop := d.path(d.ask("", "GET", "/orders", cookie(token), navigation))
	resp = d.renew(hop, cookie(token), navigation)
	if d.path(resp) != "/orders" || len(resp.Cookies()) != 1 {
		t.Fatalf("the hop: %v", resp.Header)
	}
	status(t, d.ask("", "GET", "/orders", cookie(resp.Cookies()[0].Value), navigation), 200)

	// If that does not succeed either, the store's trouble is not made the person's.
	d = open(t)
	token, _ = d.issue()
	d.pass(16 * time.Minute)
	d.path(d.renew("/.afterlogin/renew?return_to=%2F", cookie(token)))
	d.pass(2 * time.Minute)
	d.store.fault.Store(writesFail)
	for range 3 {
		d.renew(d.path(d.ask("", "GET", "/", cookie(token), navigation)), cookie(token), navigation)
	}
	status(t, d.ask("", "GET", "/", cookie(token), navigation), 503)
}

// The hop goes nowhere but back to the same host, and never to itself.
func TestRenewalReturns(t *testing.T) {
	d := open(t)
	token, _ := d.issue()
	for query, want := range map[string]string{
		"":                       "/",
		"return_to=%2Fa%3Fb%3Dc": "/a?b=c",
		"return_to=https%3A%2F%2Fevil.example%2F":     "/",
		"return_to=%2F%2Fevil.example":                "/",
		"return_to=%2F%5Cevil.example":                "/",
		"return_to=%2Fa&return_to=%2Fb":               "/",
		"return_to=%2F.afterlogin%2Frenew":            "/",
		"return_to=%2F%252eafterlogin%2Frenew":        "/",
		"return_to=%2F.afterlogin%2Fx%3Freturn_to%3D": "/",
		"return_to=%zz":                               "/",
		"return_to=%2Fa%0d%0aX-Y%3A+z":                "/",
	} {
		resp := d.renew("/.afterlogin/renew?"+query, cookie(token))
		status(t, resp, 303)
		has(t, resp, "Location", want)
	}
	// Nobody has to be signed in; who asks in another way than a proxy of ours gets no cookie.
	d.path(d.renew("/.afterlogin/renew?return_to=%2Fa"))
	status(t, d.renew("/.afterlogin/renew", func(r *http.Request) { r.RemoteAddr = "198.51.100.1:1" }), 400)
	status(t, d.renew("/.afterlogin/renew", replaced("X-Forwarded-Host", "evil.example")), 421)
	status(t, d.renew("/.afterlogin/renew", header("X-Forwarded-Host", "")), 400)
	status(t, d.renew("/.afterlogin/renew", func(r *http.Request) { r.Method = "POST" }), 405)
}

// A site is what the proxy names, if it is one of the applications.
func TestSite(t *testing.T) {
	d := open(t, func(o *gateway.Options, _ *gateway.App) {
		o.Apps = append(o.Apps, gateway.App{Origin: "http://shop.localhost:8080"})
	})
	r := httptest.NewRequest("GET", "/.afterlogin/login", nil)
	r.RemoteAddr = "192.0.2.10:40000"
	r.Header.Set("X-Forwarded-Proto", "http")
	r.Header.Set("X-Forwarded-Host", "shop.localhost:8080")
	if _, err := d.Site(r); err == nil {
		t.Error("without the client's address everybody would be the proxy")
	}
	r.Header.Set("X-Forwarded-For", "203.0.113.7")
	s, err := d.Site(r)
	if err != nil || s.Origin != "http://shop.localhost:8080" || s.Base != "/.afterlogin" || s.Auth == nil {
		t.Fatalf("%+v, %v", s, err)
	}
	r.Header.Set("X-Forwarded-Host", "shop.localhost")
	if _, err = d.Site(r); err == nil {
		t.Error("another port")
	}
	w := httptest.NewRecorder()
	d.Refuse(w, r, err)
	if w.Code != 421 {
		t.Errorf("%d", w.Code)
	}
	contains(t, w.Body.String(), "gateway.origins")
	// Its Auth sets the cookie that browsers take from http on loopback, too.
	r.Header.Set("X-Forwarded-Host", "shop.localhost:8080")
	w = httptest.NewRecorder()
	s.Auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.Auth.SignIn(w, r, httpauth.SignIn{Subject: "mia"}); err != nil {
			t.Error(err)
		}
	})).ServeHTTP(w, r)
	cookies := w.Result().Cookies()
	if len(cookies) != 1 || cookies[0].Name != httpauth.CookieName || !cookies[0].Secure {
		t.Fatalf("%v", cookies)
	}
	status(t, d.ask("", "GET", "/", cookie(cookies[0].Value), replaced("X-Forwarded-Proto", "http"), replaced("X-Forwarded-Host", "shop.localhost:8080")), 200)
}

// A page that the renewal could not lead back to is served with the old token: a code in its address would be lost.
func TestRenewalKeepsThePage(t *testing.T) {
	for name, target := range map[string]string{
		"long":        "/callback?code=" + strings.Repeat("a", 2100),
		"escapes":     "/?q=" + strings.Repeat("%C3", 660),
		"raw bytes":   "/caf\xe9?x=1",
		"raw query":   "/?q=\xe9",
		"a semicolon": "/a;v=1/../", // 400 in any case
	} {
		d := open(t)
		token, _ := d.issue()
		status(t, d.ask("", "GET", "/", cookie(token), navigation), 200)
		d.pass(16 * time.Minute)
		want := 200
		if name == "a semicolon" {
			want = 400
		}
		if got := d.ask("", "GET", target, cookie(token), navigation).StatusCode; got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
		// The next page renews it.
		if hop := d.path(d.ask("", "GET", "/orders", cookie(token), navigation)); hop != "/.afterlogin/renew?return_to=%2Forders" {
			t.Errorf("sent to %s", hop)
		}
	}
	// A token that is good for nothing else is renewed first, wherever that leads; but a public page is there.
	d := open(t, withRules(gateway.Rule{Path: "/public/", Public: true}))
	token, _ := d.issue()
	d.pass(16 * time.Minute)
	d.path(d.renew("/.afterlogin/renew?return_to=%2F", cookie(token)))
	d.pass(2 * time.Minute)
	long := "callback?code=" + strings.Repeat("a", 2100)
	if hop := d.path(d.ask("", "GET", "/"+long, cookie(token), navigation)); hop != "/.afterlogin/renew?return_to=%2F" {
		t.Errorf("sent to %s", hop)
	}
	resp := d.ask("", "GET", "/public/"+long, cookie(token), navigation)
	status(t, resp, 200)
	has(t, resp, gateway.HeaderSubject, "-")
	// Nor is it kept from anybody by a renewal that does not succeed.
	d.store.fault.Store(writesFail)
	for range 5 {
		resp = d.ask("", "GET", "/public/", cookie(token), navigation)
	}
	status(t, resp, 200)
	has(t, resp, gateway.HeaderSubject, "-")
}

// The answer for nginx's client leads to the same address a few times, and not for ever.
func TestAgainEnds(t *testing.T) {
	d := open(t, withRules(gateway.Rule{Path: "/public/", Public: true}))
	token, _ := d.issue()
	for _, sent := range []func(*http.Request){cookie(token), func(*http.Request) {}} {
		for _, target := range []string{"/public/x", "/public/y"} {
			for range 3 {
				resp := d.ask("/answer", "GET", target, sent, navigation)
				status(t, resp, 303)
				has(t, resp, "Location", target)
			}
			status(t, d.ask("/answer", "GET", target, sent, navigation), 503)
		}
	}
	d.pass(time.Minute)
	status(t, d.ask("/answer", "GET", "/public/x", cookie(token), navigation), 303)
}

// A form on one of afterlogin's own pages is the application's own, whatever Host the proxy sends.
func TestSiteOwnForms(t *testing.T) {
	d := open(t)
	r := httptest.NewRequest("POST", "/.afterlogin/login", nil)
	r.Host = "127.0.0.1:7070"
	r.RemoteAddr = "192.0.2.10:40000"
	r.Header.Set("X-Forwarded-Proto", "https")
	r.Header.Set("X-Forwarded-Host", "shop.example.com")
	r.Header.Set("X-Forwarded-For", "203.0.113.7")
	s := must[gateway.Site](t)(d.Site(r))
	page := s.Auth.Optional(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for from, want := range map[string]int{origin: 200, "https://evil.example": 403} {
		r.Header.Set("Origin", from)
		w := httptest.NewRecorder()
		if page.ServeHTTP(w, r); w.Code != want {
			t.Errorf("from %s: %d, want %d", from, w.Code, want)
		}
	}
}
