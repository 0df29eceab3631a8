package upstream

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/keyring"
)

// refused checks that an answer lets nobody in.
func (f *fixture) refused(t *testing.T, b *browser, got reply, status int) {
	t.Helper()
	if got.status != status {
		t.Errorf("status %d, want %d: %s", got.status, status, got.body)
	}
	for _, c := range got.set {
		if c.Name == httpauth.CookieName && c.MaxAge >= 0 {
			t.Error("a session cookie is set")
		}
	}
	if who := f.who(b); who != "" {
		t.Errorf("signed in as %q", who)
	}
	if n := len(sessions(t, f)); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// ID tokens that say what they should not.
func TestBadIDToken(t *testing.T) {
	f := newFixture(t)
	now := f.clock.Now()
	public, err := x509.MarshalPKIXPublicKey(&f.op.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	jwk, err := json.Marshal(f.op.jwk())
	if err != nil {
		t.Fatal(err)
	}
	claim := func(name string, value any) func() {
		return func() { f.op.claims = func(c map[string]any) { c[name] = value } }
	}
	without := func(name string) func() {
		return func() { f.op.claims = func(c map[string]any) { delete(c, name) } }
	}
	header := func(name string, value any) func() {
		return func() { f.op.header = func(h map[string]any) { h[name] = value } }
	}
	hmac := func(key []byte, alg string) func() {
		return func() {
			f.op.sign = func(h, c map[string]any) string {
				h["alg"] = alg
				return hs256(key, h, c)
			}
		}
	}
	raw := func(change func(header, payload string) string) func() {
		return func() {
			f.op.sign = func(h, c map[string]any) string {
				p := strings.Split(f.op.jws(h, c), ".")
				return change(p[0], p[1]) + "." + p[2]
			}
		}
	}
	for name, spoil := range map[string]func(){
		"another nonce":             claim("nonce", randomText()),
		"no nonce":                  without("nonce"),
		"nonce twice in other case": claim("NONCE", "x"),
		"another iss":               claim("iss", "https://login.example.com"),
		"iss with a slash":          claim("iss", f.op.url+"/"),
		"no iss":                    without("iss"),
		"only ISS": func() {
			f.op.claims = func(c map[string]any) {
				delete(c, "iss")
				c["ISS"] = f.op.url
			}
		},
		"another aud":     claim("aud", "another"),
		"no aud":          without("aud"),
		"two aud, no azp": claim("aud", []string{"client", "another"}),
		"two aud, another azp": func() {
			f.op.claims = func(c map[string]any) { c["aud"], c["azp"] = []string{"client", "another"}, "another" }
		},
		"one aud, another azp":  claim("azp", "another"),
		"over":                  claim("exp", now.Add(-time.Second).Unix()),
		"no exp":                without("exp"),
		"exp as text":           claim("exp", fmt.Sprint(now.Add(time.Hour).Unix())),
		"iat in the future":     claim("iat", now.Add(3*time.Hour).Unix()),
		"iat long ago":          claim("iat", now.Add(-3*time.Hour).Unix()),
		"no iat":                without("iat"),
		"nbf in the future":     claim("nbf", now.Add(3*time.Hour).Unix()),
		"auth_time to come":     claim("auth_time", now.Add(3*time.Hour).Unix()),
		"auth_time as text":     claim("auth_time", "now"),
		"no sub":                without("sub"),
		"empty sub":             claim("sub", ""),
		"long sub":              claim("sub", strings.Repeat("a", 256)),
		"sub with a line break": claim("sub", "mia\ntom"),
		"sub as a number":       claim("sub", 7),
		"sub null":              claim("sub", nil),
		"empty sid":             claim("sid", ""),
		"long sid":              claim("sid", strings.Repeat("a", 256)),
		"acr as a number":       claim("acr", 1),
		"amr with a number":     claim("amr", []any{"pwd", 1}),
		"another at_hash":       claim("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"),
		"a logout token":        header("typ", "logout+jwt"),
		"an access token":       header("typ", "application/at+jwt"),
		"alg none, signed":      header("alg", "none"),
		"alg of another hash":   header("alg", "RS512"),
		"alg ES256":             header("alg", "ES256"),
		"an unknown crit":       func() { f.op.header = func(h map[string]any) { h["crit"], h["b64"] = []string{"b64"}, false } },
		"an own key": func() {
			f.op.sign = func(h, c map[string]any) string {
				evil := &op{key: rsaKeys()[1], keyID: "evil"}
				h["jwk"], h["kid"] = evil.jwk(), "evil"
				return evil.jws(h, c)
			}
		},
		"another key, known kid": func() {
			f.op.sign = func(h, c map[string]any) string { return (&op{key: rsaKeys()[1]}).jws(h, c) }
		},
		"another key, no kid": func() {
			f.op.sign = func(h, c map[string]any) string {
				delete(h, "kid")
				return (&op{key: rsaKeys()[1]}).jws(h, c)
			}
		},
		"HS256 by the client secret": hmac([]byte(clientSecret), "HS256"),
		"HS256 by the public key":    hmac(text, "HS256"),
		"HS256 by the JWK":           hmac(jwk, "HS256"),
		"HS256 called RS256":         hmac(text, "RS256"),
		"alg none": func() {
			f.op.sign = func(h, c map[string]any) string {
				h["alg"] = "none"
				return encode(h) + "." + encode(c) + "."
			}
		},
		"no signature":    func() { f.op.sign = func(h, c map[string]any) string { return encode(h) + "." + encode(c) + "." } },
		"changed payload": raw(func(h, p string) string { return h + "." + encode(map[string]any{"sub": "mia"}) }),
		"JSON form":       func() { f.op.sign = func(h, c map[string]any) string { return jsonForm(f.op.jws(h, c)) } },
		"encrypted":       func() { f.op.sign = func(h, c map[string]any) string { return "a.b.c.d.e" } },
		"a list":          func() { f.op.sign = func(h, c map[string]any) string { return f.op.jws(h, nil) } },
		"too large":       claim("x", strings.Repeat("a", maxToken)),
		"not there":       func() { f.op.sign = func(h, c map[string]any) string { return "" } },
		"too many members": func() {
			f.op.claims = func(c map[string]any) {
				for i := range 300 {
					c[fmt.Sprint(i)] = 1
				}
			}
		},
		"distributed claim": claim("_claim_names", map[string]string{"sub": "x"}),
	} {
		t.Run(name, func(t *testing.T) {
			f.op.set(func() { f.op.claims, f.op.header, f.op.sign = nil, nil, nil; spoil() })
			f.clock.pass(fetchInterval) // so that keys may be fetched
			b := newBrowser(t)
			got, _ := f.signedIn(b, "")
			f.refused(t, b, got, http.StatusBadGateway)
			if !strings.Contains(got.body, "was not accepted") || len(b.attempts()) != 0 {
				t.Errorf("answer: %s", got.body)
			}
		})
	}
	f.op.set(func() { f.op.claims, f.op.header, f.op.sign = nil, nil, nil })
	f.clock.pass(fetchInterval)
	if got, _ := f.signedIn(newBrowser(t), ""); got.status != http.StatusSeeOther { // the table was refused for its own sake
		t.Errorf("a good one: %d %s", got.status, f.logged())
	}
}

func jsonForm(compact string) string {
	p := strings.Split(compact, ".")
	return fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, p[1], p[0], p[2])
}

func atHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// What is unusual, and right.
func TestGoodIDToken(t *testing.T) {
	f := newFixture(t)
	for name, change := range map[string]func(c map[string]any){
		"two aud and azp": func(c map[string]any) { c["aud"], c["azp"] = []string{"another", "client"}, "client" },
		"aud in a list":   func(c map[string]any) { c["aud"] = []string{"client"} },
		"fractions":       func(c map[string]any) { c["iat"] = float64(f.clock.Now().Unix()) + 0.5 },
		"at_hash":         func(c map[string]any) { c["at_hash"] = atHash("at-1") },
		"longest sub":     func(c map[string]any) { c["sub"] = strings.Repeat("a", 255) },
		"sub with a colon and a blank": func(c map[string]any) {
			c["sub"] = "auth0|5f7c 8ec7:x"
		},
	} {
		t.Run(name, func(t *testing.T) {
			f.op.set(func() { f.op.claims = change })
			b := newBrowser(t)
			if got, _ := f.signedIn(b, ""); got.status != http.StatusSeeOther {
				t.Errorf("%d: %s\n%s", got.status, got.body, f.logged())
			}
		})
	}
}

// Callbacks that are not the answer to what this browser has begun.
func TestBadCallback(t *testing.T) {
	f := newFixture(t, func(o *Options) {
		p := o.Providers[0]
		p.ID = "other"
		o.Providers = append(o.Providers, p)
	})
	begin := func(t *testing.T) (*browser, url.Values) {
		b := newBrowser(t)
		got := f.start(b, "?return_to=/x")
		answer, _ := f.op.authorize(got.header.Get("Location"))
		return b, answer
	}
	with := func(v url.Values, name string, value ...string) url.Values { v[name] = value; return v }
	for name, ask := range map[string]func(b *browser, answer url.Values) reply{
		"in another browser": func(b *browser, a url.Values) reply { return newBrowser(t).get(f.callback(a)) },
		"the state of another browser": func(b *browser, a url.Values) reply {
			c, _ := begin(t)
			return c.get(f.callback(a))
		},
		"another browser's code": func(b *browser, a url.Values) reply { // PKCE
			_, theirs := begin(t)
			got := b.get(f.callback(with(a, "code", theirs.Get("code"))))
			if got.status == http.StatusBadRequest && strings.Contains(got.body, "withdrawn") {
				got.body = ""
			}
			return got
		},
		"no state":      func(b *browser, a url.Values) reply { a.Del("state"); return b.get(f.callback(a)) },
		"a short state": func(b *browser, a url.Values) reply { return b.get(f.callback(with(a, "state", a.Get("state")[:8]))) },
		"a long state":  func(b *browser, a url.Values) reply { return b.get(f.callback(with(a, "state", a.Get("state")+"a"))) },
		"a similar state": func(b *browser, a url.Values) reply {
			return b.get(f.callback(with(a, "state", a.Get("state")[:8]+randomText()[8:])))
		},
		"a state of no form": func(b *browser, a url.Values) reply {
			return b.get(f.callback(with(a, "state", strings.Repeat(";", 43))))
		},
		"two states":      func(b *browser, a url.Values) reply { return b.get(f.callback(with(a, "state", a.Get("state"), "x"))) },
		"two codes":       func(b *browser, a url.Values) reply { return b.get(f.callback(with(a, "code", a.Get("code"), "x"))) },
		"two of anything": func(b *browser, a url.Values) reply { return b.get(f.callback(with(a, "x", "1", "2"))) },
		"no code":         func(b *browser, a url.Values) reply { a.Del("code"); return b.get(f.callback(a)) },
		"an empty code":   func(b *browser, a url.Values) reply { return b.get(f.callback(with(a, "code", ""))) },
		"a code and an error": func(b *browser, a url.Values) reply {
			return b.get(f.callback(with(a, "error", "access_denied")))
		},
		"a code that is too long": func(b *browser, a url.Values) reply {
			return b.get(f.callback(with(a, "code", strings.Repeat("a", maxCode+1))))
		},
		"a code with a line break": func(b *browser, a url.Values) reply { return b.get(f.callback(with(a, "code", "a\nb"))) },
		"a query that is too long": func(b *browser, a url.Values) reply {
			return b.get(f.callback(with(a, "x", strings.Repeat("a", maxQuery))))
		},
		"an answer in a JWT": func(b *browser, a url.Values) reply { return b.get(f.callback(with(a, "response", "x"))) },
		"another issuer": func(b *browser, a url.Values) reply {
			return b.get(f.callback(with(a, "iss", "https://login.example.com")))
		},
		"no issuer, though it says so": func(b *browser, a url.Values) reply { a.Del("iss"); return b.get(f.callback(a)) },
		"an empty issuer":              func(b *browser, a url.Values) reply { return b.get(f.callback(with(a, "iss", ""))) },
		"at another provider's address": func(b *browser, a url.Values) reply {
			return b.get(f.url + "/.afterlogin/oidc/other/callback?" + a.Encode())
		},
		"on another site": func(b *browser, a url.Values) reply {
			b.jar[strings.TrimPrefix(f.other, "http://")] = b.jar[strings.TrimPrefix(f.url, "http://")]
			return b.get(f.other + "/oidc/example/callback?" + a.Encode())
		},
		"too late": func(b *browser, a url.Values) reply { f.clock.pass(attemptTime); return b.get(f.callback(a)) },
		"in a frame": func(b *browser, a url.Values) reply {
			return b.get(f.callback(a), "Sec-Fetch-Dest", "iframe")
		},
		"with an altered cookie": func(b *browser, a url.Values) reply {
			for name, v := range b.jar[strings.TrimPrefix(f.url, "http://")] {
				b.jar[strings.TrimPrefix(f.url, "http://")][name] = v[:len(v)-4] + "AAAA"
			}
			return b.get(f.callback(a))
		},
		"with the cookie twice": func(b *browser, a url.Values) reply {
			for name, v := range b.jar[strings.TrimPrefix(f.url, "http://")] {
				return b.get(f.callback(a), "Cookie", name+"="+v+"; "+name+"="+v)
			}
			return reply{}
		},
		"with the cookie under another name": func(b *browser, a url.Values) reply {
			var value string
			for _, v := range b.jar[strings.TrimPrefix(f.url, "http://")] {
				value = v
			}
			state := randomText()
			return b.get(f.callback(with(a, "state", state)), "Cookie", cookieOf(state)+"="+value)
		},
		"with a cookie of another installation": func(b *browser, a url.Values) reply {
			state := a.Get("state")
			alien := &sealer{keyring.New()}
			v, err := alien.seal(&attempt{Provider: "example", Origin: f.url, Base: "/.afterlogin", State: state, Began: f.clock.Now().Unix()})
			if err != nil {
				t.Fatal(err)
			}
			return b.get(f.callback(a), "Cookie", cookieOf(state)+"="+v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, answer := begin(t)
			before := f.op.tokens.Load()
			got := ask(b, answer)
			f.refused(t, b, got, http.StatusBadRequest)
			if f.op.tokens.Load() != before && name != "another browser's code" {
				t.Error("the token endpoint was asked")
			}
		})
	}
}

// A state and a code are good once: the second time says so, and nobody is signed in by it.
func TestReplay(t *testing.T) {
	f := newFixture(t)
	b := newBrowser(t)
	got := f.start(b, "?return_to=/x")
	thief := b.copy()
	answer, _ := f.op.authorize(got.header.Get("Location"))
	if got := b.get(f.callback(answer)); got.status != http.StatusSeeOther {
		t.Fatalf("%d %s", got.status, got.body)
	}
	person, jar := thief.copy(), strings.TrimPrefix(f.url, "http://")
	asked := f.op.tokens.Load()
	got = thief.get(f.callback(answer))
	if got.status != http.StatusBadRequest || !strings.Contains(got.body, "cannot be finished") || f.who(thief) != "" {
		t.Errorf("%d %s", got.status, got.body)
	}
	// The person, who is signed in, is told that they are.
	maps.Copy(person.jar[jar], b.jar[jar])
	got = person.get(f.callback(answer))
	if got.status != http.StatusBadRequest || !strings.Contains(got.body, "is finished") || !strings.Contains(got.body, `href="/x"`) {
		t.Errorf("%d %s", got.status, got.body)
	}
	if f.op.tokens.Load() != asked {
		t.Error("the token endpoint was asked again")
	}
	if got := b.get(f.callback(answer)); got.status != http.StatusBadRequest || !strings.Contains(got.body, "cannot be finished") {
		t.Errorf("without the cookie: %d %s", got.status, got.body)
	}
	if len(sessions(t, f)) != 1 {
		t.Error("another session was made")
	}
	// A link to elsewhere does not stand in the page, whoever wrote the start's address.
	for _, to := range []string{"https://evil.example/", "//evil.example", "javascript:alert(1)"} {
		b := newBrowser(t)
		got := f.start(b, "?return_to="+url.QueryEscape(to))
		again := b.copy()
		answer, _ := f.op.authorize(got.header.Get("Location"))
		if got := b.get(f.callback(answer)); got.header.Get("Location") != "/" {
			t.Errorf("%s: to %q", to, got.header.Get("Location"))
		}
		maps.Copy(again.jar[jar], b.jar[jar])
		if got := again.get(f.callback(answer)); !strings.Contains(got.body, `href="/"`) || strings.Contains(got.body, "evil") {
			t.Errorf("%s: %s", to, got.body)
		}
	}
}

// What a provider says went wrong is never shown.
func TestProviderErrors(t *testing.T) {
	f := newFixture(t)
	for code, want := range map[string]int{
		"access_denied": 403, "login_required": 403, "temporarily_unavailable": 503, "invalid_scope": 502, "unmet_authentication_requirements": 403,
		"<script>alert(1)</script>": 502, "no_such_error": 502,
	} {
		b := newBrowser(t)
		got := f.start(b, "?return_to=/x&max_age=60&remember=1")
		answer, _ := f.op.authorize(got.header.Get("Location"))
		answer.Del("code")
		answer.Set("error", code)
		answer.Set("error_description", "<b>words of the provider</b>")
		answer.Set("error_uri", "https://evil.example/")
		got = b.get(f.callback(answer))
		f.refused(t, b, got, want)
		if strings.Contains(got.body, "script") || strings.Contains(got.body, "words") || strings.Contains(got.body, "evil") || strings.Contains(got.body, code) {
			t.Errorf("%s: %s", code, got.body)
		}
		if want == 503 && got.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		if !strings.Contains(got.body, "/.afterlogin/oidc/example/start?max_age=60&amp;remember=1&amp;return_to=%2Fx") {
			t.Errorf("%s: no link to try again: %s", code, got.body)
		}
	}
	if strings.Contains(f.logged(), "script") || strings.Contains(f.logged(), "words") {
		t.Error("the log repeats what the provider said")
	}
}

func TestUnknown(t *testing.T) {
	f := newFixture(t)
	b := newBrowser(t)
	for where, want := range map[string]int{
		"/.afterlogin/oidc/nobody/start": 404, "/.afterlogin/oidc/example": 404, "/.afterlogin/oidc/example/": 404, "/.afterlogin/oidc/example/start/": 404,
		"/.afterlogin/oidc/ex%61mple/start": 404, "/.afterlogin/oidc/example%2Fstart": 404, "/.afterlogin/oidc/example/start/x": 404,
		"/.afterlogin/oidc/example/backchannel-logout": 405, "/.afterlogin/oidc//start": 404,
	} {
		if got := b.get(f.url + where); got.status != want {
			t.Errorf("%s: %d, want %d", where, got.status, want)
		}
	}
	for _, what := range []string{"start", "callback"} {
		if got := b.send("POST", f.url+"/.afterlogin/oidc/example/"+what, ""); got.status != 405 || got.header.Get("Allow") != "GET" {
			t.Errorf("POST %s: %d", what, got.status)
		}
	}
	r, _ := http.NewRequest("GET", f.url+"/.afterlogin/oidc/example/start", nil)
	r.Host = "elsewhere.example"
	w := recorder{h: make(http.Header)}
	f.u.ServeHTTP(&w, r)
	if w.status != http.StatusMisdirectedRequest {
		t.Errorf("another host: %d", w.status)
	}
}

type recorder struct {
	h      http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.h }
func (r *recorder) WriteHeader(s int)           { r.status = s }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
