package storetest

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/afterlogin/afterlogin/store"
)

// heard collects what Notify tells.
type heard struct {
	mu    sync.Mutex
	roots []store.ID
	more  chan struct{}
}

func newHeard() *heard { return &heard{more: make(chan struct{}, 1)} }

func (h *heard) hear(root store.ID) {
	h.mu.Lock()
	h.roots = append(h.roots, root)
	h.mu.Unlock()
	select {
	case h.more <- struct{}{}:
	default:
	}
}

func (h *heard) all() []store.ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.roots)
}

// waitFor waits until there are n roots, and returns them.
func (h *heard) waitFor(f *fixture, n int) []store.ID {
	f.Helper()
	for {
		if all := h.all(); len(all) >= n {
			return all
		}
		select {
		case <-h.more:
		case <-f.ctx.Done():
			f.Fatalf("Notify told of %d changes, want %d", len(h.all()), n)
		}
	}
}

func testNotify(f *fixture) {
	h := newHeard()
	root := newRoot(1, "alice")
	child := newChild(root)
	subject := newSubject(1, "alice")
	f.put(root)
	f.put(child)
	f.put(subject)
	defer f.s.Notify(h.hear)()
	f.apply(root.ID, store.Mark(child.ID, now, ""))
	f.put(next(subject))
	f.put(next(root))
	want := []store.ID{root.ID, subject.ID, root.ID}
	count := func(ids []store.ID, id store.ID) (n int) {
		for _, i := range ids {
			if i == id {
				n++
			}
		}
		return n
	}
	got := h.waitFor(f, len(want))
	if len(got) != len(want) || count(got, root.ID) != 2 || count(got, subject.ID) != 1 {
		f.Fatalf("Notify told of %v, want %v", got, want)
	}
}

// testNotifyBeforeReturn checks that there is no moment at which Apply has returned and f was not called, and that
// what changes nothing is not told.
func testNotifyBeforeReturn(f *fixture) {
	h := newHeard()
	r, bob := newRoot(1, "alice"), newRoot(1, "bob")
	f.put(r)
	f.put(bob)
	defer f.s.Notify(h.hear)()
	n := 0
	told := func(what string) {
		f.Helper()
		n++
		if got := len(h.all()); got != n {
			f.Fatalf("%s: Apply returned after %d calls of Notify's function, want %d", what, got, n)
		}
	}
	f.put(next(r))
	told("put")
	f.apply(r.ID, store.Mark(r.ID, now, ""))
	told("mark")
	f.apply(r.ID, store.Mark(r.ID, now, "")) // it is there: the store may tell of it, and need not
	n = len(h.all())
	f.apply(r.ID, event("x", r))
	f.conflict(0, r.ID, put(r))
	f.touch(store.Touch{ID: r.ID, At: now})
	f.put(next(bob))
	told("nothing, and then a put")

	// Whoever drops a copy when told, and then sees an answered change, never has an older copy.
	var mu sync.Mutex
	fresh := map[store.ID]uint64{}
	defer f.s.Notify(func(root store.ID) {
		mu.Lock()
		defer mu.Unlock()
		delete(fresh, root)
	})()
	r = newRoot(1, "alice")
	f.put(r)
	for range 50 {
		mu.Lock()
		fresh[r.ID] = r.Version
		mu.Unlock()
		r = next(r)
		f.put(r)
		mu.Lock()
		if v, ok := fresh[r.ID]; ok {
			f.Fatalf("version %d is still taken for the newest after version %d was answered", v, r.Version)
		}
		mu.Unlock()
	}
}

func testNotifyStop(f *fixture) {
	a, b := newHeard(), newHeard()
	r := newRoot(1, "alice")
	f.put(r)
	stop := f.s.Notify(a.hear)
	defer f.s.Notify(b.hear)()
	r = next(r)
	f.put(r)
	a.waitFor(f, 1)
	stop()
	stop() // once more does nothing
	f.put(next(r))
	f.put(next(next(r)))
	b.waitFor(f, 3)
	if got := len(a.all()); got != 1 {
		f.Errorf("%d calls, one of them before it was stopped", got)
	}
}

func testContext(f *fixture) {
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	r := newRoot(1, "alice")
	f.put(r)
	if err := f.s.Apply(ctx, r.ID, put(next(r))); !errors.Is(err, context.Canceled) {
		f.Errorf("Apply = %v, want the context's error", err)
	} else if errors.Is(err, store.ErrUnknown) {
		f.Log("Apply began although its context had ended")
	} else {
		f.want(r) // any other error than ErrUnknown means that nothing happened
	}
	if _, err := f.s.Get(ctx, r.ID); !errors.Is(err, context.Canceled) {
		f.Errorf("Get = %v, want the context's error", err)
	}
	for r, err := range f.s.List(ctx, store.Query{Tenant: 1}) {
		if r != nil || !errors.Is(err, context.Canceled) {
			f.Errorf("List yields %v, %v, want the context's error", r, err)
		}
	}
}

func testClosed(f *fixture) {
	r := newRoot(1, "alice")
	f.put(r)
	if err := f.s.Close(); err != nil {
		f.Fatalf("Close = %v", err)
	}
	closed := func(what string, err error) {
		f.Helper()
		if !errors.Is(err, store.ErrClosed) {
			f.Errorf("%s after Close = %v, want ErrClosed", what, err)
		}
	}
	closed("Apply", f.s.Apply(f.ctx, r.ID, put(next(r))))
	_, err := f.s.Get(f.ctx, r.ID)
	closed("Get", err)
	closed("Touch", f.s.Touch(f.ctx, []store.Touch{{ID: r.ID, At: now}}))
	n := 0
	for _, err := range f.s.List(f.ctx, store.Query{Tenant: 1}) {
		closed("List", err)
		n++
	}
	if n != 1 {
		f.Errorf("List after Close yields %d times, want once", n)
	}
	_, err = f.s.Watch(f.ctx, "")
	closed("Watch", err)
	closed("Purge", f.s.Purge(f.ctx, 0))
	closed("Close", f.s.Close())
	f.s.Notify(func(store.ID) {})()
}

// testNotifyOfAMarkThatIsThere checks that an Apply that finds its mark already made does not return before those who
// cached the record were told by the one that made it.
func testNotifyOfAMarkThatIsThere(f *fixture) {
	r := newRoot(1, "alice")
	f.put(r)
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var told atomic.Bool
	defer f.s.Notify(func(store.ID) {
		once.Do(func() {
			close(entered)
			<-release
			told.Store(true)
		})
	})()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.s.Apply(f.ctx, r.ID, store.Mark(r.ID, now, "")); err != nil {
			f.Errorf("Apply = %v", err)
		}
	})
	<-entered
	began := make(chan struct{})
	wg.Go(func() {
		close(began)
		if err := f.s.Apply(f.ctx, r.ID, store.Mark(r.ID, now, "")); err != nil {
			f.Errorf("Apply = %v", err)
		}
		if !told.Load() {
			f.Errorf("the second mark was answered before the first one's listeners had returned")
		}
	})
	<-began
	for range 1000 { // the second one is somewhere between its start and its wait
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
}
