package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/httpauth"
)

// Each kind of credential lets its subject in, and every identity header says so.
func TestKinds(t *testing.T) {
	d := open(t)
	token, s := d.issue(func(r *afterlogin.IssueRequest) {
		r.Auth.Methods = []string{"pwd", "otp", afterlogin.ACRMethod("urn:example:gold")}
	})
	key, k := d.issue(func(r *afterlogin.IssueRequest) {
		r.Kind, r.Subject, r.Scopes = afterlogin.KindAPIKey, "robot", []string{"a", "b"}
	})
	access := must[afterlogin.Issued](t)(d.a.IssueAccess(context.Background(), s, afterlogin.AccessRequest{Client: "app", Scopes: []string{"orders:read"}, Audience: []string{origin}}))
	signed := must[afterlogin.Issued](t)(d.a.IssueAccess(context.Background(), s, afterlogin.AccessRequest{JWT: true, Scopes: []string{"orders:read"}, Audience: []string{origin}, Actor: "tom"}))
	byDefault := must[afterlogin.Issued](t)(d.a.IssueAccess(context.Background(), s, afterlogin.AccessRequest{JWT: true, Scopes: []string{"orders:read"}}))
	for name, tt := range map[string]struct {
		sent                   func(*http.Request)
		kind, subject, session string
		scopes                 string
	}{
		"cookie":            {cookie(token), "session", "mia", string(s.ID), "orders:read"},
		"session bearer":    {header("Authorization", "Bearer "+token), "session", "mia", string(s.ID), "orders:read"},
		"bearer, lower":     {header("Authorization", "bearer "+token), "session", "mia", string(s.ID), "orders:read"},
		"key header":        {header("X-Api-Key", key), "api-key", "robot", string(k.ID), "a b"},
		"key bearer":        {header("Authorization", "Bearer "+key), "api-key", "robot", string(k.ID), "a b"},
		"access":            {header("Authorization", "Bearer "+access.Token.Reveal()), "access", "mia", string(access.Session.ID), "orders:read"},
		"jwt":               {header("Authorization", "Bearer "+signed.Token.Reveal()), "jwt", "mia", string(s.ID), "orders:read"},
		"jwt of the issuer": {header("Authorization", "Bearer "+byDefault.Token.Reveal()), "jwt", "mia", string(s.ID), "orders:read"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, variant := range []string{"", "/nginx", "/traefik"} {
				resp := d.ask(variant, "GET", "/orders?page=2", tt.sent)
				status(t, resp, 200)
				has(t, resp, gateway.HeaderKind, tt.kind)
				has(t, resp, gateway.HeaderSubject, tt.subject)
				has(t, resp, gateway.HeaderSession, tt.session)
				has(t, resp, gateway.HeaderScopes, tt.scopes)
				at := strconv.FormatInt(s.Auth.At.Unix(), 10)
				if tt.kind == "api-key" { // a machine
					at = "-"
				}
				has(t, resp, gateway.HeaderTime, at)
				has(t, resp, gateway.HeaderCookie, "")
				has(t, resp, gateway.HeaderAuthorization, "")
				c := d.verify(resp.Header.Get(gateway.HeaderAssertion), origin)
				var kind string
				if json.Unmarshal(c.Extra["kind"], &kind); kind != tt.kind || c.Subject != tt.subject ||
					strings.Join(c.Scope, " ") != tt.scopes || len(c.Audience) != 1 || c.AuthTime.IsZero() != (at == "-") || c.Expiry.Sub(c.IssuedAt) != time.Minute {
					t.Errorf("the assertion says %+v", c)
				}
				if tt.subject == "mia" && (c.SessionID != string(s.ID) || c.ACR != "urn:example:gold" || !slices.Equal(c.AMR, []string{"pwd", "otp"})) {
					t.Errorf("the assertion says %+v", c)
				}
				if name == "jwt" && (c.Actor == nil || c.Actor.Subject != "tom") {
					t.Error("the assertion does not say who acts")
				}
			}
		})
	}
}

// Who is not let in gets what belongs to it: a browser the sign-in page, a program a challenge.
func TestRefusals(t *testing.T) {
	d := open(t)
	token, s := d.issue()
	other := must[afterlogin.Issued](t)(d.a.IssueAccess(context.Background(), s, afterlogin.AccessRequest{JWT: true, Audience: []string{"https://other.example.com"}}))
	for name, tt := range map[string]struct {
		method, target string
		sent           []func(*http.Request)
		status         int
		location       string // of the answer
		challenge      string
	}{
		"browser":           {"GET", "/orders?page=2&x=%2F", []func(*http.Request){navigation}, 303, origin + "/.afterlogin/login?return_to=%2Forders%3Fpage%3D2%26x%3D%252F", ""},
		"browser, HEAD":     {"HEAD", "/", []func(*http.Request){navigation}, 303, origin + "/.afterlogin/login?return_to=%2F", ""},
		"browser, POST":     {"POST", "/orders", []func(*http.Request){navigation}, 401, "", `Bearer realm="session"`},
		"script":            {"GET", "/orders", []func(*http.Request){header("Accept", html), header("Sec-Fetch-Mode", "cors")}, 401, "", `Bearer realm="session"`},
		"program":           {"GET", "/orders", []func(*http.Request){header("Accept", "application/json")}, 401, "", `Bearer realm="session"`},
		"junk cookie":       {"GET", "/orders", []func(*http.Request){cookie("junk"), navigation}, 303, origin + "/.afterlogin/login?return_to=%2Forders", ""},
		"junk bearer":       {"GET", "/orders", []func(*http.Request){header("Authorization", "Bearer junk"), navigation}, 401, "", `Bearer realm="session", error="invalid_token"`},
		"junk key":          {"GET", "/orders", []func(*http.Request){header("X-Api-Key", "junk")}, 401, "", `Bearer realm="session", error="invalid_token"`},
		"no token":          {"GET", "/orders", []func(*http.Request){header("Authorization", "Bearer ")}, 400, "", `error="invalid_request"`},
		"two credentials":   {"GET", "/orders", []func(*http.Request){cookie(token), header("Authorization", "Bearer "+token), navigation}, 401, "", `two credentials`},
		"two cookies":       {"GET", "/orders", []func(*http.Request){cookie(token), cookie(token), navigation}, 401, "", `two credentials`},
		"cookie and key":    {"GET", "/orders", []func(*http.Request){cookie(token), header("X-Api-Key", "alk_x")}, 401, "", `two credentials`},
		"another's JWT":     {"GET", "/orders", []func(*http.Request){header("Authorization", "Bearer "+other.Token.Reveal())}, 401, "", `another service`},
		"huge cookie":       {"GET", "/orders", []func(*http.Request){header("Cookie", "a="+strings.Repeat("x", 17<<10))}, 431, "", ""},
		"bad path":          {"GET", "/a/../b", []func(*http.Request){cookie(token), navigation}, 400, "", ""},
		"our own pages":     {"GET", "/.afterlogin/login", []func(*http.Request){navigation}, 403, "", ""},
		"our own, hidden":   {"GET", "/%2eafterlogin/login", []func(*http.Request){navigation}, 403, "", ""},
		"our own, no page":  {"GET", "/.afterlogin", []func(*http.Request){navigation}, 404, "", ""},
		"very long, in all": {"GET", "/" + strings.Repeat("%41", 2000), []func(*http.Request){navigation}, 303, origin + "/.afterlogin/login?return_to=%2F", ""},
		"too long":          {"GET", "/" + strings.Repeat("a", 8<<10), []func(*http.Request){navigation}, 400, "", ""},
		"long return":       {"GET", "/?q=" + strings.Repeat("%C3", 660), []func(*http.Request){navigation}, 303, origin + "/.afterlogin/login?return_to=%2F", ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp := d.ask("", tt.method, tt.target, tt.sent...)
			status(t, resp, tt.status)
			has(t, resp, "Location", tt.location)
			contains(t, resp.Header.Get("WWW-Authenticate"), tt.challenge)
			// The client behind nginx gets the same, in two steps.
			narrow := map[int]int{303: 401, 400: 403, 404: 403, 431: 403}[tt.status]
			if narrow == 0 {
				narrow = tt.status
			}
			asked := d.ask("/nginx", tt.method, tt.target, tt.sent...)
			status(t, asked, narrow)
			if got := asked.Header["Www-Authenticate"]; got != nil { // nginx would add it to the answer's own
				t.Errorf("nginx is told the challenge %q", got)
			}
			full := d.ask("/answer", tt.method, tt.target, tt.sent...)
			status(t, full, tt.status)
			has(t, full, "Location", tt.location)
			contains(t, full.Header.Get("WWW-Authenticate"), tt.challenge)
		})
	}
}

// A token in the address is refused, whatever else the request carries and however public the path is, and is over then.
func TestTokenInURL(t *testing.T) {
	d := open(t, withRules(gateway.Rule{Path: "/public/", Public: true}))
	for _, path := range []string{"/orders", "/public/x"} {
		token, s := d.issue()
		good, _ := d.issue()
		status(t, d.ask("", "GET", path+"?token="+token, cookie(good)), 400)
		if got := must[*afterlogin.Session](t)(d.a.Session(context.Background(), s.ID)); got.Ended.IsZero() {
			t.Errorf("%s: the token's session goes on", path)
		}
		status(t, d.ask("", "GET", path, cookie(good)), 200)
	}
}

// What an ended session's browser asks next is refused, though an assertion for it is still good.
func TestEnd(t *testing.T) {
	d := open(t)
	for _, end := range []func(token string, s *afterlogin.Session) error{
		func(_ string, s *afterlogin.Session) error {
			return d.a.Revoke(context.Background(), s.ID, afterlogin.ReasonSignedOut)
		},
		func(string, *afterlogin.Session) error { d.pass(2 * time.Hour); return nil },
	} {
		token, s := d.issue()
		status(t, d.ask("", "GET", "/", cookie(token)), 200)
		if err := end(token, s); err != nil {
			t.Fatal(err)
		}
		status(t, d.ask("", "GET", "/", cookie(token)), 401)
		status(t, d.ask("", "GET", "/", cookie(token), navigation), 303)
	}
}

// The store's trouble is 503, never a yes, a no, or a sign-in page.
func TestStoreDown(t *testing.T) {
	d := open(t, withRules(gateway.Rule{Path: "/public/", Public: true}))
	token, _ := d.issue()
	d.store.fault.Store(allFails)
	for _, variant := range []string{"", "/nginx", "/answer", "/traefik"} {
		for _, sent := range []func(*http.Request){cookie(token), header("Authorization", "Bearer "+token)} {
			resp := d.ask(variant, "GET", "/", sent, navigation)
			status(t, resp, 503)
			has(t, resp, "Location", "")
		}
	}
	// What everybody may see is still there, for nobody in particular, and without the credential.
	resp := d.ask("", "GET", "/public/x", header("Authorization", "Bearer "+token))
	status(t, resp, 200)
	has(t, resp, gateway.HeaderSubject, "-")
	has(t, resp, gateway.HeaderKind, "none")
	has(t, resp, gateway.HeaderAssertion, "-")
	has(t, resp, gateway.HeaderAuthorization, "")
	d.store.fault.Store(healthy)
	status(t, d.ask("", "GET", "/", cookie(token)), 200)
	resp = d.ask("/answer", "GET", "/orders?a=1", cookie(token), navigation)
	status(t, resp, 303)
	has(t, resp, "Location", "/orders?a=1")
	status(t, d.ask("/answer", "POST", "/orders", cookie(token)), 503)
}

// An assertion that cannot be signed is a 5xx, and so is a panic, of whomever.
func TestInternalErrors(t *testing.T) {
	d := open(t)
	token, _ := d.issue()
	broken := errors.New("no key")
	d.broken.Store(&broken)
	for _, variant := range []string{"", "/nginx", "/traefik", "/answer"} {
		status(t, d.ask(variant, "GET", "/", cookie(token)), 500)
	}
	d.broken.Store(nil)
	status(t, d.ask("", "GET", "/", cookie(token)), 200)

	var none error
	d = open(t)
	token, _ = d.issue()
	d.broken.Store(&none) // d.Sign returns no error and no token: not an assertion
	status(t, d.ask("", "GET", "/", cookie(token)), 500)
	d = open(t, func(o *gateway.Options, _ *gateway.App) { o.Sign = panics })
	token, _ = d.issue()
	status(t, d.ask("", "GET", "/", cookie(token)), 500)
	status(t, d.ask("/nginx", "GET", "/", cookie(token)), 500)
	status(t, d.ask("/answer", "GET", "/", cookie(token)), 500)
	// The log says where it was, and the headers of whoever has the gateway in hand stay.
	contains(t, d.log.String(), "identify(")
	has(t, d.ask("", "GET", "/", cookie(token)), "X-Request-Id", "ABC")
}

// X-Forwarded headers are believed from the proxies alone, one of each.
func TestForwarded(t *testing.T) {
	d := open(t)
	token, _ := d.issue()
	for name, tt := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"as it should be":         {func(r *http.Request) {}, 200},
		"default port":            {replaced("X-Forwarded-Host", "shop.example.com:443"), 200},
		"capitals":                {replaced("X-Forwarded-Host", "Shop.Example.COM"), 200},
		"wss":                     {replaced("X-Forwarded-Proto", "wss"), 200},
		"from elsewhere":          {func(r *http.Request) { r.RemoteAddr = "198.51.100.1:1" }, 400},
		"from a Unix socket":      {func(r *http.Request) { r.RemoteAddr = "@" }, 400},
		"another host":            {replaced("X-Forwarded-Host", "evil.example.com"), 421},
		"a longer host":           {replaced("X-Forwarded-Host", "shop.example.com.evil.example"), 421},
		"a trailing dot":          {replaced("X-Forwarded-Host", "shop.example.com."), 421},
		"another port":            {replaced("X-Forwarded-Host", "shop.example.com:8443"), 421},
		"http's port":             {replaced("X-Forwarded-Host", "shop.example.com:80"), 421},
		"http":                    {replaced("X-Forwarded-Proto", "http"), 421},
		"user":                    {replaced("X-Forwarded-Host", "mia@shop.example.com"), 421},
		"another proto":           {replaced("X-Forwarded-Proto", "gopher"), 400},
		"two protos in one":       {replaced("X-Forwarded-Proto", "https, http"), 400},
		"no proto":                {header("X-Forwarded-Proto", ""), 400},
		"two protos":              {header("X-Forwarded-Proto", "https"), 400},
		"no host":                 {header("X-Forwarded-Host", ""), 400},
		"two hosts":               {header("X-Forwarded-Host", "shop.example.com"), 400},
		"two hosts in one":        {replaced("X-Forwarded-Host", "shop.example.com, evil.example.com"), 421},
		"no method":               {header("X-Forwarded-Method", ""), 400},
		"two methods":             {header("X-Forwarded-Method", "GET"), 400},
		"no method at all":        {replaced("X-Forwarded-Method", "get it"), 400},
		"no uri":                  {header("X-Forwarded-Uri", ""), 400},
		"two uris":                {header("X-Forwarded-Uri", "/public"), 400},
		"no address":              {header("X-Forwarded-For", ""), 400},
		"two lines of addresses":  {header("X-Forwarded-For", "203.0.113.8"), 400},
		"underscores do not help": {func(r *http.Request) { r.Header["X_forwarded_host"] = []string{"evil.example.com"} }, 200},
	} {
		t.Run(name, func(t *testing.T) {
			status(t, d.ask("", "GET", "/", cookie(token), tt.change), tt.status)
			narrow := tt.status
			if narrow >= 400 {
				narrow = 403
			}
			status(t, d.ask("/nginx", "GET", "/", cookie(token), tt.change), narrow)
		})
	}
	for _, variant := range []string{"/", "/other", "/nginx/", "/envoy"} {
		status(t, d.ask(variant, "GET", "/", cookie(token)), 404)
	}
}

// The client is the last address that no proxy of ours has, and only these can say so.
func TestClientAddr(t *testing.T) {
	d := open(t, func(o *gateway.Options, _ *gateway.App) { o.Proxies = prefixes("192.0.2.0/24", "fd00::/8") })
	for _, tt := range []struct{ peer, forwarded, want string }{
		{"198.51.100.1:1", "203.0.113.7", "198.51.100.1"},
		{"192.0.2.1:1", "203.0.113.7", "203.0.113.7"},
		{"[::ffff:192.0.2.1]:1", "203.0.113.7", "203.0.113.7"},
		{"[fd00::1]:1", "2001:db8::1", "2001:db8::1"},
		{"192.0.2.1:1", "10.0.0.1, 203.0.113.7", "203.0.113.7"},
		{"192.0.2.1:1", "10.0.0.1,203.0.113.7 , 192.0.2.9", "203.0.113.7"},
		{"192.0.2.1:1", "203.0.113.7:4711", "203.0.113.7"},
		{"192.0.2.1:1", "[2001:db8::1]:4711", "2001:db8::1"},
		{"192.0.2.1:1", "::ffff:203.0.113.7", "203.0.113.7"},
		{"192.0.2.1:1", "192.0.2.5, 192.0.2.9", "192.0.2.5"},
		{"192.0.2.1:1", "", "192.0.2.1"},
		{"192.0.2.1:1", "203.0.113.7, unknown", ""},
		{"192.0.2.1:1", "203.0.113.7,", ""},
		{"@", "203.0.113.7", ""},
	} {
		r := &http.Request{RemoteAddr: tt.peer, Header: http.Header{}}
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		var want netip.Addr
		if tt.want != "" {
			want = netip.MustParseAddr(tt.want)
		}
		if got := d.ClientAddr(r); got != want {
			t.Errorf("%s, %q: %v, want %v", tt.peer, tt.forwarded, got, want)
		}
	}
	// Two lines are one, in their order.
	r := &http.Request{RemoteAddr: "192.0.2.1:1", Header: http.Header{"X-Forwarded-For": {"203.0.113.7", "192.0.2.2"}}}
	if got := d.ClientAddr(r); got != netip.MustParseAddr("203.0.113.7") {
		t.Errorf("two lines: %v", got)
	}
	// An API key that is bound to a network is judged by that address.
	d = open(t)
	key, _ := d.issue(func(r *afterlogin.IssueRequest) {
		r.Kind, r.Networks = afterlogin.KindAPIKey, prefixes("203.0.113.0/24")
	})
	status(t, d.ask("", "GET", "/", header("X-Api-Key", key)), 200)
	status(t, d.ask("", "GET", "/", header("X-Api-Key", key), replaced("X-Forwarded-For", "198.51.100.1")), 403)
	status(t, d.ask("", "GET", "/", header("X-Api-Key", key), replaced("X-Forwarded-For", "203.0.113.1, 198.51.100.1")), 403)
}

// A request that could change something is refused if a page of another site has a browser send it with its cookie.
func TestCrossOrigin(t *testing.T) {
	d := open(t, withRules(gateway.Rule{Path: "/public/", Public: true}),
		func(_ *gateway.Options, a *gateway.App) { a.TrustedOrigins = []string{"https://www.example.com"} })
	token, _ := d.issue()
	from := func(site, origin string) func(*http.Request) {
		return func(r *http.Request) {
			if site != "" {
				r.Header.Set("Sec-Fetch-Site", site)
			}
			if origin != "" {
				r.Header.Set("Origin", origin)
			}
		}
	}
	for name, tt := range map[string]struct {
		method string
		sent   []func(*http.Request)
		want   int
	}{
		"own":                  {"POST", []func(*http.Request){cookie(token), from("same-origin", origin)}, 200},
		"typed":                {"POST", []func(*http.Request){cookie(token), from("none", "")}, 200},
		"no browser":           {"POST", []func(*http.Request){cookie(token)}, 200},
		"old browser":          {"POST", []func(*http.Request){cookie(token), from("", origin)}, 200},
		"trusted":              {"POST", []func(*http.Request){cookie(token), from("same-site", "https://www.example.com")}, 200},
		"neighbour":            {"POST", []func(*http.Request){cookie(token), from("same-site", "https://evil.example.com")}, 403},
		"cross-site":           {"DELETE", []func(*http.Request){cookie(token), from("cross-site", "https://evil.example")}, 403},
		"old browser, foreign": {"PUT", []func(*http.Request){cookie(token), from("", "https://evil.example")}, 403},
		"reading":              {"GET", []func(*http.Request){cookie(token), from("cross-site", "https://evil.example")}, 200},
		"websocket":            {"GET", []func(*http.Request){cookie(token), from("cross-site", "https://evil.example"), header("Upgrade", "websocket")}, 403},
		"websocket, no hop":    {"GET", []func(*http.Request){cookie(token), from("", "https://evil.example"), header("Sec-WebSocket-Key", "x")}, 403},
		"websocket, no key":    {"GET", []func(*http.Request){cookie(token), from("", "https://evil.example"), header("Sec-WebSocket-Version", "13")}, 403},
		"own websocket":        {"GET", []func(*http.Request){cookie(token), from("", origin), header("Upgrade", "websocket")}, 200},
		"bearer":               {"POST", []func(*http.Request){header("Authorization", "Bearer "+token), from("cross-site", "https://evil.example")}, 200},
	} {
		t.Run(name, func(t *testing.T) { status(t, d.ask("", tt.method, "/orders", tt.sent...), tt.want) })
	}
	// Where everybody may do it, it is done by nobody.
	resp := d.ask("", "POST", "/public/x", cookie(token), from("cross-site", "https://evil.example"))
	status(t, resp, 200)
	has(t, resp, gateway.HeaderSubject, "-")
	has(t, resp, gateway.HeaderCookie, "")
}

// What is not ours reaches the application; what is does not.
func TestStripped(t *testing.T) {
	d := open(t, withRules(gateway.Rule{Path: "/public/", Public: true}, gateway.Rule{Path: "/sessions/", Kinds: []afterlogin.Kind{afterlogin.KindSession}}))
	token, s := d.issue()
	key, _ := d.issue(func(r *afterlogin.IssueRequest) { r.Kind = afterlogin.KindAPIKey })
	signed := must[afterlogin.Issued](t)(d.a.IssueAccess(context.Background(), s, afterlogin.AccessRequest{JWT: true})).Token.Reveal()
	const foreign = "Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"
	for name, tt := range map[string]struct {
		target                string
		sent                  []func(*http.Request)
		cookie, authorization string
		key                   string
	}{
		"cookies":      {"/", []func(*http.Request){header("Cookie", "a=1; "+httpauth.CookieName+"="+token+"; b=2"), header("Cookie", "c=\"3\"; __host-http-afterlogin_x=9; "+gateway.CookiePrefix+"state=7"), header("Cookie", "__Host-Http-ticket_nonce=1;;")}, `a=1; b=2; c="3"`, "", ""},
		"basic beside": {"/", []func(*http.Request){cookie(token), header("Authorization", "Basic bWlhOng=")}, "", "Basic bWlhOng=", ""},
		"bearer":       {"/", []func(*http.Request){header("Cookie", "a=1"), header("Authorization", "Bearer "+token)}, "a=1", "", ""},
		"key":          {"/", []func(*http.Request){header("X-Api-Key", key)}, "", "", ""},
		"foreign key":  {"/sessions/", []func(*http.Request){cookie(token), header("X-Api-Key", "theirs")}, "", "", "theirs"},
		"our key":      {"/sessions/", []func(*http.Request){cookie(token), header("X-Api-Key", key)}, "", "", ""},

		"public, comma":          {"/public/", []func(*http.Request){header("Cookie", "a=1,"+httpauth.CookieName+"="+token+"; b=2")}, "b=2", "", ""},
		"public, nothing":        {"/public/", nil, "", "", ""},
		"public, foreign bearer": {"/public/", []func(*http.Request){header("Authorization", "Bearer theirs")}, "", "Bearer theirs", ""},
		"public, foreign JWT":    {"/public/", []func(*http.Request){header("Authorization", foreign)}, "", foreign, ""},
		"public, foreign key":    {"/public/", []func(*http.Request){header("X-Api-Key", "theirs")}, "", "", "theirs"},
		"public, ours, altered":  {"/public/", []func(*http.Request){header("Authorization", "Bearer "+token[:80]+"AAAAAAAA")}, "", "", ""},
		"public, two of ours":    {"/public/", []func(*http.Request){cookie(token), header("Authorization", "Bearer "+signed)}, "", "", ""},
		"public, two keys":       {"/public/", []func(*http.Request){header("X-Api-Key", key), header("X-Api-Key", key)}, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp := d.ask("/traefik", "GET", tt.target, tt.sent...)
			status(t, resp, 200)
			has(t, resp, gateway.HeaderCookie, tt.cookie)
			has(t, resp, gateway.HeaderAuthorization, tt.authorization)
			has(t, resp, "Cookie", tt.cookie)
			has(t, resp, "Authorization", tt.authorization)
			has(t, resp, "X-Api-Key", tt.key)
			if tt.cookie == "" && resp.Header["Cookie"] != nil {
				t.Error("an empty Cookie")
			}
		})
	}
}

// Subjects that cannot stand in a header as they are, are escaped; nobody is called like nobody.
func TestSubjects(t *testing.T) {
	d := open(t)
	for subject, want := range map[string]string{
		"mia": "mia", "-": "%2D", "--": "--", "a b": "a%20b", "50%": "50%25", "Zoë": "Zo%C3%AB", "corp:1|2": "corp:1|2", "a\r\nX-Auth-Kind: x": "a%0D%0AX-Auth-Kind:%20x",
	} {
		token, _ := d.issue(func(r *afterlogin.IssueRequest) { r.Subject = subject })
		resp := d.ask("", "GET", "/", cookie(token))
		status(t, resp, 200)
		has(t, resp, gateway.HeaderSubject, want)
		if c := d.verify(resp.Header.Get(gateway.HeaderAssertion), origin); c.Subject != subject {
			t.Errorf("the assertion is of %q", c.Subject)
		}
	}
}

// Many at once, sessions ending among them: nobody is taken for somebody else, and nobody enters after the end.
func TestConcurrent(t *testing.T) {
	d := open(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				name := fmt.Sprintf("user-%d-%d", i, j)
				token, s := d.issue(func(r *afterlogin.IssueRequest) { r.Subject = name })
				for range 5 {
					resp := d.ask("", "GET", "/", cookie(token))
					if resp.StatusCode != 200 || resp.Header.Get(gateway.HeaderSubject) != name || d.verify(resp.Header.Get(gateway.HeaderAssertion), origin).Subject != name {
						d.Errorf("%s: %d, %v", name, resp.StatusCode, resp.Header)
					}
				}
				if err := d.a.Revoke(context.Background(), s.ID, afterlogin.ReasonSignedOut); err != nil {
					d.Error(err)
				}
				status(d, d.ask("", "GET", "/", cookie(token)), 401)
			}
		})
	}
	wg.Wait()
}

// No token is ever logged, and none of ours is in an answer but as it is meant to be.
func TestCanary(t *testing.T) {
	d := open(t, withRules(gateway.Rule{Path: "/admin/", Scopes: []string{"admin"}}, gateway.Rule{Path: "/public/", Public: true}))
	token, s := d.issue()
	key, _ := d.issue(func(r *afterlogin.IssueRequest) { r.Kind = afterlogin.KindAPIKey })
	signed := must[afterlogin.Issued](t)(d.a.IssueAccess(context.Background(), s, afterlogin.AccessRequest{JWT: true})).Token.Reveal()
	secrets := []string{token[30:], key[30:], signed[len(signed)-40:]}
	for _, variant := range []string{"", "/nginx", "/answer", "/traefik"} {
		for _, target := range []string{"/", "/admin/", "/public/", "/%2f", "/?x=1"} {
			for _, sent := range []func(*http.Request){
				cookie(token), header("Authorization", "Bearer "+token), header("X-Api-Key", key), header("Authorization", "Bearer "+signed),
				header("Cookie", httpauth.CookieName+"="+token+"x"), header("Authorization", "Bearer "+key+" "),
				func(r *http.Request) { cookie(token)(r); header("X-Api-Key", key)(r) },
				func(r *http.Request) { cookie(token)(r); r.RemoteAddr = "198.51.100.1:1" },
			} {
				resp := d.ask(variant, "GET", target, sent)
				all := fmt.Sprint(resp.Header)
				for _, secret := range secrets {
					if strings.Contains(all, secret) {
						t.Errorf("%s %s: a token is in the answer: %v", variant, target, all)
					}
				}
			}
		}
	}
	d.ask("", "GET", "/?t="+key, cookie(token))
	for _, secret := range append(secrets, "eyJ") {
		if strings.Contains(d.log.String(), secret) {
			t.Error("a token is in the log")
		}
	}
}

// What cannot work is refused when the gateway is made, with the name of the option.
func TestBadOptions(t *testing.T) {
	good := open(t)
	sign := panics
	app := func(change func(*gateway.App)) []gateway.App {
		a := gateway.App{Origin: origin}
		change(&a)
		return []gateway.App{a}
	}
	rule := func(r gateway.Rule) []gateway.App {
		return app(func(a *gateway.App) { a.Rules = []gateway.Rule{r} })
	}
	some := prefixes("127.0.0.0/8")
	for name, tt := range map[string]struct {
		o    gateway.Options
		want string
	}{
		"no authority":   {gateway.Options{Sign: sign, Apps: app(func(*gateway.App) {}), Proxies: some}, "Authority"},
		"no sign":        {gateway.Options{Authority: good.a, Apps: app(func(*gateway.App) {}), Proxies: some}, "Sign"},
		"no apps":        {gateway.Options{Authority: good.a, Sign: sign, Proxies: some}, "Apps"},
		"no proxies":     {gateway.Options{Authority: good.a, Sign: sign, Apps: app(func(*gateway.App) {})}, "Proxies"},
		"bad proxy":      {gateway.Options{Authority: good.a, Sign: sign, Apps: app(func(*gateway.App) {}), Proxies: []netip.Prefix{{}}}, "Proxies"},
		"mapped proxy":   {gateway.Options{Authority: good.a, Sign: sign, Apps: app(func(*gateway.App) {}), Proxies: prefixes("::ffff:10.0.0.0/104")}, "Proxies"},
		"plain origin":   {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: app(func(a *gateway.App) { a.Origin = "http://shop.example.com" })}, "Origin"},
		"path in origin": {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: app(func(a *gateway.App) { a.Origin += "/" })}, "Origin"},
		"no origin":      {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: app(func(a *gateway.App) { a.Origin = "" })}, "Origin"},
		"twice":          {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: append(app(func(*gateway.App) {}), app(func(*gateway.App) {})...)}, "twice"},
		"sign-in":        {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: app(func(a *gateway.App) { a.SignInURL = "login" })}, "SignInURL"},
		"trusted":        {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: app(func(a *gateway.App) { a.TrustedOrigins = []string{"x"} })}, "TrustedOrigins"},
		"no path":        {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{})}, "path"},
		"escaped path":   {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/a%20b"})}, "path"},
		"dots":           {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/a/../b"})}, "path"},
		"star":           {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/a", Methods: []string{"get"}})}, "method"},
		"ours":           {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/.afterlogin/", Public: true})}, "own"},
		"public scopes":  {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/a", Public: true, Scopes: []string{"a"}})}, "public"},
		"ticket":         {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/a", Kinds: []afterlogin.Kind{afterlogin.KindTicket}})}, "ticket"},
		"scope":          {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/a", Scopes: []string{"a b"}})}, "scope"},
		"acr":            {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/a", ACR: []string{""}})}, "acr"},
		"age":            {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/a", MaxAge: time.Millisecond})}, "MaxAge"},
		"long":           {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/a", Scopes: []string{strings.Repeat("a", 600)}})}, "bytes"},
		"two rules": {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: app(func(a *gateway.App) {
			a.Rules = []gateway.Rule{{Path: "/a", Methods: []string{"GET"}}, {Path: "/a", Methods: []string{"POST", "HEAD"}}}
		})}, "another rule"},
		"capitals in a trusted origin": {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: app(func(a *gateway.App) { a.TrustedOrigins = []string{"https://X.example"} })}, "TrustedOrigins"},
		"a name that is not ASCII":     {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: app(func(a *gateway.App) { a.Origin = "https://bücher.example" })}, "xn--"},
		"another star":                 {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/admin/*"})}, "/admin/ for everything below"},
		"keys and an age":              {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/a", MaxAge: time.Minute, Kinds: []afterlogin.Kind{afterlogin.KindSession, afterlogin.KindAPIKey}})}, "take out api-key"},
		"keys and a class":             {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/a", ACR: []string{"gold"}, Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}})}, "take out api-key"},
		"public kinds":                 {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: rule(gateway.Rule{Path: "/a", Public: true, Kinds: []afterlogin.Kind{afterlogin.KindSession}})}, "public"},
		"sign-in, plain":               {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: app(func(a *gateway.App) { a.SignInURL = "http://id.example.com/login" })}, "is not https"},
		"sign-in, dots":                {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: app(func(a *gateway.App) { a.SignInURL = "/a/../login" })}, "SignInURL"},
		"sign-in, ambiguous":           {gateway.Options{Authority: good.a, Sign: sign, Proxies: some, Apps: app(func(a *gateway.App) { a.SignInURL = "/login;x" })}, "SignInURL"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := gateway.New(tt.o)
			if !errors.Is(err, gateway.ErrBadOptions) {
				t.Fatalf("got %v", err)
			}
			contains(t, err.Error(), tt.want)
		})
	}
}
