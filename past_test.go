package afterlogin_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

// Who comes back is told which sign-out ended the session, when, and why: not the last one, but theirs.
func TestWhySignedOut(t *testing.T) {
	h := newHouse(t)
	ctx := t.Context()
	first := h.signIn("mia")
	h.clock.pass(time.Minute)
	h.must(h.RevokeSubject(ctx, 0, "mia", afterlogin.Sessions, afterlogin.ReasonPasswordChanged))
	changed := h.clock.now()
	h.clock.pass(time.Hour)
	second, spared := h.signIn("mia"), h.signIn("mia")
	h.clock.pass(time.Minute)
	h.must(h.RevokeOthers(ctx, spared.Session.ID, afterlogin.ReasonReported))
	reported := h.clock.now()
	h.clock.pass(time.Minute)
	h.must(h.RevokeSubject(ctx, 0, "mia", afterlogin.Everything, afterlogin.ReasonAdministrator))
	last := h.clock.now()
	for _, c := range []struct {
		name string
		of   afterlogin.Issued
		why  afterlogin.Reason
		at   time.Time
	}{
		{"the first", first, afterlogin.ReasonPasswordChanged, changed},
		{"the second", second, afterlogin.ReasonReported, reported},
		{"the one that was spared once", spared, afterlogin.ReasonAdministrator, last},
	} {
		_, err := h.Validate(ctx, c.of.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}})
		var r *afterlogin.Refusal
		if !errors.As(err, &r) || r.Reason != afterlogin.ReasonSignedOutAll || r.Cause != c.why || !r.At.Equal(c.at) {
			t.Errorf("%s: %+v, want %s at %v", c.name, r, c.why, c.at)
		}
		s, err := h.Session(ctx, c.of.Session.ID)
		if err != nil || s.Why != c.why || !s.Ended.Equal(c.at) {
			t.Errorf("%s in a list: %s at %v, %v; want %s at %v", c.name, s.Why, s.Ended, err, c.why, c.at)
		}
	}
	// Only the last eight are remembered. Whoever comes from before is told no reason rather than a wrong one.
	for range 9 {
		h.must(h.RevokeSubject(ctx, 0, "mia", afterlogin.Sessions, afterlogin.ReasonPasswordChanged))
	}
	if s, err := h.Session(ctx, spared.Session.ID); err != nil || s.Why != afterlogin.ReasonSignedOutAll {
		t.Errorf("after more than are remembered: %s, %v", s.Why, err)
	}
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func TestReasonIsBounded(t *testing.T) {
	h := newHouse(t)
	for _, why := range []afterlogin.Reason{"", afterlogin.Reason(strings.Repeat("x", 65)), "\xff"} {
		if err := h.RevokeSubject(t.Context(), 0, "mia", afterlogin.Sessions, why); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("%q: %v", why, err)
		}
	}
}

// The events of a call name who made it, and nobody else's do.
func TestActor(t *testing.T) {
	h := newHouse(t)
	in := h.signIn("mia")
	long := strings.Repeat("ä", 100)
	ctx := afterlogin.WithActor(t.Context(), "key_1\n\x1f"+long)
	h.must(h.RevokeOthers(ctx, in.Session.ID, afterlogin.ReasonAdministrator))
	h.must(h.Revoke(ctx, in.Session.ID, afterlogin.ReasonAdministrator))
	want := afterlogin.ActorOf(ctx)
	if !strings.HasPrefix(want, "key_1ä") || len(want) > 128 || !strings.HasSuffix(want, "ä") {
		t.Fatalf("the actor is %q", want)
	}
	close(h.events)
	n := 0
	for e := range h.events {
		switch e.Type {
		case afterlogin.EventSubject:
			if n++; e.Actor != want || e.Except != in.Session.ID {
				t.Errorf("%+v", e)
			}
		case afterlogin.EventRevoked:
			if n++; e.Actor != want || e.Detail != "" {
				t.Errorf("%+v", e)
			}
		default:
			if e.Actor != "" {
				t.Errorf("%+v", e)
			}
		}
	}
	if n != 2 {
		t.Errorf("%d events", n)
	}
	h.events = make(chan afterlogin.Event, 10)
}
