package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/store"
)

// A partition of records is named by its day, in days since 1970; the records that have no bucket are of day never.
const (
	never       = int(store.NoBucket) / 24
	neverSuffix = "never"
	prefix      = "records_"
	dayPrefix   = "d"
)

// dayOf returns the day in whose partition the bucket is.
func dayOf(b store.Bucket) int {
	if b == store.NoBucket {
		return never + 1
	}
	return int(b) / 24
}

// bounds returns the first bucket of a day, and the first that is not of it any more.
func bounds(day int) (from, to int) {
	if day > never {
		return int(store.NoBucket), int(store.NoBucket) + 1
	}
	return day * 24, min((day+1)*24, int(store.NoBucket))
}

// tableOf returns the name of a day's partition.
func tableOf(day int) string {
	if day > never {
		return prefix + neverSuffix
	}
	return prefix + dayPrefix + strconv.Itoa(day)
}

// dayOfTable returns the day whose partition has the name.
func dayOfTable(name string) (day int, ok bool) {
	suffix, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	if suffix == neverSuffix {
		return never + 1, true
	}
	number, ok := strings.CutPrefix(suffix, dayPrefix)
	day, err := strconv.Atoi(number)
	return day, ok && err == nil && day >= 0 && day <= never && tableOf(day) == name
}

// partitions remembers which partitions there are.
type partitions struct {
	mu    sync.RWMutex
	known map[int]struct{}
}

func (p *partitions) has(day int) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.known[day]
	return ok
}

func (p *partitions) set(days []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.known)
	for _, d := range days {
		p.known[d] = struct{}{}
	}
}

func (p *partitions) forget(days []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range days {
		delete(p.known, d)
	}
}

// A part is a partition as the catalog has it.
type part struct {
	day      int
	attached bool // else it was detached and is to be dropped
	pending  bool // its detaching was cut short
}

const partsSQL = `SELECT c.relname::text, i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false)
	FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = 'records'::regclass
	WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'records'::regclass)
		AND c.relkind = 'r' AND c.relname LIKE 'records\_%'`

// parts reads the catalog, in the order of days.
func parts(ctx context.Context, c querier) ([]part, error) {
	rows, err := c.Query(ctx, partsSQL)
	if err != nil {
		return nil, err
	}
	var all []part
	var name string
	var attached, pending bool
	_, err = pgx.ForEachRow(rows, []any{&name, &attached, &pending}, func() error {
		if day, ok := dayOfTable(name); ok {
			all = append(all, part{day, attached, pending})
		}
		return nil
	})
	slices.SortFunc(all, func(a, b part) int { return a.day - b.day })
	return all, err
}

// days returns the days that have a partition, in their order.
func (s *Store) days(ctx context.Context) (days []int, err error) {
	var all []part
	err = s.with(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		all, err = parts(ctx, c)
		return err
	})
	for _, p := range all {
		if p.attached && !p.pending {
			days = append(days, p.day)
		}
	}
	return days, err
}

// makeDays makes the partitions of days that have none. It locks nobody out: a table is made and then attached.
func (s *Store) makeDays(ctx context.Context, days []int) error {
	var there []int
	err := s.with(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tx, err := c.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, s.partitionLock()); err != nil {
			return err
		}
		all, err := parts(ctx, tx)
		if err != nil {
			return err
		}
		for _, day := range days {
			if err := makeDay(ctx, tx, all, day); err != nil {
				return fmt.Errorf("partition %s: %w", tableOf(day), err)
			}
		}
		there = there[:0]
		for _, p := range all {
			if p.attached && !p.pending {
				there = append(there, p.day)
			}
		}
		return tx.Commit(ctx)
	})
	if err == nil {
		s.partitions.set(append(there, days...))
	}
	return err
}

// partitionLock is held by whoever makes and drops partitions.
func (s *Store) partitionLock() int64 { return int64(hash("partitions", s.life)) }

func makeDay(ctx context.Context, tx pgx.Tx, all []part, day int) error {
	table := tableOf(day)
	var sql string
	if i := slices.IndexFunc(all, func(p part) bool { return p.day == day }); i >= 0 {
		switch p := all[i]; {
		case p.pending: // what is in it is purged
			sql = `ALTER TABLE records DETACH PARTITION ` + table + ` FINALIZE; DROP TABLE ` + table + `;`
		case p.attached:
			return nil
		default:
			sql = `DROP TABLE ` + table + `;`
		}
	}
	from, to := bounds(day)
	// Pages keep room for the next version of what is on them. What was touched is cleaned up early, and planned for.
	sql += fmt.Sprintf(`CREATE TABLE %[1]s (LIKE records INCLUDING ALL) WITH (fillfactor = 85,
			autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.1);
		ALTER TABLE records ATTACH PARTITION %[1]s FOR VALUES FROM (%[2]d) TO (%[3]d)`, table, from, to)
	_, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// ahead is how many days from today on always have a partition.
const ahead = 2

// prepareDays makes the partitions that will be needed: today's and the next ones, the one for what never expires,
// and the day after each whose partition is in use. So the first sign-in of a day finds the partition of its expiry, however
// long sign-ins last here.
func (s *Store) prepareDays(ctx context.Context) error {
	days, err := s.days(ctx)
	if err != nil {
		return err
	}
	s.partitions.set(days)
	var now time.Time
	var used []int
	err = s.with(ctx, func(ctx context.Context, c *pgx.Conn) error {
		used = used[:0]
		if err := c.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
			return err
		}
		today := int(now.Unix() / 86400)
		for _, day := range days {
			if day < today || day >= never || s.partitions.has(day+1) {
				continue
			}
			var some bool
			err := c.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+tableOf(day)+`)`, pgx.QueryExecModeExec).Scan(&some)
			if err != nil && !hasCode(err, codeUndefinedTable) {
				return err
			}
			if some {
				used = append(used, day+1)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range ahead + 1 {
		used = append(used, int(now.Unix()/86400)+i)
	}
	used = append(used, never+1)
	used = slices.DeleteFunc(used, s.partitions.has)
	slices.Sort(used)
	if used = slices.Compact(used); len(used) == 0 {
		return nil
	}
	return s.makeDays(ctx, used)
}

// maintenance is how often partitions are made ahead and logs are trimmed.
const maintenance = time.Minute

// maintain does what has to be done from time to time.
func (s *Store) maintain(ctx context.Context) {
	t := time.NewTicker(maintenance)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		err := errors.Join(s.prepareDays(ctx), s.dropPurged(ctx), s.turnLogs(ctx))
		if err != nil && ctx.Err() == nil {
			s.log.Warn("store: maintenance was left for later", "err", err)
		}
	}
}
