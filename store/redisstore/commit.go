package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/afterlogin/afterlogin/store"
)

const (
	// committers is how many connections per master take changes. More than one, so that changes need not wait for the
	// replicas of those before them.
	committers = 2
	// commitBatch and commitBytes bound what is sent at a time.
	commitBatch = 128
	commitBytes = 1 << 20
)

// A write is a script to be run on a master, and, where replicas confirm, to be waited for.
type write struct {
	script *script
	keys   []string
	args   []string
	asking bool // the slot is on its way to the node

	state atomic.Int32 // who has it: see below
	done  chan result  // of one; the committer sends once to it if it has taken the write
}

const (
	writeQueued int32 = iota
	writeTaken
	writeGivenUp
)

// A result is what came of a write: the script's reply, if it ran, and an error: store.ErrUnconfirmed beside a reply,
// ErrUnavailable if nothing was sent, store.ErrUnknown, or what the server said instead, a *rueidis.RedisError.
type result struct {
	reply string
	err   error
}

func (w *write) size() (n int) {
	for _, a := range w.args {
		n += len(a)
	}
	return n
}

func (w *write) finish(reply string, err error) { w.done <- result{reply, err} }

// submit has the write done, and returns when it is, or when ctx has ended.
func (n *node) submit(ctx context.Context, w *write) result {
	w.done = make(chan result, 1)
	term := *n.term.Load()
	select {
	case n.writes <- w:
	case <-n.gone:
		return result{err: unavailable(n.addr, errGone)}
	case <-ctx.Done():
		return result{err: ctx.Err()}
	}
	select {
	case r := <-w.done:
		return r
	case <-n.gone:
		if w.state.CompareAndSwap(writeQueued, writeGivenUp) {
			return result{err: unavailable(n.addr, errGone)}
		}
		return <-w.done // the committers end what they have begun
	case <-term:
		return n.afterTerm(ctx, w)
	case <-ctx.Done():
		if w.state.CompareAndSwap(writeQueued, writeGivenUp) {
			return result{err: ctx.Err()}
		}
		return result{err: fmt.Errorf("%w: %w", store.ErrUnknown, ctx.Err())}
	}
}

// commit takes writes and sends them, as many as have come while the ones before were under way, with one WAIT behind
// them on the same connection: WAIT is about what its own connection has written.
func (n *node) commit() {
	o := n.s.source.option(n.addr)
	o.ConnWriteTimeout = n.s.o.ConfirmTimeout + ioTimeout
	o.AlwaysPipelining = false // a connection of one's own is closed when a reply is late
	client, err := open(o)
	if err != nil { // options that rueidis refuses: a mistake in this package
		n.refuseAll(err)
		return
	}
	defer client.Close()
	var c *committer
	defer func() { c.release() }()
	for {
		select {
		case <-n.gone:
			return
		case w := <-n.writes:
			batch := n.take(w)
			if len(batch) == 0 {
				continue
			}
			if c == nil {
				if c, err = newCommitter(n, client); err != nil {
					n.s.health.failed(n.addr, err)
					for _, w := range batch {
						w.finish("", err)
					}
					n.refuseAll(err) // those that wait, rather than one dial for each
					continue
				}
			}
			if !c.send(batch) {
				n.wg.Go(c.release) // the server may be hung
				c = nil
			}
		}
	}
}

// take returns w and what waits behind it, as much as is sent at a time.
func (n *node) take(w *write) []*write {
	var batch []*write
	for size := 0; ; {
		if w.state.CompareAndSwap(writeQueued, writeTaken) {
			batch = append(batch, w)
			size += w.size()
		}
		if len(batch) >= commitBatch || size >= commitBytes {
			return batch
		}
		select {
		case w = <-n.writes:
		default:
			return batch
		}
	}
}

// reroute has what waits find its master anew.
func (n *node) reroute() {
	term := make(chan struct{})
	close(*n.term.Swap(&term))
}

// graceTerm is how long a node that is no longer a master may take to answer what was sent to it: it may be hung.
const graceTerm = 100 * time.Millisecond

// afterTerm returns what became of a write when its node stopped being a master.
func (n *node) afterTerm(ctx context.Context, w *write) result {
	if w.state.CompareAndSwap(writeQueued, writeGivenUp) {
		return result{err: errRerouted}
	}
	t := time.NewTimer(graceTerm)
	defer t.Stop()
	select {
	case r := <-w.done:
		return r
	case <-t.C:
	case <-ctx.Done():
	}
	return result{err: fmt.Errorf("%w: %s: %w", store.ErrUnknown, n.addr, errRerouted)}
}

// errRerouted: the group has another master now.
var errRerouted = errors.New("no longer the master")

// refuseAll ends what waits. Nothing of it was sent.
func (n *node) refuseAll(err error) {
	for {
		select {
		case w := <-n.writes:
			if w.state.CompareAndSwap(writeQueued, writeTaken) {
				w.finish("", unavailable(n.addr, err))
			}
		default:
			return
		}
	}
}

// A committer is a connection that takes changes.
type committer struct {
	n      *node
	conn   rueidis.DedicatedClient
	cancel func()
}

// newCommitter connects, and has the server know the scripts: an error here means that nothing was sent.
func newCommitter(n *node, client rueidis.Client) (*committer, error) {
	conn, cancel := client.Dedicate()
	c := &committer{n, conn, cancel}
	if err := c.prepare(); err != nil {
		c.release()
		return nil, unavailable(n.addr, err)
	}
	return c, nil
}

// prepare loads the scripts.
func (c *committer) prepare() error {
	ctx, cancel := context.WithTimeout(context.Background(), ioTimeout)
	defer cancel()
	var cmds []rueidis.Completed
	for _, s := range []*script{applyScript, reviseScript, indexScript, joinScript, loadScript, getScript} {
		cmds = append(cmds, c.conn.B().Arbitrary("SCRIPT", "LOAD").Args(s.text).Build())
	}
	for _, r := range c.conn.DoMulti(ctx, cmds...) {
		if err := r.Error(); err != nil {
			return err
		}
	}
	return nil
}

func (c *committer) release() {
	if c != nil {
		c.cancel()
	}
}

// send does the writes, and reports whether the connection is still good.
func (c *committer) send(batch []*write) bool {
	again := c.once(batch)
	if len(again) > 0 { // a server that was restarted knows no scripts
		if err := c.prepare(); err != nil {
			for _, w := range again {
				w.finish("", unavailable(c.n.addr, err))
			}
			return false
		}
		for _, w := range c.once(again) {
			w.finish("", unavailable(c.n.addr, errors.New("it forgets its scripts")))
		}
	}
	return c.conn != nil
}

// once sends the writes and ends all but those whose script the server does not know, which it returns. On a connection
// that failed, conn is nil afterwards.
func (c *committer) once(batch []*write) (again []*write) {
	b := c.conn.B()
	cmds := make([]rueidis.Completed, 0, len(batch)+2)
	at := make([]int, len(batch))
	for i, w := range batch {
		if w.asking {
			cmds = append(cmds, b.Arbitrary("ASKING").Build())
		}
		at[i] = len(cmds)
		cmds = append(cmds, b.Arbitrary("EVALSHA", w.script.sha, strconv.Itoa(len(w.keys))).Keys(w.keys...).Args(w.args...).Build())
	}
	need := c.n.confirm()
	if need > 0 {
		ms := strconv.FormatInt(c.n.s.o.ConfirmTimeout.Milliseconds(), 10)
		// Not B().Wait(): rueidis lets its blocking commands wait without end.
		cmds = append(cmds, b.Arbitrary("WAIT", strconv.FormatInt(need, 10), ms).Build())
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.n.s.o.ConfirmTimeout+ioTimeout)
	defer cancel()
	rs := c.conn.DoMulti(ctx, cmds...)
	confirmed := need == 0
	if need > 0 {
		got, err := rs[len(rs)-1].AsInt64()
		confirmed = err == nil && got >= need
	}
	broken := false
	for i, w := range batch {
		r := rs[at[i]]
		reply, err := r.ToString()
		if r.NonRedisError() != nil {
			broken = true
		}
		switch kind, _ := classify(err); {
		case err == nil && !confirmed:
			w.finish(reply, fmt.Errorf("%w: fewer than %d replicas of %s have it", store.ErrUnconfirmed, need, c.n.addr))
		case err == nil:
			w.finish(reply, nil)
		case kind == noScript:
			again = append(again, w)
		case kind == unclear:
			w.finish("", outcome(c.n.addr, err))
		default:
			w.finish("", err)
		}
	}
	if broken {
		c.n.s.health.failed(c.n.addr, rs[0].Error())
		c.n.s.topo.kick()
		c.conn = nil
		for _, w := range again {
			w.finish("", unavailable(c.n.addr, errGone))
		}
		return nil
	}
	return again
}

// confirm returns how many replicas must have a change.
func (n *node) confirm() int64 {
	switch o := n.s.o; {
	case o.Confirm < 0:
		return 0
	case o.Confirm > 0:
		return int64(o.Confirm)
	}
	return min(1, max(n.replicas.Load(), n.following.Load()))
}

// write runs a script in the group, wherever its slot is, and returns its reply. An error is one of the contract's, or
// means that nothing was changed; beside store.ErrUnconfirmed there is a reply.
func (s *Store) write(ctx context.Context, g int, sc *script, keys, args []string) (string, error) {
	const tries = 8
	asked := "" // the node that the last one named
	for try := 1; ; try++ {
		n, err := s.topo.master(g)
		if asked != "" {
			n, err = s.topo.node(asked)
		}
		if err != nil {
			return "", err
		}
		r := n.submit(ctx, &write{script: sc, keys: keys, args: args, asking: asked != ""})
		if r.err == errRerouted {
			if asked = ""; try < tries {
				continue
			}
			return "", unavailable(n.addr, r.err)
		}
		if _, ok := rueidis.IsRedisErr(r.err); !ok {
			return r.reply, r.err
		}
		kind, to := classify(r.err)
		asked = ""
		if kind == badPlace {
			s.topo.kick()
		}
		if try == tries || kind != moved && kind != asking && kind != tryAgain {
			return "", outcome(n.addr, r.err)
		}
		switch kind {
		case moved:
			s.topo.renew(ctx)
		case asking:
			asked = to
		case tryAgain: // the slot's keys are on their way
			if err := sleep(ctx, 25*time.Millisecond); err != nil {
				return "", err
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
