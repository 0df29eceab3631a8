package history

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/afterlogin/afterlogin"
)

// verdict is what the checkers say of a history.
type verdict struct {
	answers   []string // that nobody should get
	order     []string // by porcupine
	bound     []string // by the checker of the bound
	refusals  []string // by the checker of refusals
	undecided []string // subjects for which porcupine found no order, and not that there is none, in its time

	entries int             // given to porcupine; the other operations follow from these
	lags    []time.Duration // how old a yes from memory was: from the answer to the revocation to the call
	took    time.Duration
}

// most is how many violations a checker writes down.
const most = 5

func say(list *[]string, format string, args ...any) {
	if len(*list) < most {
		*list = append(*list, fmt.Sprintf(format, args...))
	}
}

// check looks at a whole history: porcupine, and two direct checkers as a second opinion.
func (w *world) check() *verdict {
	began := time.Now()
	v := &verdict{}
	subjects := make(map[int][]*operation)
	for _, o := range w.inOrder() {
		if o.outcome == broken {
			say(&v.answers, "an answer that nobody should get: %v", o)
		}
		subjects[o.subject] = append(subjects[o.subject], o)
	}
	var parts [][]porcupine.Operation
	for _, ops := range subjects {
		w.rules.unbound(v, ops)
		causeless(v, ops)
		part := w.rules.entries(ops)
		parts = append(parts, part)
		v.entries += len(part)
	}
	w.order(v, parts)
	slices.Sort(v.lags)
	v.took = time.Since(began)
	return v
}

// inOrder returns the history in the order of the calls.
func (w *world) inOrder() []*operation {
	slices.SortFunc(w.history, func(a, b *operation) int { return cmp.Compare(a.call, b.call) })
	return w.history
}

// order asks porcupine for an order of each subject's operations.
func (w *world) order(v *verdict, parts [][]porcupine.Operation) {
	m := w.rules.model()
	results := make([]porcupine.CheckResult, len(parts))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(parts); i = int(next.Add(1)) - 1 {
				results[i] = porcupine.CheckOperationsTimeout(m, parts[i], w.search)
			}
		})
	}
	wg.Wait()
	for i, r := range results {
		switch {
		case r == porcupine.Illegal && len(v.order) < most:
			w.narrow(v, m, parts[i])
		case r == porcupine.Unknown:
			say(&v.undecided, "porcupine: no order was found in %v for the %d entries of subject %d%s", w.search, len(parts[i]), parts[i][0].Input.(*operation).subject, story(parts[i]))
		}
	}
}

// narrow writes down the part of a subject's history that has no order.
func (w *world) narrow(v *verdict, m porcupine.Model, part []porcupine.Operation) {
	// The shortest beginning without an order ends with the operation that has no place.
	slices.SortFunc(part, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	n := len(part)
	for i := 1; i < n; i++ {
		if porcupine.CheckOperationsTimeout(m, until(part, part[i-1].Return), 10*time.Second) == porcupine.Illegal {
			n = i
			break
		}
	}
	last := part[n-1].Input.(*operation)
	say(&v.order, "porcupine: no order for %v, after%s", last, w.story(last))
	if dir := os.Getenv("AFTERLOGIN_HISTORY_DIR"); dir != "" {
		_, info := porcupine.CheckOperationsVerbose(m, part, time.Minute)
		porcupine.VisualizePath(m, info, filepath.Join(dir, fmt.Sprintf("%s-%d.html", strings.ReplaceAll(w.t.Name(), "/", "-"), last.subject)))
	}
}

// story writes entries down.
func story(part []porcupine.Operation) string {
	var b strings.Builder
	for _, p := range part {
		o := p.Input.(*operation)
		fmt.Fprintf(&b, "\n\t%v", o)
		if p.Call != o.call || p.Return != o.ret && p.Return != forever {
			fmt.Fprintf(&b, " [%.6f-%.6f]", seconds(p.Call), seconds(p.Return))
		}
	}
	return b.String()
}

// story writes down what happened to the line that the operation is about, and to what it is below, up to the operation and a
// moment longer.
func (w *world) story(last *operation) string {
	of := map[int]bool{last.line: true, last.parent: true}
	for _, o := range w.history {
		if o.subject == last.subject && of[o.line] && o.verb == grant {
			of[o.parent] = true
		}
	}
	var ops []*operation
	for _, o := range w.history {
		if o.subject == last.subject && o.call <= last.ret+int64(100*time.Millisecond) && (of[o.line] || o.verb == everywhere || o.verb == others) {
			ops = append(ops, o)
		}
	}
	slices.SortFunc(ops, func(a, b *operation) int { return cmp.Compare(a.call, b.call) })
	var b strings.Builder
	for _, o := range ops {
		fmt.Fprintf(&b, "\n\t%v", o)
	}
	return b.String()
}

// until returns what was called before the time; what had not returned by then may have happened.
func until(part []porcupine.Operation, t int64) []porcupine.Operation {
	var out []porcupine.Operation
	for _, p := range part {
		o := p.Input.(*operation)
		switch {
		case p.Call > t:
			continue
		case p.Return > t && o.outcome == ok && (o.verb < rotate):
			continue
		case p.Return > t && o.outcome != unknown:
			open := *o
			open.outcome, p.Return = unknown, forever
			p.Input = &open
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	return out
}

// An ending is an operation that ends lines for good.
type ending struct{ o *operation }

// of reports whether it ends the line: for certain, or, if may is true, perhaps. What ends a line that this one is below is
// not meant.
func (e ending) of(l *lineage, may bool) bool {
	o := e.o
	switch {
	case o.verb == revoke:
		return o.line == l.birth.line
	case o.reason == afterlogin.ReasonReused:
		return o.line == l.birth.line
	case l.above != nil: // by what it is below
		return false
	case o.verb == everywhere || o.verb == others && o.line != l.birth.line:
		return may || l.birth.ret < o.call
	}
	return false
}

// lineage is a line, in the order of a history.
type lineage struct {
	birth *operation
	above *lineage
	ends  []*operation // answered
	may   []*operation // answered or not
	ups   []*operation // step-ups, answered
}

// stepUps returns the step-ups that ended the session's token that the operation presents.
func (l *lineage) stepUps(o *operation) []*operation {
	if o.verb != validate {
		return nil
	}
	var ups []*operation
	for _, up := range l.ups {
		if o.generation < up.newGeneration {
			ups = append(ups, up)
		}
	}
	return ups
}

func lineages(ops []*operation) map[int]*lineage {
	lines := make(map[int]*lineage)
	for _, o := range ops { // by call, so that a session comes before its grants
		if o.outcome == ok && (o.verb == signIn || o.verb == grant) {
			l := &lineage{birth: o}
			if o.verb == grant && !o.offline {
				l.above = lines[o.parent]
			}
			lines[o.line] = l
		}
	}
	for _, o := range ops {
		if l := lines[o.line]; l != nil && o.verb == stepUp && o.outcome == ok {
			l.ups = append(l.ups, o)
		}
		ends := o.outcome == ok && (o.verb == revoke || o.verb == everywhere || o.verb == others) || o.reason == afterlogin.ReasonReused
		may := ends || o.outcome == unknown && (o.verb == revoke || o.verb == everywhere || o.verb == others || o.generation != 0)
		if !may {
			continue
		}
		for _, l := range lines {
			if ends && (ending{o}).of(l, false) {
				l.ends = append(l.ends, o)
			}
			if (ending{o}).of(l, true) || o.outcome == unknown && o.generation != 0 && o.line == l.birth.line {
				l.may = append(l.may, o)
			}
		}
	}
	return lines
}

// allEnds returns what ends the line: its own ends, and those of what it is below.
func (l *lineage) allEnds() []*operation {
	if l.above == nil {
		return l.ends
	}
	return slices.Concat(l.ends, l.above.allEnds())
}

func (l *lineage) allMay() []*operation {
	if l.above == nil {
		return l.may
	}
	return slices.Concat(l.may, l.above.allMay())
}

// binds reports whether the operation, were it answered from memory, would have to know of the ending: one that was
// answered before on the same node, or longer ago than the bound.
func (r rules) binds(e, o *operation) bool {
	if e.node == o.node {
		return e.ret < o.call
	}
	return e.ret < o.call-int64(r.bound)
}

// unbound is the direct checker of the bound: after an ending was answered, nothing below it is accepted; from memory of
// another node than the one that answered, nothing whose call came more than the bound after.
func (r rules) unbound(v *verdict, ops []*operation) {
	type first struct {
		any  *operation
		node [3]*operation
	}
	sooner := func(a, b *operation) *operation {
		if a == nil || b.ret < a.ret {
			return b
		}
		return a
	}
	firsts := make(map[int]*first)
	lines := lineages(ops)
	for i, l := range lines {
		f := &first{}
		for _, e := range l.allEnds() {
			f.any = sooner(f.any, e)
			f.node[e.node] = sooner(f.node[e.node], e)
		}
		firsts[i] = f
	}
	for _, o := range ops {
		if o.outcome != ok || o.verb == revoke || o.verb == everywhere || o.verb == signIn {
			continue
		}
		if l := lines[o.about()]; l != nil {
			for _, up := range l.stepUps(o) {
				if up.ret < o.call && (o.strong() || r.binds(up, o)) {
					say(&v.bound, "bound: %v, %v after %v was answered", o, time.Duration(o.call-up.ret), up)
				}
			}
		}
		f := firsts[o.about()]
		if f == nil || f.any == nil || o.verb == others && f.any.verb == revoke {
			continue
		}
		age := o.call - f.any.ret
		switch {
		case age <= 0:
		case o.strong():
			say(&v.bound, "bound: %v, %v after %v was answered", o, time.Duration(age), f.any)
		case f.node[o.node] != nil && r.binds(f.node[o.node], o):
			say(&v.bound, "bound: %v, on the node on which %v was answered before", o, f.node[o.node])
		case r.binds(f.any, o):
			say(&v.bound, "bound: %v, %v after %v was answered, over %v", o, time.Duration(age), f.any, r.bound)
		default:
			v.lags = append(v.lags, time.Duration(age))
		}
	}
}

// causeless is the direct checker of refusals: nobody is told that a session is over unless something was done that can
// have ended it.
func causeless(v *verdict, ops []*operation) {
	lines := lineages(ops)
	for _, o := range ops {
		if o.outcome != refused {
			continue
		}
		l := lines[o.about()]
		if l == nil {
			continue
		}
		switch o.reason {
		case afterlogin.ReasonRevoked, afterlogin.ReasonSignedOutAll:
			caused := slices.ContainsFunc(l.allMay(), func(e *operation) bool { return e.call < o.ret && e != o })
			if !caused {
				say(&v.refusals, "refusal: %v, and nobody had ended it", o)
			}
		case afterlogin.ReasonReused, afterlogin.ReasonSuperseded: // the model knows what these depend on
		default:
			say(&v.refusals, "refusal: %v: there is no reason for it", o)
		}
	}
}

// report prints the figures of a history.
func (w *world) report(t testing.TB, v *verdict) {
	counts := make(map[string]int)
	var outcomes [4]int
	var span int64
	for _, o := range w.history {
		counts[o.verb.String()]++
		outcomes[o.outcome]++
		span = max(span, o.ret)
	}
	n := len(w.history)
	t.Logf("%d operations by %d subjects in %.1f s: %.0f a second; %d ok, %d refused, %d unknown; seed %d",
		n, len(w.people), seconds(span), float64(n)/seconds(span), outcomes[ok], outcomes[refused], outcomes[unknown], w.seed)
	var mix []string
	for x := range verbs {
		mix = append(mix, fmt.Sprintf("%v %d", x, counts[x.String()]))
	}
	t.Logf("%s", strings.Join(mix, ", "))
	t.Logf("checked in %.1f s: %d entries for porcupine; %d yeses from memory after a revocation was answered elsewhere, p99 %v, the oldest %v (bound %v)",
		v.took.Seconds(), v.entries, len(v.lags), quantile(v.lags, 0.99).Round(time.Microsecond), quantile(v.lags, 1).Round(time.Microsecond), w.rules.bound)
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(float64(len(sorted))*q), len(sorted)-1)]
}

// enough fails a history that proves little: too few operations, or too many without an answer, or a verb that hardly
// ever had one.
func (w *world) enough(t testing.TB, operations int, known float64) {
	t.Helper()
	var yes, no [verbs]int
	unknowns := 0
	for _, o := range w.history {
		switch o.outcome {
		case ok:
			yes[o.verb]++
		case refused:
			no[o.verb]++
		case unknown:
			unknowns++
		}
	}
	n := len(w.history)
	if rate := float64(n) / seconds(w.now()); rate < 200 {
		t.Errorf("%.0f operations a second, want 200: the history proves little", rate)
	}
	if n < operations {
		t.Errorf("%d operations, want %d: the history proves little", n, operations)
	}
	if float64(unknowns) > float64(n)*(1-known) {
		t.Errorf("%d of %d operations had no answer: the history proves little", unknowns, n)
	}
	for v := range verbs {
		if least := n * w.mix[v] / 1000 / 10; yes[v] < least {
			t.Errorf("%d operations of kind %v succeeded, want %d: the history proves little", yes[v], v, least)
		}
	}
	if no[validate] < n/100 {
		t.Errorf("%d validations were refused, want %d: the history proves little", no[validate], n/100)
	}
}

// pass checks the history and fails the test on a violation.
func (w *world) pass(t testing.TB) *verdict {
	t.Helper()
	v := w.check()
	w.report(t, v)
	for _, list := range [][]string{v.answers, v.bound, v.refusals, v.order, v.undecided} {
		for _, s := range list {
			t.Errorf("violation: %s", s)
		}
	}
	return v
}
