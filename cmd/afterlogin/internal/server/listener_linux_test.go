package server

import (
	"net"
	"testing"
	"time"
)

// Who is in the queue when newcomers are kept out is still served, and nobody joins them.
func TestKeepOut(t *testing.T) {
	l, err := Listen(settings(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	first, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if !keepOut(l) {
		t.Fatal("the kernel takes no filter")
	}
	if c, err := net.DialTimeout("tcp", l.Addr().String(), 100*time.Millisecond); err == nil {
		c.Close()
		t.Error("a newcomer came in")
	}
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	served.Write([]byte("x"))
	if n, err := first.Read(make([]byte, 1)); n != 1 {
		t.Errorf("the connection that was waiting: %v", err)
	}
}
