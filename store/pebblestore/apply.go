package pebblestore

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/afterlogin/afterlogin/store"
)

// Apply implements store.Store. Where the error is ErrUnknown because ctx ended, the change goes on, and holds the root
// until it is durable. On a volume with no room left at all, or on a disk that hangs, that may be long: give a deadline.
func (s *Store) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if err := store.CheckOps(root, ops); err != nil {
		return err
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	if err := s.take(ctx, root); err != nil {
		return err
	}
	c, err := s.prepare(root, ops)
	if c == nil || err != nil {
		s.roots.release(root)
		return err
	}
	return s.submit(ctx, c)
}

// prepare reads what the operations change and makes the commit of them; nil if nothing changes. The root is held.
func (s *Store) prepare(root store.ID, ops []store.Op) (*commit, error) {
	level := s.space.level.Load()
	if level >= spaceNone {
		return nil, store.ErrFull
	}
	var c *commit
	var buf [64]byte
	for i := range ops {
		op := &ops[i]
		if op.Kind == store.OpEvent {
			continue
		}
		// A subject's record is where a person is signed out everywhere: it has the same right as a mark.
		isPut, isNew := op.Kind == store.OpPut && !op.ID.IsSubject(), op.Expect == 0 && op.ID.IsRoot()
		if isPut && (level >= spaceHard || level >= spaceLow && isNew) {
			c.drop()
			return nil, store.ErrFull
		}
		old, err := s.current(op)
		if err != nil {
			c.drop()
			return nil, err
		}
		r, err := op.Next(i, old)
		if err != nil {
			c.drop()
			return nil, err
		}
		if r == old {
			continue
		}
		if c == nil {
			c = s.newCommit(root)
		}
		c.changed = c.changed || old != nil
		if err := c.set(r); err != nil {
			c.drop()
			return nil, err
		}
		if old == nil && r.ID.IsRoot() {
			if err := c.batch.Set(indexOf(buf[:0], r), nil, nil); err != nil {
				c.drop()
				return nil, err
			}
		}
	}
	for i := range ops {
		if ops[i].Kind != store.OpEvent {
			continue
		}
		if c == nil {
			c = s.newCommit(root)
		}
		c.events = append(c.events, ops[i].Event)
	}
	return c, nil
}

// current returns the record that an operation changes, nil if there is none.
func (s *Store) current(op *store.Op) (*store.Record, error) {
	if op.Kind == store.OpPut && op.Expect == 0 {
		// Mostly there is none. Finding that out is much cheaper with the bloom filters, and Pebble's Get does not ask
		// those of the lowest level, where nearly all records are.
		return s.readAbsent(op.ID)
	}
	return s.read(op.ID)
}

// set writes the record into the batch.
func (c *commit) set(r *store.Record) error {
	var key [64]byte
	c.buf = store.AppendRecord(c.buf[:0], r)
	return c.batch.Set(recordKey(key[:0], r.ID), c.buf, nil)
}

// A commit is one batch on its way to the disk. It holds its roots until it is there.
type commit struct {
	s       *Store
	batch   *pebble.Batch
	root    store.ID
	touched []store.ID // the roots held by a Touch, instead of root
	events  []store.Event
	buf     []byte // scratch
	last    uint64 // the number of the last of the events
	changed bool   // a record that was there changed, so that listeners are called
	lossy   bool   // nobody waits for the disk
	waits   bool   // counted in pending
	err     error
	done    chan error // of capacity 1; gets the outcome
}

func (s *Store) newCommit(root store.ID) *commit {
	c, _ := s.spare.Get().(*commit)
	if c == nil {
		c = &commit{done: make(chan error, 1)}
	}
	c.s, c.root, c.batch = s, root, s.db.NewBatch()
	return c
}

// drop gives up a commit that was not submitted; nil is fine.
func (c *commit) drop() {
	if c != nil {
		c.batch.Close()
		c.recycle()
	}
}

func (c *commit) recycle() {
	clear(c.events)
	s := c.s
	*c = commit{done: c.done, events: c.events[:0], touched: c.touched[:0], buf: c.buf[:0]}
	s.spare.Put(c)
}

// submit hands the commit to the applier and waits for the outcome.
func (s *Store) submit(ctx context.Context, c *commit) error {
	c.waits = true
	s.pending.begin()
	select {
	case s.commits <- c:
	case <-ctx.Done():
		c.release()
		c.drop()
		return ctx.Err()
	case <-s.dead:
		c.release()
		return s.failed()
	}
	select {
	case err := <-c.done:
		c.recycle()
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", store.ErrUnknown, ctx.Err())
	case <-s.dead:
		return fmt.Errorf("%w: %w", store.ErrUnknown, s.failed())
	}
}

// release lets go of the roots that the commit holds: it is on the disk, or will never be.
func (c *commit) release() {
	if c.waits {
		c.waits = false
		c.s.pending.end()
	}
	if !c.root.IsZero() {
		c.s.roots.release(c.root)
	}
	for _, id := range c.touched {
		c.s.roots.release(id)
	}
}
