package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/afterlogin/afterlogin"
)

// Limits of streams of events.
const (
	// MaxStreams is how many clients may follow the events of one node.
	MaxStreams = 64
	// maxKeyStreams is how many of them one API key may hold.
	maxKeyStreams = 8
	// heartbeat is how often a stream shows that it is alive, and looks whether its API key still is.
	heartbeat = 15 * time.Second
	// eventTimeout is how long a client may take to read what is sent, before it is taken for gone.
	eventTimeout = 10 * time.Second
	// maxCursor is the greatest size of a place in the stream, in bytes: that of a store which has many streams.
	maxCursor = 2048
)

func number(n int) *float64 {
	f := float64(n)
	return &f
}

// An Event tells what happened to a session. It holds no secret. Package jwt/revoked reads it.
type Event struct {
	ID         string    `json:"id,omitempty" doc:"Its place in the stream, in answers that are lists; in the stream it is the id of the event."`
	Type       string    `json:"type" doc:"session.created, session.revoked, subject.signed_out, …"`
	At         time.Time `json:"at"`
	Session    string    `json:"session,omitempty" doc:"What it is about: ses_…, key_…, grant_…. Absent if that is a subject."`
	Root       string    `json:"root,omitempty" doc:"What that lives under: the sid of JWTs. Compare what follows the underscore."`
	Tenant     uint32    `json:"tenant,omitempty"`
	Subject    string    `json:"subject,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Detail     string    `json:"detail,omitempty" doc:"In plain words."`
	Actor      string    `json:"actor,omitempty" doc:"Who caused it: key_… is an API key, console/NAME somebody at the console, self the person. Absent if that is not known."`
	Except     string    `json:"except,omitempty" doc:"Of subject.signed_out: the session that was spared."`
	Everything bool      `json:"everything,omitempty" doc:"Of subject.signed_out: API keys ended, too."`
}

func newEvent(e afterlogin.Event) Event {
	return Event{
		Type: e.Type, At: e.At.UTC(), Session: string(e.Session), Root: string(e.Root), Tenant: e.Tenant, Subject: e.Subject,
		Reason: string(e.Reason), Detail: e.Detail, Actor: e.Actor, Except: string(e.Except), Everything: e.Everything,
	}
}

// streams counts the streams that are open.
type streams struct {
	mu   sync.Mutex
	open int
	keys map[afterlogin.SessionID]int // how many of them each API key holds
	once sync.Once
	end  chan struct{} // closed: all are to end
}

// begin counts one more stream of the key, or says why there cannot be one.
func (s *streams) begin(key afterlogin.SessionID) (why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.open >= MaxStreams:
		return fmt.Sprintf("%d clients follow the events of this node, and that is the most", MaxStreams)
	case s.keys[key] >= maxKeyStreams:
		return fmt.Sprintf("this API key follows the events %d times, and that is the most", maxKeyStreams)
	}
	if s.keys == nil {
		s.keys = make(map[afterlogin.SessionID]int)
	}
	s.open++
	s.keys[key]++
	return ""
}

func (s *streams) done(key afterlogin.SessionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if s.keys[key]--; s.keys[key] == 0 {
		delete(s.keys, key)
	}
}

// EndStreams ends all streams of events, and those that are opened later: the server stops, and would wait for them.
// Their clients go on elsewhere, behind the last event that they saw.
func (a *API) EndStreams() { a.streams.once.Do(func() { close(a.streams.end) }) }

func (a *API) eventRoutes() {
	op := a.operation(route{
		method: http.MethodGet, path: "/v1/events", scope: EventsRead, id: "follow-events", status: http.StatusOK,
		errors:  []int{http.StatusUnprocessableEntity, http.StatusTooManyRequests},
		summary: "Follow what happens",
		text: "Server-sent events: every sign-in, renewal and sign-out on every node, from now on or behind an event that was seen. `event` is the type, `data` an Event as JSON, " +
			"`id` the place in the stream. A comment comes every 15 s. The event `gap` says that events were missed: what was derived from earlier ones is out of date. " +
			"The stream ends when the server stops or the API key ends; connect again with Last-Event-ID. Who has no id yet, having seen no event, has missed what happened between the two connections, as after a gap.\n\n" +
			"With `Accept: application/json`, or with `wait` or `limit`, it is a list instead: as soon as there are events, and none when `wait` seconds are over. Ask again with `after` set to `next`. `gap` says what the event of that name does.",
	})
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Event](), true, "")
	op.Parameters = []*huma.Param{
		{Name: "after", In: "query", Description: "Only what comes behind the event with this id.", Schema: &huma.Schema{Type: "string"}},
		{Name: "Last-Event-ID", In: "header", Description: "The same, as browsers send it when they connect again. It goes before the parameter.", Schema: &huma.Schema{Type: "string"}},
		{Name: "subject", In: "query", Description: "Only what is about this subject.", Schema: &huma.Schema{Type: "string"}},
		{Name: "wait", In: "query", Description: "Of a list: how many seconds to wait for an event, 0 to 25; 20 if nothing is said.", Schema: &huma.Schema{Type: "integer", Minimum: number(0), Maximum: number(maxWait)}},
		{Name: "limit", In: "query", Description: "Of a list: at most this many events, 1 to 1000; 100 if nothing is said.", Schema: &huma.Schema{Type: "integer", Minimum: number(1), Maximum: number(maxEvents)}},
	}
	op.Responses = map[string]*huma.Response{"200": {Description: "The stream. Each data line is an Event.", Content: map[string]*huma.MediaType{
		"text/event-stream": {Schema: schema},
		"application/json":  {Schema: a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[EventList](), true, "")},
	}}}
	problem := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "")
	for _, status := range op.Errors {
		op.Responses[fmt.Sprint(status)] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{
			"application/problem+json": {Schema: problem},
		}}
	}
	a.huma.OpenAPI().AddOperation(&op)
	a.mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		if p := a.follow(w, r); p != nil {
			p.Write(w, r)
		}
	})
}

// following is what a request wants to follow.
type following struct {
	after   string
	subject string // empty: everybody's
	list    bool   // as a list, and not as a stream
	wait    time.Duration
	limit   int
}

// about reports whether the event is wanted.
func (f *following) about(e *afterlogin.Event) bool { return f.subject == "" || e.Subject == f.subject }

// readFollowing reads what the request says.
func readFollowing(r *http.Request) (f following, problem *Problem) {
	f = following{wait: defaultWait * time.Second, limit: defaultEvents}
	q, _ := url.ParseQuery(r.URL.RawQuery) // admit has read it, too
	for name, v := range q {
		switch name {
		case "after":
		case "subject":
			if errors.As(checkSubject("query.subject", v[0]), &problem) {
				return f, problem
			}
			f.subject = v[0]
		case "wait", "limit":
			least, most := 0, maxWait
			if name == "limit" {
				least, most = 1, maxEvents
			}
			n, err := strconv.Atoi(v[0])
			if err != nil || n < least || n > most {
				return f, invalid("query."+name, "want a whole number from %d to %d", least, most)
			}
			if f.list = true; name == "wait" {
				f.wait = time.Duration(n) * time.Second
			} else {
				f.limit = n
			}
		default:
			return f, invalid("query."+clip(name), "there is no parameter of this name; known are after, subject, wait, limit")
		}
	}
	f.list = f.list || wantsList(r.Header)
	where := "query.after"
	f.after = q.Get("after")
	if h := r.Header.Values("Last-Event-Id"); len(h) > 0 {
		where, f.after = "header.Last-Event-ID", h[0]
		if len(h) > 1 {
			return f, invalid(where, "stands there twice")
		}
	}
	if len(f.after) > maxCursor {
		return f, invalid(where, "is no id of an event: over %d bytes", maxCursor)
	}
	return f, nil
}

// wantsList reports whether the client asks for JSON and not for a stream.
func wantsList(h http.Header) bool {
	accept := strings.ToLower(strings.Join(h.Values("Accept"), ","))
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/event-stream")
}

// follow answers with the stream. A problem is for before its first byte.
func (a *API) follow(w http.ResponseWriter, r *http.Request) *Problem {
	admitted, admission, problem := a.admit(r, EventsRead)
	if problem != nil {
		return problem
	}
	key := caller(admitted)
	admission()
	want, problem := readFollowing(r)
	if problem != nil {
		return problem
	}
	if caller(r.Context()) == nil { // what this process follows for itself, clients can neither starve nor be starved by
		if why := a.streams.begin(key.ID); why != "" {
			p := NewProblem(http.StatusTooManyRequests, "too-many-streams", why)
			p.header = http.Header{"Retry-After": {"15"}}
			return p
		}
		defer a.streams.done(key.ID)
	}
	if want.list {
		return a.listEvents(w, r, want)
	}
	ctx, cancel := context.WithCancel(r.Context())
	var source source
	defer func() { cancel(); source.pumping.Wait() }()
	gap, err := source.open(ctx, a.authority, want.after)
	if err != nil {
		return a.problem(ctx, err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would wait for more
	if r.Method == http.MethodHead {
		return nil
	}
	// A writer that has no deadlines, as in a test, is written to without.
	f := &feed{w: w, conn: http.NewResponseController(w)}
	f.conn.SetReadDeadline(time.Time{}) // the server's is for a request, and would end this one
	if gap {
		err = f.gap()
	} else {
		err = f.comment("following")
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	// An event may be here before whoever caused it has its answer, and until then the key may still be let in.
	var soon <-chan time.Time
	for err == nil {
		look, over := false, false
		select {
		case <-a.streams.end:
			f.comment("the server stops; connect again")
			return nil
		case <-ctx.Done():
			return nil
		case <-beat.C:
			err, look = f.comment("alive"), true
		case <-soon:
			look = true
		case next, ok := <-source.next:
			switch {
			case !ok:
				return nil
			case next.err != nil:
				a.log.WarnContext(ctx, "a stream of events ends", "request_id", RequestID(ctx), "err", next.err)
				f.comment("the events cannot be read now; connect again")
				return nil
			case next.gap:
				err = f.gap()
			default:
				e := next.event
				if want.about(&e) {
					err = f.event(e)
				}
				if e.Session == key.ID || e.Type == afterlogin.EventSubject && e.Subject == key.Subject {
					look, soon = true, time.After(time.Second)
				}
				over = e.Session == key.ID && e.Type == afterlogin.EventKeyRevoked
			}
		}
		if err == nil && (over || look && !a.stillGood(ctx, r)) {
			f.comment("the API key is not good any more")
			return nil
		}
	}
	return nil // the client is gone, or does not read
}

// stillGood reports whether the request would still be let in. While that cannot be told, it is not thrown out.
func (a *API) stillGood(ctx context.Context, r *http.Request) bool {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := a.authenticate(ctx, r, EventsRead)
	return err == nil || errors.Is(err, afterlogin.ErrUnavailable) || errors.Is(err, afterlogin.ErrRateLimited)
}

// source brings the events from the authority.
type source struct {
	next    chan item
	pumping sync.WaitGroup
}

// item is an event, or that some were missed, or why there are no more.
type item struct {
	event afterlogin.Event
	gap   bool
	err   error
}

// open begins to watch behind the cursor, and reports whether events were missed between it and now. pumping ends with
// the context.
func (s *source) open(ctx context.Context, a *afterlogin.Authority, after string) (gap bool, err error) {
	events, err := a.Watch(ctx, after)
	if errors.Is(err, afterlogin.ErrGap) {
		gap = true
		events, err = a.Watch(ctx, "")
	}
	if err != nil {
		return gap, err
	}
	s.next = make(chan item)
	s.pumping.Go(func() {
		defer close(s.next)
		for missed := true; missed; {
			missed = false
			for e, err := range events {
				i := item{event: e, err: err}
				if missed = errors.Is(err, afterlogin.ErrGap); missed {
					// First watch, then say that there is a gap: who hears of it looks around, and must not miss what
					// happens meanwhile.
					i = item{gap: true}
					events, i.err = a.Watch(ctx, "")
				}
				select {
				case s.next <- i:
				case <-ctx.Done():
					return
				}
				if i.err != nil {
					return
				}
				if missed {
					break
				}
			}
		}
	})
	return gap, nil
}

// feed writes server-sent events.
type feed struct {
	w    http.ResponseWriter
	conn *http.ResponseController
}

func (f *feed) send(text string) error {
	f.conn.SetWriteDeadline(time.Now().Add(eventTimeout))
	if _, err := f.w.Write([]byte(text)); err != nil {
		return err
	}
	err := f.conn.Flush()
	f.conn.SetWriteDeadline(time.Time{}) // over HTTP/2 it would reset the stream while there is nothing to say
	return err
}

func (f *feed) comment(text string) error { return f.send(": " + text + "\n\n") }

// gap also takes the last id from the client, which is of no use any more.
func (f *feed) gap() error { return f.send("id:\nevent: gap\ndata: {}\n\n") }

func (f *feed) event(e afterlogin.Event) error {
	data, err := json.Marshal(newEvent(e))
	if err != nil {
		return err
	}
	var b strings.Builder
	if !strings.ContainsAny(e.Cursor, "\r\n\x00") {
		b.WriteString("id: " + e.Cursor + "\n")
	}
	b.WriteString("event: " + e.Type + "\ndata: ")
	b.Write(data)
	b.WriteString("\n\n")
	return f.send(b.String())
}
