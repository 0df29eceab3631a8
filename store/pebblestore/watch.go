package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/afterlogin/afterlogin/store"
)

const (
	tailSize   = 1024 // events kept in memory for watchers that keep up
	watchChunk = 256  // events read for a watcher at a time
)

// events numbers the events, knows which are durable, and drops the old ones.
//
// Numbers grow in the order of commits. Within one life of the process they leave none out; from one life to the next
// they jump, so that a number which a crash took with it is never given again.
type events struct {
	id    storeID
	chunk int // how many events are dropped at a time

	// next is the number of the next event, fences the numbers of every chunk-th event kept, the oldest first, and
	// count the number of events since the last fence. All three belong to the applier.
	next   uint64
	fences []uint64
	count  int
	buf    []byte

	// mu guards what follows. It is held for moments only.
	mu      sync.Mutex
	floor   uint64 // events below this number are gone, or about to be
	durable uint64 // the number of the newest durable event, or the one before the first of this life
	tail    []numbered
	grown   chan struct{} // closed when durable grows; nil while nobody waits
}

type numbered struct {
	n uint64
	store.Event
}

// kept is how many chunks the events that are kept stand in, at least.
const kept = 8

// number gives numbers to the commit's events and writes them into its batch, and drops the oldest events if it is
// time. Only the applier calls it.
func (v *events) number(c *commit) error {
	for i := range c.events {
		if v.count%v.chunk == 0 {
			v.fences, v.count = append(v.fences, v.next), 0
		}
		var key [16]byte
		v.buf = appendEvent(v.buf[:0], &c.events[i])
		if err := c.batch.Set(eventKey(key[:0], v.next), v.buf, nil); err != nil {
			return err
		}
		c.last = v.next
		v.next++
		v.count++
	}
	if len(v.fences) <= kept+1 {
		return nil
	}
	// Watchers learn of the new floor before the events are gone: one that reads meanwhile looks at it afterwards.
	from, to := v.fences[0], v.fences[len(v.fences)-kept-1]
	v.fences = slices.Delete(v.fences, 0, len(v.fences)-kept-1)
	v.mu.Lock()
	v.floor = to
	v.mu.Unlock()
	return c.batch.DeleteRange(eventKey(nil, from), eventKey(nil, to), nil)
}

// publish shows the commit's events, which are durable now, to watchers.
func (v *events) publish(c *commit) {
	if len(c.events) == 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	n := c.last - uint64(len(c.events))
	for i := range c.events {
		n++
		if len(v.tail) == 2*tailSize {
			kept := copy(v.tail, v.tail[tailSize:])
			clear(v.tail[kept:])
			v.tail = v.tail[:kept]
		}
		v.tail = append(v.tail, numbered{n, c.events[i]})
	}
	v.durable = c.last
	if v.grown != nil {
		close(v.grown)
		v.grown = nil
	}
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, since store.Cursor) (iter.Seq2[store.Event, error], error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.exit()
	last, err := s.events.start(s.db, since)
	if err != nil {
		return nil, err
	}
	return func(yield func(store.Event, error) bool) {
		last := last // the number of the last event yielded
		for {
			events, grown, err := s.eventsAfter(ctx, last)
			if err != nil {
				yield(store.Event{}, err)
				return
			}
			for _, e := range events {
				e.Cursor = s.events.id.cursor(e.n)
				if last = e.n; !yield(e.Event, nil) {
					return
				}
			}
			if len(events) > 0 {
				continue
			}
			select {
			case <-grown:
			case <-s.ending:
				yield(store.Event{}, store.ErrClosed)
				return
			case <-s.dead:
				yield(store.Event{}, s.failed())
				return
			case <-ctx.Done():
				yield(store.Event{}, ctx.Err())
				return
			}
		}
	}, nil
}

// start returns the number of the event that a cursor names. It is ErrGap if that is not an event the store has.
func (v *events) start(db *pebble.DB, since store.Cursor) (uint64, error) {
	v.mu.Lock()
	floor, durable := v.floor, v.durable
	v.mu.Unlock()
	if since == "" {
		return durable, nil
	}
	n, ok := v.id.parse(since)
	if !ok || n < floor || n > durable {
		return 0, store.ErrGap
	}
	// A store that was restored from a copy has numbers of its own between those that it gave before.
	_, closer, err := db.Get(eventKey(nil, n))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, store.ErrGap
	}
	if err != nil {
		return 0, fmt.Errorf("pebblestore: watch: %w", err)
	}
	return n, closer.Close()
}

// eventsAfter returns durable events behind number n, a chunk at most, and if there are none, a channel that is closed
// when there are.
func (s *Store) eventsAfter(ctx context.Context, n uint64) ([]numbered, <-chan struct{}, error) {
	if err := s.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer s.exit()
	for {
		events, grown, durable, err := s.events.fromTail(n)
		if err != nil || events != nil || grown != nil {
			return events, grown, err
		}
		if events, err = s.readEvents(n, durable); err != nil {
			return nil, nil, err
		}
		if err := s.events.check(n); err != nil {
			return nil, nil, err
		}
		if len(events) > 0 {
			return events, nil, nil
		}
		n = durable // nothing there but numbers that were never given
	}
}

// fromTail returns events behind number n from memory, or a channel to wait on if there are none yet, or neither if
// they have to be read.
func (v *events) fromTail(n uint64) (out []numbered, grown <-chan struct{}, durable uint64, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n >= v.durable {
		if v.grown == nil {
			v.grown = make(chan struct{})
		}
		return nil, v.grown, v.durable, nil
	}
	if n+1 < v.floor {
		return nil, nil, 0, store.ErrGap
	}
	if len(v.tail) == 0 || v.tail[0].n > n+1 {
		return nil, nil, v.durable, nil
	}
	// The tail is of this life of the process, so it leaves no number out.
	rest := v.tail[n+1-v.tail[0].n:]
	return slices.Clone(rest[:min(len(rest), watchChunk)]), nil, v.durable, nil
}

// check reports ErrGap if events behind number n have been dropped.
func (v *events) check(n uint64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n+1 < v.floor {
		return store.ErrGap
	}
	return nil
}

// readEvents reads events behind number n up to number last from the database, a chunk at most.
func (s *Store) readEvents(n, last uint64) ([]numbered, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: eventKey(nil, n+1), UpperBound: eventKey(nil, last+1)})
	if err != nil {
		return nil, fmt.Errorf("pebblestore: watch: %w", err)
	}
	defer it.Close()
	var out []numbered
	for ok := it.First(); ok && len(out) < watchChunk; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, fmt.Errorf("pebblestore: watch: %w", err)
		}
		e, err := parseEvent(v)
		if err != nil {
			return nil, fmt.Errorf("pebblestore: watch: %w", err)
		}
		out = append(out, numbered{binary.BigEndian.Uint64(it.Key()[1:]), e})
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("pebblestore: watch: %w", err)
	}
	return out, nil
}

// notify calls the listeners.
type notify struct {
	// mu guards the listeners and is held while they run.
	mu        sync.Mutex
	listeners []*func(store.ID)
}

// Notify implements store.Store. The calls come before Apply returns, from one goroutine, in the order of the changes.
func (s *Store) Notify(f func(root store.ID)) (stop func()) {
	n := &s.notify
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &f
	n.listeners = append(n.listeners, l)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.listeners = slices.DeleteFunc(n.listeners, func(o *func(store.ID)) bool { return o == l })
	}
}

func (n *notify) call(root store.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.listeners {
		(*f)(root)
	}
}
