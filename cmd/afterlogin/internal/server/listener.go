package server

import (
	"net"
	"sync/atomic"
	"time"
)

// lastListener is a listener that can be ended without dropping whoever has connected already: the kernel completes a
// connection before we accept it, and closing the listener resets those that are waiting.
type lastListener struct {
	net.Listener
	finishing atomic.Bool
	// queue empties the kernel's queue of connections, where we know how to keep newcomers out meanwhile. Only Accept
	// uses it, and only when finishing.
	queue *lastQueue
	until time.Time // when Accept stops to wait for a lull, where we do not; set by finish before finishing
}

const (
	// lull is for how long nobody must have connected before the listener is closed.
	lull = 10 * time.Millisecond
	// maxFinish bounds how long finishing takes.
	maxFinish = time.Second
)

func newLastListener(l net.Listener) *lastListener { return &lastListener{Listener: l} }

// finish has Accept return the connections that wait, and then net.ErrClosed.
func (l *lastListener) finish() {
	l.until = time.Now().Add(maxFinish)
	l.finishing.Store(true)
	if !l.wake(0) {
		l.Listener.Close()
	}
}

// wake ends a running Accept after d, and reports whether that can be done.
func (l *lastListener) wake(d time.Duration) bool {
	t, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	return ok && t.SetDeadline(time.Now().Add(d)) == nil
}

// Accept implements net.Listener.
func (l *lastListener) Accept() (net.Conn, error) {
	if !l.finishing.Load() {
		c, err := l.Listener.Accept()
		if err == nil || !l.finishing.Load() {
			return c, err
		}
	}
	if l.queue == nil {
		l.queue = newLastQueue(l.Listener)
	}
	for time.Now().Before(l.until) {
		more := !l.queue.empty(l.until)
		if !more && l.queue.known() || !l.wake(lull) {
			break
		}
		if c, err := l.Listener.Accept(); err == nil {
			return c, nil
		} else if !l.queue.known() {
			break // nobody came for a while
		}
	}
	l.Listener.Close()
	l.queue.close()
	return nil, net.ErrClosed
}
