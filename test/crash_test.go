package test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// Power is cut 500 times while people sign in, renew, sign out and sign out everywhere; a part of what was not synced is
// lost each time. Whatever was answered must hold afterwards; what was under way may have happened or not.
func TestNothingAnsweredIsLostInACrash(t *testing.T) {
	crashes := 500
	if testing.Short() {
		crashes = 50
	}
	keys := keyring.New()
	checked := 0
	for i := range crashes {
		checked += crashOnce(t, keys, uint64(i))
		if t.Failed() {
			t.Fatalf("crash %d", i)
		}
	}
	t.Logf("%d crashes, %d answered changes checked, none lost", crashes, checked)
	if checked < crashes*5 {
		t.Errorf("only %d changes were answered before the crashes: the test tests little", checked)
	}
}

// person is one worker's session, as it was answered, and what is under way.
type person struct {
	mu      sync.Mutex
	subject string
	app     bool             // it signs in and goes on by an offline grant
	token   afterlogin.Token // of the session, or the refresh token
	id      afterlogin.SessionID
	state   []string // what a validation of token may say
	maybe   []string // and what else, if what is under way has happened
	acked   int
}

func (p *person) begin(maybe ...string) {
	p.mu.Lock()
	p.maybe = maybe
	p.mu.Unlock()
}

func (p *person) answered(tok afterlogin.Token, id afterlogin.SessionID, state ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !tok.IsZero() {
		p.token, p.id = tok, id
	}
	p.state, p.maybe = state, nil
	p.acked++
}

func crashOnce(t *testing.T, keys *keyring.Ring, seed uint64) (checked int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	fs := vfs.NewCrashableMem()
	c := newClock()
	policy := func(config *afterlogin.Config) {
		p := afterlogin.DefaultPolicies()[afterlogin.PolicyBrowser]
		p.Grace = 0
		config.Policies = map[string]afterlogin.Policy{afterlogin.PolicyBrowser: p}
	}
	s, err := pebblestore.Open("store", pebblestore.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	a := authority(t, s, keys, c, policy)
	people := make([]*person, 6)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	changes := make(chan struct{}, 1<<16)
	for i := range people {
		p := &person{subject: fmt.Sprint("subject-", seed, "-", i), app: i%2 == 1}
		people[i] = p
		personal := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := p.act(a, personal); err != nil {
					t.Errorf("before the crash: %v", err)
					return
				}
				select {
				case changes <- struct{}{}:
				default:
				}
			}
		})
	}
	for range 10 + rng.IntN(60) {
		<-changes
	}
	// No one is told of an answer while the power fails: what is answered by now was answered before.
	for _, p := range people {
		p.mu.Lock()
	}
	crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	type expectation struct {
		token   afterlogin.Token
		kind    afterlogin.Kind
		allowed []string
	}
	var expected []expectation
	for _, p := range people {
		if !p.token.IsZero() {
			expected = append(expected, expectation{p.token, p.kind(), slices.Concat(p.state, p.maybe)})
		}
		checked += p.acked
		p.mu.Unlock()
	}
	close(stop)
	wg.Wait()
	a.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s, err = pebblestore.Open("store", pebblestore.Options{FS: crashed})
	if err != nil {
		t.Fatalf("opening after the crash: %v", err)
	}
	defer s.Close()
	after := authority(t, s, keys, c, policy)
	defer after.Close()
	for _, e := range expected {
		if got := standing(after, e.token, e.kind); !slices.Contains(e.allowed, got) {
			t.Errorf("after the crash a %v is %s, want one of %v", e.kind, got, e.allowed)
		}
	}
	if _, err := after.Issue(ctx, afterlogin.IssueRequest{Subject: "next"}); err != nil {
		t.Errorf("signing in after the crash: %v", err)
	}
	return checked
}

func (p *person) kind() afterlogin.Kind {
	if p.app {
		return afterlogin.KindRefresh
	}
	return afterlogin.KindSession
}

// act does the next thing that the person does, and notes what was answered.
func (p *person) act(a *afterlogin.Authority, rng *rand.Rand) error {
	if p.token.IsZero() || !slices.Contains(p.state, "good") {
		in, err := a.Issue(ctx, afterlogin.IssueRequest{Subject: p.subject})
		if err == nil && p.app {
			var g afterlogin.Grant
			g, err = a.IssueGrant(ctx, in.Session, afterlogin.GrantRequest{Client: "app", Offline: true})
			in = g.Refresh
		}
		if err == nil {
			p.answered(in.Token, in.Session.ID, "good")
		}
		return err
	}
	switch n := rng.IntN(10); {
	case n < 6 && p.app:
		g, err := a.Refresh(ctx, p.token, afterlogin.RefreshRequest{Client: "app"})
		if err == nil {
			p.answered(g.Refresh.Token, g.Refresh.Session.ID, "good")
		}
		return err
	case n < 6:
		// If the answer is lost, the old token is good once more, as after any lost answer.
		next, err := a.Rotate(ctx, p.token, session())
		if err == nil {
			p.answered(next.Token, next.Session.ID, "good")
		}
		return err
	case n < 8:
		p.begin("revoked")
		err := a.Revoke(ctx, p.id, afterlogin.ReasonSignedOut)
		if err == nil {
			p.answered(afterlogin.Token{}, "", "revoked")
		}
		return err
	default:
		p.begin("signed_out_all")
		err := a.RevokeSubject(ctx, 0, p.subject, afterlogin.Sessions, afterlogin.ReasonAdministrator)
		if err == nil {
			p.answered(afterlogin.Token{}, "", "signed_out_all")
		}
		return err
	}
}
