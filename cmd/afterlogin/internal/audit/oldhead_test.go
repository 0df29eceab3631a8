package audit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin/store/memstore"
)

// acts writes entries each of which is durable before the next.
func acts(t *testing.T, l *Log, n int) {
	t.Helper()
	for i := range n {
		if err := l.Record(t.Context(), Entry{Type: "api.x", Actor: "key_act", Target: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
}

// Behind a head that was put back only the last write can be one that a crash cut off: a change in front of that is found
// without the store, and the server cuts nothing off when it starts.
func TestOldHead(t *testing.T) {
	for name, nextDay := range map[string]bool{"in its segment": false, "in the next one": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, memstore.New())
				l := f.open()
				f.issue("mia")
				settle()
				before := f.read()
				if nextDay {
					time.Sleep(24 * time.Hour)
				}
				for i := range 4 {
					f.issue(fmt.Sprint("a", i)) // together in a write
				}
				settle()
				acts(t, l, 3)
				l.Close()
				after := f.read().with(headFile, before[headFile])
				names := after.segments()
				name := names[len(names)-1]
				was := after[name]
				lastWrite := bytes.LastIndexByte(was[:len(was)-1], '\n') + 1
				f.put(after)
				f.inOrder()
				for i := len(before[name]); i < lastWrite; i += 37 {
					changed := bytes.Clone(was)
					changed[i] ^= 1
					f.put(after.with(name, changed))
					if r := f.alone(); r.Count == 0 {
						t.Fatalf("byte %d: %q", i, r.Notes)
					}
					f.fall() // a store that knows nothing
					l := f.open()
					settle()
					l.Close()
					if now := f.read()[name]; !bytes.Equal(now, changed) {
						t.Fatalf("byte %d: %d bytes are left of %d", i, len(now), len(changed))
					}
					if r := f.verify(); !said(r, "the log was damaged before it was opened") {
						t.Fatalf("byte %d: %v", i, r.Problems)
					}
				}
				// The last write cannot be told from one that was cut off, but by the store.
				changed := bytes.Clone(was)
				changed[lastWrite+50] ^= 1
				f.put(after.with(name, changed))
				if r := f.alone(); r.Count != 0 || !strings.Contains(strings.Join(r.Notes, "\n"), "cut off") {
					t.Errorf("%v %q", r.Problems, r.Notes)
				}
			})
		})
	}
}

// A segment that goes on from one that was cut off, with a head of before, is not taken for what a crash left.
func TestOldHeadCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		l := f.open()
		f.issue("mia")
		settle()
		before := f.read()
		acts(t, l, 3)
		time.Sleep(24 * time.Hour)
		acts(t, l, 3)
		l.Close()
		after := f.read()
		names := after.segments()
		if len(names) != 2 {
			t.Fatalf("%q", names)
		}
		f.put(after.with(headFile, before[headFile]).with(names[0], before[names[0]]))
		if r := f.alone(); r.Count == 0 {
			t.Errorf("%q", r.Notes)
		}
		f.fall()
		l = f.open()
		settle()
		l.Close()
		if now := f.read()[names[1]]; !bytes.HasPrefix(now, after[names[1]]) {
			t.Errorf("%d bytes are left of %d", len(now), len(after[names[1]]))
		}
		if r := f.alone(); r.Count == 0 {
			t.Errorf("%q", r.Notes)
		}
	})
}

// What a write left that failed is in no segment when the log goes on in the next one.
func TestFailingOvernight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		l := f.open()
		f.issue("mia")
		settle()
		time.Sleep(24*time.Hour - time.Minute)
		in := filepath.Join(f.dir, headFile+".new") // the lines can be written, and the head cannot
		if err := os.Mkdir(in, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := l.Record(t.Context(), Entry{Type: "api.x"}); err == nil {
			t.Fatal("it could be written")
		}
		time.Sleep(2 * time.Minute)
		if err := os.Remove(in); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * retry)
		settle()
		f.inOrder()
		l.Close()
		f.inOrder()
		if n := len(f.read().segments()); n != 2 {
			t.Errorf("%d segments", n)
		}
	})
}

// What lies in the directory and is no segment of the log is not shown by those who read that without the server either.
func TestArchiveForged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _ := aged(t)
		l := f.open()
		time.Sleep(f.o.Keep - 2*24*time.Hour)
		settle()
		l.Close()
		all := f.read()
		real := len(f.all2(Query{Limit: MaxPage}))
		zero := strings.Repeat("A", hashText)
		forged := func(number int) []byte {
			return fmt.Appendf(nil, `{"audit":1,"log":"x","installation":"","node":"one","segment":%d,"first":1,"key":1,"at":"2000-01-01T00:00:00Z","prev":%q,"hash":%q}
{"seq":1,"at":"2000-01-01T00:00:00Z","type":"session.revoked","actor":"key_forged","subject":"mia","prev":%q,"hash":%q}
`, number, zero, zero, zero, zero)
		}
		for number, damaged := range map[int]int{1: 0, 99: 1} { // from before the log begins; behind its end
			for what, head := range map[string][]byte{"the head": all[headFile], "no head": nil} {
				if head == nil {
					damaged = 1
				}
				f.put(all.with(filepath.Base(segmentPath("", uint64(number))), forged(number)).with(headFile, head))
				a, err := OpenArchive(f.dir, f.ring)
				if err != nil {
					t.Fatal(err)
				}
				p, err := a.List(t.Context(), Query{Limit: MaxPage})
				if err != nil || len(p.Entries) != real || p.Damaged != damaged {
					t.Errorf("%d with %s: %d entries, %d damaged, %v; want %d and %d", number, what, len(p.Entries), p.Damaged, err, real, damaged)
				}
				lines := 0
				n, err := a.Export(t.Context(), Query{}, func([]byte) error { lines++; return nil })
				if err != nil || lines != real || n != damaged {
					t.Errorf("%d with %s: %d lines, %d damaged, %v; want %d and %d", number, what, lines, n, err, real, damaged)
				}
				damaged = map[int]int{1: 0, 99: 1}[number]
			}
		}
		f.put(all)
		// With other keys nothing is believed.
		a, err := OpenArchive(f.dir, newRing())
		if err != nil {
			t.Fatal(err)
		}
		if p, err := a.List(t.Context(), Query{}); err != nil || len(p.Entries) != 0 || p.Damaged == 0 {
			t.Errorf("%v %+v", err, p)
		}
	})
}
