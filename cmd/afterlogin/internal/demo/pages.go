package demo

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static/*
var staticFiles embed.FS

// pages are the templates by name, each with the layout around it.
var pages = func() map[string]*template.Template {
	out := make(map[string]*template.Template)
	for _, name := range []string{"shop", "product", "cart", "signin", "checkout", "orders", "sessions", "link", "error"} {
		out[name] = template.Must(template.ParseFS(templateFiles, "templates/layout.html", "templates/"+name+".html"))
	}
	return out
}()

// A view is what a page shows.
type view struct {
	Title     string
	Place     string // which link of the navigation is the current one
	Name      string // of the person; empty: nobody is signed in
	CSRF      string
	CartCount int
	Kept      bool   // the cart waits for somebody to sign in again
	ReturnTo  string // where a sign-in from here leads back to
	Notice    *notice
	Foot      foot
	Body      any
}

// A notice stands at the top of a page.
type notice struct {
	Alert  bool // something went wrong
	Title  string
	Text   []string
	SignIn bool // offer to sign in again
	Kept   bool // the cart comes back then
}

// A foot is the strip at the foot of each page, which tells what the browser holds.
type foot struct {
	Session        *footSession // nil: there is none
	Refused        afterlogin.SessionID
	Reason, Cause  afterlogin.Reason // of the refusal
	Command        string
	Renewal, Grace string
}

type footSession struct {
	ID         afterlogin.SessionID
	Anonymous  bool
	Generation uint32
	Due        bool // the token is renewed with this very answer
	Renews     time.Time
	In         string
	Idle       string
	Ends       time.Time
}

// view returns the parts of a page that all have in common.
func (s *shop) view(r *http.Request, title, place string, body any) (view, error) {
	v := s.bare(r, title, place, body)
	d, err := s.auth.Data(r)
	if err != nil {
		return v, err
	}
	c, err := readCart(d)
	if err != nil {
		return v, err
	}
	v.CartCount = c.count()
	return v, nil
}

// bare is view without what the store has to be asked for.
func (s *shop) bare(r *http.Request, title, place string, body any) view {
	v := view{Title: title, Place: place, Body: body, CSRF: s.auth.CSRFToken(r)}
	p := s.policies[afterlogin.PolicyBrowser]
	v.Foot = foot{Command: s.command, Renewal: words(p.Renewal), Grace: words(p.Grace)}
	if r.Method == http.MethodGet && place != "sign-in" {
		if v.ReturnTo = httpauth.SafeReturn(r.URL.Path); v.ReturnTo == "/" {
			v.ReturnTo = ""
		}
	}
	if session, ok := httpauth.Session(r.Context()); ok {
		v.Name = displayName(session.Subject)
		v.Foot.Session = s.footOf(session)
	} else if refusal, ok := httpauth.RefusalFrom(r.Context()); ok {
		v.Foot.Refused, v.Foot.Reason, v.Foot.Cause = refusal.Session, refusal.Reason, refusal.Cause
		if v.Notice = s.outOfDate(r, refusal); v.Notice != nil {
			v.Kept = v.Notice.Kept
		}
	}
	return v
}

func (s *shop) footOf(session *afterlogin.Session) *footSession {
	p := s.policies[session.Policy]
	renews := session.Renewed.Add(p.Renewal)
	return &footSession{
		ID: session.ID, Anonymous: session.Anonymous(), Generation: session.Generation,
		Due: session.RenewalDue(), Renews: renews.Local(), In: words(renews.Sub(s.now())),
		Idle: words(p.Idle), Ends: session.Absolute.Local(),
	}
}

// outOfDate tells the person why the cookie that the browser holds is refused. It returns nil if there is nothing to
// tell: the cookie was an anonymous one, or somebody signed out.
func (s *shop) outOfDate(r *http.Request, refusal *afterlogin.Refusal) *notice {
	if refusal.Session == "" {
		return nil
	}
	over, err := s.authority.Session(r.Context(), refusal.Session)
	if err != nil || over.Anonymous() {
		return nil // cleaned up, or nobody's
	}
	n := &notice{Alert: true, Title: "You are not signed in any more", SignIn: true}
	if text := refusal.Message(); text != "" {
		n.Text = append(n.Text, text)
	}
	switch {
	case refusal.Reason == afterlogin.ReasonSuperseded:
		n.Text = append(n.Text, "A later sign-in in this browser has taken its place.", "Sign in again.")
	case refusal.Cause == afterlogin.ReasonSignedOut:
		n.Text = append(n.Text, "It was signed out, here or from another device.", "Sign in again.")
	default: // the core moves the cart along when the same person signs in with the cookie still there
		n.Kept = true
		n.Text = append(n.Text, "Your cart is safe. Sign in again.")
	}
	return n
}

// render writes a page. Nothing of it is written before all of it is made.
func (s *shop) render(w http.ResponseWriter, status int, name string, v view) error {
	var b bytes.Buffer
	if err := pages[name].ExecuteTemplate(&b, "layout", v); err != nil {
		return fmt.Errorf("page %s: %w", name, err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store") // the back button must not show a cart after the sign-out
	w.WriteHeader(status)
	w.Write(b.Bytes())
	return nil
}

// show is view and render for an ordinary page.
func (s *shop) show(w http.ResponseWriter, r *http.Request, name, title, place string, body any, n *notice) error {
	v, err := s.view(r, title, place, body)
	if err != nil {
		return err
	}
	if v.Notice == nil {
		v.Notice = n
	}
	return s.render(w, http.StatusOK, name, v)
}

// A problem is the page for what went wrong.
type problem struct {
	Status int
	Title  string
	Text   string
	Again  string // where to try again; empty: nowhere
}

// StatusText is the status in words.
func (p problem) StatusText() string { return http.StatusText(p.Status) }

// answer writes the page of a problem. It asks nothing of the store, which may be the problem.
func (s *shop) answer(w http.ResponseWriter, r *http.Request, p problem) {
	if p.Title == "" {
		p.Title, p.Text = "Something went wrong here", "It is not your fault, and nothing is lost."
	}
	v := s.bare(r, p.Title, "", p)
	v.Notice = nil // the page itself says it
	if err := s.render(w, p.Status, "error", v); err != nil {
		s.log.Error("the error page failed", "err", err)
		http.Error(w, p.Title, p.Status)
	}
}

// asset is a static file in memory.
type asset struct {
	content     []byte
	contentType string
	etag        string
}

var assets = func() map[string]asset {
	types := map[string]string{".svg": "image/svg+xml", ".css": "text/css; charset=utf-8"}
	out := make(map[string]asset)
	files, err := staticFiles.ReadDir("static")
	if err != nil {
		panic(err) // it is embedded
	}
	for _, f := range files {
		b, err := staticFiles.ReadFile("static/" + f.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(b)
		out[f.Name()] = asset{b, types[path.Ext(f.Name())], `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
	}
	return out
}()

// static serves the style sheet and the pictures. Browsers keep them and ask each time whether they are still good.
func (s *shop) static(w http.ResponseWriter, r *http.Request) {
	a, ok := assets[r.PathValue("name")]
	if !ok {
		s.answer(w, r, problem{Status: http.StatusNotFound, Title: "There is nothing here", Text: "The shop has no such file."})
		return
	}
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", "no-cache")
	h.Set("Etag", a.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.content))
}

// words puts a length of time into words, as far as anybody cares.
func words(d time.Duration) string {
	count := func(n int64, unit string) string {
		if n == 1 {
			return "1 " + unit
		}
		return fmt.Sprintf("%d %ss", n, unit)
	}
	d = max(d, 0)
	switch {
	case d < 2*time.Minute:
		return count(int64(d.Round(time.Second)/time.Second), "second")
	case d < time.Hour:
		return count(int64(d.Round(time.Minute)/time.Minute), "minute")
	case d <= 48*time.Hour:
		return count(int64(d.Round(time.Hour)/time.Hour), "hour")
	}
	return count(int64(d/(24*time.Hour)), "day")
}

// ago says how long ago something was.
func ago(now, t time.Time) string {
	if d := now.Sub(t); d >= 2*time.Second {
		return words(d) + " ago"
	}
	return "just now"
}

// capital makes the first letter of an ASCII name a capital.
func capital(name string) string {
	if name == "" {
		return ""
	}
	return strings.ToUpper(name[:1]) + name[1:]
}
