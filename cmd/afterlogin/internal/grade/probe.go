package grade

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// examineSignIn looks at what happens to tokens from before the sign-in.
func (e *examination) examineSignIn(ctx context.Context) error {
	if e.cred.kind == kindCookie {
		if err := e.fixation(ctx); err != nil {
			return err
		}
		if err := e.adoption(ctx); err != nil {
			return err
		}
	}
	return e.again(ctx)
}

// fixation signs in with the cookie that the site gave to a stranger.
func (e *examination) fixation(ctx context.Context) error {
	v := e.visitor()
	q, err := e.signInRequest(ctx, v)
	if err != nil {
		return err
	}
	before, had := v.jar.value(e.judge.page, e.cred.name)
	if !had {
		// Perhaps another page gives strangers a token.
		if _, err := v.follow(ctx, request{method: http.MethodGet, url: e.base}); err != nil {
			return err
		}
		if before, had = v.jar.value(e.judge.page, e.cred.name); had {
			if q, err = e.signInRequest(ctx, v); err != nil {
				return err
			}
			before, had = v.jar.value(e.judge.page, e.cred.name)
		}
	}
	if !had {
		e.report.ok("fixation", "strangers are given no token that could be kept")
		return nil
	}
	if _, err := e.submit(ctx, v, q); err != nil {
		return err
	}
	after, _ := e.token(v)
	switch s, err := e.with(ctx, v, before); {
	case err != nil:
		return err
	case before == after && s == in:
		e.report.found("fixation", "", "the token is the one from before the sign-in")
	case s == in:
		e.report.found("fixation", "", "a new token comes, and the one from before the sign-in is signed in, too")
	case s == unclear:
		e.report.unknown("fixation", "the page answered with an error")
	default:
		e.report.ok("fixation", "the token from before the sign-in is not signed in")
	}
	return nil
}

// adoption signs in with a token that the site has never given out, of the form that its own have: sent from the first
// request on, and put in place of what the site gave at the last moment, which is what an attacker in the page would do.
func (e *examination) adoption(ctx context.Context) error {
	if e.tiny("fixation-adopted") {
		return nil
	}
	planted := stranger(e.tokens[0])
	seen := "a made-up token that was sent along is refused afterwards"
	for _, late := range []bool{false, true} {
		v := e.visitor()
		v.jar.put(e.judge.page, e.cred.name, planted)
		q, err := e.signInRequest(ctx, v)
		if late {
			v.jar.put(e.judge.page, e.cred.name, planted)
		}
		if err == nil {
			_, err = e.submit(ctx, v, q)
		}
		if errors.Is(err, ErrSignIn) {
			seen = "a sign-in with a made-up token is refused"
			continue
		}
		if err != nil {
			return err
		}
		switch s, err := e.with(ctx, v, planted); {
		case err != nil:
			return err
		case s == in:
			e.report.found("fixation-adopted", "", "a made-up token that was sent along with the sign-in is signed in afterwards")
			return nil
		case s == unclear:
			e.report.unknown("fixation-adopted", "the page answered with an error")
			return nil
		}
	}
	e.report.ok("fixation-adopted", seen)
	return nil
}

// tiny reports whether tokens are so short that one which is made up may be somebody's, and records that for the check.
func (e *examination) tiny(id string) bool {
	if len(e.tokens[0]) >= shortest {
		return false
	}
	e.report.unknown(id, "tokens are so short that a made-up one may be somebody's; none was sent")
	return true
}

// stranger makes a token of the same form that nobody has: every letter and digit is replaced by another of its kind,
// which a fixed step does well enough, since nothing depends on its being random.
func stranger(token string) string {
	step := func(c, first, n byte, by int) byte { return first + byte((int(c-first)+by)%int(n)) }
	b := []byte(token)
	for i, c := range b {
		switch by := 1 + i%5; {
		case c >= '0' && c <= '9':
			b[i] = step(c, '0', 10, by)
		case c >= 'a' && c <= 'f':
			b[i] = step(c, 'a', 6, by)
		case c >= 'g' && c <= 'z':
			b[i] = step(c, 'g', 20, by)
		case c >= 'A' && c <= 'F':
			b[i] = step(c, 'A', 6, by)
		case c >= 'G' && c <= 'Z':
			b[i] = step(c, 'G', 20, by)
		}
	}
	return string(b)
}

// again signs in a second time with the same browser.
func (e *examination) again(ctx context.Context) error {
	v, first, err := e.fresh(ctx)
	if err != nil {
		return err
	}
	var second string
	for range 2 {
		q, err := e.secondRequest(ctx, v)
		if err == nil {
			first, _ = e.token(v) // looking at pages may have renewed it
			_, err = e.submit(ctx, v, q)
		}
		if errors.Is(err, ErrSignIn) {
			e.report.info("sign-in-again", "somebody who is signed in cannot sign in again by this form")
			return nil
		}
		if err != nil {
			return err
		}
		if second, _ = e.token(v); first != second || parseJWT(first) == nil {
			break
		}
		// JWTs of one second are often the same, their iat and exp being all that tells them apart.
		if err := pause(ctx, 1100*time.Millisecond); err != nil {
			return err
		}
	}
	if first == second {
		if e.analysis != nil && e.analysis.Repeats > 0 {
			e.report.unknown("sign-in-again", "tokens come again anyway: see token-repeats")
		} else {
			e.report.found("sign-in-again", "", "the token stays the same")
		}
		return nil
	}
	switch s, err := e.with(ctx, v, first); {
	case err != nil:
		return err
	case e.cred.kind == kindBearer: // there is nothing of the browser's that the second sign-in could end
		e.report.ok("sign-in-again", "a new token comes")
	case s == in:
		e.report.found("sign-in-again", "", "a new token comes, and the old one is still signed in")
	case s == unclear:
		e.report.unknown("sign-in-again", "the page answered with an error")
	default:
		e.report.ok("sign-in-again", "a new token comes, and the old one is refused")
	}
	return nil
}

// secondRequest fills the form in for somebody who is signed in. Where such are not shown the form, it is sent as they
// were shown it before, with hidden fields of that name from the page that they do see: tokens against forged requests.
func (e *examination) secondRequest(ctx context.Context, v *visitor) (request, error) {
	q, err := e.signInRequest(ctx, v)
	if !errors.Is(err, ErrSignIn) {
		return q, err
	}
	stranger := e.visitor()
	a, err := stranger.follow(ctx, request{method: http.MethodGet, url: e.recipe.page})
	if err != nil {
		return q, err
	}
	p := a.html()
	if p == nil {
		return q, fmt.Errorf("%w: no form", ErrSignIn)
	}
	f, _, _ := p.signIn(e.recipe.user, e.recipe.password)
	if f == nil {
		return q, fmt.Errorf("%w: no form", ErrSignIn)
	}
	seen, err := v.send(ctx, request{method: http.MethodGet, url: e.judge.page})
	if err != nil {
		return q, err
	}
	if own := seen.html(); own != nil {
		for i := range f.fields {
			if f.fields[i].kind == "hidden" {
				for _, g := range own.forms {
					for _, in := range g.fields {
						if in.name == f.fields[i].name && in.kind == "hidden" {
							f.fields[i].value = in.value
						}
					}
				}
			}
		}
	}
	return e.fill(a.url, f)
}

// examineSignOut signs out and uses the token again.
func (e *examination) examineSignOut(ctx context.Context) error {
	r := e.report
	if e.out == nil {
		if err := e.guessSignOut(ctx); err != nil {
			return err
		}
	}
	if e.out == nil {
		r.unknown("sign-out", "no form or link that signs out was found; name its path with --logout")
		r.unknown("sign-out-cookie", "no form or link that signs out was found")
		return nil
	}
	v, token, err := e.fresh(ctx)
	if err != nil {
		return err
	}
	old := &visitor{e: e, jar: v.jar.clone(), bearer: v.bearer}
	q, err := e.out.request(ctx, v)
	if errors.Is(err, ErrSignIn) || errors.Is(err, ErrNotAllowed) {
		r.unknown("sign-out", "the form or link was not there")
		return nil
	}
	if err != nil {
		return err
	}
	if t, ok := e.token(v); ok { // renewed, or what it was
		token, old.jar = t, v.jar.clone()
	}
	a, err := v.send(ctx, q)
	if err != nil {
		return err
	}
	if a.status >= 400 {
		r.unknown("sign-out", fmt.Sprintf("%s %s answered %d", q.method, place(q.url), a.status))
		return nil
	}
	cleared := func() bool {
		value, ok := v.jar.value(e.judge.page, e.cred.name)
		return !ok || value != token
	}
	for range maxRedirects { // some clear the cookie on the way
		next := a.redirect()
		if next == nil || e.web.allowed(next) != nil || cleared() {
			break
		}
		if a, err = v.send(ctx, request{method: http.MethodGet, url: next}); err != nil {
			return err
		}
	}
	if e.cred.kind == kindCookie {
		if cleared() {
			r.ok("sign-out-cookie")
		} else {
			r.found("sign-out-cookie", "", "the cookie is as before")
		}
	}
	switch s, err := e.with(ctx, old, token); {
	case err != nil:
		return err
	case s == in:
		r.found("sign-out", "", "the token is still signed in after "+q.method+" "+place(q.url))
	case s == unclear:
		r.unknown("sign-out", "the page answered with an error")
	case e.out.byLink:
		r.ok("sign-out", "the token is refused afterwards. A link signs out: any page can have a browser follow it; a form with POST would be better (ASVS v5.0.0-3.5.3)")
	default:
		r.ok("sign-out", "the token is refused afterwards")
	}
	return nil
}

// examineAltered sends tokens that are not quite the ones that were given out.
func (e *examination) examineAltered(ctx context.Context) error {
	v, token, err := e.fresh(ctx)
	if err != nil {
		return err
	}
	type alteration struct{ what, severity, token string }
	list := []alteration{{"with its last character missing", Low, token[:len(token)-1]}, {"with a character more at the end", Low, token + "A"}}
	if n := len(token) / 4; n > 1 {
		list = append(list, alteration{fmt.Sprintf("with its last %d characters missing", n), Medium, token[:len(token)-n]})
	}
	if up := strings.ToUpper(token); up != token {
		list = append(list, alteration{"in capital letters", Low, up})
	}
	if low := strings.ToLower(token); low != token {
		list = append(list, alteration{"in small letters", Low, low})
	}
	if e.tiny("token-lenient") {
		list = nil
	}
	if parseJWT(token) != nil {
		list = nil // a JWT whose text is altered is what examineJWT looks at
	}
	doubt := false
	for _, a := range list {
		switch s, err := e.with(ctx, v, a.token); {
		case err != nil:
			return err
		case s == in && !slices.Contains(e.tokens, a.token):
			e.report.found("token-lenient", a.severity, "accepted: a token "+a.what)
		case s == unclear:
			doubt = true
		}
	}
	if doubt {
		e.report.unknown("token-lenient", "some answers were errors")
	} else if len(list) > 0 {
		e.report.ok("token-lenient", fmt.Sprintf("%d altered tokens are refused", len(list)))
	}
	if e.cred.kind == kindCookie {
		if err := e.twice(ctx); err != nil {
			return err
		}
		return e.query(ctx)
	}
	if e.cred.kind == kindQuery {
		e.report.found("token-in-query", High, "it is the only place where the token is read")
		return nil
	}
	return e.query(ctx)
}

// twice sends two cookies of the name, a good one and a made-up one, in both orders.
func (e *examination) twice(ctx context.Context) error {
	if e.tiny("cookie-twice") {
		return nil
	}
	v, token, err := e.fresh(ctx)
	if err != nil {
		return err
	}
	v.jar = e.without(v)
	v.jar.drop(e.cred.name)
	rest := v.jar.header(e.judge.page)
	if rest != "" {
		rest = "; " + rest
	}
	good, bad := e.cred.name+"="+token, e.cred.name+"="+stranger(token)
	first, _, err := e.ask(ctx, good+"; "+bad+rest, "")
	if err != nil {
		return err
	}
	last, _, err := e.ask(ctx, bad+"; "+good+rest, "")
	if err != nil {
		return err
	}
	switch {
	case first == in && last == in:
		e.report.found("cookie-twice", "", "either order is accepted: the good one is picked out")
	case first == in:
		e.report.found("cookie-twice", "", "the first one wins")
	case last == in:
		e.report.found("cookie-twice", "", "the last one wins")
	case first == unclear || last == unclear:
		e.report.unknown("cookie-twice", "the page answered with an error")
	default:
		e.report.ok("cookie-twice")
	}
	return nil
}

// queryNames are those under which sites take a session from an address.
var queryNames = []string{"sid", "session", "session_id", "sessionid", "token", "access_token", "auth", "jwt", "PHPSESSID", "jsessionid"}

// leave signs the visitor out, whose token has been where it may be kept: in an address, and so in logs. Where that does
// not work the session is left to expire, like the others.
func (e *examination) leave(ctx context.Context, v *visitor) {
	if e.out == nil {
		return
	}
	if q, err := e.out.request(ctx, v); err == nil {
		v.send(ctx, q)
	}
}

// query sends the token in the address, without the cookie. The session may end by that, as it should: it is a fresh one.
func (e *examination) query(ctx context.Context) error {
	v, token, err := e.fresh(ctx)
	if err != nil {
		return err
	}
	leaving := []*visitor{{e: e, jar: v.jar.clone(), bearer: v.bearer}}
	defer func() {
		for _, v := range leaving {
			e.leave(ctx, v)
		}
	}()
	names := queryNames
	if e.cred.kind == kindCookie && !slices.Contains(names, e.cred.name) {
		names = append([]string{e.cred.name}, names...)
	}
	if e.cred.kind == kindCookie {
		v.jar = e.without(v)
		v.jar.drop(e.cred.name)
	}
	cookie := v.jar.header(e.judge.page)
	try := func(names ...string) (standing, error) {
		u := *e.judge.page
		q := u.Query()
		for _, n := range names {
			q.Set(n, token)
		}
		u.RawQuery = q.Encode()
		s, _, err := e.askAt(ctx, &u, cookie, "")
		return s, err
	}
	s, err := try(names...)
	if err != nil {
		return err
	}
	path := *e.judge.page
	path.RawPath, path.Path = "", path.Path+";jsessionid="+token
	inPath, _, err := e.askAt(ctx, &path, cookie, "")
	if err != nil {
		return err
	}
	switch {
	case s == in:
		name := "one of several names"
		for _, n := range names {
			if v, token, err = e.fresh(ctx); err != nil { // the last one may have ended
				return err
			}
			leaving = append(leaving, v)
			if s, err := try(n); err != nil {
				return err
			} else if s == in {
				name = clip(printable(n), 60)
				break
			}
		}
		e.report.found("token-in-query", "", "without the cookie, ?"+url.QueryEscape(name)+"=… is signed in")
	case inPath == in:
		e.report.found("token-in-query", "", "without the cookie, ;jsessionid=… in the path is signed in")
	case s == unclear:
		e.report.unknown("token-in-query", "the page answered with an error")
	default:
		e.report.ok("token-in-query", fmt.Sprintf("not under %d usual names, nor as ;jsessionid=", len(names)))
	}
	return nil
}
