package console

import (
	"net/http"
	"net/url"
	"sync"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// knowledge is what the console has learned of the server: which of its parts are there does not change while it runs.
type knowledge struct {
	mu    sync.Mutex
	there map[string]bool
}

// has reports whether the API has the part of the server that a GET of the path is about. Where that is not there it answers
// 404, before anything else; trouble is a sign that it is there.
func (v *visit) has(path string, query url.Values) bool {
	k := &v.c.known
	k.mu.Lock()
	there, known := k.there[path]
	k.mu.Unlock()
	if known {
		return there
	}
	p := problemOf(v.get(path, query, nil))
	there = p == nil || p.Status != http.StatusNotFound
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.there == nil {
		k.there = make(map[string]bool)
	}
	k.there[path] = there
	return there
}

// hasUsers reports whether there are built-in users.
func (v *visit) hasUsers() bool {
	return v.may(api.UsersRead) && v.has("/v1/users", url.Values{"limit": {"1"}})
}

// hasAudit reports whether there is an audit log that the person may read.
func (v *visit) hasAudit() bool {
	return v.may(api.AuditRead) && v.has("/v1/audit", url.Values{"limit": {"1"}})
}
