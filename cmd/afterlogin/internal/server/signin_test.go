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
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/gateway"
)

// visitor is a browser in front of the shop's proxy.
type visitor struct {
	t    *testing.T
	s    *Server
	base string
	jar  http.CookieJar
}

// visitShop starts a server for the shop, with a user mia, and returns somebody who visits.
func visitShop(t *testing.T, change func(*config.Config)) *visitor {
	t.Helper()
	c := settings(t.TempDir())
	c.Listen = "127.0.0.1:7070"
	c.Apps = []config.App{{Origin: shop, Rules: []config.Rule{{Path: "/safe", ACR: []string{"silver"}}}}}
	change(&c)
	s, _ := open(t, c, false)
	h := httptest.NewServer(s.Handler())
	t.Cleanup(func() { h.Close(); s.Close() })
	if resp, body := ask(s, "POST", "/v1/users", adminKey(t, c.Data), `{"name":"mia","password":"`+miasPassword+`"}`); resp.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &visitor{t, s, h.URL, jar}
}

const miasPassword = "correct horse battery staple"

func (v *visitor) do(method, path string, form url.Values) (*http.Response, string) {
	v.t.Helper()
	resp := throughProxy(v.t, v.base, v.jar, method, path, form)
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp, string(b)
}

// form returns what the page's form sends, with name and password.
func (v *visitor) form(page string) url.Values {
	v.t.Helper()
	field := regexp.MustCompile(`name="csrf_token" value="([^"]+)"`).FindStringSubmatch(page)
	if field == nil {
		v.t.Fatalf("no form: %s", page)
	}
	return url.Values{"name": {"mia"}, "password": {miasPassword}, "csrf_token": {field[1]}}
}

func (v *visitor) signIn() {
	v.t.Helper()
	_, page := v.do("GET", gateway.BasePath+"/login", nil)
	form := v.form(page)
	form.Set("remember", "on")
	if resp, body := v.do("POST", gateway.BasePath+"/login", form); resp.StatusCode != http.StatusSeeOther {
		v.t.Fatalf("%d %s", resp.StatusCode, body)
	}
}

// A rule that asks for a class of authentication lets passwords through if the setting says that they give it.
func TestPasswordACR(t *testing.T) {
	v := visitShop(t, func(c *config.Config) { c.PasswordACR = "silver" })
	v.signIn()
	if resp, body := v.do("GET", "/safe", nil); resp.StatusCode != http.StatusOK || resp.Header.Get(gateway.HeaderSubject) != "mia" {
		t.Errorf("with the class: %d %s", resp.StatusCode, body)
	}
	v = visitShop(t, func(*config.Config) {})
	v.signIn()
	resp, _ := v.do("GET", "/safe", nil)
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil || resp.StatusCode != http.StatusSeeOther || to.Query().Get("acr_values") != "silver" {
		t.Fatalf("without: %d to %v", resp.StatusCode, to)
	}
	if resp, page := v.do("GET", to.RequestURI(), nil); resp.StatusCode != http.StatusOK || !strings.Contains(page, "Nothing here can give it") {
		t.Errorf("the page: %d %s", resp.StatusCode, page)
	}
}

// People are asked whether to stay signed in, unless the setting says that nobody does.
func TestRemember(t *testing.T) {
	for _, remember := range []bool{true, false} {
		v := visitShop(t, func(c *config.Config) { c.Remember = remember })
		if _, page := v.do("GET", gateway.BasePath+"/login", nil); strings.Contains(page, "Stay signed in") != remember {
			t.Errorf("%t: %s", remember, page)
		}
		v.signIn()
		want := afterlogin.PolicyBrowser
		if remember {
			want = afterlogin.PolicyRemember
		}
		for s, err := range v.s.authority.Sessions(t.Context(), afterlogin.Query{Subject: "mia"}) {
			if err != nil || s.Policy != want {
				t.Errorf("%t: %s, %v", remember, s.Policy, err)
			}
		}
	}
}

// What is refused on the pages is answered with a page, on an application's host and on the server's own; proxies and
// programs get what they can read.
func TestRefusedPages(t *testing.T) {
	v := visitShop(t, func(*config.Config) {})
	_, page := v.do("GET", gateway.BasePath+"/login?return_to=/x", nil)
	tab := v.form(page)
	v.signIn()
	resp, body := v.do("POST", gateway.BasePath+"/login", tab)
	if resp.StatusCode != http.StatusForbidden || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") || !strings.Contains(body, "<h1>You are signed in</h1>") {
		t.Errorf("the other tab: %d %s %s", resp.StatusCode, resp.Header.Get("Content-Type"), body)
	}
	// The question of a proxy about a request that could change something, sent by a page of another site.
	u, _ := url.Parse("https" + strings.TrimPrefix(shop, "http"))
	r := httptest.NewRequest("GET", gateway.Path, nil)
	r.RemoteAddr = "127.0.0.1:4711"
	for name, value := range map[string]string{
		"X-Forwarded-Method": "POST", "X-Forwarded-Proto": "http", "X-Forwarded-Host": u.Host, "X-Forwarded-Uri": "/orders",
		"X-Forwarded-For": "203.0.113.7", "Sec-Fetch-Site": "cross-site",
	} {
		r.Header.Set(name, value)
	}
	for _, c := range v.jar.Cookies(u) {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	v.s.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), "<h1>") {
		t.Errorf("a proxy's question: %d %s", w.Code, w.Body)
	}

	// The server's own host.
	jar, _ := cookiejar.New(nil)
	c := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	get := func(resp *http.Response, err error) (*http.Response, string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	_, page = get(c.Get(v.base + "/login"))
	tab = v.form(page)
	if resp, body := get(c.PostForm(v.base+"/login", tab)); resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	if resp, body := get(c.PostForm(v.base+"/login", tab)); resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "<h1>You are signed in</h1>") {
		t.Errorf("the server's own: %d %s", resp.StatusCode, body)
	}
}
