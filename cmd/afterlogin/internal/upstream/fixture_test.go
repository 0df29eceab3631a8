package upstream

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// op is an OpenID provider that does as it is told, right or wrong.
type op struct {
	t     testing.TB
	clock *clock
	url   string
	key   *rsa.PrivateKey

	mu       sync.Mutex
	codes    map[string]url.Values // the authorization requests
	metadata func(map[string]any)  // changes what is published
	answer   func(http.ResponseWriter, *http.Request) bool
	header   func(map[string]any)
	claims   func(map[string]any)
	sign     func(header, payload map[string]any) string
	keyID    string
	kept     string // the last ID token

	tokens, jwks, discoveries atomic.Int64
}

const clientSecret = "s3cr3t+of/the=client"

var rsaKeys = sync.OnceValue(func() [2]*rsa.PrivateKey {
	var out [2]*rsa.PrivateKey
	for i := range out {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		out[i] = k
	}
	return out
})

func newOP(t testing.TB, c *clock) *op {
	o := &op{t: t, clock: c, key: rsaKeys()[0], codes: make(map[string]url.Values), keyID: "k1"}
	s := httptest.NewServer(o)
	t.Cleanup(s.Close)
	o.url = s.URL
	return o
}

func (o *op) set(f func()) { o.mu.Lock(); defer o.mu.Unlock(); f() }

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// jws signs by RS256.
func (o *op) jws(header, payload map[string]any) string {
	text := encode(header) + "." + encode(payload)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, o.key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func hs256(key []byte, header, payload map[string]any) string {
	text := encode(header) + "." + encode(payload)
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func (o *op) jwk() map[string]any {
	return map[string]any{
		"kty": "RSA", "kid": o.keyID, "use": "sig", "alg": "RS256",
		"n": base64.RawURLEncoding.EncodeToString(o.key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(o.key.E)).Bytes()),
	}
}

func (o *op) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.URL.Path == "/token" {
		o.tokens.Add(1)
	}
	if r.URL.Path == "/jwks" {
		o.jwks.Add(1)
	}
	if strings.HasSuffix(r.URL.Path, "/openid-configuration") {
		o.discoveries.Add(1)
	}
	if o.answer != nil && o.answer(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		m := map[string]any{
			"issuer": o.url, "authorization_endpoint": o.url + "/authorize", "token_endpoint": o.url + "/token", "jwks_uri": o.url + "/jwks",
			"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"}, "response_types_supported": []string{"code"},
			"end_session_endpoint": o.url + "/end?x=1", "authorization_response_iss_parameter_supported": true,
		}
		if o.metadata != nil {
			o.metadata(m)
		}
		json.NewEncoder(w).Encode(m)
	case "/jwks":
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{o.jwk()}})
	case "/token":
		o.token(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (o *op) token(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, code string) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]string{"error": code})
	}
	id, secret, _ := r.BasicAuth()
	id, _ = url.QueryUnescape(id)
	secret, _ = url.QueryUnescape(secret)
	if id != "client" || secret != clientSecret {
		fail(http.StatusUnauthorized, "invalid_client")
		return
	}
	asked, ok := o.codes[r.PostFormValue("code")]
	delete(o.codes, r.PostFormValue("code"))
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	if !ok || subtle.ConstantTimeCompare([]byte(challenge), []byte(asked.Get("code_challenge"))) != 1 ||
		asked.Get("code_challenge_method") != "S256" || r.PostFormValue("redirect_uri") != asked.Get("redirect_uri") {
		fail(http.StatusBadRequest, "invalid_grant")
		return
	}
	now := o.clock.Now()
	header := map[string]any{"alg": "RS256", "kid": o.keyID}
	payload := map[string]any{
		"iss": o.url, "aud": "client", "sub": "248289761001", "exp": now.Add(5 * time.Minute).Unix(), "iat": now.Unix(), "nonce": asked.Get("nonce"),
	}
	if o.header != nil {
		o.header(header)
	}
	if o.claims != nil {
		o.claims(payload)
	}
	sign := o.jws
	if o.sign != nil {
		sign = o.sign
	}
	o.kept = sign(header, payload)
	json.NewEncoder(w).Encode(map[string]any{"access_token": "at-1", "token_type": "Bearer", "expires_in": 60, "id_token": o.kept, "refresh_token": "rt-1"})
}

// authorize is what a person does at the provider: it returns the query of the address they are sent back with.
func (o *op) authorize(where string) (answer url.Values, asked url.Values) {
	o.t.Helper()
	u, err := url.Parse(where)
	if err != nil || !strings.HasPrefix(where, o.url+"/authorize?") {
		o.t.Fatalf("sent to %q", where)
	}
	asked = u.Query()
	code := "code-" + randomText()
	o.set(func() { o.codes[code] = asked })
	return url.Values{"code": {code}, "state": {asked.Get("state")}, "iss": {o.url}}, asked
}

// logoutToken is a good logout token that change may spoil.
func (o *op) logoutToken(change func(header, payload map[string]any)) string {
	now := o.clock.Now()
	header := map[string]any{"alg": "RS256", "kid": o.keyID, "typ": "logout+jwt"}
	payload := map[string]any{
		"iss": o.url, "aud": "client", "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": randomText(), "sub": "248289761001",
		"events": map[string]any{logoutEvent: map[string]any{}},
	}
	if change != nil {
		change(header, payload)
	}
	return o.jws(header, payload)
}

// fixture is two sites with an application each, and a provider.
type fixture struct {
	t     testing.TB
	clock *clock
	op    *op
	a     *afterlogin.Authority
	store *storetest.Faulty
	u     *Upstream
	sites map[string]*Site // by Host
	url   string           // of the first, whose Base is /.afterlogin
	other string           // of the second, which has none
	ring  *keyring.Ring

	pages http.Handler // of the sites' sign-in page; nil: none

	between func() // called when the session is made, and not yet listed
	before  func() // called before it is made

	mu  sync.Mutex
	log bytes.Buffer
}

func (f *fixture) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(b)
}

func (f *fixture) logged() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

func newFixture(t testing.TB, more ...func(*Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, clock: &clock{now: time.Now().Truncate(time.Second)}, sites: make(map[string]*Site), ring: keyring.New()}
	f.op = newOP(t, f.clock)
	f.store = storetest.NewFaulty(memstore.New(), nil)
	t.Cleanup(func() { f.store.Close() })
	log := slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if f.a, err = afterlogin.New(afterlogin.Config{Store: store.Store(f.store), Keys: f.ring, Now: f.clock.Now, Logger: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.a.Close() })
	open := func(base string) string {
		s := httptest.NewServer(http.HandlerFunc(f.serve))
		t.Cleanup(s.Close)
		x, err := httpauth.New(f.a, httpauth.Options{Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		f.sites[strings.TrimPrefix(s.URL, "http://")] = &Site{Origin: s.URL, Base: base, Auth: x}
		return s.URL
	}
	f.url, f.other = open("/.afterlogin"), open("")
	o := Options{
		Providers: []Provider{{ID: "example", Name: "Example", Issuer: f.op.url, ClientID: "client", ClientSecret: SecretFrom(clientSecret)}},
		Authority: f.a, Keys: f.ring, Logger: log, Now: f.clock.Now,
		Site: func(r *http.Request) (*Site, error) {
			s := f.sites[r.Host]
			if s == nil {
				return nil, errors.New("no such site")
			}
			return s, nil
		},
		SignIn: f.signIn,
		Leave: func(w http.ResponseWriter, r *http.Request, site *Site, to string) {
			http.Redirect(w, r, httpauth.SafeReturn(to), http.StatusSeeOther)
		},
		Fail: func(w http.ResponseWriter, r *http.Request, site *Site, err error) { httpauth.Answer(w, r, err) },
	}
	for _, m := range more {
		m(&o)
	}
	if f.u, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.u.Close() })
	return f
}

var errOther = errors.New("somebody else")

func (f *fixture) signIn(w http.ResponseWriter, r *http.Request, site *Site, id Identity) (*afterlogin.Session, error) {
	if f.before != nil {
		f.before()
	}
	had, _ := httpauth.Session(r.Context())
	var s *afterlogin.Session
	var err error
	switch {
	case id.Confirm && had.Subject != id.Subject:
		return nil, errOther
	case had != nil && had.Subject == id.Subject:
		s, err = site.Auth.StepUp(w, r, afterlogin.Authentication{Methods: id.Methods, At: id.At})
	default:
		s, err = site.Auth.SignIn(w, r, httpauth.SignIn{Subject: id.Subject, Mark: id.Mark, Methods: id.Methods, At: id.At, Remember: id.Remember})
	}
	if err == nil && f.between != nil {
		f.between()
	}
	return s, err
}

// serve is what stands behind the proxy of both sites: our endpoints, and a page that says who is there.
func (f *fixture) serve(w http.ResponseWriter, r *http.Request) {
	site := f.sites[r.Host]
	if strings.HasPrefix(r.URL.Path, site.Base+"/oidc/") {
		f.u.ServeHTTP(w, r)
		return
	}
	if f.pages != nil && r.URL.Path == site.Base+"/login" {
		f.pages.ServeHTTP(w, r)
		return
	}
	site.Auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, _ := httpauth.Session(r.Context())
		fmt.Fprintf(w, "%s %v %d %v", s.Subject, s.Auth.Methods, s.Auth.At.Unix(), s.Persistent)
	})).ServeHTTP(w, r)
}

// browser keeps cookies as a browser does on a loopback host, where Secure ones are kept, too.
type browser struct {
	t   testing.TB
	jar map[string]map[string]string // by host
}

func newBrowser(t testing.TB) *browser { return &browser{t, make(map[string]map[string]string)} }

type reply struct {
	status int
	header http.Header
	body   string
	set    []*http.Cookie
}

var direct = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (b *browser) get(where string, headers ...string) reply {
	return b.send("GET", where, "", headers...)
}

// send makes a request as a click on a page of the same site does, unless the headers say otherwise.
func (b *browser) send(method, where, body string, headers ...string) reply {
	b.t.Helper()
	r, err := http.NewRequest(method, where, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	r.Header.Set("Accept", "text/html")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Del(headers[i])
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	var cookies []string
	for name, value := range b.jar[r.URL.Host] {
		cookies = append(cookies, name+"="+value)
	}
	if len(cookies) > 0 && r.Header.Get("Cookie") == "" {
		r.Header.Set("Cookie", strings.Join(cookies, "; "))
	}
	resp, err := direct.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.jar[r.URL.Host] == nil {
		b.jar[r.URL.Host] = make(map[string]string)
	}
	for _, c := range resp.Cookies() {
		if c.MaxAge < 0 {
			delete(b.jar[r.URL.Host], c.Name)
		} else {
			b.jar[r.URL.Host][c.Name] = c.Value
		}
	}
	return reply{resp.StatusCode, resp.Header, string(text), resp.Cookies()}
}

// copy is another browser with the same cookies.
func (b *browser) copy() *browser {
	c := newBrowser(b.t)
	for host, jar := range b.jar {
		c.jar[host] = maps.Clone(jar)
	}
	return c
}

func (f *fixture) start(b *browser, query string) reply {
	return b.get(f.url + "/.afterlogin/oidc/example/start" + query)
}

func (f *fixture) callback(answer url.Values) string {
	return f.url + "/.afterlogin/oidc/example/callback?" + answer.Encode()
}

// signedIn signs somebody in, and returns the last answer and what the provider was asked for.
func (f *fixture) signedIn(b *browser, query string) (reply, url.Values) {
	f.t.Helper()
	got := f.start(b, query)
	if got.status != http.StatusSeeOther {
		f.t.Fatalf("start: %d %s", got.status, got.body)
	}
	answer, asked := f.op.authorize(got.header.Get("Location"))
	return b.get(f.callback(answer), "Sec-Fetch-Site", "cross-site"), asked
}

// who returns what the application's page says, "" if nobody is signed in.
func (f *fixture) who(b *browser) string {
	got := b.get(f.url + "/orders")
	if got.status == http.StatusUnauthorized {
		return ""
	}
	if got.status != http.StatusOK {
		f.t.Fatalf("who: %d %s", got.status, got.body)
	}
	return got.body
}

func (f *fixture) backchannel(token string) reply {
	return newBrowser(f.t).send("POST", f.url+"/.afterlogin/oidc/example/backchannel-logout", url.Values{"logout_token": {token}}.Encode(),
		"Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "", "Sec-Fetch-Mode", "", "Sec-Fetch-Dest", "", "Accept", "")
}

// attempts returns the names of the cookies of sign-ins under way.
func (b *browser) attempts() (names []string) {
	for _, jar := range b.jar {
		for name := range jar {
			if strings.HasPrefix(name, CookiePrefix) {
				names = append(names, name)
			}
		}
	}
	return names
}
