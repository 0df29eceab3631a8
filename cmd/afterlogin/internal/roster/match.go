package roster

import (
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/query"
)

// verdict is what the index says of a row: it may not know.
type verdict uint8

const (
	no verdict = iota
	maybe
	yes
)

func certain(ok bool) verdict {
	if ok {
		return yes
	}
	return no
}

// A judge decides on a row.
type judge func(*row) verdict

// compile makes one judge for each term, and one for what every query asks. The words of a column are looked at once, not
// once for each row; a time is compared as it is.
func (t *table) compile(q *query.Query, now time.Time) []judge {
	var judges []judge
	ms := now.UnixMilli()
	if !q.Over() {
		judges = append(judges, func(r *row) verdict {
			switch ended, perhaps, _ := t.standing(r, ms); {
			case perhaps:
				return maybe
			default:
				return certain(!ended)
			}
		})
	}
	for i := range q.Terms() {
		judges = append(judges, t.judgeOf(&q.Terms()[i], now))
	}
	return judges
}

func (t *table) judgeOf(term *query.Term, now time.Time) judge {
	ms := now.UnixMilli()
	switch term.Field {
	case query.Subject:
		return t.subjectJudge(term)
	case query.Client:
		return byCode(t.clients.texts, term.Text, func(r *row) uint16 { return r.client })
	case query.Name:
		return byCode(t.labels.texts, term.Text, func(r *row) uint16 { return r.name })
	case query.Policy:
		return byCode(t.policy, term.Text, func(r *row) uint16 { return r.policy })
	case query.Device:
		agents := make([]verdict, len(t.agents.texts))
		for i, a := range t.agents.texts {
			agents[i] = certain(term.AgentNamed(a, t.devices[i]))
		}
		return byVerdict(agents, func(r *row) uint16 { return r.agent })
	case query.Scope:
		return byLists(t.scopes.items, term.AnyText, func(r *row) uint16 { return r.scopes })
	case query.Method:
		return byLists(t.methods.items, func(m []string) bool { return term.AnyText(afterlogin.Authentication{Methods: m}.AMR()) }, func(r *row) uint16 { return r.methods })
	case query.ACR:
		return byLists(t.methods.items, func(m []string) bool { return term.Text(afterlogin.Authentication{Methods: m}.ACR()) }, func(r *row) uint16 { return r.methods })
	case query.Kind:
		var kinds [256]verdict
		for _, k := range []afterlogin.Kind{afterlogin.KindSession, afterlogin.KindAPIKey, afterlogin.KindRefresh} {
			kinds[k] = certain(term.Text(k.String()))
		}
		return func(r *row) verdict { return kinds[r.kind] }
	case query.Origin:
		none := certain(term.Text(""))
		return func(r *row) verdict {
			if r.flags&hasOrigin == 0 {
				return none
			}
			return maybe
		}
	case query.IP:
		return func(r *row) verdict { return certain(term.Addr(t.addrOf(r))) }
	case query.State:
		return func(r *row) verdict {
			ended, perhaps, why := t.standing(r, ms)
			switch {
			case perhaps:
				return maybe
			case r.flags&over != 0:
				if r.why == unknownReason {
					return maybe
				}
				why = t.whyOf(r)
			}
			return certain(term.StateOf(ended, r.flags&frozen != 0, why))
		}
	case query.Why:
		return func(r *row) verdict {
			ended, perhaps, why := t.standing(r, ms)
			switch {
			case perhaps || r.why == unknownReason:
				return maybe
			case r.flags&(over|frozen) != 0 && (r.flags&over != 0 || !ended):
				why = t.whyOf(r)
			}
			return certain(term.Text(string(why)))
		}
	case query.Created:
		return func(r *row) verdict { return certain(term.Time(r.created.time(), now)) }
	case query.Expires:
		return func(r *row) verdict { return certain(term.Time(r.absolute.time(), now)) }
	case query.LastSeen:
		return func(r *row) verdict { return certain(term.Time(r.seen.time(), now)) }
	}
	return func(*row) verdict { return maybe }
}

func (t *table) whyOf(r *row) afterlogin.Reason { return afterlogin.Reason(t.reasons.texts[r.why]) }

// subjectJudge compares the text of each row, but for the usual case of whole names, which are looked up first.
func (t *table) subjectJudge(term *query.Term) judge {
	places := make(map[uint32]bool, len(term.Values))
	for _, v := range term.Values {
		if v.Prefix {
			return func(r *row) verdict { return certain(term.Text(t.subjectOf(r))) }
		}
		if v.Text == "" {
			places[noName] = true
		} else if p := t.names.find(v.Text); p != noName {
			places[p] = true
		}
	}
	in, out := yes, no
	if term.Op == query.IsNot || term.Op == query.NotIn {
		in, out = no, yes
	}
	return func(r *row) verdict {
		if places[r.subject] {
			return in
		}
		return out
	}
}

func byCode(texts []string, match func(string) bool, code func(*row) uint16) judge {
	verdicts := make([]verdict, len(texts))
	for i, s := range texts {
		verdicts[i] = certain(match(s))
	}
	return byVerdict(verdicts, code)
}

func byLists(items [][]string, match func([]string) bool, code func(*row) uint16) judge {
	verdicts := make([]verdict, len(items))
	for i, l := range items {
		verdicts[i] = certain(match(l))
	}
	return byVerdict(verdicts, code)
}

func byVerdict(verdicts []verdict, code func(*row) uint16) judge {
	return func(r *row) verdict {
		c := code(r)
		if c == unknown {
			return maybe
		}
		return verdicts[c]
	}
}
