//go:build browser

package account

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
)

// The page in a real Chromium, without JavaScript, and by axe's rules for accessibility. test/browser/account.mjs says what
// must hold.
func TestPageInChromium(t *testing.T) {
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
	f := openAt(t, "localhost", func(o *Options) {
		o.Product = "Example Shop"
		o.Stylesheet = []byte(".product{letter-spacing:3px}") // nothing that axe would look at
	})
	f.furnish("mia")
	f.furnish("tom")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "account.mjs")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CHROMIUM="+program, "APP_URL="+f.app.Origin, "PASSWORD="+password, "SHOTS="+t.ArtifactDir())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it can end its browser
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Log(out.String())
}

// furnish gives somebody devices, an app, a key and something that has ended, so that every part of the page is there.
func (f *fixture) furnish(subject string) {
	f.t.Helper()
	issue := func(r afterlogin.IssueRequest) *afterlogin.Session {
		f.t.Helper()
		r.Subject = subject
		got, err := f.a.Issue(f.t.Context(), r)
		if err != nil {
			f.t.Fatal(err)
		}
		return got.Session
	}
	from := func(addr, agent string) afterlogin.Client {
		f.be(addr)
		return afterlogin.Client{Addr: f.from, UserAgent: agent}
	}
	ended := issue(afterlogin.IssueRequest{Device: from(lyon, chromium)})
	phone := issue(afterlogin.IssueRequest{Device: from(lyon, safari), Policy: afterlogin.PolicyRemember, Auth: afterlogin.Authentication{Methods: []string{"pwd", "otp"}}})
	held := issue(afterlogin.IssueRequest{Device: from("10.1.2.3", "curl/8.9.1")})
	issue(afterlogin.IssueRequest{Kind: afterlogin.KindAPIKey, Name: "Backup at night", Scopes: []string{"backup"}})
	if _, err := f.a.IssueGrant(f.t.Context(), phone, afterlogin.GrantRequest{Client: "pocket", Name: "Pocket", Offline: true, Scopes: []string{"read"}}); err != nil {
		f.t.Fatal(err)
	}
	if err := f.a.Revoke(f.t.Context(), ended.ID, afterlogin.ReasonReused); err != nil {
		f.t.Fatal(err)
	}
	if err := f.a.Freeze(f.t.Context(), held.ID, "incident 7"); err != nil {
		f.t.Fatal(err)
	}
	f.be(cologne)
}
