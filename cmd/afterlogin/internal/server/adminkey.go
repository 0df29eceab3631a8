package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/api"
)

// adminKey makes the first API key, if there has been none, and says where it is. That there has been one is known from
// the store: who takes the file away, to keep the key elsewhere, does not get another. When the store has forgotten a key
// that ended, it is known from a note beside it, so that ending the key is for good.
//
// An empty file says that making the key was begun: a start that finds one, after a crash, ends what may have been made
// and makes it anew.
//
// Where servers share a store, see sharedAdminKey.
func (d *data) adminKey(ctx context.Context, a *afterlogin.Authority, o Options) (where string, err error) {
	if d.shared {
		return d.sharedAdminKey(ctx, a, o)
	}
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
	live, over, err := adminKeys(ctx, a)
	if err != nil {
		return "", err
	}
	begun := exists && strings.TrimSpace(string(text)) == ""
	never := !exists && !noted && len(live) == 0 && !over
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
	if o.NewAdminKey || begun || never {
		return path, nil
	}
	return d.whereAdminKey(ctx, a, o, path, strings.TrimSpace(string(text)), len(live) > 0), nil
}

// adminKeys returns the admin keys that are good, and whether there are some that are not any more.
func adminKeys(ctx context.Context, a *afterlogin.Authority) (live []afterlogin.SessionID, over bool, err error) {
	for s, err := range a.Sessions(ctx, afterlogin.Query{Subject: api.AdminSubject, Kind: afterlogin.KindAPIKey, Ended: true}) {
		switch {
		case err != nil:
			return nil, false, fmt.Errorf("look for the admin key: %w", err)
		case s.Ended.IsZero():
			live = append(live, s.ID)
		default:
			over = true
		}
	}
	return live, over, nil
}

// whereAdminKey says where the admin key is, which was made before; text is what the file holds, "" if there is none.
func (d *data) whereAdminKey(ctx context.Context, a *afterlogin.Authority, o Options, path, text string, live bool) string {
	switch {
	case !live:
		o.Logger.Warn("the admin key is over: it was ended or has expired; start once with --new-admin-key for another")
		return "none: it was ended or has expired; --new-admin-key makes another"
	case text == "":
		return "kept elsewhere; --new-admin-key makes another and ends it"
	}
	_, err := a.Validate(ctx, afterlogin.TokenFrom(text), afterlogin.Expect{Kinds: []afterlogin.Kind{afterlogin.KindAPIKey}})
	if errors.Is(err, afterlogin.ErrInvalidToken) {
		o.Logger.Warn("the key in the file is not the admin key; start once with --new-admin-key for another", "file", path, "reason", afterlogin.ReasonOf(err))
	}
	return path
}

// mintAdminKey ends the old keys, makes a new one and writes it to the file, in this order.
func (d *data) mintAdminKey(ctx context.Context, a *afterlogin.Authority, o Options, path string, old []afterlogin.SessionID) error {
	if err := writeSecret(path, ""); err != nil {
		return unusable(d.dir, err)
	}
	key, err := d.issueAdminKey(ctx, a, o, old)
	if err != nil {
		return err
	}
	return d.keepAdminKey(o, path, key)
}

// issueAdminKey ends the old keys and makes a new one.
func (d *data) issueAdminKey(ctx context.Context, a *afterlogin.Authority, o Options, old []afterlogin.SessionID) (afterlogin.Issued, error) {
	for _, id := range old {
		if err := a.Revoke(ctx, id, afterlogin.ReasonAdministrator); err != nil {
			return afterlogin.Issued{}, fmt.Errorf("end the old admin key: %w", err)
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
		return key, fmt.Errorf("make the admin key: %w", err)
	}
	return key, nil
}

// keepAdminKey writes the key to the file.
func (d *data) keepAdminKey(o Options, path string, key afterlogin.Issued) error {
	if err := writeSecret(path, key.Token.Reveal()+"\n"); err != nil {
		return unusable(d.dir, err)
	}
	o.Logger.Info("made the admin key", "file", path, "key", key.Session.ID)
	return nil
}
