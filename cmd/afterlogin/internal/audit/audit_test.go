package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// fixture is an authority with a store, and the directory of its log. It lives in a bubble of synctest.
type fixture struct {
	t    *testing.T
	a    *afterlogin.Authority
	ring *keyring.Ring
	dir  string
	o    Options
}

func newFixture(t *testing.T, s store.Store) *fixture {
	t.Helper()
	f := &fixture{t: t, ring: keyring.New(), dir: filepath.Join(t.TempDir(), "audit")}
	var err error
	if f.a, err = afterlogin.New(afterlogin.Config{Store: s, Keys: f.ring}); err != nil {
		t.Fatal(err)
	}
	a := f.a
	t.Cleanup(func() { a.Close(); s.Close() })
	f.o = Options{Authority: f.a, Keys: f.ring, Dir: f.dir, Node: "one"}
	return f
}

func (f *fixture) open() *Log {
	f.t.Helper()
	l, err := New(f.o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { l.Close() })
	return l
}

func (f *fixture) issue(subject string) *afterlogin.Session {
	f.t.Helper()
	i, err := f.a.Issue(afterlogin.WithActor(f.t.Context(), "key_test"), afterlogin.IssueRequest{Subject: subject})
	if err != nil {
		f.t.Fatal(err)
	}
	return i.Session
}

// settle lets everything that is under way come to rest, and the batch be written.
func settle() {
	time.Sleep(3 * gather)
	synctest.Wait()
}

func (f *fixture) all(l *Log, q Query) (out []Entry) {
	f.t.Helper()
	for {
		p, err := l.List(f.t.Context(), q)
		if err != nil || p.Damaged > 0 {
			f.t.Fatal(err, p.Damaged)
		}
		out = append(out, p.Entries...)
		if p.Next == "" {
			return out
		}
		q.Cursor = p.Next
	}
}

func (f *fixture) verify() *Report {
	f.t.Helper()
	r, err := Verify(f.t.Context(), VerifyOptions{Dir: f.dir, Keys: f.ring, Authority: f.a})
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func (f *fixture) inOrder() *Report {
	f.t.Helper()
	r := f.verify()
	if r.Count != 0 {
		f.t.Fatalf("%d problems: %v", r.Count, r.Problems)
	}
	return r
}

func types(all []Entry) (out []string) {
	for _, e := range all {
		out = append(out, e.Type)
	}
	return out
}

// What happens is in the log, once, whatever is closed and opened; acts are durable when they are answered.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		l := f.open()
		mia := f.issue("mia")
		if err := f.a.Revoke(t.Context(), mia.ID, afterlogin.ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
		settle()
		got := f.all(l, Query{})
		slices.Reverse(got)
		if want := []string{TypeBegan, TypeFollowing, "entry.created", "session.created", "session.revoked"}; !reflect.DeepEqual(types(got), want) {
			t.Fatalf("%q, want %q", types(got), want)
		}
		e := got[3]
		if e.Seq != 4 || e.Subject != "mia" || e.Session != string(mia.ID) || e.Root != string(mia.ID) || e.Actor != "key_test" || e.Node != "one" || e.Cursor == "" || e.At.IsZero() {
			t.Errorf("%+v", e)
		}
		before := l.Stats().Seq
		if err := l.Record(t.Context(), Entry{Type: "api.rotate-signing-key", Actor: "key_admin", Status: 201}); err != nil {
			t.Fatal(err)
		}
		if s := l.Stats(); s.Seq != before+1 || s.Lag != 0 || s.Failure != nil || s.Segments != 1 {
			t.Errorf("%+v", s)
		}
		f.inOrder()
		// Another cannot have the directory meanwhile.
		if _, err := New(f.o); !errors.Is(err, ErrInUse) {
			t.Errorf("a second log: %v", err)
		}
		for range 3 { // closed and opened: what happened meanwhile is there, once
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if err := l.Record(t.Context(), Entry{Type: "x"}); err != ErrClosed {
				t.Errorf("Record after Close: %v", err)
			}
			f.issue("tom")
			l = f.open()
			settle()
			f.inOrder()
		}
		if n := len(f.all(l, Query{Subject: "tom"})); n != 3 {
			t.Errorf("%d entries of tom, want 3", n)
		}
		if all := f.all(l, Query{}); len(all) != 9 || all[0].Seq != 9 {
			t.Errorf("%q", types(all))
		}
		if r := f.inOrder(); r.Entries != 9 || r.Last != 9 || r.First != 1 || r.Store == nil || len(r.Compared) != 2 || len(r.Notes) != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// Events are written together, acts at once, and nobody waits for the other.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		l := f.open()
		settle()
		at := l.Stats().Seq
		f.issue("mia")
		synctest.Wait()
		if l.Stats().Seq != at {
			t.Error("an event is written by itself")
		}
		time.Sleep(gather / 2)
		if s := l.Stats(); s.Lag != gather/2 {
			t.Errorf("lag %v", s.Lag)
		}
		began := time.Now()
		if err := l.Record(t.Context(), Entry{Type: "api.x"}); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if l.Stats().Seq != at+2 {
			t.Errorf("seq %d, want %d", l.Stats().Seq, at+2)
		}
	})
}

// What the store dropped before it was read is said, once. A store that lost what it knew has dropped it, too.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		l := f.open()
		f.issue("mia")
		l.Close()
		f.fall()
		f.issue("mia") // nobody has seen that
		l = f.open()
		f.issue("tom")
		settle()
		all := f.all(l, Query{Limit: 3})
		if got := types(all); !reflect.DeepEqual(got[:3], []string{"session.created", "entry.created", TypeGap}) || all[0].Subject != "tom" {
			t.Fatalf("%q", got)
		}
		r := f.inOrder()
		if !strings.Contains(strings.Join(r.Notes, "\n"), "events are missing") {
			t.Errorf("%q", r.Notes)
		}
		l.Close()
		f.issue("tom")
		l = f.open()
		settle()
		if n := len(f.all(l, Query{Type: TypeGap})); n != 1 {
			t.Errorf("%d gaps", n)
		}
		if n := len(f.all(l, Query{Subject: "tom"})); n != 2 {
			t.Errorf("%d of tom", n)
		}
	})
}

// fall puts an empty store into the place of the one there was, with the same keys.
func (f *fixture) fall() {
	f.t.Helper()
	s := memstore.New()
	a, err := afterlogin.New(afterlogin.Config{Store: s, Keys: f.ring})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { a.Close(); s.Close() })
	f.a, f.o.Authority = a, a
}

// Stores that survive the process: what happened while no log was open is in it.
func TestPebble(t *testing.T) {
	s, err := pebblestore.Open(t.TempDir(), pebblestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, s)
	for i := range 5 {
		l := f.open()
		f.issue(fmt.Sprint("s", i))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l := f.open()
	for deadline := time.Now().Add(10 * time.Second); ; { // a disk has no fake time
		n := 0
		for i := range 5 {
			n += len(f.all(l, Query{Subject: fmt.Sprint("s", i), Type: "session.*"}))
		}
		if n == 5 {
			break
		}
		if n > 5 || time.Now().After(deadline) {
			t.Fatalf("%d entries, want 5", n)
		}
		if err := l.Record(context.Background(), Entry{Type: "api.x"}); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	f.inOrder()
	for _, path := range []string{f.dir, filepath.Join(f.dir, "head.json"), segmentPath(f.dir, 1)} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
}
