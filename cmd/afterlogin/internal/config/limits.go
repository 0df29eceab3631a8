package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/afterlogin/afterlogin"
)

// maxSessions is the largest session limit.
const maxSessions = 100

// The section of stricter policies, and the variables that set them.
const (
	rehearsalSection  = "rehearsal.policies"
	RehearsalVariable = Prefix + "REHEARSAL_POLICY_<NAME>_<FIELD>"
)

// limit is what is set of one kind.
type limit struct {
	kind       afterlogin.Kind
	max, tried int
	at         string
}

func (c *Config) limits() []limit {
	return []limit{
		{afterlogin.KindSession, c.SessionLimit, c.RehearsalSessions, c.SessionAtLimit},
		{afterlogin.KindAPIKey, c.APIKeyLimit, c.RehearsalAPIKeys, c.APIKeyAtLimit},
		{afterlogin.KindRefresh, c.GrantLimit, c.RehearsalGrants, c.GrantAtLimit},
	}
}

func atLimit(text string) (afterlogin.AtLimit, bool) {
	for _, at := range []afterlogin.AtLimit{afterlogin.DenyNew, afterlogin.EndOldest} {
		if at.String() == text {
			return at, true
		}
	}
	return 0, false
}

// Limits are the session limits, for afterlogin.Config.
func (c *Config) Limits() map[afterlogin.Kind]afterlogin.SessionLimit {
	return c.limitsBy(func(l limit) int { return l.max })
}

// RehearsalLimits are those that are rehearsed.
func (c *Config) RehearsalLimits() map[afterlogin.Kind]afterlogin.SessionLimit {
	return c.limitsBy(func(l limit) int { return l.tried })
}

func (c *Config) limitsBy(most func(limit) int) map[afterlogin.Kind]afterlogin.SessionLimit {
	out := make(map[afterlogin.Kind]afterlogin.SessionLimit)
	for _, l := range c.limits() {
		if n := most(l); n > 0 {
			at, _ := atLimit(l.at)
			out[l.kind] = afterlogin.SessionLimit{Max: n, AtLimit: at}
		}
	}
	return out
}

// StricterPolicies are the policies that are rehearsed: the real ones with what is shorter.
func (c *Config) StricterPolicies() map[string]afterlogin.Policy {
	out := make(map[string]afterlogin.Policy)
	for name, fields := range c.RehearsalPolicies {
		p := c.Policies[name]
		for _, f := range policyFields {
			if d, set := fields[f.key]; set {
				*f.field(&p) = d
			}
		}
		out[name] = p
	}
	return out
}

// rehearsedKeys are what of a policy can be rehearsed.
var rehearsedKeys = []string{"idle", "absolute", "grace"}

// setRehearsed sets one duration of a stricter policy.
func (l *Loaded) setRehearsed(name, field, text string, at place) {
	key := rehearsalSection + "." + name + "." + field
	l.places[key] = at
	if !slices.Contains(rehearsedKeys, field) {
		l.unknown(key, field, rehearsedKeys, rehearsalSection+"."+name)
		return
	}
	d, err := ParseDuration(text)
	if err != nil {
		l.fault(key, "%v", err)
		return
	}
	c := &l.Config
	if c.RehearsalPolicies == nil {
		c.RehearsalPolicies = make(map[string]map[string]time.Duration)
	}
	if c.RehearsalPolicies[name] == nil {
		c.RehearsalPolicies[name] = make(map[string]time.Duration)
	}
	c.RehearsalPolicies[name][field] = d
}

// rehearsedPlace is the place of the value, or of the key if that is unknown.
func (l *Loaded) rehearsedPlace(key *ast.StringNode, name string, value ast.Node) place {
	if slices.Contains(rehearsedKeys, name) {
		return l.placeOf(value)
	}
	return l.placeOf(key)
}

// rehearsalVariable splits AFTERLOGIN_REHEARSAL_POLICY_BROWSER_IDLE into browser and idle.
func rehearsalVariable(k string) (name, field string, ok bool) {
	rest, ok := strings.CutPrefix(k, Prefix+"REHEARSAL_")
	if !ok {
		return "", "", false
	}
	return policyVariable(Prefix + rest)
}

// checkLimits reports what is wrong with the session limits and with what is rehearsed.
func (l *Loaded) checkLimits() {
	c := &l.Config
	for _, m := range c.limits() {
		key := "session_limits." + m.kind.String()
		if m.max < 0 || m.max > maxSessions {
			l.faultHint(key+".max", "0 is no limit", "%d is not between 1 and %d", m.max, maxSessions)
		}
		if _, ok := atLimit(m.at); !ok {
			l.fault(key+".at_limit", "%q is not end_oldest or deny", clip(m.at))
		}
		switch key := "rehearsal.session_limits." + m.kind.String(); {
		case m.tried < 0 || m.tried > maxSessions:
			l.faultHint(key, "0 rehearses none", "%d is not between 1 and %d", m.tried, maxSessions)
		case m.tried > 0 && m.max > 0 && m.tried >= m.max:
			l.fault(key, "%d is not less than the limit that holds, %d", m.tried, m.max)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.RehearsalPolicies)) {
		have, ok := c.Policies[name]
		fields := c.RehearsalPolicies[name]
		if !ok {
			for field := range fields {
				l.faultHint(rehearsalSection+"."+name+"."+field, "there are "+strings.Join(sortedPolicies(c.Policies), ", "), "there is no policy %q", name)
				break
			}
			continue
		}
		faults := len(l.faults)
		for _, f := range policyFields {
			if d, set := fields[f.key]; set {
				if real := *f.field(&have); real != 0 && d >= real || real == 0 && f.key == "grace" {
					l.fault(rehearsalSection+"."+name+"."+f.key, "%v is not shorter than what holds, %v", Duration(d), Duration(real))
				}
			}
		}
		if err := afterlogin.CheckPolicy(name, c.StricterPolicies()[name]); err != nil && faults == len(l.faults) {
			l.fault(l.rehearsedKey(name, err), "%v", err)
		}
	}
}

// rehearsedKey names the setting that the error of a stricter policy is about.
func (l *Loaded) rehearsedKey(name string, err error) string {
	first, _, _ := strings.Cut(err.Error(), ":")
	key := ""
	for _, field := range rehearsedKeys {
		if _, set := l.Config.RehearsalPolicies[name][field]; set && (key == "" || field == first) {
			key = rehearsalSection + "." + name + "." + field
		}
	}
	return key
}

// rehearsalValues yields key and value of what is set of the stricter policies, in order.
func (c *Config) rehearsalValues(yield func(key, value string) bool) bool {
	for _, name := range slices.Sorted(maps.Keys(c.RehearsalPolicies)) {
		for _, field := range rehearsedKeys {
			if d, set := c.RehearsalPolicies[name][field]; set && !yield(fmt.Sprintf("%s.%s.%s", rehearsalSection, name, field), Duration(d).String()) {
				return false
			}
		}
	}
	return true
}
