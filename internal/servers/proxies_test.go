package servers

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every proxy answers with what it was configured to, ends with its processes, and starts again where it was.
func TestProxies(t *testing.T) {
	tests := []struct {
		name, want string
		start      func(dir string) (*Process, error)
	}{
		{"nginx", "nginx here", func(dir string) (*Process, error) {
			return StartNginx(dir, func(addr string) string {
				return fmt.Sprintf("server { listen %s; location / { return 200 'nginx here'; } }", addr)
			})
		}},
		{"caddy", "caddy here", func(dir string) (*Process, error) {
			return StartCaddy(dir, func(addr string) string {
				_, port, _ := net.SplitHostPort(addr)
				return fmt.Sprintf("http://:%s {\n\tbind 127.0.0.1\n\trespond \"caddy here\"\n}\n", port)
			})
		}},
		{"haproxy", "haproxy here", func(dir string) (*Process, error) {
			return StartHAProxy(dir, func(addr string) string {
				return fmt.Sprintf("defaults\n mode http\n timeout client 5s\nfrontend f\n bind %s\n http-request return status 200 content-type text/plain string \"haproxy here\"\n", addr)
			})
		}},
		{"apache", "apache here", func(dir string) (*Process, error) {
			return StartApache(dir, []string{"lua"}, func(addr string) string {
				os.WriteFile(filepath.Join(dir, "here.lua"), []byte("function here(r)\n r:write('apache here')\n return apache2.DONE\nend\n"), 0o644)
				return fmt.Sprintf("Listen %s\nLuaHookAccessChecker %s/here.lua here early\n", addr, dir)
			})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			p, err := tt.start(dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Kill() })
			for _, end := range []func() error{p.Stop, p.Kill, p.Stop} {
				resp, err := http.Get("http://" + p.Addr + "/")
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(b) != tt.want {
					t.Errorf("it says %q, want %q", b, tt.want)
				}
				if err := end(); err != nil {
					t.Fatal(err)
				}
				if c, err := net.Dial("tcp", p.Addr); err == nil {
					c.Close()
					t.Error("something listens after the end")
				}
				if err := p.Start(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A configuration that is refused is told with the proxy's own words, and a missing program with its package.
func TestProxiesRefuse(t *testing.T) {
	bad := func(string) string { return "nonsense here\n" }
	badCaddy := func(string) string { return ":80 {\n\tnonsense here\n}\n" }
	badNginx := func(string) string { return "nonsense here;\n" }
	starts := map[string]func(string) (*Process, error){
		"nginx-light": func(dir string) (*Process, error) { return StartNginx(dir, badNginx) },
		"caddy":       func(dir string) (*Process, error) { return StartCaddy(dir, badCaddy) },
		"haproxy":     func(dir string) (*Process, error) { return StartHAProxy(dir, bad) },
		"apache2":     func(dir string) (*Process, error) { return StartApache(dir, nil, bad) },
	}
	for deb, start := range starts {
		if _, err := start(t.TempDir()); err == nil || !strings.Contains(err.Error(), "nonsense") {
			t.Errorf("%s: %v, want what the program says", deb, err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := StartCaddy(t.TempDir(), bad); err == nil || !strings.Contains(err.Error(), "package caddy") {
		t.Errorf("StartCaddy = %v, want the name of the package", err)
	}
}
