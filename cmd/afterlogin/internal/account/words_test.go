package account

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/device"
)

var verb = regexp.MustCompile(`%(\[\d\])?s`)

// Every language has every text, with the same places in it; and the pages use all of them.
func TestLanguages(t *testing.T) {
	for _, w := range languages[1:] {
		for _, key := range slices.Sorted(maps.Keys(english)) {
			text, ok := w[key]
			if !ok || strings.TrimSpace(text) == "" {
				t.Errorf("%s: no text for %s", w["lang"], key)
				continue
			}
			if got, want := len(verb.FindAllString(text, -1)), len(verb.FindAllString(english[key], -1)); got != want {
				t.Errorf("%s: %s has %d places, want %d", w["lang"], key, got, want)
			}
		}
		for key := range w {
			if _, ok := english[key]; !ok {
				t.Errorf("%s: %s is not in English", w["lang"], key)
			}
		}
	}
}

func TestLanguage(t *testing.T) {
	for header, want := range map[string]string{
		"": "en", "de": "de", "de-AT": "de", "DE": "de", "en-GB,de;q=0.9": "en", "de;q=0.3, en;q=0.4": "en", "fr, de;q=0.2": "de", "fr": "en",
		"*": "en", "de;q=0": "en", "de;q=2": "en", "de;q=x": "en", "de;q=NaN": "en", "fr;q=1, *;q=0.5, de;q=0.8": "de", "de ; q=0.5, en;q=0.1": "de",
		strings.Repeat("fr,", 1000) + "de": "en",
	} {
		if got := language(header)["lang"]; got != want {
			t.Errorf("%.40q: %s, want %s", header, got, want)
		}
	}
}

func FuzzLanguage(f *testing.F) {
	f.Add("de-AT, en;q=0.7, *;q=0.1")
	f.Fuzz(func(t *testing.T, header string) {
		if language(header)["title"] == "" {
			t.Error("no words")
		}
	})
}

// Whatever ends a session for a reason that people are told of has words here, too.
func TestEveryReasonHasWords(t *testing.T) {
	for _, why := range []afterlogin.Reason{
		afterlogin.ReasonSignedOut, afterlogin.ReasonSignedOutAll, afterlogin.ReasonPasswordChanged, afterlogin.ReasonReported, afterlogin.ReasonLimit,
		afterlogin.ReasonAdministrator, afterlogin.ReasonReused, afterlogin.ReasonSuperseded, afterlogin.ReasonExpired, afterlogin.ReasonIdle,
		afterlogin.ReasonInURL, afterlogin.ReasonRolledBack, afterlogin.ReasonRestored, afterlogin.ReasonOrigin,
	} {
		for _, w := range languages {
			if w.why(why) == w["why.other"] {
				t.Errorf("%s has no words for %s", w["lang"], why)
			}
		}
	}
	if got := english.why("anything"); got != "ended" {
		t.Errorf("%q", got)
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		before time.Duration
		en, de string
	}{
		{-time.Hour, "a few minutes ago", "vor wenigen Minuten"},
		{9 * time.Minute, "a few minutes ago", "vor wenigen Minuten"},
		{13 * time.Minute, "10 minutes ago", "vor 10 Minuten"},
		{59 * time.Minute, "55 minutes ago", "vor 55 Minuten"},
		{90 * time.Minute, "an hour ago", "vor einer Stunde"},
		{23 * time.Hour, "23 hours ago", "vor 23 Stunden"},
		{30 * time.Hour, "a day ago", "vor einem Tag"},
		{13 * 24 * time.Hour, "13 days ago", "vor 13 Tagen"},
		{20 * 24 * time.Hour, "on 3 November 2026 (UTC)", "am 3. November 2026 (UTC)"},
	} {
		if got := english.ago(now, now.Add(-tt.before)); got != tt.en {
			t.Errorf("%v: %q, want %q", tt.before, got, tt.en)
		}
		if got := german.ago(now, now.Add(-tt.before)); got != tt.de {
			t.Errorf("%v: %q, want %q", tt.before, got, tt.de)
		}
	}
}

func TestDeviceWords(t *testing.T) {
	for agent, want := range map[string]string{
		firefox: "Firefox auf Windows", safari: "Safari auf iPhone", "": "Unbekanntes Gerät", "GPTBot/1.2": "Ein Programm: GPTBot",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15": "Safari auf Mac oder iPad",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148":         "Eine App auf iPhone",
	} {
		if got := german.device(device.Describe(agent)); got != want {
			t.Errorf("%q: %q, want %q", agent, got, want)
		}
		if en := english.device(device.Describe(agent)); !strings.HasPrefix(want, "Ein Programm") && en != device.Name(agent) {
			t.Errorf("%q: %q here, and %q by itself", agent, en, device.Name(agent))
		}
	}
}

// FuzzStylesheet holds that no file makes the check panic.
func FuzzStylesheet(f *testing.F) {
	f.Add([]byte(":root{--afterlogin-accent:#123}/* */ a::b{c:'d'}"))
	f.Add([]byte("a{b:c}\\"))
	f.Fuzz(func(t *testing.T, b []byte) { CheckStylesheet(b) })
}
