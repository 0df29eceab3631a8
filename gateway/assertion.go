package gateway

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/jwt"
)

// How long an assertion is good, and for how long of that it is used again.
const (
	assertionLife  = 60 * time.Second
	assertionReuse = 30 * time.Second
)

// claims returns what an assertion says, and when it is over: not after the session, but for its last second, since exp
// counts whole ones and must be after iat.
func (g *Gateway) claims(a *app, s *afterlogin.Session, now time.Time) (*jwt.Claims, time.Time, error) {
	end := now.Add(assertionLife)
	if !s.Absolute.IsZero() && s.Absolute.Before(end) {
		end = s.Absolute
	}
	if end.Unix() <= now.Unix() {
		end = now.Add(time.Second)
	}
	c := &jwt.Claims{
		Issuer: g.issuer, Subject: subjectOf(s), Audience: a.audience[:1], Expiry: end, IssuedAt: now,
		SessionID: string(s.Root), ClientID: s.Client, Scope: s.Scopes,
		Tenant: s.Tenant,
	}
	if !machine(s) {
		c.AuthTime, c.AMR, c.ACR = s.Auth.At, s.Auth.AMR(), s.Auth.ACR()
	}
	name, ok := kinds[s.Kind]
	if !ok {
		return nil, end, errInternal
	}
	kind, err := json.Marshal(name)
	if err != nil {
		return nil, end, err
	}
	c.Extra = map[string]json.RawMessage{"kind": kind}
	if s.ID != s.Root { // as in a JWT: the end of either is the end of this
		under, err := json.Marshal([]afterlogin.SessionID{s.ID})
		if err != nil {
			return nil, end, err
		}
		c.Extra["under"] = under
	}
	for _, who := range slices.Backward(s.Actors()) {
		c.Actor = &jwt.Actor{Subject: who, Actor: c.Actor}
	}
	return c, end, nil
}

// assertionKey finds what was signed for a session before. Of a JWT, each token is a matter of its own.
type assertionKey struct {
	app  *app
	id   afterlogin.SessionID
	kind afterlogin.Kind
	jti  string
}

// made is what was signed, and all that it depends on beside the key. What is signed for a session that has changed since
// is not used.
type made struct {
	identity *identity
	from     *afterlogin.Session // a snapshot, which nobody changes
	fresh    int64               // used until then, in nanoseconds since 1970
	after    int64               // and from then on: the clock may be set back
}

// maxAssertions bounds what is kept in a shard, twice over. In all that is 32,768, about a kilobyte each.
const (
	maxAssertions   = 1024
	assertionShards = 16
)

// assertions keeps what was signed for another use. When there are too many in a shard, the older half of it goes at
// once: to lose one costs a signature.
type assertions struct {
	shards [assertionShards]struct {
		mu         sync.Mutex
		young, old map[assertionKey]made
	}
}

func shardOf(id afterlogin.SessionID) int {
	if len(id) < 8 {
		return 0
	}
	// Characters of base64url that are random in every id; the last of them holds fewer bits.
	return int(id[len(id)-2]^id[len(id)-3]<<1) % assertionShards
}

// get returns what was signed for the session as it is now, or nil.
func (as *assertions) get(k assertionKey, s *afterlogin.Session, now time.Time) *identity {
	shard := &as.shards[shardOf(k.id)]
	shard.mu.Lock()
	m, ok := shard.young[k]
	if !ok {
		m, ok = shard.old[k]
	}
	shard.mu.Unlock()
	if at := now.UnixNano(); !ok || at >= m.fresh || at < m.after || !same(m.from, s) {
		return nil
	}
	return m.identity
}

func (as *assertions) put(k assertionKey, s *afterlogin.Session, id *identity, now, end time.Time) {
	m := made{id, s, now.Add(assertionReuse).UnixNano(), now.UnixNano()}
	if !end.After(now.Add(assertionReuse)) {
		m.fresh = end.UnixNano()
	}
	shard := &as.shards[shardOf(k.id)]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if len(shard.young) >= maxAssertions {
		shard.old, shard.young = shard.young, nil
	}
	if shard.young == nil {
		shard.young = make(map[assertionKey]made)
	}
	shard.young[k] = m
}

// same reports whether the two say the same, as far as an assertion does.
func same(a, b *afterlogin.Session) bool {
	return a == b || a.Subject == b.Subject && a.Root == b.Root && a.Client == b.Client && a.Tenant == b.Tenant &&
		a.Absolute.Equal(b.Absolute) && a.Auth.At.Equal(b.Auth.At) && slices.Equal(a.Auth.Methods, b.Auth.Methods) &&
		slices.Equal(a.Scopes, b.Scopes) && sameActors(a, b)
}

func sameActors(a, b *afterlogin.Session) bool {
	if a.Actor() == "" && b.Actor() == "" {
		return true
	}
	return slices.Equal(a.Actors(), b.Actors())
}
