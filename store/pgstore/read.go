package pgstore

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/store"
)

// columns are the columns of a record, in the order in which record reads them.
const columns = `kind, tenant, created, absolute, marked, version, last_seen, seen_gen, seen_at, id, subject, client, reason, payload`

const numbers = 9 // that many columns are numbers

// live holds for what is not purged.
const live = `bucket > (SELECT purged FROM meta WHERE one = 1)`

// getSQL reads records by their ids; getSubjectsSQL also those of the subjects that some of them name. There the database
// makes the id of the subject's record as store.SubjectID does.
const (
	getSQL         = `SELECT ` + columns + ` FROM records WHERE bucket = ANY ($1) AND id = ANY ($2) AND ` + live
	getSubjectsSQL = `WITH named AS (` + getSQL + `)
		SELECT ` + columns + ` FROM named
		UNION ALL
		SELECT s.* FROM named n CROSS JOIN LATERAL (
			SELECT ` + columns + ` FROM records WHERE bucket = 16777215 AND id = '\xffffff'::bytea || substring(sha256(
				'afterlogin/subject/1'::bytea || '\x00'::bytea || substring(int8send(n.tenant) FROM 5) || n.subject) FROM 1 FOR 20)
		) s
		WHERE n.id = ANY ($3) AND n.subject <> ''`
)

// Get implements store.Store. It is one statement, which sees one moment.
func (s *Store) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.exit()
	var (
		keys    = make([][]byte, 0, len(ids))
		buckets = make([]int32, 0, len(ids))
		of      [][]byte // the roots whose subjects are asked for
	)
	for _, id := range ids {
		if id.IsZero() {
			continue
		}
		if id.IsSubjectOf() {
			id = id.Root()
			of = append(of, idBytes(id))
		}
		keys = append(keys, idBytes(id))
		if b := int32(id.Bucket()); !slices.Contains(buckets, b) {
			buckets = append(buckets, b)
		}
	}
	if len(keys) == 0 {
		return make([]*store.Record, len(ids)), nil
	}
	sql, args := getSQL, []any{buckets, keys}
	if of != nil {
		sql, args = getSubjectsSQL, append(args, of)
	}
	found, err := s.records(ctx, sql, args...)
	if err != nil {
		return nil, wrap("get", err)
	}
	return arrange(ids, found), nil
}

// arrange puts the records in the order in which they were asked for. Each that is given twice is given as a copy.
func arrange(ids []store.ID, found []*store.Record) []*store.Record {
	out, given := make([]*store.Record, len(ids)), make([]bool, len(found))
	at := func(id store.ID) int {
		return slices.IndexFunc(found, func(r *store.Record) bool { return r.ID == id })
	}
	for i, id := range ids {
		if id.IsSubjectOf() {
			root := at(id.Root())
			if root < 0 || found[root].Subject == "" {
				continue
			}
			id = store.SubjectID(found[root].Tenant, found[root].Subject)
		}
		n := at(id)
		switch {
		case n < 0:
		case given[n]:
			out[i] = found[n].Clone()
		default:
			out[i], given[n] = found[n], true
		}
	}
	return out
}

// records runs a query for records.
func (s *Store) records(ctx context.Context, sql string, args ...any) (out []*store.Record, err error) {
	err = s.with(ctx, func(ctx context.Context, c *pgx.Conn) error {
		out = out[:0]
		rows, err := c.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r, err := record(rows.RawValues())
			if err != nil {
				return err
			}
			out = append(out, r)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

var errRow = errors.New("a row that is no record")

// record makes a record of a row's columns, in the driver's binary format. It shares nothing with them.
func record(v [][]byte) (*store.Record, error) {
	if len(v) != numbers+5 || len(v[0]) != 2 {
		return nil, errRow
	}
	var n [numbers]int64
	n[0] = int64(binary.BigEndian.Uint16(v[0]))
	for i := 1; i < numbers; i++ {
		if len(v[i]) != 8 {
			return nil, errRow
		}
		n[i] = int64(binary.BigEndian.Uint64(v[i]))
	}
	id, err := store.ParseID(v[numbers])
	if err != nil {
		return nil, errRow
	}
	subject, client, reason := v[numbers+1], v[numbers+2], v[numbers+3]
	// One string for the three texts: one allocation.
	texts := string(slices.Concat(subject, client, reason))
	r := &store.Record{
		ID: id, Kind: byte(n[0]), Tenant: uint32(n[1]), Created: n[2], Absolute: n[3], Marked: n[4], Version: uint64(n[5]),
		LastSeen: n[6], SeenGen: uint32(n[7]), SeenAt: n[8],
		Subject: texts[:len(subject)], Client: texts[len(subject) : len(subject)+len(client)], Reason: texts[len(subject)+len(client):],
	}
	if len(v[numbers+4]) > 0 {
		r.Payload = slices.Clone(v[numbers+4])
	}
	return r, nil
}
