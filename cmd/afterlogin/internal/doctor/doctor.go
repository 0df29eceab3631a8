// Package doctor examines, from outside, a site that has afterlogin in front of it by a proxy: whether strangers are sent
// to the sign-in, whether forged headers and odd paths get anybody in, how cookies, TLS, clocks and caches are set. It
// sends up to 150 harmless requests, GET and HEAD, and the form of the sign-in if it is given a name and a password.
// Nothing of what it says has a cookie, token or password in it. Start with [Run].
package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/grade"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/site"
)

// Bounds.
const (
	maxBody      = 256 << 10
	maxRequests  = 200
	maxRedirects = 10
)

// base is where afterlogin's pages are on the site's host.
const base = "/.afterlogin/"

// Errors of Run.
var (
	// ErrOption is for an option that cannot be.
	ErrOption = errors.New("option")
	// ErrUnreachable is for a site that does not answer at all. What is wrong with its certificate is a finding instead.
	ErrUnreachable = errors.New("the site cannot be reached")
	// ErrBudget is for more requests than a site should get from this.
	ErrBudget = errors.New("too many requests")
)

// Options say what to examine. URL is needed.
type Options struct {
	// URL is the site, as people open it.
	URL string
	// Path is a page that needs a sign-in. Default that of URL.
	Path string
	// User and Password are used to sign in on the page of afterlogin. Empty: nothing is looked at that needs it.
	User, Password string
	// Cookies is the Cookie header of somebody who is signed in, in place of them.
	Cookies string
	// Echo is a path of the application that answers with the headers of the request. Empty: there is none.
	Echo string
	// Afterlogin is afterlogin's own address, to ask whether it is ready and what its clock says. Empty: it is not asked.
	Afterlogin string
	// Roots are the certificate authorities to trust. Nil: the system's.
	Roots *x509.CertPool
	// Now is the clock. Default time.Now.
	Now func() time.Time

	plainPort string // where plain HTTP is looked for; for tests. Default "80"
	elsewhere bool   // takes a site on this machine for one that is not; for tests
}

// An examination is one run.
type examination struct {
	Options
	site   *url.URL // scheme and host alone
	path   string   // with the query
	client *http.Client
	report *Report
	made   int
	jar    map[string]string // of whoever is signed in, by name
	login  *answer           // the sign-in page
	state  *tls.ConnectionState
	first  *answer // what a stranger with a browser is answered
	locked bool    // whether strangers are kept from path

	leaving bool         // signs out, which is done whatever else has been
	secrets site.Secrets // that must not be in the report
}

// Run examines the site. Errors wrap ErrOption or ErrUnreachable, or are the context's.
func Run(ctx context.Context, o Options) (*Report, error) {
	e := &examination{Options: o, report: &Report{Version: 1}}
	if err := e.open(); err != nil {
		return nil, err
	}
	defer e.client.CloseIdleConnections()
	e.report.Started = e.Now().UTC()
	reached, err := e.reach(ctx)
	if err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{
		e.transport, e.strangers, e.signInPage, e.forgedIdentity, e.forgedTarget, e.paths, e.hidden, e.clocks, e.member, e.own,
	} {
		if !reached {
			break
		}
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			e.report.Stopped = e.secrets.Clean(err.Error())[0]
			break
		}
	}
	e.report.finish(e)
	return e.report, nil
}

// open checks the options.
func (e *examination) open() error {
	u, err := url.Parse(e.URL)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return fmt.Errorf("%w: the URL is not one; write it as https://shop.example.com/", ErrOption)
	case u.User != nil:
		return fmt.Errorf("%w: the URL has a name and a password in it; others can see arguments", ErrOption)
	case (e.User == "") != (e.Password == ""):
		return fmt.Errorf("%w: a name and a password go together", ErrOption)
	case e.User != "" && e.Cookies != "":
		return fmt.Errorf("%w: a name and a cookie do not go together", ErrOption)
	case strings.ContainsAny(e.Cookies, "\r\n\x00"):
		return fmt.Errorf("%w: the cookie is not on one line", ErrOption)
	}
	for _, p := range []*string{&e.Path, &e.Echo} {
		if *p != "" && (!strings.HasPrefix(*p, "/") || strings.HasPrefix(*p, "//") || strings.ContainsAny(*p, " \t\r\n#")) {
			return fmt.Errorf("%w: %.60q is not a path; write it as /private", ErrOption, *p)
		}
	}
	if e.Afterlogin != "" {
		if a, err := url.Parse(e.Afterlogin); err != nil || a.Scheme != "http" && a.Scheme != "https" || a.Host == "" || a.User != nil {
			return fmt.Errorf("%w: afterlogin's address is none; write it as http://127.0.0.1:7070", ErrOption)
		}
	}
	e.site = &url.URL{Scheme: u.Scheme, Host: u.Host}
	if e.path = e.Path; e.path == "" {
		e.path = u.RequestURI()
	}
	if e.Now == nil {
		e.Now = time.Now
	}
	if e.plainPort == "" {
		e.plainPort = "80"
	}
	e.report.URL = origin(e.site) + pathOnly(e.path)
	e.secret(e.Password)
	for pair := range strings.SplitSeq(e.Cookies, "; ") {
		_, value, _ := strings.Cut(pair, "=")
		e.secret(value)
	}
	e.client = e.newClient(e.Roots, false)
	return nil
}

// secret keeps a password or a cookie out of the report.
func (e *examination) secret(text string) {
	if len(text) >= 8 {
		e.secrets.Add(text, "[secret]")
	}
}

// newClient asks the site itself, not a proxy of the environment, over HTTP/1.1, in which headers and paths are sent as
// they are here.
func (e *examination) newClient(roots *x509.CertPool, blind bool) *http.Client {
	return &http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{
			DialContext: dial,
			// blind is for looking at a site whose certificate has been found bad, and said to be so, a moment before.
			TLSClientConfig:        &tls.Config{RootCAs: roots, InsecureSkipVerify: blind},
			TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
			MaxResponseHeaderBytes: 128 << 10,
			DisableCompression:     true,
			IdleConnTimeout:        10 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// dial connects. Names below localhost are this machine (RFC 6761, section 6.3), whatever the resolver thinks.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	host, port, err := net.SplitHostPort(addr)
	if err == nil && strings.HasSuffix(strings.ToLower(strings.TrimSuffix(host, ".")), ".localhost") {
		if c, err := d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port)); err == nil {
			return c, nil
		}
		addr = net.JoinHostPort("::1", port)
	}
	return d.DialContext(ctx, network, addr)
}

// local reports whether the site is on this machine.
func (e *examination) local() bool { return !e.elsewhere && config.LoopbackName(e.site.Hostname()) }

// An answer is one response.
type answer struct {
	target      string // what was asked for, path and query
	status      int
	header      http.Header
	body        []byte
	state       *tls.ConnectionState
	sent, heard time.Time
}

func (a *answer) good() bool { return a.status >= 200 && a.status < 300 }

// failed reports whether the answer says nothing about who may pass.
func (a *answer) failed() bool { return a.status >= 500 || a.status == http.StatusTooManyRequests }

// limited reports whether the site has had enough of the questions.
func (a *answer) limited() bool { return a.status == http.StatusTooManyRequests }

// failure is why there is no answer, in words that have nothing of the answer in them.
type failure struct{ err error }

func (f *failure) Error() string { return site.Fault(f.err) }
func (f *failure) Unwrap() error { return f.err }

// cookies are those that the answer sets.
func (a *answer) cookies() (set []grade.Cookie) {
	for _, line := range a.header["Set-Cookie"] {
		if c, ok := grade.ParseSetCookie(line); ok && len(set) < 50 {
			set = append(set, c)
		}
	}
	return set
}

// a request, changed by functions.
type change func(*http.Request)

// browser is a person who opens an address.
func browser(r *http.Request) {
	r.Header.Set("Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	r.Header.Set("Sec-Fetch-Site", "none")
}

// program is a caller of an API.
func program(r *http.Request) { r.Header.Set("Accept", "application/json") }

// header sets a header in exactly this spelling.
func header(name, value string) change {
	return func(r *http.Request) { r.Header[name] = []string{value} }
}

func method(m string) change { return func(r *http.Request) { r.Method = m } }

func (e *examination) as(cookies string) change {
	return func(r *http.Request) {
		if cookies != "" {
			r.Header.Set("Cookie", cookies)
		}
	}
}

// ask asks the site for the target, exactly as it is written.
func (e *examination) ask(ctx context.Context, target string, changes ...change) (*answer, error) {
	return e.askAt(ctx, e.client, e.site, target, nil, changes...)
}

func (e *examination) askAt(ctx context.Context, client *http.Client, to *url.URL, target string, form url.Values, changes ...change) (*answer, error) {
	if e.made++; e.made > maxRequests && !e.leaving {
		return nil, ErrBudget
	}
	m, body := http.MethodGet, io.Reader(nil)
	if form != nil {
		m, body = http.MethodPost, strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(ctx, m, to.String()+"/", body)
	if err != nil {
		return nil, err
	}
	path, query, _ := strings.Cut(target, "?")
	plain, err := url.PathUnescape(path)
	if err != nil {
		return nil, err
	}
	r.URL = &url.URL{Scheme: to.Scheme, Host: to.Host, Path: plain, RawPath: path, RawQuery: query}
	r.Header.Set("User-Agent", "afterlogin-doctor/1")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", to.String())
	}
	for _, c := range changes {
		c(r)
	}
	a := &answer{target: target, sent: e.Now()}
	resp, err := client.Do(r)
	if err != nil {
		return nil, &failure{err}
	}
	defer resp.Body.Close()
	a.status, a.header, a.state, a.heard = resp.StatusCode, resp.Header, resp.TLS, e.Now()
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody)); err != nil {
		return nil, &failure{err}
	}
	return a, nil
}

// leads is where an answer redirects to; nil: nowhere.
func (e *examination) leads(a *answer) *url.URL {
	if a.status < 301 || a.status > 308 || a.status == 304 || a.header.Get("Location") == "" {
		return nil
	}
	path, _, _ := strings.Cut(a.target, "?")
	at := &url.URL{Scheme: e.site.Scheme, Host: e.site.Host, Path: path} // not parsed: //x would be a host
	to, err := at.Parse(a.header.Get("Location"))
	if err != nil {
		return nil
	}
	return to
}

// same reports whether the address is of the site.
func (e *examination) same(u *url.URL) bool {
	return u != nil && u.Scheme == e.site.Scheme && strings.EqualFold(u.Host, e.site.Host)
}

// signIn reports whether the address is the sign-in page of afterlogin on the site.
func (e *examination) signIn(u *url.URL) bool {
	return e.same(u) && strings.HasPrefix(u.Path, base+"login")
}

// like reports whether two answers are the same, as far as it matters who asked.
func (e *examination) like(a, b *answer) bool {
	x, y := e.leads(a), e.leads(b)
	return a.status == b.status && (x == nil) == (y == nil) && (x == nil || x.Host == y.Host && x.Path == y.Path)
}

// pathOnly is the path without what may be secret: the query, and long segments.
func pathOnly(target string) string {
	path, _, _ := strings.Cut(target, "?")
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if len(s) > 40 {
			segments[i] = s[:4] + "…"
		}
	}
	return clip(printable(strings.Join(segments, "/")), 120)
}

func clip(s string, n int) string { return site.Clip(s, n) }

func printable(s string) string { return site.Printable(s) }

// header of a signed-in visitor.
func (e *examination) cookieHeader() string {
	var pairs []string
	for name, value := range e.jar {
		pairs = append(pairs, name+"="+value)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "; ")
}
