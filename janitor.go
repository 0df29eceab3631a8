package afterlogin

import (
	"context"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

const (
	// purgeEvery is how often expired records are cleaned up.
	purgeEvery = time.Hour
	// purgeAfter is how long an expired record is kept: for skewed clocks, and for whoever asks why they are signed out.
	purgeAfter = 2 * time.Hour
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
	hours := horizon.Add(-purgeAfter).Unix() / 3600
	if hours <= 0 { // a clock that fell to its epoch
		return
	}
	b := store.Bucket(min(hours, int64(store.NoBucket)-1))
	if err := a.store.Purge(ctx, b); err != nil && ctx.Err() == nil {
		a.log.Warn("expired records were not cleaned up", "err", err)
	}
}
