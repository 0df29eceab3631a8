package console

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
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
	"github.com/afterlogin/afterlogin/store/storetest"
)

// house is a console on a real API on a real authority, behind a real server on this machine.
type house struct {
	t        *testing.T
	a        *afterlogin.Authority
	faulty   *storetest.Faulty
	ring     *keyring.Ring
	api      *api.API
	entrance *entrance.Entrance
	console  *Console
	trail    *audit.Log
	server   *httptest.Server
	log      *safeBuffer
	auditDir string

	mu     sync.Mutex
	ahead  time.Duration
	secret []string // what must stand in no page and no log line
}

// safeBuffer is a bytes.Buffer for a logger and a test at once.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (h *house) now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Add(h.ahead)
}

// later moves the clock.
func (h *house) later(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ahead += d
}

func newHouse(t *testing.T, change ...func(*afterlogin.Config)) *house {
	t.Helper()
	h := &house{t: t, log: &safeBuffer{}, ring: keyring.New()}
	inner := memstore.New()
	h.faulty = storetest.NewFaulty(inner, nil)
	log := slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var p *pulse.Pulse
	trial := rehearsal.New(rehearsal.Options{
		Policies: afterlogin.DefaultPolicies(), Node: "a", Now: h.now,
		Limits: map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindSession: {Max: 2, AtLimit: afterlogin.EndOldest}},
	})
	var err error
	config := afterlogin.Config{
		Store: store.Store(h.faulty), Keys: h.ring, Issuer: "https://auth.example", Now: h.now, Logger: log, Rehearsal: trial.Config(),
		Observe: func(e afterlogin.Event) {
			h.mu.Lock()
			seen := p
			h.mu.Unlock()
			if seen != nil {
				seen.Observe(e)
			}
		},
	}
	for _, f := range change {
		f(&config)
	}
	h.a, err = afterlogin.New(config)
	if err != nil {
		t.Fatal(err)
	}
	h.auditDir = t.TempDir()
	h.trail = must[*audit.Log](h)(audit.New(audit.Options{Authority: h.a, Keys: h.ring, Dir: h.auditDir, Node: "a", Keep: 24 * time.Hour, Logger: log, Now: h.now}))
	index := must[*roster.Roster](h)(roster.New(roster.Options{Authority: h.a, Max: 1000, Logger: log, Now: h.now}))
	live := func() *pulse.Live {
		n, ok := index.Counts()
		if !ok {
			return nil
		}
		l := &pulse.Live{Complete: true, At: h.now(), Total: n.Live, Kinds: make(map[string]int), Policies: n.Policies}
		for k, count := range n.Kinds {
			l.Kinds[k.String()] = count
		}
		return l
	}
	made := must[*pulse.Pulse](h)(pulse.New(pulse.Options{Stats: h.a.Stats, Live: live, Node: "a", Store: "memory", Now: h.now, Ready: func(context.Context) string { return "" }}))
	hooks := must[*webhook.Webhooks](h)(webhook.New(webhook.Options{Authority: h.a, Keys: h.ring, Loopback: true, Node: "a", Logger: log, Now: h.now}))
	jobs := must[*revocation.Revocations](h)(revocation.New(revocation.Options{Authority: h.a, Node: "a", Logger: log, Now: h.now}))
	h.mu.Lock()
	p = made
	h.mu.Unlock()
	list := must[*users.Users](h)(users.New(users.Options{Authority: h.a, Keys: h.ring, Now: h.now, Logger: log, Params: users.Params{Memory: 64, Time: 1, Threads: 1}}))
	h.entrance = must[*entrance.Entrance](h)(entrance.New(entrance.Options{Authority: h.a, Now: h.now}))
	h.api = api.New(h.a, api.Options{
		Logger: log, Now: h.now, Keys: h.ring, Users: list, Console: h.entrance, Pulse: made, Node: "a", Audit: h.trail, Roster: index, Webhooks: hooks, Revocations: jobs, Rehearsal: trial,
		Settings: func() []api.Setting {
			return []api.Setting{{Key: "listen", Value: "127.0.0.1:7070", Source: "default", Doc: "Where to answer."}, {Key: "master_key", Value: "(hidden)", Source: "environment"},
				{Key: "session_limits.session.max", Value: "5", Source: "auth.toml:3", Doc: "How many sessions."}}
		},
	})
	h.console, err = New(Options{Authority: h.a, API: h.api, Entrance: h.entrance, PlainLoopback: true, Logger: log, Now: h.now, Node: "a", Version: "v0"})
	if err != nil {
		t.Fatal(err)
	}
	h.server = httptest.NewServer(h.console)
	t.Cleanup(func() {
		h.api.EndStreams()
		h.console.Close()
		h.server.Close()
		made.Close()
		jobs.Close()
		hooks.Close()
		index.Close()
		h.trail.Close()
		h.a.Close()
		inner.Close()
		h.clean("the log", h.log.String())
		if t.Failed() && testing.Verbose() {
			t.Log(h.log.String())
		}
	})
	return h
}

// keep remembers a secret, which must not turn up anywhere else.
func (h *house) keep(s string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.secret = append(h.secret, s)
	return s
}

// likeSecret matches what could be a token, a link or a JWT.
var likeSecret = regexp.MustCompile(`al[a-z]_[A-Za-z0-9_-]{30,}|eyJ[A-Za-z0-9_-]{10,}\.`)

func (h *house) clean(where, text string) {
	h.t.Helper()
	if found := likeSecret.FindString(text); found != "" {
		h.t.Errorf("%s holds what looks like a secret: %.12s…", where, found)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.secret {
		if strings.Contains(text, s) {
			h.t.Errorf("%s holds a secret: %.12s…", where, s)
		}
	}
}

// signIn makes a session of an application.
func (h *house) signIn(subject string) afterlogin.Issued {
	h.t.Helper()
	got, err := h.a.Issue(h.t.Context(), afterlogin.IssueRequest{Subject: subject, Device: afterlogin.Client{UserAgent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}})
	if err != nil {
		h.t.Fatal(err)
	}
	h.keep(got.Token.Reveal())
	return got
}

// key makes an API key with the scopes.
func (h *house) key(scopes ...string) string {
	h.t.Helper()
	got, err := h.a.Issue(h.t.Context(), afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "shop", Scopes: scopes})
	if err != nil {
		h.t.Fatal(err)
	}
	return h.keep(got.Token.Reveal())
}

// link makes a link, and returns its path.
func (h *house) link(role entrance.Role, name string) string {
	h.t.Helper()
	l, err := h.entrance.MakeLink(h.t.Context(), entrance.LinkRequest{Role: role, Name: name})
	if err != nil {
		h.t.Fatal(err)
	}
	u, err := url.Parse(l.URL)
	if err != nil {
		h.t.Fatal(err)
	}
	h.keep(u.Query().Get(entrance.Param))
	return l.URL
}

// browser is somebody's browser: it keeps cookies and follows no redirect unless it is told to.
type browser struct {
	h    *house
	http *http.Client
	csrf string
}

func (h *house) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return &browser{h: h, http: &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// answer is what a browser got.
type answer struct {
	status int
	header http.Header
	body   string
}

// location is where a redirect leads.
func (a answer) location() string { return a.header.Get("Location") }

func (b *browser) do(r *http.Request) answer {
	b.h.t.Helper()
	resp, err := b.http.Do(r)
	if err != nil {
		b.h.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.h.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (b *browser) get(path string) answer {
	b.h.t.Helper()
	r, err := http.NewRequestWithContext(b.h.t.Context(), http.MethodGet, b.h.server.URL+path, nil)
	if err != nil {
		b.h.t.Fatal(err)
	}
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return b.do(r)
}

// page is get for a page that must be there; it is searched for secrets.
func (b *browser) page(path string) string {
	b.h.t.Helper()
	a := b.get(path)
	if a.status != http.StatusOK {
		b.h.t.Fatalf("GET %s: %d %s", path, a.status, words(a.body))
	}
	b.h.clean(path, a.body)
	return a.body
}

// post sends a form, with the CSRF token of the person.
func (b *browser) post(path string, fields ...string) answer {
	b.h.t.Helper()
	form := url.Values{"csrf_token": {b.csrf}}
	for i := 0; i+1 < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	return b.send(path, form, nil)
}

func (b *browser) send(path string, form url.Values, header http.Header) answer {
	b.h.t.Helper()
	r, err := http.NewRequestWithContext(b.h.t.Context(), http.MethodPost, b.h.server.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for k, v := range header {
		r.Header[k] = v
	}
	return b.do(r)
}

var csrfField = regexp.MustCompile(`name="csrf_token" value="([^"]+)"`)

// enter opens a link and goes through the door.
func (h *house) enter(role entrance.Role, name string) *browser {
	h.t.Helper()
	b := h.browser()
	if a := b.get(h.link(role, name)); a.status != http.StatusSeeOther || a.location() != "/console/enter" {
		h.t.Fatalf("the link: %d to %q", a.status, a.location())
	}
	b.page("/console/enter")
	if a := b.send("/console/enter", url.Values{}, nil); a.status != http.StatusSeeOther || a.location() != "/console/" {
		h.t.Fatalf("the door: %d to %q: %s", a.status, a.location(), words(a.body))
	}
	m := csrfField.FindStringSubmatch(b.page("/console/"))
	if m == nil {
		h.t.Fatal("the overview has no CSRF token")
	}
	b.csrf = m[1]
	return b
}

// session returns the handle of the person's own session.
func (b *browser) session() string {
	b.h.t.Helper()
	own := regexp.MustCompile(`href="/console/sessions/(ses_[A-Za-z0-9_-]+)">[^<]*</a> <span class="quiet">you`).FindStringSubmatch(b.page("/console/people"))
	if own == nil {
		b.h.t.Fatal("the people page does not say who one is")
	}
	return own[1]
}

var tags = regexp.MustCompile(`(?s)<(script|style|svg).*?</(script|style|svg)>|<[^>]*>`)

// words returns what a page says, without its tags.
func words(page string) string {
	return strings.Join(strings.Fields(tags.ReplaceAllString(page, " ")), " ")
}

// call asks the API with a key.
func (h *house) call(key, method, path string, in any) (int, string) {
	h.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			h.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	r := httptest.NewRequestWithContext(h.t.Context(), method, path, body)
	r.Header.Set("X-Api-Key", key)
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	h.api.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}
