package afterlogin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// Freeze puts the session, API key, grant or other credential on hold, and everything below it: it is refused with
// ReasonFrozen until Thaw, and ends by time meanwhile as it would have. It is for when somebody must decide first: an
// incident, or a bulk revocation that can still be undone. why is kept as the cause (Refusal.Cause, Session.Frozen). It
// is durable when it returns nil. Freezing again for the same reason does no harm; each hold is somebody's, so for another
// reason it is ErrOnHold, and the credential stays as it is.
//
// What merely came from a session (offline grants, API keys) has a life of its own and is not on hold with it.
//
// Errors: ErrNoSession, a *Refusal if it is over, ErrOnHold, ErrBadRequest, ErrUnavailable.
func (a *Authority) Freeze(ctx context.Context, id SessionID, why Reason) error {
	if err := checkReason(why); err != nil {
		return err
	}
	return a.setFrozen(ctx, id, func(st *state, now time.Time) (bool, error) {
		switch {
		case st.frozen == 0:
			st.frozen, st.frozenFor = now.UnixMilli(), why
			return true, nil
		case st.frozenFor != why:
			return false, fmt.Errorf("%w: %q", ErrOnHold, st.frozenFor)
		}
		return false, nil
	})
}

// Thaw takes back a Freeze. One that is not frozen stays as it is. If only is not empty, so does one that is frozen for
// another reason. It is durable when it returns nil. Errors as of Freeze.
func (a *Authority) Thaw(ctx context.Context, id SessionID, only Reason) error {
	return a.setFrozen(ctx, id, func(st *state, _ time.Time) (bool, error) {
		if st.frozen == 0 || only != "" && only != st.frozenFor {
			return false, nil
		}
		st.frozen, st.frozenFor = 0, ""
		return true, nil
	})
}

// FrozenSince returns since when the credential is on hold itself, by Freeze; zero if it is not, or is over. Errors: ErrNoSession,
// ErrBadSessionID, ErrUnavailable.
func (a *Authority) FrozenSince(ctx context.Context, id SessionID) (time.Time, error) {
	rid, err := id.parse()
	if err != nil {
		return time.Time{}, err
	}
	x := &exam{now: a.now()}
	if err := a.read(ctx, x, rid); err != nil {
		return time.Time{}, err
	}
	if x.rec == nil || x.rec.Kind == kindData || impersonal(Kind(x.rec.Kind)) {
		return time.Time{}, ErrNoSession
	}
	if why, _, _ := x.standing(); why != ReasonFrozen { // what ended while it was on hold says so for ever
		return time.Time{}, nil
	}
	_, _, at := x.held()
	return at, nil
}

// setFrozen changes the state of a credential that is not over. change reports whether there is anything to write.
func (a *Authority) setFrozen(ctx context.Context, id SessionID, change func(*state, time.Time) (bool, error)) error {
	rid, err := id.parse()
	if err != nil {
		return err
	}
	for range attempts {
		x := &exam{now: a.now()}
		if err := a.read(ctx, x, rid); err != nil {
			return err
		}
		if x.rec == nil || x.rec.Kind == kindData || impersonal(Kind(x.rec.Kind)) {
			return ErrNoSession
		}
		if why, cause, at := x.standing(); why != "" && why != ReasonFrozen {
			return x.refusal(why, cause, at)
		}
		st := x.state.clone()
		changed, err := change(st, x.now)
		if err != nil {
			return err
		}
		if !changed && a.shared == nil { // what is read is durable
			return nil
		}
		// What a shared store says may not be confirmed yet. Writing it once more shows that it is.
		st.op = newOp()
		payload, err := st.encode()
		if err != nil {
			return err
		}
		ops := []store.Op{a.put(next(x.rec), x.rec.Version, payload)}
		switch {
		case changed && st.frozen != 0:
			ops = append(ops, store.Emit(x.event(EventFrozen, st.frozenFor, "")))
		case changed:
			ops = append(ops, store.Emit(x.event(EventThawed, x.state.frozenFor, "")))
		}
		err = a.apply(ctx, rid.Root(), a.wrote(rid, st.op), ops...)
		if !errors.Is(err, errConflict) {
			return err
		}
	}
	return exhausted("freeze")
}

// Frozen reports whether the session is on hold, by Freeze of itself or of what it lives under. Why is the reason then.
func (s *Session) Frozen() bool { return s.frozen }
