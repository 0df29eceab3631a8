package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/redis/go-redis/v9"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/redisstore"
)

// sizeComparisons measure what a session costs in Redis, in ours and in two session stores that people use. Each has the
// person's id and the time of the sign-in in it. Ours can also be listed by person, ended by person, and says where it
// is from.
func sizeComparisons() []comparison {
	figure := func(name, what string, n int, fill func(p *servers.Process, n int) error) comparison {
		return comparison{
			name: "size/" + name, most: true, unit: "B", target: 1400, what: what,
			set: func() (ours, reference func() (float64, error), done func(), err error) {
				return func() (float64, error) { return bytesPerSession(n, fill) }, nil, nil, nil
			},
		}
	}
	return []comparison{
		figure("redis-afterlogin", "bytes of Redis for one of 1,000,000 sessions of as many people", million, fillOurs),
		figure("redis-scs", "the same of alexedwards/scs with goredisstore, 100,000", 100_000, fillSCS),
		figure("redis-express", "the same of express-session with connect-redis, 100,000", 100_000, fillExpress),
	}
}

func bytesPerSession(n int, fill func(*servers.Process, int) error) (float64, error) {
	dir, err := os.MkdirTemp("", "afterlogin-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	p, err := servers.StartRedis(dir, `save ""`)
	if err != nil {
		return 0, err
	}
	defer p.Stop()
	c := redis.NewClient(&redis.Options{Addr: p.Addr})
	defer c.Close()
	before, err := usedMemory(c)
	if err != nil {
		return 0, err
	}
	if err := fill(p, n); err != nil {
		return 0, err
	}
	after, err := usedMemory(c)
	return (after - before) / float64(n), err
}

// usedMemory returns the bytes that the server's data takes.
func usedMemory(c *redis.Client) (float64, error) {
	info, err := c.Info(context.Background(), "memory").Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(info, "\r\n") {
		if v, ok := strings.CutPrefix(line, "used_memory:"); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, fmt.Errorf("no used_memory in %q", info)
}

func fillOurs(p *servers.Process, n int) error {
	s, err := redisstore.Open(context.Background(), "redis://"+p.Addr, redisstore.Options{Logger: quiet()})
	if err != nil {
		return err
	}
	defer s.Close()
	a, err := afterlogin.New(afterlogin.Config{Store: s, Keys: keyring.New(), CacheSize: -1})
	if err != nil {
		return err
	}
	defer a.Close()
	return inParallel(n, func(i int) error {
		_, err := a.Issue(context.Background(), afterlogin.IssueRequest{Subject: fmt.Sprint("subject-", i)})
		return err
	})
}

func fillSCS(p *servers.Process, n int) error {
	c := redis.NewClient(&redis.Options{Addr: p.Addr})
	defer c.Close()
	m := scs.New()
	m.Store = goredisstore.New(c)
	h := m.LoadAndSave(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.Put(r.Context(), "subject", r.URL.Query().Get("subject"))
		m.Put(r.Context(), "signed-in-at", time.Now().UnixMilli())
	}))
	return inParallel(n, func(i int) error {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, fmt.Sprint("/?subject=subject-", i), nil))
		if len(w.Result().Cookies()) != 1 {
			return fmt.Errorf("scs set %d cookies", len(w.Result().Cookies()))
		}
		return nil
	})
}

func fillExpress(p *servers.Process, n int) error {
	root, err := moduleDir()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "express")
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		if out, err := inDir(dir, "npm", "ci", "--no-audit", "--no-fund").CombinedOutput(); err != nil {
			return fmt.Errorf("npm ci: %w: %s", err, out)
		}
	}
	_, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		return err
	}
	if out, err := inDir(dir, "node", "fill.js", port, strconv.Itoa(n)).CombinedOutput(); err != nil {
		return fmt.Errorf("node fill.js: %w: %s", err, out)
	}
	return nil
}

func inDir(dir, name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = dir
	return c
}

// moduleDir returns the directory of this module's source.
func moduleDir() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/afterlogin/afterlogin/bench").Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	return string(bytes.TrimSpace(out)), nil
}
