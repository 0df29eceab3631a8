package server

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/operate"
	"github.com/afterlogin/afterlogin/store"
)

// consolePath is where the console is.
const consolePath = "/console"

// openDesk opens what watches over the authority. It comes before anything is written through that, so that the audit log
// misses nothing.
func (s *Server) openDesk(o Options) error {
	c := &s.config
	opts := operate.Options{
		Authority: s.authority, Keys: s.data.keys, Dir: s.data.dir, AuditKeep: time.Duration(c.AuditKeep), Index: c.ConsoleIndex,
		WebhooksAllow: c.WebhooksAllow, WebhooksGiveUp: time.Duration(c.WebhooksGiveUp), Loopback: config.Loopback(c.Listen) && !c.BehindProxy,
		Shared: s.data.shared, Latency: s.telemetry.Latency, Span: s.telemetry.Span,
		Ready: func(ctx context.Context) string {
			ctx, cancel := context.WithTimeout(ctx, pingTimeout)
			defer cancel()
			if err := s.readiness(ctx); err != nil {
				return unready(err)
			}
			return ""
		},
		Node: c.NodeName(), Version: o.Version, Store: s.Store, Logger: s.log,
	}
	if shared, ok := s.data.store.(store.Shared); ok {
		opts.Skew = func() time.Duration { return shared.Feed().Skew }
	}
	desk, err := operate.Open(opts)
	if err != nil {
		return err
	}
	s.desk.Store(desk)
	s.telemetry.Ask(desk.Figures())
	return nil
}

// openAPI makes the API, and the console over it.
func (s *Server) openAPI(o Options) error {
	at := operate.Site{}
	if s.config.Console {
		origin := s.consoleOrigin(o.Addr)
		at = operate.Site{Base: consolePath, Origin: origin, PlainLoopback: s.plainConsole()}
		if origin != "" {
			at.URL = origin + consolePath
		}
	}
	settings := o.Settings
	desk := s.desk.Load()
	err := desk.Answer(api.Options{
		Rehearsal: s.rehearsal, Algorithm: s.config.Algorithm(), Users: s.users, Backup: s.backup, ClientAddr: s.clientAddr(),
		Settings: func() []api.Setting { return settings },
	}, at)
	s.api = desk.API
	return err
}

// consoleOrigin is how browsers address the console's host: as the issuer, or, of a server that only this machine can reach,
// at the address that it listens on. It is empty if that is not known: a proxy in front, or whoever asks at a public
// address, knows names that we do not.
func (s *Server) consoleOrigin(bound net.Addr) string {
	c := &s.config
	if c.Issuer != "" {
		return c.Issuer
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil || c.BehindProxy || !config.Loopback(c.Listen) {
		return ""
	}
	if port == "0" {
		if bound == nil {
			return ""
		}
		if _, port, err = net.SplitHostPort(bound.String()); err != nil {
			return ""
		}
	}
	scheme := "http://"
	if s.tls != nil {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port)
}

// plainConsole reports whether browsers come to the console over plain HTTP on this machine.
func (s *Server) plainConsole() bool {
	if s.config.Issuer != "" {
		return strings.HasPrefix(s.config.Issuer, "http://")
	}
	return s.tls == nil && !s.config.BehindProxy
}
