package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

const (
	maxCode      = 8 << 10 // what a code of a provider may be, in bytes
	maxExchanges = 32      // that are under way at once, of one provider: anybody can make up a code
)

// The realm of Authority.FirstUse in which states are used up.
const realmState = "oidc-state"

// An answer is what a provider sends the browser back with (OpenID Connect Core 1.0, 3.1.2.5 and 3.1.2.6).
type answer struct {
	state string
	code  string // or
	fault string // the code of an error
	iss   string
}

// parseAnswer reads the query of a callback.
func parseAnswer(raw string) (answer, error) {
	q, err := parseQuery(raw)
	if err != nil {
		return answer{}, err
	}
	out := answer{state: q.Get("state"), code: q.Get("code"), fault: q.Get("error"), iss: q.Get("iss")}
	switch {
	case out.state == "", (out.code == "") == (out.fault == ""), len(out.code) > maxCode, len(out.fault) > 256, !printable(out.code):
		return answer{}, errQuery
	case q.Has("iss") && out.iss == "", q.Has("response"): // an answer in a JWT, which was not asked for
		return answer{}, errQuery
	}
	return out, nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f { // RFC 6749, A.11
			return false
		}
	}
	return true
}

// errMixedUp means that an answer was made by another provider (RFC 9207).
var errMixedUp = errors.New("the answer names another issuer, or none")

// callback takes the provider's answer, and signs the person in.
func (u *Upstream) callback(w http.ResponseWriter, r *http.Request, site *Site, p *provider) {
	out := &answerWriter{ResponseWriter: w}
	site.Auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.answered(w, r, site, p, out)
	})).ServeHTTP(out, r)
}

// answered does it, for a request whose session is known. out is what w writes to in the end.
func (u *Upstream) answered(w http.ResponseWriter, r *http.Request, site *Site, p *provider, out *answerWriter) {
	ans, err := parseAnswer(r.URL.RawQuery)
	if err != nil || !asPage(r) {
		u.show(w, http.StatusBadRequest, pageQuery)
		return
	}
	a, err := u.find(r, site, p, ans.state)
	if errors.Is(err, errNoAttempt) {
		u.log.Debug("an OpenID provider's answer is not for a sign-in of this browser", "provider", p.ID, "err", err)
		u.showLink(w, http.StatusBadRequest, pageNoAttempt, Link{site.Base + "/oidc/" + p.ID + "/start", "Sign in with " + p.Name})
		return
	}
	if err != nil {
		u.trouble(w, err)
		return
	}
	m, err := p.metadata.get(r.Context(), nil)
	if err != nil {
		u.unavailable(w, site, p, a)
		return
	}
	if ans.iss != "" && ans.iss != p.Issuer || ans.iss == "" && m.iss {
		u.log.Warn("an OpenID provider's answer was refused", "provider", p.ID, "err", errMixedUp)
		u.showLink(w, http.StatusBadRequest, pageMixedUp, a.again(site, p))
		return
	}
	select {
	case p.exchanges <- struct{}{}:
		defer func() { <-p.exchanges }()
	default:
		u.unavailable(w, site, p, a)
		return
	}
	first, err := u.options.Authority.FirstUse(r.Context(), realmState, a.State, time.Unix(a.Began, 0).Add(attemptTime))
	if err != nil {
		u.trouble(w, err)
		return
	}
	clearAttempt(w, cookieOf(a.State))
	if !first {
		if s, ok := httpauth.Session(r.Context()); ok && strings.HasPrefix(s.Subject, p.ID+":") {
			u.showLink(w, http.StatusBadRequest, pageUsed, Link{httpauth.SafeReturn(a.ReturnTo), "Go on"})
		} else { // such as after an answer that was used up and failed
			u.showLink(w, http.StatusBadRequest, pageSpent, a.again(site, p))
		}
		return
	}
	if ans.fault != "" {
		u.refusedThere(w, site, p, a, ans.fault)
		return
	}
	c, err := u.redeem(r.Context(), p, m, a, ans.code)
	if err != nil {
		u.refusedHere(w, site, p, a, err)
		return
	}
	u.complete(w, r, site, p, a, c, out)
}

// errGrant means that the provider does not know the code, any more or at all.
var errGrant = errors.New("the provider refuses the code")

// redeem changes the code for an ID token and returns what that says. Errors: errDown, errGrant, and what is wrong with
// the token.
func (u *Upstream) redeem(ctx context.Context, p *provider, m *metadata, a *attempt, code string) (*claims, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, u.client)
	t, err := p.oauth2(m, a).Exchange(ctx, code, oauth2.VerifierOption(a.Verifier))
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused): // whose text is the answer's body
		status := 0
		if refused.Response != nil {
			status = refused.Response.StatusCode
		}
		switch {
		case refused.ErrorCode == "invalid_grant":
			return nil, errGrant
		case status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout:
			return nil, down(&tokenError{status: status})
		}
		return nil, &tokenError{status, refused.ErrorCode}
	case err != nil:
		var where *url.Error
		if errors.As(err, &where) {
			return nil, down(where)
		}
		return nil, &tokenError{}
	}
	raw, _ := t.Extra("id_token").(string)
	if raw == "" {
		return nil, &tokenError{}
	}
	id, err := u.prove(ctx, p, m, raw)
	if err != nil {
		return nil, fmt.Errorf("ID token: %w", err)
	}
	return u.examine(ctx, p, m, a, id, t.AccessToken)
}

// tokenError is an answer of a token endpoint that is of no use: a setting of ours is wrong, or of theirs.
type tokenError struct {
	status int
	code   string
}

func (e *tokenError) Error() string {
	switch e.code {
	case "invalid_client":
		return "the token endpoint does not take the client's id and secret (invalid_client): check both, and auth_method"
	case "invalid_request", "unauthorized_client", "unsupported_grant_type", "invalid_scope":
		return "the token endpoint answers " + e.code + ": check how this client is registered there"
	}
	if e.status == 0 {
		return "the token endpoint's answer is none: an access token and an ID token are needed"
	}
	return "the token endpoint answers " + http.StatusText(e.status)
}

// complete signs the person in. The order of the steps is what the package's documentation promises.
func (u *Upstream) complete(w http.ResponseWriter, r *http.Request, site *Site, p *provider, a *attempt, c *claims, out *answerWriter) {
	ctx := r.Context()
	id := Identity{
		Provider: p.ID, Subject: p.ID + ":" + c.subject, Methods: c.methods, At: c.at, Remember: a.Remember,
	}
	if had, ok := httpauth.Session(ctx); ok && !had.Anonymous() {
		id.Confirm = a.Confirm
	}
	var err error
	if id.Mark, err = u.options.Authority.Begin(ctx, u.options.Tenant, id.Subject); err != nil {
		u.trouble(w, err)
		return
	}
	hold, err := u.attached.begin(ctx, p, c.sid, id.Subject, c.subject, c.issued)
	if err != nil {
		u.refusedHere(w, site, p, a, err)
		return
	}
	out.mark()
	session, err := u.options.SignIn(w, r, site, id)
	if err != nil {
		if !errors.Is(err, afterlogin.ErrUnavailable) { // then, whether there is a session is not known: the entry says so
			hold.drop(ctx)
		}
		u.options.Fail(w, r, site, err)
		return
	}
	if err := hold.settle(ctx, session.ID); err != nil {
		out.takeBack() // nobody is let in, also if the session could not be ended
		if errors.Is(err, afterlogin.ErrUnavailable) {
			u.log.Error("a sign-in at an OpenID provider could not be finished", "provider", p.ID, "session", session.ID, "err", err)
			retryAfter(w.Header())
			u.showLink(w, http.StatusServiceUnavailable, pageUnsettled, a.again(site, p))
			return
		}
		u.refusedHere(w, site, p, a, err)
		return
	}
	u.log.Info("signed in at an OpenID provider", "provider", p.ID, "session", session.ID)
	noStore(w.Header())
	u.options.Leave(w, r, site, a.ReturnTo)
}

// answerWriter is what httpauth writes to, so that the cookies of a sign-in can be taken back after they were set: httpauth
// adds them when the headers are written, which is later than that.
type answerWriter struct {
	http.ResponseWriter
	had     []string // the cookies before the sign-in
	back    bool
	written bool
}

// mark notes the cookies that the answer sets in any case.
func (w *answerWriter) mark() { w.had = slices.Clone(w.Header()["Set-Cookie"]) }

// takeBack has the answer set no cookie but those. What the browser has stays.
func (w *answerWriter) takeBack() { w.back = true }

// Unwrap returns the server's writer.
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader writes the headers.
func (w *answerWriter) WriteHeader(status int) {
	if w.written = true; w.back {
		w.Header()["Set-Cookie"] = w.had
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write writes the headers first, if that was not done.
func (w *answerWriter) Write(b []byte) (int, error) {
	if !w.written {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// refusedThere answers for a provider that did not sign the person in.
func (u *Upstream) refusedThere(w http.ResponseWriter, site *Site, p *provider, a *attempt, fault string) {
	f, known := faults[fault]
	if !known {
		f = fault0
	}
	if f.log {
		u.log.Warn("an OpenID provider refuses to sign people in", "provider", p.ID, "error", f.code)
	}
	if f.status == http.StatusServiceUnavailable {
		retryAfter(w.Header())
	}
	u.showLink(w, f.status, f.page.with(p.Name), a.again(site, p))
}

// refusedHere answers for an identity that is not let in, or that is not known.
func (u *Upstream) refusedHere(w http.ResponseWriter, site *Site, p *provider, a *attempt, err error) {
	switch {
	case errors.Is(err, errDown):
		u.log.Warn("an OpenID provider does not answer", "provider", p.ID, "err", err)
		u.unavailable(w, site, p, a)
	case errors.Is(err, afterlogin.ErrUnavailable):
		u.trouble(w, err)
	case errors.Is(err, errGrant):
		u.showLink(w, http.StatusBadRequest, pageGrant.with(p.Name), a.again(site, p))
	case errors.Is(err, errSignedOut), errors.Is(err, afterlogin.ErrStaleSignIn):
		u.showLink(w, http.StatusConflict, pageSignedOut.with(p.Name), a.again(site, p))
	case errors.Is(err, errStale):
		u.showLink(w, http.StatusForbidden, pageStale.with(p.Name), a.again(site, p))
	case errors.Is(err, errACR):
		u.showLink(w, http.StatusForbidden, pageACR.with(p.Name), a.again(site, p))
	default:
		u.log.Error("a sign-in at an OpenID provider was refused", "provider", p.ID, "err", err)
		u.showLink(w, http.StatusBadGateway, pageRefused.with(p.Name), a.again(site, p))
	}
}

// unavailable answers for a provider that cannot be reached.
func (u *Upstream) unavailable(w http.ResponseWriter, site *Site, p *provider, a *attempt) {
	retryAfter(w.Header())
	u.showLink(w, http.StatusServiceUnavailable, pageDown.with(p.Name), a.again(site, p))
}

// trouble answers when our own store, or the keys, do not answer.
func (u *Upstream) trouble(w http.ResponseWriter, err error) {
	u.log.Error("a sign-in at an OpenID provider cannot be decided on now", "err", err)
	retryAfter(w.Header())
	u.show(w, http.StatusServiceUnavailable, pageTrouble)
}

func retryAfter(h http.Header) { h.Set("Retry-After", "10") }
