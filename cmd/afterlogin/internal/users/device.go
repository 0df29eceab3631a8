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
// Cookies"). The cookie opens nothing. It is bound to the user's name, to the password and to this installation, and good
// for a year, or until the password is set anew: who has collected passes while the password was known to him gets nothing
// out of them afterwards.
//
// It is a list of passes, the newest first, so that the people of a household who share a browser do not take it from
// each other.

const (
	// DeviceAge is how long a browser is known after a sign-in.
	DeviceAge = 365 * 24 * time.Hour
	// deviceRenew is after how long a sign-in gives it a new pass.
	deviceRenew = 30 * 24 * time.Hour
	maxPasses   = 4

	// Of a pass: key id, minutes, which password, random id; and MAC.
	passBody = 1 + 4 + 8 + 13
	passSize = passBody + 16
	// MaxDevice is the greatest length of a cookie's value, in bytes.
	MaxDevice = maxPasses*(passSize/3*4) + maxPasses - 1
)

// passMAC returns the MAC of a pass for the user.
func (u *Users) passMAC(key keyring.Key, name string, body []byte) []byte {
	h := hmac.New(sha256.New, key.Secret())
	h.Write([]byte("afterlogin/device/2\x00"))
	id := u.keys.Installation()
	h.Write(id[:])
	h.Write(binary.BigEndian.AppendUint32(nil, u.tenant))
	h.Write(body) // of fixed length, so that the name may be of any
	h.Write([]byte(name))
	return h.Sum(nil)[:16]
}

// A pass is what a good one says.
type pass struct {
	id   []byte
	made time.Time
	set  int64 // detail.Set of the password that was right then
}

// newPass returns a pass for the user.
func (u *Users) newPass(name string, set int64) string {
	key := u.keys.Active(keyring.CSRF)
	b := make([]byte, passBody, passSize)
	b[0] = key.ID
	binary.BigEndian.PutUint32(b[1:], uint32(u.now().Unix()/60))
	binary.BigEndian.PutUint64(b[5:], uint64(set))
	rand.Read(b[13:])
	return base64.RawURLEncoding.EncodeToString(append(b, u.passMAC(key, name, b)...))
}

// checkPass returns what the text says if it is a good pass of the user's, and nil if not. Whether the password is still
// the one it was made with, the caller has to see.
func (u *Users) checkPass(name, text string) *pass {
	if len(text) != passSize/3*4 {
		return nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != passSize {
		return nil
	}
	// A key that is not known, or not known yet on this node: the browser is a new one. That is no reason to fail.
	key, err := u.keys.Lookup(keyring.CSRF, b[0])
	if err != nil || !hmac.Equal(u.passMAC(key, name, b[:passBody]), b[passBody:]) {
		return nil
	}
	p := &pass{id: b[13:passBody], made: time.Unix(int64(binary.BigEndian.Uint32(b[1:]))*60, 0), set: int64(binary.BigEndian.Uint64(b[5:]))}
	if age := u.now().Sub(p.made); age > DeviceAge || age < -time.Hour {
		return nil
	}
	return p
}

// device returns the user's pass in the browser's cookie, nil if there is no good one.
func (u *Users) device(name, cookie string) *pass {
	if u.keys == nil || cookie == "" || len(cookie) > MaxDevice || !validName(name) {
		return nil
	}
	for _, text := range strings.SplitN(cookie, ".", maxPasses) {
		if p := u.checkPass(name, text); p != nil {
			return p
		}
	}
	return nil
}

// Remember returns the value that the device cookie of a browser is to have after the user has signed in there, or changed
// the password; "" if it may stay as it is.
func (u *Users) Remember(user *User, cookie string) string {
	if u.keys == nil {
		return ""
	}
	name, set := user.Name, user.PasswordChanged.UnixMilli()
	if p := u.device(name, cookie); p != nil && p.set == set && u.now().Sub(p.made) < deviceRenew {
		return ""
	}
	passes := []string{u.newPass(name, set)}
	if len(cookie) <= MaxDevice {
		for _, text := range strings.SplitN(cookie, ".", maxPasses) {
			own := u.checkPass(name, text) != nil // which the new one replaces
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
