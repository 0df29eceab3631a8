//go:build browser

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/demo"
	"github.com/afterlogin/afterlogin/httpauth"
	"github.com/afterlogin/afterlogin/store/memstore"
)

// The tests here drive a real Chromium through real pages. They are behind a build tag since they need Chromium, Node.js
// and npm packages; where those are asked for, that they are missing is a failure.
const install = "run scripts/test.sh, which installs what is needed (apt-get install chromium nodejs npm; npm ci in test/browser)"

// TestShopInChromium plays the story of the demo: test/browser/shop.mjs says what must hold.
func TestShopInChromium(t *testing.T) {
	const renewal, grace = 4 * time.Second, 4 * time.Second
	d, err := demo.Start(demo.Config{Addr: "127.0.0.1:0", Renewal: renewal, Grace: grace})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	runScript(t, "shop.mjs", "SHOP_URL="+d.URL(),
		"RENEWAL_MS="+strconv.FormatInt(renewal.Milliseconds(), 10), "GRACE_MS="+strconv.FormatInt(grace.Milliseconds(), 10),
		"SHOTS="+t.ArtifactDir()) // kept with go test -artifacts
}

// TestCookieInChromium shows Chromium the cookie that httpauth sets over HTTPS.
func TestCookieInChromium(t *testing.T) {
	a, err := afterlogin.New(afterlogin.Config{Store: memstore.New()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	auth, err := httpauth.New(a, httpauth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		who, action, label := "nobody", "/sign-in", "Sign in"
		if s, ok := httpauth.Session(r.Context()); ok {
			who, action, label = s.Subject, "/sign-out", "Sign out"
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, `<!doctype html><title>test</title><p id="who">%s</p><form method="post" action="%s">`+
			`<input type="hidden" name="csrf_token" value="%s"><button>%s</button></form>`, who, action, auth.CSRFToken(r), label)
	})
	mux.HandleFunc("POST /sign-in", func(w http.ResponseWriter, r *http.Request) {
		if _, err := auth.SignIn(w, r, httpauth.SignIn{Subject: "mia"}); err != nil {
			httpauth.Answer(w, r, err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("POST /sign-out", func(w http.ResponseWriter, r *http.Request) {
		if err := auth.SignOut(w, r); err != nil {
			httpauth.Answer(w, r, err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	server := httptest.NewTLSServer(auth.Optional(mux))
	t.Cleanup(server.Close)
	runScript(t, "https.mjs", "HTTPS_URL="+server.URL+"/")
}

// runScript runs a script of test/browser, which exits 0 if everything held.
func runScript(t *testing.T, script string, env ...string) {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "test", "browser"))
	if err != nil {
		t.Fatal(err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("there is no Node.js: %s", install)
	}
	for _, name := range []string{"playwright-core", "axe-core"} {
		if _, err := os.Stat(filepath.Join(dir, "node_modules", name)); err != nil {
			t.Fatalf("the npm package %s is missing: %s", name, install)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append(env, "CHROMIUM="+chromium(t))...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it can end its browser
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, &out)
	}
	t.Log(out.String())
}

// chromium finds the browser's program.
func chromium(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("CHROMIUM"); path != "" {
		return path
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatalf("there is no Chromium: %s", install)
	return ""
}
