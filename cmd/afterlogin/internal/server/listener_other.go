//go:build !linux

package server

import (
	"net"
	"time"
)

// lastQueue is for Linux. Elsewhere the listener waits for a lull.
type lastQueue struct{}

func newLastQueue(net.Listener) *lastQueue { return &lastQueue{} }

func (*lastQueue) known() bool { return false }

func (*lastQueue) empty(time.Time) bool { return false }

func (*lastQueue) close() {}
