package history

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// A fault is one thing that happens to the servers or to a node while clients go on.
type fault struct {
	name  string
	do    func() error
	limit time.Duration // after that, counted from its beginning, everything works
	slack time.Duration // or that long after do has returned, if it waits for the servers and they took their time
	at    int64
}

// rest is how long a fault is waited for, behind its limit.
const rest = 1500 * time.Millisecond

// suffer has the faults happen, one after the other, and looks after each that nobody has been signed out.
func (w *world) suffer(t testing.TB, faults []*fault) {
	t.Helper()
	for _, f := range faults {
		f.at = w.now()
		if err := f.do(); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		if f.slack > 0 {
			f.limit = max(f.limit, time.Duration(w.now()-f.at)+f.slack)
		}
		time.Sleep(time.Duration(f.at) + f.limit + rest - time.Duration(w.now()))
		looked, good, unknowns := w.sweep(w.inUse(), 60)
		if good < looked {
			t.Errorf("%s: of %d sessions that nobody ended %d are good afterwards, and of %d it is not known", f.name, looked, good, unknowns)
		}
	}
}

// bucket is the unit in which it is measured for how long answers are missing.
const bucket = 250 * time.Millisecond

// recovered checks for how long answers were missing after each fault: up to the end of the last quarter of a second in
// which more than one of 20 was. Single ones may be missing later, one of 100 at most, on a machine that is busy with much
// else; they are counted.
func (w *world) recovered(t testing.TB, faults []*fault) {
	t.Helper()
	type figures struct {
		times, missing, late int
		excused              int
		worst, last          time.Duration
	}
	all := make(map[string]*figures)
	var names []string
	for i, f := range faults {
		end := int64(forever)
		if i+1 < len(faults) {
			end = faults[i+1].at
		}
		x := all[f.name]
		if x == nil {
			x = &figures{}
			all[f.name] = x
			names = append(names, f.name)
		}
		x.times++
		missing, total := make(map[int64]int), make(map[int64]int)
		late, after := 0, 0
		var how *operation
		for _, o := range w.history {
			if o.call < f.at || o.ret >= end { // what is under way when the next one comes suffers from that
				continue
			}
			since := time.Duration(o.call - f.at)
			total[int64(since/bucket)]++
			if since > f.limit && o.strong() {
				after++
			}
			if o.outcome != unknown {
				continue
			}
			if since > f.limit && w.stalled(o) {
				x.excused++
				continue
			}
			x.missing++
			missing[int64(since/bucket)]++
			if since > f.limit {
				late++
				how = o
			}
			x.last = max(x.last, since)
		}
		for b, n := range missing {
			if n*20 > total[b] {
				out := time.Duration(b+1) * bucket
				x.worst = max(x.worst, out)
				if out > f.limit {
					t.Errorf("%s: %d of %d answers were missing %v after it, over %v: %v", f.name, n, total[b], out, f.limit, how)
				}
			}
		}
		x.late += late
		if after == 0 || late*100 > after {
			t.Errorf("%s: later than %v after it %d answers were missing, of %d: %v", f.name, f.limit, late, after, how)
		}
	}
	for _, name := range names {
		x := all[name]
		t.Logf("%-40s %d times: answers missing for %4d ms at most; %d in all, %d late, the last one after %d ms; %d more while the machine stood still",
			name, x.times, x.worst.Milliseconds(), x.missing, x.late, x.last.Milliseconds(), x.excused)
	}
}

// stall is a time in which this process was not given its turn, and the servers probably neither.
type stall struct{ from, to int64 }

// stillness is how late a turn may come.
const stillness = 100 * time.Millisecond

// meter notes stalls until the world is stopped.
func (w *world) meter() {
	const every = 20 * time.Millisecond
	for {
		from := w.now()
		select {
		case <-w.stop:
			return
		case <-time.After(every):
		}
		if to := w.now(); time.Duration(to-from) > every+stillness {
			w.stalls = append(w.stalls, stall{from, to})
		}
	}
}

// stalled reports whether the machine stood still during the operation, or shortly before.
func (w *world) stalled(o *operation) bool {
	for _, s := range w.stalls {
		if s.from < o.ret && s.to > o.call-int64(time.Second) {
			return true
		}
	}
	return false
}

// pauses returns the fault that the node in a process of its own is stopped, while others revoke what it has in memory.
func (w *world) pauses(a *away, n int, d time.Duration) *fault {
	return &fault{name: fmt.Sprintf("a node is stopped for %v", d), limit: d + 3*time.Second, do: func() error { return w.pause(a, n, d) }}
}

func (w *world) pause(a *away, n int, d time.Duration) error {
	rng := rand.New(rand.NewPCG(w.seed, uint64(w.now())))
	w.mu.Lock()
	var people []*person
	for range 40 {
		people = append(people, w.newPerson())
	}
	w.mu.Unlock()
	var mu sync.Mutex
	var ops []*operation
	do := func(p *person, c *cred, v verb, node int, fresh bool) *operation {
		r := request{Session: c.id}
		o := &operation{verb: v, line: c.index, parent: -1, node: node, fresh: fresh}
		if v == validate {
			r.Token, o.generation = c.tokens[0].text, c.tokens[0].generation
		}
		w.perform(p, c, r, o)
		mu.Lock()
		defer mu.Unlock()
		ops = append(ops, o)
		return o
	}
	other := func() int { return (n + 1 + rng.IntN(2)) % 3 }
	var creds []*cred
	for _, p := range people {
		c := &cred{index: 0}
		p.creds[0] = c
		if o := do(p, c, signIn, other(), false); o.outcome != ok {
			return fmt.Errorf("sign-in: %v", o)
		}
		creds = append(creds, c)
		for range 2 { // it is in the node's memory now
			do(p, c, validate, n, false)
		}
	}
	w.away[n].Store(true)
	defer w.away[n].Store(false)
	if err := a.pause(); err != nil {
		return err
	}
	var asking sync.WaitGroup
	began := time.Now()
	for i, p := range people {
		at := d * time.Duration(i) / time.Duration(len(people))
		time.Sleep(at - time.Since(began))
		asking.Go(func() { do(p, creds[i], validate, n, false) }) // it hears of it when it goes on
		creds[i].doomed = i%4 < 3
		switch i % 4 {
		case 0, 1:
			do(p, creds[i], revoke, other(), false)
		case 2:
			do(p, creds[i], everywhere, other(), false)
		}
	}
	time.Sleep(d - time.Since(began))
	if err := a.resume(); err != nil {
		return err
	}
	for worker := range 4 {
		asking.Go(func() {
			for range 20 {
				for i := worker; i < len(people); i += 4 {
					do(people[i], creds[i], validate, n, i%8 == 0)
				}
			}
		})
	}
	asking.Wait()
	w.mu.Lock()
	w.history = append(w.history, ops...)
	w.mu.Unlock()
	return nil
}
