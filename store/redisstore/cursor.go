package redisstore

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/afterlogin/afterlogin/store"
)

// A placeID is the id of an entry of a stream.
type placeID struct {
	us  int64
	seq uint64
}

func (p placeID) String() string {
	return strconv.FormatInt(p.us, 10) + "-" + strconv.FormatUint(p.seq, 10)
}

func parsePlace(id string) (p placeID, err error) {
	p.us, p.seq, err = parseStreamID(id)
	return p, err
}

// parseStreamID parses "microseconds-number".
func parseStreamID(id string) (us int64, seq uint64, err error) {
	a, b, ok := strings.Cut(id, "-")
	if !ok {
		return 0, 0, errShape
	}
	if us, err = strconv.ParseInt(a, 10, 64); err != nil || us < 0 {
		return 0, 0, errShape
	}
	if seq, err = strconv.ParseUint(b, 10, 64); err != nil {
		return 0, 0, errShape
	}
	return us, seq, nil
}

// A position is a place in the events of every group.
type position [groups]placeID

// cursorLayout is the first byte of a cursor, before it is written in base64.
const cursorLayout = 1

// maxCursor is the greatest size of a cursor, in bytes.
const maxCursor = 2048

// cursor returns: layout 1, the latest time 8, for every group how much earlier its own is, and behind it the number if
// that is not 0, which the lowest bit of the difference tells; then a check sum 4.
func (p *position) cursor() store.Cursor {
	latest := int64(0)
	for g := range p {
		latest = max(latest, p[g].us)
	}
	b := make([]byte, 0, 9+groups*6+4)
	b = append(b, cursorLayout)
	b = binary.BigEndian.AppendUint64(b, uint64(latest))
	for g := range p {
		d := uint64(latest-p[g].us) << 1
		if p[g].seq == 0 {
			b = binary.AppendUvarint(b, d)
		} else {
			b = binary.AppendUvarint(binary.AppendUvarint(b, d|1), p[g].seq)
		}
	}
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return store.Cursor(base64.RawURLEncoding.EncodeToString(b))
}

// parseCursor reads what cursor wrote, and nothing else.
func parseCursor(c store.Cursor) (p position, ok bool) {
	if len(c) > maxCursor {
		return p, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(c))
	if err != nil || len(b) < 13 || b[0] != cursorLayout {
		return p, false
	}
	body, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if crc32.ChecksumIEEE(body) != sum {
		return p, false
	}
	latest := binary.BigEndian.Uint64(body[1:])
	body = body[9:]
	if latest > 1<<62 {
		return p, false
	}
	for g := range p {
		d, n := binary.Uvarint(body)
		if n <= 0 || d>>1 > latest {
			return p, false
		}
		body = body[n:]
		p[g].us = int64(latest - d>>1)
		if d&1 != 0 {
			if p[g].seq, n = binary.Uvarint(body); n <= 0 {
				return p, false
			}
			body = body[n:]
		}
	}
	return p, len(body) == 0 && p.cursor() == c
}
