// Package audit keeps the audit log: what happened, who did it and when, in files that nobody can change unnoticed.
//
// A log is a directory of segments, files with one entry on each line, as JSON. Every line carries a keyed hash over
// itself and the line before it, so that none can be changed, taken out, added or moved; how long the log is, is kept
// under a key as well, beside it and in the store. It follows the events of the store ([afterlogin.Authority.Watch]) from
// the last one that it has, and takes what is no event ([Log.Record]). [Verify] says whether all of it is as it was written.
//
// Start with [New]. What a log looks like on disk, and why, is in docs/design/0015-audit-log.md.
package audit

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
)

// Limits of a log.
const (
	// DefaultKeep is for how long entries are kept, if nothing else is said.
	DefaultKeep = 400 * 24 * time.Hour
	// gather is how long an event may wait for others, to be made durable together with them.
	gather = 100 * time.Millisecond
	// maxBatch is how many entries are made durable together.
	maxBatch = 1000
	// retry is how long the log waits before it tries again what failed.
	retry = time.Second
	// storeHeadEvery is how often the store is told how long the log is.
	storeHeadEvery = 10 * time.Second
	// retainEvery is how often the log looks for segments that are too old.
	retainEvery = time.Hour
	// segmentSize is after how many bytes a new segment begins; so does one with each day (UTC), and with each new key.
	segmentSize = 32 << 20
	// maxText is the greatest size of a text in an entry, in bytes; what is over that is cut.
	maxText = 512
	// maxLine is the greatest size of a line. It is not reached by entries of maxText.
	maxLine = 64 << 10
)

// Types of entries that are about the log itself. The others are the types of events, and "api." with the id of an operation.
const (
	TypeBegan     = "audit.began"     // the first entry of a log
	TypeFollowing = "audit.following" // events are in the log from here on
	TypeGap       = "audit.gap"       // events are missing here: the store had dropped them before they were read
	TypeTorn      = "audit.torn"      // what a crash left of a last write was cut off
	TypeDamaged   = "audit.damaged"   // the log was found damaged, and goes on behind the damage
	TypeFailed    = "audit.failed"    // the log could not be written for a while; events from then follow
	TypeRemoved   = "audit.removed"   // entries were removed because of their age
)

// An Entry is one line of the log. It holds no secret.
type Entry struct {
	Seq  uint64    `json:"seq"` // 1 is the first
	At   time.Time `json:"at"`  // when it happened; entries are in the order in which they were written
	Type string    `json:"type"`
	// Actor is who did it: the handle of an API key, console/NAME, self; empty if that is not known.
	Actor      string `json:"actor,omitempty"`
	Via        string `json:"via,omitempty"`     // of an act in the console: the session that it was made with
	Session    string `json:"session,omitempty"` // what it is about: ses_…, key_…, grant_…
	Root       string `json:"root,omitempty"`    // what that lives under
	Tenant     uint32 `json:"tenant,omitempty"`
	Subject    string `json:"subject,omitempty"`
	Reason     string `json:"reason,omitempty"`
	Detail     string `json:"detail,omitempty"`     // in plain words
	Except     string `json:"except,omitempty"`     // of a subject.signed_out: the session that was spared
	Everything bool   `json:"everything,omitempty"` // of a subject.signed_out: API keys ended, too
	Target     string `json:"target,omitempty"`     // of an act: what it is about, if that is neither a session nor a subject
	Status     int    `json:"status,omitempty"`     // of an act: the HTTP status of its answer
	Request    string `json:"request,omitempty"`    // of an act: the id of its request
	Cursor     string `json:"cursor,omitempty"`     // of an event: its place in the store's stream
	Node       string `json:"node,omitempty"`       // the server whose log this is
	Batch      uint64 `json:"batch,omitempty"`      // seq of the first entry that was made durable together with this one
	Prev       string `json:"prev"`                 // the hash of the line before
	Hash       string `json:"hash,omitempty"`
}

// Options configure New. Authority, Keys and Dir are required.
type Options struct {
	// Authority is whose events are followed, and whose store keeps how long the log is.
	Authority *afterlogin.Authority
	// Keys are the installation's. The log's keys are derived from those that seal records.
	Keys *keyring.Ring
	// Dir is the log's directory, which is made if it is missing. One log at a time has it.
	Dir string
	// Node names the server, for people. Empty is the name of the machine.
	Node string
	// Keep is for how long entries are kept. Zero is DefaultKeep; negative is for ever.
	Keep   time.Duration
	Logger *slog.Logger     // nil discards; never gets an entry
	Now    func() time.Time // nil is time.Now

	segmentSize int64 // of a test; zero is segmentSize
}

// Errors of logs.
var (
	// ErrFailing is returned by Record when the entry could not be made durable: no room, no permission, a broken disk. It
	// may be in the log nevertheless.
	ErrFailing = errors.New("the audit log cannot be written")
	// ErrClosed is returned by a log that was closed.
	ErrClosed = errors.New("the audit log is closed")
	// ErrInUse is returned by New for a directory that another log has.
	ErrInUse = errors.New("the directory of the audit log is in use by another server")
	// ErrNoLog is returned by Verify for a directory without a log.
	ErrNoLog = errors.New("there is no audit log")
	// ErrBusy is returned by Log.Verify while another verification of the log runs.
	ErrBusy = errors.New("the audit log is being verified already")
	// ErrBadCursor is returned for a cursor that is not one of this log.
	ErrBadCursor = errors.New("the cursor is not one of this log")
)

// A Log is an open audit log. It is safe for concurrent use. Make it with New and end it with Close.
type Log struct {
	o    Options
	log  *slog.Logger
	now  func() time.Time
	keys *lineKeys
	lock *os.File

	records chan *pending
	events  chan *pending
	begun   chan struct{} // closed by ready
	once    sync.Once     // of ready

	stop     context.Context // ends with Close
	cancel   context.CancelFunc
	follower sync.WaitGroup
	drain    chan struct{} // closed: the writer writes what it has and ends
	writer   sync.WaitGroup
	closing  sync.Once
	closeErr error

	// hold keeps segments from being removed while somebody reads all of them.
	hold      sync.RWMutex
	verifying sync.Mutex
	heads     storeHeads
	opened    state // where the log stood when it was opened

	mu       sync.Mutex // guards what follows; taken for moments only
	at       state      // what is durable
	segments []segment  // in order
	failing  time.Time  // since when; zero: it is not
	failure  error
	oldest   time.Time // when the oldest event arrived that waits; zero: none does
	deaf     error     // why the store's events cannot be read now; nil: they can
	closed   bool
}

// Stats tell how a log does.
type Stats struct {
	Seq      uint64 // of the last durable entry
	Segments int
	Bytes    int64
	// Lag is how long the oldest event has been waiting that has arrived and is not durable yet.
	Lag time.Duration
	// FailingSince is since when the log cannot be written, and Failure why. Zero: it can.
	FailingSince time.Time
	Failure      error
	// Deaf is why the store's events cannot be read now.
	Deaf error
	// StoreSeq is the last entry that the store knows of.
	StoreSeq uint64
}

// Stats returns how the log does now.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Stats{Seq: l.at.seq, Segments: len(l.segments), FailingSince: l.failing, Failure: l.failure, Deaf: l.deaf, StoreSeq: l.heads.known.Load()}
	for _, g := range l.segments {
		s.Bytes += g.size
	}
	if !l.oldest.IsZero() {
		s.Lag = max(0, l.now().Sub(l.oldest))
	}
	return s
}

// Failing returns why the log cannot be written now, an ErrFailing; nil if it can, as far as is known.
func (l *Log) Failing() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	return l.failure
}

// Record writes an entry that is no event of the store: an act of an administrator. Seq, Node, Batch and the hashes are the
// log's; At is now, if it is zero. It returns nil only when the entry is durable. Errors: ErrFailing, ErrClosed, or the
// context's, and then it may become durable nevertheless.
func (l *Log) Record(ctx context.Context, e Entry) error {
	if e.At.IsZero() {
		e.At = l.now()
	}
	p := &pending{entry: e, done: make(chan error, 1)}
	select {
	case l.records <- p:
	case <-l.drain:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the following, writes what has arrived, tells the store how long the log is, and returns when all that has
// ended. What could not be written is followed again when the log is opened the next time.
func (l *Log) Close() error {
	l.closing.Do(func() {
		l.cancel()
		l.follower.Wait()
		close(l.drain)
		l.writer.Wait()
		l.heads.put(context.Background(), l)
		l.mu.Lock()
		l.closed = true
		l.closeErr = l.failure
		l.mu.Unlock()
		l.lock.Close()
	})
	return l.closeErr
}

// newEntry is the entry of an event.
func newEntry(e afterlogin.Event) Entry {
	return Entry{
		At: e.At, Type: e.Type, Actor: e.Actor, Session: string(e.Session), Root: string(e.Root), Tenant: e.Tenant, Subject: e.Subject,
		Reason: string(e.Reason), Detail: e.Detail, Except: string(e.Except), Everything: e.Everything, Cursor: e.Cursor,
	}
}

// cut makes the texts of an entry ones that a line can hold.
func (e *Entry) cut() {
	for _, s := range []*string{&e.Type, &e.Actor, &e.Via, &e.Session, &e.Root, &e.Subject, &e.Reason, &e.Detail, &e.Except, &e.Target, &e.Request, &e.Node} {
		*s = cutText(*s, maxText)
	}
	e.At = e.At.UTC()
}

// cutText returns at most n bytes of the text, whole characters only, as UTF-8.
func cutText(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
