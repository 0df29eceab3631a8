package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// environ returns an environment of these pairs.
func environ(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func traceID(ctx context.Context) string { return trace.SpanContextFromContext(ctx).TraceID().String() }

// received is what a collector was sent.
type received struct {
	mu     sync.Mutex
	bodies []*tracepb.TracesData
	header http.Header
	path   string
	asked  int
	refuse []int // what to answer first
}

func (c *received) spans() (all []*tracepb.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.bodies {
		for _, r := range b.ResourceSpans {
			for _, s := range r.ScopeSpans {
				all = append(all, s.Spans...)
			}
		}
	}
	return all
}

func (c *received) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out strings.Builder
	for _, b := range c.bodies {
		out.WriteString(prototext.Format(b))
	}
	return out.String()
}

// newCollector starts what takes spans by OTLP over HTTP.
func newCollector(t testing.TB) (*httptest.Server, *received) {
	c := new(received)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked++
		if len(c.refuse) > 0 {
			w.WriteHeader(c.refuse[0])
			c.refuse = c.refuse[1:]
			return
		}
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		b, err := io.ReadAll(body)
		got := new(tracepb.TracesData)
		if err == nil {
			err = proto.Unmarshal(b, got)
		}
		if err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %s: %v", r.Method, r.Header.Get("Content-Type"), err)
		}
		c.bodies, c.header, c.path = append(c.bodies, got), r.Header.Clone(), r.URL.Path
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(s.Close)
	return s, c
}

// Spans of requests and of the store reach a collector, below each other; what nobody should read is not in them.
func TestTraces(t *testing.T) {
	collector, got := newCollector(t)
	var log bytes.Buffer
	tel, err := New(Options{
		Version: "v1.2.3", Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Getenv: environ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL+"/base", "OTEL_EXPORTER_OTLP_HEADERS", "x-key=header%2Dcanary",
			"OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "OTEL_SERVICE_NAME", "login", "OTEL_RESOURCE_ATTRIBUTES", "deployment=blue,service.name=other"),
	})
	if err != nil {
		t.Fatal(err)
	}
	s := memstore.New()
	defer s.Close()
	b := tel.Store(writable{s})
	canaries := []string{"subject-canary", "query-canary", "als_token-canary", "agent-canary", "192.0.2.44", "address-canary", "error-canary", "header-canary"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/subjects/{sub}/sessions", func(w http.ResponseWriter, r *http.Request) {
		b.Get(r.Context(), store.SubjectID(0, r.PathValue("sub")))
		b.Apply(r.Context(), store.SubjectID(0, "x"), store.Put(&store.Record{ID: store.SubjectID(0, "x"), Version: 5}, 4))
		for range b.List(r.Context(), store.Query{Subject: "subject-canary"}) {
		}
		ctx, done := tel.Span(r.Context(), "webhook")
		b.Get(ctx, store.SubjectID(0, "mia"))
		done(errors.New("error-canary"))
		w.WriteHeader(503)
	})
	r := httptest.NewRequest("GET", "/v1/subjects/subject-canary/sessions?q=query-canary", nil)
	r.RemoteAddr = "192.0.2.44:5"
	r.Header.Set("Authorization", "Bearer als_token-canary")
	r.Header.Set("User-Agent", "agent-canary")
	r.Header.Set("X-Forwarded-For", "address-canary")
	r.Header.Set("Tracestate", "x=query-canary")
	r.Header.Set("Baggage", "user=subject-canary")
	serve(tel, mux, r)
	if err := b.Purge(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := tel.Close(); err != nil {
		t.Fatal(err)
	}
	spans := make(map[string]*tracepb.Span)
	for _, s := range got.spans() {
		name := s.Name
		for spans[name] != nil {
			name += "+"
		}
		spans[name] = s
	}
	parent := spans["GET /v1/subjects/{sub}/sessions"]
	if parent == nil {
		t.Fatalf("%s", got.text())
	}
	for _, name := range []string{"store get", "store apply", "store list", "webhook"} {
		if s := spans[name]; s == nil || !bytes.Equal(s.TraceId, parent.TraceId) || name != "store get" && !bytes.Equal(s.ParentSpanId, parent.SpanId) {
			t.Errorf("the span %q is not below the request's: %v", name, s)
		}
	}
	if s := spans["store get+"]; s == nil {
		t.Error("the second read is missing")
	}
	if j := spans["janitor"]; j == nil || len(j.ParentSpanId) != 0 || spans["store purge"] == nil || !bytes.Equal(spans["store purge"].ParentSpanId, j.SpanId) {
		t.Errorf("the janitor: %v", spans)
	}
	if len(spans) != 8 {
		t.Errorf("%d spans: %s", len(spans), got.text())
	}
	if parent.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || spans["webhook"].Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR ||
		spans["store apply"].Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
		t.Error("what failed is not marked, or what did not fail is")
	}
	text := got.text()
	for _, want := range []string{`"http.route"`, `"/v1/subjects/{sub}/sessions"`, `"http.response.status_code"`, `"login"`, `"blue"`, `"v1.2.3"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not there:\n%s", want, text)
		}
	}
	for _, c := range append(canaries, `"other"`) {
		if strings.Contains(text, c) || strings.Contains(log.String(), c) {
			t.Errorf("%s is in the spans or in the log", c)
		}
	}
	if got.header.Get("X-Key") != "header-canary" || got.path != "/base/v1/traces" {
		t.Errorf("%v %s", got.header, got.path)
	}
}

// The trace of a peer goes on; of a stranger's there is a link, and what it says about sampling is not listened to.
func TestWhoseTraceGoesOn(t *testing.T) {
	const theirs = "0af7651916cd43dd8448eb211c80319c"
	for name, c := range map[string]struct {
		remote, parent, sampler string
		spans                   int
		same, linked            bool
	}{
		"a peer":                    {"127.0.0.1:5", "00-" + theirs + "-b7ad6b7169203331-01", "", 1, true, false},
		"a peer that samples not":   {"127.0.0.1:5", "00-" + theirs + "-b7ad6b7169203331-00", "", 0, false, false},
		"a stranger":                {"192.0.2.1:5", "00-" + theirs + "-b7ad6b7169203331-01", "", 1, false, true},
		"a stranger that samples":   {"192.0.2.1:5", "00-" + theirs + "-b7ad6b7169203331-01", "parentbased_always_off", 0, false, false},
		"a stranger that does not":  {"192.0.2.1:5", "00-" + theirs + "-b7ad6b7169203331-00", "", 1, false, true},
		"junk":                      {"127.0.0.1:5", "00-zz", "", 1, false, false},
		"an address that is no one": {"@", "00-" + theirs + "-b7ad6b7169203331-01", "", 1, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.sampler != "" {
				t.Setenv("OTEL_TRACES_SAMPLER", c.sampler)
			}
			collector, got := newCollector(t)
			tel, err := New(Options{Peers: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Getenv: environ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)})
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest("GET", "/livez", nil)
			r.RemoteAddr = c.remote
			r.Header.Set("Traceparent", c.parent)
			serve(tel, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), r)
			if err := tel.Close(); err != nil {
				t.Fatal(err)
			}
			spans := got.spans()
			if len(spans) != c.spans {
				t.Fatalf("%d spans, want %d", len(spans), c.spans)
			}
			if len(spans) == 0 {
				return
			}
			s := spans[0]
			if same := fmt.Sprintf("%x", s.TraceId) == theirs; same != c.same {
				t.Errorf("the same trace: %v", same)
			}
			if linked := len(s.Links) == 1 && fmt.Sprintf("%x", s.Links[0].TraceId) == theirs; linked != c.linked {
				t.Errorf("linked: %v", linked)
			}
		})
	}
}

// Without a word in the environment there are no traces; with a wrong one the server does not start.
func TestWanted(t *testing.T) {
	for _, env := range [][]string{
		nil, {"OTEL_SERVICE_NAME", "x"}, {"OTEL_TRACES_EXPORTER", "none", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://h"},
		{"OTEL_SDK_DISABLED", "true", "OTEL_TRACES_EXPORTER", "otlp"},
	} {
		if tel := open(t, Options{Getenv: environ(env...)}); tel.tracing != nil {
			t.Errorf("%v: there are traces", env)
		}
	}
	for _, env := range [][]string{
		{"OTEL_TRACES_EXPORTER", "zipkin"}, {"OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317"}, {"OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://u:pw-canary@h"},
		{"OTEL_TRACES_EXPORTER", "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}, {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://h", "OTEL_EXPORTER_OTLP_TIMEOUT", "1s"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://h", "OTEL_EXPORTER_OTLP_HEADERS", "pw-canary"}, {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://h", "OTEL_EXPORTER_OTLP_HEADERS", "a=pw-canary%zz"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://h", "OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"}, {"OTEL_EXPORTER_OTLP_ENDPOINT", "http://h", "OTEL_RESOURCE_ATTRIBUTES", "x"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "https://h", "OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem"}, {"OTEL_EXPORTER_OTLP_ENDPOINT", "https://h", "OTEL_EXPORTER_OTLP_CLIENT_KEY", "/nowhere.pem"},
	} {
		_, err := New(Options{Getenv: environ(env...)})
		if err == nil || !strings.Contains(err.Error(), "OTEL_") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%v: %v", env, err)
		}
	}
	c, err := newClient(environ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://h/x", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://other"), slog.New(slog.DiscardHandler))
	if err != nil || c.url != "http://h/x" {
		t.Errorf("%v %v", c, err)
	}
	if c, err = newClient(environ(), slog.New(slog.DiscardHandler)); err != nil || c.url != "http://localhost:4318/v1/traces" {
		t.Errorf("%v %v", c, err)
	}
}

// A collector that is busy is asked again; one that does not want it, or is not there, is not, and nobody waits for it.
func TestSending(t *testing.T) {
	t.Parallel()
	send := func(tel *Telemetry) {
		serve(tel, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), httptest.NewRequest("GET", "/livez", nil))
		if err := tel.Close(); err != nil {
			t.Error(err)
		}
	}
	collector, got := newCollector(t)
	got.refuse = []int{503}
	tel, err := New(Options{Getenv: environ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)})
	if err != nil {
		t.Fatal(err)
	}
	send(tel)
	if len(got.spans()) != 1 || got.asked != 2 || tel.tracing.client.sent.Load() != 1 {
		t.Errorf("%d spans, asked %d times", len(got.spans()), got.asked)
	}
	for _, refuse := range []int{400, 307} {
		collector, got := newCollector(t)
		got.refuse = []int{refuse, refuse}
		var log bytes.Buffer
		tel, err := New(Options{Getenv: environ("OTEL_EXPORTER_OTLP_ENDPOINT", strings.Replace(collector.URL, "://", "://mia:pw-canary@", 1)), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		send(tel)
		if got.asked != 1 || tel.tracing.client.failed.Load() != 1 || strings.Contains(log.String(), "canary") || !strings.Contains(log.String(), "could not be sent") {
			t.Errorf("asked %d times; the log: %s", got.asked, log.String())
		}
	}
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() }))
	defer hangs.Close()
	if tel, err = New(Options{Getenv: environ("OTEL_EXPORTER_OTLP_ENDPOINT", hangs.URL, "OTEL_EXPORTER_OTLP_TIMEOUT", "50")}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	send(tel)
	if took := time.Since(start); took > flushTimeout+time.Second {
		t.Errorf("closing took %v", took)
	}
}

// What is logged in the context of a request that is traced names the trace.
func TestLogHandler(t *testing.T) {
	collector, _ := newCollector(t)
	tel := open(t, Options{Getenv: environ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)})
	var out bytes.Buffer
	log := slog.New(LogHandler(slog.NewTextHandler(&out, nil))).With("a", 1)
	serve(tel, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		log.InfoContext(r.Context(), "within")
		if want := "trace_id=" + traceID(r.Context()); !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "a=1") {
			t.Errorf("%q is not in %s", want, out.String())
		}
	}), httptest.NewRequest("GET", "/livez", nil))
	out.Reset()
	log.Info("without")
	if strings.Contains(out.String(), "trace_id") {
		t.Errorf("%s", out.String())
	}
}

func FuzzKeyValue(f *testing.F) {
	f.Add("a=b")
	f.Add("=")
	f.Add("a=%0d%0ax: y")
	f.Fuzz(func(t *testing.T, pair string) {
		name, value, err := keyValue(pair)
		if err != nil {
			return
		}
		h := http.Header{}
		h.Set(name, value)
		var out bytes.Buffer
		h.Write(&out)
		if n := strings.Count(out.String(), "\r\n"); n != 1 {
			t.Errorf("%q makes %d lines of header: %q", pair, n, out.String())
		}
	})
}
