package users

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// address returns the n-th of many addresses, in as many networks.
func address(n int) netip.Addr {
	if n%2 == 0 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], 0x0b000000+uint32(n)<<8)
		return netip.AddrFrom4(b)
	}
	b := [16]byte{0x20, 1}
	binary.BigEndian.PutUint32(b[2:], uint32(n))
	return netip.AddrFrom16(b)
}

// Ten thousand wrong passwords for one account, many at once, from two thousand addresses: a handful is looked at. The
// owner signs in from a browser that has done so before, all the while; and from a new one, in an account's next turn.
// Somebody else is not concerned.
func TestTenThousandWrongPasswords(t *testing.T) { guess(t, quick) }

// BenchmarkTenThousandWrongPasswords is the same with the parameters that are used.
func BenchmarkTenThousandWrongPasswords(b *testing.B) {
	for b.Loop() {
		guess(b, DefaultParams)
	}
}

func guess(t testing.TB, p Params) {
	f := open(t, nil, p)
	f.add("mia")
	f.add("tom")
	v, err := f.verify("mia", good)
	if err != nil {
		t.Fatal(err)
	}
	owner, home := From{Addr: netip.MustParseAddr("198.51.100.7"), Device: v.Device}, From{Addr: netip.MustParseAddr("198.51.100.9")}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began, hashes := f.clock(), f.Stats().Hashes
	var wrong, throttled, busy, owned atomic.Int64
	const tries, guessers = 10_000, 50
	var wg sync.WaitGroup
	for g := range guessers {
		wg.Go(func() {
			for i := range tries / guessers {
				var wait *ThrottledError
				switch _, err := f.Verify(context.Background(), "mia", fmt.Sprint("guess number ", g, i), From{Addr: address(g*40 + i%40)}); {
				case err == ErrWrong:
					wrong.Add(1)
				case errors.As(err, &wait):
					throttled.Add(1)
				case errors.Is(err, ErrBusy): // as many of one account are on the way as may be
					busy.Add(1)
				default:
					t.Errorf("%v", err)
				}
				f.pass(10 * time.Millisecond) // 100 tries in a second
			}
		})
	}
	ended := make(chan struct{})
	var people sync.WaitGroup
	people.Go(func() {
		for {
			if _, err := f.Verify(context.Background(), "mia", good, owner); err != nil {
				t.Errorf("the owner: %v", err)
			}
			if _, err := f.Verify(context.Background(), "tom", good, home); err != nil {
				t.Errorf("somebody else: %v", err)
			}
			owned.Add(1)
			select {
			case <-ended:
				return
			default:
			}
		}
	})
	wg.Wait()
	close(ended)
	people.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d wrong passwords in %v of its time: %d were looked at (%d hashes in all), %d were throttled; the owner signed in %d times meanwhile; the heap grew by %d KB",
		tries, f.clock().Sub(began), wrong.Load(), f.Stats().Hashes-hashes, throttled.Load(), owned.Load(), grown>>10)
	if wrong.Load() > 12 || wrong.Load()+throttled.Load()+busy.Load() != tries {
		t.Errorf("%d passwords were looked at, %d throttled", wrong.Load(), throttled.Load())
	}
	if grown > 2<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	// The owner, with a new device, is told when, and then has a turn.
	fresh := From{Addr: netip.MustParseAddr("203.0.113.5")}
	_, err = f.Verify(t.Context(), "mia", good, fresh)
	var wait *ThrottledError
	if !errors.As(err, &wait) || wait.RetryAfter <= 0 || wait.RetryAfter > accountRule.longest {
		t.Fatalf("from a new device: %v", err)
	}
	f.pass(wait.RetryAfter)
	if v, err = f.Verify(t.Context(), "mia", good, fresh); err != nil || !f.Known("mia", v.Device) {
		t.Errorf("from a new device, in its turn: %v", err)
	}
	// Left alone, it is as it was before.
	f.pass(4 * time.Hour)
	for range accountRule.free {
		if _, err := f.Verify(t.Context(), "mia", bad, fresh); err != ErrWrong {
			t.Errorf("after a while: %v", err)
		}
	}
}

// A day of guessing at one account, by somebody with any number of addresses who waits for every turn.
func TestLongGuessing(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	looked := 0
	for end, i := f.clock().Add(24*time.Hour), 0; f.clock().Before(end); i++ {
		_, err := f.Verify(t.Context(), "mia", bad, From{Addr: address(i)})
		var wait *ThrottledError
		switch {
		case err == ErrWrong:
			if looked++; looked > 1000 {
				t.Fatal("there is no end to it")
			}
		case errors.As(err, &wait):
			f.pass(wait.RetryAfter)
		default:
			t.Fatal(err)
		}
	}
	t.Logf("a day of guessing: %d passwords", looked)
	if looked > 320 || looked < 200 {
		t.Errorf("%d passwords in a day", looked)
	}
}

// One who tries many names from one address, or from one network, is slowed down, whatever the names.
func TestAddress(t *testing.T) {
	f := open(t, nil, quick)
	round := 0
	count := func(from func(i int) netip.Addr) (looked int) {
		round++
		for i := range 2000 {
			if _, err := f.Verify(t.Context(), fmt.Sprint("user", round, "-", i), bad, From{Addr: from(i)}); err == ErrWrong {
				looked++
			}
		}
		return looked
	}
	for name, tt := range map[string]struct {
		from func(i int) netip.Addr
		most int
	}{
		"an address":                  {func(int) netip.Addr { return netip.MustParseAddr("192.0.2.1") }, 30},
		"the same, as IPv6 writes it": {func(int) netip.Addr { return netip.MustParseAddr("::ffff:192.0.2.1") }, 0},
		"with a zone":                 {func(i int) netip.Addr { return netip.MustParseAddr("fe80::1").WithZone(fmt.Sprint(i)) }, 30},
		"a household": {func(i int) netip.Addr {
			b := netip.MustParseAddr("2001:db8:1:2::").As16()
			binary.BigEndian.PutUint64(b[8:], uint64(i)<<32)
			return netip.AddrFrom16(b)
		}, 30},
		"a /24": {func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}) }, 100},
		"a /48": {func(i int) netip.Addr {
			b := netip.MustParseAddr("2001:db8:7::").As16()
			binary.BigEndian.PutUint16(b[6:], uint16(i))
			return netip.AddrFrom16(b)
		}, 100},
	} {
		if name == "the same, as IPv6 writes it" {
			continue // after the first
		}
		if n := count(tt.from); n != tt.most {
			t.Errorf("%s: %d passwords were looked at, want %d", name, n, tt.most)
		}
	}
	if n := count(func(int) netip.Addr { return netip.MustParseAddr("::ffff:192.0.2.1") }); n != 0 {
		t.Errorf("an address as IPv6 writes it is another: %d", n)
	}
	// All whose address is not known are one: to hide it gains nothing.
	if n := count(func(int) netip.Addr { return netip.Addr{} }); n != 30 {
		t.Errorf("without an address: %d", n)
	}
	if n := strings.Count(f.log.String(), "from an address that is not known"); n != 1 {
		t.Errorf("the operator is told %d times", n)
	}
}

// Tries are counted before anything is computed: of any number at once, no more get through than one after the other.
func TestParallelTries(t *testing.T) {
	for _, device := range []bool{false, true} {
		f := open(t, nil, quick)
		f.add("mia")
		from := From{Addr: elsewhere}
		if device {
			v, err := f.verify("mia", good)
			if err != nil {
				t.Fatal(err)
			}
			from.Device = v.Device
		}
		var looked atomic.Int64
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 400 {
			wg.Go(func() {
				<-start
				from := from
				from.Addr = address(i)
				for {
					_, err := f.Verify(context.Background(), "mia", bad, from)
					if err == ErrWrong {
						looked.Add(1)
					}
					if !errors.Is(err, ErrBusy) { // no try
						return
					}
				}
			})
		}
		close(start)
		wg.Wait()
		if looked.Load() != int64(accountRule.free) {
			t.Errorf("device %t: %d of 400 were looked at, want %d", device, looked.Load(), accountRule.free)
		}
	}
}

// Names that nobody has are throttled like others: how long one has to wait tells nothing.
func TestSameDelays(t *testing.T) {
	delays := func(name string) (out []time.Duration) {
		f := open(t, nil, quick)
		f.add("mia")
		for i := range 60 {
			_, err := f.Verify(t.Context(), name, bad, From{Addr: address(i)})
			var wait *ThrottledError
			if errors.As(err, &wait) {
				out = append(out, wait.RetryAfter)
				f.pass(wait.RetryAfter)
			}
		}
		return out
	}
	mia, nobody := delays("mia"), delays("nobody")
	if fmt.Sprint(mia) != fmt.Sprint(nobody) || len(mia) < 10 {
		t.Errorf("a user: %v, nobody: %v", mia, nobody)
	}
	for i := 1; i < 8; i++ {
		if mia[i] <= mia[i-1] {
			t.Errorf("the delays do not grow: %v", mia)
			break
		}
	}
	if mia[len(mia)-1] != accountRule.longest {
		t.Errorf("the longest delay is %v", mia[len(mia)-1])
	}
}

// The browser's own counter: who has stolen a device cookie gets no further than others, and does not keep the owner out
// of another browser.
func TestDeviceThrottled(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	a, _ := f.verify("mia", good)
	b, _ := f.verify("mia", good)
	looked := 0
	for i := range 100 {
		if _, err := f.Verify(t.Context(), "mia", bad, From{Addr: address(i), Device: a.Device}); err == ErrWrong {
			looked++
		}
	}
	if looked != int(deviceRule.free) {
		t.Errorf("%d tries with one cookie", looked)
	}
	if _, err := f.Verify(t.Context(), "mia", good, From{Addr: elsewhere, Device: b.Device}); err != nil {
		t.Errorf("the other browser: %v", err)
	}
	if _, err := f.verify("mia", good); err != nil {
		t.Errorf("a new browser: %v", err)
	}
	// A cookie of somebody else's, or a forged one, is none.
	f.add("tom")
	for i := range 100 {
		f.Verify(t.Context(), "tom", bad, From{Addr: address(i), Device: b.Device})
	}
	var wait *ThrottledError
	if _, err := f.Verify(t.Context(), "tom", good, From{Addr: elsewhere, Device: b.Device}); !errors.As(err, &wait) {
		t.Errorf("with another's cookie: %v", err)
	}
}

// Right passwords do not count, however many.
func TestRightPasswords(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	for range 200 {
		if _, err := f.verify("mia", good); err != nil {
			t.Fatal(err)
		}
	}
	// Nor do they make up for wrong ones: who has an account does not get at others by signing in to it in between.
	f.add("mallory")
	looked := 0
	for i := range 500 {
		if _, err := f.verify(fmt.Sprint("user", i), bad); err == ErrWrong {
			looked++
		}
		f.verify("mallory", good)
	}
	if looked != int(addressRule.free) {
		t.Errorf("%d wrong ones between right ones", looked)
	}
}

// A million names and addresses: the memory is what it was, and what is tried again and again is not forgotten for it.
func TestMemory(t *testing.T) {
	th := newThrottle(defaultSizes)
	now := time.Now()
	for i := range 10 {
		th.take("mia", nil, address(1<<24+i), now)
	}
	if _, err := th.take("mia", nil, address(1<<25), now); err == nil {
		t.Fatal("not throttled")
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	passed := 0
	for i := range 1_000_000 {
		if _, err := th.take(fmt.Sprint("name", i), nil, address(i), now); err == nil {
			passed++
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	size := 32 * (defaultSizes.accounts + defaultSizes.devices + defaultSizes.addresses + defaultSizes.networks)
	t.Logf("a million names and addresses: the tables take %d KB, the heap grew by %d KB; %d were let through", size>>10, grown>>10, passed)
	if grown > 1<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if passed < 999_000 { // a flood throttles nobody else
		t.Errorf("%d of a million were let through", passed)
	}
	if _, err := th.take("mia", nil, address(1<<26), now); err == nil {
		t.Error("the account that was throttled is forgotten")
	}
	runtime.KeepAlive(th)
}

func TestClockSetBack(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	f.pass(24 * time.Hour)
	for range 30 {
		f.pass(time.Minute)
		f.verify("mia", bad)
	}
	f.pass(-24 * time.Hour)
	if _, err := f.verify("mia", good); err != nil {
		t.Errorf("after the clock was set back: %v", err)
	}
}

// A few hashes at once; who waits too long, or is one too many, is told so, and it was no try.
func TestBusy(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	n := cap(f.hasher.slots)
	for range n {
		f.hasher.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var busy atomic.Int64
	most := waitingFor * n
	for i := range most + 10 {
		wg.Go(func() {
			if _, err := f.Verify(ctx, fmt.Sprint("user", i), bad, From{Addr: address(i)}); errors.Is(err, ErrBusy) {
				busy.Add(1)
			} else {
				t.Errorf("%v", err)
			}
		})
	}
	// Those that are too many go, the others wait. Who is on the way out still counts as one who waits, so both
	// numbers must come to rest.
	for until := time.Now().Add(30 * time.Second); busy.Load() != 10 || f.Stats().Waiting != int64(most); runtime.Gosched() {
		if time.Now().After(until) || busy.Load() > 10 {
			t.Fatalf("%d are one too many, %d wait; want 10 and %d", busy.Load(), f.Stats().Waiting, most)
		}
	}
	cancel()
	wg.Wait()
	if busy.Load() != int64(most+10) || f.Stats().Waiting != 0 {
		t.Errorf("%d were busy, %d wait", busy.Load(), f.Stats().Waiting)
	}
	for range 100 { // more than may be wrong
		gone, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := f.Verify(gone, "mia", good, From{Addr: elsewhere}); !errors.Is(err, ErrBusy) {
				t.Error(err)
			}
		})
		for f.Stats().Waiting == 0 {
			runtime.Gosched()
		}
		cancel()
		wg.Wait()
	}
	for range n {
		<-f.hasher.slots
	}
	if _, err := f.verify("mia", good); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// BenchmarkVerify is what a sign-in costs, with the parameters that are used.
func BenchmarkVerify(b *testing.B) {
	f := open(b, nil, DefaultParams)
	f.add("mia")
	b.ResetTimer()
	for b.Loop() {
		if _, err := f.Verify(context.Background(), "mia", good, From{Addr: elsewhere}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkThrottled is what a wrong password costs whose turn has not come.
func BenchmarkThrottled(b *testing.B) {
	f := open(b, nil, quick)
	f.add("mia")
	for range 20 {
		f.verify("mia", bad)
	}
	b.ResetTimer()
	for b.Loop() {
		f.Verify(context.Background(), "mia", bad, From{Addr: elsewhere})
	}
}

// Who has an account, and signs in with the right password over and over, from many addresses and known browsers at once,
// keeps nobody else waiting: others get in all the while.
func TestOneAccountKeepsNobodyOut(t *testing.T) {
	f := open(t, nil, Params{Memory: 512, Time: 1, Threads: 1})
	f.add("mallory")
	f.add("tom")
	passes := make([]string, 40)
	for i := range passes {
		v, err := f.verify("mallory", good)
		if err != nil {
			t.Fatal(err)
		}
		passes[i] = v.Device
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var in, busy atomic.Int64
	for i := range 80 {
		wg.Go(func() {
			for ctx.Err() == nil {
				switch _, err := f.Verify(ctx, "mallory", good, From{Addr: address(i), Device: passes[i%40]}); {
				case err == nil:
					in.Add(1)
				case errors.Is(err, ErrBusy):
					busy.Add(1)
					runtime.Gosched()
				case ctx.Err() == nil:
					t.Errorf("mallory: %v", err)
				}
			}
		})
	}
	for in.Load() == 0 || busy.Load() == 0 {
		runtime.Gosched()
	}
	for range 10 {
		if _, err := f.Verify(t.Context(), "tom", good, From{Addr: elsewhere}); err != nil {
			t.Errorf("tom: %v", err)
		}
		if n := f.Stats().Waiting; n > perName {
			t.Errorf("%d wait at once", n)
		}
	}
	cancel()
	wg.Wait()
	// Nor by changing it over and over.
	v, err := f.Verify(t.Context(), "mallory", good, From{Addr: elsewhere})
	if err != nil {
		t.Fatal(err)
	}
	for range perName {
		f.lanes.enter(lane{name: "mallory", known: true})
	}
	if _, err := f.ChangePassword(t.Context(), v, other, ""); !errors.Is(err, ErrBusy) {
		t.Errorf("one change more: %v", err)
	}
	for range perName {
		f.lanes.leave(lane{name: "mallory", known: true})
	}
	if _, err := f.ChangePassword(t.Context(), v, other, ""); err != nil {
		t.Errorf("a change: %v", err)
	}
	if len(f.lanes.on) != 0 {
		t.Errorf("after it, %v are on the way", f.lanes.on)
	}
}

// One address gets no more than half of the places, whatever the names.
func TestOneAddressKeepsNobodyOut(t *testing.T) {
	f := open(t, nil, quick)
	f.add("tom")
	n := cap(f.hasher.slots)
	for range n {
		f.hasher.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var busy atomic.Int64
	const all = perAddress + 20
	for i := range all {
		wg.Go(func() {
			// As Verify does after the throttle, which lets right passwords through.
			name, from := lane{name: fmt.Sprint("user", i)}, lane{from: network(elsewhere, v4Address, v6Address)}
			if _, _, err := f.compare(ctx, name, from, bad, f.hasher.dummy); errors.Is(err, ErrBusy) && ctx.Err() == nil {
				busy.Add(1)
			}
		})
	}
	for busy.Load()+f.Stats().Waiting < all {
		runtime.Gosched()
	}
	if busy.Load() != 20 {
		t.Errorf("%d of %d are refused", busy.Load(), all)
	}
	if _, err := f.verify("tom", good); !errors.Is(err, ErrBusy) {
		t.Errorf("one more from there: %v", err)
	}
	for range n {
		<-f.hasher.slots
	}
	if _, err := f.Verify(t.Context(), "tom", good, From{Addr: netip.MustParseAddr("203.0.113.5")}); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
	cancel()
	wg.Wait()
}

// Somebody who knew the password has collected passes of hundreds of browsers. After a change of the password they are
// worth nothing; and before it, addresses are counted with them, too.
func TestCollectedPasses(t *testing.T) {
	f := open(t, nil, quick)
	f.add("mia")
	passes := make([]string, 200)
	for i := range passes {
		v, err := f.verify("mia", good)
		if err != nil {
			t.Fatal(err)
		}
		passes[i] = v.Device
	}
	guess := func(from func(i int) netip.Addr) (looked int) {
		for i := range 1000 {
			if _, err := f.Verify(t.Context(), "mia", bad, From{Addr: from(i), Device: passes[i%len(passes)]}); err == ErrWrong {
				looked++
			}
		}
		return looked
	}
	here := netip.MustParseAddr("203.0.113.5")
	if n := guess(func(int) netip.Addr { return here }); n > int(addressRule.free) {
		t.Errorf("from one address %d were looked at", n)
	}
	f.pass(24 * time.Hour)
	if _, err := f.SetPassword(t.Context(), "mia", other); err != nil {
		t.Fatal(err)
	}
	if n := guess(address); n > int(accountRule.free) {
		t.Errorf("after a change of the password %d were looked at", n)
	}
	// The browser that signs in with the new one is known again, by a new pass in place of the old one.
	f.pass(24 * time.Hour)
	v, err := f.Verify(t.Context(), "mia", other, From{Addr: elsewhere, Device: passes[0]})
	if err != nil || v.Device == "" || strings.Contains(v.Device, passes[0]) {
		t.Fatalf("%+v, %v", v, err)
	}
	guess(address)
	if _, err := f.Verify(t.Context(), "mia", other, From{Addr: elsewhere, Device: v.Device}); err != nil {
		t.Errorf("the known browser: %v", err)
	}
}

// A store that hangs is not taken for a crowd: who comes next waits for no place that one who waits for the store holds.
func TestSlowStore(t *testing.T) {
	faulty := storetest.NewFaulty(memstore.New(), nil)
	f := open(t, faulty, quick)
	f.add("mia")
	var hung atomic.Int64
	faulty.SetHook(func(c storetest.Call) storetest.Fault {
		if c.Method == "Get" {
			hung.Add(1)
			return storetest.Fault{HangBefore: true}
		}
		return storetest.Fault{}
	})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	n := cap(f.hasher.slots) + 1
	for i := range n {
		wg.Go(func() {
			if _, err := f.Verify(ctx, fmt.Sprint("user", i), bad, From{Addr: address(i)}); !errors.Is(err, afterlogin.ErrUnavailable) || errors.Is(err, ErrBusy) {
				t.Errorf("%v", err)
			}
		})
	}
	for hung.Load() < int64(n) && f.Stats().Waiting == 0 {
		runtime.Gosched()
	}
	if f.Stats().Waiting != 0 {
		t.Error("somebody waits for a hash, and the store hangs")
	}
	cancel()
	wg.Wait()
}
