package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/afterlogin/afterlogin/store"
)

var neverEnds = context.Background()

func emit(t *testing.T, s *Store, n int) {
	t.Helper()
	for i := range n {
		apply(t, s, store.SubjectID(1, "x"), store.Emit(store.Event{Type: "e", At: int64(i)}))
	}
}

// TestEventsAreDropped keeps 40 events, and some more; a watcher that is behind them is told.
func TestEventsAreDropped(t *testing.T) {
	mem := vfs.NewMem()
	s := openOn(t, "data", Options{FS: mem, KeepEvents: 40})
	seq, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	slow, stop := iter.Pull2(seq)
	defer stop()
	emit(t, s, 30)
	var cursors []store.Cursor
	for range 30 {
		e, err, _ := slow()
		if err != nil {
			t.Fatal(err)
		}
		cursors = append(cursors, e.Cursor)
	}
	left := func(since store.Cursor) (n int, err error) {
		seq, err := s.Watch(t.Context(), since)
		if err != nil {
			return 0, err
		}
		emit(t, s, 1) // so that there is an end
		for e, err := range seq {
			if err != nil {
				return n, err
			}
			if n++; e.At == 0 && n > 1 {
				break
			}
		}
		return n, nil
	}
	if n, err := left(cursors[0]); err != nil || n != 30 {
		t.Errorf("%d events behind the first, %v, want 30", n, err)
	}
	emit(t, s, 60) // 91
	if _, err := s.Watch(t.Context(), cursors[0]); !errors.Is(err, store.ErrGap) {
		t.Errorf("Watch(a dropped event) = %v, want ErrGap", err)
	}
	if _, err, _ := slow(); !errors.Is(err, store.ErrGap) {
		t.Errorf("a slow watcher is told %v, want ErrGap", err)
	}
	count := func() (n int) {
		it, err := s.db.NewIter(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer it.Close()
		for ok := it.SeekGE([]byte{keyEvent}); ok && it.Key()[0] == keyEvent; ok = it.Next() {
			n++
		}
		return n
	}
	if n := count(); n < 40 || n > 45 {
		t.Errorf("%d events are kept, want 40 to 45", n)
	}
	// The same after a reopen, with the count of before.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openOn(t, "data", Options{FS: mem, KeepEvents: 40})
	emit(t, s, 7)
	if n := count(); n < 40 || n > 45 {
		t.Errorf("%d events are kept after a reopen, want 40 to 45", n)
	}
	emit(t, s, 500)
	if n := count(); n < 40 || n > 45 {
		t.Errorf("%d events are kept after many more, want 40 to 45", n)
	}
}

// TestBehindTheTail reads events that are no longer in memory.
func TestBehindTheTail(t *testing.T) {
	s := openOn(t, "data", Options{FS: vfs.NewMem()})
	seq, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	const n = 5*tailSize + 17
	emit(t, s, n)
	i := int64(0)
	for e, err := range seq {
		if err != nil || e.At != i {
			t.Fatalf("event %d: %+v, %v", i, e, err)
		}
		if i++; i == n {
			break
		}
	}
}

func TestEventCodec(t *testing.T) {
	for _, e := range []store.Event{
		{},
		{Type: "a", At: -1, Tenant: 1<<32 - 1, Subject: "\x00", Reason: "r", Detail: "d"},
		{Type: "b", ID: store.SubjectID(1, "alice")},
	} {
		b := appendEvent(nil, &e)
		got, err := parseEvent(b)
		if err != nil || got != e {
			t.Errorf("parseEvent(appendEvent(%+v)) = %+v, %v", e, got, err)
		}
		for i := range b {
			if _, err := parseEvent(b[:i]); err == nil {
				t.Errorf("parseEvent takes the first %d of %d bytes", i, len(b))
			}
		}
		if _, err := parseEvent(append(b, 0)); err == nil {
			t.Error("parseEvent takes a byte too many")
		}
	}
}

func FuzzEvent(f *testing.F) {
	f.Add(appendEvent(nil, &store.Event{Type: "session.created", ID: session(1, "a").ID, Subject: "a"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEvent(b)
		if err != nil {
			return
		}
		if got := appendEvent(nil, &e); string(got) != string(b) {
			t.Errorf("%x parses, and is encoded as %x", b, got)
		}
	})
}

func TestCursor(t *testing.T) {
	id := storeID{1, 2, 3}
	for _, n := range []uint64{0, 1, 1 << 40, 1<<64 - 1} {
		c := id.cursor(n)
		if got, ok := id.parse(c); !ok || got != n {
			t.Errorf("parse(cursor(%d)) = %d, %v", n, got, ok)
		}
		if _, ok := (storeID{9}).parse(c); ok {
			t.Errorf("another store takes cursor %q", c)
		}
	}
	if a, b := id.cursor(255), id.cursor(256); fmt.Sprint(a) >= fmt.Sprint(b) {
		t.Errorf("%q does not sort before %q", a, b)
	}
}
