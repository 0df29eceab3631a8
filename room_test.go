package afterlogin_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func marks(c storeCall) bool {
	return c.Method == "Apply" && c.Root.IsRoot() && c.Ops[0].Kind == store.OpMark
}

// reserves reports whether the call writes a subject's record.
func reserves(c storeCall) bool { return c.Method == "Apply" && c.Root.IsSubject() }

// What was to give way to a sign-in that failed gives way to nobody while there is room, and to no other browser as
// superseded, whether the place was given back or the server died before it could be.
func TestAFailedSignInEndsNothingLater(t *testing.T) {
	for _, at := range []afterlogin.AtLimit{afterlogin.DenyNew, afterlogin.EndOldest} {
		for _, dies := range []bool{false, true} {
			h, faulty := faultyHouse(t, limited(afterlogin.KindSession, 3, at))
			a, b, c := h.signIn("mia"), h.signIn("mia"), h.signIn("mia")
			h.clock.pass(time.Minute)
			failed := false
			faulty.SetHook(func(call storeCall) fault {
				if failed = failed || marks(call); failed && (dies || marks(call)) {
					return fault{Before: errFault}
				}
				return fault{}
			})
			r := afterlogin.IssueRequest{Subject: "mia"}
			if at == afterlogin.DenyNew {
				r.From = a.Token
			}
			if _, err := h.Issue(t.Context(), r); !errors.Is(err, afterlogin.ErrUnavailable) || !failed {
				t.Fatalf("%v: the sign-in whose room could not be made: %v", at, err)
			}
			faulty.SetHook(nil)
			h.clock.pass(time.Minute)
			if at == afterlogin.DenyNew {
				h.denied(afterlogin.IssueRequest{Subject: "mia"})
			}
			must(t, h.Revoke(t.Context(), b.Session.ID, afterlogin.ReasonSignedOut))
			if at == afterlogin.EndOldest {
				must(t, h.Revoke(t.Context(), c.Session.ID, afterlogin.ReasonSignedOut))
			}
			d := h.signIn("mia")
			if got := h.standing(a.Token, afterlogin.KindSession); got != "good" || h.good(afterlogin.KindSession, d) != 1 {
				t.Errorf("%v, dies %v: there was room, and one is over: %s", at, dies, got)
			}
		}
	}
}

// The oldest is the one that goes, and not the one that a sign-in in its own browser was to replace and did not.
func TestAFailedReplacementIsForgotten(t *testing.T) {
	for _, died := range []time.Duration{0, 31 * time.Second} { // at once: the place was given back; or it fell free by time
		h, faulty := faultyHouse(t, limited(afterlogin.KindSession, 2, afterlogin.EndOldest))
		a, b := h.signIn("mia"), afterlogin.Issued{}
		h.clock.pass(time.Second)
		b = h.signIn("mia")
		h.clock.pass(time.Minute)
		failed := false
		faulty.SetHook(func(call storeCall) fault {
			if failed = failed || marks(call); failed && (died > 0 || marks(call)) {
				return fault{Before: errFault}
			}
			return fault{}
		})
		if _, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: b.Token}); !errors.Is(err, afterlogin.ErrUnavailable) || !failed {
			t.Fatal(err)
		}
		faulty.SetHook(nil)
		h.clock.pass(died)
		c := h.signIn("mia")
		if got := h.standing(a.Token, afterlogin.KindSession); got != "session_limit" || h.good(afterlogin.KindSession, b, c) != 2 {
			t.Errorf("died %v: the oldest is %s, the one that was to be replaced %s", died, got, h.standing(b.Token, afterlogin.KindSession))
		}
	}
}

// The same while a third one is on its way: the place that was given back leaves no trace.
func TestAFailedReplacementIsForgottenAtOnce(t *testing.T) {
	h, faulty := faultyHouse(t, limited(afterlogin.KindSession, 3, afterlogin.EndOldest))
	h.signIn("mia")
	h.clock.pass(time.Second)
	b := h.signIn("mia")
	h.clock.pass(time.Second)
	d := h.signIn("mia")
	h.clock.pass(time.Minute)
	var last afterlogin.Issued
	inside, fail := false, false
	faulty.SetHook(func(call storeCall) fault {
		switch {
		case marks(call) && fail:
			return fault{Before: errFault}
		case !inside && call.Method == "Apply" && call.Root.IsRoot() && call.Ops[0].Kind == store.OpPut && call.Ops[0].Expect == 0:
			inside, fail = true, true
			if _, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: d.Token}); !errors.Is(err, afterlogin.ErrUnavailable) {
				t.Error(err)
			}
			fail = false
			last = h.signIn("mia")
		}
		return fault{}
	})
	third := h.signIn("mia")
	if got := h.standing(b.Token, afterlogin.KindSession); got != "session_limit" || h.good(afterlogin.KindSession, d, last, third) != 3 {
		t.Errorf("the oldest is %s, the one that was to be replaced %s", got, h.standing(d.Token, afterlogin.KindSession))
	}
}

// Two browsers that a person is signed in in, at the limit, sign in again at the same moment: neither is denied, since
// each takes its own place.
func TestTwoBrowsersSignInAgainAtOnce(t *testing.T) {
	h, faulty := faultyHouse(t, limited(afterlogin.KindSession, 2, afterlogin.DenyNew))
	other := h.neighbour(limited(afterlogin.KindSession, 2, afterlogin.DenyNew))
	a, b := h.signIn("mia"), h.signIn("mia")
	h.clock.pass(time.Minute)
	second, looked, began := make(chan error, 1), make(chan bool), false
	faulty.SetHook(func(call storeCall) fault {
		switch {
		case marks(call) && !began: // the first has its place, and has not ended its old session yet
			began = true
			go func() {
				_, err := other.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: b.Token})
				second <- err
			}()
			for range 2 { // two looks at the list: it is waiting
				<-looked
			}
		case began && call.Method == "Get" && len(call.IDs) == 1 && call.IDs[0].IsSubject():
			select {
			case looked <- true:
			case <-time.After(time.Second): // nobody wants to know any more
			}
		}
		return fault{}
	})
	_, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: a.Token})
	faulty.SetHook(nil)
	if err := errors.Join(err, <-second); err != nil {
		t.Error(err)
	}
}

// counting counts what List yields.
type counting struct {
	store.Store
	yielded int
}

func (c *counting) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		for r, err := range c.Store.List(ctx, q) {
			if c.yielded++; !yield(r, err) {
				return
			}
		}
	}
}

// A limit for somebody who has far more: one sign-in does not do all the work.
func TestFarTooManySessions(t *testing.T) {
	list := &counting{Store: memstore.New()}
	h := newHouse(t, func(c *afterlogin.Config) { c.Store = list })
	var all []afterlogin.Issued
	for range 1200 {
		all = append(all, h.signIn("mia"))
		h.clock.pass(time.Millisecond)
	}
	deny := h.neighbour(limited(afterlogin.KindSession, 3, afterlogin.DenyNew))
	deny.denied(afterlogin.IssueRequest{Subject: "mia"})
	if list.yielded > 101 {
		t.Errorf("%d sessions were looked at for a sign-in that is denied", list.yielded)
	}
	h.clock.pass(31 * time.Second) // a list that is stored would be believed by now
	deny.denied(afterlogin.IssueRequest{Subject: "mia"})
	end, tries := h.neighbour(limited(afterlogin.KindSession, 3, afterlogin.EndOldest)), 0
	left := len(all)
	for done := false; !done; tries++ {
		got, err := end.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"})
		switch {
		case err == nil:
			all, done = append(all, got), true
		case !errors.Is(err, afterlogin.ErrUnavailable) || tries > 5:
			t.Fatalf("try %d: %v", tries, err)
		}
		good := h.good(afterlogin.KindSession, all...)
		if left-good > 500+200 || !done && left-good < 100 {
			t.Errorf("try %d has ended %d", tries, left-good)
		}
		left = good
	}
	if left != 3 || h.good(afterlogin.KindSession, all[1198:]...) != 3 || tries < 3 {
		t.Errorf("%d left after %d tries, or not the newest", left, tries)
	}
}

// Those that are idle, however many, do not count, and a list that was made for a sign-in that was denied serves the next.
func TestManyIdleSessions(t *testing.T) {
	list := &counting{Store: memstore.New()}
	h := newHouse(t, func(c *afterlogin.Config) { c.Store = list })
	for range 300 {
		h.signIn("mia")
	}
	h.clock.pass(90 * time.Minute)
	a, b := h.signIn("mia"), h.signIn("mia")
	deny := h.neighbour(limited(afterlogin.KindSession, 2, afterlogin.DenyNew))
	deny.denied(afterlogin.IssueRequest{Subject: "mia"})
	h.clock.pass(time.Minute) // the list has settled
	list.yielded = 0
	deny.denied(afterlogin.IssueRequest{Subject: "mia"})
	if list.yielded > 0 {
		t.Errorf("%d sessions were looked for once more", list.yielded)
	}
	must(t, h.Revoke(t.Context(), a.Session.ID, afterlogin.ReasonSignedOut))
	c := deny.signIn("mia")
	if h.good(afterlogin.KindSession, b, c) != 2 {
		t.Error("two that may be are not")
	}
}

// An import that comes to its end after others have taken its place fails, however long the end of the oldest took.
func TestASlowImportLosesItsPlace(t *testing.T) {
	imports := func(c *afterlogin.Config) { c.ImportedKeys = true }
	h, faulty := faultyHouse(t, limited(afterlogin.KindAPIKey, 1, afterlogin.EndOldest), imports)
	quick := h.neighbour(limited(afterlogin.KindAPIKey, 1, afterlogin.EndOldest), imports)
	r := afterlogin.IssueRequest{Subject: "ci", Kind: afterlogin.KindAPIKey}
	_, err := h.Issue(t.Context(), r)
	must(t, err)
	h.clock.pass(time.Minute)
	var other afterlogin.Issued
	hung := false
	faulty.SetHook(func(call storeCall) fault {
		if marks(call) && !hung {
			hung = true
			h.clock.pass(31 * time.Second)
			other, err = quick.Issue(t.Context(), r)
			must(t, err)
		}
		return fault{}
	})
	if _, err := h.ImportKey(t.Context(), r, sha256.Sum256([]byte("an old key of another make"))); !errors.Is(err, afterlogin.ErrUnavailable) {
		t.Errorf("ImportKey = %v, want ErrUnavailable", err)
	}
	p, err := h.Page(t.Context(), afterlogin.Query{Subject: "ci"})
	if err != nil || len(p.Sessions) != 1 || h.good(afterlogin.KindAPIKey, other) != 1 {
		t.Errorf("%d keys where there may be one: %v", len(p.Sessions), err)
	}
}

// A session whose sealing key is not known here yet may be good: that there is room is not known.
func TestALimitAndAKeyNotKnownHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		l := &line{Store: st}
		node := func(of store.Store, change func(*afterlogin.Config)) (*afterlogin.Authority, *keyring.Ring) {
			r, err := keyring.OpenShared(t.Context(), of, bytes.Repeat([]byte{3}, keyring.KeySize), keyring.SharedOptions{})
			must(t, err)
			t.Cleanup(func() { r.Close() })
			c := afterlogin.Config{Store: st, Keys: r}
			change(&c)
			a, err := afterlogin.New(c)
			must(t, err)
			t.Cleanup(func() { a.Close() })
			return a, r
		}
		a, keys := node(st, func(*afterlogin.Config) {})
		b, _ := node(l, limited(afterlogin.KindSession, 1, afterlogin.DenyNew))
		mia := afterlogin.IssueRequest{Subject: "mia"}
		first, err := a.Issue(t.Context(), mia) // the subject's record can be read
		must(t, err)
		must(t, a.Revoke(t.Context(), first.Session.ID, afterlogin.ReasonSignedOut))
		l.cut.Store(true)
		_, err = keys.Rotate(keyring.Sealing)
		must(t, err)
		time.Sleep(keyring.Lead + time.Second)
		_, err = a.Issue(t.Context(), mia)
		must(t, err)
		if _, err := b.Issue(t.Context(), mia); !errors.Is(err, afterlogin.ErrUnavailable) {
			t.Errorf("beside a session that cannot be read: %v, want ErrUnavailable", err)
		}
		_, err = b.Issue(t.Context(), afterlogin.IssueRequest{Subject: "tom"})
		must(t, err)
	})
}

// Two sign-ins that end the same one tell of it once.
func TestAnEndIsToldOnce(t *testing.T) {
	h, faulty := faultyHouse(t, limited(afterlogin.KindSession, 2, afterlogin.EndOldest))
	other := h.neighbour(limited(afterlogin.KindSession, 2, afterlogin.EndOldest))
	h.signIn("mia")
	h.signIn("mia")
	h.clock.pass(time.Minute)
	reserved, came := false, false
	faulty.SetHook(func(call storeCall) fault {
		switch {
		case came:
		case reserved:
			came = true
			other.signIn("mia")
		default:
			reserved = reserves(call)
		}
		return fault{}
	})
	_, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"})
	must(t, err)
	told := make(map[afterlogin.SessionID]int)
	for _, from := range []*house{h, other} {
		for len(from.events) > 0 {
			if e := <-from.events; e.Type == afterlogin.EventRevoked {
				told[e.Session]++
			}
		}
	}
	if len(told) != 2 || !came {
		t.Errorf("%d were ended, want 2", len(told))
	}
	for id, n := range told {
		if n != 1 {
			t.Errorf("the end of %s was told %d times", id, n)
		}
	}
}

// What a failed sign-in leaves in the store is nothing that was made, neither in numbers nor in lists.
func TestAFailedSignInIsNoSession(t *testing.T) {
	for name, f := range map[string]fault{
		"failed": {Before: errFault}, "not known": {Before: store.ErrUnknown}, "made": {After: store.ErrUnknown},
	} {
		h, faulty := faultyHouse(t, limited(afterlogin.KindAPIKey, 3, afterlogin.DenyNew))
		cut, looked := false, false
		faulty.SetHook(func(call storeCall) fault {
			switch {
			case !cut && call.Method == "Apply" && call.Root.IsRoot():
				cut = true
				return f
			case cut && !looked && f.After != nil && call.Method == "Get": // nor can it be seen whether it happened
				looked = true
				return fault{Before: errFault}
			}
			return fault{}
		})
		r := afterlogin.IssueRequest{Subject: "bot", Kind: afterlogin.KindAPIKey}
		if _, err := h.Issue(t.Context(), r); !errors.Is(err, afterlogin.ErrUnavailable) {
			t.Fatalf("%s: %v", name, err)
		}
		faulty.SetHook(nil)
		if n := h.Stats().Issued[afterlogin.KindAPIKey]; n != 0 {
			t.Errorf("%s: %d keys were counted as made", name, n)
		}
		p, err := h.Page(t.Context(), afterlogin.Query{Subject: "bot", Ended: true})
		if err != nil || len(p.Sessions) > 0 {
			t.Errorf("%s: listed: %v, %v", name, p.Sessions, err)
		}
		for len(h.events) > 0 {
			if e := <-h.events; e.Reason != afterlogin.ReasonNotMade {
				t.Errorf("%s: %s %s %q", name, e.Type, e.Reason, e.Detail)
			}
		}
		left := 0
		for _, err := range h.store.List(t.Context(), store.Query{Subject: "bot"}) {
			must(t, err)
			left++
		}
		if want := map[string]int{"not known": 1, "made": 1}[name]; left != want {
			t.Errorf("%s: %d records are left, want %d", name, left, want)
		}
	}
}

// A session is not ended for good on the word of one clock that is a little fast: it counts until it is idle everywhere.
func TestIdleOnAFastClock(t *testing.T) {
	h := newHouse(t, limited(afterlogin.KindSession, 1, afterlogin.DenyNew))
	in := h.signIn("mia")
	h.clock.pass(time.Hour + 20*time.Second)
	h.denied(afterlogin.IssueRequest{Subject: "mia"})
	h.clock.pass(-time.Minute) // set right
	h.use(in.Token, home, "")
	h.clock.pass(time.Hour + time.Minute)
	h.signIn("mia")
	if got := h.standing(in.Token, afterlogin.KindSession); got != "idle" {
		t.Errorf("the one that was idle is %s", got)
	}
	// Where one has to go, it is the one that is over, by that name.
	h = newHouse(t, limited(afterlogin.KindSession, 2, afterlogin.EndOldest))
	old := h.signIn("mia")
	h.clock.pass(time.Second)
	left := h.signIn("mia")
	h.clock.pass(30 * time.Minute)
	h.use(old.Token, home, "")
	h.clock.pass(30*time.Minute + 10*time.Second)
	h.signIn("mia")
	if got := h.standing(old.Token, afterlogin.KindSession) + " " + h.standing(left.Token, afterlogin.KindSession); got != "good idle" {
		t.Errorf("the one in use and the one that was left are %s", got)
	}
}

// The same where no list is complete yet.
func TestIdleOnAFastClockAtFirst(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	h.clock.pass(time.Hour + 20*time.Second)
	h.neighbour(limited(afterlogin.KindSession, 1, afterlogin.DenyNew)).denied(afterlogin.IssueRequest{Subject: "mia"})
	h.clock.pass(-time.Minute) // set right
	h.use(in.Token, home, "")
}

// A sign-in that cannot be made whatever gives way ends nothing.
func TestWhatCannotBeMadeEndsNothing(t *testing.T) {
	h := newHouse(t, limited(afterlogin.KindSession, 1, afterlogin.EndOldest))
	cart := h.anonymous(`"` + strings.Repeat("x", 60<<10) + `"`)
	in := h.signIn("mia")
	h.clock.pass(time.Minute)
	_, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: cart.Token, Data: map[string]json.RawMessage{
		"more": json.RawMessage(`"` + strings.Repeat("x", 6<<10) + `"`),
	}})
	var large *afterlogin.DataTooLargeError
	if !errors.As(err, &large) {
		t.Errorf("66 KiB of data: %v", err)
	}
	h.use(in.Token, home, "")
}

// What cleans up behind sign-ins that failed must not hide what somebody has put on hold.
func TestNotMadeIsNobodysReason(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	for name, err := range map[string]error{
		"Freeze":        h.Freeze(t.Context(), in.Session.ID, afterlogin.ReasonNotMade),
		"Revoke":        h.Revoke(t.Context(), in.Session.ID, afterlogin.ReasonNotMade),
		"RevokeSubject": h.RevokeSubject(t.Context(), 0, "mia", afterlogin.Sessions, afterlogin.ReasonNotMade),
	} {
		if !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What was cleaned up long ago leaves the list without a trace.
func TestASeatOfWhatWasCleanedUp(t *testing.T) {
	h := newHouse(t, limited(afterlogin.KindSession, 1, afterlogin.DenyNew))
	h.signIn("mia")
	h.clock.pass(30 * 24 * time.Hour)
	afterlogin.PurgeNow(h.Authority)
	h.signIn("mia")
	left := 0
	for _, err := range h.store.List(t.Context(), store.Query{Subject: "mia"}) {
		must(t, err)
		left++
	}
	if left != 1 {
		t.Errorf("%d records where there is one session", left)
	}
}
