package api

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// poll asks for events as a list.
func (f *fixture) poll(query string) EventList {
	f.t.Helper()
	var list EventList
	a := f.ok("GET", "/v1/events?"+query, "", &list)
	if list.Data == nil || a.header.Get("Content-Type") != "application/json" || a.header.Get("Cache-Control") != "no-store" {
		f.t.Errorf("%v %s", a.header, a.body)
	}
	return list
}

// A list has what is behind a place, as soon as there is something, and each event once however it is asked for.
func TestEventList(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, open(t))
			begin := f.poll("wait=0")
			if begin.Next == "" || begin.Gap {
				t.Fatalf("%+v", begin)
			}
			mia := f.signIn(`{"subject":"mia"}`)
			f.ok("DELETE", "/v1/sessions/"+mia.Session.ID, "", nil)
			f.signIn(`{"subject":"tom"}`)
			var got []Event
			for after := begin.Next; len(got) < 3; {
				list := f.poll("limit=2&after=" + url.QueryEscape(after))
				if len(list.Data) == 0 || len(list.Data) > 2 || list.Gap || list.Next != list.Data[len(list.Data)-1].ID {
					t.Fatalf("%+v", list)
				}
				for _, e := range list.Data {
					if e.Subject == "mia" || e.Subject == "tom" {
						got = append(got, e)
					}
				}
				after = list.Next
			}
			if got[0].Type != "session.created" || got[1].Type != "session.revoked" || got[1].Session != mia.Session.ID || !strings.HasPrefix(got[1].Actor, "key_") || got[2].Subject != "tom" {
				t.Errorf("%+v", got)
			}
			// A place that nobody knows is a gap, with a place to go on from.
			lost := f.poll("wait=0&after=nowhere")
			if !lost.Gap || lost.Next == "" || lost.Next == "nowhere" {
				t.Errorf("%+v", lost)
			}
			if again := f.poll("wait=0&after=" + url.QueryEscape(lost.Next)); again.Gap {
				t.Errorf("%+v", again)
			}
			if a := f.do("GET", "/v1/events", f.key, "", "Accept: application/json", "Last-Event-ID: nowhere"); !strings.Contains(a.body, `"gap":true`) {
				t.Errorf("%s", a.body)
			}
			for query, where := range map[string]string{
				"wait=26": "query.wait", "wait=-1": "query.wait", "wait=x": "query.wait", "limit=0": "query.limit", "limit=1001": "query.limit", "what=1": "query.what",
				"wait=1&after=" + strings.Repeat("x", maxCursor+1): "query.after",
			} {
				if a := f.do("GET", "/v1/events?"+query, f.key, ""); a.status != 422 || len(a.problem.Errors) != 1 || a.problem.Errors[0].Location != where {
					t.Errorf("%s: %d %s", query, a.status, a.body)
				}
			}
		})
	}
}

// A list waits for as long as it was told, and not longer than the server gives an answer; an event ends the waiting.
func TestEventListWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, memstore.New())
		now := func() string { // the place behind everything that has happened
			time.Sleep(time.Second)
			synctest.Wait()
			place := f.poll("wait=0").Next
			return f.poll("wait=0&after=" + url.QueryEscape(place)).Next
		}
		place := now()
		for query, want := range map[string]time.Duration{"wait=25": 25 * time.Second, "wait=0": together, "limit=5": defaultWait * time.Second} {
			began := time.Now()
			list := f.poll(query + "&after=" + url.QueryEscape(place))
			if took := time.Since(began); len(list.Data) > 0 || took != want || list.Next != place {
				t.Errorf("%s: %+v after %v, want %v", query, list, took, want)
			}
		}
		if longest := maxWait*time.Second + together; longest > 28*time.Second {
			t.Errorf("an answer after %v: the server's limit is 30 s", longest)
		}
		type result struct {
			list EventList
			took time.Duration
		}
		done := make(chan result)
		began := time.Now()
		go func() {
			list := f.poll("wait=20&after=" + url.QueryEscape(place))
			done <- result{list, time.Since(began)}
		}()
		time.Sleep(3 * time.Second)
		for range 3 { // what happens together comes together
			if _, err := f.a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"}); err != nil {
				t.Error(err)
			}
		}
		if r := <-done; len(r.list.Data) != 3 || r.took != 3*time.Second+together {
			t.Errorf("%d events after %v", len(r.list.Data), r.took)
		}
		// A key that ends meanwhile gets nothing.
		key := f.apiKey(EventsRead)
		place = now()
		denied := make(chan *answer)
		go func() { denied <- f.do("GET", "/v1/events?wait=20&after="+url.QueryEscape(place), key, "") }()
		time.Sleep(time.Second)
		if _, err := f.a.RevokeToken(t.Context(), afterlogin.TokenFrom(key), afterlogin.ReasonAdministrator); err != nil {
			t.Error(err)
		}
		if a := <-denied; a.status != 401 {
			t.Errorf("%d %s", a.status, a.body)
		}
		// A server that stops answers at once.
		place = now()
		began = time.Now()
		go func() { time.Sleep(time.Second); f.api.EndStreams() }()
		f.poll("wait=20&after=" + url.QueryEscape(place))
		if took := time.Since(began); took != time.Second {
			t.Errorf("after %v", took)
		}
	})
}

// Lists count as streams do, and outlive the server's limit on reading a request.
func TestEventListOverHTTP(t *testing.T) {
	f := newFixture(t, memstore.New())
	s := httptest.NewUnstartedServer(f.api)
	s.Config.ReadTimeout = 200 * time.Millisecond
	s.Start()
	t.Cleanup(s.Close)
	place := f.poll("wait=0").Next
	place = f.poll("wait=0&after=" + url.QueryEscape(place)).Next
	get := func(ctx context.Context) (*http.Response, error) {
		r, _ := http.NewRequestWithContext(ctx, "GET", s.URL+"/v1/events?wait=1&after="+url.QueryEscape(place), nil)
		r.Header.Set("x-api-key", f.key)
		return s.Client().Do(r)
	}
	for range 2 { // the connection is good afterwards
		resp, err := get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var list EventList
		if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || resp.StatusCode != 200 || list.Next != place {
			t.Errorf("%v %s %+v", err, resp.Status, list)
		}
		resp.Body.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range maxKeyStreams {
		go func() {
			if resp, err := get(ctx); err == nil {
				resp.Body.Close()
			}
		}()
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		f.api.streams.mu.Lock()
		open := f.api.streams.open
		f.api.streams.mu.Unlock()
		if open == maxKeyStreams {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d lists are waited for", open)
		}
	}
	if a := f.do("GET", "/v1/events?wait=0", f.key, ""); a.status != 429 || a.kind() != "too-many-streams" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Only what is about one subject, in a list and in a stream; what is left out is not asked for again.
func TestEventsOfASubject(t *testing.T) {
	f := newFixture(t, memstore.New())
	begin := f.poll("wait=0").Next
	f.signIn(`{"subject":"tom"}`)
	mia := f.signIn(`{"subject":"mia"}`)
	f.signIn(`{"subject":"tom"}`)
	list := f.poll("wait=5&subject=mia&after=" + url.QueryEscape(begin))
	if len(list.Data) != 1 || list.Data[0].Session != mia.Session.ID || list.Data[0].ID == "" {
		t.Fatalf("%+v", list)
	}
	if rest := f.poll("wait=0&subject=mia&after=" + url.QueryEscape(list.Next)); len(rest.Data) != 0 || rest.Gap || rest.Next == "" {
		t.Errorf("behind it: %+v", rest)
	}
	if nobody := f.poll("wait=0&subject=nobody&after=" + url.QueryEscape(begin)); len(nobody.Data) != 0 || nobody.Gap {
		t.Errorf("of nobody: %+v", nobody)
	}
	s := httptest.NewServer(f.api)
	t.Cleanup(s.Close)
	r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/v1/events?subject=mia&after="+url.QueryEscape(begin), nil)
	r.Header.Set("x-api-key", f.key)
	resp, err := s.Client().Do(r)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	defer resp.Body.Close()
	stream := &follower{t, bufio.NewReader(resp.Body), resp}
	f.signIn(`{"subject":"tom"}`)
	again := f.signIn(`{"subject":"mia"}`)
	for _, want := range []string{mia.Session.ID, again.Session.ID} {
		if e := stream.next(); e.typ != "session.created" || !strings.Contains(e.data, want) {
			t.Errorf("in the stream: %+v, want %s", e, want)
		}
	}
	if a := f.do("GET", "/v1/events?wait=0&subject="+strings.Repeat("x", 513), f.key, ""); a.status != 422 || !strings.Contains(a.body, "query.subject") {
		t.Errorf("%d %s", a.status, a.body)
	}
}
