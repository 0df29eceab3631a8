package oauth

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/store/memstore"
)

func BenchmarkIntrospect(b *testing.B) {
	f := newFixture(b, memstore.New()).usual()
	token := f.ok(TokenPath, "job", "grant_type", clients.ClientCredentials, "scope", "read").text("access_token")
	body := "token=" + token
	b.ReportAllocs()
	for b.Loop() {
		r, err := http.NewRequest("POST", IntrospectPath, nil)
		if err != nil {
			b.Fatal(err)
		}
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("job", f.secret["job"])
		w := &recorder{header: make(http.Header)}
		f.s.ServeHTTP(w, r)
		if w.status != 200 {
			b.Fatal(w.status)
		}
	}
}
