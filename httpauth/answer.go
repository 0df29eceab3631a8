package httpauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
)

// A fault is what is wrong with a request before its credential is looked at.
type fault struct {
	status int
	code   string // stable, for programs
	text   string // for people: what is wrong, and what to do
}

func (f *fault) Error() string { return "httpauth: " + f.text }

// Why a request is not let through, beside an afterlogin.Refusal and afterlogin.ErrUnavailable.
var (
	// ErrCrossOrigin is for a request that could change something and was sent by a page of another site.
	ErrCrossOrigin error = &fault{http.StatusForbidden, "cross_origin",
		"This request came from a page of another site. Go to the page itself and try again from there."}
	// ErrCSRFToken is for a request that could change something and has no CSRF token, or that of another session.
	ErrCSRFToken error = &fault{http.StatusForbidden, "csrf_token",
		"The form's CSRF token is missing or belongs to another session. Reload the page and try again; scripts send it in the header X-CSRF-Token."}
	// ErrCookieSize is for a request whose cookies are too large to be read.
	ErrCookieSize error = &fault{http.StatusRequestHeaderFieldsTooLarge, "cookies_too_large",
		"The cookies of this request come to more than 16 KiB. Delete this site's cookies in the browser and try again."}
	// ErrNotLoopback is for a request from elsewhere with Options.PlainLoopback.
	ErrNotLoopback error = &fault{http.StatusMisdirectedRequest, "not_loopback",
		"This server keeps sessions in plain cookies, which is for development at http://localhost only. Leave out PlainLoopback and serve HTTPS to be reached from elsewhere."}

	errBadAuthorization error = &fault{http.StatusBadRequest, "invalid_request",
		"The Authorization header is not of the form: Bearer, a blank, and one token."}
	errTwoAuthorizations error = &fault{http.StatusBadRequest, "invalid_request",
		"There is more than one Authorization header. Send one."}
	errTicketKept error = &fault{http.StatusTooEarly, "ticket_not_used",
		"The ticket in this address is good once, and was not used up by a request that only looks ahead (a prefetch, a preview, or a method other than GET). Open the address to use it."}
	// It is afterlogin.ErrBadRequest, too, for callers; and unlike that one often a mistake of the client's.
	errBadTarget = fmt.Errorf("%w: %w", afterlogin.ErrBadRequest, &fault{http.StatusBadRequest, "bad_target",
		"A ticket is for a path such as /downloads/7, with a query or without, of at most 2 KiB when it is escaped, without a fragment and without another ticket."})
	errNoOrigin    error = &fault{http.StatusInternalServerError, "no_origin", "Options.Origin is not set, and a hand-over needs it."}
	errBadHandOver error = &fault{http.StatusBadRequest, "invalid_request",
		"This is not a request to hand a session over: it needs one parameter to, an address of a site that is known here, and one parameter nonce."}
	errFormTooLarge error = &fault{http.StatusRequestEntityTooLarge, "form_too_large",
		"The form is larger than 1 MiB. Send the CSRF token in the header X-CSRF-Token instead of the form."}
	errBadForm error = &fault{http.StatusBadRequest, "bad_form",
		"The form, or the query of its address, is not URL-encoded as it should be."}
)

// Status returns the status that belongs to an error of this package or of the authority.
func Status(err error) int {
	var refusal *afterlogin.Refusal
	var f *fault
	var large *afterlogin.DataTooLargeError
	switch {
	case errors.As(err, &refusal):
		switch refusal.Reason {
		case afterlogin.ReasonInURL:
			return http.StatusBadRequest
		case afterlogin.ReasonScope, afterlogin.ReasonWrongNetwork, afterlogin.ReasonWrongTarget:
			return http.StatusForbidden // to sign in again would not help
		case afterlogin.ReasonUsed:
			return http.StatusGone
		}
		return http.StatusUnauthorized
	case errors.Is(err, afterlogin.ErrRateLimited):
		return http.StatusTooManyRequests
	case errors.As(err, &f):
		return f.status
	case errors.Is(err, afterlogin.ErrUnavailable):
		return http.StatusServiceUnavailable
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, afterlogin.ErrStaleSignIn), errors.Is(err, afterlogin.ErrDataConflict), errors.Is(err, afterlogin.ErrSessionLimit):
		return http.StatusConflict
	case errors.Is(err, afterlogin.ErrNoSession):
		return http.StatusNotFound
	case errors.Is(err, afterlogin.ErrBadSessionID), errors.Is(err, afterlogin.ErrBadCursor):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// Answer writes the usual answer to an error of this package or of the authority: the status of Status, the headers that
// belong to it, and a body that says what is wrong and what to do; plain text, or problem+json (RFC 9457) for requests
// that speak JSON or carry a bearer token or an API key. Of an error that is none of these it says nothing but 500.
//
// It is the default of Options.Refuse, and for handlers to use for the errors of SignIn, UpdateData and the like: then
// it logs what is not the client's doing (500 and 503).
func Answer(w http.ResponseWriter, r *http.Request, err error) {
	if v, _ := r.Context().Value(visitKey{}).(*visit); v != nil && !v.refused {
		v.auth.logFault(r, err)
	}
	p := describe(err)
	if refused := (*afterlogin.Refusal)(nil); p.Status == http.StatusUnauthorized && len(r.Header["X-Api-Key"]) == 1 && errors.As(err, &refused) &&
		refused.Reason != afterlogin.ReasonDuplicate && refused.Reason != afterlogin.ReasonInURL {
		// A machine cannot sign in again.
		p.Detail = "The API key is not good any more, or never was (" + p.Reason + "). Ask whoever gave it to you for another."
	}
	h := w.Header()
	prepare(h, r, err, nil)
	h.Set("X-Content-Type-Options", "nosniff")
	if wantsJSON(r) {
		h.Set("Content-Type", "application/problem+json")
		w.WriteHeader(p.Status)
		json.NewEncoder(w).Encode(p)
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(p.Status)
	w.Write([]byte(p.Detail + "\n"))
}

// Message returns what Answer says to people about an error: what is wrong, and what to do.
func Message(err error) string { return describe(err).Detail }

// A problem is the body of an answer (RFC 9457).
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Reason string `json:"reason,omitempty"`
}

func describe(err error) problem {
	status := Status(err)
	p := problem{Title: http.StatusText(status), Status: status}
	var refusal *afterlogin.Refusal
	var f *fault
	var large *afterlogin.DataTooLargeError
	switch {
	case errors.As(err, &refusal):
		p.Reason = string(refusal.Reason)
		if p.Detail = refusal.Message(); p.Detail == "" || refusal.Reason == afterlogin.ReasonInURL {
			p.Detail = forPeople(refusal.Reason)
		}
		if refusal.Reason == afterlogin.ReasonExpired && strings.HasPrefix(string(refusal.Session), "ticket_") {
			p.Detail = "This link was good for a short time only. Go back to where you got it for another."
		}
	case errors.As(err, &f):
		p.Reason, p.Detail = f.code, f.text
	case errors.Is(err, afterlogin.ErrRateLimited):
		p.Reason, p.Detail = "rate_limited", "Too many requests. Wait for as long as Retry-After says, in seconds, and try again."
	case errors.Is(err, afterlogin.ErrUnavailable):
		p.Reason = "temporarily_unavailable"
		p.Detail = "It cannot be told now whether you are signed in. Nothing is lost; try again in a moment."
	case errors.As(err, &large):
		p.Reason, p.Detail = "data_too_large", "There is no room for more in this session."
	case errors.Is(err, afterlogin.ErrStaleSignIn):
		p.Reason = string(afterlogin.ReasonStaleSignIn)
		p.Detail = "You were signed out everywhere while you were signing in. Sign in again."
	case errors.Is(err, afterlogin.ErrSessionLimit):
		p.Reason = string(afterlogin.ReasonLimit)
		p.Detail = "You are signed in on as many devices as you may be at once. Sign out on one of them, and sign in again."
	case errors.Is(err, afterlogin.ErrDataConflict):
		p.Reason, p.Detail = "data_conflict", "Somebody else has changed this meanwhile. Reload the page and try again."
	case errors.Is(err, afterlogin.ErrNoSession), errors.Is(err, afterlogin.ErrBadSessionID):
		p.Reason, p.Detail = "no_such_session", "There is no such session, or it ended long ago."
	case errors.Is(err, afterlogin.ErrBadCursor):
		p.Reason, p.Detail = "bad_cursor", "This is not a place in the list. Begin at its start."
	default:
		p.Detail = "Something went wrong here. It is not your fault."
	}
	return p
}

// forPeople says what to do about a refusal that has no message of its own.
func forPeople(why afterlogin.Reason) string {
	switch why {
	case afterlogin.ReasonNoCredential:
		return "You are not signed in."
	case afterlogin.ReasonDuplicate:
		return "The request carried two credentials where there can be only one. In a browser, delete this site's cookies and sign in again."
	case afterlogin.ReasonInURL:
		return "A token stood in the address of this request, where others can read it. If it was one of ours it is worthless now. Sign in again, and send tokens in the cookie or in the Authorization header."
	case afterlogin.ReasonScope:
		return "You are signed in, but may not do this."
	case afterlogin.ReasonStaleAuth:
		return "You signed in too long ago for this. Sign in again."
	case afterlogin.ReasonRenew:
		return "The token is out of date. Fetch a page of the site, which renews it, and try again."
	case afterlogin.ReasonUsed:
		return "This link was good once, and has been used. Go back to where you got it for another."
	case afterlogin.ReasonWrongTarget:
		return "This link was made for another address, or for another browser. Go back to where you got it for another."
	case afterlogin.ReasonWrongNetwork:
		return "This API key may not be used from where the request came from."
	case afterlogin.ReasonWrongAudience:
		return "The token is good, but for another service."
	case afterlogin.ReasonWrongKind:
		return "This kind of token is not accepted here."
	}
	return "You are not signed in any more. Sign in again."
}

// forPrograms says in a challenge why a token was refused. It never repeats anything that came with the request.
func forPrograms(refusal *afterlogin.Refusal) string {
	switch refusal.Reason {
	case afterlogin.ReasonMalformed:
		return "this is not a token"
	case afterlogin.ReasonWrongKind:
		return "this kind of token is not accepted here"
	case afterlogin.ReasonForged, afterlogin.ReasonUnknown:
		return "there is no such session"
	case afterlogin.ReasonRevoked:
		if refusal.Cause != "" {
			return "the session was ended: " + text(string(refusal.Cause))
		}
		return "the session was ended"
	case afterlogin.ReasonSignedOutAll:
		return "the session was ended with all others"
	case afterlogin.ReasonSuperseded:
		return "a sign-in or step-up has replaced the token"
	case afterlogin.ReasonExpired:
		return "the session is over: it has reached its greatest age"
	case afterlogin.ReasonIdle:
		return "the session is over: it was not used for too long"
	case afterlogin.ReasonFrozen:
		return "the session is on hold"
	case afterlogin.ReasonReused:
		return "the token is out of date and was used again"
	case afterlogin.ReasonRenew:
		return "the token is out of date; renew it"
	case afterlogin.ReasonDuplicate:
		return "two credentials in one request"
	case afterlogin.ReasonWrongAudience:
		return "the token is for another service"
	}
	return text(string(refusal.Reason))
}

// text keeps what RFC 6750, section 3, allows in an error description.
func text(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == '"' || c == '\\' || c > '~' {
			return -1
		}
		return c
	}, s)
}

// prepare sets the headers of an answer to err that do not depend on how its body looks. n is what was required, or nil.
func prepare(h http.Header, r *http.Request, err error, n *need) {
	noStore(h)
	var refusal *afterlogin.Refusal
	errors.As(err, &refusal)
	switch Status(err) {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	case http.StatusTooManyRequests:
		var limit *afterlogin.LimitError
		if errors.As(err, &limit) {
			h.Set("Retry-After", strconv.FormatInt(int64((limit.RetryAfter+time.Second-1)/time.Second), 10))
		}
	case http.StatusUnauthorized, http.StatusForbidden:
		// RFC 6750 has no word for a good token that is used in the wrong place.
		if refusal != nil && h.Get("WWW-Authenticate") == "" &&
			refusal.Reason != afterlogin.ReasonWrongNetwork && refusal.Reason != afterlogin.ReasonWrongTarget {
			h.Set("WWW-Authenticate", challenge(refusal, n))
		}
	case http.StatusBadRequest:
		if errors.Is(err, errBadAuthorization) || errors.Is(err, errTwoAuthorizations) {
			h.Set("WWW-Authenticate", realm+`, error="invalid_request"`)
		}
		if refusal != nil {
			h.Set("Referrer-Policy", "no-referrer")
		}
	}
}

const realm = `Bearer realm="session"`

// challenge is the WWW-Authenticate of a refusal: RFC 6750, section 3, and RFC 9470, section 3.
func challenge(refusal *afterlogin.Refusal, n *need) string {
	switch refusal.Reason {
	case afterlogin.ReasonNoCredential:
		return realm
	case afterlogin.ReasonScope:
		c := realm + `, error="insufficient_scope", error_description="the token does not have the scope that is needed"`
		if n != nil && len(n.scopes) > 0 {
			c += `, scope="` + strings.Join(n.scopes, " ") + `"`
		}
		return c
	case afterlogin.ReasonStaleAuth:
		c := realm + `, error="insufficient_user_authentication", error_description="a more recent authentication is required"`
		if n != nil && n.maxAge > 0 {
			c += `, max_age="` + strconv.FormatInt(int64(n.maxAge/time.Second), 10) + `"`
		}
		if n != nil && len(n.acr) > 0 {
			c += `, acr_values="` + strings.Join(n.acr, " ") + `"`
		}
		return c
	}
	return realm + `, error="invalid_token", error_description="` + forPrograms(refusal) + `"`
}

// refuse answers a request that is not let through.
func (x *Auth) refuse(w http.ResponseWriter, r *http.Request, v *visit, n *need, err error) {
	v.refused = true
	x.logFault(r, err)
	if to := x.signInFor(r, v, err); to != "" {
		noStore(w.Header())
		http.Redirect(w, r, to, http.StatusSeeOther)
		return
	}
	prepare(w.Header(), r, err, n)
	x.options.Refuse(w, r, err)
}

// logFault logs an error that an operator should know of.
func (x *Auth) logFault(r *http.Request, err error) {
	switch status := Status(err); {
	case status < 500:
	case r.Context().Err() != nil:
		x.log.Debug("a request was given up by its client", "err", err)
	default:
		x.log.Error("a request failed", "status", status, "err", err)
	}
}

// wantsJSON reports whether a program reads the answer.
func wantsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	switch {
	case strings.Contains(accept, "text/html"):
		return false
	case strings.Contains(accept, "json"), len(r.Header["Authorization"]) > 0, len(r.Header["X-Api-Key"]) > 0:
		return true
	}
	return strings.Contains(r.Header.Get("Content-Type"), "json")
}
