package grade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// sample signs in as often as it is told, one after the other, and keeps the tokens.
func (e *examination) sample(ctx context.Context) error {
	for len(e.tokens) < e.Samples {
		if e.web.left < 120 && len(e.tokens) >= 2 {
			e.report.Notes = append(e.report.Notes, fmt.Sprintf("only %d sign-ins: the rest of the requests are kept for the other checks", len(e.tokens)))
			break
		}
		from := e.Now()
		_, token, err := e.fresh(ctx)
		if err != nil {
			if len(e.tokens) >= 2 && errors.Is(err, ErrSignIn) {
				e.report.Notes = append(e.report.Notes, fmt.Sprintf("only %d sign-ins: then the site refused (%v)", len(e.tokens), err))
				break
			}
			return err
		}
		if len(e.tokens) == 0 {
			e.report.Token = mask(token)
		}
		e.tokens, e.times = append(e.tokens, token), append(e.times, span{from, e.Now()})
		if n := len(e.tokens); n%20 == 0 {
			e.Progress(fmt.Sprintf("%d of %d sign-ins", n, e.Samples))
		}
	}
	return nil
}

// examineTokens judges how the tokens are made. What a JWT is worth is its signature, which examineJWT judges.
func (e *examination) examineTokens(context.Context) error {
	r := e.report
	if j := parseJWT(e.tokens[0]); j != nil {
		e.jwtTokens()
		return nil
	}
	list := knowns(e.User, e.base.Hostname())
	a := analyse(e.tokens, e.times)
	e.analysis = a
	sort := strings.Join(compact(a.How), ", ")
	if a.Repeats > 0 {
		r.found("token-repeats", "", fmt.Sprintf("%d of %d tokens had been given out before", a.Repeats, a.Samples))
	} else {
		r.ok("token-repeats", fmt.Sprintf("%d sign-ins, as many tokens; that alone only shows that there are more than about %d", a.Samples, a.Samples*a.Samples/2))
	}
	weak := func(id string, notes []string) {
		switch {
		case len(notes) == 0 && a.Samples < fewest:
			r.unknown(id, fmt.Sprintf("%d tokens are too few; take at least %d", a.Samples, fewest))
		case len(notes) == 0:
			r.ok(id)
		case a.Bits < 112:
			r.found(id, "", notes...)
		default: // what stands beside enough chance tells when somebody signed in, and no more
			r.info(id, append(notes, "beside enough that is chance, so that it does not help to guess a token")...)
		}
	}
	weak("token-counter", a.Counters)
	weak("token-time", a.Times)
	hash := guessable(e.tokens, e.times, list)
	if a.Repeats == a.Samples-1 {
		hash = "" // one token for all: if it is a hash of the user's name, token-user-data says so
	}
	if hash != "" {
		r.found("token-hash", "", hash)
		a.Bits = 0
	} else {
		r.ok("token-hash", "not of small numbers, times or the user's name; other inputs were not tried")
	}
	e.entropy(a, sort, hash != "")
	e.userData(list)
	return nil
}

func (e *examination) userData(list []known) {
	if data := userData(e.tokens, list); data != nil {
		severity := ""
		if e.analysis != nil && e.analysis.Bits < 64 {
			severity = High
		}
		e.report.found("token-user-data", severity, "in every token: "+strings.Join(data, ", "))
		return
	}
	e.report.ok("token-user-data", "not the user's name or address, nor their MD5, SHA-1 or SHA-256")
}

// entropy judges the bits of chance. Below 64 is high and below 112 medium; from there to 128, where version 4 UUIDs and
// some frameworks are, ASVS is not met, and nobody could guess such a token.
func (e *examination) entropy(a *analysis, sort string, hash bool) {
	length := fmt.Sprintf("%d characters", a.Shortest)
	if a.Longest != a.Shortest {
		length = fmt.Sprintf("%d to %d characters", a.Shortest, a.Longest)
	}
	seen := fmt.Sprintf("%s, %s; at most %.0f bits of each are chance", length, or(sort, "all the same"), math.Floor(a.Bits+0.5))
	if a.Uneven {
		seen += "; its bits are not evenly spread, as those of a good source are"
	}
	limit := fmt.Sprintf("%d tokens can show that some of it is not chance, never that all of it is", a.Samples)
	if a.Capped {
		limit = fmt.Sprintf("%d tokens show no dependence among them; they are too few to see one among more than %d bits", a.Samples, a.Samples-1)
	}
	r := e.report
	switch b := a.Bits + 0.5; {
	case hash:
		r.found("token-entropy", High, seen+", since the hash can be guessed")
	case b < 64:
		r.found("token-entropy", High, seen, limit)
	case b < 112:
		r.found("token-entropy", Medium, seen, limit)
	case b < 128:
		if a.UUID == '4' {
			seen += " (the rest of a version 4 UUID is fixed; RFC 9562, section 8, does not want them as secrets)"
		}
		r.found("token-entropy", Low, seen, limit)
	case a.Samples < fewest:
		r.unknown("token-entropy", seen, fmt.Sprintf("%d tokens are too few to show more; take at least %d", a.Samples, fewest))
	default:
		r.ok("token-entropy", seen, limit)
	}
}

// examineTravel judges how the token travels: the cookie, addresses, pages and caches, from what the first visitor was
// answered.
func (e *examination) examineTravel(ctx context.Context) error {
	r := e.report
	plain := e.judge.page.Scheme != "https"
	local := loopbackName(e.judge.page.Hostname()) && e.base.Scheme == "http"
	for _, a := range e.first.trail {
		if e.base.Scheme == "https" && a.url.Scheme != "https" {
			r.found("transport", "", "from HTTPS the way leads to plain HTTP: "+place(a.url))
			break
		}
	}
	switch {
	case plain && local:
		r.info("transport", "plain HTTP on this machine: not judged")
	case plain:
		r.found("transport", "", "the page and the token go over plain HTTP")
	default:
		r.ok("transport")
	}
	if e.cred.kind == kindCookie {
		e.cookies(plain, local)
	}
	v := e.first
	token, _ := e.token(v)
	if err := e.leaks(v, token); err != nil {
		return err
	}
	return e.caching(ctx, v, token)
}

// cookies judges the lines that set the cookie, the worst of them for each attribute.
func (e *examination) cookies(plain, local bool) {
	r, name := e.report, e.cred.name
	var lines []setCookie
	for _, a := range e.first.trail[min(e.submitted, len(e.first.trail)):] {
		for _, c := range a.set {
			if c.Name == name && c.Value != "" && !c.gone(a.after) {
				lines = append(lines, c)
			}
		}
	}
	if lines == nil { // the token of before the sign-in
		for _, a := range e.first.trail {
			for _, c := range a.set {
				if c.Name == name && !c.gone(a.after) {
					lines = append(lines, c)
				}
			}
		}
	}
	for _, c := range lines {
		switch {
		case c.Secure:
			r.ok("cookie-secure")
		case plain && local:
			r.info("cookie-secure", "it is not; not judged on plain HTTP on this machine. On HTTPS it would be a finding")
		case plain:
			r.info("cookie-secure", "it is not, and cannot be over plain HTTP")
		default:
			r.found("cookie-secure", "", "Secure is missing")
		}
		judge := func(id string, good bool, seen string) {
			if good {
				r.ok(id)
			} else {
				r.found(id, "", seen)
			}
		}
		judge("cookie-httponly", c.HTTPOnly, "HttpOnly is missing")
		switch c.SameSite {
		case "lax", "strict":
			r.ok("cookie-samesite", c.SameSite)
		case "none":
			r.found("cookie-samesite", "", "SameSite=None: it goes along with requests from all other sites")
		default:
			r.found("cookie-samesite", "", "SameSite is missing, or nothing that browsers know")
		}
		host, secure := strings.HasPrefix(name, "__Host-"), strings.HasPrefix(name, "__Secure-")
		switch {
		case host || secure:
			r.ok("cookie-prefix", clip(printable(name), 60))
		case plain:
			r.info("cookie-prefix", "it has none; not judged on plain HTTP, where not every browser takes it. On HTTPS it would be a finding")
		default:
			r.found("cookie-prefix", "", "the name is "+clip(printable(name), 60))
		}
		judge("cookie-domain", c.Domain == "", "Domain="+clip(printable(c.Domain), 100)+": every host below it gets the cookie")
		switch life := c.lifetime(e.report.Started); {
		case life > 366*24*time.Hour:
			r.found("cookie-lifetime", Medium, "the browser keeps it for "+days(life)+", and nobody asked to be remembered")
		case life > 31*24*time.Hour:
			r.found("cookie-lifetime", "", "the browser keeps it for "+days(life)+", and nobody asked to be remembered")
		case life > 0:
			r.ok("cookie-lifetime", "kept for "+days(life))
		default:
			r.ok("cookie-lifetime", "until the browser is closed")
		}
		judge("cookie-size", len(c.Name)+len(c.Value) <= 4096, fmt.Sprintf("%d bytes", len(c.Name)+len(c.Value)))
	}
}

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Round(time.Minute).String()
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// shortest is the shortest token that is looked for in pages: shorter text is there by chance.
const shortest = 8

// leaks looks for the token in the addresses and pages that the visitor was shown.
func (e *examination) leaks(v *visitor, token string) error {
	r := e.report
	tokens := map[string]bool{}
	for _, a := range v.trail {
		for _, c := range a.set {
			if c.Name == e.cred.name && e.cred.kind == kindCookie && len(c.Value) >= shortest {
				tokens[c.Value] = true
			}
		}
	}
	if len(token) >= shortest {
		tokens[token] = true
	}
	if len(tokens) == 0 {
		r.unknown("token-in-url", fmt.Sprintf("the token has less than %d characters, which are in many addresses by chance", shortest))
		r.unknown("token-in-body", fmt.Sprintf("the token has less than %d characters, which are in many pages by chance", shortest))
		return nil
	}
	has := func(text string) bool {
		plain, err := url.QueryUnescape(text)
		for t := range tokens {
			if strings.Contains(text, t) || err == nil && strings.Contains(plain, t) {
				return true
			}
		}
		return false
	}
	urls, pages := 0, 0
	for i, a := range v.trail {
		where := fmt.Sprintf("the answer to %s %s", a.method, place(a.url))
		if has(a.url.String()) {
			r.found("token-in-url", "", "the address of "+where)
		}
		if l := a.header.Get("Location"); l != "" {
			if urls++; has(l) {
				r.found("token-in-url", "", "where "+where+" leads (Location)")
			}
		}
		for _, l := range a.header["Refresh"] {
			if has(l) {
				r.found("token-in-url", "", "where "+where+" leads (Refresh)")
			}
		}
		p := a.html()
		if p == nil {
			apiLogin := e.recipe.target != nil && i == e.submitted && e.cred.kind == kindBearer // the one answer that hands it out
			if pages++; !apiLogin && has(string(a.body)) {
				r.found("token-in-body", "", where)
			}
			continue
		}
		pages, urls = pages+1, urls+len(p.urls)
		if slices.ContainsFunc(p.urls, has) {
			r.found("token-in-url", "", "an address in "+where)
		}
		if has(string(p.prose)) {
			r.found("token-in-body", "", where)
		}
	}
	r.ok("token-in-url", fmt.Sprintf("%d addresses", urls))
	r.ok("token-in-body", fmt.Sprintf("%d answers", pages))
	return nil
}

// A policy is what Cache-Control allows.
type policy struct {
	noStore, private, noCache, kept bool
}

func cachePolicy(h http.Header) (p policy) {
	for _, line := range h["Cache-Control"] {
		for d := range strings.SplitSeq(strings.ToLower(line), ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(d), "=")
			switch name {
			case "no-store":
				p.noStore = true
			case "private":
				p.private = true
			case "no-cache":
				p.noCache = true
			case "public", "immutable":
				p.kept = true
			case "max-age", "s-maxage":
				if strings.Trim(value, `0"`) != "" {
					p.kept = true
				}
			}
		}
	}
	if e := h.Get("Expires"); e != "" && h.Get("Cache-Control") == "" {
		if t, err := http.ParseTime(e); err == nil && t.After(time.Now()) {
			p.kept = true
		}
	}
	return p
}

// caching judges the answers that depend on who is signed in, and those that hand out the token.
func (e *examination) caching(ctx context.Context, v *visitor, token string) error {
	r := e.report
	seen := make(map[string]bool)
	for i, a := range v.trail {
		p := cachePolicy(a.header)
		where := fmt.Sprintf("%s %s", a.method, place(a.url))
		hands := e.cred.kind == kindCookie && slices.ContainsFunc(a.set, func(c setCookie) bool { return c.Name == e.cred.name && c.Value != "" }) ||
			e.cred.kind == kindBearer && token != "" && bytes.Contains(a.body, []byte(token))
		if hands {
			switch {
			case p.noStore, p.private && !p.kept, p.noCache:
				r.ok("cache-cookie")
			case p.kept && !p.private:
				r.found("cache-cookie", "", where+" hands out the token and may be kept by caches")
			default:
				r.ok("cache-cookie", where+" does not say no-store; nothing makes a cache keep it, either")
			}
		}
		if i <= e.submitted || a.method != http.MethodGet {
			continue
		}
		if at := a.url.Scheme + a.url.Host + a.url.RequestURI(); seen[at] || len(seen) == maxCompared {
			continue
		} else {
			seen[at] = true
		}
		switch own, err := e.depends(ctx, a); {
		case err != nil:
			return err
		case !own:
			continue
		}
		switch {
		case p.noStore:
			r.ok("cache-page")
		case p.private && p.noCache:
			r.found("cache-page", Low, where+" says private and no-cache: no cache on the way keeps it, and the browser's disk may")
		case p.kept && !p.private:
			r.found("cache-page", High, where+" may be kept by every cache on the way")
		default:
			r.found("cache-page", "", where+" does not say no-store")
		}
	}
	return nil
}

// maxCompared bounds the pages that are opened again as a stranger.
const maxCompared = 12

// depends reports whether the answer depends on who is signed in: a stranger is answered something else.
func (e *examination) depends(ctx context.Context, a *answer) (bool, error) {
	if a.status < 200 || a.status > 299 {
		return false, nil
	}
	if sameOrigin(a.url, e.judge.page) && a.url.Path == e.judge.page.Path {
		return e.judge.standing(a) == in, nil
	}
	var strangers [2]*answer
	for i := range strangers {
		s, err := e.visitor().send(ctx, request{method: http.MethodGet, url: a.url})
		if err != nil {
			return false, err
		}
		strangers[i] = s
		if s.status >= 300 && s.status < 500 && s.status != http.StatusTooManyRequests {
			return true, nil
		}
		if s.status >= 500 || s.status == http.StatusTooManyRequests {
			return false, nil // which tells nothing
		}
		if bytes.Equal(s.body, a.body) {
			return false, nil
		}
	}
	// Pages with something new in them each time, such as the time, differ from one stranger to the next, too.
	if bytes.Equal(strangers[0].body, strangers[1].body) {
		return true, nil
	}
	return e.judge.marks != nil && e.judge.marks(a) && !e.judge.marks(strangers[0]), nil
}
