package httpauth

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/afterlogin/afterlogin"
)

// maxCookies is the greatest size of all Cookie headers of a request together, in bytes. net/http gives no cookie at all
// when there are too many, which must not look like a person who is not signed in; so they are read here.
const maxCookies = 16 << 10

// extract finds the one credential of the request. Two are an error: one of them was planted, or sent by mistake, and
// nobody can say which. There are two pairs that browsers send without anybody's mistake: a cookie with a JWT stands back
// behind the session cookie that it was made from, and a session cookie behind a ticket, unless that is refused.
func (x *Auth) extract(v *visit, r *http.Request, n *need) error {
	var found string
	how := none
	if n.sessions() {
		value, count, err := findCookie(r.Header["Cookie"], x.cookieName)
		if err != nil {
			return err
		}
		if count > 1 {
			return x.duplicate("two session cookies in one request")
		}
		if count == 1 {
			found, how = value, cookie
		}
	}
	if how == none && n.jwts() && x.options.JWTCookie != "" {
		value, count, err := findCookie(r.Header["Cookie"], x.options.JWTCookie)
		if err != nil {
			return err
		}
		if count > 1 {
			return x.duplicate("two cookies with a JWT in one request")
		}
		if count == 1 {
			found, how = value, jwtCookie
		}
	}
	if lines := r.Header["Authorization"]; len(lines) > 0 {
		token, ok, err := findBearer(lines)
		if err != nil {
			return err
		}
		if ok {
			if how != none {
				return x.duplicate("a cookie and a bearer token in one request")
			}
			found, how = token, bearer
		}
	}
	if n.apiKeys() {
		if lines := r.Header["X-Api-Key"]; len(lines) > 0 {
			if how != none || len(lines) > 1 {
				return x.duplicate("an API key beside another credential in one request")
			}
			found, how = lines[0], apiKeyHeader
		}
	}
	var beside afterlogin.Token
	if n.tickets() && r.URL.RawQuery != "" {
		_, text, count := cutTicket(r.URL.RawQuery)
		switch {
		case count > 1:
			return x.duplicate("two tickets in one request")
		case count == 1 && (how == bearer || how == apiKeyHeader):
			return x.duplicate("a ticket beside another credential in one request")
		case count == 1 && !usesTicket(r):
			if how == none {
				return errTicketKept
			}
		case count == 1:
			if how == cookie {
				beside = afterlogin.TokenFrom(found)
			}
			found, how = text, ticket
		}
	}
	if how != none {
		v.mu.Lock()
		v.token, v.transport, v.beside = afterlogin.TokenFrom(found), how, beside
		v.mu.Unlock()
	}
	return nil
}

var errDuplicate = &afterlogin.Refusal{Reason: afterlogin.ReasonDuplicate}

func (x *Auth) duplicate(what string) error {
	x.authority.Report(afterlogin.Event{
		Type: afterlogin.EventDuplicate, Tenant: x.options.Tenant, Reason: afterlogin.ReasonDuplicate, Detail: what,
	})
	return errDuplicate
}

// findCookie returns the value of the cookie with exactly that name, and how many there are; it stops at two. The value
// is as it came: quotes and blanks make it something that is no token.
func findCookie(lines []string, name string) (value string, count int, err error) {
	size := 0
	for _, line := range lines {
		if size += len(line) + 2; size > maxCookies {
			return "", 0, ErrCookieSize
		}
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			for pair != "" && pair[0] == ' ' {
				pair = pair[1:]
			}
			if len(pair) > len(name) && pair[len(name)] == '=' && pair[:len(name)] == name {
				if count++; count > 1 {
					return "", count, nil
				}
				value = pair[len(name)+1:]
			}
		}
	}
	return value, count, nil
}

// findBearer returns the bearer token of the Authorization headers. It returns false for another scheme, which is the
// application's business.
func findBearer(lines []string) (token string, ok bool, err error) {
	bearers := 0
	for _, line := range lines {
		scheme, rest, _ := strings.Cut(line, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			continue
		}
		bearers++
		token = strings.TrimLeft(rest, " ")
	}
	switch {
	case bearers == 0:
		return "", false, nil
	case len(lines) > 1:
		return "", false, errTwoAuthorizations
	case token == "" || strings.ContainsAny(token, " \t"): // a comma may stand in an API key that was made elsewhere
		return "", false, errBadAuthorization
	}
	return token, true, nil
}

// checkURL refuses a request whose query holds one of our tokens, and ends that session: addresses are logged, kept in
// histories and sent on to other sites. It looks at the text of the query, decoded, wherever in it a token stands. One
// ticket may stand in its parameter, where tickets are served; Optional cannot know whether they are.
func (x *Auth) checkURL(r *http.Request, n *need) error {
	query := r.URL.RawQuery
	if n.optional || n.tickets() {
		if rest, _, count := cutTicket(query); count == 1 {
			query = rest
		}
	}
	tokens := tokensIn(query)
	if len(tokens) == 0 {
		return nil
	}
	e := afterlogin.Event{
		Type: afterlogin.EventInURL, Tenant: x.options.Tenant, Reason: afterlogin.ReasonInURL,
		Detail: "a token stood in a URL; it is not one of ours",
	}
	for _, t := range tokens {
		id, err := x.authority.RevokeToken(r.Context(), afterlogin.TokenFrom(t), afterlogin.ReasonInURL)
		switch {
		case err == nil:
			e.Session, e.Detail = id, "a token stood in a URL; its session was ended"
		case errors.Is(err, afterlogin.ErrUnavailable):
			return err // not ended yet: 503, and it will be at the next try
		}
	}
	x.authority.Report(e)
	return &afterlogin.Refusal{Reason: afterlogin.ReasonInURL, Session: e.Session}
}

// Lengths of tokens (docs/token-format.md).
const (
	rootToken  = 88
	childToken = 100
	// maxInURL is how many tokens of one URL are looked at.
	maxInURL = 4
)

// tokensIn returns what in the query has the form of a token that must not stand in a URL. Authorization codes may.
func tokensIn(query string) (found []string) {
	if len(query) < rootToken {
		return nil
	}
	if strings.IndexByte(query, '%') >= 0 {
		query = unescape(unescape(query)) // twice: return_to may hold a query of its own
	}
	for i := 0; len(query)-i >= rootToken && len(found) < maxInURL; {
		if !base64url(query[i]) {
			i++
			continue
		}
		start := i // of a run of characters that a token is made of
		for i < len(query) && base64url(query[i]) {
			i++
		}
		if run := query[start:i]; isToken(run) {
			found = append(found, run)
		}
	}
	return found
}

// isToken reports whether the text has the form of a token that must not stand in a URL.
func isToken(s string) bool {
	if len(s) != rootToken && len(s) != childToken || s[0] != 'a' || s[1] != 'l' || s[3] != '_' {
		return false
	}
	switch s[2] {
	case byte(afterlogin.KindSession), byte(afterlogin.KindAPIKey), byte(afterlogin.KindRefresh), byte(afterlogin.KindAccess),
		byte(afterlogin.KindTicket):
		return true
	}
	return false
}

// unescape decodes %XX and leaves everything else as it is: unlike with url.QueryUnescape, one bad escape does not hide
// what stands beside it.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b = append(b, byte(c))
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func base64url(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}
