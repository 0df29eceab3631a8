package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// Two servers on one store each have all events, once, also those from while they were away; and their own calls. What the
// store knows of their logs is compared without them.
func TestAuditShared(t *testing.T) {
	for name, start := range storeServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := start(t)
			dir := t.TempDir()
			one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
			serve := func(data string) *serving {
				t.Helper()
				s, err := startServer(t, data, "--store", st.url)
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			a := serve(one)
			copyFile(t, filepath.Join(one, "master.key"), two)
			copyFile(t, filepath.Join(one, "admin.key"), two)
			b := serve(two)
			signIn := func(s *serving, subject string) string {
				t.Helper()
				var c api.Created
				if err := ask(&s.remoteCaller, "POST", "/v1/sessions", api.CreateRequest{Subject: subject}, &c, 201); err != nil {
					t.Fatal(err)
				}
				return c.Session.ID
			}
			id := signIn(a, "mia")
			if err := ask(&b.remoteCaller, "DELETE", "/v1/sessions/"+id, nil, nil, 204); err != nil {
				t.Fatal(err)
			}
			entries := func(s *serving, query string) int {
				var list api.AuditList
				if err := ask(&s.remoteCaller, "GET", "/v1/audit?limit=1000&"+query, nil, &list, 200); err != nil {
					t.Fatal(err)
				}
				return len(list.Data)
			}
			seen := func(s *serving, subject string, n int) {
				t.Helper()
				within(t, 15*time.Second, "events of "+subject, func() (bool, string) {
					got := entries(s, "subject="+subject+"&type=session.*")
					return got == n, fmt.Sprint(got)
				})
			}
			seen(a, "mia", 2)
			seen(b, "mia", 2)
			if n, m := entries(a, "type=api.revoke-session"), entries(b, "type=api.revoke-session"); n != 0 || m != 1 {
				t.Errorf("%d and %d calls, want 0 and 1", n, m)
			}
			b.kill()
			for range 5 {
				signIn(a, "tom")
			}
			b = serve(two)
			seen(b, "tom", 5)
			seen(a, "tom", 5)
			for _, s := range []*serving{a, b} {
				if n := entries(s, "type=audit.gap"); n != 0 {
					t.Errorf("%d gaps", n)
				}
				var r api.AuditReport
				if err := ask(&s.remoteCaller, "POST", "/v1/audit/verify", nil, &r, 200); err != nil || !r.InOrder {
					t.Errorf("%v %+v", err, r)
				}
			}
			address := filepath.Join(dir, "address")
			if err := os.WriteFile(address, []byte(st.url+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			verify := func() (r api.AuditReport, text string) {
				out, err := exec.Command("afterlogin", "audit", "verify", "--data", two, "--store-file", address, "--json").Output()
				if e, ok := err.(*exec.ExitError); err != nil && (!ok || e.ExitCode() != exitNo) {
					t.Fatalf("%v %s", err, out)
				}
				if err := json.Unmarshal(out, &r); err != nil {
					t.Fatalf("%v in %s", err, out)
				}
				return r, string(out)
			}
			if r, text := verify(); !r.InOrder { // while it runs
				t.Errorf("%s", text)
			}
			out, err := exec.Command("afterlogin", "audit", "list", "--data", two, "--store-file", address, "--subject", "tom", "--json").CombinedOutput()
			if n := strings.Count(string(out), "session.created"); err != nil || n != 5 {
				t.Errorf("%v %s", err, out)
			}
			b.cmd.Process.Signal(os.Interrupt)
			<-b.log.ended
			b.cmd.Wait()
			r, text := verify()
			if !r.InOrder || r.Store == nil || r.Store.Seq != r.Last {
				t.Errorf("%s", text)
			}
			// An end that was cut off together with the head.
			audit := filepath.Join(two, "audit")
			names, err := filepath.Glob(filepath.Join(audit, "*.jsonl"))
			if err != nil || len(names) == 0 {
				t.Fatal(names, err)
			}
			if err := os.Remove(filepath.Join(audit, "head.json")); err != nil {
				t.Fatal(err)
			}
			last := names[len(names)-1]
			file, err := os.ReadFile(last)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.SplitAfter(string(file), "\n")
			if err := os.WriteFile(last, []byte(strings.Join(lines[:len(lines)-2], "")), 0o600); err != nil {
				t.Fatal(err)
			}
			if r, text := verify(); r.InOrder || !strings.Contains(text, "the store knows of entry") {
				t.Errorf("%s", text)
			}
		})
	}
}

func copyFile(t *testing.T, from, toDir string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(toDir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(toDir, filepath.Base(from)), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
