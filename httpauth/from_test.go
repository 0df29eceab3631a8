package httpauth_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/afterlogin/afterlogin/httpauth"
)

// Handlers learn where a request came from as the session does: by Options.ClientAddr.
func TestClientFrom(t *testing.T) {
	want := netip.MustParseAddr("192.0.2.7")
	s := open(t, httpauth.Options{ClientAddr: func(*http.Request) netip.Addr { return want }}, nil)
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("User-Agent", "Test/1")
	if _, ok := httpauth.ClientFrom(r.Context()); ok {
		t.Error("outside of the middleware there is a client")
	}
	called := false
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		called = true
		if c, ok := httpauth.ClientFrom(r.Context()); !ok || c.Addr != want || c.UserAgent != "Test/1" {
			t.Errorf("%+v, %t", c, ok)
		}
	})
	s.auth.Optional(next).ServeHTTP(httptest.NewRecorder(), r)
	if !called {
		t.Error("the handler was not called")
	}
}
