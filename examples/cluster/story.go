package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// tell tells the story: what a cluster is for.
func tell(ctx context.Context, c *cluster) error {
	if err := c.revocation(ctx); err != nil {
		return err
	}
	if err := c.nodeDies(ctx); err != nil {
		return err
	}
	return c.masterDies(ctx)
}

// revocation signs somebody in through nginx, and out on one node; the others hear of it.
func (c *cluster) revocation(ctx context.Context) error {
	id, token, err := c.signIn(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("1  mia signs in through nginx: %s\n", id)
	for i, n := range c.nodes {
		if active, err := c.validate(ctx, n.Addr, token); err != nil || !active {
			return fmt.Errorf("node %d: active %t: %w", i+1, active, err)
		}
	}
	fmt.Println("   each of the three nodes accepts the session")
	if err := c.call(ctx, http.MethodDelete, c.nodes[0].Addr, "/v1/sessions/"+id, nil, nil); err != nil {
		return err
	}
	revoked := time.Now()
	for i, n := range c.nodes {
		for {
			active, err := c.validate(ctx, n.Addr, token)
			if err != nil {
				return err
			}
			if !active {
				break
			}
			if time.Since(revoked) > time.Second {
				return fmt.Errorf("node %d accepts the session a second after it was revoked", i+1)
			}
		}
		fmt.Printf("   revoked on node 1; node %d refuses it after %v\n", i+1, time.Since(revoked).Round(100*time.Microsecond))
	}
	return nil
}

// nodeDies kills a node under load: no request fails, since any node answers any request.
func (c *cluster) nodeDies(ctx context.Context) error {
	_, token, err := c.signIn(ctx)
	if err != nil {
		return err
	}
	fmt.Println("2  node 2 is killed while 300 validations go through nginx")
	failed := 0
	for i := range 300 {
		if i == 100 {
			if err := c.nodes[1].Kill(); err != nil {
				return err
			}
		}
		active, err := c.validate(ctx, c.nginx.Addr, token)
		if err != nil {
			failed++
		} else if !active {
			return fmt.Errorf("validation %d says that the session is over", i)
		}
	}
	fmt.Printf("   failed: %d\n", failed)
	if failed > 0 {
		return fmt.Errorf("%d validations failed", failed)
	}
	return c.nodes[1].Start()
}

// masterDies kills a Redis master under load: for as long as the cluster elects another, the answer is 503, and nobody is
// signed out.
func (c *cluster) masterDies(ctx context.Context) error {
	type person struct{ token string }
	var people []person
	for range 24 { // some of them on each master
		_, token, err := c.signIn(ctx)
		if err != nil {
			return err
		}
		people = append(people, person{token})
	}
	fmt.Println("3  a Redis master is killed while 24 people are signed in")
	if err := c.redis.Nodes[0].Kill(); err != nil {
		return err
	}
	killed, last, unknown, known := time.Now(), time.Time{}, 0, 0
	for time.Since(killed) < 8*time.Second {
		for i, p := range people {
			active, err := c.validate(ctx, c.nginx.Addr, p.token)
			switch {
			case err != nil:
				unknown++
				last = time.Now()
			case !active:
				return fmt.Errorf("person %d was signed out by the failover", i+1)
			default:
				known++
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	took := time.Duration(0)
	if !last.IsZero() {
		took = last.Sub(killed)
	}
	fmt.Printf("   %d validations: %d said \"yes\", %d said 503, the last of them after %v; nobody was signed out\n",
		known+unknown, known, unknown, took.Round(10*time.Millisecond))
	if took > 5*time.Second {
		return fmt.Errorf("the failover took %v", took)
	}
	return c.redis.Nodes[0].Start()
}

// signIn signs mia in through nginx.
func (c *cluster) signIn(ctx context.Context) (id, token string, err error) {
	var out struct {
		Token   string `json:"token"`
		Session struct {
			ID string `json:"id"`
		} `json:"session"`
	}
	err = c.call(ctx, http.MethodPost, c.nginx.Addr, "/v1/sessions", map[string]any{"subject": "mia-" + fmt.Sprint(time.Now().UnixNano())}, &out)
	return out.Session.ID, out.Token, err
}

// validate asks whether the token is good. The error says that this is not known.
func (c *cluster) validate(ctx context.Context, addr, token string) (bool, error) {
	var out struct {
		Active bool `json:"active"`
	}
	err := c.call(ctx, http.MethodPost, addr, "/v1/validate", map[string]string{"token": token}, &out)
	return out.Active, err
}

var client = http.Client{Timeout: 5 * time.Second}

func (c *cluster) call(ctx context.Context, method, addr, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, body)
	if err != nil {
		return err
	}
	req.Host = "localhost"
	req.Header.Set("x-api-key", c.key)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	return json.Unmarshal(b, out)
}
