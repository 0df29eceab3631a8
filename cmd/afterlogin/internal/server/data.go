package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/backend"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/keyring"
)

// What the data directory holds. With a store that servers share it holds the master key and the admin key alone.
const (
	keysFile      = "keys.json"  // the installation's keys, sealed with the master key
	masterFile    = "master.key" // unless the master key is elsewhere
	adminKeyFile  = "admin.key"  // the first API key
	adminKeyNote  = "admin.made" // says that there has been one
	lockFile      = "server.lock"
	adminKeyName  = "admin key"
	maxSecretFile = 4 << 10
)

// data is an open data directory, and the store, which may be elsewhere.
type data struct {
	dir    string
	name   string // of the store, for people
	store  backend.Backend
	shared bool // other servers use the store, too
	keys   *keyring.Ring
	lock   *os.File // held while the directory is open; nil: the embedded store has one
}

// openData opens the directory, making what is missing, and the store. The store comes before the keys: the embedded
// one's lock keeps a second process from making keys at the same time.
func openData(ctx context.Context, o Options) (*data, error) {
	c, log := o.Config, o.Logger
	address, err := c.StoreAddress()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, unusable(c.Data, err)
	}
	if err := private(c.Data); err != nil {
		return nil, err
	}
	d := &data{dir: c.Data, name: backend.Name(address), store: o.store, shared: backend.Shared(address)}
	if d.shared { // the embedded one has a lock of its own
		if d.lock, err = lock(filepath.Join(d.dir, lockFile)); err != nil {
			return nil, err
		}
	}
	if d.store == nil {
		if d.store, err = backend.Open(ctx, address, c.Data, log); err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	open := d.openKeys
	if d.shared {
		open = d.openSharedKeys
	}
	if d.keys, err = open(ctx, c, log); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// close closes what is open.
func (d *data) close() (err error) {
	if d.keys != nil {
		err = d.keys.Close()
	}
	if d.store != nil {
		err = errors.Join(err, d.store.Close())
	}
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}

// lock keeps a second server out of the data directory, since both would take the admin key there for theirs.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unusable(filepath.Dir(path), err)
	}
	if err := hold(f); err != nil {
		f.Close()
		return nil, setup("each server has a data directory of its own, also on a shared store: name another with --data, or stop the afterlogin that is running there",
			"the data directory %s is in use by another server: %w", filepath.Dir(path), err)
	}
	return f, nil
}

func unusable(dir string, err error) error {
	return setup("make it, owned by the user that this program runs as and with mode 0700, or name another with --data", "the data directory %s cannot be used: %w", dir, err)
}

// private refuses a directory in which others can put files of theirs in the place of ours.
func private(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return unusable(dir, err)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 && runtime.GOOS != "windows" {
		return setup(fmt.Sprintf("chmod 700 %s, if nobody else has put anything there; or name a directory below it with --data, which will be made", dir),
			"the data directory %s can be written to by others (mode %04o): they could replace its keys", dir, mode)
	}
	return nil
}

// openKeys opens the key file with the master key. It makes either only for a store that is empty: with fresh keys,
// nothing that is there could be read, and nobody would know why.
func (d *data) openKeys(ctx context.Context, c config.Config, _ *slog.Logger) (*keyring.Ring, error) {
	path := filepath.Join(d.dir, keysFile)
	_, err := os.Lstat(path)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		needed, err := keyring.Needed(ctx, d.store)
		if err != nil {
			return nil, fmt.Errorf("look into the store: %w", err)
		}
		if needed {
			return nil, setup("restore it from a backup, together with the master key; or move the directory away to begin anew, which signs everybody out",
				"%s is missing, and without it nothing in the store can be read", path)
		}
	}
	master, err := d.master(c, fresh, keysFile)
	if err != nil {
		return nil, err
	}
	ring, err := keyring.Open(path, master)
	switch {
	case errors.Is(err, keyring.ErrWrongMaster):
		return nil, setup("the master key and keys.json are of different installations, or keys.json was changed: restore the pair from a backup", "%w", err)
	case err != nil:
		return nil, unusable(d.dir, err)
	}
	return ring, nil
}

// master returns the master key: from the environment, from a file that was named, or from the data directory, where it
// is made if fresh. Otherwise it says that what it seals cannot be opened.
func (d *data) master(c config.Config, fresh bool, seals string) ([]byte, error) {
	if key, err := c.Master(); key != nil || err != nil {
		return key, err
	}
	path := filepath.Join(d.dir, masterFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && !fresh {
		return nil, setup(fmt.Sprintf("restore it from a backup, or name it with %sMASTER_KEY_FILE or %[1]sMASTER_KEY", config.Prefix),
			"%s is missing, and without it %s cannot be opened", path, seals)
	}
	key, err := keyring.Master(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, unusable(d.dir, err)
	}
	return key, err
}

// writeSecret puts the text into the file, readable by its owner only, whole or not at all.
func writeSecret(path, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".secret-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails once the file is in place
	_, err = tmp.WriteString(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// readSecret reads a small file.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSecretFile {
		return nil, fmt.Errorf("%s is over %d bytes: it is not a key", path, maxSecretFile)
	}
	return os.ReadFile(path)
}
