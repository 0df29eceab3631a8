package server

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

// A stop ends the streams of events, and does not wait for them.
func TestStopEndsStreams(t *testing.T) {
	c := settings(t.TempDir())
	c.Shutdown = config.Duration(time.Minute)
	s, log := open(t, c, false)
	defer s.Close()
	l, err := Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+l.Addr().String()+"/v1/events", nil)
	r.Header.Set("x-api-key", adminKey(t, c.Data))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := bufio.NewReader(resp.Body)
	if line, err := b.ReadString('\n'); err != nil || line != ": following\n" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s %v %q %v", resp.Status, resp.Header, line, err)
	}
	begun := time.Now()
	stop()
	rest, err := io.ReadAll(b)
	if err != nil || !strings.HasSuffix(string(rest), ": the server stops; connect again\n\n") {
		t.Errorf("%q %v", rest, err)
	}
	if err := <-done; err != nil || time.Since(begun) > 30*time.Second {
		t.Errorf("Run: %v after %v\n%s", err, time.Since(begun), log)
	}
}
