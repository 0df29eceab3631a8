package revocation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// slowStore is a store whose changes take time, and that goes away when it is told to.
type slowStore struct {
	store.Store
	slow  atomic.Int64 // how long an Apply takes
	gone  atomic.Bool
	after atomic.Int64 // how many more Applies of a root there are before it goes away; 0: any number
}

var errGone = errors.New("the store has gone away")

func (s *slowStore) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if s.gone.Load() {
		return errGone
	}
	if d := s.slow.Load(); d > 0 && ops[0].Kind != store.OpPut || ops[0].Record != nil && ops[0].Record.Kind == byte(afterlogin.KindSession) {
		time.Sleep(time.Duration(d))
	}
	if n := s.after.Load(); n > 0 && s.after.Add(-1) == 0 {
		s.gone.Store(true)
	}
	return s.Store.Apply(ctx, root, ops...)
}

func (s *slowStore) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if s.gone.Load() {
		return nil, errGone
	}
	return s.Store.Get(ctx, ids...)
}

// house is an installation of some servers over one store.
type house struct {
	t    *testing.T
	mem  store.Store
	keys *keyring.Ring
	a    *afterlogin.Authority // what the test looks with
	end  []func()
}

// inHouse runs a test in a bubble of time.
func inHouse(t *testing.T, f func(*testing.T, *house)) {
	synctest.Test(t, func(t *testing.T) {
		h := &house{t: t, mem: memstore.New(), keys: keyring.New()}
		h.a = h.authority(h.mem)
		defer func() {
			slices.Reverse(h.end)
			for _, f := range h.end {
				f()
			}
			h.mem.Close()
		}()
		f(t, h)
	})
}

func (h *house) authority(s store.Store) *afterlogin.Authority {
	h.t.Helper()
	a, err := afterlogin.New(afterlogin.Config{Store: s, Keys: h.keys})
	if err != nil {
		h.t.Fatal(err)
	}
	h.end = append(h.end, func() { a.Close() })
	return a
}

// server is one that works at the jobs.
func (h *house) server(o Options) *Revocations {
	h.t.Helper()
	if o.Authority == nil {
		o.Authority = h.a
	}
	r, err := New(o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.end = append(h.end, func() { r.Close() })
	return r
}

func (h *house) signIn(n int, r afterlogin.IssueRequest) (ids []afterlogin.SessionID) {
	h.t.Helper()
	for i := range n {
		r := r
		if r.Subject == "" {
			r.Subject = fmt.Sprintf("user%d", i)
		}
		got, err := h.a.Issue(h.t.Context(), r)
		if err != nil {
			h.t.Fatal(err)
		}
		ids = append(ids, got.Session.ID)
	}
	return ids
}

// states counts the sessions: good, on hold by reason, ended by reason.
func (h *house) states(ids []afterlogin.SessionID) map[string]int {
	h.t.Helper()
	out := map[string]int{}
	for _, id := range ids {
		s, err := h.a.Session(h.t.Context(), id)
		if err != nil {
			h.t.Fatal(err)
		}
		switch {
		case !s.Ended.IsZero():
			out["ended "+string(s.Why)]++
		case s.Frozen():
			out["frozen "+string(s.Why)]++
		default:
			out["live"]++
		}
	}
	return out
}

func (h *house) want(ids []afterlogin.SessionID, want map[string]int) {
	h.t.Helper()
	if got := h.states(ids); fmt.Sprint(got) != fmt.Sprint(want) {
		h.t.Errorf("the sessions are %v, want %v", got, want)
	}
}

func (h *house) create(r *Revocations, text string, undo time.Duration) *Job {
	h.t.Helper()
	q, err := query.Parse(text)
	if err != nil {
		h.t.Fatal(err)
	}
	j, err := r.Create(h.t.Context(), Request{Query: q, Undo: &undo, By: "test"})
	if err != nil {
		h.t.Fatal(err)
	}
	return j
}

// await lets time pass until the job is in the state.
func (h *house) await(r *Revocations, id string, want State) *Job {
	h.t.Helper()
	for range 10_000 {
		synctest.Wait()
		j, err := r.Job(h.t.Context(), id)
		if err != nil {
			h.t.Fatal(err)
		}
		if j.State == want {
			return j
		}
		if j.State.Over() {
			h.t.Fatalf("the job is %s, not %s: %s", j.State, want, j.Why)
		}
		time.Sleep(100 * time.Millisecond)
	}
	h.t.Fatalf("the job does not become %s", want)
	return nil
}

func (h *house) confirm(r *Revocations, j *Job, tolerance int) {
	h.t.Helper()
	ready := h.await(r, j.ID, Ready)
	if _, err := r.Confirm(h.t.Context(), j.ID, Confirmation{Count: ready.Preview.Matched, Tolerance: tolerance, By: "mia"}); err != nil {
		h.t.Fatal(err)
	}
}

// TestRevoke is a job's whole life: exactly what was frozen is ended, and when the window is over.
func TestRevoke(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{})
		browser, remember := h.signIn(40, afterlogin.IssueRequest{}), h.signIn(30, afterlogin.IssueRequest{Policy: "remember"})
		held := remember[:3]
		for _, id := range held {
			if err := h.a.Freeze(h.t.Context(), id, "incident 7"); err != nil {
				t.Fatal(err)
			}
		}
		j := h.create(r, "policy=remember", time.Hour)
		ready := h.await(r, j.ID, Ready)
		if p := ready.Preview; p.Matched != 30 || p.Held != 3 || len(p.Examples) != MaxExamples || p.Kinds[0] != (Group{"session", 30}) || p.Policies[0] != (Group{"remember", 30}) || p.LeftOut != 0 {
			t.Errorf("%+v", p)
		}
		h.want(remember, map[string]int{"live": 27, "frozen incident 7": 3}) // counting changes nothing
		h.confirm(r, j, 0)
		frozen := h.await(r, j.ID, Frozen)
		if frozen.Frozen != 27 || !frozen.UndoUntil.Equal(frozen.FrozenAt.Add(time.Hour)) || frozen.ConfirmedBy != "mia" {
			t.Errorf("%+v", frozen)
		}
		h.want(remember, map[string]int{"frozen " + j.ID: 27, "frozen incident 7": 3})
		time.Sleep(time.Second)
		// Who signs in now is not meant any more, and who ended meanwhile does no harm.
		later := h.signIn(2, afterlogin.IssueRequest{Policy: "remember"})
		if err := h.a.Freeze(t.Context(), later[0], "incident 8"); err != nil {
			t.Fatal(err)
		}
		if err := h.a.Revoke(t.Context(), remember[20], afterlogin.ReasonSignedOut); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(frozen.UndoUntil) - time.Second)
		synctest.Wait()
		h.want(remember, map[string]int{"frozen " + j.ID: 26, "frozen incident 7": 3, "ended signed_out": 1})
		time.Sleep(2 * time.Second)
		done := h.await(r, j.ID, Done)
		if done.Revoked != 29 || done.Finished.IsZero() {
			t.Errorf("%+v", done)
		}
		h.want(remember, map[string]int{"ended administrator": 29, "ended signed_out": 1})
		h.want(later, map[string]int{"live": 1, "frozen incident 8": 1})
		h.want(browser, map[string]int{"ended idle": 40}) // by the hour
		if _, err := r.Undo(t.Context(), j.ID, "mia"); !errors.Is(err, ErrState) {
			t.Errorf("undone when it was done: %v", err)
		}
	})
}

// TestUndo thaws what the job froze, and nothing else.
func TestUndo(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{})
		ids := h.signIn(30, afterlogin.IssueRequest{})
		if err := h.a.Freeze(t.Context(), ids[0], "incident 7"); err != nil {
			t.Fatal(err)
		}
		j, other := h.create(r, "policy=browser", DefaultUndo), h.create(r, "subject in user1,user2", DefaultUndo)
		h.confirm(r, other, 0)
		h.await(r, other.ID, Frozen)
		h.confirm(r, j, 0)
		if frozen := h.await(r, j.ID, Frozen); frozen.Frozen != 27 {
			t.Errorf("%+v", frozen)
		}
		if _, err := r.Undo(t.Context(), j.ID, "tom"); err != nil {
			t.Fatal(err)
		}
		undone := h.await(r, j.ID, Undone)
		if undone.Thawed != 27 || undone.Stopped != "tom" {
			t.Errorf("%+v", undone)
		}
		h.want(ids, map[string]int{"live": 27, "frozen incident 7": 1, "frozen " + other.ID: 2})
		if again, err := r.Undo(t.Context(), j.ID, "tom"); err != nil || again.State != Undone {
			t.Errorf("undone again: %+v %v", again, err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := h.states(ids[1:3]); s["ended administrator"] != 2 {
			t.Errorf("the other job: %v", s)
		}
	})
}

// TestUndoWhileFreezing stops the freezing first.
func TestUndoWhileFreezing(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		slow := &slowStore{Store: h.mem}
		r := h.server(Options{Authority: h.authority(slow), Parallel: 4})
		ids := h.signIn(200, afterlogin.IssueRequest{})
		slow.slow.Store(int64(200 * time.Millisecond))
		j := h.create(r, "policy=browser", DefaultUndo)
		h.confirm(r, j, 0)
		time.Sleep(3500 * time.Millisecond) // 200 take 10 s
		if s := h.states(ids); s["live"] == 0 || s["live"] == 200 {
			t.Fatalf("%v", s)
		}
		if _, err := r.Undo(t.Context(), j.ID, "tom"); err != nil {
			t.Fatal(err)
		}
		h.await(r, j.ID, Undone)
		h.want(ids, map[string]int{"live": 200})
	})
}

// TestMoreThanConfirmed ends nothing when more match than somebody has seen.
func TestMoreThanConfirmed(t *testing.T) {
	for _, undo := range []time.Duration{DefaultUndo, 0} {
		inHouse(t, func(t *testing.T, h *house) {
			r := h.server(Options{})
			ids := h.signIn(20, afterlogin.IssueRequest{})
			j := h.create(r, "policy=browser", undo)
			h.await(r, j.ID, Ready)
			for _, n := range []int{19, 21, 0} {
				if _, err := r.Confirm(t.Context(), j.ID, Confirmation{Count: n, By: "mia"}); !errors.Is(err, ErrCount) {
					t.Errorf("%d was confirmed: %v", n, err)
				}
			}
			ids = append(ids, h.signIn(5, afterlogin.IssueRequest{})...)
			if _, err := r.Confirm(t.Context(), j.ID, Confirmation{Count: 20, Tolerance: 4, By: "mia"}); err != nil {
				t.Fatal(err)
			}
			failed := h.await(r, j.ID, Failed)
			if !strings.Contains(failed.Why, "24") || failed.Revoked != 0 {
				t.Errorf("%+v", failed)
			}
			h.want(ids, map[string]int{"live": 25})
		})
	}
}

func TestWithoutUndo(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{})
		ids := h.signIn(20, afterlogin.IssueRequest{})
		mia := h.signIn(2, afterlogin.IssueRequest{Subject: "mia"})
		j := h.create(r, "subject=mia", 0)
		h.confirm(r, j, 0)
		if done := h.await(r, j.ID, Done); done.Revoked != 2 || done.Frozen != 0 {
			t.Errorf("%+v", done)
		}
		h.want(mia, map[string]int{"ended administrator": 2})
		h.want(ids, map[string]int{"live": 20})
	})
}

// TestAnotherServerGoesOn: a server that dies in the middle, wherever that is, loses nothing and leaves nothing behind.
func TestAnotherServerGoesOn(t *testing.T) {
	for _, undone := range []bool{false, true} {
		inHouse(t, func(t *testing.T, h *house) {
			dying := &slowStore{Store: h.mem}
			first := h.server(Options{Authority: h.authority(dying), Node: "a", Parallel: 4})
			ids := h.signIn(100, afterlogin.IssueRequest{Policy: "remember"})
			j := h.create(first, "policy=remember", DefaultUndo)
			h.await(first, j.ID, Ready)
			dying.slow.Store(int64(100 * time.Millisecond))
			dying.after.Store(50)
			if _, err := first.Confirm(t.Context(), j.ID, Confirmation{Count: 100, By: "mia"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(4 * time.Second)
			s := h.states(ids)
			if !dying.gone.Load() || s["live"] == 0 || s["live"] == 100 {
				t.Fatalf("%v", s)
			}
			second := h.server(Options{Node: "b"})
			time.Sleep(5 * time.Second) // it may still be alive
			synctest.Wait()
			h.want(ids, s)
			if undone {
				if _, err := second.Undo(t.Context(), j.ID, "tom"); err != nil {
					t.Fatal(err)
				}
				h.await(second, j.ID, Undone)
				h.want(ids, map[string]int{"live": 100})
				return
			}
			if frozen := h.await(second, j.ID, Frozen); frozen.Frozen != 100 {
				t.Errorf("%+v", frozen)
			}
			dying.gone.Store(false) // the first one comes back, and leaves it alone
			if done := h.await(second, j.ID, Done); done.Revoked != 100 {
				t.Errorf("%+v", done)
			}
			h.want(ids, map[string]int{"ended administrator": 100})
		})
	}
}

// TestClose stops cleanly, and the next one goes on at once.
func TestClose(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		slow := &slowStore{Store: h.mem}
		a := h.authority(slow)
		r := h.server(Options{Authority: a, Parallel: 2})
		ids := h.signIn(100, afterlogin.IssueRequest{})
		slow.slow.Store(int64(100 * time.Millisecond))
		j := h.create(r, "policy=browser", DefaultUndo)
		h.confirm(r, j, 0)
		time.Sleep(2 * time.Second)
		r.Close()
		s := h.states(ids)
		if s["live"] == 0 || s["live"] == 100 {
			t.Fatalf("%v", s)
		}
		time.Sleep(time.Minute)
		h.want(ids, s) // nobody works at it
		r = h.server(Options{Authority: a, Parallel: 2})
		began := time.Now()
		if frozen := h.await(r, j.ID, Frozen); frozen.Frozen != 100 {
			t.Errorf("%+v", frozen)
		}
		if took := time.Since(began); took > 8*time.Second { // less than the lease and the rest of the work
			t.Errorf("it went on after %v", took)
		}
	})
}

// TestStoreTrouble waits for the store, says so, and goes on.
func TestStoreTrouble(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		s := &slowStore{Store: h.mem}
		r := h.server(Options{Authority: h.authority(s), Parallel: 4})
		ids := h.signIn(60, afterlogin.IssueRequest{})
		j := h.create(r, "policy=browser", DefaultUndo)
		h.await(r, j.ID, Ready)
		s.slow.Store(int64(100 * time.Millisecond))
		s.after.Store(30)
		if _, err := r.Confirm(t.Context(), j.ID, Confirmation{Count: 60, By: "mia"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := r.Job(t.Context(), j.ID); !errors.Is(err, afterlogin.ErrUnavailable) {
			t.Errorf("the store is away: %v", err)
		}
		s.gone.Store(false)
		if frozen := h.await(r, j.ID, Frozen); frozen.Frozen != 60 {
			t.Errorf("%+v", frozen)
		}
		h.want(ids, map[string]int{"frozen " + j.ID: 60})
	})
}

// TestProgress is written at least once a second, and says what is left.
func TestProgress(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		s := &slowStore{Store: h.mem}
		r := h.server(Options{Authority: h.authority(s), Parallel: 4})
		h.signIn(400, afterlogin.IssueRequest{})
		j := h.create(r, "policy=browser", DefaultUndo)
		h.await(r, j.ID, Ready)
		s.slow.Store(int64(100 * time.Millisecond)) // 10 s in all
		if _, err := r.Confirm(t.Context(), j.ID, Confirmation{Count: 400, By: "mia"}); err != nil {
			t.Fatal(err)
		}
		seen, last := 0, Progress{}
		for {
			time.Sleep(beat)
			synctest.Wait()
			j, err := r.Job(t.Context(), j.ID)
			if err != nil {
				t.Fatal(err)
			}
			if j.State == Frozen {
				break
			}
			p := j.Progress
			if p.Phase != Freezing || p.Total != 400 || p.Done < last.Done || seen > 1 && (p.Rate < 20 || p.Rate > 60 || p.Left <= 0 || !p.Updated.After(last.Updated)) {
				t.Errorf("after %d: %+v", seen, p)
			}
			seen, last = seen+1, p
		}
		if seen < 8 || last.Done < 200 {
			t.Errorf("%d looks, and at last %+v", seen, last)
		}
	})
}

// TestRate keeps to the setting.
func TestRate(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{Rate: 10})
		h.signIn(50, afterlogin.IssueRequest{})
		j := h.create(r, "policy=browser", DefaultUndo)
		h.confirm(r, j, 0)
		began := time.Now()
		h.await(r, j.ID, Frozen)
		if took := time.Since(began); took < 4*time.Second || took > 6*time.Second {
			t.Errorf("50 at 10 a second took %v", took)
		}
	})
}

// TestTime decides by the moment at which the job was made.
func TestTime(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{})
		old := h.signIn(3, afterlogin.IssueRequest{Policy: "remember"})
		time.Sleep(2 * time.Hour)
		young := h.signIn(3, afterlogin.IssueRequest{Policy: "remember"})
		j := h.create(r, "created<1h", DefaultUndo)
		h.await(r, j.ID, Ready)
		time.Sleep(59 * time.Minute)
		h.confirm(r, j, 0)
		h.await(r, j.ID, Frozen)
		h.want(old, map[string]int{"frozen " + j.ID: 3})
		h.want(young, map[string]int{"live": 3})
		// What was counted over an hour ago is counted again.
		j = h.create(r, "created<1h", DefaultUndo)
		ready := h.await(r, j.ID, Ready)
		time.Sleep(61 * time.Minute)
		if _, err := r.Confirm(t.Context(), j.ID, Confirmation{Count: ready.Preview.Matched, By: "mia"}); !errors.Is(err, ErrState) {
			t.Errorf("confirmed after an hour: %v", err)
		}
	})
}

// TestSlots: jobs make room for each other, and those under way stay.
func TestSlots(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{})
		kept := h.create(r, "subject=mia", DefaultUndo)
		h.await(r, kept.ID, Ready)
		free, _ := slotOf(kept.ID)
		for i := range slots { // as if there had been many
			if i == free {
				continue
			}
			old := &Job{ID: newID(i), Query: "subject=tom", State: Done, Created: time.Now().Add(-time.Duration(1+(i+50)%slots) * time.Hour)}
			detail, err := old.encode()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.a.AddEntry(t.Context(), afterlogin.EntryRequest{Realm: realm, Name: slotName(i), Detail: detail}); err != nil {
				t.Fatal(err)
			}
		}
		last := h.create(r, "subject=tom", DefaultUndo)
		if slot, _ := slotOf(last.ID); slot != (slots - 51) {
			t.Errorf("it took slot %d, and not that of the oldest", slot)
		}
		if _, err := r.Cancel(t.Context(), last.ID, "mia"); err != nil {
			t.Fatal(err)
		}
		jobs, err := r.List(t.Context())
		if err != nil || len(jobs) != slots {
			t.Errorf("%d jobs, %v", len(jobs), err)
		}
		if _, err := r.Job(t.Context(), kept.ID); err != nil {
			t.Errorf("the one that waits: %v", err)
		}
		for range maxActive - 1 {
			h.create(r, "subject=tom", DefaultUndo)
		}
		q, _ := query.Parse("subject=tom")
		if _, err := r.Create(t.Context(), Request{Query: q}); !errors.Is(err, ErrBusy) {
			t.Errorf("the twenty-first: %v", err)
		}
		time.Sleep(readyFor + time.Minute) // nobody confirmed them
		if _, err := r.Create(t.Context(), Request{Query: q}); err != nil {
			t.Error(err)
		}
	})
}

func TestRefused(t *testing.T) {
	inHouse(t, func(t *testing.T, h *house) {
		r := h.server(Options{})
		h.signIn(3, afterlogin.IssueRequest{})
		ctx := t.Context()
		if _, err := r.Create(ctx, Request{}); !errors.Is(err, ErrEverything) {
			t.Error(err)
		}
		for _, undo := range []time.Duration{-1, MaxUndo + 1} {
			if _, err := r.Create(ctx, Request{All: true, Undo: &undo}); !errors.Is(err, ErrUndo) {
				t.Error(err)
			}
		}
		for _, id := range []string{"", "rev_", "rev_aaaaaaaaaaaaaaaa", "ses_aaaaaaaaaaaaaaaa", "rev_7aaaaaaaaaaaaaaa", "rev_AAAAAAAAAAAAAAAA"} {
			if _, err := r.Job(ctx, id); !errors.Is(err, ErrNoJob) {
				t.Errorf("%q: %v", id, err)
			}
		}
		dry, err := r.Create(ctx, Request{All: true, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		if ready := h.await(r, dry.ID, Ready); ready.Preview.Matched != 3 {
			t.Errorf("%+v", ready)
		}
		if _, err := r.Confirm(ctx, dry.ID, Confirmation{Count: 3, By: "mia"}); !errors.Is(err, ErrState) {
			t.Errorf("a dry run: %v", err)
		}
		if _, err := r.Undo(ctx, dry.ID, "mia"); !errors.Is(err, ErrState) {
			t.Errorf("nothing is frozen: %v", err)
		}
		if j, err := r.Cancel(ctx, dry.ID, "mia"); err != nil || j.State != Cancelled {
			t.Errorf("%+v %v", j, err)
		}
		if _, err := r.Confirm(ctx, dry.ID, Confirmation{Count: 3, By: "mia"}); !errors.Is(err, ErrState) {
			t.Errorf("cancelled: %v", err)
		}
	})
	if _, err := New(Options{}); err == nil {
		t.Error("without an authority")
	}
}

// Whatever stands in a query and in names, a job fits into an entry.
func TestJobFits(t *testing.T) {
	long := strings.Repeat(`\"`, 32)
	q, err := query.Parse(`subject="` + strings.Repeat(`\"`, 480) + `"`)
	if err != nil {
		t.Fatal(err)
	}
	j := &Job{ID: newID(3), Query: q.String(), By: strings.Repeat(`"`, 128), ConfirmedBy: strings.Repeat(`"`, 128), Stopped: strings.Repeat(`"`, 128), Spared: []string{strings.Repeat("x", 30), strings.Repeat("x", 30)}}
	for range maxGroups {
		j.Preview.Clients = append(j.Preview.Clients, Group{long, 1 << 30})
		j.Preview.Policies = append(j.Preview.Policies, Group{long, 1 << 30})
	}
	for range MaxExamples {
		j.Preview.Examples = append(j.Preview.Examples, "grant_"+afterlogin.SessionID(strings.Repeat("x", 23)))
	}
	b, err := j.encode()
	if err != nil || len(b) > maxDetail {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	var got Job
	if err := json.Unmarshal(b, &got); err != nil || got.Query != j.Query || len(got.Preview.Examples) != MaxExamples || len(j.Preview.Clients) != maxGroups {
		t.Errorf("%+v %v", got, err)
	}
	if slot, ok := slotOf(j.ID); !ok || slot != 3 {
		t.Errorf("slot %d", slot)
	}
}
