package keyring_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// A line is one node's connection to a store: it can be cut, deaf, or lose answers.
type line struct {
	store.Store
	deaf bool // Notify says nothing
	gets atomic.Int64

	mu    sync.Mutex
	cut   error        // of Get and Apply
	apply func() error // what an Apply answers after it has happened; nil: the truth
}

func (l *line) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	l.gets.Add(1)
	l.mu.Lock()
	cut := l.cut
	l.mu.Unlock()
	if cut != nil {
		return nil, cut
	}
	return l.Store.Get(ctx, ids...)
}

func (l *line) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	l.mu.Lock()
	cut, apply := l.cut, l.apply
	l.mu.Unlock()
	if cut != nil {
		return cut
	}
	err := l.Store.Apply(ctx, root, ops...)
	if err == nil && apply != nil {
		return apply()
	}
	return err
}

func (l *line) Notify(f func(store.ID)) func() {
	if l.deaf {
		return func() {}
	}
	return l.Store.Notify(f)
}

func (l *line) set(cut error, apply func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.apply = cut, apply
}

var errCut = errors.New("connection refused")

// shared opens a ring on the store, and closes it when the test ends.
func shared(t testing.TB, st store.Store) *keyring.Ring {
	t.Helper()
	r, err := keyring.OpenShared(t.Context(), st, master, keyring.SharedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// times returns an answer that is err the first n times, and the truth after that.
func times(n int64, err error) func() error {
	var left atomic.Int64
	left.Store(n)
	return func() error {
		if left.Add(-1) >= 0 {
			return err
		}
		return nil
	}
}

var allPurposes = []keyring.Purpose{keyring.MAC, keyring.Rotation, keyring.Sealing, keyring.CSRF}

func TestOneRotatesAllFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		rings := []*keyring.Ring{shared(t, st), shared(t, st), shared(t, st)}
		for i, p := range allPurposes {
			made, err := rings[i%3].Rotate(p)
			if err != nil || made.ID != 2 || made.State != keyring.Next {
				t.Fatalf("%s: %v, %v", p, made, err)
			}
			if _, err := rings[(i+1)%3].Rotate(p); !errors.Is(err, keyring.ErrRotationPending) {
				t.Errorf("a second rotation of %s: %v, want ErrRotationPending", p, err)
			}
			synctest.Wait()
			for j, r := range rings {
				if k, err := r.Lookup(p, 2); err != nil || !bytes.Equal(k.Secret(), made.Secret()) {
					t.Errorf("node %d does not have the next %s key: %v", j, p, err)
				}
				if id := r.Active(p).ID; id != 1 {
					t.Errorf("node %d makes things with %s key %d before the others can be sure to know it", j, p, id)
				}
			}
		}
		if err := rings[0].SetState(keyring.MAC, 1, keyring.Distrusted); err == nil {
			t.Error("the key that is active still was distrusted")
		}
		time.Sleep(keyring.Lead)
		synctest.Wait()
		for j, r := range rings {
			for _, p := range allPurposes {
				if k := r.Active(p); k.ID != 2 {
					t.Errorf("node %d makes things with %s key %d, %v after the rotation", j, p, k.ID, keyring.Lead)
				}
			}
		}
		if err := rings[1].SetState(keyring.MAC, 1, keyring.Distrusted); err != nil {
			t.Fatal(err)
		}
		if err := rings[2].SetState(keyring.CSRF, 1, keyring.Dead); err != nil {
			t.Fatal(err)
		}
		kid, err := rings[2].RotateSigning(jwt.EdDSA, time.Now(), 15*time.Minute, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for j, r := range rings {
			if k, _ := r.Key(keyring.MAC, 1); k.State != keyring.Distrusted {
				t.Errorf("node %d has %v, which was distrusted", j, k)
			}
			if _, err := r.Lookup(keyring.CSRF, 1); !errors.Is(err, keyring.ErrNoKey) {
				t.Errorf("node %d gives out a dead key", j)
			}
			if !publishes(r, kid.ID, time.Now()) {
				t.Errorf("node %d does not publish the next signing key", j)
			}
		}
		if again := shared(t, st); again.Installation() != rings[0].Installation() || again.Active(keyring.MAC).ID != 2 || len(again.SigningKeys()) != 2 {
			t.Error("a node that starts later has other keys")
		}
	})
}

func TestDeafNodeFollowsWithinReread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		a, b := shared(t, st), shared(t, &line{Store: st, deaf: true})
		synctest.Wait()
		if _, err := a.Rotate(keyring.MAC); err != nil {
			t.Fatal(err)
		}
		if _, err := a.RotateSigning(jwt.EdDSA, time.Now(), 15*time.Minute, time.Hour); err != nil {
			t.Fatal(err)
		}
		time.Sleep(keyring.Reread)
		synctest.Wait()
		if n := len(b.Keys(keyring.MAC)); n != 2 {
			t.Errorf("%d MAC keys after %v, want 2", n, keyring.Reread)
		}
		if n := len(b.SigningKeys()); n != 2 {
			t.Errorf("%d signing keys after %v, want 2", n, keyring.Reread)
		}
	})
}

func TestUnknownKeyIsLookedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		l := &line{Store: st, deaf: true}
		a, b := shared(t, st), shared(t, l)
		time.Sleep(2 * time.Second) // into the middle of Reread, and behind the last look
		made, err := a.Rotate(keyring.Sealing)
		if err != nil {
			t.Fatal(err)
		}
		old, err := a.Signer(jwt.EdDSA, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		kid, err := a.RetireSigning(old.ID(), time.Now()) // another signs at once
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		before := l.gets.Load()
		for range 50 {
			wg.Go(func() {
				if k, err := b.Lookup(keyring.Sealing, 2); err != nil || !bytes.Equal(k.Secret(), made.Secret()) {
					t.Errorf("%v, %v", k, err)
				}
				if _, err := b.PublicKey(kid.ID, time.Now()); err != nil {
					t.Errorf("signing key: %v", err)
				}
			})
		}
		wg.Wait()
		if n := l.gets.Load() - before; n != 1 {
			t.Errorf("%d reads for 100 lookups at once, want 1", n)
		}
		for range 100 { // junk does not become reads
			wg.Go(func() {
				if _, err := b.Lookup(keyring.MAC, 77); !errors.Is(err, keyring.ErrNoKey) {
					t.Errorf("a key that there is not: %v", err)
				}
				if _, err := b.PublicKey("junk", time.Now()); !errors.Is(err, jwt.ErrUnknownKey) {
					t.Errorf("a kid that there is not: %v", err)
				}
			})
		}
		wg.Wait()
		if n := l.gets.Load() - before; n != 2 {
			t.Errorf("%d reads for 200 more within a second, want 2 in all", n)
		}
	})
}

func TestStoreOfKeysUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{Store: memstore.New()}
		r := shared(t, l)
		l.set(errCut, nil)
		time.Sleep(time.Minute)
		if r.Active(keyring.MAC).ID != 1 {
			t.Error("the known keys are gone")
		}
		if _, err := r.Lookup(keyring.MAC, 1); err != nil {
			t.Errorf("a key that is known: %v", err)
		}
		if _, err := r.Lookup(keyring.MAC, 2); !errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("a key that may be there: %v, want ErrUnavailable", err)
		}
		if _, err := r.PublicKey("other", time.Now()); !errors.Is(err, jwt.ErrUnavailable) {
			t.Errorf("a kid that may be there: %v, want jwt.ErrUnavailable", err)
		}
		if err := r.Err(); !errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("Err: %v", err)
		}
		if _, err := r.Rotate(keyring.MAC); !errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("Rotate: %v, want ErrUnavailable", err)
		}
		l.set(nil, nil)
		time.Sleep(keyring.Reread)
		synctest.Wait()
		if _, err := r.Lookup(keyring.MAC, 2); !errors.Is(err, keyring.ErrNoKey) {
			t.Errorf("after the store is back: %v, want ErrNoKey", err)
		}
		if r.Err() != nil {
			t.Error(r.Err())
		}
	})
}

// A change whose answer was lost is made once, not twice, and not reported as failed.
func TestLostAnswers(t *testing.T) {
	for _, lost := range []error{store.ErrUnknown, store.ErrUnconfirmed} {
		t.Run(lost.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := memstore.New()
				l := &line{Store: st}
				l.set(nil, times(2, lost))
				r, other := shared(t, l), shared(t, st)
				for _, do := range []func() error{
					func() error { return second(r.Rotate(keyring.MAC)) },
					func() error { return second(r.RotateSigning(jwt.EdDSA, time.Now(), 15*time.Minute, time.Hour)) },
					func() error { return second(r.EnsureSigning(jwt.ES256, time.Now())) },
					func() error { return second(r.RetireSigning(signerID(t, r, jwt.ES256, time.Now()), time.Now())) },
					func() error { time.Sleep(keyring.Lead); return r.SetState(keyring.MAC, 1, keyring.Distrusted) },
				} {
					l.set(nil, times(2, lost))
					if err := do(); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				if n := len(other.Keys(keyring.MAC)); n != 2 {
					t.Errorf("%d MAC keys, want 2", n)
				}
				if k, _ := other.Key(keyring.MAC, 1); k.State != keyring.Distrusted {
					t.Errorf("MAC %v", k)
				}
				if n := len(other.SigningKeys()); n != 4 { // EdDSA and its next, ES256 retired and the one in its place
					t.Errorf("%d signing keys, want 4: %v", n, other.SigningKeys())
				}
				l.set(nil, func() error { return lost })
				if _, err := r.Rotate(keyring.CSRF); !errors.Is(err, keyring.ErrUnavailable) {
					t.Errorf("seen to be made, and never confirmed: %v, want ErrUnavailable", err)
				}
				l.set(nil, nil)
			})
		})
	}
}

func TestTwoFirstStarts(t *testing.T) {
	for _, lost := range []error{nil, store.ErrUnknown, store.ErrUnconfirmed} {
		st := memstore.New()
		var wg sync.WaitGroup
		rings := make([]*keyring.Ring, 8)
		for i := range rings {
			l := &line{Store: st}
			if lost != nil {
				l.set(nil, times(1, lost))
			}
			wg.Go(func() {
				rings[i] = shared(t, l)
				if _, err := rings[i].EnsureSigning(jwt.ES256, time.Now()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		want, err := keyring.ReadShared(t.Context(), st)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rings {
			r.Refresh()
			if r.Installation() != rings[0].Installation() || !bytes.Equal(r.Active(keyring.MAC).Secret(), rings[0].Active(keyring.MAC).Secret()) {
				t.Errorf("%v: two rings on one store", lost)
			}
			if id := signerID(t, r, jwt.ES256, time.Now()); id != signerID(t, rings[0], jwt.ES256, time.Now()) || strings.Count(string(want), `"algorithm":"ES256"`) != 1 {
				t.Errorf("%v: two first signing keys", lost)
			}
		}
	}
}

func TestOpenSharedRefuses(t *testing.T) {
	st := memstore.New()
	shared(t, st)
	if _, err := keyring.OpenShared(t.Context(), st, bytes.Repeat([]byte{8}, 32), keyring.SharedOptions{}); !errors.Is(err, keyring.ErrWrongMaster) {
		t.Errorf("another master key: %v", err)
	}
	if _, err := keyring.OpenShared(t.Context(), st, master[:5], keyring.SharedOptions{}); err == nil {
		t.Error("a short master key is accepted")
	}
	if _, err := keyring.OpenShared(t.Context(), &line{Store: st, cut: errCut}, master, keyring.SharedOptions{}); !errors.Is(err, keyring.ErrUnavailable) {
		t.Errorf("a store that does not answer: %v", err)
	}
	used := memstore.New()
	id := store.NewRootID(store.NoBucket, [14]byte{1}, 0, "mia")
	if err := used.Apply(t.Context(), id, store.Put(&store.Record{ID: id, Kind: 'k', Subject: "mia", Version: 1}, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.OpenShared(t.Context(), used, master, keyring.SharedOptions{}); !errors.Is(err, keyring.ErrNoRing) {
		t.Errorf("records and no keys: %v, want ErrNoRing", err)
	}
}

// record returns the ring's record, and puts one back as if the store had never been further.
func record(t *testing.T, st store.Store) *store.Record {
	t.Helper()
	rs, err := st.Get(t.Context(), store.SubjectID(0, "\x00keys"))
	if err != nil || rs[0] == nil {
		t.Fatal(rs, err)
	}
	return rs[0]
}

// A store that lost the newest change, as after a failover, is followed: all nodes must have one ring. But what was
// distrusted, dead or retired stays so.
func TestStoreThatLostAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		r := shared(t, st)
		start := record(t, st)
		if _, err := r.Rotate(keyring.MAC); err != nil {
			t.Fatal(err)
		}
		lostKey, _ := r.Key(keyring.MAC, 2)
		swap := &switchable{Store: st}
		node := shared(t, swap)
		codec := opaque.NewCodec(node)
		time.Sleep(keyring.Lead)
		synctest.Wait()
		if tok := token(t, r); tok.KeyID != 2 || trust(codec, &tok) != opaque.Genuine {
			t.Fatalf("a token by key %d is not genuine", tok.KeyID)
		}

		back := memstore.New()
		if err := load(back, start); err != nil {
			t.Fatal(err)
		}
		swap.to(back)
		other := shared(t, back)
		made, err := other.Rotate(keyring.MAC) // same id and version, another key
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(keyring.Lead)
		synctest.Wait()
		k, err := node.Lookup(keyring.MAC, 2)
		if err != nil || !bytes.Equal(k.Secret(), made.Secret()) || bytes.Equal(k.Secret(), lostKey.Secret()) {
			t.Errorf("key 2 is not the store's: %v", err)
		}
		if tok := token(t, other); tok.KeyID != 2 || trust(codec, &tok) != opaque.Genuine {
			t.Errorf("a token by the key that took the id is not genuine (key %d)", tok.KeyID)
		}
		if tok := token(t, r); trust(codec, &tok) != opaque.Forged {
			t.Error("a token by the key that was lost is genuine still")
		}

		if err := node.SetState(keyring.MAC, 1, keyring.Distrusted); err != nil {
			t.Fatal(err)
		}
		behind := memstore.New()
		if err := load(behind, start); err != nil {
			t.Fatal(err)
		}
		swap.to(behind) // key 1 is active there
		time.Sleep(keyring.Reread)
		synctest.Wait()
		if k, _ := node.Key(keyring.MAC, 1); k.State != keyring.Distrusted || node.Err() != nil {
			t.Errorf("a distrusted key came back: %v, %v", k, node.Err())
		}
		if k, _ := shared(t, behind).Key(keyring.MAC, 1); k.State != keyring.Distrusted {
			t.Errorf("a node that starts on the store that lost it has %v", k)
		}

		empty := memstore.New()
		swap.to(empty)
		time.Sleep(2 * keyring.Reread)
		synctest.Wait()
		if err := node.Err(); err != nil {
			t.Error(err)
		}
		if late := shared(t, empty); late.Installation() != node.Installation() {
			t.Error("the keys were not put back into a store that was emptied")
		}
		foreign := memstore.New()
		shared(t, foreign)
		swap.to(foreign)
		time.Sleep(keyring.Reread)
		synctest.Wait()
		if !errors.Is(node.Err(), keyring.ErrOtherRing) || node.Installation() != other.Installation() {
			t.Errorf("another installation's keys: %v, want ErrOtherRing", node.Err())
		}
	})
}

// trust is what Verify says of a token whose key is known to be there or not.
func trust(c *opaque.Codec, tok *opaque.Token) opaque.Trust {
	got, err := c.Verify(tok)
	if err != nil {
		panic(err)
	}
	return got
}

// token returns a token that the ring's active key made.
func token(t *testing.T, r *keyring.Ring) opaque.Token {
	t.Helper()
	tok, err := opaque.Parse(opaque.NewCodec(r).Format(opaque.Token{Kind: 's', ID: store.NewRootID(1, [14]byte{}, 0, ""), Generation: 1}))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// load puts a record of any version into a store, as a restore does.
func load(st store.Store, rec *store.Record) error {
	for v := range rec.Version {
		r := rec.Clone()
		r.Version = v + 1
		if err := st.Apply(context.Background(), r.ID, store.Put(r, v)); err != nil {
			return err
		}
	}
	return nil
}

// switchable is a store whose server is exchanged.
type switchable struct {
	store.Store
	mu sync.Mutex
}

func (s *switchable) to(st store.Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Store = st
}

func (s *switchable) at() store.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store
}

func (s *switchable) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	return s.at().Get(ctx, ids...)
}

func (s *switchable) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	return s.at().Apply(ctx, root, ops...)
}

func TestPlace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.json")
	file, err := keyring.Open(path, master)
	if err != nil {
		t.Fatal(err)
	}
	st := memstore.New()
	if _, err := keyring.ReadShared(t.Context(), st); !errors.Is(err, keyring.ErrNoRing) {
		t.Errorf("ReadShared of nothing: %v", err)
	}
	place := func(want error) {
		t.Helper()
		sealed, err := file.Sealed()
		if err != nil {
			t.Fatal(err)
		}
		if err := keyring.PlaceShared(t.Context(), st, sealed, master); !errors.Is(err, want) {
			t.Fatalf("PlaceShared: %v, want %v", err, want)
		}
	}
	place(nil)
	place(nil) // again
	if _, err := file.Rotate(keyring.MAC); err != nil {
		t.Fatal(err)
	}
	place(nil) // the source has gone on
	r := shared(t, st)
	if r.Installation() != file.Installation() || r.Active(keyring.MAC).ID != 2 {
		t.Error("the keys are not those of the file")
	}
	if _, err := r.Rotate(keyring.CSRF); err != nil {
		t.Fatal(err)
	}
	place(nil) // the target has gone on, and has all of these: it stays
	if r.Refresh(); len(r.Keys(keyring.CSRF)) != 2 {
		t.Error("keys of the target were lost")
	}
	if _, err := file.Rotate(keyring.Sealing); err != nil {
		t.Fatal(err)
	}
	place(keyring.ErrOtherRing) // both have

	sealed, err := keyring.ReadShared(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	if err := keyring.PlaceFile(path, sealed, master); !errors.Is(err, keyring.ErrOtherRing) {
		t.Errorf("PlaceFile over a file with keys of its own: %v", err)
	}
	back := filepath.Join(dir, "back.json")
	for range 2 {
		if err := keyring.PlaceFile(back, sealed, master); err != nil {
			t.Fatal(err)
		}
	}
	if again, err := keyring.Open(back, master); err != nil || len(again.Keys(keyring.CSRF)) != 2 || again.Active(keyring.CSRF).ID != 1 {
		t.Errorf("the file made from the store: %v", err)
	}
	if err := keyring.PlaceFile(back, sealed, bytes.Repeat([]byte{9}, 32)); !errors.Is(err, keyring.ErrWrongMaster) {
		t.Errorf("another master key: %v", err)
	}
}

// A file of layout 2, which had no next keys, opens, and becomes layout 3 when it is written.
func TestLayout2(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	r, err := keyring.Open(path, master)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.Replace(text, []byte(`"layout": 3`), []byte(`"layout": 2`), 1)
	next := bytes.Replace(old, []byte(`"created"`), []byte(`"from": "2026-01-01T00:00:00Z", "created"`), 1)
	for name, c := range map[string]struct {
		text []byte
		good bool
	}{"layout 2": {old, true}, "a next key in it": {next, false}} {
		if err := os.WriteFile(path, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := keyring.Open(path, master)
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && again.Installation() != r.Installation() {
			t.Errorf("%s: another installation", name)
		}
	}
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err = keyring.Open(path, master); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Rotate(keyring.MAC); err != nil || r.Active(keyring.MAC).ID != 2 {
		t.Errorf("a file's key does not wait to be active: %v", err)
	}
	if text, err = os.ReadFile(path); err != nil || !bytes.Contains(text, []byte(`"layout": 3`)) {
		t.Error("not written as layout 3")
	}
}

// The time from which a next key makes things is sealed with it.
func TestNextKeyIsSealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		if _, err := shared(t, st).Rotate(keyring.MAC); err != nil {
			t.Fatal(err)
		}
		sealed, err := keyring.ReadShared(t.Context(), st)
		if err != nil {
			t.Fatal(err)
		}
		from := regexp.MustCompile(`"from":"20\d\d`)
		for name, text := range map[string][]byte{
			"another time": from.ReplaceAll(sealed, []byte(`"from":"1999`)),
			"no time":      regexp.MustCompile(`"from":"[^"]*",`).ReplaceAll(sealed, nil),
			"active":       bytes.Replace(sealed, []byte(`"next"`), []byte(`"active"`), 1),
		} {
			if bytes.Equal(text, sealed) {
				t.Fatalf("%s: nothing was changed", name)
			}
			if err := keyring.PlaceShared(t.Context(), memstore.New(), text, master); err == nil {
				t.Errorf("%s is accepted", name)
			}
		}
	})
}

func TestSharedRingIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shared(t, memstore.New())
		var err error
		n := 0
		for ; n < 300; n++ {
			if _, err = r.Rotate(keyring.MAC); err != nil {
				break
			}
			time.Sleep(keyring.Lead)
		}
		if !errors.Is(err, keyring.ErrTooManyKeys) || n < 200 {
			t.Errorf("rotation %d: %v, want ErrTooManyKeys", n, err)
		}
	})
}

func ExampleOpenShared() {
	st := memstore.New() // a store that many nodes share
	a, _ := keyring.OpenShared(context.Background(), st, master, keyring.SharedOptions{})
	defer a.Close()
	b, _ := keyring.OpenShared(context.Background(), st, master, keyring.SharedOptions{})
	defer b.Close()
	k, _ := a.Rotate(keyring.MAC)
	_, known := b.Key(keyring.MAC, k.ID)
	fmt.Println(k, known)
	// Output: key 2 (next) true
}
