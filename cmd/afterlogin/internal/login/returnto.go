package login

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/afterlogin/afterlogin/httpauth"
)

// otherBase is where the pages of the sites of Options.HandOver are.
const otherBase = "/.afterlogin"

// A target is where somebody goes after a sign-in: a path of the site, or, with an origin, of another one.
type target struct {
	origin string // "" is the site itself
	path   string
}

// text returns the target as return_to.
func (t target) text() string { return t.origin + t.path }

// home is where people go who came from nowhere.
func home(site *Site) target {
	if site.Base == "" { // the server's own host has nothing else to show
		return target{path: loginPath}
	}
	return target{path: "/"}
}

// target returns where return_to leads, and home for whatever is not exactly the address of a place that people may be
// sent to: anybody can write it into a link.
func (l *Login) target(site *Site, text string) target {
	if strings.HasPrefix(text, "/") {
		if httpauth.SafeReturn(text) != text || text == "/" {
			return home(site)
		}
		return target{path: text}
	}
	for _, origin := range append([]string{site.Origin, l.o.Home}, l.o.Returns...) {
		// Compared as text: what follows the origin is its end, or the path. A user name, another port or a longer name cannot
		// stand there.
		rest, ok := strings.CutPrefix(text, origin)
		if !ok || origin == "" {
			continue
		}
		if rest == "" {
			rest = "/"
		}
		if httpauth.SafeReturn(rest) != rest {
			continue
		}
		if origin == site.Origin {
			return target{path: rest}
		}
		return target{origin: origin, path: rest}
	}
	return home(site)
}

// leave sends the browser there.
func (l *Login) leave(w http.ResponseWriter, r *http.Request, site *Site, to target) {
	http.Redirect(w, r, l.location(site, to), http.StatusSeeOther)
}

// Leave sends the browser of somebody who is signed in (303) to where returnTo says, if that is a path of the site or an
// address of another configured origin, and else to where people go by default. Anybody may have written the text.
func (l *Login) Leave(w http.ResponseWriter, r *http.Request, site *Site, returnTo string) {
	prepare(w.Header())
	l.leave(w, r, site, l.target(site, returnTo))
}

// location returns the address of the target for a browser that is signed in here.
func (l *Login) location(site *Site, to target) string {
	if to.origin == "" {
		return to.path
	}
	if site.Origin != l.o.Home || !slices.Contains(l.o.HandOver, to.origin) {
		return to.text()
	}
	// It begins there: only that host can bind what is handed over to its own cookie.
	return to.origin + otherBase + handOverPath + "?" + url.Values{"return_to": {to.path}}.Encode()
}

// formAction is what the content security policy says of where forms may lead. Chromium holds every address that an
// answer redirects to against it, and those that these redirect to, until a page is shown: the page that the person came
// from may lead elsewhere itself, and /oauth/authorize leads to an application's own scheme. So schemes are all that can
// be said. What keeps a form from leading elsewhere is that its target is ours, and that no text can become markup.
func formAction(site *Site, to target) string {
	out := "'self' https:"
	if site != nil && strings.HasPrefix(site.Origin, "http://") {
		out += " http:"
	}
	_, query, _ := strings.Cut(to.path, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return out
	}
	u, err := url.Parse(values.Get("redirect_uri"))
	if err != nil || u.Scheme == "" || u.Scheme == "https" || u.Scheme == "javascript" || u.Scheme == "data" {
		return out
	}
	for i := range len(u.Scheme) { // url.Parse has seen to it; this is for the header
		if c := u.Scheme[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '+') {
			return out
		}
	}
	return out + " " + u.Scheme + ":"
}
