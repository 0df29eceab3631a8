package revocation

import (
	"context"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
)

// crawlStore is a store whose list takes time.
type crawlStore struct {
	*slowStore
	each atomic.Int64 // how long a record of it takes
}

func (s *crawlStore) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		for r, err := range s.Store.List(ctx, q) {
			if time.Sleep(time.Duration(s.each.Load())); s.gone.Load() {
				r, err = nil, errGone
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// lateStore is a store in which a change of a session comes true later, whether or not somebody waits for it.
type lateStore struct {
	store.Store
	after time.Duration
	on    atomic.Bool
	lost  bool // nobody does: the answer is an error, at once
}

func (s *lateStore) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if !s.on.Load() || ops[0].Kind == store.OpPut && ops[0].Record.Kind != byte(afterlogin.KindSession) {
		return s.Store.Apply(ctx, root, ops...)
	}
	done := make(chan error, 1)
	go func() {
		time.Sleep(s.after)
		done <- s.Store.Apply(context.WithoutCancel(ctx), root, ops...)
	}()
	if s.lost {
		return errGone
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// skewed is a clock that can go wrong.
type skewed struct{ by atomic.Int64 }

func (s *skewed) skew() time.Duration { return time.Duration(s.by.Load()) }

// TestClockWhileFreezing: a server whose clock goes wrong while it freezes says so, and gives the job to one whose clock is
// right.
func TestClockWhileFreezing(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		var clock skewed
		slow := &slowStore{Store: h.mem}
		a := h.server(Options{Authority: h.authority(slow), Node: "a", Skew: clock.skew})
		ids := h.signIn(200, afterlogin.IssueRequest{Policy: "remember"})
		j := h.create(a, "policy=remember", DefaultUndo)
		h.await(a, j.ID, Ready)
		slow.slow.Store(int64(500 * time.Millisecond))
		h.confirm(a, j, 0)
		time.Sleep(time.Second)
		clock.by.Store(int64(maxSkew + 1))
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := h.job(a, j.ID); got.State != Freezing || got.Progress.Owner != "" || got.Progress.Waiting != waitClock {
			t.Errorf("%s %+v", got.State, got.Progress)
		}
		h.want(ids, map[string]int{"frozen " + j.ID: 200})
		began := time.Now()
		b := h.server(Options{Node: "b"})
		if frozen := h.await(b, j.ID, Frozen); frozen.Frozen != 200 || time.Since(began) > leaseTime {
			t.Errorf("%d after %v", frozen.Frozen, time.Since(began))
		}
		h.await(b, j.ID, Done)
	})
}

// TestUndoByAWrongClock: to take a job back needs no clock. What waits for one says so.
func TestUndoByAWrongClock(t *testing.T) {
	for _, undone := range []bool{true, false} {
		inHouse(t, func(t *testing.T, h *house) {
			var clock skewed
			r := h.server(Options{Skew: clock.skew})
			ids := h.signIn(5, afterlogin.IssueRequest{Policy: "remember"})
			j := h.create(r, "policy=remember", DefaultUndo)
			h.confirm(r, j, 0)
			h.await(r, j.ID, Frozen)
			clock.by.Store(-int64(maxSkew + 1))
			if undone {
				if _, err := r.Undo(t.Context(), j.ID, "tom"); err != nil {
					t.Fatal(err)
				}
				h.await(r, j.ID, Undone)
				h.want(ids, map[string]int{"live": 5})
				return
			}
			if p := h.job(r, j.ID).Progress; p != (Progress{}) {
				t.Errorf("before the end of the window: %+v", p)
			}
			time.Sleep(DefaultUndo + time.Minute)
			synctest.Wait()
			if got := h.job(r, j.ID); got.State != Frozen || got.Progress.Waiting != waitClock || got.Progress.Began.IsZero() {
				t.Errorf("%s %+v", got.State, got.Progress)
			}
			if all, err := r.List(t.Context()); err != nil || all[0].Progress.Waiting != waitClock {
				t.Errorf("%+v %v", all, err)
			}
			clock.by.Store(0)
			h.await(r, j.ID, Done)
		})
	}
}

// TestCrashAfterCount: what a job without an undo window counts once more is not what it has ended.
func TestCrashAfterCount(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		s := &crawlStore{slowStore: &slowStore{Store: h.mem}}
		first := h.server(Options{Authority: h.authority(s), Node: "a"})
		ids := h.signIn(600, afterlogin.IssueRequest{Policy: "remember"})
		j := h.create(first, "policy=remember", 0)
		h.await(first, j.ID, Ready)
		s.each.Store(int64(5 * time.Millisecond)) // longer than a beat
		h.confirm(first, j, 0)
		for !h.job(first, j.ID).Began {
			time.Sleep(time.Millisecond)
		}
		s.gone.Store(true)
		done := h.await(h.server(Options{Node: "b"}), j.ID, Done)
		if !done.AtLeast || done.Revoked < 500 || done.Revoked > 600 {
			t.Errorf("%+v", done)
		}
		h.want(ids, map[string]int{"ended administrator": 600})
	})
}

// TestCrashWhileMoreMatch: who goes on does not say that nothing was ended.
func TestCrashWhileMoreMatch(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		dying := &slowStore{Store: h.mem}
		first := h.server(Options{Authority: h.authority(dying), Parallel: 1})
		ids := h.signIn(20, afterlogin.IssueRequest{Policy: "remember"})
		freeze := func(ids []afterlogin.SessionID) {
			for _, id := range ids {
				if err := h.a.Freeze(t.Context(), id, "incident 7"); err != nil {
					t.Fatal(err)
				}
			}
		}
		freeze(ids[:10])
		j := h.create(first, "state=frozen", 0)
		h.await(first, j.ID, Ready)
		dying.slow.Store(int64(time.Second))
		h.confirm(first, j, 0)
		time.Sleep(5 * time.Second)
		dying.gone.Store(true)
		time.Sleep(time.Minute)
		freeze(ids[10:])
		second := h.server(Options{Node: "b"})
		failed := h.await(second, j.ID, Failed)
		if !strings.Contains(failed.Why, "the rest was left alone") || failed.Revoked == 0 || !failed.AtLeast {
			t.Errorf("%+v, and the sessions are %v", failed, h.states(ids))
		}
	})
}

// TestOverlap: what another job had frozen, and has thawed since, was confirmed: that it is live is not passed over. What has
// ended by itself is no trouble.
func TestOverlap(t *testing.T) {
	for _, thawed := range []bool{true, false} {
		inHouse(t, func(t *testing.T, h *house) {
			r := h.server(Options{})
			ids := h.signIn(10, afterlogin.IssueRequest{Policy: "remember"})
			thief := h.signIn(2, afterlogin.IssueRequest{Subject: "mia", Policy: "remember"})
			a, b := h.create(r, "policy=remember", time.Hour), h.create(r, "subject=mia", DefaultUndo)
			h.await(r, b.ID, Ready)
			h.confirm(r, a, 0)
			h.await(r, a.ID, Frozen)
			h.confirm(r, b, 0)
			if f := h.await(r, b.ID, Frozen); f.Frozen != 0 || f.Held != 2 {
				t.Errorf("%+v", f)
			}
			if err := h.a.Revoke(t.Context(), thief[1], afterlogin.ReasonSignedOut); err != nil {
				t.Fatal(err)
			}
			if !thawed {
				if done := h.await(r, b.ID, Done); done.Revoked != 1 || done.Gone != 1 {
					t.Errorf("%+v", done)
				}
				return
			}
			if _, err := r.Undo(t.Context(), a.ID, "tom"); err != nil {
				t.Fatal(err)
			}
			h.await(r, a.ID, Undone)
			if failed := h.await(r, b.ID, Failed); !strings.HasPrefix(failed.Why, "1 of those") || failed.Revoked != 0 {
				t.Errorf("%+v", failed)
			}
			h.want(thief, map[string]int{"live": 1, "ended signed_out": 1})
			h.want(ids, map[string]int{"live": 10})
		})
	}
}

// TestUndoLate: nothing that was being frozen when the job was undone stays on hold, however late the store does it, and
// whether or not it says so.
func TestUndoLate(t *testing.T) {
	for _, lost := range []bool{false, true} {
		inHouse(t, func(t *testing.T, h *house) {
			late := &lateStore{Store: h.mem, after: actTime - time.Second, lost: lost}
			r := h.server(Options{Authority: h.authority(late)})
			ids := h.signIn(100, afterlogin.IssueRequest{Policy: "remember"})
			j := h.create(r, "policy=remember", DefaultUndo)
			h.await(r, j.ID, Ready)
			late.on.Store(true)
			h.confirm(r, j, 0)
			time.Sleep(time.Second / 2)
			if _, err := r.Undo(t.Context(), j.ID, "tom"); err != nil {
				t.Fatal(err)
			}
			late.on.Store(false)
			began := time.Now()
			h.await(r, j.ID, Undone)
			if took := time.Since(began); !lost && took > leaseTime {
				t.Errorf("undone after %v", took)
			}
			time.Sleep(late.after)
			h.want(ids, map[string]int{"live": 100})
		})
	}
}

// TestFailedWhileEnding: a job that cannot end what others hold says how many it did end.
func TestFailedWhileEnding(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{})
		ids := h.signIn(5, afterlogin.IssueRequest{Policy: "remember"})
		if err := h.a.Freeze(t.Context(), ids[0], "incident 7"); err != nil {
			t.Fatal(err)
		}
		j := h.create(r, "policy=remember", DefaultUndo)
		h.confirm(r, j, 0)
		h.await(r, j.ID, Frozen)
		if _, err := r.change(t.Context(), j.ID, func(j *Job) error { j.Query = "colour=blue"; return nil }); err != nil {
			t.Fatal(err)
		}
		if failed := h.await(r, j.ID, Failed); failed.Revoked != 4 || !strings.Contains(failed.Why, "cannot be read") {
			t.Errorf("%+v", failed)
		}
		h.want(ids, map[string]int{"ended administrator": 4, "frozen incident 7": 1})
	})
}

// TestStoreTroubleWhileEnding: of what the store did not answer to, nobody knows whether it was ended.
func TestStoreTroubleWhileEnding(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		s := &lateStore{Store: h.mem, after: time.Minute, lost: true}
		r := h.server(Options{Authority: h.authority(s), Parallel: 4})
		ids := h.signIn(60, afterlogin.IssueRequest{Policy: "remember"})
		j := h.create(r, "policy=remember", 0)
		h.await(r, j.ID, Ready)
		s.on.Store(true)
		h.confirm(r, j, 0)
		time.Sleep(time.Second)
		s.on.Store(false)
		if done := h.await(r, j.ID, Done); !done.AtLeast || done.Revoked > 60 {
			t.Errorf("%+v", done)
		}
		time.Sleep(s.after)
		h.want(ids, map[string]int{"ended administrator": 60})
	})
}

// TestOneInTrouble: jobs that nobody can work at are in nobody's way.
func TestOneInTrouble(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		for i := range maxActive / 2 {
			bad := &Job{ID: newID(i), Query: "subject=mia", State: Counting, Created: time.Now().AddDate(1000, 0, 0)} // no entry lives that long
			detail, err := bad.encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.a.AddEntry(t.Context(), afterlogin.EntryRequest{Realm: realm, Name: slotName(i), Detail: detail}); err != nil {
				t.Fatal(err)
			}
			if l, err := (&Revocations{authority: h.a, now: time.Now}).claim(t.Context(), bad); err == nil {
				t.Fatalf("%d was claimed: %+v", i, l)
			}
		}
		r := h.server(Options{})
		j := h.create(r, "subject=tom", DefaultUndo)
		began := time.Now()
		for h.job(r, j.ID).State != Ready {
			if time.Sleep(time.Second); time.Since(began) > time.Minute {
				t.Fatal("it is not counted")
			}
		}
	})
}
