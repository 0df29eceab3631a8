package gateway

import (
	"errors"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// variant is how a proxy asks, and what it can do with the answer.
type variant uint8

const (
	whole   variant = iota // whatever is not 2xx is given to the client whole
	traefik                // 2xx also says what the application is to get of Cookie, Authorization and X-Api-Key
	envoy                  // so does this, in Envoy's words; the original is in the request itself
	nginx                  // 200, 401, 403 and 5xx only
	answer                 // what is shown to nginx's client: never 2xx
)

// question is the original request as httpauth sees it, in one piece of memory.
type question struct {
	original
	request http.Request
	url     url.URL
}

var questions = sync.Pool{New: func() any { return new(question) }}

// verdict is what is decided on a request.
type verdict struct {
	err error // nil: let it through
	// session is who is told to the application; nil: nobody.
	session *afterlogin.Session
	header  string // where the credential stood, which the application must not get
	to      string // if err is not nil: where to send the browser instead
	check   *httpauth.Check
}

// ServeHTTP answers a proxy: 2xx with the identity headers, or what the client is to be told. Whatever goes wrong in it is
// a 5xx.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	written := false
	defer func() {
		if e := recover(); e != nil {
			if e == http.ErrAbortHandler || written {
				panic(e)
			}
			// What a program panics with is no token, and the stack names functions and places.
			g.log.Error("forward-auth panicked", "panic", e, "stack", string(debug.Stack()))
			forget(w.Header())
			g.refuse(w, r, errInternal)
		}
	}()
	v, target, ok := ask(r)
	if !ok {
		g.refuse(w, r, errNoVariant)
		return
	}
	q := questions.Get().(*question)
	var f *fault
	if q.original, f = g.read(r, target); f != nil {
		if f.operator {
			g.warn(r.Context(), f)
		}
		g.reply(w, r, v, f, nil)
		return
	}
	q.request = *r
	q.url = url.URL{Path: q.path, RawQuery: q.query}
	q.request.Method, q.request.Host, q.request.URL, q.request.RequestURI = q.method, q.host, &q.url, q.target
	q.request.Body, q.request.Form, q.request.PostForm, q.request.MultipartForm = http.NoBody, nil, nil, nil

	d := g.decide(q, v)
	var id *identity
	if d.err == nil { // for an answer, too: what cannot be signed is no reason to come again
		id, d.err = g.identify(q.app, d.session)
	}
	switch {
	case d.err != nil && d.to != "" && v != nginx:
		redirect(w.Header(), d.to)
		w.WriteHeader(http.StatusSeeOther)
	case d.err != nil:
		g.reply(w, &q.request, v, d.err, d.check)
	case v == answer:
		g.again(w, &q.request, d.session)
	default:
		id.tell(w.Header(), v, &q.request, d.header)
		*q = question{}
		questions.Put(q) // the other ways out leave it to handlers that may keep it
		written = true
		w.WriteHeader(http.StatusOK)
	}
}

// ask returns how the proxy asks, and Envoy's target.
func ask(r *http.Request) (v variant, target string, ok bool) {
	switch rest, ok := strings.CutPrefix(r.URL.Path, Path); {
	case !ok:
	case rest == "":
		return whole, "", true
	case rest == "/nginx":
		return nginx, "", true
	case rest == "/answer":
		return answer, "", true
	case rest == "/traefik":
		return traefik, "", true
	default:
		// As it came: the path that net/http has is decoded.
		if target, ok := strings.CutPrefix(r.RequestURI, Path+"/envoy"); ok && target != "" && target[0] == '/' {
			return envoy, target, true
		}
	}
	return 0, "", false
}

// decide decides on a request.
func (g *Gateway) decide(q *question, v variant) verdict {
	r := &q.request
	rule := q.app.rules.find(q.method, q.path)
	if rule == nil {
		return verdict{err: errNoRule}
	}
	found, err := rule.check.Examine(r)
	if err == nil {
		if err = q.app.admit(rule, found.Session); err != nil {
			found.Session = nil
		}
	}
	d := verdict{err: err, session: found.Session, header: found.Header, check: rule.check}
	if due := renewable(found, err); due != "" && r.Method == http.MethodGet && httpauth.Navigates(r) && httpauth.MayRenew(r) {
		// A page that the renewal could not lead back to is served as it is, rather than lost, if it can be.
		to, back := q.renewal()
		if (back || err != nil && !rule.public) && g.hops.take(string(due), g.now(), v == nginx) {
			d.err, d.to = errHop, to
			return d
		}
		if err != nil && !rule.public {
			d.err = errRenewal
			return d
		}
	}
	switch {
	case err == nil:
	case rule.public && letsIn(err):
		d.err, d.header = nil, spoilt(found.Header, r, err)
	default:
		d.to = q.elsewhere(rule, found.Header, err)
	}
	return d
}

// admit refuses those of whom httpauth lets in that the application, or the rule that decides, does not.
func (a *app) admit(rule *rule, s *afterlogin.Session) error {
	switch {
	case s == nil:
		return errInternal // so that no mistake elsewhere is a yes
	case ofClient(s) && !rule.scoped && !slices.Contains(s.Audience, a.audience[0]):
		return &afterlogin.Refusal{Reason: afterlogin.ReasonWrongAudience, Session: s.ID}
	case rule.personal && machine(s):
		return &afterlogin.Refusal{Reason: afterlogin.ReasonWrongKind, Session: s.ID}
	}
	return nil
}

// ofClient reports whether it is a token that was given to an OAuth client, which may be anybody's.
func ofClient(s *afterlogin.Session) bool {
	return (s.Kind == afterlogin.KindAccess || s.Kind == afterlogin.KindJWT) && (s.Client != "" || s.Grant != "" || clientRoot(s))
}

// clientRoot reports whether a token is a client's own, rather than given to it by somebody (client_credentials).
func clientRoot(s *afterlogin.Session) bool { return strings.HasPrefix(string(s.Root), "client_") }

// machine reports whether nobody has signed in for it, ever: an API key, a client, or what lives under one.
func machine(s *afterlogin.Session) bool {
	return s.Kind == afterlogin.KindAPIKey || strings.HasPrefix(string(s.Root), "key_") || clientRoot(s)
}

// errHop stands for a request that is fine and goes to the renewal first.
var errHop = errors.New("gateway: the token is renewed first")

// renewable returns the session whose token in a cookie is due for renewal, or good only for that; "" if there is none.
func renewable(found httpauth.Found, err error) afterlogin.SessionID {
	if found.Header != "Cookie" {
		return ""
	}
	if err == nil {
		if found.Session.RenewalDue() {
			return found.Session.ID
		}
		return ""
	}
	if refusal := (*afterlogin.Refusal)(nil); errors.As(err, &refusal) && refusal.Reason == afterlogin.ReasonRenew {
		return refusal.Session
	}
	return ""
}

// letsIn reports whether a public path lets a request in, as nobody, whatever is wrong with what it carries. A token in
// the address is none of these: it was ended, and whoever sent it must hear of that.
func letsIn(err error) bool {
	if why := afterlogin.ReasonOf(err); why != "" {
		return why != afterlogin.ReasonInURL
	}
	switch httpauth.Status(err) {
	case http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadRequest:
		return true // from another site, too often, not known now, not a bearer token
	}
	return false
}

// spoilt returns which header of a request that is let in as nobody the application must not get; both of two. What is
// no token of ours is the application's own, whatever it may be.
func spoilt(header string, r *http.Request, err error) string {
	why := afterlogin.ReasonOf(err)
	if why == afterlogin.ReasonDuplicate {
		return bothHeaders
	}
	if header != "Authorization" && header != "X-Api-Key" {
		return header
	}
	text := r.Header[header][0]
	if _, token, ok := strings.Cut(text, " "); ok && header == "Authorization" {
		text = strings.TrimLeft(token, " ")
	}
	signed := strings.HasPrefix(text, "eyJ")
	if !ours(text) && (why == afterlogin.ReasonMalformed || why == afterlogin.ReasonUnknown || signed && (why == afterlogin.ReasonForged || why == afterlogin.ReasonWrongKind)) {
		return ""
	}
	return header
}

// elsewhere returns where a browser is sent whose request is not let in, or "".
func (q *question) elsewhere(rule *rule, header string, err error) string {
	var refusal *afterlogin.Refusal
	switch {
	case !errors.As(err, &refusal) || httpauth.Status(err) != http.StatusUnauthorized:
		return ""
	case !rule.people, q.app.signIn.path != "" && q.path == q.app.signIn.path: // it would come here again
		return ""
	case refusal.Reason == afterlogin.ReasonDuplicate, refusal.Reason == afterlogin.ReasonRenew, header != "" && header != "Cookie", !httpauth.Navigates(&q.request):
		return ""
	case refusal.Reason == afterlogin.ReasonStaleAuth:
		return q.signIn() + "&reason=" + string(refusal.Reason) + rule.stepUp
	}
	return q.signIn()
}

// maxLocation is the longest address that a browser is sent to, in bytes: proxies make little room for headers.
const maxLocation = 3 << 10

// signIn returns the address of the sign-in page, which leads back here.
func (q *question) signIn() string {
	back := httpauth.SafeReturn(q.target)
	in := &q.app.signIn
	if in.whole {
		back = q.app.site.Origin + back
	}
	if to := in.to + url.QueryEscape(back); len(to) <= maxLocation {
		return to
	}
	if in.whole {
		return in.to + url.QueryEscape(q.app.site.Origin+"/")
	}
	return in.to + "%2F"
}

// renewal returns the address of the renewal, and whether it leads back here; else it leads to the root page.
func (q *question) renewal() (to string, back bool) {
	to = q.app.site.Origin + BasePath + RenewPath + "?return_to="
	if httpauth.SafeReturn(q.target) == q.target {
		if all := to + url.QueryEscape(q.target); len(all) <= maxLocation {
			return all, true
		}
	}
	return to + "%2F", false
}
