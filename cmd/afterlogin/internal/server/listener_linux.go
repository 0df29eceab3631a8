package server

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lastQueue empties a listening socket's queue of connections that are made and not accepted, while nobody can join it.
//
// A queue whose limit is zero takes one connection and no more; the kernel then drops who knocks, and they knock again
// a second later, when the port is closed or belongs to the next process. So a connection of our own is put into it.
// When that is the last one there, nobody else is, and the socket can be closed. Without this there is always somebody
// between the last look and the close.
type lastQueue struct {
	raw  syscall.RawConn // nil: this is no TCP socket, or it cannot be asked
	addr *net.TCPAddr
	plug net.Conn // our own connection, if it is in the queue
}

func newLastQueue(l net.Listener) *lastQueue {
	q := &lastQueue{}
	t, ok := l.(*net.TCPListener)
	if !ok {
		return q
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return q
	}
	addr := *t.Addr().(*net.TCPAddr)
	if addr.IP.IsUnspecified() {
		addr.IP = net.IPv4(127, 0, 0, 1)
	}
	q.addr, q.raw = &addr, raw
	cerr := raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) })
	if _, ok := q.length(); cerr != nil || err != nil || !ok {
		q.raw = nil
	}
	return q
}

// known reports whether the queue can be looked into.
func (q *lastQueue) known() bool { return q.raw != nil }

// length returns how many connections wait.
func (q *lastQueue) length() (n uint32, ok bool) {
	cerr := q.raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if ok = err == nil; ok {
			n = info.Unacked // of a listening socket: the length of its queue
		}
	})
	return n, ok && cerr == nil
}

// empty reports whether nobody waits and nobody can come. If it returns false, Accept will return somebody, soon if not
// at once.
func (q *lastQueue) empty(until time.Time) bool {
	for q.known() && time.Now().Before(until) {
		n, ok := q.length()
		switch {
		case !ok:
			q.raw = nil
		case q.plug != nil && n <= 1:
			return true // that one is ours
		case n > 0:
			return false
		default: // a newcomer may be faster than our own; then it is accepted, and we try again
			d := net.Dialer{Timeout: lull}
			if c, err := d.Dial("tcp", q.addr.String()); err == nil {
				q.plug = c
			}
		}
	}
	return false
}

func (q *lastQueue) close() {
	if q.plug != nil {
		q.plug.Close()
	}
}
