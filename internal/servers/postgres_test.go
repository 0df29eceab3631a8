package servers

import (
	"net"
	"testing"
	"time"
)

func TestPostgres(t *testing.T) {
	p, err := StartPostgres(t.TempDir(), "max_connections = 20")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop() })
	pid := p.Pid()
	for _, mode := range []string{"fast", "immediate"} {
		start := time.Now()
		if err := p.Restart(mode); err != nil {
			t.Fatalf("Restart(%s) = %v", mode, err)
		}
		t.Logf("restart %s: %v", mode, time.Since(start).Round(time.Millisecond))
	}
	if p.Pid() == pid || p.Pid() == 0 {
		t.Errorf("Pid = %d after a restart, before it %d", p.Pid(), pid)
	}
	if err := p.Restart("gently"); err == nil {
		t.Error("Restart(gently) = nil")
	}
	if len(p.children()) == 0 {
		t.Error("no children")
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := postgresReady(p.Addr); err == nil {
		t.Error("a paused server answers")
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := postgresReady(p.Addr); err != nil {
		t.Errorf("a resumed server: %v", err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Errorf("Start after Kill = %v", err)
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("Stop while paused = %v", err)
	}
	if c, err := net.Dial("tcp", p.Addr); err == nil {
		c.Close()
		t.Error("something listens after Stop")
	}
}
