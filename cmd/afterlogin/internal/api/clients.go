package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
)

const (
	// maxListed is how many clients one answer lists.
	maxListed = 1000
	// defaultSecretOverlap and maxSecretOverlap are for how long a client's old secret is still good.
	defaultSecretOverlap = 24 * time.Hour
	maxSecretOverlap     = 30 * 24 * time.Hour
)

// ClientSettings are an OAuth client's settings, as they are written and read.
type ClientSettings struct {
	Name           string          `json:"name" doc:"What people read when they are asked for consent." maxLength:"100"`
	Auth           string          `json:"auth" enum:"secret,private_key_jwt,none" doc:"How it authenticates: with a secret, with JWTs that it signs, or, if it cannot keep a secret, not at all."`
	JWKS           json.RawMessage `json:"jwks,omitempty" doc:"Its public keys (RFC 7517), for private_key_jwt."`
	GrantTypes     []string        `json:"grant_types,omitempty" doc:"Of authorization_code, refresh_token, client_credentials and urn:ietf:params:oauth:grant-type:token-exchange." maxItems:"4"`
	RedirectURIs   []string        `json:"redirect_uris,omitempty" doc:"Where answers may go, byte for byte; only the port of a loopback address may differ." maxItems:"20"`
	Scopes         []string        `json:"scopes,omitempty" doc:"What it may ask for." maxItems:"50"`
	DefaultScopes  []string        `json:"default_scopes,omitempty" doc:"What it gets if it asks for nothing." maxItems:"50"`
	Resources      []string        `json:"resources,omitempty" doc:"The services that its tokens may be for (RFC 8707). Absent: none in particular." maxItems:"16"`
	Introspects    []string        `json:"introspects,omitempty" doc:"The services that it is: it may ask about tokens for them. * is every service." maxItems:"16"`
	FirstParty     bool            `json:"first_party,omitempty" doc:"It is the operator's own: people are not asked for consent."`
	Offline        bool            `json:"offline,omitempty" doc:"It may have the scope offline_access: grants that outlive the session."`
	AccessFormat   string          `json:"access_format,omitempty" enum:"opaque,jwt" doc:"Of its access tokens; opaque, if absent."`
	AccessLifetime string          `json:"access_lifetime,omitempty" doc:"Shortens the lifetime of its access tokens: 5m." maxLength:"32"`
}

// CreateClientRequest says what OAuth client to register.
type CreateClientRequest struct {
	ID string `json:"id,omitempty" doc:"The client_id; made, if absent. Give services names that no person has: in tokens of its own the client is the subject." maxLength:"64"`
	ClientSettings
	SecretSHA256 string `json:"secret_sha256,omitempty" doc:"The SHA-256 of a secret that was made elsewhere, of 256 random bits, in hexadecimal. Absent: one is made." maxLength:"64"`
}

// ChangeClientRequest replaces a client's settings. Its secrets stay.
type ChangeClientRequest struct {
	Version uint64 `json:"version" doc:"The one that was read: if the client was changed since, the answer is 409."`
	ClientSettings
}

// Client is an OAuth client.
type Client struct {
	ID string `json:"id" doc:"The client_id."`
	ClientSettings
	Secrets  []ClientSecret `json:"secrets,omitempty"`
	FromFile bool           `json:"from_file,omitempty" doc:"The configuration file has it, or had it, and only that changes it."`
	Disabled bool           `json:"disabled,omitempty" doc:"It does not stand in the configuration file any more, and is refused. It can be put back there, or removed here."`
	// Unreadable clients have nothing but an ID, a version and their time of creation.
	Unreadable bool      `json:"unreadable,omitempty" doc:"This version of the server cannot read its settings, and answers its requests with an error. It can be removed."`
	Version    uint64    `json:"version"`
	CreatedAt  time.Time `json:"created_at"`
}

// ClientSecret says of a secret when it began and ends.
type ClientSecret struct {
	CreatedAt *time.Time `json:"created_at,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// CreatedClient is the answer that hands out a secret.
type CreatedClient struct {
	Secret string  `json:"secret,omitempty" doc:"The client_secret. It is shown this once."`
	Client *Client `json:"client"`
}

// ClientList is the list of clients.
type ClientList struct {
	Data []*Client `json:"data"`
	More bool      `json:"more,omitempty" doc:"There are more than 1000."`
}

// RotateSecretRequest says how to replace a client's secret.
type RotateSecretRequest struct {
	Overlap string `json:"overlap,omitempty" doc:"For how long the old secret is still good, 0s to 30d; 24h, if absent." maxLength:"32"`
}

type clientIDInput struct {
	ID string `path:"id" doc:"The client_id." maxLength:"64"`
}

type clientOutput struct{ Body *Client }

type createdClientOutput struct {
	Location string `header:"Location"`
	Body     CreatedClient
}

func (a *API) clientRoutes() {
	changed := []int{http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType}
	register(a, route{
		method: http.MethodPost, path: "/v1/clients", scope: ClientsWrite, id: "create-client", status: http.StatusCreated,
		errors:  []int{http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType},
		summary: "Register an OAuth client", text: "Its secret, if it has one, is in this answer and nowhere else. A client_id is never used again, even after its client was removed.",
	}, a.createClient)
	register(a, route{
		method: http.MethodGet, path: "/v1/clients", scope: ClientsRead, or: ClientsWrite, id: "list-clients", status: http.StatusOK,
		summary: "List OAuth clients", text: "One whose settings cannot be read is listed as `unreadable`, without them.",
	}, func(ctx context.Context, in *struct{}) (*struct{ Body ClientList }, error) {
		out := &struct{ Body ClientList }{ClientList{Data: []*Client{}}}
		for reg, err := range a.authority.Clients(ctx, 0) {
			if err != nil {
				return nil, err
			}
			if len(out.Body.Data) == maxListed {
				out.Body.More = true
				break
			}
			c, err := newClient(reg)
			if err != nil {
				a.log.ErrorContext(ctx, "the settings of an OAuth client cannot be read", "client", reg.Client, "err", err)
				c = &Client{ID: reg.Client, Version: reg.Version, CreatedAt: reg.Created.UTC(), Unreadable: true}
			}
			out.Body.Data = append(out.Body.Data, c)
		}
		return out, nil
	})
	register(a, route{
		method: http.MethodGet, path: "/v1/clients/{id}", scope: ClientsRead, or: ClientsWrite, id: "show-client", status: http.StatusOK,
		errors: []int{http.StatusNotFound}, summary: "Show an OAuth client",
	}, func(ctx context.Context, in *clientIDInput) (*clientOutput, error) {
		reg, err := a.authority.Client(ctx, 0, in.ID)
		if err != nil {
			return nil, badClient(err)
		}
		c, err := newClient(reg)
		return &clientOutput{c}, err
	})
	register(a, route{
		method: http.MethodPut, path: "/v1/clients/{id}", scope: ClientsWrite, id: "change-client", status: http.StatusOK,
		errors: changed, summary: "Replace an OAuth client's settings",
		text: "Grants and tokens that were made before keep what they have.",
	}, a.changeClient)
	register(a, route{
		method: http.MethodPost, path: "/v1/clients/{id}/secret", scope: ClientsWrite, id: "rotate-client-secret", status: http.StatusCreated,
		errors: changed, summary: "Make an OAuth client a new secret",
		text: "The old one stays good for the overlap. If the answer is lost, ask again: that ends no secret which is in use. Three are good at a time; then it is 409 `too-many-secrets`, unless the overlap is 0s, which ends all but the new one.",
	}, a.rotateSecret)
	register(a, route{
		method: http.MethodDelete, path: "/v1/clients/{id}", scope: ClientsWrite, id: "remove-client", status: http.StatusNoContent,
		errors: []int{http.StatusNotFound, http.StatusConflict}, summary: "Remove an OAuth client",
		text: "Durable when answered. Its own access tokens end with it; grants that people gave it can no longer be refreshed.",
	}, func(ctx context.Context, in *clientIDInput) (*struct{}, error) {
		reg, err := a.authority.Client(ctx, 0, in.ID)
		if err != nil {
			return nil, badClient(err)
		}
		// What cannot be read can be removed, and so can what the file had.
		if s, err := clients.Parse(reg.Settings); err == nil && s.FromFile && !s.Disabled {
			return nil, clientInFile(s)
		}
		return nil, badClient(a.authority.RemoveClient(ctx, 0, in.ID))
	})
}

// badClient turns the authority's errors about clients into answers.
func badClient(err error) error {
	var field *clients.FieldError
	switch {
	case errors.Is(err, afterlogin.ErrNoClient):
		return NewProblem(http.StatusNotFound, "no-such-client", "there is no such client")
	case errors.Is(err, afterlogin.ErrClientExists):
		return NewProblem(http.StatusConflict, "client-exists", "body.id: there is, or was, a client of this name: choose another", FieldError{"body.id", "there is, or was, a client of this name"})
	case errors.Is(err, afterlogin.ErrClientChanged):
		return NewProblem(http.StatusConflict, "client-changed", "the client was changed meanwhile: read it again, and send its version")
	case errors.As(err, &field):
		name := field.Field
		switch first, _, _ := strings.Cut(name, "."); first {
		case "access_seconds":
			name = "access_lifetime"
		case "secrets":
			name = "auth"
		}
		return invalid("body."+name, "%s", field.Message)
	}
	return err
}

// newClient returns what is shown of a client.
func newClient(reg *afterlogin.Registration) (*Client, error) {
	s, err := clients.Parse(reg.Settings)
	if err != nil {
		return nil, err
	}
	c := &Client{
		ID: reg.Client, FromFile: s.FromFile, Disabled: s.Disabled, Version: reg.Version, CreatedAt: reg.Created.UTC(),
		ClientSettings: ClientSettings{
			Name: s.Name, Auth: s.Auth, JWKS: s.Keys, GrantTypes: s.GrantTypes, RedirectURIs: s.RedirectURIs, Scopes: s.Scopes, DefaultScopes: s.DefaultScopes,
			Resources: s.Resources, Introspects: s.Introspects, FirstParty: s.FirstParty, Offline: s.Offline, AccessFormat: s.Format,
		},
	}
	if s.AccessSeconds > 0 {
		c.AccessLifetime = config.Duration(s.Access()).String()
	}
	for _, h := range s.Secrets {
		var shown ClientSecret
		if h.Created != 0 {
			t := time.Unix(h.Created, 0).UTC()
			shown.CreatedAt = &t
		}
		if h.Until != 0 {
			t := time.Unix(h.Until, 0).UTC()
			shown.ExpiresAt = &t
		}
		c.Secrets = append(c.Secrets, shown)
	}
	return c, nil
}

// settings returns what is to be stored.
func (in *ClientSettings) settings() (*clients.Settings, error) {
	life, err := duration("access_lifetime", in.AccessLifetime)
	if err != nil {
		return nil, err
	}
	if life%time.Second != 0 {
		return nil, invalid("body.access_lifetime", "want whole seconds")
	}
	return &clients.Settings{
		Name: in.Name, Auth: in.Auth, Keys: in.JWKS, GrantTypes: in.GrantTypes, RedirectURIs: in.RedirectURIs, Scopes: in.Scopes, DefaultScopes: in.DefaultScopes,
		Resources: in.Resources, Introspects: in.Introspects, FirstParty: in.FirstParty, Offline: in.Offline, Format: in.AccessFormat,
		AccessSeconds: int(life / time.Second),
	}, nil
}

func (a *API) createClient(ctx context.Context, in *struct{ Body CreateClientRequest }) (*createdClientOutput, error) {
	id := in.Body.ID
	if id == "" {
		id = clients.NewID()
	} else if err := clients.CheckID(id); err != nil {
		return nil, invalid("body.id", "%v", err)
	}
	s, err := in.Body.settings()
	if err != nil {
		return nil, err
	}
	secret := ""
	switch {
	case in.Body.SecretSHA256 != "":
		hash, err := clients.ParseHash(in.Body.SecretSHA256)
		if err != nil {
			return nil, invalid("body.secret_sha256", "%v", err)
		}
		hash.Created = a.now().Unix()
		s.Secrets = []clients.SecretHash{hash}
	case s.Auth == clients.Secret:
		var hash clients.SecretHash
		secret, hash = clients.NewSecret(a.now())
		s.Secrets = []clients.SecretHash{hash}
	}
	if err := s.Check(); err != nil {
		return nil, badClient(err)
	}
	reg, err := a.authority.AddClient(ctx, 0, id, s.JSON())
	if err != nil {
		return nil, badClient(err)
	}
	c, err := newClient(reg)
	if err != nil {
		return nil, err
	}
	return &createdClientOutput{Location: "/v1/clients/" + id, Body: CreatedClient{Secret: secret, Client: c}}, nil
}

// clientInFile refuses to change a client that is the configuration file's. One that was taken out there is no exception: a
// change would let it in again, and the file could not have it back.
func clientInFile(s *clients.Settings) error {
	if s.Disabled {
		return NewProblem(http.StatusConflict, "client-in-file", "this client was in the server's configuration file: put it back there and start the server again, or remove it for good")
	}
	return NewProblem(http.StatusConflict, "client-in-file", "the server's configuration file has this client: change it there, and start the server again")
}

// changeable returns a client that the API may change.
func (a *API) changeable(ctx context.Context, id string) (*afterlogin.Registration, *clients.Settings, error) {
	reg, err := a.authority.Client(ctx, 0, id)
	if err != nil {
		return nil, nil, badClient(err)
	}
	s, err := clients.Parse(reg.Settings)
	if err != nil {
		return nil, nil, err
	}
	if s.FromFile {
		return nil, nil, clientInFile(s)
	}
	return reg, s, nil
}

func (a *API) changeClient(ctx context.Context, in *struct {
	ID   string `path:"id" doc:"The client_id." maxLength:"64"`
	Body ChangeClientRequest
}) (*clientOutput, error) {
	_, had, err := a.changeable(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	s, err := in.Body.settings()
	if err != nil {
		return nil, err
	}
	if s.Auth == clients.Secret {
		s.Secrets = had.Secrets
		if len(s.Secrets) == 0 {
			return nil, invalid("body.auth", "the client has no secret: register another one with auth secret")
		}
	}
	if err := s.Check(); err != nil {
		return nil, badClient(err)
	}
	reg, err := a.authority.ChangeClient(ctx, 0, in.ID, s.JSON(), in.Body.Version)
	if err != nil {
		return nil, badClient(err)
	}
	c, err := newClient(reg)
	return &clientOutput{c}, err
}

func (a *API) rotateSecret(ctx context.Context, in *struct {
	ID   string `path:"id" doc:"The client_id." maxLength:"64"`
	Body RotateSecretRequest
}) (*createdClientOutput, error) {
	reg, s, err := a.changeable(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if s.Auth != clients.Secret {
		return nil, NewProblem(http.StatusConflict, "client-without-secret", "this client does not authenticate with a secret")
	}
	overlap := defaultSecretOverlap
	if in.Body.Overlap != "" {
		if overlap, err = config.ParseDuration(in.Body.Overlap); err != nil || overlap > maxSecretOverlap {
			return nil, invalid("body.overlap", "want 0s to 30d")
		}
	}
	secret, hash := clients.NewSecret(a.now())
	if !s.Rotate(hash, a.now(), overlap) {
		return nil, NewProblem(http.StatusConflict, "too-many-secrets", "three secrets of this client are good now: wait until one is over, or end all but the new one with the overlap 0s")
	}
	if reg, err = a.authority.ChangeClient(ctx, 0, in.ID, s.JSON(), reg.Version); err != nil {
		return nil, badClient(err)
	}
	c, err := newClient(reg)
	if err != nil {
		return nil, err
	}
	return &createdClientOutput{Location: "/v1/clients/" + in.ID, Body: CreatedClient{Secret: secret, Client: c}}, nil
}
