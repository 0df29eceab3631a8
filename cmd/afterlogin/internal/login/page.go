package login

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

var pages = template.Must(template.New("page").Parse(pageHTML))

var styleHash = func() string {
	sum := sha256.Sum256([]byte(pageCSS))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}()

// page is what a page shows. Which parts of it there are, the template sees from what is set.
type page struct {
	Style template.CSS
	Title string // the heading, too
	Error string // what went wrong, above everything else
	Note  string // what one should know
	Lines []string

	Base      string
	Field     string // of Token
	Token     string
	ReturnTo  string // "" is home
	Reason    string
	MaxAge    string
	ACR       string
	Host      string
	Subject   string // who is signed in
	MinLength int

	SignIn   bool // the form for name and password
	Confirm  bool // the form for the password of Subject
	Known    bool // who is signed in, and where to
	SignOut  bool
	Change   bool // the form for a new password
	Bad      string
	BadText  string // what is wrong with the field Bad
	Name     string
	Remember bool // is checked
	Offer    bool // whether to be remembered is asked

	Continue     string
	ContinueText string
	Providers    []button // where to go instead
	Ways         []button // of signing in by a provider: To is its ID. They are part of a form, for the sake of Remember.
}

type button struct{ Text, To string }

// prepare sets the headers that every answer has.
func prepare(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	// Not no-referrer, with which browsers send a form's Origin as null.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", securityPolicy("'none'"))
}

// securityPolicy lets a page have our style, and nothing else: no script, no image, nobody's frame.
func securityPolicy(forms string) string {
	return "default-src 'none'; style-src " + styleHash + "; base-uri 'none'; frame-ancestors 'none'; form-action " + forms
}

// show answers with the page.
func (l *Login) show(w http.ResponseWriter, r *http.Request, site *Site, status int, p page) {
	p.Style, p.Field = template.CSS(pageCSS), httpauth.CSRFField
	if site != nil {
		p.Base = site.Base
		_, p.Host, _ = strings.Cut(site.Origin, "://")
	}
	if p.SignIn || p.Confirm || p.SignOut || p.Change || p.Known || len(p.Ways) > 0 {
		p.Token = l.formToken(w, r, site)
		w.Header().Set("Content-Security-Policy", securityPolicy(formAction(site, l.target(site, p.ReturnTo))))
	}
	var b bytes.Buffer
	if err := pages.Execute(&b, p); err != nil {
		panic("login: the page: " + err.Error()) // it does not depend on input
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// message shows a page that says something and asks nothing. The texts are fixed.
func (l *Login) message(w http.ResponseWriter, r *http.Request, site *Site, status int, title, text string) {
	p := page{Title: title, Lines: []string{text}}
	if site != nil {
		p.Continue, p.ContinueText = site.Base+loginPath, "Go to the sign-in page"
	}
	l.show(w, r, site, status, p)
}

// unavailableText says that the store does not answer.
const unavailableText = "This cannot be told right now. Nothing is lost: try again in a moment."

// fault answers an error that is nobody's at the keyboard.
func (l *Login) fault(w http.ResponseWriter, r *http.Request, site *Site, err error) {
	var bad *formError
	switch {
	case errors.As(err, &bad):
		l.message(w, r, site, bad.status, "This does not work", bad.text+" Go back and try again.")
	case errors.Is(err, afterlogin.ErrUnavailable):
		l.log.ErrorContext(r.Context(), "the store cannot be asked", "err", err)
		w.Header().Set("Retry-After", "1")
		l.message(w, r, site, http.StatusServiceUnavailable, "Try again in a moment", unavailableText)
	default:
		l.log.ErrorContext(r.Context(), "a sign-in failed", "err", err)
		l.message(w, r, site, http.StatusInternalServerError, "Something went wrong here", "It is not your fault. The server's log says what it was.")
	}
}

// inWords says for people how long a time is.
func inWords(d time.Duration) string {
	switch {
	case d <= time.Second:
		return "a second"
	case d < 100*time.Second:
		return strconv.Itoa(int((d+time.Second-1)/time.Second)) + " seconds"
	}
	return strconv.Itoa(int((d+time.Minute-1)/time.Minute)) + " minutes"
}
