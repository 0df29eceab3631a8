package login

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
	"github.com/afterlogin/afterlogin/httpauth"
)

const (
	wrongText  = "The name or the password is wrong."
	wrongAgain = "The password is wrong."
	busyText   = "Too many people are signing in at this moment. Try again in a few seconds."
	oldForm    = "This page was open for too long, or your browser keeps no cookies. Try once more."
)

// login is the sign-in page.
func (l *Login) login(w http.ResponseWriter, r *http.Request, site *Site) {
	if r.Method == http.MethodPost {
		l.postLogin(w, r, site)
		return
	}
	q, err := readQuery(r)
	if err != nil {
		l.fault(w, r, site, err)
		return
	}
	p, status := l.signInPage(r, site, readAsked(q), l.target(site, q.Get("return_to")))
	l.show(w, r, site, status, p)
}

// signInPage returns the page for whoever comes: who is signed in already, who is to confirm it, and everybody else.
func (l *Login) signInPage(r *http.Request, site *Site, a asked, to target) (page, int) {
	p := page{Reason: a.reason, MaxAge: a.maxAge, ACR: strings.Join(a.acr, " "), ReturnTo: to.text()}
	s := session(r)
	switch {
	case s == nil:
		p.Title, p.SignIn, p.Offer = "Sign in", l.o.Users != nil, !l.o.NoRemember
		if why, ok := httpauth.RefusalFrom(r.Context()); ok {
			p.Note = why.Message()
		}
		if a.reason == "signed_out" {
			p.Note = "You are signed out."
		}
		p.Ways = l.ways(a)
		if !p.SignIn && len(p.Ways) == 0 {
			p.Lines = []string{"There is no way to sign in on this page. If you run this site: add users, or an OpenID provider."}
		}
	case a.again() && !l.meets(s, a):
		l.confirmPage(site, s, a, to, &p)
	default:
		p.Title, p.Known, p.Subject = "You are signed in", true, s.Subject
		if to.origin != "" || to.path != site.Base+loginPath && (to.path != "/" || site.Base != "") {
			p.Continue, p.ContinueText = l.location(site, to), "Continue"
		}
		if l.o.Users != nil && users.CheckName(s.Subject) == nil && slices.Contains(s.Auth.Methods, "pwd") {
			p.Providers = []button{{"Change password", site.Base + passwordPath}}
		}
		if l.o.Account {
			p.Providers = append(p.Providers, button{"Where you are signed in", site.Base + accountPath})
		}
	}
	return p, http.StatusOK
}

// meets reports whether the session is all that is asked for: somebody has confirmed in another tab, or a link is old.
func (l *Login) meets(s *afterlogin.Session, a asked) bool {
	if len(a.acr) > 0 && !slices.Contains(a.acr, s.Auth.ACR()) {
		return false
	}
	if a.maxAge == "" {
		return len(a.acr) > 0 && a.reason == "" // how fresh it must be is not said
	}
	seconds, err := strconv.ParseInt(a.maxAge, 10, 64)
	return err == nil && l.now().Sub(s.Auth.At) < time.Duration(min(seconds, 1<<30))*time.Second
}

// confirmPage asks the person of the session once more, by the way that they signed in.
func (l *Login) confirmPage(site *Site, s *afterlogin.Session, a asked, to target, p *page) {
	p.Title, p.Subject = "Confirm it is you", s.Subject
	id, _, upstream := strings.Cut(s.Subject, ":")
	switch {
	case upstream && slices.ContainsFunc(l.o.Providers, func(x Provider) bool { return x.ID == id }):
		p.Known = true
		if p.Providers = l.buttons(site, a, to, "Confirm with ", id); len(p.Providers) == 0 {
			p.Lines = []string{"This page asks for a stronger sign-in than the one that you have, and where you signed in cannot give it."}
			return
		}
		p.Lines = []string{"This page asks who you are once more."}
	case l.o.Users != nil && users.CheckName(s.Subject) == nil && l.passwordDoes(a):
		p.Confirm = true
		p.Lines = []string{"This page asks for your password once more."}
	default:
		p.Known = true
		p.Lines = []string{"This page asks for another kind of sign-in than the one that you have."}
		if p.Providers = l.buttons(site, a, to, "Sign in with ", ""); len(p.Providers) == 0 {
			p.Lines = append(p.Lines, "Nothing here can give it: ask whoever runs this site.")
		}
	}
}

// passwordDoes reports whether a password gives the class of authentication that is asked for.
func (l *Login) passwordDoes(a asked) bool {
	return len(a.acr) == 0 || slices.Contains(a.acr, l.o.PasswordACR)
}

// gives reports whether the provider can give what is asked for.
func (p *Provider) gives(a asked) bool {
	return len(a.acr) == 0 || len(p.ACR) == 0 || slices.ContainsFunc(a.acr, func(c string) bool { return slices.Contains(p.ACR, c) })
}

// ways returns the providers to sign in with.
func (l *Login) ways(a asked) (out []button) {
	for _, p := range l.o.Providers {
		if p.gives(a) {
			out = append(out, button{"Sign in with " + p.Name, p.ID})
		}
	}
	return out
}

// buttons returns links to the providers that can give what is asked for; only is the ID of the one that is to confirm who
// somebody is, "" for all of them, to sign in anew.
func (l *Login) buttons(site *Site, a asked, to target, text, only string) (out []button) {
	for _, p := range l.o.Providers {
		if (only == "" || p.ID == only) && p.gives(a) {
			out = append(out, button{text + p.Name, l.start(site, p.ID, a, to, only != "", false)})
		}
	}
	return out
}

// start returns the address where the sign-in by a provider begins. confirm is for somebody who came from there.
func (l *Login) start(site *Site, id string, a asked, to target, confirm, remember bool) string {
	back := to.text()
	if to.origin != "" { // what comes back from the provider goes to a path of this site
		back = site.Base + loginPath + "?return_to=" + url.QueryEscape(back)
	}
	q := url.Values{"return_to": {back}}
	switch {
	case a.maxAge != "":
		q.Set("max_age", a.maxAge)
	case confirm:
		q.Set("max_age", "0")
	}
	if confirm {
		q.Set("confirm", "1")
	}
	if len(a.acr) > 0 {
		q.Set("acr_values", strings.Join(a.acr, " "))
	}
	if remember {
		q.Set("remember", "1")
	}
	return site.Base + "/oidc/" + id + "/start?" + q.Encode()
}

// postProvider sends somebody who is not signed in to the provider whose button they pressed.
func (l *Login) postProvider(w http.ResponseWriter, r *http.Request, site *Site, f url.Values, a asked, to target) {
	id := f.Get("provider")
	if !slices.ContainsFunc(l.o.Providers, func(p Provider) bool { return p.ID == id }) {
		l.message(w, r, site, http.StatusNotFound, "This does not work", "Nobody signs in that way here.")
		return
	}
	remember := f.Get("remember") == "on" && !l.o.NoRemember
	http.Redirect(w, r, l.start(site, id, a, to, false, remember), http.StatusSeeOther)
}

// postLogin checks a password.
func (l *Login) postLogin(w http.ResponseWriter, r *http.Request, site *Site) {
	f, err := readForm(r)
	if err != nil {
		l.fault(w, r, site, err)
		return
	}
	a, to := readAsked(f), l.target(site, f.Get("return_to"))
	if l.o.Users == nil && !f.Has("provider") {
		l.message(w, r, site, http.StatusNotFound, "This does not work", "Nobody signs in with a password here.")
		return
	}
	s, confirm := session(r), f.Get("confirm") == "on"
	name := f.Get("name")
	if confirm {
		if s == nil { // it has ended meanwhile
			a.reason = ""
			p, _ := l.signInPage(r, site, a, to)
			l.show(w, r, site, http.StatusConflict, p)
			return
		}
		name = s.Subject
	}
	// again shows the form once more, with what was typed but for the password.
	again := func(status int, bad, text string) {
		p := page{
			Title: "Sign in", SignIn: l.o.Users != nil, Offer: !l.o.NoRemember, Error: text, Bad: bad, Name: clip(name), Remember: f.Get("remember") == "on",
			Reason: a.reason, MaxAge: a.maxAge, ACR: strings.Join(a.acr, " "), ReturnTo: to.text(),
		}
		if confirm {
			p.Title, p.SignIn, p.Confirm, p.Subject = "Confirm it is you", false, true, s.Subject
		} else {
			p.Ways = l.ways(a)
		}
		l.show(w, r, site, status, p)
	}
	if !checkForm(r, site, f) {
		again(http.StatusForbidden, "", oldForm)
		return
	}
	if f.Has("provider") {
		l.postProvider(w, r, site, f, a, to)
		return
	}
	if confirm && (users.CheckName(name) != nil || !l.passwordDoes(a)) {
		l.message(w, r, site, http.StatusConflict, "This does not work", "Your password cannot confirm this sign-in. Sign in another way.")
		return
	}
	v, err := l.o.Users.Verify(r.Context(), name, f.Get("password"), l.from(r, site))
	if err != nil {
		text := wrongText
		if confirm {
			text = wrongAgain
		}
		l.failed(w, r, site, err, text, again)
		return
	}
	id := Identity{
		Subject: v.User.Name, Mark: v.Mark, Methods: []string{"pwd"}, ACR: l.o.PasswordACR, At: l.now(), Scopes: v.User.Scopes,
		Remember: f.Get("remember") == "on" && !l.o.NoRemember, Confirm: confirm, Device: v.Device,
	}
	switch _, err = l.SignIn(w, r, site, id); {
	case err == nil:
		l.leave(w, r, site, to)
	case errors.Is(err, afterlogin.ErrStaleSignIn):
		again(http.StatusConflict, "both", staleText+" Sign in again.")
	case errors.Is(err, afterlogin.ErrUnavailable):
		l.log.ErrorContext(r.Context(), "a sign-in failed", "err", err)
		w.Header().Set("Retry-After", "1")
		again(http.StatusServiceUnavailable, "", unavailableText)
	default:
		l.Fail(w, r, site, err)
	}
}

// failed answers a password that Verify did not let through, with the form.
func (l *Login) failed(w http.ResponseWriter, r *http.Request, site *Site, err error, wrong string, again func(status int, bad, text string)) {
	var wait *users.ThrottledError
	switch {
	case errors.Is(err, users.ErrWrong):
		again(http.StatusUnprocessableEntity, "both", wrong)
	case errors.As(err, &wait):
		w.Header().Set("Retry-After", strconv.Itoa(int(wait.RetryAfter/time.Second)))
		again(http.StatusTooManyRequests, "", "There were too many wrong passwords. Try again in "+inWords(wait.RetryAfter)+".")
	case errors.Is(err, users.ErrBusy):
		w.Header().Set("Retry-After", "2")
		again(http.StatusServiceUnavailable, "", busyText)
	case errors.Is(err, afterlogin.ErrUnavailable):
		l.log.ErrorContext(r.Context(), "a password cannot be checked", "err", err)
		w.Header().Set("Retry-After", "1")
		again(http.StatusServiceUnavailable, "", unavailableText)
	default:
		l.fault(w, r, site, err)
	}
}

// from is where the request's password comes from.
func (l *Login) from(r *http.Request, site *Site) users.From {
	c, _ := httpauth.ClientFrom(r.Context())
	return users.From{Addr: known(c.Addr), Device: cookie(r, site, DeviceCookie)}
}

func known(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// clip cuts a name that was typed to what is shown again.
func clip(s string) string {
	if len(s) > 200 {
		return ""
	}
	return s
}
