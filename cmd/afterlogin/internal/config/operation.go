package config

import (
	"net/netip"
	"os"
	"time"
	"unicode/utf8"
)

// maxNode is the greatest size of a server's name, in bytes.
const maxNode = 64

// NodeName is what this server is called.
func (c *Config) NodeName() string {
	if c.Node != "" {
		return c.Node
	}
	name, err := os.Hostname()
	if err != nil || !validNode(name) {
		return "afterlogin"
	}
	return name
}

func validNode(name string) bool {
	if name == "" || len(name) > maxNode || !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if r <= ' ' || r == 0x7f {
			return false
		}
	}
	return true
}

// TracePeers returns the networks of those whose traces are continued.
func (c *Config) TracePeers() (out []netip.Prefix) {
	for _, text := range c.TracingPeers {
		if p, err := parseNetwork(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// checkOperation reports what is wrong with the settings of what watches over the server.
func (l *Loaded) checkOperation() {
	c := &l.Config
	if c.Node != "" && !validNode(c.Node) {
		l.fault("node", "want 1 to %d bytes without spaces", maxNode)
	}
	if c.ConsoleIndex < 0 || c.ConsoleIndex > 100_000_000 {
		l.fault("console.index", "%d is not between 0 and 100000000", c.ConsoleIndex)
	}
	l.checkRange("audit.keep", c.AuditKeep, 0, Duration(3650*24*time.Hour))
	if c.AuditKeep > 0 && c.AuditKeep < Duration(24*time.Hour) {
		l.fault("audit.keep", "%v is under a day; 0 turns the log off", c.AuditKeep)
	}
	l.checkRange("webhooks.give_up", c.WebhooksGiveUp, Duration(time.Minute), Duration(7*24*time.Hour))
	for _, text := range c.TracingPeers {
		if _, err := parseNetwork(text); err != nil {
			l.faultHint("tracing.peers", "write 10.0.0.5, or 10.0.0.0/24", "%q is neither an address nor a network", clip(text))
		}
	}
	for _, a := range c.WebhooksAllow {
		if _, err := netip.ParsePrefix(a); err == nil {
			continue
		}
		if _, err := netip.ParseAddr(a); err != nil && !validHost(a) {
			l.faultHint("webhooks.allow", "write a name, an address or a network: hooks.example.com, 10.1.2.3, 10.1.0.0/16", "%q is none of these", a)
		}
	}
}
