// Package pgstore keeps records and events in PostgreSQL, for any number of nodes. PostgreSQL 14 is the floor.
//
// What it answers is on the disk of the primary, and on those of its synchronous standbys if there are any: every
// connection sets synchronous_commit, and a server whose own setting is off is refused. Only what Touch writes may be lost.
//
// A change is one function call in the database, one round trip: it locks the root, compares and writes, and adds to
// the change log and to the events. Every node reads the change log: at once after a hint (an empty NOTIFY, sent after the
// commit, at most every 10 ms), and at least every fifth of a second, whether or not hints come through (see feed.go).
//
// Where a standby may take over, two things are PostgreSQL's operator's to see to: that it is a synchronous one
// (synchronous_standby_names), or it may not know of changes that were answered; and that the old primary is fenced before
// another takes its place, or nodes that reach only the old one go on hearing from it.
//
// Connections may go through PgBouncer in its session mode. Its transaction mode does not work: settings, prepared
// statements and LISTEN belong to a session. A transaction of anybody's that writes for long, in any database of the server,
// holds back Watch for as long as it runs, and nothing else.
//
// Start with [Open].
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/afterlogin/afterlogin/store"
)

// callTimeout ends every call to the server, whatever its context says: one that hangs must not collect goroutines.
const callTimeout = 5 * time.Second

// A Store is a store.Store in PostgreSQL.
type Store struct {
	o    Options
	log  *slog.Logger
	pool *pgxpool.Pool
	life string // of the data; stands in front of cursors
	salt uint64 // makes lock numbers this installation's own

	partitions partitions
	feed       feed
	hints      chan struct{} // to the hinter: something was changed
	writing    chan struct{} // holds an element for each Apply that is under way: some connections are left to reads
	watchers   bell
	notify     notify

	number  atomic.Int64 // of this node's Applies
	fullAt  atomic.Int64 // when the server last said that its disk is full, in nanoseconds since epoch
	resetAt atomic.Int64 // when the pool was last reset, likewise
	node    int64        // names this Store in the change log

	// open is held for reading by running calls, and by Close for writing.
	open   sync.RWMutex
	closed bool
	ending chan struct{} // closed when Close begins
	stop   context.CancelFunc
	tasks  sync.WaitGroup
}

var (
	_ store.Shared = (*Store)(nil)
	_ store.Bulk   = (*Store)(nil)
)

// epoch is of the monotonic clock.
var epoch = time.Now()

// Open connects to the server that a URL names (postgres://user:password@host:5432/database?sslmode=verify-full, and what
// else pgx takes), brings the schema up to date, and reads the change log for the first time. Several nodes may do so at
// once. It refuses a replica, a server that may forget what it has answered, and a schema that is too new for this program.
// No error shows the password. Whoever opens a Store closes it.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	config, err := parse(url, o)
	if err != nil {
		return nil, err
	}
	life, err := prepare(ctx, config, o)
	if err != nil {
		return nil, err
	}
	s := &Store{
		o: o, log: o.Logger, life: life, salt: hash("root", life),
		hints: make(chan struct{}, 1), writing: make(chan struct{}, o.MaxConns-(o.MaxConns+3)/4), node: int64(rand.Uint64()), ending: make(chan struct{}),
	}
	s.partitions.known = map[int]struct{}{}
	s.watchers.grown = make(chan struct{})
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("pgstore: %w", err)
	}
	s.feed.init(config.ConnConfig)
	running, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.tasks.Go(func() { s.listen(running) })
	if err := s.begin(ctx); err != nil {
		stop()
		s.tasks.Wait()
		s.feed.disconnect()
		s.pool.Close()
		return nil, err
	}
	s.tasks.Go(func() { s.follow(running) })
	s.tasks.Go(func() { s.hint(running) })
	s.tasks.Go(func() { s.maintain(running) })
	return s, nil
}

// begin does what has to be done before the first call.
func (s *Store) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := s.readLog(ctx, callTimeout); err != nil {
		return fmt.Errorf("pgstore: the change log: %w", err)
	}
	if err := s.prepareDays(ctx); err != nil {
		return fmt.Errorf("pgstore: partitions: %w", err)
	}
	return nil
}

// enter begins a call. If it returns no error, exit ends the call.
func (s *Store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.open.RLock()
	if s.closed {
		s.open.RUnlock()
		return store.ErrClosed
	}
	return nil
}

func (s *Store) exit() { s.open.RUnlock() }

// Close implements store.Store. It waits for running calls, a few seconds if the server hangs.
func (s *Store) Close() error {
	s.open.Lock()
	if s.closed {
		s.open.Unlock()
		return store.ErrClosed
	}
	s.closed = true
	close(s.ending)
	s.open.Unlock()
	s.stop()
	s.tasks.Wait()
	s.pool.Close()
	return nil
}

// with runs do on a connection of the pool. What it is given to do must be safe to repeat: a connection that has died since
// it was last used is no reason to fail.
func (s *Store) with(ctx context.Context, do func(ctx context.Context, c *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var err error
	for range 3 {
		err = s.once(ctx, do)
		if err == nil || ctx.Err() != nil || !isDead(err) {
			return err
		}
		s.reset()
	}
	return err
}

func (s *Store) once(ctx context.Context, do func(ctx context.Context, c *pgx.Conn) error) error {
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer c.Release()
	return do(ctx, c.Conn())
}

// reset gives up all connections of the pool, once a second at most: where one has died, others have.
func (s *Store) reset() {
	now, last := int64(time.Since(epoch)), s.resetAt.Load()
	if now-last >= int64(time.Second) && s.resetAt.CompareAndSwap(last, now) {
		s.pool.Reset()
	}
}

// notify calls the listeners.
type notify struct {
	// mu guards the listeners and is held while they run.
	mu        sync.Mutex
	listeners map[*func(store.ID)]struct{}
}

// Notify implements store.Store. Calls for this Store's own Applies come before they return.
func (s *Store) Notify(f func(root store.ID)) (stop func()) {
	n, l := &s.notify, &f
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners == nil {
		n.listeners = map[*func(store.ID)]struct{}{}
	}
	n.listeners[l] = struct{}{}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.listeners, l)
	}
}

func (n *notify) call(root store.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for f := range n.listeners {
		(*f)(root)
	}
}

// A bell is rung for everybody who waits.
type bell struct {
	mu    sync.Mutex
	grown chan struct{} // closed and replaced when the bell is rung
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.grown)
	b.grown = make(chan struct{})
}

// wait returns what is closed when the bell is next rung.
func (b *bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.grown
}

// wrap says what failed, once.
func wrap(what string, err error) error {
	if err == nil || errors.Is(err, store.ErrClosed) {
		return err
	}
	return fmt.Errorf("pgstore: %s: %w", what, err)
}
