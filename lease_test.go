package afterlogin_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// shared is one node's view of a memstore that several nodes change: it hears of the others' changes when the test
// says so.
type shared struct {
	*memstore.Store
	heard atomic.Pointer[time.Time]
	reads atomic.Int64
	// during is called within a read, after the records were read.
	during func()

	// onHeard is called once, when it is asked what was heard.
	onHeard func()
	// of the partition deafTo nothing is heard.
	deafTo    int
	deafSince time.Time
	// lose has one Apply happen and its answer lost.
	lose bool

	mu        sync.Mutex
	last      store.ID // the root that this node changed last
	listeners []func(store.ID)
}

func newShared(m *memstore.Store, at time.Time) *shared {
	s := &shared{Store: m, deafTo: -1}
	s.heard.Store(&at)
	return s
}

func (s *shared) Feed() store.Feed { return store.Feed{} }

func (s *shared) Heard(partition int) time.Time {
	if f := s.onHeard; f != nil {
		s.onHeard = nil
		f()
	}
	if partition == s.deafTo {
		return s.deafSince
	}
	return *s.heard.Load()
}

func (s *shared) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	s.reads.Add(1)
	rs, err := s.Store.Get(ctx, ids...)
	if s.during != nil {
		s.during()
	}
	return rs, err
}

func (s *shared) Notify(f func(store.ID)) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, f)
	return func() {}
}

// Apply tells this node's listeners, as the contract asks.
func (s *shared) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	err := s.Store.Apply(ctx, root, ops...)
	s.last = root
	s.hear(root, time.Time{})
	if s.lose && err == nil {
		s.lose = false
		return store.ErrUnknown
	}
	return err
}

// hear brings the news of the root in, and says as of when that is all, unless that is zero.
func (s *shared) hear(root store.ID, as time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.listeners {
		f(root)
	}
	if !as.IsZero() {
		s.heard.Store(&as)
	}
}

// nodes returns two authorities on one memstore, each with its own view of it.
func nodes(t *testing.T) (a, b *house, ofA, ofB *shared) {
	m, c, ring := memstore.New(), newClock(), keyring.New()
	ofA, ofB = newShared(m, c.now()), newShared(m, c.now())
	node := func(s *shared) *house {
		h := newHouse(t, func(cfg *afterlogin.Config) { cfg.Store, cfg.Keys, cfg.Now, cfg.ImportedKeys = s, ring, c.now, true })
		h.clock = c
		return h
	}
	return node(ofA), node(ofB), ofA, ofB
}

func TestAnotherNodesRevocationHoldsWithinALease(t *testing.T) {
	a, b, _, ofB := nodes(t)
	in := a.signIn("mia")
	b.use(in.Token, home, "")
	if err := a.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	a.use(in.Token, home, afterlogin.ReasonRevoked)
	b.use(in.Token, home, "") // it has not heard, and may answer
	fresh := sessionFrom(home)
	fresh.Fresh = true
	if _, err := b.Validate(t.Context(), in.Token, fresh); !errors.Is(err, afterlogin.ErrInvalidToken) {
		t.Errorf("Fresh: %v", err)
	}
	b.clock.pass(store.Lease - time.Millisecond)
	b.use(in.Token, home, "")
	b.clock.pass(time.Millisecond)
	b.use(in.Token, home, afterlogin.ReasonRevoked)
	if got := b.Stats(); got.Hits == 0 || got.LeaseLosses == 0 || got.Misses == 0 {
		t.Errorf("stats: %+v", got)
	}
	ofB.hear(store.ID{}, b.clock.now())
	b.use(in.Token, home, afterlogin.ReasonRevoked)
}

func TestNewsDropsAtOnce(t *testing.T) {
	a, b, ofA, ofB := nodes(t)
	everything := store.ID{}
	for name, end := range map[string]func(afterlogin.Issued) store.ID{
		"revoke": func(in afterlogin.Issued) store.ID {
			if err := a.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonAdministrator); err != nil {
				t.Fatal(err)
			}
			return ofA.last
		},
		"everywhere": func(in afterlogin.Issued) store.ID {
			if err := a.RevokeSubject(t.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
				t.Fatal(err)
			}
			return store.SubjectID(0, "mia")
		},
		"a gap": func(in afterlogin.Issued) store.ID {
			if err := a.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonAdministrator); err != nil {
				t.Fatal(err)
			}
			return everything
		},
	} {
		in := a.signIn("mia")
		b.use(in.Token, home, "")
		ofB.hear(end(in), b.clock.now())
		if _, err := b.Validate(t.Context(), in.Token, sessionFrom(home)); !errors.Is(err, afterlogin.ErrInvalidToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What was read before the news came in is answered once, and not kept.
func TestNewsDuringARead(t *testing.T) {
	var root store.ID
	for name, news := range map[string]func() store.ID{
		"root":    func() store.ID { return root },
		"subject": func() store.ID { return store.SubjectID(0, "mia") },
		"gap":     func() store.ID { return store.ID{} },
	} {
		a, b, ofA, ofB := nodes(t)
		in := a.signIn("mia")
		ofB.during = func() {
			ofB.during = nil
			if err := a.RevokeSubject(t.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
				t.Error(err)
			}
			if err := a.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonAdministrator); err != nil {
				t.Error(err)
			}
			root = ofA.last
			ofB.hear(news(), b.clock.now())
		}
		b.use(in.Token, home, "") // it began before
		if _, err := b.Validate(t.Context(), in.Token, sessionFrom(home)); !errors.Is(err, afterlogin.ErrInvalidToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What is read from the cache is no older than the lease that is looked at.
func TestNewsBetweenTheLeaseAndTheEntry(t *testing.T) {
	a, b, ofA, ofB := nodes(t)
	in := a.signIn("mia")
	b.use(in.Token, home, "")
	if err := a.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	// b heard nothing for long. The news comes in the middle of a request.
	a.clock.pass(10 * store.Lease)
	root, sent := ofA.last, a.clock.now()
	ofB.onHeard = func() { ofB.hear(root, sent) }
	b.use(in.Token, home, afterlogin.ReasonRevoked)
}

// An imported key's record is not where its subject's is: both have to be heard of.
func TestAnImportedKeyNeedsTwoLeases(t *testing.T) {
	a, b, _, ofB := nodes(t)
	const text = "legacy_key_0123456789abcdefghijklmnop"
	if _, err := a.ImportKey(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "mia", Name: "old"}, sha256.Sum256([]byte(text))); err != nil {
		t.Fatal(err)
	}
	use := func() error {
		_, err := b.Validate(t.Context(), afterlogin.TokenFrom(text), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}})
		return err
	}
	if err := use(); err != nil {
		t.Fatal(err)
	}
	before := ofB.reads.Load()
	if err := use(); err != nil || ofB.reads.Load() != before {
		t.Fatalf("%v, and %d reads: not cached", err, ofB.reads.Load()-before)
	}
	ofB.deafTo, ofB.deafSince = store.SubjectID(0, "mia").Partition(), a.clock.now()
	if err := a.RevokeSubject(t.Context(), 0, "mia", afterlogin.Everything, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	a.clock.pass(store.Lease)
	now := a.clock.now()
	ofB.heard.Store(&now)
	if err := use(); !errors.Is(err, afterlogin.ErrInvalidToken) {
		t.Errorf("signed out of everything a lease ago: %v", err)
	}
}

// A write that is there after its answer was lost may be there on one server alone: nobody is told that it is done.
func TestALostAnswerOfASharedStoreIsUnknown(t *testing.T) {
	a, _, ofA, _ := nodes(t)
	a.signIn("mia")
	for name, act := range map[string]func() error{
		"sign in": func() error {
			_, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"})
			return err
		},
		"sign out everywhere": func() error {
			return a.RevokeSubject(t.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonAdministrator)
		},
		"first use": func() error {
			_, err := a.FirstUse(t.Context(), "realm", "1", a.clock.now().Add(time.Minute))
			return err
		},
	} {
		ofA.lose = true
		if err := act(); !errors.Is(err, afterlogin.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A mark is made once more.
	in := a.signIn("tom")
	ofA.lose = true
	if err := a.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonAdministrator); err != nil || ofA.lose {
		t.Errorf("Revoke: %v", err)
	}
}

// A clock that jumps ends the lease: the machine may have slept, or what is compared is not the same clock any more.
func TestAClockThatJumpsEndsTheLease(t *testing.T) {
	for _, jump := range []time.Duration{store.Lease, 30 * time.Minute, -store.Lease, -30 * time.Minute} {
		a, b, _, ofB := nodes(t)
		in := a.signIn("mia")
		b.use(in.Token, home, "")
		before := ofB.reads.Load()
		b.use(in.Token, home, "")
		if ofB.reads.Load() != before {
			t.Fatal("not cached")
		}
		b.clock.pass(jump)
		b.use(in.Token, home, "")
		if ofB.reads.Load() == before {
			t.Errorf("after a jump by %v the cache still answers", jump)
		}
	}
}

// A sleeping machine's monotonic clock stands still: the wall clock alone shows that time has passed.
func TestASuspendedMachineHasNoLease(t *testing.T) {
	now := time.Now()
	s := newShared(memstore.New(), now)
	h := newHouse(t, func(c *afterlogin.Config) { c.Store, c.Now = s, func() time.Time { return now } })
	in := h.signIn("mia")
	h.use(in.Token, home, "")
	before := s.reads.Load()
	h.use(in.Token, home, "")
	if s.reads.Load() != before {
		t.Fatal("not cached")
	}
	// Heard of at the same monotonic time, when the wall clock showed two leases less.
	heard := wallAt(now, -2*store.Lease)
	if now.Sub(heard) != 0 || now.Round(0).Sub(heard.Round(0)) != 2*store.Lease {
		t.Fatalf("%v and %v do not differ in the wall clock alone", now, heard)
	}
	s.heard.Store(&heard)
	h.use(in.Token, home, "")
	if s.reads.Load() == before {
		t.Error("the cache answers by the monotonic clock alone")
	}
}

// wallAt returns a time with t's monotonic reading and another wall clock, as two readings have between which the machine
// slept or its clock was set.
func wallAt(t time.Time, by time.Duration) time.Time {
	type parts struct { // as in package time
		wall uint64
		ext  int64
		loc  *time.Location
	}
	p := (*parts)(unsafe.Pointer(&t))
	p.wall += uint64(int64(by/time.Second)) << 30
	return t
}

// A node that hears nothing answers from its cache for a lease, and then says that it does not know.
func TestStoreDownBehindALease(t *testing.T) {
	a, b, _, ofB := nodes(t)
	in := a.signIn("mia")
	b.use(in.Token, home, "")
	if err := ofB.Store.Close(); err != nil {
		t.Fatal(err)
	}
	b.use(in.Token, home, "")
	b.clock.pass(store.Lease)
	for range 3 {
		if _, err := b.Validate(t.Context(), in.Token, sessionFrom(home)); !errors.Is(err, afterlogin.ErrUnavailable) {
			t.Errorf("without a lease and a store: %v", err)
		}
	}
}

func TestWaitLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memstore.New()
		for _, tt := range []struct {
			s    store.Store
			want time.Duration
		}{{m, 0}, {newShared(m, time.Now()), store.Lease}} {
			a, err := afterlogin.New(afterlogin.Config{Store: tt.s})
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := a.WaitLeases(t.Context()); err != nil || time.Since(start) != tt.want {
				t.Errorf("WaitLeases = %v after %v, want %v", err, time.Since(start), tt.want)
			}
			if tt.want > 0 {
				ctx, cancel := context.WithTimeout(t.Context(), tt.want/2)
				if err := a.WaitLeases(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("WaitLeases of a context that ends = %v", err)
				}
				cancel()
			}
			a.Close()
		}
	})
}

// A validation that reads asks the store once: for the record, its root and its subject.
func TestAMissIsOneRead(t *testing.T) {
	a, b, _, ofB := nodes(t)
	in := a.signIn("mia")
	key, err := a.Issue(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "mia", Name: "ci"})
	if err != nil {
		t.Fatal(err)
	}
	access, err := a.IssueAccess(t.Context(), in.Session, afterlogin.AccessRequest{Client: "app"})
	if err != nil {
		t.Fatal(err)
	}
	kinds := []afterlogin.Kind{afterlogin.KindSession, afterlogin.KindAPIKey, afterlogin.KindAccess}
	for name, tok := range map[string]afterlogin.Token{"session": in.Token, "key": key.Token, "access token": access.Token, "anonymous": a.anonymous("[]").Token} {
		before := ofB.reads.Load()
		if _, err := b.Validate(t.Context(), tok, afterlogin.Expect{Kinds: kinds, From: home}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := ofB.reads.Load() - before; n != 1 {
			t.Errorf("%s: %d reads", name, n)
		}
	}
}
