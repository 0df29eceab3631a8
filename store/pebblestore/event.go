package pebblestore

import (
	"encoding/binary"
	"encoding/hex"
	"errors"

	"github.com/afterlogin/afterlogin/store"
)

// eventLayout is the first byte of an encoded event.
const eventLayout = 1

var errBadEvent = errors.New("pebblestore: not an encoded event")

// appendEvent appends the encoding of e to b: layout 1, at 8, tenant 4, and then type, id, subject, reason and detail,
// each behind its length of 2 bytes. Integers are big-endian.
func appendEvent(b []byte, e *store.Event) []byte {
	var id [32]byte
	b = append(b, eventLayout)
	b = binary.BigEndian.AppendUint64(b, uint64(e.At))
	b = binary.BigEndian.AppendUint32(b, e.Tenant)
	b = appendText(b, e.Type)
	b = appendText(b, string(e.ID.Append(id[:0])))
	b = appendText(b, e.Subject)
	b = appendText(b, e.Reason)
	return appendText(b, e.Detail)
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// parseEvent decodes what appendEvent wrote. The result shares nothing with b.
func parseEvent(b []byte) (store.Event, error) {
	const head = 1 + 8 + 4
	if len(b) < head || b[0] != eventLayout {
		return store.Event{}, errBadEvent
	}
	e := store.Event{At: int64(binary.BigEndian.Uint64(b[1:])), Tenant: binary.BigEndian.Uint32(b[9:])}
	rest := string(b[head:])
	var texts [5]string
	for i := range texts {
		if len(rest) < 2 {
			return store.Event{}, errBadEvent
		}
		n := int(rest[0])<<8 | int(rest[1])
		if len(rest) < 2+n {
			return store.Event{}, errBadEvent
		}
		texts[i], rest = rest[2:2+n], rest[2+n:]
	}
	if rest != "" {
		return store.Event{}, errBadEvent
	}
	if texts[1] != "" {
		var err error
		if e.ID, err = store.ParseID([]byte(texts[1])); err != nil {
			return store.Event{}, errBadEvent
		}
	}
	e.Type, e.Subject, e.Reason, e.Detail = texts[0], texts[2], texts[3], texts[4]
	return e, nil
}

// storeID names a store, so that no other one takes its cursors for its own.
type storeID [8]byte

// cursor makes the cursor of the event with that number: store 8, number 8, in hexadecimal.
func (id storeID) cursor(n uint64) store.Cursor {
	return store.Cursor(hex.EncodeToString(binary.BigEndian.AppendUint64(id[:], n)))
}

// parse returns the number of a cursor of this store.
func (id storeID) parse(c store.Cursor) (n uint64, ok bool) {
	b, err := hex.DecodeString(string(c))
	if err != nil || len(b) != 16 || storeID(b[:8]) != id {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[8:]), true
}
