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
		avail, total        uint64
		create, other, mark bool
	}{
		{50 << 30, 100 << 30, true, true, true},
		{1100 * mib, 100 << 30, true, true, true},
		{1000 * mib, 100 << 30, false, true, true},
		{200 * mib, 100 << 30, false, false, true},
		{100 * mib, 100 << 30, false, false, false},
		{2000 * mib, 100 << 30, true, true, true},
		{200 * mib, 2000 * mib, true, true, true}, // a small volume
		{90 * mib, 2000 * mib, false, true, true},
		{17 * mib, 2000 * mib, false, false, true},
		{10 * mib, 2000 * mib, false, false, false},
		{7 * mib, 64 * mib, true, true, true}, // a very small one
		{6 * mib, 64 * mib, false, true, true},
		{3 * mib, 64 * mib, false, false, true},
		{mib / 2, 64 * mib, false, false, false},
		{2 * mib, 16 * mib, true, true, true},
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
		check("touch", tt.other, s.Touch(t.Context(), []store.Touch{{ID: r.ID, At: now + int64(n)}}))
		check("event", tt.mark, s.Apply(t.Context(), r.ID, store.Emit(store.Event{Type: "x", ID: r.ID})))
		// Who signs out everywhere changes the subject's record: that goes on for as long as marks do.
		everywhere := &store.Record{ID: store.SubjectID(1, fmt.Sprint("s", n)), Tenant: 1, Subject: fmt.Sprint("s", n), Version: 1}
		check("sign-out everywhere", tt.mark, s.Apply(t.Context(), everywhere.ID, store.Put(everywhere, 0)))
		m := session(n+100, "alice")
		disk(50<<30, 100<<30)
		s.space.guard()
		apply(t, s, m.ID, store.Put(m, 0))
		disk(tt.avail, tt.total)
		s.space.guard()
		check("mark", tt.mark, s.Apply(t.Context(), m.ID, store.Mark(m.ID, now, "gone")))
	}
}

// marksOnFull is how many sessions are revoked on a volume that takes no new ones.
const marksOnFull = 150

// TestSmallVolume fills a real file system, from a process that may end over it. New sessions are refused before it is
// full, revocations go on for long after, and nothing that was answered is lost.
func TestSmallVolume(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a file system takes root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
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
			t.Logf("%d sessions of 6 kB, %d of them revoked when no more were taken", len(acked), marks)
			if len(acked) < 3000 || marks != marksOnFull {
				t.Errorf("%d sessions of 6 kB in 64 MiB, and %d revoked after that: %s", len(acked), marks, stderr)
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
	t.Logf("%d revoked on a volume without any room, then %v", marks-marksOnFull, err)
	if marks < marksOnFull {
		t.Fatalf("%d revoked: %s", marks, stderr)
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

// fillChild creates sessions until no more are taken, revokes some, waits for the signal, and revokes more for as
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
		ops[0].Record.Payload = make([]byte, 6000)
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
		if i == marksOnFull {
			fmt.Fprintln(out, "full")
			<-goOn
		}
		mark := func() error {
			ctx, cancel := context.WithTimeout(neverEnds, 2*time.Second)
			defer cancel()
			return s.Apply(ctx, id, store.Mark(id, now, "gone"))
		}
		err := mark()
		// On so small a volume a compaction may hold the room of all that is there twice over, for as long as it runs.
		for wait := 0; wait < 300 && i < marksOnFull && errors.Is(err, store.ErrFull); wait++ {
			time.Sleep(100 * time.Millisecond)
			err = mark()
		}
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

// A store that could not write out its logs is not opened: Pebble would try for ever.
func TestOpenWithoutRoom(t *testing.T) {
	mem := vfs.NewMem()
	s := openOn(t, "data", Options{FS: mem})
	r := session(1, "alice")
	apply(t, s, r.ID, store.Put(r, 0))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1, TotalBytes: 64 << 20})
	if _, err := Open("data", Options{FS: mem}); !errors.Is(err, store.ErrFull) {
		t.Fatalf("Open on a full volume = %v, want ErrFull", err)
	}
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 32 << 20, TotalBytes: 64 << 20})
	if got := get(t, openOn(t, "data", Options{FS: mem}), r.ID); got == nil {
		t.Error("Get after there was room again = nothing")
	}
}
