package gateway

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// A fault is what is wrong with a question, so that it cannot be answered.
type fault struct {
	status int
	code   string // stable, for programs
	text   string // for people: what is wrong, and what to do
	// operator says that a proxy is set up wrongly, rather than that a client sent something strange.
	operator bool
}

func (f *fault) Error() string { return "gateway: " + f.text }

var (
	errPeer = &fault{http.StatusBadRequest, "untrusted_peer",
		"This address is not one of the proxies whose X-Forwarded headers are believed. Operator: add the proxy's network to gateway.proxies (--proxy).", true}
	errMethod = &fault{http.StatusBadRequest, "bad_forwarded_method",
		"There must be exactly one header X-Forwarded-Method, with the method of the original request. Operator: see the snippet for your proxy.", true}
	errProto = &fault{http.StatusBadRequest, "bad_forwarded_proto",
		"There must be exactly one header X-Forwarded-Proto: http or https, as the browser sees it. Operator: see the snippet for your proxy.", true}
	errHost = &fault{http.StatusBadRequest, "bad_forwarded_host",
		"There must be exactly one header X-Forwarded-Host, with the host of the original request. Operator: see the snippet for your proxy.", true}
	errURI = &fault{http.StatusBadRequest, "bad_forwarded_uri",
		"There must be exactly one header X-Forwarded-Uri, with the path and query of the original request as they came. Operator: see the snippet for your proxy.", true}
	errFor = &fault{http.StatusBadRequest, "bad_forwarded_for",
		"There must be exactly one header X-Forwarded-For, with the address of the client. Operator: see the snippet for your proxy.", true}
	errOwnPath = &fault{http.StatusForbidden, "own_path",
		"Paths below /.afterlogin/ are afterlogin's own. Operator: the proxy must send them to afterlogin, and not ask about them.", true}
	// Where a proxy looks at the path as it came, anybody can ask for this.
	errOwnHidden = &fault{status: http.StatusForbidden, code: "own_path", text: "Paths below /.afterlogin/ are afterlogin's own."}
	errNothing   = &fault{status: http.StatusNotFound, code: "not_found", text: "There is nothing here."}
	errNoVariant = &fault{http.StatusNotFound, "no_such_path",
		"Proxies ask /forward-auth, or /traefik, /nginx, /answer and /envoy/ below it.", true}
	errInternal = &fault{status: http.StatusInternalServerError, code: "internal", text: "Something went wrong here. It is not your fault."}
	errAgain    = &fault{status: http.StatusServiceUnavailable, code: "try_again", text: "The request is fine by now. Send it again."}
	errRenewal  = &fault{status: http.StatusServiceUnavailable, code: "temporarily_unavailable",
		text: "Your sign-in could not be renewed just now. Nothing is lost; try again in a moment."}
	errRenewMethod = &fault{status: http.StatusMethodNotAllowed, code: "method_not_allowed", text: "Use GET."}
	errNoRule      = &fault{status: http.StatusForbidden, code: "method_not_allowed_here", text: "No rule for this path is for this method."}
)

func unknownOrigin(scheme, host string) *fault {
	return &fault{http.StatusMisdirectedRequest, "unknown_origin",
		fmt.Sprintf("No application has the origin %.100q. Operator: add it to gateway.origins (--origin), or see to it that the proxy passes on the host and the scheme that the browser asked for.", scheme+"://"+host), true}
}

// An original is the request that a proxy asks about.
type original struct {
	app    *app
	method string
	host   string
	target string // path and query as they came
	path   string // canonical
	query  string
}

// maxTarget is the longest path and query, in bytes.
const maxTarget = 8 << 10

// read reads the original request from what the proxy says of it. The target is in X-Forwarded-Uri if it is empty.
func (g *Gateway) read(r *http.Request, target string) (o original, f *fault) {
	if !g.proxies.trusted(peer(r)) {
		return o, errPeer
	}
	h := r.Header
	if target == "" { // everybody but Envoy
		if o.method, f = single(h["X-Forwarded-Method"], errMethod); f != nil {
			return o, f
		}
		if o.target, f = single(h["X-Forwarded-Uri"], errURI); f != nil {
			return o, f
		}
		if o.host, f = single(h["X-Forwarded-Host"], errHost); f != nil {
			return o, f
		}
	} else {
		o.method, o.target, o.host = r.Method, target, r.Host
	}
	if !isMethod(o.method) {
		return o, errMethod
	}
	if _, f = single(h["X-Forwarded-For"], errFor); f != nil {
		return o, f
	}
	if o.app, o.host, f = g.find(h["X-Forwarded-Proto"], o.host); f != nil {
		return o, f
	}
	if len(o.target) > maxTarget {
		return o, errLong
	}
	path, query, _ := strings.Cut(o.target, "?")
	if !plainQuery(query) {
		return o, errBytes
	}
	o.query = query
	if o.path, f = canonicalPath(path, o.app.rules.any()); f != nil {
		return o, f
	}
	switch {
	case !below(o.path):
	case o.path == BasePath:
		return o, errNothing
	case !strings.HasPrefix(o.target, BasePath+"/"):
		return o, errOwnHidden
	default:
		return o, errOwnPath
	}
	return o, nil
}

// single returns the one value that there must be.
func single(values []string, wrong *fault) (string, *fault) {
	if len(values) != 1 || values[0] == "" {
		return "", wrong
	}
	return values[0], nil
}

// find returns the application that a browser addresses that way, and the host as in its origin.
func (g *Gateway) find(protos []string, host string) (*app, string, *fault) {
	proto, f := single(protos, errProto)
	if f != nil {
		return nil, "", f
	}
	var a *app
	switch proto {
	case "https", "wss": // Traefik names that of a WebSocket so
		host = strings.TrimSuffix(lower(host), ":443")
		proto, a = "https", g.secure[host]
	case "http", "ws":
		host = strings.TrimSuffix(lower(host), ":80")
		proto, a = "http", g.plain[host]
	default:
		return nil, "", errProto
	}
	if a == nil {
		return nil, "", unknownOrigin(proto, host)
	}
	return a, host, nil
}

// lower is strings.ToLower for ASCII alone: a host name in other letters is another one.
func lower(s string) string {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if 'A' <= b[j] && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// isMethod reports whether s is a method that some application might know: letters and '-', as all registered ones are.
func isMethod(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// Site returns the place of afterlogin's own pages on the host that the request is for, as the proxy tells it. The error
// is one for Refuse: the peer is no proxy of ours, it does not say which host, or there is no such application.
func (g *Gateway) Site(r *http.Request) (Site, error) {
	if !g.proxies.trusted(peer(r)) {
		return Site{}, errPeer
	}
	host, f := single(r.Header["X-Forwarded-Host"], errHost)
	if f != nil {
		return Site{}, f
	}
	// Without it everybody would have the address of the proxy, and share its limits.
	if _, f := single(r.Header["X-Forwarded-For"], errFor); f != nil {
		return Site{}, f
	}
	a, _, f := g.find(r.Header["X-Forwarded-Proto"], host)
	if f != nil {
		return Site{}, f
	}
	return a.site, nil
}

// ClientAddr returns where a request came from: the peer's address, or, if the peer is one of the proxies, what these say
// in X-Forwarded-For: the last address in it that is none of theirs. If all are, it is the first. The zero address, which
// is in no network, is for what is not known: a proxy that says something that is no address.
func (g *Gateway) ClientAddr(r *http.Request) netip.Addr { return g.proxies.clientAddr(r) }

// ClientAddr returns what Gateway.ClientAddr is, for a server that has these proxies in front of it and no Gateway.
func ClientAddr(proxies []netip.Prefix) func(*http.Request) netip.Addr {
	return networks(proxies).clientAddr
}

// networks are those of the proxies that are believed.
type networks []netip.Prefix

func (n networks) clientAddr(r *http.Request) netip.Addr {
	from := peer(r)
	if !n.trusted(from) {
		return from
	}
	lines := r.Header["X-Forwarded-For"]
	for i := len(lines) - 1; i >= 0; i-- {
		rest := lines[i]
		for more := true; more; {
			var text string
			if at := strings.LastIndexByte(rest, ','); at >= 0 {
				rest, text = rest[:at], rest[at+1:]
			} else {
				text, more = rest, false
			}
			if from = address(strings.Trim(text, " \t")); !n.trusted(from) {
				return from
			}
		}
	}
	return from
}

// address reads one entry of X-Forwarded-For. Some proxies add the port.
func address(text string) netip.Addr {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().WithZone("")
	}
	if p, err := netip.ParseAddrPort(text); err == nil {
		return p.Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// peer returns the address at the other end of the connection; zero if it has none.
func peer(r *http.Request) netip.Addr {
	p, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap().WithZone("")
}

func (n networks) trusted(a netip.Addr) bool {
	for _, p := range n {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
