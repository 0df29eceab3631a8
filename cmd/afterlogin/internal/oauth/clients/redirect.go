package clients

import (
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// checkRedirect reports why the text cannot be a redirect URI. What is registered must be an address that every reader
// takes for the same: what differs between parsers is how codes got to somebody else (userinfo, encoded dots, fragments).
func checkRedirect(s string) error {
	if s == "" || len(s) > maxURI {
		return errors.New("want an address of 1 to 512 bytes")
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}*'", c) >= 0 {
			return errors.New("holds a character that stands in no address: write others than ASCII as %XX, and a name in Punycode")
		}
	}
	u, err := url.Parse(s)
	if err != nil || u.String() != s {
		return errors.New("is not an address that everybody reads in the same way")
	}
	if u.Fragment != "" || u.User != nil || strings.Contains(s, "#") || strings.Contains(u.Host, "@") {
		return errors.New("must have neither a fragment nor a user name")
	}
	for _, p := range strings.Split(u.Path, "/") {
		if p == "." || p == ".." {
			return errors.New("must not have . or .. in its path")
		}
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errors.New("has a query that is not encoded as a form is")
	}
	for _, name := range []string{"code", "state", "iss", "error", "error_description", "error_uri", "response", "session_state", "access_token", "id_token"} {
		if q.Has(name) {
			return errors.New("has a query that the answer would be confused with: " + name)
		}
	}
	if u.Host != "" && !plainHost(u) {
		return errors.New("has a host that not everybody reads in the same way: want letters, digits, - and ., or an IP address, and a port of 1 to 65535")
	}
	switch {
	case u.Scheme == "https":
		if u.Hostname() == "" {
			return errors.New("has no host")
		}
	case u.Scheme == "http":
		if !loopback(u) {
			return errors.New("plain http is for a program on the same machine only: http://127.0.0.1/… or http://[::1]/…")
		}
	case strings.Contains(u.Scheme, ".") && validScheme(u.Scheme):
		// RFC 8252, 7.1: a scheme that an app has to itself is a domain name, read backwards.
		if u.Host != "" || u.Opaque != "" {
			return errors.New("a scheme of an app's own is followed by one slash: com.example.app:/callback")
		}
	default:
		return errors.New("want https, http on this machine, or an app's own scheme with a dot in it: com.example.app:/callback")
	}
	return nil
}

func validScheme(s string) bool {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' {
			return false
		}
	}
	return true
}

// plainHost reports whether the host is a name of letters, digits and -, without empty labels, or an IP address as it is
// usually written, with a port of 1 to 65535 or none.
func plainHost(u *url.URL) bool {
	name, port := u.Hostname(), u.Port()
	written := name
	if ip, err := netip.ParseAddr(name); err == nil {
		if ip.Zone() != "" || ip.String() != name {
			return false
		}
		if ip.Is6() {
			written = "[" + name + "]"
		}
	} else {
		last := ""
		for label := range strings.SplitSeq(name, ".") {
			if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
				return false
			}
			last = label
		}
		if '0' <= last[0] && last[0] <= '9' { // browsers read 127.1 and 0x7f.1 as addresses
			return false
		}
	}
	if port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
			return false
		}
		written += ":" + port
	}
	return u.Host == written
}

// loopback reports whether the address is on the machine of whoever uses it. localhost is a name, and names can be made
// to mean something else; many clients use it all the same.
func loopback(u *url.URL) bool {
	host := u.Hostname()
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() && ip.Zone() == ""
}

// Redirects reports whether the client may be sent to the address: it is one that is registered, byte for byte. Only the
// port of an address on the same machine may differ, since a program there gets it from the system (RFC 8252, 7.3).
func (s *Settings) Redirects(to string) bool {
	if slices.Contains(s.RedirectURIs, to) {
		return true
	}
	if !strings.HasPrefix(to, "http://") || checkRedirect(to) != nil {
		return false
	}
	got, err := url.Parse(to)
	if err != nil {
		return false
	}
	for _, r := range s.RedirectURIs {
		if want, err := url.Parse(r); err == nil && want.Scheme == "http" && want.Hostname() == got.Hostname() && withoutPort(want) == withoutPort(got) {
			return true
		}
	}
	return false
}

func withoutPort(u *url.URL) string {
	c := *u
	if i := strings.LastIndexByte(c.Host, ':'); i > strings.LastIndexByte(c.Host, ']') {
		c.Host = c.Host[:i]
	}
	return c.String()
}
