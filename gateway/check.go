package gateway

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// A Problem says what is wrong with an App, for whoever knows where that was written.
type Problem struct {
	Rule  int    // the index in App.Rules; -1 if it is about the application itself
	Field string // of the App, or of the Rule
	Text  string // what is wrong, and what to do
}

// Error names the field.
func (p *Problem) Error() string {
	if p.Rule < 0 {
		return p.Field + ": " + p.Text
	}
	return fmt.Sprintf("Rules[%d].%s: %s", p.Rule, p.Field, p.Text)
}

// Check says what is wrong with the options that New would refuse, as far as that can be told without an authority: it
// does not look at Authority, Issuer and Sign. The error is ErrBadOptions.
func Check(o Options) error {
	if len(o.Apps) == 0 {
		return bad("Apps is empty: name the origin of at least one application")
	}
	if len(o.Proxies) == 0 {
		return bad("Proxies is empty: name the networks that the proxies connect from, such as 127.0.0.0/8")
	}
	for _, p := range o.Proxies {
		if err := CheckProxy(p); err != nil {
			return bad("Proxies: %v", err)
		}
	}
	for _, a := range o.Apps {
		if problems := CheckApp(a); len(problems) > 0 {
			return bad("%v (application %q)", problems[0], a.Origin)
		}
	}
	return nil
}

// CheckProxy says what is wrong with one of Options.Proxies.
func CheckProxy(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return fmt.Errorf("a network is not valid; they look like 10.0.0.0/8 or ::1/128")
	case p.Addr().Is4In6():
		return fmt.Errorf("%s is an IPv4 network in IPv6 form, which no address is in: write it as 10.0.0.0/8", p)
	}
	return nil
}

// CheckApp returns everything that is wrong with the application and its rules.
func CheckApp(a App) (all []*Problem) {
	add := func(field, format string, args ...any) {
		all = append(all, &Problem{-1, field, fmt.Sprintf(format, args...)})
	}
	if why := checkOrigin(a.Origin); why != "" {
		add("Origin", "%s", why)
	}
	for _, o := range a.TrustedOrigins {
		if why := checkOrigin(o); why != "" {
			add("TrustedOrigins", "%s", why)
		}
	}
	if why := a.checkSignIn(); why != "" {
		add("SignInURL", "%s", why)
	}
	for i, l := range a.Rules {
		found := l.check()
		if found == nil && slices.ContainsFunc(a.Rules[:i], l.overlaps) {
			found = append(found, &Problem{Field: "Path", Text: fmt.Sprintf("there is another rule above for %s and the same method", l.Path)})
		}
		for _, p := range found {
			p.Rule = i
			all = append(all, p)
		}
	}
	return all
}

// checkOrigin says what is wrong with an origin.
func checkOrigin(origin string) string {
	if strings.ContainsFunc(origin, func(c rune) bool { return c >= 0x80 }) {
		return fmt.Sprintf("%q: browsers send names in ASCII: write the form that begins with xn--", origin)
	}
	// Nothing is asked of the authority.
	if _, err := httpauth.New(new(afterlogin.Authority), httpauth.Options{Origin: origin, TrustedOrigins: []string{origin}}); err != nil || origin == "" {
		return fmt.Sprintf("%q is not an origin such as https://shop.example.com, in lower case and without a path; http is for loopback hosts", origin)
	}
	return ""
}

// checkSignIn says what is wrong with the sign-in page.
func (a App) checkSignIn() string {
	if a.SignInURL == "" {
		return ""
	}
	if strings.Contains(a.SignInURL, "#") {
		return "the fragment would swallow return_to: leave it out"
	}
	if own := a.ownSignIn(); own != "" {
		raw, _, _ := strings.Cut(own, "?")
		if _, f := canonicalPath(raw, true); f != nil || httpauth.SafeReturn(own) != own {
			return fmt.Sprintf("%q is not a path that a browser could be sent to", own)
		}
		return ""
	}
	u, err := url.Parse(a.SignInURL)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Sprintf("%q is neither a path such as /sign-in nor a URL such as https://id.example.com/login", a.SignInURL)
	}
	if u.Scheme == "http" && checkOrigin("http://"+u.Host) != "" {
		return fmt.Sprintf("%q is not https: whoever listens could send people elsewhere; http is for loopback hosts", a.SignInURL)
	}
	return ""
}

// check returns what is wrong with a rule by itself.
func (l Rule) check() (all []*Problem) {
	add := func(field, format string, args ...any) {
		all = append(all, &Problem{Field: field, Text: fmt.Sprintf(format, args...)})
	}
	switch path, f := canonicalPath(escapePath(l.Path), true); {
	case l.Path == everything:
	case !strings.HasPrefix(l.Path, "/"):
		add("Path", "a path begins with /: write /exactly/this, /everything/below/, or /* for everything")
	case strings.Contains(l.Path, "*"):
		add("Path", "a * stands in no path but /*, which is everything: write /admin/ for everything below /admin")
	case f != nil || path != l.Path:
		add("Path", `%q is not a path that a request could have: write it decoded, such as /admin/ or /reports/q3, without empty segments, segments of dots, ;, ?, #, %% and \`, l.Path)
	case below(l.Path):
		add("Path", "paths below %s/ are afterlogin's own", BasePath)
	}
	for _, m := range l.Methods {
		if !isMethod(m) {
			add("Methods", "%q is not a method such as GET", m)
		}
	}
	for _, k := range l.Kinds {
		if !slices.Contains(allKinds, k) {
			add("Kinds", "the kind %v cannot be let in; session, api-key, access and jwt can", k)
		}
	}
	if l.personal() && slices.Contains(l.Kinds, afterlogin.KindAPIKey) {
		add("Kinds", "max_age and acr ask for a person who has signed in, and an API key is none: take out api-key, or give it a rule of its own")
	}
	for _, s := range l.Scopes {
		if !visible(s) {
			add("Scopes", "%q is not a scope: one word each, of visible ASCII", s)
		}
	}
	if l.MaxAge != 0 && (l.MaxAge < time.Second || l.MaxAge%time.Second != 0) {
		add("MaxAge", "%v: want whole seconds, at least 1s", l.MaxAge)
	}
	for _, c := range l.ACR {
		if !visible(c) {
			add("ACR", "%q is not a class of authentication (acr)", c)
		}
	}
	// They stand in headers of refusals.
	if size := len(strings.Join(l.Scopes, " ")) + len(l.stepUp()); size > maxDemands {
		add("Scopes", "the scopes and classes come to %d bytes, want at most %d", size, maxDemands)
	}
	if l.Public && (len(l.Kinds) > 0 || len(l.Scopes) > 0 || l.personal()) {
		add("Public", "a public path asks for nothing, and this rule does: take out public, or everything but path and methods")
	}
	return all
}

// personal reports whether the rule asks for a person who has signed in in some way.
func (l Rule) personal() bool { return l.MaxAge != 0 || len(l.ACR) > 0 }

// overlaps reports whether of two rules neither is the more specific one for some request.
func (l Rule) overlaps(other Rule) bool {
	if l.Path != other.Path {
		return false
	}
	a, b := l.methods(), other.methods()
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	return slices.ContainsFunc(a, func(m string) bool { return slices.Contains(b, m) })
}

// maxDemands bounds what a rule adds to a challenge and to the address of the sign-in page, in bytes.
const maxDemands = 512

// visible reports whether s is a word of visible ASCII that can stand in quotes.
func visible(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// escapePath escapes the blanks of a path.
func escapePath(path string) string { return strings.ReplaceAll(path, " ", "%20") }
