package redisstore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

func emit(t testing.TB, s *Store, g int, detail string) {
	t.Helper()
	r := rootIn(g)
	if err := s.Apply(t.Context(), r.ID, store.Emit(store.Event{Type: "e", ID: r.ID, Detail: detail})); err != nil {
		t.Fatal(err)
	}
}

// What one process does, another watches, in one order over all masters, and soon.
func TestWatchAcrossProcesses(t *testing.T) {
	a := openAt(t, clusterURL(t), Options{})
	b := openAt(t, clusterURL(t), Options{prefix: a.o.prefix})
	seq, err := b.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	const events = 300
	sent := make(chan time.Time, events)
	go func() {
		for i := range events {
			emit(t, a, i*13%groups, fmt.Sprint(i))
			sent <- time.Now()
		}
	}()
	i := 0
	var worst time.Duration
	for e, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		if e.Detail != fmt.Sprint(i) {
			t.Fatalf("event %d is %s", i, e.Detail)
		}
		worst = max(worst, time.Since(<-sent))
		if i++; i == events {
			break
		}
	}
	t.Logf("after the answer: %v at most", worst)
}

// A watcher that is further behind than the server remembers is told.
func TestWatchTrimmed(t *testing.T) {
	s := openAt(t, singleURL(t), Options{Events: 100})
	seq, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	emit(t, s, 5, "first")
	var first store.Cursor
	for e, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		first = e.Cursor
		break
	}
	for i := range 400 {
		emit(t, s, 5, fmt.Sprint(i))
	}
	again, err := s.Watch(t.Context(), first)
	if err == nil {
		for _, err = range again {
			break
		}
	}
	if !errors.Is(err, store.ErrGap) {
		t.Errorf("Watch(a dropped event) = %v, want ErrGap", err)
	}
}

// Watchers live through a failover, in which confirmed events are kept.
func TestWatchFailover(t *testing.T) {
	r := newRig(t, Options{})
	const g = 50
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	seq, err := r.s.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 100)
	ended := make(chan error, 1)
	go func() {
		var last error
		for e, err := range seq {
			if last = err; err == nil {
				got <- e.Detail
			}
		}
		ended <- last
	}()
	want := func(detail string) {
		t.Helper()
		select {
		case d := <-got:
			if d != detail {
				t.Errorf("event %s, want %s", d, detail)
			}
		case err := <-ended:
			t.Fatalf("Watch ended: %v", err)
		case <-time.After(patience):
			t.Fatalf("no event, want %s", detail)
		}
	}
	emit(t, r.s, g, "before")
	want("before")
	master, _ := r.pair(g)
	if err := master.Kill(); err != nil {
		t.Fatal(err)
	}
	emit(t, r.s, 0, "elsewhere")
	want("elsewhere") // of another master
	waitFor(t, "a change", func() bool {
		root := rootIn(g)
		return r.s.Apply(t.Context(), root.ID, store.Emit(store.Event{Type: "e", Detail: "after"})) == nil
	})
	want("after")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ends with %v", err)
	}
}
