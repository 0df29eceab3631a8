// Package history has three nodes act on one store, for many clients at once, while servers are killed, hung, taken over
// and cut off, and checks every answer that was given.
//
// A history is what was asked and what was heard (operation), by one clock. Three checkers look at it: porcupine, against
// a sequential model of a subject with its sessions and grants, with the bound on how old a yes from memory may be built in;
// a direct checker of that bound; and a direct checker of refusals, since nobody may be signed out by a fault. TestSeeded
// shows that they find what they are meant to find.
package history

import (
	"context"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

var ctx = context.Background()

// long asks for the full amount: 300,000 operations for each store.
var long = os.Getenv("AFTERLOGIN_LONG") != ""

const fullAmount = 300_000

// grace is short, so that it runs out while a history is made.
const grace = 2 * time.Second

// newSeed returns a seed: the one in the environment variable AFTERLOGIN_SEED, or one of the time. It is printed with the
// figures. It decides what clients ask for, not when they get their turns.
func newSeed() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("AFTERLOGIN_SEED"), 10, 64); err == nil {
		return n
	}
	return uint64(time.Now().UnixNano() % 1_000_000)
}

// open returns an authority over the store that ends with the test, before what was opened before it.
func open(t testing.TB, s store.Store, keys *keyring.Ring, change ...func(*afterlogin.Config)) *afterlogin.Authority {
	t.Helper()
	a, err := afterlogin.New(configuration(s, keys, change...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func configuration(s store.Store, keys *keyring.Ring, change ...func(*afterlogin.Config)) afterlogin.Config {
	c := afterlogin.Config{Store: s, Keys: keys, Policies: afterlogin.DefaultPolicies()}
	for _, name := range []string{afterlogin.PolicyBrowser, afterlogin.PolicyRefreshConfidential} {
		p := c.Policies[name]
		p.Grace = grace
		c.Policies[name] = p
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

// Three authorities on one store in memory: what one revokes is over for all at once.
func TestMemory(t *testing.T) {
	s, keys := memstore.New(), keyring.New()
	w := newWorld(t, newSeed(), rules{grace: grace}, local{open(t, s, keys)}, local{open(t, s, keys)}, local{open(t, s, keys)})
	n := 30_000
	if long {
		n = fullAmount
	}
	w.hot = 64
	w.run(32, n)
	w.wait()
	w.sweep(w.everybody(), 2000)
	w.enough(t, n, 1)
	w.pass(t)
}
