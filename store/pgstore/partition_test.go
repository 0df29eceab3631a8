package pgstore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/store"
)

func TestDays(t *testing.T) {
	for _, tt := range []struct {
		bucket store.Bucket
		table  string
	}{
		{0, "records_d0"}, {23, "records_d0"}, {24, "records_d1"}, {499_444, "records_d20810"},
		{store.NoBucket - 1, "records_d699050"}, {store.NoBucket, "records_never"},
	} {
		day := dayOf(tt.bucket)
		if from, to := bounds(day); tableOf(day) != tt.table || int(tt.bucket) < from || int(tt.bucket) >= to {
			t.Errorf("bucket %d is in %s, from %d to %d; want %s", tt.bucket, tableOf(day), from, to, tt.table)
		}
		if got, ok := dayOfTable(tt.table); !ok || got != day {
			t.Errorf("dayOfTable(%s) = %d, %v, want %d", tt.table, got, ok, day)
		}
	}
	for _, name := range []string{"records", "records_", "records_d", "records_d01", "records_d-1", "records_dx", "records_d699051", "events_1"} {
		if day, ok := dayOfTable(name); ok {
			t.Errorf("dayOfTable(%s) = %d", name, day)
		}
	}
}

func TestPartitionsAhead(t *testing.T) {
	s := openShared(t)
	today := int(time.Now().Unix() / 86400)
	days := func() []int {
		t.Helper()
		days, err := s.days(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return days
	}
	want := []int{today, today + 1, today + 2, never + 1}
	if got := days(); !slices.Equal(got, want) {
		t.Errorf("days after Open = %v, want %v", got, want)
	}
	put(t, s, newRootUntil("mia", time.Unix(int64(today+30)*86400+5000, 0)))
	if err := s.prepareDays(t.Context()); err != nil {
		t.Fatal(err)
	}
	want = []int{today, today + 1, today + 2, today + 30, today + 31, never + 1}
	if got := days(); !slices.Equal(got, want) {
		t.Errorf("days after maintenance = %v, want %v", got, want)
	}
	if err := s.prepareDays(t.Context()); err != nil { // the next one is empty, and has no next one
		t.Fatal(err)
	}
	if got := days(); !slices.Equal(got, want) {
		t.Errorf("days after maintenance = %v, want %v", got, want)
	}
}

// TestPartitionsDropped looks at what Purge leaves, with a node beside that has never heard of it.
func TestPartitionsDropped(t *testing.T) {
	s := openShared(t)
	o := openOn(t, shared.URL, s.o)
	start := time.Now().Add(-10 * 24 * time.Hour).Truncate(24 * time.Hour)
	var rs []*store.Record
	for i := range 12 {
		rs = append(rs, newRootUntil("mia", start.Add(time.Duration(i)*12*time.Hour+30*time.Minute)))
	}
	put(t, o, rs...)
	through := rs[7].ID.Bucket() // of the fourth day, the second half
	if err := s.Purge(t.Context(), through); err != nil {
		t.Fatal(err)
	}
	days, err := s.days(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := int(start.Unix() / 86400)
	for i := range 6 {
		if got, want := slices.Contains(days, first+i), i >= 3; got != want {
			t.Errorf("partition %d is there: %v, want %v", i, got, want)
		}
	}
	for i, r := range rs {
		if got := get(t, o, r.ID); (got == nil) != (i <= 7) {
			t.Errorf("record %d is %v", i, got)
		}
	}
	if n := s.query(t, `SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname LIKE 'records\_d%' AND relkind = 'r'`); n != int64(len(days)-1) {
		t.Errorf("%d tables, %d partitions", n, len(days))
	}
	// The other node knows the dropped partitions, and makes them anew; and puts where only the watermark has gone by.
	for _, r := range []*store.Record{rs[0], rs[6], rs[7]} {
		put(t, o, r)
		if get(t, s, r.ID) == nil {
			t.Errorf("a record that was put after the purge is not there")
		}
	}
	if n := s.query(t, `SELECT purged FROM meta`); n != 0 {
		t.Errorf("purged = %d after a record was put there", n)
	}
}

// TestPartitionLeftOver has a node die between detaching and dropping.
func TestPartitionLeftOver(t *testing.T) {
	s := openShared(t)
	old := newRootUntil("mia", time.Now().Add(-100*time.Hour))
	put(t, s, old)
	table := tableOf(dayOf(old.ID.Bucket()))
	s.sql(t, `ALTER TABLE records DETACH PARTITION `+table)
	s.partitions.forget([]int{dayOf(old.ID.Bucket())})
	put(t, s, old) // makes it anew
	if get(t, s, old.ID) == nil {
		t.Error("the record is not there")
	}
	s.sql(t, `ALTER TABLE records DETACH PARTITION `+table)
	put(t, s, newRoot("mia"))
	if err := s.dropPurged(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.query(t, `SELECT count(*) FROM pg_class WHERE relname = $1 AND relnamespace = current_schema()::regnamespace`, table); n != 0 {
		t.Error("the table that was left over is still there")
	}
}

// TestPurgeCutShort has somebody read for long, so that a partition cannot be detached, and the node that waits for it give up.
// Whoever comes next goes on, to drop it or to make it anew.
func TestPurgeCutShort(t *testing.T) {
	for _, next := range []string{"drop", "make"} {
		s := openShared(t)
		old := newRootUntil("mia", time.Now().Add(-100*time.Hour))
		put(t, s, old, newRoot("mia"))
		reader, err := pgx.Connect(t.Context(), shared.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close(context.Background())
		if _, err := reader.Exec(t.Context(), `BEGIN; SELECT count(*) FROM `+s.o.Schema+`.records`); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := s.Purge(ctx, old.ID.Bucket()+24); err == nil {
			t.Fatal("Purge = nil beside a reader that holds the partition")
		}
		if n := s.query(t, `SELECT count(*) FROM pg_inherits WHERE inhdetachpending AND inhparent = 'records'::regclass`); n != 1 {
			t.Fatalf("%d partitions are being detached, want 1", n)
		}
		if get(t, s, old.ID) != nil {
			t.Error("what is purged is there")
		}
		if _, err := reader.Exec(t.Context(), `COMMIT`); err != nil {
			t.Fatal(err)
		}
		if next == "drop" {
			if err := s.dropPurged(t.Context()); err != nil {
				t.Fatal(err)
			}
			if get(t, s, old.ID) != nil {
				t.Error("what is purged is there")
			}
			continue
		}
		put(t, s, old)
		if get(t, s, old.ID) == nil {
			t.Error("what was put after the purge is not there")
		}
	}
}

// TestSignInsBesideAPurgeThatWaits has somebody read for long, so that a partition cannot be detached. Who signs in meanwhile, for a day
// that has no partition yet, does not wait until that is given up.
func TestSignInsBesideAPurgeThatWaits(t *testing.T) {
	t.Parallel() // it waits, mostly
	s := openShared(t)
	o := openOn(t, shared.URL, s.o)
	old := newRootUntil("mia", time.Now().Add(-100*time.Hour))
	put(t, s, old)
	reader, err := pgx.Connect(t.Context(), shared.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close(context.Background())
	if _, err := reader.Exec(t.Context(), `BEGIN; SELECT count(*) FROM `+s.o.Schema+`.records`); err != nil {
		t.Fatal(err)
	}
	purged := make(chan error, 1)
	go func() { purged <- s.Purge(t.Context(), old.ID.Bucket()+24) }()
	until(t, "the partition is being detached", func() bool {
		return o.query(t, `SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%DETACH%' AND query LIKE '%`+tableOf(dayOf(old.ID.Bucket()))+`%' AND wait_event_type = 'Lock'`) > 0
	})
	for day := range 3 {
		r := newRootUntil("tom", time.Now().Add(time.Duration(90+day)*24*time.Hour))
		began := time.Now()
		put(t, o, r)
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("a sign-in took %v", d)
		}
	}
	if err := <-purged; err == nil {
		t.Error("Purge = nil beside a reader that holds the partition")
	}
	if n := s.query(t, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'
		AND ((classid::bigint << 32) | objid::bigint) = $1`, s.partitionLock()); n != 0 {
		t.Error("the lock is still held")
	}
}

// TestPurgeUnderLoad makes and drops partitions while others read, list and write beside them. Nobody is to notice.
func TestPurgeUnderLoad(t *testing.T) {
	s := openShared(t)
	o := openOn(t, shared.URL, s.o)
	r := newRoot("mia")
	put(t, s, r)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var calls atomic.Int64
	for _, n := range []*Store{s, o} {
		for range 2 {
			wg.Go(func() {
				for ctx.Err() == nil {
					mine := newRoot("tom")
					for range 5 {
						if err := n.Apply(t.Context(), mine.ID, store.Put(mine, mine.Version-1)); err != nil {
							t.Errorf("Apply = %v", err)
						}
						mine = mine.Clone()
						mine.Version++
					}
					if err := n.Touch(t.Context(), []store.Touch{{ID: mine.ID, At: 1}, {ID: r.ID, At: 1}}); err != nil {
						t.Errorf("Touch = %v", err)
					}
					if rs, err := n.Get(t.Context(), r.ID, mine.ID); err != nil || rs[0] == nil || rs[1] == nil {
						t.Errorf("Get = %v, %v", rs, err)
					}
					found := 0
					for _, err := range n.List(t.Context(), store.Query{Tenant: 1, Subject: "mia"}) {
						if err != nil {
							t.Errorf("List = %v", err)
						}
						found++
					}
					if found == 0 {
						t.Error("List yields nothing")
					}
					calls.Add(1)
				}
			})
		}
	}
	base := time.Now().Add(-1000 * 24 * time.Hour)
	for day := range rounds(25, 300) {
		old := newRootUntil("old", base.Add(time.Duration(day)*24*time.Hour))
		put(t, s, old)
		if err := o.Purge(t.Context(), old.ID.Bucket()+24); err != nil {
			t.Errorf("Purge = %v", err)
		}
		if get(t, s, old.ID) != nil {
			t.Error("what was purged is there")
		}
	}
	stop()
	wg.Wait()
	t.Logf("%d rounds of calls beside %d partitions made and dropped", calls.Load(), rounds(25, 300))
}
