package telemetry

import (
	"context"
	"iter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/backend"
	"github.com/afterlogin/afterlogin/store"
)

// Store returns the store with its calls timed, and with spans where the caller has one. What it returns is a store.Shared
// if the store is, and has nothing that the store does not have.
func (t *Telemetry) Store(inner backend.Backend) backend.Backend {
	s := &timed{Backend: inner, t: t}
	for c := range s.ok {
		s.ok[c] = t.store.WithLabelValues(callNames[c], "ok")
	}
	if shared, ok := inner.(store.Shared); ok {
		return &timedShared{s, shared}
	}
	return s
}

type call int

const (
	callGet call = iota
	callApply
	callTouch
	callList
	callWatch
	callPurge
	callScan
	callLoad
	calls
)

var callNames = [calls]string{"get", "apply", "touch", "list", "watch", "purge", "scan", "load"}

type timed struct {
	backend.Backend
	t  *Telemetry
	ok [calls]prometheus.Observer // the ordinary case, without a look at a map
}

// timedShared is timed for a store that other processes change, too. What is asked at every validation goes straight
// to the store.
type timedShared struct {
	*timed
	shared store.Shared
}

func (s *timedShared) Heard(partition int) time.Time { return s.shared.Heard(partition) }
func (s *timedShared) Feed() store.Feed              { return s.shared.Feed() }

// begin starts the span of a call, if it is part of a trace.
func (s *timed) begin(ctx context.Context, c call) (context.Context, trace.Span, time.Time) {
	var span trace.Span
	if s.t.tracing != nil && trace.SpanFromContext(ctx).IsRecording() {
		ctx, span = s.t.tracer.Start(ctx, "store "+callNames[c], trace.WithSpanKind(trace.SpanKindClient))
	}
	return ctx, span, time.Now()
}

// end notes how a call ended.
func (s *timed) end(ctx context.Context, span trace.Span, c call, took time.Duration, err error) {
	to := s.ok[c]
	if err != nil {
		kind := kindOf(err)
		to = s.t.store.WithLabelValues(callNames[c], kind)
		if span != nil && kind != "conflict" && kind != "not_found" {
			failed(span, kind)
		}
	}
	observe(ctx, to, took)
	if span != nil {
		span.End()
	}
}

func (s *timed) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	ctx, span, start := s.begin(ctx, callGet)
	rs, err := s.Backend.Get(ctx, ids...)
	s.end(ctx, span, callGet, time.Since(start), err)
	return rs, err
}

func (s *timed) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	ctx, span, start := s.begin(ctx, callApply)
	err := s.Backend.Apply(ctx, root, ops...)
	s.end(ctx, span, callApply, time.Since(start), err)
	return err
}

func (s *timed) Touch(ctx context.Context, touches []store.Touch) error {
	ctx, span, start := s.begin(ctx, callTouch)
	err := s.Backend.Touch(ctx, touches)
	s.end(ctx, span, callTouch, time.Since(start), err)
	return err
}

func (s *timed) Purge(ctx context.Context, b store.Bucket) error {
	ctx, done := s.t.Span(ctx, "janitor")
	ctx, span, start := s.begin(ctx, callPurge)
	err := s.Backend.Purge(ctx, b)
	s.end(ctx, span, callPurge, time.Since(start), err)
	done(err)
	return err
}

func (s *timed) Load(ctx context.Context, records []*store.Record) error {
	ctx, span, start := s.begin(ctx, callLoad)
	err := s.Backend.Load(ctx, records)
	s.end(ctx, span, callLoad, time.Since(start), err)
	return err
}

func (s *timed) Watch(ctx context.Context, since store.Cursor) (iter.Seq2[store.Event, error], error) {
	start := time.Now()
	events, err := s.Backend.Watch(ctx, since) // without a span: it may go on for days
	s.end(ctx, nil, callWatch, time.Since(start), err)
	return events, err
}

func (s *timed) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	return alone(ctx, s, callList, func(ctx context.Context) iter.Seq2[*store.Record, error] { return s.Backend.List(ctx, q) })
}

func (s *timed) Scan(ctx context.Context, since store.Cursor) iter.Seq2[store.Batch, error] {
	return alone(ctx, s, callScan, func(ctx context.Context) iter.Seq2[store.Batch, error] { return s.Backend.Scan(ctx, since) })
}

// alone times an iteration without what the caller does with what it yields.
func alone[T any](ctx context.Context, s *timed, c call, begin func(context.Context) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ctx, span, start := s.begin(ctx, c)
		var took time.Duration
		var failure error
		defer func() { s.end(ctx, span, c, took, failure) }()
		for v, err := range begin(ctx) {
			took += time.Since(start)
			if err != nil {
				failure = err
			}
			more := yield(v, err)
			start = time.Now()
			if !more {
				return
			}
		}
		took += time.Since(start)
	}
}
