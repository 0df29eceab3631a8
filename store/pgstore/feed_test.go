package pgstore

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/store"
)

// told collects what Notify tells, with the time.
type told struct {
	mu    sync.Mutex
	roots []store.ID
	at    map[store.ID]time.Time
}

func listenTo(t testing.TB, s *Store) *told {
	h := &told{at: map[store.ID]time.Time{}}
	t.Cleanup(s.Notify(func(root store.ID) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.roots = append(h.roots, root)
		h.at[root] = time.Now()
	}))
	return h
}

func (h *told) has(root store.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.roots, root)
}

func (h *told) when(root store.ID) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at[root]
}

func mark(t testing.TB, s *Store, id store.ID) {
	t.Helper()
	if err := s.Apply(t.Context(), id.Root(), store.Mark(id, time.Now().UnixMilli(), "over")); err != nil {
		t.Fatalf("Mark = %v", err)
	}
}

// pair opens two nodes on one schema.
func pair(t testing.TB, url string) (a, b *Store) {
	a = openOn(t, url, Options{Schema: newSchema()})
	return a, openOn(t, url, a.o)
}

func TestNodesHearEachOther(t *testing.T) {
	a, b := pair(t, shared.URL)
	atA, atB := listenTo(t, a), listenTo(t, b)
	r := newRoot("mia")
	put(t, a, r)
	mark(t, b, r.ID)
	until(t, "a hears of b's mark", func() bool { return atA.has(r.ID) })
	if !atB.has(r.ID) {
		t.Error("b was not told of its own mark")
	}
	// What was told is told once: b's own changes come in on its feed, too.
	answered := time.Now()
	until(t, "b's feed is past it", func() bool { return b.Heard(0).After(answered) })
	atB.mu.Lock()
	defer atB.mu.Unlock()
	if len(atB.roots) != 1 {
		t.Errorf("b was told %d times of its mark", len(atB.roots))
	}
	if f := b.Feed(); f.Changes != 1 || f.Gaps != 0 || f.Failures != 0 {
		t.Errorf("Feed = %+v", f)
	}
}

// TestHeardHolds has one node change records while the other looks whether each change that was answered before Heard was
// told by then.
func TestHeardHolds(t *testing.T) {
	a, b := pair(t, shared.URL)
	atB := listenTo(t, b)
	var roots []*store.Record
	for range 300 {
		roots = append(roots, newRoot("mia"))
	}
	put(t, a, roots...)
	var wg sync.WaitGroup
	for chunk := range slices.Chunk(roots, 75) {
		wg.Go(func() {
			for _, r := range chunk {
				mark(t, a, r.ID)
				answered := time.Now()
				for !b.Heard(r.ID.Partition()).After(answered) {
					time.Sleep(100 * time.Microsecond)
				}
				if !atB.has(r.ID) {
					t.Errorf("a change that was answered at %v was not told though all was heard until %v", answered, b.Heard(0))
				}
			}
		})
	}
	wg.Wait()
	if n := testing.AllocsPerRun(100, func() { b.Heard(7) }); n != 0 {
		t.Errorf("Heard allocates %v times", n)
	}
}

// TestLateCommit holds a transaction open while later ones commit and are told. It must be told when it commits.
func TestLateCommit(t *testing.T) {
	a, b := pair(t, shared.URL)
	atB := listenTo(t, b)
	early, late := newRoot("mia"), newRoot("tom")
	put(t, a, early, late)
	c, err := pgx.Connect(t.Context(), shared.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(t.Context(), `INSERT INTO `+a.o.Schema+`.changes (node, n, turn, root) VALUES (1, 1, 0, $1)`, idBytes(early.ID))
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // long enough for many reads
		mark(t, a, late.ID)
		answered := time.Now()
		until(t, "b has heard", func() bool { return b.Heard(0).After(answered) })
	}
	if !atB.has(late.ID) || atB.has(early.ID) {
		t.Fatalf("told of the late one: %v, of the one that has not committed: %v", atB.has(late.ID), atB.has(early.ID))
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	committed := time.Now()
	until(t, "b has heard", func() bool { return b.Heard(0).After(committed) })
	if !atB.has(early.ID) {
		t.Error("a change that was committed late was skipped")
	}
	atB.mu.Lock()
	defer atB.mu.Unlock()
	if n := len(slices.DeleteFunc(slices.Clone(atB.roots), func(id store.ID) bool { return id != early.ID })); n != 1 {
		t.Errorf("it was told %d times", n)
	}
}

// TestListenBlackholed has hints go into the void. Changes arrive all the same, within a quarter of the lease.
func TestListenBlackholed(t *testing.T) {
	p := newProxy(t, shared)
	a := openShared(t)
	b := openOn(t, p.url, a.o)
	until(t, "b listens", func() bool { return p.listeners.Load() > 0 })
	p.silentListen.Store(true)
	atB := listenTo(t, b)
	var worst time.Duration
	for range 20 {
		r := newRoot("mia")
		put(t, a, r)
		mark(t, a, r.ID)
		answered := time.Now()
		until(t, "b hears", func() bool { return atB.has(r.ID) })
		worst = max(worst, atB.when(r.ID).Sub(answered))
		time.Sleep(37 * time.Millisecond) // anywhere between two reads
	}
	t.Logf("without hints: %v at most", worst)
	if worst > store.Lease/4+100*time.Millisecond {
		t.Errorf("a change took %v, want %v at most", worst, store.Lease/4)
	}
}

// TestPaused stops the server's processes as they are: nothing more is heard, calls end, and when it goes on nothing is lost.
func TestPaused(t *testing.T) {
	t.Parallel() // it waits, mostly
	server := ownServer(t)
	a, b := pair(t, server.URL)
	atB := listenTo(t, b)
	r := newRoot("mia")
	put(t, a, r)
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	paused := time.Now()
	applied := make(chan error, 1)
	go func() { applied <- a.Apply(t.Context(), r.ID, store.Mark(r.ID, 1, "")) }()
	began := time.Now()
	if _, err := b.Get(t.Context(), r.ID); err == nil {
		t.Error("Get = nil from a server that is paused")
	}
	if d := time.Since(began); d > callTimeout+2*time.Second {
		t.Errorf("Get took %v", d)
	}
	if h := b.Heard(0); h.After(paused) {
		t.Errorf("Heard went on %v after the server was paused", h.Sub(paused))
	}
	if b.Writable() == nil {
		t.Error("Writable = nil")
	}
	err := <-applied
	if err == nil {
		t.Error("Apply = nil from a server that is paused")
	}
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	resumed := time.Now()
	until(t, "b hears again", func() bool { return b.Heard(0).After(resumed) && b.Writable() == nil })
	t.Logf("heard again %v after the server went on; the Apply: %v", time.Since(resumed).Round(time.Millisecond), err)
	mark(t, a, r.ID)
	until(t, "b hears of the mark", func() bool { return atB.has(r.ID) || atB.has(store.ID{}) })
}

// TestCrashIsAGap: after a crash transaction ids may be given once more, so that no place is trusted.
func TestCrashIsAGap(t *testing.T) {
	server := ownServer(t)
	a, b := pair(t, server.URL)
	atB := listenTo(t, b)
	for _, tt := range []struct {
		mode string
		gaps uint64
	}{{"fast", 0}, {"immediate", 1}} {
		if err := server.Restart(tt.mode); err != nil {
			t.Fatal(err)
		}
		restarted := time.Now()
		until(t, "both hear again", func() bool { return a.Heard(0).After(restarted) && b.Heard(0).After(restarted) })
		if f := b.Feed(); f.Gaps != tt.gaps || f.Failures == 0 {
			t.Errorf("after a restart, %s: %d gaps, %d failures; want %d gaps", tt.mode, f.Gaps, f.Failures, tt.gaps)
		}
		if got := atB.has(store.ID{}); got != (tt.gaps > 0) {
			t.Errorf("after a restart, %s: everything is to be dropped: %v", tt.mode, got)
		}
	}
	r := newRoot("mia")
	put(t, a, r)
	mark(t, a, r.ID)
	until(t, "b hears", func() bool { return atB.has(r.ID) })
}

// TestLogGoneBack has the server's transaction ids, or the turns of the log, go back without a crash: its files were stopped,
// and put back as they had been.
func TestLogGoneBack(t *testing.T) {
	for _, back := range []func(p *place){
		func(p *place) { p.snapshot = "4000000000:4000000000:" },
		func(p *place) { p.turn += 3 },
		func(p *place) { p.snapshot = "1:4000000000:" },
	} {
		s := openShared(t)
		atS := listenTo(t, s)
		s.stop()
		s.tasks.Wait() // the place is ours now
		back(&s.feed.place)
		if err := s.readLog(t.Context(), callTimeout); err != nil {
			t.Fatal(err)
		}
		if s.Feed().Gaps != 1 || !atS.has(store.ID{}) {
			t.Errorf("%+v, though the log has gone back", s.Feed())
		}
		if err := s.readLog(t.Context(), callTimeout); err != nil || s.Feed().Gaps != 1 {
			t.Errorf("%v, %+v at the next read", err, s.Feed())
		}
		s.feed.disconnect()
	}
}

// TestReplay cuts all connections of a node while another makes changes. It tells of each when it is back.
func TestReplay(t *testing.T) {
	p := newProxy(t, shared)
	a := openShared(t)
	b := openOn(t, p.url, a.o)
	atB := listenTo(t, b)
	var roots []*store.Record
	for range 50 {
		roots = append(roots, newRoot("mia"))
	}
	put(t, a, roots...)
	p.silent.Store(true)
	for _, r := range roots {
		mark(t, a, r.ID)
	}
	failures := b.Feed().Failures
	until(t, "b notices", func() bool { return b.Feed().Failures > failures })
	heard := b.Heard(0)
	p.silent.Store(false)
	p.cut()
	until(t, "b hears again", func() bool { return b.Heard(0).After(heard.Add(time.Millisecond)) && b.Heard(0).After(heard) })
	for _, r := range roots {
		if !atB.has(r.ID) {
			t.Fatalf("a change was not told after the connection was back; %d gaps", b.Feed().Gaps)
		}
	}
	if b.Feed().Gaps != 0 {
		t.Error("everything was dropped, though nothing was lost")
	}
}

// TestTrimmed turns the change log on behind a node that reads nothing.
func TestTrimmed(t *testing.T) {
	p := newProxy(t, shared)
	a := openShared(t)
	b := openOn(t, p.url, a.o)
	atB := listenTo(t, b)
	r := newRoot("mia")
	put(t, a, r)
	p.silent.Store(true)
	mark(t, a, r.ID)
	failures := b.Feed().Failures
	until(t, "b notices", func() bool { return b.Feed().Failures > failures })
	for i := range changesParts {
		if err := a.turnLog(t.Context(), "changes", changesParts, 0); err != nil {
			t.Fatal(err)
		}
		o := newRoot(fmt.Sprint(i))
		put(t, a, o)
		mark(t, a, o.ID) // the next turn has something to turn
		turned := time.Now()
		until(t, "a reads on", func() bool { return a.Heard(0).After(turned) })
	}
	if n := a.query(t, `SELECT count(*) FROM changes`); n > changesParts {
		t.Errorf("%d changes are left", n)
	}
	p.silent.Store(false)
	p.cut()
	until(t, "b drops everything", func() bool { return atB.has(store.ID{}) })
	if a.Feed().Gaps != 0 {
		t.Error("the node that read on dropped everything")
	}
}

// TestLag measures how long a change takes from one node to the other.
func TestLag(t *testing.T) {
	a, b := pair(t, shared.URL)
	atB := listenTo(t, b)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var lags []time.Duration
	for range 4 {
		wg.Go(func() {
			for range 150 {
				r := newRoot("mia")
				put(t, a, r)
				mark(t, a, r.ID)
				answered := time.Now()
				until(t, "b hears", func() bool { return atB.has(r.ID) })
				mu.Lock()
				lags = append(lags, atB.when(r.ID).Sub(answered))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(lags)
	p50, p99, worst := lags[len(lags)/2], lags[len(lags)*99/100], lags[len(lags)-1]
	t.Logf("from the answer on one node to Notify on the other, %d changes: p50 %v, p99 %v, worst %v; by the server's clock %v",
		len(lags), p50, p99, worst, b.Feed().Lag)
	if p99 > 250*time.Millisecond {
		t.Errorf("p99 is %v", p99)
	}
}
