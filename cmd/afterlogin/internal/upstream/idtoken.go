package upstream

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
)

// Bounds of what a token says.
const (
	maxSubject = 255 // OpenID Connect Core 1.0, 2
	maxSID     = 255
	maxAMR     = 16
	skew       = 2 * time.Minute // what clocks may differ by
	maxOld     = attemptTime     // how long ago a token may have been made
)

// longAgo is when people proved who they are whose provider does not say when.
var longAgo = time.Unix(1, 0).UTC()

// claims is what an ID token says, after all checks.
type claims struct {
	subject string
	sid     string // "": none
	issued  time.Time
	at      time.Time
	methods []string
}

// Why an ID token that is good is not enough.
var (
	errStale = errors.New("the provider does not say that the person has signed in recently enough")
	errACR   = errors.New("the provider does not say that the person has signed in in the way that is asked for")
)

// proved is a token whose signature was checked. It is an oidc.KeySet of that one token, so that go-oidc checks the rest.
type proved struct {
	token   string
	typ     string // in lower case, "" if there is none
	payload []byte
}

// VerifySignature returns the payload.
func (t proved) VerifySignature(_ context.Context, token string) ([]byte, error) {
	if token != t.token {
		return nil, errSignature
	}
	return t.payload, nil
}

// prove checks the signature of a token, and whether it is one of the algorithms in the provider's metadata.
func (u *Upstream) prove(ctx context.Context, p *provider, m *metadata, raw string) (proved, error) {
	s := signed{p, m.algorithms}
	jws, err := s.parse(raw)
	if err != nil {
		return proved{}, err
	}
	typ, ok := typeOf(jws)
	if !ok {
		return proved{}, errTokenForm
	}
	payload, err := s.verify(ctx, jws)
	return proved{raw, typ, payload}, err
}

// verifier returns go-oidc's checks of the token.
func (u *Upstream) verifier(p *provider, m *metadata, t proved) *oidc.IDTokenVerifier {
	return oidc.NewVerifier(p.Issuer, t, &oidc.Config{ClientID: p.ClientID, SupportedSigningAlgs: m.algorithms, Now: u.now})
}

// examine checks an ID token (OpenID Connect Core 1.0, 3.1.3.7) against the attempt that it is the answer to, and the access
// token that came with it.
func (u *Upstream) examine(ctx context.Context, p *provider, m *metadata, a *attempt, t proved, access string) (*claims, error) {
	if strings.HasSuffix(t.typ, "+jwt") { // a logout token, an access token (RFC 8725, 3.11)
		return nil, errors.New("ID token: it is a token of another type")
	}
	o, err := parseObject(t.payload)
	if err != nil {
		return nil, fmt.Errorf("ID token: %w", err)
	}
	id, err := u.verifier(p, m, t).Verify(ctx, t.token)
	if err != nil {
		return nil, plain("ID token", err)
	}
	if err := checkParties(p, o); err != nil {
		return nil, fmt.Errorf("ID token: %w", err)
	}
	nonce, err := o.text("nonce")
	if err != nil || subtle.ConstantTimeCompare([]byte(nonce), []byte(a.Nonce)) != 1 {
		return nil, errors.New("ID token: nonce: it was made for another sign-in")
	}
	if o.has("at_hash") && id.VerifyAccessToken(access) != nil {
		return nil, errors.New("ID token: at_hash: it belongs to another access token")
	}
	c, now := &claims{}, u.now()
	if c.issued, err = o.date("iat"); err != nil || c.issued.IsZero() {
		return nil, errors.New("ID token: iat is missing, or no time")
	}
	if c.issued.After(now.Add(skew)) || c.issued.Before(now.Add(-maxOld)) {
		return nil, fmt.Errorf("ID token: iat is %v from now: one of the two clocks is wrong", c.issued.Sub(now).Round(time.Second))
	}
	if exp, err := o.date("exp"); err != nil || !exp.After(now) {
		return nil, errors.New("ID token: exp is missing, or over")
	}
	if c.subject, err = o.text("sub"); err != nil || !isSubject(c.subject) {
		return nil, errors.New("ID token: sub is missing, or not 1 to 255 bytes of text")
	}
	if c.sid, err = o.text("sid"); err != nil || len(c.sid) > maxSID || o.has("sid") && c.sid == "" {
		return nil, errors.New("ID token: sid is not 1 to 255 bytes of text")
	}
	return c, c.authentication(o, a, now)
}

// authentication takes how and when the person proved who they are, and holds it against what was asked for.
func (c *claims) authentication(o object, a *attempt, now time.Time) error {
	at, err := o.date("auth_time")
	switch {
	case err != nil:
		return fmt.Errorf("ID token: %w", err)
	case at.After(now.Add(skew)):
		return errors.New("ID token: auth_time is in the future")
	case a.MaxAge != nil && (at.IsZero() || at.Before(time.Unix(a.Began-*a.MaxAge, 0).Add(-skew/2))):
		return errStale
	case at.IsZero():
		c.at = longAgo
	case at.After(now):
		c.at = now
	default:
		c.at = at
	}
	amr, err := o.texts("amr", true)
	if err != nil {
		return fmt.Errorf("ID token: %w", err)
	}
	for _, m := range amr {
		// What begins with acr: is what we write there, below.
		if isName(m) && !strings.HasPrefix(m, "acr:") && len(c.methods) < maxAMR && !slices.Contains(c.methods, m) {
			c.methods = append(c.methods, m)
		}
	}
	acr, err := o.text("acr")
	if err != nil {
		return fmt.Errorf("ID token: %w", err)
	}
	if len(a.ACR) > 0 && !slices.Contains(a.ACR, acr) {
		return errACR
	}
	if isName(acr) {
		c.methods = append(c.methods, "acr:"+acr)
	}
	return nil
}

// checkParties checks who made the token and whom it is for, by the names as they stand there: go-oidc also takes ISS for
// iss, and one name of Google's for another. A token for several must say that it was made for us (azp).
func checkParties(p *provider, o object) error {
	iss, err := o.text("iss")
	if err != nil || iss != p.Issuer {
		return errors.New("iss is another issuer")
	}
	aud, err := o.texts("aud", true)
	if err != nil || !slices.Contains(aud, p.ClientID) || len(aud) > 32 {
		return errors.New("aud does not name this client")
	}
	azp, err := o.text("azp")
	if err != nil || o.has("azp") && azp != p.ClientID || len(aud) > 1 && !o.has("azp") {
		return errors.New("azp: it was made for another client")
	}
	return nil
}

// isSubject reports whether s can be a sub.
func isSubject(s string) bool {
	return s != "" && len(s) <= maxSubject && !strings.ContainsFunc(s, func(c rune) bool { return unicode.IsControl(c) || c == unicode.ReplacementChar })
}

// plain says what go-oidc found wrong with a token, without what stands in the token.
func plain(what string, err error) error {
	var over *oidc.TokenExpiredError
	switch text := err.Error(); {
	case errors.As(err, &over):
		return fmt.Errorf("%s: it is over since %v", what, over.Expiry)
	case strings.Contains(text, "audience"):
		return fmt.Errorf("%s: aud does not name this client", what)
	case strings.Contains(text, "issued by a different provider"):
		return fmt.Errorf("%s: iss is another issuer", what)
	case strings.Contains(text, "nbf"):
		return fmt.Errorf("%s: nbf is in the future", what)
	}
	return fmt.Errorf("%s: it is not one", what)
}
