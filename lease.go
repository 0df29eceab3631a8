package afterlogin

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// lease says until when the cache may be believed without having heard from the store: a store that is gone must not go
// unnoticed for longer. A read of the store that succeeds extends it; while sessions are in use, one of them is read
// again now and then for its sake.
type lease struct {
	start   time.Time
	from    atomic.Int64 // when the last read that succeeded was sent, in nanoseconds since start
	probing atomic.Int64 // when a request was last sent to the store for the lease's sake
}

// leaseTime is how long a lease lasts.
const leaseTime = store.Lease

// holds reports whether the cache may answer now. In the second half of a lease it tells one request in a while that it
// may not, so that it asks the store while the others go on.
func (l *lease) holds(now time.Time) bool {
	at, from := int64(now.Sub(l.start)), l.from.Load()
	age := at - from
	if age < 0 || age >= int64(leaseTime) {
		return false
	}
	if age < int64(leaseTime)/2 {
		return true
	}
	probed := l.probing.Load()
	return at-probed < int64(leaseTime)/4 || !l.probing.CompareAndSwap(probed, at)
}

// extend notes a read that succeeded and was sent at the time.
func (l *lease) extend(sent time.Time) {
	at := int64(sent.Sub(l.start))
	for {
		from := l.from.Load()
		// A clock that went back starts anew.
		if at <= from && from-at < int64(leaseTime) || l.from.CompareAndSwap(from, at) {
			return
		}
	}
}

// held returns the record's entry in the cache, nil if there is none, and whether the cache may answer from it now.
//
// The lease comes first: a store that has news drops entries and then says that it has heard. The other way round, an
// entry from before the news would stand under a lease from after it.
func (a *Authority) held(id store.ID, now time.Time) (c *entry, leased bool) {
	leased = a.leased(id.Partition(), now)
	if c = a.cache.get(id); c == nil || !leased || c.elsewhere == 0 {
		return c, leased
	}
	leased = a.leased(int(c.elsewhere)-1, now)
	return a.cache.get(id), leased
}

// leased reports whether the cache may answer for records of the partition now. Where other processes change the store,
// too, it is the store that knows: the cache is good as far as it has heard of their changes.
//
// Both clocks have to say so. The monotonic one stands still while the machine sleeps, and the other one can be set.
func (a *Authority) leased(partition int, now time.Time) bool {
	if a.shared == nil {
		return a.lease.holds(now)
	}
	heard := a.shared.Heard(partition)
	age, wall := now.Sub(heard), now.UnixNano()-heard.UnixNano()
	return 0 <= age && age < leaseTime && -int64(leaseTime) < wall && wall < int64(leaseTime)
}

// WaitLeases returns when no node can answer any more from what it had heard before the call: a credential whose
// revocation was answered before is then refused everywhere, and not only on this node. With a store that one process
// owns that is at once, otherwise after store.Lease. It fails only if the context ends, which undoes nothing.
func (a *Authority) WaitLeases(ctx context.Context) error {
	if a.shared == nil {
		return nil
	}
	t := time.NewTimer(leaseTime)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
