package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

// ValidateRequest asks whether tokens are good. Exactly one of token and tokens is given.
type ValidateRequest struct {
	Token  string   `json:"token,omitempty" doc:"The token to check."`
	Tokens []string `json:"tokens,omitempty" doc:"Or several; the results come in their order." minItems:"1" maxItems:"100"`
	Kinds  []string `json:"kinds,omitempty" doc:"The kinds of token that are accepted. Default: session." enum:"session,api_key,access_token,jwt"`
	Scopes []string `json:"scopes,omitempty" doc:"All of these must be granted." maxItems:"100"`
	// Audience is a list like the others, so that a service that goes by two names need not ask twice.
	Audience []string     `json:"audience,omitempty" doc:"What the service that asks is called: a token that is for certain services must be for one of these. Absent: any; of a JWT, the issuer." maxItems:"32"`
	MaxAge   string       `json:"max_age,omitempty" doc:"How long ago the person may have proved who they are: 15m, 12h." maxLength:"32"`
	Fresh    bool         `json:"fresh,omitempty" doc:"Ask the store, whatever this node has in memory: what any node has ended before is refused."`
	Device   *DeviceInput `json:"device,omitempty" doc:"Where the token was presented from. An API key that is bound to networks is not good without."`
}

// Verdict says whether a token is good.
type Verdict struct {
	Active     bool     `json:"active"`
	Reason     string   `json:"reason,omitempty" doc:"Why it is not: malformed, forged, unknown, revoked, signed_out_all, superseded, expired, idle, reused, renew, wrong_kind, wrong_audience, wrong_network, scope, stale_auth, frozen, rate_limited, …"`
	RetryAfter int      `json:"retry_after,omitempty" doc:"With rate_limited: in how many seconds the key is good again. Answer 429."`
	Cause      string   `json:"cause,omitempty" doc:"Why it was ended or put on hold, if the reason is revoked, signed_out_all or frozen and it is known."`
	Message    string   `json:"message,omitempty" doc:"What to tell the person, if anything."`
	Session    *Session `json:"session,omitempty" doc:"Only with active."`
	RenewalDue bool     `json:"renewal_due,omitempty" doc:"The token should be renewed soon: POST /v1/renew."`
}

// Verdicts are the results of a batch, in the order of its tokens.
type Verdicts struct {
	Results []Verdict `json:"results"`
}

// RenewRequest asks for the next token of a session.
type RenewRequest struct {
	Token  string       `json:"token" doc:"The token that the app holds." maxLength:"4096"`
	Device *DeviceInput `json:"device,omitempty" doc:"Where the app asks from. Only the client that renewed gets a lost answer again."`
}

// Renewed is the verdict on a token, with its successor.
type Renewed struct {
	Token string `json:"token,omitempty" doc:"The new token; the old one is good for a short grace. Absent if the old one is not good, or another request got the new one."`
	Verdict
}

func (a *API) tokenRoutes() {
	a.validateRoute()
	register(a, route{
		method: http.MethodPost, path: "/v1/renew", scope: SessionsWrite, id: "renew-token", status: http.StatusOK,
		errors: []int{http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType}, summary: "Renew a session's token",
		text: "For apps that keep their token themselves. However many requests present one token at once, there is one successor. " +
			"The answer is 200 for a token that is not good, too; an out-of-date one ends its session.",
	}, a.renew)
	a.explainRoutes()
}

func (a *API) renew(ctx context.Context, in *struct{ Body RenewRequest }) (*struct{ Body Renewed }, error) {
	from, err := in.Body.Device.client()
	if err != nil {
		return nil, err
	}
	got, err := a.authority.Rotate(ctx, afterlogin.TokenFrom(in.Body.Token), afterlogin.Expect{
		Kinds: []afterlogin.Kind{afterlogin.KindSession}, From: from,
	})
	v, err := verdict(got.Session, err)
	if err != nil {
		return nil, err
	}
	v.RenewalDue = false
	return &struct{ Body Renewed }{Renewed{Token: got.Token.Reveal(), Verdict: v}}, nil
}

// verdict turns what the authority says into an answer. The error is for what is neither yes nor no.
func verdict(s *afterlogin.Session, err error) (Verdict, error) {
	var refused *afterlogin.Refusal
	switch {
	case err == nil:
		return Verdict{Active: true, Session: newSession(s), RenewalDue: s.RenewalDue()}, nil
	case errors.Is(err, afterlogin.ErrRateLimited):
		return Verdict{Reason: "rate_limited", RetryAfter: retryAfter(err)}, nil
	case errors.As(err, &refused):
		return Verdict{Reason: string(refused.Reason), Cause: string(refused.Cause), Message: refused.Message()}, nil
	}
	return Verdict{}, err
}

// validateRoute registers the route that answers most requests. It is a plain handler, described by hand, since
// checking against a schema by reflection would take longer than the validation.
func (a *API) validateRoute() {
	op := a.operation(route{
		method: http.MethodPost, path: "/v1/validate", scope: Validate, id: "validate-token", status: http.StatusOK,
		errors:  []int{http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity},
		summary: "Validate one token, or up to 100",
		text: "The answer is always 200 if it is known, for a token that is not good, too. If the store cannot be asked it is 503, " +
			"which means neither yes nor no: keep the cookie, and try again.",
	})
	schemas := a.huma.OpenAPI().Components.Schemas
	schema := func(v any) *huma.Schema { return schemas.Schema(reflect.TypeOf(v), true, "") }
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/json": {Schema: schema(ValidateRequest{})},
	}}
	op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
		"application/json": {Schema: &huma.Schema{OneOf: []*huma.Schema{schema(Verdict{}), schema(Verdicts{})}}},
	}}}
	for _, status := range op.Errors {
		op.Responses[fmt.Sprint(status)] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{
			"application/problem+json": {Schema: schema(Problem{})},
		}}
	}
	a.huma.OpenAPI().AddOperation(&op)
	a.mux.HandleFunc("POST /v1/validate", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel, problem := a.admit(r, Validate)
		if problem != nil {
			problem.Write(w, r)
			return
		}
		defer cancel()
		answer, err := a.validate(ctx, w, r)
		if err != nil {
			a.problem(ctx, err).Write(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		writeJSON(w, answer)
	})
}

func (a *API) validate(ctx context.Context, w http.ResponseWriter, r *http.Request) (any, error) {
	// A writer that has no deadlines, as in a test, is read without one.
	conn := http.NewResponseController(w)
	conn.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			return nil, NewProblem(http.StatusRequestEntityTooLarge, "body-too-large", fmt.Sprintf("the body is over %d bytes", MaxBody))
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, NewProblem(http.StatusRequestTimeout, "slow-body", "the body did not arrive in time")
		}
		return nil, NewProblem(http.StatusBadRequest, "broken-body", "the body could not be read to its end")
	}
	conn.SetReadDeadline(time.Time{}) // or it would end the request's context while we work
	in, err := parseValidate(body)
	if err != nil {
		return nil, err
	}
	expect, err := in.expect()
	if err != nil {
		return nil, err
	}
	if in.Tokens == nil {
		v, err := verdict(a.authority.Validate(ctx, afterlogin.TokenFrom(in.Token), expect))
		return v, err
	}
	out := Verdicts{Results: make([]Verdict, len(in.Tokens))}
	for i, t := range in.Tokens {
		if out.Results[i], err = verdict(a.authority.Validate(ctx, afterlogin.TokenFrom(t), expect)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

var validateFields = []string{"token", "tokens", "kinds", "scopes", "audience", "max_age", "fresh", "device"}

// parseValidate reads the body of a validation: what huma does for other routes, for these few fields.
func parseValidate(body []byte) (*ValidateRequest, error) {
	malformed := func(msg string) error {
		return NewProblem(http.StatusBadRequest, "malformed-json", "body: "+msg, FieldError{"body", msg})
	}
	if len(body) == 0 {
		return nil, malformed("a JSON body is required")
	}
	if err := checkJSON(body); err != nil {
		return nil, malformed(err.Error())
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil || fields == nil {
		return nil, invalid("body", "want object")
	}
	in := &ValidateRequest{}
	for name, value := range fields {
		var into any
		want := "a list of texts"
		switch name {
		case "token":
			into, want = &in.Token, "a text"
		case "tokens":
			into = &in.Tokens
		case "kinds":
			into = &in.Kinds
		case "scopes":
			into = &in.Scopes
		case "audience":
			into = &in.Audience
		case "max_age":
			into, want = &in.MaxAge, "a text, 15m or 12h"
		case "fresh":
			into, want = &in.Fresh, "true or false"
		case "device":
			if err := checkDevice(value); err != nil {
				return nil, err
			}
			into, want = &in.Device, "an object"
		default:
			msg := "there is no field of this name; known are " + strings.Join(validateFields, ", ")
			if near := config.Nearest(name, validateFields); near != "" {
				msg = fmt.Sprintf("there is no field of this name; did you mean %q?", near)
			}
			return nil, invalid("body."+clip(name), "%s", msg)
		}
		if err := json.Unmarshal(value, into); err != nil || string(value) == "null" {
			return nil, invalid("body."+name, "want %s", want)
		}
	}
	_, one := fields["token"]
	_, many := fields["tokens"]
	switch {
	case !one && !many:
		return nil, invalid("body.token", "is missing: give token, or tokens")
	case one && many:
		return nil, invalid("body.tokens", "give token or tokens, not both")
	case many && (len(in.Tokens) == 0 || len(in.Tokens) > MaxBatch):
		return nil, invalid("body.tokens", "want 1 to %d tokens, got %d", MaxBatch, len(in.Tokens))
	case len(in.Scopes) > 100:
		return nil, invalid("body.scopes", "want at most 100, got %d", len(in.Scopes))
	case len(in.Audience) > 32:
		return nil, invalid("body.audience", "want at most 32, got %d", len(in.Audience))
	}
	return in, nil
}

var deviceFields = []string{"ip", "user_agent"}

// checkDevice refuses fields that a device does not have.
func checkDevice(value json.RawMessage) error {
	var fields map[string]json.RawMessage
	if json.Unmarshal(value, &fields) != nil || fields == nil {
		return invalid("body.device", "want an object")
	}
	for name, v := range fields {
		if !slices.Contains(deviceFields, name) {
			return invalid("body.device."+clip(name), "there is no field of this name; known are %s", strings.Join(deviceFields, ", "))
		}
		var text string
		if json.Unmarshal(v, &text) != nil || string(v) == "null" || len(text) > 2048 {
			return invalid("body.device."+name, "want a text of up to 2048 bytes")
		}
	}
	return nil
}

var validateKinds = map[string]afterlogin.Kind{
	"session": afterlogin.KindSession, "api_key": afterlogin.KindAPIKey, "access_token": afterlogin.KindAccess, "jwt": afterlogin.KindJWT,
}

// expect returns what is expected of the tokens.
func (in *ValidateRequest) expect() (e afterlogin.Expect, err error) {
	e.Scopes, e.Audience, e.Fresh = in.Scopes, in.Audience, in.Fresh
	if e.From, err = in.Device.client(); err != nil {
		return e, err
	}
	if e.MaxAge, err = duration("max_age", in.MaxAge); err != nil {
		return e, err
	}
	if in.Kinds == nil {
		in.Kinds = []string{"session"}
	}
	for _, k := range in.Kinds {
		kind, ok := validateKinds[k]
		if !ok {
			return e, invalid("body.kinds", "want session, api_key, access_token or jwt")
		}
		if !slices.Contains(e.Kinds, kind) {
			e.Kinds = append(e.Kinds, kind)
		}
	}
	if len(e.Kinds) == 0 {
		return e, invalid("body.kinds", "name at least one kind, or leave it away for session")
	}
	return e, nil
}
