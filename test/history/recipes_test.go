package history

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/store"
)

// The recipes by which a Redis Cluster makes forgotten revocations valid again, or a client goes on believing in them:
// research on rueidis and Redis found each of them to work on a plain client. Here a revocation is answered as not known,
// or it holds on every node.

// kitchen is three nodes on a cluster, and sessions in the memory of all of them.
type kitchen struct {
	*testing.T
	c        ring
	nodes    []node
	sessions []answer
	// third is which third of the slots the sessions' subject is in.
	third           int
	master, replica *servers.Process
}

func newKitchen(t *testing.T) *kitchen {
	t.Helper()
	c := startCluster(t)
	h := newHouse(t, c.url())
	k := &kitchen{T: t, c: c, nodes: h.nodes(3)}
	for range 6 {
		got := k.nodes[0].do(request{Verb: signIn, Subject: "mia"})
		if got.Outcome != ok {
			t.Fatalf("sign-in: %+v", got)
		}
		k.sessions = append(k.sessions, got)
	}
	// All of a subject is in one partition; which server has that is seen by who knows its keys.
	k.third = -1
	for i := range 3 {
		n, err := c.Nodes[i].Do("DBSIZE")
		if err != nil {
			t.Fatal(err)
		}
		before := n
		k.nodes[0].do(request{Verb: signIn, Subject: "mia"})
		if n, err = c.Nodes[i].Do("DBSIZE"); err != nil {
			t.Fatal(err)
		}
		if n != before {
			k.third = i
		}
	}
	if k.third < 0 {
		t.Fatal("no server has the sessions")
	}
	var err error
	if k.master, k.replica, err = c.pair(k.third); err != nil {
		t.Fatal(err)
	}
	for i := range k.nodes {
		for _, s := range k.sessions {
			for range 2 {
				if got := k.ask(i, s, false); got.Outcome != ok {
					t.Fatalf("node %d: %+v", i, got)
				}
			}
		}
	}
	return k
}

func (k *kitchen) ask(n int, s answer, fresh bool) answer {
	return k.nodes[n].do(request{Verb: validate, Token: s.Token, Fresh: fresh})
}

// A revoked session is one whose revocation was answered at a time.
type revoked struct {
	answer
	node int
	at   time.Time
}

// revoke revokes the session on the node, again and again as long as it is told that it is not known, for d at most.
func (k *kitchen) revoke(n int, s answer, d time.Duration) (r *revoked, how string) {
	k.Helper()
	began := time.Now()
	for {
		got := k.nodes[n].do(request{Verb: revoke, Session: s.Session})
		switch {
		case got.Outcome == ok:
			return &revoked{s, n, time.Now()}, fmt.Sprintf("revoked after %d ms", time.Since(began).Milliseconds())
		case got.Outcome != unknown:
			k.Fatalf("revoke: %+v", got)
		}
		if how = got.Err; time.Since(began) > d {
			return nil, how
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// watch asks all nodes about the sessions for d, and fails for every yes that comes too late.
func (k *kitchen) watch(what string, d time.Duration, over ...*revoked) {
	k.Helper()
	k.watchBut(what, d, 0, over...)
}

// watchBut is watch, but for what is said in the time since it was called, which is written down.
func (k *kitchen) watchBut(what string, d, but time.Duration, over ...*revoked) {
	k.Helper()
	since := time.Now()
	var wg sync.WaitGroup
	for n := range k.nodes {
		wg.Go(func() {
			asked, yes, unknowns := 0, 0, 0
			var last time.Duration
			for began := time.Now(); time.Since(began) < d; {
				for _, r := range over {
					if r == nil {
						continue
					}
					fresh := asked%4 == 0
					asked++
					call := time.Now()
					got := k.ask(n, r.answer, fresh)
					bound := store.Lease + nodeTimeout
					if n == r.node || fresh {
						bound = 0
					}
					switch {
					case got.Outcome == ok && call.Sub(since) < but:
						last = call.Sub(since)
						yes++
					case got.Outcome == ok && call.Sub(r.at) > bound:
						k.Errorf("%s: node %d accepts (fresh %v) %v after the revocation on node %d was answered", what, n, fresh, call.Sub(r.at), r.node)
						return
					case got.Outcome == ok:
						yes++
					case got.Outcome == unknown:
						unknowns++
					}
				}
				time.Sleep(2 * time.Millisecond)
			}
			k.Logf("%s: node %d: asked %d times, %d yeses within the bound (the last one %d ms after the beginning), %d times not known",
				what, n, asked, yes, last.Milliseconds(), unknowns)
		})
	}
	wg.Wait()
}

// The others must not suffer: nobody signed them out.
func (k *kitchen) spared(s answer) {
	k.Helper()
	for n := range k.nodes {
		var got answer
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if got = k.ask(n, s, true); got.Outcome != unknown {
				break
			}
		}
		if got.Outcome != ok {
			k.Errorf("node %d: a session that nobody revoked: %+v", n, got)
		}
	}
}

func (k *kitchen) must(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

// While the master hangs, connections to it look alive. Its replica is promoted, and there a session is revoked.
func TestHungMaster(t *testing.T) {
	k := newKitchen(t)
	k.must(k.master.Pause())
	var over []*revoked
	for i := range 3 {
		r, how := k.revoke(i, k.sessions[i], 10*time.Second)
		if r == nil {
			t.Fatalf("no failover after 10 s: %s", how)
		}
		t.Log(how)
		over = append(over, r)
	}
	k.watch("the old master hangs", 3*time.Second, over...)
	k.must(k.master.Resume())
	k.watch("the old master is back", 3*time.Second, over...)
	k.must(k.c.Ready())
	k.watch("all are well", time.Second, over...)
	k.spared(k.sessions[5])
}

// The replica does not get what is revoked, and takes over.
func TestForgottenRevocation(t *testing.T) {
	for _, tt := range []struct {
		name string
		wait time.Duration // until the cluster knows that the replica is gone
	}{
		{"at once", 0},
		{"when the replica is known to be gone", 4 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newKitchen(t)
			k.must(k.replica.Pause())
			_, err := k.master.Do("CLIENT", "KILL", "TYPE", "replica")
			k.must(err)
			time.Sleep(tt.wait)
			var over []*revoked
			for i := range 3 {
				r, how := k.revoke(i, k.sessions[i], 0)
				if r != nil {
					t.Logf("node %d: %s", i, how)
					over = append(over, r)
					continue
				}
				t.Logf("node %d: not known: %s", i, how)
				// This node refuses all the same.
				if got := k.ask(i, k.sessions[i], false); got.Outcome == ok {
					t.Errorf("node %d accepts what it has just tried to revoke", i)
				}
			}
			if tt.wait == 0 && len(over) > 0 {
				t.Errorf("%d revocations are answered that only one server had", len(over))
			}
			k.must(k.master.Kill())
			k.must(k.replica.Resume())
			k.must(takeover(k.replica))
			if len(over) > 0 {
				// Two servers were lost that had it: it is there again when the nodes have made it again.
				k.watchBut("the replica has taken over", 5*time.Second, store.Lease+nodeTimeout, over...)
			}
			// What was not known is asked for again, and holds.
			for i := range 3 {
				r, how := k.revoke(i, k.sessions[3+i%2], 10*time.Second)
				if r == nil {
					t.Fatalf("node %d: no revocation after 10 s: %s", i, how)
				}
				over = append(over, r)
			}
			for i := range 3 {
				r, how := k.revoke(i, k.sessions[i], 10*time.Second)
				if r == nil {
					t.Fatalf("node %d: no second revocation after 10 s: %s", i, how)
				}
				over = append(over, r)
			}
			k.must(k.master.Start())
			k.watch("the old master is back", 3*time.Second, over...)
			k.spared(k.sessions[5])
		})
	}
}

func takeover(p *servers.Process) error {
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err = p.Do("CLUSTER", "FAILOVER", "TAKEOVER"); err == nil || strings.Contains(err.Error(), "master") {
			return promoted(p)
		}
	}
	return err
}

// WAIT is about the connection that wrote: a revocation that no replica has is never answered as one that has been
// confirmed, however much else has been.
func TestUnconfirmed(t *testing.T) {
	k := newKitchen(t)
	_, err := k.replica.Do("REPLICAOF", "NO", "ONE")
	if err == nil {
		t.Fatal("a cluster's replica can be told to stop following")
	}
	k.must(k.replica.Pause())
	defer k.replica.Resume()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 { // others write, too, on the same connections
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					k.nodes[0].do(request{Verb: signIn, Subject: "tom"})
				}
			}
		})
	}
	began := time.Now()
	r, how := k.revoke(0, k.sessions[0], 0)
	took := time.Since(began)
	if r != nil {
		t.Errorf("revoked after %v, with a replica that cannot have heard of it", took)
	} else if took > 3*time.Second {
		t.Errorf("not known, after %v: want it sooner", took)
	}
	t.Logf("after %v: %s", took, how)
	if got := k.ask(0, k.sessions[0], false); got.Outcome == ok {
		t.Error("the node accepts what it has just tried to revoke")
	}
	close(stop)
	wg.Wait()
	k.must(errors.Join(k.replica.Resume(), k.c.Ready()))
	over, how := k.revoke(0, k.sessions[0], 10*time.Second)
	if over == nil {
		t.Fatalf("not confirmed after 10 s: %s", how)
	}
	k.watch("the replica is back", time.Second, over)
}
