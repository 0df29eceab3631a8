package clients

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"time"
)

// secretPrefix begins every secret that is made here, so that it can be found where it should not be.
const secretPrefix = "cs_"

// A SecretHash is a client's secret as it is stored: its SHA-256. That is enough for 256 random bits, and nothing else is
// accepted as a secret.
type SecretHash struct {
	SHA256  string `json:"sha256"` // 64 hexadecimal digits
	Created int64  `json:"created,omitempty"`
	// Until is when it ends, in seconds since 1970; 0 is not by itself.
	Until int64 `json:"until,omitempty"`
}

// NewSecret returns a secret of 256 random bits and what is stored of it. The text is shown this once.
func NewSecret(now time.Time) (text string, hash SecretHash) {
	var b [32]byte
	rand.Read(b[:])
	text = secretPrefix + base64.RawURLEncoding.EncodeToString(b[:])
	return text, Hash(text, now)
}

// NewID returns a client_id that is no other client's.
func NewID() string {
	var b [12]byte
	rand.Read(b[:])
	return "cli_" + base64.RawURLEncoding.EncodeToString(b[:])
}

// minSecret is the length of the shortest secret that somebody else may have made: 256 bits in base64.
const minSecret = 43

// CheckSecret reports why a secret that was made elsewhere is not good enough. That it is random nobody can check.
func CheckSecret(text string) error {
	if len(text) < minSecret || len(text) > 256 {
		return errors.New("want at least 43 characters, which is 256 random bits in base64, and at most 256")
	}
	if !unreserved(text) {
		return errors.New("want letters, digits, - . _ and ~ only, which every client sends as they are: base64url")
	}
	return nil
}

// CheckID reports why the text cannot be a client_id here. The signs that clients encode, or forget to, are left out.
func CheckID(id string) error {
	if id == "" || len(id) > 64 || !unreserved(id) {
		return errors.New("want 1 to 64 letters, digits, - . _ and ~")
	}
	return nil
}

func unreserved(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' && c != '~' {
			return false
		}
	}
	return true
}

// Hash returns what is stored of a secret.
func Hash(text string, now time.Time) SecretHash {
	sum := sha256.Sum256([]byte(text))
	return SecretHash{SHA256: hex.EncodeToString(sum[:]), Created: now.Unix()}
}

// ParseHash reads the SHA-256 of a secret.
func ParseHash(text string) (SecretHash, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != sha256.Size {
		return SecretHash{}, errors.New("want a SHA-256 as 64 hexadecimal digits")
	}
	return SecretHash{SHA256: hex.EncodeToString(b)}, nil
}

// Rotate puts a new secret beside those that are still good, which end after the overlap or earlier, and drops those that
// are over. Without an overlap it drops them all. It returns false, and changes nothing, if there would be more than three:
// which of them is in use nobody here knows, so that none is ended for another's sake.
func (s *Settings) Rotate(hash SecretHash, now time.Time, overlap time.Duration) bool {
	var kept []SecretHash
	for _, h := range s.Secrets {
		end := now.Add(overlap).Unix()
		if h.Until != 0 {
			end = min(end, h.Until)
		}
		if h.Until = end; end > now.Unix() {
			kept = append(kept, h)
		}
	}
	if len(kept) == maxSecrets {
		return false
	}
	s.Secrets = append(kept, hash)
	return true
}

// Sums are a client's secrets, ready to be compared with.
type Sums []struct {
	sum   [sha256.Size]byte
	until int64
}

// Sums returns the secrets of the settings. One that does not decode matches nothing.
func (s *Settings) Sums() Sums {
	out := make(Sums, 0, len(s.Secrets))
	for _, h := range s.Secrets {
		b, err := hex.DecodeString(h.SHA256)
		if err != nil || len(b) != sha256.Size {
			continue
		}
		out = append(out, struct {
			sum   [sha256.Size]byte
			until int64
		}{[sha256.Size]byte(b), h.Until})
	}
	return out
}

// Match reports whether the text is one of the secrets, in a time that does not depend on which, or how far it fits.
func (s Sums) Match(text string, now time.Time) bool {
	sum := sha256.Sum256([]byte(text))
	good := 0
	for i := range s {
		live := 1
		if s[i].until != 0 && now.Unix() >= s[i].until {
			live = 0
		}
		good |= subtle.ConstantTimeCompare(sum[:], s[i].sum[:]) & live
	}
	return good == 1
}
