package roster

import (
	"encoding/base64"
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/device"
)

// rootID is the id of a root, without the prefix of its kind.
type rootID [17]byte

// parseID returns the id of a session, a grant or an API key that stands by itself, and false for everything else.
func parseID(handle afterlogin.SessionID) (id rootID, ok bool) {
	head, text, _ := strings.Cut(string(handle), "_")
	if len(text) != base64.RawURLEncoding.EncodedLen(len(id)) || head != "ses" && head != "key" && head != "grant" {
		return id, false
	}
	n, err := base64.RawURLEncoding.Decode(id[:], []byte(text))
	return id, err == nil && n == len(id)
}

// handle is the inverse of parseID.
func handle(kind afterlogin.Kind, id *rootID) afterlogin.SessionID {
	prefix := "ses_"
	switch kind {
	case afterlogin.KindAPIKey:
		prefix = "key_"
	case afterlogin.KindRefresh:
		prefix = "grant_"
	}
	return afterlogin.SessionID(prefix + base64.RawURLEncoding.EncodeToString(id[:]))
}

// stamp is a time in milliseconds since 1970; 0: none.
type stamp [6]byte

func stampOf(t time.Time) (s stamp) {
	if !t.IsZero() {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(max(t.UnixMilli(), 1)))
		copy(s[:], b[2:])
	}
	return s
}

func (s *stamp) millis() int64 {
	return int64(uint64(binary.BigEndian.Uint16(s[:]))<<32 | uint64(binary.BigEndian.Uint32(s[2:])))
}

func (s *stamp) time() time.Time {
	if ms := s.millis(); ms != 0 {
		return time.UnixMilli(ms).UTC()
	}
	return time.Time{}
}

// Flags of a row.
const (
	taken     = 1 << iota // the row is in use
	over                  // ended; why says why
	frozen                // on hold
	hasOrigin             // it came from a session
	hasAddr               // addr is set
	visited               // the scan under way, or the last one, has seen it
	touched               // it is newer than that scan
)

// row is what is kept of one root. It holds no pointer, so that the garbage collector never looks at a million of them.
type row struct {
	id                      rootID
	kind                    byte
	flags                   uint8
	why                     uint8 // code of a reason
	created, absolute, seen stamp
	policy                  uint16 // a policy's name and idle limit
	client, name, agent     uint16
	methods, scopes         uint16
	addr                    [16]byte
	subject                 uint32 // a place in names
	next, prev              uint32 // of the same subject
}

const (
	chunkBits = 13
	chunkRows = 1 << chunkBits
)

// table is the index: rows in chunks, found by id and by subject. Whoever uses it holds the roster's lock.
type table struct {
	chunks [][]row
	rows   int      // in use
	top    uint32   // rows below it have been in use
	free   []uint32 // below top, and not in use
	slots  []uint32 // of ids: open addressing; row+1, 0: free
	seed   maphash.Seed

	names    names
	policies words
	idle     []int64 // by policy code: the idle limit in milliseconds, 0: none
	policy   []string
	clients  words
	labels   words
	agents   words
	devices  []string // by agent code: agent and name of the device in lower case
	methods  lists
	scopes   lists
	reasons  words
}

func newTable() *table {
	return &table{
		slots: make([]uint32, 1<<8), seed: maphash.MakeSeed(), names: newNames(),
		policies: newWords(), idle: []int64{0}, policy: []string{""}, clients: newWords(), labels: newWords(), agents: newWords(), devices: []string{""},
		methods: newLists(), scopes: newLists(), reasons: newWords(),
	}
}

func (t *table) at(i uint32) *row { return &t.chunks[i>>chunkBits][i&(chunkRows-1)] }

func (t *table) slot(id *rootID) int {
	return int(maphash.Bytes(t.seed, id[3:])) & (len(t.slots) - 1)
}

// find returns the row of the id, or noRow.
func (t *table) find(id *rootID) uint32 {
	for i := t.slot(id); t.slots[i] != 0; i = (i + 1) & (len(t.slots) - 1) {
		if r := t.slots[i] - 1; t.at(r).id == *id {
			return r
		}
	}
	return noRow
}

// put writes what is known of a session now, and returns its row.
func (t *table) put(s *afterlogin.Session, id rootID) *row {
	i := t.find(&id)
	if i == noRow {
		i = t.add(id, s.Subject)
	}
	r := t.at(i)
	r.kind = byte(s.Kind)
	r.flags = r.flags & (taken | visited | touched)
	r.created, r.absolute = stampOf(s.Created), stampOf(s.Absolute)
	if seen := stampOf(s.LastSeen); seen.millis() > r.seen.millis() {
		r.seen = seen // an event may have told of a later use than the store has
	}
	r.policy = t.policyCode(s)
	r.client, _ = t.clients.code(s.Client)
	r.name, _ = t.labels.code(s.Name)
	r.agent = t.agentCode(s.Device.UserAgent)
	r.methods, r.scopes = t.methods.code(s.Auth.Methods), t.scopes.code(s.Scopes)
	if a := s.Device.Addr; a.IsValid() {
		r.flags |= hasAddr
		r.addr = a.As16()
	}
	if s.Origin != "" {
		r.flags |= hasOrigin
	}
	r.why = 0
	if !s.Ended.IsZero() {
		t.end(r, s.Why)
	} else if s.Frozen() {
		r.flags |= frozen
		r.why = t.reason(s.Why)
	}
	return r
}

// reason returns the code of a reason. There are few, and 255 when strangers' texts are among them.
func (t *table) reason(why afterlogin.Reason) uint8 {
	if c, ok := t.reasons.codes[string(why)]; ok {
		return uint8(c)
	}
	if len(t.reasons.texts) >= unknownReason {
		return unknownReason
	}
	c, _ := t.reasons.code(string(why))
	return uint8(c)
}

const unknownReason = 0xFF

func (t *table) end(r *row, why afterlogin.Reason) {
	r.flags = r.flags&^frozen | over
	r.why = t.reason(why)
}

// policyCode stands for a policy and its idle limit. A limit that reaches as far as the absolute one is none.
func (t *table) policyCode(s *afterlogin.Session) uint16 {
	var idle int64
	if !s.Idle.IsZero() && !s.Idle.Equal(s.Absolute) {
		idle = s.Idle.Sub(s.LastSeen).Milliseconds()
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(idle))
	c, fresh := t.policies.code(s.Policy + string(b[:]))
	if fresh {
		t.idle, t.policy = append(t.idle, idle), append(t.policy, s.Policy)
	}
	return c
}

func (t *table) agentCode(agent string) uint16 {
	c, fresh := t.agents.code(agent)
	if fresh {
		t.devices = append(t.devices, strings.ToLower(device.Name(agent)))
	}
	return c
}

// add makes a row.
func (t *table) add(id rootID, subject string) uint32 {
	if (t.rows+1)*4 > len(t.slots)*3 {
		t.rehash(len(t.slots) * 2)
	}
	var i uint32
	if n := len(t.free); n > 0 {
		i, t.free = t.free[n-1], t.free[:n-1]
	} else {
		i = t.top
		if t.top++; int(i>>chunkBits) == len(t.chunks) {
			t.chunks = append(t.chunks, make([]row, chunkRows))
		}
	}
	r := t.at(i)
	*r = row{id: id, flags: taken, prev: noRow, next: noRow, subject: noName}
	if subject != "" {
		r.subject = t.names.add(subject)
		if r.next = t.names.first(r.subject); r.next != noRow {
			t.at(r.next).prev = i
		}
		t.names.setFirst(r.subject, i)
	}
	t.rows++
	t.hold(i)
	return i
}

func (t *table) hold(i uint32) {
	at := t.slot(&t.at(i).id)
	for t.slots[at] != 0 {
		at = (at + 1) & (len(t.slots) - 1)
	}
	t.slots[at] = i + 1
}

func (t *table) rehash(size int) {
	t.slots = make([]uint32, size)
	for i := range t.top {
		if t.at(i).flags&taken != 0 {
			t.hold(i)
		}
	}
}

// remove forgets a row.
func (t *table) remove(i uint32) {
	r := t.at(i)
	t.release(&r.id)
	if r.subject != noName {
		if r.next != noRow {
			t.at(r.next).prev = r.prev
		}
		if r.prev != noRow {
			t.at(r.prev).next = r.next
		} else if t.names.setFirst(r.subject, r.next); r.next == noRow {
			t.names.drop(r.subject)
		}
	}
	*r = row{}
	t.free = append(t.free, i)
	t.rows--
}

// release takes an id out of the slots and closes the gap behind it.
func (t *table) release(id *rootID) {
	mask := len(t.slots) - 1
	gap := t.slot(id)
	for t.at(t.slots[gap]-1).id != *id {
		gap = (gap + 1) & mask
	}
	for next := (gap + 1) & mask; t.slots[next] != 0; next = (next + 1) & mask {
		home := t.slot(&t.at(t.slots[next] - 1).id)
		if (next-home)&mask >= (next-gap)&mask { // it would rather stand in the gap
			t.slots[gap], gap = t.slots[next], next
		}
	}
	t.slots[gap] = 0
}

// compact writes the names anew, without those that nobody needs.
func (t *table) compact() {
	old := t.names
	t.names = newNames()
	for i := range t.top {
		r := t.at(i)
		if r.flags&taken == 0 || r.subject == noName || r.prev != noRow {
			continue
		}
		place := t.names.add(string(old.text(r.subject)))
		t.names.setFirst(place, i)
		for j := i; j != noRow; j = t.at(j).next {
			t.at(j).subject = place
		}
	}
}

// standing says whether the row has ended, on purpose or by time, and why if that was by time. perhaps says that it may
// have been used since the index heard of it.
func (t *table) standing(r *row, now int64) (ended, perhaps bool, why afterlogin.Reason) {
	switch abs := r.absolute.millis(); {
	case r.flags&over != 0:
		return true, false, ""
	case abs != 0 && now >= abs:
		return true, false, afterlogin.ReasonExpired
	case r.policy == unknown:
		return false, true, ""
	}
	if idle := t.idle[r.policy]; idle != 0 && now >= r.seen.millis()+idle {
		return true, true, afterlogin.ReasonIdle
	}
	return false, false, ""
}

// byTime reports whether a row that is over is so by time, as far as the index knows, and not on purpose.
func (t *table) byTime(r *row) bool {
	if r.flags&over == 0 {
		return true
	}
	if r.why == unknownReason {
		return true
	}
	why := t.whyOf(r)
	return why == afterlogin.ReasonExpired || why == afterlogin.ReasonIdle
}

func (t *table) subjectOf(r *row) string {
	if r.subject == noName {
		return ""
	}
	return string(t.names.text(r.subject))
}

func (t *table) addrOf(r *row) netip.Addr {
	if r.flags&hasAddr == 0 {
		return netip.Addr{}
	}
	return netip.AddrFrom16(r.addr).Unmap()
}

// rowSize is the size of a row, and rowBytes about what the table takes in all.
const rowSize = 80

func (t *table) bytes() int {
	n := len(t.chunks)*chunkRows*rowSize + 4*len(t.slots) + 4*cap(t.free) + t.names.size()
	for _, w := range []*words{&t.policies, &t.clients, &t.labels, &t.agents, &t.methods.words, &t.scopes.words} {
		n += w.size()
	}
	return n
}
