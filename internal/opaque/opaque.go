// Package opaque is the text format of opaque tokens: docs/token-format.md, as code. It parses, formats and computes the
// MAC, the verifier and the successor. It does not know whether a token is good; the authority decides that from the
// record. Start with [Parse] and [Codec].
package opaque

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash"
	"sync"
	"sync/atomic"

	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

// Sizes in bytes, and lengths in characters.
const (
	SecretSize   = 24
	NonceSize    = 32
	VerifierSize = 32

	macSize   = 16
	rootBody  = 1 + 1 + 3 + 14 + 4 + SecretSize + macSize
	childBody = rootBody + 3 + 6

	prefixLen   = 4                        // "al", the kind's letter, "_"
	RootLength  = prefixLen + rootBody/3*4 // 88
	ChildLength = prefixLen + childBody/3*4
)

// layout is the first byte of the body.
const layout = 1

// ErrMalformed is returned for any text that is not a token, whatever is wrong with it.
var ErrMalformed = errors.New("malformed token")

// A Token is a parsed token. Nothing about it has been verified but its form.
type Token struct {
	Kind       byte // the letter behind "al"
	KeyID      uint8
	ID         store.ID
	Generation uint32
	Secret     [SecretSize]byte
	mac        [macSize]byte
}

// forms says which kinds of token there are, and whether they may be a root's, a child's, or either's.
var forms = [256]struct{ root, child bool }{
	's': {root: true, child: true}, // session; below another one if it was handed over to another host
	'k': {root: true},              // API key
	'r': {root: true, child: true}, // refresh token of an offline or an online grant
	'a': {child: true},             // access token
	'c': {child: true},             // authorization code
	't': {child: true},             // one-time ticket
}

// digits maps a base64url character to its value, anything else to 0xFF.
var digits = func() (d [256]byte) {
	for i := range d {
		d[i] = 0xFF
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		d[c] = byte(i)
	}
	return d
}()

// Parse parses a token. It accepts exactly one text for every token: the length must be that of the kind, every
// character base64url, the layout known and the generation not zero. It reads at most 100 characters.
func Parse(s string) (Token, error) {
	var t Token
	if len(s) != RootLength && len(s) != ChildLength || s[0] != 'a' || s[1] != 'l' || s[3] != '_' {
		return t, ErrMalformed
	}
	child := len(s) == ChildLength
	form := forms[s[2]]
	if child && !form.child || !child && !form.root {
		return t, ErrMalformed
	}
	// encoding/base64 skips line breaks even when strict, and would accept a second text for the same token.
	var buf [childBody]byte
	var bad byte
	n := 0
	for i := prefixLen; i < len(s); i += 4 {
		a, b, c, d := digits[s[i]], digits[s[i+1]], digits[s[i+2]], digits[s[i+3]]
		bad |= a | b | c | d
		buf[n], buf[n+1], buf[n+2] = a<<2|b>>4, b<<4|c>>2, c<<6|d
		n += 3
	}
	if bad&0xC0 != 0 || buf[0] != layout {
		return t, ErrMalformed
	}
	body := buf[:n]
	t.Kind, t.KeyID = s[2], body[1]
	idLen := 17
	if child {
		idLen = 26
	}
	id, err := store.ParseID(body[2 : 2+idLen])
	if err != nil {
		return Token{}, ErrMalformed
	}
	t.ID = id
	body = body[2+idLen:]
	t.Generation = binary.BigEndian.Uint32(body)
	copy(t.Secret[:], body[4:])
	copy(t.mac[:], body[4+SecretSize:])
	if t.Generation == 0 || t.KeyID == 0 {
		return Token{}, ErrMalformed
	}
	return t, nil
}

// A Codec computes the MACs of one installation with the keys of its ring.
type Codec struct {
	ring *keyring.Ring
	inst [16]byte
	macs [256]atomic.Pointer[mac] // by key id; made on first use
}

// mac is an HMAC key ready for use: the pool's hashes have the key absorbed.
type mac struct {
	pool sync.Pool
	of   *byte // where the key is: another key may take its id if the store loses the change that made it
}

// NewCodec returns a codec for the ring.
func NewCodec(r *keyring.Ring) *Codec { return &Codec{ring: r, inst: r.Installation()} }

// Trust says what the MAC of a token proves.
type Trust uint8

// The results of Verify.
const (
	Forged   Trust = iota // not ours: nothing may be concluded, nothing done
	Genuine               // we made it
	Doubtful              // the MAC holds, but its key may have leaked: only the stored verifier counts
)

// Verify checks the token's MAC in constant time. The error is keyring.ErrUnavailable, and the only one: the token's key may
// be one that another node has made, and the store of the keys does not answer. Then nothing is known of the token.
func (c *Codec) Verify(t *Token) (Trust, error) {
	key, err := c.ring.Lookup(keyring.MAC, t.KeyID)
	if err != nil {
		if errors.Is(err, keyring.ErrUnavailable) {
			return Forged, err
		}
		return Forged, nil
	}
	sum := c.sum(key, t)
	if !hmac.Equal(sum[:], t.mac[:]) {
		return Forged, nil
	}
	if key.State == keyring.Distrusted {
		return Doubtful, nil
	}
	return Genuine, nil
}

// Format returns the text of the token, with a MAC by the active key. The caller has set Kind, ID, Generation and
// Secret.
func (c *Codec) Format(t Token) string {
	key := c.ring.Active(keyring.MAC)
	t.KeyID = key.ID
	t.mac = c.sum(key, &t)
	var buf [childBody]byte
	body := append(t.appendBody(buf[:0]), t.mac[:]...)
	out := make([]byte, prefixLen+len(body)/3*4)
	out[0], out[1], out[2], out[3] = 'a', 'l', t.Kind, '_'
	base64.RawURLEncoding.Encode(out[prefixLen:], body)
	return string(out)
}

// appendBody appends what the MAC covers of the body.
func (t *Token) appendBody(b []byte) []byte {
	b = append(b, layout, t.KeyID)
	b = t.ID.Append(b)
	b = binary.BigEndian.AppendUint32(b, t.Generation)
	return append(b, t.Secret[:]...)
}

// sum computes HMAC-SHA-256(key, "afterlogin/token/1\0" ‖ installation ‖ prefix ‖ body)[:16].
func (c *Codec) sum(key keyring.Key, t *Token) (out [macSize]byte) {
	m := c.mac(key)
	s := m.pool.Get().(*scratch)
	s.h.Reset()
	b := append(s.buf[:0], "afterlogin/token/1\x00"...)
	b = append(b, c.inst[:]...)
	b = append(b, 'a', 'l', t.Kind, '_')
	b = t.appendBody(b)
	s.h.Write(b)
	copy(out[:], s.h.Sum(s.buf[:0]))
	m.pool.Put(s)
	return out
}

// scratch is what one MAC computation needs; pooled, so that it allocates nothing.
type scratch struct {
	h   hash.Hash
	buf [160]byte
}

func (c *Codec) mac(key keyring.Key) *mac {
	secret := key.Secret()
	if m := c.macs[key.ID].Load(); m != nil && m.of == &secret[0] {
		return m
	}
	m := &mac{of: &secret[0]}
	m.pool.New = func() any { return &scratch{h: hmac.New(sha256.New, secret)} }
	c.macs[key.ID].Store(m) // as good as another's, whoever makes it
	return m
}

// Verifier returns what the store keeps of a secret: SHA-256("afterlogin/verifier/1\0" ‖ record id ‖ u32 generation ‖
// secret).
func Verifier(id store.ID, generation uint32, secret *[SecretSize]byte) [VerifierSize]byte {
	var buf [96]byte
	b := append(buf[:0], "afterlogin/verifier/1\x00"...)
	b = id.Append(b)
	b = binary.BigEndian.AppendUint32(b, generation)
	b = append(b, secret[:]...)
	return sha256.Sum256(b)
}

// Successor derives the secret of generation c from that of its parent p: HMAC-SHA-256(rotation key,
// "afterlogin/successor/1\0" ‖ record id ‖ u32 p ‖ u32 c ‖ nonce ‖ secret of p)[:24].
func Successor(key keyring.Key, id store.ID, p, c uint32, nonce *[NonceSize]byte, parent *[SecretSize]byte) (out [SecretSize]byte) {
	b := make([]byte, 0, 128)
	b = append(b, "afterlogin/successor/1\x00"...)
	b = id.Append(b)
	b = binary.BigEndian.AppendUint32(b, p)
	b = binary.BigEndian.AppendUint32(b, c)
	b = append(b, nonce[:]...)
	b = append(b, parent[:]...)
	h := hmac.New(sha256.New, key.Secret())
	h.Write(b)
	copy(out[:], h.Sum(nil))
	return out
}

// Access derives the secret of an access token that came with generation g of a refresh token: HMAC-SHA-256(rotation
// key, "afterlogin/access/1\0" ‖ access token's record id ‖ u32 g ‖ nonce of g ‖ secret of g)[:24].
func Access(key keyring.Key, id store.ID, g uint32, nonce *[NonceSize]byte, refresh *[SecretSize]byte) (out [SecretSize]byte) {
	b := make([]byte, 0, 128)
	b = append(b, "afterlogin/access/1\x00"...)
	b = id.Append(b)
	b = binary.BigEndian.AppendUint32(b, g)
	b = append(b, nonce[:]...)
	b = append(b, refresh[:]...)
	h := hmac.New(sha256.New, key.Secret())
	h.Write(b)
	copy(out[:], h.Sum(nil))
	return out
}
