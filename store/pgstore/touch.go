package pgstore

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/store"
)

// touchBatch is how many records are touched by one statement.
const touchBatch = 500

const touchSQL = `SELECT touch1($1, $2, $3, $4, $5)`

// A touched record is what all touches of one record come to.
type touched struct {
	id    store.ID
	at    int64
	gen   uint32
	genAt int64
}

// Touch implements store.Store. Records that somebody is changing are passed by.
func (s *Store) Touch(ctx context.Context, touches []store.Touch) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	for batch := range slices.Chunk(merge(touches), touchBatch) {
		var (
			ids              = make([][]byte, len(batch))
			buckets          = make([]int32, len(batch))
			ats, gens, genAt = make([]int64, len(batch)), make([]int64, len(batch)), make([]int64, len(batch))
		)
		for i, t := range batch {
			ids[i], buckets[i] = idBytes(t.id), int32(t.id.Bucket())
			ats[i], gens[i], genAt[i] = t.at, int64(t.gen), t.genAt
		}
		err := s.with(ctx, func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, touchSQL, ids, buckets, ats, gens, genAt)
			return err
		})
		if err != nil {
			return wrap("touch", err)
		}
	}
	return nil
}

// merge makes one of all touches of a record, in the order of ids.
func merge(touches []store.Touch) []touched {
	at := make(map[store.ID]int, len(touches))
	var out []touched
	for _, t := range touches {
		if t.ID.IsZero() {
			continue
		}
		i, ok := at[t.ID]
		if !ok {
			at[t.ID] = len(out)
			out = append(out, touched{t.ID, t.At, t.Gen, t.At})
			continue
		}
		m := &out[i]
		m.at = max(m.at, t.At)
		if t.Gen > m.gen {
			m.gen, m.genAt = t.Gen, t.At
		}
	}
	slices.SortFunc(out, func(a, b touched) int { return a.id.Compare(b.id) })
	return out
}
