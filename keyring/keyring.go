// Package keyring holds the secret keys of an installation: for the MAC of tokens, for deriving successors, for sealing
// records and for CSRF tokens; and the keys that sign JWTs, with their rotation. Keys are sealed by a master key that is
// kept outside the store, so that whoever reads or writes the store can neither open a payload nor make a token.
//
// Start with [New] for keys that die with the process, [Open] for a key file, or [OpenShared] for keys that many nodes
// share through a store. The ring does not know what a session is; of a store it knows the contract, and in it its own
// record alone.
package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin/jwt"
)

// KeySize is the size of every secret key and of the master key, in bytes.
const KeySize = 32

// A Purpose is what a key is for. No key serves two.
type Purpose string

// The purposes.
const (
	MAC      Purpose = "mac"      // the MAC at the end of every opaque token
	Rotation Purpose = "rotation" // deriving the successor of a rotated token
	Sealing  Purpose = "sealing"  // encrypting payloads and cursors
	CSRF     Purpose = "csrf"     // CSRF tokens of sessions
)

var purposes = []Purpose{MAC, Rotation, Sealing, CSRF}

// A State is what a key may still do.
type State string

// The states. A key moves down this list, never up.
const (
	Next       State = "next"       // of a shared ring: known to all nodes, so that it checks; makes from its From on
	Active     State = "active"     // makes and checks; one per purpose
	Accepted   State = "accepted"   // checks only, until nothing made with it is left
	Distrusted State = "distrusted" // MAC only: it may have leaked. The stored verifier alone decides about a token
	Dead       State = "dead"       // does nothing; kept so that its id is not used again
)

func (s State) rank() int { return slices.Index([]State{Next, Active, Accepted, Distrusted, Dead}, s) }

// A Key is one secret key. Its secret does not print.
type Key struct {
	ID      uint8
	State   State
	Created time.Time
	// From is when a key that is Next begins to make things, instead of the active one. Zero for every other.
	From   time.Time
	secret *[KeySize]byte // behind a pointer, so that printing a Key prints an address
}

// Secret returns the 32 secret bytes. The caller must not change, print or store them.
func (k Key) Secret() []byte { return k.secret[:] }

// String names the key without its secret.
func (k Key) String() string { return fmt.Sprintf("key %d (%s)", k.ID, k.State) }

// GoString is String, so that %#v does not print the secret either.
func (k Key) GoString() string { return k.String() }

// A Ring is the set of keys of one installation. It is safe for concurrent use.
type Ring struct {
	installation [16]byte
	path         string         // where the ring is kept; empty for a ring in memory
	master       *[KeySize]byte // seals the file; nil in memory; a pointer, so that printing a Ring does not print it

	// keys is replaced, never changed: whoever reads it needs no lock.
	keys atomic.Pointer[keys]
	// signing is replaced, never changed, like keys.
	signing atomic.Pointer[signingKeys]
	// mu is held by whoever replaces keys or signing and writes them.
	mu sync.Mutex
	// shared is what follows the ring's record in a store; nil for a ring that one process owns.
	shared *shared
	// clock tells the time; nil is time.Now.
	clock func() time.Time
}

// keys holds the keys of each purpose in order of their ids, exactly one of them active.
type keys map[Purpose][]Key

// New returns a ring with fresh keys, an EdDSA key that signs at once, and a fresh installation id, in memory. Tokens made
// with it are worthless after the process has ended.
func New() *Ring {
	r := &Ring{}
	rand.Read(r.installation[:])
	fresh := make(keys)
	for _, p := range purposes {
		fresh[p] = []Key{newKey(1)}
	}
	r.keys.Store(&fresh)
	signing, _, err := signingKeys{}.ensure(jwt.EdDSA, time.Now())
	if err != nil {
		panic(err) // making an Ed25519 key does not fail
	}
	r.signing.Store(&signing)
	return r
}

func newKey(id uint8) Key {
	k := Key{ID: id, State: Active, Created: time.Now().UTC().Truncate(time.Second), secret: new([KeySize]byte)}
	rand.Read(k.secret[:])
	return k
}

// Installation returns the id of the installation, 16 random bytes that every MAC covers and no token carries. It is no
// secret.
func (r *Ring) Installation() [16]byte { return r.installation }

// Close ends the following of a shared ring's record and waits for it. Afterwards the ring still has the keys it had. It
// is not needed for other rings. It returns nil.
func (r *Ring) Close() error {
	if r.shared != nil {
		r.shared.close()
	}
	return nil
}

// Active returns the key that makes new things for the purpose.
func (r *Ring) Active(p Purpose) Key {
	list := (*r.keys.Load())[p]
	for i := len(list) - 1; i >= 0; i-- {
		switch k := &list[i]; {
		case k.State == Active, k.State == Next && !r.now().Before(k.From):
			return *k
		}
	}
	panic("keyring: no active key for " + string(p)) // New and parse see to it that there is one
}

func (r *Ring) now() time.Time {
	if r.clock != nil {
		return r.clock()
	}
	return time.Now()
}

// Key returns the key with the id, whatever its state, and false if there never was one or if it is dead. It is Lookup
// for callers to whom all failures are one.
func (r *Ring) Key(p Purpose, id uint8) (Key, bool) {
	k, err := r.Lookup(p, id)
	return k, err == nil
}

// Lookup returns the key with the id, whatever its state. It returns ErrNoKey if there never was one or if it is dead, and
// ErrUnavailable if that is not known: the key may be one that another node has made, and the store does not answer, or too
// many wait for its answer. A key that is there costs no lock and no look at the store; one that a shared ring does not
// have is looked for there first, once a second at most, however many ask. A key is used Lead after it was made, so a
// look of a second ago has seen every key that is in use.
func (r *Ring) Lookup(p Purpose, id uint8) (Key, error) {
	k, found := r.find(p, id)
	if !found && r.shared != nil && id != 0 {
		if err := r.shared.refresh(context.Background(), false); err != nil {
			return Key{}, err
		}
		k, found = r.find(p, id)
	}
	if !found || k.State == Dead {
		return k, ErrNoKey
	}
	return k, nil
}

func (r *Ring) find(p Purpose, id uint8) (Key, bool) {
	list := (*r.keys.Load())[p]
	for i := range list {
		if list[i].ID == id {
			return list[i], true
		}
	}
	return Key{}, false
}

// Keys returns all keys of the purpose in order of their ids, the dead ones too.
func (r *Ring) Keys(p Purpose) []Key {
	return slices.Clone((*r.keys.Load())[p])
}

// Errors of keys.
var (
	// ErrTooManyKeys is returned by Rotate when all 255 ids of a purpose are used, by RotateSigning when 64 keys are
	// published, and by both when a shared ring has no room for another in its record.
	ErrTooManyKeys = errors.New("keyring: too many keys")
	// ErrNoKey is returned by Lookup for a key that there never was, or that is dead.
	ErrNoKey = errors.New("keyring: no such key")
	// ErrUnavailable is returned by a shared ring when the store does not answer, or does not say whether a change was made.
	// The caller may do the same again.
	ErrUnavailable = errors.New("keyring: the store of the keys does not answer")
)

// Rotate makes a new active key for the purpose; the one that was active is accepted from now on. A shared ring first
// lets all nodes know the new key: it is Next for Lead, and ErrRotationPending is returned if there is one already. The
// ring is durable before Rotate returns.
func (r *Ring) Rotate(p Purpose) (Key, error) {
	var made Key
	err := r.change(func(c contents) (contents, error) {
		old := c.keys[p]
		if len(old) == 0 {
			return c, fmt.Errorf("keyring: unknown purpose %q", p)
		}
		if made.secret != nil {
			for _, k := range old {
				if bytes.Equal(k.Secret(), made.Secret()) {
					made = k
					return c, errDone
				}
			}
		}
		newest := old[len(old)-1]
		if newest.State == Next {
			return c, fmt.Errorf("%w: %s key %d, which begins at %s", ErrRotationPending, p, newest.ID, newest.From.Format(time.RFC3339))
		}
		if newest.ID == 255 {
			return c, fmt.Errorf("%w: all 255 ids of %s keys are used", ErrTooManyKeys, p)
		}
		if made.secret == nil {
			made = newKey(0)
		}
		made.ID = newest.ID + 1
		list := slices.Clone(old)
		if r.shared != nil {
			made.State, made.From = Next, moment(r.now().Add(Lead))
		} else {
			for i := range list {
				if list[i].State == Active {
					list[i].State = Accepted
				}
			}
		}
		return c.with(p, append(list, made)), nil
	})
	return made, err
}

// SetState moves a key down to another state: accepted, distrusted (MAC keys only) or dead. The active key of a purpose
// and the next one cannot be moved; rotate first, and wait until the new key is active.
func (r *Ring) SetState(p Purpose, id uint8, s State) error {
	return r.change(func(c contents) (contents, error) {
		list := slices.Clone(c.keys[p])
		i := slices.IndexFunc(list, func(k Key) bool { return k.ID == id })
		switch {
		case i < 0:
			return c, fmt.Errorf("keyring: no %s key %d", p, id)
		case list[i].State == Active || list[i].State == Next:
			return c, fmt.Errorf("keyring: %s key %d is %s; rotate before you retire it, and wait until the new one is active", p, id, list[i].State)
		case s.rank() < list[i].State.rank() || s == Active || s == Next:
			return c, fmt.Errorf("keyring: %s key %d is %s and cannot become %s", p, id, list[i].State, s)
		case s == Distrusted && p != MAC:
			return c, fmt.Errorf("keyring: only a mac key can be distrusted, not a %s key", p)
		case s == list[i].State:
			return c, nil // written once more: another call, or node, may have had no answer to this
		}
		list[i].State = s
		return c.with(p, list), nil
	})
}

// contents are all keys of a ring. They are replaced, never changed.
type contents struct {
	keys    keys
	signing signingKeys
}

func (c contents) with(p Purpose, list []Key) contents {
	c.keys = maps.Clone(c.keys)
	c.keys[p] = list
	return c
}

// settle returns the keys as they are at the time: a next key whose time has come is the active one.
func (c contents) settle(now time.Time) contents {
	for p, list := range c.keys {
		i := len(list) - 1
		if list[i].State != Next || now.Before(list[i].From) {
			continue
		}
		list = slices.Clone(list)
		for j := range list {
			if list[j].State == Active {
				list[j].State = Accepted
			}
		}
		list[i].State, list[i].From = Active, time.Time{}
		c = c.with(p, list)
	}
	return c
}

func (r *Ring) contents() contents { return contents{*r.keys.Load(), *r.signing.Load()} }

func (r *Ring) set(c contents) {
	r.keys.Store(&c.keys)
	r.signing.Store(&c.signing)
}

// errDone says that there is nothing to write: the keys are already as the change would have them.
var errDone = errors.New("keyring: nothing to change")

// doubtful reports whether what the ring has may not be durable: a change was not confirmed.
func (r *Ring) doubtful() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.shared != nil && r.shared.doubt
}

// change puts the changed keys in place once they are durable. In a shared ring f is called again, with what is there
// then, when another node was faster or it is not known whether the change was made; the second time it finds what it made
// the first time, and says errDone.
func (r *Ring) change(f func(contents) (contents, error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shared != nil {
		return r.shared.change(f)
	}
	c, err := f(r.contents().settle(r.now()))
	switch {
	case err == errDone:
		return nil
	case err != nil:
		return err
	}
	if r.path != "" {
		if err := r.write(c); err != nil {
			return err
		}
	}
	r.set(c)
	return nil
}
