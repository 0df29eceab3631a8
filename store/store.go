// Package store is the contract between the authority and whatever keeps its records.
//
// A store remembers; it never judges. It does not know what a cookie or a refresh token is, opens no payload, reads no
// clock and holds no key. What it must do is small and strict: apply a handful of changes to one root atomically and
// durably ([Store.Apply]), give records back by id ([Store.Get]), list the roots of a subject ([Store.List]), and tell
// of every change ([Store.Watch], [Store.Notify]).
//
// Whoever writes a store starts with [Store], reads package memstore, whose code is this contract made executable, and
// passes package storetest. Applications never call a store; they use afterlogin.Authority.
//
// The package imports the standard library only, and nothing else of this module.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// The limits of the contract. A store may assume that they hold; [CheckOps] refuses what goes beyond them.
const (
	// MaxOps is the greatest number of operations in one Apply.
	MaxOps = 16
	// MaxPayload is the greatest size of a record's payload, in bytes: 64 KiB of session data, sealed, or 8 KiB of
	// anything else (the authority sees to the smaller limit).
	MaxPayload = 64<<10 + 1<<10
	// MaxText is the greatest size of a record's subject and of its client, in bytes.
	MaxText = 512
	// MaxReason is the greatest size of the reason of a mark, in bytes.
	MaxReason = 64
)

// Errors that a store returns, wrapped or as they are. Any other error means that the store failed before anything
// changed, and that the caller may try again.
var (
	// ErrConflict: a record had another version than the put expected, and nothing changed. See [ConflictError].
	ErrConflict = errors.New("store: version conflict")
	// ErrNotFound: a mark names a record that is not there, and nothing changed.
	ErrNotFound = errors.New("store: no such record")
	// ErrUnknown: the change may have happened. The caller reads again and looks for what it wrote.
	ErrUnknown = errors.New("store: outcome unknown")
	// ErrGap: events between the cursor and now are gone. The watcher drops what it derived from them and starts anew.
	ErrGap = errors.New("store: events missed")
	// ErrFull: there is no room for new records. Marks are still taken for as long as possible.
	ErrFull = errors.New("store: no space left")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store: closed")
)

// A ConflictError says which operation met another version than it expected. It is [ErrConflict].
type ConflictError struct {
	Op int // index into the operations given to Apply
	ID ID
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("store: version conflict at operation %d, record %v", e.Op, e.ID)
}

// Is reports whether target is ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// A Store keeps records and events. Every method is safe for concurrent use, and no method reads a clock: times come
// from the caller, in milliseconds since 1970, UTC.
//
// A context that ends makes a method return early. If that happens to an Apply whose outcome is open, the error is
// ErrUnknown.
type Store interface {
	// Apply makes all the changes, or none. All of them concern root: the root's record and its children, or the one
	// record of a subject. It returns nil only when the changes are durable and every later Get, on this node, sees
	// them. Two Applies to one root never interleave.
	//
	// At most MaxOps operations. Errors: ErrConflict, ErrNotFound, ErrUnknown, ErrUnconfirmed, ErrFull, ErrClosed.
	Apply(ctx context.Context, root ID, ops ...Op) error

	// Get returns the records with the given ids in their order, nil where there is none. Marked and expired records
	// are returned too. What it returns is durable: where the storage shows a write before the write has reached the
	// disk, Get waits for it. Records of one root that stand beside each other in ids are of one moment. The caller owns
	// the records, payload included.
	//
	// SubjectOf(root) among the ids gives the record of the subject that the root's record names, read together with
	// it or after it; nil if there is no such root, if it has no subject, or if that has no record. A server is asked once for all of it.
	Get(ctx context.Context, ids ...ID) ([]*Record, error)

	// Touch notes that records were used. It is lossy: it may do nothing, it may be lost in a crash, and it is not an
	// event. It touches only records that are there and not marked, moves LastSeen and Seen forward only, and changes
	// no version.
	Touch(ctx context.Context, touches []Touch) error

	// List yields the roots that the query names, in order of their ids, each exactly as Get would return it. It holds
	// a bounded number of records at a time. Records that come or go while it runs may or may not be seen. A root whose
	// Apply returned before List was called is seen.
	List(ctx context.Context, q Query) iter.Seq2[*Record, error]

	// Watch yields every event committed after the one that since names, in one order, each root's in the order of its
	// changes. The zero Cursor means: everything committed after Watch returned. It yields an error at most once, as
	// the last thing: ErrGap if events were dropped before they were read, or the context's error. Events are yielded
	// only when they are durable.
	Watch(ctx context.Context, since Cursor) (iter.Seq2[Event, error], error)

	// Notify has f called with the root (or the subject's id) of every Apply that changed a record that was there. One that
	// only made new records need not be told of: nobody can have kept anything of them. In a store that one
	// process owns, f is called after the change is durable and before Apply returns, so that what a caller derived
	// from a record and drops in f is never older than an answered change. That holds for an Apply that finds its mark
	// already made, too: the Apply that made the mark may still be about to call f, and the one that finds it must not
	// return before those calls have been made. It need not call f itself, and may. f must be quick and call no method
	// of the store. The returned function ends the calls. A store that other processes change, too, tells of their changes
	// as well (see Shared); there f may be called with the zero ID, which means all roots and subjects.
	Notify(f func(root ID)) (stop func())

	// Purge removes every record whose bucket is not after b and not [NoBucket], however it is marked, and what the
	// store keeps to find it. It is for cleaning up, cheap in the number of records, and needs no agreement with other
	// calls: nothing of a purged bucket is used any more.
	Purge(ctx context.Context, b Bucket) error

	// Close releases the store's resources after running calls have ended. Later calls return ErrClosed.
	Close() error
}

// A Query names roots to list. Exactly the roots of the tenant are meant; the zero After begins at the start.
type Query struct {
	Tenant  uint32
	Subject string // empty: of every subject, the anonymous too
	After   ID     // only roots whose id is greater
}

// A Touch says that a record was used at a time, by a token of a generation.
type Touch struct {
	ID  ID
	At  int64  // milliseconds since 1970
	Gen uint32 // the newest generation that was seen in use
}

// A Cursor is a place in the store's event stream. It is opaque, and belongs to the store that gave it.
type Cursor string

// An Event tells of a change. It holds no secret and may be logged.
type Event struct {
	Cursor  Cursor // set by the store
	At      int64  // milliseconds since 1970
	Type    string // session.created, session.revoked, …; at most 64 bytes
	ID      ID
	Tenant  uint32
	Subject string
	Reason  string // at most MaxReason bytes
	Detail  string // at most MaxText bytes; free text for people
}
