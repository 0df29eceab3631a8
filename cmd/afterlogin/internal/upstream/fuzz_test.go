package upstream

import (
	"encoding/base64"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/httpauth"
)

// FuzzCallback: whatever the answer of a provider looks like, without what this browser began nobody is signed in, and
// none of it is repeated.
func FuzzCallback(f *testing.F) {
	x := newFixture(f)
	site := x.sites[strings.TrimPrefix(x.url, "http://")]
	p := x.u.providers["example"]
	state := randomText()
	value, err := x.u.seal.seal(&attempt{
		Provider: "example", Origin: site.Origin, Base: site.Base, State: state, Nonce: "n", Verifier: "v", Began: x.clock.Now().Unix(),
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, q := range []string{
		"code=a&state=" + state, "error=access_denied&state=" + state, "code=a&code=b&state=" + state, "code=%00&state=x", "state=" + state,
		"code=a&state=" + state + "&iss=https%3A%2F%2Fevil.example", "code=a;state=b", "code=%zz", "", "&&&===", "error=%3Cscript%3E&state=" + state,
	} {
		f.Add(q, CookiePrefix+state[:8]+"="+value)
		f.Add(q, "a=b")
	}
	f.Fuzz(func(t *testing.T, query, cookie string) {
		ans, err := parseAnswer(query)
		if err == nil && (ans.state == "" || ans.code != "" && ans.fault != "" || ans.code == "" && ans.fault == "" || len(ans.code) > maxCode) {
			t.Errorf("%q is taken for %+v", query, ans)
		}
		r := httptest.NewRequest("GET", x.url+"/.afterlogin/oidc/example/callback", nil)
		r.URL.RawQuery = query
		r.Header.Set("Cookie", cookie)
		a, err := x.u.find(r, site, p, ans.state)
		if err == nil && a.State != ans.state {
			t.Errorf("%q finds %q", ans.state, a.State)
		}
		w := httptest.NewRecorder()
		x.u.callback(w, r, site, p)
		if w.Code < 400 {
			t.Errorf("%q: %d", query, w.Code)
		}
		for _, c := range w.Result().Cookies() {
			if c.Name == httpauth.CookieName && c.MaxAge >= 0 {
				t.Errorf("%q: signed in", query)
			}
		}
		if ans.fault != "" && len(ans.fault) > 12 && faults[ans.fault].code == "" && strings.Contains(w.Body.String(), ans.fault) {
			t.Errorf("%q is repeated", ans.fault)
		}
	})
}

// FuzzStart: whatever is asked for, what comes back from the cookie is what was kept, and is within bounds.
func FuzzStart(f *testing.F) {
	x := newFixture(f)
	site := x.sites[strings.TrimPrefix(x.url, "http://")]
	p := x.u.providers["example"]
	for _, q := range []string{"return_to=/a", "return_to=//a&remember=1", "max_age=0&acr_values=a+b", "max_age=-1", "return_to=%0a", "a=1&a=2"} {
		f.Add(q)
	}
	now := x.clock.Now()
	f.Fuzz(func(t *testing.T, query string) {
		a, err := p.begin(site, query, now)
		if err != nil {
			return
		}
		if strings.ContainsAny(a.ReturnTo, "\r\n\x00") || len(a.ReturnTo) > maxReturn || len(a.ACR) > maxACR || a.MaxAge != nil && *a.MaxAge < 0 {
			t.Fatalf("%q: %+v", query, a)
		}
		v, err := x.u.seal.seal(a)
		if err != nil {
			return
		}
		got, err := x.u.seal.open(cookieOf(a.State), v)
		if err != nil || got.ReturnTo != a.ReturnTo || got.over(now) || len(v) > maxCookie {
			t.Fatalf("%q: %+v, %v", query, got, err)
		}
		u, err := url.Parse(x.u.authorizationURL(p, &metadata{authorization: "https://login.example.com/a?b=c", claims: true}, a))
		if err != nil || u.Host != "login.example.com" || u.Query().Get("b") != "c" || len(u.Query()["state"]) != 1 || u.Query().Get("code_challenge_method") != "S256" {
			t.Fatalf("%q: %v, %v", query, u, err)
		}
	})
}

// FuzzLogoutToken: a token whose signature nobody checked, and one that the provider did sign, of any type and with any
// payload. What is taken for a logout token names whom to sign out, and is no ID token.
func FuzzLogoutToken(f *testing.F) {
	x := newFixture(f)
	p := x.u.providers["example"]
	m, err := p.metadata.get(f.Context(), nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", x.op.logoutToken(nil), x.op.logoutToken(naming("", "s1")), jsonForm(x.op.logoutToken(nil)), "a.b.c", "..", "e30.e30.", "logout_token=a&logout_token=b"} {
		f.Add(s, "logout+jwt", `{"iss":"x","aud":"client","iat":1,"exp":2,"jti":"1","sub":"a","events":{"`+logoutEvent+`":{}}}`)
	}
	f.Fuzz(func(t *testing.T, raw, typ, payload string) {
		parseLogoutForm(raw)
		if proof, err := x.u.prove(t.Context(), p, m, raw); err == nil {
			if _, err := x.u.examineLogout(t.Context(), p, m, proof); err == nil && strings.Count(raw, ".") != 2 {
				t.Errorf("%q is taken", raw)
			}
		}
		o, err := parseObject([]byte(payload))
		if err != nil {
			return
		}
		claims := make(map[string]any, len(o)+4)
		for k, v := range o {
			claims[k] = v
		}
		now := x.clock.Now()
		for k, v := range map[string]any{"iss": x.op.url, "aud": "client", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()} {
			claims[k] = v
		}
		text, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		// As if the provider had signed it: to do so each time would make each run another one.
		proof := proved{encode(map[string]any{"alg": "RS256"}) + "." + base64.RawURLEncoding.EncodeToString(text) + ".AAAA", typ, text}
		got, err := x.u.examineLogout(t.Context(), p, m, proof)
		if err == nil && (got.id == "" || got.subject == "" && got.sid == "" || o.has("nonce") || !o.has("events") || len(got.subject) > maxSubject) {
			t.Errorf("%s %s is taken for %+v", typ, payload, got)
		}
		a := &attempt{Nonce: "n", Began: now.Unix()}
		if c, err := x.u.examine(t.Context(), p, m, a, proof, ""); err == nil && (c.subject == "" || string(o["nonce"]) != `"n"` && !strings.Contains(payload, "nonce")) {
			t.Errorf("%s %s is taken for an ID token: %+v", typ, payload, c)
		}
	})
}

// FuzzMetadata: what a provider publishes, its metadata and its keys.
func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"issuer":"https://a.example","authorization_endpoint":"https://a.example/a","token_endpoint":"https://a.example/t","jwks_uri":"https://a.example/j"}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseMetadata(b, "https://a.example"); err == nil {
			for _, u := range []string{m.authorization, m.token, m.jwks} {
				if !strings.HasPrefix(strings.ToLower(u), "https://") {
					t.Errorf("%q is taken", u)
				}
			}
			if len(m.algorithms) == 0 {
				t.Error("no algorithm")
			}
		}
		if s, err := parseKeys(b); err == nil {
			for _, k := range s.keys {
				if !k.IsPublic() {
					t.Error("a key that is not public")
				}
			}
		}
	})
}
