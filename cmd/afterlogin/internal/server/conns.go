package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

const (
	// silence is how long a new connection may take to send its first request before it is not waited for.
	silence = time.Second
	// pause is how long a connection has to have been idle before it is ended.
	pause = 50 * time.Millisecond
	// lastLook is for how long bytes are awaited for the last time, before we say that we are going.
	lastLook = time.Millisecond
	// linger bounds how long a connection is read after our end of it was closed (net/http's rstAvoidanceDelay).
	linger = 500 * time.Millisecond
)

// conns are the server's connections, so that they can be ended without losing a request. http.Server does not do that:
// it closes a connection that it holds for idle although a request has arrived, or has been read and not begun; and a
// socket that is closed with bytes unread, or that gets some afterwards, resets the connection, which takes even the
// answer from a client that has not read it yet.
//
// So an idle connection is ended by its own reader, after a last look whether there is a request. It is closed in
// stages (RFC 9112, 9.6): our end first, which the client sees as the end of the stream; the rest when the client has
// closed its end, or after a while. A request that crosses our end on its way is neither begun nor answered, and its
// client knows: the stream ended before the first byte of an answer.
type conns struct {
	mu        sync.Mutex
	open      map[*conn]bool
	ending    bool // from now on they are closed in stages
	over      bool // nobody waits for stages any more
	lingering sync.WaitGroup
}

func newConns() *conns { return &conns{open: make(map[*conn]bool)} }

// listener returns l with its connections wrapped.
func (c *conns) listener(l net.Listener) net.Listener { return connListener{l, c} }

type connListener struct {
	net.Listener
	all *conns
}

func (l connListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, all: l.all}, nil
}

// note is an http.Server.ConnState.
func (c *conns) note(nc net.Conn, s http.ConnState) {
	secure, _ := nc.(*tls.Conn)
	inner := nc
	if secure != nil {
		inner = secure.NetConn()
	}
	k, ok := inner.(*conn)
	if !ok {
		return
	}
	c.mu.Lock()
	switch s {
	case http.StateClosed, http.StateHijacked:
		delete(c.open, k)
	default:
		c.open[k] = true
	}
	c.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if secure != nil && s == http.StateActive && k.state == http.StateNew { // the handshake is over, so this does not wait
		k.h2 = secure.ConnectionState().NegotiatedProtocol == "h2"
	}
	k.state, k.secure = s, secure
	k.quiet, k.since = s != http.StateActive, time.Now()
	if !k.quiet {
		k.stay()
	}
}

// drain has connections closed in stages from now on.
func (c *conns) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
}

// end ends every connection as soon as it has no request, and returns when there are none, or ctx ends. Connections of
// HTTP/2 that have no request are left: Shutdown tells their clients which requests were taken.
func (c *conns) end(ctx context.Context) {
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	for c.ask() {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// ask asks those that are idle to go, and reports whether there are any to wait for.
func (c *conns) ask() (more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.open {
		if k.ask(time.Now()) {
			more = true
		}
	}
	return more
}

// wait returns when the last stage of every connection is over.
func (c *conns) wait() {
	c.mu.Lock()
	c.over = true
	c.mu.Unlock()
	c.lingering.Wait()
}

// stage reports whether the connection is to be closed in stages. If so, lingering.Done must follow.
func (c *conns) stage() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ending || c.over {
		return false
	}
	c.lingering.Add(1)
	return true
}

// conn is a connection of the server, below TLS.
type conn struct {
	net.Conn
	all  *conns
	once sync.Once // for Close

	mu     sync.Mutex
	secure *tls.Conn // what is above, if there is
	state  http.ConnState
	h2     bool
	quiet  bool      // nothing was read since it was new, or its last answer was out
	since  time.Time // of the last change of state, or the last byte
	asked  bool      // to go, unless there is a request; the read deadline is ours
	gone   bool      // our end is closed
	until  time.Time // the read deadline that net/http wants
}

// ask has the reader end the connection if it is idle, and reports whether it has to be waited for.
func (k *conn) ask(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.h2 && k.state == http.StateIdle {
		return false
	}
	patience := pause
	switch {
	case k.asked || k.gone || k.h2 || k.state == http.StateActive:
		return true
	case !k.quiet: // a request has begun and does not go on; or it was a handshake
		patience = readHeaderTimeout
	case k.state == http.StateNew:
		patience = silence
	}
	if now.Sub(k.since) >= patience {
		k.asked = true
		k.Conn.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	}
	return true
}

// stay takes back what was asked. It is called with the mutex held.
func (k *conn) stay() {
	if k.asked {
		k.asked = false
		k.Conn.SetReadDeadline(k.until)
	}
}

// Read implements net.Conn. The reader who is asked to go looks once more whether something has arrived, and it alone
// closes our end, so that nothing is ever read and then forgotten.
func (k *conn) Read(p []byte) (int, error) {
	for looked := false; ; looked = true {
		n, err := k.Conn.Read(p)
		k.mu.Lock()
		switch {
		case n > 0 && !k.gone:
			k.quiet, k.since = false, time.Now()
			k.stay()
		case k.gone:
			n, err = 0, io.EOF
		case k.asked && errors.Is(err, os.ErrDeadlineExceeded):
			if !looked {
				k.Conn.SetReadDeadline(time.Now().Add(lastLook))
				k.mu.Unlock()
				continue
			}
			k.gone = true
			n, err = 0, io.EOF
			k.closeWrite()
		}
		k.mu.Unlock()
		return n, err
	}
}

// closeWrite closes our end, and that of TLS before it. Nobody is writing: net/http waits for a request.
func (k *conn) closeWrite() {
	if k.secure != nil {
		k.secure.CloseWrite() // or the client would take it for an attacker's doing
	}
	k.CloseWrite()
}

// CloseWrite closes our end.
func (k *conn) CloseWrite() error {
	if w, ok := k.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// SetReadDeadline implements net.Conn.
func (k *conn) SetReadDeadline(t time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.until = t
	if k.asked {
		return nil
	}
	return k.Conn.SetReadDeadline(t)
}

// SetDeadline implements net.Conn.
func (k *conn) SetDeadline(t time.Time) error {
	return errors.Join(k.SetReadDeadline(t), k.SetWriteDeadline(t))
}

// Close implements net.Conn. When the server ends, what comes after our end was closed is read for a while and thrown
// away, and Close does not wait for that.
func (k *conn) Close() (err error) {
	k.once.Do(func() {
		if !k.all.stage() {
			err = k.Conn.Close()
			return
		}
		k.mu.Lock()
		k.gone, k.asked = true, true // whoever reads is done, and the deadline is ours
		k.mu.Unlock()
		k.CloseWrite()
		k.Conn.SetReadDeadline(time.Now().Add(linger))
		go func() {
			defer k.all.lingering.Done()
			io.Copy(io.Discard, k.Conn)
			k.Conn.Close()
		}()
	})
	return err
}
