package pebblestore

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/afterlogin/afterlogin/store"
)

// Purge implements store.Store. It drops each bucket that has anything in it as one range, and the index three weeks at
// a time. A range that was dropped before is dropped again only if something was put into it since: overlapping range
// deletions, such as always beginning at zero, cost Pebble dearly (cockroachdb/pebble#2415).
func (s *Store) Purge(ctx context.Context, b store.Bucket) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.exit()
	b = min(b, store.NoBucket-1)
	c := s.newCommit(store.ID{})
	if err := s.preparePurge(ctx, c, b); err != nil {
		c.drop()
		return err
	}
	if c.batch.Empty() {
		c.drop()
		return nil
	}
	if err := s.submit(ctx, c); err != nil {
		return err
	}
	// Space comes back only when the deletion has left the memtable.
	if _, err := s.db.AsyncFlush(); err != nil {
		s.log.Warn("store: flush after a purge", "err", err)
	}
	return nil
}

func (s *Store) preparePurge(ctx context.Context, c *commit, b store.Bucket) error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return fmt.Errorf("pebblestore: purge: %w", err)
	}
	defer it.Close()
	var from, to []byte
	for ok := it.SeekGE([]byte{keyRecord}); ok && it.Key()[0] == keyRecord; ok = it.SeekGE(to) {
		k := bucketOf(it.Key())
		if k > b {
			break
		}
		from, to = bucketKey(from[:0], k), bucketKey(to[:0], k+1)
		if err := drop(ctx, c.batch, from, to); err != nil {
			return err
		}
	}
	for ok := it.SeekGE([]byte{keyIndex}); ok && it.Key()[0] == keyIndex; ok = it.SeekGE(to) {
		coarse := int(binary.BigEndian.Uint16(it.Key()[1:]))
		if coarse >= int(b+1)>>coarseShift {
			break
		}
		from, to = coarseKey(from[:0], coarse), coarseKey(to[:0], coarse+1)
		if err := drop(ctx, c.batch, from, to); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("pebblestore: purge: %w", err)
	}
	return nil
}

func drop(ctx context.Context, b *pebble.Batch, from, to []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.DeleteRange(from, to, nil)
}
