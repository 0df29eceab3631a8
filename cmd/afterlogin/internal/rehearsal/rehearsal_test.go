package rehearsal

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func stricter(change func(*afterlogin.Policy)) map[string]afterlogin.Policy {
	p := afterlogin.DefaultPolicies()[afterlogin.PolicyBrowser]
	change(&p)
	return map[string]afterlogin.Policy{afterlogin.PolicyBrowser: p}
}

// A morning on a real authority: three people, one of whom leaves for coffee twice.
func TestAMorning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{
			Policies: afterlogin.DefaultPolicies(), Stricter: stricter(func(p *afterlogin.Policy) { p.Idle = 15 * time.Minute }),
			Limits: map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindSession: {Max: 1, AtLimit: afterlogin.EndOldest}}, Node: "east-1",
		})
		a, err := afterlogin.New(afterlogin.Config{Store: memstore.New(), Rehearsal: r.Config()})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		in := make(map[string]afterlogin.Issued)
		for _, who := range []string{"mia", "tom", "kim"} {
			if in[who], err = a.Issue(t.Context(), afterlogin.IssueRequest{Subject: who}); err != nil {
				t.Fatal(err)
			}
		}
		use := func(people ...string) {
			t.Helper()
			for _, who := range people {
				if _, err := a.Validate(t.Context(), in[who].Token, afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for minute := range 90 {
			use("tom")
			if minute%20 == 0 && minute <= 40 {
				use("mia", "mia")
			}
			if minute%10 == 0 {
				use("kim")
			}
			time.Sleep(time.Minute)
		}
		second, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "tom"})
		if err != nil {
			t.Fatal(err)
		}
		got := r.Report()
		if len(got.Rules) != 2 || got.People != 2 || got.Twice != 1 || got.Node != "east-1" || got.At.Sub(got.Since) != 90*time.Minute {
			t.Fatalf("report %+v", got)
		}
		idle, limit := got.Rules[0], got.Rules[1]
		if idle.Rule != "idle" || idle.Policy != "browser" || idle.Setting != "15m" || idle.Real != "1h" || idle.Occasions != 2 || idle.Sessions != 1 || idle.People != 1 ||
			idle.Twice != 1 || idle.Seen != (Seen{3, 3}) || idle.Estimated || len(idle.Examples) != 2 || idle.Examples[0].Subject != "mia" || idle.Examples[0].By != 4*60 {
			t.Errorf("idle: %+v", idle)
		}
		if limit.Rule != "session_limit" || limit.Kind != "session" || limit.Setting != "1" || limit.Real != "none" || limit.AtLimit != "end_oldest" || limit.Occasions != 1 ||
			limit.Examples[0].Session != string(in["tom"].Session.ID) || limit.Examples[0].Count != 2 || limit.Examples[0].Session == string(second.Session.ID) {
			t.Errorf("limit: %+v", limit)
		}
		days := 0
		for _, d := range idle.Days {
			days += d.Occasions
		}
		if days != 2 {
			t.Errorf("days: %+v", idle.Days)
		}
	})
}

// A million people: memory is bounded, and the estimate is near.
func TestEstimate(t *testing.T) {
	r := New(Options{Policies: afterlogin.DefaultPolicies(), Stricter: stricter(func(p *afterlogin.Policy) { p.Idle = time.Minute })})
	n := 300_000
	var all sync.WaitGroup
	for part := range 4 {
		all.Go(func() {
			for i := part; i < n; i += 4 {
				e := afterlogin.Rehearsed{
					Rule: afterlogin.RehearsedIdle, Policy: afterlogin.PolicyBrowser, Session: afterlogin.SessionID(fmt.Sprint("ses_", i)),
					Subject: fmt.Sprint(i / 3), At: time.Unix(int64(i), 0), Occasion: 7,
				}
				r.struck(e)
				r.struck(e) // told twice
			}
		})
	}
	all.Wait()
	if r.sample.held > hashes {
		t.Errorf("%d hashes are kept", r.sample.held)
	}
	got := r.Report().Rules[0]
	if !got.Estimated || !near(got.Occasions, n) || !near(got.Sessions, n) || !near(got.People, n/3) || !near(got.Twice, n/3) || len(got.Examples) != maxExamples || len(got.Days) > maxDays {
		t.Errorf("%d occasions of %d, %d examples, %d days", got.Occasions, n, len(got.Examples), len(got.Days))
	}
	sum := 0
	for _, d := range got.Days {
		sum += d.Occasions
	}
	if !near(sum, n) {
		t.Errorf("%d on all days, want about %d", sum, n)
	}
}

func near(got, want int) bool { return math.Abs(float64(got-want)) < 0.1*float64(want) }

func TestNothingToRehearse(t *testing.T) {
	r := New(Options{Policies: afterlogin.DefaultPolicies()})
	if c := r.Config(); r.Any() || c.Report != nil || len(r.Report().Rules) != 0 {
		t.Errorf("%+v", c)
	}
}
