package memstore

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/afterlogin/afterlogin/store"
)

var _ store.Bulk = (*Store)(nil)

// scanBatch is how many records are in one batch of a Scan.
const scanBatch = 256

// Scan implements store.Bulk, in the order of ids. It copies the ids first; the records it reads a batch at a time.
func (s *Store) Scan(ctx context.Context, since store.Cursor) iter.Seq2[store.Batch, error] {
	return func(yield func(store.Batch, error) bool) {
		ids, err := s.idsSince(since)
		for err == nil && len(ids) > 0 {
			chunk := ids[:min(len(ids), scanBatch)]
			ids = ids[len(chunk):]
			var rs []*store.Record
			if rs, err = s.Get(ctx, chunk...); err != nil {
				break
			}
			rs = slices.DeleteFunc(rs, func(r *store.Record) bool { return r == nil })
			next := store.Cursor(s.life + hex.EncodeToString(chunk[len(chunk)-1].Append(nil)))
			if len(rs) > 0 && !yield(store.Batch{Records: rs, Next: next}, nil) {
				return
			}
		}
		if err != nil {
			yield(store.Batch{}, err)
		}
	}
}

// idsSince returns all ids behind the place of the cursor, in order.
func (s *Store) idsSince(since store.Cursor) ([]store.ID, error) {
	var after store.ID
	if since != "" {
		place, ours := strings.CutPrefix(string(since), s.life)
		b, err := hex.DecodeString(place)
		if err == nil {
			after, err = store.ParseID(b)
		}
		if !ours || err != nil {
			return nil, store.ErrGap
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, store.ErrClosed
	}
	ids := make([]store.ID, 0, len(s.records))
	for id := range s.records {
		if id.Compare(after) > 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, store.ID.Compare)
	return ids, nil
}

// Load implements store.Bulk.
func (s *Store) Load(ctx context.Context, records []*store.Record) error {
	if len(records) > store.MaxLoad {
		return fmt.Errorf("%w: %d records to load, at most %d", store.ErrBadOps, len(records), store.MaxLoad)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return store.ErrClosed
	}
	for _, r := range records {
		old := s.records[r.ID]
		if n := store.Newer(old, r); n != old {
			s.records[r.ID] = n
			s.index(n)
		}
	}
	return nil
}
