package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

func TestMain(m *testing.M) {
	// The race detector has every process sleep for a second at its end; the tests start hundreds.
	os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
	testscript.Main(m, map[string]func(){"afterlogin": main})
}

// TestScripts runs testdata/script. Besides testscript's own commands there are:
//
//	ready                    waits until the server at $ADDR is ready
//	signin subject file var  signs the subject in, puts the token into the file and the session's id into the variable
//	key name var             puts the id of the API key of that name into the variable
//	kid EdDSA var            puts the id of the signing key of that algorithm into the variable
//	take file pattern var    puts what the pattern matches first in the file into the variable
//	spoil file old new       puts the new text into the place of the first old one
//	mode file 0600           checks the permissions of a file
//	code 3 args...           runs afterlogin and checks its exit code
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			defer l.Close()
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Setenv("ADDR", l.Addr().String())
			e.Setenv("PORT", strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
			e.Setenv("AFTERLOGIN_SERVER", "http://"+l.Addr().String())
			e.Setenv("AFTERLOGIN_DRAIN", "10ms")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ready": func(ts *testscript.TestScript, neg bool, args []string) {
				for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
					if resp, err := http.Get("http://" + ts.Getenv("ADDR") + "/readyz"); err == nil {
						resp.Body.Close()
						if resp.StatusCode == 200 {
							return
						}
					}
				}
				ts.Fatalf("the server is not ready")
			},
			"signin": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) != 3 {
					ts.Fatalf("usage: signin subject file var")
				}
				key := strings.TrimSpace(ts.ReadFile("afterlogin-data/admin.key"))
				body, _ := json.Marshal(api.CreateRequest{
					Subject: args[0], Auth: &api.AuthInput{Methods: []string{"pwd"}},
					Device: &api.DeviceInput{IP: "203.0.113.9", UserAgent: "test/1"},
				})
				c := remoteCaller{base: "http://" + ts.Getenv("ADDR"), key: key}
				var got api.Created
				status, err := c.call("POST", "/v1/sessions", body, &got)
				if err != nil || status != 201 {
					ts.Fatalf("sign-in: %d %v", status, err)
				}
				ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(got.Token+"\n"), 0o600))
				ts.Setenv(args[2], got.Session.ID)
			},
			"spoil": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) != 3 {
					ts.Fatalf("usage: spoil file old new")
				}
				text := ts.ReadFile(args[0])
				if !strings.Contains(text, args[1]) {
					ts.Fatalf("%s is not in %s", args[1], args[0])
				}
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o600))
			},
			"take": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) != 3 {
					ts.Fatalf("usage: take file pattern var")
				}
				found := regexp.MustCompile(args[1]).FindString(ts.ReadFile(args[0]))
				if found == "" {
					ts.Fatalf("%s is not in %s", args[1], args[0])
				}
				ts.Setenv(args[2], found)
			},
			"code": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) < 1 {
					ts.Fatalf("usage: code n args...")
				}
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				err = ts.Exec("afterlogin", args[1:]...)
				got := 0
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					got = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if got != want {
					ts.Fatalf("exit code %d, want %d", got, want)
				}
			},
			"key": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) != 2 {
					ts.Fatalf("usage: key name var")
				}
				c := remoteCaller{base: "http://" + ts.Getenv("ADDR"), key: strings.TrimSpace(ts.ReadFile("afterlogin-data/admin.key"))}
				var list api.List
				_, err := c.call("GET", "/v1/api-keys", nil, &list)
				ts.Check(err)
				for _, k := range list.Data {
					if k.Name == args[0] {
						ts.Setenv(args[1], k.ID)
						return
					}
				}
				ts.Fatalf("there is no API key %q", args[0])
			},
			"kid": func(ts *testscript.TestScript, neg bool, args []string) {
				if len(args) != 2 {
					ts.Fatalf("usage: kid algorithm var")
				}
				c := remoteCaller{base: "http://" + ts.Getenv("ADDR"), key: strings.TrimSpace(ts.ReadFile("afterlogin-data/admin.key"))}
				var keys api.SigningKeys
				_, err := c.call("GET", "/v1/keys", nil, &keys)
				ts.Check(err)
				for _, k := range keys.Data {
					if k.Algorithm == args[0] && k.State == "signing" {
						ts.Setenv(args[1], k.ID)
						return
					}
				}
				ts.Fatalf("no key of %s signs", args[0])
			},
			"mode": func(ts *testscript.TestScript, neg bool, args []string) {
				info, err := os.Stat(ts.MkAbs(args[0]))
				ts.Check(err)
				if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
					ts.Fatalf("%s has mode %s", args[0], got)
				}
			},
		},
	})
}

// remoteCaller calls the API of a running server.
type remoteCaller struct {
	base, key string
	client    http.Client
}

func (c *remoteCaller) call(method, path string, body []byte, out any) (status int, err error) {
	r, err := http.NewRequest(method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("x-api-key", c.key)
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if out != nil && resp.StatusCode < 300 {
		return resp.StatusCode, json.Unmarshal(b, out)
	}
	return resp.StatusCode, nil
}

// serving is a server in a process of its own.
type serving struct {
	remoteCaller
	cmd *exec.Cmd
	log *logged
}

// logged keeps what a process writes to stderr.
type logged struct {
	mu    sync.Mutex
	text  strings.Builder
	ended chan struct{}
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// startServer starts "afterlogin serve" on the directory and returns when it listens, or with an error when it ends
// before it does.
func startServer(t testing.TB, data string, args ...string) (*serving, error) {
	t.Helper()
	s, listening, err := launch(t, data, args...)
	if err != nil {
		return nil, err
	}
	select {
	case url := <-listening:
		s.base = url
	case <-time.After(30 * time.Second):
		s.kill()
		return nil, fmt.Errorf("not listening after 30 s: %s", s.log)
	case <-s.log.ended:
		s.cmd.Wait()
		return nil, fmt.Errorf("ended: %s", s.log)
	}
	b, err := os.ReadFile(filepath.Join(data, "admin.key"))
	s.key = strings.TrimSpace(string(b))
	return s, err
}

// launch starts the process. The channel gets its address.
func launch(t testing.TB, data string, args ...string) (*serving, <-chan string, error) {
	t.Helper()
	s := &serving{log: &logged{ended: make(chan struct{})}}
	s.cmd = exec.Command("afterlogin", append([]string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--drain", "0s", "--log-level", "debug", "--log-format", "json"}, args...)...)
	s.cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	s.cmd.Args = slices.DeleteFunc(s.cmd.Args, func(a string) bool { // those of the environment
		otel := strings.HasPrefix(a, "OTEL_")
		if otel {
			s.cmd.Env = append(s.cmd.Env, a)
		}
		return otel
	})
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() {
		s.kill()
		if strings.Contains(s.log.String(), "DATA RACE") {
			t.Errorf("a data race in the server:\n%s", s.log)
		}
	})
	listening := make(chan string, 1)
	go func() {
		defer close(s.log.ended)
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var l struct{ Msg, URL string }
			if json.Unmarshal(lines.Bytes(), &l); l.Msg == "listening" {
				listening <- l.URL
			}
			s.log.mu.Lock()
			s.log.text.Write(lines.Bytes())
			s.log.text.WriteByte('\n')
			s.log.mu.Unlock()
		}
	}()
	return s, listening, nil
}

// kill ends the process as a power cut would end it, but for what the operating system has yet to write.
func (s *serving) kill() {
	if s.cmd.ProcessState == nil {
		s.cmd.Process.Kill()
		<-s.log.ended
		s.cmd.Wait()
	}
	s.client.CloseIdleConnections()
}

// TestInterrupted interrupts a command that waits for a server.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
	}))
	defer s.Close()
	var stderr bytes.Buffer
	c := exec.Command("afterlogin", "sessions", "list")
	c.Env = append(os.Environ(), "AFTERLOGIN_SERVER="+s.URL, "AFTERLOGIN_KEY=x")
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	c.Process.Signal(os.Interrupt)
	c.Wait()
	if got := c.ProcessState.ExitCode(); got != exitInterrupted || stderr.String() != "afterlogin: interrupted\n" {
		t.Errorf("exit code %d, %q", got, stderr.String())
	}
}

// TestInterruptedAtPrompt interrupts commands that wait for a person.
func TestInterruptedAtPrompt(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		io.WriteString(w, `{"data":[]}`)
	}))
	defer s.Close()
	for _, tt := range []struct {
		end  byte // of the prompt
		args []string
	}{
		{']', []string{"sessions", "revoke", "--subject", "mia"}},
		{':', []string{"token", "explain"}},
	} {
		tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0) // a terminal at which nobody ever types
		if err != nil {
			t.Fatal(err)
		}
		defer tty.Close()
		c := exec.Command("afterlogin", tt.args...)
		c.Env = append(os.Environ(), "AFTERLOGIN_SERVER="+s.URL, "AFTERLOGIN_KEY=x")
		c.Stdin = tty
		stderr, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(stderr)
		prompt, _ := lines.ReadString(tt.end)
		c.Process.Signal(os.Interrupt)
		late := time.AfterFunc(10*time.Second, func() { c.Process.Kill() })
		rest, _ := io.ReadAll(lines)
		c.Wait()
		late.Stop()
		if got := c.ProcessState.ExitCode(); got != exitInterrupted || !strings.HasSuffix(string(rest), "\nafterlogin: interrupted\n") {
			t.Errorf("%v: exit code %d, %q", tt.args, got, prompt+string(rest))
		}
	}
}

// TestOtherServers talks to servers that are not ours, or that say strange things.
func TestOtherServers(t *testing.T) {
	t.Parallel()
	problem := func(status int, detail string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { api.NewProblem(status, "x", detail).Write(w, r) }
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the key went elsewhere: %q", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		code    int
		want    string
	}{
		"a page":        {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }, exitError, "is that an afterlogin server?"},
		"a 404 page":    {func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, exitError, "is that an afterlogin server?"},
		"a redirect":    {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, exitError, "302"},
		"not now":       {problem(503, "try again"), exitUnreachable, "try again"},
		"not allowed":   {problem(403, "no scope"), exitDenied, "no scope"},
		"control codes": {problem(422, "a\x1b[2Jb\u202Ec"), exitError, "a?[2Jb?c"},
		"sessions with control codes": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"data":[{"id":"ses_x","subject":"mia\u001b]0;x\u0007"}]}`)
		}, exitOK, "mia?]0;x?"},
	} {
		s := httptest.NewServer(tt.handler)
		var out bytes.Buffer
		got := run([]string{"sessions", "list", "--server", s.URL}, []string{"AFTERLOGIN_KEY=x"}, streams{In: strings.NewReader(""), Out: &out, Err: &out})
		if got != tt.code || !strings.Contains(out.String(), tt.want) || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%s: exit code %d, %q", name, got, out.String())
		}
		s.Close()
	}
}
