package snippet_test

import (
	"bufio"
	"cmp"
	"crypto/ed25519"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/snippet"
	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// house is a real proxy with what snippet prints, an application behind it that knows nothing of afterlogin, and
// afterlogin beside it.
type house struct {
	t *testing.T
	*afterlogin.Authority
	store  *storetest.Faulty
	proxy  *servers.Process
	app    *app
	pages  *pages
	scheme string
	origin string
	host   string // the origin without scheme
	addr   string // where the proxy listens
	clock  *clock
	name   string // of the host, if it is another than shop.localhost
}

const issuer = "https://id.example"

// clock is real time, and what the test has let pass beside it.
type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// setup is what a house has that is not always so.
type setup struct {
	rules  []gateway.Rule
	name   string // of the host, shop.localhost if it is empty
	tls    bool
	weaken func(string) string // changes the configuration; nil for exactly what is printed
}

// start puts up everything.
func start(t *testing.T, kind string, with setup) *house {
	t.Helper()
	h := &house{t: t, clock: &clock{}, store: storetest.NewFaulty(memstore.New(), nil), scheme: "http", name: with.name}
	if with.tls {
		h.scheme = "https"
	}
	keys := keyring.New()
	var err error
	if h.Authority, err = afterlogin.New(afterlogin.Config{Store: h.store, Keys: keys, Issuer: issuer, Now: h.clock.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Authority.Close() })
	h.app = newApp(t)
	h.pages = newPages(t)
	h.proxy = startProxy(t, kind, h.app.addr, h.pages.addr, with)
	h.addr = h.proxy.Addr
	_, port, _ := net.SplitHostPort(h.addr)
	h.host = cmp.Or(with.name, "shop.localhost") + ":" + port
	h.origin = h.scheme + "://" + h.host
	g, err := gateway.New(gateway.Options{
		Authority: h.Authority, Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Apps: []gateway.App{{Origin: h.origin, Rules: with.rules}}, Now: h.clock.now,
		Sign: func(typ string, c *jwt.Claims) (string, error) {
			k, err := keys.Signer(jwt.EdDSA, h.clock.now())
			if err != nil {
				return "", err
			}
			return k.Sign(typ, c)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	h.pages.serve(g)
	return h
}

// startProxy starts a proxy with what snippet prints for it. The kind is its name, and may go on with = and the program.
func startProxy(t *testing.T, kind, app, pages string, with setup) *servers.Process {
	t.Helper()
	dir := tempDir(t)
	kind, program, _ := strings.Cut(kind, "=")
	modules := []string{"headers", "lua", "proxy", "proxy_http", "ssl", "socache_shmcb"}
	config := func(addr string) string {
		_, port, _ := net.SplitHostPort(addr)
		o := snippet.Options{App: app, Host: cmp.Or(with.name, "shop.localhost") + ":" + port, Afterlogin: pages, Listen: addr}
		if with.tls {
			plain := false
			o.Plain, o.TLSCert, o.TLSKey = &plain, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
			if kind == "haproxy" {
				o.TLSKey = ""
			}
			certificate(t, cmp.Or(with.name, "shop.localhost"), o.TLSCert, filepath.Join(dir, "key.pem"), kind == "haproxy")
		}
		lua := kind == "haproxy" || kind == "apache"
		if lua {
			o.LuaPath = filepath.Join(dir, "afterlogin.lua")
		}
		files, err := snippet.Render(kind, o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range files {
			if with.weaken != nil {
				files[i].Content = with.weaken(files[i].Content)
			}
		}
		if lua {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(o.LuaPath, []byte(files[1].Content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return files[0].Content
	}
	var p *servers.Process
	var err error
	switch kind {
	case "nginx":
		p, err = servers.StartNginx(dir, config)
	case "caddy":
		if program == "" {
			program = "caddy"
		}
		p, err = servers.StartCaddyProgram(program, dir, config)
	case "haproxy":
		p, err = servers.StartHAProxy(dir, config)
	case "apache":
		p, err = servers.StartApache(dir, modules, config)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(dir, "output"))
			t.Logf("%s said: %s", kind, b[max(0, len(b)-3000):])
		}
	})
	return p
}

// certificate writes a certificate for the host and its key, into one file if both is set.
func certificate(t *testing.T, name, certFile, keyFile string, both bool) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, c, c, public, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	if both {
		cert = append(cert, secret...)
	}
	if err := os.MkdirAll(filepath.Dir(certFile), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(certFile, cert, 0o644), os.WriteFile(keyFile, secret, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// tempDir is t.TempDir without the name of the test, which is too long and too colourful for some configuration files.
func tempDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "snippet")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// signIn makes a session for somebody, and returns its cookie.
func (h *house) signIn(subject string) (cookie string, s *afterlogin.Session) {
	h.t.Helper()
	got, err := h.Issue(h.t.Context(), afterlogin.IssueRequest{Subject: subject})
	if err != nil {
		h.t.Fatal(err)
	}
	return httpauth.CookieName + "=" + got.Token.Reveal(), got.Session
}

// down has the store fail, or work again.
func (h *house) down(yes bool) {
	if !yes {
		h.store.SetHook(nil)
		return
	}
	h.store.SetHook(func(storetest.Call) storetest.Fault { return storetest.Fault{Before: errors.New("the store is down")} })
}

// An app is the application: it knows nothing of afterlogin, and answers with what it got.
type app struct {
	addr string

	mu   sync.Mutex
	seen []seen
}

// seen is a request as it came to the application.
type seen struct {
	Method, Target, Host string
	Header               http.Header
	Body                 string
	Trailer              http.Header // those that were announced
}

func (s seen) subject() string { return s.Header.Get("X-Auth-Subject") }

func newApp(t *testing.T) *app {
	a := &app{}
	a.addr = serve(t, http.HandlerFunc(a.ServeHTTP))
	return a
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	got := seen{r.Method, r.RequestURI, r.Host, r.Header.Clone(), string(body), r.Trailer}
	if err != nil {
		got.Body = "unreadable: " + err.Error()
	}
	a.mu.Lock()
	a.seen = append(a.seen, got)
	a.mu.Unlock()
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455, 4.2.2
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:]))
		rw.Flush()
		line, _ := rw.ReadString('\n')
		rw.WriteString("you said " + line)
		rw.Flush()
		return
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/cached"):
		w.Header().Set("Cache-Control", "max-age=60")
	case strings.HasPrefix(r.URL.Path, "/strict"):
		w.Header().Set("Strict-Transport-Security", "max-age=1")
	case strings.HasPrefix(r.URL.Path, "/refused"):
		w.WriteHeader(http.StatusForbidden)
	}
	w.Header().Set("Content-Type", "application/json")
	// Debian's Caddy 2.6.2 breaks off answers to large bodies now and then, asked or not, if they are large themselves.
	if len(got.Body) > 4096 {
		got.Body = fmt.Sprintf("%d bytes", len(got.Body))
	}
	json.NewEncoder(w).Encode(got)
}

// take returns what has come since it was called the last time.
func (a *app) take() []seen {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.seen
	a.seen = nil
	return s
}

// takeMarked returns what has come with a mark that begins so; with an empty one, everything.
func (a *app) takeMarked(mark string) (taken []seen) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var left []seen
	for _, s := range a.seen {
		if m := s.Header.Get("X-Mark"); mark == "" || m == mark || strings.HasPrefix(m, mark+" ") || strings.HasPrefix(m, mark+",") {
			taken = append(taken, s)
		} else {
			left = append(left, s)
		}
	}
	a.seen = left
	return taken
}

// pages is the server of afterlogin, which can be stopped and started.
type pages struct {
	t    *testing.T
	addr string

	mu     sync.Mutex
	inner  http.Handler
	server *http.Server
	judged []string // targets that were let through
	conns  int      // connections that were made
	bodies int      // questions that had a body
	strays []string // targets that are neither a question nor a page, as they came
}

func newPages(t *testing.T) *pages {
	p := &pages{t: t}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	p.listen(l)
	t.Cleanup(p.stop)
	return p
}

func (p *pages) listen(l net.Listener) {
	s := &http.Server{Handler: p, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			p.mu.Lock()
			p.conns++
			p.mu.Unlock()
		}
	}}
	p.mu.Lock()
	p.server = s
	p.mu.Unlock()
	go s.Serve(l)
}

func (p *pages) stop() {
	p.mu.Lock()
	s := p.server
	p.mu.Unlock()
	s.Close()
}

func (p *pages) again() {
	p.t.Helper()
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.listen(l)
}

func (p *pages) serve(g *gateway.Gateway) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inner = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case gateway.Handles(r):
			n, _ := io.Copy(io.Discard, r.Body)
			rec := &recorder{ResponseWriter: w}
			g.ServeHTTP(rec, r)
			p.mu.Lock()
			defer p.mu.Unlock()
			if n > 0 {
				p.bodies++
			}
			if rec.status == http.StatusOK {
				p.judged = append(p.judged, r.Header.Get("X-Forwarded-Uri"))
			}
		case r.URL.Path == gateway.BasePath+gateway.RenewPath:
			g.Renew(w, r)
		default:
			site, err := g.Site(r)
			if err != nil {
				g.Refuse(w, r, err)
				return
			}
			json.NewEncoder(w).Encode(map[string]any{"page": r.RequestURI, "site": site.Origin, "headers": r.Header})
		}
	})
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	inner := p.inner
	switch uri, _, _ := strings.Cut(r.RequestURI, "?"); {
	case strings.HasPrefix(uri, gateway.BasePath+"/"), uri == gateway.Path, uri == gateway.Path+"/nginx", uri == gateway.Path+"/answer":
	default:
		p.strays = append(p.strays, r.RequestURI)
	}
	p.mu.Unlock()
	inner.ServeHTTP(w, r)
}

type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// serve serves on a free loopback port until the test ends.
func serve(t *testing.T, handler http.Handler) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handler}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
	return l.Addr().String()
}

// An answer is what a client got.
type answer struct {
	*http.Response
	body string
	app  *seen // what the application says it got, if it was the application that answered
}

// do sends a request to the proxy as a well-behaved client does. headers are lines, "Name: value".
func (h *house) do(method, target, body string, headers ...string) answer {
	h.t.Helper()
	r, err := http.NewRequest(method, h.scheme+"://"+h.addr+target, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Host = h.host
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	ask := client
	if h.name != "" {
		own := client.Transport.(*http.Transport).Clone()
		own.TLSClientConfig.ServerName = h.name
		defer own.CloseIdleConnections()
		ask = &http.Client{Timeout: client.Timeout, Transport: own, CheckRedirect: client.CheckRedirect}
	}
	resp, err := ask.Do(r)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, target, err)
	}
	a := answer{Response: resp, body: string(b)}
	var s seen
	if json.Unmarshal(b, &s) == nil && s.Method != "" {
		a.app = &s
	}
	return a
}

var client = &http.Client{
	Timeout: 20 * time.Second,
	Transport: &http.Transport{
		// The certificates are the tests' own, and by this name Caddy finds its.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "shop.localhost"}, ForceAttemptHTTP2: true,
	},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// navigation are the headers of a browser that opens a page.
var navigation = []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: none", "Accept: text/html,application/xhtml+xml,*/*;q=0.8"}

// identity verifies what a request says of who it is from, as an application would, and returns the claims; nil for
// nobody.
func (h *house) identity(s seen) (*jwt.Claims, error) {
	for name := range s.Header {
		folded := notAName.ReplaceAllString(strings.ToLower(name), "-")
		if strings.HasPrefix(folded, "x-auth") && !slices.Contains(identityHeaders, name) {
			return nil, fmt.Errorf("there is a header %s: %q", name, s.Header[name])
		}
	}
	for _, name := range identityHeaders {
		if v := s.Header[name]; len(v) != 1 || v[0] == "" {
			return nil, fmt.Errorf("%s is %q, want one value", name, v)
		}
	}
	get := s.Header.Get
	if get("X-Auth-Kind") == "none" {
		for _, name := range identityHeaders {
			if name != "X-Auth-Kind" && get(name) != "-" {
				return nil, fmt.Errorf("%s is %q, of nobody", name, get(name))
			}
		}
		return nil, nil
	}
	v := jwt.Verifier{Keys: h.JWKS(), Issuer: issuer, Audience: []string{h.origin}, Type: gateway.TypeAssertion, Now: h.clock.now}
	c, err := v.Verify(h.t.Context(), get("X-Auth-Assertion"))
	if err != nil {
		return nil, fmt.Errorf("the assertion: %w", err)
	}
	// The sid of a token is that of the session it came from, whose id the token's begins with.
	handle := func(id string) string { return id[strings.IndexByte(id, '_')+1:] }
	if c.Subject != get("X-Auth-Subject") || !strings.HasPrefix(handle(get("X-Auth-Session")), handle(c.SessionID)) {
		return nil, fmt.Errorf("the assertion is of %s, %s; the headers say %s, %s", c.Subject, c.SessionID, get("X-Auth-Subject"), get("X-Auth-Session"))
	}
	return c, nil
}

// notAName is what programs that make variables of headers write _ for.
var notAName = regexp.MustCompile(`[^a-z0-9]`)

var identityHeaders = []string{"X-Auth-Subject", "X-Auth-Session", "X-Auth-Kind", "X-Auth-Scopes", "X-Auth-Time", "X-Auth-Assertion"}

// clean says what is wrong with a request beside who it is from: it must be about what was judged, and hold no secret.
func (h *house) clean(s seen, secrets ...string) error {
	h.pages.mu.Lock()
	judged := slices.Contains(h.pages.judged, s.Target)
	h.pages.mu.Unlock()
	var errs []error
	if !judged {
		errs = append(errs, fmt.Errorf("%q was never let through", s.Target))
	}
	if s.Host != h.host {
		errs = append(errs, fmt.Errorf("the host is %q", s.Host))
	}
	for name, want := range map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "X-Forwarded-Host": h.host, "X-Forwarded-Proto": h.scheme} {
		if got := s.Header[name]; len(got) != 1 || got[0] != want {
			errs = append(errs, fmt.Errorf("%s is %q", name, got))
		}
	}
	for name, values := range s.Trailer {
		if len(values) > 0 {
			errs = append(errs, fmt.Errorf("there is a trailer %s: %q", name, values))
		}
	}
	for name, values := range s.Header {
		switch folded := strings.ReplaceAll(strings.ToLower(name), "_", "-"); folded {
		case "x-original-url", "x-rewrite-url", "x-forwarded-uri", "x-forwarded-method", "x-forwarded-prefix", "forwarded", "x-http-method-override", "x-api-key",
			"remote-user", "x-remote-user", "x-remote-name", "x-remote-email", "x-remote-groups", "x-webauth-user", "x-webauth-name", "x-webauth-email",
			"x-webauth-groups", "x-webauth-role", "x-authenticated-user", "x-forwarded-user", "x-forwarded-client-cert", "x-forwarded-tls-client-cert",
			"true-client-ip", "cf-connecting-ip", "x-cluster-client-ip":
			errs = append(errs, fmt.Errorf("there is a header %s: %q", name, values))
		case "connection":
			if got := strings.ToLower(strings.Join(values, ",")); got != "upgrade" && got != "close" && got != "keep-alive" {
				errs = append(errs, fmt.Errorf("Connection is %q", values))
			}
		}
		for _, v := range values {
			for _, secret := range append(secrets, httpauth.CookieName) {
				if secret != "" && strings.Contains(v, secret) {
					errs = append(errs, fmt.Errorf("a credential is in %s", name))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// raw sends bytes, and reads answers until the connection is closed or nothing more comes.
func raw(addr, method, request string) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	go io.WriteString(c, request)
	r := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusContinue {
			c.SetDeadline(time.Now().Add(40 * time.Millisecond)) // for an answer to what was smuggled
		}
	}
}
