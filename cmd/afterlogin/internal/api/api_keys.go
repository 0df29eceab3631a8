package api

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

// CreateKeyRequest says what API key to make, or to import.
type CreateKeyRequest struct {
	Subject   string     `json:"subject" doc:"Whom or what it belongs to: a person, or a service, 1 to 512 bytes."`
	Name      string     `json:"name,omitempty" doc:"What people call it." maxLength:"128"`
	Scopes    []string   `json:"scopes,omitempty" doc:"What it may do, in the application's own words. Those of this API may only be given by a key that has them." maxItems:"100"`
	Lifetime  string     `json:"lifetime,omitempty" doc:"Ends it earlier than its policy, a year: 30d." maxLength:"32"`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"Or when it ends."`
	NoExpiry  bool       `json:"no_expiry,omitempty" doc:"It never ends. The policy api-key must allow that."`
	Networks  []string   `json:"networks,omitempty" doc:"Where it may be used from: 203.0.113.0/24, 2001:db8::/32, or one address. Absent: anywhere." maxItems:"32"`
	Rate      int        `json:"rate,omitempty" doc:"How many requests a minute it may make on each node. Absent: any number." minimum:"0" maximum:"1000000"`
	Audience  []string   `json:"audience,omitempty" doc:"The services it is for. Absent: any." maxItems:"32"`
	Origin    string     `json:"origin,omitempty" doc:"The session that the person made it in: ending that with all that came from it ends the key, too." maxLength:"64"`
	SHA256    string     `json:"sha256,omitempty" doc:"Imports a key that was made elsewhere, by the SHA-256 of its text, in hexadecimal or base64. Its holder goes on using it. It must have at least 128 random bits." maxLength:"64"`
}

// CreatedKey is the answer that hands out an API key.
type CreatedKey struct {
	Token  string   `json:"token,omitempty" doc:"The secret. It is shown this once. Absent for a key that was imported."`
	APIKey *Session `json:"api_key"`
}

// RotateKeyRequest says how to rotate an API key.
type RotateKeyRequest struct {
	Overlap string `json:"overlap,omitempty" doc:"For how long the old key is still good, 0s to 30d; 24h, if absent." maxLength:"32"`
}

type keyListInput struct {
	Subject string `query:"subject" doc:"Only of this subject."`
	Ended   bool   `query:"ended" doc:"Also those that are over and not cleaned up yet."`
	Limit   int    `query:"limit" minimum:"1" maximum:"1000" default:"50"`
	Cursor  string `query:"cursor" doc:"next_cursor of the page before." maxLength:"128"`
}

// KeyIDInput is the id of an API key in the path.
type KeyIDInput struct {
	ID string `path:"id" doc:"An API key's handle, key_…." maxLength:"64"`
}

type createdKeyOutput struct {
	Location string `header:"Location"`
	Body     CreatedKey
}

func (a *API) apiKeyRoutes() {
	register(a, route{
		method: http.MethodPost, path: "/v1/api-keys", scope: APIKeysWrite, id: "create-api-key", status: http.StatusCreated,
		errors:  []int{http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType},
		summary: "Make an API key, or import one", text: "Its secret is in this answer and nowhere else.",
	}, a.createKey)
	register(a, route{
		method: http.MethodGet, path: "/v1/api-keys", scope: SessionsRead, id: "list-api-keys", status: http.StatusOK,
		summary: "List API keys", text: "In a stable order, page by page.",
	}, func(ctx context.Context, in *keyListInput) (*listOutput, error) {
		if in.Subject != "" {
			if err := checkSubject("query.subject", in.Subject); err != nil {
				return nil, err
			}
		}
		return a.list(ctx, in.Subject, Filter{Kind: "api_key", Ended: in.Ended, Limit: in.Limit, Cursor: in.Cursor})
	})
	register(a, route{
		method: http.MethodGet, path: "/v1/api-keys/{id}", scope: SessionsRead, id: "show-api-key", status: http.StatusOK,
		errors: []int{http.StatusNotFound}, summary: "Show an API key", text: "Also one that is over, for as long as it is kept.",
	}, func(ctx context.Context, in *KeyIDInput) (*sessionOutput, error) {
		s, err := a.apiKey(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return &sessionOutput{newSession(s)}, nil
	})
	register(a, route{
		method: http.MethodPost, path: "/v1/api-keys/{id}/rotate", scope: APIKeysWrite, id: "rotate-api-key", status: http.StatusCreated,
		errors:  []int{http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType},
		summary: "Rotate an API key",
		text:    "Answers a new key with the settings of the old one, which stays good for the overlap. They have two ids, so that it can be seen which is in use.",
	}, a.rotateKey)
	register(a, route{
		method: http.MethodDelete, path: "/v1/api-keys/{id}", scope: APIKeysWrite, id: "revoke-api-key", status: http.StatusNoContent,
		errors: []int{http.StatusNotFound}, summary: "End an API key", text: "Durable when answered. Ending it again does no harm.",
	}, func(ctx context.Context, in *struct {
		KeyIDInput
		Wait
	}) (*struct{}, error) {
		s, err := a.apiKey(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		if err := mayTouch(ctx, s); err != nil {
			return nil, err
		}
		return in.done(ctx, a, a.authority.Revoke(ctx, s.ID, afterlogin.ReasonAdministrator))
	})
}

// apiKey returns the API key with the id.
func (a *API) apiKey(ctx context.Context, id string) (*afterlogin.Session, error) {
	s, err := a.authority.Session(ctx, afterlogin.SessionID(id))
	switch {
	case errors.Is(err, afterlogin.ErrNoSession), err == nil && s.Kind != afterlogin.KindAPIKey:
		return nil, NewProblem(http.StatusNotFound, "no-such-session", "there is no such API key, or it ended long ago")
	case err != nil:
		return nil, badID(err)
	}
	return s, nil
}

// mayTouch fails if the key, or the session, is one of the server's own, and the caller is not an administrator.
func mayTouch(ctx context.Context, s *afterlogin.Session) error {
	if !strings.HasPrefix(s.Subject, reserved) {
		return nil
	}
	return need(ctx, "what is the server's own", Admin)
}

// mayGive fails if one of the scopes is of this API and the caller does not have it: nobody gets at more by making a key.
func mayGive(ctx context.Context, scopes []string) error {
	for _, s := range scopes {
		if slices.Contains(Scopes(), Scope(s)) {
			if err := need(ctx, "giving the scope "+s, Scope(s)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *API) createKey(ctx context.Context, in *struct{ Body CreateKeyRequest }) (*createdKeyOutput, error) {
	r, err := a.keyRequest(&in.Body)
	if err != nil {
		return nil, err
	}
	if err := mayGive(ctx, r.Scopes); err != nil {
		return nil, err
	}
	var got afterlogin.Issued
	if in.Body.SHA256 != "" {
		sum, perr := afterlogin.ParseKeyHash(in.Body.SHA256)
		if perr != nil {
			return nil, invalid("body.sha256", "want the SHA-256 of the key's text: 64 hexadecimal digits, or base64")
		}
		got.Session, err = a.authority.ImportKey(ctx, r, sum)
	} else {
		got, err = a.authority.Issue(ctx, r)
	}
	if err != nil {
		return nil, keyProblem(&in.Body, err)
	}
	return createdKey(got), nil
}

func createdKey(got afterlogin.Issued) *createdKeyOutput {
	return &createdKeyOutput{
		Location: "/v1/api-keys/" + string(got.Session.ID),
		Body:     CreatedKey{Token: got.Token.Reveal(), APIKey: newSession(got.Session)},
	}
}

// keyProblem names the field that the authority's words are about.
func keyProblem(in *CreateKeyRequest, err error) error {
	if !errors.Is(err, afterlogin.ErrBadRequest) {
		return err
	}
	switch msg := err.Error(); {
	case strings.Contains(msg, "never expires"):
		return invalid("body.no_expiry", "the policy api-key ends every key: set policies.api-key.absolute to 0s to allow keys without an end")
	case strings.Contains(msg, "has no end"):
		return invalid("body.lifetime", "the policy api-key has no end: give a lifetime, expires_at, or no_expiry")
	case strings.Contains(msg, "imported before"):
		return NewProblem(http.StatusConflict, "key-exists", "this key was imported before, and may have been revoked since: a key is imported once")
	case strings.Contains(msg, "imported keys are not accepted"):
		return invalid("body.sha256", "imported keys are not accepted here: set api_keys.imported in the server's configuration first")
	}
	return err
}

func (a *API) keyRequest(in *CreateKeyRequest) (r afterlogin.IssueRequest, err error) {
	if err := checkOwnSubject("body.subject", in.Subject); err != nil {
		return r, err
	}
	r = afterlogin.IssueRequest{
		Kind: afterlogin.KindAPIKey, Subject: in.Subject, Name: in.Name, Scopes: in.Scopes, NoExpiry: in.NoExpiry,
		Rate: in.Rate, Audience: in.Audience, Origin: afterlogin.SessionID(in.Origin),
	}
	ends := 0
	for _, given := range []bool{in.Lifetime != "", in.ExpiresAt != nil, in.NoExpiry} {
		if given {
			ends++
		}
	}
	if ends > 1 {
		return r, invalid("body.lifetime", "give lifetime, expires_at or no_expiry, one of them")
	}
	if r.Lifetime, err = duration("lifetime", in.Lifetime); err != nil {
		return r, err
	}
	if in.ExpiresAt != nil {
		if r.Lifetime = in.ExpiresAt.Sub(a.now()); r.Lifetime < time.Second {
			return r, invalid("body.expires_at", "is not in the future")
		}
	}
	for _, text := range in.Networks {
		p, err := network(text)
		if err != nil {
			return r, err
		}
		r.Networks = append(r.Networks, p)
	}
	if Redact(in.Name) != in.Name {
		return r, invalid("body.name", "this looks like a token: a name is shown in lists")
	}
	return r, nil
}

// network reads a network, or one address.
func network(text string) (netip.Prefix, error) {
	bad := invalid("body.networks", "want networks such as 203.0.113.0/24 or 2001:db8::/32, or addresses")
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, bad
	case p.Addr().Is4In6():
		return p, invalid("body.networks", "write an IPv4 network as such, 203.0.113.0/24: requests are compared in that form")
	case p != p.Masked():
		return p, invalid("body.networks", "%s has bits behind its length: did you mean %s?", p, p.Masked())
	}
	return p, nil
}

func (a *API) rotateKey(ctx context.Context, in *struct {
	KeyIDInput
	Body *RotateKeyRequest
}) (*createdKeyOutput, error) {
	overlap := afterlogin.DefaultOverlap
	if in.Body != nil && in.Body.Overlap != "" {
		var err error
		if overlap, err = config.ParseDuration(in.Body.Overlap); err != nil {
			return nil, invalid("body.overlap", "%v", err)
		}
	}
	s, err := a.apiKey(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := mayTouch(ctx, s); err != nil {
		return nil, err
	}
	if err := mayGive(ctx, s.Scopes); err != nil {
		return nil, err
	}
	got, err := a.authority.RotateKey(ctx, s.ID, overlap)
	if errors.Is(err, afterlogin.ErrBadRequest) && strings.Contains(err.Error(), "has a successor") {
		msg := strings.TrimPrefix(err.Error(), afterlogin.ErrBadRequest.Error()+": ")
		return nil, NewProblem(http.StatusConflict, "rotation-pending", msg)
	}
	if err != nil {
		return nil, err
	}
	return createdKey(got), nil
}
