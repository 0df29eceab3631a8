package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// A Migration copies all records of one store into another, and then compares each with its copy. It can be interrupted
// at any moment, also by the end of the process: the next Run with the same checkpoint goes on, and what was copied twice
// does no harm. Records that have expired are left behind.
type Migration struct {
	From, To         store.Bulk
	FromName, ToName string // what they are called, without a password
	// Checkpoint is the path of the file that is kept until the migration is complete.
	Checkpoint string
	// Merge is to copy into a store that holds other records already. A record that is there in the same version or a
	// later one stays.
	Merge bool
	// Keys puts the keys into the destination. It is called before the first record is written, and not if the destination is
	// refused. Nil: they are there.
	Keys func(context.Context) error
	// Apart reports that a record is not moved with the others. Nil: none is.
	Apart func(*store.Record) bool
	// Report is told how it goes on, by one goroutine at a time. Nil: nobody.
	Report func(Progress)

	worker
}

// Counts are the numbers of a migration.
type Counts struct {
	Copied   int64 `json:"copied"`
	Expired  int64 `json:"expired"` // left behind
	Compared int64 `json:"compared"`
	Newer    int64 `json:"newer"` // of those, how many are newer in the destination; without Merge that is a difference
	// Different is how many are not the same in both.
	Different int64 `json:"different"`
	// Examples are the first of them.
	Examples []Difference `json:"examples,omitempty"`
}

// A Difference is a record that is not the same in both stores.
type Difference struct {
	ID   string `json:"id"`   // in hexadecimal
	What string `json:"what"` // which part; never its content
}

// maxExamples bounds what is kept and printed of differences and problems.
const maxExamples = 20

// Errors of a migration.
var (
	// ErrNotEmpty is returned if the destination holds records that this migration has not put there.
	ErrNotEmpty = errors.New("the destination holds records already")
	// ErrDifferent is returned if a record is not the same in the destination.
	ErrDifferent = errors.New("the destination is not the same as the source")
)

// Run migrates. It returns what was done, this time and before, also with an error.
func (m *Migration) Run(ctx context.Context) (Counts, error) {
	c, err := m.begin(ctx)
	if err != nil {
		return Counts{}, err
	}
	if err := placed(ctx, m.Keys); err != nil {
		return c.Counts, err
	}
	run := &run{Migration: m, checkpoint: c, saved: m.time()}
	err = run.steps(ctx)
	if errors.Is(err, store.ErrGap) { // the source does not know its own cursor any more: another store, or made anew
		c.again(stepCopy)
		err = run.steps(ctx)
	}
	counts := c.Counts
	if err == nil && counts.Different > 0 {
		err = fmt.Errorf("%w: %d of %d records differ", ErrDifferent, counts.Different, counts.Compared)
		// Whatever the cause, copying once more mends it or shows it again.
		c.again(stepCopy)
	}
	if err != nil {
		return counts, errors.Join(err, c.write(m.Checkpoint))
	}
	return counts, os.Remove(m.Checkpoint)
}

// placed calls what puts keys into place, if there is something.
func placed(ctx context.Context, keys func(context.Context) error) error {
	if keys == nil {
		return nil
	}
	if err := keys(ctx); err != nil {
		return &KeysError{err}
	}
	return nil
}

// A KeysError is why keys could not be put into place. No record was written.
type KeysError struct{ Err error }

func (e *KeysError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *KeysError) Unwrap() error { return e.Err }

// begin reads the checkpoint, or looks at the destination and makes one.
func (m *Migration) begin(ctx context.Context) (*checkpoint, error) {
	c, err := readCheckpoint(m.Checkpoint)
	if err != nil {
		return nil, err
	}
	if c != nil {
		if c.Source != m.FromName || c.Destination != m.ToName {
			return nil, fmt.Errorf("%w: %s is of %s to %s", ErrOtherMigration, m.Checkpoint, c.Source, c.Destination)
		}
		if c.Step == stepCompare {
			// From the beginning: the source may have been in use since the interruption, and what was ended there by then must not be
			// live in the copy.
			c.again(stepCompare)
		}
		return c, nil
	}
	if !m.Merge {
		empty, err := m.empty(ctx, m.To, m.Apart)
		if err != nil {
			return nil, err
		}
		if !empty {
			return nil, ErrNotEmpty
		}
	}
	c = &checkpoint{Layout: checkpointLayout, Source: m.FromName, Destination: m.ToName, Started: m.time().UTC().Truncate(time.Second), Step: stepCopy}
	if c.Total, err = m.count(ctx); err != nil {
		return nil, err
	}
	return c, c.write(m.Checkpoint)
}

var errFound = errors.New("found")

// empty reports whether there is no record in the store but those apart.
func (w *worker) empty(ctx context.Context, s store.Bulk, apart func(*store.Record) bool) (bool, error) {
	err := w.scan(ctx, s, "", func(b store.Batch) error {
		for _, r := range b.Records {
			if apart == nil || !apart(r) {
				return errFound
			}
		}
		return nil
	})
	if err == errFound {
		return false, nil
	}
	return err == nil, err
}

// count counts the records of the source, so that there is something to compare with how many are done.
func (m *Migration) count(ctx context.Context) (n int64, err error) {
	p := Progress{Step: "counting", Begun: m.time()}
	err = m.scan(ctx, m.From, "", func(b store.Batch) error {
		n += int64(len(b.Records))
		p.Done, p.Fresh = n, n
		m.report(p)
		return nil
	})
	return n, err
}

func (m *Migration) report(p Progress) {
	if m.Report != nil {
		m.Report(p)
	}
}

// run is one Run of a migration.
type run struct {
	*Migration
	*checkpoint
	saved time.Time // when the checkpoint was written last
}

func (r *run) steps(ctx context.Context) error {
	if r.Step == stepCopy {
		if err := r.step(ctx, "copying", r.copy); err != nil {
			return err
		}
		r.again(stepCompare)
		if err := r.write(r.Checkpoint); err != nil {
			return err
		}
	}
	return r.step(ctx, "comparing", r.compare)
}

// step does one thing to all batches behind the cursor, and keeps account.
func (r *run) step(ctx context.Context, name string, do func(context.Context, []*store.Record) (Counts, error)) error {
	p := Progress{Step: name, Done: r.Done, Total: r.Total, Begun: r.time()}
	from := func(ctx context.Context, yield func(store.Batch) error) error {
		return r.scan(ctx, r.From, r.Cursor, yield)
	}
	return each(ctx, from, do, func(b store.Batch, n Counts) error {
		r.Counts.add(n)
		r.Cursor, r.Done = b.Next, r.Done+int64(len(b.Records))
		p.Done, p.Fresh = r.Done, p.Fresh+int64(len(b.Records))
		r.report(p)
		if now := r.time(); now.Sub(r.saved) >= time.Second {
			r.saved = now
			return r.write(r.Checkpoint)
		}
		return nil
	})
}

func (c *Counts) add(n Counts) {
	c.Copied += n.Copied
	c.Expired += n.Expired
	c.Compared += n.Compared
	c.Newer += n.Newer
	c.Different += n.Different
	c.Examples = append(c.Examples, n.Examples[:min(len(n.Examples), maxExamples-len(c.Examples))]...)
}

// moved returns the records that are to be in the destination, and how many have expired.
func (m *Migration) moved(all []*store.Record) (list []*store.Record, n int64) {
	now := m.time()
	for _, r := range all {
		switch {
		case m.Apart != nil && m.Apart(r):
		case expired(r, now):
			n++
		default:
			list = append(list, r)
		}
	}
	return list, n
}

func (r *run) copy(ctx context.Context, all []*store.Record) (n Counts, err error) {
	list, over := r.moved(all)
	if err := r.load(ctx, r.To, list); err != nil {
		return n, err
	}
	return Counts{Copied: int64(len(list)), Expired: over}, nil
}

// load is Load, but that it tries again.
func (w *worker) load(ctx context.Context, to store.Bulk, list []*store.Record) error {
	for len(list) > 0 {
		n := min(len(list), store.MaxLoad)
		if err := w.try(ctx, func() error { return to.Load(ctx, list[:n]) }); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

func (r *run) compare(ctx context.Context, all []*store.Record) (n Counts, err error) {
	list, _ := r.moved(all)
	if len(list) == 0 {
		return n, nil
	}
	copies, err := r.get(ctx, r.To, list)
	if err != nil {
		return n, err
	}
	now := r.time() // what expires meanwhile may be gone
	for i, have := range list {
		if expired(have, now) {
			continue
		}
		n.Compared++
		what := difference(have, copies[i])
		if what == newer && r.Merge {
			n.Newer++
			continue
		}
		if what == "" {
			continue
		}
		n.Different++
		if len(n.Examples) < maxExamples {
			n.Examples = append(n.Examples, Difference{ID: have.ID.String(), What: what})
		}
	}
	return n, nil
}

// get is Get for the ids of the records, but that it tries again.
func (w *worker) get(ctx context.Context, s store.Bulk, list []*store.Record) (got []*store.Record, err error) {
	ids := make([]store.ID, len(list))
	for i, r := range list {
		ids[i] = r.ID
	}
	err = w.try(ctx, func() error {
		got, err = s.Get(ctx, ids...)
		return err
	})
	return got, err
}
