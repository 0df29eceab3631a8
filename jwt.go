package afterlogin

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/store"
)

// underClaim is the private claim that names what a token was made from, if that is not what sid names, and what that
// lives under, up to but not including sid: the end of any is the end of the token.
const underClaim = "under"

// openSigning checks the issuer and sees to a key to sign with.
func (a *Authority) openSigning(alg jwt.Algorithm) error {
	u, err := url.Parse(a.issuer)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return badRequest("issuer: %q is not an https URL without a query and a fragment", a.issuer)
	}
	if a.algorithm = alg; alg == "" {
		a.algorithm = jwt.EdDSA
	}
	if _, err := a.keys.EnsureSigning(a.algorithm, a.now()); err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	return nil
}

// looksLikeJWT reports whether the text begins as the base64url of {" does, and has the dots. Opaque tokens never do.
func looksLikeJWT(t Token) bool {
	return strings.HasPrefix(t.Reveal(), "eyJ") && strings.Count(t.Reveal(), ".") == 2
}

// signAccess signs an access token (RFC 9068) below x. It writes nothing.
func (a *Authority) signAccess(x *exam, st *state, r *AccessRequest) (Issued, error) {
	if a.issuer == "" {
		return Issued{}, badRequest("there are no JWTs without an issuer: set Config.Issuer")
	}
	key, err := a.keys.Signer(a.algorithm, x.now)
	if err != nil {
		return Issued{}, unavailable("sign", err)
	}
	s := x.session()
	end := fromMillis(a.childEnd(x, shorter(a.policy(PolicyJWT).Absolute, r.Lifetime)))
	var random [16]byte
	rand.Read(random[:])
	c := &jwt.Claims{
		Issuer: a.issuer, Subject: s.Subject, Audience: st.audience, Expiry: end, IssuedAt: x.now,
		ID: base64.RawURLEncoding.EncodeToString(random[:]), SessionID: string(s.Root), ClientID: r.Client, Scope: st.scopes,
		AuthTime: s.Auth.At, AMR: s.Auth.AMR(), ACR: s.Auth.ACR(), Tenant: s.Tenant,
	}
	if len(c.Audience) == 0 {
		c.Audience = []string{a.issuer}
	}
	if st.actor != "" {
		for _, who := range slices.Backward(strings.Split(st.actor, "\n")) {
			c.Actor = &jwt.Actor{Subject: who, Actor: c.Actor}
		}
	}
	if x.rec.ID.IsChild() {
		under := []SessionID{s.ID}
		for i := range x.above[:len(x.above)-1] {
			under = append(under, newSessionID(Kind(x.above[i].rec.Kind), x.above[i].rec.ID))
		}
		names, err := json.Marshal(under)
		if err != nil {
			return Issued{}, err
		}
		c.Extra = map[string]json.RawMessage{underClaim: names}
	}
	text, err := key.Sign(jwt.TypeAccessToken, c)
	if err != nil {
		return Issued{}, badRequest("%v", err)
	}
	a.counts.issued.add(KindJWT)
	return Issued{Token: TokenFrom(text), Session: jwtSession(s, c)}, nil
}

// jwtSession returns what a token says, laid over the session or grant that it was made from.
func jwtSession(s *Session, c *jwt.Claims) *Session {
	j := *s
	j.Kind, j.Policy = KindJWT, PolicyJWT
	j.Client, j.Scopes, j.Audience = c.ClientID, c.Scope, c.Audience
	j.Created, j.Renewed, j.Absolute, j.Idle = c.IssuedAt, c.IssuedAt, c.Expiry, time.Time{}
	j.Generation, j.renewal, j.lost = 1, false, false
	j.Auth = Authentication{Methods: c.AMR, At: c.AuthTime}
	if c.ACR != "" {
		j.Auth.Methods = append(slices.Clone(c.AMR), ACRMethod(c.ACR))
	}
	j.actors, j.JWTID = "", c.ID
	for who := c.Actor; who != nil; who = who.Actor {
		j.actors = actors(j.actors, who.Subject)
	}
	if s.Kind == KindRefresh {
		j.Grant = s.ID
	}
	return &j
}

// reasons of package jwt, in our words.
var jwtReasons = map[jwt.Reason]Reason{
	jwt.ReasonMalformed: ReasonMalformed, jwt.ReasonType: ReasonWrongKind, jwt.ReasonAudience: ReasonWrongAudience,
	jwt.ReasonExpired: ReasonExpired,
}

// validateJWT validates a signed token, and that what it was made from has not been ended since.
func (a *Authority) validateJWT(ctx context.Context, t Token, e Expect) (*Session, error) {
	if a.issuer == "" {
		return nil, refuse(ReasonMalformed)
	}
	v := jwt.Verifier{Keys: a.jwtKeys, Issuer: a.issuer, Audience: e.Audience, Type: jwt.TypeAccessToken, Now: a.now}
	if len(v.Audience) == 0 {
		v.Audience = []string{a.issuer}
	}
	c, err := v.Verify(ctx, t.Reveal())
	if err != nil {
		return nil, jwtRefusal(err)
	}
	root, of, err := jwtRecords(c)
	if err != nil {
		return nil, &Refusal{Reason: ReasonForged} // signed with our key, and yet not by this code
	}
	now := a.now()
	var s *Session
	if !e.Fresh {
		s = a.cachedJWT(of, now)
	}
	if s == nil {
		a.counts.misses.Add(1)
		if s, err = a.askJWT(ctx, of, now); err != nil {
			return nil, err
		}
	}
	if s.record.Root() != root {
		return nil, &Refusal{Reason: ReasonForged}
	}
	s = jwtSession(s, c)
	if why := e.mismatch(s); why != "" {
		return nil, &Refusal{Reason: why, Session: s.ID}
	}
	if why := e.lacks(s, now); why != "" {
		return nil, &Refusal{Reason: why, Session: s.ID}
	}
	return s, nil
}

func jwtRefusal(err error) error {
	if !errors.Is(err, jwt.ErrInvalid) {
		return unavailable("verify", err)
	}
	if why, ok := jwtReasons[jwt.ReasonOf(err)]; ok {
		return &Refusal{Reason: why}
	}
	return refuse(ReasonForged)
}

// jwtRecords returns the ids of the root and of what the token was made from.
func jwtRecords(c *jwt.Claims) (root, of store.ID, err error) {
	if root, err = SessionID(c.SessionID).parse(); err != nil {
		return root, of, err
	}
	of = root
	if text, ok := c.Extra[underClaim]; ok {
		var under []SessionID
		if err = json.Unmarshal(text, &under); err != nil || len(under) == 0 {
			return root, of, ErrBadSessionID
		}
		of, err = under[0].parse()
	}
	return root, of, err
}

// cachedJWT returns the session of the record if the cache says that it is good.
func (a *Authority) cachedJWT(id store.ID, now time.Time) *Session {
	c, leased := a.held(id, now)
	ms := now.UnixMilli()
	if c == nil {
		return nil
	}
	shard := a.cache.shard(id.Hash())
	if !leased {
		shard.unleased.Add(1)
		return nil
	}
	if c.absolute != 0 && ms >= c.absolute || c.idle != 0 && ms >= c.lastSeen.Load()+c.idle {
		return nil
	}
	shard.partial.Add(1)
	return c.session.Load()
}

// askJWT reads the record that a token was made from, and keeps it for the next time.
func (a *Authority) askJWT(ctx context.Context, id store.ID, now time.Time) (*Session, error) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	x := &exam{now: now}
	if err := a.read(ctx, x, id); err != nil {
		return nil, err
	}
	if x.rec == nil {
		return nil, refuse(ReasonUnknown)
	}
	if why, cause, at := x.standing(); why != "" {
		return nil, x.refusal(why, cause, at)
	}
	s := x.session()
	if have := a.cache.get(id); have == nil || have.generation == 0 {
		// Of generation 0, which no token has: it only says that the record is good.
		c := &entry{id: id, absolute: x.end()}
		c.session.Store(s)
		for i := range x.above {
			c.absolute = sooner(c.absolute, x.above[i].end())
		}
		a.cache.put(x.fill, x.subjectID(), c)
	}
	return s, nil
}

// JWKS returns the public keys that verify this installation's JWTs, as they are to be published (RFC 7517).
func (a *Authority) JWKS() *jwt.Keys { return a.keys.PublicKeys(a.now()) }

// Issuer returns Config.Issuer.
func (a *Authority) Issuer() string { return a.issuer }
