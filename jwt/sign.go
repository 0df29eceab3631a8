package jwt

import (
	"fmt"
	"sync"
)

// MaxSize is the greatest size of a token, in bytes.
const MaxSize = 8 << 10

// Types of tokens (typ), each for one use: a verifier of the one refuses the others (RFC 8725, 3.11).
const (
	TypeAccessToken = "at+jwt" // RFC 9068
	// TypeUntyped also stands for a token without a type, in a Verifier: what clients sign to authenticate themselves
	// (RFC 7523). No token of ours is one.
	TypeUntyped = "JWT"
)

// payloads are buffers of Sign, which is a tenth slower without them.
var payloads = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// Sign returns a token of the type, such as TypeAccessToken, with the claims. Its header has alg, typ and kid, nothing
// else. It returns ErrUnsignable if the type is not the end of a media type, if issuer, audience, expiry or the time of
// issue are missing, if a private claim has the name of a registered one or is not JSON as strict as a verifier's, or if
// the token would be over MaxSize. The token is a secret: it must not be logged.
func (k *SigningKey) Sign(typ string, c *Claims) (string, error) {
	room := payloads.Get().(*[]byte)
	defer payloads.Put(room)
	payload, err := c.appendTo((*room)[:0])
	if err != nil {
		return "", err
	}
	if cap(payload) <= MaxSize {
		*room = payload
	}
	return k.token(typ, payload)
}

// SignPayload is Sign for JSON that is no set of Claims, such as an answer of introspection (RFC 9701). It must be an
// object that this package's strict reading passes.
func (k *SigningKey) SignPayload(typ string, payload []byte) (string, error) {
	if err := members(payload, nil); err != nil {
		return "", fmt.Errorf("%w: the payload is %w", ErrUnsignable, err)
	}
	return k.token(typ, payload)
}

// token signs a payload that is known to be strict JSON: reading it once more takes a tenth of the time of a signature.
func (k *SigningKey) token(typ string, payload []byte) (string, error) {
	if !goodType(typ) {
		return "", fmt.Errorf("%w: the type %q is not the end of a media type, such as at+jwt", ErrUnsignable, typ)
	}
	o := object{b: append(make([]byte, 0, 160), '{')}
	o.text("alg", string(k.public.alg))
	o.text("typ", typ)
	o.text("kid", k.public.id)
	header := append(o.b, '}')

	b := make([]byte, 0, encoding.EncodedLen(len(header))+encoding.EncodedLen(len(payload))+2+encoding.EncodedLen(64))
	b = append(encoding.AppendEncode(b, header), '.')
	b = encoding.AppendEncode(b, payload)
	signature, err := k.sign(b)
	if err != nil {
		return "", fmt.Errorf("jwt: sign with %v: %w", k, err)
	}
	b = encoding.AppendEncode(append(b, '.'), signature)
	if len(b) > MaxSize {
		return "", fmt.Errorf("%w: a token of %d bytes, want at most %d", ErrUnsignable, len(b), MaxSize)
	}
	return string(b), nil
}

// goodType reports whether typ can follow "application/" in a media type, in lower case, or is TypeUntyped.
func goodType(typ string) bool {
	for i := range len(typ) {
		c := typ[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '+' || c == '-' || c == '.' || c == '_') {
			return typ == TypeUntyped
		}
	}
	return typ != "" && len(typ) <= 64
}
