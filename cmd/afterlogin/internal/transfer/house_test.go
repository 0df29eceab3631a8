package transfer

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// clock is the time of a test. It stands still unless told to go on.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// house is an installation: its keys, and an authority on a store, which may be exchanged.
type house struct {
	*afterlogin.Authority
	t      *testing.T
	clock  *clock
	ring   *keyring.Ring
	master []byte
	events []string
}

func newHouse(t *testing.T, s store.Store) *house {
	h := &house{t: t, clock: &clock{at: time.Now()}, master: make([]byte, keyring.KeySize)}
	rand.Read(h.master)
	var err error
	if h.ring, err = keyring.Open(filepath.Join(t.TempDir(), "keys.json"), h.master); err != nil {
		t.Fatal(err)
	}
	h.on(s)
	return h
}

// on begins to work on the store, after what was before.
func (h *house) on(s store.Store) {
	h.t.Helper()
	if h.Authority != nil {
		h.Authority.Close()
	}
	a, err := afterlogin.New(afterlogin.Config{
		Store: s, Keys: h.ring, Now: h.clock.now, ImportedKeys: true, Issuer: "https://login.example",
		Observe: func(e afterlogin.Event) { h.events = append(h.events, e.Type) },
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.Authority = a
	h.t.Cleanup(func() { a.Close() })
}

func (h *house) sealed() []byte {
	h.t.Helper()
	b, err := h.ring.Sealed()
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h *house) opener() func(*store.Record) error {
	h.t.Helper()
	open, err := Opener(h.sealed(), h.master)
	if err != nil {
		h.t.Fatal(err)
	}
	return open
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (h *house) signIn(subject string) afterlogin.Issued {
	h.t.Helper()
	return must[afterlogin.Issued](h.t)(h.Issue(h.t.Context(), afterlogin.IssueRequest{Subject: subject, Policy: afterlogin.PolicyRemember}))
}

var anyKind = afterlogin.Expect{CanRenew: true, Kinds: []afterlogin.Kind{
	afterlogin.KindSession, afterlogin.KindAPIKey, afterlogin.KindRefresh, afterlogin.KindAccess, afterlogin.KindJWT,
}}

// want validates the token, and fails unless the answer is the wanted one, "" for good.
func (h *house) want(what string, t afterlogin.Token, want afterlogin.Reason) {
	h.t.Helper()
	var err error
	for _, client := range []string{"", "app", "reports"} { // whose token it may be
		e := anyKind
		e.Client = client
		if _, err = h.Validate(h.t.Context(), t, e); afterlogin.ReasonOf(err) != afterlogin.ReasonWrongClient {
			break
		}
	}
	if want == "" && err != nil || want != "" && afterlogin.ReasonOf(err) != want {
		h.t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// credentials are one of each kind.
type credentials struct {
	cart, session, other, key, imported, online, offline, access, service afterlogin.Issued
	revoked, everywhere                                                   afterlogin.Issued
	jwt                                                                   afterlogin.Token
}

// furnish signs people in, in all ways there are.
func (h *house) furnish() credentials {
	t, ctx := h.t, h.t.Context()
	t.Helper()
	issued, grant := must[afterlogin.Issued](t), must[afterlogin.Grant](t)
	var c credentials
	c.cart = issued(h.Issue(ctx, afterlogin.IssueRequest{Data: map[string]json.RawMessage{"cart": json.RawMessage(`["tea"]`)}}))
	c.session, c.other, c.revoked = h.signIn("mia"), h.signIn("mia"), h.signIn("mia")
	if err := h.UpdateData(ctx, c.session.Session, func(d *afterlogin.Data) error { return d.Set("big", bytes.Repeat([]byte("x"), 40<<10)) }); err != nil {
		t.Fatal(err)
	}
	c.key = issued(h.Issue(ctx, afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Subject: "build-server", Tenant: 0}))
	g := grant(h.IssueGrant(ctx, c.session.Session, afterlogin.GrantRequest{Client: "app"}))
	c.online, c.access = g.Refresh, g.Access
	c.offline = grant(h.IssueGrant(ctx, c.session.Session, afterlogin.GrantRequest{Client: "app", Offline: true, Public: true})).Refresh
	client := must[*afterlogin.Registration](t)(h.AddClient(ctx, 0, "reports", json.RawMessage(`{}`)))
	c.service = issued(h.IssueAccess(ctx, client.Session, afterlogin.AccessRequest{Client: "reports", Lifetime: 20 * time.Minute}))
	c.jwt = issued(h.IssueAccess(ctx, c.session.Session, afterlogin.AccessRequest{JWT: true})).Token
	if err := h.Revoke(ctx, c.revoked.Session.ID, afterlogin.ReasonSignedOut); err != nil {
		t.Fatal(err)
	}
	c.everywhere = h.signIn("tom")
	if err := h.RevokeSubject(ctx, 0, "tom", afterlogin.Sessions, afterlogin.ReasonAdministrator); err != nil {
		t.Fatal(err)
	}
	if fresh, err := h.FirstUse(ctx, "assertion", "1", h.clock.now().Add(time.Hour)); !fresh || err != nil {
		t.Fatal(fresh, err)
	}
	return c
}

func (c *credentials) live() map[string]afterlogin.Token {
	return map[string]afterlogin.Token{
		"an anonymous session": c.cart.Token, "a session": c.session.Token, "another session": c.other.Token,
		"an API key": c.key.Token, "an online grant": c.online.Token, "an offline grant": c.offline.Token,
		"an access token": c.access.Token, "a JWT": c.jwt, "a client's token": c.service.Token,
	}
}

// stores are what the tables run on.
var stores = map[string]func(t *testing.T) store.Bulk{
	"memstore":    func(t *testing.T) store.Bulk { return memstore.New() },
	"pebblestore": func(t *testing.T) store.Bulk { return openPebble(t, t.TempDir()) },
}

func openPebble(t *testing.T, dir string) *pebblestore.Store {
	t.Helper()
	s, err := pebblestore.Open(dir, pebblestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func migration(t *testing.T, from, to store.Bulk) *Migration {
	return &Migration{From: from, To: to, FromName: "a", ToName: "b", Checkpoint: filepath.Join(t.TempDir(), "checkpoint"), Apart: IsKeys}
}

// all returns every record of a store.
func all(t *testing.T, s store.Bulk) map[store.ID]*store.Record {
	t.Helper()
	got := make(map[store.ID]*store.Record)
	for b, err := range s.Scan(context.Background(), "") {
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Records {
			got[r.ID] = r
		}
	}
	return got
}

func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); err == nil {
		t.Errorf("%s is left", filepath.Base(path))
	}
}
