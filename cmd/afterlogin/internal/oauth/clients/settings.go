// Package clients is what is known of an OAuth client: its settings, the rules for them, and its secrets. The settings
// are what afterlogin.Registration keeps as JSON; the command line, the API and the configuration file write them, and
// package oauth reads them.
//
// Start with [Parse] for what is stored, and [Settings.Check] for what somebody wants to be stored.
package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/jwt"
)

// The grant types there are.
const (
	AuthorizationCode = "authorization_code"
	RefreshToken      = "refresh_token"
	ClientCredentials = "client_credentials"
	TokenExchange     = "urn:ietf:params:oauth:grant-type:token-exchange"
)

// GrantTypes returns all of them.
func GrantTypes() []string {
	return []string{AuthorizationCode, RefreshToken, ClientCredentials, TokenExchange}
}

// How a client authenticates.
const (
	// Secret is a secret of ours, in the Authorization header (client_secret_basic) or in the body (client_secret_post).
	Secret = "secret"
	// KeyJWT is a JWT that the client signs with a key of its own (private_key_jwt).
	KeyJWT = "private_key_jwt"
	// None is for clients that cannot keep a secret: apps on phones and in browsers.
	None = "none"
)

// Formats of access tokens.
const (
	Opaque = "opaque"
	JWT    = "jwt"
)

// Any, in Settings.Introspects, is every service.
const Any = "*"

// OfflineAccess is the scope that asks for a grant which outlives the browser session.
const OfflineAccess = "offline_access"

// Limits of settings.
const (
	maxName   = 100
	maxURIs   = 20
	maxURI    = 512
	maxScopes = 50
	maxScope  = 64
	maxAuds   = 16
	maxAud    = 256
	maxKeys   = 4
	// maxSecrets is how many secrets are good at a time: the new one, the old one for its overlap, and one whose answer was lost
	// on the way, so that nobody knows it.
	maxSecrets = 3
	// maxSize is that of all settings, as JSON; of what the authority keeps.
	maxSize = 4 << 10
)

// Settings are what is known of a client. The zero value of everything but Name is a choice.
type Settings struct {
	Name string `json:"name"` // what people read on the consent page
	// Auth is how it authenticates: Secret, KeyJWT or None.
	Auth    string       `json:"auth"`
	Secrets []SecretHash `json:"secrets,omitempty"`
	// Keys are its public keys, a JWKS, for KeyJWT.
	Keys json.RawMessage `json:"jwks,omitempty"`

	GrantTypes   []string `json:"grant_types"`
	RedirectURIs []string `json:"redirect_uris,omitempty"`
	// Scopes are what it may ask for, and DefaultScopes what it gets if it asks for none.
	Scopes        []string `json:"scopes,omitempty"`
	DefaultScopes []string `json:"default_scopes,omitempty"`
	// Resources are the services that its tokens may be for (RFC 8707). A token is for all of them unless the request
	// names some. None: its tokens are for no service in particular.
	Resources []string `json:"resources,omitempty"`
	// Introspects are the services that it is: it may ask about tokens for these, for no service in particular, and its
	// own. Any is every service. None: only about its own.
	Introspects []string `json:"introspects,omitempty"`
	// FirstParty clients belong to whoever runs the server: people are not asked for consent.
	FirstParty bool `json:"first_party,omitempty"`
	// Offline lets it have OfflineAccess.
	Offline bool `json:"offline,omitempty"`
	// Format of its access tokens: Opaque, the default, or JWT.
	Format string `json:"access_format,omitempty"`
	// AccessSeconds shortens the lifetime of its access tokens; 0 is the policy's.
	AccessSeconds int `json:"access_seconds,omitempty"`

	// FromFile says that the configuration file has it, and nobody else changes it.
	FromFile bool `json:"from_file,omitempty"`
	// Disabled refuses whatever it asks.
	Disabled bool `json:"disabled,omitempty"`
}

// Public reports whether the client cannot keep a secret.
func (s *Settings) Public() bool { return s.Auth == None }

// Grants reports whether the client may use the grant type.
func (s *Settings) Grants(grant string) bool { return slices.Contains(s.GrantTypes, grant) }

// Access returns the lifetime of its access tokens, 0 for the policy's.
func (s *Settings) Access() time.Duration { return time.Duration(s.AccessSeconds) * time.Second }

// A FieldError is a setting that is wrong. Field is its name in JSON.
type FieldError struct{ Field, Message string }

func (e *FieldError) Error() string { return e.Field + ": " + e.Message }

func wrong(field, format string, args ...any) error {
	return &FieldError{field, fmt.Sprintf(format, args...)}
}

// Check reports what is wrong with the settings, as a *FieldError. It fills in defaults.
func (s *Settings) Check() error {
	if s.Name == "" || len(s.Name) > maxName || !plain(s.Name) {
		return wrong("name", "want 1 to %d bytes of text on one line: it is what people read when they are asked", maxName)
	}
	if s.Format == "" {
		s.Format = Opaque
	}
	if s.Format != Opaque && s.Format != JWT {
		return wrong("access_format", "want %s or %s", Opaque, JWT)
	}
	if s.AccessSeconds < 0 || s.AccessSeconds > 0 && s.AccessSeconds < 10 || s.AccessSeconds > 86400 {
		return wrong("access_seconds", "want 10 to 86400, or 0 for what the policy says")
	}
	for _, check := range []func() error{s.checkAuth, s.checkGrants, s.checkRedirects, s.checkScopes, s.checkAudiences} {
		if err := check(); err != nil {
			return err
		}
	}
	if b, err := json.Marshal(s); err != nil || len(b) > maxSize {
		return wrong("name", "the settings come to more than %d bytes: leave some addresses, scopes or keys away", maxSize)
	}
	return nil
}

func (s *Settings) checkAuth() error {
	switch s.Auth {
	case Secret:
		if len(s.Secrets) == 0 || len(s.Secrets) > maxSecrets {
			return wrong("secrets", "want 1 to %d", maxSecrets)
		}
	case KeyJWT:
		keys, err := s.PublicKeys()
		if err != nil {
			return wrong("jwks", "%v", err)
		}
		if n := len(keys.All()); n == 0 || n > maxKeys {
			return wrong("jwks", "want 1 to %d public keys that sign with EdDSA, ES256 or RS256, got %d", maxKeys, n)
		}
	case None:
	default:
		return wrong("auth", "want %s, %s or %s", Secret, KeyJWT, None)
	}
	if s.Auth != Secret && len(s.Secrets) > 0 {
		return wrong("secrets", "a client with auth %s has none", s.Auth)
	}
	if s.Auth != KeyJWT && len(s.Keys) > 0 {
		return wrong("jwks", "a client with auth %s has none", s.Auth)
	}
	return nil
}

// PublicKeys returns the client's keys.
func (s *Settings) PublicKeys() (*jwt.Keys, error) {
	if len(s.Keys) == 0 {
		return nil, errors.New("want a JWKS with the client's public keys")
	}
	return jwt.ParseJWKS(s.Keys)
}

func (s *Settings) checkGrants() error {
	if len(s.GrantTypes) == 0 && len(s.Introspects) == 0 {
		return wrong("grant_types", "want at least one of %s", strings.Join(GrantTypes(), ", "))
	}
	for i, g := range s.GrantTypes {
		switch {
		case !slices.Contains(GrantTypes(), g):
			return wrong("grant_types", "want some of %s", strings.Join(GrantTypes(), ", "))
		case slices.Contains(s.GrantTypes[:i], g):
			return wrong("grant_types", "%s stands there twice", g)
		case s.Public() && (g == ClientCredentials || g == TokenExchange):
			return wrong("grant_types", "%s is for clients that can keep a secret", g)
		}
	}
	code := s.Grants(AuthorizationCode)
	switch {
	case s.Grants(RefreshToken) && !code:
		return wrong("grant_types", "%s comes with %s", RefreshToken, AuthorizationCode)
	case s.Offline && !s.Grants(RefreshToken):
		return wrong("offline", "needs the grant type %s", RefreshToken)
	case s.Public() && len(s.Introspects) > 0:
		return wrong("introspects", "a client without a secret may not ask about tokens")
	}
	return nil
}

func (s *Settings) checkRedirects() error {
	if code := s.Grants(AuthorizationCode); code != (len(s.RedirectURIs) > 0) {
		if code {
			return wrong("redirect_uris", "%s needs one", AuthorizationCode)
		}
		return wrong("redirect_uris", "only %s has them", AuthorizationCode)
	}
	if len(s.RedirectURIs) > maxURIs {
		return wrong("redirect_uris", "want at most %d", maxURIs)
	}
	for i, u := range s.RedirectURIs {
		if err := checkRedirect(u); err != nil {
			return wrong("redirect_uris."+strconv.Itoa(i), "%v", err)
		}
	}
	return nil
}

func (s *Settings) checkScopes() error {
	if len(s.Scopes) > maxScopes {
		return wrong("scopes", "want at most %d", maxScopes)
	}
	for i, scope := range s.Scopes {
		switch {
		case !ValidScope(scope):
			return wrong("scopes."+strconv.Itoa(i), "want 1 to %d printable ASCII characters without blanks, \" and \\", maxScope)
		case scope == "openid":
			return wrong("scopes."+strconv.Itoa(i), "openid asks for an ID token, and there are none here: the client learns who signed in by introspection, or from a JWT")
		case scope == OfflineAccess:
			return wrong("scopes."+strconv.Itoa(i), "%s is allowed by offline", OfflineAccess)
		case slices.Contains(s.Scopes[:i], scope):
			return wrong("scopes."+strconv.Itoa(i), "stands there twice")
		}
	}
	for i, scope := range s.DefaultScopes {
		if !slices.Contains(s.Scopes, scope) || slices.Contains(s.DefaultScopes[:i], scope) {
			return wrong("default_scopes."+strconv.Itoa(i), "want one of scopes, once")
		}
	}
	return nil
}

// ValidScope reports whether the text is a scope-token of RFC 6749, section 3.3, of bearable length.
func ValidScope(s string) bool {
	if s == "" || len(s) > maxScope {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func (s *Settings) checkAudiences() error {
	for field, list := range map[string][]string{"resources": s.Resources, "introspects": s.Introspects} {
		if len(list) > maxAuds {
			return wrong(field, "want at most %d", maxAuds)
		}
		for i, aud := range list {
			at := field + "." + strconv.Itoa(i)
			switch {
			case aud == Any && field == "introspects" && len(list) == 1:
			case !ValidResource(aud):
				return wrong(at, "want an address without a fragment, as https://api.example.com, of at most %d bytes", maxAud)
			case slices.Contains(list[:i], aud):
				return wrong(at, "stands there twice")
			}
		}
	}
	return nil
}

// ValidResource reports whether the text can name a service (RFC 8707, 2): an absolute URI without a fragment.
func ValidResource(s string) bool {
	if len(s) > maxAud {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '#' || c == '"' || c == '\\' || c == '<' || c == '>' {
			return false
		}
	}
	scheme, rest, ok := strings.Cut(s, ":")
	return ok && rest != "" && validScheme(scheme)
}

// plain reports whether the text is one line that a page and a terminal can show as it is.
func plain(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff {
			return false
		}
	}
	return strings.TrimSpace(s) == s
}

// Parse reads settings as they are stored. Fields that it does not know are an error: they may say that less is allowed.
func Parse(b json.RawMessage) (*Settings, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	s := new(Settings)
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("client settings: %w", err)
	}
	return s, nil
}

// JSON returns the settings as they are stored.
func (s *Settings) JSON() json.RawMessage {
	b, err := json.Marshal(s)
	if err != nil {
		panic("clients: settings that were checked: " + err.Error())
	}
	return b
}
