package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// A Record is what the store keeps for one credential lineage, one session's data, or one subject: the columns that a
// store may index, and a payload that only the authority can open.
type Record struct {
	ID      ID
	Kind    byte   // a letter of the authority's; the store only keeps it
	Tenant  uint32 // never changes
	Subject string // opaque, at most MaxText bytes; empty if anonymous; never changes
	Client  string // opaque, at most MaxText bytes
	Created int64  // milliseconds since 1970
	// Absolute is when the record expires whatever happens, in milliseconds since 1970. Zero means never. It may be
	// shortened, never lengthened.
	Absolute int64
	// Marked is when the record was revoked, zero if it was not, and Reason says why. Set by a mark only, never undone.
	Marked int64
	Reason string
	// Version is 1 for a new record and grows by one with every put and with the mark. It is never used again.
	Version uint64

	// LastSeen, SeenGen and SeenAt are written by Touch: when the record was last used, the newest generation seen in
	// use, and when that generation was first seen. Lossy, and not covered by the payload's seal. A put keeps the
	// store's values if they are newer than its own.
	LastSeen int64
	SeenGen  uint32
	SeenAt   int64

	Payload []byte
}

// Clone returns a copy that shares nothing with r.
func (r *Record) Clone() *Record {
	c := *r
	c.Payload = slices.Clone(r.Payload)
	return &c
}

// Touch applies t to the record by the rules of Store.Touch and reports whether that changed it.
func (r *Record) Touch(t Touch) bool {
	if r.Marked != 0 {
		return false
	}
	changed := false
	if t.At > r.LastSeen {
		r.LastSeen, changed = t.At, true
	}
	if t.Gen > r.SeenGen {
		r.SeenGen, r.SeenAt, changed = t.Gen, t.At, true
	}
	return changed
}

// keepSeen carries what Touch wrote into the record that replaces old.
func (r *Record) keepSeen(old *Record) {
	r.LastSeen = max(r.LastSeen, old.LastSeen)
	if old.SeenGen >= r.SeenGen {
		r.SeenGen, r.SeenAt = old.SeenGen, old.SeenAt
	}
}

// An OpKind says what an operation does.
type OpKind uint8

// The operations of an Apply.
const (
	OpPut   OpKind = iota + 1 // write Record if its version in the store is Expect (0: if there is none)
	OpMark                    // mark the record ID as revoked At, for Reason; an earlier mark stays
	OpEvent                   // append Event
)

// An Op is one change of an Apply. Make it with Put, Mark or Emit.
type Op struct {
	Kind   OpKind
	Record *Record
	Expect uint64
	ID     ID
	At     int64
	Reason string
	Event  Event
}

// Put writes r if the store's version of it is expect, where 0 means that there must be none. r.Version must be
// expect+1, and r.Marked zero.
func Put(r *Record, expect uint64) Op { return Op{Kind: OpPut, Record: r, Expect: expect, ID: r.ID} }

// Mark marks a record as revoked. On a record that is marked already it changes nothing.
func Mark(id ID, at int64, reason string) Op {
	return Op{Kind: OpMark, ID: id, At: at, Reason: reason}
}

// Emit appends an event.
func Emit(e Event) Op { return Op{Kind: OpEvent, Event: e, ID: e.ID} }

// ErrBadOps is returned for operations that break the contract's rules: a mistake of the caller's.
var ErrBadOps = errors.New("store: operations break the contract")

// CheckOps reports whether the operations keep the contract's rules for root. Stores call it first in Apply.
func CheckOps(root ID, ops []Op) error {
	if !root.IsRoot() && !root.IsSubject() {
		return fmt.Errorf("%w: %v is neither a root nor a subject", ErrBadOps, root)
	}
	if len(ops) == 0 || len(ops) > MaxOps {
		return fmt.Errorf("%w: %d operations, want 1 to %d", ErrBadOps, len(ops), MaxOps)
	}
	for i := range ops {
		if err := ops[i].check(root, ops[:i]); err != nil {
			return fmt.Errorf("%w: operation %d: %w", ErrBadOps, i, err)
		}
	}
	return nil
}

func (o *Op) check(root ID, before []Op) error {
	if o.ID.Root() != root && !(o.Kind == OpEvent && o.ID.IsZero()) {
		return fmt.Errorf("record %v is not of root %v", o.ID, root)
	}
	if o.Kind != OpEvent {
		for i := range before {
			if before[i].Kind != OpEvent && before[i].ID == o.ID {
				return fmt.Errorf("record %v is changed twice", o.ID)
			}
		}
	}
	switch o.Kind {
	case OpPut:
		r := o.Record
		switch {
		case r == nil || r.ID != o.ID:
			return errors.New("put without its record")
		case r.Version != o.Expect+1:
			return fmt.Errorf("put of version %d expects %d", r.Version, o.Expect)
		case r.Marked != 0 || r.Reason != "":
			return errors.New("put of a marked record")
		case len(r.Payload) > MaxPayload:
			return fmt.Errorf("payload of %d bytes, limit %d", len(r.Payload), MaxPayload)
		case len(r.Subject) > MaxText || len(r.Client) > MaxText:
			return fmt.Errorf("subject or client over %d bytes", MaxText)
		}
	case OpMark:
		if o.At <= 0 || len(o.Reason) > MaxReason {
			return fmt.Errorf("mark without a time, or reason over %d bytes", MaxReason)
		}
	case OpEvent:
		if o.Event.Type == "" || len(o.Event.Type) > MaxReason || len(o.Event.Reason) > MaxReason ||
			len(o.Event.Subject) > MaxText || len(o.Event.Detail) > MaxText {
			return errors.New("event without a type, or with over-long text")
		}
	default:
		return fmt.Errorf("unknown kind %d", o.Kind)
	}
	return nil
}

// Next returns what the operation makes of the record that the store holds (nil if none), or the error that the
// contract asks for: a *ConflictError or ErrNotFound. It returns old itself if nothing changes. i is the operation's
// index. It is what every store that reads before it writes runs inside its lock.
func (o *Op) Next(i int, old *Record) (*Record, error) {
	switch o.Kind {
	case OpPut:
		var have uint64
		if old != nil {
			have = old.Version
		}
		if have != o.Expect {
			return nil, &ConflictError{Op: i, ID: o.ID}
		}
		r := o.Record.Clone()
		if old != nil {
			r.keepSeen(old)
		}
		return r, nil
	case OpMark:
		if old == nil {
			return nil, fmt.Errorf("%w: %v", ErrNotFound, o.ID)
		}
		if old.Marked != 0 {
			return old, nil
		}
		r := old.Clone()
		r.Marked, r.Reason, r.Version = o.At, o.Reason, old.Version+1
		return r, nil
	}
	return old, nil
}

// recordLayout is the first byte of an encoded record.
const recordLayout = 1

// headSize is the size of what stands in an encoded record before the texts and the payload.
const headSize = 1 + 1 + 4 + 8*5 + 4 + 8 + 1 + 2 + 2 + 1 + 4

// Offsets of what Touch changes, in an encoded record.
const (
	lastSeenAt = 1 + 1 + 4 + 8*4
	seenGenAt  = lastSeenAt + 8
	seenAtAt   = seenGenAt + 4
)

// AppendRecord appends the record's encoding to b: layout 1, kind 1, tenant 4, created 8, absolute 8, marked 8, version 8,
// last seen 8, seen generation 4, seen at 8, then the lengths of id 1, subject 2, client 2, reason 1 and payload 4,
// then those five. Integers are big-endian. Stores that keep a record as one value may use it.
func AppendRecord(b []byte, r *Record) []byte {
	b = slices.Grow(b, headSize+int(r.ID.n)+len(r.Subject)+len(r.Client)+len(r.Reason)+len(r.Payload))
	b = append(b, recordLayout, r.Kind)
	b = binary.BigEndian.AppendUint32(b, r.Tenant)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Created))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Absolute))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Marked))
	b = binary.BigEndian.AppendUint64(b, r.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(r.LastSeen))
	b = binary.BigEndian.AppendUint32(b, r.SeenGen)
	b = binary.BigEndian.AppendUint64(b, uint64(r.SeenAt))
	b = append(b, r.ID.n)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Subject)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Client)))
	b = append(b, uint8(len(r.Reason)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Payload)))
	b = r.ID.Append(b)
	b = append(b, r.Subject...)
	b = append(b, r.Client...)
	b = append(b, r.Reason...)
	return append(b, r.Payload...)
}

// ErrBadRecord is returned by ParseRecord.
var ErrBadRecord = errors.New("store: not an encoded record")

// ParseRecord decodes what AppendRecord wrote, and refuses anything longer, shorter or of another layout. The result
// shares nothing with b.
func ParseRecord(b []byte) (*Record, error) {
	if len(b) < headSize || b[0] != recordLayout {
		return nil, ErrBadRecord
	}
	r := &Record{
		Kind:     b[1],
		Tenant:   binary.BigEndian.Uint32(b[2:]),
		Created:  int64(binary.BigEndian.Uint64(b[6:])),
		Absolute: int64(binary.BigEndian.Uint64(b[14:])),
		Marked:   int64(binary.BigEndian.Uint64(b[22:])),
		Version:  binary.BigEndian.Uint64(b[30:]),
		LastSeen: int64(binary.BigEndian.Uint64(b[lastSeenAt:])),
		SeenGen:  binary.BigEndian.Uint32(b[seenGenAt:]),
		SeenAt:   int64(binary.BigEndian.Uint64(b[seenAtAt:])),
	}
	lens := b[seenAtAt+8 : headSize]
	nID, nSubject := int(lens[0]), int(binary.BigEndian.Uint16(lens[1:]))
	nClient, nReason := int(binary.BigEndian.Uint16(lens[3:])), int(lens[5])
	nPayload := int(binary.BigEndian.Uint32(lens[6:]))
	rest := b[headSize:]
	if nSubject > MaxText || nClient > MaxText || nReason > MaxReason || nPayload > MaxPayload ||
		len(rest) != nID+nSubject+nClient+nReason+nPayload {
		return nil, ErrBadRecord
	}
	var err error
	if r.ID, err = ParseID(rest[:nID]); err != nil {
		return nil, ErrBadRecord
	}
	rest = rest[nID:]
	// One string for the three texts: one allocation.
	texts := string(rest[:nSubject+nClient+nReason])
	r.Subject, r.Client, r.Reason = texts[:nSubject], texts[nSubject:nSubject+nClient], texts[nSubject+nClient:]
	if nPayload > 0 {
		r.Payload = slices.Clone(rest[len(texts):])
	}
	return r, nil
}
