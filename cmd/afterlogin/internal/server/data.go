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
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/keyring"
	"github.com/afterlogin/afterlogin/store"
	"github.com/afterlogin/afterlogin/store/pebblestore"
)

// What the data directory holds.
const (
	storeDir      = "store"      // records and events
	keysFile      = "keys.json"  // the installation's keys, sealed with the master key
	masterFile    = "master.key" // unless the master key is elsewhere
	adminKeyFile  = "admin.key"  // the first API key
	adminKeyNote  = "admin.made" // says that there has been one
	adminKeyName  = "admin key"
	maxSecretFile = 4 << 10
)

// data is an open data directory.
type data struct {
	dir   string
	store *pebblestore.Store
	keys  *keyring.Ring
}

// openData opens the directory, making what is missing. The store comes first, since its lock keeps a second process
// from making keys at the same time.
func openData(ctx context.Context, c config.Config, log *slog.Logger) (*data, error) {
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, unusable(c.Data, err)
	}
	if err := private(c.Data); err != nil {
		return nil, err
	}
	st, err := openStore(filepath.Join(c.Data, storeDir), log)
	if err != nil {
		return nil, err
	}
	d := &data{dir: c.Data, store: st}
	if d.keys, err = d.openKeys(ctx, c); err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return d, nil
}

func (d *data) close() error { return d.store.Close() }

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

// openStore opens the embedded store.
func openStore(dir string, log *slog.Logger) (*pebblestore.Store, error) {
	s, err := pebblestore.Open(dir, pebblestore.Options{Logger: log})
	var path *fs.PathError
	switch {
	case err == nil:
		return s, nil
	case errors.Is(err, pebblestore.ErrInUse):
		return nil, setup("stop the afterlogin that is running there, or name another directory with --data", "%w", err)
	case errors.As(err, &path), errors.Is(err, fs.ErrPermission):
		return nil, setup("name another directory with --data, or give this one to the user that this program runs as", "%w", err)
	}
	return nil, fmt.Errorf("open the store: %w", err)
}

// openKeys opens the key file with the master key. It makes either only for a store that is empty: with fresh keys,
// nothing that is there could be read, and nobody would know why.
func (d *data) openKeys(ctx context.Context, c config.Config) (*keyring.Ring, error) {
	path := filepath.Join(d.dir, keysFile)
	_, err := os.Lstat(path)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		for _, err := range d.store.List(ctx, store.Query{}) {
			if err != nil {
				return nil, fmt.Errorf("look into the store: %w", err)
			}
			return nil, setup("restore it from a backup, together with the master key; or move the directory away to begin anew, which signs everybody out",
				"%s is missing, and without it nothing in the store can be read", path)
		}
	}
	master, err := d.master(c, fresh)
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
// is made if fresh.
func (d *data) master(c config.Config, fresh bool) ([]byte, error) {
	if key, err := c.Master(); key != nil || err != nil {
		return key, err
	}
	path := filepath.Join(d.dir, masterFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && !fresh {
		return nil, setup(fmt.Sprintf("restore it from a backup, or name it with %sMASTER_KEY_FILE or %[1]sMASTER_KEY", config.Prefix),
			"%s is missing, and without it %s cannot be opened", path, keysFile)
	}
	key, err := keyring.Master(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, unusable(d.dir, err)
	}
	return key, err
}

// adminKey makes the first API key, if there has been none, and says where it is. That there has been one is known from
// the store: who takes the file away, to keep the key elsewhere, does not get another. When the store has forgotten a key
// that ended, it is known from a note beside it, so that ending the key is for good.
//
// An empty file says that making the key was begun: a start that finds one, after a crash, ends what may have been made
// and makes it anew.
func (d *data) adminKey(ctx context.Context, a *afterlogin.Authority, o Options) (where string, err error) {
	path, note := filepath.Join(d.dir, adminKeyFile), filepath.Join(d.dir, adminKeyNote)
	text, err := readSecret(path)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", unusable(d.dir, err)
	}
	_, err = os.Lstat(note)
	noted := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", unusable(d.dir, err)
	}
	var live []afterlogin.SessionID
	over := 0
	for s, err := range a.Sessions(ctx, afterlogin.Query{Subject: api.AdminSubject, Kind: afterlogin.KindAPIKey, Ended: true}) {
		switch {
		case err != nil:
			return "", fmt.Errorf("look for the admin key: %w", err)
		case s.Ended.IsZero():
			live = append(live, s.ID)
		default:
			over++
		}
	}
	begun := exists && strings.TrimSpace(string(text)) == ""
	never := !exists && !noted && len(live) == 0 && over == 0
	if o.NewAdminKey || begun || never {
		if err := d.mintAdminKey(ctx, a, o, path, live); err != nil {
			return "", err
		}
	}
	if !noted {
		if err := writeSecret(note, "An admin key was made here. There is no other but by serve --new-admin-key.\n"); err != nil {
			return "", unusable(d.dir, err)
		}
	}
	switch {
	case o.NewAdminKey || begun || never:
		return path, nil
	case len(live) == 0:
		o.Logger.Warn("the admin key is over: it was ended or has expired; start once with --new-admin-key for another")
		return "none: it was ended or has expired; --new-admin-key makes another", nil
	case !exists:
		return "kept elsewhere; --new-admin-key makes another and ends it", nil
	}
	_, err = a.Validate(ctx, afterlogin.TokenFrom(strings.TrimSpace(string(text))), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}})
	if errors.Is(err, afterlogin.ErrInvalidToken) {
		o.Logger.Warn("the key in the file is not the admin key; start once with --new-admin-key for another", "file", path, "reason", afterlogin.ReasonOf(err))
	}
	return path, nil
}

// mintAdminKey ends the old keys, makes a new one and writes it to the file, in this order.
func (d *data) mintAdminKey(ctx context.Context, a *afterlogin.Authority, o Options, path string, old []afterlogin.SessionID) error {
	if err := writeSecret(path, ""); err != nil {
		return unusable(d.dir, err)
	}
	for _, id := range old {
		if err := a.Revoke(ctx, id, afterlogin.ReasonAdministrator); err != nil {
			return fmt.Errorf("end the old admin key: %w", err)
		}
	}
	r := afterlogin.IssueRequest{
		Subject: api.AdminSubject, Kind: afterlogin.KindAPIKey, Name: adminKeyName,
		NoExpiry: o.Config.Policies[afterlogin.PolicyAPIKey].Absolute == 0,
	}
	for _, s := range api.Scopes() {
		r.Scopes = append(r.Scopes, string(s))
	}
	key, err := a.Issue(ctx, r)
	if err != nil {
		return fmt.Errorf("make the admin key: %w", err)
	}
	if err := writeSecret(path, key.Token.Reveal()+"\n"); err != nil {
		return unusable(d.dir, err)
	}
	o.Logger.Info("made the admin key", "file", path, "key", key.Session.ID)
	return nil
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
