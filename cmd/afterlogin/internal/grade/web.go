package grade

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/site"
)

// Bounds of what is read and asked.
const (
	maxBody      = 1 << 20
	maxRedirects = 10
	maxHeader    = 256 << 10
	maxPatience  = 5 * time.Second // how long a Retry-After is waited for
)

// Errors that end an examination.
var (
	// ErrNotAllowed is for an address that is neither on this machine nor among the allowed hosts.
	ErrNotAllowed = errors.New("not a host that may be examined")
	// ErrUnreachable is for a site that does not answer.
	ErrUnreachable = errors.New("the site cannot be reached")
	// ErrBudget is for an examination that has made as many requests as it may.
	ErrBudget = errors.New("as many requests as allowed have been made")
	// ErrSignIn is for a sign-in that cannot be found, or is refused.
	ErrSignIn = errors.New("sign-in")
	// ErrTell is for a page that looks the same to everybody.
	ErrTell = errors.New("signed in and signed out look the same")
	// ErrOption is for an option that cannot be.
	ErrOption = errors.New("option")

	// errPlain is part of an ErrSignIn: the password or token of a site with HTTPS would have gone over plain HTTP.
	errPlain = errors.New("over plain HTTP")
)

// web sends requests to the allowed hosts, and to nothing else.
type web struct {
	client   *http.Client
	allow    []string // as hostKey has them
	loopback bool     // whether any host of this machine may be asked
	every    time.Duration
	last     time.Time
	left     int
	made     int
	now      func() time.Time
	pinned   pins
	secrets  site.Secrets // every cookie and token that has been seen
}

// pins holds what the allowed names resolved to at first, so that a name cannot move between two requests.
type pins struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
}

// newWeb makes one for a site. Other hosts of this machine may be asked if the site is on it: what an examined site
// elsewhere says must not lead to what listens here.
func newWeb(o *Options, base *url.URL) *web {
	w := &web{every: o.Every, left: o.MaxRequests, now: o.Now, loopback: loopbackName(base.Hostname())}
	for _, h := range o.AllowHosts {
		w.allow = append(w.allow, hostKey(h))
	}
	w.pinned.addrs = make(map[string][]netip.Addr)
	for name, addr := range o.resolved {
		w.pinned.addrs[name] = []netip.Addr{addr}
	}
	if len(o.Password) >= 12 || strings.ContainsAny(o.Password, " 0123456789!?.,-_$%&/+*#") {
		w.secrets.Add(o.Password, "[password]") // others are words that reports are made of
	}
	w.client = &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			Proxy:                  nil, // a proxy of the environment would be asked for hosts that nobody allowed
			DialContext:            w.dial,
			TLSClientConfig:        &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        30 * time.Second,
			ResponseHeaderTimeout:  20 * time.Second,
			MaxResponseHeaderBytes: maxHeader,
			DisableCompression:     true, // a small answer could become a large one
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return w
}

func (w *web) close() { w.client.CloseIdleConnections() }

// loopbackName reports whether the host is this machine by its name alone.
func loopbackName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// hostKey is the host in the one spelling in which it is compared.
func hostKey(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return host
}

func (w *web) named(host string) bool { return slices.Contains(w.allow, hostKey(host)) }

// sameOrigin reports whether two addresses have the same scheme, host and port.
func sameOrigin(u, v *url.URL) bool {
	return u.Scheme == v.Scheme && hostKey(u.Hostname()) == hostKey(v.Hostname()) && port(u) == port(v)
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}

// origin is what a browser sends as Origin with a form of the page.
func origin(page *url.URL) string { return page.Scheme + "://" + page.Host }

// allowed reports whether the address may be asked, by its name. What the name resolves to is looked at by dial.
func (w *web) allowed(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return fmt.Errorf("%w: %.60q is not an http or https address", ErrNotAllowed, u.Scheme+"://"+u.Host)
	case u.User != nil:
		return fmt.Errorf("%w: an address with a name and password in it", ErrNotAllowed)
	case w.loopback && loopbackName(u.Hostname()), w.named(u.Hostname()):
		return nil
	case loopbackName(u.Hostname()):
		return fmt.Errorf("%w: %.100q; the site is not on this machine, so that hosts of this machine are not asked unless they are named with --allow-host", ErrNotAllowed, u.Hostname())
	}
	return fmt.Errorf("%w: %.100q; only sites on this machine are examined, and hosts named with --allow-host", ErrNotAllowed, u.Hostname())
}

// dial resolves the host, and connects only if all it resolves to may be asked: loopback addresses for a name of this
// machine, and what it resolved to at first for a host that was named.
func (w *web) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	addrs, err := w.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: 10 * time.Second}
	var last error
	for _, ip := range addrs {
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(ip.String(), port))
		if err == nil {
			return c, nil
		}
		last = err
	}
	return nil, last
}

func (w *web) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	w.pinned.mu.Lock()
	defer w.pinned.mu.Unlock()
	if addrs := w.pinned.addrs[host]; addrs != nil {
		return addrs, nil
	}
	var addrs []netip.Addr
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		// RFC 6761, section 6.3: nobody need be asked.
		addrs = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	} else if ip, err := netip.ParseAddr(name); err == nil {
		addrs = []netip.Addr{ip}
	} else if addrs, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%.100q has no address", host)
	}
	for _, ip := range addrs {
		ip = ip.Unmap()
		if ip.IsLoopback() {
			continue
		}
		if !w.named(host) || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() {
			return nil, fmt.Errorf("%w: %.100q resolves to %v", ErrNotAllowed, host, ip)
		}
	}
	w.pinned.addrs[host] = addrs
	return addrs, nil
}

// An answer is one response, its body cut off at 1 MiB.
type answer struct {
	method        string
	url           *url.URL
	status        int
	header        http.Header
	body          []byte
	cut           bool
	set           []setCookie
	before, after time.Time
}

// request is what is sent. Cookie is the whole header; empty: none.
type request struct {
	method      string
	url         *url.URL
	cookie      string
	bearer      string
	body        []byte
	contentType string
	accept      string
	origin      string // of the page that has the form
}

// do sends one request and follows nothing. An overload (429, 503) with a Retry-After is waited for, twice.
func (w *web) do(ctx context.Context, q request) (*answer, error) {
	for try := 0; ; try++ {
		a, err := w.once(ctx, q)
		if err != nil || try == 2 || a.status != http.StatusTooManyRequests && a.status != http.StatusServiceUnavailable {
			return a, err
		}
		seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
		if err != nil || seconds < 0 || time.Duration(seconds)*time.Second > maxPatience {
			return a, nil
		}
		if err := pause(ctx, time.Duration(seconds)*time.Second); err != nil {
			return nil, err
		}
	}
}

func (w *web) once(ctx context.Context, q request) (*answer, error) {
	if err := w.allowed(q.url); err != nil {
		return nil, err
	}
	if w.left <= 0 {
		return nil, fmt.Errorf("%w: %d", ErrBudget, w.made)
	}
	if err := pause(ctx, w.every-w.now().Sub(w.last)); err != nil {
		return nil, err
	}
	w.left, w.made = w.left-1, w.made+1
	w.last = w.now()
	u := *q.url
	u.Fragment, u.RawFragment = "", ""
	r, err := http.NewRequestWithContext(ctx, q.method, u.String(), bytes.NewReader(q.body))
	if err != nil {
		return nil, errors.New("an address that cannot be asked")
	}
	if len(q.body) == 0 {
		r.Body, r.GetBody, r.ContentLength = nil, nil, 0
	}
	r.Header.Set("User-Agent", "afterlogin-grade/1")
	r.Header.Set("Accept", q.accept)
	if q.accept == "" {
		r.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	}
	if q.contentType != "" {
		r.Header.Set("Content-Type", q.contentType)
		r.Header.Set("Origin", q.origin)
	}
	if q.cookie != "" {
		r.Header.Set("Cookie", q.cookie)
	}
	if q.bearer != "" {
		r.Header.Set("Authorization", "Bearer "+q.bearer)
	}
	a := &answer{method: q.method, url: q.url, before: w.now()}
	resp, err := w.client.Do(r)
	if err != nil {
		return nil, unreachable(ctx, q, err)
	}
	defer resp.Body.Close()
	a.status, a.header, a.after = resp.StatusCode, resp.Header, w.now()
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1)); err != nil {
		return nil, unreachable(ctx, q, err)
	}
	if len(a.body) > maxBody {
		a.body, a.cut = a.body[:maxBody], true
	}
	for _, line := range resp.Header["Set-Cookie"] {
		if c, ok := parseSetCookie(line); ok && len(a.set) < maxJar {
			a.set = append(a.set, c)
			w.secret(c.Value)
		}
	}
	return a, nil
}

// secret remembers a cookie or token, so that it is not printed, wherever the site puts it.
func (w *web) secret(value string) {
	if len(value) >= shortest {
		w.secrets.Add(value, mask(value))
	}
}

// unreachable names the request without its query, in which there may be a token, and the reason in words of its own.
func unreachable(ctx context.Context, q request, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, ErrNotAllowed) {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return err
	}
	return fmt.Errorf("%w: %s %s: %s", ErrUnreachable, q.method, place(q.url), site.Fault(err))
}

// place is the address without what may be secret in it: the query, parameters of the path, and long segments, which are
// tokens on some sites. Shorter tokens are taken out by whoever prints it, when they are known; segments are therefore
// left out whole.
func place(u *url.URL) string {
	path, _, _ := strings.Cut(u.EscapedPath(), ";")
	var b strings.Builder
	b.WriteString(u.Scheme + "://" + clip(printable(u.Host), 260))
	for i, s := range strings.Split(path, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		if i > 10 {
			b.WriteString("…")
			break
		}
		if len(s) > 20 {
			s = s[:4] + "…"
		}
		b.WriteString(s)
	}
	return b.String()
}

func clip(s string, n int) string { return site.Clip(s, n) }

func printable(s string) string { return site.Printable(s) }

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
