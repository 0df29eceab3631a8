package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/pulse"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// The overview says what was done, and no token.
func TestOverview(t *testing.T) {
	f := newFixture(t, memstore.New())
	f.ok("POST", "/v1/subjects/mia/begin", "", nil)
	got := f.signIn(`{"subject":"mia"}`)
	f.validate("junk")
	f.validate(got.Token)
	var o pulse.Overview
	a := f.ok("GET", "/v1/overview", "", &o)
	f.noTokenIn("the overview", a.body)
	if o.Totals.SignIns != 1 || o.Server.Node != "east-1" || o.Server.Version != "v1" || o.Minutes.Step != 60 || o.Seconds.Step != 1 || len(o.Minutes.SignIns) != 1 || o.Alarms == nil {
		t.Errorf("%s", a.body)
	}
	if strings.Contains(a.body, "null") {
		t.Errorf("an array is null: %s", a.body)
	}
	a = f.ok("GET", "/v1/overview?seconds=0&minutes=0", "", &o)
	if len(o.Minutes.SignIns)+len(o.Seconds.SignIns) != 0 || strings.Contains(a.body, "null") {
		t.Errorf("%s", a.body)
	}
	for _, q := range []string{"seconds=301", "minutes=1441", "minutes=-1", "minutes=x", "minutes=1&minutes=2", "hours=1"} {
		if a := f.do("GET", "/v1/overview?"+q, f.key, ""); a.status != 400 && a.status != 422 {
			t.Errorf("%s: %d %s", q, a.status, a.body)
		}
	}
	f.api = New(f.a, Options{})
	if a := f.do("GET", "/v1/overview", f.key, ""); a.status != 404 || a.kind() != "not-configured" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Who may see how the server does need not see whose sessions it has.
func TestOverviewNamesNobody(t *testing.T) {
	f := newFixture(t, memstore.New())
	p, err := pulse.New(pulse.Options{Stats: f.a.Stats})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Observe(afterlogin.Event{Type: afterlogin.EventReuse, Session: "ses_x", Subject: "mia", Detail: "from tom's network"})
	f.api = New(f.a, Options{Pulse: p})
	if a := f.do("GET", "/v1/overview?minutes=1", f.apiKey(ServerRead, SessionsRead), ""); a.status != 200 || !strings.Contains(a.body, `"mia"`) {
		t.Errorf("with both scopes: %d %s", a.status, a.body)
	}
	a := f.do("GET", "/v1/overview?minutes=1", f.apiKey(ServerRead), "")
	var o pulse.Overview
	if err := json.Unmarshal([]byte(a.body), &o); err != nil || a.status != 200 || o.Totals.Alarms != 1 || o.Alarms == nil || len(o.Alarms) != 0 {
		t.Errorf("with server:read alone: %d %s", a.status, a.body)
	}
	for _, secret := range []string{"mia", "ses_x", "tom"} {
		if strings.Contains(a.body, secret) {
			t.Errorf("%s is in the answer", secret)
		}
	}
}

// With a whole day of figures, all reasons among them, it is answered in well under 100 ms.
func TestOverviewIsQuick(t *testing.T) {
	f := newFixture(t, memstore.New())
	start := time.Now()
	var passed atomic.Int64
	var calls atomic.Uint64
	p, err := pulse.New(pulse.Options{
		Now: func() time.Time { return start.Add(time.Duration(passed.Load())) },
		Stats: func() afterlogin.Stats {
			n := calls.Add(1)
			s := afterlogin.Stats{Refused: make(map[afterlogin.Reason]uint64), Validations: afterlogin.Validations{Valid: n * 10_000}}
			for i, r := range afterlogin.Reasons() {
				s.Refused[r] = n * uint64(1000+i)
			}
			return s
		},
		Latency: func() ([]time.Duration, []uint64) {
			return []time.Duration{time.Millisecond}, []uint64{calls.Load() * 7, calls.Load()}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range pulse.Minutes * 2 { // each half a minute
		passed.Add(int64(30 * time.Second))
		p.Sample()
		p.Observe(afterlogin.Event{Type: afterlogin.EventReuse, Session: "ses_x", Subject: "mia", Detail: strings.Repeat("x", 200)})
	}
	f.api = New(f.a, Options{Pulse: p})
	best, size := time.Hour, 0
	for range 5 {
		began := time.Now()
		a := f.do("GET", "/v1/overview", f.key, "")
		best = min(best, time.Since(began))
		if size = len(a.body); a.status != 200 || size < 100_000 {
			t.Fatal(fmt.Sprint(a.status, size))
		}
	}
	t.Logf("%d bytes in %v", size, best)
	if best > 100*time.Millisecond {
		t.Errorf("it took %v", best)
	}
}
