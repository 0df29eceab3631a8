package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

const (
	million   = 1_000_000
	validated = 100_000
)

// millionComparisons measure the binary on a store with a million sessions: how soon it answers after kill -9, and how
// much memory it holds while 100,000 of them are validated. Linux only, where a process's memory can be read.
func millionComparisons() []comparison {
	m := &millionRun{}
	return []comparison{
		{
			name: "million/open", target: 2, most: true, unit: "s",
			what: "serve answers /readyz after kill -9, with 1,000,000 sessions in Pebble",
			set:  func() (func() (float64, error), func() (float64, error), func(), error) { return m.set(m.open) },
		},
		{
			name: "million/resident", target: 400, most: true, unit: "MB",
			what: "resident memory of serve after 100,000 of 1,000,000 sessions were validated",
			set:  func() (func() (float64, error), func() (float64, error), func(), error) { return m.set(m.resident) },
		},
	}
}

// millionRun keeps the store that both comparisons use.
type millionRun struct {
	dir     string
	binary  string
	address string
	tokens  []string
	key     string
	serve   *exec.Cmd
}

func (m *millionRun) set(measure func() (float64, error)) (ours, reference func() (float64, error), done func(), err error) {
	if m.dir == "" {
		if err := m.prepare(); err != nil {
			m.clean()
			return nil, nil, nil, err
		}
	}
	return measure, nil, m.stop, nil
}

// prepare builds the binary, starts it once so that it makes its keys, and fills its store with a million sessions.
func (m *millionRun) prepare() (err error) {
	if m.dir, err = os.MkdirTemp("", "afterlogin-million-"); err != nil {
		return err
	}
	m.binary = filepath.Join(m.dir, "afterlogin")
	build := exec.Command("go", "build", "-o", m.binary, "github.com/afterlogin/afterlogin/cmd/afterlogin")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	m.address = l.Addr().String()
	l.Close()
	if _, err := m.start(); err != nil {
		return err
	}
	m.kill()
	key, err := os.ReadFile(filepath.Join(m.data(), "admin.key"))
	if err != nil {
		return err
	}
	m.key = strings.TrimSpace(string(key))
	return m.fill()
}

func (m *millionRun) data() string { return filepath.Join(m.dir, "data") }

// fill signs a million subjects in, straight into the store.
func (m *millionRun) fill() error {
	master, err := keyring.Master(filepath.Join(m.data(), "master.key"))
	if err != nil {
		return err
	}
	keys, err := keyring.Open(filepath.Join(m.data(), "keys.json"), master)
	if err != nil {
		return err
	}
	s, err := pebblestore.Open(filepath.Join(m.data(), "store"), pebblestore.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	a, err := afterlogin.New(afterlogin.Config{Store: s, Keys: keys})
	if err != nil {
		return err
	}
	defer a.Close()
	tokens := make([]string, million)
	var mu sync.Mutex
	next := 0
	var wg sync.WaitGroup
	var failed error
	for range 256 {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := i >= million || failed != nil
				mu.Unlock()
				if stop {
					return
				}
				got, err := a.Issue(context.Background(), afterlogin.IssueRequest{
					Subject: fmt.Sprint("subject-", i/4), Device: afterlogin.Client{UserAgent: "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0"},
				})
				mu.Lock()
				if err != nil {
					failed = err
				} else {
					tokens[i] = got.Token.Reveal()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i := 0; i < million && failed == nil; i += million / validated {
		m.tokens = append(m.tokens, tokens[i])
	}
	return failed
}

// start runs serve and returns how long it took until it was ready.
func (m *millionRun) start() (time.Duration, error) {
	m.serve = exec.Command(m.binary, "serve", "--data", m.data(), "--listen", m.address)
	begin := time.Now()
	if err := m.serve.Start(); err != nil {
		return 0, err
	}
	for time.Since(begin) < 30*time.Second {
		resp, err := http.Get("http://" + m.address + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return time.Since(begin), nil
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	m.kill()
	return 0, errors.New("serve was not ready after 30 s")
}

func (m *millionRun) kill() {
	if m.serve != nil {
		m.serve.Process.Kill()
		m.serve.Wait()
		m.serve = nil
	}
}

func (m *millionRun) stop() { m.kill() }

func (m *millionRun) clean() {
	m.kill()
	os.RemoveAll(m.dir)
}

// open kills what runs and measures the next start. Before the kill sessions are made for two seconds, so that there is a
// log to read again.
func (m *millionRun) open() (float64, error) {
	if m.serve == nil {
		if _, err := m.start(); err != nil {
			return 0, err
		}
	}
	_, err := concurrently(64, 2*time.Second, func(i int64) error {
		_, err := m.post("/v1/sessions", fmt.Appendf(nil, `{"subject":"late-%d"}`, i%500))
		return err
	})
	if err != nil {
		return 0, err
	}
	m.kill()
	took, err := m.start()
	return took.Seconds(), err
}

// resident validates the tokens in batches of 100 and reads the memory of the process.
func (m *millionRun) resident() (float64, error) {
	if m.serve == nil {
		if _, err := m.start(); err != nil {
			return 0, err
		}
	}
	for i := 0; i < len(m.tokens); i += 100 {
		body, err := json.Marshal(map[string]any{"tokens": m.tokens[i : i+100]})
		if err != nil {
			return 0, err
		}
		answer, err := m.post("/v1/validate", body)
		if err != nil {
			return 0, err
		}
		if n := bytes.Count(answer, []byte(`"active":true`)); n != 100 {
			return 0, fmt.Errorf("%d of 100 tokens are active", n)
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.serve.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			return float64(kb) / 1000, err
		}
	}
	return 0, errors.New("no VmRSS")
}

func (m *millionRun) post(path string, body []byte) ([]byte, error) {
	req, err := http.NewRequest(http.MethodPost, "http://"+m.address+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+m.key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s: %.200s", path, resp.Status, b)
	}
	return b, err
}
