package demo

import (
	"context"
	"net/http"
	"net/netip"
	"sync"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// The partner: a machine that asks what is in stock.
const (
	partnerSubject = "partner"
	partnerRate    = 30 // requests a minute
)

// partnerNetworks are where the partner may call from. The thief is somewhere else.
var partnerNetworks = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/24"), netip.MustParsePrefix("::1/128")}

// partnerKey is the API key that the demo made for the partner.
//
// An application shows a key once and keeps none: whoever lost it gets another. The demo keeps this one in memory, since
// the partner is a command that comes and asks for it.
type partnerKey struct {
	mu  sync.Mutex
	now afterlogin.Issued
}

// makeKey makes the partner's key. One from the last time (--data) is ended: nobody holds it any more.
func (d *Demo) makeKey(ctx context.Context) error {
	if err := d.authority.RevokeSubject(ctx, 0, partnerSubject, afterlogin.Everything, afterlogin.ReasonAdministrator); err != nil {
		return err
	}
	mark, err := d.authority.Begin(ctx, 0, partnerSubject)
	if err != nil {
		return err
	}
	key, err := d.authority.Issue(ctx, afterlogin.IssueRequest{
		Kind: afterlogin.KindAPIKey, Subject: partnerSubject, Mark: mark, Name: "what is in stock",
		Scopes: []string{scopeStock}, Networks: partnerNetworks, Rate: partnerRate,
	})
	d.key.now = key
	return err
}

// A handedKey is the key as the partner gets it.
type handedKey struct {
	Token string               `json:"token"` // the secret itself
	ID    afterlogin.SessionID `json:"id"`
	Rate  int                  `json:"rate"`
}

func (k *partnerKey) handed() handedKey {
	return handedKey{k.now.Token.Reveal(), k.now.Session.ID, k.now.Session.Limits.Rate}
}

// partner answers with the partner's key.
func (c *control) partner(w http.ResponseWriter, _ *http.Request) {
	c.key.mu.Lock()
	defer c.key.mu.Unlock()
	reply(w, c.key.handed())
}

// rotate makes the partner another key; the old one is good for the grace more, so that there is time to change it.
func (c *control) rotate(w http.ResponseWriter, r *http.Request) {
	c.key.mu.Lock()
	defer c.key.mu.Unlock()
	next, err := c.shop.authority.RotateKey(r.Context(), c.key.now.Session.ID, c.addr.Grace)
	if err != nil {
		http.Error(w, err.Error(), httpauth.Status(err))
		return
	}
	c.key.now = next
	reply(w, c.key.handed())
}
