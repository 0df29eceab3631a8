package redisstore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// A server without room takes no new records, and revocations all the same; it recovers when it has room again.
func TestFull(t *testing.T) {
	p := startRedis(t)
	s := openAt(t, "redis://"+p.Addr, Options{Events: 100, logged: 100})
	root := rootIn(1)
	put(t, s, root)
	do(t, p, "CONFIG", "SET", "maxmemory", "1")
	r := newRoot("mia")
	if err := s.Apply(t.Context(), r.ID, store.Put(r, 0)); !errors.Is(err, store.ErrFull) {
		t.Errorf("Apply of a new root = %v, want ErrFull", err)
	}
	if err := s.Writable(); !errors.Is(err, store.ErrFull) {
		t.Errorf("Writable = %v, want ErrFull", err)
	}
	if err := s.Load(t.Context(), []*store.Record{r}); !errors.Is(err, store.ErrFull) {
		t.Errorf("Load = %v, want ErrFull", err)
	}
	if got, err := s.Get(t.Context(), r.ID); err != nil || got[0] != nil {
		t.Errorf("Get = %v, %v, want nothing", got[0], err)
	}
	if err := s.Apply(t.Context(), root.ID, store.Mark(root.ID, now, "gone"), store.Emit(store.Event{Type: "session.revoked"})); err != nil {
		t.Errorf("Apply of a mark = %v", err)
	}
	if err := s.Touch(t.Context(), []store.Touch{{ID: root.ID, At: now}}); err != nil {
		t.Errorf("Touch = %v", err)
	}
	waitFor(t, "hearing", func() bool { return time.Since(s.Heard(16)) < store.Lease/2 })
	do(t, p, "CONFIG", "SET", "maxmemory", "0")
	put(t, s, r)
	waitFor(t, "Writable", func() bool { return s.Writable() == nil })
}

// An Apply whose server hangs has an open outcome, for its caller as for a context that ends; the change log tells in the
// end, and this process's listeners are told when the change was answered for, and again when it is known to have happened.
func TestUnknown(t *testing.T) {
	p := startRedis(t)
	s := openAt(t, "redis://"+p.Addr, Options{})
	h := hear(s)
	a, b := rootIn(2), rootIn(2)
	put(t, s, a)
	put(t, s, b)
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 2)
	go func() { errs <- s.Apply(t.Context(), a.ID, store.Mark(a.ID, now, "gone")) }()
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		errs <- s.Apply(ctx, b.ID, store.Mark(b.ID, now, "gone"))
	}()
	for range 2 {
		if err := <-errs; !errors.Is(err, store.ErrUnknown) {
			t.Errorf("Apply = %v, want ErrUnknown", err)
		}
	}
	for _, id := range []store.ID{a.ID, b.ID} {
		if _, ok := h.heard(id); !ok {
			t.Errorf("nobody was told of the change that may have happened")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Get(ctx, a.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get = %v, want the context's error", err)
	}
	h.clear()
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "marks", func() bool {
		got, err := s.Get(t.Context(), a.ID, b.ID)
		return err == nil && got[0].Marked != 0 && got[1].Marked != 0
	})
	h.wait(t, a.ID)
	h.wait(t, b.ID)
}

// A server that is not there is told before anything is sent: nothing happened.
func TestDown(t *testing.T) {
	p := startRedis(t, "appendonly yes")
	s := openAt(t, "redis://"+p.Addr, Options{})
	r := rootIn(2)
	put(t, s, r)
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	mark := store.Mark(r.ID, now, "gone")
	waitFor(t, "a refusal", func() bool { return errors.Is(s.Apply(t.Context(), r.ID, mark), ErrUnavailable) })
	for range 20 {
		began := time.Now()
		if err := s.Apply(t.Context(), r.ID, mark); !errors.Is(err, ErrUnavailable) || errors.Is(err, store.ErrUnknown) {
			t.Errorf("Apply = %v, want ErrUnavailable", err)
		}
		if _, err := s.Get(t.Context(), r.ID); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Get = %v, want ErrUnavailable", err)
		}
		if d := time.Since(began); d > time.Second*slow {
			t.Errorf("two refusals took %v", d)
		}
	}
	if err := s.Touch(t.Context(), []store.Touch{{ID: r.ID, At: now}}); err == nil {
		t.Error("Touch = nil")
	}
	for _, err := range s.List(t.Context(), store.Query{Tenant: 1}) {
		if err == nil {
			t.Error("List yields something")
		}
	}
	waitFor(t, "Writable", func() bool { return s.Writable() != nil })
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	d := waitFor(t, "a change", func() bool { return s.Apply(t.Context(), r.ID, mark) == nil })
	t.Logf("changes again %v after the server came back", d.Round(time.Millisecond))
	waitFor(t, "Writable", func() bool { return s.Writable() == nil })
}

// A subject's sessions are signed out by one change however many there are, and an index of as many is no burden on it.
func TestManySessionsOfOneSubject(t *testing.T) {
	s := openAt(t, "redis://"+startRedis(t).Addr, Options{})
	const sessions = 100_000
	var batch []*store.Record
	for range sessions {
		r := newRoot("mia")
		r.Payload = r.Payload[:50]
		if batch = append(batch, r); len(batch) == store.MaxLoad {
			if err := s.Load(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	sub := &store.Record{ID: store.SubjectID(1, "mia"), Kind: 's', Tenant: 1, Subject: "mia", Version: 1}
	put(t, s, sub)
	began := time.Now()
	sub = next(sub)
	put(t, s, sub)
	d := time.Since(began)
	t.Logf("one change for %d sessions: %v", sessions, d)
	if d > 50*time.Millisecond*slow {
		t.Errorf("signing out everywhere took %v, want at most 50 ms", d)
	}
	began = time.Now()
	put(t, s, newRoot("mia"))
	if d := time.Since(began); d > 50*time.Millisecond*slow {
		t.Errorf("one more session took %v", d)
	}
	n := 0
	for _, err := range s.List(t.Context(), store.Query{Tenant: 1, Subject: "mia"}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != sessions+1 {
		t.Errorf("List = %d roots, want %d", n, sessions+1)
	}
}

// Records end with their bucket, by the server's clock, and so do the indexes of their subjects.
func TestExpiry(t *testing.T) {
	p := startRedis(t)
	s := openAt(t, "redis://"+p.Addr, Options{})
	r := newRoot("mia")
	r.Absolute = time.Now().Add(2 * time.Hour).UnixMilli()
	r.ID = store.NewRootID(store.BucketOf(r.Absolute), [14]byte{9: 1}, 1, "mia")
	put(t, s, r)
	want := fmt.Sprint(r.ID.Bucket().End() + 3*hour)
	for _, key := range []string{s.keys.record(r.ID), s.keys.subject(store.SubjectID(1, "mia"))} {
		if got := do(t, p, "PEXPIRETIME", key); got != want {
			t.Errorf("%q ends at %s, want %s", key, got, want)
		}
	}
	put(t, s, next(r))
	if err := s.Apply(t.Context(), r.ID, store.Mark(r.ID, now, "gone")); err != nil {
		t.Fatal(err)
	}
	if err := s.Touch(t.Context(), []store.Touch{{ID: r.ID, At: now}}); err != nil {
		t.Fatal(err)
	}
	if got := do(t, p, "PEXPIRETIME", s.keys.record(r.ID)); got != want {
		t.Errorf("after changes it ends at %s, want %s", got, want)
	}
	forever := newRoot("mia")
	forever.ID = store.NewRootID(store.NoBucket, [14]byte{9: 2}, 1, "mia")
	put(t, s, forever)
	for _, key := range []string{s.keys.record(forever.ID), s.keys.subject(store.SubjectID(1, "mia"))} {
		if got := do(t, p, "PEXPIRETIME", key); got != "-1" {
			t.Errorf("%q ends at %s, want never", key, got)
		}
	}
	// A root that is long over leaves an entry, which the next one clears away.
	old := newRoot("mia")
	old.Absolute = time.Now().Add(-10 * time.Hour).UnixMilli()
	old.ID = store.NewRootID(store.BucketOf(old.Absolute), [14]byte{9: 3}, 1, "mia")
	put(t, s, old)
	put(t, s, newRoot("mia"))
	if got := do(t, p, "ZCARD", s.keys.subject(store.SubjectID(1, "mia"))); got != "3" {
		t.Errorf("the index has %s entries, want 3", got)
	}
	// Purge clears the tenant's.
	if err := s.Purge(t.Context(), store.BucketOf(time.Now().Add(-5*time.Hour).UnixMilli())); err != nil {
		t.Fatal(err)
	}
	if got := do(t, p, "ZCOUNT", s.keys.tenant(groupOf(r.ID), 1), "-inf", "+inf"); got != "3" {
		t.Errorf("the tenant's index has %s entries, want 3", got)
	}
}

// A validation writes nothing: it is counted on the server.
func TestReadsWriteNothing(t *testing.T) {
	p := startRedis(t)
	s := openAt(t, "redis://"+p.Addr, Options{})
	r := newRoot("mia")
	put(t, s, r)
	changes := func() string { return parseInfo(do(t, p, "INFO", "persistence"))["rdb_changes_since_last_save"] }
	before := changes()
	for range 100 {
		if _, err := s.Get(t.Context(), r.ID, store.SubjectOf(r.ID)); err != nil {
			t.Fatal(err)
		}
	}
	if after := changes(); after != before {
		t.Errorf("100 reads changed %s to %s on the server", before, after)
	}
}

// A clock that is off makes the store say that it is not fit.
func TestClock(t *testing.T) {
	s := openAt(t, singleURL(t), Options{})
	if s.Feed().Skew == 0 { // which is not likely to the nanosecond
		t.Error("Open has not measured it")
	}
	waitFor(t, "Writable", func() bool { return s.Writable() == nil })
	n, err := s.topo.master(0)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a complaint", func() bool {
		n.skew.Store(int64(-maxSkew - time.Millisecond)) // until it is measured again
		n.bestRTT.Store(0)                               // by any reading
		return errors.Is(s.Writable(), ErrClock)
	})
	waitFor(t, "Writable", func() bool { return s.Writable() == nil })
	if d := s.Feed().Skew; d.Abs() > 500*time.Millisecond*slow {
		t.Errorf("Skew = %v against a server on this machine", d)
	}
}
