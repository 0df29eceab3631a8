package storetest

import (
	"errors"
	"strings"

	"github.com/afterlogin/afterlogin/store"
)

func testPut(f *fixture) {
	r := newRoot(1, "alice")
	f.wantNone(r.ID)
	f.put(r)
	f.want(r)
	for range 3 {
		r = next(r)
		f.put(r)
		f.want(r)
	}
}

func testPutConflict(f *fixture) {
	r := newRoot(1, "alice")
	missing := r.Clone()
	missing.Version = 5
	f.conflict(0, missing.ID, put(missing))
	f.wantNone(r.ID)
	f.put(r)
	f.conflict(0, r.ID, put(newLike(r))) // there is one already
	f.want(r)
	second := next(r)
	f.put(second)
	f.conflict(0, r.ID, put(next(r))) // a version late
	early := second.Clone()
	early.Version = 9
	f.conflict(0, r.ID, put(early))
	f.want(second)
}

// newLike returns another record with the same id, as a second create would have it.
func newLike(r *store.Record) *store.Record {
	o := newRecord(r.ID)
	o.Tenant, o.Subject, o.Absolute = r.Tenant, r.Subject, r.Absolute
	return o
}

// conflict applies the operations, and fails unless that is a conflict at operation i.
func (f *fixture) conflict(i int, id store.ID, ops ...store.Op) {
	f.Helper()
	err := f.s.Apply(f.ctx, ops[0].ID.Root(), ops...)
	var c *store.ConflictError
	if !errors.Is(err, store.ErrConflict) || !errors.As(err, &c) {
		f.Fatalf("Apply = %v, want a ConflictError", err)
	}
	if c.Op != i || c.ID != id {
		f.Fatalf("Apply: conflict at operation %d, record %v; want %d, %v", c.Op, c.ID, i, id)
	}
}

func testPutKeepsSeen(f *fixture) {
	r := newRoot(1, "alice")
	f.put(r)
	if err := f.s.Touch(f.ctx, []store.Touch{{ID: r.ID, At: now + 50, Gen: 3}}); err != nil {
		f.Fatal(err)
	}
	// The put was read before the touch, and has older values.
	second := next(r)
	second.LastSeen, second.SeenGen, second.SeenAt = now+10, 2, now+10
	f.put(second)
	want := second.Clone()
	want.LastSeen, want.SeenGen, want.SeenAt = now+50, 3, now+50
	f.want(want)
	// A put with newer values keeps its own.
	third := next(want)
	third.LastSeen, third.SeenGen, third.SeenAt = now+90, 4, now+90
	f.put(third)
	f.want(third)
}

func testPutKinds(f *fixture) {
	root := newRoot(1, "alice")
	child := newChild(root)
	subject := newSubject(1, "alice")
	f.put(root, child)
	f.put(subject)
	f.want(root)
	f.want(child)
	f.want(subject)
	child = next(child)
	f.put(child) // without its root
	f.want(child)
	f.want(root)
	orphan := newChild(newRoot(1, "alice")) // the store does not ask for the root to be there
	f.put(orphan)
	f.want(orphan)
}

func testPutAnything(f *fixture) {
	for _, change := range []func(r *store.Record){
		func(r *store.Record) {
			*r = store.Record{ID: r.ID, Version: 1, Tenant: r.Tenant, Subject: r.Subject}
		},
		func(r *store.Record) { r.Payload = []byte{} },
		func(r *store.Record) { r.Payload = []byte{0, 0xFF, 0} },
		func(r *store.Record) { r.Client = "\x00\xff'\"\\;{}" },
		func(r *store.Record) { r.Kind = 0xFF },
		func(r *store.Record) { r.Created, r.LastSeen, r.SeenAt = -1, 1<<62, 1<<62 },
		func(r *store.Record) { r.SeenGen = 1<<32 - 1 },
		func(r *store.Record) { r.Absolute = now + 24*hour - 5000 }, // shortened: the bucket stays
	} {
		for _, subject := range []string{"", "alice", "\x00\xff'%*", "søren"} {
			for _, tenant := range []uint32{0, 1, 1<<32 - 1} {
				r := newRoot(tenant, subject)
				change(r)
				f.put(r)
				f.want(r)
			}
		}
	}
}

func testMark(f *fixture) {
	r := newRoot(1, "alice")
	f.put(r)
	f.apply(r.ID, store.Mark(r.ID, now+1, "signed out"))
	want := r.Clone()
	want.Marked, want.Reason, want.Version = now+1, "signed out", 2
	f.want(want)
	// The first mark stays, and a second one is no error.
	f.apply(r.ID, store.Mark(r.ID, now+2, "reuse"))
	f.apply(r.ID, store.Mark(r.ID, now, ""))
	f.want(want)
	// A put that does not know of the mark fails.
	f.conflict(0, r.ID, put(next(r)))
	f.want(want)
}

func testMarkMissing(f *fixture) {
	root := newRoot(1, "alice")
	f.put(root)
	child := newChild(root)
	for _, ops := range [][]store.Op{
		{store.Mark(child.ID, now, "")},
		{put(next(root)), store.Mark(child.ID, now, ""), event("never", root)},
	} {
		if err := f.s.Apply(f.ctx, root.ID, ops...); !errors.Is(err, store.ErrNotFound) {
			f.Fatalf("Apply of a mark on a record that is not there = %v, want ErrNotFound", err)
		}
	}
	f.wantNone(child.ID)
	f.want(root)
}

func testMarkedStays(f *fixture) {
	r := newRoot(1, "alice")
	f.put(r)
	f.apply(r.ID, store.Mark(r.ID, now+1, "why"))
	marked := f.get(r.ID)
	// The only operation that could write over it is a put, and that must carry no mark.
	over := next(marked)
	if err := f.s.Apply(f.ctx, r.ID, put(over)); !errors.Is(err, store.ErrBadOps) {
		f.Fatalf("put of a marked record = %v, want ErrBadOps", err)
	}
	f.want(marked)
}

func testAllOrNothing(f *fixture) {
	root := newRoot(1, "alice")
	a, b := newChild(root), newChild(root)
	f.put(root, a)
	late := next(a)
	late.Version = 7
	// The last one fails; what stands before it must not happen.
	f.conflict(3, late.ID, put(next(root)), put(b), event("never", root), put(late))
	f.want(root)
	f.want(a)
	f.wantNone(b.ID)
	// And all of it happens if nothing fails.
	root2 := next(root)
	f.apply(root.ID, put(root2), put(b), store.Mark(a.ID, now, "gone"), event("all", root))
	f.want(root2)
	f.want(b)
	if got := f.get(a.ID); got.Marked != now || got.Version != 2 {
		f.Fatalf("Get = %+v, want it marked", got)
	}
}

func testConflictNamesOp(f *fixture) {
	root := newRoot(1, "alice")
	a, b, c := newChild(root), newChild(root), newChild(root)
	f.put(root, a, b)
	f.conflict(1, a.ID, put(next(root)), put(newLike(a)), put(c))
	f.conflict(2, b.ID, event("never", root), put(next(root)), put(newLike(b)), put(newLike(a)))
	f.want(root)
	f.wantNone(c.ID)
}

func testBadOps(f *fixture) {
	root, other := newRoot(1, "alice"), newRoot(1, "alice")
	child := newChild(root)
	f.put(root, child)
	f.put(other)
	many := make([]store.Op, store.MaxOps+1)
	for i := range many {
		many[i] = event("never", root)
	}
	marked := next(root)
	marked.Marked = now
	big := next(root)
	big.Payload = make([]byte, store.MaxPayload+1)
	long := next(root)
	long.Client = strings.Repeat("x", store.MaxText+1)
	skip := next(root)
	skip.Version++
	for name, tt := range map[string]struct {
		root store.ID
		ops  []store.Op
	}{
		"no operation":       {root.ID, nil},
		"too many":           {root.ID, many},
		"another root":       {root.ID, []store.Op{put(next(root)), put(next(other))}},
		"mark another root":  {root.ID, []store.Op{put(next(root)), store.Mark(other.ID, now, "")}},
		"twice":              {root.ID, []store.Op{put(next(root)), store.Mark(root.ID, now, "")}},
		"a child as root":    {child.ID, []store.Op{put(next(child))}},
		"no root":            {store.ID{}, []store.Op{store.Emit(store.Event{Type: "x"})}},
		"marked":             {root.ID, []store.Op{store.Put(marked, 1)}},
		"version not next":   {root.ID, []store.Op{store.Put(skip, 1)}},
		"payload":            {root.ID, []store.Op{put(big)}},
		"client":             {root.ID, []store.Op{put(long)}},
		"mark without time":  {root.ID, []store.Op{store.Mark(root.ID, 0, "")}},
		"long reason":        {root.ID, []store.Op{store.Mark(root.ID, now, long.Client)}},
		"event without type": {root.ID, []store.Op{store.Emit(store.Event{ID: root.ID})}},
		"unknown kind":       {root.ID, []store.Op{{Kind: 99, ID: root.ID}}},
	} {
		if err := f.s.Apply(f.ctx, tt.root, tt.ops...); !errors.Is(err, store.ErrBadOps) {
			f.Errorf("%s: Apply = %v, want ErrBadOps", name, err)
		}
	}
	f.want(root)
	f.want(other)
	f.want(child)
}

func testEventsOnly(f *fixture) {
	r := newRoot(1, "alice")
	f.apply(r.ID, event("seen", r)) // of a record that is not there
	f.wantNone(r.ID)
	f.apply(r.ID, store.Emit(store.Event{Type: "of.nothing", At: now}))
}

func testLimits(f *fixture) {
	root := newRoot(1, strings.Repeat("s", store.MaxText))
	root.Client = strings.Repeat("c", store.MaxText)
	root.Payload = make([]byte, store.MaxPayload)
	rs := []*store.Record{root}
	for len(rs) < store.MaxOps {
		c := newChild(root)
		c.Client, c.Payload = root.Client, root.Payload
		rs = append(rs, c)
	}
	f.put(rs...)
	for _, r := range rs {
		f.want(r)
	}
	reason := strings.Repeat("r", store.MaxReason)
	f.apply(root.ID, store.Mark(root.ID, now, reason), store.Emit(store.Event{Type: reason, ID: root.ID, Reason: reason,
		Subject: root.Subject, Detail: root.Client}))
	if got := f.get(root.ID); got.Reason != reason {
		f.Errorf("Reason = %q, want %q", got.Reason, reason)
	}
}
