package doctor

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/site"
)

// Results of a check, the worst first.
const (
	Fail    = "fail"
	Warn    = "warn"
	Skipped = "not judged" // seen says why
	OK      = "ok"
)

// A Check is one thing that was looked at.
type Check struct {
	ID     string   `json:"id"`
	Title  string   `json:"title"` // what should hold
	Result string   `json:"result"`
	Seen   []string `json:"seen"` // never with a secret in it
	Remedy string   `json:"remedy"`
}

// A Report is what an examination found. Its JSON form is documented in docs/doctor.md; Version changes when that does.
type Report struct {
	Version  int       `json:"version"`
	URL      string    `json:"url"`
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished"`
	Requests int       `json:"requests"`
	Verdict  string    `json:"verdict"`           // the worst result: ok, warn or fail; at least warn if the site stopped answering as it did
	Stopped  string    `json:"stopped,omitempty"` // why the examination ended early; the verdict is at least warn then
	Checks   []Check   `json:"checks"`

	doubtful bool
}

// kinds are the checks, in the order of the report: what should hold, and what to do if it does not.
var kinds = []struct{ id, title, remedy string }{
	{"reach", "the site answers", "Look whether the proxy, the application and afterlogin run: afterlogin's log says why it is not ready, the proxy's why it answers 5xx."},
	{"certificate", "the certificate is good", "Renew the certificate, for this host, with the chain that leads to an authority that browsers know."},
	{"tls", "only TLS 1.2 and newer", "Turn TLS 1.0 and 1.1 off in the proxy."},
	{"plain-http", "plain HTTP leads to HTTPS, and to nothing else", "Answer everything on port 80 with a redirect to https, or close it."},
	{"hsts", "browsers are told to stay with HTTPS", "Send Strict-Transport-Security: max-age=31536000 with every answer over HTTPS, once all of the host works over HTTPS."},
	{"locked", "strangers do not get in", "Let the proxy ask afterlogin before every request; \"afterlogin snippet\" prints how. If the page is meant to be public, name one with --path that is not."},
	{"redirect", "a browser is sent to the sign-in, and back to where it was", "Give the whole answer of afterlogin to the browser, with Location. With nginx that takes error_page and /forward-auth/answer, as \"afterlogin snippet nginx\" has it."},
	{"challenge", "a program gets 401 with a challenge", "Give the answer of afterlogin to the caller whole, with WWW-Authenticate; with nginx by error_page and /forward-auth/answer."},
	{"loop", "the way to the sign-in ends", "Send everything below /.afterlogin/ to afterlogin without asking it first, with the prefix; and keep X-Forwarded-Proto and -Host as the browser sees them."},
	{"sign-in-page", "the sign-in page is there, is not kept, and stands in no frame", "Send everything below /.afterlogin/ to afterlogin unchanged, and let the proxy leave its headers alone."},
	{"forged-identity", "forged headers of who somebody is get nobody in", "Let the proxy set or delete every X-Auth- header itself, whatever the client sent, also in the spelling with underscores."},
	{"forged-target", "forged headers of what is asked for get nobody in, and lead nowhere else", "Let the proxy set X-Forwarded-Method, -Proto, -Host, -Uri and -For itself, in place of the client's, and delete Forwarded, X-Original-URL and X-Rewrite-URL."},
	{"paths", "odd spellings of the path get nobody in", "Give afterlogin the path exactly as the client sent it ($request_uri with nginx), and refuse what the proxy and the application could read in two ways."},
	{"hidden", "what only proxies and operators may ask is not there for everybody", "Send nothing but /.afterlogin/ of the host to afterlogin; /forward-auth, /metrics, /v1 and the like are for the inside."},
	{"clock", "the clocks agree", "Let the machines set their clocks by NTP: tokens end, and assertions are good for 60 s, by the clock."},
	{"member", "somebody who is signed in gets the page", "Look into the application's log; if it answers 401 or 403 itself, it may not know X-Auth-Subject. If the sign-in was refused, check the name and the password."},
	{"cookie", "the session's cookie is as it should be", "Let the proxy leave Set-Cookie alone (no rewriting of domain, path or flags)."},
	{"cache", "pages for somebody who is signed in are not kept by caches", "Send Cache-Control: no-store or private with them, from the application or the proxy, and switch the proxy's own cache off for them."},
	{"inside-headers", "answers do not tell who it is, and carry no assertion", "X-Auth- headers are for the application: have the proxy copy them to its request, and not to the answer."},
	{"two-cookies", "two cookies of the session's name are refused", "Give afterlogin the Cookie header as the client sent it."},
	{"echo", "the application gets afterlogin's headers, none of the client's, and no session cookie", "Set and delete the headers as \"afterlogin snippet\" prints them; for the cookie, give the application X-Auth-Cookie as Cookie."},
	{"ready", "afterlogin is ready", "afterlogin's log says why it is not."},
}

// record adds a result. The worst of several counts; what was seen is kept for as bad a result.
func (r *Report) record(id, result string, seen ...string) {
	at := slices.IndexFunc(kinds, func(k struct{ id, title, remedy string }) bool { return k.id == id })
	if seen == nil {
		seen = []string{}
	}
	c := Check{ID: id, Title: kinds[at].title, Result: result, Seen: seen, Remedy: kinds[at].remedy}
	bad := func(result string) int { return -slices.Index([]string{Fail, Warn, Skipped, OK}, result) }
	i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.ID == id })
	switch {
	case i < 0:
		r.Checks = append(r.Checks, c)
	case bad(result) > bad(r.Checks[i].Result):
		r.Checks[i] = c
	case result == r.Checks[i].Result:
		for _, s := range seen {
			if len(r.Checks[i].Seen) < 20 && !slices.Contains(r.Checks[i].Seen, s) {
				r.Checks[i].Seen = append(r.Checks[i].Seen, s)
			}
		}
	}
}

// doubt records that a check is not judged, since the site has stopped answering as it did at first: a verdict of ok would
// say more than was seen.
func (r *Report) doubt(id, seen string) {
	r.doubtful = true
	r.record(id, Skipped, seen)
}

// result is that of a check so far; empty: there is none.
func (r *Report) result(id string) string {
	for _, c := range r.Checks {
		if c.ID == id {
			return c.Result
		}
	}
	return ""
}

func (r *Report) finish(e *examination) {
	r.Finished, r.Requests = e.Now().UTC(), e.made
	order := func(id string) int {
		return slices.IndexFunc(kinds, func(k struct{ id, title, remedy string }) bool { return k.id == id })
	}
	slices.SortFunc(r.Checks, func(a, b Check) int { return order(a.ID) - order(b.ID) })
	r.Verdict = OK
	for _, c := range r.Checks {
		if c.Result == Fail || c.Result == Warn && r.Verdict == OK {
			r.Verdict = c.Result
		}
	}
	if (r.Stopped != "" || r.doubtful) && r.Verdict == OK {
		r.Verdict = Warn
	}
	r.URL = e.secrets.Clean(r.URL)[0]
	for i := range r.Checks {
		r.Checks[i].Seen = e.secrets.Clean(r.Checks[i].Seen...)
		for j, s := range r.Checks[i].Seen {
			r.Checks[i].Seen[j] = site.Lines(s)
		}
	}
}

// Worst reports whether the verdict is as bad as this, or worse. Nothing is as bad as "none".
func (r *Report) Worst(result string) bool {
	return result == Fail && r.Verdict == Fail || result == Warn && r.Verdict != OK
}

// Text writes the report for people, the worst first.
func (r *Report) Text(out io.Writer) error {
	const indent = 23
	margin := strings.Repeat(" ", indent)
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s (%d requests, %v)\n", r.URL, r.Verdict, r.Requests, r.Finished.Sub(r.Started).Round(100*time.Millisecond))
	if r.Stopped != "" {
		fmt.Fprintf(&b, "The examination ended early: %s\n", r.Stopped)
	}
	for _, result := range []string{Fail, Warn, Skipped, OK} {
		for _, c := range r.Checks {
			if c.Result != result {
				continue
			}
			label := map[string]string{Fail: "FAIL", Warn: "warn", Skipped: "-", OK: "ok"}[result]
			line := c.Title
			if result == Fail || result == Warn {
				line += ": not so"
			}
			site.Wrap(&b, fmt.Sprintf("%-5s %-16s ", label, c.ID), indent, line)
			if len(c.Seen) > 0 {
				site.Wrap(&b, margin, indent, strings.Join(c.Seen, "; "))
			}
			if result == Fail || result == Warn {
				site.Wrap(&b, margin, indent, "→ "+c.Remedy)
			}
		}
	}
	_, err := io.WriteString(out, site.Lines(b.String()))
	return err
}
