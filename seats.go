package afterlogin

import (
	"encoding/binary"
	"slices"

	"github.com/afterlogin/afterlogin/store"
)

// A seat is what a subject's record keeps of one root that counts against a limit: of one that is good, of one that is
// about to be made, or of one that is over, which nobody has needed to know yet.
type seat struct {
	id    store.ID
	at    int64 // when it was taken, in milliseconds: the order in which the oldest go
	flags seatFlags
}

type seatFlags uint8

const (
	// seatEnding is on what gives way to a root that is being made. If another one has to go meanwhile, it is this one.
	seatEnding seatFlags = 1 << iota
	// seatImported is on a key whose id comes from its text: another try of the same import has the same id.
	seatImported
)

// seating is what the record keeps of one kind.
type seating struct {
	kind Kind
	// since is when the list was first complete, 0 if it is not: where a node without a limit signs the subject in, too.
	since int64
	seats []seat // in the order in which they were taken
}

// maxSeats bounds what is read back: the largest limit, what it may have been exceeded by for a moment, and some room.
const maxSeats = 2 * maxSessions

// seatSize is the size of one seat: flags and time in 6 bytes, and a root's id.
const seatSize = 6 + 17

// encodeSeats returns the lists as they stand in the subject's record: of each kind its letter, since when, how many, and
// the seats. Kinds of which nothing is known are left out; nil if that is all of them.
func encodeSeats(all []seating) []byte {
	var b []byte
	for _, s := range all {
		if s.since == 0 && len(s.seats) == 0 {
			continue
		}
		b = append(b, byte(s.kind))
		b = binary.BigEndian.AppendUint64(b, uint64(s.since))
		b = append(b, byte(len(s.seats)))
		for _, m := range s.seats {
			at := binary.BigEndian.AppendUint64(nil, uint64(m.at)&(1<<45-1)|uint64(m.flags)<<45)
			b = m.id.Append(append(b, at[2:]...))
		}
	}
	return b
}

// decodeSeats is the inverse of encodeSeats.
func decodeSeats(b []byte) (all []seating, err error) {
	r := reader{b: b}
	for len(r.b) > 0 {
		s := seating{kind: Kind(r.byte()), since: int64(r.uint64())}
		n := r.count(maxSeats)
		if n*seatSize > len(r.b) {
			return nil, errBadState
		}
		s.seats = make([]seat, n)
		for i := range s.seats {
			var at [8]byte
			r.copy(at[2:])
			bits := binary.BigEndian.Uint64(at[:])
			id, err := store.ParseID(r.take(17))
			if err != nil || !id.IsRoot() {
				return nil, errBadState
			}
			s.seats[i] = seat{id: id, at: int64(bits & (1<<45 - 1)), flags: seatFlags(bits >> 45)}
		}
		double := slices.ContainsFunc(all, func(o seating) bool { return o.kind == s.kind })
		if r.failed || s.since < 0 || s.since == 0 && n == 0 || double {
			return nil, errBadState
		}
		all = append(all, s)
	}
	return all, nil
}

// seatsOf returns the list of the kind, and all with it in them.
func seatsOf(all []seating, kind Kind) (*seating, []seating) {
	for i := range all {
		if all[i].kind == kind {
			return &all[i], all
		}
	}
	all = append(all, seating{kind: kind})
	return &all[len(all)-1], all
}

func (s *seating) find(id store.ID) int {
	return slices.IndexFunc(s.seats, func(m seat) bool { return m.id == id })
}

// flag marks the seat with the id, and no other, as one that gives way.
func (s *seating) flag(id store.ID) {
	for i := range s.seats {
		if s.seats[i].flags &^= seatEnding; s.seats[i].id == id {
			s.seats[i].flags |= seatEnding
		}
	}
}

// drop takes the seats away that the function names.
func (s *seating) drop(gone func(seat) bool) { s.seats = slices.DeleteFunc(s.seats, gone) }

// settled reports whether the list says all there is. It does not yet while a node that read the record before the list
// was complete may still be making a root that is not in it.
func (s *seating) settled(now int64) bool {
	return s.since != 0 && now >= s.since+seatTime.Milliseconds()
}
