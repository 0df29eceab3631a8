package clients

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRedirectURIs(t *testing.T) {
	for uri, good := range map[string]bool{
		"https://a.example.com/cb": true, "https://a.example.com": true, "https://a.example.com:8443/cb?x=1": true,
		"http://127.0.0.1/cb": true, "http://[::1]:80/cb": true, "http://localhost:3000/cb": true, "http://127.9.9.9/cb": true,
		"com.example.app:/cb": true, "com.example.app:/": true,
		"": false, "/cb": false, "a.example.com/cb": false, "//a.example.com/cb": false, "https://": false, "https:///cb": false,
		"http://a.example.com/cb": false, "http://127.0.0.1.example.com/": false, "http://localhost.example.com/": false, "http://10.0.0.1/": false,
		"https://user@a.example.com/": false, "https://user:pw@a.example.com/": false, "https://a.example.com/cb#x": false, "https://a.example.com/cb#": false,
		"https://a.example.com/../cb": false, "https://a.example.com/./cb": false, "https://a.example.com/a/..": false,
		"https://a.example.com/%zz": false, "https://a.example.com/*": false, "https://*.example.com/": false, "HTTPS://a.example.com/": false,
		"https://a.example.com/ b": false, "https://a.example.com/\n": false, `https://a.example.com\@b/`: false, "https://ä.example.com/": false,
		"https://a.example.com/?code=1": false, "https://a.example.com/?state=x": false,
		"javascript:alert(1)": false, "data:text/html,x": false, "file:///etc/passwd": false, "myapp:/cb": false, "com.example.app://host/cb": false,
		"https://[2001:db8::1]:8443/cb": true, "https://192.0.2.1/cb": true, "https://xn--bcher-kva.example/cb": true, "https://a-b.example:65535/": true,
		"https://a..example.com/": false, "https://.example.com/": false, "https://example.com./": false, "https://a_b.example.com/": false,
		"https://a.example.com:/": false, "https://a.example.com:0/": false, "https://a.example.com:65536/": false, "https://a.example.com:0443/": false,
		"https://127.1/": false, "https://0x7f.1/": false, "https://a.example.com%2eevil.example/": false, "https://a.example.com,b/": false,
		"https://[fe80::1%25eth0]/": false, "http://[::1%25lo]/cb": false, "http://[0:0:0:0:0:0:0:1]/cb": false, "http://127.0.0.1:99999/cb": false,
		"https://a.example.com/?error_description=x": false, "https://a.example.com/?a=1&error_uri=x": false, "https://a.example.com/?iss=x": false,
		"com.example.app:cb": false, "https://a.example.com/" + strings.Repeat("a", 600): false,
	} {
		if err := checkRedirect(uri); (err == nil) != good {
			t.Errorf("%q: %v, want good: %v", uri, err, good)
		}
	}
}

func TestRotate(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	s := Settings{Name: "x", Auth: Secret, GrantTypes: []string{ClientCredentials}}
	made := make(map[string]string)
	rotate := func(name string, overlap time.Duration) bool {
		text, hash := NewSecret(now)
		if !s.Rotate(hash, now, overlap) {
			return false
		}
		made[name] = text
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	good := func(want ...string) {
		t.Helper()
		sums := s.Sums()
		for name, text := range made {
			if sums.Match(text, now) != slices.Contains(want, name) {
				t.Errorf("at %v: is %s good? want it of %v", now, name, want)
			}
		}
		if sums.Match("", now) || sums.Match(s.Secrets[0].SHA256, now) || (Sums{}).Match("", now) {
			t.Error("something else is a secret")
		}
	}
	rotate("in use", 0)
	good("in use")
	// The answer with the next one is lost, and the rotation is tried again: what is in use stays good.
	rotate("lost", time.Hour)
	now = now.Add(time.Minute)
	rotate("next", 2*time.Hour)
	good("in use", "lost", "next")
	// No more than three, and none is ended for another's sake.
	if rotate("fourth", time.Hour) {
		t.Error("four secrets are good at a time")
	}
	good("in use", "lost", "next")
	now = now.Add(59 * time.Minute) // the first overlap was not prolonged
	good("lost", "next")
	rotate("fourth", time.Hour)
	now = now.Add(2 * time.Hour)
	good("fourth")
	rotate("fifth", 24*time.Hour)
	if !rotate("sixth", 0) {
		t.Error("no rotation without an overlap")
	}
	good("sixth")
}

func TestSettings(t *testing.T) {
	good := Settings{Name: "x", Auth: None, GrantTypes: []string{AuthorizationCode}, RedirectURIs: []string{"https://a.example.com/"}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	again, err := Parse(good.JSON())
	if err != nil || !reflect.DeepEqual(*again, good) {
		t.Errorf("%v: %+v", err, again)
	}
	if _, err := Parse(json.RawMessage(`{"name":"x","require_dpop":true}`)); err == nil {
		t.Error("a setting that is not known is read over")
	}
	for field, change := range map[string]func(*Settings){
		"name":             func(s *Settings) { s.Name = "evil\u202ename" },
		"auth":             func(s *Settings) { s.Auth = "" },
		"secrets":          func(s *Settings) { s.Secrets = []SecretHash{{}} },
		"jwks":             func(s *Settings) { s.Keys = json.RawMessage(`{"keys":[]}`) },
		"grant_types":      func(s *Settings) { s.GrantTypes = []string{"password"} },
		"redirect_uris":    func(s *Settings) { s.RedirectURIs = nil },
		"offline":          func(s *Settings) { s.Offline = true },
		"introspects":      func(s *Settings) { s.Introspects = []string{Any} },
		"scopes.0":         func(s *Settings) { s.Scopes = []string{"a b"} },
		"default_scopes.0": func(s *Settings) { s.DefaultScopes = []string{"a"} },
		"resources.0":      func(s *Settings) { s.Resources = []string{"api"} },
		"access_format":    func(s *Settings) { s.Format = "jwe" },
		"access_seconds":   func(s *Settings) { s.AccessSeconds = 1 },
	} {
		s := good
		change(&s)
		var f *FieldError
		if err := s.Check(); !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	big := good
	for i := range 20 {
		big.RedirectURIs = append(big.RedirectURIs[:i:i], "https://a.example.com/"+strings.Repeat("a", 400))
	}
	if err := big.Check(); err == nil {
		t.Error("settings that do not fit are taken")
	}
}

// Whatever is accepted as redirect URI is matched by itself, and by nothing but itself and another loopback port.
func FuzzRedirect(f *testing.F) {
	f.Add("https://a.example.com/cb", "https://a.example.com/cb/")
	f.Add("http://127.0.0.1/cb", "http://127.0.0.1:8080/cb")
	f.Fuzz(func(t *testing.T, registered, asked string) {
		if checkRedirect(registered) != nil {
			return
		}
		s := Settings{RedirectURIs: []string{registered}}
		if !s.Redirects(registered) {
			t.Errorf("%q does not match itself", registered)
		}
		if s.Redirects(asked) && asked != registered && (!strings.HasPrefix(registered, "http://") || !strings.HasPrefix(asked, "http://")) {
			t.Errorf("%q matches %q", asked, registered)
		}
	})
}
