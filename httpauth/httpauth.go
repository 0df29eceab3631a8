// Package httpauth turns the cookie, bearer token, API key or ticket of a request into a verified session, and makes the
// calls of [afterlogin.Authority] at the right moments of a web application: sign-in, renewal, step-up, sign-out.
//
// It owns where credentials are found, the cookie and its attributes, the challenge of a refusal (RFC 6750, RFC 9470),
// protection against cross-site requests, and the caching headers of what depends on a session. It does not check
// passwords and draws no pages.
//
// Start with [New]. Put pages that everybody may see behind [Auth.Optional], pages that need a signed-in person behind
// [Auth.Require], and call [Auth.Begin] and [Auth.SignIn] in the handler of the sign-in form. Everything else here is
// called with a request that has come through one of the two. [Kinds] says which credentials a page takes besides
// sessions, [Auth.JWT] makes tokens for services behind it, [Auth.TicketURL] makes links for what can carry neither a cookie
// nor a header, and [Auth.AcceptHandOver] lets people be signed in on a second host.
//
// # The cookie
//
// It is named __Host-Http-session_id, which browsers only take with Secure, HttpOnly and Path=/, without Domain, and
// only from a Set-Cookie header: no other host and no script can plant it. Its value is 88 characters, whatever the
// session holds. It lives as long as the browser runs; with the remember policy it has the Max-Age that is left of the
// session's absolute lifetime.
//
// It is set when its value changes (sign-in, step-up, the first data of an anonymous session, a renewal) and at no other
// time, at most once in an answer, and always with Cache-Control: no-store, which replaces whatever caching headers the
// handler chose for that answer. A refusal never clears it: the reason may be a mistake, or a store that is restored.
//
// A renewal happens when the headers of an answer are written, never earlier, so that a slow answer does not put an old
// cookie back. It does not happen on prefetches, Range requests, upgrades, 304 and hijacked connections, nor beside a
// sign-in. If the store is slow or down it is left to the next answer.
//
// # Caching
//
// What is answered through this package depends on the request's credential, so it says Vary: Authorization, Cookie.
// An answer for a session gets Cache-Control: private, no-cache, unless the handler set Cache-Control or Expires; a
// handler may still say public for what is the same for everybody. Pages that must not come back with the browser's
// back button after a sign-out should say no-store themselves. Serve static files outside of this package, and none of
// this concerns them.
package httpauth

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"

	"github.com/afterlogin/afterlogin"
)

// The names of the session cookie.
const (
	// CookieName is the default name of the session cookie.
	CookieName = "__Host-Http-session_id"
	// PlainCookieName is its default name with Options.PlainLoopback.
	PlainCookieName = "session_id"
)

// Options are what New can be told. The zero value works, and is the safest.
type Options struct {
	// PlainLoopback is for development over plain HTTP on the own machine: the cookie is called session_id and is not
	// Secure. A request that does not come over the loopback interface, or is not addressed to it, is refused (421).
	PlainLoopback bool
	// CookieName is the name of the session cookie; the default is CookieName, or PlainCookieName with PlainLoopback.
	// It must begin with __Host-, or browsers would take it from other hosts of the domain; with PlainLoopback it must
	// not, since browsers would not take it at all. Two applications on one host need two names.
	CookieName string
	// SameSite is Lax by default. Strict also hides the session from the first request of a link from elsewhere; None
	// shows it to requests from other sites and frames.
	SameSite http.SameSite
	// Tenant is the tenant that sessions are made for, and the only one whose tokens are accepted.
	Tenant uint32
	// Audience is what this application is called in tokens that are for certain services only (RFC 8707): one of these
	// must be in the aud of a JWT, and in the audience of an access token or an API key that has one. Without it, JWTs
	// must be for the issuer, and nothing is asked of the others.
	Audience []string
	// JWTCookie is the name of a cookie that may carry a JWT, such as __Host-Http-jwt, for Kinds(afterlogin.KindJWT) and
	// SetJWTCookie. By default there is none. The rules for CookieName hold for it.
	JWTCookie string
	// Origin is how browsers address this application: https://shop.example, or an http origin on a loopback host. It is
	// needed by AcceptHandOver and StartHandOver. If it is set, every ticket must be for this origin, and for a path alone
	// none is good, whoever made it.
	Origin string
	// HandOverTo are the origins of the applications that HandOver sends signed-in people to, and that TicketURL links to.
	HandOverTo []string
	// ClientAddr tells where a request came from. The default is the connection's address: no header is believed, since
	// anybody can send one. Behind a proxy of your own, return the address that it vouches for.
	ClientAddr func(*http.Request) netip.Addr
	// Watches reports whether a request only watches, such as that of a stream that a page follows by itself: it is no use
	// of the session, whose idle time goes on, and its answer carries no renewed cookie. Nil: none does.
	Watches func(*http.Request) bool
	// Refuse writes the answer to a request that is not let through: the status, which Status(err) tells, and a body.
	// The headers that belong to the answer (WWW-Authenticate, Retry-After, Cache-Control, Referrer-Policy) are set.
	// The default is Answer.
	Refuse func(w http.ResponseWriter, r *http.Request, err error)
	// SignInURL is the sign-in page: an absolute path, or an https URL. If it is set, Require sends browsers that
	// navigate there (303), with the parameter return_to, which SafeReturn must check before it is used, and, if the
	// session is there but too old for what was asked for, reason=stale_auth.
	SignInURL string
	// TrustedOrigins are other origins ("https://www.example.com") that may send requests which change something.
	TrustedOrigins []string
	// ClearSiteData is sent by SignOut in a Clear-Site-Data header: of cache, cookies, storage, executionContexts, or *.
	// Nothing by default, since clearing the cache takes some browsers seconds.
	ClearSiteData []string
	// Logger receives what an operator should know, never a token. Nil discards it.
	Logger *slog.Logger
}

// Auth is the middleware of one application. It is safe for concurrent use. Make it with New.
type Auth struct {
	authority *afterlogin.Authority
	options   Options
	origins   *http.CrossOriginProtection
	log       *slog.Logger

	cookieName  string
	attributes  string // of the cookie, as they stand in Set-Cookie
	signInPath  string // of SignInURL
	clearData   string
	plainWarned sync.Once
	made        madeJWTs
}

// New returns the middleware for the authority. The error is ErrBadOptions, and says which option is wrong and what to
// do about it.
func New(a *afterlogin.Authority, o Options) (*Auth, error) {
	x := &Auth{authority: a, options: o, log: o.Logger, origins: http.NewCrossOriginProtection()}
	if a == nil {
		return nil, badOption("the authority is nil: make one with afterlogin.New")
	}
	if x.log == nil {
		x.log = slog.New(slog.DiscardHandler)
	}
	if x.options.ClientAddr == nil {
		x.options.ClientAddr = remoteAddr
	}
	if x.options.Refuse == nil {
		x.options.Refuse = Answer
	}
	for _, origin := range o.TrustedOrigins {
		if err := x.origins.AddTrustedOrigin(origin); err != nil {
			return nil, badOption("TrustedOrigins: %q is not an origin such as https://www.example.com", origin)
		}
	}
	for _, d := range o.ClearSiteData {
		switch d {
		case "cache", "cookies", "storage", "executionContexts", "*":
		default:
			return nil, badOption("ClearSiteData: %q is not cache, cookies, storage, executionContexts or *", d)
		}
		if x.clearData != "" {
			x.clearData += ", "
		}
		x.clearData += `"` + d + `"`
	}
	if err := x.setSignIn(o.SignInURL); err != nil {
		return nil, err
	}
	if err := x.setOrigins(o); err != nil {
		return nil, err
	}
	return x, x.setCookie(o)
}

// ErrBadOptions is returned by New.
var ErrBadOptions = errors.New("httpauth: bad options")

func badOption(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBadOptions}, args...)...)
}

func (x *Auth) setSignIn(to string) error {
	if to == "" {
		return nil
	}
	u, err := url.Parse(to)
	switch {
	case err != nil:
		return badOption("SignInURL is not a URL")
	case strings.Contains(to, "#"):
		return badOption("SignInURL: %q has a fragment, which would swallow return_to", to)
	case to == SafeReturn(to):
		x.signInPath = u.Path
	case u.Scheme != "https" || u.Host == "" || u.User != nil:
		return badOption("SignInURL: %q is neither a path such as /sign-in nor an https URL", to)
	}
	return nil
}

// setCookie decides on the name and the attributes of the cookie.
func (x *Auth) setCookie(o Options) error {
	x.cookieName = o.CookieName
	if x.cookieName == "" {
		x.cookieName = CookieName
		if o.PlainLoopback {
			x.cookieName = PlainCookieName
		}
	}
	if err := checkCookieName("CookieName", x.cookieName, o.PlainLoopback); err != nil {
		return err
	}
	if o.JWTCookie != "" {
		if o.JWTCookie == x.cookieName {
			return badOption("JWTCookie: %q is the name of the session cookie: the two need two names", o.JWTCookie)
		}
		if err := checkCookieName("JWTCookie", o.JWTCookie, o.PlainLoopback); err != nil {
			return err
		}
	}
	x.attributes = "; Path=/"
	if !o.PlainLoopback {
		x.attributes += "; Secure"
	}
	x.attributes += "; HttpOnly"
	switch o.SameSite {
	case 0, http.SameSiteDefaultMode, http.SameSiteLaxMode:
		x.attributes += "; SameSite=Lax"
	case http.SameSiteStrictMode:
		x.attributes += "; SameSite=Strict"
	case http.SameSiteNoneMode:
		if o.PlainLoopback {
			return badOption("SameSite: browsers take None over HTTPS only; leave out PlainLoopback")
		}
		x.attributes += "; SameSite=None"
	default:
		return badOption("SameSite: %d is none of Lax, Strict and None", o.SameSite)
	}
	return nil
}

func checkCookieName(option, name string, plain bool) error {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("()<>@,;:\\\"/[]?={}", c) >= 0 {
			return badOption("%s: %q has characters that a cookie's name cannot have", option, name)
		}
	}
	// Browsers compare the prefixes whatever the case, but a server must not: only the exact spelling is ours.
	reserved := strings.HasPrefix(name, "__")
	switch {
	case len(name) > 100:
		return badOption("%s: %d characters, at most 100", option, len(name))
	case plain && reserved:
		return badOption("%s: browsers take %q over HTTPS only; leave out the prefix, or PlainLoopback", option, name)
	case !plain && !strings.HasPrefix(name, "__Host-"):
		return badOption("%s: %q does not begin with __Host-; without it other hosts of the domain could plant the cookie", option, name)
	}
	return nil
}

// setOrigins checks the origins of a hand-over.
func (x *Auth) setOrigins(o Options) error {
	if o.Origin != "" && !isOrigin(o.Origin) {
		return badOption("Origin: %q is not an origin such as https://shop.example, in lower case and without a path", o.Origin)
	}
	for _, origin := range o.HandOverTo {
		if !isOrigin(origin) {
			return badOption("HandOverTo: %q is not an origin such as https://shop.example, in lower case and without a path", origin)
		}
	}
	return nil
}

// isOrigin reports whether s is an https origin as browsers write it, or an http origin on a loopback host, where browsers
// take Secure cookies all the same.
func isOrigin(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || s != u.Scheme+"://"+u.Host || s != strings.ToLower(s) {
		return false
	}
	return u.Scheme == "https" && u.Port() != "443" || u.Scheme == "http" && u.Port() != "80" && loopbackHost(u.Host)
}

func remoteAddr(r *http.Request) netip.Addr {
	p, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // a Unix socket, or no network at all
	}
	return p.Addr()
}

// client is where the request came from.
func (x *Auth) client(r *http.Request) afterlogin.Client {
	c := afterlogin.Client{Addr: x.options.ClientAddr(r)}
	if ua := r.Header["User-Agent"]; len(ua) > 0 {
		c.UserAgent = ua[0]
	}
	return c
}
