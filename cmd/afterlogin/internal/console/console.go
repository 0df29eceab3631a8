package console

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/httpauth"
)

// The names of the console's cookies, over HTTPS and over plain HTTP on this machine.
const (
	CookieName      = "__Host-Http-console_session"
	PlainCookieName = "console_session"
	linkCookie      = "__Host-Http-console_link"
	plainLinkCookie = "console_link"
)

// Options configure New. Authority, API and Entrance are required.
type Options struct {
	Authority *afterlogin.Authority
	// API is the handler of the JSON API, with the paths below /v1. Package api's lets callers of this process in.
	API http.Handler
	// Entrance is whose links are good here: the API's.
	Entrance *entrance.Entrance
	// Base is the path that everything is below; "/console" if empty. "/" is not possible.
	Base string
	// Origin is how browsers address the console's host, https://auth.example. It may be empty.
	Origin string
	// PlainLoopback is for plain HTTP on this machine: the cookie is not Secure, and a request from elsewhere is refused.
	PlainLoopback bool
	// ClientAddr tells where a request came from; nil: the connection's address.
	ClientAddr func(*http.Request) netip.Addr
	// Node is what this server is called among several; it may be empty.
	Node string
	// Version is the program's; it may be empty.
	Version string
	Logger  *slog.Logger     // nil discards; never gets a token
	Now     func() time.Time // the authority's clock; nil means time.Now
}

// A Console is the http.Handler of everything below its base. It is safe for concurrent use.
type Console struct {
	o       Options
	base    string
	log     *slog.Logger
	now     func() time.Time
	auth    *httpauth.Auth
	handler http.Handler
	pages   map[string]*template.Template
	assets  map[string]asset

	known knowledge
	feed  feed

	ending  context.Context // its end is the end of all that is live
	end     context.CancelFunc
	mu      sync.Mutex // guards closed and streams
	closed  bool
	streams map[afterlogin.SessionID]int // how many each person's session follows
	live    sync.WaitGroup
}

// New returns the console. Close it when no request will come any more.
func New(o Options) (*Console, error) {
	c := &Console{o: o, base: strings.TrimSuffix(o.Base, "/"), log: o.Logger, now: o.Now, streams: make(map[afterlogin.SessionID]int)}
	switch {
	case o.Authority == nil || o.API == nil || o.Entrance == nil:
		return nil, errors.New("console: Authority, API and Entrance are needed")
	case o.Base == "":
		c.base = "/console"
	case c.base == "" || c.base[0] != '/' || strings.ContainsAny(c.base, "?#%{} \"<>"):
		return nil, fmt.Errorf("console: Base: %q is not a path such as /console", o.Base)
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	a := httpauth.Options{
		PlainLoopback: o.PlainLoopback, CookieName: CookieName, SameSite: http.SameSiteStrictMode, Tenant: entrance.Tenant,
		Origin: o.Origin, ClientAddr: o.ClientAddr, Refuse: c.refuse, Watches: isLive, ClearSiteData: nil, Logger: c.log,
	}
	if o.PlainLoopback {
		a.CookieName = PlainCookieName
	}
	var err error
	if c.auth, err = httpauth.New(o.Authority, a); err != nil {
		return nil, err
	}
	c.ending, c.end = context.WithCancel(context.Background())
	if c.assets, err = readAssets(); err != nil {
		return nil, err
	}
	if c.pages, err = c.parsePages(); err != nil {
		return nil, err
	}
	c.handler = c.mux()
	c.live.Go(func() { c.feed.run(c.ending, o.API, c.now, c.log) })
	return c, nil
}

// Close ends what is live, and waits for it. Requests that come later are answered, but nothing is live any more.
func (c *Console) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.live.Wait()
}

// maxForm is the greatest size of a form, in bytes.
const maxForm = 64 << 10

// ServeHTTP implements http.Handler.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	prepare(w.Header())
	path, ok := strings.CutPrefix(r.URL.Path, c.base)
	switch {
	case !ok || path != "" && path[0] != '/':
		c.message(w, r, http.StatusNotFound, "There is no such page", "Check the address.")
		return
	case path == "":
		c.redirect(w, c.base+"/")
		return
	}
	if name, ok := strings.CutPrefix(path, staticPath); ok {
		c.serveAsset(w, r, name)
		return
	}
	if r.Method == http.MethodPost {
		if r.ContentLength > maxForm {
			c.message(w, r, http.StatusRequestEntityTooLarge, "This form is too large", "Go back and try again with less.")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	}
	c.auth.Optional(http.HandlerFunc(c.dispatch)).ServeHTTP(w, r)
}
