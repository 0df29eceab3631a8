package pgstore

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/store"
)

const (
	// listPage is how many roots List holds at a time.
	listPage = 100
	// listDays is how many partitions one statement of List reads. It locks each, with its indexes, and the server has room
	// for a few thousand locks.
	listDays = 16
)

// A root's id begins with its bucket, so that the order of buckets and ids is that of ids alone. Which index a statement goes
// by is said by the word it has for the size of an id, length or octet_length (see the migrations).
const (
	listSQL = `SELECT ` + columns + ` FROM %s
		WHERE tenant = $1 AND length(id) = 17 AND id > $2 AND bucket + 0 > (SELECT purged FROM meta WHERE one = 1)
		ORDER BY id LIMIT $3`
	listSubjectSQL = `SELECT ` + columns + ` FROM records
		WHERE tenant = $1 AND subject = $2 AND octet_length(id) = 17 AND bucket >= $3 AND bucket < $4 AND (bucket, id) > ($5, $6) AND ` + live + `
		ORDER BY bucket, id LIMIT $7`
)

// List implements store.Store. It reads page by page, each as it is at that moment.
func (s *Store) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		days, err := s.listed(ctx, q.After)
		for err == nil && len(days) > 0 {
			n := 1 // a statement over several days would begin with each of them, in the order of ids
			if q.Subject != "" {
				n = min(len(days), listDays)
			}
			part := days[:n]
			days = days[n:]
			for more := true; more; {
				var page []*store.Record
				if page, err = s.listPage(ctx, q, part); err != nil {
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

func (s *Store) listPage(ctx context.Context, q store.Query, days []int) (page []*store.Record, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.exit()
	after := idBytes(q.After)
	if q.Subject == "" {
		page, err = s.records(ctx, fmt.Sprintf(listSQL, tableOf(days[0])), int64(q.Tenant), after, listPage)
		if hasCode(err, codeUndefinedTable) {
			return nil, nil // it was purged meanwhile
		}
		return page, wrap("list", err)
	}
	from, _ := bounds(days[0])
	_, to := bounds(days[len(days)-1])
	bucket := 0
	if !q.After.IsZero() {
		bucket = int(first(q.After))
	}
	page, err = s.records(ctx, listSubjectSQL, int64(q.Tenant), []byte(q.Subject), from, to, bucket, after, listPage)
	return page, wrap("list", err)
}

// foundSQL goes by the index that List finds the roots of a subject by. The limit has it look for each by itself, rather than read
// the whole index.
const foundSQL = `SELECT w.n FROM unnest($1::bigint[], $2::bytea[], $3::integer[], $4::bytea[]) WITH ORDINALITY AS w (tenant, subject, bucket, id, n)
	CROSS JOIN LATERAL (
		SELECT FROM records r WHERE r.tenant = w.tenant AND r.subject = w.subject AND r.bucket = w.bucket AND r.id || ''::bytea = w.id
			AND octet_length(r.id) = 17 AND r.bucket = ANY ($5) LIMIT 1
	) r`

// Found reports of each of the roots whether the list of its subject finds it, as long as its bucket is not purged. It is for
// checking a whole store: to list subject by subject takes the server many times as long.
func (s *Store) Found(ctx context.Context, roots []*store.Record) ([]bool, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.exit()
	n := len(roots)
	tenants, subjects, buckets, ids := make([]int64, n), make([][]byte, n), make([]int32, n), make([][]byte, n)
	var all []int32
	for i, r := range roots {
		b := int32(r.ID.Bucket())
		tenants[i], subjects[i], buckets[i], ids[i] = int64(r.Tenant), []byte(r.Subject), b, idBytes(r.ID)
		if !slices.Contains(all, b) {
			all = append(all, b)
		}
	}
	found := make([]bool, n)
	err := s.with(ctx, func(ctx context.Context, c *pgx.Conn) error {
		rows, err := c.Query(ctx, foundSQL, tenants, subjects, buckets, ids, all)
		if err != nil {
			return err
		}
		var i int
		_, err = pgx.ForEachRow(rows, []any{&i}, func() error {
			found[i-1] = true
			return nil
		})
		return err
	})
	return found, wrap("find", err)
}
