package redisstore

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"

	"github.com/redis/rueidis"
)

// A node is one server: a master, or a replica that may become one. It has up to three rueidis clients, each for a single
// server and with no retries of its own, since where a command goes and whether it may be repeated is decided here: one for
// reads, one whose dedicated connections take changes, and one for the feed, with tracking.
//
// A hung server shows by its connections only: rueidis asks for a sign of life after keepAlive, and gives up after its
// ConnWriteTimeout.
type node struct {
	addr string
	s    *Store

	mu      sync.Mutex
	read    client // made when needed, as is
	track   client
	serving bool // the committers and the feed run
	stopped bool
	gone    chan struct{} // closed by stop
	wg      sync.WaitGroup

	// term is closed and replaced when the node stops being a master.
	term atomic.Pointer[chan struct{}]

	writes   chan *write
	replicas atomic.Int64 // how many replicas could take its place; kept by the topology and the feed
	// following is how many replicas have just said how far they are: one that comes back is known by this first.
	following atomic.Int64
	hint      chan struct{} // the feed is to read what is dirty
	probe     atomic.Bool   // and everything else
	demoted   atomic.Bool   // it says that it is no master, or has lost its cluster
	// How far this process's clock is ahead of the server's, the time that the question took, and when that was.
	skew, bestRTT, measured atomic.Int64
	replicaSeen             atomic.Int64 // when it last had a replica
}

func newNode(s *Store, addr string) *node {
	n := &node{addr: addr, s: s, gone: make(chan struct{}), writes: make(chan *write, 1024), hint: make(chan struct{}, 1)}
	term := make(chan struct{})
	n.term.Store(&term)
	return n
}

// option returns what all clients have in common.
func (t *target) option(addr string) rueidis.ClientOption {
	o := rueidis.ClientOption{
		InitAddress:       []string{addr},
		Username:          t.user,
		Password:          t.pass,
		ForceSingleClient: true,
		DisableRetry:      true,
		DisableCache:      true,
		AlwaysPipelining:  true, // or a call goes on after its context was cancelled
		PipelineMultiplex: -1,   // one connection
		Dialer:            net.Dialer{Timeout: ioTimeout, KeepAlive: keepAlive},
		ConnWriteTimeout:  ioTimeout,
		// The defaults are half a megabyte each, for every connection.
		ReadBufferEachConn:  64 << 10,
		WriteBufferEachConn: 64 << 10,
		RingScaleEachConn:   9,
		ClientSetInfo:       rueidis.DisableClientSetInfo,
		ClientName:          "afterlogin",
	}
	if t.tls {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return o
}

// A client connects when it is called first.
type client func() (rueidis.Client, error)

func newClient(o rueidis.ClientOption) client {
	return sync.OnceValues(func() (rueidis.Client, error) { return open(o) })
}

// open makes a client. One whose server cannot be reached is a client, too: it dials again when it is used.
func open(o rueidis.ClientOption) (rueidis.Client, error) {
	c, err := rueidis.NewClient(o)
	if c != nil {
		return c, nil
	}
	return nil, err
}

// reader returns the client for reads. The lock is not held while it connects.
func (n *node) reader() (rueidis.Client, error) {
	n.mu.Lock()
	if n.stopped {
		n.mu.Unlock()
		return nil, errGone
	}
	if n.read == nil {
		n.read = newClient(n.s.source.option(n.addr))
	}
	c := n.read
	n.mu.Unlock()
	return c()
}

// do sends reads in one pipeline. A connection that was lost is tried once more with a new one: the server may have
// closed it long ago.
func (n *node) do(ctx context.Context, build func(b rueidis.Builder) []rueidis.Completed) ([]rueidis.RedisResult, error) {
	c, err := n.reader()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*ioTimeout)
	defer cancel()
	for try := 0; ; try++ {
		rs := c.DoMulti(ctx, build(c.B())...)
		err := rs[0].NonRedisError()
		if err == nil || err == rueidis.Nil {
			return rs, nil
		}
		if ctx.Err() != nil || try > 0 {
			return nil, err
		}
	}
}

// serve starts what a master needs.
func (n *node) serve() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.serving || n.stopped {
		return
	}
	n.serving = true
	for range committers {
		n.wg.Go(n.commit)
	}
	n.wg.Go(n.listen)
}

// stop ends what runs for the node, and its connections. It does not wait: a hung server takes its time.
func (n *node) stop() {
	n.mu.Lock()
	if n.stopped {
		n.mu.Unlock()
		return
	}
	n.stopped = true
	close(n.gone)
	n.mu.Unlock()
	n.s.wg.Go(func() {
		n.wg.Wait()
		n.refuseAll(errGone)
		for _, open := range []client{n.read, n.track} {
			if open == nil {
				continue
			}
			if c, err := open(); err == nil {
				c.Close()
			}
		}
	})
}

// load has the server know a script.
func (n *node) load(ctx context.Context, sc *script) error {
	rs, err := n.do(ctx, func(b rueidis.Builder) []rueidis.Completed {
		return []rueidis.Completed{b.Arbitrary("SCRIPT", "LOAD").Args(sc.text).Build()}
	})
	if err != nil {
		return err
	}
	return rs[0].Error()
}
