package keyring

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
)

// Signing keys are of two halves, so they live by other rules than the symmetric keys: verifiers keep the public halves
// for minutes. A new key is published before it signs, and an old one is published until the last token that it signed
// is dead. Who signs when follows from the times in the ring alone, so that nodes that share a ring agree.

// maxSigning is how many signing keys a ring keeps. A file with as many RSA keys is about 300 KiB.
const maxSigning = 64

// remembered is how long an expired or retired signing key is still listed. Its private half is gone by then.
const remembered = 30 * 24 * time.Hour

// Errors of signing keys.
var (
	// ErrNoSigningKey is returned if no key of the algorithm can sign. EnsureSigning makes one.
	ErrNoSigningKey = errors.New("keyring: no signing key of this algorithm")
	// ErrRotationPending is returned by RotateSigning if the next key is published already and does not sign yet.
	ErrRotationPending = errors.New("keyring: the next signing key is published and does not sign yet")
)

// A SigningKey is one asymmetric key and its life. Its private half does not print.
type SigningKey struct {
	ID        string        // kid: the RFC 7638 thumbprint
	Algorithm jwt.Algorithm // the only one it signs with
	Created   time.Time
	// SignsFrom is when it begins to sign; it is published from its creation on. Zero is at once.
	SignsFrom time.Time
	// Until is when its last token is dead: from then on it is neither published nor accepted. Zero as long as it has no
	// successor. Of a retired key it is when that was.
	Until time.Time
	// Retired says that it was taken away in an emergency.
	Retired bool

	public *jwt.PublicKey
	key    *jwt.SigningKey // nil once it cannot sign any more
}

// Public returns the public half.
func (k SigningKey) Public() *jwt.PublicKey { return k.public }

// published reports whether verifiers are to accept what the key signed.
func (k SigningKey) published(now time.Time) bool {
	return !k.Retired && (k.Until.IsZero() || now.Before(k.Until))
}

// String names the key without its private half.
func (k SigningKey) String() string { return fmt.Sprintf("%s signing key %s", k.Algorithm, k.ID) }

// GoString is String.
func (k SigningKey) GoString() string { return k.String() }

func newSigningKey(alg jwt.Algorithm, now, signsFrom time.Time) (SigningKey, error) {
	key, err := jwt.GenerateKey(alg)
	if err != nil {
		return SigningKey{}, fmt.Errorf("keyring: %w", err)
	}
	return SigningKey{ID: key.ID(), Algorithm: alg, Created: moment(now), SignsFrom: moment(signsFrom), public: key.Public(), key: key}, nil
}

// moment is a time as the file keeps it.
func moment(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Millisecond)
}

// signingKeys holds the keys of all algorithms in order of their creation.
type signingKeys []SigningKey

// signer returns the index of the key that signs, -1 if there is none: of those that have begun to sign, the last. If none
// has, it is the first that will: a node whose clock is a little behind must not stop when a key was retired.
func (s signingKeys) signer(alg jwt.Algorithm, now time.Time) int {
	begun, next := -1, -1
	for i, k := range s {
		switch {
		case k.Algorithm != alg || k.key == nil || !k.published(now):
		case k.SignsFrom.After(now):
			if next < 0 || k.SignsFrom.Before(s[next].SignsFrom) {
				next = i
			}
		case begun < 0 || !k.SignsFrom.Before(s[begun].SignsFrom):
			begun = i
		}
	}
	if begun < 0 {
		return next
	}
	return begun
}

// newest returns the index of the key without a successor, -1 if there is none.
func (s signingKeys) newest(alg jwt.Algorithm) int {
	return slices.IndexFunc(s, func(k SigningKey) bool { return k.Algorithm == alg && !k.Retired && k.Until.IsZero() })
}

// index returns the index of the key with the id, -1 if there is none.
func (s signingKeys) index(kid string) int {
	return slices.IndexFunc(s, func(k SigningKey) bool { return k.ID == kid })
}

// ensure adds a first key of the algorithm if none can sign.
func (s signingKeys) ensure(alg jwt.Algorithm, now time.Time) (signingKeys, SigningKey, error) {
	if i := s.newest(alg); i >= 0 {
		return s, s[i], nil
	}
	// The first signs from the beginning of time: a node whose clock is behind must be able to sign, too.
	k, err := newSigningKey(alg, now, time.Time{})
	return append(slices.Clone(s), k), k, err
}

// rotate adds a key that signs after lead; its predecessor is accepted for keep longer.
func (s signingKeys) rotate(alg jwt.Algorithm, now time.Time, lead, keep time.Duration) (signingKeys, SigningKey, error) {
	old := s.newest(alg)
	if old < 0 {
		return s.ensure(alg, now)
	}
	if s[old].SignsFrom.After(now) {
		return nil, SigningKey{}, fmt.Errorf("%w: %s signs from %s on", ErrRotationPending, s[old].ID, s[old].SignsFrom.Format(time.RFC3339))
	}
	k, err := newSigningKey(alg, now, now.Add(lead))
	if err != nil {
		return nil, SigningKey{}, err
	}
	s = slices.Clone(s)
	s[old].Until = k.SignsFrom.Add(keep)
	return append(s, k), k, nil
}

// retire takes a key away, and sees to it that another signs.
func (s signingKeys) retire(kid string, now time.Time) (signingKeys, SigningKey, error) {
	i := s.index(kid)
	if i < 0 {
		return nil, SigningKey{}, fmt.Errorf("keyring: no signing key %q", kid)
	}
	if s[i].Retired {
		return nil, SigningKey{}, fmt.Errorf("keyring: signing key %s is retired already", kid)
	}
	s = slices.Clone(s)
	alg, signing := s[i].Algorithm, s.signer(s[i].Algorithm, now) == i
	wasNewest := s[i].Until.IsZero()
	s[i].Retired, s[i].Until, s[i].key = true, moment(now), nil
	next, signer := s.newest(alg), s.signer(alg, now)
	switch {
	case signing && next >= 0: // it was published already; that verifiers may not have read it yet cannot be helped
		s[next].SignsFrom = moment(now)
	case wasNewest && !signing && signer >= 0: // it had not begun to sign: its predecessor goes on without a successor
		s[signer].Until = time.Time{}
	case signing || next < 0:
		k, err := newSigningKey(alg, now, now)
		if err != nil {
			return nil, SigningKey{}, err
		}
		s = append(s, k)
	}
	if signer = s.signer(alg, now); signer < 0 {
		return nil, SigningKey{}, ErrNoSigningKey
	}
	return s, s[signer], nil
}

// prune forgets private halves that will not sign again, and keys that ended long ago or are too many.
func (s signingKeys) prune(now time.Time) signingKeys {
	out, over := make(signingKeys, 0, len(s)), len(s)-maxSigning
	for _, k := range s {
		if !k.published(now) {
			k.key = nil
			if over--; over >= 0 || now.Sub(k.Until) > remembered {
				continue
			}
		}
		out = append(out, k)
	}
	return out
}

// SigningKeys returns all signing keys in order of their creation, those that have ended within the last month too.
func (r *Ring) SigningKeys() []SigningKey { return slices.Clone(*r.signing.Load()) }

// Signer returns the key that signs at the time. It returns ErrNoSigningKey if there is none; see EnsureSigning. It takes
// no lock.
func (r *Ring) Signer(alg jwt.Algorithm, now time.Time) (*jwt.SigningKey, error) {
	s := *r.signing.Load()
	if i := s.signer(alg, now); i >= 0 {
		return s[i].key, nil
	}
	return nil, ErrNoSigningKey
}

// PublicKeys returns what to publish as JWKS at the time: every key whose tokens are accepted, and the next ones, which do
// not sign yet.
func (r *Ring) PublicKeys(now time.Time) *jwt.Keys {
	var list []*jwt.PublicKey
	for _, k := range *r.signing.Load() {
		if k.published(now) {
			list = append(list, k.public)
		}
	}
	keys, err := jwt.NewKeys(list...)
	if err != nil {
		panic(err) // two keys with one thumbprint are one key
	}
	return keys
}

// PublicKey returns the published key with the id, and jwt.ErrUnknownKey if there is none at the time.
//
// A shared ring looks for an id that it does not have in the store, by a read that begins after the call: another node may
// have begun to sign with it a moment ago. There is one such read a second, for all that wait. It returns
// jwt.ErrUnavailable if the store does not answer, if too many wait, and, for every id, if the store was not read for three
// times Reread: the key may have been retired meanwhile. A key that is there costs no lock and no allocation; it is how a
// jwt.KeySet of the ring's own keys is made (see KeySet).
func (r *Ring) PublicKey(kid string, now time.Time) (*jwt.PublicKey, error) {
	return r.publicKey(context.Background(), kid, now)
}

func (r *Ring) publicKey(ctx context.Context, kid string, now time.Time) (*jwt.PublicKey, error) {
	s := *r.signing.Load()
	i := s.index(kid)
	if r.shared != nil && (i < 0 || r.shared.stale()) {
		if err := r.shared.refresh(ctx, true); err != nil {
			return nil, fmt.Errorf("%w: %w", jwt.ErrUnavailable, err)
		}
		s = *r.signing.Load()
		i = s.index(kid)
	}
	if i < 0 || !s[i].published(now) {
		return nil, jwt.ErrUnknownKey
	}
	return s[i].public, nil
}

// KeySet returns the ring's published keys as a set that is always up to date, for a jwt.Verifier of the ring's own tokens.
// Nil is time.Now.
func (r *Ring) KeySet(now func() time.Time) jwt.KeySet {
	if now == nil {
		now = time.Now
	}
	return ringKeys{r, now}
}

type ringKeys struct {
	ring *Ring
	now  func() time.Time
}

func (s ringKeys) Key(ctx context.Context, kid string) (*jwt.PublicKey, error) {
	return s.ring.publicKey(ctx, kid, s.now())
}

// EnsureSigning makes a first key of the algorithm, which signs at once, if there is none without a successor, and returns
// the one there is otherwise. A ring of New has one for EdDSA; a key file of an earlier version has none. The ring is
// durable before it returns.
func (r *Ring) EnsureSigning(alg jwt.Algorithm, now time.Time) (SigningKey, error) {
	if s := *r.signing.Load(); s.newest(alg) >= 0 && !r.doubtful() {
		return s[s.newest(alg)], nil
	}
	return r.changeSigning(now, func(s signingKeys, _ SigningKey) (signingKeys, SigningKey, error) {
		if i := s.newest(alg); i >= 0 { // another node was faster
			return s, s[i], errDone
		}
		return s.ensure(alg, now)
	})
}

// RotateSigning makes the next key of the algorithm. It is published at once and signs from now + lead, which should be as
// long as verifiers keep a JWKS, and longer than clocks differ. The key before it signs until then, and is accepted for
// keep longer: the longest lifetime of a token, and by how much clocks differ. The first key of an algorithm signs at
// once. It returns ErrRotationPending if the next key is there already, and ErrTooManyKeys if 64 are published still. The
// ring is durable before RotateSigning returns.
func (r *Ring) RotateSigning(alg jwt.Algorithm, now time.Time, lead, keep time.Duration) (SigningKey, error) {
	if lead < 0 || keep < 0 {
		return SigningKey{}, fmt.Errorf("keyring: lead %v and keep %v must not be negative", lead, keep)
	}
	return r.changeSigning(now, func(s signingKeys, made SigningKey) (signingKeys, SigningKey, error) {
		if i := s.index(made.ID); i >= 0 {
			return s, s[i], errDone
		}
		return s.rotate(alg, now, lead, keep)
	})
}

// RetireSigning takes a key away at once, for the case that its private half got out: it is not published any more, so
// that whoever reads the JWKS afterwards refuses what it signed, and its private half is erased. It returns the key that
// signs instead from now on: the next one if it was published already, otherwise a new one. Tokens of the new one are
// refused by verifiers until they have read the JWKS again. If the key did not sign, the one that does is not changed.
// The ring is durable before RetireSigning returns.
func (r *Ring) RetireSigning(kid string, now time.Time) (SigningKey, error) {
	return r.changeSigning(now, func(s signingKeys, made SigningKey) (signingKeys, SigningKey, error) {
		if i := s.index(kid); i >= 0 && s[i].Retired && s.index(made.ID) >= 0 {
			return s, s[s.index(made.ID)], errDone
		}
		return s.retire(kid, now)
	})
}

// changeSigning puts the changed keys in place once they are durable. change is given the key that it returned the last
// time, if that is not known to have been written.
func (r *Ring) changeSigning(now time.Time, change func(signingKeys, SigningKey) (signingKeys, SigningKey, error)) (SigningKey, error) {
	var k SigningKey
	err := r.change(func(c contents) (contents, error) {
		list, made, err := change(c.signing, k)
		if err == errDone {
			k = made
			return c, errDone
		}
		if err != nil {
			return c, err
		}
		k = made
		if list = list.prune(now); len(list) > maxSigning {
			return c, fmt.Errorf("%w: %d signing keys are published until their tokens are dead", ErrTooManyKeys, maxSigning)
		}
		c.signing = list
		return c, nil
	})
	if err != nil {
		return SigningKey{}, err
	}
	return k, nil
}
