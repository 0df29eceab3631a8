package oauth

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
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

// policyOf is the content security policy of the pages: no script, nothing from elsewhere, in nobody's frame. The form's
// answer is a redirect to the client, and Chromium holds every address that it leads to against form-action: the client's,
// and those that the client redirects on to, when the code is spent already. Nobody knows these, so that schemes are all
// that the policy can say. What keeps the form from leading elsewhere is that its target is ours.
func policyOf(schemes string) string {
	p := "default-src 'none'; style-src " + styleHash + "; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
	if schemes != "" {
		p += " " + schemes
	}
	return p
}

// page is what a page shows.
type page struct {
	Style    template.CSS
	Title    string
	Message  string // of an error
	Client   string
	Where    string // the host that gets the answer
	Subject  string
	Scopes   []string
	Services []string
	Until    string
	Offline  bool
	Action   string
	CSRF     string
	Field    string
	Request  string
}

// showConsent asks the person. The request goes along in the form, and is checked again like any other when it comes back.
func (s *Server) showConsent(w http.ResponseWriter, r *http.Request, auth *httpauth.Auth, q *request, who *afterlogin.Session, query string) {
	where, schemes := destination(q.redirect)
	p := page{
		Title: "Allow access?", Client: q.client.settings.Name, Where: where, Subject: who.Subject, Services: q.resources,
		Action: AuthorizePath, CSRF: auth.CSRFToken(r), Field: httpauth.CSRFField, Request: query,
	}
	for _, scope := range q.scopes {
		if scope != clients.OfflineAccess {
			p.Scopes = append(p.Scopes, scope)
		}
	}
	p.Offline = slices.Contains(q.scopes, clients.OfflineAccess)
	if p.Offline {
		name := afterlogin.PolicyRefreshConfidential
		if q.client.settings.Public() {
			name = afterlogin.PolicyRefreshPublic
		}
		p.Until = days(s.policies[name].Absolute)
	}
	w.Header().Set("Content-Security-Policy", policyOf(schemes))
	show(w, http.StatusOK, p)
}

func days(d time.Duration) string {
	if n := int(d / (24 * time.Hour)); n > 1 {
		return strconv.Itoa(n) + " days"
	}
	return d.String()
}

// destination says for people where a registered address leads, and for the policy which schemes that takes: a program on
// this machine may send the browser on to one, or to the web.
func destination(to string) (where, schemes string) {
	u, err := url.Parse(to)
	if err != nil {
		return "", ""
	}
	if u.Host == "" {
		return "an app on this device (" + u.Scheme + ")", u.Scheme + ":"
	}
	if u.Scheme == "http" {
		return "a program on this device (" + u.Host + ")", "http: https:"
	}
	return u.Host, "https:"
}

// showError shows a page for a request that cannot be sent back to anybody. The message is fixed text.
func showError(w http.ResponseWriter, status int, message string) {
	show(w, status, page{Title: "This does not work", Message: message})
}

func show(w http.ResponseWriter, status int, p page) {
	p.Style = template.CSS(pageCSS)
	var b bytes.Buffer
	if err := pages.Execute(&b, p); err != nil {
		panic("oauth: the page: " + err.Error()) // it does not depend on input
	}
	w.Header().Set("Cache-Control", "no-store")
	writeBytes(w, status, "text/html; charset=utf-8", b.Bytes())
}
