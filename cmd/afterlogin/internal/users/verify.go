package users

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin"
)

// storeTimeout bounds how long somebody waits for a store that does not answer.
const storeTimeout = 10 * time.Second

// From is where a password comes from.
type From struct {
	Addr   netip.Addr // the zero Addr: not known; all such are counted as one
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
func (u *Users) Verify(ctx context.Context, typed, password string, from From) (_ *Verified, err error) {
	defer func() { u.tries.note(err) }()
	name := FoldName(typed)
	if len(name) > MaxPassword { // counted as one name, whatever it is
		name = ""
	}
	if !from.Addr.IsValid() {
		u.nowhere.Do(func() {
			u.log.WarnContext(ctx, "somebody signs in from an address that is not known; all such are counted as one, and a few wrong passwords make all of them wait. Does the proxy in front say where its requests come from (X-Forwarded-For)?")
		})
	}
	var id []byte
	pass := u.device(name, from.Device)
	if pass != nil {
		id = pass.id
	}
	tried, err := u.throttle.take(name, id, from.Addr, u.now())
	if err != nil {
		return nil, err
	}
	v, err := u.verify(ctx, name, password, from, pass, &tried)
	var early *ThrottledError
	switch {
	case err == nil:
		tried.back()
		v.Device = u.Remember(v.User, from.Device)
	case !errors.Is(err, ErrWrong) && !errors.As(err, &early): // nobody has learned anything
		tried.back()
	}
	return v, err
}

// verify is Verify after the try was counted.
func (u *Users) verify(ctx context.Context, name, password string, from From, pass *pass, tried *try) (*Verified, error) {
	if len(password) > MaxPassword { // nobody has such a one
		return nil, ErrWrong
	}
	// The same reads for every name, in this order: a change after the mark makes the sign-in fail, one before it is seen.
	// They come before the wait for a hash: a store that does not answer keeps nobody else's password waiting. A name that
	// nobody can have is read like any other that nobody has.
	key := name
	if !validName(key) {
		key = "-"
	}
	mark, e, d, err := u.marked(ctx, key)
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
	known := pass != nil && d != nil && pass.set == d.Set
	if pass != nil && !known { // it is of a password that was taken back since
		if err := tried.unknown(name, u.now()); err != nil {
			return nil, err
		}
	}
	ok, have, err := u.compare(ctx, lane{name: key, known: known}, lane{from: network(from.Addr, v4Address, v6Address)}, password, hash)
	switch {
	case errors.Is(err, ErrBusy):
		return nil, err
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
		if mark, e, d, err = u.resume(ctx, e, d); err != nil {
			return nil, err
		}
	}
	if u.params.risen(have) {
		e, d = u.rehash(ctx, e, d, password)
	}
	return &Verified{User: newUser(e, d), Mark: mark}, nil
}

// marked returns a mark for the subject, and the user's record, which was read after it.
func (u *Users) marked(ctx context.Context, name string) (afterlogin.Mark, *afterlogin.Entry, *detail, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	mark, err := u.authority.Begin(ctx, u.tenant, name)
	if err != nil {
		return mark, nil, nil, err
	}
	e, d, err := u.read(ctx, name)
	return mark, e, d, err
}

// compare computes the hash when it is its turn.
func (u *Users) compare(ctx context.Context, name, from lane, password, hash string) (bool, Params, error) {
	if !u.lanes.enter(name, from) {
		return false, Params{}, ErrBusy
	}
	defer u.lanes.leave(name, from)
	if err := u.hasher.enter(ctx); err != nil {
		return false, Params{}, err
	}
	defer u.hasher.leave()
	return u.hasher.compare(password, hash)
}

// resume carries a change through, for somebody whose password is right, and returns what marked does: what the mark was
// taken after must still be so.
func (u *Users) resume(ctx context.Context, e *afterlogin.Entry, d *detail) (afterlogin.Mark, *afterlogin.Entry, *detail, error) {
	before, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if _, err := u.end(before, e, d, ""); err != nil {
		return afterlogin.Mark{}, nil, nil, err
	}
	mark, e, now, err := u.marked(ctx, e.Name)
	if err == nil && (now.Set != d.Set || now.Disabled || now.End != "") {
		err = ErrWrong
	}
	return mark, e, now, err
}

// rehash replaces the hash by one with the parameters of today, if nobody else changes the user meanwhile; if it cannot,
// the next sign-in will.
func (u *Users) rehash(ctx context.Context, e *afterlogin.Entry, d *detail, password string) (*afterlogin.Entry, *detail) {
	hash, err := u.hasher.make(ctx, password)
	if errors.Is(err, ErrBusy) {
		return e, d
	}
	if err != nil {
		u.log.ErrorContext(ctx, "a hash cannot be made", "err", err)
		return e, d
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
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
	// What Verify answered. Throttled passwords were not looked at, since there were too many wrong ones, and busy ones since
	// too many were being looked at.
	Right, Wrong, Throttled, Busy uint64
}

// tries counts what Verify answered.
type tries struct{ right, wrong, throttled, busy atomic.Uint64 }

func (t *tries) note(err error) {
	var early *ThrottledError
	switch {
	case err == nil:
		t.right.Add(1)
	case errors.Is(err, ErrWrong):
		t.wrong.Add(1)
	case errors.Is(err, ErrBusy):
		t.busy.Add(1)
	case errors.As(err, &early):
		t.throttled.Add(1)
	}
}

// Stats returns the figures.
func (u *Users) Stats() Stats {
	t := &u.tries
	return Stats{
		Hashes: u.hasher.made.Load(), Waiting: u.hasher.waiting.Load(),
		Right: t.right.Load(), Wrong: t.wrong.Load(), Throttled: t.throttled.Load(), Busy: t.busy.Load(),
	}
}
