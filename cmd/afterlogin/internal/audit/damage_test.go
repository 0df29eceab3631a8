package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// aged is a closed log with a segment for each of some days.
func aged(t *testing.T) (*fixture, files) {
	f := newFixture(t, memstore.New())
	f.o.Keep = 10 * 24 * time.Hour
	l := f.open()
	for i := range 5 {
		f.issue(fmt.Sprint("s", i))
		settle()
		time.Sleep(24 * time.Hour)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	all := f.read()
	if n := len(all.segments()); n < 5 {
		t.Fatalf("%d segments", n)
	}
	f.inOrder()
	return f, all
}

func said(r *Report, what string) bool {
	return slices.ContainsFunc(r.Problems, func(p Finding) bool { return strings.Contains(p.What, what) })
}

// What a first line says that is not genuine has nothing removed, hides nothing in silence, and is found also when it has
// been put back.
func TestForgedFirstLine(t *testing.T) {
	for what, change := range map[string][2]string{
		"another time":   {`"at":"2`, `"at":"1`},
		"another layout": {`"audit":1`, `"audit":2`},
		"no first line":  {`{`, `[`},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, all := aged(t)
				names := all.segments()
				forged := all
				for _, name := range names[1:4] {
					forged = forged.with(name, bytes.Replace(all[name], []byte(change[0]), []byte(change[1]), 1))
				}
				f.put(forged)
				l := f.open()
				settle()
				time.Sleep(retainEvery + time.Minute)
				synctest.Wait()
				p, err := l.List(t.Context(), Query{Limit: MaxPage})
				if err != nil || p.Damaged != 3 {
					t.Errorf("the list leaves out %d segments, %v; want 3", p.Damaged, err)
				}
				if n, err := l.Export(t.Context(), Query{}, func([]byte) error { return nil }); err != nil || n != 3 {
					t.Errorf("the export leaves out %d segments, %v; want 3", n, err)
				}
				l.Close()
				now := f.read()
				for _, name := range names {
					if now[name] == nil {
						t.Fatalf("%s was removed", name)
					}
					if name != names[len(names)-1] {
						now[name] = all[name]
					}
				}
				f.put(now)
				if r := f.verify(); !said(r, "no genuine first line in "+names[1]) {
					t.Errorf("%v", r.Problems)
				}
				l = f.open() // what was put back is read again
				settle()
				if n := len(f.all(l, Query{Type: TypeDamaged})); n != 1 {
					t.Errorf("%d entries about damage", n)
				}
				if n := len(f.all(l, Query{Type: "session.created"})); n != 5 {
					t.Errorf("%d sign-ins", n)
				}
			})
		})
	}
}

// A segment without a good first line is told of once, and removed with those of its age, when a genuine one behind it says
// how old it is.
func TestDamagedAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, all := aged(t)
		names := all.segments()
		f.put(all.with(names[0], bytes.Replace(all[names[0]], []byte(`"at":"2`), []byte(`"at":"3`), 1)))
		for range 3 {
			l := f.open()
			settle()
			l.Close()
		}
		if r := f.alone(); r.Count != 2 { // the line, and the entry about it
			t.Errorf("%v", r.Problems)
		}
		l := f.open()
		time.Sleep(f.o.Keep - 3*24*time.Hour)
		settle()
		now := f.read()
		if now[names[0]] != nil || now[names[1]] != nil || now[names[len(names)-1]] == nil {
			t.Errorf("%q", now.segments())
		}
		removed := f.all(l, Query{Type: TypeRemoved})
		if len(removed) == 0 || !strings.HasPrefix(removed[len(removed)-1].Detail, "entries 1 to ") {
			t.Errorf("%+v", removed)
		}
	})
}

// A file from before the log begins is none of it: what it says is not shown, and if the log did not write it that is a
// problem.
func TestBelowTheFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, all := aged(t)
		names := all.segments()
		l := f.open()
		time.Sleep(f.o.Keep - 2*24*time.Hour)
		settle()
		l.Close()
		if f.read()[names[0]] != nil {
			t.Fatal("nothing was removed")
		}
		f.inOrder()
		zero := strings.Repeat("A", hashText)
		forged := fmt.Sprintf(`{"audit":1,"log":"x","installation":"","node":"one","segment":1,"first":1,"key":1,"at":"2000-01-01T00:00:00Z","prev":%q,"hash":%q}
{"seq":1,"at":"2000-01-01T00:00:00Z","type":"session.revoked","actor":"key_forged","subject":"mia","prev":%q,"hash":%q}
`, zero, zero, zero, zero)
		f.put(f.read().with(names[0], []byte(forged)))
		if r := f.verify(); r.Count != 1 || r.Problems[0].File != names[0] {
			t.Errorf("%v", r.Problems)
		}
		l = f.open()
		settle()
		if got := f.all(l, Query{Actor: "key_forged"}); len(got) != 0 {
			t.Errorf("%+v", got)
		}
		l.Close()
		// What was to be removed when the server was killed is removed when it starts.
		f.put(f.read().with(names[0], all[names[0]]))
		f.inOrder()
		l = f.open()
		settle()
		if f.read()[names[0]] != nil {
			t.Error("it is there still")
		}
	})
}

// silent is a store that can be told not to answer.
type silent struct {
	store.Store
	now atomic.Bool
}

var errSilent = errors.New("no answer")

func (s *silent) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if s.now.Load() {
		return nil, errSilent
	}
	return s.Store.Get(ctx, ids...)
}

func (s *silent) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	if s.now.Load() {
		return func(yield func(*store.Record, error) bool) { yield(nil, errSilent) }
	}
	return s.Store.List(ctx, q)
}

func (s *silent) Watch(ctx context.Context, since store.Cursor) (iter.Seq2[store.Event, error], error) {
	if s.now.Load() {
		return nil, errSilent
	}
	return s.Store.Watch(ctx, since)
}

// What the store knows is compared when it answers, if it did not when the log was opened, and is not replaced before.
func TestStoreKnowsLater(t *testing.T) {
	for what, acts := range map[string]int{"a shorter log": 0, "a longer one": 20} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &silent{Store: memstore.New()}
				f := newFixture(t, s)
				l := f.open()
				f.issue("mia")
				settle()
				old := f.read()
				for range 5 {
					if err := l.Record(t.Context(), Entry{Type: "api.x", Actor: "key_gone"}); err != nil {
						t.Fatal(err)
					}
				}
				known := l.Stats().Seq
				l.Close()
				f.put(old)
				record := func(l *Log, n int) {
					for range n {
						if err := l.Record(t.Context(), Entry{Type: "api.x"}); err != nil {
							t.Fatal(err)
						}
					}
				}
				s.now.Store(true)
				l = f.open()
				record(l, acts)
				time.Sleep(3 * storeHeadEvery)
				synctest.Wait()
				l.Close() // nobody has asked yet
				s.now.Store(false)
				if head, _, err := readStoreHead(t.Context(), f.a, l.keys.id); err != nil || head.Seq != known {
					t.Fatalf("the store knows of %+v, %v; want %d", head, err, known)
				}
				s.now.Store(true)
				l = f.open()
				record(l, acts)
				s.now.Store(false)
				time.Sleep(storeHeadEvery + time.Second)
				settle()
				l.Close()
				if r := f.verify(); !said(r, "the store knows") {
					t.Errorf("%v", r.Problems)
				}
				l = f.open()
				settle()
				if n := len(f.all(l, Query{Type: TypeDamaged})); n != 1 {
					t.Errorf("%d entries about damage", n)
				}
			})
		})
	}
}

// A log that went on with files that were put back, while the store did not answer, is another than the store knows.
func TestStoreKnowsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		l := f.open()
		f.issue("mia")
		settle()
		old := f.read()
		for range 5 {
			l.Record(t.Context(), Entry{Type: "api.x"})
		}
		l.Close()
		a := f.a
		f.fall() // as if it did not answer
		f.put(old)
		l = f.open()
		for range 20 {
			l.Record(t.Context(), Entry{Type: "api.y"})
		}
		l.Close()
		f.a, f.o.Authority = a, a
		for range 2 {
			l = f.open()
			settle()
			l.Close()
			if r := f.verify(); r.Count != 1 || !said(r, "the store knows another line as entry") {
				t.Errorf("%v", r.Problems)
			}
		}
	})
}

// A write of several pages, of which a power failure left out one, is no tampering before the server has started either.
func TestTornInTheMiddle(t *testing.T) {
	for name, size := range map[string]int64{"in a segment": 0, "at the beginning of one": 100} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, memstore.New())
				f.o.segmentSize = size
				l := f.open()
				f.issue("mia")
				l.Close()
				before := f.read()
				l = f.open()
				for i := range 8 {
					f.issue(fmt.Sprint("s", i))
				}
				settle()
				after := f.read()
				l.Close()
				names := after.segments()
				last := names[len(names)-1]
				n := len(before[last])
				for from := n; from < len(after[last])-600; from += 97 {
					torn := bytes.Clone(after[last])
					clear(torn[from : from+512])
					f.put(before.with(last, torn))
					if r := f.verify(); len(before[last]) > 0 && r.Store == nil {
						t.Fatal("the store was not asked")
					}
					if r := f.alone(); r.Count != 0 || !strings.Contains(strings.Join(r.Notes, "\n"), "cut off") {
						t.Fatalf("%d: %v %q", from, r.Problems, r.Notes)
					}
					f.fall()
					l := f.open()
					l.Close()
					f.inOrder()
				}
			})
		})
	}
}

// What is written into a file that is gone, or is another, is in no log: it goes on in a new segment, and says so.
func TestLost(t *testing.T) {
	for what, take := range map[string]func(path string) error{
		"gone":    os.Remove,
		"another": func(path string) error { return errors.Join(os.Rename(path, path+".x"), copyFile(path+".x", path)) },
		"shorter": func(path string) error { return os.Truncate(path, 300) },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, memstore.New())
				l := f.open()
				f.issue("mia")
				settle()
				if err := take(segmentPath(f.dir, 1)); err != nil {
					t.Fatal(err)
				}
				if err := l.Record(t.Context(), Entry{Type: "api.x", Actor: "key_a"}); err != nil {
					t.Fatal(err)
				}
				if n := len(f.all2(Query{Actor: "key_a"})); n != 1 {
					t.Errorf("%d of the act in the files", n)
				}
				if err := l.Record(t.Context(), Entry{Type: "api.x", Actor: "key_a"}); err != nil {
					t.Fatal(err)
				}
				if p, err := l.List(t.Context(), Query{Actor: "key_a"}); err != nil || len(p.Entries) != 2 || p.Damaged != 1 {
					t.Errorf("%v %+v", err, p)
				}
				l.Close()
				if r := f.verify(); !said(r, "damaged while it was in use: 00000001.jsonl") {
					t.Errorf("%v", r.Problems)
				}
			})
		})
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// A segment in the middle that somebody removed while the log is in use takes nothing else out of the list and the export.
func TestMissingInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, all := aged(t)
		l := f.open()
		settle()
		if err := os.Remove(filepath.Join(f.dir, all.segments()[2])); err != nil {
			t.Fatal(err)
		}
		p, err := l.List(t.Context(), Query{Type: "session.created"})
		if err != nil || len(p.Entries) != 4 || p.Damaged != 1 {
			t.Errorf("%v: %d entries, %d damaged", err, len(p.Entries), p.Damaged)
		}
		lines := 0
		damaged, err := l.Export(t.Context(), Query{Type: "session.created"}, func([]byte) error { lines++; return nil })
		if err != nil || lines != 4 || damaged != 1 {
			t.Errorf("%v: %d lines, %d damaged", err, lines, damaged)
		}
	})
}

// A log that was taken away whole, and one of another server in its place, are in order, and noted.
func TestTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		notes := func() string { t.Helper(); return strings.Join(f.inOrder().Notes, "\n") }
		l := f.open()
		first := l.keys.id
		f.issue("mia")
		l.Close()
		mine := f.read()
		if n := notes(); n != "" {
			t.Errorf("%q", n)
		}
		if err := os.RemoveAll(f.dir); err != nil {
			t.Fatal(err)
		}
		f.open().Close()
		if n := notes(); !strings.Contains(n, `the store knows of another log of "one", `+first) {
			t.Errorf("%q", n)
		}
		// Another's.
		f.dir, f.o.Dir, f.o.Node = f.dir+".two", f.dir+".two", "two"
		f.open().Close()
		if n := notes(); n != "" {
			t.Errorf("%q", n)
		}
		theirs := f.read()
		f.dir, f.o.Dir, f.o.Node = f.dir+".three", f.dir+".three", "one"
		os.Mkdir(f.dir, 0o700)
		f.put(theirs)
		l = f.open()
		r, err := l.Verify(t.Context())
		if err != nil || r.Count != 0 || !strings.Contains(strings.Join(r.Notes, "\n"), `this server is "one", and the log was begun by ["two"]`) {
			t.Errorf("%v %+v", err, r)
		}
		l.Close()
		// A store that has forgotten, or is another.
		f.put(mine)
		f.fall()
		if n := notes(); strings.Contains(n, "although") {
			t.Errorf("%q", n)
		}
		l = f.open()
		time.Sleep(2 * time.Minute)
		l.Record(t.Context(), Entry{Type: "api.x"})
		l.Close()
		f.fall()
		if n := notes(); !strings.Contains(n, "knows nothing of this log, although") {
			t.Errorf("%q", n)
		}
	})
}

// hanging is a store that can be told to take changes and not to answer.
type hanging struct {
	store.Store
	now     atomic.Bool
	asked   chan struct{}
	release chan struct{}
}

func (s *hanging) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if s.now.Load() {
		s.asked <- struct{}{}
		<-s.release
	}
	return s.Store.Apply(ctx, root, ops...)
}

// How the log does can be told while the store does not answer.
func TestStatsWhileHanging(t *testing.T) {
	s := &hanging{Store: memstore.New(), asked: make(chan struct{}, 8), release: make(chan struct{})}
	f := newFixture(t, s)
	l := f.open()
	s.now.Store(true)
	told := make(chan struct{})
	go func() {
		defer close(told)
		l.heads.put(t.Context(), l)
	}()
	<-s.asked
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Stats()
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("Stats waits for the store")
	}
	s.now.Store(false)
	close(s.release)
	<-told
	<-done
	if s := l.Stats(); s.StoreSeq == 0 {
		t.Errorf("%+v", s)
	}
}
