package grade

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash"
	"math"
	"slices"
	"strings"
	"time"
)

// A parsedJWT is a JWT that was taken apart and believed in nothing.
type parsedJWT struct {
	head, body, sign string // as they stand in the token
	header, claims   map[string]any
}

// parseJWT takes a JWT in its compact form apart (RFC 7519, section 7.2); nil: it is none.
func parseJWT(token string) *parsedJWT {
	if len(token) > maxToken*2 || strings.Count(token, ".") != 2 {
		return nil
	}
	head, rest, _ := strings.Cut(token, ".")
	body, sign, _ := strings.Cut(rest, ".")
	j := &parsedJWT{head: head, body: body, sign: sign, header: object(head), claims: object(body)}
	if _, ok := j.header["alg"].(string); !ok || j.claims == nil {
		return nil
	}
	return j
}

func object(part string) map[string]any {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(part, "="))
	var m map[string]any
	if err != nil || json.Unmarshal(b, &m) != nil {
		return nil
	}
	return m
}

func (j *parsedJWT) alg() string { s, _ := j.header["alg"].(string); return s }

// with returns the token with other parts. A nil header or claims leave them as they are.
func (j *parsedJWT) with(header, claims map[string]any, sign string) string {
	head, body := j.head, j.body
	if header != nil {
		head = encode(header)
	}
	if claims != nil {
		body = encode(claims)
	}
	return head + "." + body + "." + sign
}

func encode(m map[string]any) string {
	b, _ := json.Marshal(m) // of what came from JSON
	return base64.RawURLEncoding.EncodeToString(b)
}

// jwtTokens judges what holds for tokens of any form, where it makes sense for JWTs.
func (e *examination) jwtTokens() {
	r := e.report
	all := true
	for _, t := range e.tokens[1:] {
		all = all && t == e.tokens[0]
	}
	if last := len(e.times) - 1; all && e.times[last].to.Sub(e.times[0].from) > 3*time.Second {
		r.found("token-repeats", Medium, "every sign-in gets the very same JWT, so that none can be ended by itself; give each a jti")
	} else if all {
		r.info("token-repeats", "JWTs of sign-ins within the same seconds are the same; a jti would tell them apart")
	} else {
		r.ok("token-repeats")
	}
}

// maxSecrets bounds the secrets that are tried.
const maxSecrets = 5_000_000

// examineJWT looks at JWTs that are the credential, or stand in a cookie of their own.
func (e *examination) examineJWT(ctx context.Context) error {
	r := e.report
	v, token, err := e.fresh(ctx)
	if err != nil {
		return err
	}
	j := parseJWT(token)
	if j == nil {
		// Others that came along cannot be used in its place, but can be looked at.
		for _, name := range v.jar.names(e.judge.page) {
			value, _ := v.jar.value(e.judge.page, name)
			if other := parseJWT(value); other != nil {
				e.readJWT(other)
				if err := e.crack(ctx, other); err != nil {
					return err
				}
			}
		}
		if other := parseJWT(v.bearer); other != nil {
			e.readJWT(other)
			return e.crack(ctx, other)
		}
		return nil
	}
	e.readJWT(j)
	if err := e.crack(ctx, j); err != nil {
		return err
	}
	// A token that is fine has to be accepted now, or a refusal of the others means nothing.
	if s, err := e.with(ctx, v, token); err != nil {
		return err
	} else if s != in {
		r.unknown("jwt-none", "the page did not accept a good token this time")
		return nil
	}
	if err := e.unsigned(ctx, v, j); err != nil {
		return err
	}
	return e.forged(ctx, v, j)
}

// unsigned sends the same claims without a signature, as somebody might who is nobody.
func (e *examination) unsigned(ctx context.Context, v *visitor, j *parsedJWT) error {
	doubt := false
	for _, alg := range []string{"none", "None", "NONE", "nOnE"} {
		header := map[string]any{"alg": alg, "typ": "JWT"}
		for _, t := range []string{j.with(header, nil, ""), strings.TrimSuffix(j.with(header, nil, ""), ".")} {
			switch s, err := e.with(ctx, v, t); {
			case err != nil:
				return err
			case s == in:
				e.report.found("jwt-none", "", fmt.Sprintf("a copy with alg %q and no signature is accepted", alg))
				return nil
			case s == unclear:
				doubt = true
			}
		}
	}
	if doubt {
		e.report.unknown("jwt-none", "some answers were errors")
		return nil
	}
	e.report.ok("jwt-none", "alg none is refused in four spellings")
	return nil
}

// forged sends the token with another signature, with none, and with another payload.
func (e *examination) forged(ctx context.Context, v *visitor, j *parsedJWT) error {
	type forgery struct{ id, what, token string }
	list := []forgery{
		{"jwt-signature", "with a bit of its signature changed", j.with(nil, nil, flip(j.sign))},
		{"jwt-signature", "with an empty signature", j.with(nil, nil, "")},
	}
	claims := make(map[string]any)
	for k, val := range j.claims {
		claims[k] = val
	}
	claims["altered"] = true
	list = append(list, forgery{"jwt-payload", "with a claim more and the old signature", j.with(nil, claims, j.sign)})
	for _, f := range list {
		switch s, err := e.with(ctx, v, f.token); {
		case err != nil:
			return err
		case s == in:
			e.report.found(f.id, "", "accepted: a copy "+f.what)
		case s == unclear:
			e.report.unknown(f.id, "the page answered a copy "+f.what+" with an error")
		default:
			e.report.ok(f.id, "refused: a copy "+f.what)
		}
	}
	return nil
}

// flip changes a bit in the middle of the signature: bits at the end may be none of it.
func flip(sign string) string {
	b, err := base64.RawURLEncoding.DecodeString(sign)
	if err != nil || len(b) == 0 {
		return "AAAA"
	}
	b[len(b)/2] ^= 1
	return base64.RawURLEncoding.EncodeToString(b)
}

// sensitive are claims that nobody has to know who holds the token.
var sensitive = []string{"password", "passwd", "pwd", "password_hash", "hash", "secret", "api_key", "apikey", "private_key", "ssn", "card", "credit_card", "card_number", "cvv", "iban", "totp", "otp", "mfa_secret"}

// personal are claims about a person that tokens of APIs often carry, and those of sessions need not.
var personal = []string{"email", "phone", "phone_number", "address", "birthdate", "name", "given_name", "family_name"}

// readJWT judges what stands in a JWT.
func (e *examination) readJWT(j *parsedJWT) {
	r := e.report
	number := func(name string) (float64, bool) { f, ok := j.claims[name].(float64); return f, ok }
	now := float64(e.Now().Unix())
	switch exp, ok := number("exp"); {
	case !ok:
		r.found("jwt-expiry", "", "there is no exp")
	case exp-now > 366*86400:
		r.found("jwt-expiry", "", "it is good for "+days(time.Duration(math.Min(exp-now, 1e9))*time.Second))
	case exp-now > 31*86400:
		r.found("jwt-expiry", Low, "it is good for "+days(time.Duration(exp-now)*time.Second))
	default:
		r.ok("jwt-expiry", "good for "+days(time.Duration(exp-now)*time.Second))
	}
	var secret, person []string
	for name := range j.claims {
		if slices.Contains(sensitive, strings.ToLower(name)) {
			secret = append(secret, clip(printable(name), 40))
		}
		if slices.Contains(personal, strings.ToLower(name)) {
			person = append(person, clip(printable(name), 40))
		}
	}
	slices.Sort(secret)
	slices.Sort(person)
	switch {
	case len(secret) > 0:
		r.found("jwt-claims", "", "claims: "+strings.Join(secret, ", "))
	case len(person) > 0:
		r.info("jwt-claims", "claims about a person, readable by whoever has the token: "+strings.Join(person, ", "))
	default:
		r.ok("jwt-claims", fmt.Sprintf("%d claims", len(j.claims)))
	}
}

// usualSecrets are those of examples, tutorials and defaults.
var usualSecrets = []string{
	"", "secret", "Secret", "SECRET", "secret1", "secret123", "secretkey", "secret_key", "secret-key", "mysecret", "my_secret", "my-secret", "mysecretkey",
	"my-secret-key", "my_secret_key", "supersecret", "super-secret", "super_secret", "supersecretkey", "super-secret-key", "super_secret_key", "topsecret",
	"your-256-bit-secret", "your-384-bit-secret", "your-512-bit-secret", "your-256-bit-secret-key", "your_secret_key", "your-secret-key", "yoursecretkey", "your_jwt_secret", "your-jwt-secret", "your_secret", "your-secret",
	"a-string-secret-at-least-256-bits-long", "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
	"changeme", "change-me", "change_me", "changeit", "ChangeMe", "please-change-me", "replace-me", "replaceme", "CHANGEME", "todo",
	"jwt", "jwtsecret", "jwt_secret", "jwt-secret", "jwt_secret_key", "JWT_SECRET", "jwtSecret", "jwtsecretkey", "jwtkey", "jwt_key", "token", "tokensecret", "token_secret", "access_token_secret", "ACCESS_TOKEN_SECRET", "refresh_token_secret",
	"key", "private", "privatekey", "private_key", "private-key", "hmac", "hmac-secret", "HS256", "hs256", "signature", "signingkey", "signing-key", "session", "session_secret", "sessionsecret", "session-secret", "keyboard cat", "keyboard-cat",
	"password", "Password", "passw0rd", "password1", "password123", "admin", "root", "toor", "test", "test123", "testing", "testsecret", "test-secret", "demo", "dev", "development", "example", "sample", "default", "default_secret", "foo", "bar", "foobar", "abc", "abc123", "hello", "qwerty", "letmein", "123", "1234", "12345", "123456", "12345678", "123456789", "1234567890", "0000", "00000000", "shhhhh", "shhhh", "shhh", "shh", "s3cr3t", "s3cret", "SuperSecret", "SuperSecretKey", "ThisIsASecret", "thisisasecret", "this is a secret", "thisismysecret", "this_is_secret", "some-secret", "some_secret", "somesecret", "app_secret", "appsecret", "django-insecure", "laravel", "express", "spring", "node", "golang", "api", "auth", "authsecret", "auth_secret", "AllYourBase", "gin", "none", "null", "undefined", "nil",
	"00000000000000000000000000000000", "01234567890123456789012345678901", "0123456789abcdef0123456789abcdef", "abcdefghijklmnopqrstuvwxyz123456", "GQDstcKsx0NHjPOuXOYg5MbeJ1XT0uFiwDVvVBrk",
}

// crack tries the lists on a JWT that is signed with a shared secret.
func (e *examination) crack(ctx context.Context, j *parsedJWT) error {
	r := e.report
	var h func() hash.Hash
	switch j.alg() {
	case "HS256":
		h = sha256.New
	case "HS384":
		h = sha512.New384
	case "HS512":
		h = sha512.New
	default:
		if !strings.EqualFold(j.alg(), "none") {
			r.ok("jwt-secret", "signed with "+clip(printable(j.alg()), 20)+": there is no shared secret")
		}
		return nil
	}
	want, err := base64.RawURLEncoding.DecodeString(j.sign)
	if err != nil {
		return nil
	}
	text := []byte(j.head + "." + j.body)
	tried := 0
	var sum []byte
	is := func(secret string) bool {
		tried++
		m := hmac.New(h, []byte(secret))
		m.Write(text)
		sum = m.Sum(sum[:0])
		return hmac.Equal(sum, want)
	}
	found := func(secret, list string) error {
		r.found("jwt-secret", "", fmt.Sprintf("the secret is in the list of %s (%d characters)", list, len(secret)))
		return nil
	}
	for _, s := range append([]string{e.User, e.base.Hostname()}, usualSecrets...) {
		if is(s) {
			return found(s, "usual ones")
		}
		if b, err := base64.StdEncoding.DecodeString(s); err == nil && len(b) > 0 && is(string(b)) {
			return found(s, "usual ones, decoded from base64")
		}
	}
	if e.Secrets != nil {
		for s := range e.Secrets {
			if tried%10000 == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if tried >= maxSecrets {
				break
			}
			if is(s) {
				return found(s, "known passwords and those that were given")
			}
		}
	}
	r.ok("jwt-secret", fmt.Sprintf("%d secrets were tried; one of 32 random bytes would not be found, and a poor one that is in no list, neither", tried))
	return nil
}
