package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

// errAddress is what dialling an address that webhooks may not go to ends with.
var errAddress = errors.New("webhooks may not go there")

// An Allowance says which addresses, of those that are not public, webhooks may go to.
type Allowance struct {
	hosts    map[string]bool // as written in the URL, in lower case: whatever address they have
	networks []netip.Prefix
	loopback bool
}

// NewAllowance reads a list of host names, addresses and networks. With loopback, this machine is allowed, too: it is for
// a server that only this machine can reach. The error names the item that cannot be read.
func NewAllowance(list []string, loopback bool) (*Allowance, error) {
	a := &Allowance{hosts: map[string]bool{}, loopback: loopback}
	for _, item := range list {
		if p, err := netip.ParsePrefix(item); err == nil {
			if p != p.Masked() {
				return nil, fmt.Errorf("%q has bits behind the prefix; did you mean %s?", item, p.Masked())
			}
			a.networks = append(a.networks, p)
			continue
		}
		if ip, err := netip.ParseAddr(item); err == nil && ip.Zone() == "" {
			a.networks = append(a.networks, netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()))
			continue
		}
		name := strings.ToLower(strings.TrimSuffix(item, "."))
		if !hostName(name) {
			return nil, fmt.Errorf("%.64q is no host name, no address and no network; write hooks.internal, 10.1.2.3 or 10.1.0.0/16", item)
		}
		a.hosts[name] = true
	}
	return a, nil
}

// hostName reports whether s is a name that a URL can have, and no address.
func hostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	last := s[strings.LastIndexByte(s, '.')+1:]
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x") // some take 0x7f.1, or 2130706433, for an address
}

// internet6 is what of IPv6 has been given out (RFC 4291, IANA's list): all else is nobody's, or leads somewhere in disguise.
var internet6 = netip.MustParsePrefix("2000::/3")

// notPublic are networks that IsGlobalUnicast and IsPrivate do not tell of and that are nobody's on the internet, or lead
// to addresses that are checked in their own right nowhere else (RFC 6890).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // of providers
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("168.63.129.16/32"), // Azure's host, from each machine there
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("2001::/23"), // Teredo and others
	netip.MustParsePrefix("2001:db8::/32"),
	netip.MustParsePrefix("2002::/16"), // 6to4: any IPv4 address
	netip.MustParsePrefix("3fff::/20"),
}

// public reports whether everybody on the internet means the same by the address.
func public(ip netip.Addr) bool {
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.Is6() && !internet6.Contains(ip) {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}

// permits says whether a connection to the address may be made for the host. Without TLS only this machine can be
// reached, whatever else is allowed.
func (a *Allowance) permits(host string, ip netip.Addr, secure bool) error {
	ip = ip.Unmap().WithZone("")
	if !ip.IsValid() {
		return fmt.Errorf("%w: the address cannot be read", errAddress)
	}
	if !secure && !ip.IsLoopback() {
		return fmt.Errorf("%w: http:// is for this machine alone", errAddress)
	}
	switch {
	case public(ip), a.loopback && ip.IsLoopback(), a.hosts[strings.ToLower(strings.TrimSuffix(host, "."))]:
		return nil
	}
	for _, p := range a.networks {
		if p.Contains(ip) {
			return nil
		}
	}
	return fmt.Errorf("%w: the address is not on the internet; the setting webhooks.allow can name it", errAddress)
}

// dialer returns what connects to addresses that it may connect to. What is checked is the address that the connection is
// made to, behind every look-up: a name can have another address each time that it is asked for.
func (a *Allowance) dialer(secure bool) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		d := net.Dialer{Timeout: attemptTimeout, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%w: the address cannot be read", errAddress)
			}
			return a.permits(host, to.Addr(), secure)
		}}
		return d.DialContext(ctx, network, addr)
	}
}

// checkURL returns the address in the one form in which it is kept, if a webhook may go there as far as the text tells.
func (a *Allowance) checkURL(text string) (string, error) {
	const want = "want an address such as https://shop.example/hooks"
	if text == "" || len(text) > maxURL {
		return "", bad("url", "%s, of at most %d bytes", want, maxURL)
	}
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || c == '\\' || c == '"' || c == '<' || c == '>' {
			return "", bad("url", "write it in ASCII, with %%xx for anything else: a host name as xn--…")
		}
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", bad("url", "%s", want)
	case u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "" || u.Host == "":
		return "", bad("url", "%s", want)
	case u.User != nil:
		return "", bad("url", "a name or a password has no place in it: requests are signed")
	case strings.Contains(text, "#"):
		return "", bad("url", "leave away what begins with #: it is never sent")
	case u.Scheme == "http" && !config.LoopbackHost(u.Hostname()):
		return "", bad("url", "write https://: events name people and their sessions")
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if n, err := strconv.Atoi(port); strings.HasSuffix(u.Host, ":") || port != "" && (err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port) {
		return "", bad("url", "want a port of 1 to 65535")
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Zone() != "":
		return "", bad("url", "an address with a zone is one of this machine alone")
	case err != nil && config.LoopbackHost(host):
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case err != nil && !hostName(strings.TrimSuffix(host, ".")):
		return "", bad("url", "the host name cannot be read")
	}
	if ip.IsValid() {
		if err := a.permits(host, ip, u.Scheme == "https"); err != nil {
			return "", bad("url", "%s", strings.TrimPrefix(err.Error(), errAddress.Error()+": "))
		}
	}
	switch {
	case port != "":
		u.Host = net.JoinHostPort(host, port)
	case strings.Contains(host, ":"):
		u.Host = "[" + host + "]"
	default:
		u.Host = host
	}
	return u.String(), nil
}
