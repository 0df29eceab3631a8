package pebblestore

import (
	"errors"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Categories under which Pebble creates files.
const (
	compaction vfs.DiskWriteCategory = "pebble-compaction"
	flush      vfs.DiskWriteCategory = "pebble-memtable-flush"
)

// reserveFS keeps compactions away from the last of the room. What is left is for the log and for flushes: without those
// no mark can be taken, and a store cannot even be opened, while a compaction can wait. Pebble tries both again at once
// and for ever, in competition with each other; so a refusal takes a second.
type reserveFS struct {
	vfs.FS
	s *Store
}

const (
	roomStep  = 256 << 10 // so much is written to a file before it is asked again whether there is room
	fullPause = time.Second
)

var errNoRoom = errors.New("pebblestore: no room for a compaction")

func (f reserveFS) Unwrap() vfs.FS { return f.FS }

// Create implements vfs.FS.
func (f reserveFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if c == compaction && !f.room() {
		f.pause()
		return nil, errNoRoom
	}
	file, err := f.FS.Create(name, c)
	if c != compaction && c != flush {
		return file, err
	}
	if err != nil {
		return nil, f.failed(err)
	}
	return &reserveFile{File: file, fs: f, compaction: c == compaction}, nil
}

// room reports whether there is more than the reserve.
func (f reserveFS) room() bool {
	usage, err := f.s.o.FS.GetDiskUsage(f.s.dir)
	if err != nil {
		return true // not every file system can tell
	}
	_, hard, _ := limits(&f.s.o, usage)
	return usage.AvailBytes > hard
}

// failed returns err, after a while if it is that the volume is full.
func (f reserveFS) failed(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		f.pause()
	}
	return err
}

func (f reserveFS) pause() {
	timer := time.NewTimer(fullPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.s.ending:
	}
}

type reserveFile struct {
	vfs.File
	fs         reserveFS
	compaction bool
	unasked    int // bytes written since it was asked whether there is room
}

// Write implements io.Writer.
func (f *reserveFile) Write(b []byte) (int, error) {
	if f.unasked += len(b); f.compaction && f.unasked > roomStep {
		f.unasked = 0
		if !f.fs.room() {
			f.fs.pause()
			return 0, errNoRoom
		}
	}
	n, err := f.File.Write(b)
	if err != nil {
		err = f.fs.failed(err)
	}
	return n, err
}
