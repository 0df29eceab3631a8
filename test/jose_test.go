package test

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/c2sp/wycheproof"
	jose "github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	golangjwt "github.com/golang-jwt/jwt/v5"
	"pgregory.net/rapid"

	"github.com/afterlogin/afterlogin/jwt"
)

// wycheproofGroup is a group of the JSON Web … tests of Project Wycheproof.
type wycheproofGroup struct {
	Comment string          `json:"comment"`
	Public  json.RawMessage `json:"public"`
	Private json.RawMessage `json:"private"`
	Tests   []struct {
		ID      int    `json:"tcId"`
		Comment string `json:"comment"`
		JWS     any    `json:"jws"`
		JWE     any    `json:"jwe"`
		Result  string `json:"result"`
	} `json:"tests"`
}

func wycheproofGroups(t *testing.T, name string) []wycheproofGroup {
	t.Helper()
	var file struct {
		Groups []wycheproofGroup `json:"testGroups"`
	}
	if err := json.Unmarshal(must[[]byte](t)(fs.ReadFile(wycheproof.TestVectors, name)), &file); err != nil {
		t.Fatal(err)
	}
	return file.Groups
}

// headerOf returns what a token's header says, without any check.
func headerOf(token string) (h struct{ Alg, Kid string }) {
	first, _, _ := strings.Cut(token, ".")
	b, _ := base64.RawURLEncoding.DecodeString(first)
	_ = json.Unmarshal(b, &h)
	return h
}

// keyFor finds the key of a group, a JWK or a JWKS, for a token, as a verifier would.
func keyFor(t *testing.T, g wycheproofGroup, token string) (*jwt.PublicKey, error) {
	key := g.Public
	if key == nil {
		key = g.Private // symmetric
	}
	if !strings.Contains(string(key), `"keys"`) {
		return jwt.ParseJWK(key)
	}
	set, err := jwt.ParseJWKS(key)
	if err != nil {
		return nil, err
	}
	return set.Key(t.Context(), headerOf(token).Kid)
}

// Every vector that is invalid is refused; every one that is valid is accepted if its algorithm is one of ours. The
// others (HMAC, PS…, RS384, RS512, ES512, encryption) are refused whatever they are.
func TestWycheproof(t *testing.T) {
	for name, least := range map[string]int{
		"json_web_signature_test.json":  10,
		"json_web_key_test.json":        1,
		"json_web_crypto_test.json":     2,
		"json_web_encryption_test.json": 0,
	} {
		t.Run(name, func(t *testing.T) {
			accepted, refused, foreign := 0, 0, 0
			for _, g := range wycheproofGroups(t, name) {
				for _, tt := range g.Tests {
					var token string
					switch v := tt.JWS.(type) {
					case string:
						token = v
					case nil:
						token, _ = tt.JWE.(string)
					default: // a JWS as JSON
						token = string(must[[]byte](t)(json.Marshal(v)))
					}
					key, err := keyFor(t, g, token)
					if err == nil {
						_, err = key.VerifyJWS(token)
					}
					alg := jwt.Algorithm(headerOf(token).Alg)
					switch {
					case err == nil && tt.Result == "valid":
						accepted++
					case err == nil:
						t.Errorf("%s, test %d (%s): accepted, it is %s", g.Comment, tt.ID, tt.Comment, tt.Result)
					case tt.Result == "valid" && slices.Contains(jwt.Algorithms(), alg):
						t.Errorf("%s, test %d (%s): %v, it is valid", g.Comment, tt.ID, tt.Comment, err)
					case tt.Result == "valid":
						foreign++
					default:
						refused++
					}
				}
			}
			t.Logf("%d accepted, %d refused, %d good ones of algorithms that are not ours refused", accepted, refused, foreign)
			if accepted < least || accepted+refused+foreign == 0 {
				t.Errorf("%d accepted, want at least %d", accepted, least)
			}
		})
	}
}

// cookbook is an example of RFC 7520 in the form of ietf-jose/cookbook.
type cookbook struct {
	Title string `json:"title"`
	Input struct {
		Payload string          `json:"payload"`
		Key     json.RawMessage `json:"key"` // a list if there are several signatures
		Alg     any             `json:"alg"`
	} `json:"input"`
	Output struct {
		Compact string          `json:"compact"`
		JSON    json.RawMessage `json:"json"`
		Flat    json.RawMessage `json:"json_flat"`
	} `json:"output"`
}

// The examples of RFC 7520 are read from the directory that AFTERLOGIN_VECTORS names.
func TestRFC7520(t *testing.T) {
	dir := os.Getenv("AFTERLOGIN_VECTORS")
	if dir == "" {
		t.Log("AFTERLOGIN_VECTORS is not set: nothing to read for this part")
		return
	}
	files := append(must[[]string](t)(filepath.Glob(filepath.Join(dir, "jose-cookbook/jws/*.json"))),
		must[[]string](t)(filepath.Glob(filepath.Join(dir, "jose-cookbook/curve25519/jws.json")))...)
	accepted := 0
	for _, file := range files {
		var c cookbook
		if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(file)), &c); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		name := filepath.Base(file)
		if _, err := jwt.ParseJWK(c.Input.Key); err == nil {
			t.Errorf("%s: a private or symmetric key is read as a public one", name)
		}
		var list []map[string]any
		if json.Unmarshal(c.Input.Key, &list) != nil {
			list = append(list, nil)
			if err := json.Unmarshal(c.Input.Key, &list[0]); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		}
		for _, secret := range []string{"d", "p", "q", "dp", "dq", "qi"} {
			delete(list[0], secret)
		}
		key, err := jwt.ParseJWK(must[[]byte](t)(json.Marshal(list[0])))
		ours := err == nil && c.Input.Alg == string(key.Algorithm()) && !strings.Contains(name, "detached") && c.Output.Compact != ""
		for _, token := range []string{c.Output.Compact, string(c.Output.JSON), string(c.Output.Flat)} {
			if token == "" || err != nil {
				continue
			}
			payload, err := key.VerifyJWS(token)
			switch good := ours && token == c.Output.Compact; {
			case good && (err != nil || string(payload) != c.Input.Payload):
				t.Errorf("%s (%s): %v", name, c.Title, err)
			case good:
				accepted++
			case err == nil:
				t.Errorf("%s (%s): accepted", name, c.Title)
			}
		}
	}
	for name, good := range map[string]bool{"3_1.ec_public_key": false, "3_2.ec_private_key": false, "3_3.rsa_public_key": true, "3_4.rsa_private_key": false} {
		b := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "jose-cookbook/jwk", name+".json")))
		if k, err := jwt.ParseJWK(b); (err == nil) != good {
			t.Errorf("%s: %v, %v", name, k, err)
		}
	}
	t.Logf("%d examples, %d of them with an algorithm of ours", len(files), accepted)
	if len(files) < 9 || accepted != 2 {
		t.Errorf("%d examples read, %d accepted, want 9 and 2 (RS256 and Ed25519)", len(files), accepted)
	}
}

// What follows compares with go-jose and golang-jwt, which were written by others.

const (
	joseIssuer   = "https://id.example"
	joseAudience = "https://api.example"
)

var joseNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

var joseKeys = sync.OnceValue(func() map[jwt.Algorithm]*jwt.SigningKey {
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

// three are our verifier and the two others', asked the same.
func oursSays(token string) (*jwt.Claims, error) {
	var list []*jwt.PublicKey
	for _, alg := range jwt.Algorithms() {
		list = append(list, joseKeys()[alg].Public())
	}
	keys, err := jwt.NewKeys(list...)
	if err != nil {
		return nil, err
	}
	v := &jwt.Verifier{Keys: keys, Issuer: joseIssuer, Audience: []string{joseAudience}, Type: "at+jwt", Now: func() time.Time { return joseNow }}
	return v.Verify(ctx, token)
}

func joseSays(token string) (map[string]any, error) {
	t, err := josejwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256, jose.RS256})
	if err != nil {
		return nil, err
	}
	var registered josejwt.Claims
	all := make(map[string]any)
	for _, k := range joseKeys() {
		if k.ID() != t.Headers[0].KeyID {
			continue
		}
		if string(k.Algorithm()) != t.Headers[0].Algorithm {
			return nil, errors.New("not the key's algorithm")
		}
		if err := t.Claims(k.Public().Key(), &registered, &all); err != nil {
			return nil, err
		}
		if registered.Expiry == nil {
			return nil, errors.New("no exp")
		}
		return all, registered.ValidateWithLeeway(josejwt.Expected{Issuer: joseIssuer, AnyAudience: josejwt.Audience{joseAudience}, Time: joseNow}, 30*time.Second)
	}
	return nil, errors.New("unknown key")
}

func golangSays(token string) (golangjwt.MapClaims, error) {
	p := golangjwt.NewParser(golangjwt.WithValidMethods([]string{"EdDSA", "ES256", "RS256"}), golangjwt.WithIssuer(joseIssuer),
		golangjwt.WithAudience(joseAudience), golangjwt.WithExpirationRequired(), golangjwt.WithIssuedAt(),
		golangjwt.WithLeeway(30*time.Second+time.Millisecond), golangjwt.WithTimeFunc(func() time.Time { return joseNow }))
	c := golangjwt.MapClaims{}
	_, err := p.ParseWithClaims(token, c, func(t *golangjwt.Token) (any, error) {
		for _, k := range joseKeys() {
			if k.ID() == t.Header["kid"] && string(k.Algorithm()) == t.Method.Alg() {
				return k.Public().Key(), nil
			}
		}
		return nil, errors.New("unknown key")
	})
	return c, err
}

// agree fails if we accept a token that one of the others refuses, or read another subject in it. With good, all must
// accept it.
func agree(t rapid.TB, token string, good bool) {
	t.Helper()
	c, err := oursSays(token)
	if err != nil && good {
		t.Fatalf("a good token is refused: %v", err)
	}
	if err != nil && (!errors.Is(err, jwt.ErrInvalid) || c != nil) {
		t.Fatalf("%v with %v", err, c)
	}
	if err != nil || headerOf(token).Alg == "Ed25519" { // RFC 9864's name, which the others do not know
		return
	}
	all, err := joseSays(token)
	if err != nil {
		t.Fatalf("go-jose refuses what we accept: %v\n%s", err, readable(token))
	}
	all2, err := golangSays(token)
	if err != nil {
		t.Fatalf("golang-jwt refuses what we accept: %v\n%s", err, readable(token))
	}
	for name, all := range map[string]map[string]any{"go-jose": all, "golang-jwt": all2} {
		if sub, _ := all["sub"].(string); sub != c.Subject || all["iss"] != c.Issuer {
			t.Fatalf("subject %q, %s reads %q", c.Subject, name, sub)
		}
	}
}

func readable(token string) string {
	var out strings.Builder
	for i, part := range strings.Split(token, ".") {
		if b, err := base64.RawURLEncoding.DecodeString(part); err == nil && i < 2 {
			part = string(b)
		}
		fmt.Fprintln(&out, part)
	}
	return out.String()
}

// signAs signs any header and payload with the key.
func signAs(t rapid.TB, k *jwt.SigningKey, header, payload string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	good, err := k.SignPayload("at+jwt", []byte(`{}`)) // whether the key works at all
	if err != nil || good == "" {
		t.Fatal(err)
	}
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	method := golangjwt.GetSigningMethod(string(k.Algorithm()))
	var sig []byte
	if k.Algorithm() == jwt.EdDSA {
		sig, err = k.Signer().Sign(nil, []byte(input), crypto.Hash(0))
	} else {
		sig, err = method.Sign(input, k.Signer())
	}
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64(sig)
}

func anyKey(t *rapid.T) *jwt.SigningKey {
	algs := []jwt.Algorithm{jwt.EdDSA, jwt.EdDSA, jwt.EdDSA, jwt.ES256, jwt.ES256, jwt.RS256} // RSA is slow
	return joseKeys()[rapid.SampledFrom(algs).Draw(t, "alg")]
}

func anyValue(t *rapid.T, depth int) any {
	kinds := []string{"text", "number", "bool", "null"}
	if depth < 5 {
		kinds = append(kinds, "list", "object")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "text":
		return rapid.String().Draw(t, "text")
	case "number":
		return rapid.Float64Range(-1e18, 1e18).Draw(t, "number")
	case "bool":
		return rapid.Bool().Draw(t, "bool")
	case "list":
		out := []any{}
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			out = append(out, anyValue(t, depth+1))
		}
		return out
	case "object":
		out := map[string]any{}
		for i := range rapid.IntRange(0, 3).Draw(t, "n") {
			out[fmt.Sprint(i, rapid.StringMatching(`[a-z_:/."\\ä]*`).Draw(t, "name"))] = anyValue(t, depth+1)
		}
		return out
	}
	return nil
}

// Well-formed tokens, whoever made them, are accepted by all three and say the same.
func TestDifferentialGood(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := anyKey(t)
		lifetime := time.Duration(rapid.IntRange(1, 100000).Draw(t, "lifetime")) * time.Second
		issued := joseNow.Add(-time.Duration(rapid.IntRange(0, 100).Draw(t, "age")) * lifetime / 101)
		issued = issued.Truncate(time.Second)
		c := &jwt.Claims{
			Issuer: joseIssuer, Subject: rapid.String().Draw(t, "sub"), ID: rapid.String().Draw(t, "jti"),
			Audience: append(rapid.SliceOfN(rapid.StringN(1, 20, -1), 0, 5).Draw(t, "others"), joseAudience),
			IssuedAt: issued, Expiry: issued.Add(lifetime + time.Second), NotBefore: issued,
			Scope: rapid.SliceOfN(rapid.StringMatching(`[!#-\[\]-~]{1,10}`), 0, 5).Draw(t, "scope"),
			AMR:   rapid.SliceOfN(rapid.StringN(1, 8, -1), 0, 3).Draw(t, "amr"),
			Extra: map[string]json.RawMessage{},
		}
		loose := map[string]any{"iss": c.Issuer, "sub": c.Subject, "aud": c.Audience, "iat": issued.Unix(), "exp": float64(c.Expiry.Unix()) + 0.5,
			"scope": strings.Join(c.Scope, " ")}
		for i := range rapid.IntRange(0, 4).Draw(t, "extra") {
			v := anyValue(t, 0)
			name := fmt.Sprint("x", i)
			loose[name] = v
			raw, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			c.Extra[name] = raw
		}
		token, err := k.Sign("at+jwt", c)
		if err != nil {
			t.Fatal(err)
		}
		agree(t, token, true)

		s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.Algorithm()), Key: jose.JSONWebKey{Key: k.Signer(), KeyID: k.ID()}},
			(&jose.SignerOptions{}).WithType("at+jwt"))
		if err != nil {
			t.Fatal(err)
		}
		if token, err = josejwt.Signed(s).Claims(loose).Serialize(); err != nil {
			t.Fatal(err)
		}
		agree(t, token, true)

		g := golangjwt.NewWithClaims(golangjwt.GetSigningMethod(string(k.Algorithm())), golangjwt.MapClaims(loose))
		g.Header["kid"], g.Header["typ"] = k.ID(), "at+jwt"
		if token, err = g.SignedString(k.Signer()); err != nil {
			t.Fatal(err)
		}
		agree(t, token, true)
	})
}

// Tokens that were bent in one or more places before or after they were signed: what we accept, the others do, too.
func TestDifferentialBent(t *testing.T) {
	accepted, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			k := anyKey(t)
			other := joseKeys()[rapid.SampledFrom(jwt.Algorithms()).Draw(t, "other")]
			header := []string{fmt.Sprintf(`"alg":%q`, k.Algorithm()), `"typ":"at+jwt"`, fmt.Sprintf(`"kid":%q`, k.ID())}
			payload := []string{fmt.Sprintf(`"iss":%q`, joseIssuer), fmt.Sprintf(`"aud":%q`, joseAudience), `"sub":"mia"`, fmt.Sprintf(`"exp":%d`, joseNow.Unix()+300)}
			bend := func(members, with []string) string {
				for range rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}).Draw(t, "bends") {
					i := rapid.IntRange(0, len(members)-1).Draw(t, "where")
					piece := rapid.SampledFrom(with).Draw(t, "with")
					switch rapid.IntRange(0, 3).Draw(t, "how") {
					case 0:
						members = append(slices.Clone(members), piece)
					case 1:
						members = slices.Insert(slices.Clone(members), i, piece)
					case 2:
						members = slices.Clone(members)
						members[i] = piece
					case 3:
						if len(members) > 1 {
							members = slices.Delete(slices.Clone(members), i, i+1)
						}
					}
				}
				text := "{" + strings.Join(members, ",") + "}"
				switch rapid.IntRange(0, 20).Draw(t, "text") {
				case 0:
					i := rapid.IntRange(0, len(text)-1).Draw(t, "byte")
					text = text[:i] + string(rapid.Byte().Draw(t, "value")) + text[i+1:]
				case 1:
					text = " " + strings.ReplaceAll(text, ":", " :\n\t") + "\r\n"
				case 2:
					text += rapid.SampledFrom([]string{"{}", "x", "\x00", ",", "}"}).Draw(t, "tail")
				}
				return text
			}
			token := signAs(t, k, bend(header, []string{`"alg":"none"`, `"alg":"HS256"`, `"Alg":"none"`, `"alg":null`, `"alg":["EdDSA"]`, fmt.Sprintf(`"alg":%q`, other.Algorithm()),
				`"typ":"JWT"`, `"typ":1`, `"kid":""`, fmt.Sprintf(`"kid":%q`, other.ID()), fmt.Sprintf(`"KID":%q`, other.ID()), `"crit":["exp"]`, `"crit":[]`, `"b64":false`,
				`"jku":"https://evil.example"`, `"x5c":[]`, `"jwk":{}`, `"x":{"a":1,"a":2}`, `"x":1`, `"cty":"JWT"`, `"zip":"DEF"`, `"x5t":"AA"`}),
				bend(payload, []string{`"exp":1`, `"exp":"9999999999"`, `"exp":null`, `"exp":9999999999.9`, `"exp":1e300`, `"exp":-1`, `"Exp":9999999999`, `"nbf":9999999999`,
					fmt.Sprintf(`"nbf":%d`, joseNow.Unix()+30), fmt.Sprintf(`"exp":%d`, joseNow.Unix()-29), fmt.Sprintf(`"exp":%d`, joseNow.Unix()-30), `"iat":9999999999`, `"nbf":"1"`,
					`"aud":[]`, `"aud":["x","https://api.example"]`, `"aud":["https://api.example",1]`, `"aud":null`, `"iss":["https://id.example"]`, `"ISS":"x"`, `"sub":1`, `"sub":null`,
					`"SUB":"root"`, `"sub":"root"`, `"\u0073ub":"root"`, `"x":[[[[[[]]]]]]`, `"x":[[[[[[[[[[]]]]]]]]]]`, `"sub":"\ud800"`, `"sub":"ä\u00e4\/"`, `"x":01`, `"x":.5`, `"x":+1`, `"x":NaN`,
					`"x":"` + "\t" + `"`, `"x":'a'`, `/**/"x":1`, `"scope":"a  b"`, `"tenant":-1`}))
			switch rapid.IntRange(0, 10).Draw(t, "serial") {
			case 0:
				i := rapid.IntRange(0, len(token)-1).Draw(t, "at")
				token = token[:i] + rapid.SampledFrom([]string{"A", "_", "=", "+", ".", "\n", " ", ""}).Draw(t, "char") + token[i+1:]
			case 1:
				i := rapid.IntRange(0, len(token)).Draw(t, "at")
				token = token[:i] + rapid.SampledFrom([]string{"A", "=", ".", "\n", "\r\n"}).Draw(t, "char") + token[i:]
			}
			agree(t, token, false)
			if _, err := oursSays(token); err == nil {
				accepted++
			} else {
				refused++
			}
		}
	})
	t.Logf("%d accepted, %d refused", accepted, refused)
	if accepted == 0 || refused == 0 {
		t.Error("the tokens were not bent well")
	}
}

func FuzzDifferential(f *testing.F) {
	k := joseKeys()[jwt.EdDSA]
	f.Add(`{"alg":"EdDSA","typ":"at+jwt","kid":"K"}`, fmt.Sprintf(`{"iss":"%s","aud":"%s","sub":"a","exp":%d}`, joseIssuer, joseAudience, joseNow.Unix()+1), -1, byte(0))
	f.Add(`{"alg":"EdDSA","typ":"at+jwt","kid":"K","cty":"x"}`, fmt.Sprintf(`{"iss":"%s","aud":["%s"],"exp":%d.5,"x":{}}`, joseIssuer, joseAudience, joseNow.Unix()+1), 7, byte('A'))
	f.Fuzz(func(t *testing.T, header, payload string, at int, b byte) {
		if len(header)+len(payload) > 5000 {
			return
		}
		token := []byte(signAs(t, k, strings.Replace(header, `"K"`, `"`+k.ID()+`"`, 1), payload))
		if at >= 0 {
			token[at%len(token)] = b
		}
		agree(t, string(token), false)
	})
}
