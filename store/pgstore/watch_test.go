package pgstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/store"
)

func emit(t testing.TB, s *Store, kind string) {
	t.Helper()
	id := store.SubjectID(1, "mia")
	if err := s.Apply(t.Context(), id, store.Emit(store.Event{Type: kind, ID: id})); err != nil {
		t.Fatalf("Apply = %v", err)
	}
}

// A puller takes events one at a time.
type puller struct {
	t    testing.TB
	next func() (store.Event, error, bool)
}

func watch(t testing.TB, s *Store, since store.Cursor) *puller {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	seq, err := s.Watch(ctx, since)
	if err != nil {
		t.Fatalf("Watch = %v", err)
	}
	next, stop := iter.Pull2(seq)
	t.Cleanup(func() { cancel(); stop() })
	return &puller{t, next}
}

func (p *puller) want(kind string) store.Cursor {
	p.t.Helper()
	e, err, ok := p.next()
	if err != nil || !ok || e.Type != kind {
		p.t.Fatalf("Watch yields %v, %v, want %s", e, err, kind)
	}
	return e.Cursor
}

func (p *puller) wantGap() {
	p.t.Helper()
	if e, err, _ := p.next(); !errors.Is(err, store.ErrGap) {
		p.t.Fatalf("Watch yields %v, %v, want ErrGap", e, err)
	}
}

// TestWatchOtherNodes watches on one node what others do.
func TestWatchOtherNodes(t *testing.T) {
	a, b := pair(t, shared.URL)
	w := watch(t, b, "")
	var worst time.Duration
	var cursor store.Cursor
	for i := range 50 {
		kind := fmt.Sprint("e", i)
		emit(t, a, kind)
		answered := time.Now()
		cursor = w.want(kind)
		worst = max(worst, time.Since(answered))
	}
	t.Logf("an event came %v after its answer at most", worst)
	emit(t, b, "last")
	if c := w.want("last"); c != watch(t, a, cursor).want("last") {
		t.Error("two nodes give an event different cursors")
	}
}

// TestWatchLateCommit holds a transaction open: its events must come before those with later ids, and so those wait.
func TestWatchLateCommit(t *testing.T) {
	s := openShared(t)
	w := watch(t, s, "")
	c, err := pgx.Connect(t.Context(), shared.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO `+s.o.Schema+`.events (at, tenant, n, turn, type, id, subject, reason, detail)
		VALUES (0, 0, 1, 0, 'early', '', '', '', '')`); err != nil {
		t.Fatal(err)
	}
	emit(t, s, "late")
	heard := time.Now()
	until(t, "the feed has gone on", func() bool { return s.Heard(0).After(heard) })
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want("early")
	w.want("late")
}

// TestWatchTrimmed turns the events on until one is too old to go on from.
func TestWatchTrimmed(t *testing.T) {
	s := openShared(t)
	w := watch(t, s, "")
	emit(t, s, "e0")
	first := w.want("e0")
	for i := 1; i <= eventsKept; i++ {
		if err := s.turnLog(t.Context(), "events", eventsParts, 0); err != nil {
			t.Fatal(err)
		}
		emit(t, s, fmt.Sprint("e", i))
	}
	late := watch(t, s, first)
	for i := 1; i <= eventsKept; i++ {
		late.want(fmt.Sprint("e", i))
	}
	if err := s.turnLog(t.Context(), "events", eventsParts, 0); err != nil {
		t.Fatal(err)
	}
	watch(t, s, first).wantGap()
	w.wantGap() // it has not read on
	emit(t, s, "new")
	late.want("new")
	for i := range 2 * eventsParts {
		if err := s.turnLog(t.Context(), "events", eventsParts, 0); err != nil {
			t.Fatal(err)
		}
		emit(t, s, fmt.Sprint("more", i))
		late.want(fmt.Sprint("more", i))
	}
	if n := s.query(t, `SELECT count(*) FROM events`); n > eventsParts {
		t.Errorf("%d events are kept", n)
	}
	// Nothing new: nothing to turn.
	turn := s.query(t, `SELECT events_turn FROM meta`)
	for range 3 {
		if err := s.turnLog(t.Context(), "events", eventsParts, 0); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.query(t, `SELECT events_turn FROM meta`); n != turn+1 {
		t.Errorf("an empty log was turned %d times", n-turn)
	}
}

// TestWatchLostEvents: a standby took over that did not know of the last events, and gave their numbers to others.
func TestWatchLostEvents(t *testing.T) {
	s := openShared(t)
	w := watch(t, s, "")
	emit(t, s, "kept")
	w.want("kept")
	emit(t, s, "lost")
	lost := w.want("lost")
	s.sql(t, `UPDATE events SET made = made + interval '1 second', type = 'another' WHERE type = 'lost'`)
	watch(t, s, lost).wantGap()
	s.watchers.ring()
	w.wantGap()
}

// TestWatchAcrossRestart goes on watching while the server restarts.
func TestWatchAcrossRestart(t *testing.T) {
	server := ownServer(t)
	s := openOn(t, server.URL, Options{})
	w := watch(t, s, "")
	emit(t, s, "before")
	cursor := w.want("before")
	for _, mode := range []string{"fast", "immediate"} {
		if err := server.Restart(mode); err != nil {
			t.Fatal(err)
		}
		up := time.Now()
		until(t, "the store is back", func() bool { return s.Heard(0).After(up) })
		emit(t, s, mode)
		if c := w.want(mode); c != watch(t, s, cursor).want(mode) {
			t.Errorf("after a restart, %s: two cursors", mode)
		} else {
			cursor = c
		}
	}
}
