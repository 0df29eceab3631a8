// Package pebblestore keeps records and events in a directory, with Pebble, for one process. It is the store of a
// single server, and needs nothing else to run.
//
// What it answers is on the disk: a change is answered when it has reached the disk, and a record is read back only
// when the change that made it has (see roots.go). Only what Touch writes may be lost, about a second of it. When
// storage fails in a way that leaves memory and disk disagreeing, the process ends.
//
// Start with [Open].
package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/afterlogin/afterlogin/store"
)

// A Store is a store.Store in a directory.
type Store struct {
	dir string
	o   Options
	log *slog.Logger
	db  *pebble.DB

	roots  roots
	events events
	space  space

	pending pending

	// open is held for reading by running calls, and by Close for writing.
	open   sync.RWMutex
	closed bool
	ending chan struct{} // closed when Close begins

	commits  chan *commit // to the applier, closed by Close
	applied  chan *commit // from the applier to the finisher, closed by the applier
	finished chan struct{}
	// spare holds used commits. It is the store's own, because channels do not pass between synctest bubbles.
	spare sync.Pool

	notify notify

	opening atomic.Bool // Open has not returned

	// dead is closed when storage has failed for good; cause says how. From then on every call fails.
	dead     chan struct{}
	deadOnce sync.Once
	cause    atomic.Pointer[error]
}

var _ store.Store = (*Store)(nil)

// errFailed is returned once storage has failed. The process is ending.
var errFailed = errors.New("pebblestore: storage failed")

// fail poisons the store and ends the process. What Pebble shows after such a failure may never have reached the disk.
func (s *Store) fail(err error) {
	s.deadOnce.Do(func() {
		s.cause.Store(&err)
		close(s.dead)
		s.log.Error("store: storage failed, the process ends so that nothing wrong is answered", "dir", s.dir, "err", err)
		s.o.exit(1)
	})
}

func (s *Store) failed() error {
	if err := s.cause.Load(); err != nil {
		return fmt.Errorf("%w: %w", errFailed, *err)
	}
	return nil
}

// enter begins a call. If it returns nil, exit must follow.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.open.RLock()
	err := s.failed()
	if s.closed {
		err = store.ErrClosed
	}
	if err != nil {
		s.open.RUnlock()
	}
	return err
}

func (s *Store) exit() { s.open.RUnlock() }

// Close implements store.Store. It ends the watchers, waits for running calls and for changes whose callers have gone,
// and for the store's goroutines; on a disk that hangs it waits, too. What Touch wrote is on the disk afterwards.
func (s *Store) Close() error {
	s.open.Lock()
	defer s.open.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	s.closed = true
	close(s.ending)
	close(s.commits)
	s.space.stop()
	select {
	case <-s.finished:
	case <-s.dead:
		// Pebble may never return. Its files are left as a crash would leave them.
		return s.failed()
	}
	if err := s.failed(); err != nil {
		return err
	}
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("pebblestore: close %s: %w", s.dir, err)
	}
	return nil
}
