// Cluster shows afterlogin on many machines, all of them this one: three nodes, a Redis Cluster of six processes, and
// nginx in front.
//
//	go run ./examples/cluster          starts it, tells a story on it, and leaves it running
//	go run ./examples/cluster --exit   ends it after the story; what goes wrong in it makes the exit code 1
//
// It needs redis-server and nginx (apt-get install redis-server nginx-light). Everything is below one temporary
// directory, listens on loopback only, and ends with this program.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/afterlogin/afterlogin/internal/servers"
)

// A cluster is what runs.
type cluster struct {
	dir   string
	redis *servers.RedisCluster
	nodes []*servers.Process
	nginx *servers.Process
	key   string // the admin key
}

func main() {
	exit := flag.Bool("exit", false, "end after the story")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *exit); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, exit bool) (err error) {
	c := &cluster{}
	if c.dir, err = os.MkdirTemp("", "afterlogin-cluster-"); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir)
	defer c.stop()
	if err := c.start(ctx); err != nil {
		return err
	}
	c.print()
	if err := tell(ctx, c); err != nil {
		return err
	}
	if exit {
		return nil
	}
	fmt.Println("\nIt goes on running. Ctrl-C ends all of it.")
	<-ctx.Done()
	return nil
}

// start starts everything, in the order in which it is needed.
func (c *cluster) start(ctx context.Context) (err error) {
	fmt.Println("building afterlogin …")
	binary := filepath.Join(c.dir, "afterlogin")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/afterlogin/afterlogin/cmd/afterlogin")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build afterlogin: %w", err)
	}
	fmt.Println("starting a Redis Cluster of six processes …")
	// What is answered is on two machines' disks within a second, and in two machines' memory at once.
	if c.redis, err = servers.StartRedisCluster(filepath.Join(c.dir, "redis"), "appendonly yes", "appendfsync everysec"); err != nil {
		return err
	}
	fmt.Println("starting three nodes and nginx …")
	master := filepath.Join(c.dir, "master.key") // the same for all nodes: it seals the keys that they share in the store
	var secret [32]byte
	rand.Read(secret[:])
	if err := os.WriteFile(master, []byte(base64.StdEncoding.EncodeToString(secret[:])+"\n"), 0o600); err != nil {
		return err
	}
	for i := range 3 {
		data := c.data(i)
		node, err := servers.StartProgram(servers.Program{
			Path: binary, Args: []string{"serve", "--listen", "ADDR", "--data", data}, Dir: filepath.Join(c.dir, fmt.Sprint("node", i+1)),
			Env: []string{
				"AFTERLOGIN_STORE=redis://" + strings.Join(c.redis.Addrs(), ",") + "/?cluster",
				"AFTERLOGIN_MASTER_KEY_FILE=" + master, "AFTERLOGIN_HOSTS=localhost", "AFTERLOGIN_LOG_FORMAT=json",
			},
			Ready: "/readyz",
		})
		if err != nil {
			return err
		}
		c.nodes = append(c.nodes, node)
	}
	key, err := os.ReadFile(filepath.Join(c.data(0), "admin.key"))
	if err != nil {
		return err
	}
	c.key = strings.TrimSpace(string(key))
	c.nginx, err = servers.StartNginx(filepath.Join(c.dir, "nginx"), c.nginxConfig)
	return err
}

func (c *cluster) data(node int) string {
	return filepath.Join(c.dir, fmt.Sprint("node", node+1), "data")
}

// nginxConfig spreads requests over the nodes. One that does not answer, or says 503, is passed over: any node answers
// any request.
func (c *cluster) nginxConfig(addr string) string {
	upstreams := ""
	for _, n := range c.nodes {
		upstreams += fmt.Sprintf("\t\tserver %s max_fails=1 fail_timeout=2s;\n", n.Addr)
	}
	return fmt.Sprintf(`	upstream afterlogin {
%s		keepalive 32;
	}
	server {
		listen %s;
		location / {
			proxy_pass http://afterlogin;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host localhost;
			proxy_connect_timeout 1s;
			proxy_read_timeout 5s;
			# A request that changes something is not sent twice, but where no node has seen it.
			proxy_next_upstream error timeout http_503;
			proxy_next_upstream_tries 3;
			proxy_buffering off; # /v1/events is a stream
		}
	}`, upstreams, addr)
}

func (c *cluster) print() {
	fmt.Printf("\n  nginx       http://%s\n", c.nginx.Addr)
	for i, n := range c.nodes {
		fmt.Printf("  node %d      http://%s   process %d\n", i+1, n.Addr, n.Pid())
	}
	for i, n := range c.redis.Nodes {
		role := "master"
		if i >= 3 {
			role = "replica"
		}
		fmt.Printf("  %-7s %d   %s   process %d\n", role, i+1, n.Addr, n.Pid())
	}
	fmt.Printf("  admin key   %s\n\n", filepath.Join(c.data(0), "admin.key"))
}

// stop ends everything, in the order in which it is needed.
func (c *cluster) stop() {
	if c.nginx != nil {
		c.nginx.Stop()
	}
	for _, n := range c.nodes {
		n.Stop()
	}
	if c.redis != nil {
		c.redis.Stop()
	}
}
