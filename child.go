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

// budget counts one more token under the root.
func (a *Authority) budget(x *exam) error {
	root := x.root().rec
	n := perRoot
	if Kind(root.Kind) == KindClient {
		n = 1 << 20 // a service gets its tokens below its client, and nowhere else
	}
	if wait := a.limits.allow(root.ID, x.now, n, perRootPeriod); wait > 0 {
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

// newChild makes a record of the kind under x, which is live, with the secret; a fresh one if secret is nil. It ends with
// x at the latest. ref, if it is not nil, is the id within the root, which decides nothing about the expiry but must
// have been made for it.
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

// makeChild seals the record. The state's verifier is set here.
func (a *Authority) makeChild(x *exam, kind Kind, st *state, absolute int64, client string, id store.ID, secret *[opaque.SecretSize]byte) (*child, error) {
	ms := x.now.UnixMilli()
	if secret == nil {
		fresh := newSecret()
		secret = &fresh
	}
	st.generation, st.renewed, st.op = 1, ms, newOp()
	st.verifier = opaque.Verifier(id, 1, secret)
	payload, err := st.encode()
	if err != nil {
		return nil, err
	}
	rec := &store.Record{
		ID: id, Kind: byte(kind), Tenant: x.root().rec.Tenant, Client: client,
		Created: ms, Absolute: absolute, LastSeen: ms,
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

// checkList checks a list of audiences, or of whatever may be long.
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
func wanted(scopes, audience []string) (h [8]byte) {
	var b []byte
	for _, list := range [][]string{scopes, audience} {
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
