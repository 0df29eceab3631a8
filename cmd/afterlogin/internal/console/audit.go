package console

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// auditData is what the page of the audit log shows.
type auditData struct {
	Rows     []*api.AuditEntry
	Next     string
	Damaged  int
	Types    []string
	Filtered bool
	Export   string // the query of the export
}

// auditFields are the fields by which the audit log is filtered.
var auditFields = []string{"subject", "session", "actor", "type", "since", "until"}

// audit shows the audit log.
func (v *visit) audit() error {
	d := auditData{Types: auditTypes()}
	q, err := v.auditQuery()
	d.Filtered = len(q) > 0
	if len(q) > 0 {
		d.Export = "?" + q.Encode()
	}
	if err != nil {
		return v.again("audit", "Audit log", d, err)
	}
	q.Set("limit", pageSize)
	if c := v.r.URL.Query().Get("cursor"); c != "" {
		q.Set("cursor", c)
	}
	var list api.AuditList
	if err := v.get("/v1/audit", q, &list); err != nil {
		return v.again("audit", "Audit log", d, err)
	}
	d.Rows, d.Next, d.Damaged = list.Data, list.Next, list.Damaged
	return v.show("audit", "Audit log", d)
}

// auditQuery returns the filters as the API wants them. Times without a zone are UTC.
func (v *visit) auditQuery() (url.Values, error) {
	q := v.query(auditFields...)
	for _, name := range []string{"since", "until"} {
		text := q.Get(name)
		if text == "" {
			continue
		}
		t, ok := readTime(text)
		if !ok {
			q.Del(name)
			return q, fieldProblem(name, "is no time: write it as 2026-02-28T09:00, in UTC")
		}
		q.Set(name, t.Format(time.RFC3339))
	}
	return q, nil
}

// readTime reads a time as browsers send it, and as people write it.
func readTime(text string) (time.Time, bool) {
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02 15:04:05", time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// auditTypes are the types of entries that are offered.
func auditTypes() []string { return append([]string{"api.*", "audit.*"}, eventTypes()...) }

// verifyAudit checks the audit log, and shows what came of it. Nothing is changed by it, so that a reload may repeat it.
func (v *visit) verifyAudit() error {
	var report api.AuditReport
	if err := v.post("/v1/audit/verify", nil, &report); err != nil {
		return err
	}
	return v.show("audit-report", "The audit log, checked", report)
}

// exportAudit answers with the lines of the audit log, as a file.
func (v *visit) exportAudit() error {
	q, err := v.auditQuery()
	if err != nil {
		return err
	}
	r, err := v.request(v.r.Context(), http.MethodGet, "/v1/audit/export", q, nil)
	if err != nil {
		return err
	}
	r.Method = v.r.Method // HEAD, too
	w := &download{to: v.w, name: "audit-" + v.c.now().UTC().Format("20060102-150405") + ".jsonl"}
	v.c.o.API.ServeHTTP(w, r)
	return w.problem()
}

// download is the http.ResponseWriter of an answer of the API that is handed on as a file, if it is no problem.
type download struct {
	to      http.ResponseWriter
	name    string
	header  http.Header
	begun   bool
	refused recorder
}

func (d *download) Header() http.Header {
	if d.begun {
		return d.to.Header()
	}
	if d.header == nil {
		d.header = make(http.Header)
	}
	return d.header
}

func (d *download) WriteHeader(status int) {
	switch {
	case status < 200 || d.begun || d.refused.status != 0:
	case status >= 300:
		d.refused.WriteHeader(status)
	default:
		d.begun = true
		h := d.to.Header()
		h.Set("Content-Type", d.header.Get("Content-Type"))
		h.Set("Content-Disposition", `attachment; filename="`+strings.ReplaceAll(d.name, `"`, "")+`"`)
		d.to.WriteHeader(status)
	}
}

func (d *download) Write(b []byte) (int, error) {
	if d.refused.status == 0 {
		d.WriteHeader(http.StatusOK)
	}
	if d.refused.status != 0 {
		return d.refused.Write(b)
	}
	return d.to.Write(b)
}

// Unwrap is for http.ResponseController.
func (d *download) Unwrap() http.ResponseWriter { return d.to }

// problem returns what the API refused with. An answer without a byte is an empty file.
func (d *download) problem() error {
	if d.refused.status != 0 {
		return d.refused.problem()
	}
	d.WriteHeader(http.StatusOK)
	return nil
}
