package pebblestore

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/storetest"
)

func openOn(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openMem(t *testing.T) store.Store  { return openOn(t, "data", Options{FS: vfs.NewMem()}) }
func openDisk(t *testing.T) store.Store { return openOn(t, t.TempDir(), Options{}) }

func TestMem(t *testing.T)       { storetest.RunLocal(t, openMem) }
func TestMemWatch(t *testing.T)  { storetest.RunWatch(t, openMem) }
func TestDisk(t *testing.T)      { storetest.RunLocal(t, openDisk) }
func TestDiskWatch(t *testing.T) { storetest.RunWatch(t, openDisk) }

func TestMemModel(t *testing.T) {
	storetest.Sequences(t, 5000, 50000)
	storetest.RunModel(t, openMem)
}
