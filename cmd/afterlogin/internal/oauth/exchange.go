package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
)

// The token types of RFC 8693, section 3, and one of ours.
const (
	typeAccess  = "urn:ietf:params:oauth:token-type:access_token"
	typeJWT     = "urn:ietf:params:oauth:token-type:jwt"
	typeSession = "urn:afterlogin:token-type:session"
)

// exchangeable are the kinds of token that may be presented as each type.
var exchangeable = map[string][]afterlogin.Kind{
	typeAccess:  {afterlogin.KindAccess, afterlogin.KindJWT, afterlogin.KindSession},
	typeJWT:     {afterlogin.KindJWT},
	typeSession: {afterlogin.KindSession},
}

// exchange is the token exchange of RFC 8693: a session, or an access token, for an access token that may do less. The
// new one lives below the old one's record and ends with it.
func (s *Server) exchange(ctx context.Context, r *http.Request, c *client, f form) (*tokenAnswer, error) {
	subject, e := s.exchanged(ctx, r, c, f, "subject_token")
	if e != nil {
		return nil, e
	}
	want := c.access(nil, nil)
	kind := typeAccess
	switch f.get("requested_token_type") {
	case "", typeAccess:
	case typeJWT:
		want.JWT, kind = true, typeJWT
	default:
		return nil, fail(InvalidRequest, "requested_token_type: want access_token or jwt")
	}
	if want.Scopes, e = c.exchangeScopes(f, subject); e != nil {
		return nil, e
	}
	if want.Audience, e = c.resources(f, "resource", "audience"); e != nil {
		return nil, e
	}
	if len(want.Audience) == 0 && len(subject.Audience) == 0 {
		want.Audience = c.settings.Resources
	}
	// Who acted before stays behind whoever acts now: a token does not get rid of its actors by being exchanged.
	if f.get("actor_token") != "" || f.get("actor_token_type") != "" {
		actor, e := s.exchanged(ctx, r, c, f, "actor_token")
		if e != nil {
			return nil, e
		}
		want.Actor = actor.Subject
	}
	got, err := s.authority.IssueAccess(ctx, subject, want)
	if err != nil {
		var refused *afterlogin.Refusal
		if errors.As(err, &refused) && refused.Reason != afterlogin.ReasonScope && refused.Reason != afterlogin.ReasonWrongAudience {
			return nil, fail(InvalidRequest, "subject_token is not good: "+string(refused.Reason))
		}
		return nil, err
	}
	a := s.answerWith(got, afterlogin.Token{})
	a.IssuedTokenType = kind
	return a, nil
}

// unfit is said of a token that is not good as of one that is none of the client's business, so that nobody finds out by
// asking which of the tokens that came their way are good.
const unfit = " is not good, or not for this client"

// exchanged validates the subject's or the actor's token, which must be one that the client may see: one of its own, one
// for a service that it is, or a session, which nobody holds but the application and the person.
func (s *Server) exchanged(ctx context.Context, r *http.Request, c *client, f form, name string) (*afterlogin.Session, *Error) {
	text, typ := f.get(name), f.get(name+"_type")
	kinds, ok := exchangeable[typ]
	switch {
	case text == "" || typ == "":
		return nil, fail(InvalidRequest, name+" and "+name+"_type belong together")
	case !ok:
		return nil, fail(InvalidRequest, name+"_type: want access_token, jwt, or "+typeSession)
	}
	t, err := s.authority.Validate(ctx, afterlogin.TokenFrom(text), afterlogin.Expect{Kinds: kinds, Audience: claimed(text), From: s.from(r)})
	var refused *afterlogin.Refusal
	switch {
	case errors.As(err, &refused):
		s.log.DebugContext(ctx, "a token is not exchanged", "client", c.id, "parameter", name, "why", string(refused.Reason))
		return nil, fail(InvalidRequest, name+unfit) // RFC 8693, 2.2.2
	case err != nil:
		return nil, s.fault(ctx, err)
	case t.Kind != afterlogin.KindSession && !s.sees(c, t):
		return nil, fail(InvalidRequest, name+unfit)
	case t.Anonymous():
		return nil, fail(InvalidRequest, name+" is of a session that nobody has signed in to")
	}
	if s.forNobody(t) {
		open := *t
		open.Audience = nil
		t = &open
	}
	return t, nil
}

// exchangeScopes returns what the new token may do: what is asked for, or else everything that both the old token and the
// client may. What a session may do is the application's business, so that there only the client counts.
func (c *client) exchangeScopes(f form, subject *afterlogin.Session) ([]string, *Error) {
	want, e := c.scopes(f, false)
	if e != nil || subject.Kind == afterlogin.KindSession || f.get("scope") != "" {
		return want, e
	}
	want = nil
	for _, scope := range subject.Scopes {
		if slices.Contains(c.settings.Scopes, scope) {
			want = append(want, scope)
		}
	}
	if len(want) == 0 && len(subject.Scopes) > 0 { // none would mean all
		return nil, fail(InvalidScope, "scope: the client may use none of the token's")
	}
	return want, nil
}

// sees reports whether the client may learn about the token: it is its own, or it is for a service that the client is.
// (RFC 7662, 4: whoever asks about tokens must not be able to scan for others'.)
func (s *Server) sees(c *client, t *afterlogin.Session) bool {
	return t.Client == c.id || s.isFor(c.settings.Introspects, t)
}

// isFor reports whether the token is for one of the services, or for none in particular, which is every service's.
func (s *Server) isFor(services []string, t *afterlogin.Session) bool {
	if len(services) == 0 {
		return false
	}
	return services[0] == clients.Any || s.forNobody(t) ||
		slices.ContainsFunc(t.Audience, func(aud string) bool { return slices.Contains(services, aud) })
}

// forNobody reports whether the token is for no service in particular. A JWT must name somebody, and names us.
func (s *Server) forNobody(t *afterlogin.Session) bool {
	return len(t.Audience) == 0 || t.Kind == afterlogin.KindJWT && len(t.Audience) == 1 && t.Audience[0] == s.issuer
}

// claimed returns the audiences that a JWT claims, before it is verified, and none for any other token: the authority
// verifies for one of them, and what it is really for is looked at afterwards.
func claimed(text string) []string {
	if !strings.HasPrefix(text, "eyJ") {
		return nil
	}
	_, rest, _ := strings.Cut(text, ".")
	body, _, _ := strings.Cut(rest, ".")
	var c struct {
		Audience json.RawMessage `json:"aud"`
	}
	if b, err := decodePart(body); err != nil || json.Unmarshal(b, &c) != nil || len(c.Audience) == 0 {
		return nil
	}
	var list []string
	if c.Audience[0] != '"' {
		if json.Unmarshal(c.Audience, &list) != nil || len(list) > 32 {
			return nil
		}
		return list
	}
	var one string
	if json.Unmarshal(c.Audience, &one) != nil {
		return nil
	}
	return []string{one}
}
