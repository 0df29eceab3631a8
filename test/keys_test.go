package test

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// Three nodes share a ring through connections that fail, lose answers and lose notices. Whatever was answered is there,
// once, and all of them end with the same keys.
func TestSharedRingOnAFaultyStore(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			st := memstore.New()
			var master = bytes.Repeat([]byte{7}, keyring.KeySize)
			var rings []*keyring.Ring
			var lines []*storetest.Faulty
			for i := range uint64(3) {
				f := storetest.NewFaulty(st, storetest.Random(seed*3+i, 0.3, true))
				r, err := keyring.OpenShared(ctx, f, master, keyring.SharedOptions{})
				for err != nil { // as a supervisor would
					if !errors.Is(err, keyring.ErrUnavailable) {
						t.Fatal(err)
					}
					r, err = keyring.OpenShared(ctx, f, master, keyring.SharedOptions{})
				}
				defer r.Close()
				rings, lines = append(rings, r), append(lines, f)
			}
			var mu sync.Mutex
			var made []keyring.Key
			var kids []string
			var wg sync.WaitGroup
			for i, r := range rings {
				wg.Go(func() {
					for n := range 30 {
						if k, err := r.Rotate(keyring.MAC); err == nil {
							mu.Lock()
							made = append(made, k)
							mu.Unlock()
						} else if !errors.Is(err, keyring.ErrRotationPending) && !errors.Is(err, keyring.ErrUnavailable) {
							t.Errorf("seed %d: Rotate: %v", seed, err)
						}
						if n%10 == i {
							if k, err := r.RotateSigning(jwt.EdDSA, time.Now(), time.Minute, time.Hour); err == nil {
								mu.Lock()
								kids = append(kids, k.ID)
								mu.Unlock()
							} else if !errors.Is(err, keyring.ErrRotationPending) && !errors.Is(err, keyring.ErrUnavailable) {
								t.Errorf("seed %d: RotateSigning: %v", seed, err)
							}
						}
						time.Sleep(keyring.Lead / 3)
					}
				})
			}
			wg.Wait()
			for _, f := range lines {
				f.SetHook(nil)
			}
			time.Sleep(keyring.Lead + keyring.Reread)
			synctest.Wait()
			if len(made) < 5 || len(kids) == 0 {
				t.Errorf("seed %d: %d rotations of the MAC key and %d of the signing key came through", seed, len(made), len(kids))
			}
			for i, r := range rings {
				for _, k := range made {
					if have, err := r.Lookup(keyring.MAC, k.ID); err != nil || !bytes.Equal(have.Secret(), k.Secret()) {
						t.Errorf("seed %d, node %d: the key that was made as %d is another, %v", seed, i, k.ID, err)
					}
				}
				for _, kid := range kids {
					if _, err := r.PublicKey(kid, time.Now()); err != nil {
						t.Errorf("seed %d, node %d: %s: %v", seed, i, kid, err)
					}
				}
				if r.Active(keyring.MAC).ID != rings[0].Active(keyring.MAC).ID || len(r.SigningKeys()) != len(rings[0].SigningKeys()) {
					t.Errorf("seed %d: nodes 0 and %d have other keys", seed, i)
				}
			}
		})
	}
}
