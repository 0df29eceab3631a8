package grade

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A visitor is a browser: cookies, and what it was answered.
type visitor struct {
	e      *examination
	jar    jar
	bearer string
	trail  []*answer
}

// maxTrail bounds the answers that a visitor remembers.
const maxTrail = 40

func (e *examination) visitor() *visitor { return &visitor{e: e} }

// send sends a request with the visitor's cookies, and takes those that come back.
func (v *visitor) send(ctx context.Context, q request) (*answer, error) {
	q.cookie = v.jar.header(q.url)
	if q.bearer = ""; v.e.trusts(q.url) {
		q.bearer = v.bearer
	}
	a, err := v.e.web.do(ctx, q)
	if err != nil {
		return nil, err
	}
	v.jar.take(a.url, a.set, v.e.Now())
	if len(v.trail) < maxTrail {
		v.trail = append(v.trail, a)
	}
	return a, nil
}

// trusts reports whether the site's bearer tokens may go to the address: to origins that the user named, and never from
// HTTPS to plain HTTP.
func (e *examination) trusts(u *url.URL) bool {
	if e.base.Scheme == "https" && u.Scheme != "https" {
		return false
	}
	if sameOrigin(u, e.base) || e.recipe.target != nil && sameOrigin(u, e.recipe.target) {
		return true
	}
	page, err := e.base.Parse(e.Page)
	return err == nil && sameOrigin(u, page)
}

// follow sends a request and follows the redirects that stay on allowed hosts. It returns the last answer, which is
// a redirect if that led elsewhere.
func (v *visitor) follow(ctx context.Context, q request) (*answer, error) {
	for range maxRedirects {
		a, err := v.send(ctx, q)
		if err != nil {
			return nil, err
		}
		next := a.redirect()
		if next == nil || v.e.web.allowed(next) != nil {
			return a, nil
		}
		if q.method != http.MethodGet && (a.status == http.StatusTemporaryRedirect || a.status == http.StatusPermanentRedirect) {
			if !sameOrigin(next, q.url) {
				return a, nil // the form goes nowhere else
			}
			q.url = next
			continue
		}
		q = request{method: http.MethodGet, url: next, accept: q.accept}
	}
	return nil, fmt.Errorf("%w: more than %d redirects from %s", ErrSignIn, maxRedirects, place(q.url))
}

// redirect is where the answer sends the browser; nil: nowhere.
func (a *answer) redirect() *url.URL {
	switch a.status {
	case 301, 302, 303, 307, 308:
	default:
		return nil
	}
	next, err := a.url.Parse(a.header.Get("Location"))
	if err != nil || a.header.Get("Location") == "" {
		return nil
	}
	return next
}

// A recipe is how to sign in.
type recipe struct {
	page           *url.URL // of the form; nil for JSON
	target         *url.URL // where JSON goes
	user, password string   // field names
	hops           int      // answers until the credential has come; 0: not known yet, all are awaited
}

// usualLogins are where a sign-in page often is.
var usualLogins = []string{"/login", "/sign-in", "/signin", "/users/sign_in", "/account/login", "/accounts/login/", "/auth/login", "/.afterlogin/login"}

// find finds the sign-in: the address itself, where it redirects to, a link from there, or a usual place.
func (e *examination) find(ctx context.Context) error {
	at := e.base
	if e.Login != "" {
		u, err := e.base.Parse(e.Login)
		if err != nil {
			return fmt.Errorf("%w: login: %.60q is not a path", ErrOption, e.Login)
		}
		if at = u; e.JSON {
			e.recipe = recipe{target: u, user: or(e.UserField, "username"), password: or(e.PasswordField, "password")}
			return e.web.allowed(u)
		}
	}
	a, p, err := e.look(ctx, at)
	if err != nil {
		return err
	}
	if e.found(a, p) {
		return nil
	}
	if e.Login != "" {
		return fmt.Errorf("%w: %s has no form with a password; name the fields with user-field and password-field, or use JSON", ErrSignIn, place(at))
	}
	var candidates []*url.URL
	if p != nil {
		for _, l := range p.links {
			if signInWords.MatchString(l.href+" "+l.text) && !signOutWords.MatchString(l.href+" "+l.text) {
				if u, err := a.url.Parse(l.href); err == nil && e.web.allowed(u) == nil && len(candidates) < 5 {
					candidates = append(candidates, u)
				}
			}
		}
	}
	for _, path := range usualLogins {
		if u, err := e.base.Parse(path); err == nil {
			candidates = append(candidates, u)
		}
	}
	for _, u := range candidates {
		if a, p, err = e.look(ctx, u); err != nil {
			return err
		}
		if e.found(a, p) {
			return nil
		}
	}
	return fmt.Errorf("%w: no form with a password on %s, nor where its links and usual addresses lead; name the page with login", ErrSignIn, place(e.base))
}

func (e *examination) look(ctx context.Context, u *url.URL) (*answer, *page, error) {
	a, err := e.visitor().follow(ctx, request{method: http.MethodGet, url: u})
	if err != nil {
		return nil, nil, err
	}
	return a, a.html(), nil
}

func (e *examination) found(a *answer, p *page) bool {
	if p == nil || a.status >= 500 {
		return false
	}
	f, user, password := p.signIn(e.UserField, e.PasswordField)
	if f != nil {
		e.recipe = recipe{page: a.url, user: user, password: password}
	}
	return f != nil
}

// signIn signs the visitor in. It reports the answer that decides, and an error that wraps ErrSignIn if the site says no.
func (e *examination) signIn(ctx context.Context, v *visitor) (*answer, error) {
	q, err := e.signInRequest(ctx, v)
	if err != nil {
		return nil, err
	}
	return e.submit(ctx, v, q)
}

// signInRequest fetches the form and fills it in.
func (e *examination) signInRequest(ctx context.Context, v *visitor) (request, error) {
	if e.recipe.page == nil {
		return e.jsonRequest()
	}
	a, err := v.follow(ctx, request{method: http.MethodGet, url: e.recipe.page})
	if err != nil {
		return request{}, err
	}
	p := a.html()
	if p == nil {
		return request{}, fmt.Errorf("%w: %s answered %d and no page", ErrSignIn, place(e.recipe.page), a.status)
	}
	f, _, _ := p.signIn(e.recipe.user, e.recipe.password)
	if f == nil {
		return request{}, fmt.Errorf("%w: the form on %s is gone (status %d)", ErrSignIn, place(e.recipe.page), a.status)
	}
	return e.fill(a.url, f)
}

func (e *examination) fill(at *url.URL, f *form) (request, error) {
	values := f.values()
	values.Set(e.recipe.user, e.User)
	values.Set(e.recipe.password, e.Password)
	for name, vs := range e.Fields {
		values[name] = vs
	}
	q, err := f.request(at, values)
	if err == nil {
		err = e.keeps(at, q.url)
	}
	if err == nil && q.method != http.MethodPost {
		err = fmt.Errorf("%w: the form on %s would send the password in the address (method GET); it was not sent", ErrSignIn, place(at))
	}
	return q, err
}

// keeps checks that the password stays with the origin that asks for it, and that HTTPS does not lead to plain HTTP.
func (e *examination) keeps(from, to *url.URL) error {
	switch {
	case to.Scheme != "https" && (from.Scheme == "https" || e.base.Scheme == "https"):
		return fmt.Errorf("%w: %s would send the password to %s, %w, though the site has HTTPS; it was not sent", ErrSignIn, place(from), place(to), errPlain)
	case !sameOrigin(from, to):
		return fmt.Errorf("%w: %s would send the password to another origin, %s; it was not sent", ErrSignIn, place(from), place(to))
	}
	return nil
}

// request is what a browser sends for the form with the values.
func (f *form) request(at *url.URL, values url.Values) (request, error) {
	to, err := at.Parse(f.action)
	if err != nil {
		return request{}, fmt.Errorf("%w: a form on %s leads to no address", ErrSignIn, place(at))
	}
	if f.action == "" {
		to = at
	}
	if f.method == http.MethodPost {
		return request{method: http.MethodPost, url: to, body: []byte(values.Encode()), contentType: "application/x-www-form-urlencoded", origin: origin(at)}, nil
	}
	u := *to
	u.RawQuery = values.Encode()
	return request{method: http.MethodGet, url: &u}, nil
}

func (e *examination) jsonRequest() (request, error) {
	object := map[string]any{e.recipe.user: e.User, e.recipe.password: e.Password}
	for name, vs := range e.Fields {
		if len(vs) == 1 {
			object[name] = vs[0]
		} else {
			object[name] = vs
		}
	}
	body, err := json.Marshal(object)
	if err == nil {
		err = e.keeps(e.recipe.target, e.recipe.target) // which the user named
	}
	return request{method: http.MethodPost, url: e.recipe.target, body: body, contentType: "application/json", accept: "application/json", origin: origin(e.recipe.target)}, err
}

// submit sends the filled-in form and follows where it leads, as far as the recipe says is needed.
func (e *examination) submit(ctx context.Context, v *visitor, q request) (*answer, error) {
	var first *answer
	for hop := range maxRedirects {
		a, err := v.send(ctx, q)
		if err != nil {
			return nil, err
		}
		if first == nil {
			first = a
		}
		if a.status >= 400 {
			return nil, fmt.Errorf("%w: %s answered %d", ErrSignIn, place(a.url), a.status)
		}
		if p := a.html(); p != nil && a.status == http.StatusOK {
			if f, _, _ := p.signIn(e.recipe.user, e.recipe.password); f != nil && e.recipe.page != nil {
				return nil, fmt.Errorf("%w: the form came back, so that the name or the password was refused, or a field is missing", ErrSignIn)
			}
		}
		next := a.redirect()
		if next == nil || e.web.allowed(next) != nil || e.recipe.hops > 0 && hop+1 >= e.recipe.hops {
			if e.recipe.target != nil {
				v.bearer = bearerOf(first)
				e.web.secret(v.bearer)
			}
			return a, nil
		}
		if q.method != http.MethodGet && (a.status == 307 || a.status == 308) {
			if err := e.keeps(q.url, next); err != nil {
				return nil, err
			}
			q.url = next
			continue
		}
		q = request{method: http.MethodGet, url: next, accept: q.accept}
	}
	return nil, fmt.Errorf("%w: more than %d redirects after it", ErrSignIn, maxRedirects)
}

// bearerFields are the names under which APIs return a token, the likeliest first.
var bearerFields = []string{"access_token", "accesstoken", "token", "jwt", "id_token", "session_token", "sessiontoken", "session", "sid", "auth_token", "authtoken", "key"}

// bearerOf finds a token in a JSON answer, at most three objects deep; empty: there is none.
func bearerOf(a *answer) string {
	var doc any
	if a == nil || !bytes.HasPrefix(bytes.TrimSpace(a.body), []byte("{")) || json.Unmarshal(a.body, &doc) != nil {
		return ""
	}
	found := make(map[string]string)
	var walk func(any, int)
	walk = func(x any, depth int) {
		object, ok := x.(map[string]any)
		if !ok || depth > 3 {
			return
		}
		for k, v := range object {
			if s, ok := v.(string); ok && len(s) >= 4 && len(s) <= 8192 && !strings.ContainsAny(s, " \t\r\n") {
				found[strings.ToLower(k)] = s
			} else {
				walk(v, depth+1)
			}
		}
	}
	walk(doc, 0)
	for _, name := range bearerFields {
		if s, ok := found[name]; ok {
			return s
		}
	}
	return ""
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// fresh is a visitor who has just signed in, with the token; an error wraps ErrSignIn if it does not work any more.
func (e *examination) fresh(ctx context.Context) (*visitor, string, error) {
	v := e.visitor()
	if _, err := e.signIn(ctx, v); err != nil {
		return nil, "", err
	}
	token, ok := e.token(v)
	if !ok {
		return nil, "", fmt.Errorf("%w: this time no %s came", ErrSignIn, e.cred)
	}
	e.web.secrets.Add(token, mask(token))
	return v, token, nil
}

// signOut is how to sign out.
type signOut struct {
	path   *url.URL // named by the user
	on     *url.URL // the page that has the form or the link
	byLink bool
}

// request is what signs the visitor out, as the page has it now.
func (s *signOut) request(ctx context.Context, v *visitor) (request, error) {
	a, err := v.follow(ctx, request{method: http.MethodGet, url: s.on})
	if err != nil {
		return request{}, err
	}
	if p := a.html(); p != nil {
		f, l := p.signOut()
		if s.path != nil {
			f, l = nil, nil
			for i := range p.forms {
				if to, err := a.url.Parse(p.forms[i].action); err == nil && to.Path == s.path.Path {
					f = &p.forms[i]
				}
			}
		}
		if f != nil {
			q, err := f.request(a.url, f.values())
			if err == nil && !sameOrigin(a.url, q.url) && !v.e.web.named(q.url.Hostname()) {
				err = fmt.Errorf("%w: the form on %s leads to another origin, %s", ErrNotAllowed, place(a.url), place(q.url))
			}
			return q, err
		}
		if l != nil {
			u, err := a.url.Parse(l.href)
			if err == nil {
				return request{method: http.MethodGet, url: u}, v.e.web.allowed(u)
			}
		}
	}
	if s.path != nil {
		// A page of its own, perhaps, with a form. If opening it has signed out already, the other request does no harm.
		if a, err = v.send(ctx, request{method: http.MethodGet, url: s.path}); err != nil {
			return request{}, err
		}
		if p := a.html(); p != nil && a.status == http.StatusOK {
			if f, _ := p.signOut(); f != nil && f.method == http.MethodPost {
				return f.request(a.url, f.values())
			}
		}
		if s.byLink {
			return request{method: http.MethodGet, url: s.path}, nil
		}
		return request{method: http.MethodPost, url: s.path, contentType: "application/x-www-form-urlencoded", origin: origin(s.path)}, nil
	}
	return request{}, fmt.Errorf("%w: the sign-out has gone from %s", ErrSignIn, place(s.on))
}

// findSignOut looks for a form or link on the pages of somebody who is signed in.
func (e *examination) findSignOut(answers ...*answer) {
	if e.Logout != "" {
		if u, err := e.base.Parse(e.Logout); err == nil && e.web.allowed(u) == nil {
			e.out = &signOut{path: u, on: e.judge.page}
		}
		return
	}
	for _, a := range answers {
		if a == nil {
			continue
		}
		if p := a.html(); p != nil {
			f, l := p.signOut()
			if f != nil || l != nil {
				e.out = &signOut{on: a.url, byLink: f == nil}
				return
			}
		}
	}
}

// usualSignOuts are where a sign-out often is.
var usualSignOuts = []string{"/.afterlogin/logout", "/logout", "/sign-out", "/signout", "/users/sign_out", "/account/logout", "/accounts/logout/", "/auth/logout"}

// guessSignOut opens the usual addresses as somebody who is signed in: a page with a form there, or an address that signs
// out when it is opened.
func (e *examination) guessSignOut(ctx context.Context) error {
	v, token, err := e.fresh(ctx)
	if err != nil {
		return err
	}
	for _, path := range usualSignOuts {
		u, err := e.base.Parse(path)
		if err != nil {
			continue
		}
		jar := v.jar.clone()
		a, err := v.send(ctx, request{method: http.MethodGet, url: u})
		if err != nil {
			return err
		}
		if a.status == http.StatusNotFound || a.status >= 500 {
			continue
		}
		if p := a.html(); p != nil && a.status == http.StatusOK {
			if f, _ := p.signOut(); f != nil && f.method == http.MethodPost {
				e.out = &signOut{path: u, on: u}
				return nil
			}
		}
		v.jar = jar
		switch s, err := e.with(ctx, v, token); {
		case err != nil:
			return err
		case s == out:
			e.out = &signOut{path: u, on: e.judge.page, byLink: true}
			return nil
		}
	}
	return nil
}

// The kinds of credentials.
const (
	kindCookie = "cookie"
	kindBearer = "bearer token"
	kindQuery  = "parameter of the address"
)

// A credential is what the token is: where it stands, and its name there. Rivals are other cookies that are enough to be
// signed in: they are left away where it is asked what the token does.
type credential struct {
	kind, name string
	rivals     []string
}

func (c credential) String() string {
	if c.kind == kindBearer || c.kind == "" {
		return c.kind
	}
	return c.kind + " " + clip(printable(c.name), 60)
}

// token returns the visitor's.
func (e *examination) token(v *visitor) (string, bool) {
	switch e.cred.kind {
	case kindCookie:
		value, ok := v.jar.value(e.judge.page, e.cred.name)
		return value, ok && value != ""
	case kindBearer:
		return v.bearer, v.bearer != ""
	}
	for _, a := range slices.Backward(v.trail) {
		if u := a.redirect(); u != nil && u.Query().Get(e.cred.name) != "" {
			return u.Query().Get(e.cred.name), true
		}
	}
	return "", false
}
