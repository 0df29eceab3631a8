// Package transfer moves whole stores: it copies the records of one into another and compares them, checks a store,
// writes a backup and restores one. Records go from store to store as they are, sealed; what they say is not its business.
//
// Start with [Migration], [Check], [WriteBackup] and [Restoration].
package transfer

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// Workers is how many batches are under way at once: enough to keep a store busy that is a round trip away.
const Workers = 8

// A Progress says how far a step has come.
type Progress struct {
	Step  string // counting, copying, comparing, checking, …
	Done  int64  // records
	Total int64  // 0: not known
	// Fresh is how many of Done were done in this run, since Begun: the others were before an interruption.
	Fresh int64
	Begun time.Time
}

// A worker does the same to every batch of a scan.
type worker struct {
	// now is the clock, and wait waits. Nil are the real ones.
	now  func() time.Time
	wait func(ctx context.Context, d time.Duration) error
}

func (w *worker) time() time.Time {
	if w.now != nil {
		return w.now()
	}
	return time.Now()
}

func (w *worker) pause(ctx context.Context, d time.Duration) error {
	if w.wait != nil {
		return w.wait(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// attempts is how often something is tried that fails, with pauses that add up to half a minute: a failover is over by then.
const attempts = 12

// lasting reports whether an error is one that trying again does not mend.
func lasting(err error) bool {
	for _, e := range []error{store.ErrGap, store.ErrBadOps, store.ErrFull, store.ErrClosed, store.ErrBadRecord} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// try calls f until it succeeds, a few times.
func (w *worker) try(ctx context.Context, f func() error) error {
	for n := 0; ; n++ {
		err := f()
		if err == nil || lasting(err) || ctx.Err() != nil || n == attempts-1 {
			return err
		}
		if perr := w.pause(ctx, backoff(n)); perr != nil {
			return err
		}
	}
}

func backoff(n int) time.Duration { return min(50*time.Millisecond<<n, 5*time.Second) }

// scan is Scan, but that it goes on after an error that may pass.
func (w *worker) scan(ctx context.Context, s store.Bulk, since store.Cursor, yield func(store.Batch) error) error {
	for failed := 0; ; {
		var broken error
		for b, err := range s.Scan(ctx, since) {
			if err != nil {
				broken = err
				break
			}
			if err := yield(b); err != nil {
				return err
			}
			since, failed = b.Next, 0
		}
		if broken == nil || lasting(broken) || ctx.Err() != nil || failed == attempts-1 {
			return broken
		}
		if err := w.pause(ctx, backoff(failed)); err != nil {
			return broken
		}
		failed++
	}
}

// feed gives batches to yield, one after the other, until it returns an error.
type feed func(ctx context.Context, yield func(store.Batch) error) error

// each calls do with every batch, several at a time, and then done with the same batches and what do made of them, in
// their order and one at a time. It returns when nothing of it is running any more. The first error ends it.
func each[T any](ctx context.Context, from feed, do func(context.Context, []*store.Record) (T, error), done func(store.Batch, T) error) error {
	type job struct {
		batch store.Batch
		made  T
		err   error
		over  chan struct{}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	todo, order := make(chan *job), make(chan *job, Workers)
	var running sync.WaitGroup
	for range Workers {
		running.Go(func() {
			for j := range todo {
				j.made, j.err = do(ctx, j.batch.Records)
				close(j.over)
			}
		})
	}
	var broken error
	running.Go(func() {
		defer close(order)
		defer close(todo)
		broken = from(ctx, func(b store.Batch) error {
			j := &job{batch: b, over: make(chan struct{})}
			select {
			case todo <- j:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			order <- j // there is room, or whoever takes from it goes on until it is closed
			return nil
		})
	})
	var failed error
	for j := range order {
		<-j.over
		if failed == nil && j.err == nil {
			j.err = done(j.batch, j.made)
		}
		if failed == nil && j.err != nil {
			failed = j.err
			cancel(failed)
		}
	}
	running.Wait()
	if failed != nil {
		return failed
	}
	return broken
}

// expired reports whether nothing of the record is valid any more.
func expired(r *store.Record, now time.Time) bool {
	return r.Absolute != 0 && r.Absolute <= now.UnixMilli()
}
