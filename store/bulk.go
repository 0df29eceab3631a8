package store

import (
	"context"
	"iter"
)

// Bulk is what it takes to move all records from one store to another, to check them, and to back them up. Every store
// of this module has it.
type Bulk interface {
	Store

	// Scan yields every record of the store, whatever it is of, expired and marked ones too, each exactly as Get would
	// return it, in batches of a bounded size. A record that is there for the whole of the scan is yielded at least
	// once; one that is changed meanwhile, in one of its versions. A scan goes on behind the batch whose Next is given as since;
	// the zero Cursor begins. It yields an error at most once, as the last thing: ErrGap if since is no place in this
	// store any more, and the scan has to begin anew.
	Scan(ctx context.Context, since Cursor) iter.Seq2[Batch, error]

	// Load writes records that were made in another store as they are: versions, marks and times of use included. A
	// record that is there with the same version or a later one stays, but for the times of use, of which the later
	// ones remain; so Load may be repeated. It is no event and calls nobody: what loads a store is the only one that uses it,
	// or loads what nobody can have read yet. At most MaxLoad records, of any roots. When it returns nil they are durable.
	Load(ctx context.Context, records []*Record) error
}

// MaxLoad is the greatest number of records in one Load.
const MaxLoad = 1000

// A Batch is a part of a scan.
type Batch struct {
	Records []*Record
	Next    Cursor // where the scan goes on behind this batch
}

// Newer returns what is left of a stored record (nil: none) when loaded is loaded over it: old itself if nothing changes.
// It is what stores that read before they write run inside their lock.
func Newer(old, loaded *Record) *Record {
	switch {
	case old == nil:
		return loaded.Clone()
	case loaded.Version > old.Version:
		r := loaded.Clone()
		r.keepSeen(old)
		return r
	}
	r := old.Clone()
	r.keepSeen(loaded)
	if r.LastSeen == old.LastSeen && r.SeenGen == old.SeenGen && r.SeenAt == old.SeenAt {
		return old
	}
	return r
}
