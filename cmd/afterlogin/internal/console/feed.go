package console

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

const (
	// feedSize is how many of the last events the console remembers.
	feedSize = 1000
	// feedRetry is how long it waits before it follows the events again, when that ended.
	feedRetry = time.Second
)

// A feed follows the events of the API, once for all who watch, and remembers the last of them. It has one goroutine.
type feed struct {
	mu     sync.Mutex
	events []happening // the oldest first, up to feedSize
	seen   uint64
	since  time.Time // from when on it has followed; zero: not yet
	after  string    // the id of the last event
	subs   map[chan api.Event]struct{}
}

// A happening is an event, or the word that some were missed here.
type happening struct {
	Seq uint64 // in this process
	api.Event
	Missed bool
}

// run follows until ctx ends, as somebody who may do nothing else. Why it cannot is logged once.
func (f *feed) run(ctx context.Context, h http.Handler, now func() time.Time, log *slog.Logger) {
	caller := &afterlogin.Session{ID: "console", Kind: afterlogin.KindSession, Subject: "afterlogin/console", Scopes: []string{string(api.EventsRead)}}
	logged := ""
	for ctx.Err() == nil {
		why := f.follow(api.As(ctx, caller), h, now)
		if why != "" && why != logged {
			log.WarnContext(ctx, "the console cannot follow the events; it tries again every "+feedRetry.String(), "why", why)
		}
		logged = why
		select {
		case <-time.After(feedRetry):
		case <-ctx.Done():
		}
	}
}

// follow follows until the stream ends. If the API refuses it, it says why.
func (f *feed) follow(ctx context.Context, h http.Handler, now func() time.Time) (why string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/v1/events", nil)
	if err != nil {
		return err.Error()
	}
	f.mu.Lock()
	after, began := f.after, !f.since.IsZero()
	f.mu.Unlock()
	if after != "" {
		r.Header.Set("Last-Event-Id", after)
	}
	r.RequestURI = "/v1/events"
	w := &feedWriter{feed: f, now: now, missed: began && after == ""}
	h.ServeHTTP(w, r)
	if w.refusal.status < 300 {
		return ""
	}
	return strconv.Itoa(w.refusal.status) + " " + w.refusal.problem().Error()
}

// add remembers an event and tells who watches. Who does not take it misses it, and looks again before long.
func (f *feed) add(e happening) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen++
	e.Seq = f.seen
	if len(f.events) >= feedSize {
		f.events = slices.Delete(f.events, 0, len(f.events)-feedSize+1)
	}
	f.events = append(f.events, e)
	for c := range f.subs {
		select {
		case c <- e.Event:
		default:
		}
	}
}

// last returns up to n of the last events that are wanted, the newest first, and since when there are events.
func (f *feed) last(n int, wanted func(*api.Event) bool) (out []happening, since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := len(f.events) - 1; i >= 0 && len(out) < n; i-- {
		if e := f.events[i]; e.Missed || wanted(&e.Event) {
			out = append(out, e)
		}
	}
	return out, f.since
}

// watch returns a channel of what happens from now on. stop ends it.
func (f *feed) watch() (events <-chan api.Event, stop func()) {
	c := make(chan api.Event, 256)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subs == nil {
		f.subs = make(map[chan api.Event]struct{})
	}
	f.subs[c] = struct{}{}
	return c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subs, c)
	}
}

// feedWriter is the http.ResponseWriter of a stream of events: it puts them into the feed.
type feedWriter struct {
	feed   *feed
	now    func() time.Time
	missed bool // what happened between the last stream and this one is not known
	header http.Header
	rest   []byte
	// refusal is the answer if it is not a stream.
	refusal recorder
}

func (w *feedWriter) Header() http.Header {
	if w.header == nil {
		w.header = make(http.Header)
	}
	return w.header
}

func (w *feedWriter) WriteHeader(status int) { w.refusal.WriteHeader(status) }

// Flush is for http.ResponseController.
func (w *feedWriter) Flush() {}

func (w *feedWriter) Write(b []byte) (int, error) {
	if w.refusal.status >= 300 {
		return w.refusal.Write(b)
	}
	w.feed.mu.Lock()
	if w.feed.since.IsZero() {
		w.feed.since = w.now() // the first that it writes says that it follows
	}
	w.feed.mu.Unlock()
	w.rest = append(w.rest, b...)
	for {
		text, rest, ok := bytes.Cut(w.rest, []byte("\n\n"))
		if !ok {
			return len(b), nil
		}
		w.message(string(text))
		w.rest = rest
	}
}

// message takes one message of the stream.
func (w *feedWriter) message(text string) {
	var e happening
	var has bool
	if w.missed {
		w.missed = false
		w.feed.add(happening{Event: api.Event{At: w.now()}, Missed: true})
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "id":
			w.feed.mu.Lock()
			w.feed.after = value
			w.feed.mu.Unlock()
		case "event":
			if value == "gap" {
				e.Missed = true
			}
		case "data":
			has = json.Unmarshal([]byte(value), &e.Event) == nil
		}
	}
	switch {
	case e.Missed:
		w.feed.add(happening{Event: api.Event{At: w.now()}, Missed: true})
	case has && e.Type != "":
		w.feed.add(e)
	}
}
