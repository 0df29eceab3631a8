package audit

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/afterlogin/afterlogin/store/memstore"
)

// On a full volume acts are refused; with room again they are taken, events from meanwhile are there, and the log is in
// order.
func TestFullVolume(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 { // in a namespace of its own everybody may mount
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFullVolume$")
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("mount (this test takes root, or namespaces of users): %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	f := newFixture(t, memstore.New())
	f.dir = filepath.Join(dir, "audit")
	f.o.Dir = f.dir
	l := f.open()
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = ballast.Write(block)
	}
	ballast.Close()
	taken := 0
	for err = nil; err == nil && taken < 1000; taken++ { // what is left of the last block
		err = l.Record(t.Context(), Entry{Type: "api.x", Actor: "key_a"})
	}
	if !errors.Is(err, ErrFailing) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("after %d acts: %v", taken, err)
	}
	f.issue("during")
	if s := l.Stats(); s.FailingSince.IsZero() {
		t.Errorf("%+v", s)
	}
	if err := os.Remove(ballast.Name()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); l.Failing() != nil || len(f.all(l, Query{Subject: "during"})) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) { // a volume has no fake time
			t.Fatalf("%+v", l.Stats())
		}
	}
	if err := l.Record(t.Context(), Entry{Type: "api.x", Actor: "key_a"}); err != nil {
		t.Error(err)
	}
	l.Close()
	if n := len(f.all2(Query{Actor: "key_a", Limit: MaxPage})); n != taken { // one was refused, one came afterwards
		t.Errorf("%d acts, want %d", n, taken)
	}
	f.inOrder()
}
