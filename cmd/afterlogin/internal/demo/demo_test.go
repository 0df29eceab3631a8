package demo

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
)

// start runs a demo for the test.
func start(t *testing.T, c Config) *Demo {
	t.Helper()
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	d, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return d
}

// fast is a clock that runs so many times as fast as the wall's.
func fast(times int) func() time.Time {
	began := time.Now()
	return func() time.Time { return began.Add(time.Since(began) * time.Duration(times)) }
}

// visitor returns a browser for the demo, whose connections end with the test.
func visitor(t *testing.T, d *Demo, userAgent string) *browser {
	b := &browser{client: newClient(netip.Addr{}), base: d.loopbackURL(), userAgent: userAgent}
	t.Cleanup(b.client.CloseIdleConnections)
	return b
}

// get and post fail the test if there is no answer.
func get(t *testing.T, b *browser, path string) answer {
	t.Helper()
	a, err := b.get(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func post(t *testing.T, b *browser, path string, form url.Values) answer {
	t.Helper()
	a, err := b.post(t.Context(), path, form)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// signIn signs in and fails the test if that fails.
func signIn(t *testing.T, b *browser, user string) answer {
	t.Helper()
	get(t, b, "/sign-in")
	a := post(t, b, "/sign-in", url.Values{"user": {user}, "password": {"demo"}, "return_to": {"/cart"}})
	if a.Status != http.StatusOK || a.path != "/cart" || !strings.Contains(a.body, "<strong data-name>"+capital(user)) {
		t.Fatalf("sign-in as %s: %d at %s", user, a.Status, a.path)
	}
	return a
}

// token is what no log and no output may hold.
var token = regexp.MustCompile(`al[a-z]_[A-Za-z0-9_-]{84}`)

// TestAuto plays the whole story; see story.steps for what it checks.
func TestAuto(t *testing.T) {
	t.Parallel()
	var out, log bytes.Buffer
	held, err := Auto(t.Context(), &out, Config{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil || !held || strings.Contains(out.String(), "FAILED") {
		t.Errorf("the story does not hold: %v\n%s", err, &out)
	}
	if token.Match(out.Bytes()) || token.Match(log.Bytes()) {
		t.Error("a token stands in the output or in the log")
	}
}

// TestAutoTells checks that a story which does not hold is not reported as one that does.
func TestAutoTells(t *testing.T) {
	t.Parallel()
	d := start(t, Config{})
	var out strings.Builder
	s := &story{out: &out, demo: d}
	s.mia = s.visitor(laptopAgent)
	s.play(t.Context(), step{"it was never put in", s.oldCookieRefused})
	if s.failed != 1 || !strings.HasPrefix(out.String(), "FAILED") {
		t.Errorf("a step that does not hold says %q", &out)
	}
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		addr string
		want error
	}{
		{"0.0.0.0:0", ErrNotLoopback},
		{":0", ErrNotLoopback},
		{"192.0.2.1:80", ErrNotLoopback},
		{"example.com:80", ErrNotLoopback},
		{"[::]:0", ErrNotLoopback},
		{"127.0.0.1", ErrBadAddr},
		{"127.0.0.1:http", ErrBadAddr},
		{"127.0.0.1:65536", ErrBadAddr},
		{"127.0.0.1:-1", ErrBadAddr},
	} {
		if d, err := Start(Config{Addr: tt.addr}); !errors.Is(err, tt.want) {
			t.Errorf("Start at %q: %v, want %v", tt.addr, err, tt.want)
			if err == nil {
				d.Close()
			}
		}
	}
}

// TestPortTaken checks that a demo takes another port only when it may, and leaves nothing behind when it may not.
func TestPortTaken(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	first := start(t, Config{})
	addr := fmt.Sprintf("127.0.0.1:%d", first.Port())
	if d, err := Start(Config{Addr: addr}); err == nil {
		d.Close()
		t.Error("two demos have one port")
	}
	second := start(t, Config{Addr: addr, AnyPort: true})
	if second.Port() == first.Port() {
		t.Error("two demos have one port")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("%d directories for two demos (%v)", len(left), err)
	}
}

// TestClosed checks that nothing is left of a demo that ran in a temporary directory.
func TestClosed(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	d, err := Start(Config{Addr: "127.0.0.1:0", StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	b := visitor(t, d, laptopAgent)
	signIn(t, b, "mia")
	if err := Steal(t.Context(), state, &strings.Builder{}); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.Data()); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", d.Data(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(state, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := Steal(t.Context(), state, &strings.Builder{}); !errors.Is(err, ErrNoDemo) {
		t.Errorf("Steal from a demo that has ended: %v", err)
	}
}

// TestKept checks that with a directory of its own the demo comes back as it was: cookies, carts and orders.
func TestKept(t *testing.T) {
	t.Parallel()
	c := Config{Addr: "127.0.0.1:0", Data: filepath.Join(t.TempDir(), "kept")}
	first, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	mia := visitor(t, first, laptopAgent)
	post(t, mia, "/cart/items", url.Values{"product": {"kettle"}})
	signIn(t, mia, "mia")
	get(t, mia, "/checkout")
	post(t, mia, "/checkout", nil)
	post(t, mia, "/cart/items", url.Values{"product": {"cup"}})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	mia.base = start(t, c).loopbackURL()
	if a := get(t, mia, "/cart"); a.Status != http.StatusOK || lines(a) != 1 {
		t.Errorf("after the restart the cart is answered %d %s, with %d kinds of things", a.Status, a.Reason, lines(a))
	}
	if a := get(t, mia, "/orders"); !strings.Contains(a.body, `data-order="1001"`) || !strings.Contains(a.body, "Gooseneck kettle") {
		t.Errorf("after the restart the order is gone: %d", a.Status)
	}
	for _, name := range []string{"orders.json", "keys.json", "master.key"} {
		if info, err := os.Stat(filepath.Join(c.Data, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, info, err)
		}
	}
}

func TestBadOrders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "orders.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Start(Config{Addr: "127.0.0.1:0", Data: dir})
	if err == nil {
		d.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "orders.json") {
		t.Errorf("Start with a broken file: %v, want an error that names it", err)
	}
}

// TestUnavailable has the store fail under the shop: the answer is 503 and no word about being signed out, and the
// cookie stays.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	var mu sync.Mutex
	d, err := Start(Config{Addr: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(b)
	}), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() }) // which complains that the store is closed already
	mia := visitor(t, d, laptopAgent)
	signIn(t, mia, "mia")
	cookie := mia.cookie
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/cart", "/account/sessions", "/orders"} {
		a := get(t, mia, path)
		if a.Status != http.StatusServiceUnavailable || a.Reason != "" || a.line != "" {
			t.Errorf("%s: %d %s, want 503 and no cookie", path, a.Status, a.Reason)
		}
		if a.header.Get("Retry-After") == "" || !strings.Contains(a.body, "Nothing is lost") {
			t.Errorf("%s: 503 without Retry-After, or without a word", path)
		}
	}
	if a := post(t, mia, "/sign-out", nil); a.Status != http.StatusServiceUnavailable || mia.cookie != cookie {
		t.Errorf("sign-out: %d, cookie kept: %v; want 503 and the cookie", a.Status, mia.cookie == cookie)
	}
	if a := post(t, mia, "/cart/items", url.Values{"product": {"cup"}}); a.Status != http.StatusServiceUnavailable {
		t.Errorf("adding to the cart: %d, want 503", a.Status)
	}
	stranger := visitor(t, d, laptopAgent)
	stranger.cookie = strings.Repeat("x", 20)
	if a := get(t, stranger, "/"); a.Status != http.StatusOK {
		t.Errorf("junk needs no store, and was answered %d", a.Status)
	}
	mu.Lock()
	defer mu.Unlock()
	if token.Match(log.Bytes()) {
		t.Error("a token stands in the log")
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestThief plays the thief against a shopper who is played too, on a clock that runs ten times as fast.
func TestThief(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		greedy bool
		want   []string
	}{
		{"patient", false, []string{
			"200  works: nobody has renewed since",
			"mia loads a page: her token is renewed to generation 2",
			"401  reused",
			"is revoked: generation 1 was used after generation 2",
			"GET /cart as mia, with her newest cookie     401  revoked",
			"an out-of-date copy of it was used",
			"a new session; the cart holds 2 things",
		}},
		{"greedy", true, []string{
			"200  he came first: the renewed token, generation 2, is his",
			"mia loads a page with her old token, and that gives him away",
			"401  revoked",
			"a new session; the cart holds 2 things",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			state := t.TempDir()
			start(t, Config{StateDir: state, Now: fast(10)})
			var out strings.Builder
			p := Replay{StateDir: state, Out: &out, Every: 50 * time.Millisecond, Within: time.Minute, Greedy: tt.greedy, Shop: true}
			thrownOut, err := p.Run(t.Context())
			if err != nil || !thrownOut {
				t.Fatalf("Run = %v, %v\n%s", thrownOut, err, &out)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the timeline lacks %q:\n%s", want, &out)
				}
			}
			if token.MatchString(out.String()) {
				t.Error("a token stands in the timeline")
			}
		})
	}
}

// TestStealAndReplay plays the thief against a browser that does nothing at first: he stays in, which must not be
// reported as thrown out; then the browser goes on, and he is.
func TestStealAndReplay(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	var out strings.Builder
	replay := Replay{StateDir: state, Out: &out, Every: 20 * time.Millisecond, Within: time.Second}
	if _, err := replay.Run(t.Context()); !errors.Is(err, ErrNoDemo) {
		t.Errorf("Replay without a demo: %v", err)
	}
	if err := Steal(t.Context(), state, &out); !errors.Is(err, ErrNoDemo) {
		t.Errorf("Steal without a demo: %v", err)
	}
	d := start(t, Config{StateDir: state, Now: fast(10)})
	if err := Steal(t.Context(), state, &out); !errors.Is(err, ErrNobody) || !strings.Contains(err.Error(), "http://localhost:") {
		t.Errorf("Steal from nobody: %v", err)
	}
	if _, err := replay.Run(t.Context()); !errors.Is(err, ErrNothingStolen) {
		t.Errorf("Replay of nothing: %v", err)
	}
	mia := visitor(t, d, laptopAgent)
	signIn(t, mia, "mia")
	out.Reset()
	if err := Steal(t.Context(), state, &out); err != nil {
		t.Fatal(err)
	}
	if want := "stolen  als_…[token] (generation 1 of ses_"; !strings.HasPrefix(out.String(), want) || !strings.Contains(out.String(), "mia, Firefox on Linux") || token.MatchString(out.String()) {
		t.Errorf("Steal prints %q", &out)
	}
	for _, name := range []string{controlFile, stolenFile} {
		if info, err := os.Stat(filepath.Join(state, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v; want mode 0600", name, err)
		}
	}
	thrownOut, err := replay.Run(t.Context())
	if err != nil || thrownOut || !strings.Contains(out.String(), "the thief is still in after 1 second") {
		t.Fatalf("with nobody at the browser: %v, %v\n%s", thrownOut, err, &out)
	}

	out.Reset()
	replay.Within = time.Minute
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // she shops on
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				if _, err := mia.get(t.Context(), "/"); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	thrownOut, err = replay.Run(t.Context())
	close(done)
	wg.Wait()
	if err != nil || !thrownOut || !strings.Contains(out.String(), "GET /cart as mia, with her newest cookie     401  revoked") {
		t.Fatalf("with mia shopping on: %v, %v\n%s", thrownOut, err, &out)
	}
	if token.MatchString(out.String()) {
		t.Error("a token stands in the timeline")
	}

	start(t, Config{StateDir: state})
	if _, err := replay.Run(t.Context()); !errors.Is(err, ErrNothingStolen) {
		t.Errorf("Replay of a copy from another demo: %v", err)
	}
	if err := os.Chmod(filepath.Join(state, controlFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Steal(t.Context(), state, &out); err == nil || !strings.Contains(err.Error(), "can be read by others") {
		t.Errorf("Steal with a file that others can read: %v", err)
	}
}

// TestControl checks that nobody gets a cookie from the control endpoint without its secret.
func TestControl(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	d := start(t, Config{StateDir: state})
	mia := visitor(t, d, laptopAgent)
	signIn(t, mia, "mia")
	ask := func(d *Demo, path, authorization string) answer {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, strings.TrimSuffix(d.loopbackURL(), "/")+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		r.AddCookie(&http.Cookie{Name: httpauth.PlainCookieName, Value: mia.cookie})
		a, err := read(mia.client, r)
		if err != nil {
			t.Fatal(err)
		}
		if path != controlPath+"steal" && strings.Contains(a.body, mia.cookie) {
			t.Errorf("%s answers with the cookie", path)
		}
		return a
	}
	for _, authorization := range []string{"", "Bearer", "Bearer ", "Bearer x", d.control.addr.Secret, "Basic " + d.control.addr.Secret} {
		if a := ask(d, controlPath+"steal", authorization); a.Status != http.StatusForbidden || strings.Contains(a.body, mia.cookie) {
			t.Errorf("Authorization %.10q: %d", authorization, a.Status)
		}
	}
	if a := ask(d, controlPath+"nothing", "Bearer "+d.control.addr.Secret); a.Status != http.StatusNotFound {
		t.Errorf("an unknown verb: %d", a.Status)
	}
	if a := ask(d, controlPath+"shopper?session=ses_x", "Bearer "+d.control.addr.Secret); a.Status != http.StatusConflict {
		t.Errorf("an unknown shopper: %d", a.Status)
	}
	if a := ask(d, controlPath+"steal", "Bearer "+d.control.addr.Secret); a.Status != http.StatusOK || !strings.Contains(a.body, mia.cookie) {
		t.Errorf("with the secret: %d", a.Status)
	}
	if a := ask(start(t, Config{}), controlPath+"steal", ""); a.Status != http.StatusNotFound {
		t.Errorf("a demo without a thief: %d", a.Status)
	}
	if n := kept(d); n != 1 {
		t.Errorf("%d cookies are kept, want that of mia alone", n)
	}
}

// kept is how many cookies the demo keeps.
func kept(d *Demo) int {
	d.control.seen.mu.Lock()
	defer d.control.seen.mu.Unlock()
	return len(d.control.seen.latest)
}

// TestSightingsBounded checks that the demo does not keep the cookie of everybody who ever came.
func TestSightingsBounded(t *testing.T) {
	t.Parallel()
	d := start(t, Config{StateDir: t.TempDir()})
	var last *browser
	for range maxSightings + 3 {
		last = visitor(t, d, laptopAgent)
		signIn(t, last, "tom")
	}
	if n := kept(d); n != maxSightings {
		t.Errorf("%d cookies are kept, want %d", n, maxSightings)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := d.control.newest(r); !ok || s.token != last.cookie || s.session.Subject != "tom" {
		t.Error("the newest cookie is not that of the last sign-in")
	}
}

// TestEventsBounded checks that the log of events keeps the newest ones only.
func TestEventsBounded(t *testing.T) {
	t.Parallel()
	l := newEventLog()
	for range keptEvents + 10 {
		l.add(afterlogin.Event{Type: afterlogin.EventRenewed, Session: "ses_a"})
	}
	events, last := l.of("ses_a", 0)
	if len(events) != keptEvents || last != keptEvents+10 || events[0].Seq != 11 || events[len(events)-1].Seq != last {
		t.Errorf("%d events from %d to %d, last %d", len(events), events[0].Seq, events[len(events)-1].Seq, last)
	}
}
