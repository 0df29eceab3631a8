package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/afterlogin/afterlogin"
)

// SubjectInput is the subject in the path.
type SubjectInput struct {
	Subject string `path:"sub" doc:"The subject, percent-encoded."`
}

type subjectListInput struct {
	SubjectInput
	Filter
}

type subjectRevokeInput struct {
	SubjectInput
	Except string `query:"except" doc:"A session that stays: the one that asks, usually." maxLength:"64"`
	Scope  string `query:"scope" enum:"sessions,everything" default:"sessions" doc:"everything ends the API keys, too."`
	Why
	Wait
}

type beginOutput struct {
	Body struct {
		Mark string `json:"mark" doc:"For POST /v1/sessions. No secret."`
	}
}

func (a *API) subjectRoutes() {
	register(a, route{
		method: http.MethodPost, path: "/v1/subjects/{sub}/begin", scope: SessionsWrite, id: "begin-sign-in", status: http.StatusOK,
		summary: "Begin a sign-in",
		text: "Call it before the credentials are checked, and give the mark to `POST /v1/sessions` after. " +
			"It writes nothing and answers alike for a subject that does not exist. It takes no body.",
	}, func(ctx context.Context, in *SubjectInput) (*beginOutput, error) {
		if err := checkOwnSubject("path.sub", in.Subject); err != nil {
			return nil, err
		}
		m, err := a.authority.Begin(ctx, 0, in.Subject)
		if err != nil {
			return nil, err
		}
		out := &beginOutput{}
		out.Body.Mark = a.authority.EncodeMark(m)
		return out, nil
	})
	register(a, route{
		method: http.MethodGet, path: "/v1/subjects/{sub}/sessions", scope: SessionsRead, id: "list-subject-sessions", status: http.StatusOK,
		summary: "Where a subject is signed in", text: "In a stable order, page by page.",
	}, func(ctx context.Context, in *subjectListInput) (*listOutput, error) {
		if err := checkSubject("path.sub", in.Subject); err != nil {
			return nil, err
		}
		return a.list(ctx, in.Subject, in.Filter)
	})
	register(a, route{
		method: http.MethodDelete, path: "/v1/subjects/{sub}/sessions", scope: SessionsWrite, id: "revoke-subject-sessions", status: http.StatusNoContent,
		errors: []int{http.StatusNotFound, http.StatusConflict}, summary: "Sign a subject out everywhere",
		text: "One write, however many sessions there are; durable when answered. Sign-ins that are under way fail. " +
			"`scope=everything` ends API keys, too, and needs the scope `api-keys:write` or `admin` besides.",
	}, a.revokeSubject)
}

func (a *API) revokeSubject(ctx context.Context, in *subjectRevokeInput) (*struct{}, error) {
	if err := checkSubject("path.sub", in.Subject); err != nil {
		return nil, err
	}
	if strings.HasPrefix(in.Subject, reserved) {
		if err := need(ctx, "ending the server's own keys", Admin); err != nil {
			return nil, err
		}
	}
	scope := afterlogin.Sessions
	if in.Scope == "everything" {
		scope = afterlogin.Everything
		if err := need(ctx, "ending API keys", APIKeysWrite, Admin); err != nil {
			return nil, err
		}
	}
	if in.Except == "" {
		return in.done(ctx, a, a.authority.RevokeSubject(ctx, 0, in.Subject, scope, in.why()))
	}
	if scope == afterlogin.Everything {
		return nil, invalid("query.except", "everything spares nothing: leave scope or except away")
	}
	s, err := a.authority.Session(ctx, afterlogin.SessionID(in.Except))
	switch {
	case errors.Is(err, afterlogin.ErrBadSessionID):
		return nil, NewProblem(http.StatusBadRequest, "bad-session-id", "query.except: "+err.Error(), FieldError{"query.except", err.Error()})
	case err != nil:
		return nil, err
	case s.Subject != in.Subject || s.Kind != afterlogin.KindSession:
		return nil, invalid("query.except", "is not a session of this subject")
	}
	return in.done(ctx, a, a.authority.RevokeOthers(ctx, s.ID, in.why()))
}
