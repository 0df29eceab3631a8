// Package jwt signs and verifies JSON Web Tokens (RFC 7519) the way RFC 8725 asks for, and reads and writes the keys for
// it (RFC 7517, 7518, 8037, 7638). It owns the text of the token and the rules for it; it knows neither sessions nor
// HTTP, and stands on the standard library alone.
//
// What is strict: a token has a type and an audience, or there is no verification. A key has one algorithm, and the
// header must agree with it. No key and no address of a key is ever taken from a token. Header and claims are decoded
// strictly: a member that stands there twice, or as "Exp", ends it. A token is at most [MaxSize] bytes. There is no way
// to read the claims of a token that was not verified, and no switch that leaves a check out.
//
// Start with [Verifier] for tokens that others issued, with keys from package remote, from [ParseJWKS] or from a
// keyring; and with [GenerateKey] or a keyring for issuing them.
package jwt
