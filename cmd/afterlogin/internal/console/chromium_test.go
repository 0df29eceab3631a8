//go:build browser

package console

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/console/entrance"
)

// TestConsoleInChromium walks every screen in both themes, with JavaScript and without: test/browser/console.mjs says what
// must hold. With AFTERLOGIN_SHOTS=1 the pictures are written to docs/images, for people to look at.
func TestConsoleInChromium(t *testing.T) {
	h := newHouse(t)
	town := h.seed()
	thief := h.signIn("ada")
	// What the script cannot do as a browser: make links, and steal.
	control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/link":
			l, err := h.entrance.MakeLink(r.Context(), entrance.LinkRequest{Role: entrance.Role(r.URL.Query().Get("role")), Name: r.URL.Query().Get("name")})
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			io.WriteString(w, h.server.URL+l.URL)
		case "/theft":
			h.theft(thief, afterlogin.Client{}, afterlogin.Client{UserAgent: "thief"})
		default:
			http.NotFound(w, r)
		}
	}))
	defer control.Close()
	shots := t.ArtifactDir()
	if os.Getenv("AFTERLOGIN_SHOTS") != "" {
		dir, err := filepath.Abs(filepath.Join("..", "..", "..", "..", "docs", "images"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		shots = dir
	}
	runScript(t, "console.mjs", "CONSOLE_URL="+h.server.URL+"/console", "CONTROL_URL="+control.URL, "SHOTS="+shots,
		"SESSION="+string(town.mia), "STOLEN="+string(town.stolen), "KEY="+string(town.key))
}

// runScript runs a script of test/browser, which exits 0 if everything held.
func runScript(t *testing.T, script string, env ...string) {
	t.Helper()
	const install = "run scripts/test.sh, which installs what is needed (apt-get install chromium nodejs npm; npm ci in test/browser)"
	dir, err := filepath.Abs(filepath.Join("..", "..", "..", "..", "test", "browser"))
	if err != nil {
		t.Fatal(err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("there is no Node.js: %s", install)
	}
	browser := os.Getenv("CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); browser == "" && err == nil {
			browser = path
		}
	}
	if browser == "" {
		t.Fatalf("there is no Chromium: %s", install)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), append(env, "CHROMIUM="+browser)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it can end its browser
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, &out)
	}
	t.Log(out.String())
}
