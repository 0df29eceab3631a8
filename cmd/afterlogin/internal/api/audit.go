package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/audit"
)

// everyday are the calls that applications make for the people who come and go, or that change nothing although they are
// no GET. They are no acts of administration; what they change is in the audit log as an event, with who caused it.
var everyday = map[string]bool{
	"begin-sign-in": true, "create-session": true, "renew-token": true, "validate-token": true, "explain-token": true,
	"create-access-token": true, "create-ticket": true, "redeem-ticket": true,
}

// sensitive are the calls that change nothing and are in the audit log nevertheless: whoever makes them takes away, or
// sees, what others would like to have.
var sensitive = map[string]bool{
	"backup": true, "export-audit-log": true, "verify-audit-log": true, "show-config": true, "list-signing-keys": true,
}

// endings are the words at the end of a path that take something away from somebody. They are done also while the audit log
// cannot be written: who wants somebody out must not have to free a disk first.
var endings = []string{"/revoke", "/retire", "/freeze", "/revocations", "/confirm"}

// An act is a call that is in the audit log.
type act struct {
	changes bool // something
	ends    bool // something, and gives nothing to anybody
	entry   audit.Entry
}

type actKey struct{}

// act returns what the audit log is to say about a request, nil if nothing.
func (a *API) act(r route, req *http.Request) *act {
	reads := r.method == http.MethodGet || r.method == http.MethodHead || sensitive[r.id]
	if a.audit == nil || everyday[r.id] || reads && !sensitive[r.id] {
		return nil
	}
	x := &act{changes: !reads}
	x.ends = r.method == http.MethodDelete || slices.ContainsFunc(endings, func(end string) bool { return strings.HasSuffix(r.path, end) })
	x.entry = audit.Entry{Type: "api." + r.id, Request: RequestID(req.Context()), Detail: req.Method + " " + Redact(req.URL.RequestURI())}
	for _, name := range []string{"id", "sub", "name", "kid"} {
		value := Redact(req.PathValue(name))
		switch {
		case value == "":
		case name == "id" && (strings.HasPrefix(r.path, "/v1/sessions/") || strings.HasPrefix(r.path, "/v1/api-keys/")):
			x.entry.Session = value
		case name == "sub":
			x.entry.Subject = value
		default:
			x.entry.Target = value
		}
	}
	return x
}

// noAudit is the answer while the audit log cannot be written. done says whether the call was done nevertheless.
func noAudit(done bool) *Problem {
	detail := "the audit log cannot be written now, and what is not in it is not done: try again"
	if done {
		detail = "it was done, and could not be written into the audit log: do it again, when that can be written, so that it is there"
	}
	p := NewProblem(http.StatusServiceUnavailable, "audit-unavailable", detail)
	p.header = http.Header{"Retry-After": {"5"}}
	return p
}

// begin says whether an act may begin: while the audit log cannot be written, nothing is changed but what ends something,
// and nothing is given out that the log would name.
func (a *API) begin(x *act) *Problem {
	if x != nil && !x.ends && a.audit.Failing() != nil {
		return noAudit(false)
	}
	return nil
}

// done puts an act into the audit log, with the status of its answer and, if it was refused, why. It returns nil when that
// is durable, and for an act that was refused or failed: that neither changed nor gave out anything.
func (a *API) done(ctx context.Context, x *act, status int, why string) *Problem {
	if x == nil {
		return nil
	}
	x.entry.Status, x.entry.Reason = status, why
	if x.entry.Actor == "" {
		x.entry.Actor = afterlogin.ActorOf(ctx)
	}
	if c := caller(ctx); c != nil && c.Kind == afterlogin.KindSession { // of the console: names can be taken, sessions cannot
		x.entry.Via = string(c.ID)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout) // the client may be gone: it was done
	defer cancel()
	err := a.audit.Record(ctx, x.entry)
	if err == nil {
		return nil
	}
	a.log.ErrorContext(ctx, "an act is not in the audit log", "request_id", RequestID(ctx), "operation", x.entry.Type, "actor", x.entry.Actor, "status", status, "err", err)
	if status >= 300 {
		return nil
	}
	return noAudit(x.changes)
}

// refused puts an act that was not let in into the audit log, if it is known who tried. Strangers could fill it otherwise.
func (a *API) refused(ctx context.Context, x *act, p *Problem) {
	if x == nil || p.Status != http.StatusForbidden {
		return
	}
	if x.entry.Actor = afterlogin.ActorOf(ctx); x.entry.Actor == "" {
		x.entry.Actor = string(p.who)
	}
	if x.entry.Actor == "" {
		return
	}
	a.done(ctx, x, p.Status, p.Kind())
}

// AuditEntry is one entry of the audit log. It holds no secret.
type AuditEntry struct {
	Seq        uint64    `json:"seq" doc:"Its number; 1 is the first."`
	At         time.Time `json:"at" doc:"When it happened. Entries are in the order in which they were written."`
	Type       string    `json:"type" doc:"The type of an event (docs/events.md), api. and an operation's name, or audit. and what the log says of itself."`
	Actor      string    `json:"actor,omitempty" doc:"Who did it: the handle of an API key, console/NAME, self."`
	Via        string    `json:"via,omitempty" doc:"Of a call that somebody made in the console: the session that it was made with. Two people can have one name; no two have one session."`
	Session    string    `json:"session,omitempty" doc:"What it is about: ses_…, key_…, grant_…"`
	Root       string    `json:"root,omitempty" doc:"What that lives under."`
	Tenant     uint32    `json:"tenant,omitempty"`
	Subject    string    `json:"subject,omitempty"`
	Reason     string    `json:"reason,omitempty" doc:"Of an event, its reason; of a call that failed, the kind of the problem."`
	Detail     string    `json:"detail,omitempty" doc:"In plain words; of a call, its method and path."`
	Except     string    `json:"except,omitempty" doc:"Of subject.signed_out: the session that was spared."`
	Everything bool      `json:"everything,omitempty" doc:"Of subject.signed_out: API keys ended, too."`
	Target     string    `json:"target,omitempty" doc:"Of a call: what it is about, if that is neither a session nor a subject."`
	Status     int       `json:"status,omitempty" doc:"Of a call: the HTTP status of its answer."`
	Request    string    `json:"request_id,omitempty" doc:"Of a call: names it in the server's log."`
	Node       string    `json:"node,omitempty" doc:"The server whose log this is."`
	Hash       string    `json:"hash" doc:"Of the line in the log, for comparing."`
}

// NewAuditEntry is the entry as the API shows it.
func NewAuditEntry(e audit.Entry) *AuditEntry {
	return &AuditEntry{
		e.Seq, e.At.UTC(), e.Type, e.Actor, e.Via, e.Session, e.Root, e.Tenant, e.Subject, e.Reason, e.Detail, e.Except, e.Everything,
		e.Target, e.Status, e.Request, e.Node, e.Hash,
	}
}

// AuditList is a page of the audit log, newest first.
type AuditList struct {
	Data    []*AuditEntry `json:"data"`
	Next    string        `json:"next_cursor,omitempty" doc:"The cursor of the next page. Absent on the last. A page is the work of a moment: while something rare is looked for, it may be empty and have a next one."`
	Damaged int           `json:"damaged,omitempty" doc:"How many lines, and segments as a whole, of the log could not be read; POST /v1/audit/verify says more."`
}

// AuditReport says whether the audit log is as it was written.
type AuditReport struct {
	InOrder bool `json:"in_order" doc:"Nothing in it was changed, removed, added or moved, as far as could be compared."`
	audit.Report
}

// AuditFilter says which entries of the audit log are meant.
type AuditFilter struct {
	Subject string    `query:"subject" doc:"Only about this subject." maxLength:"256"`
	Session string    `query:"session" doc:"Only about this handle and what lives under it, and what was done with it in the console." maxLength:"64"`
	Actor   string    `query:"actor" doc:"Only what this one did: key_…, console/NAME, self." maxLength:"128"`
	Type    string    `query:"type" doc:"Only of this type; with * at its end, of the types that begin so: api.*" maxLength:"64"`
	Since   time.Time `query:"since" doc:"Only what happened at this time or later, as 2026-02-28T09:00:00Z."`
	Until   time.Time `query:"until" doc:"Only what happened before this time."`
}

func (f *AuditFilter) query() (audit.Query, error) {
	if strings.Contains(strings.TrimSuffix(f.Type, "*"), "*") {
		return audit.Query{}, invalid("query.type", "the * stands at the end: api.*")
	}
	if !f.Until.IsZero() && f.Until.Before(f.Since) {
		return audit.Query{}, invalid("query.until", "is before since")
	}
	return audit.Query{Subject: f.Subject, Session: f.Session, Actor: f.Actor, Type: f.Type, Since: f.Since, Until: f.Until}, nil
}

type auditListInput struct {
	AuditFilter
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50"`
	Cursor string `query:"cursor" doc:"next_cursor of the page before, with the same filters." maxLength:"128"`
}

func noAuditLog() *Problem {
	return NewProblem(http.StatusNotFound, "not-configured", "this server keeps no audit log")
}

func (a *API) auditRoutes() {
	register(a, route{
		method: http.MethodGet, path: "/v1/audit", scope: AuditRead, id: "list-audit-log", status: http.StatusOK,
		errors: []int{http.StatusNotFound}, summary: "Read the audit log",
		text: "Newest first, page by page. It is the log of the server that answers: all events of the store, and the calls that came to this server.",
	}, a.listAudit)
	a.stream(route{
		method: http.MethodGet, path: "/v1/audit/export", scope: AuditRead, id: "export-audit-log", status: http.StatusOK,
		errors: []int{http.StatusNotFound, http.StatusTooManyRequests}, summary: "Export the audit log",
		text: "The lines of the log as they stand in it, oldest first, one JSON object each; an answer that breaks off is not whole. One export at a time.",
	}, "application/x-ndjson", reflect.TypeFor[AuditEntry](), a.exportAudit, params(reflect.TypeFor[AuditFilter]())...)
	a.stream(route{
		method: http.MethodPost, path: "/v1/audit/verify", scope: AuditRead, id: "verify-audit-log", status: http.StatusOK,
		errors: []int{http.StatusNotFound, http.StatusTooManyRequests}, summary: "Check the audit log",
		text: "Reads all of the log, and compares it with what the server and the store know of its length. It takes about two seconds for a million entries. One check at a time.",
	}, "application/json", reflect.TypeFor[AuditReport](), a.verifyAudit)
}

// params are the parameters of a query that a struct describes, for the document.
func params(t reflect.Type) (out []*huma.Param) {
	for i := range t.NumField() {
		f := t.Field(i)
		s := &huma.Schema{Type: "string"}
		if f.Type == reflect.TypeFor[time.Time]() {
			s.Format = "date-time"
		}
		out = append(out, &huma.Param{Name: f.Tag.Get("query"), In: "query", Description: f.Tag.Get("doc"), Schema: s})
	}
	return out
}

// stream adds a route that answers by itself, for as long as it takes. f may return a problem before its first byte.
func (a *API) stream(r route, media string, body reflect.Type, f func(http.ResponseWriter, *http.Request, route) *Problem, params ...*huma.Param) {
	op := a.operation(r)
	schemas := a.huma.OpenAPI().Components.Schemas
	op.Parameters = params
	op.Responses = map[string]*huma.Response{"200": {Description: http.StatusText(http.StatusOK), Content: map[string]*huma.MediaType{media: {Schema: schemas.Schema(body, true, "")}}}}
	for _, status := range op.Errors {
		op.Responses[fmt.Sprint(status)] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{
			"application/problem+json": {Schema: schemas.Schema(reflect.TypeFor[Problem](), true, "")},
		}}
	}
	a.huma.OpenAPI().AddOperation(&op)
	a.mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, req *http.Request) {
		if p := f(w, req, r); p != nil {
			p.Write(w, req)
		}
	})
}

func (a *API) listAudit(ctx context.Context, in *auditListInput) (*struct{ Body AuditList }, error) {
	if a.audit == nil {
		return nil, noAuditLog()
	}
	q, err := in.query()
	if err != nil {
		return nil, err
	}
	q.Limit, q.Cursor = in.Limit, in.Cursor
	page, err := a.audit.List(ctx, q)
	if errors.Is(err, audit.ErrBadCursor) {
		return nil, afterlogin.ErrBadCursor
	}
	if err != nil {
		return nil, err
	}
	out := &struct{ Body AuditList }{AuditList{Data: make([]*AuditEntry, 0, len(page.Entries)), Next: page.Next, Damaged: page.Damaged}}
	for _, e := range page.Entries {
		out.Body.Data = append(out.Body.Data, NewAuditEntry(e))
	}
	return out, nil
}

// admitStream lets a request in whose answer takes as long as it takes. The context ends with the request and, if it is to,
// when the server stops; end must be called.
func (a *API) admitStream(w http.ResponseWriter, req *http.Request, r route, stops bool) (ctx context.Context, x *act, end func(), problem *Problem) {
	x = a.act(r, req)
	admitted, done, problem := a.admit(req, r.scopes()...)
	if problem != nil {
		a.refused(req.Context(), x, problem)
		return nil, nil, nil, problem
	}
	done()
	if problem := a.begin(x); problem != nil {
		return nil, nil, nil, problem
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(admitted))
	var watch sync.WaitGroup
	stop := a.streams.end
	if !stops {
		stop = nil
	}
	watch.Go(func() {
		select {
		case <-stop:
			cancel()
		case <-req.Context().Done():
			cancel()
		case <-ctx.Done():
		}
	})
	conn := http.NewResponseController(w)
	conn.SetReadDeadline(time.Time{}) // the server's are for a request, and would end this one
	conn.SetWriteDeadline(time.Time{})
	return ctx, x, func() { cancel(); watch.Wait() }, nil
}

// auditQuery reads the parameters of an export.
func auditQuery(raw string) (q audit.Query, err error) {
	values, _ := url.ParseQuery(raw) // admit has read it, too
	var f AuditFilter
	texts := map[string]*string{"subject": &f.Subject, "session": &f.Session, "actor": &f.Actor, "type": &f.Type}
	times := map[string]*time.Time{"since": &f.Since, "until": &f.Until}
	for name, v := range values {
		switch {
		case texts[name] != nil:
			if *texts[name] = v[0]; len(v[0]) > 256 {
				return q, invalid("query."+name, "is over 256 bytes")
			}
		case times[name] != nil:
			if *times[name], err = time.Parse(time.RFC3339, v[0]); err != nil {
				return q, invalid("query."+name, "is no time: write it as 2026-02-28T09:00:00Z")
			}
		default:
			return q, invalid("query."+clip(name), "there is no parameter of this name; known are subject, session, actor, type, since, until")
		}
	}
	return f.query()
}

func (a *API) exportAudit(w http.ResponseWriter, req *http.Request, r route) *Problem {
	ctx, x, end, problem := a.admitStream(w, req, r, true)
	if problem != nil {
		return problem
	}
	defer end()
	if a.audit == nil {
		return noAuditLog()
	}
	q, err := auditQuery(req.URL.RawQuery)
	if err != nil {
		return a.problem(ctx, err)
	}
	if !a.exporting.TryLock() {
		p := NewProblem(http.StatusTooManyRequests, "audit-busy", "an export of the audit log runs already; try again when it is done")
		p.header = http.Header{"Retry-After": {"10"}}
		return p
	}
	defer a.exporting.Unlock()
	if req.Method != http.MethodHead {
		if p := a.done(ctx, x, http.StatusOK, ""); p != nil {
			return p
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	if req.Method == http.MethodHead {
		return nil
	}
	slow := &slowly{w: w, conn: http.NewResponseController(w)}
	out := bufio.NewWriterSize(slow, 64<<10)
	damaged, err := a.audit.Export(ctx, q, func(line []byte) error {
		_, err := out.Write(line)
		return err
	})
	if err == nil && damaged > 0 {
		err = json.NewEncoder(out).Encode(map[string]any{
			"type": audit.TypeDamaged, "detail": fmt.Sprintf("%d lines or segments of the log could not be read, and are not in this export: verify the log", damaged),
		})
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		a.log.WarnContext(ctx, "an export of the audit log broke off", "request_id", RequestID(ctx), "err", err)
		if slow.n == 0 {
			return a.problem(ctx, afterlogin.ErrUnavailable)
		}
		panic(http.ErrAbortHandler) // nobody may take it for whole
	}
	return nil
}

func (a *API) verifyAudit(w http.ResponseWriter, req *http.Request, r route) *Problem {
	ctx, x, end, problem := a.admitStream(w, req, r, false)
	if problem != nil {
		return problem
	}
	defer end()
	if a.audit == nil {
		return noAuditLog()
	}
	for name := range req.URL.Query() {
		return invalid("query."+clip(name), "there is no parameter of this name")
	}
	if n, _ := io.ReadFull(req.Body, make([]byte, 1)); n > 0 {
		return invalid("body", "there is nothing to say: leave it away")
	}
	report, err := a.audit.Verify(ctx)
	if errors.Is(err, audit.ErrBusy) {
		p := NewProblem(http.StatusTooManyRequests, "audit-busy", "the audit log is being checked already; try again when that is done")
		p.header = http.Header{"Retry-After": {"10"}}
		return p
	}
	if err != nil {
		a.log.ErrorContext(ctx, "the audit log could not be checked", "request_id", RequestID(ctx), "err", err)
		if !errors.Is(err, afterlogin.ErrUnavailable) {
			err = errors.Join(err, afterlogin.ErrUnavailable)
		}
		return a.problem(ctx, err)
	}
	if report.Count > 0 {
		x.entry.Detail += fmt.Sprintf(": %d problems", report.Count)
		a.log.ErrorContext(ctx, "the audit log is not as it was written", "problems", report.Count, "first", report.Problems[0].String())
	}
	if p := a.done(ctx, x, http.StatusOK, ""); p != nil {
		return p
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, AuditReport{InOrder: report.Count == 0, Report: *report})
	return nil
}
