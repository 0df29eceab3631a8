package server

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// conns knows what the server's connections are doing. http.Server.Shutdown drops a request that it has read but not
// begun; so it may be called only when there is none.
type conns struct {
	mu   sync.Mutex
	busy map[net.Conn]time.Time // with a request, or new and yet to send one; since when, if new
}

// silence is how long a new connection may take to send its first request before it is not waited for.
const silence = time.Second

// note is an http.Server.ConnState.
func (c *conns) note(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch s {
	case http.StateNew:
		c.busy[conn] = time.Now()
	case http.StateActive:
		c.busy[conn] = time.Time{}
	default:
		delete(c.busy, conn)
	}
}

func (c *conns) quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, since := range c.busy {
		if since.IsZero() || time.Since(since) < silence {
			return false
		}
	}
	return true
}

// wait returns when no connection is busy, or ctx ends.
func (c *conns) wait(ctx context.Context) {
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	for !c.quiet() {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
