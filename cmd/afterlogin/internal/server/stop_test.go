package server

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
)

// TestStopSlowClients asks the server to stop while clients with kept connections ask now and then, some of them less
// often than once in the drain time, so that there is always one that asks just as its connection ends. What may be
// repeated is never lost. What may not is answered, or was not done, and its client sees the end of the connection.
func TestStopSlowClients(t *testing.T) {
	dir := t.TempDir()
	c := settings(dir)
	c.Drain = config.Duration(60 * time.Millisecond)
	s, _ := open(t, c, false)
	base, stop := start(t, s)
	key := adminKey(t, dir)
	var answered, ended atomic.Int64
	var mu sync.Mutex
	var done, undone []string // subjects
	var clients, ready sync.WaitGroup
	const each = 8
	for i := range 3 * each {
		ready.Add(1)
		clients.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for n := 0; ; n++ {
				subject := fmt.Sprintf("c%d-%d", i, n)
				req, _ := http.NewRequest("POST", base+"/v1/sessions", strings.NewReader(fmt.Sprintf(`{"subject":%q}`, subject)))
				switch i % 3 {
				case 0:
					req, _ = http.NewRequest("GET", base+"/v1/sessions?limit=1", nil)
				case 1:
					req.Header["Idempotency-Key"] = nil // for net/http: may be repeated if there is no answer
				}
				req.Header.Set("x-api-key", key)
				if req.Body != nil {
					req.Header.Set("Content-Type", "application/json")
				}
				resp, err := client.Do(req)
				if err != nil {
					var op *net.OpError
					switch {
					case errors.As(err, &op) && op.Op == "dial": // nothing was sent
					case i%3 == 2 && errors.Is(err, io.EOF):
						ended.Add(1)
						mu.Lock()
						undone = append(undone, subject)
						mu.Unlock()
					default:
						t.Errorf("client %d, request %d: %v", i, n, err)
					}
					return
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode/100 != 2 {
					t.Errorf("client %d, request %d: %d %v", i, n, resp.StatusCode, err)
				}
				answered.Add(1)
				if i%3 != 0 {
					mu.Lock()
					done = append(done, subject)
					mu.Unlock()
				}
				if n == 0 {
					ready.Done()
				}
				time.Sleep(time.Duration(rand.Int64N(int64(2 * c.Drain))))
			}
		})
	}
	ready.Wait()
	time.Sleep(time.Duration(rand.Int64N(int64(c.Drain))))
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	clients.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, c, false)
	defer s.Close()
	count := func(subject string) (n int) {
		for _, err := range s.authority.Sessions(t.Context(), afterlogin.Query{Subject: subject}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	for _, subject := range done {
		if n := count(subject); n != 1 {
			t.Errorf("%s was answered, and has %d sessions", subject, n)
		}
	}
	for _, subject := range undone {
		if n := count(subject); n != 0 {
			t.Errorf("%s was not answered, and has %d sessions", subject, n)
		}
	}
	t.Logf("%d answered, %d ended without an answer", answered.Load(), ended.Load())
}

// TestStopRaw sends requests by hand, over plain connections and TLS, in the very moments in which idle connections are
// ended. Each gets its whole answer, or nothing and the end of the stream; never a reset.
func TestStopRaw(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			dir := t.TempDir()
			c := settings(dir)
			c.Drain = config.Duration(2 * pause)
			pool := certificate(t, dir, &c)
			if !secure {
				c.TLSCert, c.TLSKey = "", ""
			}
			s, _ := open(t, c, false)
			defer s.Close()
			base, stop := start(t, s)
			_, addr, _ := strings.Cut(base, "://")
			request := "GET /livez HTTP/1.1\r\nHost: " + addr + "\r\n\r\n"
			const n = 64
			conns := make([]net.Conn, n)
			readers := make([]*bufio.Reader, n)
			ask := func(i int) (string, error) {
				resp, err := http.ReadResponse(readers[i], nil)
				if err != nil {
					return "", err
				}
				b, err := io.ReadAll(resp.Body)
				return string(b), err
			}
			for i := range conns {
				var err error
				if conns[i], err = net.Dial("tcp", addr); err != nil {
					t.Fatal(err)
				}
				if secure {
					conns[i] = tls.Client(conns[i], &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}})
				}
				defer conns[i].Close()
				readers[i] = bufio.NewReader(conns[i])
				io.WriteString(conns[i], request)
				if _, err := ask(i); err != nil {
					t.Fatal(err)
				}
			}
			var clients sync.WaitGroup
			var whole, nothing atomic.Int64
			begin := make(chan struct{})
			for i := range conns {
				clients.Go(func() {
					<-begin
					time.Sleep(time.Duration(c.Drain) + lull + time.Duration(rand.Int64N(int64(16*time.Millisecond))) - 4*time.Millisecond)
					if _, err := io.WriteString(conns[i], request); err != nil {
						t.Errorf("connection %d: write: %v", i, err)
					}
					body, err := ask(i)
					switch {
					case err == nil && body == "{\"status\":\"alive\"}\n":
						whole.Add(1)
					case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && readers[i].Buffered() == 0:
						nothing.Add(1)
					default:
						t.Errorf("connection %d: %q, %v", i, body, err)
					}
					if _, err := readers[i].ReadByte(); err != io.EOF {
						t.Errorf("connection %d does not end in peace: %v", i, err)
					}
				})
			}
			close(begin)
			if err := stop(); err != nil {
				t.Error(err)
			}
			clients.Wait()
			t.Logf("%d answered, %d ended", whole.Load(), nothing.Load())
		})
	}
}

// Whoever keeps sending after the server has closed its end is heard out for a while.
func TestStopLingers(t *testing.T) {
	s, _ := open(t, settings(t.TempDir()), false)
	defer s.Close()
	base, stop := start(t, s)
	_, addr, _ := strings.Cut(base, "://")
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if resp, err := http.ReadResponse(r, nil); err != nil {
		t.Fatal(err)
	} else {
		io.Copy(io.Discard, resp.Body)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the end of an idle connection: %v, want EOF", err)
	}
	for range 3 { // a reset shows at the second write
		if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"); errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write after the end: %v", err)
		}
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("read after the end: %v, want EOF", err)
		}
	}
	c.Close() // then the server waits no longer
	began := time.Now()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > linger/2 {
		t.Errorf("the server waited for %v after the client had closed", d)
	}
}

// From the start of the drain every answer closes its connection, also that of a request that began before.
func TestDrainCloses(t *testing.T) {
	c := settings(t.TempDir())
	c.Drain = config.Duration(time.Minute)
	s, _ := open(t, c, false)
	defer s.Close()
	entered, release := make(chan struct{}), make(chan struct{})
	s.handler = s.handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-release
	}))
	got := make(chan *http.Response)
	for _, draining := range []bool{false, true} {
		go func() {
			resp, _ := ask(s, "GET", "/x", "", "")
			got <- resp
		}()
		<-entered
		s.draining.Store(draining)
		release <- struct{}{}
		if resp := <-got; (resp.Header.Get("Connection") == "close") != draining {
			t.Errorf("draining %v: %v", draining, resp.Header)
		}
	}
}
