package backend

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

// addresses starts a server of each kind and returns its address.
var addresses = map[string]func(t *testing.T) string{
	"redis": func(t *testing.T) string {
		p, err := servers.StartRedis(t.TempDir(), "user mia on >pw-canary ~* &* +@all")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Stop() })
		return "redis://mia:pw-canary@" + p.Addr
	},
	"postgres": func(t *testing.T) string {
		p, err := servers.StartPostgres(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Stop() })
		return p.URL
	},
}

// Two nodes on a real store have one ring, follow its changes, and use a thing once between them.
func TestSharedStores(t *testing.T) {
	for name, start := range addresses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := start(t)
			var nodes [2]*afterlogin.Authority
			var rings [2]*keyring.Ring
			for i := range nodes {
				b, err := Open(t.Context(), address, "", slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { b.Close() })
				if err := b.Writable(); err != nil {
					t.Error(err)
				}
				if _, ok := b.(store.Shared); !ok {
					t.Fatal("the store does not tell of other nodes' changes")
				}
				if rings[i], err = keyring.OpenShared(t.Context(), b, bytes.Repeat([]byte{4}, 32), keyring.SharedOptions{}); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { rings[i].Close() })
				if nodes[i], err = afterlogin.New(afterlogin.Config{Store: b, Keys: rings[i]}); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { nodes[i].Close() })
			}
			if rings[0].Installation() != rings[1].Installation() {
				t.Fatal("two rings")
			}
			if _, err := rings[0].Rotate(keyring.MAC); err != nil {
				t.Fatal(err)
			}
			k, err := rings[1].RotateSigning(jwt.EdDSA, time.Now(), time.Hour, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(keyring.Reread + time.Second); ; time.Sleep(time.Millisecond) {
				_, one := rings[1].Key(keyring.MAC, 2)
				_, two := rings[0].PublicKey(k.ID, time.Now())
				if one && two == nil {
					break
				}
				if time.Now().After(end) {
					t.Fatal("the other node does not follow")
				}
			}
			until := time.Now().Add(time.Minute)
			for i, want := range []bool{true, false, false, false} {
				if first, err := nodes[i%2].FirstUse(t.Context(), "app", "1", until); err != nil || first != want {
					t.Errorf("use %d: %v, %v", i, first, err)
				}
			}
			_, err = Open(t.Context(), strings.Replace(address, "@", "x@", 1), "", slog.New(slog.DiscardHandler))
			if name == "redis" && err == nil || err != nil && strings.Contains(fmt.Sprintf("%+v", err), "canary") {
				t.Errorf("with another password: %v", err)
			}
		})
	}
}
