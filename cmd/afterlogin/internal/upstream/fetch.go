package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// How long and how large an answer of a provider may be, and how often it is asked.
const (
	fetchTimeout  = 5 * time.Second
	maxFetch      = 512 << 10
	fetchInterval = 10 * time.Second // the least time between two fetches of the same thing, however many ask

	metadataFresh = time.Hour
	metadataStale = 24 * time.Hour // how long it is used when it cannot be fetched again
	keysFresh     = 10 * time.Minute
	keysStale     = 70 * time.Minute
)

// errDown means that a provider does not answer, or not what it should, so that nothing is known now. It is for the log;
// people are shown a page.
var errDown = errors.New("the provider does not answer as it should")

// errRecent means that what is there was fetched too short a while ago to be fetched again.
var errRecent = errors.New("it was asked a moment ago")

// errPanicked is how a fetch has ended that did not return.
var errPanicked = errors.New("reading the answer failed badly")

// down wraps why.
func down(err error) error { return fmt.Errorf("%w: %w", errDown, err) }

// fetched is what a provider publishes at an address, as it stood there a short while ago. One request at a time fetches
// it, on its own goroutine; the others wait for it. After a fetch, failed or not, there is none for the interval.
type fetched[T any] struct {
	fetch                  func(context.Context) (*T, error)
	fresh, stale, interval time.Duration
	now                    func() time.Time

	// mu guards what follows. It is not held while fetching.
	mu    sync.Mutex
	value *T
	at    time.Time     // when value was fetched
	began time.Time     // when the last fetch began
	err   error         // how it ended
	under chan struct{} // closed when the fetch under way ends; nil: none
}

// get returns the value, but not the one that is known not to do (nil: any does): it is fetched once more, then. If that
// fails the error is errDown, since whether it would do now is not known; if it is too early for it, errRecent is wrapped,
// too. A deadline of ctx that is nearer than fetchTimeout cuts the fetch short.
func (f *fetched[T]) get(ctx context.Context, not *T) (*T, error) {
	f.mu.Lock()
	for {
		now := f.now()
		age := now.Sub(f.at)
		usable := f.value != nil && f.value != not && age < f.stale && age > -f.stale
		if usable && age < f.fresh {
			defer f.mu.Unlock()
			return f.value, nil
		}
		if wait := f.under; wait != nil {
			f.mu.Unlock()
			select {
			case <-wait:
			case <-ctx.Done():
				return nil, down(ctx.Err())
			}
			f.mu.Lock()
			continue
		}
		if since := now.Sub(f.began); !f.began.IsZero() && since < f.interval && since >= 0 {
			defer f.mu.Unlock()
			switch {
			case usable:
				return f.value, nil
			case f.err != nil:
				return nil, f.err
			}
			return nil, down(errRecent)
		}
		break
	}
	f.began, f.under = f.now(), make(chan struct{})
	f.mu.Unlock()
	err := f.renew(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		return f.value, nil
	}
	if age := f.now().Sub(f.at); f.value != nil && f.value != not && age < f.stale && age > -f.stale {
		return f.value, nil
	}
	return nil, err
}

// renew fetches the value, and tells those who wait how that has ended, in any case.
func (f *fetched[T]) renew(ctx context.Context) error {
	// Others wait for it, so that it does not end with this request. This request waits in any case.
	// How long is nobody's to say who happens to be the first to ask: a failure is everybody's for a while.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
	defer cancel()
	var value *T
	err := errPanicked
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		close(f.under)
		f.under, f.err = nil, nil
		if err != nil {
			f.err = down(err)
			return
		}
		f.value, f.at = value, f.now()
	}()
	if value, err = f.fetch(ctx); err != nil {
		return down(err)
	}
	return nil
}

// known returns the value if it need not be fetched: a stale one does, too.
func (f *fetched[T]) known() (*T, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	age := f.now().Sub(f.at)
	return f.value, f.value != nil && age < f.stale && age > -f.stale
}

// read fetches a document.
func (u *Upstream) read(ctx context.Context, where string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	resp, err := u.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		if resp.StatusCode/100 == 3 {
			return nil, fmt.Errorf("%s answers %d: redirects are not followed; configure the address itself", where, resp.StatusCode)
		}
		return nil, fmt.Errorf("%s answers %d", where, resp.StatusCode)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return b, nil
}

// newClient returns a client that goes where it is told and nowhere else: no redirects, no proxy from the environment, no
// cookies, little time, and answers of bounded size.
func newClient(proxy *url.URL, roots *x509.CertPool) *http.Client {
	t := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: fetchTimeout}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    fetchTimeout,
		ResponseHeaderTimeout:  fetchTimeout,
		MaxResponseHeaderBytes: 32 << 10,
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        time.Minute,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
	if proxy != nil {
		t.Proxy = http.ProxyURL(proxy)
	}
	return &http.Client{
		Transport:     bounded{t},
		Timeout:       fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded fails the reading of answers that are larger than any honest one.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.Transport.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxFetch)
	}
	return resp, err
}
