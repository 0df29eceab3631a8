package pebblestore

import (
	"context"
	"errors"
	"iter"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/afterlogin/afterlogin/store"
)

const now int64 = 1_900_000_000_000

// session returns a new root's record.
func session(n byte, subject string) *store.Record {
	absolute := now + 24*60*60*1000
	id := store.NewRootID(store.BucketOf(absolute), [14]byte{2: n, 13: n}, 1, subject)
	return &store.Record{ID: id, Tenant: 1, Subject: subject, Absolute: absolute, Version: 1, Payload: []byte("data")}
}

func apply(t testing.TB, s *Store, root store.ID, ops ...store.Op) {
	t.Helper()
	if err := s.Apply(t.Context(), root, ops...); err != nil {
		t.Fatalf("Apply = %v", err)
	}
}

func get(t testing.TB, s *Store, id store.ID) *store.Record {
	t.Helper()
	rs, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatalf("Get = %v", err)
	}
	return rs[0]
}

// crash returns the file system as a crash in this moment would leave it, with nothing that was not synced.
func crash(fs *vfs.MemFS) *vfs.MemFS { return fs.CrashClone(vfs.CrashCloneCfg{}) }

// until waits for a condition that another goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		if t.Context().Err() != nil {
			t.Fatal(what)
		}
		runtime.Gosched()
	}
}

// waiting reports how many wait for the root: readers (at least one or none), and writers in the queue.
func (r *roots) waiting(root store.ID) (readers bool, writers int) {
	sh := r.shard(root)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	h := sh.held[root]
	if h == nil {
		return false, 0
	}
	return h.over != nil, len(h.queue)
}

// Pebble shows a write before it is on the disk. While the fsync is held, nobody may be answered from it: not a reader,
// not a list, not a second revocation, not a watcher, not a listener; and nobody else has to wait.
func TestNoAnswerBeforeTheDisk(t *testing.T) {
	mem := vfs.NewCrashableMem()
	fs := newGateFS(mem)
	s := openOn(t, "data", Options{FS: fs})
	r, other := session(1, "alice"), session(2, "alice")
	apply(t, s, r.ID, store.Put(r, 0))
	apply(t, s, other.ID, store.Put(other, 0))
	events, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan store.ID, 10)
	defer s.Notify(func(id store.ID) { told <- id })()

	open := fs.hold()
	defer open()
	revoked := make(chan error, 1)
	go func() {
		revoked <- s.Apply(t.Context(), r.ID, store.Mark(r.ID, now, "signed out"), store.Emit(store.Event{Type: "revoked", ID: r.ID}))
	}()
	<-fs.held
	until(t, "the write is never visible", func() bool {
		seen, err := s.read(r.ID)
		return err == nil && seen.Marked != 0 // Pebble shows it: the premise of all this
	})
	if got := get(t, openOn(t, "data", Options{FS: crash(mem)}), r.ID); got.Marked != 0 {
		t.Fatal("the write is on the disk although its fsync is held: this test tests nothing")
	}

	answered := make(chan string, 10)
	go func() {
		if got := get(t, s, r.ID); got.Marked != 0 {
			answered <- "get"
		}
	}()
	until(t, "Get does not wait", func() bool { readers, _ := s.roots.waiting(r.ID); return readers })
	go func() {
		for l, err := range s.List(t.Context(), store.Query{Tenant: 1, Subject: "alice", After: s.before(r.ID)}) {
			if err == nil && l.ID == r.ID && l.Marked != 0 {
				answered <- "list"
			}
		}
	}()
	go func() {
		if err := s.Apply(t.Context(), r.ID, store.Mark(r.ID, now+1, "again")); err == nil {
			answered <- "mark"
		}
	}()
	until(t, "a second mark does not wait", func() bool { _, writers := s.roots.waiting(r.ID); return writers == 1 })
	go func() {
		for range events {
			answered <- "event"
			return
		}
	}()
	// Others read what is theirs, and a context's end is heeded everywhere.
	if got := get(t, s, other.ID); got == nil {
		t.Error("Get of another root = nothing")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancelled := make(chan error, 3)
	go func() { _, err := s.Get(ctx, r.ID); cancelled <- err }()
	go func() { cancelled <- s.Apply(ctx, r.ID, store.Mark(r.ID, now+2, "third")) }()
	until(t, "a third mark does not wait", func() bool { _, writers := s.roots.waiting(r.ID); return writers == 2 })
	go func() { cancelled <- s.Apply(ctx, other.ID, store.Mark(other.ID, now, "gone")) }()
	until(t, "the other root is not changed", func() bool {
		seen, err := s.read(other.ID)
		return err == nil && seen.Marked != 0
	})
	cancel()
	unknown := 0
	for range 3 {
		err := <-cancelled
		if !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that ended: %v", err)
		}
		if errors.Is(err, store.ErrUnknown) {
			unknown++
		}
	}
	if unknown != 1 {
		t.Errorf("%d outcomes unknown, want that of the change which was on its way", unknown)
	}
	select {
	case what := <-answered:
		t.Fatalf("%s was answered from what is not on the disk", what)
	case err := <-revoked:
		t.Fatalf("Apply = %v before the disk had it", err)
	case id := <-told:
		t.Fatalf("a listener was told of %v", id)
	default:
	}

	open()
	if err := <-revoked; err != nil {
		t.Fatal(err)
	}
	after := openOn(t, "data", Options{FS: crash(mem)})
	if got := get(t, after, r.ID); got.Marked != now {
		t.Errorf("after a crash: %+v, want it marked", got)
	}
	var all []string
	for range 4 {
		all = append(all, <-answered)
	}
	slices.Sort(all)
	if want := []string{"event", "get", "list", "mark"}; !slices.Equal(all, want) {
		t.Errorf("answered %v, want %v", all, want)
	}
	// The change whose caller had gone happened all the same.
	until(t, "the other root is not marked", func() bool { return get(t, s, other.ID).Marked == now })
}

// Nobody waits for a Touch. But an Apply that was in the queue behind it takes the root over, and is waited for.
func TestTouchHandsOver(t *testing.T) {
	fs := newGateFS(vfs.NewCrashableMem())
	s := openOn(t, "data", Options{FS: fs})
	r := session(1, "alice")
	apply(t, s, r.ID, store.Put(r, 0))
	if !s.roots.try(r.ID) { // as Touch does
		t.Fatal("the root is held")
	}
	revoked := make(chan error, 1)
	go func() { revoked <- s.Apply(t.Context(), r.ID, store.Mark(r.ID, now, "signed out")) }()
	until(t, "Apply does not wait", func() bool { _, writers := s.roots.waiting(r.ID); return writers == 1 })
	if got := get(t, s, r.ID); got.Marked != 0 { // and does not wait for a Touch
		t.Fatalf("Get = %+v before the mark", got)
	}
	open := fs.hold()
	defer open()
	s.roots.release(r.ID)
	<-fs.held
	until(t, "the write is never visible", func() bool {
		seen, err := s.read(r.ID)
		return err == nil && seen.Marked != 0
	})
	answered := make(chan *store.Record, 1)
	go func() { answered <- get(t, s, r.ID) }()
	until(t, "Get does not wait", func() bool {
		readers, _ := s.roots.waiting(r.ID)
		return readers || len(answered) > 0
	})
	if len(answered) > 0 {
		t.Fatalf("Get = %+v before the disk had it", <-answered)
	}
	open()
	if err := <-revoked; err != nil {
		t.Fatal(err)
	}
	if got := <-answered; got.Marked != now {
		t.Errorf("Get = %+v, want it marked", got)
	}
}

// before returns an id that sorts just before id.
func (s *Store) before(id store.ID) store.ID {
	b := id.Append(nil)
	for i := len(b) - 1; ; i-- {
		if b[i]--; b[i] != 0xFF {
			break
		}
	}
	o, err := store.ParseID(b)
	if err != nil {
		panic(err)
	}
	return o
}

// What Touch wrote is on the disk a second later, and at once if somebody else's change is.
func TestTouchIsSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewCrashableMem()
		s, err := Open("data", Options{FS: mem})
		if err != nil {
			t.Fatal(err)
		}
		r, other := session(1, "alice"), session(2, "alice")
		apply(t, s, r.ID, store.Put(r, 0))
		touched := func() int64 {
			c, err := Open("data", Options{FS: crash(mem)})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			return get(t, c, r.ID).LastSeen
		}
		touch := func(at int64) {
			if err := s.Touch(t.Context(), []store.Touch{{ID: r.ID, At: at}}); err != nil {
				t.Fatal(err)
			}
			if got := get(t, s, r.ID).LastSeen; got != at {
				t.Fatalf("Get after Touch: last seen %d, want %d", got, at)
			}
		}
		touch(now + 1)
		if got := touched(); got != 0 {
			t.Errorf("a touch was synced at once: last seen %d", got)
		}
		<-time.After(2 * touchSync)
		synctest.Wait()
		if got := touched(); got != now+1 {
			t.Errorf("last seen %d after %v and a crash, want %d", got, 2*touchSync, now+1)
		}
		touch(now + 2)
		apply(t, s, other.ID, store.Put(other, 0))
		if got := touched(); got != now+2 {
			t.Errorf("last seen %d after another change and a crash, want %d", got, now+2)
		}
		touch(now + 3)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := touched(); got != now+3 {
			t.Errorf("last seen %d after Close, want %d", got, now+3)
		}
	})
}

// Close ends every goroutine, watchers' included, and a call that runs is not cut off.
func TestCloseLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	fs := newGateFS(vfs.NewMem())
	s, err := Open("data", Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	seq, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	next, stop := iter.Pull2(seq)
	defer stop()
	r := session(1, "alice")
	apply(t, s, r.ID, store.Put(r, 0), store.Emit(store.Event{Type: "x"}))
	if _, err, _ := next(); err != nil {
		t.Fatal(err)
	}
	open := fs.hold()
	done, closed := make(chan error, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- s.Apply(ctx, r.ID, store.Mark(r.ID, now, "")) }()
	<-fs.held
	cancel() // the caller goes; the change does not
	if err := <-done; !errors.Is(err, store.ErrUnknown) {
		t.Errorf("Apply = %v, want ErrUnknown", err)
	}
	go func() { closed <- s.Close() }()
	<-s.ending
	open()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err, _ := next(); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Watch ends with %v, want ErrClosed", err)
	}
	again := openOn(t, "data", Options{FS: fs})
	if got := get(t, again, r.ID); got.Marked != now {
		t.Errorf("after Close: %+v, want it marked", got)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
