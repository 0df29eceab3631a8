package oauth

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/afterlogin/afterlogin"
)

// revoke is the revocation endpoint (RFC 7009). A refresh token ends its grant and every access token of it, an access
// token itself alone. What is unknown, over, or somebody else's is left alone, and the answer is the same: whoever asks
// learns nothing. 200 means that it is durable.
func (s *Server) revoke(ctx context.Context, w http.ResponseWriter, r *http.Request, f form) *Error {
	c, e := s.authenticate(ctx, r.Header, f)
	if e != nil {
		return e
	}
	text := f.get("token")
	switch {
	case text == "":
		return fail(InvalidRequest, "token is missing")
	case strings.HasPrefix(text, "eyJ"):
		return fail(UnsupportedTokenType, "a JWT has no record of its own: revoke the refresh token, or end the session")
	}
	mine, err := s.owns(ctx, c, text)
	if err == nil && mine {
		_, err = s.authority.RevokeToken(ctx, afterlogin.TokenFrom(text), afterlogin.ReasonSignedOut)
		if errors.Is(err, afterlogin.ErrInvalidToken) || errors.Is(err, afterlogin.ErrNoSession) {
			err = nil
		}
	}
	if err != nil {
		return s.fault(ctx, err)
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}

// owns reports whether the token is a grant's or an access token of the client's. It may be out of date: whoever holds it
// wants it ended.
func (s *Server) owns(ctx context.Context, c *client, text string) (bool, error) {
	ex, err := s.authority.Explain(ctx, afterlogin.TokenFrom(text), afterlogin.Client{})
	if err != nil || ex.Session == nil || ex.Reason == afterlogin.ReasonForged {
		return false, err
	}
	kind := ex.Session.Kind
	return ex.Session.Client == c.id && (kind == afterlogin.KindRefresh || kind == afterlogin.KindAccess), nil
}
