package history

import (
	"math"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/afterlogin/afterlogin"
)

// The model is of one subject: its epoch, and its lines. A line is a credential lineage: a session, or an OAuth grant
// below one, or a grant beside one. What a line's tokens are good for is decided by where the operations stand in the
// order that porcupine looks for; how long a replaced token is good, by the times of the operations themselves.

const (
	maxLines = 12 // of a subject
	kept     = 8  // generations of a line that the model remembers
	forever  = math.MaxInt64
)

// generation is one token of a line.
type generation struct {
	number  uint32
	parent  uint32 // that was presented for it; 0: none
	token   digest // 0: nobody has seen it yet
	access  digest // that was made with it
	call    int64  // when it was asked for
	granted int64  // when it had been made, at the latest
}

type line struct {
	born    bool
	grant   bool
	revoked bool
	parent  int8   // the line of the session that it is below; -1: none
	epoch   uint32 // of the subject, when it was made or last spared
	current uint32 // the newest generation
	floor   uint32 // generations below it were ended by a step-up
	ring    [kept]generation
}

// state is a subject's. A line that is in it is never changed, but replaced: porcupine keeps many states.
type state struct {
	epoch uint32
	lines [maxLines]*line
}

var none = &line{parent: -1}

func fresh() state {
	var s state
	for i := range s.lines {
		s.lines[i] = none
	}
	return s
}

func (s *state) equal(o *state) bool {
	if s.epoch != o.epoch {
		return false
	}
	for i, l := range s.lines {
		if l != o.lines[i] && *l != *o.lines[i] {
			return false
		}
	}
	return true
}

// change returns a copy of the line that stands in its place from now on.
func (s *state) change(i int) *line {
	l := *s.lines[i]
	s.lines[i] = &l
	return &l
}

func (l *line) at(g uint32) *generation {
	if e := &l.ring[g%kept]; e.number == g && g != 0 {
		return e
	}
	return nil
}

func (l *line) push(g generation) {
	g.number = l.current + 1
	l.current = g.number
	l.ring[g.number%kept] = g
}

// live reports whether the line is good as such.
func (s *state) live(i int) bool { return !s.ended(i) && !s.signedOut(i) }

// ended reports whether the line, or what it is below, was ended by itself.
func (s *state) ended(i int) bool {
	l := s.lines[i]
	return !l.born || l.revoked || l.parent >= 0 && s.ended(int(l.parent))
}

// signedOut reports whether the line was ended with the subject's others.
func (s *state) signedOut(i int) bool {
	l := s.lines[i]
	if l.parent >= 0 {
		return s.signedOut(int(l.parent))
	}
	return l.epoch != s.epoch
}

// rules are the times that the model goes by.
type rules struct {
	grace time.Duration
	bound time.Duration // X: for how long another node may say yes from memory
	// forgets says that a failover may take back what was seen, but answered to nobody: a Redis Cluster's masters show a change
	// before a replica has it. A refusal that only such a change can explain proves no more than that it was asked for.
	forgets bool
}

// unforgiven is how long a replaced token is good at least.
func (r rules) unforgiven() int64 {
	return int64(min(r.grace, 5*time.Second)) - int64(10*time.Millisecond)
}

// forgiven is how long it is good at most.
func (r rules) forgiven() int64 { return int64(max(r.grace, r.bound)) + int64(10*time.Millisecond) }

// late reports whether generation g of the line may be out of its grace for the operation.
func (r rules) late(l *line, g uint32, o *operation) bool {
	next := l.at(g + 1)
	return next == nil || o.ret-next.call >= r.unforgiven()
}

// early reports whether it may still be in its grace.
func (r rules) early(l *line, g uint32, o *operation) bool {
	for i := range l.ring {
		// Where a lost answer was forgiven, the grace begins anew.
		if n := &l.ring[i]; n.number != 0 && (n.number == g+1 || n.parent == g) && o.call-n.granted <= r.forgiven() {
			return true
		}
	}
	return false
}

// lost reports whether generation g may be the one whose answer was lost.
func lost(l *line, g uint32) bool {
	c := l.at(l.current)
	return g+1 == l.current || c != nil && c.parent == g
}

// admits reports whether the presented token, of a live line, is good for a yes.
func (r rules) admits(l *line, o *operation) bool {
	switch g := o.generation; {
	case g > l.current || g < l.floor:
		return false
	case g == l.current:
		return l.knows(g, o.token)
	default:
		return r.early(l, g, o) || lost(l, g)
	}
}

// knows reports whether the token may be that of the generation.
func (l *line) knows(g uint32, token digest) bool {
	e := l.at(g)
	return e == nil || e.token == 0 || e.token == token
}

// model returns the specification: what a sequential afterlogin would do.
func (r rules) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return fresh() },
		Step: func(s, input, _ any) (bool, any) {
			next := s.(state)
			o := input.(*operation)
			if o.outcome == unknown {
				r.maybe(&next, o)
				return true, next
			}
			return r.step(&next, o), next
		},
		Equal: func(a, b any) bool {
			x, y := a.(state), b.(state)
			return x.equal(&y)
		},
		DescribeOperation: func(input, _ any) string { return input.(*operation).String() },
	}
}

// step applies the operation to the state and reports whether its answer is right there.
func (r rules) step(s *state, o *operation) bool {
	if o.outcome == refused {
		return r.refusal(s, o)
	}
	i := max(o.line, 0)
	switch o.verb {
	case signIn:
		l := &line{born: true, parent: -1, epoch: s.epoch}
		l.push(generation{token: o.newToken, call: o.call, granted: o.ret})
		s.lines[i] = l
	case grant:
		if !s.live(o.parent) || !r.admits(s.lines[o.parent], o) {
			return false
		}
		l := &line{born: true, grant: true, parent: int8(o.parent), epoch: s.epoch}
		if o.offline {
			l.parent = -1
		}
		l.push(generation{token: o.newToken, access: o.newAccess, call: o.call, granted: o.ret})
		s.lines[i] = l
	case validate:
		return s.live(i) && r.admits(s.lines[i], o)
	case access:
		return s.live(i)
	case rotate, refresh:
		return s.live(i) && r.rotated(s, o)
	case stepUp:
		if !s.live(i) || !r.admits(s.lines[i], o) || o.newGeneration != s.lines[i].current+1 {
			return false
		}
		l := s.change(i)
		l.push(generation{token: o.newToken, call: o.call, granted: o.ret})
		l.floor = l.current
	case revoke:
		s.change(i).revoked = true
	case everywhere:
		s.epoch++
	case others:
		if s.signedOut(i) { // that it was not revoked was true a moment before
			return false
		}
		s.epoch++
		s.change(i).epoch = s.epoch
	}
	return true
}

// rotated applies a rotation that was answered with a yes.
func (r rules) rotated(s *state, o *operation) bool {
	g, l := o.generation, s.lines[o.line]
	if g > l.current || g < l.floor {
		return false
	}
	switch {
	case o.newToken == 0: // a yes, but nothing new
		return r.admits(l, o)
	case o.newGeneration == l.current+1: // the successor is made
		if g == l.current && !l.knows(g, o.token) || g < l.current && !(lost(l, g) && r.late(l, g, o)) {
			return false
		}
		s.change(o.line).push(generation{parent: g, token: o.newToken, access: o.newAccess, call: o.call, granted: o.ret})
		return true
	case o.newGeneration == l.current: // it was made before: the same one for everybody
		if g < l.current && !r.early(l, g, o) {
			return false
		}
		e := *l.at(l.current)
		// The access token is the same, too, unless it was just ended with all the others.
		if e.token != 0 && e.token != o.newToken || e.access != 0 && e.access != o.newAccess && !o.ending {
			return false
		}
		if e.token == 0 || e.access == 0 && o.newAccess != 0 {
			e := s.change(o.line).at(l.current)
			e.token, e.access = o.newToken, o.newAccess
		}
		return true
	}
	return false
}

// refusal applies an operation that was answered with a no, which is never taken from memory.
func (r rules) refusal(s *state, o *operation) bool {
	i := o.about()
	l := s.lines[i]
	switch o.reason {
	case afterlogin.ReasonRevoked:
		return l.born && s.ended(i)
	case afterlogin.ReasonSignedOutAll:
		return l.born && s.signedOut(i)
	case afterlogin.ReasonSuperseded:
		return o.generation < l.floor || o.verb == refresh && o.generation < l.current
	case afterlogin.ReasonReused:
		if o.generation >= l.current || !r.late(l, o.generation, o) {
			return false
		}
		s.change(i).revoked = true
		return true
	}
	return false
}

// maybe applies an operation of which nobody knows whether it happened. Its return is the end of the history, where
// it changes nothing any more.
func (r rules) maybe(s *state, o *operation) {
	i := max(o.line, 0)
	switch o.verb {
	case rotate, refresh, stepUp:
		if !s.live(i) || o.generation != s.lines[i].current && !lost(s.lines[i], o.generation) {
			return
		}
		l := s.change(i)
		l.push(generation{parent: o.generation, call: o.call, granted: o.ret})
		if o.verb == stepUp {
			l.floor = l.current
		}
	case revoke:
		if !s.lines[i].revoked {
			s.change(i).revoked = true
		}
	case everywhere:
		s.epoch++
	case others:
		if !s.signedOut(i) {
			s.epoch++
			s.change(i).epoch = s.epoch
		}
	}
}
