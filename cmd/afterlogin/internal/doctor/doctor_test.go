package doctor

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A fault is something that is wrong with a deployment.
type fault string

const password = "tea and biscuits"

// deployment plays a proxy, afterlogin and an application. With no fault it is as it should be.
type deployment struct {
	faults  map[fault]bool
	origin  string
	session string // the one that is valid, while it is
	asked   int    // by strangers, for the page or a spelling of it
	during  func() // is called when the application's echo is asked for
}

// patience is how many questions of strangers are answered by a deployment that then has had enough.
const patience = 9

// enough reports whether the deployment refuses the question for its number alone, and does.
func (d *deployment) enough(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Cookie") != "" || strings.HasPrefix(r.RequestURI, base) {
		return false
	}
	if d.asked++; d.asked <= patience {
		return false
	}
	switch {
	case d.has("limited"), d.has("limited now and then") && d.asked%10 == 0:
		w.WriteHeader(http.StatusTooManyRequests)
	case d.has("walled off"):
		w.WriteHeader(http.StatusForbidden)
	case d.has("hangs up"), d.has("hangs up now and then") && d.asked%10 == 0:
		panic(http.ErrAbortHandler)
	default:
		return false
	}
	return true
}

func (d *deployment) has(f fault) bool { return d.faults[f] }

func (d *deployment) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.has("no HSTS") {
	} else if d.has("short HSTS") {
		w.Header().Set("Strict-Transport-Security", "max-age=3600")
	} else {
		w.Header().Set("Strict-Transport-Security", `includeSubDomains; max-age="63072000"`)
	}
	if d.has("clock") {
		w.Header().Set("Date", time.Now().Add(-10*time.Minute).UTC().Format(http.TimeFormat))
	}
	if d.has("clock a little") {
		w.Header().Set("Date", time.Now().Add(15*time.Second).UTC().Format(http.TimeFormat))
	}
	if d.enough(w, r) {
		return
	}
	path := r.URL.EscapedPath()
	raw, _, _ := strings.Cut(r.RequestURI, "?")
	switch {
	case d.has("down"):
		w.WriteHeader(http.StatusBadGateway)
	case d.has("forward-auth outside") && strings.HasPrefix(raw, "/forward-auth"):
		w.WriteHeader(http.StatusBadRequest)
	case d.has("metrics outside") && raw == "/metrics":
		io.WriteString(w, "# HELP afterlogin_sessions Sessions.\n")
	case d.has("api outside") && raw == "/v1/sessions":
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusUnauthorized)
	case raw == base+"login" && !d.has("loop"):
		d.login(w, r)
	case raw == base+"logout":
		d.logout(w, r)
	case d.has("prefix match") && strings.HasPrefix(raw, base) && strings.Contains(raw, ".."):
		io.WriteString(w, "the private page")
	case strings.HasPrefix(raw, base) && !d.has("loop"):
		w.WriteHeader(http.StatusNotFound)
	case strings.Contains(raw, "//") && !d.has("double slash") || strings.Contains(strings.ToLower(raw), "%2f") && !d.has("encoded slash"):
		w.WriteHeader(http.StatusBadRequest)
	default:
		d.page(w, r, path)
	}
}

// who is signed in, as afterlogin sees it; empty: nobody.
func (d *deployment) who(r *http.Request) string {
	cookies := r.CookiesNamed("__Host-Http-session_id")
	if len(cookies) == 1 || len(cookies) > 1 && d.has("first cookie wins") {
		if d.session != "" && cookies[0].Value == d.session {
			return "mia"
		}
	}
	return ""
}

// page is what the proxy does with everything else.
func (d *deployment) page(w http.ResponseWriter, r *http.Request, path string) {
	subject := d.who(r)
	get := func(name string) string {
		if v := r.Header[name]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	pass := subject != "" || d.has("open") || d.has("open to programs") && !strings.Contains(r.Header.Get("Accept"), "html") ||
		d.has("believes headers") && r.Header.Get("X-Auth-Subject") != "" ||
		d.has("believes underscores") && (get("x_auth_subject") != "" || get("X_auth_subject") != "" || get("X_Auth_Subject") != "") ||
		d.has("believes a target") && strings.HasPrefix(r.Header.Get("X-Forwarded-Uri"), base) ||
		d.has("believes a method") && r.Header.Get("X-Forwarded-Method") == "OPTIONS" ||
		d.has("believes the original") && r.Header.Get("X-Original-Url") != "" ||
		d.has("believes the original URI") && r.Header.Get("X-Original-Uri") != "" ||
		d.has("believes a rewrite") && r.Header.Get("X-Rewrite-Url") != "" ||
		d.has("double slash") && strings.HasPrefix(r.RequestURI, "//") ||
		d.has("encoded slash") && strings.Contains(strings.ToLower(r.RequestURI), "%2f") ||
		d.has("static suffix") && strings.HasSuffix(path, ".css") ||
		d.has("HEAD passes") && r.Method == http.MethodHead
	if !pass {
		d.refuse(w, r)
		return
	}
	switch {
	case d.has("public cache"):
		w.Header().Set("Cache-Control", "public, max-age=60")
	case !d.has("no cache header"):
		w.Header().Set("Cache-Control", "no-store")
	}
	if d.has("assertion in answer") {
		w.Header().Set("X-Auth-Assertion", "eyJhbGciOiJub25lIn0.e30.")
	}
	if d.has("subject in answer") {
		w.Header().Set("X-Auth-Subject", subject)
	}
	if d.has("member refused") && subject != "" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if r.URL.Path == "/headers" {
		if d.during != nil {
			d.during()
		}
		d.echo(w, r, subject)
		return
	}
	io.WriteString(w, "the private page")
}

// echo is the application's page that shows what reached it.
func (d *deployment) echo(w http.ResponseWriter, r *http.Request, subject string) {
	for name, values := range r.Header {
		fold := strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name))
		identity := slices.ContainsFunc(identities, func(i string) bool { return strings.EqualFold(i, fold) })
		switch {
		case identity && d.has("underscores arrive") && strings.Contains(name, "_"):
		case identity && d.has("dots arrive") && strings.Contains(name, "."):
		case slices.ContainsFunc(aliens, func(i string) bool { return strings.EqualFold(i, fold) }) && d.has("others arrive"):
		case slices.ContainsFunc(aliens, func(i string) bool { return strings.EqualFold(i, fold) }):
			continue
		case identity, fold == "cookie" && !d.has("cookie arrives"):
			continue
		}
		fmt.Fprintf(w, "%s: %s\n", name, strings.Join(values, ", "))
	}
	if d.has("Connection drops") && strings.Contains(r.Header.Get("Connection"), "X-Auth") || d.has("no headers") {
		return
	}
	fmt.Fprintf(w, "X-Auth-Subject: %s\n", subject)
	if !d.has("no assertion") {
		io.WriteString(w, "X-Auth-Assertion: eyJhbGciOiJFZERTQSJ9.e30.c2ln\n")
	}
}

// refuse is what strangers are answered.
func (d *deployment) refuse(w http.ResponseWriter, r *http.Request) {
	browser := strings.Contains(r.Header.Get("Accept"), "html") || d.has("programs are redirected")
	switch {
	case d.has("error for strangers"):
		w.WriteHeader(http.StatusInternalServerError)
	case browser && !d.has("no redirect"):
		origin := d.origin
		if d.has("redirect to http") {
			origin = "http" + strings.TrimPrefix(origin, "https")
		}
		if h := r.Header.Get("X-Forwarded-Host"); h != "" && d.has("believes a host") {
			origin = "https://" + h
		}
		to := origin + base + "login"
		if !d.has("no return") {
			to += "?return_to=" + url.QueryEscape(r.URL.RequestURI())
		}
		if d.has("other sign-in") {
			to = "/members/login"
		}
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusSeeOther)
	default:
		if !d.has("no challenge") {
			w.Header().Set("WWW-Authenticate", `Bearer realm="session"`)
		}
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func (d *deployment) set(w http.ResponseWriter, name, value string, age int) {
	c := &http.Cookie{Name: name, Value: value, Path: "/", Secure: !d.has("no Secure"), HttpOnly: !d.has("no HttpOnly"), SameSite: http.SameSiteLaxMode, MaxAge: age}
	if d.has("Domain") {
		c.Domain = "shop.localhost"
	}
	http.SetCookie(w, c)
}

func (d *deployment) login(w http.ResponseWriter, r *http.Request) {
	if !d.has("page is kept") {
		w.Header().Set("Cache-Control", "no-store")
	}
	if !d.has("frame") {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	}
	if d.has("no page") {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if r.Method == http.MethodPost {
		if r.PostFormValue("name") != "mia" || r.PostFormValue("password") != password {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return
		}
		if c, err := r.Cookie("__Host-csrf"); err != nil || c.Value != r.PostFormValue("csrf") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		d.session = "als_" + strings.Repeat("A", 84)
		if !d.has("cookie is lost") {
			d.set(w, "__Host-Http-session_id", d.session, 0)
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	d.set(w, "__Host-csrf", "0123456789abcdef", 0)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if d.has("no form") {
		io.WriteString(w, "<p>Sign in where you work.")
		return
	}
	action := base + "login"
	if d.has("form elsewhere") {
		action = "http://" + elsewhere.Listener.Addr().String() + "/login"
	}
	io.WriteString(w, `<form method="post" action="`+action+`"><input type=hidden name=csrf value=0123456789abcdef><input name=name autocomplete=username><input type=password name=password></form>`)
}

func (d *deployment) logout(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Method == http.MethodPost {
		d.session = ""
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	io.WriteString(w, `<form method="post" action="`+base+`logout"><button>Sign out</button></form>`)
}

// elsewhere is another host, where nothing may arrive.
var (
	elsewhere      *httptest.Server
	askedElsewhere atomic.Int32
)

func TestMain(m *testing.M) {
	elsewhere = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { askedElsewhere.Add(1) }))
	code := m.Run()
	elsewhere.Close()
	os.Exit(code)
}

// certificate makes one for shop.localhost that is good for so long.
func certificate(t *testing.T, life time.Duration) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	certificates.Lock()
	defer certificates.Unlock()
	if m, ok := certificates.made[life]; ok {
		return m.cert, m.pool
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shop.localhost"}, DNSNames: []string{"shop.localhost"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(life), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	m := made{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool}
	certificates.made[life] = m
	return m.cert, m.pool
}

type made struct {
	cert tls.Certificate
	pool *x509.CertPool
}

var certificates = struct {
	sync.Mutex
	made map[time.Duration]made
}{made: make(map[time.Duration]made)}

// serve starts the deployment at https://shop.localhost.
func serve(t *testing.T, life time.Duration, old bool, faults ...fault) (*deployment, Options) {
	t.Helper()
	d := &deployment{faults: make(map[fault]bool)}
	for _, f := range faults {
		d.faults[f] = true
	}
	cert, pool := certificate(t, life)
	s := httptest.NewUnstartedServer(d)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	if old {
		s.TLS.MinVersion = tls.VersionTLS10
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	u, _ := url.Parse(s.URL)
	d.origin = "https://shop.localhost:" + u.Port()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case d.has("plain page"):
			io.WriteString(w, "the private page")
		case d.has("plain cookie"):
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
			w.WriteHeader(http.StatusForbidden)
		case d.has("plain elsewhere"):
			http.Redirect(w, r, "http://www.shop.localhost/", http.StatusFound)
		default:
			http.Redirect(w, r, "https://shop.localhost/", http.StatusMovedPermanently)
		}
	}))
	t.Cleanup(plain.Close)
	p, _ := url.Parse(plain.URL)
	return d, Options{URL: d.origin + "/private?a=1", Roots: pool, User: "mia", Password: password, Echo: "/headers", elsewhere: true, plainPort: p.Port()}
}

func run(t *testing.T, o Options) *Report {
	t.Helper()
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := r.Text(&text); err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{password, strings.Repeat("A", 40), "0123456789abcdef"} {
		if strings.Contains(text.String()+string(doc), secret) {
			t.Errorf("the report has %q in it", secret)
		}
	}
	return r
}

// wrong are the checks that failed or warn, with what they say.
func wrong(r *Report) string {
	var list []string
	for _, c := range r.Checks {
		if c.Result == Fail || c.Result == Warn {
			list = append(list, c.ID+" "+c.Result)
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func text(r *Report) string {
	var b strings.Builder
	r.Text(&b)
	return b.String()
}

// TestFaults breaks one thing at a time: what is found is what is broken, and a deployment that is in order is found so.
func TestFaults(t *testing.T) {
	t.Parallel()
	for f, want := range map[fault]string{
		"":                          "",
		"down":                      "locked fail, reach fail, sign-in-page fail",
		"open":                      "locked fail",
		"open to programs":          "locked fail",
		"no redirect":               "redirect fail",
		"no return":                 "redirect warn",
		"redirect to http":          "redirect fail",
		"other sign-in":             "redirect warn, loop fail",
		"programs are redirected":   "challenge warn",
		"no challenge":              "challenge fail",
		"loop":                      "loop fail",
		"no page":                   "sign-in-page fail",
		"no form":                   "sign-in-page warn",
		"page is kept":              "sign-in-page fail",
		"frame":                     "sign-in-page fail",
		"error for strangers":       "locked fail, reach fail",
		"believes headers":          "forged-identity fail",
		"believes underscores":      "forged-identity fail",
		"believes a target":         "forged-target fail",
		"believes a method":         "forged-target fail",
		"believes the original":     "forged-target fail",
		"believes the original URI": "forged-target fail",
		"believes a rewrite":        "forged-target fail",
		"form elsewhere":            "member fail",
		"limited":                   "",
		"limited now and then":      "",
		"walled off":                "",
		"hangs up now and then":     "",
		"believes a host":           "forged-target fail",
		"HEAD passes":               "forged-target fail",
		"double slash":              "paths fail",
		"encoded slash":             "paths fail",
		"prefix match":              "paths fail",
		"static suffix":             "paths fail",
		"forward-auth outside":      "hidden fail",
		"metrics outside":           "hidden fail",
		"api outside":               "hidden fail",
		"clock":                     "clock fail",
		"clock a little":            "clock warn",
		"no HSTS":                   "hsts warn",
		"short HSTS":                "hsts warn",
		"plain page":                "plain-http fail",
		"plain cookie":              "plain-http fail",
		"plain elsewhere":           "plain-http warn",
		"no Secure":                 "cookie fail",
		"no HttpOnly":               "cookie fail",
		"Domain":                    "cookie fail",
		"cookie is lost":            "cookie fail, member fail",
		"member refused":            "member fail",
		"public cache":              "cache fail",
		"no cache header":           "cache warn",
		"assertion in answer":       "inside-headers fail",
		"subject in answer":         "inside-headers warn",
		"first cookie wins":         "two-cookies warn",
		"underscores arrive":        "echo fail",
		"dots arrive":               "echo fail",
		"cookie arrives":            "echo fail",
		"Connection drops":          "echo fail",
		"no headers":                "echo fail",
		"no assertion":              "echo warn",
		"others arrive":             "echo warn",
	} {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			d, o := serve(t, 90*24*time.Hour, false, f)
			r := run(t, o)
			sorted := strings.Split(want, ", ")
			slices.Sort(sorted)
			if got := wrong(r); got != strings.Join(sorted, ", ") {
				t.Errorf("found %q, want %q\n%s", got, want, text(r))
			}
			if d.session != "" && f != "cookie is lost" {
				t.Error("it stays signed in")
			}
			if r.Requests > maxRequests || r.Stopped != "" {
				t.Errorf("%d requests, stopped: %q", r.Requests, r.Stopped)
			}
			if f == "form elsewhere" && !strings.Contains(text(r), "leads to another site; nothing was sent") {
				t.Errorf("%s", text(r))
			}
			if askedElsewhere.Load() > 0 {
				t.Error("something arrived elsewhere")
			}
			unjudged := f == "limited" || f == "limited now and then" || f == "walled off"
			if unjudged != (want == "" && r.Verdict == Warn) {
				t.Errorf("verdict %s\n%s", r.Verdict, text(r))
			}
			for _, id := range []string{"forged-identity", "forged-target", "paths", "hidden"} {
				if got := r.result(id); want == "" && unjudged != (got == Skipped) {
					t.Errorf("%s: %s\n%s", id, got, text(r))
				}
			}
			for _, c := range r.Checks {
				if f == "" && c.Result != OK {
					t.Errorf("%s: %s %q", c.ID, c.Result, c.Seen)
				}
			}
			if f == "" {
				t.Logf("%d requests", r.Requests)
			}
		})
	}
}

// TestHangsUp checks that a site which stops answering is not found to refuse what is forged.
func TestHangsUp(t *testing.T) {
	t.Parallel()
	_, o := serve(t, 90*24*time.Hour, false, "hangs up")
	r := run(t, o)
	if r.Verdict != Warn || r.Stopped == "" || r.result("forged-identity") != Skipped || r.result("paths") == OK || r.result("hidden") == OK {
		t.Errorf("%s", text(r))
	}
}

// TestBudget checks that an examination which has asked enough ends, says so, and signs out all the same.
func TestBudget(t *testing.T) {
	t.Parallel()
	d, o := serve(t, 90*24*time.Hour, false)
	signedIn := false
	d.during = func() { signedIn = d.session != "" }
	for name, left := range map[string]int{"among the forged headers": 20, "as somebody who is signed in": 12} {
		e := &examination{Options: o, report: &Report{Version: 1}, made: maxRequests - left}
		if err := e.open(); err != nil {
			t.Fatal(err)
		}
		steps := []func(context.Context) error{e.strangers, e.signInPage, e.member}
		if left == 20 {
			steps = []func(context.Context) error{e.strangers, e.signInPage, e.forgedIdentity}
		}
		var err error
		for _, step := range steps {
			if err = step(t.Context()); err != nil {
				break
			}
		}
		e.client.CloseIdleConnections()
		if !errors.Is(err, ErrBudget) || d.session != "" {
			t.Errorf("%s: %v, signed in: %v", name, err, d.session != "")
		}
	}
	if !signedIn {
		t.Error("nobody has been signed in")
	}
}

// TestSettle checks that requests which got no answer are a refusal only if they are few.
func TestSettle(t *testing.T) {
	t.Parallel()
	_, o := serve(t, 90*24*time.Hour, false)
	e := &examination{Options: o, report: &Report{Version: 1}}
	if err := e.open(); err != nil {
		t.Fatal(err)
	}
	defer e.client.CloseIdleConnections()
	if err := e.strangers(t.Context()); err != nil {
		t.Fatal(err)
	}
	for silent, want := range map[int]string{0: OK, 5: OK, 6: Skipped, 10: Skipped} {
		e.report = &Report{}
		if err := e.settle(t.Context(), &block{id: "paths", asked: 10, silent: silent}); err != nil || e.report.result("paths") != want || e.report.doubtful != (want != OK) {
			t.Errorf("%d of 10: %v, %s, want %s", silent, err, e.report.result("paths"), want)
		}
	}
	e.report = &Report{}
	e.report.record("reach", OK, "a\u009b2Jb")
	e.report.finish(e)
	if seen := e.report.Checks[0].Seen[0]; seen != "a?2Jb" {
		t.Errorf("%q", seen)
	}
	e.report.Checks[0].Seen[0] = "a\x1b[2Jb"
	if strings.ContainsRune(text(e.report), '\x1b') {
		t.Errorf("%q", text(e.report))
	}
}

// TestLeaves breaks an examination off while somebody is signed in: the session is ended all the same.
func TestLeaves(t *testing.T) {
	t.Parallel()
	d, o := serve(t, 90*24*time.Hour, false)
	ctx, cancel := context.WithCancel(t.Context())
	d.during = func() {
		if d.session == "" {
			t.Error("nobody is signed in")
		}
		cancel()
	}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) || d.session != "" {
		t.Errorf("%v, still signed in: %v", err, d.session != "")
	}
}

// TestSecrets has the site put secrets where they would be quoted.
func TestSecrets(t *testing.T) {
	t.Parallel()
	const secret = "als_0123456789abcd"
	for _, location := range []string{"/%zz?sid=" + secret, "/members/" + secret, "https://" + secret + ".shop.example/", "https://a\u009b2Jb/"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Location"] = []string{location}
			w.WriteHeader(http.StatusFound)
		}))
		r, err := Run(t.Context(), Options{URL: s.URL, Cookies: "sid=" + secret})
		s.Close()
		said := fmt.Sprint(err)
		if err == nil {
			doc, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			said = text(r) + string(doc)
		}
		if strings.Contains(said, secret) || strings.Contains(said, "\u009b") {
			t.Errorf("%q: %s", location, said)
		}
	}
}

func TestTransport(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	for name, tt := range map[string]struct {
		life     time.Duration
		old      bool
		distrust bool
		want     string
	}{
		"ends in a day":   {day, false, false, "certificate fail"},
		"ends in a week":  {7 * day, false, false, "certificate warn"},
		"ended":           {-day, false, false, "certificate fail"},
		"signed by whom?": {90 * day, false, true, "certificate fail"},
		"TLS 1.0":         {90 * day, true, false, "tls fail"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, o := serve(t, tt.life, tt.old)
			if tt.distrust {
				o.Roots = x509.NewCertPool()
			}
			r := run(t, o)
			if got := wrong(r); got != tt.want {
				t.Errorf("found %q, want %q\n%s", got, tt.want, text(r))
			}
			if bad := tt.life < 0 || tt.distrust; bad != (r.result("member") == Skipped) || bad && d.session != "" {
				t.Errorf("signed in with a certificate that is bad: %v\n%s", bad, text(r))
			}
		})
	}
	// Plain HTTP that is not on this machine.
	d, o := serve(t, 90*day, false)
	s := httptest.NewServer(d)
	defer s.Close()
	o.URL, o.plainPort = s.URL, "80"
	d.origin = s.URL
	if r := run(t, o); !strings.Contains(wrong(r), "tls fail") || r.result("member") != Skipped || d.session != "" {
		t.Errorf("plain HTTP elsewhere: %s", text(r))
	}
}

// TestOwnCertificate checks that afterlogin's own certificate is looked at, whatever the site's is like.
func TestOwnCertificate(t *testing.T) {
	t.Parallel()
	_, o := serve(t, 90*24*time.Hour, false)
	o.Roots = x509.NewCertPool()
	own := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	own.Config.ErrorLog = log.New(io.Discard, "", 0)
	own.StartTLS()
	defer own.Close()
	o.Afterlogin = own.URL
	if r := run(t, o); r.result("certificate") != Fail || r.result("ready") != Fail {
		t.Errorf("%s", text(r))
	}
}

// TestOwn asks afterlogin itself.
func TestOwn(t *testing.T) {
	t.Parallel()
	_, o := serve(t, 90*24*time.Hour, false)
	ready := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"status":"unavailable","reason":"the clock differs from the store's"}`)
		}
	}))
	defer ready.Close()
	for address, want := range map[string]string{ready.URL: OK, ready.URL + "/sick": Fail, "http://127.0.0.1:1": Fail} {
		o.Afterlogin = address
		r := run(t, o)
		if r.result("ready") != want {
			t.Errorf("%s: %s", address, text(r))
		}
		if strings.HasSuffix(address, "sick") && !strings.Contains(text(r), "the clock differs") {
			t.Errorf("the reason is not told: %s", text(r))
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{
		{}, {URL: "shop.example.com"}, {URL: "ftp://shop.example.com"}, {URL: "https://mia:pw@shop.example.com"},
		{URL: "https://localhost", Path: "private"}, {URL: "https://localhost", Path: "//private"}, {URL: "https://localhost", Echo: "/a b"},
		{URL: "https://localhost", User: "mia"}, {URL: "https://localhost", User: "mia", Password: "x", Cookies: "a=b"},
		{URL: "https://localhost", Cookies: "a=b\r\nX: y"}, {URL: "https://localhost", Afterlogin: "localhost:7070"},
	} {
		if _, err := Run(t.Context(), o); !errors.Is(err, ErrOption) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	if _, err := Run(t.Context(), Options{URL: gone.URL}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Options{URL: gone.URL}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzTransportSecurity(f *testing.F) {
	for _, s := range []string{"max-age=31536000", `includeSubDomains; MAX-AGE = "1"`, "max-age=-1", ";;=", "max-age=99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if n := maxAge(value); n < -1 || n >= 0 && !strings.Contains(strings.ToLower(value), "max-age") {
			t.Errorf("%q: %d", value, n)
		}
	})
}

// TestDocumented checks that docs/doctor.md has every check, as it is.
func TestDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		if row := fmt.Sprintf("| `%s` | %s |", k.id, k.title); !strings.Contains(string(doc), row) {
			t.Errorf("docs/doctor.md lacks:\n%s", row)
		}
	}
}
