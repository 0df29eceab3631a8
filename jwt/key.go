package jwt

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"reflect"
)

// An Algorithm is a signature algorithm by its JOSE name (RFC 7518, 3.1). There are no others here: no none, no HMAC.
type Algorithm string

// The algorithms.
const (
	EdDSA Algorithm = "EdDSA" // Ed25519 (RFC 8037). "Ed25519", its name in RFC 9864, is read as the same
	ES256 Algorithm = "ES256" // ECDSA on P-256 with SHA-256
	RS256 Algorithm = "RS256" // RSASSA-PKCS1-v1_5 with SHA-256, for clients that know nothing better
)

// Algorithms returns all algorithms of this package, the default first.
func Algorithms() []Algorithm { return []Algorithm{EdDSA, ES256, RS256} }

// algorithm returns the algorithm with the name in a header or a JWK, "" if there is none. Names are compared with case.
func algorithm(name string) Algorithm {
	switch name {
	case "EdDSA", "Ed25519":
		return EdDSA
	case "ES256":
		return ES256
	case "RS256":
		return RS256
	}
	return ""
}

// Sizes of RSA keys, in bits.
const (
	RSABits    = 3072 // of keys that sign: the least, and what GenerateKey makes
	minRSABits = 2048 // of others' keys (RFC 7518, 3.3)
	maxRSABits = 8192 // a larger one is an attack on the verifier's time
)

// A PublicKey verifies signatures, with one algorithm. It never changes and is safe for concurrent use.
type PublicKey struct {
	id  string
	alg Algorithm
	key crypto.PublicKey // ed25519.PublicKey, *ecdsa.PublicKey or *rsa.PublicKey, checked
}

// NewPublicKey returns the key, an ed25519.PublicKey, *ecdsa.PublicKey on P-256 or *rsa.PublicKey, with its thumbprint as
// id. The kind of the key decides its algorithm. It returns ErrKey for any other key, for a point that is not on the
// curve or of small order, and for an RSA key of less than 2048 or more than 8192 bits, with an exponent below 65537, or
// with the flaw called ROCA (CVE-2017-15361).
func NewPublicKey(key crypto.PublicKey) (*PublicKey, error) {
	k := &PublicKey{key: key}
	switch key := key.(type) {
	case ed25519.PublicKey:
		k.alg = EdDSA
		if !goodPoint(key) {
			return nil, fmt.Errorf("%w: not a point of Ed25519", ErrKey)
		}
	case *ecdsa.PublicKey:
		k.alg = ES256
		if key == nil || key.Curve != elliptic.P256() || key.X == nil || key.Y == nil {
			return nil, fmt.Errorf("%w: an ECDSA key that is not on P-256", ErrKey)
		}
		if _, err := key.Bytes(); err != nil {
			return nil, fmt.Errorf("%w: not a point of P-256", ErrKey)
		}
	case *rsa.PublicKey:
		k.alg = RS256
		if err := checkRSA(key); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%w: a key of an unknown kind, want Ed25519, ECDSA on P-256 or RSA", ErrKey)
	}
	k.id = k.Thumbprint()
	return k, nil
}

func checkRSA(key *rsa.PublicKey) error {
	switch {
	case key == nil || key.N == nil || key.N.BitLen() < minRSABits:
		return fmt.Errorf("%w: an RSA key of less than %d bits", ErrKey, minRSABits)
	case key.N.BitLen() > maxRSABits:
		return fmt.Errorf("%w: an RSA key of more than %d bits", ErrKey, maxRSABits)
	case key.N.Bit(0) == 0:
		return fmt.Errorf("%w: an RSA key with an even modulus", ErrKey)
	case key.E < 65537 || key.E&1 == 0 || int64(key.E) > 1<<31-1:
		return fmt.Errorf("%w: an RSA key whose exponent is not odd, at least 65537 and below 2^31", ErrKey)
	case roca(key.N):
		return fmt.Errorf("%w: an RSA key that can be factored (CVE-2017-15361)", ErrKey)
	}
	return nil
}

// ID returns the kid: the thumbprint, or what the JWK it came from says.
func (k *PublicKey) ID() string { return k.id }

// Algorithm returns the one algorithm of the key.
func (k *PublicKey) Algorithm() Algorithm { return k.alg }

// Key returns the key itself: an ed25519.PublicKey, *ecdsa.PublicKey or *rsa.PublicKey. The caller must not change it.
func (k *PublicKey) Key() crypto.PublicKey { return k.key }

// Thumbprint returns the SHA-256 thumbprint of the key, base64url (RFC 7638, RFC 8037): 43 characters.
func (k *PublicKey) Thumbprint() string {
	h := sha256.Sum256(k.required())
	return encoding.EncodeToString(h[:])
}

// Equal reports whether other is the same key, whatever its id.
func (k *PublicKey) Equal(other *PublicKey) bool {
	e, ok := k.key.(interface{ Equal(crypto.PublicKey) bool })
	return ok && other != nil && e.Equal(other.key)
}

// verify reports whether the signature is the key's over the message.
func (k *PublicKey) verify(message, signature []byte) bool {
	switch key := k.key.(type) {
	case ed25519.PublicKey:
		return len(signature) == ed25519.SignatureSize && ed25519.Verify(key, message, signature)
	case *ecdsa.PublicKey:
		if len(signature) != 64 { // r ‖ s (RFC 7518, 3.4), never DER
			return false
		}
		h := sha256.Sum256(message)
		return ecdsa.Verify(key, h[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	case *rsa.PublicKey:
		h := sha256.Sum256(message)
		return len(signature) == key.Size() && rsa.VerifyPKCS1v15(key, crypto.SHA256, h[:], signature) == nil
	}
	return false
}

// A SigningKey makes signatures, with one algorithm. It never changes and is safe for concurrent use if its signer is.
// Its private key does not print.
type SigningKey struct {
	public *PublicKey
	// A pointer to the signer, so that printing prints an address.
	signer *crypto.Signer
}

// NewSigningKey returns a signing key with the signer's private key, which may live elsewhere. It returns ErrKey for what
// NewPublicKey refuses, and for an RSA key of less than 3072 bits.
func NewSigningKey(signer crypto.Signer) (*SigningKey, error) {
	if signer == nil || reflect.ValueOf(signer).Kind() == reflect.Pointer && reflect.ValueOf(signer).IsNil() {
		return nil, fmt.Errorf("%w: no private key", ErrKey)
	}
	if p, ok := signer.(ed25519.PrivateKey); ok && len(p) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%w: a private Ed25519 key of %d bytes", ErrKey, len(p))
	}
	public, err := NewPublicKey(signer.Public())
	if err != nil {
		return nil, err
	}
	if r, ok := public.key.(*rsa.PublicKey); ok && r.N.BitLen() < RSABits {
		return nil, fmt.Errorf("%w: an RSA key of less than %d bits does not sign", ErrKey, RSABits)
	}
	return &SigningKey{public: public, signer: &signer}, nil
}

// GenerateKey returns a new signing key. It returns ErrKey for an unknown algorithm. An RSA key takes about a second.
func GenerateKey(alg Algorithm) (*SigningKey, error) {
	var s crypto.Signer
	var err error
	switch alg {
	case EdDSA:
		_, s, err = ed25519.GenerateKey(nil)
	case ES256:
		s, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RS256:
		s, err = rsa.GenerateKey(rand.Reader, RSABits)
	default:
		return nil, fmt.Errorf("%w: unknown algorithm %q, want EdDSA, ES256 or RS256", ErrKey, alg)
	}
	if err != nil {
		return nil, fmt.Errorf("jwt: new %s key: %w", alg, err)
	}
	return NewSigningKey(s)
}

// Public returns the public half.
func (k *SigningKey) Public() *PublicKey { return k.public }

// ID returns the kid that stands in the headers of what the key signs: its thumbprint.
func (k *SigningKey) ID() string { return k.public.id }

// Algorithm returns the one algorithm of the key.
func (k *SigningKey) Algorithm() Algorithm { return k.public.alg }

// Signer returns the private key, for whoever keeps it. It must not be printed.
func (k *SigningKey) Signer() crypto.Signer { return *k.signer }

// Format prints the algorithm and the id for every verb, never the private key.
func (k SigningKey) Format(f fmt.State, _ rune) {
	if k.public == nil {
		io.WriteString(f, "no signing key")
		return
	}
	fmt.Fprintf(f, "%s signing key %s", k.public.alg, k.public.id)
}

// sign returns the signature over the message in the form of RFC 7518.
func (k *SigningKey) sign(message []byte) ([]byte, error) {
	signer := *k.signer
	if k.public.alg == EdDSA {
		return signer.Sign(rand.Reader, message, crypto.Hash(0))
	}
	h := sha256.Sum256(message)
	sig, err := signer.Sign(rand.Reader, h[:], crypto.SHA256)
	if err != nil || k.public.alg == RS256 {
		return sig, err
	}
	var point struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(sig, &point); err != nil || len(rest) > 0 ||
		point.R.Sign() <= 0 || point.S.Sign() <= 0 || point.R.BitLen() > 256 || point.S.BitLen() > 256 {
		return nil, fmt.Errorf("%w: the signer's answer is not an ECDSA signature", ErrKey)
	}
	out := make([]byte, 64)
	point.R.FillBytes(out[:32])
	point.S.FillBytes(out[32:])
	return out, nil
}

// A KeySet finds an issuer's public key by its id. Key returns ErrUnknownKey if the issuer has no such key, and
// ErrUnavailable, or any other error, if that is not known now. An empty id is a token without a kid. Implementations are
// safe for concurrent use.
type KeySet interface {
	Key(ctx context.Context, kid string) (*PublicKey, error)
}

// Keys is a fixed set of public keys. It never changes. The zero value has none.
type Keys struct {
	list []*PublicKey
	byID map[string]*PublicKey
}

// NewKeys returns the set of the keys. It returns ErrKey if two have one id.
func NewKeys(keys ...*PublicKey) (*Keys, error) {
	s := &Keys{list: keys, byID: make(map[string]*PublicKey, len(keys))}
	for _, k := range keys {
		if s.byID[k.id] != nil {
			return nil, fmt.Errorf("%w: two keys with one id", ErrKey)
		}
		s.byID[k.id] = k
	}
	return s, nil
}

// Key returns the key with the id, and ErrUnknownKey if there is none. With an empty id it returns the only key of a set
// of one.
func (s *Keys) Key(_ context.Context, kid string) (*PublicKey, error) {
	if kid == "" && len(s.list) == 1 {
		return s.list[0], nil
	}
	if k := s.byID[kid]; k != nil {
		return k, nil
	}
	return nil, ErrUnknownKey
}

// All returns the keys in their order.
func (s *Keys) All() []*PublicKey { return append([]*PublicKey(nil), s.list...) }
