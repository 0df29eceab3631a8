package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
)

// Sizes of ids, in bytes. The size tells what an id names.
const (
	rootIDSize    = 3 + 14     // bucket, root
	childIDSize   = 17 + 3 + 6 // root id, own bucket, random
	subjectIDSize = 3 + 20     // 0xFFFFFF, hash of tenant and subject
	subjectOfSize = 17 + 1     // root id, and a byte that makes it another size

	// Partitions is the number of partitions that ids are spread over.
	Partitions = 1024
)

// A Bucket is the hour in which a record's absolute expiry falls, in hours since 1970, rounded up. It stands in front
// of ids so that a store can drop an hour's records as one range. It is for cleaning only: whether a record has expired
// is decided by its Absolute.
type Bucket uint32

// NoBucket is the bucket of what never expires by itself: subjects, and API keys issued without an end.
const NoBucket Bucket = 0xFFFFFF

const hour = 60 * 60 * 1000 // milliseconds

// BucketOf returns the bucket for an absolute expiry in milliseconds since 1970; zero means none.
func BucketOf(absolute int64) Bucket {
	if absolute <= 0 {
		return NoBucket
	}
	return Bucket(min((absolute+hour-1)/hour, int64(NoBucket-1)))
}

// End returns the time, in milliseconds since 1970, from which on nothing in the bucket is valid.
func (b Bucket) End() int64 { return int64(b) * hour }

// An ID names a record. It is comparable, holds no pointer, and is no secret. Its bytes are
//
//	root     bucket 3, root 14
//	child    the root's id 17, own bucket 3, random 6
//	subject  0xFFFFFF, SHA-256("afterlogin/subject/1\0" ‖ u32 tenant ‖ subject)[:20]
//
// The first 10 bits behind the first bucket name the partition. A root with a subject has the partition of its subject
// (see NewRootID), a child that of its root: whatever one request needs stands in one partition.
type ID struct {
	n uint8
	b [childIDSize]byte
}

// NewRootID makes a root's id from 14 random bytes. If the root has a subject, its partition replaces the first 10 of
// the random bits.
func NewRootID(b Bucket, random [14]byte, tenant uint32, subject string) ID {
	id := ID{n: rootIDSize}
	putBucket(id.b[:3], b)
	copy(id.b[3:], random[:])
	if subject != "" {
		s := SubjectID(tenant, subject)
		id.b[3] = s.b[3]
		id.b[4] = s.b[4]&0xC0 | id.b[4]&0x3F
	}
	return id
}

// NewChildID makes the id of a child of root, which may itself be a child's id, from 6 random bytes.
func NewChildID(root ID, b Bucket, random [6]byte) ID {
	id := ID{n: childIDSize}
	copy(id.b[:rootIDSize], root.b[:rootIDSize])
	putBucket(id.b[rootIDSize:], b)
	copy(id.b[rootIDSize+3:], random[:])
	return id
}

// SubjectID returns the id of a subject's record.
func SubjectID(tenant uint32, subject string) ID {
	var buf [96]byte
	msg := append(buf[:0], "afterlogin/subject/1\x00"...)
	msg = binary.BigEndian.AppendUint32(msg, tenant)
	msg = append(msg, subject...)
	sum := sha256.Sum256(msg)
	id := ID{n: subjectIDSize}
	putBucket(id.b[:3], NoBucket)
	copy(id.b[3:], sum[:20])
	return id
}

// SubjectOf returns what stands, in a Get, for the record of the root's subject, whichever that is: so that one read gives
// all that a validation needs. It is the id of no record, and is understood by Get alone. id may be a child's.
func SubjectOf(id ID) ID {
	s := ID{n: subjectOfSize}
	copy(s.b[:rootIDSize], id.b[:rootIDSize])
	return s
}

// IsSubjectOf reports whether SubjectOf made the id. Root returns the root.
func (id ID) IsSubjectOf() bool { return id.n == subjectOfSize }

// ErrBadID is returned by ParseID.
var ErrBadID = errors.New("store: not a record id")

// ParseID turns the bytes of an id back into the id. It accepts the three sizes and nothing else.
func ParseID(b []byte) (ID, error) {
	switch len(b) {
	case rootIDSize, childIDSize:
	case subjectIDSize:
		if b[0] != 0xFF || b[1] != 0xFF || b[2] != 0xFF {
			return ID{}, ErrBadID
		}
	default:
		return ID{}, ErrBadID
	}
	id := ID{n: uint8(len(b))}
	copy(id.b[:], b)
	return id, nil
}

// IsZero reports whether the id is the zero ID, which names nothing.
func (id ID) IsZero() bool { return id.n == 0 }

// IsRoot reports whether the id names a root.
func (id ID) IsRoot() bool { return id.n == rootIDSize }

// IsChild reports whether the id names a child.
func (id ID) IsChild() bool { return id.n == childIDSize }

// IsSubject reports whether the id names a subject's record.
func (id ID) IsSubject() bool { return id.n == subjectIDSize }

// Root returns the id of the root that the record lives under: itself, unless it is a child.
func (id ID) Root() ID {
	if id.n != childIDSize && id.n != subjectOfSize {
		return id
	}
	r := ID{n: rootIDSize}
	copy(r.b[:rootIDSize], id.b[:rootIDSize])
	return r
}

// Bucket returns the record's own bucket.
func (id ID) Bucket() Bucket {
	b := id.b[:3]
	if id.n == childIDSize {
		b = id.b[rootIDSize : rootIDSize+3]
	}
	return Bucket(b[0])<<16 | Bucket(b[1])<<8 | Bucket(b[2])
}

// Partition returns the partition, from 0 to Partitions-1.
func (id ID) Partition() int { return int(id.b[3])<<2 | int(id.b[4])>>6 }

// Len returns the number of bytes: 17, 23 or 26, and 0 for the zero ID.
func (id ID) Len() int { return int(id.n) }

// Append appends the bytes of the id to b.
func (id ID) Append(b []byte) []byte { return append(b, id.b[:id.n]...) }

// Hash returns 8 well-spread bytes of the id, for choosing a shard. It is not a digest.
func (id ID) Hash() uint64 {
	h := binary.LittleEndian.Uint64(id.b[5:13])
	if id.n == childIDSize {
		h ^= binary.LittleEndian.Uint64(id.b[18:26])
	}
	return h
}

// Compare orders ids by their bytes, a prefix first.
func (id ID) Compare(o ID) int { return bytes.Compare(id.b[:id.n], o.b[:o.n]) }

// String returns the bytes in hexadecimal, for messages.
func (id ID) String() string { return hex.EncodeToString(id.b[:id.n]) }

func putBucket(dst []byte, b Bucket) {
	dst[0], dst[1], dst[2] = byte(b>>16), byte(b>>8), byte(b)
}
