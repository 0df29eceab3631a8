package afterlogin_test

import (
	"errors"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

func TestFreeze(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	in := h.signIn("mia")
	h.use(in.Token, home, "")
	for range 2 { // again does no harm
		h.must(h.Freeze(ctx, in.Session.ID, "incident 7"))
	}
	_, err := h.Validate(ctx, in.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}})
	var r *afterlogin.Refusal
	if !errors.As(err, &r) || r.Reason != afterlogin.ReasonFrozen || r.Cause != "incident 7" || !r.At.Equal(h.clock.now()) {
		t.Fatalf("frozen: %v", err)
	}
	s, err := h.Session(ctx, in.Session.ID)
	if err != nil || !s.Frozen() || s.Why != "incident 7" || !s.Ended.IsZero() {
		t.Errorf("in a list: %+v, %v", s, err)
	}
	if page, err := h.Page(ctx, afterlogin.Query{Subject: "mia"}); err != nil || len(page.Sessions) != 1 || !page.Sessions[0].Frozen() {
		t.Errorf("it is not over, and must be listed: %+v, %v", page, err)
	}
	if x, err := h.Explain(ctx, in.Token, home); err != nil || x.Valid || x.Reason != afterlogin.ReasonFrozen {
		t.Errorf("explained: %+v, %v", x, err)
	}
	if _, err := h.StepUp(ctx, in.Token, afterlogin.Authentication{}, home); afterlogin.ReasonOf(err) != afterlogin.ReasonFrozen {
		t.Errorf("a step-up of a frozen session: %v", err)
	}
	if err := h.Freeze(ctx, in.Session.ID, "incident 8"); !errors.Is(err, afterlogin.ErrOnHold) {
		t.Errorf("held for two reasons: %v", err)
	}
	h.must(h.Thaw(ctx, in.Session.ID, "incident 8")) // of somebody else
	h.use(in.Token, home, afterlogin.ReasonFrozen)
	for range 2 {
		h.must(h.Thaw(ctx, in.Session.ID, "incident 7"))
	}
	h.use(in.Token, home, "")
	h.must(h.Freeze(ctx, in.Session.ID, "incident 9"))
	h.must(h.Thaw(ctx, in.Session.ID, ""))
	h.use(in.Token, home, "")
	counts := map[string]int{}
	close(h.events)
	for e := range h.events {
		counts[e.Type]++
	}
	h.events = make(chan afterlogin.Event, 100)
	if counts[afterlogin.EventFrozen] != 2 || counts[afterlogin.EventThawed] != 2 {
		t.Errorf("events: %v", counts)
	}
}

// A hold does not stop the end: by time, or on purpose.
func TestFrozenEnds(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	a, b := h.signIn("mia"), h.signIn("mia")
	h.must(h.Freeze(ctx, a.Session.ID, "x"))
	h.must(h.Freeze(ctx, b.Session.ID, "x"))
	h.must(h.Revoke(ctx, a.Session.ID, afterlogin.ReasonAdministrator))
	h.use(a.Token, home, afterlogin.ReasonRevoked)
	if err := h.Thaw(ctx, a.Session.ID, ""); afterlogin.ReasonOf(err) != afterlogin.ReasonRevoked {
		t.Errorf("thawed after its end: %v", err)
	}
	h.clock.pass(61 * time.Minute)
	h.use(b.Token, home, afterlogin.ReasonIdle)
	if err := h.Freeze(ctx, b.Session.ID, "y"); afterlogin.ReasonOf(err) != afterlogin.ReasonIdle {
		t.Errorf("frozen after its end: %v", err)
	}
}

// What lives under a frozen session is refused, too, and comes back with it.
func TestFreezeBelow(t *testing.T) {
	h := newHouse(t, func(c *afterlogin.Config) { c.Issuer = "https://auth.example.com" })
	ctx := t.Context()
	in := h.signIn("mia")
	access, err := h.IssueAccess(ctx, in.Session, afterlogin.AccessRequest{})
	h.must(err)
	h.check(access.Token, afterlogin.KindAccess, "")
	h.must(h.Freeze(ctx, in.Session.ID, "x"))
	h.check(access.Token, afterlogin.KindAccess, afterlogin.ReasonFrozen)
	h.must(h.Thaw(ctx, in.Session.ID, ""))
	h.check(access.Token, afterlogin.KindAccess, "")
	h.must(h.Freeze(ctx, access.Session.ID, "y")) // it alone
	h.check(access.Token, afterlogin.KindAccess, afterlogin.ReasonFrozen)
	h.use(in.Token, home, "")
}

func TestFreezeWhatIsNot(t *testing.T) {
	h := newHouse(t)
	if err := h.Freeze(t.Context(), "ses_AAAAAAAAAAAAAAAAAAAAAAA", "x"); !errors.Is(err, afterlogin.ErrNoSession) {
		t.Errorf("unknown: %v", err)
	}
	if err := h.Freeze(t.Context(), "ses_1", "x"); !errors.Is(err, afterlogin.ErrBadSessionID) {
		t.Errorf("no id: %v", err)
	}
	in := h.signIn("mia")
	if err := h.Freeze(t.Context(), in.Session.ID, ""); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("without a reason: %v", err)
	}
}

// Since when something is on hold is known until it is thawed; a second freeze for the same reason does not move it.
func TestFrozenSince(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	in := h.signIn("mia")
	since := func(want time.Time) {
		t.Helper()
		if at, err := h.FrozenSince(ctx, in.Session.ID); err != nil || !at.Equal(want) {
			t.Errorf("on hold since %v, %v; want %v", at, err, want)
		}
	}
	since(time.Time{})
	at := h.clock.now()
	h.must(h.Freeze(ctx, in.Session.ID, "incident 7"))
	h.clock.pass(time.Minute)
	h.must(h.Freeze(ctx, in.Session.ID, "incident 7"))
	since(at)
	h.must(h.Thaw(ctx, in.Session.ID, ""))
	since(time.Time{})
	h.must(h.Freeze(ctx, in.Session.ID, "incident 8"))
	h.must(h.Revoke(ctx, in.Session.ID, afterlogin.ReasonAdministrator))
	since(time.Time{}) // it is over
	if _, err := h.FrozenSince(ctx, "ses_AAAAAAAAAAAAAAAAAAAAAAA"); !errors.Is(err, afterlogin.ErrNoSession) {
		t.Errorf("of nothing: %v", err)
	}
}

// A hold loses nothing: a sign-in meanwhile does not carry the data away.
func TestFrozenKeepsItsData(t *testing.T) {
	h := newHouse(t)
	in, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Device: home, Data: jsonData(`["mug"]`)})
	h.must(err)
	h.must(h.Freeze(t.Context(), in.Session.ID, "incident"))
	got, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: in.Token})
	h.must(err)
	if cart := h.cart(got.Session); cart != "" {
		t.Errorf("the new session has the cart %s", cart)
	}
	h.must(h.Thaw(t.Context(), in.Session.ID, ""))
	if cart := h.cart(h.use(in.Token, home, "")); cart != `["mug"]` {
		t.Errorf("the old one has the cart %s after the hold", cart)
	}
}

// A successor that is on hold may be good again: the key has no second one meanwhile.
func TestFrozenSuccessor(t *testing.T) {
	h := newHouse(t)
	key := h.key(afterlogin.IssueRequest{})
	next, err := h.RotateKey(t.Context(), key.Session.ID, time.Hour)
	h.must(err)
	h.must(h.Freeze(t.Context(), next.Session.ID, "incident"))
	if _, err := h.RotateKey(t.Context(), key.Session.ID, time.Hour); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Errorf("rotated again: %v", err)
	}
	h.must(h.Revoke(t.Context(), next.Session.ID, afterlogin.ReasonAdministrator))
	_, err = h.RotateKey(t.Context(), key.Session.ID, time.Hour)
	h.must(err)
}
