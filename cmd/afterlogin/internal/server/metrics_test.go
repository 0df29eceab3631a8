package server

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/telemetry"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

var typeLine = regexp.MustCompile(`(?m)^# TYPE (afterlogin_[a-z_]+) ([a-z]+)$`)

// exposed returns the families of /metrics with their types, and how many series of ours there are.
func exposed(t *testing.T, s *Server) (families map[string]string, series int) {
	t.Helper()
	resp, body := ask(s, "GET", "/metrics", "", "")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	families = make(map[string]string)
	for _, m := range typeLine.FindAllStringSubmatch(body, -1) {
		families[m[1]] = m[2]
	}
	return families, strings.Count(body, "\nafterlogin_")
}

// A real server has every family of the table that is about what it has, and none that is not in it.
func TestServerMetrics(t *testing.T) {
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
	t.Cleanup(collector.Close) // after the server
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	st := &common{Store: memstore.New(), skew: 1500 * time.Millisecond}
	dir := t.TempDir()
	s := mustNode(t, st, dir, func(o *Options) {
		o.Config.Origins, o.Config.Issuer = []string{shop}, "http://127.0.0.1:7070"
		o.Version = "v1.2.3"
	})
	if _, ok := s.data.store.(store.Shared); !ok {
		t.Fatal("the store is not shared any more")
	}
	key := adminKey(t, dir)
	ask(s, "POST", "/v1/validate", key, `{"token":"junk"}`)
	ask(s, "GET", "/forward-auth", "", "")
	have, _ := exposed(t, s)
	for _, f := range telemetry.Families() {
		kind, ok := have[f.Name]
		delete(have, f.Name)
		switch {
		case ok && kind != f.Kind:
			t.Errorf("%s is a %s", f.Name, kind)
		case ok:
		case strings.Contains(f.When, "index"): // which the first search makes
		default:
			t.Errorf("%s is not there", f.Name)
		}
	}
	for name := range have {
		t.Errorf("%s is not in the table", name)
	}
	_, body := ask(s, "GET", "/metrics", "", "")
	for _, want := range []string{
		`afterlogin_build_info{version="v1.2.3"} 1`, `afterlogin_refusals_total{reason="malformed"} 1`, `afterlogin_validations_total{outcome="refused"} 1`,
		`afterlogin_http_seconds_count{code="2xx",route="/v1/validate"} 1`, `afterlogin_validate_seconds_count{via="api"} 1`, `afterlogin_store_seconds_count{call="apply",outcome="ok"}`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is not there", want)
		}
	}
}

// stuck is a store that can be made to hang, whatever the context says.
type stuck struct {
	*common
	on   atomic.Bool
	free chan struct{}
}

func (s *stuck) Get(ctx context.Context, ids ...store.ID) ([]*store.Record, error) {
	if s.on.Load() {
		<-s.free
	}
	return s.common.Get(ctx, ids...)
}

// Whoever fetches the metrics needs no key, and so makes no work for the store and waits for nothing: whether the server is
// ready is what was last known.
func TestMetricsAskNobody(t *testing.T) {
	st := &stuck{common: &common{Store: memstore.New()}, free: make(chan struct{})}
	s := mustNode(t, st.common, t.TempDir(), func(o *Options) { o.store = st })
	t.Cleanup(func() { close(st.free) }) // before the server closes
	metrics := func() string {
		_, body := ask(s, "GET", "/metrics", "", "")
		return body
	}
	deadline := time.Now().Add(10 * time.Second)
	for !strings.Contains(metrics(), "afterlogin_ready 1\n") { // asked once, behind the start
		if time.Now().After(deadline) {
			t.Fatal("it is not ready")
		}
		runtime.Gosched()
	}
	st.on.Store(true)
	got := make(chan string, 1)
	go func() { got <- metrics() }()
	select {
	case body := <-got:
		if !strings.Contains(body, "afterlogin_ready 1\n") {
			t.Error("what was last known is not there")
		}
	case <-time.After(10 * time.Second):
		t.Error("the metrics wait for the store")
	}
}

// A traceparent that a proxy hands on is a stranger's, although the proxy is believed about addresses: it does not decide
// what is traced, unless somebody says that it does.
func TestTraceparentThroughAProxy(t *testing.T) {
	const theirs = "0af7651916cd43dd8448eb211c80319c"
	id, err := hex.DecodeString(theirs)
	if err != nil {
		t.Fatal(err)
	}
	for name, peers := range map[string][]string{"a stranger's": nil, "a peer's": {"192.0.2.1"}} {
		t.Run(name, func(t *testing.T) {
			var sent atomic.Int64 // batches with that trace
			collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if b, _ := io.ReadAll(r.Body); bytes.Contains(b, id) {
					sent.Add(1)
				}
			}))
			defer collector.Close()
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
			t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
			t.Setenv("OTEL_TRACES_SAMPLER_ARG", "0")
			c := settings(t.TempDir())
			c.BehindProxy, c.Proxies, c.TracingPeers = true, []string{"192.0.2.1"}, peers
			s, _ := open(t, c, false)
			r := httptest.NewRequest("GET", "/livez", nil) // from 192.0.2.1
			r.Host = "127.0.0.1:7070"
			r.Header.Set("X-Forwarded-For", "198.51.100.7")
			r.Header.Set("Traceparent", "00-"+theirs+"-b7ad6b7169203331-01")
			s.Handler().ServeHTTP(httptest.NewRecorder(), r)
			r = httptest.NewRequest("GET", "/metrics", nil)
			r.Host = "127.0.0.1:7070"
			r.Header.Set("Accept", "application/openmetrics-text")
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if traced, want := sent.Load() > 0, peers != nil; traced != want || strings.Contains(w.Body.String(), theirs) != want {
				t.Errorf("traced: %v, as an exemplar: %v", traced, strings.Contains(w.Body.String(), theirs))
			}
		})
	}
}

// Every operation of the API is a route of its own, whoever asks; and whatever strangers ask for makes no series.
func TestRoutes(t *testing.T) {
	s, _ := open(t, settings(t.TempDir()), false)
	defer s.Close()
	var document struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal(s.api.OpenAPI(), &document); err != nil || len(document.Paths) < 20 {
		t.Fatalf("%d paths, %v", len(document.Paths), err)
	}
	fill := regexp.MustCompile(`\{[^}]*\}`)
	for path, methods := range document.Paths {
		for method := range methods {
			ask(s, strings.ToUpper(method), fill.ReplaceAllString(path, "x"), "", "{}")
		}
		ask(s, "PURGE", fill.ReplaceAllString(path, "x"), "", "")
	}
	_, body := ask(s, "GET", "/metrics", "", "")
	for path := range document.Paths {
		if !strings.Contains(body, `route="`+path+`"`) {
			t.Errorf("%s is not a route", path)
		}
	}
	_, before := exposed(t, s)
	junk := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "abcdefghijklmnopqrstuvwxyz0123456789-_./"[rand.IntN(40)]
		}
		return string(b)
	}
	for i := range 3000 {
		r := httptest.NewRequest("GET", "/", nil)
		r.Method = []string{"GET", "POST", strings.ToUpper(strings.Trim(junk(4), "./-_0123456789") + "X")}[i%3]
		r.URL.Path = []string{"/", "/v1/", "/forward-auth/", "/oidc/", "/console/", "/login/", "/.well-known/", "/v1/sessions/", "/oauth/"}[i%9] + junk(1+i%20)
		r.Host = "127.0.0.1:7070"
		r.Header.Set("User-Agent", junk(10))
		s.Handler().ServeHTTP(httptest.NewRecorder(), r)
	}
	_, after := exposed(t, s)
	// A route can be seen with another class of status than before.
	if most := before + 20*30; after > most {
		t.Errorf("%d series after junk, %d before", after, before)
	}
	_, body = ask(s, "GET", "/metrics", "", "")
	routes := make(map[string]bool)
	for _, m := range regexp.MustCompile(`route="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		routes[m[1]] = true
	}
	if len(routes) > len(document.Paths)+30 {
		t.Errorf("%d routes: %s", len(routes), fmt.Sprint(routes))
	}
	t.Logf("%d series before, %d after; %d routes", before, after, len(routes))
}

// A server that cannot start leaves nothing behind that sends traces.
func TestTracesEndWithAFailedStart(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	senders := func() int {
		all := make([]byte, 1<<20)
		return strings.Count(string(all[:runtime.Stack(all, true)]), "sdk/trace.(*batchSpanProcessor).processQueue")
	}
	before := senders()
	c := settings(t.TempDir())
	c.Policies = map[string]afterlogin.Policy{afterlogin.PolicyBrowser: {Idle: -time.Second}} // which the settings would not have let through
	if _, _, err := tryOpen(t, c, false); err == nil {
		t.Fatal("it starts")
	}
	if n := senders(); n != before {
		t.Errorf("%d goroutines send traces, %d did before", n, before)
	}
}
