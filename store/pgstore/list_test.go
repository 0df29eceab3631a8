package pgstore

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/store"
)

// explain returns the server's plan for a statement.
func (s *Store) explain(t testing.TB, sql string, args ...any) string {
	t.Helper()
	var plan strings.Builder
	err := s.with(t.Context(), func(ctx context.Context, c *pgx.Conn) error {
		plan.Reset()
		rows, err := c.Query(ctx, "EXPLAIN "+sql, args...)
		if err != nil {
			return err
		}
		var line string
		_, err = pgx.ForEachRow(rows, []any{&line}, func() error {
			plan.WriteString(line + "\n")
			return nil
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return plan.String()
}

// TestListPlans looks at the server's plans, on partitions that nobody has gathered statistics of yet, ones whose statistics are old, and
// ones whose are new: always by the index that the statement is for, and nothing is sorted.
func TestListPlans(t *testing.T) {
	s := openShared(t)
	day := time.Unix((time.Now().Unix()/86400+20)*86400, 0)
	var one *store.Record
	load := func(n, people int) {
		for n > 0 {
			var rs []*store.Record
			for i := range min(n, store.MaxLoad/2) {
				one = newRootUntil(fmt.Sprint("person ", i%people), day.Add(time.Duration(n%72)*time.Hour+time.Minute))
				child := newRoot("")
				child.ID = store.NewChildID(one.ID, one.ID.Bucket(), [6]byte{1, byte(i)})
				rs = append(rs, one, child)
			}
			n -= len(rs) / 2
			if err := s.Load(t.Context(), rs); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, state := range []struct {
		name string
		grow func()
	}{
		{"without statistics", func() { load(5000, 400) }},
		{"with statistics", func() { s.sql(t, `ANALYZE records`) }},
		{"with old statistics", func() { load(15000, 5) }},
		{"with new statistics", func() { s.sql(t, `ANALYZE records`) }},
	} {
		state.grow()
		from, _ := bounds(dayOf(one.ID.Bucket()) - 3)
		_, to := bounds(dayOf(one.ID.Bucket()) + 3)
		for _, after := range []store.ID{{}, one.ID} {
			bucket := 0
			if !after.IsZero() {
				bucket = int(first(after))
			}
			for _, tt := range []struct {
				what, index string
				plan        string
			}{
				{"all roots", "tenant_id_idx", s.explain(t, fmt.Sprintf(listSQL, tableOf(dayOf(one.ID.Bucket()))), int64(1), idBytes(after), listPage)},
				{"a subject's roots", "tenant_subject_bucket_id_idx", s.explain(t, listSubjectSQL, int64(1), []byte(one.Subject), from, to, bucket, idBytes(after), listPage)},
				{"roots to be found", "tenant_subject_bucket_id_idx", s.explain(t, foundSQL, []int64{1}, [][]byte{[]byte(one.Subject)}, []int32{int32(one.ID.Bucket())}, [][]byte{idBytes(one.ID)}, []int32{int32(one.ID.Bucket())})},
				{"a scan", "pkey", s.explain(t, scanSQL, from, to, idBytes(after), scanPage)},
			} {
				for line := range strings.Lines(tt.plan) {
					if strings.Contains(line, "Sort") && tt.what != "a scan" || strings.Contains(line, "Scan using records_") && !strings.Contains(line, tt.index) ||
						strings.Contains(line, "Seq Scan on records") {
						t.Errorf("%s, %s, after %v: the plan is\n%s", tt.what, state.name, after, tt.plan)
						break
					}
				}
			}
		}
	}
}

// TestListOfADayThatGoes lists all roots while the partitions in front are dropped.
func TestListOfADayThatGoes(t *testing.T) {
	s := openShared(t)
	var rs []*store.Record
	for day := range 4 {
		rs = append(rs, newRootUntil("mia", time.Now().Add(time.Duration(day-10)*24*time.Hour)))
	}
	put(t, s, rs...)
	n := 0
	for r, err := range s.List(t.Context(), store.Query{Tenant: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			if err := s.Purge(t.Context(), rs[2].ID.Bucket()); err != nil {
				t.Fatal(err)
			}
		}
		if n++; n == 2 && r.ID != rs[3].ID {
			t.Errorf("behind the first comes %v", r.ID)
		}
	}
	if n != 2 {
		t.Errorf("%d roots were listed, want the first and the last", n)
	}
}

// TestFound takes roots out of the index of subjects, as it would be damaged.
func TestFound(t *testing.T) {
	s := openShared(t)
	rs := []*store.Record{newRoot("mia"), newRoot("mia"), newRoot("tom"), newRoot("tom")}
	put(t, s, rs[0], rs[2], rs[3])
	other := rs[3].Clone()
	other.Subject = "mia"
	got, err := s.Found(t.Context(), []*store.Record{rs[0], rs[1], rs[2], other})
	if err != nil || fmt.Sprint(got) != "[true false true false]" {
		t.Errorf("Found = %v, %v", got, err)
	}
	if got, err := s.Found(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("Found() = %v, %v", got, err)
	}
}
