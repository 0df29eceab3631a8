package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// answering has the provider answer the path in another way.
func (f *fixture) answering(path string, h http.HandlerFunc) {
	f.op.set(func() {
		f.op.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != path {
				return false
			}
			h(w, r)
			return true
		}
	})
}

const discovery = "/.well-known/openid-configuration"

// A provider that does not answer is a page for its people, with a link to try again; the others do not notice.
func TestProviderDown(t *testing.T) {
	second := newOP(t, &clock{now: time.Now()})
	f := newFixture(t, func(o *Options) {
		o.Providers = append(o.Providers, Provider{ID: "second", Issuer: second.url, ClientID: "client"})
	})
	for name, h := range map[string]http.HandlerFunc{
		"500": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
		"404": http.NotFound,
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, second.url+discovery, http.StatusFound)
		},
		"not JSON": func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("<html>")) },
		"too large": func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte(`{"x":"` + strings.Repeat("a", maxFetch) + `"}`))
		},
		"hanging up":  func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
		"empty":       func(w http.ResponseWriter, r *http.Request) {},
		"two objects": func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(`{}{}`)) },
	} {
		f.clock.pass(metadataStale)
		f.answering(discovery, h)
		b := newBrowser(t)
		got := f.start(b, "?return_to=/x")
		if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || len(got.set) != 0 ||
			!strings.Contains(got.body, "Example does not answer") || !strings.Contains(got.body, `href="/.afterlogin/oidc/example/start?return_to=%2Fx"`) {
			t.Errorf("%s: %d %v %s", name, got.status, got.header, got.body)
		}
		if got := b.get(f.url + "/.afterlogin/oidc/second/start"); got.status != http.StatusSeeOther {
			t.Errorf("%s: the other provider: %d", name, got.status)
		}
		if got := f.backchannel(f.op.logoutToken(nil)); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: logout: %d %s", name, got.status, got.body)
		}
		// It is not asked again at once, however many come.
		asked := f.op.discoveries.Load()
		for range 5 {
			f.start(newBrowser(t), "")
		}
		if n := f.op.discoveries.Load() - asked; n != 0 {
			t.Errorf("%s: asked %d more times", name, n)
		}
		f.op.set(func() { f.op.answer = nil })
		f.clock.pass(fetchInterval)
		if got := f.start(newBrowser(t), ""); got.status != http.StatusSeeOther {
			t.Errorf("%s: when it is back: %d", name, got.status)
		}
	}
	// What was known before does for a while.
	f.answering(discovery, http.NotFound)
	f.clock.pass(metadataFresh + time.Minute)
	if got := f.start(newBrowser(t), ""); got.status != http.StatusSeeOther {
		t.Errorf("with old metadata: %d", got.status)
	}
}

// What a provider answers is read up to a size, whether it would be right or not.
func TestSizeOfAnswers(t *testing.T) {
	f := newFixture(t)
	for size, want := range map[int]int{maxFetch - 4<<10: http.StatusSeeOther, maxFetch + 1<<10: http.StatusServiceUnavailable} {
		f.clock.pass(metadataStale)
		f.op.set(func() { f.op.metadata = func(m map[string]any) { m["x"] = strings.Repeat("a", size) } })
		if got := f.start(newBrowser(t), ""); got.status != want {
			t.Errorf("%d bytes of metadata: %d, want %d", size, got.status, want)
		}
	}
}

func TestBadMetadata(t *testing.T) {
	f := newFixture(t)
	for name, change := range map[string]func(map[string]any){
		"another issuer":       func(m map[string]any) { m["issuer"] = "https://login.example.com" },
		"issuer with a slash":  func(m map[string]any) { m["issuer"] = f.op.url + "/" },
		"issuer in capitals":   func(m map[string]any) { m["issuer"] = strings.ToUpper(f.op.url) },
		"no issuer":            func(m map[string]any) { delete(m, "issuer") },
		"issuer twice":         func(m map[string]any) { m["Issuer"] = "x" },
		"no token endpoint":    func(m map[string]any) { delete(m, "token_endpoint") },
		"plain HTTP elsewhere": func(m map[string]any) { m["token_endpoint"] = "http://login.example.com/token" },
		"a script":             func(m map[string]any) { m["authorization_endpoint"] = "javascript:alert(1)" },
		"a fragment":           func(m map[string]any) { m["authorization_endpoint"] = f.op.url + "/a#b" },
		"a user name":          func(m map[string]any) { m["jwks_uri"] = "https://a@login.example.com/" },
		"a file":               func(m map[string]any) { m["jwks_uri"] = "file:///etc/passwd" },
		"no algorithm":         func(m map[string]any) { m["id_token_signing_alg_values_supported"] = []string{"none", "HS256"} },
		"no code":              func(m map[string]any) { m["response_types_supported"] = []string{"id_token"} },
		"no S256":              func(m map[string]any) { m["code_challenge_methods_supported"] = []string{"plain"} },
		"iss flag as text":     func(m map[string]any) { m["authorization_response_iss_parameter_supported"] = "true" },
	} {
		f.clock.pass(metadataStale)
		f.op.set(func() { f.op.metadata = change })
		if got := f.start(newBrowser(t), ""); got.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d", name, got.status)
		}
	}
}

// The token endpoint: whatever it answers, nobody gets in, and the secret goes nowhere else.
func TestBadTokenEndpoint(t *testing.T) {
	var elsewhere atomic.Int64
	other := newOP(t, &clock{now: time.Now()})
	other.set(func() {
		other.answer = func(http.ResponseWriter, *http.Request) bool { elsewhere.Add(1); return false }
	})
	f := newFixture(t)
	status := func(n int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(n)
			w.Write([]byte(body))
		}
	}
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		want int
	}{
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.url+"/token", http.StatusTemporaryRedirect)
		}, 502},
		"500":                 {status(500, "<b>oops</b>"), 503},
		"429":                 {status(429, "{}"), 503},
		"invalid_client":      {status(401, `{"error":"invalid_client","error_description":"<b>oops</b>"}`), 502},
		"invalid_grant":       {status(400, `{"error":"invalid_grant"}`), 400},
		"no ID token":         {status(200, `{"access_token":"x","token_type":"Bearer"}`), 502},
		"ID token a number":   {status(200, `{"access_token":"x","token_type":"Bearer","id_token":7}`), 502},
		"no access token":     {status(200, `{"token_type":"Bearer","id_token":"x"}`), 502},
		"not JSON":            {status(200, `<b>oops</b>`), 502},
		"too large":           {status(200, `{"access_token":"x","id_token":"`+strings.Repeat("a", maxFetch)+`"}`), 502},
		"error with a status": {status(200, `{"error":"server_error"}`), 502},
		"hanging up":          {func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, 503},
	} {
		f.answering("/token", c.h)
		b := newBrowser(t)
		got, _ := f.signedIn(b, "")
		f.refused(t, b, got, c.want)
		if strings.Contains(got.body, "oops") {
			t.Errorf("%s: %s", name, got.body)
		}
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect was followed")
	}
	if strings.Contains(f.logged(), "oops") || strings.Contains(f.logged(), clientSecret) {
		t.Error("the log repeats it")
	}
}

// Codes that are made up keep a provider busy only so far; and those who come in between can try again.
func TestManyExchanges(t *testing.T) {
	f := newFixture(t)
	b := newBrowser(t)
	answer, _ := f.op.authorize(f.start(b, "").header.Get("Location"))
	busy := f.u.providers["example"].exchanges
	for range maxExchanges {
		busy <- struct{}{}
	}
	if got := b.get(f.callback(answer)); got.status != http.StatusServiceUnavailable || len(got.set) != 0 || f.op.tokens.Load() != 0 {
		t.Errorf("%d %v", got.status, got.set)
	}
	<-busy
	if got := b.get(f.callback(answer)); got.status != http.StatusSeeOther {
		t.Errorf("later: %d %s", got.status, got.body)
	}
	f.u.logoutWait = time.Millisecond
	logouts := f.u.providers["example"].logouts
	for range maxLogouts {
		logouts <- struct{}{}
	}
	token := f.op.logoutToken(nil)
	if got := f.backchannel(token); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || f.who(b) == "" {
		t.Errorf("logout: %d", got.status)
	}
	// One that can wait for a moment is not refused.
	f.u.logoutWait = time.Minute
	done := make(chan reply)
	go func() { done <- f.backchannel(token) }()
	<-logouts
	if got := <-done; got.status != http.StatusOK || f.who(b) != "" {
		t.Errorf("logout, later: %d", got.status)
	}
}

// How the client proves who it is: as configured, or as the metadata ask for; once, never both ways.
func TestClientAuthentication(t *testing.T) {
	for name, c := range map[string]struct {
		method    string
		supported []string
		secret    string
		want      string
	}{
		"by default":            {"", nil, clientSecret, "basic"},
		"what is asked for":     {"", []string{"private_key_jwt", "client_secret_post"}, clientSecret, "post"},
		"the better of two":     {"", []string{"client_secret_post", "client_secret_basic"}, clientSecret, "basic"},
		"post, as configured":   {AuthPost, []string{"client_secret_basic"}, clientSecret, "post"},
		"basic, as configured":  {AuthBasic, []string{"client_secret_post"}, clientSecret, "basic"},
		"without a secret":      {"", nil, "", "none"},
		"neither, and a secret": {"", []string{"tls_client_auth"}, clientSecret, "basic"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(o *Options) {
				o.Providers[0].AuthMethod, o.Providers[0].ClientSecret = c.method, SecretFrom(c.secret)
			})
			f.op.set(func() {
				f.op.metadata = func(m map[string]any) {
					if c.supported != nil {
						m["token_endpoint_auth_methods_supported"] = c.supported
					}
				}
			})
			var got []string
			f.answering("/token", func(w http.ResponseWriter, r *http.Request) {
				_, _, basic := r.BasicAuth()
				post := r.PostFormValue("client_secret") != ""
				how := "none"
				switch {
				case basic && post:
					how = "both"
				case basic:
					how = "basic"
				case post:
					how = "post"
				}
				if !basic && r.PostFormValue("client_id") != "client" {
					how += " without client_id"
				}
				got = append(got, how)
				w.WriteHeader(http.StatusUnauthorized)
			})
			f.signedIn(newBrowser(t), "")
			f.op.set(func() {
				if len(got) != 1 || got[0] != c.want {
					t.Errorf("%v, want %s", got, c.want)
				}
			})
		})
	}
}

// Keys are fetched when a token names one that is not known, once; a storm of such tokens fetches none.
func TestKeyRotationAndStorm(t *testing.T) {
	f := newFixture(t)
	f.in()
	if n := f.op.jwks.Load(); n != 1 {
		t.Fatalf("%d fetches for the first sign-in", n)
	}
	f.clock.pass(fetchInterval)
	f.op.set(func() { f.op.key, f.op.keyID = rsaKeys()[1], "k2" })
	f.in()
	if n := f.op.jwks.Load(); n != 2 {
		t.Errorf("%d fetches after a rotation, want 2", n)
	}
	f.clock.pass(fetchInterval)
	evil := &op{key: rsaKeys()[0]}
	good := f.op.logoutToken(nil)
	unknown, refused := 0, 0
	for i := range 50 {
		token := evil.jws(map[string]any{"alg": "RS256", "typ": "logout+jwt", "kid": fmt.Sprint("x", i)}, payloadOf(t, good))
		switch got := f.backchannel(token); got.status {
		case http.StatusServiceUnavailable: // whether the provider has that key by now is not known
			unknown++
		case http.StatusBadRequest:
			refused++
		default:
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	if n := f.op.jwks.Load(); n != 3 || refused != 1 || unknown != 49 {
		t.Errorf("%d fetches, %d refused, %d unknown; want 3, 1 and 49", n, refused, unknown)
	}
	// A signature that is wrong with a key that is known fetches no more: the key may have changed, but once is enough.
	f.clock.pass(fetchInterval)
	for range 10 {
		token := evil.jws(map[string]any{"alg": "RS256", "typ": "logout+jwt", "kid": "k2"}, payloadOf(t, good))
		if got := f.backchannel(token); got.status != http.StatusBadRequest {
			t.Errorf("%d", got.status)
		}
	}
	if n := f.op.jwks.Load(); n != 4 {
		t.Errorf("%d fetches, want 4", n)
	}
	// What strangers send is not what an operator finds in the log.
	if strings.Contains(f.logged(), "level=ERROR") || strings.Contains(f.logged(), "level=WARN") {
		t.Errorf("the log: %s", f.logged())
	}
	b := f.in()
	f.loggedOut(t, f.op.logoutToken(nil)) // and those who may, still may
	if f.who(b) != "" {
		t.Error("still in")
	}
	// A key that the provider has withdrawn is not good for longer than the keys are fresh.
	f.op.set(func() { f.op.key, f.op.keyID = rsaKeys()[0], "k3" })
	f.clock.pass(keysFresh)
	withdrawn := (&op{key: rsaKeys()[1]}).jws(map[string]any{"alg": "RS256", "typ": "logout+jwt", "kid": "k2"}, payloadOf(t, f.op.logoutToken(nil)))
	if got := f.backchannel(withdrawn); got.status == http.StatusOK {
		t.Error("a withdrawn key is good")
	}
}

// A provider that changes its key, and its name not, or names none: its tokens are good as soon as the keys may be fetched
// again, and not only when those that are there are no longer fresh.
func TestKeyChangesUnderItsName(t *testing.T) {
	for _, kid := range []string{"k1", ""} {
		f := newFixture(t)
		f.op.set(func() { f.op.keyID = kid })
		sign := func(h, p map[string]any) string {
			if kid == "" {
				delete(h, "kid")
			}
			return f.op.jws(h, p)
		}
		f.op.set(func() { f.op.sign = sign })
		b := f.in()
		f.clock.pass(fetchInterval)
		f.op.set(func() { f.op.key = rsaKeys()[1] })
		token := f.op.logoutToken(nil)
		f.loggedOut(t, sign(map[string]any{"alg": "RS256", "typ": "logout+jwt", "kid": kid}, payloadOf(t, token)))
		if n := f.op.jwks.Load(); n != 2 || f.who(b) != "" {
			t.Errorf("kid %q: %d fetches, want 2; who: %q", kid, n, f.who(b))
		}
		// In the other direction, as long as they are fresh: refused, and nothing is fetched.
		f.op.set(func() { f.op.key = rsaKeys()[0] })
		got := f.backchannel(sign(map[string]any{"alg": "RS256", "typ": "logout+jwt", "kid": kid}, payloadOf(t, f.op.logoutToken(nil))))
		if n := f.op.jwks.Load(); n != 2 || got.status != http.StatusBadRequest {
			t.Errorf("kid %q: %d fetches, %d %s", kid, n, got.status, got.body)
		}
	}
}

// A provider whose answer makes the reading of it panic is one that does not answer, and is asked again later.
func TestPanicInFetch(t *testing.T) {
	c := &clock{now: time.Now()}
	calls := 0
	f := fetched[int]{fresh: time.Minute, stale: time.Hour, interval: 10 * time.Second, now: c.Now,
		fetch: func(ctx context.Context) (*int, error) {
			if calls++; calls == 1 {
				panic("bad")
			}
			return &calls, nil
		}}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic: nobody would log it")
			}
		}()
		f.get(t.Context(), nil)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // which those wait for who wait for ever
	defer cancel()
	if _, err := f.get(ctx, nil); !errors.Is(err, errPanicked) || !errors.Is(err, errDown) {
		t.Errorf("a moment later: %v", err)
	}
	c.pass(10 * time.Second)
	if v, err := f.get(ctx, nil); err != nil || *v != 2 {
		t.Errorf("later: %v, %v", v, err)
	}
}

func replaceBy(k, with map[string]any) { clear(k); maps.Copy(k, with) }

// privateJWK is a private key, as a JWK that is right.
func privateJWK(t *testing.T) (out map[string]any) {
	t.Helper()
	b, err := (&jose.JSONWebKey{Key: rsaKeys()[0], KeyID: "k"}).MarshalJSON()
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil || out["d"] == nil {
		t.Fatal(out, err)
	}
	return out
}

// Keys that must not verify anything.
func TestBadKeys(t *testing.T) {
	good := (&op{key: rsaKeys()[0], keyID: "k"}).jwk()
	for name, change := range map[string]func(map[string]any){
		"for encryption": func(k map[string]any) { k["use"] = "enc" },
		"symmetric":      func(k map[string]any) { clear(k); k["kty"], k["k"] = "oct", "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0" },
		"private":        func(k map[string]any) { replaceBy(k, privateJWK(t)) },
		"short":          func(k map[string]any) { k["n"] = "AQAB" },
		"of no kind":     func(k map[string]any) { k["kty"] = "RSA7" },
	} {
		k := make(map[string]any)
		for n, v := range good {
			k[n] = v
		}
		change(k)
		b, _ := json.Marshal(map[string]any{"keys": []any{k, good}})
		s, err := parseKeys(b)
		if err != nil || len(s.keys) != 1 {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	for _, text := range []string{"", "{}", `{"keys":{}}`, `{"keys":null}`, `[]`, `{"keys":[],"Keys":[]}`, `{"keys":[` + strings.Repeat("{},", maxKeys) + `{}]}`} {
		if _, err := parseKeys([]byte(text)); err == nil {
			t.Errorf("%.40s is taken", text)
		}
	}
}

// One request fetches, and the others wait for it; one that is given up does not take the fetch with it.
func TestFetchedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		f := fetched[int]{fresh: time.Minute, stale: time.Hour, interval: 10 * time.Second, now: time.Now,
			fetch: func(ctx context.Context) (*int, error) {
				calls.Add(1)
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
				n := int(calls.Load())
				if n == 3 {
					return nil, errors.New("down")
				}
				return &n, nil
			}}
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range 20 {
			ctx := t.Context()
			if i == 0 {
				ctx = first
			}
			if i == 1 {
				synctest.Wait() // the first one is the one that fetches
			}
			wg.Go(func() {
				if v, err := f.get(ctx, nil); err != nil || *v != 1 {
					t.Errorf("%v, %v", v, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		if calls.Load() != 1 {
			t.Errorf("%d fetches", calls.Load())
		}
		time.Sleep(time.Minute)
		if v, err := f.get(t.Context(), nil); err != nil || *v != 2 {
			t.Errorf("%v, %v", v, err)
		}
		last := f.value
		if _, err := f.get(t.Context(), last); !errors.Is(err, errDown) || !errors.Is(err, errRecent) { // fetched a second ago
			t.Errorf("%v", err)
		}
		if v, err := f.get(t.Context(), new(int)); err != nil || v != last { // what did not do is not what is there by now
			t.Errorf("%v, %v", v, err)
		}
		time.Sleep(2 * time.Minute)
		if v, err := f.get(t.Context(), nil); err != nil || *v != 2 { // fails, and the old one does
			t.Errorf("%v, %v", v, err)
		}
		if calls.Load() != 3 {
			t.Errorf("%d fetches", calls.Load())
		}
		time.Sleep(time.Hour)
		if v, err := f.get(t.Context(), nil); err != nil || *v != 4 {
			t.Errorf("%v, %v", v, err)
		}
	})
}

// When our own store does not answer, the answer is 503, the attempt stays, and works when the store is back.
func TestStoreDown(t *testing.T) {
	f := newFixture(t)
	b := newBrowser(t)
	got := f.start(b, "?return_to=/x")
	answer, _ := f.op.authorize(got.header.Get("Location"))
	f.store.SetHook(func(storetest.Call) storetest.Fault { return storetest.Fault{Before: storetest.ErrFault} })
	got = b.get(f.callback(answer))
	if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || len(got.set) != 0 {
		t.Errorf("%d %v", got.status, got.header)
	}
	f.store.SetHook(nil)
	if got := b.get(f.callback(answer)); got.status != http.StatusSeeOther {
		t.Errorf("when it is back: %d %s", got.status, got.body)
	}
}

func TestBadOptions(t *testing.T) {
	f := newFixture(t)
	good := Provider{ID: "a", Issuer: "https://login.example.com", ClientID: "c"}
	for name, change := range map[string]func(*Options, *Provider){
		"no authority":         func(o *Options, p *Provider) { o.Authority = nil },
		"no SignIn":            func(o *Options, p *Provider) { o.SignIn = nil },
		"long":                 func(o *Options, p *Provider) { o.Longest = 391 * day },
		"ID in capitals":       func(o *Options, p *Provider) { p.ID = "A" },
		"ID with a colon":      func(o *Options, p *Provider) { p.ID = "a:b" },
		"ID of clients":        func(o *Options, p *Provider) { p.ID = "client" },
		"no ID":                func(o *Options, p *Provider) { p.ID = "" },
		"plain HTTP":           func(o *Options, p *Provider) { p.Issuer = "http://login.example.com" },
		"issuer with a query":  func(o *Options, p *Provider) { p.Issuer += "?a=b" },
		"no issuer":            func(o *Options, p *Provider) { p.Issuer = "" },
		"no client":            func(o *Options, p *Provider) { p.ClientID = "" },
		"method and no secret": func(o *Options, p *Provider) { p.AuthMethod = AuthPost },
		"unknown method":       func(o *Options, p *Provider) { p.AuthMethod, p.ClientSecret = "jwt", SecretFrom("x") },
		"secret of two lines":  func(o *Options, p *Provider) { p.ClientSecret = SecretFrom("a\nb") },
		"prompt none":          func(o *Options, p *Provider) { p.Prompt = "none" },
		"a scope with a quote": func(o *Options, p *Provider) { p.Scopes = []string{`a"b`} },
		"half a second":        func(o *Options, p *Provider) { p.MaxAge = time.Second / 2 },
		"an empty acr":         func(o *Options, p *Provider) { p.ACRValues = []string{""} },
		"name with a line":     func(o *Options, p *Provider) { p.Name = "a\nb" },
	} {
		o, p := f.u.options, good
		change(&o, &p)
		o.Providers = []Provider{p}
		if _, err := New(o); !errors.Is(err, ErrBadOptions) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := f.u.options
	o.Providers = []Provider{good, good}
	if _, err := New(o); !errors.Is(err, ErrBadOptions) {
		t.Errorf("the same ID twice: %v", err)
	}
	o.Providers = []Provider{good}
	if u, err := New(o); err != nil || u.providers["a"].Name != "a" {
		t.Errorf("%v", err)
	}
}

func TestSecretDoesNotPrint(t *testing.T) {
	s := SecretFrom("hunter2")
	b, _ := json.Marshal(map[string]any{"s": s, "p": Provider{ClientSecret: s}})
	all := fmt.Sprintf("%v %+v %#v %s %q %x %d %v", s, Provider{ClientSecret: s}, Provider{ClientSecret: s}, s, s, s, s, &s) + string(b)
	if strings.Contains(all, "hunter2") || strings.Contains(all, fmt.Sprintf("%x", "hunter2")) {
		t.Error(all)
	}
	if s.Reveal() != "hunter2" || s.IsZero() || !SecretFrom("").IsZero() || (Secret{}).Reveal() != "" {
		t.Error("Reveal")
	}
}

// A cookie that was sealed before the installation's key was rotated opens after it.
func TestSealingKeyRotation(t *testing.T) {
	s := &sealer{keyring.New()}
	a := &attempt{State: randomText(), Began: 1}
	v, err := s.seal(a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.keys.Rotate(keyring.Sealing); err != nil {
		t.Fatal(err)
	}
	if got, err := s.open(cookieOf(a.State), v); err != nil || got.State != a.State {
		t.Errorf("%v, %v", got, err)
	}
}
