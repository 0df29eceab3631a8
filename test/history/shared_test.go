package history

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// server is records in memory with a log of what changed, that the stores of several nodes read, as they read that of
// Redis or PostgreSQL. Here a bug can be planted in how they do it.
type server struct {
	*memstore.Store
	mu  sync.Mutex
	log []store.ID
}

func newServer() *server {
	s := &server{Store: memstore.New()}
	s.Store.Notify(func(root store.ID) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.log = append(s.log, root)
	})
	return s
}

func (s *server) since(n int) []store.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log[n:])
}

// bugs are what can be wrong with an attached store. The zero value is a store without any.
type bugs struct {
	ignore       bool // one of 100 changes by others is not told
	neverEnds    bool // the lease is as of now, whatever was heard
	stampedLate  bool // the lease is as of the answer, not as of the question
	toldBefore   bool // a change is told before it is made, so that a read that was under way is kept
	lostMarks    bool // one of 50 revocations is answered and forgotten
	twoHeirs     bool // a put of an old version is answered as if it had been made
	missing      bool // one of 500 records is not found
	goodOnErrors bool // what cannot be read is as it was read last
}

// attached is one node's store on the server.
type attached struct {
	*server
	bugs    bugs
	pace    time.Duration // of the questions
	answers atomic.Int64  // how long the server takes to answer one, in nanoseconds
	down    atomic.Bool   // the server does not answer

	heard    atomic.Pointer[time.Time]
	told     atomic.Int64
	stop     chan struct{}
	running  sync.WaitGroup
	mu       sync.Mutex // is held while the listeners run
	notified []func(store.ID)
	last     sync.Map // of ids: the record that was read last, for goodOnErrors
}

var _ store.Shared = (*attached)(nil)

func (s *server) attach(t testing.TB, b bugs, pace time.Duration) *attached {
	a := &attached{server: s, bugs: b, pace: pace, stop: make(chan struct{})}
	a.heard.Store(&time.Time{})
	a.running.Go(a.listen)
	t.Cleanup(func() {
		close(a.stop)
		a.running.Wait()
	})
	return a
}

// listen asks for the changes, tells them, and then extends the lease to the question.
func (a *attached) listen() {
	place := 0
	for {
		asked := time.Now()
		answer := a.since(place)
		for wait := a.pace + time.Duration(a.answers.Load()); ; wait = 10 * time.Millisecond {
			select {
			case <-a.stop:
				return
			case <-time.After(wait):
			}
			if !a.down.Load() {
				break
			}
			asked, answer = time.Now(), a.since(place)
		}
		place += len(answer)
		a.tell(true, answer...)
		if a.bugs.stampedLate {
			asked = time.Now()
		}
		a.heard.Store(&asked)
	}
}

func (a *attached) tell(heard bool, roots ...store.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, root := range roots {
		if heard && a.bugs.ignore && a.told.Add(1)%100 == 0 {
			continue
		}
		for _, f := range a.notified {
			f(root)
		}
	}
}

func (a *attached) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if a.down.Load() {
		return context.DeadlineExceeded
	}
	if a.bugs.toldBefore {
		a.tell(false, root)
		time.Sleep(time.Millisecond)
	}
	marks := slices.ContainsFunc(ops, func(o store.Op) bool { return o.Kind == store.OpMark })
	if a.bugs.lostMarks && marks && rand.IntN(50) == 0 {
		return nil
	}
	err := a.server.Apply(ctx, root, ops...)
	if a.bugs.twoHeirs && err != nil && ops[0].Kind == store.OpPut && !root.IsSubject() {
		return nil
	}
	if err == nil && !a.bugs.toldBefore {
		a.tell(false, root)
	}
	return err
}

func (a *attached) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	rs, err := a.server.Get(ctx, ids...)
	if a.down.Load() {
		if !a.bugs.goodOnErrors {
			return nil, context.DeadlineExceeded
		}
		for i, id := range ids {
			old, found := a.last.Load(id)
			if !found {
				return nil, context.DeadlineExceeded
			}
			rs[i] = old.(*store.Record).Clone()
		}
		return rs, nil
	}
	for i, id := range ids {
		if a.bugs.goodOnErrors && err == nil && rs[i] != nil {
			a.last.Store(id, rs[i].Clone())
		}
	}
	if a.bugs.missing && err == nil && rand.IntN(500) == 0 {
		rs[0] = nil
	}
	if a.bugs.toldBefore {
		time.Sleep(time.Millisecond) // the answer is under way
	}
	return rs, err
}

func (a *attached) Notify(f func(store.ID)) (stop func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notified = append(a.notified, f)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.notified = nil
	}
}

func (a *attached) Heard(int) time.Time {
	if a.bugs.neverEnds {
		return time.Now().Add(-time.Microsecond)
	}
	return *a.heard.Load()
}

func (a *attached) Feed() store.Feed { return store.Feed{} }

// sharedWorld is three nodes on a server in memory.
func sharedWorld(t testing.TB, b bugs, pace time.Duration) (*world, []*attached) {
	s, keys := newServer(), keyring.New()
	var nodes []node
	var stores []*attached
	for range 3 {
		a := s.attach(t, b, pace)
		stores = append(stores, a)
		nodes = append(nodes, local{open(t, a, keys)})
	}
	w := newWorld(t, newSeed(), rules{grace: grace, bound: store.Lease}, nodes...)
	w.hot = 64
	return w, stores
}

// Three authorities, each on a store of its own that hears of the others' changes late, or not at all for a while.
func TestSharedMemory(t *testing.T) {
	w, stores := sharedWorld(t, bugs{}, 40*time.Millisecond)
	n := 40_000
	if long {
		n = fullAmount
	}
	done := make(chan struct{})
	w.run(32, n)
	go func() { w.wait(); close(done) }()
	rng := rand.New(rand.NewPCG(w.seed, 1))
	for running := true; running; {
		s := stores[rng.IntN(3)]
		switch rng.IntN(3) {
		case 0:
			s.answers.Store(int64(rng.IntN(1500)) * int64(time.Millisecond))
		case 1:
			s.down.Store(true)
		}
		select {
		case <-done:
			running = false
		case <-time.After(time.Duration(rng.IntN(1500)) * time.Millisecond):
		}
		s.answers.Store(0)
		s.down.Store(false)
	}
	looked, good, _ := w.sweep(w.everybody(), 2000)
	t.Logf("%d of %d sessions that nobody ended were good at the end", good, looked)
	w.enough(t, n, 0.9)
	v := w.pass(t)
	if len(v.lags) < n/1000 {
		t.Errorf("%d yeses from memory after a revocation elsewhere, want %d: the bound was hardly tried", len(v.lags), n/1000)
	}
}

// The checkers find what they are there to find.
func TestSeeded(t *testing.T) {
	slow := func(stores []*attached) { stores[1].answers.Store(int64(1300 * time.Millisecond)) }
	stall := func(stores []*attached) { stores[1].answers.Store(int64(4 * time.Second)) }
	outage := func(stores []*attached) {
		time.Sleep(time.Second)
		stores[1].down.Store(true)
	}
	byBound := func(v *verdict) []string { return v.bound }
	byOrder := func(v *verdict) []string { return v.order }
	byRefusals := func(v *verdict) []string { return v.refusals }
	for _, tt := range []struct {
		name string
		bugs bugs
		do   func(stores []*attached)
		says []func(*verdict) []string // who finds it
	}{
		{"one of 100 changes is not told", bugs{ignore: true}, nil, by(byBound, byOrder)},
		{"a lease without an end", bugs{neverEnds: true}, stall, by(byBound, byOrder)},
		{"a lease as of the answer", bugs{stampedLate: true}, slow, by(byBound, byOrder)},
		{"told before it is changed", bugs{toldBefore: true}, nil, by(byBound, byOrder)},
		{"an answered revocation is lost", bugs{lostMarks: true}, nil, by(byBound, byOrder)},
		{"two successors", bugs{twoHeirs: true}, nil, by(byOrder)},
		{"a record is not found", bugs{missing: true}, nil, by(byRefusals, byOrder)},
		{"old reads while the server is down", bugs{goodOnErrors: true}, outage, by(byBound, byOrder)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var missed []string
			for range 10 { // what is rare is not there every time
				v := seeded(t, tt.bugs, tt.do)
				missed = nil
				var found []string
				for _, says := range tt.says {
					if all := says(v); len(all) > 0 {
						found = append(found, all[0])
					} else {
						missed = append(missed, fmt.Sprintf("bound %q, refusals %q, order %q", v.bound, v.refusals, v.order))
					}
				}
				if len(missed) == 0 {
					t.Logf("found: %s", strings.Join(found, "\nand: "))
					return
				}
			}
			t.Errorf("not found by all that should: %s", missed)
		})
	}
}

// seeded lets people act for a while on stores with a bug.
func seeded(t *testing.T, b bugs, do func([]*attached)) *verdict {
	pace := 40 * time.Millisecond
	if b.toldBefore {
		pace = 400 * time.Millisecond
	}
	w, stores := sharedWorld(t, b, pace)
	w.hot, w.search = 16, 2*time.Second
	w.run(16, 1<<30)
	if do != nil {
		do(stores)
	}
	// Long enough for the bound to run out, and for what is rare; on a busy machine that takes a while.
	for began := time.Now(); time.Since(began) < 4*time.Second || w.done() < 15_000 && time.Since(began) < 20*time.Second; {
		time.Sleep(100 * time.Millisecond)
	}
	for _, s := range stores {
		s.answers.Store(0)
		s.down.Store(false)
	}
	w.end()
	v := w.check()
	w.report(t, v)
	return v
}

func by(who ...func(*verdict) []string) []func(*verdict) []string { return who }

// The clock of a node is set while it hears nothing: what it has in memory is good for no longer. (The injected clock moves
// the monotonic one, too; a step of less than a lease, which that one does not show, cannot be tried here.)
func TestClockSteps(t *testing.T) {
	s, keys := newServer(), keyring.New()
	var offset atomic.Int64
	stepping := s.attach(t, bugs{}, 20*time.Millisecond)
	a := open(t, stepping, keys, func(c *afterlogin.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	})
	b := open(t, s.attach(t, bugs{}, 20*time.Millisecond), keys)
	session := func(fresh bool) afterlogin.Expect {
		return afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, CanRenew: true, Fresh: fresh}
	}
	for _, step := range []time.Duration{-time.Hour, 30 * time.Minute, -5 * time.Second} {
		in, err := b.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := a.Validate(ctx, in.Token, session(false)); err != nil {
				t.Fatalf("step %v: %v", step, err)
			}
		}
		stepping.answers.Store(int64(2 * time.Second)) // a hears nothing
		time.Sleep(50 * time.Millisecond)
		offset.Add(int64(step))
		if err := b.Revoke(ctx, in.Session.ID, afterlogin.ReasonSignedOut); err != nil {
			t.Fatal(err)
		}
		revoked := time.Now()
		for time.Since(revoked) < 1500*time.Millisecond {
			asked := time.Now()
			if _, err := a.Validate(ctx, in.Token, session(false)); err == nil && asked.Sub(revoked) > store.Lease {
				t.Fatalf("step %v: a yes %v after the revocation", step, asked.Sub(revoked))
			}
			time.Sleep(time.Millisecond)
		}
		stepping.answers.Store(0)
		time.Sleep(2 * time.Second)
		offset.Store(0)
		time.Sleep(100 * time.Millisecond)
	}
}
