package pgstore

import (
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/store"
)

const testLife = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

func TestCursors(t *testing.T) {
	for _, p := range []eventPlace{{}, {1, 2, 3}, {1<<64 - 1, 1<<31 - 1, 1<<63 - 1}} {
		c := p.cursor(testLife)
		if got, ok := parseCursor(testLife, c); !ok || got != p {
			t.Errorf("parseCursor(%s) = %v, %v, want %v", c, got, ok, p)
		}
		for _, other := range []store.Cursor{c + "0", c[:len(c)-1], "x" + c, store.Cursor(strings.ToLower(string(c))), c[1:]} {
			if _, ok := parseCursor(testLife, other); ok {
				t.Errorf("parseCursor(%s) is taken", other)
			}
		}
		if _, ok := parseCursor("another", c); ok {
			t.Error("a cursor of other data is taken")
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(string(eventPlace{77, 1, 1_700_000_000_000_000}.cursor(testLife)))
	f.Add(string(scanCursor(testLife, newRoot("mia").ID)))
	f.Add(testLife + "-")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		c := store.Cursor(text)
		if p, ok := parseCursor(testLife, c); ok && p.cursor(testLife) != c {
			t.Errorf("%q is read as %v, which is written %q", c, p, p.cursor(testLife))
		}
		if id, ok := parseScanCursor(testLife, c); ok && scanCursor(testLife, id) != c {
			t.Errorf("%q is read as %v, which is written %q", c, id, scanCursor(testLife, id))
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	f.Add("700:700:", uint64(700))
	f.Add("700:704:700,702", uint64(701))
	f.Add("1:2", uint64(1))
	f.Add("18446744073709551615:18446744073709551616:x", uint64(0))
	f.Fuzz(func(t *testing.T, text string, xid uint64) {
		s, err := parseSnapshot(text)
		if err == nil && xid >= s.max && s.sees(xid) {
			t.Errorf("%q sees %d", text, xid)
		}
	})
}

func TestSnapshotSees(t *testing.T) {
	s, err := parseSnapshot("700:704:700,702")
	if err != nil {
		t.Fatal(err)
	}
	for xid, want := range map[uint64]bool{1: true, 699: true, 700: false, 701: true, 702: false, 703: true, 704: false, 900: false} {
		if got := s.sees(xid); got != want {
			t.Errorf("sees(%d) = %v", xid, got)
		}
	}
}

func FuzzDayOfTable(f *testing.F) {
	f.Add("records_d20810")
	f.Add("records_never")
	f.Add("records_d01")
	f.Fuzz(func(t *testing.T, name string) {
		if day, ok := dayOfTable(name); ok && tableOf(day) != name {
			t.Errorf("%q is day %d, whose table is %s", name, day, tableOf(day))
		}
	})
}
