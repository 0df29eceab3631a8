package afterlogin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"

	"github.com/afterlogin/afterlogin/keyring"
)

// CSRFToken returns the session's CSRF token, for a hidden field of its forms. It is derived from the session's id and
// not from its token, so that a form that was open during a renewal still works, and it changes at sign-in. It is 44
// characters of base64url.
func (a *Authority) CSRFToken(s *Session) string {
	key := a.keys.Active(keyring.CSRF)
	return base64.RawURLEncoding.EncodeToString(append([]byte{key.ID}, csrfMAC(key, s)...))
}

// CheckCSRF reports whether the text is the session's CSRF token. It fails with ErrUnavailable, and only then, if that
// cannot be known now.
func (a *Authority) CheckCSRF(s *Session, text string) (bool, error) {
	if len(text) != 44 {
		return false, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) != 33 {
		return false, nil
	}
	key, err := a.keys.Lookup(keyring.CSRF, b[0])
	if errors.Is(err, keyring.ErrUnavailable) {
		return false, unavailable("keys", err)
	}
	return err == nil && hmac.Equal(csrfMAC(key, s), b[1:]), nil
}

func csrfMAC(key keyring.Key, s *Session) []byte {
	h := hmac.New(sha256.New, key.Secret())
	h.Write(s.record.Append([]byte("afterlogin/csrf/1\x00")))
	return h.Sum(nil)
}
