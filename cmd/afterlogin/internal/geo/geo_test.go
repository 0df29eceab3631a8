package geo_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/geo"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/geo/geotest"
)

var germany = map[string]string{"en": "Germany", "de": "Deutschland"}

var records = map[string]geotest.Map{
	"81.2.69.0/24":   geotest.City(map[string]string{"en": "Cologne", "de": "Köln"}, germany),
	"81.2.70.0/24":   geotest.City(map[string]string{"en": "Springfield"}, map[string]string{"en": "United States"}),
	"81.2.71.0/24":   geotest.City(nil, germany),
	"81.2.72.0/24":   geotest.City(map[string]string{"en": "Singapore"}, map[string]string{"en": "Singapore"}),
	"81.2.73.0/24":   {"country": "France", "country_code": "FR", "asn": "AS3215"},   // IPinfo Lite
	"81.2.74.0/24":   {"country": "FR", "country_name": "France", "continent": "EU"}, // IPinfo, before
	"81.2.75.0/24":   {"city": "Lyon", "country": "France"},                          // IPinfo's larger ones
	"81.2.76.0/24":   {"autonomous_system_number": uint32(64500)},                    // no place at all
	"81.2.77.0/24":   geotest.City(map[string]string{"en": "Lon\x00d\u202eon"}, map[string]string{"en": strings.Repeat("é", 100)}),
	"2a02:8100::/32": geotest.City(map[string]string{"en": "Cologne", "de": "Köln"}, germany),
}

func write(t *testing.T, path string, b []byte, at time.Time) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "places.mmdb")
	write(t, path, geotest.Database("DBIP-City-Lite", records), time.Now())
	db, err := geo.Open(geo.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, tt := range []struct{ addr, language, want string }{
		{"81.2.69.5", "en", "Cologne, Germany"},
		{"::ffff:81.2.69.5", "en", "Cologne, Germany"},
		{"81.2.69.5", "de", "Köln, Deutschland"},
		{"81.2.70.5", "de", "Springfield, United States"},
		{"81.2.71.5", "en", "Germany"},
		{"81.2.72.5", "en", "Singapore"},
		{"81.2.73.5", "en", "France"},
		{"81.2.74.5", "en", "France"},
		{"81.2.75.5", "en", "Lyon, France"},
		{"81.2.76.5", "en", ""},
		{"81.2.78.5", "en", ""},
		{"81.2.77.5", "en", "London, " + strings.Repeat("é", 63) + "…"},
		{"2a02:8100::1", "de", "Köln, Deutschland"},
		{"2a03::1", "de", ""},
		{"127.0.0.1", "en", ""},
		{"203.0.113.7", "en", ""},
	} {
		if got := db.Place(netip.MustParseAddr(tt.addr), tt.language); got != tt.want {
			t.Errorf("%s in %s: %q, want %q", tt.addr, tt.language, got, tt.want)
		}
	}
	if got := db.Place(netip.Addr{}, "en"); got != "" {
		t.Errorf("no address: %q", got)
	}
	if got := (*geo.DB)(nil).Place(netip.MustParseAddr("81.2.69.5"), "en"); got != "" {
		t.Errorf("no database: %q", got)
	}
}

func TestNetworkOf(t *testing.T) {
	for addr, want := range map[string]geo.Network{
		"127.0.0.1": geo.Loopback, "::1": geo.Loopback, "::ffff:127.9.9.9": geo.Loopback,
		"10.1.2.3": geo.Private, "192.168.7.7": geo.Private, "172.16.0.1": geo.Private, "100.64.0.1": geo.Private,
		"169.254.1.1": geo.Private, "fe80::1%eth0": geo.Private, "fd00::1": geo.Private,
		"192.0.2.1": geo.Documentation, "198.51.100.9": geo.Documentation, "203.0.113.7": geo.Documentation, "2001:db8::1": geo.Documentation,
		"0.0.0.0": geo.Unknown, "::": geo.Unknown, "224.0.0.1": geo.Unknown,
		"81.2.69.5": geo.Public, "2a02:8100::1": geo.Public, "172.32.0.1": geo.Public,
	} {
		if got := geo.NetworkOf(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
	if got := geo.NetworkOf(netip.Addr{}); got != geo.Unknown {
		t.Errorf("no address: %q", got)
	}
}

func TestAttribution(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ typ, set, text, url string }{
		{"DBIP-City-Lite", "", "IP geolocation by DB-IP", "https://db-ip.com"},
		{"GeoLite2-City", "", "This product includes GeoLite data created by MaxMind", "https://www.maxmind.com"},
		{"ipinfo bundle_location_lite.mmdb", "", "IP address data powered by IPinfo", "https://ipinfo.io"},
		{"Our-Own", "", "", ""},
		{"GeoLite2-City", "Places by us https://geo.example.com", "Places by us", "https://geo.example.com"},
		{"GeoLite2-City", "https://geo.example.com", "geo.example.com", "https://geo.example.com"},
		{"GeoLite2-City", "javascript:alert(1)", "javascript:alert(1)", ""},
	} {
		path := filepath.Join(dir, "a.mmdb")
		write(t, path, geotest.Database(tt.typ, records), time.Now())
		db, err := geo.Open(geo.Options{Path: path, Attribution: tt.set})
		if err != nil {
			t.Fatal(err)
		}
		if got := db.Attribution(); got != (geo.Attribution{Text: tt.text, URL: tt.url}) {
			t.Errorf("%s with %q: %+v", tt.typ, tt.set, got)
		}
		if db.Type() != tt.typ {
			t.Errorf("type %q", db.Type())
		}
		db.Close()
	}
	if got := (*geo.DB)(nil).Attribution(); got != (geo.Attribution{}) {
		t.Errorf("no database: %+v", got)
	}
}

// The file is read again when it was exchanged, at most once a minute; a broken one is not taken.
func TestReload(t *testing.T) {
	var mu sync.Mutex
	var log bytes.Buffer
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	path := filepath.Join(t.TempDir(), "places.mmdb")
	one := geotest.Database("GeoLite2-Country", map[string]geotest.Map{"81.2.69.0/24": geotest.City(nil, germany)})
	two := geotest.Database("GeoLite2-Country", map[string]geotest.Map{"81.2.69.0/24": geotest.City(nil, map[string]string{"en": "France"})})
	write(t, path, one, now)
	db, err := geo.Open(geo.Options{
		Path: path, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	pass := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	at := netip.MustParseAddr("81.2.69.5")
	// after asks, waits for the look that this may have begun, and asks again.
	after := func(what, want, wantAfter string) {
		t.Helper()
		if got := db.Place(at, "en"); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		geo.Wait(db)
		if got := db.Place(at, "en"); got != wantAfter {
			t.Errorf("%s, afterwards: %q, want %q", what, got, wantAfter)
		}
	}
	after("at first", "Germany", "Germany")
	write(t, path, two, now.Add(time.Hour))
	pass(59 * time.Second)
	after("too early", "Germany", "Germany")
	pass(time.Second)
	after("after a minute", "Germany", "France")
	write(t, path, one[:len(one)/2], now.Add(2*time.Hour))
	pass(time.Minute)
	after("half a file", "France", "France")
	if n := strings.Count(log.String(), "the old one stays"); n != 1 {
		t.Errorf("%d warnings: %s", n, &log)
	}
	pass(time.Minute)
	after("half a file, still", "France", "France")
	if n := strings.Count(log.String(), "the old one stays"); n != 1 {
		t.Errorf("%d warnings: %s", n, &log)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	pass(time.Minute)
	after("no file", "France", "France")
	pass(time.Minute)
	after("no file, still", "France", "France")
	if n := strings.Count(log.String(), "the old one stays"); n != 2 {
		t.Errorf("%d warnings: %s", n, &log)
	}
	write(t, path, one, now.Add(3*time.Hour))
	pass(time.Minute)
	after("a good one again", "France", "Germany")
	db.Close()
	write(t, path, two, now.Add(4*time.Hour))
	pass(time.Minute)
	after("after Close", "Germany", "Germany")
}

// Many pages at once, while the file changes.
func TestConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "places.mmdb")
	write(t, path, geotest.Database("GeoLite2-City", records), time.Now())
	var mu sync.Mutex
	now := time.Now()
	db, err := geo.Open(geo.Options{Path: path, Now: func() time.Time { mu.Lock(); defer mu.Unlock(); now = now.Add(20 * time.Second); return now }})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 200 {
				if got := db.Place(netip.MustParseAddr("81.2.69.5"), "en"); got != "Cologne, Germany" {
					t.Errorf("got %q", got)
					return
				}
			}
		})
	}
	for i := range 20 {
		if err := os.WriteFile(path+".new", geotest.Database("GeoLite2-City", records), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i) * time.Hour)
		os.Chtimes(path+".new", at, at)
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
	db.Close()
}

func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	good := geotest.Database("GeoLite2-City", records)
	for name, b := range map[string][]byte{
		"empty": {}, "text": []byte("not a database"), "half": good[:len(good)/2], "no tree": good[len(good)-200:],
		"marker only": []byte("\xab\xcd\xefMaxMind.com"),
	} {
		path := filepath.Join(dir, "bad.mmdb")
		write(t, path, b, time.Now())
		if db, err := geo.Open(geo.Options{Path: path}); err == nil {
			t.Errorf("%s was opened: %s", name, db.Type())
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := geo.Open(geo.Options{Path: dir}); err == nil {
		t.Error("a directory was opened")
	}
	if _, err := geo.Open(geo.Options{Path: filepath.Join(dir, "none")}); err == nil {
		t.Error("nothing was opened")
	}
	huge := filepath.Join(dir, "huge.mmdb")
	f, err := os.Create(huge)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(geo.MaxSize + 1); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := geo.Open(geo.Options{Path: huge}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a huge file: %v", err)
	}
}

// Every byte of a database is put wrong in turn: look-ups may fail, and nothing else.
func TestBrokenBytes(t *testing.T) {
	good := geotest.Database("GeoLite2-City", records)
	step := 1
	if testing.Short() {
		step = 7
	}
	for i := 0; i < len(good); i += step {
		for _, x := range []byte{0x00, 0x01, 0x20, 0x3f, 0x7f, 0xe0, 0xff} {
			b := bytes.Clone(good)
			b[i] ^= x
			geo.Try(t, b)
		}
	}
}

func FuzzDatabase(f *testing.F) {
	good := geotest.Database("GeoLite2-City", records)
	f.Add(good)
	f.Add(good[len(good)/2:])
	f.Fuzz(func(t *testing.T, b []byte) { geo.Try(t, b) })
}

func FuzzAttribution(f *testing.F) {
	f.Add("Places by us https://geo.example.com")
	path := filepath.Join(f.TempDir(), "places.mmdb")
	if err := os.WriteFile(path, geotest.Database("X", records), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		db, err := geo.Open(geo.Options{Path: path, Attribution: text})
		if err != nil {
			t.Fatal(err)
		}
		if a := db.Attribution(); a.URL != "" && !strings.HasPrefix(a.URL, "https://") || utf8.ValidString(text) && !utf8.ValidString(a.Text) {
			t.Errorf("%q: %+v", text, a)
		}
	})
}
