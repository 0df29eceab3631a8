package afterlogin

import (
	"context"
	"crypto/subtle"
	"errors"
	"slices"
	"strconv"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

// verdict is what the generation of a genuine token means: x is presented, c is current.
type verdict uint8

const (
	forged     verdict = iota // not a secret of this lineage: concludes nothing, ends nothing
	current                   // x = c
	graced                    // x < c, and was current a moment ago
	handOut                   // graced, and the client may have its successor (again)
	lostAnswer                // x is c's parent, late, and nobody has ever used c
	replaced                  // x < c, replaced by a step-up a moment ago: refused, no theft
	reuse                     // x < c, and only a copy still holds it
	ahead                     // x > c: the store has forgotten a rotation
)

// judge applies the five rules (docs/rotation.md) to the examined token.
func (a *Authority) judge(x *exam, from clientHash) verdict {
	st, gen := x.state, x.tok.Generation
	switch {
	case gen == st.generation:
		v := opaque.Verifier(x.rec.ID, gen, &x.tok.Secret)
		if subtle.ConstantTimeCompare(v[:], st.verifier[:]) != 1 {
			return forged
		}
		return current
	case x.trust != opaque.Genuine:
		return forged // the MAC key may have leaked: an old generation proves nothing
	case gen > st.generation:
		return ahead
	}
	now := x.now.UnixMilli()
	for i := len(st.ring) - 1; i >= 0 && st.ring[i].generation > gen; i-- {
		if l := &st.ring[i]; l.parent == 0 { // a step-up, or suspicion: nothing older is good for a moment longer
			if now < l.at+stepUpGrace.Milliseconds() {
				return replaced
			}
			return reuse
		}
	}
	retired := st.link(gen + 1)
	if retired == nil {
		return reuse
	}
	secret, onPath, err := a.successor(x)
	if err == nil && onPath {
		v := opaque.Verifier(x.rec.ID, st.generation, &secret)
		if subtle.ConstantTimeCompare(v[:], st.verifier[:]) != 1 {
			return forged
		}
	}
	unseen := x.rec.SeenGen < st.generation
	last := st.link(st.generation)
	end := retired.at + x.policy.Grace.Milliseconds()
	if last.parent == gen {
		// A lost answer was forgiven: the client that comes back brings its other requests along, and they need the
		// grace that the first one had. It starts anew at most maxReplaced times.
		end = max(end, last.at+x.policy.Grace.Milliseconds())
	}
	if !unseen {
		end = min(end, x.rec.SeenAt+seenGrace.Milliseconds())
	}
	switch {
	case now < end && unseen && onPath && err == nil && last.client == from:
		return handOut
	case now < end:
		return graced
	case unseen && last.parent == gen && st.replaced < maxReplaced && !st.full(now, x.policy):
		return lostAnswer
	}
	return reuse
}

// successor recomputes the current secret from the presented one. onPath is false if the current one does not descend
// from it, or the ring no longer knows.
func (a *Authority) successor(x *exam) (secret [opaque.SecretSize]byte, onPath bool, err error) {
	var path []*link
	for g := x.state.generation; g != x.tok.Generation; {
		l := x.state.link(g)
		if l == nil || l.parent == 0 || l.parent < x.tok.Generation {
			return secret, false, nil
		}
		path = append(path, l)
		g = l.parent
	}
	secret = x.tok.Secret
	for _, l := range slices.Backward(path) {
		key, ok := a.keys.Key(keyring.Rotation, l.key)
		if !ok {
			return secret, false, errors.New("rotation key is gone")
		}
		secret = opaque.Successor(key, x.rec.ID, l.parent, l.generation, &l.nonce, &secret)
	}
	return secret, true, nil
}

// full reports whether one more rotation would push a token out of the ring that is still good.
func (s *state) full(now int64, p Policy) bool {
	return len(s.ring) == ringSize && now < s.ring[0].at+p.Grace.Milliseconds()
}

// Issued is a token and the session it stands for. The token is shown this once.
type Issued struct {
	Token   Token
	Session *Session
}

// Renew is for the moment when the headers of an answer are written. If the token that came with the request is due for
// renewal, it is replaced, durably, and the new one returned; if it was replaced a moment ago and the answer to that may
// have been lost, the same new one is returned once more. Otherwise the Token is zero, which is the ordinary case and
// also what becomes of a token that is no longer good: Renew does not judge. The request was validated when it came,
// and a slow answer must not end the session because the token has been renewed meanwhile.
//
// However many requests present one token at once, they get the same new one, or none.
//
// The error is ErrUnavailable; the answer can then go out without a new token, and the next one will carry it.
func (a *Authority) Renew(ctx context.Context, t Token, from Client) (Issued, error) {
	return a.rotate(ctx, t, rotation{from: from})
}

// Rotate replaces the token by hand, whether it is due or not, and judges like Validate: a late duplicate gets the same
// successor if the client is the one that rotated and nobody has used the successor yet, or a zero Token while its
// grace lasts; an out-of-date one ends the session.
func (a *Authority) Rotate(ctx context.Context, t Token, e Expect) (Issued, error) {
	if len(e.Kinds) == 0 {
		return Issued{}, badRequest("Expect.Kinds is empty: name the kinds of token that are accepted")
	}
	e.CanRenew = true
	return a.rotate(ctx, t, rotation{from: e.From, expect: &e})
}

// StepUp notes that the person has proved who they are once more, and replaces the token by one that nobody can have
// derived. The session stays; its old token is refused at once. The new one must reach the person, or they have to sign
// in again. Methods are added to those of the session.
func (a *Authority) StepUp(ctx context.Context, t Token, auth Authentication, from Client) (Issued, error) {
	e := Expect{Kinds: []Kind{KindSession}, From: from, CanRenew: true}
	return a.rotate(ctx, t, rotation{from: from, expect: &e, stepUp: &auth})
}

// rotation is what the three have in common.
type rotation struct {
	from   Client
	expect *Expect         // nil: only if due, and without a judgement
	stepUp *Authentication // not nil: to a fresh secret
}

func (a *Authority) rotate(ctx context.Context, t Token, how rotation) (Issued, error) {
	tok, trust, err := a.parse(t)
	if err != nil {
		return how.no(err)
	}
	for range attempts {
		x, err := a.look(ctx, &tok, trust, a.now())
		if err != nil {
			return Issued{}, err
		}
		got, err := a.rotateOnce(ctx, x, how)
		if err != errConflict {
			return got, err
		}
	}
	return Issued{}, exhausted("rotate")
}

// no returns the refusal to a caller that asked for a judgement.
func (how rotation) no(err error) (Issued, error) {
	if how.expect == nil {
		return Issued{}, nil
	}
	return Issued{}, err
}

func (a *Authority) rotateOnce(ctx context.Context, x *exam, how rotation) (Issued, error) {
	var s *Session
	if how.expect != nil {
		if !slices.Contains(how.expect.Kinds, Kind(x.tok.Kind)) {
			return Issued{}, refuse(ReasonWrongKind)
		}
		var err error
		if s, err = a.decide(ctx, x, how.expect); err != nil {
			return Issued{}, err
		}
	} else {
		if x.rec == nil || x.tok.Kind != x.rec.Kind {
			return Issued{}, nil
		}
		if why, _, _ := x.standing(); why != "" {
			return Issued{}, nil
		}
		s = x.session()
	}
	v := a.judge(x, how.from.hash())
	ms := x.now.UnixMilli()
	switch {
	case how.stepUp != nil && (v == current || v == graced || v == handOut || v == lostAnswer):
		return a.advance(ctx, x, how, 0)
	case v == current && (how.expect != nil || due(x.policy, s.Renewed, x.now)):
		if x.state.full(ms, x.policy) {
			return Issued{Session: s}, nil // the presented token stays current
		}
		return a.advance(ctx, x, how, x.tok.Generation)
	case v == lostAnswer:
		return a.advance(ctx, x, how, x.tok.Generation)
	case v == handOut:
		secret, _, err := a.successor(x)
		if err != nil {
			return Issued{}, unavailable("rotate", err)
		}
		return Issued{Token: a.token(x.rec, x.state.generation, secret), Session: s}, nil
	}
	return Issued{Session: s}, nil
}

// advance makes the next generation, from the secret of parent (the presented one), or from a fresh secret if parent is
// 0. It is one conditional write.
func (a *Authority) advance(ctx context.Context, x *exam, how rotation, parent uint32) (Issued, error) {
	st := x.state.clone()
	ms := x.now.UnixMilli()
	l := link{generation: st.generation + 1, parent: parent, at: ms, client: how.from.hash()}
	if n := len(st.ring); n > 0 {
		l.at = max(ms, st.ring[n-1].at) // a clock that went back must not lengthen a grace
	}
	var secret [opaque.SecretSize]byte
	event := EventRenewed
	if parent == 0 {
		event = EventStepUp
		secret = newSecret()
		st.ring = append(st.ring[:0], l)
		st.replaced = 0
		st.authAt = ms
		if !how.stepUp.At.IsZero() {
			st.authAt = how.stepUp.At.UnixMilli()
		}
		st.methods = union(st.methods, how.stepUp.Methods)
	} else {
		key := a.keys.Active(keyring.Rotation)
		l.key, l.nonce = key.ID, newNonce()
		secret = opaque.Successor(key, x.rec.ID, l.parent, l.generation, &l.nonce, &x.tok.Secret)
		if parent == st.generation {
			st.replaced = 0
		} else {
			st.replaced++
		}
		if len(st.ring) == ringSize {
			st.ring = slices.Delete(st.ring, 0, 1)
		}
		st.ring = append(st.ring, l)
	}
	st.generation = l.generation
	st.verifier = opaque.Verifier(x.rec.ID, st.generation, &secret)
	st.renewed = ms
	st.op = newOp()
	payload, err := st.encode()
	if err != nil {
		return Issued{}, err
	}
	rec := next(x.rec)
	rec.LastSeen = max(rec.LastSeen, ms)
	err = a.apply(ctx, rec.ID.Root(), a.wrote(rec.ID, st.op),
		a.put(rec, x.rec.Version, payload),
		store.Emit(x.event(event, "", "generation "+itoa(st.generation))))
	if err != nil {
		return Issued{}, err
	}
	after := exam{tok: x.tok, now: x.now, rec: rec, state: st, policy: x.policy}
	return Issued{Token: a.token(rec, st.generation, secret), Session: after.session()}, nil
}

// token makes the text of a token of the record.
func (a *Authority) token(r *store.Record, generation uint32, secret [opaque.SecretSize]byte) Token {
	return TokenFrom(a.codec.Format(opaque.Token{Kind: r.Kind, ID: r.ID, Generation: generation, Secret: secret}))
}

// union appends what is new in more to list, without changing list.
func union(list, more []string) []string {
	out := slices.Clone(list)
	for _, m := range more {
		if !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out
}

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
