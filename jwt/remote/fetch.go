package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
)

// fetcher gets the keys over HTTP.
type fetcher struct {
	client   *http.Client
	jwks     string // "" if the metadata are to be asked
	issuer   string
	metadata string
	cache    time.Duration
}

// newFetcher checks the configuration and fills in its defaults.
func newFetcher(c *Config) (fetcher, error) {
	for _, d := range []struct {
		field  *time.Duration
		preset time.Duration
	}{{&c.Cache, DefaultCache}, {&c.Interval, DefaultInterval}, {&c.Timeout, DefaultTimeout}, {&c.Stale, DefaultStale}} {
		if *d.field == 0 {
			*d.field = d.preset
		}
	}
	c.Stale = max(c.Stale, 0)
	if c.Cache < 0 || c.Interval < 0 || c.Timeout < 0 {
		return fetcher{}, errors.New("remote: Cache, Interval and Timeout must not be negative")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	f := fetcher{cache: c.Cache, jwks: c.URL, issuer: c.Issuer}
	switch {
	case (c.URL == "") == (c.Issuer == ""):
		return f, errors.New("remote: set URL, or Issuer, and not both")
	case c.URL != "":
		if _, err := address(c.URL); err != nil {
			return f, fmt.Errorf("remote: URL %w", err)
		}
	default:
		u, err := address(c.Issuer)
		if err == nil && u.RawQuery != "" {
			err = errors.New("has a query")
		}
		if err != nil {
			return f, fmt.Errorf("remote: Issuer %w", err)
		}
		path := strings.TrimSuffix(u.EscapedPath(), "/") // RFC 8414, 3.1: the well-known part comes before the issuer's path
		f.metadata = u.Scheme + "://" + u.Host + "/.well-known/oauth-authorization-server" + path
	}
	f.client = &http.Client{Transport: c.Transport, CheckRedirect: sameHost}
	return f, nil
}

// address checks that keys may be fetched from there: nobody on the way can exchange them.
func address(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return nil, errors.New("is not an address such as https://issuer.example/jwks.json")
	case u.Scheme == "https":
		return u, nil
	case u.Scheme != "http":
		return nil, errors.New("is not https")
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, errors.New("is http; only a loopback address may be, others must be https")
	}
	return u, nil
}

var errRedirect = errors.New("redirected to another host, which is not followed")

// sameHost follows a redirect only to where the keys were asked from.
func sameHost(r *http.Request, via []*http.Request) error {
	if first := via[0].URL; r.URL.Scheme != first.Scheme || r.URL.Host != first.Host {
		return errRedirect
	}
	if len(via) > 3 {
		return errors.New("redirected more than three times")
	}
	return nil
}

// fetch returns the keys, and for how long they are good.
func (f *fetcher) fetch(ctx context.Context) (*jwt.Keys, time.Duration, error) {
	where := f.jwks
	if where == "" {
		var err error
		if where, err = f.discover(ctx); err != nil {
			return nil, 0, fmt.Errorf("metadata of the issuer: %w", err)
		}
	}
	body, header, err := f.get(ctx, where)
	if err != nil {
		return nil, 0, fmt.Errorf("JWKS: %w", err)
	}
	keys, err := jwt.ParseJWKS(body)
	if err != nil {
		return nil, 0, err
	}
	return keys, lifetime(header, f.cache), nil
}

// discover asks the issuer's metadata (RFC 8414, 3) where the keys are.
func (f *fetcher) discover(ctx context.Context) (string, error) {
	body, _, err := f.get(ctx, f.metadata)
	if err != nil {
		return "", err
	}
	var m struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if json.Unmarshal(body, &m) != nil {
		return "", errors.New("not JSON")
	}
	if m.Issuer != f.issuer { // RFC 8414, 3.3: or one issuer could speak for another
		return "", errors.New("they are another issuer's")
	}
	u, err := address(m.JWKS)
	if err != nil {
		return "", fmt.Errorf("jwks_uri %w", err)
	}
	if u.Scheme != "https" && !strings.HasPrefix(f.issuer, "http://") {
		return "", errors.New("jwks_uri is not https")
	}
	return m.JWKS, nil
}

// get returns the body, at most jwt.MaxKeysSize, of an answer with status 200.
func (f *fetcher) get(ctx context.Context, where string) ([]byte, http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	answer, err := f.client.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, nil, fmt.Errorf("status %d", answer.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, jwt.MaxKeysSize+1))
	if err != nil {
		return nil, nil, err
	}
	if len(body) > jwt.MaxKeysSize {
		return nil, nil, fmt.Errorf("an answer over %d bytes", jwt.MaxKeysSize)
	}
	return body, answer.Header, nil
}

// lifetime returns how long an answer is good for (RFC 9111, 5.2.2), within the bounds.
func lifetime(h http.Header, preset time.Duration) time.Duration {
	d := preset
	for _, directive := range strings.Split(strings.ToLower(h.Get("Cache-Control")), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch name {
		case "no-store", "no-cache":
			return MinCache
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err != nil {
				continue
			}
			age, _ := strconv.ParseUint(h.Get("Age"), 10, 31) // 0 if it is not there
			d = time.Duration(seconds-min(age, seconds)) * time.Second
		}
	}
	return min(max(d, MinCache), MaxCache)
}
