package redisstore

import (
	"reflect"
	"testing"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/store"
)

func aPosition(seed int64) (p position) {
	for g := range p {
		p[g] = placeID{1_900_000_000_000_000 + seed*int64(g*g), uint64(g % 3)}
	}
	return p
}

func TestCursor(t *testing.T) {
	for _, p := range []position{{}, aPosition(0), aPosition(1), aPosition(-1_000_000_007)} {
		c := p.cursor()
		if got, ok := parseCursor(c); !ok || got != p {
			t.Errorf("parseCursor(%q) = %v, %v, want %v", c, got, ok, p)
		}
		if len(c) > maxCursor {
			t.Errorf("a cursor of %d bytes", len(c))
		}
	}
	p := aPosition(3_600_000_000)
	t.Logf("a cursor after a day has %d bytes", len(p.cursor()))
}

func FuzzCursor(f *testing.F) {
	for _, p := range []position{{}, aPosition(1)} {
		f.Add(string(p.cursor()))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, ok := parseCursor(store.Cursor(text)); ok && p.cursor() != store.Cursor(text) {
			t.Errorf("parseCursor(%q) takes more than one form", text)
		}
		if p, ok := parseScanPlace(store.Cursor(text)); ok && p.String() != store.Cursor(text) {
			t.Errorf("parseScanPlace(%q) takes more than one form", text)
		}
	})
}

func FuzzEvent(f *testing.F) {
	id := store.SubjectID(1, "alice")
	for _, e := range []store.Event{{Type: "e"}, {Type: "full", At: 5, ID: id, Tenant: 7, Subject: "alice", Reason: "r", Detail: "d"}} {
		f.Add(string(appendEvent(nil, &e)))
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseEvent(text)
		if err != nil {
			return
		}
		if got := string(appendEvent(nil, &e)); got != text {
			t.Errorf("parseEvent(%q) = %+v, which is written as %q", text, e, got)
		}
	})
}

func FuzzLogEntry(f *testing.F) {
	id := string(store.SubjectID(1, "alice").Append(nil))
	f.Add("1900000000000000-0", "r", id, "w", "12345678\x00\x00\x00\x00\x00\x00\x00\x09")
	f.Add("1-2", "b", "", "", "")
	f.Fuzz(func(t *testing.T, entry, a, b, c, d string) {
		s := &Store{self: "12345678"}
		fd := &feed{s: s}
		_, root, number, err := fd.parse(rueidis.XRangeEntry{ID: entry, FieldValues: map[string]string{a: b, c: d}})
		if err != nil && (!root.IsZero() || number != 0) {
			t.Errorf("an error beside a root")
		}
	})
}

func FuzzStreamID(f *testing.F) {
	f.Add("1900000000000000-7")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePlace(text)
		if err != nil {
			return
		}
		if again, err := parsePlace(p.String()); err != nil || again != p {
			t.Errorf("parsePlace(%q) = %v, again %v, %v", text, p, again, err)
		}
	})
}

// A record is kept with what finds its subject, and read back without it.
func TestEncode(t *testing.T) {
	for _, r := range []*store.Record{
		{ID: store.NewRootID(5, [14]byte{1}, 1, "alice"), Tenant: 1, Subject: "alice", Version: 1, Payload: []byte{1, 2}},
		{ID: store.NewRootID(5, [14]byte{1}, 0, ""), Version: 1},
		{ID: store.SubjectID(1, "alice"), Tenant: 1, Subject: "alice", Version: 3},
	} {
		got, err := decode([]byte(encode(r)))
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("decode(encode(%+v)) = %+v, %v", r, got, err)
		}
	}
}

// What a server says of itself is read from its first line on.
func TestParseInfo(t *testing.T) {
	for _, text := range []string{"cluster_state:ok\r\nb:1:2\r\n", "txt:cluster_state:ok\r\nb:1:2\r\n", "# Section\r\ncluster_state:ok\r\n\r\nb:1:2"} {
		if m := parseInfo(text); m["cluster_state"] != "ok" || m["b"] != "1:2" {
			t.Errorf("parseInfo(%q) = %q", text, m)
		}
	}
}
