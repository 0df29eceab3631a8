package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/store"
)

// A slot is moved to another master while its records are read and changed. Nothing is lost, nobody is told that
// something is not there, and what is told of changes does not stop.
func TestSlotMoves(t *testing.T) {
	r := newRig(t, Options{})
	other := r.open(Options{})
	const g = 10
	var roots []*store.Record
	for i := 0; len(roots) < 300; i++ {
		root := newRoot(fmt.Sprint("user", i))
		if groupOf(root.ID) != g {
			continue
		}
		sub := &store.Record{ID: store.SubjectID(1, root.Subject), Kind: 's', Tenant: 1, Subject: root.Subject, Version: 1}
		put(t, r.s, sub)
		put(t, r.s, root)
		roots = append(roots, root)
	}
	from, _ := r.pair(g)
	to, _ := r.pair(60)
	ctx, cancel := context.WithCancel(t.Context())
	reads := make(chan error, 1)
	go func() {
		var err error
		for i := 0; ctx.Err() == nil; i++ {
			root := roots[i*7%len(roots)]
			got, e := other.Get(ctx, root.ID, store.SubjectOf(root.ID))
			if ctx.Err() != nil {
				break
			}
			if e != nil || got[0] == nil || got[1] == nil || got[1].Subject != root.Subject {
				err = e
				t.Errorf("Get = %+v, %v, while the slot moves", got, e)
				break
			}
		}
		reads <- err
	}()
	l := startLoad(t, r.s, g)
	moveSlot(t, r.c, slots[g], from, to)
	waitFor(t, "the new master", func() bool { n, err := r.s.topo.master(g); return err == nil && n.addr == to.Addr })
	moved := time.Now()
	for _, s := range []*Store{r.s, other} {
		waitFor(t, "hearing", func() bool { return s.Heard(g * 16).After(moved) })
	}
	l.end(t)
	cancel()
	<-reads
	for _, root := range roots {
		got, err := other.Get(t.Context(), root.ID)
		if err != nil || got[0] == nil {
			t.Fatalf("Get = %v, %v", got, err)
		}
	}
	h := hear(other)
	put(t, r.s, next(roots[0]))
	h.wait(t, roots[0].ID)
}

// moveSlot moves a slot as redis-cli does.
func moveSlot(t *testing.T, c *servers.RedisCluster, slot int, from, to *servers.Process) {
	t.Helper()
	tt := &target{}
	client, err := rueidis.NewClient(tt.option(from.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	n := strconv.Itoa(slot)
	fromID, toID := do(t, from, "CLUSTER", "MYID"), do(t, to, "CLUSTER", "MYID")
	do(t, to, "CLUSTER", "SETSLOT", n, "IMPORTING", fromID)
	do(t, from, "CLUSTER", "SETSLOT", n, "MIGRATING", toID)
	host, port := "127.0.0.1", to.Addr[len("127.0.0.1:"):]
	for {
		keys, err := client.Do(t.Context(), client.B().ClusterGetkeysinslot().Slot(int64(slot)).Count(20).Build()).AsStrSlice()
		if err != nil {
			t.Fatal(err)
		}
		if len(keys) == 0 {
			break
		}
		args := append([]string{host, port, "", "0", "5000", "KEYS"}, keys...)
		if err := client.Do(t.Context(), client.B().Arbitrary("MIGRATE").Args(args...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, p := range []*servers.Process{to, from} {
		do(t, p, "CLUSTER", "SETSLOT", n, "NODE", toID)
	}
}

// A scan goes on only on the server that it began on.
func TestScanAfterRestart(t *testing.T) {
	p := startRedis(t, "appendonly yes")
	s := openAt(t, "redis://"+p.Addr, Options{})
	var batch []*store.Record
	for range 3 * scanCount / 2 {
		batch = append(batch, newRoot(""))
		if len(batch) == 500 {
			if err := s.Load(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			batch = nil
		}
	}
	var cursor store.Cursor
	for b, err := range s.Scan(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		cursor = b.Next
		break
	}
	for _, err := range s.Scan(t.Context(), cursor) {
		if err != nil {
			t.Errorf("Scan goes on with %v", err)
		}
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "an answer", func() bool { _, err := s.Get(t.Context(), newRoot("").ID); return err == nil })
	for _, err := range s.Scan(t.Context(), cursor) {
		if err != store.ErrGap {
			t.Errorf("Scan after a restart = %v, want ErrGap", err)
		}
	}
}
