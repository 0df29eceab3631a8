package afterlogin

import (
	"fmt"
	"maps"
	"time"
)

// A Policy says how long a credential lives and how its token is renewed.
type Policy struct {
	// Idle ends a session that long after its last use. Zero, no idle limit, is for API keys only.
	Idle time.Duration
	// Absolute ends it that long after its creation, however it is used. Zero, no end, is for API keys only, and then
	// Issue must ask for it by name.
	Absolute time.Duration
	// Renewal is after how much time the token is replaced, in the answer to the next request. Zero: only by hand.
	Renewal time.Duration
	// Grace is for how long a replaced token is still good, for requests that were under way and tabs that come late.
	Grace time.Duration
	// KeepOnReuse refuses an out-of-date token without ending its session. For API keys, where a forgotten copy is an
	// accident and the end of the key an outage.
	KeepOnReuse bool
	// Persistent lets the browser keep the cookie after it was closed.
	Persistent bool
}

// The names of the built-in policies.
const (
	PolicyBrowser   = "browser"
	PolicyRemember  = "remember"
	PolicyConsole   = "console"
	PolicyAnonymous = "anonymous"
	PolicyAPIKey    = "api-key"
	// Of OAuth grants: of clients that cannot keep a secret (apps on phones and in browsers), and of those that can.
	PolicyRefreshPublic       = "refresh-public"
	PolicyRefreshConfidential = "refresh-confidential"
	// Of tokens that live under others, and end by their absolute lifetime alone.
	PolicyAccess = "access"
	PolicyJWT    = "jwt"
	PolicyCode   = "code"
	PolicyTicket = "ticket"
	// PolicyClient is that of registered OAuth clients, which do not end by time.
	PolicyClient = "client"
)

// DefaultPolicies returns the built-in policies by name. The numbers are those of OWASP ASVS 5.0 V7 and NIST SP 800-63B-4
// at AAL2, or stricter; docs/policies.md gives the reasons.
func DefaultPolicies() map[string]Policy {
	return maps.Clone(defaultPolicies)
}

const day = 24 * time.Hour

var defaultPolicies = map[string]Policy{
	PolicyBrowser:   {Idle: time.Hour, Absolute: day, Renewal: 15 * time.Minute, Grace: 30 * time.Second},
	PolicyRemember:  {Idle: 14 * day, Absolute: 30 * day, Renewal: 15 * time.Minute, Grace: 30 * time.Second, Persistent: true},
	PolicyConsole:   {Idle: 15 * time.Minute, Absolute: 8 * time.Hour, Renewal: 5 * time.Minute, Grace: 30 * time.Second},
	PolicyAnonymous: {Idle: day, Absolute: 7 * day, Renewal: 15 * time.Minute, Grace: 30 * time.Second},
	PolicyAPIKey:    {Absolute: 365 * day, KeepOnReuse: true},

	PolicyRefreshPublic:       {Idle: 7 * day, Absolute: 30 * day, Grace: 10 * time.Second},
	PolicyRefreshConfidential: {Idle: 30 * day, Absolute: 180 * day, Grace: 10 * time.Second},

	PolicyAccess: {Absolute: 30 * time.Minute},
	PolicyJWT:    {Absolute: 5 * time.Minute},
	PolicyCode:   {Absolute: time.Minute},
	PolicyTicket: {Absolute: 30 * time.Second},
	PolicyClient: {KeepOnReuse: true},
}

// longest says how long the policies of short-lived tokens may be at most.
var longest = map[string]time.Duration{
	PolicyAccess: day, PolicyJWT: time.Hour, PolicyCode: 10 * time.Minute, PolicyTicket: 5 * time.Minute,
}

// CheckPolicy reports what is wrong with the policy of that name, if anything.
func CheckPolicy(name string, p Policy) error {
	most, short := longest[name]
	if err := p.Check(short || name == PolicyAPIKey || name == PolicyClient); err != nil {
		return err
	}
	switch {
	case short && (p.Absolute == 0 || p.Absolute > most):
		return fmt.Errorf("absolute: want 1s to %v for what nobody renews", most)
	case short && (p.Idle != 0 || p.Renewal != 0 || p.Grace != 0):
		return fmt.Errorf("idle, renewal and grace mean nothing to %s: leave them away", name)
	case (name == PolicyRefreshPublic || name == PolicyRefreshConfidential) && p.Renewal != 0:
		return fmt.Errorf("renewal means nothing to %s: each use renews", name)
	case name == PolicyClient && p != defaultPolicies[PolicyClient]:
		return fmt.Errorf("%s cannot be changed", name)
	}
	return nil
}

// Times that are the same for every policy.
const (
	// seenGrace is how much longer a replaced token is good once its successor has been used: for requests that left
	// the browser before the answer with the new cookie arrived.
	seenGrace = 5 * time.Second
	// stepUpGrace is for how long a token replaced by a step-up is called superseded rather than reused. It is refused
	// all the while; this only spares the session of a person whose other tabs were loading.
	stepUpGrace = 60 * time.Second
	// clockSkew is how far the clock may be behind the time of a rotation before it is taken to have been set back.
	clockSkew = 5 * time.Second
	// closing is for how long a sign-in keeps others from writing the data that it moves.
	closing = 30 * time.Second
	// moved is for how long after a sign-in the data of the session that it replaced can be moved once more.
	moved = 60 * time.Second
	// maxReplaced is how often in a row a lost answer is forgiven.
	maxReplaced = 2
	// ringSize is how many rotations a record remembers.
	ringSize = 4
)

// touchInterval is how far the time of last use may fall behind before it is written: the idle limit may strike that
// much too early, never too late.
func (p Policy) touchInterval() time.Duration {
	if p.Idle == 0 {
		return time.Minute // for display only
	}
	return min(max(p.Idle/20, time.Second), time.Minute)
}

// Check reports what is wrong with the policy, if anything. forKeys allows what only API keys may have.
func (p Policy) Check(forKeys bool) error {
	switch {
	case p.Absolute < 0 || p.Idle < 0 || p.Renewal < 0 || p.Grace < 0:
		return fmt.Errorf("a duration is negative")
	case !forKeys && p.Absolute == 0:
		return fmt.Errorf("absolute is not set: a session must end some day")
	case !forKeys && p.Idle == 0:
		return fmt.Errorf("idle is not set: a session that nobody uses must end")
	case p.Absolute > 0 && p.Absolute < time.Second:
		return fmt.Errorf("absolute: %v is under a second", p.Absolute)
	case p.Idle > 0 && p.Idle < 2*time.Second:
		return fmt.Errorf("idle: %v is under two seconds", p.Idle)
	case p.Absolute > 0 && p.Idle > p.Absolute:
		return fmt.Errorf("idle: %v is longer than absolute, %v", p.Idle, p.Absolute)
	case p.Absolute > 400*day && !forKeys:
		return fmt.Errorf("absolute: %v is over 400 days, the longest that browsers keep a cookie", p.Absolute)
	case p.Grace > time.Minute:
		return fmt.Errorf("grace: %v is over a minute", p.Grace)
	case p.Renewal > 0 && p.Renewal < p.Grace:
		return fmt.Errorf("renewal: %v is shorter than grace, %v", p.Renewal, p.Grace)
	}
	return nil
}

// policy returns the policy of that name, or, if the configuration no longer has it, the one for browsers: the
// strictest that an ordinary session was ever promised.
func (a *Authority) policy(name string) Policy {
	if p, ok := a.policies[name]; ok {
		return p
	}
	return a.policies[PolicyBrowser]
}
