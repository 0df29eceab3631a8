package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// hot is how many sessions the in-process comparisons go round: more than fit into the processor's caches.
const hot = 20_000

func validateComparisons() []comparison {
	return []comparison{
		{
			name: "validate/hit", target: 0.5,
			what: "validate in process, session cached, against one MAC, one hash and one map look-up of the same sizes",
			set:  setValidate,
		},
		{
			name: "validate/hit-allocations", target: 2, most: true, unit: "allocs",
			what: "allocations of one validation of a cached session",
			set:  setAllocations,
		},
		{
			name: "validate/forged", target: 500, most: true, unit: "ns",
			what: "a token with a wrong MAC is refused, without a call of the store",
			set:  setForged,
		},
	}
}

var session = afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}

// signedIn returns an authority over the store with n sessions, all cached, and their tokens.
func signedIn(s store.Store, n int) (*afterlogin.Authority, []string, error) {
	a, err := afterlogin.New(afterlogin.Config{Store: s, CacheSize: 2 * n})
	if err != nil {
		return nil, nil, err
	}
	tokens := make([]string, n)
	for i := range tokens {
		got, err := a.Issue(context.Background(), afterlogin.IssueRequest{Subject: fmt.Sprint("subject-", i)})
		if err != nil {
			return nil, nil, err
		}
		tokens[i] = got.Token.Reveal()
	}
	for _, t := range tokens {
		if _, err := a.Validate(context.Background(), afterlogin.TokenFrom(t), session); err != nil {
			return nil, nil, err
		}
	}
	return a, tokens, nil
}

func setValidate() (ours, reference func() (float64, error), done func(), err error) {
	a, tokens, err := signedIn(memstore.New(), hot)
	if err != nil {
		return nil, nil, nil, err
	}
	ours = func() (float64, error) {
		return rate(300*time.Millisecond, func(i int) error {
			_, err := a.Validate(context.Background(), afterlogin.TokenFrom(tokens[i%hot]), session)
			return err
		})
	}
	f := newFloor(tokens)
	reference = func() (float64, error) { return rate(300*time.Millisecond, f.check) }
	return ours, reference, func() { a.Close() }, nil
}

// rate calls f over and over for about d, and returns the calls per second.
func rate(d time.Duration, f func(i int) error) (float64, error) {
	start, n := time.Now(), 0
	for time.Since(start) < d {
		for range 256 {
			if err := f(n); err != nil {
				return 0, err
			}
			n++
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// floor is the least that a checked token can cost: an HMAC-SHA-256 over as many bytes as ours covers, a SHA-256 over as
// many as the verifier's, and a look-up in a map of as many 28-byte keys, behind a read lock, with a comparison. It does
// not even decode the token's text.
type floor struct {
	pool sync.Pool
	mu   sync.RWMutex
	keys [][28]byte
	m    map[[28]byte]*[32]byte
	text []string
}

func newFloor(tokens []string) *floor {
	var key [32]byte
	rand.Read(key[:])
	f := &floor{m: make(map[[28]byte]*[32]byte), text: tokens}
	f.pool.New = func() any { return hmac.New(sha256.New, key[:]) }
	for range tokens {
		var k [28]byte
		rand.Read(k[:])
		f.keys = append(f.keys, k)
		f.m[k] = new([32]byte)
	}
	return f
}

func (f *floor) check(i int) error {
	i %= len(f.keys)
	var buf [32]byte
	h := f.pool.Get().(hash.Hash)
	h.Reset()
	var msg [88]byte
	copy(msg[:], f.text[i])
	h.Write(msg[:])
	mac := h.Sum(buf[:0])
	f.pool.Put(h)
	sum := sha256.Sum256(msg[:67])
	f.mu.RLock()
	v := f.m[f.keys[i]]
	f.mu.RUnlock()
	if v == nil || subtle.ConstantTimeCompare(v[:], sum[:]) == 1 || subtle.ConstantTimeCompare(mac[:16], sum[:16]) == 1 {
		return errors.New("the floor found what it cannot find")
	}
	return nil
}

func setAllocations() (ours, reference func() (float64, error), done func(), err error) {
	a, tokens, err := signedIn(memstore.New(), hot)
	if err != nil {
		return nil, nil, nil, err
	}
	time.Sleep(time.Second) // the last uses that signing in left behind are being written, and that allocates
	i := 0
	ours = func() (float64, error) {
		var err error
		n := testing.AllocsPerRun(2000, func() {
			if _, e := a.Validate(context.Background(), afterlogin.TokenFrom(tokens[i%hot]), session); e != nil {
				err = e
			}
			i++
		})
		return n, err
	}
	return ours, nil, func() { a.Close() }, nil
}

// counted is a store that counts what it is asked.
type counted struct {
	store.Store
	calls atomic.Int64
}

func (c *counted) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	c.calls.Add(1)
	return c.Store.Get(ctx, ids...)
}

func (c *counted) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	c.calls.Add(1)
	return c.Store.Apply(ctx, root, ops...)
}

func setForged() (ours, reference func() (float64, error), done func(), err error) {
	c := &counted{Store: memstore.New()}
	a, tokens, err := signedIn(c, 1000)
	if err != nil {
		return nil, nil, nil, err
	}
	for i, t := range tokens { // another last digit: the MAC is wrong, the form is right
		last := byte('A')
		if t[len(t)-1] == last {
			last = 'Q'
		}
		tokens[i] = t[:len(t)-1] + string(last)
	}
	ours = func() (float64, error) {
		before := c.calls.Load()
		perSecond, err := rate(300*time.Millisecond, func(i int) error {
			if _, err := a.Validate(context.Background(), afterlogin.TokenFrom(tokens[i%1000]), session); afterlogin.ReasonOf(err) != afterlogin.ReasonForged {
				return fmt.Errorf("a forged token: %w", err)
			}
			return nil
		})
		if n := c.calls.Load() - before; err == nil && n != 0 {
			err = fmt.Errorf("the store was called %d times", n)
		}
		return 1e9 / perSecond, err
	}
	return ours, nil, func() { a.Close() }, nil
}
