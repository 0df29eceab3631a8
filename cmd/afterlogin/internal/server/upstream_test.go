package server

import (
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

// How long sessions may live beside OpenID providers binds nobody who has none; and settings that package upstream does not
// take keep the server from starting.
func TestLongPolicy(t *testing.T) {
	long := func(dir string) config.Config {
		c := settings(dir)
		p := c.Policies[afterlogin.PolicyRemember]
		p.Absolute = 400 * 24 * time.Hour
		c.Policies[afterlogin.PolicyRemember] = p
		return c
	}
	s, _ := open(t, long(t.TempDir()), false)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	c := long(t.TempDir())
	c.Providers = []config.Provider{{ID: "example", Issuer: "https://login.example.com", ClientID: "client"}}
	s, _, err := tryOpen(t, c, false)
	if err == nil {
		s.Close()
		t.Fatal("the server starts, and a logout would miss sessions")
	}
	if !strings.Contains(err.Error(), "390 days") {
		t.Error(err)
	}
}
