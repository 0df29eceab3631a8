package pgstore

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// A life is one root that a goroutine changes, and what it knows of it.
type life struct {
	r     *store.Record // as last answered
	tried *store.Record // as last tried
}

// live puts version after version of a root until done is closed. After an error it reads again, and then the root is as
// it was answered last, or as it was tried since.
func (l *life) live(t *testing.T, s *Store, done <-chan struct{}, answered, unknown *atomic.Int64) {
	var doubt uint64 // the version whose outcome was not known
	for {
		select {
		case <-done:
			return
		default:
		}
		n := l.r.Clone()
		n.Version++
		n.Payload = []byte{byte(n.Version), byte(n.Version >> 8)}
		l.tried = n
		err := s.Apply(context.Background(), n.ID, store.Put(n, n.Version-1), store.Emit(store.Event{Type: "put", ID: n.ID, At: int64(n.Version)}))
		if err == nil {
			l.r = n
			answered.Add(1)
			continue
		}
		if errors.Is(err, store.ErrUnknown) {
			unknown.Add(1)
			doubt = n.Version
		}
		// A server that is about to die may be asked meanwhile, and not see yet what its recovery brings to light: the doubt
		// lasts until the version has been answered.
		open := doubt == n.Version
		if errors.Is(err, store.ErrConflict) && !open {
			t.Errorf("a conflict though nobody else is there: %v", err)
			return
		}
		got := l.again(t, s)
		if got == nil {
			return
		}
		switch {
		case got.Version == l.r.Version:
		case got.Version == n.Version && open:
			l.r = n
		default:
			t.Errorf("version %d is there; %d was answered, %d tried with %v", got.Version, l.r.Version, n.Version, err)
			return
		}
	}
}

// again reads the root, as soon as that goes.
func (l *life) again(t *testing.T, s *Store) *store.Record {
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		rs, err := s.Get(context.Background(), l.r.ID)
		if err != nil {
			continue
		}
		if rs[0] == nil {
			t.Errorf("a root that was answered is gone")
		}
		return rs[0]
	}
	t.Error("no answer for 30 seconds")
	return nil
}

// lives runs many of them, until stop is called, which checks what is there.
func lives(t *testing.T, s *Store, n int) (stop func() (answered, unknown int64)) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	var answered, unknown atomic.Int64
	all := make([]*life, n)
	for i := range all {
		r := newRoot("mia")
		put(t, s, r)
		all[i] = &life{r: r}
		wg.Go(func() { all[i].live(t, s, done, &answered, &unknown) })
	}
	return func() (int64, int64) {
		close(done)
		wg.Wait()
		for _, l := range all {
			if got := l.again(t, s); got != nil && got.Version < l.r.Version {
				t.Errorf("version %d is there, %d was answered", got.Version, l.r.Version)
			}
		}
		return answered.Load(), unknown.Load()
	}
}

// rounds is how often something is broken: more if the long tests are asked for.
func rounds(n, long int) int {
	if os.Getenv(storetest.LongEnv) != "" {
		return long
	}
	return n
}

// TestCrashRestart crashes the server under load. No answered change is lost, and the store is back soon without help.
func TestCrashRestart(t *testing.T) {
	server := ownServer(t)
	s := openOn(t, server.URL, Options{})
	seq, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	// Everything that is answered comes in the stream, each root's in order, unless the stream says that it cannot tell.
	var watching sync.WaitGroup
	watching.Go(func() {
		last := map[store.ID]int64{}
		for e, err := range seq {
			if err != nil {
				if !errors.Is(err, store.ErrClosed) && !errors.Is(err, store.ErrGap) {
					t.Errorf("Watch yields %v", err)
				}
				return
			}
			if was, ok := last[e.ID]; ok && e.At != was+1 {
				t.Errorf("Watch yields change %d after %d", e.At, was)
			}
			last[e.ID] = e.At
		}
	})
	stop := lives(t, s, 16)
	var worst time.Duration
	for range rounds(3, 60) {
		time.Sleep(300 * time.Millisecond)
		began := time.Now()
		if err := server.Restart("immediate"); err != nil {
			t.Fatal(err)
		}
		up := time.Now()
		until(t, "the store is back", func() bool { return s.Heard(0).After(up) && s.Writable() == nil })
		worst = max(worst, time.Since(up))
		t.Logf("crash and recovery of the server %v, then %v until the feed was back", up.Sub(began).Round(time.Millisecond), time.Since(up).Round(time.Millisecond))
	}
	answered, unknown := stop()
	t.Logf("%d changes answered, %d of unknown outcome; back %v after the server at most", answered, unknown, worst.Round(time.Millisecond))
	if worst > 5*time.Second {
		t.Errorf("it took %v until the store was back", worst)
	}
	if answered == 0 {
		t.Error("nothing was answered")
	}
	s.Close()
	watching.Wait()
}

// TestStandbyTakesOver kills the server under load, and has its synchronous standby take over. No answered change is lost; the nodes
// find it by themselves, and drop what they know: the standby may give transaction ids once more.
func TestStandbyTakesOver(t *testing.T) {
	server := ownServer(t)
	standby, err := servers.StartPostgresStandby(t.TempDir(), server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { standby.Stop() })
	both := strings.Replace(server.URL, server.Addr, server.Addr+","+standby.Addr, 1)
	a, b := pair(t, both)
	atB := listenTo(t, b)
	a.sql(t, `ALTER SYSTEM SET synchronous_standby_names = '*'`)
	a.sql(t, `SELECT pg_reload_conf()`)
	until(t, "the standby is a synchronous one", func() bool {
		return a.query(t, `SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'`) == 1
	})
	if s, err := Open(t.Context(), standby.URL, a.o); err == nil {
		s.Close()
		t.Error("Open of a standby = nil")
	}
	stop := lives(t, a, 8)
	time.Sleep(500 * time.Millisecond)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(); err != nil {
		t.Fatal(err)
	}
	up := time.Now()
	until(t, "both nodes are on the new server", func() bool {
		return a.Heard(0).After(up) && b.Heard(0).After(up) && a.Writable() == nil && b.Writable() == nil
	})
	t.Logf("%v until both nodes were on the new server", time.Since(up).Round(time.Millisecond))
	answered, unknown := stop()
	t.Logf("%d changes answered, %d of unknown outcome", answered, unknown)
	if answered == 0 {
		t.Error("nothing was answered")
	}
	if !atB.has(store.ID{}) || b.Feed().Gaps == 0 {
		t.Error("not everything was dropped")
	}
	r := newRoot("mia")
	put(t, a, r)
	mark(t, a, r.ID)
	until(t, "b hears of a change on the new server", func() bool { return atB.has(r.ID) })
}

// TestBackendsEnded has an administrator end connections at random.
func TestBackendsEnded(t *testing.T) {
	s := openShared(t)
	admin, err := pgx.Connect(t.Context(), shared.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	stop := lives(t, s, 8)
	for range rounds(60, 1000) {
		time.Sleep(10 * time.Millisecond)
		_, err := admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name = 'afterlogin' AND query LIKE '%apply1%' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1`)
		if err != nil {
			t.Fatal(err)
		}
	}
	answered, unknown := stop()
	t.Logf("%d changes answered, %d of unknown outcome", answered, unknown)
	if answered == 0 {
		t.Error("nothing was answered")
	}
}

// TestCut cuts connections before the server gets a change, and after it has committed one. Neither is answered, and the
// nodes hear of the second kind.
func TestCut(t *testing.T) {
	p := newProxy(t, shared)
	s := openOn(t, p.url, Options{Schema: newSchema()})
	o := openOn(t, shared.URL, s.o)
	atS, atO := listenTo(t, s), listenTo(t, o)
	for i := range rounds(10, 100) {
		for _, word := range [][]byte{cutBefore, cutAfter} {
			r := newRoot("mia")
			put(t, s, r)
			n := r.Clone()
			n.Version, n.Payload = 2, word
			err := s.Apply(t.Context(), n.ID, store.Put(n, 1))
			if !errors.Is(err, store.ErrUnknown) {
				t.Fatalf("round %d: Apply over a connection that is cut (%.20s) = %v, want ErrUnknown", i, word, err)
			}
			want := uint64(1)
			if string(word) == string(cutAfter) {
				want = 2
			}
			if got := get(t, s, r.ID); got.Version != want {
				t.Fatalf("round %d: version %d is there, want %d (%.20s)", i, got.Version, want, word)
			}
			if !atS.has(r.ID) {
				t.Errorf("round %d: its own node was not told of a change of unknown outcome", i)
			}
			if want == 2 {
				until(t, "the other node hears", func() bool { return atO.has(r.ID) })
			}
		}
	}
	if p.cuts.Load() != int64(2*rounds(10, 100)) {
		t.Errorf("%d connections were cut", p.cuts.Load())
	}
}

// TestCommittedAfterItWasGivenUp has an Apply's context end while the server still works on it. The change is made later, and
// the node that gave it up hears of it then.
func TestCommittedAfterItWasGivenUp(t *testing.T) {
	s := openShared(t)
	atS := listenTo(t, s)
	r := newRoot("mia")
	put(t, s, r)
	c := s.commit(r.ID, []store.Op{store.Mark(r.ID, 5, "over")})
	s.feed.doubt(c.number)
	if fault, err := s.commitOnce(t.Context(), c); fault != 0 || err != nil {
		t.Fatal(fault, err)
	}
	until(t, "its node hears of it", func() bool { return atS.has(r.ID) })
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if len(s.feed.doubts) != 0 {
		t.Error("the doubt stays")
	}
}

// TestHangs has a server that says nothing any more, though its connections stand. Calls end, and goroutines do not pile up;
// when it is back, all goes on without help.
func TestHangs(t *testing.T) {
	t.Parallel() // it waits, mostly
	p := newProxy(t, shared)
	s := openOn(t, p.url, Options{Schema: newSchema(), MaxConns: 4})
	r := newRoot("mia")
	put(t, s, r)
	p.silent.Store(true)
	began := time.Now()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := s.Get(context.Background(), r.ID); err == nil {
				t.Error("Get = nil")
			}
		})
	}
	wg.Wait()
	if d := time.Since(began); d > callTimeout+2*time.Second {
		t.Errorf("Get took %v", d)
	}
	p.silent.Store(false)
	back := time.Now()
	until(t, "the store is back", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Get(ctx, r.ID)
		return err == nil && s.Writable() == nil
	})
	d := time.Since(back)
	t.Logf("back after %v", d.Round(time.Millisecond))
	if d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
}

// TestStandbyIsGone has a change wait for a standby that is not there, and an administrator end the wait: the change is
// made, but the standby does not have it.
func TestStandbyIsGone(t *testing.T) {
	server := ownServer(t)
	s := openOn(t, server.URL, Options{})
	r := newRoot("mia")
	put(t, s, r)
	s.sql(t, `ALTER SYSTEM SET synchronous_standby_names = 'nobody'`)
	s.sql(t, `SELECT pg_reload_conf()`)
	admin, err := pgx.Connect(t.Context(), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	answer := make(chan error)
	until(t, "the server waits for its standby", func() bool {
		var names string
		err := admin.QueryRow(t.Context(), `SHOW synchronous_standby_names`).Scan(&names)
		return err == nil && names == "nobody"
	})
	go func() { answer <- s.Apply(t.Context(), r.ID, store.Mark(r.ID, 1, "over")) }()
	until(t, "the wait is ended", func() bool {
		var n int
		err := admin.QueryRow(t.Context(), `SELECT count(*) FROM (SELECT pg_cancel_backend(pid) FROM pg_stat_activity
			WHERE wait_event = 'SyncRep' AND query LIKE '%apply1%') x`).Scan(&n)
		return err == nil && n > 0
	})
	if err := <-answer; !errors.Is(err, store.ErrUnconfirmed) {
		t.Errorf("Apply without the standby = %v, want ErrUnconfirmed", err)
	}
	if get(t, s, r.ID).Marked == 0 {
		t.Error("the mark is not there")
	}
}

// TestReadsBesideHangingChanges has changes wait for a standby that is not there, more than there are connections. Reads go on.
func TestReadsBesideHangingChanges(t *testing.T) {
	t.Parallel() // it waits, mostly
	server := ownServer(t)
	s := openOn(t, server.URL, Options{MaxConns: 4})
	r := newRoot("mia")
	put(t, s, r)
	s.sql(t, `ALTER SYSTEM SET synchronous_standby_names = 'nobody'`)
	s.sql(t, `SELECT pg_reload_conf()`)
	until(t, "the server wants a standby", func() bool {
		return s.query(t, `SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = 'nobody'`) == 1
	})
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 20 {
		all.Go(func() {
			o := newRoot("tom")
			if err := s.Apply(ctx, o.ID, store.Put(o, 0)); err == nil {
				t.Error("Apply = nil without the standby")
			}
		})
	}
	until(t, "changes wait", func() bool {
		return s.query(t, `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`) == 3
	})
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := s.Get(ctx, r.ID); err != nil {
			t.Errorf("Get beside changes that hang = %v", err)
		}
		cancel()
	}
}

// TestDiskFull has the server say that its disk is full.
func TestDiskFull(t *testing.T) {
	s := openShared(t)
	r := newRoot("mia")
	put(t, s, r)
	s.sql(t, `CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$`)
	s.sql(t, `CREATE TRIGGER no_room BEFORE INSERT ON records FOR EACH ROW EXECUTE FUNCTION no_room()`)
	o := newRoot("mia")
	if err := s.Apply(t.Context(), o.ID, store.Put(o, 0)); !errors.Is(err, store.ErrFull) {
		t.Errorf("Apply = %v, want ErrFull", err)
	}
	if err := s.Load(t.Context(), []*store.Record{o}); !errors.Is(err, store.ErrFull) {
		t.Errorf("Load = %v, want ErrFull", err)
	}
	if err := s.Writable(); !errors.Is(err, store.ErrFull) {
		t.Errorf("Writable = %v, want ErrFull", err)
	}
	mark(t, s, r.ID)
}
