// Package roster finds sessions: a compact index, in memory, of every session, API key and grant of an installation,
// made by one look through the store and kept up by the events of all servers. It owns what makes a search quick, and
// never what is true: whatever it shows was read from the store a moment ago and judged by the query's own Match. While
// there is no index (it is being made, it would be too large, it is turned off) the same search goes through a bounded
// part of the store and says so.
//
// The index is each server's own. Start with [New]; [Roster.Search] makes the index at the first need.
package roster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
)

// DefaultMax is how many rows the index has at most, if Options do not say. It takes about 120 bytes a row.
const DefaultMax = 2_000_000

// Options configure New. Authority is required.
type Options struct {
	Authority *afterlogin.Authority
	// Max is how many rows the index may have. Zero is DefaultMax; negative turns the index off: every search goes through
	// the store.
	Max int
	// Eager makes the index at once, not at the first need.
	Eager  bool
	Logger *slog.Logger     // nil discards
	Now    func() time.Time // the authority's clock; nil means time.Now
}

// A State says how a search finds what it shows.
type State string

// The states.
const (
	Off      State = "off"      // there is no index, by the settings
	Building State = "building" // the index is being made
	Ready    State = "ready"
	TooMany  State = "too-many" // there are more rows than the settings allow
)

// Roster is the index and its goroutines. It is safe for concurrent use.
type Roster struct {
	authority *afterlogin.Authority
	max       int
	log       *slog.Logger
	now       func() time.Time

	start   sync.Once
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	passes  chan struct{} // how many searches look through all rows at once

	mu       sync.RWMutex
	table    *table
	state    State
	expected int       // rows that the scan under way will find, as far as one can tell; 0: nobody knows
	scanned  int       // by the scan under way
	usesAsOf time.Time // when the last full scan began: uses that were no event are as of then
	asOf     time.Time // up to when events have been followed
	lagging  bool      // there is something that was heard of and not looked up yet
	gap      bool      // events were missed: until a scan has ended that began after it, rows may be missing or out of date
	gaps     int       // how often
	scanning bool
	signed   map[string]bool // subjects that were signed out during the scan

	dirty  dirty
	rescan chan struct{} // asks for a scan at once

	// counted is the last answer of Counts.
	countMu sync.Mutex
	counted *Counts
	countAt time.Time
}

// ErrNoAuthority is returned by New.
var ErrNoAuthority = errors.New("roster: Options.Authority is nil")

// New returns a roster. Its goroutines begin with the first search, or at once with Options.Eager; Close ends them.
func New(o Options) (*Roster, error) {
	if o.Authority == nil {
		return nil, ErrNoAuthority
	}
	r := &Roster{authority: o.Authority, max: o.Max, log: o.Logger, now: o.Now, state: Building, passes: make(chan struct{}, 2), rescan: make(chan struct{}, 1)}
	if r.max == 0 {
		r.max = DefaultMax
	}
	if r.max < 0 {
		r.state = Off
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.now == nil {
		r.now = time.Now
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.table = newTable()
	r.dirty.wake = make(chan struct{}, 1)
	if o.Eager {
		r.need()
	}
	return r, nil
}

// Close ends the roster's goroutines and returns when they have ended. Searches go on through the store.
func (r *Roster) Close() error {
	r.start.Do(func() {}) // nothing begins any more
	r.stop()
	r.running.Wait()
	return nil
}

// need begins to make the index, once.
func (r *Roster) need() {
	if r.max < 0 {
		return
	}
	r.start.Do(func() { r.running.Go(r.run) })
}

// Progress says what an answer was made from.
type Progress struct {
	State State
	// Rows is how many rows the index has. While it is being made: so far.
	Rows int
	// Percent is how far the making is; 0 if that cannot be told.
	Percent int
	Max     int
	// AsOf is up to when changes are in the index, and UsesAsOf up to when last uses are at least.
	AsOf, UsesAsOf time.Time
	// Missed says that changes since AsOf were missed: until the store is looked through, rows may be missing.
	Missed bool
}

// Progress returns the state of the index.
func (r *Roster) Progress() Progress {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.progress()
}

func (r *Roster) progress() Progress {
	p := Progress{State: r.state, Rows: r.table.rows, Max: max(r.max, 0), AsOf: r.asOf, UsesAsOf: r.usesAsOf, Missed: r.gap}
	if r.state == Ready && !r.lagging && !r.gap {
		p.AsOf = r.now()
	}
	if r.state == Building && r.expected > 0 {
		p.Percent = min(99, r.scanned*100/r.expected)
	}
	return p
}

// Bytes returns about how much memory the index takes.
func (r *Roster) Bytes() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.table.bytes()
}
