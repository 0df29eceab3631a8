// Package telemetry says how a server does to those who watch many: metrics for Prometheus, traces for whatever takes
// OpenTelemetry, and the trace's id in the log. Nothing of it names anybody: no subject, no session, no token, no address
// of a client, no path as it was asked for. The values of every label come from a fixed list, so that no stranger can make
// series; the tests send junk and count.
//
// Traces are off unless the environment asks for them (OTEL_…, see docs/tracing.md).
//
// Start with [New]. A [Telemetry] looks at requests ([Telemetry.Begin]) and at the store ([Telemetry.Store]); what counts by
// itself is asked when somebody looks ([Options]).
package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
)

// flushTimeout bounds how long Close waits for the last spans to be sent.
const flushTimeout = 5 * time.Second

// Options configure New. Every func may be nil, and is then asked nothing: its metrics are not there. They are called when
// somebody fetches the metrics, answer from memory, and need not work before that.
type Options struct {
	Stats func() afterlogin.Stats
	// Feed is that of a store that servers share.
	Feed func() store.Feed
	// Users counts sign-ins with the passwords of built-in users.
	Users func() Logins
	// Streams is how many clients follow the events.
	Streams func() int
	// Live is how many credentials are live, by kind, and whether all of them have been counted; it does not begin to count
	// for being asked.
	Live func() Live
	// Audit is how the audit log does.
	Audit func() Audit
	// Webhooks is how what is sent to others does.
	Webhooks func() Webhooks
	// Ready is whether /readyz says so, as was last known.
	Ready func() bool

	Version string
	// Peers are those whose traceparent is continued. Anybody else's is noted as a link: a stranger must not decide what is
	// traced, and a proxy that is believed about addresses may still hand on what strangers send.
	Peers []netip.Prefix
	// Getenv is where the OTEL_… variables are read. Nil: there are none, and no traces.
	Getenv func(string) string
	Logger *slog.Logger // nil discards
}

// Live is how many credentials there are that are good, on the whole store.
type Live struct {
	Kinds    map[string]int // by kind: session, api_key, …
	Complete bool           // all have been counted; otherwise the kinds say nothing
}

// Logins counts tries to sign in with a password since the server began.
type Logins struct {
	Right     uint64
	Wrong     uint64
	Throttled uint64 // not looked at, since there were too many wrong ones
	Busy      uint64 // not looked at, since too many were being looked at
	Hashes    uint64 // how many hashes were computed
	Waiting   int    // how many wait for one now
}

// Audit tells of the audit log.
type Audit struct {
	Lag     time.Duration // how long the oldest event waits that is not durable there yet
	Failing bool          // it cannot be written
	Entries uint64        // the number of the last entry
	Bytes   int64
}

// Webhooks tells of deliveries.
type Webhooks struct {
	Queued uint64            // waiting, on the whole store
	Dead   uint64            // given up
	Lag    time.Duration     // how long the oldest one waits
	Tries  map[string]uint64 // by this server, by what became of them: see webhookOutcomes
}

// A Telemetry measures. It is safe for concurrent use. Make it with New and end it with Close.
type Telemetry struct {
	o        Options
	mu       sync.Mutex // of the funcs of o
	log      *slog.Logger
	metrics  *prometheus.Registry
	handler  http.Handler
	store    *prometheus.HistogramVec
	http     *prometheus.HistogramVec
	validate *prometheus.HistogramVec
	forward  *prometheus.CounterVec
	timings  timings
	tracing  *tracing // nil: there are no traces
	tracer   trace.Tracer
}

// New returns a telemetry. It fails if the environment asks for traces in a way that there is none of.
func New(o Options) (*Telemetry, error) {
	t := &Telemetry{o: o, log: o.Logger, metrics: prometheus.NewRegistry()}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if t.tracing, err = openTracing(o, t.log); err != nil {
		return nil, err
	}
	t.tracer = t.tracing.tracer()
	histogram := func(name string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		f := familyOf(name)
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: f.Name, Help: f.Help, Buckets: buckets}, labels)
	}
	t.store = histogram("store_seconds", storeBuckets, "call", "outcome")
	t.http = histogram("http_seconds", httpBuckets, "route", "code")
	t.validate = histogram("validate_seconds", validateBuckets(), "via")
	f := familyOf("forward_auth_total")
	t.forward = prometheus.NewCounterVec(prometheus.CounterOpts{Name: f.Name, Help: f.Help}, []string{"outcome"})
	t.metrics.MustRegister(t.store, t.http, t.validate, t.forward, collector{t},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	t.handler = promhttp.HandlerFor(t.metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 10, EnableOpenMetrics: true})
	return t, nil
}

// Ask adds to what is asked: the funcs of more that are not nil. It is for what is made after the store that is timed.
func (t *Telemetry) Ask(more Options) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ask(&t.o.Stats, more.Stats)
	ask(&t.o.Feed, more.Feed)
	ask(&t.o.Users, more.Users)
	ask(&t.o.Streams, more.Streams)
	ask(&t.o.Live, more.Live)
	ask(&t.o.Audit, more.Audit)
	ask(&t.o.Webhooks, more.Webhooks)
	ask(&t.o.Ready, more.Ready)
}

func ask[T any](have *func() T, more func() T) {
	if more != nil {
		*have = more
	}
}

// sources returns the options as they are now.
func (t *Telemetry) sources() Options {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.o
}

// Close sends the spans that are left, for a bounded time.
func (t *Telemetry) Close() error { return t.tracing.close() }

// ServeHTTP answers with the metrics, with exemplars to whoever asks for OpenMetrics.
func (t *Telemetry) ServeHTTP(w http.ResponseWriter, r *http.Request) { t.handler.ServeHTTP(w, r) }

// Latency returns how many requests to validate took how long: counts[i] at most bounds[i], the last of counts longer
// than all of these.
func (t *Telemetry) Latency() (bounds []time.Duration, counts []uint64) { return t.timings.read() }

// Span begins a span of something that the server does by itself: a job, a delivery. The name is one of a few, and names
// nobody. The function that is returned ends it; of an error only its kind is noted.
func (t *Telemetry) Span(ctx context.Context, name string) (context.Context, func(error)) {
	if t.tracing == nil {
		return ctx, func(error) {}
	}
	ctx, span := t.tracer.Start(ctx, name)
	return ctx, func(err error) {
		if err != nil {
			failed(span, kindOf(err))
		}
		span.End()
	}
}

// observe adds a time to a histogram, with the trace as an exemplar if there is one.
func observe(ctx context.Context, to prometheus.Observer, took time.Duration) {
	if sc := trace.SpanContextFromContext(ctx); sc.IsSampled() {
		if ex, ok := to.(prometheus.ExemplarObserver); ok {
			ex.ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": sc.TraceID().String()})
			return
		}
	}
	to.Observe(took.Seconds())
}

// kindOf says of what kind an error is, in one of a few words: its text may say what nobody should read here.
func kindOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, store.ErrConflict):
		return "conflict"
	case errors.Is(err, store.ErrNotFound):
		return "not_found"
	case errors.Is(err, store.ErrUnknown), errors.Is(err, store.ErrUnconfirmed):
		return "unknown"
	case errors.Is(err, store.ErrFull):
		return "full"
	case errors.Is(err, store.ErrGap):
		return "gap"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "error"
}
