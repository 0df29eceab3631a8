// Package query is the language in which sessions are looked for: client=mobile last_seen<90d. The console, the API and
// the command line read it with the same parser, and a revocation decides with the same [Query.Match] as a search. It owns
// what a query means; it knows no store and no index. docs/search.md explains the language. Start with [Parse].
package query

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/device"
)

// Limits of a query.
const (
	MaxBytes  = 1000 // of its text
	MaxTerms  = 20
	MaxValues = 50 // of one "in"
)

// A Field is what a term is about.
type Field string

// The fields.
const (
	Subject  Field = "subject"
	Client   Field = "client"
	Name     Field = "name"
	Policy   Field = "policy"
	Scope    Field = "scope"
	Method   Field = "method"
	ACR      Field = "acr"
	Origin   Field = "origin"
	Kind     Field = "kind"
	State    Field = "state"
	Why      Field = "why"
	Device   Field = "device"
	IP       Field = "ip"
	Created  Field = "created"
	LastSeen Field = "last_seen"
	Expires  Field = "expires"
)

// A shape is the form that the values of a field have.
type shape uint8

const (
	isText   shape = iota // exact, or the beginning with a *
	isWord                // one of a few words
	isPart                // a part of the text, in upper or lower case
	isHandle              // a session's
	isAddr                // an address or a network
	isTime
)

// fields are the fields in the order in which messages list them.
var fields = []struct {
	field Field
	shape shape
	words []string // of isWord
	like  string   // an example, for messages
}{
	{Subject, isText, nil, "subject=mia"},
	{Client, isText, nil, "client=mobile"},
	{Kind, isWord, []string{"session", "api_key", "refresh_token"}, "kind=api_key"},
	{Policy, isText, nil, "policy=remember"},
	{State, isWord, []string{"live", "frozen", "ended", "expired", "idle", "revoked", "any"}, "state=frozen"},
	{Why, isText, nil, "why=reused"},
	{IP, isAddr, nil, "ip in 203.0.113.0/24"},
	{Device, isPart, nil, "device=firefox"},
	{Created, isTime, nil, "created<30d"},
	{LastSeen, isTime, nil, "last_seen<90d"},
	{Expires, isTime, nil, "expires<1h"},
	{Name, isText, nil, "name=deploy*"},
	{Scope, isText, nil, "scope=orders:read"},
	{Method, isText, nil, "method=pwd"},
	{ACR, isText, nil, "acr=urn:example:gold"},
	{Origin, isHandle, nil, "origin=ses_…"},
}

// Fields returns the names of the fields.
func Fields() []string {
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = string(fields[i].field)
	}
	return names
}

// An Op is how a term compares.
type Op string

// The operations.
const (
	Is     Op = "="
	IsNot  Op = "!="
	Before Op = "<"
	After  Op = ">"
	In     Op = "in"
	NotIn  Op = "not in"
)

// A Value is what a term compares with.
type Value struct {
	Text   string
	Prefix bool         // everything that begins with Text
	Net    netip.Prefix // of IP; the zero Prefix means no address
	At     time.Time    // of a time that is fixed
	Span   time.Duration
	fixed  bool // At is meant, not Span
	never  bool // of Expires
}

// A Term is one condition: FIELD OP VALUE.
type Term struct {
	Field  Field
	Op     Op
	Values []Value
	shape  shape
}

// A Query is what Parse has read. It is not changed any more, and safe for concurrent use. The zero Query has no term,
// and means everything that is not over.
type Query struct {
	terms []Term
	text  string
	over  bool // a term speaks of what is over
}

// Terms returns the terms, all of which must hold. They must not be changed.
func (q *Query) Terms() []Term { return q.terms }

// String returns the query as Parse reads it, in one form: two texts that mean the same term for term have one String.
func (q *Query) String() string { return q.text }

// Over reports whether the query speaks of the state, or of why something ended. Without that it means only what is not
// over: what is good, and what is frozen.
func (q *Query) Over() bool { return q.over }

// Subject returns the one subject that the query is about, if it names one in full.
func (q *Query) Subject() (string, bool) {
	for i := range q.terms {
		t := &q.terms[i]
		if t.Field == Subject && (t.Op == Is || t.Op == In) && len(t.Values) == 1 && !t.Values[0].Prefix && t.Values[0].Text != "" {
			return t.Values[0].Text, true
		}
	}
	return "", false
}

// Match reports whether the session is meant, at the moment now. It reads the session alone: what was just read from the
// store is decided exactly.
func (q *Query) Match(s *afterlogin.Session, now time.Time) bool {
	if !q.over && !s.Ended.IsZero() {
		return false
	}
	for i := range q.terms {
		if !q.terms[i].match(s, now) {
			return false
		}
	}
	return true
}

func (t *Term) match(s *afterlogin.Session, now time.Time) bool {
	switch t.Field {
	case Subject:
		return t.Text(s.Subject)
	case Client:
		return t.Text(s.Client)
	case Name:
		return t.Text(s.Name)
	case Policy:
		return t.Text(s.Policy)
	case Why:
		return t.Text(string(s.Why))
	case Origin:
		return t.Text(string(s.Origin))
	case Kind:
		return t.Text(s.Kind.String())
	case Scope:
		return t.AnyText(s.Scopes)
	case Method:
		return t.AnyText(s.Auth.AMR())
	case ACR:
		return t.Text(s.Auth.ACR())
	case Device:
		return t.Agent(s.Device.UserAgent)
	case IP:
		return t.Addr(s.Device.Addr)
	case State:
		return t.StateOf(!s.Ended.IsZero(), s.Frozen(), s.Why)
	case Created:
		return t.Time(s.Created, now)
	case LastSeen:
		return t.Time(s.LastSeen, now)
	case Expires:
		return t.Time(s.Absolute, now)
	}
	return false
}

// not reports whether the term turns the answer round.
func (t *Term) not() bool { return t.Op == IsNot || t.Op == NotIn }

// Text decides on a text: of every field but Device, IP and the times.
func (t *Term) Text(s string) bool {
	return slices.ContainsFunc(t.Values, func(v Value) bool {
		return v.Text == s || v.Prefix && strings.HasPrefix(s, v.Text)
	}) != t.not()
}

// AnyText decides on a list of texts, of which one is enough; "is not" means that none of them is. An empty value means
// a list without anything.
func (t *Term) AnyText(list []string) bool {
	return slices.ContainsFunc(t.Values, func(v Value) bool {
		if v.Text == "" && !v.Prefix {
			return len(list) == 0
		}
		return slices.ContainsFunc(list, func(s string) bool { return v.Text == s || v.Prefix && strings.HasPrefix(s, v.Text) })
	}) != t.not()
}

// Agent decides on a User-Agent header: by what stands in it, and in the name of the device that it stands for.
func (t *Term) Agent(userAgent string) bool {
	return t.AgentNamed(userAgent, strings.ToLower(device.Name(userAgent)))
}

// AgentNamed is Agent for whoever knows the name of the device, which must be in lower case.
func (t *Term) AgentNamed(userAgent, name string) bool {
	lower := strings.ToLower(userAgent)
	return slices.ContainsFunc(t.Values, func(v Value) bool {
		if v.Text == "" {
			return userAgent == ""
		}
		part := strings.ToLower(v.Text)
		return strings.Contains(lower, part) || strings.Contains(name, part)
	}) != t.not()
}

// Addr decides on an address. No address is in no network.
func (t *Term) Addr(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(t.Values, func(v Value) bool {
		if !v.Net.IsValid() {
			return !a.IsValid()
		}
		return v.Net.Contains(a)
	}) != t.not()
}

// StateOf decides on a state, which is made of these three.
func (t *Term) StateOf(ended, frozen bool, why afterlogin.Reason) bool {
	byTime := why == afterlogin.ReasonExpired || why == afterlogin.ReasonIdle
	return slices.ContainsFunc(t.Values, func(v Value) bool {
		switch v.Text {
		case "live":
			return !ended && !frozen
		case "frozen":
			return !ended && frozen
		case "ended":
			return ended
		case "expired", "idle":
			return ended && string(why) == v.Text
		case "revoked":
			return ended && !byTime
		}
		return true // any
	}) != t.not()
}

// Time decides on a time. The zero time is never, which comes after every other.
func (t *Term) Time(at, now time.Time) bool {
	v := &t.Values[0]
	switch {
	case v.never:
		return at.IsZero() != t.not()
	case at.IsZero():
		return t.Op == After
	}
	limit := v.At
	if !v.fixed {
		limit = now.Add(-v.Span)
		if t.Field == Expires { // the other times are past, and this one is to come
			limit = now.Add(v.Span)
		}
	}
	if t.Op == Before {
		return at.Before(limit)
	}
	return at.After(limit)
}
