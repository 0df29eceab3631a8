package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
)

// bearer returns a change of ask that sends the token.
func bearer(i afterlogin.Issued) func(*http.Request) {
	return header("Authorization", "Bearer "+i.Token.Reveal())
}

// What somebody has let an OAuth client do is what the client may do, and not to be them.
func TestClientsToken(t *testing.T) {
	d := open(t, withRules(gateway.Rule{Path: "/public/", Public: true}, gateway.Rule{Path: "/profile/", Scopes: []string{"profile"}}))
	_, s := d.issue()
	access := func(a afterlogin.AccessRequest) func(*http.Request) {
		return bearer(must[afterlogin.Issued](t)(d.a.IssueAccess(context.Background(), s, a)))
	}
	code := must[afterlogin.Issued](t)(d.a.IssueCode(context.Background(), s, afterlogin.CodeRequest{Client: "partner"}))
	grant := must[afterlogin.Grant](t)(d.a.Redeem(context.Background(), code.Token, func(*afterlogin.Code) (afterlogin.GrantRequest, error) {
		return afterlogin.GrantRequest{Client: "partner", Scopes: []string{"profile"}, Access: afterlogin.AccessRequest{Scopes: []string{"profile"}}}, nil
	}))
	for name, sent := range map[string]func(*http.Request){
		"opaque":              access(afterlogin.AccessRequest{Client: "partner", Scopes: []string{"profile"}}),
		"JWT":                 access(afterlogin.AccessRequest{Client: "partner", Scopes: []string{"profile"}, JWT: true}),
		"granted":             bearer(grant.Access),
		"granted, of no name": bearer(must[afterlogin.Issued](t)(d.a.IssueAccess(context.Background(), grant.Refresh.Session, afterlogin.AccessRequest{}))),
		"issuer":              access(afterlogin.AccessRequest{Client: "partner", Scopes: []string{"profile"}, Audience: []string{issuer}}),
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"GET", "DELETE"} {
				resp := d.ask("", method, "/orders", sent)
				status(t, resp, 401)
				contains(t, resp.Header.Get("WWW-Authenticate"), `error="invalid_token", error_description="the token is for another service"`)
			}
			resp := d.ask("", "GET", "/profile/", sent)
			status(t, resp, 200)
			has(t, resp, gateway.HeaderSubject, "mia")
			// Where everybody is let in, it is nobody's, and stays here.
			resp = d.ask("", "GET", "/public/", sent)
			status(t, resp, 200)
			has(t, resp, gateway.HeaderSubject, "-")
			has(t, resp, gateway.HeaderAuthorization, "")
		})
	}
	status(t, d.ask("", "GET", "/profile/", access(afterlogin.AccessRequest{Client: "partner", Scopes: []string{"email"}})), 403)
	for _, signed := range []bool{false, true} {
		for aud, want := range map[string]int{origin: 200, "https://other.example.com": 401} {
			sent := access(afterlogin.AccessRequest{Client: "partner", Scopes: []string{"profile"}, Audience: []string{aud, issuer}, JWT: signed})
			status(t, d.ask("", "GET", "/orders", sent), want)
		}
		// What the application itself has asked for is no client's.
		status(t, d.ask("", "GET", "/orders", access(afterlogin.AccessRequest{JWT: signed})), 200)
	}
}

// A client of the name of a person is not that person.
func TestClientsOwnToken(t *testing.T) {
	d := open(t)
	reg := must[*afterlogin.Registration](t)(d.a.AddClient(context.Background(), 0, "mia", json.RawMessage(`{}`)))
	for _, signed := range []bool{false, true} {
		got := must[afterlogin.Issued](t)(d.a.IssueAccess(context.Background(), reg.Session, afterlogin.AccessRequest{Client: "mia", Audience: []string{origin}, JWT: signed}))
		resp := d.ask("", "GET", "/orders", bearer(got))
		status(t, resp, 200)
		has(t, resp, gateway.HeaderSubject, "client:mia")
		has(t, resp, gateway.HeaderTime, "-")
		if c := d.verify(resp.Header.Get(gateway.HeaderAssertion), origin); c.Subject != "client:mia" || !c.AuthTime.IsZero() {
			t.Errorf("the assertion says %+v", c)
		}
		// Without a name of its own it is a client's all the same.
		got = must[afterlogin.Issued](t)(d.a.IssueAccess(context.Background(), reg.Session, afterlogin.AccessRequest{JWT: signed}))
		status(t, d.ask("", "GET", "/orders", bearer(got)), 401)
	}
}

// To make an API key is not to sign in.
func TestMachines(t *testing.T) {
	d := open(t, withRules(gateway.Rule{Path: "/danger/", MaxAge: time.Hour}, gateway.Rule{Path: "/gold/", ACR: []string{"gold"}}))
	gold := afterlogin.Authentication{Methods: []string{"hwk", afterlogin.ACRMethod("gold")}}
	key, k := d.issue(func(r *afterlogin.IssueRequest) { r.Kind, r.Auth = afterlogin.KindAPIKey, gold })
	reg := must[*afterlogin.Registration](t)(d.a.AddClient(context.Background(), 0, "robot", json.RawMessage(`{}`)))
	_, s := d.issue(func(r *afterlogin.IssueRequest) { r.Auth = gold })
	below := func(s *afterlogin.Session, signed bool) func(*http.Request) {
		return bearer(must[afterlogin.Issued](t)(d.a.IssueAccess(context.Background(), s, afterlogin.AccessRequest{Audience: []string{origin}, JWT: signed})))
	}
	for name, tt := range map[string]struct {
		sent   func(*http.Request)
		person bool
	}{
		"key": {header("X-Api-Key", key), false}, "key bearer": {header("Authorization", "Bearer "+key), false},
		"below a key": {below(k, false), false}, "below a key, JWT": {below(k, true), false},
		"client": {below(reg.Session, false), false}, "client, JWT": {below(reg.Session, true), false},
		"below a session": {below(s, false), true}, "below a session, JWT": {below(s, true), true},
	} {
		t.Run(name, func(t *testing.T) {
			want := 401
			if tt.person {
				want = 200
			}
			for _, target := range []string{"/danger/", "/gold/"} {
				status(t, d.ask("", "GET", target, tt.sent), want)
			}
			resp := d.ask("", "GET", "/", tt.sent)
			status(t, resp, 200)
			if got := resp.Header.Get(gateway.HeaderTime); (got == "-") == tt.person {
				t.Errorf("X-Auth-Time: %q", got)
			}
			if c := d.verify(resp.Header.Get(gateway.HeaderAssertion), origin); c.AuthTime.IsZero() == tt.person || (c.ACR == "gold") != tt.person || (len(c.AMR) > 0) != tt.person {
				t.Errorf("the assertion says %+v", c)
			}
		})
	}
	// A key is not told to sign in again.
	d.pass(2 * time.Hour)
	resp := d.ask("", "GET", "/danger/", header("Authorization", "Bearer "+key))
	status(t, resp, 401)
	contains(t, resp.Header.Get("WWW-Authenticate"), "this kind of token is not accepted here")
}
