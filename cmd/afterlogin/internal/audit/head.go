package audit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/afterlogin/afterlogin/keyring"
)

// headFile says where the log begins and ends.
const headFile = "head.json"

// head says where a log begins and ends, under a key: a log from which the last lines, or whole segments, are taken away
// is a good chain still.
type head struct {
	Layout       int       `json:"audit"`
	Log          string    `json:"log"`
	Installation string    `json:"installation"`
	Segment      uint64    `json:"segment"`
	Size         int64     `json:"size"` // of the segment, in bytes
	Seq          uint64    `json:"seq"`
	Hash         string    `json:"hash"` // of the last line
	Cursor       string    `json:"cursor,omitempty"`
	At           time.Time `json:"at"`
	Floor        floor     `json:"floor"`
	Damaged      []uint64  `json:"damaged,omitempty"` // segments without a genuine first line, which the log tells of already
	Key          uint8     `json:"key"`
}

// floor is where a log begins: what was before has been removed because of its age.
type floor struct {
	Segment uint64 `json:"segment"`
	First   uint64 `json:"first"` // seq of its first entry
	Prev    string `json:"prev"`  // of its first line
}

const macPart = `,"mac":"`

func encodeHead(h head, keys *lineKeys) ([]byte, error) {
	k, err := keys.key(h.Key)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	b = b[:len(b)-1]
	mac := k.hash(kindHead, nil, b)
	return append(append(append(b, macPart...), mac...), lineEnd...), nil
}

// parseHead reads a head. keys may be nil: then they are made for the log that the head names. The error says in words
// what is wrong with it, or is a keyring.ErrUnavailable.
func parseHead(b []byte, ring *keyring.Ring) (h head, err error) {
	at := len(b) - len(macPart) - hashText - len(lineEnd)
	if at < 2 || string(b[at:at+len(macPart)]) != macPart || string(b[len(b)-len(lineEnd):]) != lineEnd {
		return h, errors.New("it is not a head")
	}
	body, mac := b[:at], b[at+len(macPart):][:hashText]
	d := json.NewDecoder(bytes.NewReader(append(bytes.Clone(body), '}')))
	d.DisallowUnknownFields()
	if d.Decode(&h) != nil {
		return h, errors.New("it is not a head")
	}
	if h.Layout != layout {
		return h, fmt.Errorf("it is of layout %d, this version reads %d", h.Layout, layout)
	}
	k, err := newLineKeys(ring, h.Log).key(h.Key)
	if errors.Is(err, keyring.ErrUnavailable) {
		return h, err
	}
	if err != nil || !k.genuine(kindHead, body, nil, mac) {
		return head{}, errors.New("it was changed, or is of another installation: its MAC does not match")
	}
	return h, nil
}

// readHead reads the head of the log in the directory. The error is fs.ErrNotExist if there is none.
func readHead(dir string, ring *keyring.Ring) (head, error) {
	b, err := readSmall(filepath.Join(dir, headFile))
	if err != nil {
		return head{}, err
	}
	return parseHead(b, ring)
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLine+1))
	if err == nil && len(b) > maxLine {
		err = fmt.Errorf("%s is over %d bytes", filepath.Base(path), maxLine)
	}
	return b, err
}

// write puts the head into the place of the one before. It is there whole, or not at all.
func (h head) write(dir string, keys *lineKeys) error {
	b, err := encodeHead(h, keys)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, headFile+".new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, headFile))
}

// headOf is the head of a log that stands there.
func (w *writer) headOf(s state, from floor) head {
	installation := w.o.Keys.Installation()
	return head{
		Layout: layout, Log: w.keys.id, Installation: hex.EncodeToString(installation[:]), Segment: s.segment, Size: s.size,
		Seq: s.seq, Hash: s.hash, Cursor: s.cursor, At: w.now().UTC().Truncate(time.Millisecond), Floor: from, Damaged: w.damaged, Key: s.key,
	}
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
