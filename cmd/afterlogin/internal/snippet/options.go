package snippet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Options are what a configuration is made of. Everything goes into a file that a proxy reads, so that nothing is taken
// that could mean more there than what it says.
type Options struct {
	// App is host and port of the application, as "localhost:3000", which is the default.
	App string
	// Host is the name that people see, as "shop.example.com", or with a port where that is not the scheme's own.
	// The default is "shop.localhost". Without a port it is the port of Listen.
	Host string
	// Afterlogin is host and port of afterlogin, 127.0.0.1:7070 by default.
	Afterlogin string
	// Listen is the address the proxy listens on: ":8443", "127.0.0.1:8080". The default is the port of Host; without
	// one 443, and 127.0.0.1:8080 in plain HTTP.
	Listen string
	// Plain is whether people use plain HTTP, which is for trying out: browsers keep the session's cookie from http
	// only if the host is localhost or below it, so that no other is taken. Nil means where the host is one of those
	// and no certificate is named.
	Plain *bool
	// TLSCert and TLSKey are the files of certificate and key, absolute paths on the machine of the proxy. The default
	// is where certbot puts them; Caddy gets its own. HAProxy wants both in one file, and takes no TLSKey.
	TLSCert, TLSKey string
	// LuaPath is where the Lua file of HAProxy or Apache will be, an absolute path. The default is beside their
	// configuration on Debian.
	LuaPath string
}

// An OptionError says which option cannot be taken, why, and what to do.
type OptionError struct {
	Option string // as the flag is called, without dashes
	Reason string
	Remedy string
}

func (e *OptionError) Error() string { return "--" + e.Option + ": " + e.Reason }

// A Site is what options come to, with everything that was not said filled in.
type Site struct {
	App        Address
	Afterlogin Address
	Name       string // the host without port, in lower case
	Origin     string // scheme, host, and port unless it is the scheme's own, as browsers write it
	Authority  string // the origin without its scheme
	Scheme     string // http or https
	TLS        bool
	Listen     Address // Host is empty for all addresses of the machine
	TLSCert    string  // empty if the proxy gets certificates by itself
	TLSKey     string
	LuaPath    string
	Slug       string // the beginning of the host as a word of a-z, 0-9 and _, and Key: for files and parts of a configuration
	Key        string // 8 hexadecimal digits that stand for the origin, where names have to be short
}

// An Address is host and port of a server.
type Address struct {
	Host string // a name or an IP address, IPv6 without brackets
	Port int
}

// String returns host:port, with brackets around an IPv6 address.
func (a Address) String() string {
	if strings.Contains(a.Host, ":") {
		return "[" + a.Host + "]:" + strconv.Itoa(a.Port)
	}
	return a.Host + ":" + strconv.Itoa(a.Port)
}

// Loopback reports whether the address is one of this machine alone.
func (a Address) Loopback() bool {
	ip, err := netip.ParseAddr(a.Host)
	return a.Host == "localhost" || err == nil && ip.IsLoopback()
}

var (
	// hostName matches what goes over DNS; serverName also what container networks call their members.
	hostName   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
	serverName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$`)
	filePath   = regexp.MustCompile(`^(/[A-Za-z0-9_+@][A-Za-z0-9._+@-]*)+$`)
	notASlug   = regexp.MustCompile(`[^a-z0-9]+`)
)

const (
	maxHost = 253
	maxWord = 40
)

func (o Options) site(p Proxy) (Site, error) {
	var s Site
	var err error
	if s.App, err = server("app", or(o.App, "localhost:3000")); err != nil {
		return s, err
	}
	if s.Afterlogin, err = server("afterlogin", or(o.Afterlogin, "127.0.0.1:7070")); err != nil {
		return s, err
	}
	if s.App == s.Afterlogin {
		return s, &OptionError{"app", s.App.String() + " is the address of afterlogin", "name the address of the application"}
	}
	port, err := s.host(or(o.Host, "shop.localhost"))
	if err != nil {
		return s, err
	}
	if err := s.scheme(o); err != nil {
		return s, err
	}
	if err := s.listen(o.Listen, port); err != nil {
		return s, err
	}
	if port == 0 {
		port = s.Listen.Port
	}
	s.Authority = s.Name
	if port != map[bool]int{true: 443, false: 80}[s.TLS] {
		s.Authority += ":" + strconv.Itoa(port)
	}
	s.Origin = s.Scheme + "://" + s.Authority
	// Dots and dashes are the same in a word, and ports do not show there: the key tells origins apart.
	sum := sha256.Sum256([]byte(s.Origin))
	s.Key = hex.EncodeToString(sum[:4])
	s.Slug = notASlug.ReplaceAllString(s.Name[:min(len(s.Name), maxWord)], "_") + "_" + s.Key
	if err := s.certificate(p, o); err != nil {
		return s, err
	}
	return s, s.lua(p, o.LuaPath)
}

// host takes the name that people see, and returns its port, 0 if there is none.
func (s *Site) host(text string) (port int, err error) {
	bad := func(reason, remedy string) (int, error) { return 0, &OptionError{"host", reason, remedy} }
	const remedy = "name the host as browsers show it, as shop.example.com or shop.localhost:8080"
	name, digits, hasPort := strings.Cut(text, ":")
	switch {
	case strings.Contains(text, "://"):
		return bad(fmt.Sprintf("%s is a URL", quote(text)), remedy)
	case strings.HasPrefix(text, "["):
		return bad("an IPv6 address is not taken", "give it a name")
	case !isASCII(text):
		return bad(fmt.Sprintf("%s is not ASCII", quote(text)), "write the name as DNS has it, beginning with xn--")
	}
	if name = strings.ToLower(name); len(name) > maxHost || !hostName.MatchString(name) {
		return bad(fmt.Sprintf("%s is no host name", quote(text)), remedy)
	}
	if hasPort {
		if port, err = portOf(digits); err != nil {
			return bad(fmt.Sprintf("%s: %v", quote(text), err), remedy)
		}
	}
	s.Name = name
	return port, nil
}

// scheme decides between http and https.
func (s *Site) scheme(o Options) error {
	local := s.Name == "localhost" || strings.HasSuffix(s.Name, ".localhost") || Address{Host: s.Name}.Loopback()
	plain := local && o.TLSCert == "" && o.TLSKey == ""
	if o.Plain != nil {
		plain = *o.Plain
	}
	switch {
	case plain && !local:
		return &OptionError{"plain", "browsers keep the session's cookie from plain HTTP only on localhost, not on " + s.Name,
			"name a host below localhost, as shop.localhost, or leave --plain away"}
	case plain && (o.TLSCert != "" || o.TLSKey != ""):
		return &OptionError{"plain", "plain HTTP has no certificate", "leave --plain away, or --tls-cert and --tls-key"}
	}
	s.TLS, s.Scheme = !plain, "https"
	if plain {
		s.Scheme = "http"
	}
	return nil
}

// listen takes where the proxy listens. port is that of the host, or 0.
func (s *Site) listen(text string, port int) error {
	const remedy = "name an address and a port, as 127.0.0.1:8080, or :443 for all addresses"
	if text == "" {
		if s.Listen = (Address{"127.0.0.1", or(port, 8080)}); s.TLS {
			s.Listen = Address{"", or(port, 443)}
		}
		return nil
	}
	host, digits := "", text
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		host, digits = text[:i], text[i+1:]
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if host != "" {
		bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		ip, err := netip.ParseAddr(bare)
		if err != nil || ip.Zone() != "" || ip.Is6() != (bare != host) {
			return &OptionError{"listen", quote(text) + " names no IP address of this machine", remedy}
		}
		host = ip.String()
	}
	n, err := portOf(digits)
	if err != nil {
		return &OptionError{"listen", quote(text) + ": " + err.Error(), remedy}
	}
	s.Listen = Address{host, n}
	if !s.TLS && !s.Listen.Loopback() {
		return &OptionError{"listen", "plain HTTP is for this machine alone, and " + quote(text) + " is no loopback address",
			"listen on 127.0.0.1, or name a certificate with --tls-cert"}
	}
	return nil
}

func (s *Site) certificate(p Proxy, o Options) error {
	if !s.TLS {
		return nil
	}
	for _, f := range []struct{ option, path string }{{"tls-cert", o.TLSCert}, {"tls-key", o.TLSKey}} {
		if f.path != "" {
			if err := file(f.option, f.path); err != nil {
				return err
			}
		}
	}
	if p.Name == "haproxy" {
		if o.TLSKey != "" {
			return &OptionError{"tls-key", "HAProxy reads certificate and key from one file", "put both into one file and name it with --tls-cert"}
		}
		s.TLSCert = or(o.TLSCert, "/etc/haproxy/certs/"+s.Name+".pem")
		return nil
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return &OptionError{"tls-cert", "a certificate and its key come together", "give both --tls-cert and --tls-key"}
	}
	s.TLSCert, s.TLSKey = o.TLSCert, o.TLSKey
	if s.TLSCert == "" && p.Name != "caddy" {
		dir := "/etc/letsencrypt/live/" + s.Name
		s.TLSCert, s.TLSKey = dir+"/fullchain.pem", dir+"/privkey.pem"
	}
	return nil
}

func (s *Site) lua(p Proxy, luaPath string) error {
	switch p.Name {
	case "haproxy":
		s.LuaPath = or(luaPath, "/etc/haproxy/afterlogin.lua")
	case "apache":
		s.LuaPath = or(luaPath, "/etc/apache2/afterlogin-"+s.Slug+".lua")
	default:
		if luaPath != "" {
			return &OptionError{"lua-path", p.Title + " needs no Lua file", "leave it away"}
		}
		return nil
	}
	return file("lua-path", s.LuaPath)
}

// server takes host and port of a server that the proxy asks. An http URL without a path is what many have at hand.
func server(option, text string) (Address, error) {
	bad := func(reason string) (Address, error) {
		return Address{}, &OptionError{option, reason, "name host and port, as localhost:3000"}
	}
	rest := strings.TrimSuffix(strings.TrimPrefix(text, "http://"), "/")
	switch {
	case strings.HasPrefix(text, "https://"):
		return bad("the proxy speaks plain HTTP with it, " + quote(text) + " says https")
	case strings.Contains(rest, "/"):
		return bad(quote(text) + " has a path")
	}
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return bad(quote(text) + " has no port")
	}
	host, digits := rest[:i], rest[i+1:]
	port, err := portOf(digits)
	if err != nil {
		return bad(quote(text) + ": " + err.Error())
	}
	if bare, ok := strings.CutPrefix(host, "["); ok {
		ip, err := netip.ParseAddr(strings.TrimSuffix(bare, "]"))
		if err != nil || !ip.Is6() || ip.Zone() != "" || !strings.HasSuffix(bare, "]") {
			return bad(quote(text) + " is no address")
		}
		return Address{ip.String(), port}, nil
	}
	if !serverName.MatchString(host) || strings.Contains(host, "..") {
		return bad(quote(text) + " is no host and port")
	}
	return Address{host, port}, nil
}

// file refuses what is no absolute path, or has characters that a configuration file might read as more than a path.
func file(option, name string) error {
	if !filePath.MatchString(name) || path.Clean(name) != name || len(name) > 1024 {
		return &OptionError{option, quote(name) + " is not taken", "name an absolute path of letters, digits and . _ - + @"}
	}
	return nil
}

func portOf(digits string) (int, error) {
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 || digits[0] == '0' {
		return 0, fmt.Errorf("%s is no port from 1 to 65535", quote(digits))
	}
	return int(n), nil
}

// quote shows what somebody has typed, so that it does nothing to a terminal and does not fill it.
func quote(text string) string {
	const most = 100
	if len(text) > most {
		return strconv.QuoteToASCII(text[:most]) + "…"
	}
	return strconv.QuoteToASCII(text)
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}
