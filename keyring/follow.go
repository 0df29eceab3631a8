package keyring

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// How a shared ring comes to read its record: one goroutine reads, and whoever needs to know waits for it.

// follow reads the record when it was changed, when a key is looked for, every Reread, and soon again if that failed.
func (s *shared) follow() {
	defer s.ended.Done()
	t := time.NewTimer(Reread)
	defer t.Stop()
	for {
		if s.again(); s.ring.Err() == nil {
			t.Reset(Reread)
		} else {
			t.Reset(lookEvery)
		}
		for waiting := true; waiting; {
			select {
			case <-t.C:
				waiting = false
			case <-s.wake:
				waiting = false
			case <-s.sought:
				s.mu.Lock()
				t.Reset(max(0, lookEvery-since(s.began)))
				s.mu.Unlock()
			case <-s.ctx.Done():
				return
			}
		}
	}
}

// again reads the record once, and tells those that wait for it.
func (s *shared) again() {
	ctx, cancel := context.WithTimeout(s.ctx, readTimeout)
	defer cancel()
	began := time.Now()
	s.mu.Lock()
	s.began, s.running, s.next = began, s.next, make(chan struct{})
	s.due.Store(false)
	for _, asked := range []chan struct{}{s.wake, s.sought} {
		select {
		case <-asked: // before this read, which serves it
		default:
		}
	}
	s.mu.Unlock()

	c, version, err := s.latest(ctx)
	if err == nil && version == 0 {
		// Somebody emptied the store. Its records are gone with the keys; but nodes that start on it must get the same ones.
		s.log.Error("the keys are gone from the store; they are put back")
		if _, err = s.put(ctx, s.ring, c, 0); err == nil || errors.Is(err, store.ErrConflict) {
			err = nil
			s.mu.Lock()
			s.version = 0 // whoever was first, it is read as a later one
			s.mu.Unlock()
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.ring.now(); err == nil {
		if c := s.ring.contents(); c.due(now) {
			s.ring.set(c.settle(now))
		}
		s.good.Store(&began)
	}
	if err != nil && s.failed == nil && s.ctx.Err() == nil {
		s.log.Warn("the keys cannot be read; those known are used", "err", err)
	} else if err == nil && s.failed != nil {
		s.log.Info("the keys can be read again")
	}
	close(s.running)
	s.failed, s.running = err, nil
}

// due reports whether settle would change anything.
func (c contents) due(now time.Time) bool {
	for _, list := range c.keys {
		if k := list[len(list)-1]; k.State == Next && !now.Before(k.From) {
			return true
		}
	}
	return false
}

// since returns how long ago a moment was, by the clock that says longer: the monotonic one stands still while the machine
// sleeps, and the other one can be set back.
func since(t time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}

func (s *shared) rouse() {
	s.due.Store(true)
	select {
	case s.wake <- struct{}{}:
	default: // a read is due already
	}
}

// refresh sees to it that the record was read within the last second, and returns how that ended: nil or ErrUnavailable.
// It waits for a read that is running or due, and starts one if the last began longer ago.
//
// That is enough for keys that everybody knows for Lead before they are used. A signing key may be used the moment it is
// made; anew demands a read that begins after refresh was called. It comes when lookEvery permits, one for all that wait.
func (s *shared) refresh(ctx context.Context, anew bool) error {
	s.mu.Lock()
	read := s.next
	switch recent := s.running == nil && !s.due.Load() && since(s.began) < lookEvery; {
	case recent && !anew, anew && s.failed != nil: // in the latter case the next read comes within a second anyway
		defer s.mu.Unlock()
		return s.outcome()
	case s.waiting >= maxWaiting:
		s.mu.Unlock()
		return fmt.Errorf("%w: too many wait for a key that is not there", ErrUnavailable)
	case anew:
		select {
		case s.sought <- struct{}{}:
		default: // somebody has asked
		}
	case s.running != nil:
		read = s.running
	default:
		s.rouse()
	}
	s.waiting++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.waiting--
		s.mu.Unlock()
	}()
	late := time.NewTimer(lookEvery + readTimeout)
	defer late.Stop()
	select {
	case <-read:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	case <-s.ctx.Done():
		return fmt.Errorf("%w: the ring was closed", ErrUnavailable)
	case <-late.C:
		return fmt.Errorf("%w: the read takes too long", ErrUnavailable)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outcome()
}

// outcome returns how the last read ended. The caller holds mu.
func (s *shared) outcome() error {
	if s.failed != nil && !errors.Is(s.failed, ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, s.failed)
	}
	return s.failed
}

// stale reports whether the record was not read for so long that a signing key may have been retired without this node
// knowing of it.
func (s *shared) stale() bool { return since(*s.good.Load()) > unread }

// Refresh reads a shared ring's record now, unless that was done within the last second, and returns Err. It does nothing
// for other rings.
func (r *Ring) Refresh() error {
	if r.shared == nil {
		return nil
	}
	return r.shared.refresh(context.Background(), false)
}

// Err returns why a shared ring could not read its record when it last did, at most Reread ago, and nil if it could.
func (r *Ring) Err() error {
	if r.shared == nil {
		return nil
	}
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	return r.shared.failed
}
