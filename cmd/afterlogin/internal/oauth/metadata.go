package oauth

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/jwt"
)

// describe returns the metadata of RFC 8414: what there is, and nothing else. It is not served as an OpenID Connect
// configuration, since there are no ID tokens.
func (s *Server) describe(algorithm string) []byte {
	methods := []string{"client_secret_basic", "client_secret_post", "private_key_jwt"}
	var signing []string
	for _, a := range jwt.Algorithms() {
		signing = append(signing, string(a))
	}
	m := map[string]any{
		"issuer":                                                   s.issuer,
		"authorization_endpoint":                                   s.issuer + AuthorizePath,
		"token_endpoint":                                           s.issuer + TokenPath,
		"introspection_endpoint":                                   s.issuer + IntrospectPath,
		"revocation_endpoint":                                      s.issuer + RevokePath,
		"jwks_uri":                                                 s.issuer + KeysPath,
		"response_types_supported":                                 []string{"code"},
		"response_modes_supported":                                 []string{"query"},
		"grant_types_supported":                                    clients.GrantTypes(),
		"code_challenge_methods_supported":                         []string{"S256"},
		"token_endpoint_auth_methods_supported":                    append(methods, "none"),
		"token_endpoint_auth_signing_alg_values_supported":         signing,
		"introspection_endpoint_auth_methods_supported":            methods,
		"introspection_endpoint_auth_signing_alg_values_supported": signing,
		"revocation_endpoint_auth_methods_supported":               append(methods, "none"),
		"revocation_endpoint_auth_signing_alg_values_supported":    signing,
		"authorization_response_iss_parameter_supported":           true,
	}
	if s.sign != nil && algorithm != "" {
		m["introspection_signing_alg_values_supported"] = []string{algorithm}
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic("oauth: the metadata: " + err.Error()) // plain texts
	}
	return append(b, '\n')
}

// keys answers with the public keys.
func (s *Server) keys(w http.ResponseWriter, r *http.Request) {
	b, err := s.authority.JWKS().MarshalJSON()
	if err != nil {
		s.fault(r.Context(), fmt.Errorf("the public keys: %w", err)).write(w)
		return
	}
	s.document(w, r, "application/jwk-set+json", b)
}
