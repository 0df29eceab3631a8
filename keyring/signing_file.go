package keyring

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
)

// fileSigningKey is a signing key in the key file. Its private half alone is sealed; all the rest is covered by the seal,
// so that a key that was retired cannot be brought back by editing the file.
type fileSigningKey struct {
	ID        string          `json:"id"`
	Algorithm jwt.Algorithm   `json:"algorithm"`
	Created   time.Time       `json:"created"`
	SignsFrom time.Time       `json:"signs_from,omitzero"`
	Until     time.Time       `json:"until,omitzero"`
	Retired   bool            `json:"retired,omitempty"`
	Public    json.RawMessage `json:"public"` // JWK
	Sealed    []byte          `json:"sealed"` // AES-256-GCM under the master key: nonce 12, PKCS #8 or nothing, tag 16
}

// signingAAD is what the seal of a signing key covers besides its private half. The id is the thumbprint of the public
// half and stands for it.
func (r *Ring) signingAAD(k SigningKey) []byte {
	b := append([]byte("afterlogin/keyring/signing/2\x00"), r.installation[:]...)
	for _, s := range []string{k.ID, string(k.Algorithm)} {
		b = append(append(b, s...), 0)
	}
	for _, t := range []time.Time{k.Created, k.SignsFrom, k.Until} {
		ms := int64(-1 << 63) // no time at all
		if !t.IsZero() {
			ms = t.UnixMilli()
		}
		b = binary.BigEndian.AppendUint64(b, uint64(ms))
	}
	if k.Retired {
		return append(b, 1)
	}
	return append(b, 0)
}

// fileSigning returns the keys as they stand in the file.
func (r *Ring) fileSigning(list signingKeys) ([]fileSigningKey, error) {
	var out []fileSigningKey
	for _, k := range list {
		var private []byte
		public, err := k.public.MarshalJSON()
		if err == nil && k.key != nil {
			private, err = x509.MarshalPKCS8PrivateKey(k.key.Signer())
		}
		if err != nil {
			return nil, fmt.Errorf("keyring: signing key %s: %w", k.ID, err)
		}
		nonce := make([]byte, 12, 12+len(private)+16)
		rand.Read(nonce)
		out = append(out, fileSigningKey{ID: k.ID, Algorithm: k.Algorithm, Created: k.Created, SignsFrom: k.SignsFrom,
			Until: k.Until, Retired: k.Retired, Public: public, Sealed: r.aead().Seal(nonce, nonce, private, r.signingAAD(k))})
	}
	return out, nil
}

// parseSigning opens the keys of the file.
func (r *Ring) parseSigning(list []fileSigningKey) (signingKeys, error) {
	if len(list) > maxSigning {
		return nil, fmt.Errorf("keyring: bad key file: %d signing keys, want at most %d", len(list), maxSigning)
	}
	out := make(signingKeys, 0, len(list))
	newest, seen := make(map[jwt.Algorithm]bool), make(map[string]bool)
	for i, f := range list {
		k, err := r.openSigning(f)
		if errors.Is(err, ErrWrongMaster) {
			return nil, err
		}
		if err != nil {
			return nil, fmt.Errorf("keyring: bad key file: signing key %d: %w", i+1, err)
		}
		if seen[k.ID] {
			return nil, fmt.Errorf("keyring: bad key file: signing key %s twice", k.ID)
		}
		seen[k.ID] = true
		if last := !k.Retired && k.Until.IsZero(); last {
			if newest[k.Algorithm] {
				return nil, fmt.Errorf("keyring: bad key file: two %s keys without a successor", k.Algorithm)
			}
			newest[k.Algorithm] = true
		}
		out = append(out, k)
	}
	return out, nil
}

func (r *Ring) openSigning(f fileSigningKey) (SigningKey, error) {
	k := SigningKey{ID: f.ID, Algorithm: f.Algorithm, Created: f.Created, SignsFrom: f.SignsFrom, Until: f.Until, Retired: f.Retired}
	if len(f.Sealed) < 12+16 {
		return k, fmt.Errorf("sealed, of %d bytes", len(f.Sealed))
	}
	private, err := r.aead().Open(nil, f.Sealed[:12], f.Sealed[12:], r.signingAAD(k))
	if err != nil {
		return k, ErrWrongMaster
	}
	if k.public, err = jwt.ParseJWK(f.Public); err != nil {
		return k, err
	}
	if k.public.Thumbprint() != k.ID || k.public.ID() != k.ID || k.public.Algorithm() != k.Algorithm {
		return k, errors.New("the public half is not that of the id")
	}
	if len(private) == 0 {
		if !k.Retired && k.Until.IsZero() {
			return k, errors.New("no private half")
		}
		return k, nil
	}
	if k.Retired {
		return k, errors.New("retired, and yet with a private half")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(private)
	if err != nil {
		return k, errors.New("the private half is not PKCS #8") // the cause might quote it
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return k, errors.New("the private half does not sign")
	}
	if k.key, err = jwt.NewSigningKey(signer); err != nil {
		return k, err
	}
	if k.key.ID() != k.ID {
		return k, errors.New("the private half is not that of the id")
	}
	return k, nil
}
