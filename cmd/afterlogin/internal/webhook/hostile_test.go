package webhook

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// real starts webhooks on the real network.
func (f *fixture) real(o Options) *Webhooks {
	f.t.Helper()
	o.Authority, o.Keys = f.a, f.ring
	w, err := New(o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { w.Close() })
	return w
}

// one sends one event to the address.
func one(t testing.TB, w *Webhooks, url string) outcome {
	t.Helper()
	r := &record{URL: url, Secret: newSecret().Reveal()}
	return w.attempt(t.Context(), "wh_x", r, &item{ID: "evt_x", Event: Event{Type: afterlogin.EventRevoked, At: time.Now()}})
}

// eventually waits for what another goroutine does, on the real clock.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// A redirect leads nowhere, not even to where webhooks may go.
func TestRedirect(t *testing.T) {
	var there atomic.Int32
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { there.Add(1) }))
	defer target.Close()
	w := newFixture(t, nil).real(Options{Loopback: true})
	for _, to := range []string{target.URL, "http://169.254.169.254/latest/meta-data"} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			s := httptest.NewServer(http.RedirectHandler(to, status))
			if o := one(t, w, s.URL); o.ok || o.status != status || o.err != "redirects are not followed" || o.refused {
				t.Errorf("%d: %+v", status, o)
			}
			s.Close()
		}
	}
	if there.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

// The address that is dialled is what counts: a name that leads to this machine does not.
func TestNameOfThisMachine(t *testing.T) {
	var there atomic.Int32
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { there.Add(1) }))
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	f := newFixture(t, nil)
	strict := f.real(Options{Roots: roots})
	// localhost is a name that the system resolves to 127.0.0.1: a record that was made when it led elsewhere.
	for _, host := range []string{"localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		o := one(t, strict, "https://"+host+":"+port+"/")
		if o.ok || o.status != 0 || !strings.Contains(o.err, "not on the internet") {
			t.Errorf("%s: %+v", host, o)
		}
	}
	if o := one(t, strict, "http://"+s.Listener.Addr().String()+"/"); o.status != 0 {
		t.Errorf("without TLS: %+v", o)
	}
	if there.Load() != 0 {
		t.Fatal("a request arrived")
	}
	named := f.real(Options{Roots: roots, Allow: []string{"127.0.0.0/8"}})
	if o := one(t, named, "https://127.0.0.1:"+port+"/"); !o.ok || there.Load() != 1 {
		t.Errorf("allowed by its network: %+v", o)
	}
	// Proxies of the environment are not asked, and certificates are checked.
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	if o := one(t, f.real(Options{Loopback: true}), "https://127.0.0.1:"+port+"/"); o.ok || o.status != 0 || !strings.Contains(o.err, "certificate") {
		t.Errorf("an unknown certificate: %+v", o)
	}
	if tr := named.secure.Transport.(*http.Transport); tr.Proxy != nil || named.plain.Transport.(*http.Transport).Proxy != nil {
		t.Error("there is a proxy")
	}
}

// Whatever a receiver does, an attempt takes little time and little memory.
func TestHostileReceivers(t *testing.T) {
	w := newFixture(t, nil).real(Options{Loopback: true})
	raw := func(talk func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					c.Read(make([]byte, 4096))
					talk(c)
				}()
			}
		}()
		return "http://" + l.Addr().String() + "/"
	}
	for name, tt := range map[string]struct {
		talk func(net.Conn)
		ok   bool
		most time.Duration
	}{
		"endless body": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for b := make([]byte, 1<<16); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}, true, 5 * time.Second},
		"slow body": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
				<-time.After(20 * time.Millisecond)
			}
		}, true, 5 * time.Second},
		"slow headers": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := c.Write([]byte("a: b\r\n")); err != nil {
					return
				}
				<-time.After(100 * time.Millisecond)
			}
		}, false, attemptTimeout + 3*time.Second},
		"endless headers": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for line := strings.Repeat("a", 1000) + ": b\r\n"; ; {
				if _, err := io.WriteString(c, line); err != nil {
					return
				}
			}
		}, false, 5 * time.Second},
		"endless 1xx": {func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"); err != nil {
					return
				}
			}
		}, false, attemptTimeout + 3*time.Second},
		"nonsense":   {func(c net.Conn) { io.WriteString(c, "SSH-2.0-\x1b[31mx\r\n") }, false, 5 * time.Second},
		"hangs up":   {func(c net.Conn) {}, false, 5 * time.Second},
		"bad status": {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 999 x\r\nContent-Length: 0\r\n\r\n") }, false, 5 * time.Second},
	} {
		url := raw(tt.talk)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := one(t, w, url)
			if o.ok != tt.ok || o.took > tt.most || !o.ok && o.err == "" || strings.ContainsAny(o.err, "\x1b\r\n") || len(o.err) > maxError+4 {
				t.Errorf("%+v", o)
			}
		})
	}
}

// Ten thousand events wait in the store, not in memory, and all of them come, in order, once.
func TestTenThousandWait(t *testing.T) {
	f := newFixture(t, memstore.New())
	r := newReceiver(t)
	var down atomic.Bool
	down.Store(true)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if down.Load() {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
			return
		}
		r.ServeHTTP(w, q)
	}))
	defer s.Close()
	w := f.real(Options{Loopback: true})
	h, _, err := w.Add(t.Context(), Request{URL: s.URL, Events: []string{afterlogin.EventRevoked}})
	if err != nil {
		t.Fatal(err)
	}
	const n = 10_000
	began := time.Now()
	for k := range n {
		f.revoke(fmt.Sprint("u", k))
	}
	eventually(t, "everything waits", func() bool {
		hook, err := w.Webhook(context.Background(), h.ID)
		return err == nil && hook.Waiting == n
	})
	parked := time.Since(began)
	w.mu.Lock()
	c := w.couriers[h.ID]
	w.mu.Unlock()
	if c == nil {
		t.Fatal("nobody delivers")
	}
	runtime.GC()
	down.Store(false)
	began = time.Now()
	eventually(t, "everything arrives", func() bool { return len(r.ids()) == n })
	t.Logf("10,000 events: made and parked in %v, delivered in %v", parked, time.Since(began))
	for k, g := range r.all() {
		if g.payload.Event.Subject != fmt.Sprint("u", k) {
			t.Fatalf("event %d is of %s", k, g.payload.Event.Subject)
		}
	}
	if twice := r.twice(); len(twice) > 0 {
		t.Errorf("twice: %v", twice)
	}
	w.Close()
	if len(c.pending) > 2*maxPending || len(c.naming.seen) > 2*remembered {
		t.Errorf("%d events and %d names in memory", len(c.pending), len(c.naming.seen))
	}
}

// An outage on the real clock and the real network, over a death of the server.
func TestOutage(t *testing.T) {
	f := newFixture(t, nil)
	r := newReceiver(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	s := &http.Server{Handler: r}
	go s.Serve(l)
	w := f.real(Options{Loopback: true})
	h, _, err := w.Add(t.Context(), Request{URL: "http://" + addr + "/", Events: []string{afterlogin.EventRevoked}})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		f.revoke(fmt.Sprint("u", n))
	}
	eventually(t, "20 events", func() bool { return len(r.subjects()) == 20 })
	s.Close()
	for n := 20; n < 120; n++ {
		f.revoke(fmt.Sprint("u", n))
	}
	eventually(t, "100 events wait", func() bool {
		hook, err := w.Webhook(context.Background(), h.ID)
		return err == nil && hook.Waiting == 100
	})
	w.Close()
	for n := 120; n < 140; n++ {
		f.revoke(fmt.Sprint("u", n))
	}
	f.real(Options{Loopback: true})
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	s = &http.Server{Handler: r}
	go s.Serve(l)
	defer s.Close()
	eventually(t, "everything", func() bool { return len(r.subjects()) >= 140 })
	if got := r.subjects(); strings.Join(got, " ") != strings.Join(numbered(0, 140), " ") || len(r.twice()) > 0 {
		t.Errorf("received %v", got)
	}
}

// There are no more than Max webhooks, however many are added at once, and a store that does not answer is no yes.
func TestMax(t *testing.T) {
	f := newFixture(t, nil)
	w := f.real(Options{})
	add := func() error {
		_, _, err := w.Add(context.Background(), Request{URL: "https://shop.example/"})
		return err
	}
	for range Max - 5 {
		if err := add(); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error)
	for range 20 {
		go func() { done <- add() }()
	}
	added := 0
	for range 20 {
		switch err := <-done; {
		case err == nil:
			added++
		case !errors.Is(err, ErrTooMany):
			t.Error(err)
		}
	}
	hs, err := w.List(t.Context())
	if err != nil || added != 5 || len(hs) != Max {
		t.Errorf("%d added, %d there, %v", added, len(hs), err)
	}
	if err := w.Remove(t.Context(), hs[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := add(); err != nil {
		t.Errorf("after one was removed: %v", err)
	}
	if _, err := w.Webhook(t.Context(), hs[0].ID); !errors.Is(err, ErrNoWebhook) {
		t.Errorf("the one that was removed: %v", err)
	}
}
