package storetest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/afterlogin/afterlogin/store"
)

// LongEnv names the environment variable that, if it is set, makes Sequences ask for more of the same.
const LongEnv = "AFTERLOGIN_LONG"

const checksFlag = "rapid.checks"

// checksGiven tells whether the number of sequences was given on the command line. It is asked before flag.Set makes
// the flag look so.
var checksGiven = sync.OnceValue(func() (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == checksFlag })
	return given
})

// Sequences says how many sequences RunModel tries in this test, and how many if LongEnv is set. The flag
// -rapid.checks, if given, has precedence.
func Sequences(t *testing.T, n, long int) {
	if checksGiven() {
		return
	}
	if os.Getenv(LongEnv) != "" {
		n = long
	}
	old := flag.Lookup(checksFlag).Value.String()
	if err := flag.Set(checksFlag, strconv.Itoa(n)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { flag.Set(checksFlag, old) })
}

// RunModel tries random sequences of operations against the store and against a model of a few lines that is written
// apart from every store, and shortens a sequence after which they differ. A store is used for a number of sequences,
// each in a tenant of its own.
func RunModel(t *testing.T, open Open) {
	const uses = 50
	var s store.Store
	used := uint32(0)
	t.Cleanup(func() {
		if s != nil {
			s.Close()
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		if used%uses == 0 {
			if s != nil {
				s.Close()
			}
			s = open(t)
		}
		used++
		runSequence(rt, t.Context(), s, used)
	})
}

// A machine holds a store, and what is to be in it.
type machine struct {
	s      store.Store
	ctx    context.Context
	tenant uint32

	ids     []store.ID // all that were ever used
	records map[store.ID]store.Record
	events  []string
	told    []store.ID
	mark    int64 // the last time given, so that no two are alike
}

func runSequence(rt *rapid.T, ctx context.Context, s store.Store, tenant uint32) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	m := &machine{s: s, ctx: ctx, tenant: tenant, records: map[store.ID]store.Record{}, mark: now}
	seq, err := s.Watch(ctx, "")
	if err != nil {
		rt.Fatalf("Watch = %v", err)
	}
	h := newHeard()
	stop := s.Notify(h.hear)
	rt.Repeat(map[string]func(*rapid.T){
		"create": m.create,
		"change": m.change,
		"touch":  m.touch,
		"get":    m.get,
		"list":   m.list,
		"purge":  m.purge,
	})
	stop()
	m.checkAll(rt)
	m.checkEvents(rt, seq)
	// A store may tell of a mark that was there, too; what it must tell, it tells in order.
	if got := h.all(); !subsequence(m.told, got) {
		rt.Fatalf("Notify told of %v, want %v", got, m.told)
	}
}

// subsequence reports whether want stands in got, with others between.
func subsequence(want, got []store.ID) bool {
	for _, id := range got {
		if len(want) > 0 && want[0] == id {
			want = want[1:]
		}
	}
	return len(want) == 0
}

var subjects = []string{"", "alice", "bob"}

func (m *machine) time() int64 {
	m.mark++
	return m.mark
}

// newID draws the id of a record that may or may not be there.
func (m *machine) newID(rt *rapid.T) store.ID {
	subject := rapid.SampledFrom(subjects).Draw(rt, "subject")
	absolute := rapid.SampledFrom([]int64{0, now, now + 30*hour, now + 2000*hour}).Draw(rt, "absolute")
	switch kind := rapid.IntRange(0, 9).Draw(rt, "kind"); {
	case kind == 0:
		return store.SubjectID(m.tenant, subject)
	case kind < 5 || len(m.ids) == 0:
		return newRootUntil(m.tenant, subject, absolute).ID
	default:
		root := rapid.SampledFrom(m.ids).Draw(rt, "root").Root()
		if root.IsSubject() {
			return root
		}
		r := store.Record{ID: root}
		return newChildUntil(&r, absolute).ID
	}
}

// anID draws the id of a record, mostly one that was used before.
func (m *machine) anID(rt *rapid.T) store.ID {
	if len(m.ids) == 0 || rapid.IntRange(0, 9).Draw(rt, "new") == 0 {
		return m.newID(rt)
	}
	return rapid.SampledFrom(m.ids).Draw(rt, "id")
}

// of returns the ids under a root that were ever used.
func (m *machine) of(root store.ID) []store.ID {
	var ids []store.ID
	for _, id := range m.ids {
		if id.Root() == root {
			ids = append(ids, id)
		}
	}
	return ids
}

func (m *machine) create(rt *rapid.T) { m.apply(rt, m.newID(rt), 1) }

func (m *machine) change(rt *rapid.T) {
	m.apply(rt, m.anID(rt), rapid.IntRange(1, 4).Draw(rt, "operations"))
}

// apply draws n operations on records of the root of first, and does them on both sides.
func (m *machine) apply(rt *rapid.T, first store.ID, n int) {
	root := first.Root()
	var ops []store.Op
	var used []store.ID
	for i := range n {
		id := first
		if i > 0 {
			if of := m.of(root); len(of) > 0 {
				id = rapid.SampledFrom(of).Draw(rt, "id")
			}
		}
		if slices.Contains(used, id) {
			continue
		}
		switch rapid.IntRange(0, 5).Draw(rt, "operation") {
		case 0, 1, 2:
			used = append(used, id)
			ops = append(ops, m.putOp(rt, id))
		case 3:
			used = append(used, id)
			ops = append(ops, store.Mark(id, m.time(), "why"))
		default:
			at := m.time()
			ops = append(ops, store.Emit(store.Event{Type: "e", ID: id, At: at, Tenant: m.tenant, Detail: fmt.Sprint(at)}))
		}
	}
	if len(ops) == 0 {
		return
	}
	m.compare(rt, ops, m.s.Apply(m.ctx, root, ops...))
}

func (m *machine) putOp(rt *rapid.T, id store.ID) store.Op {
	old, ok := m.records[id]
	r := store.Record{ID: id, Kind: 'k', Tenant: m.tenant, Subject: m.subjectOf(rt, id), Client: "c", Created: m.time()}
	if ok {
		r.Subject = old.Subject
	}
	if rapid.Bool().Draw(rt, "seen") {
		r.LastSeen, r.SeenGen, r.SeenAt = old.LastSeen+1, old.SeenGen+1, m.time()
	}
	expect := old.Version
	if rapid.IntRange(0, 9).Draw(rt, "wrong") == 0 {
		expect += rapid.SampledFrom([]uint64{1, ^uint64(0), 5}).Draw(rt, "by")
	}
	if expect+1 == 0 {
		expect = 3
	}
	r.Version = expect + 1
	r.Payload = fmt.Append(nil, "payload ", m.mark)
	return store.Put(&r, expect)
}

// subjectOf returns the subject whose record this is, or the one that goes with the root's partition.
func (m *machine) subjectOf(rt *rapid.T, id store.ID) string {
	if r, ok := m.records[id.Root()]; ok {
		return r.Subject
	}
	return rapid.SampledFrom(subjects).Draw(rt, "subject")
}

// compare does the operations on the model, and fails if the store answered otherwise.
func (m *machine) compare(rt *rapid.T, ops []store.Op, err error) {
	after := map[store.ID]store.Record{}
	for i, op := range ops {
		old, ok := m.records[op.ID]
		switch op.Kind {
		case store.OpPut:
			if old.Version != op.Expect {
				var c *store.ConflictError
				if !errors.As(err, &c) || c.Op != i || c.ID != op.ID {
					rt.Fatalf("Apply(%+v) = %v, want a conflict at operation %d", ops, err, i)
				}
				m.remember(ops)
				return
			}
			r := *op.Record
			if ok && old.LastSeen > r.LastSeen {
				r.LastSeen = old.LastSeen
			}
			if ok && old.SeenGen >= r.SeenGen {
				r.SeenGen, r.SeenAt = old.SeenGen, old.SeenAt
			}
			after[op.ID] = r
		case store.OpMark:
			if !ok {
				if !errors.Is(err, store.ErrNotFound) {
					rt.Fatalf("Apply(%+v) = %v, want ErrNotFound", ops, err)
				}
				m.remember(ops)
				return
			}
			if old.Marked == 0 {
				old.Marked, old.Reason = op.At, op.Reason
				old.Version++
				after[op.ID] = old
			}
		}
	}
	if err != nil {
		rt.Fatalf("Apply(%+v) = %v, want nil", ops, err)
	}
	changed := false // something that was there
	for id, r := range after {
		_, was := m.records[id]
		changed = changed || was
		m.records[id] = r
	}
	for _, op := range ops {
		if op.Kind == store.OpEvent {
			m.events = append(m.events, op.Event.Detail)
		}
	}
	if changed {
		m.told = append(m.told, ops[0].ID.Root())
	}
	m.remember(ops)
}

func (m *machine) remember(ops []store.Op) {
	for _, op := range ops {
		if !slices.Contains(m.ids, op.ID) {
			m.ids = append(m.ids, op.ID)
		}
	}
}

func (m *machine) touch(rt *rapid.T) {
	var ts []store.Touch
	for range rapid.IntRange(1, 3).Draw(rt, "touches") {
		ts = append(ts, store.Touch{ID: m.anID(rt), At: now + rapid.Int64Range(-5, 50).Draw(rt, "at"), Gen: rapid.Uint32Range(0, 4).Draw(rt, "gen")})
	}
	if err := m.s.Touch(m.ctx, ts); err != nil {
		rt.Fatalf("Touch(%+v) = %v", ts, err)
	}
	for _, t := range ts {
		r, ok := m.records[t.ID]
		if !ok || r.Marked != 0 {
			continue
		}
		if t.At > r.LastSeen {
			r.LastSeen = t.At
		}
		if t.Gen > r.SeenGen {
			r.SeenGen, r.SeenAt = t.Gen, t.At
		}
		m.records[t.ID] = r
	}
}

func (m *machine) get(rt *rapid.T) {
	ids := make([]store.ID, rapid.IntRange(1, 4).Draw(rt, "ids"))
	for i := range ids {
		ids[i] = m.anID(rt)
	}
	m.check(rt, ids)
}

// check compares the records with these ids.
func (m *machine) check(rt *rapid.T, ids []store.ID) {
	got, err := m.s.Get(m.ctx, ids...)
	if err != nil || len(got) != len(ids) {
		rt.Fatalf("Get(%v) = %d records, %v", ids, len(got), err)
	}
	for i, id := range ids {
		var want *store.Record
		if r, ok := m.records[id]; ok {
			want = &r
		}
		if !same(got[i], want) {
			rt.Fatalf("Get(%v)\n got %+v\nwant %+v", id, got[i], want)
		}
	}
}

func (m *machine) list(rt *rapid.T) {
	q := store.Query{Tenant: m.tenant, Subject: rapid.SampledFrom(subjects).Draw(rt, "subject")}
	if rapid.Bool().Draw(rt, "after") {
		q.After = m.anID(rt).Root()
		if !q.After.IsRoot() {
			q.After = store.ID{}
		}
	}
	m.checkList(rt, q)
}

func (m *machine) checkList(rt *rapid.T, q store.Query) {
	var want []store.ID
	for id, r := range m.records {
		if id.IsRoot() && (q.Subject == "" || r.Subject == q.Subject) && id.Compare(q.After) > 0 {
			want = append(want, id)
		}
	}
	slices.SortFunc(want, store.ID.Compare)
	var got []store.ID
	for r, err := range m.s.List(m.ctx, q) {
		if err != nil {
			rt.Fatalf("List(%+v): %v", q, err)
		}
		if model := m.records[r.ID]; !same(r, &model) {
			rt.Fatalf("List(%+v)\n got %+v\nwant %+v", q, r, model)
		}
		got = append(got, r.ID)
	}
	if !slices.Equal(got, want) {
		rt.Fatalf("List(%+v) = %v, want %v", q, got, want)
	}
}

func (m *machine) purge(rt *rapid.T) {
	if rapid.IntRange(0, 3).Draw(rt, "often") != 0 {
		return
	}
	b := store.BucketOf(now + rapid.SampledFrom([]int64{-hour, 0, 29 * hour, 30 * hour, 1500 * hour, 3000 * hour}).Draw(rt, "until"))
	if err := m.s.Purge(m.ctx, b); err != nil {
		rt.Fatalf("Purge(%d) = %v", b, err)
	}
	for id := range m.records {
		if id.Bucket() <= b {
			delete(m.records, id)
		}
	}
}

func (m *machine) checkAll(rt *rapid.T) {
	m.check(rt, m.ids)
	for _, s := range subjects {
		m.checkList(rt, store.Query{Tenant: m.tenant, Subject: s})
	}
}

// checkEvents compares the events since the sequence began.
func (m *machine) checkEvents(rt *rapid.T, seq iter.Seq2[store.Event, error]) {
	var got []string
	if len(m.events) > 0 {
		for e, err := range seq {
			if err != nil {
				rt.Fatalf("Watch yields %v after %d events, want %d", err, len(got), len(m.events))
			}
			if got = append(got, e.Detail); len(got) == len(m.events) {
				break
			}
		}
	}
	if !slices.Equal(got, m.events) {
		rt.Fatalf("Watch yields %v, want %v", got, m.events)
	}
}
