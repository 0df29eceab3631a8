package afterlogin

import (
	"encoding/binary"

	"github.com/afterlogin/afterlogin/store"
)

// reader takes a payload apart. After the first thing that does not fit, failed is set and everything is zero.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || len(r.b) < n {
		r.failed = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) copy(dst []byte) { copy(dst, r.take(len(dst))) }

// count reads a number of things to come.
func (r *reader) count(most int) int {
	n := int(r.byte())
	if n > most {
		r.failed = true
		return 0
	}
	return n
}

// id reads a record's id, or none.
func (r *reader) id() store.ID {
	b := r.text()
	if b == "" {
		return store.ID{}
	}
	id, err := store.ParseID([]byte(b))
	if err != nil {
		r.failed = true
	}
	return id
}

func (r *reader) text() string {
	b := r.take(2)
	if b == nil {
		return ""
	}
	return string(r.take(int(binary.BigEndian.Uint16(b))))
}

// bytes returns what appendBytes wrote, without a copy.
func (r *reader) bytes() []byte {
	b := r.take(2)
	if b == nil {
		return nil
	}
	return r.take(int(binary.BigEndian.Uint16(b)))
}

func (r *reader) texts() []string {
	n := int(r.byte())
	if r.failed || n == 0 || n > len(r.b) {
		r.failed = r.failed || n > len(r.b)
		return nil
	}
	s := make([]string, n)
	for i := range s {
		s[i] = r.text()
	}
	return s
}

func appendText(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func appendBytes(b, p []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	return append(b, p...)
}

func appendTexts(b []byte, s []string) []byte {
	b = append(b, byte(len(s)))
	for _, t := range s {
		b = appendText(b, t)
	}
	return b
}
