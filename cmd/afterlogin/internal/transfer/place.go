package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/backend"
	"github.com/afterlogin/afterlogin/internal/seal"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// Files of a data directory.
const (
	keysFile   = "keys.json"
	masterFile = "master.key"
)

// A Place is an open store, and the keys that its records are sealed with: the data directory of an embedded one, or the
// address of one that servers share.
type Place struct {
	backend.Backend
	Name string // without a password
	Dir  string // of the embedded store, absolute; empty for a shared one
}

// ErrInUse is returned for an embedded store that a server is using.
var ErrInUse = errors.New("the store is in use by a running afterlogin")

// ErrNoStore is returned for a directory without a store.
var ErrNoStore = errors.New("there is no store")

// Named returns what may be printed of a place, and its directory if it is one, without opening it.
func Named(place string) (name, dir string, err error) {
	if strings.Contains(place, "://") {
		if err := backend.Check(place); err != nil {
			return "", "", err
		}
		return backend.Name(place), "", nil
	}
	dir, err = filepath.Abs(place)
	return dir, dir, err
}

// OpenPlace opens the store of a data directory, or at an address (backend.Forms). A directory without a store is ErrNoStore,
// unless it is to be made.
func OpenPlace(ctx context.Context, place string, create bool, log *slog.Logger) (*Place, error) {
	name, dir, err := Named(place)
	if err != nil {
		return nil, err
	}
	p := &Place{Name: name, Dir: dir}
	address := place
	if dir != "" {
		address = ""
		if err := lookFor(dir, create); err != nil {
			return nil, err
		}
	}
	p.Backend, err = backend.Open(ctx, address, dir, log)
	if errors.Is(err, pebblestore.ErrInUse) {
		return nil, fmt.Errorf("%w: %s", ErrInUse, dir)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// lookFor sees whether there is a store in the data directory: one that is looked at must not be made by that.
func lookFor(dir string, create bool) error {
	_, err := os.Stat(filepath.Join(dir, backend.Dir))
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !create {
		return err
	}
	if create {
		return os.MkdirAll(dir, 0o700)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(dir), keysFile)); err == nil && filepath.Base(dir) == backend.Dir {
		return fmt.Errorf("%w in %s: name the directory above it, which has %s, too", ErrNoStore, dir, keysFile)
	}
	return fmt.Errorf("%w in %s", ErrNoStore, dir)
}

// SealedKeys returns the keys of the place as they are kept. The error is keyring.ErrNoRing if there are none.
func (p *Place) SealedKeys(ctx context.Context) ([]byte, error) {
	if p.Dir == "" {
		return keyring.ReadShared(ctx, p.Backend)
	}
	f, err := os.Open(filepath.Join(p.Dir, keysFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is missing", keyring.ErrNoRing, filepath.Join(p.Dir, keysFile))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(maxFrame[frameKeys])+1))
	if err == nil && len(b) > maxFrame[frameKeys] {
		err = fmt.Errorf("%s is over %d bytes", keysFile, maxFrame[frameKeys])
	}
	return b, err
}

// PlaceKeys puts sealed keys into the place. The error is keyring.ErrOtherRing if it has others, and
// keyring.ErrWrongMaster if the master key does not open both.
func (p *Place) PlaceKeys(ctx context.Context, sealed, master []byte) error {
	if p.Dir == "" {
		return keyring.PlaceShared(ctx, p.Backend, sealed, master)
	}
	return keyring.PlaceFile(filepath.Join(p.Dir, keysFile), sealed, master)
}

// Master returns the master key of the data directory, nil if it is kept elsewhere or the place is no directory.
func (p *Place) Master() ([]byte, error) {
	if p.Dir == "" {
		return nil, nil
	}
	path := filepath.Join(p.Dir, masterFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return keyring.Master(path)
}

// ringID and ringKind are those of the record that a shared ring is kept in.
var ringID = store.SubjectID(0, "\x00keys")

const ringKind = 'y'

// IsKeys reports whether a record holds the sealed keys of a shared store. They are moved by themselves, since an embedded
// store has them in a file.
func IsKeys(r *store.Record) bool { return r.ID == ringID && r.Kind == ringKind }

// Opener returns what tells whether a record was sealed with the keys. The error is keyring.ErrWrongMaster if the master key
// does not open these.
func Opener(sealed, master []byte) (func(*store.Record) error, error) {
	// Rings are read from files.
	dir, err := os.MkdirTemp("", "afterlogin-keys-*") // mode 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, keysFile)
	if err := keyring.PlaceFile(path, sealed, master); err != nil {
		return nil, err
	}
	ring, err := keyring.Open(path, master)
	if err != nil {
		return nil, err
	}
	s := seal.New(ring)
	return func(r *store.Record) error {
		_, err := s.Open(r)
		return err
	}, nil
}
