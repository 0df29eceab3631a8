package gateway_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/jwt"
)

// An assertion is signed once and used again for half its life, as long as nothing in it has changed; and it is never
// good for longer than the session.
func TestAssertionReuse(t *testing.T) {
	d := open(t)
	token, _ := d.issue()
	get := func(token string) string {
		t.Helper()
		resp := d.ask("", "GET", "/", cookie(token))
		status(t, resp, 200)
		return resp.Header.Get(gateway.HeaderAssertion)
	}
	first := get(token)
	d.pass(29 * time.Second)
	if get(token) != first || d.signed.Load() != 1 {
		t.Error("signed twice within 30 s")
	}
	if c := d.verify(first, origin); c.Expiry.Sub(d.now()) < 30*time.Second {
		t.Errorf("only %v left", c.Expiry.Sub(d.now()))
	}
	d.pass(2 * time.Second)
	second := get(token)
	if second == first {
		t.Error("used again with less than 30 s left")
	}
	d.pass(-10 * time.Second) // the clock is set back: it would not be good yet
	if get(token) == second {
		t.Error("used again from before it was issued")
	}
	d.pass(10 * time.Second)

	// Another application gets its own.
	other, _ := d.issue()
	if get(other) == get(token) {
		t.Error("two sessions have one assertion")
	}

	// Whatever it says has changed.
	before := get(token)
	got := must[afterlogin.Issued](t)(d.a.StepUp(context.Background(), afterlogin.TokenFrom(token), afterlogin.Authentication{Methods: []string{"otp"}}, afterlogin.Client{}))
	if after := get(got.Token.Reveal()); after == before || !slices.Contains(d.verify(after, origin).AMR, "otp") {
		t.Error("the assertion from before the step-up is used again")
	}

	// The end of the session is the end of it.
	short, s := d.issue(func(r *afterlogin.IssueRequest) { r.Lifetime = 40 * time.Second })
	c := d.verify(get(short), origin)
	if c.Expiry.After(s.Absolute) {
		t.Errorf("good until %v, the session until %v", c.Expiry, s.Absolute)
	}
	d.pass(35 * time.Second)
	if c := d.verify(get(short), origin); c.Expiry.After(s.Absolute) {
		t.Errorf("good until %v, the session until %v", c.Expiry, s.Absolute)
	}
	d.pass(6 * time.Second)
	status(t, d.ask("", "GET", "/", cookie(short)), 401)
}

// An assertion is for one application, and no access token.
func TestAssertionAudience(t *testing.T) {
	d := open(t, func(o *gateway.Options, a *gateway.App) {
		a.Audience = "shop"
		o.Apps = append(o.Apps, gateway.App{Origin: "http://wiki.localhost:8080"})
	})
	token, s := d.issue()
	shop := d.ask("", "GET", "/", cookie(token)).Header.Get(gateway.HeaderAssertion)
	wiki := d.ask("", "GET", "/", cookie(token), replaced("X-Forwarded-Host", "wiki.localhost:8080"), replaced("X-Forwarded-Proto", "http")).Header.Get(gateway.HeaderAssertion)
	if shop == wiki {
		t.Fatal("two applications have one assertion")
	}
	d.verify(shop, "shop")
	d.verify(wiki, "http://wiki.localhost:8080")
	status(t, d.ask("", "GET", "/", header("Authorization", "Bearer "+shop)), 401)

	// A JWT for the one is refused by the other; so is an access token.
	for _, a := range []afterlogin.AccessRequest{{Audience: []string{"shop"}, JWT: true}, {Audience: []string{"shop"}}} {
		got := must[afterlogin.Issued](t)(d.a.IssueAccess(context.Background(), s, a))
		sent := header("Authorization", "Bearer "+got.Token.Reveal())
		status(t, d.ask("", "GET", "/", sent), 200)
		status(t, d.ask("", "GET", "/", sent, replaced("X-Forwarded-Host", "wiki.localhost:8080"), replaced("X-Forwarded-Proto", "http")), 401)
	}
}

// Whatever an assertion says, each thing alone, is signed anew when it has changed: under one jti, which a token of
// whoever has the key may have.
func TestAssertionChanges(t *testing.T) {
	d := open(t)
	_, s := d.issue()
	key := must[*jwt.SigningKey](t)(d.keys.Signer(jwt.EdDSA, d.now()))
	base := jwt.Claims{
		Issuer: issuer, Subject: "mia", Audience: []string{origin}, IssuedAt: d.now(), Expiry: d.now().Add(40 * time.Second),
		ID: "one", SessionID: string(s.ID), Scope: []string{"a"}, AuthTime: s.Auth.At, AMR: []string{"pwd"},
	}
	get := func(c jwt.Claims) string {
		t.Helper()
		token := must[string](t)(key.Sign(jwt.TypeAccessToken, &c))
		resp := d.ask("", "GET", "/", header("Authorization", "Bearer "+token))
		status(t, resp, 200)
		return resp.Header.Get(gateway.HeaderAssertion)
	}
	for name, change := range map[string]func(c *jwt.Claims){
		"expiry": func(c *jwt.Claims) { c.Expiry = c.Expiry.Add(time.Second) },
		"client": func(c *jwt.Claims) { c.ClientID = "app" },
		"actor":  func(c *jwt.Claims) { c.Actor = &jwt.Actor{Subject: "tom"} },
		"scopes": func(c *jwt.Claims) { c.Scope = []string{"b"} },
		"amr":    func(c *jwt.Claims) { c.AMR = []string{"otp"} },
		"acr":    func(c *jwt.Claims) { c.ACR = "gold" },
		"time":   func(c *jwt.Claims) { c.AuthTime = c.AuthTime.Add(-time.Second) },
	} {
		first := get(base)
		if get(base) != first {
			t.Fatalf("%s: signed anew for nothing", name)
		}
		other := base
		if change(&other); get(other) == first {
			t.Errorf("%s: the assertion from before is used again", name)
		}
	}
}

// In the last second of a session, too, an assertion is good for a moment.
func TestAssertionLastSecond(t *testing.T) {
	d := open(t)
	token, s := d.issue(func(r *afterlogin.IssueRequest) { r.Lifetime = 40 * time.Second })
	d.pass(s.Absolute.Sub(d.now()) - 50*time.Millisecond)
	resp := d.ask("", "GET", "/", cookie(token))
	status(t, resp, 200)
	if c := d.verify(resp.Header.Get(gateway.HeaderAssertion), origin); !c.Expiry.After(c.IssuedAt) || c.Expiry.Sub(s.Absolute) > time.Second {
		t.Errorf("from %v to %v, the session until %v", c.IssuedAt, c.Expiry, s.Absolute)
	}
}
