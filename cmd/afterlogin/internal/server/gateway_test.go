package server

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth"
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

	// What a proxy lets slip through does not reach the API, whoever holds a key.
	for _, path := range []string{"/v1/sessions", "/v1/subjects/..%2f..%2f.afterlogin%2fmia/sessions", "/metricsx", "/login", "/oauth/token"} {
		r, err := http.NewRequest("GET", h.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"X-Forwarded-Host": "shop.localhost:8080", "X-Forwarded-Proto": "http", "X-Forwarded-For": "203.0.113.7", "X-Api-Key": key,
		} {
			r.Header.Set(name, value)
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s on the application's host: %d", path, resp.StatusCode)
		}
	}

	for _, hosts := range [][]string{{"x, shop.localhost:8080"}, {"Shop.localhost:8080"}, {"x", "shop.localhost:8080"}} {
		r := httptest.NewRequest("GET", "/v1/sessions", nil)
		r.Host, r.RemoteAddr = "127.0.0.1:7070", "127.0.0.1:4711"
		r.Header["X-Forwarded-Host"] = hosts
		r.Header.Set("X-Api-Key", key)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusMisdirectedRequest {
			t.Errorf("X-Forwarded-Host %q: %d", hosts, w.Code)
		}
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
}

// What the gateway does not take is found before anything is made.
func TestBadGateway(t *testing.T) {
	for name, change := range map[string]func(*config.Config){
		"origin":  func(c *config.Config) { c.Origins = []string{"https://shop.example.com/with/a/path"} },
		"rule":    func(c *config.Config) { c.Apps = []config.App{{Origin: shop, Rules: []config.Rule{{Path: "/a//b"}}}} },
		"proxies": func(c *config.Config) { c.Origins, c.Proxies = []string{shop}, nil },
	} {
		c := settings(t.TempDir())
		c.Listen, c.Data = "127.0.0.1:7070", filepath.Join(c.Data, "new")
		change(&c)
		var setup *SetupError
		if _, _, err := tryOpen(t, c, false); !errors.As(err, &setup) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(c.Data); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the data directory was made: %v", name, err)
		}
	}
}

// An application's own sign-in page is where people are sent: a path of its host, or what the application's entry names.
func TestGatewaySignInURL(t *testing.T) {
	c := settings(t.TempDir())
	c.Listen, c.SignInURL = "127.0.0.1:7070", "/my-login"
	c.Origins = []string{shop}
	c.Apps = []config.App{{Origin: "https://wiki.example.com", SignInURL: "https://id.example.com/login"}}
	s, _ := open(t, c, false)
	defer s.Close()
	for host, want := range map[string]string{
		"http://shop.localhost:8080": shop + "/my-login?return_to=%2Forders%3Fa%3D1",
		"https://wiki.example.com":   "https://id.example.com/login?return_to=https%3A%2F%2Fwiki.example.com%2Forders%3Fa%3D1",
	} {
		scheme, name, _ := strings.Cut(host, "://")
		r := httptest.NewRequest("GET", gateway.Path, nil)
		r.RemoteAddr = "127.0.0.1:4711"
		for name, value := range map[string]string{
			"X-Forwarded-Method": "GET", "X-Forwarded-Proto": scheme, "X-Forwarded-Host": name, "X-Forwarded-Uri": "/orders?a=1",
			"X-Forwarded-For": "203.0.113.7", "Accept": "text/html",
		} {
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if got := w.Header().Get("Location"); w.Code != http.StatusSeeOther || got != want {
			t.Errorf("%s: %d to %q", host, w.Code, got)
		}
		r.Header.Set("X-Forwarded-Uri", "/my-login?return_to=%2F")
		w = httptest.NewRecorder()
		if s.Handler().ServeHTTP(w, r); (w.Code == http.StatusOK) != (host == shop) {
			t.Errorf("%s: the page itself: %d", host, w.Code)
		}
	}
}

// API keys that are bound to networks are judged by what the proxies say, wherever they are taken, and by nobody else's
// word.
func TestNetworksBehindProxy(t *testing.T) {
	c := settings(t.TempDir())
	c.Listen, c.Proxies = "127.0.0.1:7070", []string{"192.0.2.0/24"}
	s, _ := open(t, c, false)
	defer s.Close()
	resp, body := ask(s, "POST", "/v1/api-keys", adminKey(t, c.Data), `{"subject":"robot","scopes":["sessions:read","validate"],"networks":["203.0.113.0/24"]}`)
	var made struct{ Token string }
	if err := json.Unmarshal([]byte(body), &made); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	for _, tt := range []struct {
		peer, forwarded string
		good            bool
	}{
		{"192.0.2.1:4711", "203.0.113.7", true},
		{"192.0.2.1:4711", "198.51.100.1", false},
		{"192.0.2.1:4711", "203.0.113.7, 198.51.100.1", false},
		{"192.0.2.1:4711", "", false},
		{"203.0.113.7:4711", "198.51.100.1", true},
		{"198.51.100.1:4711", "203.0.113.7", false},
	} {
		for path, method := range map[string]string{"/v1/sessions": "GET", oauth.IntrospectPath: "POST"} {
			r := httptest.NewRequest(method, "http://127.0.0.1:7070"+path, nil)
			if method == "POST" {
				r = httptest.NewRequest(method, "http://127.0.0.1:7070"+path, strings.NewReader("token=x"))
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			r.RemoteAddr = tt.peer
			r.Header.Set("Authorization", "Bearer "+made.Token)
			if tt.forwarded != "" {
				r.Header.Set("X-Forwarded-For", tt.forwarded)
			}
			w := httptest.NewRecorder()
			if s.Handler().ServeHTTP(w, r); (w.Code == http.StatusOK) != tt.good {
				t.Errorf("%s from %s for %q: %d %s", path, tt.peer, tt.forwarded, w.Code, w.Body)
			}
		}
	}
}

// Without a word of a proxy, no program of this machine can say where somebody else comes from.
func TestNobodyIsBelieved(t *testing.T) {
	c := settings(t.TempDir())
	s, _ := open(t, c, false)
	defer s.Close()
	resp, body := ask(s, "POST", "/v1/api-keys", adminKey(t, c.Data), `{"subject":"robot","scopes":["sessions:read"],"networks":["203.0.113.0/24"]}`)
	var made struct{ Token string }
	if err := json.Unmarshal([]byte(body), &made); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	r := httptest.NewRequest("GET", "http://127.0.0.1:7070/v1/sessions", nil)
	r.RemoteAddr = "127.0.0.1:4711"
	r.Header.Set("X-Api-Key", made.Token)
	r.Header.Set("X-Forwarded-For", "203.0.113.7")
	w := httptest.NewRecorder()
	if s.Handler().ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Browsers come back by HTTPS, whoever speaks it with them.
func TestTransportSecurityBehindProxy(t *testing.T) {
	s, _ := open(t, settings(t.TempDir()), false)
	defer s.Close()
	for proto, want := range map[string]string{"https": "max-age=63072000", "http": "", "": ""} {
		r := httptest.NewRequest("GET", "/livez", nil)
		if proto != "" {
			r.Header.Set("X-Forwarded-Proto", proto)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if got := w.Header().Get("Strict-Transport-Security"); got != want {
			t.Errorf("by %q: %q, want %q", proto, got, want)
		}
	}
}
