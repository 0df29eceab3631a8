package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/audit"
)

// checkAudit has the server's audit log verified after all crashes: it is in order, has each event once, and every act that
// was answered.
func checkAudit(t *testing.T, s *serving, shoppers []*shopper) {
	t.Helper()
	created, ended, acts := make(map[string]int), make(map[string]int), make(map[string]int)
	gaps := 0
	read := func() {
		clear(created)
		clear(ended)
		clear(acts)
		r, err := http.NewRequest("GET", s.base+"/v1/audit/export", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("x-api-key", s.key)
		resp, err := s.client.Do(r)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("export: %v %v", err, resp)
		}
		defer resp.Body.Close()
		gaps = 0
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			var e audit.Entry
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Fatalf("%v in %s", err, lines.Text())
			}
			switch e.Type {
			case "session.created":
				created[e.Session]++
			case "session.revoked":
				ended[e.Session]++
			case "api.revoke-session":
				if e.Status == 204 {
					acts[e.Session]++
				}
			case audit.TypeGap, audit.TypeDamaged:
				gaps++
			}
		}
	}
	missing := func() (id string) {
		for _, c := range shoppers {
			for _, h := range c.sessions {
				if created[h.id] != 1 {
					return h.id
				}
			}
		}
		return ""
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) { // the last events are read now
		if read(); missing() == "" {
			break
		}
		if id := missing(); time.Now().After(end) {
			t.Fatalf("%s was made, and is in the audit log %d times", id, created[id])
		}
	}
	if gaps > 0 {
		t.Errorf("%d gaps or damages are noted", gaps)
	}
	for id, n := range created {
		if n != 1 {
			t.Errorf("%s is in the audit log %d times", id, n)
		}
	}
	for id, n := range ended {
		if n != 1 {
			t.Errorf("the end of %s is in the audit log %d times", id, n)
		}
	}
	signedOut := 0
	for _, c := range shoppers {
		for _, h := range c.sessions {
			if !h.ended || !h.alone {
				continue
			}
			signedOut++
			if ended[h.id] != 1 || acts[h.id] != 1 {
				t.Errorf("the sign-out of %s is in the audit log %d times as an event and %d times as an act, want 1 and 1", h.id, ended[h.id], acts[h.id])
			}
		}
	}
	if signedOut == 0 {
		t.Error("nobody was signed out")
	}
	var r api.AuditReport
	if err := ask(&s.remoteCaller, "POST", "/v1/audit/verify", nil, &r, 200); err != nil || !r.InOrder {
		t.Errorf("%v %+v", err, r)
	}
	t.Logf("audit log: %d entries, %d sign-outs, notes: %d", r.Last, signedOut, len(r.Notes))
}
