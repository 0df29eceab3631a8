package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
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

// A scripted store answers the next Applies as it is told, and the others truthfully. It counts those that it confirmed.
type scripted struct {
	store.Store
	mu        sync.Mutex
	answers   []error // ErrUnknown and ErrUnconfirmed: it was made; ErrConflict: it was not
	forever   error   // of those after that, if it is not nil
	confirmed int
}

func (s *scripted) Notify(func(store.ID)) func() { return func() {} }

func (s *scripted) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	s.mu.Lock()
	answer := s.forever
	if len(s.answers) > 0 {
		answer, s.answers = s.answers[0], s.answers[1:]
	}
	s.mu.Unlock()
	if answer == store.ErrConflict {
		return answer
	}
	if err := s.Store.Apply(ctx, root, ops...); err != nil || answer != nil {
		return errors.Join(err, answer)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirmed++
	return nil
}

func (s *scripted) play(answers ...error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers, s.confirmed = answers, 0
}

// What is reported as done was confirmed by the store, once it was all there: to find it there is not enough.
func TestDoneMeansConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, err := keyring.Open(filepath.Join(t.TempDir(), "keys.json"), master)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := file.Sealed()
		if err != nil {
			t.Fatal(err)
		}
		for _, answers := range [][]error{
			{store.ErrUnknown}, {store.ErrUnconfirmed}, {store.ErrUnknown, store.ErrConflict}, {store.ErrUnconfirmed, store.ErrConflict},
			{store.ErrUnconfirmed, store.ErrUnknown}, {store.ErrUnknown, store.ErrConflict, store.ErrUnconfirmed},
		} {
			st := &scripted{Store: memstore.New()}
			r := shared(t, st)
			if _, err := r.Rotate(keyring.MAC); err != nil {
				t.Fatal(err)
			}
			time.Sleep(keyring.Lead)
			do := map[string]func() error{
				"Rotate":        func() error { return second(r.Rotate(keyring.CSRF)) },
				"SetState":      func() error { return r.SetState(keyring.MAC, 1, keyring.Distrusted) },
				"RotateSigning": func() error { return second(r.RotateSigning(jwt.EdDSA, time.Now(), 0, time.Hour)) },
				"EnsureSigning": func() error { return second(r.EnsureSigning(jwt.ES256, time.Now())) },
				"RetireSigning": func() error { return second(r.RetireSigning(signerID(t, r, jwt.EdDSA, time.Now()), time.Now())) },
				"OpenShared": func() error {
					first := &scripted{Store: memstore.New(), answers: answers}
					shared(t, first)
					st.confirmed = first.confirmed
					return nil
				},
				"PlaceShared": func() error {
					first := &scripted{Store: memstore.New(), answers: answers}
					err := keyring.PlaceShared(t.Context(), first, sealed, master)
					st.confirmed = first.confirmed
					return err
				},
			}
			for name, f := range do {
				st.play(answers...)
				if err := f(); err != nil || st.confirmed != 1 {
					t.Errorf("%s after %v: %v, %d confirmed; want 1", name, answers, err, st.confirmed)
				}
			}
		}
	})
}

// Who never gets a confirmation never says done; and a second try, which finds everything in its place, neither.
func TestNeverConfirmed(t *testing.T) {
	for _, answer := range []error{store.ErrUnknown, store.ErrUnconfirmed} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			if r, err := keyring.OpenShared(ctx, &scripted{Store: memstore.New(), forever: answer}, master, keyring.SharedOptions{}); !errors.Is(err, keyring.ErrUnavailable) {
				t.Errorf("OpenShared after %v: %v, %v", answer, r, err)
			}
			st := &scripted{Store: memstore.New()}
			r := shared(t, st)
			if _, err := r.Rotate(keyring.MAC); err != nil {
				t.Fatal(err)
			}
			time.Sleep(keyring.Lead)
			sealed, err := r.Sealed()
			if err != nil {
				t.Fatal(err)
			}
			if err := keyring.PlaceShared(ctx, &scripted{Store: memstore.New(), forever: answer}, sealed, master); !errors.Is(err, keyring.ErrUnavailable) {
				t.Errorf("PlaceShared after %v: %v", answer, err)
			}
			st.forever = answer
			for range 2 {
				if err := r.SetState(keyring.MAC, 1, keyring.Distrusted); !errors.Is(err, keyring.ErrUnavailable) {
					t.Errorf("SetState after %v: %v, want ErrUnavailable", answer, err)
				}
				if _, err := r.EnsureSigning(jwt.ES256, time.Now()); !errors.Is(err, keyring.ErrUnavailable) {
					t.Errorf("EnsureSigning after %v: %v, want ErrUnavailable", answer, err)
				}
			}
			st.forever = nil
			st.play()
			other := shared(t, st)
			if err := other.SetState(keyring.MAC, 1, keyring.Distrusted); err != nil || st.confirmed != 1 {
				t.Errorf("the same on another node: %v, %d confirmed", err, st.confirmed)
			}
		})
	}
}

// A store with records of any tenant gets no fresh keys; one with what is never sealed does.
func TestKeysAreNeeded(t *testing.T) {
	mia := store.NewRootID(store.NoBucket, [14]byte{1}, 7, "mia")
	note := store.SubjectID(0, "\x00admin key")
	for name, c := range map[string]struct {
		rec    *store.Record
		needed bool
	}{
		"a session of tenant 7": {&store.Record{ID: mia, Kind: 's', Tenant: 7, Subject: "mia", Version: 1}, true},
		"a subject":             {&store.Record{ID: store.SubjectID(7, "mia"), Kind: 'e', Tenant: 7, Subject: "mia", Version: 1}, true},
		"the admin key's note":  {&store.Record{ID: note, Kind: 'n', Version: 1}, false},
	} {
		st := memstore.New()
		if err := st.Apply(t.Context(), c.rec.ID, store.Put(c.rec, 0)); err != nil {
			t.Fatal(err)
		}
		if needed, err := keyring.Needed(t.Context(), st); err != nil || needed != c.needed {
			t.Errorf("%s: keys are needed %v, %v", name, needed, err)
		}
		r, err := keyring.OpenShared(t.Context(), st, master, keyring.SharedOptions{})
		if errors.Is(err, keyring.ErrNoRing) != c.needed || (err == nil) == c.needed {
			t.Errorf("%s: OpenShared: %v", name, err)
		}
		if err == nil {
			r.Close()
		}
		st.Close()
		if _, err := keyring.Needed(t.Context(), st); !errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("a store that does not answer: %v", err)
		}
	}
}

// rollback is what a store looks like that fell back to the record, as a failover or a restore leaves it behind.
func rollback(t *testing.T, rec *store.Record) *memstore.Store {
	t.Helper()
	st := memstore.New()
	if err := load(st, rec); err != nil {
		t.Fatal(err)
	}
	return st
}

// A store that forgot that a key was distrusted or retired, and the key that came after it, is told again by whoever
// knows. All nodes have one ring afterwards, and the tokens of the key that was lost are good.
func TestRolledBackRingHeals(t *testing.T) {
	for name, meanwhile := range map[string]func(t *testing.T, other *keyring.Ring, l *scripted){
		"alone":    func(*testing.T, *keyring.Ring, *scripted) {},
		"conflict": func(t *testing.T, _ *keyring.Ring, l *scripted) { l.play(store.ErrConflict, store.ErrUnknown) },
		"the other one rotates at once": func(t *testing.T, other *keyring.Ring, _ *scripted) {
			if _, err := other.Rotate(keyring.MAC); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := memstore.New()
				servers := &switchable{Store: st}
				l := &scripted{Store: servers}
				a := shared(t, l)
				start := record(t, st)
				if _, err := a.Rotate(keyring.MAC); err != nil {
					t.Fatal(err)
				}
				time.Sleep(keyring.Lead + time.Second)
				if err := a.SetState(keyring.MAC, 1, keyring.Distrusted); err != nil {
					t.Fatal(err)
				}
				stolen := signerID(t, a, jwt.EdDSA, time.Now())
				if _, err := a.RetireSigning(stolen, time.Now()); err != nil {
					t.Fatal(err)
				}
				tok, kid := token(t, a), signerID(t, a, jwt.EdDSA, time.Now())
				servers.to(rollback(t, start))
				b := shared(t, servers)
				meanwhile(t, b, l)
				time.Sleep(keyring.Reread + 3*time.Second)
				synctest.Wait()
				if a.Err() != nil || b.Err() != nil {
					t.Errorf("errors %v and %v", a.Err(), b.Err())
				}
				ka, kb := a.Active(keyring.MAC), b.Active(keyring.MAC)
				if ka.ID != 2 || kb.ID != 2 || *(*[32]byte)(ka.Secret()) != *(*[32]byte)(kb.Secret()) {
					t.Errorf("two rings: %v and %v", ka, kb)
				}
				if k, _ := b.Key(keyring.MAC, 1); k.State != keyring.Distrusted {
					t.Errorf("the other node has %v", k)
				}
				if got := trust(opaque.NewCodec(b), &tok); name != "the other one rotates at once" && got != opaque.Genuine {
					t.Errorf("a token by the key that was lost: %v", got)
				}
				if made := token(t, a); trust(opaque.NewCodec(b), &made) != opaque.Genuine {
					t.Error("one node does not take the other's tokens")
				}
				if publishes(b, stolen, time.Now()) || !publishes(b, kid, time.Now()) || signerID(t, b, jwt.EdDSA, time.Now()) != kid {
					t.Errorf("signing keys %v", b.SigningKeys())
				}
				if _, err := a.Rotate(keyring.MAC); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Until what was lost could be put back the ring says so.
func TestRolledBackRingThatCannotHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		servers := &switchable{Store: st}
		l := &scripted{Store: servers}
		a := shared(t, l)
		start := record(t, st)
		if _, err := a.Rotate(keyring.MAC); err != nil {
			t.Fatal(err)
		}
		time.Sleep(keyring.Lead + time.Second)
		if err := a.SetState(keyring.MAC, 1, keyring.Dead); err != nil {
			t.Fatal(err)
		}
		l.mu.Lock()
		l.forever = store.ErrConflict
		l.mu.Unlock()
		servers.to(rollback(t, start))
		time.Sleep(keyring.Reread + time.Second)
		if err := a.Err(); !errors.Is(err, keyring.ErrRolledBack) || !errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("Err: %v, want ErrRolledBack and ErrUnavailable", err)
		}
		if err := a.SetState(keyring.MAC, 1, keyring.Dead); err == nil {
			t.Error("a change is said to be made that the store does not have")
		}
		if _, err := a.Lookup(keyring.MAC, 1); !errors.Is(err, keyring.ErrNoKey) || a.Active(keyring.MAC).ID != 2 {
			t.Errorf("a dead key came back: %v", err)
		}
		l.mu.Lock()
		l.forever = nil
		l.mu.Unlock()
		time.Sleep(2 * time.Second)
		if err := a.Err(); err != nil {
			t.Error(err)
		}
		if k := shared(t, servers).Active(keyring.MAC); k.ID != 2 {
			t.Errorf("a node that starts on it makes things with %v", k)
		}
	})
}

// A stalled store answers no Get until it goes on.
type stalled struct {
	store.Store
	on atomic.Bool
}

func (s *stalled) Notify(func(store.ID)) func() { return func() {} }

func (s *stalled) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if s.on.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Store.Get(ctx, ids...)
}

// A token by another node's new key is genuine or not known to be, at whatever moment the store comes back: one look
// decides.
func TestGenuineTokenIsNeverForged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		a, s := shared(t, st), &stalled{Store: st}
		b := shared(t, s)
		codec := opaque.NewCodec(b)
		s.on.Store(true)
		if _, err := a.Rotate(keyring.MAC); err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Second)
		tok := token(t, a)
		var wg sync.WaitGroup
		for i := range 400 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Millisecond)
				began := time.Now()
				if got, err := codec.Verify(&tok); (err != nil) == (got == opaque.Genuine) || err != nil && !errors.Is(err, keyring.ErrUnavailable) {
					t.Errorf("after %v: %v, %v", began, got, err)
				}
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
		time.Sleep(2 * time.Second)
		s.on.Store(false)
		wg.Wait()
		if got, err := codec.Verify(&tok); err != nil || got != opaque.Genuine {
			t.Errorf("after the store is back: %v, %v", got, err)
		}
	})
}

// A node that cannot read the record does not go on taking a key for good that another node has retired.
func TestRetiredKeyOnADeafNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		a, s := shared(t, st), &stalled{Store: st}
		b := shared(t, s)
		if _, err := a.EnsureSigning(jwt.ES256, time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(keyring.Reread + time.Millisecond)
		s.on.Store(true)
		old, good := signerID(t, a, jwt.EdDSA, time.Now()), signerID(t, a, jwt.ES256, time.Now())
		if _, err := a.RetireSigning(old, time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * keyring.Reread)
		if _, err := b.PublicKey(good, time.Now()); err != nil {
			t.Errorf("a short outage: %v", err)
		}
		time.Sleep(keyring.Reread)
		for _, kid := range []string{old, good} {
			began := time.Now()
			if _, err := b.PublicKey(kid, time.Now()); !errors.Is(err, jwt.ErrUnavailable) || time.Since(began) != 0 {
				t.Errorf("a long outage: %v after %v, want jwt.ErrUnavailable at once", err, time.Since(began))
			}
		}
		s.on.Store(false)
		time.Sleep(2 * time.Second)
		if _, err := b.PublicKey(old, time.Now()); !errors.Is(err, jwt.ErrUnknownKey) {
			t.Errorf("the retired key afterwards: %v, want jwt.ErrUnknownKey", err)
		}
		if _, err := b.PublicKey(good, time.Now()); err != nil {
			t.Errorf("the good key afterwards: %v", err)
		}
	})
}

// No kid is unknown that another node signs with, also if it began this moment and the record has just been read.
func TestNewestKidIsKnown(t *testing.T) {
	for _, after := range []time.Duration{0, time.Millisecond, 500 * time.Millisecond, 999 * time.Millisecond} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := memstore.New()
				a, b := shared(t, &line{Store: st, deaf: true}), shared(t, &line{Store: st, deaf: true})
				time.Sleep(keyring.Reread)
				synctest.Wait()
				time.Sleep(after)
				k, err := a.RetireSigning(signerID(t, a, jwt.EdDSA, time.Now()), time.Now())
				if err != nil {
					t.Fatal(err)
				}
				first, err := a.EnsureSigning(jwt.ES256, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				for _, kid := range []string{k.ID, first.ID} {
					if _, err := b.PublicKey(kid, time.Now()); err != nil || time.Since(began) > time.Second {
						t.Errorf("%v after %v", err, time.Since(began))
					}
				}
			})
		})
	}
}

// slow is a store whose Get takes a while, and tells what stood there when it began.
type slow struct {
	store.Store
	takes atomic.Int64
}

func (s *slow) Notify(func(store.ID)) func() { return func() {} }

func (s *slow) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	rs, err := s.Store.Get(ctx, ids...)
	time.Sleep(time.Duration(s.takes.Load()))
	return rs, err
}

// A read that was under way when the key was made has not seen it: it does not count.
func TestKidMadeDuringARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		s := &slow{Store: st}
		a, b := shared(t, st), shared(t, s)
		s.takes.Store(int64(600 * time.Millisecond))
		time.Sleep(keyring.Reread + 100*time.Millisecond) // a read is under way
		k, err := a.EnsureSigning(jwt.ES256, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.PublicKey(k.ID, time.Now()); err != nil {
			t.Error(err)
		}
	})
}

// Junk shares a read, does not wait long, and does not pile up; a caller that goes does not wait.
func TestJunkKidsDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{Store: memstore.New(), deaf: true}
		r := shared(t, l)
		synctest.Wait()
		before := l.gets.Load()
		var unknown, unavailable atomic.Int64
		var wg sync.WaitGroup
		for i := range 3000 {
			wg.Go(func() {
				began := time.Now()
				switch _, err := r.PublicKey(fmt.Sprint("junk", i), time.Now()); {
				case errors.Is(err, jwt.ErrUnknownKey):
					unknown.Add(1)
				case errors.Is(err, jwt.ErrUnavailable) && time.Since(began) == 0:
					unavailable.Add(1)
				default:
					t.Errorf("%v after %v", err, time.Since(began))
				}
				if time.Since(began) > time.Second {
					t.Errorf("it took %v", time.Since(began))
				}
			})
		}
		wg.Wait()
		if u, n := unknown.Load(), unavailable.Load(); u != 1000 || n != 2000 {
			t.Errorf("%d waited and %d were sent away, want 1000 and 2000", u, n)
		}
		if n := l.gets.Load() - before; n != 1 {
			t.Errorf("%d reads, want 1", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		began := time.Now()
		if _, err := r.KeySet(nil).Key(ctx, "junk"); !errors.Is(err, jwt.ErrUnavailable) || time.Since(began) > 10*time.Millisecond {
			t.Errorf("a caller that goes: %v after %v", err, time.Since(began))
		}
	})
}
