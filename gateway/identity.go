package gateway

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// The headers that every 2xx answer carries, all of them, so that none that a client made up is left where a proxy copies
// them by name. None has "-" in it.
const (
	HeaderSubject   = "X-Auth-Subject"   // who; percent-encoded where it is not visible ASCII, and "-" itself
	HeaderSession   = "X-Auth-Session"   // the public handle of the session, API key or token
	HeaderKind      = "X-Auth-Kind"      // session, api-key, access, jwt; none
	HeaderScopes    = "X-Auth-Scopes"    // with blanks between
	HeaderTime      = "X-Auth-Time"      // when the person proved who they are, in seconds since 1970; of machines "-"
	HeaderAssertion = "X-Auth-Assertion" // all this, signed, for this application and for a minute
	// What the application is to get in place of the headers without X-Auth: those less what is ours. Both may be empty.
	HeaderCookie        = "X-Auth-Cookie"
	HeaderAuthorization = "X-Auth-Authorization"
)

// identity is who is told to an application: the values of the headers in told. Answers share them: many thousands are
// kept, each in one piece of memory.
type identity [6]string

// told are the headers that an identity is in.
var told = [len(identity{})]string{HeaderSubject, HeaderSession, HeaderKind, HeaderScopes, HeaderTime, HeaderAssertion}

var (
	empty  = []string{""}
	nobody = &identity{"-", "-", "none", "-", "-", "-"}
)

// kinds are the values of HeaderKind.
var kinds = map[afterlogin.Kind]string{
	afterlogin.KindSession: "session", afterlogin.KindAPIKey: "api-key",
	afterlogin.KindAccess: "access", afterlogin.KindJWT: "jwt",
}

// identify returns what is told of a session, signed; or that it is nobody's.
func (g *Gateway) identify(a *app, s *afterlogin.Session) (*identity, error) {
	if s == nil {
		return nobody, nil
	}
	now := g.now()
	key := assertionKey{a, s.ID, s.Kind, s.JWTID}
	if id := g.assertions.get(key, s, now); id != nil {
		return id, nil
	}
	claims, end, err := g.claims(a, s, now)
	if err != nil {
		return nil, err
	}
	signed, err := g.sign(TypeAssertion, claims)
	if err != nil || signed == "" {
		g.log.Error("an assertion was not signed", "session", s.ID, "err", err)
		return nil, errInternal
	}
	id := &identity{headerText(claims.Subject), string(s.ID), kinds[s.Kind], "-", "-", signed}
	if len(s.Scopes) > 0 {
		id[3] = strings.Join(s.Scopes, " ")
	}
	if !claims.AuthTime.IsZero() {
		id[4] = strconv.FormatInt(claims.AuthTime.Unix(), 10)
	}
	g.assertions.put(key, s, id, now, end)
	return id, nil
}

// ClientPrefix begins the subjects of clients that act for themselves (client_credentials): a client of the name of a
// person is not that person.
const ClientPrefix = "client:"

// subjectOf returns what an application is to know the session by.
func subjectOf(s *afterlogin.Session) string {
	if clientRoot(s) {
		return ClientPrefix + s.Subject
	}
	return s.Subject
}

// headerText returns a subject as it can stand in a header: visible ASCII, "%" escaped, and never "-" alone.
func headerText(s string) string {
	if s == "-" {
		return "%2D"
	}
	plain := true
	for i := range len(s) {
		plain = plain && s[i] > ' ' && s[i] < 0x7f && s[i] != '%'
	}
	if plain {
		return s
	}
	const upper = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+16)
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' {
			b = append(b, '%', upper[c>>4], upper[c&15])
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

// bothHeaders stands for Authorization and X-Api-Key, where one of them is not enough.
const bothHeaders = "*"

// tell sets the headers of a 2xx answer. credential is the header that the credential stood in, which is not passed on.
func (id *identity) tell(h http.Header, v variant, r *http.Request, credential string) {
	for i, name := range told {
		h[name] = id[i : i+1 : i+1]
	}
	h["Cache-Control"], h["Vary"] = noStore, vary

	cookies, authorization, key := stripCookies(r.Header["Cookie"]), "", ""
	if lines := r.Header["Authorization"]; credential != "Authorization" && credential != bothHeaders && len(lines) == 1 && !ours(lines[0]) {
		authorization = lines[0]
	}
	if lines := r.Header["X-Api-Key"]; credential != "X-Api-Key" && credential != bothHeaders && len(lines) == 1 && !ours(lines[0]) {
		key = lines[0]
	}
	h[HeaderCookie], h[HeaderAuthorization] = one(cookies), one(authorization)
	switch v {
	case traefik:
		set(h, "Cookie", cookies)
		set(h, "Authorization", authorization)
		set(h, "X-Api-Key", key)
	case envoy:
		var remove []string
		for _, pair := range [...][2]string{{"Cookie", cookies}, {"Authorization", authorization}, {"X-Api-Key", key}} {
			if set(h, pair[0], pair[1]); pair[1] == "" {
				remove = append(remove, strings.ToLower(pair[0]))
			}
		}
		if remove != nil {
			h["X-Envoy-Auth-Headers-To-Remove"] = []string{strings.Join(remove, ",")}
		}
	}
}

func one(value string) []string {
	if value == "" {
		return empty
	}
	return []string{value}
}

func set(h http.Header, name, value string) {
	if value != "" {
		h[name] = []string{value}
	}
}

// stripCookies returns the cookies of a request without ours, in one line.
func stripCookies(lines []string) string {
	kept := ""
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			pair = strings.Trim(pair, " \t")
			// Some proxies put a comma between two lines, and one of our cookies into another's value.
			if pair == "" || ourCookie(pair) || ours(pair) {
				continue
			}
			if kept != "" {
				kept += "; "
			}
			kept += pair
		}
	}
	return kept
}

// ourCookie reports whether a cookie is one of afterlogin's, in whatever case: some servers make no difference.
func ourCookie(pair string) bool {
	name, _, _ := strings.Cut(pair, "=")
	name = strings.TrimRight(name, " \t")
	const prefix = "__Host-Http-"
	return len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) &&
		(strings.EqualFold(name, httpauth.CookieName) || strings.EqualFold(name, ticketNonce) ||
			len(name) >= len(CookiePrefix) && strings.EqualFold(name[:len(CookiePrefix)], CookiePrefix))
}

// ticketNonce is the cookie that binds a hand-over to a browser (package httpauth).
const ticketNonce = "__Host-Http-ticket_nonce"

// ours reports whether something that has the form of an opaque token of afterlogin's stands in the text
// (docs/token-format.md).
func ours(text string) bool {
	const shortest = 88
	for i := 0; len(text)-i >= shortest; i++ {
		if text[i] == 'a' && text[i+1] == 'l' && text[i+3] == '_' && allBase64url(text[i+4:i+shortest]) {
			return true
		}
	}
	return false
}

func allBase64url(s string) bool {
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}
