//go:build browser

package oauth

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/oauth/clients"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// The consent page in a real Chromium, with clients that send the browser on to another origin when they have the code, as
// those do that are shared by several sites. test/browser/consent.mjs says what must hold.
func TestConsentInChromium(t *testing.T) {
	const install = "run scripts/test.sh, which installs what is needed (apt-get install chromium nodejs npm; npm ci in test/browser)"
	program := os.Getenv("CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil && program == "" {
			program = path
		}
	}
	node, err := exec.LookPath("node")
	if err != nil || program == "" {
		t.Fatalf("there is no Node.js, or no Chromium: %s", install)
	}
	dir, err := filepath.Abs(filepath.Join("..", "..", "..", "..", "test", "browser"))
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, memstore.New()).usual()

	// serve is a web server of its own, and so of another origin than every other.
	serve := func(address string, secure bool, h http.HandlerFunc) string {
		t.Helper()
		s := httptest.NewUnstartedServer(h)
		if address != "" {
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			s.Listener.Close()
			s.Listener = l
		}
		if secure {
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		return s.URL
	}
	done := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, "<!doctype html><title>done</title><body>done</body>")
	}
	plain, secure := serve("", false, done), serve("", true, done)
	on := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("code") == "" {
				http.Error(w, "no code", http.StatusBadRequest)
				return
			}
			http.Redirect(w, r, to+"/done", http.StatusSeeOther)
		}
	}
	var urls []string
	for id, to := range map[string]string{
		"loopback": serve("", false, on(plain)), "loopback-to-web": serve("", false, on(secure)),
		"six": serve("[::1]:0", false, on(plain)), "site": serve("", true, on(secure)),
	} {
		f.client(id, clients.Settings{Auth: clients.None, GrantTypes: []string{clients.AuthorizationCode}, RedirectURIs: []string{to + "/cb"}, Scopes: []string{"read"}})
		urls = append(urls, f.url+AuthorizePath+"?"+authorization(id, to+"/cb").Encode())
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "consent.mjs")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CHROMIUM="+program, "SIGN_IN_URL="+f.url+"/login?return_to=/callback", "CONSENT_URLS="+strings.Join(urls, "\n"))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it can end its browser
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Log(out.String())
}
