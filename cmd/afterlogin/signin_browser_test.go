//go:build browser

package main

import (
	"bytes"
	"encoding/json"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/server"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/snippet"
	"github.com/afterlogin/afterlogin/internal/servers"
)

// shopPage is the application: it knows nothing of afterlogin, and shows what has reached it.
var shopPage = template.Must(template.New("page").Parse(`<!doctype html><html lang="en"><meta charset="utf-8"><title>shop</title>` +
	`<link rel="icon" href="data:,"><main><h1>Shop</h1><pre id="request">{{.}}</pre></main>`))

// TestSignInInChromium has people sign in at an application that knows nothing of it, behind the nginx that "afterlogin
// snippet nginx" configures: with the built-in users, and with npm's oidc-provider, which throws them out by back-channel
// logout. test/browser/signin.mjs says what must hold.
func TestSignInInChromium(t *testing.T) {
	const maxAge = 6 * time.Second // more than the way back from a sign-in takes on a busy machine
	shop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := json.Marshal(map[string]string{
			"target": r.RequestURI, "subject": r.Header.Get("X-Auth-Subject"), "kind": r.Header.Get("X-Auth-Kind"),
			"cookies": strings.Join(r.Header["Cookie"], "; "),
		})
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		shopPage.Execute(w, string(b))
	}))
	defer shop.Close()

	// Everybody must know somebody's address: ours answers from the beginning, and what it should at the end.
	var mu sync.Mutex
	var handler http.Handler = http.NotFoundHandler()
	us := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		h := handler
		mu.Unlock()
		h.ServeHTTP(w, r)
	}))
	defer us.Close()
	var origin string
	nginx, err := servers.StartNginx(t.TempDir(), func(addr string) string {
		_, port, _ := net.SplitHostPort(addr)
		origin = "http://shop.localhost:" + port
		files, err := snippet.Render("nginx", snippet.Options{
			App: strings.TrimPrefix(shop.URL, "http://"), Host: "shop.localhost:" + port,
			Afterlogin: strings.TrimPrefix(us.URL, "http://"), Listen: addr,
		})
		if err != nil {
			t.Fatal(err)
		}
		return files[0].Content
	})
	if err != nil {
		t.Fatal(err)
	}
	defer nginx.Kill()

	const secret = "a secret that the provider has given us"
	client := func(id string) map[string]any {
		return map[string]any{
			"client_id": id, "client_secret": secret, "redirect_uris": []string{origin + "/.afterlogin/oidc/" + id + "/callback"},
			"response_types": []string{"code"}, "grant_types": []string{"authorization_code"},
			"backchannel_logout_uri": origin + "/.afterlogin/oidc/" + id + "/backchannel-logout", "backchannel_logout_session_required": true,
			"post_logout_redirect_uris": []string{origin + "/.afterlogin/login"},
		}
	}
	issuer := startProvider(t, client("example"), client("corp"))

	dir := t.TempDir()
	secretFile := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secretFile, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.Data, c.Listen = dir, strings.TrimPrefix(us.URL, "http://")
	c.Apps = []config.App{{Origin: origin, Rules: []config.Rule{{Path: "/pay", MaxAge: maxAge}, {Path: "/*"}}}}
	c.Providers = []config.Provider{
		{ID: "example", Name: "Example", Issuer: issuer, ClientID: "example", SecretFile: secretFile, Scopes: []string{"openid"}},
		{ID: "corp", Name: "Corp", Issuer: issuer, ClientID: "corp", SecretFile: secretFile, EndSession: true},
	}
	var log safeBuffer
	s, err := server.Open(t.Context(), server.Options{Config: c, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mu.Lock()
	handler = s.Handler()
	mu.Unlock()
	defer func() {
		if t.Failed() {
			t.Log(log.String())
		}
	}()

	const password = "correct horse battery staple"
	key, err := os.ReadFile(filepath.Join(dir, "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest("POST", us.URL+"/v1/users", strings.NewReader(`{"name":"mia","password":"`+password+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Api-Key", strings.TrimSpace(string(key)))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("the user: %d %s", resp.StatusCode, b)
	}
	runScript(t, "signin.mjs", "APP_URL="+origin+"/", "ISSUER="+issuer, "PASSWORD="+password,
		"MAX_AGE_MS="+strconv.FormatInt(maxAge.Milliseconds(), 10), "SHOTS="+t.ArtifactDir())
	for _, s := range []string{password, secret} {
		if strings.Contains(log.String(), s) {
			t.Errorf("the log holds %q", s)
		}
	}
}

// startProvider starts npm's oidc-provider with the clients, and returns its issuer.
func startProvider(t *testing.T, clients ...map[string]any) string {
	t.Helper()
	const install = "run scripts/test.sh, which installs what is needed (apt-get install nodejs npm; npm ci in test/oauth)"
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("there is no Node.js: %s", install)
	}
	dir, err := filepath.Abs(filepath.Join("..", "..", "test", "oauth"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); err != nil {
		t.Fatalf("the npm package oidc-provider is missing: %s", install)
	}
	text, err := json.Marshal(clients)
	if err != nil {
		t.Fatal(err)
	}
	output := t.TempDir()
	p, err := servers.StartProgram(servers.Program{
		Path: node, Args: []string{filepath.Join(dir, "provider.mjs"), "ADDR"}, Env: []string{"CLIENTS=" + string(text)},
		Dir: output, Ready: "/.well-known/openid-configuration",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if b, err := os.ReadFile(filepath.Join(output, "output")); t.Failed() && err == nil {
			t.Logf("the provider: %s", b)
		}
	})
	return "http://" + p.Addr
}

// safeBuffer is a bytes.Buffer for a logger and a test at once.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
