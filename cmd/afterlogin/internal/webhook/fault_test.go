package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
	"github.com/afterlogin/afterlogin/store/redisstore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// A store of which calls fail, before and after they happened, and that is away at times, loses no event, and none of
// them comes under two ids. The receiver is away at times, too, and the server dies.
func TestFaults(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := memstore.New()
				faulty := storetest.NewFaulty(mem, nil)
				f := newFixture(t, mem) // what happens, happens
				delivering, err := afterlogin.New(afterlogin.Config{Store: faulty, Keys: f.ring, Issuer: "https://auth.example"})
				if err != nil {
					t.Fatal(err)
				}
				defer delivering.Close()
				s := f.server(Options{})
				f.add(s, "http://localhost/hooks")
				s.Close()
				s = f.server(Options{Authority: delivering})
				r := newReceiver(t)
				up := f.net.listen("localhost:80", r)
				random := storetest.Random(seed, 0.1, false)
				faulty.SetHook(random)
				const n = 400
				for k := range n {
					switch k {
					case 50, 250:
						up()
						up = nil
					case 150, 300:
						up = f.net.listen("localhost:80", r)
					case 100, 200:
						faulty.SetHook(func(storetest.Call) storetest.Fault { return storetest.Fault{Before: storetest.ErrFault} })
					case 120, 230:
						faulty.SetHook(random)
					case 170:
						s.die()
						s = f.server(Options{Authority: delivering})
					case 350:
						s.Close()
						s = f.server(Options{Authority: delivering})
					}
					f.revoke(fmt.Sprint("u", k))
					time.Sleep(300 * time.Millisecond)
				}
				faulty.SetHook(nil)
				time.Sleep(15 * time.Minute)
				var distinct []string
				for _, subject := range r.subjects() {
					if subject != "" && !slices.Contains(distinct, subject) {
						distinct = append(distinct, subject)
					}
				}
				if !slices.Equal(distinct, numbered(0, n)) {
					t.Errorf("%d of %d arrived: %v", len(distinct), n, distinct)
				}
				if ids := r.ids(); len(ids) != n {
					t.Errorf("%d ids of %d events; %v", len(ids), n, r.types())
				}
				t.Logf("%d events were sent %d times", n, len(r.all()))
				s.Close()
				up()
			})
		})
	}
}

// Whoever is slow for so long that the lease is over stops at once, and writes over nothing that the next one wrote.
func TestTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memstore.New()
		var mu sync.Mutex
		hang := make(chan struct{})
		hanging := false
		faulty := storetest.NewFaulty(mem, nil)
		f := newFixture(t, mem)
		slow, err := afterlogin.New(afterlogin.Config{Store: stuck{faulty, func(ctx context.Context) {
			mu.Lock()
			h := hanging
			mu.Unlock()
			if h {
				<-hang // whatever the context says
			}
		}}, Keys: f.ring})
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		one := f.server(Options{Authority: slow, Node: "one"})
		r := newReceiver(t)
		h, _ := f.add(one, "http://localhost/hooks") // nobody is there yet
		f.revoke("u0")
		time.Sleep(3 * time.Second)
		mu.Lock()
		hanging = true
		mu.Unlock()
		f.revoke("u1") // which the first one cannot park
		two := f.server(Options{Authority: f.a, Node: "two"})
		time.Sleep(30 * time.Second)
		f.revoke("u2")
		time.Sleep(2 * time.Second)
		hook, _ := two.Webhook(t.Context(), h.ID)
		if hook.Server != "two" || hook.Waiting != 3 {
			t.Fatalf("%+v", hook)
		}
		mu.Lock()
		hanging = false
		mu.Unlock()
		close(hang) // now it writes what it had in hand
		time.Sleep(2 * time.Second)
		f.revoke("u3")
		time.Sleep(2 * time.Second)
		defer f.net.listen("localhost:80", r)()
		time.Sleep(10 * time.Minute)
		if got := r.subjects(); !slices.Equal(got, numbered(0, 4)) || len(r.twice()) > 0 {
			t.Errorf("received %v", got)
		}
		if hook, _ := one.Webhook(t.Context(), h.ID); hook.Server != "two" {
			t.Errorf("%+v", hook)
		}
	})
}

// stuck is a store whose writes wait for the hook.
type stuck struct {
	store.Store
	hook func(context.Context)
}

func (s stuck) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	s.hook(ctx)
	return s.Store.Apply(context.WithoutCancel(ctx), root, ops...)
}

// Two servers with connections of their own to one Redis deliver once, and go on when one of them is gone.
func TestTwoServersOnRedis(t *testing.T) {
	p, err := servers.StartRedis(t.TempDir(), "appendonly yes")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	ring := keyring.New()
	open := func() (*afterlogin.Authority, func()) {
		s, err := redisstore.Open(context.Background(), "redis://"+p.Addr, redisstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		a, err := afterlogin.New(afterlogin.Config{Store: s, Keys: ring})
		if err != nil {
			t.Fatal(err)
		}
		return a, func() { a.Close(); s.Close() }
	}
	f := &fixture{t: t, ring: ring, net: &pipes{}}
	var closers [2]func()
	var ws [2]*server
	r := newReceiver(t)
	defer f.net.listen("localhost:80", r)()
	for i := range ws {
		var a *afterlogin.Authority
		a, closers[i] = open()
		defer closers[i]()
		f.a = a
		ws[i] = f.server(Options{Authority: a, Node: fmt.Sprint("node", i)})
	}
	h, _, err := ws[0].Add(t.Context(), Request{URL: "http://localhost/", Events: []string{afterlogin.EventRevoked}})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		f.revoke(fmt.Sprint("u", n))
	}
	eventually(t, "100 events", func() bool { return len(r.subjects()) >= 100 })
	hook, err := ws[1].Webhook(t.Context(), h.ID)
	if err != nil || hook.Server == "" {
		t.Fatal(hook, err)
	}
	first := 0
	if hook.Server == "node1" {
		first = 1
	}
	ws[first].Close()
	for n := 100; n < 200; n++ {
		f.revoke(fmt.Sprint("u", n))
	}
	eventually(t, "200 events", func() bool { return len(r.subjects()) >= 200 })
	// The order over partitions is that of the server's clock.
	if got := r.subjects(); !slices.Equal(got, numbered(0, 200)) || len(r.twice()) > 0 {
		t.Errorf("received %v, twice %v", got, r.twice())
	}
	// Events are named alike by both: what one of them reads again has the ids that the other one gave.
	if err := reread(t, ws[1-first].Webhooks, r); err != nil {
		t.Error(err)
	}
	ws[1-first].Close()
}

// reread reads the stream from the first event that was received, and compares the ids.
func reread(t *testing.T, w *Webhooks, r *receiver) error {
	n := naming{installation: w.install}
	for _, g := range r.all() {
		e := g.payload.Event
		id := n.id(&afterlogin.Event{
			Type: e.Type, At: e.At, Session: afterlogin.SessionID(e.Session), Root: afterlogin.SessionID(e.Root), Tenant: e.Tenant, Subject: e.Subject,
			Reason: afterlogin.Reason(e.Reason), Detail: e.Detail, Actor: e.Actor, Except: afterlogin.SessionID(e.Except), Everything: e.Everything,
		})
		if id != g.id {
			return errors.New("event " + g.id + " has the id " + id + " for another one")
		}
	}
	return nil
}

// What is saved while events are under way names them alike for the server that reads them again.
func TestDeathWhileSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		r.slow(3 * time.Second)
		defer f.net.listen("localhost:80", r)()
		f.add(s, "http://localhost/hooks")
		for n := range 5 {
			f.revoke(fmt.Sprint("u", n))
		}
		time.Sleep(12200 * time.Millisecond) // the fourth was taken, and that is not saved
		s.die()
		r.slow(0)
		f.server(Options{})
		time.Sleep(30 * time.Second)
		if ids := r.ids(); len(ids) != 5 || len(r.all()) != 6 {
			t.Errorf("%d ids of 5 events, sent %d times", len(ids), len(r.all()))
		}
	})
}

// One who has lost the lease writes over nothing: neither what the next one wrote, nor what that one will write over.
func TestFence(t *testing.T) {
	f := newFixture(t, nil)
	s := f.server(Options{})
	s.Close() // the lease is nobody's
	h, _ := f.add(s, "http://localhost/hooks")
	ctx := t.Context()
	hold := func() *courier {
		t.Helper()
		found, err := s.read(ctx, h.ID)
		if err != nil {
			t.Fatal(err)
		}
		found.State.Holder, found.State.Term, found.State.Until = s.holder, found.State.Term+1, time.Now().Add(leaseTime).UnixMilli()
		b, err := found.encode()
		if err != nil {
			t.Fatal(err)
		}
		e, err := s.authority.SaveEntry(ctx, found.entry, b)
		if err != nil {
			t.Fatal(err)
		}
		return newCourier(s.Webhooks, e, found.record, time.Now().Add(leaseTime))
	}
	put := func(c *courier, n uint64, id string) error {
		return c.put(ctx, RealmOutbox, n, &item{ID: id, Event: Event{Type: "x", At: time.Now()}})
	}
	is := func(n uint64, want string) {
		t.Helper()
		if _, i, err := s.load(ctx, RealmOutbox, h.ID, n); err != nil || i.ID != want {
			t.Errorf("at %d stands %+v, %v; want %s", n, i, err, want)
		}
	}
	first := hold()
	for n, id := range []string{"evt_a", "evt_b", "evt_c"} {
		if err := put(first, uint64(n), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(first, 0, "evt_a2"); err != nil { // it did not come to save what it wrote
		t.Fatal(err)
	}
	is(0, "evt_a2")
	second := hold()
	if err := put(second, 0, "evt_d"); err != nil {
		t.Fatal(err)
	}
	if err := put(first, 0, "evt_e"); !errors.Is(err, errSuperseded) {
		t.Errorf("over what the next one wrote: %v", err)
	}
	if err := put(first, 1, "evt_f"); !errors.Is(err, errSuperseded) {
		t.Errorf("over what it wrote itself, without the lease: %v", err)
	}
	is(0, "evt_d")
	is(1, "evt_b")
	if err := put(first, 9, "evt_g"); err != nil { // there is nothing: nobody can tell
		t.Fatal(err)
	}
	if err := put(second, 9, "evt_h"); err != nil {
		t.Fatal(err)
	}
	is(9, "evt_h")
}
