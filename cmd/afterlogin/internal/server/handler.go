package server

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

// handle wraps the API into what every answer has. What is for operations, health and metrics, stands outside of the
// check of the Host header, since those who ask often know the address only.
func (s *Server) handle(inner http.Handler) http.Handler {
	inner = s.withGateway(s.withSite(s.checkHost(inner)))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next := inner
		switch r.URL.Path {
		case "/livez":
			next = getOnly(func(w http.ResponseWriter, r *http.Request) { health(w, http.StatusOK, "alive") })
		case "/readyz":
			next = getOnly(s.ready)
		case "/metrics":
			next = getOnly(s.metrics.ServeHTTP)
		}
		s.frame(w, r, next)
	})
}

func getOnly(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			api.NewProblem(http.StatusMethodNotAllowed, "method-not-allowed", "this path takes GET, HEAD").Write(w, r)
			return
		}
		h(w, r)
	})
}

var requestIDs = base32.StdEncoding.WithPadding(base32.NoPadding)

// newRequestID returns 26 characters that no other request has.
func newRequestID() string {
	var b [16]byte
	rand.Read(b[:])
	return requestIDs.EncodeToString(b[:])
}

// always are headers of every answer. A handler may put another value in the place of one; nobody changes one in place.
var always = []struct {
	name  string
	value [1]string
}{
	{"X-Content-Type-Options", [1]string{"nosniff"}},
	{"Cache-Control", [1]string{"no-store"}},
	{"Content-Security-Policy", [1]string{"default-src 'none'; frame-ancestors 'none'"}},
	{"Referrer-Policy", [1]string{"no-referrer"}},
	{"Cross-Origin-Resource-Policy", [1]string{"same-origin"}},
}

// frame answers the request with next, and sees to what is true of every answer.
func (s *Server) frame(w http.ResponseWriter, r *http.Request, next http.Handler) {
	start := time.Now()
	id := newRequestID()
	r, measured := s.telemetry.Begin(r)
	r = r.WithContext(api.WithRequestID(r.Context(), id))
	measured.With(r)
	h := w.Header()
	h["X-Request-Id"] = []string{id}
	for i := range always {
		h[always[i].name] = always[i].value[:]
	}
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https" { // over plain HTTP browsers pass over it
		h.Set("Strict-Transport-Security", "max-age=63072000")
	}
	rec := &recorder{ResponseWriter: w, draining: &s.draining}
	defer func() { measured.End(rec.status) }()
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.log.ErrorContext(r.Context(), "panic", "request_id", id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if rec.status != 0 {
				panic(http.ErrAbortHandler) // half an answer is out: cut the connection, so that nobody takes it for whole
			}
			api.NewProblem(http.StatusInternalServerError, "internal",
				"something went wrong here; the server's log says what, under this request_id").Write(rec, r)
		}
		if s.log.Enabled(r.Context(), slog.LevelDebug) { // what is put together for it costs, written or not
			s.log.DebugContext(r.Context(), "request", "request_id", id, "method", r.Method, "path", r.URL.Path, "status", rec.status,
				"duration", time.Since(start), "remote", r.RemoteAddr)
		}
	}()
	next.ServeHTTP(rec, r)
	rec.begin(http.StatusOK) // of an answer that is empty
}

// recorder remembers the status of an answer. One that begins while the server stops closes its connection.
type recorder struct {
	http.ResponseWriter
	status   int
	draining *atomic.Bool
}

func (r *recorder) begin(status int) {
	if r.status != 0 || status < 200 {
		return
	}
	r.status = status
	if r.draining.Load() {
		r.Header().Set("Connection", "close") // the client opens its next connection where it is still welcome
	}
}

func (r *recorder) WriteHeader(status int) {
	r.begin(status)
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.begin(http.StatusOK)
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func health(w http.ResponseWriter, status int, text string) { healthWhy(w, status, text, "") }

func healthWhy(w http.ResponseWriter, status int, text, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(struct {
		Status string `json:"status"`
		Reason string `json:"reason,omitempty"`
	}{text, why})
}

// checkHost refuses requests that are addressed to a name that is not ours. On a loopback address that is what keeps a
// page on the internet from reaching us through a name of its own that points here (DNS rebinding).
func (s *Server) checkHost(next http.Handler) http.Handler {
	hosts := make([]string, 0, len(s.config.Hosts))
	for _, h := range s.config.Hosts {
		hosts = append(hosts, strings.ToLower(strings.TrimSuffix(h, ".")))
	}
	guarded := config.Loopback(s.config.Listen) || len(hosts) > 0
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if guarded {
			host := r.Host
			if h, _, err := net.SplitHostPort(host); err == nil {
				host = h
			}
			host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
			if !config.LoopbackName(host) && !slices.Contains(hosts, host) {
				api.NewProblem(http.StatusMisdirectedRequest, "unknown-host",
					"this server is not known by the name in the request's Host header; if it should be, start it with --host NAME").Write(w, r)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
