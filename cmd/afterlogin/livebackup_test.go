package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// A server that runs writes a backup of its store, which is whole and can be restored.
func TestBackupOfARunningServer(t *testing.T) {
	dir := t.TempDir()
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "backup")
	s, err := startServer(t, data)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if resp, body := s.get(t, http.MethodPost, "/v1/sessions", map[string]string{"subject": "mia"}); resp.StatusCode != http.StatusCreated {
			t.Fatalf("%s %s", resp.Status, body)
		}
	}
	out, err := runStore(t, dir, "backup", "--server", s.base, "--key-file", filepath.Join(data, "admin.key"), "--out", file)
	if err != nil || !strings.Contains(out, "wrote ") {
		t.Fatalf("%v: %s", err, out)
	}
	s.kill()
	out, err = runStore(t, dir, "restore", "--in", file, "--store", filepath.Join(dir, "other"), "--master-key-file", filepath.Join(data, "master.key"))
	if err != nil || !strings.Contains(out, "ended 21 of them") { // and the admin key
		t.Fatalf("%v: %s", err, out)
	}
	if out, err = runStore(t, dir, "backup", "--server", s.base, "--key-file", filepath.Join(data, "admin.key"), "--out", file+"2"); err == nil {
		t.Errorf("from a server that is gone: %s", out)
	}
	if out, err = runStore(t, dir, "backup", "--server", s.base, "--store", data, "--out", file+"2"); err == nil || !strings.Contains(out, "keep one of them") {
		t.Errorf("both: %v %s", err, out)
	}
}
