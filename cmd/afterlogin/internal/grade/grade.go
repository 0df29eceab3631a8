// Package grade examines the session tokens of a web site from outside, as a visitor with a name and a password: how they
// are made, how they travel, and what happens to them at sign-in and sign-out. It owns the finding of the sign-in, the
// requests, the statistics and the report; what each check means, and where OWASP asks for it, is in checks.go.
//
// It asks loopback hosts and those that are named in [Options], whatever the site's answers say, a bounded number of
// times. No token, cookie or password is in a report or an error. Start with [Run].
package grade

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/site"
)

// Defaults and limits of Options.
const (
	DefaultSamples     = 200
	MaxSamples         = 5000
	DefaultMaxRequests = 2000
	MaxMaxRequests     = 50000
)

// Options say what to examine, and how to sign in. URL, User and Password are needed.
type Options struct {
	// URL is a page of the site: the sign-in page, or one from which it is found.
	URL string
	// AllowHosts are host names or addresses, without port, that may be asked beside those of this machine.
	AllowHosts []string
	// User and Password are the user's own.
	User, Password string
	// Login is where the sign-in form is, or where JSON is sent to: a path or an address. Empty: it is looked for.
	Login string
	// JSON sends the sign-in as a JSON object to Login.
	JSON bool
	// UserField and PasswordField name the two fields. Empty: guessed from the form; "username" and "password" in JSON.
	UserField, PasswordField string
	// Fields are sent beside them, in place of what the form says.
	Fields url.Values
	// CookieName is the cookie that holds the token. Empty: found by leaving cookies out.
	CookieName string
	// Page is a page that only those who are signed in can see, or that shows who is. Empty: where the sign-in leads.
	Page string
	// Expect is a text that Page has for those who are signed in, and for nobody else.
	Expect string
	// Logout is what signs out: a path. Empty: a form or link is looked for.
	Logout string
	// Samples is the number of sign-ins whose tokens are compared, 2 to 5,000. Default 200.
	Samples int
	// MaxRequests bounds the requests. Default 2,000.
	MaxRequests int
	// Every is the least time between two requests. Zero: none.
	Every time.Duration
	// Secrets are tried as HMAC keys of JWTs, beside the usual ones. Nil: none.
	Secrets iter.Seq[string]
	// Roots are the certificate authorities to trust. Nil: the system's.
	Roots *x509.CertPool
	// Progress is told what is being done, without anything secret. Nil: nobody is.
	Progress func(string)
	// Now is the clock. Default time.Now.
	Now func() time.Time

	resolved map[string]netip.Addr // what names resolve to; for tests
}

// check fills in what is left out, and says what cannot be.
func (o *Options) check() (*url.URL, error) {
	wrong := func(format string, args ...any) (*url.URL, error) {
		return nil, fmt.Errorf("%w: %s", ErrOption, fmt.Sprintf(format, args...))
	}
	if o.Samples == 0 {
		o.Samples = DefaultSamples
	}
	if o.MaxRequests == 0 {
		o.MaxRequests = DefaultMaxRequests
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	base, err := url.Parse(o.URL)
	switch {
	case err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "":
		return wrong("the URL is not one; write it as http://localhost:7071/")
	case base.User != nil:
		return wrong("the URL has a name and a password in it; others can see arguments")
	case o.User == "" || o.Password == "":
		return wrong("a name and a password are needed, to sign in with")
	case o.Samples < 2 || o.Samples > MaxSamples:
		return wrong("samples: %d is not between 2 and %d", o.Samples, MaxSamples)
	case o.MaxRequests < 20 || o.MaxRequests > MaxMaxRequests:
		return wrong("requests: %d is not between 20 and %d", o.MaxRequests, MaxMaxRequests)
	case o.JSON && o.Login == "":
		return wrong("JSON is sent to an address that has to be named, with login")
	}
	for _, h := range o.AllowHosts {
		if !hostName(h) {
			return wrong("allowed host %.60q: want a name or an address, without scheme, port, brackets or wildcard", h)
		}
	}
	base.Fragment, base.RawFragment = "", ""
	if base.Path == "" {
		base.Path = "/"
	}
	return base, nil
}

// hostName reports whether the text is a host name or an address, without a port. Names of other scripts are written as
// they are in the DNS, xn--….
func hostName(h string) bool {
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"
	return h != "" && len(h) <= 253 && only(allowed)(h) && strings.Trim(h, ".-") != ""
}

// An examination is one run.
type examination struct {
	*Options
	web    *web
	base   *url.URL
	recipe recipe
	judge  judge
	cred   credential
	report *Report

	first     *visitor // the first sign-in, with its trail
	submitted int      // where in the trail the name and password were sent
	tokens    []string
	times     []span   // when each token was given out
	out       *signOut // nil: not found
	analysis  *analysis
}

// span is between when a request was sent and its answer was read.
type span struct{ from, to time.Time }

// Run examines the site. It returns a report as long as it could sign in often enough to compare, and tell who is signed
// in; what could not be found out then is in the report, and [Report.Err] says why it ended early, if it did. Errors wrap
// ErrOption, ErrNotAllowed, ErrUnreachable, ErrSignIn, ErrTell or ErrBudget, or are the context's.
func Run(ctx context.Context, o Options) (*Report, error) {
	base, err := o.check()
	if err != nil {
		return nil, err
	}
	e := &examination{Options: &o, base: base, web: newWeb(&o, base)}
	defer e.web.close()
	e.report = &Report{Version: 1, Target: place(base), Started: o.Now().UTC()}
	if err := e.run(ctx); err != nil {
		return nil, e.told(err)
	}
	e.report.finish(e)
	return e.report, nil
}

func (e *examination) run(ctx context.Context) error {
	if err := e.web.allowed(e.base); err != nil {
		return err
	}
	e.Progress("looking for the sign-in")
	switch err := e.open(ctx); {
	case errors.Is(err, errPlain):
		// There is no signing in, and all the same something to say.
		e.report.found("transport", "", e.told(err).Error())
		e.stop(err)
		return nil
	case err != nil:
		return err
	}
	e.Progress("signing in again and again")
	if err := e.sample(ctx); err != nil {
		return err // one token, or none, shows nothing
	}
	for _, s := range []struct {
		say string
		do  func(context.Context) error
	}{
		{"looking at the tokens", e.examineTokens},
		{"looking at cookies, addresses and caching", e.examineTravel},
		{"before and after signing in", e.examineSignIn},
		{"signing out", e.examineSignOut},
		{"altered tokens", e.examineAltered},
		{"JWTs", e.examineJWT},
	} {
		e.Progress(s.say)
		switch err := s.do(ctx); {
		case err == nil:
		case errors.Is(err, ErrBudget), errors.Is(err, ErrUnreachable), errors.Is(err, ErrSignIn):
			e.stop(err)
			return nil
		default:
			return err
		}
	}
	return nil
}

func (e *examination) stop(err error) {
	e.report.err = e.told(err)
	e.report.Stopped = e.report.err.Error()
}

// told is the error without the tokens that have been seen, and without what terminals obey.
func (e *examination) told(err error) error {
	return &told{site.Lines(e.web.secrets.Clean(err.Error())[0]), err}
}

type told struct {
	text string
	err  error
}

func (t *told) Error() string { return t.text }
func (t *told) Unwrap() error { return t.err }
