package oauth

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// What the strict parser takes, net/url reads in the same way.
func FuzzForm(f *testing.F) {
	f.Add("grant_type=refresh_token&refresh_token=alr_x")
	f.Add("a=%41&b=+&resource=1&resource=2&c")
	f.Add("a=1&%61=2")
	f.Fuzz(func(t *testing.T, text string) {
		got, e := parseForm(text)
		if e != nil {
			return
		}
		want, err := url.ParseQuery(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		n := 0
		for name, values := range want {
			n += len(values)
			if len(values) > 1 && !mayRepeat(name) {
				t.Errorf("%q: %q stands there twice", text, name)
			}
			if got.get(name) != values[0] {
				t.Errorf("%q: %q is %q, want %q", text, name, got.get(name), values[0])
			}
		}
		if n != len(got) || n > maxParameters {
			t.Errorf("%q: %d parameters, want %d", text, len(got), n)
		}
		for _, p := range got {
			if !utf8.ValidString(p.value) || strings.ContainsAny(p.value, "\x00\r\n") {
				t.Errorf("%q: %q", text, p.value)
			}
		}
	})
}

// Credentials that clients encode as RFC 6749 says come out as they went in.
func FuzzBasic(f *testing.F) {
	f.Add("Basic am9iOnNlY3JldA==", "job", "secret")
	f.Add("basic :", "a:b", "c d")
	f.Fuzz(func(t *testing.T, line, id, secret string) {
		if p, ok := parseBasic(line); ok && (p.id == "" || p.proof == "") {
			t.Errorf("%q: nothing passes for something", line)
		}
		plain := func(s string) bool {
			return s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
		}
		line = "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
		if !plain(id) || !plain(secret) || len(line) > maxBasic {
			return
		}
		if p, ok := parseBasic(line); !ok || p.id != id || p.proof != secret {
			t.Errorf("%q, %q: %v", id, secret, ok)
		}
	})
}

// An authorization request never leads anywhere but to the page, the sign-in or the registered address.
func FuzzAuthorize(f *testing.F) {
	fx := newFixture(f, memstore.New()).usual()
	mia := fx.signIn("mia")
	f.Add(authorization("web", "https://web.example.com/cb").Encode())
	f.Add(authorization("app", "http://127.0.0.1:99/cb", "prompt", "none").Encode())
	f.Add("client_id=web&redirect_uri=https://evil.example")
	f.Fuzz(func(t *testing.T, query string) {
		for _, signedIn := range []bool{false, true} {
			r, err := http.NewRequest("GET", fx.url+AuthorizePath, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.URL.RawQuery = query
			r.RemoteAddr = "127.0.0.1:1"
			if signedIn {
				r.Header.Set("Cookie", httpauth.PlainCookieName+"="+mia.Token.Reveal())
			}
			w := &recorder{header: make(http.Header)}
			fx.s.ServeHTTP(w, r)
			leadsHome(t, fx, query, w)
		}
	})
}

// leadsHome checks where the answer to an authorization request leads.
func leadsHome(t *testing.T, fx *fixture, query string, w *recorder) {
	to := w.header.Get("Location")
	switch {
	case w.status >= 500 || w.status == 0:
		t.Errorf("%q: %d", query, w.status)
	case w.status == http.StatusSeeOther:
		ok := false
		for _, prefix := range []string{"/login?return_to=%2Foauth%2Fauthorize%3F", fx.url + "/callback?", "https://web.example.com/cb?", "http://127.0.0.1/cb?", "com.example.app:/cb?"} {
			ok = ok || strings.HasPrefix(to, prefix)
		}
		if u, err := url.Parse(to); !ok && (err != nil || u.Scheme != "http" || u.Hostname() != "127.0.0.1" || u.Path != "/cb" || u.User != nil) {
			t.Errorf("%q leads to %q", query, to)
		}
	case to != "":
		t.Errorf("%q: %d with a Location", query, w.status)
	}
}

// What is read from a JWT that nobody has verified is what encoding/json reads, or nothing, and little of it.
func FuzzUnverified(f *testing.F) {
	f.Add(`{"typ":"JWT"}`, `{"iss":"job","aud":"https://auth.example.com"}`)
	f.Add(`{}`, `{"iss":"job","aud":["a","b"]}`)
	f.Add(`{"typ":1}`, `{"aud":null,"aud":{}}`)
	f.Fuzz(func(t *testing.T, head, body string) {
		text := base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + base64.RawURLEncoding.EncodeToString([]byte(body)) + ".c2ln"
		for _, text := range []string{text, head + "." + body, "eyJ" + text} {
			_, iss, n := peek(text)
			list := claimed(text)
			if n < 0 || n > 1 || len(list) > 32 || iss != "" && len(text) > jwt.MaxSize {
				t.Errorf("%q: %d audiences, %d claimed", text, n, len(list))
			}
		}
		typ, iss, n := peek(text)
		var h struct{ Typ string }
		var c struct {
			Iss string
			Aud any
		}
		if json.Unmarshal([]byte(head), &h) != nil || json.Unmarshal([]byte(body), &c) != nil {
			return
		}
		if _, one := c.Aud.(string); len(text) <= jwt.MaxSize && (typ != h.Typ || iss != c.Iss || one != (n == 1)) {
			t.Errorf("%q: %q, %q, %d", text, typ, iss, n)
		}
	})
}

type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header { return r.header }
func (r *recorder) WriteHeader(s int) {
	if r.status == 0 {
		r.status = s
	}
}
func (r *recorder) Write(b []byte) (int, error) { r.WriteHeader(200); return len(b), nil }
