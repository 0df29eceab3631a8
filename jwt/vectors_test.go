package jwt_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"

	"github.com/afterlogin/afterlogin/jwt"
)

func mustKey(t testing.TB, jwk string) *jwt.PublicKey {
	t.Helper()
	k, err := jwt.ParseJWK([]byte(jwk))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The keys and tokens of RFC 7515, appendix A.
const (
	rfc7515RSA = `{"kty":"RSA",
		"n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
		"e":"AQAB"}`
	rfc7515EC      = `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`
	rfc7515Payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	rfc7515A1      = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + rfc7515Payload + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	rfc7515A2      = "eyJhbGciOiJSUzI1NiJ9." + rfc7515Payload + ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
	rfc7515A3      = "eyJhbGciOiJFUzI1NiJ9." + rfc7515Payload + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
	rfc7515A4      = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"
	rfc7515A5      = "eyJhbGciOiJub25lIn0." + rfc7515Payload + "."
	rfc7515A6      = `{"payload":"` + rfc7515Payload + `","signatures":[{"protected":"eyJhbGciOiJFUzI1NiJ9","header":{"kid":"e9bc097a-ce51-4036-9562-d2ade882db0d"},"signature":"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"}]}`
)

func TestRFC7515(t *testing.T) {
	want, err := base64.RawURLEncoding.DecodeString(rfc7515Payload)
	if err != nil {
		t.Fatal(err)
	}
	rsa, ec := mustKey(t, rfc7515RSA), mustKey(t, rfc7515EC)
	for name, tt := range map[string]struct {
		key   *jwt.PublicKey
		token string
		err   error
	}{
		"A.1 HS256":               {rsa, rfc7515A1, jwt.ErrAlgorithm},
		"A.2 RS256":               {rsa, rfc7515A2, nil},
		"A.3 ES256":               {ec, rfc7515A3, nil},
		"A.2 with the key of A.3": {ec, rfc7515A2, jwt.ErrAlgorithm},
		"A.3 with the key of A.2": {rsa, rfc7515A3, jwt.ErrAlgorithm},
		"A.4 ES512":               {ec, rfc7515A4, jwt.ErrAlgorithm},
		"A.5 none":                {ec, rfc7515A5, jwt.ErrAlgorithm},
		"A.6 JSON":                {ec, rfc7515A6, jwt.ErrMalformed},
	} {
		got, err := tt.key.VerifyJWS(tt.token)
		if !errors.Is(err, tt.err) || err == nil && string(got) != string(want) || err != nil && got != nil {
			t.Errorf("%s: %q, %v, want %v", name, got, err, tt.err)
		}
	}
}

// RFC 8037, appendix A.
func TestRFC8037(t *testing.T) {
	const (
		d     = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
		jwk   = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
		print = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
		jws   = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
	)
	seed, err := base64.RawURLEncoding.DecodeString(d)
	if err != nil {
		t.Fatal(err)
	}
	private, err := jwt.NewSigningKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	k := mustKey(t, jwk)
	if !k.Equal(private.Public()) || k.Thumbprint() != print || k.ID() != print || private.ID() != print {
		t.Errorf("thumbprint %s, want %s", k.Thumbprint(), print)
	}
	if got, err := k.VerifyJWS(jws); err != nil || string(got) != "Example of Ed25519 signing" {
		t.Errorf("%q, %v", got, err)
	}
	// Ed25519 signs the same the same way: the example's signature comes out again.
	const input = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
	sig, err := private.Signer().Sign(nil, []byte(input), &ed25519.Options{})
	if err != nil || input+"."+base64.RawURLEncoding.EncodeToString(sig) != jws {
		t.Errorf("signed otherwise than the RFC: %v", err)
	}
}

// RFC 7638, 3.1.
func TestRFC7638(t *testing.T) {
	k := mustKey(t, `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`)
	if got, want := k.Thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"; got != want || k.ID() != "2011-04-29" {
		t.Errorf("thumbprint %s, want %s; id %s", got, want, k.ID())
	}
	j, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	if again := mustKey(t, string(j)); !again.Equal(k) || again.ID() != k.ID() {
		t.Errorf("%s came back as another key", j)
	}
}
