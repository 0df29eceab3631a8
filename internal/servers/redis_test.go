package servers

import (
	"strings"
	"testing"
	"time"
)

// A server that was killed, paused or stopped goes on where it was told to.
func TestRedis(t *testing.T) {
	p, err := StartRedis(t.TempDir(), "appendonly yes", "appendfsync always")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill() })
	if got, err := p.Do("SET", "k", "v"); err != nil || got != "OK" {
		t.Fatalf("SET = %q, %v", got, err)
	}
	for _, end := range []func() error{p.Stop, p.Kill} {
		pid := p.Pid()
		if err := p.Start(); err == nil {
			t.Error("Start of a server that runs = nil")
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if p.Pid() != 0 {
			t.Error("a process id after the end")
		}
		if err := end(); err != nil {
			t.Errorf("once more: %v", err)
		}
		if err := p.Pause(); err == nil {
			t.Error("Pause of a server that does not run = nil")
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		if p.Pid() == pid {
			t.Error("the same process as before")
		}
		if got, err := p.Do("GET", "k"); err != nil || got != "v" {
			t.Fatalf("GET = %q, %v", got, err)
		}
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil { // wakes it
		t.Fatal(err)
	}
}

func TestRedisMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := StartRedis(t.TempDir()); err == nil || !strings.Contains(err.Error(), "package redis-server") {
		t.Errorf("StartRedis = %v, want the name of the package", err)
	}
}

// A configuration that the server refuses is told with the server's own words.
func TestRedisRefuses(t *testing.T) {
	if _, err := StartRedis(t.TempDir(), "no-such-directive 1"); err == nil || !strings.Contains(err.Error(), "no-such-directive") {
		t.Errorf("StartRedis = %v, want what the server says", err)
	}
}

func TestRedisCluster(t *testing.T) {
	began := time.Now()
	c, err := StartRedisCluster(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop() })
	t.Logf("complete after %v", time.Since(began).Round(time.Millisecond))
	for i, n := range c.Nodes {
		info, err := n.Do("INFO", "replication")
		if err != nil {
			t.Fatal(err)
		}
		if master := strings.Contains(info, "role:master"); master != (i < 3) {
			t.Errorf("node %d: master %v", i, master)
		}
	}
	if len(c.Addrs()) != 6 {
		t.Errorf("Addrs = %v", c.Addrs())
	}
}

func TestSentinel(t *testing.T) {
	began := time.Now()
	s, err := StartSentinel(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop() })
	t.Logf("complete after %v", time.Since(began).Round(time.Millisecond))
	for _, p := range s.Sentinels {
		got, err := p.Do("SENTINEL", "get-master-addr-by-name", s.Name)
		if err != nil || strings.ReplaceAll(got, "\n", ":") != s.Master.Addr {
			t.Errorf("sentinel %s names %q, %v, want %s", p.Addr, got, err, s.Master.Addr)
		}
	}
}
