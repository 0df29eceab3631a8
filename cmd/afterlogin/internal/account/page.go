package account

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/geo"
	"github.com/afterlogin/afterlogin/httpauth"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

var pages = template.Must(template.New("page").Parse(pageHTML))

var styleHash = func() string {
	sum := sha256.Sum256([]byte(pageCSS))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}()

// A visit is one request and its answer.
type visit struct {
	a     *Account
	site  *Site
	words words
	json  bool   // a program asks
	embed bool   // the page is part of one of the site's own
	csrf  string // the session's
}

// page is what a page shows. Which parts of it there are, the template sees from what is set.
type page struct {
	words
	Style   template.CSS
	Link    string // to the operator's stylesheet
	Base    string
	Query   string // of the forms' action: ?embed=1
	Embed   bool
	Product string
	Host    string
	Field   string
	Token   string

	Title  string
	Error  string
	Note   string
	Lines  []string
	Goto   string // a link, and its text
	GotoAs string
	Top    bool // it leads out of a frame

	List    *listed
	Report  bool
	Session afterlogin.SessionID // that is reported
}

// listed is the list as it is shown.
type listed struct {
	As                         string
	Devices, Apps, Keys, Ended []item
	Others                     bool // there is somewhere to sign out
	More                       bool
	Password                   bool
	Source                     geo.Attribution
}

// item is an entry as it is shown.
type item struct {
	ID         afterlogin.SessionID
	Kind       string
	Title      string
	Here, Held bool
	Facts      []fact
	Act        string // what the button says
}

// A fact is a sentence about an entry, with a time in it or without.
type fact struct{ Before, Time, Text, After string }

// T is for the template.
func (p *page) T(key string, args ...any) string { return p.t(key, args...) }

// prepare sets the headers that every answer has.
func (v *visit) prepare(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept, Accept-Language") // httpauth adds to it
	h.Set("X-Content-Type-Options", "nosniff")
	// Not no-referrer, with which browsers send a form's Origin as null.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	frames := "'none'"
	h.Set("X-Frame-Options", "DENY")
	if v.embed && !v.json {
		frames = "'self'"
		h.Set("X-Frame-Options", "SAMEORIGIN")
	}
	styles := styleHash
	if v.site != nil && v.a.style != "" {
		styles += " " + v.site.Origin + v.site.Base + v.a.style
	}
	h.Set("Content-Security-Policy", "default-src 'none'; style-src "+styles+"; base-uri 'none'; form-action 'self'; frame-ancestors "+frames)
}

// show answers with the page.
func (v *visit) show(w http.ResponseWriter, status int, p page) {
	h := w.Header()
	v.prepare(h)
	p.words, p.Style, p.Embed, p.Product = v.words, template.CSS(pageCSS), v.embed, v.a.o.Product
	p.Field, p.Token = httpauth.CSRFField, v.csrf
	if v.site != nil {
		p.Base = v.site.Base
		_, p.Host, _ = strings.Cut(v.site.Origin, "://")
		if v.a.style != "" {
			p.Link = v.site.Base + v.a.style
		}
	}
	if v.embed {
		p.Query = "?embed=1"
	}
	var b bytes.Buffer
	if err := pages.Execute(&b, &p); err != nil {
		panic("account: the page: " + err.Error()) // it does not depend on input
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Language", v.words["lang"])
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// list answers with where the person is signed in.
func (v *visit) list(w http.ResponseWriter, r *http.Request, here *afterlogin.Session) {
	o, err := v.overview(r.Context(), here)
	if err != nil {
		v.fault(w, r, err)
		return
	}
	if v.json {
		w.Header().Set(httpauth.CSRFHeader, v.csrf)
		v.write(w, http.StatusOK, v.answer(o, here))
		return
	}
	p := page{Title: v.words.t("title"), List: v.listed(o, here)}
	if r.Header.Get("Sec-Fetch-Site") == "same-origin" { // and not for whoever follows somebody's link
		switch done := r.URL.Query().Get("done"); done {
		case "device", "app", "api_key", "others":
			p.Note = v.words.t("done." + done)
		}
	}
	v.show(w, http.StatusOK, p)
}

func (v *visit) listed(o *overview, here *afterlogin.Session) *listed {
	now := v.a.now()
	items := func(all []entry) (out []item) {
		for i := range all {
			out = append(out, v.item(&all[i], now))
		}
		return out
	}
	l := &listed{
		As: here.Subject, Devices: items(o.devices), Apps: items(o.apps), Keys: items(o.keys), Ended: items(o.ended),
		Others: len(o.devices) > 1 || len(o.apps) > 0 || o.more, More: o.more, Password: v.a.o.Password != nil && v.a.o.Password(here),
	}
	if o.places {
		l.Source = v.a.o.Places.Attribution()
	}
	return l
}

// item puts an entry into words.
func (v *visit) item(e *entry, now time.Time) item {
	w := v.words
	it := item{ID: e.id, Kind: e.kind, Title: w.title(e), Here: e.here, Held: e.held}
	say := func(text string) {
		if text != "" {
			it.Facts = append(it.Facts, fact{Before: capital(text)})
		}
	}
	// at says a sentence with a time in it: its text has a place for that.
	at := func(key string, t time.Time, text string, more ...any) {
		if !t.IsZero() {
			const mark = "\x00"
			before, after, _ := strings.Cut(w.t(key, append([]any{mark}, more...)...), mark)
			it.Facts = append(it.Facts, fact{before, t.UTC().Format(time.RFC3339), text, after})
		}
	}
	when := func(key string, t time.Time, more ...any) { at(key, t, w.ago(now, t), more...) }
	if !e.ended.IsZero() {
		say(w.place(e))
		at("ended.at", e.ended, capital(w.ago(now, e.ended)))
		say(w.why(e.why))
		return it
	}
	if e.held {
		say(w.t("held.text"))
	}
	switch e.kind {
	case kindDevice:
		it.Act = w.t("act.one")
		say(w.place(e))
		when("seen", e.seen)
		if by := w.by(e); by != "" {
			when("since.by", e.since, by)
		} else {
			when("since", e.since)
		}
		if e.remembered {
			say(w.t("remembered"))
		}
	case kindApp:
		it.Act = w.t("act.app")
		at("app.since", e.since, w.t("from", w.date(e.since)))
		when("key.seen", e.seen)
		if len(e.scopes) > 0 {
			say(w.t("app.scopes", strings.Join(e.scopes, ", ")))
		}
	case kindAPIKey:
		it.Act = w.t("act.key")
		when("key.since", e.since)
		when("key.seen", e.seen)
		if e.until.IsZero() {
			say(w.t("key.forever"))
		} else {
			at("key.until", e.until, w.date(e.until))
		}
		if len(e.scopes) > 0 {
			say(w.t("app.scopes", strings.Join(e.scopes, ", ")))
		}
	}
	return it
}

// capital makes the beginning of a sentence.
func capital(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

// ask asks whether it was really somebody else.
func (v *visit) ask(w http.ResponseWriter, r *http.Request, here *afterlogin.Session) {
	p := page{Title: v.words.t("report.title"), Report: true, Lines: []string{v.words.t("report.text")}}
	if v.a.o.Password != nil && v.a.o.Password(here) {
		p.Lines = append(p.Lines, v.words.t("report.password"))
	} else {
		p.Lines = append(p.Lines, v.words.t("report.other"))
	}
	if id := afterlogin.SessionID(r.URL.Query().Get("session")); id != "" {
		s, err := v.a.own(r.Context(), here, id)
		if err != nil {
			v.fault(w, r, err)
			return
		}
		e := v.entry(s, here, make(map[netip.Addr]string))
		name := v.words.title(&e)
		if place := v.words.place(&e); place != "" {
			name += " (" + place + ")"
		}
		p.Session, p.Lines = s.ID, append([]string{v.words.t("report.about", name)}, p.Lines...)
	}
	v.show(w, http.StatusOK, p)
}

// fail answers that something does not work, as a page or as a problem. The texts are fixed.
func (v *visit) fail(w http.ResponseWriter, r *http.Request, status int, kind, key string) {
	if v.json {
		api.NewProblem(status, kind, v.words.t(key)).Write(w, r)
		return
	}
	p := page{Title: v.words.t("error.title"), Error: v.words.t(key)}
	if v.site != nil {
		p.Goto, p.GotoAs = v.site.Base+sessionsPath, v.words.t("act.again")
		if v.embed {
			p.Goto += "?embed=1"
		}
	}
	v.show(w, status, p)
}

// signedOut says that nobody is signed in (any more), and shows the way.
func (v *visit) signedOut(w http.ResponseWriter, r *http.Request) {
	if v.json {
		v.fail(w, r, http.StatusConflict, "session-over", "error.over")
		return
	}
	v.show(w, http.StatusUnauthorized, page{
		Title: v.words.t("title"), Error: v.words.t("error.signed_out"), GotoAs: v.words.t("act.sign_in"), Top: true,
		Goto: v.site.Base + loginPath + "?return_to=" + url.QueryEscape(v.site.Base+sessionsPath),
	})
}

// fault answers an error of the authority, or of how a request is written.
func (v *visit) fault(w http.ResponseWriter, r *http.Request, err error) {
	var bad *orderError
	switch {
	case errors.As(err, &bad):
		v.fail(w, r, bad.status, bad.kind, bad.key)
	case errors.Is(err, afterlogin.ErrUnavailable):
		v.a.log.ErrorContext(r.Context(), "the store cannot be asked", "err", err)
		w.Header().Set("Retry-After", "1")
		v.fail(w, r, http.StatusServiceUnavailable, "temporarily-unavailable", "error.unavailable")
	case errors.Is(err, afterlogin.ErrNoSession):
		v.fail(w, r, http.StatusNotFound, "no-such-session", "error.gone")
	case errors.Is(err, afterlogin.ErrInvalidToken): // their own session ended meanwhile
		v.signedOut(w, r)
	default:
		v.a.log.ErrorContext(r.Context(), "the account page failed", "err", err)
		v.fail(w, r, http.StatusInternalServerError, "internal", "error.inside")
	}
}

// refuse answers a request that httpauth did not let through, and has logged.
func (v *visit) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if v.json {
		httpauth.Answer(w, r, err)
		return
	}
	status := httpauth.Status(err)
	switch {
	case errors.Is(err, httpauth.ErrCSRFToken):
		v.fail(w, r, status, "", "error.old")
	case errors.Is(err, afterlogin.ErrUnavailable):
		v.fail(w, r, status, "", "error.unavailable")
	case status == http.StatusUnauthorized && afterlogin.ReasonOf(err) != afterlogin.ReasonDuplicate:
		v.signedOut(w, r)
	default:
		v.show(w, status, page{Title: v.words.t("error.title"), Error: httpauth.Message(err)})
	}
}

func (v *visit) siteError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, afterlogin.ErrUnavailable) {
		v.fault(w, r, err)
		return
	}
	v.a.log.InfoContext(r.Context(), "a request for the account pages is for no site that is known", "err", err)
	v.fail(w, r, http.StatusMisdirectedRequest, "unknown-host", "error.site")
}
