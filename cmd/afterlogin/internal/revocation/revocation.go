// Package revocation ends sessions by a query, in two steps and with a way back: a job counts what the query means and
// shows examples; whoever confirms the number has them frozen, at once and exactly these; for the time of the undo window
// they can be thawed again, and after it they are revoked. Jobs are entries of the store: they outlive a restart, all
// servers know them, and one server works at each, another if that one dies.
//
// Counting, freezing, revoking and thawing are looks through the whole store, never through an index. What a job has
// frozen is marked in the sessions' own records, by the reason of the freeze (see [Job.Reason]).
//
// Start with [New]; [Revocations.Create] makes a job.
package revocation

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
)

// Options configure New. Authority is required; the zero value of everything else works.
type Options struct {
	Authority *afterlogin.Authority
	// Parallel is how many sessions of one job are frozen or revoked at once; zero is 32.
	Parallel int
	// Rate is how many are frozen or revoked in a second at most, of all jobs together, so that sign-ins stay fast; zero is
	// 5,000.
	Rate int
	// Skew is how far this server's clock is ahead of the store's; nil: the store has none. While they differ by more than
	// 2 seconds nothing is confirmed here, and no undo window begins or ends: they go by the clock.
	Skew   func() time.Duration
	Node   string           // what this server is called, for people; empty: a random name
	Logger *slog.Logger     // nil discards
	Now    func() time.Time // the authority's clock; nil means time.Now
}

// How servers share the work.
const (
	beat      = time.Second      // how often the one that works says so, with the progress
	leaseTime = 15 * time.Second // how long it may be silent before another goes on
	pollIdle  = 10 * time.Second // how often a server looks whether there is something to do
	actTime   = leaseTime / 3    // how long freezing or ending one may take: with lease.held, it is over before another server goes on
	storeWait = 2 * time.Second  // after trouble with the store
	maxSkew   = 2 * time.Second  // of clocks
)

// Errors.
var (
	// ErrNoJob is returned for an id that names no job, or one from long ago.
	ErrNoJob = errors.New("no such revocation")
	// ErrState is returned, in a *StateError, for what a job cannot do in its state.
	ErrState = errors.New("the revocation is in another state")
	// ErrCount is returned, in a *CountError, if the number that was confirmed is not the one that was counted.
	ErrCount = errors.New("that is not the number that was counted")
	// ErrBusy is returned when too many jobs are under way.
	ErrBusy = errors.New("too many revocations are under way")
	// ErrEverything is returned for a query without a term that does not ask for everything by name.
	ErrEverything = errors.New("a query without a term means everything that is not over")
	// ErrUndo is returned for an undo window that is not between 0 and MaxUndo.
	ErrUndo = errors.New("the undo window is not between 0 and 24h")
)

// A StateError says what a job cannot do any more, or not yet. It is ErrState.
type StateError struct {
	State State
	Hint  string
}

func (e *StateError) Error() string {
	return fmt.Sprintf("the revocation is %s: %s", e.State, e.Hint)
}

// Is reports whether target is ErrState.
func (e *StateError) Is(target error) bool { return target == ErrState }

// A CountError says which number was counted. It is ErrCount.
type CountError struct{ Counted, Given, Tolerance int }

func (e *CountError) Error() string {
	return fmt.Sprintf("%d were counted, and %d confirmed, give or take %d: look at them again", e.Counted, e.Given, e.Tolerance)
}

// Is reports whether target is ErrCount.
func (e *CountError) Is(target error) bool { return target == ErrCount }

// Revocations are the jobs of an installation, and this server's work at them. It is safe for concurrent use.
type Revocations struct {
	authority *afterlogin.Authority
	parallel  int
	rate      int
	node      string
	log       *slog.Logger
	now       func() time.Time
	skew      func() time.Duration

	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	wake    chan struct{}

	mu     sync.Mutex
	mine   map[string]lane     // the jobs that this server works at, by id
	others map[string]sighting // the leases of others
	next   time.Time           // when the next session may be frozen or revoked
}

// sighting is when a lease was first seen as it is: a lease that does not change for leaseTime is nobody's. No clock is
// compared with another server's.
type sighting struct {
	version uint64
	at      time.Time
}

// New returns the jobs of the authority's store and begins to work at those that are not over. Close ends that.
func New(o Options) (*Revocations, error) {
	if o.Authority == nil {
		return nil, errors.New("revocation: Options.Authority is nil")
	}
	r := &Revocations{
		authority: o.Authority, parallel: o.Parallel, rate: o.Rate, node: o.Node, log: o.Logger, now: o.Now, skew: o.Skew,
		wake: make(chan struct{}, 1), mine: make(map[string]lane), others: make(map[string]sighting),
	}
	if r.parallel <= 0 {
		r.parallel = 32
	}
	if r.rate <= 0 {
		r.rate = 5000
	}
	b := make([]byte, 5)
	rand.Read(b)
	// Two servers may have been given one name.
	if suffix := base32.StdEncoding.EncodeToString(b); r.node == "" {
		r.node = suffix
	} else {
		r.node += "/" + suffix
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.skew == nil {
		r.skew = func() time.Duration { return 0 }
	}
	r.ctx, r.stop = context.WithCancel(context.Background())
	r.running.Go(r.run)
	return r, nil
}

// Close stops the work of this server and returns when its goroutines have ended. A job under way stays as it is, and is
// gone on with by another server, or by the next New.
func (r *Revocations) Close() error {
	r.stop()
	r.running.Wait()
	return nil
}

// A Request asks for a job.
type Request struct {
	Query  *query.Query
	All    bool           // a query without a term is meant
	Undo   *time.Duration // nil: DefaultUndo; 0: none, what is confirmed is revoked at once
	DryRun bool           // only count
	By     string         // who asks, for people
	Spared afterlogin.SessionID
	Rights Rights
}

// Create makes a job that counts. It is durable when it returns nil, and the counting goes on by itself. Errors:
// ErrEverything, ErrUndo, ErrBusy, afterlogin.ErrUnavailable.
func (r *Revocations) Create(ctx context.Context, q Request) (*Job, error) {
	if q.Query == nil {
		q.Query = &query.Query{}
	}
	undo := DefaultUndo
	if q.Undo != nil {
		undo = *q.Undo
	}
	switch {
	case len(q.Query.Terms()) == 0 && !q.All:
		return nil, ErrEverything
	case undo < 0 || undo > MaxUndo:
		return nil, ErrUndo
	}
	j := &Job{
		Query: q.Query.String(), All: q.All, DryRun: q.DryRun, Undo: undo, State: Counting, Created: r.now().UTC().Truncate(time.Millisecond),
		By: q.By, Rights: q.Rights,
	}
	if q.Spared != "" {
		j.Spared = []string{string(q.Spared)}
	}
	if err := r.add(ctx, j); err != nil {
		return nil, err
	}
	r.poke()
	return j, nil
}

// A Confirmation says what somebody has seen, and confirms.
type Confirmation struct {
	Count     int // the number
	Tolerance int // how far it may be off
	By        string
	Spared    afterlogin.SessionID // what it is confirmed with, which is left alone, too
	Rights    Rights               // the job has those that both have: who asked for it and who confirms it
}

// Confirm has the sessions of a counted job frozen, and after the undo window revoked. Count must be the counted one, give
// or take the tolerance, and no more than both together are ever ended: if more match by then, the job fails and thaws what
// it froze. Who signs in after the confirmation is not meant. Errors: ErrNoJob, ErrState, ErrCount,
// afterlogin.ErrUnavailable, also while this server's clock is wrong.
func (r *Revocations) Confirm(ctx context.Context, id string, c Confirmation) (*Job, error) {
	if err := r.clock(); err != nil {
		return nil, err
	}
	return r.change(ctx, id, func(j *Job) error {
		switch d := j.Preview.Matched - c.Count; {
		case j.State != Ready && j.State == Counting:
			return &StateError{j.State, "wait until it is ready"}
		case j.State != Ready:
			return &StateError{j.State, "it was confirmed, or is over"}
		case j.DryRun:
			return &StateError{j.State, "it was a dry run: make one that is not"}
		case r.now().Sub(j.Preview.At) > readyFor:
			return &StateError{j.State, "it was counted over an hour ago: count again"}
		case c.Count < 0 || c.Tolerance < 0 || d > c.Tolerance || -d > c.Tolerance:
			return &CountError{j.Preview.Matched, c.Count, c.Tolerance}
		}
		j.State, j.Confirmed, j.ConfirmedBy, j.Most = Freezing, r.now().UTC(), c.By, c.Count+c.Tolerance
		j.Rights.Keys, j.Rights.Admin = j.Rights.Keys && c.Rights.Keys, j.Rights.Admin && c.Rights.Admin
		if spared := string(c.Spared); spared != "" && !slices.Contains(j.Spared, spared) {
			j.Spared = append(j.Spared, spared)
		}
		if j.Undo == 0 {
			j.State = Revoking
		}
		return nil
	})
}

// Undo thaws what the job has frozen. It works until the undo window is over. Errors: ErrNoJob, ErrState,
// afterlogin.ErrUnavailable.
func (r *Revocations) Undo(ctx context.Context, id, by string) (*Job, error) {
	return r.change(ctx, id, func(j *Job) error {
		switch j.State {
		case Freezing, Frozen:
			j.State, j.Stopped = Thawing, by
			return nil
		case Thawing, Undone:
			return errSame
		case Counting, Ready:
			return &StateError{j.State, "nothing is frozen yet: cancel it"}
		}
		return &StateError{j.State, "it cannot be undone any more"}
	})
}

// Cancel ends a job that has frozen nothing yet. Errors as of Undo.
func (r *Revocations) Cancel(ctx context.Context, id, by string) (*Job, error) {
	return r.change(ctx, id, func(j *Job) error {
		switch j.State {
		case Counting, Ready:
			j.State, j.Stopped, j.Finished = Cancelled, by, r.now().UTC()
			return nil
		case Cancelled:
			return errSame
		case Freezing, Frozen:
			return &StateError{j.State, "sessions are frozen: undo it"}
		}
		return &StateError{j.State, "it cannot be cancelled any more"}
	})
}

// clock fails while this server's clock and the store's disagree: when a session was made, and when an undo window is over,
// is told by the clock of whoever writes it down.
func (r *Revocations) clock() error {
	if d := r.skew(); d.Abs() > maxSkew {
		return fmt.Errorf("%w by %v", errClock, d.Round(time.Millisecond))
	}
	return nil
}

// errClock is returned by clock. Another server's may be right.
var errClock = fmt.Errorf("%w: this server's clock is ahead of the store's", afterlogin.ErrUnavailable)

// errSame is returned by a change that is made already.
var errSame = errors.New("as it is")

// poke has the work looked at now.
func (r *Revocations) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}
