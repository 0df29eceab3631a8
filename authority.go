package afterlogin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin/internal/opaque"
	"github.com/afterlogin/afterlogin/internal/seal"
	"github.com/afterlogin/afterlogin/jwt"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

// Config is what New needs. Store is required; the zero value of everything else works.
type Config struct {
	// Store keeps the records. The Authority does not close it.
	Store store.Store
	// Keys are the installation's keys. Nil makes fresh ones, and all tokens are worthless when the process ends.
	Keys *keyring.Ring
	// Policies replace or add to DefaultPolicies, by name.
	Policies map[string]Policy
	// CacheSize is how many sessions are kept in memory, at about 700 bytes each. Zero means 100,000; negative, none.
	CacheSize int
	// Issuer is the https URL that names this installation in JWTs (iss). Without one, there are no JWTs.
	Issuer string
	// Algorithm is what JWTs are signed with. Empty means EdDSA; RS256 is for verifiers that know nothing better.
	Algorithm jwt.Algorithm
	// ImportedKeys accepts API keys that were made elsewhere and imported by their hash (ImportKey). Where it is set, text
	// that is not one of our tokens costs a look into the store, since nothing in it tells junk apart.
	ImportedKeys bool
	// KeepEnded is how long the record of a session is kept after its absolute end, so that whoever comes back late is told
	// why it ended, and lists of ended sessions show it. Zero is two hours, the least; at most 400 days. What is kept
	// costs room in the store: sessions that live for a day and are kept for one more take twice as much.
	KeepEnded time.Duration
	// Limits say how many sessions, API keys and offline grants (KindSession, KindAPIKey, KindRefresh) each subject of each
	// tenant may have at once. However many sign in at the same moment, on however many authorities over one store, there
	// are never more; docs/session-limits.md says what counts. A kind that is not named has no limit.
	Limits map[Kind]SessionLimit
	// Unlimited are tenants whose subjects no limit counts for, in earnest or rehearsed: such as those of operators, who
	// must not lock each other out.
	Unlimited []uint32
	// Rehearsal tries stricter rules beside the real ones, and tells whom they would have signed out.
	Rehearsal Rehearsal
	// Observe is called with every event of this authority, after it is durable. It must be quick and must not call
	// the Authority.
	Observe func(Event)
	// Logger receives what an operator should know, never a token. Nil discards it.
	Logger *slog.Logger
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// An Authority issues, validates, rotates, revokes, lists and watches credentials. It is safe for concurrent use. Make
// it with New and end it with Close.
type Authority struct {
	store     store.Store
	shared    store.Shared // store, if other processes change it, too
	keys      *keyring.Ring
	codec     *opaque.Codec
	sealer    *seal.Sealer
	policies  map[string]Policy
	cache     *cache
	lease     lease
	counts    counts
	cleaned   cleaned
	touches   *toucher
	most      map[Kind]SessionLimit
	unlimited []uint32   // tenants that most is not for
	rehearsal *rehearsal // nil: none
	limits    limits     // of API keys
	budgets   limits     // of children
	issuer    string
	algorithm jwt.Algorithm // that JWTs are signed with
	jwtKeys   jwt.KeySet    // this installation's own
	imported  bool
	keepEnded time.Duration
	observe   func(Event)
	log       *slog.Logger
	now       func() time.Time

	stopNotify func()
	stopped    context.Context // ends with Close
	stop       context.CancelFunc
	running    sync.WaitGroup // the janitor and the toucher
}

// New returns an authority over the store. It starts two goroutines, which Close ends.
func New(c Config) (*Authority, error) {
	if c.Store == nil {
		return nil, badRequest("Config.Store is nil; memstore.New() will do for a start")
	}
	if c.KeepEnded < 0 || c.KeepEnded > 400*day {
		return nil, badRequest("Config.KeepEnded: %v is not between 0 and 400 days", c.KeepEnded)
	}
	policies := DefaultPolicies()
	maps.Copy(policies, c.Policies)
	for name, p := range policies {
		if err := CheckPolicy(name, p); err != nil {
			return nil, badRequest("policy %s: %v", name, err)
		}
	}
	if err := checkLimits(c.Limits); err != nil {
		return nil, err
	}
	rehearse, err := openRehearsal(c.Rehearsal, policies)
	if err != nil {
		return nil, err
	}
	a := &Authority{
		most: maps.Clone(c.Limits), unlimited: slices.Clone(c.Unlimited), rehearsal: rehearse,
		store: c.Store, keys: c.Keys, policies: policies,
		observe: c.Observe, log: c.Logger, now: c.Now,
		issuer: c.Issuer, imported: c.ImportedKeys, keepEnded: max(c.KeepEnded, leastKept),
	}
	if a.keys == nil {
		a.keys = keyring.New()
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	if c.CacheSize == 0 {
		c.CacheSize = 100_000
	}
	a.jwtKeys = a.keys.KeySet(a.now)
	if a.issuer != "" {
		if err := a.openSigning(c.Algorithm); err != nil {
			return nil, err
		}
	}
	a.codec, a.sealer = opaque.NewCodec(a.keys), seal.New(a.keys)
	a.cache = newCache(c.CacheSize)
	a.shared, _ = a.store.(store.Shared)
	a.lease.start = a.now().Add(-leaseTime) // none yet
	a.stopNotify = a.store.Notify(a.cache.drop)
	a.stopped, a.stop = context.WithCancel(context.Background())
	a.touches = newToucher(a.store, a.log)
	a.running.Go(func() { a.touches.run(a.stopped) })
	horizon := a.now()
	a.cleaned.from = a.dueHour(horizon)
	a.running.Go(func() { a.janitor(horizon) })
	return a, nil
}

// Close writes what is still to be written of last uses, ends the authority's goroutines and returns when they have
// ended. The store stays open. Calls that are under way must have returned.
func (a *Authority) Close() error {
	a.stop()
	a.running.Wait()
	a.stopNotify()
	return nil
}

// Ping reports whether the store answers, by reading a record from it.
func (a *Authority) Ping(ctx context.Context) error {
	if _, err := a.store.Get(ctx, store.SubjectID(0, "afterlogin/ping")); err != nil {
		return unavailable("read", err)
	}
	return nil
}

// unhurried returns a context for ending a session: a client that hangs up must not keep anybody signed in.
func unhurried(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
}

// endTimeout bounds how long an ending goes on after its request is gone.
const endTimeout = 10 * time.Second

// put seals the payload into the record and makes it the successor of version expect.
func (a *Authority) put(r *store.Record, expect uint64, payload []byte) store.Op {
	r.Version = expect + 1
	a.sealer.Seal(r, payload)
	return store.Put(r, expect)
}

// next returns the record that replaces r, which is not marked, for put: the same columns.
func next(r *store.Record) *store.Record {
	c := *r
	return &c
}

// errConflict is what apply returns when somebody else was first: look again.
var errConflict = errors.New("conflict")

// apply makes the operations durable. It returns errConflict if a version was not the expected one, and ErrUnavailable
// for everything else. After an unknown outcome it reads again and asks happened, which looks for the caller's write in
// the records of the given ids; nil means that doing it once more does no harm. On a store that is shared, only doing it
// once more shows that it is confirmed; what cannot be repeated is ErrUnavailable, whether it happened or not.
func (a *Authority) apply(ctx context.Context, root store.ID, happened func(context.Context) (bool, error), ops ...store.Op) error {
	signed(ctx, ops)
	for try := 0; ; try++ {
		err := a.store.Apply(ctx, root, ops...)
		switch {
		case err == nil:
			a.observed(ops)
			return nil
		case errors.Is(err, store.ErrConflict):
			return errConflict
		}
		a.cache.drop(root) // it may have happened, and the store may not have told
		switch {
		case !errors.Is(err, store.ErrUnknown):
			return unavailable("write", err)
		case happened != nil:
			yes, herr := happened(ctx)
			if herr != nil {
				return unavailable("write, and the look whether it happened", errors.Join(err, herr))
			}
			// Where there are to be copies, that the write is there does not say that it stays.
			if yes && a.shared == nil {
				a.observed(ops)
				return nil
			}
			return unavailable("write", err)
		case try >= 2 || ctx.Err() != nil:
			return unavailable("write", err)
		}
	}
}

// wrote tells after an unknown outcome whether the record's payload was last written by op.
func (a *Authority) wrote(id store.ID, op opID) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		rs, err := a.store.Get(ctx, id)
		if err != nil || rs[0] == nil {
			return false, err
		}
		plain, err := a.sealer.Open(rs[0])
		if err != nil {
			return false, err
		}
		var have opID
		if rs[0].Kind == kindSubject {
			s, err := decodeSubject(plain)
			if err != nil {
				return false, err
			}
			have = s.op
		} else {
			s, err := decodeState(plain)
			if err != nil {
				return false, err
			}
			have = s.op
		}
		return have == op, nil
	}
}

func newOp() (op opID) {
	rand.Read(op[:])
	return op
}

func newSecret() (s [opaque.SecretSize]byte) {
	rand.Read(s[:])
	return s
}

// attempts bounds the loops that read, change and put a record that others change too. Each round somebody gets on, so
// that it takes as many callers at once to exhaust it.
const attempts = 256

func exhausted(doing string) error {
	return unavailable(doing, fmt.Errorf("%d conflicts in a row", attempts))
}
