package gateway_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
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
