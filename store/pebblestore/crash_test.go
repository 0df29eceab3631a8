package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// A line is the life of one root, changed by one goroutine, one version at a time: each change is one Apply of the root,
// a child, and an event. Every version's content follows from its number, and the last one is a mark.
type line struct {
	root, child store.ID
	n           int // which line

	mu        sync.Mutex
	attempted uint64 // the newest version that was begun
	acked     uint64 // the newest version that was answered
}

const lineEnd = 12 // the version that is the mark

func newLine(rng *rand.Rand, n int) *line {
	absolute := now + rng.Int64N(400*24)*60*60*1000
	var r [14]byte
	for i := range r {
		r[i] = byte(rng.Uint32())
	}
	root := store.NewRootID(store.BucketOf(absolute), r, 1, fmt.Sprint("user", n%5))
	return &line{root: root, child: store.NewChildID(root, store.BucketOf(absolute), [6]byte(r[:6])), n: n}
}

func (l *line) record(id store.ID, v uint64) *store.Record {
	r := &store.Record{ID: id, Tenant: 1, Subject: fmt.Sprint("user", l.n%5), Created: now, Version: v}
	if v == lineEnd {
		r.Marked, r.Reason = now, "end"
		v--
	}
	r.Payload = fmt.Append(nil, "line ", l.n, " version ", v)
	return r
}

// step makes the next version.
func (l *line) step(ctx context.Context, s *Store) error {
	l.mu.Lock()
	l.attempted++
	v := l.attempted
	l.mu.Unlock()
	ops := []store.Op{store.Put(l.record(l.root, v), v-1), store.Put(l.record(l.child, v), v-1)}
	if v == lineEnd {
		ops = []store.Op{store.Mark(l.child, now, "end"), store.Mark(l.root, now, "end")}
	}
	ops = append(ops, store.Emit(store.Event{Type: "step", ID: l.root, At: int64(v)}))
	if err := s.Apply(ctx, l.root, ops...); err != nil {
		return err
	}
	l.mu.Lock()
	l.acked = v
	l.mu.Unlock()
	return nil
}

func (l *line) versions() (acked, attempted uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked, l.attempted
}

// A history is all that was done to a store that crashes again and again, and all that was seen of it.
type history struct {
	*testing.T
	rng   *rand.Rand
	fs    *vfs.MemFS
	lines []*line
	start store.Cursor // before all steps
	last  store.Cursor

	mu     sync.Mutex
	events []store.Event // as the watchers saw them
}

// TestCrashes lets the power fail at random moments while writers run, with any share of what was not synced kept, and
// looks afterwards for everything that was answered, and everything that watchers saw.
func TestCrashes(t *testing.T) {
	crashes, seed := 500, rand.Uint64()
	if os.Getenv(storetest.LongEnv) != "" {
		crashes = 20_000
	}
	t.Logf("seed %d", seed)
	const chain = 10 // crashes of one store
	for i := range crashes / chain {
		h := &history{T: t, rng: rand.New(rand.NewPCG(seed, uint64(i))), fs: vfs.NewCrashableMem()}
		h.begin()
		for range chain {
			h.crash()
			h.verify()
			if t.Failed() {
				t.Fatalf("chain %d", i)
			}
		}
	}
}

func (h *history) open() *Store {
	h.Helper()
	s, err := Open("data", Options{FS: h.fs, CacheSize: 1 << 20})
	if err != nil {
		h.Fatal(err)
	}
	return s
}

func (h *history) begin() {
	s := h.open()
	defer s.Close()
	seq, err := s.Watch(h.Context(), "")
	if err != nil {
		h.Fatal(err)
	}
	apply(h, s, store.SubjectID(1, "x"), store.Emit(store.Event{Type: "start"}))
	for e := range seq {
		h.start = e.Cursor
		break
	}
	h.last = h.start
}

// crash runs writers and a watcher, and crashes in the middle of it.
func (h *history) crash() {
	s := h.open()
	ctx, cancel := context.WithCancel(h.Context())
	defer cancel()
	var writers, watcher sync.WaitGroup
	seq, err := s.Watch(ctx, h.last)
	if err != nil {
		h.Fatalf("Watch(%q) after a crash = %v", h.last, err)
	}
	watcher.Go(func() {
		for e, err := range seq {
			if err != nil {
				return
			}
			h.mu.Lock()
			h.events = append(h.events, e)
			h.mu.Unlock()
		}
	})
	enough := make(chan struct{}, 1000)
	for _, l := range h.six() {
		writers.Go(func() {
			for i := l.attempted; i < lineEnd; i++ {
				if err := l.step(ctx, s); err != nil {
					if ctx.Err() == nil {
						h.Errorf("Apply = %v", err)
					}
					return
				}
				if i%5 == 4 {
					s.Touch(ctx, []store.Touch{{ID: l.root, At: now + 1, Gen: 1}})
				}
				enough <- struct{}{}
			}
		})
	}
	for range h.rng.IntN(40) {
		<-enough
	}
	// What was answered before the crash, and what was begun before it was over.
	h.mu.Lock()
	saw := len(h.events)
	h.mu.Unlock()
	acked := make([]uint64, len(h.lines))
	for i, l := range h.lines {
		acked[i], _ = l.versions()
	}
	h.fs = h.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: h.rng.IntN(101), RNG: h.rng})
	attempted := make([]uint64, len(h.lines))
	for i, l := range h.lines {
		_, attempted[i] = l.versions()
	}
	cancel()
	writers.Wait()
	watcher.Wait()
	if err := s.Close(); err != nil {
		h.Errorf("Close = %v", err)
	}
	h.events = h.events[:saw]
	for i, l := range h.lines {
		l.acked, l.attempted = acked[i], attempted[i]
	}
}

// six returns lines to go on with: up to three that are not over, and new ones.
func (h *history) six() []*line {
	var lines []*line
	for _, i := range h.rng.Perm(len(h.lines)) {
		if l := h.lines[i]; l.acked < lineEnd && len(lines) < 3 {
			lines = append(lines, l)
		}
	}
	for len(lines) < 6 {
		l := newLine(h.rng, len(h.lines))
		h.lines = append(h.lines, l)
		lines = append(lines, l)
	}
	return lines
}

// verify opens what the crash left. Every line is at a version that was begun and not before the one that was answered,
// root, child, index and events together.
func (h *history) verify() {
	s := h.open()
	defer s.Close()
	at := map[store.ID]uint64{}
	for _, l := range h.lines {
		rs, err := s.Get(h.Context(), l.root, l.child)
		if err != nil {
			h.Fatal(err)
		}
		var v, c uint64
		if rs[0] != nil {
			v = rs[0].Version
		}
		if rs[1] != nil {
			c = rs[1].Version
		}
		if v < l.acked || v > l.attempted || v != c {
			h.Errorf("line %d: root at version %d, child at %d; version %d was answered and %d begun", l.n, v, c, l.acked, l.attempted)
			continue
		}
		for i, id := range []store.ID{l.root, l.child} {
			if v == 0 {
				break
			}
			want, got := l.record(id, v), *rs[i]
			if want.Marked != got.Marked || want.Reason != got.Reason || string(want.Payload) != string(got.Payload) {
				h.Errorf("line %d: got %+v, want %+v", l.n, got, want)
			}
		}
		if v > 0 {
			at[l.root] = v
		}
		l.acked, l.attempted = v, v // what was found is durable
	}
	h.verifyIndex(s, at)
	h.verifyEvents(s, at)
}

func (h *history) verifyIndex(s *Store, at map[store.ID]uint64) {
	for _, q := range []store.Query{{Tenant: 1}, {Tenant: 1, Subject: "user1"}} {
		listed := map[store.ID]bool{}
		for r, err := range s.List(h.Context(), q) {
			if err != nil {
				h.Fatal(err)
			}
			listed[r.ID] = true
		}
		for _, l := range h.lines {
			want := at[l.root] > 0 && (q.Subject == "" || l.n%5 == 1)
			if listed[l.root] != want {
				h.Errorf("line %d: listed %v, want %v", l.n, listed[l.root], want)
			}
		}
	}
}

// verifyEvents reads all events. Each line's are 1, 2, 3, … up to its version; those that a watcher saw before are there
// in the same places, and no cursor was given twice.
func (h *history) verifyEvents(s *Store, at map[store.ID]uint64) {
	total := 0
	for _, v := range at {
		total += int(v)
	}
	seen := map[store.ID]uint64{}
	var events []store.Event
	if total > 0 {
		seq, err := s.Watch(h.Context(), h.start)
		if err != nil {
			h.Fatalf("Watch(%q) = %v", h.start, err)
		}
		for e, err := range seq {
			if err != nil {
				h.Fatalf("Watch yields %v after %d events", err, len(events))
			}
			if len(events) > 0 && e.Cursor <= events[len(events)-1].Cursor {
				h.Errorf("cursor %q after %q", e.Cursor, events[len(events)-1].Cursor)
			}
			if seen[e.ID]++; seen[e.ID] != uint64(e.At) {
				h.Errorf("event %d of root %v comes as number %d", e.At, e.ID, seen[e.ID])
			}
			if events = append(events, e); len(events) == total {
				break
			}
		}
	}
	for id, v := range at {
		if seen[id] != v {
			h.Errorf("root %v is at version %d and has %d events", id, v, seen[id])
		}
	}
	byCursor := map[store.Cursor]store.Event{}
	for _, e := range events {
		byCursor[e.Cursor] = e
	}
	for _, e := range h.events {
		if byCursor[e.Cursor] != e {
			h.Errorf("a watcher saw %+v, and after a crash there is %+v", e, byCursor[e.Cursor])
		}
	}
	h.events = slices.Clone(events)
	if len(events) > 0 {
		h.last = events[len(events)-1].Cursor
	}
}

// A cursor beyond the newest event is of a store that lost events, such as one restored from an old copy.
func TestRestoredCopyGivesOtherNumbers(t *testing.T) {
	mem := vfs.NewCrashableMem()
	h := &history{T: t, fs: mem}
	h.begin()
	copyOf := crash(mem)
	cursorOf := func(fs vfs.FS) store.Cursor {
		s := openOn(t, "data", Options{FS: fs})
		defer s.Close()
		seq, err := s.Watch(t.Context(), h.start)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, s, store.SubjectID(1, "x"), store.Emit(store.Event{Type: "after the copy"}))
		for e := range seq {
			return e.Cursor
		}
		return ""
	}
	lost := cursorOf(mem)
	cursorOf(copyOf)
	s := openOn(t, "data", Options{FS: copyOf})
	if _, err := s.Watch(t.Context(), lost); !errors.Is(err, store.ErrGap) {
		t.Errorf("Watch(a cursor of what the copy does not have) = %v, want ErrGap", err)
	}
}
