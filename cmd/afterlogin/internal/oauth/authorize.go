package oauth

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/httpauth"
)

// front answers the requests of browsers.
func (s *Server) front(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Referrer-Policy", "no-referrer") // what the client sends us in the URL is nobody else's business
	h.Set("Content-Security-Policy", policyOf(""))
	switch {
	case len(r.URL.RequestURI()) > maxURL:
		showError(w, http.StatusRequestURITooLong, "The address of this request is too long.")
	case r.Method == http.MethodGet && scripted(r.Header):
		showError(w, http.StatusForbidden, "This page is for the window of a browser. A script cannot ask for it.")
	case r.Method == http.MethodGet:
		s.ask.ServeHTTP(w, r)
	case r.Method == http.MethodPost && r.URL.RawQuery == "" && checkContent(r.Header) == nil:
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		s.answer.ServeHTTP(w, r)
	case r.Method == http.MethodPost:
		showError(w, http.StatusBadRequest, "This page takes its own form, and nothing else.")
	default:
		h.Set("Allow", "GET, POST")
		showError(w, http.StatusMethodNotAllowed, "This page takes GET, and POST from its own form.")
	}
}

// scripted reports whether a script, or a page's image, makes the request, and not a person's window. A browser says so of
// itself; other programs, and old browsers, say nothing.
func scripted(h http.Header) bool {
	mode := h["Sec-Fetch-Mode"]
	return len(mode) > 0 && (len(mode) > 1 || mode[0] != "navigate")
}

// request is an authorization request that has passed every check.
type request struct {
	client    *client
	redirect  string
	state     string
	challenge string
	scopes    []string
	resources []string
	prompt    []string
	// maxAge is how long ago the person may have signed in; negative: any time. after is when they must have, at the
	// earliest: it takes the place of prompt=login and max_age when somebody is sent to sign in, so that they are asked once.
	maxAge time.Duration
	after  time.Time
}

// consented answers the form of the consent page.
func (s *Server) consented(w http.ResponseWriter, r *http.Request, auth *httpauth.Auth) {
	if err := r.ParseForm(); err != nil || len(r.PostForm["request"]) != 1 || len(r.PostForm["decision"]) != 1 {
		showError(w, http.StatusBadRequest, "The form is not complete. Go back to the application and start again.")
		return
	}
	decision := r.PostForm["decision"][0]
	if decision != "allow" && decision != "deny" {
		decision = "deny"
	}
	s.authorize(w, r, auth, r.PostForm["request"][0], decision)
}

// authorize is the authorization endpoint (RFC 6749, 4.1.1, with RFC 7636, 8252, 8707 and 9207). query is the request as
// the client sent it; decision is what the person said on the consent page, "" if they have not been asked.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request, auth *httpauth.Auth, query, decision string) {
	ctx := r.Context()
	if len(query) > maxURL {
		showError(w, http.StatusBadRequest, "The address of this request is too long.")
		return
	}
	f, e := parseForm(query)
	if e != nil { // not even the client is certain
		showError(w, http.StatusBadRequest, "The application has sent a request that cannot be read: "+e.Description+".")
		return
	}
	q, err := s.recipient(r, f)
	var bad badRecipient
	switch { // never a redirect: it would go to an address that nobody has registered
	case errors.As(err, &bad):
		showError(w, http.StatusBadRequest, string(bad))
		return
	case err != nil && s.fault(ctx, err).Status == http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
		showError(w, http.StatusServiceUnavailable, "This cannot be answered now. Please try again in a moment.")
		return
	case err != nil:
		showError(w, http.StatusInternalServerError, "Something went wrong here. It is neither your fault nor the application's; the log of the server says what it is.")
		return
	}
	if e := q.read(f); e != nil {
		s.refuse(w, r, q, e)
		return
	}
	who, _ := httpauth.Session(ctx)
	if stale := s.notYet(who, q); stale != "" {
		s.signInFirst(w, r, q, f, stale)
		return
	}
	switch {
	case decision == "deny":
		s.refuse(w, r, q, fail(AccessDenied, "the person said no"))
	case decision == "allow" || s.maySkip(q):
		s.issueCode(w, r, q, who)
	case slices.Contains(q.prompt, "none"):
		s.refuse(w, r, q, fail(ConsentRequired, "the person must be asked"))
	default:
		s.showConsent(w, r, auth, q, who, query)
	}
}

// badRecipient is why nobody can be sent back.
type badRecipient string

func (e badRecipient) Error() string { return string(e) }

// recipient finds the client and the address that the answer goes to. Until both are certain there is no redirect. What is
// wrong with the request is a badRecipient, and any other error is trouble of ours.
func (s *Server) recipient(r *http.Request, f form) (*request, error) {
	c, err := s.known.get(r.Context(), f.get("client_id"))
	switch {
	case errors.Is(err, afterlogin.ErrNoClient):
		return nil, badRecipient("The application is not known here: its client_id is not registered.")
	case err != nil:
		return nil, err
	case !c.settings.Grants(clients.AuthorizationCode):
		return nil, badRecipient("The application is not registered for sign-in: it lacks the grant type authorization_code.")
	}
	q := &request{client: c, redirect: f.get("redirect_uri"), state: f.get("state")}
	switch {
	case q.redirect != "" && !c.settings.Redirects(q.redirect):
		return nil, badRecipient("The application asks to be answered at an address that is not registered for it: its redirect_uri must be one of those, byte for byte.")
	case q.redirect == "" && len(c.settings.RedirectURIs) != 1:
		return nil, badRecipient("The application does not say where to answer: its redirect_uri is missing.")
	case q.redirect == "":
		q.redirect = c.settings.RedirectURIs[0]
	}
	return q, nil
}

// read checks the rest of the request. Its errors go back to the client.
func (q *request) read(f form) (e *Error) {
	switch mode := f.get("response_mode"); {
	case f.get("request") != "":
		return fail(RequestNotSupported, "request objects are not taken")
	case f.get("request_uri") != "":
		return fail(RequestURINotSupported, "request_uri is not taken")
	case f.get("response_type") == "":
		return fail(InvalidRequest, "response_type is missing")
	case f.get("response_type") != "code":
		return fail(UnsupportedResponseType, "response_type: there is only code")
	case mode != "" && mode != "query":
		return fail(InvalidRequest, "response_mode: there is only query")
	}
	q.challenge = f.get("code_challenge")
	switch {
	case q.challenge == "":
		return fail(InvalidRequest, "code_challenge is missing: PKCE is required (RFC 7636)")
	case f.get("code_challenge_method") != "S256":
		return fail(InvalidRequest, "code_challenge_method must be S256")
	case len(q.challenge) != 43 || !unreserved(q.challenge):
		return fail(InvalidRequest, "code_challenge is not a SHA-256 in base64url")
	}
	if q.scopes, e = q.client.scopes(f, true); e != nil {
		return e
	}
	if q.resources, e = q.client.resources(f, "resource"); e != nil {
		return e
	}
	if len(q.resources) == 0 {
		q.resources = q.client.settings.Resources
	}
	return q.readPrompt(f)
}

// readPrompt reads what is asked about the sign-in (OpenID Connect Core, 3.1.2.1).
func (q *request) readPrompt(f form) *Error {
	if p := f.get("prompt"); p != "" {
		q.prompt = strings.Split(p, " ")
		for _, word := range q.prompt {
			if !slices.Contains([]string{"none", "login", "consent"}, word) {
				return fail(InvalidRequest, "prompt: there are none, login and consent")
			}
		}
		if len(q.prompt) > 1 && slices.Contains(q.prompt, "none") || len(q.prompt) > 2 {
			return fail(InvalidRequest, "prompt: none stands alone")
		}
	}
	q.maxAge = -1
	if text := f.get("max_age"); text != "" {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fail(InvalidRequest, "max_age: want seconds")
		}
		q.maxAge = time.Duration(n) * time.Second
	}
	if text := f.get("auth_after"); text != "" {
		n, err := strconv.ParseUint(text, 10, 40)
		if err != nil {
			return fail(InvalidRequest, "auth_after: want seconds since 1970")
		}
		q.after = time.Unix(int64(n), 0)
	}
	return nil
}

// notYet says why the person must sign in before the request can go on, "" if they need not.
func (s *Server) notYet(who *afterlogin.Session, q *request) afterlogin.Reason {
	switch {
	case who == nil || who.Anonymous() || who.Kind != afterlogin.KindSession:
		return afterlogin.ReasonNoCredential
	case slices.Contains(q.prompt, "login"),
		q.maxAge == 0,
		q.maxAge > 0 && s.now().Sub(who.Auth.At) > q.maxAge,
		!q.after.IsZero() && who.Auth.At.Before(q.after):
		return afterlogin.ReasonStaleAuth
	}
	return ""
}

// signInFirst sends the person to the sign-in page, from where they come back with the same request.
func (s *Server) signInFirst(w http.ResponseWriter, r *http.Request, q *request, f form, why afterlogin.Reason) {
	if slices.Contains(q.prompt, "none") {
		s.refuse(w, r, q, fail(LoginRequired, "the person must sign in"))
		return
	}
	if s.signIn == "" {
		s.refuse(w, r, q, fail(LoginRequired, "the person must sign in, and the server knows no page for that: sign_in_url"))
		return
	}
	back := make(url.Values)
	again := slices.Contains(q.prompt, "login") || q.maxAge >= 0 || !q.after.IsZero()
	for _, p := range f {
		switch {
		case p.value == "" || p.name == "max_age" || p.name == "auth_after":
		case p.name == "prompt":
			if slices.Contains(q.prompt, "consent") {
				back.Set("prompt", "consent")
			}
		default:
			back.Add(p.name, p.value)
		}
	}
	if again {
		// Whoever takes this away in their own browser could have taken prompt away before; the client can tell by auth_time.
		at := s.now()
		if q.maxAge > 0 && !slices.Contains(q.prompt, "login") {
			at = at.Add(-q.maxAge)
		}
		if q.after.After(at) {
			at = q.after
		}
		back.Set("auth_after", strconv.FormatInt(at.Unix(), 10))
	}
	path := httpauth.SafeReturn(AuthorizePath + "?" + back.Encode())
	if path == "/" {
		showError(w, http.StatusBadRequest, "The address of this request is too long to come back to after a sign-in.")
		return
	}
	to := s.signIn + "?"
	if strings.Contains(s.signIn, "?") {
		to = s.signIn + "&"
	}
	to += "return_to=" + url.QueryEscape(path)
	if why == afterlogin.ReasonStaleAuth {
		to += "&reason=" + string(why)
	}
	redirect(w, to)
}

// maySkip reports whether the person need not be asked: the client is the operator's own, and it is certain that it is
// the client who gets the answer. A program that anybody can imitate, at a port or a scheme of this machine, is not.
func (s *Server) maySkip(q *request) bool {
	return q.client.settings.FirstParty && !slices.Contains(q.prompt, "consent") &&
		(!q.client.settings.Public() || strings.HasPrefix(q.redirect, "https://"))
}

func (s *Server) issueCode(w http.ResponseWriter, r *http.Request, q *request, who *afterlogin.Session) {
	detail, err := json.Marshal(issued{Redirect: q.redirect, Challenge: q.challenge, Scopes: q.scopes, Resources: q.resources})
	if err != nil {
		s.refuse(w, r, q, s.fault(r.Context(), err))
		return
	}
	code, err := s.authority.IssueCode(r.Context(), who, afterlogin.CodeRequest{Client: q.client.id, Detail: string(detail)})
	if err != nil {
		if errors.Is(err, afterlogin.ErrInvalidToken) { // signed out a moment ago
			err = fail(LoginRequired, "the person has signed out")
		}
		s.refuse(w, r, q, s.fault(r.Context(), err))
		return
	}
	s.back(w, q, "code", code.Token.Reveal())
}

// authorizationErrors are the codes that may go back to a client by redirect (RFC 6749, 4.1.2.1, and its registry).
var authorizationErrors = []string{
	InvalidRequest, UnauthorizedClient, AccessDenied, UnsupportedResponseType, InvalidScope, InvalidTarget, ServerError,
	TemporarilyUnavailable, LoginRequired, ConsentRequired, RequestNotSupported, RequestURINotSupported,
}

// refuse sends the error to the client.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, q *request, e *Error) {
	code := e.Code
	if !slices.Contains(authorizationErrors, code) {
		code = ServerError
	}
	s.log.DebugContext(r.Context(), "refused", "path", AuthorizePath, "client", q.client.id, "error", code, "why", e.Description)
	s.back(w, q, "error", code, "error_description", e.Description)
}

// back sends the browser to the client with the parameters, state, and who answers (RFC 9207).
func (s *Server) back(w http.ResponseWriter, q *request, params ...string) {
	var b strings.Builder
	b.WriteString(q.redirect)
	sep := byte('?')
	if strings.Contains(q.redirect, "?") {
		sep = '&'
	}
	params = append(params, "state", q.state, "iss", s.issuer)
	for i := 0; i < len(params); i += 2 {
		if params[i+1] == "" {
			continue
		}
		b.WriteByte(sep)
		b.WriteString(params[i] + "=" + url.QueryEscape(params[i+1]))
		sep = '&'
	}
	redirect(w, b.String())
}

// redirect is 303: a 307 would send the consent form, or a password, on to the client (RFC 9700, 4.12).
func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}
