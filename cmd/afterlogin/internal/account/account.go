// Package account is the page where people see where they are signed in, and sign out there: their devices, the apps that
// act for them, their API keys, and what has ended lately, with the reason in words. It needs no JavaScript. Programs get
// and do the same as JSON.
//
// Below the Base of a site are
//
//	account/sessions          GET: the list; POST: sign_out, sign_out_others, report
//	account/sessions/report   GET: the question before report
//	account/sessions/ID       DELETE: signs out there
//	account/style-….css       the operator's stylesheet, if there is one
//
// # What is shown, and to whom
//
// A session shows what is its own subject's, in its own tenant, and nothing else; the handle of anybody else's session is
// answered as one that nobody has. No token is ever shown, and no address: who holds a stolen session learns a city of the
// person's other devices, no more.
//
// # Cross-site requests
//
// What changes something must come from the site itself and carry the session's CSRF token, by httpauth's rules: in the
// field csrf_token, or in X-Csrf-Token, which every answer in JSON has.
//
// Start with [New].
package account

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/geo"
	"github.com/afterlogin/afterlogin/httpauth"
)

// A Site is the place of these pages on one host. Options.Refuse of its Auth must be what Refuse returns.
type Site struct {
	Origin string         // https://shop.example.com, or http on a loopback host
	Base   string         // what stands before the path of every page: "/.afterlogin", or nothing
	Auth   *httpauth.Auth // its cookie, and where its requests come from
}

// Options configure New. Authority and Site are required.
type Options struct {
	Authority *afterlogin.Authority
	// Site returns the site that a request is for. Its error is answered 421, or 503 if it is afterlogin.ErrUnavailable.
	Site func(*http.Request) (*Site, error)
	// Places says roughly where an address is. Nil: no places are shown.
	Places *geo.DB
	// Password reports whether the person of a session changes the password at Base/password. Nil: nobody does.
	Password func(*afterlogin.Session) bool
	// Providers are the names of what people sign in with, by the ID that their subjects begin with.
	Providers map[string]string
	// Product is what stands above the heading: the name of what people are signed in to. "" is the host.
	Product string
	// Stylesheet is CSS of the operator's, which comes after the page's own: see CheckStylesheet. Nil: none.
	Stylesheet []byte
	// Logger receives what an operator should know: never a token. Nil discards.
	Logger *slog.Logger
	Now    func() time.Time // the authority's clock; nil means time.Now
}

// Account is the http.Handler of the pages. It is safe for concurrent use, and has no goroutines.
type Account struct {
	o     Options
	log   *slog.Logger
	now   func() time.Time
	style string // the stylesheet's path below the Base of a site; "" if there is none
}

// New returns the pages. The error is of options that are missing, or of a stylesheet that is none.
func New(o Options) (*Account, error) {
	a := &Account{o: o, log: o.Logger, now: o.Now}
	if o.Authority == nil || o.Site == nil {
		return nil, errors.New("account: Authority and Site are needed")
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	if o.Stylesheet != nil {
		if err := CheckStylesheet(o.Stylesheet); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(o.Stylesheet)
		a.style = stylePrefix + hex.EncodeToString(sum[:8]) + ".css"
	}
	return a, nil
}

// The paths, below the Base of a site.
const (
	sessionsPath = "/account/sessions"
	reportPath   = "/account/sessions/report"
	stylePrefix  = "/account/style-"
	loginPath    = "/login"
	logoutPath   = "/logout"
	passwordPath = "/password"
)

// Handles reports whether ServeHTTP answers the path, without the site's Base.
func Handles(path string) bool { return strings.HasPrefix(path, "/account/") }

// maxBody is the greatest size of a form or of JSON, in bytes.
const maxBody = 8 << 10

// ServeHTTP implements http.Handler. The path must be one that Handles knows, below the site's Base.
func (a *Account) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit{a: a, embed: r.URL.Query().Get("embed") == "1", words: language(r.Header.Get("Accept-Language"))}
	v.json = wantsJSON(r)
	v.prepare(w.Header())
	site, err := a.o.Site(r)
	if err != nil || site == nil {
		v.siteError(w, r, err)
		return
	}
	v.site = site
	path, ok := strings.CutPrefix(r.URL.Path, site.Base)
	if !ok || r.URL.RawPath != "" {
		path = ""
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	id, one := strings.CutPrefix(path, sessionsPath+"/")
	switch {
	case path == sessionsPath:
		v.route(w, r, map[string]handler{"GET": v.list, "POST": v.post})
	case path == reportPath:
		v.route(w, r, map[string]handler{"GET": v.ask})
	case one && id != "" && !strings.Contains(id, "/"):
		v.route(w, r, map[string]handler{"DELETE": func(w http.ResponseWriter, r *http.Request, here *afterlogin.Session) {
			v.act(w, r, here, order{Act: actSignOut, Session: afterlogin.SessionID(id)})
		}})
	case path == a.style && path != "":
		a.stylesheet(w, r)
	default:
		v.fail(w, r, http.StatusNotFound, "no-such-path", "error.no_page")
	}
}

// A handler answers a request of the person of the session.
type handler func(w http.ResponseWriter, r *http.Request, here *afterlogin.Session)

// route has the request answered by the handler for its method, for somebody who is signed in.
func (v *visit) route(w http.ResponseWriter, r *http.Request, by map[string]handler) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	h := by[method]
	if h == nil {
		allow := "GET, HEAD"
		switch {
		case by["DELETE"] != nil:
			allow = "DELETE"
		case by["POST"] != nil:
			allow += ", POST"
		}
		w.Header().Set("Allow", allow)
		v.fail(w, r, http.StatusMethodNotAllowed, "method-not-allowed", "error.method")
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), visitKey{}, v))
	require := v.site.Auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		here, ok := httpauth.Session(r.Context())
		if !ok || here.Anonymous() || here.Kind != afterlogin.KindSession { // Require has seen to it
			v.signedOut(w, r)
			return
		}
		v.csrf = v.site.Auth.CSRFToken(r)
		h(w, r.WithContext(afterlogin.WithActor(r.Context(), "self")), here)
	}))
	if !v.embed || v.json {
		require.ServeHTTP(w, r)
		return
	}
	// Within a frame the sign-in page would not be shown: the person is sent there by a link.
	v.site.Auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s, ok := httpauth.Session(r.Context()); !ok || s.Anonymous() {
			v.signedOut(w, r)
			return
		}
		require.ServeHTTP(w, r)
	})).ServeHTTP(w, r)
}

type visitKey struct{}

// Refuse is for httpauth.Options.Refuse of every Site's Auth: it answers requests for these pages, and has next answer
// others.
func Refuse(next func(http.ResponseWriter, *http.Request, error)) func(http.ResponseWriter, *http.Request, error) {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		v, ok := r.Context().Value(visitKey{}).(*visit)
		if !ok {
			next(w, r, err)
			return
		}
		v.refuse(w, r, err)
	}
}

// wantsJSON reports whether a program asks.
func wantsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	switch {
	case strings.Contains(accept, "text/html"):
		return false
	case strings.Contains(accept, "json"), len(r.Header["Authorization"]) > 0:
		return true
	}
	return strings.Contains(r.Header.Get("Content-Type"), "json")
}
