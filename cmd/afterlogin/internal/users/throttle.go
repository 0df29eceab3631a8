package users

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// A ThrottledError says that the password was not looked at, since there were too many wrong ones.
type ThrottledError struct {
	// RetryAfter is how long to wait, in whole seconds, at least one.
	RetryAfter time.Duration
}

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("too many wrong passwords: try again in %v", e.RetryAfter)
}

// A rule says how wrong passwords are answered that are counted together: so many at once, then one after a delay that
// doubles up to the longest. One is forgiven after each interval.
type rule struct {
	free    uint32
	first   time.Duration
	longest time.Duration
	forgive time.Duration
}

// The rules. Each says what one that guesses gets in the long run: one try after each longest delay.
var (
	// All browsers together that the user has not signed in with before: 12 an hour. That is far under what finds a
	// password that CheckPassword lets through, and the owner with a new device still has a turn.
	accountRule = rule{free: 5, first: time.Second, longest: 5 * time.Minute, forgive: 10 * time.Minute}
	// One browser that the user has signed in with before.
	deviceRule = rule{free: 5, first: time.Second, longest: 5 * time.Minute, forgive: 10 * time.Minute}
	// An address (IPv6: the network of a household, /64), whatever the name. Many people may share one.
	addressRule = rule{free: 30, first: time.Second, longest: 5 * time.Minute, forgive: 2 * time.Minute}
	// Its neighbours, which one who guesses often has, too: /24, and /48 of IPv6.
	networkRule = rule{free: 100, first: time.Second, longest: time.Minute, forgive: 15 * time.Second}
)

// sizes are how many of each are remembered: a power of two.
type sizes struct{ accounts, devices, addresses, networks int }

// defaultSizes take 9 MB, however many names and addresses are tried.
var defaultSizes = sizes{accounts: 1 << 16, devices: 1 << 14, addresses: 1 << 17, networks: 1 << 16}

// throttle counts wrong passwords. What it knows is of one node and of this run of it.
type throttle struct {
	mu        sync.Mutex
	seed      maphash.Seed // nobody outside can say which names and addresses share a place
	accounts  table
	devices   table
	addresses table
	networks  table
}

func newThrottle(n sizes) *throttle {
	return &throttle{
		seed:     maphash.MakeSeed(),
		accounts: newTable(n.accounts, accountRule), devices: newTable(n.devices, deviceRule),
		addresses: newTable(n.addresses, addressRule), networks: newTable(n.networks, networkRule),
	}
}

// A try is what was counted for one password, to be given back if it was right, or if nobody looked at it.
type try struct {
	t    *throttle
	keys [3]uint64 // of the account, the address, the network; or of the device
	n    int
}

// take counts a try, before anything is computed for it, so that of many at once no more get through than one after the
// other. With a device, which is what a cookie proved, only that is counted. The error is a *ThrottledError.
func (t *throttle) take(name string, device []byte, from netip.Addr, now time.Time) (try, error) {
	at := now.UnixMilli()
	y := try{t: t}
	t.mu.Lock()
	defer t.mu.Unlock()
	if device != nil {
		y.keys[0], y.n = maphash.Bytes(t.seed, device), 1
		if wait := t.devices.wait(y.keys[0], at); wait > 0 {
			return try{}, throttled(wait)
		}
		t.devices.count(y.keys[0], at)
		return y, nil
	}
	y.keys[0], y.n = maphash.String(t.seed, name), 1
	var wait int64
	if from = from.Unmap().WithZone(""); from.IsValid() {
		y.keys[1], y.keys[2], y.n = t.network(from, 32, 64), t.network(from, 24, 48), 3
		wait = max(t.addresses.wait(y.keys[1], at), t.networks.wait(y.keys[2], at))
		if wait == 0 {
			// Counted even if the account's turn has not come: who asks for it without waiting soon has to.
			t.addresses.count(y.keys[1], at)
			t.networks.count(y.keys[2], at)
		}
	}
	wait = max(wait, t.accounts.wait(y.keys[0], at))
	if wait > 0 {
		return try{}, throttled(wait)
	}
	t.accounts.count(y.keys[0], at)
	return y, nil
}

func throttled(ms int64) error {
	return &ThrottledError{RetryAfter: time.Duration((ms+999)/1000) * time.Second}
}

// network returns the key of the network that the address is in.
func (t *throttle) network(a netip.Addr, v4, v6 int) uint64 {
	bits := v4
	if a.Is6() {
		bits = v6
	}
	p, err := a.Prefix(bits)
	if err != nil {
		panic("users: " + err.Error()) // the address is valid, and long enough
	}
	b := p.Addr().As16()
	return maphash.Bytes(t.seed, binary.BigEndian.AppendUint32(b[:], uint32(bits)))
}

// back forgets the try. It may be called once.
func (y try) back() {
	if y.n == 0 {
		return
	}
	t := y.t
	t.mu.Lock()
	defer t.mu.Unlock()
	switch y.n {
	case 1:
		// Without an address, or with a device: a key is in one of the two tables, by 64 random bits.
		t.devices.forget(y.keys[0])
		t.accounts.forget(y.keys[0])
	default:
		t.accounts.forget(y.keys[0])
		t.addresses.forget(y.keys[1])
		t.networks.forget(y.keys[2])
	}
}

// ways is how many keys share a place of a table.
const ways = 8

// A table counts by key in an amount of memory that does not grow. If a place is full the key with the least to remember
// gives way: a flood of keys that were tried once each does not wash out one that was tried often.
type table struct {
	rule  rule
	slots []slot
}

// A slot is what is known of a key. A zero count is none.
type slot struct {
	key   uint64
	since int64 // when fails was brought up to date, in ms
	next  int64 // before this time it is not its turn, in ms
	fails uint32
}

func newTable(n int, r rule) table { return table{r, make([]slot, max(n, ways))} }

// find returns the key's slot, or nil.
func (t *table) find(key uint64) *slot {
	at := int(key%uint64(len(t.slots)/ways)) * ways
	for i := range t.slots[at : at+ways] {
		if s := &t.slots[at+i]; s.fails > 0 && s.key == key {
			return s
		}
	}
	return nil
}

// wait returns after how many milliseconds it is the key's turn; 0: now.
func (t *table) wait(key uint64, now int64) int64 {
	s := t.find(key)
	if s == nil {
		return 0
	}
	left := s.next - now
	if left > t.rule.longest.Milliseconds() { // the clock was set back
		return 0
	}
	return max(left, 0)
}

// count notes a try.
func (t *table) count(key uint64, now int64) {
	s := t.find(key)
	if s == nil {
		s = t.place(key, now)
		*s = slot{key: key, since: now}
	}
	t.age(s, now)
	if s.fails < t.most() {
		s.fails++
	}
	if s.fails >= t.rule.free {
		s.next = now + t.delay(s.fails-t.rule.free).Milliseconds()
	}
}

// delay is how long it is until the next turn after n tries beyond those that are free.
func (t *table) delay(n uint32) time.Duration {
	d := t.rule.first
	for ; n > 0 && d < t.rule.longest; n-- {
		d *= 2
	}
	return min(d, t.rule.longest)
}

// most is where counting ends: the delay does not grow any more, and who gives up must be forgiven some day.
func (t *table) most() uint32 {
	n := uint32(0)
	for d := t.rule.first; d < t.rule.longest; d *= 2 {
		n++
	}
	return t.rule.free + n + 2
}

// age forgives what is old.
func (t *table) age(s *slot, now int64) {
	each := t.rule.forgive.Milliseconds()
	if now < s.since { // the clock was set back
		s.since = now
	}
	n := (now - s.since) / each
	s.since += n * each
	s.fails -= uint32(min(n, int64(s.fails)))
}

// place returns a slot for a new key: an empty one, or that with the least to remember.
func (t *table) place(key uint64, now int64) *slot {
	at := int(key%uint64(len(t.slots)/ways)) * ways
	var least *slot
	for i := range t.slots[at : at+ways] {
		s := &t.slots[at+i]
		if s.fails > 0 {
			t.age(s, now)
		}
		if s.fails == 0 {
			return s
		}
		if least == nil || s.fails < least.fails || s.fails == least.fails && s.since < least.since {
			least = s
		}
	}
	return least
}

// forget takes a try back.
func (t *table) forget(key uint64) {
	s := t.find(key)
	if s == nil {
		return
	}
	s.fails--
	if s.fails < t.rule.free {
		s.next = 0
	}
}
