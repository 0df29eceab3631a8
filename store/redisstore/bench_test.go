package redisstore

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/storetest"
)

func BenchmarkSingle(b *testing.B) {
	storetest.Bench(b, func(b *testing.B) store.Store { return openAt(b, singleURL(b), Options{}) })
}

func BenchmarkCluster(b *testing.B) {
	storetest.Bench(b, func(b *testing.B) store.Store { return openAt(b, clusterURL(b), Options{}) })
}

// BenchmarkMiss is what a validation asks that finds nothing in memory: a root and its subject, in one round trip.
func BenchmarkMiss(b *testing.B) {
	for name, url := range map[string]string{"Single": singleURL(b), "Cluster": clusterURL(b)} {
		b.Run(name, func(b *testing.B) {
			s := openAt(b, url, Options{})
			r := newRoot("mia")
			put(b, s, r)
			for b.Loop() {
				if _, err := s.Get(b.Context(), r.ID, store.SubjectOf(r.ID)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMemory prints what a session takes on the server, indexes included.
func BenchmarkMemory(b *testing.B) {
	for _, each := range []int{1, 5} {
		b.Run(fmt.Sprint("SessionsOfASubject/", each), func(b *testing.B) {
			p := startRedis(b)
			s := openAt(b, "redis://"+p.Addr, Options{})
			used := func() float64 {
				n, err := strconv.ParseFloat(parseInfo(do(b, p, "INFO", "memory"))["used_memory"], 64)
				if err != nil {
					b.Fatal(err)
				}
				return n
			}
			const sessions = 100_000
			for range b.N {
				do(b, p, "FLUSHALL")
				before := used()
				var batch []*store.Record
				for i := range sessions {
					if batch = append(batch, newRoot(fmt.Sprint("user", i/each))); len(batch) == store.MaxLoad {
						if err := s.Load(b.Context(), batch); err != nil {
							b.Fatal(err)
						}
						batch = batch[:0]
					}
				}
				b.ReportMetric((used()-before)/sessions, "B/session")
			}
		})
	}
}
