package history

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"

	"github.com/afterlogin/afterlogin"
)

// entries are the operations of a subject as porcupine is given them.
//
// A yes from memory may be as old as the bound says: its call is moved back, but not before the answer to any ending that
// binds it. An operation that may have happened ends with the history, where it changes nothing any more.
//
// The rest makes the search short without changing what it finds (TestEntries). Porcupine tries operations in the order of
// their calls, and a wrong guess costs all that stands between it and what shows that it was wrong.
//
//   - A validation that is said yes to says one thing only, unless its token may be out of its grace: nothing that ends
//     the line came before its call. So it is left out, and what ends the line is called no earlier than that. Where it is
//     not certain what ends the line, or where that cannot be, the last validation stays.
//   - Of all refusals for one reason, the first one says all that the others say.
//   - What may have happened is left out where no answer says that it did.
func (r rules) entries(ops []*operation) []porcupine.Operation {
	e := newEntering(r, ops)
	e.answered()
	e.doubtful()
	slices.SortFunc(e.out, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	return e.out
}

// allEntries are the operations of a subject with nothing left out that says anything.
func (r rules) allEntries(ops []*operation) []porcupine.Operation {
	e := newEntering(r, ops)
	for _, o := range ops {
		switch {
		case o.outcome == broken || o.outcome == unknown && (o.verb == signIn || o.verb == grant || o.verb == access):
		case o.outcome == unknown:
			if o.verb != validate {
				e.add(o, o.call, forever)
			}
			if e.mayEnd(o) {
				end := *o
				end.verb = revoke
				e.add(&end, o.call, forever)
			}
		default:
			e.add(o, e.call(o), o.ret)
		}
	}
	slices.SortFunc(e.out, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	return e.out
}

type entering struct {
	rules
	ops      []*operation
	lines    map[int]*lineage
	last     map[int]*operation   // of the line or what is below it: the yes that was asked for last
	newest   map[int]uint32       // generation of a line, as far as any client was told
	made     map[string]int64     // when a token was asked for
	attempts map[int][]*operation // rotations that may have happened
	out      []porcupine.Operation
}

func newEntering(r rules, ops []*operation) *entering {
	e := &entering{
		rules: r, ops: ops, lines: lineages(ops), last: make(map[int]*operation), newest: make(map[int]uint32),
		made: make(map[string]int64), attempts: make(map[int][]*operation),
	}
	for _, o := range ops {
		if o.outcome == ok && o.newToken != 0 {
			e.newest[o.line] = max(e.newest[o.line], o.newGeneration)
			if k := key(o.line, o.newGeneration); e.made[k] == 0 {
				e.made[k] = o.call
			}
		}
		if (o.outcome == ok || o.outcome == unknown) && (o.verb == rotate || o.verb == refresh || o.verb == stepUp) {
			e.attempts[o.line] = append(e.attempts[o.line], o)
		}
	}
	for _, o := range ops {
		if o.outcome == ok && o.verb != revoke && o.verb != everywhere && o.verb != signIn {
			for l := e.lines[o.about()]; l != nil; l = l.above {
				if i := l.birth.line; e.last[i] == nil || e.call(e.last[i]) < e.call(o) {
					e.last[i] = o
				}
			}
		}
	}
	for _, o := range ops {
		if o.verb == refresh && o.outcome == ok && e.lines[o.line] != nil {
			o.ending = slices.ContainsFunc(e.lines[o.line].allMay(), func(x *operation) bool { return x.call < o.ret && (x.ret > o.call || x.outcome == unknown) })
		}
	}
	return e
}

func key(line int, g uint32) string { return fmt.Sprint(line, "/", g) }

func (e *entering) add(o *operation, call, ret int64) {
	e.out = append(e.out, porcupine.Operation{ClientId: o.node, Input: o, Call: call, Return: ret})
}

// call returns when the operation's answer may have been true at the earliest.
func (e *entering) call(o *operation) int64 {
	if o.strong() || o.outcome != ok {
		return o.call
	}
	c := e.made[key(o.line, o.generation)]
	if l := e.lines[o.line]; l != nil {
		c = max(c, l.birth.call)
		for _, end := range l.allEnds() {
			if e.binds(end, o) {
				c = max(c, end.ret+1)
			}
		}
		for _, up := range l.stepUps(o) {
			if e.binds(up, o) {
				c = max(c, up.ret+1)
			}
		}
	}
	return min(c, o.call)
}

// ending returns when an ending may have happened at the earliest.
func (e *entering) ending(o *operation) int64 {
	c := o.call
	for i, l := range e.lines {
		if last := e.last[i]; last != nil && (ending{o}).of(l, false) && (o.verb != others || last.verb != others) {
			c = max(c, e.call(last))
		}
	}
	if o.verb == stepUp { // it ends the tokens before it, and nothing below the line
		for _, x := range e.ops {
			if x.verb == validate && x.outcome == ok && x.line == o.line && (x.generation < o.newGeneration || o.outcome == unknown && x.generation <= o.generation) {
				c = max(c, e.call(x))
			}
		}
	}
	return c
}

// plain reports whether a validation that was said yes to says no more than that the line was live: its token is the
// newest, or cannot have been out of its grace.
func (e *entering) plain(o *operation) bool {
	if o.verb == access {
		return true
	}
	if o.verb != validate {
		return false
	}
	for _, a := range e.attempts[o.line] {
		if a.generation >= o.generation && o.call-a.call > e.forgiven() {
			return false
		}
	}
	return true
}

// mayEnd reports whether an operation without an answer may have found its token out of date, and ended the line.
func (e *entering) mayEnd(o *operation) bool {
	return (o.verb == validate || o.verb == rotate || o.verb == refresh || o.verb == stepUp || o.verb == grant) &&
		slices.ContainsFunc(e.attempts[o.about()], func(a *operation) bool { return a != o && o.ret-a.call >= e.unforgiven() })
}

// answered enters what had an answer.
func (e *entering) answered() {
	no := make(map[string]*operation)
	keep := make(map[*operation]bool)
	for i, l := range e.lines {
		last := e.last[i]
		if last == nil {
			continue
		}
		for _, o := range e.ops {
			sure, may := (ending{o}).of(l, false), (ending{o}).of(l, true)
			ends := o.outcome == ok && (o.verb == revoke || o.verb == everywhere || o.verb == others) || o.outcome == unknown && (o.verb == everywhere || o.verb == others) || o.reason == afterlogin.ReasonReused
			if ends && may && (!sure || o.ret < e.call(last)) {
				keep[last] = true
			}
		}
	}
	type ends struct{ first, last *operation }
	old := make(map[string]*ends) // validations of tokens that may have been out of their grace
	for _, o := range e.ops {
		if o.outcome == ok && o.verb == validate && !e.plain(o) && !e.stepped(o) && !keep[o] {
			x := old[key(o.line, o.generation)]
			if x == nil {
				x = &ends{o, o}
				old[key(o.line, o.generation)] = x
			}
			if o.ret < x.first.ret {
				x.first = o
			}
			x.last = o
		}
	}
	for _, o := range e.ops {
		if x := old[key(o.line, o.generation)]; x != nil && o.outcome == ok && o.verb == validate && o != x.first && o != x.last && !keep[o] && !e.stepped(o) {
			continue // what the first and the last of these may say, all may
		}
		switch {
		case o.outcome > refused:
		case o.outcome == ok && o.verb == validate && e.plain(o) && !keep[o] && !e.stepped(o), o.outcome == ok && o.verb == access && !keep[o]:
		case o.outcome == refused && (o.reason == afterlogin.ReasonRevoked || o.reason == afterlogin.ReasonSignedOutAll):
			if e.forgets && e.unanswered(o) {
				continue
			}
			k := fmt.Sprint(o.about(), o.reason)
			if first := no[k]; first == nil || o.ret < first.ret {
				no[k] = o
			}
		case o.outcome == ok && (o.verb == revoke || o.verb == everywhere || o.verb == others || o.verb == stepUp) || o.reason == afterlogin.ReasonReused:
			e.add(o, min(e.ending(o), o.ret), o.ret)
		default:
			e.add(o, e.call(o), o.ret)
		}
	}
	for _, o := range no {
		e.add(o, o.call, o.ret)
	}
}

// unanswered reports whether there is something without an answer that may explain the refusal.
func (e *entering) unanswered(o *operation) bool {
	l := e.lines[o.about()]
	return l != nil && slices.ContainsFunc(l.allMay(), func(x *operation) bool { return x.outcome == unknown && x.call < o.ret })
}

// stepped reports whether the validation was of a token that a step-up had ended before.
func (e *entering) stepped(o *operation) bool {
	return slices.ContainsFunc(e.attempts[o.line], func(a *operation) bool {
		return a.verb == stepUp && a.outcome == ok && o.generation < a.newGeneration && a.ret < e.call(o)
	})
}

// doubtful enters what may have happened.
func (e *entering) doubtful() {
	type evidence struct {
		over     bool // something says that it, or what is below it, was ended
		replaced bool // something says that it was rotated, and not by whom
	}
	found := make(map[int]*evidence)
	for i := range e.lines {
		found[i] = &evidence{}
	}
	signedOut := false
	told := make(map[string]bool) // generations that somebody was told of
	for _, o := range e.ops {
		f := found[o.about()]
		if o.outcome == ok && o.newToken != 0 {
			told[key(o.line, o.newGeneration)] = true
		}
		switch {
		case f == nil:
		case o.outcome == refused && o.reason == afterlogin.ReasonRevoked:
			for l := e.lines[o.about()]; l != nil; l = l.above {
				found[l.birth.line].over = true
			}
		case o.outcome == refused && o.reason == afterlogin.ReasonSignedOutAll:
			signedOut = true
		case o.outcome == refused:
			f.replaced = true
		case o.outcome == ok && o.newToken != 0 && o.newGeneration > o.generation+1:
			f.replaced = true
		}
	}
	for i, f := range found {
		for g := uint32(1); g < e.newest[i]; g++ {
			f.replaced = f.replaced || !told[key(i, g)]
		}
	}
	ended := make(map[int]*operation) // the earliest that may have ended a line does for all of them
	for _, o := range e.ops {
		f := found[max(o.about(), 0)]
		if o.outcome != unknown || f == nil {
			continue
		}
		switch o.verb {
		case everywhere, others:
			if signedOut {
				e.add(o, e.ending(o), forever)
			}
			continue
		case rotate, refresh, stepUp:
			if f.replaced {
				e.add(o, e.ending(o), forever)
			}
		}
		if f.over && ended[o.about()] == nil && (o.verb == revoke || e.mayEnd(o)) {
			ended[o.about()] = o
		}
	}
	for i, o := range ended {
		end := *o
		end.verb, end.line = revoke, i
		c := o.call
		if last := e.last[i]; last != nil {
			c = max(c, e.call(last))
		}
		e.add(&end, c, forever)
	}
}
