package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// traces are the forms in which a token, or the secret in it, could stand somewhere.
func traces(t *testing.T, token string) (all [][]byte) {
	t.Helper()
	body, err := base64.RawURLEncoding.DecodeString(token[4:])
	if err != nil || len(body) != 63 {
		t.Fatalf("a token of %d bytes: %v", len(body), err)
	}
	secret := body[23:47] // behind layout, key id, bucket, root and generation
	return [][]byte{
		[]byte(token), []byte(token[35:66]), secret, []byte(hex.EncodeToString(secret)), []byte(strings.ToUpper(hex.EncodeToString(secret))),
		[]byte(base64.StdEncoding.EncodeToString(secret)), []byte(base64.URLEncoding.EncodeToString(secret)),
		[]byte(fmt.Sprint(secret)), // as %v prints bytes
	}
}

// TestCanary has a server issue tokens, take them back in every way and in every wrong place, and stop; and then looks
// for them in everything that was written: the data directory, the log, the errors, the metrics, the traces, and what the
// commands print.
func TestCanary(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	var mu sync.Mutex
	var spans bytes.Buffer // as they are sent
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		io.Copy(&spans, r.Body)
	}))
	defer collector.Close()
	s, err := startServer(t, data, "OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL)
	if err != nil {
		t.Fatal(err)
	}
	var texts bytes.Buffer // errors, and what commands print
	tokens := []string{s.key}
	issue := func(method, path, body string) (token, id string) {
		var got struct {
			Token   string
			Session api.Session
		}
		status, err := s.call(method, path, []byte(body), &got)
		if err != nil || status >= 300 {
			t.Fatalf("%s %s: %d %v", method, path, status, err)
		}
		if got.Token != "" {
			tokens = append(tokens, got.Token)
		}
		return got.Token, got.Session.ID
	}
	send := func(method, path, body, key string, headers ...string) {
		r, err := http.NewRequest(method, s.base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if key != "" {
			r.Header.Set("Authorization", "Bearer "+key)
		}
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Set(name, value)
		}
		resp, err := s.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		fmt.Fprintf(&texts, "%s\n%v\n%s\n", path[:min(len(path), 20)], resp.Header, b)
	}
	run := func(stdin string, args ...string) {
		c := exec.Command("afterlogin", args...)
		c.Env = append(os.Environ(), "AFTERLOGIN_SERVER="+s.base, "AFTERLOGIN_KEY="+s.key)
		c.Stdin = strings.NewReader(stdin)
		out, _ := c.CombinedOutput()
		texts.Write(out)
	}
	for n := range 20 {
		token, id := issue("POST", "/v1/sessions", fmt.Sprintf(`{"subject":"s%d","data":{"cart":[1,2,3]}}`, n%3))
		next, _ := issue("POST", "/v1/renew", `{"token":"`+token+`"}`)
		body := `{"token":"` + token + `"}`
		send("POST", "/v1/validate", body, s.key)
		send("POST", "/v1/validate", `{"tokens":["`+token+`","`+next+`"]}`, s.key)
		send("POST", "/v1/explain", body, s.key)
		run(next, "token", "explain")
		run(next, "token", "explain", "--json")
		switch n {
		case 0: // in the wrong places
			send("POST", "/v1/validate", body, next)
			send("POST", "/v1/validate", body, "", "x-api-key: "+next)
			send("POST", "/v1/validate", `{"`+next+`":1}`, s.key)
			send("POST", "/v1/validate", `{"token":["`+next+`"]}`, s.key)
			send("POST", "/v1/validate", `{"token":"x","kinds":["`+next+`"]}`, s.key)
			send("POST", "/v1/validate", `{"token":"x","max_age":"`+next+`"}`, s.key)
			send("POST", "/v1/validate", `{"token":"`+next+`"`, s.key)
			send("POST", "/v1/sessions", `{"subject":"`+next+`"}`, s.key)
			send("POST", "/v1/sessions", `{"subject":"x","policy":"`+next+`"}`, s.key)
			send("POST", "/v1/sessions", `{"subject":"x","mark":"`+next+`"}`, s.key)
			send("POST", "/v1/sessions", `{"subject":"x","lifetime":"`+next+`"}`, s.key)
			send("POST", "/v1/sessions", `{"subject":"x","device":{"ip":"`+next[:60]+`"}}`, s.key)
			send("POST", "/v1/sessions", `{"subject":"x","auth":{"`+next+`":1}}`, s.key)
			send("POST", "/v1/explain", `"`+next+`"`, s.key)
			send("POST", "/v1/renew", `{"token":{"`+next+`":"`+next+`"}}`, s.key)
			// In calls that the audit log tells of.
			send("PATCH", "/v1/users/x", `{"`+next+`":true}`, s.key)
			send("POST", "/v1/users", `{"name":"x","password":"`+next+`","scopes":["`+next+`"]}`, s.key)
			send("DELETE", "/v1/subjects/"+next[:60]+"/sessions", "", s.key)
			send("DELETE", "/v1/api-keys/"+next[:60], "", s.key)
			send("POST", "/v1/keys/rotate", `{"algorithm":"`+next+`"}`, s.key)
			send("GET", "/v1/audit?subject="+next[:60]+"&type="+next[:50], "", s.key)
			send("GET", "/v1/audit/export?actor="+next[:60], "", s.key)
			send("GET", "/v1/events?wait=0&after="+next[:80], "", s.key)
			send("GET", "/v1/sessions?cursor="+next[:70], "", s.key)
			send("GET", "/v1/sessions/"+next[:50], "", s.key)
			send("GET", "/livez", "", "", "X-Request-Id: "+next, "User-Agent: "+next, "Host: "+next)
			run("", "sessions", "show", next)
			run("", "sessions", "revoke", next)
			run("", "token", "explain", next)
			run(next+next, "token", "explain")
			run("", "sessions", "list", "--subject", next)
		case 1: // in URLs, which ends it
			send("GET", "/v1/sessions?token="+next, "", s.key)
			send("GET", "/"+next, "", "")
			send("DELETE", "/v1/sessions/"+next, "", s.key)
		case 2:
			send("DELETE", "/v1/sessions/"+id, "", s.key)
			send("GET", "/v1/subjects/subject-canary/sessions", "", s.key, "User-Agent: agent-canary")
		case 3:
			send("DELETE", "/v1/subjects/s0/sessions", "", s.key)
		}
	}
	run("", "sessions", "list", "--all", "--ended")
	run("", "sessions", "list", "--all", "--ended", "--json")
	run("", "audit", "list", "--all")
	run("", "audit", "export")
	run("", "audit", "verify")
	run("", "overview", "--json")
	send("GET", "/metrics", "", "", "Accept: application/openmetrics-text; version=1.0.0")
	send("GET", "/v1/overview", "", s.key)
	s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.log.ended
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	var find [][]byte
	for _, token := range tokens {
		find = append(find, traces(t, token)...)
	}
	look := func(where string, b []byte) {
		for _, f := range find {
			if bytes.Contains(b, f) {
				t.Errorf("a token, or its secret, stands in %s", where)
				return
			}
		}
	}
	mu.Lock()
	look("the traces", spans.Bytes())
	for _, name := range []string{"subject-canary", "agent-canary", "admin.key"} {
		if bytes.Contains(spans.Bytes(), []byte(name)) {
			t.Errorf("%s stands in the traces", name)
		}
	}
	if !bytes.Contains(spans.Bytes(), []byte("/v1/sessions/{id}")) || !bytes.Contains(spans.Bytes(), []byte("store apply")) {
		t.Error("there are no traces")
	}
	mu.Unlock()
	if !bytes.Contains(texts.Bytes(), []byte(`# {trace_id="`)) || !strings.Contains(s.log.String(), `"trace_id":"`) {
		t.Error("no trace is named in the metrics or in the log")
	}
	look("the log", []byte(s.log.String()))
	look("an error or a command's output", texts.Bytes())
	files := 0
	err = filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "admin.key" {
			return err
		}
		b, err := os.ReadFile(path)
		look(path, b)
		files++
		return err
	})
	if err != nil || files < 5 {
		t.Errorf("%d files: %v", files, err)
	}
	// The search finds what is there.
	b, err := os.ReadFile(filepath.Join(data, "admin.key"))
	if err != nil || !slices.ContainsFunc(find, func(f []byte) bool { return bytes.Contains(b, f) }) {
		t.Errorf("the admin key is not found in its file: %v", err)
	}
	if !strings.Contains(texts.String(), `"type":"api.revoke-session"`) {
		t.Error("no act is in the audit log")
	}
	var anyLine struct{ Msg string }
	if !strings.Contains(s.log.String(), `"msg":"request"`) || json.Unmarshal([]byte(strings.SplitN(s.log.String(), "\n", 2)[0]), &anyLine) != nil {
		t.Error("the log has no requests")
	}
}
