// Package pulse keeps the figures of a server over time, in memory and bounded: how many people signed in, how many
// tokens were renewed, refused and stolen, how long a validation took, per second for five minutes and per minute for a
// day. It also puts together what an operator wants to see first, the [Overview].
//
// What is counted: validations, refusals and times are this server's own. Sign-ins, renewals, endings and alarms are
// those of all servers on a store that servers share ([Options.Watch]), and this server's own otherwise, which is the same
// there. All of it begins anew when the server does.
//
// Start with [New].
package pulse

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
)

// How much is kept.
const (
	Seconds = 300     // points of one second
	Minutes = 24 * 60 // points of one minute
	Alarms  = 100     // the latest alarms
)

// readyEvery is how often Options.Ready is asked.
const readyEvery = 2 * time.Second

// readyFor is for how long an answer of Options.Ready holds: a question that hangs is an answer, too.
const readyFor = 5 * readyEvery

// watchAgain is how long after a failure events are asked for again.
const watchAgain = time.Second

// Options configure New. Stats is required.
type Options struct {
	Stats func() afterlogin.Stats
	// Watch is (*afterlogin.Authority).Watch on a store that several servers share: what the others do counts, too. Nil: all
	// events come to Observe.
	Watch func(ctx context.Context, since string) (iter.Seq2[afterlogin.Event, error], error)
	// Latency returns how many validations took how long since the server began: counts[i] took at most bounds[i], the
	// last of counts longer than all of these. The bounds never change. Nil: not known.
	Latency func() (bounds []time.Duration, counts []uint64)
	// Live counts what is live now. Nil: not known.
	Live func() *Live
	// Ready says why requests should not be sent here, in plain words; "" if they should. It is asked every two seconds
	// and not while somebody waits. Nil: not known.
	Ready func(context.Context) string
	// Skew is how far this server's clock is ahead of the store's. Nil: the store has no clock of its own.
	Skew func() time.Duration

	Node, Version, Store string // names, for people
	Now                  func() time.Time
	Logger               *slog.Logger
}

// A Pulse gathers the figures. Make it with New, give it every event with Observe, and end it with Close.
type Pulse struct {
	o       Options
	reasons []afterlogin.Reason
	started time.Time
	stop    context.CancelFunc
	running sync.WaitGroup

	mu         sync.Mutex
	seconds    *ring
	minutes    *ring
	last       afterlogin.Stats // as of the last sample
	lastCounts []uint64
	minute     int64    // of hist
	hist       []uint64 // times of validations within the minute
	alarms     []Alarm  // the newest last
	totals     Counts
	ready      string
	asked      time.Time // when that was; zero: it is not known yet
}

// New begins to gather. It starts up to three goroutines, which Close ends.
func New(o Options) (*Pulse, error) {
	if o.Stats == nil {
		return nil, errors.New("pulse: Options.Stats is nil")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Pulse{o: o, reasons: afterlogin.Reasons(), started: o.Now(), last: o.Stats()}
	p.seconds, p.minutes = newRing(Seconds+1, len(p.reasons)), newRing(Minutes, len(p.reasons))
	if o.Latency != nil {
		_, p.lastCounts = o.Latency()
		p.hist = make([]uint64, len(p.lastCounts))
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.running.Go(func() { p.sampling(ctx) })
	if o.Ready != nil {
		p.running.Go(func() { p.askReady(ctx) })
	}
	if o.Watch != nil {
		p.running.Go(func() { p.watch(ctx) })
	}
	return p, nil
}

// Close ends the goroutines and returns when they have ended. What was gathered can still be read.
func (p *Pulse) Close() {
	p.stop()
	p.running.Wait()
}

// Observe takes an event, for afterlogin.Config.Observe. It is quick and calls nobody.
func (p *Pulse) Observe(e afterlogin.Event) {
	if p.o.Watch == nil || e.Reported {
		p.count(e)
	}
}

func (p *Pulse) sampling(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			p.Sample()
		}
	}
}

func (p *Pulse) askReady(ctx context.Context) {
	t := time.NewTicker(readyEvery)
	defer t.Stop()
	for {
		why := p.o.Ready(ctx)
		if ctx.Err() != nil {
			return
		}
		p.mu.Lock()
		p.ready, p.asked = why, time.Now()
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Ready reports whether requests should be sent here, as was known a moment ago: it asks nobody.
func (p *Pulse) Ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unready() == ""
}

// unready says why requests should not be sent here; "" if they should. The caller holds the lock.
func (p *Pulse) unready() string {
	switch {
	case p.asked.IsZero():
		return "not known yet"
	case time.Since(p.asked) > readyFor: // by the clock of the ticker, whatever Options.Now says
		return "the server has not been able to tell for a while"
	}
	return p.ready
}

// watch follows the events of all servers. What is missed while the store does not answer is made up for, unless the
// store has dropped it meanwhile.
func (p *Pulse) watch(ctx context.Context) {
	since := ""
	for ctx.Err() == nil {
		events, err := p.o.Watch(ctx, since)
		if err == nil {
			for e, eerr := range events {
				if err = eerr; err != nil {
					break
				}
				since = e.Cursor
				p.count(e)
			}
		}
		if errors.Is(err, afterlogin.ErrGap) {
			since = ""
			p.o.Logger.Warn("the overview has missed events")
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// place returns the second and the minute of a moment. They count from the start by the monotonic clock, so that a clock
// that is set leaves no hole, and never go back by more than is kept; minutes begin with those of the clock on the wall at
// the start. The caller holds the lock.
func (p *Pulse) place(at time.Time) (second, minute int64) {
	second = max(0, int64(at.Sub(p.started)/time.Second), p.seconds.newest-1)
	return second, (second + int64(p.started.Second())) / 60
}

// count adds an event to the current second and minute.
func (p *Pulse) count(e afterlogin.Event) {
	add, alarm := weigh(e)
	if add == (Counts{}) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	second, minute := p.place(p.o.Now())
	p.totals.add(add)
	p.seconds.add(second, add)
	p.minutes.add(minute, add)
	if !alarm {
		return
	}
	if len(p.alarms) == Alarms {
		p.alarms = append(p.alarms[:0], p.alarms[1:]...)
	}
	p.alarms = append(p.alarms, newAlarm(e))
}

// weigh returns what an event counts as, and whether it is an alarm.
func weigh(e afterlogin.Event) (c Counts, alarm bool) {
	switch e.Type {
	case afterlogin.EventCreated:
		if e.Subject != "" && e.Session == e.Root { // neither anonymous nor handed over to another host
			c.SignIns = 1
		}
	case afterlogin.EventRenewed, afterlogin.EventGrantRenewed:
		c.Renewals = 1
	case afterlogin.EventRevoked:
		if e.Reason == afterlogin.ReasonSignedOut {
			c.SignOuts = 1
		} else {
			c.Revocations = 1
		}
	case afterlogin.EventKeyRevoked, afterlogin.EventGrantRevoked, afterlogin.EventAccessRevoked, afterlogin.EventClientRevoked, afterlogin.EventSubject:
		c.Revocations = 1
	case afterlogin.EventReuse, afterlogin.EventKeyReuse, afterlogin.EventGrantReuse, afterlogin.EventCodeReplayed, afterlogin.EventRolledBack:
		c.Alarms, alarm = 1, true
	}
	return c, alarm
}

// Sample adds what the authority has counted since the last sample. It is called every second; nobody else needs to.
func (p *Pulse) Sample() {
	stats := p.o.Stats()
	var bounds []time.Duration
	var counts []uint64
	if p.o.Latency != nil {
		bounds, counts = p.o.Latency()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// The ticker fires as a second has ended: what was counted belongs to that one.
	second, minute := p.place(p.o.Now().Add(-500 * time.Millisecond))
	add := Counts{Validations: since(answered(stats), answered(p.last))}
	for i, r := range p.reasons {
		n := since(stats.Refused[r], p.last.Refused[r])
		add.Refusals += n
		p.seconds.refuse(second, i, n)
		p.minutes.refuse(minute, i, n)
	}
	p.totals.add(add)
	p.seconds.add(second, add)
	p.minutes.add(minute, add)
	p.last = stats
	if len(counts) == 0 || len(counts) != len(p.hist) {
		return
	}
	if minute != p.minute {
		p.minute = minute
		clear(p.hist)
	}
	diff := make([]uint64, len(counts))
	for i, n := range counts {
		diff[i] = since(n, p.lastCounts[i])
		p.hist[i] += diff[i]
	}
	p.lastCounts = counts
	p.seconds.took(second, quantiles(bounds, diff))
	p.minutes.took(minute, quantiles(bounds, p.hist))
}

// answered counts the validations that had an answer, whatever it was.
func answered(s afterlogin.Stats) uint64 {
	v := s.Validations
	return v.Valid + v.Refused + v.Unavailable + v.Limited
}

// since is the growth of a count. Counts are not of one moment, and may seem to have shrunk by one.
func since(now, before uint64) uint64 {
	if now < before {
		return 0
	}
	return now - before
}
