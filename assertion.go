package afterlogin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// kindOnce is the kind of records that say of something that it was used. They stand alone, as a child whose root has no
// record, so that no list of sessions has them; they hold nothing, and are purged when they are over.
const kindOnce = 'x'

// FirstUse notes that what has the id, in the caller's realm of ids, is used now, and reports whether it is for the first
// time, on whichever node. It is for what may be used once and has no record of its own, such as a client's assertion
// (RFC 7523): until must be when it is over, and the same each time. When it returns true that is durable.
//
// Errors: ErrUnavailable. Then it is not known; the thing may count as used.
func (a *Authority) FirstUse(ctx context.Context, realm, id string, until time.Time) (bool, error) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	msg := binary.BigEndian.AppendUint32([]byte("afterlogin/first-use/1\x00"), uint32(len(realm)))
	sum := sha256.Sum256(append(append(msg, realm...), id...))
	sum[19] |= 1 // a child's zero is the data's
	bucket := store.BucketOf(until.UnixMilli())
	root := store.NewRootID(bucket, [14]byte(sum[:14]), 0, "")
	rec := &store.Record{
		ID: store.NewChildID(root, bucket, [6]byte(sum[14:20])), Kind: kindOnce,
		Created: a.now().UnixMilli(), Absolute: until.UnixMilli(),
	}
	op := newOp()
	happened := func(ctx context.Context) (bool, error) {
		rs, err := a.store.Get(ctx, rec.ID)
		if err != nil || rs[0] == nil {
			return false, err
		}
		plain, err := a.sealer.Open(rs[0])
		return err == nil && bytes.Equal(plain, op[:]), err
	}
	err := a.apply(ctx, root, happened, a.put(rec, 0, op[:]))
	if err == errConflict {
		return false, nil
	}
	return err == nil, err
}
