package redisstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Open opens the store in the servers that the URL names. It connects to all masters, and returns an error if one cannot
// be reached or used. The forms are
//
//	redis://host:6379                             a server; or any node of a Cluster, which is noticed
//	redis://h1:7000,h2:7000,h3/?cluster           nodes of a Cluster; the others are found
//	redis+sentinel://h1:26379,h2,h3/name          sentinels, and the name that they know the master by
//	rediss://…, rediss+sentinel://…               the same over TLS, certificates checked against the system's roots
//
// with user:password@ or :password@ in front of the hosts, percent-encoded. Sentinels that want a password of their own
// get it from ?sentinel_password=…, with ?sentinel_user=… Missing ports are 6379, or 26379. Only database 0 can be used.
// An error names the part of the URL that is wrong and quotes none of it.
//
// A server is refused that evicts records (maxmemory-policy other than noeviction), that is a replica, older than 7.0, or
// holds records in a layout that this version does not know.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	t, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	s := &Store{o: o.withDefaults(), begun: make(chan struct{})}
	s.log, s.keys, s.self = s.o.Logger, newKeys(s.o.prefix), newSelf()
	s.ending, s.end = context.WithCancel(context.Background())
	s.topo.init(s)
	s.feed.init(s)
	if t.mode == sentinel {
		s.source = newWatched(t)
	} else {
		s.source = fixed{t}
	}
	if err := s.start(ctx, t); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func newSelf() string {
	var b [8]byte
	rand.Read(b[:])
	return string(b[:])
}

func (s *Store) start(ctx context.Context, t *target) error {
	if t.mode == standalone {
		info, err := s.topo.peer(t.addrs[0]).info(ctx)
		if err != nil {
			return unavailable(t.addrs[0], err)
		}
		if info["cluster_enabled"] == "1" {
			t.mode = cluster
		}
	}
	if err := s.topo.renew(ctx); err != nil {
		return err
	}
	checked := map[*node]bool{}
	for g := range groups {
		n, err := s.topo.master(g)
		if err != nil {
			return err
		}
		if !checked[n] {
			if err := n.check(ctx); err != nil {
				return err
			}
			checked[n] = true
		}
	}
	return s.begin(ctx)
}

// begin finds the places in all streams before anybody can have read a record, and starts what runs.
func (s *Store) begin(ctx context.Context) error {
	sent := time.Now()
	all := make([]int, groups)
	for g := range all {
		all[g] = g
	}
	places, err := s.joinAll(ctx, all)
	if err != nil {
		return err
	}
	route := s.topo.current.Load()
	for g := range groups {
		l := &s.feed.logs[g]
		l.mu.Lock()
		l.last = places[g].changes
		l.mu.Unlock()
		s.feed.extend(g, route.masters[g], sent)
	}
	close(s.begun)
	s.wg.Go(s.topo.follow)
	return nil
}

// info asks a server about itself, and how late it is there.
func (n *node) info(ctx context.Context) (map[string]string, error) {
	sent := time.Now()
	rs, err := n.do(ctx, func(b rueidis.Builder) []rueidis.Completed {
		return []rueidis.Completed{b.Info().Build(), b.Time().Build()}
	})
	if err != nil {
		return nil, err
	}
	text, err := rs[0].ToString()
	if err != nil {
		return nil, err
	}
	info := parseInfo(text)
	if t, err := rs[1].AsStrSlice(); err == nil && len(t) == 2 {
		info["time"] = t[0] + fmt.Sprintf("%06s", t[1])
		n.s.feed.clock(n, sent, time.Now(), info)
	}
	return info, nil
}

// check refuses a server that records cannot be trusted to.
func (n *node) check(ctx context.Context) error {
	info, err := n.info(ctx)
	if err != nil {
		return unavailable(n.addr, err)
	}
	version := info["redis_version"]
	major, _, _ := strings.Cut(version, ".")
	if m, err := strconv.Atoi(major); err != nil || m < 7 {
		return fmt.Errorf("redisstore: %s: version %q is too old: want Redis 7.0 or later, or Valkey", n.addr, version)
	}
	if role := info["role"]; role != "master" {
		return fmt.Errorf("redisstore: %s: it is a replica (role:%s); name its master %s:%s, or Sentinel",
			n.addr, role, info["master_host"], info["master_port"])
	}
	if policy := info["maxmemory_policy"]; policy != noEviction {
		return errPolicy(n.addr, policy)
	}
	if info["aof_enabled"] == "0" {
		n.s.log.Warn("appendonly is off: when the server ends, what was changed since its last snapshot is lost, revocations too",
			"server", n.addr)
	}
	n.countReplicas(info)
	l := n.s.feed.logs[:]
	for _, g := range n.groups() {
		l[g].mu.Lock()
		l[g].replid = info["master_replid"]
		l[g].mu.Unlock()
	}
	return nil
}
