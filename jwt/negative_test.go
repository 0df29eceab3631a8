package jwt_test

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
)

var b64 = base64.RawURLEncoding.EncodeToString

// signed returns a token with any header and payload, signed by the Ed25519 key whatever they say.
func signed(header, payload string) string {
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	sig, err := signingKeys()[jwt.EdDSA].Signer().Sign(nil, []byte(input), crypto.Hash(0))
	if err != nil {
		panic(err)
	}
	return input + "." + b64(sig)
}

// header returns the header of a good token, with more members at its end.
func header(more string) string {
	return fmt.Sprintf(`{"alg":"EdDSA","typ":"at+jwt","kid":"%s"%s}`, signingKeys()[jwt.EdDSA].ID(), more)
}

// body returns good claims, with more members at their end.
func body(more string) string {
	return fmt.Sprintf(`{"iss":"%s","aud":"%s","sub":"mia","exp":%d,"iat":%d%s}`, issuer, audience, now.Unix()+300, now.Unix(), more)
}

// hmacSigned is the attack of a public key taken for an HMAC key.
func hmacSigned(key []byte) string {
	input := b64([]byte(strings.Replace(header(""), "EdDSA", "HS256", 1))) + "." + b64([]byte(body("")))
	m := hmac.New(sha256.New, key)
	m.Write([]byte(input))
	return input + "." + b64(m.Sum(nil))
}

func TestRefused(t *testing.T) {
	keys := signingKeys()
	good := signed(header(""), body(""))
	parts := strings.Split(good, ".")
	if _, err := verifier(t).Verify(t.Context(), good); err != nil {
		t.Fatalf("the token that all the others are made from: %v", err)
	}
	public := keys[jwt.EdDSA].Public()
	jwk, _ := json.Marshal(public)
	der, err := x509.MarshalPKIXPublicKey(public.Key())
	if err != nil {
		t.Fatal(err)
	}
	es, err := keys[jwt.ES256].Sign(jwt.TypeAccessToken, claims())
	if err != nil {
		t.Fatal(err)
	}
	es = es[:strings.LastIndexByte(es, '.')+1]
	replace := func(s, old, new string) string {
		out := strings.Replace(s, old, new, 1)
		if out == s {
			t.Fatalf("%q is not in %s", old, s)
		}
		return out
	}
	headerIs := func(old, new string) string { return signed(replace(header(""), old, new), body("")) }
	bodyIs := func(old, new string) string { return signed(header(""), replace(body(""), old, new)) }
	exp := fmt.Sprintf(`"exp":%d`, now.Unix()+300)
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	tests := map[string]struct {
		token string
		want  error
	}{
		// the form
		"nothing":                      {"", jwt.ErrMalformed},
		"the word null":                {"null", jwt.ErrMalformed},
		"two parts":                    {parts[0] + "." + parts[1], jwt.ErrMalformed},
		"four parts":                   {good + ".x", jwt.ErrMalformed},
		"five parts, a JWE":            {good + ".x.y", jwt.ErrMalformed},
		"ten thousand dots":            {strings.Repeat(".", 10000), jwt.ErrMalformed},
		"too large":                    {parts[0] + "." + strings.Repeat("A", 8192) + "." + parts[2], jwt.ErrMalformed},
		"too large a header":           {strings.Repeat("A", 4096) + ".e30.AA", jwt.ErrMalformed},
		"white space around":           {" " + good, jwt.ErrMalformed},
		"a line end within":            {good[:10] + "\n" + good[10:], jwt.ErrMalformed},
		"a line end in the payload":    {parts[0] + "." + parts[1] + "\n." + parts[2], jwt.ErrMalformed},
		"a line end in the signature":  {good + "\r\n", jwt.ErrMalformed},
		"padding":                      {good + "==", jwt.ErrMalformed},
		"standard base64":              {good[:len(good)-6] + "+/" + good[len(good)-4:], jwt.ErrMalformed},
		"unused bits in the signature": {flipUnused(good), jwt.ErrMalformed},
		// the header
		"a header that is no object":      {signed(`["EdDSA"]`, body("")), jwt.ErrMalformed},
		"a header and more":               {signed(header("")+"{}", body("")), jwt.ErrMalformed},
		"alg twice":                       {signed(header(`,"alg":"EdDSA"`), body("")), jwt.ErrMalformed},
		"alg once more in another case":   {signed(header(`,"Alg":"none"`), body("")), jwt.ErrMalformed},
		"alg spelled with an escape, too": {signed(header(`,"\u0061lg":"none"`), body("")), jwt.ErrMalformed},
		"alg in another case alone":       {headerIs(`"alg"`, `"ALG"`), jwt.ErrMalformed},
		"no alg":                          {headerIs(`"alg":"EdDSA",`, ``), jwt.ErrAlgorithm},
		"alg a list":                      {headerIs(`"EdDSA"`, `["EdDSA"]`), jwt.ErrMalformed},
		"alg null":                        {headerIs(`"EdDSA"`, `null`), jwt.ErrMalformed},
		"alg empty":                       {headerIs(`"EdDSA"`, `""`), jwt.ErrAlgorithm},
		"alg none":                        {headerIs(`EdDSA`, `none`), jwt.ErrAlgorithm},
		"alg none without signature":      {b64([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + parts[1] + ".", jwt.ErrAlgorithm},
		"alg nOnE":                        {headerIs(`EdDSA`, `nOnE`), jwt.ErrAlgorithm},
		"alg eddsa":                       {headerIs(`EdDSA`, `eddsa`), jwt.ErrAlgorithm},
		"alg of another key":              {headerIs(`EdDSA`, `ES256`), jwt.ErrAlgorithm},
		"alg HS256 with the JWK":          {hmacSigned(jwk), jwt.ErrAlgorithm},
		"alg HS256 with the DER":          {hmacSigned(der), jwt.ErrAlgorithm},
		"alg HS256 with the PEM": {hmacSigned(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
			jwt.ErrAlgorithm},
		"alg HS256, an empty key": {hmacSigned(nil), jwt.ErrAlgorithm},
		"jwk":                     {signed(header(`,"jwk":`+string(jwk)), body("")), jwt.ErrMalformed},
		"jku":                     {signed(header(`,"jku":"https://evil.example/jwks"`), body("")), jwt.ErrMalformed},
		"x5u":                     {signed(header(`,"x5u":"https://evil.example/x"`), body("")), jwt.ErrMalformed},
		"x5c":                     {signed(header(`,"x5c":["MIIB"]`), body("")), jwt.ErrMalformed},
		"crit":                    {signed(header(`,"crit":["exp"]`), body("")), jwt.ErrMalformed},
		"crit, empty":             {signed(header(`,"crit":[]`), body("")), jwt.ErrMalformed},
		"b64":                     {signed(header(`,"crit":["b64"],"b64":false`), body("")), jwt.ErrMalformed},
		"b64 without crit":        {signed(header(`,"b64":true`), body("")), jwt.ErrMalformed},
		"zip":                     {signed(header(`,"zip":"DEF"`), body("")), jwt.ErrMalformed},
		"Jwk":                     {signed(header(`,"Jwk":{}`), body("")), jwt.ErrMalformed},
		"no typ":                  {headerIs(`"typ":"at+jwt",`, ``), jwt.ErrType},
		"typ JWT":                 {headerIs(`at+jwt`, `JWT`), jwt.ErrType},
		"typ of an ID token":      {headerIs(`at+jwt`, `logout+jwt`), jwt.ErrType},
		"no kid":                  {headerIs(`,"kid":"`+public.ID()+`"`, ``), jwt.ErrUnknownKey},
		"an empty kid":            {headerIs(public.ID(), ``), jwt.ErrMalformed},
		"an unknown kid":          {headerIs(public.ID(), `../../dev/null`), jwt.ErrUnknownKey},
		"a kid of another key":    {headerIs(public.ID(), keys[jwt.ES256].ID()), jwt.ErrAlgorithm},
		"a kid that is long":      {headerIs(public.ID(), strings.Repeat("k", 129)), jwt.ErrMalformed},
		"a kid that is a number":  {headerIs(`"`+public.ID()+`"`, `1`), jwt.ErrMalformed},
		// the signature
		"no signature":              {parts[0] + "." + parts[1] + ".", jwt.ErrSignature},
		"half a signature":          {good[:len(good)-46], jwt.ErrSignature},
		"another's signature":       {parts[0] + "." + parts[1] + "." + strings.Split(signed(header(""), "{}"), ".")[2], jwt.ErrSignature},
		"another payload":           {parts[0] + "." + b64([]byte(body(`,"scope":"admin"`))) + "." + parts[2], jwt.ErrSignature},
		"psychic: r = s = 0":        {es + b64(make([]byte, 64)), jwt.ErrSignature},
		"a DER signature":           {es + b64(derSignature(t, es[:len(es)-1])), jwt.ErrSignature},
		"r and s with zeros before": {es + b64(make([]byte, 66)), jwt.ErrSignature},
		// the claims
		"claims that are no object":      {signed(header(""), `"mia"`), jwt.ErrClaims},
		"no claims at all":               {signed(header(""), ``), jwt.ErrClaims},
		"claims and more":                {signed(header(""), body("")+`{"sub":"root"}`), jwt.ErrClaims},
		"broken UTF-8":                   {bodyIs(`mia`, "m\xffa"), jwt.ErrClaims},
		"half a character":               {bodyIs(`mia`, `m\ud800a`), jwt.ErrClaims},
		"sub twice":                      {signed(header(""), body(`,"sub":"root"`)), jwt.ErrClaims},
		"sub again as SUB":               {signed(header(""), body(`,"SUB":"root"`)), jwt.ErrClaims},
		"Exp alone":                      {bodyIs(`"exp"`, `"Exp"`), jwt.ErrClaims},
		"ſub":                            {signed(header(""), body(`,"ſub":"root"`)), jwt.ErrClaims},
		"private names alike":            {signed(header(""), body(`,"role":1,"Role":2`)), jwt.ErrClaims},
		"twice, deep within":             {signed(header(""), body(`,"x":{"a":{"b":1,"b":2}}`)), jwt.ErrClaims},
		"nested too deep":                {signed(header(""), body(`,"x":[[[[[[[[1]]]]]]]]`)), jwt.ErrClaims},
		"sub a number":                   {bodyIs(`"mia"`, `1`), jwt.ErrClaims},
		"scope a list":                   {signed(header(""), body(`,"scope":["a"]`)), jwt.ErrClaims},
		"scope with two spaces":          {signed(header(""), body(`,"scope":"a  b"`)), jwt.ErrClaims},
		"no exp":                         {bodyIs(exp+",", ``), jwt.ErrClaims},
		"exp a text":                     {bodyIs(exp, fmt.Sprintf(`"exp":"%d"`, at(time.Hour))), jwt.ErrClaims},
		"exp null":                       {bodyIs(exp, `"exp":null`), jwt.ErrClaims},
		"exp huge":                       {bodyIs(exp, `"exp":99999999999999999999`), jwt.ErrClaims},
		"exp with a large exponent":      {bodyIs(exp, `"exp":1e12`), jwt.ErrClaims},
		"exp beyond all numbers":         {bodyIs(exp, `"exp":1e999`), jwt.ErrClaims},
		"exp negative, with an exponent": {bodyIs(exp, `"exp":-1.5e9`), jwt.ErrClaims},
		"exp negative":                   {bodyIs(exp, `"exp":-1`), jwt.ErrClaims},
		"exp with a leading zero":        {bodyIs(exp, `"exp":01800000000`), jwt.ErrClaims},
		"an unknown confirmation":        {signed(header(""), body(`,"cnf":{"kid":"`+thumbprint+`"}`)), jwt.ErrClaims},
		"an empty confirmation":          {signed(header(""), body(`,"cnf":{}`)), jwt.ErrClaims},
		"a short thumbprint":             {signed(header(""), body(`,"cnf":{"jkt":"abc"}`)), jwt.ErrClaims},
		"too many actors":                {signed(header(""), body(`,"act":{"act":{"act":{"act":{"act":{}}}}}`)), jwt.ErrClaims},
		"an actor's SUB":                 {signed(header(""), body(`,"act":{"SUB":"root"}`)), jwt.ErrClaims},
		"tenant a fraction":              {signed(header(""), body(`,"tenant":1.5`)), jwt.ErrClaims},
		"65 private claims":              {signed(header(""), body(many(65))), jwt.ErrClaims},
		"another issuer":                 {bodyIs(issuer, issuer+"/"), jwt.ErrIssuer},
		"no issuer":                      {bodyIs(`"iss":"`+issuer+`",`, ``), jwt.ErrIssuer},
		"another audience":               {bodyIs(`"aud":"`+audience, `"aud":"https://other.example`), jwt.ErrAudience},
		"no audience":                    {bodyIs(`"aud":"`+audience+`",`, ``), jwt.ErrAudience},
		"audience an empty list":         {bodyIs(`"`+audience+`"`, `[]`), jwt.ErrAudience},
		"audience a prefix":              {bodyIs(audience, audience[:len(audience)-1]), jwt.ErrAudience},
		"audience a number in a list":    {bodyIs(`"`+audience+`"`, `["`+audience+`",1]`), jwt.ErrClaims},
		"expired":                        {bodyIs(exp, fmt.Sprintf(`"exp":%d`, at(-30*time.Second))), jwt.ErrExpired},
		"expired in 1970":                {bodyIs(exp, `"exp":0`), jwt.ErrExpired},
		"not yet":                        {signed(header(""), body(fmt.Sprintf(`,"nbf":%d`, at(31*time.Second)))), jwt.ErrNotYetValid},
		"issued in the future": {bodyIs(fmt.Sprintf(`"iat":%d`, now.Unix()), fmt.Sprintf(`"iat":%d`, at(time.Minute))),
			jwt.ErrNotYetValid},
	}
	for name, tt := range tests {
		c, err := verifier(t).Verify(t.Context(), tt.token)
		if !errors.Is(err, tt.want) || c != nil {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
			continue
		}
		if !errors.Is(err, jwt.ErrInvalid) || jwt.ReasonOf(err) == "" || errors.Is(err, jwt.ErrUnavailable) {
			t.Errorf("%s: %v is not a refusal with a reason", name, err)
		}
		for _, other := range []error{jwt.ErrMalformed, jwt.ErrAlgorithm, jwt.ErrType, jwt.ErrUnknownKey, jwt.ErrSignature, jwt.ErrClaims,
			jwt.ErrIssuer, jwt.ErrAudience, jwt.ErrExpired, jwt.ErrNotYetValid} {
			if other != tt.want && errors.Is(err, other) {
				t.Errorf("%s: %v is %v, too", name, err, other)
			}
		}
		for _, secret := range []string{"mia", "root", "evil", "example", "ses_", parts[2][:8]} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error repeats the token: %v", name, err)
			}
		}
	}
	if len(tests) < 60 {
		t.Errorf("only %d cases", len(tests))
	}
}

// What looks strange and is right.
func TestAccepted(t *testing.T) {
	exp := fmt.Sprintf(`"exp":%d`, now.Unix()+300)
	public := signingKeys()[jwt.EdDSA].Public()
	for name, token := range map[string]string{
		"white space":                 signed(strings.ReplaceAll(header(""), ",", " ,\r\n\t"), " "+body("")+"\n"),
		"typ with application/":       signed(strings.Replace(header(""), "at+jwt", "application/at+jwt", 1), body("")),
		"typ in another case":         signed(strings.Replace(header(""), "at+jwt", "AT+JWT", 1), body("")),
		"the name of RFC 9864":        signed(strings.Replace(header(""), "EdDSA", "Ed25519", 1), body("")),
		"unknown header members":      signed(header(`,"x5t":"a","cty":"json","foo":{"bar":[1]}`), body("")),
		"audience in a list":          signed(header(""), strings.Replace(body(""), `"`+audience+`"`, `["x","`+audience+`"]`, 1)),
		"a fraction":                  signed(header(""), strings.Replace(body(""), exp, exp+".25", 1)),
		"a fraction of many digits":   signed(header(""), strings.Replace(body(""), exp, exp+".123456789123456789", 1)),
		"an exponent":                 signed(header(""), strings.Replace(body(""), exp, `"exp":1.8446744073e+09`, 1)),
		"escapes":                     signed(header(""), strings.Replace(body(""), `"sub":"mia"`, `"\u0073ub":"\ud83d\ude00\/\n\"\\"`, 1)),
		"expired within the leeway":   signed(header(""), strings.Replace(body(""), exp, fmt.Sprintf(`"exp":%d`, now.Unix()-29), 1)),
		"not yet, within the leeway":  signed(header(""), body(fmt.Sprintf(`,"nbf":%d`, now.Unix()+30))),
		"an empty scope":              signed(header(""), body(`,"scope":""`)),
		"64 private claims":           signed(header(""), body(many(64))),
		"an actor with other members": signed(header(""), body(`,"act":{"sub":"a","name":"b","act":{"act":{"act":{}}}}`)),
		"tenant 0":                    signed(header(""), body(`,"tenant":0`)),
	} {
		if _, err := verifier(t).Verify(t.Context(), token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A set of one key needs no kid, and clients' assertions need no type.
	v := verifier(t)
	v.Type = jwt.TypeUntyped
	v.Keys, _ = jwt.NewKeys(public)
	if _, err := v.Verify(t.Context(), signed(`{"alg":"EdDSA"}`, body(""))); err != nil {
		t.Error(err)
	}
	v.Leeway = -1
	if _, err := v.Verify(t.Context(), signed(`{"alg":"EdDSA"}`, strings.Replace(body(""), exp, fmt.Sprintf(`"exp":%d`, now.Unix()), 1))); !errors.Is(err, jwt.ErrExpired) {
		t.Errorf("without leeway, at the second: %v", err)
	}
	v.Algorithms = []jwt.Algorithm{jwt.RS256}
	if _, err := v.Verify(t.Context(), signed(`{"alg":"EdDSA"}`, body(""))); !errors.Is(err, jwt.ErrAlgorithm) {
		t.Errorf("an algorithm that is not accepted here: %v", err)
	}
}

// A key set that does not know is neither a yes nor a no.
func TestKeysUnavailable(t *testing.T) {
	v := verifier(t)
	v.Keys = broken{}
	if c, err := v.Verify(t.Context(), signed(header(""), body(""))); !errors.Is(err, jwt.ErrUnavailable) || errors.Is(err, jwt.ErrInvalid) || c != nil {
		t.Errorf("%v", err)
	}
	v.Keys = nothing{}
	if c, err := v.Verify(t.Context(), signed(header(""), body(""))); !errors.Is(err, jwt.ErrUnknownKey) || c != nil {
		t.Errorf("%v", err)
	}
}

type broken struct{}

func (broken) Key(context.Context, string) (*jwt.PublicKey, error) { return nil, errors.New("on fire") }

type nothing struct{}

func (nothing) Key(context.Context, string) (*jwt.PublicKey, error) { return nil, nil }

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"x%d":%d`, i, i)
	}
	return b.String()
}

// flipUnused sets one of the bits that the last character of the signature has beyond its 64 bytes.
func flipUnused(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[last|1])
}

func derSignature(t *testing.T, input string) []byte {
	h := sha256.Sum256([]byte(input))
	sig, err := signingKeys()[jwt.ES256].Signer().Sign(nil, h[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}
