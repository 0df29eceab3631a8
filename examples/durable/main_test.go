package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// Visits are counted through a sign-in and through a restart.
func TestVisitsSurvive(t *testing.T) {
	dir := t.TempDir()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	// The same address through the restart, since cookies belong to one.
	life := func(do func(c *http.Client, base string)) {
		keys, err := keyring.Open(filepath.Join(dir, "keys.json"), make([]byte, keyring.KeySize))
		if err != nil {
			t.Fatal(err)
		}
		s, err := pebblestore.Open(filepath.Join(dir, "store"), pebblestore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		a, err := afterlogin.New(afterlogin.Config{Store: s, Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		h, err := site(a)
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewTLSServer(h)
		defer server.Close()
		c := server.Client()
		c.Jar = jar
		do(c, server.URL)
	}
	visit := func(c *http.Client, base, want string) {
		t.Helper()
		resp, err := c.Get(base)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || strings.TrimSpace(string(b)) != want {
			t.Errorf("%q, want %q: %v", b, want, err)
		}
	}
	life(func(c *http.Client, base string) {
		visit(c, base, "visits: 1")
		visit(c, base, "visits: 2")
	})
	life(func(c *http.Client, base string) {
		visit(c, base, "visits: 3")
		jar, err = cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		c.Jar = jar
		visit(c, base, "visits: 1")
		resp, err := c.PostForm(base+"/sign-in", url.Values{"name": {"mia"}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden { // the form of an anonymous session needs its CSRF token, too
			t.Errorf("a sign-in form without the CSRF token: %s", resp.Status)
		}
	})
}
