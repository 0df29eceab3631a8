package storetest_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// Without faults it is the store that it wraps.
func TestFaultyIsAStore(t *testing.T) {
	open := func(*testing.T) store.Store { return storetest.NewFaulty(memstore.New(), nil) }
	storetest.RunLocal(t, open)
	storetest.RunWatch(t, open)
}

func root(n byte) *store.Record {
	id := store.NewRootID(500_000, [14]byte{13: n}, 1, "")
	return &store.Record{ID: id, Tenant: 1, Version: 1}
}

func on(method string, fault storetest.Fault) func(storetest.Call) storetest.Fault {
	return func(c storetest.Call) storetest.Fault {
		if c.Method == method {
			return fault
		}
		return storetest.Fault{}
	}
}

func exists(t *testing.T, s store.Store, id store.ID) bool {
	t.Helper()
	rs, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return rs[0] != nil
}

func TestFaultyApply(t *testing.T) {
	for _, tt := range []struct {
		name     string
		fault    storetest.Fault
		want     error
		happened bool
	}{
		{"before", storetest.Fault{Before: storetest.ErrFault}, storetest.ErrFault, false},
		{"before, unknown", storetest.Fault{Before: store.ErrUnknown}, store.ErrUnknown, false},
		{"after, unknown", storetest.Fault{After: store.ErrUnknown}, store.ErrUnknown, true},
		{"after, plain", storetest.Fault{After: storetest.ErrFault}, storetest.ErrFault, true},
		{"hang before", storetest.Fault{HangBefore: true}, context.DeadlineExceeded, false},
		{"hang after", storetest.Fault{HangAfter: true}, store.ErrUnknown, true},
		{"delay", storetest.Fault{Delay: time.Second}, nil, true},
		{"delay beyond the context", storetest.Fault{Delay: time.Hour}, context.DeadlineExceeded, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := memstore.New()
				f := storetest.NewFaulty(m, on("Apply", tt.fault))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				r := root(1)
				if err := f.Apply(ctx, r.ID, store.Put(r, 0)); !errors.Is(err, tt.want) {
					t.Errorf("Apply = %v, want %v", err, tt.want)
				}
				if got := exists(t, m, r.ID); got != tt.happened {
					t.Errorf("it happened: %v, want %v", got, tt.happened)
				}
				if f.Writes() != 1 || f.Count("Apply") != 1 || f.Count("Get") != 0 {
					t.Errorf("counted %d writes, %d Apply, %d Get", f.Writes(), f.Count("Apply"), f.Count("Get"))
				}
			})
		})
	}
}

func TestFaultyReads(t *testing.T) {
	f := storetest.NewFaulty(memstore.New(), nil)
	for i := range byte(3) {
		r := root(i)
		if err := f.Apply(t.Context(), r.ID, store.Put(r, 0)); err != nil {
			t.Fatal(err)
		}
	}
	f.Reset()
	f.SetHook(func(c storetest.Call) storetest.Fault {
		if c.N == 2 { // the second call of each method
			return storetest.Fault{After: storetest.ErrFault}
		}
		return storetest.Fault{}
	})
	for n := 1; n <= 3; n++ {
		var want error
		if n == 2 {
			want = storetest.ErrFault
		}
		rs, err := f.Get(t.Context(), root(1).ID)
		if err != want || (rs == nil) != (want != nil) {
			t.Errorf("Get %d = %v, %v, want %v", n, rs, err, want)
		}
		if err := f.Touch(t.Context(), []store.Touch{{ID: root(1).ID, At: int64(n)}}); err != want {
			t.Errorf("Touch %d = %v, want %v", n, err, want)
		}
		if err := f.Purge(t.Context(), 1); err != want {
			t.Errorf("Purge %d = %v, want %v", n, err, want)
		}
		listed := 0
		err = nil
		for r, e := range f.List(t.Context(), store.Query{Tenant: 1}) {
			if err = e; r != nil {
				listed++
			}
		}
		if err != want || (listed == 3) != (want == nil) {
			t.Errorf("List %d = %d records, %v, want %v", n, listed, err, want)
		}
	}
	if f.Writes() != 3 {
		t.Errorf("%d writes, want the 3 of Purge", f.Writes())
	}
}

func TestFaultyEvents(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault storetest.Fault // of the second
		want  []string
		delay time.Duration
	}{
		{"none", storetest.Fault{}, []string{"1", "2", "3", "4"}, 0},
		{"drop", storetest.Fault{Drop: true}, []string{"1", "3", "4"}, 0},
		{"late", storetest.Fault{Late: true}, []string{"1", "3", "2", "4"}, 0},
		{"delay", storetest.Fault{Delay: time.Second}, []string{"1", "2", "3", "4"}, time.Second},
		{"error", storetest.Fault{Before: store.ErrGap}, []string{"1", "store: events missed"}, 0},
		{"error after", storetest.Fault{After: store.ErrGap}, []string{"1", "2", "store: events missed"}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := memstore.New()
				for i := range byte(4) {
					r := root(i + 1)
					if err := base.Apply(t.Context(), r.ID, store.Put(r, 0)); err != nil {
						t.Fatal(err)
					}
				}
				f := storetest.NewFaulty(base, func(c storetest.Call) storetest.Fault {
					if (c.Method == "Event" || c.Method == "Notice") && c.N == 2 {
						return tt.fault
					}
					return storetest.Fault{}
				})
				seq, err := f.Watch(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				var mu sync.Mutex
				var told []store.ID
				stop := f.Notify(func(id store.ID) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, id)
				})
				for i := range byte(4) {
					r := root(i + 1)
					if err := f.Apply(t.Context(), r.ID, store.Mark(r.ID, 1, ""), store.Emit(store.Event{Type: fmt.Sprint(i + 1)})); err != nil {
						t.Fatal(err)
					}
				}
				start := time.Now()
				var got []string
				next, end := iter.Pull2(seq)
				defer end()
				for len(got) < len(tt.want) {
					e, err, _ := next()
					if err != nil {
						got = append(got, err.Error())
					} else {
						got = append(got, e.Type)
					}
				}
				if !slices.Equal(got, tt.want) || time.Since(start) != tt.delay {
					t.Errorf("Watch yields %v after %v, want %v after %v", got, time.Since(start), tt.want, tt.delay)
				}
				if f.Count("Event") == 0 || f.Count("Notice") != 4 {
					t.Errorf("%d events, %d notices", f.Count("Event"), f.Count("Notice"))
				}
				if err := f.Close(); err != nil { // after delayed notices
					t.Error(err)
				}
				stop()
				want := []store.ID{root(1).ID, root(2).ID, root(3).ID, root(4).ID}
				switch {
				case tt.fault.Drop || tt.fault.Before != nil:
					want = slices.Delete(want, 1, 2)
				case tt.fault.Late:
					want[1], want[2] = want[2], want[1]
				case tt.fault.Delay > 0:
					want = append(slices.Delete(want, 1, 2), root(2).ID)
				}
				if !slices.Equal(told, want) {
					t.Errorf("Notify told of %v, want %v", told, want)
				}
			})
		})
	}
}

// The same seed asks for the same faults.
func TestFaultyRandom(t *testing.T) {
	run := func(seed uint64) (got []string) {
		f := storetest.NewFaulty(memstore.New(), storetest.Random(seed, 0.5, true))
		for i := range byte(50) {
			r := root(i)
			err := f.Apply(t.Context(), r.ID, store.Put(r, 0))
			got = append(got, fmt.Sprint(err))
		}
		return got
	}
	a, b, c := run(1), run(1), run(2)
	if !slices.Equal(a, b) {
		t.Error("the same seed gave other faults")
	}
	if slices.Equal(a, c) {
		t.Error("another seed gave the same faults")
	}
}
