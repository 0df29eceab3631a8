package httpauth

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin"
)

// maxReturn is the longest path that a sign-in returns to, in bytes.
const maxReturn = 2048

// SafeReturn returns to if it is a path on this host, such as "/orders?page=2", and "/" if it is anything else: for the
// return_to that comes back from a sign-in page, which anybody can write into a link. It refuses what some browser or
// proxy might read as another host ("//", "/\", blanks and control characters, schemes, user names), paths with "." or
// ".." or empty segments, plain or percent-encoded, and whatever holds a token.
func SafeReturn(to string) string {
	if len(to) == 0 || to[0] != '/' || len(to) > maxReturn || !utf8.ValidString(to) {
		return "/"
	}
	for i := range len(to) {
		if c := to[i]; c <= ' ' || c == '\\' || c == 0x7f {
			return "/"
		}
	}
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return "/"
	}
	// u.Path is decoded. The root is the one clean path that ends in a slash; another behind it is "//".
	if clean := path.Clean(u.Path); clean != u.Path && (clean == "/" || clean+"/" != u.Path) {
		return "/"
	}
	for i := range len(u.Path) {
		if c := u.Path[i]; c < ' ' || c == '\\' || c == 0x7f {
			return "/"
		}
	}
	if len(tokensIn(to)) > 0 {
		return "/"
	}
	return to
}

// signInFor returns where to send a browser that navigates to a page it needs to be signed in for, or "" to answer it.
func (x *Auth) signInFor(r *http.Request, v *visit, err error) string {
	var refusal *afterlogin.Refusal
	if x.options.SignInURL == "" || !errors.As(err, &refusal) || Status(err) != http.StatusUnauthorized {
		return ""
	}
	if refusal.Reason == afterlogin.ReasonDuplicate { // it would be there, too
		return ""
	}
	if _, transport := v.credential(); transport == bearer || transport == apiKeyHeader || !navigates(r) {
		return ""
	}
	here := r.RequestURI // unlike r.URL as the client sent it, even behind http.StripPrefix
	if here == "" || here[0] != '/' {
		here = r.URL.RequestURI()
	}
	here = withoutTicket(here)
	if p, _, _ := strings.Cut(here, "?"); p == x.signInPath {
		return "" // the sign-in page is behind Require: a mistake, but no loop
	}
	to := x.options.SignInURL
	if strings.Contains(to, "?") {
		to += "&"
	} else {
		to += "?"
	}
	to += "return_to=" + url.QueryEscape(SafeReturn(here))
	if refusal.Reason == afterlogin.ReasonStaleAuth {
		to += "&reason=" + string(refusal.Reason)
	}
	return to
}

// navigates reports whether a browser shows the answer as a page.
func navigates(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" {
		return false
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}
