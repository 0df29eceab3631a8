package afterlogin_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func limited(kind afterlogin.Kind, most int, at afterlogin.AtLimit) func(*afterlogin.Config) {
	return func(c *afterlogin.Config) {
		if c.Limits == nil {
			c.Limits = make(map[afterlogin.Kind]afterlogin.SessionLimit)
		}
		c.Limits[kind] = afterlogin.SessionLimit{Max: most, AtLimit: at}
	}
}

// neighbour is another authority on the house's store, with its clock.
func (h *house) neighbour(change ...func(*afterlogin.Config)) *house {
	return newHouse(h.t, append([]func(*afterlogin.Config){func(c *afterlogin.Config) {
		c.Store, c.Keys, c.Now = h.store, h.keys, h.clock.now
	}}, change...)...)
}

// standing is what the house says of a token, in one word.
func (h *house) standing(t afterlogin.Token, kind afterlogin.Kind) string {
	h.t.Helper()
	_, err := h.Validate(context.Background(), t, afterlogin.Expect{Kinds: []afterlogin.Kind{kind}, Fresh: true})
	var r *afterlogin.Refusal
	switch {
	case err == nil:
		return "good"
	case errors.As(err, &r) && r.Cause != "":
		return string(r.Cause)
	case errors.As(err, &r):
		return string(r.Reason)
	}
	return err.Error()
}

func (h *house) good(kind afterlogin.Kind, all ...afterlogin.Issued) (n int) {
	h.t.Helper()
	for _, i := range all {
		if h.standing(i.Token, kind) == "good" {
			n++
		}
	}
	return n
}

func (h *house) denied(r afterlogin.IssueRequest) {
	h.t.Helper()
	if got, err := h.Issue(h.t.Context(), r); !errors.Is(err, afterlogin.ErrSessionLimit) || !got.Token.IsZero() {
		h.t.Fatalf("Issue = %v, want ErrSessionLimit", err)
	}
}

func TestLimitEndsTheOldest(t *testing.T) {
	h := newHouse(t, limited(afterlogin.KindSession, 2, afterlogin.EndOldest))
	var all []afterlogin.Issued
	for i := range 5 {
		all = append(all, h.signIn("mia"))
		h.clock.pass(time.Second)
		if got := h.good(afterlogin.KindSession, all...); got != min(i+1, 2) {
			t.Fatalf("after sign-in %d there are %d", i+1, got)
		}
	}
	if got := h.standing(all[0].Token, afterlogin.KindSession); got != "session_limit" {
		t.Errorf("the first is over by %q, want session_limit", got)
	}
	if got := h.good(afterlogin.KindSession, all[3], all[4]); got != 2 {
		t.Error("the two newest are not the ones that stayed")
	}
	// Others do not count: of another subject, another tenant, another kind, and nobody's.
	h.signIn("tom")
	for _, r := range []afterlogin.IssueRequest{
		{Subject: "mia", Tenant: 7}, {Subject: "mia", Kind: afterlogin.KindAPIKey}, {Data: jsonData(`[]`)}, {Data: jsonData(`[]`)}, {Data: jsonData(`[]`)},
	} {
		if _, err := h.Issue(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.good(afterlogin.KindSession, all...); got != 2 {
		t.Errorf("%d of mia's after what does not count, want 2", got)
	}
}

// No limit counts for the subjects of some tenants, whatever happens at it, and whatever was counted before.
func TestUnlimitedTenants(t *testing.T) {
	for _, at := range []afterlogin.AtLimit{afterlogin.DenyNew, afterlogin.EndOldest} {
		var told []afterlogin.Rehearsed
		h := newHouse(t, limited(afterlogin.KindSession, 1, at), func(c *afterlogin.Config) {
			c.Unlimited = []uint32{7}
			c.Rehearsal = afterlogin.Rehearsal{Limits: c.Limits, Report: func(r afterlogin.Rehearsed) { told = append(told, r) }}
		})
		before := h.neighbour(limited(afterlogin.KindSession, 1, afterlogin.DenyNew))
		var all []afterlogin.Issued
		for _, where := range []*house{before, h, h, h} {
			got, err := where.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Tenant: 7})
			if err != nil {
				t.Fatalf("%v: sign-in %d: %v", at, len(all)+1, err)
			}
			all = append(all, got)
		}
		good := 0
		for _, i := range all {
			if _, err := h.Validate(t.Context(), i.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, Tenant: 7}); err == nil {
				good++
			}
		}
		if good != 4 {
			t.Errorf("%v: of 4 sessions of a tenant without limits %d are good", at, good)
		}
		if len(told) > 0 {
			t.Errorf("%v: rehearsed, too: %+v", at, told)
		}
		// The list was given up, so that who counts again does not go by an old one.
		if _, err := before.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Tenant: 7}); !errors.Is(err, afterlogin.ErrSessionLimit) {
			t.Errorf("%v: where they count: %v", at, err)
		}
	}
}

func TestLimitDeniesTheNewest(t *testing.T) {
	for name, free := range map[string]func(h *house, a, b afterlogin.Issued){
		"signed out": func(h *house, a, b afterlogin.Issued) {
			must(t, h.Revoke(t.Context(), a.Session.ID, afterlogin.ReasonSignedOut))
		},
		"everywhere else": func(h *house, a, b afterlogin.Issued) {
			must(t, h.RevokeOthers(t.Context(), b.Session.ID, afterlogin.ReasonSignedOutAll))
		},
		"idle": func(h *house, a, b afterlogin.Issued) {
			h.clock.pass(50 * time.Minute)
			h.use(b.Token, home, "")
			h.clock.pass(20 * time.Minute)
		},
		"expired": func(h *house, a, b afterlogin.Issued) {
			for range 12 * 4 { // the second one was made half a day after the first
				h.clock.pass(15 * time.Minute)
				a.Token, b.Token = h.orRenewed(a.Token), h.orRenewed(b.Token)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, limited(afterlogin.KindSession, 2, afterlogin.DenyNew))
			a, again := h.signIn("mia"), afterlogin.Token{}
			again = a.Token
			for range 12*4 + 1 {
				h.clock.pass(15 * time.Minute)
				again = h.orRenewed(again)
			}
			a.Token = again
			b := h.signIn("mia")
			h.denied(afterlogin.IssueRequest{Subject: "mia"})
			if h.good(afterlogin.KindSession, a, b) != 2 {
				t.Fatal("a denied sign-in has ended something")
			}
			free(h, a, b)
			c := h.signIn("mia")
			if h.standing(c.Token, afterlogin.KindSession) != "good" {
				t.Fatal("the new one is not good")
			}
			h.denied(afterlogin.IssueRequest{Subject: "mia"})
		})
	}
}

// orRenewed uses a token if it is still good, and returns it or its successor.
func (h *house) orRenewed(t afterlogin.Token) afterlogin.Token {
	if h.standing(t, afterlogin.KindSession) != "good" {
		return t
	}
	if n := h.renew(t, home); !n.IsZero() {
		h.use(n, home, "")
		return n
	}
	return t
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// One that a person left long ago is over; a use of it that another node writes late must not bring it back beside a full
// list.
func TestALateUseRevivesNothing(t *testing.T) {
	h := newHouse(t, limited(afterlogin.KindSession, 1, afterlogin.DenyNew))
	old := h.signIn("mia")
	h.clock.pass(61 * time.Minute)
	h.signIn("mia")
	h.clock.pass(-10 * time.Minute) // the other node's clock: there the old one is not idle
	if got := h.standing(old.Token, afterlogin.KindSession); got != "idle" {
		t.Errorf("the old session is %s, want ended as idle", got)
	}
}

func TestSignInAgainInTheSameBrowser(t *testing.T) {
	for _, at := range []afterlogin.AtLimit{afterlogin.DenyNew, afterlogin.EndOldest} {
		h := newHouse(t, limited(afterlogin.KindSession, 2, at))
		other, old := h.signIn("mia"), afterlogin.Issued{}
		old, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Data: jsonData(`["mug"]`)})
		must(t, err)
		again, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: old.Token})
		must(t, err)
		if got := h.standing(old.Token, afterlogin.KindSession); got != "superseded" {
			t.Errorf("%v: the session that was signed in again is %s", at, got)
		}
		if h.good(afterlogin.KindSession, other, again) != 2 {
			t.Errorf("%v: signing in again has ended another device", at)
		}
		if got := h.cart(again.Session); got != `["mug"]` {
			t.Errorf("%v: the cart is %s", at, got)
		}
		// The answer was lost: once more with the same old token. The cart is still there.
		must(t, h.Revoke(t.Context(), again.Session.ID, afterlogin.ReasonSignedOut))
		again, err = h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: old.Token})
		must(t, err)
		if got := h.cart(again.Session); got != `["mug"]` {
			t.Errorf("%v: the cart of the second try is %s", at, got)
		}
		// Somebody else in mia's browser takes no place of hers, and mia's session there is over.
		tom, err := h.Issue(t.Context(), afterlogin.IssueRequest{Subject: "tom", From: other.Token})
		must(t, err)
		if h.good(afterlogin.KindSession, tom, again, other) != 2 {
			t.Errorf("%v: after tom's sign-in in mia's browser", at)
		}
	}
}

func TestADeniedSignInLeavesTheCart(t *testing.T) {
	h := newHouse(t, limited(afterlogin.KindSession, 1, afterlogin.DenyNew))
	h.signIn("mia")
	anon, err := h.Issue(t.Context(), afterlogin.IssueRequest{Data: jsonData(`["mug"]`)})
	must(t, err)
	h.denied(afterlogin.IssueRequest{Subject: "mia", From: anon.Token})
	s := h.use(anon.Token, home, "")
	must(t, h.UpdateData(t.Context(), s, func(d *afterlogin.Data) error { return d.Set("cart", []string{"mug", "pen"}) }))
}

// A limit that is switched on counts what was there before, and one that is lowered ends what is too much.
func TestALimitThatComesLate(t *testing.T) {
	open := newHouse(t)
	var all []afterlogin.Issued
	for range 9 {
		all = append(all, open.signIn("mia"))
		open.clock.pass(time.Second)
	}
	deny := open.neighbour(limited(afterlogin.KindSession, 3, afterlogin.DenyNew))
	deny.denied(afterlogin.IssueRequest{Subject: "mia"})
	if n := open.good(afterlogin.KindSession, all...); n != 9 {
		t.Fatalf("%d left: a denied sign-in has ended something", n)
	}
	end := open.neighbour(limited(afterlogin.KindSession, 3, afterlogin.EndOldest))
	all = append(all, end.signIn("mia"))
	if n := open.good(afterlogin.KindSession, all...); n != 3 || open.good(afterlogin.KindSession, all[7:]...) != 3 {
		t.Fatalf("%d left, or not the newest ones", n)
	}
	lower := open.neighbour(limited(afterlogin.KindSession, 1, afterlogin.EndOldest))
	all = append(all, lower.signIn("mia"))
	if n := open.good(afterlogin.KindSession, all...); n != 1 {
		t.Fatalf("%d left after the limit was lowered to 1", n)
	}
	lower.clock.pass(-time.Hour) // whatever the clock says: the one that signed in again replaces its own
	again, err := end.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", From: all[len(all)-1].Token})
	must(t, err)
	if open.good(afterlogin.KindSession, append(all, again)...) != 1 {
		t.Error("signing in again did not replace")
	}
}

// Nodes with and without a limit on one store: what a node without one has let in counts where there is one, at once and
// after the list has settled.
func TestANodeWithoutTheLimit(t *testing.T) {
	for _, settled := range []time.Duration{0, 10 * time.Minute} {
		with := newHouse(t, limited(afterlogin.KindSession, 3, afterlogin.EndOldest))
		without := with.neighbour()
		var all []afterlogin.Issued
		for range 4 {
			for range 2 {
				all = append(all, without.signIn("mia"))
				with.clock.pass(time.Second)
			}
			all = append(all, with.signIn("mia"))
			if n := with.good(afterlogin.KindSession, all...); n != 3 {
				t.Fatalf("%d good after a sign-in at the node with the limit, want 3", n)
			}
			with.clock.pass(settled)
		}
	}
}

func TestLimitOfAPIKeys(t *testing.T) {
	h := newHouse(t, limited(afterlogin.KindAPIKey, 2, afterlogin.DenyNew), func(c *afterlogin.Config) { c.ImportedKeys = true })
	r := afterlogin.IssueRequest{Subject: "ci", Kind: afterlogin.KindAPIKey}
	key, err := h.Issue(t.Context(), r)
	must(t, err)
	next, err := h.RotateKey(t.Context(), key.Session.ID, time.Hour)
	must(t, err)
	h.denied(r)
	if _, err := h.RotateKey(t.Context(), next.Session.ID, time.Hour); !errors.Is(err, afterlogin.ErrSessionLimit) {
		t.Fatalf("RotateKey = %v, want ErrSessionLimit", err)
	}
	sum := sha256.Sum256([]byte("an old key of another make"))
	if _, err := h.ImportKey(t.Context(), r, sum); !errors.Is(err, afterlogin.ErrSessionLimit) {
		t.Fatalf("ImportKey = %v, want ErrSessionLimit", err)
	}
	h.clock.pass(2 * time.Hour) // the overlap is over
	s, err := h.ImportKey(t.Context(), r, sum)
	must(t, err)
	if _, err := h.ImportKey(t.Context(), r, sum); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Fatalf("a second import: %v", err)
	}
	h.denied(r)
	must(t, h.Revoke(t.Context(), s.ID, afterlogin.ReasonAdministrator))
	_, err = h.Issue(t.Context(), r)
	must(t, err)
	h.denied(r)
}

// A rotation and an import that fails end no key, even where the oldest goes for a new one.
func TestNoKeyIsEndedForNothing(t *testing.T) {
	h := newHouse(t, limited(afterlogin.KindAPIKey, 2, afterlogin.EndOldest), func(c *afterlogin.Config) { c.ImportedKeys = true })
	r := afterlogin.IssueRequest{Subject: "ci", Kind: afterlogin.KindAPIKey}
	sum := sha256.Sum256([]byte("an old key of another make"))
	other := r
	other.Subject = "deploy"
	_, err := h.ImportKey(t.Context(), other, sum)
	must(t, err)
	a, err := h.Issue(t.Context(), r)
	must(t, err)
	b, err := h.Issue(t.Context(), r)
	must(t, err)
	if _, err := h.ImportKey(t.Context(), r, sum); !errors.Is(err, afterlogin.ErrBadRequest) {
		t.Fatalf("an import of somebody else's key: %v", err)
	}
	if _, err := h.RotateKey(t.Context(), b.Session.ID, time.Hour); !errors.Is(err, afterlogin.ErrSessionLimit) {
		t.Fatalf("RotateKey = %v", err)
	}
	if h.good(afterlogin.KindAPIKey, a, b) != 2 {
		t.Error("a key was ended")
	}
	c, err := h.Issue(t.Context(), r)
	must(t, err)
	if h.standing(a.Token, afterlogin.KindAPIKey) != "session_limit" || h.good(afterlogin.KindAPIKey, b, c) != 2 {
		t.Error("a new key did not end the oldest")
	}
}

func TestLimitOfGrants(t *testing.T) {
	for _, at := range []afterlogin.AtLimit{afterlogin.DenyNew, afterlogin.EndOldest} {
		h := newHouse(t, limited(afterlogin.KindRefresh, 2, at))
		in := h.signIn("mia")
		r := afterlogin.GrantRequest{Client: "app", Offline: true}
		var all []afterlogin.Issued
		for range 2 {
			g, err := h.IssueGrant(t.Context(), in.Session, r)
			must(t, err)
			all = append(all, g.Refresh)
			h.clock.pass(time.Second)
		}
		code, err := h.IssueCode(t.Context(), in.Session, afterlogin.CodeRequest{Client: "app"})
		must(t, err)
		g, err := h.Redeem(t.Context(), code.Token, func(*afterlogin.Code) (afterlogin.GrantRequest, error) { return r, nil })
		switch at {
		case afterlogin.DenyNew:
			if !errors.Is(err, afterlogin.ErrSessionLimit) {
				t.Fatalf("Redeem = %v, want ErrSessionLimit", err)
			}
			if _, err := h.IssueGrant(t.Context(), in.Session, r); !errors.Is(err, afterlogin.ErrSessionLimit) {
				t.Fatalf("IssueGrant = %v, want ErrSessionLimit", err)
			}
			if h.good(afterlogin.KindRefresh, all...) != 2 {
				t.Error("a grant was ended")
			}
		case afterlogin.EndOldest:
			must(t, err)
			if h.standing(all[0].Token, afterlogin.KindRefresh) != "session_limit" || h.good(afterlogin.KindRefresh, all[1], g.Refresh) != 2 {
				t.Error("the oldest grant did not go")
			}
		}
		r.Offline = false // what lives under the session is not counted
		for range 4 {
			_, err := h.IssueGrant(t.Context(), in.Session, r)
			must(t, err)
		}
	}
}

func TestLimitsAreChecked(t *testing.T) {
	for name, l := range map[string]map[afterlogin.Kind]afterlogin.SessionLimit{
		"none":    {afterlogin.KindSession: {}},
		"too big": {afterlogin.KindSession: {Max: 101}},
		"codes":   {afterlogin.KindCode: {Max: 5}},
		"what":    {afterlogin.KindSession: {Max: 5, AtLimit: 9}},
	} {
		if _, err := afterlogin.New(afterlogin.Config{Store: memstore.New(), Limits: l}); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("%s: New = %v, want ErrBadRequest", name, err)
		}
	}
}

// A session that is on hold has its place: it may be let go again.
func TestAFrozenSessionCounts(t *testing.T) {
	h := newHouse(t, limited(afterlogin.KindSession, 1, afterlogin.DenyNew))
	in := h.signIn("mia")
	must(t, h.Freeze(t.Context(), in.Session.ID, afterlogin.ReasonAdministrator))
	h.denied(afterlogin.IssueRequest{Subject: "mia"})
	must(t, h.Thaw(t.Context(), in.Session.ID, ""))
	if h.good(afterlogin.KindSession, in) != 1 {
		t.Error("it is not good again")
	}
}

// Fifty people's devices at once, over three authorities, at the limit: a checker counts all the while.
func TestFiftySignInsAtOnce(t *testing.T) {
	for _, at := range []afterlogin.AtLimit{afterlogin.DenyNew, afterlogin.EndOldest} {
		t.Run(at.String(), func(t *testing.T) {
			keys, shop := keyring.New(), memstore.New()
			var nodes []*house
			for range 3 {
				nodes = append(nodes, newHouse(t, limited(afterlogin.KindSession, 5, at), func(c *afterlogin.Config) {
					c.Store, c.Keys = shop, keys
				}))
			}
			var mu sync.Mutex
			var handedOut []afterlogin.Issued
			denied := 0
			stop := make(chan struct{})
			var signing, checking sync.WaitGroup
			for i, h := range nodes {
				checking.Go(func() {
					for done := false; !done; {
						select {
						case <-stop:
							done = true
						default:
						}
						mu.Lock()
						all := handedOut[:len(handedOut):len(handedOut)]
						mu.Unlock()
						// Each was handed out before the first is looked at, and none is ever good again.
						if n := h.good(afterlogin.KindSession, all...); n > 5 || done && n != 5 {
							t.Errorf("node %d: %d good at once of %d handed out", i, n, len(all))
							return
						}
					}
				})
			}
			for i := range 50 {
				signing.Go(func() {
					got, err := nodes[i%3].Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia", Name: fmt.Sprint(i)})
					mu.Lock()
					defer mu.Unlock()
					switch {
					case err == nil:
						handedOut = append(handedOut, got)
					case errors.Is(err, afterlogin.ErrSessionLimit) && at == afterlogin.DenyNew:
						denied++
					default:
						t.Error(err)
					}
				})
			}
			signing.Wait()
			close(stop)
			checking.Wait()
			if want := map[afterlogin.AtLimit]int{afterlogin.DenyNew: 45}[at]; denied != want {
				t.Errorf("%d denied, want %d", denied, want)
			}
		})
	}
}
