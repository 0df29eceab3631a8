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
	// One browser that the user has signed in with before, since the password was set.
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
	t  *throttle
	of [4]counted // of the account or the device, the address and its network; and of the account after all
	n  int
}

// counted is a key in one of the tables.
type counted struct {
	in  *table
	key uint64
}

func (c counted) wait(at int64) int64 { return c.in.wait(c.key, at) }

func (y *try) count(c counted, at int64) {
	c.in.count(c.key, at)
	y.of[y.n] = c
	y.n++
}

// take counts a try, before anything is computed for it, so that of many at once no more get through than one after the
// other: for the device, if there is one, which is what a cookie proved, and for the account otherwise; and for the address
// and its network in any case. The error is a *ThrottledError.
func (t *throttle) take(name string, device []byte, from netip.Addr, now time.Time) (try, error) {
	at := now.UnixMilli()
	y := try{t: t}
	t.mu.Lock()
	defer t.mu.Unlock()
	who := t.account(name)
	if device != nil {
		who = counted{&t.devices, maphash.Bytes(t.seed, device)}
	}
	places, n := t.places(from)
	var wait int64
	for _, p := range places[:n] {
		wait = max(wait, p.wait(at))
	}
	if wait == 0 {
		// Counted even if the account's turn has not come: who asks for it without waiting soon has to.
		for _, p := range places[:n] {
			y.count(p, at)
		}
	}
	if wait = max(wait, who.wait(at)); wait > 0 {
		return try{}, throttled(wait)
	}
	y.count(who, at)
	return y, nil
}

// unknown counts a try for the account after all: what the cookie proved was of another password. The error is a
// *ThrottledError.
func (y *try) unknown(name string, now time.Time) error {
	at := now.UnixMilli()
	y.t.mu.Lock()
	defer y.t.mu.Unlock()
	c := y.t.account(name)
	if wait := c.wait(at); wait > 0 {
		return throttled(wait)
	}
	y.count(c, at)
	return nil
}

func throttled(ms int64) error {
	return &ThrottledError{RetryAfter: time.Duration((ms+999)/1000) * time.Second}
}

func (t *throttle) account(name string) counted {
	return counted{&t.accounts, maphash.String(t.seed, name)}
}

// The networks that are counted as one: an address, and its neighbours.
const (
	v4Address, v6Address = 32, 64
	v4Network, v6Network = 24, 48
)

// places returns what a try from the address is counted for. All whose address is not known are counted as one address:
// whoever can hide it must not gain by that.
func (t *throttle) places(from netip.Addr) (out [2]counted, n int) {
	address := network(from, v4Address, v6Address)
	out[0] = counted{&t.addresses, t.place(address)}
	if !address.IsValid() {
		return out, 1
	}
	out[1] = counted{&t.networks, t.place(network(from, v4Network, v6Network))}
	return out, 2
}

func (t *throttle) place(p netip.Prefix) uint64 {
	if !p.IsValid() {
		return maphash.String(t.seed, "nowhere")
	}
	b := p.Addr().As16()
	return maphash.Bytes(t.seed, binary.BigEndian.AppendUint32(b[:], uint32(p.Bits())))
}

// network returns the network that the address is in, the zero one for the zero address.
func network(a netip.Addr, v4, v6 int) netip.Prefix {
	a = a.Unmap().WithZone("")
	if !a.IsValid() {
		return netip.Prefix{}
	}
	bits := v4
	if a.Is6() {
		bits = v6
	}
	p, err := a.Prefix(bits)
	if err != nil {
		panic("users: " + err.Error()) // the address is valid, and long enough
	}
	return p
}

// back forgets the try. It may be called once.
func (y *try) back() {
	y.t.mu.Lock()
	defer y.t.mu.Unlock()
	for _, c := range y.of[:y.n] {
		c.in.forget(c.key)
	}
	y.n = 0
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
