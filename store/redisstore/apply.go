package redisstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// Apply implements store.Store. Where replicas confirm and too few do in time, it is store.ErrUnconfirmed.
func (s *Store) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	if err := store.CheckOps(root, ops); err != nil {
		return err
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	return s.apply(ctx, root, ops)
}

// apply makes the changes and tells of them. What may have happened is kept in the outbox, too.
func (s *Store) apply(ctx context.Context, root store.ID, ops []store.Op) error {
	g := groupOf(root)
	if err := s.indexElsewhere(ctx, ops); err != nil {
		return err
	}
	number := s.sequence.Add(1)
	c := s.change(g, root, ops, nil, number)
	if c.revises {
		s.told.begin(number)
	}
	master := s.topo.current.Load().masters[g]
	kept := s.outbox.keep(g, root, ops, time.Now())
	reply, err := s.write(ctx, g, c.script(), c.keys, c.args)
	err = answer(ops, reply, err)
	if err != nil {
		err = fmt.Errorf("redisstore: apply to %v: %w", root, err)
	}
	happened, unknown := err == nil || errors.Is(err, store.ErrUnconfirmed), errors.Is(err, store.ErrUnknown)
	switch {
	case !happened && !unknown:
		s.outbox.drop(kept)
	case s.outbox.settle(kept, reply) && (unknown || master != s.topo.current.Load().masters[g]):
		// The replaced master may have taken it, and it was left out when changes were made again.
		s.feed.doubt(g)
	}
	if c.revises {
		s.told.end(number, root, happened, unknown)
	}
	s.health.applied(err)
	return err
}

// answer makes an error of what the script answers.
func answer(ops []store.Op, reply string, err error) error {
	if reply == "" || reply[0] == '=' {
		return err
	}
	i, bad := strconv.Atoi(reply[1:])
	switch {
	case bad != nil || i < 0 || i >= len(ops):
		return fmt.Errorf("%w: the server answers %q", store.ErrUnknown, reply)
	case reply[0] == 'C':
		return &store.ConflictError{Op: i, ID: ops[i].ID}
	default:
		return fmt.Errorf("%w: %v", store.ErrNotFound, ops[i].ID)
	}
}

// A change is the script's keys and arguments for one Apply.
type change struct {
	keys    []string
	args    []string
	creates bool // makes a record
	revises bool // changes one that was there, or finds it marked
}

func (c *change) script() *script {
	if c.creates {
		return applyScript
	}
	return reviseScript
}

// change makes the script's arguments. ends, if not nil, says for each operation how the record that it replaces has to end; ""
// if that is not known.
func (s *Store) change(g int, root store.ID, ops []store.Op, ends []string, number uint64) *change {
	c := &change{keys: make([]string, 0, 3+len(ops)), args: make([]string, 0, 4+5*len(ops))}
	c.keys = append(c.keys, s.keys.changes(g), s.keys.events(g))
	c.args = append(c.args, strconv.Itoa(s.o.logged), strconv.Itoa(s.o.Events), "", "")
	for i := range ops {
		switch o := &ops[i]; o.Kind {
		case store.OpPut:
			c.keys = append(c.keys, s.keys.record(o.ID))
			indexes := 0
			if o.Expect == 0 {
				c.creates = true
				indexes = s.index(c, o.Record)
			} else {
				c.revises = true
			}
			expect := bytes8(o.Expect)
			if ends != nil {
				expect += ends[i]
			}
			c.args = append(c.args, "P", expect, encode(o.Record),
				strconv.FormatInt(expiry(o.ID.Bucket()), 10), strconv.Itoa(indexes))
		case store.OpMark:
			c.revises = true
			c.keys = append(c.keys, s.keys.record(o.ID))
			c.args = append(c.args, "M", bytes8(uint64(o.At)), o.Reason)
		default:
			c.args = append(c.args, "E", string(appendEvent(nil, &o.Event)))
		}
	}
	if c.revises {
		c.args[2], c.args[3] = string(root.Append(nil)), s.self+bytes8(number)
	}
	return c
}

// index adds the keys of the indexes that a new record belongs to, and returns how many. A subject's index is in the
// subject's group.
func (s *Store) index(c *change, r *store.Record) int {
	if !r.ID.IsRoot() {
		return 0
	}
	g := groupOf(r.ID)
	c.keys = append(c.keys, s.keys.tenants(g), s.keys.tenant(g, r.Tenant))
	if r.Subject == "" {
		return 2
	}
	subject := store.SubjectID(r.Tenant, r.Subject)
	if groupOf(subject) != g {
		return 2
	}
	c.keys = append(c.keys, s.keys.subject(subject))
	return 3
}

// indexElsewhere notes new roots with their subject where that is in another group, as that of an imported key is. It
// comes before the root itself: an entry without a root is nothing to List.
func (s *Store) indexElsewhere(ctx context.Context, ops []store.Op) error {
	for i := range ops {
		o := &ops[i]
		if o.Kind != store.OpPut || o.Expect != 0 || !o.ID.IsRoot() || o.Record.Subject == "" {
			continue
		}
		subject := store.SubjectID(o.Record.Tenant, o.Record.Subject)
		g := groupOf(subject)
		if g == groupOf(o.ID) {
			continue
		}
		_, err := s.write(ctx, g, indexScript, []string{s.keys.subject(subject)},
			[]string{string(o.ID.Append(nil)), strconv.FormatInt(expiry(o.ID.Bucket()), 10)})
		switch {
		case errors.Is(err, store.ErrUnknown), errors.Is(err, store.ErrUnconfirmed):
			return fmt.Errorf("%w: index of %v: %v", ErrUnavailable, o.ID, err) // of the contract's, nothing has happened
		case err != nil:
			return err
		}
	}
	return nil
}

func bytes8(v uint64) string { return string(binary.BigEndian.AppendUint64(nil, v)) }

// subjectHash is the size of what tells subjects' ids apart.
const subjectHash = 20

// encode returns what is kept of a record.
func encode(r *store.Record) string {
	b := store.AppendRecord(nil, r)
	if r.ID.IsRoot() && r.Subject != "" {
		id := store.SubjectID(r.Tenant, r.Subject).Append(nil)
		b = append(b, id[len(id)-subjectHash:]...)
	}
	return string(b)
}

// decode reads what encode wrote.
func decode(b []byte) (*store.Record, error) {
	r, err := store.ParseRecord(b)
	if err == nil || len(b) < subjectHash {
		return r, err
	}
	return store.ParseRecord(b[:len(b)-subjectHash])
}
