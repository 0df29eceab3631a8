package users

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/afterlogin/afterlogin"
)

// attempts is how often a change is tried that others interfere with.
const attempts = 10

// edit changes the user's record, and carries out what ends with the change: see the package for the order. change returns
// what is to be ended, "" for nothing, or an error, with which nothing has changed; it may be called more than once, each
// time with the record as it is. spare is a session that does not end.
func (u *Users) edit(ctx context.Context, name string, spare afterlogin.SessionID, change func(*detail) (end string, err error)) (*User, error) {
	for range attempts {
		e, d, err := u.read(ctx, name)
		if err != nil {
			return nil, err
		}
		had := d.End
		end, err := change(d)
		if err != nil {
			return nil, err
		}
		if had == endEverything || end == "" {
			end = had
		}
		if had != "" {
			spare = "" // that of the change before is not known
		}
		if d.End, d.EndAt = end, 0; end != "" {
			d.EndAt = u.now().UnixMilli()
		}
		e, err = u.authority.ChangeEntry(ctx, e, d.json())
		if errors.Is(err, afterlogin.ErrEntryChanged) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if end == "" {
			return newUser(e, d), nil
		}
		return u.end(ctx, e, d, spare)
	}
	return nil, ErrChanged
}

// end is the second and the third step of a change. The record must say what is to be ended.
func (u *Users) end(ctx context.Context, e *afterlogin.Entry, d *detail, spare afterlogin.SessionID) (*User, error) {
	why := afterlogin.Reason(d.Why)
	if d.End == endEverything || why == "" {
		why = afterlogin.ReasonAdministrator
	}
	var err error
	switch {
	case d.End == endEverything:
		err = u.authority.RevokeSubject(ctx, u.tenant, e.Name, afterlogin.Everything, why)
	case spare != "":
		err = u.authority.RevokeOthers(ctx, spare, why)
		if errors.Is(err, afterlogin.ErrInvalidToken) || errors.Is(err, afterlogin.ErrNoSession) { // it is over: nothing to spare
			err = u.authority.RevokeSubject(ctx, u.tenant, e.Name, afterlogin.Sessions, why)
		}
	default:
		err = u.authority.RevokeSubject(ctx, u.tenant, e.Name, afterlogin.Sessions, why)
	}
	if err != nil {
		return nil, err
	}
	done := *d
	done.End, done.EndAt, done.Why = "", 0, ""
	got, err := u.authority.ChangeEntry(ctx, e, done.json())
	switch {
	case err == nil:
		return newUser(got, &done), nil
	case errors.Is(err, afterlogin.ErrEntryChanged):
		// Somebody else has changed the user, or made up for this one. Whatever is still to be ended is theirs to end.
		return u.User(ctx, e.Name)
	}
	return nil, err
}

// underWay is for how long a change that is noted in a record may still be under way on some node.
const underWay = 30 * time.Second

// left reports whether what the record notes was left by a change that is not under way any more.
func (u *Users) left(d *detail) bool {
	age := u.now().Sub(time.UnixMilli(d.EndAt))
	return d.End != "" && (age >= underWay || age < -underWay) // the clock may have been set back
}

// Finish ends the sessions of every user whose change was not carried through, by a crash or because the store did not
// answer. A change of the last half minute may be under way, and is left alone. It returns the first error, after it has
// tried all of them.
func (u *Users) Finish(ctx context.Context) (done int, err error) {
	for e, failed := range u.authority.Entries(ctx, u.tenant, Realm) {
		var d *detail
		if failed == nil {
			d, failed = parse(e)
		}
		if failed == nil && u.left(d) {
			// The list is of a while ago. Whoever signed in after the change was carried through must not be signed out by it.
			if e, d, failed = u.read(ctx, e.Name); failed == nil && u.left(d) {
				if _, failed = u.end(ctx, e, d, ""); failed == nil {
					u.log.WarnContext(ctx, "a user's sessions from before a change were ended late", "user", e.Name)
					done++
				}
			}
		}
		if failed != nil && err == nil {
			err = failed
		}
	}
	return done, err
}

// finishInterval is how often Run looks for changes that were not carried through.
const finishInterval = time.Minute

// Run calls Finish now, and every minute until ctx ends. A failure is logged, and mended by the next call.
func (u *Users) Run(ctx context.Context) {
	t := time.NewTicker(finishInterval)
	defer t.Stop()
	for {
		if _, err := u.Finish(ctx); err != nil && ctx.Err() == nil {
			u.log.WarnContext(ctx, "it is not known whether every change of a user was carried through; it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// SetPassword gives the user a new password and ends the user's sessions, whatever the password is now: it is the
// administrator's. API keys stay. It is durable, and the sessions are ended, when it returns nil. After an error other than
// *FieldError, ErrNoUser and ErrBusy the password may be the new one and sessions may be left: call it again.
func (u *Users) SetPassword(ctx context.Context, name, password string) (*User, error) {
	return u.setPassword(ctx, name, password, "", nil)
}

// ChangePassword is SetPassword for a user who has shown to know the password, which Verify returned v for. It ends the
// user's sessions but for spare, if that is one. If the password was set anew since Verify looked at it, or the user
// disabled, it fails with ErrChanged, and nothing has changed: an administrator who takes an account back from somebody who
// knows its password wins.
func (u *Users) ChangePassword(ctx context.Context, v *Verified, password string, spare afterlogin.SessionID) (*User, error) {
	on := lane{name: v.User.Name, known: true}
	if !u.lanes.enter(on) {
		return nil, ErrBusy
	}
	defer u.lanes.leave(on)
	return u.setPassword(ctx, v.User.Name, password, spare, func(d *detail) error {
		if d.Set != v.User.PasswordChanged.UnixMilli() || d.Disabled {
			return ErrChanged
		}
		return nil
	})
}

// setPassword is what the two have in common. check, if there is one, looks at the record that is about to be replaced.
func (u *Users) setPassword(ctx context.Context, name, password string, spare afterlogin.SessionID, check func(*detail) error) (*User, error) {
	_, d, err := u.read(ctx, name)
	if err == nil && check != nil {
		err = check(d)
	}
	if err != nil { // before the work of a hash
		return nil, err
	}
	if err := u.CheckPassword(name, password); err != nil {
		return nil, err
	}
	hash, err := u.hasher.make(ctx, password)
	if err != nil {
		return nil, err
	}
	why := afterlogin.ReasonAdministrator
	if check != nil { // it is the user's own change
		why = afterlogin.ReasonPasswordChanged
	}
	got, err := u.edit(ctx, name, spare, func(d *detail) (string, error) {
		if check != nil {
			if err := check(d); err != nil {
				return "", err
			}
		}
		d.Hash, d.Set, d.Why = hash, max(u.now().UnixMilli(), d.Set+1), string(why)
		return endSessions, nil
	})
	if err == nil {
		u.log.InfoContext(ctx, "a user's password was changed", "user", name)
	}
	return got, err
}

// A Change is what Update changes of a user; nil fields stay.
type Change struct {
	Disabled *bool
	Scopes   *[]string
}

// Update changes the user. Disabling ends everything of the user's: sessions, grants and API keys. Taking a scope away
// ends sessions, since they have it; a scope that is added is there from the next sign-in on. Enabling lets nothing of
// what was ended live again. After an error other than *FieldError and ErrNoUser the change may have been made and
// sessions may be left: call it again.
func (u *Users) Update(ctx context.Context, name string, c Change) (*User, error) {
	if c.Scopes != nil {
		if err := checkScopes(*c.Scopes); err != nil {
			return nil, err
		}
	}
	got, err := u.edit(ctx, name, "", func(d *detail) (end string, err error) {
		if c.Scopes != nil {
			for _, s := range d.Scopes {
				if !slices.Contains(*c.Scopes, s) {
					end, d.Why = endSessions, string(afterlogin.ReasonAdministrator)
				}
			}
			d.Scopes = slices.Clone(*c.Scopes)
		}
		if c.Disabled != nil {
			if *c.Disabled { // also if it says so already: a retry ends what is left
				end = endEverything
			}
			d.Disabled = *c.Disabled
		}
		return end, nil
	})
	if err == nil && c.Disabled != nil {
		u.log.InfoContext(ctx, "a user was changed", "user", name, "disabled", *c.Disabled)
	}
	return got, err
}
