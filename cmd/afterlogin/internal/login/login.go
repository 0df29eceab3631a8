// Package login is the pages where people sign in and out: with the name and the password of a built-in user, or by one
// of the OpenID providers, whose part of it another package does. It makes the session of who has signed in, there and
// here, and steps it up. The pages need no JavaScript.
//
// Below the Base of a site are
//
//	login      the sign-in page; with a session, who is signed in; with reason=stale_auth, acr_values or max_age, the
//	           question to confirm who one is
//	logout     ends the session, after a question
//	password   where built-in users change their password
//	handover   takes a session over to, and from, another site: see handover.go
//
// # Cross-site requests
//
// Every POST must come from the site itself (httpauth's check of Sec-Fetch-Site and Origin) and carry a token: that of
// the session, or, before there is one, the digest of a cookie which no other host and no script can set. So nobody can
// sign somebody else in to his own account, either.
//
// Start with [New].
package login

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
	"github.com/afterlogin/afterlogin/httpauth"
)

// A Site is the place of these pages on one host. Options.Refuse of its Auth is Refuse.
type Site struct {
	Origin string         // https://shop.example.com, or http on a loopback host
	Base   string         // what stands before the path of every page: "/.afterlogin", or nothing
	Auth   *httpauth.Auth // its cookie, and where its requests come from; with the Origin in its options
}

// A Provider is an OpenID provider that people may sign in with. Its button leads to Base/oidc/ID/start, with return_to,
// with remember=1 if they want to stay signed in, with confirm=1 if it is the person of the session who is asked once more,
// and, where they were asked for, max_age and acr_values. Subjects of people who come from there begin with ID and a colon.
type Provider struct {
	ID   string
	Name string // what people call it
	// ACR are the classes of authentication that are asked of it always. Empty: it may be asked for any.
	ACR []string
}

// Options configure New. Authority and Site are required.
type Options struct {
	Authority *afterlogin.Authority
	// Users are the built-in users. Nil: nobody is asked for a password.
	Users *users.Users
	// Providers are the buttons of the sign-in page.
	Providers []Provider
	// Site returns the site that a request is for. Its error is answered 421, or 503 if it is afterlogin.ErrUnavailable.
	Site func(*http.Request) (*Site, error)
	// Returns are the origins of other hosts that return_to may name. A path of the site itself may always be named.
	Returns []string
	// Home is the origin of the server's own host, where the pages are without a Base; "" if it has none.
	Home string
	// HandOver are those of Returns that are sites with these pages below "/.afterlogin". Who has signed in at Home to go
	// there is signed in there, too: see handover.go.
	HandOver []string
	// PasswordACR is the class of authentication that a password gives; none by default.
	PasswordACR string
	// NoRemember takes the question away whether to stay signed in after the browser was closed.
	NoRemember bool
	// Account says that there is a page below a site's Base, account/sessions, where people see where they are signed in:
	// who is signed in is shown the way.
	Account bool
	// SignedOut returns where to send the browser of somebody who has just signed out of the session, such as their
	// provider's own sign-out, or "" for to, which is an address that is safe to go to. Nil is to, always.
	SignedOut func(r *http.Request, site *Site, s *afterlogin.Session, to string) string
	// Logger receives what an operator should know: never a password or a token, and no name that no user has. Nil
	// discards.
	Logger *slog.Logger
	Now    func() time.Time // the authority's clock; nil means time.Now
}

// Login is the http.Handler of the pages. It is safe for concurrent use, and has no goroutines.
type Login struct {
	o   Options
	log *slog.Logger
	now func() time.Time
}

// New returns the pages.
func New(o Options) (*Login, error) {
	l := &Login{o: o, log: o.Logger, now: o.Now}
	if o.Authority == nil || o.Site == nil {
		return nil, errors.New("login: Authority and Site are needed")
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.now == nil {
		l.now = time.Now
	}
	for _, origin := range slices.Concat(o.Returns, o.HandOver) {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || origin != u.Scheme+"://"+u.Host || origin != strings.ToLower(origin) ||
			u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
			return nil, fmt.Errorf("login: Returns: %q is not an origin such as https://shop.example.com, in lower case and without a path", origin)
		}
	}
	for _, p := range o.Providers {
		if p.ID == "" || p.Name == "" || url.PathEscape(p.ID) != p.ID || strings.Contains(p.ID, ":") {
			return nil, fmt.Errorf("login: Providers: %q needs an ID that can stand in a path, and a name", p.ID)
		}
	}
	return l, nil
}

func loopback(name string) bool {
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback()
}

// The pages, by their path below Base.
const (
	loginPath    = "/login"
	logoutPath   = "/logout"
	passwordPath = "/password"
	handOverPath = "/handover"
	arrivePath   = "/arrive"
	accountPath  = "/account/sessions" // another package's
)

// Paths returns the paths below a site's Base that ServeHTTP answers.
func Paths() []string { return []string{loginPath, logoutPath, passwordPath, handOverPath, arrivePath} }

// maxBody is the greatest size of a form, in bytes: a password, an address to return to, and room.
const maxBody = 32 << 10

// ServeHTTP implements http.Handler. The path must be one of Paths, below the site's Base; anything else is answered 404.
func (l *Login) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	prepare(w.Header())
	site, err := l.o.Site(r)
	if err != nil || site == nil {
		l.siteError(w, r, err)
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, site.Base)
	if !ok || r.URL.RawPath != "" {
		path = ""
	}
	var serve func(http.ResponseWriter, *http.Request, *Site)
	methods := "GET, HEAD, POST"
	switch path {
	case loginPath:
		serve = l.login
	case logoutPath:
		serve = l.logout
	case passwordPath:
		serve = l.password
	case handOverPath, arrivePath:
		methods = "GET, HEAD"
		serve = l.handOver
		if path == arrivePath {
			l.arrive(site).ServeHTTP(w, l.refusing(r, site, path))
			return
		}
	default:
		l.message(w, r, site, http.StatusNotFound, "There is no such page", "Check the address, or go to the sign-in page.")
		return
	}
	if !slices.Contains(strings.Split(methods, ", "), r.Method) {
		w.Header().Set("Allow", methods)
		l.message(w, r, site, http.StatusMethodNotAllowed, "This does not work", "The page takes "+methods+" only.")
		return
	}
	if r.Method == http.MethodPost {
		if r.ContentLength > maxBody {
			l.message(w, r, site, http.StatusRequestEntityTooLarge, "This form is too large", "Go back to the page and try again.")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	}
	r = l.refusing(r, site, path)
	site.Auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(w, r, site) })).ServeHTTP(w, r)
}

func (l *Login) siteError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, afterlogin.ErrUnavailable) {
		l.fault(w, r, nil, err)
		return
	}
	l.log.InfoContext(r.Context(), "a request for the sign-in pages is for no site that is known", "err", err)
	l.message(w, r, nil, http.StatusMisdirectedRequest, "This site is not known here", "Check the address. If you run this site, name its origin in the configuration.")
}
