package redisstore

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/store"
)

// startRedis starts a server for one test.
func startRedis(t testing.TB, config ...string) *servers.Process {
	t.Helper()
	p, err := servers.StartRedis(t.TempDir(), config...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill() })
	return p
}

func do(t testing.TB, p *servers.Process, args ...string) string {
	t.Helper()
	got, err := p.Do(args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return got
}

// refuses fails unless Open is refused with all of these words.
func refuses(t *testing.T, url string, words ...string) {
	t.Helper()
	s, err := Open(t.Context(), url, Options{})
	if err == nil {
		s.Close()
		t.Errorf("Open = nil, want an error with %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("Open = %v, want %q in it", err, w)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Open = %v, with the password", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	p := startRedis(t)
	url := "redis://" + p.Addr
	do(t, p, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	refuses(t, url, "maxmemory-policy", "allkeys-lru", "set it to noeviction")
	do(t, p, "CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
	refuses(t, url, "maxmemory-policy", "volatile-ttl", "set it to noeviction")
	do(t, p, "CONFIG", "SET", "maxmemory-policy", "noeviction")

	k := newKeys("al")
	do(t, p, "SET", k.layout(5), "9")
	refuses(t, url, "layout", `"9"`)
	do(t, p, "DEL", k.layout(5))

	do(t, p, "CONFIG", "SET", "requirepass", "hunter2")
	refuses(t, url, "NOAUTH")
	refuses(t, "redis://:wrong@"+p.Addr, "WRONGPASS")
	s, err := Open(t.Context(), "redis://:hunter2@"+p.Addr, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()

	replica := startRedis(t, "replicaof 127.0.0.1 1")
	refuses(t, "redis://"+replica.Addr, "replica", "127.0.0.1:1")

	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	refuses(t, "redis://:hunter2@"+p.Addr, "unavailable", p.Addr, "refused")
	refuses(t, "redis+sentinel://:hunter2@"+p.Addr+"/main", "unavailable", "sentinel "+p.Addr)
	refuses(t, "redis://:hunter2@"+p.Addr+"/?cluster", "unavailable", p.Addr)
}

// lines collects what is logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A server that keeps nothing on disk is used, and complained of once.
func TestOpenWarns(t *testing.T) {
	var log lines
	p := startRedis(t, "appendonly no")
	openAt(t, "redis://"+p.Addr, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if n := strings.Count(log.String(), "appendonly"); n != 1 {
		t.Errorf("log:\n%s\nmentions appendonly %d times, want once", log.String(), n)
	}
}

// A node of a cluster is enough to find it.
func TestOpenFindsCluster(t *testing.T) {
	url, _, _ := strings.Cut(clusterURL(t), ",")
	s := openAt(t, url, Options{})
	masters := map[*node]bool{}
	for g := range groups {
		n, err := s.topo.master(g)
		if err != nil {
			t.Fatal(err)
		}
		masters[n] = true
	}
	if len(masters) != 3 {
		t.Errorf("%d masters, want 3", len(masters))
	}
	var id store.ID
	if _, err := s.Get(t.Context(), id); err != nil {
		t.Error(err)
	}
}
