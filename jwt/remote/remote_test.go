package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/jwt/remote"
	"github.com/afterlogin/afterlogin/keyring"
)

const (
	issuer   = "https://id.example"
	jwksURL  = issuer + "/.well-known/jwks.json"
	audience = "https://api.example"
)

// within is a transport that calls a handler, so that time in a synctest bubble passes.
type within struct{ http.Handler }

func (w within) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	answer := rec.Result()
	answer.Request = r
	return answer, nil
}

// site is an issuer: a ring, and an address with its keys.
type site struct {
	ring    *keyring.Ring
	fetches atomic.Int64
	mu      sync.Mutex
	answer  http.HandlerFunc // instead of the keys
}

func (s *site) set(f http.HandlerFunc) { s.mu.Lock(); s.answer = f; s.mu.Unlock() }

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.fetches.Add(1)
	s.mu.Lock()
	f := s.answer
	s.mu.Unlock()
	if f != nil {
		f(w, r)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=600")
	json.NewEncoder(w).Encode(s.ring.PublicKeys(time.Now()))
}

func down(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }

func newSite() *site { return &site{ring: keyring.New()} }

func (s *site) open(t testing.TB, change ...func(*remote.Config)) *remote.KeySet {
	t.Helper()
	c := remote.Config{URL: jwksURL, Transport: within{s}}
	for _, f := range change {
		f(&c)
	}
	k, err := remote.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func verifier(k jwt.KeySet) *jwt.Verifier {
	return &jwt.Verifier{Keys: k, Issuer: issuer, Audience: []string{audience}, Type: jwt.TypeAccessToken}
}

const lifetime = 5 * time.Minute

func (s *site) token(t testing.TB) string {
	t.Helper()
	k, err := s.ring.Signer(jwt.EdDSA, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return sign(t, k)
}

func sign(t testing.TB, k *jwt.SigningKey) string {
	t.Helper()
	now := time.Now()
	token, err := k.Sign(jwt.TypeAccessToken, &jwt.Claims{Issuer: issuer, Subject: "mia", Audience: []string{audience}, IssuedAt: now, Expiry: now.Add(lifetime)})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Ten rotations while verifiers that keep the JWKS for ten minutes verify fresh tokens and tokens that are about to
// expire: nobody is refused, and nobody has to fetch keys out of turn.
func TestRotationUnderLoad(t *testing.T) {
	refused, verified := rotations(t, 10, 11*time.Minute, lifetime+30*time.Second)
	if refused != 0 || verified < 5_000 {
		t.Errorf("%d of %d verifications failed", refused, verified)
	}
	// The other way round, so that it is seen that the test sees it.
	if refused, _ := rotations(t, 2, 11*time.Minute, 0); refused == 0 {
		t.Error("keys that are taken away too early are not noticed")
	}
}

func rotations(t *testing.T, n int, lead, keep time.Duration) (refused, verified int64) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		var bad, good, unknown atomic.Int64
		start, end := time.Now(), make(chan struct{})
		var wg sync.WaitGroup
		for i := range 4 { // verifiers, which start at different times of a cache's life
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 150 * time.Second)
				keys := s.open(t)
				defer keys.Close()
				v := verifier(keys)
				var old []string
				for {
					select {
					case <-end:
						return
					case <-time.After(10 * time.Second):
					}
					old = append(old, s.token(t))
					for _, token := range []string{old[0], old[len(old)-1]} {
						if _, err := v.Verify(t.Context(), token); err != nil {
							bad.Add(1)
							if errors.Is(err, jwt.ErrUnknownKey) {
								unknown.Add(1)
							}
						} else {
							good.Add(1)
						}
					}
					if len(old) > int(lifetime/(10*time.Second)) { // the oldest is as old as it may be
						old = old[1:]
					}
				}
			})
		}
		for range n {
			time.Sleep(3 * time.Minute)
			if _, err := s.ring.RotateSigning(jwt.EdDSA, time.Now(), lead, keep); err != nil {
				t.Error(err)
			}
			time.Sleep(lead)
		}
		time.Sleep(20 * time.Minute)
		close(end)
		wg.Wait()
		refused, verified = bad.Load(), bad.Load()+good.Load()
		t.Logf("keep %v: %d of %d verifications failed in %v, %d fetches by 4 verifiers", keep, refused, verified, time.Since(start), s.fetches.Load())
		if n, most := s.fetches.Load(), 4*(int64(time.Since(start)/(8*time.Minute))+2)+unknown.Load(); n > most {
			t.Errorf("%d fetches, want at most %d", n, most)
		}
	})
	return refused, verified
}

// In an emergency a key is refused by everybody who has read the JWKS afterwards, and the new one works at once.
func TestEmergency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		keys := s.open(t)
		v := verifier(keys)
		stolen, err := s.ring.Signer(jwt.EdDSA, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(t.Context(), sign(t, stolen)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := s.ring.RetireSigning(stolen.ID(), time.Now()); err != nil {
			t.Fatal(err)
		}
		forged := sign(t, stolen)
		if _, err := v.Verify(t.Context(), forged); err != nil {
			t.Fatalf("before the JWKS is read again nobody can know: %v", err)
		}
		if _, err := v.Verify(t.Context(), s.token(t)); err != nil { // reads it again
			t.Errorf("a token of the new key: %v", err)
		}
		if _, err := v.Verify(t.Context(), forged); !errors.Is(err, jwt.ErrUnknownKey) {
			t.Errorf("a token of the retired key: %v", err)
		}
	})
}

// The same, with nobody who brings a token of the new key: the keys are read again within ten minutes anyway.
func TestEmergencyWithoutTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		v := verifier(s.open(t))
		stolen, err := s.ring.Signer(jwt.EdDSA, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := s.ring.RetireSigning(stolen.ID(), time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if _, err := v.Verify(t.Context(), sign(t, stolen)); !errors.Is(err, jwt.ErrUnknownKey) {
			t.Errorf("a token of the retired key after ten minutes: %v", err)
		}
	})
}

// A thousand requests with junk ids cause one fetch per interval.
func TestJunkCausesNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		keys := s.open(t)
		if _, err := verifier(keys).Verify(t.Context(), s.token(t)); err != nil {
			t.Fatal(err)
		}
		before := s.fetches.Load()
		for range 10 {
			time.Sleep(10 * time.Second)
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					if _, err := keys.Key(t.Context(), fmt.Sprint("junk", i)); !errors.Is(err, jwt.ErrUnknownKey) {
						t.Errorf("%v", err)
					}
				})
			}
			wg.Wait()
		}
		if n := s.fetches.Load() - before; n > 11 {
			t.Errorf("%d fetches in 100 s, want at most one in 10 s", n)
		}
		if _, err := keys.Key(t.Context(), ""); !errors.Is(err, jwt.ErrUnknownKey) && err != nil {
			t.Errorf("no kid: %v", err)
		}
	})
}

// While the issuer is down, keys are used a while longer; then nobody knows, which is not no.
func TestIssuerDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		var log strings.Builder
		keys := s.open(t, func(c *remote.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		v := verifier(keys)
		if _, err := v.Verify(t.Context(), s.token(t)); err != nil {
			t.Fatal(err)
		}
		s.set(down)
		time.Sleep(69 * time.Minute) // 10 fresh, 60 stale
		if _, err := v.Verify(t.Context(), s.token(t)); err != nil {
			t.Errorf("after 69 minutes: %v", err)
		}
		if _, err := keys.Key(t.Context(), "new"); !errors.Is(err, jwt.ErrUnavailable) || errors.Is(err, jwt.ErrInvalid) {
			t.Errorf("a key that may be new: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := v.Verify(t.Context(), s.token(t)); !errors.Is(err, jwt.ErrUnavailable) || errors.Is(err, jwt.ErrInvalid) {
			t.Errorf("after 71 minutes: %v", err)
		}
		if n := s.fetches.Load(); n > 90 {
			t.Errorf("%d fetches in 71 minutes", n)
		}
		s.set(nil)
		time.Sleep(time.Minute)
		if _, err := v.Verify(t.Context(), s.token(t)); err != nil {
			t.Errorf("it is back: %v", err)
		}
		if err := keys.Close(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(log.String(), "status 502") || strings.Contains(log.String(), "eyJ") {
			t.Errorf("logged: %s", log.String())
		}
	})
}

// From the first moment: what is not known is unavailable, and a caller waits no longer than its context.
func TestNeverReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		s.set(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		keys := s.open(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := verifier(keys).Verify(ctx, s.token(t)); !errors.Is(err, jwt.ErrUnavailable) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if err := keys.Refresh(t.Context()); !errors.Is(err, jwt.ErrUnavailable) || time.Since(start) != remote.DefaultTimeout {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		s.set(nil)
		time.Sleep(remote.DefaultInterval)
		if err := keys.Refresh(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := verifier(keys).Verify(t.Context(), s.token(t)); err != nil {
			t.Error(err)
		}
	})
}

func TestCacheControl(t *testing.T) {
	for name, tt := range map[string]struct {
		header    http.Header
		low, high time.Duration // when it is fetched again
	}{
		"nothing":     {http.Header{}, 8 * time.Minute, 9 * time.Minute},
		"five":        {http.Header{"Cache-Control": {"public, max-age=300, must-revalidate"}}, 4 * time.Minute, 270 * time.Second},
		"with age":    {http.Header{"Cache-Control": {"Max-Age=600"}, "Age": {"300"}}, 4 * time.Minute, 270 * time.Second},
		"a second":    {http.Header{"Cache-Control": {"max-age=1"}}, 48 * time.Second, 54 * time.Second},
		"no-store":    {http.Header{"Cache-Control": {"max-age=3000, no-store"}}, 48 * time.Second, 54 * time.Second},
		"a year":      {http.Header{"Cache-Control": {"max-age=31536000"}}, 48 * time.Minute, 54 * time.Minute},
		"nonsense":    {http.Header{"Cache-Control": {"max-age=-1,=,max-age"}}, 8 * time.Minute, 9 * time.Minute},
		"a huge year": {http.Header{"Cache-Control": {"max-age=99999999999999"}}, 8 * time.Minute, 9 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			s.set(func(w http.ResponseWriter, r *http.Request) {
				for k, v := range tt.header {
					w.Header()[k] = v
				}
				json.NewEncoder(w).Encode(s.ring.PublicKeys(time.Now()))
			})
			s.open(t)
			synctest.Wait()
			time.Sleep(tt.low - time.Millisecond)
			synctest.Wait()
			if n := s.fetches.Load(); n != 1 {
				t.Errorf("%s: %d fetches after %v, want 1", name, n, tt.low)
			}
			time.Sleep(tt.high - tt.low + time.Second)
			synctest.Wait()
			if n := s.fetches.Load(); n != 2 {
				t.Errorf("%s: %d fetches after %v, want 2", name, n, tt.high)
			}
		})
	}
}

// What an address must not answer. The keys before stay in use.
func TestBadAnswers(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"404":  func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		"HTML": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") },
		"an endless one": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, strings.Repeat(" ", 70<<10), `{"keys":[]}`)
		},
		"a private key":    func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"keys":[{"kty":"EC","d":"x"}]}`) },
		"a symmetric key":  func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"keys":[{"kty":"oct","k":"x"}]}`) },
		"to another host":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "https://evil.example/jwks", 302) },
		"to http":          func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://id.example/jwks", 302) },
		"round and round":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, jwksURL, 302) },
		"to another port":  func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "https://id.example:8443/jwks", 302) },
		"204":              func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) },
		"two keys, one id": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, twice) },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			keys := s.open(t)
			if err := keys.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.set(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.String() != jwksURL {
					t.Errorf("%s: %s was asked", name, r.URL)
				}
				answer(w, r)
			})
			time.Sleep(time.Minute)
			if err := keys.Refresh(t.Context()); !errors.Is(err, jwt.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := verifier(keys).Verify(t.Context(), s.token(t)); err != nil {
				t.Errorf("%s: the keys before are not used any more: %v", name, err)
			}
		})
	}
}

const twice = `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

// An issuer that publishes no key at all accepts nothing.
func TestEmptySet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite()
		keys := s.open(t)
		if err := keys.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.set(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[]}`) })
		time.Sleep(time.Minute)
		if err := keys.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := verifier(keys).Verify(t.Context(), s.token(t)); !errors.Is(err, jwt.ErrUnknownKey) {
			t.Error(err)
		}
	})
}

func TestMetadata(t *testing.T) {
	for name, tt := range map[string]struct {
		issuer, where, says, jwks string
		good                      bool
	}{
		"plain":             {issuer, issuer + "/.well-known/oauth-authorization-server", issuer, jwksURL, true},
		"with a path":       {issuer + "/a/b", issuer + "/.well-known/oauth-authorization-server/a/b", issuer + "/a/b", jwksURL, true},
		"keys elsewhere":    {issuer, issuer + "/.well-known/oauth-authorization-server", issuer, "https://keys.example/jwks", true},
		"another issuer's":  {issuer, issuer + "/.well-known/oauth-authorization-server", "https://evil.example", jwksURL, false},
		"a slash more":      {issuer, issuer + "/.well-known/oauth-authorization-server", issuer + "/", jwksURL, false},
		"keys over http":    {issuer, issuer + "/.well-known/oauth-authorization-server", issuer, "http://id.example/jwks", false},
		"keys on loopback":  {issuer, issuer + "/.well-known/oauth-authorization-server", issuer, "http://127.0.0.1/jwks", false},
		"no address":        {issuer, issuer + "/.well-known/oauth-authorization-server", issuer, "", false},
		"a file's address":  {issuer, issuer + "/.well-known/oauth-authorization-server", issuer, "file:///etc/passwd", false},
		"loopback, by http": {"http://localhost:8080", "http://localhost:8080/.well-known/oauth-authorization-server", "http://localhost:8080", "http://localhost:8080/jwks", true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSite()
			asked := ""
			s.set(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.String() {
				case tt.where:
					fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, tt.says, tt.jwks)
				case tt.jwks:
					json.NewEncoder(w).Encode(s.ring.PublicKeys(time.Now()))
				default:
					asked = r.URL.String()
					w.WriteHeader(404)
				}
			})
			keys := s.open(t, func(c *remote.Config) { c.URL, c.Issuer = "", tt.issuer })
			if err := keys.Refresh(t.Context()); (err == nil) != tt.good || err != nil && !errors.Is(err, jwt.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
			if asked != "" {
				t.Errorf("%s: %s was asked", name, asked)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []remote.Config{
		{},
		{URL: jwksURL, Issuer: issuer},
		{URL: "http://id.example/jwks"},
		{URL: "http://127.0.0.1.example/jwks"},
		{URL: "http://169.254.169.254/jwks"},
		{URL: "https://user:secret@id.example/jwks"},
		{URL: "https:///jwks"},
		{URL: "id.example"},
		{URL: "ftp://id.example"},
		{URL: "https://id.example/jwks#x"},
		{URL: "://"},
		{Issuer: "http://id.example"},
		{Issuer: "https://id.example?x=1"},
		{URL: jwksURL, Interval: -1},
		{URL: jwksURL, Timeout: -1},
		{URL: jwksURL, Cache: -1},
	} {
		if k, err := remote.Open(c); err == nil || k != nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// Over a real connection, and closed while a fetch hangs.
func TestOverHTTP(t *testing.T) {
	s := newSite()
	server := httptest.NewServer(s)
	defer server.Close()
	keys := s.open(t, func(c *remote.Config) { c.URL, c.Transport = server.URL, server.Client().Transport })
	if _, err := verifier(keys).Verify(t.Context(), s.token(t)); err != nil {
		t.Error(err)
	}
	s.set(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	hung := s.open(t, func(c *remote.Config) { c.URL, c.Transport = server.URL, server.Client().Transport })
	if err := hung.Close(); err != nil {
		t.Error(err)
	}
	if _, err := hung.Key(t.Context(), "x"); !errors.Is(err, jwt.ErrUnavailable) {
		t.Errorf("closed: %v", err)
	}
	if err := hung.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}
