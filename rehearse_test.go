package afterlogin_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// audience hears what a rehearsal reports.
type audience struct {
	mu   sync.Mutex
	all  []afterlogin.Rehearsed
	seen []string
}

func (a *audience) report(r afterlogin.Rehearsed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, r)
}

// heard returns what was reported since it was last asked.
func (a *audience) heard() []afterlogin.Rehearsed {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.all
	a.all = nil
	return out
}

func (a *audience) wants(t *testing.T, what string, rules ...string) []afterlogin.Rehearsed {
	t.Helper()
	all := a.heard()
	var got []string
	for _, r := range all {
		got = append(got, r.Rule)
	}
	if !slices.Equal(got, rules) {
		t.Fatalf("%s: reported %v, want %v", what, got, rules)
	}
	return all
}

// rehearsing is an authority that rehearses a stricter form of the policy for browsers.
func rehearsing(t testing.TB, change func(*afterlogin.Policy), more ...func(*afterlogin.Config)) (*house, *audience) {
	heard := &audience{}
	return newHouse(t, append([]func(*afterlogin.Config){func(c *afterlogin.Config) {
		p := afterlogin.DefaultPolicies()[afterlogin.PolicyBrowser]
		change(&p)
		c.Rehearsal.Policies = map[string]afterlogin.Policy{afterlogin.PolicyBrowser: p}
		c.Rehearsal.Report = heard.report
		c.Rehearsal.Seen = func(s *afterlogin.Session) {
			heard.mu.Lock()
			defer heard.mu.Unlock()
			heard.seen = append(heard.seen, s.Subject)
		}
	}}, more...)...), heard
}

func TestRehearseIdle(t *testing.T) {
	for name, size := range map[string]int{"from the cache": 0, "from the store": -1} {
		t.Run(name, func(t *testing.T) {
			h, heard := rehearsing(t, func(p *afterlogin.Policy) { p.Idle = 15 * time.Minute }, func(c *afterlogin.Config) { c.CacheSize = size })
			in := h.signIn("mia")
			for range 20 { // not idle at all
				h.clock.pass(10 * time.Second)
				h.use(in.Token, home, "")
			}
			heard.wants(t, "in use")
			h.clock.pass(10 * time.Minute)
			h.use(in.Token, home, "")
			heard.wants(t, "after 10 minutes")
			h.clock.pass(20 * time.Minute)
			h.use(in.Token, home, "")
			r := heard.wants(t, "after 20 minutes", afterlogin.RehearsedIdle)[0]
			if r.Session != in.Session.ID || r.Subject != "mia" || r.Policy != afterlogin.PolicyBrowser || r.Kind != afterlogin.KindSession ||
				r.By < 3*time.Minute || r.By > 5*time.Minute || !r.At.Equal(h.clock.now()) {
				t.Errorf("reported %+v", r)
			}
			h.use(in.Token, home, "")
			h.clock.pass(time.Minute)
			h.use(in.Token, home, "")
			heard.wants(t, "in use again")
			h.clock.pass(20 * time.Minute)
			h.use(in.Token, home, "")
			if again := heard.wants(t, "once more", afterlogin.RehearsedIdle)[0]; again.Occasion == r.Occasion {
				t.Error("two occasions have one number")
			}
			h.clock.pass(61 * time.Minute)
			h.use(in.Token, home, afterlogin.ReasonIdle)
			heard.wants(t, "after a refusal")
			if !slices.Contains(heard.seen, "mia") {
				t.Error("nobody was seen")
			}
		})
	}
}

func TestRehearseAbsolute(t *testing.T) {
	h, heard := rehearsing(t, func(p *afterlogin.Policy) { p.Absolute = 2 * time.Hour })
	in := h.signIn("mia")
	tok := in.Token
	occasions := make(map[uint64]bool)
	for range 5 * 4 {
		h.clock.pass(15 * time.Minute)
		tok = h.orRenewed(tok)
		for _, r := range heard.heard() {
			if r.Rule != afterlogin.RehearsedAbsolute || r.Session != in.Session.ID {
				t.Fatalf("reported %+v", r)
			}
			occasions[r.Occasion] = true
		}
	}
	if len(occasions) != 2 { // after two hours, and after four
		t.Errorf("in five hours %d sign-outs of a limit of two hours", len(occasions))
	}
}

func TestRehearseGrace(t *testing.T) {
	h, heard := rehearsing(t, func(p *afterlogin.Policy) { p.Grace = 0 })
	in := h.signIn("mia")
	tok := h.renewed(in.Token, home)
	h.use(in.Token, home, "")
	heard.wants(t, "a token whose successor nobody has used: an answer that was lost is forgiven")
	h.use(tok, home, "")
	h.use(in.Token, train, "")
	r := heard.wants(t, "a token whose successor is in use", afterlogin.RehearsedGrace)[0]
	if r.Session != in.Session.ID || r.Subject != "mia" {
		t.Errorf("reported %+v", r)
	}
	h.use(tok, home, "")
	heard.wants(t, "the current token")
	if h.standing(tok, afterlogin.KindSession) != "good" {
		t.Error("a rehearsal has ended a session")
	}
}

func TestRehearseLimit(t *testing.T) {
	for _, at := range []afterlogin.AtLimit{afterlogin.DenyNew, afterlogin.EndOldest} {
		heard := &audience{}
		h := newHouse(t, func(c *afterlogin.Config) {
			c.Rehearsal.Limits = map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindSession: {Max: 2, AtLimit: at}}
			c.Rehearsal.Report = heard.report
		})
		var all []afterlogin.Issued
		for range 2 {
			all = append(all, h.signIn("mia"))
			h.clock.pass(time.Second)
		}
		h.signIn("tom")
		heard.wants(t, "below the limit")
		for i := range 2 {
			all = append(all, h.signIn("mia"))
			h.clock.pass(time.Second)
			r := heard.wants(t, "over the limit", afterlogin.RehearsedLimit)[0]
			want := all[len(all)-1]
			if at == afterlogin.EndOldest {
				want = all[i]
			}
			if r.Session != want.Session.ID || r.Count != 3+i || r.Subject != "mia" {
				t.Errorf("%v: reported %+v, want %v", at, r, want.Session.ID)
			}
		}
		if h.good(afterlogin.KindSession, all...) != 4 {
			t.Error("a rehearsal has ended a session")
		}
	}
}

// Past the stricter absolute limit an entry of the cache tells of each occasion once, and of a shorter idle limit still.
func TestRehearseOncePerOccasion(t *testing.T) {
	h, heard := rehearsing(t, func(p *afterlogin.Policy) { p.Idle, p.Absolute = 30*time.Minute, 100*time.Minute })
	tok := h.signIn("mia").Token
	for range 40 { // 200 minutes but 200 ms, without a pause
		h.clock.pass(5*time.Minute - 5*time.Millisecond)
		tok = h.orRenewed(tok)
	}
	h.use(tok, home, "")
	h.use(tok, home, "")
	heard.heard()
	for range 50 {
		h.use(tok, home, "")
	}
	heard.wants(t, "of what was told already")
	h.clock.pass(300 * time.Millisecond) // well within the lease: from the cache
	for range 50 {
		h.use(tok, home, "")
	}
	if r := heard.wants(t, "after 200 minutes", afterlogin.RehearsedAbsolute)[0]; r.Occasion != 2 {
		t.Errorf("%+v", r)
	}
	h.clock.pass(40 * time.Minute)
	h.use(tok, home, "")
	if all := heard.heard(); len(all) == 0 || all[0].Rule != afterlogin.RehearsedIdle {
		t.Errorf("after a pause: %+v", all)
	}
}

// listed counts the records that are listed.
type listed struct {
	store.Store
	mu sync.Mutex
	n  int
}

func (l *listed) List(ctx context.Context, q store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		for r, err := range l.Store.List(ctx, q) {
			l.mu.Lock()
			l.n++
			l.mu.Unlock()
			if !yield(r, err) {
				return
			}
		}
	}
}

// A sign-in of somebody who has very much waits for a bounded number of records to be looked at, whatever they are of.
func TestRehearsedLimitsAreBounded(t *testing.T) {
	l, heard := &listed{Store: memstore.New()}, &audience{}
	h := newHouse(t, func(c *afterlogin.Config) {
		c.Store = l
		c.Rehearsal.Limits = map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindAPIKey: {Max: 1}}
		c.Rehearsal.Report = heard.report
	})
	for range 1500 {
		h.signIn("svc")
	}
	if l.n != 0 {
		t.Errorf("%d records were looked at for a kind without a limit", l.n)
	}
	h.key(afterlogin.IssueRequest{})
	if l.n < 1000 || l.n > 1001 {
		t.Errorf("%d records were looked at", l.n)
	}
}

// hung lists nothing, and waits for the end of the context.
type hung struct{ store.Store }

func (hung) List(ctx context.Context, _ store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		<-ctx.Done()
		yield(nil, ctx.Err())
	}
}

// A sign-in that is made waits for its rehearsal for a second at most.
func TestARehearsedLimitDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := afterlogin.New(afterlogin.Config{Store: hung{memstore.New()}, Rehearsal: afterlogin.Rehearsal{
			Limits: map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindSession: {Max: 1}}, Report: func(afterlogin.Rehearsed) {},
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		began := time.Now()
		_, err = a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"})
		if took := time.Since(began); err != nil || took > 2*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// writes counts what is written to a store.
type writes struct {
	store.Store
	mu sync.Mutex
	n  int
}

func (w *writes) Apply(ctx context.Context, root store.ID, ops ...store.Op) error {
	w.mu.Lock()
	w.n++
	w.mu.Unlock()
	return w.Store.Apply(ctx, root, ops...)
}

// A day with and without a rehearsal gives the same answers and the same writes.
func TestARehearsalChangesNothing(t *testing.T) {
	day := func(rehearse bool) (answers []string, n int) {
		w := &writes{Store: memstore.New()}
		h, _ := rehearsing(t, func(p *afterlogin.Policy) { p.Idle, p.Absolute, p.Grace = 15*time.Minute, time.Hour, 0 }, func(c *afterlogin.Config) {
			c.Store = w
			c.Rehearsal.Limits = map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindSession: {Max: 1}}
			if !rehearse {
				c.Rehearsal = afterlogin.Rehearsal{}
			}
		})
		var toks []afterlogin.Token
		for i := range 30 {
			toks = append(toks, h.signIn("mia").Token)
			for _, tok := range toks[max(0, i-3):] {
				answers = append(answers, h.standing(tok, afterlogin.KindSession))
				if next := h.renew(tok, home); !next.IsZero() {
					toks = append(toks, next)
				}
			}
			h.clock.pass(time.Duration(i*3) * time.Minute)
		}
		return answers, w.n
	}
	a, n := day(false)
	b, m := day(true)
	if !slices.Equal(a, b) || n != m {
		t.Errorf("%d writes without and %d with a rehearsal; the answers are the same: %v", n, m, slices.Equal(a, b))
	}
}

func TestRehearsalsAreChecked(t *testing.T) {
	browser := afterlogin.DefaultPolicies()[afterlogin.PolicyBrowser]
	report := func(afterlogin.Rehearsed) {}
	with := func(change func(*afterlogin.Policy)) afterlogin.Rehearsal {
		p := browser
		change(&p)
		return afterlogin.Rehearsal{Policies: map[string]afterlogin.Policy{afterlogin.PolicyBrowser: p}, Report: report}
	}
	for name, r := range map[string]afterlogin.Rehearsal{
		"nobody listens":        {Policies: with(func(*afterlogin.Policy) {}).Policies},
		"no such policy":        {Policies: map[string]afterlogin.Policy{"kiosk": browser}, Report: report},
		"longer idle":           with(func(p *afterlogin.Policy) { p.Idle = 2 * time.Hour }),
		"longer absolute":       with(func(p *afterlogin.Policy) { p.Absolute = 25 * time.Hour }),
		"longer grace":          with(func(p *afterlogin.Policy) { p.Grace = 40 * time.Second }),
		"another renewal":       with(func(p *afterlogin.Policy) { p.Renewal = time.Minute }),
		"a policy that is none": with(func(p *afterlogin.Policy) { p.Idle = time.Millisecond }),
		"no limit":              {Limits: map[afterlogin.Kind]afterlogin.SessionLimit{afterlogin.KindSession: {}}, Report: report},
	} {
		if _, err := afterlogin.New(afterlogin.Config{Store: memstore.New(), Rehearsal: r}); !errors.Is(err, afterlogin.ErrBadRequest) {
			t.Errorf("%s: New = %v, want ErrBadRequest", name, err)
		}
	}
}

// BenchmarkValidateRehearsed is BenchmarkValidate with a rehearsal that nobody comes to.
func BenchmarkValidateRehearsed(b *testing.B) {
	h, _ := rehearsing(b, func(p *afterlogin.Policy) { p.Idle, p.Absolute = 15*time.Minute, time.Hour })
	tokens := make([]string, 10_000)
	for i := range tokens {
		got, err := h.Issue(b.Context(), afterlogin.IssueRequest{Subject: fmt.Sprint(i)})
		if err != nil {
			b.Fatal(err)
		}
		tokens[i] = got.Token.Reveal()
	}
	e := afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}
	i := 0
	next := func() {
		if _, err := h.Validate(b.Context(), afterlogin.TokenFrom(tokens[i%len(tokens)]), e); err != nil {
			b.Fatal(err)
		}
		i++
	}
	for range tokens {
		next()
	}
	b.ReportAllocs()
	for b.Loop() {
		next()
	}
}
