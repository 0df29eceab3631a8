package redisstore

import (
	"slices"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// told calls the listeners. A change of this process is told by the Apply that made it, before it returns; the change
// log brings it once more, and then it is told only if Apply has not come so far, or does not know whether it happened.
type told struct {
	// mu guards everything and is held while the listeners run, so that whoever is told second waits for the first.
	mu        sync.Mutex
	listeners []*func(store.ID)
	own       map[uint64]bool // numbers of Applies that are under way or in doubt; true: the log has told of it
	doubts    []doubt         // those whose outcome is not known, oldest first
	forgotten uint64          // the last number that was taken out of doubts and may yet be heard of
}

type doubt struct {
	number uint64
	at     time.Time
}

const (
	// remembered is for how long a change of this process is kept in mind after its outcome stayed open, and in the outbox.
	remembered = 10 * time.Minute
	maxDoubts  = 100_000
)

// Notify implements store.Store. The calls come one at a time.
func (s *Store) Notify(f func(root store.ID)) (stop func()) {
	t := &s.told
	t.mu.Lock()
	defer t.mu.Unlock()
	l := &f
	t.listeners = append(t.listeners, l)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.listeners = slices.DeleteFunc(t.listeners, func(o *func(store.ID)) bool { return o == l })
	}
}

// call calls the listeners. mu is held.
func (t *told) call(root store.ID) {
	for _, f := range t.listeners {
		(*f)(root)
	}
}

// begin is called before an Apply is sent.
func (t *told) begin(number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.own == nil {
		t.own = make(map[uint64]bool)
	}
	t.own[number] = false
}

// end is called when its outcome is known, or known not to be.
func (t *told) end(number uint64, root store.ID, happened, unknown bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if (happened || unknown) && !t.own[number] {
		t.call(root)
	}
	if !unknown || t.own[number] {
		delete(t.own, number)
		return
	}
	t.doubts = append(t.doubts, doubt{number, time.Now()})
	for len(t.doubts) > maxDoubts || time.Since(t.doubts[0].at) > remembered {
		delete(t.own, t.doubts[0].number)
		t.forgotten = max(t.forgotten, t.doubts[0].number)
		t.doubts = t.doubts[1:]
	}
}

// heard is called for what the change log says: number is 0 for changes of others.
func (t *told) heard(number uint64, root store.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if number != 0 {
		was, ok := t.own[number]
		if was || !ok && number > t.forgotten {
			return
		}
		if ok {
			t.own[number] = true
		}
	}
	t.call(root)
}

// everything tells that anything may have changed.
func (t *told) everything() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.call(store.ID{})
}
