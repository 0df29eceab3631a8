package pgstore

import (
	"errors"
	"fmt"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

const (
	// maxSkew is how far this process's clock may be from the server's: lifetimes are judged by it.
	maxSkew = 2 * time.Second
	// silence is for how long the server may say nothing before the store counts as not writable.
	silence = 2 * store.Lease
	// fullFor is for how long a full disk is remembered.
	fullFor = 10 * time.Second
)

// ErrSkew is what Writable reports when this process's clock and the server's are apart.
var ErrSkew = errors.New("pgstore: the clock differs from the server's")

// Writable reports whether the store can take changes now: store.ErrFull if the server has just said that its disk is full;
// ErrSkew if the clocks are more than 2 seconds apart; another error if the store is closed, or the server does not answer,
// or takes no writes. It asks nothing and does not wait: it knows from the feed, which asks all the time.
func (s *Store) Writable() error {
	select {
	case <-s.ending:
		return store.ErrClosed
	default:
	}
	if t := s.Heard(0); time.Since(t) > silence {
		if err := s.feed.trial.Load(); err != nil {
			return fmt.Errorf("pgstore: the server: %w", *err)
		}
		return fmt.Errorf("pgstore: nothing was heard from the server for %v", time.Since(t).Round(time.Second))
	}
	if at := s.fullAt.Load(); at != 0 && time.Since(epoch)-time.Duration(at) < fullFor {
		return fmt.Errorf("pgstore: %w", store.ErrFull)
	}
	if skew := time.Duration(s.feed.skew.Load()); skew.Abs() > maxSkew {
		return fmt.Errorf("%w: it is %v ahead; set both by NTP", ErrSkew, skew.Round(time.Millisecond))
	}
	return nil
}
