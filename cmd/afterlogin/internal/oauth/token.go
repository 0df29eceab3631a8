package oauth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
)

// tokenAnswer is the answer of the token endpoint (RFC 6749, 5.1).
type tokenAnswer struct {
	AccessToken     string `json:"access_token"`
	IssuedTokenType string `json:"issued_token_type,omitempty"` // RFC 8693
	TokenType       string `json:"token_type"`
	ExpiresIn       int64  `json:"expires_in"`
	RefreshToken    string `json:"refresh_token,omitempty"`
	Scope           string `json:"scope,omitempty"`
}

// token is the token endpoint.
func (s *Server) token(ctx context.Context, w http.ResponseWriter, r *http.Request, f form) *Error {
	c, e := s.authenticate(ctx, r.Header, f)
	if e != nil {
		return e
	}
	grants := map[string]func(context.Context, *http.Request, *client, form) (*tokenAnswer, error){
		clients.AuthorizationCode: s.redeem, clients.RefreshToken: s.refresh,
		clients.ClientCredentials: s.credentials, clients.TokenExchange: s.exchange,
	}
	grant := f.get("grant_type")
	serve := grants[grant]
	switch {
	case grant == "":
		return fail(InvalidRequest, "grant_type is missing")
	case serve == nil:
		return fail(UnsupportedGrantType, "grant_type: there are authorization_code, refresh_token, client_credentials and token-exchange")
	case !c.settings.Grants(grant):
		return fail(UnauthorizedClient, "this client may not use this grant_type")
	}
	a, err := serve(ctx, r, c, f)
	if err != nil {
		return s.fault(ctx, err)
	}
	writeJSON(w, http.StatusOK, a)
	return nil
}

// answerWith makes the answer of the tokens.
func (s *Server) answerWith(access afterlogin.Issued, refresh afterlogin.Token) *tokenAnswer {
	a := &tokenAnswer{
		AccessToken: access.Token.Reveal(), TokenType: "Bearer", RefreshToken: refresh.Reveal(),
		Scope: strings.Join(access.Session.Scopes, " "),
	}
	if end := access.Session.Absolute; !end.IsZero() {
		a.ExpiresIn = max(0, int64(end.Sub(s.now()).Round(time.Second)/time.Second))
	}
	return a
}

// access is what the client's access tokens are like.
func (c *client) access(scopes, audience []string) afterlogin.AccessRequest {
	return afterlogin.AccessRequest{
		Client: c.id, Scopes: scopes, Audience: audience, Lifetime: c.settings.Access(), JWT: c.settings.Format == clients.JWT,
	}
}

// scopes returns the scopes that the request asks for, checked against what the client may ask for.
func (c *client) scopes(f form, offline bool) ([]string, *Error) {
	list, e := words(f.get("scope"))
	if e != nil {
		return nil, e
	}
	if list == nil {
		return c.settings.DefaultScopes, nil
	}
	for _, w := range list {
		if !(offline && w == clients.OfflineAccess && c.settings.Offline) && !slices.Contains(c.settings.Scopes, w) {
			return nil, fail(InvalidScope, "scope: this client may not ask for one of these")
		}
	}
	return list, nil
}

// resources returns the services that the request names, each once. They must be among those that the client's tokens may
// be for, of which there are 16 at most.
func (c *client) resources(f form, names ...string) (list []string, e *Error) {
	for _, name := range names {
		for _, aud := range f.all(name) {
			switch {
			case !slices.Contains(c.settings.Resources, aud):
				return nil, fail(InvalidTarget, "resource: tokens of this client are not for one of these; it has 16 services at most")
			case !slices.Contains(list, aud):
				list = append(list, aud)
			}
		}
	}
	return list, nil
}

// issued is what the authorization endpoint keeps in a code for the token endpoint.
type issued struct {
	Redirect  string   `json:"r"`
	Challenge string   `json:"c"`
	Scopes    []string `json:"s,omitempty"`
	Resources []string `json:"a,omitempty"`
}

// redeem is grant_type=authorization_code.
func (s *Server) redeem(ctx context.Context, r *http.Request, c *client, f form) (*tokenAnswer, error) {
	code, verifier := f.get("code"), f.get("code_verifier")
	switch {
	case code == "":
		return nil, fail(InvalidRequest, "code is missing")
	case !validVerifier(verifier):
		return nil, fail(InvalidRequest, "code_verifier: want 43 to 128 letters, digits, - . _ and ~")
	}
	resources, e := c.resources(f, "resource")
	if e != nil {
		return nil, e
	}
	g, err := s.authority.Redeem(ctx, afterlogin.TokenFrom(code), func(code *afterlogin.Code) (afterlogin.GrantRequest, error) {
		var d issued
		if err := json.Unmarshal([]byte(code.Detail), &d); err != nil {
			return afterlogin.GrantRequest{}, err
		}
		switch to := f.get("redirect_uri"); {
		case code.Client != c.id:
			return afterlogin.GrantRequest{}, fail(InvalidGrant, "the code is another client's")
		case to != "" && to != d.Redirect:
			return afterlogin.GrantRequest{}, fail(InvalidGrant, "redirect_uri is not that of the authorization request")
		case !fits(d.Challenge, verifier):
			return afterlogin.GrantRequest{}, fail(InvalidGrant, "code_verifier does not fit the code_challenge")
		}
		for _, aud := range resources {
			if !slices.Contains(d.Resources, aud) {
				return afterlogin.GrantRequest{}, fail(InvalidTarget, "resource: not one of those of the authorization request")
			}
		}
		return afterlogin.GrantRequest{
			Client: c.id, Public: c.settings.Public(), Name: c.settings.Name, Device: s.from(r),
			Bare:    !c.settings.Grants(clients.RefreshToken),
			Offline: slices.Contains(d.Scopes, clients.OfflineAccess) && c.settings.Offline && c.settings.Grants(clients.RefreshToken),
			Scopes:  d.Scopes, Audience: d.Resources, Access: c.access(nil, resources),
		}, nil
	})
	if err != nil {
		return nil, err
	}
	return s.answerWith(g.Access, g.Refresh.Token), nil
}

// validVerifier checks the form of RFC 7636, 4.1.
func validVerifier(v string) bool { return len(v) >= 43 && len(v) <= 128 && unreserved(v) }

func unreserved(v string) bool {
	for i := range len(v) {
		if c := v[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' && c != '~' {
			return false
		}
	}
	return true
}

func fits(challenge, verifier string) bool {
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(challenge)) == 1
}

// refresh is grant_type=refresh_token.
func (s *Server) refresh(ctx context.Context, r *http.Request, c *client, f form) (*tokenAnswer, error) {
	token := f.get("refresh_token")
	if token == "" {
		return nil, fail(InvalidRequest, "refresh_token is missing")
	}
	scopes, e := words(f.get("scope"))
	if e != nil {
		return nil, e
	}
	resources, e := c.resources(f, "resource")
	if e != nil {
		return nil, e
	}
	g, err := s.authority.Refresh(ctx, afterlogin.TokenFrom(token), afterlogin.RefreshRequest{Client: c.id, Access: c.access(scopes, resources)})
	if err != nil {
		return nil, err
	}
	return s.answerWith(g.Access, g.Refresh.Token), nil
}

// credentials is grant_type=client_credentials.
func (s *Server) credentials(ctx context.Context, r *http.Request, c *client, f form) (*tokenAnswer, error) {
	scopes, e := c.scopes(f, false)
	if e != nil {
		return nil, e
	}
	resources, e := c.resources(f, "resource")
	if e != nil {
		return nil, e
	}
	if len(resources) == 0 {
		resources = c.settings.Resources
	}
	got, err := s.authority.IssueAccess(ctx, c.reg.Session, c.access(scopes, resources))
	if err != nil {
		if errors.Is(err, afterlogin.ErrInvalidToken) { // the client was removed a moment ago
			return nil, badClient("there is no such client")
		}
		return nil, err
	}
	return s.answerWith(got, afterlogin.Token{}), nil
}
