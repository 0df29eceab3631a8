package redisstore

import (
	"errors"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/store"
)

func startSentinel(t *testing.T) (*servers.Sentinel, *Store) {
	t.Helper()
	w, err := servers.StartSentinel(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Stop() })
	return w, openAt(t, "redis+sentinel://"+w.Sentinels[0].Addr+"/"+w.Name, Options{})
}

// Sentinel replaces masters that are killed and hung.
func TestSentinelFailover(t *testing.T) {
	for name, fault := range map[string]func(*servers.Process) error{
		"Kill": (*servers.Process).Kill, "Hang": (*servers.Process).Pause,
	} {
		t.Run(name, func(t *testing.T) {
			w, s := startSentinel(t)
			h := hear(s)
			l := startLoad(t, s, 11)
			time.Sleep(200 * time.Millisecond)
			began := time.Now()
			if err := fault(w.Master); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "a new master", func() bool { n, err := s.topo.master(11); return err == nil && n.addr == w.Replica.Addr })
			t.Logf("new master after %v", time.Since(began).Round(time.Millisecond))
			moved := time.Now()
			waitFor(t, "hearing", func() bool { return s.Heard(11 * 16).After(moved) })
			if _, ok := h.heard(store.ID{}); !ok {
				t.Errorf("the partition is heard again, and nobody was told to drop what came from the old master")
			}
			l.end(t)
		})
	}
}

// A master that no majority of the sentinels names is not believed, however well it answers: it may have been replaced.
func TestSentinelMajority(t *testing.T) {
	w, s := startSentinel(t)
	root := rootIn(3)
	put(t, s, root)
	waitFor(t, "hearing", func() bool { return time.Since(s.Heard(3*16)) < store.Lease/2 })
	for _, p := range w.Sentinels[:2] {
		if err := p.Pause(); err != nil {
			t.Fatal(err)
		}
	}
	paused := time.Now()
	d := waitFor(t, "refusing", func() bool { _, err := s.Get(t.Context(), root.ID); return errors.Is(err, ErrUnavailable) })
	t.Logf("refused after %v", d.Round(time.Millisecond))
	if d > store.Lease+100*time.Millisecond*slow {
		t.Errorf("an unconfirmed master was believed for %v", d)
	}
	if err := s.Apply(t.Context(), root.ID, store.Mark(root.ID, now, "")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Apply = %v, want ErrUnavailable", err)
	}
	if err := s.Writable(); err == nil {
		t.Error("Writable = nil")
	}
	if s.Heard(3 * 16).After(paused.Add(50 * time.Millisecond * slow)) {
		t.Error("the partition was heard while no majority of the sentinels named the master")
	}
	for _, p := range w.Sentinels[:2] {
		if err := p.Resume(); err != nil {
			t.Fatal(err)
		}
	}
	d = waitFor(t, "believing", func() bool { _, err := s.Get(t.Context(), root.ID); return err == nil })
	t.Logf("believed again after %v", d.Round(time.Millisecond))
	waitFor(t, "hearing", func() bool { return time.Since(s.Heard(3*16)) < store.Lease/2 })
	waitFor(t, "a change", func() bool { return s.Apply(t.Context(), root.ID, store.Mark(root.ID, now, "")) == nil })
}

// One sentinel of three that hangs, or is down, is no reason to doubt the master, nor to refuse to begin: the other two agree.
func TestSentinelMinority(t *testing.T) {
	for name, fault := range map[string]func(*servers.Process) error{
		"Hang": (*servers.Process).Pause, "Kill": (*servers.Process).Kill,
	} {
		t.Run(name, func(t *testing.T) {
			w, s := startSentinel(t)
			root := rootIn(3)
			put(t, s, root)
			if err := fault(w.Sentinels[0]); err != nil {
				t.Fatal(err)
			}
			worst := time.Duration(0)
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				if _, err := s.Get(t.Context(), root.ID); err != nil {
					t.Fatalf("Get = %v", err)
				}
				worst = max(worst, time.Since(s.Heard(3*16)))
			}
			t.Logf("heard %v ago at most", worst.Round(time.Millisecond))
			if worst > store.Lease*slow {
				t.Errorf("the lease was lost: heard %v ago", worst)
			}
			// The URL names the one that does not answer, and one other.
			url := "redis+sentinel://" + w.Sentinels[0].Addr + "," + w.Sentinels[1].Addr + "/" + w.Name
			put(t, openAt(t, url, Options{}), rootIn(3))
		})
	}
}
