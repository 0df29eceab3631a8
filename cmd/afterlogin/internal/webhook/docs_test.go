package webhook

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const docsFile = "../../../../docs/webhooks.md"

// snippet returns the only block of that kind in docs/webhooks.md.
func snippet(t *testing.T, kind string) string {
	t.Helper()
	text, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 1 {
		t.Fatalf("%d blocks of %s", len(blocks), kind)
	}
	return blocks[0][1]
}

// try runs a receiver, sends it events, good and bad ones, and reads what it prints.
func try(t *testing.T, secret Secret, addr string, cmd *exec.Cmd) {
	t.Helper()
	cmd.Env = append(os.Environ(), append(cmd.Env, "WEBHOOK_SECRET="+secret.Reveal())...)
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	lines := make(chan string, 100)
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
		close(lines)
	}()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		in.Close()
		for line := range lines {
			t.Log(line)
		}
	}()
	eventually(t, "the receiver listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	w := newFixture(t, nil).real(Options{Loopback: true})
	send := func(r *record) outcome {
		r.URL = "http://" + addr + "/hooks"
		return w.attempt(t.Context(), "wh_x", r, &item{ID: "evt_1", Event: Event{Type: "session.revoked", At: time.Now(), Session: "ses_1", Subject: "mia"}})
	}
	other := newSecret()
	if o := send(&record{Secret: secret.Reveal()}); !o.ok || o.status != 204 {
		t.Fatalf("signed: %+v", o)
	}
	select {
	case line := <-lines:
		if !strings.HasSuffix(line, "evt_1 session.revoked ses_1 mia") {
			t.Errorf("it prints %q", line)
		}
	case <-time.After(10 * time.Second):
		t.Error("it prints nothing")
	}
	if o := send(&record{Secret: other.Reveal(), Old: []old{{secret.Reveal(), time.Now().Add(time.Hour).UnixMilli()}}}); !o.ok {
		t.Errorf("after a rotation: %+v", o)
	}
	if o := send(&record{Secret: other.Reveal()}); o.ok || o.status != 401 {
		t.Errorf("signed with another secret: %+v", o)
	}
	// By hand: changed, old, and without a signature.
	body := []byte(`{"event":{"id":"evt_1"}}`)
	for name, tt := range map[string]struct {
		at     time.Time
		body   string
		sign   bool
		status int
	}{
		"as it is":      {time.Now(), string(body), true, 204},
		"changed":       {time.Now(), string(body) + " ", true, 401},
		"old":           {time.Now().Add(-6 * time.Minute), string(body), true, 401},
		"of the future": {time.Now().Add(6 * time.Minute), string(body), true, 401},
		"not signed":    {time.Now(), string(body), false, 401},
	} {
		r, _ := http.NewRequest("POST", "http://"+addr+"/hooks", strings.NewReader(tt.body))
		r.Header.Set("webhook-id", "evt_1")
		r.Header.Set("webhook-timestamp", strconv.FormatInt(tt.at.Unix(), 10))
		if tt.sign {
			r.Header.Set("webhook-signature", secret.sign("evt_1", tt.at, body))
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// The receiver in Go of docs/webhooks.md takes what is signed, and nothing else.
func TestGoReceiver(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "receiver.go"), []byte(snippet(t, "go")), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", "receiver", "receiver.go")
	build.Dir, build.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	addr := freeAddr(t)
	cmd := exec.Command(filepath.Join(dir, "receiver"))
	cmd.Env = []string{"ADDR=" + addr}
	try(t, newSecret(), addr, cmd)
}
