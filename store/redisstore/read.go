package redisstore

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/store"
)

// Get implements store.Store. It reads from masters only, in one round trip: what is of one group in one command.
func (s *Store) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.exit()
	return s.get(ctx, ids)
}

// askTimeout bounds a read with all its repetitions: those who wait for a validation are answered, and do not pile up.
const askTimeout = 3 * ioTimeout

// getChunk is how many records are asked for in one command.
const getChunk = 256

func (s *Store) get(ctx context.Context, ids []store.ID) ([]*store.Record, error) {
	out := make([]*store.Record, len(ids))
	for at := 0; at < len(ids); {
		end := min(at+getChunk, len(ids))
		for end < len(ids) && ids[end].Root() == ids[end-1].Root() { // of one moment
			end++
		}
		if err := s.getInto(ctx, out[at:end], ids[at:end]); err != nil {
			return nil, err
		}
		at = end
	}
	return out, nil
}

func (s *Store) getInto(ctx context.Context, out []*store.Record, ids []store.ID) error {
	var at [groups][]int // which of ids are of the group
	var subjects [groups]bool
	var gs []int
	for i, id := range ids {
		if id.IsZero() {
			continue
		}
		g := groupOf(id)
		if at[g] == nil {
			gs = append(gs, g)
		}
		at[g] = append(at[g], i)
		subjects[g] = subjects[g] || id.IsSubjectOf()
	}
	var elsewhere []int // which of ids are of subjects that are not where their roots are
	var of []store.ID   // and which these are
	err := s.ask(ctx, gs, func(b rueidis.Builder, g int) rueidis.Completed {
		keys, args := make([]string, len(at[g])), make([]string, len(at[g]))
		for i, n := range at[g] {
			keys[i] = s.keys.record(ids[n].Root())
			if ids[n].IsSubjectOf() {
				args[i] = s.keys.group[g] + "r:"
			} else {
				keys[i] = s.keys.record(ids[n])
			}
		}
		if !subjects[g] {
			return b.Mget().Key(keys...).Build()
		}
		return b.Arbitrary("EVALSHA_RO", getScript.sha, strconv.Itoa(len(keys))).Keys(keys...).Args(args...).Build()
	}, func(g int, r rueidis.RedisResult) error {
		values, err := r.ToArray()
		if err != nil {
			return err
		}
		if len(values) != len(at[g]) {
			return errShape
		}
		for i, n := range at[g] {
			if values[i].IsNil() {
				continue
			}
			b, err := values[i].AsBytes()
			if err != nil {
				return err
			}
			if ids[n].IsSubjectOf() && len(b) == subjectHash {
				id, err := store.ParseID(append([]byte{0xFF, 0xFF, 0xFF}, b...))
				if err != nil {
					return err
				}
				elsewhere, of = append(elsewhere, n), append(of, id)
				continue
			}
			if out[n], err = decode(b); err != nil {
				return fmt.Errorf("record %v: %w", ids[n], err)
			}
		}
		return nil
	})
	if err != nil || len(of) == 0 {
		return err
	}
	// An imported key's root is not in its subject's group, and a slot may be moving: it takes another round trip.
	got := make([]*store.Record, len(of))
	if err := s.getInto(ctx, got, of); err != nil {
		return err
	}
	for i, n := range elsewhere {
		out[n] = got[i]
	}
	return nil
}

// ask sends one command per group to the groups' masters, as few pipelines as there are masters, and hands the replies
// to take, one at a time. A command that is refused because its slot is somewhere else, or that a lost connection left
// without a reply, is sent again: it must be one that may be repeated.
func (s *Store) ask(ctx context.Context, gs []int, build func(b rueidis.Builder, g int) rueidis.Completed, take func(g int, r rueidis.RedisResult) error) error {
	const tries = 8
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var asked [groups]string // nodes that replies have named for this once
	for try := 1; len(gs) > 0; try++ {
		var again []int
		var nodes []*node
		of := map[*node][]int{}
		for _, g := range gs {
			n, err := s.topo.master(g)
			if err != nil {
				return err
			}
			if addr := asked[g]; addr != "" {
				asked[g] = ""
				r, err := s.askOnce(ctx, addr, g, build)
				if err != nil {
					return err
				}
				if err := take(g, r); err != nil {
					return s.readError(addr, err)
				}
				continue
			}
			if of[n] == nil {
				nodes = append(nodes, n)
			}
			of[n] = append(of[n], g)
		}
		results := make([][]rueidis.RedisResult, len(nodes))
		errs := make([]error, len(nodes))
		send := func(i int) {
			results[i], errs[i] = nodes[i].do(ctx, func(b rueidis.Builder) []rueidis.Completed {
				cmds := make([]rueidis.Completed, len(of[nodes[i]]))
				for j, g := range of[nodes[i]] {
					cmds[j] = build(b, g)
				}
				return cmds
			})
		}
		if len(nodes) == 1 {
			send(0)
		} else {
			var wg sync.WaitGroup
			for i := range nodes {
				wg.Go(func() { send(i) })
			}
			wg.Wait()
		}
		wait := false
		for i, n := range nodes {
			if errs[i] != nil {
				s.topo.kick()
				s.health.failed(n.addr, errs[i])
				return unavailable(n.addr, errs[i])
			}
			for j, g := range of[n] {
				err := results[i][j].Error()
				if err == nil || rueidis.IsRedisNil(err) {
					err = take(g, results[i][j])
				}
				if err == nil {
					continue
				}
				kind, to := classify(err)
				switch {
				case try == tries:
				case kind == moved:
					again, wait = append(again, g), true
					s.topo.renew(ctx)
					continue
				case kind == asking:
					again = append(again, g)
					asked[g] = to
					continue
				case kind == noScript:
					// A server that was restarted knows none.
					if err := n.load(ctx, getScript); err != nil {
						return unavailable(n.addr, err)
					}
					again = append(again, g)
					continue
				case kind == tryAgain:
					again, wait = append(again, g), true
					continue
				}
				return s.readError(n.addr, err)
			}
		}
		gs = slices.Clone(again)
		if wait && try > 1 {
			if err := sleep(ctx, 25*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// askOnce sends the command to the node that a slot is being moved to.
func (s *Store) askOnce(ctx context.Context, addr string, g int, build func(b rueidis.Builder, g int) rueidis.Completed) (rueidis.RedisResult, error) {
	n, err := s.topo.node(addr)
	if err != nil {
		return rueidis.RedisResult{}, err
	}
	rs, err := n.do(ctx, func(b rueidis.Builder) []rueidis.Completed {
		return []rueidis.Completed{b.Arbitrary("ASKING").Build(), build(b, g)}
	})
	if err != nil {
		return rueidis.RedisResult{}, unavailable(addr, err)
	}
	return rs[1], nil
}

func (s *Store) readError(addr string, err error) error {
	if kind, _ := classify(err); kind == badPlace {
		s.topo.kick()
	}
	return unavailable(addr, err)
}
