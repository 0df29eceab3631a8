package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/afterlogin/afterlogin/keyring"
)

// segment is a file of the log, as its first line and the one of the next segment describe it.
type segment struct {
	number   uint64
	first    uint64 // seq of its first entry
	prev     string // of its first line
	at       time.Time
	size     int64     // as far as it is durable
	from, to time.Time // of its entries; zero if that is not known, or there are none
	bad      bool      // it has no genuine first line, or is gone: only the number is known, and it is not read
}

var segmentName = regexp.MustCompile(`^([0-9]{8,18})\.jsonl$`)

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%08d.jsonl", number))
}

// listSegments returns the numbers of the segments in the directory, in order. No directory is none.
func listSegments(dir string) (numbers []uint64, err error) {
	files, err := os.ReadDir(dir)
	if err != nil && !missing(err) {
		return nil, err
	}
	for _, f := range files {
		if m := segmentName.FindStringSubmatch(f.Name()); m != nil {
			if n, err := strconv.ParseUint(m[1], 10, 64); err == nil && filepath.Base(segmentPath(dir, n)) == f.Name() {
				numbers = append(numbers, n)
			}
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// lines reads a file line by line, in bounded memory.
type lines struct {
	r      *bufio.Reader
	offset int64 // behind the last line
	number int   // of the last line
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, maxLine)} }

// maxHeader is the greatest size of the first line of a segment. It is not reached by texts of maxText.
const maxHeader = 8 << 10

// next returns the next line with its line feed, good until the next call. At the end it returns io.EOF, together with
// what stands there without a line feed. Of a line that is too long it returns the beginning.
func (l *lines) next() (line []byte, err error) {
	line, err = l.r.ReadSlice('\n')
	l.offset += int64(len(line))
	l.number++
	if err != bufio.ErrBufferFull {
		return line, err
	}
	line = bytes.Clone(line)
	for err == bufio.ErrBufferFull {
		var more []byte
		more, err = l.r.ReadSlice('\n')
		l.offset += int64(len(more))
	}
	return line, err
}

// readHeader reads the first line of a segment, without judging it.
func readHeader(path string) (h header, line []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, nil, err
	}
	defer f.Close()
	line, err = bufio.NewReaderSize(f, maxHeader).ReadSlice('\n')
	if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
		return h, nil, err
	}
	h, err = parseHeader(line)
	return h, line, err
}

var errNotFirst = errors.New("it is not the first line of this segment")

// checkHeader reads the first line of a segment, and judges it. keys are nil for those of the log that it names.
func checkHeader(path string, number uint64, keys func(log string) *lineKeys) (header, error) {
	h, line, err := readHeader(path)
	if err != nil {
		return h, err
	}
	body, prev, hash, ok := split(line)
	if !ok || h.Segment != number {
		return h, errNotFirst
	}
	k, err := keys(h.Log).key(h.Key)
	if err != nil {
		return h, err
	}
	if !k.genuine(kindSegment, body, prev, hash) {
		return h, errors.New("its hash does not match")
	}
	return h, nil
}

// tail is the last segment, as far as it is a chain.
type tail struct {
	header header
	state  state // behind the last good line
	passed bool  // the chain goes through the head
	bad    string
	rest   int64  // how many bytes follow the last good line
	newest uint64 // in which batch the newest genuine line of those was written; zero: there is none
}

// readTail reads a segment from its beginning, as far as it is a chain. The error says that it could not be read, or has no
// good first line.
func readTail(dir string, number uint64, keys *lineKeys, at head) (t tail, err error) {
	path := segmentPath(dir, number)
	if t.header, err = checkHeader(path, number, func(string) *lineKeys { return keys }); err != nil {
		return t, err
	}
	f, err := os.Open(path)
	if err != nil {
		return t, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return t, err
	}
	k, err := keys.key(t.header.Key)
	if err != nil {
		return t, err
	}
	r := newLines(f)
	if _, err := r.next(); err != nil {
		return t, err
	}
	s := &t.state
	*s = state{segment: number, size: r.offset, seq: t.header.First - 1, hash: t.header.Hash, cursor: t.header.Cursor, key: t.header.Key, at: t.header.At}
	for {
		t.passed = t.passed || number == at.Segment && s.size == at.Size && s.hash == at.Hash && s.seq == at.Seq
		line, err := r.next()
		if err == io.EOF && len(line) == 0 {
			return t, nil
		}
		if err != nil && err != io.EOF {
			return t, err
		}
		t.rest = info.Size() - s.size
		body, prev, hash, ok := split(line)
		seq, counted := seqOf(line)
		var e Entry
		switch {
		case err == io.EOF:
			t.bad = "a line without an end"
		case !ok || !counted || json.Unmarshal(line, &e) != nil:
			t.bad = "a line that is no entry"
		case string(prev) != s.hash || seq != s.seq+1 || !k.genuine(kindEntry, body, prev, hash):
			t.bad = "a line that does not follow the one before"
		}
		if t.bad != "" {
			t.newest, err = keys.newestBatch(f, s.size)
			return t, err
		}
		t.rest = 0
		s.seq, s.hash, s.size = seq, string(hash), r.offset
		if e.Cursor != "" {
			s.cursor = e.Cursor
		}
		s.span(e.At)
	}
}

// newestBatch returns in which batch the newest genuine line was written of those from an offset of a segment on; zero if
// there is none. A batch is written when the one before is durable: where a line is not as it was written, and one of a
// later batch stands behind it, that was no crash.
func (k *lineKeys) newestBatch(f io.ReaderAt, offset int64) (newest uint64, err error) {
	r := newLines(io.NewSectionReader(f, offset, math.MaxInt64-offset))
	for {
		line, err := r.next()
		if err == io.EOF {
			return newest, nil
		}
		if err != nil {
			return 0, err
		}
		var e Entry
		body, prev, hash, ok := split(line)
		if !ok || json.Unmarshal(line, &e) != nil || e.Batch <= newest {
			continue
		}
		for _, each := range k.ring.Keys(purpose) { // the first line may not tell which
			if key, err := k.key(each.ID); err == nil && key.genuine(kindEntry, body, prev, hash) {
				newest = e.Batch
			}
		}
	}
}

// loadSegments reads the first lines of the segments from a number on. Those that are not genuine are bad, since whoever
// can write a file could say in one how old the log is, and have it removed. What they say of their entries is for Verify
// to judge.
func loadSegments(dir string, keys *lineKeys, from uint64) (out []segment, err error) {
	numbers, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	for _, n := range numbers {
		if n < from {
			continue
		}
		s, err := checkHeader(segmentPath(dir, n), n, func(string) *lineKeys { return keys })
		switch {
		case missing(err): // since it was listed, because of its age
			continue
		case errors.Is(err, keyring.ErrUnavailable):
			return nil, err
		case err != nil:
			out = append(out, segment{number: n, bad: true})
			continue
		}
		if last := len(out) - 1; last >= 0 && out[last].number == n-1 {
			out[last].from, out[last].to = s.From, s.To
		}
		info, err := os.Stat(segmentPath(dir, n))
		if err != nil {
			continue
		}
		out = append(out, segment{number: n, first: s.First, prev: s.Prev, at: s.At, size: info.Size()})
	}
	return out, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
