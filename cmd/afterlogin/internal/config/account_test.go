package config

import (
	"errors"
	"strings"
	"testing"
)

func TestAccountSettings(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"a long name", "account:\n  product: " + strings.Repeat("é", 81) + "\n", "at most 80 characters"},
		{"a name with a line break", "account:\n  product: \"a\\nb\"\n", "all of them printable"},
		{"a stylesheet for no page", "account:\n  enabled: false\n  stylesheet: a.css\n", "turned off"},
		{"an attribution of nothing", "geoip:\n  attribution: Places by us\n", "no database"},
		{"a long attribution", "geoip:\n  database: a.mmdb\n  attribution: " + strings.Repeat("a", 201) + "\n", "at most 200 characters"},
	} {
		_, err := load(t, tt.text, nil)
		var faults Faults
		if !errors.As(err, &faults) || len(faults) != 1 || !strings.Contains(faults[0].Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	good := "account:\n  product: " + strings.Repeat("é", 80) + "\n  stylesheet: a.css\ngeoip:\n  database: a.mmdb\n  attribution: Places by us https://geo.example.com\n"
	if _, err := load(t, good, nil); err != nil {
		t.Error(err)
	}
	if l, err := load(t, "listen: 127.0.0.1:7070\n", nil); err != nil || !l.Config.Account {
		t.Errorf("by default the page is there: %v", err)
	}
}
