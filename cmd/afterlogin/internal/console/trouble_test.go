package console

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// lostAt has the store write what is meant, lose the answer, and be away from then on.
func (h *house) lostAt(meant func(storetest.Call) bool) {
	away := false
	h.hook(func(c storetest.Call) (f storetest.Fault) {
		switch {
		case away:
			f.Before = errDown
		case c.Method == "Apply" && meant(c):
			f.After, away = store.ErrUnknown, true
		}
		return f
	})
}

// hook sets the store's faults, which are asked for one at a time.
func (h *house) hook(f func(storetest.Call) storetest.Fault) {
	h.faulty.SetHook(func(c storetest.Call) storetest.Fault {
		h.mu.Lock()
		defer h.mu.Unlock()
		return f(c)
	})
}

// writes reports whether the call writes a record like this.
func writes(c storetest.Call, like func(*store.Record) bool) bool {
	for _, op := range c.Ops {
		if op.Record != nil && like(op.Record) {
			return true
		}
	}
	return false
}

// What a page says after an act that had trouble is what is known of it.
func TestTroubleOfAnAct(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	s := h.signIn("mia")
	at := "/console/sessions/" + string(s.Session.ID)
	h.lostAt(func(c storetest.Call) bool {
		return writes(c, func(r *store.Record) bool { return r.Subject == "mia" })
	})
	a := b.post(at+"/freeze", "reason", "incident 7")
	h.faulty.SetHook(nil)
	if text := words(a.body); a.status != http.StatusServiceUnavailable || !strings.Contains(text, "it may have happened") || strings.Contains(text, "nothing can be") {
		t.Errorf("the answer is lost: %d %s", a.status, text)
	}
	if h.good(s) {
		t.Error("it was not done")
	}
	// It is done, and cannot be written into the audit log.
	h.trail.Close()
	a = b.post(at + "/revoke")
	if text := words(a.body); a.status != http.StatusServiceUnavailable || !strings.Contains(text, "it was done, and could not be written into the audit log") || strings.Contains(text, "nothing can be") {
		t.Errorf("without an audit log: %d %s", a.status, text)
	}
	if got, err := h.a.Session(t.Context(), s.Session.ID); err != nil || got.Ended.IsZero() {
		t.Errorf("it did not end: %v", err)
	}
}

// Who is not let in by trouble behind the link is told that it may be used up, and can try it once more.
func TestBrokenEntry(t *testing.T) {
	h := newHouse(t)
	link := func(c storetest.Call) bool {
		return writes(c, func(r *store.Record) bool { return strings.HasPrefix(r.Client, "link_") })
	}
	session := func(c storetest.Call) bool {
		return writes(c, func(r *store.Record) bool { return strings.HasPrefix(r.Subject, entrance.SubjectPrefix) })
	}
	person := func(c storetest.Call) bool {
		return writes(c, func(r *store.Record) bool { return strings.HasPrefix(r.Client, "ses_") })
	}
	for what, c := range map[string]struct {
		fails func(storetest.Call) bool
		lost  bool // although it was written
		good  bool // the link, afterwards
	}{
		"the link is not used":              {link, false, true},
		"the link is used, nobody knows":    {link, true, false},
		"no session is made":                {session, false, false},
		"a session is made, nobody knows":   {session, true, false},
		"it is not written whose it is":     {person, false, false},
		"it is written whose, nobody knows": {person, true, false},
	} {
		b := h.browser()
		b.get(h.link(entrance.Viewer, "ada"))
		if h.lostAt(c.fails); !c.lost {
			h.hook(func(call storetest.Call) (f storetest.Fault) {
				if c.fails(call) {
					f.Before = errDown
				}
				return f
			})
		}
		a := b.send("/console/enter", url.Values{}, nil)
		h.faulty.SetHook(nil)
		if text := words(a.body); a.status != http.StatusServiceUnavailable || !strings.Contains(text, "the link may be used up") {
			t.Errorf("%s: %d %s", what, a.status, text)
		}
		a = b.get("/console/enter")
		switch text := words(a.body); {
		case c.good && a.status != http.StatusOK:
			t.Errorf("%s: once more: %d %s", what, a.status, text)
		case !c.good && (a.status != http.StatusGone || !strings.Contains(text, "if only to begin what then failed")):
			t.Errorf("%s: once more: %d %s", what, a.status, text)
		}
	}
}

// A part that cannot be asked now is not said to be one that is not there.
func TestPartsWithoutAnAnswer(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	fresh := must[*Console](h)(New(Options{Authority: h.a, API: h.api, Entrance: h.entrance, PlainLoopback: true, Now: h.now}))
	defer fresh.Close()
	h.server.Config.Handler = fresh
	defer func() { h.server.Config.Handler = h.console }()
	// The store lets people in and tells nothing else: what they are is read by the names of entries, and these are lists.
	h.hook(func(c storetest.Call) (f storetest.Fault) {
		if c.Method == "List" {
			f.Before = errDown
		}
		return f
	})
	if a := b.get("/console/users"); a.status != http.StatusServiceUnavailable {
		t.Errorf("the users: %d %s", a.status, words(a.body))
	}
	// A subject's page lists sessions and then asks whether there is a user of the name.
	listed := false
	h.hook(func(c storetest.Call) (f storetest.Fault) {
		if listed = listed || c.Method == "List"; listed && c.Method == "Get" {
			f.Before = errDown
		}
		return f
	})
	if a := b.get("/console/subject?name=mia"); a.status != http.StatusServiceUnavailable {
		t.Errorf("a subject of whom it is not known whether it is a user: %d %s", a.status, words(a.body))
	}
	h.faulty.SetHook(nil)
	for _, path := range []string{"/users", "/audit", "/webhooks", "/revocations", "/subject?name=mia"} {
		b.page("/console" + path)
	}
}

// The streams of one person, and of all, are bounded, and those that have ended do not count.
func TestStreamsAreBounded(t *testing.T) {
	h := newHouse(t)
	mia, tom := h.enter(entrance.Viewer, "mia"), h.enter(entrance.Viewer, "tom")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var open []<-chan string
	for range maxPersonStreams {
		lines, status := mia.streamOf(ctx, "/console/events?live=1")
		if status != http.StatusOK {
			t.Fatalf("a stream: %d", status)
		}
		open = append(open, lines)
	}
	if _, status := mia.streamOf(ctx, "/console/events?live=1"); status != http.StatusTooManyRequests {
		t.Fatalf("one too many: %d", status)
	}
	if a := mia.get("/console/events?live=1"); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" || !strings.Contains(words(a.body), "too-many-streams") {
		t.Errorf("one too many: %d %s", a.status, words(a.body))
	}
	mia.page("/console/events")
	if _, status := tom.streamOf(ctx, "/console/events?live=1"); status != http.StatusOK {
		t.Errorf("somebody else's: %d", status)
	}
	h.console.mu.Lock()
	h.console.streams["ses_others"] = maxStreams - maxPersonStreams - 1
	h.console.mu.Unlock()
	if got, want := h.console.breath(), maxStreams*perStream; got != want {
		t.Errorf("with %d streams each is made anew every %v at most, want %v", maxStreams, got, want)
	}
	if _, status := tom.streamOf(ctx, "/console/events?live=1"); status != http.StatusTooManyRequests {
		t.Errorf("one too many of all: %d", status)
	}
	h.console.mu.Lock()
	delete(h.console.streams, "ses_others")
	h.console.mu.Unlock()
	cancel()
	for _, lines := range open {
		for range lines {
		}
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // the server hears of it a moment later
		h.console.mu.Lock()
		n := h.console.open()
		h.console.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d streams are still counted", n)
		}
	}
}

// To watch is no use of the session, however often the stream is opened anew.
func TestWatchingIsNoUse(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Viewer, "mia")
	for range 3 {
		h.later(4 * time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		lines, status := b.streamOf(ctx, "/console/?live=1")
		if status != http.StatusOK {
			t.Fatalf("a stream: %d", status)
		}
		until(t, lines, "Sign-ins", 5*time.Second)
		cancel()
	}
	h.later(4 * time.Minute)
	if a := b.get("/console/?live=1"); a.status != http.StatusUnauthorized {
		t.Errorf("after 16 minutes of watching, a stream: %d", a.status)
	}
	if a := b.get("/console/"); a.status != http.StatusUnauthorized {
		t.Errorf("after 16 minutes of watching, a page: %d", a.status)
	}
}

// While the store is away nobody is thrown out at once; but a session that is too old is, and nobody watches for long.
func TestWatchingWithoutTheStore(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Viewer, "mia")
	s := must[*afterlogin.Session](h)(h.a.Session(t.Context(), afterlogin.SessionID(b.session())))
	person := must[*entrance.Person](h)(h.entrance.Person(t.Context(), s))
	watching := func() (over bool, said string) {
		w := &safeBuffer{}
		v := &visit{c: h.console, caller: s, person: person, known: h.now()}
		out := &stream{w: writerOf{w}, conn: http.NewResponseController(writerOf{w})}
		for range 5 {
			if over = v.ends(t.Context(), out); over {
				break
			}
			h.later(patience / 4)
		}
		return over, w.String()
	}
	if over, said := watching(); over {
		t.Errorf("while all is well: over, %q", said)
	}
	h.faulty.SetHook(func(storetest.Call) storetest.Fault { return storetest.Fault{Before: errDown} })
	defer h.faulty.SetHook(nil)
	if over, said := watching(); !over || said != "" {
		t.Errorf("while nothing is known: over %t, %q; want an end without a word", over, said)
	}
	h.later(s.Absolute.Sub(h.now()))
	if over, said := watching(); !over || !strings.Contains(said, "event: over") {
		t.Errorf("too old, while nothing is known: over %t, %q", over, said)
	}
}

// writerOf is an http.ResponseWriter.
type writerOf struct{ *safeBuffer }

func (writerOf) Header() http.Header { return http.Header{} }
func (writerOf) WriteHeader(int)     {}
func (writerOf) Flush()              {}

// That events cannot be followed is logged once for each reason, and not at each attempt.
func TestFeedLogsWhyNot(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log bytes.Buffer
	asked := 0
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; asked == 3 {
			cancel()
		}
		api.NewProblem(http.StatusServiceUnavailable, "temporarily-unavailable", "the store is away").Write(w, r)
	})
	f := &feed{}
	f.run(ctx, h, time.Now, slog.New(slog.NewTextHandler(&log, nil)))
	if n := strings.Count(log.String(), "503 the store is away"); n != 1 {
		t.Errorf("logged %d times: %s", n, log.String())
	}
}
