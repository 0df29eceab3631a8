package server

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// lastListener is a listener that can be ended without dropping whoever has connected already: the kernel completes a
// connection before we accept it, and closing the listener resets those that are waiting.
type lastListener struct {
	net.Listener
	finishing atomic.Bool
	until     time.Time // when Accept stops to wait for a lull; set by finish before finishing
}

const (
	// lull is for how long nobody must have connected before the listener is closed: longer than the last step of a
	// handshake takes.
	lull = 50 * time.Millisecond
	// maxFinish bounds how long finishing takes.
	maxFinish = time.Second
)

func newLastListener(l net.Listener) *lastListener { return &lastListener{Listener: l} }

// finish has Accept return the connections that wait, and those that are being made, and then net.ErrClosed.
func (l *lastListener) finish() {
	keepOut(l.Listener) // or there is always somebody between the last look and the close
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
	for began := time.Now(); began.Before(l.until) && l.wake(lull); {
		c, err := l.Listener.Accept()
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) >= lull {
			break
		} // or else finish woke us only now
	}
	l.Listener.Close()
	return nil, net.ErrClosed
}
