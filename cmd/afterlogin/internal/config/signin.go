package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/upstream"
)

// maxClass is the longest class of authentication, in bytes: it stands among the methods of a session, with a prefix.
const maxClass = 100

// maxProviders is how many OpenID Connect providers the file may have.
const maxProviders = 20

// A Provider is an OpenID Connect provider that people may sign in with.
type Provider struct {
	ID         string
	Name       string
	Issuer     string
	ClientID   string
	Auth       string
	SecretFile string // holds the client's secret
	Scopes     []string
	Prompt     string
	MaxAge     time.Duration
	ACRValues  []string
	// UntypedLogout takes logout tokens that do not say what they are, from a provider that knows no better.
	UntypedLogout bool
	// EndSession sends people who sign out here to the provider's own sign-out, too.
	EndSession bool

	secret string
}

var providerKeys = []string{"id", "name", "issuer", "client_id", "client_secret_file", "auth", "scopes", "prompt", "max_age", "acr_values", "untyped_logout", "end_session"}

// Secret returns the client's secret, "" for a client without one. SignInProviders has read it.
func (p *Provider) Secret() string { return p.secret }

// String leaves the secret out.
func (p Provider) String() string { return "provider " + p.ID }

// GoString leaves the secret out.
func (p Provider) GoString() string { return p.String() }

// providerEntry reads one setting of a provider.
func (l *Loaded) providerEntry(path, name, prefix string, value ast.Node) {
	p := &l.Config.Providers[indexOf(prefix)]
	switch name {
	case "id":
		l.text(path, value, &p.ID)
	case "name":
		l.text(path, value, &p.Name)
	case "issuer":
		l.text(path, value, &p.Issuer)
	case "client_id":
		l.text(path, value, &p.ClientID)
	case "client_secret_file":
		l.text(path, value, &p.SecretFile)
	case "client_secret":
		l.fault(path, "a secret does not belong into this file: write client_secret_file with the name of a file")
	case "auth":
		l.text(path, value, &p.Auth)
	case "scopes":
		p.Scopes, _ = l.texts(path, value)
	case "prompt":
		l.text(path, value, &p.Prompt)
	case "max_age":
		if d, ok := l.duration(path, value); ok {
			p.MaxAge = time.Duration(d)
		}
	case "acr_values":
		p.ACRValues, _ = l.texts(path, value)
	case "untyped_logout":
		l.flag(path, value, &p.UntypedLogout)
	case "end_session":
		l.flag(path, value, &p.EndSession)
	default:
		l.unknown(path, name, providerKeys, prefix)
	}
}

// checkSignIn reports what is wrong with the sign-in page and the providers.
func (l *Loaded) checkSignIn() {
	c := &l.Config
	if !c.Users && len(c.Providers) == 0 && c.SignInURL == "" &&
		slices.ContainsFunc(c.GatewayApps(), func(a App) bool { return a.SignInURL == "" }) {
		l.Warnings = append(l.Warnings, "nobody can sign in: there are applications behind a proxy, and neither sign_in.users, a provider, nor a sign_in_url of their own")
	}
	for _, o := range c.ReturnTo {
		l.checkOrigin("sign_in.return_to", o)
	}
	if c.PasswordMin < 8 || c.PasswordMin > 64 {
		l.fault("sign_in.password_min", "%d is not between 8 and 64 characters", c.PasswordMin)
	}
	if len(c.PasswordACR) > maxClass || strings.ContainsFunc(c.PasswordACR, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r >= 0x7f }) {
		l.faultHint("sign_in.password_acr", "write one word, such as pwd, or leave it out", "%q is not a class: at most %d of printable ASCII, without blanks, quotes and backslashes", clip(c.PasswordACR), maxClass)
	}
	for i, p := range c.Providers {
		at := "sign_in.providers." + strconv.Itoa(i)
		key := func(name string) string {
			if _, ok := l.places[at+"."+name]; ok {
				return at + "." + name
			}
			return at
		}
		before := len(l.faults)
		if !validPolicyName(p.ID) {
			l.faultHint(key("id"), "write - id: example", "a provider needs an id of a to z, 0 to 9 and -")
			continue
		}
		for j := range i {
			if c.Providers[j].ID == p.ID {
				l.fault(key("id"), "%q is the id of another provider above", p.ID)
			}
		}
		u, err := url.Parse(p.Issuer)
		switch {
		case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
			l.faultHint(key("issuer"), "write https://login.example.com, exactly as the provider does", "%q is not the address of a provider", clip(p.Issuer))
		case u.Scheme != "https" && !(u.Scheme == "http" && LoopbackName(u.Hostname())):
			l.fault(key("issuer"), "want https: whoever can change what is read there can sign in as anybody")
		}
		if p.ClientID == "" {
			l.fault(key("client_id"), "the provider %s needs the client_id that it gave to this installation", p.ID)
		}
		if p.MaxAge%time.Second != 0 {
			l.fault(key("max_age"), "want whole seconds")
		}
		if p.Auth != "" && !slices.Contains([]string{"basic", "post"}, p.Auth) {
			l.fault(key("auth"), "%q is not basic or post", clip(p.Auth))
		}
		// What the server would refuse when it starts, and was not said above.
		var wrong *upstream.ProviderError
		if len(l.faults) == before && errors.As(upstream.CheckProvider(p.Upstream()), &wrong) {
			l.fault(key(upstreamKeys[wrong.Field]), "%s", wrong.Text)
		}
	}
	if len(c.Providers) == 0 {
		return
	}
	for _, name := range []string{afterlogin.PolicyBrowser, afterlogin.PolicyRemember} { // those of people's sessions
		if d := c.Policies[name].Absolute; d > upstream.MaxLongest {
			l.faultHint(l.policyKey(name, "absolute"), "shorten it, or take out sign_in.providers",
				"%v is too long beside OpenID providers: when one ends a session, ours are found for %v at most", Duration(d), Duration(upstream.MaxLongest))
		}
	}
}

// upstreamKeys are the keys in the file by the field that an upstream.ProviderError names.
var upstreamKeys = map[string]string{
	"ID": "id", "Name": "name", "Issuer": "issuer", "ClientID": "client_id", "ClientSecret": "client_secret_file", "AuthMethod": "auth",
	"Scopes": "scopes", "Prompt": "prompt", "MaxAge": "max_age", "ACRValues": "acr_values",
}

// Upstream returns the provider as package upstream is told of it. Before SignInProviders has read the secret, another text
// stands for it.
func (p *Provider) Upstream() upstream.Provider {
	secret := p.secret
	if secret == "" && p.SecretFile != "" {
		secret = "not read"
	}
	return upstream.Provider{
		ID: p.ID, Name: p.Name, Issuer: p.Issuer, ClientID: p.ClientID, ClientSecret: upstream.SecretFrom(secret), AuthMethod: p.Auth,
		Scopes: p.Scopes, Prompt: p.Prompt, MaxAge: p.MaxAge, ACRValues: p.ACRValues, UntypedLogout: p.UntypedLogout, SignOut: p.EndSession,
	}
}

// SignInProviders returns the providers with what their files hold.
func (c *Config) SignInProviders() ([]Provider, error) {
	out := slices.Clone(c.Providers)
	for i := range out {
		p := &out[i]
		if p.Name == "" {
			p.Name = p.ID
		}
		if p.SecretFile == "" {
			continue
		}
		b, err := readSmall(p.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("sign-in provider %s: %w", p.ID, err)
		}
		if p.secret = strings.TrimSpace(string(b)); p.secret == "" || len(p.secret) > 1024 {
			return nil, fmt.Errorf("sign-in provider %s: the secret in %s is empty, or over 1024 bytes", p.ID, p.SecretFile)
		}
	}
	return out, nil
}
