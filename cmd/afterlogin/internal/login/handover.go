package login

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/afterlogin/afterlogin/httpauth"
)

// Somebody who signs in at the server's own host to go to an application is signed in there, too, by httpauth's hand-over:
//
//	https://auth.example/login                   signs in, and sends the browser to
//	https://shop.example/.afterlogin/handover    which binds what is to come to a cookie of its own, and sends it to
//	https://auth.example/handover                which makes a ticket for the session there, and sends it to
//	https://shop.example/.afterlogin/arrive      which takes the ticket for a session, and sends it to return_to
//
// The httpauth.Options of the server's own site must name the others in HandOverTo.

// handOver begins a hand-over to this site, or makes the ticket for another one.
func (l *Login) handOver(w http.ResponseWriter, r *http.Request, site *Site) {
	q, err := readQuery(r)
	if err != nil {
		l.fault(w, r, site, err)
		return
	}
	if q.Has("to") {
		site.Auth.HandOver().ServeHTTP(w, r)
		return
	}
	if l.o.Home == "" || site.Origin == l.o.Home {
		l.message(w, r, site, http.StatusBadRequest, "This does not work", "This address is part of a sign-in, and leads nowhere by itself. Go to the page that you want and try again from there.")
		return
	}
	back := httpauth.SafeReturn(q.Get("return_to"))
	arrive := site.Base + arrivePath + "?return_to=" + url.QueryEscape(back)
	if err := site.Auth.StartHandOver(w, r, l.o.Home+handOverPath, arrive); err != nil {
		l.fault(w, r, site, err)
	}
}

// arrive takes the ticket of a hand-over.
func (l *Login) arrive(site *Site) http.Handler {
	return site.Auth.AcceptHandOver(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			l.message(w, r, site, http.StatusMethodNotAllowed, "This does not work", "The page takes GET, HEAD only.")
			return
		}
		q, err := readQuery(r)
		if err != nil {
			l.fault(w, r, site, err)
			return
		}
		to := httpauth.SafeReturn(q.Get("return_to"))
		if path, _, _ := strings.Cut(to, "?"); path == site.Base+arrivePath {
			to = home(site).path
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
	}))
}
