package test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/pebblestore"
	"github.com/afterlogin/afterlogin/store/pgstore"
	"github.com/afterlogin/afterlogin/store/redisstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

func atMost(most int, at afterlogin.AtLimit) func(*afterlogin.Config) {
	return func(c *afterlogin.Config) {
		c.Limits = map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindSession: {Max: most, AtLimit: at}}
	}
}

// nodes opens the store of each of three nodes.
var nodes = map[string]func(t *testing.T) [3]store.Store{
	"memstore": func(t *testing.T) [3]store.Store {
		s := memstore.New()
		return [3]store.Store{s, s, s}
	},
	"pebblestore": func(t *testing.T) [3]store.Store {
		s, err := pebblestore.Open(t.TempDir(), pebblestore.Options{})
		return [3]store.Store{opened(t, s, err), s, s}
	},
	"redisstore": func(t *testing.T) (all [3]store.Store) {
		p := must[*servers.Process](t)(servers.StartRedis(t.TempDir()))
		t.Cleanup(func() { p.Kill() })
		for i := range all {
			s, err := redisstore.Open(ctx, "redis://"+p.Addr, redisstore.Options{})
			all[i] = opened(t, s, err)
		}
		return all
	},
	"pgstore": func(t *testing.T) (all [3]store.Store) {
		p := must[*servers.Postgres](t)(servers.StartPostgres(t.TempDir()))
		t.Cleanup(func() { p.Stop() })
		for i := range all {
			s, err := pgstore.Open(ctx, p.URL, pgstore.Options{})
			all[i] = opened(t, s, err)
		}
		return all
	},
}

func opened(t *testing.T, s store.Store, err error) store.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// good counts which of the tokens are good, by what the store says now.
func good(t *testing.T, a *afterlogin.Authority, all []afterlogin.Issued) (n int) {
	t.Helper()
	e := session()
	e.Fresh = true
	for _, i := range all {
		switch _, err := a.Validate(ctx, i.Token, e); {
		case err == nil:
			n++
		case !errors.Is(err, afterlogin.ErrInvalidToken):
			t.Error(err)
		}
	}
	return n
}

// Fifty devices of one person sign in at once, on three nodes, where five may be signed in. A checker counts all the
// while: what it looks at was handed out before it began, and what is over is never good again, so that no count is
// higher than the truth was at its beginning.
func TestFiftySignInsNeverExceedALimitOfFive(t *testing.T) {
	for name, open := range nodes {
		for _, at := range []afterlogin.AtLimit{afterlogin.DenyNew, afterlogin.EndOldest} {
			t.Run(name+"/"+at.String(), func(t *testing.T) {
				t.Parallel()
				keys := keyring.New()
				var as []*afterlogin.Authority
				for _, s := range open(t) {
					a := must[*afterlogin.Authority](t)(afterlogin.New(afterlogin.Config{
						Store: s, Keys: keys, Limits: map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindSession: {Max: 5, AtLimit: at}},
					}))
					t.Cleanup(func() { a.Close() })
					as = append(as, a)
				}
				began := time.Now()
				denied, counts, all := fifty(t, as, 5, at)
				if want := map[afterlogin.AtLimit]int{afterlogin.DenyNew: 45}[at]; denied != want {
					t.Errorf("%d denied, want %d", denied, want)
				}
				if n := good(t, as[0], all); n != 5 {
					t.Errorf("%d good at the end, want 5", n)
				}
				t.Logf("50 sign-ins in %v, %d denied, counted %d times", time.Since(began).Round(time.Millisecond), denied, counts)
			})
		}
	}
}

// fifty signs mia in fifty times at once.
func fifty(t *testing.T, as []*afterlogin.Authority, most int, at afterlogin.AtLimit) (denied, counts int, all []afterlogin.Issued) {
	var mu sync.Mutex
	stop := make(chan struct{})
	var signing, checking sync.WaitGroup
	for i, a := range as {
		checking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				known := all[:len(all):len(all)]
				counts++
				mu.Unlock()
				if n := good(t, a, known); n > most {
					t.Errorf("node %d: %d good at once, of %d handed out", i, n, len(known))
					return
				}
			}
		})
	}
	for i := range 50 {
		signing.Go(func() {
			got, err := as[i%len(as)].Issue(ctx, afterlogin.IssueRequest{Subject: "mia", Name: fmt.Sprint("device ", i)})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				all = append(all, got)
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
	return denied, counts, all
}

// listed counts mia's sessions that the store holds as good, whether anybody has their tokens or not.
func listed(t *testing.T, a *afterlogin.Authority) (n int) {
	t.Helper()
	for _, err := range a.Sessions(ctx, afterlogin.Query{Subject: "mia", Kind: afterlogin.KindSession}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// A sign-in at the limit is cut short at every call of the store, in every way; then the node is gone for good, or tries
// again. At no time is there one session more than may be, whether anybody holds its token or not, and the next sign-in
// finds its place.
func TestASignInAtTheLimitIsCutShort(t *testing.T) {
	for _, at := range []afterlogin.AtLimit{afterlogin.DenyNew, afterlogin.EndOldest} {
		for _, most := range []int{1, 3} {
			for _, again := range []bool{false, true} { // in the same browser
				for _, dies := range []bool{false, true} {
					for fault, f := range faults {
						for k := 1; cutShort(t, at, most, again, dies, fault, f, k); k++ {
							if t.Failed() {
								return
							}
						}
					}
				}
			}
		}
	}
}

// cutShort reports whether there was a k-th call to cut.
func cutShort(t *testing.T, at afterlogin.AtLimit, most int, again, dies bool, fault string, f storetest.Fault, k int) bool {
	c, base, keys := newClock(), memstore.New(), keyring.New()
	faulty := storetest.NewFaulty(base, nil)
	a := authority(t, faulty, keys, c, atMost(most, at))
	truth := authority(t, base, keys, c, atMost(most, at))
	r := afterlogin.IssueRequest{Subject: "mia"}
	for i := range most {
		in := must[afterlogin.Issued](t)(truth.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"}))
		if again && i == most-1 {
			r.From = in.Token
		}
		c.pass(time.Second)
	}
	c.pass(time.Minute) // the list has settled
	where := fmt.Sprintf("%v, at most %d, dies %v: call %d %s", at, most, dies, k, fault)
	calls := 0
	faulty.SetHook(func(call storetest.Call) storetest.Fault {
		if call.Method == "Notice" || call.Method == "Touch" {
			return storetest.Fault{}
		}
		calls++
		if dies && calls > k {
			return storetest.Fault{Before: storetest.ErrFault}
		}
		if calls == k {
			return f
		}
		return storetest.Fault{}
	})
	_, err := a.Issue(ctx, r)
	faulty.SetHook(nil)
	if n := listed(t, truth); n > most {
		t.Errorf("%s: %d sessions after %v", where, n, err)
	}
	if err != nil && !errors.Is(err, afterlogin.ErrUnavailable) && !errors.Is(err, afterlogin.ErrSessionLimit) {
		t.Errorf("%s: %v", where, err)
	}
	c.pass(31 * time.Second) // a place that was reserved and not used is free
	for range most + 1 {
		got, err := truth.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"})
		switch {
		case at == afterlogin.DenyNew && errors.Is(err, afterlogin.ErrSessionLimit):
		case err != nil:
			t.Errorf("%s: the next sign-in: %v", where, err)
		case answer(truth, got.Token) != "good":
			t.Errorf("%s: the next sign-in's session is %s", where, answer(truth, got.Token))
		}
		if n := listed(t, truth); n > most {
			t.Errorf("%s: %d sessions after the next sign-in", where, n)
		}
		c.pass(time.Second)
	}
	if n := listed(t, truth); n != most {
		t.Errorf("%s: %d sessions at the end, want %d: a place is lost", where, n, most)
	}
	return calls >= k
}

// A sign-in that stops between its reservation and the record, for longer than the reservation lasts, finds its place
// taken: it fails, however late its write arrives.
func TestASlowSignInLosesItsPlace(t *testing.T) {
	for _, at := range []afterlogin.AtLimit{afterlogin.DenyNew, afterlogin.EndOldest} {
		c, base, keys := newClock(), memstore.New(), keyring.New()
		stopped, goOn := make(chan struct{}), make(chan struct{})
		faulty := storetest.NewFaulty(base, func(call storetest.Call) storetest.Fault {
			if made(call) {
				close(stopped)
				<-goOn
			}
			return storetest.Fault{}
		})
		slow := authority(t, faulty, keys, c, atMost(1, at))
		quick := authority(t, base, keys, c, atMost(1, at))
		result := make(chan error)
		go func() {
			_, err := slow.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"})
			result <- err
		}()
		<-stopped
		c.pass(31 * time.Second)
		in := must[afterlogin.Issued](t)(quick.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"}))
		close(goOn)
		if err := <-result; !errors.Is(err, afterlogin.ErrUnavailable) {
			t.Errorf("%v: the slow sign-in: %v, want ErrUnavailable", at, err)
		}
		if n := listed(t, quick); n != 1 || answer(quick, in.Token) != "good" {
			t.Errorf("%v: %d sessions, the quick one is %s", at, n, answer(quick, in.Token))
		}
	}
}

// Three nodes on a store that fails now and then, and fifty sign-ins at once: there are never more than may be, and what
// fails is answered as not known.
func TestFiftySignInsOnAStoreThatFails(t *testing.T) {
	for seed := range uint64(10) {
		for _, at := range []afterlogin.AtLimit{afterlogin.DenyNew, afterlogin.EndOldest} {
			c, base, keys := newClock(), memstore.New(), keyring.New()
			truth := authority(t, base, keys, c, atMost(5, at))
			var signing, checking sync.WaitGroup
			stop := make(chan struct{})
			checking.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					var ids []afterlogin.SessionID // good ones, of any time since the loop began
					for s, err := range truth.Sessions(ctx, afterlogin.Query{Subject: "mia"}) {
						if err != nil {
							t.Error(err)
							return
						}
						ids = append(ids, s.ID)
					}
					n := 0
					for _, id := range ids { // those that are still good were good together
						if s, err := truth.Session(ctx, id); err == nil && s.Ended.IsZero() {
							n++
						}
					}
					if n > 5 {
						t.Errorf("seed %d, %v: %d sessions at once", seed, at, n)
						return
					}
				}
			})
			done := 0
			var mu sync.Mutex
			for i := range 3 {
				faulty := storetest.NewFaulty(base, storetest.Random(seed*3+uint64(i), 0.05, false))
				a := authority(t, faulty, keys, c, atMost(5, at))
				for range 17 {
					signing.Go(func() {
						_, err := a.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"})
						mu.Lock()
						defer mu.Unlock()
						switch {
						case err == nil:
							done++
						case !errors.Is(err, afterlogin.ErrUnavailable) && !errors.Is(err, afterlogin.ErrSessionLimit):
							t.Error(err)
						}
					})
				}
			}
			signing.Wait()
			close(stop)
			checking.Wait()
			if done == 0 {
				t.Errorf("seed %d, %v: nobody was signed in: the test tests little", seed, at)
			}
		}
	}
}

// made reports whether the call is about to make a root.
func made(call storetest.Call) bool {
	return call.Method == "Apply" && call.Root.IsRoot() && call.Ops[0].Kind == store.OpPut && call.Ops[0].Expect == 0 &&
		call.Ops[0].Record.Absolute-call.Ops[0].Record.Created > 1
}

// The place of a sign-in whose write failed is free at once, and a session that may have been made all the same is over:
// nobody has its token. So is a place of which the server does not know whether it has it.
func TestAFailedSignInGivesItsPlaceBack(t *testing.T) {
	reserved := func(call storetest.Call) bool {
		return call.Method == "Apply" && call.Root.IsSubject() && call.Ops[0].Expect > 0
	}
	for step, cut := range map[string]func(storetest.Call) bool{"the reservation": reserved, "the session": made} {
		for fault, f := range faults {
			c, base, keys := newClock(), memstore.New(), keyring.New()
			failed, looked := false, false
			faulty := storetest.NewFaulty(base, func(call storetest.Call) storetest.Fault {
				switch {
				case !failed && cut(call):
					failed = true
					return f
				case failed && !looked && f.After != nil && call.Method == "Get": // nor can it be seen whether it happened
					looked = true
					return storetest.Fault{Before: storetest.ErrFault}
				}
				return storetest.Fault{}
			})
			a := authority(t, faulty, keys, c, atMost(1, afterlogin.DenyNew))
			if _, err := a.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"}); !errors.Is(err, afterlogin.ErrUnavailable) {
				t.Fatalf("%s %s: %v, want ErrUnavailable", step, fault, err)
			}
			faulty.SetHook(nil)
			if n := listed(t, a); n != 0 {
				t.Errorf("%s %s: %d sessions that nobody has the token of", step, fault, n)
			}
			if _, err := a.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"}); err != nil {
				t.Errorf("%s %s: the next sign-in: %v", step, fault, err)
			}
		}
	}
}

// A node without a limit has let somebody in before there was a list, and writes the session when there is one: it counts.
func TestASignInFromBeforeTheListCounts(t *testing.T) {
	c, base, keys := newClock(), memstore.New(), keyring.New()
	stopped, goOn := make(chan struct{}), make(chan struct{})
	faulty := storetest.NewFaulty(base, func(call storetest.Call) storetest.Fault {
		if made(call) {
			close(stopped)
			<-goOn
		}
		return storetest.Fault{}
	})
	without, with := authority(t, faulty, keys, c), authority(t, base, keys, c, atMost(2, afterlogin.DenyNew))
	result := make(chan error)
	go func() {
		_, err := without.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"})
		result <- err
	}()
	<-stopped
	must[afterlogin.Issued](t)(with.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"}))
	close(goOn)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if _, err := with.Issue(ctx, afterlogin.IssueRequest{Subject: "mia"}); !errors.Is(err, afterlogin.ErrSessionLimit) {
		t.Errorf("a third session: %v, want ErrSessionLimit", err)
	}
}
