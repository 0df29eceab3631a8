package store

import (
	"errors"
	"time"
)

// Lease is for how long after it was last heard from a partition may be answered for from memory. It is one number for
// every node of every installation: a revocation that waits for all leases has to know the others'.
const Lease = time.Second

// ErrUnconfirmed: the change was made, but fewer copies of it than the store promises are known to exist, so that it may
// yet be lost. The caller says that it does not know, and may apply the same once more: the store confirms a mark that is
// there already as it confirms a new one.
var ErrUnconfirmed = errors.New("store: made, but not confirmed by enough copies")

// A Shared store is one that other processes change, too. Their changes come in on a feed, which the store reads by
// itself, and calls Notify's functions for:
//
//   - for every Apply of any process that changed a record that was there, with its root, as soon as the store hears of it;
//     Applies of this process as in a store that one process owns, before they return;
//   - with the zero ID where changes may have been missed, of a partition or of all: everything derived from records
//     is to be dropped.
type Shared interface {
	Store

	// Heard returns the moment up to which Notify's functions have been called for every change of the partition's records:
	// each that was answered before then, by whichever process, has been told. The moment was read from this process's
	// clock, with its monotonic part, before the question to the server was sent; it is the zero Time as long as there was
	// no answer. Heard takes no lock and allocates nothing: it is asked at every validation.
	//
	// The store asks at least every quarter of a Lease, by reading from the partition, not by a PING: a server that has
	// lost its cluster still answers that.
	Heard(partition int) time.Time

	// Feed returns what the feed has seen since the store was opened.
	Feed() Feed
}

// A Feed counts what a Shared store has heard.
type Feed struct {
	Changes  uint64 // changes by other processes, and by this one, that came in
	Failures uint64 // questions without an answer
	Gaps     uint64 // how often everything was dropped, since changes may have been missed
	// Lag counts changes by how long they took from their commit to Notify, measured by the server's clock: Lag[i] took no
	// longer than LagBounds[i], the last one longer than all of these.
	Lag [len(LagBounds) + 1]uint64
	// LagSum is the sum of these times.
	LagSum time.Duration
	// Skew is how far this process's clock is ahead of the server's, as last measured, give or take the round trip.
	Skew time.Duration
}

// LagBounds are the bounds of Feed.Lag.
var LagBounds = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second,
}

// Took counts a change that took d.
func (f *Feed) Took(d time.Duration) {
	i := 0
	for i < len(LagBounds) && d > LagBounds[i] {
		i++
	}
	f.Lag[i]++
	f.LagSum += max(d, 0)
	f.Changes++
}
