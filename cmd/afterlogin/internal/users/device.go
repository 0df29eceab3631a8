package users

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/keyring"
)

// A browser that a user has signed in with before carries a cookie that says so, and is counted by itself when it sends a
// wrong password: whoever tries thousands of passwords from elsewhere does not keep the owner out (OWASP, "Device
// Cookies"). The cookie opens nothing. It is bound to the user's name and to this installation, and good for a year.
//
// It is a list of passes, the newest first, so that the people of a household who share a browser do not take it from
// each other.

const (
	// DeviceAge is how long a browser is known after a sign-in.
	DeviceAge = 365 * 24 * time.Hour
	// deviceRenew is after how long a sign-in gives it a new pass.
	deviceRenew = 30 * 24 * time.Hour
	maxPasses   = 4

	// Of a pass: key id, days, random id; and MAC.
	passBody = 1 + 4 + 12
	passSize = passBody + 16
	// MaxDevice is the greatest length of a cookie's value, in bytes.
	MaxDevice = maxPasses*(passSize/3*4) + maxPasses - 1
)

// passMAC returns the MAC of a pass for the user.
func (u *Users) passMAC(key keyring.Key, name string, body []byte) []byte {
	h := hmac.New(sha256.New, key.Secret())
	h.Write([]byte("afterlogin/device/1\x00"))
	id := u.keys.Installation()
	h.Write(id[:])
	h.Write(binary.BigEndian.AppendUint32(nil, u.tenant))
	h.Write(body) // of fixed length, so that the name may be of any
	h.Write([]byte(name))
	return h.Sum(nil)[:16]
}

// newPass returns a pass for the user.
func (u *Users) newPass(name string) string {
	key := u.keys.Active(keyring.CSRF)
	b := make([]byte, passBody, passSize)
	b[0] = key.ID
	binary.BigEndian.PutUint32(b[1:], uint32(u.now().Unix()/60))
	rand.Read(b[5:])
	return base64.RawURLEncoding.EncodeToString(append(b, u.passMAC(key, name, b)...))
}

// checkPass returns the id of a pass if it is a good one of the user's, and when it was made.
func (u *Users) checkPass(name, text string) (id []byte, made time.Time, ok bool) {
	if len(text) != passSize/3*4 {
		return nil, time.Time{}, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != passSize {
		return nil, time.Time{}, false
	}
	// A key that is not known, or not known yet on this node: the browser is a new one. That is no reason to fail.
	key, err := u.keys.Lookup(keyring.CSRF, b[0])
	if err != nil || !hmac.Equal(u.passMAC(key, name, b[:passBody]), b[passBody:]) {
		return nil, time.Time{}, false
	}
	made = time.Unix(int64(binary.BigEndian.Uint32(b[1:]))*60, 0)
	if age := u.now().Sub(made); age > DeviceAge || age < -time.Hour {
		return nil, time.Time{}, false
	}
	return b[5:passBody], made, true
}

// device returns the id of the browser if its cookie has a good pass of the user's, and nil if it has not.
func (u *Users) device(name, cookie string) (id []byte, made time.Time) {
	if u.keys == nil || cookie == "" || len(cookie) > MaxDevice || !validName(name) {
		return nil, time.Time{}
	}
	for _, text := range strings.SplitN(cookie, ".", maxPasses) {
		if id, made, ok := u.checkPass(name, text); ok {
			return id, made
		}
	}
	return nil, time.Time{}
}

// Known reports whether the cookie is of a browser that the user has signed in with before.
func (u *Users) Known(name, cookie string) bool {
	id, _ := u.device(name, cookie)
	return id != nil
}

// remember returns the value that the cookie is to have after a sign-in, "" if it may stay as it is.
func (u *Users) remember(name, cookie string) string {
	if u.keys == nil {
		return ""
	}
	if id, made := u.device(name, cookie); id != nil && u.now().Sub(made) < deviceRenew {
		return ""
	}
	passes := []string{u.newPass(name)}
	if len(cookie) <= MaxDevice {
		for _, text := range strings.SplitN(cookie, ".", maxPasses) {
			_, _, own := u.checkPass(name, text) // which the new one replaces
			if len(passes) < maxPasses && !own && u.looksLikePass(text) {
				passes = append(passes, text)
			}
		}
	}
	return strings.Join(passes, ".")
}

// looksLikePass reports whether the text may be a pass of somebody else's; it cannot be checked without a name.
func (u *Users) looksLikePass(text string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && len(b) == passSize && len(text) == passSize/3*4
}
