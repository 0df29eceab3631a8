package pebblestore

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Format is the version of what this package writes. Open refuses a directory of a newer one.
const Format = 1

// Errors of Open that a caller may want to tell apart. Their messages name the directory and what to do.
var (
	ErrInUse  = errors.New("in use by another process")
	ErrFormat = errors.New("not a store that this program can read")
)

// Open opens the store in dir, which it makes if it is not there. One process at a time can have it open, once.
func Open(dir string, o Options) (*Store, error) {
	o.setDefaults()
	if o.FS == vfs.Default {
		// The lock is by name, and one process could otherwise open the directory twice by two names.
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("pebblestore: %s: %w", dir, err)
		}
		dir = abs
	}
	if err := o.FS.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("pebblestore: cannot make the directory %s: %w: make it, owned by the user that this program runs as, or name another", dir, err)
	}
	if o.FS == vfs.Default {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
	}
	s := &Store{
		dir: dir, o: o, log: o.Logger,
		ending:   make(chan struct{}),
		commits:  make(chan *commit, 256),
		applied:  make(chan *commit, 1024),
		finished: make(chan struct{}),
		dead:     make(chan struct{}),
	}
	lock, err := pebble.LockDirectory(dir, o.FS)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			return nil, unusable(dir, err)
		}
		return nil, fmt.Errorf("pebblestore: %s is %w (%v): stop that one, or name another directory", dir, ErrInUse, err)
	}
	if err := s.checkRoom(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	p := s.pebbleOptions()
	p.Lock = lock
	// From here on the lock lives as long as the database.
	if err := errors.Join(s.openPebble(p), lock.Close()); err != nil {
		return nil, err
	}
	s.space.start(s)
	go s.apply()
	go s.finish()
	return s, nil
}

// openPebble opens the database and reads what the store knows of itself. Where storage fails so that Pebble panics, or
// would end the process, nothing but an error is called for as yet; the directory then stays locked.
func (s *Store) openPebble(p *pebble.Options) (err error) {
	s.opening.Store(true)
	defer s.opening.Store(false)
	defer func() {
		if r := recover(); r != nil {
			err = unusable(s.dir, fmt.Errorf("%v", r))
		}
	}()
	if s.db, err = pebble.Open(s.dir, p); err != nil {
		return unusable(s.dir, err)
	}
	if err := s.load(); err != nil {
		return errors.Join(err, s.db.Close())
	}
	return nil
}

func unusable(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("pebblestore: no access to %s: %w: it has to belong to the user that this program runs as, with mode 0700", dir, err)
	}
	return fmt.Errorf("pebblestore: cannot open %s: %w", dir, err)
}

// load reads what the store knows of itself, and writes it if the store is new.
func (s *Store) load() error {
	format, err := s.meta("format")
	if err != nil {
		return err
	}
	id, err := s.meta("store")
	if err != nil {
		return err
	}
	b := s.db.NewBatch()
	defer b.Close()
	switch {
	case format == nil:
		if err := s.mustBeEmpty(); err != nil {
			return err
		}
		id = make([]byte, len(storeID{}))
		rand.Read(id)
		if err := errors.Join(
			b.Set(metaKey("format"), binary.BigEndian.AppendUint32(nil, Format), nil),
			b.Set(metaKey("store"), id, nil)); err != nil {
			return err
		}
	case len(format) != 4 || len(id) != len(storeID{}):
		return fmt.Errorf("pebblestore: %s: %w: its format or its name is damaged", s.dir, ErrFormat)
	case binary.BigEndian.Uint32(format) > Format:
		return fmt.Errorf("pebblestore: %s: %w: it has format %d, and this program knows formats up to %d: use the program that wrote it, or a newer one",
			s.dir, ErrFormat, binary.BigEndian.Uint32(format), Format)
	}
	s.events.id = storeID(id)
	if err := s.loadEvents(b); err != nil {
		return err
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("pebblestore: %s: %w", s.dir, err)
	}
	return nil
}

// mustBeEmpty refuses somebody else's database.
func (s *Store) mustBeEmpty() error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return fmt.Errorf("pebblestore: %s: %w", s.dir, err)
	}
	defer it.Close()
	if it.First() {
		return fmt.Errorf("pebblestore: %s: %w: it is a Pebble database of another program", s.dir, ErrFormat)
	}
	return it.Error()
}

// loadEvents counts the events that there are, and begins the numbers of this life of the process.
func (s *Store) loadEvents(b *pebble.Batch) error {
	v := &s.events
	v.chunk = max(1, s.o.KeepEvents/kept)
	last, err := s.meta("events")
	if err != nil {
		return err
	}
	var newest uint64
	if len(last) == 8 {
		newest = binary.BigEndian.Uint64(last)
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyEvent}, UpperBound: []byte{keyEvent + 1}})
	if err != nil {
		return fmt.Errorf("pebblestore: %s: %w", s.dir, err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		n := binary.BigEndian.Uint64(it.Key()[1:])
		newest = max(newest, n)
		if v.count%v.chunk == 0 {
			v.fences, v.count = append(v.fences, n), 0
		}
		v.count++
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("pebblestore: %s: %w", s.dir, err)
	}
	// A crash may have taken numbers with it, fewer than 2³². The rest is chance, so that a store that was restored
	// from a copy does not give the numbers again that the original gave after the copy.
	var jump [8]byte
	rand.Read(jump[:])
	v.durable = newest + 1<<32 + binary.BigEndian.Uint64(jump[:])>>20
	v.next = v.durable + 1
	if len(v.fences) > 0 {
		v.floor = v.fences[0]
	}
	return b.Set(metaKey("events"), binary.BigEndian.AppendUint64(nil, v.durable), nil)
}

// meta returns what is stored under a name, nil if nothing is.
func (s *Store) meta(name string) ([]byte, error) {
	v, closer, err := s.db.Get(metaKey(name))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pebblestore: %s: %w", s.dir, err)
	}
	defer closer.Close()
	return append([]byte{}, v...), nil
}
