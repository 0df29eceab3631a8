package pgstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// BenchmarkApply creates sessions with an event each, and marks them.
func BenchmarkApply(b *testing.B) {
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			s := openOn(b, shared.URL, Options{Schema: newSchema(), MaxConns: clients + 2})
			run := func(count int64) {
				var wg sync.WaitGroup
				var n atomic.Int64
				for range clients {
					wg.Go(func() {
						for n.Add(1) <= count {
							r := newRoot("mia")
							err := s.Apply(b.Context(), r.ID, store.Put(r, 0), store.Emit(store.Event{Type: "session.created", ID: r.ID, Tenant: 1, Subject: "mia"}))
							if err == nil {
								err = s.Apply(b.Context(), r.ID, store.Mark(r.ID, 1, "over"), store.Emit(store.Event{Type: "session.revoked", ID: r.ID, Tenant: 1, Subject: "mia"}))
							}
							if err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			}
			run(int64(20 * clients)) // connections and plans
			b.ResetTimer()
			run(int64(b.N))
			b.ReportMetric(2*float64(b.N)/b.Elapsed().Seconds(), "applies/s")
		})
	}
}

// BenchmarkSize reports how many bytes on the server's disk 100,000 sessions take, each with its event, and how long it takes to
// load as many.
func BenchmarkSize(b *testing.B) {
	const sessions = 100_000
	measure := func(b *testing.B, s *Store, like string) float64 {
		return float64(s.query(b, `SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
			WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname LIKE $1`, like)) / sessions
	}
	for b.Loop() {
		s := openOn(b, shared.URL, Options{Schema: newSchema(), MaxConns: 64})
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				for j := range sessions / 32 {
					r := newRoot(fmt.Sprintf("user%d@example.org", (i*sessions/32+j)/3))
					err := s.Apply(b.Context(), r.ID, store.Put(r, 0), store.Emit(store.Event{Type: "session.created", ID: r.ID, Tenant: 1, Subject: r.Subject}))
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		b.ReportMetric(measure(b, s, `records\_%`), "B/session")
		b.ReportMetric(measure(b, s, `events\_%`), "B/event")

		l := openOn(b, shared.URL, Options{Schema: newSchema()})
		began := time.Now()
		for range sessions / store.MaxLoad {
			rs := make([]*store.Record, store.MaxLoad)
			for i := range rs {
				rs[i] = newRoot(rand.Text()[:10])
			}
			if err := l.Load(b.Context(), rs); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(sessions/time.Since(began).Seconds(), "loaded/s")
		began = time.Now()
		n := 0
		for batch, err := range l.Scan(b.Context(), "") {
			if err != nil {
				b.Fatal(err)
			}
			n += len(batch.Records)
		}
		b.ReportMetric(float64(n)/time.Since(began).Seconds(), "scanned/s")
	}
}

// BenchmarkLag marks sessions on one node, and reports how long after the answer another node was told.
func BenchmarkLag(b *testing.B) {
	s, other := pair(b, shared.URL)
	var mu sync.Mutex
	at := map[store.ID]time.Time{}
	arrived := sync.NewCond(&mu)
	defer other.Notify(func(root store.ID) {
		mu.Lock()
		defer mu.Unlock()
		at[root] = time.Now()
		arrived.Broadcast()
	})()
	var lags []time.Duration
	var wg sync.WaitGroup
	var n atomic.Int64
	b.ResetTimer()
	for range 8 {
		wg.Go(func() {
			for n.Add(1) <= int64(b.N) {
				r := newRoot("mia")
				err := s.Apply(context.Background(), r.ID, store.Put(r, 0))
				if err == nil {
					err = s.Apply(context.Background(), r.ID, store.Mark(r.ID, 1, "over"))
				}
				if err != nil {
					b.Error(err)
					return
				}
				answered := time.Now()
				mu.Lock()
				for at[r.ID].IsZero() {
					arrived.Wait()
				}
				lags = append(lags, at[r.ID].Sub(answered))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(lags)
	if len(lags) > 0 {
		b.ReportMetric(float64(lags[len(lags)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds())/1000, "p99-ms")
	}
}
