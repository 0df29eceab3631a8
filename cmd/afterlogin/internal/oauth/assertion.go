package oauth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/jwt"
)

const (
	// maxAssertion is how long an assertion may be good for.
	maxAssertion = 5 * time.Minute
	// maxAssertions is how many are remembered, and maxAssertionsOfOne how many of one client. When there are more, none is
	// accepted: nothing is forgotten too early. One client alone does not take the others' room.
	maxAssertions      = 50_000
	maxAssertionsOfOne = 10_000
	typeAssertion      = "client-authentication+jwt"
)

// byAssertion authenticates a client by a JWT that it has signed (RFC 7523), for the issuer: an audience that two servers
// could share, as the address of an endpoint behind one of them, is how an assertion got to the wrong one.
//
// An assertion is used up even if the request then fails: a client that tries again makes another one.
func (s *Server) byAssertion(ctx context.Context, p presented, typ, claimed string, audiences int) (*client, *Error) {
	if claimed == "" || p.id != "" && p.id != claimed {
		return nil, badClient("client_assertion is not a JWT of this client")
	}
	c, err := s.known.get(ctx, claimed)
	switch {
	case errors.Is(err, afterlogin.ErrNoClient):
		return nil, badClient("there is no such client, or it does not authenticate in this way")
	case err != nil:
		return nil, s.fault(ctx, err)
	case c.settings.Auth != clients.KeyJWT:
		return nil, badClient("there is no such client, or it does not authenticate in this way")
	case audiences != 1:
		return nil, badClient("client_assertion: aud must be one text, the issuer")
	}
	keys, err := c.settings.PublicKeys()
	if err != nil {
		return nil, s.fault(ctx, err)
	}
	v := jwt.Verifier{Keys: keys, Issuer: c.id, Audience: []string{s.issuer}, Type: jwt.TypeUntyped, Now: s.now}
	if strings.EqualFold(typ, typeAssertion) {
		v.Type = typeAssertion
	}
	claims, err := v.Verify(ctx, p.proof)
	if err != nil {
		return nil, badClient("client_assertion is refused: " + string(jwt.ReasonOf(err)))
	}
	now := s.now()
	switch {
	case claims.Subject != c.id:
		return nil, badClient("client_assertion: sub must be the client_id, as iss is")
	case claims.ID == "":
		return nil, badClient("client_assertion: jti is missing")
	case claims.Expiry.After(now.Add(maxAssertion + jwt.DefaultLeeway)):
		return nil, badClient("client_assertion: exp is more than 5 minutes away")
	}
	until := claims.Expiry.Add(2 * jwt.DefaultLeeway)
	first, full := s.seen.use(c.id, claims.ID, until, now)
	if full {
		return nil, slowDown(time.Second)
	}
	if first && s.shared { // and on no other server either: one that was captured must not be good on each of them once
		if first, err = s.authority.FirstUse(ctx, "client_assertion "+c.id, claims.ID, until); err != nil {
			return nil, s.fault(ctx, err)
		}
	}
	if !first {
		return nil, badClient("client_assertion was used before: make one for each request")
	}
	return c, nil
}

// peek reads from a JWT that nobody has verified what is needed to find the key to verify it with: its type, its issuer,
// and how many audiences it has, 0 if they are a list.
func peek(text string) (typ, iss string, audiences int) {
	head, rest, ok := strings.Cut(text, ".")
	body, _, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || len(text) > jwt.MaxSize {
		return "", "", 0
	}
	var header struct {
		Typ string `json:"typ"`
	}
	var claims struct {
		Issuer   string          `json:"iss"`
		Audience json.RawMessage `json:"aud"`
	}
	h, err := base64.RawURLEncoding.DecodeString(head)
	b, err2 := base64.RawURLEncoding.DecodeString(body)
	if err != nil || err2 != nil || json.Unmarshal(h, &header) != nil || json.Unmarshal(b, &claims) != nil {
		return "", "", 0
	}
	if len(claims.Audience) > 0 && claims.Audience[0] == '"' {
		audiences = 1
	}
	return header.Typ, claims.Issuer, audiences
}

// assertions remembers which assertions were used, on this server, until they are over. It is all there is where no other
// server uses the store, and otherwise saves the store from floods.
type assertions struct {
	mu    sync.Mutex
	used  map[string]map[[sha256.Size]byte]int64 // by client; until when
	count int
	swept int64 // the second in which what is over was last taken out
}

// use notes the client's assertion. first says that it was not used before; full that there is no room to know.
func (a *assertions) use(client, id string, until, now time.Time) (first, full bool) {
	sum := sha256.Sum256([]byte(id))
	a.mu.Lock()
	defer a.mu.Unlock()
	end, again := a.used[client][sum]
	if again && now.Unix() <= end {
		return false, false
	}
	if a.full(client) {
		a.sweep(now)
		if a.full(client) {
			return false, true
		}
		_, again = a.used[client][sum]
	}
	if a.used == nil {
		a.used = make(map[string]map[[sha256.Size]byte]int64)
	}
	if a.used[client] == nil {
		a.used[client] = make(map[[sha256.Size]byte]int64)
	}
	a.used[client][sum] = until.Unix()
	if !again {
		a.count++
	}
	return true, false
}

func (a *assertions) full(client string) bool {
	return a.count >= maxAssertions || len(a.used[client]) >= maxAssertionsOfOne
}

// sweep takes out what is over, at most once in a second: it looks at everything.
func (a *assertions) sweep(now time.Time) {
	if a.swept == now.Unix() {
		return
	}
	a.swept, a.count = now.Unix(), 0
	for client, used := range a.used {
		for sum, end := range used {
			if now.Unix() > end {
				delete(used, sum)
			}
		}
		if a.count += len(used); len(used) == 0 {
			delete(a.used, client)
		}
	}
}
