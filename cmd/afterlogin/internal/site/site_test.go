package site

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a\nb – ü": "a\nb – ü", "\x1b[31mred": "?[31mred", "a\u009b2Jb": "a?2Jb", "a\u202eb\u2066": "a?b?", "a\x9bb": "a?b", "a\tb\r": "a\tb?", "\ufeffa\u2060": "?a?",
	} {
		if got := Lines(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := Printable("a\u009bü\nb"); got != "a???b" {
		t.Errorf("printable: %q", got)
	}
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	var s Secrets
	for _, secret := range []string{"abc/def+1", "abc/def+1-and-more", "s%3Aabcdef", "short"} {
		s.Add(secret, "***")
	}
	got := s.Clean("abc/def+1 abc%2Fdef%2B1 /abc%2Fdef+1/ abc/def+1-and-more s%3Aabcdef s:abcdef", "short", "nothing")
	if want := "*** *** /***/ *** *** ***"; got[0] != want || got[1] != "short" || got[2] != "nothing" {
		t.Errorf("%q, want %q", got, want)
	}
	if got := (&Secrets{}).Clean("a"); len(got) != 1 || got[0] != "a" {
		t.Errorf("no secrets: %q", got)
	}
}

// TestFault has requests fail, and reads why. What an answer says is never quoted.
func TestFault(t *testing.T) {
	t.Parallel()
	const secret = "als_0123456789abcdef"
	// raw answers every connection with these bytes.
	raw := func(answer string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Read(make([]byte, 4096))
				io.WriteString(c, answer)
				c.Close()
			}
		}()
		t.Cleanup(func() { l.Close(); <-done })
		return "http://" + l.Addr().String()
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	secure := httptest.NewUnstartedServer(nil)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(nil)
	defer plain.Close()
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for name, tt := range map[string]struct {
		ctx       context.Context
		url, want string
	}{
		"nobody there":      {t.Context(), gone.URL, "connection refused"},
		"closed":            {t.Context(), raw(""), "it closed the connection"},
		"half an answer":    {t.Context(), raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"), "it closed the connection"},
		"no time":           {late, plain.URL, "it did not answer in time"},
		"a bad certificate": {t.Context(), secure.URL, "its certificate is bad: x509: certificate signed by unknown authority"},
		"no TLS":            {t.Context(), strings.Replace(plain.URL, "http", "https", 1), "it does not speak TLS there"},
		"a bad Location":    {t.Context(), raw("HTTP/1.1 302 Found\r\nLocation: /%zz?sid=" + secret + "\r\n\r\n"), "its answer cannot be read"},
		"a bad header":      {t.Context(), raw("HTTP/1.1 200 OK\r\n" + secret + "\r\n\r\n"), "its answer cannot be read"},
		"a bad length":      {t.Context(), raw("HTTP/1.1 200 OK\r\nContent-Length: " + secret + "\r\n\r\n"), "its answer cannot be read"},
		"a bad status":      {t.Context(), raw(secret + "\r\n\r\n"), "its answer cannot be read"},
		"a bad chunk":       {t.Context(), raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + secret + "\r\n"), "its answer cannot be read"},
	} {
		r, err := http.NewRequestWithContext(tt.ctx, http.MethodGet, tt.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{}
		resp, err := (&http.Client{Transport: transport}).Do(r)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		transport.CloseIdleConnections()
		if got := Fault(err); err == nil || got != tt.want {
			t.Errorf("%s: %q, want %q (%v)", name, got, tt.want, err)
		}
	}
	for err, want := range map[error]string{
		&url.Error{Err: &net.DNSError{Err: secret, Name: secret, IsNotFound: true}}: "its name is not known",
		&net.DNSError{Err: secret, Name: secret}:                                    "its name could not be looked up",
		tls.AlertError(40):                                                          "it refused the TLS connection: tls: handshake failure",
		fmt.Errorf("tls: %s", secret):                                               "no TLS connection could be made",
	} {
		if got := Fault(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
