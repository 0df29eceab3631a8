package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin"
)

// Realm is the list of entries in the store that know of audit logs: a permanent one for each log, which says that there
// is one, and temporary ones of the same name, which say how long it is. Those are temporary since changing a permanent one
// is an event, which would be in the log, which would then be longer.
const Realm = "audit-heads"

const (
	storeTimeout = 5 * time.Second
	// headUntil is how long an entry about a log's length is kept in the store, and headAgain with how much of it left
	// the next one is made.
	headUntil = 399 * 24 * time.Hour
	headAgain = 200 * 24 * time.Hour
)

// A StoreHead is what the store knows of how long a log is.
type StoreHead struct {
	Log  string    `json:"log"`
	Node string    `json:"node"`
	Seq  uint64    `json:"seq"`
	Hash string    `json:"hash"`
	At   time.Time `json:"at"` // when the store was told
}

// storeHeads tells the store, now and then, how long the log is.
type storeHeads struct {
	mu    sync.Mutex
	entry *afterlogin.Entry // that is changed; nil: none yet
	last  *StoreHead        // what the store knows; nil: nothing, or that is not known
	known atomic.Uint64     // Seq of last, for those who cannot wait: mu is held while the store is asked
	// compared says that what the store knew was compared with the log, so that it may be told something else. A store
	// that did not answer when the log was opened is told nothing before: it may be the only one that knows of what is
	// missing.
	compared bool
}

// know notes what the store knows.
func (s *storeHeads) know(last *StoreHead) {
	s.last = last
	if last != nil {
		s.known.Store(last.Seq)
	}
}

// readStoreHead returns what the store knows of the log, nil if it knows nothing, and the entry that says so until the
// latest day.
func readStoreHead(ctx context.Context, a *afterlogin.Authority, log string) (last *StoreHead, entry *afterlogin.Entry, err error) {
	all, err := a.TemporaryEntries(ctx, 0, Realm, log, headUntil+24*time.Hour)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range all {
		var h StoreHead
		if err := json.Unmarshal(e.Detail, &h); err != nil || h.Log != log {
			return nil, nil, fmt.Errorf("what the store says of the log %s cannot be read", log)
		}
		if last == nil || h.Seq > last.Seq {
			last = &h
		}
		entry = e // the last to end comes last
	}
	return last, entry, nil
}

// load reads what the store knows.
func (s *storeHeads) load(ctx context.Context, l *Log) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, entry, err := readStoreHead(ctx, l.o.Authority, l.keys.id)
	s.know(last)
	s.entry = entry
	return err
}

// compare asks the store what it knows and compares that with the log, once. If they do not agree the log says so, durably,
// before the store is told anything else. The error says that this was not possible.
func (s *storeHeads) compare(ctx context.Context, l *Log) error {
	if s.compared {
		return nil
	}
	last, entry, err := readStoreHead(ctx, l.o.Authority, l.keys.id)
	if err != nil {
		return err
	}
	what, err := l.contradicts(ctx, last)
	if err != nil {
		return err
	}
	if what != "" {
		if err := l.Record(ctx, Entry{Type: TypeDamaged, Detail: "the log was damaged before it was opened: " + what}); err != nil {
			return err
		}
		l.log.Error("audit log: " + what)
	}
	s.know(last)
	s.entry, s.compared = entry, true
	return nil
}

// contradicts says how the log, as it was opened, is another than the store knows; "" if it is not.
func (l *Log) contradicts(ctx context.Context, last *StoreHead) (string, error) {
	at := &l.opened
	switch {
	case last == nil, last.Seq == at.seq && last.Hash == at.hash:
		return "", nil
	case last.Seq > at.seq:
		return fmt.Sprintf("the store knows of entry %d, and the files ended at %d", last.Seq, at.seq), nil
	}
	hash, kept, err := l.archive().hashOf(ctx, last.Seq)
	if err != nil || !kept || hash == last.Hash {
		return "", err
	}
	return fmt.Sprintf("the store knows another line as entry %d", last.Seq), nil
}

// run tells the store until the log is closed.
func (s *storeHeads) run(l *Log) {
	ctx, cancel := context.WithTimeout(l.stop, storeTimeout)
	s.mu.Lock()
	s.compare(ctx, l) // or when it is told
	s.mu.Unlock()
	cancel()
	tick := time.NewTicker(storeHeadEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.put(l.stop, l)
		case <-l.stop.Done():
			return
		}
	}
}

// put tells the store how long the log is, if it does not know.
func (s *storeHeads) put(ctx context.Context, l *Log) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	l.mu.Lock()
	at := l.at
	l.mu.Unlock()
	if err := s.compare(ctx, l); err != nil {
		if l.stop.Err() == nil {
			l.log.Warn("audit log: the store cannot say how long the log was", "err", err)
		}
		return
	}
	if at.seq == 0 || s.last != nil && s.last.Seq == at.seq && s.last.Hash == at.hash {
		return
	}
	h := &StoreHead{Log: l.keys.id, Node: cutText(l.o.Node, maxText), Seq: at.seq, Hash: at.hash, At: l.now().UTC()}
	if err := s.write(ctx, l, h); err != nil {
		if l.stop.Err() == nil {
			l.log.Warn("audit log: the store could not be told how long the log is", "err", err)
		}
		return
	}
	s.know(h)
}

func (s *storeHeads) write(ctx context.Context, l *Log, h *StoreHead) error {
	detail, err := json.Marshal(h)
	if err != nil {
		return err
	}
	for try := 0; ; try++ {
		if s.entry != nil && s.entry.Until.Sub(l.now()) > headAgain {
			var changed *afterlogin.Entry
			changed, err = l.o.Authority.ChangeEntry(ctx, s.entry, detail)
			if err == nil {
				s.entry = changed
			}
		} else {
			var made *afterlogin.Entry
			made, err = l.o.Authority.AddEntry(ctx, afterlogin.EntryRequest{Realm: Realm, Name: l.keys.id, Detail: detail, Until: l.now().Add(headUntil)})
			if err == nil {
				s.entry = made
			}
		}
		if !errors.Is(err, afterlogin.ErrEntryChanged) && !errors.Is(err, afterlogin.ErrEntryExists) || try == 2 {
			return err
		}
		// Written by a call whose answer was lost, or by somebody who has a copy of the directory.
		var last *StoreHead
		if last, s.entry, err = readStoreHead(ctx, l.o.Authority, l.keys.id); err != nil {
			return err
		}
		if last != nil && last.Seq > h.Seq {
			return fmt.Errorf("another server writes a log of the same id, as far as entry %d: its directory was copied", last.Seq)
		}
	}
}

// An announcement is what the store keeps of a log for ever.
type announcement struct {
	Node string    `json:"node"`
	At   time.Time `json:"at"`
}

// announce tells the store that there is this log, which is an event.
func (l *Log) announce(ctx context.Context) error {
	detail, err := json.Marshal(announcement{cutText(l.o.Node, maxText), l.now().UTC()})
	if err != nil {
		return err
	}
	_, err = l.o.Authority.AddEntry(ctx, afterlogin.EntryRequest{Realm: Realm, Name: l.keys.id, Detail: detail})
	if !errors.Is(err, afterlogin.ErrEntryExists) {
		return err
	}
	e, err := l.o.Authority.Entry(ctx, 0, Realm, l.keys.id)
	if err == nil {
		_, err = l.o.Authority.ChangeEntry(ctx, e, detail)
	}
	return err
}
