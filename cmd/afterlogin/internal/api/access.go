package api

import (
	"context"
	"net/http"
	"time"

	"github.com/afterlogin/afterlogin"
)

// AccessTokenRequest says what access token to make below a session.
type AccessTokenRequest struct {
	Format   string   `json:"format,omitempty" enum:"jwt,opaque" doc:"jwt (if absent) is verified by services without a call; opaque is looked up, and can be ended by itself."`
	Audience []string `json:"audience,omitempty" doc:"The services it is for (RFC 8707). Absent: those of the session; a JWT of a session without any is for the issuer." maxItems:"32"`
	Scopes   []string `json:"scopes,omitempty" doc:"What it may do. Absent: all that the session may." maxItems:"100"`
	Client   string   `json:"client,omitempty" doc:"The OAuth client it is for." maxLength:"512"`
	Actor    string   `json:"actor,omitempty" doc:"Who acts for the subject (RFC 8693)." maxLength:"512"`
	Lifetime string   `json:"lifetime,omitempty" doc:"Shorter than that of the policy jwt or access: 1m." maxLength:"32"`
}

// AccessToken is the answer that hands out an access token.
type AccessToken struct {
	Token     string    `json:"token" doc:"The secret, for Authorization: Bearer."`
	TokenType string    `json:"token_type" enum:"Bearer"`
	ExpiresAt time.Time `json:"expires_at"`
	Session   *Session  `json:"session" doc:"What the token says."`
}

func (a *API) accessRoutes() {
	register(a, route{
		method: http.MethodPost, path: "/v1/sessions/{id}/tokens", scope: TokensIssue, id: "create-access-token", status: http.StatusCreated,
		errors:  []int{http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusTooManyRequests},
		summary: "Make an access token below a session",
		text: "Whoever has this scope can act as anybody who is signed in. A short JWT, or an opaque access token, for services behind the application. It ends with the session, which may also be an API key (key_…) or a grant (grant_…). " +
			"Keep it until it is half as old as it gets: one session makes 256 tokens in half an hour at most.",
	}, a.createAccess)
}

func (a *API) createAccess(ctx context.Context, in *struct {
	IDInput
	Body AccessTokenRequest
}) (*struct{ Body AccessToken }, error) {
	r := afterlogin.AccessRequest{
		JWT: in.Body.Format != "opaque", Audience: in.Body.Audience, Scopes: in.Body.Scopes, Client: in.Body.Client, Actor: in.Body.Actor,
	}
	var err error
	if r.Lifetime, err = duration("lifetime", in.Body.Lifetime); err != nil {
		return nil, err
	}
	if r.JWT && a.authority.Issuer() == "" {
		return nil, invalid("body.format", "there are no JWTs without an issuer: set issuer in the server's configuration, or ask for opaque")
	}
	s, err := a.authority.Session(ctx, afterlogin.SessionID(in.ID))
	if err != nil {
		return nil, badID(err)
	}
	switch s.Kind {
	case afterlogin.KindSession, afterlogin.KindAPIKey, afterlogin.KindRefresh, afterlogin.KindAccess:
	default: // a client asks /oauth/token, by its own settings; codes and tickets are redeemed
		return nil, badID(afterlogin.ErrNoSession)
	}
	if s.Anonymous() {
		return nil, anonymous(in.ID)
	}
	if err := mayTouch(ctx, s); err != nil {
		return nil, err
	}
	got, err := a.authority.IssueAccess(ctx, s, r)
	switch afterlogin.ReasonOf(err) {
	case afterlogin.ReasonScope:
		return nil, invalid("body.scopes", "more than %s has", in.ID)
	case afterlogin.ReasonWrongAudience:
		return nil, invalid("body.audience", "more than %s is for", in.ID)
	}
	if err != nil {
		return nil, err
	}
	return &struct{ Body AccessToken }{AccessToken{
		Token: got.Token.Reveal(), TokenType: "Bearer", ExpiresAt: got.Session.Absolute.UTC().Truncate(time.Second), Session: newSession(got.Session),
	}}, nil
}

func anonymous(id string) error {
	return NewProblem(http.StatusConflict, "session-over", id+" is anonymous: nobody has signed in, so there is nobody to make a token for")
}
