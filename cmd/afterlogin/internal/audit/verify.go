package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
)

// maxProblems is how many problems a report names. It counts all of them.
const maxProblems = 100

// A Finding is a place where a log is not as it was written.
type Finding struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"` // 1 is the first; zero: the file as a whole
	Seq  uint64 `json:"seq,omitempty"`  // of the entry that was expected there
	What string `json:"what"`
}

func (p Finding) String() string {
	where := p.File
	if p.Line > 0 {
		where += fmt.Sprintf(":%d", p.Line)
	}
	if p.Seq > 0 {
		where += fmt.Sprintf(" (entry %d)", p.Seq)
	}
	return where + ": " + p.What
}

// A Report is what Verify found.
type Report struct {
	Log      string    `json:"log"`
	Node     string    `json:"node"`
	First    uint64    `json:"first"` // the first entry that is kept
	Last     uint64    `json:"last"`
	Entries  uint64    `json:"entries"` // that were read
	Segments int       `json:"segments"`
	Bytes    int64     `json:"bytes"`
	Head     time.Time `json:"head,omitzero"` // when head.json was written
	// Store is what the store knows of the log; nil if it was not asked, or knows nothing.
	Store *StoreHead `json:"store,omitempty"`
	// Compared says in words what was compared with what.
	Compared []string `json:"compared"`
	// Notes are what is no problem, and good to know.
	Notes    []string  `json:"notes"`
	Problems []Finding `json:"problems"`
	// Count is the number of problems. Problems has the first of them.
	Count int `json:"count"`
}

// VerifyOptions configure Verify. Dir and Keys are required.
type VerifyOptions struct {
	Dir  string
	Keys *keyring.Ring
	// Authority is asked how long the log is. Nil: the store is not asked.
	Authority *afterlogin.Authority
	// Node is the name of the server whose log it should be. Empty: that is not known.
	Node string
}

// Verify reads all of a log and says whether it is as it was written: every byte of every line, their order, where the log
// begins and where it ends. The log may be in use meanwhile. It needs bounded memory. The error is for what kept it from
// finding out: ErrNoLog, keyring.ErrUnavailable, afterlogin.ErrUnavailable, the context's, or of reading; a log that is not in
// order is no error, but Report.Count.
func Verify(ctx context.Context, o VerifyOptions) (*Report, error) {
	for try := 0; ; try++ {
		v := &verification{o: o, report: &Report{Compared: []string{}, Notes: []string{}, Problems: []Finding{}}}
		numbers, err := v.begin(ctx)
		if err == nil {
			err = v.read(ctx, numbers)
		}
		if err == errRemoved && try < 3 {
			continue
		}
		if err != nil {
			return nil, err
		}
		return v.report, nil
	}
}

// errRemoved says that segments were removed because of their age while they were to be read.
var errRemoved = errors.New("the audit log changed while it was read: try again")

// Verify is Verify of this log and its store. One at a time: ErrBusy. Nothing is removed meanwhile.
func (l *Log) Verify(ctx context.Context) (*Report, error) {
	if !l.verifying.TryLock() {
		return nil, ErrBusy
	}
	defer l.verifying.Unlock()
	l.hold.RLock()
	defer l.hold.RUnlock()
	return Verify(ctx, VerifyOptions{Dir: l.o.Dir, Keys: l.o.Keys, Authority: l.o.Authority, Node: cutText(l.o.Node, maxText)})
}

type verification struct {
	o      VerifyOptions
	report *Report
	keys   *lineKeys
	head   *head // nil: it is missing, or bad

	seq    uint64    // of the last entry, as far as it can be told
	hash   string    // of the last line; "": that cannot be told
	gone   bool      // hash and seq are of a log without a head: the first line is taken as it is
	passed bool      // the head was met
	stored bool      // what the store knows of was met
	nodes  []string  // the servers that the first lines name
	began  time.Time // when the oldest segment was
}

func (v *verification) problem(file string, line int, seq uint64, format string, args ...any) {
	v.report.Count++
	if len(v.report.Problems) < maxProblems {
		v.report.Problems = append(v.report.Problems, Finding{file, line, seq, fmt.Sprintf(format, args...)})
	}
}

func (v *verification) note(format string, args ...any) {
	if len(v.report.Notes) < maxProblems {
		v.report.Notes = append(v.report.Notes, fmt.Sprintf(format, args...))
	}
}

// removed reports whether a segment that is not there has been removed because of its age, by the server whose log it is.
func (v *verification) removed(number uint64) bool {
	h, err := readHead(v.o.Dir, v.o.Keys)
	return err == nil && v.head != nil && h.Log == v.head.Log && h.Floor.Segment > number && h.Floor.Segment > v.head.Floor.Segment
}

// read reads the segments.
func (v *verification) read(ctx context.Context, numbers []uint64) error {
	r := v.report
	next := uint64(1)
	if v.head != nil {
		next = v.head.Floor.Segment
	} else if len(numbers) > 0 {
		next = numbers[0]
	}
	for _, n := range numbers {
		name := filepath.Base(segmentPath(v.o.Dir, n))
		if n < next && v.head != nil && n < v.head.Floor.Segment {
			switch _, err := checkHeader(segmentPath(v.o.Dir, n), n, func(string) *lineKeys { return v.keys }); {
			case errors.Is(err, keyring.ErrUnavailable):
				return err
			case err == nil:
				v.note("%s is from before the log begins, and was to be removed", name)
			case !missing(err):
				v.problem(name, 1, 0, "it is from before the log begins, and is none of its segments: %v", err)
			}
			continue
		}
		if n > next {
			if v.removed(next) {
				return errRemoved
			}
			v.missingSegments(next, n-1)
			v.hash = ""
		}
		next = n + 1
		if err := v.segment(ctx, n, n == numbers[len(numbers)-1]); err != nil {
			return err
		}
	}
	if v.head != nil && next <= v.head.Segment {
		v.missingSegments(next, v.head.Segment)
	}
	r.Last = v.seq
	if v.head != nil {
		r.Compared = append(r.Compared, fmt.Sprintf("with %s, which is of %s and knows of %d entries", headFile, stamp(v.head.At), v.head.Seq))
		if !v.passed {
			v.problem(headFile, 0, v.head.Seq, "the log does not go through the line that stands here as the last: entries behind %d were removed or changed", min(v.seq, v.head.Seq))
		}
	}
	if s := r.Store; s != nil {
		r.Compared = append(r.Compared, fmt.Sprintf("with the store, which was told at %s of %d entries", stamp(s.At), s.Seq))
		switch {
		case v.seq < s.Seq:
			v.problem("store", 0, s.Seq, "the store knows of entry %d, and the files end at %d", s.Seq, v.seq)
		case !v.stored && s.Seq+1 >= r.First:
			v.problem("store", 0, s.Seq, "the store knows another line as entry %d", s.Seq)
		}
	} else if v.o.Authority != nil && r.Log != "" {
		if v.head != nil && v.head.At.Sub(v.began) > time.Minute { // the store has been told long since
			v.note("the store was asked, and knows nothing of this log, although that is from %s: another store was put into its place, or it lost what it knew. Whether the end of the log is missing was not compared with it", stamp(v.began))
		} else {
			v.note("the store was asked, and knows nothing of this log yet")
		}
	}
	v.whose(ctx)
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (v *verification) missingSegments(from, to uint64) {
	name := filepath.Base(segmentPath(v.o.Dir, from))
	if to > from {
		v.problem(name, 0, v.seq+1, "%d segments are missing, to %s", to-from+1, filepath.Base(segmentPath(v.o.Dir, to)))
		return
	}
	v.problem(name, 0, v.seq+1, "the segment is missing")
}

// begin finds out what log it is, where it begins, and what the store knows of it.
func (v *verification) begin(ctx context.Context) (numbers []uint64, err error) {
	// The head and the store come first: the files have grown when they are read.
	h, headErr := readHead(v.o.Dir, v.o.Keys)
	if errors.Is(headErr, keyring.ErrUnavailable) {
		return nil, headErr
	}
	if numbers, err = listSegments(v.o.Dir); err != nil {
		return nil, err
	}
	r := v.report
	r.Segments = len(numbers)
	switch {
	case headErr == nil:
		v.head = &h
		v.keys = newLineKeys(v.o.Keys, h.Log)
		v.seq, v.hash = h.Floor.First-1, h.Floor.Prev
		r.Log, r.First, r.Head = h.Log, h.Floor.First, h.At
		if h.Floor.Segment > 1 {
			v.note("entries before %d are not kept any more", h.Floor.First)
		}
	case missing(headErr) && len(numbers) == 0:
		return nil, fmt.Errorf("%w in %s", ErrNoLog, v.o.Dir)
	default:
		what := headErr.Error()
		if missing(headErr) {
			what = "it is missing: where the log begins and ends cannot be told without it"
		}
		v.problem(headFile, 0, 0, "%s", what)
		for _, n := range numbers {
			var h header
			if h, err = checkHeader(segmentPath(v.o.Dir, n), n, func(id string) *lineKeys { return newLineKeys(v.o.Keys, id) }); err == nil {
				v.keys = newLineKeys(v.o.Keys, h.Log)
				r.Log, r.First = h.Log, h.First
				break
			}
			if errors.Is(err, keyring.ErrUnavailable) {
				return nil, err
			}
		}
		v.gone = true
		if v.keys == nil {
			v.keys = newLineKeys(v.o.Keys, "")
		}
	}
	if v.o.Authority != nil && r.Log != "" {
		if r.Store, _, err = readStoreHead(ctx, v.o.Authority, r.Log); err != nil {
			return nil, err
		}
		v.stored = r.Store != nil && r.Store.Seq == v.seq && r.Store.Hash == v.hash
	}
	return numbers, nil
}

// segment reads one segment. last says that there is none behind it.
func (v *verification) segment(ctx context.Context, number uint64, last bool) error {
	path := segmentPath(v.o.Dir, number)
	name := filepath.Base(path)
	f, err := os.Open(path)
	if missing(err) { // since it was listed
		if v.removed(number) {
			return errRemoved
		}
		v.problem(name, 0, v.seq+1, "the segment is missing")
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := newLines(f)
	defer func() { v.report.Bytes += r.offset }()
	var k *lineKey
	var newest *uint64 // the batch of the newest genuine line behind the first that is not; nil: that was not looked for
	for {
		line, err := r.next()
		if err != nil && err != io.EOF {
			return err
		}
		if r.number%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err == io.EOF && len(line) == 0 {
			if r.offset == 0 {
				v.leftover(name, number, last, r, 0, "is empty")
			}
			break
		}
		if err == io.EOF {
			v.leftover(name, number, last, r, len(line), "ends in the middle of a line")
			break
		}
		if v.passed && last && number >= v.head.Segment { // behind the head
			torn, err := v.torn(number, r.number == 1, line, k)
			if err != nil {
				return err
			}
			if torn && newest == nil {
				batch, err := v.keys.newestBatch(f, r.offset)
				if err != nil {
					return err
				}
				newest = &batch
			}
			if torn && *newest <= v.seq+1 { // all of it was written together
				info, err := f.Stat()
				if err != nil {
					return err
				}
				v.note("%s: the last %d bytes are of a write that was cut off: nobody was told that it is durable", name, info.Size()-r.offset+int64(len(line)))
				return nil
			}
		}
		if r.number == 1 {
			if k, err = v.firstLine(name, number, line); err != nil {
				return err
			}
		} else {
			v.line(name, r.number, line, k)
		}
		v.meet(number, r.offset)
	}
	if v.head != nil && number == v.head.Segment && !v.passed && r.offset < v.head.Size {
		v.problem(name, 0, v.seq+1, "it ends after %d bytes, and %s says that it has %d", r.offset, headFile, v.head.Size)
	}
	if !last && v.head != nil && number > v.head.Segment+1 {
		v.problem(name, 0, 0, "%s knows of no such segment", headFile)
	}
	return nil
}

// meet compares where the reading stands with where the log was known to stand.
func (v *verification) meet(number uint64, offset int64) {
	if h := v.head; h != nil && h.Segment == number && h.Size == offset && h.Seq == v.seq && h.Hash == v.hash {
		v.passed = true
	}
	if s := v.report.Store; s != nil && s.Seq == v.seq && s.Hash == v.hash {
		v.stored = true
	}
}

// torn reports whether a line behind the head is none that the log ever wrote: what a crash in the middle of a write leaves,
// of which some pages are on the disk and others are not. A genuine line in the wrong place is not that.
func (v *verification) torn(number uint64, first bool, line []byte, k *lineKey) (bool, error) {
	body, prev, hash, ok := split(line)
	if !ok || len(line) >= maxLine {
		return true, nil
	}
	if !first {
		return k != nil && !k.genuine(kindEntry, body, prev, hash) && !k.genuine(kindSegment, body, prev, hash), nil
	}
	if number != v.head.Segment+1 {
		return false, nil
	}
	h, err := parseHeader(line)
	if err != nil {
		return true, nil
	}
	k, err = v.keys.key(h.Key)
	if errors.Is(err, keyring.ErrUnavailable) {
		return false, err
	}
	return err != nil || !k.genuine(kindSegment, body, prev, hash), nil
}

// leftover judges what has no line feed at the end of a segment: it may be there behind the head, where a write was cut
// off or is under way.
func (v *verification) leftover(name string, number uint64, last bool, r *lines, size int, what string) {
	if h := v.head; h != nil && last && (number > h.Segment || number == h.Segment && r.offset-int64(size) >= h.Size) {
		v.note("%s: %d bytes behind the end of the log are of a write that was cut off, or is under way", name, size)
		return
	}
	v.problem(name, r.number, v.seq+1, "the segment %s", what)
	v.hash = ""
}

// firstLine judges the first line of a segment, and returns the key of the others; nil if that cannot be told.
func (v *verification) firstLine(name string, number uint64, line []byte) (*lineKey, error) {
	h, err := parseHeader(line)
	body, prev, hash, ok := split(line)
	if err != nil || !ok {
		v.problem(name, 1, 0, "the first line of the segment was changed: it cannot be read")
		v.hash = ""
		return nil, nil
	}
	k, err := v.keys.key(h.Key)
	if errors.Is(err, keyring.ErrUnavailable) {
		return nil, err
	}
	switch {
	case err != nil:
		v.problem(name, 1, 0, "the first line of the segment was changed: it names a key that there never was")
	case !k.genuine(kindSegment, body, prev, hash):
		v.problem(name, 1, 0, "the first line of the segment was changed: its hash does not match")
	case h.Segment != number:
		v.problem(name, 1, 0, "this is segment %d: the file was put into the place of another", h.Segment)
	case v.hash != "" && !v.gone && string(prev) != v.hash:
		v.problem(name, 1, v.seq+1, "the segment does not follow the one before: lines at its end, or whole segments, were removed or changed")
	case v.hash != "" && !v.gone && h.First != v.seq+1:
		v.problem(name, 1, v.seq+1, "the segment begins with entry %d, want %d", h.First, v.seq+1)
	}
	if err == nil && k.state == keyring.Dead {
		v.note("%s was written with key %d, which is dead: whoever has that key could have written it", name, h.Key)
	}
	if v.report.Node == "" || err == nil {
		v.report.Node = h.Node
	}
	if v.began.IsZero() {
		v.began = h.At
	}
	if len(v.nodes) < 10 && !slices.Contains(v.nodes, h.Node) {
		v.nodes = append(v.nodes, h.Node)
	}
	v.gone = false
	v.seq, v.hash = h.First-1, string(hash)
	return k, nil
}

// line judges the line of an entry.
func (v *verification) line(name string, number int, line []byte, k *lineKey) {
	body, prev, hash, ok := split(line)
	seq, counted := seqOf(line)
	want := v.seq + 1
	v.report.Entries++
	switch {
	case len(line) >= maxLine:
		v.problem(name, number, want, "the line was changed: it is over %d bytes", maxLine)
	case !ok || !counted:
		v.problem(name, number, want, "the line was changed: it is no entry")
	case k == nil:
		// The first line of the segment does not say which key it is: one problem for all of them.
	case !k.genuine(kindEntry, body, prev, hash):
		v.problem(name, number, want, "the entry was changed: its hash does not match")
	case v.hash != "" && string(prev) != v.hash:
		what := "lines before it were removed or changed"
		if seq < want {
			what = "it was moved here, or stands here again"
		}
		v.problem(name, number, want, "entry %d does not follow the line before: %s", seq, what)
	case v.hash != "" && seq != want:
		v.problem(name, number, want, "this is entry %d, want %d", seq, want)
	default:
		if bytes.Contains(line, []byte(`"type":"audit.`)) {
			v.about(name, number, line)
		}
	}
	if !ok || !counted {
		v.seq, v.hash = want, ""
		return
	}
	v.seq, v.hash = seq, string(hash)
}

// about repeats what the log says of itself.
func (v *verification) about(name string, number int, line []byte) {
	var e Entry
	if json.Unmarshal(line, &e) != nil {
		return
	}
	switch e.Type {
	case TypeDamaged:
		v.problem(name, number, e.Seq, "noted at %s: %s", stamp(e.At), e.Detail)
	case TypeGap, TypeTorn, TypeFailed:
		v.note("entry %d, %s: %s", e.Seq, stamp(e.At), e.Detail)
	}
}
