package pebblestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/afterlogin/afterlogin/store"
)

func TestFreeSpace(t *testing.T) {
	const mib = 1 << 20
	mem := vfs.NewMem()
	disk := func(avail, total uint64) {
		mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: avail, TotalBytes: total})
	}
	disk(50<<30, 100<<30)
	s := openOn(t, "data", Options{FS: mem})
	r := session(1, "alice")
	child := &store.Record{ID: store.NewChildID(r.ID, r.ID.Bucket(), [6]byte{1}), Tenant: 1, Version: 1}
	apply(t, s, r.ID, store.Put(r, 0))
	n := byte(2)
	for _, tt := range []struct {
		avail, total  uint64
		create, other bool
	}{
		{50 << 30, 100 << 30, true, true},
		{1100 * mib, 100 << 30, true, true},
		{1000 * mib, 100 << 30, false, true},
		{200 * mib, 100 << 30, false, false},
		{2000 * mib, 100 << 30, true, true},
		{200 * mib, 2000 * mib, true, true}, // a small volume
		{90 * mib, 2000 * mib, false, true},
		{10 * mib, 2000 * mib, false, false},
		{7 * mib, 64 * mib, true, true}, // a very small one
		{6 * mib, 64 * mib, false, true},
		{3 * mib, 64 * mib, false, false},
	} {
		disk(tt.avail, tt.total)
		s.space.guard()
		n++
		o := session(n, "alice")
		check := func(what string, ok bool, err error) {
			t.Helper()
			if ok && err != nil || !ok && !errors.Is(err, store.ErrFull) {
				t.Errorf("%d of %d MiB free: %s = %v", tt.avail/mib, tt.total/mib, what, err)
			}
		}
		check("create", tt.create, s.Apply(t.Context(), o.ID, store.Put(o, 0)))
		child = child.Clone()
		err := s.Apply(t.Context(), r.ID, store.Put(child, child.Version-1))
		check("child", tt.other, err)
		if err == nil {
			child.Version++
		}
		if tt.create {
			check("mark", true, s.Apply(t.Context(), o.ID, store.Mark(o.ID, now, "gone")))
		}
		check("mark", true, s.Apply(t.Context(), r.ID, store.Mark(r.ID, now, "gone")))
	}
}

// TestSmallVolume fills a real file system, from a process that may end over it. New sessions are refused before it is
// full, revocations go on for long after, and nothing that was answered is lost.
func TestSmallVolume(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a file system takes root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=32m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	data, hog := filepath.Join(dir, "data"), filepath.Join(dir, "hog")
	cmd, lines, stderr := startChild(t, "fill", data)
	acked := map[store.ID]uint64{}
	marks := 0
	for lines.Scan() {
		if lines.Text() == "full" { // somebody else takes the rest
			t.Logf("%d sessions of 4 kB, %d of them revoked when no more were taken", len(acked), marks)
			if len(acked) < 2000 || marks != 1000 {
				t.Errorf("%d sessions of 4 kB in 32 MiB, and %d revoked after that: %s", len(acked), marks, stderr)
			}
			fill(t, hog)
			if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if id, v, ok := ack(acked, lines.Text()); ok && v == 2 {
			marks++
			if acked[id] != 2 {
				t.Fatalf("revoked %v, which was not created", id)
			}
		}
	}
	err := cmd.Wait()
	t.Logf("%d revoked on a full volume, then %v %s", marks-1000, err, stderr)
	if marks < 1020 {
		t.Errorf("a full volume took %d marks, want more", marks-1000)
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	s, err := Open(data, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := 0
	for id, v := range acked {
		if n++; n > 2000 && v == 1 {
			continue // looking up each takes long under the race detector
		}
		if got := get(t, s, id); got == nil || got.Version < v || v == 2 && got.Marked != now {
			t.Fatalf("%v is %+v, and version %d was answered", id, got, v)
		}
	}
}

// fillChild creates sessions until no more are taken, revokes a thousand, waits for the signal, and revokes more for as
// long as that goes.
func fillChild(dir string, out io.Writer) error {
	goOn := make(chan os.Signal, 1)
	signal.Notify(goOn, syscall.SIGUSR1)
	s, err := Open(dir, Options{Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	var ids []store.ID
	for {
		ops := newSession()
		ops[0].Record.Payload = make([]byte, 4000)
		rand.Read(ops[0].Record.Payload) // nothing to compress
		ctx, cancel := context.WithTimeout(neverEnds, time.Minute)
		err := s.Apply(ctx, ops[0].ID, ops...)
		cancel()
		if errors.Is(err, store.ErrFull) {
			break
		}
		if err != nil {
			return err
		}
		ids = append(ids, ops[0].ID)
		fmt.Fprintln(out, ops[0].ID, 1)
	}
	for i, id := range ids {
		if i == 1000 {
			fmt.Fprintln(out, "full")
			<-goOn
		}
		ctx, cancel := context.WithTimeout(neverEnds, 2*time.Second)
		err := s.Apply(ctx, id, store.Mark(id, now, "gone"))
		cancel()
		if err != nil {
			return err
		}
		fmt.Fprintln(out, id, 2)
	}
	return nil
}

// fill writes to a file until there is no room.
func fill(t *testing.T, name string) {
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}
