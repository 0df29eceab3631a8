package login

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/afterlogin/afterlogin"
)

// logout asks whether to sign out, and does it.
func (l *Login) logout(w http.ResponseWriter, r *http.Request, site *Site) {
	if r.Method == http.MethodPost {
		l.postLogout(w, r, site)
		return
	}
	q, err := readQuery(r)
	if err != nil {
		l.fault(w, r, site, err)
		return
	}
	s := session(r)
	if s == nil {
		l.message(w, r, site, http.StatusOK, "You are not signed in", "There is nothing to sign out of.")
		return
	}
	p := page{Title: "Sign out?", SignOut: true, Lines: []string{"You are signed in as " + s.Subject + "."}}
	if q.Get("return_to") != "" {
		p.ReturnTo = l.target(site, q.Get("return_to")).text()
	}
	l.show(w, r, site, http.StatusOK, p)
}

func (l *Login) postLogout(w http.ResponseWriter, r *http.Request, site *Site) {
	f, err := readForm(r)
	if err != nil {
		l.fault(w, r, site, err)
		return
	}
	s := session(r)
	root, err := l.endRoot(r, s)
	if err == nil {
		err = site.Auth.SignOut(w, r)
		if root && errors.Is(err, afterlogin.ErrUnavailable) {
			err = nil // it ended with its root; the cookie that is left opens nothing
		}
	}
	if err != nil {
		if errors.Is(err, afterlogin.ErrUnavailable) { // the cookie stays, and the person must know
			l.log.ErrorContext(r.Context(), "a sign-out failed", "err", err)
			w.Header().Set("Retry-After", "1")
			again := site.Base + logoutPath
			if back := f.Get("return_to"); back != "" {
				again += "?return_to=" + url.QueryEscape(l.target(site, back).text())
			}
			l.show(w, r, site, http.StatusServiceUnavailable, page{
				Title: "You are still signed in", Lines: []string{"The sign-out could not be stored. Try again in a moment."},
				Continue: again, ContinueText: "Try again",
			})
			return
		}
		l.fault(w, r, site, err)
		return
	}
	next := site.Base + loginPath + "?reason=signed_out"
	back := f.Get("return_to")
	switch {
	case f.Get("again") == "on": // another account, for the same page
		next += "&return_to=" + url.QueryEscape(l.target(site, back).text())
	case back != "":
		if to := l.target(site, back); to != home(site) {
			next = to.text()
		}
	}
	if s != nil && l.o.SignedOut != nil && f.Get("again") != "on" {
		if to := l.o.SignedOut(r, site, s, next); to != "" {
			next = to
		}
	}
	http.Redirect(w, r, next, http.StatusSeeOther)
}

// endRoot ends what a session that was handed over from another site came from, and whatever else was handed over from
// there: all of it was made for this person in this browser, and would sign them in again at the next page.
func (l *Login) endRoot(r *http.Request, s *afterlogin.Session) (ended bool, err error) {
	if s == nil || s.Root == s.ID || !strings.HasPrefix(string(s.Root), "ses_") {
		return false, nil
	}
	err = l.o.Authority.Revoke(r.Context(), s.Root, afterlogin.ReasonSignedOut)
	if errors.Is(err, afterlogin.ErrNoSession) {
		return false, nil
	}
	return err == nil, err
}
