package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// mount mounts a small volume of the test's own.
func mount(t *testing.T, dir string, flags uintptr, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Skipf("no volume can be mounted here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
}

func TestReadOnlyVolume(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ro")
	mount(t, dir, syscall.MS_RDONLY, "mode=700")
	for _, data := range []string{dir, filepath.Join(dir, "data")} {
		_, _, err := tryOpen(t, settings(data), false)
		var setup *SetupError
		if err == nil || !strings.Contains(err.Error(), data) || !errors.As(err, &setup) || !strings.Contains(setup.Hint, "--data") {
			t.Errorf("%s: %v, hint %+v", data, err, setup)
		}
	}
}

// On a volume with hardly any room nobody can sign in, and is told so; who is signed in stays so, and can be signed out.
// With none at all, that, too, is refused, and not answered as if it had happened.
func TestFullVolume(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "small")
	mount(t, dir, 0, "size=64m")
	s, _ := open(t, settings(filepath.Join(dir, "data")), false)
	defer s.Close()
	key := adminKey(t, filepath.Join(dir, "data"))
	signIn := func() (*http.Response, api.Created, string) {
		resp, body := ask(s, "POST", "/v1/sessions", key, `{"subject":"mia"}`)
		var c api.Created
		json.Unmarshal([]byte(body), &c)
		return resp, c, body
	}
	resp, before, body := signIn()
	if resp.StatusCode != 201 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	_, second, _ := signIn()
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(left uint64) { // until so many bytes are free
		t.Helper()
		for block := make([]byte, 16<<10); ; {
			var st syscall.Statfs_t
			if err := syscall.Statfs(dir, &st); err != nil {
				t.Fatal(err)
			}
			if st.Bavail*uint64(st.Bsize) <= left {
				return
			}
			if _, err := f.Write(block); err != nil {
				return
			}
		}
	}
	fill(5 << 19) // 2.5 MiB: below the hard limit, above what marks need
	wait := func(status int) {
		t.Helper()
		var resp *http.Response
		var body string
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) { // the store looks now and then
			if resp, _, body = signIn(); resp.StatusCode == status {
				return
			}
		}
		t.Fatalf("got %d %s, want %d", resp.StatusCode, body, status)
	}
	wait(503)
	if resp, body := ask(s, "GET", "/readyz", "", ""); resp.StatusCode != 503 || !strings.Contains(body, "no room") {
		t.Errorf("readyz with hardly any room: %d %s", resp.StatusCode, body)
	}
	if resp, _, body := signIn(); resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "#store-full") {
		t.Errorf("%v %s", resp.Header, body)
	}
	active := func(token string) bool {
		resp, body := ask(s, "POST", "/v1/validate", key, fmt.Sprintf(`{"token":%q}`, token))
		if resp.StatusCode != 200 {
			t.Errorf("validate: %d %s", resp.StatusCode, body)
		}
		return strings.Contains(body, `"active":true`)
	}
	if !active(before.Token) {
		t.Error("the session from before is refused")
	}
	if resp, body := ask(s, "DELETE", "/v1/sessions/"+second.Session.ID, key, ""); resp.StatusCode != 204 || active(second.Token) {
		t.Errorf("sign-out: %d %s", resp.StatusCode, body)
	}
	fill(0)
	_, third, _ := signIn() // refused, of course
	if third.Token != "" {
		t.Error("a sign-in on a full volume")
	}
	if resp, body := ask(s, "DELETE", "/v1/sessions/"+before.Session.ID, key, ""); resp.StatusCode == 204 && active(before.Token) {
		t.Errorf("a sign-out that was answered did not happen: %s", body)
	}
	f.Close()
	os.Remove(ballast)
	wait(201)
	if resp, body := ask(s, "GET", "/readyz", "", ""); resp.StatusCode != 200 {
		t.Errorf("readyz with room again: %d %s", resp.StatusCode, body)
	}
}
