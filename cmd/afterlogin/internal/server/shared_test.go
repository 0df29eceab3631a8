package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// A common store is a memstore that servers share, with what a test wants to have heard from it.
type common struct {
	*memstore.Store
	mu    sync.Mutex
	heard time.Duration // ago
	never int           // this partition was never heard from; 0: none
	skew  time.Duration
	lost  int // answers of Apply that are lost
	// unconfirmed is how many Applies are answered with ErrUnconfirmed after they were made; confirmed counts the others.
	unconfirmed, confirmed int
}

func (c *common) Heard(partition int) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.never != 0 && partition == c.never {
		return time.Time{}
	}
	return time.Now().Add(-c.heard)
}

func (c *common) Feed() store.Feed {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := store.Feed{Failures: 3, Gaps: 2, Skew: c.skew}
	f.Took(3 * time.Millisecond)
	f.Took(3 * time.Second)
	return f
}

func (c *common) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	err := c.Store.Apply(ctx, root, ops...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.lost > 0 {
		c.lost--
		return store.ErrUnknown
	}
	if err == nil && c.unconfirmed > 0 {
		c.unconfirmed--
		return store.ErrUnconfirmed
	}
	if err == nil {
		c.confirmed++
	}
	return err
}

func (c *common) Writable() error { return nil }
func (c *common) Close() error    { return nil } // the other servers go on

var sharedMaster = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{5}, keyring.KeySize))

// node opens a server on the store with a data directory of its own.
func node(t *testing.T, st *common, dir string, change ...func(*Options)) (*Server, error) {
	t.Helper()
	c := settings(dir)
	c.Store, c.MasterKey = "redis://store.test:6379", sharedMaster
	o := Options{Config: c, Logger: NewLogger(&buffer{}, "debug", true), store: st}
	for _, f := range change {
		f(&o)
	}
	s, err := Open(t.Context(), o)
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

func mustNode(t *testing.T, st *common, dir string, change ...func(*Options)) *Server {
	t.Helper()
	s, err := node(t, st, dir, change...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func works(s *Server, key string) bool {
	resp, _ := ask(s, "GET", "/v1/api-keys", key, "")
	return resp.StatusCode == http.StatusOK
}

func TestAdminKeyOfTwoServers(t *testing.T) {
	st := &common{Store: memstore.New()}
	one, two, three := t.TempDir(), t.TempDir(), t.TempDir()
	a := mustNode(t, st, one)
	key := adminKey(t, one)
	b := mustNode(t, st, two)
	if _, err := os.Stat(filepath.Join(two, adminKeyFile)); err == nil || !strings.HasPrefix(b.AdminKey, "kept elsewhere") {
		t.Errorf("the second server made an admin key, too: %s", b.AdminKey)
	}
	if !works(a, key) || !works(b, key) {
		t.Error("the first server's key does not work on both")
	}
	// Again, and where the first one's directory is lost.
	a.Close()
	mustNode(t, st, one)
	if adminKey(t, one) != key || !works(b, key) {
		t.Error("a restart made another key")
	}
	// Somebody asks the second for a new one.
	b.Close()
	b = mustNode(t, st, two, func(o *Options) { o.NewAdminKey = true })
	newer := adminKey(t, two)
	if newer == key || works(b, key) || !works(b, newer) {
		t.Error("--new-admin-key on the second server")
	}
	// The key was ended for good, and the store has forgotten it: nobody makes one.
	for s, err := range b.authority.Sessions(t.Context(), afterlogin.Query{Kind: afterlogin.KindAPIKey}) {
		if err != nil {
			t.Fatal(err)
		}
		if err := b.authority.Revoke(t.Context(), s.ID, afterlogin.ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Purge(t.Context(), store.BucketOf(time.Now().Add(10*365*24*time.Hour).UnixMilli())); err != nil {
		t.Fatal(err)
	}
	if mustNode(t, st, three); fileExists(filepath.Join(three, adminKeyFile)) {
		t.Error("a third server made a key after it was ended")
	}
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Of servers that start at once on an empty store one makes the keys, and one the admin key.
func TestFirstStartOfManyServers(t *testing.T) {
	for range 5 {
		st := &common{Store: memstore.New(), lost: 3}
		var wg sync.WaitGroup
		servers, dirs := make([]*Server, 4), make([]string, 4)
		for i := range servers {
			dirs[i] = t.TempDir()
			wg.Go(func() {
				var err error
				if servers[i], err = node(t, st, dirs[i], func(o *Options) { o.Config.Issuer = "https://auth.example.com" }); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		var keys []string
		for i, dir := range dirs {
			if fileExists(filepath.Join(dir, adminKeyFile)) {
				keys = append(keys, adminKey(t, dir))
			}
			servers[i].data.keys.Refresh()
			if servers[i].data.keys.Installation() != servers[0].data.keys.Installation() || len(servers[i].data.keys.SigningKeys()) != 1 {
				t.Error("the servers have other keys, or two to sign with")
			}
		}
		live, _, err := adminKeys(t.Context(), servers[0].authority)
		if err != nil || len(keys) != 1 || len(live) != 1 || !works(servers[3], keys[0]) {
			t.Fatalf("%d admin keys in files, %d in the store, %v; want one, which works", len(keys), len(live), err)
		}
	}
}

// A start that was cut off while it made the admin key makes it anew, and only that one.
func TestAdminKeyCutOff(t *testing.T) {
	st := &common{Store: memstore.New()}
	one, two := t.TempDir(), t.TempDir()
	a := mustNode(t, st, one)
	lost := adminKey(t, one)
	claim, _, err := a.data.note(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	// As a crash leaves it behind that comes between the key and its file.
	for dir, text := range map[string]string{one: claimPrefix + claim, two: claimPrefix + "ANOTHERCLAIM"} {
		if err := os.WriteFile(filepath.Join(dir, adminKeyFile), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if b := mustNode(t, st, two); fileExists(filepath.Join(two, adminKeyFile)) || !works(b, lost) {
		t.Error("a server that was not first made a key or ended one")
	}
	a = mustNode(t, st, one)
	if key := adminKey(t, one); key == lost || works(a, lost) || !works(a, key) {
		t.Error("the key that nobody has was not replaced")
	}
}

// The note of the admin key is there when the store has confirmed it, not when somebody sees it there.
func TestNoteIsConfirmed(t *testing.T) {
	for _, c := range []*common{{lost: 1}, {unconfirmed: 1}, {lost: 2, unconfirmed: 2}} {
		c.Store = memstore.New()
		d := &data{store: c}
		if err := d.putNote(t.Context(), "claim", 0); err != nil || c.confirmed != 1 {
			t.Errorf("%v, %d confirmed; want 1", err, c.confirmed)
		}
		if claim, _, err := d.note(t.Context()); claim != "claim" || err != nil {
			t.Errorf("the note is %q, %v", claim, err)
		}
	}
	c := &common{Store: memstore.New(), unconfirmed: 1000}
	d := &data{store: c}
	if err := d.putNote(t.Context(), "claim", 0); !errors.Is(err, store.ErrUnconfirmed) {
		t.Errorf("never confirmed: %v", err)
	}
	c.unconfirmed, c.lost = 0, 1
	if err := d.putNote(t.Context(), "other", 0); !errors.Is(err, store.ErrConflict) {
		t.Errorf("over another's: %v", err)
	}
}

// What is wrong with the keys is not said to be the store's silence.
func TestUnready(t *testing.T) {
	for err, want := range map[error]string{
		fmt.Errorf("%w: %w: %w", keyring.ErrUnavailable, keyring.ErrRolledBack, store.ErrConflict): "distrusted or retired",
		keyring.ErrOtherRing:   "other keys",
		keyring.ErrUnavailable: "does not answer",
		errSkew:                "clock",
	} {
		if got := unready(err); !strings.Contains(got, want) {
			t.Errorf("%v: %q", err, got)
		}
	}
}

// An embedded store with sessions of a tenant, and without its key file, gets no fresh keys.
func TestKeyFileOfATenantIsMissing(t *testing.T) {
	dir := t.TempDir()
	s, _ := open(t, settings(dir), false)
	if _, err := s.authority.Issue(t.Context(), afterlogin.IssueRequest{Tenant: 7, Subject: "mia"}); err != nil {
		t.Fatal(err)
	}
	for k, err := range s.authority.Sessions(t.Context(), afterlogin.Query{Kind: afterlogin.KindAPIKey}) {
		if err != nil {
			t.Fatal(err)
		}
		if err := s.authority.Revoke(t.Context(), k.ID, afterlogin.ReasonAdministrator); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, keysFile)); err != nil {
		t.Fatal(err)
	}
	var setup *SetupError
	if _, err := Open(t.Context(), Options{Config: settings(dir), Logger: NewLogger(&buffer{}, "debug", true)}); !errors.As(err, &setup) || !strings.Contains(err.Error(), keysFile+" is missing") {
		t.Errorf("%v", err)
	}
}

func TestOneServerInADataDirectory(t *testing.T) {
	st := &common{Store: memstore.New()}
	dir := t.TempDir()
	s := mustNode(t, st, dir)
	var setup *SetupError
	if _, err := node(t, st, dir); !errors.As(err, &setup) || !strings.Contains(setup.Hint, "directory of its own") {
		t.Errorf("a second server in the directory: %v", err)
	}
	s.Close()
	mustNode(t, st, dir)
}

func TestSharedKeysRefused(t *testing.T) {
	st := &common{Store: memstore.New()}
	mustNode(t, st, t.TempDir())
	other := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{6}, keyring.KeySize))
	embedded := t.TempDir()
	s, _ := open(t, settings(embedded), false)
	s.Close()
	used := &common{Store: memstore.New()}
	id := store.NewRootID(store.NoBucket, [14]byte{1}, 7, "mia")
	if err := used.Apply(t.Context(), id, store.Put(&store.Record{ID: id, Kind: 'k', Tenant: 7, Subject: "mia", Version: 1}, 0)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		st     *common
		change func(*config.Config)
		want   string // in the error
		hint   string
	}{
		"another master key":     {st, func(c *config.Config) { c.MasterKey = other }, "another master key", "MASTER_KEY_FILE"},
		"no master key":          {st, func(c *config.Config) { c.MasterKey = "" }, "master.key is missing", "all servers on a store need one master key"},
		"an embedded store's":    {&common{Store: memstore.New()}, func(c *config.Config) { c.Data, c.MasterKey = embedded, "" }, "embedded store", "store migrate"},
		"records and no keys":    {used, func(*config.Config) {}, "records and no keys", "backup"},
		"a store that is closed": {closedStore(), func(*config.Config) {}, "read the keys", ""},
	} {
		dir := t.TempDir()
		_, err := node(t, c.st, dir, func(o *Options) { c.change(&o.Config) })
		var setup *SetupError
		if err == nil || !strings.Contains(err.Error(), c.want) || c.hint != "" && (!errors.As(err, &setup) || !strings.Contains(setup.Hint, c.hint)) {
			t.Errorf("%s: %v", name, err)
		}
		if fileExists(filepath.Join(dir, masterFile)) {
			t.Errorf("%s: a master key was made that opens nothing", name)
		}
	}
	if err := keyringIsUntouched(t, st); err != nil {
		t.Error(err)
	}
}

func keyringIsUntouched(t *testing.T, st *common) error {
	s, err := node(t, st, t.TempDir())
	if err == nil && s.data.keys.Active(keyring.MAC).ID != 1 {
		err = errors.New("the keys were changed")
	}
	return err
}

func closedStore() *common {
	st := memstore.New()
	st.Close()
	return &common{Store: st}
}

func TestReadyOnASharedStore(t *testing.T) {
	st := &common{Store: memstore.New()}
	s := mustNode(t, st, t.TempDir())
	check := func(name string, change func(), status int, reason string) {
		t.Helper()
		st.mu.Lock()
		change()
		st.mu.Unlock()
		resp, body := ask(s, "GET", "/readyz", "", "")
		if resp.StatusCode != status || !strings.Contains(body, reason) {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
		if resp, _ := ask(s, "GET", "/livez", "", ""); resp.StatusCode != 200 {
			t.Errorf("%s: livez %d", name, resp.StatusCode)
		}
	}
	check("healthy", func() {}, 200, "ready")
	check("heard a lease ago", func() { st.heard = store.Lease + store.Lease/2 }, 200, "ready")
	check("not heard for long", func() { st.heard = 3 * store.Lease }, 503, "does not answer")
	check("one partition never heard from", func() { st.heard, st.never = 0, 1023 }, 503, "does not answer")
	check("the clock ahead", func() { st.never, st.skew = 0, 2100*time.Millisecond }, 503, "clock differs")
	check("the clock behind", func() { st.skew = -3 * time.Second }, 503, "clock differs")
	check("a little", func() { st.skew = time.Second }, 200, "ready")
	st.Store.Close()
	check("closed", func() {}, 503, "does not answer")
}

func TestMetrics(t *testing.T) {
	st := &common{Store: memstore.New(), skew: 1500 * time.Millisecond}
	s := mustNode(t, st, t.TempDir())
	resp, body := ask(s, "GET", "/metrics", "", "")
	if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("%d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	for _, want := range []string{
		"afterlogin_cache_hits_total ", "afterlogin_cache_misses_total ", "afterlogin_lease_losses_total 0\n",
		"afterlogin_feed_changes_total 2\n", "afterlogin_feed_failures_total 3\n", "afterlogin_feed_gaps_total 2\n",
		"afterlogin_store_clock_skew_seconds 1.5\n",
		"afterlogin_revocation_lag_seconds_bucket{le=\"0.002\"} 0\n", "afterlogin_revocation_lag_seconds_bucket{le=\"0.005\"} 1\n",
		"afterlogin_revocation_lag_seconds_bucket{le=\"2\"} 1\n", "afterlogin_revocation_lag_seconds_bucket{le=\"+Inf\"} 2\n",
		"afterlogin_revocation_lag_seconds_sum 3.003\n", "afterlogin_revocation_lag_seconds_count 2\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing in\n%s", want, body)
		}
	}
	if resp, _ := ask(s, "POST", "/metrics", "", "{}"); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", resp.StatusCode)
	}
	alone, _ := open(t, settings(t.TempDir()), false)
	defer alone.Close()
	if _, body := ask(alone, "GET", "/metrics", "", ""); strings.Contains(body, "feed") || !strings.Contains(body, "afterlogin_cache_hits_total") {
		t.Errorf("of an embedded store:\n%s", body)
	}
}

// Servers that start at once with the same configuration file all enrol its clients, and agree.
func TestEnrolOnManyServers(t *testing.T) {
	st := &common{Store: memstore.New()}
	_, hash := clients.NewSecret(time.Time{})
	with := func(names ...string) func(*Options) {
		return func(o *Options) {
			o.Config.Issuer = "https://auth.example.com"
			for _, n := range names {
				o.Config.Clients = append(o.Config.Clients, config.Client{ID: n, Settings: clients.Settings{
					Name: n, Auth: clients.Secret, Secrets: []clients.SecretHash{hash}, GrantTypes: []string{clients.ClientCredentials}, FromFile: true,
				}})
			}
		}
	}
	all := func(change func(*Options)) (servers [6]*Server) {
		t.Helper()
		var wg sync.WaitGroup
		for i := range servers {
			wg.Go(func() {
				var err error
				if servers[i], err = node(t, st, t.TempDir(), change); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
		return servers
	}
	check := func(s *Server, want map[string]bool) {
		t.Helper()
		got := make(map[string]bool)
		for reg, err := range s.authority.Clients(t.Context(), 0) {
			if err != nil {
				t.Fatal(err)
			}
			c, err := clients.Parse(reg.Settings)
			if err != nil {
				t.Fatal(err)
			}
			got[reg.Client] = !c.Disabled
		}
		if len(got) != len(want) {
			t.Errorf("clients %v, want %v", got, want)
		}
		for n, good := range want {
			if got[n] != good {
				t.Errorf("clients %v, want %v", got, want)
			}
		}
	}
	servers := all(with("shop", "app"))
	check(servers[0], map[string]bool{"shop": true, "app": true})
	servers = all(with("shop", "desk")) // one goes, one comes
	check(servers[5], map[string]bool{"shop": true, "app": false, "desk": true})
	servers = all(with("app"))
	check(servers[1], map[string]bool{"shop": false, "app": true, "desk": false})
	if err := servers[0].authority.RemoveClient(t.Context(), 0, "app"); err != nil {
		t.Fatal(err)
	}
	if _, err := node(t, st, t.TempDir(), with("app")); err == nil || !strings.Contains(err.Error(), "it was removed") {
		t.Errorf("a client that was removed: %v", err)
	}
}
