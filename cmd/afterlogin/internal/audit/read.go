package audit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/keyring"
)

// Limits of reading.
const (
	// MaxPage is how many entries a page has at most.
	MaxPage = 1000
	// pageWork is how many bytes of the log are looked through for one page.
	pageWork = 16 << 20
	// block is how much is read at once.
	block = 256 << 10
)

// A Query names entries of a log. The zero value names all of them.
type Query struct {
	Subject string
	Session string // the handle of what an entry is about, of what that lives under, or of the console's session it was done with
	Actor   string
	Type    string // session.revoked; or the beginning of types: api.*
	Since   time.Time
	Until   time.Time // entries at that time are not meant

	// Limit and Cursor are for List. Limit is 1 to MaxPage; zero is 50.
	Limit  int
	Cursor string
}

// A Page is a part of a log, newest first.
type Page struct {
	Entries []Entry
	// Next is the cursor of the next page; empty on the last. A page may have no entries and a next one nevertheless: each
	// is the work of a moment, whatever is looked for.
	Next string
	// Damaged is how many lines, and segments as a whole, could not be read. Verify tells more.
	Damaged int
}

// An Archive is a log that is read: an open one, or a directory. Of a segment without a genuine first line it believes
// nothing; lines it does not judge: that is for Verify.
type Archive struct {
	dir      string
	segments []segment
}

// OpenArchive returns the log in the directory, which may be in use. The ring is the installation's. Errors: ErrNoLog,
// keyring.ErrUnavailable, and what is wrong with the files.
func OpenArchive(dir string, ring *keyring.Ring) (*Archive, error) {
	h, headErr := readHead(dir, ring)
	if errors.Is(headErr, keyring.ErrUnavailable) {
		return nil, headErr
	}
	numbers, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	if len(numbers) == 0 {
		return nil, fmt.Errorf("%w in %s", ErrNoLog, dir)
	}
	id, _, err := identify(dir, ring, h, headErr, numbers)
	if err != nil {
		return nil, err
	}
	from := h.Floor.Segment
	if headErr != nil {
		from = 0 // what is not of the log is counted as damaged
	}
	segments, err := loadSegments(dir, newLineKeys(ring, id), from)
	return &Archive{dir: dir, segments: segments}, err
}

// archive is the log as it is durable at this moment.
func (l *Log) archive() *Archive {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &Archive{dir: l.o.Dir, segments: slices.Clone(l.segments)}
}

// List returns a page of the entries that the query names, newest first. Errors: ErrBadCursor, the context's, and what is
// wrong with the files.
func (l *Log) List(ctx context.Context, q Query) (Page, error) { return l.archive().List(ctx, q) }

// Export yields the lines of the entries that the query names, oldest first, each as it stands in the log, with its line
// feed; a line is good until yield returns. Limit and Cursor are not looked at. Nothing is removed meanwhile. The error is
// yield's, the context's, or of the files; lines and segments that cannot be read are passed over, and counted.
func (l *Log) Export(ctx context.Context, q Query, yield func(line []byte) error) (damaged int, err error) {
	l.hold.RLock()
	defer l.hold.RUnlock()
	return l.archive().Export(ctx, q, yield)
}

// filter is a query that is ready to look at lines.
type filter struct {
	q     Query
	needs [][]byte // what a line that is meant has in it
}

func newFilter(q Query) *filter {
	f := &filter{q: q}
	for name, value := range map[string]string{"subject": q.Subject, "actor": q.Actor, "type": q.Type} {
		if value == "" || name == "type" && strings.HasSuffix(value, "*") {
			continue
		}
		f.needs = append(f.needs, quoted(name, value))
	}
	if q.Session != "" {
		f.needs = append(f.needs, quoted("", q.Session))
	}
	return f
}

// quoted is how a field with the value stands in a line.
func quoted(name, value string) []byte {
	var b bytes.Buffer
	if name != "" {
		b.WriteString(`"` + name + `":`)
	}
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// match decodes a line, if the query names it. ok says whether the line can be read, as far as that was looked at.
func (f *filter) match(line []byte) (e Entry, meant, ok bool) {
	for _, need := range f.needs {
		if !bytes.Contains(line, need) {
			return e, false, true
		}
	}
	if _, _, _, ok := split(line); !ok || json.Unmarshal(line, &e) != nil || e.Seq == 0 {
		return e, false, false
	}
	q := &f.q
	prefix, wild := strings.CutSuffix(q.Type, "*")
	meant = (q.Subject == "" || e.Subject == q.Subject) && (q.Actor == "" || e.Actor == q.Actor) &&
		(q.Session == "" || e.Session == q.Session || e.Root == q.Session || e.Via == q.Session) &&
		(q.Type == "" || e.Type == q.Type || wild && strings.HasPrefix(e.Type, prefix)) &&
		(q.Since.IsZero() || !e.At.Before(q.Since)) && (q.Until.IsZero() || e.At.Before(q.Until))
	return e, meant, true
}

// within reports whether a segment may have entries of the time.
func (f *filter) within(s segment) bool {
	if s.from.IsZero() {
		return true
	}
	return !s.to.Before(f.q.Since) && (f.q.Until.IsZero() || s.from.Before(f.q.Until))
}

// List is Log.List.
func (a *Archive) List(ctx context.Context, q Query) (page Page, err error) {
	limit := q.Limit
	if limit <= 0 {
		limit = 50
	}
	limit = min(limit, MaxPage)
	number, offset, err := a.position(q.Cursor)
	if err != nil {
		return page, err
	}
	f := newFilter(q)
	work := int64(pageWork)
	gone := 0 // segments that are not there
	for i := len(a.segments) - 1; i >= 0; i-- {
		s := a.segments[i]
		end := s.size
		switch {
		case s.number > number:
			continue
		case s.number == number:
			end = offset
		}
		if s.bad {
			page.Damaged++
			continue
		}
		if !f.within(s) {
			continue
		}
		err := a.backwards(ctx, s, end, func(line []byte, at int64) (more bool) {
			work -= int64(len(line))
			e, meant, ok := f.match(line)
			if !ok {
				page.Damaged++
			}
			if meant {
				page.Entries = append(page.Entries, e)
			}
			if len(page.Entries) == limit || work <= 0 {
				page.Next = cursorOf(s.number, at)
				return false
			}
			return true
		})
		if missing(err) {
			gone++ // because of its age, unless there is an older one
			continue
		}
		page.Damaged += gone
		gone = 0
		if err != nil || page.Next != "" {
			return page, err
		}
	}
	return page, nil
}

// backwards calls f with the lines of a segment that end at or before the offset, the last first, but for the first line
// of the segment.
func (a *Archive) backwards(ctx context.Context, s segment, end int64, f func(line []byte, at int64) (more bool)) error {
	file, err := os.Open(segmentPath(a.dir, s.number))
	if err != nil {
		return err
	}
	defer file.Close()
	var rest []byte // of a line whose beginning has not been read
	for end > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(end, block)
		buf := make([]byte, n, n+int64(len(rest)))
		if _, err := file.ReadAt(buf, end-n); err != nil && err != io.EOF {
			return err
		}
		end -= n
		buf = append(buf, rest...)
		for {
			i := bytes.LastIndexByte(buf[:max(0, len(buf)-1)], '\n')
			if i < 0 {
				break
			}
			if line := buf[i+1:]; !f(line, end+int64(i)+1) {
				return nil
			}
			buf = buf[:i+1]
		}
		if rest = buf; len(rest) > 2*maxLine {
			rest = rest[:1] // no line of ours: it is counted as damaged, once
		}
	}
	return nil
}

func cursorOf(number uint64, offset int64) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "1 %d %d", number, offset))
}

// position returns from where on the cursor goes on, backwards.
func (a *Archive) position(cursor string) (number uint64, offset int64, err error) {
	if cursor == "" {
		return 1 << 62, 0, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(b) > 64 {
		return 0, 0, ErrBadCursor
	}
	parts := strings.Split(string(b), " ")
	if len(parts) != 3 || parts[0] != "1" {
		return 0, 0, ErrBadCursor
	}
	number, err1 := strconv.ParseUint(parts[1], 10, 64)
	offset, err2 := strconv.ParseInt(parts[2], 10, 64)
	if errors.Join(err1, err2) != nil || offset < 1 || len(a.segments) == 0 || number > a.segments[len(a.segments)-1].number {
		return 0, 0, ErrBadCursor
	}
	i := slices.IndexFunc(a.segments, func(s segment) bool { return s.number == number })
	if i < 0 { // removed because of its age, as is everything before it
		return number, 0, nil
	}
	var b1 [1]byte
	f, err := os.Open(segmentPath(a.dir, number))
	if missing(err) {
		return number, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	if offset > a.segments[i].size {
		return 0, 0, ErrBadCursor
	}
	if _, err := f.ReadAt(b1[:], offset-1); err != nil || b1[0] != '\n' {
		return 0, 0, ErrBadCursor
	}
	return number, offset, nil
}

// Export is Log.Export.
func (a *Archive) Export(ctx context.Context, q Query, yield func(line []byte) error) (damaged int, err error) {
	f := newFilter(q)
	for _, s := range a.segments {
		if s.bad {
			damaged++
			continue
		}
		if !f.within(s) {
			continue
		}
		n, err := a.export(ctx, s, f, yield)
		damaged += n
		if missing(err) {
			damaged++
			continue
		}
		if err != nil {
			return damaged, err
		}
	}
	return damaged, nil
}

// hashOf returns the hash of the line of an entry, "" if that is not there. kept says whether the log goes back that far.
func (a *Archive) hashOf(ctx context.Context, seq uint64) (hash string, kept bool, err error) {
	i := len(a.segments) - 1
	for i >= 0 && (a.segments[i].bad || a.segments[i].first > seq+1) {
		i--
	}
	if i < 0 {
		return "", false, nil
	}
	if a.segments[i].first == seq+1 {
		return a.segments[i].prev, true, nil
	}
	_, err = a.export(ctx, a.segments[i], newFilter(Query{}), func(line []byte) error {
		if n, _ := seqOf(line); n == seq {
			_, _, h, _ := split(line) // it was decoded
			hash = string(h)
			return io.EOF
		}
		return nil
	})
	if err == io.EOF || missing(err) {
		err = nil
	}
	return hash, true, err
}

func (a *Archive) export(ctx context.Context, s segment, f *filter, yield func([]byte) error) (damaged int, err error) {
	file, err := os.Open(segmentPath(a.dir, s.number))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	r := newLines(io.LimitReader(file, s.size))
	for {
		line, err := r.next()
		if err == io.EOF {
			return damaged, nil // what has no end is being written
		}
		if err != nil {
			return damaged, err
		}
		if r.number == 1 {
			continue
		}
		if r.number%256 == 0 && ctx.Err() != nil {
			return damaged, ctx.Err()
		}
		_, meant, ok := f.match(line)
		if !ok {
			damaged++
		}
		if meant {
			if err := yield(line); err != nil {
				return damaged, err
			}
		}
	}
}
