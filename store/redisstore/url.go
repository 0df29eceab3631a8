package redisstore

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// A mode is how the masters are found.
type mode int

const (
	standalone mode = iota // the address is that of the server, or of a cluster's node
	cluster
	sentinel
)

// A target is a parsed URL.
type target struct {
	mode         mode
	addrs        []string
	master       string // the name that the sentinels know it by
	user, pass   string
	tls          bool
	sentinelUser string
	sentinelPass string
}

// maxURL is the greatest size of a URL, in bytes.
const maxURL = 4096

// errURL begins every complaint about a URL. None of them quotes it: it may hold a password.
func errURL(format string, args ...any) error {
	return fmt.Errorf("redisstore: URL: "+format, args...)
}

// parseURL parses what Open describes.
func parseURL(text string) (*target, error) {
	if len(text) > maxURL {
		return nil, errURL("over %d bytes", maxURL)
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return nil, errURL("no scheme: want redis://host:port, rediss://… or redis+sentinel://…")
	}
	t := &target{}
	switch scheme {
	case "redis":
	case "rediss":
		t.tls = true
	case "redis+sentinel":
		t.mode = sentinel
	case "rediss+sentinel":
		t.mode, t.tls = sentinel, true
	default:
		return nil, errURL("scheme is none of redis, rediss, redis+sentinel, rediss+sentinel")
	}
	if strings.Contains(rest, "#") {
		return nil, errURL("fragment: there is none; write # in a password as %%23")
	}
	rest, query, _ := strings.Cut(rest, "?")
	if err := t.parseQuery(query); err != nil {
		return nil, err
	}
	rest, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if err := t.parseUser(rest[:at]); err != nil {
			return nil, err
		}
		rest = rest[at+1:]
	}
	if err := t.parseHosts(rest); err != nil {
		return nil, err
	}
	return t, t.parsePath(path)
}

func (t *target) parseQuery(query string) error {
	if query == "" {
		return nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return errURL("query: not well-formed")
	}
	for name, v := range values {
		switch {
		case len(v) != 1:
			return errURL("query: a parameter stands twice")
		case name == "cluster" && t.mode != sentinel && (v[0] == "" || v[0] == "true" || v[0] == "1"):
			t.mode = cluster
		case name == "sentinel_user" && t.mode == sentinel:
			t.sentinelUser = v[0]
		case name == "sentinel_password" && t.mode == sentinel:
			t.sentinelPass = v[0]
		default:
			return errURL("query: want ?cluster, or with redis+sentinel ?sentinel_user=…&sentinel_password=…")
		}
	}
	return nil
}

func (t *target) parseUser(text string) (err error) {
	user, pass, _ := strings.Cut(text, ":")
	if t.user, err = url.PathUnescape(user); err == nil {
		t.pass, err = url.PathUnescape(pass)
	}
	if err != nil {
		return errURL("user and password: not percent-encoded")
	}
	if t.user != "" && t.pass == "" {
		return errURL("user without a password: want user:password@, or :password@ for the default user")
	}
	return nil
}

func (t *target) parseHosts(text string) error {
	def := "6379"
	if t.mode == sentinel {
		def = "26379"
	}
	hosts := strings.Split(text, ",")
	if len(hosts) > 100 {
		return errURL("over 100 hosts")
	}
	for i, h := range hosts {
		host, port, err := splitHost(h, def)
		if err != nil {
			return errURL("host %d: %w", i+1, err)
		}
		t.addrs = append(t.addrs, net.JoinHostPort(host, port))
	}
	if len(hosts) > 1 && t.mode == standalone {
		return errURL("several hosts: add ?cluster, or use redis+sentinel://")
	}
	return nil
}

var errHost = errors.New("want a name or address with an optional :port; an IPv6 address stands in brackets")

func splitHost(text, def string) (host, port string, err error) {
	host, port = text, def
	switch end := strings.LastIndexByte(text, ']'); {
	case strings.HasPrefix(text, "["):
		if end < 0 || net.ParseIP(text[1:end]) == nil {
			return "", "", errHost
		}
		host = text[1:end]
		if after := text[end+1:]; after != "" {
			var ok bool
			if port, ok = strings.CutPrefix(after, ":"); !ok {
				return "", "", errHost
			}
		}
	default:
		if h, p, ok := strings.Cut(text, ":"); ok {
			host, port = h, p
		}
		if host == "" || strings.ContainsAny(host, ":[]@% \t\r\n") {
			return "", "", errHost
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", errors.New("port: want a number from 1 to 65535")
	}
	return host, port, nil
}

func (t *target) parsePath(path string) error {
	if t.mode == sentinel {
		name, err := url.PathUnescape(path)
		if err != nil || name == "" || strings.ContainsAny(name, "/@") {
			return errURL("path: want the name that the sentinels know the master by, redis+sentinel://h1,h2,h3/name")
		}
		t.master = name
		return nil
	}
	if path != "" && path != "0" {
		return errURL("path: only database 0 can be used; give each installation a server of its own")
	}
	return nil
}
