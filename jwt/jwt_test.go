package jwt_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
)

const (
	issuer   = "https://id.example"
	audience = "https://api.example"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// signingKeys are keys of each algorithm, made once: an RSA key takes a while.
var signingKeys = sync.OnceValue(func() map[jwt.Algorithm]*jwt.SigningKey {
	out := make(map[jwt.Algorithm]*jwt.SigningKey)
	for _, alg := range jwt.Algorithms() {
		k, err := jwt.GenerateKey(alg)
		if err != nil {
			panic(err)
		}
		out[alg] = k
	}
	return out
})

func verifier(t testing.TB) *jwt.Verifier {
	t.Helper()
	var list []*jwt.PublicKey
	for _, alg := range jwt.Algorithms() {
		list = append(list, signingKeys()[alg].Public())
	}
	keys, err := jwt.NewKeys(list...)
	if err != nil {
		t.Fatal(err)
	}
	return &jwt.Verifier{Keys: keys, Issuer: issuer, Audience: []string{audience}, Type: jwt.TypeAccessToken, Now: func() time.Time { return now }}
}

func claims() *jwt.Claims {
	return &jwt.Claims{
		Issuer: issuer, Subject: "mia", Audience: []string{audience}, ID: "j1",
		IssuedAt: now, Expiry: now.Add(5 * time.Minute),
	}
}

const thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"

func TestSignAndVerify(t *testing.T) {
	full := claims()
	full.Audience = []string{"another", audience}
	full.NotBefore, full.AuthTime = now.Add(-time.Minute), now.Add(-time.Hour)
	full.SessionID, full.ClientID, full.Scope = "ses_1", "shop", []string{"cart:read", "cart:write"}
	full.AMR, full.ACR = []string{"pwd", "otp"}, "urn:example:silver"
	full.Confirmation = &jwt.Confirmation{CertificateThumbprint: thumbprint}
	full.Actor = &jwt.Actor{Subject: "support", Actor: &jwt.Actor{ClientID: "desk", Issuer: issuer}}
	full.Tenant = 7
	full.Extra = map[string]json.RawMessage{
		"roles": json.RawMessage(`["a","b"]`), "https://example/ä\"\\\n": json.RawMessage(`{"x":[1.5e3,null,true,{}]}`),
	}
	for _, alg := range jwt.Algorithms() {
		for name, c := range map[string]*jwt.Claims{"few": claims(), "full": full} {
			k := signingKeys()[alg]
			token, err := k.Sign(jwt.TypeAccessToken, c)
			if err != nil {
				t.Fatalf("%s, %s: %v", alg, name, err)
			}
			got, err := verifier(t).Verify(t.Context(), token)
			if err != nil {
				t.Fatalf("%s, %s: %v", alg, name, err)
			}
			if !reflect.DeepEqual(got, c) {
				t.Errorf("%s, %s: came back as\n%+v\nwant\n%+v", alg, name, got, c)
			}
			header, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
			if want := fmt.Sprintf(`{"alg":"%s","typ":"at+jwt","kid":"%s"}`, alg, k.Public().Thumbprint()); string(header) != want {
				t.Errorf("header %s, want %s", header, want)
			}
		}
	}
}

// A signer that is not a key in memory, such as a key vault's.
type distant struct{ *ecdsa.PrivateKey }

func TestSignerElsewhere(t *testing.T) {
	p, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := jwt.NewSigningKey(distant{p})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := jwt.NewKeys(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	v := verifier(t)
	v.Keys = keys
	token, err := k.Sign(jwt.TypeAccessToken, claims())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Error(err)
	}
}

func TestUnsignable(t *testing.T) {
	deep := &jwt.Actor{Subject: "5"}
	for i := range jwt.MaxActors {
		deep = &jwt.Actor{Subject: fmt.Sprint(i), Actor: deep}
	}
	extra := func(name, value string) func(c *jwt.Claims) {
		return func(c *jwt.Claims) { c.Extra = map[string]json.RawMessage{name: json.RawMessage(value)} }
	}
	for name, change := range map[string]func(c *jwt.Claims){
		"no issuer":               func(c *jwt.Claims) { c.Issuer = "" },
		"no audience":             func(c *jwt.Claims) { c.Audience = nil },
		"an empty audience":       func(c *jwt.Claims) { c.Audience = []string{"a", ""} },
		"33 audiences":            func(c *jwt.Claims) { c.Audience = strings.Split(strings.Repeat("a ", 32)+"a", " ") },
		"no expiry":               func(c *jwt.Claims) { c.Expiry = time.Time{} },
		"no time of issue":        func(c *jwt.Claims) { c.IssuedAt = time.Time{} },
		"expired from the start":  func(c *jwt.Claims) { c.Expiry = c.IssuedAt },
		"the year 10000":          func(c *jwt.Claims) { c.Expiry = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"before 1970":             func(c *jwt.Claims) { c.AuthTime = time.Unix(-1, 0) },
		"broken UTF-8":            func(c *jwt.Claims) { c.Subject = "a\xff" },
		"a scope with a space":    func(c *jwt.Claims) { c.Scope = []string{"a b"} },
		"an empty scope":          func(c *jwt.Claims) { c.Scope = []string{""} },
		"an empty confirmation":   func(c *jwt.Claims) { c.Confirmation = &jwt.Confirmation{} },
		"two confirmations":       func(c *jwt.Claims) { c.Confirmation = &jwt.Confirmation{thumbprint, thumbprint} },
		"no thumbprint":           func(c *jwt.Claims) { c.Confirmation = &jwt.Confirmation{JWKThumbprint: "abc"} },
		"too many actors":         func(c *jwt.Claims) { c.Actor = deep },
		"a registered name":       extra("exp", "1"),
		"one in another case":     extra("Exp", "1"),
		"one in a strange case":   extra("ſub", `"x"`),
		"no value":                extra("x", ""),
		"no JSON":                 extra("x", "nope"),
		"a smuggled claim":        extra("x", `1,"nbf":1`),
		"a smuggled end":          extra("x", `1}`),
		"a member twice":          extra("x", `{"a":1,"A":2}`),
		"nested too deep":         extra("x", strings.Repeat("[", 8)+strings.Repeat("]", 8)),
		"broken UTF-8 in a value": extra("x", "\"\xff\""),
		"too large":               extra("x", `"`+strings.Repeat("a", 8000)+`"`),
		"two private names alike": func(c *jwt.Claims) {
			c.Extra = map[string]json.RawMessage{"role": json.RawMessage("1"), "Role": json.RawMessage("2")}
		},
	} {
		c := claims()
		change(c)
		if token, err := signingKeys()[jwt.EdDSA].Sign(jwt.TypeAccessToken, c); !errors.Is(err, jwt.ErrUnsignable) || token != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, typ := range []string{"", "AT+JWT", "application/at+jwt", "at jwt", "at\"", strings.Repeat("a", 65)} {
		if _, err := signingKeys()[jwt.EdDSA].Sign(typ, claims()); !errors.Is(err, jwt.ErrUnsignable) {
			t.Errorf("type %q: %v", typ, err)
		}
	}
	for _, payload := range []string{"", "1", "{", "{}{}", `{"a":1,"A":2}`, `{"a":"` + strings.Repeat("a", 7000) + `"}`} {
		if token, err := signingKeys()[jwt.EdDSA].SignPayload("token-introspection+jwt", []byte(payload)); !errors.Is(err, jwt.ErrUnsignable) || token != "" {
			t.Errorf("payload %.20q: %v", payload, err)
		}
	}
	if _, err := signingKeys()[jwt.EdDSA].Sign(jwt.TypeAccessToken, nil); !errors.Is(err, jwt.ErrUnsignable) {
		t.Errorf("no claims: %v", err)
	}
}

func TestVerifierNeeds(t *testing.T) {
	token, err := signingKeys()[jwt.EdDSA].Sign(jwt.TypeAccessToken, claims())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(v *jwt.Verifier){
		"no keys":              func(v *jwt.Verifier) { v.Keys = nil },
		"no issuer":            func(v *jwt.Verifier) { v.Issuer = "" },
		"no audience":          func(v *jwt.Verifier) { v.Audience = nil },
		"an empty audience":    func(v *jwt.Verifier) { v.Audience = []string{""} },
		"no type":              func(v *jwt.Verifier) { v.Type = "" },
		"an unknown algorithm": func(v *jwt.Verifier) { v.Algorithms = []jwt.Algorithm{"none"} },
		"too much leeway":      func(v *jwt.Verifier) { v.Leeway = time.Hour },
	} {
		v := verifier(t)
		change(v)
		if c, err := v.Verify(t.Context(), token); !errors.Is(err, jwt.ErrVerifier) || c != nil || errors.Is(err, jwt.ErrInvalid) {
			t.Errorf("%s: %v, %v", name, c, err)
		}
	}
	if err := (*jwt.Verifier)(nil).Check(); !errors.Is(err, jwt.ErrVerifier) {
		t.Error(err)
	}
}

// Each type of token is refused by the verifiers of all the others.
func TestTypesExcludeEachOther(t *testing.T) {
	types := []string{"at+jwt", "logout+jwt", "secevent+jwt", "token-introspection+jwt", "afterlogin-assertion+jwt", "JWT"}
	for _, made := range types {
		token, err := signingKeys()[jwt.EdDSA].Sign(made, claims())
		if err != nil {
			t.Fatal(err)
		}
		for _, asked := range types {
			v := verifier(t)
			v.Type = asked
			if _, err := v.Verify(t.Context(), token); (err == nil) != (made == asked) || err != nil && !errors.Is(err, jwt.ErrType) {
				t.Errorf("a %s for a verifier of %s: %v", made, asked, err)
			}
		}
	}
}

func TestPrivateKeysDoNotPrint(t *testing.T) {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = 7
	}
	k, err := jwt.NewSigningKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	type around struct {
		K *jwt.SigningKey
		k jwt.SigningKey
	}
	a := around{k, *k}
	j, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%v %+v %#v %s %x %q %d %v %#v %+v %s", k, k, k, k, k, *k, *k, a, a, a, j)
	for _, secret := range []string{"7 7 7", "070707", "7, 7, 7", "0x7, 0x7", "BwcHBw"} {
		if strings.Contains(out, secret) {
			t.Errorf("a private key prints: %s", out)
		}
	}
}

func TestSigningKeysRefused(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jwt.NewPublicKey(&small.PublicKey); err != nil {
		t.Errorf("another's RSA key of 2048 bits: %v", err)
	}
	for name, err := range map[string]error{
		"RSA of 2048 bits":  second(jwt.NewSigningKey(small)),
		"P-384":             second(jwt.NewSigningKey(p384)),
		"nil":               second(jwt.NewSigningKey(nil)),
		"a nil key":         second(jwt.NewSigningKey((*rsa.PrivateKey)(nil))),
		"half an Ed25519":   second(jwt.NewSigningKey(ed25519.PrivateKey(make([]byte, 32)))),
		"HS256":             second(jwt.GenerateKey("HS256")),
		"no algorithm":      second(jwt.GenerateKey("")),
		"public nil":        second(jwt.NewPublicKey(nil)),
		"public P-384":      second(jwt.NewPublicKey(&p384.PublicKey)),
		"an empty ECDSA":    second(jwt.NewPublicKey(&ecdsa.PublicKey{Curve: elliptic.P256()})),
		"an empty RSA":      second(jwt.NewPublicKey(&rsa.PublicKey{})),
		"an ECDH-like text": second(jwt.NewPublicKey("key")),
	} {
		if !errors.Is(err, jwt.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
