package webhook

import (
	"context"
	"errors"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterlogin/afterlogin"
)

const (
	// maxPending is how many events are held in memory while the one before them is under way. More are parked.
	maxPending = 64
	// storePause is how long to wait after the store did not answer.
	storePause = time.Second
)

// errLost means that this server does not deliver to the webhook any more.
var errLost = errors.New("the lease is lost")

// A courier delivers to one webhook, while it holds the lease. What is in front goes first: what the outbox holds, and then
// what is pending in memory, which no crash loses, since the cursor that is saved stands before it. One goroutine, run,
// owns all of it; another one reads the stream, and a third one waits for the receiver.
type courier struct {
	w     *Webhooks
	id    string
	log   *slog.Logger
	seen  atomic.Uint64 // the version of the entry that the supervisor has seen last
	nudge chan struct{}

	entry *afterlogin.Entry
	r     *record
	until time.Time // the lease's end

	naming  naming
	pending []*item
	front   *item // what stands at the outbox's head, if it was read

	// The stream: up to done everything is delivered or parked, up to read everything was taken from it.
	done, read     string
	doneAt, readAt int64
	stream         chan streamed
	endStream      context.CancelFunc
	streamAt       time.Time // not to be opened before then
	reading        sync.WaitGroup

	// The one request that is under way.
	flying    *item
	endFlight context.CancelFunc
	landed    chan outcome
	look      bool   // one behind the front is to be tried: see maxFaults
	ahead     uint64 // how far behind it is what is under way
	silent    int    // how many were given up in a row for which there was no answer: see maxSilent

	dirty    int // deliveries that are not saved
	dirtyAt  time.Time
	moved    bool // the cursor has, and nothing else
	saveNow  bool
	saveAt   time.Time // not to be saved before then: the store did not answer
	loud     bool      // the next save is to be an event
	renewAt  time.Time
	loadAt   time.Time // the outbox is not to be read before then
	tidyAt   time.Time // when dead letters are looked through
	onceMore bool      // there is more to do without waiting
}

// streamed is an event, or why there are no more.
type streamed struct {
	event afterlogin.Event
	err   error
}

func newCourier(w *Webhooks, e *afterlogin.Entry, r *record, until time.Time) *courier {
	s := &r.State
	c := &courier{
		w: w, id: r.ID, log: w.log.With("webhook", r.ID), nudge: make(chan struct{}, 1),
		entry: e, r: r, until: until, renewAt: until.Add(renewEvery - leaseTime), landed: make(chan outcome, 1),
		done: s.Cursor, read: s.Cursor, doneAt: s.LastAt, readAt: s.LastAt,
		naming: naming{installation: w.install, seen: s.Twins},
	}
	c.seen.Store(e.Version)
	return c
}

// see is told by the supervisor what version the entry has; 0: it is gone.
func (c *courier) see(version uint64) {
	if c.seen.Swap(version) != version {
		select {
		case c.nudge <- struct{}{}:
		default:
		}
	}
}

// run delivers until ctx ends, the lease is lost, or the webhook is disabled or removed.
func (c *courier) run(ctx context.Context) {
	c.log.Debug("delivering begins", "term", c.r.State.Term)
	err := c.loop(ctx)
	if c.w.killed.Err() != nil {
		err = errLost
	}
	c.closeStream()
	c.land(err == nil)
	if err == nil {
		c.handOver()
	}
	c.log.Debug("delivering ends", "err", err)
}

// loop returns nil if the lease is still there, to be given back.
func (c *courier) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		c.onceMore = false
		if err := c.step(ctx); err != nil {
			return err
		}
		if c.r.Disabled {
			return nil
		}
		stream := c.stream
		if len(c.pending) >= 2*maxPending { // the store takes nothing, or holds enough
			stream = nil
		}
		timer.Reset(c.wait())
		select {
		case <-ctx.Done():
			return nil
		case s, ok := <-stream:
			if ok {
				c.take(ctx, s)
			}
			for more := ok; more && len(c.pending) < maxPending; {
				select {
				case s, ok := <-c.stream:
					if more = ok; ok {
						c.take(ctx, s)
					}
				default:
					more = false
				}
			}
		case o := <-c.landed:
			c.judge(ctx, o)
		case <-c.nudge:
			if err := c.refresh(ctx); err != nil {
				return err
			}
		case <-timer.C:
		}
	}
}

// wait is how long there is nothing to do.
func (c *courier) wait() time.Duration {
	if c.onceMore {
		return 0
	}
	now := c.w.now()
	next := c.renewAt
	sooner := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	sooner(c.until)
	if c.dirty > 0 {
		sooner(c.dirtyAt.Add(saveEvery))
	}
	if c.stream == nil {
		sooner(c.streamAt)
	}
	if c.flying == nil && (c.r.State.waiting() > 0 || len(c.pending) > 0) {
		next2 := fromMillis(c.r.State.NextTry)
		if c.loadAt.After(next2) {
			next2 = c.loadAt
		}
		sooner(next2)
	}
	if next.Before(c.saveAt) {
		next = c.saveAt
	}
	if c.until.Before(next) {
		next = c.until
	}
	return max(0, next.Sub(now))
}

// step does what can be done now. It fails if the lease is lost.
func (c *courier) step(ctx context.Context) error {
	if err := c.save(ctx, false); err != nil {
		return err
	}
	if c.stream == nil && !c.w.now().Before(c.streamAt) {
		c.open(ctx)
	}
	s := &c.r.State
	if len(c.pending) > 0 && !s.full() && (s.waiting() > 0 || len(c.pending) >= maxPending || s.NextTry > c.w.now().UnixMilli()) && !c.w.now().Before(c.saveAt) {
		c.parkPending(ctx)
	}
	c.again(ctx)
	c.tidy(ctx)
	c.dispatch(ctx)
	return c.save(ctx, false)
}

// open begins to read the stream behind what was read of it.
func (c *courier) open(ctx context.Context) {
	watching, cancel := context.WithCancel(ctx)
	behind := c.read == "" // a gap
	events, err := c.w.authority.Watch(watching, c.read)
	gap := errors.Is(err, afterlogin.ErrGap)
	if gap {
		events, err = c.w.authority.Watch(watching, "")
	}
	if err != nil {
		cancel()
		if ctx.Err() == nil {
			c.log.Warn("the events cannot be read", "err", err)
		}
		c.streamAt = c.w.now().Add(storePause)
		return
	}
	ch := make(chan streamed)
	c.stream, c.endStream = ch, cancel
	c.reading.Go(func() {
		defer close(ch)
		for e, err := range events {
			select {
			case ch <- streamed{e, err}:
			case <-watching.Done():
				return
			}
		}
	})
	if gap || behind {
		c.miss()
	}
}

func (c *courier) closeStream() {
	if c.endStream != nil {
		c.endStream()
	}
	c.reading.Wait()
	c.stream, c.endStream = nil, nil
}

// take takes in what came out of the stream.
func (c *courier) take(ctx context.Context, s streamed) {
	if s.err != nil {
		c.closeStream()
		if errors.Is(s.err, afterlogin.ErrGap) {
			c.log.Warn("events were dropped before they were read; the receiver is told")
			c.read = "" // open finds it, and watches before it says so
			return
		}
		if ctx.Err() == nil {
			c.log.Warn("the events cannot be read", "err", s.err)
		}
		c.streamAt = c.w.now().Add(storePause)
		return
	}
	e := &s.event
	c.read, c.readAt = e.Cursor, e.At.UnixMilli()
	if wants(c.r.Events, e.Type) {
		c.pending = append(c.pending, &item{ID: c.naming.id(e), At: c.w.now().UnixMilli(), Event: newEvent(*e), cursor: e.Cursor, named: true})
		return
	}
	if len(c.pending) == 0 {
		c.done, c.doneAt = c.read, c.readAt
		c.moved = true
	}
}

// dispatch sends what is in front, if it is its time.
func (c *courier) dispatch(ctx context.Context) {
	s := &c.r.State
	for range 64 {
		if c.flying != nil || c.r.Disabled {
			return
		}
		now := c.w.now()
		var i *item
		switch {
		case s.waiting() > 0:
			if now.Before(c.loadAt) {
				return
			}
			if i = c.head(ctx); i == nil {
				return
			}
			// It was tried for long enough. What has waited for as long behind it was not tried at all: once it is, unless
			// nothing is heard of the receiver.
			if s.Tries > 0 && c.old(i) {
				c.bury(ctx, i, outcome{status: s.LastStatus, err: s.LastError})
				continue
			}
			if c.silent >= maxSilent && c.old(i) {
				c.bury(ctx, i, outcome{err: "not tried: there was no answer for those before it"})
				continue
			}
		case len(c.pending) > 0:
			i = c.pending[0]
		default:
			return
		}
		if c.look {
			c.look = false
			if n, next := c.behind(ctx); next != nil {
				c.ahead, i = n, next
			}
		}
		if now.UnixMilli() < s.NextTry && c.ahead == 0 || !now.Before(c.until) {
			c.ahead = 0
			return
		}
		flight, cancel := context.WithCancel(context.Background())
		c.flying, c.endFlight = i, cancel
		r := *c.r
		c.w.running.Go(func() { c.landed <- c.w.attempt(flight, c.id, &r, i) })
		return
	}
	c.onceMore = true
}

// old reports whether the event was tried for long enough.
func (c *courier) old(i *item) bool {
	return c.w.now().UnixMilli()-i.At >= c.w.giveUp.Milliseconds()
}

// judge takes in what became of the attempt at what is in front, or behind it.
func (c *courier) judge(ctx context.Context, o outcome) {
	i, ahead := c.flying, c.ahead
	c.flying, c.ahead = nil, 0
	c.endFlight()
	if o.ended {
		return
	}
	s := &c.r.State
	s.LastStatus = o.status
	if o.status != 0 {
		c.silent = 0
	}
	if o.ok {
		c.w.count(resultDelivered)
		if s.Failures > 0 {
			c.log.Info("the receiver takes events again", "attempts", s.Failures+1, "waiting", s.waiting())
		}
		s.Failures, s.LastSuccess, s.LastError = 0, c.w.now().UnixMilli(), ""
		if ahead > 0 { // now the front again, at once, so that it is not one that has come back meanwhile
			s.Taken |= 1 << ahead
			s.Passed, s.NextTry, c.saveNow = true, 0, true
		} else {
			c.advance()
		}
		return
	}
	c.w.count(resultFailed)
	if s.Failures == 0 {
		c.log.Warn("the receiver does not take an event", "event", i.ID, "status", o.status, "reason", o.err)
	}
	s.Failures++
	s.LastFailure, s.LastError = c.w.now().UnixMilli(), clean(o.err, maxError)
	if ahead == 0 { // what one behind it is answered says nothing about the front
		s.Tries++
		s.NextTry = c.w.now().Add(pause(s.Tries, &o)).UnixMilli()
		if o.refused {
			s.Refusals++
		}
		if o.status/100 == 5 {
			s.Faults++
			c.look = s.Faults >= maxFaults && !s.Passed
		}
	}
	c.saveNow = true
	if o.gone {
		c.log.Warn("the receiver answered 410 Gone, so that the webhook is disabled")
		c.r.Disabled, c.r.Why, c.loud = true, "the receiver answered 410 Gone", true
		c.r.Changed = c.w.now().UnixMilli()
	}
	if s.waiting() == 0 && !c.parkPending(ctx) {
		return
	}
	chokes := o.status/100 == 5 && s.Passed
	if ahead == 0 && (o.refused && s.Refusals >= maxRefusals || chokes || c.old(i)) && c.bury(ctx, i, o) && chokes {
		s.Faults = maxFaults - moreFaults
	}
}

// advance goes on behind what is in front, which is done.
func (c *courier) advance() {
	s := &c.r.State
	if s.waiting() > 0 {
		n := bits.TrailingZeros64(^(s.Taken | 1)) // it, and those behind it that were taken before
		s.Head += uint64(n)
		s.Taken >>= n
		c.front = nil
		s.Oldest = 0
	} else {
		c.done, c.doneAt = c.pending[0].cursor, c.pending[0].Event.At.UnixMilli()
		if c.pending = c.pending[1:]; len(c.pending) == 0 {
			c.done, c.doneAt, c.pending = c.read, c.readAt, nil
		}
	}
	s.Tries, s.Refusals, s.Faults, s.Passed, s.NextTry, c.look = 0, 0, 0, false, 0, false
	if c.dirty == 0 {
		c.dirtyAt = c.w.now()
	}
	c.dirty++
}

// land waits for the request that is under way, for a while if there is time, and takes in what became of it.
func (c *courier) land(patient bool) {
	if c.flying == nil {
		return
	}
	if patient {
		t := time.NewTimer(handOver)
		defer t.Stop()
		select {
		case o := <-c.landed:
			c.judge(context.WithoutCancel(c.w.ctx), o)
			return
		case <-t.C:
		}
	}
	c.endFlight()
	o := <-c.landed
	if patient {
		c.judge(context.WithoutCancel(c.w.ctx), o)
	}
}
