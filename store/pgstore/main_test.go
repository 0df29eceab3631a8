package pgstore

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// shared is a server for all tests that do it no harm. Each has a schema of its own there.
var shared *servers.Postgres

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) (code int) {
	flag.Parse()
	if f := flag.Lookup("test.fuzzworker"); f != nil && f.Value.String() == "true" {
		return m.Run() // parsers need no server
	}
	config := []string{"max_connections = 300"}
	if flag.Lookup("test.bench").Value.String() == "" {
		config = append(config, "fsync = off") // what matters here is not on the disk; benchmarks are to be true
	}
	dir, err := os.MkdirTemp("", "pgstore-")
	if err == nil {
		defer os.RemoveAll(dir)
		shared, err = servers.StartPostgres(dir, config...)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shared.Stop()
	if code = m.Run(); code != 0 {
		return code
	}
	shared.Stop() // its keeper is a goroutine, too
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

var schemas atomic.Int64

// newSchema returns the name of a schema that no other test has.
func newSchema() string { return fmt.Sprintf("test_%d", schemas.Add(1)) }

func openOn(t testing.TB, url string, o Options) *Store {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	s, err := Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openShared(t testing.TB) *Store { return openOn(t, shared.URL, Options{Schema: newSchema()}) }

// ownServer starts a server for a test that harms it.
func ownServer(t testing.TB, config ...string) *servers.Postgres {
	t.Helper()
	p, err := servers.StartPostgres(t.TempDir(), config...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop() })
	return p
}

// sql runs a statement as an administrator would, in the store's schema.
func (s *Store) sql(t testing.TB, sql string, args ...any) {
	t.Helper()
	err := s.with(t.Context(), func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, sql, args...)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// query returns what a query returns.
func (s *Store) query(t testing.TB, sql string, args ...any) (n int64) {
	t.Helper()
	err := s.with(t.Context(), func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, sql, args...).Scan(&n)
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// newRoot returns a new session's record that expires in 30 days.
func newRoot(subject string) *store.Record {
	return newRootUntil(subject, time.Now().Add(30*24*time.Hour))
}

func newRootUntil(subject string, absolute time.Time) *store.Record {
	var random [14]byte
	rand.Read(random[:])
	ms := absolute.UnixMilli()
	payload := make([]byte, storetest.BenchPayload)
	rand.Read(payload)
	return &store.Record{ID: store.NewRootID(store.BucketOf(ms), random, 1, subject), Kind: 'b', Tenant: 1, Subject: subject,
		Created: time.Now().UnixMilli(), Absolute: ms, Version: 1, Payload: payload}
}

func put(t testing.TB, s *Store, rs ...*store.Record) {
	t.Helper()
	for _, r := range rs {
		if err := s.Apply(t.Context(), r.ID, store.Put(r, r.Version-1)); err != nil {
			t.Fatalf("Apply = %v", err)
		}
	}
}

func get(t testing.TB, s *Store, id store.ID) *store.Record {
	t.Helper()
	rs, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatalf("Get = %v", err)
	}
	return rs[0]
}

// until waits until something is so.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 seconds: %s", what)
		}
	}
}
