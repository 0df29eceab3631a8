package httpauth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
)

// A Requirement narrows what Require lets through.
type Requirement func(*need)

// Scopes lets only credentials through that have every one of the scopes. Others are answered 403. It panics at a scope
// that is not one by RFC 6749, section 3.3.
func Scopes(scopes ...string) Requirement {
	for _, s := range scopes {
		if s == "" || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == '"' || c == '\\' || c >= 0x7f }) {
			panic("httpauth: Scopes: not a scope: " + s)
		}
	}
	return func(n *need) { n.scopes = append(n.scopes, scopes...) }
}

// MaxAge lets only sessions through whose person has proved who they are at most that long ago. Others are answered 401
// with the challenge of RFC 9470; see Auth.StepUp. It panics unless d is at least a second.
func MaxAge(d time.Duration) Requirement {
	if d < time.Second {
		panic("httpauth: MaxAge: under a second: " + d.String())
	}
	return func(n *need) { n.maxAge = d }
}

// ACR lets only sessions through whose authentication was of one of the classes (acr: OpenID Connect Core, section 2), such
// as urn:example:gold. Others are answered as with MaxAge; the challenge names the classes in acr_values. It panics if
// there is no class, or at one that could not stand in a challenge.
func ACR(classes ...string) Requirement {
	if len(classes) == 0 {
		panic("httpauth: ACR: no class is named")
	}
	for _, c := range classes {
		if c == "" || strings.ContainsFunc(c, func(c rune) bool { return c <= ' ' || c == '"' || c == '\\' || c >= 0x7f }) {
			panic("httpauth: ACR: not a class: " + c)
		}
	}
	return func(n *need) { n.acr = slices.Clone(classes) }
}

// Kinds says which kinds of credentials are let through; sessions by default.
//
//   - KindSession: the session cookie, or Authorization: Bearer. Without this kind, the session cookie is not looked at.
//   - KindAPIKey: the header X-Api-Key, or Authorization: Bearer; keys that were imported, too.
//   - KindAccess, KindJWT: Authorization: Bearer. JWTs also from the cookie that Options.JWTCookie names, if there is no
//     session cookie beside it, and are never renewed. Options.Audience says whom these must be for.
//   - KindTicket: the parameter ticket of a GET, for links to files and for WebSockets, which cannot carry a header. A
//     ticket lets in one request, for the session that Auth.TicketURL made it for. A HEAD or a prefetch does not use it
//     up. If it is refused and a session cookie came with it, that decides, as it would have without the ticket.
//
// It panics if there is no kind, or one that no request carries as a credential: refresh tokens, codes and clients are
// for the OAuth endpoints.
func Kinds(kinds ...afterlogin.Kind) Requirement {
	if len(kinds) == 0 {
		panic("httpauth: Kinds: no kind is named")
	}
	for _, k := range kinds {
		switch k {
		case afterlogin.KindSession, afterlogin.KindAPIKey, afterlogin.KindAccess, afterlogin.KindJWT, afterlogin.KindTicket:
		default:
			panic("httpauth: Kinds: no request is authenticated by a " + k.String())
		}
	}
	return func(n *need) {
		n.kinds = slices.Clone(kinds)
		n.bearers = slices.DeleteFunc(slices.Clone(kinds), func(k afterlogin.Kind) bool { return k == afterlogin.KindTicket })
	}
}

// need is what a request must have to go through one of the two middlewares.
type need struct {
	optional bool
	kinds    []afterlogin.Kind
	bearers  []afterlogin.Kind // those that Authorization: Bearer may carry
	scopes   []string
	maxAge   time.Duration
	acr      []string
}

// lacksACR refuses a session that was not authenticated in one of the ways that are demanded.
func (n *need) lacksACR(s *afterlogin.Session) error {
	if n.acr == nil || slices.Contains(n.acr, s.Auth.ACR()) {
		return nil
	}
	return &afterlogin.Refusal{Reason: afterlogin.ReasonStaleAuth, Session: s.ID}
}

var (
	sessions = []afterlogin.Kind{afterlogin.KindSession}
	apiKeys  = []afterlogin.Kind{afterlogin.KindAPIKey}
	jwts     = []afterlogin.Kind{afterlogin.KindJWT}
)

// special reports whether a session that Optional found is not enough to decide.
func (n *need) special() bool {
	return len(n.kinds) != 1 || n.kinds[0] != afterlogin.KindSession || n.scopes != nil || n.maxAge != 0 || n.acr != nil
}

func (n *need) apiKeys() bool { return slices.Contains(n.kinds, afterlogin.KindAPIKey) }

func (n *need) sessions() bool { return slices.Contains(n.kinds, afterlogin.KindSession) }

func (n *need) jwts() bool { return slices.Contains(n.kinds, afterlogin.KindJWT) }

func (n *need) tickets() bool { return slices.Contains(n.kinds, afterlogin.KindTicket) }

// Optional finds the request's session, if there is one, for Session, and calls next in any case. A credential that is
// refused makes no session; RefusalFrom says why, so that a page can show its Message.
//
// Not called is next if the answer is not known (503), for a request that is ambiguous (two credentials, 401), has a
// token in its URL (400) or too large cookies (431), and for requests from other sites that could change something
// (403). See Require for the protection of forms, which is the same.
func (x *Auth) Optional(next http.Handler) http.Handler {
	return &gate{auth: x, next: next, need: need{optional: true, kinds: sessions, bearers: sessions}}
}

// Require calls next only with the session of a signed-in person, or another credential that the requirements name.
// Anonymous sessions are not enough. Behind Optional of the same Auth it goes on with what that has found.
//
// A request with an unsafe method, or one that opens a WebSocket, must not come from another site
// (http.CrossOriginProtection). If it has an unsafe method and is authenticated by a cookie it must carry the session's
// CSRF token: in the header X-CSRF-Token, or in the field csrf_token of a URL-encoded form of at most 1 MiB, which is
// parsed then. Requests with a bearer token or an API key need neither, since a browser does not send these by itself.
func (x *Auth) Require(next http.Handler, opts ...Requirement) http.Handler {
	n := need{kinds: sessions, bearers: sessions}
	for _, o := range opts {
		o(&n)
	}
	return &gate{auth: x, next: next, need: n}
}

// gate is the handler that Optional and Require return.
type gate struct {
	auth *Auth
	next http.Handler
	need need
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := g.auth
	v := x.visitOf(r.Context())
	if v != nil { // Optional outside, Require inside
		if g.need.optional {
			g.next.ServeHTTP(w, r)
			return
		}
		if err := x.again(v, r, &g.need); err != nil {
			x.refuse(w, r, v, &g.need, err)
			return
		}
		g.next.ServeHTTP(w, r)
		return
	}
	v = &visit{Context: r.Context(), auth: x}
	v.searchAgain(&g.need)
	v.w.ResponseWriter, v.w.visit = w, v
	if _, _, count := cutTicket(r.URL.RawQuery); count > 0 {
		v.inLink = true
		secretAddress(w.Header()) // now, whoever answers; and once more when the headers are written
	}
	in := r.WithContext(v)
	defer v.leave(r, in)
	if err := x.examine(v, in, &g.need); err != nil {
		x.refuse(&v.w, in, v, &g.need, err)
	} else {
		g.next.ServeHTTP(&v.w, in)
	}
	v.done = true
}

// examine decides on a request that is seen for the first time. A nil error lets it through.
func (x *Auth) examine(v *visit, r *http.Request, n *need) error {
	if x.options.PlainLoopback {
		if err := checkLoopback(r); err != nil {
			return err
		}
	}
	if r.URL.RawQuery != "" {
		if err := x.checkURL(r, n); err != nil {
			return err
		}
	}
	v.from = x.client(r)
	v.mayRenew = mayRenew(r) && !x.watches(r)
	if err := x.extract(v, r, n); err != nil {
		return err
	}
	if err := x.checkOrigin(v, r); err != nil {
		return err
	}
	return x.authenticate(v, r, n)
}

// again decides on a request that Optional has let through.
func (x *Auth) again(v *visit, r *http.Request, n *need) error {
	if n.special() {
		if v.searchAgain(n) {
			if err := x.extract(v, r, n); err != nil {
				return err
			}
			if err := x.checkOrigin(v, r); err != nil { // what was found may be another cookie
				return err
			}
		}
		return x.authenticate(v, r, n)
	}
	s, refusal := v.result()
	_, transport := v.credential()
	switch {
	case s != nil && (transport == ticket || !slices.Contains(n.kinds, s.Kind)): // an outer Require let it through
		return &afterlogin.Refusal{Reason: afterlogin.ReasonWrongKind, Session: s.ID}
	case s != nil && !s.Anonymous():
		return nil
	case refusal != nil:
		return refusal
	}
	return errNoCredential
}

// errNoCredential is for requests that carry nothing, or an anonymous session only. It is shared.
var errNoCredential = &afterlogin.Refusal{Reason: afterlogin.ReasonNoCredential}

// authenticate asks the authority about the credential.
func (x *Auth) authenticate(v *visit, r *http.Request, n *need) error {
	_, transport := v.credential()
	if transport == none {
		if n.optional {
			return nil
		}
		return errNoCredential
	}
	var s *afterlogin.Session
	var err error
	if transport == ticket {
		s, transport, err = x.useTicket(v, r, n)
	}
	if s == nil && err == nil {
		s, err = x.validate(v, r, n)
	}
	if err == nil && s.Subject != "" {
		err = n.lacksACR(s)
	}
	if err != nil {
		refusal, ok := err.(*afterlogin.Refusal)
		if !ok && !errors.As(err, &refusal) {
			return err
		}
		x.log.Debug("a credential was refused", "reason", refusal.Reason, "cause", refusal.Cause, "session", refusal.Session)
		if refusal.Reason != afterlogin.ReasonScope && refusal.Reason != afterlogin.ReasonStaleAuth {
			v.found(nil, refusal)
		}
		if n.optional {
			return nil
		}
		return refusal
	}
	v.found(s, nil)
	if (transport == cookie || transport == jwtCookie) && !v.proven && unsafe(r.Method) {
		if err := x.checkCSRF(s, r, v.w.ResponseWriter); err != nil {
			return err
		}
		v.proven = true
	}
	if s.Anonymous() && !n.optional {
		return errNoCredential
	}
	return nil
}

// validate asks the authority about a credential that is no ticket.
func (x *Auth) validate(v *visit, r *http.Request, n *need) (*afterlogin.Session, error) {
	token, transport := v.credential()
	e := afterlogin.Expect{
		Kinds: n.bearers, Tenant: x.options.Tenant, Audience: x.options.Audience, Scopes: n.scopes, MaxAge: n.maxAge,
		CanRenew: transport == cookie && v.mayRenew, Watch: x.watches(r), From: v.from,
	}
	switch transport {
	case cookie:
		if !n.sessions() {
			return nil, errNoCredential
		}
		e.Kinds = sessions
	case jwtCookie:
		if !n.jwts() {
			return nil, errNoCredential
		}
		e.Kinds = jwts
	case apiKeyHeader:
		e.Kinds = apiKeys
	}
	if len(e.Kinds) == 0 { // tickets only
		return nil, &afterlogin.Refusal{Reason: afterlogin.ReasonWrongKind}
	}
	return x.authority.Validate(r.Context(), token, e)
}

func (x *Auth) watches(r *http.Request) bool { return x.options.Watches != nil && x.options.Watches(r) }

// mayRenew reports whether the answer to the request may carry a new cookie. Browsers throw away what they fetched in
// advance, and caches put parts of answers together.
func mayRenew(r *http.Request) bool {
	return len(r.Header["Range"]) == 0 && len(r.Header["Upgrade"]) == 0 && !ahead(r)
}

// ahead reports whether a browser fetches this in case that somebody will want it.
func ahead(r *http.Request) bool {
	h := r.Header
	return contains(h["Sec-Purpose"], "prefetch") || contains(h["Purpose"], "prefetch") ||
		contains(h["X-Purpose"], "preview") || contains(h["X-Moz"], "prefetch")
}

func contains(values []string, word string) bool {
	for _, v := range values {
		if strings.Contains(strings.ToLower(v), word) {
			return true
		}
	}
	return false
}

func unsafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions: // those of http.CrossOriginProtection
		return false
	}
	return true
}

// Session returns the session of the request whose context it is. It may be anonymous behind Optional. It returns false
// if there is none. After SignIn, StepUp and SignOut in the same request it is the new one, or none.
func Session(ctx context.Context) (*afterlogin.Session, bool) {
	v, _ := ctx.Value(visitKey{}).(*visit)
	if v == nil {
		return nil, false
	}
	s, _ := v.result()
	return s, s != nil
}

// RefusalFrom returns why the credential of the request was refused, behind Optional and in Options.Refuse. It returns
// false if there was none, or if it was good.
func RefusalFrom(ctx context.Context) (*afterlogin.Refusal, bool) {
	v, _ := ctx.Value(visitKey{}).(*visit)
	if v == nil {
		return nil, false
	}
	_, refusal := v.result()
	return refusal, refusal != nil
}
