package users

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// Passwords that the tests use: none may stand in a log.
const (
	good  = "correct horse battery"
	other = "staple the battery well"
	bad   = "not the password at all"
)

// quick are parameters that cost next to nothing.
var quick = Params{Memory: 64, Time: 1, Threads: 1}

type fixture struct {
	*Users
	t    testing.TB
	a    *afterlogin.Authority
	ring *keyring.Ring

	mu  sync.Mutex
	at  time.Time
	log bytes.Buffer
}

func (f *fixture) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(b)
}

func (f *fixture) clock() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

func (f *fixture) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = f.at.Add(d)
}

func open(t testing.TB, s store.Store, p Params) *fixture {
	t.Helper()
	if s == nil {
		s = memstore.New()
	}
	f := &fixture{t: t, at: time.Now().Truncate(time.Millisecond), ring: keyring.New()}
	var err error
	f.a, err = afterlogin.New(afterlogin.Config{Store: s, Keys: f.ring, Now: f.clock})
	if err != nil {
		t.Fatal(err)
	}
	f.Users = f.list(p)
	t.Cleanup(func() {
		f.a.Close()
		s.Close()
		for _, secret := range []string{good, other, bad, "argon2id"} {
			if strings.Contains(f.log.String(), secret) {
				t.Errorf("%q stands in the log: %s", secret, f.log.String())
			}
		}
	})
	return f
}

// list is another node's list on the same store.
func (f *fixture) list(p Params) *Users {
	f.t.Helper()
	u, err := New(Options{Authority: f.a, Keys: f.ring, Now: f.clock, Params: p, Logger: slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		f.t.Fatal(err)
	}
	return u
}

func (f *fixture) add(name string) {
	f.t.Helper()
	if _, err := f.Add(f.t.Context(), name, good, []string{"read", "write"}); err != nil {
		f.t.Fatal(err)
	}
}

var elsewhere = netip.MustParseAddr("192.0.2.1")

// verify tries a password from the address, at a time when it is its turn.
func (f *fixture) verify(name, password string) (*Verified, error) {
	f.t.Helper()
	return f.Verify(f.t.Context(), name, password, From{Addr: elsewhere})
}

// wants fails unless the password does, or does not.
func (f *fixture) wants(name, password string, ok bool) {
	f.t.Helper()
	f.pass(time.Hour)
	v, err := f.verify(name, password)
	if ok && (err != nil || v.User.Name != FoldName(name)) || !ok && !errors.Is(err, ErrWrong) {
		f.t.Errorf("%s: %v, want it to be %t", name, err, ok)
	}
}

// signIn makes a session or an API key for the user.
func (f *fixture) signIn(name string, kind afterlogin.Kind) afterlogin.Issued {
	f.t.Helper()
	got, err := f.a.Issue(f.t.Context(), afterlogin.IssueRequest{Subject: name, Kind: kind})
	if err != nil {
		f.t.Fatal(err)
	}
	return got
}

func (f *fixture) alive(s afterlogin.Issued) bool {
	f.t.Helper()
	_, err := f.a.Validate(f.t.Context(), s.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{s.Session.Kind}})
	if err != nil && !errors.Is(err, afterlogin.ErrInvalidToken) {
		f.t.Fatal(err)
	}
	return err == nil
}

// Known reports whether the cookie is of a browser that the user has signed in with before.
func (f *fixture) Known(name, cookie string) bool { return f.device(name, cookie) != nil }
