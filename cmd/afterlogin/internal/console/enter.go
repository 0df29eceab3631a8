package console

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/httpauth"
)

// A link is opened in two steps, so that what looks ahead (a chat that shows previews, a browser that prefetches, a scanner
// of mails) does not use it up: to fetch its address only moves its secret from there into a cookie for half an hour, by a
// redirect, and the page that follows asks whether to go on. The POST that answers uses the link up and makes the session.

// linkAge is for how long a browser keeps a link that was opened, in seconds.
const linkAge = 30 * 60

// enter answers GET /enter.
func (c *Console) enter(w http.ResponseWriter, r *http.Request) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if secrets := q[entrance.Param]; err == nil && len(secrets) == 1 {
		w.Header().Set("Referrer-Policy", "no-referrer")
		if !entrance.IsSecret(secrets[0]) {
			c.badLink(w, r)
			return
		}
		c.setLinkCookie(w, secrets[0], linkAge)
		c.redirect(w, c.base+"/enter")
		return
	}
	if _, _, err := c.who(r); err == nil && c.link(r) == "" {
		c.redirect(w, c.base+"/")
		return
	}
	l, err := c.o.Entrance.Look(r.Context(), c.link(r))
	switch {
	case errors.Is(err, entrance.ErrNoLink):
		c.setLinkCookie(w, "", -1)
		c.badLink(w, r)
	case err != nil:
		c.fault(w, r, err)
	default:
		s := c.screen(r, "Enter the console", l)
		s.CSRF = c.auth.CSRFToken(r)
		if err := c.write(w, http.StatusOK, c.pages["enter"], s); err != nil {
			c.fault(w, r, err)
		}
	}
}

// useLink answers POST /enter.
func (c *Console) useLink(w http.ResponseWriter, r *http.Request) {
	secret := c.link(r)
	l, err := c.o.Entrance.Look(r.Context(), secret)
	if err != nil {
		c.noEntry(w, r, err)
		return
	}
	subject := entrance.SubjectPrefix + l.Name
	mark, err := c.auth.Begin(r, subject)
	if err != nil {
		c.noEntry(w, r, err)
		return
	}
	if l, err = c.o.Entrance.Use(r.Context(), secret); err != nil {
		c.brokenEntry(w, r, err)
		return
	}
	ctx := afterlogin.WithActor(r.Context(), l.ID) // by which the audit log tells whose link it was
	s, err := c.auth.SignIn(w, r.WithContext(ctx), httpauth.SignIn{
		Subject: subject, Mark: mark, Policy: afterlogin.PolicyConsole, Scopes: []string{"console:" + string(l.Role)}, Methods: []string{"link"},
	})
	if err == nil {
		if err = c.o.Entrance.Admit(ctx, s, l); err != nil {
			c.auth.SignOut(w, r) // it opens nothing; a failure leaves it to its end
		}
	}
	if err != nil {
		c.brokenEntry(w, r, err)
		return
	}
	c.log.InfoContext(ctx, "somebody has entered the console", "name", l.Name, "role", l.Role, "session", s.ID)
	c.setLinkCookie(w, "", -1)
	c.redirect(w, c.base+"/")
}

func (c *Console) noEntry(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, entrance.ErrNoLink) || errors.Is(err, afterlogin.ErrStaleSignIn) {
		c.setLinkCookie(w, "", -1)
		c.badLink(w, r)
		return
	}
	c.fault(w, r, err)
}

// brokenText is for who may be in or not, with a link that may be used up or not.
const brokenText = "Something went wrong in the middle of it, and the link may be used up. Go to the overview: if you are not in, open the link once more, and if that is used up, have another one made."

// limitText is for who was not let in because of a session limit, from which servers exempt the console.
const limitText = "You are not let in: your name is signed in to this console as often as the session limit allows. Somebody has to end one of those first; and this link is used up, so have another one made."

// brokenEntry answers when Use fails, or what comes behind it. The browser keeps the link: it may still be good.
func (c *Console) brokenEntry(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, entrance.ErrNoLink) || errors.Is(err, afterlogin.ErrStaleSignIn) {
		c.noEntry(w, r, err)
		return
	}
	if errors.Is(err, afterlogin.ErrSessionLimit) {
		c.message(w, r, http.StatusConflict, "There is no room for one more", limitText)
		return
	}
	p := api.NewProblem(http.StatusInternalServerError, "internal", brokenText)
	if errors.Is(err, afterlogin.ErrUnavailable) {
		p = api.NewProblem(http.StatusServiceUnavailable, "temporarily-unavailable", brokenText)
	}
	c.log.ErrorContext(r.Context(), "somebody with a link did not get into the console", "err", err)
	c.answer(w, p, c.screen(r, "", message{brokenText, p.Kind()}))
}

// badLink answers for a link that is not good.
func (c *Console) badLink(w http.ResponseWriter, r *http.Request) {
	s := c.screen(r, "This link is not good", "It was used before, if only to begin what then failed, it was taken back, or it is too old. A link is good once, and for half an hour if nothing else was said.")
	if err := c.write(w, http.StatusGone, c.pages["outside"], s); err != nil {
		c.fault(w, r, err)
	}
}

// link returns the secret of the link that the browser has opened, "" if it has none.
func (c *Console) link(r *http.Request) string {
	name := linkCookie
	if c.o.PlainLoopback {
		name = plainLinkCookie
	}
	found := r.CookiesNamed(name)
	if len(found) != 1 {
		return ""
	}
	return found[0].Value
}

// setLinkCookie is not Strict: then a browser would not send it behind the redirect of a link in another site's page.
func (c *Console) setLinkCookie(w http.ResponseWriter, secret string, age int) {
	k := &http.Cookie{Name: linkCookie, Value: secret, Path: "/", MaxAge: age, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if c.o.PlainLoopback {
		k.Name, k.Secure = plainLinkCookie, false
	}
	w.Header().Add("Set-Cookie", k.String())
}

// hasCookie reports whether the request carries a session of the console, good or not.
func (c *Console) hasCookie(r *http.Request) bool {
	name := CookieName
	if c.o.PlainLoopback {
		name = PlainCookieName
	}
	_, err := r.Cookie(name)
	return err == nil
}

// notSignedIn answers somebody who is not, or whose session is over, and wanted the route.
func (c *Console) notSignedIn(w http.ResponseWriter, r *http.Request, rt Route) {
	text := "The console is entered with a link that is good once. Somebody with an administrator's API key makes one:"
	if refusal, ok := httpauth.RefusalFrom(r.Context()); ok && refusal.Message() != "" {
		text = refusal.Message() + " " + text
	}
	s := c.screen(r, "Sign in to the console", text)
	// A browser that comes from another site's page has not sent its cookie, which is SameSite=Strict: it is asked to come
	// from here. Not to what is written into the audit log, in the name of somebody who only followed a link; nor is what
	// the link says of an act believed.
	if site := r.Header.Get("Sec-Fetch-Site"); r.Method == http.MethodGet && (site == "cross-site" || site == "same-site") &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && !c.hasCookie(r) {
		if s.Refresh = c.base + "/"; !rt.noted {
			s.Refresh = r.URL.EscapedPath() + strings.TrimSuffix(with(r.URL.Query()), "?")
		}
	}
	if err := c.write(w, http.StatusUnauthorized, c.pages["outside"], s); err != nil {
		c.fault(w, r, err)
	}
}

// signOut answers POST /sign-out.
func (c *Console) signOut(w http.ResponseWriter, r *http.Request) {
	s, ok := httpauth.Session(r.Context())
	if ok && !strings.HasPrefix(s.Subject, entrance.SubjectPrefix) {
		c.notSignedIn(w, r, Route{})
		return
	}
	if err := c.auth.SignOut(w, r); err != nil {
		c.trouble(w, r, err, unknownText)
		return
	}
	c.redirect(w, c.base+"/")
}
