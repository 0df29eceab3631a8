package keyring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// Times of a shared ring.
const (
	// Lead is for how long a new key for MACs, rotation, sealing or CSRF is known to all nodes before the first one uses it.
	// It is longer than Reread by more than clocks differ.
	Lead = 30 * time.Second
	// Reread is how often a node reads the keys at least. It is told of changes, too, but does not rely on that.
	Reread = 5 * time.Second

	readTimeout   = time.Second
	changeTimeout = 5 * time.Second
	// lookEvery is how often at most a key that is not there has the record read.
	lookEvery = time.Second
	// unread is for how long a signing key is taken for good without the record having been read.
	unread = 3 * Reread
	// maxWaiting is how many may wait at once for a key that is not there. Junk could have any number wait.
	maxWaiting = 1000
)

// recordKind is the kind of the ring's record. No other record has it, and no token.
const recordKind = 'y'

// noteKind is the kind of the note that the server leaves of its admin key. Nothing in it is sealed.
const noteKind = 'n'

// recordID is the ring's record: that of a subject which nobody can be, since no subject begins with a zero byte.
var recordID = store.SubjectID(0, "\x00keys")

// Errors of shared rings.
var (
	// ErrNoRing is returned by OpenShared if a store holds records, and not the keys that they were sealed with, and by
	// ReadShared if there are no keys.
	ErrNoRing = errors.New("keyring: the store holds no keys")
	// ErrOtherRing is returned by PlaceShared if the store has other keys already, and what a shared ring reports
	// of a record that is of another installation.
	ErrOtherRing = errors.New("keyring: the store holds the keys of another installation, or others than these")
	// ErrRolledBack is what a shared ring reports of a record from before a key was distrusted or retired: the store has lost
	// changes. The ring puts back what the store needs to know by itself, and reports this until it has.
	ErrRolledBack = errors.New("keyring: the store has keys from before one of them was distrusted or retired; if that does not pass, rotate the keys on another node")
)

// SharedOptions may all be zero.
type SharedOptions struct {
	// Logger receives what goes wrong while the ring follows its record, never secrets. Nil discards it.
	Logger *slog.Logger
	// Now tells the time. Nil is time.Now.
	Now func() time.Time
}

// OpenShared reads the ring from the store, or makes it there with fresh keys if the store is empty; of several nodes that
// do so at once, all get the keys of the one that was first. The record holds what a key file holds, sealed with the
// master key, which all nodes need. It returns ErrWrongMaster if that does not open it, and ErrNoRing if the store has
// records and no ring (see Needed).
//
// The ring then follows the record: a change by any node is known to all as soon as they are told of it, and within Reread
// whatever happens. A key begins to make things Lead later. While the store does not answer, the ring keeps the keys it
// has. Close ends the following; the store must be closed after that.
func OpenShared(ctx context.Context, st store.Store, master []byte, o SharedOptions) (*Ring, error) {
	if len(master) != KeySize {
		return nil, fmt.Errorf("keyring: master key of %d bytes, want %d", len(master), KeySize)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &shared{store: st, log: o.Logger, wake: make(chan struct{}, 1), sought: make(chan struct{}, 1), next: make(chan struct{})}
	s.ctx, s.end = context.WithCancel(context.Background())
	// Before the first read, so that no change after it is missed.
	s.stop = st.Notify(func(root store.ID) {
		if root == recordID || root.IsZero() {
			s.rouse()
		}
	})
	r, err := s.first(ctx, master)
	if err != nil {
		s.stop()
		s.end()
		return nil, err
	}
	r.clock, r.shared, s.ring = o.Now, s, r
	s.ended.Add(1)
	go s.follow()
	return r, nil
}

// shared is how a ring follows its record in a store.
type shared struct {
	ring  *Ring
	store store.Store
	log   *slog.Logger
	ctx   context.Context
	end   context.CancelFunc
	stop  func() // ends Notify's calls
	ended sync.WaitGroup

	wake   chan struct{} // asks follow for a read
	due    atomic.Bool   // it was asked, and has not begun
	sought chan struct{} // asks follow for a read as soon as lookEvery permits
	// good is when the last read that succeeded began.
	good atomic.Pointer[time.Time]

	// doubt says that a put of ours may have been made without being confirmed. It is guarded by the ring's mu.
	doubt bool

	mu      sync.Mutex
	version uint64        // of the record that the ring's keys are of
	payload []byte        // of that version: a store that lost a change may use its version again
	began   time.Time     // when the last read began
	failed  error         // how the last one that ended did
	running chan struct{} // closed when the read that is under way ends; nil if none is
	next    chan struct{} // closed when the next one ends that has not begun
	waiting int           // how many wait for a read
}

// first reads the ring, or makes it.
func (s *shared) first(ctx context.Context, master []byte) (*Ring, error) {
	var fresh *Ring
	var last error
	doubt := false // a put of ours may have been made; who looks does not know whether enough copies of it exist
	for range attempts {
		began := time.Now()
		rec, err := s.read(ctx)
		if err != nil {
			return nil, err
		}
		var r *Ring
		var version uint64
		if rec != nil {
			if r, err = parse(rec.Payload, master); err != nil {
				return nil, err
			}
			if version = rec.Version; !doubt {
				s.version, s.payload = version, rec.Payload
				s.good.Store(&began)
				return r, nil
			}
		} else {
			if fresh == nil {
				if fresh, err = s.fresh(ctx, master); err != nil {
					return nil, err
				}
			}
			if r = fresh; r == nil {
				continue // another node was faster
			}
		}
		switch payload, err := s.put(ctx, r, r.contents(), version); {
		case err == nil:
			s.version, s.payload = version+1, payload
			s.good.Store(&began)
			return r, nil
		case errors.Is(err, store.ErrConflict), uncertain(err):
			last, doubt = err, doubt || uncertain(err)
		default:
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, last)
}

// attempts bounds the loops that read, change and put the record.
const attempts = 16

// uncertain reports whether the error of a put leaves open that it was made. Who then finds it in the store knows that it
// was, and not that it will not be lost: that is known of what is written once more.
func uncertain(err error) bool {
	return errors.Is(err, store.ErrUnknown) || errors.Is(err, store.ErrUnconfirmed)
}

// fresh makes a new ring for a store that is empty. It returns nil if the ring is there after all.
func (s *shared) fresh(ctx context.Context, master []byte) (*Ring, error) {
	needed, err := Needed(ctx, s.store)
	if err != nil {
		return nil, err
	}
	if needed {
		if rec, err := s.read(ctx); err != nil || rec != nil {
			return nil, err
		}
		return nil, ErrNoRing
	}
	r := New()
	r.master = (*[KeySize]byte)(bytes.Clone(master))
	return r, nil
}

// Needed reports whether the store holds records that some ring has sealed, of whatever tenant: without its keys nobody
// can read them, and fresh ones must not take their place. Of a store that is no store.Bulk only the roots of tenant 0
// are looked at. It fails with ErrUnavailable.
func Needed(ctx context.Context, st store.Store) (bool, error) {
	bulk, ok := st.(store.Bulk)
	if !ok {
		for _, err := range st.List(ctx, store.Query{}) {
			if err != nil {
				return false, fmt.Errorf("%w: %w", ErrUnavailable, err)
			}
			return true, nil
		}
		return false, nil
	}
	for batch, err := range bulk.Scan(ctx, "") {
		if err != nil {
			return false, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		for _, r := range batch.Records {
			if r.Kind != recordKind && r.Kind != noteKind {
				return true, nil
			}
		}
	}
	return false, nil
}

// read returns the record, nil if there is none.
func (s *shared) read(ctx context.Context) (*store.Record, error) { return readRecord(ctx, s.store) }

func readRecord(ctx context.Context, st store.Store) (*store.Record, error) {
	rs, err := st.Get(ctx, recordID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if rs[0] != nil && (rs[0].Kind != recordKind || rs[0].Marked != 0) {
		return nil, fmt.Errorf("%w: its record is something else", ErrOtherRing)
	}
	return rs[0], nil
}

// put writes the contents as the version behind expect.
func (s *shared) put(ctx context.Context, r *Ring, c contents, expect uint64) (payload []byte, err error) {
	text, err := r.text(c)
	if err != nil {
		return nil, err
	}
	return putRecord(ctx, s.store, text, expect)
}

func putRecord(ctx context.Context, st store.Store, text []byte, expect uint64) (payload []byte, err error) {
	var short bytes.Buffer
	if err := json.Compact(&short, text); err != nil {
		return nil, fmt.Errorf("keyring: %w", err)
	}
	payload = short.Bytes()
	if len(payload) > store.MaxPayload {
		return nil, fmt.Errorf("%w: sealed they are %d bytes, and the record has room for %d", ErrTooManyKeys, len(payload), store.MaxPayload)
	}
	rec := &store.Record{ID: recordID, Kind: recordKind, Version: expect + 1, Payload: bytes.Clone(payload)}
	return payload, st.Apply(ctx, recordID, store.Put(rec, expect))
}

// change reads the record, changes it and puts it, until that is known to have happened. The caller holds the ring's mu.
func (s *shared) change(f func(contents) (contents, error)) error {
	ctx, cancel := context.WithTimeout(s.ctx, changeTimeout)
	defer cancel()
	r := s.ring
	var last error
	for try := range attempts {
		s.doubt = s.doubt || uncertain(last)
		if try > 0 && !errors.Is(last, store.ErrConflict) && !pause(ctx, time.Duration(try)*20*time.Millisecond) {
			break
		}
		have, version, err := s.latest(ctx)
		if err != nil {
			if ctx.Err() != nil || !errors.Is(err, ErrUnavailable) {
				return err
			}
			last = err
			continue
		}
		want, err := f(have.settle(r.now()))
		switch {
		case err == errDone && !s.doubt:
			return nil
		case err == errDone: // made, and it is not known of how many copies: written once more, they are counted once more
			want = have
		case err != nil:
			return err
		}
		switch payload, err := s.put(ctx, r, want, version); {
		case err == nil:
			s.doubt = false
			s.mu.Lock()
			defer s.mu.Unlock()
			if version+1 > s.version || version == 0 { // otherwise a read was faster, and saw somebody's next change
				s.take(want, version+1, payload)
			}
			return nil
		case errors.Is(err, ErrTooManyKeys), errors.Is(err, store.ErrBadOps), errors.Is(err, store.ErrClosed):
			return err
		default:
			last = err
		}
	}
	s.doubt = s.doubt || uncertain(last)
	if last == nil {
		last = ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, last)
}

// take puts the contents in place. The caller holds mu.
func (s *shared) take(c contents, version uint64, payload []byte) {
	s.version, s.payload = version, payload
	s.ring.set(c)
}

// latest reads the record and takes its keys over. If the record is gone the keys are those that the ring has, for version
// 0. What the ring knows and a store that lost changes does not is put back before latest returns.
func (s *shared) latest(ctx context.Context) (contents, uint64, error) {
	s.mu.Lock()
	before := s.version
	s.mu.Unlock()
	rec, err := s.read(ctx)
	if err != nil {
		return contents{}, 0, err
	}
	if rec == nil {
		return s.ring.contents(), 0, nil
	}
	c, ahead, err := s.takeOver(rec, before)
	if err != nil || !ahead {
		return c, rec.Version, err
	}
	s.log.Error("the store has keys from before one was distrusted or retired; what it has lost of that is put back", "version", rec.Version)
	payload, err := s.put(ctx, s.ring, c, rec.Version)
	if err != nil { // perhaps somebody else was faster, with the same
		return contents{}, 0, fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrRolledBack, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.version == rec.Version && s.payload == nil {
		s.version, s.payload = rec.Version+1, payload
	}
	return c, rec.Version + 1, nil
}

// takeOver takes over the keys of a record that was read when the ring's were of the version before. It reports whether
// they are ahead of what the record says (see merge).
func (s *shared) takeOver(rec *store.Record, before uint64) (c contents, ahead bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec.Version == s.version && bytes.Equal(rec.Payload, s.payload) {
		return s.ring.contents(), false, nil
	}
	if c, ahead, err = s.ring.merge(rec.Payload); err != nil {
		return contents{}, false, err
	}
	switch {
	case rec.Version > s.version:
	case rec.Version < before, rec.Version == s.version:
		// The store has forgotten a change: a failover, or a restore. What it says is what all nodes will say. The key that
		// was lost with it has not been used, unless the store lost more than the Lead.
		s.log.Error("the store has lost a change of the keys; it is taken as the store has it", "version", rec.Version, "had", s.version)
	default: // this read was slower than a change of our own
		return c, false, nil
	}
	payload := rec.Payload
	if ahead {
		payload = nil // it is not what the ring has: the next read looks again, unless the ring's has been put
	}
	s.take(c, rec.Version, payload)
	return c, ahead, nil
}

func (s *shared) close() {
	s.stop()
	s.end()
	s.ended.Wait()
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
