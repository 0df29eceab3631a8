package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/doctor"
)

// TestDoctor uses the command rightly and wrongly. What the examination finds is tested where it is made.
func TestDoctor(t *testing.T) {
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	defer open.Close()
	early := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/.afterlogin/"):
			panic(http.ErrAbortHandler)
		case strings.Contains(r.Header.Get("Accept"), "html"):
			http.Redirect(w, r, "/.afterlogin/login?return_to=%2F", http.StatusSeeOther)
		default:
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer early.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	file := func(content string) string {
		name := filepath.Join(t.TempDir(), "cookie")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, tt := range []struct {
		name, in  string
		args      []string
		code      int
		out, errs string
	}{
		{"an open site", "", []string{"--url", open.URL + "/private"}, exitFindings, "FAIL  locked", ""},
		{"let off", "", []string{"--url", open.URL, "--fail-on", "none"}, exitOK, ": fail (", ""},
		{"with a cookie", "", []string{"--url", open.URL, "--cookie-file", file("Cookie: a=b; c=d\n")}, exitFindings, "FAIL  locked", ""},
		{"nobody there", "", []string{"--url", gone.URL}, exitUnreachable, "", "cannot be reached"},
		{"what terminals obey", "", []string{"--url", "http://a\u009b2Jb.localhost:1/"}, exitUnreachable, "", "http://a?2Jb.localhost:1"},
		{"ended early", "", []string{"--url", early.URL}, exitError, "The examination ended early", "the examination ended early: it closed the connection"},
		{"ended early, let off", "", []string{"--url", early.URL, "--fail-on", "none"}, exitOK, "The examination ended early", ""},
		{"no site", "", nil, exitUsage, "", "add --url"},
		{"an argument", "", []string{open.URL}, exitUsage, "", "unknown command"},
		{"no address", "", []string{"--url", "shop"}, exitUsage, "", "the URL is not one"},
		{"no password", "", []string{"--url", open.URL, "--user", "mia"}, exitUsage, "", "there is no password for mia"},
		{"nobody's password", "x\n", []string{"--url", open.URL, "--password-stdin"}, exitUsage, "", "add --user"},
		{"no cookie", "", []string{"--url", open.URL, "--cookie-file", file("nothing\n")}, exitUsage, "", "does not hold a Cookie header"},
		{"no such file", "", []string{"--url", open.URL, "--cookie-file", "/nowhere/cookie"}, exitError, "", "read the cookie"},
		{"no result", "", []string{"--url", open.URL, "--fail-on", "often"}, exitUsage, "", "write fail, warn or none"},
		{"no certificate", "", []string{"--url", open.URL, "--ca-file", file("nothing")}, exitUsage, "", "there is no certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errs := runCommand(t, tt.in, (*program).doctorCommand, tt.args...)
			if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errs, tt.errs) {
				t.Errorf("exit %d, want %d\n%s\n%s", code, tt.code, out, errs)
			}
		})
	}
	code, out, _ := runCommand(t, "", (*program).doctorCommand, "--url", open.URL, "--json")
	var r doctor.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitFindings || r.Version != 1 || r.Verdict != doctor.Fail || len(r.Checks) == 0 {
		t.Errorf("--json: exit %d, %v\n%s", code, err, out)
	}
}
