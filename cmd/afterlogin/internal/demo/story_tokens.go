package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth"
	"github.com/afterlogin/afterlogin/jwt"
)

// The steps of the app on mia's phone and of the partner's machine.

// newApp has mia allow an app, in her browser.
func (s *story) newApp(ctx context.Context, id string) (*pocket, error) {
	p := newPocket(s.demo.loopbackURL(), s.demo.URL(), id, s.now)
	p.note = s.note
	s.apps = append(s.apps, p)
	return p, p.signIn(ctx, func(ctx context.Context, address string) error { return s.mia.allow(ctx, address, "mia") })
}

// sees checks what the app is told of the cart: the status, and why.
func (p *pocket) sees(ctx context.Context, status int, why afterlogin.Reason) error {
	var cart apiBill
	got, problem, err := p.call(ctx, "/api/cart", &cart)
	if err != nil {
		return err
	}
	if got != status || problem.Reason != string(why) {
		return fmt.Errorf("GET /api/cart: want %d %s, got %d %s", status, why, got, problem.Reason)
	}
	if got == http.StatusOK && len(cart.Items) != 2 {
		return fmt.Errorf("GET /api/cart shows %d kinds of things, want 2", len(cart.Items))
	}
	return nil
}

// refused checks that the app's refresh token is.
func (p *pocket) refused(ctx context.Context) error {
	err := p.renew(ctx)
	var e *tokenError
	if errors.As(err, &e) && e.Status == http.StatusBadRequest && e.Code == "invalid_grant" {
		return nil
	}
	return fmt.Errorf("POST /oauth/token: want 400 invalid_grant, got %v", err)
}

func (s *story) allowsApp(ctx context.Context) (string, error) {
	before := s.mia.cookie
	app, err := s.newApp(ctx, pocketShop)
	if err != nil {
		return "", err
	}
	if s.app = app; app.access == "" || app.refresh == "" || s.mia.cookie != before {
		return "", errors.New("the app has no tokens, or the browser's cookie has changed")
	}
	swapped := *app
	swapped.access = before
	if err := swapped.sees(ctx, http.StatusUnauthorized, afterlogin.ReasonWrongKind); err != nil {
		return "", fmt.Errorf("with the browser's token: %w", err)
	}
	b := *s.mia
	b.cookie = app.access
	a, err := b.get(ctx, "/cart")
	if err != nil {
		return "", err
	}
	if err := want(a, http.StatusUnauthorized, afterlogin.ReasonWrongKind); err != nil {
		return "", fmt.Errorf("the app's token as a cookie: %w", err)
	}
	return "a token of the browser's is refused there, and one of the app's on the pages", app.sees(ctx, http.StatusOK, "")
}

func (s *story) appRenews(ctx context.Context) (string, error) {
	s.advance(s.demo.config.accessLifetime() + time.Second)
	if err := s.app.sees(ctx, http.StatusUnauthorized, afterlogin.ReasonExpired); err != nil {
		return "", err
	}
	access, refresh := s.app.access, s.app.refresh
	if err := s.app.renew(ctx); err != nil {
		return "", err
	}
	if s.app.access == access || s.app.refresh == refresh {
		return "", errors.New("a token is the old one")
	}
	return "401 expired, and then 200 with the next", s.app.sees(ctx, http.StatusOK, "")
}

func (s *story) appLosesAnswer(ctx context.Context) (string, error) {
	s.advance(s.demo.config.accessLifetime() + time.Second)
	s.app.lossy.lose = true
	if err := s.app.renew(ctx); !errors.Is(err, errLost) {
		return "", fmt.Errorf("no answer was lost: %v", err)
	}
	var wg sync.WaitGroup
	apps := make([]pocket, 20)
	errs := make([]error, len(apps))
	for i := range apps {
		apps[i] = *s.app
		wg.Go(func() { errs[i] = apps[i].renew(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	for i := range apps {
		if apps[i].refresh != s.app.lossy.lost || apps[i].access != apps[0].access {
			return "", errors.New("one of them got other tokens")
		}
	}
	*s.app = apps[0]
	return "", s.app.sees(ctx, http.StatusOK, "")
}

// appRobbed has a thief copy the refresh token and come with it when the app has renewed it and used what it got.
func (s *story) appRobbed(ctx context.Context) (string, error) {
	thief := *s.app
	s.advance(s.demo.config.accessLifetime() + time.Second)
	if err := s.app.renew(ctx); err != nil {
		return "", err
	}
	s.advance(s.demo.config.Grace + time.Second)
	// The app uses what it got, so that its answer cannot have been lost: whoever comes with an older one has a copy.
	if err := s.app.renew(ctx); err != nil {
		return "", err
	}
	if err := s.app.sees(ctx, http.StatusOK, ""); err != nil {
		return "", err
	}
	if err := thief.refused(ctx); err != nil {
		return "", fmt.Errorf("the thief: %w", err)
	}
	if err := s.app.sees(ctx, http.StatusUnauthorized, afterlogin.ReasonRevoked); err != nil {
		return "", err
	}
	if err := s.app.refused(ctx); err != nil {
		return "", err
	}
	a, err := s.mia.get(ctx, "/cart")
	if err != nil {
		return "", err
	}
	return "400 invalid_grant for the thief, and for the app; mia's browser goes on", want(a, http.StatusOK, "")
}

func (s *story) appSignedOut(ctx context.Context) (string, error) {
	app, err := s.newApp(ctx, pocketShop)
	if err != nil {
		return "", err
	}
	s.app = app
	if err := app.sees(ctx, http.StatusOK, ""); err != nil {
		return "", err
	}
	a, err := s.mia.get(ctx, "/account/sessions")
	if err != nil {
		return "", err
	}
	_, rest, found := strings.Cut(a.body, `data-app="`)
	id, _, _ := strings.Cut(rest, `"`)
	if !found || strings.Count(a.body, `data-app="`) != 1 || !strings.Contains(rest, pocketName+" (app)") {
		return "", errors.New("the list does not show one app")
	}
	if a, err = s.mia.post(ctx, "/account/sessions/"+id+"/sign-out", nil); err != nil {
		return "", err
	}
	if err := want(a, http.StatusOK, ""); err != nil {
		return "", err
	}
	if err := app.sees(ctx, http.StatusUnauthorized, afterlogin.ReasonRevoked); err != nil {
		return "", err
	}
	return id, app.refused(ctx)
}

// verifies checks the app's JWT as a service does that has nothing but the shop's URL: with the keys that it publishes.
func (s *story) verifies(ctx context.Context) (*jwt.Claims, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.jwtApp.issuer+oauth.KeysPath, nil)
	if err != nil {
		return nil, err
	}
	a, err := read(s.jwtApp.client, r)
	if err != nil {
		return nil, err
	}
	keys, err := jwt.ParseJWKS([]byte(a.body))
	if err != nil {
		return nil, err
	}
	v := jwt.Verifier{
		Keys: keys, Issuer: s.jwtApp.issuer, Audience: []string{s.jwtApp.issuer}, Type: jwt.TypeAccessToken, Now: s.now,
	}
	return v.Verify(ctx, s.jwtApp.access)
}

func (s *story) allowsJWTApp(ctx context.Context) (string, error) {
	app, err := s.newApp(ctx, pocketShopJWT)
	if err != nil {
		return "", err
	}
	s.jwtApp = app
	if err := app.sees(ctx, http.StatusOK, ""); err != nil {
		return "", err
	}
	claims, err := s.verifies(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("sub %s, client_id %s, scope %s", claims.Subject, claims.ClientID, strings.Join(claims.Scope, " ")), nil
}

// jwtAfterwards looks at the JWT of an app that was just signed out.
func (s *story) jwtAfterwards(ctx context.Context) (string, error) {
	if err := s.jwtApp.sees(ctx, http.StatusUnauthorized, afterlogin.ReasonSignedOutAll); err != nil {
		return "", err
	}
	if err := s.jwtApp.refused(ctx); err != nil {
		return "", err
	}
	if _, err := s.verifies(ctx); err != nil {
		return "", fmt.Errorf("with the public keys alone: %w", err)
	}
	return "401 signed_out_all; who checks the JWT by its keys alone believes it until it ends", nil
}

// ticket has a stranger without a cookie open the link that mia made.
func (s *story) ticket(ctx context.Context) (string, error) {
	a, err := s.mia.get(ctx, "/orders")
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(a.body, `data-order="`)
	number, _, _ := strings.Cut(rest, `"`)
	if a, err = s.mia.post(ctx, "/orders/"+number+"/link", nil); err != nil {
		return "", err
	}
	_, rest, _ = strings.Cut(a.body, "<code data-link>")
	link, _, _ := strings.Cut(rest, "</code>")
	_, ticket, found := strings.Cut(link, "/orders/"+number+"/receipt?ticket=")
	if !found {
		return "", errors.New("there is no link")
	}
	s.note(ticket)
	stranger := s.visitor(thiefAgent)
	open := func(number string) (answer, error) {
		return stranger.get(ctx, "/orders/"+number+"/receipt?ticket="+ticket)
	}
	if a, err = open("1"); err != nil {
		return "", err
	}
	if err := want(a, http.StatusForbidden, afterlogin.ReasonWrongTarget); err != nil {
		return "", fmt.Errorf("another receipt: %w", err)
	}
	if a, err = open(number); err != nil {
		return "", err
	}
	if a.Status != http.StatusOK || !strings.Contains(a.body, "Receipt for order "+number) || a.set != "" {
		return "", fmt.Errorf("the link answers %d, or not with a receipt", a.Status)
	}
	if a, err = open(number); err != nil {
		return "", err
	}
	return "403 for another receipt, 200, and the second time 410", want(a, http.StatusGone, afterlogin.ReasonUsed)
}

// asks has the partner ask with the key, from the network of the client.
func (s *story) asks(ctx context.Context, client *http.Client, path string, key afterlogin.Issued, status int, why string) error {
	a, err := askWithKey(ctx, client, s.demo.loopbackURL(), path, key.Token.Reveal())
	if err == nil && (a.status != status || a.why.Reason != why) {
		err = fmt.Errorf("GET %s: want %d %s, got %d %s", path, status, why, a.status, a.why.Reason)
	}
	return err
}

func (s *story) partnerAsks(ctx context.Context) (string, error) {
	key := s.demo.key.now
	s.note(key.Token.Reveal())
	partner := s.mia.client
	err := errors.Join(
		s.asks(ctx, partner, "/api/stock", afterlogin.Issued{}, http.StatusUnauthorized, string(afterlogin.ReasonNoCredential)),
		s.asks(ctx, partner, "/api/stock", key, http.StatusOK, ""),
		s.asks(ctx, partner, "/api/orders", key, http.StatusForbidden, string(afterlogin.ReasonScope)),
	)
	if _, from := newThief(s.demo.loopbackURL()); from == thiefAddr.String() {
		err = errors.Join(err, s.asks(ctx, s.thief.client, "/api/stock", key, http.StatusForbidden, string(afterlogin.ReasonWrongNetwork)))
	}
	return "200; 403 scope; 403 wrong_network", err
}

func (s *story) partnerRotates(ctx context.Context) (string, error) {
	old := s.demo.key.now
	next, err := s.demo.authority.RotateKey(ctx, old.Session.ID, s.demo.config.Grace)
	if err != nil {
		return "", err
	}
	s.demo.key.now = next
	s.note(next.Token.Reveal())
	partner := s.mia.client
	err = errors.Join(
		s.asks(ctx, partner, "/api/stock", next, http.StatusOK, ""),
		s.asks(ctx, partner, "/api/stock", old, http.StatusOK, ""),
	)
	s.advance(s.demo.config.Grace + time.Second)
	return fmt.Sprintf("%s, then %s", old.Session.ID, next.Session.ID), errors.Join(err,
		s.asks(ctx, partner, "/api/stock", old, http.StatusUnauthorized, string(afterlogin.ReasonExpired)),
		s.asks(ctx, partner, "/api/stock", next, http.StatusOK, ""),
	)
}

func (s *story) partnerHurries(ctx context.Context) (string, error) {
	key := s.demo.key.now
	for range 2 * partnerRate {
		a, err := askWithKey(ctx, s.mia.client, s.demo.loopbackURL(), "/api/stock", key.Token.Reveal())
		if err != nil {
			return "", err
		}
		if a.status != http.StatusTooManyRequests {
			continue
		}
		if a.again == "" {
			return "", errors.New("the answer does not say when to come again")
		}
		s.advance(time.Minute / partnerRate)
		return "Retry-After: " + a.again, s.asks(ctx, s.mia.client, "/api/stock", key, http.StatusOK, "")
	}
	return "", fmt.Errorf("%d requests at once, and all were answered", 2*partnerRate)
}
