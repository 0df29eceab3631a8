package pebblestore

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// ErrStalled is what Writable reports while the disk does not answer.
var ErrStalled = errors.New("pebblestore: the disk does not answer")

// stallAfter is for how long changes may wait without one of them reaching the disk.
const stallAfter = 5 * time.Second

// Writable reports whether the store can take changes now: store.ErrFull if there is room for revocations only, or for
// nothing; ErrStalled if changes have waited for the disk for long, and none has got there; another error if the store
// is closed or has failed. It writes nothing and does not wait, so it does not know of a disk that hangs and has
// nothing to do.
func (s *Store) Writable() error {
	if err := s.failed(); err != nil {
		return err
	}
	select {
	case <-s.ending:
		return store.ErrClosed
	default:
	}
	if d := s.pending.stalled(); d >= stallAfter {
		return fmt.Errorf("%w: no change has reached it for %v", ErrStalled, d.Round(time.Second))
	}
	if s.space.level.Load() >= spaceHard {
		return fmt.Errorf("pebblestore: %s: %w", s.dir, store.ErrFull)
	}
	return nil
}

// pending counts the commits that wait for the disk. They get there in order, so that the time since the last one got
// there, or since the first began to wait, says whether it answers.
type pending struct {
	n     atomic.Int64
	since atomic.Int64 // in nanoseconds since epoch
}

// epoch is of the monotonic clock: a clock that is set is no stall.
var epoch = time.Now()

func (p *pending) begin() {
	if p.n.Load() == 0 {
		p.since.Store(int64(time.Since(epoch)))
	}
	p.n.Add(1)
}

func (p *pending) end() {
	p.since.Store(int64(time.Since(epoch)))
	p.n.Add(-1)
}

// stalled returns for how long no commit has got there, 0 if none waits.
func (p *pending) stalled() time.Duration {
	if p.n.Load() == 0 { // first, since begin sets since before it counts
		return 0
	}
	return time.Since(epoch) - time.Duration(p.since.Load())
}
