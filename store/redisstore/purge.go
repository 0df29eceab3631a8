package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/store"
)

const (
	// purgeBatch is how many records are removed at a time.
	purgeBatch = 200
	// scanCount is how many keys a server looks at for one SCAN.
	scanCount = 1000
)

// Purge implements store.Store. The server itself forgets a record three hours after the end of its bucket. So Purge
// removes roots, which it finds by their index, and looks through all keys for children only if b ended less than an
// hour ago by the server's clock, or has not ended: a child whose bucket ended before that may stay for the two hours
// that are left. A subject's index loses its entries when it gets new ones, and goes with its last root; List passes over
// those that are left.
func (s *Store) Purge(ctx context.Context, b store.Bucket) error {
	tenants, err := s.tenants(ctx)
	if err != nil {
		return err
	}
	for g := range tenants {
		if err := s.purgeGroup(ctx, g, tenants[g], b); err != nil {
			return err
		}
	}
	return s.purgeRest(ctx, b)
}

// tenants returns which tenants have roots in each group.
func (s *Store) tenants(ctx context.Context) (tenants [groups][]string, err error) {
	if err := s.enter(ctx); err != nil {
		return tenants, err
	}
	defer s.exit()
	var all []int
	for g := range groups {
		all = append(all, g)
	}
	err = s.ask(ctx, all, func(b rueidis.Builder, g int) rueidis.Completed { return b.Smembers().Key(s.keys.tenants(g)).Build() },
		func(g int, r rueidis.RedisResult) (err error) {
			tenants[g], err = r.AsStrSlice()
			return err
		})
	return tenants, err
}

// purgeGroup removes a group's roots.
func (s *Store) purgeGroup(ctx context.Context, g int, tenants []string, b store.Bucket) error {
	behind := "(" + bucketPrefix(min(b, store.NoBucket-1)+1)
	for _, tenant := range tenants {
		key := s.keys.group[g] + "t:" + tenant
		for {
			var ids []string
			err := s.one(ctx, g, func(c rueidis.Builder) rueidis.Completed {
				return c.Zrange().Key(key).Min("-").Max(behind).Bylex().Limit(0, purgeBatch).Build()
			}, func(r rueidis.RedisResult) (err error) {
				ids, err = r.AsStrSlice()
				return err
			})
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				break
			}
			keys := make([]string, len(ids))
			for i, id := range ids {
				keys[i] = s.keys.group[g] + "r:" + id
			}
			// The records first: an entry without a record is nothing to List, a record without an entry is lost to it.
			for _, build := range []func(c rueidis.Builder) rueidis.Completed{
				func(c rueidis.Builder) rueidis.Completed { return c.Unlink().Key(keys...).Build() },
				func(c rueidis.Builder) rueidis.Completed { return c.Zrem().Key(key).Member(ids...).Build() },
			} {
				if err := s.one(ctx, g, build, rueidis.RedisResult.Error); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// one sends one command to a group's master.
func (s *Store) one(ctx context.Context, g int, build func(b rueidis.Builder) rueidis.Completed, take func(r rueidis.RedisResult) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	return s.ask(ctx, []int{g}, func(b rueidis.Builder, _ int) rueidis.Completed { return build(b) },
		func(_ int, r rueidis.RedisResult) error { return take(r) })
}

func bucketPrefix(b store.Bucket) string { return string([]byte{byte(b >> 16), byte(b >> 8), byte(b)}) }

// purgeRest looks through all keys for records of the buckets.
func (s *Store) purgeRest(ctx context.Context, b store.Bucket) error {
	if b == 0 {
		return nil
	}
	// The lists of servers are of one moment; what changes place meanwhile is left for the next time.
	of := map[*node]bool{}
	for g := range groups {
		n, err := s.topo.master(g)
		if err != nil {
			return err
		}
		of[n] = true
	}
	for n := range of {
		now := time.Now().Add(-time.Duration(n.skew.Load()))
		if b != store.NoBucket && b.End() <= now.Add(-time.Hour).UnixMilli() {
			continue
		}
		for cursor := "0"; ; {
			var keys []string
			var err error
			if cursor, keys, err = s.scanKeys(ctx, n, cursor); err != nil {
				return err
			}
			if err := s.unlinkUntil(ctx, keys, b); err != nil {
				return err
			}
			if cursor == "0" {
				break
			}
		}
	}
	return nil
}

// scanKeys looks at some of a server's keys, and returns those of records.
func (s *Store) scanKeys(ctx context.Context, n *node, cursor string) (next string, keys []string, err error) {
	if err := s.enter(ctx); err != nil {
		return "", nil, err
	}
	defer s.exit()
	rs, err := n.do(ctx, func(b rueidis.Builder) []rueidis.Completed {
		return []rueidis.Completed{b.Arbitrary("SCAN", cursor, "MATCH", s.o.prefix+":{???}:r:*", "COUNT", strconv.Itoa(scanCount)).Build()}
	})
	if err != nil {
		return "", nil, unavailable(n.addr, err)
	}
	parts, err := rs[0].ToArray()
	if err != nil {
		return "", nil, unavailable(n.addr, err)
	}
	if len(parts) != 2 {
		return "", nil, unavailable(n.addr, errShape)
	}
	if next, err = parts[0].ToString(); err == nil {
		keys, err = parts[1].AsStrSlice()
	}
	if err != nil {
		return "", nil, unavailable(n.addr, err)
	}
	return next, keys, nil
}

// unlinkUntil removes those of the records whose bucket is not after b.
func (s *Store) unlinkUntil(ctx context.Context, keys []string, b store.Bucket) error {
	var of [groups][]string
	var gs []int
	for _, key := range keys {
		g, ok := s.keys.groupOfKey(key)
		if !ok {
			continue
		}
		id, ok := s.keys.parseRecord(g, key)
		if !ok || id.Bucket() > b || id.Bucket() == store.NoBucket {
			continue
		}
		if of[g] == nil {
			gs = append(gs, g)
		}
		of[g] = append(of[g], key)
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	err := s.ask(ctx, gs, func(b rueidis.Builder, g int) rueidis.Completed { return b.Unlink().Key(of[g]...).Build() },
		func(_ int, r rueidis.RedisResult) error { return r.Error() })
	if err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	return nil
}
