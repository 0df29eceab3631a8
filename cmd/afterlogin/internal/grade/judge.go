package grade

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// standing is what an answer of the page says about who asked.
type standing int

const (
	unclear standing = iota // an overload or an error: it says nothing
	out
	in
)

func (s standing) String() string { return [...]string{"unclear", "signed out", "signed in"}[s] }

// A judge tells from an answer of one page whether whoever asked is signed in.
type judge struct {
	page  *url.URL
	by    string // for the report
	marks func(*answer) bool
}

func (j *judge) standing(a *answer) standing {
	switch {
	case a.status >= 500 || a.status == http.StatusTooManyRequests:
		return unclear
	case a.status >= 200 && a.status < 300 && (j.marks == nil || j.marks(a)):
		return in
	}
	return out
}

// open signs in for the first time, and finds out what tells who is signed in, which credential does it, and how to sign
// out.
func (e *examination) open(ctx context.Context) error {
	if err := e.find(ctx); err != nil {
		return err
	}
	v := e.visitor()
	q, err := e.signInRequest(ctx, v)
	if err != nil {
		return err
	}
	e.submitted = len(v.trail)
	landed, err := e.submit(ctx, v, q)
	if err != nil {
		return err
	}
	trail := v.trail[min(e.submitted, len(v.trail)):]
	e.first = v
	if err := e.findPage(ctx, v, landed); err != nil {
		return err
	}
	seen, err := v.send(ctx, request{method: http.MethodGet, url: e.judge.page})
	if err != nil {
		return err
	}
	if err := e.findCredential(ctx, v); err != nil {
		return err
	}
	for i, a := range trail {
		set := slices.ContainsFunc(a.set, func(c setCookie) bool { return c.Name == e.cred.name })
		next := a.redirect()
		if e.cred.kind == kindCookie && set || e.cred.kind == kindBearer && i == 0 || e.cred.kind == kindQuery && next != nil && next.Query().Has(e.cred.name) {
			e.recipe.hops = i + 1
		}
	}
	if token, ok := e.token(v); ok {
		e.web.secrets.Add(token, mask(token))
	}
	e.findSignOut(seen, landed)
	e.report.Page, e.report.ToldBy = place(e.judge.page), e.judge.by
	return nil
}

// findPage looks for a page that tells who is signed in.
func (e *examination) findPage(ctx context.Context, v *visitor, landed *answer) error {
	at := landed.url
	if e.Page != "" {
		u, err := e.base.Parse(e.Page)
		if err != nil {
			return fmt.Errorf("%w: page: %.60q is not a path", ErrOption, e.Page)
		}
		at = u
	} else if e.recipe.target != nil {
		at = e.base // an API's answer to a sign-in is no page
	}
	if u := withoutTokens(at, v); u != at {
		// A token in the address would sign strangers in, or be sent along with every other token that is tried.
		if ok, _, err := e.tells(ctx, v, u); ok || err != nil {
			return err
		}
	}
	ok, seen, err := e.tells(ctx, v, at)
	if ok || err != nil {
		return err
	}
	if e.Page == "" && seen != nil {
		for _, u := range e.quietLinks(seen) {
			if ok, _, err := e.tells(ctx, v, u); ok || err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("%w on %s; name a page that only those who are signed in can see with page, or a text of it with expect", ErrTell, place(at))
}

// tells reports whether the page tells the visitor, who is signed in, from a stranger, and has the judge remember how.
func (e *examination) tells(ctx context.Context, v *visitor, at *url.URL) (bool, *answer, error) {
	seen, err := v.follow(ctx, request{method: http.MethodGet, url: at})
	if err != nil {
		return false, nil, err
	}
	if seen.status < 200 || seen.status > 299 {
		return false, nil, nil
	}
	// Not at, from which a redirect may have led here: the page is to answer by itself.
	stranger, err := e.visitor().send(ctx, request{method: http.MethodGet, url: seen.url})
	if err != nil {
		return false, nil, err
	}
	e.judge = judge{page: seen.url}
	mark := func(by string, has func(*answer) bool) bool {
		if !has(seen) || has(stranger) {
			return false
		}
		e.judge.by, e.judge.marks = by, has
		return true
	}
	contains := func(text string) func(*answer) bool {
		return func(a *answer) bool { return bytes.Contains(a.body, []byte(text)) }
	}
	if e.Expect != "" {
		return mark("the expected text is on the page", contains(e.Expect)), seen, nil
	}
	status := stranger.status
	if status >= 300 && status < 500 && status != http.StatusTooManyRequests {
		e.judge.by = fmt.Sprintf("strangers are answered %d", status)
		return true, seen, nil
	}
	if status >= 500 || status == http.StatusTooManyRequests {
		return false, seen, nil
	}
	signsOut := func(a *answer) bool {
		p := a.html()
		if p == nil {
			return false
		}
		f, l := p.signOut()
		return f != nil || l != nil
	}
	word := regexp.MustCompile(`(?i)(^|[^\pL\pN])` + regexp.QuoteMeta(e.User) + `($|[^\pL\pN])`)
	named := func(a *answer) bool { return word.Match(a.body) }
	asks := func(a *answer) bool { p := a.html(); return p != nil && !p.asksPassword() }
	return mark("the page offers to sign out", signsOut) || mark("the page has the user's name", named) ||
		mark("the page asks strangers for a password", asks), seen, nil
}

// risky links may do something when they are followed.
var risky = regexp.MustCompile(`(?i)delete|remove|cancel|unsub|revoke|confirm|buy|order|pay|download|\.(zip|pdf|exe|tar|gz|png|jpe?g|svg|css|js|ico)($|\?)`)

// quietLinks are links to other pages of the site that look as if following them did nothing.
func (e *examination) quietLinks(a *answer) (urls []*url.URL) {
	p := a.html()
	if p == nil {
		return nil
	}
	for _, l := range p.links {
		u, err := a.url.Parse(l.href)
		if err != nil || u.Host != a.url.Host || e.web.allowed(u) != nil || u.RawQuery != "" || signOutWords.MatchString(l.href+l.text) || risky.MatchString(l.href+l.text) {
			continue
		}
		u.Fragment = ""
		if u.Path != a.url.Path && !slices.ContainsFunc(urls, func(o *url.URL) bool { return o.Path == u.Path }) {
			if urls = append(urls, u); len(urls) == 15 {
				break
			}
		}
	}
	return urls
}

// ask asks for the page with exactly this Cookie header and bearer token, and keeps nothing of the answer.
func (e *examination) ask(ctx context.Context, cookie, bearer string) (standing, *answer, error) {
	return e.askAt(ctx, e.judge.page, cookie, bearer)
}

func (e *examination) askAt(ctx context.Context, u *url.URL, cookie, bearer string) (standing, *answer, error) {
	a, err := e.web.do(ctx, request{method: http.MethodGet, url: u, cookie: cookie, bearer: bearer})
	if err != nil {
		return unclear, nil, err
	}
	return e.judge.standing(a), a, nil
}

// with asks for the page as the visitor, but with this token in place of the visitor's own.
func (e *examination) with(ctx context.Context, v *visitor, token string) (standing, error) {
	s, _, err := e.withAnswer(ctx, v, token)
	return s, err
}

func (e *examination) withAnswer(ctx context.Context, v *visitor, token string) (standing, *answer, error) {
	switch e.cred.kind {
	case kindBearer:
		return e.ask(ctx, v.jar.header(e.judge.page), token)
	case kindQuery:
		u := *e.judge.page
		q := u.Query()
		q.Set(e.cred.name, token)
		u.RawQuery = q.Encode()
		return e.askAt(ctx, &u, v.jar.header(&u), "")
	}
	j := e.without(v)
	j.put(e.judge.page, e.cred.name, token)
	return e.ask(ctx, j.header(e.judge.page), "")
}

// without is the visitor's jar without the cookies that are enough to be signed in, whatever the token is.
func (e *examination) without(v *visitor) jar {
	j := v.jar.clone()
	for _, name := range e.cred.rivals {
		j.drop(name)
	}
	return j
}

// findCredential finds what makes the page see somebody who is signed in: the cookie of the name that was given, a
// cookie that is enough alone, a bearer token, or a parameter of the address.
func (e *examination) findCredential(ctx context.Context, v *visitor) error {
	page := e.judge.page
	names := v.jar.names(page)
	if e.CookieName != "" {
		if !slices.Contains(names, e.CookieName) {
			return fmt.Errorf("%w: no cookie %.60q came with it; there are: %s", ErrSignIn, e.CookieName, printable(clip(strings.Join(names, ", "), 300)))
		}
		e.cred = credential{kind: kindCookie, name: e.CookieName}
	}
	for _, name := range names {
		value, _ := v.jar.value(page, name)
		s, _, err := e.ask(ctx, name+"="+value, "")
		if err != nil {
			return err
		}
		if s != in || name == e.CookieName {
			continue
		}
		if e.cred.kind == "" {
			e.cred = credential{kind: kindCookie, name: name}
		} else {
			e.cred.rivals = append(e.cred.rivals, name)
			e.report.Notes = append(e.report.Notes, "the cookie "+clip(printable(name), 60)+" is enough to be signed in, too; examine it with --cookie-name")
		}
	}
	if e.cred.kind != "" {
		j := e.without(v)
		j.drop(e.cred.name)
		if s, _, err := e.ask(ctx, j.header(page), ""); err != nil || s == out {
			return err
		}
		return fmt.Errorf("%w: without the %s the page is the same", ErrSignIn, e.cred)
	}
	if v.bearer != "" && !e.trusts(page) {
		e.report.Notes = append(e.report.Notes, "the token of the sign-in was not sent to "+place(page)+", which is another origin")
	} else if v.bearer != "" {
		if s, _, err := e.ask(ctx, "", v.bearer); err != nil {
			return err
		} else if s == in {
			e.cred = credential{kind: kindBearer}
			return nil
		}
	}
	// Several cookies together: the one that tells most is looked at, and the others go along.
	var needed []string
	for _, name := range names {
		j := v.jar.clone()
		j.drop(name)
		s, _, err := e.ask(ctx, j.header(page), "")
		if err != nil {
			return err
		}
		if s == out {
			needed = append(needed, name)
		}
	}
	if len(needed) > 0 {
		longest := slices.MaxFunc(needed, func(a, b string) int {
			x, _ := v.jar.value(page, a)
			y, _ := v.jar.value(page, b)
			return len(x) - len(y)
		})
		e.cred = credential{kind: kindCookie, name: longest}
		e.report.Notes = append(e.report.Notes, fmt.Sprintf("%d cookies are needed together; %s is looked at, being the longest", len(needed), clip(printable(longest), 60)))
		return nil
	}
	for name, values := range page.Query() {
		u := *page
		q := u.Query()
		q.Del(name)
		u.RawQuery = q.Encode()
		s, _, err := e.askAt(ctx, &u, v.jar.header(&u), "")
		if err != nil {
			return err
		}
		if s == out && len(values) == 1 {
			e.cred = credential{kind: kindQuery, name: name}
			e.judge.page = &u
			return nil
		}
	}
	return fmt.Errorf("%w: no cookie, bearer token or parameter of the address makes %s see who is signed in", ErrSignIn, place(page))
}

// withoutTokens is the address without parameters whose value is that of a cookie; the address itself if it has none.
func withoutTokens(at *url.URL, v *visitor) *url.URL {
	q, changed := at.Query(), false
	for name, values := range q {
		for i := range v.jar.cookies {
			if value := v.jar.cookies[i].Value; len(value) >= 4 && slices.Contains(values, value) {
				q.Del(name)
				changed = true
			}
		}
	}
	if !changed {
		return at
	}
	u := *at
	u.RawQuery = q.Encode()
	return &u
}
