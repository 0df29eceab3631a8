package remote_test

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"strings"

	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/jwt/remote"
)

// A service that lets requests in with nothing but the address of the issuer's keys.
func Example() {
	keys, err := remote.Open(remote.Config{URL: "https://id.example/.well-known/jwks.json"})
	if err != nil {
		log.Fatal(err)
	}
	defer keys.Close()
	tokens := &jwt.Verifier{
		Keys:     keys,
		Issuer:   "https://id.example",
		Audience: []string{"https://api.example"},
		Type:     jwt.TypeAccessToken,
	}
	http.HandleFunc("GET /cart", func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		claims, err := tokens.Verify(r.Context(), token)
		switch {
		case errors.Is(err, jwt.ErrInvalid):
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
		case err != nil: // the keys cannot be fetched: neither yes nor no
			w.Header().Set("Retry-After", "5")
			w.WriteHeader(http.StatusServiceUnavailable)
		case claims.Confirmation != nil: // bound to a key, which this service does not look at
			w.WriteHeader(http.StatusForbidden)
		default:
			fmt.Fprintln(w, "the cart of", claims.Subject)
		}
	})
	log.Fatal(http.ListenAndServe("localhost:8080", nil))
}
