package gateway_test

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
)

// The most specific rule decides, alone.
func TestRules(t *testing.T) {
	session := []afterlogin.Kind{afterlogin.KindSession}
	d := open(t, withRules(
		gateway.Rule{Path: "/public/", Public: true},
		gateway.Rule{Path: "/public/admin/", Scopes: []string{"admin"}},
		gateway.Rule{Path: "/public/admin/health", Public: true, Methods: []string{"GET"}},
		gateway.Rule{Path: "/admin", Scopes: []string{"admin"}},
		gateway.Rule{Path: "/api/", Methods: []string{"GET"}, Scopes: []string{"orders:read"}},
		gateway.Rule{Path: "/api/", Methods: []string{"POST"}, Scopes: []string{"orders:write"}},
		gateway.Rule{Path: "/api/any/", Scopes: []string{"orders:read"}},
		gateway.Rule{Path: "/api/any/", Methods: []string{"DELETE"}, Scopes: []string{"admin"}},
		gateway.Rule{Path: "/people/", Kinds: session},
		gateway.Rule{Path: "/hook", Public: true, Methods: []string{"POST"}},
		gateway.Rule{Path: "/café/", Scopes: []string{"admin"}},
		gateway.Rule{Path: "/pay", Methods: []string{"POST"}, Scopes: []string{"orders:read"}},
	))
	token, _ := d.issue() // orders:read
	key, _ := d.issue(func(r *afterlogin.IssueRequest) { r.Kind, r.Scopes = afterlogin.KindAPIKey, []string{"admin"} })
	for _, tt := range []struct {
		method, target      string
		nobody, reader, key int
	}{
		{"GET", "/", 401, 200, 200},
		{"GET", "/orders", 401, 200, 200},
		{"GET", "/public", 200, 200, 200},
		{"GET", "/public/", 200, 200, 200},
		{"POST", "/public/a/b", 200, 200, 200},
		{"GET", "/publicity", 401, 200, 200},
		{"GET", "/public/admin", 401, 403, 200},
		{"GET", "/public/%61dmin/x", 401, 403, 200},
		{"GET", "/public/admin/health", 200, 200, 200},
		{"HEAD", "/public/admin/health", 200, 200, 200},
		{"POST", "/public/admin/health", 401, 403, 200},
		{"GET", "/public/admin/health/", 401, 403, 200}, // a public path is exactly that path
		{"GET", "/public/admin/healthy", 401, 403, 200},
		{"GET", "/admin", 401, 403, 200},
		{"GET", "/admin/", 401, 403, 200}, // and another one is not escaped by a slash
		{"GET", "/admin/x", 401, 200, 200},
		{"GET", "/api/x", 401, 200, 403},
		{"HEAD", "/api", 401, 200, 403},
		{"POST", "/api/x", 401, 403, 403},
		{"DELETE", "/api/x", 403, 403, 403}, // rules, but none for this
		{"DELETE", "/api/any/x", 401, 403, 200},
		{"PUT", "/api/any/x", 401, 200, 403},
		{"GET", "/people/", 401, 200, 401},
		{"POST", "/hook", 200, 200, 200},
		{"GET", "/hook", 403, 403, 403},
		{"POST", "/hook/", 401, 200, 200},
		{"GET", "/hook/", 401, 200, 200},
		{"POST", "/pay/", 401, 200, 403},
		{"GET", "/pay/", 403, 403, 403}, // as without the slash
		{"GET", "/caf%C3%A9/x", 401, 403, 200},
		{"GET", "/caf%c3%a9", 401, 403, 200},
		// What programs read in different ways is refused where there are rules.
		{"GET", "/public/..;/admin", 400, 400, 400},
		{"GET", "/public/%2e%2e/admin", 400, 400, 400},
		{"GET", "/public/..%2fadmin", 400, 400, 400},
		{"GET", "/public;x/admin", 400, 400, 400},
		{"GET", "/public/%c0%ae%c0%ae/", 400, 400, 400},
		{"GET", "/admin%3f", 400, 400, 400},
		{"GET", "/admin%23", 400, 400, 400},
		// The query is the application's own.
		{"GET", "/public/?x=/../admin%2f;//", 200, 200, 200},
		{"GET", "/admin?/../public/", 401, 403, 200},
	} {
		for who, want := range map[string]struct {
			sent   func(*http.Request)
			status int
		}{
			"nobody": {func(*http.Request) {}, tt.nobody}, "reader": {cookie(token), tt.reader}, "key": {header("X-Api-Key", key), tt.key},
		} {
			if got := d.ask("", tt.method, tt.target, want.sent).StatusCode; got != want.status {
				t.Errorf("%s %s as %s: %d, want %d", tt.method, tt.target, who, got, want.status)
			}
		}
	}
	// What is lacking is said.
	resp := d.ask("", "GET", "/public/admin/", cookie(token), navigation)
	status(t, resp, 403)
	contains(t, resp.Header.Get("WWW-Authenticate"), `error="insufficient_scope"`)
	contains(t, resp.Header.Get("WWW-Authenticate"), `scope="admin"`)
	// Who is signed in is told on public paths, too.
	has(t, d.ask("", "GET", "/public/", cookie(token)), gateway.HeaderSubject, "mia")
	// What is not good is nobody's there.
	for _, sent := range []func(*http.Request){
		func(*http.Request) {}, cookie("junk"), cookie(token + "x"), header("Authorization", "Bearer junk"), header("Authorization", "Bearer "), header("X-Api-Key", "junk"),
		func(r *http.Request) { cookie(token)(r); cookie(token)(r) },
	} {
		resp := d.ask("", "GET", "/public/", sent)
		status(t, resp, 200)
		has(t, resp, gateway.HeaderSubject, "-")
		has(t, resp, gateway.HeaderSession, "-")
		has(t, resp, gateway.HeaderKind, "none")
		has(t, resp, gateway.HeaderScopes, "-")
		has(t, resp, gateway.HeaderTime, "-")
		has(t, resp, gateway.HeaderAssertion, "-")
	}
}

// Where more is demanded than a session has, people are asked for it, and programs are told.
func TestStepUp(t *testing.T) {
	d := open(t, withRules(
		gateway.Rule{Path: "/danger/", MaxAge: 5 * time.Minute},
		gateway.Rule{Path: "/gold/", ACR: []string{"urn:example:gold", "urn:example:platinum"}, MaxAge: time.Hour},
	))
	token, _ := d.issue()
	status(t, d.ask("", "GET", "/danger/", cookie(token)), 200)
	d.pass(6 * time.Minute)
	resp := d.ask("", "GET", "/danger/", cookie(token))
	status(t, resp, 401)
	contains(t, resp.Header.Get("WWW-Authenticate"), `error="insufficient_user_authentication"`)
	contains(t, resp.Header.Get("WWW-Authenticate"), `max_age="300"`)
	resp = d.ask("", "GET", "/danger/?a=1", cookie(token), navigation)
	status(t, resp, 303)
	has(t, resp, "Location", origin+"/.afterlogin/login?return_to=%2Fdanger%2F%3Fa%3D1&reason=stale_auth&max_age=300")
	status(t, d.ask("", "GET", "/", cookie(token)), 200)

	resp = d.ask("", "GET", "/gold/", cookie(token))
	status(t, resp, 401)
	contains(t, resp.Header.Get("WWW-Authenticate"), `acr_values="urn:example:gold urn:example:platinum"`)
	resp = d.ask("/answer", "GET", "/gold/", cookie(token), navigation)
	status(t, resp, 303)
	has(t, resp, "Location", origin+"/.afterlogin/login?return_to=%2Fgold%2F&reason=stale_auth&max_age=3600&acr_values=urn%3Aexample%3Agold+urn%3Aexample%3Aplatinum")

	got := must[afterlogin.Issued](t)(d.a.StepUp(context.Background(), afterlogin.TokenFrom(token),
		afterlogin.Authentication{Methods: []string{"hwk", afterlogin.ACRMethod("urn:example:gold")}}, afterlogin.Client{}))
	for _, path := range []string{"/gold/", "/danger/"} {
		resp = d.ask("", "GET", path, cookie(got.Token.Reveal()))
		status(t, resp, 200)
		if c := d.verify(resp.Header.Get(gateway.HeaderAssertion), origin); c.ACR != "urn:example:gold" || !slices.Contains(c.AMR, "hwk") {
			t.Errorf("the assertion says %q %q: it is from before", c.ACR, c.AMR)
		}
	}
	status(t, d.ask("", "GET", "/", cookie(token)), 401) // the token from before
}

// "/" is the root page, and "/*" everything.
func TestRootAndEverything(t *testing.T) {
	root := open(t, withRules(gateway.Rule{Path: "/", Public: true}))
	all := open(t, withRules(gateway.Rule{Path: "/*", Public: true}, gateway.Rule{Path: "/admin/"}))
	both := open(t, withRules(gateway.Rule{Path: "/", Public: true}, gateway.Rule{Path: "/*", Scopes: []string{"admin"}}))
	token, _ := both.issue()
	for _, tt := range []struct {
		d      *door
		target string
		want   int
	}{
		{root, "/", 200}, {root, "/?a=1", 200}, {root, "/orders", 401}, {root, "/index.html", 401}, {root, "/a/", 401},
		{all, "/", 200}, {all, "/orders", 200}, {all, "/a/b/", 200}, {all, "/admin", 401}, {all, "/admin/x", 401}, {all, "/.afterlogin/x", 403},
		{both, "/", 200}, {both, "/orders", 403}, {both, "/*", 403},
	} {
		if got := tt.d.ask("", "GET", tt.target, func(r *http.Request) {
			if tt.d == both {
				cookie(token)(r)
			}
		}).StatusCode; got != tt.want {
			t.Errorf("%s: %d, want %d", tt.target, got, tt.want)
		}
	}
}

// A browser that is signed in is not sent to sign in where no session is let in: it would come back, and go again.
func TestKeysAlone(t *testing.T) {
	d := open(t, withRules(gateway.Rule{Path: "/machines/", Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}}))
	token, _ := d.issue()
	for _, sent := range []func(*http.Request){cookie(token), func(*http.Request) {}} {
		resp := d.ask("", "GET", "/machines/x", sent, navigation)
		status(t, resp, 401)
		contains(t, resp.Header.Get("WWW-Authenticate"), "Bearer")
		has(t, resp, "Location", "")
	}
}
