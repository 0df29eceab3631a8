package history

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/pgstore"
	"github.com/afterlogin/afterlogin/store/redisstore"
)

// connect opens the store that the URL names: each node has one of its own.
func connect(ctx context.Context, url string, log *slog.Logger) (store.Shared, error) {
	if strings.HasPrefix(url, "postgres") {
		s, err := pgstore.Open(ctx, url, pgstore.Options{Logger: log})
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	s, err := redisstore.Open(ctx, url, redisstore.Options{Logger: log})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// A house is the keys and the server that nodes share.
type house struct {
	t      testing.TB
	url    string
	master []byte
	file   string // the keys
	keys   *keyring.Ring
}

func newHouse(t testing.TB, url string) *house {
	t.Helper()
	h := &house{t: t, url: url, master: []byte(strings.Repeat("history ", 4)), file: filepath.Join(t.TempDir(), "keys")}
	var err error
	if h.keys, err = keyring.Open(h.file, h.master); err != nil {
		t.Fatal(err)
	}
	return h
}

// logger keeps what the stores say, and shows it if the test fails.
func (h *house) logger(name string) *slog.Logger {
	var b tail
	h.t.Cleanup(func() {
		if h.t.Failed() && os.Getenv("AFTERLOGIN_HISTORY_LOG") != "" {
			h.t.Logf("%s says:\n%s", name, b.String())
		}
	})
	return slog.New(slog.NewTextHandler(&b, nil))
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	if len(l.b) > 64<<10 {
		l.b = append(l.b[:0], l.b[len(l.b)-32<<10:]...)
	}
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

// node opens a node in this process, through another address of the server if url is not empty.
func (h *house) node(url string) (local, store.Shared) {
	h.t.Helper()
	if url == "" {
		url = h.url
	}
	s, err := connect(h.t.Context(), url, h.logger("a node's store"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			h.t.Error(err)
		}
	})
	return local{open(h.t, s, h.keys)}, s
}

func (h *house) nodes(n int) []node {
	var all []node
	for range n {
		l, _ := h.node("")
		all = append(all, l)
	}
	return all
}

// away is a node in a process of its own, which can be stopped as it is.
type away struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}

	mu      sync.Mutex // guards what is below, and writing
	next    int
	waiting map[int]chan answer
	gone    bool
}

// childEnv has this program be a node instead of testing one.
const childEnv = "AFTERLOGIN_HISTORY_NODE"

type childConfig struct{ URL, Keys, Master string }

type childRequest struct {
	ID int
	request
}

type childAnswer struct {
	ID int
	answer
}

func (h *house) away() *away {
	h.t.Helper()
	a := &away{cmd: exec.Command(os.Args[0]), ended: make(chan struct{}), waiting: make(map[int]chan answer)}
	a.cmd.Env = append(os.Environ(), childEnv+"=1")
	a.cmd.Stderr = os.Stderr
	var err error
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	stdout, err := a.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		a.resume()
		a.stdin.Close() // it ends at the end of its input
		<-a.ended
		if err := a.cmd.Wait(); err != nil {
			h.t.Errorf("the node in a process of its own: %v", err)
		}
	})
	ready := make(chan bool, 1)
	go a.read(stdout, ready)
	if err := json.NewEncoder(a.stdin).Encode(childConfig{h.url, h.file, hex.EncodeToString(h.master)}); err != nil {
		h.t.Fatal(err)
	}
	select {
	case <-ready:
	case <-a.ended:
		h.t.Fatal("the node in a process of its own did not start")
	case <-time.After(30 * time.Second):
		h.t.Fatal("the node in a process of its own is not ready after 30 s")
	}
	return a
}

func (a *away) read(r io.Reader, ready chan<- bool) {
	defer close(a.ended)
	d := json.NewDecoder(bufio.NewReader(r))
	for {
		var got childAnswer
		if err := d.Decode(&got); err != nil {
			break
		}
		if got.ID == 0 {
			ready <- true
			continue
		}
		a.mu.Lock()
		c := a.waiting[got.ID]
		delete(a.waiting, got.ID)
		a.mu.Unlock()
		c <- got.answer
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = true
	for _, c := range a.waiting {
		c <- answer{Outcome: unknown, Err: "the node is gone"}
	}
	a.waiting = nil
}

func (a *away) do(r request) answer {
	c := make(chan answer, 1)
	a.mu.Lock()
	if a.gone {
		a.mu.Unlock()
		return answer{Outcome: unknown, Err: "the node is gone"}
	}
	a.next++
	a.waiting[a.next] = c
	err := json.NewEncoder(a.stdin).Encode(childRequest{a.next, r})
	a.mu.Unlock()
	if err != nil {
		return answer{Outcome: unknown, Err: err.Error()}
	}
	return <-c
}

func (a *away) pause() error { return a.cmd.Process.Signal(syscall.SIGSTOP) }

func (a *away) resume() error { return a.cmd.Process.Signal(syscall.SIGCONT) }

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	if err := beNode(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

// beNode answers requests until its input ends.
func beNode(in io.Reader, out io.Writer) (err error) {
	d := json.NewDecoder(bufio.NewReader(in))
	var c childConfig
	if err := d.Decode(&c); err != nil {
		return err
	}
	master, err := hex.DecodeString(c.Master)
	if err != nil {
		return err
	}
	keys, err := keyring.Open(c.Keys, master)
	if err != nil {
		return err
	}
	s, err := connect(ctx, c.URL, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	a, err := afterlogin.New(configuration(s, keys))
	if err != nil {
		return err
	}
	var mu sync.Mutex
	e := json.NewEncoder(out)
	say := func(got childAnswer) {
		mu.Lock()
		defer mu.Unlock()
		e.Encode(got) // who does not read any more gets no answer
	}
	say(childAnswer{})
	var wg sync.WaitGroup
	for {
		var r childRequest
		if err = d.Decode(&r); err != nil {
			break
		}
		wg.Go(func() { say(childAnswer{r.ID, serve(ctx, a, r.request)}) })
	}
	wg.Wait()
	a.Close()
	s.Close()
	if err == io.EOF {
		return nil
	}
	return err
}
