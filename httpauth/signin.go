package httpauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
)

// Begin returns a mark for a sign-in. Call it before the password is checked, with the name that was typed, and give
// the mark to SignIn or StepUpSince: then a change of the password meanwhile wins. It writes nothing.
func (x *Auth) Begin(r *http.Request, subject string) (afterlogin.Mark, error) {
	return x.authority.Begin(r.Context(), x.options.Tenant, subject)
}

// A SignIn says who has signed in, and for how long. Subject is required.
type SignIn struct {
	// Subject is the application's own name for the person.
	Subject string
	// Mark is what Begin returned.
	Mark afterlogin.Mark
	// Remember makes the session one that outlives the browser's window: the policy remember.
	Remember bool
	// Policy is the name of another policy. The default is afterlogin.PolicyBrowser.
	Policy string
	// Methods are how the person proved who they are: RFC 8176 names such as pwd, otp, hwk.
	Methods []string
	// At is when they did; now by default.
	At     time.Time
	Scopes []string
	// Lifetime shortens the policy's absolute lifetime.
	Lifetime time.Duration
	// Data are first values of the session's data. They win over what the browser's anonymous session holds.
	Data map[string]json.RawMessage
}

// SignIn makes a session for a person whose credentials were just checked, and has the answer set its cookie. The
// cookie that came with the request is never adopted: its session, if it is one, is superseded, and its data moves to
// the new one if it was anonymous or of the same person. The request's session is the new one from here on.
//
// Errors: those of Authority.Issue, among them ErrStaleSignIn (check the password again), and ErrHeadersWritten.
// Answer writes an answer to each.
func (x *Auth) SignIn(w http.ResponseWriter, r *http.Request, s SignIn) (*afterlogin.Session, error) {
	v, err := x.open(r)
	if err != nil {
		return nil, err
	}
	if s.Subject == "" {
		return nil, fmt.Errorf("%w: SignIn.Subject is empty", afterlogin.ErrBadRequest)
	}
	if s.Remember {
		if s.Policy != "" && s.Policy != afterlogin.PolicyRemember {
			return nil, fmt.Errorf("%w: SignIn has both Remember and the policy %q: set one", afterlogin.ErrBadRequest, s.Policy)
		}
		s.Policy = afterlogin.PolicyRemember
	}
	got, err := x.authority.Issue(r.Context(), afterlogin.IssueRequest{
		Subject: s.Subject, Tenant: x.options.Tenant, Policy: s.Policy, Mark: s.Mark,
		From: v.cookieToken(), Auth: afterlogin.Authentication{Methods: s.Methods, At: s.At},
		Scopes: s.Scopes, Device: v.from, Lifetime: s.Lifetime, Data: s.Data,
	})
	if err != nil {
		return nil, err
	}
	noStore(w.Header())
	return v.adopt(r, got)
}

// cookieToken returns the token of the cookie that the request came with, or that was set since; zero if there is none.
func (v *visit) cookieToken() afterlogin.Token {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.transport != cookie {
		return afterlogin.Token{}
	}
	return v.token
}

// StepUp notes that the person of the request's session has proved who they are once more, with the methods of auth.
// The session stays; its token is replaced at once, and the answer carries the new one. It needs a session that came in
// a cookie, of somebody signed in: anything else is a Refusal. The session's methods are all that it ever saw: see
// Authority.StepUp.
func (x *Auth) StepUp(w http.ResponseWriter, r *http.Request, auth afterlogin.Authentication) (*afterlogin.Session, error) {
	return x.StepUpSince(w, r, afterlogin.Mark{}, auth)
}

// StepUpSince is StepUp with the mark that Begin returned for the session's subject before the password was checked: then
// a change of the password meanwhile wins, even one that spared this session, and the error is
// afterlogin.ErrStaleSignIn. The answer carries no cookie then, and the browser's may be out of date.
func (x *Auth) StepUpSince(w http.ResponseWriter, r *http.Request, m afterlogin.Mark, auth afterlogin.Authentication) (*afterlogin.Session, error) {
	v, err := x.open(r)
	if err != nil {
		return nil, err
	}
	s, refusal := v.result()
	token := v.cookieToken()
	switch {
	case s == nil && refusal != nil:
		return nil, refusal
	case s == nil || s.Anonymous() || token.IsZero():
		return nil, errNoCredential
	}
	got, err := x.authority.StepUpSince(r.Context(), token, m, auth, v.from)
	if err != nil {
		return nil, err
	}
	noStore(w.Header())
	return v.adopt(r, got)
}

// SignOut ends the session of the request, durably, and has the answer clear its cookie. If the cookie is out of date,
// the session that it once belonged to is ended: somebody holds it and wants it ended. Without a credential it does
// nothing. If the store does not answer, the error is afterlogin.ErrUnavailable and the cookie stays: the person is not
// signed out, and must be told so.
//
// If the request came with a JWT in a cookie, the session that this was made from is ended, or the online grant. Of a JWT
// that was made from anything else (an API key, a client, an offline grant) the cookie is cleared, and no more: whoever
// signs out of a page does not mean these.
//
// When the headers are already written the session ends all the same; the cookie, which is worthless then, stays.
func (x *Auth) SignOut(w http.ResponseWriter, r *http.Request) error {
	v := x.visitOf(r.Context())
	if v == nil {
		return x.outside(r)
	}
	s, _ := v.result()
	token, transport := v.credential()
	var err error
	switch {
	case s != nil && s.Kind != afterlogin.KindSession && transport != jwtCookie, transport == ticket,
		s == nil && transport == bearer && otherKind(token):
		return fmt.Errorf("%w: SignOut: only sessions are signed out; revoke the API key, the token or the ticket", afterlogin.ErrBadRequest)
	case s != nil && transport == jwtCookie && !signsOut(s), s == nil && transport == cookie && otherKind(token):
		// The cookie is cleared.
	case s != nil:
		err = x.authority.Revoke(r.Context(), s.ID, afterlogin.ReasonSignedOut)
	case transport == cookie || transport == bearer:
		_, err = x.authority.RevokeToken(r.Context(), token, afterlogin.ReasonSignedOut)
	}
	if err != nil && !errors.Is(err, afterlogin.ErrNoSession) && !errors.Is(err, afterlogin.ErrInvalidToken) {
		return err
	}
	noStore(w.Header())
	v.mu.Lock()
	defer v.mu.Unlock()
	v.session, v.refusal = nil, nil
	v.token, v.transport, v.changed = afterlogin.Token{}, none, true
	v.clearData = x.clearData != ""
	if transport == cookie {
		v.setCookie = x.cookieName + "=" + x.attributes + "; Max-Age=0"
	}
	if name := x.options.JWTCookie; name != "" && (transport == cookie || transport == jwtCookie) && !v.committed {
		w.Header().Add("Set-Cookie", name+"="+x.attributes+"; Max-Age=0")
	}
	return nil
}

// signsOut reports whether what a JWT was made from is a session, or a grant that is part of one.
func signsOut(jwt *afterlogin.Session) bool {
	if strings.HasPrefix(string(jwt.ID), "grant_") {
		return strings.HasPrefix(string(jwt.Root), "ses_")
	}
	return strings.HasPrefix(string(jwt.ID), "ses_")
}

// otherKind reports whether the token has the form of one of ours, and is no session's.
func otherKind(t afterlogin.Token) bool {
	text := t.Reveal()
	return isToken(text) && text[2] != byte(afterlogin.KindSession)
}

// warnPlain tells an operator once why nobody can sign in: over plain HTTP browsers drop a Secure cookie silently.
func (x *Auth) warnPlain(r *http.Request) {
	if x.options.PlainLoopback || r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" || loopbackHost(r.Host) {
		return
	}
	x.plainWarned.Do(func() {
		x.log.Warn("the session cookie is Secure, and a request for it came over plain HTTP: browsers drop it unless a proxy in front speaks HTTPS",
			"host", r.Host)
	})
}
