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
	// Sign signs claims with the installation's key, as a token of the type. It is called about twice a minute for each
	// session and application that is asked about, and by all who ask at the moment when a new assertion is due.
	Sign func(typ string, c *jwt.Claims) (string, error)
	Apps []App
	// Proxies are the networks of the peers whose X-Forwarded headers are believed. Whoever connects from there can say
	// which application and which address a request is for and from.
	Proxies []netip.Prefix
	// Refuse is httpauth.Options.Refuse of every Site's Auth, for pages that want to answer in their own way. The answers
	// to proxies are written with it, too: for requests that are not its own it must do what httpauth.Answer does, which is
	// the default.
	Refuse func(w http.ResponseWriter, r *http.Request, err error)
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
	// that are for certain services only, must be for. Origin by default. (The issuer as the aud of a JWT is accepted,
	// too.) A token that was given to an OAuth client must be for it by this name, or a rule must demand scopes: that
	// somebody has let a client see their profile lets it in nowhere else.
	Audience string
	// Rules say what is demanded where. Everything that no rule is for is for who is signed in.
	Rules []Rule
	// SignInURL is where browsers are sent to sign in: a path of the application's host, or an https URL of another,
	// which gets the whole address in return_to. BasePath + "/login" by default. A path of the application's own is
	// public, exactly, unless there is a rule for it.
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
	// Path is decoded, and clean: "/reports/q3" is one path, and "/" is the root page alone; "/admin/" is everything below
	// it, and "/admin"; "/*" is everything. A rule that is not public is for its exact path with a slash behind it, too,
	// since many applications see no difference.
	Path string
	// Methods are those that the rule is for; none: all. GET includes HEAD.
	Methods []string
	// Public lets everybody in. Who is signed in is told all the same.
	Public bool
	// Kinds are the kinds of credential that are let in: KindSession, KindAPIKey, KindAccess, KindJWT; none: all four,
	// or, where MaxAge or ACR ask for a person, all but KindAPIKey.
	Kinds []afterlogin.Kind
	// Scopes are demanded, all of them.
	Scopes []string
	// MaxAge is how long ago the person may have proved who they are; in whole seconds. 0: any time. Machines, which
	// prove nothing of the kind (API keys, clients, and what lives under these), are never let in by a rule with MaxAge
	// or ACR.
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
	hops       hops // to the renewal
	agains     hops // to the same address
	warned     warned
}

// app is an App, ready for use.
type app struct {
	site     Site
	audience []string // its own first, which assertions are for
	rules    rules
	signIn   signIn
}

// New returns the gateway. The error is ErrBadOptions.
func New(o Options) (*Gateway, error) {
	switch {
	case o.Authority == nil:
		return nil, bad("Authority is nil: make one with afterlogin.New")
	case o.Sign == nil:
		return nil, bad("Sign is nil: assertions are signed with a key of the installation's")
	}
	if err := Check(o); err != nil {
		return nil, err
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

// add adds an application that Check has nothing to say about.
func (g *Gateway) add(a App, o Options) (err error) {
	x := &app{audience: []string{a.Audience}, signIn: signInOf(a)}
	if a.Audience == "" {
		x.audience[0] = a.Origin
	}
	if x.audience[0] != g.issuer {
		x.audience = append(x.audience, g.issuer)
	}
	x.site = Site{Origin: a.Origin, Base: BasePath}
	x.site.Auth, err = httpauth.New(o.Authority, httpauth.Options{
		Origin: a.Origin, Audience: x.audience, ClientAddr: g.ClientAddr, Logger: o.Logger, SignInURL: BasePath + "/login",
		Refuse: o.Refuse,
		// The proxy may not pass on the Host header, with which the origin of a form is compared.
		TrustedOrigins: append([]string{a.Origin}, a.TrustedOrigins...),
	})
	if err != nil {
		return bad("%v", err)
	}
	x.rules = compile(x.site.Auth, a.Rules, x.signIn.path)
	hosts, host := g.secure, strings.TrimPrefix(a.Origin, "https://")
	if host == a.Origin {
		hosts, host = g.plain, strings.TrimPrefix(a.Origin, "http://")
	}
	if hosts[host] != nil {
		return bad("Origin: it is there twice")
	}
	hosts[host] = x
	return nil
}

// signIn is where browsers are sent to sign in.
type signIn struct {
	to    string // up to the value of return_to
	whole bool   // it is on another host: return_to is a whole address
	path  string // canonical, of a page of the application's own; "" if it is none
}

// signInOf returns where it is for an application whose SignInURL was checked.
func signInOf(a App) signIn {
	if a.SignInURL == "" {
		return signIn{to: a.Origin + BasePath + "/login?return_to="}
	}
	in, own := signIn{to: a.SignInURL, whole: true}, a.ownSignIn()
	if own != "" {
		in.to, in.whole = a.Origin+own, false
		raw, _, _ := strings.Cut(own, "?")
		if path, f := canonicalPath(raw, true); f == nil && !below(path) {
			in.path = path
		}
	}
	if strings.Contains(in.to, "?") {
		in.to += "&return_to="
	} else {
		in.to += "?return_to="
	}
	return in
}

// ownSignIn returns the path and query of a sign-in page on the application's host, "" for one elsewhere.
func (a App) ownSignIn() string {
	own := a.SignInURL
	if rest, ok := strings.CutPrefix(own, a.Origin); ok && a.Origin != "" {
		own = rest
	}
	if !strings.HasPrefix(own, "/") {
		return ""
	}
	return own
}

// below reports whether a canonical path is one of afterlogin's own.
func below(path string) bool { return path == BasePath || strings.HasPrefix(path, BasePath+"/") }

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
