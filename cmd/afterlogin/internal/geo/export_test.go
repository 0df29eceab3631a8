package geo

import (
	"net/netip"
	"testing"
	"unicode/utf8"
)

// Wait waits for a look at the file that is under way.
func Wait(d *DB) { d.looks.Wait() }

// Try opens a database that may be anything, and looks addresses up.
func Try(t *testing.T, b []byte) {
	t.Helper()
	d, err := parse(b)
	if err != nil {
		return
	}
	for _, a := range []string{"81.2.69.5", "81.2.70.5", "81.2.73.5", "81.2.77.5", "2a02:8100::1", "::1", "255.255.255.255"} {
		city, country, err := d.find(netip.MustParseAddr(a), "en")
		for _, s := range []string{city, country} {
			if err == nil && (utf8.RuneCountInString(s) > maxName || !utf8.ValidString(s)) {
				t.Errorf("%s: %q", a, s)
			}
		}
	}
}
