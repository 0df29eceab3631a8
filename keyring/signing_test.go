package keyring_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func after(minutes int) time.Time { return noon.Add(time.Duration(minutes) * time.Minute) }

func signerID(t testing.TB, r *keyring.Ring, alg jwt.Algorithm, at time.Time) string {
	t.Helper()
	k, err := r.Signer(alg, at)
	if err != nil {
		t.Fatalf("%s at %v: %v", alg, at, err)
	}
	return k.ID()
}

func publishes(r *keyring.Ring, id string, at time.Time) bool {
	_, err := r.PublicKey(id, at)
	_, err2 := r.PublicKeys(at).Key(nil, id)
	if (err == nil) != (err2 == nil) {
		panic("PublicKey and PublicKeys differ")
	}
	return err == nil
}

func onlyKey(t testing.TB, r *keyring.Ring) keyring.SigningKey {
	t.Helper()
	list := r.SigningKeys()
	if len(list) != 1 {
		t.Fatalf("%d signing keys, want 1", len(list))
	}
	return list[0]
}

// One rotation, minute by minute: published before it signs, accepted until the last token is dead.
func TestRotateSigning(t *testing.T) {
	r := keyring.New()
	old := onlyKey(t, r)
	if old.Algorithm != jwt.EdDSA || !old.Until.IsZero() || old.ID != old.Public().Thumbprint() {
		t.Fatalf("a new ring has %+v", old)
	}
	if id := signerID(t, r, jwt.EdDSA, time.Unix(0, 0)); id != old.ID {
		t.Error("the first key does not sign for a node whose clock is behind")
	}
	next, err := r.RotateSigning(jwt.EdDSA, noon, 15*time.Minute, 6*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		minute   int
		signs    string
		old, new bool
	}{
		{0, old.ID, true, true},
		{14, old.ID, true, true},
		{15, next.ID, true, true},
		{20, next.ID, true, true},
		{21, next.ID, false, true},
		{1000, next.ID, false, true},
	} {
		at := after(tt.minute)
		if got := signerID(t, r, jwt.EdDSA, at); got != tt.signs {
			t.Errorf("minute %d: %s signs, want %s", tt.minute, got, tt.signs)
		}
		if publishes(r, old.ID, at) != tt.old || publishes(r, next.ID, at) != tt.new {
			t.Errorf("minute %d: published are %v", tt.minute, r.PublicKeys(at).All())
		}
	}
	if _, err := r.RotateSigning(jwt.EdDSA, after(14), 15*time.Minute, 6*time.Minute); !errors.Is(err, keyring.ErrRotationPending) {
		t.Errorf("a second rotation within the first: %v", err)
	}
	third, err := r.RotateSigning(jwt.EdDSA, after(15), 15*time.Minute, 6*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if publishes(r, next.ID, after(36)) || !publishes(r, third.ID, after(36)) || len(r.SigningKeys()) != 3 {
		t.Errorf("after the third: %+v", r.SigningKeys())
	}
	// Keys that ended more than a month ago are forgotten with the next change.
	if _, err := r.RotateSigning(jwt.EdDSA, after(40*24*60), time.Minute, time.Minute); err != nil {
		t.Fatal(err)
	}
	if list := r.SigningKeys(); len(list) != 2 || list[0].ID != third.ID {
		t.Errorf("after a month: %+v", list)
	}
	for name, err := range map[string]error{
		"a negative lead":      second(r.RotateSigning(jwt.EdDSA, after(50*24*60), -1, 0)),
		"a negative keep":      second(r.RotateSigning(jwt.EdDSA, after(50*24*60), 0, -1)),
		"an unknown algorithm": second(r.RotateSigning("HS256", noon, 0, 0)),
	} {
		if err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestAlgorithmsRotateApart(t *testing.T) {
	r := keyring.New()
	if _, err := r.Signer(jwt.ES256, noon); !errors.Is(err, keyring.ErrNoSigningKey) {
		t.Errorf("no ES256 key was made: %v", err)
	}
	ed := onlyKey(t, r)
	es, err := r.RotateSigning(jwt.ES256, noon, time.Hour, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if signerID(t, r, jwt.ES256, noon) != es.ID || signerID(t, r, jwt.EdDSA, noon) != ed.ID {
		t.Error("the first key of an algorithm does not sign at once")
	}
	again, err := r.EnsureSigning(jwt.ES256, noon)
	if err != nil || again.ID != es.ID {
		t.Errorf("EnsureSigning made %v: %v", again, err)
	}
	if got := len(r.PublicKeys(noon).All()); got != 2 {
		t.Errorf("%d keys are published, want 2", got)
	}
}

func TestRetireSigning(t *testing.T) {
	t.Run("the signer, nothing published yet", func(t *testing.T) {
		r := keyring.New()
		old := onlyKey(t, r)
		next, err := r.RetireSigning(old.ID, noon)
		if err != nil {
			t.Fatal(err)
		}
		if signerID(t, r, jwt.EdDSA, noon) != next.ID || next.ID == old.ID || publishes(r, old.ID, noon) || !publishes(r, next.ID, noon) {
			t.Errorf("%+v", r.SigningKeys())
		}
		if got := signerID(t, r, jwt.EdDSA, after(-1)); got != next.ID {
			t.Errorf("a node whose clock is a minute behind signs with %s", got)
		}
		if list := r.SigningKeys(); !list[0].Retired || !list[0].Until.Equal(noon) {
			t.Errorf("%+v", list[0])
		}
		if _, err := r.RetireSigning(old.ID, noon); err == nil {
			t.Error("retired twice")
		}
		if _, err := r.RetireSigning("nobody", noon); err == nil {
			t.Error("a key that there is not was retired")
		}
	})
	t.Run("the signer, the next one published", func(t *testing.T) {
		r := keyring.New()
		old := onlyKey(t, r)
		next, err := r.RotateSigning(jwt.EdDSA, noon, time.Hour, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.RetireSigning(old.ID, after(1))
		if err != nil || got.ID != next.ID || signerID(t, r, jwt.EdDSA, after(1)) != next.ID || len(r.SigningKeys()) != 2 {
			t.Errorf("%v signs, want the one that was published: %v", got, err)
		}
		if publishes(r, old.ID, after(1)) {
			t.Error("the retired key is published")
		}
	})
	t.Run("the next one", func(t *testing.T) {
		r := keyring.New()
		old := onlyKey(t, r)
		next, err := r.RotateSigning(jwt.EdDSA, noon, time.Hour, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.RetireSigning(next.ID, after(1))
		if err != nil || got.ID != old.ID || !got.Until.IsZero() {
			t.Errorf("%+v: %v", got, err)
		}
		if signerID(t, r, jwt.EdDSA, after(1000)) != old.ID || !publishes(r, old.ID, after(1000)) || publishes(r, next.ID, after(1)) {
			t.Error("the key that signs does not go on")
		}
		if _, err := r.RotateSigning(jwt.EdDSA, after(2), time.Hour, time.Hour); err != nil {
			t.Errorf("and it cannot be rotated: %v", err)
		}
	})
	t.Run("an old one", func(t *testing.T) {
		r := keyring.New()
		old := onlyKey(t, r)
		next, err := r.RotateSigning(jwt.EdDSA, noon, 0, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.RotateSigning(jwt.EdDSA, after(1), time.Hour, time.Hour); err != nil {
			t.Fatal(err)
		}
		got, err := r.RetireSigning(old.ID, after(2))
		if err != nil || got.ID != next.ID || publishes(r, old.ID, after(2)) || signerID(t, r, jwt.EdDSA, after(2)) != next.ID {
			t.Errorf("%v signs: %v", got, err)
		}
	})
	t.Run("again and again", func(t *testing.T) {
		r := keyring.New()
		for i := range 200 {
			k, err := r.Signer(jwt.EdDSA, after(i))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.RetireSigning(k.ID(), after(i)); err != nil {
				t.Fatalf("emergency %d: %v", i, err)
			}
		}
		if n := len(r.SigningKeys()); n > 64 {
			t.Errorf("%d keys are kept", n)
		}
	})
}

func TestTooManySigningKeys(t *testing.T) {
	r := keyring.New()
	for i := 2; i <= 64; i++ {
		if _, err := r.RotateSigning(jwt.EdDSA, after(i), 0, time.Hour*1000); err != nil {
			t.Fatalf("key %d: %v", i, err)
		}
	}
	if _, err := r.RotateSigning(jwt.EdDSA, after(65), 0, time.Hour); !errors.Is(err, keyring.ErrTooManyKeys) {
		t.Errorf("key 65: %v", err)
	}
	if _, err := r.RetireSigning(signerID(t, r, jwt.EdDSA, after(65)), after(65)); err != nil {
		t.Errorf("an emergency: %v", err)
	}
}

func TestSigningKeysInFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	a, err := keyring.Open(path, master)
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range []jwt.Algorithm{jwt.EdDSA, jwt.ES256, jwt.RS256} {
		if _, err := a.EnsureSigning(alg, noon); err != nil {
			t.Fatal(err)
		}
	}
	first := a.SigningKeys()[0]
	if _, err := a.RotateSigning(jwt.EdDSA, noon, 90*time.Second, time.Hour); err != nil {
		t.Fatal(err)
	}
	es := signerID(t, a, jwt.ES256, noon)
	if _, err := a.RetireSigning(es, noon.Add(123456789)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Rotate(keyring.MAC); err != nil {
		t.Fatal(err)
	}
	b, err := keyring.Open(path, master)
	if err != nil {
		t.Fatal(err)
	}
	x, y := a.SigningKeys(), b.SigningKeys()
	if len(x) != 5 || len(y) != len(x) {
		t.Fatalf("%d and %d keys, want 5", len(x), len(y))
	}
	for i := range x {
		if x[i].ID != y[i].ID || x[i].Algorithm != y[i].Algorithm || !x[i].Created.Equal(y[i].Created) || !x[i].SignsFrom.Equal(y[i].SignsFrom) ||
			!x[i].Until.Equal(y[i].Until) || x[i].Retired != y[i].Retired || !x[i].Public().Equal(y[i].Public()) {
			t.Errorf("%+v came back as %+v", x[i], y[i])
		}
	}
	for _, alg := range jwt.Algorithms() {
		k, err := a.Signer(alg, noon.Add(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		token, err := k.Sign(jwt.TypeAccessToken, &jwt.Claims{Issuer: "i", Audience: []string{"a"}, IssuedAt: noon, Expiry: after(5)})
		if err != nil {
			t.Fatal(err)
		}
		at := func() time.Time { return after(1) }
		v := &jwt.Verifier{Keys: b.KeySet(at), Issuer: "i", Audience: []string{"a"}, Type: jwt.TypeAccessToken, Now: at}
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	k, err := a.Signer(jwt.EdDSA, noon)
	if err != nil || k.ID() != first.ID {
		t.Fatal(k, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.Signer())
	if err != nil {
		t.Fatal(err)
	}
	seed := der[len(der)-32:]
	for _, form := range []string{string(seed), base64.StdEncoding.EncodeToString(seed)[:40], base64.RawURLEncoding.EncodeToString(seed)[:40],
		base64.StdEncoding.EncodeToString(der)[24:], fmt.Sprintf("%x", seed)} {
		if strings.Contains(string(file), form) {
			t.Error("a private key stands in the file")
		}
	}
	if strings.Contains(string(file), `"d"`) {
		t.Error("a private JWK stands in the file")
	}

	// What the seal covers cannot be edited.
	good := string(file)
	for name, change := range map[string]func(string) string{
		"a retired key brought back": func(s string) string { return strings.Replace(s, `"retired": true`, `"retired": false`, 1) },
		"retired left out": func(s string) string {
			return regexp.MustCompile(`,?\s*"retired": true`).ReplaceAllString(s, "")
		},
		"a later end":            func(s string) string { return strings.Replace(s, `"until": "2026-`, `"until": "2036-`, 1) },
		"no end":                 func(s string) string { return regexp.MustCompile(`"until": "[^"]*",`).ReplaceAllString(s, "") },
		"an earlier start":       func(s string) string { return strings.Replace(s, `"signs_from": "2026-`, `"signs_from": "2016-`, 1) },
		"another algorithm":      func(s string) string { return strings.Replace(s, `"algorithm": "EdDSA"`, `"algorithm": "RS256"`, 1) },
		"another id":             func(s string) string { return strings.Replace(s, first.ID, es, 2) },
		"another public half":    func(s string) string { return strings.Replace(s, `"x": "`, `"x": "A`, 1) },
		"another's public half":  func(s string) string { return exchangePublic(t, s) },
		"a signing key twice":    func(s string) string { return doubleSigning(t, s) },
		"layout 1 that has them": func(s string) string { return strings.Replace(s, `"layout": 3`, `"layout": 1`, 1) },
	} {
		changed := change(good)
		if changed == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		bad := filepath.Join(t.TempDir(), "keys.json")
		if err := os.WriteFile(bad, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := keyring.Open(bad, master); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func editSigning(t *testing.T, text string, f func(list []any) []any) string {
	t.Helper()
	var file map[string]any
	if err := json.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	file["signing"] = f(file["signing"].([]any))
	b, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func exchangePublic(t *testing.T, text string) string {
	return editSigning(t, text, func(list []any) []any {
		list[0].(map[string]any)["public"] = list[1].(map[string]any)["public"]
		return list
	})
}

func doubleSigning(t *testing.T, text string) string {
	return editSigning(t, text, func(list []any) []any { return append(list, list[0]) })
}

// A key file of the first layout opens, has no signing keys, and gets them with the next write.
func TestLayout1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	a, err := keyring.Open(path, master)
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	delete(file, "signing")
	file["layout"] = 1
	if b, err = json.MarshalIndent(file, "", "\t"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	old, err := keyring.Open(path, master)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(old.Active(keyring.MAC).Secret(), a.Active(keyring.MAC).Secret()) || len(old.SigningKeys()) != 0 {
		t.Error("layout 1 is read as something else")
	}
	if _, err := old.Signer(jwt.EdDSA, noon); !errors.Is(err, keyring.ErrNoSigningKey) {
		t.Error(err)
	}
	if same, err := os.ReadFile(path); err != nil || !bytes.Equal(same, b) {
		t.Error("opening wrote the file")
	}
	made, err := old.EnsureSigning(jwt.EdDSA, noon)
	if err != nil {
		t.Fatal(err)
	}
	again, err := keyring.Open(path, master)
	if err != nil {
		t.Fatal(err)
	}
	if signerID(t, again, jwt.EdDSA, noon) != made.ID || !bytes.Equal(again.Active(keyring.MAC).Secret(), a.Active(keyring.MAC).Secret()) {
		t.Error("the upgraded file holds something else")
	}
	if b, err = os.ReadFile(path); err != nil || !strings.Contains(string(b), `"layout": 3`) {
		t.Errorf("the file is still of layout 1: %v", err)
	}
}

func TestRingOfSigningKeysDoesNotPrint(t *testing.T) {
	r := keyring.New()
	k := onlyKey(t, r)
	s, err := r.Signer(jwt.EdDSA, noon)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(s.Signer())
	if err != nil {
		t.Fatal(err)
	}
	seed := der[len(der)-32:]
	j, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%v %+v %#v %s %x %v %+v %#v %v %#v %s", k, k, k, k, k, r, r, r, r.SigningKeys(), r.SigningKeys(), j)
	for _, form := range []string{fmt.Sprintf("%x", seed[:6]), strings.Trim(fmt.Sprint(seed[:6]), "[]"), base64.StdEncoding.EncodeToString(seed)[:10]} {
		if strings.Contains(out, form) {
			t.Errorf("a private key prints: %s", out)
		}
	}
}

// Readers need no lock while keys come and go.
func TestSigningConcurrently(t *testing.T) {
	r, err := keyring.Open(filepath.Join(t.TempDir(), "keys.json"), master)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 300 {
				k, err := r.Signer(jwt.EdDSA, after(i))
				if err != nil {
					t.Error(err)
					return
				}
				_ = r.PublicKeys(after(i)).All()
				_ = k.ID()
			}
		})
	}
	wg.Go(func() {
		for i := range 20 {
			if _, err := r.RotateSigning(jwt.EdDSA, after(i), 0, time.Minute); err != nil {
				t.Error(err)
			}
			if _, err := r.Rotate(keyring.CSRF); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
}
