package server

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/account"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/login"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/upstream"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/httpauth"
)

// oidcPath begins the paths of upstream providers, below the base of a site.
const oidcPath = "/oidc/"

// openSignIn makes the pages where people sign in: on the server's own host, which is its issuer's, and on the hosts of
// the applications.
func (s *Server) openSignIn() (err error) {
	if err := s.openHome(); err != nil {
		return err
	}
	if s.config.Users {
		s.users, err = users.New(users.Options{
			Authority: s.authority, Keys: s.data.keys, Logger: s.log, MinLength: s.config.PasswordMin,
		})
		if err != nil {
			return err
		}
	}
	o := login.Options{
		Authority: s.authority, Users: s.users, Site: s.site, Returns: s.returns(), Home: s.authority.Issuer(), HandOver: s.applications(),
		PasswordACR: s.config.PasswordACR, NoRemember: !s.config.Remember, Account: s.config.Account, Logger: s.log,
	}
	providers, err := s.config.SignInProviders()
	if err != nil {
		return setup("sign_in.providers names the files", "%w", err)
	}
	var choices []upstream.Provider
	for _, p := range providers {
		o.Providers = append(o.Providers, login.Provider{ID: p.ID, Name: p.Name, ACR: p.ACRValues})
		choices = append(choices, p.Upstream())
	}
	o.SignedOut = func(r *http.Request, at *login.Site, had *afterlogin.Session, to string) string {
		return s.upstream.SignedOut(r, (*upstream.Site)(at), had, to)
	}
	if s.login, err = login.New(o); err != nil {
		return err
	}
	s.upstream, err = upstream.New(upstream.Options{
		Providers: choices, Authority: s.authority, Keys: s.data.keys, Logger: s.log, Longest: s.longest(),
		Site: func(r *http.Request) (*upstream.Site, error) {
			at, err := s.site(r)
			if err != nil {
				return nil, err
			}
			return (*upstream.Site)(at), nil
		},
		SignIn: func(w http.ResponseWriter, r *http.Request, at *upstream.Site, id upstream.Identity) (*afterlogin.Session, error) {
			return s.login.SignIn(w, r, (*login.Site)(at), login.Identity{
				Subject: id.Subject, Mark: id.Mark, Methods: id.Methods, At: id.At, Remember: id.Remember, Confirm: id.Confirm,
			})
		},
		Leave: func(w http.ResponseWriter, r *http.Request, at *upstream.Site, returnTo string) {
			s.login.Leave(w, r, (*login.Site)(at), returnTo)
		},
		Fail: func(w http.ResponseWriter, r *http.Request, at *upstream.Site, err error) {
			s.login.Fail(w, r, (*login.Site)(at), err)
		},
	})
	return err
}

// openHome makes the server's own site, if it knows its address.
func (s *Server) openHome() error {
	issuer := s.authority.Issuer()
	if issuer == "" {
		return nil
	}
	o := httpauth.Options{
		Origin: issuer, PlainLoopback: strings.HasPrefix(issuer, "http:"), SignInURL: "/login", HandOverTo: s.applications(), Refuse: refuse, Logger: s.log,
		ClientAddr: s.clientAddr(),
	}
	auth, err := httpauth.New(s.authority, o)
	if err != nil {
		return err
	}
	s.home = &login.Site{Origin: issuer, Auth: auth}
	return nil
}

// returns are the origins that people may be sent to after they have signed in.
func (s *Server) returns() []string {
	out := slices.Clone(s.config.ReturnTo)
	for _, origin := range s.applications() {
		if !slices.Contains(out, origin) {
			out = append(out, origin)
		}
	}
	return out
}

// applications are the origins of the applications behind proxies, which have the pages, too.
func (s *Server) applications() (out []string) {
	for _, a := range s.config.GatewayApps() {
		out = append(out, a.Origin)
	}
	return out
}

// longest is the longest that somebody who has signed in stays so.
func (s *Server) longest() time.Duration {
	policies := afterlogin.DefaultPolicies()
	var out time.Duration
	for _, name := range []string{afterlogin.PolicyBrowser, afterlogin.PolicyRemember} {
		p := policies[name]
		if own, ok := s.config.Policies[name]; ok {
			p = own
		}
		out = max(out, p.Absolute)
	}
	return out
}

// errNoHome is for pages on a host of a server that does not know its own address.
var errNoHome = errors.New("the server does not know its own address: set issuer")

// site returns the site that a request for one of the pages is for: an application's by what its proxy says, or the
// server's own.
func (s *Server) site(r *http.Request) (*login.Site, error) {
	if strings.HasPrefix(r.URL.Path, gateway.BasePath+"/") {
		if s.gateway == nil {
			return nil, errNoHome
		}
		at, err := s.gateway.Site(r)
		if err != nil {
			return nil, err
		}
		return &login.Site{Origin: at.Origin, Base: at.Base, Auth: at.Auth}, nil
	}
	if s.home == nil {
		return nil, errNoHome
	}
	return s.home, nil
}

// withSite answers what applications' proxies send here of their own hosts, below gateway.BasePath, and has next answer
// everything else. The host is checked by the gateway.
func (s *Server) withSite(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := strings.CutPrefix(r.URL.Path, gateway.BasePath)
		switch {
		case (!ok || !strings.HasPrefix(path, "/")) && s.ofApplication(r):
			api.NewProblem(http.StatusMisdirectedRequest, "unknown-host",
				"this is the host of an application, whose proxy sends what is below /.afterlogin/ here and nothing else").Write(w, r)
		case !ok || !strings.HasPrefix(path, "/"):
			next.ServeHTTP(w, r)
		case s.gateway == nil:
			noGateway(w, r)
		case path == gateway.RenewPath:
			s.gateway.Renew(w, r)
		default:
			s.page(w, r, path)
		}
	})
}

// ofApplication reports whether somebody says that the request is for an application's host. What a proxy lets slip
// through, by another reading of a path than ours, must not reach the API; who says so without being one harms nobody.
func (s *Server) ofApplication(r *http.Request) bool {
	for _, line := range r.Header["X-Forwarded-Host"] {
		for host := range strings.SplitSeq(strings.ToLower(line), ",") {
			host = strings.TrimSpace(host)
			for _, a := range s.applications() {
				if a != s.authority.Issuer() && strings.HasSuffix(a, "://"+host) {
					return true
				}
			}
		}
	}
	return false
}

// withPages answers the same pages on the server's own host.
func (s *Server) withPages(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := r.URL.Path; s.home != nil && (slices.Contains(login.Paths(), path) || strings.HasPrefix(path, oidcPath) || s.account != nil && account.Handles(path)) {
			s.page(w, r, path)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) page(w http.ResponseWriter, r *http.Request, path string) {
	if strings.HasPrefix(path, oidcPath) {
		s.upstream.ServeHTTP(w, r)
		return
	}
	if s.account != nil && account.Handles(path) {
		s.account.ServeHTTP(w, r)
		return
	}
	s.login.ServeHTTP(w, r)
}

func noGateway(w http.ResponseWriter, r *http.Request) {
	api.NewProblem(http.StatusNotFound, "no-gateway",
		"there is no application behind a proxy here: set gateway.origins, as in --origin https://shop.example.com").Write(w, r)
}

// signInURL is where /oauth/authorize sends people who are not signed in: where it was told to, or to the page here.
func (s *Server) signInURL() string {
	if s.config.SignInURL != "" || !s.config.Users && len(s.config.Providers) == 0 {
		return s.config.SignInURL
	}
	return "/login"
}

// finishUsers sees to changes of users that were not carried through, by a crash or because the store did not answer,
// until the returned function is called, which waits for it.
func (s *Server) finishUsers(ctx context.Context) (stop func()) {
	if s.users == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { s.users.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}
