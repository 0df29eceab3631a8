package upstream

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/afterlogin/afterlogin"
)

// SignedOut returns where to send the browser of somebody who has just signed out of the session: to the sign-out of the
// provider that the session came from, if Provider.SignOut says so and it has one, and else to. The provider asks them
// whether they mean it, since no ID token is kept that could vouch for the request, and sends them on to the sign-in page
// of the site, whose address must be registered there (OpenID Connect RP-Initiated Logout 1.0, 2 and 3). Where
// nothing is known of the provider, which is so after a start alone, its metadata are waited for, 5 s at most.
func (u *Upstream) SignedOut(r *http.Request, site *Site, s *afterlogin.Session, to string) string {
	id, _, ok := strings.Cut(s.Subject, ":")
	p := u.providers[id]
	if !ok || p == nil || !p.SignOut {
		return to
	}
	m, ok := p.metadata.known()
	if !ok {
		var err error
		if m, err = p.metadata.get(r.Context(), nil); err != nil {
			return to
		}
	}
	if m.endSession == "" {
		return to
	}
	where, err := url.Parse(m.endSession)
	if err != nil {
		return to
	}
	q := where.Query()
	q.Set("client_id", p.ClientID)
	q.Set("post_logout_redirect_uri", site.Origin+site.Base+"/login")
	where.RawQuery = q.Encode()
	return where.String()
}
