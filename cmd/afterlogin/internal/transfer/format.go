package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// A backup is
//
//	"afterlogin backup\n", layout 4
//	frames: kind 1, length 4, body, CRC-32C of these 4
//	SHA-256 of everything before it
//
// and nothing behind. The first frame is H, a Header in JSON; the second K, the sealed keys as the key file has them;
// then one R for each record, as store.AppendRecord makes it; the last is T, a Trailer in JSON. Integers are big-endian.
const (
	magic        = "afterlogin backup\n"
	backupLayout = 1

	frameHeader  = 'H'
	frameKeys    = 'K'
	frameRecord  = 'R'
	frameTrailer = 'T'
)

// maxFrame are the greatest sizes of bodies, in bytes. What is longer is refused before it is read.
var maxFrame = map[byte]int{
	frameHeader:  4 << 10,
	frameKeys:    512 << 10,
	frameRecord:  store.MaxPayload + 2*store.MaxText + store.MaxReason + 256,
	frameTrailer: 64 << 10,
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Header begins a backup.
type Header struct {
	Created time.Time `json:"created"`
	Program string    `json:"program"` // and its version
	Store   string    `json:"store"`   // embedded, redis or postgres
}

// A Trailer ends a backup.
type Trailer struct {
	Records int64            `json:"records"`
	Expired int64            `json:"expired"` // left out
	Kinds   map[string]int64 `json:"kinds"`   // how many of each kind
}

// ErrBadBackup is returned for a file that is not a whole, unchanged backup.
var ErrBadBackup = errors.New("not a backup, or not a whole one")

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBadBackup}, args...)...)
}

// writer writes a backup.
type writer struct {
	w   io.Writer
	sum hash.Hash
	buf []byte
}

func newWriter(w io.Writer) *writer {
	sum := sha256.New()
	return &writer{w: io.MultiWriter(w, sum), sum: sum}
}

func (w *writer) begin() error {
	_, err := w.w.Write(binary.BigEndian.AppendUint32([]byte(magic), backupLayout))
	return err
}

// frame writes one frame; body appends its body.
func (w *writer) frame(kind byte, body func([]byte) []byte) error {
	b := body(append(w.buf[:0], kind, 0, 0, 0, 0))
	n := len(b) - 5
	if n > maxFrame[kind] {
		return fmt.Errorf("a frame %c of %d bytes, at most %d", kind, n, maxFrame[kind])
	}
	binary.BigEndian.PutUint32(b[1:], uint32(n))
	w.buf = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	_, err := w.w.Write(w.buf)
	return err
}

func (w *writer) json(kind byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.frame(kind, func(b []byte) []byte { return append(b, text...) })
}

func (w *writer) end() error {
	_, err := w.w.Write(w.sum.Sum(nil)) // goes into the sum, too, which is over
	return err
}

// reader reads a backup from its beginning to its end, and trusts nothing of it.
type reader struct {
	r      io.Reader
	sum    hash.Hash
	buf    []byte
	header Header
	keys   []byte
	whole  [sha256.Size]byte // the checksum, once it was read
}

// newReader reads what stands in front of the records.
func newReader(from io.Reader) (*reader, error) {
	r := &reader{sum: sha256.New()}
	r.r = io.TeeReader(from, r.sum)
	var head [len(magic) + 4]byte
	if err := r.read(head[:], "its beginning"); err != nil {
		return nil, err
	}
	if string(head[:len(magic)]) != magic {
		return nil, bad("it does not begin as a backup")
	}
	if layout := binary.BigEndian.Uint32(head[len(magic):]); layout != backupLayout {
		return nil, fmt.Errorf("%w: it has layout %d, and this program reads %d: use the version that wrote it, or a newer one", ErrBadBackup, layout, backupLayout)
	}
	body, err := r.must(frameHeader)
	if err != nil {
		return nil, err
	}
	if err := strictly(body, &r.header); err != nil {
		return nil, err
	}
	if body, err = r.must(frameKeys); err != nil {
		return nil, err
	}
	r.keys = bytes.Clone(body)
	return r, nil
}

func strictly(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return bad("%v", err)
	}
	return nil
}

func (r *reader) read(b []byte, what string) error {
	_, err := io.ReadFull(r.r, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return bad("it ends within %s", what)
	}
	return err
}

// next returns the next frame. Its body is good until the next call.
func (r *reader) next() (kind byte, body []byte, err error) {
	var head [5]byte
	if err := r.read(head[:], "its frames"); err != nil {
		return 0, nil, err
	}
	kind, n := head[0], binary.BigEndian.Uint32(head[1:])
	limit, known := maxFrame[kind]
	if !known || uint64(n) > uint64(limit) {
		return 0, nil, bad("a frame of kind %q and of %d bytes", kind, n)
	}
	if cap(r.buf) < int(n)+4 {
		r.buf = make([]byte, n+4)
	}
	b := r.buf[:n+4]
	if err := r.read(b, "a frame"); err != nil {
		return 0, nil, err
	}
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, b[:n])
	if sum != binary.BigEndian.Uint32(b[n:]) {
		return 0, nil, bad("a frame of kind %q is damaged", kind)
	}
	return kind, b[:n], nil
}

func (r *reader) must(want byte) ([]byte, error) {
	kind, body, err := r.next()
	if err == nil && kind != want {
		err = bad("a frame of kind %q where %q belongs", kind, want)
	}
	return body, err
}

// records calls yield with every record, and checks what stands behind them.
func (r *reader) records(yield func(*store.Record) error) (Trailer, error) {
	var t Trailer
	n := int64(0)
	for {
		kind, body, err := r.next()
		if err != nil {
			return t, err
		}
		switch kind {
		case frameRecord:
			rec, err := store.ParseRecord(body)
			if err != nil || rec.Version == 0 {
				return t, bad("record %d cannot be read", n+1)
			}
			n++
			if err := yield(rec); err != nil {
				return t, err
			}
		case frameTrailer:
			if err := strictly(body, &t); err != nil {
				return t, err
			}
			if t.Records != n {
				return t, bad("%d records, and its end says %d", n, t.Records)
			}
			return t, r.end()
		default:
			return t, bad("a frame of kind %q among the records", kind)
		}
	}
}

func (r *reader) end() error {
	want := r.sum.Sum(nil)
	if err := r.read(r.whole[:], "its checksum"); err != nil {
		return err
	}
	if !bytes.Equal(r.whole[:], want) {
		return bad("its checksum does not match: it was changed, or damaged")
	}
	var more [1]byte
	if _, err := io.ReadFull(r.r, more[:]); err == nil {
		return bad("something stands behind its end")
	} else if err != io.EOF {
		return err
	}
	return nil
}
