package snippet_test

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// An attack of HTTP/2: its headers are not text that a parser takes apart, so that they may hold what ends a line.
type attack2 struct {
	name    string
	headers [][2]string // in their order; a pseudo-header that is not there is added
	arrives bool
}

func attacks2() (all []attack2) {
	add := func(arrives bool, name string, headers ...string) {
		a := attack2{name: name, arrives: arrives}
		for i := 0; i < len(headers); i += 2 {
			a.headers = append(a.headers, [2]string{headers[i], headers[i+1]})
		}
		all = append(all, a)
	}
	for _, name := range []string{"x-auth-subject", "x_auth_subject", "x-auth_subject", "x-auth-assertion", "x_auth_assertion", "x-auth-kind", "x-auth-cookie",
		"x-forwarded-uri", "x-forwarded-method", "x-original-url", "remote-user", "remote_user", "forwarded"} {
		add(true, name, name, "admin")
		add(true, name+" twice", name, "admin", name, "root")
	}
	add(false, "a name in capitals", "X-Auth-Subject", "admin")
	add(false, "a name with a line", "x-pad: a\r\nx-auth-subject", "admin")
	add(false, "a name with a colon", "x-auth-subject:", "admin")
	add(false, "a name with a blank", "x-auth-subject ", "admin")
	add(false, "a name with a blank before", " x-auth-subject", "admin")
	add(false, "an empty name", "", "admin")
	add(false, "a value with a line", "x-pad", "a\r\nx-auth-subject: admin")
	add(false, "a value with a line feed", "x-pad", "a\nx-auth-subject: admin")
	add(false, "a value with a return", "x-pad", "a\rx-auth-subject: admin")
	add(false, "a value with two lines", "x-pad", "a\r\n\r\nGET /private HTTP/1.1\r\nHost: shop.localhost\r\nx-auth-subject: admin\r\n\r\n")
	add(false, "a value with a nought", "x-pad", "a\x00b")
	add(false, "connection", "connection", "x-auth-subject, x-auth-kind")
	add(false, "upgrade", "connection", "upgrade", "upgrade", "websocket")
	add(false, "te", "te", "x-auth-subject")
	add(false, "chunks", "transfer-encoding", "chunked")
	add(false, "a length", "content-length", "100")
	add(false, "two hosts", "host", "evil.example")
	add(false, "a host, no authority", ":authority", "", "host", "HOST")
	add(false, "another authority", ":authority", "evil.example")
	add(false, "another authority than the host", ":authority", "evil.example", "host", "HOST")
	add(false, "a user in the authority", ":authority", "evil.example@HOST")
	add(false, "an authority with a path", ":authority", "HOST/public/x")
	add(false, "two paths", ":path", "/public/x", ":path", "/private")
	add(false, "a path later", "x-pad", "a", ":path", "/private")
	add(false, "a method with a line", ":method", "GET /private HTTP/1.1\r\nx-auth-subject: admin\r\nx-pad:")
	add(false, "a method with a blank", ":method", "GET /public/x")
	add(false, "CONNECT", ":method", "CONNECT")
	add(false, "a scheme with a host", ":scheme", "https://evil.example/private?")
	add(false, "another scheme", ":scheme", "http")
	add(false, "a protocol", ":protocol", "websocket", ":method", "CONNECT")
	add(false, "a pseudo-header of its own", ":x-auth-subject", "admin")
	for _, path := range []string{"", "*", "private", "public/x", "//private", "/public/../private", "/public/%2e%2e/private", "/public/..%2fprivate", "/public/..;/private", "/public\\..\\private",
		"/.afterlogin/../private", "/.afterlogin/..%2fprivate", "https://HOST/private", "https://evil.example/private", "/private HTTP/1.1\r\nx-auth-subject: admin\r\nx-pad: a",
		"/public/x HTTP/1.1\r\nhost: HOST\r\n\r\nGET /private", "/public/x\n/private", "/private\x00", "/public/x /private", "/private#/public/x", "/public/x?\r\nx-auth-subject: admin", "?/public/x", "#/private",
		"/v1/subjects/..%2f..%2f.afterlogin%2fmia/sessions", "/forward-auth/../.afterlogin/x", "/.AFTERLOGIN/x", "/%2eafterlogin/x", "//.afterlogin/x",
		"/private/\xff", "/private\x7f", "/private\t"} {
		add(false, fmt.Sprintf("the path %.60q", path), ":path", path)
	}
	return all
}

// TestHostile2 attacks over TLS and HTTP/2.
func TestHostile2(t *testing.T) {
	for _, kind := range proxies {
		if kind == "apache" { // where Debian has HTTP/2 off
			continue
		}
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			hostile2(t, kind)
		})
	}
}

func hostile2(t *testing.T, kind string) {
	s := &siege{house: start(t, kind, setup{rules: public, tls: true})}
	s.mia, _ = s.signIn("mia")
	_, s.token, _ = strings.Cut(s.mia, "=")
	s.other = s.token
	answered := 0
	for _, a := range attacks2() {
		for _, path := range []string{"/private", "/public/x"} {
			for _, has := range []bool{false, true} {
				if err := s.attack2(a, path, has); err == nil {
					answered++
				}
				got := s.app.take()
				for _, r := range got { // with its own mark: one before it may be late
					s.judge(attack{name: a.name + " at " + path}, r, r.Header.Get("X-Mark") == "true")
				}
				if a.arrives && has && (len(got) != 1 || got[0].subject() != "mia") {
					s.lost(attack{name: a.name}, has, "a header took the request of mia away: %.200v", got)
				}
				s.sent++
			}
		}
	}
	s.stray()
	for _, w := range s.won {
		t.Error(w)
	}
	t.Logf("%d requests, %d answered; %d came to the application", s.sent, answered, s.arrived)
	if s.arrived < 80 {
		t.Errorf("%d requests came to the application: the suite sees nothing", s.arrived)
	}
}

// attack2 sends an attack on a connection of its own, and waits for an answer, whatever it is.
func (s *siege) attack2(a attack2, path string, has bool) error {
	c, err := tls.Dial("tcp", s.addr, &tls.Config{InsecureSkipVerify: true, ServerName: "shop.localhost", NextProtos: []string{"h2"}})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(300 * time.Millisecond))
	if c.ConnectionState().NegotiatedProtocol != "h2" {
		return errors.New("no HTTP/2")
	}
	var block []byte
	field := func(name, value string) { block = appendField(block, name, strings.ReplaceAll(value, "HOST", s.host)) }
	for _, pseudo := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "HOST"}, {":path", path}} {
		own := false
		for _, h := range a.headers {
			own = own || h[0] == pseudo[0]
		}
		if !own {
			field(pseudo[0], pseudo[1])
		}
	}
	for _, h := range a.headers {
		if strings.HasPrefix(h[0], ":") && (h[0] != ":authority" || h[1] != "") {
			field(h[0], h[1])
		}
	}
	field("x-mark", fmt.Sprint(has))
	if has {
		field("cookie", "theme=dark; "+s.mia)
	}
	for _, h := range a.headers {
		if !strings.HasPrefix(h[0], ":") {
			field(h[0], h[1])
		}
	}
	const settings, headers, endBoth = 4, 1, 1 | 4
	request := append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(settings, 0, 0, nil)...)
	if _, err := c.Write(append(request, frame(headers, endBoth, 1, block)...)); err != nil {
		return err
	}
	return answer2(c)
}

// answer2 reads frames up to one that answers stream 1: headers, its reset, or the end of the connection.
func answer2(c net.Conn) error {
	const headers, reset, goAway = 1, 3, 7
	for {
		var head [9]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return err
		}
		if _, err := io.CopyN(io.Discard, c, int64(head[0])<<16|int64(head[1])<<8|int64(head[2])); err != nil {
			return err
		}
		if kind := head[3]; kind == headers || kind == reset || kind == goAway {
			return nil
		}
	}
}

// frame returns a frame (RFC 9113, 4.1).
func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// appendField appends a header that is not to be remembered, with its name and value as they are (RFC 7541, 6.2.2).
func appendField(b []byte, name, value string) []byte {
	b = append(b, 0)
	for _, text := range []string{name, value} {
		b = append(appendLength(b, len(text)), text...)
	}
	return b
}

// appendLength appends an integer with a prefix of 7 bits (RFC 7541, 5.1).
func appendLength(b []byte, n int) []byte {
	if n < 127 {
		return append(b, byte(n))
	}
	b, n = append(b, 127), n-127
	for ; n >= 128; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
