package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/afterlogin/afterlogin/store"
)

// A ring is moved by its sealed text, which is the same in a key file and in a store, and is worthless without the master
// key. Embedded to shared: Open, Sealed, PlaceShared. Shared to embedded: ReadShared, PlaceFile. Both ends use one master
// key afterwards.

// Sealed returns the ring as it stands in a key file and in a store's record. It fails for a ring in memory, which has no
// master key.
func (r *Ring) Sealed() ([]byte, error) {
	if r.master == nil {
		return nil, errors.New("keyring: a ring in memory is not sealed")
	}
	return r.text(r.contents())
}

// ReadShared returns the sealed ring of the store, and ErrNoRing if there is none.
func ReadShared(ctx context.Context, st store.Store) ([]byte, error) {
	rec, err := readRecord(ctx, st)
	if err != nil {
		return nil, err
	}
	if rec == nil {
		return nil, ErrNoRing
	}
	return rec.Payload, nil
}

// PlaceShared puts a sealed ring into the store, for nodes that will start on it. It may be repeated: a ring that is there
// and has all of these keys stays, and one that has some of these and no others is replaced. If it has
// others it returns ErrOtherRing. The master key must open both.
func PlaceShared(ctx context.Context, st store.Store, sealed, master []byte) error {
	want, err := parseSealed(sealed, master)
	if err != nil {
		return err
	}
	var last error
	doubt := false
	for range attempts {
		rec, err := readRecord(ctx, st)
		if err != nil {
			return err
		}
		var version uint64
		text := sealed
		if rec != nil {
			have, err := parseSealed(rec.Payload, master)
			switch {
			case err != nil:
				return err
			case want.within(have) && !doubt:
				return nil
			case want.within(have):
				text = rec.Payload // written once more, to know of its copies
			case !have.within(want):
				return ErrOtherRing
			}
			version = rec.Version
		}
		_, err = putRecord(ctx, st, text, version)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, store.ErrConflict), uncertain(err):
			last, doubt = err, doubt || uncertain(err)
		case errors.Is(err, ErrTooManyKeys):
			return err
		default:
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, last)
}

// PlaceFile makes a key file of a sealed ring. It may be repeated as PlaceShared may. No process may be using the file.
func PlaceFile(path string, sealed, master []byte) error {
	want, err := parseSealed(sealed, master)
	if err != nil {
		return err
	}
	text, err := want.Sealed()
	if err != nil {
		return err
	}
	if err = createFile(path, text); !errors.Is(err, fs.ErrExist) {
		return err
	}
	b, err := readLimited(path, maxFile)
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	have, err := parseSealed(b, master)
	switch {
	case err != nil:
		return fmt.Errorf("%w (%s)", err, path)
	case want.within(have):
		return nil
	case !have.within(want):
		return fmt.Errorf("%w (%s)", ErrOtherRing, path)
	}
	return replaceFile(path, text)
}

func parseSealed(sealed, master []byte) (*Ring, error) {
	if len(master) != KeySize {
		return nil, fmt.Errorf("keyring: master key of %d bytes, want %d", len(master), KeySize)
	}
	if len(sealed) > maxFile {
		return nil, fmt.Errorf("keyring: bad key file: over %d bytes", maxFile)
	}
	return parse(sealed, master)
}

// within reports whether the other ring has every key of r, in a state that is no earlier: whether nothing is lost when it
// stays instead of r.
func (r *Ring) within(o *Ring) bool {
	if r.installation != o.installation {
		return false
	}
	mine, others := r.contents(), o.contents()
	for p, list := range mine.keys {
		for _, k := range list {
			same, found := o.find(p, k.ID)
			if !found || !bytes.Equal(same.Secret(), k.Secret()) || same.State.rank() < k.State.rank() {
				return false
			}
		}
	}
	for _, k := range mine.signing {
		i := others.signing.index(k.ID)
		if i < 0 && !k.published(r.now()) {
			continue // it has ended, and may have been forgotten there
		}
		if i < 0 || k.Retired && !others.signing[i].Retired {
			return false
		}
	}
	return true
}
