// Package remote verifies tokens with nothing but an address: it fetches an issuer's public keys (JWKS), keeps them, and
// follows their rotation. It owns fetching and caching; what a key or a token must be is package jwt's. Start with [Open].
package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
)

// Defaults and bounds.
const (
	DefaultCache    = 10 * time.Minute
	DefaultStale    = time.Hour
	DefaultInterval = 10 * time.Second
	DefaultTimeout  = 5 * time.Second
	MinCache        = time.Minute // whatever Cache-Control says
	MaxCache        = time.Hour
)

// Config says where the keys are. URL or Issuer must be set; everything else may be zero.
type Config struct {
	// URL is the address of the JWKS: https, or http on a loopback address.
	URL string
	// Issuer is the issuer's identifier. Its metadata (RFC 8414) say where the JWKS is, and must name the same issuer.
	Issuer string
	// Transport makes the requests. Nil is http.DefaultTransport.
	Transport http.RoundTripper
	// Cache is how long keys are good for if the answer has no Cache-Control: max-age. Zero is 10 minutes. Whatever the
	// answer says, it is at least a minute and at most an hour.
	Cache time.Duration
	// Stale is how much longer keys are used while the issuer cannot be reached. Zero is an hour; negative is not at all.
	Stale time.Duration
	// Interval is the least time between two fetches, however many unknown keys are asked for. Zero is 10 s.
	Interval time.Duration
	// Timeout is the most that a fetch may take. Zero is 5 s.
	Timeout time.Duration
	// Logger receives failed fetches, never tokens. Nil discards them.
	Logger *slog.Logger
}

// A KeySet is an issuer's public keys, as they stood at its address a short while ago. It is a jwt.KeySet, safe for
// concurrent use. Close it when it is not needed any more.
type KeySet struct {
	config  Config
	fetcher fetcher
	// current is replaced, never changed. It is nil before the first fetch succeeded.
	current atomic.Pointer[snapshot]

	stop  context.CancelFunc
	ctx   context.Context // ends with Close; of the fetches, which belong to no single caller
	owned sync.WaitGroup  // the goroutines that Close waits for

	// mu guards what follows. It is not held while fetching.
	mu      sync.Mutex
	closed  bool
	under   *flight   // the fetch under way, nil if there is none
	last    time.Time // when the last one began
	lastErr error     // how the last one ended
}

// snapshot is what a fetch brought.
type snapshot struct {
	keys    *jwt.Keys
	refresh time.Time // when to fetch again
	end     time.Time // from when on they are not used any more
}

// flight is a fetch under way. err is set when done is closed.
type flight struct {
	done chan struct{}
	err  error
}

// Open returns the keys of the issuer. It checks the configuration and begins to fetch, but does not wait; the first Key
// does. Refresh tells whether the address works.
func Open(c Config) (*KeySet, error) {
	f, err := newFetcher(&c)
	if err != nil {
		return nil, err
	}
	k := &KeySet{config: c, fetcher: f}
	k.ctx, k.stop = context.WithCancel(context.Background())
	k.ask()
	k.owned.Go(k.loop)
	return k, nil
}

// Key returns the issuer's key with the id. For an id that is not in the keys it has, it fetches them again, but at most
// once per Interval, however many ask. It returns jwt.ErrUnknownKey if the issuer does not publish the key, and
// jwt.ErrUnavailable if there are no keys that are fresh enough, if the last fetch failed and the key is not among those
// known, or if ctx ends first.
func (k *KeySet) Key(ctx context.Context, kid string) (*jwt.PublicKey, error) {
	key, err := k.known(ctx, kid)
	if err == nil || kid == "" && errors.Is(err, jwt.ErrUnknownKey) {
		return key, err
	}
	f, lastErr := k.ask()
	if f != nil {
		select {
		case <-f.done:
			lastErr = f.err
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", jwt.ErrUnavailable, ctx.Err())
		}
	}
	key, err = k.known(ctx, kid)
	if err != nil && lastErr != nil {
		return nil, fmt.Errorf("%w: %w", jwt.ErrUnavailable, lastErr)
	}
	return key, err
}

// known looks among the keys there are.
func (k *KeySet) known(ctx context.Context, kid string) (*jwt.PublicKey, error) {
	s := k.current.Load()
	if s == nil || !time.Now().Before(s.end) {
		return nil, jwt.ErrUnavailable
	}
	return s.keys.Key(ctx, kid)
}

// Refresh fetches the keys now, unless that was done less than Interval ago, and returns how the last fetch ended: nil,
// or jwt.ErrUnavailable with the reason. Call it when a program starts, to learn of a wrong address, or when a key is
// known to be retired.
func (k *KeySet) Refresh(ctx context.Context) error {
	f, err := k.ask()
	if f != nil {
		select {
		case <-f.done:
			err = f.err
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", jwt.ErrUnavailable, err)
	}
	return nil
}

var errClosed = errors.New("the key set is closed")

// ask returns the fetch under way, or a new one. If the last one is too young it returns nil, and how that ended.
func (k *KeySet) ask() (*flight, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		return nil, errClosed
	case k.under != nil:
		return k.under, nil
	case !k.last.IsZero() && time.Since(k.last) < k.config.Interval:
		return nil, k.lastErr
	}
	f := &flight{done: make(chan struct{})}
	k.under, k.last = f, time.Now()
	k.owned.Go(func() {
		err := k.fetch()
		k.mu.Lock()
		f.err, k.lastErr, k.under = err, err, nil
		k.mu.Unlock()
		close(f.done)
	})
	return f, nil
}

// fetch fetches, and replaces the keys if that succeeds: a key that is not published any more is gone.
func (k *KeySet) fetch() error {
	ctx, cancel := context.WithTimeout(k.ctx, k.config.Timeout)
	defer cancel()
	keys, cache, err := k.fetcher.fetch(ctx)
	if err != nil {
		if k.ctx.Err() == nil {
			k.config.Logger.WarnContext(ctx, "keys of the issuer could not be fetched", "err", err)
		}
		return err
	}
	now := time.Now()
	early := time.Duration(float64(cache) * (0.1 + 0.1*rand.Float64())) // so that verifiers do not come all at once
	k.current.Store(&snapshot{keys: keys, refresh: now.Add(cache - early), end: now.Add(cache + k.config.Stale)})
	return nil
}

// loop fetches before the keys expire, and again and again, ever slower, while that fails.
func (k *KeySet) loop() {
	pause := k.config.Interval
	for {
		wait := pause
		if s := k.current.Load(); s != nil && time.Until(s.refresh) > 0 {
			wait, pause = time.Until(s.refresh), k.config.Interval
		} else {
			pause = min(2*pause, max(time.Minute, k.config.Interval))
		}
		timer := time.NewTimer(wait)
		select {
		case <-k.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if s := k.current.Load(); s != nil && time.Until(s.refresh) > 0 {
			continue // somebody else did
		}
		if f, _ := k.ask(); f != nil {
			<-f.done // ends with k.ctx
		}
	}
}

// Close ends the fetches and waits for them. Afterwards Key knows only what it knew, until that is stale. It returns nil.
func (k *KeySet) Close() error {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.stop()
	k.owned.Wait()
	return nil
}
