package redisstore

import (
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
	o.keep(1, r.ID, []store.Op{store.Emit(store.Event{Type: "e"})}, at)
	kept(0) // nothing to make again
	o.keep(1, r.ID, []store.Op{store.Put(r, 0)}, at)
	kept(0) // a sign-in
	never := o.keep(1, r.ID, []store.Op{store.Mark(child, now, "")}, at)
	kept(1)
	o.drop(never)
	kept(0)
	o.keep(1, r.ID, []store.Op{store.Put(next(r), 1), store.Emit(store.Event{Type: "e"})}, at)
	kept(2) // a change, and now what it was made over
	r.Payload[0]++
	if o.of(1, at)[0].ops[0].Record.Payload[0] != 0 {
		t.Error("what was given to it is changed with the caller's")
	}
	at = at.Add(remembered + time.Second)
	kept(0)
	for i := range outboxOps + 1000 {
		o.keep(i%groups, r.ID, []store.Op{store.Mark(r.ID, now, "")}, at)
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
}
