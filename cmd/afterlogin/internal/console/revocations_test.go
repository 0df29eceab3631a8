package console

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
)

// begin counts a query, and returns the path of the page when it is counted.
func (b *browser) begin(fields ...string) string {
	b.h.t.Helper()
	a := b.post("/console/revocations/new", fields...)
	if a.status != http.StatusSeeOther || !strings.HasPrefix(a.location(), "/console/revocations/rev_") {
		b.h.t.Fatalf("%v: %d to %q: %s", fields, a.status, a.location(), words(a.body))
	}
	b.eventually(a.location(), "to be confirmed")
	return a.location()
}

func TestRevokeByQuery(t *testing.T) {
	h := newHouse(t)
	b, v := h.enter(entrance.Admin, "tom"), h.enter(entrance.Viewer, "mia")
	var ada []afterlogin.Issued
	for range 5 {
		ada = append(ada, h.signIn("ada"))
	}
	kim := h.signIn("kim")
	b.says("/console/revocations", "None so far.")
	if page := b.page("/console/revocations/new?q=subject%3Dada"); !strings.Contains(page, ">subject=ada</textarea>") || !strings.Contains(words(page), "last_seen") {
		t.Error("the form does not take the query of the search")
	}
	for field, c := range map[string][]string{
		"query":       {"query", "subjct=ada"},
		"undo_window": {"query", "subject=ada", "undo_window", "25h"},
	} {
		a := b.post("/console/revocations/new", c...)
		if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `id="e-`+field+`"`) {
			t.Errorf("a bad %s: %d %s", field, a.status, words(a.body))
		}
	}
	if a := b.post("/console/revocations/new", "query", ""); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `id="e-query"`) {
		t.Errorf("no query: %d %s", a.status, words(a.body))
	}

	at := b.begin("query", "subject=ada", "undo_window", "10m")
	b.says(at, "5 match", "Examples", "ada", "End them…", "Cancel")
	if page := words(v.page(at)); strings.Contains(page, "End them…") || strings.Contains(page, "Cancel") || !strings.Contains(page, "5 match") {
		t.Errorf("a viewer sees: %s", page)
	}
	b.says(at+"/confirm", "End 5 at once?", "5 sessions are frozen at once", "Type the number that was counted: 5.")
	for _, wrong := range []string{"4", "six", "", "-5", "5x", "99999999999999999999"} {
		a := b.post(at+"/confirm", "count", wrong)
		if a.status < 400 || a.status >= 500 || !strings.Contains(a.body, `id="e-count"`) || !strings.Contains(words(a.body), "End 5 at once?") {
			t.Errorf("%q: %d %s", wrong, a.status, words(a.body))
		}
	}
	for _, s := range ada {
		if !h.good(s) {
			t.Fatal("a session was ended by a number that is not right")
		}
	}
	if a := v.post(at+"/confirm", "count", "5"); a.status != http.StatusForbidden {
		t.Errorf("a viewer: %d", a.status)
	}
	b.want(at+"?done=job-confirmed", at+"/confirm", "count", "5")
	b.eventually(at, "5 are frozen")
	b.says(at, "left", "Undo")
	for _, s := range ada {
		if h.good(s) {
			t.Error("a session is good although it is frozen")
		}
	}
	b.says("/console/revocations", "frozen, can be undone", "subject=ada", "console/tom")
	if a := v.post(at + "/undo"); a.status != http.StatusForbidden {
		t.Errorf("a viewer: %d", a.status)
	}
	b.want(at+"?done=job-undone", at+"/undo")
	b.eventually(at, "5 were thawed")
	for _, s := range ada {
		if !h.good(s) {
			t.Error("a session is not good although it was undone")
		}
	}
	if a := b.post(at + "/undo"); a.status != http.StatusSeeOther { // again is as once
		t.Errorf("undo twice: %d", a.status)
	}

	at = b.begin("query", "subject=ada", "undo_window", "0")
	b.says(at+"/confirm", "There is no undo window: this cannot be taken back.")
	b.want(at+"?done=job-confirmed", at+"/confirm", "count", "5")
	b.eventually(at, "5 were ended")
	for _, s := range ada {
		if h.good(s) {
			t.Error("a session was not ended")
		}
	}
	if !h.good(kim) {
		t.Error("a session was ended that is not meant")
	}
	if a := b.post(at + "/undo"); a.status != http.StatusConflict {
		t.Errorf("undo of what is done: %d", a.status)
	}

	at = b.begin("query", "subject=kim")
	b.want(at+"?done=job-cancelled", at+"/cancel")
	b.says(at, "Nothing was ended.", "Cancelled by console/tom")
	if !h.good(kim) {
		t.Error("a session was ended by a revocation that was cancelled")
	}
	at = b.begin("query", "", "all", "on")
	b.says(at, "everything that is not over", "to be confirmed")
	b.says(at+"/confirm", "There is no term in the query: it means everything that is not over.")
	if a := b.get("/console/revocations/rev_x"); a.status != http.StatusNotFound {
		t.Errorf("one that is not there: %d", a.status)
	}
}

// The page goes on by itself, and tells who does not see it.
func TestRevocationIsLive(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	for i := range 300 {
		h.signIn(fmt.Sprintf("guest-%d", i))
	}
	at := b.begin("query", "subject=guest-*")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines, _ := b.streamOf(ctx, at+"?live=1")
	until(t, lines, "300 match", 5*time.Second)
	b.want(at+"?done=job-confirmed", at+"/confirm", "count", "300")
	until(t, lines, "This revocation is frozen", 15*time.Second)
	until(t, lines, "300 are frozen", 5*time.Second)
	// The time that is left goes down while one looks.
	until(t, lines, `id="undo-left">9 min 5`, 5*time.Second)
	until(t, lines, `id="undo-left">9 min 5`, 5*time.Second)
	h.later(11 * time.Minute)
	until(t, lines, "300 were ended", 30*time.Second)
}

func TestMeant(t *testing.T) {
	for want, r := range map[string]api.Revocation{
		"1 session is":                                {Matched: 1, Kinds: []api.Share{{Name: "session", Count: 1}}},
		"2 sessions and 1 API key are":                {Matched: 3, Kinds: []api.Share{{Name: "session", Count: 2}, {Name: "api_key", Count: 1}}},
		"1 session, 1 API key and 2 OAuth grants are": {Matched: 4, Kinds: []api.Share{{Name: "session", Count: 1}, {Name: "api_key", Count: 1}, {Name: "refresh_token", Count: 2}}},
		"0 are": {},
	} {
		if got := meant(&r); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestProgressInWords(t *testing.T) {
	for _, state := range []string{"counting", "freezing", "revoking", "thawing"} {
		j := newJob(&api.Revocation{State: state})
		if !j.Working || j.Doing() == "" || j.Percent() != -1 || j.About() != "" {
			t.Errorf("%s without progress: %+v %q", state, j, j.Doing())
		}
		j.Progress = &api.JobProgress{Done: 40_000, Total: 100_000, Looked: 70_000, RemainingSeconds: 75}
		if j.Percent() != 40 || !strings.Contains(j.Doing(), "40\u202f000") || j.About() != "about 1 min 15 s left" {
			t.Errorf("%s: %d %q %q", state, j.Percent(), j.Doing(), j.About())
		}
	}
	if j := newJob(&api.Revocation{State: "new"}); j.Word != "new" {
		t.Errorf("a state of tomorrow: %+v", j)
	}
}
