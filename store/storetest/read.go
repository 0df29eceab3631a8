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

func testGetSubjectOf(f *fixture) {
	a, b, anonymous := newRoot(1, "alice"), newRoot(2, "bob"), newRoot(1, "")
	child := newChild(a)
	f.put(a, child)
	f.put(b)
	f.put(anonymous)
	alice, twin := newSubject(1, "alice"), newSubject(2, "alice")
	f.put(alice)
	f.put(twin)
	ids := []store.ID{
		store.SubjectOf(a.ID), child.ID, a.ID, store.SubjectOf(child.ID), b.ID, store.SubjectOf(b.ID), // bob has no record
		store.SubjectOf(anonymous.ID), store.SubjectOf(newRoot(1, "alice").ID), a.ID,
	}
	want := []*store.Record{alice, child, a, alice, b, nil, nil, nil, a}
	got, err := f.s.Get(f.ctx, ids...)
	if err != nil || len(got) != len(want) {
		f.Fatalf("Get = %d records, %v, want %d", len(got), err, len(want))
	}
	for i := range want {
		if !same(got[i], want[i]) {
			f.Errorf("Get: record %d\n got %+v\nwant %+v", i, got[i], want[i])
		}
	}
	// What was changed since is seen, and a mark of the root or a touch hides nothing.
	alice = next(alice)
	f.put(alice)
	f.apply(a.ID, store.Mark(a.ID, now, "over"))
	if got, err := f.s.Get(f.ctx, a.ID, store.SubjectOf(a.ID)); err != nil || got[0].Marked != now || !same(got[1], alice) {
		f.Errorf("Get of a marked root and its subject = %+v, %v", got, err)
	}
	b = next(b)
	f.put(b)
	bob := newSubject(2, "bob")
	f.put(bob)
	if got, err := f.s.Get(f.ctx, b.ID, store.SubjectOf(b.ID)); err != nil || !same(got[0], b) || !same(got[1], bob) {
		f.Errorf("Get of a root and its new subject = %+v, %v", got, err)
	}
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
