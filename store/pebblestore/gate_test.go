package pebblestore

import (
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// gateFS is a file system on which the syncs of the write-ahead log can be held.
type gateFS struct {
	vfs.FS
	mu   sync.Mutex
	shut chan struct{} // nil, or closed when the gate opens
	held chan struct{} // gets a value for each sync that is held, as far as there is room
}

func newGateFS(fs vfs.FS) *gateFS { return &gateFS{FS: fs, held: make(chan struct{}, 1)} }

// hold shuts the gate until the returned function is called.
func (g *gateFS) hold() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	shut := make(chan struct{})
	g.shut = shut
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.shut = nil
		close(shut)
	})
}

func (g *gateFS) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut == nil {
		return
	}
	select {
	case g.held <- struct{}{}:
	default:
	}
	<-shut
}

func (g *gateFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return g.wrap(name)(g.FS.Create(name, c))
}

func (g *gateFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return g.wrap(to)(g.FS.ReuseForWrite(from, to, c))
}

func (g *gateFS) wrap(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err == nil && strings.HasSuffix(name, ".log") {
			f = gateFile{f, g}
		}
		return f, err
	}
}

func (g *gateFS) Unwrap() vfs.FS { return g.FS }

type gateFile struct {
	vfs.File
	g *gateFS
}

func (f gateFile) Sync() error {
	f.g.pass()
	return f.File.Sync()
}

func (f gateFile) SyncData() error {
	f.g.pass()
	return f.File.SyncData()
}

func (f gateFile) SyncTo(n int64) (bool, error) {
	f.g.pass()
	return f.File.SyncTo(n)
}
