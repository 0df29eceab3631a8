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
	"sync/atomic"

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

// A Sealer seals and opens with the keys of a ring. It is safe for concurrent use.
type Sealer struct {
	ring *keyring.Ring
	keys [256]atomic.Pointer[ciphers] // by key id, made on first use
}

// ciphers are AES-256-GCM under a key of each partition's own: HMAC-SHA-256(sealing key, "afterlogin/seal-key/1\0" ‖ u16
// partition). With one key for all, 2^32 writes would bring the random nonces too close to a repetition; with 1,024 keys
// it takes 2^42.
type ciphers struct {
	of   *byte // where the sealing key is: another key may take its id if the store loses the change that made it
	each [store.Partitions]atomic.Pointer[cipher.AEAD]
}

// New returns a sealer for the ring.
func New(ring *keyring.Ring) *Sealer { return &Sealer{ring: ring} }

// Seal sets r.Payload to plain, sealed for the record's id, version and columns. It is the last thing done to a record
// before it is put.
func (s *Sealer) Seal(r *store.Record, plain []byte) {
	key := s.ring.Active(keyring.Sealing)
	b := make([]byte, head, Overhead+len(plain))
	b[0], b[1] = layout, key.ID
	binary.BigEndian.PutUint64(b[2:], r.Version)
	nonce := b[10:head]
	rand.Read(nonce)
	var buf [192]byte
	r.Payload = s.aead(key, r.ID).Seal(b, nonce, plain, appendAAD(buf[:0], r, r.Version))
}

// Open returns what r.Payload holds. It returns ErrBroken if it was not sealed for exactly this record: its id, kind,
// tenant, subject, client, times and version; keyring.ErrUnavailable if its key may be one that is not known here yet. A mark, which comes without a new seal, and what Touch writes are not
// covered.
func (s *Sealer) Open(r *store.Record) ([]byte, error) {
	p := r.Payload
	if len(p) < Overhead || p[0] != layout {
		return nil, ErrBroken
	}
	version := binary.BigEndian.Uint64(p[2:])
	if version != r.Version && !(r.Marked != 0 && version+1 == r.Version) {
		return nil, ErrBroken
	}
	key, err := s.ring.Lookup(keyring.Sealing, p[1])
	if errors.Is(err, keyring.ErrUnavailable) {
		return nil, err
	}
	if err != nil {
		return nil, ErrBroken
	}
	var buf [192]byte
	plain, err := s.aead(key, r.ID).Open(nil, p[10:head], p[head:], appendAAD(buf[:0], r, version))
	if err != nil {
		return nil, ErrBroken
	}
	return plain, nil
}

func (s *Sealer) aead(key keyring.Key, id store.ID) cipher.AEAD {
	of := &key.Secret()[0]
	c := s.keys[key.ID].Load()
	if c == nil || c.of != of {
		c = &ciphers{of: of}
		s.keys[key.ID].Store(c) // as good as another's, whoever makes it
	}
	if a := c.each[id.Partition()].Load(); a != nil {
		return *a
	}
	a := newAEAD(key, id.Partition())
	c.each[id.Partition()].Store(&a) // the same, whoever makes it
	return a
}

func newAEAD(key keyring.Key, partition int) cipher.AEAD {
	h := hmac.New(sha256.New, key.Secret())
	h.Write(binary.BigEndian.AppendUint16([]byte("afterlogin/seal-key/1\x00"), uint16(partition)))
	block, err := aes.NewCipher(h.Sum(nil))
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	a, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return a
}

// appendAAD appends what the seal covers besides the payload.
func appendAAD(b []byte, r *store.Record, version uint64) []byte {
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
