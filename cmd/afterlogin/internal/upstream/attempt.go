package upstream

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/keyring"
)

// CookiePrefix begins the names of the cookies of sign-ins under way. The gateway hides them from applications: it begins as
// gateway.CookiePrefix does.
const CookiePrefix = "__Host-Http-afterlogin_oidc_"

// Bounds of sign-ins under way.
const (
	attemptTime = 10 * time.Minute
	maxAttempts = 4       // in one browser
	maxCookies  = 4 << 10 // of all of them together, in bytes: proxies take 8 KiB of cookies
	maxCookie   = 3900    // of one; browsers take 4096 with the name and the attributes
	maxACR      = 8
	maxACRText  = 100
)

// attempt is a sign-in under way: what must come back, and what it was begun for. It lives in the browser, sealed, in a
// cookie of its own.
type attempt struct {
	Provider string   `json:"p"`
	Origin   string   `json:"o"`
	Base     string   `json:"b"`
	State    string   `json:"s"`
	Nonce    string   `json:"n"`
	Verifier string   `json:"v"` // RFC 7636
	ReturnTo string   `json:"r"`
	Remember bool     `json:"m,omitempty"`
	Confirm  bool     `json:"f,omitempty"`
	MaxAge   *int64   `json:"a,omitempty"` // seconds
	ACR      []string `json:"c,omitempty"`
	Began    int64    `json:"t"` // unix seconds
}

func randomText() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// isState reports whether s has the form of a state of ours, part of which names a cookie.
func isState(s string) bool {
	if len(s) != 43 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// cookieOf returns the name of the cookie of the attempt with the state.
func cookieOf(state string) string { return CookiePrefix + state[:8] }

// over reports whether the attempt was begun too long ago, or in a future that no clock of ours is in.
func (a *attempt) over(now time.Time) bool {
	age := now.Sub(time.Unix(a.Began, 0))
	return age >= attemptTime || age < -time.Minute
}

// sealer encrypts attempts with keys derived from the installation's.
type sealer struct{ keys *keyring.Ring }

var (
	errSealed  = errors.New("not a cookie of ours")
	errTooLong = errors.New("too long for a cookie")
)

func (s *sealer) aead(key keyring.Key) cipher.AEAD {
	derived, err := hkdf.Key(sha256.New, key.Secret(), nil, "afterlogin/oidc-attempt/1", 32)
	if err != nil {
		panic("upstream: " + err.Error()) // of sizes that are fixed
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		panic("upstream: " + err.Error())
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("upstream: " + err.Error())
	}
	return gcm
}

// seal returns the cookie's value for the attempt.
func (s *sealer) seal(a *attempt) (string, error) {
	plain, err := json.Marshal(a)
	if err != nil {
		return "", err
	}
	key := s.keys.Active(keyring.Sealing)
	sealed := s.aead(key).Seal([]byte{key.ID}, nil, plain, []byte(cookieOf(a.State)))
	value := base64.RawURLEncoding.EncodeToString(sealed)
	if len(value) > maxCookie {
		return "", errTooLong
	}
	return value, nil
}

// open is the inverse of seal. It fails with errSealed, and with keyring.ErrUnavailable if that is not known now.
func (s *sealer) open(name, value string) (*attempt, error) {
	if len(value) > maxCookie {
		return nil, errSealed
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil || len(b) < 1 {
		return nil, errSealed
	}
	key, err := s.keys.Lookup(keyring.Sealing, b[0])
	if errors.Is(err, keyring.ErrUnavailable) {
		return nil, err
	}
	if err != nil {
		return nil, errSealed
	}
	plain, err := s.aead(key).Open(nil, nil, b[1:], []byte(name))
	if err != nil {
		return nil, errSealed
	}
	var a attempt
	if err := json.Unmarshal(plain, &a); err != nil || !isState(a.State) || cookieOf(a.State) != name {
		return nil, errSealed
	}
	return &a, nil
}

// attributes are those of the cookies. Lax, since the provider's answer comes from another site.
const attributes = "; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age="

func setAttempt(w http.ResponseWriter, name, value string) {
	w.Header().Add("Set-Cookie", name+"="+value+attributes+strconv.Itoa(int(attemptTime/time.Second)))
}

func clearAttempt(w http.ResponseWriter, name string) {
	w.Header().Add("Set-Cookie", name+"="+attributes+"0")
}

// keep sets the attempt's cookie, and clears those that are over, and the oldest if there would be too many.
func (u *Upstream) keep(w http.ResponseWriter, r *http.Request, a *attempt) error {
	value, err := u.seal.seal(a)
	if err != nil {
		return err
	}
	type other struct {
		name  string
		size  int
		began int64
	}
	var others []other
	for _, c := range r.Cookies() {
		if !strings.HasPrefix(c.Name, CookiePrefix) || len(others) >= 64 {
			continue
		}
		o := other{name: c.Name, size: len(c.Name) + len(c.Value) + 3}
		if had, err := u.seal.open(c.Name, c.Value); err == nil && !had.over(u.now()) {
			o.began = had.Began
		}
		others = append(others, o)
	}
	slices.SortFunc(others, func(x, y other) int { return int(y.began - x.began) }) // the youngest first
	size := len(CookiePrefix) + 8 + len(value)
	for i, o := range others {
		if size += o.size; o.began == 0 || i >= maxAttempts-1 || size > maxCookies {
			clearAttempt(w, o.name)
		}
	}
	setAttempt(w, cookieOf(a.State), value)
	return nil
}

var (
	// errNoAttempt means that the browser did not begin the sign-in that an answer is for, or too long ago.
	errNoAttempt = errors.New("no sign-in of this browser")
	errForeign   = fmt.Errorf("%w: it was begun with another provider or on another site", errNoAttempt)
)

// find returns the attempt of this browser that has the state.
func (u *Upstream) find(r *http.Request, site *Site, p *provider, state string) (*attempt, error) {
	if !isState(state) {
		return nil, errNoAttempt
	}
	name := cookieOf(state)
	found := r.CookiesNamed(name)
	if len(found) != 1 {
		return nil, errNoAttempt
	}
	a, err := u.seal.open(name, found[0].Value)
	switch {
	case errors.Is(err, errSealed):
		return nil, errNoAttempt
	case err != nil:
		return nil, err
	case subtle.ConstantTimeCompare([]byte(a.State), []byte(state)) != 1, a.over(u.now()):
		return nil, errNoAttempt
	case a.Provider != p.ID, a.Origin != site.Origin, a.Base != site.Base:
		return nil, errForeign
	}
	return a, nil
}
