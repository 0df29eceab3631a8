package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
)

// Times of a rotation.
const (
	// jwksAge is for how long verifiers keep the JWKS.
	jwksAge = 10 * time.Minute
	// defaultLead is how long a new key is published before it signs, and the least that can be asked for: as long as
	// verifiers keep the keys they have, and 5 minutes for those that were fetching, and for caches on the way.
	defaultLead = jwksAge + 5*time.Minute
	maxLead     = 30 * 24 * time.Hour
	// keepKey is how long a key is accepted after its successor has begun to sign: as long as any policy lets a JWT live,
	// and by how much clocks may differ.
	keepKey = time.Hour + jwt.MaxLeeway
)

// A SigningKey is what a caller learns of a key that signs JWTs. It holds no secret.
type SigningKey struct {
	ID        string     `json:"kid" doc:"Its id in the headers of JWTs, and in the JWKS: the RFC 7638 thumbprint."`
	Algorithm string     `json:"alg" enum:"EdDSA,ES256,RS256"`
	State     string     `json:"state" enum:"next,signing,accepted,expired,retired" doc:"next: published, and does not sign yet. signing: new tokens are signed with it. accepted: published until its last token is dead. expired: its last token is dead. retired: taken away in an emergency."`
	CreatedAt time.Time  `json:"created_at"`
	SignsFrom *time.Time `json:"signs_from,omitempty" doc:"When it begins to sign, or began. Absent: it always has."`
	Until     *time.Time `json:"until,omitempty" doc:"When its last token is dead, or when it was retired. Absent as long as it has no successor."`
}

// SigningKeys are all signing keys, in the order of their creation.
type SigningKeys struct {
	Data []*SigningKey `json:"data"`
}

// RotateSigningRequest says how to rotate the signing key.
type RotateSigningRequest struct {
	Algorithm string `json:"algorithm,omitempty" enum:"EdDSA,ES256,RS256" doc:"What the server signs JWTs with, if absent. The first key of an algorithm signs at once."`
	Lead      string `json:"lead,omitempty" doc:"How long the new key is published before it signs, 15m to 30d; 15m, if absent. Verifiers keep the JWKS for 10m." maxLength:"32"`
}

type signingKeysOutput struct{ Body SigningKeys }

type signingKeyOutput struct{ Body *SigningKey }

func (a *API) signingKeyRoutes() {
	register(a, route{
		method: http.MethodGet, path: "/v1/keys", scope: ServerRead, id: "list-signing-keys", status: http.StatusOK,
		summary: "List signing keys", text: "Those that sign JWTs, those that will, and those that did, until a month after their end.",
	}, func(ctx context.Context, _ *struct{}) (*signingKeysOutput, error) {
		if err := a.hasKeys(); err != nil {
			return nil, err
		}
		out := &signingKeysOutput{SigningKeys{Data: []*SigningKey{}}}
		for _, k := range a.keys.SigningKeys() {
			out.Body.Data = append(out.Body.Data, a.signingKey(k))
		}
		return out, nil
	})
	register(a, route{
		method: http.MethodPost, path: "/v1/keys/rotate", scope: Admin, id: "rotate-signing-key", status: http.StatusCreated,
		errors:  []int{http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType},
		summary: "Rotate the signing key",
		text: "Publishes a new key, which begins to sign when every verifier has had time to read it; no request fails. The old one is accepted until its last token is dead. " +
			"Durable when answered. 409 `rotation-pending` if the next key is published already.",
	}, a.rotateSigning)
	register(a, route{
		method: http.MethodPost, path: "/v1/keys/{kid}/retire", scope: Admin, id: "retire-signing-key", status: http.StatusOK,
		errors:  []int{http.StatusNotFound, http.StatusConflict},
		summary: "Take a signing key away, in an emergency",
		text: "For a key whose private half got out. It is not published any more, and we refuse what it signed at once; other verifiers do when they read the JWKS again, within 10 minutes. " +
			"Answers the key that signs from now on, whose tokens they refuse until then, too. It takes no body.",
	}, a.retireSigning)
}

func (a *API) hasKeys() error {
	if a.keys == nil {
		return NewProblem(http.StatusNotFound, "no-such-key", "this server has no signing keys of its own")
	}
	return nil
}

func (a *API) signingKey(k keyring.SigningKey) *SigningKey {
	now := a.now()
	out := &SigningKey{ID: k.ID, Algorithm: string(k.Algorithm), CreatedAt: k.Created.UTC(), SignsFrom: stamp(k.SignsFrom), Until: stamp(k.Until)}
	signer, err := a.keys.Signer(k.Algorithm, now)
	switch {
	case k.Retired:
		out.State = "retired"
	case !k.Until.IsZero() && !now.Before(k.Until):
		out.State = "expired"
	case err == nil && signer.ID() == k.ID:
		out.State = "signing"
	case k.SignsFrom.After(now):
		out.State = "next"
	default:
		out.State = "accepted"
	}
	return out
}

func (a *API) rotateSigning(ctx context.Context, in *struct{ Body *RotateSigningRequest }) (*signingKeyOutput, error) {
	if err := a.hasKeys(); err != nil {
		return nil, err
	}
	alg, lead := a.algorithm, defaultLead
	if b := in.Body; b != nil {
		if b.Algorithm != "" {
			alg = jwt.Algorithm(b.Algorithm)
		}
		if b.Lead != "" {
			var err error
			if lead, err = config.ParseDuration(b.Lead); err != nil {
				return nil, invalid("body.lead", "%v", err)
			}
			if lead < defaultLead || lead > maxLead {
				return nil, invalid("body.lead", "want 15m to 30d: verifiers keep the keys they have for 10 minutes, and caches on the way for a little longer. If the key got out, retire it")
			}
		}
	}
	k, err := a.keys.RotateSigning(alg, a.now(), lead, keepKey)
	switch {
	case errors.Is(err, keyring.ErrRotationPending):
		return nil, NewProblem(http.StatusConflict, "rotation-pending", "the next key of "+string(alg)+" is published already and does not sign yet")
	case errors.Is(err, keyring.ErrUnavailable):
		return nil, fmt.Errorf("%w: %w", afterlogin.ErrUnavailable, err)
	case errors.Is(err, keyring.ErrTooManyKeys):
		return nil, NewProblem(http.StatusConflict, "rotation-pending", "64 signing keys are published until their tokens are dead: try again later")
	case err != nil:
		return nil, err
	}
	a.log.InfoContext(ctx, "signing key rotated", "request_id", RequestID(ctx), "kid", k.ID, "alg", k.Algorithm, "signs_from", k.SignsFrom, "by", callerID(ctx))
	return &signingKeyOutput{a.signingKey(k)}, nil
}

func (a *API) retireSigning(ctx context.Context, in *struct {
	ID string `path:"kid" doc:"The key's id." maxLength:"64"`
}) (*signingKeyOutput, error) {
	if err := a.hasKeys(); err != nil {
		return nil, err
	}
	keys := a.keys.SigningKeys()
	i := slices.IndexFunc(keys, func(k keyring.SigningKey) bool { return k.ID == in.ID })
	switch {
	case i < 0:
		return nil, NewProblem(http.StatusNotFound, "no-such-key", "there is no signing key of this id")
	case keys[i].Retired:
		return nil, NewProblem(http.StatusConflict, "key-retired", "this key is retired already")
	}
	k, err := a.keys.RetireSigning(in.ID, a.now())
	if errors.Is(err, keyring.ErrUnavailable) {
		return nil, fmt.Errorf("%w: %w", afterlogin.ErrUnavailable, err)
	}
	if err != nil {
		return nil, err
	}
	a.log.WarnContext(ctx, "signing key retired", "request_id", RequestID(ctx), "kid", in.ID, "signing", k.ID, "by", callerID(ctx))
	return &signingKeyOutput{a.signingKey(k)}, nil
}

// callerID names the API key of the request, for the log.
func callerID(ctx context.Context) string {
	if c := caller(ctx); c != nil {
		return string(c.ID)
	}
	return ""
}
