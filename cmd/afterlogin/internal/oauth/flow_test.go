package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func TestCodeFlow(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, open(t)).usual()
			mia := f.signIn("mia")
			a := f.grant(mia.Token, "web", "https://web.example.com/cb", "read write")
			if a.text("token_type") != "Bearer" || a.text("scope") != "read write" || a.fields["expires_in"] != 1800.0 {
				t.Errorf("the token endpoint answers %v, %v, %v", a.fields["token_type"], a.fields["scope"], a.fields["expires_in"])
			}
			if !strings.HasPrefix(a.text("access_token"), "ala_") || !strings.HasPrefix(a.text("refresh_token"), "alr_") {
				t.Errorf("the tokens are no access and no refresh token")
			}
			if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Pragma") != "no-cache" {
				t.Errorf("the answer may be kept: %v", a.header)
			}
			in := f.ok(IntrospectPath, "web", "token", a.text("access_token"))
			for field, want := range map[string]any{
				"active": true, "scope": "read write", "client_id": "web", "sub": "mia", "token_type": "Bearer", "iss": f.url,
				"sid": string(mia.Session.ID), "kind": "access_token",
			} {
				if in.fields[field] != want {
					t.Errorf("introspection: %s is %v, want %v", field, in.fields[field], want)
				}
			}
			// One revoke of the session, and all are refused by the next call.
			if err := f.a.Revoke(t.Context(), mia.Session.ID, afterlogin.ReasonSignedOut); err != nil {
				t.Fatal(err)
			}
			if f.active("web", a.text("access_token")) || f.active("web", a.text("refresh_token")) {
				t.Error("tokens are good after their session has ended")
			}
			if r := f.post(TokenPath, "web", "grant_type", "refresh_token", "refresh_token", a.text("refresh_token")); r.text("error") != InvalidGrant {
				t.Errorf("refresh after the session has ended: %d %s", r.status, r.body)
			}
		})
	}
}

// One offline grant too many is refused as such, and the one that there is stays.
func TestOfflineGrantLimit(t *testing.T) {
	f := newFixture(t, memstore.New(), func(c *afterlogin.Config) {
		c.Limits = map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindRefresh: {Max: 1, AtLimit: afterlogin.DenyNew}}
	}).usual()
	mia := f.signIn("mia")
	a := f.grant(mia.Token, "app", "com.example.app:/cb", "read offline_access")
	code := f.code(mia.Token, authorization("app", "com.example.app:/cb", "scope", "read offline_access"))
	r := f.post(TokenPath, "app", "grant_type", clients.AuthorizationCode, "code", code, "redirect_uri", "com.example.app:/cb", "code_verifier", verifier)
	if r.status != 400 || r.text("error") != InvalidGrant || !strings.Contains(r.text("error_description"), "as often as they may") {
		t.Errorf("one too many: %d %s", r.status, r.body)
	}
	f.ok(TokenPath, "app", "grant_type", "refresh_token", "refresh_token", a.text("refresh_token"))
}

// An offline grant outlives the session, and goes with everything that came from it.
func TestOfflineGrant(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	mia := f.signIn("mia")
	a := f.grant(mia.Token, "app", "com.example.app:/cb", "read offline_access")
	if err := f.a.Revoke(t.Context(), mia.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	b := f.ok(TokenPath, "app", "grant_type", "refresh_token", "refresh_token", a.text("refresh_token"))
	if !f.active("rs", b.text("access_token")) {
		t.Error("the access token of an offline grant ended with the session")
	}
	if _, err := f.a.RevokeFrom(t.Context(), mia.Session.ID, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	if f.active("rs", b.text("access_token")) {
		t.Error("the access token is good after all that came from its session has ended")
	}
}

func TestConsent(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	mia := f.signIn("mia")
	v := authorization("app", "http://127.0.0.1:53211/cb")
	page := f.ask(mia.Token, v)
	if page.status != http.StatusOK {
		t.Fatalf("%d %s", page.status, page.body)
	}
	for _, want := range []string{"Client app", "mia", "127.0.0.1:53211", "<li>read</li>"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the consent page does not say %q", want)
		}
	}
	csp := page.header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "form-action 'self' http: https:", styleHash} {
		if !strings.Contains(csp, want) {
			t.Errorf("the policy %q lacks %q", csp, want)
		}
	}
	if strings.Contains(page.body, "<script") || !strings.Contains(page.body, "<style>"+pageCSS+"</style>") {
		t.Error("the page has a script, or a style that the policy does not know")
	}
	if got := f.returned(f.decide(mia.Token, page.body, "deny")); got.Get("error") != AccessDenied || got.Get("state") != "xyz ~1" || got.Get("iss") != f.url {
		t.Errorf("denial sends %v", got)
	}
	if got := f.returned(f.decide(mia.Token, page.body, "allow")); got.Get("code") == "" {
		t.Errorf("consent sends %v", got)
	}
	// The form is bound to the session: another person's page is no consent.
	tom := f.signIn("tom")
	if a := f.decide(tom.Token, page.body, "allow"); a.status != http.StatusForbidden {
		t.Errorf("a form of another session: %d", a.status)
	}
	// A confidential client of the operator's own does not ask; any other does, and so does the same one with prompt=consent.
	// The policy says nothing but the scheme: a client may send the browser on to another origin, and [::1] is none there.
	for client, want := range map[string]struct{ to, action string }{
		"web": {"https://web.example.com/cb", "'self' https:"},
		"app": {"com.example.app:/cb", "'self' com.example.app:"},
	} {
		a := f.ask(mia.Token, authorization(client, want.to, "prompt", "consent"))
		if csp := a.header.Get("Content-Security-Policy"); a.status != http.StatusOK || !strings.HasSuffix(csp, "form-action "+want.action) {
			t.Errorf("prompt=consent for %s: %d %s", want.to, a.status, csp)
		}
	}
}

// Whoever is not signed in is sent to the sign-in page and comes back with the same request.
func TestSignInFirst(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	b := browser(t)
	for _, extra := range [][]string{nil, {"prompt", "login"}, {"max_age", "0"}} {
		v := authorization("web", f.url+"/callback", extra...)
		resp, err := b.Get(f.url + AuthorizePath + "?" + v.Encode())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if q := resp.Request.URL.Query(); resp.Request.URL.Path != "/callback" || q.Get("code") == "" || q.Get("state") != "xyz ~1" {
			t.Errorf("with %v the browser ends at %s", extra, resp.Request.URL.Path)
		}
	}
	for _, tt := range []struct {
		after time.Duration
		extra []string
		want  string
	}{
		{0, []string{"prompt", "none"}, "code"},
		{time.Minute, []string{"max_age", "120"}, "code"},
		{2 * time.Minute, []string{"max_age", "120", "prompt", "none"}, LoginRequired},
	} {
		f.pass(tt.after)
		mia := f.signIn("mia")
		f.pass(tt.after)
		got := f.returned(f.ask(mia.Token, authorization("web", "https://web.example.com/cb", tt.extra...)))
		if !got.Has(tt.want) && got.Get("error") != tt.want {
			t.Errorf("%v after a sign-in, %v sends %v", tt.after, tt.extra, got)
		}
		f.pass(-2 * tt.after)
	}
}

func TestClientCredentials(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	a := f.ok(TokenPath, "job", "grant_type", clients.ClientCredentials, "scope", "read", "resource", api)
	in := f.ok(IntrospectPath, "rs", "token", a.text("access_token"))
	if in.fields["sub"] != "job" || in.fields["aud"] != api || in.fields["scope"] != "read" || a.fields["refresh_token"] != nil {
		t.Errorf("%s", in.body)
	}
	// One for another service is none of this one's business.
	a = f.ok(TokenPath, "job", "grant_type", clients.ClientCredentials, "resource", other)
	if f.active("rs", a.text("access_token")) {
		t.Error("a service learns about a token for another")
	}
	if !f.active("job", a.text("access_token")) {
		t.Error("a client does not learn about its own token")
	}
	if err := f.a.RemoveClient(t.Context(), 0, "job"); err != nil {
		t.Fatal(err)
	}
	if a := f.post(TokenPath, "job", "grant_type", clients.ClientCredentials); a.text("error") != InvalidClient || a.status != 401 {
		t.Errorf("a removed client: %d %s", a.status, a.body)
	}
}

func TestExchange(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	mia, tom := f.signIn("mia"), f.signIn("tom")
	a := f.ok(TokenPath, "bff", "grant_type", clients.TokenExchange, "subject_token", mia.Token.Reveal(), "subject_token_type", typeSession,
		"scope", "read write", "resource", api)
	if a.text("issued_token_type") != typeAccess || a.text("scope") != "read write" {
		t.Errorf("%v", a.fields)
	}
	// Narrower, and with an actor.
	b := f.ok(TokenPath, "bff", "grant_type", clients.TokenExchange, "subject_token", a.text("access_token"), "subject_token_type", typeAccess,
		"scope", "read", "actor_token", tom.Token.Reveal(), "actor_token_type", typeSession)
	in := f.ok(IntrospectPath, "rs", "token", b.text("access_token"))
	if act, _ := in.fields["act"].(map[string]any); in.fields["sub"] != "mia" || act["sub"] != "tom" || in.fields["scope"] != "read" || in.fields["aud"] != api {
		t.Errorf("%s", in.body)
	}
	// Not wider again, and the actor stays.
	if r := f.post(TokenPath, "bff", "grant_type", clients.TokenExchange, "subject_token", b.text("access_token"), "subject_token_type", typeAccess,
		"scope", "write"); r.text("error") != InvalidScope {
		t.Errorf("a wider token: %s", r.body)
	}
	c := f.ok(TokenPath, "bff", "grant_type", clients.TokenExchange, "subject_token", b.text("access_token"), "subject_token_type", typeAccess,
		"requested_token_type", typeJWT)
	if c.text("issued_token_type") != typeJWT || !strings.HasPrefix(c.text("access_token"), "eyJ") {
		t.Errorf("no JWT: %v", c.fields["issued_token_type"])
	}
	in = f.ok(IntrospectPath, "rs", "token", c.text("access_token"))
	if act, _ := in.fields["act"].(map[string]any); act["sub"] != "tom" || in.fields["kind"] != "jwt" {
		t.Errorf("%s", in.body)
	}
	// A second actor stands in front of the first, who does not get lost; nor does either in a JWT.
	ann := f.signIn("ann")
	for kind, name := range map[string]string{typeAccess: "access_token", typeJWT: "jwt"} {
		d := f.ok(TokenPath, "bff", "grant_type", clients.TokenExchange, "subject_token", b.text("access_token"), "subject_token_type", typeAccess,
			"requested_token_type", kind, "actor_token", ann.Token.Reveal(), "actor_token_type", typeSession)
		in = f.ok(IntrospectPath, "rs", "token", d.text("access_token"))
		if !strings.Contains(in.body, `"act":{"sub":"ann","act":{"sub":"tom"}}`) || in.fields["kind"] != name || in.fields["sub"] != "mia" {
			t.Errorf("two actors: %s", in.body)
		}
	}
	// All end with the session.
	if err := f.a.Revoke(t.Context(), mia.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{a.text("access_token"), b.text("access_token"), c.text("access_token")} {
		if f.active("rs", token) {
			t.Error("a token is good after its session has ended")
		}
	}
}

func TestRevoke(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	mia := f.signIn("mia")
	a := f.grant(mia.Token, "web", "https://web.example.com/cb", "read")
	b := f.ok(TokenPath, "web", "grant_type", "refresh_token", "refresh_token", a.text("refresh_token"))
	// Somebody else's: nothing happens, and nothing is learned.
	if r := f.post(RevokePath, "job", "token", b.text("access_token")); r.status != 200 || r.body != "" || !f.active("web", b.text("access_token")) {
		t.Errorf("another client's token: %d %s", r.status, r.body)
	}
	if r := f.post(RevokePath, "web", "token", mia.Token.Reveal()); r.status != 200 || r.body != "" {
		t.Errorf("a session's token: %d %s", r.status, r.body)
	}
	if _, err := f.a.Validate(t.Context(), mia.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}); err != nil {
		t.Errorf("a client has ended a session: %v", err)
	}
	f.ok(RevokePath, "web", "token", "nonsense")
	f.ok(RevokePath, "web", "token", b.text("access_token"), "token_type_hint", "refresh_token") // a hint, and a wrong one
	if f.active("web", b.text("access_token")) || !f.active("web", b.text("refresh_token")) {
		t.Error("revoking an access token does not end it, or ends more")
	}
	f.ok(RevokePath, "web", "token", a.text("refresh_token")) // out of date, and still: whoever holds it wants it ended
	if f.active("web", a.text("access_token")) || f.active("web", b.text("refresh_token")) {
		t.Error("revoking a refresh token leaves something of its grant")
	}
	f.ok(RevokePath, "web", "token", a.text("refresh_token"))
	c := f.grant(mia.Token, "web", "https://web.example.com/cb", "read")
	f.store.set(true)
	f.pass(2 * time.Second)
	if r := f.post(RevokePath, "web", "token", c.text("refresh_token")); r.status != 503 || r.header.Get("Retry-After") == "" || r.text("error") != TemporarilyUnavailable {
		t.Errorf("without a store: %d %s", r.status, r.body)
	}
}

// Trouble is neither a yes nor a no, and no reason for a client to throw its tokens away.
func TestUnavailable(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	mia := f.signIn("mia")
	a := f.grant(mia.Token, "web", "https://web.example.com/cb", "read")
	f.store.set(true)
	for _, known := range []bool{true, false} { // the client is still in the cache, or not
		for path, form := range map[string][]string{
			TokenPath:      {"grant_type", "refresh_token", "refresh_token", a.text("refresh_token")},
			IntrospectPath: {"token", a.text("refresh_token")},
			RevokePath:     {"token", a.text("refresh_token")},
		} {
			if r := f.post(path, "web", form...); r.status != 503 || r.text("error") != TemporarilyUnavailable || r.header.Get("Retry-After") == "" {
				t.Errorf("%s without a store (client known: %v): %d %s", path, known, r.status, r.body)
			}
		}
		f.pass(2 * time.Second)
	}
	if r := f.ask(mia.Token, authorization("web", "https://web.example.com/cb")); r.status != 503 {
		t.Errorf("authorization without a store: %d", r.status)
	}
	f.store.set(false)
	f.ok(TokenPath, "web", "grant_type", "refresh_token", "refresh_token", a.text("refresh_token"))
}

func TestMetadataAndKeys(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	get := func(path string) *answer {
		r, err := http.NewRequestWithContext(t.Context(), "GET", f.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", "https://evil.example")
		return f.send(r)
	}
	m := get(MetadataPath)
	if m.text("issuer") != f.url || m.text("token_endpoint") != f.url+TokenPath || m.fields["authorization_response_iss_parameter_supported"] != true {
		t.Errorf("%s", m.body)
	}
	if m.header.Get("Cache-Control") != "public, max-age=600" || m.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%v", m.header)
	}
	k := get(KeysPath)
	keys, err := jwt.ParseJWKS([]byte(k.body))
	if err != nil || len(keys.All()) != 1 || k.header.Get("Content-Type") != "application/jwk-set+json" {
		t.Fatalf("%v %s", err, k.body)
	}
	// A signed introspection: verifies with the keys, is for who asked, and is no access token.
	f.client("jwt", clients.Settings{Auth: clients.Secret, GrantTypes: []string{clients.ClientCredentials}, Format: clients.JWT})
	token := f.ok(TokenPath, "jwt", "grant_type", clients.ClientCredentials).text("access_token")
	r, err := http.NewRequestWithContext(t.Context(), "POST", f.url+IntrospectPath, strings.NewReader("token="+token))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("jwt", f.secret["jwt"])
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/token-introspection+jwt")
	a := f.send(r)
	payload, err := keys.All()[0].VerifyJWS(a.body)
	if err != nil || a.header.Get("Content-Type") != "application/token-introspection+jwt" {
		t.Fatalf("%v: %d %v", err, a.status, a.header)
	}
	var got struct {
		Iss   string `json:"iss"`
		Aud   string `json:"aud"`
		Token struct {
			Active bool   `json:"active"`
			Sub    string `json:"sub"`
		} `json:"token_introspection"`
	}
	if err := json.Unmarshal(payload, &got); err != nil || got.Iss != f.url || got.Aud != "jwt" || !got.Token.Active || got.Token.Sub != "jwt" {
		t.Errorf("%v %s", err, payload)
	}
	if f.active("jwt", a.body) {
		t.Error("a signed answer passes for an access token")
	}
	v := jwt.Verifier{Keys: keys, Issuer: f.url, Audience: []string{f.url}, Type: jwt.TypeAccessToken}
	if c, err := v.Verify(t.Context(), token); err != nil || c.ClientID != "jwt" {
		t.Errorf("the access token does not verify: %v", err)
	}
}

// An API key with the scope validate may ask, too.
func TestIntrospectWithKey(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	key := func(r afterlogin.IssueRequest) string {
		r.Subject, r.Kind = "gateway", afterlogin.KindAPIKey
		got, err := f.a.Issue(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return got.Token.Reveal()
	}
	mia := f.signIn("mia")
	job := f.ok(TokenPath, "job", "grant_type", clients.ClientCredentials, "resource", other).text("access_token")
	web := f.grant(mia.Token, "web", "https://web.example.com/cb", "read")
	ask := func(header, value, token string) *answer {
		r, err := http.NewRequestWithContext(t.Context(), "POST", f.url+IntrospectPath, strings.NewReader("token="+token))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set(header, value)
		return f.send(r)
	}
	good := key(afterlogin.IssueRequest{Scopes: []string{"validate"}})
	bound := key(afterlogin.IssueRequest{Scopes: []string{"validate"}, Audience: []string{"afterlogin", api}})
	for _, tt := range []struct {
		name, header, value, token string
		status                     int
		active                     bool
	}{
		{"a bearer key", "Authorization", "Bearer " + good, job, 200, true},
		{"x-api-key", "X-Api-Key", good, job, 200, true},
		{"a session", "X-Api-Key", good, mia.Token.Reveal(), 200, true},
		{"a refresh token is its client's alone", "X-Api-Key", good, web.text("refresh_token"), 200, false},
		{"a key of another service", "X-Api-Key", bound, job, 200, false},
		{"a key of a service, and a token of none", "X-Api-Key", bound, web.text("access_token"), 200, true},
		{"no scope", "X-Api-Key", key(afterlogin.IssueRequest{Scopes: []string{"explain"}}), job, 403, false},
		{"a key that is for another service than this", "X-Api-Key", key(afterlogin.IssueRequest{Scopes: []string{"validate"}, Audience: []string{api}}), job, 401, false},
		{"no key", "Authorization", "Bearer nonsense", job, 401, false},
	} {
		a := ask(tt.header, tt.value, tt.token)
		if a.status != tt.status || a.status == 200 && a.fields["active"] != tt.active {
			t.Errorf("%s: %d %s", tt.name, a.status, a.body)
		}
		if a.status == 200 && !json.Valid([]byte(a.body)) {
			t.Errorf("%s: not JSON: %s", tt.name, a.body)
		}
		if a.status == 401 && !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s: %v", tt.name, a.header)
		}
	}
}

// A token that is asked about is not renewed, and an out-of-date refresh token ends nothing, whoever asks.
func TestIntrospectChangesNothing(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	mia := f.signIn("mia")
	a := f.grant(mia.Token, "web", "https://web.example.com/cb", "read")
	b := f.ok(TokenPath, "web", "grant_type", "refresh_token", "refresh_token", a.text("refresh_token"))
	c := f.ok(TokenPath, "web", "grant_type", "refresh_token", "refresh_token", b.text("refresh_token"))
	f.pass(time.Minute)
	for _, who := range []string{"rs", "job"} {
		if f.active(who, a.text("refresh_token")) || f.active(who, c.text("refresh_token")) {
			t.Error("another client learns about a refresh token")
		}
	}
	if f.active("web", a.text("refresh_token")) {
		t.Error("a refresh token is good that was replaced twice")
	}
	if !f.active("web", c.text("refresh_token")) {
		t.Error("asking about a token has ended its grant")
	}
	n := len(f.events())
	for range 3 {
		f.active("web", c.text("access_token"))
		f.active("rs", mia.Token.Reveal())
	}
	if got := f.events(); len(got) != n {
		t.Errorf("introspection has caused %v", got[n:])
	}
}

func (f *fixture) events() []afterlogin.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen)
}

// An offline grant is a root of its own, so that the store can take the code and fail at the grant. Then the code is used
// up, which is what docs/oauth.md says: the second try is refused, for certain, and the person signs in again.
func TestCodeUsedUpByTrouble(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	mia := f.signIn("mia")
	to := "https://web.example.com/cb"
	code := f.code(mia.Token, authorization("web", to, "scope", "read offline_access"))
	redeem := func() *answer {
		return f.post(TokenPath, "web", "grant_type", clients.AuthorizationCode, "code", code, "redirect_uri", to, "code_verifier", verifier)
	}
	f.store.after(1)
	if a := redeem(); a.status != 503 || a.text("error") != TemporarilyUnavailable {
		t.Fatalf("%d %s", a.status, a.body)
	}
	f.store.set(false)
	if a := redeem(); a.status != 400 || a.text("error") != InvalidGrant {
		t.Errorf("the second try: %d %s", a.status, a.body)
	}
	f.grant(mia.Token, "web", to, "read offline_access")
}

// Settings that this version cannot read are the server's trouble: nobody is told that the application is at fault, nor
// what the settings are, and the log says which client it is.
func TestUnreadableClient(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	mia := f.signIn("mia")
	if _, err := f.a.AddClient(t.Context(), 0, "later", json.RawMessage(`{"name":"x","require_dpop":true}`)); err != nil {
		t.Fatal(err)
	}
	a := f.ask(mia.Token, authorization("later", "https://later.example.com/cb"))
	if a.status != http.StatusInternalServerError || strings.Contains(a.body, "require_dpop") || a.header.Get("Location") != "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !strings.Contains(f.log.String(), "require_dpop") {
		t.Error("the log does not say what is wrong")
	}
}

// Whoever names a service twice means it once.
func TestRepeatedResource(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	a := f.ok(TokenPath, "job", slices.Concat([]string{"grant_type", clients.ClientCredentials}, slices.Repeat([]string{"resource", api}, 40))...)
	if in := f.ok(IntrospectPath, "job", "token", a.text("access_token")); in.fields["aud"] != api {
		t.Errorf("%s", in.body)
	}
}

// A store that does not answer is waited for, but not for ever: also where nobody else sets a limit, at introspection.
func TestSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := afterlogin.New(afterlogin.Config{Store: hanging{memstore.New()}})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		began := time.Now()
		if _, err := newKnown(a, time.Now).get(context.Background(), "job"); !errors.Is(err, afterlogin.ErrUnavailable) || time.Since(began) != requestTimeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// hanging is a store that answers no read.
type hanging struct{ store.Store }

func (hanging) Get(ctx context.Context, _ ...store.ID) ([]*store.Record, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
