package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/internal/servers"
)

// A storeServer is what two servers share, and what a test does to it.
type storeServer struct {
	url   string
	kill  func() error
	start func() error
}

var storeServers = map[string]func(t *testing.T) storeServer{
	"redis": func(t *testing.T) storeServer {
		p, err := servers.StartRedis(t.TempDir(), "appendonly yes", "appendfsync always", "user mia on >"+storePassword+" ~* &* +@all")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Stop() })
		return storeServer{"redis://mia:" + storePassword + "@" + p.Addr, p.Kill, p.Start}
	},
	"postgres": func(t *testing.T) storeServer {
		p, err := servers.StartPostgres(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Stop() })
		return storeServer{p.URL, p.Kill, p.Start}
	},
}

const storePassword = "pw-canary-3141"

// within asks until the answer is yes, and fails when it takes longer.
func within(t *testing.T, limit time.Duration, what string, yes func() (bool, string)) {
	t.Helper()
	begun := time.Now()
	for {
		ok, got := yes()
		if ok {
			t.Logf("%s: after %v", what, time.Since(begun).Round(time.Millisecond))
			return
		}
		if time.Since(begun) > limit {
			t.Fatalf("%s: not after %v: %s", what, limit, got)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// get asks the server and returns the whole answer.
func (s *serving) get(t *testing.T, method, path string, body any) (*http.Response, string) {
	t.Helper()
	var b []byte
	if body != nil {
		b, _ = json.Marshal(body)
	}
	r, err := http.NewRequest(method, s.base+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("x-api-key", s.key)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.client.Do(r)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func (s *serving) active(t *testing.T, token string) (bool, string) {
	resp, body := s.get(t, "POST", "/v1/validate", api.ValidateRequest{Token: token})
	return resp.StatusCode == 200 && strings.Contains(body, `"active":true`), fmt.Sprintf("%d %s", resp.StatusCode, body)
}

func (s *serving) ready(t *testing.T) (bool, string) {
	resp, body := s.get(t, "GET", "/readyz", nil)
	return resp.StatusCode == 200, fmt.Sprintf("%d %s", resp.StatusCode, body)
}

// Two servers on one store: what one does the other knows, and when the store is gone both say so.
func TestTwoServersOnOneStore(t *testing.T) {
	for name, open := range storeServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := open(t)
			dir := t.TempDir()
			secret := func(file, text string) string {
				path := filepath.Join(dir, file)
				if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			}
			args := []string{"--store-file", secret("store", st.url), "--issuer", "https://auth.example.com",
				"--master-key-file", secret("master", base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{3}, 32)))}
			one, err := startServer(t, filepath.Join(dir, "one"), args...)
			if err != nil {
				t.Fatal(err)
			}
			two, listening, err := launch(t, filepath.Join(dir, "two"), args...)
			if err != nil {
				t.Fatal(err)
			}
			select {
			case two.base = <-listening:
			case <-two.log.ended:
				t.Fatalf("the second server ended: %s", two.log)
			}
			two.key = one.key // the first made it, the second did not
			within(t, 5*time.Second, "the second is ready", func() (bool, string) { return two.ready(t) })

			resp, body := one.get(t, "POST", "/v1/sessions", api.CreateRequest{Subject: "mia"})
			var in api.Created
			if err := json.Unmarshal([]byte(body), &in); err != nil || resp.StatusCode != 201 {
				t.Fatal(resp.Status, body)
			}
			if ok, got := two.active(t, in.Token); !ok {
				t.Fatalf("the other server does not know the session: %s", got)
			}
			if resp, body := two.get(t, "DELETE", "/v1/sessions/"+in.Session.ID, nil); resp.StatusCode != 204 {
				t.Fatal(resp.Status, body)
			}
			if ok, _ := two.active(t, in.Token); ok {
				t.Error("the server that revoked it accepts it")
			}
			within(t, time.Second, "a revocation on the other server", func() (bool, string) {
				ok, got := one.active(t, in.Token)
				return !ok, got
			})

			keys := func(s *serving) int {
				_, body := s.get(t, "GET", "/.well-known/jwks.json", nil)
				return strings.Count(body, `"kid"`)
			}
			if n := keys(two); n != 1 {
				t.Errorf("%d signing keys after two first starts, want 1", n)
			}
			if resp, body := one.get(t, "POST", "/v1/keys/rotate", map[string]string{}); resp.StatusCode != 201 {
				t.Fatal(resp.Status, body)
			}
			within(t, time.Second, "the next signing key on the other server", func() (bool, string) {
				n := keys(two)
				return n == 2, fmt.Sprint(n)
			})

			_, body = one.get(t, "POST", "/v1/sessions", api.CreateRequest{Subject: "tom"})
			if err := json.Unmarshal([]byte(body), &in); err != nil {
				t.Fatal(body)
			}
			if err := st.kill(); err != nil {
				t.Fatal(err)
			}
			within(t, 5*time.Second, "503 with the store killed", func() (bool, string) {
				sent := time.Now()
				resp, body := one.get(t, "POST", "/v1/validate", api.ValidateRequest{Token: in.Token})
				if took := time.Since(sent); took > 3*time.Second {
					t.Errorf("an answer took %v", took)
				}
				if resp.StatusCode == 503 && resp.Header.Get("Retry-After") == "" {
					t.Error("503 without Retry-After")
				}
				if strings.Contains(body, `"active":false`) {
					t.Errorf("with the store killed: %s", body)
				}
				return resp.StatusCode == 503, fmt.Sprintf("%d %s", resp.StatusCode, body)
			})
			within(t, 5*time.Second, "/readyz with the store killed", func() (bool, string) {
				ok, got := two.ready(t)
				return !ok, got
			})
			if resp, _ := two.get(t, "GET", "/livez", nil); resp.StatusCode != 200 {
				t.Errorf("livez with the store killed: %s", resp.Status)
			}
			if err := st.start(); err != nil {
				t.Fatal(err)
			}
			within(t, 5*time.Second, "validate with the store back", func() (bool, string) { return one.active(t, in.Token) })
			within(t, 5*time.Second, "/readyz with the store back", func() (bool, string) { return two.ready(t) })
			if _, body := two.get(t, "GET", "/metrics", nil); !strings.Contains(body, "afterlogin_feed_changes_total") {
				t.Errorf("metrics:\n%s", body)
			}
			check := exec.Command("afterlogin", "store", "check", "--store", st.url, "--master-key-file", filepath.Join(dir, "master"))
			if out, err := check.CombinedOutput(); err != nil || strings.Contains(string(out), storePassword) {
				t.Errorf("store check: %v\n%s", err, out)
			}
			for _, s := range []*serving{one, two} {
				s.kill()
				if strings.Contains(s.log.String(), storePassword) || strings.Contains(s.log.String(), in.Token) {
					t.Error("a secret stands in the log")
				}
			}
		})
	}
}
