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
		return proven(x, &st.verifier, current)
	case gen > st.generation && x.tok.trust == opaque.Genuine:
		return ahead
	case gen > st.generation:
		return forged
	}
	retired := st.link(gen + 1)
	switch {
	case retired != nil && proven(x, &retired.retired, current) == forged:
		return forged
	case retired == nil && x.tok.trust != opaque.Genuine:
		return forged // its MAC key may have leaked, and nothing else is left that proves it
	}
	now := x.now.UnixMilli()
	for i := len(st.ring) - 1; i >= 0 && st.ring[i].generation > gen; i-- {
		if l := &st.ring[i]; l.parent == 0 { // a step-up: nothing older is good for a moment longer
			if now < l.at+stepUpGrace.Milliseconds() {
				return replaced
			}
			return reuse
		}
	}
	if retired == nil {
		return reuse
	}
	last := st.link(st.generation)
	if now < last.at-clockSkew.Milliseconds() {
		return replaced // the clock went back: a grace must not get longer by it, and it is nobody's fault
	}
	unseen := x.rec.SeenGen < st.generation || x.rec.SeenAt > now
	end := st.graceEnd(gen, x.policy)
	if !unseen {
		end = min(end, x.rec.SeenAt+seenGrace.Milliseconds())
	}
	switch {
	case now < end && unseen && last.client == from && st.descends(gen):
		return handOut
	case now < end:
		return graced
	case unseen && (last.parent == gen || st.generation-1 == gen) && st.replaced < maxReplaced:
		return lostAnswer
	}
	return reuse
}

// proven returns the verdict if the presented secret is the one that the verifier is of.
func proven(x *exam, verifier *[opaque.VerifierSize]byte, v verdict) verdict {
	if subtle.ConstantTimeCompare(x.tok.verifier[:], verifier[:]) != 1 {
		return forged
	}
	return v
}

// descends reports whether the current secret was derived from that of the generation.
func (s *state) descends(generation uint32) bool {
	g := s.generation
	for g > generation {
		l := s.link(g)
		if l == nil {
			return false
		}
		g = l.parent
	}
	return g == generation
}

// successor recomputes the current secret from the presented one, from which it descends.
func (a *Authority) successor(x *exam) (secret [opaque.SecretSize]byte, err error) {
	var path []*link
	for g := x.state.generation; g != x.tok.Generation; {
		l := x.state.link(g)
		path, g = append(path, l), l.parent
	}
	secret = x.tok.Secret
	for _, l := range slices.Backward(path) {
		key, ok := a.keys.Key(keyring.Rotation, l.key)
		if !ok {
			return secret, errors.New("the rotation key is gone")
		}
		secret = opaque.Successor(key, x.rec.ID, l.parent, l.generation, &l.nonce, &secret)
	}
	v := opaque.Verifier(x.rec.ID, x.state.generation, &secret)
	if subtle.ConstantTimeCompare(v[:], x.state.verifier[:]) != 1 {
		return secret, errors.New("the recomputed token is not the current one")
	}
	return secret, nil
}

// Issued is a token and the session it stands for. The token is shown this once.
type Issued struct {
	Token   Token
	Session *Session
}

// Renew is for the moment when the headers of an answer are written. s is what Validate returned for the request that
// is being answered. If the token that came with the request is due for renewal, it is replaced, durably, and the new one
// returned; if it was replaced a moment ago and the answer to that may have been lost, the same new one is returned once
// more. Otherwise the Token is zero, which is the ordinary case and also what becomes of a token that is no longer good:
// Renew does not judge. The request was validated when it came, and a slow answer must not end the session because the
// token has been renewed meanwhile.
//
// However many requests present one token at once, they get the same new one, or none.
//
// The error is ErrUnavailable; the answer can then go out without a new token, and the next one will carry it.
func (a *Authority) Renew(ctx context.Context, t Token, s *Session, from Client) (Issued, error) {
	return a.rotate(ctx, t, rotation{from: from, lost: s != nil && s.lost})
}

// Rotate replaces the token by hand, whether it is due or not, and judges like Validate: a late duplicate gets the same
// successor if the client is the one that rotated and nobody has used the successor yet, or a zero Token while its
// grace lasts; an out-of-date one ends the session.
func (a *Authority) Rotate(ctx context.Context, t Token, e Expect) (_ Issued, err error) {
	defer a.counts.noted(&err)
	if len(e.Kinds) == 0 {
		return Issued{}, badRequest("Expect.Kinds is empty: name the kinds of token that are accepted")
	}
	e.CanRenew = true
	return a.rotate(ctx, t, rotation{from: e.From, expect: &e})
}

// StepUp notes that the person has proved who they are once more, and replaces the token by one that nobody can have
// derived. The session stays; its old token is refused at once. The new one must reach the person, or they have to sign
// in again. Methods are added to those of the session; the class of authentication (ACRMethod) replaces the session's, and
// without one there is none any more.
//
// So the methods (amr) are all those that the session ever saw, however old: only the class (acr) and the time (auth_time)
// belong together, and to the last authentication. Whoever wants to know that a certain method was used lately must ask
// for a class.
//
// A credential that can be taken back while it is checked, as a password can, is for StepUpSince.
func (a *Authority) StepUp(ctx context.Context, t Token, auth Authentication, from Client) (Issued, error) {
	return a.StepUpSince(ctx, t, Mark{}, auth, from)
}

// StepUpSince is StepUp with a mark, which Begin returned for the session's subject before the credential was checked. It
// fails with ErrStaleSignIn if the subject was signed out everywhere after the mark, also if this session was spared by
// that (see RevokeOthers): the credential that was checked may be the one that was just taken back, and whoever checked it
// gets no token. The subject is looked at with the session, before the write, and once more after it: where only the second
// look refuses, or cannot be made, the session's token was replaced by one that nobody holds. The zero Mark is none.
func (a *Authority) StepUpSince(ctx context.Context, t Token, m Mark, auth Authentication, from Client) (_ Issued, err error) {
	defer a.counts.noted(&err)
	if err := checkNames("method", auth.Methods, maxMethods); err != nil {
		return Issued{}, err
	}
	e := Expect{Kinds: []Kind{KindSession}, From: from, CanRenew: true}
	got, err := a.rotate(ctx, t, rotation{from: from, expect: &e, stepUp: &auth, since: m})
	if err != nil || m.id.IsZero() {
		return got, err
	}
	// The session's record and the subject's are two: who was signed out between the look and the write, but for this
	// session, must not be found to have slipped through.
	st, _, err := a.subject(ctx, m.id)
	if err != nil {
		return Issued{}, err
	}
	if !m.holds(st) {
		return Issued{}, ErrStaleSignIn
	}
	return got, nil
}

// rotation is what the three have in common.
type rotation struct {
	from   Client
	expect *Expect         // nil: only if due, and without a judgement
	stepUp *Authentication // not nil: to a fresh secret, whichever tenant's session it is
	since  Mark            // of a step-up; zero: none
	// lost says that the request came with a token whose successor nobody had used. Where it was not so then, a token
	// that is late only now, because the answer took its time, says nothing about an answer that was lost.
	lost bool
	// with is asked for what else is written with the next generation, and may change its payload.
	with func(next *state, secret *[opaque.SecretSize]byte) ([]store.Op, error)
}

func (a *Authority) rotate(ctx context.Context, t Token, how rotation) (Issued, error) {
	tok, err := a.parse(t, nil)
	if err != nil {
		return how.no(err)
	}
	if k := Kind(tok.Kind); k != KindSession && k != KindAPIKey { // refresh tokens are renewed by Refresh, and nothing else is
		return how.no(refuse(ReasonWrongKind))
	}
	for range attempts {
		x, err := a.look(ctx, &tok, a.now())
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
	s, v, err := a.admitted(ctx, x, how)
	if s == nil || err != nil {
		return Issued{}, err
	}
	ms := x.now.UnixMilli()
	switch {
	case how.stepUp != nil: // admitted: current, or not long ago
		if err := how.since.check(x); err != nil {
			return Issued{}, err
		}
		return a.advance(ctx, x, how, 0)
	case v == current && (how.expect != nil || due(x.policy, s.Renewed, x.now)):
		if x.state.full(ms, x.policy) {
			return Issued{Session: s}, nil // the presented token stays current
		}
		return a.advance(ctx, x, how, x.tok.Generation)
	case v == lostAnswer && (how.expect != nil || how.lost):
		return a.advance(ctx, x, how, x.tok.Generation)
	case v == handOut:
		secret, err := a.successor(x)
		if err != nil {
			a.log.Warn("a successor is not handed out again", "session", s.ID, "err", err)
			return Issued{Session: s}, nil
		}
		return Issued{Token: a.token(x.rec, x.state.generation, secret), Session: s}, nil
	}
	return Issued{Session: s}, nil
}

// admitted returns the session and what its token's generation means. A rotation that does not judge gets no session for
// what Validate would refuse.
func (a *Authority) admitted(ctx context.Context, x *exam, how rotation) (*Session, verdict, error) {
	if how.expect == nil {
		if x.rec == nil || x.tok.Kind != x.rec.Kind {
			return nil, forged, nil
		}
		if why, _, _ := x.standing(); why != "" {
			return nil, forged, nil
		}
		return x.session(), a.judge(x, x.clientHash(how.from)), nil
	}
	e := *how.expect
	if how.stepUp != nil && x.rec != nil {
		e.Tenant = x.rec.Tenant
	}
	return a.decide(ctx, x, &e)
}

// advance makes the next generation, from the secret of parent (the presented one), or from a fresh secret if parent is
// 0. It is one conditional write.
func (a *Authority) advance(ctx context.Context, x *exam, how rotation, parent uint32) (Issued, error) {
	st := x.state.clone()
	ms := x.now.UnixMilli()
	l := link{generation: st.generation + 1, parent: parent, at: ms, client: x.clientHash(how.from), retired: st.verifier}
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
		// The class (acr) is that of the last authentication, as its time is: an older one would vouch for more than there was.
		st.methods = union(Authentication{Methods: st.methods}.AMR(), how.stepUp.Methods)
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
	st.minted = nil
	st.generation = l.generation
	st.verifier = opaque.Verifier(x.rec.ID, st.generation, &secret)
	st.renewed = ms
	st.op = newOp()
	var more []store.Op
	if how.with != nil {
		var err error
		if more, err = how.with(st, &secret); err != nil {
			return Issued{}, err
		}
	}
	payload, err := st.encode()
	if err != nil {
		return Issued{}, err
	}
	rec := next(x.rec)
	rec.LastSeen = max(rec.LastSeen, ms)
	ops := append(more, a.put(rec, x.rec.Version, payload), store.Emit(x.event(event, "", "generation "+itoa(st.generation))))
	err = a.apply(ctx, rec.ID.Root(), a.wrote(rec.ID, st.op), ops...)
	if err != nil {
		return Issued{}, err
	}
	if parent != 0 && parent != x.state.generation {
		a.counts.forgiven.Add(1)
	}
	after := exam{tok: x.tok, now: x.now, standpoint: standpoint{rec, st, x.policy}, above: x.above}
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
