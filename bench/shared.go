package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/pebblestore"
	"github.com/afterlogin/afterlogin/store/pgstore"
	"github.com/afterlogin/afterlogin/store/redisstore"
)

// sharedComparisons measure the stores that several nodes share, on servers of their own on this machine.
func sharedComparisons() []comparison {
	var all []comparison
	for _, b := range []*backend{{name: "redis", start: startRedis}, {name: "postgres", start: startPostgres}} {
		all = append(all,
			comparison{
				name: "shared/" + b.name + "-hit", target: 0.77,
				what: "a cached validation on " + b.name + ", against one on the embedded store: at most 1.3 times its time",
				set:  b.setHit,
			},
			comparison{
				name: "shared/" + b.name + "-miss", target: 1, most: true, unit: "reads",
				what: "reads of the store for a validation that is not cached: one, for the record, its root and its subject",
				set:  b.setMiss,
			},
			comparison{
				name: "shared/" + b.name + "-lag", target: 50, most: true, unit: "ms",
				what: "p99 of the time from the answer to a revocation on one node until another one refuses, 400 of them",
				set:  b.setLag,
			},
			comparison{
				name: "shared/" + b.name + "-everywhere", target: 50, most: true, unit: "ms",
				what: "signing out everywhere somebody with 100,000 sessions: one write",
				set:  b.setEverywhere,
			},
		)
	}
	return all
}

// backend is one kind of shared store.
type backend struct {
	name  string
	start func(dir string) (open func() (store.Shared, error), stop func() error, err error)
}

func startRedis(dir string) (func() (store.Shared, error), func() error, error) {
	p, err := servers.StartRedis(dir, "appendonly yes", "appendfsync everysec")
	if err != nil {
		return nil, nil, err
	}
	return func() (store.Shared, error) {
		return redisstore.Open(context.Background(), "redis://"+p.Addr, redisstore.Options{Logger: quiet()})
	}, p.Stop, nil
}

func startPostgres(dir string) (func() (store.Shared, error), func() error, error) {
	p, err := servers.StartPostgres(dir)
	if err != nil {
		return nil, nil, err
	}
	return func() (store.Shared, error) {
		return pgstore.Open(context.Background(), p.URL, pgstore.Options{Logger: quiet()})
	}, p.Stop, nil
}

// benchKeys are the keys of all nodes.
var benchKeys = keyring.New()

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// nodes starts the server and opens n stores on it, an authority on each, all with the same keys.
func (b *backend) nodes(n int) (as []*afterlogin.Authority, ss []store.Shared, done func(), err error) {
	dir, err := os.MkdirTemp("", "afterlogin-bench-")
	if err != nil {
		return nil, nil, nil, err
	}
	var closers []func()
	done = func() {
		for _, f := range slices.Backward(closers) {
			f()
		}
		os.RemoveAll(dir)
	}
	open, stop, err := b.start(filepath.Join(dir, b.name))
	if err != nil {
		done()
		return nil, nil, nil, err
	}
	closers = append(closers, func() { stop() })
	for range n {
		s, err := open()
		if err != nil {
			done()
			return nil, nil, nil, err
		}
		closers = append(closers, func() { s.Close() })
		a, err := afterlogin.New(afterlogin.Config{Store: s, Keys: benchKeys, CacheSize: 4 * hot})
		if err != nil {
			done()
			return nil, nil, nil, err
		}
		closers = append(closers, func() { a.Close() })
		as, ss = append(as, a), append(ss, s)
	}
	return as, ss, done, nil
}

func (b *backend) setHit() (ours, reference func() (float64, error), done func(), err error) {
	as, _, stop, err := b.nodes(1)
	if err != nil {
		return nil, nil, nil, err
	}
	dir, err := os.MkdirTemp("", "afterlogin-bench-")
	if err != nil {
		stop()
		return nil, nil, nil, err
	}
	local, err := pebblestore.Open(dir, pebblestore.Options{})
	if err != nil {
		stop()
		return nil, nil, nil, err
	}
	embedded, err := afterlogin.New(afterlogin.Config{Store: local, CacheSize: 4 * hot})
	if err != nil {
		stop()
		return nil, nil, nil, err
	}
	done = func() {
		embedded.Close()
		local.Close()
		os.RemoveAll(dir)
		stop()
	}
	side := func(a *afterlogin.Authority) (func() (float64, error), error) {
		tokens, err := signInMany(a, hot)
		if err != nil {
			return nil, err
		}
		return func() (float64, error) {
			before := a.Stats()
			r, err := rate(300*time.Millisecond, func(i int) error {
				_, err := a.Validate(context.Background(), afterlogin.TokenFrom(tokens[i%hot]), session)
				return err
			})
			after := a.Stats()
			if hits, misses := after.Hits-before.Hits, after.Misses-before.Misses; err == nil && misses*100 > hits {
				err = fmt.Errorf("%d hits and %d misses: this did not measure hits", hits, misses)
			}
			return r, err
		}, nil
	}
	if ours, err = side(as[0]); err == nil {
		reference, err = side(embedded)
	}
	if err != nil {
		done()
		return nil, nil, nil, err
	}
	return ours, reference, done, nil
}

// signInMany signs n people in, from several goroutines, and validates each session once.
func signInMany(a *afterlogin.Authority, n int) ([]string, error) {
	tokens := make([]string, n)
	err := inParallel(n, func(i int) error {
		got, err := a.Issue(context.Background(), afterlogin.IssueRequest{Subject: fmt.Sprint("subject-", i)})
		if err != nil {
			return err
		}
		tokens[i] = got.Token.Reveal()
		_, err = a.Validate(context.Background(), got.Token, session)
		return err
	})
	time.Sleep(time.Second) // what is still to be heard of the sign-ins, and first uses that are being written
	if err == nil {
		for _, t := range tokens {
			if _, err = a.Validate(context.Background(), afterlogin.TokenFrom(t), session); err != nil {
				break
			}
		}
	}
	return tokens, err
}

// inParallel calls f for 0 to n-1, from 32 goroutines, and returns the first error.
func inParallel(n int, f func(i int) error) error {
	var wg sync.WaitGroup
	errs := make(chan error, 32)
	for w := range 32 {
		wg.Go(func() {
			for i := w; i < n; i += 32 {
				if err := f(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// counting is a shared store that counts reads.
type counting struct {
	store.Shared
	n int
}

func (c *counting) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	c.n++
	return c.Shared.Get(ctx, ids...)
}

func (b *backend) setMiss() (ours, reference func() (float64, error), done func(), err error) {
	as, ss, done, err := b.nodes(1)
	if err != nil {
		return nil, nil, nil, err
	}
	got, err := as[0].Issue(context.Background(), afterlogin.IssueRequest{Subject: "mia"})
	if err != nil {
		done()
		return nil, nil, nil, err
	}
	ours = func() (float64, error) {
		c := &counting{Shared: ss[0]}
		a, err := afterlogin.New(afterlogin.Config{Store: c, Keys: benchKeys})
		if err != nil {
			return 0, err
		}
		defer a.Close()
		_, err = a.Validate(context.Background(), got.Token, session)
		return float64(c.n), err
	}
	return ours, nil, done, nil
}

// setLag revokes on one node and asks the other one over and over.
func (b *backend) setLag() (ours, reference func() (float64, error), done func(), err error) {
	as, _, done, err := b.nodes(2)
	if err != nil {
		return nil, nil, nil, err
	}
	ours = func() (float64, error) {
		lags := make([]time.Duration, 0, 400)
		for i := range cap(lags) {
			ctx := context.Background()
			got, err := as[0].Issue(ctx, afterlogin.IssueRequest{Subject: fmt.Sprint("subject-", i)})
			if err != nil {
				return 0, err
			}
			if _, err := as[1].Validate(ctx, got.Token, session); err != nil {
				return 0, err
			}
			if err := as[0].Revoke(ctx, got.Session.ID, afterlogin.ReasonSignedOut); err != nil {
				return 0, err
			}
			start := time.Now()
			for {
				if _, err := as[1].Validate(ctx, got.Token, session); err != nil {
					break
				}
				time.Sleep(50 * time.Microsecond)
			}
			lags = append(lags, time.Since(start))
		}
		slices.Sort(lags)
		return float64(lags[len(lags)*99/100].Microseconds()) / 1000, nil
	}
	return ours, nil, done, nil
}

func (b *backend) setEverywhere() (ours, reference func() (float64, error), done func(), err error) {
	as, _, done, err := b.nodes(1)
	if err != nil {
		return nil, nil, nil, err
	}
	err = inParallel(100_000, func(int) error {
		_, err := as[0].Issue(context.Background(), afterlogin.IssueRequest{Subject: "mia"})
		return err
	})
	if err != nil {
		done()
		return nil, nil, nil, err
	}
	ours = func() (float64, error) {
		start := time.Now()
		err := as[0].RevokeSubject(context.Background(), 0, "mia", afterlogin.Everything, afterlogin.ReasonAdministrator)
		return float64(time.Since(start).Microseconds()) / 1000, err
	}
	return ours, nil, done, nil
}
