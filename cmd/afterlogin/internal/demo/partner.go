package demo

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
)

// A Partner plays the machine of another company, which asks the running demo what is in stock, with an API key.
type Partner struct {
	// StateDir is where the demo is found.
	StateDir string
	// Out receives the timeline.
	Out io.Writer
}

// errand is a Partner under way.
type errand struct {
	timeline
	control *controller
	client  *http.Client
	failed  int
}

// Run plays what can be done with a key, and what cannot, and reports whether everything went as it must.
func (p Partner) Run(ctx context.Context) (held bool, err error) {
	e := &errand{timeline: timeline{out: p.Out}, client: newClient(netip.Addr{})}
	defer e.client.CloseIdleConnections()
	if e.control, err = dial(p.StateDir); err != nil {
		return false, err
	}
	var key handedKey
	if err := e.control.call(ctx, http.MethodPost, "partner", nil, &key); err != nil {
		return false, err
	}
	e.say("", "", "the shop has given the partner the key alk_…[token] (%s): for the stock, from this machine, %d requests a minute", key.ID, key.Rate)
	for _, step := range []func(context.Context, *handedKey) error{e.scopes, e.networks, e.rotate, e.hurry} {
		if err := step(ctx, &key); err != nil {
			return false, err
		}
	}
	return e.failed == 0, nil
}

// scopes shows what the key opens, and what it does not.
func (e *errand) scopes(ctx context.Context, key *handedKey) error {
	if err := e.ask(ctx, e.client, "GET /api/stock, without a key", "/api/stock", "", http.StatusUnauthorized, afterlogin.ReasonNoCredential); err != nil {
		return err
	}
	if err := e.ask(ctx, e.client, "GET /api/stock, with the key", "/api/stock", key.Token, http.StatusOK, ""); err != nil {
		return err
	}
	return e.ask(ctx, e.client, "GET /api/orders, with the key", "/api/orders", key.Token, http.StatusForbidden, afterlogin.ReasonScope)
}

// networks shows what a copy of the key is worth elsewhere.
func (e *errand) networks(ctx context.Context, key *handedKey) error {
	client, from := newThief(e.control.addr.URL)
	defer client.CloseIdleConnections()
	if from != thiefAddr.String() {
		return nil // this system has one loopback address only
	}
	return e.ask(ctx, client, "GET /api/stock, a copy of it, from "+from, "/api/stock", key.Token, http.StatusForbidden, afterlogin.ReasonWrongNetwork)
}

// rotate shows how a key is changed without a request that fails.
func (e *errand) rotate(ctx context.Context, key *handedKey) error {
	old := *key
	if err := e.control.call(ctx, http.MethodPost, "rotate", nil, key); err != nil {
		return err
	}
	overlap := e.control.addr.Grace
	e.say("", "", "the shop makes another key, %s; the old one is good for %s more", key.ID, words(overlap))
	if err := e.ask(ctx, e.client, "GET /api/stock, with the new key", "/api/stock", key.Token, http.StatusOK, ""); err != nil {
		return err
	}
	if err := e.ask(ctx, e.client, "GET /api/stock, with the old key", "/api/stock", old.Token, http.StatusOK, ""); err != nil {
		return err
	}
	over := time.NewTimer(overlap + time.Second)
	defer over.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-over.C:
	}
	return e.ask(ctx, e.client, "GET /api/stock, with the old key", "/api/stock", old.Token, http.StatusUnauthorized, afterlogin.ReasonExpired)
}

// hurry shows what becomes of a partner who asks too often.
func (e *errand) hurry(ctx context.Context, key *handedKey) error {
	for n := range 2 * key.Rate {
		a, err := askWithKey(ctx, e.client, e.control.addr.URL, "/api/stock", key.Token)
		if err != nil {
			return err
		}
		if a.status != http.StatusOK || n == 2*key.Rate-1 {
			e.tell(fmt.Sprintf("GET /api/stock, %d times at once", n+1), a, http.StatusTooManyRequests, "rate_limited")
			return nil
		}
	}
	return nil
}

// ask sends a request and tells how it went.
func (e *errand) ask(ctx context.Context, client *http.Client, what, path, key string, want int, why afterlogin.Reason) error {
	a, err := askWithKey(ctx, client, e.control.addr.URL, path, key)
	if err != nil {
		return err
	}
	e.tell(what, a, want, string(why))
	return nil
}

// tell says how a request went, and counts it if that is not how it must.
func (e *errand) tell(what string, a keyAnswer, want int, why string) {
	text := a.why.Reason
	switch {
	case a.status != want || a.why.Reason != why:
		e.failed++
		text += fmt.Sprintf(" (want %d %s)", want, why)
	case a.status == http.StatusOK:
		text = "what is left of " + count(len(a.Stock), "product", "products")
	case a.again != "":
		text += ": the next one in " + a.again + " s"
	}
	e.say(what, strconv.Itoa(a.status), "%s", text)
}

// A keyAnswer is what the JSON API answered a partner.
type keyAnswer struct {
	status int
	why    problemJSON
	again  string         // Retry-After
	Stock  map[string]int `json:"stock"`
}

// askWithKey asks the JSON API as a partner does.
func askWithKey(ctx context.Context, client *http.Client, base, path, key string) (a keyAnswer, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+path, nil)
	if err != nil {
		return a, err
	}
	r.Header.Set("Accept", "application/json")
	if key != "" {
		r.Header.Set("X-Api-Key", key)
	}
	var header http.Header
	a.status, a.why, header, err = fetch(client, r, &a)
	a.again = header.Get("Retry-After")
	return a, err
}
