package pgstore

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/afterlogin/afterlogin/internal/servers"
)

// A proxy stands between a Store and its server. Records whose payload has one of these words in it have the connection
// treated so that brings them.
type proxy struct {
	url string

	silent       atomic.Bool // nothing comes through any more, either way
	silentListen atomic.Bool // nothing comes through to who listens
	listeners    atomic.Int64
	cuts         atomic.Int64

	l     net.Listener
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	all   sync.WaitGroup
}

var (
	cutBefore = []byte("cut the connection before the server gets this")
	cutAfter  = []byte("cut the connection after the server has committed this")
)

// ready is how an answer ends: a ReadyForQuery, outside a transaction.
var ready = []byte{'Z', 0, 0, 0, 5, 'I'}

func newProxy(t testing.TB, server *servers.Postgres) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = l.Addr().String()
	p := &proxy{url: u.String(), l: l, conns: map[net.Conn]struct{}{}}
	p.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", server.Addr)
			if err != nil {
				c.Close()
				continue
			}
			p.join(c, s)
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.all.Wait()
	})
	return p
}

func (p *proxy) join(client, server net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	var listens, cut atomic.Bool
	end := func() {
		client.Close()
		server.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, client)
		delete(p.conns, server)
	}
	p.all.Go(func() {
		defer end()
		copyWhile(server, client, func(b []byte) bool {
			if bytes.Contains(b, []byte("LISTEN")) && !listens.Swap(true) {
				p.listeners.Add(1)
			}
			if bytes.Contains(b, cutAfter) {
				cut.Store(true)
			}
			if bytes.Contains(b, cutBefore) {
				p.cuts.Add(1)
				return false
			}
			return true
		}, &p.silent)
	})
	p.all.Go(func() {
		defer end()
		copyWhile(client, server, func(b []byte) bool {
			if cut.Load() && bytes.HasSuffix(b, ready) {
				p.cuts.Add(1)
				return false
			}
			return true
		}, &p.silent, func() bool { return listens.Load() && p.silentListen.Load() })
	})
}

// copyWhile copies until keep says no or a connection ends. What it reads while it is to be silent is lost.
func copyWhile(to, from net.Conn, keep func(b []byte) bool, silent *atomic.Bool, more ...func() bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		quiet := silent.Load()
		for _, m := range more {
			quiet = quiet || m()
		}
		if n > 0 && !quiet {
			if !keep(buf[:n]) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}
