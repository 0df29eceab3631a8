package login

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
	"github.com/afterlogin/afterlogin/httpauth"
)

// The cookies of these pages. Their names begin like those that the gateway keeps from applications.
const (
	// DeviceCookie says which users have signed in with this browser before: package users.
	DeviceCookie = "__Host-Http-afterlogin_device"
	// FormCookie binds the sign-in form to the browser that fetched it.
	FormCookie = "__Host-Http-afterlogin_form"
)

// plain reports whether the site keeps its cookies without the prefix and without Secure, as httpauth's PlainLoopback does:
// the server's own host, when that is plain HTTP on this machine.
func plain(site *Site) bool { return site.Base == "" && strings.HasPrefix(site.Origin, "http://") }

func cookieName(site *Site, name string) string {
	if plain(site) {
		return strings.TrimPrefix(name, "__Host-Http-")
	}
	return name
}

// cookie returns the value of the one cookie of that name, "" if there is none, or more than one.
func cookie(r *http.Request, site *Site, name string) string {
	found := r.CookiesNamed(cookieName(site, name))
	if len(found) != 1 {
		return ""
	}
	return found[0].Value
}

func setDevice(w http.ResponseWriter, site *Site, value string) {
	setCookie(w, site, &http.Cookie{Name: DeviceCookie, Value: value, MaxAge: int(users.DeviceAge / time.Second)})
}

func setCookie(w http.ResponseWriter, site *Site, c *http.Cookie) {
	c.Name = cookieName(site, c.Name)
	c.Path, c.Secure, c.HttpOnly, c.SameSite = "/", !plain(site), true, http.SameSiteLaxMode
	w.Header().Add("Set-Cookie", c.String())
}

// formToken returns the token for a form of the page: the session's, or, where there is no session, the digest of the
// form cookie, which is set if the browser has none.
func (l *Login) formToken(w http.ResponseWriter, r *http.Request, site *Site) string {
	if _, ok := httpauth.Session(r.Context()); ok {
		return site.Auth.CSRFToken(r)
	}
	value := cookie(r, site, FormCookie)
	if !isFormCookie(value) {
		var b [32]byte
		rand.Read(b[:])
		value = base64.RawURLEncoding.EncodeToString(b[:])
		setCookie(w, site, &http.Cookie{Name: FormCookie, Value: value})
	}
	return formDigest(value)
}

func isFormCookie(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == 32 && len(s) == 43
}

func formDigest(value string) string {
	sum := sha256.Sum256([]byte("afterlogin/form/1\x00" + value))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// checkForm reports whether a POST carries the form's token. Where there is a session httpauth has checked its token.
func checkForm(r *http.Request, site *Site, f url.Values) bool {
	if _, ok := httpauth.Session(r.Context()); ok {
		return true
	}
	value := cookie(r, site, FormCookie)
	return isFormCookie(value) && subtle.ConstantTimeCompare([]byte(formDigest(value)), []byte(f.Get(httpauth.CSRFField))) == 1
}

// A formError is what is wrong with how a request is written.
type formError struct {
	status int
	text   string
}

func (e *formError) Error() string { return e.text }

var (
	errFormKind  = &formError{http.StatusUnsupportedMediaType, "The form was not sent as a browser sends it (application/x-www-form-urlencoded)."}
	errFormSize  = &formError{http.StatusRequestEntityTooLarge, "The form is too large."}
	errFormBroke = &formError{http.StatusBadRequest, "The form could not be read."}
	errTwice     = &formError{http.StatusBadRequest, "A field stands twice in the form, or in the address."}
	errQuery     = &formError{http.StatusBadRequest, "The address of this page could not be read."}
)

// fields are the names of all that is read of a form or an address. Anything else is left alone: others add parameters of
// their own to the addresses that people are sent.
var fields = []string{
	httpauth.CSRFField, "return_to", "reason", "max_age", "acr_values", "name", "password", "new", "repeat", "remember", "confirm",
	"again", "provider", "to", "nonce",
}

// readForm returns the fields of a POST, each once.
func readForm(r *http.Request) (url.Values, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return nil, errFormKind
	}
	if err := r.ParseForm(); err != nil && r.PostForm == nil {
		return nil, errFormBroke
	} else if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, errFormSize
		}
		return nil, errFormBroke
	}
	return r.PostForm, once(r.PostForm)
}

// readQuery returns the parameters of the address, each once.
func readQuery(r *http.Request) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errQuery
	}
	return q, once(q)
}

func once(v url.Values) error {
	for _, name := range fields {
		if len(v[name]) > 1 {
			return errTwice
		}
	}
	return nil
}

// An asked is what a page that sent somebody here wants of the sign-in.
type asked struct {
	reason string
	acr    []string // one of these
	maxAge string   // in seconds, as it came
}

const maxClasses = 8

// readAsked reads it from the address or from the form, where it comes back. What it cannot read it leaves out: it only
// decides on what the person is shown.
func readAsked(v url.Values) asked {
	a := asked{reason: v.Get("reason")}
	if a.reason != "stale_auth" && a.reason != "signed_out" {
		a.reason = ""
	}
	for _, class := range strings.Fields(v.Get("acr_values")) {
		if len(a.acr) < maxClasses && len(class) <= 100 && !strings.ContainsFunc(class, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
			a.acr = append(a.acr, class)
		}
	}
	if s := v.Get("max_age"); s != "" && len(s) <= 10 && strings.Trim(s, "0123456789") == "" {
		a.maxAge = s
	}
	return a
}

// again reports whether the person of the session is to be asked once more.
func (a asked) again() bool { return a.reason == "stale_auth" || len(a.acr) > 0 || a.maxAge != "" }
