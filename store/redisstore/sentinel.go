package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/store"
)

// A watched source asks sentinels. A master counts only as long as a majority of all sentinels that are known names it: one
// that was cut off together with a minority of them takes changes that will be lost, and answers for records that were
// revoked elsewhere.
type watched struct {
	*target

	mu      sync.Mutex
	known   []string // addresses of sentinels: those of the URL, and those that these know
	clients map[string]client
	last    string          // the one that was named last
	former  map[string]bool // those before it that were not seen following it yet
}

func newWatched(t *target) *watched {
	return &watched{target: t, known: slices.Clone(t.addrs), clients: map[string]client{}, former: map[string]bool{}}
}

func (w *watched) clustered() bool        { return false }
func (w *watched) every() time.Duration   { return probeEvery }
func (w *watched) trusted() time.Duration { return store.Lease }

// A testimony is what one sentinel says.
type testimony struct {
	id       string
	master   string
	replicas map[string]bool   // addresses of those that are not down, and whether they follow the master
	peers    map[string]string // the other sentinels that it knows, down or not: addresses by id
	err      error
}

// plan asks all sentinels that are known, and those that these know, and is done when a majority agrees: one that hangs is
// not waited for.
func (w *watched) plan(ctx context.Context, t *topology, _ []string) (*plan, error) {
	at := time.Now()
	answers := make(chan testimony)
	asked := map[string]bool{}
	pending := 0
	ask := func(addr string) {
		if addr == "" || asked[addr] {
			return
		}
		asked[addr] = true
		pending++
		t.s.wg.Go(func() {
			actx, cancel := context.WithTimeout(t.s.ending, ioTimeout)
			defer cancel()
			a := w.ask(actx, addr)
			select {
			case answers <- a:
			case <-ctx.Done():
			}
		})
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	known := slices.Clone(w.known)
	w.mu.Unlock()
	for _, addr := range known {
		ask(addr)
	}
	said := map[string]testimony{} // by id: a sentinel may have two addresses
	all := map[string]string{}     // every sentinel's address, by id
	var first error
	for ; pending > 0; pending-- {
		var a testimony
		select {
		case a = <-answers:
		case <-ctx.Done():
			return nil, unavailable("sentinels", ctx.Err())
		}
		if a.err != nil {
			first = cmp.Or(first, a.err)
			continue
		}
		said[a.id] = a
		maps.Copy(all, a.peers)
		if _, ok := all[a.id]; !ok {
			all[a.id] = ""
		}
		w.remember(all)
		if p := w.decide(said, len(all), at); p != nil {
			return p, nil
		}
		for _, addr := range a.peers {
			ask(addr)
		}
	}
	if first != nil {
		return nil, fmt.Errorf("%w: no majority of the sentinels names a master: %w", ErrUnavailable, first)
	}
	return nil, fmt.Errorf("%w: no majority of the %d sentinels names one master", ErrUnavailable, len(all))
}

// remember keeps whom to ask the next time.
func (w *watched) remember(all map[string]string) {
	addrs := slices.Clone(w.addrs)
	for _, addr := range all {
		if addr != "" {
			addrs = append(addrs, addr)
		}
	}
	slices.Sort(addrs)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = slices.Compact(addrs)
}

// decide returns what most of all sentinels say, or nil.
func (w *watched) decide(said map[string]testimony, all int, at time.Time) *plan {
	votes := map[string]int{}
	for _, a := range said {
		votes[a.master]++
	}
	for master, n := range votes {
		if n <= all/2 {
			continue
		}
		p := &plan{at: at, replicas: map[string]int{}}
		for g := range p.masters {
			p.masters[g] = master
		}
		for _, a := range said {
			if a.master == master {
				p.replicas[master] = max(p.replicas[master], w.able(master, a.replicas))
				p.others = slices.AppendSeq(p.others, maps.Keys(a.replicas))
			}
		}
		return p
	}
	return nil
}

// able returns how many of the replicas could take the master's place. A master that has been replaced is named as a replica
// at once, and counts when it has come back as one.
func (w *watched) able(master string, replicas map[string]bool) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.last != "" && w.last != master {
		w.former[w.last] = true
	}
	w.last = master
	delete(w.former, master)
	for addr, follows := range replicas {
		if follows {
			delete(w.former, addr)
		}
		if !w.former[addr] {
			n++
		}
	}
	return n
}

// ask asks one sentinel.
func (w *watched) ask(ctx context.Context, addr string) testimony {
	fail := func(err error) testimony { return testimony{err: fmt.Errorf("sentinel %s: %w", addr, err)} }
	c, err := w.client(addr)
	if err != nil {
		return fail(err)
	}
	b := c.B()
	rs := c.DoMulti(ctx,
		b.Arbitrary("SENTINEL", "MYID").Build(),
		b.Arbitrary("SENTINEL", "get-master-addr-by-name").Args(w.master).Build(),
		b.Arbitrary("SENTINEL", "replicas").Args(w.master).Build(),
		b.Arbitrary("SENTINEL", "sentinels").Args(w.master).Build())
	a := testimony{peers: map[string]string{}, replicas: map[string]bool{}}
	if a.id, err = rs[0].ToString(); err != nil {
		return fail(err)
	}
	at, err := rs[1].AsStrSlice()
	if rueidis.IsRedisNil(err) {
		return fail(errors.New("it knows no master of this name"))
	}
	if err != nil || len(at) != 2 {
		return fail(cmp.Or(err, errShape))
	}
	a.master = net.JoinHostPort(at[0], at[1])
	replicas, err := described(rs[2])
	if err != nil {
		return fail(err)
	}
	for _, f := range replicas {
		if !hasFlag(f["flags"], "s_down", "o_down", "disconnected") {
			a.replicas[net.JoinHostPort(f["ip"], f["port"])] = f["master-link-status"] == "ok"
		}
	}
	peers, err := described(rs[3])
	if err != nil {
		return fail(err)
	}
	for _, f := range peers {
		a.peers[f["runid"]] = net.JoinHostPort(f["ip"], f["port"])
	}
	return a
}

// described returns a list of servers, as Sentinel describes them.
func described(r rueidis.RedisResult) (out []map[string]string, err error) {
	list, err := r.ToArray()
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		f, err := m.AsStrMap()
		if err != nil {
			return nil, err
		}
		if f["ip"] == "" || f["port"] == "" {
			return nil, errShape
		}
		out = append(out, f)
	}
	return out, nil
}

// hasFlag reports whether one of the flags, which are parted by commas, is among those given.
func hasFlag(flags string, any ...string) bool {
	for f := range strings.SplitSeq(flags, ",") {
		if slices.Contains(any, f) {
			return true
		}
	}
	return false
}

// client returns the client for a sentinel. Making one connects: the lock is not held meanwhile.
func (w *watched) client(addr string) (rueidis.Client, error) {
	w.mu.Lock()
	c := w.clients[addr]
	if c == nil {
		o := w.option(addr)
		o.Username, o.Password = w.sentinelUser, w.sentinelPass
		c = newClient(o)
		w.clients[addr] = c
	}
	w.mu.Unlock()
	return c()
}

func (w *watched) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, open := range w.clients {
		if c, err := open(); err == nil {
			c.Close()
		}
	}
}
