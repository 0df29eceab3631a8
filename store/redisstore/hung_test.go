package redisstore

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// Whoever asks a hung server is answered within two seconds, and what it takes to wait does not grow: validations
// and changes that come meanwhile do not pile up.
func TestHungServerIsAnswered(t *testing.T) {
	p := startRedis(t)
	s := openAt(t, "redis://"+p.Addr, Options{})
	roots := make([]*store.Record, 64)
	for g := range roots {
		roots[g] = rootIn(g)
		put(t, s, roots[g])
	}
	before := runtime.NumGoroutine()
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	const callers = 1000 // more than a connection's ring and a committer's batch take
	var mu sync.Mutex
	var worst [2]time.Duration
	answers := [2]int{}
	most := 0
	end := time.Now().Add(4 * time.Second)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			r := roots[i%len(roots)]
			for time.Now().Before(end) {
				began := time.Now()
				var err error
				if i%2 == 0 {
					_, err = s.Get(t.Context(), r.ID, store.SubjectOf(r.ID))
				} else {
					err = s.Apply(t.Context(), r.ID, store.Mark(r.ID, now, "gone"))
				}
				d := time.Since(began)
				if err == nil || i%2 == 0 && !errors.Is(err, ErrUnavailable) {
					t.Errorf("a hung server: %v", err)
				}
				mu.Lock()
				worst[i%2] = max(worst[i%2], d)
				answers[i%2]++
				most = max(most, runtime.NumGoroutine())
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	t.Logf("%d reads answered within %v, %d changes within %v; %d goroutines at most, %d before",
		answers[0], worst[0].Round(time.Millisecond), answers[1], worst[1].Round(time.Millisecond), most, before)
	if worst[0] > 2*time.Second*slow {
		t.Errorf("a read waited %v", worst[0])
	}
	if worst[1] > 3*time.Second*slow {
		t.Errorf("a change waited %v", worst[1])
	}
	if most > before+3*callers {
		t.Errorf("%d goroutines", most)
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	d := waitFor(t, "a change", func() bool { return s.Apply(t.Context(), roots[0].ID, store.Mark(roots[0].ID, now, "gone")) == nil })
	t.Logf("changes again %v after the server went on", d.Round(time.Millisecond))
	waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() < before+50 })
}
