package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"time"

	"github.com/afterlogin/afterlogin/keyring"
)

// A line is JSON that ends in ,"prev":"…","hash":"…"} and a line feed. Both are 43 characters of base64url. The hash is
// HMAC-SHA-256, under the key of the segment, over the kind of line (e: entry, s: the first line of a segment), the 43
// characters of prev, and the bytes of the line in front of ,"hash".
const (
	hashText = 43
	prevPart = `,"prev":"`
	hashPart = `","hash":"`
	lineEnd  = "\"}\n"
	tailSize = len(prevPart) + hashText + len(hashPart) + hashText + len(lineEnd)
)

// The kinds of what is hashed.
const (
	kindEntry   = 'e'
	kindSegment = 's'
	kindHead    = 'h'
)

// layout is that of segments and of the head, which this version writes.
const layout = 1

// noHash stands as prev in the first line of a log.
var noHash = encodeHash([32]byte{})

func encodeHash(h [32]byte) string { return base64.RawURLEncoding.EncodeToString(h[:]) }

// lineKeys derives the keys of a log. It is used by one goroutine at a time.
type lineKeys struct {
	ring *keyring.Ring
	id   string // of the log
	made map[uint8]*lineKey
}

type lineKey struct {
	state keyring.State
	mac   hash.Hash
	sum   [sha256.Size]byte
	text  [hashText]byte
}

// purpose is that of the keys which the log's are derived from. They are kept for as long as the installation is, also
// when they are dead, since their ids must not be used again.
const purpose = keyring.Sealing

func newLineKeys(ring *keyring.Ring, id string) *lineKeys {
	return &lineKeys{ring: ring, id: id, made: make(map[uint8]*lineKey)}
}

// key returns the key of the id, whatever its state: what was written with it must stay verifiable. The error is
// keyring.ErrNoKey if there never was one.
func (k *lineKeys) key(id uint8) (*lineKey, error) {
	if m := k.made[id]; m != nil {
		return m, nil
	}
	key, err := k.ring.Lookup(purpose, id)
	if errors.Is(err, keyring.ErrNoKey) {
		for _, dead := range k.ring.Keys(purpose) {
			if dead.ID == id {
				key, err = dead, nil
			}
		}
	}
	if err != nil {
		return nil, err
	}
	installation := k.ring.Installation()
	derive := hmac.New(sha256.New, key.Secret())
	derive.Write([]byte("afterlogin/audit/1\x00"))
	derive.Write(installation[:])
	derive.Write([]byte(k.id))
	m := &lineKey{state: key.State, mac: hmac.New(sha256.New, derive.Sum(nil))}
	k.made[id] = m
	return m, nil
}

// hash returns the hash of a line's bytes in front of ,"hash", as text. It is good until the next call.
func (k *lineKey) hash(kind byte, prev, body []byte) []byte {
	k.mac.Reset()
	k.mac.Write([]byte{kind})
	k.mac.Write(prev)
	k.mac.Write(body)
	base64.RawURLEncoding.Encode(k.text[:], k.mac.Sum(k.sum[:0]))
	return k.text[:]
}

// appendLine appends the line of a value whose JSON ends in prev, and returns its hash.
func (k *lineKey) appendLine(to []byte, kind byte, prev string, v any) ([]byte, string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return to, "", err
	}
	body := bytes.TrimSuffix(b.Bytes(), []byte("}\n"))
	if want := prevPart + prev + `"`; !bytes.HasSuffix(body, []byte(want)) || len(body)+tailSize > maxLine {
		return to, "", fmt.Errorf("audit: a line of %d bytes that does not end in prev", len(body))
	}
	h := string(k.hash(kind, []byte(prev), body))
	to = append(append(append(to, body...), `,"hash":"`...), h...)
	return append(to, lineEnd...), h, nil
}

// split takes a line apart. body is what the hash covers beside prev. ok says whether it has the form of a line.
func split(line []byte) (body, prev, hash []byte, ok bool) {
	at := len(line) - tailSize
	if at < 1 || line[0] != '{' {
		return nil, nil, nil, false
	}
	tail := line[at:]
	prev = tail[len(prevPart):][:hashText]
	hash = tail[len(prevPart)+hashText+len(hashPart):][:hashText]
	ok = string(tail[:len(prevPart)]) == prevPart && string(tail[len(prevPart)+hashText:][:len(hashPart)]) == hashPart && string(tail[tailSize-len(lineEnd):]) == lineEnd
	return line[:len(line)-len(hashPart)-hashText-len(lineEnd)+1], prev, hash, ok
}

// genuine reports whether the line was written with the key, as it is.
func (k *lineKey) genuine(kind byte, body, prev, hash []byte) bool {
	return hmac.Equal(k.hash(kind, prev, body), hash)
}

const seqPart = `{"seq":`

// seqOf reads the seq of an entry's line.
func seqOf(line []byte) (uint64, bool) {
	rest, ok := bytes.CutPrefix(line, []byte(seqPart))
	end := bytes.IndexByte(rest[:min(len(rest), 24)], ',')
	if !ok || end < 1 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(rest[:end]), 10, 64)
	return n, err == nil
}

// header is the first line of a segment.
type header struct {
	Layout       int       `json:"audit"`
	Log          string    `json:"log"`
	Installation string    `json:"installation"`
	Node         string    `json:"node"`
	Segment      uint64    `json:"segment"`
	First        uint64    `json:"first"` // seq of the entry that comes next
	Key          uint8     `json:"key"`   // which sealing key the key of this segment is derived from
	At           time.Time `json:"at"`    // when the segment was begun
	Cursor       string    `json:"cursor,omitempty"`
	// From and To are the earliest and the latest At of the segment before, if it has entries.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
	Prev string    `json:"prev"`
	Hash string    `json:"hash,omitempty"`
}

// parseHeader reads the first line of a segment. It says nothing about whether that is genuine.
func parseHeader(line []byte) (h header, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil || len(line) > maxLine {
		return h, errors.New("it is not the first line of a segment")
	}
	if h.Layout != layout {
		return h, fmt.Errorf("it is of layout %d, this version reads %d", h.Layout, layout)
	}
	return h, nil
}

// state is where a log stands: behind its last line.
type state struct {
	segment  uint64
	size     int64 // of the segment
	seq      uint64
	hash     string // of the last line
	cursor   string // of the last event
	key      uint8
	at       time.Time // when the segment was begun
	from, to time.Time // of the segment's entries
}

// span widens what the state knows of its segment by the time of an entry.
func (s *state) span(at time.Time) {
	if s.from.IsZero() || at.Before(s.from) {
		s.from = at
	}
	if at.After(s.to) {
		s.to = at
	}
}
