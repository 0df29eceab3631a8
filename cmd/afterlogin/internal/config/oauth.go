package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/jwt"
)

// maxClients is how many clients the file may have; there may be any number in the store.
const maxClients = 100

// A Client is an OAuth client of the configuration file. Its secret and its keys may be in files of their own.
type Client struct {
	ID         string
	Settings   clients.Settings
	SecretFile string // holds the secret
	KeysFile   string // holds a JWKS
}

// clientKeys are what may stand there of a client.
var clientKeys = []string{
	"id", "name", "auth", "secret_sha256", "secret_file", "jwks_file", "grant_types", "redirect_uris", "scopes", "default_scopes",
	"resources", "introspects", "first_party", "offline", "access_format", "access_lifetime",
}

// IssuerURL returns the URL that names this server in tokens and metadata, "" if there is none: the one that is set, or
// the address of a server that only this machine can reach.
func (c *Config) IssuerURL() string {
	if c.Issuer != "" {
		return c.Issuer
	}
	if _, p, err := net.SplitHostPort(c.Listen); err != nil || p == "0" || !Loopback(c.Listen) {
		return ""
	}
	if c.TLSCert != "" {
		return "https://" + c.Listen
	}
	return "http://" + c.Listen
}

// Algorithm returns what JWTs are signed with.
func (c *Config) Algorithm() jwt.Algorithm { return jwt.Algorithm(c.JWTAlgorithm) }

// checkOAuth reports what is wrong with the settings of JWTs and OAuth.
func (l *Loaded) checkOAuth() {
	c := &l.Config
	if c.Issuer != "" {
		u, err := url.Parse(c.Issuer)
		switch {
		case err != nil || u.Host == "" || c.Issuer != u.Scheme+"://"+u.Host || c.Issuer != strings.ToLower(c.Issuer):
			l.faultHint("issuer", "write https://auth.example.com, without a slash at the end", "%q is not an address without a path, in lower case", clip(c.Issuer))
		case u.Scheme != "https" && !(u.Scheme == "http" && LoopbackHost(u.Hostname())):
			l.fault("issuer", "want https: whoever can change what clients read there can make their keys")
		}
	}
	if !slices.Contains(jwt.Algorithms(), c.Algorithm()) {
		l.fault("jwt_algorithm", "%q is not one of %v", clip(c.JWTAlgorithm), jwt.Algorithms())
	}
	if u, err := url.Parse(c.SignInURL); c.SignInURL != "" && (err != nil || !strings.HasPrefix(c.SignInURL, "/") && u.Scheme != "https" || strings.HasPrefix(c.SignInURL, "//") || u.Fragment != "" || strings.ContainsAny(c.SignInURL, "\\ \t")) {
		l.faultHint("sign_in_url", "write /login, or https://www.example.com/login", "%q is neither a path nor an https address", clip(c.SignInURL))
	}
	if len(c.Clients) > 0 && c.IssuerURL() == "" {
		l.fault("oauth.clients", "OAuth needs an issuer: set issuer to the https address of this server")
	}
	for i := range c.Clients {
		l.checkClient(i)
	}
}

// checkClient checks a client as far as its own files are not needed.
func (l *Loaded) checkClient(i int) {
	c := l.Config.Clients[i]
	if err := clients.CheckID(c.ID); err != nil {
		l.fault(clientKey(i, "id"), "%v", err)
		return
	}
	for j := range i {
		if l.Config.Clients[j].ID == c.ID {
			l.fault(clientKey(i, "id"), "%q is the id of another client above", c.ID)
		}
	}
	if c.SecretFile != "" && len(c.Settings.Secrets) > 0 {
		l.faultHint(clientKey(i, "secret_file"), "keep one of them", "secret_sha256 is there, too")
		return
	}
	if c.KeysFile != "" {
		return // see OAuthClients
	}
	if c.SecretFile != "" {
		_, hash := clients.NewSecret(time.Time{})
		c.Settings.Secrets = []clients.SecretHash{hash}
	}
	if err := c.Settings.Check(); err != nil {
		l.clientFault(i, err)
	}
}

func clientKey(i int, name string) string { return "oauth.clients." + strconv.Itoa(i) + "." + name }

// clientFault reports an error of clients.Settings under the name that the setting has in the file.
func (l *Loaded) clientFault(i int, err error) {
	var f *clients.FieldError
	if !errors.As(err, &f) {
		l.fault("oauth.clients."+strconv.Itoa(i), "%v", err)
		return
	}
	name, _, _ := strings.Cut(f.Field, ".")
	switch name {
	case "secrets":
		name = "secret_sha256"
		f.Message = "a client with a secret needs secret_sha256 or secret_file, and others have none"
	case "jwks":
		name = "jwks_file"
	case "access_seconds":
		name = "access_lifetime"
	}
	key := clientKey(i, name)
	if _, ok := l.places[key]; !ok { // it is missing: point at the client
		l.places[key] = l.places["oauth.clients."+strconv.Itoa(i)]
	}
	l.fault(key, "%s", f.Message)
}

// OAuthClients returns the clients with what their files hold.
func (c *Config) OAuthClients() ([]Client, error) {
	out := slices.Clone(c.Clients)
	for i := range out {
		if err := out[i].readFiles(); err != nil {
			return nil, &clientError{i, fmt.Errorf("OAuth client %s: %w", out[i].ID, err)}
		}
	}
	return out, nil
}

type clientError struct {
	client int
	err    error
}

func (e *clientError) Error() string { return e.err.Error() }
func (e *clientError) Unwrap() error { return e.err }

func (c *Client) readFiles() error {
	if c.SecretFile != "" {
		b, err := readSmall(c.SecretFile)
		if err != nil {
			return err
		}
		text := strings.TrimSpace(string(b))
		if err := clients.CheckSecret(text); err != nil {
			return fmt.Errorf("the secret in %s: %w", c.SecretFile, err)
		}
		hash := clients.Hash(text, time.Time{})
		hash.Created = 0 // the same at every start
		c.Settings.Secrets = []clients.SecretHash{hash}
	}
	if c.KeysFile != "" {
		b, err := readSmall(c.KeysFile)
		if err != nil {
			return err
		}
		keys, err := jwt.ParseJWKS(b)
		if err != nil {
			return fmt.Errorf("%s: %w", c.KeysFile, err)
		}
		if c.Settings.Keys, err = keys.MarshalJSON(); err != nil {
			return fmt.Errorf("%s: %w", c.KeysFile, err)
		}
	}
	c.Settings.FromFile = true
	return c.Settings.Check()
}

// clientEntry reads one setting of a client.
func (l *Loaded) clientEntry(path, name, prefix string, value ast.Node) {
	c := &l.Config.Clients[indexOf(prefix)]
	s := &c.Settings
	texts := map[string]*string{"id": &c.ID, "name": &s.Name, "auth": &s.Auth, "secret_file": &c.SecretFile, "jwks_file": &c.KeysFile, "access_format": &s.Format}
	lists := map[string]*[]string{"grant_types": &s.GrantTypes, "redirect_uris": &s.RedirectURIs, "scopes": &s.Scopes,
		"default_scopes": &s.DefaultScopes, "resources": &s.Resources, "introspects": &s.Introspects}
	flags := map[string]*bool{"first_party": &s.FirstParty, "offline": &s.Offline}
	switch {
	case name == "secret":
		l.fault(path, "a secret does not belong into this file: write secret_sha256, or secret_file with the name of a file")
	case name == "secret_sha256":
		var sums []string
		if n, ok := value.(*ast.StringNode); ok {
			sums = []string{n.Value}
		} else if sums, ok = l.texts(path, value); !ok {
			return
		}
		for _, text := range sums {
			hash, err := clients.ParseHash(text)
			if err != nil {
				l.fault(path, "%v", err)
				return
			}
			s.Secrets = append(s.Secrets, hash)
		}
	case name == "access_lifetime":
		d, ok := l.duration(path, value)
		if !ok {
			return
		}
		if s.AccessSeconds = int(time.Duration(d) / time.Second); s.AccessSeconds == 0 {
			l.fault(path, "want at least 10s")
		}
	case texts[name] != nil:
		l.text(path, value, texts[name])
	case flags[name] != nil:
		l.flag(path, value, flags[name])
	case lists[name] != nil:
		if list, ok := l.texts(path, value); ok {
			*lists[name] = list
		}
	default:
		l.unknown(path, name, clientKeys, prefix)
	}
}
