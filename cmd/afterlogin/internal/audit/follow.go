package audit

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/afterlogin/afterlogin"
)

// follow hands the store's events to the writer, from the last one that the log has, until the log is closed. It takes the
// next event only when the writer has taken the one before, so that it needs no memory of its own.
func (l *Log) follow(cursor string) {
	gap := false
	for l.stop.Err() == nil {
		events, err := l.watch(cursor, &gap)
		l.setDeaf(err)
		if err == nil {
			if gap || cursor == "" {
				if !l.anchor(gap) {
					return
				}
				gap, cursor = false, ""
			} else {
				l.ready()
			}
			err = l.pass(events, &cursor)
		}
		switch {
		case l.stop.Err() != nil:
			return
		case errors.Is(err, afterlogin.ErrGap):
			gap = true
			continue
		}
		l.setDeaf(err)
		l.ready()
		l.log.Warn("audit log: the events cannot be read now, and are read on later", "err", err)
		select {
		case <-time.After(retry):
		case <-l.stop.Done():
		}
	}
}

// watch begins to watch behind the cursor; at the end of what there is, if events are missing behind that.
func (l *Log) watch(cursor string, gap *bool) (iter.Seq2[afterlogin.Event, error], error) {
	if *gap {
		cursor = ""
	}
	events, err := l.o.Authority.Watch(l.stop, cursor)
	if errors.Is(err, afterlogin.ErrGap) {
		*gap = true
		events, err = l.o.Authority.Watch(l.stop, "")
	}
	return events, err
}

// anchor says in the log that events are followed from here on, and causes one, so that a crash before the next leaves a
// place to go on from. It reports false if the log was closed.
func (l *Log) anchor(gap bool) bool {
	e := Entry{At: l.now(), Type: TypeFollowing, Detail: "events are in the log from here on; those from before are not"}
	if gap {
		e.Type, e.Detail = TypeGap, "events are missing here: the store had dropped them before they were read"
		l.log.Error("audit log: " + e.Detail)
	}
	if !l.hand(e) {
		return false
	}
	ctx, cancel := context.WithTimeout(l.stop, storeTimeout)
	defer cancel()
	if err := l.announce(ctx); err != nil {
		l.log.Warn("audit log: the store could not be told of the log", "err", err)
		l.ready()
	}
	return true
}

// pass hands over the events until there is an error, and keeps the cursor at the last one that was handed over.
func (l *Log) pass(events iter.Seq2[afterlogin.Event, error], cursor *string) error {
	for e, err := range events {
		if err != nil {
			return err
		}
		if !l.hand(newEntry(e)) {
			return context.Canceled
		}
		*cursor = e.Cursor
	}
	return context.Canceled
}

// hand gives the writer an entry, and reports whether it took it.
func (l *Log) hand(e Entry) bool {
	select {
	case l.events <- &pending{entry: e}:
		return true
	case <-l.stop.Done():
		return false
	}
}

func (l *Log) setDeaf(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = err
}

// ready says that New need not wait any longer: events are followed from a place that is durable, or cannot be now.
func (l *Log) ready() { l.once.Do(func() { close(l.begun) }) }

// Cursor returns the place of the last event that is durable in the log, from which the store's events can be followed;
// "" if there is none, or if the log does not keep up now.
func (l *Log) Cursor() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure != nil || l.deaf != nil || l.closed {
		return ""
	}
	return l.at.cursor
}
