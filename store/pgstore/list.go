package pgstore

import (
	"context"
	"iter"

	"github.com/afterlogin/afterlogin/store"
)

const (
	// listPage is how many roots List holds at a time.
	listPage = 100
	// listDays is how many partitions one statement of List reads. It locks each, with its indexes, and the server has room
	// for a few thousand locks.
	listDays = 16
)

// A root's id begins with its bucket, so that the order of buckets and ids is that of ids alone. Both statements go by it,
// since that is what the indexes of roots are in: by the primary key, every page would read past the subjects' records.
const (
	listSQL = `SELECT ` + columns + ` FROM records
		WHERE tenant = $1 AND octet_length(id) = 17 AND bucket >= $2 AND bucket < $3 AND (bucket, id) > ($6, $4) AND ` + live + `
		ORDER BY bucket, id LIMIT $5`
	listSubjectSQL = `SELECT ` + columns + ` FROM records
		WHERE tenant = $1 AND subject = $7 AND octet_length(id) = 17 AND bucket >= $2 AND bucket < $3 AND (bucket, id) > ($6, $4) AND ` + live + `
		ORDER BY bucket, id LIMIT $5`
)

// List implements store.Store. It reads page by page, each as it is at that moment.
func (s *Store) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		days, err := s.listed(ctx, q.After)
		for err == nil && len(days) > 0 {
			n := min(len(days), listDays)
			from, _ := bounds(days[0])
			_, to := bounds(days[n-1])
			days = days[n:]
			for more := true; more; {
				var page []*store.Record
				if page, err = s.listPage(ctx, q, from, to); err != nil {
					break
				}
				for _, r := range page {
					if !yield(r, nil) {
						return
					}
					q.After = r.ID
				}
				more = len(page) == listPage
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// listed returns the days whose partitions may hold roots after an id.
func (s *Store) listed(ctx context.Context, after store.ID) ([]int, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.exit()
	days, err := s.days(ctx)
	if err != nil {
		return nil, wrap("list", err)
	}
	if !after.IsZero() {
		for len(days) > 0 && days[0] < dayOf(first(after)) {
			days = days[1:]
		}
	}
	return days, nil
}

// first returns the bucket that an id begins with, which is that of its root.
func first(id store.ID) store.Bucket { return id.Root().Bucket() }

func (s *Store) listPage(ctx context.Context, q store.Query, from, to int) ([]*store.Record, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.exit()
	bucket := 0
	if !q.After.IsZero() {
		bucket = int(first(q.After))
	}
	sql, args := listSQL, []any{int64(q.Tenant), from, to, idBytes(q.After), listPage, bucket}
	if q.Subject != "" {
		sql, args = listSubjectSQL, append(args, []byte(q.Subject))
	}
	page, err := s.records(ctx, sql, args...)
	return page, wrap("list", err)
}
