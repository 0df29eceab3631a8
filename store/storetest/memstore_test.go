package storetest_test

import (
	"errors"
	"iter"
	"testing"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

func openMem(*testing.T) store.Store { return memstore.New() }

func TestMemstore(t *testing.T)      { storetest.RunLocal(t, openMem) }
func TestMemstoreWatch(t *testing.T) { storetest.RunWatch(t, openMem) }

func TestMemstoreModel(t *testing.T) {
	storetest.Sequences(t, 5000, 50000)
	storetest.RunModel(t, openMem)
}

// A watcher that is further behind than memstore remembers is told.
func TestMemstoreForgetsEvents(t *testing.T) {
	s := memstore.New()
	defer s.Close()
	emit := func(n int) {
		for range n {
			if err := s.Apply(t.Context(), store.SubjectID(1, "x"), store.Emit(store.Event{Type: "e"})); err != nil {
				t.Fatal(err)
			}
		}
	}
	seq, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	next, stop := iter.Pull2(seq)
	defer stop()
	emit(1)
	first, err, _ := next()
	if err != nil {
		t.Fatal(err)
	}
	emit(1 << 18)
	if _, err, _ := next(); !errors.Is(err, store.ErrGap) {
		t.Errorf("a slow watcher is told %v, want ErrGap", err)
	}
	if seq, err := s.Watch(t.Context(), first.Cursor); err == nil {
		for _, err = range seq {
			break
		}
		if !errors.Is(err, store.ErrGap) {
			t.Errorf("Watch(a dropped event) = %v, want ErrGap", err)
		}
	}
}

func BenchmarkMemstore(b *testing.B) {
	storetest.Bench(b, func(*testing.B) store.Store { return memstore.New() })
}

func TestMemstoreBulk(t *testing.T) {
	storetest.RunBulk(t, func(*testing.T) store.Bulk { return memstore.New() })
}
