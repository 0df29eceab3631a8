package main

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/pulse"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func TestOverviewCommand(t *testing.T) {
	s := memstore.New()
	defer s.Close()
	var p *pulse.Pulse
	a, err := afterlogin.New(afterlogin.Config{Store: s, Observe: func(e afterlogin.Event) {
		if p != nil {
			p.Observe(e)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	key, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey, Scopes: []string{string(api.ServerRead), string(api.SessionsRead)}})
	if err != nil {
		t.Fatal(err)
	}
	if p, err = pulse.New(pulse.Options{
		Stats: a.Stats, Node: "a", Version: "v1", Store: "embedded",
		Live: func() *pulse.Live {
			return &pulse.Live{Complete: true, Total: 3, Kinds: map[string]int{"session": 2, "api_key": 1}}
		},
		Latency: func() ([]time.Duration, []uint64) { return []time.Duration{time.Millisecond}, []uint64{0, 0} },
		Skew:    func() time.Duration { return 12 * time.Millisecond },
	}); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"}); err != nil {
		t.Fatal(err)
	}
	for range 12 {
		a.Report(afterlogin.Event{Type: afterlogin.EventKeyReuse, At: time.Now(), Session: "key_x", Subject: "tom\x1b[2J", Detail: "an out-of-date token was refused"})
	}
	web := httptest.NewServer(api.New(a, api.Options{Pulse: p}))
	defer web.Close()
	call := func(args ...string) (code int, out, errs string) {
		var o, e bytes.Buffer
		code = run(append([]string{"overview", "--server", web.URL}, args...), []string{"AFTERLOGIN_KEY=" + key.Token.Reveal()}, streams{In: strings.NewReader(""), Out: &o, Err: &e})
		return code, o.String(), e.String()
	}
	code, out, errs := call()
	if code != exitNo || errs != "" { // nobody says that it is ready
		t.Errorf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{
		"afterlogin v1 on a, embedded, up 0s, NOT READY", "live: 3: 2 session, 1 api_key\n", "its clock is +0.012 s ahead", "sign-ins             0           1               1        1",
		"alarms:\n", "api_key.reuse_detected  key_x  tom?[2J  an out-of-date", "and 2 more",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("a subject speaks to the terminal")
	}
	code, out, _ = call("--json")
	var o pulse.Overview
	if err := json.Unmarshal([]byte(out), &o); err != nil || code != exitNo || o.Totals.SignIns != 1 || len(o.Alarms) != 12 {
		t.Errorf("exit code %d: %v %s", code, err, out)
	}
	if code, _, _ = call("surplus"); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
}
