package server

import (
	"net/http"
	"slices"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/account"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/geo"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/login"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/users"
)

// refuse answers what httpauth does not let through to the pages for people.
var refuse = account.Refuse(login.Refuse)

// stylesheet reads the file that the configuration names for the account page, nil if it names none.
func stylesheet(c *config.Config) ([]byte, error) {
	if c.AccountStylesheet == "" {
		return nil, nil
	}
	b, err := account.ReadStylesheet(c.AccountStylesheet)
	if err != nil {
		return nil, setup("account.stylesheet names the file", "%w", err)
	}
	return b, nil
}

// openPlaces opens the database of places, if there is one.
func (s *Server) openPlaces() (err error) {
	if s.config.GeoDatabase == "" {
		return nil
	}
	s.places, err = geo.Open(geo.Options{Path: s.config.GeoDatabase, Attribution: s.config.GeoAttribution, Logger: s.log})
	if err != nil {
		return setup("geoip.database names the file; without it no places are shown", "%w", err)
	}
	return nil
}

// openAccount makes the page where people see where they are signed in, on the hosts where they sign in.
func (s *Server) openAccount() error {
	if !s.config.Account {
		return nil
	}
	css, err := stylesheet(&s.config)
	if err != nil {
		return err
	}
	names := make(map[string]string)
	for _, p := range s.config.Providers {
		names[p.ID] = p.Name
	}
	s.account, err = account.New(account.Options{
		Authority: s.authority, Places: s.places, Providers: names, Product: s.config.AccountProduct, Stylesheet: css, Logger: s.log,
		Site: func(r *http.Request) (*account.Site, error) {
			at, err := s.site(r)
			if err != nil {
				return nil, err
			}
			return (*account.Site)(at), nil
		},
		Password: func(of *afterlogin.Session) bool {
			return s.users != nil && users.CheckName(of.Subject) == nil && slices.Contains(of.Auth.Methods, "pwd")
		},
	})
	return err
}
