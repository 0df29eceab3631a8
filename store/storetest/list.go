package storetest

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/afterlogin/afterlogin/store"
)

// wantList fails unless the query yields exactly these records, in the order of their ids.
func (f *fixture) wantList(q store.Query, want ...*store.Record) {
	f.Helper()
	want = slices.Clone(want)
	slices.SortFunc(want, byID)
	got := f.list(q)
	if len(got) != len(want) {
		f.Fatalf("List(%+v) = %d records, want %d", q, len(got), len(want))
	}
	for i := range want {
		if !same(got[i], want[i]) {
			f.Fatalf("List(%+v): record %d\n got %+v\nwant %+v", q, i, got[i], want[i])
		}
	}
}

func byID(a, b *store.Record) int { return a.ID.Compare(b.ID) }

// spread returns roots of a subject that expire at all sorts of times, or never.
func (f *fixture) spread(tenant uint32, subject string, n int) []*store.Record {
	var rs []*store.Record
	for i := range n {
		// Hours, days, months, years.
		absolute := now + []int64{0, 1, 3, 24, 30 * 24, 180 * 24, 366 * 24, -200}[i%8]*hour
		if i%9 == 8 {
			absolute = 0
		}
		r := newRootUntil(tenant, subject, absolute)
		f.put(r)
		rs = append(rs, r)
	}
	slices.SortFunc(rs, byID)
	return rs
}

func testListSubject(f *fixture) {
	alice := f.spread(1, "alice", 30)
	f.wantList(store.Query{Tenant: 1, Subject: "alice"}, alice...)
	bob := f.spread(1, "bob", 10)
	other := f.spread(2, "alice", 10)
	f.spread(1, "", 10)
	f.spread(1, "alic", 3)
	f.spread(1, "alice2", 3)
	f.wantList(store.Query{Tenant: 1, Subject: "alice"}, alice...)
	f.wantList(store.Query{Tenant: 1, Subject: "bob"}, bob...)
	f.wantList(store.Query{Tenant: 2, Subject: "alice"}, other...)
	f.wantList(store.Query{Tenant: 2, Subject: "bob"})
	f.wantList(store.Query{Tenant: 3, Subject: "alice"})
	f.wantList(store.Query{Tenant: 1, Subject: "nobody"})
	// Marked and changed ones are yielded as Get returns them.
	f.apply(alice[3].ID, store.Mark(alice[3].ID, now, "gone"))
	alice[3] = f.get(alice[3].ID)
	alice[4] = next(alice[4])
	f.put(alice[4])
	f.wantList(store.Query{Tenant: 1, Subject: "alice"}, alice...)
}

func testListAll(f *fixture) {
	f.wantList(store.Query{Tenant: 1})
	var all []*store.Record
	for i := range 5 {
		all = append(all, f.spread(1, "user"+strconv.Itoa(i), 10)...)
	}
	all = append(all, f.spread(1, "", 20)...)
	two := f.spread(2, "user1", 10)
	f.wantList(store.Query{Tenant: 1}, all...)
	f.wantList(store.Query{Tenant: 2}, two...)
	f.wantList(store.Query{Tenant: 0})
}

func testListAfter(f *fixture) {
	alice := f.spread(1, "alice", 20)
	all := slices.Concat(alice, f.spread(1, "bob", 10))
	f.spread(2, "alice", 10)
	slices.SortFunc(all, byID)
	for _, tt := range []struct {
		subject string
		rs      []*store.Record
	}{{"alice", alice}, {"", all}} {
		for i, r := range tt.rs {
			f.wantList(store.Query{Tenant: 1, Subject: tt.subject, After: r.ID}, tt.rs[i+1:]...)
		}
		// An id that is not there, between two that are.
		between := newRootUntil(1, "alice", now+24*hour+hour/2)
		i, _ := slices.BinarySearchFunc(tt.rs, between.ID, func(r *store.Record, id store.ID) int { return r.ID.Compare(id) })
		f.wantList(store.Query{Tenant: 1, Subject: tt.subject, After: between.ID}, tt.rs[i:]...)
	}
	// Page by page.
	var got []*store.Record
	for q := (store.Query{Tenant: 1}); ; {
		n := 0
		for r, err := range f.s.List(f.ctx, q) {
			if err != nil {
				f.Fatal(err)
			}
			got = append(got, r)
			q.After = r.ID
			if n++; n == 7 {
				break
			}
		}
		if n < 7 {
			break
		}
	}
	if !slices.EqualFunc(got, all, same) {
		f.Errorf("page by page: %d records, want %d", len(got), len(all))
	}
}

// testListMany lists more than a store is likely to hold at a time, with children in between.
func testListMany(f *fixture) {
	var all []*store.Record
	for i := range 600 {
		r := newRootUntil(1, "alice", now+24*hour+int64(i%5)*hour)
		f.put(r, newChild(r), newChildUntil(r, r.Absolute))
		all = append(all, r)
	}
	f.wantList(store.Query{Tenant: 1, Subject: "alice"}, all...)
	f.wantList(store.Query{Tenant: 1}, all...)
	slices.SortFunc(all, byID)
	f.wantList(store.Query{Tenant: 1, After: all[299].ID}, all[300:]...)
	f.wantList(store.Query{Tenant: 1, Subject: "alice", After: all[299].ID}, all[300:]...)
}

// testListNothingElse checks that only roots that are there are listed, by what their records say.
func testListNothingElse(f *fixture) {
	r := newRoot(1, "alice")
	f.put(r, newChild(r))
	f.put(newSubject(1, "alice"))
	f.apply(r.ID, event("x", r))
	f.put(newChild(newRoot(1, "alice"))) // a child without its root
	never := newRoot(1, "alice")
	if err := f.s.Apply(f.ctx, never.ID, put(never), store.Mark(newChild(never).ID, now, "")); err == nil {
		f.Fatal("mark of a record that is not there = nil")
	}
	f.touch(store.Touch{ID: newRoot(1, "alice").ID, At: now})
	f.wantList(store.Query{Tenant: 1}, f.get(r.ID))
	f.wantList(store.Query{Tenant: 1, Subject: "alice"}, f.get(r.ID))
}

func testListStops(f *fixture) {
	f.spread(1, "alice", 10)
	for range f.s.List(f.ctx, store.Query{Tenant: 1}) {
		break
	}
	// The store can be used, and changed, while a list is open.
	n := 0
	for r, err := range f.s.List(f.ctx, store.Query{Tenant: 1, Subject: "alice"}) {
		if err != nil {
			f.Fatal(err)
		}
		n++
		f.apply(r.ID, store.Mark(r.ID, now, "gone"))
	}
	if n != 10 {
		f.Errorf("List yielded %d roots while they were marked, want 10", n)
	}
	// What was marked before a list began is seen as marked.
	for r, err := range f.s.List(f.ctx, store.Query{Tenant: 1, Subject: "alice"}) {
		if err != nil || cmp.Compare(r.Marked, now) != 0 {
			f.Fatalf("List yields %+v, %v, want it marked", r, err)
		}
	}
}
