package history

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

const (
	// deadline is how soon a node says that it does not know.
	deadline = 2500 * time.Millisecond
	// comeback is how soon after the server everything works.
	comeback = 5 * time.Second
)

// The server is away for a while: what is in memory is good for a lease, then nothing is known, soon, and when the server is
// back all goes on, by itself.
func TestOutage(t *testing.T) {
	away := 5 * time.Second
	if long {
		away = 30 * time.Second
	}
	redis := startRedis(t, "appendonly yes", "appendfsync always")
	postgres := startPostgres(t)
	ofRedis, ofPostgres := newHouse(t, "redis://"+redis.Addr), newHouse(t, postgres.URL)
	for _, tt := range []struct {
		name  string
		house *house
		away  func() error
		back  func() error
	}{
		{"redis is killed", ofRedis, redis.Kill, redis.Start},
		{"redis hangs", ofRedis, redis.Pause, redis.Resume},
		{"postgres is killed", ofPostgres, postgres.Kill, postgres.Start},
		{"postgres hangs", ofPostgres, postgres.Pause, postgres.Resume},
	} {
		t.Run(tt.name, func(t *testing.T) { outage(t, tt.house, away, tt.away, tt.back) })
	}
}

func outage(t *testing.T, h *house, away time.Duration, leave, back func() error) {
	nodes := h.nodes(3)
	var sessions []answer
	for i := range 50 {
		got := nodes[i%3].do(request{Verb: signIn, Subject: fmt.Sprint("subject-", i)})
		if got.Outcome != ok {
			t.Fatalf("sign-in: %+v", got)
		}
		sessions = append(sessions, got)
	}
	type heard struct {
		call, ret time.Time
		fresh     bool
		verb      verb
		answer
	}
	const clients = 24
	var lists [clients][]heard
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				x := heard{fresh: i%5 == 0, verb: validate}
				r := request{Verb: validate, Token: sessions[(i*7+c)%len(sessions)].Token, Fresh: x.fresh}
				if i%50 == 49 {
					x.verb = signIn
					r = request{Verb: signIn, Subject: fmt.Sprint("another-", c)}
				}
				x.call = time.Now()
				x.answer = nodes[(i+c)%3].do(r)
				x.ret = time.Now()
				lists[c] = append(lists[c], x)
			}
		})
	}
	time.Sleep(2 * time.Second)
	before := runtime.NumGoroutine()
	most := 0
	gone := time.Now()
	if err := leave(); err != nil {
		t.Fatal(err)
	}
	left := time.Now()
	for time.Since(gone) < away {
		most = max(most, runtime.NumGoroutine())
		time.Sleep(50 * time.Millisecond)
	}
	returned := time.Now()
	if err := back(); err != nil {
		t.Fatal(err)
	}
	there := time.Now()
	time.Sleep(comeback + time.Second)
	close(stop)
	wg.Wait()

	all := slices.Concat(lists[:]...)
	var slowest, lastYes, lastUnknown time.Duration
	yes, unknowns, later := 0, 0, 0
	for _, x := range all {
		during := x.call.After(left) && x.ret.Before(returned)
		switch {
		case x.Outcome == refused || x.Outcome == broken:
			t.Fatalf("%v after the server went: %v: %+v", x.call.Sub(left), x.verb, x.answer)
		case x.Outcome == unknown && x.call.After(there.Add(comeback)):
			t.Fatalf("%v after the server was back: %v: %+v", x.call.Sub(there), x.verb, x.answer)
		case x.Outcome == ok && during && (x.fresh || x.verb == signIn):
			t.Fatalf("%v after the server went: %v (fresh %v): a yes", x.call.Sub(left), x.verb, x.fresh)
		case x.Outcome == ok && during:
			yes++
			lastYes = max(lastYes, x.call.Sub(left))
		case x.Outcome == unknown && x.verb == validate:
			unknowns++
			slowest = max(slowest, x.ret.Sub(x.call))
		case x.Outcome == ok && x.call.After(there.Add(comeback)):
			later++
		}
		if x.Outcome == unknown && x.call.After(there) {
			lastUnknown = max(lastUnknown, x.call.Sub(there))
		}
	}
	t.Logf("%d answers; while the server was away %d yeses from memory, the last one after %d ms, and %d validations not known, the slowest after %d ms; all known %d ms after it was back",
		len(all), yes, lastYes.Milliseconds(), unknowns, slowest.Milliseconds(), lastUnknown.Milliseconds())
	t.Logf("goroutines: %d before, %d at most", before, most)
	var err error
	if lastYes > store.Lease {
		err = errors.Join(err, fmt.Errorf("a yes from memory %v after the server went, over the lease", lastYes))
	}
	if slowest > deadline {
		err = errors.Join(err, fmt.Errorf("somebody waited %v to hear that it is not known, over %v", slowest, deadline))
	}
	if yes == 0 || unknowns < 20 || later < 100 {
		err = errors.Join(err, fmt.Errorf("%d yeses from memory, %d not known, %d yeses afterwards: the test proves little", yes, unknowns, later))
	}
	if most > before+20*clients {
		err = errors.Join(err, fmt.Errorf("%d goroutines, from %d", most, before))
	}
	if err != nil {
		t.Error(err)
	}
}
