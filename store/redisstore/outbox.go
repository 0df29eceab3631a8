package redisstore

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
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
	gone  int            // how many of all are gone
	taken [groups]uint64 // how often a group's changes were made again
}

const (
	// endSize is how much of the end of a record tells it from any other of the same version: the payload is sealed.
	endSize = 40

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

	settled bool     // its Apply is over: until then it may say that nothing has happened, and is left alone
	ends    []string // of each put, the end of the record that it has replaced; "" if there was none, or it is not known
	taken   uint64   // what outbox.taken was before it was sent
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
	out.ends = make([]string, len(out.ops))
	o.mu.Lock()
	defer o.mu.Unlock()
	out.taken = o.taken[g]
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
		o.gone--
	}
	return out
}

// settle is called when an Apply is over that has changed something, or may have; reply is the script's. It reports whether the
// group's changes were made again meanwhile, without these.
func (o *outbox) settle(out *outgoing, reply string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	out.settled = true
	_, ends, _ := strings.Cut(reply, "=")
	for i := range out.ops {
		if op := &out.ops[i]; op.Kind == store.OpPut && op.Expect != 0 && len(ends) >= endSize {
			out.ends[i], ends = ends[:endSize], ends[endSize:]
		}
	}
	return !out.gone && o.taken[out.group] != out.taken
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
		o.gone++
		out.ops, out.ends = nil, nil
	}
}

// drop takes an Apply out that is known to have changed nothing.
func (o *outbox) drop(out *outgoing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.release(out)
	if o.gone > 1000 && o.gone > len(o.all)/2 { // or they would pile up behind one that stays
		isGone := func(out *outgoing) bool { return out.gone }
		o.all = slices.DeleteFunc(o.all, isGone)
		for g := range o.sent {
			o.sent[g] = slices.DeleteFunc(o.sent[g], isGone)
		}
		o.gone = 0
	}
}

// of returns a group's changes whose outcome is settled. What only made new records is left out, unless this process has changed one of them
// since: a sign-in that was lost with its master is to be repeated, and that is all.
func (o *outbox) of(g int, now time.Time) []outgoing {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taken[g]++
	times := map[store.ID]int{}
	var kept []*outgoing
	for _, out := range o.sent[g] {
		if out.gone || !out.settled || now.Sub(out.at) > remembered {
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
// a put is made over the very record that it was made over, and a mark over whatever there is. The version alone does not
// tell that record: another process may have made another one of the same version.
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
		err := s.again(ctx, g, out.root, out.ops, out.ends)
		if missing(err) && len(out.ops) > 1 {
			for i, op := range out.ops {
				if op.Kind == store.OpPut && op.Expect == 0 {
					continue // what came of a change that somebody else has made instead
				}
				if err = s.again(ctx, g, out.root, out.ops[i:i+1], out.ends[i:i+1]); err == nil {
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
func (s *Store) again(ctx context.Context, g int, root store.ID, ops []store.Op, ends []string) error {
	if err := s.indexElsewhere(ctx, ops); err != nil {
		return err
	}
	number := s.sequence.Add(1)
	c := s.change(g, root, ops, ends, number)
	s.told.begin(number)
	reply, err := s.write(ctx, g, c.script(), c.keys, c.args)
	err = answer(ops, reply, err)
	if errors.Is(err, store.ErrUnconfirmed) {
		err = nil
	}
	s.told.end(number, root, err == nil, errors.Is(err, store.ErrUnknown))
	return err
}
