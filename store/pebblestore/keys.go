package pebblestore

import (
	"encoding/binary"

	"github.com/afterlogin/afterlogin/store"
)

// The first byte of a key says what it leads to.
//
//	r ‖ own bucket 3 ‖ id                          a root's or a child's record
//	s ‖ id                                         a subject's record
//	x ‖ coarse bucket 2 ‖ subject hash 20 ‖ root   nothing: an entry of the index of subjects
//	e ‖ number 8                                   an event
//	m ‖ name                                       what the store knows of itself
//
// Everything that expires has its time in front, so that an hour of records, or three weeks of index, is dropped as one
// range.
const (
	keyRecord  = 'r'
	keySubject = 's'
	keyIndex   = 'x'
	keyEvent   = 'e'
	keyMeta    = 'm'
)

const (
	coarseShift = 9      // a coarse bucket is 512 hours
	maxCoarse   = 0x7FFF // that of store.NoBucket, never dropped
	indexPrefix = 1 + 2 + 20
)

// recordKey appends the key of a record to b.
func recordKey(b []byte, id store.ID) []byte {
	if id.IsSubject() {
		return id.Append(append(b, keySubject))
	}
	return id.Append(bucketKey(b, id.Bucket()))
}

// bucketKey appends the beginning of all record keys of a bucket to b. For the bucket behind the last it appends the
// end of them all.
func bucketKey(b []byte, k store.Bucket) []byte {
	if k > store.NoBucket {
		return append(b, keyRecord+1)
	}
	return append(b, keyRecord, byte(k>>16), byte(k>>8), byte(k))
}

// rootsKey appends the beginning of the keys of a bucket's roots to b. Other keys of the bucket are those of children
// that end earlier than their roots; they stand behind.
func rootsKey(b []byte, k store.Bucket) []byte {
	return append(bucketKey(b, k), byte(k>>16), byte(k>>8), byte(k))
}

// coarseKey appends the beginning of a coarse bucket's index to b.
func coarseKey(b []byte, coarse int) []byte {
	return append(b, keyIndex, byte(coarse>>8), byte(coarse))
}

// indexKey appends the beginning of the entries of a subject within a coarse bucket to b. subject is the id of the
// subject's record, which anonymous ones have too.
func indexKey(b []byte, coarse int, subject store.ID) []byte {
	var id [32]byte
	return append(coarseKey(b, coarse), subject.Append(id[:0])[3:]...)
}

// indexOf appends the index entry of a root to b.
func indexOf(b []byte, r *store.Record) []byte {
	return r.ID.Append(indexKey(b, int(r.ID.Bucket()>>coarseShift), store.SubjectID(r.Tenant, r.Subject)))
}

func eventKey(b []byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, keyEvent), n)
}

func metaKey(name string) []byte { return append([]byte{keyMeta}, name...) }
