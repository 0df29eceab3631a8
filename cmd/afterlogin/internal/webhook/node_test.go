//go:build browser

package webhook

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The receiver for Node.js of docs/webhooks.md, and one made with a library that nobody here wrote, take what is signed,
// and nothing else. They are behind a build tag since they need Node.js and npm packages; where those are asked for, that
// they are missing is a failure.
func TestNodeReceivers(t *testing.T) {
	const install = "run scripts/test.sh, which installs what is needed (apt-get install nodejs npm; npm ci in test/oauth)"
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("there is no Node.js: %s", install)
	}
	dir, err := filepath.Abs(filepath.Join("..", "..", "..", "..", "test", "oauth"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "standardwebhooks")); err != nil {
		t.Fatalf("the npm package standardwebhooks is missing: %s", install)
	}
	documented := filepath.Join(t.TempDir(), "receiver.mjs")
	if err := os.WriteFile(documented, []byte(snippet(t, "js")), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{"docs": documented, "standardwebhooks": filepath.Join(dir, "webhooks.mjs")} {
		t.Run(name, func(t *testing.T) {
			addr := freeAddr(t)
			_, port, _ := net.SplitHostPort(addr)
			cmd := exec.Command(node, script)
			cmd.Dir, cmd.Env = dir, []string{"PORT=" + port}
			try(t, newSecret(), addr, cmd)
		})
	}
}
