package redisstore

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/store"
)

// An outbox keeps the changes that this process made, or may have made, in the last ten minutes. Redis forgets those that
// a promoted replica had not got; they are made again before anything is taken from memory.
type outbox struct {
	mu    sync.Mutex
	sent  [groups][]*outgoing // oldest first
	all   []*outgoing         // the same, of all groups
	ops   int
	bytes int
}

const (
	outboxOps   = 100_000
	outboxBytes = 64 << 20
)

// An outgoing is one Apply: its puts and marks. Events are not made again.
type outgoing struct {
	group int
	root  store.ID
	ops   []store.Op
	bytes int
	at    time.Time
	gone  bool // dropped: nothing of it happened, or it is too old
}

// keep takes the changes in, and returns what drop wants.
func (o *outbox) keep(g int, root store.ID, ops []store.Op, now time.Time) *outgoing {
	out := &outgoing{group: g, root: root, at: now}
	for _, op := range ops {
		switch op.Kind {
		case store.OpPut:
			op.Record = op.Record.Clone()
			out.bytes += len(op.Record.Payload) + len(op.Record.Subject) + len(op.Record.Client) + 200
		case store.OpMark:
			out.bytes += len(op.Reason) + 200
		default:
			continue
		}
		out.ops = append(out.ops, op)
	}
	if len(out.ops) == 0 {
		out.gone = true
		return out
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent[g] = append(o.sent[g], out)
	o.all = append(o.all, out)
	o.ops += len(out.ops)
	o.bytes += out.bytes
	for len(o.all) > 0 {
		first := o.all[0]
		if !first.gone && o.ops <= outboxOps && o.bytes <= outboxBytes && now.Sub(first.at) <= remembered {
			break
		}
		o.forget(first)
		o.all[0] = nil
		o.all = o.all[1:]
	}
	return out
}

// forget takes what is too old out. mu is held.
func (o *outbox) forget(out *outgoing) {
	o.release(out)
	s := o.sent[out.group]
	for len(s) > 0 && s[0].gone {
		s[0] = nil
		s = s[1:]
	}
	o.sent[out.group] = s
}

func (o *outbox) release(out *outgoing) {
	if !out.gone {
		out.gone = true
		o.ops -= len(out.ops)
		o.bytes -= out.bytes
		out.ops = nil
	}
}

// drop takes an Apply out that is known to have changed nothing.
func (o *outbox) drop(out *outgoing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.release(out)
}

// of returns a group's changes. What only made new records is left out, unless this process has changed one of them
// since: a sign-in that was lost with its master is to be repeated, and that is all.
func (o *outbox) of(g int, now time.Time) []outgoing {
	o.mu.Lock()
	defer o.mu.Unlock()
	times := map[store.ID]int{}
	var kept []*outgoing
	for _, out := range o.sent[g] {
		if out.gone || now.Sub(out.at) > remembered {
			continue
		}
		kept = append(kept, out)
		for i := range out.ops {
			times[out.ops[i].ID]++
		}
	}
	var outs []outgoing
	for _, out := range kept {
		for _, op := range out.ops {
			if op.Kind == store.OpMark || op.Expect != 0 || times[op.ID] > 1 {
				outs = append(outs, *out)
				break
			}
		}
	}
	return outs
}

// replayers is how many roots are replayed at a time.
const replayers = 64

// replay makes a group's changes again, each that is still missing, in their order. What others have changed since stays:
// a put is made over the version that it was made over, and a mark over whatever there is.
func (s *Store) replay(ctx context.Context, g int) (made int, err error) {
	outs := s.outbox.of(g, time.Now())
	if len(outs) == 0 {
		return 0, nil
	}
	lost, err := s.lost(ctx, g, outs)
	if err != nil {
		return 0, err
	}
	roots := map[store.ID][]outgoing{}
	for _, out := range outs {
		if lost[out.root] {
			roots[out.root] = append(roots[out.root], out)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	turn := make(chan struct{}, replayers)
	for _, outs := range roots {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			m, e := s.replayRoot(ctx, g, outs)
			mu.Lock()
			defer mu.Unlock()
			made += m
			if e != nil {
				err = e
			}
		})
	}
	wg.Wait()
	return made, err
}

// lost returns the roots of which something is missing.
func (s *Store) lost(ctx context.Context, g int, outs []outgoing) (map[store.ID]bool, error) {
	type want struct {
		version uint64
		marked  bool
	}
	wants := map[store.ID]want{}
	var ids []store.ID
	for _, out := range outs {
		for _, op := range out.ops {
			w, ok := wants[op.ID]
			if !ok {
				ids = append(ids, op.ID)
			}
			if op.Kind == store.OpMark {
				w.marked = true
			} else {
				w.version = max(w.version, op.Record.Version)
			}
			wants[op.ID] = w
		}
	}
	lost := map[store.ID]bool{}
	for len(ids) > 0 {
		page := ids[:min(len(ids), 1000)]
		ids = ids[len(page):]
		err := s.ask(ctx, []int{g}, func(b rueidis.Builder, _ int) rueidis.Completed {
			keys := make([]string, len(page))
			for i, id := range page {
				keys[i] = s.keys.record(id)
			}
			return b.Arbitrary("EVAL_RO", headScript.text, strconv.Itoa(len(keys))).Keys(keys...).Build()
		}, func(_ int, r rueidis.RedisResult) error {
			heads, err := r.AsStrSlice()
			if err != nil {
				return err
			}
			if len(heads) != len(page) {
				return errShape
			}
			for i, head := range heads {
				w := wants[page[i]]
				if len(head) != 16 || w.marked && head[:8] == bytes8(0) || binary.BigEndian.Uint64([]byte(head[8:])) < w.version {
					lost[page[i].Root()] = true
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return lost, nil
}

// replayRoot makes the changes of one root again.
func (s *Store) replayRoot(ctx context.Context, g int, outs []outgoing) (made int, err error) {
	for _, out := range outs {
		err := s.again(ctx, g, out.root, out.ops)
		if missing(err) && len(out.ops) > 1 {
			for i := range out.ops {
				if err = s.again(ctx, g, out.root, out.ops[i:i+1]); err == nil {
					made++
				} else if !missing(err) {
					return made, err
				}
			}
			continue
		}
		switch {
		case err == nil:
			made++
		case !missing(err):
			return made, err
		}
	}
	return made, nil
}

// missing reports whether a change could not be made again since something else is there, or nothing.
func missing(err error) bool {
	return errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound)
}

// again makes a change that was made before. A replica need not confirm it: there may be none so soon.
func (s *Store) again(ctx context.Context, g int, root store.ID, ops []store.Op) error {
	if err := s.indexElsewhere(ctx, ops); err != nil {
		return err
	}
	number := s.sequence.Add(1)
	c := s.change(g, root, ops, number)
	s.told.begin(number)
	err := answer(ops)(s.write(ctx, g, c.script(), c.keys, c.args))
	if errors.Is(err, store.ErrUnconfirmed) {
		err = nil
	}
	s.told.end(number, root, err == nil, errors.Is(err, store.ErrUnknown))
	return err
}
