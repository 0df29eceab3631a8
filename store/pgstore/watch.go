package pgstore

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/store"
)

const (
	// watchPage is how many events are read for a watcher at a time.
	watchPage = 256
	// watchPause is the time between two reads, at most, while events wait for transactions before them to end.
	watchPause = 100 * time.Millisecond
)

// The stream's order is that of transaction ids. Only what stands below the oldest running transaction is read, so that
// nothing can come in between any more. The event that a watcher stands at must still be there, for the next ones to be.
const watchSQL = `SELECT pg_current_snapshot()::text, coalesce(b.id, ''), m.life,
		EXISTS (SELECT FROM events WHERE xid = $1 AND n = $2 AND (extract(epoch FROM made) * 1000000)::bigint = $3 AND turn >= m.events_turn - $4),
		EXISTS (SELECT FROM events WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())),
		e.xid, e.n, (extract(epoch FROM e.made) * 1000000)::bigint, e.at, e.tenant, e.type, e.id, e.subject, e.reason, e.detail
	FROM meta m LEFT JOIN boot b ON b.one = 1 LEFT JOIN LATERAL (
		SELECT * FROM events WHERE (xid, n) > ($1, $2) AND xid < pg_snapshot_xmin(pg_current_snapshot())
		ORDER BY xid, n LIMIT $5
	) e ON true
	WHERE m.one = 1 ORDER BY e.xid, e.n`

// A watcher is one iteration of a Watch.
type watcher struct {
	s     *Store
	place eventPlace
	// A watcher that began without a cursor has what was visible then left out, and trusts in transaction ids not going
	// back until it is past them: from is nil afterwards.
	from *snapshot
	boot string
}

// A view is what a read of the events found.
type view struct {
	snapshot string
	boot     string
	life     string
	there    bool // the event at the watcher's place
	pending  bool // there are events that cannot be told of yet
	events   []placed
}

type placed struct {
	eventPlace
	store.Event
}

// Watch implements store.Store. While the server does not answer, watchers wait.
func (s *Store) Watch(ctx context.Context, since store.Cursor) (iter.Seq2[store.Event, error], error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.exit()
	w := watcher{s: s}
	if since != "" {
		var ok bool
		if w.place, ok = parseCursor(s.life, since); !ok {
			return nil, store.ErrGap
		}
	} else {
		v, err := w.look(ctx, 0)
		if err != nil {
			return nil, wrap("watch", err)
		}
		from, err := parseSnapshot(v.snapshot)
		if err != nil {
			return nil, wrap("watch", err)
		}
		w.place, w.from, w.boot = eventPlace{xid: from.min, n: -1}, &from, v.boot
	}
	return func(yield func(store.Event, error) bool) {
		w := w // each iteration begins where the Watch did
		if err := w.run(ctx, yield); err != nil {
			yield(store.Event{}, err)
		}
	}, nil
}

// run yields events until there is an error, or returns nil when yield wants no more.
func (w *watcher) run(ctx context.Context, yield func(store.Event, error) bool) error {
	pause := time.Duration(0)
	for {
		grown := w.s.watchers.wait()
		v, err := w.read(ctx)
		switch {
		case errors.Is(err, store.ErrGap), errors.Is(err, store.ErrClosed):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil: // the server is away
			if pause, err = w.rest(ctx, pause, 10*watchPause); err != nil {
				return err
			}
			continue
		}
		for _, e := range v.events {
			w.place = e.eventPlace
			if w.from != nil && w.from.sees(e.xid) {
				continue
			}
			e.Cursor = e.cursor(w.s.life)
			if !yield(e.Event, nil) {
				return nil
			}
		}
		switch {
		case len(v.events) == watchPage:
			pause = 0
		case v.pending:
			if len(v.events) > 0 {
				pause = 0
			}
			if pause, err = w.rest(ctx, pause, watchPause); err != nil {
				return err
			}
		default:
			pause = 0
			select {
			case <-grown:
			case <-w.s.ending:
				return store.ErrClosed
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// rest waits twice as long as the last time, and returns for how long.
func (w *watcher) rest(ctx context.Context, last, most time.Duration) (time.Duration, error) {
	last = min(max(2*last, 2*time.Millisecond), most)
	t := time.NewTimer(last)
	defer t.Stop()
	select {
	case <-t.C:
		return last, nil
	case <-w.s.ending:
		return last, store.ErrClosed
	case <-ctx.Done():
		return last, ctx.Err()
	}
}

// read returns the events behind the watcher's place, or ErrGap if some may be missing.
func (w *watcher) read(ctx context.Context) (*view, error) {
	if err := w.s.enter(ctx); err != nil {
		return nil, err
	}
	defer w.s.exit()
	v, err := w.look(ctx, watchPage)
	if err != nil {
		return nil, err
	}
	if w.from != nil && w.place.xid >= w.from.max {
		w.from = nil
	}
	began := w.place.made == 0 // nothing was read yet
	if v.life != w.s.life || w.from != nil && v.boot != w.boot || !began && !v.there {
		return nil, store.ErrGap
	}
	return v, nil
}

func (w *watcher) look(ctx context.Context, limit int) (*view, error) {
	var v *view
	err := w.s.with(ctx, func(ctx context.Context, c *pgx.Conn) error {
		v = &view{}
		rows, err := c.Query(ctx, watchSQL, w.place.xid, w.place.n, w.place.made, eventsKept, limit)
		if err != nil {
			return err
		}
		var xid *uint64
		var n *int32
		var made, at, tenant *int64
		var kind, id, subject, reason, detail []byte
		_, err = pgx.ForEachRow(rows, []any{&v.snapshot, &v.boot, &v.life, &v.there, &v.pending,
			&xid, &n, &made, &at, &tenant, &kind, &id, &subject, &reason, &detail}, func() error {
			if xid == nil {
				return nil // no event
			}
			e := placed{eventPlace{*xid, *n, *made}, store.Event{
				At: *at, Type: string(kind), Tenant: uint32(*tenant), Subject: string(subject), Reason: string(reason), Detail: string(detail)}}
			if len(id) > 0 {
				var err error
				if e.ID, err = store.ParseID(id); err != nil {
					return err
				}
			}
			v.events = append(v.events, e)
			return nil
		})
		if err == nil && v.snapshot == "" {
			err = errors.New("the schema is empty")
		}
		return err
	})
	return v, err
}
