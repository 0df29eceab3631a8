package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// reach opens the site. With a bad certificate that is said, and the rest is looked at without checking it; it reports
// whether there is a rest.
func (e *examination) reach(ctx context.Context) (bool, error) {
	a, err := e.ask(ctx, e.path, browser)
	var invalid *tls.CertificateVerificationError
	if errors.As(err, &invalid) {
		e.report.record("certificate", Fail, clip(printable(invalid.Err.Error()), 200))
		if e.User != "" || e.Cookies != "" {
			e.User, e.Password, e.Cookies = "", "", "" // which whoever holds that certificate would get
			e.report.record("member", Skipped, "nothing secret is sent to a site with a bad certificate")
		}
		e.client.CloseIdleConnections()
		e.client = e.newClient(e.Roots, true)
		a, err = e.ask(ctx, e.path, browser)
	}
	if err != nil {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		return false, fmt.Errorf("%w: %s: %w", ErrUnreachable, origin(e.site), err)
	}
	e.state = a.state
	if a.status >= 500 {
		e.report.record("reach", Fail, fmt.Sprintf("%s is answered %d", pathOnly(e.path), a.status))
	} else {
		e.report.record("reach", OK, fmt.Sprintf("%d", a.status))
	}
	e.clock(a, "the site's")
	return true, nil
}

// transport looks at TLS, and at plain HTTP beside it.
func (e *examination) transport(ctx context.Context) error {
	r := e.report
	if e.site.Scheme == "http" {
		if e.local() {
			r.record("tls", Skipped, "plain HTTP on this machine")
			return nil
		}
		r.record("tls", Fail, "the site is opened over plain HTTP: everybody on the way reads passwords and tokens")
		return nil
	}
	if e.state != nil && len(e.state.PeerCertificates) > 0 {
		leaf := e.state.PeerCertificates[0]
		switch left := leaf.NotAfter.Sub(e.Now()); {
		case left < 0:
			r.record("certificate", Fail, "it ended on "+leaf.NotAfter.UTC().Format(time.DateOnly))
		case left < 3*24*time.Hour:
			r.record("certificate", Fail, fmt.Sprintf("it ends in %v", left.Round(time.Minute)))
		case left < 14*24*time.Hour:
			r.record("certificate", Warn, fmt.Sprintf("it ends in %d days; is it renewed by itself?", int(left.Hours()/24)))
		default:
			r.record("certificate", OK, fmt.Sprintf("until %s", leaf.NotAfter.UTC().Format(time.DateOnly)))
		}
		r.record("tls", OK, tls.VersionName(e.state.Version))
	}
	if err := e.oldTLS(ctx); err != nil {
		return err
	}
	a, err := e.ask(ctx, e.path, browser)
	if err != nil {
		return err
	}
	switch age := maxAge(a.header.Get("Strict-Transport-Security")); {
	case e.local():
		r.record("hsts", Skipped, "on this machine")
	case age < 0:
		r.record("hsts", Warn, "there is no Strict-Transport-Security")
	case age < 365*86400:
		r.record("hsts", Warn, fmt.Sprintf("max-age is %d days; OWASP ASVS v5.0.0-3.4.1 asks for a year", age/86400))
	default:
		r.record("hsts", OK)
	}
	return e.plain(ctx)
}

// maxAge is the max-age of a Strict-Transport-Security (RFC 6797, section 6.1.1); -1: there is none.
func maxAge(value string) int {
	for d := range strings.SplitSeq(value, ";") {
		name, v, _ := strings.Cut(strings.TrimSpace(d), "=")
		if n, err := strconv.Atoi(strings.Trim(v, `"`)); strings.EqualFold(name, "max-age") && err == nil && n >= 0 {
			return n
		}
	}
	return -1
}

// oldTLS tries TLS 1.1 and older, which RFC 8996 has put away.
func (e *examination) oldTLS(ctx context.Context) error {
	port := e.site.Port()
	if port == "" {
		port = "443"
	}
	c, err := dial(ctx, "tcp", net.JoinHostPort(e.site.Hostname(), port))
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	old := tls.Client(c, &tls.Config{ServerName: e.site.Hostname(), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true, CipherSuites: oldSuites()}) // nothing is sent
	if old.HandshakeContext(ctx) == nil {
		e.report.record("tls", Fail, tls.VersionName(old.ConnectionState().Version)+" is spoken, too")
	}
	return nil
}

func oldSuites() (ids []uint16) {
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		ids = append(ids, s.ID)
	}
	return ids
}

// plain asks for the page over plain HTTP, without anything secret.
func (e *examination) plain(ctx context.Context) error {
	r := e.report
	if port := e.site.Port(); port != "" && port != "443" && e.plainPort == "80" {
		r.record("plain-http", Skipped, "the site is not on port 443")
		return nil
	}
	site := &url.URL{Scheme: "http", Host: net.JoinHostPort(e.site.Hostname(), e.plainPort)}
	if e.plainPort == "80" {
		site.Host = e.site.Host
	}
	a, err := e.askAt(ctx, e.client, site, e.path, nil, browser)
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, ErrBudget) {
			return err
		}
		r.record("plain-http", OK, "nothing answers")
		return nil
	}
	to, err := site.Parse(a.header.Get("Location"))
	switch {
	case len(a.cookies()) > 0:
		r.record("plain-http", Fail, "a cookie is set over plain HTTP")
	case a.good():
		r.record("plain-http", Fail, fmt.Sprintf("the page is answered %d over plain HTTP", a.status))
	case a.status >= 300 && a.status < 400 && err == nil && to.Scheme == "https" && strings.EqualFold(to.Hostname(), e.site.Hostname()):
		r.record("plain-http", OK, fmt.Sprintf("%d to https", a.status))
	case a.status >= 300 && a.status < 400:
		r.record("plain-http", Warn, fmt.Sprintf("%d, but not to https on this host", a.status))
	default:
		r.record("plain-http", OK, fmt.Sprintf("%d", a.status))
	}
	return nil
}

// clock compares the Date of an answer with the clock here, in the middle between question and answer.
func (e *examination) clock(a *answer, whose string) {
	at, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		return // HAProxy's own answers have none
	}
	trip := a.heard.Sub(a.sent)
	// Date has whole seconds, so that it is up to one behind.
	off := at.Add(500 * time.Millisecond).Sub(a.sent.Add(trip / 2))
	slack := trip/2 + 500*time.Millisecond
	by := fmt.Sprintf("%s clock is %v off this one", whose, off.Round(time.Second))
	switch off = off.Abs(); {
	case off > 30*time.Second+slack:
		e.report.record("clock", Fail, by)
	case off > 2*time.Second+slack:
		e.report.record("clock", Warn, by)
	default:
		e.report.record("clock", OK, whose+" clock is right to within "+(slack+time.Second).Round(time.Second).String())
	}
}

// clocks looks at the clock of the sign-in page's server, which is afterlogin's, as far as the proxy passes its Date on.
func (e *examination) clocks(context.Context) error {
	if e.login != nil {
		e.clock(e.login, "the sign-in page's")
	}
	if e.report.result("clock") == "" {
		e.report.record("clock", Skipped, "the answers have no Date")
	}
	return nil
}

// own asks afterlogin itself, from inside.
func (e *examination) own(ctx context.Context) error {
	if e.Afterlogin == "" {
		return nil
	}
	u, err := url.Parse(e.Afterlogin)
	if err != nil {
		return err
	}
	site := &url.URL{Scheme: u.Scheme, Host: u.Host}
	// Not the client of the site, which may have stopped looking at certificates.
	client := e.newClient(e.Roots, false)
	defer client.CloseIdleConnections()
	a, err := e.askAt(ctx, client, site, strings.TrimSuffix(u.EscapedPath(), "/")+"/readyz", nil, program)
	var unknown x509.UnknownAuthorityError
	switch {
	case err != nil && ctx.Err() != nil, errors.Is(err, ErrBudget):
		return err
	case errors.As(err, &unknown):
		e.report.record("ready", Fail, "its certificate is signed by nobody known")
	case err != nil:
		e.report.record("ready", Fail, "at "+origin(site)+": "+err.Error())
	case a.good():
		e.report.record("ready", OK)
		e.clock(a, "afterlogin's")
	default:
		// Its own words, which have nothing secret: "the clock differs from the store's" for one.
		e.report.record("ready", Fail, fmt.Sprintf("/readyz is answered %d: %s", a.status, clip(printable(strings.TrimSpace(string(a.body))), 200)))
	}
	return nil
}
