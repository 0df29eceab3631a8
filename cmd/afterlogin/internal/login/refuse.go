package login

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

type refusingKey struct{}

// refusing is which of the pages a request is for.
type refusing struct {
	login *Login
	site  *Site
	path  string // below the site's Base
}

// refusing has Refuse answer the request with a page.
func (l *Login) refusing(r *http.Request, site *Site, path string) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), refusingKey{}, &refusing{l, site, path}))
}

// Refuse is for httpauth.Options.Refuse of every Site's Auth: it answers requests for the pages with a page, and others
// with httpauth.Answer.
func Refuse(w http.ResponseWriter, r *http.Request, err error) {
	if to, ok := r.Context().Value(refusingKey{}).(*refusing); ok {
		to.refuse(w, r, err)
		return
	}
	httpauth.Answer(w, r, err)
}

// refuse answers a request that httpauth did not let through, and has logged.
func (p *refusing) refuse(w http.ResponseWriter, r *http.Request, err error) {
	l, site := p.login, p.site
	prepare(w.Header())
	form, bad := readForm(r)
	if r.Method != http.MethodPost {
		form, bad = readQuery(r)
	}
	if bad != nil { // what is wrong with it is not the matter now
		form = url.Values{}
	}
	a, to := readAsked(form), l.target(site, form.Get("return_to"))
	status := httpauth.Status(err)
	switch {
	case errors.Is(err, httpauth.ErrCSRFToken) && p.path == loginPath:
		// Somebody has signed in, or signed out and in again, in another tab: the page shows who is signed in now.
		q, _ := l.signInPage(r, site, a, to)
		q.Error = oldForm
		l.show(w, r, site, status, q)
	case errors.Is(err, httpauth.ErrCSRFToken):
		q := page{Title: "Try once more", Error: oldForm, Continue: p.again(form), ContinueText: "Try again"}
		l.show(w, r, site, status, q)
	case errors.Is(err, afterlogin.ErrUnavailable):
		q := page{Title: "Try again in a moment", Error: unavailableText, Continue: p.again(form), ContinueText: "Try again"}
		l.show(w, r, site, status, q)
	default:
		l.message(w, r, site, status, "This does not work", httpauth.Message(err))
	}
}

// again returns the address of the page that the request is for, with what its query or its form knows of the way.
func (p *refusing) again(form url.Values) string {
	to := p.path
	q := make(url.Values)
	switch to {
	case loginPath, logoutPath, arrivePath:
		for _, name := range []string{"return_to", "reason", "max_age", "acr_values"} {
			if v := form.Get(name); v != "" {
				q.Set(name, v)
			}
		}
	case handOverPath:
		for _, name := range []string{"return_to", "to", "nonce"} {
			if v := form.Get(name); v != "" {
				q.Set(name, v)
			}
		}
	}
	to = p.site.Base + to
	if len(q) > 0 {
		to += "?" + q.Encode()
	}
	return to
}
