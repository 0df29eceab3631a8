package httpauth

import (
	"net/http"

	"github.com/afterlogin/afterlogin"
)

// A Check decides on requests as Require does, and leaves the answer to its caller: for what stands in front of
// applications rather than around their handlers. It is safe for concurrent use. Make it with Auth.NewCheck, once.
type Check struct {
	auth *Auth
	need need
}

// NewCheck returns a check with the requirements of Require. It panics where these do, and at KindTicket: to let
// somebody in by a ticket uses the ticket up, and a check changes nothing.
func (x *Auth) NewCheck(opts ...Requirement) *Check {
	c := &Check{auth: x, need: need{kinds: sessions, bearers: sessions}}
	for _, o := range opts {
		o(&c.need)
	}
	if c.need.tickets() {
		panic("httpauth: NewCheck: a check takes no tickets")
	}
	return c
}

// Found is what a Check found in a request.
type Found struct {
	// Session is the session of a signed-in person, or whatever else was let through; nil if the error is not.
	Session *afterlogin.Session
	// Header is where the credential stood, refused ones too: "Cookie", "Authorization", "X-Api-Key", or "" if there was
	// none. Of two, none is named.
	Header string
}

// Examine says whether the request is let through: the error is nil and the session that of somebody signed in, or the
// error is one that Status and Refuse know. It looks at the method, the host, the query and the headers, never at the
// body, and it neither renews a token nor sets a cookie: see afterlogin.Session.RenewalDue.
//
// Unlike Require it demands no CSRF token, which applications that know nothing of this package could not send. Requests
// that could change something, and those that open a WebSocket, must not come from a page of another site if they are
// authenticated by a cookie (ErrCrossOrigin); without a credential, or with another, there is nothing to misuse.
func (c *Check) Examine(r *http.Request) (Found, error) {
	x, v := c.auth, &visit{Context: r.Context(), auth: c.auth}
	v.apiKeys, v.jwts = c.need.apiKeys(), c.need.jwts()
	if x.options.PlainLoopback {
		if err := checkLoopback(r); err != nil {
			return Found{}, err
		}
	}
	if r.URL.RawQuery != "" {
		if err := x.checkURL(r, &c.need); err != nil {
			return Found{}, err
		}
	}
	v.from = x.client(r)
	if err := x.extract(v, r, &c.need); err != nil {
		return Found{}, err
	}
	var f Found
	switch v.transport {
	case none:
		return f, errNoCredential
	case cookie, jwtCookie:
		f.Header = "Cookie"
		if err := x.checkOrigin(v, r); err != nil {
			return f, err
		}
	case bearer:
		f.Header = "Authorization"
	case apiKeyHeader:
		f.Header = "X-Api-Key"
	}
	s, err := x.validate(v, r, &c.need)
	if err == nil && !s.Anonymous() {
		err = c.need.lacksACR(s)
	}
	switch {
	case err != nil:
		if why := afterlogin.ReasonOf(err); why != "" {
			x.log.Debug("a credential was refused", "reason", why)
		}
		return f, err
	case s.Anonymous():
		return f, errNoCredential
	}
	f.Session = s
	return f, nil
}

// Refuse answers a request that Examine did not let through, with Options.Refuse: the status of Status(err), and the
// headers that belong to it, among them the challenge with what this check demands (RFC 6750, RFC 9470). It never
// redirects.
func (c *Check) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	c.auth.logFault(r, err)
	prepare(w.Header(), r, err, &c.need)
	c.auth.options.Refuse(w, r, err)
}

// Navigates reports whether the request is one of a browser that is going to show the answer as a page: a GET or a HEAD
// that accepts HTML, and is neither made by a script nor for a part of a page.
func Navigates(r *http.Request) bool { return navigates(r) }

// MayRenew reports whether the answer to the request may carry a renewed cookie, as far as the request tells: browsers
// throw away what they fetched in advance, and caches put parts of answers together.
func MayRenew(r *http.Request) bool { return mayRenew(r) }
