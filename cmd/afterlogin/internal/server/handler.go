package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

// pingTimeout bounds the look at the store for /readyz.
const pingTimeout = 2 * time.Second

// handle wraps the API into what every answer has. The health checks stand outside of the check of the Host header,
// since those who ask often know the address only.
func (s *Server) handle(inner http.Handler) http.Handler {
	inner = s.checkHost(inner)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next := inner
		switch r.URL.Path {
		case "/livez":
			next = getOnly(func(w http.ResponseWriter, r *http.Request) { health(w, http.StatusOK, "alive") })
		case "/readyz":
			next = getOnly(s.ready)
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

// frame answers the request with next, and sees to what is true of every answer.
func (s *Server) frame(w http.ResponseWriter, r *http.Request, next http.Handler) {
	start := time.Now()
	id := rand.Text()
	r = r.WithContext(api.WithRequestID(r.Context(), id))
	h := w.Header()
	h.Set("X-Request-Id", id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if r.TLS != nil {
		h.Set("Strict-Transport-Security", "max-age=63072000")
	}
	if s.draining.Load() {
		h.Set("Connection", "close") // the client opens its next connection where it is still welcome
	}
	rec := &recorder{ResponseWriter: w}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.log.Error("panic", "request_id", id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			if rec.status != 0 {
				panic(http.ErrAbortHandler) // half an answer is out: cut the connection, so that nobody takes it for whole
			}
			api.NewProblem(http.StatusInternalServerError, "internal",
				"something went wrong here; the server's log says what, under this request_id").Write(rec, r)
		}
		s.log.Debug("request", "request_id", id, "method", r.Method, "path", r.URL.Path, "status", rec.status,
			"duration", time.Since(start), "remote", r.RemoteAddr)
	}()
	next.ServeHTTP(rec, r)
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func health(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"status": text})
}

// ready says whether requests should be sent here: not when a stop was asked for, and not while the store does not
// answer.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		health(w, http.StatusServiceUnavailable, "stopping")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
	defer cancel()
	if err := s.authority.Ping(ctx); err != nil {
		s.log.Error("not ready", "request_id", api.RequestID(r.Context()), "err", err)
		health(w, http.StatusServiceUnavailable, "unavailable")
		return
	}
	health(w, http.StatusOK, "ready")
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
			if !config.LoopbackHost(host) && !slices.Contains(hosts, host) {
				api.NewProblem(http.StatusMisdirectedRequest, "unknown-host",
					"this server is not known by the name in the request's Host header; if it should be, start it with --host NAME").Write(w, r)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
