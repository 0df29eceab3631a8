package jwt_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/jwt"
)

// FuzzToken: whatever comes in, there are claims or a refusal, never both, and nothing but our own signature passes.
func FuzzToken(f *testing.F) {
	good := signed(header(""), body(""))
	f.Add(good)
	f.Add(rfc7515A2)
	f.Add(strings.Repeat(".", 20))
	f.Fuzz(func(t *testing.T, token string) {
		c, err := verifier(t).Verify(t.Context(), token)
		if (c == nil) == (err == nil) || err != nil && !errors.Is(err, jwt.ErrInvalid) {
			t.Fatalf("%v, %v", c, err)
		}
		if err == nil && token != good {
			t.Fatal("a token that was not signed passes")
		}
	})
}

// FuzzHeader and FuzzClaims sign what they are given, so that the parsers behind the signature are reached.
func FuzzHeader(f *testing.F) {
	for _, h := range []string{header(""), header(`,"jwk":{}`), header(`,"crit":[]`), `{"alg":"none"}`, `{"alg":"EdDSA","Alg":"x"}`} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, h string) {
		if len(h) > 4096 {
			return
		}
		c, err := verifier(t).Verify(t.Context(), signed(h, body("")))
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err != nil {
			return
		}
		var loose map[string]any
		if json.Unmarshal([]byte(h), &loose) != nil || loose["typ"] == nil || loose["alg"] != "EdDSA" && loose["alg"] != "Ed25519" {
			t.Fatalf("accepted: %s", h)
		}
		for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit", "b64"} {
			if _, ok := loose[name]; ok {
				t.Fatalf("accepted with %s: %s", name, h)
			}
		}
	})
}

func FuzzClaims(f *testing.F) {
	for _, more := range []string{``, `,"nbf":1.5`, `,"act":{"sub":"a","act":{}}`, `,"cnf":{"jkt":"` + thumbprint + `"}`, `,"scope":"a b"`,
		`,"x":{"a":[1,2,{"b":null}]}`, `,"amr":["pwd"]`, `,"\u0061":"\ud83d\ude00"`, `,"tenant":7`} {
		f.Add(body(more))
	}
	f.Fuzz(func(t *testing.T, p string) {
		if len(p) > 5000 {
			return
		}
		c, err := verifier(t).Verify(t.Context(), signed(header(""), p))
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err != nil {
			if len(err.Error()) > 100 {
				t.Fatalf("a long error: %v", err)
			}
			return
		}
		var loose map[string]json.RawMessage
		if err := json.Unmarshal([]byte(p), &loose); err != nil {
			t.Fatalf("accepted what encoding/json does not: %v", err)
		}
		var sub string
		if loose["sub"] != nil && json.Unmarshal(loose["sub"], &sub) != nil || sub != c.Subject {
			t.Fatalf("sub %q, encoding/json says %q", c.Subject, sub)
		}
		// What was read can be signed again, and reads the same.
		if c.IssuedAt.IsZero() || c.IssuedAt.Unix() >= c.Expiry.Unix() || strings.Contains(p, `""`) {
			return
		}
		token, err := signingKeys()[jwt.EdDSA].Sign(jwt.TypeAccessToken, c)
		if err != nil {
			t.Fatalf("%s cannot be signed again: %v", p, err)
		}
		again, err := verifier(t).Verify(t.Context(), token)
		if err != nil || again.Subject != c.Subject || len(again.Extra) != len(c.Extra) || len(again.Audience) != len(c.Audience) {
			t.Fatalf("%s came back as %+v: %v", p, again, err)
		}
	})
}
