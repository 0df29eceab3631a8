package pgstore

import (
	"testing"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/storetest"
)

func open(t *testing.T) store.Store    { return openShared(t) }
func openBulk(t *testing.T) store.Bulk { return openShared(t) }
func openBench(b *testing.B) store.Store {
	return openOn(b, shared.URL, Options{Schema: newSchema(), MaxConns: 64})
}
func BenchmarkStore(b *testing.B) { storetest.Bench(b, openBench) }
func TestStore(t *testing.T)      { storetest.RunLocal(t, open) }
func TestWatch(t *testing.T)      { storetest.RunWatch(t, open) }
func TestBulk(t *testing.T)       { storetest.RunBulk(t, openBulk) }

func TestModel(t *testing.T) {
	storetest.Sequences(t, 150, 5000)
	storetest.RunModel(t, open)
}

// TestGetWritesNothing counts on the server what validations write.
func TestGetWritesNothing(t *testing.T) {
	s := openOn(t, shared.URL, Options{Schema: newSchema(), MaxConns: 2})
	root := newRoot("mia")
	put(t, s, root)
	if err := s.Apply(t.Context(), store.SubjectID(1, "mia"), store.Put(&store.Record{ID: store.SubjectID(1, "mia"), Tenant: 1, Subject: "mia", Version: 1}, 0)); err != nil {
		t.Fatal(err)
	}
	const written = `SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = current_schema()`
	ids := []store.ID{root.ID, store.SubjectOf(root.ID)}
	count := func() (tuples, xid int64) {
		return s.query(t, written), s.query(t, `SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint`)
	}
	// The server counts with a delay: two records, the migration, and the rows of meta and boot.
	until(t, "what was written is counted", func() bool { tuples, _ := count(); return tuples == 5 })
	tuples, xid := count()
	for range 1000 {
		if rs, err := s.Get(t.Context(), ids...); err != nil || rs[0] == nil || rs[1] == nil {
			t.Fatalf("Get = %v, %v", rs, err)
		}
	}
	after, xidAfter := count()
	if after != tuples || xidAfter != xid {
		t.Errorf("1000 Gets wrote %d rows and took %d transaction ids", after-tuples, xidAfter-xid)
	}
}
