// Package oauth is the OAuth 2.1 profile of the server: the authorization endpoint with its consent page, the token
// endpoint (authorization_code with PKCE, refresh_token, client_credentials, token exchange), introspection, revocation,
// the metadata (RFC 8414) and the public keys.
//
// It owns the protocol: forms, client authentication, redirect URIs, the words of errors. What a token is, how it is
// rotated, when it is reuse and what a revocation ends is the authority's. docs/design/0009 says why no library stands
// between the two. Nothing but packages server and demo imports it.
//
// Start with [New].
package oauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/httpauth"
)

// The paths. They stand behind the issuer.
const (
	AuthorizePath  = "/oauth/authorize"
	TokenPath      = "/oauth/token"
	IntrospectPath = "/oauth/introspect"
	RevokePath     = "/oauth/revoke"
	MetadataPath   = "/.well-known/oauth-authorization-server"
	KeysPath       = "/.well-known/jwks.json"
)

// Paths returns everything that the handler answers.
func Paths() []string {
	return []string{AuthorizePath, TokenPath, IntrospectPath, RevokePath, MetadataPath, KeysPath}
}

// Limits.
const (
	maxBody       = 64 << 10 // of a form, in bytes
	maxParameters = 64
	maxURL        = 2048 // of an authorization request; what httpauth returns to after a sign-in
	// requestTimeout bounds a request, and at introspection each read of the store.
	requestTimeout = 10 * time.Second
	// keysMaxAge is for how long verifiers may keep the public keys. A new key must be published that long before it signs.
	keysMaxAge = 10 * time.Minute
)

// Options configure New.
type Options struct {
	// Authority is required, and must have an issuer: an origin without a path, https, or http on this machine.
	Authority *afterlogin.Authority
	// SignInURL is the application's sign-in page: a path, or an https URL on the same host. People who are not signed in
	// are sent there, with return_to. Empty: they are sent back to the client with login_required.
	SignInURL string
	// Sign makes a JWS of the payload, for introspection as a JWT (RFC 9701). Nil: there is none.
	Sign func(typ string, payload []byte) (string, error)
	// Algorithm is what Sign signs with.
	Algorithm string
	// Shared says that other servers use the authority's store, too: what may be used once is then noted there.
	Shared bool
	// Policies are the authority's, for what the consent page says.
	Policies map[string]afterlogin.Policy
	// Logger receives what an operator should know, never a token or a secret. Nil discards it.
	Logger *slog.Logger
	// Now is the authority's clock. Nil means time.Now.
	Now func() time.Time
	// ClientAddr tells where a request came from, by which API keys that are bound to networks are judged. Nil is the
	// connection's address.
	ClientAddr func(*http.Request) netip.Addr
}

// A Server answers the OAuth endpoints. It is an http.Handler, safe for concurrent use. Cross-origin requests get no
// CORS headers: an app in a browser uses it from its own origin.
type Server struct {
	authority *afterlogin.Authority
	issuer    string
	signIn    string
	sign      func(typ string, payload []byte) (string, error)
	policies  map[string]afterlogin.Policy
	log       *slog.Logger
	now       func() time.Time
	shared    bool
	known     *known
	failures  failures
	seen      assertions
	metadata  []byte
	ask       http.Handler // GET of the authorization endpoint
	answer    http.Handler // POST of its consent page

	clientAddr func(*http.Request) netip.Addr
}

// New returns the handler.
func New(o Options) (*Server, error) {
	if o.Authority == nil {
		return nil, errors.New("oauth: Options.Authority is required")
	}
	s := &Server{authority: o.Authority, issuer: o.Authority.Issuer(), signIn: o.SignInURL, sign: o.Sign, policies: o.Policies, log: o.Logger, now: o.Now, shared: o.Shared, clientAddr: o.ClientAddr}
	u, err := url.Parse(s.issuer)
	if err != nil || u.Host == "" || s.issuer != u.Scheme+"://"+u.Host {
		return nil, fmt.Errorf("oauth: the issuer %q is not an origin, as https://auth.example.com", s.issuer)
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.clientAddr == nil {
		s.clientAddr = remote
	}
	if s.policies == nil {
		s.policies = afterlogin.DefaultPolicies()
	}
	s.known = newKnown(s.authority, s.now)
	s.metadata = s.describe(o.Algorithm)
	auth, err := httpauth.New(s.authority, httpauth.Options{PlainLoopback: u.Scheme == "http", Logger: s.log, ClientAddr: s.clientAddr})
	if err != nil {
		return nil, err
	}
	s.ask = auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.authorize(w, r, auth, r.URL.RawQuery, "") }))
	s.answer = auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.consented(w, r, auth) }))
	return s, nil
}

// Observe is to be called with every event of this process's authority, so that a client which was changed here is read
// again at once. What another node changes is seen within a second.
func (s *Server) Observe(e afterlogin.Event) {
	switch e.Type {
	case afterlogin.EventClientChanged, afterlogin.EventClientRevoked:
		s.known.forget()
	}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Cache-Control"] = noStore
	h["Pragma"] = noCache // RFC 6749, 5.1, for the oldest of caches
	h["X-Content-Type-Options"] = noSniff
	switch r.URL.Path {
	case TokenPath:
		s.backChannel(w, r, s.token)
	case IntrospectPath:
		s.backChannel(w, r, s.introspect)
	case RevokePath:
		s.backChannel(w, r, s.revoke)
	case AuthorizePath:
		s.front(w, r)
	case MetadataPath:
		s.document(w, r, "application/json", s.metadata)
	case KeysPath:
		s.keys(w, r)
	default:
		http.NotFound(w, r)
	}
}

// client is a registered client, ready for use.
type client struct {
	id       string
	reg      *afterlogin.Registration
	settings *clients.Settings
	sums     clients.Sums
}

// from is where the request came from.
func (s *Server) from(r *http.Request) afterlogin.Client {
	return afterlogin.Client{Addr: s.clientAddr(r), UserAgent: r.UserAgent()}
}

// fault turns an error of the authority into what the client is told. The cause of a trouble goes to the log, and only
// there.
func (s *Server) fault(ctx context.Context, err error) *Error {
	var e *Error
	var limit *afterlogin.LimitError
	var refused *afterlogin.Refusal
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &limit):
		return slowDown(limit.RetryAfter)
	case errors.As(err, &refused):
		switch refused.Reason {
		case afterlogin.ReasonScope:
			return fail(InvalidScope, "more scopes are asked for than were granted")
		case afterlogin.ReasonWrongAudience:
			return fail(InvalidTarget, "the token would be for a service that it was not granted for")
		}
		return fail(InvalidGrant, "not good any more, or never was: "+string(refused.Reason))
	case errors.Is(err, afterlogin.ErrUnavailable):
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			s.log.DebugContext(ctx, "the client hung up", "err", err)
		} else {
			s.log.ErrorContext(ctx, "the store cannot be asked", "err", err)
		}
		return unavailable()
	case errors.Is(err, afterlogin.ErrSessionLimit): // there is no code for it; the code is used up, and to begin anew is right
		return fail(InvalidGrant, "this person has given offline_access as often as they may: take one back first")
	case errors.Is(err, afterlogin.ErrNoClient):
		return badClient("there is no such client")
	case errors.Is(err, afterlogin.ErrBadRequest):
		s.log.WarnContext(ctx, "a request that the authority does not take", "err", err)
		return fail(InvalidRequest, "this cannot be asked for")
	}
	s.log.ErrorContext(ctx, "unexpected error", "err", err)
	return &Error{Code: ServerError, Description: "something went wrong here; the log of the server says what", Status: http.StatusInternalServerError}
}

// words splits a scope parameter (RFC 6749, 3.3).
func words(text string) ([]string, *Error) {
	if text == "" {
		return nil, nil
	}
	var out []string
next:
	for w := range strings.SplitSeq(text, " ") {
		if !clients.ValidScope(w) {
			return nil, fail(InvalidScope, "scope: want words with one blank between them")
		}
		for _, o := range out {
			if o == w {
				continue next
			}
		}
		if out = append(out, w); len(out) > 50 {
			return nil, fail(InvalidScope, "scope: more than 50")
		}
	}
	return out, nil
}
