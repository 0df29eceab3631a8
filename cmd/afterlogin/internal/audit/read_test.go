package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// Pages of every size, over segments, have each entry once, newest first; filters mean what they say.
func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		f.o.segmentSize = 2000
		l := f.open()
		begin := time.Now()
		var odd *afterlogin.Session
		for i := range 30 {
			s := f.issue([]string{"mia", `t"om\u<`}[i%2])
			if i == 7 {
				odd = s
			}
			time.Sleep(time.Hour)
		}
		if err := f.a.Revoke(t.Context(), odd.ID, afterlogin.ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
		settle()
		if l.Stats().Segments < 5 {
			t.Fatalf("%d segments", l.Stats().Segments)
		}
		all := f.all(l, Query{Limit: MaxPage})
		for i, e := range all {
			if want := uint64(len(all) - i); e.Seq != want {
				t.Fatalf("entry %d has seq %d, want %d", i, e.Seq, want)
			}
		}
		for _, limit := range []int{1, 2, 7, len(all), len(all) + 1} {
			if got := f.all(l, Query{Limit: limit}); !reflect.DeepEqual(got, all) {
				t.Errorf("by %d: %d entries, want %d", limit, len(got), len(all))
			}
		}
		for name, c := range map[string]struct {
			q    Query
			want func(Entry) bool
		}{
			"subject": {Query{Subject: `t"om\u<`}, func(e Entry) bool { return e.Subject == `t"om\u<` }},
			"session": {Query{Session: string(odd.ID)}, func(e Entry) bool { return e.Session == string(odd.ID) }},
			"actor":   {Query{Actor: "key_test"}, func(e Entry) bool { return e.Actor == "key_test" }},
			"type":    {Query{Type: "session.revoked"}, func(e Entry) bool { return e.Type == "session.revoked" }},
			"types":   {Query{Type: "audit.*"}, func(e Entry) bool { return strings.HasPrefix(e.Type, "audit.") }},
			"since":   {Query{Since: begin.Add(9 * time.Hour)}, func(e Entry) bool { return !e.At.Before(begin.Add(9 * time.Hour)) }},
			"until":   {Query{Until: begin.Add(9 * time.Hour)}, func(e Entry) bool { return e.At.Before(begin.Add(9 * time.Hour)) }},
			"an hour": {Query{Since: begin.Add(9 * time.Hour), Until: begin.Add(10 * time.Hour)}, func(e Entry) bool {
				return !e.At.Before(begin.Add(9*time.Hour)) && e.At.Before(begin.Add(10*time.Hour))
			}},
			"two":      {Query{Subject: "mia", Type: "session.created"}, func(e Entry) bool { return e.Subject == "mia" && e.Type == "session.created" }},
			"nothing":  {Query{Subject: "nobody"}, func(Entry) bool { return false }},
			"a prefix": {Query{Subject: "mi"}, func(Entry) bool { return false }},
		} {
			var want []Entry
			for _, e := range all {
				if c.want(e) {
					want = append(want, e)
				}
			}
			for _, limit := range []int{1, 3, 1000} {
				c.q.Limit = limit
				if got := f.all(l, c.q); len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
					t.Errorf("%s by %d: %d entries, want %d", name, limit, len(got), len(want))
				}
			}
			var out bytes.Buffer
			damaged, err := l.Export(t.Context(), c.q, func(line []byte) error { out.Write(line); return nil })
			if err != nil || damaged != 0 {
				t.Fatal(err, damaged)
			}
			var exported []Entry
			for line := range bytes.Lines(out.Bytes()) {
				var e Entry
				if err := json.Unmarshal(line, &e); err != nil {
					t.Fatal(err)
				}
				exported = append(exported, e)
			}
			slices.Reverse(exported)
			if len(exported) != len(want) || len(want) > 0 && !reflect.DeepEqual(exported, want) {
				t.Errorf("export of %s: %d entries, want %d", name, len(exported), len(want))
			}
		}
		if who := l.EndedBy(t.Context(), &afterlogin.Session{ID: odd.ID, Root: odd.ID, Subject: `t"om\u<`, Ended: time.Now()}); who != "" {
			t.Errorf("ended by %q", who) // nobody was named
		}
		// A cursor of another log, or of nowhere, is refused, and does no harm.
		for _, cursor := range []string{"x", "!", cursorOf(1, 5), cursorOf(99, 5), cursorOf(1, 1<<40), cursorOf(0, 1), strings.Repeat("A", 1000)} {
			p, err := l.List(t.Context(), Query{Cursor: cursor})
			if !errors.Is(err, ErrBadCursor) && !(err == nil && len(p.Entries) == 0) {
				t.Errorf("%s: %v, %d entries", cursor, err, len(p.Entries))
			}
		}
	})
}

func TestEndedBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		l := f.open()
		ctx := afterlogin.WithActor(t.Context(), "console/tom")
		one, two, three := f.issue("mia"), f.issue("mia"), f.issue("mia")
		if err := f.a.Revoke(ctx, one.ID, afterlogin.ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := f.a.RevokeOthers(afterlogin.WithActor(t.Context(), "self"), three.ID, afterlogin.ReasonSignedOutAll); err != nil {
			t.Fatal(err)
		}
		settle()
		for s, want := range map[*afterlogin.Session]string{one: "console/tom", two: "self", three: ""} {
			s := *s
			s.Ended = time.Now()
			if want == "console/tom" {
				s.Ended = s.Ended.Add(-time.Minute)
			}
			if got := l.EndedBy(t.Context(), &s); got != want {
				t.Errorf("ended by %q, want %q", got, want)
			}
		}
	})
}

// Whole segments go when all of them is too old; what is left begins where the head says, and is in order.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		f.o.Keep = 10 * 24 * time.Hour
		l := f.open()
		for i := range 30 {
			f.issue(fmt.Sprint("s", i))
			time.Sleep(24 * time.Hour)
		}
		time.Sleep(retainEvery)
		settle()
		s := l.Stats()
		if s.Segments < 10 || s.Segments > 12 {
			t.Errorf("%d segments", s.Segments)
		}
		if n := len(f.all(l, Query{Subject: "s0"})); n != 0 {
			t.Error("the first is there still")
		}
		if n := len(f.all(l, Query{Subject: "s28"})); n == 0 {
			t.Error("the last is not there")
		}
		if n := len(f.all(l, Query{Type: TypeRemoved})); n == 0 {
			t.Error("that entries were removed is not said")
		}
		r := f.inOrder()
		if r.First < 10 || !strings.Contains(strings.Join(r.Notes, "\n"), "are not kept any more") {
			t.Errorf("%+v", r)
		}
		l.Close()
		l = f.open()
		settle()
		f.inOrder()
		l.Close()
		// Whoever reads the files of a running server may find that some are gone meanwhile.
		l = f.open()
		v := &verification{o: VerifyOptions{Dir: f.dir, Keys: f.ring}, report: &Report{}}
		numbers, err := v.begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * 24 * time.Hour)
		f.issue("eve")
		settle()
		if err := v.read(t.Context(), numbers); err != errRemoved {
			t.Errorf("%v, %v", err, v.report.Problems)
		}
		f.inOrder()
		l.Close()
		// The first segments that are left are not for anybody else to remove.
		all := f.read()
		f.put(all.with(all.segments()[0], nil))
		if r := f.alone(); r.Count == 0 {
			t.Error("a missing first segment is not found")
		}
	})
}

// A new sealing key begins a new segment; what was written with the old one stays verifiable when that is dead.
func TestKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		l := f.open()
		f.issue("mia")
		settle()
		if _, err := f.ring.Rotate(purpose); err != nil {
			t.Fatal(err)
		}
		f.issue("tom")
		settle()
		if n := l.Stats().Segments; n != 2 {
			t.Errorf("%d segments, want 2", n)
		}
		f.inOrder()
		if err := f.ring.SetState(purpose, 1, "dead"); err != nil {
			t.Fatal(err)
		}
		r := f.inOrder()
		if !strings.Contains(strings.Join(r.Notes, "\n"), "key 1, which is dead") {
			t.Errorf("%q", r.Notes)
		}
		l.Close()
		l = f.open()
		f.issue("eve")
		settle()
		f.inOrder()
	})
}

// Two logs on one store have the same events, and each its own acts.
func TestTwoServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		one := f.open()
		g := *f
		g.dir = t.TempDir()
		g.o.Dir, g.o.Node = g.dir, "two"
		two := g.open()
		f.issue("mia")
		if err := two.Record(t.Context(), Entry{Type: "api.x", Actor: "key_two"}); err != nil {
			t.Fatal(err)
		}
		settle()
		for _, l := range []*Log{one, two} {
			if n := len(f.all(l, Query{Subject: "mia"})); n != 1 {
				t.Errorf("%d entries of mia", n)
			}
		}
		if a, b := len(f.all(one, Query{Actor: "key_two"})), len(f.all(two, Query{Actor: "key_two"})); a != 0 || b != 1 {
			t.Errorf("%d and %d acts", a, b)
		}
		one.Close()
		two.Close()
		if a, b := f.inOrder(), g.inOrder(); a.Log == b.Log || a.Store.Log == b.Store.Log || b.Node != "two" {
			t.Errorf("%+v %+v", a, b)
		}
	})
}

// FuzzLine: whatever stands in a line or a head, reading it neither panics nor believes it.
func FuzzLine(f *testing.F) {
	f.Add([]byte(`{"seq":1,"at":"2026-01-01T00:00:00Z","type":"x","prev":"` + noHash + `","hash":"` + noHash + `"}` + "\n"))
	f.Add([]byte(`{"audit":1,"log":"x","segment":1,"mac":"` + noHash + `"}` + "\n"))
	f.Add([]byte("{"))
	ring := newRing()
	f.Fuzz(func(t *testing.T, line []byte) {
		k, err := newLineKeys(ring, "x").key(1)
		if err != nil {
			t.Fatal(err)
		}
		if body, prev, hash, ok := split(line); ok && (k.genuine(kindEntry, body, prev, hash) || k.genuine(kindSegment, body, prev, hash)) {
			t.Errorf("believed: %q", line)
		}
		seqOf(line)
		parseHeader(line)
		newFilter(Query{Type: "a*", Session: "x"}).match(line)
		if h, err := parseHead(line, ring); err == nil {
			t.Errorf("believed: %+v", h)
		}
	})
}

// FuzzCursor: a cursor from outside is refused or names a place in the log.
func FuzzCursor(f *testing.F) {
	f.Add(cursorOf(1, 100))
	f.Add("MSAxIDE")
	a := &Archive{dir: f.TempDir(), segments: []segment{{number: 1, size: 100}}}
	f.Fuzz(func(t *testing.T, cursor string) {
		if n, _, err := a.position(cursor); err == nil && cursor != "" && n > 1 {
			t.Errorf("%q is segment %d", cursor, n)
		}
	})
}
