package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

// A node answers requests. It is an authority in this process, or in another one.
type node interface {
	do(r request) answer
}

// local is a node in this process.
type local struct{ a *afterlogin.Authority }

func (l local) do(r request) answer { return serve(ctx, l.a, r) }

// world is three nodes, the people who use them, and what they heard.
type world struct {
	t      testing.TB
	nodes  []node
	rules  rules
	seed   uint64
	start  time.Time
	hot    int           // how many subjects are in much use at a time
	cool   time.Duration // for how long a subject is looked at afterwards
	calls  int           // of a subject while it is hot
	mix    [verbs]int    // weights of the verbs
	search time.Duration // how long porcupine may take for a subject

	stalls  []stall      // read when the meter has ended
	left    atomic.Int64 // operations still to do
	away    [3]atomic.Bool
	clients sync.WaitGroup
	stop    chan struct{}

	mu      sync.Mutex
	people  []*person
	active  []*person
	cooling []*person
	history []*operation
}

// person is a subject and what its clients hold.
type person struct {
	mu     sync.Mutex
	id     int
	name   string
	creds  [maxLines]*cred // nil: free
	ops    int
	doubts int  // writes of which nobody knows whether they happened
	spent  bool // all lines are taken, and over
	cooled time.Time
}

// cred is one line, as its clients know it.
type cred struct {
	index  int
	grant  bool
	id     afterlogin.SessionID
	tokens []held // the newest last
	access []string
	doomed bool // somebody has tried to end it, or what it is below
	parent *cred
}

type held struct {
	text       string
	generation uint32
}

func (c *cred) over() bool { return c.doomed || c.parent != nil && c.parent.over() }

// everyday is how often people do what, in thousandths, as long as they can.
var everyday = [verbs]int{
	signIn: 50, grant: 40, validate: 490, access: 150, rotate: 100, stepUp: 10, refresh: 110, revoke: 25, everywhere: 10, others: 15,
}

func newWorld(t testing.TB, seed uint64, r rules, nodes ...node) *world {
	return &world{
		t: t, nodes: nodes, rules: r, seed: seed, start: time.Now(), hot: 8, calls: 110, mix: everyday, search: time.Minute,
		cool: r.bound + 1500*time.Millisecond, stop: make(chan struct{}),
	}
}

func (w *world) now() int64 { return int64(time.Since(w.start)) }

// run lets clients act until they have done that many operations, or until the world is stopped.
func (w *world) run(clients, operations int) {
	w.left.Store(int64(operations))
	for range w.hot {
		w.active = append(w.active, w.newPerson())
	}
	for i := range clients {
		rng := rand.New(rand.NewPCG(w.seed, uint64(i)))
		w.clients.Go(func() { w.client(rng) })
	}
}

func (w *world) newPerson() *person { // under mu, or before the clients
	p := &person{id: len(w.people)}
	p.name = fmt.Sprintf("subject-%d-%d", w.seed, p.id)
	w.people = append(w.people, p)
	return p
}

// wait returns when the clients have ended.
func (w *world) wait() { w.clients.Wait() }

// done returns how many operations clients have begun.
func (w *world) done() int { return 1<<30 - int(w.left.Load()) }

// end stops the clients and waits for them.
func (w *world) end() {
	close(w.stop)
	w.clients.Wait()
}

func (w *world) client(rng *rand.Rand) {
	var ops []*operation
	defer func() {
		w.mu.Lock()
		w.history = append(w.history, ops...)
		w.mu.Unlock()
	}()
	for w.left.Add(-1) >= 0 {
		select {
		case <-w.stop:
			return
		default:
		}
		p, hot := w.pick(rng)
		n := w.node(rng)
		r, o, c := p.choose(rng, w, hot)
		if o == nil {
			w.left.Add(1)
			time.Sleep(time.Millisecond)
			continue
		}
		o.node = n
		w.perform(p, c, r, o)
		ops = append(ops, o)
		if o.outcome == unknown { // as Retry-After says, but sooner
			select {
			case <-w.stop:
				return
			case <-time.After(time.Duration(10+rng.IntN(40)) * time.Millisecond):
			}
		}
	}
}

// pick returns whom the client acts for. People who have done much are only looked at for a while.
func (w *world) pick(rng *rand.Rand) (p *person, hot bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for len(w.cooling) > 0 && now.Sub(w.cooling[0].cooled) > w.cool {
		w.cooling = w.cooling[1:]
	}
	if len(w.cooling) > 0 && rng.IntN(10) < 4 {
		return w.cooling[rng.IntN(len(w.cooling))], false
	}
	i := rng.IntN(len(w.active))
	p = w.active[i]
	p.mu.Lock()
	done := p.ops >= w.calls || p.spent
	p.mu.Unlock()
	if done {
		p.cooled = now
		w.cooling = append(w.cooling, p)
		p = w.newPerson()
		w.active[i] = p
	}
	return p, true
}

func (w *world) node(rng *rand.Rand) int {
	for {
		if n := rng.IntN(len(w.nodes)); !w.away[n].Load() {
			return n
		}
	}
}

// perform asks the node and notes what was heard. c is the line that it is about, or is to be.
func (w *world) perform(p *person, c *cred, r request, o *operation) {
	r.Verb, r.Fresh, r.Offline, r.Subject = o.verb, o.fresh, o.offline, p.name
	o.subject, o.token = p.id, digestOf(r.Token)
	o.call = w.now()
	got := w.nodes[o.node].do(r)
	o.ret = w.now()
	o.outcome, o.reason, o.err = got.Outcome, got.Reason, got.Err
	o.newToken, o.newAccess, o.newGeneration = digestOf(got.Token), digestOf(got.Access), got.Generation
	p.heard(c, o, got)
}

// choose decides what to do next for the person: nothing, if o is nil. The operation's line is reserved if it makes one.
func (p *person) choose(rng *rand.Rand, w *world, hot bool) (r request, o *operation, c *cred) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ops++
	o = &operation{line: -1, parent: -1}
	var sessions, grants, live []*cred
	free, making := -1, 0
	for i, c := range p.creds {
		switch {
		case c == nil:
			free = i
		case len(c.tokens) == 0:
			making++
		default:
			if c.grant {
				grants = append(grants, c)
			} else {
				sessions = append(sessions, c)
			}
			if !c.over() {
				live = append(live, c)
			}
		}
	}
	p.spent = free < 0 && len(live) == 0
	o.verb = w.verb(rng)
	if !hot || p.doubts >= 3 { // looked at, while one after the other is ended: nothing that comes later heals what was missed
		n := rng.IntN(100)
		switch {
		case p.doubts < 3 && n < 8 && len(live) > 0:
			o.verb = revoke
		case p.doubts < 3 && n == 9 && rng.IntN(4) == 0:
			o.verb = everywhere
		case n < 30 && len(grants) > 0:
			o.verb = access
		default:
			o.verb = validate
		}
	}
	switch {
	case len(sessions) == 0:
		o.verb = signIn
	case len(live) == 0 && rng.IntN(4) > 0 && hot && p.doubts < 3:
		o.verb = signIn
	case (o.verb == access || o.verb == refresh) && len(grants) == 0:
		o.verb = grant
	}
	switch {
	case free >= 0 && making < 3 || o.verb != signIn && o.verb != grant:
	case len(sessions) > 0:
		o.verb = validate
	default: // all are just being made
		p.ops--
		return r, nil, nil
	}
	if (o.verb == access || o.verb == refresh) && len(grants) == 0 {
		o.verb = validate
	}
	one := func(among []*cred) *cred { // mostly one that is not over
		var good, over []*cred
		for _, c := range among {
			if c.over() {
				over = append(over, c)
			} else {
				good = append(good, c)
			}
		}
		switch { // later on what is over is asked for more: its end may have been missed
		case len(good) > 0 && (hot && rng.IntN(4) > 0 || o.verb == revoke):
			among = good
		case !hot && len(over) > 0 && rng.IntN(3) > 0:
			among = over[max(0, len(over)-3):]
		}
		return among[rng.IntN(len(among))]
	}
	o.fresh = (o.verb == validate || o.verb == access) && rng.IntN(5) == 0
	switch o.verb {
	case signIn:
		c = &cred{index: free}
		p.creds[free], o.line = c, free
		return r, o, c
	case grant:
		of := one(sessions)
		c = &cred{index: free, grant: true, parent: of}
		if o.offline = rng.IntN(3) == 0; o.offline {
			c.parent = nil
		}
		p.creds[free], o.line, o.parent = c, free, of.index
		newest := of.tokens[len(of.tokens)-1]
		r.Token, o.generation = newest.text, newest.generation
		return r, o, c
	case validate, rotate, stepUp, others:
		c = one(sessions)
	case access, refresh:
		c = one(grants)
	case revoke:
		if c = one(sessions); len(grants) > 0 && rng.IntN(3) == 0 {
			c = one(grants)
		}
		c.doomed = true
	case everywhere:
		p.doom(nil)
		return r, o, nil
	}
	if o.verb == others {
		p.doom(c)
	}
	o.line = c.index
	r.Session = c.id
	switch o.verb {
	case access:
		r.Token = c.access[rng.IntN(len(c.access))]
	case validate, rotate, stepUp, refresh:
		which := len(c.tokens) - 1
		if rng.IntN(7) == 0 {
			which = rng.IntN(len(c.tokens))
		}
		r.Token, o.generation = c.tokens[which].text, c.tokens[which].generation
	}
	return r, o, c
}

func (w *world) verb(rng *rand.Rand) verb {
	n := rng.IntN(1000)
	for v, weight := range w.mix {
		if n < weight {
			return verb(v)
		}
		n -= weight
	}
	return validate
}

// doom notes that somebody tries, or has tried, to end all but c and what is below it.
func (p *person) doom(c *cred) {
	for _, other := range p.creds {
		if other != nil && other != c && (other.parent == nil || other.parent != c) {
			other.doomed = true
		}
	}
}

// heard notes what the person's clients hold now.
func (p *person) heard(c *cred, o *operation, got answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if o.verb == everywhere || o.verb == others { // what was made meanwhile, too
		p.doom(c)
	}
	switch {
	case o.outcome == unknown && o.verb != validate && o.verb != access:
		p.doubts++
		if o.verb == stepUp { // if it happened, nobody has the token
			c.doomed = true
		}
	case o.reason == afterlogin.ReasonReused:
		c.doomed = true
	}
	if o.verb == signIn || o.verb == grant {
		if o.outcome != ok {
			p.creds[c.index] = nil
			return
		}
		c.id = got.Session
	}
	if o.outcome != ok || got.Token == "" {
		return
	}
	i, have := slices.BinarySearchFunc(c.tokens, got.Generation, func(h held, g uint32) int { return int(h.generation) - int(g) })
	if !have {
		c.tokens = slices.Insert(c.tokens, i, held{got.Token, got.Generation})
	}
	if got.Access != "" && !slices.Contains(c.access, got.Access) {
		c.access = append(c.access, got.Access)
	}
}

// sweep validates, past every cache, what nobody has tried to end, and returns how many of these there were, how many are
// good, and of how many it is not known. All of it goes into the history. Clients may go on meanwhile.
func (w *world) sweep(people []*person, most int) (looked, good, unknowns int) {
	rng := rand.New(rand.NewPCG(w.seed, 1<<32))
	var ops []*operation
	ask := func(p *person, i int) *operation {
		p.mu.Lock()
		c := p.creds[i]
		var r request
		o := &operation{verb: validate, line: i, parent: -1, fresh: true, node: w.node(rng)}
		if c != nil && !c.grant && len(c.tokens) > 0 && !c.over() {
			newest := c.tokens[len(c.tokens)-1]
			r.Token, o.generation = newest.text, newest.generation
		}
		p.mu.Unlock()
		if r.Token == "" {
			return nil
		}
		w.perform(p, c, r, o)
		ops = append(ops, o)
		return o
	}
	for _, n := range rng.Perm(len(people)) {
		for i := range maxLines {
			if looked >= most {
				break
			}
			o := ask(people[n], i)
			for try := 0; o != nil && o.outcome == refused && try < 10; try++ { // somebody may just be about to end or renew it
				time.Sleep(50 * time.Millisecond)
				o = ask(people[n], i)
			}
			if o == nil {
				continue
			}
			looked++
			switch o.outcome {
			case ok:
				good++
			case unknown:
				unknowns++
			default:
				w.t.Logf("nobody has ended it: %v", o)
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, ops...)
	return looked, good, unknowns
}

// everybody returns all people so far; those in use returns the ones that clients are busy with.
func (w *world) everybody() []*person {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.people)
}

func (w *world) inUse() []*person {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Concat(w.active, w.cooling)
}
