// Package redisstore keeps records in Redis or Valkey 7.0 or later: one server, a master watched by Sentinel, or a Cluster.
// Any number of processes share it.
//
// What it promises, and what it does not. Every change is one atomic script in one hash slot. A change is answered when
// the master has it and, where a replica could take the master's place, when a replica has it too ([Options.Confirm]);
// fewer copies than that are store.ErrUnconfirmed. Redis replicates asynchronously and forgets what the promoted replica
// had not got, so that every process keeps its own changes of the last ten minutes and makes them again when a master
// was replaced, before it takes anything from its memory again. What survives is therefore: the loss of any one Redis
// process, and the loss of more of them as far as the processes that made the changes are alive; until these have heard of
// the new master, which takes a lease at most, others may read from it what was lost. Whoever may not lose a revocation
// whatever happens uses the embedded store or PostgreSQL.
//
// While a Cluster's slot moves to another master, changes of its group that make new records, and reads of several of its
// records at once, are refused until all of its keys have arrived: move slots when little is going on.
//
// In a Cluster, and with Sentinel, a master that was cut off stops being trusted: a Cluster's master by itself, after
// cluster-node-timeout; one that Sentinel watches as soon as most of the sentinels do not name it any more. A standalone
// server has nothing like that: if somebody promotes a replica of it by hand while the old master still runs, both take
// changes, and whatever goes to the old one is lost.
//
// The server must not evict records (maxmemory-policy noeviction): Open refuses anything else. Start with [Open].
package redisstore

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// Options configure Open. The zero value works.
type Options struct {
	// Confirm is how many replicas must have a change before Apply answers it. Zero, the default, means one where a
	// replica could take the master's place: as long as the cluster, the sentinels or the master itself know of one that
	// is not down. With a master that has lost its only replica it asks for none, so that a failover does not end all
	// sign-ins until there is a new replica. Where masters have several replicas, the one that has most of the changes is
	// usually chosen; asking for as many as there are makes sure of it. A positive number is asked for whatever happens, and without that many
	// replicas every change is store.ErrUnconfirmed. Negative means none.
	Confirm int
	// ConfirmTimeout is how long Apply waits for the replicas. Zero means 500 ms.
	ConfirmTimeout time.Duration
	// Events is how many events are kept, at least, in each of the 64 groups of partitions for watchers that are behind.
	// Zero means 2,000.
	Events int
	// Logger receives operational messages, never a record's content and no password. Nil discards them.
	Logger *slog.Logger

	// prefix stands in front of every key, so that tests can share a server. Empty means "al".
	prefix string
	// logged is about how many entries a group's change log keeps. Zero means 10,000.
	logged int
}

func (o Options) withDefaults() Options {
	if o.ConfirmTimeout <= 0 {
		o.ConfirmTimeout = 500 * time.Millisecond
	}
	if o.Events <= 0 {
		o.Events = 2000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.prefix == "" {
		o.prefix = "al"
	}
	if o.logged <= 0 {
		o.logged = 10_000
	}
	return o
}

const (
	// ioTimeout is how long a server may take to answer, and a connection to be made.
	ioTimeout = 500 * time.Millisecond
	// keepAlive is how long a connection may be idle before it is asked for a sign of life.
	keepAlive = 250 * time.Millisecond
	// probeEvery is how often every group's change log is read at least.
	probeEvery = store.Lease / 4
)

// A Store is a store.Store, store.Shared and store.Bulk in Redis.
type Store struct {
	o      Options
	source source // where the masters are named
	log    *slog.Logger
	keys   keys
	self   string // 8 random bytes: who wrote an entry of the change log

	topo   topology
	told   told
	feed   feed
	outbox outbox
	health health

	sequence atomic.Uint64 // numbers the Applies
	begun    chan struct{} // closed when the places in all streams are known

	// life is held for reading by every call, and for writing by Close.
	life   sync.RWMutex
	closed bool
	ending context.Context // ends when the store is closed
	end    context.CancelFunc
	wg     sync.WaitGroup // the goroutines
}

var (
	_ store.Shared = (*Store)(nil)
	_ store.Bulk   = (*Store)(nil)
)

// enter begins a call. Unless it returns an error, exit must follow.
func (s *Store) enter(ctx context.Context) error {
	s.life.RLock()
	if s.closed {
		s.life.RUnlock()
		return store.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		s.life.RUnlock()
		return err
	}
	return nil
}

func (s *Store) exit() { s.life.RUnlock() }

// Close implements store.Store.
func (s *Store) Close() error {
	s.life.Lock()
	if s.closed {
		s.life.Unlock()
		return store.ErrClosed
	}
	s.closed = true
	s.life.Unlock()
	s.end()
	s.wg.Wait()
	s.topo.close()
	if w, ok := s.source.(*watched); ok {
		w.close()
	}
	return nil
}
