// Package users is the list of built-in users: a name, a hash of a password, scopes, and whether the user is disabled. It
// is for those who have no other place that knows people: an operator makes the users, and nobody registers.
//
// The list is kept as named records of the authority ([afterlogin.Entry], realm "users"), so that every node on a store
// sees one list. Passwords are hashed with argon2id; wrong ones are throttled per account and per address, and a browser
// that a user has signed in with before is counted apart, so that nobody can lock an owner out. See [Users.Verify].
//
// # Changes, and the sessions from before them
//
// A new password ends the user's sessions, and so does a scope that is taken away; disabling a user ends API keys, too.
// These are two records, the user's and the subject's of the core, and the order is:
//
//  1. the user's record is changed, and says in the same write that sessions from before it are to end, and since when;
//  2. they are ended, with one write (Authority.RevokeSubject, or RevokeOthers);
//  3. the user's record is changed to say that this was done.
//
// From the first step on the old password is refused, and a disabled user too. A sign-in that had read the record before
// fails by its mark, which is older than the second step. A crash, or a store that does not answer, between the first and
// the third leaves a record that says so: the caller gets an error, the list shows it, and the second step is made up for
// by whoever comes first: the same change again, the user's next sign-in, or Finish, which a server calls as it starts
// and every minute, and which leaves a change alone that may still be under way.
package users

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
)

// Realm is where the users' records are kept.
const Realm = "users"

// Errors of users. ErrUnavailable of the authority comes as it is.
var (
	// ErrNoUser is returned for a name that no user has.
	ErrNoUser = errors.New("there is no user of this name")
	// ErrUserExists is returned by Add.
	ErrUserExists = errors.New("there is a user of this name")
	// ErrChanged is returned if somebody else changed the user over and over meanwhile, and by ChangePassword if the password
	// that was checked is not the user's any more.
	ErrChanged = errors.New("the user was changed meanwhile")
	// ErrWrong is returned by Verify: the name, the password, or both are wrong, or the user is disabled. Which of these
	// is nobody's business but the operator's.
	ErrWrong = errors.New("wrong name or password")
	// ErrBusy is returned by Verify if too many passwords are being checked already, for everybody, for this user, or from
	// this address.
	ErrBusy = errors.New("too many passwords are being checked at once")
)

// A FieldError is what is wrong with a value that was given: a mistake of the caller's, which the text says how to mend.
// It never repeats a password.
type FieldError struct {
	Field   string // name, password or scopes
	Message string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Message }

// Options configure New.
type Options struct {
	Authority *afterlogin.Authority // required
	Tenant    uint32
	// Keys are the authority's. Without them no browser is remembered, and all are counted together.
	Keys *keyring.Ring
	// Now is the authority's clock; nil means time.Now.
	Now    func() time.Time
	Logger *slog.Logger // nil discards; never gets a password, nor a name that no user has
	// Params are of the hashes that are made from now on; the zero value is DefaultParams.
	Params Params
	// Parallel is how many hashes are computed at once, each with Params.Memory; by default as many as there are
	// processors, two to eight.
	Parallel int
	// MinLength is how many characters a new password has at least, 8 to 64; by default 15, which NIST SP 800-63B-4 asks
	// for where a password is the only factor.
	MinLength int
}

// Users is the list. It is safe for concurrent use.
type Users struct {
	authority *afterlogin.Authority
	tenant    uint32
	keys      *keyring.Ring
	now       func() time.Time
	log       *slog.Logger
	params    Params
	minLength int
	hasher    *hasher
	tries     tries
	throttle  *throttle
	lanes     lanes
	nowhere   sync.Once // warns of requests whose address is not known
}

// New returns the list that the authority keeps.
func New(o Options) (*Users, error) {
	u := &Users{
		authority: o.Authority, tenant: o.Tenant, keys: o.Keys, now: o.Now, log: o.Logger,
		params: o.Params, minLength: o.MinLength, throttle: newThrottle(defaultSizes),
	}
	if u.authority == nil {
		return nil, errors.New("users: the authority is nil")
	}
	if u.now == nil {
		u.now = time.Now
	}
	if u.log == nil {
		u.log = slog.New(slog.DiscardHandler)
	}
	if u.params == (Params{}) {
		u.params = DefaultParams
	}
	if err := u.params.Check(); err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	if u.minLength == 0 {
		u.minLength = DefaultMinLength
	}
	if u.minLength < 8 || u.minLength > 64 {
		return nil, fmt.Errorf("users: a password's least length is 8 to 64 characters, not %d", u.minLength)
	}
	u.hasher = newHasher(o.Parallel, u.params)
	return u, nil
}

// MinLength is how many characters a new password has at least.
func (u *Users) MinLength() int { return u.minLength }

// A User is what may be shown of one.
type User struct {
	Name     string
	Disabled bool
	Scopes   []string
	Created  time.Time
	// PasswordChanged is when the password was last set.
	PasswordChanged time.Time
	// Pending says that the user was changed, and that sessions from before the change may not have been ended yet. See
	// the package.
	Pending bool
	Version uint64
}

// detail is a user as it is kept.
type detail struct {
	Hash     string   `json:"hash"`
	Disabled bool     `json:"disabled,omitempty"`
	Scopes   []string `json:"scopes,omitempty"`
	// Set is when the password was set, in ms, and a later number for every later password: a hash that is made anew for the
	// same password keeps it.
	Set   int64  `json:"set"`
	End   string `json:"end,omitempty"`    // what is to be ended: endSessions or endEverything
	Why   string `json:"why,omitempty"`    // what the person is told of it: an afterlogin.Reason
	EndAt int64  `json:"end_at,omitempty"` // when that was noted, in ms
}

const (
	endSessions   = "sessions"
	endEverything = "everything"
)

func parse(e *afterlogin.Entry) (*detail, error) {
	var d detail
	if err := json.Unmarshal(e.Detail, &d); err != nil || d.Hash == "" {
		return nil, fmt.Errorf("the record of the user %s cannot be read: was it written by a later version?", e.Name)
	}
	return &d, nil
}

func (d *detail) json() json.RawMessage {
	b, err := json.Marshal(d)
	if err != nil {
		panic("users: " + err.Error()) // strings and numbers always can
	}
	return b
}

func newUser(e *afterlogin.Entry, d *detail) *User {
	return &User{
		Name: e.Name, Disabled: d.Disabled, Scopes: slices.Clone(d.Scopes), Created: e.Created,
		PasswordChanged: time.UnixMilli(d.Set), Pending: d.End != "", Version: e.Version,
	}
}

// read returns a user's record, from the store and from no cache.
func (u *Users) read(ctx context.Context, name string) (*afterlogin.Entry, *detail, error) {
	if CheckName(name) != nil {
		return nil, nil, ErrNoUser
	}
	e, err := u.authority.Entry(ctx, u.tenant, Realm, name)
	if errors.Is(err, afterlogin.ErrNoEntry) {
		return nil, nil, ErrNoUser
	}
	if err != nil {
		return nil, nil, err
	}
	d, err := parse(e)
	return e, d, err
}

// User returns the user of exactly that name. Errors: ErrNoUser, ErrUnavailable.
func (u *Users) User(ctx context.Context, name string) (*User, error) {
	e, d, err := u.read(ctx, name)
	if err != nil {
		return nil, err
	}
	return newUser(e, d), nil
}

// All yields the users, in no order. A user whose record cannot be read is left out, and named in the log: the others are
// there. It yields an error as the last thing, if at all.
func (u *Users) All(ctx context.Context) iter.Seq2[*User, error] {
	return func(yield func(*User, error) bool) {
		for e, err := range u.authority.Entries(ctx, u.tenant, Realm) {
			if err != nil {
				yield(nil, err)
				return
			}
			d, err := parse(e)
			if err != nil {
				u.log.ErrorContext(ctx, "a user is missing from a list", "user", e.Name, "err", err)
				continue
			}
			if !yield(newUser(e, d), nil) {
				return
			}
		}
	}
}

// Add makes a user. It is durable when it returns nil. Errors: *FieldError, ErrUserExists, ErrBusy, ErrUnavailable.
func (u *Users) Add(ctx context.Context, name, password string, scopes []string) (*User, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := checkScopes(scopes); err != nil {
		return nil, err
	}
	if err := u.CheckPassword(name, password); err != nil {
		return nil, err
	}
	if _, _, err := u.read(ctx, name); !errors.Is(err, ErrNoUser) { // before the work of a hash
		if err == nil {
			err = ErrUserExists
		}
		return nil, err
	}
	hash, err := u.hasher.make(ctx, password)
	if err != nil {
		return nil, err
	}
	d := &detail{Hash: hash, Scopes: slices.Clone(scopes), Set: u.now().UnixMilli()}
	e, err := u.authority.AddEntry(ctx, afterlogin.EntryRequest{Tenant: u.tenant, Realm: Realm, Name: name, Detail: d.json()})
	if errors.Is(err, afterlogin.ErrEntryExists) {
		return nil, ErrUserExists
	}
	if err != nil {
		return nil, err
	}
	u.log.InfoContext(ctx, "a user was added", "user", name)
	return newUser(e, d), nil
}

// checkScopes wants what RFC 6749, section 3.3, calls scopes.
func checkScopes(scopes []string) error {
	if len(scopes) > 50 {
		return &FieldError{"scopes", "at most 50"}
	}
	for i, s := range scopes {
		if s == "" || len(s) > 64 {
			return &FieldError{"scopes", "a scope has 1 to 64 characters"}
		}
		for j := range len(s) {
			if c := s[j]; c <= ' ' || c == '"' || c == '\\' || c >= 0x7f {
				return &FieldError{"scopes", "a scope is printable ASCII without blanks, quotes and backslashes"}
			}
		}
		if slices.Contains(scopes[:i], s) {
			return &FieldError{"scopes", s + " stands there twice"}
		}
	}
	return nil
}
