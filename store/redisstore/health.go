package redisstore

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// maxSkew is how far this process's clock and a server's may differ: expiry and the lease are told by both.
const maxSkew = 2 * time.Second

// ErrClock is what Writable reports if this machine's clock and the server's differ by more than two seconds.
var ErrClock = errors.New("redisstore: the clocks differ")

// A health is what is known of the servers without asking.
type health struct {
	mu     sync.Mutex
	lost   error             // why the source names no master
	trials map[string]trial  // the last failure, by server
	bad    map[string]string // servers that evict records, with their policy
	fullAt time.Time         // when a server last had no room
}

type trial struct {
	err error
	at  time.Time
}

// Writable reports whether the store can take changes now: store.ErrFull if a server had no room a moment ago, ErrClock,
// ErrUnavailable if a master was not heard from for two leases, or nobody says which it is; another error if the store is
// closed, or a server has been set to evict records. It asks nobody and does not wait.
func (s *Store) Writable() error {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed {
		return store.ErrClosed
	}
	h := &s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost != nil {
		return h.lost
	}
	for addr, policy := range h.bad {
		return errPolicy(addr, policy)
	}
	route := s.topo.current.Load()
	for g, n := range route.masters {
		if n == nil {
			return fmt.Errorf("%w: no master serves hash slot %d", ErrUnavailable, slots[g])
		}
		if at := s.feed.heard[g].Load(); at == nil || time.Since(*at) > 2*store.Lease {
			if t, ok := h.trials[n.addr]; ok && time.Since(t.at) < 4*store.Lease {
				return unavailable(n.addr, t.err)
			}
			return fmt.Errorf("%w: %s does not answer", ErrUnavailable, n.addr)
		}
		if d := time.Duration(n.skew.Load()); d.Abs() > maxSkew {
			return fmt.Errorf("%w: this machine's is %v ahead of that of %s; set both by NTP", ErrClock, d.Round(time.Millisecond), n.addr)
		}
	}
	if time.Since(h.fullAt) < 2*store.Lease {
		return fmt.Errorf("redisstore: %w", store.ErrFull)
	}
	return nil
}

// failed notes that a server did not answer, or not as it should.
func (h *health) failed(addr string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trials == nil {
		h.trials = make(map[string]trial)
	}
	h.trials[addr] = trial{err, time.Now()}
}

func (h *health) noPlan(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = err
}

func (h *health) applied(err error) {
	if err == nil || !errors.Is(err, store.ErrFull) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fullAt = time.Now()
}

// probed takes in what a server says of itself.
func (h *health) probed(n *node, info map[string]string) {
	if f, ok := n.s.source.(fixed); ok && f.mode == standalone {
		n.countReplicas(info)
	}
	following := 0
	for name, text := range info {
		if strings.HasPrefix(name, "slave") && strings.Contains(text, "state=online") &&
			(strings.HasSuffix(text, "lag=0") || strings.HasSuffix(text, "lag=1")) {
			following++
		}
	}
	n.following.Store(int64(following))
	policy := info["maxmemory_policy"]
	limit, _ := strconv.ParseUint(info["maxmemory"], 10, 64)
	used, _ := strconv.ParseUint(info["used_memory"], 10, 64)
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.trials, n.addr)
	if policy != "" && policy != noEviction {
		if h.bad[n.addr] == "" {
			n.s.log.Error("the server may evict records", "server", n.addr, "maxmemory-policy", policy)
		}
		if h.bad == nil {
			h.bad = make(map[string]string)
		}
		h.bad[n.addr] = policy
	} else {
		delete(h.bad, n.addr)
	}
	if limit > 0 && used > limit {
		h.fullAt = time.Now()
	}
}

// countReplicas keeps how many replicas a server has that nobody else watches. One that is gone counts for a minute.
func (n *node) countReplicas(info map[string]string) {
	now := time.Now().UnixNano()
	if c, _ := strconv.Atoi(info["connected_slaves"]); c > 0 {
		n.replicas.Store(int64(c))
		n.replicaSeen.Store(now)
	} else if now-n.replicaSeen.Load() > int64(time.Minute) {
		n.replicas.Store(0)
	}
}

const noEviction = "noeviction"

func errPolicy(addr, policy string) error {
	return fmt.Errorf("redisstore: %s: maxmemory-policy is %s, which drops records when memory is short; set it to %s",
		addr, policy, noEviction)
}
