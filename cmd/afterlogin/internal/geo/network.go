package geo

import (
	"net/netip"
	"strings"
)

// A Network is what kind of address one is.
type Network string

// The kinds of address.
const (
	Public        Network = ""              // somewhere in the world
	Loopback      Network = "loopback"      // this machine
	Private       Network = "private"       // of a home or a company: RFC 1918, 4193, 3927, 6598
	Documentation Network = "documentation" // in examples only: RFC 5737, 3849, 9637
	Unknown       Network = "unknown"       // no address, or none that anybody has
)

// String returns the kind in words, "" for a public or an unknown one.
func (n Network) String() string {
	switch n {
	case Loopback:
		return "this machine"
	case Private:
		return "a private network"
	case Documentation:
		return "a documentation address"
	}
	return ""
}

var (
	documentation = prefixes("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
	shared        = prefixes("100.64.0.0/10")
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// NetworkOf returns the kind of the address.
func NetworkOf(addr netip.Addr) Network {
	addr = addr.Unmap().WithZone("")
	in := func(all []netip.Prefix) bool {
		for _, p := range all {
			if p.Contains(addr) {
				return true
			}
		}
		return false
	}
	switch {
	case !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast():
		return Unknown
	case addr.IsLoopback():
		return Loopback
	case addr.IsPrivate() || addr.IsLinkLocalUnicast() || in(shared):
		return Private
	case in(documentation):
		return Documentation
	}
	return Public
}

// An Attribution is what the license of a database asks pages with places to say.
type Attribution struct {
	Text string
	URL  string // https, or ""
}

// attributions are those that are known, by what the type or the description of the database contains.
var attributions = []struct {
	part string
	Attribution
}{
	{"db-ip", Attribution{"IP geolocation by DB-IP", "https://db-ip.com"}},
	{"dbip", Attribution{"IP geolocation by DB-IP", "https://db-ip.com"}},
	{"ipinfo", Attribution{"IP address data powered by IPinfo", "https://ipinfo.io"}},
	{"geolite", Attribution{"This product includes GeoLite data created by MaxMind", "https://www.maxmind.com"}},
}

// Attribution returns what pages with places must say, by Options.Attribution or by the database's type; zero if there is
// nothing.
func (d *DB) Attribution() Attribution {
	if d == nil {
		return Attribution{}
	}
	if text := strings.TrimSpace(d.o.Attribution); text != "" {
		if i := strings.LastIndex(text, "https://"); i >= 0 && !strings.ContainsAny(text[i:], " \"'<>") {
			return Attribution{strings.TrimSpace(text[:i]), text[i:]}.named()
		}
		return Attribution{Text: text}
	}
	text := d.current.Load().text
	for _, a := range attributions {
		if strings.Contains(text, a.part) {
			return a.Attribution
		}
	}
	return Attribution{}
}

// named gives an address alone a text.
func (a Attribution) named() Attribution {
	if a.Text == "" {
		a.Text = strings.TrimPrefix(a.URL, "https://")
	}
	return a
}
