// Package memstore is the reference store: records and events in maps, gone when the process ends. Its code is the
// contract of package store made executable, and the model that other stores are tested against.
//
// It is good for tests, for demonstrations, and for an application that may forget all sessions at a restart. Start
// with [New].
package memstore

import (
	"context"
	"crypto/rand"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/afterlogin/afterlogin/store"
)

// retain is how many events are kept for watchers that are behind.
const retain = 1 << 16

// A Store is a store.Store in memory.
type Store struct {
	// life stands in front of cursors: one that was kept from an earlier life of the program is no place in this one.
	life string

	// mu guards everything below. It is held for the whole of every call but Watch's iteration, so that the store is
	// linearizable for free.
	mu       sync.RWMutex
	records  map[store.ID]*store.Record // never changed in place: replaced
	subjects map[subject]map[store.ID]struct{}
	events   []store.Event // events[i] is number first+i
	first    uint64
	grown    chan struct{} // closed and replaced when an event is added or the store is closed
	closed   bool

	// notifyMu guards the listeners and is held while they run. It is never taken while mu is held.
	notifyMu  sync.Mutex
	listeners map[int]func(store.ID)
	listener  int
}

type subject struct {
	tenant uint32
	name   string
}

var _ store.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	return &Store{
		life:      rand.Text() + "-",
		records:   make(map[store.ID]*store.Record),
		subjects:  make(map[subject]map[store.ID]struct{}),
		first:     1,
		grown:     make(chan struct{}),
		listeners: make(map[int]func(store.ID)),
	}
}

// Apply implements store.Store.
func (s *Store) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if err := store.CheckOps(root, ops); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.commit(ops); err != nil {
		return err
	}
	for i := range ops {
		if ops[i].Kind == store.OpMark || ops[i].Kind == store.OpPut && ops[i].Expect != 0 {
			s.notify(root)
			break
		}
	}
	return nil
}

// notify calls the listeners, also for a mark that was there already: whoever made it may not have come so far yet, and
// this Apply, too, promises that nothing older is left.
func (s *Store) notify(root store.ID) {
	s.notifyMu.Lock()
	defer s.notifyMu.Unlock()
	for _, f := range s.listeners {
		f(root)
	}
}

// commit makes the changes under the lock.
func (s *Store) commit(ops []store.Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	next := make([]*store.Record, len(ops)) // what each operation makes; nil for one that changes nothing
	for i := range ops {
		if ops[i].Kind == store.OpEvent {
			continue
		}
		old := s.records[ops[i].ID]
		r, err := ops[i].Next(i, old)
		if err != nil {
			return err
		}
		if r != old {
			next[i] = r
		}
	}
	for i := range ops {
		if r := next[i]; r != nil {
			s.records[r.ID] = r
			s.index(r)
		}
		if ops[i].Kind == store.OpEvent {
			s.append(ops[i].Event)
		}
	}
	return nil
}

func (s *Store) index(r *store.Record) {
	if !r.ID.IsRoot() {
		return
	}
	k := subject{r.Tenant, r.Subject}
	if s.subjects[k] == nil {
		s.subjects[k] = make(map[store.ID]struct{})
	}
	s.subjects[k][r.ID] = struct{}{}
}

func (s *Store) append(e store.Event) {
	e.Cursor = store.Cursor(s.life + strconv.FormatUint(s.first+uint64(len(s.events)), 10))
	s.events = append(s.events, e)
	if len(s.events) >= 2*retain {
		drop := len(s.events) - retain
		s.events = slices.Clone(s.events[drop:])
		s.first += uint64(drop)
	}
	close(s.grown)
	s.grown = make(chan struct{})
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, store.ErrClosed
	}
	out := make([]*store.Record, len(ids))
	for i, id := range ids {
		if id.IsSubjectOf() {
			r := s.records[id.Root()]
			if r == nil || r.Subject == "" {
				continue
			}
			id = store.SubjectID(r.Tenant, r.Subject)
		}
		if r := s.records[id]; r != nil {
			out[i] = r.Clone()
		}
	}
	return out, nil
}

// Touch implements store.Store.
func (s *Store) Touch(ctx context.Context, touches []store.Touch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	for _, t := range touches {
		old := s.records[t.ID]
		if old == nil {
			continue
		}
		r := *old // the payload is shared: neither copy changes it
		if r.Touch(t) {
			s.records[t.ID] = &r
		}
	}
	return nil
}

// List implements store.Store. It copies the ids of the subject first; the records it reads one by one.
func (s *Store) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		ids, err := s.ids(q)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, id := range ids {
			r, err := s.Get(ctx, id)
			if err != nil {
				yield(nil, err)
				return
			}
			if r[0] != nil && !yield(r[0], nil) {
				return
			}
		}
	}
}

func (s *Store) ids(q store.Query) ([]store.ID, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, store.ErrClosed
	}
	var ids []store.ID
	for k, roots := range s.subjects {
		if k.tenant != q.Tenant || q.Subject != "" && q.Subject != k.name {
			continue
		}
		for id := range roots {
			if id.Compare(q.After) > 0 {
				ids = append(ids, id)
			}
		}
	}
	slices.SortFunc(ids, store.ID.Compare)
	return ids, nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, since store.Cursor) (iter.Seq2[store.Event, error], error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, store.ErrClosed
	}
	next := s.first + uint64(len(s.events))
	if since != "" {
		number, ours := strings.CutPrefix(string(since), s.life)
		n, err := strconv.ParseUint(number, 10, 64)
		if !ours || err != nil || n >= next {
			return nil, store.ErrGap
		}
		next = n + 1
	}
	return func(yield func(store.Event, error) bool) {
		for {
			events, grown, err := s.eventsFrom(next)
			if err != nil {
				yield(store.Event{}, err)
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			next += uint64(len(events))
			if len(events) > 0 {
				continue
			}
			select {
			case <-grown:
			case <-ctx.Done():
				yield(store.Event{}, ctx.Err())
				return
			}
		}
	}, nil
}

// eventsFrom returns up to 256 events from number n on, and a channel that is closed when there are more.
func (s *Store) eventsFrom(n uint64) ([]store.Event, <-chan struct{}, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.closed:
		return nil, nil, store.ErrClosed
	case n < s.first:
		return nil, nil, store.ErrGap
	}
	rest := s.events[n-s.first:]
	return slices.Clone(rest[:min(len(rest), 256)]), s.grown, nil
}

// Notify implements store.Store. The calls come before Apply returns.
func (s *Store) Notify(f func(root store.ID)) (stop func()) {
	s.notifyMu.Lock()
	defer s.notifyMu.Unlock()
	n := s.listener
	s.listener++
	s.listeners[n] = f
	return func() {
		s.notifyMu.Lock()
		defer s.notifyMu.Unlock()
		delete(s.listeners, n)
	}
}

// Purge implements store.Store.
func (s *Store) Purge(ctx context.Context, b store.Bucket) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	for id, r := range s.records {
		if id.Bucket() > b || id.Bucket() == store.NoBucket {
			continue
		}
		delete(s.records, id)
		k := subject{r.Tenant, r.Subject}
		delete(s.subjects[k], id)
		if len(s.subjects[k]) == 0 {
			delete(s.subjects, k)
		}
	}
	return nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	s.closed = true
	close(s.grown)
	s.grown = make(chan struct{})
	return nil
}
