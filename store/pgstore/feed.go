package pgstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/store"
)

// The feed reads the change log on a connection of its own. Where it stands is a snapshot: the changes to tell of are those
// whose transactions were not visible in the last one, and are in this one. That is exact, whatever order transactions
// begin and commit in, and however long others run: a transaction is new if its id is not below the last snapshot's end,
// or among those that were running then.
//
// A place means nothing any more if transaction ids may have gone back, after a crash or where a standby took over (the
// boot id is another then), or if the log has been trimmed behind it. Then everything is dropped, and the feed begins anew.
const (
	// readEvery is how often the log is read at least, from one question to the next.
	readEvery = store.Lease / 5
	// readGap is the time between two reads at least, however many hints come.
	readGap = 5 * time.Millisecond
	// readTimeout is how long the server has to answer.
	readTimeout = store.Lease / 2
	// maxChanges is how many changes are told one by one. Rather than more, everything is dropped.
	maxChanges = 50_000
	// maxDoubts is how many Applies of unknown outcome are remembered.
	maxDoubts = 1 << 16
	// changesKept is how many turns of the change log a reader may be behind: of four parts, one is about to be emptied, and
	// a transaction may have begun in the part before the reader's.
	changesKept = 1
)

var readSQL = `SELECT pg_current_snapshot()::text, clock_timestamp(), coalesce(b.id, ''), m.life, m.changes_turn,
		pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
		EXISTS (SELECT FROM events WHERE xid >= pg_snapshot_xmax(($1::text)::pg_snapshot)
				OR xid = ANY (ARRAY(SELECT pg_snapshot_xip(($1::text)::pg_snapshot)))),
		c.root, c.node, c.n, (extract(epoch FROM clock_timestamp() - c.at) * 1000000)::bigint
	FROM meta m LEFT JOIN boot b ON b.one = 1 LEFT JOIN LATERAL (
		SELECT root, node, n, at FROM changes WHERE xid >= pg_snapshot_xmax(($1::text)::pg_snapshot)
		UNION ALL
		SELECT root, node, n, at FROM changes WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip(($1::text)::pg_snapshot)))
		LIMIT ` + strconv.Itoa(maxChanges+1) + `) c ON true
	WHERE m.one = 1`

// feed is what a Store hears from the server.
type feed struct {
	heard atomic.Pointer[time.Time]
	wake  chan struct{} // a hint came
	skew  atomic.Int64  // of this process's clock, in nanoseconds
	trial atomic.Pointer[error]

	config *pgx.ConnConfig

	// What follows belongs to whoever calls readLog: Open, and then follow.
	conn   *pgx.Conn
	system int64
	place  place
	broken bool // the last read failed

	// mu guards what follows. It is held for moments only.
	mu     sync.Mutex
	count  store.Feed
	doubts map[int64]struct{} // numbers of this node's Applies that nobody was told of for certain
	tooBig bool               // there were too many: this node's changes are all told
}

// A place is where the feed stands in the log.
type place struct {
	snapshot string
	boot     string
	turn     int
}

func (f *feed) init(config *pgx.ConnConfig) {
	f.wake = make(chan struct{}, 1)
	f.config = config
	f.doubts = map[int64]struct{}{}
}

// Heard implements store.Shared. There is one feed for all partitions.
func (s *Store) Heard(int) time.Time {
	if t := s.feed.heard.Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// Feed implements store.Shared.
func (s *Store) Feed() store.Feed {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	f := s.feed.count
	f.Skew = time.Duration(s.feed.skew.Load())
	return f
}

// doubt has the feed tell of an Apply of this node's when it sees it. Others it only counts: Apply tells of them itself.
func (f *feed) doubt(number int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.doubts) >= maxDoubts {
		f.tooBig = true
		clear(f.doubts)
	}
	if !f.tooBig {
		f.doubts[number] = struct{}{}
	}
}

// hinted has the log read soon.
func (f *feed) hinted() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// follow reads the log until ctx ends.
func (s *Store) follow(ctx context.Context) {
	defer s.feed.disconnect()
	t := time.NewTimer(readEvery)
	defer t.Stop()
	pause := time.Duration(0) // before the next try, after a failure
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-s.feed.wake:
		}
		began := time.Now()
		err := s.readLog(ctx, readTimeout)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pause = 0
			if !sleep(ctx, readGap) {
				return
			}
			t.Reset(max(0, readEvery-time.Since(began)))
		default:
			if pause = min(max(2*pause, 10*time.Millisecond), readEvery); !sleep(ctx, pause/2+rand.N(pause)) {
				return
			}
			t.Reset(0)
		}
	}
}

// sleep waits, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// readLog reads what has come since the last time, tells of it, and then sets the time up to which all has been told.
func (s *Store) readLog(ctx context.Context, timeout time.Duration) error {
	f := &s.feed
	err := s.tryReadLog(ctx, timeout)
	if err == nil {
		f.trial.Store(nil)
		return nil
	}
	if f.trial.Load() == nil && ctx.Err() == nil {
		s.log.Warn("store: PostgreSQL does not answer", "err", err)
	}
	f.trial.Store(&err)
	f.mu.Lock()
	f.count.Failures++
	f.mu.Unlock()
	f.broken = true
	f.disconnect()
	return err
}

func (f *feed) disconnect() {
	disconnect(f.conn)
	f.conn = nil
}

var errReadOnly = errors.New("the server takes no writes: it is a replica, or was made one")

func (s *Store) tryReadLog(ctx context.Context, timeout time.Duration) error {
	f := &s.feed
	gap := false
	if f.conn == nil {
		c, v, err := s.connect(ctx)
		if err != nil {
			return err
		}
		f.conn = c
		if f.system != v.system { // not the server whose place we have
			f.system, f.place.boot = v.system, ""
		}
		if f.broken { // connections of the pool may be dead and not know it
			s.pool.Reset()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		began := time.Now()
		r, err := s.question(ctx)
		if err != nil {
			return err
		}
		f.skew.Store(int64(began.Add(time.Since(began) / 2).Sub(r.clock)))
		switch {
		case r.readOnly:
			return errReadOnly
		case r.life != s.life:
			return fmt.Errorf("schema %s holds the data of another installation now, or of a backup: restart", s.o.Schema)
		case r.boot == "":
			if err := s.sign(ctx); err != nil {
				return err
			}
			continue
		}
		if f.place.snapshot != "" {
			gap = r.boot != f.place.boot || r.turn-f.place.turn > changesKept || len(r.changes) > maxChanges || r.before(f.place)
			s.tell(r, gap)
		}
		if r.events || gap || f.broken {
			s.watchers.ring()
		}
		f.place, f.broken = r.place, false
		f.heard.Store(&began)
		return nil
	}
}

// before reports whether the log has gone back behind the other place, as that of a server whose files were put back as they
// had been: what it tells until it is there again would count as told.
func (p place) before(o place) bool {
	now, err1 := parseSnapshot(p.snapshot)
	was, err2 := parseSnapshot(o.snapshot)
	return err1 != nil || err2 != nil || now.max < was.max || now.min < was.min || p.turn < o.turn
}

// A reading is an answer of the server's.
type reading struct {
	place
	clock    time.Time
	life     string
	readOnly bool
	events   bool // there are new ones
	changes  []change
}

type change struct {
	root   store.ID
	node   int64
	number int64
	took   time.Duration // from when it was written until it was read
}

// question asks what has become visible since the feed's place.
func (s *Store) question(ctx context.Context) (*reading, error) {
	var since *string
	if s.feed.place.snapshot != "" {
		since = &s.feed.place.snapshot
	}
	rows, err := s.feed.conn.Query(ctx, readSQL, since)
	if err != nil {
		return nil, err
	}
	r := &reading{}
	var root []byte
	var node, number, took *int64
	_, err = pgx.ForEachRow(rows, []any{&r.snapshot, &r.clock, &r.boot, &r.life, &r.turn, &r.readOnly, &r.events, &root, &node, &number, &took},
		func() error {
			if node == nil {
				return nil // no change
			}
			id, _ := store.ParseID(root) // the zero ID, which means all, if it is no id
			r.changes = append(r.changes, change{id, *node, *number, time.Duration(*took) * time.Microsecond})
			return nil
		})
	if err == nil && r.snapshot == "" {
		err = errors.New("the schema is empty")
	}
	return r, err
}

// sign writes a boot id where there is none: the server has recovered since, or is new.
func (s *Store) sign(ctx context.Context) error {
	_, err := s.feed.conn.Exec(ctx, `INSERT INTO boot (id) VALUES (gen_random_uuid()::text) ON CONFLICT DO NOTHING`)
	return err
}

// tell calls the listeners for what was read.
func (s *Store) tell(r *reading, gap bool) {
	f := &s.feed
	if gap {
		s.log.Warn("store: changes may have been missed: everything kept in memory is dropped")
	}
	var told []store.ID
	f.mu.Lock()
	if gap {
		f.count.Gaps++
		told = append(told, store.ID{})
	} else {
		for _, c := range r.changes {
			f.count.Took(c.took)
			_, doubt := f.doubts[c.number]
			if c.node != s.node || doubt || f.tooBig {
				told = append(told, c.root)
			}
			if c.node == s.node {
				delete(f.doubts, c.number)
			}
		}
	}
	f.mu.Unlock()
	for _, root := range told {
		s.notify.call(root)
	}
}
