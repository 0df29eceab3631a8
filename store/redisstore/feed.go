package redisstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/store"
)

// A feed reads the groups' change logs. The server tells the connection that read a log when it changes (tracking), which
// is the hint to read it again; and every log is read every probeEvery whatever happens. A read begins with the entry
// that was read last: while that is there, nothing behind it is missing.
type feed struct {
	s     *Store
	logs  [groups]changeLog
	heard [groups]atomic.Pointer[time.Time]

	// moved is closed and replaced when the events of a group may have changed; eventsMoved counts these times.
	movedMu     sync.Mutex
	moved       chan struct{}
	eventsMoved [groups]atomic.Uint64

	mu    sync.Mutex
	stats store.Feed
}

// A changeLog is this process's place in one group's change log.
type changeLog struct {
	// mu guards the rest. It is not held while a server is asked.
	mu     sync.Mutex
	last   string // the id of the last entry that was told
	replid string // the replication id of the master when it was read
	dirty  atomic.Bool
}

// readCount is how many entries are read at a time.
const readCount = 1000

// Heard implements store.Shared.
func (s *Store) Heard(partition int) time.Time {
	if t := s.feed.heard[partitionGroup(partition)].Load(); t != nil {
		return *t
	}
	return time.Time{}
}

// Feed implements store.Shared.
func (s *Store) Feed() store.Feed {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	return s.feed.stats
}

func (f *feed) init(s *Store) { f.s, f.moved = s, make(chan struct{}) }

// extend notes that a group was heard, as a node has answered a question that was sent then, unless another node is its
// master now: then it is not known until when this one was. With Sentinel the group was heard no later than when a majority
// named that master.
func (f *feed) extend(g int, n *node, sent time.Time) {
	r := f.s.topo.current.Load()
	if r.masters[g] != n {
		return
	}
	if f.s.source.trusted() > 0 && r.at.Before(sent) {
		sent = r.at
	}
	if old := f.heard[g].Load(); old == nil || sent.After(*old) {
		f.heard[g].Store(&sent)
	}
}

// eventsMayHaveMoved wakes the watchers, after eventsMoved was counted up.
func (f *feed) eventsMayHaveMoved() {
	f.movedMu.Lock()
	defer f.movedMu.Unlock()
	close(f.moved)
	f.moved = make(chan struct{})
}

// hinted is called by the connection with the keys that have changed, or with none if any may have. It must be quick.
func (n *node) hinted(keys []rueidis.RedisMessage) {
	f := &n.s.feed
	read, events := false, false
	if keys == nil {
		for _, g := range n.groups() {
			f.logs[g].dirty.Store(true)
			f.eventsMoved[g].Add(1)
		}
		read, events = true, true
	}
	for i := range keys {
		key, err := keys[i].ToString()
		if err != nil {
			continue
		}
		g, ok := n.s.keys.groupOfKey(key)
		switch {
		case ok && strings.HasSuffix(key, "}:c"):
			f.logs[g].dirty.Store(true)
			read = true
		case ok && strings.HasSuffix(key, "}:e"):
			f.eventsMoved[g].Add(1)
			events = true
		}
	}
	if read {
		n.nudge()
	}
	if events {
		f.eventsMayHaveMoved()
	}
}

func (n *node) nudge() {
	select {
	case n.hint <- struct{}{}:
	default:
	}
}

// wake has the node's groups read at once, and its watchers look again.
func (n *node) wake() {
	n.probe.Store(true)
	n.hinted(nil)
}

// groups returns the groups whose master the node is.
func (n *node) groups() []int {
	var gs []int
	if r := n.s.topo.current.Load(); r != nil {
		for g := range groups {
			if r.masters[g] == n {
				gs = append(gs, g)
			}
		}
	}
	return gs
}

// tracker returns the client whose reads are tracked. It has one connection, so that what is read and what is told of it
// are in order.
func (n *node) tracker() (rueidis.Client, error) {
	n.mu.Lock()
	if n.stopped {
		n.mu.Unlock()
		return nil, errGone
	}
	if n.track == nil {
		o := n.s.source.option(n.addr)
		o.DisableCache = false
		o.ClientTrackingOptions = []string{} // all that is read, not only what asks for it
		o.CacheSizeEachConn = 1
		o.OnInvalidations = n.hinted
		n.track = newClient(o)
	}
	c := n.track
	n.mu.Unlock()
	return c()
}

// listen reads the change logs of the node's groups until it is stopped.
func (n *node) listen() {
	ctx, cancel := context.WithCancel(n.s.ending)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	n.wg.Go(func() {
		select {
		case <-n.gone:
			cancel()
		case <-stop:
		}
	})
	select {
	case <-n.s.begun: // the places in the logs are known
	case <-ctx.Done():
		return
	}
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		probe := false
		select {
		case <-ctx.Done():
			return
		case <-n.hint:
			probe = n.probe.Swap(false)
		case <-next.C:
			probe = true
		}
		if probe {
			// A little less than probeEvery, and not all nodes at once.
			next.Reset(probeEvery*9/10 - time.Duration(rand.Int64N(int64(probeEvery/5))))
		}
		var gs []int
		for _, g := range n.groups() {
			if dirty := n.s.feed.logs[g].dirty.Swap(false); dirty || probe {
				gs = append(gs, g)
			}
		}
		if len(gs) == 0 {
			continue
		}
		if err := n.s.feed.round(ctx, n, gs, probe); err != nil && ctx.Err() == nil {
			n.s.feed.fail()
			n.s.health.failed(n.addr, err)
			n.s.topo.kick()
			if sleep(ctx, 20*time.Millisecond) != nil {
				return
			}
		}
	}
}

func (f *feed) fail() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Failures++
}

// A reading is what a log had to say.
type reading struct {
	group   int
	from    string
	entries []rueidis.XRangeEntry
	err     error
}

// round reads the logs of some of a node's groups, in one pipeline, and tells of what is new. A probe asks the server about
// itself on the same connection, and extends what was heard.
func (f *feed) round(ctx context.Context, n *node, gs []int, probe bool) error {
	sent := time.Now()
	rs, info, err := f.read(ctx, n, gs, probe)
	if err != nil {
		return err
	}
	if probe {
		f.clock(n, sent, time.Now(), info)
		n.s.health.probed(n, info)
		err := n.standing(info)
		n.demoted.Store(err != nil)
		if err != nil {
			return err
		}
	}
	var lost []int
	var first error
	for _, r := range rs {
		l := &f.logs[r.group]
		l.mu.Lock()
		same := l.last == r.from // nobody else has read on meanwhile
		replid := l.replid
		l.mu.Unlock()
		switch {
		case r.err != nil:
			if first == nil {
				first = r.err
			}
			if kind, _ := classify(r.err); kind != badPlace && kind != moved && kind != asking && kind != tryAgain {
				n.s.log.Warn("the change log cannot be read", "group", r.group, "err", r.err)
			}
		case !same:
			l.dirty.Store(true)
			n.nudge()
		case len(r.entries) == 0 || r.entries[0].ID != r.from || probe && replid != info["master_replid"]:
			lost = append(lost, r.group)
		default:
			f.tell(n, r.group, r.entries[1:])
			l.mu.Lock()
			l.last = r.entries[len(r.entries)-1].ID
			l.mu.Unlock()
			if len(r.entries) > readCount { // there may be more
				l.dirty.Store(true)
				if probe {
					n.probe.Store(true)
				}
				n.nudge()
			} else if probe {
				f.extend(r.group, n, sent)
			}
		}
	}
	if len(lost) > 0 {
		if !probe { // it takes one to know with whom one deals
			n.probe.Store(true)
			n.nudge()
			return first
		}
		if err := f.rejoin(ctx, n, lost, info["master_replid"]); err != nil {
			return err
		}
	}
	return first
}

// standing returns why a server that says this of itself may not be believed, or nil. A master that has lost its cluster
// is one that another may have replaced: with cluster-allow-reads-when-down it goes on answering.
func (n *node) standing(info map[string]string) error {
	switch {
	case info["role"] != "master":
		return errors.New("it is not a master")
	case n.s.source.clustered() && info["cluster_state"] != "ok":
		return errors.New("it has lost its cluster: cluster_state is " + info["cluster_state"])
	}
	return nil
}

// read asks the server.
func (f *feed) read(ctx context.Context, n *node, gs []int, probe bool) (rs []reading, info map[string]string, err error) {
	c, err := n.tracker()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	b := c.B()
	var cmds []rueidis.Completed
	for _, g := range gs {
		l := &f.logs[g]
		l.mu.Lock()
		r := reading{group: g, from: l.last}
		l.mu.Unlock()
		from := r.from
		if from == "" {
			from = "-"
		}
		rs = append(rs, r)
		cmds = append(cmds, b.Xrange().Key(n.s.keys.changes(g)).Start(from).End("+").Count(readCount+1).Build())
	}
	if probe {
		// Behind the reads: whoever is master now was it before, or is not the one that we know.
		cmds = append(cmds, b.Info().Section("replication", "memory").Build(), b.Time().Build())
		if n.s.source.clustered() {
			cmds = append(cmds, b.ClusterInfo().Build())
		}
	}
	replies := c.DoMulti(ctx, cmds...)
	for i := range rs {
		if err := replies[i].NonRedisError(); err != nil {
			return nil, nil, err
		}
		rs[i].entries, rs[i].err = replies[i].AsXRange()
	}
	if probe {
		text, err := replies[len(rs)].ToString()
		if err != nil {
			return nil, nil, err
		}
		info = parseInfo(text)
		t, err := replies[len(rs)+1].AsStrSlice()
		if err != nil || len(t) != 2 {
			return nil, nil, errShape
		}
		info["time"] = t[0] + fmt.Sprintf("%06s", t[1])
		if n.s.source.clustered() {
			text, err := replies[len(rs)+2].ToString()
			if err != nil {
				return nil, nil, err
			}
			info["cluster_state"] = parseInfo(text)["cluster_state"]
		}
	}
	return rs, info, nil
}

// tell calls the listeners for entries of a log.
func (f *feed) tell(n *node, g int, entries []rueidis.XRangeEntry) {
	if len(entries) == 0 {
		return
	}
	skew := time.Duration(n.skew.Load())
	for _, e := range entries {
		us, root, number, err := f.parse(e)
		if err != nil {
			f.s.log.Warn("the change log has an entry of unknown form", "group", g, "entry", e.ID)
			f.s.told.everything()
			continue
		}
		if root.IsZero() { // the log's first
			continue
		}
		f.s.told.heard(number, root)
		f.mu.Lock()
		f.stats.Took(max(0, time.Since(time.UnixMicro(us))-skew))
		f.mu.Unlock()
	}
}

// parse returns when an entry was made, by the server's clock, of which root it tells, and, if this process has written
// it, the number of the Apply.
func (f *feed) parse(e rueidis.XRangeEntry) (us int64, root store.ID, number uint64, err error) {
	if us, _, err = parseStreamID(e.ID); err != nil {
		return 0, store.ID{}, 0, err
	}
	if _, begin := e.FieldValues["b"]; begin {
		return us, store.ID{}, 0, nil
	}
	if root, err = store.ParseID([]byte(e.FieldValues["r"])); err != nil {
		return 0, store.ID{}, 0, err
	}
	writer := e.FieldValues["w"]
	if len(writer) == len(f.s.self)+8 && writer[:len(f.s.self)] == f.s.self {
		number = binary.BigEndian.Uint64([]byte(writer[len(f.s.self):]))
	}
	return us, root, number, nil
}

// rejoin finds new places in logs that cannot be followed: the log has been cut off before our place, or the master is
// another one, which may not have all that the old one had. Everything derived is dropped, and what this process has
// changed is made again with another master, before the groups count as heard.
func (f *feed) rejoin(ctx context.Context, n *node, gs []int, replid string) error {
	f.mu.Lock()
	f.stats.Gaps++
	f.mu.Unlock()
	sent := time.Now()
	places, err := f.s.joinAll(ctx, gs)
	if err != nil {
		return err
	}
	f.s.told.everything()
	made := 0
	for _, g := range gs {
		l := &f.logs[g]
		l.mu.Lock()
		same := l.replid == replid
		l.mu.Unlock()
		if same { // nothing was lost, or was thrown away by whoever may
			continue
		}
		m, err := f.s.replay(ctx, g)
		if made += m; err != nil {
			return fmt.Errorf("make changes again: %w", err)
		}
	}
	f.s.log.Warn("changes may have been missed: everything was dropped from memory",
		"server", n.addr, "groups", len(gs), "made again", made)
	for i, g := range gs {
		l := &f.logs[g]
		l.mu.Lock()
		l.last, l.replid = places[i].changes, replid
		l.mu.Unlock()
		l.dirty.Store(true)
		f.extend(g, n, sent)
	}
	n.nudge()
	return nil
}

// doubt has what is derived from a group dropped, and this process's changes of it made again, at the next probe.
func (f *feed) doubt(g int) {
	l := &f.logs[g]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replid = ""
}

// clock notes how far this process's clock is ahead of the server's.
func (f *feed) clock(n *node, sent, got time.Time, info map[string]string) {
	us, err := strconv.ParseInt(info["time"], 10, 64)
	if err != nil {
		return
	}
	rtt := got.Sub(sent)
	skew := sent.Add(rtt / 2).Sub(time.UnixMicro(us))
	// A reading that took long says little; the best one is believed for a while.
	if best := time.Duration(n.bestRTT.Load()); best != 0 && rtt > 2*best && got.UnixNano()-n.measured.Load() < int64(5*time.Second) {
		return
	}
	n.bestRTT.Store(int64(rtt))
	n.measured.Store(got.UnixNano())
	n.skew.Store(int64(skew))
	f.mu.Lock()
	f.stats.Skew = skew
	f.mu.Unlock()
}
