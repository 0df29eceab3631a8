package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/backend"
	"github.com/afterlogin/afterlogin/internal/servers"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store/pebblestore"
	"github.com/afterlogin/afterlogin/store/storetest"
)

// A crowd is many people who are signed in, each on two devices, by a real authority on an embedded store. Every
// hundredth session is ended.
type crowd struct {
	dir    string
	tokens []afterlogin.Token
}

func (c *crowd) ended(i int) bool { return i%100 == 7 }

func newCrowd(t *testing.T, n int) *crowd {
	t.Helper()
	c := &crowd{dir: t.TempDir(), tokens: make([]afterlogin.Token, n)}
	master, err := keyring.Master(filepath.Join(c.dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Open(filepath.Join(c.dir, "keys.json"), master)
	if err != nil {
		t.Fatal(err)
	}
	s, err := pebblestore.Open(filepath.Join(c.dir, backend.Dir), pebblestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	a, err := afterlogin.New(afterlogin.Config{Store: s, Keys: ring})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	inParallel(t, n, 64, func(i int) error {
		got, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: fmt.Sprint("s", i/2), Policy: afterlogin.PolicyRemember})
		if err == nil && c.ended(i) {
			err = a.Revoke(t.Context(), got.Session.ID, afterlogin.ReasonSignedOut)
		}
		c.tokens[i] = got.Token
		return err
	})
	return c
}

// inParallel calls do with 0 to n-1, and fails at the first error.
func inParallel(t *testing.T, n, workers int, do func(i int) error) {
	t.Helper()
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
}

// check validates every token on a server's store, with nothing in memory.
func (c *crowd) check(t *testing.T, address string) {
	t.Helper()
	s, err := backend.Open(t.Context(), address, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	master, err := keyring.Master(filepath.Join(c.dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.OpenShared(t.Context(), s, master, keyring.SharedOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	a, err := afterlogin.New(afterlogin.Config{Store: s, Keys: ring, CacheSize: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var valid, refused atomic.Int64
	inParallel(t, len(c.tokens), 32, func(i int) error {
		got, err := a.Validate(t.Context(), c.tokens[i], afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}, CanRenew: true})
		switch {
		case c.ended(i) && afterlogin.ReasonOf(err) == afterlogin.ReasonRevoked:
			refused.Add(1)
		case c.ended(i):
			return fmt.Errorf("session %d, which was ended: %v", i, err)
		case err != nil:
			return fmt.Errorf("session %d: %w", i, err)
		case got.Subject != fmt.Sprint("s", i/2):
			return fmt.Errorf("session %d is one of %q", i, got.Subject)
		default:
			valid.Add(1)
		}
		return nil
	})
	t.Logf("%d tokens are valid, %d that were ended are refused", valid.Load(), refused.Load())
}

// interrupted runs "afterlogin store migrate" until the checkpoint says that a step is half done, and then has it end by the signal.
// It reports whether that was before its end.
func interrupted(t *testing.T, args []string, wd, step string, with os.Signal) bool {
	t.Helper()
	var out bytes.Buffer
	c := exec.Command("afterlogin", args...)
	says := io.MultiWriter(&out, t.Output()) // one for both, so that one goroutine writes to it
	c.Dir, c.Stdout, c.Stderr = wd, says, says
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("%v\n%s", err, &out)
			}
			return false
		case <-tick.C:
		}
		var at struct {
			Step        string
			Done, Total int64
		}
		b, err := os.ReadFile(filepath.Join(wd, "afterlogin-migrate.json"))
		if err != nil || json.Unmarshal(b, &at) != nil || at.Step != step || at.Done*2 < at.Total {
			continue
		}
		c.Process.Signal(with)
		if err := <-ended; err == nil {
			return false
		} else if with == os.Interrupt && c.ProcessState.ExitCode() != exitInterrupted {
			t.Fatalf("%v\n%s", err, &out)
		}
		t.Logf("ended by %v at %d of %d of step %s", with, at.Done, at.Total, step)
		return true
	}
}

// TestMigrateMillion moves 4,000 sessions, or a million if storetest.LongEnv is set, to a store that servers share. It is
// interrupted while it copies, and killed while it compares, and goes on each time. Then every token is what it was.
func TestMigrateMillion(t *testing.T) {
	long := os.Getenv(storetest.LongEnv) != ""
	sessions := 4000
	if long {
		sessions = 1_000_000
	}
	began := time.Now()
	c := newCrowd(t, sessions)
	t.Logf("%d sessions made in %v", sessions, time.Since(began).Round(time.Second))
	for _, to := range []struct {
		name  string
		start func() (address string, stop func() error, err error)
	}{
		{"redis", func() (string, func() error, error) {
			p, err := servers.StartRedis(t.TempDir(), "appendonly yes")
			if err != nil {
				return "", nil, err
			}
			return "redis://" + p.Addr, p.Stop, nil
		}},
		{"postgres", func() (string, func() error, error) {
			p, err := servers.StartPostgres(t.TempDir())
			if err != nil {
				return "", nil, err
			}
			return p.URL, p.Stop, nil
		}},
	} {
		t.Run(to.name, func(t *testing.T) {
			address, stop, err := to.start()
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := stop(); err != nil {
					t.Error(err)
				}
			}()
			wd := t.TempDir()
			inFile := filepath.Join(wd, "address")
			if err := os.WriteFile(inFile, []byte(address), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"store", "migrate", "--from", c.dir, "--to-file", inFile}
			began, over := time.Now(), false
			for _, stop := range []struct {
				step string
				with os.Signal
			}{{"copy", os.Interrupt}, {"compare", os.Kill}} {
				over = over || !interrupted(t, args, wd, stop.step, stop.with)
			}
			if over && long {
				t.Error("it was not interrupted twice")
			}
			if !over {
				out, err := runStore(t, wd, args[1:]...)
				if want := fmt.Sprintf("copied %s records and the keys", thousands(int64(sessions+sessions/2))); err != nil || !strings.Contains(out, want) {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			t.Logf("moved in %v", time.Since(began).Round(time.Second))
			began = time.Now()
			out, err := runStore(t, wd, "check", "--store-file", inFile, "--master-key-file", filepath.Join(c.dir, "master.key"))
			if want := fmt.Sprintf("%s records, all in order", thousands(int64(sessions+sessions/2+1))); err != nil || !strings.Contains(out, want) {
				t.Errorf("%v, want %s\n%s", err, want, out)
			}
			took := time.Since(began)
			t.Logf("checked in %v, %.0f sessions a second", took.Round(time.Second), float64(sessions)/took.Seconds())
			began = time.Now()
			c.check(t, address)
			t.Logf("validated in %v", time.Since(began).Round(time.Second))
		})
	}
}
