package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin/store/memstore"
)

// pipes is a listener whose connections are pipes, which go by the clock of a synctest bubble. It ends when its channel
// is closed.
type pipes struct{ conns chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// A body that does not arrive is waited for equally long on every route, and called slow.
func TestSlowBody(t *testing.T) {
	for _, path := range []string{"/v1/validate", "/v1/renew", "/v1/explain", "/v1/sessions"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t, memstore.New())
			l := pipes{make(chan net.Conn)}
			s := &http.Server{Handler: f.api, ReadTimeout: 15 * time.Second}
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			ours, theirs := net.Pipe()
			l.conns <- theirs
			go fmt.Fprintf(ours, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\nx-api-key: %s\r\n\r\n{", path, f.key)
			began := time.Now()
			resp, err := http.ReadResponse(bufio.NewReader(ours), nil)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			var p Problem
			json.Unmarshal(b, &p)
			if took := time.Since(began); resp.StatusCode != http.StatusRequestTimeout || p.Kind() != "slow-body" || took != bodyTimeout {
				t.Errorf("%s: %d %s after %v", path, resp.StatusCode, b, took)
			}
			ours.Close()
			close(l.conns)
			s.Close()
			<-served
		})
	}
}
