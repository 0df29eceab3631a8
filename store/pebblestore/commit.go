package pebblestore

import (
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/afterlogin/afterlogin/store"
)

// touchSync is how much of what Touch wrote a crash may take.
const touchSync = time.Second

// apply is the goroutine that gives every commit to Pebble, in one order, which is therefore the order of the log, of
// events, and of becoming durable. It does not wait for the disk: finish does, while the next commits come in, and
// Pebble makes all that wait durable with one fsync.
//
// It is a goroutine of its own, and callers only wait for it, because Pebble's commits know no context.
func (s *Store) apply() {
	defer close(s.applied)
	tick := time.NewTicker(touchSync)
	defer tick.Stop()
	unsynced := false // Touch wrote something that no synced commit has followed
	sync := func() {
		c := s.newCommit(store.ID{})
		if err := c.batch.LogData(nil, nil); err != nil {
			s.fail(err)
		}
		s.write(c)
		unsynced = false
	}
	for {
		select {
		case c, ok := <-s.commits:
			if !ok {
				if unsynced {
					sync()
				}
				return
			}
			unsynced = c.lossy // the log is one sequence: what is synced later takes with it what is before
			s.write(c)
		case <-tick.C:
			if unsynced {
				sync()
			}
		}
	}
}

// write gives one commit to Pebble.
func (s *Store) write(c *commit) {
	defer func() {
		// Pebble panics where it cannot go on, mostly with locks held.
		if r := recover(); r != nil {
			s.fail(fmt.Errorf("panic: %v", r))
			c.err = s.failed()
		}
		if c.lossy {
			s.answer(c)
		} else {
			s.applied <- c
		}
	}()
	if c.err = s.failed(); c.err != nil {
		return
	}
	if c.err = s.events.number(c); c.err != nil {
		s.fail(c.err)
		return
	}
	size := c.batch.Len()
	if c.lossy {
		c.err = s.db.Apply(c.batch, pebble.NoSync)
	} else {
		c.err = s.db.ApplyNoSyncWait(c.batch, pebble.Sync)
	}
	if c.err != nil {
		s.fail(c.err)
	}
	s.space.wrote(size)
}

// finish is the goroutine that waits for the disk, and then lets the world know: watchers, listeners, and last the
// caller.
func (s *Store) finish() {
	defer close(s.finished)
	for c := range s.applied {
		if c.err == nil {
			if c.err = c.batch.SyncWait(); c.err != nil {
				s.fail(c.err)
			}
		}
		s.answer(c)
	}
}

// answer ends a commit that is durable, or one that only has to be visible, or one that failed.
func (s *Store) answer(c *commit) {
	// Pebble swallows an error of the log where the logger's Fatalf returns, as it does in tests.
	if err := s.failed(); err != nil && c.err == nil {
		c.err = err
	}
	if c.err != nil {
		// Roots stay held, so that no reader takes what was not written for durable.
		c.done <- fmt.Errorf("%w: %w", store.ErrUnknown, c.err)
		return
	}
	s.events.publish(c)
	if c.changed {
		s.notify.call(c.root)
	}
	if err := c.batch.Close(); err != nil {
		s.log.Warn("store: batch", "err", err)
	}
	c.release()
	c.done <- nil
}
