package users

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/afterlogin/afterlogin"
)

// storeTimeout bounds how long a store that does not answer keeps others from their turn.
const storeTimeout = 10 * time.Second

// From is where a password comes from.
type From struct {
	Addr   netip.Addr // the zero Addr: not known, and not counted
	Device string     // the value of the browser's device cookie, "" if it sent none
}

// Verified is what Verify found out about a right password.
type Verified struct {
	User *User
	// Mark is from before the password was looked at: give it to the sign-in, so that a change of the password meanwhile
	// wins.
	Mark afterlogin.Mark
	// Device is the value that the browser's device cookie is to have, for DeviceAge; "": it keeps what it has.
	Device string
}

// Verify checks the password of the user, whose name was typed (see FoldName). It takes the same work, and answers the
// same, whether there is such a user or not, and for one who is disabled. Until something is known about the password no
// more is done than a look whether it is its turn: too many wrong ones have to wait.
//
// Errors: ErrWrong, *ThrottledError, ErrBusy, ErrUnavailable. Only ErrWrong counts against the account and the address.
func (u *Users) Verify(ctx context.Context, typed, password string, from From) (*Verified, error) {
	name := FoldName(typed)
	if len(name) > MaxPassword { // counted as one name, whatever it is
		name = ""
	}
	id, _ := u.device(name, from.Device)
	tried, err := u.throttle.take(name, id, from.Addr, u.now())
	if err != nil {
		return nil, err
	}
	v, err := u.verify(ctx, name, password)
	if err != nil {
		if !errors.Is(err, ErrWrong) { // nobody has learned anything
			tried.back()
		}
		return nil, err
	}
	tried.back()
	v.Device = u.remember(name, from.Device)
	return v, nil
}

// verify is Verify without the throttle.
func (u *Users) verify(ctx context.Context, name, password string) (*Verified, error) {
	if len(password) > MaxPassword { // nobody has such a one
		return nil, ErrWrong
	}
	if err := u.hasher.enter(ctx); err != nil {
		return nil, err
	}
	defer u.hasher.leave()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	// The same reads for every name, in this order: a change after the mark makes the sign-in fail, one before it is seen.
	// A name that nobody can have is read like any other that nobody has.
	key := name
	if !validName(key) {
		key = "-"
	}
	mark, err := u.authority.Begin(ctx, u.tenant, key)
	if err != nil {
		return nil, err
	}
	e, d, err := u.read(ctx, key)
	hash := u.hasher.dummy
	switch {
	case err == nil && key == name:
		hash = d.Hash
	case err == nil, errors.Is(err, ErrNoUser):
		d = nil
	case errors.Is(err, afterlogin.ErrUnavailable):
		return nil, err
	default:
		u.log.ErrorContext(ctx, "a user cannot sign in", "user", key, "err", err)
		return nil, err
	}
	ok, have, err := u.hasher.compare(password, hash)
	switch {
	case err != nil:
		u.log.ErrorContext(ctx, "a user cannot sign in", "user", key, "err", err)
		return nil, err
	case d == nil:
		return nil, ErrWrong
	case !ok:
		u.log.InfoContext(ctx, "wrong password", "user", name)
		return nil, ErrWrong
	case d.Disabled:
		u.log.InfoContext(ctx, "a disabled user wants to sign in, with the right password", "user", name)
		return nil, ErrWrong
	}
	if d.End != "" { // a change that was not carried through: see the package
		if e, d, err = u.finish(ctx, e, d); err != nil {
			return nil, err
		}
		if mark, err = u.authority.Begin(ctx, u.tenant, name); err != nil {
			return nil, err
		}
		// What the mark was taken after must still be so: read once more, and with the same hash.
		again, now, err := u.read(ctx, name)
		if err != nil {
			return nil, err
		}
		if now.Hash != hash || now.Disabled || now.End != "" {
			return nil, ErrWrong
		}
		e, d = again, now
	}
	if u.params.risen(have) {
		e, d = u.rehash(ctx, e, d, password)
	}
	return &Verified{User: newUser(e, d), Mark: mark}, nil
}

// rehash replaces the hash by one with the parameters of today, if nobody else changes the user meanwhile; if it cannot,
// the next sign-in will. The caller has entered.
func (u *Users) rehash(ctx context.Context, e *afterlogin.Entry, d *detail, password string) (*afterlogin.Entry, *detail) {
	hash, err := u.hasher.create(password)
	if err != nil {
		u.log.ErrorContext(ctx, "a hash cannot be made", "err", err)
		return e, d
	}
	changed := *d
	changed.Hash = hash
	got, err := u.authority.ChangeEntry(ctx, e, changed.json())
	if err != nil {
		u.log.DebugContext(ctx, "a hash keeps its old parameters for now", "user", e.Name, "err", err)
		return e, d
	}
	return got, &changed
}

// Stats are figures of this node since it was started.
type Stats struct {
	Hashes  int64 // how many were computed
	Waiting int64 // how many wait for their turn now
}

// Stats returns the figures.
func (u *Users) Stats() Stats {
	return Stats{Hashes: u.hasher.made.Load(), Waiting: u.hasher.waiting.Load()}
}
