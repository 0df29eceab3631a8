package afterlogin

import (
	"context"
	"errors"
	"iter"

	"github.com/afterlogin/afterlogin/store"
)

// ErrGap is yielded by Watch when events were dropped before they were read: what was derived from earlier ones is out
// of date. Start again with an empty cursor, and look at what you need to know.
var ErrGap = errors.New("events were missed")

// Watch yields every event that is committed after the one with the cursor, on whichever node; with an empty cursor,
// every event after Watch returned. It yields an error as the last thing: ErrGap, ErrUnavailable, or the context's.
func (a *Authority) Watch(ctx context.Context, since string) (iter.Seq2[Event, error], error) {
	events, err := a.store.Watch(ctx, store.Cursor(since))
	if err != nil {
		return nil, watchError(err)
	}
	return func(yield func(Event, error) bool) {
		for e, err := range events {
			if err != nil {
				yield(Event{}, watchError(err))
				return
			}
			if !yield(newEvent(e), nil) {
				return
			}
		}
	}, nil
}

func watchError(err error) error {
	switch {
	case errors.Is(err, store.ErrGap):
		return ErrGap
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return unavailable("watch", err)
}
