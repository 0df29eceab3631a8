package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

func checkListen(addr string) error {
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is not host:port; write 127.0.0.1:7070", clip(addr))
	}
	if n, err := strconv.ParseUint(p, 10, 16); err != nil {
		return fmt.Errorf("%q is not a port between 0 and 65535", clip(p))
	} else if p != strconv.FormatUint(n, 10) {
		return fmt.Errorf("port %q has leading zeros", clip(p))
	}
	return nil
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// Loopback reports whether the host:port can be reached from this machine only. An empty host means every address. A
// name other than localhost is not looked up: what it means can change.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && LoopbackHost(host)
}

// LoopbackHost reports whether the host, without a port, is a loopback address or localhost. Names below localhost are
// not: RFC 6761 has them resolve to loopback, and not every resolver does.
func LoopbackHost(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" {
		return true
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// LoopbackName reports whether a request that is addressed to the host, without a port, is addressed to this machine: a
// loopback address, localhost, or a name below it, which browsers resolve without asking anybody.
func LoopbackName(host string) bool {
	return LoopbackHost(host) || strings.HasSuffix(strings.TrimSuffix(strings.ToLower(host), "."), ".localhost")
}

// validHost reports whether the text is a host name or an address, without a port.
func validHost(h string) bool {
	if h == "" || len(h) > 253 {
		return false
	}
	if _, err := netip.ParseAddr(h); err == nil {
		return true
	}
	for _, c := range []byte(h) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_':
		default:
			return false
		}
	}
	return true
}
