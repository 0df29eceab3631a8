package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
)

// runDemoProgram runs the program and returns its exit code and what it printed.
func runDemoProgram(args ...string) (code int, out, errs string) {
	var o, e strings.Builder
	code = run(args, os.Environ(), streams{In: strings.NewReader(""), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

// TestDemo runs the demo and its thief as a person would, in two terminals.
func TestDemo(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	if code, _, errs := runDemoProgram("demo", "steal"); code != exitError || !strings.Contains(errs, "no demo is running") {
		t.Errorf("steal without a demo: %d, %q", code, errs)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	cmd := newDemoCommand(streams{Out: w, Err: io.Discard})
	cmd.SetArgs([]string{"--addr", "127.0.0.1:0", "--renewal", "1s", "--grace", "1s"})
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.ExecuteContext(ctx)
		w.Close()
	}()
	banner := bufio.NewScanner(r)
	var said strings.Builder
	for banner.Scan() {
		said.WriteString(banner.Text() + "\n")
		if strings.Contains(banner.Text(), "something to steal") { // its last line
			break
		}
	}
	for _, want := range []string{`http://localhost:\d+/`, "demo steal", "demo replay", "without Secure"} {
		if !regexp.MustCompile(want).MatchString(said.String()) {
			t.Errorf("the banner lacks %q:\n%s", want, &said)
		}
	}

	if code, _, errs := runDemoProgram("demo", "steal"); code != exitNo || !strings.Contains(errs, "nobody is signed in yet") {
		t.Errorf("steal from nobody: %d, %q", code, errs)
	}
	if code, _, errs := runDemoProgram("demo", "replay"); code != exitError || !strings.Contains(errs, "demo steal first") {
		t.Errorf("replay of nothing: %d, %q", code, errs)
	}
	if code, out, errs := runDemoProgram("demo", "replay", "--shop", "--every", "100ms"); code != exitOK || !strings.Contains(out, "401  reused") {
		t.Errorf("replay --shop: %d, %q\n%s", code, errs, out)
	}
	if code, out, errs := runDemoProgram("demo", "steal"); code != exitOK || !strings.HasPrefix(out, "stolen  als_…[token]") {
		t.Errorf("steal: %d, %q\n%s", code, errs, out)
	}
	if code, out, errs := runDemoProgram("demo", "replay", "--within", "1s"); code != exitNo || !strings.Contains(out, "still in") {
		t.Errorf("replay with nobody at the browser: %d, %q\n%s", code, errs, out)
	}

	if code, out, errs := runDemoProgram("demo", "app", "--for", "1s", "--jwt"); code != exitOK || !strings.Contains(out, "the app signs itself out") {
		t.Errorf("app: %d, %q\n%s", code, errs, out)
	}
	if code, out, errs := runDemoProgram("demo", "partner"); code != exitOK || !strings.Contains(out, "429  rate_limited") {
		t.Errorf("partner: %d, %q\n%s", code, errs, out)
	}

	cancel()
	rest, err := io.ReadAll(r)
	if err != nil || !strings.Contains(string(rest), "Everything is gone") {
		t.Errorf("at the end: %q, %v", rest, err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the demo ended with %v", err)
	}
}

func TestDemoAuto(t *testing.T) {
	code, out, errs := runDemoProgram("demo", "--auto")
	if code != exitOK || !strings.Contains(out, "32 of 32 steps held.") {
		t.Errorf("exit code %d, %q\n%s", code, errs, out)
	}
}

func TestDemoFlags(t *testing.T) {
	for _, args := range []string{
		"--renewal 100ms", "--renewal 5s --grace 6s", "--renewal 2h", "--renewal x", "--grace 2m --renewal 5m", "--grace 0s",
		"--addr 0.0.0.0:80", "--addr :80", "--addr nonsense", "--addr 127.0.0.1:65536", "--auto --addr 127.0.0.1:0", "--auto --data x", "nonsense", "--nonsense",
		"replay --within 1ms", "replay --every 0s", "replay nonsense", "steal nonsense",
		"app --as eve", "app --for 1ms", "app --refreshes -1", "app --every 0s", "app nonsense", "partner nonsense",
	} {
		code, out, errs := runDemoProgram(append([]string{"demo"}, strings.Fields(args)...)...)
		if code != exitUsage || errs == "" || out != "" {
			t.Errorf("demo %s: exit code %d, %q, %q; want %d and an error", args, code, out, errs, exitUsage)
		}
	}
}
