package storetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"

	"github.com/afterlogin/afterlogin/store"
)

// RunWatch tests what the contract says of Watch.
func RunWatch(t *testing.T, open Open) {
	runAll(t, open, []test{
		{"Order", testWatchOrder},
		{"Content", testWatchContent},
		{"Zero", testWatchZero},
		{"Resume", testWatchResume},
		{"OnlyWhatHappened", testWatchOnlyWhatHappened},
		{"UnknownCursor", testWatchUnknownCursor},
		{"ForeignCursor", func(f *fixture) { testWatchForeignCursor(f, newFixture(f.T, open)) }},
		{"Context", testWatchContext},
		{"Close", testWatchClose},
		{"Many", testWatchMany},
		{"JoinUnderLoad", testWatchJoinUnderLoad},
	})
}

// A watcher pulls events one at a time.
type watcher struct {
	f    *fixture
	next func() (store.Event, error, bool)
}

// watch begins to watch. The watcher ends with the test.
func (f *fixture) watch(since store.Cursor) *watcher {
	f.Helper()
	ctx, cancel := context.WithCancel(f.ctx)
	seq, err := f.s.Watch(ctx, since)
	if err != nil {
		cancel()
		f.Fatalf("Watch(%q) = %v", since, err)
	}
	next, stop := iter.Pull2(seq)
	f.Cleanup(func() { cancel(); stop() })
	return &watcher{f, next}
}

// event returns the next event.
func (w *watcher) event() store.Event {
	w.f.Helper()
	e, err, ok := w.next()
	if !ok || err != nil {
		w.f.Fatalf("Watch yields %v, %v, want an event", err, ok)
	}
	if e.Cursor == "" {
		w.f.Fatalf("Watch yields %+v, without a cursor", e)
	}
	return e
}

// want fails unless the next events are of these types.
func (w *watcher) want(types ...string) (last store.Cursor) {
	w.f.Helper()
	for _, want := range types {
		e := w.event()
		if e.Type != want {
			w.f.Fatalf("Watch yields %+v, want type %s", e, want)
		}
		last = e.Cursor
	}
	return last
}

func testWatchOrder(f *fixture) {
	w := f.watch("")
	a, b := newRoot(1, "alice"), newRoot(2, "bob")
	f.apply(a.ID, put(a), event("a1", a))
	f.apply(b.ID, put(b), event("b1", b), event("b2", b), event("b3", b))
	f.apply(a.ID, event("a2", a), put(next(a)), event("a3", a))
	f.apply(b.ID, store.Mark(b.ID, now, ""), event("b4", b))
	w.want("a1", "b1", "b2", "b3", "a2", "a3", "b4")
}

func testWatchContent(f *fixture) {
	w := f.watch("")
	root := newRoot(7, "alice")
	subject := store.SubjectID(7, "alice")
	for _, e := range []store.Event{
		{Type: "full", At: now, ID: newChild(root).ID, Tenant: 7, Subject: "alice\x00\xff", Reason: "be\ncause", Detail: "søren's"},
		{Type: "bare", ID: root.ID},
		{Type: "of.nothing", At: -1, Tenant: 1<<32 - 1},
	} {
		f.apply(root.ID, store.Emit(e))
		got := w.event()
		got.Cursor = ""
		if got != e {
			f.Errorf("Watch yields\n got %+v\nwant %+v", got, e)
		}
	}
	f.apply(subject, store.Emit(store.Event{Type: "subject", ID: subject}))
	if got := w.event(); got.ID != subject {
		f.Errorf("Watch yields %+v, want id %v", got, subject)
	}
}

func testWatchZero(f *fixture) {
	r := newRoot(1, "alice")
	f.apply(r.ID, put(r), event("before", r))
	w := f.watch("")
	f.apply(r.ID, event("after", r))
	w.want("after")
	// Watch counts, not the first look at what it returned.
	v := f.watch("")
	f.apply(r.ID, event("later", r))
	w.want("later")
	v.want("later")
}

func testWatchResume(f *fixture) {
	r := newRoot(1, "alice")
	w := f.watch("")
	var types []string
	var cursors []store.Cursor
	for i := range 300 {
		types = append(types, fmt.Sprint("e", i))
		f.apply(r.ID, event(types[i], r))
		cursors = append(cursors, w.want(types[i]))
	}
	for _, i := range []int{0, 1, 42, 255, 256, 257, 298} {
		v := f.watch(cursors[i])
		if last := v.want(types[i+1:]...); last != cursors[299] {
			f.Errorf("an event has cursor %q for one watcher, %q for another", last, cursors[299])
		}
	}
	end := f.watch(cursors[299])
	f.apply(r.ID, event("new", r))
	end.want("new")
}

func testWatchOnlyWhatHappened(f *fixture) {
	w := f.watch("")
	r := newRoot(1, "alice")
	f.put(r)
	f.conflict(1, r.ID, event("never", r), put(r))
	if err := f.s.Apply(f.ctx, r.ID, store.Mark(newChild(r).ID, now, ""), event("never", r)); !errors.Is(err, store.ErrNotFound) {
		f.Errorf("Apply = %v, want ErrNotFound", err)
	}
	f.touch(store.Touch{ID: r.ID, At: now, Gen: 1})
	f.purge(0)
	f.apply(r.ID, store.Mark(r.ID, now, ""), event("marked", r))
	f.apply(r.ID, store.Mark(r.ID, now, ""), event("marked again", r))
	w.want("marked", "marked again")
}

// wantGap fails unless watching from the cursor tells that events are missing.
func (f *fixture) wantGap(since store.Cursor) {
	f.Helper()
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	seq, err := f.s.Watch(ctx, since)
	if err == nil {
		for _, err = range seq {
			break
		}
	}
	if !errors.Is(err, store.ErrGap) {
		f.Errorf("Watch(%q) = %v, want ErrGap", since, err)
	}
}

func testWatchUnknownCursor(f *fixture) {
	f.wantGap("nonsense")
	f.wantGap("0")
	f.wantGap("99999999999999999999999")
	w := f.watch("")
	r := newRoot(1, "alice")
	f.apply(r.ID, event("one", r))
	c := w.want("one")
	f.wantGap(c + "x")
	f.wantGap(c + "0")
	f.wantGap("x" + c)
	f.wantGap("18446744073709551615")
}

// testWatchForeignCursor gives one store's cursors to another, which has events of its own: a cursor that was kept
// while its store was replaced must not be taken for a place in the new one.
func testWatchForeignCursor(f, other *fixture) {
	w := other.watch("")
	r := newRoot(1, "alice")
	for range 10 {
		f.apply(r.ID, event("here", r))
	}
	for range 5 {
		other.apply(r.ID, event("there", r))
		f.wantGap(w.want("there"))
	}
}

func testWatchContext(f *fixture) {
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	seq, err := f.s.Watch(ctx, "")
	if err != nil {
		f.Fatal(err)
	}
	r := newRoot(1, "alice")
	f.apply(r.ID, event("one", r))
	f.apply(r.ID, event("two", r))
	n, ends := 0, 0
	for e, err := range seq {
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				f.Errorf("Watch yields %v, want context.Canceled", err)
			}
			ends++
			continue
		}
		if n++; e.Type == "two" {
			cancel() // with the watcher at the end, so that it has to wake up
		}
	}
	if n != 2 || ends != 1 {
		f.Errorf("Watch yields %d events and %d errors, want 2 and 1", n, ends)
	}
	if seq, err := f.s.Watch(ctx, ""); err == nil {
		for _, err = range seq {
			break
		}
		if !errors.Is(err, context.Canceled) {
			f.Errorf("Watch with a context that has ended = %v", err)
		}
	}
}

func testWatchClose(f *fixture) {
	seq, err := f.s.Watch(f.ctx, "")
	if err != nil {
		f.Fatal(err)
	}
	ended := make(chan error)
	began := make(chan struct{}, 1)
	go func() {
		var last error
		for e, err := range seq {
			if last = err; e.Type != "" {
				began <- struct{}{}
			}
		}
		ended <- last
	}()
	r := newRoot(1, "alice")
	f.apply(r.ID, event("one", r))
	<-began
	if err := f.s.Close(); err != nil {
		f.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			f.Error("Watch ends without an error when the store is closed")
		}
	case <-f.ctx.Done():
		f.Error("Watch goes on after Close")
	}
}

// seen is what one watcher saw: every event's root and version, in order.
type seen struct {
	events []store.Event
	err    error
}

// collect watches until it has n events.
func (f *fixture) collect(seq iter.Seq2[store.Event, error], n int) *seen {
	s := &seen{}
	for e, err := range seq {
		if err != nil {
			s.err = err
			break
		}
		if s.events = append(s.events, e); len(s.events) == n {
			break
		}
	}
	return s
}

// check fails unless the watcher saw these numbers of changes of each root, none left out, each root's in order.
func (s *seen) check(t testing.TB, first map[store.ID]int) {
	t.Helper()
	if s.err != nil {
		t.Errorf("Watch yields %v after %d events", s.err, len(s.events))
		return
	}
	at := map[store.ID]int{}
	for _, e := range s.events {
		want, ok := at[e.ID]
		if !ok {
			want = first[e.ID]
		}
		if e.Detail != fmt.Sprint(want) {
			t.Errorf("Watch yields change %s of root %v, want %d", e.Detail, e.ID, want)
			return
		}
		at[e.ID] = want + 1
	}
}

// changeAll has goroutines that each make n changes of a root of their own, with an event that tells the number.
func (f *fixture) changeAll(wg *sync.WaitGroup, goroutines, n int) {
	for range goroutines {
		wg.Go(func() {
			r := newRoot(1, "alice")
			r.Version = 0
			for i := range n {
				r = next(r)
				e := store.Emit(store.Event{Type: "changed", ID: r.ID, Detail: fmt.Sprint(i)})
				if err := f.s.Apply(f.ctx, r.ID, put(r), e); err != nil {
					f.Errorf("Apply = %v", err)
					return
				}
			}
		})
	}
}

// testWatchMany has watchers beside many changes. All see all, and in the same order.
func testWatchMany(f *fixture) {
	const goroutines, changes, watchers = 16, 100, 4
	all := make([]*seen, watchers)
	var watching, changing sync.WaitGroup
	for i := range all {
		seq, err := f.s.Watch(f.ctx, "")
		if err != nil {
			f.Fatal(err)
		}
		watching.Go(func() { all[i] = f.collect(seq, goroutines*changes) })
	}
	f.changeAll(&changing, goroutines, changes)
	changing.Wait()
	watching.Wait()
	for _, s := range all {
		s.check(f, nil)
	}
	for i := range all[0].events {
		for _, s := range all[1:] {
			if len(s.events) != len(all[0].events) || s.events[i] != all[0].events[i] {
				f.Fatalf("two watchers disagree on event %d", i)
			}
		}
	}
	// Who comes later, with any of the cursors, sees the same.
	for _, i := range []int{0, 700, 1500} {
		seq, err := f.s.Watch(f.ctx, all[0].events[i].Cursor)
		if err != nil {
			f.Fatal(err)
		}
		got := f.collect(seq, goroutines*changes-1-i)
		for j, e := range got.events {
			if e != all[0].events[i+1+j] {
				f.Fatalf("a later watcher disagrees on event %d", i+1+j)
			}
		}
	}
}

// testWatchJoinUnderLoad begins to watch while changes are made: whatever is answered after Watch returned is seen.
func testWatchJoinUnderLoad(f *fixture) {
	const goroutines, changes, watchers = 8, 100, 20
	var changing, watching sync.WaitGroup
	f.changeAll(&changing, goroutines, changes)
	for range watchers {
		ctx, cancel := context.WithCancel(f.ctx)
		defer cancel()
		seq, err := f.s.Watch(ctx, "")
		if err != nil {
			f.Fatal(err)
		}
		r := newRoot(2, "bob")
		f.apply(r.ID, event("mine", r)) // after Watch returned, so it must come
		watching.Go(func() {
			last := map[store.ID]string{}
			for e, err := range seq {
				if err != nil {
					f.Errorf("Watch yields %v before the event that came after it", err)
					return
				}
				if e.ID == r.ID {
					return
				}
				var was, is int
				if l, ok := last[e.ID]; ok {
					fmt.Sscan(l, &was)
					if fmt.Sscan(e.Detail, &is); e.Type == "changed" && is != was+1 {
						f.Errorf("Watch yields change %d of a root after %d", is, was)
					}
				}
				last[e.ID] = e.Detail
			}
		})
	}
	changing.Wait()
	watching.Wait()
}
