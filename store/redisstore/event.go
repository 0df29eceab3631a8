package redisstore

import (
	"encoding/binary"
	"errors"

	"github.com/afterlogin/afterlogin/store"
)

// eventLayout is the first byte of an encoded event.
const eventLayout = 1

// appendEvent appends: layout 1, time 8, tenant 4, then the id and the four texts, each behind its length (2).
func appendEvent(b []byte, e *store.Event) []byte {
	b = append(b, eventLayout)
	b = binary.BigEndian.AppendUint64(b, uint64(e.At))
	b = binary.BigEndian.AppendUint32(b, e.Tenant)
	b = binary.BigEndian.AppendUint16(b, uint16(e.ID.Len()))
	b = e.ID.Append(b)
	for _, text := range []string{e.Type, e.Subject, e.Reason, e.Detail} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
		b = append(b, text...)
	}
	return b
}

var errEvent = errors.New("redisstore: not an encoded event")

// parseEvent decodes what appendEvent wrote.
func parseEvent(b string) (store.Event, error) {
	var e store.Event
	if len(b) < 13 || b[0] != eventLayout {
		return e, errEvent
	}
	e.At = int64(binary.BigEndian.Uint64([]byte(b[1:9])))
	e.Tenant = binary.BigEndian.Uint32([]byte(b[9:13]))
	b = b[13:]
	next := func() (string, bool) {
		if len(b) < 2 {
			return "", false
		}
		n := int(b[0])<<8 | int(b[1])
		if len(b) < 2+n {
			return "", false
		}
		text := b[2 : 2+n]
		b = b[2+n:]
		return text, true
	}
	raw, ok := next()
	if !ok {
		return e, errEvent
	}
	if raw != "" {
		id, err := store.ParseID([]byte(raw))
		if err != nil {
			return e, errEvent
		}
		e.ID = id
	}
	for _, p := range []*string{&e.Type, &e.Subject, &e.Reason, &e.Detail} {
		if *p, ok = next(); !ok {
			return e, errEvent
		}
	}
	if b != "" || len(e.Type) > store.MaxReason || len(e.Reason) > store.MaxReason ||
		len(e.Subject) > store.MaxText || len(e.Detail) > store.MaxText {
		return e, errEvent
	}
	return e, nil
}
