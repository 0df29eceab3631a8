package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alexedwards/scs/v2"
	scsmem "github.com/alexedwards/scs/v2/memstore"
	"github.com/gorilla/sessions"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/memstore"
)

const (
	httpRound       = time.Second
	httpConnections = 64
	httpSessions    = 10_000
)

func httpComparisons() []comparison {
	against := func(name, what string, target float64, reference func(http.Handler) (http.Handler, []string, error)) comparison {
		return comparison{
			name: "http/" + name, target: target,
			what: "a request through httpauth.Require, against " + what,
			set: func() (func() (float64, error), func() (float64, error), func(), error) {
				return setHTTP(reference)
			},
		}
	}
	return []comparison{
		against("net-http", "net/http answering the same bytes without us", 0.8, bare),
		against("scs", "alexedwards/scs with its memstore", 1.7, withSCS),
		against("gorilla", "gorilla/sessions with its cookie store", 1, withGorilla),
	}
}

// hello answers with the name of who asks, which user tells.
func hello(user func(*http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := user(r)
		if name == "" {
			http.Error(w, "nobody", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "private")
		io.WriteString(w, `{"user":"`+name+`"}`)
	})
}

func userName(i int) string { return fmt.Sprintf("user-%06d", i) }

// bare is net/http alone. It answers the same bytes, the Vary header that ours adds included, and is sent as long a
// cookie.
func bare(http.Handler) (http.Handler, []string, error) {
	cookies := make([]string, httpSessions)
	for i := range cookies {
		cookies[i] = "__Host-Http-session_id=als_" + rand.Text() + rand.Text() + rand.Text() + "012345"
	}
	h := hello(func(r *http.Request) string { return userName(len(r.Header["Cookie"])) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "Authorization, Cookie")
		h.ServeHTTP(w, r)
	}), cookies, nil
}

func withSCS(http.Handler) (http.Handler, []string, error) {
	m := scs.New()
	m.Store = scsmem.NewWithCleanupInterval(0)
	cookies := make([]string, httpSessions)
	for i := range cookies {
		ctx, err := m.Load(context.Background(), "")
		if err != nil {
			return nil, nil, err
		}
		m.Put(ctx, "user", userName(i))
		token, _, err := m.Commit(ctx)
		if err != nil {
			return nil, nil, err
		}
		cookies[i] = m.Cookie.Name + "=" + token
	}
	return m.LoadAndSave(hello(func(r *http.Request) string { return m.GetString(r.Context(), "user") })), cookies, nil
}

func withGorilla(http.Handler) (http.Handler, []string, error) {
	hashKey, blockKey := make([]byte, 32), make([]byte, 32)
	rand.Read(hashKey)
	rand.Read(blockKey)
	s := sessions.NewCookieStore(hashKey, blockKey)
	cookies := make([]string, httpSessions)
	for i := range cookies {
		w, r := &headers{h: make(http.Header)}, &http.Request{Header: make(http.Header)}
		session, err := s.Get(r, "session")
		if err != nil {
			return nil, nil, err
		}
		session.Values["user"] = userName(i)
		if err := session.Save(r, w); err != nil {
			return nil, nil, err
		}
		cookie, err := http.ParseSetCookie(w.h.Get("Set-Cookie"))
		if err != nil {
			return nil, nil, err
		}
		cookies[i] = cookie.Name + "=" + cookie.Value
	}
	return hello(func(r *http.Request) string {
		session, err := s.Get(r, "session")
		if err != nil {
			return ""
		}
		name, _ := session.Values["user"].(string)
		return name
	}), cookies, nil
}

// headers is a ResponseWriter that keeps the headers.
type headers struct{ h http.Header }

func (w *headers) Header() http.Header         { return w.h }
func (w *headers) Write(b []byte) (int, error) { return len(b), nil }
func (w *headers) WriteHeader(int)             {}

func withUs() (http.Handler, []string, func(), error) {
	a, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
	if err != nil {
		return nil, nil, nil, err
	}
	auth, err := httpauth.New(a, httpauth.Options{})
	if err != nil {
		return nil, nil, nil, err
	}
	cookies := make([]string, httpSessions)
	for i := range cookies {
		got, err := a.Issue(context.Background(), afterlogin.IssueRequest{Subject: userName(i)})
		if err != nil {
			return nil, nil, nil, err
		}
		cookies[i] = httpauth.CookieName + "=" + got.Token.Reveal()
	}
	h := auth.Require(hello(func(r *http.Request) string {
		s, _ := httpauth.Session(r.Context())
		return s.Subject
	}))
	return h, cookies, func() { a.Close() }, nil
}

func setHTTP(reference func(http.Handler) (http.Handler, []string, error)) (ours, theirs func() (float64, error), done func(), err error) {
	h, cookies, end, err := withUs()
	if err != nil {
		return nil, nil, nil, err
	}
	us, err := listen(h, cookies)
	if err != nil {
		return nil, nil, nil, err
	}
	if h, cookies, err = reference(nil); err != nil {
		return nil, nil, nil, err
	}
	them, err := listen(h, cookies)
	if err != nil {
		return nil, nil, nil, err
	}
	return us.load, them.load, func() { us.server.Close(); them.server.Close(); end() }, nil
}

// target is a server on loopback and the requests that it is sent, one for each session.
type target struct {
	server   *http.Server
	address  string
	requests [][]byte
}

func listen(h http.Handler, cookies []string) (*target, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &target{server: &http.Server{Handler: h}, address: l.Addr().String()}
	for _, c := range cookies {
		t.requests = append(t.requests, []byte("GET / HTTP/1.1\r\nHost: "+t.address+"\r\nUser-Agent: bench\r\nCookie: "+c+"\r\n\r\n"))
	}
	go t.server.Serve(l) // until Close
	return t, nil
}

// load sends requests over some connections for a round and returns the answers per second. The client is as plain as
// can be, since it shares the processor with the server.
func (t *target) load() (float64, error) {
	var count atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for c := range httpConnections {
		wg.Go(func() {
			if err := t.connection(c, start, &count); err != nil {
				failed.Store(&err)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(count.Load()) / time.Since(start).Seconds(), nil
}

func (t *target) connection(c int, start time.Time, count *atomic.Int64) error {
	conn, err := net.Dial("tcp", t.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, 4096)
	n := 0
	for i := c; time.Since(start) < httpRound; i += httpConnections {
		if _, err := conn.Write(t.requests[i%len(t.requests)]); err != nil {
			return err
		}
		if err := readAnswer(conn, buf); err != nil {
			return err
		}
		n++
	}
	count.Add(int64(n))
	return nil
}

var (
	status20x     = []byte("HTTP/1.1 20") // oauth2-proxy lets in with 202
	endOfHeaders  = []byte("\r\n\r\n")
	contentLength = []byte("\r\nContent-Length: ")
)

// readAnswer reads one answer, which must be a 200, or another 20x, with a Content-Length.
func readAnswer(conn net.Conn, buf []byte) error {
	n := 0
	for {
		m, err := conn.Read(buf[n:])
		if err != nil {
			return err
		}
		n += m
		end := bytes.Index(buf[:n], endOfHeaders)
		if end < 0 {
			continue
		}
		head := buf[:end+2]
		at := bytes.Index(head, contentLength)
		if !bytes.HasPrefix(head, status20x) || at < 0 {
			return fmt.Errorf("not the expected answer: %.80q", head)
		}
		at += len(contentLength)
		length, err := strconv.Atoi(string(head[at : at+bytes.IndexByte(head[at:], '\r')]))
		if err != nil {
			return err
		}
		switch total := end + 4 + length; {
		case n == total:
			return nil
		case n > total || total > len(buf):
			return errors.New("more than one answer")
		}
	}
}
