// Package test tries the authority on real stores, on stores that fail, and through crashes: what no single package
// can test alone.
package test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

var ctx = context.Background()

// clock is the time of a test.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).UnixMilli())
	return c
}

func (c *clock) now() time.Time       { return time.UnixMilli(c.ms.Load()) }
func (c *clock) pass(d time.Duration) { c.ms.Add(d.Milliseconds()) }

// stores are the stores that every test here runs on.
var stores = map[string]func(t testing.TB) store.Store{
	"memstore": func(t testing.TB) store.Store { return memstore.New() },
	"pebblestore": func(t testing.TB) store.Store {
		s, err := pebblestore.Open(t.TempDir(), pebblestore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	},
}

func onEveryStore(t *testing.T, f func(t *testing.T, s store.Store)) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

func authority(t testing.TB, s store.Store, keys *keyring.Ring, c *clock, change ...func(*afterlogin.Config)) *afterlogin.Authority {
	t.Helper()
	config := afterlogin.Config{Store: s, Keys: keys, Now: c.now}
	for _, f := range change {
		f(&config)
	}
	a, err := afterlogin.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func session() afterlogin.Expect {
	return afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, CanRenew: true}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// answer is what a validation says, in one word: good, the reason, or unavailable.
func answer(a *afterlogin.Authority, tok afterlogin.Token) string {
	_, err := a.Validate(ctx, tok, session())
	switch {
	case err == nil:
		return "good"
	case errors.Is(err, afterlogin.ErrUnavailable):
		return "unavailable"
	}
	return string(afterlogin.ReasonOf(err))
}
