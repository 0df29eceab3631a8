package server

import (
	"net/http"
	"time"

	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/jwt"
)

// openGateway makes what proxies ask before each request, if there are applications behind them.
func (s *Server) openGateway() (err error) {
	apps := s.config.GatewayApps()
	if len(apps) == 0 {
		return nil
	}
	o := gateway.Options{
		Authority: s.authority, Sign: s.sign, Proxies: s.config.GatewayProxies(), Logger: s.log,
	}
	for _, a := range apps {
		to := gateway.App{Origin: a.Origin, Audience: a.Audience, TrustedOrigins: a.TrustedOrigins}
		for _, r := range a.Rules {
			to.Rules = append(to.Rules, gateway.Rule{
				Path: r.Path, Methods: r.Methods, Public: r.Public, Kinds: r.Kinds, Scopes: r.Scopes, MaxAge: r.MaxAge, ACR: r.ACR,
			})
		}
		o.Apps = append(o.Apps, to)
	}
	if s.gateway, err = gateway.New(o); err != nil {
		return setup("afterlogin config check names the place", "gateway: %w", err)
	}
	return nil
}

// sign signs claims with the installation's key.
func (s *Server) sign(typ string, c *jwt.Claims) (string, error) {
	key, err := s.data.keys.Signer(s.config.Algorithm(), time.Now())
	if err != nil {
		return "", err
	}
	return key.Sign(typ, c)
}

// withGateway answers proxies, and has next answer everything else. It stands outside of the check of the Host header,
// which under some proxies is the application's: who asks is checked by the address.
func (s *Server) withGateway(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !gateway.Handles(r):
			next.ServeHTTP(w, r)
		case s.gateway == nil:
			noGateway(w, r)
		default:
			s.gateway.ServeHTTP(w, r)
		}
	})
}
