package server

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// keepOut has the kernel drop the knock of whoever would connect from now on, and reports whether it does. They knock
// again a second later, when the port is closed or belongs to the next process. Handshakes that have begun go on, and
// end in the listener's queue.
//
// A limit of zero for the queue would keep newcomers out as well, and with them those whose handshake has begun: they
// take themselves for connected, send a request, and are reset when the listener is closed.
func keepOut(l net.Listener) bool {
	t, ok := l.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return false
	}
	const flags, syn, ack = 13, 0x02, 0x10 // in the TCP header, RFC 9293, 3.1
	drop := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: syn | ack},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: syn},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(drop)), Filter: &drop[0]})
	})
	return cerr == nil && err == nil
}
