// Package server runs the API: it opens the data directory, answers HTTP, and stops without losing a request. What is
// true of every answer, whatever it says, is made here: security headers, the request's id, the log, the check of the
// Host header, liveness and readiness.
//
// Start with [Open], then [Server.Run].
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/account"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/backend"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/geo"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/login"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/operate"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/rehearsal"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/telemetry"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/upstream"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
	"github.com/afterlogin/afterlogin/gateway"
)

// Limits of a connection.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeader         = 16 << 10
)

// A SetupError is why the server cannot start, and what to do about it.
type SetupError = backend.SetupError

func setup(hint, format string, args ...any) error {
	return &SetupError{Err: fmt.Errorf(format, args...), Hint: hint}
}

// Options configure Open.
type Options struct {
	Config config.Config
	Logger *slog.Logger // required
	// Settings are those of the configuration, with where they came from and secrets masked, for whoever asks what is in
	// effect.
	Settings []api.Setting
	// NewAdminKey makes a new admin key and ends the old ones.
	NewAdminKey bool
	// Version is that of the program, for those who look at metrics.
	Version string
	// Addr is what Listen has opened; nil: not known yet.
	Addr net.Addr

	store backend.Backend // of a test, in the place of the one that the configuration names
}

// A Server is an authority on its store, and the HTTP in front of it.
type Server struct {
	// AdminKey says where the admin key is, or why it is not there.
	AdminKey string
	// Store names the store for people, without a password.
	Store string

	config    config.Config
	log       *slog.Logger
	data      *data
	authority *afterlogin.Authority
	api       *api.API
	oauth     atomic.Pointer[oauth.Server] // nil: no issuer
	gateway   *gateway.Gateway             // nil: no applications
	users     *users.Users                 // nil: no built-in users
	home      *login.Site                  // where people sign in on the server's own host; nil: no issuer
	login     *login.Login
	account   *account.Account // nil: there is no such page
	places    *geo.DB          // nil: no database of places
	upstream  *upstream.Upstream
	tls       *tls.Config // nil: plain HTTP
	handler   http.Handler
	telemetry *telemetry.Telemetry
	rehearsal *rehearsal.Rehearsal
	desk      atomic.Pointer[operate.Desk]
	metrics   http.Handler
	draining  atomic.Bool
}

// Open opens the data directory, making it at the first start, and the authority on it. The error is often a
// *SetupError.
func Open(ctx context.Context, o Options) (*Server, error) {
	t, err := o.Config.TLS() // before anything is made
	if err != nil {
		return nil, setup("tls.cert and tls.key name PEM files that belong together", "%w", err)
	}
	if _, err := o.Config.Master(); err != nil {
		return nil, err
	}
	if _, err := gatewayOptions(&o.Config); err != nil {
		return nil, err
	}
	if _, err := stylesheet(&o.Config); err != nil {
		return nil, err
	}
	d, err := openData(ctx, o)
	if err != nil {
		return nil, err
	}
	size := o.Config.CacheSize
	if size == 0 {
		size = -1 // none; zero is the library's default
	}
	s := &Server{config: o.Config, log: o.Logger, data: d, tls: t, Store: d.name}
	if err := s.openTelemetry(o.Version); err != nil {
		return nil, errors.Join(err, d.close())
	}
	s.rehearsal = rehearsal.New(rehearsal.Options{
		Policies: o.Config.Policies, Stricter: o.Config.StricterPolicies(), Limits: o.Config.RehearsalLimits(), Real: o.Config.Limits(), Node: o.Config.NodeName(),
	})
	s.authority, err = afterlogin.New(afterlogin.Config{
		Limits: o.Config.Limits(), Unlimited: []uint32{entrance.Tenant}, Rehearsal: s.rehearsal.Config(),
		Store: d.store, Keys: d.keys, Policies: o.Config.Policies, CacheSize: size, Logger: o.Logger, Observe: s.observe(logEvents(o.Logger)),
		Issuer: o.Config.IssuerURL(), Algorithm: o.Config.Algorithm(), ImportedKeys: o.Config.ImportedKeys,
		KeepEnded: time.Duration(o.Config.KeepEnded),
	})
	if err != nil {
		return nil, errors.Join(err, d.close(), s.telemetry.Close())
	}
	if err := s.openDesk(o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	ctx = afterlogin.WithActor(ctx, "server")
	if s.AdminKey, err = d.adminKey(ctx, s.authority, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.openOAuth(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.openGateway(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.openSignIn(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.openPlaces(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.openAccount(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.openAPI(o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.metrics = s.openMetrics()
	s.handler = s.handle(s.desk.Load().WithConsole(consolePath, s.withPages(s.withOAuth(s.api))))
	return s, nil
}

// Handler returns what the server answers with.
func (s *Server) Handler() http.Handler { return s.handler }

// Close ends the authority and closes the store. Run must have returned.
func (s *Server) Close() error {
	if s.upstream != nil {
		s.upstream.Close()
	}
	var err error
	if d := s.desk.Load(); d != nil {
		err = d.Close()
	}
	s.places.Close()
	return errors.Join(err, s.authority.Close(), s.data.close(), s.telemetry.Close())
}

// Listen opens the address of the configuration. Whoever connects waits until Run begins.
func Listen(c config.Config) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // keepOut needs a plain TCP socket
	l, err := lc.Listen(context.Background(), "tcp", c.Listen)
	if err != nil {
		return nil, setup("another program may be using the port: name another with --listen, as in --listen 127.0.0.1:7071", "listen on %s: %w", c.Listen, err)
	}
	return l, nil
}

// Run answers requests until ctx ends, and then stops without losing one: /readyz says so at once, so that a proxy
// sends no more; requests are still taken for the drain time, and their connections closed after the answer; then those
// that are running are finished, for as long as the shutdown timeout allows, and connections that have been idle
// throughout are ended as conns has it.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	defer s.finishUsers(ctx)()
	all := newConns()
	h := &http.Server{
		ConnState:         all.note,
		Handler:           s.handler,
		TLSConfig:         s.tls,
		ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	last := newLastListener(l)
	served := make(chan error, 1)
	go func() {
		if h.TLSConfig != nil {
			served <- h.ServeTLS(all.listener(last), "", "")
			return
		}
		served <- h.Serve(all.listener(last))
	}()
	select {
	case err := <-served:
		h.Close()
		all.wait()
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	s.desk.Load().EndStreams() // whoever follows the events goes on elsewhere
	all.drain()
	s.log.Info("stopping", "drain", s.config.Drain.String())
	time.Sleep(time.Duration(s.config.Drain))
	last.finish()
	<-served
	stop, cancel := context.WithTimeout(context.Background(), time.Duration(s.config.Shutdown))
	defer cancel()
	all.end(stop)
	err := h.Shutdown(stop)
	if err != nil {
		h.Close()
	}
	all.wait()
	if err != nil {
		return fmt.Errorf("requests were still running after %v and were cut off: %w", s.config.Shutdown, err)
	}
	s.log.Info("stopped")
	return nil
}
