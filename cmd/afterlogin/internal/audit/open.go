package audit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/keyring"
)

// lockFile keeps a second log out of the directory.
const lockFile = "lock"

// New opens the log in the directory, or begins one, and follows the events of the authority's store from the last one
// that it has. A log that was damaged meanwhile is gone on with behind the damage, with an entry that says so; what a crash
// left of a last write is cut off. Errors: ErrInUse, keyring.ErrUnavailable, and what is wrong with the directory. A
// store that does not answer is no error: its events are followed when it does.
func New(o Options) (*Log, error) {
	l := &Log{
		o: o, log: o.Logger, now: o.Now, records: make(chan *pending), events: make(chan *pending), begun: make(chan struct{}), drain: make(chan struct{}),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.o.Keep == 0 {
		l.o.Keep = DefaultKeep
	}
	if l.o.segmentSize == 0 {
		l.o.segmentSize = segmentSize
	}
	if l.o.Node == "" {
		l.o.Node, _ = os.Hostname()
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	var err error
	if l.lock, err = os.OpenFile(filepath.Join(o.Dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if hold(l.lock) != nil {
		l.lock.Close()
		return nil, fmt.Errorf("%w: %s", ErrInUse, o.Dir)
	}
	l.stop, l.cancel = context.WithCancel(context.Background())
	w := &writer{Log: l}
	first, err := w.open()
	if err != nil {
		l.cancel()
		l.lock.Close()
		return nil, fmt.Errorf("audit: %w", err)
	}
	for _, e := range first {
		l.log.Log(l.stop, level(e.Type), "audit log: "+e.Detail, "dir", o.Dir, "type", e.Type)
		w.batch = append(w.batch, &pending{entry: e})
	}
	cursor := w.state.cursor
	l.writer.Go(w.run)
	l.follower.Go(func() { l.follow(cursor) })
	l.follower.Go(func() { l.heads.run(l) })
	select {
	case <-l.begun:
	case <-time.After(storeTimeout): // its events are followed when it answers
	}
	return l, nil
}

func level(typ string) slog.Level {
	switch typ {
	case TypeDamaged:
		return slog.LevelError
	case TypeTorn, TypeGap:
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// open finds out where the log stands, and returns the entries that are to be written first.
func (w *writer) open() (first []Entry, err error) {
	l, dir := w.Log, w.o.Dir
	numbers, err := listSegments(dir)
	if err != nil {
		return nil, err
	}
	at, headErr := readHead(dir, w.o.Keys)
	if errors.Is(headErr, keyring.ErrUnavailable) {
		return nil, headErr
	}
	note := func(typ, format string, args ...any) {
		first = append(first, Entry{At: w.now(), Type: typ, Detail: fmt.Sprintf(format, args...)})
	}
	if len(numbers) == 0 && missing(headErr) {
		l.keys = newLineKeys(w.o.Keys, rand.Text())
		w.state = state{hash: noHash}
		w.floor = floor{Segment: 1, First: 1, Prev: noHash}
		note(TypeBegan, "the log %s begins", l.keys.id)
		return first, nil
	}
	id, first0, err := identify(dir, w.o.Keys, at, headErr, numbers)
	if err != nil {
		return nil, err
	}
	l.keys = newLineKeys(w.o.Keys, id)
	w.floor = at.Floor
	if headErr != nil {
		w.floor = first0
	}
	damage, cutOff := "", ""
	if headErr != nil {
		damage = headFile + ": " + headErr.Error()
	}
	w.state = state{segment: at.Segment, size: at.Size, seq: at.Seq, hash: at.Hash, cursor: at.Cursor, key: at.Key}
	if headErr != nil {
		w.state = state{hash: noHash}
	}
	if headErr == nil && len(numbers) > 0 && numbers[len(numbers)-1] == at.Segment+1 {
		// A crash between the first lines of a segment and the head that tells of them.
		path := segmentPath(dir, at.Segment+1)
		torn, err := w.tornSegment(path, at)
		if err != nil {
			return nil, err
		}
		if torn {
			cutOff = filepath.Base(path) + ", which has no good first line"
			if err := os.Remove(path); err != nil {
				return nil, err
			}
			numbers = numbers[:len(numbers)-1]
		}
	}
	if len(numbers) == 0 {
		damage = or(damage, "all segments are missing")
	} else {
		last := numbers[len(numbers)-1]
		t, err := readTail(dir, last, l.keys, at)
		if errors.Is(err, keyring.ErrUnavailable) {
			return nil, err
		}
		name := filepath.Base(segmentPath(dir, last))
		switch {
		case err != nil:
			damage = or(damage, fmt.Sprintf("%s: %v", name, err))
		case damage == "" && last < at.Segment:
			damage = fmt.Sprintf("the segments behind %s are missing", name)
		case damage == "" && last > at.Segment+1, damage == "" && last == at.Segment && !t.passed:
			damage = fmt.Sprintf("%s does not go on to where %s says that the log ends", name, headFile)
		case damage == "" && t.newest > t.state.seq+1:
			damage = fmt.Sprintf("%s has %s behind entry %d, and genuine lines from later behind that", name, t.bad, t.state.seq)
		case damage == "" && t.bad != "":
			if err := os.Truncate(segmentPath(dir, last), t.state.size); err != nil {
				return nil, err
			}
			cutOff = or(cutOff, fmt.Sprintf("%d bytes at the end of %s: %s", t.rest, name, t.bad))
			w.state = t.state
		case damage == "":
			w.state = t.state
		}
		if damage != "" {
			if err == nil && t.state.seq >= w.state.seq {
				w.state = t.state
			} else if err == nil && t.state.cursor != "" {
				w.state.cursor = t.state.cursor // what is missing is followed once more
			}
			w.state.segment, w.fresh = max(last, at.Segment), true
		}
	}
	ctx, cancel := context.WithTimeout(l.stop, storeTimeout)
	defer cancel()
	if err := l.heads.load(ctx, l); err != nil {
		l.log.Warn("audit log: the store cannot say now how long the log was, and is asked again", "err", err)
	} else if h := l.heads.last; h != nil && h.Seq > w.state.seq {
		damage = or(damage, fmt.Sprintf("the store knows of entry %d, and the files end at %d", h.Seq, w.state.seq))
		w.state.seq, w.state.hash, w.fresh = h.Seq, h.Hash, true
	}
	if cutOff != "" {
		note(TypeTorn, "cut off what was no part of the log yet: %s", cutOff)
	}
	if damage != "" {
		note(TypeDamaged, "the log was damaged before it was opened: %s", damage)
	}
	if err := w.removeOld(numbers); err != nil {
		return nil, err
	}
	if l.segments, err = loadSegments(dir, l.keys, w.floor.Segment); err != nil {
		return nil, err
	}
	if found := w.newlyDamaged(at.Damaged); len(found) > 0 {
		note(TypeDamaged, "there is no genuine first line in %s: nothing of that is believed", strings.Join(found, ", "))
	}
	if n := len(l.segments); n > 0 && l.segments[n-1].number == w.state.segment && !w.fresh {
		l.segments[n-1].size = w.state.size
	}
	l.at, l.opened = w.state, w.state
	return first, nil
}

// tornSegment reports whether the segment behind the one of the head is what a crash left of the write that was to begin
// it: it has no genuine first line, and nothing in it is from later.
func (w *writer) tornSegment(path string, at head) (bool, error) {
	_, err := checkHeader(path, at.Segment+1, func(string) *lineKeys { return w.keys })
	if err == nil || errors.Is(err, keyring.ErrUnavailable) {
		return false, err
	}
	seq := at.Seq
	if t, err := readTail(w.o.Dir, at.Segment, w.keys, at); err == nil {
		seq = t.state.seq // the head may be from before the last write there
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	newest, err := w.keys.newestBatch(f, 0)
	return newest <= seq+1, err
}

// removeOld removes what a crash left of segments that were removed because of their age. What is no segment of the log
// stays for people to look at.
func (w *writer) removeOld(numbers []uint64) error {
	for _, n := range numbers {
		if n >= w.floor.Segment {
			break
		}
		path := segmentPath(w.o.Dir, n)
		if _, err := checkHeader(path, n, func(string) *lineKeys { return w.keys }); err != nil {
			continue
		}
		if err := os.Remove(path); err != nil && !missing(err) {
			return err
		}
	}
	return nil
}

// maxDamaged is how many damaged segments the head names. More are told of at each start.
const maxDamaged = 1000

// newlyDamaged returns the names of the segments without a genuine first line that the log does not tell of yet, some of
// them at most, and notes for the head that it does.
func (w *writer) newlyDamaged(known []uint64) (names []string) {
	for _, s := range w.segments {
		if !s.bad {
			continue
		}
		if len(w.damaged) < maxDamaged {
			w.damaged = append(w.damaged, s.number)
		}
		switch {
		case slices.Contains(known, s.number):
		case len(names) < 10:
			names = append(names, filepath.Base(segmentPath(w.o.Dir, s.number)))
		case len(names) == 10:
			names = append(names, "others")
		}
	}
	return names
}

// identify returns the id of the log whose segments these are, and where it begins, from the head or from the first
// genuine first line.
func identify(dir string, ring *keyring.Ring, at head, headErr error, numbers []uint64) (id string, from floor, err error) {
	if headErr == nil {
		return at.Log, at.Floor, nil
	}
	for _, n := range numbers {
		h, err := checkHeader(segmentPath(dir, n), n, func(id string) *lineKeys { return newLineKeys(ring, id) })
		if err == nil {
			return h.Log, floor{Segment: n, First: h.First, Prev: h.Prev}, nil
		}
		if errors.Is(err, keyring.ErrUnavailable) {
			return "", floor{}, err
		}
	}
	n := numbers
	next := uint64(1)
	if len(n) > 0 {
		next = n[len(n)-1] + 1
	}
	return rand.Text(), floor{Segment: next, First: 1, Prev: noHash}, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
