package config

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what stands on the account page, in characters.
const (
	maxProduct     = 80
	maxAttribution = 200
)

// checkAccount reports what is wrong with the settings of the account page. The files that they name are read at the start.
func (l *Loaded) checkAccount() {
	c := &l.Config
	for _, s := range []struct {
		key, text string
		most      int
	}{{"account.product", c.AccountProduct, maxProduct}, {"geoip.attribution", c.GeoAttribution, maxAttribution}} {
		if !utf8.ValidString(s.text) || utf8.RuneCountInString(s.text) > s.most || strings.ContainsFunc(s.text, unicode.IsControl) {
			l.fault(s.key, "want at most %d characters, all of them printable", s.most)
		}
	}
	if c.AccountStylesheet != "" && !c.Account {
		l.faultHint("account.stylesheet", "set account.enabled, or leave it out", "the page that it is for is turned off")
	}
	if c.GeoAttribution != "" && c.GeoDatabase == "" {
		l.faultHint("geoip.attribution", "set geoip.database, or leave it out", "there is no database that it could be about")
	}
}
