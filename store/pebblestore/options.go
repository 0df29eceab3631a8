package pebblestore

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options configure Open. The zero value works.
type Options struct {
	// Logger receives operational messages, never a record's content. Nil discards them.
	Logger *slog.Logger
	// CacheSize is how many bytes of the database are kept decoded in memory. Zero means 64 MiB. Besides it, up to four
	// memtables of up to 32 MiB hold what is not yet written out.
	CacheSize int64
	// KeepEvents is how many events are kept, at least, for watchers that are behind. Zero means 100,000.
	KeepEvents int
	// MinFree is the free space, in bytes, below which new roots are refused with store.ErrFull. Zero means 1 GiB or
	// 5 % of the volume, whichever is less; 10 % of a volume below 1 GiB.
	MinFree uint64
	// HardFree is the free space below which every put but that of a subject's record is refused: revocations go on. Zero
	// means 256 MiB or 1 % of the volume, whichever is less; 5 % of a volume below 1 GiB. Marks end where what is in
	// memory could not be written out any more.
	HardFree uint64
	// FS is the file system to work on. Nil means the operating system's; others are for tests.
	FS vfs.FS

	// exit ends the process after a failure that leaves storage and memory disagreeing. Tests replace it.
	exit func(code int)
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.CacheSize <= 0 {
		o.CacheSize = 64 << 20
	}
	if o.KeepEvents <= 0 {
		o.KeepEvents = 100_000
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.exit == nil {
		o.exit = os.Exit
	}
}

// pebbleFormat is the version of Pebble's own files: the newest that is not experimental in the version we build with.
// Pebble raises the files of an older store to it when it opens them, and there is no way back, so a change here is a
// change for a release's notes.
const pebbleFormat = pebble.FormatValueSeparation

const (
	maxMemTable = 32 << 20
	minMemTable = 256 << 10
	memTables   = 4 // at most that many at a time
)

// memTableSize returns the size of a memtable for a volume of that many bytes, zero if it is not known. As many bytes
// are preallocated for each write-ahead log, of which there are up to memTables+1, and as many are to be free for all
// that is in memory to be written out; so a small volume gets small ones.
func memTableSize(volume uint64) uint64 {
	if volume == 0 {
		return maxMemTable
	}
	return min(max(volume/512, minMemTable), maxMemTable)
}

func (s *Store) pebbleOptions() *pebble.Options {
	var volume uint64
	if usage, err := s.o.FS.GetDiskUsage(s.dir); err == nil {
		volume = usage.TotalBytes
	}
	memTable := memTableSize(volume)
	p := &pebble.Options{
		FS:                 reserveFS{s.o.FS, s},
		Logger:             pebbleLogger{s},
		FormatMajorVersion: pebbleFormat,
		// Pebble takes the memtables' memory out of the cache; we promised all of it for blocks.
		CacheSize:                   s.o.CacheSize + int64(memTable),
		MemTableSize:                memTable,
		MemTableStopWritesThreshold: memTables,
		// A store that cannot compact, because the volume is full, is to go on taking marks and not stop at twelve.
		L0StopWritesThreshold:      1000,
		L0CompactionThreshold:      4, // bursts first; the filters keep reads cheap
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
		MaxOpenFiles:               500,
	}
	p.Experimental.FileCacheShards = 2
	for i := range p.Levels {
		p.Levels[i].BlockSize = 8 << 10 // a lookup decodes one block
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	p.EventListener = &pebble.EventListener{
		BackgroundError: func(err error) { s.log.Error("store: background write failed, will be tried again", "err", err) },
		WriteStallBegin: func(i pebble.WriteStallBeginInfo) { s.log.Warn("store: writes wait", "reason", i.Reason) },
		WriteStallEnd:   func() { s.log.Info("store: writes go on") },
	}
	return p
}

// pebbleLogger hands Pebble's messages on, and ends the process where Pebble says so.
type pebbleLogger struct{ s *Store }

func (l pebbleLogger) Infof(format string, args ...any) {
	if l.s.log.Enabled(context.Background(), slog.LevelDebug) {
		l.s.log.Debug("pebble: " + fmt.Sprintf(format, args...))
	}
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.log.Error("pebble: " + fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if l.s.opening.Load() {
		panic(err) // openPebble makes an error of it
	}
	l.s.fail(err)
}
