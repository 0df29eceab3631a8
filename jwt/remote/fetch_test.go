package remote

import (
	"net/http"
	"net/netip"
	"testing"
)

// FuzzLifetime: whatever the answer says, keys are good for as long as the bounds say.
func FuzzLifetime(f *testing.F) {
	f.Add("public, max-age=600", "5")
	f.Add("no-store", "")
	f.Add(`max-age="60",max-age=99999999999`, "-1")
	f.Fuzz(func(t *testing.T, control, age string) {
		d := lifetime(http.Header{"Cache-Control": {control}, "Age": {age}}, DefaultCache)
		if d < MinCache || d > MaxCache {
			t.Errorf("%v", d)
		}
	})
}

// FuzzAddress: whatever is accepted is https, or on a loopback address.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"https://id.example/jwks", "http://localhost:1/x", "http://[::1]/", "http://127.1/", "http://0x7f.1", "https://a@b", "HTTP://LOCALHOST"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := address(s)
		if err != nil {
			return
		}
		ip, _ := netip.ParseAddr(u.Hostname())
		if u.Host == "" || u.User != nil || u.Scheme != "https" && !(u.Scheme == "http" && (u.Hostname() == "localhost" || ip.Unmap().IsLoopback())) {
			t.Errorf("%q is accepted", s)
		}
	})
}
