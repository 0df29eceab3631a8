package audit

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin/store/memstore"
)

// files are the files of a log, by name.
type files map[string][]byte

func (f *fixture) read() files {
	f.t.Helper()
	out := files{}
	all, err := os.ReadDir(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range all {
		if e.Name() == lockFile {
			continue
		}
		if out[e.Name()], err = os.ReadFile(filepath.Join(f.dir, e.Name())); err != nil {
			f.t.Fatal(err)
		}
	}
	return out
}

func (f *fixture) put(all files) {
	f.t.Helper()
	for name := range f.read() {
		if _, ok := all[name]; !ok {
			os.Remove(filepath.Join(f.dir, name))
		}
	}
	for name, b := range all {
		if err := os.WriteFile(filepath.Join(f.dir, name), b, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (all files) with(name string, b []byte) files {
	out := maps.Clone(all)
	if out[name] = b; b == nil {
		delete(out, name)
	}
	return out
}

func (all files) segments() (names []string) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if segmentName.MatchString(name) {
			names = append(names, name)
		}
	}
	return names
}

// several is a closed log of some segments, with events and acts.
func several(t *testing.T) (*fixture, files) {
	f := newFixture(t, memstore.New())
	f.o.segmentSize = 1000
	l := f.open()
	for i := range 5 {
		f.issue(fmt.Sprint("s", i))
		settle()
		if err := l.Record(t.Context(), Entry{Type: "api.create-user", Actor: "key_admin", Status: 201, Target: "mia"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	all := f.read()
	if n := len(all.segments()); n < 4 {
		t.Fatalf("%d segments", n)
	}
	f.inOrder()
	return f, all
}

// alone verifies the files without the store.
func (f *fixture) alone() *Report {
	f.t.Helper()
	r, err := Verify(f.t.Context(), VerifyOptions{Dir: f.dir, Keys: f.ring})
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

// Every changed byte is found, in whichever file, and the report says where it is.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, all := several(t)
		flips := 0
		for name, was := range all {
			path := filepath.Join(f.dir, name)
			for i := range was {
				for _, mask := range []byte{0x01, 0x80} {
					if mask == 0x80 && i%41 != 0 {
						continue
					}
					b := bytes.Clone(was)
					b[i] ^= mask
					if err := os.WriteFile(path, b, 0o600); err != nil {
						t.Fatal(err)
					}
					flips++
					r := f.alone()
					line := 0
					if name != headFile {
						line = bytes.Count(was[:i], []byte("\n")) + 1
					}
					at := slices.IndexFunc(r.Problems, func(p Finding) bool { return p.File == name && p.Line == line && p.What != "" })
					if r.Count == 0 || at < 0 {
						t.Fatalf("byte %d of %s, line %d: %v", i, name, line, r.Problems)
					}
					if p := r.Problems[at]; line > 1 && p.Seq == 0 {
						t.Fatalf("byte %d of %s: no seq in %v", i, name, p)
					}
				}
			}
			os.WriteFile(path, was, 0o600)
		}
		f.inOrder()
		t.Logf("%d changes", flips)
	})
}

// Nothing can be cut off anywhere.
func TestEveryCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, all := several(t)
		for name, was := range all {
			path := filepath.Join(f.dir, name)
			for n := range was {
				if err := os.Truncate(path, 0); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, was[:n], 0o600); err != nil {
					t.Fatal(err)
				}
				if r := f.alone(); r.Count == 0 {
					t.Fatalf("%s cut off after %d of %d bytes: %+v", name, n, len(was), r)
				}
			}
			os.WriteFile(path, was, 0o600)
		}
		f.inOrder()
	})
}

// Lines and segments that are taken out, doubled or moved are found.
func TestMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, all := several(t)
		names := all.segments()
		try := func(what string, changed files) {
			t.Helper()
			f.put(changed)
			if r := f.alone(); r.Count == 0 || r.Problems[0].File == "" || r.Problems[0].What == "" {
				t.Errorf("%s: %+v", what, r)
			}
		}
		join := func(parts ...[][]byte) []byte { return bytes.Join(slices.Concat(parts...), nil) }
		for _, name := range names {
			ls := bytes.SplitAfter(all[name], []byte("\n"))
			ls = ls[:len(ls)-1]
			for i := range ls {
				one := fmt.Sprintf("line %d of %s", i+1, name)
				try(one+" removed", all.with(name, join(ls[:i], ls[i+1:])))
				try(one+" doubled", all.with(name, join(ls[:i+1], ls[i:])))
				for j := range i {
					moved := slices.Clone(ls)
					moved[i], moved[j] = moved[j], moved[i]
					try(fmt.Sprintf("%s and %d exchanged", one, j+1), all.with(name, join(moved)))
				}
				for _, other := range names {
					if other != name {
						try(one+" also in "+other, all.with(other, join([][]byte{all[other], ls[i]})))
					}
				}
			}
		}
		for i, name := range names {
			try(name+" removed", all.with(name, nil))
			try(name+" emptied", all.with(name, []byte{}))
			for _, other := range names[:i] {
				try(name+" and "+other+" exchanged", all.with(name, all[other]).with(other, all[name]))
				try(name+" in the place of "+other, all.with(other, all[name]))
			}
			for _, more := range []uint64{uint64(len(names)) + 1, uint64(len(names)) + 2} {
				try(fmt.Sprint(name, " doubled as ", more), all.with(filepath.Base(segmentPath("", more)), all[name]))
			}
			for n := 1; i+n <= len(names); n++ { // some of them
				changed := maps.Clone(all)
				for _, gone := range names[i : i+n] {
					delete(changed, gone)
				}
				try(fmt.Sprintf("%d from %s on removed", n, name), changed)
			}
		}
		try("the head removed", all.with(headFile, nil))
		// A log of the same installation, put in the place of this one, is another; and so is one with other keys.
		f.put(all)
		other, others := several(t)
		if r, err := Verify(t.Context(), VerifyOptions{Dir: f.dir, Keys: other.ring}); err != nil || r.Count == 0 {
			t.Errorf("with other keys: %v %+v", err, r)
		}
		try("another's first segment", all.with(names[0], others[names[0]]))
		f.put(all)
		f.inOrder()
	})
}

// Whoever puts an old head back, with the files as they were, takes away what the store knows of.
func TestStoreKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		l := f.open()
		f.issue("mia")
		settle()
		old := f.read()
		if r := f.inOrder(); r.Store != nil {
			t.Errorf("the store knows already: %+v", r.Store)
		}
		f.issue("tom")
		time.Sleep(storeHeadEvery + time.Second)
		synctest.Wait()
		s := l.Stats()
		if s.StoreSeq != s.Seq {
			t.Errorf("the store knows of %d, want %d", s.StoreSeq, s.Seq)
		}
		l.Close()
		now := f.read()
		f.put(old)
		if r := f.alone(); r.Count != 0 { // the files are in order
			t.Errorf("%v", r.Problems)
		}
		r := f.verify()
		if r.Count != 1 || !strings.Contains(r.Problems[0].String(), "the store knows of entry") {
			t.Errorf("%v", r.Problems)
		}
		// Going on with them says what is missing, for ever.
		l = f.open()
		f.issue("eve")
		settle()
		l.Close()
		r = f.verify()
		if r.Count == 0 || !slices.ContainsFunc(r.Problems, func(p Finding) bool { return strings.Contains(p.What, "the store knows of entry") }) {
			t.Errorf("%v", r.Problems)
		}
		// What was missing has been followed once more.
		if n := len(f.all2(Query{Subject: "tom"})); n != 1 {
			t.Errorf("%d entries of tom", n)
		}
		f.put(now)
		l = f.open()
		l.Close()
	})
}

// all2 reads the directory as it lies there.
func (f *fixture) all2(q Query) []Entry {
	f.t.Helper()
	a, err := OpenArchive(f.dir, f.ring)
	if err != nil {
		f.t.Fatal(err)
	}
	p, err := a.List(f.t.Context(), q)
	if err != nil {
		f.t.Fatal(err)
	}
	return p.Entries
}

// A crash in the middle of a write, at whichever byte, costs what nobody was told is durable, and no more.
func TestTorn(t *testing.T) {
	for name, size := range map[string]int64{"in a segment": 0, "at the beginning of one": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, memstore.New())
				f.o.segmentSize = size
				l := f.open()
				f.issue("mia")
				l.Close()
				before := f.read()
				l = f.open()
				for i := range 3 {
					f.issue(fmt.Sprint("s", i))
				}
				settle()
				after := f.read()
				l.Close()
				names := after.segments()
				last := names[len(names)-1]
				if len(after[last]) <= len(before[last]) || (size > 0) != (before[last] == nil) {
					t.Fatalf("%d and %d bytes of %s", len(before[last]), len(after[last]), last)
				}
				for n := len(before[last]); n <= len(after[last]); n += 1 + 12*min(1, n%3) {
					torn := after[last][:n]
					if before[last] == nil && n == 0 {
						torn = []byte{}
					}
					f.put(before.with(last, torn))
					if r := f.alone(); r.Count != 0 {
						t.Fatalf("%d bytes: %v", n, r.Problems)
					}
					whole := bytes.LastIndexByte(torn, '\n') + 1
					f.fall() // a store that knows nothing of what came after
					l := f.open()
					settle()
					l.Close()
					r := f.inOrder()
					b, err := os.ReadFile(filepath.Join(f.dir, last))
					if err != nil && whole > 0 || !bytes.HasPrefix(b, torn[:whole]) {
						t.Fatalf("%d bytes: what was whole is gone: %v", n, err)
					}
					if said := strings.Contains(strings.Join(r.Notes, "\n"), "cut off"); said != (whole != len(torn) || size > 0 && n == 0) {
						t.Fatalf("%d bytes, %d of them whole: %q", n, whole, r.Notes)
					}
				}
				// What is not behind the head is never cut.
				f.put(before)
				names = before.segments()
				last = names[len(names)-1]
				was := before[last]
				f.put(before.with(last, was[:len(was)-5]))
				f.fall()
				l = f.open()
				settle()
				l.Close()
				if b := f.read()[last]; !bytes.Equal(b, was[:len(was)-5]) {
					t.Errorf("%d bytes, want %d", len(b), len(was)-5)
				}
				r := f.verify()
				if !slices.ContainsFunc(r.Problems, func(p Finding) bool { return strings.Contains(p.What, "damaged before it was opened") }) {
					t.Errorf("%v", r.Problems)
				}
			})
		})
	}
}

// However a log is damaged, it opens, says so, and goes on.
func TestDamagedGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, all := several(t)
		names := all.segments()
		last := names[len(names)-1]
		flipped := func(name string, i int) files {
			b := bytes.Clone(all[name])
			b[i] ^= 1
			return all.with(name, b)
		}
		for what, changed := range map[string]files{
			"no head":             all.with(headFile, nil),
			"a changed head":      flipped(headFile, 40),
			"no last segment":     all.with(last, nil),
			"a changed last line": flipped(last, len(all[last])-100),
			"a changed first one": flipped(last, 20),
			"an empty segment":    all.with(last, []byte{}),
			"the head alone":      {headFile: all[headFile]},
			"a stranger's":        {names[0]: []byte("what is this\n")},
		} {
			f.put(changed)
			l := f.open()
			if err := l.Record(t.Context(), Entry{Type: "api.x", Actor: "key_after"}); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if err := l.Close(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			r := f.alone()
			if !slices.ContainsFunc(r.Problems, func(p Finding) bool { return strings.Contains(p.What, "the log was damaged before it was opened") }) {
				t.Errorf("%s: %v", what, r.Problems)
			}
			if n := len(f.all2(Query{Actor: "key_after"})); n != 1 {
				t.Errorf("%s: %d entries afterwards", what, n)
			}
			l = f.open() // again, which is no further damage
			l.Close()
			if again := f.alone(); again.Count != r.Count {
				t.Errorf("%s: %d problems, and then %d: %v", what, r.Count, again.Count, again.Problems)
			}
		}
	})
}

func TestNoLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		if _, err := Verify(t.Context(), VerifyOptions{Dir: f.dir, Keys: f.ring}); !errors.Is(err, ErrNoLog) {
			t.Error(err)
		}
		if _, err := OpenArchive(f.dir, f.ring); !errors.Is(err, ErrNoLog) {
			t.Error(err)
		}
	})
}
