package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
)

// A page that is live has a second address, with live=1 behind its query, that answers with a stream of server-sent events:
// the page's live part as HTML, again and again, whenever it differs from what was sent before. It is made by the function
// of the page's route, as a reload would make it. A stream is no use of the session, however often it is opened anew: who
// watches and does nothing is signed out when the session has been idle for long enough, and the stream ends with it.

// Times of a stream.
const (
	// gather is how long after an event the page is made anew: what happens together is shown together.
	gather = 150 * time.Millisecond
	// breath is the least time from one making to the next, however many events there are. With many streams it is more.
	breath = 500 * time.Millisecond
	// refresh is how often it is made without one, since times go on and other servers have figures of their own.
	refresh = 5 * time.Second
	// announceEvery is how often a screen reader is told how many events there were.
	announceEvery = 5 * time.Second
	// checkEvery is how often it is looked whether the person may still watch.
	checkEvery = 5 * time.Second
	// patience is for how long somebody goes on watching while it cannot be told whether they may.
	patience = time.Minute
	// writeTimeout is how long a browser may take to read what is sent, before it is taken for gone.
	writeTimeout = 10 * time.Second
	// maxPart is the greatest live part of a page, in bytes.
	maxPart = 1 << 20
)

// Limits of streams. Whoever looks at many pages at once sees the last of them as they are when they are opened.
const (
	maxStreams       = 200 // of all people
	maxPersonStreams = 16  // of one session
	// perStream is what each open stream adds to breath: together they make at most 100 parts a second.
	perStream = 10 * time.Millisecond
)

// isLive reports whether the request is for the stream of a page.
func isLive(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.URL.Query().Get("live") == "1"
}

// begin counts a stream of the person's session, or says why there cannot be one.
func (c *Console) begin(id afterlogin.SessionID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return api.NewProblem(http.StatusServiceUnavailable, "temporarily-unavailable", "The server stops.")
	case c.streams[id] >= maxPersonStreams:
		return tooMany("%d pages that are live are open in your sign-in, and that is the most: close some.", maxPersonStreams)
	case c.open() >= maxStreams:
		return tooMany("%d pages that are live are open on this server, and that is the most: reload to see what is new.", maxStreams)
	}
	c.streams[id]++
	c.live.Add(1)
	return nil
}

func tooMany(format string, most int) error {
	return api.NewProblem(http.StatusTooManyRequests, "too-many-streams", fmt.Sprintf(format, most))
}

// open returns how many streams there are. c.mu is held.
func (c *Console) open() (n int) {
	for _, of := range c.streams {
		n += of
	}
	return n
}

// done is called when a stream that begin has counted is over.
func (c *Console) done(id afterlogin.SessionID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams[id]--; c.streams[id] == 0 {
		delete(c.streams, id)
	}
	c.live.Done()
}

// breath is the least time from one making of a live part to the next.
func (c *Console) breath() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(breath, time.Duration(c.open())*perStream)
}

// follow answers with the stream of a page's live part.
func (v *visit) follow() {
	if err := v.c.begin(v.caller.ID); err != nil {
		v.fail(err)
		return
	}
	defer v.c.done(v.caller.ID)
	v.known = v.c.now()
	ctx, cancel := context.WithCancel(v.r.Context())
	stop := context.AfterFunc(v.c.ending, cancel)
	defer func() { stop(); cancel() }()
	v.r = v.r.WithContext(ctx)

	events, unwatch := v.watch() // before the first look, so that nothing is missed between the two
	defer unwatch()
	first, err := v.part()
	if err != nil {
		v.fail(err)
		return
	}
	s := stream{w: v.w, conn: http.NewResponseController(v.w)}
	h := v.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would wait for more
	if v.r.Method == http.MethodHead {
		return
	}
	s.conn.SetReadDeadline(time.Time{}) // the server's is for a request, and would end this one
	if s.html(first) != nil {
		return
	}
	v.stream(ctx, &s, events, first)
}

// stream sends until the browser is gone, the person may not watch any more, or ctx ends.
func (v *visit) stream(ctx context.Context, s *stream, events <-chan api.Event, sent []byte) {
	tick, check, announce := time.NewTicker(v.paceOr(refresh)), time.NewTicker(checkEvery), time.NewTicker(announceEvery)
	defer tick.Stop()
	defer check.Stop()
	defer announce.Stop()
	var soon <-chan time.Time
	unsaid, said, drawn := 0, v.say, time.Now()
	for {
		again := false
		select {
		case <-ctx.Done():
			return
		case e := <-events:
			if v.matters == nil || v.matters(&e) {
				if unsaid++; soon == nil {
					soon = time.After(max(gather, v.c.breath()-time.Since(drawn)))
				}
			}
			if e.Session == string(v.caller.ID) && v.ends(ctx, s) {
				return
			}
		case <-soon:
			soon, again = nil, true
		case <-tick.C:
			again = true
		case <-announce.C:
			if unsaid > 0 {
				if s.event("announce", plural(unsaid, "new event", "new events")) != nil {
					return
				}
				unsaid = 0
			}
		case <-check.C:
			if v.ends(ctx, s) {
				return
			}
			if s.comment("alive") != nil {
				return
			}
		}
		if !again {
			continue
		}
		part, err := v.part()
		drawn = time.Now()
		tick.Reset(v.paceOr(refresh))
		if err == nil && v.say != said {
			if said = v.say; s.event("announce", said) != nil {
				return
			}
		}
		switch {
		case err != nil:
			if s.event("stale", "the server cannot tell now") != nil {
				return
			}
			sent = nil
		case !bytes.Equal(part, sent):
			if s.html(part) != nil {
				return
			}
			sent = part
		}
	}
}

// paceOr is how often the live part is made anew.
func (v *visit) paceOr(d time.Duration) time.Duration {
	if v.pace > 0 {
		d = v.pace
	}
	return max(d, v.c.breath())
}

// part makes the live part of the page.
func (v *visit) part() ([]byte, error) {
	v.live, v.pace = new(bytes.Buffer), 0
	defer func() { v.live = nil }()
	if err := v.serve(); err != nil {
		return nil, err
	}
	if v.live.Len() == 0 || v.live.Len() > maxPart {
		return nil, errors.New("console: the live part of the page is empty, or too large")
	}
	return v.live.Bytes(), nil
}

// ends reports whether the stream is to end. A browser whose stream ends without a word opens another one until it is let in,
// and says meanwhile that its figures are old.
func (v *visit) ends(ctx context.Context, s *stream) bool {
	now := v.c.now()
	err := v.mayWatch(ctx, now)
	switch {
	case err == nil:
		v.known = now
	case errors.Is(err, errOver):
		s.event("over", "signed out")
		return true
	}
	return now.Sub(v.known) >= patience
}

var errOver = errors.New("console: the person may not watch any more")

// mayWatch fails unless the session is good and the role the same: errOver, or that this cannot be told now. That it is too
// old is known in any case.
func (v *visit) mayWatch(ctx context.Context, now time.Time) error {
	if !now.Before(v.caller.Absolute) {
		return errOver
	}
	s, err := v.c.o.Authority.Session(ctx, v.caller.ID)
	switch {
	case errors.Is(err, afterlogin.ErrUnavailable) || ctx.Err() != nil:
		return err
	case err != nil || !s.Ended.IsZero() || s.Frozen():
		return errOver
	}
	p, err := v.c.o.Entrance.Person(ctx, s)
	if errors.Is(err, entrance.ErrNobody) || err == nil && p.Role != v.person.Role {
		return errOver
	}
	return err
}

// watch returns the events that come from now on, if the person may see them; nil: they may not. stop ends it.
func (v *visit) watch() (events <-chan api.Event, stop func()) {
	if !v.may(api.EventsRead) {
		return nil, func() {}
	}
	return v.c.feed.watch()
}

// stream writes server-sent events.
type stream struct {
	w    http.ResponseWriter
	conn *http.ResponseController
}

func (s *stream) send(text string) error {
	s.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	err := s.conn.Flush()
	s.conn.SetWriteDeadline(time.Time{}) // over HTTP/2 it would reset the stream while there is nothing to say
	return err
}

func (s *stream) comment(text string) error { return s.send(": " + text + "\n\n") }

func (s *stream) event(name, data string) error {
	return s.send("event: " + name + "\ndata: " + data + "\n\n")
}

// html sends what is to be put into the page.
func (s *stream) html(b []byte) error {
	var out strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(string(b), "\r", "")) {
		out.WriteString("data: " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return s.send(out.String() + "\n")
}
