package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

// standing is what a service is told of a token of the kind.
func standing(a *afterlogin.Authority, tok afterlogin.Token, k afterlogin.Kind) string {
	_, err := a.Validate(ctx, tok, afterlogin.Expect{Kinds: []afterlogin.Kind{k}, CanRenew: k == afterlogin.KindSession})
	switch {
	case err == nil:
		return "good"
	case errors.Is(err, afterlogin.ErrUnavailable):
		return "unavailable"
	}
	return string(afterlogin.ReasonOf(err))
}

func (s *scene) give(offline bool) {
	s.grant = must[afterlogin.Grant](s.t)(s.truth.IssueGrant(ctx, s.in.Session, afterlogin.GrantRequest{Client: "app", Offline: offline}))
}

func (s *scene) refresh() (err error) {
	s.granted, err = s.a.Refresh(ctx, s.grant.Refresh.Token, afterlogin.RefreshRequest{Client: "app"})
	return err
}

func (s *scene) redeem(offline bool) error {
	got, err := s.a.Redeem(ctx, s.once, func(*afterlogin.Code) (afterlogin.GrantRequest, error) {
		return afterlogin.GrantRequest{Client: "app", Offline: offline}, nil
	})
	if afterlogin.ReasonOf(err) == afterlogin.ReasonUsed {
		return nil // the first try happened, and its answer is lost: they sign in again
	}
	s.granted = got
	return err
}

// bothGood is what a grant must be that somebody received.
func (s *scene) bothGood(g afterlogin.Grant) string {
	if g.Refresh.Token.IsZero() {
		return ""
	}
	return want("the refresh token", standing(s.truth, g.Refresh.Token, afterlogin.KindRefresh), "good") +
		want("the access token", standing(s.truth, g.Access.Token, afterlogin.KindAccess), "good")
}

// childActs are the acts on what lives under a root, or came from one.
var childActs = []act{
	{
		name: "grant",
		do: func(s *scene) (err error) {
			s.granted, err = s.a.IssueGrant(ctx, s.in.Session, afterlogin.GrantRequest{Client: "app"})
			return err
		},
		done: func(s *scene) string { return s.bothGood(s.granted) },
		safe: func(s *scene) string { return want("the session", answer(s.truth, s.in.Token), "good") },
	},
	{
		name: "offline grant",
		do: func(s *scene) (err error) {
			s.granted, err = s.a.IssueGrant(ctx, s.in.Session, afterlogin.GrantRequest{Client: "app", Offline: true})
			return err
		},
		done: func(s *scene) string { return s.bothGood(s.granted) },
	},
	{
		name: "refresh",
		set:  func(s *scene) { s.give(false) },
		do:   (*scene).refresh,
		done: func(s *scene) string { return s.bothGood(s.granted) },
		safe: func(s *scene) string {
			return want("the session", answer(s.truth, s.in.Token), "good") +
				want("the access token before", standing(s.truth, s.grant.Access.Token, afterlogin.KindAccess), "good")
		},
	},
	{
		name: "refresh late, after a lost answer",
		set: func(s *scene) {
			s.give(true)
			must[afterlogin.Grant](s.t)(s.truth.Refresh(ctx, s.grant.Refresh.Token, afterlogin.RefreshRequest{Client: "app"}))
			s.clock.pass(time.Minute)
		},
		do:   (*scene).refresh,
		done: func(s *scene) string { return s.bothGood(s.granted) },
	},
	{
		name: "reuse of a refresh token",
		set: func(s *scene) {
			s.give(true)
			old := s.grant.Refresh.Token
			for range 2 {
				s.grant = must[afterlogin.Grant](s.t)(s.truth.Refresh(ctx, s.grant.Refresh.Token, afterlogin.RefreshRequest{Client: "app"}))
			}
			s.clock.pass(time.Minute)
			s.once = old
		},
		do: func(s *scene) error {
			_, err := s.a.Refresh(ctx, s.once, afterlogin.RefreshRequest{Client: "app"})
			switch afterlogin.ReasonOf(err) {
			case afterlogin.ReasonReused, afterlogin.ReasonRevoked:
				return nil
			}
			if err == nil {
				s.t.Error("a yes to a stolen token")
			}
			return err
		},
		done: func(s *scene) string {
			return want("the newest refresh token", standing(s.truth, s.grant.Refresh.Token, afterlogin.KindRefresh), "revoked") +
				want("the newest access token", standing(s.truth, s.grant.Access.Token, afterlogin.KindAccess), "revoked")
		},
		safe: func(s *scene) string { return want("the session", answer(s.truth, s.in.Token), "good") },
	},
	{
		name: "code",
		set: func(s *scene) {
			s.once = must[afterlogin.Issued](s.t)(s.truth.IssueCode(ctx, s.in.Session, afterlogin.CodeRequest{Client: "app"})).Token
		},
		do:   func(s *scene) error { return s.redeem(false) },
		done: func(s *scene) string { return s.bothGood(s.granted) },
		safe: func(s *scene) string { return want("the session", answer(s.truth, s.in.Token), "good") },
	},
	{
		name: "code for an offline grant",
		set: func(s *scene) {
			s.once = must[afterlogin.Issued](s.t)(s.truth.IssueCode(ctx, s.in.Session, afterlogin.CodeRequest{Client: "app"})).Token
		},
		do:   func(s *scene) error { return s.redeem(true) },
		done: func(s *scene) string { return s.bothGood(s.granted) },
	},
	{
		name: "replayed code",
		set: func(s *scene) {
			s.once = must[afterlogin.Issued](s.t)(s.truth.IssueCode(ctx, s.in.Session, afterlogin.CodeRequest{Client: "app"})).Token
			s.grant = must[afterlogin.Grant](s.t)(s.truth.Redeem(ctx, s.once, func(*afterlogin.Code) (afterlogin.GrantRequest, error) {
				return afterlogin.GrantRequest{Client: "app", Offline: true}, nil
			}))
			s.clock.pass(20 * time.Second)
		},
		do: func(s *scene) error {
			err := s.redeem(true)
			if err == nil && !s.granted.Refresh.Token.IsZero() {
				s.t.Error("a code is redeemed twice")
			}
			return err
		},
		done: func(s *scene) string {
			return want("what it was redeemed for", standing(s.truth, s.grant.Refresh.Token, afterlogin.KindRefresh), "revoked")
		},
	},
	{
		name: "ticket",
		set: func(s *scene) {
			s.once = must[afterlogin.Issued](s.t)(s.truth.IssueTicket(ctx, s.in.Session, afterlogin.TicketRequest{Target: "/x"})).Token
		},
		do: func(s *scene) error {
			got, err := s.a.RedeemTicket(ctx, s.once, afterlogin.TicketUse{Target: "/x", Open: true})
			if afterlogin.ReasonOf(err) == afterlogin.ReasonUsed {
				return nil
			}
			s.result = got
			return err
		},
		done: func(s *scene) string {
			if s.result.Token.IsZero() {
				return ""
			}
			return want("the session on the other host", answer(s.truth, s.result.Token), "good")
		},
		safe: func(s *scene) string { return want("the session", answer(s.truth, s.in.Token), "good") },
	},
	{
		name: "access token",
		do: func(s *scene) (err error) {
			s.result, err = s.a.IssueAccess(ctx, s.in.Session, afterlogin.AccessRequest{Client: "app"})
			return err
		},
		done: func(s *scene) string {
			return want("the access token", standing(s.truth, s.result.Token, afterlogin.KindAccess), "good")
		},
	},
	{
		name: "rotation of a key",
		set: func(s *scene) {
			s.key = must[afterlogin.Issued](s.t)(s.truth.Issue(ctx, afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "svc"}))
		},
		do: func(s *scene) (err error) {
			s.result, err = s.a.RotateKey(ctx, s.key.Session.ID, time.Hour)
			if errors.Is(err, afterlogin.ErrBadRequest) {
				// The first try happened, and its answer is lost. Whoever asked looks at the list, revokes what nobody
				// holds, and asks again.
				for k, err := range s.truth.Sessions(ctx, afterlogin.Query{Subject: "svc"}) {
					if err != nil {
						return err
					}
					if k.ID != s.key.Session.ID {
						if err := s.a.Revoke(ctx, k.ID, afterlogin.ReasonAdministrator); err != nil {
							return err
						}
					}
				}
				s.result, err = s.a.RotateKey(ctx, s.key.Session.ID, time.Hour)
			}
			return err
		},
		done: func(s *scene) string {
			return want("the new key", standing(s.truth, s.result.Token, afterlogin.KindAPIKey), "good")
		},
		safe: func(s *scene) string {
			return want("the old key", standing(s.truth, s.key.Token, afterlogin.KindAPIKey), "good")
		},
	},
	{
		name: "revoke what came from a session",
		set: func(s *scene) {
			s.give(true)
			s.key = must[afterlogin.Issued](s.t)(s.truth.Issue(ctx, afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "mia", Origin: s.in.Session.ID}))
		},
		do: func(s *scene) error {
			_, err := s.a.RevokeFrom(ctx, s.in.Session.ID, afterlogin.ReasonAdministrator)
			return err
		},
		done: func(s *scene) string {
			return want("the session", answer(s.truth, s.in.Token), "revoked") +
				want("the key", standing(s.truth, s.key.Token, afterlogin.KindAPIKey), "revoked") +
				want("the grant", standing(s.truth, s.grant.Refresh.Token, afterlogin.KindRefresh), "revoked")
		},
		safe: func(s *scene) string { return want("the other session", answer(s.truth, s.other.Token), "good") },
	},
	{
		name: "register a client",
		do: func(s *scene) error {
			_, err := s.a.AddClient(ctx, 0, "app", json.RawMessage(`{}`))
			if err == afterlogin.ErrClientExists {
				return nil
			}
			return err
		},
		done: func(s *scene) string {
			_, err := s.truth.Client(ctx, 0, "app")
			return want("the client", fmt.Sprint(err), "<nil>")
		},
	},
}

// 50 refreshes of one token through three authorities: one successor, nobody signed out; then a late copy ends all.
func TestFiftyRefreshesOnEveryStore(t *testing.T) {
	onEveryStore(t, func(t *testing.T, s store.Store) {
		c, keys := newClock(), keyring.New()
		nodes := []*afterlogin.Authority{authority(t, s, keys, c), authority(t, s, keys, c), authority(t, s, keys, c)}
		for _, offline := range []bool{false, true} {
			in := must[afterlogin.Issued](t)(nodes[0].Issue(ctx, afterlogin.IssueRequest{Subject: "mia"}))
			g := must[afterlogin.Grant](t)(nodes[0].IssueGrant(ctx, in.Session, afterlogin.GrantRequest{Client: "app", Offline: offline}))
			first := g.Refresh.Token
			for round := range 10 {
				got := make([]afterlogin.Grant, 50)
				var wg sync.WaitGroup
				start := make(chan struct{})
				for i := range got {
					wg.Go(func() {
						<-start
						var err error
						got[i], err = nodes[i%3].Refresh(ctx, g.Refresh.Token, afterlogin.RefreshRequest{Client: "app"})
						if err != nil {
							t.Errorf("round %d, refresh %d: %v", round, i, err)
						}
					})
				}
				close(start)
				wg.Wait()
				if t.Failed() {
					return
				}
				for i := range got {
					if got[i].Refresh.Token.Reveal() != got[0].Refresh.Token.Reveal() || got[i].Access.Token.Reveal() != got[0].Access.Token.Reveal() {
						t.Fatalf("round %d: refresh %d got other tokens", round, i)
					}
					if said := standing(nodes[(i+1)%3], got[i].Access.Token, afterlogin.KindAccess); said != "good" {
						t.Fatalf("round %d: an access token is %s", round, said)
					}
				}
				g = got[round]
				c.pass(3 * time.Minute)
			}
			if _, err := nodes[1].Refresh(ctx, first, afterlogin.RefreshRequest{Client: "app"}); afterlogin.ReasonOf(err) != afterlogin.ReasonReused {
				t.Fatalf("a late copy: %v", err)
			}
			for i, a := range nodes {
				if said := standing(a, g.Access.Token, afterlogin.KindAccess); said != "revoked" {
					t.Errorf("node %d: the newest access token is %s", i, said)
				}
				if said := standing(a, g.Refresh.Token, afterlogin.KindRefresh); said != "revoked" {
					t.Errorf("node %d: the newest refresh token is %s", i, said)
				}
				if said := answer(a, in.Token); said != "good" {
					t.Errorf("node %d: the session is %s", i, said)
				}
			}
		}
	})
}
