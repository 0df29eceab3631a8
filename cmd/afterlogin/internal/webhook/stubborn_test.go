package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
)

// choking is a receiver that chokes on events about the subjects: it answers 500, or nothing at all if it is silent.
func choking(r *receiver, silent bool, subjects ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		b, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		var body struct{ Event Event }
		json.Unmarshal(b, &body)
		q.Body = io.NopCloser(bytes.NewReader(b))
		switch {
		case !slices.Contains(subjects, body.Event.Subject):
			r.ServeHTTP(w, q)
		case silent:
			<-q.Context().Done()
		default:
			w.WriteHeader(500)
		}
	})
}

// dead returns whom the dead letters are about, and fails if one of them was never tried.
func (f *fixture) dead(s *server, id string) (out []string) {
	f.t.Helper()
	letters, _, err := s.DeadLetters(f.t.Context(), id, 0, 1000)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, l := range letters {
		out = append(out, l.Event.Subject)
		if l.Tries == 0 {
			f.t.Errorf("%s was given up without an attempt", l.Event.Subject)
		}
	}
	return out
}

// An event that a receiver chokes on stops the others for some hours, and none of them is lost: not even across a change of
// the server in the middle.
func TestChokes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		defer f.net.listen("localhost:80", choking(r, false, "u1", "u5"))()
		h, _ := f.add(s, "http://localhost/hooks")
		for n := range 8 {
			f.revoke(fmt.Sprint("u", n))
		}
		for range 8 {
			time.Sleep(time.Hour)
			s.Close()
			s = f.server(Options{})
		}
		if got := r.subjects(); !slices.Equal(got, []string{"u0", "u2", "u3", "u4", "u6", "u7"}) || len(r.twice()) > 0 {
			t.Errorf("received %v, twice %v", got, r.twice())
		}
		if got := f.dead(s, h.ID); !slices.Equal(got, []string{"u1", "u5"}) {
			t.Errorf("dead letters of %v", got)
		}
		if hook, _ := s.Webhook(t.Context(), h.ID); hook.Waiting != 0 || hook.Failures != 0 {
			t.Errorf("%+v", hook)
		}
	})
}

// Those that a receiver chokes on can stand next to each other: the others arrive all the same, also what comes later.
func TestChokesInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		defer f.net.listen("localhost:80", choking(r, false, "u1", "u2", "u3", "u8", "u9"))()
		h, _ := f.add(s, "http://localhost/hooks")
		for n := range 7 {
			f.revoke(fmt.Sprint("u", n))
		}
		for range 5 {
			time.Sleep(time.Hour)
			s.Close()
			s = f.server(Options{})
		}
		if got := r.subjects(); !slices.Equal(got, []string{"u0", "u4", "u5", "u6"}) {
			t.Errorf("received %v", got)
		}
		if got := f.dead(s, h.ID); !slices.Equal(got, numbered(1, 4)) {
			t.Errorf("dead letters of %v", got)
		}
		for n := 7; n < 11; n++ { // with less behind them than there are of them
			f.revoke(fmt.Sprint("u", n))
		}
		time.Sleep(5 * time.Hour)
		f.revoke("u11")
		time.Sleep(time.Hour)
		if got := r.subjects(); !slices.Equal(got[4:], []string{"u7", "u10", "u11"}) || len(r.twice()) > 0 {
			t.Errorf("received %v, twice %v", got, r.twice())
		}
		if got := f.dead(s, h.ID); !slices.Equal(got[3:], []string{"u8", "u9"}) {
			t.Errorf("dead letters of %v", got)
		}
		if hook, _ := s.Webhook(t.Context(), h.ID); hook.Waiting != 0 {
			t.Errorf("%+v", hook)
		}
	})
}

// However many have waited for too long, a receiver that says nothing does not hold them up one by one. When it is back in
// the middle of that, it gets the rest.
func TestSilenceOverMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{GiveUp: 6 * time.Hour})
		r := newReceiver(t)
		r.slow(time.Minute)
		defer f.net.listen("localhost:80", r)()
		h, _ := f.add(s, "http://localhost/hooks")
		const n = 2000
		for k := range n {
			f.revoke(fmt.Sprint("u", k))
		}
		time.Sleep(6 * time.Hour)
		hook, _ := s.Webhook(t.Context(), h.ID)
		for range 60 {
			if hook.DeadLetters >= 500 {
				break
			}
			time.Sleep(10 * time.Second)
			hook, _ = s.Webhook(t.Context(), h.ID)
		}
		if hook.DeadLetters < 500 || hook.DeadLetters > 1000 {
			t.Fatalf("%d dead letters", hook.DeadLetters)
		}
		r.slow(0)
		time.Sleep(time.Minute)
		hook, _ = s.Webhook(t.Context(), h.ID)
		if got := len(r.ids()); hook.Waiting != 0 || got < n-1100 || got+int(hook.DeadLetters) != n || len(r.twice()) > 0 {
			t.Errorf("received %d, %d dead letters, %d wait", got, hook.DeadLetters, hook.Waiting)
		}
	})
}

// One that is answered with silence stops the others until it is given up. Those are as old by then, and are tried still.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{GiveUp: 6 * time.Hour})
		r := newReceiver(t)
		defer f.net.listen("localhost:80", choking(r, true, "u0", "u2"))()
		h, _ := f.add(s, "http://localhost/hooks")
		for n := range 4 {
			f.revoke(fmt.Sprint("u", n))
		}
		time.Sleep(7 * time.Hour)
		if got := r.subjects(); !slices.Equal(got, []string{"u1", "u3"}) {
			t.Errorf("received %v", got)
		}
		if got := f.dead(s, h.ID); !slices.Equal(got, []string{"u0", "u2"}) {
			t.Errorf("dead letters of %v", got)
		}
	})
}

// While a receiver answers 5xx to everything, nothing is taken for what it chokes on: all arrives, in order, once.
func TestFaultyForHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		r.answer(502)
		defer f.net.listen("localhost:80", r)()
		h, _ := f.add(s, "http://localhost/hooks")
		for n := range 20 {
			f.revoke(fmt.Sprint("u", n))
		}
		time.Sleep(12 * time.Hour)
		hook, _ := s.Webhook(t.Context(), h.ID)
		if hook.Waiting != 20 || hook.DeadLetters != 0 {
			t.Errorf("%+v", hook)
		}
		r.answer(204)
		time.Sleep(10 * time.Minute)
		if got := r.subjects(); !slices.Equal(got, numbered(0, 20)) || len(r.twice()) > 0 || len(f.dead(s, h.ID)) > 0 {
			t.Errorf("received %v, twice %v", got, r.twice())
		}
	})
}

// One that comes back just when the second event is tried has the first one, too.
func TestBackInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		back := false
		defer f.net.listen("localhost:80", http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			b, _ := io.ReadAll(q.Body)
			q.Body = io.NopCloser(bytes.NewReader(b))
			if back = back || bytes.Contains(b, []byte(`"subject":"u1"`)); !back {
				w.WriteHeader(500)
				return
			}
			r.ServeHTTP(w, q)
		}))()
		h, _ := f.add(s, "http://localhost/hooks")
		for n := range 4 {
			f.revoke(fmt.Sprint("u", n))
		}
		time.Sleep(5 * time.Hour)
		if got := r.subjects(); !slices.Equal(got, []string{"u1", "u0", "u2", "u3"}) || len(f.dead(s, h.ID)) > 0 {
			t.Errorf("received %v, dead letters of %v", got, f.dead(s, h.ID))
		}
	})
}

// An outbox takes no more than it may: the rest waits in the stream, and what the store drops of that is told.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, nil)
		s := f.server(Options{})
		r := newReceiver(t)
		h, _ := f.add(s, "http://localhost/hooks")
		f.revoke("u0")
		time.Sleep(3 * time.Second) // it waits
		s.Close()
		const more = 10 // there is room for this many
		if _, err := s.change(t.Context(), h.ID, false, func(q *record) error {
			if q.State.waiting() != 1 {
				t.Errorf("%d wait", q.State.waiting())
			}
			q.State.Tail = q.State.Head + maxOutbox - more
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		s = f.server(Options{})
		for n := 1; n < 1000; n++ {
			f.revoke(fmt.Sprint("u", n))
		}
		time.Sleep(time.Minute)
		hook, err := s.Webhook(t.Context(), h.ID)
		if err != nil || hook.Waiting < maxOutbox || hook.Waiting > maxOutbox+2*maxPending {
			t.Errorf("%d wait, %v", hook.Waiting, err)
		}
		s.Close() // with what is in memory
		if _, err := s.change(t.Context(), h.ID, false, func(q *record) error {
			q.State.Head = q.State.Tail - 1000 // as if the others had gone
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		defer f.net.listen("localhost:80", r)()
		s = f.server(Options{})
		time.Sleep(time.Hour)
		var got []string
		for _, g := range r.all() {
			if g.payload.Event.Type == afterlogin.EventRevoked {
				got = append(got, g.payload.Event.Subject)
			}
		}
		if !slices.Equal(got, numbered(1, 1000)) || len(r.twice()) > 0 {
			t.Errorf("received %d: %v", len(got), got)
		}
	})
}
