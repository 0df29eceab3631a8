package storetest

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/afterlogin/afterlogin/store"
)

// testOneWinner has 64 goroutines put the next version of one root. Each version has one winner.
func testOneWinner(f *fixture) {
	const goroutines, versions = 64, 8
	r := newRoot(1, "alice")
	f.put(r)
	for range versions {
		var wins atomic.Int32
		var won atomic.Pointer[store.Record]
		var wg sync.WaitGroup
		for i := range goroutines {
			wg.Go(func() {
				n := next(r)
				n.Payload = []byte{byte(i)}
				err := f.s.Apply(f.ctx, n.ID, put(n), event("won", n))
				switch {
				case err == nil:
					wins.Add(1)
					won.Store(n)
				case !errors.Is(err, store.ErrConflict):
					f.Errorf("Apply = %v, want nil or a conflict", err)
					return
				}
				// Whoever is answered, winner or not, reads the new version.
				if got, err := f.s.Get(f.ctx, n.ID); err != nil || got[0].Version != n.Version {
					f.Errorf("Get after Apply returned = %+v, %v, want version %d", got, err, n.Version)
				}
			})
		}
		wg.Wait()
		if wins.Load() != 1 {
			f.Fatalf("version %d had %d winners, want 1", r.Version+1, wins.Load())
		}
		r = won.Load()
		f.want(r)
	}
	// The same for a create, and for a mark, which all may win.
	n := newRoot(1, "bob")
	var wins atomic.Int32
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			if err := f.s.Apply(f.ctx, n.ID, put(newLike(n))); err == nil {
				wins.Add(1)
			} else if !errors.Is(err, store.ErrConflict) {
				f.Errorf("Apply = %v", err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		f.Fatalf("%d creates of one record succeeded, want 1", wins.Load())
	}
}

// testMarkRace marks one record from many goroutines. One mark stays, and whoever is answered sees it.
func testMarkRace(f *fixture) {
	r := newRoot(1, "alice")
	f.put(r)
	var first atomic.Int64
	var wg sync.WaitGroup
	for i := range int64(32) {
		wg.Go(func() {
			if err := f.s.Apply(f.ctx, r.ID, store.Mark(r.ID, now+i+1, "gone")); err != nil {
				f.Errorf("Apply = %v", err)
				return
			}
			got, err := f.s.Get(f.ctx, r.ID)
			if err != nil || got[0].Marked == 0 || got[0].Version != 2 {
				f.Errorf("Get after a mark = %+v, %v", got, err)
				return
			}
			if !first.CompareAndSwap(0, got[0].Marked) && first.Load() != got[0].Marked {
				f.Errorf("the mark was %d, then %d", first.Load(), got[0].Marked)
			}
		})
	}
	wg.Wait()
}

// testParallel changes many roots at the same time, and reads them while it does.
func testParallel(f *fixture) {
	const goroutines, changes = 32, 30
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			r := newRoot(1, "alice")
			if err := f.s.Apply(f.ctx, r.ID, put(r)); err != nil {
				f.Errorf("Apply = %v", err)
				return
			}
			for i := range changes {
				r = next(r)
				c := newChild(r)
				if err := f.s.Apply(f.ctx, r.ID, put(r), put(c), event("changed", r)); err != nil {
					f.Errorf("Apply = %v", err)
					return
				}
				got, err := f.s.Get(f.ctx, r.ID, c.ID)
				if err != nil || !same(got[0], r) || !same(got[1], c) {
					f.Errorf("Get = %+v, %v, want %+v, %+v", got, err, r, c)
					return
				}
				if i%10 == 0 {
					found := false
					for l, err := range f.s.List(f.ctx, store.Query{Tenant: 1, Subject: "alice"}) {
						if err != nil {
							f.Errorf("List: %v", err)
							return
						}
						found = found || l.ID == r.ID
					}
					if !found {
						f.Errorf("List does not yield a root whose Apply had returned")
					}
				}
			}
		})
	}
	wg.Wait()
	if got := len(f.list(store.Query{Tenant: 1, Subject: "alice"})); got != goroutines {
		f.Errorf("List = %d roots, want %d", got, goroutines)
	}
}

// testOneMoment reads two records of a root that are always changed together.
func testOneMoment(f *fixture) {
	root := newRoot(1, "alice")
	child := newChild(root)
	f.put(root, child)
	ids, done := []store.ID{child.ID, root.ID}, make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := uint64(0)
			for {
				select {
				case <-done:
					return
				default:
				}
				got, err := f.s.Get(f.ctx, ids...)
				if err != nil {
					f.Errorf("Get = %v", err)
					return
				}
				if got[0].Version != got[1].Version || got[0].Version < last {
					f.Errorf("Get = versions %d and %d after %d", got[0].Version, got[1].Version, last)
					return
				}
				last = got[0].Version
			}
		})
	}
	for range 200 {
		root, child = next(root), next(child)
		if err := f.s.Apply(f.ctx, root.ID, put(root), put(child)); err != nil {
			f.Errorf("Apply = %v", err)
			break
		}
	}
	close(done)
	wg.Wait()
}
