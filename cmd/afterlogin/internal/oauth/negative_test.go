package oauth

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// raw sends a request that is wrong in a way that post cannot be. Headers are "Name: value".
func (f *fixture) raw(method, path, body string, headers ...string) *answer {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Content-Type" {
			r.Header.Del(name)
		}
		r.Header.Add(name, value)
	}
	return f.send(r)
}

func basic(id, secret string) string {
	return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
}

// negative is one request that must be refused: with this status and this error, and without a token.
type negative struct {
	name   string
	status int
	error  string
	send   func() *answer
}

// What must not work, at the endpoints for programs.
func TestNegative(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	mia := f.signIn("mia")
	secret := f.secret["job"]
	good := "grant_type=client_credentials"
	job := basic("job", secret)
	issuedTokens := []string{secret, mia.Token.Reveal()}
	note := func(a *answer) *answer {
		for _, name := range []string{"access_token", "refresh_token"} {
			if text := a.text(name); text != "" {
				issuedTokens = append(issuedTokens, text)
			}
		}
		return a
	}
	keys := map[string]*jwt.SigningKey{}
	for _, id := range []string{"signer", "stranger"} {
		key, err := jwt.GenerateKey(jwt.ES256)
		if err != nil {
			t.Fatal(err)
		}
		keys[id] = key
	}
	set, err := jwt.NewKeys(keys["signer"].Public())
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := set.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	f.client("signer", clients.Settings{Auth: clients.KeyJWT, Keys: jwks, GrantTypes: []string{clients.ClientCredentials}})
	f.client("plain", clients.Settings{Auth: clients.Secret, GrantTypes: []string{clients.TokenExchange}, Scopes: []string{"read"}})

	claims := func(change func(*jwt.Claims)) *jwt.Claims {
		now := f.clock()
		c := &jwt.Claims{Issuer: "signer", Subject: "signer", Audience: []string{f.url}, Expiry: now.Add(time.Minute), IssuedAt: now, ID: "a-" + now.String()}
		change(c)
		return c
	}
	sign := func(key *jwt.SigningKey, typ string, c *jwt.Claims) string {
		text, err := key.Sign(typ, c)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	asserted := func(text string, more ...string) *answer {
		return f.post(TokenPath, "", append([]string{"grant_type", clients.ClientCredentials, "client_assertion_type", assertionType, "client_assertion", text}, more...)...)
	}
	assertion := func(change func(*jwt.Claims)) func() *answer {
		return func() *answer { return asserted(sign(keys["signer"], jwt.TypeUntyped, claims(change))) }
	}
	n := 0
	unique := func(c *jwt.Claims) { n++; c.ID = "unique-" + string(rune('a'+n)) }
	if a := note(assertion(unique)()); a.status != 200 {
		t.Fatalf("a good assertion: %d %s", a.status, a.body)
	}
	if a := note(asserted(sign(keys["signer"], typeAssertion, claims(func(c *jwt.Claims) { unique(c) })), "client_id", "signer")); a.status != 200 {
		t.Fatalf("a good assertion with its own type: %d %s", a.status, a.body)
	}
	used := sign(keys["signer"], jwt.TypeUntyped, claims(unique))
	note(asserted(used))
	unsigned := func(header string) string {
		b, err := json.Marshal(map[string]any{"iss": "signer", "sub": "signer", "aud": f.url, "exp": f.clock().Add(time.Minute).Unix(), "iat": f.clock().Unix(), "jti": "none"})
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(b) + "."
	}

	redirect := "https://web.example.com/cb"
	code := func() string { return f.code(mia.Token, authorization("web", redirect)) }
	redeem := func(client, code string, pairs ...string) *answer {
		v := map[string]string{"redirect_uri": redirect, "code_verifier": verifier}
		for i := 0; i < len(pairs); i += 2 {
			v[pairs[i]] = pairs[i+1]
		}
		form := []string{"grant_type", clients.AuthorizationCode, "code", code}
		for name, value := range v {
			form = append(form, name, value)
		}
		return f.post(TokenPath, client, form...)
	}
	grant := note(f.grant(mia.Token, "web", redirect, "read"))
	jobToken := note(f.ok(TokenPath, "job", "grant_type", clients.ClientCredentials, "resource", other)).text("access_token")
	var spares []string
	spare := func() string {
		spares = append(spares, note(f.ok(TokenPath, "job", "grant_type", clients.ClientCredentials)).text("access_token"))
		return spares[len(spares)-1]
	}
	exchange := func(client string, pairs ...string) func() *answer {
		return func() *answer {
			return f.post(TokenPath, client, append([]string{"grant_type", clients.TokenExchange}, pairs...)...)
		}
	}
	refresh := func(client, token string, pairs ...string) func() *answer {
		return func() *answer {
			return f.post(TokenPath, client, append([]string{"grant_type", clients.RefreshToken, "refresh_token", token}, pairs...)...)
		}
	}
	post := func(path, client string, pairs ...string) func() *answer {
		return func() *answer { return f.post(path, client, pairs...) }
	}
	raw := func(method, path, body string, headers ...string) func() *answer {
		return func() *answer { return f.raw(method, path, body, headers...) }
	}
	cut := func(s string, n int) string { return s[:len(s)-n] }

	table := []negative{
		// The request's form.
		{"GET on the token endpoint", 405, InvalidRequest, raw("GET", TokenPath, "", job)},
		{"PUT on the token endpoint", 405, InvalidRequest, raw("PUT", TokenPath, good, job)},
		{"OPTIONS on the token endpoint", 405, InvalidRequest, raw("OPTIONS", TokenPath, "", "Origin: https://evil.example")},
		{"GET on introspection", 405, InvalidRequest, raw("GET", IntrospectPath, "", job)},
		{"GET on revocation", 405, InvalidRequest, raw("GET", RevokePath, "", job)},
		{"POST on the metadata", 405, InvalidRequest, raw("POST", MetadataPath, "")},
		{"POST on the keys", 405, InvalidRequest, raw("POST", KeysPath, "")},
		{"the secret in the query", 400, InvalidRequest, raw("POST", TokenPath+"?client_id=job&client_secret="+secret, good)},
		{"grant_type in the query", 400, InvalidRequest, raw("POST", TokenPath+"?"+good, "", job)},
		{"an empty query", 400, InvalidRequest, raw("POST", TokenPath+"?", good, job)},
		{"a token in the query of the metadata", 400, InvalidRequest, raw("GET", MetadataPath+"?token="+spare(), "")},
		{"a token in the query of the keys", 400, InvalidRequest, raw("GET", KeysPath+"?token="+spare(), "")},
		{"a token in the query of introspection", 400, InvalidRequest, raw("POST", IntrospectPath+"?token="+jobToken, "", job)},
		{"grant_type twice", 400, InvalidRequest, raw("POST", TokenPath, good+"&"+good, job)},
		{"client_secret twice", 400, InvalidRequest, raw("POST", TokenPath, good+"&client_id=job&client_secret="+secret+"&client_secret="+secret)},
		{"an unknown parameter twice", 400, InvalidRequest, raw("POST", TokenPath, good+"&x=1&x=2", job)},
		{"a parameter twice, once escaped", 400, InvalidRequest, raw("POST", TokenPath, good+"&%67rant_type=refresh_token", job)},
		{"a bad escape", 400, InvalidRequest, raw("POST", TokenPath, good+"&x=%zz", job)},
		{"bytes that are no UTF-8", 400, InvalidRequest, raw("POST", TokenPath, good+"&x=%ff", job)},
		{"a zero byte", 400, InvalidRequest, raw("POST", TokenPath, good+"%00", job)},
		{"semicolons", 400, InvalidRequest, raw("POST", TokenPath, good+";x=1", job)},
		{"65 parameters", 400, InvalidRequest, raw("POST", TokenPath, good+strings.Repeat("&resource="+url.QueryEscape(api), 64), job)},
		{"a large body", 413, InvalidRequest, raw("POST", TokenPath, good+"&x="+strings.Repeat("a", maxBody), job)},
		{"JSON", 400, InvalidRequest, raw("POST", TokenPath, `{"grant_type":"client_credentials"}`, job, "Content-Type: application/json")},
		{"no content type", 400, InvalidRequest, raw("POST", TokenPath, good, job, "Content-Type: ")},
		{"another charset", 400, InvalidRequest, raw("POST", TokenPath, good, job, "Content-Type: application/x-www-form-urlencoded; charset=utf-16")},
		{"a compressed body", 400, InvalidRequest, raw("POST", TokenPath, good, job, "Content-Encoding: gzip")},
		{"no grant_type", 400, InvalidRequest, raw("POST", TokenPath, "", job)},
		{"an empty grant_type", 400, InvalidRequest, raw("POST", TokenPath, "grant_type=", job)},
		{"grant_type=password", 400, UnsupportedGrantType, raw("POST", TokenPath, "grant_type=password&username=mia&password=x", job)},
		{"grant_type=implicit", 400, UnsupportedGrantType, raw("POST", TokenPath, "grant_type=implicit", job)},

		// Who asks.
		{"nobody", 401, InvalidClient, raw("POST", TokenPath, good)},
		{"an unknown client", 401, InvalidClient, raw("POST", TokenPath, good, basic("nobody", secret))},
		{"another client's secret", 401, InvalidClient, raw("POST", TokenPath, good, basic("web", secret))},
		{"a truncated secret", 401, InvalidClient, raw("POST", TokenPath, good, basic("job", cut(secret, 1)))},
		{"the hash of the secret", 401, InvalidClient, raw("POST", TokenPath, good, basic("job", clients.Hash(secret, f.clock()).SHA256))},
		{"no secret", 401, InvalidClient, raw("POST", TokenPath, good+"&client_id=job")},
		{"an empty secret", 401, InvalidClient, raw("POST", TokenPath, good, basic("job", ""))},
		{"a public client with a secret", 401, InvalidClient, raw("POST", TokenPath, "grant_type=refresh_token&refresh_token=x&client_id=app&client_secret="+secret)},
		{"Basic and a secret in the body", 400, InvalidRequest, raw("POST", TokenPath, good+"&client_id=job&client_secret="+secret, job)},
		{"Basic and an assertion", 400, InvalidRequest, raw("POST", TokenPath, good+"&client_assertion_type="+url.QueryEscape(assertionType)+"&client_assertion="+used, job)},
		{"two Authorization headers", 400, InvalidRequest, raw("POST", TokenPath, good, job, job)},
		{"two client_ids", 400, InvalidRequest, raw("POST", TokenPath, good+"&client_id=web", job)},
		{"Basic that is no base64", 401, InvalidClient, raw("POST", TokenPath, good, "Authorization: Basic !!!")},
		{"a bearer token", 401, InvalidClient, raw("POST", TokenPath, good, "Authorization: Bearer "+jobToken)},
		{"a secret without a client_id", 400, InvalidRequest, raw("POST", TokenPath, good+"&client_secret="+secret)},
		{"an unknown kind of assertion", 400, InvalidRequest, raw("POST", TokenPath, good+"&client_assertion_type=saml&client_assertion=x")},
		{"an assertion with alg none", 401, InvalidClient, func() *answer { return asserted(unsigned(`{"alg":"none","typ":"JWT"}`)) }},
		{"an assertion with a symmetric alg", 401, InvalidClient, func() *answer { return asserted(unsigned(`{"alg":"HS256","typ":"JWT"}`) + "c2lnbmF0dXJl") }},
		{"an assertion with jku", 401, InvalidClient, func() *answer {
			return asserted(unsigned(`{"alg":"ES256","typ":"JWT","jku":"https://evil.example/jwks"}`) + "c2lnbmF0dXJl")
		}},
		{"an assertion of a stranger", 401, InvalidClient, func() *answer { return asserted(sign(keys["stranger"], jwt.TypeUntyped, claims(unique))) }},
		{"an assertion that was used", 401, InvalidClient, func() *answer { return asserted(used) }},
		{"an assertion for somebody else", 401, InvalidClient, assertion(func(c *jwt.Claims) { unique(c); c.Audience = []string{"https://evil.example"} })},
		{"an assertion for the endpoint, which is not the issuer", 401, InvalidClient, assertion(func(c *jwt.Claims) { unique(c); c.Audience = []string{f.url + TokenPath} })},
		{"an assertion for two", 401, InvalidClient, assertion(func(c *jwt.Claims) { unique(c); c.Audience = []string{f.url, "https://evil.example"} })},
		{"an assertion about somebody else", 401, InvalidClient, assertion(func(c *jwt.Claims) { unique(c); c.Subject = "web" })},
		{"an assertion without jti", 401, InvalidClient, assertion(func(c *jwt.Claims) { c.ID = "" })},
		{"an assertion that is good for an hour", 401, InvalidClient, assertion(func(c *jwt.Claims) { unique(c); c.Expiry = f.clock().Add(time.Hour) })},
		{"an assertion that is over", 401, InvalidClient, assertion(func(c *jwt.Claims) {
			unique(c)
			c.IssuedAt = f.clock().Add(-2 * time.Hour)
			c.Expiry = f.clock().Add(-time.Hour)
		})},
		{"an assertion and another client_id", 401, InvalidClient, func() *answer {
			return asserted(sign(keys["signer"], jwt.TypeUntyped, claims(unique)), "client_id", "job")
		}},
		{"an access token as an assertion", 401, InvalidClient, func() *answer { return asserted(sign(keys["signer"], jwt.TypeAccessToken, claims(unique))) }},

		// What is asked for.
		{"a grant that the client may not use", 400, UnauthorizedClient, post(TokenPath, "web", "grant_type", clients.ClientCredentials)},
		{"client_credentials of a public client", 400, UnauthorizedClient, post(TokenPath, "app", "grant_type", clients.ClientCredentials)},
		{"a scope that the client may not have", 400, InvalidScope, post(TokenPath, "job", "grant_type", clients.ClientCredentials, "scope", "read admin")},
		{"offline_access for a client's own token", 400, InvalidScope, post(TokenPath, "job", "grant_type", clients.ClientCredentials, "scope", "offline_access")},
		{"a scope with a quote", 400, InvalidScope, post(TokenPath, "job", "grant_type", clients.ClientCredentials, "scope", `re"ad`)},
		{"two blanks between scopes", 400, InvalidScope, post(TokenPath, "job", "grant_type", clients.ClientCredentials, "scope", "read  write")},
		{"an unknown resource", 400, InvalidTarget, post(TokenPath, "job", "grant_type", clients.ClientCredentials, "resource", "https://evil.example")},
		{"a resource look-alike", 400, InvalidTarget, post(TokenPath, "job", "grant_type", clients.ClientCredentials, "resource", api+"/")},
		{"a resource for a client without any", 400, InvalidTarget, refresh("web", grant.text("refresh_token"), "resource", api)},
		{"no code", 400, InvalidRequest, func() *answer { return redeem("web", "") }},
		{"no code_verifier", 400, InvalidRequest, func() *answer { return redeem("web", code(), "code_verifier", "") }},
		{"a short code_verifier", 400, InvalidRequest, func() *answer { return redeem("web", code(), "code_verifier", "short") }},
		{"another code_verifier", 400, InvalidGrant, func() *answer { return redeem("web", code(), "code_verifier", strings.Repeat("a", 43)) }},
		{"the challenge for a code_verifier", 400, InvalidGrant, func() *answer { return redeem("web", code(), "code_verifier", challengeOf(verifier)) }},
		{"another redirect_uri", 400, InvalidGrant, func() *answer { return redeem("web", code(), "redirect_uri", f.url+"/callback") }},
		{"another client's code", 400, InvalidGrant, func() *answer { return redeem("app", code()) }},
		{"a truncated code", 400, InvalidGrant, func() *answer { return redeem("web", cut(code(), 3)) }},
		{"an altered code", 400, InvalidGrant, func() *answer { c := code(); return redeem("web", c[:50]+flip(c[50])+c[51:]) }},
		{"a code that is over", 400, InvalidGrant, func() *answer {
			c := code()
			f.pass(61 * time.Second)
			defer f.pass(-61 * time.Second)
			return redeem("web", c)
		}},
		{"an access token as a code", 400, InvalidGrant, func() *answer { return redeem("web", grant.text("access_token")) }},
		{"no refresh token", 400, InvalidRequest, refresh("web", "")},
		{"another client's refresh token", 400, InvalidGrant, refresh("app", grant.text("refresh_token"))},
		{"a truncated refresh token", 400, InvalidGrant, refresh("web", cut(grant.text("refresh_token"), 1))},
		{"an access token as a refresh token", 400, InvalidGrant, refresh("web", grant.text("access_token"))},
		{"a session as a refresh token", 400, InvalidGrant, refresh("web", mia.Token.Reveal())},
		{"more scopes at the refresh", 400, InvalidScope, refresh("web", grant.text("refresh_token"), "scope", "read write")},
		{"an exchange without a subject", 400, InvalidRequest, exchange("bff")},
		{"an exchange without a type", 400, InvalidRequest, exchange("bff", "subject_token", mia.Token.Reveal())},
		{"an exchange of an unknown type", 400, InvalidRequest, exchange("bff", "subject_token", mia.Token.Reveal(), "subject_token_type", "urn:ietf:params:oauth:token-type:saml2")},
		{"an exchange of nonsense", 400, InvalidRequest, exchange("bff", "subject_token", "nonsense", "subject_token_type", typeAccess)},
		{"an exchange of a session as a JWT", 400, InvalidRequest, exchange("bff", "subject_token", mia.Token.Reveal(), "subject_token_type", typeJWT)},
		{"an exchange of a refresh token", 400, InvalidRequest, exchange("bff", "subject_token", grant.text("refresh_token"), "subject_token_type", typeAccess)},
		{"an exchange of another service's token", 400, InvalidRequest, exchange("bff", "subject_token", jobToken, "subject_token_type", typeAccess)},
		{"an exchange by whom the token is not for, which is told like nonsense", 400, InvalidRequest, func() *answer {
			a, b := exchange("plain", "subject_token", jobToken, "subject_token_type", typeAccess)(), exchange("plain", "subject_token", flip(jobToken[0])+jobToken[1:], "subject_token_type", typeAccess)()
			if a.body != b.body || a.status != b.status {
				t.Errorf("a good token of somebody else's: %s; one that is none: %s", a.body, b.body)
			}
			return a
		}},
		{"an exchange by whom the token is not for", 400, InvalidRequest, exchange("plain", "subject_token", jobToken, "subject_token_type", typeAccess)},
		{"an exchange for a refresh token", 400, InvalidRequest, exchange("bff", "subject_token", mia.Token.Reveal(), "subject_token_type", typeSession,
			"requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")},
		{"an exchange for another service", 400, InvalidTarget, exchange("bff", "subject_token", mia.Token.Reveal(), "subject_token_type", typeSession, "audience", other)},
		{"an actor that is none", 400, InvalidRequest, exchange("bff", "subject_token", mia.Token.Reveal(), "subject_token_type", typeSession, "actor_token", "x", "actor_token_type", typeAccess)},
		{"an exchange by a client that may not", 400, UnauthorizedClient, exchange("job", "subject_token", mia.Token.Reveal(), "subject_token_type", typeSession)},

		// Introspection and revocation.
		{"introspection by nobody", 401, InvalidClient, raw("POST", IntrospectPath, "token="+jobToken)},
		{"introspection by a public client", 401, InvalidClient, post(IntrospectPath, "app", "token", jobToken)},
		{"introspection of nothing", 400, InvalidRequest, post(IntrospectPath, "job")},
		{"introspection with a session", 401, InvalidToken, raw("POST", IntrospectPath, "token="+jobToken, "Authorization: Bearer "+mia.Token.Reveal())},
		{"introspection by a client and a key", 400, InvalidRequest, raw("POST", IntrospectPath, "token="+jobToken, job, "X-Api-Key: x")},
		{"revocation by nobody", 401, InvalidClient, raw("POST", RevokePath, "token="+jobToken)},
		{"revocation of nothing", 400, InvalidRequest, post(RevokePath, "job")},
		{"revocation of a JWT", 400, UnsupportedTokenType, post(RevokePath, "job", "token", used)},
	}
	if len(table) < 60 {
		t.Errorf("%d cases", len(table))
	}
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			f.pass(time.Minute / 8) // failures are forgotten, one after the other
			a := tt.send()
			if a.status != tt.status || a.text("error") != tt.error {
				t.Errorf("%d %s, want %d %s", a.status, a.body, tt.status, tt.error)
			}
			if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" {
				t.Errorf("headers %v", a.header)
			}
			if (a.status == 401) != (a.header.Get("WWW-Authenticate") != "") || (a.status == 405) != (a.header.Get("Allow") != "") {
				t.Errorf("headers %v", a.header)
			}
			for name := range a.header {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s: %s", name, a.header.Get(name))
				}
			}
			if a.text("access_token") != "" || anySecret.MatchString(a.body) || slices.ContainsFunc(issuedTokens, func(s string) bool { return strings.Contains(a.body, s) }) {
				t.Errorf("a token or a secret stands in the answer")
			}
			for _, c := range []byte(a.text("error_description")) { // RFC 6749, 5.2
				if c < ' ' || c > '~' || c == '"' || c == '\\' {
					t.Errorf("error_description holds %q", c)
				}
			}
		})
	}
	for _, token := range append(spares, jobToken) {
		if f.active("job", token) {
			t.Error("a token that stood in a URL is good")
		}
	}
	if !f.active("web", grant.text("refresh_token")) {
		t.Error("refusals have ended a grant")
	}
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

// What must not work at the authorization endpoint: where the address is not certain nobody is sent anywhere.
func TestNegativeAuthorization(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	mia := f.signIn("mia")
	web, app := "https://web.example.com/cb", "http://127.0.0.1/cb"
	for _, tt := range []struct {
		name   string
		client string
		to     string
		pairs  []string
		want   string // the error that is sent to the client; "" is a page
	}{
		{"an unknown client", "nobody", web, nil, ""},
		{"no client", "", web, nil, ""},
		{"a client without the grant", "job", web, nil, ""},
		{"another path", "web", "https://web.example.com/cb/", nil, ""},
		{"a longer path", "web", "https://web.example.com/cb/../evil", nil, ""},
		{"a query", "web", "https://web.example.com/cb?x=1", nil, ""},
		{"a fragment", "web", "https://web.example.com/cb#x", nil, ""},
		{"a user name", "web", "https://web.example.com@evil.example/cb", nil, ""},
		{"a user name in front", "web", "https://evil@web.example.com/cb", nil, ""},
		{"another case", "web", "https://WEB.example.com/cb", nil, ""},
		{"a subdomain", "web", "https://a.web.example.com/cb", nil, ""},
		{"a domain behind", "web", "https://web.example.com.evil.example/cb", nil, ""},
		{"a port", "web", "https://web.example.com:443/cb", nil, ""},
		{"http", "web", "http://web.example.com/cb", nil, ""},
		{"an encoded path", "web", "https://web.example.com/%63b", nil, ""},
		{"a backslash", "web", `https://web.example.com\@evil.example/cb`, nil, ""},
		{"javascript", "web", "javascript:alert(1)", nil, ""},
		{"a loopback name for an address", "app", "http://localhost/cb", nil, ""},
		{"another loopback address", "app", "http://[::1]/cb", nil, ""},
		{"a host like a loopback one", "app", "http://127.0.0.1.evil.example/cb", nil, ""},
		{"a loopback port and another path", "app", "http://127.0.0.1:8080/evil", nil, ""},
		{"a loopback port and a user", "app", "http://a@127.0.0.1:8080/cb", nil, ""},
		{"another app's scheme", "app", "com.example.apps:/cb", nil, ""},
		{"none of several", "web", "", nil, ""},
		{"no response_type", "web", web, []string{"response_type", ""}, InvalidRequest},
		{"the implicit grant", "web", web, []string{"response_type", "token"}, UnsupportedResponseType},
		{"a hybrid", "web", web, []string{"response_type", "code id_token"}, UnsupportedResponseType},
		{"a fragment for an answer", "web", web, []string{"response_mode", "fragment"}, InvalidRequest},
		{"a form for an answer", "web", web, []string{"response_mode", "form_post"}, InvalidRequest},
		{"no PKCE", "web", web, []string{"code_challenge", ""}, InvalidRequest},
		{"no method", "web", web, []string{"code_challenge_method", ""}, InvalidRequest},
		{"plain", "web", web, []string{"code_challenge_method", "plain"}, InvalidRequest},
		{"a short challenge", "web", web, []string{"code_challenge", "short"}, InvalidRequest},
		{"a challenge that is none", "web", web, []string{"code_challenge", strings.Repeat("+", 43)}, InvalidRequest},
		{"a scope too many", "web", web, []string{"scope", "read admin"}, InvalidScope},
		{"openid", "web", web, []string{"scope", "openid"}, InvalidScope},
		{"a resource too many", "web", web, []string{"resource", api}, InvalidTarget},
		{"an unknown prompt", "web", web, []string{"prompt", "create"}, InvalidRequest},
		{"none and login", "web", web, []string{"prompt", "none login"}, InvalidRequest},
		{"a negative max_age", "web", web, []string{"max_age", "-1"}, InvalidRequest},
		{"a request object", "web", web, []string{"request", "eyJhbGciOiJub25lIn0.e30."}, RequestNotSupported},
		{"a request_uri", "web", web, []string{"request_uri", "https://evil.example"}, RequestURINotSupported},
		{"no question, and no consent", "app", app, []string{"prompt", "none"}, ConsentRequired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := authorization(tt.client, tt.to, tt.pairs...)
			if tt.to == "" {
				v.Del("redirect_uri")
			}
			a := f.ask(mia.Token, v)
			if tt.want == "" {
				if a.status != http.StatusBadRequest || a.header.Get("Location") != "" || strings.Contains(a.body, "evil") {
					t.Errorf("%d, to %q", a.status, a.header.Get("Location"))
				}
				return
			}
			got := f.returned(a)
			if !strings.HasPrefix(a.header.Get("Location"), tt.to+"?") || got.Get("error") != tt.want || got.Has("code") || got.Get("state") != "xyz ~1" || got.Get("iss") != f.url {
				t.Errorf("to %s", a.header.Get("Location"))
			}
		})
	}
	for name, query := range map[string]string{
		"client_id twice":    authorization("web", web).Encode() + "&client_id=web",
		"redirect_uri twice": authorization("web", web).Encode() + "&redirect_uri=" + url.QueryEscape("https://evil.example"),
		"a bad escape":       authorization("web", web).Encode() + "&x=%zz",
	} {
		if a := f.raw("GET", AuthorizePath+"?"+query, "", "Cookie: "+httpauth.PlainCookieName+"="+mia.Token.Reveal()); a.status != 400 || a.header.Get("Location") != "" {
			t.Errorf("%s: %d", name, a.status)
		}
	}
	for method, want := range map[string]int{"PUT": 405, "HEAD": 405, "OPTIONS": 405, "DELETE": 405} {
		if a := f.raw(method, AuthorizePath+"?"+authorization("web", web).Encode(), ""); a.status != want {
			t.Errorf("%s: %d", method, a.status)
		}
	}
	cookie := "Cookie: " + httpauth.PlainCookieName + "=" + mia.Token.Reveal()
	form := url.Values{"request": {authorization("web", web).Encode()}, "decision": {"allow"}}.Encode()
	if a := f.raw("POST", AuthorizePath, form, cookie); a.status != 403 || a.header.Get("Location") != "" {
		t.Errorf("consent without a CSRF token: %d", a.status)
	}
	if a := f.raw("POST", AuthorizePath, form, cookie, "Sec-Fetch-Site: cross-site"); a.status != 403 {
		t.Errorf("consent from another site: %d", a.status)
	}
	if a := f.raw("POST", AuthorizePath, form); a.status != 401 {
		t.Errorf("consent of nobody: %d", a.status)
	}
	for mode, want := range map[string]int{"navigate": 303, "cors": 403, "no-cors": 403, "same-origin": 403, "websocket": 403} {
		if a := f.raw("GET", AuthorizePath+"?"+authorization("web", web).Encode(), "", cookie, "Sec-Fetch-Mode: "+mode); a.status != want || (want == 403) != (a.header.Get("Location") == "") {
			t.Errorf("a request of mode %s: %d", mode, a.status)
		}
	}
	if a := f.raw("GET", AuthorizePath+"?"+authorization("web", web, "state", strings.Repeat("a", 3000)).Encode(), "", cookie); a.status != 414 {
		t.Errorf("a long address: %d", a.status)
	}
}

// A loopback address may have any port; nothing else may differ.
func TestLoopbackPort(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	mia := f.signIn("mia")
	for _, to := range []string{"http://127.0.0.1/cb", "http://127.0.0.1:1234/cb", "http://127.0.0.1:65535/cb"} {
		if f.code(mia.Token, authorization("app", to)) == "" {
			t.Errorf("%s gets no code", to)
		}
	}
}

// A code is good once. The client's own second try is refused, and nothing else; so is a copy that comes without what goes
// with it. Whoever has all of it, and comes late, ends what came of it (OAuth 2.1, 4.1.3).
func TestCodeReplay(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, open(t)).usual()
			mia := f.signIn("mia")
			to := "https://web.example.com/cb"
			redeem := func(client, code, verifier string) *answer {
				return f.post(TokenPath, client, "grant_type", clients.AuthorizationCode, "code", code, "redirect_uri", to, "code_verifier", verifier)
			}
			code := f.code(mia.Token, authorization("web", to))
			// Not the client, not the verifier: the code stays good.
			for _, a := range []*answer{redeem("app", code, verifier), redeem("web", code, strings.Repeat("x", 50))} {
				if a.text("error") != InvalidGrant {
					t.Errorf("%d %s", a.status, a.body)
				}
			}
			first := redeem("web", code, verifier)
			if first.status != 200 {
				t.Fatalf("%d %s", first.status, first.body)
			}
			f.pass(5 * time.Second)
			if a := redeem("web", code, verifier); a.text("error") != InvalidGrant || !f.active("web", first.text("access_token")) {
				t.Errorf("a second try at once: %s", a.body)
			}
			f.pass(6 * time.Second)
			for _, a := range []*answer{redeem("app", code, verifier), redeem("web", code, strings.Repeat("x", 50))} {
				if a.text("error") != InvalidGrant || !f.active("web", first.text("access_token")) {
					t.Errorf("a replay by somebody who has the code alone: %s", a.body)
				}
			}
			if a := redeem("web", code, verifier); a.text("error") != InvalidGrant {
				t.Errorf("a replay: %s", a.body)
			}
			if f.active("web", first.text("access_token")) || f.active("web", first.text("refresh_token")) {
				t.Error("a replay leaves what the code was redeemed for")
			}
			if !slices.ContainsFunc(f.events(), func(e afterlogin.Event) bool { return e.Type == afterlogin.EventCodeReplayed }) {
				t.Error("nobody is told of the replay")
			}
		})
	}
}

// Whoever fails again and again is told when to come back, and no longer stands in the log. Whoever knows the secret is let in
// meanwhile, and so is every other name.
func TestRepeatedFailures(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	var last *answer
	for range maxFailures + 1 {
		last = f.raw("POST", TokenPath, "grant_type=client_credentials", basic("job", "wrong"))
	}
	if last.status != http.StatusTooManyRequests || last.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", last.status, last.body)
	}
	f.ok(TokenPath, "job", "grant_type", clients.ClientCredentials)
	if a := f.raw("POST", TokenPath, "grant_type=client_credentials", basic("web", "wrong")); a.status != 401 {
		t.Errorf("another name: %d", a.status)
	}
	// An assertion names its client itself.
	bad := func(iss string) *answer {
		text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+iss+`","aud":"x"}`)) + ".c2ln"
		return f.post(TokenPath, "", "grant_type", clients.ClientCredentials, "client_assertion_type", assertionType, "client_assertion", text)
	}
	for range maxFailures + 1 {
		last = bad("one")
	}
	if last.status != http.StatusTooManyRequests {
		t.Errorf("assertions of one client: %d %s", last.status, last.body)
	}
	if a := bad("other"); a.status != 401 {
		t.Errorf("assertions of another: %d", a.status)
	}
	f.pass(2 * time.Minute)
	if a := f.raw("POST", TokenPath, "grant_type=client_credentials", basic("job", "wrong")); a.status != 401 {
		t.Errorf("later: %d", a.status)
	}
}

// Secrets overlap when they are rotated.
func TestSecretRotation(t *testing.T) {
	f := newFixture(t, memstore.New()).usual()
	reg, err := f.a.Client(t.Context(), 0, "job")
	if err != nil {
		t.Fatal(err)
	}
	s, err := clients.Parse(reg.Settings)
	if err != nil {
		t.Fatal(err)
	}
	old := f.secret["job"]
	text, hash := clients.NewSecret(f.clock())
	s.Rotate(hash, f.clock(), time.Hour)
	if _, err := f.a.ChangeClient(t.Context(), 0, "job", s.JSON(), reg.Version); err != nil {
		t.Fatal(err)
	}
	status := func(secret string) int {
		return f.raw("POST", TokenPath, "grant_type=client_credentials", basic("job", secret)).status
	}
	if status(text) != 200 || status(old) != 200 {
		t.Error("during the overlap one of the two is refused")
	}
	f.pass(time.Hour)
	if status(text) != 200 || status(old) != 401 {
		t.Error("after the overlap the new secret is refused, or the old one is not")
	}
}
