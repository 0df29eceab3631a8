package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
)

// CreateRequest says who signed in, and how.
type CreateRequest struct {
	Subject  string                     `json:"subject" doc:"Who signed in: the application's own name for them, 1 to 512 bytes. It stands in URLs, so let it be no secret."`
	Policy   string                     `json:"policy,omitempty" doc:"The policy the session lives by; browser, if absent." maxLength:"64"`
	Remember bool                       `json:"remember,omitempty" doc:"Short for the policy remember."`
	Mark     string                     `json:"mark,omitempty" doc:"What POST /v1/subjects/{sub}/begin answered before the credentials were checked." maxLength:"256"`
	Auth     *AuthInput                 `json:"auth,omitempty"`
	Device   *DeviceInput               `json:"device,omitempty"`
	Lifetime string                     `json:"lifetime,omitempty" doc:"Ends the session earlier than its policy: 30m, 12h, 7d." maxLength:"32"`
	Scopes   []string                   `json:"scopes,omitempty" doc:"What the session may do, in the application's own words." maxItems:"100"`
	Data     map[string]json.RawMessage `json:"data,omitempty" doc:"First values of the session's data: any JSON by key, 64 KiB in all."`
}

// AuthInput is how and when the person proved who they are.
type AuthInput struct {
	Methods []string   `json:"methods,omitempty" doc:"RFC 8176 names: pwd, otp, hwk, …" maxItems:"20"`
	At      *time.Time `json:"at,omitempty" doc:"When; now, if absent."`
}

// Created is the answer that hands out a token. There is no other that shows it.
type Created struct {
	Token   string   `json:"token" doc:"The secret. It is shown this once: set it as the cookie, or hand it to the app."`
	Session *Session `json:"session"`
}

// List is a page of sessions.
type List struct {
	Data []*Session `json:"data"`
	Next string     `json:"next_cursor,omitempty" doc:"The cursor of the next page. Absent on the last."`
}

type createInput struct{ Body CreateRequest }

type createOutput struct {
	Location string `header:"Location"`
	Body     Created
}

// IDInput is the id in the path.
type IDInput struct {
	ID string `path:"id" doc:"A session's handle, ses_…, or an API key's, key_…." maxLength:"64"`
}

type revokeInput struct {
	IDInput
	Derived bool `query:"derived" doc:"Also everything that came from it."`
	Why
	Wait
}

// Why is what the calls that end sessions are told of the reason.
type Why struct {
	Reason string `query:"reason" enum:"administrator,signed_out,signed_out_all,password_changed,reported" default:"administrator" doc:"What the person is told when they come back: an administrator ended it, they signed out (everywhere), the password was changed on another device, they reported that it was not them."`
}

func (w *Why) why() afterlogin.Reason { return afterlogin.Reason(w.Reason) }

// Wait is what the calls that end sessions and API keys have in common.
type Wait struct {
	Wait bool `query:"wait" doc:"Answer when no node can accept it any more: with a store that several nodes share, a second later. Without it the other nodes usually know within milliseconds, and within a second in any case."`
}

// done returns the answer to a call that ended something, or failed to.
func (w *Wait) done(ctx context.Context, a *API, err error) (*struct{}, error) {
	if err == nil && w.Wait {
		err = a.authority.WaitLeases(ctx)
	}
	return nil, err
}

type sessionOutput struct{ Body *Session }

// Filter is what lists have in common.
type Filter struct {
	Kind   string `query:"kind" enum:"session,api_key,refresh_token" doc:"Only of this kind. refresh_token is an OAuth grant that outlives the session."`
	Ended  bool   `query:"ended" doc:"Also those that are over and not cleaned up yet."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50"`
	Cursor string `query:"cursor" doc:"next_cursor of the page before." maxLength:"128"`
}

type listInput struct {
	Subject string `query:"subject" doc:"Only of this subject."`
	Filter
}

type listOutput struct{ Body List }

func (a *API) sessionRoutes() {
	register(a, route{
		method: http.MethodPost, path: "/v1/sessions", scope: SessionsWrite, id: "create-session", status: http.StatusCreated,
		maxBody: MaxBodyWithData, errors: []int{http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType},
		summary: "Sign somebody in",
		text: "Makes a session for somebody whose credentials the application has just checked, and answers its token. " +
			"Begin before the check and give the mark here, so that a sign-out everywhere during it is not overtaken: then the answer is 409 `stale-sign-in`.",
	}, a.createSession)
	register(a, route{
		method: http.MethodGet, path: "/v1/sessions", scope: SessionsRead, id: "list-sessions", status: http.StatusOK,
		summary: "List sessions and API keys", text: "In a stable order, page by page.",
	}, func(ctx context.Context, in *listInput) (*listOutput, error) {
		if in.Subject != "" {
			if err := checkSubject("query.subject", in.Subject); err != nil {
				return nil, err
			}
		}
		return a.list(ctx, in.Subject, in.Filter)
	})
	register(a, route{
		method: http.MethodGet, path: "/v1/sessions/{id}", scope: SessionsRead, id: "show-session", status: http.StatusOK,
		errors: []int{http.StatusNotFound}, summary: "Show a session or an API key", text: "Also one that is over, for as long as it is kept: with when and why it ended.",
	}, func(ctx context.Context, in *IDInput) (*sessionOutput, error) {
		s, err := a.authority.Session(ctx, afterlogin.SessionID(in.ID))
		if err != nil {
			return nil, badID(err)
		}
		return &sessionOutput{newSession(s)}, nil
	})
	register(a, route{
		method: http.MethodDelete, path: "/v1/sessions/{id}", scope: SessionsWrite, id: "revoke-session", status: http.StatusNoContent,
		errors: []int{http.StatusNotFound}, summary: "End a session or an API key",
		text: "Durable when answered. Ending it again does no harm. An API key (key_…) needs the scope `api-keys:write` or `admin` besides; " +
			"so does `derived=true`, which also ends everything that came from the session: what lives below it, and the offline grants and API keys that were made while signed in to it.",
	}, a.revokeSession)
}

// badID says where the id stands that is none.
func badID(err error) error { return badIDAt("path.id", err) }

func badIDAt(where string, err error) error {
	if errors.Is(err, afterlogin.ErrBadSessionID) {
		return NewProblem(http.StatusBadRequest, "bad-session-id", where+": "+err.Error(), FieldError{where, err.Error()})
	}
	return err
}

func (a *API) createSession(ctx context.Context, in *createInput) (*createOutput, error) {
	r, err := a.issueRequest(&in.Body)
	if err != nil {
		return nil, err
	}
	got, err := a.authority.Issue(ctx, r)
	if err != nil {
		return nil, err
	}
	return &createOutput{
		Location: "/v1/sessions/" + string(got.Session.ID),
		Body:     Created{Token: got.Token.Reveal(), Session: newSession(got.Session)},
	}, nil
}

func (a *API) issueRequest(in *CreateRequest) (r afterlogin.IssueRequest, err error) {
	if err := checkOwnSubject("body.subject", in.Subject); err != nil {
		return r, err
	}
	r = afterlogin.IssueRequest{Subject: in.Subject, Policy: in.Policy, Scopes: in.Scopes, Data: in.Data}
	if in.Remember {
		if in.Policy != "" && in.Policy != afterlogin.PolicyRemember {
			return r, invalid("body.remember", "is the policy %s, and policy names another: give one of them", afterlogin.PolicyRemember)
		}
		r.Policy = afterlogin.PolicyRemember
	}
	if r.Policy == afterlogin.PolicyConsole {
		return r, invalid("body.policy", "%s is for the console, which makes its sessions itself: see POST /v1/console/links", afterlogin.PolicyConsole)
	}
	if r.Policy == afterlogin.PolicyAPIKey {
		return r, invalid("body.policy", "%s is for API keys: it has no idle limit", afterlogin.PolicyAPIKey)
	}
	if r.Mark, err = a.authority.DecodeMark(in.Mark); err != nil {
		return r, err
	}
	if in.Auth != nil {
		r.Auth.Methods = in.Auth.Methods
		if at := in.Auth.At; at != nil {
			if at.After(a.now().Add(time.Minute)) || at.Unix() <= 0 {
				return r, invalid("body.auth.at", "is in the future, or before 1970")
			}
			r.Auth.At = *at
		}
	}
	if r.Device, err = in.Device.client(); err != nil {
		return r, err
	}
	r.Lifetime, err = duration("lifetime", in.Lifetime)
	return r, err
}

func (a *API) list(ctx context.Context, subject string, f Filter) (*listOutput, error) {
	q := afterlogin.Query{Subject: subject, Ended: f.Ended, After: f.Cursor, Limit: f.Limit}
	switch f.Kind {
	case "session":
		q.Kind = afterlogin.KindSession
	case "api_key":
		q.Kind = afterlogin.KindAPIKey
	case "refresh_token":
		q.Kind = afterlogin.KindRefresh
	}
	page, err := a.authority.Page(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &listOutput{List{Data: make([]*Session, 0, len(page.Sessions)), Next: page.Next}}
	for _, s := range page.Sessions {
		out.Body.Data = append(out.Body.Data, newSession(s))
	}
	return out, nil
}

func (a *API) revokeSession(ctx context.Context, in *revokeInput) (*struct{}, error) {
	if strings.HasPrefix(in.ID, "key_") || in.Derived {
		if err := need(ctx, "ending an API key", APIKeysWrite, Admin); err != nil {
			return nil, err
		}
	}
	id := afterlogin.SessionID(in.ID)
	s, err := a.authority.Session(ctx, id)
	if err != nil {
		return nil, badID(err)
	}
	switch s.Kind { // by the record: the prefix is the caller's word
	case afterlogin.KindAPIKey:
		if err := need(ctx, "ending an API key", APIKeysWrite, Admin); err != nil {
			return nil, err
		}
	case afterlogin.KindClient:
		return nil, NewProblem(http.StatusNotFound, "no-such-session", "that is an OAuth client: it is removed, not signed out")
	}
	if err := mayTouch(ctx, s); err != nil { // a session of the console's
		return nil, err
	}
	if in.Derived {
		_, err := a.authority.RevokeFrom(ctx, id, in.why())
		return in.done(ctx, a, err)
	}
	return in.done(ctx, a, a.authority.Revoke(ctx, id, in.why()))
}
