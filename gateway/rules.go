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

// everything is the path of a rule for all paths. "/" is the root page.
const everything = "/*"

// rules are those of one application, by path.
type rules struct {
	exact    map[string][]*rule
	prefix   map[string][]*rule // without the slash at the end
	fallback *rule
}

// rule is a Rule, ready for use.
type rule struct {
	methods  []string
	public   bool
	people   bool // sessions are let in: to sign in helps
	personal bool // machines are not let in
	scoped   bool // scopes are demanded
	check    *httpauth.Check
	stepUp   string // what the sign-in page is told beside return_to if the session is not enough
}

func (rs *rules) any() bool { return rs.exact != nil }

// compile makes rules ready for use that CheckApp has nothing to say about. The sign-in page, if it is one of the
// application's own, is public unless they say otherwise: nobody could sign in there.
func compile(auth *httpauth.Auth, list []Rule, signIn string) rules {
	rs := rules{fallback: compileRule(auth, Rule{})}
	if len(list) == 0 && signIn == "" {
		return rs
	}
	rs.exact, rs.prefix = make(map[string][]*rule), make(map[string][]*rule)
	for _, l := range list {
		where, path := rs.exact, l.Path
		switch {
		case path == everything:
			where, path = rs.prefix, ""
		case path != "/" && strings.HasSuffix(path, "/"):
			where, path = rs.prefix, strings.TrimSuffix(path, "/")
		}
		where[path] = append(where[path], compileRule(auth, l))
	}
	if signIn != "" && rs.exact[signIn] == nil {
		rs.exact[signIn] = []*rule{compileRule(auth, Rule{Public: true})}
	}
	return rs
}

func compileRule(auth *httpauth.Auth, l Rule) *rule {
	r := &rule{methods: l.methods(), public: l.Public, personal: l.personal(), scoped: len(l.Scopes) > 0, stepUp: l.stepUp()}
	kinds := l.Kinds
	if len(kinds) == 0 {
		kinds = slices.DeleteFunc(slices.Clone(allKinds), func(k afterlogin.Kind) bool { return r.personal && k == afterlogin.KindAPIKey })
	}
	r.people = slices.Contains(kinds, afterlogin.KindSession)
	demands := []httpauth.Requirement{httpauth.Kinds(kinds...)}
	if r.scoped {
		demands = append(demands, httpauth.Scopes(l.Scopes...))
	}
	if l.MaxAge != 0 {
		demands = append(demands, httpauth.MaxAge(l.MaxAge))
	}
	if len(l.ACR) > 0 {
		demands = append(demands, httpauth.ACR(l.ACR...))
	}
	r.check = auth.NewCheck(demands...)
	return r
}

// methods returns the methods that the rule is for, HEAD with GET.
func (l Rule) methods() []string {
	if slices.Contains(l.Methods, "GET") && !slices.Contains(l.Methods, "HEAD") {
		return append(slices.Clone(l.Methods), "HEAD")
	}
	return l.Methods
}

// stepUp returns what the sign-in page is told beside return_to.
func (l Rule) stepUp() (query string) {
	if l.MaxAge != 0 {
		query += "&max_age=" + strconv.FormatInt(int64(l.MaxAge/time.Second), 10)
	}
	if len(l.ACR) > 0 {
		query += "&acr_values=" + url.QueryEscape(strings.Join(l.ACR, " "))
	}
	return query
}

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
