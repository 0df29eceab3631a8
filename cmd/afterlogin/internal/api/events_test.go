package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/jwt/revoked"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// sse is a server-sent event, or a comment.
type sse struct{ id, typ, data, comment string }

// readSSE reads the next one.
func readSSE(r *bufio.Reader) (e sse, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			return e, nil
		case name == "":
			e.comment = value
		case name == "id":
			e.id = value
		case name == "event":
			e.typ = value
		case name == "data":
			e.data = value
		default:
			return e, errors.New("what is " + line)
		}
	}
}

// follower reads a stream over HTTP.
type follower struct {
	t testing.TB
	*bufio.Reader
	resp *http.Response
}

func (f *fixture) follow(s *httptest.Server, key, after string) *follower {
	f.t.Helper()
	r, _ := http.NewRequestWithContext(f.t.Context(), "GET", s.URL+"/v1/events", nil)
	r.Header.Set("x-api-key", key)
	if after != "" {
		r.Header.Set("Last-Event-ID", after)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		b, _ := io.ReadAll(resp.Body)
		f.t.Fatalf("%s %v %s", resp.Status, resp.Header, b)
	}
	return &follower{f.t, bufio.NewReader(resp.Body), resp}
}

// next returns the next event that is no comment.
func (f *follower) next() sse {
	f.t.Helper()
	for {
		e, err := readSSE(f.Reader)
		if err != nil {
			f.t.Fatal(err)
		}
		if e.comment == "" {
			return e
		}
	}
}

// until returns the next event of the type.
func (f *follower) until(typ string) (sse, Event) {
	f.t.Helper()
	for {
		if e := f.next(); e.typ == typ {
			var data Event
			if err := json.Unmarshal([]byte(e.data), &data); err != nil || typ != "gap" && (data.Type != typ || data.At.IsZero()) {
				f.t.Fatalf("%v in %s", err, e.data)
			}
			return e, data
		}
	}
}

func TestEvents(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, open(t))
			s := httptest.NewUnstartedServer(f.api)
			s.Config.ReadTimeout, s.Config.WriteTimeout = 200*time.Millisecond, 200*time.Millisecond // which a stream outlives
			s.Start()
			t.Cleanup(s.Close)
			one := f.follow(s, f.key, "")
			mia := f.signIn(`{"subject":"mia"}`)
			place, created := one.until("session.created")
			if created.Session != mia.Session.ID || created.Root != created.Session || created.Subject != "mia" || place.id == "" {
				t.Errorf("%+v", created)
			}
			timer := time.NewTimer(300 * time.Millisecond) // past the server's timeouts
			<-timer.C
			f.ok("DELETE", "/v1/sessions/"+mia.Session.ID, "", nil)
			_, ended := one.until("session.revoked")
			if ended.Session != mia.Session.ID || ended.Reason != "administrator" {
				t.Errorf("%+v", ended)
			}
			// Whoever connects again misses nothing.
			again := f.follow(s, f.key, place.id)
			if e := again.next(); e.typ != "session.revoked" {
				t.Errorf("behind %s comes %+v", place.id, e)
			}
			other := f.signIn(`{"subject":"mia"}`)
			f.ok("DELETE", "/v1/subjects/mia/sessions?except="+other.Session.ID, "", nil)
			if _, e := again.until("subject.signed_out"); e.Except != other.Session.ID || e.Subject != "mia" || e.Session != "" {
				t.Errorf("%+v", e)
			}
			f.ok("DELETE", "/v1/subjects/mia/sessions?scope=everything", "", nil)
			if _, e := again.until("subject.signed_out"); !e.Everything || e.Except != "" {
				t.Errorf("%+v", e)
			}
			// A place that nobody knows is a gap, and the stream goes on.
			lost := f.follow(s, f.key, "nowhere")
			if e := lost.next(); e.typ != "gap" || e.id != "" {
				t.Errorf("%+v", e)
			}
			f.signIn(`{"subject":"tom"}`)
			lost.until("session.created")
			// A stream ends with its key.
			key := f.makeKey(`{"subject":"watcher","scopes":["events:read"]}`)
			brief := f.follow(s, key.Token, "")
			f.ok("DELETE", "/v1/api-keys/"+key.APIKey.ID, "", nil)
			brief.until("api_key.revoked")
			if e, err := readSSE(brief.Reader); err != nil || !strings.Contains(e.comment, "not good any more") {
				t.Errorf("%+v %v", e, err)
			}
			if _, err := readSSE(brief.Reader); err != io.EOF {
				t.Errorf("after the key's end: %v", err)
			}
			// All end when the server stops, and so does whoever comes later.
			f.api.EndStreams()
			f.api.EndStreams()
			for _, open := range []*follower{one, again, lost, f.follow(s, f.key, "")} {
				if _, err := io.Copy(io.Discard, open); err != nil {
					t.Error(err)
				}
			}
			if a := f.do("HEAD", "/v1/events", f.key, ""); a.status != 200 || a.body != "" {
				t.Errorf("HEAD: %d %q", a.status, a.body)
			}
		})
	}
}

func TestTooManyStreams(t *testing.T) {
	f := newFixture(t, memstore.New())
	s := httptest.NewServer(f.api)
	t.Cleanup(s.Close)
	for range maxKeyStreams {
		f.follow(s, f.key, "")
	}
	// One key does not hold all of them.
	if a := f.do("GET", "/v1/events", f.key, ""); a.status != 429 || a.kind() != "too-many-streams" {
		t.Errorf("one more of the key: %d %s", a.status, a.body)
	}
	for len(f.api.streams.keys) < MaxStreams/maxKeyStreams {
		key := f.apiKey(EventsRead)
		for range maxKeyStreams {
			f.follow(s, key, "")
		}
	}
	f.key = f.apiKey(EventsRead)
	if a := f.do("GET", "/v1/events", f.key, ""); a.status != 429 || a.kind() != "too-many-streams" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	// Nor do they keep this process itself from following.
	r := httptest.NewRequestWithContext(As(t.Context(), &afterlogin.Session{ID: "console", Scopes: []string{string(EventsRead)}}), "HEAD", "/v1/events", nil)
	w := httptest.NewRecorder()
	f.api.ServeHTTP(w, r)
	if w.Code != 200 {
		t.Errorf("this process: %d %s", w.Code, w.Body)
	}
	f.api.EndStreams()
}

// pipe is the writer of an answer that is read while it is written.
type pipe struct {
	*io.PipeWriter
	header   http.Header
	deadline atomic.Bool // whether there is one
}

func (p *pipe) SetWriteDeadline(t time.Time) error { p.deadline.Store(!t.IsZero()); return nil }

func (p *pipe) Header() http.Header { return p.header }
func (p *pipe) WriteHeader(int)     {}
func (p *pipe) Flush()              {}

// A stream shows that it is alive, and a key that ends by time is thrown out at the next sign of life.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		key, err := a.Issue(t.Context(), afterlogin.IssueRequest{
			Subject: "watcher", Kind: afterlogin.KindAPIKey, Scopes: []string{string(EventsRead)}, Lifetime: 40 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequestWithContext(context.Background(), "GET", "/v1/events", nil)
		r.Header.Set("x-api-key", key.Token.Reveal())
		in, out := io.Pipe()
		w := &pipe{PipeWriter: out, header: make(http.Header)}
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			defer out.Close()
			New(a, Options{}).ServeHTTP(w, r)
		})
		start := time.Now()
		b := bufio.NewReader(in)
		for _, want := range []struct {
			at   time.Duration
			text string
		}{{0, "following"}, {15 * time.Second, "alive"}, {30 * time.Second, "alive"}, {45 * time.Second, "alive"}, {45 * time.Second, "not good any more"}} {
			e, err := readSSE(b)
			if err != nil || !strings.Contains(e.comment, want.text) || time.Since(start) != want.at {
				t.Errorf("after %v: %+v %v, want %q after %v", time.Since(start), e, err, want.text, want.at)
			}
			if synctest.Wait(); w.deadline.Load() && want.at < 45*time.Second { // then it is writing the last
				t.Error("a deadline for writing nothing: over HTTP/2 it ends the stream")
			}
		}
		if _, err := readSSE(b); err != io.EOF {
			t.Error(err)
		}
	})
}

// A service that verifies JWTs by itself and follows the events refuses what was signed out, by the next event.
func TestRevocationFeed(t *testing.T) {
	f := newFixture(t, memstore.New())
	s := httptest.NewServer(f.api)
	t.Cleanup(s.Close)
	t.Cleanup(f.api.EndStreams)
	feed := f.follow(s, f.key, "")
	list := revoked.New(revoked.Options{Leeway: -1, Now: func() time.Time { return f.now }})
	f.pass(2 * time.Second)
	verifier := jwt.Verifier{Keys: f.a.JWKS(), Issuer: f.a.Issuer(), Audience: []string{"orders"}, Type: jwt.TypeAccessToken, Now: func() time.Time { return f.now }}
	token := func(id string) string {
		t.Helper()
		var got AccessToken
		f.ok("POST", "/v1/sessions/"+id+"/tokens", `{"audience":["orders"]}`, &got)
		return f.issued(got.Token)
	}
	check := func(token string) error {
		t.Helper()
		c, err := verifier.Verify(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		return list.Check(c)
	}
	read := func(until string) {
		t.Helper()
		for {
			e := feed.next()
			var event revoked.Event
			if err := json.Unmarshal([]byte(e.data), &event); err != nil {
				t.Fatal(err)
			}
			list.Add(event)
			if event.Type == until {
				return
			}
		}
	}
	a, b, c := f.signIn(`{"subject":"mia"}`), f.signIn(`{"subject":"mia"}`), f.signIn(`{"subject":"mia"}`)
	ta, tb, tc := token(a.Session.ID), token(b.Session.ID), token(c.Session.ID)
	f.ok("DELETE", "/v1/sessions/"+a.Session.ID, "", nil)
	read("session.revoked")
	if check(ta) != revoked.ErrRevoked || check(tb) != nil || check(tc) != nil {
		t.Error(check(ta), check(tb), check(tc))
	}
	f.ok("DELETE", "/v1/subjects/mia/sessions?except="+b.Session.ID, "", nil)
	read("subject.signed_out")
	if check(tb) != nil || check(tc) != revoked.ErrRevoked {
		t.Error(check(tb), check(tc))
	}
}
