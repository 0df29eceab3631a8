package servers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Redis's own programs, and the Debian packages that have them.
const (
	redisServer   = "redis-server"
	redisSentinel = "redis-sentinel"
)

// attempts is how often a server is started on other ports when one was taken meanwhile.
const attempts = 5

// StartRedis starts a Redis server that keeps its files in dir. config are lines of its configuration, such as
// "appendonly yes"; without them it keeps nothing on disk.
func StartRedis(dir string, config ...string) (*Process, error) {
	return retry(func() (*Process, error) {
		ports, err := freePorts(1)
		if err != nil {
			return nil, err
		}
		return startRedis(dir, ports[0], config...)
	})
}

// retry does what takes free ports until they were free indeed.
func retry[T any](start func() (T, error)) (t T, err error) {
	for range attempts {
		if t, err = start(); err == nil || !strings.Contains(strings.ToLower(err.Error()), "in use") {
			return t, err
		}
	}
	return t, err
}

// startRedis starts a server on a port.
func startRedis(dir string, port int, config ...string) (*Process, error) {
	lines := append([]string{
		"port " + strconv.Itoa(port),
		"bind 127.0.0.1",
		"dir " + dir,
		"daemonize no",
		`save ""`,
		"appendfsync everysec",
		"enable-debug-command yes",
		"repl-diskless-sync-delay 0", // a replica follows at once, and not with others five seconds later
		"repl-ping-replica-period 1", // a cluster names a replica only when it has got something
	}, config...)
	file := filepath.Join(dir, "redis.conf")
	if err := writeConfig(file, lines); err != nil {
		return nil, err
	}
	addr := addrOf(port)
	return startProcess(addr, command{
		name: redisServer, deb: "redis-server", args: []string{file}, dir: dir,
		ready: func() error {
			got, err := redisDo(addr, "PING")
			if err == nil && got != "PONG" {
				err = fmt.Errorf("PING is answered by %q", got)
			}
			return err
		},
	})
}

func writeConfig(file string, lines []string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

// redisDo sends one command to a server and returns its reply, an array as lines. It is for starting servers, and for
// tests that make them fail; what a program does with Redis it does through a client.
func redisDo(addr string, args ...string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(c, "$%d\r\n%s\r\n", len(a), a)
	}
	return readReply(bufio.NewReader(c))
}

func readReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", errors.New("an empty reply")
	}
	switch line[0] {
	case '-':
		return "", errors.New(line[1:])
	case '$':
		n, err := strconv.Atoi(line[1:])
		if err != nil || n < 0 {
			return "", err
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		return string(b[:n]), nil
	case '*':
		n, err := strconv.Atoi(line[1:])
		if err != nil {
			return "", err
		}
		var parts []string
		for range max(n, 0) {
			p, err := readReply(r)
			if err != nil {
				return "", err
			}
			parts = append(parts, p)
		}
		return strings.Join(parts, "\n"), nil
	}
	return line[1:], nil
}

// Do sends one command to a Redis server or a sentinel, and returns its reply, an array as lines. Tests make servers fail
// with it.
func (p *Process) Do(args ...string) (string, error) { return redisDo(p.Addr, args...) }

// A RedisCluster is a Redis Cluster of three masters and three replicas.
type RedisCluster struct {
	// Nodes are the servers. At the start the first three are the masters, each with a third of the slots, and
	// Nodes[i+3] is the replica of Nodes[i].
	Nodes []*Process
}

// StartRedisCluster starts a cluster that keeps its files in directories under dir, and returns when all its nodes agree
// that it is complete. config are lines of every server's configuration.
func StartRedisCluster(dir string, config ...string) (*RedisCluster, error) {
	return retry(func() (*RedisCluster, error) {
		c := &RedisCluster{}
		if err := c.start(dir, config); err != nil {
			c.Stop()
			return nil, err
		}
		return c, nil
	})
}

const clusterNodes = 6

func (c *RedisCluster) start(dir string, config []string) error {
	ports, err := freePorts(2 * clusterNodes)
	if err != nil {
		return err
	}
	for i := range clusterNodes {
		p, err := startRedis(filepath.Join(dir, "node"+strconv.Itoa(i)), ports[2*i], append([]string{
			"cluster-enabled yes",
			"cluster-port " + strconv.Itoa(ports[2*i+1]),
			"cluster-config-file nodes.conf",
			"cluster-node-timeout 1000",
			"cluster-replica-validity-factor 0",
		}, config...)...)
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, p)
	}
	const masters, slots = 3, 16384
	for i := range masters {
		from, to := i*slots/masters, (i+1)*slots/masters-1
		if _, err := c.Nodes[i].Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(from), strconv.Itoa(to)); err != nil {
			return err
		}
	}
	for i, n := range c.Nodes {
		if _, err := n.Do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
			return err
		}
	}
	for i, n := range c.Nodes { // each all others: gossip takes seconds
		for j := range i {
			if _, err := n.Do("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(ports[2*j]), strconv.Itoa(ports[2*j+1])); err != nil {
				return fmt.Errorf("servers: node %d meets node %d: %w", i, j, err)
			}
		}
	}
	for i := range masters {
		id, err := c.Nodes[i].Do("CLUSTER", "MYID")
		if err != nil {
			return err
		}
		err = eventually(func() error {
			_, err := c.Nodes[i+masters].Do("CLUSTER", "REPLICATE", id)
			return err
		})
		if err != nil {
			return err
		}
	}
	return c.Ready()
}

// Ready waits until all nodes that run agree that the cluster is complete, and its replicas follow their masters.
func (c *RedisCluster) Ready() error {
	return eventually(func() error {
		for _, n := range c.Nodes {
			if n.Pid() == 0 {
				continue
			}
			info, err := n.Do("CLUSTER", "INFO")
			if err != nil {
				return err
			}
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:"+strconv.Itoa(len(c.Nodes))) {
				return fmt.Errorf("servers: the cluster is not complete: %s", info)
			}
			if info, err = n.Do("INFO", "replication"); err != nil {
				return err
			}
			if strings.Contains(info, "role:slave") && !strings.Contains(info, "master_link_status:up") {
				return fmt.Errorf("servers: replica %s does not follow its master", n.Addr)
			}
			slots, err := n.Do("CLUSTER", "SLOTS")
			if err != nil {
				return err
			}
			for _, other := range c.Nodes {
				_, port, _ := net.SplitHostPort(other.Addr)
				if other.Pid() != 0 && !strings.Contains("\n"+slots+"\n", "\n"+port+"\n") {
					return fmt.Errorf("servers: %s has no part in the cluster that %s sees", other.Addr, n.Addr)
				}
			}
		}
		return nil
	})
}

// Addrs returns the addresses of all nodes.
func (c *RedisCluster) Addrs() []string {
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, n.Addr)
	}
	return addrs
}

// Stop ends all servers.
func (c *RedisCluster) Stop() error { return stopAll(c.Nodes) }

// stopAll kills servers whose files nobody needs: one that is asked to end takes its time to save them.
func stopAll(ps []*Process) error {
	var errs []error
	for _, p := range ps {
		if p != nil {
			errs = append(errs, p.Kill())
		}
	}
	return errors.Join(errs...)
}

// A Sentinel is a master with a replica, and three sentinels that watch them.
type Sentinel struct {
	Master, Replica *Process // at the start
	Sentinels       []*Process
	Name            string // the name that the sentinels know the master by
}

// StartSentinel starts a master, its replica, and three sentinels, which keep their files in directories under dir, and
// returns when the sentinels know of each other and of both servers. config are lines of the servers' configuration.
func StartSentinel(dir string, config ...string) (*Sentinel, error) {
	return retry(func() (*Sentinel, error) {
		s := &Sentinel{Name: "afterlogin"}
		if err := s.start(dir, config); err != nil {
			s.Stop()
			return nil, err
		}
		return s, nil
	})
}

func (s *Sentinel) start(dir string, config []string) (err error) {
	const sentinels = 3
	ports, err := freePorts(2 + sentinels)
	if err != nil {
		return err
	}
	if s.Master, err = startRedis(filepath.Join(dir, "master"), ports[0], config...); err != nil {
		return err
	}
	of := "replicaof 127.0.0.1 " + strconv.Itoa(ports[0])
	if s.Replica, err = startRedis(filepath.Join(dir, "replica"), ports[1], append([]string{of}, config...)...); err != nil {
		return err
	}
	for i := range sentinels {
		p, err := startSentinel(filepath.Join(dir, "sentinel"+strconv.Itoa(i)), ports[2+i], s.Name, ports[0])
		if err != nil {
			return err
		}
		s.Sentinels = append(s.Sentinels, p)
	}
	return s.Ready()
}

func startSentinel(dir string, port int, name string, master int) (*Process, error) {
	file := filepath.Join(dir, "sentinel.conf")
	err := writeConfig(file, []string{
		"port " + strconv.Itoa(port),
		"bind 127.0.0.1",
		"dir " + dir,
		"daemonize no",
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 2", name, master),
		"sentinel down-after-milliseconds " + name + " 1000",
		"sentinel failover-timeout " + name + " 3000",
	})
	if err != nil {
		return nil, err
	}
	addr := addrOf(port)
	return startProcess(addr, command{
		name: redisSentinel, deb: "redis-sentinel", args: []string{file}, dir: dir,
		ready: func() error {
			_, err := redisDo(addr, "PING")
			return err
		},
	})
}

// Ready waits until every sentinel knows the others, a master and its replica, and the replica follows.
func (s *Sentinel) Ready() error {
	return eventually(func() error {
		for _, p := range s.Sentinels {
			others, err := p.Do("SENTINEL", "sentinels", s.Name)
			if err != nil {
				return err
			}
			replicas, err := p.Do("SENTINEL", "replicas", s.Name)
			if err != nil {
				return err
			}
			if n := strings.Count("\n"+others, "\nname\n"); n != len(s.Sentinels)-1 {
				return fmt.Errorf("servers: sentinel %s knows %d others", p.Addr, n)
			}
			if strings.Count("\n"+replicas, "\nname\n") != 1 || strings.Contains(replicas, "_down") {
				return fmt.Errorf("servers: sentinel %s knows no replica that is up", p.Addr)
			}
		}
		up := 0
		for _, p := range []*Process{s.Master, s.Replica} {
			info, err := p.Do("INFO", "replication")
			if err != nil {
				return err
			}
			if strings.Contains(info, "master_link_status:up") {
				up++
			}
		}
		if up != 1 {
			return errors.New("servers: the replica does not follow its master")
		}
		return nil
	})
}

// Stop ends all servers.
func (s *Sentinel) Stop() error {
	return stopAll(append([]*Process{s.Master, s.Replica}, s.Sentinels...))
}

// eventually asks until there is no error.
func eventually(f func() error) (err error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("servers: not ready after %v: %w", patience, err)
}
