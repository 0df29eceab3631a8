package api

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/inurl"
)

// A Scope is what an API key may do.
type Scope string

// The scopes. There is no order among them: none includes another, but that ClientsWrite lets read, too.
const (
	SessionsRead  Scope = "sessions:read"  // list and show sessions
	SessionsWrite Scope = "sessions:write" // sign in, renew, sign out
	TokensIssue   Scope = "tokens:issue"   // make access tokens and tickets below sessions, and redeem tickets
	APIKeysWrite  Scope = "api-keys:write" // make, rotate and end API keys
	ClientsRead   Scope = "clients:read"   // list and show OAuth clients
	ClientsWrite  Scope = "clients:write"  // register, show, change and remove OAuth clients
	UsersRead     Scope = "users:read"     // list and show users
	UsersWrite    Scope = "users:write"    // add and change users, and give them passwords
	EventsRead    Scope = "events:read"    // follow what happens
	Validate      Scope = "validate"       // ask whether a token is good
	Explain       Scope = "explain"        // ask why it is, or is not
	AuditRead     Scope = "audit:read"     // read and check the audit log
	WebhooksWrite Scope = "webhooks:write" // say where events are sent, and look after what did not arrive
	ServerRead    Scope = "server:read"    // see how the server does and what it is set to: overview, configuration, rehearsal
	Admin         Scope = "admin"          // the server's own keys: signing keys, admin keys
)

// Scopes returns all scopes, which is what the first key gets.
func Scopes() []Scope {
	return []Scope{SessionsRead, SessionsWrite, TokensIssue, APIKeysWrite, ClientsRead, ClientsWrite, UsersRead, UsersWrite, EventsRead, Validate, Explain, AuditRead, WebhooksWrite, ServerRead, Admin}
}

type callerKey struct{}

// caller returns the API key that the request was made with.
func caller(ctx context.Context) *afterlogin.Session {
	s, _ := ctx.Value(callerKey{}).(*afterlogin.Session)
	return s
}

// As returns a context whose requests to this API's handler, in this process, are made as the caller: with its scopes,
// without an API key. Nothing that comes in over the network can set it.
func As(ctx context.Context, caller *afterlogin.Session) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// need fails unless the caller has one of the scopes, too.
func need(ctx context.Context, why string, scopes ...Scope) error {
	c := caller(ctx)
	for _, s := range scopes {
		if c != nil && slices.Contains(c.Scopes, string(s)) {
			return nil
		}
	}
	return lacking(scopes[0], why)
}

func lacking(s Scope, why string) *Problem {
	p := NewProblem(http.StatusForbidden, "insufficient-scope", why+" needs an API key with the scope "+string(s))
	p.header = http.Header{"Www-Authenticate": {`Bearer realm="afterlogin", error="insufficient_scope", scope="` + string(s) + `"`}}
	return p
}

// Audience is what this API is called in API keys that are for certain services only.
const Audience = "afterlogin"

// remoteAddr is where the connection comes from, which behind a proxy is the proxy.
func remoteAddr(r *http.Request) netip.Addr {
	p, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr()
}

// admit checks everything about a request that can be checked before its body is read. The context it returns carries
// the caller, who has one of the scopes, and ends after requestTimeout.
func (a *API) admit(r *http.Request, scopes ...Scope) (context.Context, context.CancelFunc, *Problem) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	key, err := a.authenticate(ctx, r, scopes...)
	if err == nil {
		err = checkQuery(r.URL.RawQuery)
	}
	if err == nil && r.Method != http.MethodGet && r.Method != http.MethodHead && r.ContentLength != 0 {
		err = checkContent(r.Header)
	}
	if err != nil {
		cancel()
		return nil, nil, a.problem(ctx, err)
	}
	if afterlogin.ActorOf(ctx) == "" {
		ctx = afterlogin.WithActor(ctx, string(key.ID))
	}
	return As(ctx, key), cancel, nil
}

// authenticate returns the API key that the request carries, if it is good and has one of the scopes.
func (a *API) authenticate(ctx context.Context, r *http.Request, scopes ...Scope) (*afterlogin.Session, error) {
	if c := caller(ctx); c != nil { // of this process: see As
		if !slices.ContainsFunc(scopes, func(s Scope) bool { return slices.Contains(c.Scopes, string(s)) }) {
			p := lacking(scopes[0], "this call")
			p.who = c.ID
			return nil, p
		}
		return c, nil
	}
	text, err := credential(r.Header)
	if err != nil {
		return nil, err
	}
	expect := afterlogin.Expect{
		Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}, Audience: []string{Audience}, From: afterlogin.Client{Addr: a.clientAddr(r)},
	}
	if len(scopes) == 1 {
		expect.Scopes = []string{string(scopes[0])}
	}
	key, err := a.authority.Validate(ctx, afterlogin.TokenFrom(text), expect)
	var refused *afterlogin.Refusal
	switch {
	case err == nil && !slices.ContainsFunc(scopes, func(s Scope) bool { return slices.Contains(key.Scopes, string(s)) }):
		p := lacking(scopes[0], "this call")
		p.who = key.ID
		return nil, p
	case err == nil:
		return key, nil
	case !errors.As(err, &refused):
		return nil, err
	case refused.Reason == afterlogin.ReasonScope:
		p := lacking(scopes[0], "this call")
		p.who = refused.Session
		return nil, p
	}
	a.log.InfoContext(ctx, "API key refused", "request_id", RequestID(ctx), "reason", refused.Reason, "key", refused.Session)
	p := NewProblem(http.StatusUnauthorized, "invalid-key", "the API key is not good: "+string(refused.Reason))
	p.header = http.Header{"Www-Authenticate": {`Bearer realm="afterlogin", error="invalid_token"`}}
	return nil, p
}

// credential returns the one API key in the headers. Two are refused, even equal ones (RFC 6750, 2): what stands in
// front of us may have looked at the other.
func credential(h http.Header) (string, error) {
	bearer, key := h.Values("Authorization"), h.Values("X-Api-Key")
	if len(bearer)+len(key) > 1 {
		p := NewProblem(http.StatusBadRequest, "two-credentials", "send one API key, in Authorization or in x-api-key")
		p.header = http.Header{"Www-Authenticate": {`Bearer realm="afterlogin", error="invalid_request"`}}
		return "", p
	}
	if len(key) == 1 && key[0] != "" {
		return key[0], nil
	}
	if len(bearer) == 1 {
		scheme, text, ok := strings.Cut(bearer[0], " ")
		if text = strings.Trim(text, " "); ok && strings.EqualFold(scheme, "Bearer") && text != "" {
			return text, nil
		}
	}
	p := NewProblem(http.StatusUnauthorized, "no-key", "an API key is needed: Authorization: Bearer alk_… or x-api-key: alk_…")
	p.header = http.Header{"Www-Authenticate": {`Bearer realm="afterlogin"`}}
	return "", p
}

// checkQuery refuses what one reader of the query would read differently from another, and parameters with nothing in
// them: they are what a script sends whose variable is empty, and without it the call would mean everybody.
func checkQuery(raw string) error {
	if raw == "" {
		return nil
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return NewProblem(http.StatusBadRequest, "bad-query", "the query string cannot be read: escape it as application/x-www-form-urlencoded")
	}
	for name, v := range values {
		switch where := "query." + clip(name); {
		case len(v) > 1:
			return NewProblem(http.StatusBadRequest, "bad-query", where+" stands there twice", FieldError{where, "stands there twice"})
		case v[0] == "":
			return NewProblem(http.StatusBadRequest, "bad-query", where+" has no value: leave it away, or give it one", FieldError{where, "has no value"})
		}
	}
	return nil
}

// checkContent wants JSON: a form or a plain text is what a page of another site can make a browser send.
func checkContent(h http.Header) error {
	media, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	charset, has := params["charset"]
	if err != nil || media != "application/json" || has && !strings.EqualFold(charset, "utf-8") {
		return NewProblem(http.StatusUnsupportedMediaType, "unsupported-media-type", "the body must be JSON: send Content-Type: application/json")
	}
	if h.Get("Content-Encoding") != "" {
		return NewProblem(http.StatusUnsupportedMediaType, "unsupported-media-type", "the body must not be compressed: leave Content-Encoding away")
	}
	return nil
}

// tokenKinds are the kinds of tokens, none of which stands in a URL of this API.
const tokenKinds = "skract"

// likeToken matches whatever could be a token or a large part of one.
var likeToken = regexp.MustCompile(`(al[a-z]|cs)_[A-Za-z0-9_-]{30,}`)

// likeJWT matches whatever could be a signed token: two parts of base64url of which the first begins a JSON object.
var likeJWT = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?`)

// Redact returns the text with [token] in place of everything that looks like a token.
func Redact(s string) string {
	if strings.Contains(s, "eyJ") {
		s = likeJWT.ReplaceAllString(s, "[token]")
	}
	if !strings.Contains(s, "_") {
		return s
	}
	return likeToken.ReplaceAllString(s, "[token]")
}

// tokenInURL refuses a request whose URL holds a token, and ends what the token stands for: a session, or an API key.
// URLs end up in logs, histories and Referer headers, so that what stood in one is no secret any more.
func (a *API) tokenInURL(r *http.Request) *Problem {
	found := inurl.Find(r.URL.RequestURI(), tokenKinds)
	if found == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	a.log.WarnContext(ctx, "a token stood in a URL", "request_id", RequestID(ctx))
	e := afterlogin.Event{Type: afterlogin.EventInURL, Reason: afterlogin.ReasonInURL, Detail: "a token stood in a URL; it is not one of ours"}
	for _, t := range found {
		id, err := a.authority.RevokeToken(ctx, afterlogin.TokenFrom(t), afterlogin.ReasonInURL)
		switch {
		case err == nil:
			e.Session, e.Detail = id, "a token stood in a URL; it was ended"
		case !errors.Is(err, afterlogin.ErrInvalidToken):
			return a.problem(ctx, err) // not ended yet; it will be at the next try
		}
	}
	a.authority.Report(e)
	return NewProblem(http.StatusBadRequest, "token-in-url",
		"a token stands in the URL, where logs keep it; if it was one of ours it is ended now. Send tokens in the body, and the API key in a header")
}
