package afterlogin

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// ErrRateLimited is every *LimitError.
var ErrRateLimited = errors.New("too many requests")

// A LimitError is returned for a good token that is used too often. Answer 429 with Retry-After. It is ErrRateLimited.
type LimitError struct {
	Session    SessionID
	RetryAfter time.Duration // at least; more than zero
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("too many requests: try again in %v", e.RetryAfter.Round(time.Millisecond))
}

// Unwrap makes every LimitError ErrRateLimited.
func (e *LimitError) Unwrap() error { return ErrRateLimited }

// limits counts, on this node and in memory, how often things are done for a record, by the generic cell rate
// algorithm: one time per record, until which what was done so far would take at the permitted rate.
type limits struct{ shards [64]limitShard }

type limitShard struct {
	mu   sync.Mutex
	full map[store.ID]int64 // nanoseconds since 1970; in the past means nothing was done lately
}

// maxLimits is how many records a shard keeps before it forgets those that were not used lately.
const maxLimits = 1024

// take counts one request of the session. A minute's worth may come at once; after that, one at a time.
func (l *limits) take(s *Session, now time.Time) error {
	wait := l.allow(s.record.Root(), now, s.Limits.Rate, time.Minute)
	if wait == 0 {
		return nil
	}
	return &LimitError{Session: s.ID, RetryAfter: wait}
}

// allow counts one event of the record, of which there may be n in the period, and returns 0, or how long it must wait.
func (l *limits) allow(id store.ID, now time.Time, n int, period time.Duration) time.Duration {
	sh := &l.shards[id.Hash()%uint64(len(l.shards))]
	at := now.UnixNano()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.full == nil {
		sh.full = make(map[store.ID]int64)
	}
	full := max(sh.full[id], at)
	if full > at+int64(period) { // the clock went back
		full = at
	}
	full += int64(period) / int64(n)
	if over := full - at - int64(period); over > 0 {
		return time.Duration(over)
	}
	if len(sh.full) >= maxLimits {
		for k, t := range sh.full {
			if t <= at {
				delete(sh.full, k)
			}
		}
	}
	sh.full[id] = full
	return 0
}
