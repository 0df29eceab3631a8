package pebblestore

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/afterlogin/afterlogin/store"
)

// Levels of free space.
const (
	spaceOK   = iota
	spaceLow  // no new roots
	spaceHard // no puts but those of subjects
	spaceNone // nothing
)

// Bounds of free space on a large volume; on a small one the shares hold.
const (
	maxMinFree  = 1 << 30
	maxHardFree = 256 << 20
	smallVolume = 1 << 30

	minBudget = 64 << 10 // so much may be written before it is measured again, even if there is hardly any room
)

// space watches how much room the volume has. Reading the level costs nothing; it is measured by a goroutine, about
// once a second, and by the applier when much was written since.
type space struct {
	level atomic.Int32
	// left is how many bytes may be written until it is time to measure again. It belongs to the applier.
	left  int
	guard func() (budget int)
	quit  chan struct{}
	done  chan struct{}
}

// start measures, and begins to measure every second.
func (p *space) start(s *Store) {
	p.guard = func() int {
		usage, err := s.o.FS.GetDiskUsage(s.dir)
		if err != nil { // not every file system can tell
			return 1 << 30
		}
		low, hard, least := limits(&s.o, usage)
		level := int32(spaceOK)
		switch {
		case usage.AvailBytes < least:
			level = spaceNone
		case usage.AvailBytes < hard:
			level = spaceHard
		case usage.AvailBytes < low:
			level = spaceLow
		}
		if old := p.level.Swap(level); old != level {
			s.log.Warn("store: free space", "dir", s.dir, "free", usage.AvailBytes, "new_sessions", level == spaceOK,
				"changes", level < spaceHard, "revocations", level < spaceNone)
		}
		// What is written comes back to the disk again, some times over, in flushes and compactions.
		for _, near := range []uint64{low, hard, least} {
			if usage.AvailBytes > near {
				return int(max((usage.AvailBytes-near)/8, minBudget))
			}
		}
		return minBudget
	}
	p.left = p.guard()
	p.quit, p.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(p.done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.guard()
			case <-p.quit:
				return
			}
		}
	}()
}

func (p *space) stop() {
	close(p.quit)
	<-p.done
}

// wrote is told by the applier how many bytes went to the log.
func (p *space) wrote(n int) {
	if p.left -= n; p.left < 0 {
		p.left = p.guard()
	}
}

// limits returns below how many free bytes the levels begin.
func limits(o *Options, u vfs.DiskUsage) (low, hard, least uint64) {
	low, hard = u.TotalBytes/20, u.TotalBytes/100
	if u.TotalBytes < smallVolume { // the log's next files have to have room here, too
		low, hard = u.TotalBytes/10, u.TotalBytes/20
	}
	low, hard = min(low, maxMinFree), min(hard, maxHardFree)
	if o.MinFree > 0 {
		low = o.MinFree
	}
	if o.HardFree > 0 {
		hard = o.HardFree
	}
	// All that is in memory: without that much room the store could not be opened again.
	least = memTables * memTableSize(u.TotalBytes)
	hard = max(hard, least)
	return max(low, hard), hard, least
}

// checkRoom refuses to open a store whose logs cannot be written out, which Pebble would try for ever.
func (s *Store) checkRoom() error {
	usage, err := s.o.FS.GetDiskUsage(s.dir)
	if err != nil { // not every file system can tell
		return nil
	}
	names, err := s.o.FS.List(s.dir)
	if err != nil {
		return unusable(s.dir, err)
	}
	var logs uint64
	for _, name := range names {
		if s.o.FS.PathBase(name) != name || len(name) < 5 || name[len(name)-4:] != ".log" {
			continue
		}
		if info, err := s.o.FS.Stat(s.o.FS.PathJoin(s.dir, name)); err == nil {
			logs += uint64(info.Size())
		}
	}
	if usage.AvailBytes < logs {
		return fmt.Errorf("pebblestore: cannot open %s: the volume is full: %w: %d MiB are free, and it takes %d: make room on it",
			s.dir, store.ErrFull, usage.AvailBytes>>20, logs>>20+1)
	}
	return nil
}
