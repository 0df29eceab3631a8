package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// Every token is after the migration what it was before.
func TestTokensStayValid(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			from, to := openPebble(t, t.TempDir()), open(t)
			h := newHouse(t, from)
			c := h.furnish()
			short := must[afterlogin.Issued](t)(h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "tom", Lifetime: time.Minute}))
			h.clock.pass(2 * time.Minute)
			h.Close()
			m := migration(t, from, to)
			m.now = h.clock.now
			n, err := m.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n.Expired == 0 || n.Copied != n.Compared || n.Different != 0 || int(n.Copied) != len(all(t, to)) || int(n.Copied+n.Expired) != len(all(t, from)) {
				t.Errorf("the counts are %+v; the destination has %d records", n, len(all(t, to)))
			}
			gone(t, m.Checkpoint)

			h.on(to)
			for what, token := range c.live() {
				h.want(what, token, "")
			}
			h.want("what was signed out", c.revoked.Token, afterlogin.ReasonRevoked)
			h.want("what was signed out everywhere", c.everywhere.Token, afterlogin.ReasonSignedOutAll)
			h.want("what has expired", short.Token, afterlogin.ReasonUnknown)
			if d := must[*afterlogin.Data](t)(h.Data(t.Context(), c.cart.Session)); string(d.JSON("cart")) != `["tea"]` {
				t.Errorf("the cart holds %s", d.JSON("cart"))
			}
			if fresh, err := h.FirstUse(t.Context(), "assertion", "1", h.clock.now().Add(58*time.Minute)); err != nil || fresh {
				t.Errorf("an assertion that was used is good again: %v %v", fresh, err)
			}
			// They can be renewed there, and what is out of date there gives a thief away.
			for _, g := range []afterlogin.Issued{c.online, c.offline} {
				next := must[afterlogin.Grant](t)(h.Refresh(t.Context(), g.Token, afterlogin.RefreshRequest{Client: "app"}))
				h.want("a refreshed grant", next.Refresh.Token, "")
			}
			h.clock.pass(time.Hour)
			next := must[afterlogin.Issued](t)(h.Rotate(t.Context(), c.session.Token, anyKind))
			h.want("a renewed session", next.Token, "")
			h.clock.pass(time.Hour)
			h.want("the token before it", c.session.Token, afterlogin.ReasonReused)
			h.want("a sign-in", h.signIn("tom").Token, "")
			if err := h.RevokeSubject(t.Context(), 0, "mia", afterlogin.Everything, afterlogin.ReasonAdministrator); err != nil {
				t.Fatal(err)
			}
			h.want("a session after everything was signed out", c.other.Token, afterlogin.ReasonSignedOutAll)

			found, err := (&Check{Store: to, Open: h.opener(), worker: worker{now: h.clock.now}}).Run(t.Context())
			if err != nil || found.Problems > 0 {
				t.Errorf("Check = %+v, %v", found, err)
			}
		})
	}
}

// many fills a store with records that need no authority.
func many(t *testing.T, s store.Bulk, n int) {
	t.Helper()
	absolute := time.Now().Add(24 * time.Hour).UnixMilli()
	var list []*store.Record
	for i := range n {
		id := store.NewRootID(store.BucketOf(absolute), [14]byte{1, 2, 3, byte(i), byte(i >> 8), byte(i >> 16), 13: byte(i)}, 0, fmt.Sprint("s", i%1000))
		list = append(list, &store.Record{ID: id, Kind: 's', Subject: fmt.Sprint("s", i%1000), Created: 1, Absolute: absolute, Version: 1, Payload: []byte(fmt.Sprint("payload", i))})
		if len(list) == 1000 || i == n-1 {
			if err := s.Load(t.Context(), list); err != nil {
				t.Fatal(err)
			}
			list = nil
		}
	}
}

// An interrupted migration goes on where it was: by Ctrl-C, at any batch of any step.
func TestInterrupted(t *testing.T) {
	from := openPebble(t, t.TempDir())
	many(t, from, 12_000)
	for stop := 0; stop < 40; stop += 3 {
		to := memstore.New()
		faulty := storetest.NewFaulty(to, nil)
		ctx, cancel := context.WithCancel(t.Context())
		calls := atomic.Int32{}
		faulty.SetHook(func(c storetest.Call) storetest.Fault {
			if c.Method == "Load" || c.Method == "Get" {
				if int(calls.Add(1)) == stop+1 {
					cancel()
				}
			}
			return storetest.Fault{}
		})
		m := migration(t, from, faulty)
		_, err := m.Run(ctx)
		if err == nil {
			t.Fatalf("stopped after %d calls, and it is complete", stop)
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("stopped after %d calls: %v", stop, err)
		}
		if _, err := os.Stat(m.Checkpoint); err != nil {
			t.Fatal(err)
		}
		fresh := int64(0)
		again := &Migration{From: from, To: to, FromName: "a", ToName: "b", Checkpoint: m.Checkpoint, Report: func(p Progress) { fresh = p.Fresh }}
		n, err := again.Run(t.Context())
		if err != nil || n.Compared != 12_000 || n.Copied != 12_000 || len(all(t, to)) != 12_000 {
			t.Fatalf("stopped after %d calls, and gone on: %+v, %v", stop, n, err)
		}
		if fresh != 12_000 {
			t.Errorf("stopped after %d calls: %d were compared when it went on", stop, fresh)
		}
		gone(t, m.Checkpoint)
		cancel()
	}
}

// What is ended in the source after an interruption, by servers that were started on it once more, is not live in the copy:
// also what had been compared by then.
func TestSourceUsedAfterAnInterruption(t *testing.T) {
	from, to := memstore.New(), memstore.New()
	many(t, from, 12_000)
	ctx, cancel := context.WithCancel(t.Context())
	m := migration(t, from, to)
	m.Report = func(p Progress) {
		if p.Step == "comparing" && p.Done*2 > p.Total {
			cancel()
		}
	}
	// Each report is a second after the last, so that the checkpoint is written each time.
	at := atomic.Int64{}
	m.now = func() time.Time { return time.UnixMilli(at.Add(1000)) }
	if _, err := m.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want it to be interrupted", err)
	}
	var first store.ID
	for b, err := range from.Scan(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		first = b.Records[0].ID
		break
	}
	if err := from.Apply(t.Context(), first, store.Mark(first, 7, "signed_out")); err != nil {
		t.Fatal(err)
	}
	m.Report = nil
	if n, err := m.Run(t.Context()); !errors.Is(err, ErrDifferent) || n.Different != 1 {
		t.Errorf("gone on: %+v, %v; want one difference", n, err)
	}
	if n, err := m.Run(t.Context()); err != nil || n.Compared != 12_000 {
		t.Errorf("once more: %+v, %v", n, err)
	}
	if all(t, to)[first].Marked == 0 {
		t.Error("what was ended is live in the copy")
	}
}

// A destination that is refused gets no keys: with them its own records could never be read again, and nobody could tell why.
// One that is taken has them before the first record.
func TestKeysBeforeRecords(t *testing.T) {
	from := memstore.New()
	h := newHouse(t, from)
	h.signIn("mia")
	backup := h.backup(from)
	for _, tt := range []struct {
		name string
		run  func(to store.Bulk, keys func(context.Context) error) error
	}{
		{"a migration", func(to store.Bulk, keys func(context.Context) error) error {
			m := migration(t, from, to)
			m.Keys = keys
			_, err := m.Run(t.Context())
			return err
		}},
		{"a restoration", func(to store.Bulk, keys func(context.Context) error) error {
			in := bytes.NewReader(backup)
			r := &Restoration{In: in, Verified: must[Verified](t)(Verify(in, h.opener(), nil)), To: to, Keys: keys, Apart: IsKeys}
			_, err := r.Run(t.Context())
			return err
		}},
	} {
		used := memstore.New()
		many(t, used, 10)
		if err := tt.run(used, func(context.Context) error { t.Errorf("%s: keys for a store that is refused", tt.name); return nil }); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("%s into a store with records: %v", tt.name, err)
		}
		fresh, called := memstore.New(), 0
		if err := tt.run(fresh, func(context.Context) error { called++; return errors.New("others") }); err == nil || called != 1 || len(all(t, fresh)) != 0 {
			t.Errorf("%s: %v, %d calls, %d records, though the keys were refused", tt.name, err, called, len(all(t, fresh)))
		}
		if err := tt.run(fresh, func(context.Context) error { called++; return nil }); err != nil || called != 2 || len(all(t, fresh)) == 0 {
			t.Errorf("%s: %v, %d calls, %d records", tt.name, err, called, len(all(t, fresh)))
		}
	}
}

// A destination that fails, before and after it has done something, is tried again.
func TestFaults(t *testing.T) {
	from := openPebble(t, t.TempDir())
	many(t, from, 20_000)
	to := memstore.New()
	m := migration(t, storetest.NewFaulty(from, storetest.Random(1, 0.2, false)), storetest.NewFaulty(to, storetest.Random(2, 0.2, false)))
	waited := atomic.Int64{}
	m.wait = func(ctx context.Context, d time.Duration) error { waited.Add(int64(d)); return ctx.Err() }
	n, err := m.Run(t.Context())
	if err != nil || n.Compared < 20_000 || len(all(t, to)) != 20_000 {
		t.Fatalf("%+v, %v", n, err)
	}
	if waited.Load() == 0 {
		t.Error("nothing failed")
	}
	// One that fails for good ends it, and what is broken in it is said.
	broken := storetest.NewFaulty(memstore.New(), func(c storetest.Call) storetest.Fault {
		if c.Method == "Load" && c.N > 3 {
			return storetest.Fault{Before: errors.New("no route to host")}
		}
		return storetest.Fault{}
	})
	m = migration(t, from, broken)
	m.wait = func(ctx context.Context, d time.Duration) error { return ctx.Err() }
	if _, err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no route") {
		t.Errorf("a destination that is gone: %v", err)
	}
	for _, cause := range []error{store.ErrFull, store.ErrClosed} {
		full := storetest.NewFaulty(memstore.New(), func(c storetest.Call) storetest.Fault {
			if c.Method == "Load" {
				return storetest.Fault{Before: cause}
			}
			return storetest.Fault{}
		})
		m = migration(t, from, full)
		m.wait = func(context.Context, time.Duration) error { t.Errorf("tried again after %v", cause); return nil }
		if _, err := m.Run(t.Context()); !errors.Is(err, cause) {
			t.Errorf("%v, want %v", err, cause)
		}
	}
}

// A destination with records of its own is refused, and with Merge keeps what is newer.
func TestMerge(t *testing.T) {
	from, to := memstore.New(), memstore.New()
	many(t, from, 3000)
	many(t, to, 10)
	before := all(t, to)
	m := migration(t, from, to)
	if _, err := m.Run(t.Context()); !errors.Is(err, ErrNotEmpty) {
		t.Fatalf("%v, want ErrNotEmpty", err)
	}
	gone(t, m.Checkpoint)
	if len(all(t, to)) != 10 {
		t.Error("it has written, all the same")
	}
	for id := range before {
		if err := to.Apply(t.Context(), id, store.Mark(id, 7, "there")); err != nil {
			t.Fatal(err)
		}
	}
	m.Merge = true
	n, err := m.Run(t.Context())
	if err != nil || n.Newer != 10 || n.Different != 0 {
		t.Fatalf("%+v, %v", n, err)
	}
	for id := range before {
		if got := all(t, to)[id]; got.Marked == 0 {
			t.Error("a mark is undone")
		}
	}
}

// What the comparison finds is an error, and doing it once more mends it.
func TestDifferences(t *testing.T) {
	from, to := memstore.New(), memstore.New()
	many(t, from, 2000)
	var m *Migration
	spoil := func(s *memstore.Store) {
		for id := range all(t, from) {
			if err := s.Apply(t.Context(), id, store.Mark(id, 7, "meanwhile")); err != nil {
				t.Error(err)
			}
			return
		}
	}
	for _, tt := range []struct {
		spoiled *memstore.Store
		what    string
	}{{from, "older in the destination"}, {to, newer}} {
		m = migration(t, from, to)
		m.Merge = true
		done := false
		m.Report = func(p Progress) {
			if p.Step == "copying" && p.Done == p.Total && !done {
				done = true
				spoil(tt.spoiled)
				m.Merge = false
			}
		}
		n, err := m.Run(t.Context())
		if !errors.Is(err, ErrDifferent) || n.Different != 1 || len(n.Examples) != 1 || n.Examples[0].What != tt.what {
			t.Fatalf("%+v, %v, want one that is %s", n, err, tt.what)
		}
		m.Merge = tt.spoiled == to
		if n, err := m.Run(t.Context()); err != nil || n.Different != 0 {
			t.Errorf("once more: %+v, %v", n, err)
		}
	}
}

func TestDifference(t *testing.T) {
	s := memstore.New()
	many(t, s, 1)
	for _, r := range all(t, s) {
		later := r.Clone()
		later.LastSeen, later.SeenGen = 9, 3
		if got := difference(r, later); got != "" {
			t.Errorf("later times of use: %q", got)
		}
		for name, change := range map[string]func(*store.Record){
			"kind": func(r *store.Record) { r.Kind++ }, "tenant": func(r *store.Record) { r.Tenant++ }, "subject": func(r *store.Record) { r.Subject += "x" },
			"client": func(r *store.Record) { r.Client = "x" }, "created": func(r *store.Record) { r.Created++ }, "absolute": func(r *store.Record) { r.Absolute-- },
			"mark": func(r *store.Record) { r.Marked = 1 }, "reason": func(r *store.Record) { r.Reason = "x" }, "payload": func(r *store.Record) { r.Payload = r.Payload[1:] },
			"older": func(r *store.Record) { r.Version-- }, "newer": func(r *store.Record) { r.Version++ }, "seen": func(r *store.Record) { r.LastSeen-- },
			"id": func(r *store.Record) { r.ID = store.ID{} },
		} {
			c := r.Clone()
			change(c)
			if difference(r, c) == "" {
				t.Errorf("another %s is no difference", name)
			}
		}
		if difference(r, nil) == "" {
			t.Error("a record that is not there is no difference")
		}
	}
}

// A cursor that the source does not know any more begins the scan anew.
func TestForeignCursor(t *testing.T) {
	from, to := memstore.New(), memstore.New()
	many(t, from, 2000)
	m := migration(t, from, to)
	c := &checkpoint{Layout: checkpointLayout, Source: "a", Destination: "b", Total: 2000, Step: stepCopy, Cursor: "of another life", Done: 1000, Counts: Counts{Copied: 1000}}
	if err := c.write(m.Checkpoint); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Run(t.Context()); err != nil || n.Copied != 2000 || n.Compared != 2000 {
		t.Fatalf("%+v, %v", n, err)
	}
}

func TestCheckpointOfAnother(t *testing.T) {
	m := migration(t, memstore.New(), memstore.New())
	for name, text := range map[string]string{
		"another migration": `{"layout":1,"from":"x","to":"b","step":"copy"}`,
		"another layout":    `{"layout":2,"from":"a","to":"b","step":"copy"}`,
		"another step":      `{"layout":1,"from":"a","to":"b","step":"fly"}`,
		"something else":    `{"name":"package.json"}`,
		"nothing":           ``,
		"a lot":             `{"layout":1,"from":"` + strings.Repeat("x", maxCheckpoint) + `"}`,
	} {
		if err := os.WriteFile(m.Checkpoint, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Run(t.Context()); !errors.Is(err, ErrOtherMigration) {
			t.Errorf("%s: %v, want ErrOtherMigration", name, err)
		}
		if b, _ := os.ReadFile(m.Checkpoint); string(b) != text {
			t.Errorf("%s: the file is not the same any more", name)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte(`{"layout":1,"from":"a","to":"b","step":"copy","counts":{"examples":[{"id":"x"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseCheckpoint(b); err == nil && (c.Layout != checkpointLayout || c.Step == "") {
			t.Errorf("%+v", c)
		}
	})
}

func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := WriteFile(path, func(w io.Writer) error { w.Write([]byte("half")); return broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "old" {
		t.Errorf("a write that failed leaves %q", b)
	}
	left, _ := os.ReadDir(filepath.Dir(path))
	if len(left) != 1 {
		t.Errorf("a write that failed leaves %v", left)
	}
}
