package pebblestore

import (
	"context"

	"github.com/afterlogin/afterlogin/store"
)

// touchBatch is how many touches are written as one batch, and so how many roots are held at a time.
const touchBatch = 256

// Touch implements store.Store. It is not synced: a crash may take what the last second or so of it wrote. A root that
// is being changed in this moment is left out. Where there is room for revocations only, it is ErrFull.
func (s *Store) Touch(ctx context.Context, touches []store.Touch) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	// A touch rewrites its record, and flushes follow: browsing must not eat the room that revocations need.
	if s.space.level.Load() >= spaceHard {
		return store.ErrFull
	}
	for len(touches) > 0 {
		n := min(len(touches), touchBatch)
		c, err := s.prepareTouch(touches[:n])
		if err != nil {
			return err
		}
		if c != nil {
			if err := s.submit(ctx, c); err != nil {
				return err
			}
		}
		touches = touches[n:]
	}
	return nil
}

// prepareTouch makes a commit of the touches, nil if they change nothing.
func (s *Store) prepareTouch(touches []store.Touch) (*commit, error) {
	c := s.newCommit(store.ID{})
	c.lossy = true
	held := make(map[store.ID]bool, len(touches)) // by root: whether we got it
	next := make(map[store.ID]*store.Record, len(touches))
	give := func(err error) (*commit, error) {
		c.release()
		c.drop()
		return nil, err
	}
	for _, t := range touches {
		if t.ID.IsZero() {
			continue
		}
		root := t.ID.Root()
		ours, seen := held[root]
		if !seen {
			ours = s.roots.try(root)
			held[root] = ours
			if ours {
				c.touched = append(c.touched, root)
			}
		}
		if !ours {
			continue
		}
		r := next[t.ID]
		if r == nil {
			var err error
			if r, err = s.read(t.ID); err != nil {
				return give(err)
			}
		}
		if r == nil || !r.Touch(t) {
			continue
		}
		next[t.ID] = r
	}
	if len(next) == 0 {
		return give(nil)
	}
	for _, r := range next {
		if err := c.set(r); err != nil {
			return give(err)
		}
	}
	return c, nil
}
