package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// pending is an entry that waits to be made durable. done is nil if nobody waits for it.
type pending struct {
	entry Entry
	done  chan error
}

// failure is an ErrFailing and its cause.
type failure struct{ cause error }

func (f *failure) Error() string        { return ErrFailing.Error() + ": " + f.cause.Error() }
func (f *failure) Unwrap() error        { return f.cause }
func (f *failure) Is(target error) bool { return target == ErrFailing }

// writer is the one goroutine that writes the log. Its fields are its own; what others may see is in the Log.
type writer struct {
	*Log
	state  state
	floor  floor
	file   *os.File
	dirty  bool // the file may have more in it than the state says
	fresh  bool // go on in a new segment
	turned bool // one was begun: there may be one that is too old
	batch  []*pending

	segmentFile os.FileInfo // which file the segment is, once it was opened
	damaged     []uint64    // segments without a genuine first line
}

// run makes what arrives durable, until drain is closed and everything has been tried once more.
func (w *writer) run() {
	due := time.NewTimer(0) // what New has to say
	defer due.Stop()
	old := time.NewTicker(retainEvery)
	defer old.Stop()
	again := false // due is for the next try, and not to be put off by what arrives
	for {
		events := w.events
		if len(w.batch) >= maxBatch {
			events = nil // the follower waits, and the store keeps them
		}
		select {
		case p := <-w.records:
			w.batch = append(w.batch, p)
			w.flush()
		case p := <-events:
			if len(w.batch) == 0 && w.Failing() == nil {
				due.Reset(gather)
			}
			w.wait(p)
			if len(w.batch) >= maxBatch && w.Failing() == nil {
				w.flush()
			}
		case <-due.C:
			again = false
			w.flush()
		case <-old.C:
			w.retain()
		case <-w.drain:
			w.flush()
			if w.file != nil {
				w.file.Close()
			}
			return
		}
		if w.turned {
			w.turned = false
			w.retain()
		}
		switch failing := w.Failing() != nil; {
		case failing && !again:
			due.Reset(retry)
			again = true
		case !failing:
			again = false
		}
	}
}

// wait adds an event to the batch.
func (w *writer) wait(p *pending) {
	w.batch = append(w.batch, p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.oldest.IsZero() {
		w.oldest = w.now()
	}
}

// flush makes the batch durable, together with what has arrived meanwhile, and tells who waits for it. What nobody waits
// for stays in the batch if that fails.
func (w *writer) flush() {
	for more := true; more && len(w.batch) < maxBatch; {
		select {
		case p := <-w.records:
			w.batch = append(w.batch, p)
		default:
			more = false
		}
	}
	w.mu.Lock()
	failed, since := w.failure, w.failing
	w.mu.Unlock()
	if len(w.batch) == 0 && failed == nil {
		return
	}
	var own []*pending
	if failed != nil { // is that over? The entry that says so finds out
		own = append(own, &pending{entry: Entry{At: w.now(), Type: TypeFailed, Detail: fmt.Sprintf("the log could not be written since %s: %v", stamp(since), errors.Unwrap(failed))}})
	}
	lost := w.lost()
	if lost != "" {
		own = append(own, &pending{entry: Entry{At: w.now(), Type: TypeDamaged, Detail: "the log was damaged while it was in use: " + lost}})
	}
	w.batch = slices.Insert(w.batch, 0, own...)
	err := w.write(lost != "")
	if err != nil {
		w.batch = slices.Delete(w.batch, 0, len(own))
	} else if lost != "" {
		w.log.Error("audit log: it goes on in a new segment: " + lost)
	}
	w.mu.Lock()
	switch {
	case err == nil && w.failure != nil:
		w.log.Warn("audit log: it can be written again", "failed_for", w.now().Sub(w.failing).String())
		w.failing, w.failure = time.Time{}, nil
	case err != nil && w.failure == nil:
		w.log.Error("audit log: it cannot be written", "err", err)
		w.failing = w.now()
	}
	if err != nil {
		err = &failure{err}
		w.failure = err
	} else {
		w.oldest = time.Time{}
	}
	w.mu.Unlock()
	left := w.batch[:0]
	for _, p := range w.batch {
		switch {
		case p.done != nil:
			p.done <- err
		case err != nil:
			left = append(left, p)
		}
	}
	clear(w.batch[len(left):])
	w.batch = left
}

// lost says what happened to the segment that is written to, if it is not there any more as it was left: what is written
// into a file that has been removed is in no log. It is empty if nothing did.
func (w *writer) lost() string {
	if w.state.segment == 0 || w.fresh {
		return ""
	}
	path := segmentPath(w.o.Dir, w.state.segment)
	info, err := os.Stat(path)
	switch name := filepath.Base(path); {
	case missing(err):
		return name + " is gone"
	case err != nil:
		return "" // whoever writes will know
	case w.segmentFile != nil && !os.SameFile(info, w.segmentFile):
		return name + " is another file"
	case info.Size() < w.state.size:
		return fmt.Sprintf("%s has %d bytes, and had %d", name, info.Size(), w.state.size)
	}
	return ""
}

// write appends the batch to the segment, or to a new one, and replaces the head. If it fails nothing of it counts. lost
// says that the segment cannot be gone on with.
func (w *writer) write(lost bool) (err error) {
	next, now := w.state, w.now().UTC()
	key := w.o.Keys.Active(purpose)
	begin := next.segment == 0 || w.fresh || lost || next.size >= w.o.segmentSize || next.key != key.ID ||
		next.at.UTC().Format(time.DateOnly) != now.Format(time.DateOnly)
	k, err := w.keys.key(key.ID)
	if err != nil {
		return err
	}
	var text []byte
	var seg segment
	batch := next.seq + 1
	if begin {
		installation := w.o.Keys.Installation()
		h := header{
			Layout: layout, Log: w.keys.id, Installation: hex.EncodeToString(installation[:]), Node: cutText(w.o.Node, maxText), Segment: next.segment + 1,
			First: next.seq + 1, Key: key.ID, At: now, Cursor: next.cursor, From: next.from, To: next.to, Prev: next.hash,
		}
		if w.fresh || lost {
			h.From, h.To = time.Time{}, time.Time{}
		}
		next = state{segment: h.Segment, seq: next.seq, cursor: next.cursor, key: key.ID, at: now}
		if text, next.hash, err = k.appendLine(text, kindSegment, h.Prev, h); err != nil {
			return err
		}
		seg = segment{number: h.Segment, first: h.First, prev: h.Prev, at: h.At}
	}
	for _, p := range w.batch {
		e := p.entry
		e.cut()
		e.Seq, e.Node, e.Batch, e.Prev, e.Hash = next.seq+1, cutText(w.o.Node, maxText), batch, next.hash, ""
		if text, next.hash, err = k.appendLine(text, kindEntry, e.Prev, e); err != nil {
			return err
		}
		next.seq = e.Seq
		if e.Cursor != "" {
			next.cursor = e.Cursor
		}
		next.span(e.At)
	}
	f, err := w.place(next, begin)
	if err != nil {
		return err
	}
	from := next.size
	next.size += int64(len(text))
	_, err = f.WriteAt(text, from)
	if err = errors.Join(err, f.Sync()); err == nil && begin {
		err = syncDir(w.o.Dir)
	}
	if err == nil {
		err = w.headOf(next, w.floor).write(w.o.Dir, w.keys)
	}
	if err != nil {
		f.Close()
		if begin {
			os.Remove(segmentPath(w.o.Dir, next.segment)) // if not, it is written over
		} else {
			w.file, w.dirty = nil, true
		}
		return err
	}
	if begin && w.file != nil {
		w.file.Close()
	}
	before := w.state
	w.file, w.state, w.dirty, w.fresh = f, next, false, false
	w.segmentFile, _ = f.Stat()
	w.mu.Lock()
	if n := len(w.segments) - 1; n >= 0 && w.segments[n].number == before.segment && begin {
		w.segments[n].from, w.segments[n].to, w.segments[n].bad = before.from, before.to, w.segments[n].bad || lost
	}
	if begin {
		w.segments = append(w.segments, seg)
	}
	n := len(w.segments) - 1
	w.segments[n].size, w.segments[n].from, w.segments[n].to = next.size, next.from, next.to
	w.at = next
	w.mu.Unlock()
	if before.cursor == "" && next.cursor != "" {
		w.ready()
	}
	w.turned = begin
	return nil
}

// place opens the file that is written to, as long as the state says that it is.
func (w *writer) place(next state, begin bool) (*os.File, error) {
	path := segmentPath(w.o.Dir, next.segment)
	if begin && w.dirty && w.lost() == "" {
		if err := w.undo(); err != nil {
			return nil, err
		}
	}
	if begin {
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	if w.file != nil && !w.dirty {
		return w.file, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(next.size); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// undo takes out of the segment what a write left there that failed, since the log goes on in another.
func (w *writer) undo() error {
	f, err := os.OpenFile(segmentPath(w.o.Dir, w.state.segment), os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(w.state.size), f.Sync(), f.Close())
}

// retain removes segments in which all entries are too old, as the genuine first line of a later one says. The head tells
// where the log begins before they go, and an entry says what went.
func (w *writer) retain() {
	if w.o.Keep < 0 || !w.hold.TryLock() {
		return // whoever reads all of it is let finish; there is a next time
	}
	defer w.hold.Unlock()
	limit := w.now().Add(-w.o.Keep)
	n := 0 // of a segment that is too old, all entries of those before it are
	for i, s := range w.segments {
		if !s.bad && s.at.Before(limit) {
			n = i
		}
	}
	if n == 0 {
		return
	}
	gone, begins := w.segments[:n], w.segments[n]
	first := w.floor.First
	from := floor{Segment: begins.number, First: begins.first, Prev: begins.prev}
	if err := w.headOf(w.state, from).write(w.o.Dir, w.keys); err != nil {
		w.log.Warn("audit log: old segments stay for now", "err", err)
		return
	}
	w.floor = from
	w.damaged = slices.DeleteFunc(w.damaged, func(n uint64) bool { return n < from.Segment })
	for _, g := range gone {
		if err := os.Remove(segmentPath(w.o.Dir, g.number)); err != nil && !missing(err) {
			w.log.Warn("audit log: an old segment could not be removed", "err", err)
		}
	}
	detail := fmt.Sprintf("entries %d to %d were removed: all of them were written before %s", first, begins.first-1, limit.UTC().Format(time.RFC3339))
	w.mu.Lock()
	w.segments = append([]segment(nil), w.segments[n:]...)
	w.mu.Unlock()
	w.log.Info("audit log: " + detail)
	w.batch = append(w.batch, &pending{entry: Entry{At: w.now(), Type: TypeRemoved, Detail: detail}})
	w.flush()
}
