package afterlogin

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/internal/seal"
	"github.com/afterlogin/afterlogin/store"
)

// Limits of session data.
const (
	// MaxData is the greatest size of a session's data, in bytes: of all keys and values together, as JSON.
	MaxData = 64 << 10
	// MaxDataKey is the greatest size of a key, in bytes.
	MaxDataKey = 128
	// maxDataKeys bounds the work of one read.
	maxDataKeys = 1024
)

// A DataTooLargeError is returned for a change that would make a session's data larger than MaxData. Nothing changed.
type DataTooLargeError struct {
	Key  string // the key that was set
	Size int    // what the data would come to, in bytes
}

func (e *DataTooLargeError) Error() string {
	return fmt.Sprintf("session data would come to %d bytes with %q, the limit is %d: keep large things elsewhere, and their id here",
		e.Size, e.Key, MaxData)
}

// Data is what a session carries for the application: JSON values by key. It belongs to the session and not to the
// token: it survives renewals, and moves along at a sign-in.
type Data struct {
	d *data
}

// data is the payload of a data record. Its values stand in the order of their keys when encoded.
type data struct {
	values map[string]value
	size   int
	// closed is until when nobody may write: a sign-in is moving the data. Zero: not at all.
	closed  int64
	version uint64 // of the record; 0: there is none yet
}

type value struct {
	json    json.RawMessage
	version uint64 // counts the changes of this key
}

// NewData returns empty data, such as a session has that never stored any. It belongs to no session: what is set in it
// becomes a session's through IssueRequest.Data.
func NewData() *Data { return &Data{d: &data{values: make(map[string]value)}} }

// Get decodes the value of the key into v, and reports whether there is one. It fails if the JSON does not fit v.
func (d *Data) Get(key string, v any) (bool, error) {
	have, ok := d.d.values[key]
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(have.json, v); err != nil {
		return true, fmt.Errorf("session data %q: %w", key, err)
	}
	return true, nil
}

// JSON returns the value of the key as it is stored, or nil.
func (d *Data) JSON(key string) json.RawMessage { return d.d.values[key].json }

// Version returns the version of the key's value, for SetIf. Zero means that there is no value.
func (d *Data) Version(key string) uint64 { return d.d.values[key].version }

// Keys yields the keys in order.
func (d *Data) Keys() iter.Seq[string] {
	return slices.Values(slices.Sorted(maps.Keys(d.d.values)))
}

// Set encodes v as JSON and stores it under the key. The error is a *DataTooLargeError if the data would grow too large.
func (d *Data) Set(key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("session data %q: %w", key, err)
	}
	return d.d.set(key, b)
}

// SetIf is Set, if the value's version is still the given one; otherwise it fails with ErrDataConflict.
func (d *Data) SetIf(key string, v any, version uint64) error {
	if d.Version(key) != version {
		return ErrDataConflict
	}
	return d.Set(key, v)
}

// Delete removes the key. A key that is not there is no error.
func (d *Data) Delete(key string) {
	d.d.size -= cost(key, d.d.values[key].json)
	delete(d.d.values, key)
}

func cost(key string, v json.RawMessage) int {
	if v == nil {
		return 0
	}
	return len(key) + len(v)
}

func (d *data) set(key string, v json.RawMessage) error {
	switch {
	case key == "" || len(key) > MaxDataKey || !utf8.ValidString(key):
		return badRequest("session data key: want 1 to %d bytes of UTF-8", MaxDataKey)
	case !json.Valid(v):
		return badRequest("session data %q is not JSON", key)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, v); err != nil {
		return badRequest("session data %q is not JSON", key)
	}
	old := d.values[key]
	size := d.size - cost(key, old.json) + cost(key, b.Bytes())
	if size > MaxData {
		return &DataTooLargeError{Key: key, Size: size}
	}
	if old.json == nil && len(d.values) >= maxDataKeys {
		return badRequest("session data has %d keys, the most there may be", maxDataKeys)
	}
	d.size = size
	d.values[key] = value{json: b.Bytes(), version: old.version + 1}
	return nil
}

func (d *data) encode() ([]byte, error) {
	b := make([]byte, 0, d.size+32*len(d.values)+16)
	b = append(b, stateLayout)
	b = binary.BigEndian.AppendUint64(b, uint64(d.closed))
	b = binary.AppendUvarint(b, uint64(len(d.values)))
	for _, k := range slices.Sorted(maps.Keys(d.values)) {
		v := d.values[k]
		b = binary.AppendUvarint(b, uint64(len(k)))
		b = append(b, k...)
		b = binary.AppendUvarint(b, v.version)
		b = binary.AppendUvarint(b, uint64(len(v.json)))
		b = append(b, v.json...)
	}
	if len(b)+seal.Overhead > store.MaxPayload {
		// Many tiny keys: their lengths and versions, which MaxData does not count, come to more than is set aside.
		return nil, badRequest("session data has too many keys")
	}
	return b, nil
}

func decodeData(b []byte) (*data, error) {
	r := reader{b: b}
	if r.byte() != stateLayout {
		return nil, errBadState
	}
	d := &data{closed: int64(r.uint64())}
	n := r.uvarint()
	if n > maxDataKeys {
		return nil, errBadState
	}
	d.values = make(map[string]value, n)
	for range n {
		k := string(r.take(int(min(r.uvarint(), MaxData))))
		version := r.uvarint()
		v := r.take(int(min(r.uvarint(), MaxData+1)))
		if r.failed {
			return nil, errBadState
		}
		d.values[k] = value{json: bytes.Clone(v), version: version}
		d.size += len(k) + len(v)
	}
	if r.failed || len(r.b) != 0 {
		return nil, errBadState
	}
	return d, nil
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.failed || n <= 0 {
		r.failed = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// newDataRecord returns the record that holds the session's data: the child of its root with the number zero.
func newDataRecord(root *store.Record) *store.Record {
	return &store.Record{
		ID: dataID(root.ID), Kind: kindData, Tenant: root.Tenant,
		Created: root.Created, Absolute: root.Absolute,
	}
}

// dataID returns the id of the data that a record works on: that of its root.
func dataID(record store.ID) store.ID {
	root := record.Root()
	return store.NewChildID(root, root.Bucket(), [6]byte{})
}

// Data returns the session's data. What it returns is a copy: changes go through UpdateData.
func (a *Authority) Data(ctx context.Context, s *Session) (*Data, error) {
	rs, err := a.store.Get(ctx, dataID(s.record))
	if err != nil {
		return nil, unavailable("read data", err)
	}
	d, err := a.openData(rs[0])
	if err != nil {
		return nil, err
	}
	return &Data{d: d}, nil
}

// UpdateData calls change with the session's data and stores what change made of it, all of it or, if change returns an
// error, nothing. If somebody else changes the data meanwhile, change is called again with the new data: it must not do
// anything else that cannot be done twice. It is durable when UpdateData returns nil.
//
// Errors: that of change; a Refusal if the session is over; ErrUnavailable, also while a sign-in is moving the data.
func (a *Authority) UpdateData(ctx context.Context, s *Session, change func(*Data) error) error {
	for range attempts {
		x := &exam{now: a.now()}
		if err := a.read(ctx, x, s.record); err != nil {
			return err
		}
		if x.rec == nil {
			return refuse(ReasonUnknown)
		}
		if why, cause, at := x.standing(); why != "" {
			return x.refusal(why, cause, at)
		}
		d, _, err := a.readData(ctx, x.root().rec)
		if err != nil {
			return err
		}
		if left := d.closed - x.now.UnixMilli(); 0 < left && left <= closing.Milliseconds() { // more: the clock was ahead
			return unavailable("write data", errors.New("a sign-in is taking over the session"))
		}
		if err := change(&Data{d: d}); err != nil {
			return err
		}
		d.closed = 0
		if err := a.writeData(ctx, x.root().rec, d); err != errConflict {
			return err
		}
	}
	return exhausted("write data")
}

// writeData puts the data if nobody else did since it was read. After an unknown outcome, who wrote is seen by comparing.
func (a *Authority) writeData(ctx context.Context, root *store.Record, d *data) error {
	payload, err := d.encode()
	if err != nil {
		return err
	}
	rec := newDataRecord(root)
	happened := func(ctx context.Context) (bool, error) {
		have, version, err := a.readData(ctx, root)
		if err != nil || version != d.version+1 {
			return false, err
		}
		b, err := have.encode()
		return bytes.Equal(b, payload), err
	}
	return a.apply(ctx, root.ID, happened, a.put(rec, d.version, payload))
}

func (a *Authority) readData(ctx context.Context, root *store.Record) (*data, uint64, error) {
	rs, err := a.store.Get(ctx, dataID(root.ID))
	if err != nil {
		return nil, 0, unavailable("read data", err)
	}
	d, err := a.openData(rs[0])
	if err != nil {
		return nil, 0, err
	}
	return d, d.version, nil
}

func (a *Authority) openData(r *store.Record) (*data, error) {
	if r == nil {
		return &data{values: make(map[string]value)}, nil
	}
	plain, err := a.sealer.Open(r)
	if err != nil {
		a.log.Error("session data does not open", "record", r.ID, "err", err)
		return nil, unavailable("open data", err)
	}
	d, err := decodeData(plain)
	if err != nil {
		return nil, unavailable("open data", err)
	}
	d.version = r.Version
	return d, nil
}

// closeData keeps everybody from writing the session's data for as long as a sign-in takes to move it, and returns it. A
// writer that read before it meets a conflict and then finds it closed. A second sign-in at the same time closes it
// again, and takes a copy, too.
func (a *Authority) closeData(ctx context.Context, root *store.Record) (*data, error) {
	for range attempts {
		d, _, err := a.readData(ctx, root)
		if err != nil {
			return nil, err
		}
		d.closed = a.now().Add(closing).UnixMilli()
		err = a.writeData(ctx, root, d)
		if err == nil {
			d.version++
			return d, nil
		}
		if err != errConflict {
			return nil, err
		}
	}
	return nil, exhausted("move data")
}

func newNonce() (n [opaque.NonceSize]byte) {
	rand.Read(n[:])
	return n
}
