package gateway_test

import (
	"log"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// A server that proxies ask, with pages of its own below /.afterlogin/ of the application's host.
func Example() {
	keys := keyring.New()
	authority, err := afterlogin.New(afterlogin.Config{Store: memstore.New(), Keys: keys, Issuer: "https://id.example.com"})
	if err != nil {
		log.Fatal(err)
	}
	defer authority.Close()
	g, err := gateway.New(gateway.Options{
		Authority: authority,
		Sign: func(typ string, c *jwt.Claims) (string, error) {
			key, err := keys.Signer(jwt.EdDSA, time.Now())
			if err != nil {
				return "", err
			}
			return key.Sign(typ, c)
		},
		Apps: []gateway.App{{
			Origin: "https://shop.example.com",
			Rules: []gateway.Rule{
				{Path: "/assets/", Public: true},
				{Path: "/admin/", Scopes: []string{"admin"}, MaxAge: 15 * time.Minute},
			},
		}},
		Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:7070", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case gateway.Handles(r):
			g.ServeHTTP(w, r)
		case r.URL.Path == gateway.BasePath+gateway.RenewPath:
			g.Renew(w, r)
		case strings.HasPrefix(r.URL.Path, gateway.BasePath+"/"):
			site, err := g.Site(r)
			if err != nil {
				g.Refuse(w, r, err)
				return
			}
			site.Auth.Optional(http.NotFoundHandler()).ServeHTTP(w, r) // the sign-in page
		default:
			http.NotFound(w, r)
		}
	})))
}
