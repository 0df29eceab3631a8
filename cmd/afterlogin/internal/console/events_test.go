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

// eventually looks again and again until the page says the text, as somebody who reloads it.
func (b *browser) eventually(path, text string) string {
	b.h.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		page := b.page(path)
		if strings.Contains(words(page), text) {
			return page
		}
		if time.Now().After(end) {
			b.h.t.Fatalf("%s does not come to say %q: %s", path, text, words(page))
		}
	}
}

func TestEvents(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Viewer, "mia")
	b.eventually("/console/events", "session.created") // the viewer's own
	s := h.signIn("ada")
	h.signIn("kim")
	page := b.eventually("/console/events", "kim")
	if text := words(page); strings.Index(text, "kim") > strings.Index(text, "ada") {
		t.Error("the newest is not on top")
	}
	if !strings.Contains(page, `href="/console/sessions/`+string(s.Session.ID)+`"`) || !strings.Contains(page, `hx-sse:connect="/console/events?live=1"`) {
		t.Error("no link to the session, or not live")
	}
	if text := words(b.page("/console/events?subject=ada")); !strings.Contains(text, "ada") || strings.Contains(text, "kim") {
		t.Errorf("by subject: %s", text)
	}
	if err := h.a.Revoke(afterlogin.WithActor(t.Context(), "console/tom"), s.Session.ID, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	b.eventually("/console/events?type=session.revoked", "console/tom")
	if text := words(b.page("/console/events?type=session.revoked&subject=ada")); strings.Contains(text, "session.created ") && !strings.Contains(text, "ended by an administrator") {
		t.Errorf("by type: %s", text)
	}
	if text := words(b.page("/console/events?type=session.*&subject=ada")); !strings.Contains(text, "session.created") || !strings.Contains(text, "session.revoked") {
		t.Errorf("by the beginning of a type: %s", text)
	}
	paused := b.page("/console/events?pause=1")
	if strings.Contains(paused, "hx-sse:connect") || !strings.Contains(words(paused), "Paused: this is how it was") {
		t.Error("a page that is paused is live")
	}
	a := b.get("/console/events?type=sesion.created")
	if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `aria-describedby="e-type"`) || !strings.Contains(words(a.body), "did you mean session.created?") {
		t.Errorf("a type that is none: %d %s", a.status, words(a.body))
	}
}

// told reads announcements until they tell of n events, in one or several.
func told(t *testing.T, lines <-chan string, n int) {
	t.Helper()
	var now int
	for over := time.After(15 * time.Second); now != n; {
		select {
		case l, ok := <-lines:
			var k int
			if !ok {
				t.Fatal("the stream ended")
			}
			if _, err := fmt.Sscanf(l, "data: %d new event", &k); err == nil {
				now += k
			}
			if now > n {
				t.Fatalf("%d events were told of, want %d", now, n)
			}
		case <-over:
			t.Fatalf("%d events were told of, want %d", now, n)
		}
	}
}

func TestEventsAreLive(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Viewer, "mia")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	all, _ := b.streamOf(ctx, "/console/events?live=1")
	few, _ := b.streamOf(ctx, "/console/events?live=1&subject=kim")
	until(t, all, "session.created", 5*time.Second)
	began := time.Now()
	for range 3 {
		h.signIn("ada")
	}
	until(t, all, ">ada<", time.Second)
	t.Logf("the event was in the page after %v", time.Since(began))
	told(t, all, 3)
	h.signIn("kim")
	told(t, few, 1) // and not 4: what is filtered out is not told of
	cancel()
}

// The page has a bounded number of rows, however much happens.
func TestEventsAreBounded(t *testing.T) {
	var f feed
	for i := range 3 * feedSize {
		f.add(happening{Event: api.Event{Type: "session.created", Subject: fmt.Sprint(i)}})
	}
	rows, _ := f.last(maxEvents, func(*api.Event) bool { return true })
	if len(rows) != maxEvents || rows[0].Subject != fmt.Sprint(3*feedSize-1) || rows[maxEvents-1].Subject != fmt.Sprint(3*feedSize-maxEvents) {
		t.Errorf("%d rows, from %v", len(rows), rows[0])
	}
	if len(f.events) != feedSize || cap(f.events) > 4*feedSize {
		t.Errorf("%d events are kept, room for %d", len(f.events), cap(f.events))
	}
	if rows, _ := f.last(maxEvents, func(e *api.Event) bool { return e.Subject == "2500" }); len(rows) != 1 {
		t.Errorf("one subject: %v", rows)
	}
	// Who watches and does not read keeps nobody waiting.
	events, stop := f.watch()
	for range 1000 {
		f.add(happening{Event: api.Event{Type: "session.created"}})
	}
	if len(events) == 0 || len(events) == 1000 {
		t.Errorf("%d events wait", len(events))
	}
	stop()
	if len(f.subs) != 0 {
		t.Error("who has gone is still told")
	}
}

// What was missed is said, and the feed goes on behind the last event that it has.
func TestFeedGoesOn(t *testing.T) {
	f := &feed{}
	var asked []string
	answers := []string{
		": following\n\nid: 1\nevent: session.created\ndata: {\"type\":\"session.created\",\"subject\":\"mia\"}\n\n",
		"id:\nevent: gap\ndata: {}\n\n",
		": following\n\n",
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Last-Event-Id"))
		text := answers[len(asked)-1]
		w.Write([]byte(text[:7])) // in pieces
		w.Write([]byte(text[7:]))
	})
	for range answers {
		f.follow(t.Context(), h, time.Now)
	}
	if fmt.Sprint(asked) != "[ 1 ]" {
		t.Errorf("asked behind %q", asked)
	}
	rows, since := f.last(10, func(*api.Event) bool { return true })
	if len(rows) != 3 || !rows[0].Missed || !rows[1].Missed || rows[2].Subject != "mia" || since.IsZero() {
		t.Errorf("%+v", rows)
	}
}

// While the store cannot be watched the page says so; it goes on by itself.
func TestEventsWithoutAStream(t *testing.T) {
	f := &feed{}
	f.follow(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.NewProblem(http.StatusServiceUnavailable, "temporarily-unavailable", "down").Write(w, r)
	}), time.Now)
	if rows, since := f.last(10, func(*api.Event) bool { return true }); len(rows) != 0 || !since.IsZero() {
		t.Errorf("%v since %v", rows, since)
	}
}
