package login

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
)

// password is where a built-in user changes the password. The current one is asked for, whoever's session it is: a
// browser that somebody left open must not be enough. All other sessions of the user end, and this one gets a new token.
func (l *Login) password(w http.ResponseWriter, r *http.Request, site *Site) {
	if l.o.Users == nil {
		l.message(w, r, site, http.StatusNotFound, "There is no such page", "Nobody signs in with a password here.")
		return
	}
	s := session(r)
	if s == nil {
		to := site.Base + loginPath + "?return_to=" + url.QueryEscape(site.Base+passwordPath)
		http.Redirect(w, r, to, http.StatusSeeOther)
		return
	}
	if _, err := l.o.Users.User(r.Context(), s.Subject); errors.Is(err, users.ErrNoUser) {
		l.message(w, r, site, http.StatusConflict, "There is no password to change", "You did not sign in with a password of this server. Change it where you signed in.")
		return
	} else if err != nil {
		l.fault(w, r, site, err)
		return
	}
	p := page{Title: "Change password", Change: true, Subject: s.Subject, MinLength: l.o.Users.MinLength()}
	if r.Method != http.MethodPost {
		l.show(w, r, site, http.StatusOK, p)
		return
	}
	f, err := readForm(r)
	if err != nil {
		l.fault(w, r, site, err)
		return
	}
	again := func(status int, bad, text string) {
		p.Error, p.Bad = text, bad
		l.show(w, r, site, status, p)
	}
	// What the person can mend alone comes first: it costs no try.
	if f.Get("new") != f.Get("repeat") {
		again(http.StatusUnprocessableEntity, "repeat", "The new password was typed in two ways. Type it again.")
		return
	}
	var bad *users.FieldError
	if err := l.o.Users.CheckPassword(s.Subject, f.Get("new")); errors.As(err, &bad) {
		again(http.StatusUnprocessableEntity, "new", "The new password does not do: "+strings.TrimSuffix(bad.Message, ".")+".")
		return
	}
	v, err := l.o.Users.Verify(r.Context(), s.Subject, f.Get("password"), l.from(r, site))
	if err != nil {
		l.failed(w, r, site, err, "The current password is wrong.", func(status int, bad, text string) {
			if bad == "both" {
				bad = "password"
			}
			again(status, bad, text)
		})
		return
	}
	if _, err := l.o.Users.SetPassword(r.Context(), v.User.Name, f.Get("new"), s.ID); errors.Is(err, afterlogin.ErrUnavailable) {
		l.log.ErrorContext(r.Context(), "it is not known whether a password was changed", "user", v.User.Name, "err", err)
		w.Header().Set("Retry-After", "1")
		l.message(w, r, site, http.StatusServiceUnavailable, "Try again in a moment",
			"It is not known whether your password was changed. Sign in with the new one; if that is wrong, the old one still holds, and you can change it again.")
		return
	} else if err != nil {
		l.failed(w, r, site, err, "", again)
		return
	}
	auth := afterlogin.Authentication{Methods: []string{"pwd"}, At: l.now()}
	if l.o.PasswordACR != "" {
		auth.Methods = append(auth.Methods, afterlogin.ACRMethod(l.o.PasswordACR))
	}
	if _, err := site.Auth.StepUp(w, r, auth); err != nil {
		l.log.WarnContext(r.Context(), "a password was changed, and its session did not get a new token", "session", s.ID, "err", err)
		l.message(w, r, site, http.StatusOK, "Your password is changed", "All other devices are signed out. Sign in again with the new password.")
		return
	}
	if v.Device != "" {
		setDevice(w, site, v.Device)
	}
	done := page{Title: "Your password is changed", Lines: []string{"All other devices are signed out."}}
	if site.Base != "" {
		done.Continue, done.ContinueText = home(site).path, "Continue"
	}
	l.show(w, r, site, http.StatusOK, done)
}
