package console

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
	"github.com/afterlogin/afterlogin/httpauth"
)

//go:embed templates
var templates embed.FS

// securityPolicy is the Content-Security-Policy of every answer.
const securityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// prepare sets the headers that every answer has.
func prepare(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	// Not no-referrer, with which browsers send a form's Origin as null.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Security-Policy", securityPolicy)
}

// A screen is what a template gets.
type screen struct {
	Title   string
	Base    string
	Path    string // of the page, below the base
	Node    string
	Version string
	Nav     []navItem
	Person  *entrance.Person // nil: nobody is signed in
	CSRF    string
	Done    string // what was just done
	Now     time.Time
	Query   url.Values // of the address
	Form    url.Values // what was typed, on a form that is shown once more
	Problem *api.Problem
	Data    any

	LiveURL string // where the live part comes from; empty: there is none
	Refresh string // the address that the browser is to fetch at once; empty: none
	visit   *visit
}

type navItem struct {
	Label, Href string
	Current     bool
}

// May reports whether the person may do what needs the scope.
func (s screen) May(scope string) bool { return s.visit != nil && s.visit.may(api.Scope(scope)) }

// Fault returns what is wrong with a field of the form: what the API said about the field of its own that begins with that
// name. Empty: nothing.
func (s screen) Fault(field string) string {
	if s.Problem == nil {
		return ""
	}
	for _, e := range s.Problem.Errors {
		_, name, ok := strings.Cut(e.Location, ".")
		if ok && (name == field || strings.HasPrefix(name, field+".") || strings.HasPrefix(name, field+"[")) {
			return e.Message
		}
	}
	return ""
}

// Value returns what stands in a field: what was typed, or the default.
func (s screen) Value(field, or string) string {
	if s.Form != nil {
		return s.Form.Get(field)
	}
	return or
}

// parsePages reads the templates: each with the layout and the parts.
func (c *Console) parsePages() (map[string]*template.Template, error) {
	files, err := templates.ReadDir("templates")
	if err != nil {
		return nil, err
	}
	shared, err := template.New("").Funcs(c.functions()).Funcs(logFunctions).ParseFS(templates, "templates/layout.html", "templates/parts*.html")
	if err != nil {
		return nil, err
	}
	out := make(map[string]*template.Template)
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".html")
		if name == "layout" || strings.HasPrefix(name, "parts") {
			continue
		}
		t, err := shared.Clone()
		if err == nil {
			t, err = t.ParseFS(templates, "templates/"+f.Name())
		}
		if err != nil {
			return nil, err
		}
		if t.Lookup("main") == nil {
			return nil, fmt.Errorf("console: templates/%s defines no main", f.Name())
		}
		out[name] = t
	}
	return out, nil
}

// show answers with a template of that name, status 200.
func (v *visit) show(name, title string, data any) error {
	return v.showAs(http.StatusOK, name, title, data, nil)
}

// again shows a form once more, with what was typed, and what is wrong with it. An error that is none of the person's
// mistakes comes back.
func (v *visit) again(name, title string, data any, err error) error {
	p := problemOf(err)
	if p == nil || p.Status >= 500 || p.Status == http.StatusForbidden {
		return err
	}
	return v.showAs(p.Status, name, title, data, p)
}

func (v *visit) showAs(status int, name, title string, data any, p *api.Problem) error {
	s := v.screen(title, data)
	s.Problem = p
	if v.form != nil {
		s.Form = v.form
	}
	t := v.c.pages[name]
	if t == nil {
		return fmt.Errorf("console: there is no template %q", name)
	}
	if t.Lookup("live") != nil && v.r.URL.Query().Get("pause") == "" {
		u := *v.r.URL
		q := u.Query()
		q.Set("live", "1")
		s.LiveURL = u.Path + "?" + q.Encode()
	}
	if v.live != nil {
		if t.Lookup("live") == nil {
			return fmt.Errorf("console: %s is not live", name)
		}
		return t.ExecuteTemplate(v.live, "live", s)
	}
	return v.c.write(v.w, status, t, s)
}

// screen returns what every template gets.
func (v *visit) screen(title string, data any) screen {
	s := v.c.screen(v.r, title, data)
	s.visit, s.Person, s.CSRF = v, v.person, v.c.auth.CSRFToken(v.r)
	if v.r.Header.Get("Sec-Fetch-Site") == "same-origin" { // and not for whoever follows somebody's link
		s.Done = done[s.Query.Get("done")]
	}
	for _, rt := range routes() {
		if rt.Label == "" || !v.offered(rt) {
			continue
		}
		path := strings.TrimSuffix(rt.Path, "{$}")
		current := s.Path == path || path != "/" && strings.HasPrefix(s.Path, path+"/") || path == "/sessions" && strings.HasPrefix(s.Path, "/subject")
		s.Nav = append(s.Nav, navItem{rt.Label, v.c.base + path, current})
	}
	return s
}

func (v *visit) offered(rt Route) bool {
	for _, s := range rt.Needs {
		if !v.may(s) {
			return false
		}
	}
	return rt.there == nil || rt.there(v)
}

func (c *Console) screen(r *http.Request, title string, data any) screen {
	return screen{
		Title: title, Base: c.base, Path: strings.TrimPrefix(r.URL.Path, c.base), Node: c.o.Node, Version: c.o.Version,
		Now: c.now(), Query: r.URL.Query(), Data: data,
	}
}

func (c *Console) write(w http.ResponseWriter, status int, t *template.Template, s screen) error {
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "layout", s); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	w.Write(b.Bytes())
	return nil
}

// redirect sends the browser to a path of the console.
func (c *Console) redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}

// done redirects after an act to the path below the base, which says what was done: a key of the table done.
func (v *visit) done(path, what string) error {
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	v.c.redirect(v.w, v.c.base+path+sep+"done="+what)
	return nil
}

// A question asks before an act.
type question struct {
	Text   []string // what it does, and what it does not
	Button string   // what the button says, in the words of the title
	Action string   // the path below the base that the form is sent to
	Back   string   // the path below the base of the way back
	Hidden map[string]string
	// Offer is a box to tick, by the name of its field; Field is a text to type. Empty: none.
	Offer, OfferText        string
	Field, Label, Hint, Val string
	Gentle                  bool // it can be taken back
}

// confirm asks.
func (v *visit) confirm(title string, q question) error { return v.show("confirm", title, q) }

// fail answers an error.
func (v *visit) fail(err error) {
	p := problemOf(err)
	if p == nil {
		v.c.fault(v.w, v.r, err)
		return
	}
	text := p.Detail
	if p.Kind() == "temporarily-unavailable" {
		if text = unavailableText; v.r.Method == http.MethodPost {
			text = unknownText
		}
	}
	v.c.answer(v.w, p, v.screen("", message{text, p.Kind()}))
}

// message is the data of the template "message".
type message struct{ Text, Kind string }

// answer answers with a problem of the API.
func (c *Console) answer(w http.ResponseWriter, p *api.Problem, s screen) {
	status := p.Status
	switch {
	case p.Kind() == "temporarily-unavailable":
		s.Title = "Try again in a moment"
		w.Header().Set("Retry-After", "1")
	case status == http.StatusServiceUnavailable: // of which something may have been done
		s.Title = "This did not go as it should"
		w.Header().Set("Retry-After", "5")
	case status == http.StatusTooManyRequests:
		s.Title = "This is too much at once"
		w.Header().Set("Retry-After", "15")
	case status == http.StatusForbidden:
		s.Title = "You may not do this"
	case status == http.StatusNotFound:
		s.Title = "There is no such thing"
	case status == http.StatusInternalServerError:
		s.Title = "Something went wrong here"
	default:
		s.Title = "This does not work"
	}
	s.Problem = p
	if err := c.write(w, status, c.pages["message"], s); err != nil {
		panic("console: the page: " + err.Error()) // it does not depend on input
	}
}

// What is said when the store does not answer: to who wants to see something, or could not even begin; and after an act.
const (
	unavailableText = "The store does not answer, so nothing can be told or changed right now. Nobody is signed out by this, and nothing is lost: reload the page in a moment."
	unknownText     = "The store did not answer, so it is not known whether this was done: it may have happened. Look before you do it again. Nobody is signed out by the store's silence itself."
)

// fault answers an error that is nobody's at the keyboard, for somebody who may be anybody. Nothing was done.
func (c *Console) fault(w http.ResponseWriter, r *http.Request, err error) {
	c.trouble(w, r, err, unavailableText)
}

// trouble is fault with the text for a store that does not answer.
func (c *Console) trouble(w http.ResponseWriter, r *http.Request, err error, text string) {
	p := api.NewProblem(http.StatusInternalServerError, "internal", "It is not your fault. The server's log says what it was.")
	switch {
	case errors.Is(err, afterlogin.ErrUnavailable):
		c.log.ErrorContext(r.Context(), "the console cannot ask the store", "err", err)
		p = api.NewProblem(http.StatusServiceUnavailable, "temporarily-unavailable", text)
	default:
		c.log.ErrorContext(r.Context(), "a page of the console failed", "path", r.URL.Path, "err", err)
	}
	c.answer(w, p, c.screen(r, "", message{p.Detail, p.Kind()}))
}

// message shows a page that says something, to anybody.
func (c *Console) message(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	if err := c.write(w, status, c.pages["message"], c.screen(r, title, message{Text: text})); err != nil {
		panic("console: the page: " + err.Error())
	}
}

// refuse is httpauth's Options.Refuse.
func (c *Console) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, afterlogin.ErrUnavailable) {
		c.fault(w, r, err)
		return
	}
	title := "This does not work"
	if httpauth.Status(err) == http.StatusUnauthorized {
		title = "You are not signed in"
	}
	c.message(w, r, httpauth.Status(err), title, httpauth.Message(err))
}
