package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// A commit is an Apply on its way: the arguments of apply1, operation by operation.
type commit struct {
	root    store.ID
	lock    int64
	number  int64
	changes bool // something that was there
	days    []int

	ops       []int16
	ids       [][]byte
	buckets   []int32
	expects   []int64
	ats       []int64
	reasons   [][]byte
	tenants   []int64
	subjects  [][]byte
	kinds     []int16
	clients   [][]byte
	created   []int64
	absolute  []int64
	lastSeen  []int64
	seenGen   []int64
	seenAt    []int64
	payloads  [][]byte
	types     [][]byte
	details   [][]byte
	hasEvents bool
}

const applySQL = `SELECT apply1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)`

func (s *Store) commit(root store.ID, ops []store.Op) *commit {
	n := len(ops)
	ints, bytes := make([]int64, 8*n), make([][]byte, 7*n)
	cut := func() []int64 {
		out := ints[:n:n]
		ints = ints[n:]
		return out
	}
	cutBytes := func() [][]byte {
		out := bytes[:n:n]
		bytes = bytes[n:]
		for i := range out {
			out[i] = []byte{} // not NULL
		}
		return out
	}
	c := &commit{
		root: root, lock: int64(root.Hash() ^ s.salt), number: s.number.Add(1),
		ops: make([]int16, n), buckets: make([]int32, n), kinds: make([]int16, n),
		expects: cut(), ats: cut(), tenants: cut(), created: cut(), absolute: cut(), lastSeen: cut(), seenGen: cut(), seenAt: cut(),
		ids: cutBytes(), reasons: cutBytes(), subjects: cutBytes(), clients: cutBytes(), payloads: cutBytes(), types: cutBytes(), details: cutBytes(),
	}
	for i := range ops {
		c.add(i, &ops[i])
	}
	return c
}

func (c *commit) add(i int, op *store.Op) {
	c.ops[i], c.ids[i], c.buckets[i] = int16(op.Kind), idBytes(op.ID), int32(op.ID.Bucket())
	switch op.Kind {
	case store.OpPut:
		r := op.Record
		c.expects[i] = int64(op.Expect)
		c.kinds[i], c.tenants[i], c.subjects[i], c.clients[i] = int16(r.Kind), int64(r.Tenant), []byte(r.Subject), []byte(r.Client)
		c.created[i], c.absolute[i] = r.Created, r.Absolute
		c.lastSeen[i], c.seenGen[i], c.seenAt[i] = r.LastSeen, int64(r.SeenGen), r.SeenAt
		if r.Payload != nil {
			c.payloads[i] = r.Payload
		}
		if op.Expect == 0 {
			c.days = append(c.days, dayOf(op.ID.Bucket()))
		} else {
			c.changes = true
		}
	case store.OpMark:
		c.ats[i], c.reasons[i], c.changes = op.At, []byte(op.Reason), true
	case store.OpEvent:
		e := &op.Event
		c.ids[i], c.buckets[i], c.hasEvents = idBytes(e.ID), 0, true
		c.ats[i], c.tenants[i], c.subjects[i], c.reasons[i] = e.At, int64(e.Tenant), []byte(e.Subject), []byte(e.Reason)
		c.types[i], c.details[i] = []byte(e.Type), []byte(e.Detail)
	}
}

func idBytes(id store.ID) []byte { return id.Append(make([]byte, 0, id.Len())) }

// Apply implements store.Store. It is one round trip, in which the server locks the root, compares, writes, and commits.
func (s *Store) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if err := store.CheckOps(root, ops); err != nil {
		return err
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	c := s.commit(root, ops)
	err := s.commitRetry(ctx, c)
	if err != nil && !errors.Is(err, store.ErrUnknown) && !errors.Is(err, store.ErrUnconfirmed) {
		return err
	}
	// Also where it is not known whether the change was made, or another Apply was found to have made it.
	if c.changes {
		s.notify.call(root)
	}
	if c.changes || c.hasEvents {
		s.kick()
	}
	return err
}

var errPurged = errors.New("the bucket is purged, time and again")

// tries is how often a change is tried that the server refused for a reason of the moment's.
const tries = 4

func (s *Store) commitRetry(ctx context.Context, c *commit) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := s.haveDays(ctx, c.days); err != nil {
		return wrap("apply", err)
	}
	var err error
	for try := range tries {
		if try > 0 && ctx.Err() != nil {
			break
		}
		var fault int
		fault, err = s.commitOnce(ctx, c)
		switch {
		case err == nil && fault == 0:
			return nil
		case err == nil && fault/100 == 1:
			return &store.ConflictError{Op: fault % 100, ID: c.id(fault % 100)}
		case err == nil && fault/100 == 2:
			return fmt.Errorf("%w: %v", store.ErrNotFound, c.id(fault%100))
		case err == nil:
			if err := s.revive(ctx); err != nil {
				return wrap("apply: a purged bucket", err)
			}
			err = errPurged
		case errors.Is(err, store.ErrUnknown), errors.Is(err, store.ErrUnconfirmed):
			return err
		case isNoPartition(err): // it was dropped since
			s.partitions.forget(c.days)
			if err := s.haveDays(ctx, c.days); err != nil {
				return wrap("apply", err)
			}
		case hasCode(err, codeDiskFull):
			s.fullAt.Store(int64(time.Since(epoch)))
			return fmt.Errorf("pgstore: %w: %w", store.ErrFull, err)
		case isDead(err):
			s.reset()
		case !hasCode(err, codeDeadlock, codeSerialization):
			return wrap("apply", err)
		}
	}
	return wrap("apply", err)
}

func (c *commit) id(i int) store.ID {
	id, _ := store.ParseID(c.ids[i])
	return id
}

// commitOnce returns what apply1 did. Its error is ErrUnknown if the change may have been made.
func (s *Store) commitOnce(ctx context.Context, c *commit) (fault int, err error) {
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-ctx.Done():
		return 0, fmt.Errorf("connect: %w", context.Cause(ctx))
	}
	p, err := s.pool.Acquire(ctx)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer p.Release()
	conn := p.Conn()
	data := conn.PgConn().CustomData()
	delete(data, warned)
	err = conn.QueryRow(ctx, applySQL, c.lock, c.root.Append(nil), s.node, c.number, c.changes,
		c.ops, c.ids, c.buckets, c.expects, c.ats, c.reasons, c.tenants, c.subjects,
		c.kinds, c.clients, c.created, c.absolute, c.lastSeen, c.seenGen, c.seenAt, c.payloads, c.types, c.details).Scan(&fault)
	if err == nil {
		// The server says nothing else that is a warning, and this it says when it does not wait for its standbys any more.
		if w, ok := data[warned]; ok && fault == 0 {
			s.log.Error("store: PostgreSQL made a change without its standbys", "warning", w)
			return 0, store.ErrUnconfirmed
		}
		return fault, nil
	}
	if e := serverError(err); e != nil && e.Code == codeFault {
		if fault, err := strconv.Atoi(e.Message); err == nil {
			return fault, nil
		}
	}
	if !isOpen(err) {
		return 0, err
	}
	// It may be committed, or may yet be: the feed is to tell of it when it sees it.
	s.feed.doubt(c.number)
	if isDead(err) {
		s.reset()
	}
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(cause, err)
	}
	return 0, fmt.Errorf("pgstore: apply: %w: %w", store.ErrUnknown, err)
}

// haveDays sees to it that there are partitions for the days.
func (s *Store) haveDays(ctx context.Context, days []int) error {
	var missing []int
	for _, d := range days {
		if !s.partitions.has(d) && !slices.Contains(missing, d) {
			missing = append(missing, d)
		}
	}
	if missing == nil {
		return nil
	}
	return s.makeDays(ctx, missing)
}
