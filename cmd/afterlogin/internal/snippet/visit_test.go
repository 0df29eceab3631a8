package snippet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/server"
	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/jwt"
)

// visit is a browser in front of a proxy, and the server that "afterlogin serve --origin" starts beside it.
type visit struct {
	t       *testing.T
	app     *app
	proxy   string // its address
	origin  *url.URL
	server  string // its own address
	admin   string // the admin key
	browser *http.Client
}

func startVisit(t *testing.T, kind string) *visit {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	v := &visit{t: t, app: newApp(t), server: "http://" + l.Addr().String()}
	v.proxy = startProxy(t, kind, v.app.addr, l.Addr().String(), setup{}).Addr
	_, port, _ := net.SplitHostPort(v.proxy)
	v.origin = &url.URL{Scheme: "http", Host: "shop.localhost:" + port}

	c := config.Default()
	c.Data, c.Listen, c.Origins, c.Drain = filepath.Join(t.TempDir(), "data"), l.Addr().String(), []string{v.origin.String()}, 0
	s, err := server.Open(t.Context(), server.Options{Config: c, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	b, err := os.ReadFile(filepath.Join(c.Data, "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	v.admin = strings.TrimSpace(string(b))
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	v.browser = &http.Client{Transport: v, Jar: secureJar{jar}}
	return v
}

// secureJar keeps Secure cookies for http on a host below localhost, as browsers do.
type secureJar struct{ http.CookieJar }

func (j secureJar) SetCookies(u *url.URL, c []*http.Cookie) { j.CookieJar.SetCookies(asHTTPS(u), c) }
func (j secureJar) Cookies(u *url.URL) []*http.Cookie       { return j.CookieJar.Cookies(asHTTPS(u)) }

func asHTTPS(u *url.URL) *url.URL {
	s := *u
	s.Scheme = "https"
	return &s
}

// RoundTrip sends what is for the shop to the proxy, as if a name server knew it, with the headers of a browser.
func (v *visit) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != v.origin.Host {
		v.t.Errorf("the browser is sent to %s", r.URL)
	}
	r = r.Clone(r.Context())
	r.Host, r.URL.Host = r.URL.Host, v.proxy
	for _, line := range navigation {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	if r.Method == "POST" {
		r.Header.Set("Origin", v.origin.String())
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	return http.DefaultTransport.RoundTrip(r)
}

// open has the browser open a page, or send a form, and follow where it leads.
func (v *visit) open(path string, form url.Values) (at *url.URL, status int, body string) {
	v.t.Helper()
	u, err := v.origin.Parse(path)
	if err != nil {
		v.t.Fatal(err)
	}
	var resp *http.Response
	if form == nil {
		resp, err = v.browser.Get(u.String())
	} else {
		resp, err = v.browser.PostForm(u.String(), form)
	}
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp.Request.URL, resp.StatusCode, string(b)
}

// arrived returns what the application got, and fails the test if it got nothing or more than one request.
func (v *visit) arrived() seen {
	v.t.Helper()
	got := v.app.take()
	if len(got) != 1 {
		v.t.Fatalf("the application got %+v, want one request", got)
	}
	return got[0]
}

// ask asks the API of the server.
func (v *visit) ask(method, path, body string) string {
	v.t.Helper()
	r, err := http.NewRequest(method, v.server+path, strings.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	r.Header.Set("X-Api-Key", v.admin)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		v.t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, b, err)
	}
	return string(b)
}

var (
	csrfField = regexp.MustCompile(`name="csrf_token" value="([^"]+)"`)
	backField = regexp.MustCompile(`name="return_to" value="([^"]*)"`)
)

func TestVisit(t *testing.T) {
	for _, kind := range proxies {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			visitThrough(t, kind)
		})
	}
}

func visitThrough(t *testing.T, kind string) {
	v := startVisit(t, kind)
	const password = "correct horse battery staple"
	v.ask("POST", "/v1/users", `{"name":"mia","password":"`+password+`"}`)

	// A deep link leads to the sign-in page, and back.
	const deep = "/orders?page=2&q=a%26b"
	signIn := func() {
		t.Helper()
		at, status, body := v.open(deep, nil)
		field, back := csrfField.FindStringSubmatch(body), backField.FindStringSubmatch(body)
		if status != 200 || at.Path != "/.afterlogin/login" || field == nil || back == nil {
			t.Fatalf("%d at %s: %s", status, at, body)
		}
		if got := v.app.take(); len(got) > 0 {
			t.Fatalf("the application got %+v", got)
		}
		form := url.Values{"name": {"mia"}, "password": {"wrong"}, "csrf_token": {field[1]}, "return_to": {strings.ReplaceAll(back[1], "&amp;", "&")}}
		if at, status, _ := v.open("/.afterlogin/login", form); status == 200 || at.Path != "/.afterlogin/login" || len(v.app.take()) > 0 {
			t.Fatalf("a wrong password: %d at %s", status, at)
		}
		form.Set("password", password)
		if at, status, body := v.open("/.afterlogin/login", form); status != 200 || at.RequestURI() != deep {
			t.Fatalf("after the sign-in: %d at %s: %s", status, at, body)
		}
	}
	signIn()
	got := v.arrived()
	if got.Target != deep || got.subject() != "mia" || got.Header.Get("X-Auth-Kind") != "session" || strings.Contains(got.Header.Get("Cookie"), httpauth.CookieName) {
		t.Fatalf("the application got %+v", got)
	}

	// The application believes the assertion, by the keys that the server publishes.
	resp, err := http.Get(v.server + "/.well-known/jwks.json")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := jwt.ParseJWKS(b)
	if err != nil {
		t.Fatal(err)
	}
	c, err := (&jwt.Verifier{Keys: keys, Issuer: v.server, Audience: []string{v.origin.String()}, Type: gateway.TypeAssertion}).Verify(t.Context(), got.Header.Get("X-Auth-Assertion"))
	if err != nil || c.Subject != "mia" || c.SessionID != got.Header.Get("X-Auth-Session") {
		t.Fatalf("%+v, %v", c, err)
	}

	// A form arrives whole.
	if _, status, _ := v.open("/orders", url.Values{"item": {"tea"}}); status != 200 {
		t.Errorf("a form: %d", status)
	}
	if got := v.arrived(); got.Body != "item=tea" || got.subject() != "mia" {
		t.Errorf("the application got %+v", got)
	}

	// Revoked: the next request is refused.
	v.ask("DELETE", "/v1/sessions/"+c.SessionID, "")
	if at, _, _ := v.open("/orders", nil); at.Path != "/.afterlogin/login" || len(v.app.take()) > 0 {
		t.Errorf("after the session was revoked: at %s", at)
	}

	// Signed out: so it is, with the cookie that was good before.
	signIn()
	v.arrived()
	before := v.browser.Jar.Cookies(v.origin)
	_, status, body := v.open("/.afterlogin/logout", nil)
	field := csrfField.FindStringSubmatch(body)
	if status != 200 || field == nil {
		t.Fatalf("the page to sign out: %d %s", status, body)
	}
	v.open("/.afterlogin/logout", url.Values{"csrf_token": {field[1]}})
	v.app.take()
	v.browser.Jar.SetCookies(v.origin, before)
	if at, _, _ := v.open("/orders", nil); at.Path != "/.afterlogin/login" || len(v.app.take()) > 0 {
		t.Errorf("after the sign-out: at %s", at)
	}

	// A machine.
	var key struct{ Token string }
	if err := json.NewDecoder(bytes.NewReader([]byte(v.ask("POST", "/v1/api-keys", `{"subject":"robot"}`)))).Decode(&key); err != nil || key.Token == "" {
		t.Fatalf("%+v, %v", key, err)
	}
	r, _ := http.NewRequest("GET", "http://"+v.proxy+"/api", nil)
	r.Host = v.origin.Host
	r.Header.Set("X-Api-Key", key.Token)
	resp, err = http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := v.arrived(); got.subject() != "robot" || got.Header.Get("X-Auth-Kind") != "api-key" || got.Header.Get("X-Api-Key") != "" {
		t.Errorf("the application got %+v", got)
	}
}
