package login

import (
	"errors"
	"net/http"
	"net/url"

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
	if err := site.Auth.SignOut(w, r); err != nil {
		if errors.Is(err, afterlogin.ErrUnavailable) { // the cookie stays, and the person must know
			l.log.ErrorContext(r.Context(), "a sign-out failed", "err", err)
			w.Header().Set("Retry-After", "1")
			l.message(w, r, site, http.StatusServiceUnavailable, "You are still signed in", "The sign-out could not be stored. Try again in a moment.")
			return
		}
		l.fault(w, r, site, err)
		return
	}
	page := site.Base + loginPath + "?reason=signed_out"
	back := f.Get("return_to")
	switch {
	case f.Get("again") == "on": // another account, for the same page
		page += "&return_to=" + url.QueryEscape(l.target(site, back).text())
	case back != "":
		if to := l.target(site, back); to != home(site) {
			page = to.text()
		}
	}
	if s != nil && l.o.SignedOut != nil && f.Get("again") != "on" {
		if to := l.o.SignedOut(r, site, s, page); to != "" {
			page = to
		}
	}
	http.Redirect(w, r, page, http.StatusSeeOther)
}
