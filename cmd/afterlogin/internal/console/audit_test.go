package console

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
)

func TestAudit(t *testing.T) {
	h := newHouse(t)
	admin := h.enter(entrance.Admin, "tom")
	v := h.enter(entrance.Viewer, "mia")
	s, other := h.signIn("ada"), h.signIn("kim")
	admin.want("/console/sessions/"+string(s.Session.ID)+"?done=session-revoked", "/console/sessions/"+string(s.Session.ID)+"/revoke")
	v.eventually("/console/audit", "api.revoke-session")
	v.eventually("/console/audit?subject=ada", "ended by an administrator")
	for query, c := range map[string]struct{ has, not string }{
		"subject=ada":                         {"session.created", "kim"},
		"session=" + string(other.Session.ID): {"kim", "ada"},
		"actor=console/tom":                   {"api.revoke-session", "kim"},
		"type=api.*":                          {"api.revoke-session", "session.created "},
		"type=session.revoked":                {"session.revoked", "session.created "},
		"since=2099-01-01T00:00":              {"Nothing like this is in the log", "kim"},
		"until=2001-01-01":                    {"Nothing like this is in the log", "kim"},
		"since=2001-01-01+00:00&subject=kim":  {"kim", "ada"},
	} {
		page := words(tableOf(v.page("/console/audit?" + query)))
		if !strings.Contains(page, c.has) || strings.Contains(page, c.not) {
			t.Errorf("%s: want %q and not %q: %s", query, c.has, c.not, page)
		}
	}
	for query, fault := range map[string]string{
		"since=yesterday": "e-since", "until=2026-13-01T00:00": "e-until", "type=a*b": "e-type", "since=2026-02-01T00:00&until=2026-01-01T00:00": "e-until",
	} {
		a := v.get("/console/audit?" + query)
		if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `id="`+fault+`"`) {
			t.Errorf("%s: %d %s", query, a.status, words(a.body))
		}
	}
	if a := v.get("/console/audit?cursor=x"); a.status != http.StatusBadRequest {
		t.Errorf("a cursor that is none: %d", a.status)
	}
}

// tableOf returns the page's table.
func tableOf(page string) string {
	_, rest, _ := strings.Cut(page, "<tbody>")
	table, _, _ := strings.Cut(rest, "</tbody>")
	if table == "" {
		return page
	}
	return table
}

func TestAuditPages(t *testing.T) {
	h := newHouse(t)
	v := h.enter(entrance.Viewer, "mia")
	for range 60 {
		h.signIn("ada")
	}
	h.signIn("last")
	v.eventually("/console/audit", "last")
	first := v.page("/console/audit?subject=ada")
	if n := strings.Count(first, ">ada<"); n != 50 {
		t.Fatalf("%d rows on the first page", n)
	}
	_, next, ok := strings.Cut(first, `href="?cursor=`)
	next, _, _ = strings.Cut(next, `"`)
	if !ok {
		t.Fatal("no next page")
	}
	second := v.page("/console/audit?cursor=" + strings.ReplaceAll(next, "&amp;", "&"))
	if n := strings.Count(second, ">ada<"); n != 10 || strings.Contains(second, "Next page") || !strings.Contains(second, "First page") {
		t.Errorf("%d rows on the second page", n)
	}
}

func TestAuditExport(t *testing.T) {
	h := newHouse(t)
	v := h.enter(entrance.Viewer, "mia")
	h.signIn("ada")
	h.signIn("kim")
	v.eventually("/console/audit", "kim")
	if page := v.page("/console/audit?subject=ada&since=2001-01-01T00:00"); !strings.Contains(page, `href="/console/audit/export?since=2001-01-01T00%3A00%3A00Z&amp;subject=ada"`) {
		t.Error("the export does not have the filters")
	}
	for path, want := range map[string]int{"/console/audit/export": 4, "/console/audit/export?subject=ada": 1, "/console/audit/export?subject=nobody": 0} {
		a := v.get(path)
		if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/x-ndjson" || !strings.HasPrefix(a.header.Get("Content-Disposition"), `attachment; filename="audit-`) ||
			a.header.Get("Content-Security-Policy") != policyText {
			t.Fatalf("%s: %d %v", path, a.status, a.header)
		}
		h.clean(path, a.body)
		lines := strings.Split(strings.TrimSuffix(a.body, "\n"), "\n")
		if a.body == "" {
			lines = nil
		}
		if len(lines) < want || want < 2 && len(lines) != want {
			t.Errorf("%s: %d lines", path, len(lines))
		}
		for _, l := range lines {
			var e struct {
				Hash, Subject string
				Seq           int
			}
			if err := json.Unmarshal([]byte(l), &e); err != nil || e.Seq == 0 || e.Hash == "" || strings.Contains(path, "ada") && e.Subject != "ada" {
				t.Errorf("%s: %v %s", path, err, l)
			}
		}
	}
	// A problem is a page, not a file.
	if a := v.get("/console/audit/export?since=x"); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.header.Get("Content-Type"), "text/html") || a.header.Get("Content-Disposition") != "" {
		t.Errorf("a bad filter: %d %v", a.status, a.header)
	}
	if a := v.get("/console/audit/export?type=a*b"); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.header.Get("Content-Type"), "text/html") {
		t.Errorf("a filter that the API refuses: %d %v", a.status, a.header)
	}
	if a := h.browser().get("/console/audit/export"); a.status != http.StatusUnauthorized {
		t.Errorf("a stranger: %d", a.status)
	}
}

func TestAuditVerify(t *testing.T) {
	h := newHouse(t)
	v := h.enter(entrance.Viewer, "mia")
	h.signIn("ada")
	v.eventually("/console/audit", "ada")
	a := v.post("/console/audit/verify")
	if a.status != http.StatusOK || !strings.Contains(words(a.body), "In order: nothing in it was changed") {
		t.Fatalf("%d %s", a.status, words(a.body))
	}
	if a := v.send("/console/audit/verify", url.Values{}, nil); a.status != http.StatusForbidden {
		t.Errorf("without a CSRF token: %d", a.status)
	}
	// One letter of one line is enough.
	files, err := filepath.Glob(filepath.Join(h.auditDir, "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files of the log: %v", err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], bytes.Replace(b, []byte(`"ada"`), []byte(`"eve"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	a = v.post("/console/audit/verify")
	if a.status != http.StatusOK || !strings.Contains(words(a.body), "Not in order: 1 problem was found") || !strings.Contains(a.body, filepath.Base(files[0])) || !strings.Contains(a.body, `role="alert"`) {
		t.Errorf("after a change: %d %s", a.status, words(a.body))
	}
}

// A server without a part does not offer it, and says so to who asks nevertheless.
func TestPartsThatAreNotThere(t *testing.T) {
	h := newHouse(t)
	b := h.enter(entrance.Admin, "tom")
	bare, err := New(Options{Authority: h.a, API: api.New(h.a, api.Options{Console: h.entrance, Now: h.now}), Entrance: h.entrance, PlainLoopback: true, Now: h.now})
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	h.server.Config.Handler = bare
	page := b.page("/console/events")
	for _, path := range []string{"/audit", "/webhooks", "/revocations"} {
		if strings.Contains(page, `href="/console`+path) {
			t.Errorf("%s is offered", path)
		}
		if a := b.get("/console" + path); a.status != http.StatusNotFound || !strings.Contains(words(a.body), "not configured") {
			t.Errorf("%s: %d %s", path, a.status, words(a.body))
		}
	}
	b.says("/console/rehearsal", "Nothing is rehearsed", "None: anybody may have any number of sessions")
	h.server.Config.Handler = h.console
}
