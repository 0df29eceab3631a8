package gateway

import (
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin/httpauth"
)

// Renew answers requests for BasePath + RenewPath on an application's host: the session's token is renewed if that is
// due, as httpauth does it when the headers of an answer are written, and the browser is sent back to return_to, a path
// of the same host.
//
// It is where ServeHTTP sends browsers whose token is due, since most proxies keep no Set-Cookie of a forward-auth answer
// for the client. It asks nobody to be signed in: who is not will hear so where the request goes next.
func (g *Gateway) Renew(w http.ResponseWriter, r *http.Request) {
	site, err := g.Site(r)
	if err != nil {
		g.Refuse(w, r, err)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		g.refuse(w, r, errRenewMethod)
		return
	}
	site.Auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Location"] = []string{ascii(comesBack(r.URL.RawQuery))}
		h["Cache-Control"] = noStore
		h.Set("Referrer-Policy", "no-referrer")
		w.WriteHeader(http.StatusSeeOther)
	})).ServeHTTP(w, r)
}

// comesBack returns where the browser goes on: the path in return_to, unless it would come here again.
func comesBack(query string) string {
	q, err := url.ParseQuery(query)
	if err != nil || len(q["return_to"]) != 1 {
		return "/"
	}
	to := httpauth.SafeReturn(q["return_to"][0])
	u, err := url.Parse(to)
	if err != nil || below(u.Path) {
		return "/"
	}
	return to
}

// How often a session is sent to the renewal within what time.
const (
	maxHops    = 3
	hopsWithin = 30 * time.Second
	hopsKept   = 8192
)

// hops counts how often sessions were sent to the renewal, so that one that cannot be renewed now (the store does not
// take it, the browser does not keep the cookie) is not sent round and round: after a few times it is served as it is,
// and tried again later. When there are too many, the older half is forgotten. It counts on this node alone: behind
// several there may be as many hops on each.
type hops struct {
	mu         sync.Mutex
	young, old map[string]hop
}

type hop struct {
	since time.Time
	count int
}

// take reports whether the session may be sent there once more. With look it only says so.
func (hs *hops) take(id string, now time.Time, look bool) bool {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h, ok := hs.young[id]
	if !ok {
		h, ok = hs.old[id]
	}
	if age := now.Sub(h.since); !ok || age > hopsWithin || age < 0 {
		h = hop{since: now}
	}
	if h.count++; h.count > maxHops {
		return false
	}
	if look {
		return true
	}
	if len(hs.young) >= hopsKept/2 {
		hs.old, hs.young = hs.young, nil
	}
	if hs.young == nil {
		hs.young = make(map[string]hop)
	}
	hs.young[id] = h
	return true
}
