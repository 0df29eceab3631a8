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
// another host, the download of a file by another program. It is let in by Require with Kinds(afterlogin.KindTicket),
// with exactly this path and query.
//
// The target is a path with its query, as SafeReturn lets it through, without a fragment and without a ticket. With
// Options.Origin the link is good at that origin only; without, on every host whose Auth has the same authority and
// tenant, and no Origin. To link to another host that has an Origin, name it in HandOverTo, and have the target begin
// with it.
//
// What it returns is a secret for as long as it is good: put it into the page that asked for it, and into no log.
//
// Errors: a Refusal unless somebody is signed in here, by the session cookie or with the session's token as a bearer
// token (a request that a ticket let in makes no other tickets); ErrBadRequest for a target that is none; a LimitError
// for too many tickets of one session; and ErrUnavailable.
func (x *Auth) TicketURL(r *http.Request, target string) (string, error) {
	v := x.visitOf(r.Context())
	if v == nil {
		return "", x.outside(r)
	}
	s, err := v.fullSession()
	if err != nil {
		return "", err
	}
	origin, path, ok := x.elsewhere(target)
	if !ok {
		origin, path = x.options.Origin, target
	}
	bound, ok := bind(origin, path)
	if !ok {
		return "", fmt.Errorf("TicketURL: %w", errBadTarget) // without the target, which may hold a token
	}
	got, err := x.authority.IssueTicket(r.Context(), s, afterlogin.TicketRequest{Target: bound})
	if errors.Is(err, afterlogin.ErrBadRequest) {
		return "", fmt.Errorf("TicketURL: %w: %v", errBadTarget, err)
	}
	if err != nil {
		return "", err
	}
	return withTicket(target, got.Token), nil
}

// maxTarget is the longest target that a ticket can be bound to, in bytes (afterlogin.TicketRequest).
const maxTarget = 2048

// bind returns what a ticket for the path and query is bound to. It returns false where a link with a ticket cannot
// lead: a fragment, even an empty one, would take the ticket in, and of two tickets neither is let in.
func bind(origin, path string) (target string, ok bool) {
	_, query, _ := strings.Cut(path, "?")
	if _, _, count := cutTicket(query); count > 0 || SafeReturn(path) != path || strings.Contains(path, "#") {
		return "", false
	}
	target = origin + canonical(path)
	return target, len(target) <= maxTarget
}

// elsewhere takes apart an address at one of the origins in HandOverTo.
func (x *Auth) elsewhere(address string) (origin, path string, ok bool) {
	for _, origin := range x.options.HandOverTo {
		path, ok := strings.CutPrefix(address, origin)
		if ok && path == "" {
			path = "/"
		}
		if ok && path[0] == '/' {
			return origin, path, true
		}
	}
	return "", "", false
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

// lasting is person for what outlives the request: a ticket, or the JWT in a cookie, must not beget another.
func (v *visit) lasting() (*afterlogin.Session, error) {
	s, err := v.person()
	if err != nil {
		return nil, err
	}
	if _, transport := v.credential(); transport != cookie && transport != bearer {
		return nil, &afterlogin.Refusal{Reason: afterlogin.ReasonWrongKind, Session: s.ID}
	}
	return s, nil
}

// fullSession is lasting for tickets, which are made below sessions only.
func (v *visit) fullSession() (*afterlogin.Session, error) {
	s, err := v.lasting()
	if err == nil && s.Kind != afterlogin.KindSession {
		return nil, &afterlogin.Refusal{Reason: afterlogin.ReasonWrongKind, Session: s.ID}
	}
	return s, err
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
	v.mu.Lock()
	token, used := v.token, v.redeemed
	v.mu.Unlock()
	if used != nil { // by an outer Require
		if !n.tickets() {
			return nil, ticket, &afterlogin.Refusal{Reason: afterlogin.ReasonWrongKind, Session: used.ID}
		}
		return used, ticket, n.lacks(used)
	}
	var got afterlogin.Issued
	var err error = &afterlogin.Refusal{Reason: afterlogin.ReasonWrongTarget}
	if at := here(r); !strings.Contains(at, "#") { // which no browser sends
		got, err = x.authority.RedeemTicket(r.Context(), token, afterlogin.TicketUse{
			Tenant: x.options.Tenant, Target: x.options.Origin + canonical(at), Device: v.from,
		})
	}
	var refusal *afterlogin.Refusal
	if errors.As(err, &refusal) && v.fallBack() {
		// A page elsewhere can put any ticket beside the cookie that a browser sends by itself.
		return nil, cookie, x.checkOrigin(v, r)
	}
	if err != nil {
		return nil, ticket, err
	}
	v.mu.Lock()
	v.redeemed, v.session, v.refusal = got.Session, got.Session, nil
	v.mu.Unlock()
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
	if query == "" || !strings.Contains(query, ticketPrefix) && strings.IndexByte(query, '%') < 0 {
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
