package afterlogin_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func TestFirstUse(t *testing.T) {
	h := newHouse(t)
	until := h.clock.now().Add(time.Minute)
	first := func(realm, id string) bool {
		t.Helper()
		ok, err := h.FirstUse(t.Context(), realm, id, until)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !first("app", "1") || first("app", "1") || !first("app", "2") || !first("ap", "p1") || !first("other", "1") {
		t.Error("what is used twice and what is not is mixed up")
	}
	for s, err := range h.Sessions(t.Context(), afterlogin.Query{Ended: true}) {
		t.Errorf("a list of sessions has %v, %v", s, err)
	}
}

// Of many nodes that are presented with one thing at once, one takes it.
func TestFirstUseOnManyNodes(t *testing.T) {
	st := memstore.New()
	until := time.Now().Add(time.Minute)
	var wg sync.WaitGroup
	var took atomic.Int64
	for range 8 {
		a, err := afterlogin.New(afterlogin.Config{Store: st})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		wg.Go(func() {
			ok, err := a.FirstUse(t.Context(), "app", "once", until)
			if err != nil {
				t.Error(err)
			}
			if ok {
				took.Add(1)
			}
		})
	}
	wg.Wait()
	if took.Load() != 1 {
		t.Errorf("%d nodes took it, want 1", took.Load())
	}
	st.Close()
	a, err := afterlogin.New(afterlogin.Config{Store: st})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if ok, err := a.FirstUse(t.Context(), "app", "twice", until); ok || !errors.Is(err, afterlogin.ErrUnavailable) {
		t.Errorf("with the store closed: %v, %v, want ErrUnavailable", ok, err)
	}
}
