package redisstore

import (
	"context"
	"iter"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/store"
)

const (
	// listPage is how many ids are read of an index at a time, listBatch how many records.
	listPage  = 64
	listBatch = 64
)

// List implements store.Store. A subject's roots come from one index; a tenant's from one per group, merged, of each of
// which at most listPage ids are held.
func (s *Store) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		m := s.merge(q)
		for {
			rs, err := s.nextBatch(ctx, m)
			if err != nil {
				yield(nil, err)
				return
			}
			if rs == nil {
				return
			}
			for _, r := range rs {
				// An entry may be left of a root that is gone, or was never made.
				if r == nil || r.Tenant != q.Tenant || q.Subject != "" && r.Subject != q.Subject {
					continue
				}
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// A merge walks indexes in the order of their ids.
type merge struct {
	s    *Store
	runs []*run
}

// A run is a place in one index.
type run struct {
	group int
	key   string
	after string // the last id that was read, or an empty one
	ids   []store.ID
	done  bool
}

func (s *Store) merge(q store.Query) *merge {
	m := &merge{s: s}
	after := string(q.After.Append(nil))
	if q.Subject != "" {
		id := store.SubjectID(q.Tenant, q.Subject)
		m.runs = []*run{{group: groupOf(id), key: s.keys.subject(id), after: after}}
		return m
	}
	for g := range groups {
		m.runs = append(m.runs, &run{group: g, key: s.keys.tenant(g, q.Tenant), after: after})
	}
	return m
}

// nextBatch returns the next records, with nil for those that are not there, or no slice at the end.
func (s *Store) nextBatch(ctx context.Context, m *merge) ([]*store.Record, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.exit()
	var ids []store.ID
	for len(ids) < listBatch {
		if err := m.fill(ctx); err != nil {
			return nil, err
		}
		var first *run
		for _, r := range m.runs {
			if len(r.ids) > 0 && (first == nil || r.ids[0].Compare(first.ids[0]) < 0) {
				first = r
			}
		}
		if first == nil {
			break
		}
		ids = append(ids, first.ids[0])
		first.ids = first.ids[1:]
	}
	if len(ids) == 0 {
		return nil, nil
	}
	return s.get(ctx, ids)
}

// fill reads on where a run has nothing left.
func (m *merge) fill(ctx context.Context) error {
	var gs []int
	var of [groups]*run
	for _, r := range m.runs {
		if len(r.ids) == 0 && !r.done {
			gs = append(gs, r.group)
			of[r.group] = r
		}
	}
	return m.s.ask(ctx, gs, func(b rueidis.Builder, g int) rueidis.Completed {
		from := "-"
		if of[g].after != "" {
			from = "(" + of[g].after
		}
		return b.Zrange().Key(of[g].key).Min(from).Max("+").Bylex().Limit(0, listPage).Build()
	}, func(g int, res rueidis.RedisResult) error {
		raw, err := res.AsStrSlice()
		if err != nil {
			return err
		}
		r := of[g]
		r.done = len(raw) < listPage
		for _, text := range raw {
			id, err := store.ParseID([]byte(text))
			if err != nil {
				return err
			}
			r.ids = append(r.ids, id)
			r.after = text
		}
		return nil
	})
}
