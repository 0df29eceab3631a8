package device_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/device"
)

var names = []struct{ userAgent, want string }{
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36", "Chrome on Windows"},
	{"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36", "Chrome on Linux"},
	{"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537.36", "Headless Chrome on Linux"},
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36 Edg/139.0.0.0", "Edge on Windows"},
	{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15", "Safari on Mac or iPad"},
	{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:145.0) Gecko/20100101 Firefox/145.0", "Firefox on Mac"},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1", "Safari on iPhone"},
	{"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Mobile Safari/537.36", "Chrome on Android"},
	{"Mozilla/5.0 (Linux; Android 13; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36", "Samsung Browser on Android"},
	{"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot: Googlebot"},
	{"curl/8.9.1", "curl 8.9"},
	{"Go-http-client/1.1", "Go-http-client 1.1"},
	{"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36", "Samsung Browser on Android"},
	{"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Mobile Safari/537.36 EdgA/139.0.0.0", "Edge on Android"},
	{"Mozilla/5.0 (Linux; Android 14; Pixel 8 Build/UQ1A; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/139.0.0.0 Mobile Safari/537.36", "An app on Android"},
	{"Mozilla/5.0 (Linux; U; Android 4.0.3; de-de) AppleWebKit/534.30 (KHTML, like Gecko) Version/4.0 Mobile Safari/534.30", "Browser on Android"},
	{"Mozilla/5.0 (Android 15; Mobile; rv:141.0) Gecko/141.0 Firefox/141.0", "Firefox on Android"},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148", "An app on iPhone"},
	{"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/139.0.7258.76 Mobile/15E148 Safari/604.1", "Chrome on iPhone"},
	{"Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/141.0 Mobile/15E148 Safari/605.1.15", "Firefox on iPad"},
	{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36 Edg/139.0.0.0", "Edge on Mac"},
	{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36 OPR/124.0.0.0", "Opera on Windows"},
	{"Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko", "Internet Explorer on Windows"},
	{"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36", "Chrome on ChromeOS"},
	{"Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0", "Firefox on Linux"},
	{"Mozilla/5.0 (X11; FreeBSD amd64; rv:141.0) Gecko/20100101 Firefox/141.0", "Firefox on FreeBSD"},
	{"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Googlebot/2.1; +http://www.google.com/bot.html) Chrome/139.0.0.0 Safari/537.36", "bot: Googlebot"},
	{"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)", "bot: Bingbot"},
	{"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", "bot: facebookexternalhit"},
	{"GPTBot/1.2", "bot: GPTBot"},
	{"python-requests/2.32.4", "python-requests 2.32"},
	{"okhttp/4.12.0", "okhttp 4.12"},
	{"Pocket/3.2 CFNetwork/1498 Darwin/23.6.0", "Pocket 3.2"},
	{"node", "node"},
	{"Mozilla/5.0", "Unknown device"},
	{"", "Unknown device"},
	{"\x00\n", "Unknown device"},
}

func TestName(t *testing.T) {
	for _, tt := range names {
		if got := device.Name(tt.userAgent); got != tt.want {
			t.Errorf("Name(%q) = %q, want %q", tt.userAgent, got, tt.want)
		}
	}
	if got := device.Name(strings.Repeat("é", 5000)); utf8.RuneCountInString(got) > 80 || !utf8.ValidString(got) {
		t.Errorf("a long header gives %q", got)
	}
}

// FuzzName holds that no header panics, and that what comes out is short and printable.
func FuzzName(f *testing.F) {
	for _, tt := range names {
		f.Add(tt.userAgent)
	}
	f.Fuzz(func(t *testing.T, userAgent string) {
		got := device.Name(userAgent)
		d := device.Describe(userAgent)
		if utf8.RuneCountInString(d.Program) > 80 || utf8.RuneCountInString(d.System) > 80 {
			t.Errorf("Describe(%q) = %+v", userAgent, d)
		}
		if got == "" || utf8.RuneCountInString(got) > 80 || strings.ContainsAny(got, "\r\n\x00") {
			t.Errorf("Name(%q) = %q", userAgent, got)
		}
	})
}
