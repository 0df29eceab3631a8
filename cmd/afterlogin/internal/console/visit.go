package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/httpauth"
)

// A visit is one request of one person who is signed in.
type visit struct {
	c      *Console
	w      http.ResponseWriter
	r      *http.Request
	route  Route
	caller *afterlogin.Session // the console's session, with the scopes of the role
	person *entrance.Person
	form   url.Values // of a POST
	// live is set while only the live part of the page is wanted.
	live *bytes.Buffer
	// matters says which events a live page tells of; nil: all.
	matters func(*api.Event) bool
	// pace is how often a live page is made anew without an event, if not every refresh; and say, when it becomes another
	// text, is read out to who does not see the page. The route's function sets them.
	pace time.Duration
	say  string
	// known is when it was last known, of a stream, that the person may watch.
	known time.Time
}

// dispatch answers a request that httpauth has looked at.
func (c *Console) dispatch(w http.ResponseWriter, r *http.Request) { c.handlerOf(r).ServeHTTP(w, r) }

// handlerOf returns the route's handler; the mux must not redirect to cleaned paths, nor answer in its own words.
func (c *Console) handlerOf(r *http.Request) http.Handler {
	if p := r.URL.EscapedPath(); strings.Contains(p, "//") || strings.Contains(p+"/", "/./") || strings.Contains(p+"/", "/../") {
		return http.HandlerFunc(c.nowhere)
	}
	m := c.handler.(*http.ServeMux)
	if _, pattern := m.Handler(r); pattern != "" {
		return m
	}
	return http.HandlerFunc(c.nowhere)
}

// nowhere answers for a path that is none, or not with this method.
func (c *Console) nowhere(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := *r
		other.Method = method
		if _, pattern := c.handler.(*http.ServeMux).Handler(&other); pattern != "" && method != r.Method {
			allow = append(allow, method)
		}
	}
	if allow != nil {
		w.Header().Set("Allow", strings.Join(allow, ", "))
		c.message(w, r, http.StatusMethodNotAllowed, "This does not work", "The page takes "+strings.Join(allow, ", ")+" only.")
		return
	}
	c.message(w, r, http.StatusNotFound, "There is no such page", "Check the address, or begin at the overview.")
}

// who returns who is signed in; the error is entrance.ErrNobody if that is nobody.
func (c *Console) who(r *http.Request) (*afterlogin.Session, *entrance.Person, error) {
	// A token in a header is no browser's, and would need no CSRF token.
	s, ok := httpauth.Session(r.Context())
	if !ok || len(r.Header["Authorization"]) > 0 || len(r.Header["X-Api-Key"]) > 0 {
		return nil, nil, entrance.ErrNobody
	}
	p, err := c.o.Entrance.Person(r.Context(), s)
	return s, p, err
}

// serve answers the request for a route.
func (c *Console) serve(w http.ResponseWriter, r *http.Request, rt Route) {
	s, person, err := c.who(r)
	switch {
	case errors.Is(err, entrance.ErrNobody):
		c.notSignedIn(w, r, rt)
		return
	case err != nil:
		c.fault(w, r, err)
		return
	}
	caller := *s
	caller.Scopes = api.ConsoleScopes(person.Role)
	v := &visit{c: c, w: w, r: r, route: rt, caller: &caller, person: person}
	if rt.Method == http.MethodPost {
		if v.form, err = readForm(r); err != nil {
			v.fail(err)
			return
		}
	}
	if isLive(r) {
		if !rt.live {
			v.fail(api.NewProblem(http.StatusNotFound, "not-found", "This page is not live."))
			return
		}
		v.follow()
		return
	}
	if err := v.serve(); err != nil {
		v.fail(err)
	}
}

// serve calls the route's function.
func (v *visit) serve() error {
	for _, s := range v.route.Needs {
		if !v.may(s) {
			return api.NewProblem(http.StatusForbidden, "insufficient-scope", "Your role, "+string(v.person.Role)+", does not include this: it needs the scope "+string(s)+".")
		}
	}
	if v.route.there != nil && !v.route.there(v) {
		return api.NewProblem(http.StatusNotFound, "not-configured", "This server does not have this: it is not configured.")
	}
	return v.route.serve(v)
}

func (v *visit) may(s api.Scope) bool { return slices.Contains(v.caller.Scopes, string(s)) }

// readForm returns the fields of a POST. httpauth has parsed a form with a CSRF token in it, with a limit.
func readForm(r *http.Request) (url.Values, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return nil, api.NewProblem(http.StatusUnsupportedMediaType, "unsupported-media-type", "The form was not sent as a browser sends it.")
	}
	var large *http.MaxBytesError
	switch err := r.ParseForm(); {
	case errors.As(err, &large):
		return nil, api.NewProblem(http.StatusRequestEntityTooLarge, "body-too-large", "The form is too large.")
	case err != nil:
		return nil, api.NewProblem(http.StatusBadRequest, "bad-form", "The form could not be read.")
	}
	return r.PostForm, nil
}

// query returns the parameters of those names that the page's address has, for a call of the API. Empty ones are left out:
// a form sends fields that nobody filled in, too.
func (v *visit) query(names ...string) url.Values {
	q, out := v.r.URL.Query(), url.Values{}
	for _, n := range names {
		if s := strings.TrimSpace(q.Get(n)); s != "" {
			out.Set(n, s)
		}
	}
	return out
}

// field returns a field of the form, without blanks around it.
func (v *visit) field(name string) string { return strings.TrimSpace(v.form.Get(name)) }

// lines returns the words of a field, which are separated by blanks, commas or line breaks. Nil if there are none.
func (v *visit) words(name string) []string {
	return strings.FieldsFunc(v.form.Get(name), func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}

func (v *visit) get(path string, query url.Values, out any) error {
	return v.call(http.MethodGet, path, query, nil, out)
}

func (v *visit) post(path string, in, out any) error {
	return v.call(http.MethodPost, path, nil, in, out)
}

func (v *visit) del(path string, query url.Values) error {
	return v.call(http.MethodDelete, path, query, nil, nil)
}

// seg escapes a text as one segment of a path. A subject may be called "..", too.
func seg(s string) string { return strings.ReplaceAll(url.PathEscape(s), ".", "%2E") }

// context returns the context of calls of the API: as the person.
func (v *visit) context(ctx context.Context) context.Context {
	return api.As(afterlogin.WithActor(ctx, "console/"+v.person.Name), v.caller)
}

// request makes a request of the API. The path is escaped already.
func (v *visit) request(ctx context.Context, method, path string, query url.Values, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(v.context(ctx), method, path, body)
	if err != nil {
		return nil, err
	}
	r.RequestURI, r.RemoteAddr, r.Host = path, v.r.RemoteAddr, v.r.Host
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	} else {
		r.Body = http.NoBody // as a server has it
	}
	return r, nil
}

// call makes a request of the API and decodes its answer into out, if that is not nil. The error is an *api.Problem if
// that is what the API answered.
func (v *visit) call(method, path string, query url.Values, in, out any) error {
	r, err := v.request(v.r.Context(), method, path, query, in)
	if err != nil {
		return err
	}
	var rec recorder
	v.c.o.API.ServeHTTP(&rec, r)
	if rec.status >= 300 || rec.status == 0 {
		return rec.problem()
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(rec.body.Bytes(), out); err != nil {
		return fmt.Errorf("console: the answer to %s %s: %w", method, r.URL.Path, err)
	}
	return nil
}

// problemOf returns the API's problem, if the error is one.
func problemOf(err error) *api.Problem {
	var p *api.Problem
	if errors.As(err, &p) {
		return p
	}
	return nil
}

// problem returns the API's problem in the answer.
func (r *recorder) problem() error {
	p := &api.Problem{}
	if err := json.Unmarshal(r.body.Bytes(), p); err != nil || p.Status == 0 {
		return fmt.Errorf("console: the API answered %d", r.status)
	}
	return p
}

// recorder keeps an answer of the API in memory.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header)
	}
	return r.header
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}
