package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// Limits of what is read.
const (
	MaxKeySize  = 8 << 10  // of a JWK, in bytes
	MaxKeysSize = 64 << 10 // of a JWKS, in bytes
	maxKeys     = 100      // in a JWKS
	maxKeyID    = 128      // of a kid, in bytes
)

// ParseJWK reads a public key from a JWK (RFC 7517, 7518, 8037): kty OKP with Ed25519, EC with P-256, or RSA. If "alg" is
// there it must be the algorithm of that kind; "use" must be sig and "key_ops" hold verify, if they are there. The id is
// the "kid", at most 128 bytes, or the thumbprint if there is none. It returns ErrKey for anything else: a text over 8 KiB
// or not strict JSON, a private or symmetric key, coordinates of a wrong length or not on the curve, and what NewPublicKey
// refuses. Certificates and addresses in it are ignored.
func ParseJWK(jwk []byte) (*PublicKey, error) {
	if len(jwk) > MaxKeySize {
		return nil, fmt.Errorf("%w: a JWK over %d bytes", ErrKey, MaxKeySize)
	}
	m, err := parseMembers(jwk)
	if err != nil {
		return nil, fmt.Errorf("%w: a JWK that is %w", ErrKey, err)
	}
	return m.publicKey()
}

// jwkMembers are the members of a JWK that mean something here.
type jwkMembers struct {
	texts  map[string]string
	ops    []string
	hasOps bool
	secret bool
}

func parseMembers(jwk []byte) (*jwkMembers, error) {
	m := &jwkMembers{texts: make(map[string]string, 8)}
	var bad error // read on nevertheless: a private key is to be seen as such, however broken
	err := members(jwk, func(name string, value []byte) error {
		ok := true
		switch name {
		case "kty", "crv", "x", "y", "n", "e", "alg", "use", "kid":
			m.texts[name], ok = text(value)
			ok = ok && m.texts[name] != ""
		case "key_ops":
			m.ops, ok = texts(value, 16)
			m.hasOps = true
		case "d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv":
			m.secret = true
		}
		if !ok {
			bad = flaw("no key: a member is empty or of a wrong type")
		}
		return nil
	})
	return m, errors.Join(err, bad)
}

// errSecret is a private or symmetric key where only public ones may be.
var errSecret = fmt.Errorf("%w: a private or symmetric key among public keys; whoever could read it can sign", ErrKey)

func (m *jwkMembers) publicKey() (*PublicKey, error) {
	kty := m.texts["kty"]
	if m.secret || kty == "oct" {
		return nil, errSecret
	}
	if use, ok := m.texts["use"]; ok && use != "sig" {
		return nil, fmt.Errorf("%w: its use is not sig", ErrKey)
	}
	if m.hasOps && !slices.Contains(m.ops, "verify") {
		return nil, fmt.Errorf("%w: its key_ops do not hold verify", ErrKey)
	}
	var key any
	var err error
	switch crv := m.texts["crv"]; {
	case kty == "OKP" && crv == "Ed25519":
		var x []byte
		x, err = m.bytes("x", 32)
		key = ed25519.PublicKey(x)
	case kty == "EC" && crv == "P-256":
		key, err = m.point()
	case kty == "RSA":
		key, err = m.rsa()
	default:
		return nil, fmt.Errorf("%w: unknown kty or crv", ErrKey)
	}
	if err != nil {
		return nil, err
	}
	k, err := NewPublicKey(key)
	if err != nil {
		return nil, err
	}
	if alg, ok := m.texts["alg"]; ok && algorithm(alg) != k.alg {
		return nil, fmt.Errorf("%w: its alg is not %s", ErrKey, k.alg)
	}
	if id, ok := m.texts["kid"]; ok {
		if len(id) > maxKeyID {
			return nil, fmt.Errorf("%w: a kid over %d bytes", ErrKey, maxKeyID)
		}
		k.id = id
	}
	return k, nil
}

// bytes decodes the member, which must be of the size.
func (m *jwkMembers) bytes(name string, size int) ([]byte, error) {
	b, ok := decode64(m.texts[name])
	if !ok || len(b) != size {
		return nil, fmt.Errorf("%w: %s is not %d bytes in base64url", ErrKey, name, size)
	}
	return b, nil
}

func (m *jwkMembers) point() (*ecdsa.PublicKey, error) {
	x, errX := m.bytes("x", 32)
	y, errY := m.bytes("y", 32)
	if err := errors.Join(errX, errY); err != nil {
		return nil, err
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, fmt.Errorf("%w: not a point of P-256", ErrKey)
	}
	return key, nil
}

func (m *jwkMembers) rsa() (*rsa.PublicKey, error) {
	n, okN := decode64(m.texts["n"])
	e, okE := decode64(m.texts["e"])
	if !okN || !okE || len(n) == 0 || len(e) == 0 || n[0] == 0 || e[0] == 0 { // the fewest bytes (RFC 7518, 6.3.1)
		return nil, fmt.Errorf("%w: n or e is not a number in base64url without leading zeros", ErrKey)
	}
	if len(e) > 4 || len(n) > maxRSABits/8 {
		return nil, fmt.Errorf("%w: n or e is too large", ErrKey)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
}

// required returns the members that a thumbprint covers, in its order and form (RFC 7638, 3.2).
func (k *PublicKey) required() []byte {
	o := object{b: []byte{'{'}}
	switch key := k.key.(type) {
	case ed25519.PublicKey:
		o.text("crv", "Ed25519")
		o.text("kty", "OKP")
		o.text("x", encoding.EncodeToString(key))
	case *ecdsa.PublicKey:
		b, err := key.Bytes()
		if err != nil {
			panic(err) // it was checked when the key was made
		}
		o.text("crv", "P-256")
		o.text("kty", "EC")
		o.text("x", encoding.EncodeToString(b[1:33]))
		o.text("y", encoding.EncodeToString(b[33:]))
	case *rsa.PublicKey:
		o.text("e", encoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()))
		o.text("kty", "RSA")
		o.text("n", encoding.EncodeToString(key.N.Bytes()))
	}
	return append(o.b, '}')
}

// MarshalJSON returns the key as a JWK with kid, use and alg.
func (k *PublicKey) MarshalJSON() ([]byte, error) {
	required := k.required()
	o := object{b: required[:len(required)-1]}
	o.text("kid", k.id)
	o.text("use", "sig")
	o.text("alg", string(k.alg))
	return append(o.b, '}'), nil
}

// String returns the algorithm and the id.
func (k *PublicKey) String() string { return string(k.alg) + " key " + k.id }

// MarshalJSON returns the set as a JWKS (RFC 7517, 5), which is what a JWKS address answers with.
func (s *Keys) MarshalJSON() ([]byte, error) {
	b := []byte(`{"keys":[`)
	for i, k := range s.list {
		if i > 0 {
			b = append(b, ',')
		}
		j, err := k.MarshalJSON()
		if err != nil {
			return nil, err
		}
		b = append(b, j...)
	}
	return append(b, "]}"...), nil
}

// ParseJWKS reads a set of public keys (RFC 7517, 5). Keys that are not meant for this package are left out, as the RFC
// says: of another kind, algorithm or use, too small, or broken. The set may be empty, and then verifies nothing. It
// returns ErrKey for a text over 64 KiB or not strict JSON, for more than 100 keys, for two keys with one id, and for a
// set that holds a private or symmetric key, whatever else is in it.
func ParseJWKS(jwks []byte) (*Keys, error) {
	if len(jwks) > MaxKeysSize {
		return nil, fmt.Errorf("%w: a JWKS over %d bytes", ErrKey, MaxKeysSize)
	}
	var list []*PublicKey
	found, n := false, 0
	err := members(jwks, func(name string, value []byte) error {
		if name != "keys" {
			return nil
		}
		found = true
		if value[0] != '[' {
			return flaw("without a list of keys")
		}
		return elements(value, func(v []byte) error {
			if n++; n > maxKeys {
				return flaw("too long a list of keys")
			}
			m, err := parseMembers(v)
			if m.secret || m.texts["kty"] == "oct" {
				return errSecret
			}
			if err != nil {
				return nil
			}
			if k, err := m.publicKey(); err == nil {
				list = append(list, k)
			}
			return nil
		})
	})
	if err == nil && !found {
		err = flaw("without a list of keys")
	}
	if errors.Is(err, ErrKey) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: a JWKS that is %w", ErrKey, err)
	}
	return NewKeys(list...)
}
