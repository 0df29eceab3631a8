package pgstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The migrations, a file each. A migration only adds: the program of the release before works on the schema after it. One
// that takes away what that program uses comes a release later, and its line "-- needs: N" names the migration whose
// program is the oldest that can work from then on.
//
//go:embed migrations/*.sql
var migrationFiles embed.FS

type migration struct {
	number int
	name   string
	needs  int
	sql    string
}

var (
	migrationName = regexp.MustCompile(`^([0-9]{4})_[a-z0-9_]+\.sql$`)
	migrationHead = regexp.MustCompile(`^-- needs: ([0-9]+)\n`)
)

// migrations returns all of them in their order.
func migrations() ([]migration, error) {
	files, err := migrationFiles.ReadDir("migrations")
	if err != nil {
		return nil, err
	}
	var all []migration
	for _, f := range files {
		b, err := migrationFiles.ReadFile("migrations/" + f.Name())
		if err != nil {
			return nil, err
		}
		name, head := migrationName.FindStringSubmatch(f.Name()), migrationHead.FindSubmatch(b)
		if name == nil || head == nil {
			return nil, fmt.Errorf("pgstore: migration %s: want NNNN_name.sql that begins with a line -- needs: N", f.Name())
		}
		number, _ := strconv.Atoi(name[1])
		needs, _ := strconv.Atoi(string(head[1]))
		all = append(all, migration{number, f.Name(), needs, string(b)})
	}
	slices.SortFunc(all, func(a, b migration) int { return cmp.Compare(a.number, b.number) })
	return all, nil
}

// prepare looks at the server and brings the schema up to date. It returns the name of the data.
func prepare(ctx context.Context, config *pgxpool.Config, o Options) (life string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return "", fmt.Errorf("pgstore: connect: %w", err)
	}
	defer disconnect(c)
	if isPlain(c) {
		o.Logger.Warn("store: the connection to PostgreSQL is not encrypted: add sslmode=verify-full to the URL")
	}
	v, err := setUp(ctx, c, o.Schema)
	if err != nil {
		return "", wrap("connect", err)
	}
	if v.fsync == "off" || v.fullPages == "off" {
		o.Logger.Error("store: PostgreSQL DOES NOT KEEP ITS DATA SAFE: a crash of its machine may lose or damage all of it; set fsync and full_page_writes to on",
			"fsync", v.fsync, "full_page_writes", v.fullPages)
	}
	all, err := migrations()
	if err != nil {
		return "", err
	}
	if life, err = current(ctx, c, o.Schema, all, v.system); err != nil || life != "" {
		return life, wrap("schema "+o.Schema, err)
	}
	life, err = migrate(ctx, c, o, all, v.system)
	return life, wrap("schema "+o.Schema, err)
}

// current returns the name of the data if nothing is left to do, so that a role that may only use the tables will do.
func current(ctx context.Context, c *pgx.Conn, schema string, all []migration, system int64) (life string, err error) {
	var there bool
	err = c.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, schema+".schema_migrations").Scan(&there)
	if err != nil || !there {
		return "", err
	}
	done, err := applied(ctx, c, all)
	if err != nil || len(done) < len(all) {
		return "", err
	}
	var on int64
	if err := c.QueryRow(ctx, `SELECT life, system FROM meta WHERE one = 1`).Scan(&life, &on); err != nil {
		return "", err
	}
	if on != system {
		return "", nil
	}
	return life, nil
}

// applied returns the numbers of the known migrations that were made, and refuses a schema that is too new.
func applied(ctx context.Context, c querier, all []migration) (map[int]bool, error) {
	rows, err := c.Query(ctx, `SELECT version, needs FROM schema_migrations`)
	if err != nil {
		return nil, err
	}
	newest := all[len(all)-1].number
	done := map[int]bool{}
	var version, needs int
	_, err = pgx.ForEachRow(rows, []any{&version, &needs}, func() error {
		if needs > newest {
			return fmt.Errorf("it was brought to version %d by a newer program, and needs one that knows version %d; this one knows %d: use the newer program", version, needs, newest)
		}
		if version <= newest {
			done[version] = true
		}
		return nil
	})
	return done, err
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// migrate makes what is missing, in one transaction, while other nodes wait.
func migrate(ctx context.Context, c *pgx.Conn, o Options, all []migration, system int64) (life string, err error) {
	tx, err := c.Begin(ctx)
	if err != nil {
		return "", err
	}
	defer tx.Rollback(ctx)
	exec := func(sql string, args ...any) {
		if err == nil {
			_, err = tx.Exec(ctx, sql, args...)
		}
	}
	exec(`SELECT set_config('lock_timeout', '0', true), set_config('statement_timeout', '0', true)`)
	exec(`SELECT pg_advisory_xact_lock($1)`, int64(hash("migrate", o.Schema)))
	var there bool // a role that may not make schemas may be given one
	if err == nil {
		err = tx.QueryRow(ctx, `SELECT to_regnamespace($1) IS NOT NULL`, o.Schema).Scan(&there)
	}
	if !there {
		exec(`CREATE SCHEMA "` + o.Schema + `"`)
	}
	exec(`CREATE TABLE IF NOT EXISTS schema_migrations (
		version integer PRIMARY KEY, name text NOT NULL, needs integer NOT NULL, applied timestamptz NOT NULL DEFAULT now())`)
	if err != nil {
		return "", err
	}
	done, err := applied(ctx, tx, all)
	if err != nil {
		return "", err
	}
	for _, m := range all {
		if done[m.number] {
			continue
		}
		if _, err := tx.Conn().PgConn().Exec(ctx, m.sql).ReadAll(); err != nil {
			return "", fmt.Errorf("migration %s: %w", m.name, err)
		}
		exec(`INSERT INTO schema_migrations (version, name, needs) VALUES ($1, $2, $3)`, m.number, m.name, m.needs)
		o.Logger.Info("store: schema migrated", "schema", o.Schema, "migration", m.name)
	}
	exec(`INSERT INTO meta (life, system) VALUES ($1, $2) ON CONFLICT DO NOTHING`, rand.Text(), system)
	if err != nil {
		return "", err
	}
	if life, err = adopt(ctx, tx, o, system); err != nil {
		return "", err
	}
	return life, tx.Commit(ctx)
}

// adopt makes data that was restored on another server this server's: transaction ids in it are of the old one, so that
// no place in its logs means anything any more. Records stay as they are.
func adopt(ctx context.Context, tx pgx.Tx, o Options, system int64) (life string, err error) {
	var on int64
	if err := tx.QueryRow(ctx, `SELECT life, system FROM meta WHERE one = 1`).Scan(&life, &on); err != nil {
		return "", err
	}
	if on == system {
		return life, nil
	}
	life = rand.Text()
	_, err1 := tx.Exec(ctx, `UPDATE meta SET life = $1, system = $2 WHERE one = 1`, life, system)
	_, err2 := tx.Exec(ctx, `TRUNCATE changes, events, boot`)
	o.Logger.Warn("store: the data was restored from another server: its events are dropped, and watchers begin anew", "schema", o.Schema)
	return life, errors.Join(err1, err2)
}
