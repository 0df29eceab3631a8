package oauth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/jwt"
)

// validateScope is what an API key must have to ask about tokens; that of POST /v1/validate.
const validateScope = "validate"

// keyAudience is what this server is called in API keys that are for certain services only. What else such a key is for are
// the services whose tokens it may ask about.
const keyAudience = "afterlogin"

// bodies are buffers for answers, each of which is written out before its request ends.
var bodies = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

var inactive = []byte(`{"active":false}`)

// asker is who asks about a token: a client, or an API key.
type asker struct {
	id       string
	client   *client  // nil: an API key
	services []string // of an API key that may ask about tokens for these only
}

// introspect is the introspection endpoint (RFC 7662). It renews nothing, and waits for a write only where a session's
// token is presented that is out of date, which ends the session as it would anywhere.
func (s *Server) introspect(ctx context.Context, w http.ResponseWriter, r *http.Request, f form) *Error {
	who, e := s.asker(ctx, r, f)
	if e != nil {
		return e
	}
	text := f.get("token")
	if text == "" {
		return fail(InvalidRequest, "token is missing")
	}
	t, e := s.look(ctx, who, text)
	if e != nil {
		return e
	}
	body := inactive
	if t != nil {
		buf := bodies.Get().(*[]byte)
		defer bodies.Put(buf)
		*buf = s.describeToken((*buf)[:0], t)
		body = *buf
	}
	if s.sign != nil && accepts(r.Header, typeIntrospection) {
		return s.signed(ctx, w, who, body)
	}
	writeBytes(w, http.StatusOK, "application/json", body)
	return nil
}

// asker authenticates whoever asks.
func (s *Server) asker(ctx context.Context, r *http.Request, f form) (asker, *Error) {
	bearer, keys := r.Header["Authorization"], r.Header["X-Api-Key"]
	text := ""
	if len(bearer) == 1 {
		if scheme, rest, _ := strings.Cut(bearer[0], " "); strings.EqualFold(scheme, "Bearer") {
			text = strings.TrimLeft(rest, " ")
		} else if len(keys) == 0 {
			return s.clientAsks(ctx, r, f)
		}
	}
	switch {
	case len(bearer)+len(keys) == 0:
		return s.clientAsks(ctx, r, f)
	case len(bearer)+len(keys) > 1 || f.get("client_id") != "" || f.get("client_secret") != "" || f.get("client_assertion") != "":
		return asker{}, fail(InvalidRequest, "the request is authenticated in more than one way")
	case len(keys) == 1:
		text = keys[0]
	}
	key, err := s.authority.Validate(ctx, afterlogin.TokenFrom(text), afterlogin.Expect{
		Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}, Scopes: []string{validateScope}, Audience: []string{keyAudience}, From: s.from(r),
	})
	var refused *afterlogin.Refusal
	switch {
	case err == nil:
		services := slices.DeleteFunc(slices.Clone(key.Audience), func(aud string) bool { return aud == keyAudience })
		return asker{id: string(key.ID), services: services}, nil
	case !errors.As(err, &refused):
		return asker{}, s.fault(ctx, err)
	case refused.Reason == afterlogin.ReasonScope:
		return asker{}, &Error{Code: InsufficientScope, Description: "the API key needs the scope validate", Status: http.StatusForbidden,
			challenge: `Bearer realm="afterlogin", error="insufficient_scope", scope="validate"`}
	}
	return asker{}, &Error{Code: InvalidToken, Description: "the API key is not good: " + string(refused.Reason), Status: http.StatusUnauthorized,
		challenge: `Bearer realm="afterlogin", error="invalid_token"`}
}

func (s *Server) clientAsks(ctx context.Context, r *http.Request, f form) (asker, *Error) {
	c, e := s.authenticate(ctx, r.Header, f)
	switch {
	case e != nil:
		return asker{}, e
	case c.settings.Public(): // anybody can say that they are it
		return asker{}, badClient("a client without a secret may not ask about tokens")
	}
	return asker{id: c.id, client: c}, nil
}

var introspectable = []afterlogin.Kind{afterlogin.KindAccess, afterlogin.KindJWT, afterlogin.KindSession, afterlogin.KindAPIKey}

// look returns the session of the token, or nil if it is not good, or none of the asker's business.
func (s *Server) look(ctx context.Context, who asker, text string) (*afterlogin.Session, *Error) {
	if strings.HasPrefix(text, "alr_") {
		return s.lookAtRefresh(ctx, who, text)
	}
	t, err := s.authority.Validate(ctx, afterlogin.TokenFrom(text), afterlogin.Expect{Kinds: introspectable, Audience: claimed(text)})
	switch {
	case err == nil:
	case errors.Is(err, afterlogin.ErrInvalidToken):
		return nil, nil
	default:
		return nil, s.fault(ctx, err)
	}
	if who.client != nil && !s.sees(who.client, t) || len(who.services) > 0 && !s.isFor(who.services, t) {
		return nil, nil
	}
	return t, nil
}

// lookAtRefresh is look for a refresh token, which is active if the token endpoint would take it now. Only its own client
// learns about it, and nothing is ended even if it is out of date: a client may keep old ones, and ask which is the right
// one; presenting one for a new token is what gives a copy away.
func (s *Server) lookAtRefresh(ctx context.Context, who asker, text string) (*afterlogin.Session, *Error) {
	if who.client == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ex, err := s.authority.Explain(ctx, afterlogin.TokenFrom(text), afterlogin.Client{})
	switch {
	case err != nil:
		return nil, s.fault(ctx, err)
	case !ex.Valid || ex.Session.Kind != afterlogin.KindRefresh || ex.Session.Tenant != 0 || ex.Session.Client != who.id:
		return nil, nil
	}
	return ex.Session, nil
}

// describeToken says of a good token what RFC 7662, section 2.2, has words for, and its kind (session, api_key,
// refresh_token, access_token or jwt), which is ours. It is written by hand: encoding/json took as long as everything else
// together.
func (s *Server) describeToken(b []byte, t *afterlogin.Session) []byte {
	o := object{b: append(b, `{"active":true`...)}
	if len(t.Scopes) > 0 {
		o.text("scope", strings.Join(t.Scopes, " "))
	}
	o.text("client_id", t.Client)
	if t.Kind != afterlogin.KindRefresh {
		o.text("token_type", "Bearer")
	}
	end := t.Absolute
	if !t.Idle.IsZero() && t.Idle.Before(end) {
		end = t.Idle
	}
	o.time("exp", end)
	o.time("iat", t.Created)
	o.text("sub", t.Subject)
	if len(t.Audience) == 1 {
		o.text("aud", t.Audience[0])
	} else {
		o.list("aud", t.Audience)
	}
	o.text("iss", s.issuer)
	if t.Kind == afterlogin.KindJWT {
		o.text("jti", t.JWTID)
	} else {
		o.text("jti", string(t.ID))
	}
	o.text("sid", string(t.Root))
	o.time("auth_time", t.Auth.At)
	o.list("amr", t.Auth.AMR())
	o.text("acr", t.Auth.ACR())
	o.act(t.Actors())
	o.text("kind", t.Kind.String())
	return append(o.b, '}')
}

// object is a JSON object that is being written. What is empty is left out.
type object struct{ b []byte }

func (o *object) name(name string) {
	o.b = append(append(append(o.b, `,"`...), name...), `":`...)
}

func (o *object) text(name, value string) {
	if value != "" {
		o.name(name)
		o.b = appendText(o.b, value)
	}
}

// act writes who acts, and in it who acted before (RFC 8693, 4.1).
func (o *object) act(actors []string) {
	for i, who := range actors {
		if i == 0 {
			o.name("act")
		} else {
			o.b = append(o.b, `,"act":`...)
		}
		o.b = appendText(append(o.b, `{"sub":`...), who)
	}
	for range actors {
		o.b = append(o.b, '}')
	}
}

func (o *object) time(name string, t time.Time) {
	if sec := t.Unix(); sec > 0 {
		o.name(name)
		o.b = strconv.AppendInt(o.b, sec, 10)
	}
}

func (o *object) list(name string, values []string) {
	if len(values) == 0 {
		return
	}
	o.name(name)
	for i, v := range values {
		o.b = append(o.b, "[,"[min(i, 1)])
		o.b = appendText(o.b, v)
	}
	o.b = append(o.b, ']')
}

// appendText appends the text as JSON.
func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(text)
			if err != nil {
				panic("oauth: a text that is not JSON: " + err.Error()) // there is none
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}

// typeIntrospection is the type of a signed answer.
const typeIntrospection = "token-introspection+jwt"

// signed answers with a JWT (RFC 9701): for whoever must be able to show later what we said. It is no access token: it has
// another type, neither sub nor exp, and its claims are one level down.
func (s *Server) signed(ctx context.Context, w http.ResponseWriter, who asker, body []byte) *Error {
	payload, err := json.Marshal(struct {
		Issuer   string          `json:"iss"`
		Audience string          `json:"aud"`
		IssuedAt int64           `json:"iat"`
		Token    json.RawMessage `json:"token_introspection"`
	}{s.issuer, who.id, s.now().Unix(), body})
	if err == nil {
		var text string
		if text, err = s.sign(typeIntrospection, payload); err == nil {
			writeBytes(w, http.StatusOK, "application/"+typeIntrospection, []byte(text))
			return nil
		}
	}
	return s.fault(ctx, err)
}

func accepts(h http.Header, media string) bool {
	for _, line := range h["Accept"] {
		for part := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(name), "application/"+media) {
				return true
			}
		}
	}
	return false
}

// decodePart decodes one part of a JWT.
func decodePart(part string) ([]byte, error) {
	if len(part) > jwt.MaxSize {
		return nil, errors.New("too long")
	}
	return base64.RawURLEncoding.DecodeString(part)
}
