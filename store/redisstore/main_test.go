package redisstore

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/store"
)

// The servers that tests share which break nothing. They are started when the first test needs them.
var (
	shared struct {
		dir      string
		single   func() (*servers.Process, error)
		cluster  func() (*servers.RedisCluster, error)
		sentinel func() (*servers.Sentinel, error)
	}
	prefixes atomic.Int64
)

func TestMain(m *testing.M) {
	os.Exit(runMain(m))
}

func runMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "redisstore")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	var stops []func() error
	shared.single = sync.OnceValues(func() (*servers.Process, error) {
		p, err := servers.StartRedis(mkdir(dir, "single"), "appendonly no")
		if err == nil {
			stops = append(stops, p.Kill)
		}
		return p, err
	})
	shared.cluster = sync.OnceValues(func() (*servers.RedisCluster, error) {
		c, err := servers.StartRedisCluster(mkdir(dir, "cluster"))
		if err == nil {
			stops = append(stops, c.Stop)
		}
		return c, err
	})
	shared.sentinel = sync.OnceValues(func() (*servers.Sentinel, error) {
		s, err := servers.StartSentinel(mkdir(dir, "sentinel"))
		if err == nil {
			stops = append(stops, s.Stop)
		}
		return s, err
	})
	code := m.Run()
	for _, stop := range stops {
		if err := stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

func mkdir(dir, name string) string {
	d := dir + "/" + name
	if err := os.Mkdir(d, 0o700); err != nil {
		panic(err)
	}
	return d
}

// openAt opens a store with a prefix of its own, and closes it with the test.
func openAt(t testing.TB, url string, o Options) *Store {
	t.Helper()
	if o.prefix == "" {
		o.prefix = fmt.Sprint("t", prefixes.Add(1))
	}
	s, err := Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func singleURL(t testing.TB) string {
	t.Helper()
	p, err := shared.single()
	if err != nil {
		t.Fatal(err)
	}
	return "redis://" + p.Addr
}

func clusterURL(t testing.TB) string {
	t.Helper()
	c, err := shared.cluster()
	if err != nil {
		t.Fatal(err)
	}
	return "redis://" + c.Nodes[0].Addr + "," + c.Nodes[4].Addr + "/?cluster"
}

func sentinelURL(t testing.TB) string {
	t.Helper()
	s, err := shared.sentinel()
	if err != nil {
		t.Fatal(err)
	}
	return "redis+sentinel://" + s.Sentinels[0].Addr + "," + s.Sentinels[1].Addr + "/" + s.Name
}

func openSingle(t *testing.T) store.Store   { return openAt(t, singleURL(t), Options{}) }
func openCluster(t *testing.T) store.Store  { return openAt(t, clusterURL(t), Options{}) }
func openSentinel(t *testing.T) store.Store { return openAt(t, sentinelURL(t), Options{}) }
