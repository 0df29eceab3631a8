//go:build browser

package login

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The pages in a real Chromium, without JavaScript, and by axe's rules for accessibility. test/browser/login.mjs says what
// must hold.
func TestPagesInChromium(t *testing.T) {
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
	f := openAt(t, "localhost", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "login.mjs")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CHROMIUM="+program, "APP_URL="+f.app.Origin, "HOME_URL="+f.home.Origin, "PASSWORD="+good, "NEW_PASSWORD="+other, "SHOTS="+t.ArtifactDir())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it can end its browser
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Log(out.String())
}
