package pebblestore

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/afterlogin/afterlogin/store"
)

func TestWritable(t *testing.T) {
	mem := vfs.NewMem()
	room := func(avail uint64) { mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: avail, TotalBytes: 100 << 30}) }
	room(50 << 30)
	gate := newGateFS(mem)
	var exits atomic.Int32
	s, err := Open("data", Options{FS: gate, exit: ends(&exits)})
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, want error) {
		t.Helper()
		if got := s.Writable(); !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("at first", nil)

	for avail, want := range map[uint64]error{1000 << 20: nil, 200 << 20: store.ErrFull, 1 << 20: store.ErrFull} {
		room(avail)
		s.space.guard()
		if got := s.Writable(); !errors.Is(got, want) {
			t.Errorf("%d MiB free: %v, want %v", avail>>20, got, want)
		}
	}
	room(50 << 30)
	s.space.guard()

	open := gate.hold()
	done := make(chan error, 1)
	r := session(1, "alice")
	go func() { done <- s.Apply(t.Context(), r.ID, store.Put(r, 0)) }()
	<-gate.held
	check("a change is under way", nil)
	s.pending.since.Add(-int64(stallAfter)) // it has been for long
	check("the disk hangs", ErrStalled)
	open()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	check("the disk goes on", nil)
	s.pending.since.Add(-int64(stallAfter))
	check("there is nothing to do", nil)

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check("closed", store.ErrClosed)
}

func TestWritableFailed(t *testing.T) {
	s := openOn(t, "data", Options{FS: vfs.NewMem(), exit: func(int) {}})
	s.fail(errors.New("broken"))
	if err := s.Writable(); !errors.Is(err, errFailed) {
		t.Errorf("got %v", err)
	}
}
