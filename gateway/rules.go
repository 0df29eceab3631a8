package gateway

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// allKinds are the kinds of credential that are let in where a rule names none.
var allKinds = []afterlogin.Kind{afterlogin.KindSession, afterlogin.KindAPIKey, afterlogin.KindAccess, afterlogin.KindJWT}

// rules are those of one application, by path.
type rules struct {
	exact    map[string][]*rule
	prefix   map[string][]*rule // without the slash at the end
	fallback *rule
}

// rule is a Rule, ready for use.
type rule struct {
	methods []string
	public  bool
	check   *httpauth.Check
	stepUp  string // what the sign-in page is told beside return_to if the session is not enough
}

func (rs *rules) any() bool { return rs.exact != nil }

// compile makes rules ready for use, and says what is wrong with them.
func compile(auth *httpauth.Auth, list []Rule) (rules, error) {
	rs := rules{fallback: &rule{check: auth.NewCheck(httpauth.Kinds(allKinds...))}}
	if len(list) == 0 {
		return rs, nil
	}
	rs.exact, rs.prefix = make(map[string][]*rule), make(map[string][]*rule)
	for _, l := range list {
		r, err := compileRule(auth, l)
		if err != nil {
			return rs, err
		}
		where, path := rs.exact, l.Path
		if strings.HasSuffix(path, "/") {
			where, path = rs.prefix, strings.TrimSuffix(path, "/")
		}
		for _, other := range where[path] {
			if overlaps(r, other) {
				return rs, bad("Rules: there are two for %s and the same method", l.Path)
			}
		}
		where[path] = append(where[path], r)
	}
	return rs, nil
}

// overlaps reports whether of two rules for one path neither is the more specific one for some method.
func overlaps(a, b *rule) bool {
	if len(a.methods) == 0 || len(b.methods) == 0 {
		return len(a.methods) == len(b.methods)
	}
	return slices.ContainsFunc(a.methods, func(m string) bool { return slices.Contains(b.methods, m) })
}

func compileRule(auth *httpauth.Auth, l Rule) (*rule, error) {
	// A path of a rule is decoded, and stands for what canonicalPath returns.
	if path, f := canonicalPath(escapePath(l.Path), true); f != nil || path != l.Path {
		return nil, bad("Rules: the path %q is not one that a request could have: write it decoded, such as /admin/ or /reports/q3, without empty segments, segments of dots, ;, ?, #, %% and \\", l.Path)
	}
	if l.Path == BasePath || strings.HasPrefix(l.Path, BasePath+"/") {
		return nil, bad("Rules: %s: paths below %s/ are afterlogin's own", l.Path, BasePath)
	}
	r := &rule{public: l.Public}
	for _, m := range l.Methods {
		if !isMethod(m) {
			return nil, bad("Rules: %s: %q is not a method such as GET", l.Path, m)
		}
		r.methods = append(r.methods, m)
		if m == "GET" && !slices.Contains(l.Methods, "HEAD") {
			r.methods = append(r.methods, "HEAD")
		}
	}
	if l.Public && (len(l.Scopes) > 0 || l.MaxAge != 0 || len(l.ACR) > 0) {
		return nil, bad("Rules: %s is public and demands something: leave out Public, or Scopes, MaxAge and ACR", l.Path)
	}
	kinds := l.Kinds
	if len(kinds) == 0 {
		kinds = allKinds
	}
	for _, k := range kinds {
		if !slices.Contains(allKinds, k) {
			return nil, bad("Rules: %s: the kind %v cannot be let in; session, api_key, access_token and jwt can", l.Path, k)
		}
	}
	demands := []httpauth.Requirement{httpauth.Kinds(kinds...)}
	for _, s := range l.Scopes {
		if !visible(s) {
			return nil, bad("Rules: %s: %q is not a scope", l.Path, s)
		}
	}
	if len(l.Scopes) > 0 {
		demands = append(demands, httpauth.Scopes(l.Scopes...))
	}
	if l.MaxAge != 0 {
		if l.MaxAge < time.Second || l.MaxAge%time.Second != 0 {
			return nil, bad("Rules: %s: MaxAge: %v is not a number of seconds above 0", l.Path, l.MaxAge)
		}
		demands = append(demands, httpauth.MaxAge(l.MaxAge))
		r.stepUp += "&max_age=" + strconv.FormatInt(int64(l.MaxAge/time.Second), 10)
	}
	for _, c := range l.ACR {
		if !visible(c) {
			return nil, bad("Rules: %s: %q is not a class of authentication (acr)", l.Path, c)
		}
	}
	if len(l.ACR) > 0 {
		demands = append(demands, httpauth.ACR(l.ACR...))
		r.stepUp += "&acr_values=" + url.QueryEscape(strings.Join(l.ACR, " "))
	}
	// They stand in headers of refusals.
	if size := len(strings.Join(l.Scopes, " ")) + len(r.stepUp); size > maxDemands {
		return nil, bad("Rules: %s: the scopes and classes come to %d bytes, want at most %d", l.Path, size, maxDemands)
	}
	r.check = auth.NewCheck(demands...)
	return r, nil
}

// maxDemands bounds what a rule adds to a challenge and to the address of the sign-in page, in bytes.
const maxDemands = 512

// visible reports whether s is a word of visible ASCII that can stand in quotes.
func visible(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// escapePath escapes the blanks of a path.
func escapePath(path string) string { return strings.ReplaceAll(path, " ", "%20") }

// find returns the rule that decides, or nil if there are rules for the path and none is for the method.
func (rs *rules) find(method, path string) *rule {
	if rs.exact == nil {
		return rs.fallback
	}
	seen := false
	if list := rs.exact[path]; list != nil {
		if r := forMethod(list, method); r != nil {
			return r
		}
		seen = true
	}
	at := path
	if strings.HasSuffix(path, "/") {
		at = path[:len(path)-1]
		if list := rs.exact[at]; list != nil {
			r := forMethod(list, method)
			if r != nil && !r.public {
				return r
			}
			seen = seen || r == nil && slices.ContainsFunc(list, func(r *rule) bool { return !r.public })
		}
	}
	for {
		if list := rs.prefix[at]; list != nil {
			if r := forMethod(list, method); r != nil {
				return r
			}
			seen = true
		}
		if at == "" {
			break
		}
		at = at[:strings.LastIndexByte(at, '/')]
	}
	if seen {
		return nil
	}
	return rs.fallback
}

// forMethod returns the rule that names the method, or else the one for all methods, or nil.
func forMethod(list []*rule, method string) (found *rule) {
	for _, r := range list {
		switch {
		case slices.Contains(r.methods, method):
			return r
		case len(r.methods) == 0:
			found = r
		}
	}
	return found
}
