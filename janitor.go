package afterlogin

import (
	"context"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

const (
	// purgeEvery is how often expired records are cleaned up.
	purgeEvery = time.Hour
	// leastKept is how long an expired record is kept at least: for skewed clocks, and for whoever asks why they are signed
	// out. Config.KeepEnded makes it longer.
	leastKept = 2 * time.Hour
)

// janitor removes records whose absolute lifetime is over. Nothing depends on it: an expired record is refused whether
// it is there or not.
//
// Its horizon follows the wall clock at the start, and then moves only as far as time has really passed: a clock that
// jumps to 2040 ends sessions, since verdicts follow the clock, but it deletes nothing, and setting it right brings
// them back.
func (a *Authority) janitor(horizon time.Time) {
	ticked := time.Now()
	t := time.NewTicker(purgeEvery)
	defer t.Stop()
	for {
		select {
		case <-a.stopped.Done():
			return
		case <-t.C:
			horizon = horizon.Add(time.Since(ticked))
			ticked = time.Now()
			now := a.now()
			if now.Before(horizon) {
				horizon = now
			}
			a.purge(a.stopped, horizon)
		}
	}
}

func (a *Authority) purge(ctx context.Context, horizon time.Time) {
	hours := a.dueHour(horizon)
	if hours <= 0 { // a clock that fell to its epoch
		return
	}
	began := time.Now()
	b := store.Bucket(min(hours, int64(store.NoBucket)-1))
	err := a.store.Purge(ctx, b)
	if ctx.Err() != nil {
		return
	}
	a.cleaned.note(hours, a.now(), time.Since(began), err)
	if err != nil {
		a.log.Warn("expired records were not cleaned up", "err", err)
	}
}

// dueHour returns the last hour since 1970 whose records are due at the time.
func (a *Authority) dueHour(at time.Time) int64 { return at.Add(-a.keepEnded).Unix() / 3600 }

// cleaned is what the janitor has done so far.
type cleaned struct {
	mu       sync.Mutex
	from     int64 // the hour that was due when the authority began: what came before it is not counted as left over
	hour     int64 // all hours up to this one are done; 0: none yet
	at       time.Time
	took     time.Duration
	failures uint64
}

func (c *cleaned) note(hour int64, at time.Time, took time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.failures++
		return
	}
	c.hour, c.at, c.took = max(c.hour, hour), at, took
}

func (c *cleaned) stats(due int64) JanitorStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return JanitorStats{
		Last: c.at, Took: c.took, Failures: c.failures,
		Backlog: int(max(0, due-max(c.from, c.hour))),
	}
}
