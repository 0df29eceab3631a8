package afterlogin

import (
	"crypto/sha256"
	"net/netip"
	"strings"
)

// A Client is where a request came from, as far as the application knows. It decides one thing only: a token that was
// just renewed is handed out again to the client that renewed it, and to no other. It is shown in session lists.
type Client struct {
	Addr      netip.Addr // behind a proxy the client's address, not the proxy's
	UserAgent string     // cut to 256 bytes
}

// maxUserAgent is how much of a user agent is kept, in bytes.
const maxUserAgent = 256

func (c Client) trimmed() Client {
	c.UserAgent = strings.ToValidUTF8(c.UserAgent[:min(len(c.UserAgent), maxUserAgent)], "")
	c.Addr = c.Addr.Unmap().WithZone("")
	return c
}

// clientHash tells clients apart: the network (IPv4 /24, IPv6 /48) and the browser family. A phone that changes its
// address within one network, and a browser that updates itself, stay the same client.
type clientHash [8]byte

func (c Client) hash() (h clientHash) {
	c = c.trimmed()
	bits := 24
	if c.Addr.Is6() {
		bits = 48
	}
	b := []byte("afterlogin/client/1\x00")
	if p, err := c.Addr.Prefix(bits); err == nil {
		b = p.AppendTo(b)
	}
	b = append(append(b, 0), browserFamily(c.UserAgent)...)
	sum := sha256.Sum256(b)
	copy(h[:], sum[:])
	return h
}

// browserFamily names the browser without its version. The order matters: Edge says Chrome too, and Chrome says Safari.
func browserFamily(userAgent string) string {
	for _, f := range []string{"Edg", "OPR", "SamsungBrowser", "Firefox", "FxiOS", "CriOS", "Chrome", "Safari"} {
		if strings.Contains(userAgent, f+"/") {
			return f
		}
	}
	name, _, _ := strings.Cut(userAgent, "/") // curl/8.9, okhttp/4.12, MyApp/3
	return name
}
