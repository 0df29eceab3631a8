package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/audit"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/pulse"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/rehearsal"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/revocation"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/roster"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/webhook"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// stores are what the tables run on.
var stores = map[string]func(t *testing.T) store.Store{
	"memstore": func(t *testing.T) store.Store { return memstore.New() },
	"pebblestore": func(t *testing.T) store.Store {
		s, err := pebblestore.Open(t.TempDir(), pebblestore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	},
}

// fixture is an API on an authority of its own, with a clock that stands still until it is moved.
type fixture struct {
	t         testing.TB
	a         *afterlogin.Authority
	ring      *keyring.Ring
	api       *API
	audit     *audit.Log
	list      *users.Users
	pulse     *pulse.Pulse
	roster    *roster.Roster
	jobs      *revocation.Revocations
	hooks     *webhook.Webhooks
	rehearsal *rehearsal.Rehearsal
	log       bytes.Buffer
	seen      []afterlogin.Event
	key       string // with all scopes

	mu     sync.Mutex
	now    time.Time
	tokens []string // every one that was issued
}

func newFixture(t testing.TB, s store.Store, change ...func(*afterlogin.Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, now: time.Now()}
	clock := func() time.Time {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.now
	}
	log := slog.New(slog.NewTextHandler(&f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	f.ring = keyring.New()
	stricter := afterlogin.DefaultPolicies()[afterlogin.PolicyBrowser]
	stricter.Idle = 15 * time.Minute
	f.rehearsal = rehearsal.New(rehearsal.Options{
		Policies: afterlogin.DefaultPolicies(), Stricter: map[string]afterlogin.Policy{afterlogin.PolicyBrowser: stricter}, Node: "east-1", Now: clock,
		Limits: map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindSession: {Max: 1, AtLimit: afterlogin.EndOldest}},
	})
	c := afterlogin.Config{Rehearsal: f.rehearsal.Config(), Store: s, Keys: f.ring, Issuer: "https://auth.example", ImportedKeys: true, Now: clock, Logger: log, Observe: func(e afterlogin.Event) {
		f.mu.Lock()
		f.seen = append(f.seen, e)
		p := f.pulse
		f.mu.Unlock()
		if p != nil {
			p.Observe(e) // it asks for the time
		}
	}}
	for _, f := range change {
		f(&c)
	}
	f.a, err = afterlogin.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.a.Close()
		s.Close()
		f.noTokenIn("the log", f.log.String())
	})
	p, err := pulse.New(pulse.Options{Stats: f.a.Stats, Now: clock, Ready: func(context.Context) string { return "" }, Node: "east-1", Version: "v1", Store: "embedded"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	f.mu.Lock()
	f.pulse = p
	f.mu.Unlock()
	f.list, err = users.New(users.Options{Authority: f.a, Keys: f.ring, Now: clock, Logger: log, Params: users.Params{Memory: 64, Time: 1, Threads: 1}})
	if err != nil {
		t.Fatal(err)
	}
	f.audit, err = audit.New(audit.Options{Authority: f.a, Keys: f.ring, Dir: t.TempDir(), Node: "east-1", Now: clock, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.audit.Close() })
	if f.roster, err = roster.New(roster.Options{Authority: f.a, Now: clock, Logger: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.roster.Close() })
	if f.jobs, err = revocation.New(revocation.Options{Authority: f.a, Now: clock, Logger: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.jobs.Close() })
	if f.hooks, err = webhook.New(webhook.Options{Authority: f.a, Keys: f.ring, Loopback: true, Now: clock, Logger: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.hooks.Close() })
	door, err := entrance.New(entrance.Options{Authority: f.a, URL: "https://auth.example/console", Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	f.api = New(f.a, Options{Console: door, Pulse: f.pulse, Rehearsal: f.rehearsal, Roster: f.roster, Revocations: f.jobs, Webhooks: f.hooks, Audit: f.audit, Node: "east-1", Settings: func() []Setting { return []Setting{{"listen", "127.0.0.1:7070", "default", "where"}} }, Logger: log, Now: clock, Keys: f.ring, Users: f.list, Backup: func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, "a backup")
		return err
	}})
	f.key = f.apiKey(Scopes()...)
	return f
}

func (f *fixture) apiKey(scopes ...Scope) string {
	f.t.Helper()
	r := afterlogin.IssueRequest{Subject: AdminSubject, Kind: afterlogin.KindAPIKey}
	for _, s := range scopes {
		r.Scopes = append(r.Scopes, string(s))
	}
	got, err := f.a.Issue(f.t.Context(), r)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.issued(got.Token.Reveal())
}

func (f *fixture) issued(token string) string {
	f.tokens = append(f.tokens, token)
	return token
}

// pass moves the clock.
func (f *fixture) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

// noTokenIn fails if a token, or its secret part, stands in the text.
func (f *fixture) noTokenIn(where, text string) {
	f.t.Helper()
	for _, token := range f.tokens {
		// Behind the prefix come key id, bucket, root and generation, which are no secret: 34 characters.
		if strings.Contains(text, token) || strings.Contains(text, token[38:70]) {
			f.t.Errorf("a token stands in %s: %.200s", where, text)
			return
		}
	}
}

// answer is what came back.
type answer struct {
	status  int
	header  http.Header
	body    string
	problem Problem
}

// kind is the kind of problem, or "".
func (a *answer) kind() string { return a.problem.Kind() }

// do sends a request as the API's caller would. A header in the form "Name: value" may follow.
func (f *fixture) do(method, path, key, body string, headers ...string) *answer {
	f.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequestWithContext(f.t.Context(), method, path, reader)
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if value == "" {
			r.Header.Del(name)
			continue
		}
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	f.api.ServeHTTP(w, r)
	a := &answer{status: w.Code, header: w.Header(), body: w.Body.String()}
	if a.status >= 400 {
		if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
			f.t.Errorf("%s %s: status %d with Content-Type %q", method, path, a.status, ct)
		} else if err := json.Unmarshal([]byte(a.body), &a.problem); err != nil || a.problem.Status != a.status || a.problem.Detail == "" || a.problem.Title == "" || a.kind() == "" {
			f.t.Errorf("%s %s: not a problem: %v %s", method, path, err, a.body)
		}
		f.noTokenIn("an error's body", a.body)
	}
	return a
}

// ok is do for what must succeed; the answer is decoded into out, if not nil.
func (f *fixture) ok(method, path, body string, out any) *answer {
	f.t.Helper()
	a := f.do(method, path, f.key, body)
	if a.status >= 300 {
		f.t.Fatalf("%s %s %s: %d %s", method, path, body, a.status, a.body)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(a.body), out); err != nil {
			f.t.Fatalf("%s %s: %v in %s", method, path, err, a.body)
		}
	}
	return a
}

// signIn makes a session over the API.
func (f *fixture) signIn(body string) Created {
	f.t.Helper()
	var c Created
	f.ok("POST", "/v1/sessions", body, &c)
	f.issued(c.Token)
	return c
}

// validate asks whether the token is good.
func (f *fixture) validate(token string) Verdict {
	f.t.Helper()
	var v Verdict
	f.ok("POST", "/v1/validate", `{"token":"`+token+`"}`, &v)
	return v
}
