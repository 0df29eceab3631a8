package pebblestore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/afterlogin/afterlogin/store"
)

// roots knows which roots are being changed. Whoever changes a root holds it, from before it reads what is there until
// its change is durable.
//
// That serves two ends. Two changes of one root never interleave. And Pebble shows a write before the write is on the
// disk, so a reader reads first and looks here afterwards: a write that it saw was made by a holder, and the holder
// either still holds the root, then the reader waits for it, or has let go, then the write is durable. Looking first
// and reading afterwards would miss a holder that came in between.
//
// Each root is held by itself, so that no root ever waits for another one's fsync; the shards only spread the mutexes.
type roots struct{ shards [256]rootShard }

type rootShard struct {
	busy  atomic.Int32  // how many are held, so that a reader mostly need not take the mutex
	turns atomic.Uint64 // counts takes and releases, so that a reader sees that something happened meanwhile

	mu   sync.Mutex
	held map[store.ID]*hold
	free []*hold

	_ [64]byte // shards do not share a cache line
}

type hold struct {
	queue   []chan struct{} // who wants it next, in order
	over    chan struct{}   // closed when the one who holds it lets go; nil while nobody waits for that
	durable bool            // readers wait for the one who holds it
}

func (r *roots) shard(id store.ID) *rootShard { return &r.shards[byte(id.Hash())] }

// take waits until the root is held by the caller, who must release it. It fails if ctx ends or storage has failed.
func (s *Store) take(ctx context.Context, root store.ID) error {
	r := &s.roots
	sh := r.shard(root)
	sh.mu.Lock()
	h := sh.held[root]
	if h == nil {
		sh.add(root, true)
		sh.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	h.queue = append(h.queue, turn)
	sh.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	case <-s.dead:
		return s.failed() // nobody is served any more
	}
	sh.mu.Lock()
	i := slices.Index(h.queue, turn)
	if i >= 0 {
		h.queue = slices.Delete(h.queue, i, i+1)
	}
	sh.mu.Unlock()
	if i < 0 { // it came to be ours in this instant
		r.release(root)
	}
	return ctx.Err()
}

// try takes the root if nobody holds it. Readers do not wait for such a holder: it is Touch, which promises nothing.
func (r *roots) try(root store.ID) bool {
	sh := r.shard(root)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.held[root] != nil {
		return false
	}
	sh.add(root, false)
	return true
}

// release lets go of a root, and hands it to the next in the queue.
func (r *roots) release(root store.ID) {
	sh := r.shard(root)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	h := sh.held[root]
	sh.turns.Add(1) // before those who waited go on and look at it
	if h.over != nil {
		close(h.over)
		h.over = nil
	}
	if len(h.queue) > 0 {
		h.durable = true
		close(h.queue[0])
		h.queue = slices.Delete(h.queue, 0, 1)
		return
	}
	delete(sh.held, root)
	sh.busy.Add(-1)
	if len(sh.free) < 64 {
		sh.free = append(sh.free, h)
	}
}

// wait returns when whoever holds the root at this moment has let go of it.
func (r *roots) wait(ctx context.Context, dead <-chan struct{}, root store.ID) error {
	sh := r.shard(root)
	if sh.busy.Load() == 0 {
		return nil
	}
	sh.mu.Lock()
	h := sh.held[root]
	if h == nil || !h.durable {
		sh.mu.Unlock()
		return nil
	}
	if h.over == nil {
		h.over = make(chan struct{})
	}
	over := h.over
	sh.mu.Unlock()
	select {
	case <-over:
		return nil
	case <-dead:
		return nil // the caller looks whether storage has failed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// turn returns a number that changes whenever the root is taken or let go, and at other times too.
func (r *roots) turn(root store.ID) uint64 { return r.shard(root).turns.Load() }

// add is called with the mutex held.
func (sh *rootShard) add(root store.ID, durable bool) {
	var h *hold
	if n := len(sh.free); n > 0 {
		h, sh.free = sh.free[n-1], sh.free[:n-1]
	} else {
		h = new(hold)
	}
	h.durable = durable
	if sh.held == nil {
		sh.held = make(map[store.ID]*hold)
	}
	sh.held[root] = h
	sh.busy.Add(1)
	sh.turns.Add(1)
}
