package config

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"golang.org/x/net/idna"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
)

// How many applications the file may have, and how many rules each.
const (
	maxApps  = 200
	maxRules = 200
)

// What the file says of applications behind proxies is what package gateway is told.
type (
	App  = gateway.App
	Rule = gateway.Rule
)

var (
	appKeys  = []string{"origin", "audience", "sign_in_url", "trusted_origins", "rules"}
	ruleKeys = []string{"path", "methods", "public", "kinds", "scopes", "max_age", "acr"}
)

// gatewayKeys are the keys in the file by the field that a gateway.Problem names.
var gatewayKeys = map[string]string{
	"Origin": "origin", "Audience": "audience", "SignInURL": "sign_in_url", "TrustedOrigins": "trusted_origins",
	"Path": "path", "Methods": "methods", "Public": "public", "Kinds": "kinds", "Scopes": "scopes", "MaxAge": "max_age", "ACR": "acr",
}

// kindNames are the kinds of credentials by their name in the file.
var kindNames = map[string]afterlogin.Kind{
	"session": afterlogin.KindSession, "api-key": afterlogin.KindAPIKey, "access": afterlogin.KindAccess, "jwt": afterlogin.KindJWT,
}

// app returns the application that the path is of.
func (l *Loaded) app(path string) *App {
	i, _ := strconv.Atoi(strings.Split(path, ".")[2])
	return &l.Config.Apps[i]
}

// appEntry reads one setting of an application.
func (l *Loaded) appEntry(path, name, prefix string, value ast.Node) {
	a := l.app(prefix)
	switch name {
	case "origin":
		l.text(path, value, &a.Origin)
	case "audience":
		l.text(path, value, &a.Audience)
	case "sign_in_url":
		l.text(path, value, &a.SignInURL)
	case "trusted_origins":
		a.TrustedOrigins, _ = l.texts(path, value)
	default:
		l.unknown(path, name, appKeys, prefix)
	}
}

// ruleEntry reads one setting of a rule.
func (l *Loaded) ruleEntry(path, name, prefix string, value ast.Node) {
	r := &l.app(prefix).Rules[indexOf(prefix)]
	switch name {
	case "path":
		l.text(path, value, &r.Path)
	case "methods":
		r.Methods, _ = l.texts(path, value)
	case "public":
		l.flag(path, value, &r.Public)
	case "kinds":
		names, _ := l.texts(path, value)
		for _, n := range names {
			k, ok := kindNames[n]
			if !ok {
				l.faultHint(path, "the kinds are session, api-key, access and jwt", "%q is not a kind of credential", clip(n))
				return
			}
			r.Kinds = append(r.Kinds, k)
		}
	case "scopes":
		r.Scopes, _ = l.texts(path, value)
	case "max_age":
		if d, ok := l.duration(path, value); ok {
			r.MaxAge = time.Duration(d)
		}
	case "acr":
		r.ACR, _ = l.texts(path, value)
	default:
		l.unknown(path, name, ruleKeys, prefix)
	}
}

// GatewayApps returns the applications: those of the file, and those that are only named, with no rules of their own.
// Where none is named for an application, SignInURL is its sign-in page: a path, of its own host.
func (c *Config) GatewayApps() []App {
	apps := slices.Clone(c.Apps)
	for _, o := range c.Origins {
		if !slices.ContainsFunc(apps, func(a App) bool { return a.Origin == o }) {
			apps = append(apps, App{Origin: o})
		}
	}
	for i := range apps {
		if apps[i].SignInURL == "" {
			apps[i].SignInURL = c.SignInURL
		}
	}
	return apps
}

// TrustedProxies returns the networks of proxies that are believed about requests for the server itself: those of the
// gateway, if there is one, or if somebody says that there is a proxy. Otherwise nobody is: the default names loopback,
// from where every program of this machine could say what it likes.
func (c *Config) TrustedProxies() []netip.Prefix {
	if len(c.GatewayApps()) == 0 && !c.BehindProxy && slices.Equal(c.Proxies, Default().Proxies) {
		return nil
	}
	return c.GatewayProxies()
}

// GatewayProxies returns the networks of the proxies that are believed.
func (c *Config) GatewayProxies() []netip.Prefix {
	var out []netip.Prefix
	for _, text := range c.Proxies {
		if p, err := parseNetwork(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// parseNetwork parses a network, or an address alone.
func parseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// checkGateway reports what is wrong with the applications behind proxies.
func (l *Loaded) checkGateway() {
	c := &l.Config
	for _, o := range c.Origins {
		l.checkOrigin("gateway.origins", o)
	}
	for _, text := range c.Proxies {
		if p, err := parseNetwork(text); err != nil {
			l.faultHint("gateway.proxies", "write 10.0.0.5, or 10.0.0.0/24", "%q is neither an address nor a network", clip(text))
		} else if err := gateway.CheckProxy(p); err != nil {
			l.fault("gateway.proxies", "%v", err)
		}
	}
	if apps := c.GatewayApps(); len(apps) > 0 {
		if len(c.Proxies) == 0 {
			l.faultHint("gateway.proxies", "name the addresses that the proxies connect from, or leave it out for those on this machine", "nobody could ask: no proxy is believed")
		}
		const some = "https://shop.example.com" // what is wrong with the page does not depend on it
		for _, p := range gateway.CheckApp(App{Origin: some, SignInURL: c.SignInURL}) {
			l.fault("sign_in_url", "%s", clip(p.Text))
		}
	}
	for i, a := range c.Apps {
		at := "gateway.apps." + strconv.Itoa(i)
		if a.Origin == "" {
			l.faultHint(at, "write - origin: https://shop.example.com", "an application without an origin")
			continue
		}
		l.checkOrigin(at+".origin", a.Origin)
		for j := range i {
			if c.Apps[j].Origin == a.Origin {
				l.fault(at+".origin", "%q is the origin of another application above", a.Origin)
			}
		}
		for _, o := range a.TrustedOrigins {
			l.checkOrigin(at+".trusted_origins", o)
		}
		for _, p := range gateway.CheckApp(a) {
			if p.Field == "Origin" || p.Field == "TrustedOrigins" {
				continue // see checkOrigin
			}
			at := at
			if p.Rule >= 0 {
				at += ".rules." + strconv.Itoa(p.Rule)
			}
			if key := at + "." + gatewayKeys[p.Field]; l.has(key) {
				at = key
			}
			l.fault(at, "%s", p.Text)
		}
	}
	if len(c.GatewayApps()) > 0 && c.IssuerURL() == "" {
		key := "gateway.origins"
		if _, ok := l.places["gateway.apps"]; ok {
			key = "gateway.apps"
		}
		l.faultHint(key, "set issuer to the https address of this server, as in --issuer https://auth.example.com", "applications behind a proxy get signed assertions, and these need an issuer")
	}
}

// has reports whether something stands at the key in the file.
func (l *Loaded) has(key string) bool {
	_, ok := l.places[key]
	return ok
}

// checkOrigin reports text that is not an origin as browsers write it: https, or http on a loopback host.
func (l *Loaded) checkOrigin(key, text string) {
	u, err := url.Parse(text)
	if err == nil && strings.ContainsFunc(u.Host, func(c rune) bool { return c >= 0x80 }) {
		hint := "write the form that begins with xn--"
		if name, err := idna.Lookup.ToASCII(u.Hostname()); err == nil {
			hint = "write " + u.Scheme + "://" + strings.Replace(u.Host, u.Hostname(), name, 1)
		}
		l.faultHint(key, hint, "%q: browsers send names in ASCII", clip(text))
		return
	}
	if err != nil || !validHost(u.Hostname()) || text != u.Scheme+"://"+u.Host || text != strings.ToLower(text) ||
		u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80" {
		l.faultHint(key, "write https://shop.example.com, in lower case, without a path and without the usual port", "%q is not an origin", clip(text))
		return
	}
	if u.Scheme != "https" && !(u.Scheme == "http" && LoopbackName(u.Hostname())) {
		l.faultHint(key, "http is taken on localhost only", "%q is not https: browsers would send the session in clear text", clip(text))
		return
	}
	for _, p := range gateway.CheckApp(App{Origin: text}) {
		l.fault(key, "%s", p.Text)
	}
}
