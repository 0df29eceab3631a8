package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// secretPrefix stands in front of a signing secret's base64, as Standard Webhooks has it.
const secretPrefix = "whsec_"

// secretSize is the size of a signing secret, in bytes.
const secretSize = 32

// overlap is how long the secret before a rotation signs, too.
const overlap = 24 * time.Hour

// A Secret is what a webhook's requests are signed with. It prints as [secret].
type Secret struct{ key [secretSize]byte }

func newSecret() (s Secret) {
	rand.Read(s.key[:])
	return s
}

// parseSecret reads what Reveal returned.
func parseSecret(text string) (s Secret, err error) {
	rest, ok := strings.CutPrefix(text, secretPrefix)
	b, err := base64.StdEncoding.Strict().DecodeString(rest)
	if !ok || err != nil || len(b) != secretSize {
		return s, errors.New("not a signing secret")
	}
	copy(s.key[:], b)
	return s, nil
}

// Reveal returns the secret as receivers keep it, for the one answer that shows it.
func (s Secret) Reveal() string { return secretPrefix + base64.StdEncoding.EncodeToString(s.key[:]) }

// String returns "[secret]".
func (Secret) String() string { return "[secret]" }

// Format writes [secret], whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { f.Write([]byte("[secret]")) }

// LogValue returns [secret].
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalJSON fails: who means to write the secret says Reveal.
func (Secret) MarshalJSON() ([]byte, error) {
	return nil, errors.New("a signing secret is not written")
}

// sign returns the signature of Standard Webhooks, version 1: of the id, the time in seconds and the body.
func (s Secret) sign(id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, s.key[:])
	mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
