package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	changesParts  = 4
	changesPeriod = 30 * time.Minute // how long one part of the change log is written to
	eventsParts   = 8
	// eventsKept is how many turns of the events an event may be behind for a watcher to go on from it, likewise one fewer
	// than are there for certain.
	eventsKept = eventsParts - 3
)

// turnLogs empties the oldest part of each log and has it written to from now on, if it is time. Where it stands is a number
// that only grows, not a time: a clock that jumps empties one part early at most.
func (s *Store) turnLogs(ctx context.Context) error {
	return errors.Join(
		s.turnLog(ctx, "changes", changesParts, changesPeriod),
		s.turnLog(ctx, "events", eventsParts, s.o.KeepEvents/(eventsKept-1)),
	)
}

// turnLog does so for one log, unless nothing is in the part that is written to now. It waits for those who read for
// a moment only, since others wait behind it.
func (s *Store) turnLog(ctx context.Context, log string, parts int, period time.Duration) error {
	return s.with(ctx, func(ctx context.Context, c *pgx.Conn) error {
		tx, err := c.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx)
		var turn int
		err = tx.QueryRow(ctx, fmt.Sprintf(`SELECT %[1]s_turn FROM meta
			WHERE one = 1 AND %[1]s_turned < clock_timestamp() - make_interval(secs => $1) FOR UPDATE SKIP LOCKED`, log), period.Seconds()).Scan(&turn)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // not yet, or another node is at it
		}
		if err != nil {
			return err
		}
		var some bool
		if err := tx.QueryRow(ctx, fmt.Sprintf(`SELECT EXISTS (SELECT FROM %s_%d)`, log, turn%parts)).Scan(&some); err != nil || !some {
			return err
		}
		for _, sql := range []string{
			`SELECT set_config('lock_timeout', '100ms', true)`,
			fmt.Sprintf(`TRUNCATE %s_%d`, log, (turn+1)%parts),
			fmt.Sprintf(`UPDATE meta SET %[1]s_turn = %[1]s_turn + 1, %[1]s_turned = clock_timestamp() WHERE one = 1`, log),
		} {
			if _, err := tx.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("turn %s: %w", log, err)
			}
		}
		return tx.Commit(ctx)
	})
}
