package api

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/pgstore"
	"github.com/afterlogin/afterlogin/store/redisstore"
)

// Every place that is given out is taken back, on every store: also on those whose events are in many groups, each of
// which is in the place.
func TestResume(t *testing.T) {
	all := map[string]func(*testing.T) store.Store{
		"redis": func(t *testing.T) store.Store {
			p, err := servers.StartRedis(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Stop() })
			s, err := redisstore.Open(context.Background(), "redis://"+p.Addr, redisstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		"postgresql": func(t *testing.T) store.Store {
			p, err := servers.StartPostgres(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Stop() })
			s, err := pgstore.Open(context.Background(), p.URL, pgstore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
	for name, open := range stores {
		all[name] = open
	}
	for name, open := range all {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, open(t))
			server := httptest.NewServer(f.api)
			defer server.Close()
			defer f.api.EndStreams() // or it would wait for them
			live := f.follow(server, f.key, "")
			begin := f.poll("wait=0").Next
			const people = 150
			last := ""
			for n := range people {
				last = f.signIn(fmt.Sprintf(`{"subject":"u%d"}`, n)).Session.ID
			}
			longest, seen := "", map[string]bool{}
			for after := begin; len(seen) < people; {
				list := f.poll("wait=5&limit=20&after=" + url.QueryEscape(after))
				if len(list.Data) == 0 || list.Gap {
					t.Fatalf("behind %d events, at a place of %d bytes: %d events, gap %v", len(seen), len(after), len(list.Data), list.Gap)
				}
				for _, e := range list.Data {
					if e.Type == "session.created" {
						seen[e.Session] = true
					}
				}
				if after = list.Next; len(after) > len(longest) {
					longest = after
				}
			}
			t.Logf("places have up to %d bytes", len(longest))
			e, data := live.until("session.created")
			for data.Session != last {
				e, data = live.until("session.created")
			}
			again := f.follow(server, f.key, e.id)
			tom := f.signIn(`{"subject":"tom"}`)
			if _, data := again.until("session.created"); data.Session != tom.Session.ID {
				t.Errorf("behind the last event comes that of %s", data.Subject)
			}
		})
	}
}
