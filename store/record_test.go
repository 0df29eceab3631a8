package store

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func sampleRecords() []*Record {
	root := NewRootID(500_000, [14]byte{1, 2, 3}, 7, "alice")
	return []*Record{
		{ID: root},
		{ID: root, Kind: 'b', Tenant: 1<<32 - 1, Subject: "alice", Client: "web", Created: -1, Absolute: 1 << 62, Marked: 3,
			Reason: "signed out", Version: 1<<64 - 1, LastSeen: 4, SeenGen: 1<<32 - 1, SeenAt: 5, Payload: []byte{0, 1, 0xFF}},
		{ID: NewChildID(root, 1, [6]byte{9}), Subject: "\x00\xff", Version: 2},
		{ID: SubjectID(7, "alice"), Client: strings.Repeat("c", MaxText), Subject: strings.Repeat("s", MaxText),
			Reason: strings.Repeat("r", MaxReason), Payload: make([]byte, MaxPayload)},
	}
}

func TestRecordCodec(t *testing.T) {
	for _, r := range sampleRecords() {
		b := AppendRecord([]byte("before"), r)[len("before"):]
		got, err := ParseRecord(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("ParseRecord(AppendRecord(r))\n got %+v, %v\nwant %+v", got, err, r)
		}
		clear(b) // the result shares nothing with it
		if !reflect.DeepEqual(got, r) {
			t.Errorf("the record changed with its encoding: %+v", got)
		}
	}
	// Nothing longer, shorter, or of another layout.
	b := AppendRecord(nil, sampleRecords()[1])
	for i := range b {
		if _, err := ParseRecord(b[:i]); !errors.Is(err, ErrBadRecord) {
			t.Errorf("ParseRecord of the first %d of %d bytes = %v", i, len(b), err)
		}
	}
	if _, err := ParseRecord(append(b, 0)); !errors.Is(err, ErrBadRecord) {
		t.Errorf("ParseRecord of a byte too many = %v", err)
	}
	b[0] = 2
	if _, err := ParseRecord(b); !errors.Is(err, ErrBadRecord) {
		t.Errorf("ParseRecord of layout 2 = %v", err)
	}
}

// The layout is written down, because what is on a disk outlives the program.
func TestRecordLayout(t *testing.T) {
	r := &Record{ID: SubjectID(1, "a"), Kind: 'k', Tenant: 2, Subject: "sub", Client: "cli", Created: 3, Absolute: 4,
		Marked: 5, Reason: "why", Version: 6, LastSeen: 7, SeenGen: 8, SeenAt: 9, Payload: []byte("pay")}
	want := "\x01k" + "\x00\x00\x00\x02" + "\x00\x00\x00\x00\x00\x00\x00\x03" + "\x00\x00\x00\x00\x00\x00\x00\x04" +
		"\x00\x00\x00\x00\x00\x00\x00\x05" + "\x00\x00\x00\x00\x00\x00\x00\x06" + "\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x00\x00\x00\x08" + "\x00\x00\x00\x00\x00\x00\x00\x09" + "\x17" + "\x00\x03" + "\x00\x03" + "\x03" +
		"\x00\x00\x00\x03" + string(r.ID.Append(nil)) + "sub" + "cli" + "why" + "pay"
	if got := AppendRecord(nil, r); string(got) != want {
		t.Errorf("AppendRecord\n got %x\nwant %x", got, want)
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, r := range sampleRecords()[:3] {
		f.Add(AppendRecord(nil, r))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRecord(b)
		if err != nil {
			return
		}
		if got := AppendRecord(nil, r); !bytes.Equal(got, b) {
			t.Errorf("%x parses, and is encoded as %x", b, got)
		}
	})
}

func TestNext(t *testing.T) {
	id := SubjectID(1, "a")
	old := &Record{ID: id, Version: 3, LastSeen: 10, SeenGen: 2, SeenAt: 10}
	r := &Record{ID: id, Version: 4, LastSeen: 5, SeenGen: 2, SeenAt: 7, Payload: []byte("x")}
	put := Put(r, 3)
	got, err := put.Next(0, old)
	if err != nil || got.Version != 4 || got.LastSeen != 10 || got.SeenGen != 2 || got.SeenAt != 10 {
		t.Errorf("Next of a put = %+v, %v", got, err)
	}
	if got == r || &got.Payload[0] == &r.Payload[0] {
		t.Error("Next of a put returns what belongs to the caller")
	}
	var c *ConflictError
	if _, err := put.Next(5, nil); !errors.As(err, &c) || c.Op != 5 || c.ID != id || !errors.Is(err, ErrConflict) {
		t.Errorf("Next of a put without the record = %v", err)
	}
	mark := Mark(id, 20, "why")
	got, err = mark.Next(0, old)
	if err != nil || got.Marked != 20 || got.Reason != "why" || got.Version != 4 || old.Marked != 0 {
		t.Errorf("Next of a mark = %+v, %v", got, err)
	}
	if again, err := mark.Next(0, got); err != nil || again != got {
		t.Errorf("Next of a second mark = %+v, %v", again, err)
	}
	if _, err := mark.Next(0, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("Next of a mark without the record = %v", err)
	}
	event := Emit(Event{Type: "x", ID: id})
	if got, err := event.Next(0, old); err != nil || got != old {
		t.Errorf("Next of an event = %+v, %v", got, err)
	}
}

func TestTouchRules(t *testing.T) {
	for _, tt := range []struct {
		name    string
		r       Record
		touch   Touch
		want    Record
		changed bool
	}{
		{"first", Record{}, Touch{At: 5, Gen: 1}, Record{LastSeen: 5, SeenGen: 1, SeenAt: 5}, true},
		{"later", Record{LastSeen: 5, SeenGen: 1, SeenAt: 5}, Touch{At: 6, Gen: 1}, Record{LastSeen: 6, SeenGen: 1, SeenAt: 5}, true},
		{"earlier", Record{LastSeen: 5, SeenGen: 1, SeenAt: 5}, Touch{At: 4, Gen: 1}, Record{LastSeen: 5, SeenGen: 1, SeenAt: 5}, false},
		{"newer generation, earlier", Record{LastSeen: 5, SeenGen: 1, SeenAt: 5}, Touch{At: 4, Gen: 2}, Record{LastSeen: 5, SeenGen: 2, SeenAt: 4}, true},
		{"marked", Record{Marked: 1}, Touch{At: 5, Gen: 1}, Record{Marked: 1}, false},
	} {
		changed := tt.r.Touch(tt.touch)
		if changed != tt.changed || !reflect.DeepEqual(tt.r, tt.want) {
			t.Errorf("%s: Touch = %v, %+v, want %v, %+v", tt.name, changed, tt.r, tt.changed, tt.want)
		}
	}
}
