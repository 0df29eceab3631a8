package snippet_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
)

// proxies are those that run here.
var proxies = []string{"nginx", "caddy", "haproxy", "apache"}

// public is a rule that lets everybody in.
var public = []gateway.Rule{{Path: "/public/", Public: true}, {Path: "/admin/", Scopes: []string{"admin"}}}

// arrives fails the test unless the answer is the application's, to a clean request of this person.
func (h *house) arrives(a answer, subject, kind string, secrets ...string) {
	h.t.Helper()
	if a.app == nil {
		h.t.Fatalf("the application was not reached: %d %s %q", a.StatusCode, a.Header, a.body)
	}
	c, err := h.identity(*a.app)
	if err != nil {
		h.t.Fatal(err)
	}
	if got := a.app.Header.Get("X-Auth-Kind"); got != kind {
		h.t.Errorf("X-Auth-Kind = %q, want %q", got, kind)
	}
	switch {
	case subject == "" && c != nil:
		h.t.Errorf("it is from %s, want from nobody", c.Subject)
	case subject != "" && (c == nil || c.Subject != subject):
		h.t.Errorf("it is from %+v, want from %s", c, subject)
	}
	if err := h.clean(*a.app, secrets...); err != nil {
		h.t.Error(err)
	}
}

// refused fails the test unless the answer is of the status, and the application was not reached.
func (h *house) refused(a answer, status int) {
	h.t.Helper()
	if a.StatusCode != status {
		h.t.Errorf("%d %s %q, want %d", a.StatusCode, a.Header, a.body, status)
	}
	if got := h.app.take(); len(got) > 0 {
		h.t.Errorf("the application got %+v", got)
	}
}

func TestProxies(t *testing.T) {
	for _, kind := range proxies {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			story(t, start(t, kind, setup{rules: public}))
		})
	}
}

func story(t *testing.T, h *house) {
	cookie, session := h.signIn("mia")
	token := strings.SplitN(cookie, "=", 2)[1]
	run := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			old := h.t
			h.t = t
			defer func() { h.t = old }()
			f(t)
			h.app.take()
		})
	}
	run("nobody", func(t *testing.T) {
		a := h.do("GET", "/cart?x=1&y=a%2Fb", "", navigation...)
		h.refused(a, 303)
		if got, want := a.Header.Get("Location"), h.origin+"/.afterlogin/login?return_to="+url.QueryEscape("/cart?x=1&y=a%2Fb"); got != want {
			t.Errorf("Location = %s, want %s", got, want)
		}
		a = h.do("GET", "/cart", "")
		h.refused(a, 401)
		if got := a.Header.Values("Www-Authenticate"); len(got) != 1 || !strings.HasPrefix(got[0], "Bearer") {
			t.Errorf("WWW-Authenticate = %q", got)
		}
		if got := a.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("Cache-Control = %q", got)
		}
		a = h.do("GET", "/cart", "", "Accept: application/json")
		h.refused(a, 401)
		if got := a.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("Content-Type = %q", got)
		}
		h.refused(h.do("HEAD", "/cart", ""), 401)
		h.refused(h.do("POST", "/cart", "a=1&b=2", "Content-Type: application/x-www-form-urlencoded"), 401)
	})
	run("public", func(t *testing.T) {
		a := h.do("GET", "/public/logo.png?v=1", "", "Cookie: theme=dark")
		h.arrives(a, "", "none")
		if got := a.Header.Get("Cache-Control"); got != "" {
			t.Errorf("Cache-Control = %q of something public", got)
		}
		if got := a.app.Header.Get("Cookie"); got != "theme=dark" {
			t.Errorf("Cookie = %q", got)
		}
		h.arrives(h.do("GET", "/public/logo.png", "", "Cookie: "+cookie), "mia", "session", token)
		if got := strings.ToLower(strings.Join(a.Header["Vary"], ",")); strings.Contains(got, "x-auth") {
			t.Errorf("Vary = %q: it says what the client knows nothing of", got)
		}
	})
	run("browse", func(t *testing.T) {
		a := h.do("GET", "/cart?x=1&y=a%2Fb&z=%20+", "", append(navigation, "Cookie: theme=dark; "+cookie+"; lang=en")...)
		h.arrives(a, "mia", "session", token)
		if got := a.app.Target; got != "/cart?x=1&y=a%2Fb&z=%20+" {
			t.Errorf("the target is %s", got)
		}
		if got := a.app.Header["Cookie"]; len(got) != 1 || got[0] != "theme=dark; lang=en" {
			t.Errorf("Cookie = %q", got)
		}
		if got := a.Header["Cache-Control"]; len(got) != 1 || got[0] != "no-store" {
			t.Errorf("Cache-Control = %q", got)
		}
		if got := h.do("GET", "/cached", "", "Cookie: "+cookie).Header["Cache-Control"]; len(got) != 1 || got[0] != "max-age=60" {
			t.Errorf("Cache-Control = %q, want what the application says", got)
		}
		a = h.do("GET", "/cart", "", "Cookie: "+cookie)
		if got, ok := a.app.Header["Cookie"]; ok {
			t.Errorf("Cookie = %q, want none", got)
		}
		a = h.do("GET", "/refused", "", "Cookie: "+cookie) // the application's own 403
		h.arrives(a, "mia", "session", token)
		if a.StatusCode != 403 {
			t.Errorf("the application's 403 is %d", a.StatusCode)
		}
		for _, path := range []string{"/caf%C3%A9", "/a%20b", "/a+b", "/~mia/$x,y:z@w!(1)*'", "/%7Emia", "/a%2Cb", "/x/", "/"} {
			a := h.do("GET", path, "", "Cookie: "+cookie)
			h.arrives(a, "mia", "session", token)
			if a.app.Target != path {
				t.Errorf("%s came as %s", path, a.app.Target)
			}
		}
	})
	run("form", func(t *testing.T) {
		h.app.take()
		body := strings.Repeat("name=value&", 9000)
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
			a := h.do(method, "/orders", body, "Cookie: "+cookie, "Content-Type: application/x-www-form-urlencoded", "Origin: "+h.origin, "Sec-Fetch-Site: same-origin")
			h.arrives(a, "mia", "session", token)
			if got := h.app.take(); len(got) != 1 || got[0].Method != method || got[0].Body != body {
				t.Errorf("%s of %d bytes: the application got %.300v", method, len(body), got)
			}
		}
		h.app.take()
		h.refused(h.do("POST", "/orders", "item=tea", "Cookie: "+cookie, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"), 403)
		if h.pages.bodies > 0 {
			t.Errorf("%d questions had a body", h.pages.bodies)
		}
	})
	run("websocket", func(t *testing.T) {
		upgrade := func(credential string) (status int, said string) {
			c, err := net.Dial("tcp", h.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprintf(c, "GET /live HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n", h.host, credential)
			r := bufio.NewReader(c)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode == 101 {
				fmt.Fprint(c, "hello\n")
				said, _ = r.ReadString('\n')
			}
			return resp.StatusCode, said
		}
		if status, said := upgrade("Cookie: " + cookie + "\r\nOrigin: " + h.origin + "\r\n"); status != 101 || said != "you said hello\n" {
			t.Errorf("%d %q", status, said)
		}
		got := h.app.take()
		if len(got) != 1 || got[0].subject() != "mia" {
			t.Fatalf("the application got %+v", got)
		}
		if err := h.clean(got[0], token); err != nil {
			t.Error(err)
		}
		for credential, want := range map[string]int{"": 401, "Cookie: " + cookie + "\r\nOrigin: https://evil.example\r\n": 403} {
			if status, _ := upgrade(credential); status != want {
				t.Errorf("%q: %d, want %d", credential, status, want)
			}
		}
		if got := h.app.take(); len(got) > 0 {
			t.Errorf("the application got %+v", got)
		}
	})
	run("machines", func(t *testing.T) {
		key, err := h.Issue(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "robot", Scopes: []string{"admin", "read"}})
		if err != nil {
			t.Fatal(err)
		}
		a := h.do("GET", "/admin/x", "", "X-Api-Key: "+key.Token.Reveal())
		h.arrives(a, "robot", "api-key", key.Token.Reveal())
		if got := a.app.Header.Get("X-Auth-Scopes"); got != "admin read" {
			t.Errorf("X-Auth-Scopes = %q", got)
		}
		access, err := h.IssueAccess(t.Context(), session, afterlogin.AccessRequest{Scopes: []string{"read"}})
		if err != nil {
			t.Fatal(err)
		}
		a = h.do("GET", "/api", "", "Authorization: Bearer "+access.Token.Reveal())
		h.arrives(a, "mia", "access", access.Token.Reveal())
		if got, ok := a.app.Header["Authorization"]; ok {
			t.Errorf("Authorization = %q", got)
		}
		h.app.take()
		a = h.do("GET", "/admin/x", "", "Authorization: Bearer "+access.Token.Reveal())
		h.refused(a, 403)
		if got := a.Header.Get("Www-Authenticate"); !strings.Contains(got, "insufficient_scope") {
			t.Errorf("WWW-Authenticate = %q", got)
		}
		signed, err := h.IssueAccess(t.Context(), session, afterlogin.AccessRequest{JWT: true, Audience: []string{h.origin}})
		if err != nil {
			t.Fatal(err)
		}
		h.arrives(h.do("GET", "/api", "", "Authorization: Bearer "+signed.Token.Reveal()), "mia", "jwt", signed.Token.Reveal())
		h.app.take()
		other, err := h.IssueAccess(t.Context(), session, afterlogin.AccessRequest{JWT: true, Audience: []string{"https://other.example"}})
		if err != nil {
			t.Fatal(err)
		}
		h.refused(h.do("GET", "/api", "", "Authorization: Bearer "+other.Token.Reveal()), 401)
		// An Authorization that is not for afterlogin is the application's.
		a = h.do("GET", "/public/x", "", "Authorization: Basic dG9tOnNlY3JldA==")
		h.arrives(a, "", "none")
		if got := a.app.Header.Get("Authorization"); got != "Basic dG9tOnNlY3JldA==" {
			t.Errorf("Authorization = %q", got)
		}
	})
	run("large", func(t *testing.T) {
		big := "theme=" + strings.Repeat("x", 5000)
		a := h.do("GET", "/cart", "", "Cookie: "+big+"; "+cookie)
		h.arrives(a, "mia", "session", token)
		if got := a.app.Header.Get("Cookie"); got != big {
			t.Errorf("a cookie of %d bytes came with %d", len(big), len(got))
		}
	})
	run("pages", func(t *testing.T) {
		a := h.do("GET", "/.afterlogin/login?return_to=%2Fcart", "", "X-Auth-Subject: admin", "X-Forwarded-Host: evil.example", "X-Forwarded-For: 192.0.2.1", "Cookie: a=b")
		if a.StatusCode != 200 || !strings.Contains(a.body, `"/.afterlogin/login?return_to=%2Fcart"`) || !strings.Contains(a.body, h.origin) {
			t.Errorf("%d %s", a.StatusCode, a.body)
		}
		if strings.Contains(a.body, "admin") || strings.Contains(a.body, "evil") || strings.Contains(a.body, "192.0.2") || !strings.Contains(a.body, "a=b") {
			t.Errorf("afterlogin got %s", a.body)
		}
	})
	run("another host", func(t *testing.T) {
		old := h.host
		h.host = "evil.example"
		a := h.do("GET", "/public/x", "")
		h.host = old
		if a.app != nil || len(h.app.take()) > 0 {
			t.Errorf("another host's request came to the application: %+v", a.app)
		}
		if a.StatusCode != 421 {
			t.Errorf("another host's request: %d, want 421", a.StatusCode)
		}
	})
	run("kept alive", func(t *testing.T) {
		h.pages.mu.Lock()
		before := h.pages.conns
		h.pages.mu.Unlock()
		for range 60 {
			h.arrives(h.do("GET", "/cart", "", "Cookie: "+cookie), "mia", "session", token)
		}
		h.pages.mu.Lock()
		defer h.pages.mu.Unlock()
		if n := h.pages.conns - before; n > 20 {
			t.Errorf("60 requests made %d connections to afterlogin", n)
		}
	})
	run("renewal", func(t *testing.T) {
		h.clock.pass(16 * time.Minute)
		a := h.do("GET", "/cart?x=1", "", append(navigation, "Cookie: "+cookie)...)
		h.refused(a, 303)
		to := a.Header.Get("Location")
		if !strings.HasPrefix(to, h.origin+"/.afterlogin/renew?return_to=") {
			t.Fatalf("Location = %s", to)
		}
		a = h.do("GET", strings.TrimPrefix(to, h.origin), "", append(navigation, "Cookie: "+cookie)...)
		cookies := a.Cookies()
		if a.StatusCode != 303 || a.Header.Get("Location") != "/cart?x=1" || len(cookies) != 1 {
			t.Fatalf("%d %v", a.StatusCode, a.Header)
		}
		renewed := cookies[0].Name + "=" + cookies[0].Value
		if renewed == cookie {
			t.Error("the same token again")
		}
		h.arrives(h.do("GET", "/cart?x=1", "", append(navigation, "Cookie: "+renewed)...), "mia", "session", cookies[0].Value)
		cookie, token = renewed, cookies[0].Value
	})
	run("store down", func(t *testing.T) {
		tom, _ := h.signIn("tom")
		h.down(true)
		for _, a := range []answer{h.do("GET", "/cart", "", "Cookie: "+tom), h.do("POST", "/cart", "x=1", "Cookie: "+tom, "Origin: "+h.origin)} {
			h.refused(a, 503)
			if a.Header.Get("Retry-After") == "" {
				t.Errorf("no Retry-After: %v", a.Header)
			}
			if len(a.Cookies()) > 0 {
				t.Error("a cookie was set")
			}
		}
		h.down(false)
		h.arrives(h.do("GET", "/cart", "", "Cookie: "+tom), "tom", "session")
	})
	run("revoked", func(t *testing.T) {
		h.arrives(h.do("GET", "/cart", "", "Cookie: "+cookie), "mia", "session", token)
		h.app.take()
		if err := h.Revoke(t.Context(), session.ID, afterlogin.ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
		h.refused(h.do("GET", "/cart", "", "Cookie: "+cookie), 401)
		h.refused(h.do("GET", "/cart", "", append(navigation, "Cookie: "+cookie)...), 303)
	})
	run("afterlogin stopped", func(t *testing.T) {
		cookie, _ := h.signIn("mia")
		h.arrives(h.do("GET", "/cart", "", "Cookie: "+cookie), "mia", "session")
		h.app.take()
		h.pages.stop()
		for _, target := range []string{"/cart", "/public/x", "/.afterlogin/login"} {
			a := h.do("GET", target, "", "Cookie: "+cookie)
			if a.StatusCode < 500 {
				t.Errorf("%s: %d", target, a.StatusCode)
			}
			h.refused(a, a.StatusCode)
			if got := a.Header["Retry-After"]; len(got) != 1 || got[0] != "1" {
				t.Errorf("%s: Retry-After = %q", target, got)
			}
		}
		a := h.do("POST", "/cart", "a=1", "Cookie: "+cookie)
		if a.StatusCode < 500 {
			t.Errorf("POST: %d", a.StatusCode)
		}
		h.refused(a, a.StatusCode)
		h.pages.again()
		h.arrives(h.do("GET", "/cart", "", "Cookie: "+cookie), "mia", "session")
	})
}

// TestTLS has people use TLS, and HTTP/2 where the proxy offers it.
func TestTLS(t *testing.T) {
	for _, kind := range proxies {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			overTLS(t, kind)
		})
	}
}

func overTLS(t *testing.T, kind string) {
	h := start(t, kind, setup{rules: public, tls: true})
	defer func() {
		// Whoever answers, browsers are told to use TLS alone; what the application says of that stays.
		cookie, _ := h.signIn("mia")
		wants := func(what, want string, a answer) {
			t.Helper()
			if got := a.Header["Strict-Transport-Security"]; len(got) != 1 || got[0] != want {
				t.Errorf("Strict-Transport-Security of %s (%d) = %q, want %q", what, a.StatusCode, got, want)
			}
		}
		const years = "max-age=63072000"
		wants("a page", years, h.do("GET", "/.afterlogin/login", ""))
		wants("a refusal", years, h.do("GET", "/cart", ""))
		wants("a redirect", years, h.do("GET", "/cart", "", navigation...))
		wants("the application", years, h.do("GET", "/cart", "", "Cookie: "+cookie))
		wants("an application of its own mind", "max-age=1", h.do("GET", "/strict", "", "Cookie: "+cookie))
		wants("a bad request", years, h.do("GET", "/public/../cart", ""))
		h.pages.stop()
		wants("a page without afterlogin", years, h.do("GET", "/.afterlogin/login", ""))
		wants("a question without afterlogin", years, h.do("GET", "/cart", "", "Cookie: "+cookie))
		h.pages.again()
	}()
	a := h.do("GET", "/cart?x=1", "", navigation...)
	h.refused(a, 303)
	if got, want := a.Header.Get("Location"), h.origin+"/.afterlogin/login?return_to="+url.QueryEscape("/cart?x=1"); got != want {
		t.Errorf("Location = %s, want %s", got, want)
	}
	if want := map[string]int{"apache": 1}[kind]; a.ProtoMajor != 2-want {
		t.Errorf("%s", a.Proto)
	}
	cookie, _ := h.signIn("mia")
	forged := []string{"Cookie: theme=dark; " + cookie, "X-Auth-Subject: admin", "x_auth_subject: admin", "X-Auth_Assertion: eyJ", "X-Forwarded-Uri: /public/x", "X-Forwarded-For: 10.0.0.1", "X-Original-Url: /public/x"}
	for range 3 {
		a = h.do("POST", "/cart?y=%20z", "a=1&b=2", append(forged, "Content-Type: application/x-www-form-urlencoded", "Origin: "+h.origin)...)
		h.arrives(a, "mia", "session", strings.SplitN(cookie, "=", 2)[1])
		if a.app.Body != "a=1&b=2" || a.app.Target != "/cart?y=%20z" || a.app.Method != "POST" {
			t.Errorf("the application got %+v", a.app)
		}
	}
	h.app.take()
	h.refused(h.do("GET", "/cart", "", forged[1:]...), 401)
	h.refused(h.do("GET", "/public/../cart", "", forged...), 400)
}

// TestBroken has something be wrong between proxy and afterlogin: nothing passes, with or without a session.
func TestBroken(t *testing.T) {
	instead := func(pairs ...string) func(string) string {
		return func(config string) string { return strings.NewReplacer(pairs...).Replace(config) }
	}
	tests := []struct {
		proxy, name string
		weaken      func(string) string
	}{
		{"haproxy", "an error in the script", instead("local headers = {}", `error("broken")`)},
		{"haproxy", "a header that the answer lacks", instead("local identity = {", `local identity = { "X-Auth-Nonsense",`)},
		{"haproxy", "a header that is not set", instead("txn.http:req_set_header(name, said[name])\n\tend\n\t--", "end\n\t--")},
		{"haproxy", "no way to afterlogin", instead("dst = way", `dst = "abns@nowhere"`)},
		{"apache", "an error in the script", instead("local lines = {}", `error("broken")`)},
		{"apache", "no function", instead("function afterlogin(r)", "function another(r)")},
		{"apache", "no script", instead("local socket", "this is no Lua")},
		{"apache", "no luasocket", instead(`require("socket")`, `require("socket_that_is_not_there")`)},
		{"apache", "a header that the answer lacks", instead("local identity = {", `local identity = { "X-Auth-Nonsense",`)},
		{"apache", "an answer that is none", instead("GET /forward-auth HTTP/1.0", "nonsense")},
		{"nginx", "another path", instead("/forward-auth/nginx;", "/nowhere;")},
		{"nginx", "an answer that is a redirect", instead("/forward-auth/nginx;", "/forward-auth;")},
		{"caddy", "another path", instead("uri /forward-auth\n", "uri /nowhere\n")},
		{"haproxy", "another path", instead("127.0.0.1/forward-auth", "127.0.0.1/nowhere")},
		{"apache", "another path", instead("GET /forward-auth HTTP", "GET /nowhere HTTP")},
	}
	for _, tt := range tests {
		t.Run(tt.proxy+" "+tt.name, func(t *testing.T) {
			t.Parallel()
			h := start(t, tt.proxy, setup{rules: public, weaken: tt.weaken})
			cookie, _ := h.signIn("mia")
			for range 3 { // a script's state is the same the second time
				a := h.do("GET", "/cart", "", navigation...)
				h.refused(a, a.StatusCode)
				if a.StatusCode < 300 {
					t.Errorf("nobody: %d", a.StatusCode)
				}
			}
			if tt.name == "an answer that is a redirect" { // to whoever is signed in it is 200
				return
			}
			for range 3 {
				a := h.do("GET", "/cart", "", "Cookie: "+cookie, "X-Auth-Subject: admin")
				h.refused(a, a.StatusCode)
				if a.StatusCode < 400 {
					t.Errorf("mia: %d", a.StatusCode)
				}
			}
		})
	}
}
