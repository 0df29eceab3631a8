package revocation

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
	"github.com/afterlogin/afterlogin/store"
)

// lazyStore is a store whose list is no snapshot: it shows what was put behind its place meanwhile, as one in pages does.
type lazyStore struct{ *slowStore }

func (s lazyStore) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		for more := true; more; {
			more = false
			for r, err := range s.Store.List(ctx, q) {
				if !yield(r, err) || err != nil {
					return
				}
				q.After, more = r.ID, true
				break
			}
		}
	}
}

// TestNewcomers: who signs in after the confirmation is not meant, and nobody stays in their place.
func TestNewcomers(t *testing.T) {
	for undo, want := range map[time.Duration]State{0: Done, DefaultUndo: Frozen} {
		inHouse(t, func(t *testing.T, h *house) {
			slow := &slowStore{Store: h.mem}
			r := h.server(Options{Authority: h.authority(lazyStore{slow}), Parallel: 4})
			ids := append(h.signIn(50, afterlogin.IssueRequest{}), h.signIn(50, afterlogin.IssueRequest{Policy: "remember"})...)
			j := h.create(r, "kind=session", undo)
			h.await(r, j.ID, Ready)
			slow.slow.Store(int64(100 * time.Millisecond))
			h.confirm(r, j, 0)
			var late []afterlogin.SessionID
			for i := range 20 { // policies that end before and behind the others stand before and behind them in the store
				time.Sleep(50 * time.Millisecond)
				late = append(late, h.signIn(1, afterlogin.IssueRequest{Policy: []string{"browser", "remember"}[i%2], Subject: fmt.Sprint("late", i)})...)
			}
			h.await(r, j.ID, want)
			if want == Frozen {
				h.want(ids, map[string]int{"frozen " + j.ID: 100})
				time.Sleep(DefaultUndo)
				slow.slow.Store(0)
			}
			if done := h.await(r, j.ID, Done); done.Revoked != 100 || done.AtLeast {
				t.Errorf("%+v", done)
			}
			h.want(ids, map[string]int{"ended administrator": 100})
			h.want(late, map[string]int{"live": 20})
		})
	}
}

// TestHeldLater: what was put on hold for another reason after the job had frozen its own is no part of it, whatever the query
// says of the state. If it cannot be told apart, it stays on hold.
func TestHeldLater(t *testing.T) {
	for _, at := range []time.Duration{0, time.Minute} {
		inHouse(t, func(t *testing.T, h *house) {
			r := h.server(Options{})
			ids := h.signIn(10, afterlogin.IssueRequest{Policy: "remember"})
			freeze := func(why afterlogin.Reason, ids []afterlogin.SessionID) {
				for _, id := range ids {
					if err := h.a.Freeze(t.Context(), id, why); err != nil {
						t.Fatal(err)
					}
				}
			}
			freeze("incident 7", ids[:2])
			time.Sleep(time.Second)
			j := h.create(r, "state=frozen", DefaultUndo)
			h.confirm(r, j, 0)
			if f := h.await(r, j.ID, Frozen); f.Most != 2 || f.Frozen != 0 || f.Held != 2 {
				t.Errorf("%+v", f)
			}
			time.Sleep(at)
			freeze("incident 8", ids[2:])
			time.Sleep(DefaultUndo)
			synctest.Wait()
			if at == 0 { // in the same millisecond
				if failed := h.await(r, j.ID, Failed); failed.Revoked != 0 || !strings.Contains(failed.Why, "more than the 2") {
					t.Errorf("%+v", failed)
				}
				h.want(ids, map[string]int{"frozen incident 7": 2, "frozen incident 8": 8})
				return
			}
			if done := h.await(r, j.ID, Done); done.Revoked != 2 {
				t.Errorf("%+v", done)
			}
			h.want(ids, map[string]int{"ended administrator": 2, "frozen incident 8": 8})
		})
	}
}

// TestCrashWithoutUndo: after a crash the job goes on with those that it meant, and does not claim to know how many it ended.
func TestCrashWithoutUndo(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		dying := &slowStore{Store: h.mem}
		first := h.server(Options{Authority: h.authority(dying), Node: "a", Parallel: 4})
		ids := h.signIn(100, afterlogin.IssueRequest{Policy: "remember"})
		j := h.create(first, "policy=remember", 0)
		h.await(first, j.ID, Ready)
		dying.slow.Store(int64(10 * time.Millisecond))
		dying.after.Store(90)
		h.confirm(first, j, 0)
		time.Sleep(2 * time.Second)
		if s := h.states(ids); !dying.gone.Load() || s["live"] == 0 || s["live"] > 20 {
			t.Fatalf("%v", s)
		}
		back := h.signIn(60, afterlogin.IssueRequest{Policy: "remember"})
		done := h.await(h.server(Options{Node: "b"}), j.ID, Done)
		if !done.AtLeast || done.Revoked > 100 {
			t.Errorf("%+v", done)
		}
		h.want(ids, map[string]int{"ended administrator": 100})
		h.want(back, map[string]int{"live": 60})
	})
}

// TestMoreWhileEnding: what comes to match only while the job ends others is not ended beyond the number, and not skipped in
// silence.
func TestMoreWhileEnding(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		slow := &slowStore{Store: h.mem}
		r := h.server(Options{Authority: h.authority(slow), Parallel: 1})
		ids := h.signIn(20, afterlogin.IssueRequest{Policy: "remember"})
		for _, id := range ids[:10] {
			if err := h.a.Freeze(t.Context(), id, "incident 7"); err != nil {
				t.Fatal(err)
			}
		}
		j := h.create(r, "state=frozen", 0)
		h.await(r, j.ID, Ready)
		slow.slow.Store(int64(time.Second))
		h.confirm(r, j, 0)
		time.Sleep(500 * time.Millisecond)
		for _, id := range ids[10:] {
			if err := h.a.Freeze(t.Context(), id, "incident 8"); err != nil {
				t.Fatal(err)
			}
		}
		for !h.job(r, j.ID).State.Over() {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		ended := h.job(r, j.ID)
		if ended.State != Failed || ended.Revoked > 10 || h.states(ids)["ended administrator"] != ended.Revoked {
			t.Errorf("%+v, and the sessions are %v", ended, h.states(ids))
		}
	})
}

func (h *house) job(r *Revocations, id string) *Job {
	h.t.Helper()
	j, err := r.Job(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return j
}

// TestForeignFreeze: a freeze for the job's own reason that the job did not make does not raise the number.
func TestForeignFreeze(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{})
		mia := h.signIn(1, afterlogin.IssueRequest{Subject: "mia", Policy: "remember"})
		tom := h.signIn(9, afterlogin.IssueRequest{Subject: "tom", Policy: "remember"})
		key, err := h.a.Issue(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "robot", Name: "robot"})
		if err != nil {
			t.Fatal(err)
		}
		j := h.create(r, "policy=remember subject!=tom", DefaultUndo)
		h.confirm(r, j, 0)
		h.await(r, j.ID, Frozen)
		robot := []afterlogin.SessionID{key.Session.ID}
		foreign := func(j *Job, ids []afterlogin.SessionID) {
			for _, id := range ids {
				if err := h.a.Freeze(t.Context(), id, j.Reason()); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(DefaultUndo + time.Minute)
		}
		foreign(j, tom)
		failed := h.await(r, j.ID, Failed)
		if failed.Revoked > 1 || h.states(append(tom, mia...))["ended administrator"] != failed.Revoked {
			t.Errorf("%+v, and the sessions are %v", failed, h.states(tom))
		}
		// Nor does it reach what the job may not end, if the number leaves room.
		eve := h.signIn(1, afterlogin.IssueRequest{Subject: "eve", Policy: "remember"})
		j = h.create(r, "subject=eve*", DefaultUndo)
		h.confirm(r, j, 0)
		h.await(r, j.ID, Frozen)
		if err := h.a.Revoke(t.Context(), eve[0], afterlogin.ReasonSignedOut); err != nil {
			t.Fatal(err)
		}
		foreign(j, robot)
		if done := h.await(r, j.ID, Done); done.Revoked != 0 {
			t.Errorf("%+v", done)
		}
		h.want(robot, map[string]int{"frozen " + j.ID: 1})
	})
}

// TestUrgent: a small revocation does not wait for large ones that freeze, nor for such as end.
func TestUrgent(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		slow := &slowStore{Store: h.mem}
		r := h.server(Options{Authority: h.authority(slow), Parallel: 1})
		h.signIn(2*maxSmall, afterlogin.IssueRequest{Client: "", Policy: "remember"})
		thief := h.signIn(1, afterlogin.IssueRequest{Subject: "mia"})
		a, b, c := h.create(r, "policy=remember", DefaultUndo), h.create(r, "policy=remember kind=session", DefaultUndo), h.create(r, "policy=remember", 0)
		jobs := []*Job{a, b, c, h.create(r, "subject=user5*", 0), h.create(r, "subject=user6*", 0)} // the last two end as few
		for _, j := range jobs {
			h.await(r, j.ID, Ready)
		}
		slow.slow.Store(int64(100 * time.Millisecond))
		for _, j := range jobs {
			h.confirm(r, j, 0)
		}
		time.Sleep(time.Second)
		began := time.Now()
		j := h.create(r, "subject=mia", DefaultUndo)
		h.confirm(r, j, 0)
		h.await(r, j.ID, Frozen)
		if took := time.Since(began); took > 3*time.Second || h.job(r, a.ID).State != Freezing {
			t.Errorf("frozen after %v, and the large one is %s", took, h.job(r, a.ID).State)
		}
		h.want(thief, map[string]int{"frozen " + j.ID: 1})
	})
}

// TestClock: a server whose clock is wrong neither cuts an undo window short nor confirms.
func TestClock(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{Node: "a"})
		ahead := h.server(Options{Node: "b", Now: func() time.Time { return time.Now().Add(time.Hour) }, Skew: func() time.Duration { return time.Hour }})
		ids := h.signIn(5, afterlogin.IssueRequest{Policy: "remember"})
		j := h.create(r, "policy=remember", DefaultUndo)
		h.await(r, j.ID, Ready)
		if _, err := ahead.Confirm(t.Context(), j.ID, Confirmation{Count: 5}); !errors.Is(err, afterlogin.ErrUnavailable) {
			t.Errorf("confirmed by a wrong clock: %v", err)
		}
		h.confirm(r, j, 0)
		h.await(r, j.ID, Frozen)
		time.Sleep(DefaultUndo - time.Minute)
		synctest.Wait()
		h.want(ids, map[string]int{"frozen " + j.ID: 5})
		h.await(r, j.ID, Done)
	})
}

// TestDryRuns: what was only counted is over.
func TestDryRuns(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{})
		q, _ := query.Parse("subject=mia")
		for range maxActive + 1 {
			j, err := r.Create(t.Context(), Request{Query: q, DryRun: true})
			if err != nil {
				t.Fatal(err)
			}
			h.await(r, j.ID, Ready)
		}
	})
}

// TestSpared: neither the key that asks nor the one that confirms ends itself, and the job may what both may.
func TestSpared(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{})
		var keys []afterlogin.SessionID
		for i := range 3 {
			k, err := h.a.Issue(t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "robot", Name: fmt.Sprint("key", i)})
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, k.Session.ID)
		}
		q, _ := query.Parse("subject=robot")
		for _, may := range []bool{false, true} {
			j, err := r.Create(t.Context(), Request{Query: q, Spared: keys[0], Rights: Rights{Keys: true}})
			if err != nil {
				t.Fatal(err)
			}
			h.await(r, j.ID, Ready)
			if _, err := r.Confirm(t.Context(), j.ID, Confirmation{Count: 2, Spared: keys[1], Rights: Rights{Keys: may}}); err != nil {
				t.Fatal(err)
			}
			h.await(r, j.ID, Frozen)
			want := map[string]int{"live": 3}
			if may {
				want = map[string]int{"live": 2, "frozen " + j.ID: 1}
			}
			h.want(keys, want)
		}
	})
}

// TestUnreadableQuery: what a job has frozen it ends also when nobody can read its query any more.
func TestUnreadableQuery(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{})
		ids := h.signIn(5, afterlogin.IssueRequest{Policy: "remember"})
		j := h.create(r, "policy=remember", DefaultUndo)
		h.confirm(r, j, 0)
		h.await(r, j.ID, Frozen)
		if _, err := r.change(t.Context(), j.ID, func(j *Job) error { j.Query = "colour=blue"; return nil }); err != nil {
			t.Fatal(err)
		}
		if done := h.await(r, j.ID, Done); done.Revoked != 5 {
			t.Errorf("%+v", done)
		}
		h.want(ids, map[string]int{"ended administrator": 5})
	})
}

// TestUnreadableEntries: what cannot be read is in nobody's way.
func TestUnreadableEntries(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		bad := []byte(`"?"`)
		if _, err := h.a.AddEntry(t.Context(), afterlogin.EntryRequest{Realm: realm, Name: slotName(0), Detail: bad}); err != nil {
			t.Fatal(err)
		}
		r := h.server(Options{})
		stuck := &Job{ID: newID(1), Query: "subject=mia", State: Counting, Created: time.Now()}
		detail, err := stuck.encode()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range []afterlogin.EntryRequest{
			{Realm: realm, Name: stuck.ID, Detail: bad, Until: stuck.Created.Add(workFor)}, {Realm: realm, Name: slotName(1), Detail: detail},
		} {
			if _, err := h.a.AddEntry(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		h.await(r, h.create(r, "subject=tom", DefaultUndo).ID, Ready)
		if took := time.Since(began); took > time.Second {
			t.Errorf("counted after %v", took)
		}
		h.await(r, stuck.ID, Ready) // by whoever finds that nobody works at it
		if _, err := r.List(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
