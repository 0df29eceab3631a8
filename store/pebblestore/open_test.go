package pebblestore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/afterlogin/afterlogin/store"
)

// childEnv tells a child process, which is this test's binary again, what to do and in which directory.
const childEnv = "PEBBLESTORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if what, dir, ok := strings.Cut(os.Getenv(childEnv), ":"); ok {
		child := killChild
		if what == "fill" {
			child = fillChild
		}
		if err := child(dir, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// killChild creates, changes and revokes sessions, and writes a line for each that was answered, until it is killed.
func killChild(dir string, out io.Writer) error {
	s, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "open")
	var mu sync.Mutex
	errs := make(chan error)
	for range 8 {
		go func() {
			errs <- func() error {
				for i := 0; ; i++ {
					ops := newSession()
					r := ops[0].Record
					for v := uint64(1); v <= 3; v++ {
						if v == 3 {
							ops = []store.Op{store.Mark(r.ID, now, "gone")}
						} else if v == 2 {
							n := r.Clone()
							n.Version = 2
							ops = []store.Op{store.Put(n, 1)}
						}
						if err := s.Apply(neverEnds, r.ID, ops...); err != nil {
							return err
						}
						mu.Lock()
						_, err := fmt.Fprintln(out, r.ID, v)
						mu.Unlock()
						if err != nil {
							return err
						}
					}
				}
			}()
		}()
	}
	return <-errs
}

func startChild(t *testing.T, what, dir string) (*exec.Cmd, *bufio.Scanner, *strings.Builder) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+what+":"+dir)
	stderr := new(strings.Builder)
	cmd.Stderr = stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out), stderr
}

// TestKill kills a process that writes, again and again, and looks for everything that it said it had.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acked := map[store.ID]uint64{}
	for cycle := range 20 {
		cmd, lines, stderr := startChild(t, "kill", dir)
		for n := 20 + rand.IntN(500); n > 0 && lines.Scan(); n-- {
			ack(acked, lines.Text())
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it had said already
			ack(acked, lines.Text())
		}
		cmd.Wait()
		if len(acked) == 0 {
			t.Fatalf("the child did nothing: %s", stderr)
		}
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatalf("cycle %d: Open = %v", cycle, err)
		}
		for id, v := range acked {
			got := get(t, s, id)
			if got == nil || got.Version < v || v == 3 && got.Marked != now {
				t.Errorf("cycle %d: %v is %+v, and version %d was answered", cycle, id, got, v)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d sessions", len(acked))
}

// ack notes what a line of a child's says was answered.
func ack(acked map[store.ID]uint64, line string) (id store.ID, v uint64, ok bool) {
	var b []byte
	if n, _ := fmt.Sscanf(line, "%x %d", &b, &v); n != 2 {
		return id, 0, false // "open", or a line cut short by the kill
	}
	id, err := store.ParseID(b)
	if err != nil {
		return id, 0, false
	}
	acked[id] = max(acked[id], v)
	return id, v, true
}

func TestOpenTwice(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	s := openOn(t, dir, Options{})
	for _, name := range []string{dir, dir + "/", link} {
		_, err := Open(name, Options{})
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
			t.Errorf("Open(%s) a second time = %v, want ErrInUse with the name", name, err)
		}
	}
	cmd, lines, stderr := startChild(t, "kill", dir)
	for lines.Scan() {
		t.Errorf("another process opened it: %s", lines.Text())
		cmd.Process.Kill()
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "in use by another process") || !strings.Contains(stderr.String(), dir) {
		t.Errorf("Open by another process: %v, %s", err, stderr)
	}
	// The one that has it was not disturbed, and when it is closed another may have it.
	r := session(1, "alice")
	apply(t, s, r.ID, store.Put(r, 0))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := get(t, openOn(t, link, Options{}), r.ID); got == nil {
		t.Error("Get after a reopen = nothing")
	}
	mem := vfs.NewMem()
	openOn(t, "data", Options{FS: mem})
	if _, err := Open("data", Options{FS: mem}); !errors.Is(err, ErrInUse) {
		t.Errorf("Open in memory a second time = %v, want ErrInUse", err)
	}
}

func TestOpenNotADirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		_, err := Open(dir, Options{})
		if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "or name another") {
			t.Errorf("Open(%s) = %v, want an error that names it and what to do", dir, err)
		}
	}
	blocked := t.TempDir() // its lock cannot be made
	if err := os.Mkdir(filepath.Join(blocked, "LOCK"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(blocked, Options{}); err == nil || errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), blocked) {
		t.Errorf("Open(%s) = %v, want an error that names it, other than ErrInUse", blocked, err)
	}
}

func TestOpenOtherFormats(t *testing.T) {
	for _, tt := range []struct {
		name string
		key  []byte
		val  []byte
		want string
	}{
		{"newer", metaKey("format"), binary.BigEndian.AppendUint32(nil, Format+1), "or a newer one"},
		{"damaged", metaKey("format"), []byte("x"), "damaged"},
		{"foreign", []byte("somebody else's"), nil, "another program"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mem := vfs.NewMem()
			if tt.name != "foreign" {
				openOn(t, "data", Options{FS: mem}).Close()
			}
			db, err := pebble.Open("data", &pebble.Options{FS: mem, FormatMajorVersion: pebbleFormat, Logger: quiet{}})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Set(tt.key, tt.val, pebble.Sync), db.Close()); err != nil {
				t.Fatal(err)
			}
			for range 2 { // an error leaves the directory unlocked
				_, err := Open("data", Options{FS: mem})
				if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Open = %v, want ErrFormat, %q", err, tt.want)
				}
			}
		})
	}
}

type quiet struct{ pebble.Logger }

func (quiet) Infof(string, ...any) {}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	r := session(1, "alice")
	s := openOn(t, dir, Options{})
	seq, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, r.ID, store.Put(r, 0), store.Emit(store.Event{Type: "one"}), store.Emit(store.Event{Type: "two"}))
	var first store.Cursor
	for e := range seq {
		first = e.Cursor
		break
	}
	for i := range 3 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openOn(t, dir, Options{})
		if got := get(t, s, r.ID); got.Version != uint64(i+1) {
			t.Fatalf("Get after a reopen = %+v, want version %d", got, i+1)
		}
		r.Version++
		apply(t, s, r.ID, store.Put(r, r.Version-1), store.Emit(store.Event{Type: fmt.Sprint("life ", i)}))
	}
	seq, err = s.Watch(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"two", "life 0", "life 1", "life 2"}
	for e, err := range seq {
		if err != nil || e.Type != want[0] {
			t.Fatalf("Watch yields %+v, %v, want %s", e, err, want[0])
		}
		if want = want[1:]; len(want) == 0 {
			break
		}
	}
}
