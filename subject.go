package afterlogin

import (
	"context"
	"crypto/rand"
	"encoding/binary"

	"github.com/afterlogin/afterlogin/store"
)

// A Mark is taken by Begin before a person's credentials are checked, and given to Issue or StepUpSince after it. If the
// subject is signed out everywhere between the two (by a change of the password, say), the sign-in fails: the credential
// that was checked may be the one that was just taken back. A Mark is no secret. The zero Mark is none.
type Mark struct {
	id     store.ID
	known  bool // whether the subject had a record
	epochs epochs
}

// Begin returns a mark for a sign-in of the subject. Call it before the password, or whatever it is, is checked, with the
// subject that Issue will be called with, not with a name that is only typed. It writes nothing, so that it may be called
// for subjects that do not exist.
func (a *Authority) Begin(ctx context.Context, tenant uint32, subject string) (Mark, error) {
	id := store.SubjectID(tenant, subject)
	st, _, err := a.subject(ctx, id)
	if err != nil {
		return Mark{}, err
	}
	m := Mark{id: id, known: st != nil}
	if st != nil {
		m.epochs = st.epochs
	}
	return m, nil
}

// holds reports whether the subject, which may have no record, was not signed out since the mark. It must be one.
func (m Mark) holds(st *subjectState) bool {
	if st == nil {
		return !m.known
	}
	return m.known && m.epochs == st.epochs || !m.known && st.bumps == 0
}

// check is for a step-up of the examined session, which is good. The zero mark is good for all.
func (m Mark) check(x *exam) error {
	switch {
	case m.id.IsZero():
		return nil
	case m.id != x.subjectID():
		return badRequest("mark: it is of another subject than the session")
	case !m.holds(x.subject):
		return ErrStaleSignIn
	}
	return nil
}

// subject reads a subject's record past every cache. It returns nil if there is none.
func (a *Authority) subject(ctx context.Context, id store.ID) (*subjectState, *store.Record, error) {
	rs, err := a.store.Get(ctx, id)
	if err != nil {
		return nil, nil, unavailable("read", err)
	}
	if rs[0] == nil {
		return nil, nil, nil
	}
	st, err := a.openSubject(rs[0])
	return st, rs[0], err
}

// openSubject opens a subject's record.
func (a *Authority) openSubject(r *store.Record) (*subjectState, error) {
	plain, err := a.sealer.Open(r)
	if err != nil {
		a.log.Error("a subject's record does not open", "record", r.ID, "err", err)
		return nil, unavailable("open", err)
	}
	st, err := decodeSubject(plain)
	if err != nil {
		return nil, unavailable("open", err)
	}
	return st, nil
}

// admit returns the stamp for a sign-in of the subject, making its record at the first one. It fails with
// ErrStaleSignIn if the subject was signed out after the mark.
func (a *Authority) admit(ctx context.Context, tenant uint32, subject string, kind Kind, m Mark) (epochs, error) {
	id := store.SubjectID(tenant, subject)
	if !m.id.IsZero() && m.id != id {
		return epochs{}, badRequest("mark: it is of another subject; begin with the subject that is signed in, not with the name that was typed")
	}
	for range attempts {
		st, rec, err := a.subject(ctx, id)
		if err != nil {
			return epochs{}, err
		}
		if st != nil {
			if !m.id.IsZero() && !m.holds(st) {
				return epochs{}, ErrStaleSignIn
			}
			switch err := a.untracked(ctx, kind, st, rec); {
			case err == errConflict:
				continue
			case err != nil:
				return epochs{}, err
			}
			return st.epochs, nil
		}
		if m.known {
			return epochs{}, ErrStaleSignIn // the record is gone: the store was rolled back
		}
		err = a.putSubject(ctx, tenant, subject, nil, func(st *subjectState) {})
		if err != nil && err != errConflict {
			return epochs{}, err
		}
	}
	return epochs{}, exhausted("sign in")
}

// putSubject changes the subject's record, or makes it if old is nil, and emits the events with it.
func (a *Authority) putSubject(ctx context.Context, tenant uint32, subject string, old *store.Record, change func(*subjectState), events ...store.Event) error {
	id := store.SubjectID(tenant, subject)
	now := a.now().UnixMilli()
	st := &subjectState{}
	rec := &store.Record{ID: id, Kind: kindSubject, Tenant: tenant, Subject: subject, Created: now}
	var expect uint64
	if old != nil {
		plain, err := a.sealer.Open(old)
		if err == nil {
			st, err = decodeSubject(plain)
		}
		if err != nil {
			return unavailable("open", err)
		}
		rec, expect = next(old), old.Version
	} else {
		st.epochs = epochs{newEpoch(now), newEpoch(now)}
	}
	change(st)
	st.op = newOp()
	ops := []store.Op{a.put(rec, expect, st.encode())}
	for _, e := range events {
		ops = append(ops, store.Emit(e))
	}
	return a.apply(ctx, id, a.wrote(id, st.op), ops...)
}

// newEpoch returns an epoch that no session carries yet: the time makes it readable, the random bits unequal.
func newEpoch(ms int64) uint64 {
	var r [2]byte
	rand.Read(r[:])
	return uint64(ms)<<16 | uint64(binary.BigEndian.Uint16(r[:]))
}

// renewEpoch returns an epoch after old, even if the clock went back or stood still.
func renewEpoch(old uint64, ms int64) uint64 {
	return max(newEpoch(ms), (old>>16+1)<<16|newEpoch(0))
}
