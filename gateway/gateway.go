// Package gateway answers the question that a reverse proxy asks before it lets a request through to an application:
// who is this, and may they? An application that knows nothing of sessions gets them, API keys and tokens that way
// (nginx auth_request, Caddy forward_auth, Traefik ForwardAuth, Envoy ext_authz over HTTP, HAProxy, Apache).
//
// It owns how the original request is read from what the proxy says of it, the rules of paths, the identity headers with
// the signed assertion, and the redirects to the sign-in page and to the renewal. It has no sign-in page: [Gateway.Site]
// tells whoever has one, for requests below BasePath of an application's own host.
//
// Start with [New]. A [Gateway] is the http.Handler of the paths below Path. They must reach it as the proxy sent them:
// not through an http.ServeMux, which cleans paths, and not through a check of the Host header, which under Envoy is the
// application's.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/jwt"
)

// Paths.
const (
	// Path is what proxies ask. Below it are the variants: /traefik, /nginx, /answer, and /envoy followed by the original
	// path and query.
	Path = "/forward-auth"
	// BasePath is where the pages of afterlogin itself are on an application's host. The proxy sends everything below it
	// here, unchanged.
	BasePath = "/.afterlogin"
	// RenewPath is the renewal, below BasePath: see Gateway.Renew.
	RenewPath = "/renew"
)

// TypeAssertion is the type (typ) of the signed assertion.
const TypeAssertion = "assertion+jwt"

// CookiePrefix begins the names of all cookies that afterlogin's own pages set on an application's host, beside the
// session's. They are kept from the application.
const CookiePrefix = "__Host-Http-afterlogin_"

// ErrBadOptions is returned by New. Its text says which option is wrong, and what to do about it.
var ErrBadOptions = errors.New("gateway: bad options")

// Options are what New is told. Authority, Sign, Apps and Proxies are required.
type Options struct {
	Authority *afterlogin.Authority
	// Issuer is the iss of assertions; Authority.Issuer by default.
	Issuer string
	// Sign signs claims with the installation's key, as a token of the type. It is called at most about twice a minute
	// for each session and application.
	Sign func(typ string, c *jwt.Claims) (string, error)
	Apps []App
	// Proxies are the networks of the peers whose X-Forwarded headers are believed. Whoever connects from there can say
	// which application and which address a request is for and from.
	Proxies []netip.Prefix
	// Logger receives what an operator should know, never a token. Nil discards it.
	Logger *slog.Logger
	// Now tells the time: the authority's clock. Nil is time.Now.
	Now func() time.Time
}

// An App is one application behind the proxy.
type App struct {
	// Origin is how browsers address it: https://shop.example.com, in lower case, without the default port and without a
	// path; or http on a loopback host, for trying out.
	Origin string
	// Audience is what the application is called in tokens: the aud of its assertions, and what JWTs, and access tokens
	// that are for certain services only, must be for. (The issuer as the aud of a JWT is accepted, too.) Origin by
	// default.
	Audience string
	// Rules say what is demanded where. Everything that no rule is for is for who is signed in.
	Rules []Rule
	// SignInURL is where browsers are sent to sign in: a path of the application's host, or an https URL of another,
	// which gets the whole address in return_to. BasePath + "/login" by default.
	SignInURL string
	// TrustedOrigins are other origins whose pages may send requests that change something.
	TrustedOrigins []string
}

// A Rule says what is demanded of requests for a path. The zero value of everything but Path is the default: somebody
// signed in, or an API key, an access token or a JWT.
//
// Of several rules the one with the most specific path decides, alone: one for exactly this path before any prefix, and
// of prefixes the longest. Of two for the same path, the one that names the method. If no rule for that path is for the
// method, the next less specific path decides; if there are rules for the path and none takes the method, the request is
// refused (403).
type Rule struct {
	// Path is decoded, and clean: "/reports/q3" is one path; "/admin/" is everything below it, and "/admin". A rule that
	// is not public is for its exact path with a slash behind it, too, since many applications see no difference.
	Path string
	// Methods are those that the rule is for; none: all. GET includes HEAD.
	Methods []string
	// Public lets everybody in. Who is signed in is told all the same.
	Public bool
	// Kinds are the kinds of credential that are let in: KindSession, KindAPIKey, KindAccess, KindJWT; none: all four.
	Kinds []afterlogin.Kind
	// Scopes are demanded, all of them.
	Scopes []string
	// MaxAge is how long ago the person may have proved who they are; in whole seconds. 0: any time.
	MaxAge time.Duration
	// ACR lists the classes of authentication of which the session's must be one; none: any.
	ACR []string
}

// A Site is the place of afterlogin's own pages on one host.
type Site struct {
	Origin string         // of the application: https://shop.example.com
	Base   string         // BasePath, which stands before the path of every page
	Auth   *httpauth.Auth // of the application: its cookie, its audience
}

// A Gateway is safe for concurrent use. Make it with New. It has no goroutines and needs no closing.
type Gateway struct {
	authority *afterlogin.Authority
	issuer    string
	sign      func(string, *jwt.Claims) (string, error)
	proxies   networks
	log       *slog.Logger
	now       func() time.Time

	secure map[string]*app // by host, of https origins
	plain  map[string]*app // of http origins

	assertions assertions
	hops       hops
	warned     warned
}

// app is an App, ready for use.
type app struct {
	site     Site
	audience []string // its own first, which assertions are for
	rules    rules
	login    string // where to sign in, up to return_to=
	whole    bool   // login is on another host: return_to is a whole address
}

// New returns the gateway. The error is ErrBadOptions.
func New(o Options) (*Gateway, error) {
	switch {
	case o.Authority == nil:
		return nil, bad("Authority is nil: make one with afterlogin.New")
	case o.Sign == nil:
		return nil, bad("Sign is nil: assertions are signed with a key of the installation's")
	case len(o.Apps) == 0:
		return nil, bad("Apps is empty: name the origin of at least one application")
	case len(o.Proxies) == 0:
		return nil, bad("Proxies is empty: name the networks that the proxies connect from, such as 127.0.0.0/8")
	}
	g := &Gateway{
		authority: o.Authority, issuer: o.Issuer, sign: o.Sign, log: o.Logger, now: o.Now,
		secure: make(map[string]*app), plain: make(map[string]*app),
	}
	if g.issuer == "" {
		g.issuer = o.Authority.Issuer()
	}
	if g.issuer == "" {
		return nil, bad("Issuer is empty, and the authority has none: assertions must say who makes them")
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.now == nil {
		g.now = time.Now
	}
	for _, p := range o.Proxies {
		if !p.IsValid() {
			return nil, bad("Proxies: a network is not valid; they look like 10.0.0.0/8 or ::1/128")
		}
		if p.Addr().Is4In6() {
			return nil, bad("Proxies: %s is an IPv4 network in IPv6 form: write it as 10.0.0.0/8", p)
		}
		g.proxies = append(g.proxies, p.Masked())
	}
	for _, a := range o.Apps {
		if err := g.add(a, o); err != nil {
			return nil, fmt.Errorf("%w (application %q)", err, a.Origin)
		}
	}
	return g, nil
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBadOptions}, args...)...)
}

// add adds an application.
func (g *Gateway) add(a App, o Options) error {
	u, err := url.Parse(a.Origin)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return bad("Origin: want an origin such as https://shop.example.com")
	}
	x := &app{audience: []string{a.Audience}}
	if a.Audience == "" {
		x.audience[0] = a.Origin
	}
	if x.audience[0] != g.issuer {
		x.audience = append(x.audience, g.issuer)
	}
	if x.login, x.whole, err = signIn(a); err != nil {
		return err
	}
	x.site = Site{Origin: a.Origin, Base: BasePath}
	x.site.Auth, err = httpauth.New(o.Authority, httpauth.Options{
		Origin: a.Origin, Audience: x.audience, ClientAddr: g.ClientAddr, Logger: o.Logger, SignInURL: BasePath + "/login",
		// The proxy may not pass on the Host header, with which the origin of a form is compared.
		TrustedOrigins: append([]string{a.Origin}, a.TrustedOrigins...),
	})
	if err != nil {
		return bad("%v", err)
	}
	if x.rules, err = compile(x.site.Auth, a.Rules); err != nil {
		return err
	}
	hosts := g.secure
	if u.Scheme == "http" {
		hosts = g.plain
	}
	if hosts[u.Host] != nil {
		return bad("Origin: it is there twice")
	}
	hosts[u.Host] = x
	return nil
}

// signIn returns where browsers are sent to sign in, up to the value of return_to, and whether that is another host.
func signIn(a App) (to string, whole bool, err error) {
	switch {
	case a.SignInURL == "":
		return a.Origin + BasePath + "/login?return_to=", false, nil
	case strings.Contains(a.SignInURL, "#"):
		return "", false, bad("SignInURL has a fragment, which would swallow return_to")
	case a.SignInURL[0] == '/' && httpauth.SafeReturn(a.SignInURL) == a.SignInURL:
		to = a.Origin + a.SignInURL
	default:
		u, err := url.Parse(a.SignInURL)
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
			return "", false, bad("SignInURL is neither a path such as /sign-in nor a URL such as https://id.example.com/login")
		}
		to, whole = a.SignInURL, true
	}
	if strings.Contains(to, "?") {
		return to + "&return_to=", whole, nil
	}
	return to + "?return_to=", whole, nil
}

// Handles reports whether the request is for ServeHTTP.
func Handles(r *http.Request) bool {
	return r.URL.Path == Path || strings.HasPrefix(r.URL.Path, Path+"/")
}

// warned keeps the log from being filled by a proxy that is set up wrongly.
type warned struct {
	mu   sync.Mutex
	last map[string]time.Time // by what is wrong, of which there are few
}

// warn logs what an operator has to put right, at most once a minute.
func (g *Gateway) warn(ctx context.Context, f *fault) {
	now := g.now()
	g.warned.mu.Lock()
	if now.Sub(g.warned.last[f.code]) < time.Minute {
		g.warned.mu.Unlock()
		return
	}
	if g.warned.last == nil {
		g.warned.last = make(map[string]time.Time)
	}
	g.warned.last[f.code] = now
	g.warned.mu.Unlock()
	g.log.WarnContext(ctx, "a proxy asks in a way that cannot be answered", "problem", f.code, "detail", f.text)
}
