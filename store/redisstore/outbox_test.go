package redisstore

import (
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

func TestOutbox(t *testing.T) {
	var o outbox
	at := time.Now()
	r := rootIn(1)
	child := store.NewChildID(r.ID, store.NoBucket, [6]byte{1})
	kept := func(want int) {
		t.Helper()
		if got := len(o.of(1, at)); got != want {
			t.Errorf("%d kept, want %d", got, want)
		}
	}
	done := func(ops ...store.Op) {
		t.Helper()
		if o.settle(o.keep(1, r.ID, ops, at), "=") {
			t.Error("it is told that something was made again")
		}
	}
	done(store.Emit(store.Event{Type: "e"}))
	kept(0) // nothing to make again
	done(store.Put(r, 0))
	kept(0) // a sign-in
	never := o.keep(1, r.ID, []store.Op{store.Mark(child, now, "")}, at)
	kept(0) // it may say that nothing has happened
	o.drop(never)
	kept(0)
	late := o.keep(1, r.ID, []store.Op{store.Mark(child, now, "")}, at)
	kept(0)
	if !o.settle(late, "=") {
		t.Error("it is not told that others were made again before this one was known")
	}
	kept(1)
	o.drop(late)
	kept(0)
	done(store.Put(next(r), 1), store.Emit(store.Event{Type: "e"}))
	kept(2) // a change, and now what it was made over
	r.Payload[0]++
	if o.of(1, at)[0].ops[0].Record.Payload[0] != 0 {
		t.Error("what was given to it is changed with the caller's")
	}
	at = at.Add(remembered + time.Second)
	kept(0)
	for i := range outboxOps + 1000 {
		o.settle(o.keep(i%groups, r.ID, []store.Op{store.Mark(r.ID, now, "")}, at), "=")
	}
	if o.ops != outboxOps || len(o.all) != outboxOps {
		t.Errorf("%d operations in %d entries, want %d", o.ops, len(o.all), outboxOps)
	}
	big := rootIn(2)
	big.Payload = make([]byte, store.MaxPayload)
	for range 2 * outboxBytes / store.MaxPayload {
		o.keep(2, big.ID, []store.Op{store.Put(next(big), 1)}, at)
	}
	if o.bytes > outboxBytes {
		t.Errorf("%d bytes, limit %d", o.bytes, outboxBytes)
	}
	sum := 0
	for _, out := range o.all {
		if !out.gone {
			sum += out.bytes
		}
	}
	if sum != o.bytes {
		t.Errorf("%d bytes are counted as %d", sum, o.bytes)
	}
	// What has not happened takes no room, however old the first is that has.
	before := len(o.all)
	for i := range 200_000 {
		o.drop(o.keep(i%groups, r.ID, []store.Op{store.Mark(r.ID, now, "")}, at))
	}
	behind := 0
	for g := range o.sent {
		behind += len(o.sent[g])
	}
	if limit := 2*before + 2000; len(o.all) > limit || behind > limit {
		t.Errorf("%d entries, %d by group, want no more than %d", len(o.all), behind, limit)
	}
}

// withPayload returns a record with another payload, as every seal makes one.
func withPayload(r *store.Record, text string) *store.Record {
	r.Payload = []byte(strings.Repeat(text, 20))
	return r
}

// A server that has forgotten changes gets them again, but not over what another process has made meanwhile, be it of the
// same version: a sign-out that was answered by the new master is not undone by what the old one had.
func TestReplayKeepsOthers(t *testing.T) {
	p := startRedis(t)
	a := openAt(t, "redis://"+p.Addr, Options{})
	b := openAt(t, "redis://"+p.Addr, Options{prefix: a.o.prefix})
	const g = 12
	root, other := withPayload(rootIn(g), "one"), withPayload(rootIn(g), "one")
	chain := func(r *store.Record) *store.Record {
		two, three := withPayload(next(r), "two"), withPayload(next(next(r)), "three")
		for _, r := range []*store.Record{r, two, three} {
			put(t, a, r)
		}
		return three
	}
	back := func(r *store.Record) {
		raw := encode(r)
		do(t, p, "SET", a.keys.record(r.ID), raw, "KEEPTTL")
	}
	chain(root)
	otherThree := chain(other)
	// The server is where it was before both changes; another process has gone on from there, for one of them.
	back(root)
	back(other)
	foreign := withPayload(next(root), "foreign")
	put(t, b, foreign)
	made, err := a.replay(t.Context(), g)
	if err != nil || made != 2 {
		t.Errorf("replay = %d, %v, want 2", made, err)
	}
	got, err := a.Get(t.Context(), root.ID, other.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Version != 2 || string(got[0].Payload) != string(foreign.Payload) {
		t.Errorf("another's change was undone: version %d, %.10q", got[0].Version, got[0].Payload)
	}
	if got[1].Version != 3 || string(got[1].Payload) != string(otherThree.Payload) {
		t.Errorf("version %d, %.10q, want the changes made again", got[1].Version, got[1].Payload)
	}
	// Nor are records made again that came of a change which another's has taken the place of.
	child := store.NewChildID(root.ID, store.NoBucket, [6]byte{9})
	c := withPayload(&store.Record{ID: child, Kind: 'a', Tenant: 1, Version: 1}, "child")
	mine := withPayload(next(foreign), "mine")
	if err := a.Apply(t.Context(), root.ID, store.Put(mine, 2), store.Put(c, 0)); err != nil {
		t.Fatal(err)
	}
	back(foreign)
	do(t, p, "DEL", a.keys.record(child))
	put(t, b, withPayload(next(foreign), "theirs"))
	if _, err := a.replay(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if got, err := a.Get(t.Context(), child); err != nil || got[0] != nil {
		t.Errorf("Get = %v, %v, want nothing", got[0], err)
	}
}

// Whoever empties the server ends all sessions: nothing comes back, as long as it is the same server's doing.
func TestEmptiedStaysEmpty(t *testing.T) {
	p := startRedis(t)
	s := openAt(t, "redis://"+p.Addr, Options{})
	h := hear(s)
	root := rootIn(7)
	put(t, s, root)
	put(t, s, next(root))
	do(t, p, "FLUSHALL")
	h.wait(t, store.ID{})
	emptied := time.Now()
	waitFor(t, "hearing", func() bool { return s.Heard(7 * 16).After(emptied) })
	if got, err := s.Get(t.Context(), root.ID); err != nil || got[0] != nil {
		t.Errorf("Get = %v, %v, want nothing", got[0], err)
	}
}

// A stream that was emptied, on a server whose clock is behind it, is gone on with.
func TestEmptiedLogBehindClock(t *testing.T) {
	p := startRedis(t)
	s := openAt(t, "redis://"+p.Addr, Options{})
	root := rootIn(7)
	put(t, s, root)
	log := s.keys.changes(7)
	do(t, p, "XADD", log, "4000000000000000-0", "b", "")
	do(t, p, "XTRIM", log, "MAXLEN", "0")
	put(t, s, next(root))
	emptied := time.Now()
	waitFor(t, "hearing", func() bool { return s.Heard(7 * 16).After(emptied) })
	if got := do(t, p, "XREVRANGE", log, "+", "-", "COUNT", "1"); !strings.HasPrefix(got, "4000000000000000-") {
		t.Errorf("the log's last entry is %q", got)
	}
}

// What is told of once is told of once, whoever comes first; what is in doubt is told of again when it comes.
func TestToldOnce(t *testing.T) {
	var told told
	n := 0
	f := func(store.ID) { n++ }
	told.listeners = append(told.listeners, &f)
	id := store.SubjectID(1, "mia")
	check := func(what string, want int) {
		t.Helper()
		if n != want {
			t.Errorf("%s: told %d times, want %d", what, n, want)
		}
		n = 0
	}
	told.begin(1)
	told.end(1, id, true, false)
	told.heard(1, id)
	check("the Apply first", 1)
	told.begin(2)
	told.heard(2, id)
	told.end(2, id, true, false)
	check("the log first", 1)
	told.begin(3)
	told.end(3, id, false, false)
	check("what did not happen", 0)
	told.begin(4)
	told.end(4, id, false, true)
	check("in doubt", 1)
	told.heard(4, id)
	told.heard(4, id)
	check("and then it happened", 1)
	told.heard(0, id)
	check("another's", 1)
	for i := range uint64(maxDoubts + 100) {
		told.begin(100 + i)
		told.end(100+i, id, false, true)
	}
	if len(told.doubts) > maxDoubts || len(told.own) > maxDoubts+1 {
		t.Errorf("%d doubts, %d own, limit %d", len(told.doubts), len(told.own), maxDoubts)
	}
	n = 0
	told.heard(100, id)
	check("one that was no longer kept in mind", 1)
}
