package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/afterlogin/afterlogin/store"
)

// An OpenBulk opens an empty store that no other test sees, as Open does.
type OpenBulk = func(t *testing.T) store.Bulk

// RunBulk tests every sentence of the contract of store.Bulk.
func RunBulk(t *testing.T, open OpenBulk) {
	for _, tt := range []struct {
		name string
		run  func(f *bulk)
	}{
		{"ScanEmpty", testScanEmpty},
		{"ScanEverything", testScanEverything},
		{"ScanGoesOn", testScanGoesOn},
		{"ScanGap", testScanGap},
		{"ScanStops", testScanStops},
		{"ScanBesideChanges", testScanBesideChanges},
		{"ScanOwnership", testScanOwnership},
		{"Load", testLoad},
		{"LoadTwice", testLoadTwice},
		{"LoadTwins", testLoadTwins},
		{"LoadNewerAndOlder", testLoadNewerAndOlder},
		{"LoadMergesSeen", testLoadMergesSeen},
		{"LoadIsFound", testLoadIsFound},
		{"LoadGoesOn", testLoadGoesOn},
		{"LoadMany", testLoadMany},
		{"LoadTooMany", testLoadTooMany},
		{"LoadLarge", testLoadLarge},
		{"LoadIsSilent", testLoadIsSilent},
		{"LoadBesideApply", testLoadBesideApply},
		{"LoadsBesideEachOther", testLoadsBesideEachOther},
		{"BulkContext", testBulkContext},
		{"BulkClosed", testBulkClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b store.Bulk
			f := newFixture(t, func(t *testing.T) store.Store { b = open(t); return b })
			tt.run(&bulk{f, b})
		})
	}
}

// A bulk is a fixture whose store has Scan and Load.
type bulk struct {
	*fixture
	b store.Bulk
}

// scan returns what a scan from since yields, the last version of each record, and where it ended.
func (f *bulk) scan(since store.Cursor) (map[store.ID]*store.Record, store.Cursor) {
	f.Helper()
	got := make(map[store.ID]*store.Record)
	for b, err := range f.b.Scan(f.ctx, since) {
		if err != nil {
			f.Fatalf("Scan(%q): %v", since, err)
		}
		if len(b.Records) == 0 || len(b.Records) > store.MaxLoad || b.Next == "" {
			f.Fatalf("Scan(%q): a batch of %d records, next %q", since, len(b.Records), b.Next)
		}
		for _, r := range b.Records {
			got[r.ID] = r
		}
		since = b.Next
	}
	return got, since
}

// wantScan fails unless a scan yields exactly these records.
func (f *bulk) wantScan(want ...*store.Record) {
	f.Helper()
	got, _ := f.scan("")
	for _, r := range want {
		if !same(got[r.ID], r) {
			f.Fatalf("Scan, record %v\n got %+v\nwant %+v", r.ID, got[r.ID], r)
		}
		delete(got, r.ID)
	}
	for id := range got {
		f.Fatalf("Scan yields %v, which nobody put", id)
	}
}

func (f *bulk) load(rs ...*store.Record) {
	f.Helper()
	if err := f.b.Load(f.ctx, rs); err != nil {
		f.Fatalf("Load(%d records) = %v", len(rs), err)
	}
}

// touched says of a record that it was used.
func touched(r *store.Record, at int64, gen uint32, seen int64) *store.Record {
	r = r.Clone()
	r.LastSeen, r.SeenGen, r.SeenAt = at, gen, seen
	return r
}

// marked returns what a mark makes of a record.
func marked(r *store.Record, at int64, reason string) *store.Record {
	r = r.Clone()
	r.Marked, r.Reason, r.Version = at, reason, r.Version+1
	return r
}

// everything returns records of every kind there is.
func everything() (all []*store.Record) {
	payload := make([]byte, store.MaxPayload)
	rand.Read(payload)
	for i, absolute := range []int64{now + 24*hour, now - 200*hour, now + 400*24*hour, 0} {
		for j, subject := range []string{"alice", "", "bob\x00ünd\n"} {
			root := newRootUntil(uint32(i), subject, absolute)
			until := min(absolute, now+hour)
			child, data := newChildUntil(root, until), newChildUntil(root, absolute)
			data.Kind, data.Subject, data.Client, data.Payload = 'd', "", "", payload
			switch j {
			case 1:
				root = touched(marked(next(root), now+5, "a reason"), now+3, 7, now+2)
				child = marked(child, now+6, "")
			case 2:
				root.Version, root.Payload = 1<<40, nil
				child = touched(child, now+9, 1, now+1)
			}
			all = append(all, root, child, data)
		}
		all = append(all, newSubject(uint32(i), "alice"))
	}
	return all
}

func testScanEmpty(f *bulk) { f.wantScan() }

func testScanEverything(f *bulk) {
	var want []*store.Record
	for i := range 40 {
		root := newRootUntil(uint32(i%3), []string{"alice", "", "carol"}[i%3], now+int64(i-5)*30*hour)
		child, data := newChild(root), newChildUntil(root, root.Absolute)
		data.Payload = make([]byte, store.MaxPayload)
		f.put(root, child, data)
		if i%4 == 0 {
			root = next(root)
			f.put(root)
		}
		if i%5 == 0 {
			f.apply(root.ID, store.Mark(root.ID, now+1, "over"), store.Mark(child.ID, now+2, ""))
			root, child = marked(root, now+1, "over"), marked(child, now+2, "")
		}
		want = append(want, root, child, data)
	}
	forever := newRootUntil(1, "key", 0)
	subject := newSubject(1, "alice")
	f.put(forever)
	f.put(subject)
	if err := f.s.Touch(f.ctx, []store.Touch{{ID: forever.ID, At: now + 4, Gen: 3}}); err != nil {
		f.Fatal(err)
	}
	f.wantScan(append(want, f.get(forever.ID), subject)...)
}

// testScanGoesOn begins a scan anew behind each of its batches.
func testScanGoesOn(f *bulk) {
	var all []*store.Record
	for i := range 3 * store.MaxLoad {
		all = append(all, newRoot(1, fmt.Sprint("s", i%100)))
	}
	for c := range slices.Chunk(all, store.MaxLoad) {
		f.load(c...)
	}
	got, last := make(map[store.ID]*store.Record), store.Cursor("")
	for batches := 0; ; batches++ {
		if batches > len(all) {
			f.Fatal("the scan does not come to its end")
		}
		more := false
		for b, err := range f.b.Scan(f.ctx, last) {
			if err != nil {
				f.Fatalf("Scan(%q): %v", last, err)
			}
			for _, r := range b.Records {
				got[r.ID] = r
			}
			last, more = b.Next, true
			break
		}
		if !more {
			break
		}
	}
	for _, r := range all {
		if !same(got[r.ID], r) {
			f.Fatalf("record %v is not yielded by a scan in parts", r.ID)
		}
	}
	if len(got) != len(all) {
		f.Fatalf("%d records, want %d", len(got), len(all))
	}
}

func testScanGap(f *bulk) {
	r := newRoot(1, "alice")
	f.put(r)
	for _, c := range []store.Cursor{"nonsense", "0", "0102030405060708", "ffffffffffffffff72", "9f\x00", store.Cursor(make([]byte, 300))} {
		n := 0
		for b, err := range f.b.Scan(f.ctx, c) {
			if n++; n > 1 || !errors.Is(err, store.ErrGap) || len(b.Records) > 0 {
				f.Fatalf("Scan(%q) yields %d records, %v; want ErrGap", c, len(b.Records), err)
			}
		}
		if n == 0 {
			f.Fatalf("Scan(%q) yields nothing, want ErrGap", c)
		}
	}
}

func testScanStops(f *bulk) {
	for range 3 {
		rs := make([]*store.Record, store.MaxLoad)
		for i := range rs {
			rs[i] = newRoot(1, "alice")
		}
		f.load(rs...)
	}
	for range f.b.Scan(f.ctx, "") {
		break // whoever stops gets no second batch, and the store no trouble
	}
	got, _ := f.scan("")
	if len(got) != 3*store.MaxLoad {
		f.Fatalf("%d records, want %d", len(got), 3*store.MaxLoad)
	}
}

// testScanBesideChanges scans while others change, make and touch records: what is there all the time is yielded, in one
// of its versions.
func testScanBesideChanges(f *bulk) {
	const n = 2000
	all := make([]*store.Record, n)
	for i := range all {
		all[i] = newRoot(1, fmt.Sprint("s", i%50))
	}
	for c := range slices.Chunk(all, 500) {
		f.load(c...)
	}
	ids := make([]store.ID, n)
	for i, r := range all {
		ids[i] = r.ID
	}
	ctx, stop := context.WithCancel(f.ctx)
	var changing sync.WaitGroup
	fails := make(chan error, 4)
	for w := range 4 {
		changing.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				j := (i*4 + w) % n
				var err error
				switch i % 3 {
				case 0:
					r := next(all[j])
					if err = f.s.Apply(f.ctx, r.ID, put(r)); err == nil {
						all[j] = r // each j is one goroutine's
					}
				case 1:
					r := newRoot(1, "new")
					err = f.s.Apply(f.ctx, r.ID, put(r))
				case 2:
					err = f.s.Touch(f.ctx, []store.Touch{{ID: all[j].ID, At: now + int64(i), Gen: 1}})
				}
				if err != nil {
					fails <- err
					return
				}
			}
		})
	}
	for range 3 {
		got, _ := f.scan("")
		for _, id := range ids {
			if got[id] == nil {
				f.Errorf("record %v was there all the time, and was not yielded", id)
				break
			}
		}
	}
	stop()
	changing.Wait()
	close(fails)
	for err := range fails {
		f.Errorf("beside a scan: %v", err)
	}
	got, _ := f.scan("")
	for _, r := range all {
		if g := got[r.ID]; g == nil || g.Version != r.Version {
			f.Fatalf("record %v is yielded as %+v, want version %d", r.ID, g, r.Version)
		}
	}
}

func testScanOwnership(f *bulk) {
	r := newRoot(1, "alice")
	f.load(r)
	want := r.Clone()
	r.Payload[0]++ // the caller's own
	got, _ := f.scan("")
	got[r.ID].Payload[0] += 2
	f.want(want)
}

func testLoad(f *bulk) {
	all := everything()
	f.load(all...)
	for _, r := range all {
		f.want(r)
	}
	f.wantScan(all...)
	f.load() // nothing
	f.wantScan(all...)
}

func testLoadTwice(f *bulk) {
	all := everything()
	f.load(all...)
	f.load(all...)
	f.load(all[:3]...)
	f.wantScan(all...)
	f.wantList(store.Query{Tenant: 0, Subject: "alice"}, all[0])
}

// testLoadTwins loads two versions of one record at once.
func testLoadTwins(f *bulk) {
	a, b := newRoot(1, "alice"), newRoot(1, "bob")
	f.load(a, next(a), a, next(b), b)
	f.want(next(a))
	f.want(next(b))
	f.wantList(store.Query{Tenant: 1}, next(a), next(b))
}

func testLoadNewerAndOlder(f *bulk) {
	root := newRoot(1, "alice")
	child := newChild(root)
	f.put(root, child)
	second := next(root)
	f.load(second, marked(child, now+1, "over"))
	f.want(second)
	f.want(marked(child, now+1, "over"))
	// The same version stays as it is, and an older one does nothing.
	other := second.Clone()
	other.Payload = []byte("another")
	f.load(other, root, child)
	f.want(second)
	f.want(marked(child, now+1, "over"))
	// A mark is never undone by what is older.
	f.apply(root.ID, store.Mark(root.ID, now+9, "gone"))
	f.load(second, root)
	f.want(marked(second, now+9, "gone"))
	// Versions may jump.
	far := second.Clone()
	far.Version = 1000
	f.load(far)
	f.want(far)
}

func testLoadMergesSeen(f *bulk) {
	root := newRoot(1, "alice")
	f.load(touched(root, now+10, 5, now+8))
	f.load(touched(root, now+20, 4, now+7)) // used later, by an older generation
	f.want(touched(root, now+20, 5, now+8))
	f.load(touched(root, now+15, 6, now+9))
	f.want(touched(root, now+20, 6, now+9))
	f.load(root) // never used
	f.want(touched(root, now+20, 6, now+9))
	f.load(next(root)) // a newer version keeps the store's times
	f.want(touched(next(root), now+20, 6, now+9))
	f.load(touched(root, now+30, 7, now+30)) // and an older one brings later times
	f.want(touched(next(root), now+30, 7, now+30))
}

func testLoadIsFound(f *bulk) {
	var alice, all []*store.Record
	for i := range 300 {
		r := newRootUntil(1, "alice", now+int64(i%50-10)*100*hour)
		if i%3 == 1 {
			r = newRootUntil(1, "", now+int64(i)*hour)
		} else {
			alice = append(alice, r)
		}
		f.load(r, newChild(r))
		all = append(all, r)
	}
	key := newRootUntil(1, "alice", 0)
	over := marked(newRoot(1, "alice"), now, "over")
	elsewhere := newRoot(2, "alice")
	f.load(key, over, elsewhere, newSubject(1, "alice"))
	alice, all = append(alice, key, over), append(all, key, over)
	f.wantList(store.Query{Tenant: 1, Subject: "alice"}, alice...)
	f.wantList(store.Query{Tenant: 1}, all...)
	f.wantList(store.Query{Tenant: 2, Subject: "alice"}, elsewhere)
	// And what was loaded is purged like everything else.
	f.purge(store.NoBucket)
	f.wantList(store.Query{Tenant: 1}, key)
	f.wantScan(key, f.get(store.SubjectID(1, "alice")))
}

// testLoadGoesOn uses records that were loaded as any others.
func testLoadGoesOn(f *bulk) {
	root := newRoot(1, "alice")
	root.Version = 41
	child := newChild(root)
	f.load(root, child)
	f.put(next(root))
	f.want(next(root))
	f.apply(root.ID, store.Mark(root.ID, now, "over"), store.Mark(child.ID, now, "over"))
	f.want(marked(next(root), now, "over"))
	if err := f.s.Apply(f.ctx, root.ID, put(next(root))); !errors.Is(err, store.ErrConflict) {
		f.Fatalf("a put of a version that is over = %v, want ErrConflict", err)
	}
	if err := f.s.Apply(f.ctx, root.ID, store.Put(newRecordLike(root), 0)); !errors.Is(err, store.ErrConflict) {
		f.Fatalf("a new record in the place of a loaded one = %v, want ErrConflict", err)
	}
	other := newRoot(1, "alice")
	f.load(other)
	if err := f.s.Touch(f.ctx, []store.Touch{{ID: other.ID, At: now + 1, Gen: 1}}); err != nil {
		f.Fatal(err)
	}
}

func newRecordLike(r *store.Record) *store.Record {
	c := r.Clone()
	c.Version = 1
	return c
}

func testLoadMany(f *bulk) {
	rs := make([]*store.Record, store.MaxLoad)
	for i := range rs {
		rs[i] = newRoot(uint32(i%2), fmt.Sprint("s", i%10))
	}
	f.load(rs...)
	f.wantScan(rs...)
}

func testLoadTooMany(f *bulk) {
	rs := make([]*store.Record, store.MaxLoad+1)
	for i := range rs {
		rs[i] = newRoot(1, "alice")
	}
	if err := f.b.Load(f.ctx, rs); !errors.Is(err, store.ErrBadOps) {
		f.Fatalf("Load(%d records) = %v, want ErrBadOps", len(rs), err)
	}
	f.wantScan()
}

// testLoadLarge loads and scans records of the greatest size, which together are too much for one batch.
func testLoadLarge(f *bulk) {
	var all []*store.Record
	for range 200 {
		root := newRoot(1, "alice")
		data := newChildUntil(root, root.Absolute)
		data.Payload = make([]byte, store.MaxPayload)
		rand.Read(data.Payload[:100])
		all = append(all, root, data)
	}
	f.load(all...)
	f.wantScan(all...)
}

func testLoadIsSilent(f *bulk) {
	r := newRoot(1, "alice")
	f.put(r)
	var mu sync.Mutex
	called := make(map[store.ID]bool)
	stop := f.s.Notify(func(root store.ID) {
		mu.Lock()
		defer mu.Unlock()
		called[root] = true
	})
	defer stop()
	f.load(next(r), newRoot(1, "bob"))
	f.want(next(r))
	mu.Lock()
	defer mu.Unlock()
	if called[r.ID] {
		f.Errorf("Load calls listeners: %v", slices.Collect(maps.Keys(called)))
	}
}

// testLoadBesideApply loads versions of a record while others change it: no version is lost, and no mark.
func testLoadBesideApply(f *bulk) {
	roots := make([]*store.Record, 20)
	for i := range roots {
		roots[i] = newRoot(1, "alice")
		f.put(roots[i])
	}
	var all sync.WaitGroup
	all.Go(func() {
		for i := range 100 {
			rs := make([]*store.Record, len(roots))
			for j, r := range roots {
				rs[j] = touched(r, now+int64(i), 0, 0)
			}
			if err := f.b.Load(f.ctx, rs); err != nil {
				f.Errorf("Load = %v", err)
			}
		}
	})
	for _, r := range roots {
		all.Go(func() {
			r := next(r)
			if err := f.s.Apply(f.ctx, r.ID, put(r)); err != nil {
				f.Errorf("Apply beside a Load of an older version = %v", err)
			}
			if err := f.s.Apply(f.ctx, r.ID, store.Mark(r.ID, now+1, "over")); err != nil {
				f.Errorf("Mark beside a Load = %v", err)
			}
		})
	}
	all.Wait()
	for _, r := range roots {
		if got := f.get(r.ID); got.Version != 3 || got.Marked != now+1 || string(got.Payload) != string(next(r).Payload) {
			f.Errorf("record %v is of version %d, marked %d; want 3, marked", r.ID, got.Version, got.Marked)
		}
	}
}

// testLoadsBesideEachOther loads the same records from several sides, in several orders.
func testLoadsBesideEachOther(f *bulk) {
	var rs []*store.Record
	for range 50 {
		r := newRoot(1, "alice")
		rs = append(rs, r, newChild(r))
	}
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			mine := slices.Clone(rs)
			if w%2 == 1 {
				slices.Reverse(mine)
			}
			for range 5 {
				if err := f.b.Load(f.ctx, mine); err != nil {
					f.Errorf("Load = %v", err)
				}
			}
		})
	}
	all.Wait()
	f.wantScan(rs...)
}

func testBulkContext(f *bulk) {
	r := newRoot(1, "alice")
	f.put(r)
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	if err := f.b.Load(ctx, []*store.Record{newRoot(1, "bob")}); err == nil {
		f.Error("Load with a context that has ended returns nil")
	}
	n := 0
	for _, err := range f.b.Scan(ctx, "") {
		if n++; err == nil || n > 1 {
			f.Fatal("Scan with a context that has ended goes on")
		}
	}
	if n != 1 {
		f.Error("Scan with a context that has ended yields no error")
	}
}

func testBulkClosed(f *bulk) {
	f.put(newRoot(1, "alice"))
	if err := f.s.Close(); err != nil {
		f.Fatal(err)
	}
	if err := f.b.Load(f.ctx, []*store.Record{newRoot(1, "bob")}); !errors.Is(err, store.ErrClosed) {
		f.Errorf("Load of a closed store = %v, want ErrClosed", err)
	}
	for _, err := range f.b.Scan(f.ctx, "") {
		if !errors.Is(err, store.ErrClosed) {
			f.Errorf("Scan of a closed store = %v, want ErrClosed", err)
		}
	}
}
