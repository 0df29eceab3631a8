package afterlogin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

// ErrBadMark is returned for a text that is not a mark of this installation.
var ErrBadMark = errors.New("not a mark: give back what Begin returned, unchanged")

// Sizes of an encoded mark: key id, whether the subject was known, the subject's id, two epochs, MAC.
const (
	markBody   = 1 + 1 + 23 + 8 + 8
	markSize   = markBody + 16
	markLength = markSize / 3 * 4 // 76 characters
)

// EncodeMark returns the mark as text, for a sign-in whose Begin and Issue are two requests. It is 76 characters of
// base64url, no secret, and carries a MAC, since a mark made by hand could hide that the subject was signed out
// meanwhile. The zero Mark is the empty text.
func (a *Authority) EncodeMark(m Mark) string {
	if m.id.IsZero() {
		return ""
	}
	key := a.keys.Active(keyring.Sealing)
	b := make([]byte, 0, markSize)
	b = append(b, key.ID, 0)
	if m.known {
		b[1] = 1
	}
	b = m.id.Append(b)
	b = binary.BigEndian.AppendUint64(b, m.epochs.sessions)
	b = binary.BigEndian.AppendUint64(b, m.epochs.everything)
	return base64.RawURLEncoding.EncodeToString(append(b, markMAC(key, b)...))
}

// DecodeMark is the inverse of EncodeMark. It fails with ErrBadMark for any text that EncodeMark of this installation
// did not make, and with ErrUnavailable if that cannot be known now. The empty text is the zero Mark.
func (a *Authority) DecodeMark(text string) (Mark, error) {
	if text == "" {
		return Mark{}, nil
	}
	if len(text) != markLength {
		return Mark{}, ErrBadMark
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) != markSize { // line breaks are skipped by the decoder, and leave it too short
		return Mark{}, ErrBadMark
	}
	key, err := a.keys.Lookup(keyring.Sealing, b[0])
	if errors.Is(err, keyring.ErrUnavailable) {
		return Mark{}, unavailable("keys", err)
	}
	if err != nil || !hmac.Equal(markMAC(key, b[:markBody]), b[markBody:]) {
		return Mark{}, ErrBadMark
	}
	id, err := store.ParseID(b[2:25])
	if err != nil {
		return Mark{}, ErrBadMark
	}
	return Mark{
		id: id, known: b[1] == 1,
		epochs: epochs{sessions: binary.BigEndian.Uint64(b[25:]), everything: binary.BigEndian.Uint64(b[33:])},
	}, nil
}

func markMAC(key keyring.Key, body []byte) []byte {
	h := hmac.New(sha256.New, key.Secret())
	h.Write([]byte("afterlogin/mark/1\x00"))
	h.Write(body)
	return h.Sum(nil)[:16]
}
