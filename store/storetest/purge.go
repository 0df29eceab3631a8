package storetest

import (
	"github.com/afterlogin/afterlogin/store"
)

func (f *fixture) purge(b store.Bucket) {
	f.Helper()
	if err := f.s.Purge(f.ctx, b); err != nil {
		f.Fatalf("Purge(%d) = %v", b, err)
	}
}

func testPurge(f *fixture) {
	var rs []*store.Record
	for i := range int64(40) {
		root := newRootUntil(1, "alice", now+i*20*hour)
		child := newChildUntil(root, now+i*10*hour)
		f.put(root, child)
		if i%3 == 0 {
			f.apply(root.ID, store.Mark(root.ID, now, "gone"))
			root = f.get(root.ID)
		}
		rs = append(rs, root, child)
	}
	forever := newRootUntil(1, "alice", 0)
	foreverChild := newChildUntil(forever, 0)
	subject := newSubject(1, "alice")
	f.put(forever, foreverChild)
	f.put(subject)
	first := store.BucketOf(now)
	for _, b := range []store.Bucket{0, first - 1, first, first + 10, first + 11, first + 300, first + 600, first + 2000, store.NoBucket} {
		f.purge(b)
		want := []*store.Record{forever}
		for _, r := range rs {
			if r.ID.Bucket() <= b {
				f.wantNone(r.ID)
				continue
			}
			f.want(r)
			if r.ID.IsRoot() {
				want = append(want, r)
			}
		}
		f.wantList(store.Query{Tenant: 1, Subject: "alice"}, want...)
		f.wantList(store.Query{Tenant: 1}, want...)
		f.want(subject)
		f.want(forever)
		f.want(foreverChild)
	}
}

// testPurgeTwice puts records into buckets that were purged before.
func testPurgeTwice(f *fixture) {
	for i := range int64(5) {
		r := newRootUntil(1, "alice", now+i%2*hour)
		f.put(r)
		f.want(r)
		f.wantList(store.Query{Tenant: 1, Subject: "alice"}, r)
		f.purge(store.BucketOf(now + 2*hour))
		f.wantNone(r.ID)
		f.wantList(store.Query{Tenant: 1, Subject: "alice"})
		f.wantList(store.Query{Tenant: 1})
		f.purge(store.BucketOf(now + hour))
		f.put(r) // as if it had never been
		f.want(r)
		f.purge(store.BucketOf(now + 3*hour))
	}
}
