package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
)

// What several servers on one store agree on through it: the keys, and which of them made the admin key.

// openSharedKeys opens the ring in the store, or makes it in an empty one. A master key is made only together with a
// ring: one that was made later could not open it.
func (d *data) openSharedKeys(ctx context.Context, c config.Config, log *slog.Logger) (*keyring.Ring, error) {
	_, err := keyring.ReadShared(ctx, d.store)
	none := errors.Is(err, keyring.ErrNoRing)
	if err != nil && !none {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(d.dir, keysFile)); err == nil && none {
		return nil, setup("move what is there with: afterlogin store migrate; or name another directory with --data to begin anew",
			"the data directory %s holds the keys of an embedded store, and %s holds none: on this store everybody would be signed out", d.dir, d.name)
	}
	const one = "all servers on a store need one master key: give this one that of the others, with "
	remedy := one + config.Prefix + "MASTER_KEY_FILE or " + config.Prefix + "MASTER_KEY, or copy their " + masterFile + " into its data directory"
	master, err := d.master(c, none, "the keys in "+d.name)
	if err != nil {
		var missing *SetupError
		if !none && errors.As(err, &missing) {
			missing.Hint = remedy
		}
		return nil, err
	}
	ring, err := keyring.OpenShared(ctx, d.store, master, keyring.SharedOptions{Logger: log})
	switch {
	case errors.Is(err, keyring.ErrWrongMaster):
		return nil, setup(remedy, "the keys in %s were sealed with another master key than this server has: %w", d.name, err)
	case errors.Is(err, keyring.ErrNoRing):
		return nil, setup("restore the store from a backup, or empty it to begin anew, which signs everybody out",
			"%s holds records and no keys, and without them nothing in it can be read", d.name)
	case err != nil:
		return nil, fmt.Errorf("open the keys in %s: %w", d.name, err)
	}
	return ring, nil
}

// noteID is the record that says who made the admin key, or makes it: in it stands a claim, a random text that whoever
// makes the key has in its file until it has the key. It holds no secret. No subject begins with a zero byte.
var noteID = store.SubjectID(0, "\x00admin key")

// noteKind is the kind of that record alone.
const noteKind = 'n'

// claimPrefix stands before a claim in the file of the admin key.
const claimPrefix = "being made: "

// sharedAdminKey makes the first API key if no server on the store has made one, and says where it is. Whether one was
// made stands in the store, so that a server that comes later neither makes another nor ends it: the key is in the data
// directory of the server that was first. It is replaced only where somebody says --new-admin-key.
//
// The claim goes to the file first and to the store second. A start that finds its own claim in both was cut off, and
// makes the key anew; one that finds another's in the store leaves it to that one.
func (d *data) sharedAdminKey(ctx context.Context, a *afterlogin.Authority, o Options) (where string, err error) {
	path := filepath.Join(d.dir, adminKeyFile)
	b, err := readSecret(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", unusable(d.dir, err)
	}
	text := strings.TrimSpace(string(b))
	mine, begun := strings.CutPrefix(text, claimPrefix)
	if begun {
		text = ""
	}
	for range 100 {
		claim, version, err := d.note(ctx)
		if err != nil {
			return "", err
		}
		live, over, err := adminKeys(ctx, a)
		if err != nil {
			return "", err
		}
		cutOff := begun && claim == mine
		switch {
		case cutOff:
		case o.NewAdminKey, version == 0 && text == "" && len(live) == 0 && !over:
			mine = rand.Text()
			if err := writeSecret(path, claimPrefix+mine+"\n"); err != nil {
				return "", unusable(d.dir, err)
			}
			begun, text = true, ""
			if err := d.putNote(ctx, mine, version); errors.Is(err, store.ErrConflict) {
				continue // another server was faster: look again
			} else if err != nil {
				return "", fmt.Errorf("note who makes the admin key: %w", err)
			}
		default:
			if version == 0 { // made before the note was: on an embedded store
				if err := d.putNote(ctx, rand.Text(), 0); err != nil && !errors.Is(err, store.ErrConflict) {
					return "", fmt.Errorf("note that there is an admin key: %w", err)
				}
			}
			if begun {
				if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return "", unusable(d.dir, err)
				}
			}
			if len(live) == 0 && !over {
				return "made by another server on this store at this moment", nil
			}
			return d.whereAdminKey(ctx, a, o, path, text, len(live) > 0), nil
		}
		key, err := d.issueAdminKey(ctx, a, o, live)
		if err != nil {
			return "", err
		}
		if claim, _, err = d.note(ctx); err != nil {
			return "", err
		}
		if claim != mine { // somebody asked another server for a new key meanwhile: that one counts
			if err := a.Revoke(ctx, key.Session.ID, afterlogin.ReasonAdministrator); err != nil {
				return "", fmt.Errorf("end the admin key that another server replaced: %w", err)
			}
			o.NewAdminKey = false
			continue
		}
		return path, d.keepAdminKey(o, path, key)
	}
	return "", fmt.Errorf("make the admin key: too many servers do at once")
}

// note returns the claim that stands in the store, and the version of the note, 0 if there is none.
func (d *data) note(ctx context.Context) (claim string, version uint64, err error) {
	rs, err := d.store.Get(ctx, noteID)
	if err != nil {
		return "", 0, fmt.Errorf("look who made the admin key: %w", err)
	}
	if rs[0] == nil {
		return "", 0, nil
	}
	return string(rs[0].Payload), rs[0].Version, nil
}

// putNote puts the claim in the place of the note of the version. If the answer was lost it looks, and writes what it
// finds once more: that a claim is there does not say that it cannot be lost.
func (d *data) putNote(ctx context.Context, claim string, version uint64) error {
	doubt := false
	for try := 0; ; try++ {
		rec := &store.Record{ID: noteID, Kind: noteKind, Version: version + 1, Payload: []byte(claim)}
		err := d.store.Apply(ctx, noteID, store.Put(rec, version))
		doubt = doubt || errors.Is(err, store.ErrUnknown) || errors.Is(err, store.ErrUnconfirmed)
		if err == nil || !doubt || try == 8 {
			return err
		}
		have, at, rerr := d.note(ctx)
		if rerr != nil {
			return err
		}
		if have == claim {
			version = at
		} else if at != version {
			return store.ErrConflict
		}
	}
}
