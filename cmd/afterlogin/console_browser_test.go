//go:build browser

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/demo"
)

// TestDemoConsoleInChromium has the shop robbed while somebody looks at the console.
func TestDemoConsoleInChromium(t *testing.T) {
	state := t.TempDir()
	d, err := demo.Start(demo.Config{Addr: "127.0.0.1:0", Renewal: 2 * time.Second, Grace: time.Second, StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	link, err := d.ConsoleLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := demo.Replay{StateDir: state, Out: io.Discard, Shop: true, Within: 50 * time.Second, Every: 200 * time.Millisecond}
		if out, err := p.Run(r.Context()); err != nil || !out {
			t.Errorf("the thief is thrown out: %t, %v", out, err)
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(control.Close)
	runScript(t, "demo-console.mjs", "LINK="+link, "CONTROL_URL="+control.URL)
}
