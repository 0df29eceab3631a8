package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
)

// metadata is what a provider says of itself (OpenID Connect Discovery 1.0, 3; RFC 8414), as far as it concerns us.
type metadata struct {
	authorization string
	token         string
	jwks          string
	endSession    string // "": none
	algorithms    []string
	authMethods   []string
	iss           bool // it names itself in its answers (RFC 9207)
	claims        bool // it takes the parameter claims
}

// algorithms are those that an ID token or a logout token may be signed with, if the provider's metadata name them, too:
// none of them works without a key, and none with the client's secret.
var algorithms = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA}

// discover fetches the metadata of the provider.
func (u *Upstream) discover(ctx context.Context, p *provider) (*metadata, error) {
	b, err := u.read(ctx, strings.TrimSuffix(p.Issuer, "/")+"/.well-known/openid-configuration")
	if err == nil {
		var m *metadata
		if m, err = parseMetadata(b, p.Issuer); err == nil {
			return m, nil
		}
	}
	u.log.Warn("an OpenID provider's metadata are not to be had", "provider", p.ID, "issuer", p.Issuer, "err", err)
	return nil, err
}

// parseMetadata reads metadata, which must be those of the issuer, to the letter (OpenID Connect Discovery 1.0, 4.3).
func parseMetadata(b []byte, issuer string) (*metadata, error) {
	o, err := parseObject(b)
	if err != nil {
		return nil, err
	}
	var m metadata
	var name string
	var methods, types []string
	if name, err = o.text("issuer"); err == nil && name != issuer {
		return nil, fmt.Errorf("they name the issuer %.200q, and %q is configured: the two must be equal, to the last slash", name, issuer)
	}
	plain := strings.HasPrefix(issuer, "http:") // on a loopback host: so are its endpoints, maybe
	address := func(member string, needed bool) (text string) {
		if err != nil {
			return ""
		}
		if text, err = o.text(member); err != nil || text == "" && !needed {
			return text
		}
		if bad := checkAddress(text, plain); bad != nil {
			err = fmt.Errorf("%s: %w", member, bad)
		}
		return text
	}
	m.authorization = address("authorization_endpoint", true)
	m.token = address("token_endpoint", true)
	m.jwks = address("jwks_uri", true)
	m.endSession = address("end_session_endpoint", false)
	texts := func(member string) (list []string) {
		if err == nil {
			list, err = o.texts(member, false)
		}
		return list
	}
	supported := texts("id_token_signing_alg_values_supported")
	m.authMethods = texts("token_endpoint_auth_methods_supported")
	types = texts("response_types_supported")
	methods = texts("code_challenge_methods_supported")
	if err == nil {
		m.iss, err = o.flag("authorization_response_iss_parameter_supported")
	}
	if err == nil {
		m.claims, err = o.flag("claims_parameter_supported")
	}
	switch {
	case err != nil:
		return nil, err
	case types != nil && !slices.Contains(types, "code"):
		return nil, errors.New("response_types_supported: there is no code, and nothing else is used here")
	case methods != nil && !slices.Contains(methods, "S256"):
		return nil, errors.New("code_challenge_methods_supported: there is no S256, and nothing else is used here")
	}
	for _, a := range supported {
		if slices.Contains(algorithms, a) && !slices.Contains(m.algorithms, a) {
			m.algorithms = append(m.algorithms, a)
		}
	}
	if supported == nil { // they must say it; where they do not, there is one that every provider has to know
		m.algorithms = []string{oidc.RS256}
	}
	if len(m.algorithms) == 0 {
		return nil, errors.New("id_token_signing_alg_values_supported: none that verifies with a public key")
	}
	return &m, nil
}
