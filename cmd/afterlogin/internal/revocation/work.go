package revocation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
)

// A lane is what jobs of one sort share: the urgent ones do not wait for those that count or end, nor small ones for large
// ones.
type lane struct {
	state State
	small bool
}

// How many jobs of a lane one server works at together, and how many sessions a small one has at most.
const (
	maxLane  = 2
	maxSmall = 1000
)

func (j *Job) lane() lane { return lane{j.State, j.Preview.Matched <= maxSmall} }

// What a job waits for, in plain words.
const (
	waitStore = "the store cannot be asked"
	waitClock = "the server's clock and the store's differ by more than 2s"
)

// room reports whether there is room in the job's lane, and whether it is not worked at yet.
func (r *Revocations) room(j *Job) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, mine := r.mine[j.ID]; mine {
		return false
	}
	n := 0
	for _, l := range r.mine {
		if l == j.lane() {
			n++
		}
	}
	return n < maxLane
}

// run looks for work until Close.
func (r *Revocations) run() {
	for {
		wait, err := r.look(r.ctx)
		if err != nil && r.ctx.Err() == nil {
			r.log.Warn("the revocations cannot be read", "err", err)
			wait = storeWait
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-r.wake:
			t.Stop()
		case <-r.ctx.Done():
			t.Stop()
			return
		}
	}
}

// look begins what there is to be done, and returns when to look again.
func (r *Revocations) look(ctx context.Context) (time.Duration, error) {
	jobs, err := r.jobs(ctx)
	if err != nil {
		return 0, err
	}
	wait := pollIdle
	for _, j := range jobs {
		if left := j.UndoUntil.Sub(r.now()); j.State == Frozen && left > 0 {
			wait = min(wait, max(left, 10*time.Millisecond))
			continue
		}
		if err := r.clock(); err != nil && j.timed(r.now()) {
			r.later(j.ID, err)
			continue
		}
		if j.State == Frozen {
			id := j.ID
			if j, err = r.moved(ctx, id, Frozen, func(j *Job) { j.State = Revoking }); err != nil {
				wait = r.later(id, err)
				continue
			}
		}
		if j == nil || !j.State.working() {
			continue
		}
		if !r.room(j) { // when one ends, there is another look
			continue
		}
		l, err := r.claim(ctx, j)
		if err != nil {
			wait = r.later(j.ID, err)
			continue
		}
		if l == nil {
			wait = min(wait, leaseTime/3)
			continue
		}
		jctx, cancel := context.WithCancel(ctx)
		r.mu.Lock()
		r.mine[j.ID] = j.lane()
		delete(r.others, j.ID)
		r.mu.Unlock()
		r.running.Go(func() {
			defer r.poke()
			defer func() {
				r.mu.Lock()
				delete(r.mine, j.ID)
				r.mu.Unlock()
				cancel()
			}()
			r.pursue(jctx, j.ID, l)
		})
	}
	return wait, nil
}

// later notes that there was trouble with one job, which is no trouble of the others, and returns when to look again.
func (r *Revocations) later(id string, err error) time.Duration {
	if r.ctx.Err() == nil {
		r.log.Warn("a revocation waits", "revocation", id, "err", err)
	}
	return storeWait
}

// moved changes a job that is still in the state. It returns nil if it is in another one, or gone.
func (r *Revocations) moved(ctx context.Context, id string, from State, f func(*Job)) (*Job, error) {
	j, err := r.change(ctx, id, func(j *Job) error {
		if j.State != from {
			return &StateError{j.State, "it has moved on"}
		}
		f(j)
		return nil
	})
	if errors.Is(err, ErrState) || errors.Is(err, ErrNoJob) {
		return nil, nil
	}
	return j, err
}

// pursue works at a job, from phase to phase, until there is nothing to do for now.
func (r *Revocations) pursue(ctx context.Context, id string, l *lease) {
	defer func() {
		// Also after Close: the next server need not wait for the lease to run out.
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeWait)
		defer cancel()
		l.release(ending)
	}()
	for ctx.Err() == nil {
		j, err := r.read(ctx, id)
		if errors.Is(err, ErrNoJob) || err == nil && !j.State.working() {
			return
		}
		if err == nil {
			err = r.phase(ctx, j, l)
		}
		switch {
		case err == nil:
		case errors.Is(err, errLost):
			r.log.Warn("another server goes on with a revocation", "revocation", id)
			return
		case errors.Is(err, errClock):
			r.later(id, err)
			l.set(func(p *Progress) { p.Waiting = waitClock })
			return // a server whose clock is right goes on at once
		case errors.Is(err, afterlogin.ErrUnavailable):
			if ctx.Err() != nil {
				return
			}
			r.log.Warn("a revocation waits for the store", "revocation", id, "err", err)
			l.set(func(p *Progress) { p.Waiting = waitStore })
			sleep(ctx, storeWait)
			if berr := l.beat(ctx); errors.Is(berr, errLost) {
				return
			}
		case ctx.Err() != nil:
			return
		default:
			r.log.Error("a revocation has failed", "revocation", id, "err", err)
			if err := r.fail(ctx, j, l, err.Error()); err != nil {
				sleep(ctx, storeWait)
			}
		}
	}
}

// fail ends a job that cannot go on. What it froze is thawed first, unless it had begun to end that; thawing is tried until
// it succeeds.
func (r *Revocations) fail(ctx context.Context, j *Job, l *lease, why string) error {
	if j.State == Thawing {
		sleep(ctx, storeWait)
		return nil
	}
	_, err := r.moved(ctx, j.ID, j.State, func(j *Job) {
		if j.State == Freezing {
			j.State, j.Why = Thawing, why
			return
		}
		j.failed(why, l.progress(), r.now())
	})
	return err
}

// failed ends a job that has nothing frozen, or has begun to end it.
func (j *Job) failed(why string, p Progress, now time.Time) {
	if j.State == Revoking {
		j.Revoked, j.AtLeast = p.Done, p.AtLeast
	}
	j.State, j.Why, j.Finished = Failed, why, now.UTC()
}

// errMoved ends a phase whose job is in another state by now.
var errMoved = errors.New("the job is in another state")

// phase does what the job's state asks for, and moves it on. Beside it the lease is renewed, and the job watched: an
// undo is noticed within a second.
func (r *Revocations) phase(ctx context.Context, j *Job, l *lease) error {
	q, err := j.parse()
	if err != nil && (j.State == Thawing || j.State == Revoking && j.Undo > 0) { // what the job froze it knows without it
		q, err = nil, nil
	}
	if err != nil {
		return fmt.Errorf("its query cannot be read any more: %w", err)
	}
	who := j.ConfirmedBy
	if who == "" {
		who = j.By
	}
	ctx, cancel := context.WithCancelCause(afterlogin.WithActor(ctx, clip(who)+" "+j.ID))
	defer cancel(nil)
	var beating sync.WaitGroup
	defer beating.Wait()
	done := make(chan struct{})
	defer close(done)
	beating.Go(func() {
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-done:
				return
			case <-ctx.Done():
				return
			}
			if err := l.beat(ctx); errors.Is(err, errLost) || !l.held() {
				cancel(errLost)
				return
			}
			if now, err := r.read(ctx, j.ID); err == nil && now.State != j.State || errors.Is(err, ErrNoJob) {
				cancel(errMoved)
				return
			}
		}
	})
	p := &pass{r: r, j: j, q: q, l: l}
	switch j.State {
	case Counting:
		err = p.count(ctx)
	case Freezing:
		err = p.freeze(ctx)
	case Revoking:
		if j.Undo == 0 {
			err = p.revokeNow(ctx)
		} else {
			err = p.revoke(ctx)
		}
	case Thawing:
		err = p.thaw(ctx)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		if errors.Is(cause, errMoved) {
			return nil
		}
		return cause
	}
	return err
}
