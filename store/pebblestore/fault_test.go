package pebblestore

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/afterlogin/afterlogin/store"
)

// fault is an injector that fails the k-th operation on the file system, and if lasting, all that follow.
type fault struct {
	n, k    atomic.Int64
	tables  bool // counts only operations on tables, that is, those of flushes and of lookups
	lasting bool
	err     error
	failed  atomic.Bool
}

func (f *fault) String() string { return "fault" }

func (f *fault) MaybeError(op errorfs.Op) error {
	if f.tables && !strings.HasSuffix(op.Path, ".sst") {
		return nil
	}
	n := f.n.Add(1) - 1
	if n == f.k.Load() || f.lasting && n > f.k.Load() {
		f.failed.Store(true)
		return f.err
	}
	return nil
}

// ends is an Options.exit: as of a process that ended, nothing more comes of whoever calls it. Pebble counts on that.
func ends(exits *atomic.Int32) func(int) {
	return func(int) {
		exits.Add(1)
		select {}
	}
}

// TestEveryOperationFails fails the first operation on the file system, then the second, and so on, until nothing fails
// any more, and each time does a few things. Whatever was answered, by a change or by a reader, is there afterwards.
//
// Tables are written in a run of its own. Where the log cannot be rotated for a flush, Pebble does not call Fatalf but
// panics and does so with locks held, so that Go ends the process, which is what is wanted but no test can watch.
func TestEveryOperationFails(t *testing.T) {
	for _, tt := range []struct {
		name            string
		tables, lasting bool
		err             error
	}{
		{"once", false, false, errorfs.ErrInjected},
		{"lasting", false, true, errorfs.ErrInjected},
		{"full once", false, false, syscall.ENOSPC},
		{"full", false, true, syscall.ENOSPC},
		{"tables", true, false, errorfs.ErrInjected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for k := int64(0); ; k++ {
				f := &fault{tables: tt.tables, lasting: tt.lasting, err: tt.err}
				f.k.Store(k)
				failOperation(t, f)
				if t.Failed() {
					t.Fatalf("operation %d", k)
				}
				if !f.failed.Load() {
					if k < 5 {
						t.Fatalf("only %d operations", k)
					}
					t.Logf("%d operations", k)
					return
				}
			}
		})
	}
}

func failOperation(t *testing.T, f *fault) {
	mem := vfs.NewCrashableMem()
	var exits atomic.Int32
	s, err := Open("data", Options{FS: errorfs.Wrap(mem, f), CacheSize: 1 << 20, exit: ends(&exits)})
	known := map[store.ID]*store.Record{} // what was answered last
	r := session(1, "alice")
	if err == nil {
		step := func(what string, want *store.Record, ops ...store.Op) bool {
			if err := s.Apply(t.Context(), r.ID, ops...); err == nil {
				if want == nil { // the mark, of whatever was there
					want = known[r.ID].Clone()
					want.Version, want.Marked = want.Version+1, now
				}
				known[r.ID] = want
			} else if !f.failed.Load() {
				t.Errorf("%s without a fault = %v", what, err)
			}
			rs, err := s.Get(t.Context(), r.ID)
			if err != nil {
				return false
			}
			if known[r.ID] != nil && (rs[0] == nil || rs[0].Version < known[r.ID].Version) {
				t.Errorf("%s: Get = %+v after %+v was answered", what, rs[0], known[r.ID])
			}
			known[r.ID] = rs[0]
			return true
		}
		ok := step("create", r, store.Put(r, 0), store.Emit(store.Event{Type: "x"}))
		for v := uint64(2); ok && v < 6; v++ {
			n := r.Clone()
			n.Version = v
			ok = step("put", n, store.Put(n, v-1), store.Emit(store.Event{Type: "x"}))
			if v == 3 && f.tables {
				// Files are written, too.
				flushed := make(chan struct{})
				go func() {
					defer close(flushed)
					if done, err := s.db.AsyncFlush(); err == nil {
						<-done
					}
					s.Purge(t.Context(), store.BucketOf(now)-1)
				}()
				select {
				case <-flushed:
				case <-s.dead:
					ok = false
				}
			}
		}
		if ok {
			step("mark", nil, store.Mark(r.ID, now, "gone"))
		}
		s.Close()
	}
	if exits.Load() > 1 {
		t.Errorf("the process was ended %d times", exits.Load())
	}
	after, err := Open("data", Options{FS: crash(mem), CacheSize: 1 << 20})
	if err != nil {
		t.Fatalf("Open after a crash = %v", err)
	}
	defer after.Close()
	got := get(t, after, r.ID)
	if want := known[r.ID]; want != nil && (got == nil || got.Version < want.Version || want.Marked != 0 && got.Marked == 0) {
		t.Errorf("after a crash %+v, and %+v was answered", got, want)
	}
}

// A full disk under the write-ahead log: the process ends, and what did not reach the disk is read by nobody.
func TestNoPhantom(t *testing.T) {
	mem := vfs.NewCrashableMem()
	var full atomic.Bool
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		write := op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
		if full.Load() && write && strings.HasSuffix(op.Path, ".log") {
			return syscall.ENOSPC
		}
		return nil
	}))
	exits := make(chan int, 1)
	s, err := Open("data", Options{FS: fs, exit: func(code int) { exits <- code; select {} }})
	if err != nil {
		t.Fatal(err)
	}
	seq, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	r := session(1, "alice")
	apply(t, s, r.ID, store.Put(r, 0))
	full.Store(true)
	err = s.Apply(t.Context(), r.ID, store.Mark(r.ID, now, "gone"), store.Emit(store.Event{Type: "gone"}))
	if !errors.Is(err, store.ErrUnknown) {
		t.Errorf("Apply = %v, want ErrUnknown", err)
	}
	if code := <-exits; code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	full.Store(false)
	if rs, err := s.Get(t.Context(), r.ID); err == nil {
		t.Errorf("Get from a store that failed = %+v", rs)
	}
	for r, err := range s.List(t.Context(), store.Query{Tenant: 1}) {
		if err == nil {
			t.Errorf("List of a store that failed yields %+v", r)
		}
	}
	for e, err := range seq {
		if err == nil {
			t.Errorf("Watch of a store that failed yields %+v", e)
		}
		break
	}
	if err := s.Apply(t.Context(), r.ID, store.Mark(r.ID, now, "gone")); err == nil {
		t.Error("Apply to a store that failed = nil")
	}
	if err := s.Touch(t.Context(), []store.Touch{{ID: r.ID, At: now}}); err == nil {
		t.Error("Touch of a store that failed = nil")
	}
	if err := s.Close(); err == nil {
		t.Error("Close of a store that failed = nil")
	}
	if got := get(t, openOn(t, "data", Options{FS: crash(mem)}), r.ID); got == nil || got.Marked != 0 {
		t.Errorf("after a restart: %+v, want it as it was", got)
	}
}
