package pgstore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/store"
)

// Purge implements store.Store. It writes down through which bucket all is gone, which every other call goes by from then
// on, and drops the partitions of days that have gone as a whole. The rows of a day that has gone in part stay until it
// has gone altogether. So nothing is ever deleted row by row, but in one case: a record is to be made in a bucket that is
// purged (see revive).
func (s *Store) Purge(ctx context.Context, b store.Bucket) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	through := int(min(b, store.NoBucket-1))
	err := s.with(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, `UPDATE meta SET purged = $1 WHERE one = 1 AND purged < $1`, through)
		return err
	})
	if err == nil {
		err = s.dropPurged(ctx)
	}
	return wrap("purge", err)
}

// dropTimeout is how long a partition may take to be detached, and again to be dropped. If it takes longer, the next one goes on.
const dropTimeout = "1500ms"

// dropPurged drops the partitions in which everything is purged. One node at a time does; another one's turn comes.
func (s *Store) dropPurged(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maintenance)
	defer cancel()
	return s.once(ctx, func(ctx context.Context, c *pgx.Conn) error {
		var mine bool
		if err := c.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, s.partitionLock()).Scan(&mine); err != nil || !mine {
			return err
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
			defer cancel()
			// If one of them fails, the connection has ended, and the lock with it.
			c.Exec(ctx, `SET statement_timeout = '`+statementTimeout+`'`)
			c.Exec(ctx, `SELECT pg_advisory_unlock($1)`, s.partitionLock())
		}()
		// Who makes a partition waits for the lock, and with it a sign-in, which must not take as long as somebody else reads.
		if _, err := c.Exec(ctx, `SET statement_timeout = '`+dropTimeout+`'`); err != nil {
			return err
		}
		var purged int
		if err := c.QueryRow(ctx, `SELECT purged FROM meta WHERE one = 1`).Scan(&purged); err != nil {
			return err
		}
		all, err := parts(ctx, c)
		if err != nil {
			return err
		}
		for _, p := range all {
			if _, to := bounds(p.day); p.attached && to-1 > purged {
				continue
			}
			if err := s.drop(ctx, c, p); err != nil {
				return fmt.Errorf("partition %s: %w", tableOf(p.day), err)
			}
		}
		return nil
	})
}

// drop detaches a partition without waiting for whoever reads the others, and drops it. If it is cut short, the next one
// who comes by goes on.
func (s *Store) drop(ctx context.Context, c *pgx.Conn, p part) error {
	s.partitions.forget([]int{p.day})
	table := tableOf(p.day)
	detach := ""
	switch {
	case p.pending:
		detach = `ALTER TABLE records DETACH PARTITION ` + table + ` FINALIZE`
	case p.attached:
		detach = `ALTER TABLE records DETACH PARTITION ` + table + ` CONCURRENTLY`
	}
	for _, sql := range []string{detach, `DROP TABLE ` + table} {
		if sql == "" {
			continue
		}
		if _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	}
	return nil
}

// revive makes purged buckets ones that records can be made in: what is purged is deleted, row by row, and nothing counts
// as purged any more. Nobody makes a session that ended long ago; loading a backup may.
func (s *Store) revive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maintenance)
	defer cancel()
	return s.once(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tx, err := c.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		for _, sql := range []string{
			`SELECT set_config('statement_timeout', '0', true)`,
			fmt.Sprintf(`SELECT pg_advisory_xact_lock(%d)`, s.partitionLock()), // nobody drops what becomes new
			`SELECT FROM meta WHERE one = 1 FOR UPDATE`,
			`DELETE FROM records WHERE bucket <= (SELECT purged FROM meta WHERE one = 1)`,
			`UPDATE meta SET purged = 0 WHERE one = 1`,
		} {
			if _, err := tx.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				return err
			}
		}
		return tx.Commit(ctx)
	})
}
