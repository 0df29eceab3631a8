package afterlogin

import (
	"sync"
	"sync/atomic"

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

	// subjects says which was the last change of a subject, by a hash of its id: changed counts them all. An entry remembers
	// what stood there: one sign-out everywhere drops any number of entries without finding them. A collision costs a read.
	subjects [1<<16 + 1]atomic.Uint64 // the last one, which never changes, is for sessions without a subject
	changed  atomic.Uint64

	// roots counts the changes of roots in the same way, for what lives under them.
	roots [1<<14 + 1]atomic.Uint32 // the last one, which never changes, is for roots themselves
}

type shard struct {
	mu      sync.RWMutex
	entries map[uint64]*entry // by 64 random bits of the id: should two ids share them, one is not cached
	ring    []*entry          // all entries, and nil where one was dropped; the clock's face
	free    []int             // places in ring that are nil
	hand    int
	changes uint64 // how often drop was called: a fill that began before does not go in

	evictions uint64

	// These stand beside the lock, in memory that a look-up has at hand anyway.
	hits     atomic.Uint64 // answers from the cache
	partial  atomic.Uint64 // what it knew, and something else may still refuse
	unleased atomic.Uint64 // what would have been one of these, had there been a lease
}

// entry is laid out so that what decides stands together in front: most of what a hit costs is memory.
type entry struct {
	id         store.ID
	generation uint32
	subject    uint32        // the slot of the subject in cache.subjects
	place      int32         // in the ring
	changes    uint64        // what stood there when the entry was made
	root       uint32        // the slot of a child's root in cache.roots
	rootChange uint32        // what stood there
	elsewhere  uint16        // the subject's partition and one, if that is not the id's: of imported keys; else 0
	used       atomic.Bool   // since the hand came by
	seen       atomic.Bool   // whether the toucher knows that the current generation is in use
	quiet      atomic.Uint32 // the age in seconds from which a rehearsal of the absolute limit has something to say
	lastSeen   atomic.Int64
	absolute   int64 // 0: none
	idle       int64 // milliseconds; 0: none
	touch      int64 // milliseconds after which a use is noted again
	renewalAt  int64 // when a renewal is due; 0: never
	verifier   [opaque.VerifierSize]byte
	grant      *sight // of an access token: what its first use says
	// session is what Validate returns: one snapshot for everybody who asks within a second. It is replaced, never changed.
	session atomic.Pointer[Session]
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
	shard   *shard
	changes uint64
	changed uint64 // what cache.changed was
	roots   uint32
	root    uint32
}

func (c *cache) begin(id store.ID) filling {
	s := c.shard(id.Hash())
	f := filling{shard: s, changed: c.changed.Load(), root: uint32(len(c.roots) - 1)}
	if id.IsChild() {
		f.root = c.rootSlot(id.Root())
		f.roots = c.roots[f.root].Load()
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	f.changes = s.changes
	return f
}

// put adds the entry, of a session of the subject (zero: none), unless a change came between the read and now.
func (c *cache) put(f filling, subject store.ID, e *entry) {
	if c.limit == 0 {
		return
	}
	e.subject = uint32(len(c.subjects) - 1)
	if !subject.IsZero() {
		e.subject = c.subjectSlot(subject)
		if p := subject.Partition(); p != e.id.Partition() {
			e.elsewhere = uint16(p) + 1
		}
	}
	if e.changes = c.subjects[e.subject].Load(); e.changes > f.changed {
		return
	}
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
		e.place = int32(s.free[len(s.free)-1])
		s.free = s.free[:len(s.free)-1]
		s.ring[e.place] = e
	case len(s.ring) < c.limit:
		e.place = int32(len(s.ring))
		s.ring = append(s.ring, e)
	default:
		e.place = int32(s.evict())
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
		s.evictions++
		return s.hand
	}
}

// drop forgets what was derived from the root, or from the subject; of the zero ID, everything.
func (c *cache) drop(id store.ID) {
	switch {
	case id.IsZero():
		for i := range c.shards {
			c.shards[i].clear()
		}
		return
	case id.IsSubject():
		// Counted first: a fill that begins between the two reads what the change made.
		n, slot := c.changed.Add(1), &c.subjects[c.subjectSlot(id)]
		for old := slot.Load(); old < n && !slot.CompareAndSwap(old, n); old = slot.Load() {
		}
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
		s.free = append(s.free, int(e.place))
	}
}

// clear forgets everything, and what is being read.
func (s *shard) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	clear(s.entries)
	clear(s.ring) // for what it points to
	s.ring, s.free, s.hand = s.ring[:0], s.free[:0], 0
}
