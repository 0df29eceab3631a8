package server

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/geo/geotest"
	"github.com/afterlogin/afterlogin/gateway"
)

// The page of where somebody is signed in is on the host of an application and on the server's own, with what the
// configuration says.
func TestAccount(t *testing.T) {
	dir := t.TempDir()
	css, places := filepath.Join(dir, "a.css"), filepath.Join(dir, "a.mmdb")
	if err := os.WriteFile(css, []byte(":root{--afterlogin-accent:#7b1fa2}"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := geotest.Database("GeoLite2-City", map[string]geotest.Map{"81.2.69.0/24": geotest.City(nil, map[string]string{"en": "Germany"})})
	if err := os.WriteFile(places, b, 0o600); err != nil {
		t.Fatal(err)
	}
	v := visitShop(t, func(c *config.Config) {
		c.AccountStylesheet, c.AccountProduct, c.GeoDatabase = css, "Example Shop", places
	})
	list := gateway.BasePath + "/account/sessions"
	if resp, _ := v.do("GET", list, nil); resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != gateway.BasePath+"/login?return_to="+url.QueryEscape(list) {
		t.Errorf("signed out: %d to %s", resp.StatusCode, resp.Header.Get("Location"))
	}
	v.signIn()
	for _, from := range []string{"81.2.69.5", "81.2.69.6"} {
		r := afterlogin.IssueRequest{Subject: "mia"}
		r.Device.Addr = netip.MustParseAddr(from)
		if _, err := v.s.authority.Issue(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	resp, page := v.do("GET", list, nil)
	for _, want := range []string{"<h1>Where you are signed in</h1>", "This device", "Example Shop", "Germany", "MaxMind", "with a password", "A documentation address", `href="/.afterlogin/password"`} {
		if !strings.Contains(page, want) {
			t.Errorf("%d, without %q: %s", resp.StatusCode, want, page)
		}
	}
	if strings.Contains(page, "81.2.69") || strings.Contains(page, "203.0.113") {
		t.Errorf("an address: %s", page)
	}
	_, path, _ := strings.Cut(page, `<link rel="stylesheet" href="`)
	path, _, _ = strings.Cut(path, `"`)
	if resp, body := v.do("GET", path, nil); resp.StatusCode != http.StatusOK || !strings.Contains(body, "#7b1fa2") || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/css") {
		t.Errorf("the stylesheet at %s: %d %s", path, resp.StatusCode, body)
	}
	// A form of an earlier page, of which the token is missing, is refused with a page of ours.
	if resp, body := v.do("POST", list, url.Values{"act": {"sign_out_others"}}); resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "open for too long") {
		t.Errorf("without a token: %d %s", resp.StatusCode, body)
	}
	form := url.Values{"act": {"sign_out_others"}, "csrf_token": {v.form(page).Get("csrf_token")}}
	if resp, body := v.do("POST", list, form); resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != list+"?done=others" {
		t.Errorf("%d to %s: %s", resp.StatusCode, resp.Header.Get("Location"), body)
	}
	if _, page := v.do("GET", gateway.BasePath+"/login", nil); !strings.Contains(page, `href="`+list+`"`) {
		t.Errorf("the sign-in page does not show the way: %s", page)
	}
	// On the server's own host.
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := http.NewRequestWithContext(t.Context(), "GET", v.base+"/account/sessions", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/html")
	own, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	own.Body.Close()
	if own.StatusCode != http.StatusSeeOther || own.Header.Get("Location") != "/login?return_to=%2Faccount%2Fsessions" {
		t.Errorf("%d to %s", own.StatusCode, own.Header.Get("Location"))
	}
}

// Without it there is nothing at its address.
func TestNoAccount(t *testing.T) {
	v := visitShop(t, func(c *config.Config) { c.Account = false })
	v.signIn()
	if resp, body := v.do("GET", gateway.BasePath+"/account/sessions", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	resp, body := ask(v.s, "GET", "/account/sessions", "", "")
	var p struct{ Type string }
	if err := json.Unmarshal([]byte(body), &p); err != nil || resp.StatusCode != http.StatusNotFound || !strings.HasSuffix(p.Type, "#no-such-path") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if _, page := v.do("GET", gateway.BasePath+"/login", nil); strings.Contains(page, "/account/") {
		t.Errorf("the sign-in page leads there: %s", page)
	}
}

// Files that are not what they should be keep the server from starting, and say which setting it is.
func TestBadAccountFiles(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("<html>"), 0o600); err != nil {
		t.Fatal(err)
	}
	for setting, change := range map[string]func(*config.Config, string){
		"account.stylesheet": func(c *config.Config, path string) { c.AccountStylesheet = path },
		"geoip.database":     func(c *config.Config, path string) { c.GeoDatabase = path },
	} {
		for _, path := range []string{bad, bad + ".none"} {
			c := settings(t.TempDir())
			change(&c, path)
			s, _, err := tryOpen(t, c, false)
			var wrong *SetupError
			if !errors.As(err, &wrong) || !strings.Contains(wrong.Hint, setting) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", setting, err)
			}
			if s != nil && err == nil {
				s.Close()
			}
		}
	}
}
