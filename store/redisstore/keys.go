package redisstore

import (
	"encoding/binary"
	"strings"

	"github.com/afterlogin/afterlogin/store"
)

// groups is the number of groups that the partitions are divided into. Everything of a group is in one hash slot: few
// enough that all change logs can be read four times a second, enough for a cluster of 64 masters.
const groups = 64

// groupOf returns the group of a record.
func groupOf(id store.ID) int { return partitionGroup(id.Partition()) }

func partitionGroup(p int) int { return p / (store.Partitions / groups) }

// tags are the hash tags of the groups: strings whose slots lie next to g*256+128, so that masters with equal shares of
// the slots have equal shares of the groups.
var tags = strings.Fields(`
	53t j3j if5 kec 574 74b akm 6bk 96a frw 0ip oin d1i 38o 0m0 2nf
	he6 box 40w c9q hav 7ah 447 67a 1js fcu 0xr gqt 1n3 3me e2j gu4
	712 52d cmk 4dm 75r h5l blk ice 3y7 1za 2k6 8ax wu7 931 2ov 8e8
	7d8 5gn 621 41g jc0 qkn 66q i6o 3h5 1kc 2z4 0yb 3lu des o94 802`)

// slotCount is the number of hash slots of a cluster.
const slotCount = 16384

// slots are the hash slots of the groups.
var slots = func() (s [groups]int) {
	for g, tag := range tags {
		s[g] = int(crc16(tag)) % slotCount
	}
	return s
}()

// crc16 is CRC-16/XMODEM, which Redis Cluster assigns slots by.
func crc16(s string) (c uint16) {
	for i := range len(s) {
		c ^= uint16(s[i]) << 8
		for range 8 {
			if c&0x8000 != 0 {
				c = c<<1 ^ 0x1021
			} else {
				c <<= 1
			}
		}
	}
	return c
}

// keys make the names of the keys. Behind "prefix:{tag}:" stands
//
//	r:<id>            the record, encoded by store.AppendRecord; behind a root with a subject, the hash in that one's id
//	t:<tenant u32>    a sorted set of the tenant's roots, all with score 0, so that they are in the order of their ids
//	s:<subject id>    the same of a subject's roots
//	n                 a set of the tenants that have a t
//	c                 the change log, a stream: of which root was changed, and by whom
//	e                 the events, a stream
//	v                 the layout's version
//	w                 what Load writes to, so that there is something to wait for
type keys struct {
	group [groups]string
}

func newKeys(prefix string) (k keys) {
	for g := range k.group {
		k.group[g] = prefix + ":{" + tags[g] + "}:"
	}
	return k
}

func (k *keys) record(id store.ID) string {
	var b [64]byte
	return string(id.Append(append(append(b[:0], k.group[groupOf(id)]...), "r:"...)))
}

func (k *keys) tenant(g int, tenant uint32) string {
	var b [64]byte
	return string(binary.BigEndian.AppendUint32(append(append(b[:0], k.group[g]...), "t:"...), tenant))
}

// subject returns the key of the subject's roots. It is in the subject's group.
func (k *keys) subject(id store.ID) string {
	var b [64]byte
	return string(id.Append(append(append(b[:0], k.group[groupOf(id)]...), "s:"...)))
}

func (k *keys) tenants(g int) string { return k.group[g] + "n" }
func (k *keys) changes(g int) string { return k.group[g] + "c" }
func (k *keys) events(g int) string  { return k.group[g] + "e" }
func (k *keys) layout(g int) string  { return k.group[g] + "v" }
func (k *keys) loaded(g int) string  { return k.group[g] + "w" }

// parseRecord returns the id in a record's key of group g.
func (k *keys) parseRecord(g int, key string) (store.ID, bool) {
	raw, ok := strings.CutPrefix(key, k.group[g]+"r:")
	if !ok {
		return store.ID{}, false
	}
	id, err := store.ParseID([]byte(raw))
	return id, err == nil && groupOf(id) == g
}

// groupOfKey returns the group whose key this is, of one of our own.
func (k *keys) groupOfKey(key string) (int, bool) {
	open := strings.IndexByte(key, '{')
	if open < 0 || len(key) < open+6 {
		return 0, false
	}
	g, ok := tagGroup[key[open+1:open+4]]
	return g, ok && strings.HasPrefix(key, k.group[g])
}

var tagGroup = func() map[string]int {
	m := make(map[string]int, groups)
	for g, tag := range tags {
		m[tag] = g
	}
	return m
}()

// kept is how long records stay behind the end of their bucket: for skewed clocks, and for whoever asks why a session
// ended.
const kept = 3 * 60 * 60 * 1000 // milliseconds

// expiry returns when the server may forget a record with this bucket, in milliseconds since 1970; 0 if never.
func expiry(b store.Bucket) int64 {
	if b == store.NoBucket {
		return 0
	}
	return b.End() + kept
}
