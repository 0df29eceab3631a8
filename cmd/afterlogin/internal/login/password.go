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
// browser that somebody left open must not be enough.
//
// This session gets a new token, and then all others of the user end with the change: in this order, so that no copy of the
// old token is left when anything is said. A session that was handed over from another site ends with the one that it came
// from, so nothing is spared there.
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
	// What stands below the session is spared with it, and a session that was handed over from here, which somebody may have
	// a copy of, stands there; of one that was handed over to here, what it came from would be spared.
	spare := s.ID
	if s.Root != s.ID || site.Origin == l.o.Home && len(l.o.HandOver) > 0 {
		spare = ""
	} else if !l.freshToken(w, r, site, v) {
		return
	}
	u, err := l.o.Users.ChangePassword(r.Context(), v, f.Get("new"), spare)
	switch {
	case errors.Is(err, afterlogin.ErrUnavailable):
		l.log.ErrorContext(r.Context(), "it is not known whether a password was changed", "user", v.User.Name, "err", err)
		w.Header().Set("Retry-After", "1")
		l.message(w, r, site, http.StatusServiceUnavailable, "Try again in a moment",
			"It is not known whether your password was changed, and your other devices may still be signed in. Sign in with the new one; if that is wrong, the old one still holds, and you can change it again.")
		return
	case errors.Is(err, users.ErrChanged):
		l.message(w, r, site, http.StatusConflict, "Your password was changed by somebody else",
			"It was given another one, or your account was disabled, while you were changing it. What you typed does not count. If that was not you, ask whoever runs this site.")
		return
	case err != nil:
		l.failed(w, r, site, err, "", again)
		return
	}
	if device := l.o.Users.Remember(u, cookie(r, site, DeviceCookie)); device != "" {
		setDevice(w, site, device)
	}
	if spare == "" {
		l.message(w, r, site, http.StatusOK, "Your password is changed", "All your devices are signed out, this one too. Sign in again with the new password.")
		return
	}
	done := page{Title: "Your password is changed", Lines: []string{"All other devices are signed out."}}
	if site.Base != "" {
		done.Continue, done.ContinueText = home(site).path, "Continue"
	}
	l.show(w, r, site, http.StatusOK, done)
}

// freshToken gives the session of somebody whose password was right a new token. It answers, and returns false, if it could
// not: then the password stays as it is.
func (l *Login) freshToken(w http.ResponseWriter, r *http.Request, site *Site, v *users.Verified) bool {
	auth := afterlogin.Authentication{Methods: []string{"pwd"}, At: l.now()}
	if l.o.PasswordACR != "" {
		auth.Methods = append(auth.Methods, afterlogin.ACRMethod(l.o.PasswordACR))
	}
	_, err := site.Auth.StepUpSince(w, r, v.Mark, auth)
	switch {
	case err == nil:
		return true
	case errors.Is(err, afterlogin.ErrUnavailable):
		l.log.ErrorContext(r.Context(), "a password was not changed: its session did not get a new token", "user", v.User.Name, "err", err)
		w.Header().Set("Retry-After", "1")
		l.message(w, r, site, http.StatusServiceUnavailable, "Try again in a moment",
			"Your password is what it was, and no device is signed out. You may have to sign in again on this one.")
	default:
		l.Fail(w, r, site, err)
	}
	return false
}
