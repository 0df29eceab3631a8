package pebblestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"github.com/afterlogin/afterlogin/store"
)

// listChunk is how many ids List holds at a time. No iterator is open while it yields, so that a slow reader keeps no
// old file alive.
const listChunk = 256

// List implements store.Store. It looks for ids first, a chunk at a time, and yields what Get returns for them.
func (s *Store) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	find := s.findAll
	if q.Subject != "" {
		find = s.findSubject
	}
	return func(yield func(*store.Record, error) bool) {
		for after := q.After; ; {
			ids, err := s.find(ctx, find, q, after)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, id := range ids {
				r, err := s.Get(ctx, id)
				if err != nil {
					yield(nil, err)
					return
				}
				// The index may be ahead of the record, or behind it.
				if r[0] == nil || r[0].Tenant != q.Tenant || q.Subject != "" && r[0].Subject != q.Subject {
					continue
				}
				if !yield(r[0], nil) {
					return
				}
			}
			if len(ids) < listChunk {
				return
			}
			after = ids[len(ids)-1]
		}
	}
}

// A finder appends up to listChunk ids of roots behind after to ids, in order; fewer if there are no more.
type finder func(ctx context.Context, it *pebble.Iterator, q store.Query, after store.ID) ([]store.ID, error)

func (s *Store) find(ctx context.Context, f finder, q store.Query, after store.ID) ([]store.ID, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.exit()
	it, err := s.db.NewIter(nil)
	if err != nil {
		return nil, fmt.Errorf("pebblestore: list: %w", err)
	}
	defer it.Close()
	ids, err := f(ctx, it, q, after)
	if err == nil {
		err = it.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("pebblestore: list: %w", err)
	}
	return ids, nil
}

// findSubject goes through the subject's entries of one coarse bucket after the other.
func (s *Store) findSubject(ctx context.Context, it *pebble.Iterator, q store.Query, after store.ID) ([]store.ID, error) {
	subject := store.SubjectID(q.Tenant, q.Subject)
	var ids []store.ID
	var prefix, from []byte
	coarse := 0
	if !after.IsZero() {
		coarse = int(rootBucket(after) >> coarseShift)
	}
	for coarse <= maxCoarse {
		prefix = indexKey(prefix[:0], coarse, subject)
		from = after.Append(append(from[:0], prefix...))
		ok := it.SeekGE(from)
		for ; ok && bytes.HasPrefix(it.Key(), prefix); ok = it.Next() {
			id, err := store.ParseID(it.Key()[indexPrefix:])
			if err != nil {
				return nil, err
			}
			if id.Compare(after) <= 0 {
				continue
			}
			if ids = append(ids, id); len(ids) == listChunk {
				return ids, nil
			}
		}
		if !ok || it.Key()[0] != keyIndex {
			return ids, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// What comes next is of another subject. If it is of a later coarse bucket there is nothing before that one.
		coarse = max(coarse+1, int(binary.BigEndian.Uint16(it.Key()[1:])))
	}
	return ids, nil
}

// findAll goes through the roots of one bucket after the other, past the children that stand behind them.
func (s *Store) findAll(ctx context.Context, it *pebble.Iterator, q store.Query, after store.ID) ([]store.ID, error) {
	var ids []store.ID
	var prefix, from []byte
	bucket := store.Bucket(0)
	if !after.IsZero() {
		bucket = rootBucket(after)
	}
	for bucket <= store.NoBucket {
		prefix = rootsKey(prefix[:0], bucket)
		from = bucketKey(from[:0], bucket)
		if !after.IsZero() && rootBucket(after) == bucket {
			from = after.Append(from)
		} else {
			from = append(from[:0], prefix...)
		}
		ok := it.SeekGE(from)
		for n := 1; ok && bytes.HasPrefix(it.Key(), prefix); n++ {
			if n%listChunk == 0 && ctx.Err() != nil {
				return nil, ctx.Err()
			}
			id, err := store.ParseID(it.Key()[4:])
			if err != nil {
				return nil, err
			}
			if id.IsRoot() && id.Compare(after) > 0 {
				v, err := it.ValueAndErr()
				if err != nil {
					return nil, err
				}
				if r, err := parse(id, v); err != nil {
					return nil, err
				} else if r.Tenant == q.Tenant {
					if ids = append(ids, id); len(ids) == listChunk {
						return ids, nil
					}
				}
			}
			ok = it.Next()
		}
		if !ok || it.Key()[0] != keyRecord {
			return ids, nil
		}
		next := bucketOf(it.Key())
		if next == bucket {
			// Children of later roots. Past them.
			if next == store.NoBucket || !it.SeekGE(bucketKey(from[:0], bucket+1)) || it.Key()[0] != keyRecord {
				return ids, nil
			}
			next = bucketOf(it.Key())
		}
		bucket = next
	}
	return ids, nil
}

// bucketOf returns the bucket in front of a record's key.
func bucketOf(key []byte) store.Bucket {
	return store.Bucket(key[1])<<16 | store.Bucket(key[2])<<8 | store.Bucket(key[3])
}

// rootBucket returns the bucket of the root that an id stands under.
func rootBucket(id store.ID) store.Bucket { return id.Root().Bucket() }
