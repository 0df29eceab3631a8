package httpauth

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// checkLoopback refuses a request that did not come over the loopback interface, was addressed to another host (a name
// that somebody points at 127.0.0.1), or shows that it went through a proxy, which may stand anywhere. A proxy that leaves
// no trace cannot be told from a browser.
func checkLoopback(r *http.Request) error {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !local.IP.IsLoopback() || !loopbackHost(r.Host) {
		return ErrNotLoopback
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via"} {
		if len(r.Header[name]) > 0 {
			return ErrNotLoopback
		}
	}
	if !r.ProtoAtLeast(1, 1) { // what nginx speaks to what stands behind it; no browser does
		return ErrNotLoopback
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
