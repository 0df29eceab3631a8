package afterlogin

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// A Rehearsal is stricter rules that run beside the real ones and only tell whom they would have signed out. It changes no
// answer and writes nothing; its zero value is none, which costs nothing.
//
// Each rule is looked at by itself, and against what really happens: who would have been signed out by a shorter idle
// limit goes on here, and may come to the shorter absolute limit, too.
type Rehearsal struct {
	// Policies are stricter forms of the authority's policies, by their names: of Idle, Absolute and Grace, what is shorter
	// is rehearsed; a Grace of 0 is none. Everything else must be as it is.
	Policies map[string]Policy
	// Limits are session limits. Each sign-in of a kind that has one costs a list of the subject's sessions, of up to 1,000
	// records: what is behind these is not counted.
	Limits map[Kind]SessionLimit
	// Report is called with what would have happened. Required where there is anything to rehearse. It is called from
	// within validations and sign-ins, by many at once: it must be quick and must not call the Authority. It may be told of
	// one Occasion several times.
	Report func(Rehearsed)
	// Seen, if not nil, is called with sessions that are in use: with each at its first use on this authority, and again
	// now and then. It is what the reported ones are a part of. The same rules hold for it.
	Seen func(*Session)
}

// The rules of a rehearsal.
const (
	RehearsedIdle     = "idle"          // used again later than the stricter policy has it
	RehearsedAbsolute = "absolute"      // older than that
	RehearsedGrace    = "grace"         // a replaced token that came too late for it, and would have counted as stolen
	RehearsedLimit    = "session_limit" // a sign-in that was one too many
)

// A Rehearsed is one time that a stricter rule would have struck.
type Rehearsed struct {
	Rule   string
	Policy string // its name; of a limit: the session's
	// Session is who would have been signed out. Of a limit that denies: whose sign-in would have been refused.
	Session SessionID
	Kind    Kind
	Tenant  uint32
	Subject string // empty: nobody has signed in
	At      time.Time
	// By is by how much the rule was passed. Of a limit it is zero.
	By time.Duration
	// Count is how many there were, of a limit, as far as they were looked at.
	Count int
	// Occasion tells one time from another: the same number for the same session and rule is the same one.
	Occasion uint64
}

// rehearsal is a Rehearsal made ready. least are the shortest limits of all policies, in milliseconds: what a validation
// looks at first.
type rehearsal struct {
	Rehearsal
	leastIdle, leastAbsolute int64
}

// never is a limit that no validation comes to.
const never = int64(1) << 62

// openRehearsal checks a rehearsal against the real policies. It returns nil if there is nothing to rehearse.
func openRehearsal(r Rehearsal, policies map[string]Policy) (*rehearsal, error) {
	if len(r.Policies) == 0 && len(r.Limits) == 0 {
		return nil, nil
	}
	if r.Report == nil {
		return nil, badRequest("Config.Rehearsal.Report is nil: nobody would hear of it")
	}
	if err := checkLimits(r.Limits); err != nil {
		return nil, badRequest("rehearsal: %v", err)
	}
	out := &rehearsal{Rehearsal: r, leastIdle: never, leastAbsolute: never}
	out.Policies, out.Limits = make(map[string]Policy, len(r.Policies)), maps.Clone(r.Limits)
	for name, p := range r.Policies {
		strict, err := stricter(name, p, policies)
		if err != nil {
			return nil, err
		}
		if strict.Idle > 0 {
			out.leastIdle = min(out.leastIdle, strict.Idle.Milliseconds())
		}
		if strict.Absolute > 0 {
			out.leastAbsolute = min(out.leastAbsolute, strict.Absolute.Milliseconds())
		}
		out.Policies[name] = strict
	}
	return out, nil
}

// stricter returns what of the policy is to be rehearsed: Idle and Absolute are zero where they are as they are, Grace is
// the real one then.
func stricter(name string, p Policy, policies map[string]Policy) (Policy, error) {
	have, ok := policies[name]
	if !ok {
		return p, badRequest("rehearsal: there is no policy %q", name)
	}
	if err := CheckPolicy(name, p); err != nil {
		return p, badRequest("rehearsal: policy %s: %v", name, err)
	}
	for _, f := range []struct {
		what         string
		strict, real *time.Duration
	}{{"idle", &p.Idle, &have.Idle}, {"absolute", &p.Absolute, &have.Absolute}} {
		switch {
		case *f.strict == *f.real:
			*f.strict = 0
		case *f.strict == 0 || *f.real != 0 && *f.strict > *f.real:
			return p, badRequest("rehearsal: policy %s: %s: %v is not shorter than the real one, %v", name, f.what, *f.strict, *f.real)
		}
	}
	if p.Grace > have.Grace {
		return p, badRequest("rehearsal: policy %s: grace: %v is not shorter than the real one, %v", name, p.Grace, have.Grace)
	}
	if p.Renewal != have.Renewal || p.KeepOnReuse != have.KeepOnReuse || p.Persistent != have.Persistent {
		return p, badRequest("rehearsal: policy %s: only idle, absolute and grace can be rehearsed", name)
	}
	return p, nil
}

// look is called by a validation that says yes: of a session that was last seen at a time, which may be up to touch behind
// the truth. It is the whole cost of a rehearsal where nothing strikes. Whoever is past the stricter absolute limit stays so:
// quiet, of the session's entry in the cache, is the age in seconds before which there is nothing to tell again.
func (r *rehearsal) look(s *Session, ms, seen, touch int64, quiet *atomic.Uint32) {
	gap, age := ms-seen, ms-s.Created.UnixMilli()
	if gap >= r.leastIdle && gap-touch >= r.leastIdle || age >= r.leastAbsolute && age >= int64(quiet.Load())*1000 {
		r.strike(s, ms, seen, gap-touch, age, quiet)
	}
}

// strike looks more closely.
func (r *rehearsal) strike(s *Session, ms, seen, gap, age int64, quiet *atomic.Uint32) {
	p, ok := r.Policies[s.Policy]
	if !ok {
		quiet.Store(math.MaxUint32)
		return
	}
	if idle := p.Idle.Milliseconds(); idle > 0 && gap >= idle {
		r.report(s, RehearsedIdle, ms, time.Duration(gap-idle)*time.Millisecond, uint64(seen))
	}
	// Whoever is signed out by age signs in again, and is so old once more.
	life, next := p.Absolute.Milliseconds(), never
	if life > 0 {
		if age >= life {
			r.report(s, RehearsedAbsolute, ms, time.Duration(age-life)*time.Millisecond, uint64(age/life))
		}
		next = (age/life + 1) * life
	}
	quiet.Store(uint32(min(next/1000, math.MaxUint32)))
}

func (r *rehearsal) report(s *Session, rule string, ms int64, by time.Duration, occasion uint64) {
	r.Report(Rehearsed{
		Rule: rule, Policy: s.Policy, Session: s.ID, Kind: s.Kind, Tenant: s.Tenant, Subject: s.Subject,
		At: fromMillis(ms), By: by, Occasion: occasion,
	})
}

// decided is called with every yes that was decided on a read of the store.
func (r *rehearsal) decided(a *Authority, x *exam, s *Session, v verdict, e *Expect) {
	if r.Seen != nil {
		r.Seen(s)
	}
	r.look(s, x.now.UnixMilli(), x.rec.LastSeen, x.policy.touchInterval().Milliseconds(), new(atomic.Uint32))
	if v != graced && v != handOut {
		return
	}
	p, ok := r.Policies[s.Policy]
	if !ok || p.Grace >= x.policy.Grace {
		return
	}
	strict := *x
	strict.policy.Grace = p.Grace
	if a.judge(&strict, x.clientHash(e.From)) != reuse {
		return // it would have been taken for a lost answer, and forgiven
	}
	ms := x.now.UnixMilli()
	late := ms - (x.state.graceEnd(x.tok.Generation, x.policy) - x.policy.Grace.Milliseconds() + p.Grace.Milliseconds())
	r.report(s, RehearsedGrace, ms, time.Duration(max(late, 0))*time.Millisecond, uint64(x.tok.Generation))
}

// rehearsalWork and rehearsalTime bound how many records of a subject are looked at for a session limit, and for how
// long: the sign-in, which is made already, waits for it.
const (
	rehearsalWork = 1000
	rehearsalTime = time.Second
)

// rehearseLimit is called when a root of a subject has been made.
func (a *Authority) rehearseLimit(ctx context.Context, made *Session) {
	r := a.rehearsal
	if r == nil || made.Subject == "" || slices.Contains(a.unlimited, made.Tenant) {
		return
	}
	limit, ok := r.Limits[made.Kind]
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rehearsalTime)
	defer cancel()
	var all []*Session
	q, looked := Query{Tenant: made.Tenant, Subject: made.Subject, Kind: made.Kind}, 0
	for s, err := range a.records(ctx, q) {
		if err != nil {
			a.log.Debug("a session limit was not rehearsed", "session", made.ID, "err", err)
			return
		}
		if looked++; looked > rehearsalWork {
			break
		}
		if q.shows(s) && s.ID != made.ID {
			all = append(all, s)
		}
	}
	if len(all) < limit.Max {
		return
	}
	hit := made
	if limit.AtLimit == EndOldest { // those that would have gone before are here still: they are older
		slices.SortStableFunc(all, func(x, y *Session) int { return y.Created.Compare(x.Created) })
		hit = all[limit.Max-1]
	}
	r.Report(Rehearsed{
		Rule: RehearsedLimit, Policy: hit.Policy, Session: hit.ID, Kind: hit.Kind, Tenant: hit.Tenant, Subject: hit.Subject,
		At: a.now().UTC(), Count: len(all) + 1,
	})
}
