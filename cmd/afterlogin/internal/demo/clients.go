package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/httpauth"
)

// The client_ids of the app: the same app twice, once with opaque access tokens and once with JWTs.
const (
	pocketShop    = "pocket-shop"
	pocketShopJWT = "pocket-shop-jwt"
)

// pocketName is what people read on the page that asks them, and on the page of their devices.
const pocketName = "Pocket Shop"

// pocketRedirect is where the app gets the code: at a port of its own on the same machine, whichever is free (RFC 8252,
// section 7.3).
const pocketRedirect = "http://127.0.0.1/callback"

// minAccess is the shortest lifetime of access tokens that a client may be registered with.
const minAccess = 10 * time.Second

// accessLifetime is for how long the app's access tokens are good: as short as the renewal in browsers, so that there is
// something to see.
func (c *Config) accessLifetime() time.Duration {
	return max(minAccess, c.Renewal.Truncate(time.Second))
}

// addClients registers the app.
func (d *Demo) addClients(ctx context.Context) error {
	for id, format := range map[string]string{pocketShop: clients.Opaque, pocketShopJWT: clients.JWT} {
		settings := &clients.Settings{
			Name: pocketName, Auth: clients.None, // what is installed on a phone keeps no secret from its owner
			GrantTypes:   []string{clients.AuthorizationCode, clients.RefreshToken},
			RedirectURIs: []string{pocketRedirect},
			Scopes:       []string{scopeCart, scopeOrders},
			// The shop's own app, and still people are asked: any program on the same machine could say that it is the app.
			FirstParty: true,
			Offline:    true, Format: format, AccessSeconds: int(d.config.accessLifetime() / time.Second),
		}
		if err := settings.Check(); err != nil {
			return fmt.Errorf("client %s: %w", id, err)
		}
		if err := d.addClient(ctx, id, settings); err != nil {
			return fmt.Errorf("client %s: %w", id, err)
		}
	}
	return nil
}

// addClient registers a client, or gives one that is kept from the last time (--data) the settings of today.
func (d *Demo) addClient(ctx context.Context, id string, settings *clients.Settings) error {
	_, err := d.authority.AddClient(ctx, 0, id, settings.JSON())
	if !errors.Is(err, afterlogin.ErrClientExists) {
		return err
	}
	kept, err := d.authority.Client(ctx, 0, id)
	if err != nil || bytes.Equal(kept.Settings, settings.JSON()) {
		return err
	}
	_, err = d.authority.ChangeClient(ctx, 0, id, settings.JSON(), kept.Version)
	return err
}

// openPrograms makes the whole site: what answers programs, the OAuth endpoints and the JSON API, beside the shop's pages
// and not behind them, since no cookie of a page counts there but on the page that asks for consent.
func (d *Demo) openPrograms(ctx context.Context) (http.Handler, error) {
	if err := d.addClients(ctx); err != nil {
		return nil, err
	}
	tokens, err := oauth.New(oauth.Options{
		Authority: d.authority, SignInURL: "/sign-in", Policies: d.config.policies(), Logger: d.config.Logger, Now: d.config.Now,
	})
	if err != nil {
		return nil, err
	}
	auth, err := httpauth.New(d.authority, httpauth.Options{PlainLoopback: true, Logger: d.config.Logger})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, path := range oauth.Paths() {
		mux.Handle(path, tokens)
	}
	mux.Handle("/api/", d.shop.api(auth))
	mux.Handle("GET /orders/{number}/receipt", d.shop.receipts())
	mux.Handle("/", d.shop.handler())
	return mux, nil
}

// issuer is the name of the shop in JWTs and metadata: its URL without the slash.
func (d *Demo) issuer() string { return strings.TrimSuffix(d.URL(), "/") }
