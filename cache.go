package afterlogin

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/store"
)

// cache holds sessions that were just found to be good. An entry may only ever say yes, and only to the current token;
// whatever it cannot say yes to is decided on a read of the store. The store calls drop with every change, before that
// change is answered, so that no entry outlives what it was made from.
//
// It is bounded, and evicts by the clock algorithm: what was used since the hand last came by stays.
type cache struct {
	shards [256]shard
	limit  int // entries per shard; 0 turns the cache off

	// subjects counts the changes of subjects, by a hash of their ids. An entry remembers the count it was made under:
	// one sign-out everywhere drops any number of entries without finding them. A collision costs a read.
	subjects [1<<16 + 1]atomic.Uint32 // the last one, which never changes, is for sessions without a subject

	// roots counts the changes of roots in the same way, for what lives under them.
	roots [1<<14 + 1]atomic.Uint32 // the last one, which never changes, is for roots themselves
}

// lease says until when the cache may be believed without having heard from the store: a store that is gone must not go
// unnoticed for longer. A read of the store that succeeds extends it; while sessions are in use, one of them is read
// again now and then for its sake.
type lease struct {
	start   time.Time
	from    atomic.Int64 // when the last read that succeeded was sent, in nanoseconds since start
	probing atomic.Int64 // when a request was last sent to the store for the lease's sake
}

// leaseTime is how long a lease lasts.
const leaseTime = time.Second

// holds reports whether the cache may answer now. In the second half of a lease it tells one request in a while that it
// may not, so that it asks the store while the others go on.
func (l *lease) holds(now time.Time) bool {
	at, from := int64(now.Sub(l.start)), l.from.Load()
	age := at - from
	if age < 0 || age >= int64(leaseTime) {
		return false
	}
	if age < int64(leaseTime)/2 {
		return true
	}
	probed := l.probing.Load()
	return at-probed < int64(leaseTime)/4 || !l.probing.CompareAndSwap(probed, at)
}

// extend notes a read that succeeded and was sent at the time.
func (l *lease) extend(sent time.Time) {
	at := int64(sent.Sub(l.start))
	for {
		from := l.from.Load()
		// A clock that went back starts anew.
		if at <= from && from-at < int64(leaseTime) || l.from.CompareAndSwap(from, at) {
			return
		}
	}
}

type shard struct {
	mu      sync.RWMutex
	entries map[uint64]*entry // by 64 random bits of the id: should two ids share them, one is not cached
	ring    []*entry          // all entries, and nil where one was dropped; the clock's face
	free    []int             // places in ring that are nil
	hand    int
	changes uint64 // how often drop was called: a fill that began before does not go in
}

// entry is laid out so that what decides stands together in front: most of what a hit costs is memory.
type entry struct {
	id         store.ID
	generation uint32
	subject    uint32      // the slot of the subject in cache.subjects
	changes    uint32      // what stood there when the entry was made
	root       uint32      // the slot of a child's root in cache.roots
	rootChange uint32      // what stood there
	used       atomic.Bool // since the hand came by
	seen       atomic.Bool // whether the toucher knows that the current generation is in use
	lastSeen   atomic.Int64
	absolute   int64 // 0: none
	idle       int64 // milliseconds; 0: none
	touch      int64 // milliseconds after which a use is noted again
	renewalAt  int64 // when a renewal is due; 0: never
	verifier   [opaque.VerifierSize]byte
	grant      *sight // of an access token: what its first use says
	// session is what Validate returns: one snapshot for everybody who asks within a second. It is replaced, never changed.
	session atomic.Pointer[Session]
	place   int // in the ring
}

// sight is what the first use of an access token says of the grant that it came with: that this generation is in use, as
// of this time at the earliest.
type sight struct {
	id         store.ID
	generation uint32
	from       int64
}

func newCache(size int) *cache {
	c := &cache{limit: max(size, 0) / 256}
	if size > 0 {
		c.limit = max(c.limit, 1)
	}
	for i := range c.shards {
		c.shards[i].entries = make(map[uint64]*entry)
	}
	return c
}

func (c *cache) shard(hash uint64) *shard { return &c.shards[hash>>56] }

func (c *cache) subjectSlot(id store.ID) uint32 { return uint32(id.Hash() % uint64(len(c.subjects)-1)) }

func (c *cache) rootSlot(id store.ID) uint32 { return uint32(id.Hash() % uint64(len(c.roots)-1)) }

// get returns the entry of the record, or nil.
func (c *cache) get(id store.ID) *entry {
	hash := id.Hash()
	s := c.shard(hash)
	s.mu.RLock()
	e := s.entries[hash]
	s.mu.RUnlock()
	if e == nil || e.id != id || e.changes != c.subjects[e.subject].Load() || e.rootChange != c.roots[e.root].Load() {
		return nil
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e
}

// filling is taken before the store is read, and given to put with what was read.
type filling struct {
	shard    *shard
	changes  uint64
	subjects uint32
	slot     uint32
	roots    uint32
	root     uint32
}

func (c *cache) begin(id store.ID) filling {
	s := c.shard(id.Hash())
	f := filling{shard: s, slot: uint32(len(c.subjects) - 1), root: uint32(len(c.roots) - 1)}
	if id.IsChild() {
		f.root = c.rootSlot(id.Root())
		f.roots = c.roots[f.root].Load()
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	f.changes = s.changes
	return f
}

// beginSubject is taken before the subject's record is read.
func (c *cache) beginSubject(f *filling, subject store.ID) {
	f.slot = c.subjectSlot(subject)
	f.subjects = c.subjects[f.slot].Load()
}

// put adds the entry, unless a change came between the read and now.
func (c *cache) put(f filling, e *entry) {
	if c.limit == 0 {
		return
	}
	e.subject, e.changes = f.slot, f.subjects
	e.root, e.rootChange = f.root, f.roots
	s, hash := f.shard, e.id.Hash()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes != f.changes {
		return
	}
	if old := s.entries[hash]; old != nil {
		e.place = old.place
		s.ring[e.place] = e
		s.entries[hash] = e
		return
	}
	switch {
	case len(s.free) > 0:
		e.place = s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		s.ring[e.place] = e
	case len(s.ring) < c.limit:
		e.place = len(s.ring)
		s.ring = append(s.ring, e)
	default:
		e.place = s.evict()
		s.ring[e.place] = e
	}
	s.entries[hash] = e
}

// evict makes room on a full ring, where no place is free, and returns the place.
func (s *shard) evict() int {
	for {
		s.hand = (s.hand + 1) % len(s.ring)
		e := s.ring[s.hand]
		if e.used.Swap(false) {
			continue
		}
		delete(s.entries, e.id.Hash())
		return s.hand
	}
}

// drop forgets what was derived from the root, or from the subject.
func (c *cache) drop(id store.ID) {
	if id.IsSubject() {
		c.subjects[c.subjectSlot(id)].Add(1)
		return
	}
	c.roots[c.rootSlot(id)].Add(1)
	hash := id.Hash()
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	if e := s.entries[hash]; e != nil {
		delete(s.entries, hash)
		s.ring[e.place] = nil
		s.free = append(s.free, e.place)
	}
}
