package keyring_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/afterlogin/afterlogin/keyring"
)

var master = bytes.Repeat([]byte{7}, keyring.KeySize)

func TestOpenKeepsKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	a, err := keyring.Open(path, master)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Rotate(keyring.MAC); err != nil {
		t.Fatal(err)
	}
	if err := a.SetState(keyring.MAC, 1, keyring.Distrusted); err != nil {
		t.Fatal(err)
	}
	b, err := keyring.Open(path, master)
	if err != nil {
		t.Fatal(err)
	}
	if a.Installation() != b.Installation() {
		t.Error("the installation changed")
	}
	for _, p := range []keyring.Purpose{keyring.MAC, keyring.Rotation, keyring.Sealing, keyring.CSRF} {
		x, y := a.Keys(p), b.Keys(p)
		if len(x) != len(y) {
			t.Fatalf("%s: %d keys, want %d", p, len(y), len(x))
		}
		for i := range x {
			if x[i].ID != y[i].ID || x[i].State != y[i].State || !bytes.Equal(x[i].Secret(), y[i].Secret()) {
				t.Errorf("%s: %v came back as %v", p, x[i], y[i])
			}
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600: %v", info.Mode(), err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range a.Keys(keyring.MAC) {
		if bytes.Contains(file, k.Secret()) || bytes.Contains(file, fmt.Appendf(nil, "%x", k.Secret())) {
			t.Error("a secret stands in the file")
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.json")
	if _, err := keyring.Open(path, master); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Open(path, bytes.Repeat([]byte{8}, keyring.KeySize)); !errors.Is(err, keyring.ErrWrongMaster) {
		t.Errorf("another master key: %v", err)
	}
	if _, err := keyring.Open(path, master[:16]); err == nil {
		t.Error("a short master key is accepted")
	}
	for name, change := range map[string]func(string) string{
		"a state that was changed":   func(s string) string { return strings.Replace(s, `"purpose": "mac"`, `"purpose": "csrf"`, 1) },
		"an unknown field":           func(s string) string { return strings.Replace(s, `"layout"`, `"extra": 1, "layout"`, 1) },
		"another layout":             func(s string) string { return strings.Replace(s, `"layout": 3`, `"layout": 4`, 1) },
		"another installation":       func(s string) string { return strings.Replace(s, `"installation": "`, `"installation": "0`, 1) },
		"an unknown state":           func(s string) string { return strings.Replace(s, `"active"`, `"retired"`, 1) },
		"no active key":              func(s string) string { return strings.Replace(s, `"active"`, `"accepted"`, 1) },
		"not JSON":                   func(s string) string { return s[:len(s)/2] },
		"an empty file":              func(string) string { return "" },
		"a file that is far too big": func(s string) string { return s + strings.Repeat(" ", 1<<20) },
	} {
		bad := filepath.Join(dir, "bad.json")
		if err := os.WriteFile(bad, []byte(change(string(good))), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := keyring.Open(bad, master); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestStatesMoveDownOnly(t *testing.T) {
	r := keyring.New()
	if err := r.SetState(keyring.MAC, 1, keyring.Dead); err == nil {
		t.Error("the active key was retired")
	}
	if _, err := r.Rotate(keyring.MAC); err != nil {
		t.Fatal(err)
	}
	if err := r.SetState(keyring.MAC, 1, keyring.Active); err == nil {
		t.Error("an accepted key became active")
	}
	if err := r.SetState(keyring.MAC, 1, keyring.Dead); err != nil {
		t.Error(err)
	}
	if _, ok := r.Key(keyring.MAC, 1); ok {
		t.Error("a dead key is given out")
	}
	if err := r.SetState(keyring.MAC, 1, keyring.Accepted); err == nil {
		t.Error("a dead key came back")
	}
	if err := r.SetState(keyring.MAC, 9, keyring.Dead); err == nil {
		t.Error("a key that there is not was retired")
	}
	if _, err := r.Rotate(keyring.Sealing); err != nil {
		t.Fatal(err)
	}
	if err := r.SetState(keyring.Sealing, 1, keyring.Distrusted); err == nil {
		t.Error("a sealing key is distrusted")
	}
	for i := 3; i <= 255; i++ {
		if _, err := r.Rotate(keyring.MAC); err != nil {
			t.Fatalf("rotation to key %d: %v", i, err)
		}
	}
	if _, err := r.Rotate(keyring.MAC); !errors.Is(err, keyring.ErrTooManyKeys) {
		t.Errorf("key 256: %v", err)
	}
}

func TestMaster(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	a, err := keyring.Master(path)
	if err != nil || len(a) != keyring.KeySize {
		t.Fatalf("a new master key of %d bytes: %v", len(a), err)
	}
	b, err := keyring.Master(path)
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("another master key the second time: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring.Master(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a master key that everybody can read: %v", err)
	}
	for _, text := range []string{"", "changeme", strings.Repeat("A", 43), strings.Repeat("A", 100)} {
		if _, err := keyring.ParseMaster(text); err == nil || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("ParseMaster(%q): %v", text, err)
		}
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	r, err := keyring.Open(filepath.Join(t.TempDir(), "keys.json"), master)
	if err != nil {
		t.Fatal(err)
	}
	k := r.Active(keyring.MAC)
	j, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprintf("%v %+v %#v %s %x %v %+v %#v %s", k, k, k, k, k, r, r, r, j)
	if strings.Contains(out, fmt.Sprintf("%x", k.Secret()[:8])) || strings.Contains(out, fmt.Sprint(k.Secret()[:8])[1:20]) ||
		strings.Contains(out, "7 7 7 7") {
		t.Errorf("a secret prints: %s", out)
	}
}

func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "keys.json")
	if _, err := keyring.Open(path, master); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"layout":1,"installation":"00","keys":[{"purpose":"mac","id":1,"state":"active","sealed":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := keyring.Open(p, master); err == nil {
			r.Active(keyring.MAC)
			r.Active(keyring.CSRF)
		}
	})
}
