// Package storetest is the contract of package store, executable. Every store passes it: a store's own tests are a few
// lines that call [Run], [RunLocal] or [RunModel] with a function that opens an empty store, and then whatever is
// special to that store, such as what it survives.
//
// It also has [Faulty], which makes any store fail in the ways that storage fails, for the tests of whoever uses one.
package storetest

import (
	"context"
	"crypto/rand"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// An Open opens an empty store that no other test sees. The caller closes it; open may close it too, in a t.Cleanup.
type Open = func(t *testing.T) store.Store

// Run tests every sentence of the contract but those about Watch, which [RunWatch] tests, and those about a store that
// one process owns, which [RunLocal] tests.
func Run(t *testing.T, open Open) {
	runAll(t, open, []test{
		{"Put", testPut},
		{"PutConflict", testPutConflict},
		{"PutKeepsSeen", testPutKeepsSeen},
		{"PutKinds", testPutKinds},
		{"PutAnything", testPutAnything},
		{"Mark", testMark},
		{"MarkMissing", testMarkMissing},
		{"MarkedStays", testMarkedStays},
		{"AllOrNothing", testAllOrNothing},
		{"ConflictNamesOp", testConflictNamesOp},
		{"BadOps", testBadOps},
		{"EventsOnly", testEventsOnly},
		{"Get", testGet},
		{"GetSubjectOf", testGetSubjectOf},
		{"Ownership", testOwnership},
		{"Limits", testLimits},
		{"Touch", testTouch},
		{"TouchMarkedOrMissing", testTouchMarkedOrMissing},
		{"TouchMany", testTouchMany},
		{"TouchBesidePut", testTouchBesidePut},
		{"ListSubject", testListSubject},
		{"ListAll", testListAll},
		{"ListAfter", testListAfter},
		{"ListMany", testListMany},
		{"ListNothingElse", testListNothingElse},
		{"ListStops", testListStops},
		{"Purge", testPurge},
		{"PurgeTwice", testPurgeTwice},
		{"Notify", testNotify},
		{"NotifyStop", testNotifyStop},
		{"Context", testContext},
		{"Closed", testClosed},
		{"OneWinner", testOneWinner},
		{"Parallel", testParallel},
		{"OneMoment", testOneMoment},
		{"MarkRace", testMarkRace},
	})
}

// RunLocal tests what the contract asks of a store that one process owns: that Notify's function is called before Apply
// returns. It runs [Run] too.
func RunLocal(t *testing.T, open Open) {
	Run(t, open)
	runAll(t, open, []test{
		{"NotifyBeforeReturn", testNotifyBeforeReturn},
		{"NotifyOfAMarkThatIsThere", testNotifyOfAMarkThatIsThere},
	})
}

type test struct {
	name string
	run  func(f *fixture)
}

func runAll(t *testing.T, open Open, tests []test) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(newFixture(t, open)) })
	}
}

// patience is how long a test waits for what must come. It is generous, because only a failing test waits so long.
const patience = time.Minute

// now is the time of these tests. Stores read no clock, so it may be any.
const now int64 = 1_900_000_000_000

const hour int64 = 60 * 60 * 1000

// A fixture is one test's store, and a short way to use it.
type fixture struct {
	*testing.T
	s   store.Store
	ctx context.Context
}

func newFixture(t *testing.T, open Open) *fixture {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	s := open(t)
	t.Cleanup(func() { s.Close() }) // ErrClosed if the test, or open, closed it
	return &fixture{t, s, ctx}
}

// newRoot returns a new root's record, not yet stored, that expires in a day.
func newRoot(tenant uint32, subject string) *store.Record {
	return newRootUntil(tenant, subject, now+24*hour)
}

// newRootUntil is newRoot with another absolute expiry; zero means none.
func newRootUntil(tenant uint32, subject string, absolute int64) *store.Record {
	var random [14]byte
	rand.Read(random[:])
	r := newRecord(store.NewRootID(store.BucketOf(absolute), random, tenant, subject))
	r.Tenant, r.Subject, r.Absolute = tenant, subject, absolute
	return r
}

// newChild returns a new child's record that expires in an hour.
func newChild(root *store.Record) *store.Record { return newChildUntil(root, now+hour) }

func newChildUntil(root *store.Record, absolute int64) *store.Record {
	var random [6]byte
	rand.Read(random[:])
	r := newRecord(store.NewChildID(root.ID, store.BucketOf(absolute), random))
	r.Kind, r.Tenant, r.Subject, r.Absolute = 'c', root.Tenant, root.Subject, absolute
	return r
}

// newSubject returns a new subject's record.
func newSubject(tenant uint32, subject string) *store.Record {
	r := newRecord(store.SubjectID(tenant, subject))
	r.Kind, r.Tenant, r.Subject = 's', tenant, subject
	return r
}

func newRecord(id store.ID) *store.Record {
	payload := make([]byte, 100)
	rand.Read(payload)
	return &store.Record{ID: id, Kind: 'b', Client: "client", Created: now, Version: 1, Payload: payload}
}

// next returns the record's next version, with another payload.
func next(r *store.Record) *store.Record {
	n := r.Clone()
	n.Version++
	n.Payload = []byte("version " + strings.Repeat("i", int(n.Version%50)))
	return n
}

func put(r *store.Record) store.Op { return store.Put(r, r.Version-1) }

func event(kind string, r *store.Record) store.Op {
	return store.Emit(store.Event{At: now, Type: kind, ID: r.ID, Tenant: r.Tenant, Subject: r.Subject})
}

// put stores the records as they are. All are of the first one's root.
func (f *fixture) put(rs ...*store.Record) {
	f.Helper()
	ops := make([]store.Op, len(rs))
	for i, r := range rs {
		ops[i] = put(r)
	}
	f.apply(rs[0].ID.Root(), ops...)
}

func (f *fixture) apply(root store.ID, ops ...store.Op) {
	f.Helper()
	if err := f.s.Apply(f.ctx, root, ops...); err != nil {
		f.Fatalf("Apply(%v, %d operations) = %v", root, len(ops), err)
	}
}

func (f *fixture) get(id store.ID) *store.Record {
	f.Helper()
	rs, err := f.s.Get(f.ctx, id)
	if err != nil || len(rs) != 1 {
		f.Fatalf("Get(%v) = %d records, %v, want 1", id, len(rs), err)
	}
	return rs[0]
}

// want fails unless the store has exactly this record.
func (f *fixture) want(want *store.Record) {
	f.Helper()
	if got := f.get(want.ID); !same(got, want) {
		f.Fatalf("Get(%v)\n got %+v\nwant %+v", want.ID, got, want)
	}
}

// wantNone fails if the store has the record.
func (f *fixture) wantNone(id store.ID) {
	f.Helper()
	if got := f.get(id); got != nil {
		f.Fatalf("Get(%v) = %+v, want nothing", id, got)
	}
}

func (f *fixture) list(q store.Query) []*store.Record {
	f.Helper()
	var rs []*store.Record
	for r, err := range f.s.List(f.ctx, q) {
		if err != nil {
			f.Fatalf("List(%+v): %v", q, err)
		}
		rs = append(rs, r)
	}
	return rs
}

// same reports whether two records are alike; an empty payload is like none.
func same(a, b *store.Record) bool {
	if a == nil || b == nil {
		return a == b
	}
	a, b = a.Clone(), b.Clone()
	if len(a.Payload) == 0 {
		a.Payload = nil
	}
	if len(b.Payload) == 0 {
		b.Payload = nil
	}
	return reflect.DeepEqual(a, b)
}
