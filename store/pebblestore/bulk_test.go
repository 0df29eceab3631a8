package pebblestore

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/storetest"
)

func TestMemBulk(t *testing.T) {
	storetest.RunBulk(t, func(t *testing.T) store.Bulk { return openOn(t, "data", Options{FS: vfs.NewMem()}) })
}

func TestDiskBulk(t *testing.T) {
	storetest.RunBulk(t, func(t *testing.T) store.Bulk { return openOn(t, t.TempDir(), Options{}) })
}

func sessions(n int) []*store.Record {
	all := make([]*store.Record, n)
	for i := range all {
		all[i] = session(byte(i), fmt.Sprint("s", i))
		id := store.NewRootID(all[i].ID.Bucket(), [14]byte{2: byte(i), 12: byte(i >> 8), 13: byte(i)}, 1, all[i].Subject)
		all[i].ID = id
	}
	return all
}

// What Load has answered is there after a power cut, and a cursor is good in the next life of the process.
func TestLoadIsDurable(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := openOn(t, "data", Options{FS: mem})
	all := sessions(900)
	if err := s.Load(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	var next store.Cursor
	first := 0
	for b, err := range s.Scan(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		next, first = b.Next, len(b.Records)
		break
	}
	again := openOn(t, "data", Options{FS: crash(mem)})
	for _, r := range all {
		if get(t, again, r.ID) == nil {
			t.Fatalf("record %v was loaded, and is gone after a crash", r.ID)
		}
	}
	n := 0
	for range again.List(t.Context(), store.Query{Tenant: 1, Subject: all[7].Subject}) {
		n++
	}
	if n != 1 {
		t.Errorf("%d sessions of a subject after a crash, want 1", n)
	}
	rest := 0
	for b, err := range again.Scan(t.Context(), next) {
		if err != nil {
			t.Fatal(err)
		}
		rest += len(b.Records)
	}
	if first+rest != len(all) || rest == 0 {
		t.Errorf("a scan that goes on in the next life yields %d after %d, want %d in all", rest, first, len(all))
	}
	other := openOn(t, "other", Options{FS: vfs.NewMem()})
	for _, err := range other.Scan(t.Context(), next) {
		if !errors.Is(err, store.ErrGap) {
			t.Errorf("another store's cursor: %v, want ErrGap", err)
		}
	}
}

// A scan yields nothing that is not on the disk yet, and keeps nobody from writing.
func TestScanWaitsForTheDisk(t *testing.T) {
	mem := vfs.NewCrashableMem()
	fs := newGateFS(mem)
	s := openOn(t, "data", Options{FS: fs})
	r := session(1, "alice")
	apply(t, s, r.ID, store.Put(r, 0))
	open := fs.hold()
	done := make(chan error, 1)
	go func() { done <- s.Apply(t.Context(), r.ID, store.Mark(r.ID, now, "over")) }()
	until(t, "the mark is not written", func() bool { m, _ := s.read(r.ID); return m.Marked != 0 })
	got := make(chan *store.Record, 1)
	go func() {
		for b, err := range s.Scan(t.Context(), "") {
			if err != nil {
				t.Error(err)
				break
			}
			got <- b.Records[0]
		}
	}()
	until(t, "nobody waits", func() bool { readers, _ := s.roots.waiting(r.ID); return readers })
	select {
	case <-got:
		t.Error("a record is yielded before it is on the disk")
	default:
	}
	open()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if m := <-got; m.Marked == 0 {
		t.Error("the mark is not yielded")
	}
}
