package storetest

import (
	"fmt"
	"testing"

	"github.com/afterlogin/afterlogin/store"
)

// BenchPayload is the size of the payloads that Bench writes, about that of a browser session's.
const BenchPayload = 300

// Bench measures a store: durable creates with an event each, reads, touches and lists. open opens an empty store.
func Bench(b *testing.B, open func(b *testing.B) store.Store) {
	for _, goroutines := range []int{1, 64, 256} {
		b.Run(fmt.Sprint("Create/", goroutines), func(b *testing.B) {
			s := openBench(b, open)
			each(b, goroutines, func(int) error {
				r := benchRoot("")
				return s.Apply(b.Context(), r.ID, put(r), event("session.created", r))
			})
		})
	}
	s := openBench(b, open)
	const filled = 20_000
	ids := make([]store.ID, filled)
	for i := range ids {
		r := benchRoot(fmt.Sprint("user", i/10))
		ids[i] = r.ID
	}
	fill := newGroup(64)
	for i, id := range ids {
		fill.do(func() error {
			r := newRecord(id)
			r.Tenant, r.Subject, r.Payload = 1, fmt.Sprint("user", i/10), make([]byte, BenchPayload)
			return s.Apply(b.Context(), id, put(r))
		})
	}
	if err := fill.wait(); err != nil {
		b.Fatal(err)
	}
	for _, goroutines := range []int{1, 16} {
		b.Run(fmt.Sprint("Get/", goroutines), func(b *testing.B) {
			each(b, goroutines, func(i int) error {
				rs, err := s.Get(b.Context(), ids[i*7919%filled])
				if err == nil && rs[0] == nil {
					err = store.ErrNotFound
				}
				return err
			})
		})
	}
	b.Run("Touch/256", func(b *testing.B) {
		var ts []store.Touch
		for i := range b.N {
			ts = append(ts, store.Touch{ID: ids[i*7919%filled], At: now + int64(i), Gen: 1})
			if len(ts) == 256 || i == b.N-1 {
				if err := s.Touch(b.Context(), ts); err != nil {
					b.Fatal(err)
				}
				ts = ts[:0]
			}
		}
	})
	b.Run("List/10", func(b *testing.B) {
		for i := range b.N {
			for _, err := range s.List(b.Context(), store.Query{Tenant: 1, Subject: fmt.Sprint("user", i%(filled/10))}) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

func openBench(b *testing.B, open func(b *testing.B) store.Store) store.Store {
	s := open(b)
	b.Cleanup(func() { s.Close() })
	return s
}

func benchRoot(subject string) *store.Record {
	r := newRoot(1, subject)
	r.Payload = make([]byte, BenchPayload)
	copy(r.Payload, fmt.Sprint(r.ID))
	return r
}

// each runs do b.N times on a number of goroutines.
func each(b *testing.B, goroutines int, do func(i int) error) {
	b.ResetTimer()
	g := newGroup(goroutines)
	for i := range b.N {
		g.do(func() error { return do(i) })
	}
	if err := g.wait(); err != nil {
		b.Fatal(err)
	}
}

// A group is a number of goroutines that do what they are given.
type group struct {
	work chan func() error
	errs chan error
	n    int
}

func newGroup(n int) *group {
	g := &group{make(chan func() error, n), make(chan error, n), n}
	for range n {
		go func() {
			var first error
			for do := range g.work {
				if err := do(); err != nil && first == nil {
					first = err
				}
			}
			g.errs <- first
		}()
	}
	return g
}

func (g *group) do(f func() error) { g.work <- f }

func (g *group) wait() (first error) {
	close(g.work)
	for range g.n {
		if err := <-g.errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}
