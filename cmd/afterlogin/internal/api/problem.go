package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/store"
)

// problemBase is where each type of problem is explained.
const problemBase = "https://github.com/afterlogin/afterlogin/blob/main/docs/errors.md#"

// A Problem is the body of every answer that is not a success: RFC 9457, problem details. It never repeats a value of
// the request that could hold a secret.
type Problem struct {
	Type      string       `json:"type" format:"uri" doc:"What kind of problem it is; programs branch on what follows the #."`
	Title     string       `json:"title" doc:"The status in words."`
	Status    int          `json:"status" doc:"The HTTP status."`
	Detail    string       `json:"detail" doc:"What is wrong, and what to do about it."`
	RequestID string       `json:"request_id,omitempty" doc:"Names the request in the server's log."`
	Errors    []FieldError `json:"errors,omitempty" doc:"Where the request is wrong."`

	header http.Header          // sent with it
	who    afterlogin.SessionID // of a key that may not do this
}

// A FieldError is one mistake in a request.
type FieldError struct {
	Location string `json:"location" doc:"Where it is: body.auth.at, query.limit, path.id."`
	Message  string `json:"message" doc:"What is wrong with it."`
}

// NewProblem returns a problem of the given kind.
func NewProblem(status int, kind, detail string, errs ...FieldError) *Problem {
	return &Problem{Type: problemBase + kind, Title: http.StatusText(status), Status: status, Detail: detail, Errors: errs}
}

// Error implements error.
func (p *Problem) Error() string { return p.Detail }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// Kind returns what follows the # in the type.
func (p *Problem) Kind() string {
	_, kind, _ := strings.Cut(p.Type, "#")
	return kind
}

func (p *Problem) withRequest(ctx context.Context) *Problem {
	p.RequestID = RequestID(ctx)
	return p
}

// Write answers the request with the problem.
func (p *Problem) Write(w http.ResponseWriter, r *http.Request) {
	p.withRequest(r.Context())
	for k, v := range p.header {
		w.Header()[k] = v
	}
	p.clean()
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// clean removes whatever looks like a token. What goes into a problem is chosen with care; this is for what a caller
// puts where nobody expects it, such as the name of a field.
func (p *Problem) clean() *Problem {
	p.Detail = Redact(p.Detail)
	for i := range p.Errors {
		p.Errors[i].Location = Redact(p.Errors[i].Location)
		p.Errors[i].Message = Redact(p.Errors[i].Message)
	}
	return p
}

type requestIDKey struct{}

// WithRequestID returns a context that carries the id of the request.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the id that WithRequestID put into the context, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// invalid is a request that has the wrong form.
func invalid(location, format string, args ...any) *Problem {
	msg := fmt.Sprintf(format, args...)
	return NewProblem(http.StatusUnprocessableEntity, "invalid-request", location+": "+msg, FieldError{location, msg})
}

// problem turns an error of the authority into an answer. The cause of a trouble goes to the log, and only there.
func (a *API) problem(ctx context.Context, err error) *Problem {
	var p *Problem
	var large *afterlogin.DataTooLargeError
	var refused *afterlogin.Refusal
	switch {
	case errors.As(err, &p):
	case errors.Is(err, store.ErrFull):
		a.log.ErrorContext(ctx, "the store is full", "request_id", RequestID(ctx), "err", err)
		p = NewProblem(http.StatusServiceUnavailable, "store-full",
			"there is no room for anything new: free space where the server keeps its data. Sessions are still checked, and can be ended")
		p.header = http.Header{"Retry-After": {"60"}}
	case errors.Is(err, afterlogin.ErrUnavailable):
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			a.log.DebugContext(ctx, "the client hung up", "request_id", RequestID(ctx), "err", err)
		} else {
			a.log.ErrorContext(ctx, "the store cannot be asked", "request_id", RequestID(ctx), "err", err)
		}
		p = NewProblem(http.StatusServiceUnavailable, "temporarily-unavailable",
			"the answer is not known now, which is neither a yes nor a no: try again")
		p.header = http.Header{"Retry-After": {"1"}}
	case errors.Is(err, afterlogin.ErrRateLimited):
		p = NewProblem(http.StatusTooManyRequests, "rate-limited", "too many requests, or too many tokens of one session: wait for as long as Retry-After says")
		p.header = http.Header{"Retry-After": {strconv.Itoa(retryAfter(err))}}
	case errors.Is(err, afterlogin.ErrOnHold):
		p = NewProblem(http.StatusConflict, "on-hold", strings.TrimPrefix(err.Error(), afterlogin.ErrOnHold.Error()+": ")+" holds it already: whoever put it on hold decides; take it off first to hold it for another reason")
	case errors.Is(err, afterlogin.ErrNoSession):
		p = NewProblem(http.StatusNotFound, "no-such-session", "there is no such session, or it ended long ago")
	case errors.Is(err, afterlogin.ErrBadSessionID):
		p = NewProblem(http.StatusBadRequest, "bad-session-id", err.Error())
	case errors.Is(err, afterlogin.ErrBadCursor):
		p = NewProblem(http.StatusBadRequest, "bad-cursor", "the cursor is not one of this list: give back next_cursor unchanged, with the same filters",
			FieldError{"query.cursor", err.Error()})
	case errors.Is(err, afterlogin.ErrBadMark):
		p = invalid("body.mark", "%v", err)
	case errors.Is(err, afterlogin.ErrStaleSignIn):
		p = NewProblem(http.StatusConflict, "stale-sign-in",
			"the subject was signed out everywhere after the mark was made, so the password that was checked may be the old one: begin anew and check it again")
	case errors.Is(err, afterlogin.ErrSessionLimit):
		p = NewProblem(http.StatusConflict, "session-limit",
			"the subject has as many as it may have at once: "+strings.TrimPrefix(err.Error(), afterlogin.ErrSessionLimit.Error()+": ")+"; end one of them first")
	case errors.As(err, &large):
		p = invalid("body.data", "%v", large)
	case errors.As(err, &refused):
		p = NewProblem(http.StatusConflict, "session-over", "the session is over: "+string(refused.Reason))
	case errors.Is(err, afterlogin.ErrBadRequest):
		msg := strings.TrimPrefix(err.Error(), afterlogin.ErrBadRequest.Error()+": ")
		p = NewProblem(http.StatusUnprocessableEntity, "invalid-request", msg)
		field, rest, _ := strings.Cut(msg, ": ")
		if strings.HasPrefix(field, "there is no policy") || strings.HasPrefix(field, "policy ") {
			field, rest = "policy", msg
		}
		if where, ok := coreFields[field]; ok {
			p = invalid("body."+where, "%s", rest)
		}
	default:
		a.log.ErrorContext(ctx, "unexpected error", "request_id", RequestID(ctx), "err", err)
		p = NewProblem(http.StatusInternalServerError, "internal", "something went wrong here; the server's log says what, under this request_id")
	}
	return p.clean()
}

// retryAfter returns the whole seconds to wait after a *afterlogin.LimitError.
func retryAfter(err error) int {
	var limit *afterlogin.LimitError
	if !errors.As(err, &limit) {
		return 1
	}
	return int((limit.RetryAfter + time.Second - 1) / time.Second)
}

// coreFields are the fields of a request by the words with which the authority's errors begin.
var coreFields = map[string]string{
	"subject": "subject", "lifetime": "lifetime", "policy": "policy",
	"scope": "scopes", "scopes": "scopes", "method": "auth.methods", "methods": "auth.methods",
	"session data key": "data",
	"name":             "name", "client": "client", "networks": "networks", "rate": "rate", "audience": "audience", "origin": "origin",
	"overlap": "overlap", "hash": "sha256", "target": "target",
}

// huma keeps its settings in variables of its package; no other package of this program uses huma.
func init() {
	huma.ValidateStrictCasing = true
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return fromHuma(nil, status, msg, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return fromHuma(ctx, status, msg, errs)
	}
}

// fromHuma makes a problem of what huma found wrong with a request. It drops the values, which huma would repeat.
func fromHuma(ctx huma.Context, status int, msg string, errs []error) *Problem {
	kind, detail := "invalid-request", "the request does not have the form that this call wants"
	switch {
	case status == http.StatusRequestEntityTooLarge:
		kind, detail = "body-too-large", fmt.Sprintf("the body is over %d bytes", ctx.Operation().MaxBodyBytes-1)
		errs = nil
	case status == http.StatusRequestTimeout:
		kind, detail = "slow-body", "the body did not arrive in time"
		errs = nil
	case status == http.StatusInternalServerError && msg == "cannot read request body":
		status, kind, detail = http.StatusBadRequest, "broken-body", "the body could not be read to its end"
		errs = nil
	case status == http.StatusBadRequest && msg == "request body is required":
		kind, detail = "malformed-json", "a JSON body is required"
	case status == http.StatusBadRequest:
		kind = "malformed-json"
	case status >= 500:
		kind, detail = "internal", "something went wrong here; the server's log says what, under this request_id"
		errs = nil
	}
	p := NewProblem(status, kind, detail)
	for _, err := range errs {
		var d huma.ErrorDetailer
		if errors.As(err, &d) {
			e := d.ErrorDetail()
			p.Errors = append(p.Errors, plain(ctx, e.Location, e.Message))
		} else if err != nil {
			p.Errors = append(p.Errors, FieldError{"body", err.Error()})
		}
	}
	slices.SortStableFunc(p.Errors, func(a, b FieldError) int { return strings.Compare(a.Location, b.Location) })
	if len(p.Errors) > 20 {
		p.Errors = p.Errors[:20]
	}
	if len(p.Errors) > 0 {
		p.Detail = p.Errors[0].Location + ": " + p.Errors[0].Message
	}
	if ctx != nil {
		p.withRequest(ctx.Context())
	}
	return p.clean()
}

// plain puts huma's words into ours: the field that is meant, and a remedy.
func plain(ctx huma.Context, location, message string) FieldError {
	if len(location) > 200 {
		location = strings.ToValidUTF8(location[:200], "") + "…"
	}
	if rest, ok := strings.CutPrefix(message, "expected required property "); ok {
		field := strings.TrimSuffix(rest, " to be present")
		return FieldError{strings.TrimSuffix(location, ".") + "." + field, "is missing"}
	}
	switch message {
	case "unexpected property", "unknown query parameter":
		head, name, _ := cutLast(location, ".")
		what := "field"
		if head == "query" {
			what = "parameter"
		}
		message = "there is no " + what + " of this name"
		known := fieldsAt(ctx, head)
		if near := config.Nearest(name, known); near != "" {
			message += fmt.Sprintf("; did you mean %q?", near)
		} else if len(known) > 0 {
			message += "; known are " + strings.Join(known, ", ")
		}
	default:
		if rest, ok := strings.CutPrefix(message, "expected "); ok {
			message = "want " + rest
		}
	}
	return FieldError{location, message}
}

func cutLast(s, sep string) (head, tail string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// fieldsAt returns the names that may stand at the location: of the body's fields, or of the query's parameters.
func fieldsAt(ctx huma.Context, location string) (names []string) {
	if ctx == nil {
		return nil
	}
	op := ctx.Operation()
	if location == "query" {
		for _, p := range op.Parameters {
			if p.In == "query" {
				names = append(names, p.Name)
			}
		}
		return names
	}
	a, _ := op.Metadata["api"].(*API)
	if a == nil || op.RequestBody == nil {
		return nil
	}
	schemas := a.huma.OpenAPI().Components.Schemas
	s := op.RequestBody.Content["application/json"].Schema
	for i, step := range strings.Split(location, ".") {
		if i > 0 {
			s = s.Properties[step]
		}
		for s != nil && s.Ref != "" {
			s = schemas.SchemaFromRef(s.Ref)
		}
		if s == nil {
			return nil
		}
	}
	for name := range s.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
