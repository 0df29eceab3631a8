// Package keyring holds the secret keys of an installation: for the MAC of tokens, for deriving successors, for sealing
// records and for CSRF tokens; and the keys that sign JWTs, with their rotation. Keys live apart from records, sealed by a master key that is kept outside the store, so
// that whoever reads or writes the store can neither open a payload nor make a token.
//
// Start with [New] for keys that die with the process, or [Open] for a key file. The ring does not know what a session
// is, and does not talk to a store.
package keyring

import (
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
	Active     State = "active"     // makes and checks; one per purpose
	Accepted   State = "accepted"   // checks only, until nothing made with it is left
	Distrusted State = "distrusted" // MAC only: it may have leaked. The stored verifier alone decides about a token
	Dead       State = "dead"       // does nothing; kept so that its id is not used again
)

func (s State) rank() int { return slices.Index([]State{Active, Accepted, Distrusted, Dead}, s) }

// A Key is one secret key. Its secret does not print.
type Key struct {
	ID      uint8
	State   State
	Created time.Time
	secret  *[KeySize]byte // behind a pointer, so that printing a Key prints an address
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
	// mu is held by whoever replaces keys or signing and writes the file.
	mu sync.Mutex
}

// keys holds the keys of each purpose in order of their ids, exactly one of them active.
type keys map[Purpose][]Key

// New returns a ring with fresh keys, an EdDSA key that signs at once, and a fresh installation id, in memory. Tokens made with it are worthless after the
// process has ended.
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

// Active returns the key that makes new things for the purpose.
func (r *Ring) Active(p Purpose) Key {
	for _, k := range (*r.keys.Load())[p] {
		if k.State == Active {
			return k
		}
	}
	panic("keyring: no active key for " + string(p)) // New and parse see to it that there is one
}

// Key returns the key with the id, whatever its state, and false if there never was one or if it is dead.
func (r *Ring) Key(p Purpose, id uint8) (Key, bool) {
	for _, k := range (*r.keys.Load())[p] {
		if k.ID == id {
			return k, k.State != Dead
		}
	}
	return Key{}, false
}

// Keys returns all keys of the purpose in order of their ids, the dead ones too.
func (r *Ring) Keys(p Purpose) []Key {
	return slices.Clone((*r.keys.Load())[p])
}

// ErrTooManyKeys is returned by Rotate when all 255 ids of a purpose are used, and by RotateSigning when 64 keys are
// published.
var ErrTooManyKeys = errors.New("keyring: too many keys")

// Rotate makes a new active key for the purpose; the one that was active is accepted from now on. The ring's file is
// durable before Rotate returns.
func (r *Ring) Rotate(p Purpose) (Key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := (*r.keys.Load())[p]
	if len(old) == 0 {
		return Key{}, fmt.Errorf("keyring: unknown purpose %q", p)
	}
	last := old[len(old)-1].ID
	if last == 255 {
		return Key{}, fmt.Errorf("%w: all 255 ids of %s keys are used", ErrTooManyKeys, p)
	}
	list := slices.Clone(old)
	for i := range list {
		if list[i].State == Active {
			list[i].State = Accepted
		}
	}
	k := newKey(last + 1)
	return k, r.replace(p, append(list, k))
}

// SetState moves a key down to another state: accepted, distrusted (MAC keys only) or dead. The active key of a purpose
// cannot be moved; rotate first.
func (r *Ring) SetState(p Purpose, id uint8, s State) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.Clone((*r.keys.Load())[p])
	i := slices.IndexFunc(list, func(k Key) bool { return k.ID == id })
	switch {
	case i < 0:
		return fmt.Errorf("keyring: no %s key %d", p, id)
	case list[i].State == Active:
		return fmt.Errorf("keyring: %s key %d is active; rotate before you retire it", p, id)
	case s.rank() < list[i].State.rank() || s == Active:
		return fmt.Errorf("keyring: %s key %d is %s and cannot become %s", p, id, list[i].State, s)
	case s == Distrusted && p != MAC:
		return fmt.Errorf("keyring: only a mac key can be distrusted, not a %s key", p)
	}
	list[i].State = s
	return r.replace(p, list)
}

// replace puts the purpose's keys in place once they are durable. The caller holds mu.
func (r *Ring) replace(p Purpose, list []Key) error {
	all := maps.Clone(*r.keys.Load())
	all[p] = list
	if r.path != "" {
		if err := r.write(all, *r.signing.Load()); err != nil {
			return err
		}
	}
	r.keys.Store(&all)
	return nil
}
