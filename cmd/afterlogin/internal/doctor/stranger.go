package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/grade"
)

// strangers looks at what is answered to somebody without a session: a browser, and a program.
func (e *examination) strangers(ctx context.Context) error {
	r := e.report
	a, err := e.ask(ctx, e.path, browser)
	if err != nil {
		return err
	}
	e.first = a
	to := e.leads(a)
	switch {
	case a.limited():
		r.doubt("locked", pathOnly(e.path)+" is answered 429")
		r.record("redirect", Skipped, "the page is answered 429")
	case a.good():
		r.record("locked", Fail, fmt.Sprintf("%s is answered %d without a session", pathOnly(e.path), a.status))
		r.record("redirect", Skipped, "the page is open")
	case a.failed():
		r.record("locked", Fail, fmt.Sprintf("%s is answered %d", pathOnly(e.path), a.status))
		r.record("redirect", Skipped, "the page is answered with an error")
	case e.signIn(to):
		e.locked = true
		r.record("locked", OK)
		back := to.Query().Get("return_to")
		switch {
		case back == "":
			r.record("redirect", Warn, "the way to the sign-in says nothing of where to come back to (return_to)")
		case back != e.path:
			r.record("redirect", Warn, "the way to the sign-in comes back to "+pathOnly(back)+" in place of "+pathOnly(e.path))
		default:
			r.record("redirect", OK, fmt.Sprintf("%d to %slogin", a.status, base))
		}
	case to != nil && strings.HasPrefix(to.Path, base+"login"):
		e.locked = true
		r.record("locked", OK)
		r.record("redirect", Fail, fmt.Sprintf("the browser is sent to %s, and the site is %s", origin(to), e.site))
	case to != nil:
		e.locked = true
		r.record("locked", OK, fmt.Sprintf("%d", a.status))
		r.record("redirect", Warn, "a redirect to "+origin(to)+pathOnly(to.EscapedPath())+", which is not "+base+"login; name a page that needs a sign-in with --path")
	case a.status == http.StatusUnauthorized:
		e.locked = true
		r.record("locked", OK)
		r.record("redirect", Fail, "a browser is answered 401, and gets no way to the sign-in")
	case a.status == http.StatusNotFound:
		r.record("locked", Skipped, pathOnly(e.path)+" is answered 404; name a page that is there with --path")
		r.record("redirect", Skipped, "there is no such page")
	default:
		e.locked = true
		r.record("locked", OK, fmt.Sprintf("%d", a.status))
		r.record("redirect", Fail, fmt.Sprintf("a browser is answered %d, and gets no way to the sign-in", a.status))
	}
	return e.challenge(ctx)
}

func origin(u *url.URL) string { return clip(printable(u.Scheme+"://"+u.Host), 100) }

// challenge asks as a program.
func (e *examination) challenge(ctx context.Context) error {
	r := e.report
	a, err := e.ask(ctx, e.path, program)
	if err != nil {
		return err
	}
	scheme, _, _ := strings.Cut(a.header.Get("WWW-Authenticate"), " ")
	switch {
	case a.good():
		e.locked = false
		r.record("locked", Fail, fmt.Sprintf("%s is answered %d without a session to a program", pathOnly(e.path), a.status))
		r.record("challenge", Skipped, "the page is open")
	case a.failed(), a.status == http.StatusNotFound:
		r.record("challenge", Skipped, fmt.Sprintf("answered %d", a.status))
	case a.status == http.StatusUnauthorized && strings.EqualFold(scheme, "Bearer"):
		r.record("challenge", OK)
	case a.status == http.StatusUnauthorized && scheme != "":
		r.record("challenge", Warn, "the challenge is not for Bearer (RFC 6750)")
	case a.status == http.StatusUnauthorized:
		r.record("challenge", Fail, "401 without WWW-Authenticate (RFC 9110, section 15.5.2)")
	case e.leads(a) != nil:
		r.record("challenge", Warn, "a program is sent to a sign-in page that it cannot use")
	default:
		r.record("challenge", Warn, fmt.Sprintf("answered %d", a.status))
	}
	return nil
}

// signInPage follows the way to the sign-in, and looks at the page.
func (e *examination) signInPage(ctx context.Context) error {
	r := e.report
	target, seen := e.path, map[string]bool{}
	var a *answer
	var err error
	for hop := 0; ; hop++ {
		seen[target] = true
		if a, err = e.ask(ctx, target, browser); err != nil {
			return err
		}
		to := e.leads(a)
		if to == nil || !e.same(to) {
			break
		}
		if hop == maxRedirects || seen[to.RequestURI()] {
			r.record("loop", Fail, fmt.Sprintf("after %d redirects it comes back to %s", hop+1, pathOnly(to.RequestURI())))
			return nil
		}
		target = to.RequestURI()
	}
	r.record("loop", OK, fmt.Sprintf("%d redirects", len(seen)-1))
	if !strings.HasPrefix(a.target, base) {
		if a, err = e.ask(ctx, base+"login?return_to="+url.QueryEscape(e.path), browser); err != nil {
			return err
		}
	}
	if !a.good() || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		r.record("sign-in-page", Fail, fmt.Sprintf("%s is answered %d, %s", pathOnly(a.target), a.status, clip(printable(a.header.Get("Content-Type")), 40)))
		return nil
	}
	e.login = a
	frame := strings.Contains(a.header.Get("Content-Security-Policy"), "frame-ancestors") || a.header.Get("X-Frame-Options") != ""
	if !noStore(a.header) {
		r.record("sign-in-page", Fail, "it may be kept (no Cache-Control: no-store), and with it what proves that its form is its own")
	}
	if !frame {
		r.record("sign-in-page", Fail, "other sites may show it in a frame (no frame-ancestors)")
	}
	if grade.SignInForm(a.body) == nil && !bytes.Contains(a.body, []byte(base+"oidc/")) {
		r.record("sign-in-page", Warn, "there is neither a form with a password on it, nor another way in")
	}
	r.record("sign-in-page", OK)
	for _, c := range a.cookies() {
		e.cookie(c)
	}
	return nil
}

func noStore(h http.Header) bool {
	return strings.Contains(strings.ToLower(strings.Join(h["Cache-Control"], ",")), "no-store")
}

// cookie looks at a cookie that afterlogin has set.
func (e *examination) cookie(c grade.Cookie) {
	r, name := e.report, clip(printable(c.Name), 60)
	if !c.Secure {
		r.record("cookie", Fail, name+" is not Secure")
	}
	if !c.HTTPOnly {
		r.record("cookie", Fail, name+" is not HttpOnly")
	}
	if c.SameSite != "lax" && c.SameSite != "strict" {
		r.record("cookie", Fail, name+" has no SameSite of Lax or Strict")
	}
	if c.Domain != "" {
		r.record("cookie", Fail, name+" has a Domain: every host below it gets it")
	}
	if !strings.HasPrefix(c.Name, "__Host-") {
		r.record("cookie", Warn, name+" lacks the prefix __Host-, with which no other host can plant it")
	} else if c.Path != "/" {
		r.record("cookie", Fail, name+" has another path than /, so that browsers drop it")
	}
	r.record("cookie", OK, name)
}

// What forged headers say; nothing has that by chance. Those that are afterlogin's say another thing than those that
// other programs set.
const (
	marker = "doctor-forged-0b51c7"
	alien  = "doctor-alien-93d2e8"
)

// identities are headers by which an application, or a proxy on the way, may let itself be told who somebody is: those of
// afterlogin, and those of other programs.
var (
	identities = []string{"X-Auth-Subject", "X-Auth-Session", "X-Auth-Kind", "X-Auth-Scopes", "X-Auth-Time", "X-Auth-Assertion", "X-Auth-Cookie", "X-Auth-Authorization"}
	aliens     = []string{"X-Auth-User", "X-Auth-Request-User", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Remote-User", "Remote-User", "X-Authenticated-User"}
)

// spellings are the ways in which one header can be written that some program takes for the same.
func spellings(name string) []string {
	under := strings.ReplaceAll(name, "-", "_")
	i := strings.LastIndexByte(name, '-')
	return []string{name, strings.ToLower(name), strings.ToUpper(name), under, strings.ToLower(under), strings.ToUpper(under), name[:i] + "_" + name[i+1:], strings.ReplaceAll(name, "-", ".")}
}

// forgeries are all identity headers in one spelling, so that there are few requests.
func forgeries(spelling int) []change {
	var list []change
	for _, name := range identities {
		list = append(list, header(spellings(name)[spelling], marker))
	}
	for _, name := range aliens {
		list = append(list, header(spellings(name)[spelling], alien+"-"+name))
	}
	return list
}

// A block is a run of questions of one check, to all of which a refusal is the right answer: so that no answer, or the same
// to everything, must not be taken for it.
type block struct {
	id                     string
	asked, silent, limited int
}

// count counts an answer, nil if there was none, and passes on what ends the examination. A proxy may close the connection
// on what it does not like.
func (b *block) count(ctx context.Context, a *answer, err error) error {
	b.asked++
	switch {
	case err != nil && (ctx.Err() != nil || errors.Is(err, ErrBudget)):
		return err
	case err != nil:
		b.silent++
	case a.limited():
		b.limited++
	}
	return nil
}

// settle records that nothing was found, unless that may be for want of answers: it asks for the page itself once more.
func (e *examination) settle(ctx context.Context, b *block, seen ...string) error {
	r := e.report
	a, err := e.ask(ctx, e.path, browser)
	switch {
	case err != nil && (ctx.Err() != nil || errors.Is(err, ErrBudget)):
		return err
	case err != nil:
		r.doubt(b.id, "by the end of it the page itself gets no answer any more")
	case !e.like(a, e.first):
		r.doubt(b.id, fmt.Sprintf("by the end of it the page itself is answered %d, and was %d at first: something keeps these questions out", a.status, e.first.status))
	case b.limited > 0:
		r.doubt(b.id, fmt.Sprintf("%d of %d answers are 429: something limits the requests", b.limited, b.asked))
	case 2*b.silent > b.asked:
		r.doubt(b.id, fmt.Sprintf("%d of %d requests got no answer", b.silent, b.asked))
	case b.silent > 0:
		r.record(b.id, OK, append(seen, fmt.Sprintf("%d of %d requests were refused without an answer", b.silent, b.asked))...)
	default:
		r.record(b.id, OK, seen...)
	}
	return nil
}

// passes asks for the page as a stranger with changes, in all ways that differ, and reports what got in.
func (e *examination) passes(ctx context.Context, b *block, what string, changes ...change) error {
	id := b.id
	for _, who := range []change{browser, program} {
		a, err := e.ask(ctx, e.path, append([]change{who}, changes...)...)
		if err := b.count(ctx, a, err); err != nil {
			return err
		}
		if a == nil {
			continue
		}
		if a.good() {
			e.report.record(id, Fail, what+fmt.Sprintf(": answered %d", a.status))
		} else if to := e.leads(a); to != nil && !e.same(to) && !strings.EqualFold(to.Host, e.site.Host) && e.report.result("redirect") == OK {
			e.report.record(id, Fail, what+": sent to "+origin(to))
		} else if to != nil && to.Scheme != e.site.Scheme && e.report.result("redirect") == OK {
			e.report.record(id, Fail, what+": sent to "+origin(to)+" in place of "+e.site.Scheme)
		} else if a.status >= 500 {
			e.report.record(id, Warn, what+fmt.Sprintf(": answered %d; refused, and by an error", a.status))
		}
	}
	return nil
}

// forgedIdentity sends headers that say who somebody is.
func (e *examination) forgedIdentity(ctx context.Context) error {
	if !e.locked {
		e.report.record("forged-identity", Skipped, "strangers get in anyway, or the page is not there")
		return nil
	}
	b := &block{id: "forged-identity"}
	names := []string{"as they are", "in small letters", "in capitals", "with underscores", "with underscores, in small letters", "with underscores, in capitals", "with one underscore", "with dots"}
	for i, name := range names {
		if err := e.passes(ctx, b, "all headers "+name, forgeries(i)...); err != nil {
			return err
		}
	}
	drop := strings.Join(identities[:6], ", ")
	for _, value := range []string{drop, "close, " + drop, "X-Forwarded-Uri, X-Forwarded-Host, X-Forwarded-Method, X-Forwarded-For, X-Forwarded-Proto"} {
		if err := e.passes(ctx, b, "Connection: with names of headers", append(forgeries(0), header("Connection", value))...); err != nil {
			return err
		}
	}
	// A bearer of nothing, a cookie of nobody.
	for name, value := range map[string]string{"Authorization": "Bearer " + marker, "X-Api-Key": marker, "Cookie": "__Host-Http-session_id=" + marker, "X-Real-Ip": "127.0.0.1"} {
		if err := e.passes(ctx, b, "a made-up "+name, header(name, value)); err != nil {
			return err
		}
	}
	return e.settle(ctx, b, fmt.Sprintf("%d headers in %d spellings", len(identities)+len(aliens), len(names)))
}

// forgedTarget sends headers that say that something else was asked for.
func (e *examination) forgedTarget(ctx context.Context) error {
	if !e.locked {
		e.report.record("forged-target", Skipped, "strangers get in anyway, or the page is not there")
		return nil
	}
	b := &block{id: "forged-target"}
	for _, h := range [][2]string{
		{"X-Forwarded-Uri", base + "login"}, {"X-Forwarded-Uri", "/robots.txt"}, {"X-Forwarded-Uri", "/favicon.ico"}, {"X_Forwarded_Uri", base + "login"},
		{"X-Forwarded-Method", "OPTIONS"}, {"X-Forwarded-Host", "forged.invalid"}, {"X_Forwarded_Host", "forged.invalid"}, {"X-Forwarded-Proto", other(e.site.Scheme)},
		{"X-Forwarded-Prefix", base}, {"X-Forwarded-Port", "1"}, {"X-Forwarded-For", "127.0.0.1"},
		{"X-Original-Url", base + "login"}, {"X-Original-Uri", base + "login"}, {"X-Rewrite-Url", base + "login"}, {"X-Original-Method", "OPTIONS"},
		{"Forwarded", "for=127.0.0.1;host=forged.invalid;proto=" + other(e.site.Scheme)}, {"X-Http-Method-Override", "OPTIONS"}, {"X-Original-Host", "forged.invalid"},
	} {
		if err := e.passes(ctx, b, h[0]+": "+h[1], header(h[0], h[1])); err != nil {
			return err
		}
	}
	for _, m := range []string{http.MethodHead, http.MethodOptions} {
		a, err := e.ask(ctx, e.path, program, method(m))
		if err := b.count(ctx, a, err); err != nil {
			return err
		}
		if a == nil {
			continue
		}
		if a.good() && m == http.MethodHead {
			e.report.record("forged-target", Fail, fmt.Sprintf("HEAD is answered %d", a.status))
		} else if a.good() {
			e.report.record("forged-target", Warn, fmt.Sprintf("%s is answered %d: the application, or the proxy, answers strangers by it", m, a.status))
		}
	}
	return e.settle(ctx, b)
}

func other(scheme string) string {
	if scheme == "https" {
		return "http"
	}
	return "https"
}

// paths asks for the page in spellings that a proxy, afterlogin and an application may read in different ways.
func (e *examination) paths(ctx context.Context) error {
	if !e.locked {
		e.report.record("paths", Skipped, "strangers get in anyway, or the page is not there")
		return nil
	}
	p, query, _ := strings.Cut(e.path, "?")
	if query != "" {
		query = "?" + query
	}
	rest := strings.TrimPrefix(p, "/")
	encoded := "/"
	if rest != "" {
		encoded = fmt.Sprintf("/%%%02X%s", rest[0], rest[1:])
	}
	list := []string{
		"/" + p, "/." + p, "/x/.." + p, "/x/%2e%2e" + p, "/x%2f.." + p, "/x/..%2f" + rest, "/%2e" + p, "/%2f" + rest, "/%5c" + rest, encoded,
		p + "/", p + "/.", p + "//", p + ";x=.css", p + "%00", p + "%20", p + "/x.css", p + "%3f.css", p + "%23",
		base + ".." + p, base + "..%2f" + rest, base + "login/../.." + p, base + "login/..%2f..%2f" + rest, base + "login%2f..%2f..%2f" + rest, base + "%2e%2e" + p,
		base + "login;/../.." + p, "/robots.txt/.." + p, "/favicon.ico%2f.." + p, "/public/..%2f" + rest,
	}
	b := &block{id: "paths"}
	for _, target := range list {
		a, err := e.ask(ctx, target+query, browser)
		if err := b.count(ctx, a, err); err != nil {
			return err
		}
		if a == nil {
			continue
		}
		switch {
		case a.good() && e.login != nil && grade.SignInForm(e.login.body) != nil && grade.SignInForm(a.body) != nil:
			// The sign-in page, by another name.
		case a.good():
			e.report.record("paths", Fail, fmt.Sprintf("%s is answered %d", clip(printable(target), 100), a.status))
		case a.status >= 500:
			e.report.record("paths", Warn, fmt.Sprintf("%s is answered %d; refused, and by an error", clip(printable(target), 100), a.status))
		}
	}
	return e.settle(ctx, b, fmt.Sprintf("%d spellings", len(list)))
}

// hidden asks for what is not for everybody, and compares with a path that nothing has.
func (e *examination) hidden(ctx context.Context) error {
	nothing, err := e.ask(ctx, "/doctor-"+marker, browser)
	if err != nil {
		return err
	}
	b := &block{id: "hidden"}
	b.count(ctx, nothing, nil)
	for _, target := range []string{"/forward-auth", "/forward-auth/nginx", "/forward-auth/traefik", "/forward-auth/answer", "/forward-auth/envoy" + pathOnly(e.path), "/metrics", "/v1/sessions", "/openapi.json", "/readyz", "/livez"} {
		a, err := e.ask(ctx, target, browser)
		if err != nil {
			return err
		}
		b.count(ctx, a, nil)
		switch {
		case a.limited():
		case ours(a):
			e.report.record("hidden", Fail, target+" is afterlogin's, and answers everybody")
		case e.like(a, nothing):
		case a.good() && nothing.good():
		case strings.HasPrefix(target, "/forward-auth") && (a.good() || a.status == 400 || a.status == 401):
			e.report.record("hidden", Fail, fmt.Sprintf("%s is answered %d, and a path that nothing has %d", target, a.status, nothing.status))
		case a.failed():
			e.report.record("hidden", Warn, fmt.Sprintf("%s is answered %d", target, a.status))
		default:
			e.report.record("hidden", Warn, fmt.Sprintf("%s is answered %d, and a path that nothing has %d: is it the application's?", target, a.status, nothing.status))
		}
	}
	for _, target := range []string{"forward-auth", "ask", "metrics", "v1/sessions", "readyz"} {
		a, err := e.ask(ctx, base+target, browser)
		if err != nil {
			return err
		}
		b.count(ctx, a, nil)
		if ours(a) || a.good() {
			e.report.record("hidden", Fail, fmt.Sprintf("%s is answered %d", base+target, a.status))
		}
	}
	return e.settle(ctx, b)
}

// ours reports whether the answer is one of afterlogin's own that only the inside should get.
func ours(a *answer) bool {
	for name := range a.header {
		if strings.HasPrefix(name, "X-Auth-") {
			return true
		}
	}
	for _, text := range []string{"# HELP ", "\"openapi\":\"3.1", "{\"status\":\"ready\"}", "afterlogin_"} {
		if a.good() && bytes.Contains(a.body, []byte(text)) {
			return true
		}
	}
	return a.status == http.StatusUnauthorized && strings.Contains(a.header.Get("Content-Type"), "application/problem+json") && strings.Contains(a.target, "/v1/")
}
