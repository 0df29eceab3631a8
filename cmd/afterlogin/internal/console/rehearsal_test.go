package console

import (
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/rehearsal"
)

func TestRehearsal(t *testing.T) {
	h := newHouse(t) // with a limit of two that is rehearsed
	v := h.enter(entrance.Viewer, "mia")
	h.signIn("ada")
	v.says("/console/rehearsal", "at most 2 at once, the oldest is ended", "Nobody was signed out by it", "session_limits.session.max", "auth.toml:3")
	first := h.signIn("kim")
	h.later(time.Second) // so that it is the oldest
	for range 3 {
		h.signIn("kim")
	}
	v.says("/console/rehearsal", "The latest whom it would have struck", "kim", short(string(first.Session.ID)), "1 more than once")
	if !h.good(first) {
		t.Error("a rehearsal has ended a session")
	}
}

func TestRehearsalInWords(t *testing.T) {
	for want, r := range map[string]rehearsal.Rule{
		"ended after 15m without use":         {Rule: "idle", Setting: "15m"},
		"ended after 12h in any case":         {Rule: "absolute", Setting: "12h"},
		"an old token is good for 0":          {Rule: "grace", Setting: "0"},
		"at most 3 at once, no more are made": {Rule: "session_limit", Setting: "3", AtLimit: "deny"},
	} {
		if got := ruleWords(r); got != want {
			t.Errorf("%+v: %q", r, got)
		}
	}
	for want, n := range map[string][2]int{"none": {0, 0}, "0 %": {0, 5}, "under 1 %": {1, 1000}, "20 %": {1, 5}, "100 %": {5, 5}} {
		if got := share(n[0], n[1]); got != want {
			t.Errorf("%v: %q", n, got)
		}
	}
}
