package clients

import (
	"encoding/json"
	"errors"
	"reflect"
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
		"com.example.app:cb": false, "https://a.example.com/" + strings.Repeat("a", 600): false,
	} {
		if err := checkRedirect(uri); (err == nil) != good {
			t.Errorf("%q: %v, want good: %v", uri, err, good)
		}
	}
}

func TestRotate(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	first, h1 := NewSecret(now)
	s := Settings{Name: "x", Auth: Secret, GrantTypes: []string{ClientCredentials}, Secrets: []SecretHash{h1}}
	second, h2 := NewSecret(now)
	s.Rotate(h2, now, time.Hour)
	third, h3 := NewSecret(now)
	s.Rotate(h3, now.Add(time.Minute), 2*time.Hour)
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	sums := s.Sums()
	at := now.Add(30 * time.Minute)
	if sums.Match(first, at) || !sums.Match(second, at) || !sums.Match(third, at) {
		t.Error("after two rotations the newest two secrets are good, and no other")
	}
	if at = now.Add(3 * time.Hour); sums.Match(second, at) || !sums.Match(third, at) {
		t.Error("an old secret outlives its overlap, or the new one ends")
	}
	if sums.Match("", at) || sums.Match(h3.SHA256, at) || (Sums{}).Match("", at) {
		t.Error("something else is a secret")
	}
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
