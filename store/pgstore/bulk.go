package pgstore

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/store"
)

// scanPage is how many records are in a batch of a scan.
const scanPage = 250

const scanSQL = `SELECT ` + columns + ` FROM records WHERE bucket >= $1 AND bucket < $2 AND id > $3 AND ` + live + ` ORDER BY id LIMIT $4`

// Scan implements store.Bulk. It reads partition by partition, each in the order of ids.
func (s *Store) Scan(ctx context.Context, since store.Cursor) iter.Seq2[store.Batch, error] {
	return func(yield func(store.Batch, error) bool) {
		var last store.ID
		day := 0
		if since != "" {
			var ok bool
			if last, ok = parseScanCursor(s.life, since); !ok {
				yield(store.Batch{}, store.ErrGap)
				return
			}
			day = dayOf(last.Bucket())
		}
		for {
			records, at, err := s.scan(ctx, day, last)
			if err != nil {
				yield(store.Batch{}, wrap("scan", err))
				return
			}
			if len(records) == 0 {
				return
			}
			day, last = at, records[len(records)-1].ID
			if !yield(store.Batch{Records: records, Next: scanCursor(s.life, last)}, nil) {
				return
			}
		}
	}
}

// scan returns the next records, all of one day, behind record last of a day, and their day.
func (s *Store) scan(ctx context.Context, day int, last store.ID) ([]*store.Record, int, error) {
	if err := s.enter(ctx); err != nil {
		return nil, 0, err
	}
	defer s.exit()
	for read := false; ; read = true {
		from, to := bounds(day)
		records, err := s.records(ctx, scanSQL, from, to, idBytes(last), scanPage)
		if err != nil || len(records) > 0 {
			return records, day, err
		}
		if read && day > never {
			return nil, day, nil
		}
		days, err := s.days(ctx)
		if err != nil {
			return nil, 0, err
		}
		i := slices.IndexFunc(days, func(d int) bool { return d > day })
		if i < 0 {
			return nil, day, nil
		}
		day, last = days[i], store.ID{}
	}
}

var loadSQL = func() string {
	const row = `created, absolute, marked, version, tenant, bucket, kind, id, subject, client, reason, payload`
	var set []string
	for _, column := range strings.Split(`created, absolute, marked, version, tenant, kind, subject, client, reason, payload`, ", ") {
		set = append(set, fmt.Sprintf(`%[1]s = CASE WHEN excluded.version > r.version THEN excluded.%[1]s ELSE r.%[1]s END`, column))
	}
	// Of two that are of one generation, the stored one's time goes if the record is replaced, and the loaded one's if not:
	// as store.Newer has it.
	return `INSERT INTO records AS r (` + row + `, last_seen, seen_gen, seen_at)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::integer[], $7::smallint[],
			$8::bytea[], $9::bytea[], $10::bytea[], $11::bytea[], $12::bytea[], $13::bigint[], $14::bigint[], $15::bigint[])
		ON CONFLICT (id, bucket) DO UPDATE SET ` + strings.Join(set, ", ") + `,
			last_seen = greatest(r.last_seen, excluded.last_seen),
			seen_gen = greatest(r.seen_gen, excluded.seen_gen),
			seen_at = CASE
				WHEN excluded.seen_gen > r.seen_gen THEN excluded.seen_at
				WHEN excluded.seen_gen = r.seen_gen AND excluded.version <= r.version THEN excluded.seen_at
				ELSE r.seen_at END
		WHERE excluded.version > r.version OR excluded.last_seen > r.last_seen OR excluded.seen_gen > r.seen_gen
			OR excluded.seen_gen = r.seen_gen AND excluded.seen_at <> r.seen_at`
}()

// Load implements store.Bulk. It is one statement.
func (s *Store) Load(ctx context.Context, records []*store.Record) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	l, err := s.loading(records)
	if err != nil {
		return wrap("load", err)
	}
	if len(l.ids) == 0 {
		return nil
	}
	for range tries {
		if err = s.haveDays(ctx, l.days); err != nil {
			break
		}
		purged := 0
		err = s.with(ctx, func(ctx context.Context, c *pgx.Conn) error {
			if err := c.QueryRow(ctx, `SELECT purged FROM meta WHERE one = 1`).Scan(&purged); err != nil || l.first <= purged {
				return err
			}
			_, err := c.Exec(ctx, loadSQL, l.created, l.absolute, l.marked, l.version, l.tenant, l.bucket, l.kind,
				l.ids, l.subject, l.client, l.reason, l.payload, l.lastSeen, l.seenGen, l.seenAt)
			return err
		})
		switch {
		case err == nil && l.first > purged:
			return nil
		case err == nil:
			if err = s.revive(ctx); err == nil {
				err = errPurged
			}
		case isNoPartition(err):
			s.partitions.forget(l.days)
		case hasCode(err, codeDiskFull):
			return fmt.Errorf("pgstore: load: %w: %w", store.ErrFull, err)
		case !hasCode(err, codeDeadlock, codeSerialization):
			return wrap("load", err)
		}
	}
	return wrap("load", err)
}

// A load is the arguments of loadSQL.
type load struct {
	days  []int
	first int // the lowest bucket

	created, absolute, marked, version, tenant, lastSeen, seenGen, seenAt []int64
	bucket                                                                []int32
	kind                                                                  []int16
	ids, subject, client, reason, payload                                 [][]byte
}

// loading checks the records and sorts them. One that is named twice is loaded over itself.
func (s *Store) loading(records []*store.Record) (*load, error) {
	if len(records) > store.MaxLoad {
		return nil, fmt.Errorf("%w: %d records, want at most %d", store.ErrBadOps, len(records), store.MaxLoad)
	}
	once := make(map[store.ID]*store.Record, len(records))
	for i, r := range records {
		switch {
		case r == nil || r.ID.IsZero() || r.Version == 0 || r.Version > math.MaxInt64:
			return nil, fmt.Errorf("%w: record %d has no id, or no version that can be", store.ErrBadOps, i)
		case len(r.Payload) > store.MaxPayload || len(r.Subject) > store.MaxText || len(r.Client) > store.MaxText || len(r.Reason) > store.MaxReason:
			return nil, fmt.Errorf("%w: record %v is too large", store.ErrBadOps, r.ID)
		}
		if old := once[r.ID]; old != nil {
			r = store.Newer(old, r)
		}
		once[r.ID] = r
	}
	sorted := make([]*store.Record, 0, len(once))
	for _, r := range once {
		sorted = append(sorted, r)
	}
	slices.SortFunc(sorted, func(a, b *store.Record) int { return a.ID.Compare(b.ID) })
	l := &load{first: int(store.NoBucket)}
	for _, r := range sorted {
		l.add(r)
	}
	return l, nil
}

func (l *load) add(r *store.Record) {
	bucket := r.ID.Bucket()
	if day := dayOf(bucket); !slices.Contains(l.days, day) {
		l.days = append(l.days, day)
	}
	l.first = min(l.first, int(bucket))
	l.created, l.absolute, l.marked = append(l.created, r.Created), append(l.absolute, r.Absolute), append(l.marked, r.Marked)
	l.version, l.tenant = append(l.version, int64(r.Version)), append(l.tenant, int64(r.Tenant))
	l.lastSeen, l.seenGen, l.seenAt = append(l.lastSeen, r.LastSeen), append(l.seenGen, int64(r.SeenGen)), append(l.seenAt, r.SeenAt)
	l.bucket, l.kind = append(l.bucket, int32(bucket)), append(l.kind, int16(r.Kind))
	l.ids, l.subject, l.client = append(l.ids, idBytes(r.ID)), append(l.subject, []byte(r.Subject)), append(l.client, []byte(r.Client))
	payload := r.Payload
	if payload == nil {
		payload = []byte{}
	}
	l.reason, l.payload = append(l.reason, []byte(r.Reason)), append(l.payload, payload)
}
