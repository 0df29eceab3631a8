package storetest

import (
	"errors"
	"sync"

	"github.com/afterlogin/afterlogin/store"
)

func (f *fixture) touch(ts ...store.Touch) {
	f.Helper()
	if err := f.s.Touch(f.ctx, ts); err != nil {
		f.Fatalf("Touch(%+v) = %v", ts, err)
	}
}

// A touch may be lost, but not while nothing else goes on: a store that never does it would pass everything else.
func testTouch(f *fixture) {
	r := newRoot(1, "alice")
	f.put(r)
	want := r.Clone()
	for _, tt := range []struct {
		at       int64
		gen      uint32
		lastSeen int64
		seenGen  uint32
		seenAt   int64
	}{
		{now + 10, 0, now + 10, 0, 0},
		{now + 5, 0, now + 10, 0, 0}, // never back
		{now + 20, 2, now + 20, 2, now + 20},
		{now + 30, 2, now + 30, 2, now + 20}, // when it was first seen
		{now + 40, 1, now + 40, 2, now + 20},
		{now + 35, 3, now + 40, 3, now + 35}, // each by itself
	} {
		f.touch(store.Touch{ID: r.ID, At: tt.at, Gen: tt.gen})
		want.LastSeen, want.SeenGen, want.SeenAt = tt.lastSeen, tt.seenGen, tt.seenAt
		f.want(want) // the version, too
	}
	// The version did not change, so that a put with the old one goes through.
	f.put(next(want))
}

func testTouchMarkedOrMissing(f *fixture) {
	r, missing := newRoot(1, "alice"), newRoot(1, "alice")
	child := newChild(r)
	f.put(r, child)
	f.apply(r.ID, store.Mark(r.ID, now, "gone"))
	want := f.get(r.ID)
	touch := func(id store.ID) store.Touch { return store.Touch{ID: id, At: now + 5, Gen: 5} }
	f.touch(touch(r.ID), touch(missing.ID), touch(newChild(r).ID), touch(child.ID))
	f.want(want)
	f.wantNone(missing.ID)
	child.LastSeen, child.SeenGen, child.SeenAt = now+5, 5, now+5
	f.want(child) // a child of a marked root has no mark of its own
	if got := len(f.list(store.Query{Tenant: 1})); got != 1 {
		f.Errorf("List = %d records, want 1", got)
	}
	f.touch()
}

func testTouchMany(f *fixture) {
	var rs []*store.Record
	var ts []store.Touch
	for i := range int64(700) {
		r := newRoot(1, "alice")
		f.put(r)
		rs = append(rs, r)
		ts = append(ts, store.Touch{ID: r.ID, At: now + i, Gen: 1}, store.Touch{ID: r.ID, At: now + 2*i, Gen: 1})
	}
	f.touch(ts...)
	for i, r := range rs {
		r.LastSeen, r.SeenGen, r.SeenAt = now+2*int64(i), 1, now+int64(i)
		f.want(r)
	}
}

// Touches and puts of one record at the same time: a touch may be lost, a put may not.
func testTouchBesidePut(f *fixture) {
	r := newRoot(1, "alice")
	f.put(r)
	id, done := r.ID, make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for at := now; ; at++ {
				select {
				case <-done:
					return
				default:
				}
				if err := f.s.Touch(f.ctx, []store.Touch{{ID: id, At: at, Gen: uint32(at - now)}}); err != nil {
					f.Errorf("Touch = %v", err)
					return
				}
			}
		})
	}
	for range 200 {
		r = next(r)
		if err := f.s.Apply(f.ctx, r.ID, put(r)); err != nil {
			f.Errorf("Apply = %v", err)
			break
		}
		got := f.get(r.ID)
		if got.Version != r.Version || string(got.Payload) != string(r.Payload) {
			f.Errorf("Get = version %d, want %d", got.Version, r.Version)
			break
		}
	}
	if err := f.s.Apply(f.ctx, r.ID, store.Mark(r.ID, now, "gone")); err != nil && !errors.Is(err, store.ErrConflict) {
		f.Errorf("Apply = %v", err)
	}
	marked := f.get(r.ID)
	close(done)
	wg.Wait()
	f.want(marked)
}
