package upstream

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"strings"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

var pages = template.Must(template.New("page").Parse(pageHTML))

// policy is the content security policy of the pages: no script, no form, nothing from elsewhere, in nobody's frame.
var policy = func() string {
	sum := sha256.Sum256([]byte(pageCSS))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
}()

// page is a page to show. Its texts are fixed, but for %s, which is the provider's name as it is configured: nothing that
// a request or a provider says is shown.
type page struct{ title, text string }

func (p page) with(name string) page {
	return page{strings.ReplaceAll(p.title, "%s", name), strings.ReplaceAll(p.text, "%s", name)}
}

var (
	pageHost      = page{"This does not work", "This server does not know the address that you came to."}
	pageUnknown   = page{"There is nothing here", "There is no such page, or no such provider to sign in with."}
	pageMethod    = page{"This does not work", "This address is not meant to be used like this."}
	pageFramed    = page{"This does not work", "Signing in needs a page of its own. It does not work inside of another page."}
	pageQuery     = page{"This does not work", "The address is incomplete, or was changed. Go back to the application and try again."}
	pageContinue  = page{"Sign in with %s?", "You came here from another site. Go on if you want to sign in."}
	pageNoAttempt = page{"This sign-in cannot be finished", "It was begun in another browser or more than ten minutes ago, or it is finished already. Please sign in again."}
	pageUsed      = page{"This sign-in is finished", "It was finished a moment ago. You can go on."}
	pageSpent     = page{"This sign-in cannot be finished", "Its answer was used already, and you are not signed in by it. Please sign in again."}
	pageMixedUp   = page{"You are not signed in", "The answer came from somewhere else than where you were sent to. Please sign in again."}
	pageGrant     = page{"This sign-in cannot be finished", "It took too long, or %s has withdrawn it. Please sign in again."}
	pageSignedOut = page{"You are not signed in", "You were signed out while you were signing in. Please sign in again."}
	pageStale     = page{"You are not signed in", "This needs you to have signed in with %s a short while ago, and %s does not say so. Please sign in again."}
	pageACR       = page{"You are not signed in", "This needs you to sign in with %s in a stronger way than you did. Please sign in again."}
	pageRefused   = page{"You are not signed in", "What %s has answered was not accepted. Whoever runs this server finds the reason in its log."}
	pageDown      = page{"%s does not answer", "It cannot be reached right now. Nothing has changed; please try again in a moment."}
	pageUnsettled = page{"You are not signed in", "The server could not finish your sign-in. Please sign in again in a moment."}
	pageTrouble   = page{"Please try again in a moment", "The server cannot decide on your sign-in right now. Nothing has changed."}

	pageDenied  = page{"You are not signed in", "%s did not let you in, or you have decided not to sign in."}
	pageThere   = page{"You are not signed in", "%s needs you to do something there first. Please sign in again."}
	pageBusy    = page{"%s does not answer", "It has too much to do or does not work right now. Please try again in a moment."}
	pageSetting = page{"You are not signed in", "%s does not know this application as it should. Whoever runs this server finds the reason in its log."}
)

// fault is what is answered to an error of a provider.
type fault struct {
	code   string
	status int
	page   page
	log    bool // an operator should know
}

// faults are the errors that a provider may answer with (RFC 6749, 4.1.2.1; OpenID Connect Core 1.0, 3.1.2.6; OpenID
// Connect Core Unmet Authentication Requirements 1.0).
var faults = func() map[string]fault {
	out := make(map[string]fault)
	for _, f := range []fault{
		{"access_denied", http.StatusForbidden, pageDenied, false},
		{"interaction_required", http.StatusForbidden, pageThere, false},
		{"login_required", http.StatusForbidden, pageThere, false},
		{"account_selection_required", http.StatusForbidden, pageThere, false},
		{"consent_required", http.StatusForbidden, pageThere, false},
		{"unmet_authentication_requirements", http.StatusForbidden, pageACR, false},
		{"server_error", http.StatusServiceUnavailable, pageBusy, true},
		{"temporarily_unavailable", http.StatusServiceUnavailable, pageBusy, true},
		{"invalid_request", http.StatusBadGateway, pageSetting, true},
		{"unauthorized_client", http.StatusBadGateway, pageSetting, true},
		{"unsupported_response_type", http.StatusBadGateway, pageSetting, true},
		{"invalid_scope", http.StatusBadGateway, pageSetting, true},
		{"request_not_supported", http.StatusBadGateway, pageSetting, true},
		{"registration_not_supported", http.StatusBadGateway, pageSetting, true},
	} {
		out[f.code] = f
	}
	return out
}()

// fault0 is for an error that is not known.
var fault0 = fault{"another error", http.StatusBadGateway, pageRefused, true}

// A Link is what a page offers to do.
type Link struct{ To, Text string }

func (u *Upstream) show(w http.ResponseWriter, status int, p page) {
	u.showLink(w, status, p, Link{})
}

// showLink shows a page, which depends on nothing but its arguments.
func (u *Upstream) showLink(w http.ResponseWriter, status int, p page, link Link) {
	var b bytes.Buffer
	err := pages.Execute(&b, struct {
		Style       template.CSS
		Title, Text string
		Link        Link
	}{template.CSS(pageCSS), p.title, p.text, link})
	if err != nil {
		panic("upstream: the page: " + err.Error()) // it does not depend on input
	}
	h := w.Header()
	noStore(h)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}

// noStore sets the headers of every answer here: it is for one browser and one moment, and its address for nobody else.
func noStore(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
}
