package jwt_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/jwt"
)

const (
	edJWK = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	ecX   = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
	ecY   = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
	ecJWK = `{"kty":"EC","crv":"P-256","x":"` + ecX + `","y":"` + ecY + `"}`
)

func TestJWKRefused(t *testing.T) {
	with := func(jwk, more string) string { return strings.TrimSuffix(jwk, "}") + "," + more + "}" }
	for _, good := range []string{edJWK, ecJWK, rfc7515RSA, with(edJWK, `"alg":"EdDSA","use":"sig","key_ops":["verify"],"kid":"a b/c","x5c":["x"],"ext":true`),
		with(edJWK, `"alg":"Ed25519"`), with(ecJWK, `"alg":"ES256"`), with(rfc7515RSA, `"alg":"RS256"`)} {
		k, err := jwt.ParseJWK([]byte(good))
		if err != nil {
			t.Fatalf("%s: %v", good, err)
		}
		j, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		again, err := jwt.ParseJWK(j)
		if err != nil || !again.Equal(k) || again.ID() != k.ID() || again.Algorithm() != k.Algorithm() {
			t.Errorf("%s came back as %s: %v", good, j, err)
		}
	}
	x := func(b byte, last byte) string { // a little-endian y of 32 bytes
		p := make([]byte, 32)
		for i := range p {
			p[i] = b
		}
		p[31] = last
		return `{"kty":"OKP","crv":"Ed25519","x":"` + b64(p) + `"}`
	}
	one := make([]byte, 32)
	one[0] = 1
	for name, jwk := range map[string]string{
		"nothing":                ``,
		"null":                   `null`,
		"a list":                 `[` + edJWK + `]`,
		"a key and more":         edJWK + `{}`,
		"a member twice":         with(edJWK, `"kty":"OKP"`),
		"a member in two cases":  with(edJWK, `"KTY":"EC"`),
		"kty a number":           `{"kty":1}`,
		"kty in small letters":   strings.Replace(edJWK, "OKP", "okp", 1),
		"no kty":                 `{"crv":"Ed25519"}`,
		"symmetric":              `{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`,
		"private Ed25519":        with(edJWK, `"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"`),
		"private RSA, halfway":   with(rfc7515RSA, `"qi":"AA"`),
		"X25519":                 strings.Replace(edJWK, "Ed25519", "X25519", 1),
		"Ed448":                  strings.Replace(edJWK, "Ed25519", "Ed448", 1),
		"P-384":                  strings.Replace(ecJWK, "P-256", "P-384", 1),
		"secp256k1":              strings.Replace(ecJWK, "P-256", "secp256k1", 1),
		"alg of another kind":    with(edJWK, `"alg":"ES256"`),
		"alg HS256":              with(rfc7515RSA, `"alg":"HS256"`),
		"alg PS256":              with(rfc7515RSA, `"alg":"PS256"`),
		"alg none":               with(edJWK, `"alg":"none"`),
		"alg empty":              with(edJWK, `"alg":""`),
		"use enc":                with(edJWK, `"use":"enc"`),
		"key_ops to sign":        with(edJWK, `"key_ops":["sign"]`),
		"key_ops, none":          with(edJWK, `"key_ops":[]`),
		"key_ops a text":         with(edJWK, `"key_ops":"verify"`),
		"a long kid":             with(edJWK, `"kid":"`+strings.Repeat("k", 129)+`"`),
		"an empty kid":           with(edJWK, `"kid":""`),
		"x too short":            `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg"}`,
		"x missing":              `{"kty":"OKP","crv":"Ed25519"}`,
		"x with unused bits":     strings.Replace(edJWK, "HURo", "HURp", 1),
		"x padded":               strings.Replace(edJWK, "HURo", "HURo=", 1),
		"no point of Ed25519":    `{"kty":"OKP","crv":"Ed25519","x":"` + b64(append([]byte{2}, make([]byte, 31)...)) + `"}`,
		"Ed25519: y = 0":         x(0, 0),
		"Ed25519: y = 1":         `{"kty":"OKP","crv":"Ed25519","x":"` + b64(one) + `"}`,
		"Ed25519: y over p":      x(0xff, 0x7f),
		"Ed25519: order 8":       `{"kty":"OKP","crv":"Ed25519","x":"JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU"}`,
		"Ed25519: order 8, sign": `{"kty":"OKP","crv":"Ed25519","x":"JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_IU"}`,
		"Ed25519: order 8, -y":   `{"kty":"OKP","crv":"Ed25519","x":"xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o"}`,
		"EC: y missing":          `{"kty":"EC","crv":"P-256","x":"` + ecX + `"}`,
		"EC: not on the curve":   strings.Replace(ecJWK, "WI5a0", "WI5a4", 1),
		"EC: x and y exchanged":  `{"kty":"EC","crv":"P-256","x":"` + ecY + `","y":"` + ecX + `"}`,
		"EC: 0, 0":               `{"kty":"EC","crv":"P-256","x":"` + b64(make([]byte, 32)) + `","y":"` + b64(make([]byte, 32)) + `"}`,
		"EC: a zero before":      strings.Replace(ecJWK, ecX, "AH_NzidwesRdQYPL7m_bS3tYBzM1e-nvE7rPbjx70VRF", 1),
		"RSA: e = 1":             strings.Replace(rfc7515RSA, "AQAB", "AQ", 1),
		"RSA: e = 3":             strings.Replace(rfc7515RSA, "AQAB", "Aw", 1),
		"RSA: e even":            strings.Replace(rfc7515RSA, "AQAB", "AQAC", 1),
		"RSA: e huge":            strings.Replace(rfc7515RSA, "AQAB", "AQAAAAAAAAAB", 1),
		"RSA: e of 2^31 and 1":   strings.Replace(rfc7515RSA, "AQAB", "gAAAAQ", 1),
		"RSA: e with a zero":     strings.Replace(rfc7515RSA, "AQAB", "AAEAAQ", 1),
		"RSA: n with a zero":     strings.Replace(rfc7515RSA, `"n":"ofg`, `"n":"AKH4`, 1),
		"RSA: n small":           `{"kty":"RSA","e":"AQAB","n":"` + b64([]byte(strings.Repeat("\xff", 128))) + `"}`,
		"RSA: n large":           `{"kty":"RSA","e":"AQAB","n":"` + b64([]byte(strings.Repeat("\xff", 1025))) + `"}`,
		"RSA: n even":            strings.Replace(rfc7515RSA, "XpoQ", "XpoA", 1),
		"over 8 KiB":             with(edJWK, `"x5c":["`+strings.Repeat("A", 9000)+`"]`),
	} {
		if k, err := jwt.ParseJWK([]byte(jwk)); !errors.Is(err, jwt.ErrKey) || k != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if jwt.ReasonOf(jwt.ErrKey) != "" {
		t.Error("a bad key is a refusal of a token")
	}
}

func TestJWKS(t *testing.T) {
	set := func(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }
	kid := func(jwk, id string) string { return strings.TrimSuffix(jwk, "}") + `,"kid":"` + id + `"}` }
	others := []string{`{"kty":"AKP","alg":"ML-DSA-44","pub":"x"}`, `{}`, `5`, `null`, `{"kty":5}`, `{"kty":"OKP","crv":"X25519","x":"AA"}`,
		`{"kty":"RSA","e":"AQAB","n":"AQAB"}`, kid(strings.TrimSuffix(edJWK, "}")+`,"use":"enc"}`, "a")}
	for name, tt := range map[string]struct {
		jwks string
		keys int
	}{
		"one":                     {set(edJWK), 1},
		"three":                   {set(edJWK, ecJWK, rfc7515RSA), 3},
		"none":                    {set(), 0},
		"others' besides":         {set(append(others, kid(edJWK, "a"))...), 1},
		"others' alone":           {set(others...), 0},
		"other members":           {`{"a":[{}],"keys":[` + edJWK + `],"b":1}`, 1},
		"no object":               {`[` + edJWK + `]`, -1},
		"no keys":                 {`{}`, -1},
		"keys no list":            {`{"keys":{}}`, -1},
		"keys twice":              {`{"keys":[],"keys":[` + edJWK + `]}`, -1},
		"keys and Keys":           {`{"keys":[],"Keys":[` + edJWK + `]}`, -1},
		"more behind":             {set(edJWK) + "x", -1},
		"the same twice":          {set(edJWK, edJWK), -1},
		"two with one id":         {set(kid(edJWK, "a"), kid(ecJWK, "a")), -1},
		"a symmetric key within":  {set(edJWK, `{"kty":"oct","k":"AA"}`), -1},
		"a private key within":    {set(edJWK, strings.TrimSuffix(ecJWK, "}")+`,"d":"AA"}`), -1},
		"a broken private within": {set(edJWK, `{"kty":7,"d":"AA"}`), -1},
		"101":                     {set(strings.Split(strings.Repeat("{} ", 100)+"{}", " ")...), -1},
		"100":                     {set(strings.Split(strings.Repeat("{} ", 99)+"{}", " ")...), 0},
		"over 64 KiB":             {set(edJWK) + strings.Repeat(" ", 64<<10), -1},
	} {
		keys, err := jwt.ParseJWKS([]byte(tt.jwks))
		if tt.keys < 0 {
			if !errors.Is(err, jwt.ErrKey) || keys != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || len(keys.All()) != tt.keys {
			t.Errorf("%s: %v, %v, want %d keys", name, keys, err, tt.keys)
			continue
		}
		j, err := json.Marshal(keys)
		if err != nil {
			t.Fatal(err)
		}
		again, err := jwt.ParseJWKS(j)
		if err != nil || fmt.Sprint(again.All()) != fmt.Sprint(keys.All()) {
			t.Errorf("%s: came back as %v: %v", name, again, err)
		}
	}
	keys, err := jwt.ParseJWKS([]byte(set(edJWK, kid(ecJWK, "ec"))))
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"ec": true, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k": true, "": false, "EC": false, "x": false} {
		if k, err := keys.Key(t.Context(), id); (err == nil) != want || err == nil && k.ID() != id || err != nil && !errors.Is(err, jwt.ErrUnknownKey) {
			t.Errorf("kid %q: %v, %v", id, k, err)
		}
	}
	if _, err := new(jwt.Keys).Key(t.Context(), ""); !errors.Is(err, jwt.ErrUnknownKey) {
		t.Error(err)
	}
}

// The check of points passes every key that is made.
func TestMadeKeysAreGood(t *testing.T) {
	for range 200 {
		public, _, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := jwt.NewPublicKey(public); err != nil {
			t.Fatalf("%x: %v", public, err)
		}
	}
}

func FuzzJWK(f *testing.F) {
	for _, s := range []string{edJWK, ecJWK, rfc7515RSA, `{"kty":"oct"}`, `{"kty":"RSA","n":"AA","e":"AQAB"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := jwt.ParseJWK(b)
		if (k == nil) == (err == nil) || err != nil && !errors.Is(err, jwt.ErrKey) {
			t.Fatalf("%v, %v", k, err)
		}
		if err != nil {
			return
		}
		if !json.Valid(b) {
			t.Fatal("not JSON, and a key")
		}
		j, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := jwt.ParseJWK(j); err != nil || !again.Equal(k) || again.ID() != k.ID() {
			t.Fatalf("%s came back as another key: %v", j, err)
		}
	})
}

func FuzzJWKS(f *testing.F) {
	f.Add([]byte(`{"keys":[` + edJWK + `,` + ecJWK + `]}`))
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AA"}]}`))
	f.Add([]byte(`{"keys":[{"d":1},[],"a"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := jwt.ParseJWKS(b)
		if (keys == nil) == (err == nil) || err != nil && !errors.Is(err, jwt.ErrKey) {
			t.Fatalf("%v, %v", keys, err)
		}
		if err == nil {
			if j, err := json.Marshal(keys); err != nil || !json.Valid(j) {
				t.Fatalf("%s: %v", j, err)
			}
		}
	})
}
