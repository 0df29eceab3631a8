package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// pipes is a network of in-memory connections, on which time stands still while somebody works, as synctest has it.
type pipes struct {
	mu     sync.Mutex
	serves map[string]*pipe // by host and port
}

type pipe struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipe) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipe) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (n *pipes) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	p := n.serves[addr]
	n.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("connection refused")
	}
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
		return nil, fmt.Errorf("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// listen begins to serve at the address; the returned function ends it.
func (n *pipes) listen(addr string, h http.Handler) (stop func()) {
	p := &pipe{conns: make(chan net.Conn), done: make(chan struct{})}
	s := &http.Server{Handler: h}
	n.mu.Lock()
	if n.serves == nil {
		n.serves = map[string]*pipe{}
	}
	n.serves[addr] = p
	n.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(p) })
	return func() {
		n.mu.Lock()
		delete(n.serves, addr)
		n.mu.Unlock()
		s.Close()
		wg.Wait()
	}
}

// fixture is an authority with webhooks, whose network is pipes.
type fixture struct {
	t     testing.TB
	store store.Store
	ring  *keyring.Ring
	a     *afterlogin.Authority
	net   *pipes
	log   bytes.Buffer
	logMu sync.Mutex
}

type lockedWriter struct{ f *fixture }

func (w lockedWriter) Write(b []byte) (int, error) {
	w.f.logMu.Lock()
	defer w.f.logMu.Unlock()
	return w.f.log.Write(b)
}

func newFixture(t testing.TB, s store.Store) *fixture {
	t.Helper()
	if s == nil {
		s = memstore.New()
	}
	f := &fixture{t: t, store: s, ring: keyring.New(), net: &pipes{}}
	f.a = f.authority()
	t.Cleanup(func() {
		f.logMu.Lock()
		defer f.logMu.Unlock()
		if strings.Contains(f.log.String(), secretPrefix) {
			t.Errorf("a secret stands in the log: %s", f.log.String())
		}
		if t.Failed() {
			text := f.log.String()
			t.Logf("log:\n%s", text[max(0, len(text)-6000):])
		}
	})
	return f
}

func (f *fixture) authority() *afterlogin.Authority {
	a, err := afterlogin.New(afterlogin.Config{Store: f.store, Keys: f.ring, Issuer: "https://auth.example"})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { a.Close() })
	return a
}

// server starts webhooks that connect through the pipes.
func (f *fixture) server(o Options) *server {
	f.t.Helper()
	if o.Authority == nil {
		o.Authority = f.a
	}
	o.Keys, o.Loopback = f.ring, true
	o.Logger = slog.New(slog.NewTextHandler(lockedWriter{f}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	killed, kill := context.WithCancel(context.Background())
	w, err := newWebhooks(o, &http.Transport{DialContext: f.net.dial, MaxResponseHeaderBytes: maxHeader, ResponseHeaderTimeout: attemptTimeout}, killed)
	if err != nil {
		f.t.Fatal(err)
	}
	s := &server{Webhooks: w, kill: kill}
	f.t.Cleanup(func() { s.Close() })
	return s
}

type server struct {
	*Webhooks
	kill func()
}

// die ends the server as if its process did: nothing is saved and nothing is given back.
func (s *server) die() {
	s.kill()
	s.Close()
}

// revoke makes an event: a session of the subject begins and ends.
func (f *fixture) revoke(subject string) afterlogin.SessionID {
	f.t.Helper()
	got, err := f.a.Issue(context.Background(), afterlogin.IssueRequest{Subject: subject})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.a.Revoke(context.Background(), got.Session.ID, afterlogin.ReasonAdministrator); err != nil {
		f.t.Fatal(err)
	}
	return got.Session.ID
}

// receiver keeps what it is sent, and answers what it is told to.
type receiver struct {
	t testing.TB

	mu     sync.Mutex
	secret []string // all of these have signed
	status int      // 0: 204
	header http.Header
	wait   time.Duration
	got    []received
	seen   map[string]int // attempts that were answered 2xx, by id
	tried  int
}

type received struct {
	id      string
	at      time.Time
	payload struct {
		Issuer string                     `json:"iss"`
		ID     string                     `json:"jti"`
		Sub    map[string]json.RawMessage `json:"sub_id"`
		Events map[string]map[string]any  `json:"events"`
		Event  Event                      `json:"event"`
	}
	body []byte
}

func newReceiver(t testing.TB) *receiver { return &receiver{t: t, seen: map[string]int{}} }

func (r *receiver) answer(status int, header ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.header = status, http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		r.header.Set(header[i], header[i+1])
	}
}

func (r *receiver) slow(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wait = d
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	b, err := io.ReadAll(io.LimitReader(q.Body, 1<<20))
	if err != nil {
		return
	}
	r.mu.Lock()
	wait, status, header, secret := r.wait, r.status, r.header, r.secret
	r.tried++
	r.mu.Unlock()
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-q.Context().Done():
			return
		}
	}
	got := received{id: q.Header.Get("Webhook-Id"), at: time.Now(), body: b}
	if err := json.Unmarshal(b, &got.payload); err != nil {
		r.t.Errorf("the body is no JSON: %v %s", err, b)
	}
	if !verified(secret, q.Header, b) {
		r.t.Errorf("the signature %q is wrong", q.Header.Get("Webhook-Signature"))
	}
	if got.payload.ID != got.id || got.payload.Event.ID != got.id {
		r.t.Errorf("ids %q %q %q", got.id, got.payload.ID, got.payload.Event.ID)
	}
	for k, v := range header {
		w.Header()[k] = v
	}
	if status == 0 {
		status = http.StatusNoContent
	}
	if status/100 == 2 {
		r.mu.Lock()
		r.got = append(r.got, got)
		r.seen[got.id]++
		r.mu.Unlock()
	}
	w.WriteHeader(status)
}

// verified is the check of Standard Webhooks, written down once more.
func verified(secrets []string, h http.Header, body []byte) bool {
	for _, secret := range secrets {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil {
			return false
		}
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.%s", h.Get("webhook-id"), h.Get("webhook-timestamp"), body)
		want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
		if !slices.Contains(strings.Split(h.Get("webhook-signature"), " "), want) {
			return false
		}
	}
	return true
}

// check has signatures of all the secrets asked for.
func (r *receiver) check(secrets ...Secret) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secret = nil
	for _, s := range secrets {
		r.secret = append(r.secret, s.Reveal())
	}
}

// all is what was taken.
func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// ids are how often each event was taken.
func (r *receiver) ids() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.seen)
}

// subjects are whom the events are about that were taken, in order.
func (r *receiver) subjects() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.got {
		out = append(out, g.payload.Event.Subject)
	}
	return out
}

func (r *receiver) types() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.got {
		out = append(out, g.payload.Event.Type)
	}
	return out
}

func (r *receiver) attempts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tried
}

// twice are the ids that were taken more than once.
func (r *receiver) twice() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, n := range r.seen {
		if n > 1 {
			out = append(out, id)
		}
	}
	return out
}

func numbered(from, to int) (out []string) {
	for n := from; n < to; n++ {
		out = append(out, fmt.Sprintf("u%d", n))
	}
	return out
}

// add adds a webhook for session.revoked.
func (f *fixture) add(s *server, url string, events ...string) (*Webhook, Secret) {
	f.t.Helper()
	if events == nil {
		events = []string{afterlogin.EventRevoked}
	}
	h, secret, err := s.Add(context.Background(), Request{URL: url, Events: events})
	if err != nil {
		f.t.Fatal(err)
	}
	return h, secret
}

// drop has so many events happen that memstore drops those before.
func (f *fixture) drop() {
	root := store.SubjectID(0, "nobody")
	var ops []store.Op
	for range store.MaxOps {
		ops = append(ops, store.Emit(store.Event{At: time.Now().UnixMilli(), Type: afterlogin.EventRevoked, Subject: "dropped"}))
	}
	for range 1<<17/store.MaxOps + 10 {
		if err := f.store.Apply(context.Background(), root, ops...); err != nil {
			f.t.Fatal(err)
		}
	}
}
