package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// crashes is how often the server is killed. AFTERLOGIN_LONG=1 asks for ten times as many.
func crashes() int {
	if os.Getenv("AFTERLOGIN_LONG") != "" {
		return 1000
	}
	if testing.Short() {
		return 10
	}
	return 100
}

// held is what a client knows for certain of a session, since the server has answered it.
type held struct {
	id, token, subject string
	ended              bool
	alone              bool // by a call about it alone
}

// shopper signs in, renews, signs out and signs out everywhere, one after the other, and remembers what was answered.
// What it asked for and got no answer to may or may not have happened; it forgets those sessions.
type shopper struct {
	name     string
	rng      *rand.Rand
	sessions []*held
	fresh    []*held        // changed since the last check
	counts   map[string]int // of acknowledged changes
}

func newShopper(i int) *shopper {
	return &shopper{name: "c" + strconv.Itoa(i), rng: rand.New(rand.NewPCG(7, uint64(i))), counts: make(map[string]int)}
}

var errNoAnswer = errors.New("no answer")

// ask calls the API. The error is errNoAnswer if none came.
func ask(c *remoteCaller, method, path string, body, out any, want int) error {
	var b []byte
	if body != nil {
		b, _ = json.Marshal(body)
	}
	status, err := c.call(method, path, b, out)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	if status != want {
		return fmt.Errorf("%s %s: %d, want %d", method, path, status, want)
	}
	return nil
}

// shop goes on until the server does not answer any more.
func (c *shopper) shop(s *serving) error {
	client := &remoteCaller{base: s.base, key: s.key}
	defer client.client.CloseIdleConnections()
	for {
		if err := c.step(client); errors.Is(err, errNoAnswer) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// step makes one change.
func (c *shopper) step(client *remoteCaller) error {
	var live []*held
	for _, h := range c.sessions {
		if !h.ended {
			live = append(live, h)
		}
	}
	subject := c.name + "-" + strconv.Itoa(c.rng.IntN(3)) // a few, so that signing out everywhere leaves others
	switch n := c.rng.IntN(20); {
	case n < 8 || len(live) == 0:
		var got api.Created
		if err := ask(client, "POST", "/v1/sessions", api.CreateRequest{Subject: subject}, &got, 201); err != nil {
			return err
		}
		h := &held{id: got.Session.ID, token: got.Token, subject: subject}
		c.sessions = append(c.sessions, h)
		c.changed("sign-in", h)
	case n < 15:
		h := live[c.rng.IntN(len(live))]
		var got api.Renewed
		if err := ask(client, "POST", "/v1/renew", api.RenewRequest{Token: h.token}, &got, 200); err != nil {
			c.forget(h)
			return err
		}
		if !got.Active {
			return fmt.Errorf("renewing %s: %s %s", h.id, got.Reason, got.Cause)
		}
		if got.Token == "" { // the record remembers four rotations, and all are in their grace: the token stays
			return nil
		}
		h.token = got.Token
		c.changed("renewal", h)
	case n < 19:
		h := live[c.rng.IntN(len(live))]
		if err := ask(client, "DELETE", "/v1/sessions/"+h.id, nil, nil, 204); err != nil {
			c.forget(h)
			return err
		}
		h.ended, h.alone = true, true
		c.changed("sign-out", h)
	default:
		var all []*held
		for _, h := range live {
			if h.subject == subject {
				all = append(all, h)
			}
		}
		if err := ask(client, "DELETE", "/v1/subjects/"+subject+"/sessions", nil, nil, 204); err != nil {
			c.forget(all...)
			return err
		}
		for _, h := range all {
			h.ended = true
		}
		c.changed("sign-out everywhere", all...)
	}
	return nil
}

func (c *shopper) changed(what string, hs ...*held) {
	c.counts[what]++
	c.fresh = append(c.fresh, hs...)
}

func (c *shopper) forget(hs ...*held) {
	gone := func(h *held) bool { return slices.Contains(hs, h) }
	c.sessions = slices.DeleteFunc(c.sessions, gone)
	c.fresh = slices.DeleteFunc(c.fresh, gone)
}

// check asks the server about the sessions and compares.
func check(s *serving, hs []*held) error {
	for part := range slices.Chunk(hs, api.MaxBatch) {
		r := api.ValidateRequest{}
		for _, h := range part {
			r.Tokens = append(r.Tokens, h.token)
		}
		var got api.Verdicts
		if err := ask(&s.remoteCaller, "POST", "/v1/validate", r, &got, 200); err != nil {
			return err
		}
		for i, v := range got.Results {
			if h := part[i]; v.Active == h.ended || v.Active && v.Session.ID != h.id {
				return fmt.Errorf("session %s of %s: ended %v was answered, and now it is active %v, %s %s", h.id, h.subject, h.ended, v.Active, v.Reason, v.Cause)
			}
		}
	}
	return nil
}

// TestKill kills the server under load, over and over. Whatever it has answered holds when it is started again: sign-ins,
// renewals, sign-outs, sign-outs everywhere.
func TestKill(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	rng := rand.New(rand.NewPCG(7, 7))
	var shoppers []*shopper
	for i := range 4 {
		shoppers = append(shoppers, newShopper(i))
	}
	began := time.Now()
	for n := range crashes() {
		s, err := startServer(t, data)
		if err != nil {
			t.Fatalf("start %d: %v", n, err)
		}
		for _, c := range shoppers {
			few := c.fresh
			for range min(20, len(c.sessions)) { // and some that have been through more than one crash
				few = append(few, c.sessions[rng.IntN(len(c.sessions))])
			}
			if err := check(s, few); err != nil {
				t.Fatalf("after crash %d: %v", n, err)
			}
			c.fresh = nil
		}
		var wg sync.WaitGroup
		errs := make(chan error, len(shoppers))
		for _, c := range shoppers {
			wg.Go(func() {
				if err := c.shop(s); err != nil {
					errs <- err
				}
			})
		}
		time.Sleep(time.Duration(20+rng.IntN(80)) * time.Millisecond)
		s.kill()
		wg.Wait()
		close(errs)
		for err := range errs {
			t.Fatalf("before crash %d: %v", n+1, err)
		}
	}
	s, err := startServer(t, data)
	if err != nil {
		t.Fatal(err)
	}
	total := make(map[string]int)
	for _, c := range shoppers {
		if err := check(s, c.sessions); err != nil {
			t.Errorf("at the end: %v", err)
		}
		for what, n := range c.counts {
			total[what] += n
		}
	}
	for _, what := range []string{"sign-in", "renewal", "sign-out", "sign-out everywhere"} {
		if total[what] < crashes()/10 {
			t.Errorf("only %d of %s: the load was none", total[what], what)
		}
	}
	checkAudit(t, s, shoppers)
	t.Logf("%d crashes in %v: %v acknowledged changes, none lost", crashes(), time.Since(began).Round(time.Second), total)
}

// TestKillFirstStart kills the first start of a server at any moment. The next start completes it: there is an admin
// key in the file, and it works.
func TestKillFirstStart(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	for n := range max(10, crashes()/5) {
		data := filepath.Join(t.TempDir(), "data")
		s, listening, err := launch(t, data)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-listening:
		case <-time.After(time.Duration(rng.IntN(120)) * time.Millisecond):
		}
		s.kill()
		if s, err = startServer(t, data); err != nil {
			t.Fatalf("start %d: %v", n, err)
		}
		var l api.List
		if err := ask(&s.remoteCaller, "GET", "/v1/sessions?kind=api_key", nil, &l, 200); err != nil {
			t.Errorf("start %d: the admin key does not work: %v\n%s", n, err, s.log)
		}
		if len(l.Data) != 1 {
			t.Errorf("start %d: %d admin keys", n, len(l.Data))
		}
		s.kill()
	}
}
