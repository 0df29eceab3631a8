package redisstore

import (
	"context"
	"encoding/binary"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/store"
)

// touchBatch is how many records one script touches: no server is kept busy for long.
const touchBatch = 128

// Touch implements store.Store. No replica confirms it.
func (s *Store) Touch(ctx context.Context, touches []store.Touch) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	var of [groups][]store.Touch
	for _, t := range touches {
		if !t.ID.IsZero() {
			g := groupOf(t.ID)
			of[g] = append(of[g], t)
		}
	}
	for {
		var gs []int
		for g := range of {
			if len(of[g]) > 0 {
				gs = append(gs, g)
			}
		}
		if len(gs) == 0 {
			return nil
		}
		err := s.ask(ctx, gs, func(b rueidis.Builder, g int) rueidis.Completed {
			ts := of[g][:min(len(of[g]), touchBatch)]
			keys, args := make([]string, len(ts)), make([]string, 0, 2*len(ts))
			for i, t := range ts {
				keys[i] = s.keys.record(t.ID)
				args = append(args, bytes8(uint64(t.At)), string(binary.BigEndian.AppendUint32(nil, t.Gen)))
			}
			return b.Arbitrary("EVAL", touchScript.text, strconv.Itoa(len(keys))).Keys(keys...).Args(args...).Build()
		}, func(g int, r rueidis.RedisResult) error {
			if err := r.Error(); err != nil {
				return err
			}
			of[g] = of[g][min(len(of[g]), touchBatch):]
			return nil
		})
		if err != nil {
			return err
		}
	}
}
