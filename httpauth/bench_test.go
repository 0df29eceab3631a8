package httpauth_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// discard is a writer for benchmarks: what the middleware costs, and not what a recorder costs.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

var hello = []byte("hello")

func page(w http.ResponseWriter, r *http.Request) {
	w.Header()["Content-Type"] = []string{"text/plain; charset=utf-8"}
	w.Write(hello)
}

func benchmark(b *testing.B, h http.Handler, prepare func(*http.Request)) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		w := &discard{h: make(http.Header)}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
		prepare(r)
		for pb.Next() {
			clear(w.h)
			h.ServeHTTP(w, r)
		}
	})
}

// BenchmarkRequire is a request with a good session through the middleware, without a network, beside the same handler
// without the middleware and beside the validation of the token alone.
func BenchmarkRequire(b *testing.B) {
	a, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	x, err := httpauth.New(a, httpauth.Options{})
	if err != nil {
		b.Fatal(err)
	}
	in, err := a.Issue(b.Context(), afterlogin.IssueRequest{Subject: "mia"})
	if err != nil {
		b.Fatal(err)
	}
	cookie := func(r *http.Request) { r.Header.Set("Cookie", httpauth.CookieName+"="+in.Token.Reveal()) }
	ok := http.HandlerFunc(page)
	b.Run("bare", func(b *testing.B) { benchmark(b, ok, cookie) })
	b.Run("validate", func(b *testing.B) {
		e := afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindSession}}
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := a.Validate(b.Context(), in.Token, e); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("cookie", func(b *testing.B) { benchmark(b, x.Require(ok), cookie) })
	b.Run("bearer", func(b *testing.B) {
		benchmark(b, x.Require(ok), func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+in.Token.Reveal()) })
	})
	b.Run("optional+require", func(b *testing.B) { benchmark(b, x.Optional(x.Require(ok)), cookie) })
	b.Run("nobody", func(b *testing.B) { benchmark(b, x.Optional(ok), func(*http.Request) {}) })
	b.Run("junk", func(b *testing.B) {
		benchmark(b, x.Optional(ok), func(r *http.Request) { r.Header.Set("Cookie", httpauth.CookieName+"=nonsense") })
	})
}
