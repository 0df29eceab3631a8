package keyring_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// Three nodes on one store issue, validate, refresh and sign while every key rotates again and again. One of them is
// never told of a change. No token is refused anywhere.
func TestNoTokenIsRefusedWhileKeysRotate(t *testing.T) {
	const lasting = 20 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		lines := []store.Store{st, st, &line{Store: st, deaf: true}}
		var rings []*keyring.Ring
		var nodes []*afterlogin.Authority
		for _, l := range lines {
			r := shared(t, l)
			a, err := afterlogin.New(afterlogin.Config{Store: st, Keys: r, Issuer: "https://auth.example.com"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { a.Close() })
			rings, nodes = append(rings, r), append(nodes, a)
		}
		any := func() *afterlogin.Authority { return nodes[rand.IntN(len(nodes))] }
		end := time.Now().Add(lasting)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for time.Now().Before(end) {
					visit(t, any)
					if t.Failed() {
						return
					}
				}
			})
		}
		wg.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				for _, p := range allPurposes {
					if _, err := rings[i%3].Rotate(p); err != nil {
						t.Error(err)
					}
				}
				if i%25 == 0 {
					if _, err := rings[i%3].RotateSigning(jwt.EdDSA, time.Now(), 15*time.Minute, time.Hour); err != nil {
						t.Error(err)
					}
				}
				time.Sleep(keyring.Lead + time.Duration(rand.IntN(20))*time.Second)
			}
		})
		wg.Wait()
		for i, r := range rings {
			if id := r.Active(keyring.MAC).ID; id < 20 {
				t.Errorf("node %d is at MAC key %d after %v", i, id, lasting)
			}
		}
	})
}

// visit is a person who signs in and does things for some minutes, each on another node.
func visit(t *testing.T, node func() *afterlogin.Authority) {
	ctx := t.Context()
	m, err := node().Begin(ctx, 0, "mia")
	if err != nil {
		t.Error(err)
		return
	}
	in, err := node().Issue(ctx, afterlogin.IssueRequest{Subject: "mia", Mark: m})
	if err != nil {
		t.Error(err)
		return
	}
	g, err := node().IssueGrant(ctx, in.Session, afterlogin.GrantRequest{Client: "app"})
	if err != nil {
		t.Error(err)
		return
	}
	csrf := node().CSRFToken(in.Session)
	var signed afterlogin.Token
	for i := range 60 {
		s, err := node().Validate(ctx, in.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, Fresh: i%7 == 0})
		if err != nil {
			t.Errorf("session: %v", err)
			return
		}
		if ok, err := node().CheckCSRF(s, csrf); err != nil || !ok {
			t.Errorf("a CSRF token is refused: %v", err)
		}
		if _, err := node().Validate(ctx, g.Access.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAccess}}); err != nil {
			t.Errorf("access token: %v", err)
		}
		switch i % 20 {
		case 5:
			if g, err = node().Refresh(ctx, g.Refresh.Token, afterlogin.RefreshRequest{Client: "app"}); err != nil {
				t.Errorf("refresh: %v", err)
				return
			}
		case 10, 15:
			if next, err := node().Rotate(ctx, in.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}); err != nil {
				t.Errorf("rotate: %v", err)
			} else if !next.Token.IsZero() {
				in.Token = next.Token
			}
		case 0:
			j, err := node().IssueAccess(ctx, s, afterlogin.AccessRequest{JWT: true})
			if err != nil {
				t.Errorf("JWT: %v", err)
				return
			}
			signed = j.Token
		}
		if _, err := node().Validate(ctx, signed, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindJWT}}); err != nil {
			t.Errorf("JWT: %v", err)
		}
		time.Sleep(time.Duration(500+rand.IntN(3000)) * time.Millisecond)
	}
	if err := node().Revoke(ctx, in.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Error(err)
	}
	if _, err := node().Validate(ctx, in.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}); afterlogin.ReasonOf(err) != afterlogin.ReasonRevoked {
		t.Errorf("after the sign-out: %v", err)
	}
}
