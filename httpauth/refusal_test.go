package httpauth_test

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

func TestCredentials(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	mia := s.issue(afterlogin.IssueRequest{Subject: "mia", Scopes: []string{"orders:read"}}).Token.Reveal()
	tom := s.issue(afterlogin.IssueRequest{Subject: "tom"}).Token.Reveal()
	key := s.issue(afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey, Scopes: []string{"orders:read", "x"}}).Token.Reveal()
	poor := s.issue(afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey}).Token.Reveal()
	elsewhere := s.issue(afterlogin.IssueRequest{Subject: "mia", Tenant: 7}).Token.Reveal()
	name := httpauth.CookieName
	var many strings.Builder
	for i := range 200 {
		fmt.Fprintf(&many, "c%d=%d; ", i, i)
	}
	forged := mia[:60] + "AAAA" + mia[64:]

	tests := []struct {
		name    string
		path    string
		headers []string
		status  int
		reason  string // of the problem, or a part of the body
		www     string // in WWW-Authenticate
	}{
		{"cookie", "/account", []string{"Cookie: " + name + "=" + mia}, 200, "mia", ""},
		{"cookie among others", "/account", []string{"Cookie: a=1; " + name + "=" + mia + "; b=2"}, 200, "mia", ""},
		{"cookie without blanks", "/account", []string{"Cookie: a=1;" + name + "=" + mia + ";b=2"}, 200, "mia", ""},
		{"200 cookies", "/account", []string{"Cookie: " + many.String() + name + "=" + mia}, 200, "mia", ""},
		{"in the second line", "/account", []string{"Cookie: a=1", "Cookie: " + name + "=" + mia}, 200, "mia", ""},
		{"two cookies", "/account", []string{"Cookie: " + name + "=" + mia + "; " + name + "=" + tom}, 401, "duplicate", "invalid_token"},
		{"the same twice", "/account", []string{"Cookie: " + name + "=" + mia + "; " + name + "=" + mia}, 401, "duplicate", "invalid_token"},
		{"two lines", "/account", []string{"Cookie: " + name + "=" + mia, "Cookie: a=1; " + name + "=x"}, 401, "duplicate", "invalid_token"},
		{"two cookies, optional", "/", []string{"Cookie: " + name + "=" + mia + "; " + name + "=" + tom}, 401, "duplicate", "invalid_token"},
		{"other spelling beside", "/account", []string{"Cookie: " + strings.ToLower(name) + "=" + tom + "; " + name + "=" + mia}, 200, "mia", ""},
		{"other spelling", "/account", []string{"Cookie: " + strings.ToLower(name) + "=" + tom}, 401, "no_credential", `Bearer realm="session"`},
		{"longer name", "/account", []string{"Cookie: x" + name + "=" + tom + "; " + name + "x=" + tom}, 401, "no_credential", ""},
		{"tab before the name", "/account", []string{"Cookie: a=1;\t" + name + "=" + tom}, 401, "no_credential", ""},
		{"inside a value", "/account", []string{"Cookie: a=1," + name + "=" + tom}, 401, "no_credential", ""},
		{"quoted", "/account", []string{"Cookie: " + name + "=\"" + mia + "\""}, 401, "malformed", "invalid_token"},
		{"padded", "/account", []string{"Cookie: " + name + "=" + mia + " ; a=1"}, 401, "malformed", "invalid_token"},
		{"blank before", "/account", []string{"Cookie: " + name + "= " + mia}, 401, "malformed", "invalid_token"},
		{"empty", "/account", []string{"Cookie: " + name + "="}, 401, "malformed", "invalid_token"},
		{"cut", "/account", []string{"Cookie: " + name + "=" + mia[:87]}, 401, "malformed", "invalid_token"},
		{"longer", "/account", []string{"Cookie: " + name + "=" + mia + "A"}, 401, "malformed", "invalid_token"},
		{"forged", "/account", []string{"Cookie: " + name + "=" + forged}, 401, "forged", "there is no such session"},
		{"an API key as a cookie", "/account", []string{"Cookie: " + name + "=" + key}, 401, "wrong_kind", "invalid_token"},
		{"an API key as a cookie for both", "/api", []string{"Cookie: " + name + "=" + key}, 401, "wrong_kind", "invalid_token"},
		{"refused, optional", "/", []string{"Cookie: " + name + "=junk"}, 200, "refused malformed", ""},
		{"another tenant", "/account", []string{"Cookie: " + name + "=" + elsewhere}, 401, "wrong_tenant", "invalid_token"},

		{"bearer", "/account", []string{"Authorization: Bearer " + mia}, 200, "mia", ""},
		{"bearer in capitals", "/account", []string{"Authorization: BEARER " + mia}, 200, "mia", ""},
		{"bearer, more blanks", "/account", []string{"Authorization: bearer   " + mia}, 200, "mia", ""},
		{"bearer, optional", "/", []string{"Authorization: Bearer " + mia}, 200, "mia", ""},
		{"bearer JWT", "/account", []string{"Authorization: Bearer eyJhbGciOiJub25lIn0.e30."}, 401, "malformed", "invalid_token"},
		{"bearer JWT, optional", "/", []string{"Authorization: Bearer eyJhbGciOiJub25lIn0.e30."}, 200, "refused malformed", ""},
		{"empty bearer", "/account", []string{"Authorization: Bearer"}, 400, "invalid_request", `error="invalid_request"`},
		{"empty bearer, optional", "/", []string{"Authorization: Bearer "}, 400, "invalid_request", `error="invalid_request"`},
		{"two tokens", "/account", []string{"Authorization: Bearer " + mia + " " + tom}, 400, "invalid_request", `error="invalid_request"`},
		{"two bearers", "/account", []string{"Authorization: Bearer " + mia, "Authorization: Bearer " + tom}, 400, "invalid_request", `error="invalid_request"`},
		{"bearer and Basic", "/account", []string{"Authorization: Basic eDp5", "Authorization: Bearer " + mia}, 400, "invalid_request", `error="invalid_request"`},
		{"bearer and cookie", "/account", []string{"Authorization: Bearer " + mia, "Cookie: " + name + "=" + mia}, 401, "duplicate", "two credentials"},
		{"Basic and cookie", "/account", []string{"Authorization: Basic eDp5", "Cookie: " + name + "=" + mia}, 200, "mia", ""},
		{"Basic alone", "/account", []string{"Authorization: Basic eDp5"}, 401, "no_credential", `Bearer realm="session"`},
		{"API key as a bearer", "/account", []string{"Authorization: Bearer " + key}, 401, "wrong_kind", "invalid_token"},
		{"API key where none is taken", "/account", []string{"X-API-Key: " + key}, 401, "no_credential", ""},

		{"key", "/machines", []string{"X-API-Key: " + key}, 200, "robot", ""},
		{"key as bearer", "/machines", []string{"Authorization: Bearer " + key}, 200, "robot", ""},
		{"key, cookie ignored", "/machines", []string{"X-API-Key: " + key, "Cookie: " + name + "=" + mia}, 200, "robot", ""},
		{"cookie for machines", "/machines", []string{"Cookie: " + name + "=" + mia}, 401, "no_credential", ""},
		{"session for machines", "/machines", []string{"Authorization: Bearer " + mia}, 401, "wrong_kind", ""},
		{"session as a key", "/api", []string{"X-API-Key: " + mia}, 401, "wrong_kind", ""},
		{"two keys", "/machines", []string{"X-API-Key: " + key, "X-API-Key: " + key}, 401, "duplicate", ""},
		{"key and bearer", "/machines", []string{"X-API-Key: " + key, "Authorization: Bearer " + key}, 401, "duplicate", ""},
		{"key and cookie", "/api", []string{"X-API-Key: " + key, "Cookie: " + name + "=" + mia}, 401, "duplicate", ""},
		{"key with the scope", "/api", []string{"X-API-Key: " + key}, 200, "robot", ""},
		{"cookie with the scope", "/api", []string{"Cookie: " + name + "=" + mia}, 200, "mia", ""},
		{"key without the scope", "/api", []string{"X-API-Key: " + poor}, 403, "scope", `error="insufficient_scope", error_description="the token does not have the scope that is needed", scope="orders:read"`},
		{"cookie without the scope", "/api", []string{"Cookie: " + name + "=" + tom}, 403, "scope", "insufficient_scope"},

		{"nothing", "/account", nil, 401, "no_credential", `Bearer realm="session"`},
		{"large cookies", "/account", []string{"Cookie: " + strings.Repeat("a=1; ", 5000)}, 431, "cookies_too_large", ""},
		{"large cookies, optional", "/", []string{"Cookie: " + name + "=" + mia + "; " + strings.Repeat("a=1; ", 5000)}, 431, "cookies_too_large", ""},
		{"3100 cookies", "/account", []string{"Cookie: " + strings.Repeat("a=;", 3100) + name + "=" + mia}, 200, "mia", ""},
		{"many lines", "/account", append(make([]string, 0), lines(9000)...), 431, "cookies_too_large", ""},
		{"100 KiB value", "/account", []string{"Cookie: " + name + "=" + strings.Repeat("A", 100<<10)}, 431, "cookies_too_large", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := len(s.saw(afterlogin.EventDuplicate))
			got := s.do(s.anybody(), "GET", tt.path, "", append(tt.headers, "Accept: application/json")...)
			if got.StatusCode != tt.status {
				t.Fatalf("got %s %q, want %d", got.Status, got.body, tt.status)
			}
			if tt.status == 200 {
				s.want(got, 200, tt.reason)
			} else if reason := problemOf(t, got); reason != tt.reason {
				t.Errorf("reason %q, want %q", reason, tt.reason)
			}
			www := got.Header.Get("WWW-Authenticate")
			if !strings.Contains(www, tt.www) || got.StatusCode == 401 && !strings.HasPrefix(www, `Bearer realm="session"`) {
				t.Errorf("WWW-Authenticate: %q, want %q", www, tt.www)
			}
			if len(got.Header["Set-Cookie"]) != 0 {
				t.Errorf("sets %v", got.Header["Set-Cookie"])
			}
			if want := tt.reason == "duplicate"; (len(s.saw(afterlogin.EventDuplicate)) > before) != want {
				t.Errorf("event: %v, want %v", !want, want)
			}
			if tt.status != 200 && got.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("Cache-Control: %q", got.Header.Get("Cache-Control"))
			}
		})
	}
	if got, err := s.try(s.anybody(), "GET", "/account", "", "Cookie: "+name+"="+strings.Repeat("A", 2<<20)); err == nil && got.StatusCode != 431 {
		t.Errorf("2 MiB of cookies: %s, want 431 by the server", got.Status)
	}
	for _, secret := range []string{mia, tom, key, poor} {
		if strings.Contains(s.log.String(), secret) {
			t.Error("a token is in the log")
		}
	}
}

func lines(n int) (headers []string) {
	for range n {
		headers = append(headers, "Cookie: ")
	}
	return headers
}

func TestPlainTextAnswer(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	got := s.do(s.anybody(), "GET", "/account", "")
	if h := got.Header; got.body != "You are not signed in.\n" || h.Get("Content-Type") != "text/plain; charset=utf-8" || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%q %v", got.body, h)
	}
	if got := s.do(s.anybody(), "HEAD", "/account", ""); got.StatusCode != 401 || got.body != "" {
		t.Errorf("HEAD: %d %q", got.StatusCode, got.body)
	}
}

func TestRefuseOption(t *testing.T) {
	s := open(t, httpauth.Options{Refuse: func(w http.ResponseWriter, r *http.Request, err error) {
		refusal, _ := httpauth.RefusalFrom(r.Context())
		w.WriteHeader(httpauth.Status(err))
		fmt.Fprintf(w, "our own page: %v %v", refusal, err)
	}}, nil)
	got := s.do(s.anybody(), "GET", "/account", "", s.cookie("junk"))
	s.want(got, 401, "our own page: invalid token: malformed")
	if got.Header.Get("WWW-Authenticate") == "" || got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Vary") == "" {
		t.Errorf("headers: %v", got.Header)
	}
}

func TestTokenInURL(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	encode := func(s string) (out string) {
		for i := range len(s) {
			out += fmt.Sprintf("%%%02x", s[i])
		}
		return out
	}
	tests := []struct {
		name  string
		query func(token string) string
	}{
		{"plain", func(t string) string { return "token=" + t }},
		{"among others", func(t string) string { return "a=1&session=" + t + "&b=2" }},
		{"no name", func(t string) string { return t }},
		{"as a name", func(t string) string { return t + "=1" }},
		{"escaped", func(t string) string { return "x=" + encode(t) }},
		{"one letter escaped", func(t string) string { return "x=%61" + t[1:] }},
		{"beside a bad escape", func(t string) string { return "y=%zz&x=" + t }},
		{"inside return_to", func(t string) string { return "return_to=" + url.QueryEscape("/x?token="+t) }},
		{"behind a semicolon", func(t string) string { return "a=1;x=" + t }},
		{"with a scheme", func(t string) string { return "authorization=Bearer+" + t }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{"/", "/account"} {
				in := s.issue(afterlogin.IssueRequest{Subject: "mia"})
				token := in.Token.Reveal()
				events := len(s.saw(afterlogin.EventInURL))
				got := s.do(s.anybody(), "GET", path+"?"+tt.query(token), "", s.cookie(token))
				s.want(got, 400, "where others can read it")
				if h := got.Header; h.Get("Cache-Control") != "no-store" || h.Get("Referrer-Policy") != "no-referrer" || strings.Contains(got.body+fmt.Sprint(h), token[10:]) {
					t.Errorf("headers: %v", h)
				}
				if _, why := s.check(token); why != afterlogin.ReasonRevoked {
					t.Errorf("the session: %q, want revoked", why)
				}
				seen := s.saw(afterlogin.EventInURL)
				if len(seen) != events+1 || seen[events].Session != in.Session.ID || strings.Contains(fmt.Sprint(seen), token[10:]) {
					t.Errorf("events: %v", seen)
				}
				if strings.Contains(s.log.String(), token[10:]) {
					t.Error("the token is in the log")
				}
			}
		})
	}
	in := s.issue(afterlogin.IssueRequest{Subject: "mia"}).Token.Reveal()
	forged := in[:60] + "AAAA" + in[64:]
	s.want(s.do(s.anybody(), "GET", "/?a="+forged, ""), 400, "")
	if _, why := s.check(in); why != "" {
		t.Errorf("a forged copy in a URL ended the session: %s", why)
	}
	for _, harmless := range []string{"x=" + in[:87], "x=" + in + "A", "ticket=alt_" + in[4:], "code=alc_" + in[4:], "q=" + strings.Repeat("als_", 300), "x=" + strings.Repeat("A", 88)} {
		s.want(s.do(s.anybody(), "GET", "/?"+harmless, ""), 200, "nobody")
	}
	for _, misplaced := range []string{"x=alt_" + in[4:], "ticket=alt_" + in[4:] + "&ticket=alt_" + in[4:], "ticket=" + in} {
		s.want(s.do(s.anybody(), "GET", "/?"+misplaced, ""), 400, "where others can read it")
	}
	s.want(s.do(s.anybody(), "GET", "/account?ticket=alt_"+in[4:], ""), 400, "where others can read it")
	in = s.issue(afterlogin.IssueRequest{Subject: "mia"}).Token.Reveal()
	s.store.fault.Store(readsFail)
	s.want(s.do(s.anybody(), "GET", "/?x="+in, ""), 503, "")
}

func TestCSRF(t *testing.T) {
	s := open(t, httpauth.Options{TrustedOrigins: []string{"https://friend.example"}}, nil)
	s.mux.Handle("POST /echo", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "form %s, body %d %v", r.PostForm.Get("item"), len(b), err)
	})))
	s.mux.Handle("POST /upload", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, _, err := r.FormFile("file")
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(w, f.(*os.File).Name())
	})))
	c := s.signedIn("mia")
	token := s.csrf(c)
	other := s.csrf(s.signedIn("mia"))
	big := "item=" + strings.Repeat("x", 1<<20)
	const form, js = "Content-Type: application/x-www-form-urlencoded", "Content-Type: application/json"
	tests := []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		text                     string
	}{
		{"field", "POST", "/echo", "item=tea&csrf_token=" + token, nil, 200, "form tea, body 0"},
		{"header", "POST", "/echo", "item=tea", []string{"X-CSRF-Token: " + token}, 200, "form tea"},
		{"header beside JSON", "POST", "/echo", `{"item":1}`, []string{js, "X-CSRF-Token: " + token}, 200, "body 10"},
		{"none", "POST", "/echo", "item=tea", nil, 403, "CSRF"},
		{"no body", "POST", "/echo", "", nil, 403, "CSRF"},
		{"another session's", "POST", "/echo", "csrf_token=" + other, nil, 403, "CSRF"},
		{"another session's, header", "POST", "/echo", "", []string{"X-CSRF-Token: " + other}, 403, "CSRF"},
		{"wrong header, right field", "POST", "/echo", "csrf_token=" + token, []string{"X-CSRF-Token: " + other}, 403, "CSRF"},
		{"two headers", "POST", "/echo", "", []string{"X-CSRF-Token: " + token, "X-CSRF-Token: " + other}, 403, "CSRF"},
		{"two fields", "POST", "/echo", "csrf_token=" + token + "&csrf_token=" + other, nil, 403, "CSRF"},
		{"in the address", "POST", "/echo?csrf_token=" + token, "item=tea", nil, 403, "CSRF"},
		{"text/plain", "POST", "/echo", "csrf_token=" + token, []string{"Content-Type: text/plain"}, 403, "CSRF"},
		{"JSON", "POST", "/echo", `{"csrf_token":"` + token + `"}`, []string{js}, 403, "csrf_token"},
		{"put", "PUT", "/account", "csrf_token=" + token, nil, 200, "mia"},
		{"delete", "DELETE", "/account", "", nil, 403, "CSRF"},
		{"delete with the field", "DELETE", "/account", "csrf_token=" + token, nil, 403, "CSRF"},
		{"delete with the header", "DELETE", "/account", "", []string{"X-CSRF-Token: " + token}, 200, "mia"},
		{"unknown method", "FROB", "/account", "", nil, 403, "CSRF"},
		{"options", "OPTIONS", "/account", "", nil, 200, "mia"},
		{"a form of 1 MiB", "POST", "/echo", big + "&csrf_token=" + token, nil, 413, "1 MiB"},
		{"and with the header", "POST", "/echo", big, []string{"X-CSRF-Token: " + token}, 200, ""},
		{"not URL-encoded", "POST", "/echo", "item=%zz&csrf_token=" + token, nil, 400, "URL-encoded"},
		{"same origin", "POST", "/echo", "csrf_token=" + token, []string{"Sec-Fetch-Site: same-origin"}, 200, "form"},
		{"same site", "POST", "/echo", "csrf_token=" + token, []string{"Sec-Fetch-Site: same-site"}, 403, "another site"},
		{"cross site", "POST", "/echo", "csrf_token=" + token, []string{"Sec-Fetch-Site: cross-site"}, 403, "another site"},
		{"old browser", "POST", "/echo", "csrf_token=" + token, []string{"Origin: https://evil.example"}, 403, "another site"},
		{"old browser, own page", "POST", "/echo", "csrf_token=" + token, []string{"Origin: " + s.URL}, 200, "form"},
		{"null origin", "POST", "/echo", "csrf_token=" + token, []string{"Origin: null"}, 403, "another site"},
		{"trusted", "POST", "/echo", "csrf_token=" + token, []string{"Sec-Fetch-Site: cross-site", "Origin: https://friend.example"}, 200, "form"},
		{"trusted without the token", "POST", "/echo", "item=tea", []string{"Sec-Fetch-Site: cross-site", "Origin: https://friend.example"}, 403, "CSRF"},
		{"cross-site GET", "GET", "/account", "", []string{"Sec-Fetch-Site: cross-site"}, 200, "mia"},
		{"cross-site WebSocket", "GET", "/account", "", []string{"Upgrade: websocket", "Origin: https://evil.example"}, 403, "another site"},
		{"own WebSocket", "GET", "/account", "", []string{"Upgrade: websocket", "Origin: " + s.URL}, 200, "mia"},
		{"cross-site sign-in", "POST", "/sign-in", "name=tom", []string{"Sec-Fetch-Site: cross-site"}, 403, "another site"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			headers := tt.headers
			if tt.body != "" && !strings.Contains(strings.Join(headers, "\n"), "Content-Type") {
				headers = append(headers, form)
			}
			r, _ := http.NewRequestWithContext(t.Context(), tt.method, s.URL+tt.path, strings.NewReader(tt.body))
			for _, h := range headers {
				k, v, _ := strings.Cut(h, ": ")
				r.Header.Add(k, v)
			}
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			s.want(answer{resp, string(b)}, tt.status, tt.text)
		})
	}
	t.Run("cross-site sign-in without a session", func(t *testing.T) {
		s.want(s.do(s.anybody(), "POST", "/sign-in", "name=tom", "Sec-Fetch-Site: cross-site"), 403, "another site")
	})
	t.Run("bearer", func(t *testing.T) {
		s.want(s.do(s.anybody(), "POST", "/account", "", "Sec-Fetch-Site: cross-site", "Authorization: Bearer "+s.held(c)), 200, "mia")
	})
	t.Run("renewed", func(t *testing.T) {
		s.pass(16 * time.Minute)
		if s.csrf(c) != token {
			t.Error("the token changed with a renewal")
		}
		s.want(s.do(c, "POST", "/echo", "csrf_token="+token), 200, "form")
	})
	t.Run("multipart", func(t *testing.T) {
		var b bytes.Buffer
		m := multipart.NewWriter(&b)
		f, _ := m.CreateFormFile("file", "big")
		f.Write(make([]byte, 40<<20)) // more than is kept in memory
		m.WriteField("csrf_token", token)
		m.Close()
		body := b.String()
		for _, tt := range []struct {
			header string
			status int
		}{{"X-Other: 1", 403}, {"X-CSRF-Token: " + token, 200}} {
			r, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/upload", strings.NewReader(body))
			r.Header.Set("Content-Type", m.FormDataContentType())
			k, v, _ := strings.Cut(tt.header, ": ")
			r.Header.Set(k, v)
			resp, err := c.Do(r)
			if err != nil {
				if tt.status == 403 { // the server hung up on what it does not read
					continue
				}
				t.Fatal(err)
			}
			name, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != tt.status {
				t.Fatalf("%s: %s", tt.header, resp.Status)
			}
			if tt.status == 200 {
				s.Server.Close() // waits for the handler to be cleaned up after
				if _, err := os.Stat(string(name)); !os.IsNotExist(err) {
					t.Errorf("the uploaded file %s was left behind (%v)", name, err)
				}
			}
		}
	})
}

func TestStoreTrouble(t *testing.T) {
	fates := map[string]int32{"reads fail": readsFail, "writes fail": writesFail, "writes unsure": writesUnsure}
	for name, fault := range fates {
		for _, tt := range []struct {
			method, path, form string
			jar, due           bool
			writesOnly         bool // does not touch the store, or only reads: fine while just writes fail
		}{
			{"GET", "/account", "", true, false, true},
			{"GET", "/", "", true, false, true},
			{"GET", "/account", "", true, true, true}, // renewal fails: the answer goes out without it
			{"GET", "/cart", "", true, false, true},
			{"POST", "/cart", "item=tea&csrf_token=%", true, false, false},
			{"POST", "/cart", "item=tea", false, false, false},
			{"POST", "/sign-in", "name=mia", false, false, false},
			{"POST", "/sign-in", "name=mia&csrf_token=%", true, false, false},
			{"POST", "/sign-out", "csrf_token=%", true, false, false},
			{"POST", "/step-up", "csrf_token=%", true, false, false},
		} {
			t.Run(fmt.Sprintf("%s %s %s jar=%v due=%v", name, tt.method, tt.path, tt.jar, tt.due), func(t *testing.T) {
				s := open(t, httpauth.Options{}, nil)
				c := s.browser()
				var held, token string
				if tt.jar {
					c = s.signedIn("mia")
					held, token = s.held(c), s.csrf(c)
				}
				if tt.due {
					s.pass(16 * time.Minute)
				}
				s.dropCache()
				s.store.fault.Store(fault)
				got := s.do(c, tt.method, tt.path, strings.ReplaceAll(tt.form, "%", token))
				switch {
				case tt.writesOnly && fault != readsFail:
					if got.StatusCode != 200 {
						t.Errorf("got %s %q", got.Status, got.body)
					}
				default:
					if got.StatusCode != 503 || got.Header.Get("Retry-After") != "1" || strings.Contains(got.body, "fire") {
						t.Errorf("got %s %v %q, want 503 with Retry-After", got.Status, got.Header, got.body)
					}
					if got.Header.Get("Cache-Control") != "no-store" {
						t.Errorf("Cache-Control: %q", got.Header.Get("Cache-Control"))
					}
				}
				if len(got.Header["Set-Cookie"]) != 0 || tt.jar && s.held(c) != held {
					t.Errorf("sets %v", got.Header["Set-Cookie"])
				}
				if got.StatusCode == 503 && strings.Count(s.log.String(), "level=ERROR") != 1 {
					t.Errorf("logged:\n%s\nwant one error", s.log.String())
				}
				s.store.fault.Store(healthy)
				if !tt.jar {
					return
				}
				// Whatever happened, it was not taken for theft.
				if _, why := s.check(held); why == afterlogin.ReasonReused {
					t.Error("the session was ended for reuse")
				}
			})
		}
	}
}

// dropCache makes the authority ask the store about every session: a change of each drops it from the cache.
func (s *shop) dropCache() {
	s.Helper()
	for in, err := range s.a.Sessions(s.Context(), afterlogin.Query{}) {
		for range 2 { // the first makes the record of the data, and what is only made is told to nobody
			if err == nil {
				err = s.a.UpdateData(s.Context(), in, func(d *afterlogin.Data) error { return d.Set("touched", true) })
			}
		}
		if err != nil {
			s.Fatal(err)
		}
	}
}

func TestPlainLoopback(t *testing.T) {
	s := open(t, httpauth.Options{PlainLoopback: true}, nil)
	c := s.signedIn("mia")
	s.want(s.do(c, "GET", "/account", ""), 200, "mia")
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	for host, want := range map[string]int{
		"localhost": 200, "localhost" + port: 200, "127.0.0.1" + port: 200, "127.1.2.3": 200, "[::1]" + port: 200, "[::1]": 200, "shop.localhost" + port: 200,
		"shop.example": 421, "shop.example" + port: 421, "localhost.shop.example": 421, "127.0.0.1.shop.example": 421, "10.0.0.1": 421, "notlocalhost": 421, "0.0.0.0": 421,
	} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/", nil)
		r.Host = host
		resp, err := s.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || want == 421 && !strings.Contains(string(b), "PlainLoopback") {
			t.Errorf("Host %s: %s %q, want %d", host, resp.Status, b, want)
		}
	}
	for _, h := range []string{"Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: shop.example"} {
		s.want(s.do(c, "GET", "/", "", h), 421, "")
	}
	// A request that did not come over a socket of this machine, as far as anybody can tell.
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "http://localhost/", nil)
	s.mux.ServeHTTP(w, r)
	if w.Code != 421 {
		t.Errorf("without a local address: %d, want 421", w.Code)
	}
}

func TestSignInRedirect(t *testing.T) {
	s := open(t, httpauth.Options{SignInURL: "/sign-in"}, nil)
	s.mux.Handle("/orders/", http.StripPrefix("/orders", s.auth.Require(http.HandlerFunc(s.home))))
	s.mux.Handle("GET /sign-in", s.auth.Require(http.HandlerFunc(s.home))) // a mistake
	const html = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"
	tests := []struct {
		method, path string
		headers      []string
		want         string // Location; or empty: not redirected
	}{
		{"GET", "/account", []string{html}, "/sign-in?return_to=%2Faccount"},
		{"HEAD", "/account", []string{html}, "/sign-in?return_to=%2Faccount"},
		{"GET", "/account?page=2&q=a%20b", []string{html, "Sec-Fetch-Mode: navigate"}, "/sign-in?return_to=%2Faccount%3Fpage%3D2%26q%3Da%2520b"},
		{"GET", "/orders/7", []string{html}, "/sign-in?return_to=%2Forders%2F7"},
		{"GET", "/account", []string{html, s.cookie("junk")}, "/sign-in?return_to=%2Faccount"},
		{"GET", "/account", []string{html, "Sec-Fetch-Mode: cors"}, ""},
		{"GET", "/account", []string{"Accept: application/json"}, ""},
		{"GET", "/account", nil, ""},
		{"POST", "/account", []string{html}, ""},
		{"GET", "/account", []string{html, "Authorization: Bearer junk"}, ""},
		{"GET", "/account", []string{html, "Cookie: " + s.name() + "=a; " + s.name() + "=b"}, ""},
		{"GET", "/sign-in?x=1", []string{html}, ""},
	}
	for _, tt := range tests {
		got := s.do(s.anybody(), tt.method, tt.path, "", tt.headers...)
		want := 401
		if tt.want != "" {
			want = 303
		}
		if got.StatusCode != want || got.Header.Get("Location") != tt.want || got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s %v: %d to %q, want %d to %q", tt.method, tt.path, tt.headers, got.StatusCode, got.Header.Get("Location"), want, tt.want)
		}
	}
	c := s.signedIn("mia")
	s.pass(6 * time.Minute)
	if got := s.do(c, "GET", "/danger", "", html); got.Header.Get("Location") != "/sign-in?return_to=%2Fdanger&reason=stale_auth" {
		t.Errorf("stale: %d to %q", got.StatusCode, got.Header.Get("Location"))
	}
	s.dropCache()
	s.store.fault.Store(readsFail)
	if got := s.do(c, "GET", "/account", "", html); got.StatusCode != 503 {
		t.Errorf("store down: %d, want 503 and no redirect", got.StatusCode)
	}
}

func TestBadOptions(t *testing.T) {
	a := open(t, httpauth.Options{}, nil).a
	for text, o := range map[string]httpauth.Options{
		"does not begin with __Host-": {CookieName: "session_id"},
		"leave out the prefix":        {CookieName: "__Host-x", PlainLoopback: true},
		"characters":                  {CookieName: "__Host-a b"},
		"characters ":                 {CookieName: "__Host-a;b"},
		"at most 100":                 {CookieName: "__Host-" + strings.Repeat("a", 100)},
		"HTTPS only":                  {SameSite: http.SameSiteNoneMode, PlainLoopback: true},
		"none of Lax":                 {SameSite: 77},
		"not an origin":               {TrustedOrigins: []string{"friend.example"}},
		"neither a path":              {SignInURL: "http://elsewhere.example/"},
		"neither a path ":             {SignInURL: "//elsewhere.example/"},
		"neither a path  ":            {SignInURL: "sign-in"},
		"fragment":                    {SignInURL: "/sign-in#here"},
		"executionContexts":           {ClearSiteData: []string{"everything"}},
	} {
		_, err := httpauth.New(a, o)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(text)) {
			t.Errorf("%+v: %v, want %q", o, err, text)
		}
	}
	if _, err := httpauth.New(nil, httpauth.Options{}); err == nil {
		t.Error("no authority, no error")
	}
	if _, err := httpauth.New(a, httpauth.Options{SignInURL: "https://id.example/sign-in?app=shop", SameSite: http.SameSiteDefaultMode}); err != nil {
		t.Error(err)
	}
	for name, f := range map[string]func(){
		"scope":  func() { httpauth.Scopes("a b") },
		"quote":  func() { httpauth.Scopes(`a"`) },
		"age":    func() { httpauth.MaxAge(0) },
		"kinds":  func() { httpauth.Kinds() },
		"scope2": func() { httpauth.Scopes("") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestOutside(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", nil)
	_, signIn := s.auth.SignIn(w, r, httpauth.SignIn{Subject: "mia"})
	_, stepUp := s.auth.StepUp(w, r, afterlogin.Authentication{})
	_, data := s.auth.Data(r)
	update := s.auth.UpdateData(w, r, func(*afterlogin.Data) error { return nil })
	for i, err := range []error{signIn, stepUp, data, update, s.auth.SignOut(w, r)} {
		if err == nil || !strings.Contains(err.Error(), "Optional or Require") {
			t.Errorf("%d: %v", i, err)
		}
	}
	if _, ok := httpauth.Session(t.Context()); ok || s.auth.CSRFToken(r) != "" {
		t.Error("a session out of nowhere")
	}
	if _, ok := httpauth.RefusalFrom(t.Context()); ok {
		t.Error("a refusal out of nowhere")
	}
}

func TestSignInMistakes(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	s.mux.Handle("POST /mistakes", s.auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, in := range []httpauth.SignIn{
			{Data: nil}, {Subject: "mia", Policy: "nope"}, {Subject: "mia", Remember: true, Policy: afterlogin.PolicyBrowser},
		} {
			if _, err := s.auth.SignIn(w, r, in); err == nil {
				t.Errorf("%+v: no error", in)
			} else if httpauth.Status(err) != 500 {
				t.Errorf("%+v: %d", in, httpauth.Status(err))
			}
		}
	})))
	if got := s.do(s.anybody(), "POST", "/mistakes", ""); len(got.cookies()) != 0 {
		t.Error("sets a cookie")
	}
}

// Where a request comes from decides who may get a renewed token again, and is shown in lists. No header is believed.
func TestClientAddr(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	c := s.browser()
	s.do(c, "POST", "/sign-in", "name=mia", "X-Forwarded-For: 192.0.2.7", "User-Agent: Test/1")
	in, _ := s.check(s.held(c))
	if in == nil || !in.Device.Addr.IsLoopback() || in.Device.UserAgent != "Test/1" {
		t.Errorf("%+v", in)
	}
	s = open(t, httpauth.Options{ClientAddr: func(r *http.Request) netip.Addr { return netip.MustParseAddr("192.0.2.7") }}, nil)
	c = s.signedIn("mia")
	if in, _ = s.check(s.held(c)); in == nil || in.Device.Addr.String() != "192.0.2.7" {
		t.Errorf("%+v", in)
	}
}

// Over plain HTTP to another machine browsers drop the cookie silently; the operator is told, once.
func TestPlainWarning(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	for range 2 {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "http://shop.example/sign-in", strings.NewReader("name=mia"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		s.mux.ServeHTTP(w, r)
		if w.Code != 200 || len(w.Result().Cookies()) != 1 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if n := strings.Count(s.log.String(), "plain HTTP"); n != 1 {
		t.Errorf("warned %d times, want once", n)
	}
}
