package test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

// 64 requests present one token, over and over, through three authorities on one store: always exactly one successor.
func TestOneSuccessorOnEveryStore(t *testing.T) {
	onEveryStore(t, func(t *testing.T, s store.Store) {
		c, keys := newClock(), keyring.New()
		nodes := []*afterlogin.Authority{authority(t, s, keys, c), authority(t, s, keys, c), authority(t, s, keys, c)}
		tok := must[afterlogin.Issued](t)(nodes[0].Issue(ctx, afterlogin.IssueRequest{Subject: "mia"})).Token
		for round := range 40 {
			c.pass(15 * time.Minute)
			const n = 64
			got := make([]afterlogin.Token, n)
			var wg sync.WaitGroup
			start := make(chan struct{})
			for i := range n {
				wg.Go(func() {
					a := nodes[i%len(nodes)]
					<-start
					if said := answer(a, tok); said != "good" {
						t.Errorf("round %d, request %d: %s", round, i, said)
						return
					}
					next, err := a.Renew(ctx, tok, nil, afterlogin.Client{})
					if err != nil {
						t.Errorf("round %d, request %d: %v", round, i, err)
					}
					got[i] = next.Token
				})
			}
			close(start)
			wg.Wait()
			texts := make(map[string]bool)
			for _, g := range got {
				texts[g.Reveal()] = true
			}
			if len(texts) != 1 || got[0].IsZero() {
				t.Fatalf("round %d: %d different successors", round, len(texts))
			}
			tok = got[0]
			if said := answer(nodes[round%3], tok); said != "good" {
				t.Fatalf("round %d: the successor is %s", round, said)
			}
		}
	})
}

// A revocation through one authority is seen at once by every other on the same local store.
func TestRevocationAcrossAuthorities(t *testing.T) {
	onEveryStore(t, func(t *testing.T, s store.Store) {
		c, keys := newClock(), keyring.New()
		one, two := authority(t, s, keys, c), authority(t, s, keys, c)
		for i := range 100 {
			subject := fmt.Sprint("subject-", i)
			in := must[afterlogin.Issued](t)(one.Issue(ctx, afterlogin.IssueRequest{Subject: subject}))
			var wg sync.WaitGroup
			stop := make(chan struct{})
			wg.Go(func() { // keeps the cache of two busy with it
				for {
					select {
					case <-stop:
						return
					default:
						answer(two, in.Token)
					}
				}
			})
			var err error
			if i%2 == 0 {
				err = one.Revoke(ctx, in.Session.ID, afterlogin.ReasonAdministrator)
			} else {
				err = one.RevokeSubject(ctx, 0, subject, afterlogin.Sessions, afterlogin.ReasonAdministrator)
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if said := answer(two, in.Token); said == "good" {
					t.Fatalf("round %d: a yes after the revocation was answered", i)
				}
			}
			close(stop)
			wg.Wait()
		}
	})
}
