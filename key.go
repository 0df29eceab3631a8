package afterlogin

import (
	"context"
	"errors"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// DefaultOverlap is for how long the old API key is still good after a rotation.
const DefaultOverlap = 24 * time.Hour

// RotateKey makes a new API key with the settings of the one with the id, and ends the old one after the overlap: a
// sibling with a secret and an id of its own, so that the two can be told apart while both are in use. A key that was
// bound to end earlier still does. The new one lives as long as the old one was made for.
//
// Where keys are limited (Config.Limits), there must be room for the new one beside the old one: no other key is ended for
// it.
//
// The overlap is 0 to 30 days; 0 ends the old key at once. A key that has a successor already, and is waiting for its
// end, cannot be rotated again: rotate the successor, or revoke it first. Errors: ErrNoSession, a *Refusal if the key is
// over, ErrSessionLimit, ErrBadRequest, ErrUnavailable; after the last, the new key may exist without anybody who holds it: it is in the
// list, and can be revoked.
func (a *Authority) RotateKey(ctx context.Context, id SessionID, overlap time.Duration) (Issued, error) {
	if overlap < 0 || overlap > 30*day {
		return Issued{}, badRequest("overlap: %v is not between 0 and 30 days", overlap)
	}
	rid, err := id.parse()
	if err != nil {
		return Issued{}, err
	}
	x, err := a.examine(ctx, rid)
	if err != nil {
		return Issued{}, err
	}
	if Kind(x.rec.Kind) != KindAPIKey {
		return Issued{}, badRequest("%s is no API key", id)
	}
	if err := a.noOther(ctx, x, store.ID{}); err != nil {
		return Issued{}, err
	}
	// The new key first: a crash between the two leaves one too many, which opens nothing for anybody.
	c, err := a.sibling(x)
	if err != nil {
		return Issued{}, err
	}
	y := &exam{now: x.now, standpoint: c.standpoint, subject: x.subject}
	err = a.inPlace(ctx, x, c, true, func(ctx context.Context) error {
		return unlikely(a.apply(ctx, c.rec.ID, a.wrote(c.rec.ID, c.state.op), c.op, store.Emit(y.event(EventKeyCreated, "", "in place of "+string(id)))))
	})
	switch {
	case err == ErrStaleSignIn:
		return Issued{}, x.refusal(ReasonSignedOutAll, "", x.now)
	case err != nil:
		return Issued{}, err
	}
	made := y.session()
	err = a.outgoing(ctx, rid, c.rec.ID, overlap)
	if err == nil {
		err = a.lookBack(ctx, made, c.state.origin)
	}
	if err != nil {
		// Whoever ended the old key, or rotated it, at the same time did not know of this one.
		if !errors.Is(err, ErrUnavailable) {
			if rerr := a.Revoke(ctx, made.ID, ReasonOrigin); rerr != nil {
				return Issued{}, rerr
			}
		}
		return Issued{}, err
	}
	a.rehearseLimit(ctx, made)
	return Issued{Token: c.token, Session: made}, nil
}

// sibling makes a root with the settings of the examined key.
func (a *Authority) sibling(x *exam) (*child, error) {
	old := x.state
	st := &state{
		policy: old.policy, name: old.name, scopes: old.scopes, audience: old.audience, networks: old.networks,
		rate: old.rate, origin: old.origin, stamp: old.stamp, device: old.device,
		authAt: old.authAt, methods: old.methods,
	}
	until := x.rec.Absolute
	if !old.made.IsZero() { // it was brought forward by a rotation whose successor is over
		until = old.until
	}
	var absolute int64
	if until != 0 {
		absolute = x.now.UnixMilli() + until - x.rec.Created
	}
	return a.newRoot(x, KindAPIKey, st, absolute, x.rec.Client)
}

// outgoing notes the successor of a key and brings its end forward. It fails if the key has been ended, or rotated by
// somebody else, since its successor was made.
func (a *Authority) outgoing(ctx context.Context, id, successor store.ID, overlap time.Duration) error {
	for range attempts {
		x, err := a.examine(ctx, id)
		if err != nil {
			return err
		}
		if err := a.noOther(ctx, x, successor); err != nil {
			return err
		}
		st := x.state.clone()
		rec := next(x.rec)
		if st.made.IsZero() {
			st.until = rec.Absolute
		}
		st.made, st.op = successor, newOp()
		rec.Absolute = sooner(max(x.now.Add(overlap).UnixMilli(), rec.Created+1), rec.Absolute)
		payload, err := st.encode()
		if err != nil {
			return err
		}
		ops := []store.Op{
			a.put(rec, x.rec.Version, payload),
			store.Emit(x.event(EventKeyRotated, "", "by "+string(newSessionID(KindAPIKey, successor))+", good until "+fromMillis(rec.Absolute).Format(time.RFC3339))),
		}
		if overlap == 0 { // for those who follow the events to know what has ended
			ops = append(ops, store.Emit(x.event(EventRevoked, ReasonSuperseded, "rotated without an overlap")))
		}
		err = a.apply(ctx, id, a.wrote(id, st.op), ops...)
		if err != errConflict {
			return err
		}
	}
	return exhausted("rotate")
}

// noOther fails if the key has a successor, other than the given one, that is good.
func (a *Authority) noOther(ctx context.Context, x *exam, successor store.ID) error {
	if x.state.made.IsZero() || x.state.made == successor {
		return nil
	}
	_, err := a.examine(ctx, x.state.made)
	switch {
	case err == nil, ReasonOf(err) == ReasonFrozen: // which may be taken off hold
		return badRequest("%s has a successor, %s: rotate that, or revoke it first", x.session().ID, newSessionID(KindAPIKey, x.state.made))
	case ReasonOf(err) != "" || err == ErrNoSession:
		return nil
	}
	return err
}
