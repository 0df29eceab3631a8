package server

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/jwt"
)

// gatewayOptions returns what the configuration says of applications behind proxies, nil if there are none. Options that
// the gateway would refuse are an error, before anything is made.
func gatewayOptions(c *config.Config) (*gateway.Options, error) {
	apps := c.GatewayApps()
	if len(apps) == 0 {
		return nil, nil
	}
	o := &gateway.Options{Apps: apps, Proxies: c.GatewayProxies()}
	if err := gateway.Check(*o); err != nil {
		return nil, setup("afterlogin config check names the place", "%w", err)
	}
	return o, nil
}

// openGateway makes what proxies ask before each request, if there are applications behind them.
func (s *Server) openGateway() error {
	o, err := gatewayOptions(&s.config)
	if o == nil {
		return err
	}
	o.Authority, o.Sign, o.Refuse, o.Logger = s.authority, s.sign, refuse, s.log
	if s.gateway, err = gateway.New(*o); err != nil {
		return setup("afterlogin config check names the place", "%w", err)
	}
	return nil
}

// clientAddr tells where a request came from: what proxies that are believed say of it, or the address of the connection.
func (s *Server) clientAddr() func(*http.Request) netip.Addr {
	return gateway.ClientAddr(s.config.TrustedProxies())
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
