package server

import (
	"net/http"
	"os"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/telemetry"
	"github.com/afterlogin/afterlogin/store"
)

// openTelemetry begins to measure: from here on the store is the one whose calls are timed. What it asks is there by the
// time that somebody fetches the metrics.
func (s *Server) openTelemetry(version string) (err error) {
	o := telemetry.Options{
		Stats:   func() afterlogin.Stats { return s.authority.Stats() },
		Streams: func() int { return s.api.Streams() },
		Version: version, Peers: s.config.TracePeers(), Getenv: os.Getenv, Logger: s.log,
	}
	if shared, ok := s.data.store.(store.Shared); ok {
		o.Feed = shared.Feed
	}
	if s.config.Users {
		o.Users = s.logins
	}
	if s.telemetry, err = telemetry.New(o); err != nil {
		return setup("the OTEL_… variables of the environment say where traces go; without them there are none", "%w", err)
	}
	s.data.store = s.telemetry.Store(s.data.store)
	return nil
}

// openMetrics returns what answers /metrics.
func (s *Server) openMetrics() http.Handler { return s.telemetry }

// logins are the tries to sign in with a password.
func (s *Server) logins() telemetry.Logins {
	if s.users == nil {
		return telemetry.Logins{}
	}
	u := s.users.Stats()
	return telemetry.Logins{Right: u.Right, Wrong: u.Wrong, Throttled: u.Throttled, Busy: u.Busy, Hashes: uint64(u.Hashes), Waiting: int(u.Waiting)}
}
