package gateway

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin"
)

// What is decided on is what every program reads; whatever could be read in two ways is refused.
func TestCanonicalPath(t *testing.T) {
	for raw, want := range map[string]string{ // "": refused; otherwise what is decided on
		"/":                            "/",
		"/a":                           "/a",
		"/a/":                          "/a/",
		"/a.b/..c/.d/...":              "/a.b/..c/.d/...",
		"/%61dmin":                     "/admin",
		"/%41%2d%7E":                   "/A-~",
		"/caf%C3%A9":                   "/café",
		"/café":                        "/café",
		"/a%20b":                       "/a b",
		"/a:b@c!$&'()*+,=":             "/a:b@c!$&'()*+,=",
		"/x=1&y":                       "/x=1&y",
		"":                             "",
		"*":                            "",
		"a":                            "",
		"http://evil.example/":         "",
		"//":                           "",
		"//evil.example/":              "",
		"/a//b":                        "",
		"/a//":                         "",
		"/.":                           "",
		"/..":                          "",
		"/./a":                         "",
		"/a/../b":                      "",
		"/a/..":                        "",
		"/a/%2e%2e/b":                  "",
		"/a/.%2E/b":                    "",
		"/%2e":                         "",
		"/a%2fb":                       "",
		"/a%2Fb":                       "",
		"/a%5cb":                       "",
		"/a%5Cb":                       "",
		"/a\\b":                        "",
		"/a%00":                        "",
		"/a%0d%0ab":                    "",
		"/a%7f":                        "",
		"/a\x00":                       "",
		"/a\tb":                        "",
		"/a b":                         "",
		"/a\x7f":                       "",
		"/a#b":                         "",
		"/%2561":                       "",
		"/%25":                         "",
		"/%252e%252e/":                 "",
		"/%":                           "",
		"/%4":                          "",
		"/%zz":                         "",
		"/%u002f":                      "",
		"/" + strings.Repeat("%2f", 3): "",
	} {
		for _, strict := range []bool{true, false} {
			got, f := canonicalPath(raw, strict)
			if got != want || (f == nil) != (want != "") {
				t.Errorf("%q, strict %v: %q, %v; want %q", raw, strict, got, f, want)
			}
		}
	}
	// What matters only where paths are told apart.
	for raw, want := range map[string]string{
		"/a;x=1": "/a;x=1", "/a/..;/b": "/a/..;/b", "/a%3bx": "/a;x", "/what%3F": "/what?", "/c%23": "/c#", "/caf%e9": "/caf\xe9", "/%c0%af": "/\xc0\xaf", "/\xff": "/\xff",
	} {
		if got, f := canonicalPath(raw, true); f == nil {
			t.Errorf("%q, strict: %q", raw, got)
		}
		if got, f := canonicalPath(raw, false); f != nil || got != want {
			t.Errorf("%q: %q, %v", raw, got, f)
		}
	}
}

// An accepted path is what net/url makes of it, decodes to itself, and is clean.
func FuzzCanonicalPath(f *testing.F) {
	for _, seed := range []string{"/", "/a/../b", "/%2e%2e/", "/a%2fb", "/caf%C3%A9/x", "/a;b", "//x", "/%25%32%66", "/a\\b", "/a%", "/\xff/%ff", "/a?b", "/:80/"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, raw string, strict bool) {
		got, fault := canonicalPath(raw, strict)
		if fault != nil {
			if got != "" || fault.status != 400 {
				t.Fatalf("refused with %q, %d", got, fault.status)
			}
			return
		}
		if strings.Contains(raw, "?") { // begins the query before it comes here
			return
		}
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			t.Fatalf("%q: accepted as %q, and net/url says %v", raw, got, err)
		}
		if u.Path != got || u.Host != "" || u.Scheme != "" || u.RawQuery != "" || u.Fragment != "" {
			t.Fatalf("%q: %q, and net/url reads %#v", raw, got, u)
		}
		if clean := path.Clean(got); clean != got && clean+"/" != got {
			t.Fatalf("%q: %q is not clean", raw, got)
		}
		if strings.ContainsAny(got, "\\%\x00\x7f") || strict && (strings.ContainsAny(got, ";?#") || !utf8.ValidString(got)) {
			t.Fatalf("%q: %q", raw, got)
		}
		if again, err := url.PathUnescape(got); err != nil || again != got {
			t.Fatalf("%q: %q decodes to %q", raw, got, again)
		}
	})
}

// What a client may put into X-Forwarded-For does not stop the gateway.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"203.0.113.7", "[2001:db8::1]:80", "unknown", "fe80::1%eth0", "::ffff:1.2.3.4", "1.2.3.4:x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if a := address(text); a.Zone() != "" || a.Is4In6() {
			t.Errorf("%q: %v", text, a)
		}
	})
}

// However many sessions there are, few assertions and few hops are kept.
func TestBounds(t *testing.T) {
	g := &Gateway{}
	for i := range 100_000 {
		id := sessionID(i)
		g.hops.take(string(id), zero, false)
		g.assertions.put(assertionKey{id: id}, nil, nobody, zero, zero)
	}
	if n := len(g.hops.young) + len(g.hops.old); n > hopsKept {
		t.Errorf("%d hops are kept", n)
	}
	n := 0
	for i := range g.assertions.shards {
		n += len(g.assertions.shards[i].young) + len(g.assertions.shards[i].old)
	}
	if n > 2*maxAssertions*assertionShards || n < maxAssertions*assertionShards/2 {
		t.Errorf("%d assertions are kept", n)
	}
}

// A clock that was set back keeps nobody waiting for the time from before.
func TestHopsClock(t *testing.T) {
	var hs hops
	now := zero.Add(time.Hour)
	for range maxHops {
		hs.take("ses_x", now, false)
	}
	if hs.take("ses_x", now, false) {
		t.Error("one too many")
	}
	if !hs.take("ses_x", now.Add(-time.Minute), false) {
		t.Error("what is counted is in the future")
	}
}

// Somebody who is let in by mistake as nobody is not let in.
func TestAdmitNobody(t *testing.T) {
	a := &app{audience: []string{"x"}}
	if err := a.admit(&rule{public: true}, nil); err != errInternal {
		t.Errorf("%v", err)
	}
}

var zero time.Time

// sessionID makes ids that differ as those of sessions do.
func sessionID(i int) afterlogin.SessionID {
	sum := sha256.Sum256([]byte(strconv.Itoa(i)))
	return afterlogin.SessionID("ses_" + base64.RawURLEncoding.EncodeToString(sum[:17]))
}
