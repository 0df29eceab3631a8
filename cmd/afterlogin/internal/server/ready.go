package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

const (
	// pingTimeout bounds the look at the store for /readyz.
	pingTimeout = 2 * time.Second
	// unheard is for how long a partition of a shared store may not have been heard from. Within a lease the cache answers
	// for it; after that every request asks the store, and one that does not come back soon cannot be served here.
	unheard = 2 * store.Lease
	// maxSkew is by how much this server's clock may differ from the store's. All servers decide by their own clock when a
	// token is over; with more than that they would contradict each other.
	maxSkew = 2 * time.Second
)

// errSkew is why a server whose clock is wrong is not ready.
var errSkew = errors.New("the clock differs from the store's")

// ready says whether requests should be sent here: not when a stop was asked for, and not while the store does not
// answer, or takes no changes. It is asked anew each time, so that it is true again as soon as the store is back.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if s.draining.Load() {
		health(w, http.StatusServiceUnavailable, "stopping")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), pingTimeout)
	defer cancel()
	if err := s.readiness(ctx); err != nil {
		s.log.ErrorContext(ctx, "not ready", "request_id", api.RequestID(r.Context()), "err", err)
		healthWhy(w, http.StatusServiceUnavailable, "unavailable", unready(err))
		return
	}
	health(w, http.StatusOK, "ready")
}

// errStopping is why a server that was asked to stop is not ready.
var errStopping = errors.New("the server is stopping")

// readiness looks whether requests should be sent here. Of an error, unready says what to tell.
func (s *Server) readiness(ctx context.Context) error {
	if s.draining.Load() {
		return errStopping
	}
	if err := s.data.store.Writable(); err != nil {
		return err
	}
	if err := s.authority.Ping(ctx); err != nil {
		return err
	}
	if shared, ok := s.data.store.(store.Shared); ok {
		if err := attentive(shared, time.Now()); err != nil {
			return err
		}
		return s.data.keys.Err()
	}
	return nil
}

// unready says in plain words why a server is not ready.
func unready(err error) string {
	switch {
	case errors.Is(err, errStopping):
		return "the server is stopping"
	case errors.Is(err, store.ErrFull):
		return "there is no room where the server keeps its data"
	case errors.Is(err, pebblestore.ErrStalled):
		return "the disk where the server keeps its data does not answer"
	case errors.Is(err, errSkew):
		return "this server's clock differs from the store's by more than 2 seconds"
	case errors.Is(err, keyring.ErrOtherRing), errors.Is(err, keyring.ErrWrongMaster):
		return "the store holds other keys than this server"
	case errors.Is(err, keyring.ErrRolledBack):
		return "the store has keys from before one of them was distrusted or retired, and this server could not put back the newer ones yet"
	}
	return "the store does not answer"
}

// attentive reports whether the store was heard from, in every partition and recently, and whether the clocks agree.
func attentive(st store.Shared, now time.Time) error {
	quiet, oldest := 0, time.Duration(0)
	for p := range store.Partitions {
		heard := st.Heard(p)
		if age := now.Sub(heard); heard.IsZero() || age > unheard {
			quiet++
			oldest = max(oldest, age)
		}
	}
	if quiet > 0 {
		if oldest > time.Hour { // of a partition that was never heard from it is no time at all
			return fmt.Errorf("%d of %d partitions of the store were not heard from", quiet, store.Partitions)
		}
		return fmt.Errorf("%d of %d partitions of the store were not heard from for %v", quiet, store.Partitions, oldest.Round(time.Millisecond))
	}
	if skew := st.Feed().Skew; skew.Abs() > maxSkew {
		return fmt.Errorf("%w: it is ahead by %v", errSkew, skew.Round(time.Millisecond))
	}
	return nil
}
