package pulse

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// house is an authority on a store of its own with a pulse.
type house struct {
	*afterlogin.Authority
	p *Pulse
	t *testing.T
}

func newHouse(t *testing.T, change func(*afterlogin.Authority, *Options)) *house {
	t.Helper()
	s := memstore.New()
	h := &house{t: t}
	var p atomic.Pointer[Pulse]
	var err error
	h.Authority, err = afterlogin.New(afterlogin.Config{Store: s, Issuer: "https://auth.example", Observe: func(e afterlogin.Event) {
		if p := p.Load(); p != nil {
			p.Observe(e)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Stats: h.Stats}
	if change != nil {
		change(h.Authority, &o)
	}
	if h.p, err = New(o); err != nil {
		t.Fatal(err)
	}
	p.Store(h.p)
	t.Cleanup(func() { s.Close() })
	return h
}

func (h *house) close() {
	h.p.Close()
	h.Authority.Close()
}

func (h *house) signIn(subject string) afterlogin.Issued {
	h.t.Helper()
	got, err := h.Issue(h.t.Context(), afterlogin.IssueRequest{Subject: subject})
	if err != nil {
		h.t.Fatal(err)
	}
	return got
}

var sessions = afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}

// steal has the tokens renewed and their old copies used when their grace is over.
func (h *house) steal(all ...afterlogin.Issued) {
	h.t.Helper()
	for _, got := range all {
		next, err := h.Rotate(h.t.Context(), got.Token, sessions)
		if err != nil {
			h.t.Fatal(err)
		}
		if _, err := h.Validate(h.t.Context(), next.Token, sessions); err != nil {
			h.t.Fatal(err)
		}
	}
	time.Sleep(time.Minute)
	for _, got := range all {
		if _, err := h.Validate(h.t.Context(), got.Token, sessions); afterlogin.ReasonOf(err) != afterlogin.ReasonReused {
			h.t.Fatal(err)
		}
	}
}

func sum(all []uint64) (n uint64) {
	for _, v := range all {
		n += v
	}
	return n
}

// What is done is counted in the second and the minute that it was done in, and nowhere else.
func TestFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		defer h.close()
		time.Sleep(10*time.Second + 100*time.Millisecond)
		mia := h.signIn("mia")
		h.signIn("tom")
		for range 5 {
			if _, err := h.Validate(t.Context(), mia.Token, sessions); err != nil {
				t.Fatal(err)
			}
		}
		h.Validate(t.Context(), afterlogin.TokenFrom("junk"), sessions)
		h.Validate(t.Context(), mia.Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}})
		if _, err := h.Issue(t.Context(), afterlogin.IssueRequest{Data: map[string]json.RawMessage{"cart": []byte("1")}}); err != nil { // nobody signed in
			t.Fatal(err)
		}
		if err := h.Revoke(t.Context(), mia.Session.ID, afterlogin.ReasonSignedOut); err != nil {
			t.Fatal(err)
		}
		if err := h.RevokeSubject(t.Context(), 0, "tom", afterlogin.Sessions, afterlogin.ReasonSignedOutAll); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		o := h.p.Overview(Seconds, Minutes)
		want := Counts{SignIns: 2, SignOuts: 1, Revocations: 1, Refusals: 2, Validations: 7}
		if o.Totals != want || o.Minute != want {
			t.Errorf("totals %+v, last minute %+v, want %+v", o.Totals, o.Minute, want)
		}
		s := o.Seconds
		if len(s.SignIns) != 12 || s.SignIns[10] != 2 || sum(s.SignIns) != 2 {
			t.Errorf("sign-ins by second: %v", s.SignIns)
		}
		if s.Validations[10] != 7 || sum(s.Validations) != 7 || s.Refusals[10] != 2 || s.SignOuts[10] != 1 || s.Revocations[10] != 1 {
			t.Errorf("by second: %+v", s)
		}
		if r := s.Refused; len(r) != 2 || r["malformed"][10] != 1 || r["wrong_kind"][10] != 1 {
			t.Errorf("refused by second: %v", r)
		}
		if o.Refused["malformed"] != 1 || o.Refused["wrong_kind"] != 1 || len(o.Refused) != 2 {
			t.Errorf("refused: %v", o.Refused)
		}
		if m := o.Minutes; len(m.SignIns) != 1 || m.SignIns[0] != 2 || m.Validations[0] != 7 || m.Refused["malformed"][0] != 1 {
			t.Errorf("by minute: %+v", o.Minutes)
		}
		if at := s.Start.Add(12 * time.Second); at.After(o.At) || o.At.Sub(at) > time.Second {
			t.Errorf("the seconds end at %v, now is %v", at, o.At)
		}
		time.Sleep(5 * time.Minute)
		o = h.p.Overview(Seconds, Minutes)
		if len(o.Seconds.SignIns) != Seconds || sum(o.Seconds.SignIns) != 0 || o.Minute != (Counts{}) || o.Totals != want {
			t.Errorf("5 minutes later: %+v", o)
		}
		if m := o.Minutes; len(m.SignIns) != 6 || m.SignIns[0] != 2 || sum(m.SignIns) != 2 {
			t.Errorf("5 minutes later: %+v", m)
		}
		if got := h.p.Overview(3, 2); len(got.Seconds.P50) != 3 || len(got.Minutes.P50) != 2 {
			t.Errorf("%d and %d points, asked for 3 and 2", len(got.Seconds.P50), len(got.Minutes.P50))
		}
		h.p.mu.Lock()
		h.p.minutes.points, h.p.minutes.refusals = h.p.minutes.points[:20], h.p.minutes.refusals[:20*h.p.minutes.reasons] // a shorter day
		h.p.mu.Unlock()
		time.Sleep(25 * time.Minute)
		o = h.p.Overview(Seconds, Minutes)
		if m := o.Minutes; len(m.SignIns) != 20 || sum(m.SignIns)+sum(m.Validations) != 0 || len(m.Refused) != 0 || o.Totals != want {
			t.Errorf("a day later: %+v", o.Totals)
		}
		checkLengths(t, o)
	})
}

func checkLengths(t *testing.T, o *Overview) {
	t.Helper()
	for _, s := range []Series{o.Seconds, o.Minutes} {
		n := len(s.P50)
		lens := []int{len(s.SignIns), len(s.Renewals), len(s.SignOuts), len(s.Revocations), len(s.Refusals), len(s.Alarms), len(s.Validations), len(s.P95), len(s.P99)}
		for _, r := range s.Refused {
			lens = append(lens, len(r))
		}
		if slices.ContainsFunc(lens, func(l int) bool { return l != n }) {
			t.Errorf("the series of step %d have %v points, and not %d", s.Step, lens, n)
		}
	}
}

// A theft is there as soon as it was found, with its session; the list is bounded and holds no token.
func TestAlarms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		defer h.close()
		var all []afterlogin.Issued
		for i := range Alarms + 5 {
			all = append(all, h.signIn(fmt.Sprintf("mia-%d", i)))
		}
		h.steal(all...)
		last := all[len(all)-1]
		o := h.p.Overview(Seconds, Minutes)
		if len(o.Alarms) != Alarms || o.Totals.Alarms != Alarms+5 || o.Totals.Renewals != Alarms+5 {
			t.Fatalf("%d alarms in the list, %d in all, %d renewals", len(o.Alarms), o.Totals.Alarms, o.Totals.Renewals)
		}
		a := o.Alarms[0]
		if a.Session != string(last.Session.ID) || a.Type != afterlogin.EventReuse || a.Subject != fmt.Sprintf("mia-%d", Alarms+4) || a.Reason != "reused" || a.Detail == "" || a.At.IsZero() {
			t.Errorf("the newest alarm is %+v", a)
		}
		if o.Alarms[Alarms-1].Subject != "mia-5" {
			t.Errorf("the oldest is %+v", o.Alarms[Alarms-1])
		}
		text, err := json.Marshal(o)
		if err != nil || strings.Contains(string(text), last.Token.Reveal()[38:70]) {
			t.Errorf("a token is in the overview, or %v", err)
		}
	})
}

// On a store that servers share, what the others do counts, and nothing twice.
func TestOtherServers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer s.Close()
		ring := keyring.New()
		var p atomic.Pointer[Pulse]
		var nodes [2]*afterlogin.Authority
		for i := range nodes {
			c := afterlogin.Config{Store: s, Keys: ring}
			if i == 0 {
				c.Observe = func(e afterlogin.Event) { p.Load().Observe(e) }
			}
			var err error
			if nodes[i], err = afterlogin.New(c); err != nil {
				t.Fatal(err)
			}
			defer nodes[i].Close()
		}
		var broken atomic.Bool
		pulse, err := New(Options{Stats: nodes[0].Stats, Watch: func(ctx context.Context, since string) (iter.Seq2[afterlogin.Event, error], error) {
			if broken.Load() {
				return nil, afterlogin.ErrUnavailable
			}
			events, err := nodes[0].Watch(ctx, since)
			if err != nil {
				return nil, err
			}
			return func(yield func(afterlogin.Event, error) bool) {
				for e, err := range events {
					if broken.Load() {
						yield(afterlogin.Event{}, afterlogin.ErrUnavailable)
						return
					}
					if !yield(e, err) {
						return
					}
				}
			}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer pulse.Close()
		p.Store(pulse)
		synctest.Wait()
		for i, node := range nodes {
			if _, err := node.Issue(t.Context(), afterlogin.IssueRequest{Subject: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		nodes[0].Report(afterlogin.Event{Type: afterlogin.EventKeyReuse, Reason: afterlogin.ReasonReused})
		time.Sleep(3 * time.Second)
		if got := pulse.Overview(Seconds, Minutes).Totals; got.SignIns != 2 || got.Alarms != 1 {
			t.Errorf("%+v, want the sign-ins of two servers and one alarm", got)
		}
		broken.Store(true) // the store does not answer for a while: what happens meanwhile is made up for
		for range 3 {
			if _, err := nodes[1].Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Second)
		broken.Store(false)
		time.Sleep(3 * time.Second)
		if got := pulse.Overview(Seconds, Minutes).Totals; got.SignIns != 5 {
			t.Errorf("%d sign-ins after the store was back, want 5", got.SignIns)
		}
	})
}

func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bounds := []time.Duration{time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond}
		var counts [4]atomic.Uint64
		h := newHouse(t, func(_ *afterlogin.Authority, o *Options) {
			o.Latency = func() ([]time.Duration, []uint64) {
				out := make([]uint64, 4)
				for i := range counts {
					out[i] = counts[i].Load()
				}
				return bounds, out
			}
		})
		defer h.close()
		time.Sleep(100 * time.Millisecond)
		counts[0].Add(90)
		counts[2].Add(10)
		time.Sleep(time.Second)
		counts[1].Add(100)
		time.Sleep(time.Second)
		o := h.p.Overview(Seconds, Minutes)
		if s := o.Seconds; len(s.P50) != 2 || math.Abs(float64(s.P50[0])-0.5556) > 0.001 || s.P95[0] != 3 || math.Abs(float64(s.P99[0])-3.8) > 0.001 || s.P50[1] != 1.5 {
			t.Errorf("by second: %v %v %v", s.P50, s.P95, s.P99)
		}
		if m := o.Minutes; math.Abs(float64(m.P50[0])-1.1) > 0.001 || m.P99[0] != 3.6 {
			t.Errorf("by minute: %v %v", m.P50, m.P99)
		}
		time.Sleep(10 * time.Second)
		if s := h.p.Overview(1, 1).Seconds; s.P50[0] != 0 {
			t.Errorf("nothing was validated, and half of it took %v ms", s.P50[0])
		}
	})
	if q := quantiles([]time.Duration{time.Second}, []uint64{0, 5}); q[0] != 1000 {
		t.Errorf("above all bounds: %v", q)
	}
	if q := quantiles([]time.Duration{time.Second}, []uint64{0, 0}); q != [3]float32{} {
		t.Errorf("of nothing: %v", q)
	}
}

func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var why atomic.Value
		why.Store("")
		h := newHouse(t, func(_ *afterlogin.Authority, o *Options) {
			o.Ready = func(ctx context.Context) string {
				if why.Load() == "hang" {
					<-ctx.Done()
				}
				return why.Load().(string)
			}
			o.Skew = func() time.Duration { return 1500 * time.Millisecond }
			o.Live = func() *Live { return &Live{Complete: true, Total: 3, Kinds: map[string]int{"session": 3}} }
			o.Node, o.Version, o.Store = "a", "v1", "embedded"
		})
		defer h.close() // ends even though the question hangs
		if s := h.p.Overview(0, 0).Server; s.Ready || h.p.Ready() {
			t.Error("ready before anybody has asked")
		}
		time.Sleep(time.Second)
		o := h.p.Overview(0, 0)
		if s := o.Server; !s.Ready || !h.p.Ready() || s.Reason != "" || *s.Skew != 1.5 || s.Node != "a" || s.Uptime != 1 || o.Live.Total != 3 {
			t.Errorf("%+v", o)
		}
		why.Store("there is no room")
		time.Sleep(2 * readyEvery)
		if s := h.p.Overview(0, 0).Server; s.Ready || h.p.Ready() || s.Reason != "there is no room" {
			t.Errorf("%+v", s)
		}
		why.Store("")
		time.Sleep(2 * readyEvery)
		why.Store("hang")
		time.Sleep(2 * readyEvery)
		if !h.p.Ready() {
			t.Error("not ready for a question that takes a moment")
		}
		time.Sleep(readyFor)
		if s := h.p.Overview(0, 0).Server; s.Ready || h.p.Ready() || s.Reason == "" {
			t.Errorf("nobody has answered for %v: %+v", readyFor, s)
		}
	})
}

// A clock that is set, either way, moves what is shown and loses nothing.
func TestClock(t *testing.T) {
	var now atomic.Int64
	start := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	p := &Pulse{
		o:       Options{Now: func() time.Time { return start.Add(time.Duration(now.Load())) }},
		started: start, seconds: newRing(Seconds+1, 0), minutes: newRing(Minutes, 0),
	}
	e := afterlogin.Event{Type: afterlogin.EventRenewed}
	p.count(e)
	for _, at := range []time.Duration{time.Minute, -time.Hour, 10 * 365 * 24 * time.Hour, 0, 30 * time.Second} {
		now.Store(int64(at))
		p.count(e)
		p.Overview(Seconds, Minutes)
	}
	if o := p.Overview(Seconds, Minutes); o.Totals.Renewals != 6 {
		t.Errorf("%+v", o.Totals)
	}
}

func TestRing(t *testing.T) {
	r := newRing(3, 1)
	for _, n := range []int64{0, 1, 1, 3, 2, 10, 9, 7} {
		r.add(n, Counts{SignIns: 1})
		r.refuse(n, 0, 1)
	}
	var got []uint64
	for n := r.newest - 2; n <= r.newest; n++ {
		i := r.slot(n)
		got = append(got, r.points[i].counts.SignIns, uint64(r.refusals[i]))
	}
	if !slices.Equal(got, []uint64{0, 0, 1, 1, 1, 1}) || r.slot(7) != -1 {
		t.Errorf("%v", got)
	}
}
