package history

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/store"
)

// nodeTimeout is the cluster's: after it, a master that cannot be reached is replaced, and one that cannot reach the others
// answers nothing.
const nodeTimeout = time.Second

func startRedis(t testing.TB, config ...string) *servers.Process {
	t.Helper()
	p, err := servers.StartRedis(t.TempDir(), config...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill() })
	return p
}

// A ring is a cluster whose masters come and go.
type ring struct{ *servers.RedisCluster }

func startCluster(t testing.TB) ring {
	t.Helper()
	c, err := servers.StartRedisCluster(t.TempDir(), fmt.Sprint("cluster-node-timeout ", nodeTimeout.Milliseconds()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range c.Nodes {
			p.Kill()
		}
	})
	return ring{c}
}

func (c ring) url() string {
	return "redis://" + c.Nodes[0].Addr + "," + c.Nodes[4].Addr + "/?cluster"
}

// pair returns the master and the replica of the i-th third of the slots, as they see it.
func (c ring) pair(i int) (master, replica *servers.Process, err error) {
	for _, p := range []*servers.Process{c.Nodes[i], c.Nodes[i+3]} {
		info, err := p.Do("INFO", "replication")
		switch {
		case err != nil:
			return nil, nil, err
		case strings.Contains(info, "role:master"):
			master = p
		default:
			replica = p
		}
	}
	if master == nil || replica == nil {
		return nil, nil, errors.New("there is no master with a replica")
	}
	return master, replica, nil
}

// promoted waits until the server is a master.
func promoted(p *servers.Process) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if info, err := p.Do("INFO", "replication"); err == nil && strings.Contains(info, "role:master") {
			return nil
		}
	}
	return errors.New("the replica was not promoted within 20 s")
}

// failover is how long answers may be missing when a master is gone.
const (
	failover = 4 * time.Second
	slack    = 1500 * time.Millisecond // after the promotion, where that takes long since the machine is busy
)

// faults are all that happens to a cluster, each followed by what heals it.
func (c ring) faults(t testing.TB, rng *rand.Rand) []*fault {
	var p, q *servers.Process
	gone := func(err error) error { // waits until the replica has taken over
		began := time.Now()
		err = errors.Join(err, promoted(q))
		t.Logf("the replica was promoted after %d ms", time.Since(began).Milliseconds())
		return err
	}
	pick := func() (err error) {
		p, q, err = c.pair(rng.IntN(3))
		return err
	}
	return []*fault{
		{name: "a master is killed", limit: failover, slack: slack, do: func() error {
			return gone(errors.Join(pick(), p.Kill()))
		}},
		{name: "it comes back", limit: failover, do: func() error { return errors.Join(p.Start(), c.Ready()) }},
		{name: "a master hangs", limit: failover, slack: slack, do: func() error {
			return gone(errors.Join(pick(), p.Pause()))
		}},
		{name: "it goes on, replaced", limit: failover, do: func() error { return errors.Join(p.Resume(), c.Ready()) }},
		{name: "a replica takes over", limit: failover, do: func() error {
			if err := pick(); err != nil {
				return err
			}
			_, err := q.Do("CLUSTER", "FAILOVER", "TAKEOVER")
			return errors.Join(err, c.Ready())
		}},
		{name: "a master hangs for half a second", limit: failover, do: func() error {
			if err := pick(); err != nil {
				return err
			}
			err := p.Pause()
			time.Sleep(500 * time.Millisecond)
			return errors.Join(err, p.Resume())
		}},
	}
}

// amount is how many operations a history in health has.
func amount(short int) int {
	if long {
		return fullAmount
	}
	return short
}

func inHealth(t *testing.T, url string, short int) {
	h := newHouse(t, url)
	w := newWorld(t, newSeed(), rules{grace: grace, bound: store.Lease}, h.nodes(3)...)
	n := amount(short)
	w.run(32, n)
	w.wait()
	looked, good, _ := w.sweep(w.everybody(), 1000)
	t.Logf("%d of %d sessions that nobody ended were good at the end", good, looked)
	w.enough(t, n, 0.999)
	w.pass(t)
}

func TestRedis(t *testing.T) {
	inHealth(t, "redis://"+startRedis(t, "appendonly yes").Addr, 30_000)
}

func TestCluster(t *testing.T) {
	inHealth(t, startCluster(t).url(), 30_000)
}

// Masters are killed, hung and taken over, and a node is stopped, while clients go on.
func TestClusterFaults(t *testing.T) {
	c := startCluster(t)
	h := newHouse(t, c.url())
	child := h.away()
	w := newWorld(t, newSeed(), rules{grace: grace, bound: store.Lease + nodeTimeout, forgets: true}, append(h.nodes(2), child)...)
	rng := rand.New(rand.NewPCG(w.seed, 2))
	w.run(24, 1<<30)
	w.clients.Go(w.meter)
	time.Sleep(2 * time.Second)
	var faults []*fault
	for round := 0; round == 0 || long && (round < 3 || w.done() < fullAmount); round++ {
		pause := 4 * time.Second
		if long {
			pause = 10 * time.Second
		}
		these := append(c.faults(t, rng), w.pauses(child, 2, pause))
		w.suffer(t, these)
		faults = append(faults, these...)
	}
	w.end()
	w.sweep(w.everybody(), 1000)
	w.enough(t, 5_000, 0.5)
	w.recovered(t, faults)
	w.pass(t)
}
