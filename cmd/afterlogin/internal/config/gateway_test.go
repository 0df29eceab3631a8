package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

const goodApps = `gateway:
  origins: [https://shop.example.com, https://wiki.example.com]
  proxies: [10.0.0.5, 10.1.0.0/16]
  apps:
  - origin: https://shop.example.com
    audience: shop
    sign_in_url: /my-login
    trusted_origins: [https://www.example.com]
    rules:
    - path: /assets/
      public: true
    - path: /admin/
      methods: [GET, POST]
      kinds: [session, access, jwt]
      scopes: [admin]
      max_age: 10m
      acr: [gold]
    - path: /*
      kinds: [api-key]
sign_in:
  return_to: [https://www.example.com]
  providers:
  - id: example
    name: Example
    issuer: https://login.example.com
    client_id: afterlogin
    auth: post
    scopes: [openid, email]
    prompt: select_account
    max_age: 8h
    acr_values: [gold]
    untyped_logout: true
    end_session: true
`

func TestApps(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := load(t, goodApps+"    client_secret_file: "+file+"\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CheckFiles(); err != nil {
		t.Fatal(err)
	}
	want := []App{{
		Origin: "https://shop.example.com", Audience: "shop", SignInURL: "/my-login", TrustedOrigins: []string{"https://www.example.com"},
		Rules: []Rule{{Path: "/assets/", Public: true}, {
			Path: "/admin/", Methods: []string{"GET", "POST"}, Scopes: []string{"admin"}, MaxAge: 10 * time.Minute, ACR: []string{"gold"},
			Kinds: []afterlogin.Kind{afterlogin.KindSession, afterlogin.KindAccess, afterlogin.KindJWT},
		}, {Path: "/*", Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}}},
	}, {Origin: "https://wiki.example.com"}}
	if got := l.Config.GatewayApps(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	// The sign-in page of all is that of those that name none.
	l.Config.SignInURL = "https://www.example.com/login"
	if got := l.Config.GatewayApps(); got[0].SignInURL != "/my-login" || got[1].SignInURL != l.Config.SignInURL {
		t.Errorf("%+v", got)
	}
	if got := fmt.Sprint(l.Config.GatewayProxies()); got != "[10.0.0.5/32 10.1.0.0/16]" {
		t.Error(got)
	}
	ps, err := l.Config.SignInProviders()
	if err != nil || len(ps) != 1 || ps[0].Secret() != "hunter2" || ps[0].Issuer != "https://login.example.com" || !ps[0].EndSession ||
		!ps[0].UntypedLogout || ps[0].MaxAge != 8*time.Hour || ps[0].Prompt != "select_account" || ps[0].ACRValues[0] != "gold" {
		t.Fatalf("%v, %v", ps, err)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", ps, ps, ps, ps[0]); strings.Contains(text, "hunter2") {
		t.Errorf("a provider prints its secret: %s", text)
	}
	os.Remove(file)
	if err := l.CheckFiles(); err == nil || !strings.Contains(err.Error(), "provider example") {
		t.Errorf("without its file: %v", err)
	}
}

// What is documented is taken, and means what is said there.
func TestDocumentedApps(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "gateway.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Fatal("no configurations")
	}
	used := make(map[string]bool)
	for _, b := range blocks {
		l, err := load(t, b[1], nil)
		if err != nil || len(l.Config.Apps) == 0 {
			t.Fatalf("%s\n%v", b[1], err)
		}
		for _, key := range append(appKeys, ruleKeys...) {
			used[key] = used[key] || strings.Contains(b[1], key+":")
		}
	}
	for key, is := range used {
		if !is && key != "methods" && key != "acr" {
			t.Errorf("%s stands in no example", key)
		}
	}
	for name := range kindNames {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("the kind %s is not named", name)
		}
	}
	for _, key := range append(appKeys, ruleKeys...) {
		if !strings.Contains(string(text), "`"+key+"`") {
			t.Errorf("%s is not explained", key)
		}
	}
}

func TestBadApps(t *testing.T) {
	for name, tt := range map[string]struct{ from, to, want string }{
		"an origin with a path":    {"origin: https://shop.example.com", "origin: https://shop.example.com/", "is not an origin"},
		"an origin in capitals":    {"origin: https://shop.example.com", "origin: https://Shop.example.com", "is not an origin"},
		"an origin without TLS":    {"origin: https://shop.example.com", "origin: http://shop.example.com", "is not https"},
		"no origin":                {"- origin: https://shop.example.com", "- audience: x", "audience"},
		"two of one origin":        {"  apps:", "  apps:\n  - origin: https://shop.example.com", "another application above"},
		"an unknown key":           {"max_age:", "maxage:", `did you mean "max_age"?`},
		"an unknown list":          {"  apps:", "  app:", `did you mean "apps"?`},
		"an unknown kind":          {"[session, access", "[cookie, access", "is not a kind"},
		"a public path that asks":  {"public: true", "public: true\n      scopes: [x]", "asks for nothing"},
		"a path without a slash":   {"path: /assets/", "path: assets/", "begins with /"},
		"a path of two slashes":    {"path: /assets/", "path: /a//b", "is not a path that a request could have"},
		"a path with dots":         {"path: /assets/", "path: /x/../y", "is not a path that a request could have"},
		"a path with a star":       {"path: /assets/", "path: /assets/*", "/admin/ for everything below"},
		"a path of our own":        {"path: /assets/", "path: /.afterlogin/x", "afterlogin's own"},
		"two rules for one path":   {"path: /*", "path: /admin/\n      methods: [HEAD]", "another rule above"},
		"a method in small":        {"methods: [GET, POST]", "methods: [get]", "is not a method"},
		"a scope that is two":      {"scopes: [admin]", "scopes: [a b]", "is not a scope"},
		"a class that is none":     {"acr: [gold]", "acr: ['']", "is not a class"},
		"keys that must sign in":   {"[session, access", "[session, api-key, access", "take out api-key"},
		"a public path for keys":   {"public: true", "public: true\n      kinds: [api-key]", "asks for nothing"},
		"half seconds":             {"max_age: 10m", "max_age: 1500ms", "whole seconds"},
		"a page that is none":      {"sign_in_url: /my-login", "sign_in_url: /my-login#top", "the fragment"},
		"a page of all, no path":   {"gateway:\n", "sign_in_url: /a/../b\ngateway:\n", "sign_in_url"},
		"a proxy in another form":  {"10.0.0.5,", "'::ffff:10.0.0.0/104',", "in IPv6 form"},
		"no proxies":               {"proxies: [10.0.0.5, 10.1.0.0/16]", "proxies: []", "no proxy is believed"},
		"a name with an umlaut":    {"origin: https://shop.example.com", "origin: https://bücher.example", "write https://xn--bcher-kva.example"},
		"an umlaut and a port":     {"origins: [https://shop.example.com", "origins: ['https://bücher.example:8443'", "write https://xn--bcher-kva.example:8443"},
		"an origin of a star":      {"trusted_origins: [https://www.example.com]", "trusted_origins: ['https://*.example.com']", "is not an origin"},
		"a provider called client": {"- id: example", "- id: client", "reserved"},
		"rules that are no list":   {"    rules:\n", "    rules: none\n    more:\n", "want a list"},
		"a max_age of nothing":     {"max_age: 10m", "max_age: 10ms", "at least 1s"},
		"a proxy by name":          {"10.0.0.5", "proxy.example", "neither an address"},
		"no https at the provider": {"issuer: https://login.example.com", "issuer: http://login.example.com", "want https"},
		"a provider without id":    {"- id: example", "- id: An Example", "needs an id"},
		"no client_id":             {"    client_id: afterlogin\n", "", "needs the client_id"},
		"a secret in the file":     {"client_id: afterlogin", "client_id: afterlogin\n    client_secret: hunter2", "does not belong into this file"},
		"an unknown auth":          {"auth: post", "auth: jwt", "is not basic or post"},
		"a return that is none":    {"return_to: [https://www.example.com]", "return_to: [https://www.example.com/x]", "is not an origin"},
		"no issuer":                {"gateway:\n", "listen: 0.0.0.0:7070\nbehind_proxy: true\ngateway:\n", "need an issuer"},
	} {
		text := strings.Replace(goodApps, tt.from, tt.to, 1)
		if text == goodApps {
			t.Fatalf("%s changes nothing", name)
		}
		_, err := load(t, text, nil)
		var faults Faults
		if !errors.As(err, &faults) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		all := ""
		for _, f := range faults {
			all += f.Error() + "\n" + f.Hint + "\n" + f.Excerpt + "\n"
			if f.Line == 0 {
				t.Errorf("%s: %s: says not where", name, f)
			}
		}
		if !strings.Contains(all, tt.want) {
			t.Errorf("%s: %s", name, all)
		}
		if strings.Contains(all, "hunter2") {
			t.Errorf("%s: the secret is shown:\n%s", name, all)
		}
	}
}

// A set-up in which nobody can sign in is not refused, since API keys may be all that is wanted, but it is said.
func TestNobodyCanSignIn(t *testing.T) {
	for text, want := range map[string]int{
		"gateway: {origins: [https://a.example]}\nsign_in: {users: false}\n":                                       1,
		"gateway: {origins: [https://a.example]}\nsign_in: {users: false}\nsign_in_url: https://b.example/login\n": 0,
		"gateway: {origins: [https://a.example]}\n":                                                                0,
		"sign_in: {users: false}\n": 0,
	} {
		l, err := load(t, "issuer: https://auth.example\n"+text, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(l.Warnings) != want {
			t.Errorf("%s: %q", text, l.Warnings)
		}
	}
}

// Nobody is believed about an address where nobody has said that there is a proxy: the default networks are those from
// where every program of the machine comes.
func TestTrustedProxies(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "[]",
		"listen: 127.0.0.1:7071\n": "[]",
		"behind_proxy: true\n":     "[127.0.0.0/8 ::1/128]",
		"gateway: {origins: [https://a.example]}\n":      "[127.0.0.0/8 ::1/128]",
		"gateway: {proxies: [10.0.0.1]}\n":               "[10.0.0.1/32]",
		"gateway: {proxies: [127.0.0.1], origins: []}\n": "[127.0.0.1/32]",
	} {
		l, err := load(t, "issuer: https://auth.example\n"+text, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(l.Config.TrustedProxies()); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
