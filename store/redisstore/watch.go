package redisstore

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/store"
)

const (
	// watchCount is how many events are read of a group at a time.
	watchCount = 256
	// watchPatience is how long an event waits for servers that do not say that they have no earlier one: one that is down,
	// or whose clock is behind.
	watchPatience = 2 * time.Second
	// watchEvery is how often all events are read without a hint.
	watchEvery = time.Second
)

// Watch implements store.Store. The order is that of the servers' clocks, which each event bears, and then of the groups:
// an event is yielded when every master's clock is past it. Each root's events are in order whatever the clocks say. A
// master that is down holds the events of others back for two seconds at most.
func (s *Store) Watch(ctx context.Context, since store.Cursor) (iter.Seq2[store.Event, error], error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.exit()
	var start position
	if since == "" {
		var err error
		if start, err = s.endOfEvents(ctx); err != nil {
			return nil, err
		}
	} else {
		var ok bool
		if start, ok = parseCursor(since); !ok {
			return nil, store.ErrGap
		}
	}
	return func(yield func(store.Event, error) bool) {
		w := newWatcher(s, start)
		for {
			more, err := w.round(ctx)
			if err != nil {
				yield(store.Event{}, err)
				return
			}
			for {
				e, ok := w.pop()
				if !ok {
					break
				}
				if !yield(e, nil) {
					return
				}
			}
			if more {
				continue
			}
			if err := w.wait(ctx); err != nil {
				yield(store.Event{}, err)
				return
			}
		}
	}, nil
}

// endOfEvents returns the last event of every group.
func (s *Store) endOfEvents(ctx context.Context) (p position, err error) {
	var all, empty []int
	for g := range groups {
		all = append(all, g)
	}
	err = s.ask(ctx, all, func(b rueidis.Builder, g int) rueidis.Completed {
		return b.Xrevrange().Key(s.keys.events(g)).End("+").Start("-").Count(1).Build()
	}, func(g int, r rueidis.RedisResult) error {
		es, err := r.AsXRange()
		if err != nil {
			return err
		}
		if len(es) == 0 {
			empty = append(empty, g)
			return nil
		}
		p[g], err = parsePlace(es[0].ID)
		return err
	})
	if err != nil {
		return p, err
	}
	places, err := s.joinAll(ctx, empty) // somebody has emptied the server
	if err != nil {
		return p, err
	}
	for i, g := range empty {
		if p[g], err = parsePlace(places[i].events); err != nil {
			return p, err
		}
	}
	return p, nil
}

// A watcher merges the groups' events.
type watcher struct {
	s       *Store
	at      position           // the last event of each group that was yielded
	read    position           // the last one that was read
	waiting [groups][]*arrival // read, and not yet yielded
	seen    [groups]uint64     // feed.eventsMoved when the group was read to its end
	fresh   [groups]bool       // whether it ever was
	// clock is up to when, in microseconds of its master's clock, nothing is missing of the group.
	clock [groups]int64
	next  time.Time // when everything is read again without a hint
	moved chan struct{}
}

// An arrival is an event that was read.
type arrival struct {
	placeID
	group int
	event store.Event
	came  time.Time
}

func newWatcher(s *Store, start position) *watcher {
	return &watcher{s: s, at: start, read: start}
}

// round reads what there is to read, in one pipeline for each master, which also asks for its time. It reports whether
// there is more to read at once.
func (w *watcher) round(ctx context.Context) (more bool, err error) {
	s := w.s
	if err := s.enter(ctx); err != nil {
		return false, err
	}
	defer s.exit()
	s.feed.movedMu.Lock()
	w.moved = s.feed.moved
	s.feed.movedMu.Unlock()
	if now := time.Now(); now.After(w.next) {
		w.next = now.Add(watchEvery)
		w.fresh = [groups]bool{}
	}
	of := map[*node][]int{}
	route := s.topo.current.Load()
	for g, n := range route.masters {
		if n != nil {
			of[n] = append(of[n], g)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for n, gs := range of {
		wg.Go(func() {
			rs, clock, e := w.ask(ctx, n, gs)
			mu.Lock()
			defer mu.Unlock()
			if e != nil {
				s.topo.kick() // it will be another one, or come back
				return
			}
			m, e := w.take(gs, rs, clock)
			more = more || m
			if e != nil {
				err = e
			}
		})
	}
	wg.Wait()
	if err == nil {
		err = ctx.Err()
	}
	return more, err
}

// A watched group, as it was read.
type look struct {
	due     bool // it was to be read
	moved   uint64
	entries []rueidis.XRangeEntry
	err     error
}

// ask reads those of a node's groups that may have something new, and then the node's clock, on the connection that is
// told of changes: what is not told of before the clock's answer happened after it.
func (w *watcher) ask(ctx context.Context, n *node, gs []int) (looks []look, clock int64, err error) {
	c, err := n.tracker()
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	b := c.B()
	var cmds []rueidis.Completed
	for _, g := range gs {
		l := look{moved: w.s.feed.eventsMoved[g].Load()}
		if !w.fresh[g] || l.moved != w.seen[g] {
			l.due = true
			cmds = append(cmds, b.Xrange().Key(w.s.keys.events(g)).Start(w.read[g].String()).End("+").Count(watchCount+1).Build())
		}
		looks = append(looks, l)
	}
	cmds = append(cmds, b.Time().Build())
	replies := c.DoMulti(ctx, cmds...)
	if err := replies[0].NonRedisError(); err != nil {
		return nil, 0, err
	}
	i := 0
	for j := range looks {
		if looks[j].due {
			looks[j].entries, looks[j].err = replies[i].AsXRange()
			i++
		}
	}
	t, err := replies[i].AsStrSlice()
	if err != nil || len(t) != 2 {
		return nil, 0, errShape
	}
	clock, err = strconv.ParseInt(t[0]+fmt.Sprintf("%06s", t[1]), 10, 64)
	return looks, clock, err
}

// take takes in what a node's groups had to say.
func (w *watcher) take(gs []int, looks []look, clock int64) (more bool, err error) {
	now := time.Now()
	for i, g := range gs {
		l := &looks[i]
		switch {
		case !l.due:
		case l.err != nil:
			if kind, _ := classify(l.err); kind == moved || kind == badPlace || kind == tryAgain || kind == asking {
				w.s.topo.kick()
				continue
			}
			return false, fmt.Errorf("redisstore: watch: %w", l.err)
		case len(l.entries) == 0 || l.entries[0].ID != w.read[g].String():
			return false, store.ErrGap
		default:
			for _, e := range l.entries[1:] {
				if err := w.add(g, e, now); err != nil {
					return false, err
				}
			}
			if len(l.entries) > watchCount {
				w.fresh[g] = false
				more = true
				continue
			}
			w.fresh[g], w.seen[g] = true, l.moved
		}
		if w.s.feed.eventsMoved[g].Load() == w.seen[g] {
			w.clock[g] = max(w.clock[g], clock)
		} else {
			more = true
		}
	}
	return more, nil
}

func (w *watcher) add(g int, e rueidis.XRangeEntry, now time.Time) error {
	p, err := parsePlace(e.ID)
	if err != nil {
		return fmt.Errorf("redisstore: watch: %w", err)
	}
	w.read[g] = p
	a := &arrival{placeID: p, group: g, came: now}
	if text, ok := e.FieldValues["e"]; ok {
		if a.event, err = parseEvent(text); err != nil {
			return fmt.Errorf("redisstore: watch: %w", err)
		}
	} else {
		a.event.Type = "" // the stream's first entry, which is no event
	}
	w.waiting[g] = append(w.waiting[g], a)
	return nil
}

// pop returns the next event, if none that is missing yet can be before it.
func (w *watcher) pop() (store.Event, bool) {
	for {
		var first *arrival
		for _, as := range w.waiting {
			if len(as) > 0 && (first == nil || as[0].before(first)) {
				first = as[0]
			}
		}
		if first == nil {
			return store.Event{}, false
		}
		if time.Since(first.came) < watchPatience {
			for g, as := range w.waiting {
				if len(as) == 0 && w.clock[g] <= first.us {
					return store.Event{}, false
				}
			}
		}
		w.waiting[first.group] = w.waiting[first.group][1:]
		w.at[first.group] = first.placeID
		if first.event.Type == "" {
			continue
		}
		e := first.event
		e.Cursor = w.at.cursor()
		return e, true
	}
}

func (a *arrival) before(b *arrival) bool {
	switch {
	case a.us != b.us:
		return a.us < b.us
	case a.group != b.group:
		return a.group < b.group
	}
	return a.seq < b.seq
}

// wait waits until there may be more.
func (w *watcher) wait(ctx context.Context) error {
	d := time.Until(w.next)
	for _, as := range w.waiting {
		if len(as) > 0 {
			d = 5 * time.Millisecond // for the other masters' clocks
			break
		}
	}
	for g := range w.fresh {
		if !w.fresh[g] {
			d = min(d, 50*time.Millisecond) // a master that is to come back
		}
	}
	t := time.NewTimer(max(d, time.Millisecond))
	defer t.Stop()
	select {
	case <-w.moved:
		return nil
	case <-t.C:
		return nil
	case <-w.s.ending.Done():
		return store.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
