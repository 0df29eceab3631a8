package webhook

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// rotten is a store in which records of some names were changed from outside, and whose stream can be held up.
type rotten struct {
	store.Store

	mu    sync.Mutex
	names []string
	held  bool
}

func (s *rotten) spoil(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = names
}

func (s *rotten) hold(held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = held
}

func (s *rotten) read(r *store.Record) *store.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r == nil || !slices.Contains(s.names, r.Client) {
		return r
	}
	changed := *r
	changed.Payload = slices.Clone(r.Payload)
	changed.Payload[len(changed.Payload)-1] ^= 1
	return &changed
}

func (s *rotten) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	rs, err := s.Store.Get(ctx, ids...)
	for i, r := range rs {
		rs[i] = s.read(r)
	}
	return rs, err
}

func (s *rotten) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		for r, err := range s.Store.List(ctx, q) {
			if !yield(s.read(r), err) {
				return
			}
		}
	}
}

func (s *rotten) Watch(ctx context.Context, after store.Cursor) (iter.Seq2[store.Event, error], error) {
	events, err := s.Store.Watch(ctx, after)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held || err != nil {
		return events, err
	}
	return func(yield func(store.Event, error) bool) {
		<-ctx.Done()
		yield(store.Event{}, ctx.Err())
	}, nil
}

// A webhook whose record does not open stops no other one, and no new one from being added.
func TestBrokenRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &rotten{Store: memstore.New()}
		f := newFixture(t, s)
		w := f.server(Options{})
		bad, good := newReceiver(t), newReceiver(t)
		defer f.net.listen("localhost:80", bad)()
		defer f.net.listen("localhost:81", good)()
		broken, _ := f.add(w, "http://localhost/hooks")
		well, _ := f.add(w, "http://localhost:81/hooks")
		w.Close()
		s.spoil(entryName(broken.ID))
		w = f.server(Options{})
		f.revoke("u0")
		time.Sleep(5 * time.Second)
		if got := good.subjects(); !slices.Equal(got, []string{"u0"}) {
			t.Errorf("received %v", got)
		}
		if hs, err := w.List(t.Context()); err != nil || len(hs) != 1 || hs[0].ID != well.ID {
			t.Errorf("%v %v", hs, err)
		}
		if _, err := w.Webhook(t.Context(), broken.ID); !errors.Is(err, afterlogin.ErrUnavailable) {
			t.Errorf("the broken one: %v", err)
		}
		third, _ := f.add(w, "http://localhost:81/hooks")
		if entryName(third.ID) == entryName(broken.ID) || entryName(third.ID) == entryName(well.ID) {
			t.Errorf("%s was added over %s or %s", third.ID, broken.ID, well.ID)
		}
		s.spoil()
		time.Sleep(5 * time.Second)
		if got := bad.subjects(); !slices.Equal(got, []string{"u0"}) {
			t.Errorf("the broken one, mended, received %v", got)
		}
	})
}

// An event that waits and does not open is gone: the receiver is told in its place, and gets the others.
func TestBrokenItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &rotten{Store: memstore.New()}
		f := newFixture(t, s)
		w := f.server(Options{})
		r := newReceiver(t)
		h, _ := f.add(w, "http://localhost/hooks")
		for n := range 4 {
			f.revoke(fmt.Sprint("u", n))
		}
		time.Sleep(5 * time.Second)
		w.Close()
		s.spoil(itemName(h.ID, 1))
		w = f.server(Options{})
		defer f.net.listen("localhost:80", r)()
		time.Sleep(10 * time.Minute)
		if got := r.types(); !slices.Equal(got, []string{afterlogin.EventRevoked, EventMissed, afterlogin.EventRevoked, afterlogin.EventRevoked}) || r.all()[1].payload.Event.Missed != 1 {
			t.Errorf("received %v", got)
		}
		if got := strings.Join(r.subjects(), " "); got != "u0  u2 u3" {
			t.Errorf("received %q", got)
		}
	})
}

// What was taken before one that is gone is not sent again.
func TestBrokenBeforeTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &rotten{Store: memstore.New()}
		f := newFixture(t, s)
		w := f.server(Options{})
		r := newReceiver(t)
		defer f.net.listen("localhost:80", choking(r, false, "u0", "u1", "u2"))()
		h, _ := f.add(w, "http://localhost/hooks")
		for n := range 4 {
			f.revoke(fmt.Sprint("u", n))
		}
		time.Sleep(5 * time.Hour) // u0 is given up, and u3 was taken before u1 and u2
		w.Close()
		s.spoil(itemName(h.ID, 1), itemName(h.ID, 2))
		w = f.server(Options{})
		f.revoke("u4")
		time.Sleep(10 * time.Minute)
		if got := strings.Join(r.subjects(), " "); got != "u3  u4" || r.all()[1].payload.Event.Missed != 2 || len(r.twice()) > 0 {
			t.Errorf("received %q", got)
		}
	})
}

// However often the secret is changed, what the receiver may have signs for a day; where that is too many, it is not changed.
func TestRotateOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		defer f.net.listen("localhost:80", r)()
		h, first := f.add(s, "http://localhost/hooks")
		secrets := []Secret{first}
		for range maxOld {
			time.Sleep(time.Hour)
			hook, secret, err := s.RotateSecret(t.Context(), h.ID)
			if err != nil || time.Until(hook.OldSecret).Round(time.Second) != overlap {
				t.Fatal(err, hook.OldSecret)
			}
			secrets = append(secrets, secret)
		}
		if _, _, err := s.RotateSecret(t.Context(), h.ID); !errors.Is(err, ErrRotated) {
			t.Errorf("once more: %v", err)
		}
		r.check(secrets...)
		time.Sleep(2 * pollEvery) // the server that delivers sees what was changed
		f.revoke("u0")
		time.Sleep(5 * time.Second)
		if len(r.all()) != 1 {
			t.Fatalf("received %v", r.subjects())
		}
		s.Close()
		time.Sleep(overlap - (maxOld-1)*time.Hour) // the first one's day is over
		s = f.server(Options{})
		if _, secret, err := s.RotateSecret(t.Context(), h.ID); err != nil {
			t.Error(err)
		} else {
			r.check(append(secrets[1:], secret)...)
		}
		time.Sleep(2 * pollEvery)
		f.revoke("u1")
		time.Sleep(5 * time.Second)
		if got := r.all(); len(got) != 2 || verified([]string{first.Reveal()}, nil, got[1].body) {
			t.Errorf("received %v", r.subjects())
		}
	})
}

// Webhooks that come and go leave nothing behind that is read for ever, and none takes over what another one left.
func TestComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s, other := f.server(Options{}), f.server(Options{Authority: f.authority()})
		r := newReceiver(t)
		stays, _ := f.add(s, "http://localhost:81/hooks")
		ids := map[string]bool{stays.ID: true}
		for n := range 200 {
			w := s
			if n%2 == 1 {
				w = other
			}
			h, _ := f.add(w, "http://localhost:82/hooks") // where nobody is
			if ids[h.ID] || h.Waiting != 0 || h.DeadLetters != 0 {
				t.Fatalf("%+v", h)
			}
			ids[h.ID] = true
			f.revoke("old")
			time.Sleep(time.Second)
			if err := w.Remove(t.Context(), h.ID); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Webhook(t.Context(), h.ID); !errors.Is(err, ErrNoWebhook) {
				t.Fatal(err)
			}
		}
		entries := 0
		for _, err := range f.a.Entries(t.Context(), 0, Realm) {
			if err != nil {
				t.Fatal(err)
			}
			entries++
		}
		if entries != 2 {
			t.Errorf("%d entries of one webhook", entries)
		}
		defer f.net.listen("localhost:80", r)()
		_, secret := f.add(s, "http://localhost/hooks")
		r.check(secret)
		f.revoke("new")
		time.Sleep(time.Minute)
		if got := r.subjects(); !slices.Equal(got, []string{"new"}) {
			t.Errorf("received %v", got)
		}
		if hs, err := other.List(t.Context()); err != nil || len(hs) != 2 || hs[0].ID != stays.ID || hs[1].Waiting != 0 {
			t.Errorf("%v %v", hs, err)
		}
	})
}

// One that was added while the stream could not be read begins late, and its receiver is told so.
func TestBeginsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &rotten{Store: memstore.New()}
		f := newFixture(t, s)
		w := f.server(Options{})
		r := newReceiver(t)
		defer f.net.listen("localhost:80", r)()
		s.hold(true)
		f.add(w, "http://localhost/hooks")
		f.revoke("lost")
		s.hold(false)
		w.Close()
		w = f.server(Options{})
		time.Sleep(30 * time.Second)
		f.revoke("u1")
		time.Sleep(5 * time.Second)
		if got := r.types(); !slices.Equal(got, []string{EventMissed, afterlogin.EventRevoked}) || r.subjects()[1] != "u1" {
			t.Errorf("received %v of %v", got, r.subjects())
		}
	})
}
