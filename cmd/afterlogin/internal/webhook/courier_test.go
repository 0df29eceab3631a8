package webhook

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
)

// Events go straight out, in order, signed, each once.
func TestDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{Node: "east-1"})
		r := newReceiver(t)
		defer f.net.listen("localhost:80", r)()
		h, secret := f.add(s, "http://localhost/hooks")
		r.check(secret)
		for n := range 30 {
			f.revoke(fmt.Sprint("u", n))
		}
		time.Sleep(5 * time.Second)
		if got := r.subjects(); !slices.Equal(got, numbered(0, 30)) {
			t.Errorf("received %v", got)
		}
		g := r.all()[0]
		claim := g.payload.Events["https://schemas.openid.net/secevent/caep/event-type/session-revoked"]
		if g.payload.Issuer != "https://auth.example" || claim["initiating_entity"] != "admin" || claim["event_timestamp"] != float64(g.payload.Event.At.Unix()) ||
			string(g.payload.Sub["format"]) != `"complex"` || string(g.payload.Sub["user"]) != `{"format":"iss_sub","iss":"https://auth.example","sub":"u0"}` {
			t.Errorf("body %s", g.body)
		}
		h, err := s.Webhook(t.Context(), h.ID)
		if err != nil || h.Server != "east-1" || h.LastSuccess.IsZero() || h.LastStatus != 204 || h.Failures != 0 || h.Waiting != 0 {
			t.Errorf("%+v %v", h, err)
		}
		if st := s.Stats(); st.Deliveries["delivered"] != 30 || st.Webhooks != 1 || len(st.Each) != 1 || !st.Each[0].Here {
			t.Errorf("stats %+v", st)
		}
	})
}

// A receiver that is down for 10 minutes loses nothing and gets each event once by its id, in order: over a change of the
// server, and over one that dies in the middle, twice.
func TestDownForTenMinutes(t *testing.T) {
	for _, die := range []bool{false, true} {
		t.Run(fmt.Sprint("die=", die), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, nil)
				s := f.server(Options{})
				r := newReceiver(t)
				up := f.net.listen("localhost:80", r)
				h, _ := f.add(s, "http://localhost/hooks")
				for n := range 10 {
					f.revoke(fmt.Sprint("u", n))
					time.Sleep(time.Second)
				}
				up()
				for n := 10; n < 610; n++ { // one a second
					f.revoke(fmt.Sprint("u", n))
					time.Sleep(time.Second)
					if n == 100 || n == 400 {
						if die {
							s.die()
						} else {
							s.Close()
						}
						s = f.server(Options{})
					}
				}
				hook, err := s.Webhook(t.Context(), h.ID)
				if err != nil || hook.Waiting != 600 || hook.Failures == 0 || hook.LastError == "" || hook.Oldest.IsZero() {
					t.Errorf("while it is down: %+v %v", hook, err)
				}
				if st := s.Stats(); st.Waiting < 595 || st.Oldest.IsZero() {
					t.Errorf("stats %+v", st)
				}
				up = f.net.listen("localhost:80", r)
				defer func() { up() }()
				for n := 610; n < 640; n++ {
					f.revoke(fmt.Sprint("u", n))
					time.Sleep(time.Second)
				}
				time.Sleep(6 * time.Minute) // the longest pause
				if die {                    // once more, when all is well
					s.die()
					s = f.server(Options{})
					time.Sleep(time.Minute)
				}
				if got := r.subjects(); !slices.Equal(got, numbered(0, 640)) {
					t.Errorf("received %d: %v", len(got), got)
				}
				if twice := r.twice(); len(twice) > 0 {
					t.Errorf("received twice: %v", twice)
				}
			})
		})
	}
}

// One that dies while all is well sends what it had not saved once more, under the same ids, and loses nothing.
func TestDeathInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		defer f.net.listen("localhost:80", r)()
		f.add(s, "http://localhost/hooks")
		n := 0
		for range 10 {
			for range 20 {
				f.revoke(fmt.Sprint("u", n))
				n++
				time.Sleep(7 * time.Millisecond)
			}
			s.die()
			s = f.server(Options{})
			time.Sleep(20 * time.Second)
		}
		var distinct []string
		for _, subject := range r.subjects() {
			if !slices.Contains(distinct, subject) {
				distinct = append(distinct, subject)
			}
		}
		if !slices.Equal(distinct, numbered(0, n)) {
			t.Errorf("received %v", distinct)
		}
		if len(r.ids()) != n {
			t.Errorf("%d ids for %d events", len(r.ids()), n)
		}
		t.Logf("%d sent once more", len(r.all())-n)
	})
}

// A hand-over in ordinary operation sends nothing twice, whatever is under way.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		r.slow(300 * time.Millisecond)
		defer f.net.listen("localhost:80", r)()
		f.add(s, "http://localhost/hooks")
		n := 0
		for range 10 {
			for range 12 {
				f.revoke(fmt.Sprint("u", n))
				n++
				time.Sleep(110 * time.Millisecond)
			}
			s.Close()
			s = f.server(Options{})
		}
		time.Sleep(time.Minute)
		if got := r.subjects(); !slices.Equal(got, numbered(0, n)) || len(r.twice()) > 0 {
			t.Errorf("received %v, twice %v", got, r.twice())
		}
	})
}

// Two servers on one store deliver once; if one dies, or cannot reach the store, the other one takes over.
func TestTwoServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		one, two := f.server(Options{Node: "one"}), f.server(Options{Node: "two", Authority: f.authority()})
		r := newReceiver(t)
		defer f.net.listen("localhost:80", r)()
		h, _ := f.add(one, "http://localhost/hooks")
		n := 0
		burst := func() {
			for range 50 {
				f.revoke(fmt.Sprint("u", n))
				n++
				time.Sleep(50 * time.Millisecond)
			}
			time.Sleep(2 * time.Second)
		}
		burst()
		hook, err := two.Webhook(t.Context(), h.ID)
		if err != nil {
			t.Fatal(err)
		}
		first, second := one, two
		if hook.Server == "two" {
			first, second = two, one
		}
		first.Close()
		burst()
		time.Sleep(5 * time.Second)
		if got := r.subjects(); !slices.Equal(got, numbered(0, n)) || len(r.twice()) > 0 {
			t.Errorf("after a hand-over: %v, twice %v", got, r.twice())
		}
		third := f.server(Options{Node: "three"})
		second.die()
		burst()
		time.Sleep(20 * time.Second)
		if hook, _ := third.Webhook(t.Context(), h.ID); hook.Server != "three" {
			t.Errorf("delivered by %q", hook.Server)
		}
		if len(r.ids()) != n {
			t.Errorf("%d ids of %d", len(r.ids()), n)
		}
	})
}

// A receiver that is slow delays no other one, and gets everything.
func TestSlowReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		slow, quick := newReceiver(t), newReceiver(t)
		slow.slow(8 * time.Second)
		defer f.net.listen("localhost:80", slow)()
		defer f.net.listen("localhost:81", quick)()
		f.add(s, "http://localhost/hooks")
		f.add(s, "http://localhost:81/hooks")
		for n := range 300 {
			f.revoke(fmt.Sprint("u", n))
		}
		time.Sleep(3 * time.Second)
		if got := quick.subjects(); len(got) != 300 {
			t.Errorf("the quick one has %d of 300", len(got))
		}
		time.Sleep(300 * 8 * time.Second)
		if got := slow.subjects(); !slices.Equal(got, numbered(0, 300)) || len(slow.twice()) > 0 {
			t.Errorf("the slow one has %d of 300: %v", len(got), got)
		}
	})
}

// One that does not answer within 10 seconds has not taken the event.
func TestTooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		r.slow(11 * time.Second)
		defer f.net.listen("localhost:80", r)()
		h, _ := f.add(s, "http://localhost/hooks")
		f.revoke("u0")
		time.Sleep(25 * time.Second)
		hook, _ := s.Webhook(t.Context(), h.ID)
		if hook.Failures == 0 || hook.LastStatus != 0 || hook.LastError != "no answer within 10s" {
			t.Errorf("%+v", hook)
		}
		time.Sleep(time.Minute)
	})
}

// What the receiver says is wrong is tried five times, and does not stop the rest; it can be sent again by hand.
func TestDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		r.answer(422)
		defer f.net.listen("localhost:80", r)()
		h, _ := f.add(s, "http://localhost/hooks")
		f.revoke("u0")
		f.revoke("u1")
		time.Sleep(40 * time.Second)
		if n := r.attempts(); n != 2*maxRefusals {
			t.Errorf("%d attempts", n)
		}
		letters, next, err := s.DeadLetters(t.Context(), h.ID, 0, 50)
		if err != nil || next != 0 || len(letters) != 2 || letters[0].Event.Subject != "u0" || letters[0].Number != 1 || letters[0].Status != 422 ||
			letters[0].Tries != maxRefusals || letters[0].Error != "the receiver answered 422" || letters[1].Event.Subject != "u1" || !letters[0].Again.IsZero() {
			t.Fatalf("%+v %v %v", letters, next, err)
		}
		r.answer(200)
		f.revoke("u2")
		time.Sleep(2 * time.Second)
		if n, err := s.Redeliver(t.Context(), h.ID, false, []uint64{2}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(5 * time.Second)
		hook, _ := s.Webhook(t.Context(), h.ID)
		if got := r.subjects(); !slices.Equal(got, []string{"u2", "u1"}) || hook.DeadLetters != 1 || hook.Waiting != 0 {
			t.Errorf("%v %+v", got, hook)
		}
		if n, err := s.Redeliver(t.Context(), h.ID, true, nil); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(5 * time.Second)
		hook, _ = s.Webhook(t.Context(), h.ID)
		if got := r.subjects(); !slices.Equal(got, []string{"u2", "u1", "u0"}) || hook.DeadLetters != 0 || r.ids()[letters[0].ID] != 1 {
			t.Errorf("%v %+v", got, hook)
		}
		if _, err := s.Redeliver(t.Context(), h.ID, false, []uint64{7}); err == nil {
			t.Error("a dead letter that there is not was sent again")
		}
		if st := s.Stats(); st.Deliveries["dead_letter"] != 2 || st.Deliveries["redelivered"] != 2 || st.Deliveries["failed"] != 10 {
			t.Errorf("%+v", st)
		}
	})
}

// After the time for it an event is given up, with all that have waited for as long; what came later is sent.
func TestGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{GiveUp: 6 * time.Hour})
		r := newReceiver(t)
		r.answer(503)
		defer f.net.listen("localhost:80", r)()
		h, _ := f.add(s, "http://localhost/hooks")
		for n := range 200 {
			f.revoke(fmt.Sprint("u", n))
		}
		time.Sleep(5 * time.Hour)
		hook, _ := s.Webhook(t.Context(), h.ID)
		if hook.Waiting != 200 || hook.DeadLetters != 0 {
			t.Fatalf("after 5 hours: %+v", hook)
		}
		tries := r.attempts()
		if tries < 60 || tries > 140 { // between 2.5 and 5 minutes
			t.Errorf("%d attempts in 5 hours", tries)
		}
		f.revoke("late")
		time.Sleep(2 * time.Hour)
		hook, _ = s.Webhook(t.Context(), h.ID)
		if hook.Waiting != 1 || hook.DeadLetters != 200 {
			t.Fatalf("after 7 hours: %+v", hook)
		}
		r.answer(200)
		time.Sleep(10 * time.Minute)
		if got := r.subjects(); !slices.Equal(got, []string{"late"}) {
			t.Errorf("received %v", got)
		}
		var numbers int
		for after, more := uint64(0), true; more; {
			letters, next, err := s.DeadLetters(t.Context(), h.ID, after, 64)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range letters {
				if l.Event.Subject != fmt.Sprint("u", numbers) {
					t.Fatalf("letter %d is of %s", numbers, l.Event.Subject)
				}
				numbers++
			}
			after, more = next, next != 0
		}
		if numbers != 200 {
			t.Errorf("%d dead letters", numbers)
		}
		s.Redeliver(t.Context(), h.ID, true, nil)
		time.Sleep(10 * time.Second)
		if got := r.subjects(); !slices.Equal(got[1:], numbered(0, 200)) || len(r.twice()) > 0 {
			t.Errorf("received %v", got)
		}
	})
}

// Retry-After is honoured, up to an hour, and 410 disables the webhook, for good.
func TestRetryAfterAndGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		r.answer(429, "Retry-After", "600")
		defer f.net.listen("localhost:80", r)()
		h, _ := f.add(s, "http://localhost/hooks")
		f.revoke("u0")
		time.Sleep(590 * time.Second)
		if n := r.attempts(); n != 1 {
			t.Errorf("%d attempts before Retry-After is over", n)
		}
		r.answer(503, "Retry-After", "99999999")
		time.Sleep(20 * time.Second)
		if n := r.attempts(); n != 2 {
			t.Errorf("%d attempts", n)
		}
		r.answer(410)
		time.Sleep(time.Hour)
		hook, _ := s.Webhook(t.Context(), h.ID)
		if n := r.attempts(); n != 3 || !hook.Disabled || hook.Why == "" || hook.Waiting != 1 {
			t.Errorf("%d attempts, %+v", n, hook)
		}
		f.revoke("u1")
		time.Sleep(time.Hour)
		if n := r.attempts(); n != 3 {
			t.Errorf("%d attempts at one that is disabled", n)
		}
		r.answer(200)
		no := false
		if _, err := s.Change(t.Context(), h.ID, Change{Disabled: &no}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if got := r.subjects(); !slices.Equal(got, []string{"u0", "u1"}) {
			t.Errorf("received %v", got)
		}
	})
}

// When the store has dropped events the receiver is told, and gets what comes afterwards.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		defer f.net.listen("localhost:80", r)()
		h, _ := f.add(s, "http://localhost/hooks")
		f.revoke("u0")
		time.Sleep(2 * time.Second)
		yes, no := true, false
		if _, err := s.Change(t.Context(), h.ID, Change{Disabled: &yes}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		f.drop()
		if _, err := s.Change(t.Context(), h.ID, Change{Disabled: &no}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		f.revoke("u1")
		time.Sleep(5 * time.Second)
		if got := r.types(); !slices.Equal(got, []string{afterlogin.EventRevoked, EventMissed, afterlogin.EventRevoked}) || r.all()[2].payload.Event.Subject != "u1" {
			t.Errorf("received %v", got)
		} else if e := r.all()[1].payload.Event; e.Since == nil || e.Since.Before(r.all()[0].payload.Event.At) || e.Since.After(r.all()[1].at) {
			t.Errorf("missed since %v; the last one was at %v", e.Since, r.all()[0].payload.Event.At)
		}
		// A restart does not say it again.
		s.Close()
		s = f.server(Options{})
		time.Sleep(20 * time.Second)
		f.revoke("u2")
		time.Sleep(5 * time.Second)
		if got := r.types(); len(got) != 4 || len(r.twice()) > 0 {
			t.Errorf("received %v", got)
		}
	})
}

// What lay in the outbox for too long is gone, and the receiver is told, with how many.
func TestWaitedTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		r.answer(500)
		defer f.net.listen("localhost:80", r)()
		h, _ := f.add(s, "http://localhost/hooks")
		for n := range 5 {
			f.revoke(fmt.Sprint("u", n))
		}
		time.Sleep(10 * time.Second)
		yes, no := true, false
		if _, err := s.Change(t.Context(), h.ID, Change{Disabled: &yes}); err != nil {
			t.Fatal(err)
		}
		s.Close()
		time.Sleep(10 * 24 * time.Hour)
		s = f.server(Options{})
		r.answer(200)
		f.revoke("u5")
		if _, err := s.Change(t.Context(), h.ID, Change{Disabled: &no}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if len(r.all()) != 2 || r.all()[0].payload.Event.Type != EventMissed || r.all()[0].payload.Event.Missed != 5 || r.all()[1].payload.Event.Subject != "u5" {
			t.Errorf("received %v", r.types())
		}
	})
}

// What is changed is in force within two seconds, on whichever server it was asked for.
func TestChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s, other := f.server(Options{}), f.server(Options{Authority: f.authority()})
		r, elsewhere := newReceiver(t), newReceiver(t)
		defer f.net.listen("localhost:80", r)()
		defer f.net.listen("localhost:81", elsewhere)()
		h, secret := f.add(s, "http://localhost/hooks")
		f.revoke("u0")
		time.Sleep(3 * time.Second)
		url := "http://localhost:81/x"
		if _, err := other.Change(t.Context(), h.ID, Change{URL: &url, Events: &[]string{"session.*"}}); err != nil {
			t.Fatal(err)
		}
		_, fresh, err := other.RotateSecret(t.Context(), h.ID)
		if err != nil {
			t.Fatal(err)
		}
		elsewhere.check(secret, fresh)
		time.Sleep(3 * time.Second)
		f.revoke("u1")
		time.Sleep(3 * time.Second)
		if got := elsewhere.types(); !slices.Equal(got, []string{afterlogin.EventCreated, afterlogin.EventRevoked}) || len(r.all()) != 1 {
			t.Errorf("received %v, and %v", r.types(), got)
		}
		s.Close()
		other.Close()
		time.Sleep(25 * time.Hour)
		s, other = f.server(Options{}), f.server(Options{Authority: f.authority()})
		elsewhere.check(fresh)
		f.revoke("u2")
		time.Sleep(3 * time.Second)
		elsewhere.check(secret)
		if err := other.Remove(context.Background(), h.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		f.revoke("u3")
		time.Sleep(time.Minute)
		if got := elsewhere.types(); len(got) != 4 {
			t.Errorf("received %v", got)
		}
		if hs, err := s.List(t.Context()); len(hs) != 0 || err != nil {
			t.Errorf("%v %v", hs, err)
		}
	})
}

// Saving how far a delivery is makes no events: they would push others out of the store.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		defer f.net.listen("localhost:80", r)()
		f.add(s, "http://localhost/hooks", "*")
		time.Sleep(10 * time.Minute)
		n := len(r.types())
		if n > 2 {
			t.Errorf("%d events of a system at rest: %v", n, r.types())
		}
	})
}

// A server whose clock is ahead takes the lease too early; the one that had it stops at its next write. When it dies, its
// lease, which ends in an hour by the others' clocks, does not hold them up.
func TestClockAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		one := f.server(Options{Node: "one"})
		r := newReceiver(t)
		defer f.net.listen("localhost:80", r)()
		h, _ := f.add(one, "http://localhost/hooks")
		f.revoke("u0")
		time.Sleep(2 * time.Second)
		two := f.server(Options{Node: "two", Now: func() time.Time { return time.Now().Add(time.Hour) }})
		time.Sleep(6 * time.Second)
		one.mu.Lock()
		n := len(one.couriers)
		one.mu.Unlock()
		if hook, _ := two.Webhook(t.Context(), h.ID); hook.Server != "two" || n != 0 {
			t.Fatalf("%d here, %+v", n, hook)
		}
		f.revoke("u1")
		time.Sleep(2 * time.Second)
		two.die()
		f.revoke("u2")
		time.Sleep(40 * time.Second)
		if got := r.subjects(); !slices.Equal(got, numbered(0, 3)) {
			t.Errorf("received %v", got)
		}
	})
}
