package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// robot makes an API key past HTTP.
func (f *fixture) robot() *Session {
	f.t.Helper()
	got, err := f.a.Issue(f.t.Context(), afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey})
	if err != nil {
		f.t.Fatal(err)
	}
	f.issued(got.Token.Reveal())
	return newSession(got.Session)
}

// makeKey makes an API key over the API.
func (f *fixture) makeKey(body string) CreatedKey {
	f.t.Helper()
	var c CreatedKey
	f.ok("POST", "/v1/api-keys", body, &c)
	f.issued(c.Token)
	return c
}

// ask validates with the fields, given as JSON behind the token.
func (f *fixture) ask(token, fields string) Verdict {
	f.t.Helper()
	b, _ := json.Marshal(token)
	var v Verdict
	f.ok("POST", "/v1/validate", `{"token":`+string(b)+`,`+fields+`}`, &v)
	return v
}

func TestAPIKeys(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, open(t))
			mia := f.signIn(`{"subject":"mia"}`)
			c := f.makeKey(`{"subject":"mia","name":"build server","scopes":["orders:read"],"lifetime":"30d","networks":["203.0.113.0/24","2001:db8::1"],
				"rate":3,"audience":["orders"],"origin":"` + mia.Session.ID + `"}`)
			k := c.APIKey
			if !strings.HasPrefix(c.Token, "alk_") || k.Kind != "api_key" || k.Name != "build server" || k.Rate != 3 || k.Origin != mia.Session.ID ||
				!slices.Equal(k.Networks, []string{"203.0.113.0/24", "2001:db8::1/128"}) || !slices.Equal(k.Audience, []string{"orders"}) ||
				k.ExpiresAt.Sub(f.now).Round(time.Hour) != 30*24*time.Hour {
				t.Fatalf("%+v", k)
			}
			here := `"kinds":["api_key"],"device":{"ip":"203.0.113.7"}`
			for _, tt := range []struct{ fields, reason string }{
				{here, ""},
				{`"kinds":["api_key"],"device":{"ip":"::ffff:203.0.113.7"}`, ""},
				{`"kinds":["api_key"],"device":{"ip":"2001:db8::1"},"audience":["x","orders"],"scopes":["orders:read"]`, ""},
				{here, "rate_limited"},
				{`"kinds":["api_key"]`, "wrong_network"},
				{`"kinds":["api_key"],"device":{"ip":"203.0.114.1"}`, "wrong_network"},
				{here + `,"audience":["invoices"]`, "wrong_audience"},
				{here + `,"scopes":["orders:write"]`, "scope"},
				{`"device":{"ip":"203.0.113.7"}`, "wrong_kind"},
			} {
				v := f.ask(c.Token, tt.fields)
				if v.Reason != tt.reason || v.Active != (tt.reason == "") || (v.RetryAfter == 20) != (tt.reason == "rate_limited") {
					t.Errorf("%s: %+v, want %q", tt.fields, v, tt.reason)
				}
			}
			f.pass(time.Minute)

			var rotated CreatedKey
			a := f.ok("POST", "/v1/api-keys/"+k.ID+"/rotate", `{"overlap":"1h"}`, &rotated)
			f.issued(rotated.Token)
			if rotated.APIKey.ID == k.ID || rotated.APIKey.Name != k.Name || rotated.APIKey.Rate != 3 || a.header.Get("Location") != "/v1/api-keys/"+rotated.APIKey.ID {
				t.Errorf("rotated: %+v", rotated.APIKey)
			}
			for _, token := range []string{c.Token, rotated.Token} {
				if v := f.ask(token, here); !v.Active {
					t.Errorf("during the overlap: %+v", v)
				}
			}
			if a := f.do("POST", "/v1/api-keys/"+k.ID+"/rotate", f.key, ""); a.status != 409 || a.kind() != "rotation-pending" || !strings.Contains(a.body, rotated.APIKey.ID) {
				t.Errorf("rotated twice: %d %s", a.status, a.body)
			}
			f.pass(2 * time.Hour)
			if v := f.ask(c.Token, here); v.Reason != "expired" {
				t.Errorf("after the overlap: %+v", v)
			}
			var shown Session
			f.ok("GET", "/v1/api-keys/"+k.ID, "", &shown)
			if shown.EndedWhy != "expired" {
				t.Errorf("shown: %+v", shown)
			}
			var list List
			f.ok("GET", "/v1/api-keys?subject=mia", "", &list)
			if len(list.Data) != 1 || list.Data[0].ID != rotated.APIKey.ID {
				t.Errorf("list: %+v", list.Data)
			}
			f.ok("GET", "/v1/api-keys?subject=mia&ended=true", "", &list)
			if len(list.Data) != 2 {
				t.Errorf("list with the ended: %+v", list.Data)
			}
			// The new key came from the same session, and ends with all that came from that.
			if a := f.do("DELETE", "/v1/sessions/"+mia.Session.ID+"?derived=true", f.apiKey(SessionsWrite), ""); a.status != 403 {
				t.Errorf("derived without the right to end keys: %d", a.status)
			}
			f.ok("DELETE", "/v1/sessions/"+mia.Session.ID+"?derived=true", "", nil)
			if v := f.ask(rotated.Token, here); v.Reason != "revoked" {
				t.Errorf("after its origin was ended with all that came from it: %+v", v)
			}
			if v := f.validate(mia.Token); v.Reason != "revoked" {
				t.Errorf("the origin: %+v", v)
			}

			other := f.makeKey(`{"subject":"mia","expires_at":"` + f.now.Add(90*time.Minute).Format(time.RFC3339) + `"}`)
			f.ok("DELETE", "/v1/api-keys/"+other.APIKey.ID, "", nil)
			f.ok("DELETE", "/v1/api-keys/"+other.APIKey.ID, "", nil)
			if v := f.ask(other.Token, `"kinds":["api_key"]`); v.Reason != "revoked" || v.Cause != "administrator" {
				t.Errorf("revoked: %+v", v)
			}
			if a := f.do("POST", "/v1/api-keys/"+other.APIKey.ID+"/rotate", f.key, ""); a.status != 409 || a.kind() != "session-over" {
				t.Errorf("rotate an ended key: %d %s", a.status, a.body)
			}
		})
	}
}

// A key that was made elsewhere is taken over by its hash, and goes on working as it is.
func TestImportedKeys(t *testing.T) {
	f := newFixture(t, memstore.New())
	made := "sk_live_" + strings.Repeat("9aF,", 6)
	f.tokens = append(f.tokens, strings.Repeat("9aF,", 20)+made)
	sum := sha256.Sum256([]byte(made))
	var c CreatedKey
	a := f.ok("POST", "/v1/api-keys", `{"subject":"partner","scopes":["validate"],"sha256":"`+hex.EncodeToString(sum[:])+`"}`, &c)
	if c.Token != "" || strings.Contains(a.body, `"token"`) || c.APIKey.Kind != "api_key" {
		t.Errorf("%s", a.body)
	}
	if v := f.ask(made, `"kinds":["api_key"]`); !v.Active || v.Session.ID != c.APIKey.ID {
		t.Errorf("%+v", v)
	}
	// It is one for this API, too, both ways.
	if a := f.do("POST", "/v1/validate", "", `{"token":"x"}`, "x-api-key: "+made); a.status != 200 {
		t.Errorf("x-api-key: %d %s", a.status, a.body)
	}
	if a := f.do("POST", "/v1/validate", made, `{"token":"x"}`); a.status != 200 {
		t.Errorf("bearer: %d %s", a.status, a.body)
	}
	if a := f.do("POST", "/v1/api-keys", f.key, `{"subject":"x","sha256":"`+hex.EncodeToString(sum[:])+`"}`); a.status != 409 || a.kind() != "key-exists" {
		t.Errorf("imported twice: %d %s", a.status, a.body)
	}
}

func TestKeyRequests(t *testing.T) {
	f := newFixture(t, memstore.New())
	id := f.robot().ID
	session := f.signIn(`{"subject":"mia"}`).Session.ID
	for _, tt := range []struct {
		method, path, body string
		status             int
		kind, want         string
	}{
		{"POST", "/v1/api-keys", `{}`, 422, "invalid-request", "body.subject"},
		{"POST", "/v1/api-keys", `{"subject":"x","scope":["a"]}`, 422, "invalid-request", "did you mean"},
		{"POST", "/v1/api-keys", `{"subject":"afterlogin/admin"}`, 422, "invalid-request", "belong to the server"},
		{"POST", "/v1/api-keys", `{"subject":"x","networks":["203.0.113.7/24"]}`, 422, "invalid-request", "did you mean 203.0.113.0/24"},
		{"POST", "/v1/api-keys", `{"subject":"x","networks":["::ffff:203.0.113.0/120"]}`, 422, "invalid-request", "as such"},
		{"POST", "/v1/api-keys", `{"subject":"x","networks":["fe80::1%eth0"]}`, 422, "invalid-request", "body.networks"},
		{"POST", "/v1/api-keys", `{"subject":"x","networks":["everywhere"]}`, 422, "invalid-request", "body.networks"},
		{"POST", "/v1/api-keys", `{"subject":"x","rate":-1}`, 422, "invalid-request", "body.rate"},
		{"POST", "/v1/api-keys", `{"subject":"x","rate":2000000}`, 422, "invalid-request", "body.rate"},
		{"POST", "/v1/api-keys", `{"subject":"x","no_expiry":true}`, 422, "invalid-request", "body.no_expiry"},
		{"POST", "/v1/api-keys", `{"subject":"x","no_expiry":true,"lifetime":"1d"}`, 422, "invalid-request", "one of them"},
		{"POST", "/v1/api-keys", `{"subject":"x","lifetime":"0s"}`, 422, "invalid-request", "body.lifetime"},
		{"POST", "/v1/api-keys", `{"subject":"x","expires_at":"2020-01-01T00:00:00Z"}`, 422, "invalid-request", "body.expires_at"},
		{"POST", "/v1/api-keys", `{"subject":"x","sha256":"abc"}`, 422, "invalid-request", "body.sha256"},
		{"POST", "/v1/api-keys", `{"subject":"x","origin":"ses_x"}`, 422, "invalid-request", "body.origin"},
		{"POST", "/v1/api-keys", `{"subject":"x","origin":"` + session + `"}`, 422, "invalid-request", "another subject"},
		{"POST", "/v1/api-keys", `{"subject":"x","audience":[""]}`, 422, "invalid-request", "body.audience"},
		{"POST", "/v1/api-keys", `{"subject":"x","name":"` + strings.Repeat("x", 200) + `"}`, 422, "invalid-request", "body.name"},
		{"GET", "/v1/api-keys?kind=session", "", 422, "invalid-request", "query.kind"},
		{"GET", "/v1/api-keys/" + session, "", 404, "no-such-session", "no such API key"},
		{"GET", "/v1/api-keys/x", "", 400, "bad-session-id", "path.id"},
		{"DELETE", "/v1/api-keys/" + session, "", 404, "no-such-session", ""},
		{"POST", "/v1/api-keys/" + id + "/rotate", `{"overlap":"31d"}`, 422, "invalid-request", "body.overlap"},
		{"POST", "/v1/api-keys/" + id + "/rotate", `{"overlap":"soon"}`, 422, "invalid-request", "body.overlap"},
		{"POST", "/v1/api-keys/" + id + "/rotate", `{"over":"1h"}`, 422, "invalid-request", "body.over"},
		{"PATCH", "/v1/api-keys/" + id, `{}`, 405, "method-not-allowed", "DELETE, GET, HEAD"},
		{"POST", "/v1/keys/rotate", `{"algorithm":"HS256"}`, 422, "invalid-request", "body.algorithm"},
		{"POST", "/v1/keys/rotate", `{"lead":"14m"}`, 422, "invalid-request", "15m to 30d"},
		{"POST", "/v1/keys/rotate", `{"lead":"31d"}`, 422, "invalid-request", "15m to 30d"},
		{"POST", "/v1/keys/x/retire", "", 404, "no-such-key", ""},
		{"POST", "/v1/sessions/" + session + "/tokens", `{"format":"saml"}`, 422, "invalid-request", "body.format"},
		{"POST", "/v1/sessions/" + session + "/tokens", `{"lifetime":"1ms"}`, 422, "invalid-request", "body.lifetime"},
		{"POST", "/v1/sessions/" + id + "/tokens", `{"scopes":["x"]}`, 422, "invalid-request", "more than"},
		{"POST", "/v1/sessions/ses_AAAAAAAAAAAAAAAAAAAAAAA/tokens", `{}`, 404, "no-such-session", ""},
		{"POST", "/v1/tickets", `{"target":"/x"}`, 422, "invalid-request", "one of them"},
		{"POST", "/v1/tickets", `{"target":"/x","session":"` + session + `","token":"x"}`, 422, "invalid-request", "one of them"},
		{"POST", "/v1/tickets", `{"session":"` + session + `"}`, 422, "invalid-request", "body.target"},
		{"POST", "/v1/tickets", `{"session":"` + session + `","target":"a\r\nb"}`, 422, "invalid-request", "body.target"},
		{"POST", "/v1/tickets", `{"session":"x","target":"/x"}`, 400, "bad-session-id", "body.session"},
		{"POST", "/v1/tickets", `{"session":"` + id + `","target":"/x"}`, 422, "invalid-request", "no session"},
		{"POST", "/v1/tickets/redeem", `{"ticket":"x"}`, 422, "invalid-request", "body.target"},
		{"DELETE", "/v1/sessions/" + session + "?derived=maybe", "", 422, "invalid-request", "query.derived"},
		{"GET", "/v1/events?since=x", "", 422, "invalid-request", "known are after"},
		{"GET", "/v1/events?after=" + strings.Repeat("x", maxCursor+1), "", 422, "invalid-request", "query.after"},
		{"POST", "/v1/validate", `{"token":"x","kinds":["ticket"]}`, 422, "invalid-request", "body.kinds"},
		{"POST", "/v1/validate", `{"token":"x","device":{"addr":"1.2.3.4"}}`, 422, "invalid-request", "body.device.addr"},
		{"POST", "/v1/validate", `{"token":"x","device":{"IP":"1.2.3.4"}}`, 422, "invalid-request", "body.device.IP"},
		{"POST", "/v1/validate", `{"token":"x","device":{"ip":"1.2.3.4:80"}}`, 422, "invalid-request", "body.device.ip"},
		{"POST", "/v1/validate", `{"token":"x","device":[]}`, 422, "invalid-request", "body.device"},
		{"POST", "/v1/validate", `{"token":"x","audience":"orders"}`, 422, "invalid-request", "body.audience"},
	} {
		a := f.do(tt.method, tt.path, f.key, tt.body)
		if a.status != tt.status || a.kind() != tt.kind || !strings.Contains(a.body, tt.want) {
			t.Errorf("%s %s %.100s\n got %d %s\nwant %d %s with %q", tt.method, tt.path, tt.body, a.status, a.body, tt.status, tt.kind, tt.want)
		}
	}
}

// Nobody gets at more by making, rotating or ending keys than what he has.
func TestKeysGiveNoMore(t *testing.T) {
	f := newFixture(t, memstore.New())
	clerk := f.apiKey(APIKeysWrite, SessionsRead, TokensIssue)
	if a := f.do("POST", "/v1/api-keys", clerk, `{"subject":"x","scopes":["orders:read","sessions:read"]}`); a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	} else {
		var c CreatedKey
		json.Unmarshal([]byte(a.body), &c)
		f.issued(c.Token)
	}
	for _, s := range []Scope{Admin, SessionsWrite, Validate, EventsRead} {
		if a := f.do("POST", "/v1/api-keys", clerk, `{"subject":"x","scopes":["`+string(s)+`"]}`); a.status != 403 || a.kind() != "insufficient-scope" {
			t.Errorf("gave %s: %d %s", s, a.status, a.body)
		}
	}
	strong := f.makeKey(`{"subject":"x","scopes":["admin"]}`).APIKey.ID
	if a := f.do("POST", "/v1/api-keys/"+strong+"/rotate", clerk, ""); a.status != 403 {
		t.Errorf("rotated a stronger key: %d", a.status)
	}
	var list List
	f.ok("GET", "/v1/api-keys?subject="+AdminSubject, "", &list)
	admin := list.Data[0].ID
	for _, call := range [][2]string{{"DELETE", "/v1/api-keys/" + admin}, {"POST", "/v1/api-keys/" + admin + "/rotate"}} {
		if a := f.do(call[0], call[1], clerk, ""); a.status != 403 {
			t.Errorf("%s %s: %d", call[0], call[1], a.status)
		}
	}
	if a := f.do("POST", "/v1/sessions/"+admin+"/tokens", clerk, `{}`); a.status != 403 {
		t.Errorf("a token below the admin key: %d", a.status)
	}
	// An access token is no API key, whatever its scopes; and a key for other services, or from elsewhere, is none here.
	var token AccessToken
	f.ok("POST", "/v1/sessions/"+f.signIn(`{"subject":"mia"}`).Session.ID+"/tokens", `{"format":"opaque","scopes":["admin"]}`, &token)
	f.issued(token.Token)
	for want, key := range map[string]string{
		"wrong_kind":     token.Token,
		"wrong_audience": f.makeKey(`{"subject":"x","scopes":["sessions:read"],"audience":["orders"]}`).Token,
		"wrong_network":  f.makeKey(`{"subject":"x","scopes":["sessions:read"],"networks":["203.0.113.0/24"]}`).Token,
	} {
		if a := f.do("GET", "/v1/sessions", key, ""); a.status != 401 || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d %s", want, a.status, a.body)
		}
	}
	near := f.makeKey(`{"subject":"x","scopes":["sessions:read"],"networks":["192.0.2.0/24"],"audience":["` + Audience + `"],"rate":1}`).Token
	if a := f.do("GET", "/v1/sessions", near, ""); a.status != 200 { // where httptest comes from
		t.Errorf("from its network: %d %s", a.status, a.body)
	}
	if a := f.do("GET", "/v1/sessions", near, ""); a.status != 429 || a.kind() != "rate-limited" || a.header.Get("Retry-After") != "60" {
		t.Errorf("too often: %d %v %s", a.status, a.header, a.body)
	}
}

func TestSigningKeys(t *testing.T) {
	f := newFixture(t, memstore.New())
	states := func() (out []string) {
		t.Helper()
		var keys SigningKeys
		a := f.ok("GET", "/v1/keys", "", &keys)
		for _, k := range keys.Data {
			out = append(out, k.Algorithm+" "+k.State)
		}
		if strings.Contains(a.body, "private") || strings.Contains(a.body, `"d"`) {
			t.Error(a.body)
		}
		return out
	}
	want := func(list ...string) {
		t.Helper()
		if got := states(); !slices.Equal(got, list) {
			t.Errorf("keys %q, want %q", got, list)
		}
	}
	id := f.signIn(`{"subject":"mia"}`).Session.ID
	sign := func() string {
		t.Helper()
		var token AccessToken
		f.ok("POST", "/v1/sessions/"+id+"/tokens", `{"audience":["orders"]}`, &token)
		return f.issued(token.Token)
	}
	// A verifier that reads the JWKS every ten minutes never meets a key that it does not know.
	read, keys := f.now, f.a.JWKS()
	verify := func(token string) error {
		if f.now.Sub(read) >= jwksAge {
			read, keys = f.now, f.a.JWKS()
		}
		v := jwt.Verifier{Keys: keys, Issuer: f.a.Issuer(), Audience: []string{"orders"}, Type: jwt.TypeAccessToken, Now: func() time.Time { return f.now }}
		_, err := v.Verify(t.Context(), token)
		return err
	}
	want("EdDSA signing")
	if a := f.do("POST", "/v1/keys/rotate", f.key, ""); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	want("EdDSA signing", "EdDSA next")
	if a := f.do("POST", "/v1/keys/rotate", f.key, `{}`); a.status != 409 || a.kind() != "rotation-pending" {
		t.Errorf("%d %s", a.status, a.body)
	}
	last := sign()
	for range 80 {
		f.pass(time.Minute)
		f.signIn(`{"subject":"mia"}`)
		if f.now.Sub(read) > 30*time.Minute {
			break
		}
		now := f.signIn(`{"subject":"tom"}`)
		id = now.Session.ID
		fresh := sign()
		for _, token := range []string{fresh, last} {
			if err := verify(token); err != nil {
				t.Fatalf("%v: %v", f.now, err)
			}
		}
		last = fresh
	}
	want("EdDSA expired", "EdDSA signing")
	f.ok("POST", "/v1/keys/rotate", `{"algorithm":"ES256","lead":"1h"}`, nil)
	want("EdDSA expired", "EdDSA signing", "ES256 signing")

	var list SigningKeys
	f.ok("GET", "/v1/keys", "", &list)
	stolen := list.Data[1].ID
	var next SigningKey
	f.ok("POST", "/v1/keys/"+stolen+"/retire", "", &next)
	if next.State != "signing" || next.ID == stolen {
		t.Errorf("%+v", next)
	}
	want("EdDSA expired", "EdDSA retired", "ES256 signing", "EdDSA signing")
	if v := f.ask(last, `"kinds":["jwt"],"audience":["orders"]`); v.Reason != "forged" {
		t.Errorf("a token of the retired key: %+v", v)
	}
	if a := f.do("POST", "/v1/keys/"+stolen+"/retire", f.key, ""); a.status != 409 || a.kind() != "key-retired" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if v := f.ask(sign(), `"kinds":["jwt"],"audience":["orders"]`); !v.Active {
		t.Errorf("a token of the new key: %+v", v)
	}
}

func TestAccessTokensAndTickets(t *testing.T) {
	f := newFixture(t, memstore.New())
	mia := f.signIn(`{"subject":"mia","auth":{"methods":["pwd"]}}`)
	path := "/v1/sessions/" + mia.Session.ID + "/tokens"
	for format, kind := range map[string]string{"jwt": "jwt", "opaque": "access_token"} {
		var got AccessToken
		a := f.ok("POST", path, `{"format":"`+format+`","audience":["orders"],"scopes":["orders:read"],"lifetime":"1m"}`, &got)
		f.issued(got.Token)
		left := got.ExpiresAt.Sub(f.now) // in whole seconds, as in the token
		if got.TokenType != "Bearer" || got.Session.Kind != kind || left > time.Minute || left <= 59*time.Second ||
			format == "opaque" && got.Session.Root != mia.Session.ID {
			t.Errorf("%s", a.body)
		}
		all := `"kinds":["session","access_token","jwt"]`
		if v := f.ask(got.Token, all+`,"audience":["orders"],"scopes":["orders:read"]`); !v.Active || v.Session.Kind != kind || v.Session.Subject != "mia" {
			t.Errorf("%s: %+v", format, v)
		}
		if v := f.ask(got.Token, all+`,"audience":["invoices"]`); v.Reason != "wrong_audience" {
			t.Errorf("%s: %+v", format, v)
		}
		if v := f.validate(got.Token); v.Active {
			t.Errorf("%s as a session: %+v", format, v)
		}
		defer func() {
			if v := f.ask(got.Token, all+`,"audience":["orders"]`); v.Reason != "revoked" {
				t.Errorf("%s after the sign-out: %+v", format, v)
			}
		}()
	}

	for _, below := range []string{`"session":"` + mia.Session.ID + `"`, `"token":"` + mia.Token + `"`} {
		var ticket Ticket
		f.ok("POST", "/v1/tickets", `{`+below+`,"target":"/downloads/7","nonce":"n"}`, &ticket)
		f.issued(ticket.Ticket)
		redeem := func(target, nonce, more string) (r Redeemed) {
			t.Helper()
			f.ok("POST", "/v1/tickets/redeem", `{"ticket":"`+ticket.Ticket+`","target":"`+target+`","nonce":"`+nonce+`"`+more+`}`, &r)
			return r
		}
		if r := redeem("/downloads/8", "n", ""); r.Active || r.Reason != "wrong_target" {
			t.Errorf("%+v", r)
		}
		if r := redeem("/downloads/7", "m", ""); r.Active || r.Reason != "wrong_target" {
			t.Errorf("%+v", r)
		}
		if r := redeem("/downloads/7", "n", ""); !r.Active || r.Token != "" || r.Session.ID != mia.Session.ID {
			t.Errorf("%+v", r)
		}
		if r := redeem("/downloads/7", "n", ""); r.Active || r.Reason != "used" {
			t.Errorf("%+v", r)
		}
		f.ok("POST", "/v1/tickets", `{`+below+`,"target":"https://b.example/start"}`, &ticket)
		f.issued(ticket.Ticket)
		if a := f.do("POST", "/v1/tickets/redeem", f.apiKey(TokensIssue), `{"ticket":"`+ticket.Ticket+`","target":"https://b.example/start","open":true}`); a.status != 403 {
			t.Errorf("open without sessions:write: %d", a.status)
		}
		var r Redeemed
		f.ok("POST", "/v1/tickets/redeem", `{"ticket":"`+ticket.Ticket+`","target":"https://b.example/start","open":true,"device":{"ip":"203.0.113.7"}}`, &r)
		f.issued(r.Token)
		if v := f.validate(r.Token); !v.Active || v.Session.Root != mia.Session.ID || v.Session.Device.IP != "203.0.113.7" {
			t.Errorf("%+v", v)
		}
		defer func() {
			if v := f.validate(r.Token); v.Active {
				t.Error("the session that was handed over outlives the first")
			}
		}()
		var late Ticket
		f.ok("POST", "/v1/tickets", `{`+below+`,"target":"/x","lifetime":"10s"}`, &late)
		f.issued(late.Ticket)
		f.pass(11 * time.Second)
		f.ok("POST", "/v1/tickets/redeem", `{"ticket":"`+late.Ticket+`","target":"/x"}`, &r)
		if r.Reason != "expired" {
			t.Errorf("%+v", r)
		}
	}
	f.ok("DELETE", "/v1/sessions/"+mia.Session.ID, "", nil)
	if a := f.do("POST", path, f.key, `{}`); a.status != 409 || a.kind() != "session-over" {
		t.Errorf("a token of an ended session: %d %s", a.status, a.body)
	}
}

// What is taken for a network is one, of the form in which requests are compared.
func FuzzNetwork(f *testing.F) {
	for _, s := range []string{"203.0.113.0/24", "203.0.113.7", "2001:db8::/32", "::ffff:1.2.3.4", "::ffff:1.2.3.0/120", "fe80::1%eth0", "1.2.3.4/33", "0.0.0.0/0", "/", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := network(s)
		if err == nil && (!p.IsValid() || p != p.Masked() || p.Addr().Is4In6() || p.Addr().Zone() != "") {
			t.Fatalf("network(%q) = %v", s, p)
		}
	})
}

func session(t *testing.T, f *fixture, id string) *afterlogin.Session {
	t.Helper()
	s, err := f.a.Session(t.Context(), afterlogin.SessionID(id))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What needs admin is not had by another way: the server's own keys by their subject, clients' tokens past their settings.
func TestNoWayAroundAdmin(t *testing.T) {
	f := newFixture(t, memstore.New())
	writer := f.apiKey(SessionsWrite, APIKeysWrite, TokensIssue)
	for _, query := range []string{"", "?scope=everything"} {
		if a := f.do("DELETE", "/v1/subjects/"+url.PathEscape(AdminSubject)+"/sessions"+query, writer, ""); a.status != 403 {
			t.Errorf("ending the server's keys by their subject%s: %d %s", query, a.status, a.body)
		}
	}
	reg, err := f.a.AddClient(t.Context(), 0, "backend", []byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	if a := f.do("POST", "/v1/sessions/"+string(reg.Session.ID)+"/tokens", writer, `{"format":"opaque","scopes":["root"]}`); a.status != 404 {
		t.Errorf("a token below a client: %d %s", a.status, a.body)
	}
	in, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"})
	if err != nil {
		t.Fatal(err)
	}
	ticket, err := f.a.IssueTicket(t.Context(), in.Session, afterlogin.TicketRequest{Target: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	if a := f.do("POST", "/v1/sessions/"+string(ticket.Session.ID)+"/tokens", writer, `{"format":"opaque"}`); a.status != 404 {
		t.Errorf("a token below a ticket: %d %s", a.status, a.body)
	}
	if a := f.do("GET", "/v1/subjects/%00clients/sessions", f.key, ""); a.status != 422 {
		t.Errorf("the clients as a subject: %d %s", a.status, a.body)
	}
	if a := f.do("PUT", "/v1/clients/backend", f.key, `{"name":"x"}`, "Content-Encoding: gzip"); a.status != 415 {
		t.Errorf("a compressed PUT: %d %s", a.status, a.body)
	}
}
