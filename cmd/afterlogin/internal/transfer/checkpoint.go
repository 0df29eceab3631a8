package transfer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/afterlogin/afterlogin/store"
)

// The steps of a migration.
const (
	stepCopy    = "copy"
	stepCompare = "compare"
)

const checkpointLayout = 1

// maxCheckpoint is the greatest size of a checkpoint, in bytes.
const maxCheckpoint = 64 << 10

// A checkpoint is what is kept of a migration, so that it can go on after an interruption. It holds no secret.
type checkpoint struct {
	Layout      int       `json:"layout"`
	Source      string    `json:"from"`
	Destination string    `json:"to"`
	Started     time.Time `json:"started"`
	Total       int64     `json:"total"`
	Step        string    `json:"step"`
	// Cursor is how far the step has come in the source.
	Cursor store.Cursor `json:"cursor,omitempty"`
	Done   int64        `json:"done"` // records of the source that the step has behind it
	Counts Counts       `json:"counts"`
}

// again has a step begin anew, and what it counts.
func (c *checkpoint) again(step string) {
	c.Step, c.Cursor, c.Done = step, "", 0
	switch step {
	case stepCopy:
		c.Counts = Counts{}
	case stepCompare:
		c.Counts = Counts{Copied: c.Counts.Copied, Expired: c.Counts.Expired}
	}
}

// ErrOtherMigration is returned for a checkpoint that is of another migration, or no checkpoint at all.
var ErrOtherMigration = errors.New("the checkpoint is of another migration")

// readCheckpoint returns nil if there is none.
func readCheckpoint(path string) (*checkpoint, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCheckpoint+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	c, err := parseCheckpoint(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func parseCheckpoint(b []byte) (*checkpoint, error) {
	c := &checkpoint{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if len(b) > maxCheckpoint || d.Decode(c) != nil || c.Step != stepCopy && c.Step != stepCompare {
		return nil, fmt.Errorf("%w: it is no checkpoint that this program has written", ErrOtherMigration)
	}
	if c.Layout != checkpointLayout {
		return nil, fmt.Errorf("%w: it has layout %d, and this program knows %d", ErrOtherMigration, c.Layout, checkpointLayout)
	}
	return c, nil
}

func (c *checkpoint) write(path string) error {
	return WriteFile(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "\t")
		return e.Encode(c)
	})
}

// WriteFile has write make the content of a file that only its owner can read, and puts it into place, whole and
// durable, or not at all.
func WriteFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once the file is in place
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
