package storetest

import (
	"github.com/afterlogin/afterlogin/store"
)

func testGet(f *fixture) {
	a, b := newRoot(1, "alice"), newRoot(2, "")
	child := newChild(a)
	subject := newSubject(1, "alice")
	missing := newRoot(1, "alice")
	f.put(a, child)
	f.put(b)
	f.put(subject)
	ids := []store.ID{b.ID, missing.ID, child.ID, a.ID, {}, subject.ID, newChild(a).ID, a.ID}
	want := []*store.Record{b, nil, child, a, nil, subject, nil, a}
	got, err := f.s.Get(f.ctx, ids...)
	if err != nil || len(got) != len(want) {
		f.Fatalf("Get = %d records, %v, want %d", len(got), err, len(want))
	}
	for i := range want {
		if !same(got[i], want[i]) {
			f.Errorf("Get: record %d\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
	if got, err := f.s.Get(f.ctx); err != nil || len(got) != 0 {
		f.Errorf("Get of nothing = %v, %v", got, err)
	}
	// Expired ones are returned too: the store reads no clock.
	old := newRootUntil(1, "alice", now-1000*hour)
	f.put(old)
	f.want(old)
}

func testOwnership(f *fixture) {
	r := newRoot(1, "alice")
	want := r.Clone()
	f.put(r)
	// What was given to the store is the caller's again.
	clear(r.Payload)
	r.Client, r.Version = "other", 99
	f.want(want)
	// So is what the store returned.
	got := f.get(r.ID)
	clear(got.Payload)
	got.Client, got.Version = "other", 99
	f.want(want)
	for _, l := range f.list(store.Query{Tenant: 1}) {
		clear(l.Payload)
		l.Version = 99
	}
	f.want(want)
}
