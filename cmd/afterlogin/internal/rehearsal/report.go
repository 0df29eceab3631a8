package rehearsal

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// A Report says whom the rehearsed rules would have signed out on this server since its start.
type Report struct {
	Node  string    `json:"node,omitempty" doc:"The server that counted. Each counts what it answered itself."`
	Since time.Time `json:"since" doc:"When it began: the server's start."`
	At    time.Time `json:"at" doc:"When this was."`
	// People and Twice are over all rules.
	People int    `json:"subjects" doc:"How many subjects any of the rules would have signed out."`
	Twice  int    `json:"subjects_twice" doc:"How many of them more than once."`
	Rules  []Rule `json:"rules"`
}

// A Rule is what became of one rule.
type Rule struct {
	Rule      string    `json:"rule" enum:"idle,absolute,grace,session_limit"`
	Policy    string    `json:"policy,omitempty" doc:"The policy that it is a stricter form of; not of a session limit."`
	Kind      string    `json:"kind,omitempty" doc:"Of a session limit: what is counted."`
	Setting   string    `json:"setting" doc:"What is rehearsed: a duration, or how many."`
	AtLimit   string    `json:"at_limit,omitempty" doc:"Of a session limit: deny or end_oldest."`
	Real      string    `json:"real" doc:"What holds."`
	Occasions int       `json:"occasions" doc:"How often it would have struck."`
	Sessions  int       `json:"sessions" doc:"How many sessions it would have struck."`
	People    int       `json:"subjects" doc:"How many subjects."`
	Twice     int       `json:"subjects_twice" doc:"How many of them more than once."`
	Seen      Seen      `json:"of" doc:"What they are a part of: what was in use of this policy, or of this kind."`
	Estimated bool      `json:"estimated" doc:"True if there were so many that the counts are estimated from a sample."`
	Days      []Day     `json:"days" doc:"By day, UTC; the last 31."`
	Examples  []Example `json:"examples" doc:"The latest, at most 20. Empty without the scope sessions:read."`
}

// Seen counts what was in use.
type Seen struct {
	Sessions int `json:"sessions"`
	People   int `json:"subjects"`
}

// A Day counts one day.
type Day struct {
	Day       string `json:"day"`
	Occasions int    `json:"occasions"`
}

// An Example is one time that a rule would have struck.
type Example struct {
	Session string    `json:"session"`
	Subject string    `json:"subject,omitempty"`
	Tenant  uint32    `json:"tenant"`
	At      time.Time `json:"at"`
	By      int64     `json:"by_seconds" doc:"By how much, in seconds; of a session limit 0."`
	Count   int       `json:"count,omitempty" doc:"Of a session limit: how many there were."`
}

// Report returns the counts as of now.
func (r *Rehearsal) Report() *Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := &r.sample
	out := &Report{Node: r.o.Node, Since: r.since, At: r.now().UTC(), People: n.count(r.people), Twice: n.twice(r.people), Rules: []Rule{}}
	for _, u := range r.rules {
		all := r.seen[u.crowd()]
		x := u.Rule
		x.Occasions, x.Sessions, x.People, x.Twice = n.count(u.occasions), n.count(u.sessions), n.count(u.people), n.twice(u.people)
		// One is seen before it is struck, but for what a limit denies.
		x.Seen = Seen{max(n.count(all.sessions), x.Sessions), max(n.count(all.people), x.People)}
		x.Estimated = n.level > 0
		x.Days, x.Examples = []Day{}, slices.Clone(u.examples)
		for _, day := range slices.Sorted(maps.Keys(u.days)) {
			x.Days = append(x.Days, Day{day, u.days[day]})
		}
		slices.SortStableFunc(x.Examples, func(a, b Example) int { return -cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
		if x.Examples == nil {
			x.Examples = []Example{}
		}
		out.Rules = append(out.Rules, x)
	}
	return out
}
