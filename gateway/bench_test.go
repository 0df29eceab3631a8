package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/afterlogin/afterlogin/gateway"
	"github.com/afterlogin/afterlogin/httpauth"
)

// discard is a ResponseWriter whose headers are used again.
type discard struct {
	h      http.Header
	status int
}

func (w *discard) Header() http.Header         { return w.h }
func (w *discard) Write(b []byte) (int, error) { return len(b), nil }
func (w *discard) WriteHeader(status int)      { w.status = status }

// One decision: a session from the cache, an assertion that is still fresh.
func BenchmarkForwardAuth(b *testing.B) {
	d := open(b, func(o *gateway.Options, _ *gateway.App) { o.Logger = nil })
	token, _ := d.issue()
	r := httptest.NewRequest("GET", "http://127.0.0.1:7070"+gateway.Path, nil)
	r.RemoteAddr = "192.0.2.10:40000"
	r.Header = http.Header{
		"X-Forwarded-Method": {"GET"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"shop.example.com"},
		"X-Forwarded-Uri": {"/orders?page=2"}, "X-Forwarded-For": {"203.0.113.7"}, "User-Agent": {"Mozilla/5.0"},
		"Cookie": {httpauth.CookieName + "=" + token},
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := &discard{h: make(http.Header, 16)}
		for pb.Next() {
			clear(w.h)
			d.ServeHTTP(w, r)
			if w.status != 200 {
				b.Errorf("%d", w.status)
				return
			}
		}
	})
}
