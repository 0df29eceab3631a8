package redisstore

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

const hour = 60 * 60 * 1000

// now is a time that the servers, which have clocks of their own, take for the future.
const now int64 = 1_900_000_000_000

func newRoot(subject string) *store.Record {
	r := &store.Record{Kind: 'b', Tenant: 1, Subject: subject, Created: now, Absolute: now + 24*hour, Version: 1}
	r.Payload = make([]byte, 300)
	var random [14]byte
	copy(random[:], newSelf()+newSelf())
	r.ID = store.NewRootID(store.BucketOf(r.Absolute), random, 1, subject)
	return r
}

// rootIn returns a root in the given group.
func rootIn(g int) *store.Record {
	for {
		if r := newRoot(""); groupOf(r.ID) == g {
			return r
		}
	}
}

func next(r *store.Record) *store.Record {
	n := r.Clone()
	n.Version++
	return n
}

func put(t testing.TB, s *Store, r *store.Record) {
	t.Helper()
	if err := s.Apply(t.Context(), r.ID, store.Put(r, r.Version-1)); err != nil {
		t.Fatal(err)
	}
}

// A hearing is what a store's Notify has told, with when.
type hearing struct {
	mu   sync.Mutex
	all  []store.ID
	at   []time.Time
	stop func()
}

func hear(s *Store) *hearing {
	h := &hearing{}
	h.stop = s.Notify(func(id store.ID) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all = append(h.all, id)
		h.at = append(h.at, time.Now())
	})
	return h
}

// heard returns when the id was told of first, or the zero ID if it is given.
func (h *hearing) heard(id store.ID) (time.Time, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.Index(h.all, id); i >= 0 {
		return h.at[i], true
	}
	return time.Time{}, false
}

func (h *hearing) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all, h.at = nil, nil
}

// waitFor waits until ok, and returns how long that took.
func waitFor(t testing.TB, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > patience {
			t.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(began)
}

func (h *hearing) wait(t testing.TB, id store.ID) {
	t.Helper()
	waitFor(t, fmt.Sprint("being told of ", id), func() bool { _, ok := h.heard(id); return ok })
}

// A change by one store reaches the listeners of another: at once, and by the poll if the hints are lost.
func TestFeedReachesOthers(t *testing.T) {
	for name, url := range map[string]string{"Single": singleURL(t), "Cluster": clusterURL(t), "Sentinel": sentinelURL(t)} {
		t.Run(name, func(t *testing.T) {
			a := openAt(t, url, Options{})
			b := openAt(t, url, Options{prefix: a.o.prefix})
			h, own := hear(b), hear(a)
			const changes = 400
			var lags []time.Duration
			for i := range changes {
				r := rootIn(i % groups)
				put(t, a, r)
				if _, ok := h.heard(r.ID); ok {
					t.Errorf("a new root was told of")
				}
				if err := a.Apply(t.Context(), r.ID, store.Mark(r.ID, now, "gone")); err != nil {
					t.Fatal(err)
				}
				answered := time.Now()
				h.wait(t, r.ID)
				at, _ := h.heard(r.ID)
				lags = append(lags, max(0, at.Sub(answered)))
			}
			slices.Sort(lags)
			t.Logf("after the answer: p50 %v, p99 %v, most %v", lags[changes/2], lags[changes*99/100], lags[changes-1])
			if p99 := lags[changes*99/100]; p99 > 50*time.Millisecond*slow {
				t.Errorf("p99 %v, want at most 50 ms", p99)
			}
			f := b.Feed()
			t.Logf("from the commit to Notify, by the server's clock: %v on average, by bounds %v", f.LagSum/changes, f.Lag)
			if f.Changes != changes || f.Gaps != 0 || f.Failures != 0 {
				t.Errorf("Feed = %+v, want %d changes and nothing else", f, changes)
			}
			waitFor(t, "its own changes", func() bool { return a.Feed().Changes == changes })
			own.mu.Lock()
			defer own.mu.Unlock()
			if len(own.all) != changes {
				t.Errorf("the store that made the changes told of %d, want %d", len(own.all), changes)
			}
		})
	}
}

// Heard follows the clock in health, and stops while the server is hung; it goes on when the server does.
func TestHeardStopsWithTheServer(t *testing.T) {
	p := startRedis(t)
	s := openAt(t, "redis://"+p.Addr, Options{})
	waitFor(t, "hearing", func() bool {
		return time.Since(s.Heard(0)) < store.Lease/2 && time.Since(s.Heard(1023)) < store.Lease/2
	})
	// It is always younger than the lease, seen over a second.
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if d := time.Since(s.Heard(512)); d > store.Lease*slow {
			t.Fatalf("heard %v ago", d)
		}
	}
	if err := s.Writable(); err != nil {
		t.Errorf("Writable = %v", err)
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	paused := time.Now()
	waitFor(t, "not hearing", func() bool { return time.Since(s.Heard(0)) > 2*store.Lease })
	for part := range store.Partitions {
		if s.Heard(part).After(paused) {
			t.Fatalf("partition %d was heard while the server was hung", part)
		}
	}
	waitFor(t, "Writable", func() bool { return s.Writable() != nil })
	if s.Feed().Failures == 0 {
		t.Errorf("Feed = %+v, want failures", s.Feed())
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	d := waitFor(t, "hearing again", func() bool { return time.Since(s.Heard(0)) < store.Lease/2 })
	t.Logf("heard again after %v", d)
	waitFor(t, "Writable", func() bool { return s.Writable() == nil })
}

// Heard allocates nothing.
func TestHeardAllocatesNothing(t *testing.T) {
	s := openAt(t, singleURL(t), Options{})
	if n := testing.AllocsPerRun(100, func() { s.Heard(77) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A store that was away for longer than the change log reaches back drops everything, before it counts as heard.
func TestFeedGap(t *testing.T) {
	p := startRedis(t)
	url := "redis://" + p.Addr
	a := openAt(t, url, Options{logged: 100})
	b := openAt(t, url, Options{prefix: a.o.prefix, logged: 100})
	h := hear(b)
	r := rootIn(7)
	put(t, a, r)
	// b's place in the log is taken away from under it, as if it had not read for long.
	k := a.keys.changes(7)
	do(t, p, "XTRIM", k, "MAXLEN", "0")
	for range 3 {
		r = next(r)
		put(t, a, r)
	}
	h.wait(t, store.ID{})
	if b.Feed().Gaps == 0 {
		t.Errorf("Feed = %+v, want a gap", b.Feed())
	}
	h.clear()
	waitFor(t, "hearing", func() bool { return time.Since(b.Heard(7*16)) < store.Lease/2 })
	put(t, a, next(r))
	h.wait(t, r.ID)

	// The server has lost everything.
	h.clear()
	do(t, p, "FLUSHALL")
	h.wait(t, store.ID{})
	waitFor(t, "hearing", func() bool { return time.Since(b.Heard(7*16)) < store.Lease/2 })
	r = rootIn(7)
	put(t, a, r)
	put(t, a, next(r))
	h.wait(t, r.ID)
}

// A restarted server has another replication id: what it may have lost is made again, and everything was dropped before
// it counts as heard. It forgets the scripts, too.
func TestRestart(t *testing.T) {
	p := startRedis(t, "appendonly yes")
	s := openAt(t, "redis://"+p.Addr, Options{})
	h := hear(s)
	kept, created := rootIn(3), rootIn(9)
	put(t, s, kept)
	put(t, s, created)
	for _, end := range []func() error{p.Stop, p.Kill} {
		h.clear()
		ended := time.Now()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), kept.ID); err == nil {
			t.Fatal("Get of a server that does not run = nil")
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		h.wait(t, store.ID{})
		waitFor(t, "hearing", func() bool { return s.Heard(0).After(ended) && s.Heard(1023).After(ended) })
		kept = next(kept)
		put(t, s, kept)
		got, err := s.Get(t.Context(), kept.ID, store.SubjectOf(kept.ID))
		if err != nil || got[0] == nil || got[0].Version != kept.Version {
			t.Fatalf("Get = %+v, %v", got, err)
		}
	}
}

// Two connections of one store write under one server's eyes; a listener that is told has an answer to rely on: whatever
// was read after being told is not older than the change.
func TestToldIsReadable(t *testing.T) {
	url := clusterURL(t)
	a := openAt(t, url, Options{})
	b := openAt(t, url, Options{prefix: a.o.prefix})
	h := hear(b)
	r := newRoot("mia")
	put(t, a, r)
	for range 50 {
		h.clear()
		r = next(r)
		put(t, a, r)
		h.wait(t, r.ID)
		got, err := b.Get(t.Context(), r.ID)
		if err != nil || got[0].Version < r.Version {
			t.Fatalf("Get after being told = %+v, %v, want version %d", got, err, r.Version)
		}
	}
}

// What a server says counts as heard only while it is the group's master: one that was replaced between the question and
// the answer may have been none when it was asked.
func TestHeardFromTheMasterOnly(t *testing.T) {
	s := openAt(t, singleURL(t), Options{})
	n, err := s.topo.master(0)
	if err != nil {
		t.Fatal(err)
	}
	r := *s.topo.current.Load()
	r.masters[0] = newNode(s, "127.0.0.1:1")
	s.topo.current.Store(&r)
	later := time.Now().Add(time.Hour)
	s.feed.extend(0, n, later)
	if !s.Heard(0).Before(later) {
		t.Error("a group counts as heard from a server that is not its master")
	}
	s.feed.extend(1, n, later)
	if !s.Heard(16).Equal(later) {
		t.Error("a group does not count as heard from its master")
	}
}
