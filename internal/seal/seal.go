// Package seal encrypts the payloads of records, so that whoever reads the store learns nothing from them and whoever
// writes it cannot move a payload to another record, another version or other columns.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

// layout is the first byte of a sealed payload: layout 1, key id 1, version 8, nonce 12, ciphertext and tag.
const layout = 1

const head = 1 + 1 + 8 + 12

// Overhead is by how much a sealed payload is longer than what it holds, in bytes.
const Overhead = head + 16

// ErrBroken is returned by Open when the payload is not what this installation sealed for this record.
var ErrBroken = errors.New("record does not open: it was changed outside, or its sealing key is gone")

// Seal sets r.Payload to plain, sealed for the record's id, version and columns. It is the last thing done to a record
// before it is put.
func Seal(ring *keyring.Ring, r *store.Record, plain []byte) {
	key := ring.Active(keyring.Sealing)
	b := make([]byte, head, Overhead+len(plain))
	b[0], b[1] = layout, key.ID
	binary.BigEndian.PutUint64(b[2:], r.Version)
	nonce := b[10:head]
	rand.Read(nonce)
	r.Payload = aead(key, r.ID).Seal(b, nonce, plain, aad(r, r.Version))
}

// Open returns what r.Payload holds. It returns ErrBroken if it was not sealed for exactly this record: its id, kind,
// tenant, subject, client, times and version. A mark, which comes without a new seal, and what Touch writes are not
// covered.
func Open(ring *keyring.Ring, r *store.Record) ([]byte, error) {
	p := r.Payload
	if len(p) < Overhead || p[0] != layout {
		return nil, ErrBroken
	}
	version := binary.BigEndian.Uint64(p[2:])
	if version != r.Version && !(r.Marked != 0 && version+1 == r.Version) {
		return nil, ErrBroken
	}
	key, ok := ring.Key(keyring.Sealing, p[1])
	if !ok {
		return nil, ErrBroken
	}
	plain, err := aead(key, r.ID).Open(nil, p[10:head], p[head:], aad(r, version))
	if err != nil {
		return nil, ErrBroken
	}
	return plain, nil
}

// aead returns AES-256-GCM under a key of the root's own, HMAC-SHA-256(sealing key, "afterlogin/seal-key/1\0" ‖ root id).
// With one key for all, 2^32 writes would bring the random nonces too close to a repetition.
func aead(key keyring.Key, id store.ID) cipher.AEAD {
	h := hmac.New(sha256.New, key.Secret())
	var buf [64]byte
	h.Write(id.Root().Append(append(buf[:0], "afterlogin/seal-key/1\x00"...)))
	block, err := aes.NewCipher(h.Sum(buf[:0]))
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return a
}

// aad is what the seal covers besides the payload.
func aad(r *store.Record, version uint64) []byte {
	b := make([]byte, 0, 128)
	b = append(b, "afterlogin/seal/1\x00"...)
	b = append(b, byte(r.ID.Len()))
	b = r.ID.Append(b)
	b = append(b, r.Kind)
	b = binary.BigEndian.AppendUint64(b, version)
	b = binary.BigEndian.AppendUint32(b, r.Tenant)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Created))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Absolute))
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Subject)))
	b = append(b, r.Subject...)
	return append(b, r.Client...)
}
