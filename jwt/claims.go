package jwt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxActors is how many actors may stand behind each other in the act claim.
const MaxActors = 4

// MaxExtra is how many private claims a token may have.
const MaxExtra = 64

// Claims are what a token says: the registered claims (RFC 7519, 4.1), those of access tokens (RFC 9068, RFC 8693), and
// private ones. A zero field is a claim that is not there. Times are to the second when they are signed.
type Claims struct {
	Issuer    string    // iss; must be there when signing
	Subject   string    // sub
	Audience  []string  // aud; must be there. One stands as a string, more as a list. At most 32
	Expiry    time.Time // exp; must be there
	IssuedAt  time.Time // iat; must be there when signing
	NotBefore time.Time // nbf
	ID        string    // jti

	SessionID string    // sid: the session that the token lives under
	ClientID  string    // client_id
	Scope     []string  // scope: on the wire one text, separated by spaces
	AuthTime  time.Time // auth_time: when the person last proved who they are
	AMR       []string  // amr: how (RFC 8176). At most 32
	ACR       string    // acr

	// Confirmation is cnf: the token is worthless without the key it names. Nil is a bearer token.
	Confirmation *Confirmation
	// Actor is act: who acts for the subject (RFC 8693, 4.1). Nil is the subject itself.
	Actor *Actor
	// Tenant is tenant: whose subject it is; 0 is the only one there is in most installations.
	Tenant uint32

	// Extra holds all other claims: at most 64, each any JSON value, at most 8 deep with the claims around it.
	Extra map[string]json.RawMessage
}

// A Confirmation names the key that the sender of a token must prove to hold (RFC 7800). Exactly one is set.
type Confirmation struct {
	JWKThumbprint         string // jkt: of a DPoP key (RFC 9449, 6.1)
	CertificateThumbprint string // x5t#S256: of a client certificate (RFC 8705, 3.1)
}

// An Actor is who acts for the subject, and who acted for the actor before (RFC 8693, 4.1).
type Actor struct {
	Subject  string // sub
	Issuer   string // iss
	ClientID string // client_id
	Actor    *Actor // act
}

// registered are the names that stand in fields of Claims.
var registered = []string{"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "sid", "client_id", "scope", "auth_time", "amr",
	"acr", "cnf", "act", "tenant"}

// parseClaims decodes the claims of a token whose signature has been checked.
func parseClaims(payload []byte) (*Claims, error) {
	c := &Claims{}
	err := members(payload, c.member)
	if err != nil {
		return nil, refuse(ReasonClaims, err.Error()) // a flaw, which holds nothing of the token
	}
	return c, nil
}

// member takes one claim.
func (c *Claims) member(name string, value []byte) error {
	ok := true
	switch name {
	case "iss":
		c.Issuer, ok = text(value)
	case "sub":
		c.Subject, ok = text(value)
	case "aud":
		if c.Audience, ok = texts(value, 32); !ok {
			var one string
			one, ok = text(value)
			c.Audience = []string{one}
		}
	case "exp":
		c.Expiry, ok = numericDate(value)
	case "iat":
		c.IssuedAt, ok = numericDate(value)
	case "nbf":
		c.NotBefore, ok = numericDate(value)
	case "jti":
		c.ID, ok = text(value)
	case "sid":
		c.SessionID, ok = text(value)
	case "client_id":
		c.ClientID, ok = text(value)
	case "scope":
		var all string
		if all, ok = text(value); ok && all != "" {
			c.Scope = strings.Split(all, " ")
			for _, s := range c.Scope {
				ok = ok && goodScope(s)
			}
		}
	case "auth_time":
		c.AuthTime, ok = numericDate(value)
	case "amr":
		c.AMR, ok = texts(value, 32)
	case "acr":
		c.ACR, ok = text(value)
	case "cnf":
		c.Confirmation, ok = parseConfirmation(value)
	case "act":
		c.Actor, ok = parseActor(value, MaxActors)
	case "tenant":
		n, err := strconv.ParseUint(string(value), 10, 32)
		c.Tenant, ok = uint32(n), err == nil
	default:
		return c.extra(name, value)
	}
	if !ok {
		return flaw(name + " is not what it must be")
	}
	return nil
}

func (c *Claims) extra(name string, value []byte) error {
	if foldsRegistered(name) {
		return flaw("a registered claim in another case")
	}
	if len(c.Extra) == MaxExtra {
		return flaw("too many private claims")
	}
	if c.Extra == nil {
		c.Extra = make(map[string]json.RawMessage)
	}
	c.Extra[name] = append(json.RawMessage(nil), value...)
	return nil
}

func foldsRegistered(name string) bool {
	for _, r := range registered {
		if strings.EqualFold(name, r) {
			return true
		}
	}
	return false
}

// maxDate is the last second of the year 9999.
const maxDate = 253402300799

// numericDate reads seconds since 1970, whole or with a fraction (RFC 7519, 2), up to the year 9999. What is finer than a
// nanosecond is dropped.
func numericDate(value []byte) (time.Time, bool) {
	if bytes.ContainsAny(value, "eE") { // as go-jose writes fractions: 1.7954496015e+09
		f, err := strconv.ParseFloat(string(value), 64)
		if err != nil || !(0 <= f && f <= maxDate) {
			return time.Time{}, false
		}
		whole, fraction := math.Modf(f)
		return time.Unix(int64(whole), int64(fraction*1e9)).UTC(), true
	}
	whole, fraction, dotted := strings.Cut(string(value), ".")
	seconds, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || seconds > maxDate {
		return time.Time{}, false
	}
	var nano int64
	if dotted {
		fraction = fraction[:min(len(fraction), 9)]
		if nano, err = strconv.ParseInt(fraction+"000000000"[len(fraction):], 10, 64); err != nil {
			return time.Time{}, false
		}
	}
	return time.Unix(int64(seconds), nano).UTC(), true
}

// goodScope reports whether s is a scope-token (RFC 6749, 3.3).
func goodScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// goodThumbprint reports whether s is a SHA-256 in base64url.
func goodThumbprint(s string) bool {
	b, ok := decode64(s)
	return ok && len(b) == 32
}

// parseConfirmation reads cnf. A kind of confirmation that is not known here is refused: to overlook it would make a
// bearer token of one that is bound.
func parseConfirmation(value []byte) (*Confirmation, bool) {
	c, n := &Confirmation{}, 0
	err := members(value, func(name string, v []byte) error {
		t, ok := text(v)
		if n++; !ok || !goodThumbprint(t) {
			return flawSyntax
		}
		switch name {
		case "jkt":
			c.JWKThumbprint = t
		case "x5t#S256":
			c.CertificateThumbprint = t
		default:
			return flawSyntax
		}
		return nil
	})
	return c, err == nil && n == 1
}

func parseActor(value []byte, depth int) (*Actor, bool) {
	if depth == 0 {
		return nil, false
	}
	a := &Actor{}
	err := members(value, func(name string, v []byte) error {
		ok := true
		switch name {
		case "sub":
			a.Subject, ok = text(v)
		case "iss":
			a.Issuer, ok = text(v)
		case "client_id":
			a.ClientID, ok = text(v)
		case "act":
			a.Actor, ok = parseActor(v, depth-1)
		default:
			ok = !foldsRegistered(name)
		}
		if !ok {
			return flawSyntax
		}
		return nil
	})
	return a, err == nil
}

// appendTo appends the claims as JSON, or says why they cannot be signed.
func (c *Claims) appendTo(b []byte) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	o := object{b: append(b, '{')}
	o.text("iss", c.Issuer)
	o.text("sub", c.Subject)
	if len(c.Audience) == 1 {
		o.text("aud", c.Audience[0])
	} else {
		o.texts("aud", c.Audience)
	}
	o.date("exp", c.Expiry)
	o.date("iat", c.IssuedAt)
	o.date("nbf", c.NotBefore)
	o.text("jti", c.ID)
	o.text("sid", c.SessionID)
	o.text("client_id", c.ClientID)
	o.text("scope", strings.Join(c.Scope, " "))
	o.date("auth_time", c.AuthTime)
	o.texts("amr", c.AMR)
	o.text("acr", c.ACR)
	if n := c.Confirmation; n != nil {
		o.name("cnf")
		o.b = append(o.b, '{')
		o.text("jkt", n.JWKThumbprint)
		o.text("x5t#S256", n.CertificateThumbprint)
		o.b = append(o.b, '}')
	}
	o.actor(c.Actor)
	if c.Tenant != 0 {
		o.name("tenant")
		o.b = strconv.AppendUint(o.b, uint64(c.Tenant), 10)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Extra)) {
		o.name(name)
		o.b = append(o.b, c.Extra[name]...)
	}
	o.b = append(o.b, '}')
	if o.bad != "" {
		return nil, fmt.Errorf("%w: %s is not UTF-8", ErrUnsignable, o.bad)
	}
	if c.Extra != nil { // names that differ in case only, or too deep with what is around
		if err := members(o.b[len(b):], (&Claims{}).member); err != nil {
			return nil, fmt.Errorf("%w: the private claims together with the others are %w", ErrUnsignable, err)
		}
	}
	return o.b, nil
}

func (o *object) date(name string, t time.Time) {
	if !t.IsZero() {
		o.name(name)
		o.b = strconv.AppendInt(o.b, t.Unix(), 10)
	}
}

func (o *object) actor(a *Actor) {
	if a == nil {
		return
	}
	o.name("act")
	o.b = append(o.b, '{')
	o.text("sub", a.Subject)
	o.text("iss", a.Issuer)
	o.text("client_id", a.ClientID)
	o.actor(a.Actor)
	o.b = append(o.b, '}')
}

// check says what is missing or wrong in claims that are to be signed.
func (c *Claims) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrUnsignable}, args...)...)
	}
	switch {
	case c == nil:
		return bad("no claims")
	case c.Issuer == "":
		return bad("no issuer")
	case len(c.Audience) == 0 || len(c.Audience) > 32:
		return bad("%d audiences, want 1 to 32", len(c.Audience))
	case c.Expiry.IsZero() || c.IssuedAt.IsZero():
		return bad("no expiry, or no time of issue")
	case !c.Expiry.After(c.IssuedAt):
		return bad("expires before it is issued")
	case len(c.AMR) > 32:
		return bad("%d authentication methods, want at most 32", len(c.AMR))
	case len(c.Extra) > MaxExtra:
		return bad("%d private claims, want at most %d", len(c.Extra), MaxExtra)
	}
	for _, a := range c.Audience {
		if a == "" {
			return bad("an empty audience")
		}
	}
	for _, t := range []time.Time{c.Expiry, c.IssuedAt, c.NotBefore, c.AuthTime} {
		if !t.IsZero() && (t.Unix() < 0 || t.Unix() > maxDate) {
			return bad("a time before 1970 or after 9999")
		}
	}
	for _, s := range c.Scope {
		if !goodScope(s) {
			return bad("a scope that is empty or has characters other than RFC 6749, 3.3 allows")
		}
	}
	if n := c.Confirmation; n != nil && ((n.JWKThumbprint == "") == (n.CertificateThumbprint == "") ||
		!goodThumbprint(n.JWKThumbprint+n.CertificateThumbprint)) {
		return bad("a confirmation must be one SHA-256 thumbprint in base64url")
	}
	depth := 0
	for a := c.Actor; a != nil; a = a.Actor {
		if depth++; depth > MaxActors {
			return bad("more than %d actors behind each other", MaxActors)
		}
	}
	for name, value := range c.Extra {
		if foldsRegistered(name) {
			return bad("a private claim by the name of a registered one: %q", name)
		}
		if !oneValue(value) {
			return bad("the private claim %q is not one strict JSON value", name)
		}
	}
	return nil
}
