package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/backend"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/keyring"
)

// buffer is a bytes.Buffer for a logger and a test at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// settings returns the default configuration on a directory of the test.
func settings(dir string) config.Config {
	c := config.Default()
	os.Chmod(dir, 0o700) // if it is there: who tests may have another umask
	c.Data = dir
	c.Listen = "127.0.0.1:0"
	c.Drain = 0
	return c
}

// open opens a server. The test closes it.
func open(t *testing.T, c config.Config, newKey bool) (*Server, *buffer) {
	t.Helper()
	s, log, err := tryOpen(t, c, newKey)
	if err != nil {
		t.Fatal(err)
	}
	return s, log
}

func tryOpen(t *testing.T, c config.Config, newKey bool) (*Server, *buffer, error) {
	t.Helper()
	log := &buffer{}
	s, err := Open(t.Context(), Options{Config: c, Logger: NewLogger(log, "debug", true), NewAdminKey: newKey})
	return s, log, err
}

func adminKey(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, adminKeyFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
	}
	return strings.TrimSpace(string(b))
}

// ask sends a request to the handler and returns the answer with its body read.
func ask(s *Server, method, target, key, body string) (*http.Response, string) {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:7070"
	if key != "" {
		r.Header.Set("x-api-key", key)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

func TestAdminKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	c := settings(dir)
	good := func(s *Server, key string) bool {
		resp, _ := ask(s, "GET", "/v1/sessions", key, "")
		return resp.StatusCode == http.StatusOK
	}
	s, _ := open(t, c, false)
	first := adminKey(t, dir)
	if !good(s, first) || s.AdminKey != filepath.Join(dir, adminKeyFile) {
		t.Errorf("the first key does not work; it is said to be in %q", s.AdminKey)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the data directory has mode %v", info.Mode())
	}
	s.Close()

	s, _ = open(t, c, false) // a second start makes no other
	if adminKey(t, dir) != first || !good(s, first) {
		t.Error("the second start changed the key")
	}
	s.Close()

	os.Remove(filepath.Join(dir, adminKeyFile)) // kept elsewhere
	s, _ = open(t, c, false)
	if _, err := os.Stat(filepath.Join(dir, adminKeyFile)); err == nil || !good(s, first) || !strings.Contains(s.AdminKey, "--new-admin-key") {
		t.Errorf("after its file was removed: %q, %v", s.AdminKey, err)
	}
	s.Close()

	s, _ = open(t, c, true) // another one, on request
	second := adminKey(t, dir)
	if second == first || good(s, first) || !good(s, second) {
		t.Error("--new-admin-key did not replace the key")
	}
	s.Close()

	os.WriteFile(filepath.Join(dir, adminKeyFile), nil, 0o600) // a crash while it was made
	s, _ = open(t, c, false)
	third := adminKey(t, dir)
	if good(s, second) || !good(s, third) {
		t.Error("an interrupted making was not completed")
	}
	s.Close()

	os.WriteFile(filepath.Join(dir, adminKeyFile), []byte("something else\n"), 0o600)
	s, log := open(t, c, false)
	if !strings.Contains(log.String(), "not the admin key") || !good(s, third) {
		t.Errorf("a wrong key in the file is not reported: %s", log)
	}
	_, body := ask(s, "GET", "/v1/sessions?kind=api_key", third, "")
	var l api.List
	json.Unmarshal([]byte(body), &l)
	if len(l.Data) != 1 || l.Data[0].Subject != api.AdminSubject {
		t.Fatalf("keys: %s", body)
	}
	if resp, body := ask(s, "DELETE", "/v1/sessions/"+l.Data[0].ID, third, ""); resp.StatusCode != 204 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	s.Close()

	s, _ = open(t, c, false) // ended on purpose: no other by itself
	if !strings.Contains(s.AdminKey, "--new-admin-key") || good(s, third) {
		t.Errorf("an ended key: %q", s.AdminKey)
	}
	s.Close()
	for _, key := range []string{first, second, third} {
		if strings.Contains(log.String(), key) {
			t.Error("a key stands in the log")
		}
	}
}

// An admin key that ended, and that the store has forgotten since, is not made anew by itself.
func TestAdminKeyForgotten(t *testing.T) {
	dir := t.TempDir()
	c := settings(dir)
	forget := func() { // as a purge does, and more
		t.Helper()
		if err := os.RemoveAll(filepath.Join(dir, backend.Dir)); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := open(t, c, false)
	old := adminKey(t, dir)
	s.Close()
	for _, kept := range []bool{true, false} { // the file with the old key
		if !kept {
			os.Remove(filepath.Join(dir, adminKeyFile))
		}
		forget()
		s, log := open(t, c, false)
		b, err := os.ReadFile(filepath.Join(dir, adminKeyFile))
		if kept && strings.TrimSpace(string(b)) != old || !kept && err == nil {
			t.Errorf("file kept %v: another key was made", kept)
		}
		if !strings.Contains(s.AdminKey, "--new-admin-key") || !strings.Contains(log.String(), "--new-admin-key") {
			t.Errorf("file kept %v: no remedy: %q, %s", kept, s.AdminKey, log)
		}
		s.Close()
	}
	s, _ = open(t, c, true)
	if key := adminKey(t, dir); key == old {
		t.Error("--new-admin-key made none")
	}
	s.Close()
	// A directory of before there was a note gets one.
	os.Remove(filepath.Join(dir, adminKeyNote))
	s, _ = open(t, c, false)
	s.Close()
	if _, err := os.Stat(filepath.Join(dir, adminKeyNote)); err != nil {
		t.Error(err)
	}
}

// A directory that others can write to is refused, before anything is put there.
func TestWritableByOthers(t *testing.T) {
	for mode, ok := range map[os.FileMode]bool{0o700: true, 0o750: true, 0o755: true, 0o777: false, 0o720: false, 0o702: false} {
		dir := t.TempDir()
		c := settings(dir)
		os.Chmod(dir, mode)
		s, _, err := tryOpen(t, c, false)
		if err == nil {
			s.Close()
		}
		var setup *SetupError
		if ok != (err == nil) || !ok && (!errors.As(err, &setup) || !strings.Contains(setup.Hint, "chmod 700 "+dir)) {
			t.Errorf("mode %04o: %v", mode, err)
		}
		if entries, _ := os.ReadDir(dir); !ok && len(entries) > 0 {
			t.Errorf("mode %04o: %v was made all the same", mode, entries)
		}
	}
}

func TestAdminKeyWithoutEnd(t *testing.T) {
	dir := t.TempDir()
	c := settings(dir)
	c.Policies[afterlogin.PolicyAPIKey] = afterlogin.Policy{KeepOnReuse: true}
	s, _ := open(t, c, false)
	defer s.Close()
	_, body := ask(s, "GET", "/v1/sessions", adminKey(t, dir), "")
	if strings.Contains(body, "expires_at") || !strings.Contains(body, "key_") {
		t.Errorf("got %s", body)
	}
}

// The policies of the configuration are those that sessions live by, and the log tells of what is worth telling.
func TestPoliciesAndEvents(t *testing.T) {
	dir := t.TempDir()
	c := settings(dir)
	kiosk := afterlogin.Policy{Idle: time.Minute, Absolute: time.Hour, Renewal: 40 * time.Second, Grace: 10 * time.Second}
	c.Policies["kiosk"] = kiosk
	s, log := open(t, c, false)
	defer s.Close()
	key := adminKey(t, dir)
	resp, body := ask(s, "POST", "/v1/sessions", key, `{"subject":"mia","policy":"kiosk"}`)
	var got api.Created
	if json.Unmarshal([]byte(body), &got); resp.StatusCode != 201 || got.Session.ExpiresAt.Sub(got.Session.CreatedAt) != time.Hour ||
		got.Session.IdleAt.Sub(got.Session.LastSeenAt) != time.Minute {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	ask(s, "DELETE", "/v1/subjects/mia/sessions", key, "")
	ask(s, "GET", "/v1/sessions?token="+got.Token, key, "")
	for _, want := range []string{
		`"level":"DEBUG","msg":"session.created","session":"` + got.Session.ID + `","subject":"mia"`,
		`"level":"INFO","msg":"subject.signed_out"`,
		`"level":"WARN","msg":"request.token_in_url"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in the log:\n%s", want, log)
		}
	}
}

func TestUnusableData(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "file")
	os.WriteFile(file, []byte("x"), 0o600)
	inStore := filepath.Join(root, "b")
	os.MkdirAll(inStore, 0o700)
	os.WriteFile(filepath.Join(inStore, backend.Dir), []byte("x"), 0o600)
	used := filepath.Join(root, "used")
	s, _ := open(t, settings(used), false)
	defer s.Close()
	for name, dir := range map[string]string{"a file": file, "below a file": filepath.Join(file, "x"), "a file for the store": inStore, "in use": used} {
		_, _, err := tryOpen(t, settings(dir), false)
		var setup *SetupError
		if !errors.As(err, &setup) || !strings.Contains(err.Error(), dir) || setup.Hint == "" || !strings.Contains(setup.Hint, "--data") {
			t.Errorf("%s: %v (%+v)", name, err, setup)
		}
	}
}

func TestKeysOfAnother(t *testing.T) {
	dir := t.TempDir()
	c := settings(dir)
	s, _ := open(t, c, false)
	s.Close()
	keys, master := filepath.Join(dir, keysFile), filepath.Join(dir, masterFile)
	saved := make(map[string][]byte)
	for _, f := range []string{keys, master} {
		saved[f], _ = os.ReadFile(f)
	}
	restore := func() {
		for f, b := range saved {
			os.WriteFile(f, b, 0o600)
		}
	}
	other := bytes.Repeat([]byte("A"), 43)
	tests := []struct {
		name   string
		break_ func(c *config.Config)
		want   string
	}{
		{"no keys", func(*config.Config) { os.Remove(keys) }, "keys.json is missing"},
		{"no master key", func(*config.Config) { os.Remove(master) }, "master.key is missing"},
		{"another master key", func(*config.Config) { os.WriteFile(master, append(other, '='), 0o600) }, "does not open the keys"},
		{"readable master key", func(*config.Config) { os.Chmod(master, 0o644) }, "can be read by others"},
		{"a master key that is none", func(*config.Config) { os.WriteFile(master, []byte("hello"), 0o600) }, "32 random bytes in base64"},
		{"junk for keys", func(*config.Config) { os.WriteFile(keys, []byte("junk"), 0o600) }, "bad key file"},
		{"another from the environment", func(c *config.Config) { c.MasterKey = string(other) + "=" }, "does not open the keys"},
		{"none from the environment", func(c *config.Config) { c.MasterKey = "hunter2" }, "AFTERLOGIN_MASTER_KEY"},
		{"no such file", func(c *config.Config) { c.MasterKeyFile = filepath.Join(dir, "none") }, "none"},
	}
	for _, tt := range tests {
		c := c
		tt.break_(&c)
		_, _, err := tryOpen(t, c, false)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		os.Chmod(master, 0o600)
		restore()
	}
	c.MasterKeyFile = filepath.Join(dir, "elsewhere")
	os.Rename(master, c.MasterKeyFile)
	os.Chmod(c.MasterKeyFile, 0o444) // as containers mount secrets
	s, _ = open(t, c, false)
	s.Close()
	b, _ := os.ReadFile(c.MasterKeyFile)
	c.MasterKeyFile, c.MasterKey = "", strings.TrimSpace(string(b))
	s, _ = open(t, c, false)
	s.Close()
	if _, err := keyring.ParseMaster(c.MasterKey); err != nil {
		t.Error(err)
	}
}

// every answer, whatever it says, has these headers.
var everyHeader = map[string]string{
	"X-Content-Type-Options":  "nosniff",
	"Cache-Control":           "no-store",
	"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
	"Referrer-Policy":         "no-referrer",
}

func TestHeaders(t *testing.T) {
	dir := t.TempDir()
	s, log := open(t, settings(dir), false)
	defer s.Close()
	key := adminKey(t, dir)
	s.handler = s.handle(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic("oh no " + key)
		case "/late-panic":
			w.WriteHeader(200)
			panic("too late")
		}
		api.New(s.authority, api.Options{}).ServeHTTP(w, r)
	}))
	for _, tt := range []struct {
		method, path, key, body string
		status                  int
	}{
		{"GET", "/livez", "", "", 200},
		{"HEAD", "/readyz", "", "", 200},
		{"POST", "/livez", "", "", 405},
		{"GET", "/openapi.json", "", "", 200},
		{"GET", "/v1/sessions", key, "", 200},
		{"POST", "/v1/sessions", key, `{"subject":"mia"}`, 201},
		{"POST", "/v1/validate", key, `{"token":"x"}`, 200},
		{"GET", "/v1/sessions", "", "", 401},
		{"GET", "/nothing", "", "", 404},
		{"GET", "//v1/sessions", "", "", 404},
		{"PATCH", "/v1/sessions", key, "", 405},
		{"POST", "/v1/sessions", key, `{}`, 422},
		{"GET", "/panic", "", "", 500},
	} {
		resp, body := ask(s, tt.method, tt.path, tt.key, tt.body)
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s: %d %s, want %d", tt.method, tt.path, resp.StatusCode, body, tt.status)
		}
		for h, want := range everyHeader {
			if got := resp.Header.Get(h); got != want {
				t.Errorf("%s %s: %s %q, want %q", tt.method, tt.path, h, got, want)
			}
		}
		if id := resp.Header.Get("X-Request-Id"); len(id) < 20 || tt.status >= 400 && !strings.Contains(body, id) {
			t.Errorf("%s %s: request id %q, body %s", tt.method, tt.path, id, body)
		}
		if strings.Contains(body, "oh no") {
			t.Errorf("a panic is shown: %s", body)
		}
		if resp.Header.Get("Strict-Transport-Security") != "" {
			t.Errorf("HSTS on plain HTTP")
		}
	}
	func() {
		defer func() {
			if recover() != http.ErrAbortHandler {
				t.Error("a panic after the answer began does not cut it off")
			}
		}()
		ask(s, "GET", "/late-panic", "", "")
	}()
	if got := log.String(); !strings.Contains(got, `"oh no [token]"`) || strings.Contains(got, key) || !strings.Contains(got, `"path":"/v1/sessions"`) {
		t.Errorf("log: %s", got)
	}
}

func TestHost(t *testing.T) {
	tests := []struct {
		listen string
		hosts  []string
		host   string
		ok     bool
	}{
		{"127.0.0.1:7070", nil, "127.0.0.1:7070", true},
		{"127.0.0.1:7070", nil, "localhost", true},
		{"127.0.0.1:7070", nil, "localhost:7070", true},
		{"127.0.0.1:7070", nil, "[::1]:7070", true},
		{"127.0.0.1:7070", nil, "[::1]", true},
		{"127.0.0.1:7070", nil, "LOCALHOST.", true},
		{"127.0.0.1:7070", nil, "shop.localhost", true},
		{"127.0.0.1:7070", nil, "evil.example", false},
		{"127.0.0.1:7070", nil, "evil.example:7070", false},
		{"127.0.0.1:7070", nil, "127.0.0.1.evil.example", false},
		{"127.0.0.1:7070", nil, "10.0.0.1", false},
		{"127.0.0.1:7070", nil, "", false},
		{"127.0.0.1:7070", []string{"auth.example"}, "auth.example", true},
		{"127.0.0.1:7070", []string{"auth.example"}, "AUTH.example:443", true},
		{"127.0.0.1:7070", []string{"auth.example"}, "other.example", false},
		{"0.0.0.0:7070", nil, "anything.example", true},
		{"0.0.0.0:7070", []string{"auth.example"}, "auth.example", true},
		{"0.0.0.0:7070", []string{"auth.example"}, "other.example", false},
	}
	dir := t.TempDir()
	s, _ := open(t, settings(dir), false)
	defer s.Close()
	inner := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})
	for _, tt := range tests {
		s.config.Listen, s.config.Hosts = tt.listen, tt.hosts
		h := s.handle(inner)
		for _, path := range []string{"/v1/sessions", "/livez"} {
			r := httptest.NewRequest("GET", path, nil)
			r.Host = tt.host
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			want := 200
			if !tt.ok && path != "/livez" {
				want = http.StatusMisdirectedRequest
			}
			if w.Code != want {
				t.Errorf("%s on %s with %q: %d, want %d", path, tt.listen, tt.host, w.Code, want)
			}
			if want != 200 && !strings.Contains(w.Body.String(), "--host") {
				t.Errorf("no remedy: %s", w.Body)
			}
		}
	}
}

func TestReady(t *testing.T) {
	s, _ := open(t, settings(t.TempDir()), false)
	if resp, body := ask(s, "GET", "/readyz", "", ""); resp.StatusCode != 200 || body != "{\"status\":\"ready\"}\n" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	s.draining.Store(true)
	resp, body := ask(s, "GET", "/readyz", "", "")
	if resp.StatusCode != 503 || body != "{\"status\":\"stopping\"}\n" || resp.Header.Get("Connection") != "close" {
		t.Errorf("stopping: %d %s", resp.StatusCode, body)
	}
	if resp, _ := ask(s, "GET", "/livez", "", ""); resp.StatusCode != 200 {
		t.Errorf("livez while stopping: %d", resp.StatusCode)
	}
	s.draining.Store(false)
	s.data.store.Close() // the store does not answer
	if resp, body := ask(s, "GET", "/readyz", "", ""); resp.StatusCode != 503 || body != `{"status":"unavailable","reason":"the store does not answer"}`+"\n" {
		t.Errorf("store closed: %d %s", resp.StatusCode, body)
	}
	if resp, _ := ask(s, "GET", "/livez", "", ""); resp.StatusCode != 200 {
		t.Errorf("livez with the store closed: %d", resp.StatusCode)
	}
	s.authority.Close()
}

// start runs the server on a port of its own. The returned function stops it and returns what Run returned.
func start(t *testing.T, s *Server) (base string, stop func() error) {
	t.Helper()
	l, err := Listen(s.config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	scheme := "http://"
	if s.config.TLSCert != "" {
		scheme = "https://"
	}
	var once sync.Once
	stop = func() (err error) {
		once.Do(func() {
			cancel()
			err = <-done
		})
		return err
	}
	t.Cleanup(func() { stop() })
	return scheme + l.Addr().String(), stop
}

func TestLargeHeader(t *testing.T) {
	s, _ := open(t, settings(t.TempDir()), false)
	defer s.Close()
	base, stop := start(t, s)
	get := func(set func(http.Header)) int {
		r, _ := http.NewRequest("GET", base+"/v1/sessions", nil)
		set(r.Header)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := get(func(h http.Header) { h.Set("Cookie", strings.Repeat("x", 1<<20)) }); got != 431 {
		t.Errorf("a cookie of 1 MiB: %d, want 431", got)
	}
	if got := get(func(h http.Header) {
		for i := range 200 {
			h.Add("Cookie", fmt.Sprintf("session_id=%d", i))
		}
	}); got != 401 {
		t.Errorf("200 cookies: %d, want 401", got)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// certificate makes a certificate for the server, and has the configuration name it.
func certificate(t *testing.T, dir string, c *config.Config) *x509.CertPool {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "afterlogin test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs, _ := x509.MarshalPKCS8PrivateKey(key)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	c.TLSCert, c.TLSKey = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	os.WriteFile(c.TLSCert, cert, 0o600)
	os.WriteFile(c.TLSKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs}), 0o600)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	c := settings(filepath.Join(dir, "data"))
	pool := certificate(t, dir, &c)
	s, _ := open(t, c, false)
	defer s.Close()
	base, stop := start(t, s)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	resp, err := client.Get(base + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.ProtoMajor != 2 || resp.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("%d %s %v", resp.StatusCode, resp.Proto, resp.Header)
	}
	old := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS11}}}
	if resp, err := old.Get(base + "/livez"); err == nil {
		resp.Body.Close()
		t.Error("TLS 1.1 is spoken")
	}
	if resp, err := http.Get("http" + strings.TrimPrefix(base, "https") + "/livez"); err != nil || resp.StatusCode != 400 {
		t.Errorf("plain HTTP on the TLS port: %v %v", resp, err)
	} else {
		resp.Body.Close()
	}
	client.CloseIdleConnections()
	if err := stop(); err != nil {
		t.Error(err)
	}
	c.TLSKey = c.TLSCert
	c.Data = filepath.Join(dir, "other")
	var setup *SetupError
	if _, _, err := tryOpen(t, c, false); !errors.As(err, &setup) {
		t.Errorf("a certificate for a key: %v", err)
	}
	if _, err := os.Stat(c.Data); err == nil {
		t.Error("the data directory was made all the same")
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := settings(t.TempDir())
	c.Listen = l.Addr().String()
	var setup *SetupError
	if _, err := Listen(c); !errors.As(err, &setup) || !strings.Contains(setup.Hint, "--listen") || !strings.Contains(err.Error(), c.Listen) {
		t.Errorf("got %v", err)
	}
}

// TestStopUnderLoad asks the server to stop while clients sign in as fast as they can, half of them over connections
// that they keep, half over new ones. Every request that was sent is answered, and every answer is true afterwards.
func TestStopUnderLoad(t *testing.T) {
	dir := t.TempDir()
	c := settings(dir)
	c.Drain = config.Duration(150 * time.Millisecond)
	s, _ := open(t, c, false)
	base, stop := start(t, s)
	key := adminKey(t, dir)
	type result struct {
		acked []string
		err   error
	}
	results := make(chan result)
	began := make(chan struct{}, 8)
	for i := range 8 {
		go func() {
			var r result
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 1}}
			defer client.CloseIdleConnections()
			for n := 0; ; n++ {
				req, _ := http.NewRequest("POST", base+"/v1/sessions", strings.NewReader(fmt.Sprintf(`{"subject":"c%d-%d"}`, i, n)))
				req.Header.Set("x-api-key", key)
				req.Header.Set("Content-Type", "application/json")
				resp, err := client.Do(req)
				if err != nil {
					// Who does not get as far as a connection has sent nothing: the port is closed, or was closed between
					// the kernel's two halves of a handshake (a reset).
					var op *net.OpError
					if !errors.As(err, &op) || op.Op != "dial" {
						r.err = fmt.Errorf("client %d, request %d: %w", i, n, err)
					}
					break
				}
				var got api.Created
				err = json.NewDecoder(resp.Body).Decode(&got)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 201 {
					r.err = fmt.Errorf("client %d, request %d: %d %w", i, n, resp.StatusCode, err)
					break
				}
				r.acked = append(r.acked, got.Session.ID)
				if n == 5 {
					began <- struct{}{}
				}
			}
			results <- r
		}()
	}
	for range 8 {
		<-began
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	var acked []string
	for range 8 {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
		}
		acked = append(acked, r.acked...)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = open(t, c, false)
	defer s.Close()
	for _, id := range acked {
		if got, err := s.authority.Session(t.Context(), afterlogin.SessionID(id)); err != nil || !got.Ended.IsZero() {
			t.Fatalf("%s was answered and is gone: %v", id, err)
		}
	}
	t.Logf("%d sign-ins", len(acked))
}

// A request that runs when the server is asked to stop is finished, up to the timeout; then it is cut off, and Run says
// so.
func TestStopFinishesRequests(t *testing.T) {
	s, _ := open(t, settings(t.TempDir()), false)
	defer s.Close()
	entered, release := make(chan struct{}), make(chan struct{})
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		io.WriteString(w, "done")
	})
	base, stop := start(t, s)
	got := make(chan string, 1)
	go func() {
		resp, err := http.Get(base)
		if err != nil {
			got <- err.Error()
			return
		}
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	select {
	case err := <-stopped:
		t.Fatalf("stopped before the request was done: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	close(release)
	if text := <-got; text != "done" {
		t.Errorf("got %q", text)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestStopTimeout(t *testing.T) {
	c := settings(t.TempDir())
	c.Shutdown = config.Duration(50 * time.Millisecond)
	s, _ := open(t, c, false)
	defer s.Close()
	entered := make(chan struct{})
	s.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	})
	base, stop := start(t, s)
	go http.Get(base)
	<-entered
	if err := stop(); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("got %v", err)
	}
}

func TestLogger(t *testing.T) {
	token := "als_" + strings.Repeat("A", 84)
	for _, asJSON := range []bool{true, false} {
		var b buffer
		log := NewLogger(&b, "info", asJSON)
		log.Info("message "+token, "text", token, "err", errors.New("with "+token), slog.Group("g", "text", token), "token", afterlogin.TokenFrom(token))
		log.Debug("not shown")
		if got := b.String(); strings.Contains(got, "AAAA") || strings.Count(got, "[token]") != 5 || strings.Contains(got, "not shown") {
			t.Errorf("got %s", got)
		}
	}
}
