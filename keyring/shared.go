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
)

// recordKind is the kind of the ring's record. No other record has it, and no token.
const recordKind = 'y'

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
// records and no ring.
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
	s := &shared{store: st, log: o.Logger, wake: make(chan struct{}, 1), done: make(chan struct{})}
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
	wake  chan struct{} // asks follow for a read
	due   atomic.Bool   // it was asked, and has not begun

	mu      sync.Mutex
	version uint64        // of the record that the ring's keys are of
	payload []byte        // of that version: a store that lost a change may use its version again
	running bool          // a read is under way
	began   time.Time     // when the last one began
	failed  error         // how the last one ended
	done    chan struct{} // closed when the read that is running ends, or the next one
}

// first reads the ring, or makes it.
func (s *shared) first(ctx context.Context, master []byte) (*Ring, error) {
	var fresh *Ring
	var last error
	for range attempts {
		rec, err := s.read(ctx)
		if err != nil {
			return nil, err
		}
		if rec != nil {
			r, err := parse(rec.Payload, master)
			if err != nil {
				return nil, err
			}
			s.version, s.payload = rec.Version, rec.Payload
			return r, nil
		}
		if fresh == nil {
			if fresh, err = s.fresh(ctx, master); err != nil {
				return nil, err
			}
			if fresh == nil {
				continue // another node was faster
			}
		}
		switch payload, err := s.put(ctx, fresh, fresh.contents(), 0); {
		case err == nil:
			s.version, s.payload = 1, payload
			return fresh, nil
		case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrUnknown), errors.Is(err, store.ErrUnconfirmed):
			last = err
		default:
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, last)
}

// attempts bounds the loops that read, change and put the record.
const attempts = 16

// fresh makes a new ring for a store that is empty. It returns nil if the ring is there after all.
func (s *shared) fresh(ctx context.Context, master []byte) (*Ring, error) {
	for _, err := range s.store.List(ctx, store.Query{}) {
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if rec, err := s.read(ctx); err != nil || rec != nil {
			return nil, err
		}
		return nil, ErrNoRing
	}
	r := New()
	r.master = (*[KeySize]byte)(bytes.Clone(master))
	return r, nil
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
		case err == errDone && !errors.Is(last, store.ErrUnconfirmed):
			return nil
		case err == errDone: // made, and too few copies are known to exist: written once more, they are counted once more
			want = have
		case err != nil:
			return err
		}
		switch payload, err := s.put(ctx, r, want, version); {
		case err == nil:
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

// latest reads the record and takes its keys over. If the record is gone the keys are those that the ring has, for version 0.
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
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec.Version == s.version && bytes.Equal(rec.Payload, s.payload) {
		return s.ring.contents(), rec.Version, nil
	}
	c, err := s.open(rec)
	if err != nil {
		return contents{}, 0, err
	}
	switch {
	case rec.Version > s.version:
	case rec.Version < before, rec.Version == s.version:
		// The store has forgotten a change: a failover, or a restore. What it says is what all nodes will say. The key that
		// was lost with it has not been used, unless the store lost more than the Lead.
		s.log.Error("the store has lost a change of the keys; it is taken as the store has it", "version", rec.Version, "had", s.version)
	default: // this read was slower than a change of our own
		return c, rec.Version, nil
	}
	s.take(c, rec.Version, rec.Payload)
	return c, rec.Version, nil
}

// open returns what the record holds, as a successor of what the ring has: a key keeps its place in memory, and one that
// was distrusted, dead or retired does not come back, whatever somebody wrote into the store.
func (s *shared) open(rec *store.Record) (contents, error) {
	r := s.ring
	n, err := parse(rec.Payload, r.master[:])
	if err != nil {
		return contents{}, err
	}
	if n.installation != r.installation {
		return contents{}, fmt.Errorf("%w: restart this node if that is meant", ErrOtherRing)
	}
	had, c := r.contents(), n.contents()
	for p, list := range c.keys {
		for i := range list {
			for _, old := range had.keys[p] {
				if old.ID != list[i].ID || *old.secret != *list[i].secret {
					continue
				}
				list[i].secret = old.secret
				if old.State.rank() > list[i].State.rank() && old.State.rank() >= Distrusted.rank() {
					list[i].State, list[i].From = old.State, time.Time{}
				}
			}
		}
	}
	for p, list := range c.keys {
		if err := checkKeys(p, list); err != nil {
			return contents{}, fmt.Errorf("keyring: the store has keys from before they were distrusted: %w", err)
		}
	}
	for i, k := range c.signing {
		j := had.signing.index(k.ID)
		if j < 0 {
			continue
		}
		if old := had.signing[j]; old.Retired && !k.Retired {
			k.Retired, k.Until, k.key = true, old.Until, nil
		}
		k.public = had.signing[j].public
		c.signing[i] = k
	}
	return c.settle(r.now()), nil
}

// follow reads the record when it was changed, when a key is looked for, every Reread, and soon again if that failed.
func (s *shared) follow() {
	defer s.ended.Done()
	t := time.NewTimer(Reread)
	defer t.Stop()
	for {
		if s.again(); s.ring.Err() == nil {
			t.Reset(Reread)
		} else {
			t.Reset(lookEvery)
		}
		select {
		case <-t.C:
		case <-s.wake:
		case <-s.ctx.Done():
			return
		}
	}
}

// again reads the record once, and tells those that wait for it.
func (s *shared) again() {
	ctx, cancel := context.WithTimeout(s.ctx, readTimeout)
	defer cancel()
	s.mu.Lock()
	s.began, s.running = time.Now(), true
	s.due.Store(false)
	select {
	case <-s.wake: // asked for before this read, which serves it
	default:
	}
	s.mu.Unlock()

	c, version, err := s.latest(ctx)
	if err == nil && version == 0 {
		// Somebody emptied the store. Its records are gone with the keys; but nodes that start on it must get the same ones.
		s.log.Error("the keys are gone from the store; they are put back")
		if _, err = s.put(ctx, s.ring, c, 0); err == nil || errors.Is(err, store.ErrConflict) {
			err = nil
			s.mu.Lock()
			s.version = 0 // whoever was first, it is read as a later one
			s.mu.Unlock()
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.ring.now(); err == nil {
		if c := s.ring.contents(); c.due(now) {
			s.ring.set(c.settle(now))
		}
	}
	if err != nil && s.failed == nil && s.ctx.Err() == nil {
		s.log.Warn("the keys cannot be read; those known are used", "err", err)
	} else if err == nil && s.failed != nil {
		s.log.Info("the keys can be read again")
	}
	close(s.done)
	s.failed, s.running, s.done = err, false, make(chan struct{})
}

// due reports whether settle would change anything.
func (c contents) due(now time.Time) bool {
	for _, list := range c.keys {
		if k := list[len(list)-1]; k.State == Next && !now.Before(k.From) {
			return true
		}
	}
	return false
}

func (s *shared) rouse() {
	s.due.Store(true)
	select {
	case s.wake <- struct{}{}:
	default: // a read is due already
	}
}

// refresh sees to it that the record was read within the last second, and returns how that ended: nil or ErrUnavailable.
// It waits for a read that is running or due, and starts one if the last began longer ago.
func (s *shared) refresh() error {
	s.mu.Lock()
	done, failed := s.done, s.failed
	recent := !s.running && !s.due.Load() && time.Since(s.began) < lookEvery
	if !recent && !s.running {
		s.rouse()
	}
	s.mu.Unlock()
	if !recent {
		late := time.NewTimer(readTimeout)
		defer late.Stop()
		select {
		case <-done:
		case <-s.ctx.Done():
		case <-late.C:
			return fmt.Errorf("%w: the read takes too long", ErrUnavailable)
		}
		s.mu.Lock()
		failed = s.failed
		s.mu.Unlock()
	}
	if failed != nil && !errors.Is(failed, ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, failed)
	}
	return failed
}

// Refresh reads a shared ring's record now, unless that was done within the last second, and returns Err. It does nothing
// for other rings.
func (r *Ring) Refresh() error {
	if r.shared == nil {
		return nil
	}
	return r.shared.refresh()
}

// Err returns why a shared ring could not read its record when it last did, at most Reread ago, and nil if it could.
func (r *Ring) Err() error {
	if r.shared == nil {
		return nil
	}
	r.shared.mu.Lock()
	defer r.shared.mu.Unlock()
	return r.shared.failed
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
