package afterlogin

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// touchDelay is how long last uses are gathered before they are written together.
const touchDelay = 250 * time.Millisecond

// touchTimeout bounds one writing of last uses.
const touchTimeout = 2 * time.Second

// maxPending bounds what is gathered while the store does not answer.
const maxPending = 100_000

// touchRetry is how long it waits after the store did not take them.
const touchRetry = time.Second

// toucher writes last uses and first sights, behind the requests. What it loses, in a crash or when the store does not
// take it for long, costs a session some idle time or a forgiven lost answer; it never fails a request.
type toucher struct {
	store store.Store
	log   *slog.Logger
	wake  chan bool // true: at once

	// mu guards both maps. pending is what is to be written, writing what is being written; both are laid over what
	// the store says (peek), so that a decision on this node sees every use on this node.
	mu      sync.Mutex
	pending map[store.ID]store.Touch
	writing map[store.ID]store.Touch
	lost    uint64
}

func (t *toucher) stats() TouchStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return TouchStats{Pending: len(t.pending) + len(t.writing), Lost: t.lost}
}

func newToucher(s store.Store, log *slog.Logger) *toucher {
	return &toucher{store: s, log: log, wake: make(chan bool, 1), pending: make(map[store.ID]store.Touch)}
}

// add notes a use. now asks for it to be written without delay: it is the first sight of a generation.
func (t *toucher) add(id store.ID, at int64, gen uint32, now bool) {
	t.mu.Lock()
	old, ok := t.pending[id]
	switch {
	case !ok && len(t.pending) >= maxPending: // the store does not keep up: lose it
		t.lost++
	case !ok || gen > old.Gen: // a first sight keeps its own time
		t.pending[id] = store.Touch{ID: id, At: at, Gen: gen}
	case gen <= old.Gen && at > old.At && !now: // a sight that was not written yet is as of then; no grace is longer for it
		old.At = at
		t.pending[id] = old
	}
	first := len(t.pending) == 1
	t.mu.Unlock()
	if first || now {
		select {
		case t.wake <- now:
		default: // it is awake
		}
	}
}

// peek returns what this node has seen of the record's use and not yet written. It is taken before the record is read
// and applied to it after: the other way round, a write between the two would be missed by both.
func (t *toucher) peek(id store.ID) (uses [2]store.Touch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	uses[0], uses[1] = t.writing[id], t.pending[id]
	return uses
}

// overlay brings a record up to what peek returned.
func overlay(r *store.Record, uses [2]store.Touch) {
	for _, u := range uses {
		if u.At != 0 {
			r.Touch(u)
		}
	}
}

func (t *toucher) run(stopped context.Context) {
	for {
		delay := touchDelay
		select {
		case <-stopped.Done():
			t.flush()
			return
		case now := <-t.wake:
			if now {
				delay = 0
			}
		}
		for {
			select {
			case <-time.After(delay):
			case <-stopped.Done():
			case <-t.wake: // a first sight
			}
			if t.flush() || stopped.Err() != nil {
				break
			}
			delay = touchRetry
		}
	}
}

// flush writes what is pending, a bounded number at a time, and reports whether all of it was taken. What was not is
// pending again. It goes on when the authority is closed, for a moment.
func (t *toucher) flush() bool {
	ctx, cancel := context.WithTimeout(context.Background(), touchTimeout)
	defer cancel()
	t.mu.Lock()
	t.writing, t.pending = t.pending, make(map[store.ID]store.Touch)
	all := t.writing
	t.mu.Unlock()
	var refused []store.Touch
	batch := make([]store.Touch, 0, min(len(all), 512))
	write := func() {
		if err := t.store.Touch(ctx, batch); err != nil {
			t.log.Debug("last uses were not written yet", "count", len(batch), "err", err)
			refused = append(refused, batch...)
		}
		batch = batch[:0]
	}
	for _, touch := range all { // nobody changes writing
		if batch = append(batch, touch); len(batch) == cap(batch) {
			write()
		}
	}
	if len(batch) > 0 {
		write()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, touch := range refused {
		switch _, newer := t.pending[touch.ID]; {
		case newer:
		case len(t.pending) < maxPending:
			t.pending[touch.ID] = touch
		default:
			t.lost++
		}
	}
	t.writing = nil
	return len(refused) == 0
}
