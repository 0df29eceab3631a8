package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/grade"
)

// member looks at what is answered to somebody who is signed in.
func (e *examination) member(ctx context.Context) error {
	r := e.report
	if r.result("member") == Skipped {
		return nil
	}
	if e.User == "" && e.Cookies == "" {
		for _, id := range []string{"member", "cache", "inside-headers", "two-cookies"} {
			r.record(id, Skipped, "there is nobody to sign in as: --user with a password, or --cookie-file")
		}
		if e.Echo != "" {
			r.record("echo", Skipped, "there is nobody to sign in as")
		}
		return nil
	}
	if e.site.Scheme == "http" && !e.local() {
		r.record("member", Skipped, "nothing secret is sent over plain HTTP")
		return nil
	}
	cookies := e.Cookies
	if e.User != "" {
		ok, err := e.enter(ctx)
		if err != nil || !ok {
			return err
		}
		cookies = e.cookieHeader()
		defer e.leave(ctx)
	}
	a, err := e.ask(ctx, e.path, browser, e.as(cookies))
	if err != nil {
		return err
	}
	if a.limited() {
		r.doubt("member", "the page is answered 429")
		return nil
	}
	if to := e.leads(a); e.same(to) && strings.HasPrefix(to.Path, base+"renew") {
		r.record("member", Skipped, "the session is due for renewal: sign in anew, or open the site once before copying the cookie")
		return nil
	}
	if !a.good() {
		what := fmt.Sprintf("%s is answered %d", pathOnly(e.path), a.status)
		if to := e.leads(a); to != nil {
			what += ", to " + origin(to) + pathOnly(to.EscapedPath())
		}
		r.record("member", Fail, what)
		return nil
	}
	r.record("member", OK, fmt.Sprintf("%d", a.status))
	e.answersOfMembers(a)
	if err := e.twice(ctx, cookies); err != nil {
		return err
	}
	return e.echo(ctx, cookies)
}

// enter signs in on the sign-in page.
func (e *examination) enter(ctx context.Context) (bool, error) {
	r := e.report
	if e.login == nil {
		r.record("member", Skipped, "there is no sign-in page")
		return false, nil
	}
	form := grade.SignInForm(e.login.body)
	if form == nil || form.Method != "POST" {
		r.record("member", Skipped, "the sign-in page has no form for a name and a password; give a cookie with --cookie-file")
		return false, nil
	}
	at, err := e.site.Parse(e.login.target)
	if err != nil {
		return false, err
	}
	to, err := at.Parse(form.Action)
	if err != nil || !e.same(to) {
		r.record("member", Fail, "the form of the sign-in page leads to another site; nothing was sent there")
		return false, nil
	}
	e.jar = make(map[string]string)
	e.keep(e.login)
	form.Values.Set(form.User, e.User)
	form.Values.Set(form.Password, e.Password)
	a, err := e.askAt(ctx, e.client, e.site, to.RequestURI(), form.Values, browser, e.as(e.cookieHeader()))
	if err != nil {
		return false, err
	}
	e.keep(a)
	if a.limited() {
		r.doubt("member", "the sign-in is answered 429")
		return false, nil
	}
	if lead := e.leads(a); a.status != 303 && a.status != 302 || lead == nil || strings.HasPrefix(lead.Path, base+"login") {
		r.record("member", Fail, fmt.Sprintf("the sign-in is answered %d", a.status))
		return false, nil
	} else if !e.same(lead) {
		r.record("member", Fail, "the sign-in leads to "+origin(lead)+", and the site is "+e.site.String())
	}
	set := a.cookies()
	if len(set) == 0 {
		r.record("cookie", Fail, "the sign-in sets no cookie, or the proxy takes it away")
	}
	for _, c := range set {
		if !c.HasMaxAge || c.MaxAge > 0 {
			e.cookie(c)
		}
	}
	return true, nil
}

// keep takes the cookies of an answer.
func (e *examination) keep(a *answer) {
	for _, c := range a.cookies() {
		if c.HasMaxAge && c.MaxAge <= 0 || c.Value == "" {
			delete(e.jar, c.Name)
		} else {
			e.jar[c.Name] = c.Value
			e.secret(c.Value)
		}
	}
}

// leave signs out again, so that nothing is left behind, also when the examination was broken off, and within 5 seconds.
// What goes wrong by then is nobody's trouble: the session ends by itself.
func (e *examination) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	e.leaving = true
	defer func() { e.leaving = false }()
	a, err := e.ask(ctx, base+"logout", browser, e.as(e.cookieHeader()))
	if err != nil {
		return
	}
	if form := grade.SignOutForm(a.body); form != nil {
		if at, err := e.site.Parse(base + "logout"); err == nil {
			if to, err := at.Parse(form.Action); err == nil && e.same(to) {
				e.askAt(ctx, e.client, e.site, to.RequestURI(), form.Values, browser, e.as(e.cookieHeader()))
			}
		}
	}
}

// answersOfMembers looks at an answer that depends on who is signed in.
func (e *examination) answersOfMembers(a *answer) {
	r := e.report
	control := strings.ToLower(strings.Join(a.header["Cache-Control"], ","))
	has := func(word string) bool { return strings.Contains(control, word) }
	switch {
	case has("no-store"), has("private"):
		r.record("cache", OK, clip(printable(control), 60))
	case has("public"), has("s-maxage"), has("max-age") && !has("max-age=0"):
		r.record("cache", Fail, "Cache-Control: "+clip(printable(control), 60))
	default:
		r.record("cache", Warn, "no Cache-Control that keeps caches from keeping it")
	}
	for _, name := range []string{"X-Cache", "X-Cache-Status", "Cf-Cache-Status", "X-Proxy-Cache"} {
		if strings.Contains(strings.ToUpper(a.header.Get(name)), "HIT") {
			r.record("cache", Fail, "it came out of a cache ("+name+")")
		}
	}
	for name := range a.header {
		if strings.HasPrefix(name, "X-Auth-") {
			result := Warn
			if name == "X-Auth-Assertion" || name == "X-Auth-Cookie" || name == "X-Auth-Authorization" {
				result = Fail
			}
			r.record("inside-headers", result, "the answer to the browser has "+name)
		}
	}
	r.record("inside-headers", OK)
}

// session is the name of the cookie that alone is enough to be signed in; empty: none is.
func (e *examination) session(ctx context.Context, cookies string) (name, value string, err error) {
	for pair := range strings.SplitSeq(cookies, "; ") {
		name, value, _ := strings.Cut(pair, "=")
		a, err := e.ask(ctx, e.path, browser, e.as(pair))
		if err != nil {
			return "", "", err
		}
		if a.good() {
			return name, value, nil
		}
	}
	return "", "", nil
}

// twice sends the session's cookie with another of its name.
func (e *examination) twice(ctx context.Context, cookies string) error {
	if !e.locked {
		e.report.record("two-cookies", Skipped, "the page needs no sign-in")
		return nil
	}
	name, value, err := e.session(ctx, cookies)
	if err != nil {
		return err
	}
	if name == "" {
		e.report.record("two-cookies", Skipped, "no cookie alone is enough to be signed in")
		return nil
	}
	good, bad := name+"="+value, name+"="+marker
	for what, header := range map[string]string{"the first of two wins": good + "; " + bad, "the last of two wins": bad + "; " + good} {
		a, err := e.ask(ctx, e.path, browser, e.as(header))
		if err != nil {
			return err
		}
		if a.good() {
			e.report.record("two-cookies", Warn, what)
		}
	}
	e.report.record("two-cookies", OK)
	return nil
}

// subjectHeader matches the header in what applications print of their headers, as text, JSON or variables.
var subjectHeader = regexp.MustCompile(`(?i)x[-_]auth[-_]subject["'\]]*\s*[:=]`)

// echo sends forged headers as somebody who is signed in, to a page that answers with what reached it.
func (e *examination) echo(ctx context.Context, cookies string) error {
	r := e.report
	if e.Echo == "" {
		r.record("echo", Skipped, "no page of the application that answers with the headers of the request was named (--echo)")
		return nil
	}
	plain, err := e.ask(ctx, e.Echo, program, e.as(cookies), header("X-Doctor", "here-"+marker))
	if err != nil {
		return err
	}
	if !plain.good() || !bytes.Contains(plain.body, []byte("here-"+marker)) {
		r.record("echo", Skipped, fmt.Sprintf("%s is answered %d and does not echo a header", pathOnly(e.Echo), plain.status))
		return nil
	}
	if !subjectHeader.Match(plain.body) {
		r.record("echo", Fail, "X-Auth-Subject does not reach the application")
	}
	if !bytes.Contains(plain.body, []byte("eyJ")) {
		r.record("echo", Warn, "no assertion reaches the application; it has to believe that nobody but the proxy reaches it")
	}
	for pair := range strings.SplitSeq(cookies, "; ") {
		if name, value, _ := strings.Cut(pair, "="); len(value) >= 16 && echoed(plain.body, value) {
			r.record("echo", Fail, "the cookie "+clip(printable(name), 60)+" reaches the application, which could be made to leak it")
		}
	}
	for i := range spellings("X-Auth-Subject") {
		sent := forgeries(i)
		for _, extra := range [][]change{nil, {header("Connection", "close, X-Auth-Subject, X-Auth-Assertion, X-Auth-Kind")}} {
			a, err := e.ask(ctx, e.Echo, append(append([]change{program, e.as(cookies)}, sent...), extra...)...)
			if err != nil {
				if ctx.Err() != nil || errors.Is(err, ErrBudget) {
					return err
				}
				continue
			}
			if a.good() && echoed(a.body, marker) {
				r.record("echo", Fail, "forged headers reach the application, spelt as in "+spellings("X-Auth-Subject")[i])
			}
			if i < 3 && a.good() { // with underscores many proxies pass them on, and hardly anybody believes them
				for _, name := range aliens {
					if echoed(a.body, alien+"-"+name) {
						r.record("echo", Warn, name+" reaches the application from the client; one that believes it is told by the client who it is")
					}
				}
			}
			if a.good() && extra != nil && subjectHeader.Match(plain.body) && !subjectHeader.Match(a.body) {
				r.record("echo", Fail, "Connection: X-Auth-Subject takes away what the proxy has set")
			}
		}
	}
	r.record("echo", OK)
	return nil
}

// echoed reports whether the body has the text, as it is or escaped.
func echoed(body []byte, text string) bool {
	return bytes.Contains(body, []byte(text)) || bytes.Contains(body, []byte(url.QueryEscape(text)))
}
