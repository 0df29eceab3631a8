package redisstore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/store"
)

// A plan says which server is master of which group.
type plan struct {
	masters  [groups]string // addresses; empty: nobody
	replicas map[string]int // how many replicas of a master are not down
	others   []string       // servers that may become masters
	at       time.Time      // when the question was sent that the plan answers
}

// A source names the masters.
type source interface {
	// plan asks. known are the addresses of all servers that were ever named.
	plan(ctx context.Context, t *topology, known []string) (*plan, error)
	// every is how often to ask.
	every() time.Duration
	// trusted is how long a plan may be believed; 0 means for ever.
	trusted() time.Duration
	// clustered reports whether the masters are a Cluster's.
	clustered() bool
	option(addr string) rueidis.ClientOption
}

// A topology keeps the plan, and the nodes.
type topology struct {
	s       *Store
	current atomic.Pointer[route]
	kicked  chan struct{}

	// renewing is held while the source is asked.
	renewing sync.Mutex
	asked    atomic.Int64 // how often it was
	epoch    int64        // of the cluster, as of the plan that was believed last

	mu    sync.Mutex
	nodes map[string]*node
}

// A route is a plan with its nodes.
type route struct {
	masters [groups]*node
	at      time.Time
}

func (t *topology) init(s *Store) {
	t.s, t.kicked, t.nodes = s, make(chan struct{}, 1), make(map[string]*node)
}

// master returns the master of a group, if it may be believed to be the master.
func (t *topology) master(g int) (*node, error) {
	r := t.current.Load()
	if d := t.s.source.trusted(); d > 0 && !t.fresh(r.at, d) {
		t.kick()
		return nil, fmt.Errorf("%w: no majority of the sentinels has named the master within %v", ErrUnavailable, d)
	}
	n := r.masters[g]
	if n == nil {
		t.kick()
		return nil, fmt.Errorf("%w: no master serves hash slot %d", ErrUnavailable, slots[g])
	}
	if n.demoted.Load() {
		t.kick()
		return nil, fmt.Errorf("%w: %s is no master now, or has lost its cluster", ErrUnavailable, n.addr)
	}
	return n, nil
}

// fresh reports whether less than d has passed since at, by both clocks: the monotonic one stands still while a machine
// is suspended.
func (t *topology) fresh(at time.Time, d time.Duration) bool {
	now := time.Now()
	return now.Sub(at) < d && now.Round(0).Sub(at.Round(0)) < d
}

// node returns the node with an address.
func (t *topology) node(addr string) (*node, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.nodes == nil {
		return nil, store.ErrClosed
	}
	n := t.nodes[addr]
	if n == nil {
		n = newNode(t.s, addr)
		t.nodes[addr] = n
	}
	n.serve()
	return n, nil
}

// peer returns the node with an address, for questions about the topology.
func (t *topology) peer(addr string) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[addr]
	if n == nil {
		n = newNode(t.s, addr)
		if t.nodes != nil {
			t.nodes[addr] = n
		}
	}
	return n
}

// kick has the source asked soon.
func (t *topology) kick() {
	select {
	case t.kicked <- struct{}{}:
	default:
	}
}

// follow asks the source every now and then, and when it is kicked, until the store is closed.
func (t *topology) follow() {
	tick := time.NewTicker(t.s.source.every())
	defer tick.Stop()
	for {
		select {
		case <-t.s.ending.Done():
			return
		case <-tick.C:
		case <-t.kicked:
		}
		t.renew(t.s.ending)
		if sleep(t.s.ending, 50*time.Millisecond) != nil { // kicks come in flocks
			return
		}
	}
}

// renew asks the source, unless somebody else has begun to since renew was called.
func (t *topology) renew(ctx context.Context) error {
	before := t.asked.Load()
	t.renewing.Lock()
	defer t.renewing.Unlock()
	if t.asked.Load() > before+1 {
		return nil
	}
	t.asked.Add(1)
	ctx, cancel := context.WithTimeout(ctx, 2*ioTimeout)
	defer cancel()
	p, err := t.s.source.plan(ctx, t, t.known())
	if err != nil {
		t.s.health.noPlan(err)
		return err
	}
	t.s.health.noPlan(nil)
	t.install(p)
	return nil
}

func (t *topology) known() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	addrs := make([]string, 0, len(t.nodes))
	for a := range t.nodes {
		addrs = append(addrs, a)
	}
	slices.Sort(addrs)
	return addrs
}

// install makes the plan the current one, and ends what nobody names any more.
func (t *topology) install(p *plan) {
	r := &route{at: p.at}
	named := map[string]bool{}
	for g, addr := range p.masters {
		if addr == "" {
			continue
		}
		n, err := t.node(addr)
		if err != nil {
			return
		}
		named[addr] = true
		r.masters[g] = n
		if p.replicas != nil {
			n.replicas.Store(int64(p.replicas[addr]))
		}
	}
	for _, addr := range p.others {
		named[addr] = true
		t.peer(addr)
	}
	old := t.current.Swap(r)
	if old == nil || old.masters != r.masters {
		for g, n := range r.masters {
			if old != nil && old.masters[g] != nil && n != nil && old.masters[g] != n && (g == 0 || r.masters[g-1] != n) {
				t.s.log.Info("another server is master", "was", old.masters[g].addr, "is", n.addr)
			}
			if n != nil && (old == nil || old.masters[g] != n) {
				n.wake()
			}
		}
	}
	if old != nil {
		for i, n := range old.masters {
			if n != nil && !slices.Contains(r.masters[:], n) && !slices.Contains(old.masters[:i], n) {
				n.reroute()
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, n := range t.nodes {
		if !named[addr] {
			delete(t.nodes, addr)
			n.stop()
		}
	}
}

func (t *topology) close() {
	t.mu.Lock()
	nodes := t.nodes
	t.nodes = nil
	t.mu.Unlock()
	for _, n := range nodes {
		n.stop()
	}
	t.s.wg.Wait()
}
