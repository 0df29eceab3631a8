package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/audit"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// acts returns the entries of the type, newest first.
func (f *fixture) acts(typ string) (out []*AuditEntry) {
	f.t.Helper()
	var list AuditList
	f.ok("GET", "/v1/audit?limit=1000&type="+url.QueryEscape(typ), "", &list)
	return list.Data
}

// What an administrator does is in the log when it is answered: who, what, about whom, and how it ended. What an
// application does all day is there as events.
func TestActs(t *testing.T) {
	f := newFixture(t, memstore.New())
	key, err := f.a.Validate(t.Context(), afterlogin.TokenFrom(f.key), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}})
	if err != nil {
		t.Fatal(err)
	}
	mia := f.signIn(`{"subject":"mia"}`)
	f.validate(mia.Token)
	if got := f.acts("api.*"); len(got) != 0 {
		t.Errorf("a sign-in is an act: %+v", got[0])
	}
	f.ok("DELETE", "/v1/sessions/"+mia.Session.ID, "", nil)
	f.ok("DELETE", "/v1/subjects/tom/sessions?scope=everything", "", nil)
	f.ok("POST", "/v1/users", `{"name":"tom","password":"correct horse battery"}`, nil)
	f.do("POST", "/v1/users", f.key, `{"name":"tom","password":"correct horse battery"}`)
	f.do("POST", "/v1/users", f.key, `{"name":7}`) // has no form: it was no act
	f.ok("GET", "/v1/keys", "", nil)
	f.ok("GET", "/v1/backup", "", nil)
	f.ok("GET", "/v1/audit/export", "", nil)
	f.do("POST", "/v1/keys/rotate", f.apiKey(SessionsRead), `{}`) // may not
	f.do("POST", "/v1/keys/rotate", "", `{}`)                     // nobody
	got := f.acts("api.*")
	want := []struct {
		typ     string
		status  int
		reason  string
		subject string
		session string
	}{
		{"api.rotate-signing-key", 403, "insufficient-scope", "", ""},
		{"api.export-audit-log", 200, "", "", ""},
		{"api.backup", 200, "", "", ""},
		{"api.list-signing-keys", 200, "", "", ""},
		{"api.create-user", 409, "user-exists", "", ""},
		{"api.create-user", 201, "", "", ""},
		{"api.revoke-subject-sessions", 204, "", "tom", ""},
		{"api.revoke-session", 204, "", "", mia.Session.ID},
	}
	if len(got) != len(want) {
		t.Fatalf("%d acts, want %d", len(got), len(want))
	}
	for i, w := range want {
		e := got[i]
		if e.Type != w.typ || e.Status != w.status || e.Reason != w.reason || e.Subject != w.subject || e.Session != w.session || e.Node != "east-1" || e.Hash == "" || e.At.IsZero() {
			t.Errorf("%+v, want %+v", e, w)
		}
		if (e.Actor == string(key.ID)) != (w.status != 403) || !strings.HasPrefix(e.Actor, "key_") {
			t.Errorf("%s by %s", e.Type, e.Actor)
		}
	}
	if e := got[6]; e.Detail != "DELETE /v1/subjects/tom/sessions?scope=everything" {
		t.Errorf("%q", e.Detail)
	}
	// Through the handler in this process it is who the context says.
	r := httptest.NewRequestWithContext(As(afterlogin.WithActor(t.Context(), "console/mia"), &afterlogin.Session{Scopes: []string{string(UsersWrite)}}), "PATCH", "/v1/users/tom", strings.NewReader(`{"disabled":true}`))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	f.api.ServeHTTP(w, r)
	if e := f.acts("api.change-user"); w.Code != 200 || len(e) != 1 || e[0].Actor != "console/mia" || e[0].Target != "tom" {
		t.Errorf("%d %s %+v", w.Code, w.Body, e)
	}
	r = httptest.NewRequestWithContext(As(afterlogin.WithActor(t.Context(), "console/mia"), &afterlogin.Session{Scopes: []string{string(UsersRead)}}), "PATCH", "/v1/users/tom", strings.NewReader(`{"disabled":false}`))
	r.Header.Set("Content-Type", "application/json")
	w = httptest.NewRecorder()
	f.api.ServeHTTP(w, r)
	if e := f.acts("api.change-user"); w.Code != 403 || len(e) != 2 || e[0].Actor != "console/mia" || e[0].Status != 403 {
		t.Errorf("%d %s %+v", w.Code, w.Body, e)
	}
}

// While the log cannot be written nothing is given out, and what ends something is done and not said to be done.
func TestActsWithoutALog(t *testing.T) {
	f := newFixture(t, memstore.New())
	dir := filepath.Join(t.TempDir(), "log")
	log, err := audit.New(audit.Options{Authority: f.a, Keys: f.ring, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	mia := f.signIn(`{"subject":"mia"}`)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) { // or its event is the first to notice
		page, err := log.List(t.Context(), audit.Query{Type: "session.created"})
		if err != nil || time.Now().After(end) {
			t.Fatal("the sign-in is not in the log", err)
		}
		if len(page.Entries) > 0 {
			break
		}
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	backups := 0
	f.api = New(f.a, Options{Keys: f.ring, Users: f.list, Audit: log, Settings: func() []Setting { return nil }, Backup: func(_ context.Context, w io.Writer) error {
		backups++
		_, err := io.WriteString(w, "all of it")
		return err
	}})
	reads := map[string]string{"/v1/backup": "GET", "/v1/config": "GET", "/v1/keys": "GET", "/v1/audit/export": "GET", "/v1/audit/verify": "POST"}
	unavailable := func(a *answer, detail string) {
		t.Helper()
		if a.status != 503 || a.kind() != "audit-unavailable" || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, detail) {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	// The first to notice has done it already, and hands nothing out.
	a := f.do("POST", "/v1/api-keys", f.key, `{"subject":"robot"}`)
	unavailable(a, "it was done")
	if strings.Contains(a.body, "alk_") {
		t.Error("a key was handed out")
	}
	before := 0
	for range f.list.All(t.Context()) {
		before++
	}
	unavailable(f.do("POST", "/v1/users", f.key, `{"name":"eve","password":"correct horse battery"}`), "is not done")
	for range f.list.All(t.Context()) {
		before--
	}
	if before != 0 {
		t.Error("a user was made")
	}
	unavailable(f.do("DELETE", "/v1/sessions/"+mia.Session.ID, f.key, ""), "it was done")
	if f.validate(mia.Token).Active {
		t.Error("the session was not ended")
	}
	f.signIn(`{"subject":"tom"}`) // people come and go
	f.ok("GET", "/v1/sessions?subject=tom", "", nil)
	for path, method := range reads {
		unavailable(f.do(method, path, f.key, ""), "is not done")
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); log.Failing() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) { // a disk has no fake time
			t.Fatal(log.Failing())
		}
	}
	f.ok("POST", "/v1/users", `{"name":"eve","password":"correct horse battery"}`, nil)
	for path, method := range reads {
		f.ok(method, path, "", nil)
	}
	if backups != 1 {
		t.Errorf("%d backups", backups)
	}
}

// A read that is the first to notice is not answered.
func TestReadsWithoutALog(t *testing.T) {
	for path, method := range map[string]string{"/v1/backup": "GET", "/v1/config": "GET", "/v1/keys": "GET", "/v1/audit/export": "GET", "/v1/audit/verify": "POST"} {
		f := newFixture(t, memstore.New())
		dir := filepath.Join(t.TempDir(), "log")
		log, err := audit.New(audit.Options{Authority: f.a, Keys: f.ring, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { log.Close() })
		f.api = New(f.a, Options{Keys: f.ring, Audit: log, Settings: func() []Setting { return nil }, Backup: func(context.Context, io.Writer) error {
			t.Error("a backup was made")
			return nil
		}})
		if path == "/v1/audit/verify" { // it is there to be read, and cannot be written
			log.Close()
		} else if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		a := f.do(method, path, f.key, "")
		if a.status != 503 || a.kind() != "audit-unavailable" || a.header.Get("Content-Type") != "application/problem+json" || a.header.Get("Content-Disposition") != "" {
			t.Errorf("%s: %d %v %s", path, a.status, a.header, a.body)
		}
	}
}

// lazy takes an answer slowly.
type lazy struct {
	*httptest.ResponseRecorder
	each time.Duration
}

func (l lazy) Write(b []byte) (int, error) {
	time.Sleep(l.each)
	return l.ResponseRecorder.Write(b)
}

// Who takes an export or a backup too slowly is cut off, so that it is the next one's turn.
func TestTooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		ring := keyring.New()
		a, err := afterlogin.New(afterlogin.Config{Store: s, Keys: ring})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		defer a.Close()
		log, err := audit.New(audit.Options{Authority: a, Keys: ring, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		for range 2000 {
			if err := log.Record(t.Context(), audit.Entry{Type: "api.x", Detail: strings.Repeat("x", 400)}); err != nil {
				t.Fatal(err)
			}
		}
		api := New(a, Options{Audit: log, Backup: func(ctx context.Context, w io.Writer) error {
			for range 1000 {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return err
				}
			}
			return nil
		}})
		take := func(path string, each time.Duration) (whole bool) {
			defer func() { whole = recover() == nil }()
			r := httptest.NewRequestWithContext(As(t.Context(), &afterlogin.Session{Scopes: []string{string(Admin), string(AuditRead)}}), "GET", path, nil)
			api.ServeHTTP(lazy{httptest.NewRecorder(), each}, r)
			return
		}
		for _, path := range []string{"/v1/audit/export", "/v1/backup"} {
			began := time.Now()
			if take(path, 20*time.Second) || time.Since(began) > 2*time.Minute {
				t.Errorf("%s: it took %v", path, time.Since(began))
			}
			if !take(path, 400*time.Millisecond) {
				t.Errorf("%s: it was cut off", path)
			}
		}
	})
}

func TestAuditAPI(t *testing.T) {
	f := newFixture(t, memstore.New())
	for range 5 {
		f.ok("DELETE", "/v1/subjects/mia/sessions", "", nil)
	}
	// Pages.
	var seqs []uint64
	path := "/v1/audit?type=api.*&limit=2"
	for next := ""; ; {
		var list AuditList
		f.ok("GET", path+next, "", &list)
		for _, e := range list.Data {
			seqs = append(seqs, e.Seq)
		}
		if list.Next == "" {
			break
		}
		next = "&cursor=" + url.QueryEscape(list.Next)
	}
	if len(seqs) != 5 {
		t.Errorf("%v", seqs)
	}
	for i := range len(seqs) - 1 {
		if seqs[i] <= seqs[i+1] {
			t.Errorf("%v", seqs)
		}
	}
	// Export: the lines as they are, and nothing else.
	a := f.ok("GET", "/v1/audit/export?actor=nobody", "", nil)
	if a.body != "" || a.header.Get("Content-Type") != "application/x-ndjson" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v %q", a.header, a.body)
	}
	a = f.ok("GET", "/v1/audit/export?subject=mia&type=api.*&since=2020-01-01T00:00:00Z", "", nil)
	n := 0
	for line := range strings.Lines(a.body) {
		var e audit.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Subject != "mia" || e.Hash == "" || e.Prev == "" {
			t.Errorf("%v %s", err, line)
		}
		n++
	}
	if n != 5 {
		t.Errorf("%d lines", n)
	}
	// Verify.
	var report AuditReport
	a = f.ok("POST", "/v1/audit/verify", "", &report)
	if !report.InOrder || report.Count != 0 || report.Last < 7 || len(report.Compared) == 0 || report.Problems == nil || report.Node != "east-1" {
		t.Errorf("%s", a.body)
	}
	for path, want := range map[string]string{
		"/v1/audit?cursor=nonsense": "bad-cursor",
		"/v1/audit?limit=1001":      "invalid-request",
		"/v1/audit?since=yesterday": "invalid-request",
		"/v1/audit?type=a*b*":       "invalid-request",
		"/v1/audit?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z": "invalid-request",
		"/v1/audit?what=1":                                     "invalid-request",
		"/v1/audit/export?since=yesterday":                     "invalid-request",
		"/v1/audit/export?what=1":                              "invalid-request",
		"/v1/audit/export?type=a*b":                            "invalid-request",
		"/v1/audit/export?subject=" + strings.Repeat("x", 257): "invalid-request",
		"/v1/audit?subject=" + strings.Repeat("x", 257):        "invalid-request",
		"/v1/audit/export?subject=a&subject=b":                 "bad-query",
		"/v1/audit/export?cursor=x":                            "invalid-request",
	} {
		if a := f.do("GET", path, f.key, ""); a.kind() != want || a.status >= 500 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, path := range []string{"/v1/audit/verify?x=1"} {
		if a := f.do("POST", path, f.key, ""); a.kind() != "invalid-request" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := f.do("POST", "/v1/audit/verify", f.key, `{}`); a.kind() != "invalid-request" {
		t.Errorf("a body: %d %s", a.status, a.body)
	}
	// A server without a log says so.
	f.api = New(f.a, Options{})
	for path, method := range map[string]string{"/v1/audit": "GET", "/v1/audit/export": "GET", "/v1/audit/verify": "POST"} {
		if a := f.do(method, path, f.key, ""); a.status != 404 || a.kind() != "not-configured" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// A log that is not as it was written is no error of the API, and is said.
func TestVerifyFinds(t *testing.T) {
	f := newFixture(t, memstore.New())
	dir := t.TempDir()
	log, err := audit.New(audit.Options{Authority: f.a, Keys: f.ring, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	f.api = New(f.a, Options{Keys: f.ring, Audit: log})
	f.ok("DELETE", "/v1/subjects/mia/sessions", "", nil)
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-200] ^= 1
	os.WriteFile(names[0], b, 0o600)
	var report AuditReport
	a := f.ok("POST", "/v1/audit/verify", "", &report)
	if report.InOrder || report.Count == 0 || report.Problems[0].File != filepath.Base(names[0]) || report.Problems[0].Line < 2 {
		t.Errorf("%s", a.body)
	}
}

// What is told apart by its name is there: a call that was given another name would be left out, or in.
func TestActsAreNamed(t *testing.T) {
	f := newFixture(t, memstore.New())
	methods := make(map[string]string)
	for _, item := range f.api.huma.OpenAPI().Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete} {
			if op != nil {
				methods[op.OperationID] = method
			}
		}
	}
	for id := range everyday {
		if m := methods[id]; m == "" || m == "GET" {
			t.Errorf("everyday names %s, which is %q", id, m)
		}
	}
	for id := range sensitive {
		if methods[id] == "" {
			t.Errorf("sensitive names %s, which there is not", id)
		}
	}
	r := httptest.NewRequest("DELETE", "/", nil)
	r.SetPathValue("id", "x")
	for path, want := range map[string]bool{"/v1/sessions/{id}": true, "/v1/api-keys/{id}": true, "/v1/webhooks/{id}": false, "/v1/clients/{id}": false} {
		if e := f.api.act(route{method: "DELETE", path: path, id: "y"}, r).entry; (e.Session == "x") != want || (e.Target == "x") == want {
			t.Errorf("%s: %+v", path, e)
		}
	}
}
