package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/afterlogin/afterlogin/store"
)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.exit()
	out := make([]*store.Record, len(ids))
	return out, s.get(ctx, out, ids)
}

// get reads the records of the ids into out.
func (s *Store) get(ctx context.Context, out []*store.Record, ids []store.ID) error {
	for i := 0; i < len(ids); {
		if ids[i].IsSubjectOf() {
			r, err := s.subjectOf(ctx, ids[i].Root(), out[:i])
			if err != nil {
				return err
			}
			out[i] = r
			i++
			continue
		}
		root := ids[i].Root()
		n := 1
		for i+n < len(ids) && ids[i+n].Root() == root && !ids[i+n].IsSubjectOf() {
			n++
		}
		if err := s.getOf(ctx, root, out[i:i+n], ids[i:i+n]); err != nil {
			return err
		}
		i += n
	}
	return s.failed()
}

// subjectOf reads the record of the root's subject. The root's may have been read before.
func (s *Store) subjectOf(ctx context.Context, root store.ID, before []*store.Record) (*store.Record, error) {
	var one [1]*store.Record
	i := slices.IndexFunc(before, func(r *store.Record) bool { return r != nil && r.ID == root })
	if i >= 0 {
		one[0] = before[i]
	} else if err := s.getOf(ctx, root, one[:], []store.ID{root}); err != nil {
		return nil, err
	}
	r := one[0]
	if r == nil || r.Subject == "" {
		return nil, nil
	}
	id := store.SubjectID(r.Tenant, r.Subject)
	err := s.getOf(ctx, id, one[:], []store.ID{id})
	return one[0], err
}

// getOf reads records of one root. First it reads, then it waits for whoever is changing the root: see roots.
func (s *Store) getOf(ctx context.Context, root store.ID, out []*store.Record, ids []store.ID) error {
	for range 8 {
		turn := s.roots.turn(root)
		if err := s.readAll(out, ids); err != nil {
			return err
		}
		if err := s.roots.wait(ctx, s.dead, root); err != nil {
			return err
		}
		// One record is of one moment anyway. Several may be of before and after a change, if there was one.
		if len(ids) == 1 || s.roots.turn(root) == turn {
			return nil
		}
	}
	// The root is changed all the time. Take a place in the queue.
	if err := s.take(ctx, root); err != nil {
		return err
	}
	defer s.roots.release(root)
	return s.readAll(out, ids)
}

func (s *Store) readAll(out []*store.Record, ids []store.ID) error {
	for i, id := range ids {
		r, err := s.read(id)
		if err != nil {
			return err
		}
		out[i] = r
	}
	return nil
}

// read returns the record as Pebble shows it, nil if there is none.
func (s *Store) read(id store.ID) (*store.Record, error) {
	if id.IsZero() {
		return nil, nil
	}
	var buf [64]byte
	v, closer, err := s.db.Get(recordKey(buf[:0], id))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pebblestore: read %v: %w", id, err)
	}
	defer closer.Close()
	return parse(id, v)
}

// readAbsent is read for a record that is probably not there.
func (s *Store) readAbsent(id store.ID) (*store.Record, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return nil, fmt.Errorf("pebblestore: read %v: %w", id, err)
	}
	defer it.Close()
	return readBy(it, id)
}

// readBy returns the record with the id, nil if there is none.
func readBy(it *pebble.Iterator, id store.ID) (*store.Record, error) {
	var buf [64]byte
	if !it.SeekPrefixGE(recordKey(buf[:0], id)) {
		if err := it.Error(); err != nil {
			return nil, fmt.Errorf("pebblestore: read %v: %w", id, err)
		}
		return nil, nil
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return nil, fmt.Errorf("pebblestore: read %v: %w", id, err)
	}
	return parse(id, v)
}

func parse(id store.ID, v []byte) (*store.Record, error) {
	r, err := store.ParseRecord(v)
	if err != nil {
		return nil, fmt.Errorf("pebblestore: read %v: %w", id, err)
	}
	if r.ID != id {
		return nil, fmt.Errorf("pebblestore: read %v: the record is of %v", id, r.ID)
	}
	return r, nil
}
