package server

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

// consoleLink makes a link into the console.
func consoleLink(t *testing.T, s *Server, dir string) string {
	t.Helper()
	var made api.ConsoleLink
	resp, body := ask(s, "POST", "/v1/console/links", adminKey(t, dir), `{}`)
	if err := json.Unmarshal([]byte(body), &made); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s", resp.StatusCode, api.Redact(body))
	}
	return made.URL
}

// here has the request come from this machine, to the host.
func here(r *http.Request, host string) *http.Request {
	r.Host = host
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7070}))
}

// A link has the address by which browsers come, and is a path where that is not known.
func TestConsoleAddress(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*config.Config)
		bound string
		want  string // in front of /console/enter
		host  string // which browsers say
		plain bool   // the cookie goes over plain HTTP
	}{
		"the defaults":            {func(c *config.Config) { c.Listen = "127.0.0.1:7070" }, "127.0.0.1:7070", "http://127.0.0.1:7070", "127.0.0.1:7070", true},
		"by name":                 {func(c *config.Config) { c.Listen = "localhost:7070" }, "127.0.0.1:7070", "http://localhost:7070", "localhost:7070", true},
		"any port":                {func(c *config.Config) { c.Listen = "127.0.0.1:0" }, "127.0.0.1:40123", "http://127.0.0.1:40123", "127.0.0.1:40123", true},
		"any port, not known":     {func(c *config.Config) { c.Listen = "127.0.0.1:0" }, "", "", "127.0.0.1:40123", true},
		"a proxy":                 {func(c *config.Config) { c.Listen, c.BehindProxy = "0.0.0.0:7070", true }, "0.0.0.0:7070", "", "auth.example", false},
		"a proxy on this machine": {func(c *config.Config) { c.Listen, c.BehindProxy = "127.0.0.1:7070", true }, "127.0.0.1:7070", "", "auth.example", false},
		"a proxy, and a name": {func(c *config.Config) {
			c.Listen, c.BehindProxy, c.Issuer = "0.0.0.0:7070", true, "https://auth.example"
		}, "0.0.0.0:7070", "https://auth.example", "auth.example", false},
		"a name, and nothing before": {func(c *config.Config) { c.Listen, c.Issuer = "127.0.0.1:7070", "https://auth.example" }, "127.0.0.1:7070", "https://auth.example", "auth.example", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			conf := settings(dir)
			c.set(&conf)
			o := Options{Config: conf, Logger: NewLogger(&buffer{}, "debug", true)}
			if c.bound != "" {
				addr, err := net.ResolveTCPAddr("tcp", c.bound)
				if err != nil {
					t.Fatal(err)
				}
				o.Addr = addr
			}
			s, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			link := consoleLink(t, s, dir)
			if !strings.HasPrefix(link, c.want+"/console/enter?link=all_") {
				t.Errorf("the link is %s, want %s/console/enter", api.Redact(link), c.want)
			}
			u, err := url.Parse(link)
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest("GET", u.RequestURI(), nil)
			r = here(r, c.host)
			w := httptest.NewRecorder()
			s.desk.Load().Console.ServeHTTP(w, r) // what checks names of hosts is another thing
			cookie := w.Header().Get("Set-Cookie")
			if w.Code != http.StatusSeeOther || strings.HasPrefix(cookie, "console_link=") != c.plain || strings.Contains(cookie, "Secure") == c.plain {
				t.Errorf("it is answered with %d, and %q", w.Code, api.Redact(cookie))
			}
		})
	}
}

// A limit of sessions is for those that the server is there for: operators do not lock each other out.
func TestLimitsSpareTheConsole(t *testing.T) {
	dir := t.TempDir()
	conf := settings(dir)
	conf.SessionLimit, conf.SessionAtLimit = 1, "deny"
	s, _ := open(t, conf, false)
	defer s.Close()
	handler := s.desk.Load().Console
	for i := range 3 {
		u, err := url.Parse(consoleLink(t, s, dir))
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest("GET", u.RequestURI(), nil)
		r = here(r, "127.0.0.1:7070")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		r = httptest.NewRequest("POST", "/console/enter", strings.NewReader(""))
		r = here(r, "127.0.0.1:7070")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		for _, k := range w.Result().Cookies() {
			r.AddCookie(k)
		}
		w = httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusSeeOther {
			t.Fatalf("operator %d: %d", i+1, w.Code)
		}
	}
	for i, want := range []int{http.StatusCreated, http.StatusConflict} {
		if resp, body := ask(s, "POST", "/v1/sessions", adminKey(t, dir), `{"subject":"mia"}`); resp.StatusCode != want {
			t.Errorf("session %d of mia: %d %s", i+1, resp.StatusCode, api.Redact(body))
		}
	}
}
