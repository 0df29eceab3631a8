package telemetry

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// A Request is one that is being answered.
type Request struct {
	t     *Telemetry
	r     *http.Request
	span  trace.Span // nil: there are no traces
	start time.Time
}

// Begin notes that the answer to a request begins. The request that it returns, whose context carries the span, is the one
// to go on with; End is to be called when the answer is out.
func (t *Telemetry) Begin(r *http.Request) (*http.Request, Request) {
	q := Request{t: t, start: time.Now()}
	if t.tracing != nil {
		var ctx context.Context
		ctx, q.span = t.startServer(r)
		r = r.WithContext(ctx)
	}
	return r, q
}

// With says that the answer goes on with a copy of the request, whose Pattern is to be looked at.
func (q *Request) With(r *http.Request) { q.r = r }

// End notes that the answer is out, with its status; 0 if there was none.
func (q *Request) End(status int) {
	took := time.Since(q.start)
	route := "other"
	ctx := context.Background()
	if q.r != nil {
		route, ctx = Route(q.r), q.r.Context()
	}
	observe(ctx, q.t.http.WithLabelValues(route, class(status)), took)
	if via := validates[route]; via != "" {
		observe(ctx, q.t.validate.WithLabelValues(via), took)
		q.t.timings.add(took)
	}
	if route == forwardAuth {
		q.t.forward.WithLabelValues(forwarded(status)).Inc()
	}
	if q.span == nil {
		return
	}
	q.span.SetName(method(q.r) + " " + route)
	q.span.SetAttributes(attribute.String("http.route", route), attribute.Int("http.response.status_code", status))
	if status >= 500 || status == 0 {
		failed(q.span, class(status))
	}
	q.span.End()
}

// failed notes what kind of failure a span ended with.
func failed(span trace.Span, kind string) {
	span.SetAttributes(attribute.String("error.type", kind))
	span.SetStatus(codes.Error, kind)
}

// startServer begins the span of a request. The trace that a peer is in goes on; of anybody else's there is a link, so that
// it can be found, and whether this one is traced is decided here.
func (t *Telemetry) startServer(r *http.Request) (context.Context, trace.Span) {
	ctx := r.Context()
	opts := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", method(r))),
	}
	if r.Header.Get("Traceparent") != "" {
		remote := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier(r.Header)))
		switch {
		case !remote.IsValid():
		case t.peer(r.RemoteAddr):
			ctx = trace.ContextWithRemoteSpanContext(ctx, remote)
		default:
			opts = append(opts, trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: remote.WithTraceState(trace.TraceState{})}))
		}
	}
	return t.tracer.Start(ctx, method(r), opts...)
}

// peer reports whether the connection is one of Options.Peers'.
func (t *Telemetry) peer(remote string) bool {
	p, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	addr := p.Addr().Unmap().WithZone("")
	for _, peers := range t.o.Peers {
		if peers.Contains(addr) {
			return true
		}
	}
	return false
}

// method returns the request's method if it is one that there is.
func method(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return r.Method
	}
	return "_OTHER"
}

// class returns the class of a status: 2xx, or aborted if there was none.
func class(status int) string {
	switch status / 100 {
	case 1:
		return "1xx"
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	case 5:
		return "5xx"
	}
	return "aborted"
}

// forwarded says in one word what a proxy was told.
func forwarded(status int) string {
	switch {
	case status/100 == 2:
		return "yes"
	case status/100 == 3, status == http.StatusUnauthorized:
		return "sign_in"
	case status == http.StatusTooManyRequests:
		return "limited"
	case status == http.StatusForbidden:
		return "no"
	case status/100 == 4:
		return "bad"
	}
	return "unavailable"
}

const forwardAuth = "/forward-auth"

// validates are the routes that say whether a token is good, by what they are called.
var validates = map[string]string{"/v1/validate": "api", forwardAuth: "forward_auth", "/oauth/introspect": "introspect"}

// routes are the paths that are routes of their own. The JSON API's are those of its mux.
var routes = map[string]bool{
	"/livez": true, "/readyz": true, "/metrics": true, "/openapi.json": true,
	"/oauth/authorize": true, "/oauth/token": true, "/oauth/introspect": true, "/oauth/revoke": true,
	"/.well-known/oauth-authorization-server": true, "/.well-known/jwks.json": true,
	"/login": true, "/logout": true, "/password": true, "/handover": true, "/arrive": true,
}

// below are paths under which everything is one route.
var below = []struct{ prefix, route string }{
	{"/forward-auth/", forwardAuth},
	{"/oidc/", "/oidc/*"},
	{"/console/", "/console/*"},
	{"/account/", "/account/*"},
	{"/.afterlogin/", "/.afterlogin/*"},
}

// Route names what a request was for, after it was answered: a path, a pattern of the JSON API, a prefix, or other. There
// is a fixed number of these, whatever is asked for.
func Route(r *http.Request) string {
	if _, pattern, ok := strings.Cut(r.Pattern, " "); ok && strings.HasPrefix(pattern, "/v1/") {
		return pattern
	}
	if strings.HasPrefix(r.Pattern, "/v1/") {
		return r.Pattern
	}
	path := r.URL.Path
	if routes[path] {
		return path
	}
	if path == forwardAuth {
		return forwardAuth
	}
	for _, b := range below {
		if strings.HasPrefix(path, b.prefix) || path == strings.TrimSuffix(b.prefix, "/") {
			return b.route
		}
	}
	return "other"
}
