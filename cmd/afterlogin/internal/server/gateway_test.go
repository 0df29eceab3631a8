package server

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
)

const shop = "http://shop.localhost:8080"

// throughProxy sends a request as the proxy of the shop passes on what is below /.afterlogin/, or asks about another.
func throughProxy(t *testing.T, base string, jar http.CookieJar, method, path string, form url.Values) *http.Response {
	t.Helper()
	target := base + path
	if !strings.HasPrefix(path, gateway.BasePath+"/") {
		target = base + gateway.Path
	}
	r, err := http.NewRequest(method, target, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse("https" + strings.TrimPrefix(shop, "http")) // as whose host browsers send Secure cookies
	if err != nil {
		t.Fatal(err)
	}
	r.Host = u.Host
	for name, value := range map[string]string{
		"X-Forwarded-Method": method, "X-Forwarded-Proto": "http", "X-Forwarded-Host": u.Host, "X-Forwarded-Uri": path,
		"X-Forwarded-For": "203.0.113.7", "Accept": "text/html", "Sec-Fetch-Site": "same-origin",
	} {
		r.Header.Set(name, value)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range jar.Cookies(u) {
		r.AddCookie(c)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	jar.SetCookies(u, resp.Cookies())
	return resp
}

// An application that knows nothing of afterlogin gets sessions: a name in the configuration and a user are all it takes.
func TestGateway(t *testing.T) {
	c := settings(t.TempDir())
	c.Listen, c.Origins = "127.0.0.1:7070", []string{shop}
	s, log := open(t, c, false)
	defer s.Close()
	h := httptest.NewServer(s.Handler())
	defer h.Close()
	key := adminKey(t, c.Data)
	const password = "correct horse battery staple"
	if resp, body := ask(s, "POST", "/v1/users", key, `{"name":"mia","password":"`+password+`","scopes":["orders"]}`); resp.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}

	jar, _ := cookiejar.New(nil)
	const page = "/orders?page=2"
	resp := throughProxy(t, h.URL, jar, "GET", page, nil)
	to, _ := url.Parse(resp.Header.Get("Location"))
	if resp.StatusCode != http.StatusSeeOther || to.Path != gateway.BasePath+"/login" || to.Query().Get("return_to") != page {
		t.Fatalf("without a session: %d to %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	resp = throughProxy(t, h.URL, jar, "GET", to.RequestURI(), nil)
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	body := string(b)
	field := regexp.MustCompile(`name="csrf_token" value="([^"]+)"`).FindStringSubmatch(body)
	if resp.StatusCode != http.StatusOK || field == nil {
		t.Fatalf("the page: %d %s", resp.StatusCode, body)
	}
	form := url.Values{"name": {"mia"}, "password": {password}, "csrf_token": {field[1]}, "return_to": {page}}
	resp = throughProxy(t, h.URL, jar, "POST", gateway.BasePath+"/login", form)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != page {
		t.Fatalf("signed in: %d to %q", resp.StatusCode, resp.Header.Get("Location"))
	}
	resp = throughProxy(t, h.URL, jar, "GET", page, nil)
	if got := resp.Header.Get(gateway.HeaderSubject); resp.StatusCode != http.StatusOK || got != "mia" || resp.Header.Get(gateway.HeaderScopes) != "orders" {
		t.Errorf("asked with the session: %d, subject %q", resp.StatusCode, got)
	}
	// The address that the proxy tells is where the session is from.
	for s, err := range s.authority.Sessions(t.Context(), afterlogin.Query{Subject: "mia"}) {
		if err != nil || s.Device.Addr.String() != "203.0.113.7" {
			t.Errorf("from %v, %v", s.Device.Addr, err)
		}
	}
	if strings.Contains(log.String(), password) || strings.Contains(log.String(), form.Get("csrf_token")) {
		t.Error("a secret is in the log")
	}

	// Who is not a configured proxy says nothing.
	r := httptest.NewRequest("GET", gateway.Path, nil)
	r.RemoteAddr = "203.0.113.9:4711"
	r.Header.Set("X-Forwarded-Host", "shop.localhost:8080")
	for _, path := range []string{gateway.Path, gateway.BasePath + "/login"} {
		r.URL.Path, r.RequestURI = path, path
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code < 400 {
			t.Errorf("%s from a stranger: %d", path, w.Code)
		}
	}
	// The server's own page is there, too, and only under its own name.
	own, err := http.Get(h.URL + "/login")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Body.Close()
	if b, _ = io.ReadAll(own.Body); own.StatusCode != http.StatusOK || !strings.Contains(string(b), "Sign in") {
		t.Errorf("the server's own page: %d", own.StatusCode)
	}
	r = httptest.NewRequest("GET", "/login", nil)
	r.Host = "evil.example"
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusMisdirectedRequest {
		t.Errorf("the server's own page by another name: %d", w.Code)
	}
}

// A server without applications says so, whoever asks.
func TestNoGateway(t *testing.T) {
	s, _ := open(t, settings(t.TempDir()), false)
	defer s.Close()
	for _, path := range []string{gateway.Path, gateway.Path + "/envoy/x", gateway.BasePath + "/login", gateway.BasePath + "/renew"} {
		if resp, body := ask(s, "GET", path, "", ""); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "gateway.origins") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	c := settings(t.TempDir())
	c.Origins = []string{"https://shop.example.com/with/a/path"}
	if _, _, err := tryOpen(t, c, false); err == nil {
		t.Error("a bad origin was taken")
	}
}
