package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/server"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/snippet"
	"github.com/afterlogin/afterlogin/internal/servers"
)

// TestDoctorBehindProxies examines afterlogin behind real proxies with exactly what "afterlogin snippet" prints: it is in
// order. What it would find is tested where it is made; here it is the other side, and with a line of nginx's taken away
// it is found.
func TestDoctorBehindProxies(t *testing.T) {
	for _, kind := range []string{"nginx", "haproxy", "apache", "caddy"} {
		t.Run(kind, func(t *testing.T) {
			origin, own, password := behind(t, kind, "", asIs)
			code, out, errs := runCommand(t, password+"\n", (*program).doctorCommand,
				"--url", origin+"/private", "--user", "mia", "--password-stdin", "--echo", "/headers", "--afterlogin", own, "--fail-on", "warn")
			if code != exitOK {
				t.Errorf("exit %d\n%s\n%s", code, out, errs)
			}
			t.Logf("\n%s", out)
		})
	}
	t.Run("nginx with TLS", func(t *testing.T) {
		cert := filepath.Join(t.TempDir(), "cert.pem")
		origin, own, password := behind(t, "nginx", cert, asIs)
		args := []string{"--url", origin + "/private", "--user", "mia", "--password-stdin", "--echo", "/headers", "--afterlogin", own, "--fail-on", "warn"}
		code, out, errs := runCommand(t, password+"\n", (*program).doctorCommand, append(args, "--ca-file", cert)...)
		if code != exitOK || !strings.Contains(out, "TLS 1.3") {
			t.Errorf("exit %d\n%s\n%s", code, out, errs)
		}
		// Without its authority nothing secret is sent.
		code, out, errs = runCommand(t, password+"\n", (*program).doctorCommand, args...)
		if code != exitFindings || !strings.Contains(out, "FAIL  certificate") || !strings.Contains(out, "nothing secret is sent") {
			t.Errorf("a certificate that nobody knows: exit %d\n%s\n%s", code, out, errs)
		}
		code, out, errs = runCommand(t, password+"\n", (*program).gradeCommand,
			origin+"/private", "--user", "mia", "--password-stdin", "--samples", "15", "--rate", "1000", "--fail-on", "low", "--ca-file", cert)
		if code != exitOK || !strings.Contains(out, ": grade A\n") {
			t.Errorf("grade: exit %d\n%s\n%s", code, out, errs)
		}
	})
	t.Run("nginx without a line", func(t *testing.T) {
		const line = "proxy_set_header X-Auth-Subject $afterlogin_subject_"
		origin, own, password := behind(t, "nginx", "", func(s string) string {
			if !strings.Contains(s, line) {
				t.Fatalf("there is no line %q any more", line)
			}
			return strings.ReplaceAll(s, line, "# ")
		})
		code, out, errs := runCommand(t, password+"\n", (*program).doctorCommand,
			"--url", origin+"/private", "--user", "mia", "--password-stdin", "--echo", "/headers", "--afterlogin", own)
		if code != exitFindings || !strings.Contains(out, "FAIL  echo") {
			t.Errorf("exit %d\n%s\n%s", code, out, errs)
		}
	})
}

// TestGradeBehindProxy examines the sessions that afterlogin's own sign-in page makes, behind nginx.
func TestGradeBehindProxy(t *testing.T) {
	origin, _, password := behind(t, "nginx", "", asIs)
	code, out, errs := runCommand(t, password+"\n", (*program).gradeCommand,
		origin+"/private", "--user", "mia", "--password-stdin", "--samples", "20", "--rate", "1000", "--fail-on", "low")
	if code != exitOK || !strings.Contains(out, ": grade A\n") {
		t.Errorf("exit %d\n%s\n%s", code, out, errs)
	}
	t.Logf("\n%s", out)
}

// behind puts afterlogin and an application, which answers with the headers that reach it, behind a proxy. It returns the
// origin, afterlogin's own address and the password of mia. With the name of a file there is TLS, and its certificate is
// written there.
func behind(t *testing.T, kind, cert string, weaken func(string) string) (origin, own, password string) {
	t.Helper()
	scheme := "http"
	if cert != "" {
		scheme = "https"
		selfSigned(t, cert)
	}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		json.NewEncoder(w).Encode(r.Header)
	}))
	t.Cleanup(app.Close)
	var handler atomic.Pointer[http.Handler]
	us := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := handler.Load(); h != nil {
			(*h).ServeHTTP(w, r)
		}
	}))
	t.Cleanup(us.Close)
	dir, err := os.MkdirTemp("", "doctor") // Apache's files take no long names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	configure := func(addr string) string {
		_, port, _ := net.SplitHostPort(addr)
		origin = scheme + "://shop.localhost:" + port
		o := snippet.Options{
			App: app.Listener.Addr().String(), Host: "shop.localhost:" + port, Afterlogin: us.Listener.Addr().String(), Listen: addr,
			LuaPath: luaPath(kind, dir),
		}
		if cert != "" {
			plain := false
			o.Plain, o.TLSCert, o.TLSKey = &plain, cert, cert+".key"
		}
		files, err := snippet.Render(kind, o)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) > 1 {
			if err := os.WriteFile(luaPath(kind, dir), []byte(files[1].Content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return weaken(files[0].Content)
	}
	var proxy *servers.Process
	switch home := filepath.Join(dir, "proxy"); kind {
	case "nginx":
		proxy, err = servers.StartNginx(home, configure)
	case "haproxy":
		proxy, err = servers.StartHAProxy(home, configure)
	case "apache":
		proxy, err = servers.StartApache(home, []string{"headers", "lua", "proxy", "proxy_http", "ssl", "socache_shmcb"}, configure)
	case "caddy":
		proxy, err = servers.StartCaddy(home, configure)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Kill() })

	c := config.Default()
	c.Data, c.Listen, c.Origins = filepath.Join(dir, "data"), us.Listener.Addr().String(), []string{origin}
	s, err := server.Open(t.Context(), server.Options{Config: c, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	h := s.Handler()
	handler.Store(&h)
	password = "correct horse battery staple"
	key, err := os.ReadFile(filepath.Join(c.Data, "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), "POST", us.URL+"/v1/users", strings.NewReader(`{"name":"mia","password":"`+password+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Api-Key", strings.TrimSpace(string(key)))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusCreated {
		t.Fatalf("the user: %d %s", resp.StatusCode, b)
	}
	return origin, us.URL, password
}

func asIs(s string) string { return s }

// selfSigned writes a certificate for shop.localhost, and its key beside it.
func selfSigned(t *testing.T, file string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "shop.localhost"}, DNSNames: []string{"shop.localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 3, 0), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(nil, c, c, public, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{file: {Type: "CERTIFICATE", Bytes: der}, file + ".key": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func luaPath(kind, dir string) string {
	if kind == "haproxy" || kind == "apache" {
		return filepath.Join(dir, "afterlogin.lua")
	}
	return ""
}
