package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// transport answers requests without a network.
type transport func(*http.Request) *http.Response

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r), nil }

// Whoever follows asks again when there are too many, when a proxy has no server behind it, and when the server cannot
// answer now, from where it was; and ends when its key does.
func TestEventsAskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const problem = "application/problem+json"
		answers := []struct {
			status     int
			kind, body string
		}{
			{200, "application/json", `{"data":[{"type":"session.created","at":"2026-01-02T03:04:05Z","session":"ses_a"}],"next":"p1"}`},
			{429, problem, `{"status":429,"detail":"too many follow"}`},
			{502, "text/html", "<h1>Bad Gateway</h1>"},
			{504, "text/html", "<h1>Gateway Timeout</h1>"},
			{503, problem, `{"status":503,"detail":"the store is away"}`},
			{500, problem, `{"status":500,"detail":"something is wrong"}`},
			{200, "application/json", `{"data":[{"type":"session.revoked","at":"2026-01-02T03:04:06Z","session":"ses_a"}],"next":"p2"}`},
			{401, problem, `{"status":401,"detail":"the key is over"}`},
		}
		var asked []string
		var out, errs bytes.Buffer
		p := &program{streams: streams{Out: &out, Err: &errs}}
		base, _ := url.Parse("http://127.0.0.1:7070")
		r := &remote{p: p, server: base.String(), base: base, http: &http.Client{Transport: transport(func(q *http.Request) *http.Response {
			asked = append(asked, q.URL.Query().Get("after"))
			if got := q.URL.Query().Get("subject"); got != "mia" {
				t.Errorf("asked for the subject %q", got)
			}
			a := answers[0]
			answers = answers[1:]
			w := httptest.NewRecorder()
			w.Header().Set("Content-Type", a.kind)
			w.WriteHeader(a.status)
			io.WriteString(w, a.body)
			return w.Result()
		})}}
		began := time.Now()
		err := p.follow(context.Background(), r, "", "", "mia", 0, false)
		if err == nil || !strings.Contains(err.Error(), "the key is over") || len(answers) != 0 {
			t.Errorf("ended with %v, %d answers unasked", err, len(answers))
		}
		if got := strings.Join(asked, " "); got != " p1 p1 p1 p1 p1 p1 p2" {
			t.Errorf("asked behind %q", got)
		}
		if n := strings.Count(out.String(), "\n"); n != 2 || strings.Count(errs.String(), "trying again") != 1 {
			t.Errorf("printed %q, and %q", out.String(), errs.String())
		}
		if d := time.Since(began); d != 5*eventsRetry {
			t.Errorf("waited %v", d)
		}
	})
}

// The first question must be answered: whoever names a wrong server is told so at once.
func TestEventsFirstAnswer(t *testing.T) {
	p := &program{streams: streams{Out: io.Discard, Err: io.Discard}}
	base, _ := url.Parse("http://127.0.0.1:7070")
	r := &remote{p: p, base: base, http: &http.Client{Transport: transport(func(*http.Request) *http.Response {
		w := httptest.NewRecorder()
		w.WriteHeader(502)
		return w.Result()
	})}}
	if err := p.follow(t.Context(), r, "", "", "", 0, false); err == nil {
		t.Error("it goes on")
	}
}
