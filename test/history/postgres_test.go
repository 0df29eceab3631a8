package history

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/store"
)

func startPostgres(t testing.TB) *servers.Postgres {
	t.Helper()
	p, err := servers.StartPostgres(t.TempDir(), "max_connections = 200")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestPostgres(t *testing.T) {
	inHealth(t, startPostgres(t).URL, 15_000)
}

// restart is how long answers may be missing when PostgreSQL has crashed and starts again.
const restart = 3 * time.Second

func postgresFaults(p *servers.Postgres, cut *cutter) []*fault {
	return []*fault{
		{name: "the server crashes and starts again", limit: restart, slack: 1500 * time.Millisecond, do: func() error { return p.Restart("immediate") }},
		{name: "all connections are ended, for a second", limit: time.Second + restart, do: func() error { return terminate(p.URL, time.Second) }},
		{name: "a node's connections are cut, for 3 s", limit: 3*time.Second + restart, do: func() error {
			cut.one.Store(40)
			time.Sleep(3 * time.Second)
			cut.one.Store(0)
			return nil
		}},
		{name: "the server hangs for a second", limit: time.Second + restart, do: func() error {
			err := p.Pause()
			time.Sleep(time.Second)
			return errors.Join(err, p.Resume())
		}},
	}
}

// terminate ends all other connections over and over.
func terminate(url string, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, d+10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	for began := time.Now(); time.Since(began) < d; time.Sleep(20 * time.Millisecond) {
		_, err := c.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'")
		if err != nil {
			return err
		}
	}
	return nil
}

// A cutter stands between a node and the server, and cuts connections right after it has passed on what the node says, so
// that this is done and no answer comes.
type cutter struct {
	listener net.Listener
	server   string
	one      atomic.Int64 // one of so many messages; 0: none
	cuts     atomic.Int64
	running  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newCutter(t testing.TB, server string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, server: server, conns: make(map[net.Conn]bool)}
	c.running.Go(c.accept)
	t.Cleanup(func() {
		l.Close()
		c.mu.Lock()
		for conn := range c.conns {
			conn.Close()
		}
		c.mu.Unlock()
		c.running.Wait()
	})
	return c
}

// through returns the URL of the server with the cutter in between.
func (c *cutter) through(t testing.TB, to string) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = c.listener.Addr().String()
	return u.String()
}

func (c *cutter) accept() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.server)
		if err != nil {
			client.Close()
			continue
		}
		c.mu.Lock()
		c.conns[client], c.conns[server] = true, true
		c.mu.Unlock()
		end := func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			client.Close()
			server.Close()
			delete(c.conns, client)
			delete(c.conns, server)
		}
		c.running.Go(func() {
			defer end()
			io.Copy(client, server)
		})
		c.running.Go(func() {
			defer end()
			c.pass(server, client)
		})
	}
}

// changes is what stands in every change that pgstore asks for.
var changes = []byte("apply1")

func (c *cutter) pass(to io.Writer, from io.Reader) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
			one := c.one.Load()
			if one > 0 && bytes.Contains(b[:n], changes) { // a change: rather more often
				one = max(one/8, 1)
			}
			if one > 0 && rand.Int64N(one) == 0 {
				time.Sleep(2 * time.Millisecond) // it is committed by then, most often
				c.cuts.Add(1)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// The server crashes, connections are ended and cut, and a node is stopped, while clients go on.
func TestPostgresFaults(t *testing.T) {
	p := startPostgres(t)
	h := newHouse(t, p.URL)
	cut := newCutter(t, p.Addr)
	child := h.away()
	direct, _ := h.node("")
	through, _ := h.node(cut.through(t, p.URL))
	w := newWorld(t, newSeed(), rules{grace: grace, bound: store.Lease}, direct, through, child)
	w.run(24, 1<<30)
	w.clients.Go(w.meter)
	time.Sleep(2 * time.Second)
	var faults []*fault
	for round := 0; round == 0 || long && (round < 3 || w.done() < fullAmount); round++ {
		pause := 4 * time.Second
		if long {
			pause = 10 * time.Second
		}
		these := append(postgresFaults(p, cut), w.pauses(child, 2, pause))
		w.suffer(t, these)
		faults = append(faults, these...)
	}
	w.end()
	w.sweep(w.everybody(), 1000)
	t.Logf("%d connections were cut behind a message", cut.cuts.Load())
	if cut.cuts.Load() < 10 {
		t.Error("hardly any: the history proves little")
	}
	w.enough(t, 5_000, 0.5)
	w.recovered(t, faults)
	w.pass(t)
}
