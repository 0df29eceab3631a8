package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	golangjwt "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"

	"github.com/afterlogin/afterlogin/jwt"
)

// rawTarget is "within 1.25 times the time of the bare signature".
const rawTarget = 1 / 1.25

func jwtComparisons() []comparison {
	var out []comparison
	for _, c := range []struct {
		name, what string
		target     float64
		side       func(*access) (issue, verify func(int) error, err error)
	}{
		{"raw", "one Ed25519 operation on as many bytes", rawTarget, rawSide},
		{"golang-jwt", "golang-jwt/v5", 0.95, golangSide}, // nearly all of it is the same signature
		{"go-jose", "go-jose/v4", 1, joseSide},
		{"jwx", "lestrrat-go/jwx/v3", 1, jwxSide},
	} {
		out = append(out,
			comparison{name: "jwt/issue/" + c.name, target: c.target, set: setJWT(c.side, true),
				what: "an access token of twelve claims, signed with Ed25519, against " + c.what},
			comparison{name: "jwt/verify/" + c.name, target: c.target, set: setJWT(c.side, false),
				what: "the same, verified: key by kid, type, issuer, audience, time; against " + c.what})
	}
	return out
}

// access is what all sides issue and verify.
type access struct {
	private ed25519.PrivateKey
	key     *jwt.SigningKey
	claims  *jwt.Claims
	token   string
}

const (
	jwtIssuer   = "https://id.shop.example"
	jwtAudience = "https://api.shop.example"
)

func newAccess() (*access, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	key, err := jwt.NewSigningKey(private)
	if err != nil {
		return nil, err
	}
	now := time.Now().Truncate(time.Second)
	a := &access{private: private, key: key, claims: &jwt.Claims{
		Issuer: jwtIssuer, Subject: "mia", Audience: []string{jwtAudience}, Expiry: now.Add(time.Hour), IssuedAt: now,
		ID: "0b9e1e2d7c6f4b58", SessionID: "ses_9vXTz6Wc1kq3jB0aYFh2Gg", ClientID: "shop-app", Scope: []string{"cart:read", "cart:write"},
		AuthTime: now.Add(-time.Minute), AMR: []string{"pwd", "otp"}, ACR: "urn:shop:2",
	}}
	a.token, err = key.Sign(jwt.TypeAccessToken, a.claims)
	return a, err
}

func setJWT(side func(*access) (issue, verify func(int) error, err error), issues bool) func() (ours, reference func() (float64, error), done func(), err error) {
	return func() (ours, reference func() (float64, error), done func(), err error) {
		a, err := newAccess()
		if err != nil {
			return nil, nil, nil, err
		}
		issue, verify, err := side(a)
		if err != nil {
			return nil, nil, nil, err
		}
		keys, err := jwt.NewKeys(a.key.Public())
		if err != nil {
			return nil, nil, nil, err
		}
		v := &jwt.Verifier{Keys: keys, Issuer: jwtIssuer, Audience: []string{jwtAudience}, Type: jwt.TypeAccessToken}
		mine := func(int) error { _, err := v.Verify(context.Background(), a.token); return err }
		if issues {
			verify = issue
			mine = func(int) error { _, err := a.key.Sign(jwt.TypeAccessToken, a.claims); return err }
		}
		ours = func() (float64, error) { return rate(300*time.Millisecond, mine) }
		reference = func() (float64, error) { return rate(300*time.Millisecond, verify) }
		return ours, reference, nil, nil
	}
}

func rawSide(a *access) (issue, verify func(int) error, err error) {
	n := len(a.token) - 87 // without the signature and its dot
	message := []byte(a.token[:n])
	sig := ed25519.Sign(a.private, message)
	public := a.private.Public().(ed25519.PublicKey)
	issue = func(int) error {
		if len(ed25519.Sign(a.private, message)) != 64 {
			return errors.New("no signature")
		}
		return nil
	}
	verify = func(int) error {
		if !ed25519.Verify(public, message, sig) {
			return errors.New("the signature is not good")
		}
		return nil
	}
	return issue, verify, nil
}

// libraryClaims are the claims in the form of golang-jwt and go-jose, each with its own registered ones.
type libraryClaims struct {
	SessionID string   `json:"sid"`
	ClientID  string   `json:"client_id"`
	Scope     string   `json:"scope"`
	AuthTime  int64    `json:"auth_time"`
	AMR       []string `json:"amr"`
	ACR       string   `json:"acr"`
}

func (a *access) library() libraryClaims {
	c := a.claims
	return libraryClaims{c.SessionID, c.ClientID, c.Scope[0] + " " + c.Scope[1], c.AuthTime.Unix(), c.AMR, c.ACR}
}

func golangSide(a *access) (issue, verify func(int) error, err error) {
	type claims struct {
		golangjwt.RegisteredClaims
		libraryClaims
	}
	c := a.claims
	issue = func(int) error {
		t := golangjwt.NewWithClaims(golangjwt.SigningMethodEdDSA, claims{golangjwt.RegisteredClaims{
			Issuer: c.Issuer, Subject: c.Subject, Audience: c.Audience, ID: c.ID,
			ExpiresAt: golangjwt.NewNumericDate(c.Expiry), IssuedAt: golangjwt.NewNumericDate(c.IssuedAt)}, a.library()})
		t.Header["kid"], t.Header["typ"] = a.key.ID(), jwt.TypeAccessToken
		_, err := t.SignedString(a.private)
		return err
	}
	keys := map[string]ed25519.PublicKey{a.key.ID(): a.private.Public().(ed25519.PublicKey)}
	parser := golangjwt.NewParser(golangjwt.WithValidMethods([]string{"EdDSA"}), golangjwt.WithIssuer(jwtIssuer),
		golangjwt.WithAudience(jwtAudience), golangjwt.WithExpirationRequired(), golangjwt.WithIssuedAt())
	verify = func(int) error {
		_, err := parser.ParseWithClaims(a.token, &claims{}, func(t *golangjwt.Token) (any, error) {
			kid, _ := t.Header["kid"].(string)
			k, ok := keys[kid]
			if !ok || t.Header["typ"] != jwt.TypeAccessToken {
				return nil, errors.New("unknown key, or another type")
			}
			return k, nil
		})
		return err
	}
	return issue, verify, nil
}

func joseSide(a *access) (issue, verify func(int) error, err error) {
	c := a.claims
	options := (&jose.SignerOptions{}).WithType(jwt.TypeAccessToken)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: a.private, KeyID: a.key.ID()}}, options)
	if err != nil {
		return nil, nil, err
	}
	issue = func(int) error {
		_, err := josejwt.Signed(signer).Claims(josejwt.Claims{
			Issuer: c.Issuer, Subject: c.Subject, Audience: josejwt.Audience(c.Audience), ID: c.ID,
			Expiry: josejwt.NewNumericDate(c.Expiry), IssuedAt: josejwt.NewNumericDate(c.IssuedAt)}).Claims(a.library()).Serialize()
		return err
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: a.private.Public(), KeyID: a.key.ID(), Algorithm: "EdDSA", Use: "sig"}}}
	verify = func(int) error {
		t, err := josejwt.ParseSigned(a.token, []jose.SignatureAlgorithm{jose.EdDSA})
		if err != nil {
			return err
		}
		keys := set.Key(t.Headers[0].KeyID)
		if len(keys) != 1 || t.Headers[0].ExtraHeaders[jose.HeaderType] != jwt.TypeAccessToken {
			return errors.New("unknown key, or another type")
		}
		var registered josejwt.Claims
		var ours libraryClaims
		if err := t.Claims(keys[0].Key, &registered, &ours); err != nil {
			return err
		}
		return registered.Validate(josejwt.Expected{Issuer: jwtIssuer, AnyAudience: josejwt.Audience{jwtAudience}, Time: time.Now()})
	}
	return issue, verify, nil
}

func jwxSide(a *access) (issue, verify func(int) error, err error) {
	c := a.claims
	issue = func(int) error {
		t, err := jwxjwt.NewBuilder().Issuer(c.Issuer).Subject(c.Subject).Audience(c.Audience).JwtID(c.ID).
			Expiration(c.Expiry).IssuedAt(c.IssuedAt).Claim("sid", c.SessionID).Claim("client_id", c.ClientID).
			Claim("scope", c.Scope[0]+" "+c.Scope[1]).Claim("auth_time", c.AuthTime.Unix()).Claim("amr", c.AMR).Claim("acr", c.ACR).Build()
		if err != nil {
			return err
		}
		h := jws.NewHeaders()
		if err := errors.Join(h.Set(jws.KeyIDKey, a.key.ID()), h.Set(jws.TypeKey, jwt.TypeAccessToken)); err != nil {
			return err
		}
		_, err = jwxjwt.Sign(t, jwxjwt.WithKey(jwa.EdDSA(), a.private, jws.WithProtectedHeaders(h)))
		return err
	}
	public, err := jwk.Import(a.private.Public())
	if err != nil {
		return nil, nil, err
	}
	set := jwk.NewSet()
	if err := errors.Join(public.Set(jwk.KeyIDKey, a.key.ID()), public.Set(jwk.AlgorithmKey, jwa.EdDSA()), set.AddKey(public)); err != nil {
		return nil, nil, err
	}
	text := []byte(a.token)
	verify = func(int) error {
		t, err := jwxjwt.Parse(text, jwxjwt.WithKeySet(set), jwxjwt.WithIssuer(jwtIssuer), jwxjwt.WithAudience(jwtAudience))
		if err != nil {
			return err
		}
		if sub, _ := t.Subject(); sub != c.Subject {
			return fmt.Errorf("another subject: %q", sub)
		}
		return nil
	}
	return issue, verify, nil
}
