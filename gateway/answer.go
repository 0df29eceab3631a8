package gateway

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// Refuse answers with an error of Site or of Renew: the status, and what to do about it.
func (g *Gateway) Refuse(w http.ResponseWriter, r *http.Request, err error) { g.refuse(w, r, err) }

func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var f *fault
	if !errors.As(err, &f) {
		httpauth.Answer(w, r, err)
		return
	}
	h := w.Header()
	h["Cache-Control"] = noStore
	h.Set("X-Content-Type-Options", "nosniff")
	if f.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	if speaksJSON(r) {
		h.Set("Content-Type", "application/problem+json")
		w.WriteHeader(f.status)
		json.NewEncoder(w).Encode(struct {
			Title  string `json:"title"`
			Status int    `json:"status"`
			Detail string `json:"detail"`
			Reason string `json:"reason"`
		}{http.StatusText(f.status), f.status, f.text, f.code})
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(f.status)
	w.Write([]byte(f.text + "\n"))
}

// speaksJSON reports whether a program reads the answer (see httpauth.Answer).
func speaksJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	if strings.Contains(accept, "text/html") {
		return false
	}
	return strings.Contains(accept, "json") || len(r.Header["Authorization"]) > 0 || len(r.Header["X-Api-Key"]) > 0
}

// reply answers a request that is not let in, as far as the proxy can pass it on.
func (g *Gateway) reply(w http.ResponseWriter, r *http.Request, v variant, err error, check *httpauth.Check) {
	h := w.Header()
	h["Cache-Control"], h["Vary"] = noStore, vary
	if v == nginx {
		w = narrow{w}
	}
	var f *fault
	switch {
	case err == errHop: // nginx is told where to when it asks for the answer
		w.WriteHeader(http.StatusUnauthorized)
	case errors.As(err, &f) || check == nil:
		g.refuse(w, r, err)
	default:
		check.Refuse(w, r, err)
	}
}

// narrow gives every status that nginx's auth_request does not know the nearest one that it does: nginx makes a 500 of any
// other. The client is told the right one by /forward-auth/answer, and the challenge, which nginx would add to that.
type narrow struct{ http.ResponseWriter }

func (w narrow) WriteHeader(status int) {
	delete(w.Header(), "Www-Authenticate")
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status >= 500:
	case status >= 300 && status < 400:
		status = http.StatusUnauthorized
	case status >= 400:
		status = http.StatusForbidden
	}
	w.ResponseWriter.WriteHeader(status)
}

// again answers, to a client that nginx has turned away, a request that is fine by now: somebody has signed in meanwhile,
// or the store is there again.
//
// It is sent to the same address, but only a few times: if nginx's question and this one get different answers each time,
// for whatever reason, that must end.
func (g *Gateway) again(w http.ResponseWriter, r *http.Request, s *afterlogin.Session) {
	h := w.Header()
	h["Vary"] = vary
	to := httpauth.SafeReturn(r.RequestURI)
	if r.Method != http.MethodGet && r.Method != http.MethodHead || to != r.RequestURI {
		g.refuse(w, r, errAgain)
		return
	}
	who := g.ClientAddr(r).String()
	if s != nil {
		who = string(s.ID)
	}
	where := sha256.Sum256([]byte(who + " " + r.Host + to))
	if !g.agains.take(string(where[:]), g.now(), false) {
		g.refuse(w, r, errAgain)
		return
	}
	redirect(h, to)
	w.WriteHeader(http.StatusSeeOther)
}

// forget deletes what ServeHTTP may have set already. Other headers are whoever's who calls it.
func forget(h http.Header) {
	for _, name := range told {
		delete(h, name)
	}
	for _, name := range [...]string{
		HeaderCookie, HeaderAuthorization, "Cookie", "Authorization", "X-Api-Key", "X-Envoy-Auth-Headers-To-Remove",
		"Location", "Www-Authenticate", "Retry-After", "Content-Type",
	} {
		delete(h, name)
	}
}

// redirect sets the headers of a redirect. It has no body: nobody sees it.
func redirect(h http.Header, to string) {
	h["Location"] = []string{ascii(to)}
	h["Cache-Control"] = noStore
	h["Vary"] = vary
}

// ascii escapes what is not ASCII in an address, as browsers would.
func ascii(to string) string {
	const upper = "0123456789ABCDEF"
	for i := range len(to) {
		if to[i] < 0x80 {
			continue
		}
		b := append(make([]byte, 0, len(to)+16), to[:i]...)
		for ; i < len(to); i++ {
			if c := to[i]; c < 0x80 {
				b = append(b, c)
			} else {
				b = append(b, '%', upper[c>>4], upper[c&15])
			}
		}
		return string(b)
	}
	return to
}

// Values of headers that every answer carries. They are shared, and changed by nobody.
var (
	noStore = []string{"no-store"}
	vary    = []string{"Authorization, Cookie, X-Api-Key"}
)
