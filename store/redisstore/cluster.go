package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// A fixed source is one server, or the nodes of a cluster.
type fixed struct {
	*target
}

func (f fixed) clustered() bool        { return f.mode == cluster }
func (f fixed) every() time.Duration   { return time.Second }
func (f fixed) trusted() time.Duration { return 0 }

func (f fixed) plan(ctx context.Context, t *topology, known []string) (*plan, error) {
	if f.mode == cluster {
		return f.clusterPlan(ctx, t, known)
	}
	p := &plan{at: time.Now()} // its replicas are counted by the feed
	for g := range p.masters {
		p.masters[g] = f.addrs[0]
	}
	return p, nil
}

// A view is what one node of a cluster takes the cluster for.
type view struct {
	plan
	epoch int64
	ok    bool
}

// clusterPlan asks every node, and believes the one with the latest epoch: a master that was cut off goes on believing
// in itself.
func (f fixed) clusterPlan(ctx context.Context, t *topology, known []string) (*plan, error) {
	addrs := slices.Compact(slices.Sorted(slices.Values(slices.Concat(f.addrs, known))))
	at := time.Now()
	type answer struct {
		v   *view
		err error
	}
	answers := make(chan answer, len(addrs))
	for _, addr := range addrs {
		t.s.wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.s.ending, ioTimeout)
			defer cancel()
			v, err := clusterView(ctx, t.peer(addr))
			answers <- answer{v, err}
		})
	}
	var best *view
	var first error
	var late <-chan time.Time // one that hangs is not waited for when most have answered
	heard := 0
collect:
	for range addrs {
		var a answer
		select {
		case a = <-answers:
		case <-late:
			break collect
		case <-ctx.Done():
			return nil, unavailable("cluster", ctx.Err())
		}
		switch {
		case a.err != nil:
			if first == nil {
				first = a.err
			}
		case best == nil || a.v.ok && !best.ok || a.v.ok == best.ok && a.v.epoch > best.epoch:
			best = a.v
		}
		if a.err == nil {
			if heard++; heard == len(addrs)/2+1 {
				late = time.After(50 * time.Millisecond)
			}
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: no node of the cluster answers: %w", ErrUnavailable, first)
	}
	// One that lags answers of a past that is over. When most of the nodes lag, the cluster was made anew.
	if best.epoch < t.epoch && heard <= len(addrs)/2 {
		return nil, fmt.Errorf("%w: only nodes of the cluster answer that have missed a change of masters", ErrUnavailable)
	}
	t.epoch = best.epoch
	best.at = at
	return &best.plan, nil
}

// clusterView asks one node.
func clusterView(ctx context.Context, n *node) (*view, error) {
	rs, err := n.do(ctx, func(b rueidis.Builder) []rueidis.Completed {
		return []rueidis.Completed{b.ClusterInfo().Build(), b.ClusterSlots().Build()}
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.addr, err)
	}
	info, err := rs[0].ToString()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.addr, err)
	}
	fields := parseInfo(info)
	v := &view{ok: fields["cluster_state"] == "ok"}
	if v.epoch, err = strconv.ParseInt(fields["cluster_current_epoch"], 10, 64); err != nil {
		return nil, fmt.Errorf("%s: CLUSTER INFO names no epoch", n.addr)
	}
	ranges, err := rs[1].ToArray()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.addr, err)
	}
	v.replicas = map[string]int{}
	for _, r := range ranges {
		if err := v.add(n.addr, r); err != nil {
			return nil, fmt.Errorf("%s: CLUSTER SLOTS: %w", n.addr, err)
		}
	}
	return v, nil
}

var errShape = errors.New("a reply of unknown form")

// add takes one range of slots in: first, last, master, replicas. Replicas that have failed are not in it.
func (v *view) add(asked string, m rueidis.RedisMessage) error {
	r, err := m.ToArray()
	if err != nil || len(r) < 3 {
		return errShape
	}
	first, err1 := r[0].AsInt64()
	last, err2 := r[1].AsInt64()
	if err1 != nil || err2 != nil {
		return errShape
	}
	master, err := nodeAddr(asked, r[2])
	if err != nil {
		return err
	}
	for g, slot := range slots {
		if int64(slot) >= first && int64(slot) <= last {
			v.masters[g] = master
		}
	}
	v.replicas[master] = len(r) - 3
	for _, m := range r[3:] {
		addr, err := nodeAddr(asked, m)
		if err != nil {
			return err
		}
		v.others = append(v.others, addr)
	}
	return nil
}

// nodeAddr returns the address of a node as CLUSTER SLOTS gives it: host, port, and more. A host that is missing is the
// one that was asked.
func nodeAddr(asked string, m rueidis.RedisMessage) (string, error) {
	f, err := m.ToArray()
	if err != nil || len(f) < 2 {
		return "", errShape
	}
	host, _ := f[0].ToString()
	if host == "" || host == "?" {
		if host, _, err = net.SplitHostPort(asked); err != nil {
			return "", err
		}
	}
	port, err := f[1].AsInt64()
	if err != nil || port <= 0 || port > 65535 {
		return "", errShape
	}
	return net.JoinHostPort(host, strconv.FormatInt(port, 10)), nil
}

// parseInfo reads the lines "name:value" that INFO and CLUSTER INFO answer, as verbatim strings: "txt:" is in front of the first.
func parseInfo(text string) map[string]string {
	m := make(map[string]string)
	text = strings.TrimPrefix(text, "txt:")
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			m[name] = value
		}
	}
	return m
}
