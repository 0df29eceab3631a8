package afterlogin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/store"
)

// A child lives under one root and never outlives it: an online grant, an access token, a code, a ticket, a session that
// was handed over to another host. To make one takes no change of the root: under a root that has been ended meanwhile
// it is worth nothing.

// perRoot is how many tokens one node makes for the children of a root in half an hour.
const (
	perRoot       = 256
	perRootPeriod = 30 * time.Minute
)

// live reads the session's record again, past the cache, and fails unless it is good as such.
func (a *Authority) live(ctx context.Context, s *Session) (*exam, error) {
	if s == nil {
		return nil, badRequest("the session is nil")
	}
	return a.examine(ctx, s.record)
}

// signedIn is live for what only a person's own session may do: what is made below it reaches further than any token that
// was given to somebody else.
func (a *Authority) signedIn(ctx context.Context, s *Session, what string) (*exam, error) {
	if s == nil || s.Kind != KindSession || s.Anonymous() {
		return nil, badRequest("%s needs the session that somebody signed in to, not a token made from it", what)
	}
	x, err := a.live(ctx, s)
	if err == nil && (Kind(x.rec.Kind) != KindSession || x.root().rec.Subject == "") {
		err = badRequest("%s needs the session that somebody signed in to", what)
	}
	return x, err
}

// budget counts one more token under the root.
func (a *Authority) budget(x *exam) error {
	root := x.root().rec
	n := perRoot
	if Kind(root.Kind) == KindClient {
		n = 1 << 20 // a service gets its tokens below its client, and nowhere else
	}
	if wait := a.budgets.allow(root.ID, x.now, n, perRootPeriod); wait > 0 {
		return &LimitError{Session: newSessionID(Kind(root.Kind), root.ID), RetryAfter: wait}
	}
	return nil
}

// child is a credential about to be put under a root, or to be a root of its own.
type child struct {
	standpoint
	op    store.Op
	token Token
}

// newChild makes a record of the kind under x, which is live, with a fresh secret. It ends with x at the latest.
func (a *Authority) newChild(x *exam, kind Kind, st *state, life time.Duration, client string) (*child, error) {
	absolute := a.childEnd(x, life)
	return a.makeChild(x, kind, st, absolute, client, a.childID(x, absolute), nil)
}

// childEnd returns when what is made below x now and lives that long ends, in milliseconds.
func (a *Authority) childEnd(x *exam, life time.Duration) int64 {
	end := sooner(x.now.Add(life).UnixMilli(), x.rec.Absolute)
	for i := range x.above {
		end = sooner(end, x.above[i].rec.Absolute)
	}
	return end
}

func (a *Authority) childID(x *exam, absolute int64) store.ID {
	var random [6]byte
	for random == [6]byte{} { // zero is the data's
		rand.Read(random[:])
	}
	return store.NewChildID(x.root().rec.ID, store.BucketOf(absolute), random)
}

// makeChild makes the record with the id, and with the secret or, if that is nil, a fresh one.
func (a *Authority) makeChild(x *exam, kind Kind, st *state, absolute int64, client string, id store.ID, secret *[opaque.SecretSize]byte) (*child, error) {
	return a.newRecord(&store.Record{
		ID: id, Kind: byte(kind), Tenant: x.root().rec.Tenant, Client: client, Created: x.now.UnixMilli(), Absolute: absolute,
	}, st, secret)
}

// newRoot makes a root of the subject of x, with the fresh stamp of its subject as of now: the stamp of x may be that of a
// session that a "sign out everywhere else" spared.
func (a *Authority) newRoot(x *exam, kind Kind, st *state, absolute int64, client string) (*child, error) {
	of := x.root().rec
	var random [14]byte
	rand.Read(random[:])
	if x.subject != nil {
		st.stamp = x.subject.epochs
	}
	return a.newRecord(&store.Record{
		ID: store.NewRootID(store.BucketOf(absolute), random, of.Tenant, of.Subject), Kind: byte(kind),
		Tenant: of.Tenant, Subject: of.Subject, Client: client, Created: x.now.UnixMilli(), Absolute: absolute,
	}, st, nil)
}

// newRecord completes and seals a first generation.
func (a *Authority) newRecord(rec *store.Record, st *state, secret *[opaque.SecretSize]byte) (*child, error) {
	if secret == nil {
		fresh := newSecret()
		secret = &fresh
	}
	rec.LastSeen = rec.Created
	st.generation, st.renewed, st.op = 1, rec.Created, newOp()
	st.verifier = opaque.Verifier(rec.ID, 1, secret)
	payload, err := st.encode()
	if err != nil {
		return nil, err
	}
	return &child{standpoint{rec, st, a.policy(st.policy)}, a.put(rec, 0, payload), a.token(rec, 1, *secret)}, nil
}

// under returns what stands above a child of x.
func (x *exam) under() ([]childRef, error) {
	if !x.rec.ID.IsChild() {
		return nil, nil
	}
	if len(x.state.above) == maxAbove {
		return nil, badRequest("a token exchanged from a token exchanged from a token: %d deep is the limit", maxAbove)
	}
	return append([]childRef{refOf(x.rec.ID)}, x.state.above...), nil
}

// examOf returns the child as an exam of its own, for its session and its events.
func (x *exam) examOf(c *child) *exam {
	out := &exam{now: x.now, standpoint: c.standpoint, subject: x.subject}
	if x.rec.ID.IsChild() {
		out.above = append(out.above, x.standpoint)
	}
	out.above = append(out.above, x.above...)
	if len(out.above) == 0 {
		out.above = []standpoint{x.standpoint}
	}
	return out
}

// checkAudience checks a list of audiences.
func checkAudience(list []string) error {
	if len(list) > maxAudience {
		return badRequest("audience: %d of them, the most is %d", len(list), maxAudience)
	}
	for _, s := range list {
		if s == "" || len(s) > store.MaxText || !utf8.ValidString(s) {
			return badRequest("audience: want 1 to %d bytes of UTF-8", store.MaxText)
		}
	}
	return nil
}

// narrower returns the wanted scopes, or all of those that there are if none is named. It fails with ReasonScope if more
// is wanted than there is.
func narrower(x *exam, have, want []string) ([]string, error) {
	if len(want) == 0 {
		return have, nil
	}
	if !has(have, want) {
		return nil, x.refusal(ReasonScope, "", time.Time{})
	}
	return want, nil
}

// wanted is a digest of what an access token is asked for.
func wanted(st *state, life time.Duration) (h [8]byte) {
	b := binary.BigEndian.AppendUint64(appendText(nil, st.actor), uint64(life))
	for _, list := range [][]string{st.scopes, st.audience} {
		list = slices.Sorted(slices.Values(list))
		b = binary.BigEndian.AppendUint32(b, uint32(len(list)))
		for _, s := range list {
			b = appendText(b, s)
		}
	}
	sum := sha256.Sum256(b)
	copy(h[:], sum[:])
	return h
}
