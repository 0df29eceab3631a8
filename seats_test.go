package afterlogin

import (
	"bytes"
	"math"
	"testing"

	"github.com/afterlogin/afterlogin/store"
)

// fullHouse is the largest list that there can be.
func fullHouse() []seating {
	var all []seating
	for _, k := range []Kind{KindSession, KindAPIKey, KindRefresh} {
		s := seating{kind: k, since: 1<<45 - 1}
		for i := range maxSessions + 1 {
			s.seats = append(s.seats, seat{id: store.NewRootID(9, [14]byte{byte(i), 7, byte(k)}, 0, "mia"), at: 1<<45 - 1 - int64(i), flags: 7})
		}
		all = append(all, s)
	}
	return all
}

func TestSeats(t *testing.T) {
	all := fullHouse()
	b := encodeSeats(all)
	got, err := decodeSeats(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if got[i].kind != all[i].kind || got[i].since != all[i].since || len(got[i].seats) != len(all[i].seats) {
			t.Fatalf("kind %d: %v", i, got[i])
		}
		for j := range all[i].seats {
			if got[i].seats[j] != all[i].seats[j] {
				t.Fatalf("seat %d: %v, want %v", j, got[i].seats[j], all[i].seats[j])
			}
		}
	}
	// The largest list and the longest past must fit in a record.
	st := &subjectState{seats: b, except: store.NewRootID(5, [14]byte{1}, 0, "x")}
	for range maxPast {
		st.remember(Reason(bytes.Repeat([]byte("x"), store.MaxReason)))
	}
	if n := len(st.encode()); n > maxState {
		t.Errorf("a subject's record of %d bytes, limit %d", n, maxState)
	}
	if encodeSeats([]seating{{kind: KindSession}}) != nil {
		t.Error("nothing known is not nothing")
	}
}

// A record without lists costs what it did before, and one with lists no allocation more.
func TestSeatsAreNotReadByValidations(t *testing.T) {
	without, with := (&subjectState{}).encode(), (&subjectState{seats: encodeSeats(fullHouse())}).encode()
	count := func(b []byte) float64 {
		return testing.AllocsPerRun(100, func() {
			if _, err := decodeSubject(b); err != nil {
				t.Fatal(err)
			}
		})
	}
	if a, b := count(without), count(with); a != b {
		t.Errorf("%v allocations without lists, %v with them", a, b)
	}
	if without[0] != subjectLayout {
		t.Errorf("a record without lists has layout %d: older nodes could not read it", without[0])
	}
}

func FuzzDecodeSeats(f *testing.F) {
	f.Add(encodeSeats(fullHouse()))
	f.Add(encodeSeats([]seating{{kind: KindSession, since: math.MaxInt64}}))
	f.Add([]byte{'s', 0, 0, 0, 0, 0, 0, 0, 1, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		if all, err := decodeSeats(b); err == nil && !bytes.Equal(encodeSeats(all), b) {
			t.Fatal("two encodings")
		}
	})
}
