package jwt_test

import (
	"testing"

	"github.com/afterlogin/afterlogin/jwt"
)

func BenchmarkSign(b *testing.B) {
	c := claims()
	c.SessionID, c.ClientID, c.Scope, c.AMR = "ses_9vXTz6Wc1kq3jB0aYFh2Gg", "shop", []string{"cart:read", "cart:write"}, []string{"pwd", "otp"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := signingKeys()[jwt.EdDSA].Sign(jwt.TypeAccessToken, c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	v, token := verifier(b), signed(header(""), body(""))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
