package redisstore

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/store"
)

// A rig is a cluster that a test may break, and a store on it.
type rig struct {
	*testing.T
	c *servers.RedisCluster
	s *Store
}

func newRig(t *testing.T, o Options, config ...string) *rig {
	t.Helper()
	c, err := servers.StartRedisCluster(t.TempDir(), config...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop() })
	r := &rig{t, c, nil}
	r.s = r.open(o)
	return r
}

func (r *rig) url() string { return "redis://" + strings.Join(r.c.Addrs(), ",") + "/?cluster" }

func (r *rig) open(o Options) *Store {
	r.Helper()
	if o.prefix == "" {
		o.prefix = "al"
	}
	return openAt(r.T, r.url(), o)
}

// pair returns a group's master, as the cluster's nodes see it, and one of its replicas.
func (r *rig) pair(g int) (master, replica *servers.Process) {
	r.Helper()
	if err := r.s.topo.renew(r.Context()); err != nil {
		r.Fatal(err)
	}
	n, err := r.s.topo.master(g)
	if err != nil {
		r.Fatal(err)
	}
	for _, p := range r.c.Nodes {
		if p.Addr == n.addr {
			master = p
		} else if info, err := p.Do("INFO", "replication"); err == nil && strings.Contains(info, "role:slave") &&
			strings.Contains(info, "master_port:"+n.addr[strings.LastIndexByte(n.addr, ':')+1:]+"\r") {
			replica = p
		}
	}
	if master == nil || replica == nil {
		r.Fatalf("group %d has master %v, replica %v", g, master, replica)
	}
	return master, replica
}

func (r *rig) ready() {
	r.Helper()
	if err := r.c.Ready(); err != nil {
		r.Fatal(err)
	}
}

// A load changes roots of one group without end, and remembers what was answered.
type load struct {
	s      *Store
	g      int
	stop   context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	acked  map[store.ID]uint64 // the version that was answered last
	failed []time.Time
	kinds  map[string]int
	worst  time.Duration // the longest time without an answered change
	last   time.Time
}

func startLoad(t testing.TB, s *Store, g int) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{s: s, g: g, stop: cancel, acked: map[store.ID]uint64{}, kinds: map[string]int{}, last: time.Now()}
	for range 4 {
		l.wg.Go(func() { l.run(ctx) })
	}
	return l
}

func (l *load) run(ctx context.Context) {
	r := rootIn(l.g)
	for ctx.Err() == nil {
		err := l.s.Apply(ctx, r.ID, store.Put(r, r.Version-1), store.Emit(store.Event{Type: "changed", ID: r.ID}))
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		if err != nil {
			l.failed = append(l.failed, time.Now())
			l.kinds[kindOf(err)]++
		} else {
			l.acked[r.ID] = r.Version
			l.worst = max(l.worst, time.Since(l.last))
			l.last = time.Now()
		}
		l.mu.Unlock()
		switch {
		case err == nil:
			if r = next(r); r.Version > 20 {
				r = rootIn(l.g)
			}
		case errors.Is(err, store.ErrConflict): // what was unknown has happened, or what was answered was lost and is checked below
			got, err := l.s.Get(ctx, r.ID)
			if err == nil && got[0] != nil {
				r = next(got[0])
			}
		default:
			sleep(ctx, 5*time.Millisecond)
		}
	}
}

func kindOf(err error) string {
	for _, k := range []struct {
		name string
		err  error
	}{{"unconfirmed", store.ErrUnconfirmed}, {"unknown", store.ErrUnknown}, {"conflict", store.ErrConflict}, {"unavailable", ErrUnavailable}} {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	return err.Error()
}

// end stops the load, and fails if an answered change is not there.
func (l *load) end(t testing.TB) {
	t.Helper()
	ended := time.Now()
	waitFor(t, "a change", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.last.After(ended.Add(100 * time.Millisecond))
	})
	l.stop()
	l.wg.Wait()
	lost := 0
	for id, version := range l.acked {
		got, err := l.s.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if got[0] == nil || got[0].Version < version {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d answered changes are lost", lost, len(l.acked))
	}
	t.Logf("%d roots; longest time without an answered change: %v; errors: %v", len(l.acked), l.worst.Round(time.Millisecond), l.kinds)
	if l.worst > 4*time.Second*slow {
		t.Errorf("%v without an answered change, want at most 4 s", l.worst)
	}
}

// Masters are killed, hung and taken over from. Changes work again within four seconds, none that was answered is lost, and
// whoever listens is told to drop everything before the partition counts as heard again.
func TestClusterFailover(t *testing.T) {
	r := newRig(t, Options{})
	h := hear(r.s)
	const g = 20
	for _, way := range []struct {
		name  string
		fault func(master, replica *servers.Process) error
		heal  func(master *servers.Process) error
	}{
		{"Kill", func(m, _ *servers.Process) error { return m.Kill() }, (*servers.Process).Start},
		{"Hang", func(m, _ *servers.Process) error { return m.Pause() }, (*servers.Process).Resume},
		{"Takeover", func(_, p *servers.Process) error { _, err := p.Do("CLUSTER", "FAILOVER", "TAKEOVER"); return err },
			func(*servers.Process) error { return nil }},
	} {
		t.Run(way.name, func(t *testing.T) {
			r.T = t
			master, replica := r.pair(g)
			l := startLoad(t, r.s, g)
			time.Sleep(200 * time.Millisecond)
			h.clear()
			began := time.Now()
			if err := way.fault(master, replica); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "a new master", func() bool { n, err := r.s.topo.master(g); return err == nil && n.addr == replica.Addr })
			t.Logf("new master after %v", time.Since(began).Round(time.Millisecond))
			moved := time.Now()
			waitFor(t, "hearing", func() bool { return r.s.Heard(g * 16).After(moved) })
			t.Logf("heard again after %v", time.Since(began).Round(time.Millisecond))
			if _, ok := h.heard(store.ID{}); !ok {
				t.Errorf("the partition is heard again, and nobody was told to drop what came from the old master")
			}
			l.end(t)
			if err := way.heal(master); err != nil {
				t.Fatal(err)
			}
			r.ready()
			waitFor(t, "Writable", func() bool { return r.s.Writable() == nil })
		})
	}
}

// A node that keeps what it has read, as the core's cache does: it answers from that only while its lease is valid and it
// was not told otherwise. A client that trusts its connection instead serves revoked sessions for ten seconds.
func TestHungMasterServesNothing(t *testing.T) {
	r := newRig(t, Options{})
	keeper := r.open(Options{})
	h := hear(keeper)
	const g = 40
	root := rootIn(g)
	put(t, r.s, root)
	answers := func() bool {
		if _, told := h.heard(root.ID); told {
			return false
		}
		if _, all := h.heard(store.ID{}); all {
			return false
		}
		return time.Since(keeper.Heard(g*16)) < store.Lease
	}
	waitFor(t, "hearing", answers)
	master, replica := r.pair(g)
	if err := master.Pause(); err != nil {
		t.Fatal(err)
	}
	defer master.Resume()
	waitFor(t, "a new master", func() bool {
		got, err := replica.Do("INFO", "replication")
		return err == nil && strings.Contains(got, "role:master")
	})
	waitFor(t, "a revocation", func() bool {
		return r.s.Apply(t.Context(), root.ID, store.Mark(root.ID, now, "gone")) == nil
	})
	revoked := time.Now()
	stale := 0
	for time.Since(revoked) < 2*time.Second {
		if answers() && time.Since(revoked) > 0 {
			stale++
		}
		time.Sleep(time.Millisecond)
	}
	if stale > 0 {
		t.Errorf("a node would have answered from memory %d times after the revocation", stale)
	}
}

// A node that has lost its cluster answers PING, and, if it is set to, reads. It counts for nothing.
func TestClusterDownIsNotHeard(t *testing.T) {
	t.Run("Refusing", func(t *testing.T) { testClusterDown(t) })
	t.Run("ReadsWhenDown", func(t *testing.T) { testClusterDown(t, "cluster-allow-reads-when-down yes") })
}

func testClusterDown(t *testing.T, config ...string) {
	r := newRig(t, Options{}, config...)
	const g = 5
	master, _ := r.pair(g)
	root := rootIn(g)
	put(t, r.s, root)
	for _, p := range r.c.Nodes {
		if p != master {
			if err := p.Pause(); err != nil {
				t.Fatal(err)
			}
		}
	}
	waitFor(t, "CLUSTERDOWN", func() bool { _, err := master.Do("SET", r.s.keys.layout(g), layout); return err != nil })
	down := time.Now()
	if got := do(t, master, "PING"); got != "PONG" {
		t.Fatalf("PING = %q", got)
	}
	if _, err := master.Do("GET", r.s.keys.layout(g)); (err == nil) != (len(config) > 0) {
		t.Fatalf("GET = %v", err)
	}
	time.Sleep(store.Lease)
	if r.s.Heard(g * 16).After(down.Add(50 * time.Millisecond * slow)) {
		t.Errorf("the partition was heard from a node that answers CLUSTERDOWN")
	}
	if _, err := r.s.Get(t.Context(), root.ID); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Get = %v, want ErrUnavailable", err)
	}
	if err := r.s.Apply(t.Context(), root.ID, store.Mark(root.ID, now, "")); err == nil || errors.Is(err, store.ErrUnknown) {
		t.Errorf("Apply = %v, want an error that says that nothing happened", err)
	}
	for _, p := range r.c.Nodes {
		if p != master {
			if err := p.Resume(); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := waitFor(t, "a change", func() bool { return r.s.Apply(t.Context(), root.ID, store.Mark(root.ID, now, "")) == nil })
	t.Logf("changes again %v after the cluster came back", d.Round(time.Millisecond))
}

// WAIT is about the connection that wrote: a change that no replica has is not answered, and a retry confirms it.
func TestUnconfirmed(t *testing.T) {
	for name, o := range map[string]Options{"Default": {}, "One": {Confirm: 1}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, o)
			const g = 0
			root := rootIn(g)
			put(t, r.s, root)
			_, replica := r.pair(g)
			if err := replica.Pause(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			mark := func() error { return r.s.Apply(t.Context(), root.ID, store.Mark(root.ID, now, "gone")) }
			if err := mark(); !errors.Is(err, store.ErrUnconfirmed) {
				t.Fatalf("Apply = %v, want ErrUnconfirmed", err)
			}
			if err := mark(); !errors.Is(err, store.ErrUnconfirmed) {
				t.Fatalf("Apply of a mark that is there = %v, want ErrUnconfirmed", err)
			}
			t.Logf("two answers in %v", time.Since(began).Round(time.Millisecond))
			if got, err := r.s.Get(t.Context(), root.ID); err != nil || got[0].Marked != now {
				t.Errorf("Get = %+v, %v, want it marked", got, err)
			}
			// A replica that is down for good, as the cluster has agreed, cannot take the master's place.
			if name == "Default" {
				d := waitFor(t, "changes without a replica", func() bool { return mark() == nil })
				t.Logf("changes without the replica after %v", d.Round(time.Millisecond))
			} else {
				time.Sleep(3 * time.Second)
				if err := mark(); !errors.Is(err, store.ErrUnconfirmed) {
					t.Errorf("Apply = %v, want ErrUnconfirmed for as long as there is no replica", err)
				}
			}
			if err := replica.Resume(); err != nil {
				t.Fatal(err)
			}
			r.ready()
			waitFor(t, "a confirmation", func() bool { return mark() == nil })
		})
	}
}

// The recipe by which a revoked session comes back: the replica does not get the revocation, and becomes master. The
// revocation is not answered, and it holds afterwards, since who made it makes it again before anything counts as heard.
func TestResurrection(t *testing.T) {
	for name, o := range map[string]Options{"Default": {}, "One": {Confirm: 1}, "None": {Confirm: -1}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, o)
			keeper := r.open(o)
			h := hear(keeper)
			const g = 30
			root, rotated := rootIn(g), rootIn(g)
			put(t, r.s, root)
			put(t, r.s, rotated)
			master, replica := r.pair(g)
			do(t, master, "WAIT", "1", "1000")
			if err := replica.Pause(); err != nil {
				t.Fatal(err)
			}
			do(t, master, "CLIENT", "KILL", "TYPE", "replica")
			err := r.s.Apply(t.Context(), root.ID, store.Mark(root.ID, now, "gone"))
			if o.Confirm >= 0 && !errors.Is(err, store.ErrUnconfirmed) || o.Confirm < 0 && err != nil {
				t.Errorf("Apply = %v, want ErrUnconfirmed where it is to be confirmed", err)
			}
			if err := r.s.Apply(t.Context(), rotated.ID, store.Put(next(rotated), 1)); o.Confirm >= 0 && !errors.Is(err, store.ErrUnconfirmed) {
				t.Errorf("Apply = %v, want ErrUnconfirmed", err)
			}
			h.wait(t, root.ID)
			if err := master.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := replica.Resume(); err != nil {
				t.Fatal(err)
			}
			do(t, replica, "CLUSTER", "FAILOVER", "TAKEOVER")
			taken := time.Now()
			waitFor(t, "hearing", func() bool { return r.s.Heard(g * 16).After(taken) })
			waitFor(t, "the other node hearing", func() bool { return keeper.Heard(g * 16).After(taken) })
			for _, s := range []*Store{r.s, keeper} {
				got, err := s.Get(t.Context(), root.ID, rotated.ID)
				if err != nil {
					t.Fatal(err)
				}
				if got[0] == nil || got[0].Marked == 0 {
					t.Errorf("the revoked session is valid again: %+v", got[0])
				}
				if got[1] == nil || got[1].Version != 2 {
					t.Errorf("the rotation is undone: %+v", got[1])
				}
			}
			if _, ok := h.heard(store.ID{}); !ok {
				waitFor(t, "the other node dropping everything", func() bool { _, ok := h.heard(store.ID{}); return ok })
			}
			t.Logf("heard again, with the revocation, %v after the takeover", time.Since(taken).Round(time.Millisecond))
		})
	}
}

// A cluster that has lost a replica lets changes go unconfirmed. Should it then lose the master, too, and the stale replica
// take its place, the process that made a change makes it again.
func TestStaleReplica(t *testing.T) {
	r := newRig(t, Options{})
	keeper := r.open(Options{})
	const g = 30
	root := rootIn(g)
	put(t, r.s, root)
	master, replica := r.pair(g)
	do(t, master, "WAIT", "1", "1000")
	if err := replica.Pause(); err != nil {
		t.Fatal(err)
	}
	do(t, master, "CLIENT", "KILL", "TYPE", "replica")
	waitFor(t, "an answer", func() bool { return r.s.Apply(t.Context(), root.ID, store.Mark(root.ID, now, "gone")) == nil })
	if err := master.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := replica.Resume(); err != nil {
		t.Fatal(err)
	}
	do(t, replica, "CLUSTER", "FAILOVER", "TAKEOVER")
	taken := time.Now()
	waitFor(t, "hearing", func() bool { return r.s.Heard(g * 16).After(taken) })
	for _, s := range []*Store{r.s, keeper} {
		if got, err := s.Get(t.Context(), root.ID); err == nil && (got[0] == nil || got[0].Marked == 0) {
			t.Errorf("the revoked session is valid again, and the process that has revoked it counts as hearing: %+v", got[0])
		}
	}
	d := time.Since(taken)
	t.Logf("made again within %v of the takeover", d.Round(time.Millisecond))
	if d > 2*store.Lease*slow {
		t.Errorf("it took %v", d)
	}
}

// Nodes that have missed a change of masters are not believed once it is known, unless most of the nodes say the same: then
// the cluster was made anew.
func TestPlanOfThePast(t *testing.T) {
	r := newRig(t, Options{})
	for _, p := range r.c.Nodes[2:] {
		if err := p.Pause(); err != nil {
			t.Fatal(err)
		}
	}
	r.s.topo.renewing.Lock()
	r.s.topo.epoch += 100
	r.s.topo.renewing.Unlock()
	if err := r.s.topo.renew(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("renew = %v, want ErrUnavailable", err)
	}
	for _, p := range r.c.Nodes[2:] {
		if err := p.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "a plan", func() bool { return r.s.topo.renew(t.Context()) == nil })
}
