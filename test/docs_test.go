package test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The commands in README.md and docs/ are run, and their output is compared with what stands there. In the output … stands
// for anything within a line, and a line of its own … for any lines. `go run ./x` runs what was built before; ports are
// exchanged for free ones.
func TestDocs(t *testing.T) {
	root := must[string](t)(filepath.Abs(".."))
	bin := t.TempDir()
	for _, p := range []string{"./cmd/afterlogin", "./examples/quickstart"} {
		build := exec.Command("go", "build", "-o", filepath.Join(bin, filepath.Base(p)), p)
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build %s: %v\n%s", p, err, out)
		}
	}
	files := must[[]string](t)(filepath.Glob(filepath.Join(root, "docs", "*.md")))
	ran := 0
	for _, file := range append(files, filepath.Join(root, "README.md")) {
		blocks := fenced(t, file, "console")
		if len(blocks) == 0 {
			continue
		}
		ran++
		t.Run(filepath.Base(file), func(t *testing.T) {
			s := &shell{t: t, dir: t.TempDir(), bin: bin, ports: map[string]string{}}
			defer s.end()
			for _, b := range blocks {
				s.block(b)
			}
		})
	}
	if ran == 0 {
		t.Error("no commands found in README.md and docs/")
	}
}

// The program in the README is examples/quickstart.
func TestReadmeProgram(t *testing.T) {
	root := must[string](t)(filepath.Abs(".."))
	blocks := fenced(t, filepath.Join(root, "README.md"), "go")
	if len(blocks) != 1 {
		t.Fatalf("%d Go programs in the README, want 1", len(blocks))
	}
	source := string(must[[]byte](t)(os.ReadFile(filepath.Join(root, "examples", "quickstart", "main.go"))))
	_, program, _ := strings.Cut(source, "\npackage main")
	if "package main"+program != blocks[0] {
		t.Error("the program in README.md is not examples/quickstart/main.go")
	}
}

// Links between the documents lead somewhere.
func TestLinks(t *testing.T) {
	root := must[string](t)(filepath.Abs(".."))
	files := must[[]string](t)(filepath.Glob(filepath.Join(root, "*.md")))
	files = append(files, must[[]string](t)(filepath.Glob(filepath.Join(root, "docs", "*.md")))...)
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, file := range files {
		for _, m := range link.FindAllStringSubmatch(string(must[[]byte](t)(os.ReadFile(file))), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", filepath.Base(file), m[1])
			}
		}
	}
}

// fenced returns the contents of the blocks of that kind in a Markdown file.
func fenced(t *testing.T, file, kind string) []string {
	t.Helper()
	var out []string
	var block *strings.Builder
	for line := range strings.Lines(string(must[[]byte](t)(os.ReadFile(file)))) {
		switch {
		case block == nil && strings.TrimSpace(line) == "```"+kind:
			block = &strings.Builder{}
		case block != nil && strings.TrimSpace(line) == "```":
			out = append(out, block.String())
			block = nil
		case block != nil:
			block.WriteString(line)
		}
	}
	return out
}

// shell runs the commands of one document, in a directory of its own, with variables kept from one to the next.
type shell struct {
	t       *testing.T
	dir     string
	bin     string
	ports   map[string]string // as written, and as used
	running []*exec.Cmd
}

// carried are the variables that are kept from one command to the next.
const carried = "key token mark id csrf verifier challenge ask code refresh access order link"

var aPort = regexp.MustCompile(`localhost:(\d{4,5})\b`)

// block runs the commands of one block.
func (s *shell) block(text string) {
	var command string
	var expected []string
	flush := func() {
		if command != "" {
			s.command(command, expected)
		}
		command, expected = "", nil
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if c, ok := strings.CutPrefix(line, "$ "); ok {
			flush()
			command = c
		} else if strings.HasSuffix(command, `\`) && len(expected) == 0 {
			command += "\n" + line
		} else {
			expected = append(expected, line)
		}
	}
	flush()
}

// exchange puts free ports, and what was built, in place of what is written.
func (s *shell) exchange(text string) string {
	text = aPort.ReplaceAllStringFunc(text, func(m string) string {
		_, port, _ := strings.Cut(m, ":")
		return "localhost:" + s.port(port)
	})
	return regexp.MustCompile(`go run \./(?:cmd|examples)/`).ReplaceAllString(text, s.bin+"/")
}

func (s *shell) port(written string) string {
	if written == "4000" { // stands in the program itself
		return written
	}
	if s.ports[written] == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			s.t.Fatal(err)
		}
		_, s.ports[written], _ = net.SplitHostPort(l.Addr().String())
		l.Close()
	}
	return s.ports[written]
}

func (s *shell) env() []string {
	return append(os.Environ(), "PATH="+s.bin+":"+os.Getenv("PATH"), "AFTERLOGIN_LISTEN=127.0.0.1:"+s.port("7070"),
		"AFTERLOGIN_SERVER=http://127.0.0.1:"+s.port("7070"), "XDG_CACHE_HOME="+s.dir, "XDG_RUNTIME_DIR="+s.dir, "HOME="+s.dir)
}

func (s *shell) command(text string, expected []string) {
	s.t.Helper()
	if background, ok := strings.CutSuffix(text, " &"); ok {
		s.background(background)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// Variables are carried over in a file.
	script := "set -a; [ -f .vars ] && . ./.vars; " + s.exchange(text) + "\nstatus=$?; for v in " + carried + "; do [ -n \"${!v}\" ] && printf '%s=%q\\n' $v \"${!v}\"; done > .vars; exit $status"
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir, cmd.Env = s.dir, s.env()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	want := "(?s)^"
	for _, line := range expected {
		if line == "…" {
			want += `(?:[^\n]*\n)*?`
			continue
		}
		want += strings.ReplaceAll(regexp.QuoteMeta(s.exchange(line)), "…", `[^\n]*`) + "\n"
	}
	got := out.String()
	if got != "" && !strings.HasSuffix(got, "\n") {
		got += "\n"
	}
	if !regexp.MustCompile(want + "$").MatchString(got) {
		s.t.Errorf("$ %s\n(%v) prints\n%s\nwhich is not\n%s", text, err, got, strings.Join(expected, "\n"))
	}
}

// background starts a server and waits until it answers.
func (s *shell) background(text string) {
	s.t.Helper()
	address := "127.0.0.1:" + s.port("7070")
	switch {
	case strings.Contains(text, "quickstart"):
		address = "127.0.0.1:4000"
	case strings.HasPrefix(text, "caddy"):
		address = "127.0.0.1:" + s.port("8080")
	case strings.Contains(text, "demo"):
		address = "127.0.0.1:" + s.port("7071")
		text += " --addr " + address + " --renewal 3s --grace 3s" // nobody is reading along
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		s.t.Fatalf("%s is taken: the README cannot be tried", address)
	}
	cmd := exec.Command("bash", "-c", "exec "+s.exchange(text))
	cmd.Dir, cmd.Env = s.dir, s.env()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.running = append(s.running, cmd)
	for start := time.Now(); ; {
		resp, err := http.Get("http://" + address + "/")
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Since(start) > 20*time.Second {
			s.end()
			s.t.Fatalf("$ %s &\nnothing answers on %s\n%s", text, address, fmt.Sprint(out.String()))
		}
		<-time.After(20 * time.Millisecond)
	}
}

// end ends the servers that were started.
func (s *shell) end() {
	for _, cmd := range s.running {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}
	s.running = nil
}
