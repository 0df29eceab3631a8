package grade

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/demo"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/grade/badshop"
)

// certificate is one for shop.localhost, and the pool that trusts it.
var certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shop.localhost"}, DNSNames: []string{"shop.localhost", "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
})

// secure serves the handler at https://shop.localhost.
func secure(t *testing.T, h http.Handler) (string, *x509.CertPool) {
	t.Helper()
	c, pool := certificate()
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{c}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "https://"), ":")
	return "https://shop.localhost:" + port + "/", pool
}

// examine runs the examination of a bad shop over TLS.
func examine(t *testing.T, o Options, weak ...badshop.Weakness) *Report {
	t.Helper()
	shop := &watched{h: badshop.New(weak...)}
	o.URL, o.Roots = secure(t, shop)
	r := run(t, o)
	doc, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	text := string(doc) + seen(r)
	for _, v := range shop.values {
		if len(v) >= 8 && (strings.Contains(text, v) || strings.Contains(text, v[:len(v)/2])) {
			t.Errorf("the report has a cookie in it: %s", v)
		}
	}
	return r
}

// watched remembers the cookies that a handler set.
type watched struct {
	h      http.Handler
	mu     sync.Mutex
	values []string
}

func (w *watched) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.h.ServeHTTP(rw, r)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range rw.Header()["Set-Cookie"] {
		c, _ := parseSetCookie(line)
		w.values = append(w.values, c.Value)
	}
}

func run(t *testing.T, o Options) *Report {
	t.Helper()
	o.User, o.Password = or(o.User, badshop.User), or(o.Password, badshop.Password)
	if o.Samples == 0 {
		o.Samples = 140
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var text, doc bytes.Buffer
	if err := r.Text(&text); err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(&doc).Encode(r); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text.String()+doc.String(), o.Password) && o.Password != "demo" {
		t.Errorf("the report has the password in it:\n%s", &text)
	}
	return r
}

// findings are the ids of the findings, sorted, with a severity that is not the kind's.
func findings(r *Report) (ids []string) {
	for _, c := range r.Checks {
		if c.Result == ResultFinding {
			id := c.ID
			if c.Severity != kinds[id].severity {
				id += " " + c.Severity
			}
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func seen(r *Report) string {
	var b strings.Builder
	r.Text(&b)
	return b.String()
}

// TestEachWeakness turns on one weakness at a time: what is found is what was planted, and nothing else.
func TestEachWeakness(t *testing.T) {
	t.Parallel()
	b := func(w ...badshop.Weakness) []badshop.Weakness { return w }
	for _, tt := range []struct {
		weak []badshop.Weakness
		want string // findings, separated by commas
	}{
		{b(), ""},
		{b(badshop.JWT), ""},
		{b(badshop.HiddenOut), ""},
		{b(badshop.LinkOut), ""},
		{b(badshop.Remember), ""},
		{b(badshop.SilentOut), ""},
		{b(badshop.HiddenOut, badshop.SurvivesOut), "sign-out"},
		{b(badshop.LinkOut, badshop.SurvivesOut), "sign-out"},
		{b(badshop.Counter), "token-counter,token-entropy"},
		{b(badshop.Time), "token-entropy,token-time"},
		{b(badshop.UUIDv1), "token-entropy,token-time"},
		{b(badshop.UserData), "token-user-data"},
		{b(badshop.MD5User), "token-entropy,token-repeats,token-user-data high"},
		{b(badshop.Short), "token-entropy"},
		{b(badshop.MD5Counter), "token-entropy,token-hash"},
		{b(badshop.MD5Time), "token-entropy,token-hash"},
		{b(badshop.UUIDv4), "token-entropy low"},
		{b(badshop.ULID), "token-entropy medium,token-time"},
		{b(badshop.Middling), "token-entropy medium"},
		{b(badshop.LowChance), "token-entropy"},
		{b(badshop.Huge), "cookie-size"},
		{b(badshop.NoSecure), "cookie-prefix,cookie-secure"},
		{b(badshop.NoHTTPOnly), "cookie-httponly"},
		{b(badshop.NoSameSite), "cookie-samesite"},
		{b(badshop.CrossSite), "cookie-samesite"},
		{b(badshop.NoPrefix), "cookie-prefix"},
		{b(badshop.Domain), "cookie-domain,cookie-prefix"},
		{b(badshop.LongLived), "cookie-lifetime"},
		{b(badshop.FirstWins), "cookie-twice"},
		{b(badshop.LastWins), "cookie-twice"},
		{b(badshop.TokenInPage), "token-in-body"},
		{b(badshop.Fixation), "fixation,sign-in-again"},
		{b(badshop.OldAlive), "fixation,sign-in-again"},
		{b(badshop.Adoption), "fixation-adopted"},
		{b(badshop.KeepsOld), "sign-in-again"},
		{b(badshop.SurvivesOut), "sign-out"},
		{b(badshop.CookieStays), "sign-out-cookie"},
		{b(badshop.TokenInURL), "token-in-url"},
		{b(badshop.TokenInLink), "token-in-url"},
		{b(badshop.QueryToken), "token-in-query"},
		{b(badshop.PathToken), "token-in-query"},
		{b(badshop.TokenInURL, badshop.QueryToken), "token-in-query,token-in-url"},
		{b(badshop.Public), "cache-cookie,cache-page high"},
		{b(badshop.NoCacheHeader), "cache-page"},
		{b(badshop.PrivateOnly), "cache-page low"},
		{b(badshop.Truncated), "token-lenient medium"},
		{b(badshop.AnyCase), "token-lenient"},
		{b(badshop.Extended), "token-lenient"},
		{b(badshop.Inline, badshop.HiddenOut), ""},
		{b(badshop.PublicLanding), ""},
		{b(badshop.PublicNews), ""},
		{b(badshop.PublicLanding, badshop.Public), "cache-cookie,cache-page high"},
		{b(badshop.TokenInPath), "token-entropy medium,token-in-url"},
		{b(badshop.TokenRefresh), "token-in-url"},
		{b(badshop.YearCookie), "cookie-lifetime medium"},
		{b(badshop.ShortByOne), "token-lenient"},
		{b(badshop.AdoptsEarly), "fixation-adopted"},
		{b(badshop.JWT, badshop.NoJTI), ""},
		{b(badshop.JWT, badshop.OnlyNone), "jwt-none"},
		{b(badshop.JWT, badshop.OnlyNoneUp), "jwt-none"},
		{b(badshop.JWT, badshop.OnlyNONE), "jwt-none"},
		{b(badshop.JWT, badshop.OnlyNOnE), "jwt-none"},
		{b(badshop.JWT, badshop.OnlyTwo), "jwt-none"},
		{b(badshop.JWT, badshop.EmptySign), "jwt-signature"},
		{b(badshop.JWT, badshop.WeakSecret), "jwt-secret"},
		{b(badshop.JWT, badshop.KnownSecret), "jwt-secret"},
		{b(badshop.JWT, badshop.AlgNone), "jwt-none"},
		{b(badshop.JWT, badshop.NoSignature), "jwt-none,jwt-payload,jwt-signature"},
		{b(badshop.JWT, badshop.OtherSign), "jwt-signature"},
		{b(badshop.JWT, badshop.OtherClaims), "jwt-payload"},
		{b(badshop.JWT, badshop.NoExpiry), "jwt-expiry"},
		{b(badshop.JWT, badshop.FarExpiry), "jwt-expiry"},
		{b(badshop.JWT, badshop.PasswordIn), "jwt-claims"},
		{b(badshop.JWT, badshop.Stateless), "sign-in-again,sign-out"},
	} {
		var name []string
		for _, w := range tt.weak {
			name = append(name, string(w))
		}
		t.Run(strings.Join(name, "+"), func(t *testing.T) {
			t.Parallel()
			o := Options{Samples: 25, Secrets: slices.Values([]string{"iloveyou", "trustno1"})}
			if strings.Contains(tt.want, "token-entropy") || strings.Contains(tt.want, "token-user-data") {
				o.Samples = 140
			}
			r := examine(t, o, tt.weak...)
			if got := strings.Join(findings(r), ","); got != tt.want {
				t.Errorf("found %s\nwant  %s\n%s", got, tt.want, seen(r))
			}
			if tt.want == "" && r.Grade != "A" || !r.Complete && !strings.Contains(tt.want, "token-repeats") {
				t.Errorf("grade %s, complete: %v\n%s", r.Grade, r.Complete, seen(r))
			}
		})
	}
}

// TestAllWeaknesses turns all of them on that can be together: everything is found.
func TestAllWeaknesses(t *testing.T) {
	t.Parallel()
	got := make(map[string]bool)
	for _, weak := range [][]badshop.Weakness{badshop.All(), badshop.AllJWT(),
		// These exclude something of the lists: one token for all, a hash in place of it, a token that is kept.
		{badshop.MD5User}, {badshop.MD5Counter}, {badshop.Huge}} {
		r := examine(t, Options{}, weak...)
		for _, id := range findings(r) {
			id, _, _ = strings.Cut(id, " ")
			got[id] = true
		}
		if len(weak) > 1 && r.Grade != "F" {
			t.Errorf("grade %s", r.Grade)
		}
		if len(weak) > 20 {
			t.Logf("%d weaknesses, %d findings", len(weak), r.Counts.High+r.Counts.Medium+r.Counts.Low)
		}
	}
	for _, id := range order {
		if !got[id] && id != "transport" { // which needs a site that is not on this machine
			t.Errorf("%s was not found", id)
		}
	}
}

// TestUnclear checks that a site which answers unknown tokens with an error is not found to refuse them, nor to take them.
func TestUnclear(t *testing.T) {
	t.Parallel()
	r := examine(t, Options{Samples: 25}, badshop.ErrsUnknown)
	if got := findings(r); got != nil || r.Complete {
		t.Errorf("%q\n%s", got, seen(r))
	}
	for _, id := range []string{"fixation", "fixation-adopted", "sign-in-again", "sign-out", "token-lenient"} {
		if got := result(r, id); got != ResultUnknown {
			t.Errorf("%s: %s\n%s", id, got, seen(r))
		}
	}
}

func result(r *Report, id string) string {
	for _, c := range r.Checks {
		if c.ID == id {
			return c.Result
		}
	}
	return ""
}

// TestTiny checks that nothing is made up where it might be somebody's token, and that this is said.
func TestTiny(t *testing.T) {
	t.Parallel()
	r := examine(t, Options{Samples: 40}, badshop.Tiny)
	if got := strings.Join(findings(r), ","); got != "token-counter,token-entropy" || r.Complete || r.Counts.NotJudged != 5 {
		t.Errorf("found %s, %d not judged\n%s", got, r.Counts.NotJudged, seen(r))
	}
}

// TestDemo examines the demo, as whoever tries it out does.
func TestDemo(t *testing.T) {
	t.Parallel()
	d, err := demo.Start(demo.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r := run(t, Options{URL: d.URL(), User: "mia", Password: "demo", Samples: 200})
	if got := findings(r); got != nil || r.Grade != "A" || !r.Complete {
		t.Errorf("grade %s, %q\n%s", r.Grade, got, seen(r))
	}
	if r.Credential != "cookie session_id" || r.SignIns != 200 {
		t.Errorf("%s, %d sign-ins", r.Credential, r.SignIns)
	}
	t.Logf("\n%s", seen(r))
}
