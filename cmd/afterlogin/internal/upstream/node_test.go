//go:build browser

package upstream

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/internal/servers"
)

// startProvider starts npm's oidc-provider with the clients, and returns its issuer.
func startProvider(t *testing.T, clients ...map[string]any) string {
	t.Helper()
	const install = "run scripts/test.sh, which installs what is needed (apt-get install nodejs npm; npm ci in test/oauth)"
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("there is no Node.js: %s", install)
	}
	dir, err := filepath.Abs(filepath.Join("..", "..", "..", "..", "test", "oauth"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); err != nil {
		t.Fatalf("the npm package oidc-provider is missing: %s", install)
	}
	text, err := json.Marshal(clients)
	if err != nil {
		t.Fatal(err)
	}
	output := t.TempDir()
	p, err := servers.StartProgram(servers.Program{
		Path: node, Args: []string{filepath.Join(dir, "provider.mjs"), "ADDR"}, Env: []string{"CLIENTS=" + string(text)},
		Dir: output, Ready: "/.well-known/openid-configuration",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if b, err := os.ReadFile(filepath.Join(output, "output")); t.Failed() && err == nil {
			t.Logf("the provider: %s", b)
		}
	})
	return "http://" + p.Addr
}

// TestRealProvider has a provider that nobody here wrote sign people in, and out.
func TestRealProvider(t *testing.T) {
	// The provider must know the addresses of the sites, and they its issuer.
	var issuer string
	secret := SecretFrom("a secret of more than thirty-two characters / + =")
	f := newFixture(t)
	client := func(id string, more map[string]any) map[string]any {
		out := map[string]any{
			"client_id": id, "redirect_uris": []string{f.url + "/.afterlogin/oidc/" + id + "/callback", f.other + "/oidc/" + id + "/callback"},
			"response_types": []string{"code"}, "grant_types": []string{"authorization_code"},
			"backchannel_logout_uri": f.url + "/.afterlogin/oidc/" + id + "/backchannel-logout", "backchannel_logout_session_required": true,
			"client_secret": secret.Reveal(), "post_logout_redirect_uris": []string{f.url + "/.afterlogin/login"},
		}
		for k, v := range more {
			if v == nil {
				delete(out, k)
			} else {
				out[k] = v
			}
		}
		return out
	}
	issuer = startProvider(t,
		client("basic", nil),
		client("post", map[string]any{"token_endpoint_auth_method": "client_secret_post", "id_token_signed_response_alg": "ES256"}),
		client("public", map[string]any{"token_endpoint_auth_method": "none", "client_secret": nil, "id_token_signed_response_alg": "EdDSA"}),
		client("nosid", map[string]any{"backchannel_logout_session_required": false}),
	)
	o := f.u.options
	o.Now = time.Now
	o.Providers = []Provider{
		{ID: "basic", Issuer: issuer, ClientID: "basic", ClientSecret: secret, SignOut: true},
		{ID: "post", Issuer: issuer, ClientID: "post", ClientSecret: secret, AuthMethod: AuthPost},
		{ID: "public", Issuer: issuer, ClientID: "public"},
		{ID: "nosid", Issuer: issuer, ClientID: "nosid", ClientSecret: secret},
	}
	u, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	f.u = u

	at := strings.TrimPrefix(f.url, "http://")
	for _, p := range o.Providers {
		t.Run(p.ID, func(t *testing.T) {
			b := person{newBrowser(t)}
			b.follow(f.url+"/.afterlogin/oidc/"+p.ID+"/start?return_to=/deep%3Fa%3Db", "mia")
			got := f.who(b.browser)
			if !strings.HasPrefix(got, p.ID+":mia [") || !strings.Contains(got, "pwd") {
				t.Fatalf("signed in as %q\n%s", got, f.logged())
			}
			first := b.jar[at][httpauth.CookieName]
			// A step-up: asked again, though the provider knows the person.
			time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // its clock counts seconds
			b.follow(f.url+"/.afterlogin/oidc/"+p.ID+"/start?max_age=0&acr_values=gold&return_to=/deep", "mia")
			if got := f.who(b.browser); !strings.Contains(got, "acr:gold") || b.jar[at][httpauth.CookieName] == first {
				t.Errorf("stepped up: %q\n%s", got, f.logged())
			}
			if n := len(sessions(t, f)); n != 1 {
				t.Errorf("%d sessions", n)
			}
			// Somebody else's session of the same provider stays.
			tom := person{newBrowser(t)}
			tom.follow(f.url+"/.afterlogin/oidc/"+p.ID+"/start", "tom")
			// The end of the session there: the provider posts the logout token before it answers.
			b.signOut(issuer)
			if got := f.who(b.browser); got != "" {
				t.Errorf("after the back-channel logout: %q\n%s", got, f.logged())
			}
			if got := f.who(tom.browser); got == "" {
				t.Error("somebody else was signed out, too")
			}
			tom.signOut(issuer)
			if n := len(sessions(t, f)); n != 0 {
				t.Errorf("%d sessions are left\n%s", n, f.logged())
			}
		})
	}
}

// person clicks through the provider's pages.
type person struct{ *browser }

var formAction = regexp.MustCompile(`<form[^>]* action="([^"]*)"`)

// follow goes to the address and follows redirects, signing in as the account where that is asked for, until the
// application's page is there.
func (p person) follow(where, account string) {
	p.t.Helper()
	got := p.get(where)
	for range 20 {
		switch {
		case got.status/100 == 3:
			from, _ := url.Parse(where)
			to, err := from.Parse(got.header.Get("Location"))
			if err != nil {
				p.t.Fatal(err)
			}
			if where = to.String(); to.Path == "/deep" || to.Path == "/" {
				return
			}
			got = p.get(where, "Sec-Fetch-Site", "cross-site")
		case got.status == http.StatusOK && strings.Contains(got.body, `name="account"`):
			got = p.send("POST", where, url.Values{"account": {account}}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
		default:
			p.t.Fatalf("%s: %d %s", where, got.status, got.body)
		}
	}
	p.t.Fatal("too many redirects")
}

var hidden = regexp.MustCompile(`name="xsrf" value="([^"]*)"`)

// signOut ends the session at the provider.
func (p person) signOut(issuer string) {
	p.t.Helper()
	got := p.get(issuer + "/session/end")
	action, xsrf := formAction.FindStringSubmatch(got.body), hidden.FindStringSubmatch(got.body)
	if action == nil || xsrf == nil {
		p.t.Fatalf("sign-out page: %d %s", got.status, got.body)
	}
	got = p.send("POST", action[1], url.Values{"xsrf": {xsrf[1]}, "logout": {"yes"}}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	if got.status/100 != 3 && got.status != http.StatusOK {
		p.t.Fatalf("sign-out: %d %s", got.status, got.body)
	}
}
