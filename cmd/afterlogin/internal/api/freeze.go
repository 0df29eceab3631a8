package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/revocation"
)

// FreezeRequest says why a credential is put on hold.
type FreezeRequest struct {
	Reason string `json:"reason" doc:"Why, in a word or a few: the number of an incident. It is kept, and shown to operators. Not rev_…, which is how revocations hold what is theirs." minLength:"1" maxLength:"64"`
}

type freezeInput struct {
	IDInput
	Wait
	Body FreezeRequest
}

type thawInput struct {
	IDInput
	Reason string `query:"reason" doc:"Only if it is on hold for this reason." maxLength:"64"`
}

func (a *API) freezeRoutes() {
	errs := []int{http.StatusNotFound, http.StatusConflict}
	register(a, route{
		method: http.MethodPost, path: "/v1/sessions/{id}/freeze", scope: SessionsWrite, id: "freeze-session", status: http.StatusNoContent,
		errors:  append(errs, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType),
		summary: "Put a session or an API key on hold",
		text: "It is refused from now on, with everything below it, until it is thawed: for when somebody must decide first. It goes on to end by time. " +
			"What merely came from it (API keys, offline grants) goes on: hold those by their own handles. On hold for another reason already, it is 409 `on-hold`. " +
			"An API key (key_…) needs the scope `api-keys:write` or `admin` besides. Durable when answered; again does no harm.",
	}, func(ctx context.Context, in *freezeInput) (*struct{}, error) {
		if strings.HasPrefix(in.Body.Reason, revocation.Prefix) {
			return nil, invalid("body.reason", "what begins with %s is a revocation's, which would end the session or thaw it as its own", revocation.Prefix)
		}
		if err := a.mayHold(ctx, in.ID); err != nil {
			return nil, err
		}
		return in.done(ctx, a, overConflict(a.authority.Freeze(ctx, afterlogin.SessionID(in.ID), afterlogin.Reason(in.Body.Reason))))
	})
	register(a, route{
		method: http.MethodPost, path: "/v1/sessions/{id}/thaw", scope: SessionsWrite, id: "thaw-session", status: http.StatusNoContent,
		errors: errs, summary: "Take a session or an API key off hold",
		text: "Its tokens are good again, unless it has ended meanwhile. It takes no body.",
	}, func(ctx context.Context, in *thawInput) (*struct{}, error) {
		if err := a.mayHold(ctx, in.ID); err != nil {
			return nil, err
		}
		return nil, overConflict(a.authority.Thaw(ctx, afterlogin.SessionID(in.ID), afterlogin.Reason(in.Reason)))
	})
}

// mayHold fails unless the caller may put the credential on hold, and take it off: what it could end.
func (a *API) mayHold(ctx context.Context, id string) error {
	s, err := a.authority.Session(ctx, afterlogin.SessionID(id))
	if err != nil {
		return badID(err)
	}
	switch s.Kind {
	case afterlogin.KindAPIKey:
		if err := need(ctx, "putting an API key on hold", APIKeysWrite, Admin); err != nil {
			return err
		}
	case afterlogin.KindClient:
		return NewProblem(http.StatusNotFound, "no-such-session", "that is an OAuth client: it is disabled or removed, not put on hold")
	}
	return mayTouch(ctx, s)
}

// overConflict answers that what has ended can be neither put on hold nor taken off.
func overConflict(err error) error {
	if why := afterlogin.ReasonOf(err); why != "" {
		return NewProblem(http.StatusConflict, "session-over", "it is over ("+string(why)+"): there is nothing left to put on hold or to take off")
	}
	return err
}
