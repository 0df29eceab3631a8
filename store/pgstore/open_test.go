package pgstore

import (
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// with returns the shared server's URL with a setting.
func with(t testing.TB, key, value string) string {
	t.Helper()
	u, err := url.Parse(shared.URL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(key, value)
	u.RawQuery = q.Encode()
	return u.String()
}

func password(t testing.TB) string {
	t.Helper()
	u, err := url.Parse(shared.URL)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := u.User.Password()
	return p
}

func TestOpenRefuses(t *testing.T) {
	wrongDatabase := strings.Replace(shared.URL, "/postgres?", "/nothing?", 1)
	for _, tt := range []struct {
		name, url string
		o         Options
		want      string
	}{
		{"synchronous_commit", with(t, "synchronous_commit", "off"), Options{}, "synchronous_commit is off"},
		{"a replica", with(t, "default_transaction_read_only", "on"), Options{}, "read only connection"},
		{"a schema's name", shared.URL, Options{Schema: `x"; DROP`}, "Schema"},
		{"connections", shared.URL, Options{MaxConns: 1}, "MaxConns"},
		{"another scheme", "redis://localhost", Options{}, "postgres://"},
		{"no such database", wrongDatabase, Options{}, "nothing"},
	} {
		s, err := Open(t.Context(), tt.url, tt.o)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Open = %v, want an error that says %q", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), password(t)) {
			t.Errorf("%s: the error shows the password", tt.name)
		}
	}
}

func TestErrorsHideThePassword(t *testing.T) {
	const secret = "hush"
	for _, u := range []string{
		"postgres://mia:hu%sh@localhost/x", "postgres://mia:hush/x@localhost/x", "postgres://mia:1/hush@localhost/x",
		"postgres://mia:hush@localhost:port/x", "postgres://mia:hush@localhost:1/x", "postgres://mia:hush@[::1/x",
		"postgres://mia:hush@localhost/x?sslmode=hush", "postgres://mia:hush@localhost/x?sslrootcert=/hush",
		"postgres://mia@localhost:1/x?password=hush", "postgres://mia:a@hush@localhost:1/x", "postgres://mia:hush#x@localhost/x",
	} {
		_, err := Open(t.Context(), u, Options{})
		if err == nil {
			t.Fatalf("Open(%s) = nil", u)
		}
		if strings.Contains(err.Error(), secret) {
			t.Errorf("Open(%s) = %v", u, err)
		}
	}
}

func TestStandbysAndLocalCommit(t *testing.T) {
	for _, tt := range []struct {
		v  server
		ok bool
	}{
		{server{version: 150000, synchronous: "on"}, true},
		{server{version: 150000, synchronous: "on", standbys: "a"}, true},
		{server{version: 150000, synchronous: "remote_apply", standbys: "a"}, true},
		{server{version: 150000, synchronous: "local"}, true},
		{server{version: 150000, synchronous: "local", standbys: "a"}, false},
		{server{version: 150000, synchronous: "remote_write", standbys: "a"}, false},
		{server{version: 150000, synchronous: "off"}, false},
		{server{version: 130010, synchronous: "on"}, false},
	} {
		if err := tt.v.check(); (err == nil) != tt.ok {
			t.Errorf("check(%+v) = %v", tt.v, err)
		}
	}
}

// TestOpenAtOnce opens an empty schema from many nodes at the same time. Each migration is made once.
func TestOpenAtOnce(t *testing.T) {
	schema := newSchema()
	stores := make([]*Store, 8)
	var all sync.WaitGroup
	for i := range stores {
		all.Go(func() {
			s, err := Open(t.Context(), shared.URL, Options{Schema: schema, MaxConns: 2})
			if err != nil {
				t.Errorf("Open = %v", err)
				return
			}
			stores[i] = s
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	defer func() {
		for _, s := range stores {
			s.Close()
		}
	}()
	all2, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	if n := stores[0].query(t, `SELECT count(*) FROM schema_migrations`); n != int64(len(all2)) {
		t.Errorf("%d migrations are written down, want %d", n, len(all2))
	}
	r := newRoot("mia")
	put(t, stores[0], r)
	for i, s := range stores {
		if s.life != stores[0].life || get(t, s, r.ID) == nil {
			t.Errorf("node %d does not see what node 0 made", i)
		}
	}
}

func TestOpenNewerSchema(t *testing.T) {
	s := openShared(t)
	s.sql(t, `INSERT INTO schema_migrations (version, name, needs) VALUES (99, '0099_more.sql', 1)`)
	openOn(t, shared.URL, s.o) // it only adds
	s.sql(t, `UPDATE schema_migrations SET needs = 99 WHERE version = 99`)
	if _, err := Open(t.Context(), shared.URL, s.o); err == nil || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("Open of a schema that is too new = %v", err)
	}
}

// TestOpenRestored opens data that was made on another server: transaction ids in its logs mean nothing here.
func TestOpenRestored(t *testing.T) {
	s := openShared(t)
	r := newRoot("mia")
	put(t, s, r)
	seq, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), r.ID, store.Emit(store.Event{Type: "e", ID: r.ID})); err != nil {
		t.Fatal(err)
	}
	var cursor store.Cursor
	for e := range seq {
		cursor = e.Cursor
		break
	}
	s.sql(t, `UPDATE meta SET system = system + 1`)
	o := openOn(t, shared.URL, s.o)
	if o.life == s.life {
		t.Error("the restored data has its old name")
	}
	if get(t, o, r.ID) == nil {
		t.Error("a record is gone")
	}
	if _, err := o.Watch(t.Context(), cursor); err != store.ErrGap {
		t.Errorf("Watch(a cursor of the other server) = %v, want ErrGap", err)
	}
	// The node that was there all the time must not go on as if nothing had happened.
	until(t, "the old node hears of it", func() bool { return s.Writable() != nil })
}

func TestWritable(t *testing.T) {
	s := openShared(t)
	if err := s.Writable(); err != nil {
		t.Errorf("Writable = %v", err)
	}
	s.fullAt.Store(int64(time.Since(epoch)))
	if err := s.Writable(); err == nil || !strings.Contains(err.Error(), store.ErrFull.Error()) {
		t.Errorf("Writable with a full disk = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Writable(); err != store.ErrClosed {
		t.Errorf("Writable after Close = %v", err)
	}
}

// TestPlainRole works as a role that is nothing special: it may make a schema, and has what it made.
func TestPlainRole(t *testing.T) {
	admin := openShared(t)
	schema := newSchema()
	admin.sql(t, `CREATE ROLE plain LOGIN PASSWORD 'plain'`)
	admin.sql(t, `GRANT CREATE ON DATABASE postgres TO plain`)
	u, err := url.Parse(shared.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("plain", "plain")
	s := openOn(t, u.String(), Options{Schema: schema})
	old, r := newRootUntil("mia", time.Now().Add(-100*time.Hour)), newRoot("mia")
	put(t, s, old, r)
	mark(t, s, r.ID)
	if err := s.Purge(t.Context(), old.ID.Bucket()+24); err != nil {
		t.Fatal(err)
	}
	if get(t, s, old.ID) != nil || get(t, s, r.ID) == nil {
		t.Error("not what was to be purged was purged")
	}
	if err := s.turnLog(t.Context(), "changes", changesParts, 0); err != nil {
		t.Fatal(err)
	}
}
