package upstream

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Bounds of what a provider signs and publishes.
const (
	maxToken   = 32 << 10
	maxKeys    = 64
	maxTried   = 8 // keys for one token
	minRSABits = 2048
	maxRSABits = 8192
)

// keySet is the keys that a provider signs with.
type keySet struct{ keys []jose.JSONWebKey }

// fetchKeys fetches the provider's JWKS.
func (u *Upstream) fetchKeys(ctx context.Context, p *provider) (*keySet, error) {
	m, err := p.metadata.get(ctx, nil)
	if err != nil {
		return nil, err
	}
	b, err := u.read(ctx, m.jwks)
	if err == nil {
		var s *keySet
		if s, err = parseKeys(b); err == nil {
			return s, nil
		}
		err = fmt.Errorf("%s: %w", m.jwks, err)
	}
	u.log.Warn("an OpenID provider's keys are not to be had", "provider", p.ID, "issuer", p.Issuer, "err", err)
	return nil, err
}

// parseKeys reads a JWKS (RFC 7517). Keys that are of no use here are passed over: secret ones, those for encryption, and
// those of a kind, a size or an algorithm that is not known.
func parseKeys(b []byte) (*keySet, error) {
	o, err := parseObject(b)
	if err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(o["keys"], &raw); err != nil || raw == nil {
		return nil, errors.New("keys is not a list")
	}
	if len(raw) > maxKeys {
		return nil, fmt.Errorf("%d keys, at most %d", len(raw), maxKeys)
	}
	s := &keySet{}
	for _, text := range raw {
		var k jose.JSONWebKey
		if json.Unmarshal(text, &k) != nil || !k.Valid() || !k.IsPublic() || k.Use != "" && k.Use != "sig" {
			continue
		}
		if key, ok := k.Key.(*rsa.PublicKey); ok && (key.N.BitLen() < minRSABits || key.N.BitLen() > maxRSABits) {
			continue
		}
		k.Certificates = nil
		s.keys = append(s.keys, k)
	}
	return s, nil
}

// errSignature means that nobody knows who made a token.
var errSignature = errors.New("the signature is none of the provider's")

// errTokenForm means that a text is no JWS in the compact form.
var errTokenForm = errors.New("not a signed token in the compact form")

// signed checks signatures with the keys of the provider, which are fetched anew for a token that none of them has signed:
// a provider may change a key and keep its name, or name none. That is not done more often than the interval of p.keys
// allows, however many such tokens strangers send.
type signed struct {
	p          *provider
	algorithms []string
}

// verify returns the payload of the token if one of the provider's keys signed it. Errors: errSignature, and errDown if the
// keys are not known now: also if the token names one that is new, and it is too early to ask for the keys again.
func (s signed) verify(ctx context.Context, jws *jose.JSONWebSignature) ([]byte, error) {
	set, err := s.p.keys.get(ctx, nil)
	if err != nil {
		return nil, err
	}
	payload, known := set.verify(jws)
	if payload != nil {
		return payload, nil
	}
	switch set, err = s.p.keys.get(ctx, set); {
	case known && errors.Is(err, errRecent):
		return nil, errSignature
	case err != nil:
		return nil, err
	}
	if payload, _ = set.verify(jws); payload == nil {
		return nil, errSignature
	}
	return payload, nil
}

// parse reads a token in the compact form, with one of the algorithms. The error is errTokenForm.
func (s signed) parse(token string) (*jose.JSONWebSignature, error) {
	if len(token) > maxToken || strings.Count(token, ".") != 2 {
		return nil, errTokenForm
	}
	algs := make([]jose.SignatureAlgorithm, len(s.algorithms))
	for i, a := range s.algorithms {
		algs[i] = jose.SignatureAlgorithm(a)
	}
	jws, err := jose.ParseSignedCompact(token, algs)
	if err != nil || len(jws.Signatures) != 1 || len(jws.Signatures[0].Header.KeyID) > 1024 {
		return nil, errTokenForm
	}
	return jws, nil
}

// typeOf returns what the token says it is, in lower case and without "application/".
func typeOf(jws *jose.JSONWebSignature) (string, bool) {
	v, ok := jws.Signatures[0].Protected.ExtraHeaders[jose.HeaderType]
	if !ok {
		return "", true
	}
	s, ok := v.(string)
	return strings.TrimPrefix(strings.ToLower(s), "application/"), ok
}

// verify returns the payload, if one of the keys signed it, and whether there are keys of the token's kid. A token without
// one is tried with every key of its algorithm.
func (s *keySet) verify(jws *jose.JSONWebSignature) (payload []byte, known bool) {
	kid, alg := jws.Signatures[0].Header.KeyID, jws.Signatures[0].Header.Algorithm
	tried := 0
	for i := range s.keys {
		k := &s.keys[i]
		if kid != "" && k.KeyID != kid {
			continue
		}
		known = true
		if k.Algorithm != "" && k.Algorithm != alg {
			continue
		}
		if tried++; tried > maxTried {
			break
		}
		if payload, err := jws.Verify(k); err == nil {
			return payload, true
		}
	}
	return nil, known
}
