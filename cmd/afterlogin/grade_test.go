package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/demo"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/grade"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/grade/badshop"
)

// runCommand runs one command and returns its exit code and what it printed.
func runCommand(t *testing.T, in string, command func(*program) *cobra.Command, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e strings.Builder
	p := &program{streams: streams{In: strings.NewReader(in), Out: &o, Err: &e}}
	c := command(p)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.PreRun = func(*cobra.Command, []string) { p.started = true }
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	if err == nil {
		return exitOK, o.String(), e.String()
	}
	if errors.Is(err, context.Canceled) {
		return exitInterrupted, o.String(), e.String()
	}
	return p.report(err), o.String(), e.String()
}

// TestGrade examines the demo and the bad shop as a person would, and uses the command wrongly.
func TestGrade(t *testing.T) {
	d, err := demo.Start(demo.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	bad := httptest.NewServer(badshop.New(badshop.Counter, badshop.NoHTTPOnly, badshop.NoPrefix))
	defer bad.Close()
	good := httptest.NewServer(badshop.New())
	defer good.Close()
	var posts atomic.Int32
	shop := badshop.New()
	limited := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && posts.Add(1) > 3 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		shop.ServeHTTP(w, r)
	}))
	defer limited.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	password := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(password, []byte(badshop.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	badArgs := []string{bad.URL, "--user", badshop.User, "--password-file", password, "--samples", "40", "--rate", "1000"}
	for _, tt := range []struct {
		name, in  string
		args      []string
		code      int
		out, errs string
	}{
		{"the demo", "demo\n", []string{d.URL(), "--user", "mia", "--password-stdin", "--samples", "40", "--rate", "1000"}, exitOK, ": grade A\n", "40 of 40 sign-ins"},
		{"the bad shop", "", badArgs, exitFindings, "HIGH  tokens do not count: not so", "looking for the sign-in"},
		{"only worse", "", append(badArgs[:len(badArgs):len(badArgs)], "--fail-on", "none"), exitOK, "grade F", ""},
		{"a site that has had enough", "", append([]string{limited.URL}, badArgs[1:]...), exitDenied, ": grade none (incomplete)", "hint: if the site limits sign-ins"},
		{"had enough, let off", "", append([]string{limited.URL, "--fail-on", "none"}, badArgs[1:]...), exitOK, ": grade none (incomplete)", ""},
		{"few requests", "", append([]string{good.URL, "--max-requests", "40"}, badArgs[1:]...), exitError, ": grade none (incomplete)", "hint: allow more with --max-requests"},
		{"what terminals obey", "x\n", []string{"http://a\u009b2Jb.localhost:1/", "--user", "mia", "--password-stdin"}, exitUnreachable, "", "http://a?2Jb.localhost:1/"},
		{"a wrong password", "wrong\n", []string{d.URL(), "--user", "mia", "--password-stdin"}, exitDenied, "", "hint: say how with --login"},
		{"no such page", "demo\n", []string{d.URL(), "--user", "mia", "--password-stdin", "--page", "/nothing"}, exitDenied, "", "hint: --page names"},
		{"nobody there", "demo\n", []string{gone.URL, "--user", "mia", "--password-stdin"}, exitUnreachable, "", "cannot be reached"},
		{"elsewhere", "demo\n", []string{"https://shop.example.com/", "--user", "mia", "--password-stdin"}, exitUsage, "", "hint: if the site is yours, name its host with --allow-host"},
		{"no user", "", []string{d.URL()}, exitUsage, "", "add --user"},
		{"no password", "", []string{d.URL(), "--user", "mia"}, exitUsage, "", "there is no password"},
		{"an empty password", "\n", []string{d.URL(), "--user", "mia", "--password-stdin"}, exitUsage, "", "there is no password"},
		{"no site", "", nil, exitUsage, "", "accepts 1 arg"},
		{"no severity", "demo\n", []string{d.URL(), "--user", "mia", "--password-stdin", "--fail-on", "awful"}, exitUsage, "", "write high, medium, low or none"},
		{"a field", "demo\n", []string{d.URL(), "--user", "mia", "--password-stdin", "--field", "remember"}, exitUsage, "", "want name=value"},
		{"samples", "demo\n", []string{d.URL(), "--user", "mia", "--password-stdin", "--samples", "1"}, exitUsage, "", "not between 2 and"},
		{"no time", "demo\n", []string{d.URL(), "--user", "mia", "--password-stdin", "--timeout", "1s", "--rate", "0.5"}, exitError, "", "not finished after 1s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			posts.Store(0)
			code, out, errs := runCommand(t, tt.in, (*program).gradeCommand, tt.args...)
			if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errs, tt.errs) {
				t.Errorf("exit %d, want %d\n%s\n%s", code, tt.code, out, errs)
			}
			if strings.ContainsRune(out+errs, '\u009b') {
				t.Errorf("%q", out+errs)
			}
			if strings.Contains(out+errs, badshop.Password) {
				t.Error("the password was printed")
			}
		})
	}
	code, out, _ := runCommand(t, "", (*program).gradeCommand, append(badArgs, "--json")...)
	var r grade.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitFindings || r.Version != 1 || r.Grade != "F" || r.Counts.High == 0 || len(r.NotExamined) == 0 {
		t.Errorf("--json: exit %d, %v\n%s", code, err, out)
	}
}
