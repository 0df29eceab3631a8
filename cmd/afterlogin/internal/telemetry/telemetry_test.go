package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/backend"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// open returns a telemetry that the test closes.
func open(t testing.TB, o Options) *Telemetry {
	t.Helper()
	tel, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tel.Close(); err != nil {
			t.Error(err)
		}
	})
	return tel
}

// fetch returns the families, by name.
func fetch(t testing.TB, tel *Telemetry) map[string]*dto.MetricFamily {
	t.Helper()
	all, err := tel.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]*dto.MetricFamily)
	for _, f := range all {
		out[f.GetName()] = f
	}
	return out
}

// series counts those of ours.
func series(t testing.TB, tel *Telemetry) (n int) {
	for name, f := range fetch(t, tel) {
		if strings.HasPrefix(name, "afterlogin_") {
			n += len(f.Metric)
		}
	}
	return n
}

// everything makes all families appear.
func everything(a *afterlogin.Authority) Options {
	return Options{
		Stats:   a.Stats,
		Feed:    func() store.Feed { return store.Feed{Changes: 2, Lag: [12]uint64{1, 1}, LagSum: time.Second} },
		Users:   func() Logins { return Logins{Right: 1, Wrong: 2, Throttled: 3, Busy: 4, Hashes: 5, Waiting: 6} },
		Streams: func() int { return 7 },
		Live:    func() Live { return Live{map[string]int{"session": 8, "a kind of tomorrow": 1}, true} },
		Audit:   func() Audit { return Audit{Lag: time.Second, Failing: true, Entries: 9, Bytes: 10} },
		Webhooks: func() Webhooks {
			return Webhooks{Queued: 11, Dead: 12, Tries: map[string]uint64{"failed": 13, "an outcome of tomorrow": 14}, Lag: time.Minute}
		},
		Ready:   func() bool { return true },
		Version: "v1.2.3",
	}
}

func newAuthority(t testing.TB, s store.Store) *afterlogin.Authority {
	t.Helper()
	a, err := afterlogin.New(afterlogin.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// serve answers one request as a server does.
func serve(tel *Telemetry, next http.Handler, r *http.Request) {
	r, q := tel.Begin(r)
	q.With(r)
	w := httptest.NewRecorder()
	next.ServeHTTP(w, r)
	q.End(w.Code)
}

// Whatever strangers send, no series come of it.
func TestNoLabelExplodes(t *testing.T) {
	s := memstore.New()
	defer s.Close()
	a := newAuthority(t, s)
	tel := open(t, everything(a))
	b := tel.Store(writable{s})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/sessions/{id}", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /v1/validate", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/v1/validate", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(405) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) })
	junk := func(n int) string {
		out := make([]byte, n)
		for i := range out {
			out[i] = "abcdefghijklmnopqrstuvwxyz0123456789/._-~%"[rand.IntN(42)]
		}
		return strings.ReplaceAll(string(out), "%", "%41")
	}
	send := func(method, path string, status int) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Method, r.URL.Path = method, path
		r.Header.Set("User-Agent", junk(20))
		r.Header.Set("Traceparent", "00-"+junk(32)+"-"+junk(16)+"-01")
		if status == 0 {
			serve(tel, mux, r)
			return
		}
		serve(tel, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }), r)
	}
	for i := range 10_000 {
		switch i % 5 {
		case 0:
			send("GET", "/"+junk(1+i%30), 0)
		case 1:
			send(strings.ToUpper(junk(5)), "/v1/sessions/"+junk(10), 0)
		case 2:
			send("GET", []string{"/forward-auth/", "/oidc/", "/console/", "/account/", "/.afterlogin/", "/v1/"}[i/5%6]+junk(8), 200+i%400)
		case 3:
			send("POST", "/v1/validate", 0)
		case 4:
			a.Validate(t.Context(), afterlogin.TokenFrom(junk(88)), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}})
			b.Get(t.Context(), store.SubjectID(0, junk(5)))
			b.Apply(t.Context(), store.SubjectID(0, "x"), store.Put(&store.Record{ID: store.SubjectID(0, "x"), Version: uint64(2 + i)}, uint64(1+i)))
		}
	}
	// Bounded by what the program knows: routes and classes of status, reasons, kinds.
	if n := series(t, tel); n > 200 {
		t.Errorf("%d series", n)
	} else {
		t.Logf("%d series", n)
	}
	for _, m := range fetch(t, tel)["afterlogin_http_seconds"].Metric {
		for _, l := range m.Label {
			if l.GetName() == "route" && !routes[l.GetValue()] && !strings.HasPrefix(l.GetValue(), "/v1/") && !strings.HasSuffix(l.GetValue(), "/*") && l.GetValue() != "other" && l.GetValue() != forwardAuth {
				t.Errorf("a route %q", l.GetValue())
			}
		}
	}
}

// Every family of the table is there if what it is about is, with its type and its labels; and there is no other.
func TestFamilies(t *testing.T) {
	s := memstore.New()
	defer s.Close()
	o := everything(newAuthority(t, s))
	collector, _ := newCollector(t)
	o.Getenv = environ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	tel := open(t, o)
	tel.Store(writable{s}).Get(t.Context(), store.SubjectID(0, "mia"))
	for _, path := range []string{"/v1/validate", "/forward-auth"} {
		r := httptest.NewRequest("GET", path, nil)
		r.Pattern = path
		serve(tel, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), r)
	}
	have := fetch(t, tel)
	for _, f := range Families() {
		got := have[f.Name]
		delete(have, f.Name)
		if got == nil {
			t.Errorf("%s is not there", f.Name)
			continue
		}
		if kind := strings.ToLower(got.GetType().String()); kind != f.Kind || got.GetHelp() != f.Help {
			t.Errorf("%s is a %s: %s", f.Name, kind, got.GetHelp())
		}
		for _, m := range got.Metric {
			var names []string
			for _, l := range m.Label {
				names = append(names, l.GetName())
			}
			if len(names) != len(f.Labels) {
				t.Errorf("%s has the labels %v, want %v", f.Name, names, f.Labels)
			}
		}
	}
	for name := range have {
		if strings.HasPrefix(name, "afterlogin_") {
			t.Errorf("%s is not in the table", name)
		}
	}
	for name, want := range map[string]float64{"afterlogin_event_streams": 7, "afterlogin_webhook_dead_letters": 12, "afterlogin_audit_failing": 1} {
		if got := fetch(t, tel)[name].Metric[0].GetGauge().GetValue(); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	tel.Ask(Options{Streams: func() int { return 70 }, Live: func() Live { return Live{} }})
	if have = fetch(t, tel); have["afterlogin_event_streams"].Metric[0].GetGauge().GetValue() != 70 || have["afterlogin_ready"] == nil || have["afterlogin_sessions_active"] != nil {
		t.Error("what was added does not count, or what was there before does not")
	}
	little := open(t, Options{})
	for name := range fetch(t, little) {
		if strings.HasPrefix(name, "afterlogin_") && name != "afterlogin_build_info" {
			t.Errorf("%s is there, though nothing tells of it", name)
		}
	}
}

func TestForwarded(t *testing.T) {
	tel := open(t, Options{})
	for _, status := range []int{200, 401, 302, 403, 429, 400, 503, 500} {
		serve(tel, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }), httptest.NewRequest("GET", "/forward-auth/nginx", nil))
	}
	got := make(map[string]float64)
	for _, m := range fetch(t, tel)["afterlogin_forward_auth_total"].Metric {
		got[m.Label[0].GetValue()] = m.GetCounter().GetValue()
	}
	if want := map[string]float64{"yes": 1, "sign_in": 2, "no": 1, "limited": 1, "bad": 1, "unavailable": 2}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if _, counts := tel.Latency(); sumOf(counts) != 8 {
		t.Errorf("%v", counts)
	}
}

func sumOf(all []uint64) (n uint64) {
	for _, v := range all {
		n += v
	}
	return n
}

// writable makes a Backend of memstore.
type writable struct{ *memstore.Store }

func (writable) Writable() error { return nil }

// sharing is one that other processes change, too.
type sharing struct {
	writable
	heard atomic.Int64
}

func (s *sharing) Heard(int) time.Time { s.heard.Add(1); return time.Unix(7, 0) }
func (s *sharing) Feed() store.Feed    { return store.Feed{Changes: 8} }

// The timed store offers what the inner one does, says what that says, and counts every call.
func TestStore(t *testing.T) {
	tel := open(t, Options{})
	s := memstore.New()
	if _, ok := tel.Store(writable{s}).(store.Shared); ok {
		t.Error("a store that one process owns is shared when it is timed")
	}
	inner := &sharing{writable: writable{s}}
	b := tel.Store(inner)
	shared, ok := b.(store.Shared)
	if !ok || !shared.Heard(3).Equal(time.Unix(7, 0)) || shared.Feed().Changes != 8 || inner.heard.Load() != 1 {
		t.Error("a shared store is none when it is timed")
	}
	ctx := t.Context()
	id := store.NewRootID(store.BucketOf(0), [14]byte{1}, 0, "mia")
	rec := &store.Record{ID: id, Kind: 's', Subject: "mia", Version: 1}
	if err := b.Apply(ctx, id, store.Put(rec, 0)); err != nil {
		t.Fatal(err)
	}
	if err := b.Apply(ctx, id, store.Put(rec, 0)); !errors.Is(err, store.ErrConflict) {
		t.Fatal(err)
	}
	if got, err := b.Get(ctx, id); err != nil || got[0] == nil {
		t.Fatal(got, err)
	}
	if err := b.Touch(ctx, []store.Touch{{ID: id, At: 1, Gen: 1}}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range b.List(ctx, store.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	for _, err := range b.Scan(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
		break
	}
	wctx, stop := context.WithCancel(ctx)
	if _, err := b.Watch(wctx, ""); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := b.Purge(ctx, 5); err != nil {
		t.Fatal(err)
	}
	if err := b.Load(ctx, []*store.Record{rec}); err != nil {
		t.Fatal(err)
	}
	told := 0
	unhook := b.Notify(func(store.ID) { told++ })
	if err := b.Apply(ctx, id, store.Mark(id, 1, "x")); err != nil || told != 1 {
		t.Errorf("told %d times, %v", told, err)
	}
	unhook()
	if b.Writable() != nil || b.Close() != nil {
		t.Error("it is not the inner one that answers")
	}
	if _, err := b.Get(ctx, id); !errors.Is(err, store.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	got := make(map[string]uint64)
	for _, m := range fetch(t, tel)["afterlogin_store_seconds"].Metric {
		got[m.Label[0].GetValue()+" "+m.Label[1].GetValue()] = m.GetHistogram().GetSampleCount()
	}
	for what, want := range map[string]uint64{
		"apply ok": 2, "apply conflict": 1, "get ok": 1, "get error": 1, "touch ok": 1, "list ok": 1, "scan ok": 1, "watch ok": 1, "purge ok": 1, "load ok": 1,
	} {
		if got[what] != want {
			t.Errorf("%s: %d, want %d", what, got[what], want)
		}
	}
}

// What a caller does with what it is given is not the store's time.
func TestListTakesItsOwnTime(t *testing.T) {
	tel := open(t, Options{})
	s := slow{writable{memstore.New()}}
	defer s.Close()
	synctest.Test(t, func(t *testing.T) {
		for range tel.Store(s).List(t.Context(), store.Query{}) {
			time.Sleep(time.Hour)
		}
	})
	for _, m := range fetch(t, tel)["afterlogin_store_seconds"].Metric {
		if h := m.GetHistogram(); m.Label[0].GetValue() == "list" && (h.GetSampleCount() != 1 || h.GetSampleSum() != 3) {
			t.Errorf("%v", m)
		}
	}
}

// slow yields three records, and takes a second for each.
type slow struct{ writable }

func (slow) List(context.Context, store.Query) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		for range 3 {
			time.Sleep(time.Second)
			if !yield(&store.Record{}, nil) {
				return
			}
		}
	}
}

// The exemplars of a request that is traced carry its trace, for whoever asks for OpenMetrics.
func TestExemplars(t *testing.T) {
	collector, _ := newCollector(t)
	tel := open(t, Options{Getenv: environ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)})
	r := httptest.NewRequest("POST", "/v1/validate", nil)
	r.Pattern = "POST /v1/validate"
	var id string
	serve(tel, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { id = traceID(r.Context()) }), r)
	if len(id) != 32 {
		t.Fatalf("trace %q", id)
	}
	ask := httptest.NewRequest("GET", "/metrics", nil)
	ask.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	w := httptest.NewRecorder()
	tel.ServeHTTP(w, ask)
	text, _ := io.ReadAll(w.Body)
	found := 0
	for line := range strings.Lines(string(text)) {
		if (strings.HasPrefix(line, "afterlogin_validate_seconds_bucket") || strings.HasPrefix(line, "afterlogin_http_seconds_bucket")) && strings.Contains(line, `# {trace_id="`+id+`"}`) {
			found++
		}
	}
	if found != 2 {
		t.Errorf("%d exemplars of trace %s in\n%s", found, id, text)
	}
}

// What a validation costs more that reads the store.
func BenchmarkStore(b *testing.B) {
	s := memstore.New()
	defer s.Close()
	tel := open(b, Options{})
	for name, st := range map[string]backend.Backend{"bare": writable{s}, "timed": tel.Store(writable{s})} {
		b.Run(name, func(b *testing.B) {
			id := store.SubjectID(0, "mia")
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := st.Get(ctx, id); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What a request costs more that is not traced.
func BenchmarkRequest(b *testing.B) {
	tel := open(b, Options{})
	r := httptest.NewRequest("POST", "/v1/validate", nil)
	r.Pattern = "POST /v1/validate"
	b.ReportAllocs()
	for b.Loop() {
		r, q := tel.Begin(r)
		q.With(r)
		q.End(200)
	}
}

var _ prometheus.Collector = collector{}
