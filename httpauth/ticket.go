package httpauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
)

// TicketParam is the parameter that carries a ticket.
const TicketParam = "ticket"

// ticketPrefix begins every ticket. A parameter of this name with anything else in it is the application's own.
const ticketPrefix = "alt_"

// TicketURL returns the target with a ticket in it: a link that is good once, for half a minute, and lets one request in
// as if it had the session of this request. It is for what cannot carry the session cookie or a header: a WebSocket on
// another host, the download of a file by another program. The target is an absolute path with its query, as SafeReturn
// lets it through, on this host or on another one whose Auth has the same authority and tenant: it is let in there by
// Require with Kinds(afterlogin.KindTicket), with exactly this path and query.
//
// What it returns is a secret for as long as it is good: put it into the page that asked for it, and into no log.
//
// Errors: a Refusal if nobody is signed in here, ErrBadRequest for a target that is none, a LimitError for too many
// tickets of one session, and ErrUnavailable.
func (x *Auth) TicketURL(r *http.Request, target string) (string, error) {
	v := x.visitOf(r.Context())
	if v == nil {
		return "", x.outside(r)
	}
	s, err := v.person()
	if err != nil {
		return "", err
	}
	if SafeReturn(target) != target || strings.Contains(target, "#") {
		return "", fmt.Errorf("%w: TicketURL: %q is not a path, with a query or without, such as /downloads/7", afterlogin.ErrBadRequest, clip(target))
	}
	got, err := x.authority.IssueTicket(r.Context(), s, afterlogin.TicketRequest{Target: canonical(target)})
	if err != nil {
		return "", err
	}
	return withTicket(target, got.Token), nil
}

// person returns the session of the request, if somebody is signed in with it.
func (v *visit) person() (*afterlogin.Session, error) {
	s, refusal := v.result()
	switch {
	case s == nil && refusal != nil:
		return nil, refusal
	case s == nil || s.Anonymous():
		return nil, errNoCredential
	}
	return s, nil
}

func clip(s string) string {
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "…"
	}
	return s
}

func withTicket(to string, t afterlogin.Token) string {
	sep := "?"
	if strings.Contains(to, "?") {
		sep = "&"
	}
	return to + sep + TicketParam + "=" + t.Reveal()
}

// useTicket lets the request in with its ticket, once. If the ticket is refused, and there is a session cookie beside it,
// it returns the transport cookie: that is to decide.
func (x *Auth) useTicket(v *visit, r *http.Request, n *need) (*afterlogin.Session, transport, error) {
	token, _ := v.credential()
	s, _ := v.result()
	if s != nil { // an outer Require has used it
		if !n.tickets() {
			return nil, ticket, &afterlogin.Refusal{Reason: afterlogin.ReasonWrongKind, Session: s.ID}
		}
		return s, ticket, n.lacks(s)
	}
	got, err := x.authority.RedeemTicket(r.Context(), token, afterlogin.TicketUse{
		Tenant: x.options.Tenant, Target: canonical(here(r)), Device: v.from,
	})
	var refusal *afterlogin.Refusal
	if errors.As(err, &refusal) && v.fallBack() {
		// A page elsewhere can put any ticket beside the cookie that a browser sends by itself.
		return nil, cookie, x.checkOrigin(v, r)
	}
	if err != nil {
		return nil, ticket, err
	}
	v.w.Header().Set("Referrer-Policy", "no-referrer")
	return got.Session, ticket, n.lacks(got.Session)
}

// fallBack has the session cookie beside a ticket decide, if there is one.
func (v *visit) fallBack() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.beside.IsZero() {
		return false
	}
	v.token, v.transport, v.beside = v.beside, cookie, afterlogin.Token{}
	return true
}

// lacks checks of the session of a ticket what Validate checks of others. A ticket is half a minute old at most, so that
// which clock tells the age of a sign-in makes no difference.
func (n *need) lacks(s *afterlogin.Session) error {
	for _, want := range n.scopes {
		found := false
		for _, have := range s.Scopes {
			found = found || have == want
		}
		if !found {
			return &afterlogin.Refusal{Reason: afterlogin.ReasonScope, Session: s.ID}
		}
	}
	if n.maxAge > 0 && time.Since(s.Auth.At) > n.maxAge {
		return &afterlogin.Refusal{Reason: afterlogin.ReasonStaleAuth, Session: s.ID}
	}
	return nil
}

// usesTicket reports whether the request is one that uses a ticket up. What looks ahead, or looks at the headers only,
// must not take it away from the person who follows the link.
func usesTicket(r *http.Request) bool { return r.Method == http.MethodGet && !ahead(r) }

// cutTicket returns the query without its tickets, the last of them, and how many there were.
func cutTicket(query string) (rest, found string, count int) {
	if !strings.Contains(query, ticketPrefix) && strings.IndexByte(query, '%') < 0 {
		return query, "", 0
	}
	var kept []string
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(name); err == nil && name == TicketParam {
			if value, err := url.QueryUnescape(value); err == nil && strings.HasPrefix(value, ticketPrefix) {
				found, count = value, count+1
				continue
			}
		}
		kept = append(kept, pair)
	}
	if count == 0 {
		return query, "", 0
	}
	return strings.Join(kept, "&"), found, count
}

// here returns the path and the query of the request as the client sent them, even behind http.StripPrefix, without a
// ticket.
func here(r *http.Request) string {
	uri := r.RequestURI
	if uri == "" || uri[0] != '/' {
		uri = r.URL.RequestURI()
	}
	return withoutTicket(uri)
}

func withoutTicket(uri string) string {
	p, q, has := strings.Cut(uri, "?")
	if !has {
		return uri
	}
	rest, _, count := cutTicket(q)
	switch {
	case count == 0:
		return uri
	case rest == "":
		return p
	}
	return p + "?" + rest
}

// canonical writes the path in the one way that RFC 3986, 6.2.2, has for it: whoever makes a ticket and whoever sends it
// may escape differently. What an escape hides, such as a slash, stays hidden. The query is left as it is.
func canonical(target string) string {
	p, q, has := strings.Cut(target, "?")
	const upper = "0123456789ABCDEF"
	b := make([]byte, 0, len(target))
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case c == '%' && i+2 < len(p) && hexDigit(p[i+1]) >= 0 && hexDigit(p[i+2]) >= 0:
			d := byte(hexDigit(p[i+1])<<4 | hexDigit(p[i+2]))
			if i += 2; unreserved(d) {
				b = append(b, d)
			} else {
				b = append(b, '%', upper[d>>4], upper[d&15])
			}
		case c <= ' ' || c >= 0x7f || c == '%': // one that begins no escape, or it might with what follows
			b = append(b, '%', upper[c>>4], upper[c&15])
		default:
			b = append(b, c)
		}
	}
	if has && q != "" {
		b = append(append(b, '?'), q...)
	}
	return string(b)
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func unreserved(c byte) bool { return base64url(c) || c == '.' || c == '~' }
