package afterlogin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/store"
)

// DefaultOverlap is for how long the old API key is still good after a rotation.
const DefaultOverlap = 24 * time.Hour

// RotateKey makes a new API key with the settings of the one with the id, and ends the old one after the overlap: a
// sibling with a secret and an id of its own, so that the two can be told apart while both are in use. A key that was
// bound to end earlier still does. The new one lives as long as the old one was made for.
//
// The overlap is 0 to 30 days; 0 ends the old key at once. A key that has a successor already, and is waiting for its
// end, cannot be rotated again: rotate the successor, or revoke it first. Errors: ErrNoSession, a *Refusal if the key is
// over, ErrBadRequest, ErrUnavailable; after the last, the new key may exist without anybody who holds it: it is in the
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
	if !x.state.made.IsZero() {
		y, err := a.examine(ctx, x.state.made)
		if err == nil {
			return Issued{}, badRequest("%s has a successor, %s: rotate that, or revoke it first", id, y.session().ID)
		}
		if ReasonOf(err) == "" && err != ErrNoSession {
			return Issued{}, err
		}
	}
	// The new key first: a crash between the two leaves one too many, which opens nothing for anybody.
	c, err := a.sibling(x)
	if err != nil {
		return Issued{}, err
	}
	y := &exam{now: x.now, standpoint: c.standpoint, subject: x.subject}
	err = a.apply(ctx, c.rec.ID, a.wrote(c.rec.ID, c.state.op), c.op, store.Emit(y.event(EventKeyCreated, "", "in place of "+string(id))))
	if err != nil {
		return Issued{}, unlikely(err)
	}
	if err := a.outgoing(ctx, rid, c.rec.ID, overlap); err != nil {
		return Issued{}, err
	}
	return Issued{Token: c.token, Session: y.session()}, nil
}

// sibling makes a root with the settings of the examined key.
func (a *Authority) sibling(x *exam) (*child, error) {
	old := x.state
	st := &state{
		policy: old.policy, name: old.name, scopes: old.scopes, audience: old.audience, networks: old.networks,
		rate: old.rate, origin: old.origin, stamp: old.stamp, device: old.device,
		authAt: old.authAt, methods: old.methods,
	}
	if x.subject != nil {
		st.stamp = x.subject.epochs
	}
	ms := x.now.UnixMilli()
	var absolute int64
	if x.rec.Absolute != 0 {
		absolute = ms + x.rec.Absolute - x.rec.Created
	}
	var random [14]byte
	rand.Read(random[:])
	id := store.NewRootID(store.BucketOf(absolute), random, x.rec.Tenant, x.rec.Subject)
	secret := newSecret()
	st.generation, st.renewed, st.op = 1, ms, newOp()
	st.verifier = opaque.Verifier(id, 1, &secret)
	payload, err := st.encode()
	if err != nil {
		return nil, err
	}
	rec := &store.Record{
		ID: id, Kind: byte(KindAPIKey), Tenant: x.rec.Tenant, Subject: x.rec.Subject, Client: x.rec.Client,
		Created: ms, Absolute: absolute, LastSeen: ms,
	}
	return &child{standpoint{rec, st, x.policy}, a.put(rec, 0, payload), a.token(rec, 1, secret)}, nil
}

// outgoing notes the successor of a key and brings its end forward.
func (a *Authority) outgoing(ctx context.Context, id, successor store.ID, overlap time.Duration) error {
	for range attempts {
		x, err := a.examine(ctx, id)
		if ReasonOf(err) != "" || err == ErrNoSession {
			return nil // over already
		}
		if err != nil {
			return err
		}
		st := x.state.clone()
		st.made, st.op = successor, newOp()
		rec := next(x.rec)
		rec.Absolute = sooner(max(x.now.Add(overlap).UnixMilli(), rec.Created+1), rec.Absolute)
		payload, err := st.encode()
		if err != nil {
			return err
		}
		err = a.apply(ctx, id, a.wrote(id, st.op), a.put(rec, x.rec.Version, payload),
			store.Emit(x.event(EventKeyRotated, "", "by "+string(newSessionID(KindAPIKey, successor))+", good until "+fromMillis(rec.Absolute).Format(time.RFC3339))))
		if err != errConflict {
			return err
		}
	}
	return exhausted("rotate")
}

// decodeHash decodes a hash in hexadecimal or in one of the forms of base64.
func decodeHash(text string) ([]byte, error) {
	if len(text) == 64 {
		return hex.DecodeString(text)
	}
	var err error
	for _, e := range hashEncodings {
		var b []byte
		if b, err = e.DecodeString(text); err == nil {
			return b, nil
		}
	}
	return nil, err
}
