package httpauth

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// checkLoopback refuses a request that did not come over the loopback interface, was addressed to another host (a name
// that somebody points at 127.0.0.1), or went through a proxy, which may stand anywhere.
func checkLoopback(r *http.Request) error {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !local.IP.IsLoopback() || !loopbackHost(r.Host) {
		return ErrNotLoopback
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host"} {
		if len(r.Header[name]) > 0 {
			return ErrNotLoopback
		}
	}
	return nil
}

// loopbackHost reports whether the Host header names this machine from within.
func loopbackHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.IsLoopback()
}
