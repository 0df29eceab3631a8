package jwt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Leeway.
const (
	DefaultLeeway = 30 * time.Second
	MaxLeeway     = 60 * time.Second
)

// A Verifier checks tokens of one issuer, of one type, for one audience. Keys, Issuer, Audience and Type must be set. It
// is safe for concurrent use while its fields do not change.
type Verifier struct {
	// Keys are the issuer's. They decide the algorithm.
	Keys KeySet
	// Issuer must be the iss of the token, byte for byte.
	Issuer string
	// Audience holds the names of the verifier: one of them must be in the token's aud.
	Audience []string
	// Type must be the typ of the token, such as TypeAccessToken. "application/" before it and case make no difference.
	Type string
	// Algorithms are those that are accepted. Nil is all of this package.
	Algorithms []Algorithm
	// Now tells the time. Nil is time.Now.
	Now func() time.Time
	// Leeway is by how much the issuer's clock may differ, at most a minute. Zero is 30 s; negative is none.
	Leeway time.Duration
}

// Check returns ErrVerifier, with what is missing, if the verifier cannot verify. Verify does the same; Check is for
// finding out when a program starts.
func (v *Verifier) Check() error {
	switch {
	case v == nil || v.Keys == nil:
		return fmt.Errorf("%w: Keys is nil", ErrVerifier)
	case v.Issuer == "":
		return fmt.Errorf("%w: Issuer is empty", ErrVerifier)
	case len(v.Audience) == 0 || slices.Contains(v.Audience, ""):
		return fmt.Errorf("%w: Audience is empty; name whom the tokens must be for", ErrVerifier)
	case !goodType(v.Type):
		return fmt.Errorf("%w: Type %q is not the end of a media type, such as at+jwt", ErrVerifier, v.Type)
	case v.Leeway > MaxLeeway:
		return fmt.Errorf("%w: Leeway is over %v", ErrVerifier, MaxLeeway)
	}
	for _, a := range v.Algorithms {
		if algorithm(string(a)) != a {
			return fmt.Errorf("%w: unknown algorithm %q", ErrVerifier, a)
		}
	}
	return nil
}

// Verify returns the claims of the token if everything is right: the form, the type, a key of the issuer's and its
// algorithm, the signature, the claims' form, issuer, audience, and the time (exp, nbf and iat). Otherwise it returns no
// claims and one error: a refusal (ErrInvalid, with its reason), ErrUnavailable if the issuer's keys are not known now,
// or ErrVerifier. It does not look whether the session was revoked meanwhile, nor who presents a token that is bound by
// Confirmation: that is the caller's. Its work is bounded by MaxSize.
func (v *Verifier) Verify(ctx context.Context, token string) (*Claims, error) {
	if err := v.Check(); err != nil {
		return nil, err
	}
	p, err := split(token)
	if err != nil {
		return nil, err
	}
	if !sameType(p.typ, v.Type) {
		return nil, ErrType
	}
	if v.Algorithms != nil && !slices.Contains(v.Algorithms, p.alg) {
		return nil, refuse(ReasonAlgorithm, "not one of those that are accepted here")
	}
	key, err := v.Keys.Key(ctx, p.kid)
	switch {
	case errors.Is(err, ErrInvalid):
		return nil, ErrUnknownKey
	case errors.Is(err, ErrUnavailable):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case key == nil:
		return nil, ErrUnknownKey
	}
	payload, err := p.payloadBy(key)
	if err != nil {
		return nil, err
	}
	c, err := parseClaims(payload)
	if err != nil {
		return nil, err
	}
	if err := v.judge(c); err != nil {
		return nil, err
	}
	return c, nil
}

// judge looks at the claims that every token must have.
func (v *Verifier) judge(c *Claims) error {
	now, leeway := time.Now, v.Leeway
	if v.Now != nil {
		now = v.Now
	}
	if leeway == 0 {
		leeway = DefaultLeeway
	}
	t, leeway := now(), max(leeway, 0)
	switch {
	case c.Issuer != v.Issuer:
		return ErrIssuer
	case !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(v.Audience, a) }):
		return ErrAudience
	case c.Expiry.IsZero():
		return refuse(ReasonClaims, "exp is missing")
	case !t.Before(c.Expiry.Add(leeway)):
		return ErrExpired
	case c.NotBefore.After(t.Add(leeway)) || c.IssuedAt.After(t.Add(leeway)):
		return ErrNotYetValid
	}
	return nil
}

// VerifyJWS returns the payload of a JWS in compact form (RFC 7515, 7.1) if its signature is the key's, with the key's
// algorithm, and its header is one that Verify would read. It looks at nothing else: neither at type, issuer, audience and
// time, nor whether the key is the one that the header names. For tokens use a Verifier.
func (k *PublicKey) VerifyJWS(jws string) ([]byte, error) {
	p, err := split(jws)
	if err != nil {
		return nil, err
	}
	return p.payloadBy(k)
}

// parts is a token that was taken apart. Nothing in it is to be believed yet.
type parts struct {
	alg       Algorithm
	typ, kid  string
	signed    string // header and payload, as they were signed
	payload   string // base64url
	signature string // base64url
}

// maxHeader is the greatest size of a header, in base64url.
const maxHeader = 2 << 10

// split takes a token apart and reads its header.
func split(token string) (parts, error) {
	var p parts
	if len(token) > MaxSize {
		return p, refuse(ReasonMalformed, "over 8 KiB")
	}
	header, rest, ok1 := strings.Cut(token, ".")
	payload, signature, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 || strings.IndexByte(signature, '.') >= 0 {
		return p, refuse(ReasonMalformed, "not three parts")
	}
	if len(header) > maxHeader {
		return p, refuse(ReasonMalformed, "a header over 2 KiB")
	}
	p.payload, p.signature, p.signed = payload, signature, token[:len(header)+1+len(payload)]
	text, ok := decode64(header)
	if !ok {
		return p, refuse(ReasonMalformed, "a header that is not canonical base64url")
	}
	return p, p.header(text)
}

// header reads the header. What could bring a key along, or change how the rest is to be read, is refused, not ignored
// (RFC 8725, 3.10; RFC 7515, 4.1.11): no token that is meant for us has it.
func (p *parts) header(b []byte) error {
	var alg string
	err := members(b, func(name string, value []byte) error {
		ok := true
		switch name {
		case "alg":
			alg, ok = text(value)
		case "typ":
			p.typ, ok = text(value)
		case "kid":
			p.kid, ok = text(value)
			ok = ok && p.kid != "" && len(p.kid) <= maxKeyID
		case "cty", "x5t", "x5t#S256":
			_, ok = text(value)
		case "jku", "jwk", "x5u", "x5c":
			return flaw("the header brings a key along")
		case "crit", "b64", "enc", "zip":
			return flaw("the header asks for what is not done here")
		default:
			for _, known := range headerNames {
				ok = ok && !strings.EqualFold(name, known)
			}
		}
		if !ok {
			return flaw("a member of the header is not what it must be")
		}
		return nil
	})
	if err != nil {
		return refuse(ReasonMalformed, err.Error()) // a flaw, which holds nothing of the token
	}
	if p.alg = algorithm(alg); p.alg == "" {
		return refuse(ReasonAlgorithm, "not an algorithm that is accepted anywhere here")
	}
	return nil
}

var headerNames = []string{"alg", "typ", "kid", "cty", "x5t", "x5t#S256", "jku", "jwk", "x5u", "x5c", "crit", "b64", "enc", "zip"}

// payloadBy returns the payload if it was signed with the key.
func (p *parts) payloadBy(key *PublicKey) ([]byte, error) {
	if key.alg != p.alg {
		return nil, refuse(ReasonAlgorithm, "not the key's")
	}
	payload, ok1 := decode64(p.payload)
	signature, ok2 := decode64(p.signature)
	if !ok1 || !ok2 {
		return nil, refuse(ReasonMalformed, "not canonical base64url")
	}
	if !key.verify([]byte(p.signed), signature) {
		return nil, ErrSignature
	}
	return payload, nil
}

// sameType compares a header's typ with what it must be, as media types (RFC 7515, 4.1.9).
func sameType(typ, want string) bool {
	if typ == "" {
		return want == TypeUntyped
	}
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	return strings.EqualFold(typ, want)
}
