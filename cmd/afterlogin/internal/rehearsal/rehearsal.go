// Package rehearsal counts whom stricter rules would have signed out, while the real rules go on: a shorter idle or
// absolute limit, a shorter grace, a session limit. Memory is bounded: up to so many sessions and people are told apart one
// by one, and beyond that they are estimated from a sample, which the answer says.
//
// Start with [New], give [Rehearsal.Config] to the authority, and ask [Rehearsal.Report].
package rehearsal

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

const (
	// hashes bounds what is told apart, over all rules together.
	hashes = 100_000
	// maxExamples is how many occasions of a rule are kept.
	maxExamples = 20
	// maxDays is how many days are kept.
	maxDays = 31
)

// Options configure New. Policies are the real ones.
type Options struct {
	Policies map[string]afterlogin.Policy
	// Stricter are the policies to rehearse, by their names, and Limits the session limits.
	Stricter map[string]afterlogin.Policy
	Limits   map[afterlogin.Kind]afterlogin.SessionLimit
	// Real are the session limits that hold.
	Real map[afterlogin.Kind]afterlogin.SessionLimit
	Node string
	Now  func() time.Time // nil means time.Now
}

// A Rehearsal gathers what an authority reports. It needs no end.
type Rehearsal struct {
	o     Options
	since time.Time
	now   func() time.Time

	mu     sync.Mutex
	sample sample
	rules  []*rule
	people distinct // whom any of them would have signed out
	seen   map[string]crowd
}

// crowd is who was seen, of one policy or one kind.
type crowd struct{ sessions, people distinct }

// rule is one rule of one policy, or one limit.
type rule struct {
	Rule
	policy    string
	kind      afterlogin.Kind // of a limit
	occasions distinct
	sessions  distinct
	people    distinct // with how often each would have been signed out
	days      map[string]int
	examples  []Example // the latest, in a ring
	at        int
}

// New returns a rehearsal of what is stricter than the real rules.
func New(o Options) *Rehearsal {
	r := &Rehearsal{o: o, now: o.Now, seen: make(map[string]crowd), sample: sample{most: hashes}}
	r.people = r.sample.set()
	if r.now == nil {
		r.now = time.Now
	}
	r.since = r.now().UTC()
	for _, name := range slices.Sorted(maps.Keys(o.Stricter)) {
		strict, have := o.Stricter[name], o.Policies[name]
		for _, f := range []struct {
			rule   string
			strict time.Duration
			real   time.Duration
		}{
			{afterlogin.RehearsedIdle, strict.Idle, have.Idle}, {afterlogin.RehearsedAbsolute, strict.Absolute, have.Absolute},
			{afterlogin.RehearsedGrace, strict.Grace, have.Grace},
		} {
			if f.strict != f.real {
				r.add(&rule{policy: name, Rule: Rule{Rule: f.rule, Policy: name, Setting: config.Duration(f.strict).String(), Real: config.Duration(f.real).String()}})
			}
		}
	}
	for _, k := range []afterlogin.Kind{afterlogin.KindSession, afterlogin.KindAPIKey, afterlogin.KindRefresh} {
		if l, ok := o.Limits[k]; ok {
			real := "none"
			if have, ok := o.Real[k]; ok {
				real = fmt.Sprint(have.Max)
			}
			r.add(&rule{kind: k, Rule: Rule{Rule: afterlogin.RehearsedLimit, Kind: k.String(), Setting: fmt.Sprint(l.Max), AtLimit: l.AtLimit.String(), Real: real}})
		}
	}
	return r
}

func (r *Rehearsal) add(u *rule) {
	u.days = make(map[string]int)
	u.occasions, u.sessions, u.people = r.sample.set(), r.sample.set(), r.sample.set()
	r.rules = append(r.rules, u)
	if _, ok := r.seen[u.crowd()]; !ok {
		r.seen[u.crowd()] = crowd{r.sample.set(), r.sample.set()}
	}
}

// crowd names those whom the rule could strike.
func (u *rule) crowd() string {
	if u.kind != 0 {
		return "kind " + u.kind.String()
	}
	return "policy " + u.policy
}

// Any reports whether there is anything to rehearse.
func (r *Rehearsal) Any() bool { return len(r.rules) > 0 }

// Config is what the authority is told. It is the zero value if there is nothing to rehearse.
func (r *Rehearsal) Config() afterlogin.Rehearsal {
	if !r.Any() {
		return afterlogin.Rehearsal{}
	}
	return afterlogin.Rehearsal{Policies: r.o.Stricter, Limits: r.o.Limits, Report: r.struck, Seen: r.saw}
}

// person names whom a session belongs to; one that nobody has signed in to is somebody of its own.
func person(session afterlogin.SessionID, tenant uint32, subject string) uint64 {
	if subject == "" {
		return hash("nobody", string(session), 0, 0)
	}
	return hash("subject", subject, tenant, 0)
}

// saw is afterlogin.Rehearsal.Seen.
func (r *Rehearsal) saw(s *afterlogin.Session) {
	who := person(s.ID, s.Tenant, s.Subject)
	session := of(who, hash("session", string(s.ID), 0, 0))
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.sample.has(who) {
		return
	}
	for _, name := range []string{"policy " + s.Policy, "kind " + s.Kind.String()} {
		if c, ok := r.seen[name]; ok {
			r.sample.note(c.sessions, session, false)
			if s.Subject != "" {
				r.sample.note(c.people, who, false)
			}
		}
	}
	r.sample.thin()
}

// struck is afterlogin.Rehearsal.Report.
func (r *Rehearsal) struck(e afterlogin.Rehearsed) {
	who := person(e.Session, e.Tenant, e.Subject)
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.rules, func(u *rule) bool {
		return u.Rule.Rule == e.Rule && (u.kind != 0 && u.kind == e.Kind || u.kind == 0 && u.policy == e.Policy)
	})
	if i < 0 || !r.sample.has(who) {
		return
	}
	u := r.rules[i]
	if !r.sample.note(u.occasions, of(who, hash("occasion", string(e.Session), 0, e.Occasion)), false) {
		return // told before
	}
	r.sample.note(u.sessions, of(who, hash("session", string(e.Session), 0, 0)), false)
	if e.Subject != "" {
		r.sample.note(u.people, who, true)
		r.sample.note(r.people, who, true)
	}
	day := e.At.UTC().Format(time.DateOnly)
	u.days[day] += 1 << r.sample.level
	if len(u.days) > maxDays {
		delete(u.days, slices.Min(slices.Collect(maps.Keys(u.days))))
	}
	r.sample.thin()
	x := Example{Session: string(e.Session), Subject: e.Subject, Tenant: e.Tenant, At: e.At.UTC(), By: int64(e.By / time.Second), Count: e.Count}
	if len(u.examples) < maxExamples {
		u.examples = append(u.examples, x)
		return
	}
	u.examples[u.at] = x
	u.at = (u.at + 1) % maxExamples
}
