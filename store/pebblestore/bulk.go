package pebblestore

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/afterlogin/afterlogin/store"
)

var _ store.Bulk = (*Store)(nil)

// A batch of a Scan ends after so many records, or bytes of them.
const (
	scanRecords = 500
	scanBytes   = 1 << 20
)

// Scan implements store.Bulk, in the order of keys. Between two batches no iterator is open, so that a slow reader keeps
// no old file alive, and a cursor outlives the process.
func (s *Store) Scan(ctx context.Context, since store.Cursor) iter.Seq2[store.Batch, error] {
	return func(yield func(store.Batch, error) bool) {
		from, err := s.scanFrom(since)
		for err == nil {
			var records []*store.Record
			if records, from, err = s.scan(ctx, from); err != nil || len(records) == 0 {
				break
			}
			if !yield(store.Batch{Records: records, Next: s.scanCursor(records[len(records)-1].ID)}, nil) {
				return
			}
		}
		if err != nil {
			yield(store.Batch{}, err)
		}
	}
}

// scanCursor is the place behind a record: store 8, key of the record, in hexadecimal.
func (s *Store) scanCursor(id store.ID) store.Cursor {
	return store.Cursor(hex.EncodeToString(recordKey(slices.Clone(s.events.id[:]), id)))
}

// scanFrom returns the first key behind the cursor's place.
func (s *Store) scanFrom(c store.Cursor) ([]byte, error) {
	if c == "" {
		return []byte{keyRecord}, nil
	}
	b, err := hex.DecodeString(string(c))
	if err != nil || len(b) <= len(storeID{}) || storeID(b[:len(storeID{})]) != s.events.id {
		return nil, store.ErrGap
	}
	key := b[len(storeID{}):]
	if _, ok := idOf(key); !ok {
		return nil, store.ErrGap
	}
	return append(key, 0), nil
}

// idOf returns the id of the record that a key leads to.
func idOf(key []byte) (store.ID, bool) {
	head := 1
	if key[0] == keyRecord {
		head = 4
	} else if key[0] != keySubject {
		return store.ID{}, false
	}
	if len(key) < head {
		return store.ID{}, false
	}
	id, err := store.ParseID(key[head:])
	if err != nil || string(recordKey(nil, id)) != string(key) {
		return store.ID{}, false
	}
	return id, true
}

// scan reads one batch, and returns where the next one begins. What it returns is on the disk.
func (s *Store) scan(ctx context.Context, from []byte) (records []*store.Record, next []byte, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer s.exit()
	records, err = s.readFrom(from)
	if err != nil {
		return nil, nil, err
	}
	for i, r := range records {
		// As Get does: first read, then wait for whoever is changing it.
		if i > 0 && records[i-1].ID.Root() == r.ID.Root() {
			continue
		}
		if err := s.roots.wait(ctx, s.dead, r.ID.Root()); err != nil {
			return nil, nil, err
		}
	}
	if len(records) > 0 {
		next = append(recordKey(nil, records[len(records)-1].ID), 0)
	}
	return records, next, s.failed()
}

// readFrom reads the records of a batch as Pebble shows them. The keys of roots and children come first, then, behind
// other things, those of subjects.
func (s *Store) readFrom(from []byte) ([]*store.Record, error) {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return nil, fmt.Errorf("pebblestore: scan: %w", err)
	}
	defer it.Close()
	var records []*store.Record
	size := 0
	for ok := it.SeekGE(from); ok && len(records) < scanRecords && size < scanBytes; {
		switch first := it.Key()[0]; {
		case first > keySubject:
			return records, it.Error()
		case first != keyRecord && first != keySubject: // what may come between the two
			ok = it.SeekGE([]byte{keySubject})
			continue
		}
		id, ok2 := idOf(it.Key())
		if !ok2 {
			return nil, fmt.Errorf("pebblestore: scan: %x is no key of a record", it.Key())
		}
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, fmt.Errorf("pebblestore: scan: %w", err)
		}
		r, err := parse(id, v)
		if err != nil {
			return nil, err
		}
		records, size = append(records, r), size+len(v)
		ok = it.Next()
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("pebblestore: scan: %w", err)
	}
	return records, nil
}

// Load implements store.Bulk: one batch, and one wait for the disk. It holds the roots of the records as Apply does, so
// that it may run beside other calls. Where new roots are refused for want of room, it is ErrFull.
func (s *Store) Load(ctx context.Context, records []*store.Record) error {
	if len(records) > store.MaxLoad {
		return fmt.Errorf("%w: %d records to load, at most %d", store.ErrBadOps, len(records), store.MaxLoad)
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	if s.space.level.Load() >= spaceLow {
		return store.ErrFull
	}
	c := s.newCommit(store.ID{})
	if err := s.takeAll(ctx, c, records); err != nil {
		c.release()
		c.drop()
		return err
	}
	if err := s.prepareLoad(c, records); err != nil || c.batch.Empty() {
		c.release()
		c.drop()
		return err
	}
	return s.submit(ctx, c)
}

// takeAll has the commit hold every root of the records, in the order of their ids: of two that want some of the same,
// one has the least of these first, and then gets the others.
func (s *Store) takeAll(ctx context.Context, c *commit, records []*store.Record) error {
	roots := make([]store.ID, len(records))
	for i, r := range records {
		roots[i] = r.ID.Root()
	}
	slices.SortFunc(roots, store.ID.Compare)
	for _, root := range slices.Compact(roots) {
		if err := s.take(ctx, root); err != nil {
			return err
		}
		c.touched = append(c.touched, root)
	}
	return nil
}

// prepareLoad writes into the batch what the records change. The roots are held.
func (s *Store) prepareLoad(c *commit, records []*store.Record) error {
	// Mostly none of them is there, so the filters of the lowest level are asked, as readAbsent does.
	it, err := s.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return fmt.Errorf("pebblestore: load: %w", err)
	}
	defer it.Close()
	loaded := make(map[store.ID]*store.Record, len(records)) // one may be there twice
	var buf [64]byte
	for _, r := range records {
		old := loaded[r.ID]
		if old == nil {
			if old, err = readBy(it, r.ID); err != nil {
				return err
			}
		}
		n := store.Newer(old, r)
		if n == old {
			continue
		}
		loaded[r.ID] = n
		if err := c.set(n); err != nil {
			return err
		}
		if old == nil && n.ID.IsRoot() {
			if err := c.batch.Set(indexOf(buf[:0], n), nil, nil); err != nil {
				return err
			}
		}
	}
	return nil
}
