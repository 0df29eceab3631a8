package httpauth_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// A request that only watches keeps no session alive, and renews none.
func TestWatching(t *testing.T) {
	s := open(t, httpauth.Options{Watches: func(r *http.Request) bool { return r.URL.Query().Get("live") == "1" }}, nil)
	c := s.signedIn("mia")
	s.want(s.do(c, "GET", "/account", ""), 200, "mia")
	for range 3 {
		s.pass(19 * time.Minute)
		if got := s.do(c, "GET", "/account?live=1", ""); got.StatusCode != 200 || len(got.cookies()) != 0 {
			t.Fatalf("watching: %d, sets %v", got.StatusCode, got.cookies())
		}
	}
	s.pass(4 * time.Minute)
	if got := s.do(c, "GET", "/account", ""); got.StatusCode != 401 {
		t.Errorf("after an hour of watching: %d", got.StatusCode)
	}
}

// However the headers come to be written, the renewed cookie is among them, and only there.
func TestRenewalIsWrittenWithTheHeaders(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page")
	if err := os.WriteFile(file, []byte("page"), 0o600); err != nil {
		t.Fatal(err)
	}
	handlers := map[string]http.HandlerFunc{
		"nothing":     func(w http.ResponseWriter, r *http.Request) {},
		"header only": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) },
		"an error":    func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", 500) },
		"write":       func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("page")) },
		"string":      func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "page") },
		"copy":        func(w http.ResponseWriter, r *http.Request) { io.Copy(w, strings.NewReader("page")) },
		"file":        func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) },
		"redirect":    func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", 303) },
		"flusher":     func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() },
		"controller": func(w http.ResponseWriter, r *http.Request) {
			c := http.NewResponseController(w)
			if err := errors.Join(c.SetReadDeadline(time.Now().Add(time.Minute)), c.SetWriteDeadline(time.Now().Add(time.Minute)), c.Flush()); err != nil {
				panic(err)
			}
		},
		"caching": func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Set("Cache-Control", "public, max-age=31536000")
			h.Set("Expires", "Thu, 01 Jan 2099 00:00:00 GMT")
			h.Set("CDN-Cache-Control", "max-age=600")
			h.Set("Surrogate-Control", "max-age=600")
			h.Add("Set-Cookie", "theme=dark")
			if in, _ := httpauth.Session(r.Context()); in.RenewalDue() { // otherwise it is the handler's business
				h.Add("Set-Cookie", httpauth.CookieName+"=planted; Path=/; Secure")
			}
			h.Set("Vary", "Accept-Encoding")
			io.WriteString(w, "page")
		},
		"early hints": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			io.WriteString(w, "page")
		},
	}
	s := open(t, httpauth.Options{}, nil)
	var handler http.Handler
	s.mux.Handle("/page", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) })))
	for name, h := range handlers {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(name+" "+method, func(t *testing.T) {
				handler = h
				c := s.signedIn("mia")
				old := s.held(c)
				if got := s.do(c, method, "/page", ""); len(got.cookies()) != 0 {
					t.Errorf("a fresh session: sets %v", got.cookies())
				}
				s.pass(16 * time.Minute)
				got := s.do(c, method, "/page", "")
				if len(got.cookies()) != 1 || s.held(c) == old || got.value() == "planted" {
					t.Errorf("got %v, want one renewed cookie", got.Header["Set-Cookie"])
				}
				if !strings.HasPrefix(got.Header.Get("Cache-Control"), "no-store") {
					t.Errorf("Cache-Control: %q", got.Header.Get("Cache-Control"))
				}
				for _, h := range []string{"Expires", "Cdn-Cache-Control", "Surrogate-Control"} {
					if got.Header.Get(h) != "" {
						t.Errorf("%s: %q", h, got.Header.Get(h))
					}
				}
				if vary := strings.Join(got.Header["Vary"], ", "); !strings.Contains(vary, "Cookie") || name == "caching" && !strings.Contains(vary, "Accept-Encoding") {
					t.Errorf("Vary: %q", vary)
				}
				if name == "caching" && !strings.Contains(strings.Join(got.Header["Set-Cookie"], "\n"), "theme=dark") {
					t.Error("the handler's own cookie is gone")
				}
				if got := s.do(c, method, "/page", ""); got.StatusCode == 401 || len(got.cookies()) != 0 {
					t.Errorf("the request after: %d, sets %v", got.StatusCode, got.cookies())
				}
			})
		}
	}
}

func TestInformationalAnswersCarryNoCookie(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	s.mux.Handle("/page", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	})))
	c := s.signedIn("mia")
	s.pass(16 * time.Minute)
	hints := 0
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hints++
		if h.Get("Set-Cookie") != "" {
			t.Errorf("%d sets a cookie", code)
		}
		return nil
	}})
	r, _ := http.NewRequestWithContext(ctx, "GET", s.URL+"/page", nil)
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if hints != 1 || len(resp.Header["Set-Cookie"]) != 1 {
		t.Errorf("%d hints, then %v", hints, resp.Header["Set-Cookie"])
	}
}

// Some requests are not renewed: their answers may never reach the cookie jar, or reach a cache.
func TestNoRenewal(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	s.mux.Handle("/304", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(304) })))
	s.mux.Handle("/hijack", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
		conn.Close()
	})))
	tests := []struct{ path, header string }{
		{"/account", "Sec-Purpose: prefetch"},
		{"/account", "Sec-Purpose: prefetch;prerender"},
		{"/account", "Purpose: prefetch"},
		{"/account", "X-Moz: prefetch"},
		{"/account", "X-Purpose: preview"},
		{"/account", "Range: bytes=0-3"},
		{"/account", "Upgrade: websocket"},
		{"/304", "Accept: */*"},
		{"/hijack", "Accept: */*"},
	}
	for _, tt := range tests {
		t.Run(tt.path+" "+tt.header, func(t *testing.T) {
			c := s.signedIn("mia")
			s.pass(16 * time.Minute)
			got := s.do(c, "GET", tt.path, "", tt.header)
			if got.StatusCode >= 400 || len(got.cookies()) != 0 {
				t.Errorf("%d, sets %v", got.StatusCode, got.cookies())
			}
			if in, why := s.check(s.held(c)); in == nil || in.Generation != 1 {
				t.Errorf("generation: %+v, %s; want it not renewed", in, why)
			}
			if got := s.do(c, "GET", "/account", ""); len(got.cookies()) != 1 {
				t.Errorf("the next answer: sets %v, want the renewed cookie", got.cookies())
			}
		})
	}
	t.Run("bearer", func(t *testing.T) {
		in := s.issue(afterlogin.IssueRequest{Subject: "mia"})
		s.pass(16 * time.Minute)
		got := s.do(s.anybody(), "GET", "/account", "", "Authorization: Bearer "+in.Token.Reveal())
		if got.StatusCode != 200 || len(got.cookies()) != 0 {
			t.Errorf("%d, sets %v", got.StatusCode, got.cookies())
		}
	})
}

// A token whose renewal got lost is good once more in a cookie; a path that cannot set it answers 401 renew.
func TestLostAnswer(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	c := s.signedIn("mia")
	first := s.held(c)
	s.pass(16 * time.Minute)
	s.do(s.anybody(), "GET", "/account", "", s.cookie(first)) // nobody keeps the cookie of this answer
	s.pass(5 * time.Minute)

	got := s.do(s.anybody(), "GET", "/account", "", "Authorization: Bearer "+first)
	if got.StatusCode != 401 || problemOf(t, got) != "renew" {
		t.Errorf("as a bearer: %d %s, want 401 renew", got.StatusCode, got.body)
	}
	got = s.do(s.anybody(), "GET", "/account", "", s.cookie(first), "Sec-Purpose: prefetch")
	if got.StatusCode != 401 || len(got.cookies()) != 0 {
		t.Errorf("as a prefetch: %d, sets %v", got.StatusCode, got.cookies())
	}
	// Where it cannot be renewed, no anonymous session takes its place.
	got = s.do(s.anybody(), "POST", "/cart", "item=tea", s.cookie(first), "Range: bytes=0-")
	if got.StatusCode != 401 || len(got.cookies()) != 0 {
		t.Errorf("data on a Range request: %d, sets %v", got.StatusCode, got.cookies())
	}
	got = s.do(c, "GET", "/account", "")
	if s.want(got, 200, "mia"); len(got.cookies()) != 1 {
		t.Errorf("sets %v, want the cookie renewed", got.cookies())
	}
	s.want(s.do(c, "GET", "/account", ""), 200, "mia")
}

func TestParallelRequestsAcrossARenewal(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	c := s.signedIn("mia")
	old := s.held(c)
	s.pass(16 * time.Minute)
	var wg sync.WaitGroup
	var mu sync.Mutex
	values := make(map[string]int)
	for range 20 {
		wg.Go(func() {
			got, err := s.try(s.anybody(), "GET", "/account", "", s.cookie(old))
			if err != nil || got.StatusCode != 200 {
				t.Errorf("%v %v", got.Response, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			values[got.value()]++
		})
	}
	wg.Wait()
	delete(values, "")
	if len(values) != 1 {
		t.Errorf("%d different new cookies, want 1", len(values))
	}
	for v := range values {
		s.want(s.do(s.anybody(), "GET", "/account", "", s.cookie(v)), 200, "mia")
	}
}

// A slow answer does not put an older cookie back, nor end the session that has gone on without it.
func TestSlowAnswer(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	arrived, release := make(chan bool), make(chan bool)
	s.mux.Handle("/slow", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- true
		<-release
		io.WriteString(w, "at last")
	})))
	c := s.signedIn("mia")
	first := s.held(c)
	s.pass(16 * time.Minute) // due: the slow answer would carry a new cookie
	slow := make(chan answer)
	go func() { slow <- s.do(s.anybody(), "GET", "/slow", "", s.cookie(first)) }()
	<-arrived
	for range 3 {
		s.do(c, "GET", "/account", "") // renews, and uses it
		s.do(c, "GET", "/account", "")
		s.pass(16 * time.Minute)
	}
	newest := s.held(c)
	release <- true
	got := <-slow
	if s.want(got, 200, "at last"); len(got.cookies()) != 0 {
		t.Errorf("the slow answer sets %v", got.cookies())
	}
	if s.want(s.do(c, "GET", "/account", ""), 200, "mia"); newest == first {
		t.Error("it was never renewed")
	}
}

// A store that hangs holds an answer up for a bounded time, and then it goes out without the cookie.
func TestHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &faultyStore{Store: memstore.New()}
		a, err := afterlogin.New(afterlogin.Config{Store: st})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		x, err := httpauth.New(a, httpauth.Options{})
		if err != nil {
			t.Fatal(err)
		}
		in, err := a.Issue(t.Context(), afterlogin.IssueRequest{Subject: "mia"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(16 * time.Minute)
		ask := func() *httptest.ResponseRecorder {
			w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Cookie", httpauth.CookieName+"="+in.Token.Reveal())
			x.Require(http.HandlerFunc(page)).ServeHTTP(w, r)
			return w
		}
		st.fault.Store(writesHang)
		began := time.Now()
		if w := ask(); w.Code != 200 || len(w.Header()["Set-Cookie"]) != 0 {
			t.Errorf("%d, sets %v", w.Code, w.Header()["Set-Cookie"])
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("the answer took %v", d)
		}
		st.fault.Store(healthy)
		if w := ask(); w.Code != 200 || len(w.Header()["Set-Cookie"]) != 1 {
			t.Errorf("the next: %d, sets %v", w.Code, w.Header()["Set-Cookie"])
		}
	})
}

// HTTP/2 sends cookies in pieces, and has no connection to take over.
func TestHTTP2(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	s.mux.Handle("/events", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if _, _, err := c.Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack: %v", err)
		}
		if err := errors.Join(c.SetWriteDeadline(time.Now().Add(time.Minute)), c.Flush()); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, r.Proto)
	})))
	s.Server = httptest.NewUnstartedServer(s.mux)
	s.Server.EnableHTTP2 = true
	s.Server.StartTLS()
	defer s.Server.Close()
	c := s.signedIn("mia")
	old := s.held(c)
	s.pass(16 * time.Minute)
	got := s.do(c, "GET", "/events", "", "Cookie: a=1; b=2")
	if s.want(got, 200, "HTTP/2.0"); got.value() == "" || got.value() == old {
		t.Errorf("sets %v", got.cookies())
	}
	s.want(s.do(s.anybody(), "GET", "/account", "", s.cookie(old)+"; a=1; "+s.name()+"=x"), 401, "two credentials")
}

func TestStream(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	release := make(chan bool)
	s.mux.Handle("/events", s.auth.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		if err := c.EnableFullDuplex(); err != nil && r.ProtoMajor == 1 {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			if err := c.Flush(); err != nil {
				t.Error(err)
			}
			<-release
		}
	})))
	c := s.signedIn("mia")
	s.pass(16 * time.Minute)
	r, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/events", nil)
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if len(resp.Header["Set-Cookie"]) != 1 {
		t.Errorf("the stream's headers set %v", resp.Header["Set-Cookie"])
	}
	lines := bufio.NewReader(resp.Body)
	for i := range 3 {
		line, err := lines.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Errorf("%q %v", line, err)
		}
		lines.ReadString('\n')
		if i == 0 { // the new cookie is in the jar while the stream goes on
			if got := s.do(c, "GET", "/account", ""); got.StatusCode != 200 || len(got.cookies()) != 0 {
				t.Errorf("beside the stream: %d, sets %v", got.StatusCode, got.cookies())
			}
		}
		release <- true
	}
}

func TestPanic(t *testing.T) {
	s := open(t, httpauth.Options{}, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				switch p := recover(); p {
				case nil:
				case http.ErrAbortHandler:
					panic(p)
				default:
					http.Error(w, "sorry", 500)
				}
			}()
			next.ServeHTTP(w, r)
		})
	})
	s.mux.Handle("/panic", s.auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic("oh") })))
	s.mux.Handle("/abort", s.auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })))
	s.mux.Handle("POST /panic-sign-in", s.auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.signIn(w, r)
		panic("oh")
	})))
	c := s.signedIn("mia")
	s.pass(16 * time.Minute)
	if got := s.do(c, "GET", "/panic", ""); got.StatusCode != 500 || len(got.cookies()) != 0 {
		t.Errorf("panic: %d, sets %v", got.StatusCode, got.cookies())
	}
	if _, err := s.try(c, "GET", "/abort", ""); err == nil {
		t.Error("http.ErrAbortHandler was swallowed")
	}
	s.want(s.do(c, "GET", "/account", ""), 200, "mia")
	// The session was made: whoever answers for the panic hands out its cookie.
	c = s.browser()
	s.want(s.do(c, "POST", "/panic-sign-in", "name=tom"), 500, "sorry")
	s.want(s.do(c, "GET", "/account", ""), 200, "tom")
}

// A cookie that cannot be set any more is not set, and the session that it was for does not stay behind.
func TestHeadersWritten(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	errs := make(chan error, 3)
	s.mux.Handle("POST /late", s.auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "too early")
		_, err := s.auth.SignIn(w, r, httpauth.SignIn{Subject: "mia"})
		errs <- err
		_, err = s.auth.StepUp(w, r, afterlogin.Authentication{})
		errs <- err
		errs <- s.auth.UpdateData(w, r, func(d *afterlogin.Data) error { return d.Set("a", 1) })
	})))
	s.do(s.anybody(), "POST", "/late", "")
	for range 3 {
		if err := <-errs; !errors.Is(err, httpauth.ErrHeadersWritten) {
			t.Errorf("got %v, want ErrHeadersWritten", err)
		}
	}

	// As http.TimeoutHandler does, but at the worst moment: while the session is being written.
	s.store.gate = make(chan bool)
	result := make(chan error, 1)
	timeout := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.store.fault.Store(writesGated)
			go next.ServeHTTP(httptest.NewRecorder(), r.WithContext(context.WithoutCancel(r.Context())))
			<-s.store.gate
			http.Error(w, "too slow", 503)
			s.store.gate <- true
		})
	}
	s.mux.Handle("POST /timeout", s.auth.Optional(timeout(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := s.auth.SignIn(w, r, httpauth.SignIn{Subject: "mia"})
		result <- err
	}))))
	s.want(s.do(s.anybody(), "POST", "/timeout", ""), 503, "too slow")
	if err := <-result; !errors.Is(err, httpauth.ErrHeadersWritten) {
		t.Errorf("got %v, want ErrHeadersWritten", err)
	}
	for in, err := range s.a.Sessions(t.Context(), afterlogin.Query{Subject: "mia"}) {
		t.Errorf("a session nobody holds stayed behind: %v %v", in, err)
	}
}

// Two applications on one host, one inside the other, each with its cookie.
func TestTwoAuths(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	console, err := httpauth.New(s.a, httpauth.Options{CookieName: "__Host-Http-console"})
	if err != nil {
		t.Fatal(err)
	}
	s.mux.Handle("POST /console/sign-in", s.auth.Optional(console.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := console.SignIn(w, r, httpauth.SignIn{Subject: "root", Policy: afterlogin.PolicyConsole}); err != nil {
			t.Error(err)
		}
		s.signIn(w, r)
	}))))
	s.mux.Handle("/console/", s.auth.Optional(console.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, _ := httpauth.Session(r.Context()) // of the innermost
		fmt.Fprint(w, in.Subject, s.auth.CSRFToken(r) != console.CSRFToken(r))
	}))))
	c := s.browser()
	got := s.do(c, "POST", "/console/sign-in", "name=mia")
	if len(got.Header["Set-Cookie"]) != 2 {
		t.Errorf("sets %v", got.Header["Set-Cookie"])
	}
	s.want(s.do(c, "GET", "/console/", ""), 200, "roottrue")
	s.want(s.do(c, "GET", "/account", ""), 200, "mia")
	s.pass(16 * time.Minute / 2)
	if got := s.do(c, "GET", "/console/", ""); len(got.Header["Set-Cookie"]) != 1 || !strings.HasPrefix(got.Header["Set-Cookie"][0], "__Host-Http-console=") {
		t.Errorf("after 8 minutes: sets %v, want the console's only", got.Header["Set-Cookie"])
	}
}

func TestRequireInsideOptional(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	s.mux.Handle("/in/", s.auth.Optional(http.StripPrefix("/in", s.mux)))
	c := s.signedIn("mia")
	gets := s.store.gets.Load()
	s.want(s.do(c, "GET", "/in/account", ""), 200, "mia")
	if n := s.store.gets.Load() - gets; n > 2 {
		t.Errorf("%d reads of the store: validated twice", n)
	}
	s.want(s.do(s.anybody(), "GET", "/in/account", ""), 401, "")
	s.want(s.do(s.anybody(), "GET", "/in/account", "", s.cookie("junk")), 401, "")
	s.pass(10 * time.Minute)
	s.want(s.do(c, "GET", "/in/danger", ""), 401, "too long ago")
	s.want(s.do(c, "GET", "/in/api", ""), 403, "may not")
	s.want(s.do(c, "GET", "/in/machines", ""), 401, "")
	key := s.issue(afterlogin.IssueRequest{Subject: "robot", Kind: afterlogin.KindAPIKey, Scopes: []string{"orders:read"}}).Token.Reveal()
	s.want(s.do(s.anybody(), "GET", "/in/api", "", "X-API-Key: "+key), 200, "robot")
	s.want(s.do(s.anybody(), "POST", "/in/api", "", "X-API-Key: "+key, "Sec-Fetch-Site: cross-site"), 200, "robot")
	s.want(s.do(s.anybody(), "GET", "/in/machines", "", "Authorization: Bearer "+key), 200, "robot")
	s.want(s.do(c, "GET", "/in/api", "", "X-API-Key: "+key), 401, "two credentials")
	s.want(s.do(c, "GET", "/in/machines", "", "X-API-Key: "+key), 200, "robot")
	s.pass(6 * time.Minute)
	if got := s.do(c, "GET", "/in/account", ""); got.StatusCode != 200 || len(got.cookies()) != 1 {
		t.Errorf("%d, sets %v, want the renewed cookie", got.StatusCode, got.cookies())
	}
}

func TestCachingHeaders(t *testing.T) {
	s := open(t, httpauth.Options{}, nil)
	s.mux.Handle("/public", s.auth.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
	})))
	c := s.signedIn("mia")
	tests := []struct {
		client       *http.Client
		path, header string
		want, vary   string
	}{
		{s.anybody(), "/", "", "", "Authorization, Cookie"},
		{c, "/", "", "private, no-cache", "Authorization, Cookie"},
		{c, "/public", "", "public, max-age=60", "Authorization, Cookie"},
		{s.anybody(), "/account", "", "no-store", "Authorization, Cookie"},
		{s.anybody(), "/api", "", "no-store", "Authorization, Cookie, X-Api-Key"},
	}
	for _, tt := range tests {
		got := s.do(tt.client, "GET", tt.path, "")
		if h := got.Header; h.Get("Cache-Control") != tt.want || h.Get("Vary") != tt.vary {
			t.Errorf("%s: Cache-Control %q, Vary %q; want %q, %q", tt.path, h.Get("Cache-Control"), h.Get("Vary"), tt.want, tt.vary)
		}
	}
}
