package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/transfer"
	"github.com/afterlogin/afterlogin/keyring"
)

func (p *program) storeBackupCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "backup (--store <store> | --server <address>) --out <file>", Short: "Write everything into a file", Args: cobra.NoArgs,
		Long: "Write every record and the sealed keys of a store into one file. The master key is not in it: keep that elsewhere,\n" +
			"since the file is worthless without it. The file appears when it is whole.\n\n" +
			"Servers may go on using a store that they share. An embedded one is in use by its server: have that write the backup,\n" +
			"with --server and an API key with the scope admin, or stop it first.\n\n" +
			"Read \"afterlogin store restore --help\" before you need it: a restored store asks everybody to sign in again.",
		Example: "  afterlogin store backup --server http://127.0.0.1:7070 --key-file admin.key --out afterlogin.backup\n" +
			"  afterlogin store backup --store /var/lib/afterlogin --out afterlogin.backup\n" +
			"  afterlogin store backup --store-file database-url --out - | age -r age1… > afterlogin.backup.age",
	}
	at := p.placeFlags(c, "store", "what to back up", storeVariable)
	r := p.remoteFlags(c)
	c.Flags().StringVar(&out, "out", "", "the file, or - for standard output")
	c.MarkFlagFilename("out")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if out == "" {
			return usage("name a file, or - for standard output", "--out is missing")
		}
		if out == "-" && isTerminal(p.Out) {
			return usage("name a file, or pass it on with |", "--out -: a backup is nothing for a terminal")
		}
		if cmd.Flags().Changed("server") {
			if at.text != "" || at.file != "" {
				return usage("keep one of them", "--server and --store are both set")
			}
			return p.backupFrom(cmd.Context(), r, out)
		}
		text, err := at.resolve()
		if err != nil {
			return err
		}
		return p.backup(cmd.Context(), text, out)
	}
	return c
}

func (p *program) backup(ctx context.Context, text, out string) (err error) {
	at, err := p.openPlace(ctx, "store", text, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	sealed, err := at.SealedKeys(ctx)
	if err != nil {
		return keysError(at.Name, err)
	}
	bar := p.bar()
	defer bar.end()
	kind, _, shared := strings.Cut(at.Name, "://")
	if !shared {
		kind = "embedded"
	}
	b := transfer.Backup{
		From: at, Keys: sealed, Header: transfer.Header{Program: "afterlogin " + version(), Store: kind},
		Apart: transfer.IsKeys, Report: bar.show,
	}
	var t transfer.Trailer
	write := func(w io.Writer) (err error) {
		t, err = b.Write(ctx, w)
		return err
	}
	if out == "-" {
		err = write(p.Out)
	} else {
		err = transfer.WriteFile(out, write)
	}
	bar.end()
	if err != nil {
		if ctx.Err() != nil {
			return context.Canceled
		}
		return fileError("out", err)
	}
	say := p.Out
	if out == "-" {
		say = p.Err
	}
	fmt.Fprintf(say, "wrote %s records and the sealed keys", thousands(t.Records))
	if t.Expired > 0 {
		fmt.Fprintf(say, "; left out %s that have expired", thousands(t.Expired))
	}
	fmt.Fprintln(say)
	return nil
}

// backupFrom has a running server write the backup. What comes is verified before the file appears: an answer that broke
// off is none.
func (p *program) backupFrom(ctx context.Context, r *remote, out string) error {
	if out == "-" {
		return r.download(ctx, "/v1/backup", p.Out)
	}
	var v transfer.Verified
	var refused error // by the server; anything else is about the file
	err := transfer.WriteFile(out, func(w io.Writer) error {
		if refused = r.download(ctx, "/v1/backup", w); refused != nil {
			return refused
		}
		f, ok := w.(io.ReadSeeker)
		if !ok {
			return errors.New("the file cannot be read back")
		}
		var err error
		v, err = transfer.Verify(f, nil, nil)
		return err
	})
	switch {
	case ctx.Err() != nil:
		return context.Canceled
	case refused != nil:
		return refused
	case err != nil:
		return fileError("out", err)
	}
	fmt.Fprintf(p.Out, "wrote %s records and the sealed keys\n", thousands(v.Trailer.Records))
	return nil
}

func (p *program) storeRestoreCommand() *cobra.Command {
	var in string
	var merge, keepSessions, keepKeys bool
	c := &cobra.Command{
		Use: "restore --in <file> --store <store>", Short: "Put a backup into an empty store", Args: cobra.NoArgs,
		Long: "Put the records and the keys of a backup into an empty store, for servers with the same master key. The whole file is\n" +
			"verified first, and nothing is written if it is not whole or was changed.\n\n" +
			"Everybody has to sign in again. What was ended or renewed after the backup is live in the backup: a session that\n" +
			"somebody signed out, a stolen one that was ended, an API key that was taken back. So all sessions, grants, API keys\n" +
			"and tokens of the backup come back as ended, with the reason \"restored\". Registered OAuth clients stay, as they were.\n" +
			"The admin key is ended, too: \"afterlogin serve --new-admin-key\" makes another.\n\n" +
			"--keep-keys leaves API keys alive: those that were taken back after the backup, too. --keep-sessions leaves everything\n" +
			"alive. Then a token that was renewed after the backup is newer than its record: it is refused, its session is ended,\n" +
			"and the event store.rolled_back says so.",
		Example: "  afterlogin store restore --in afterlogin.backup --store /var/lib/afterlogin --master-key-file master.key\n" +
			"  afterlogin store restore --in afterlogin.backup --store-file database-url --master-key-file master.key --keep-keys",
	}
	at := p.placeFlags(c, "store", "where it goes", storeVariable)
	master := p.masterFlag(c)
	c.Flags().StringVar(&in, "in", "", "the file that backup wrote")
	c.Flags().BoolVar(&keepSessions, "keep-sessions", false, "end nothing: also what was ended after the backup is live again")
	c.Flags().BoolVar(&keepKeys, "keep-keys", false, "end everything but API keys")
	c.Flags().BoolVar(&merge, "merge", false, "the store may hold records already, such as those of a restoration that was interrupted; later versions stay")
	c.MarkFlagFilename("in")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if in == "" {
			return usage("name the file that \"afterlogin store backup\" wrote", "--in is missing")
		}
		text, err := at.resolve()
		if err != nil {
			return err
		}
		if keepKeys && keepSessions {
			return usage("keep one of them: --keep-sessions keeps API keys, too", "--keep-keys and --keep-sessions are both set")
		}
		keep := transfer.KeepNothing
		if keepKeys {
			keep = transfer.KeepKeys
		}
		if keepSessions {
			keep = transfer.KeepSessions
		}
		return p.restore(cmd.Context(), in, text, *master, keep, merge)
	}
	return c
}

func (p *program) restore(ctx context.Context, in, text, masterFile string, keep transfer.Keep, merge bool) (err error) {
	file, err := os.Open(in)
	if err != nil {
		return fileError("in", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return usage("it is read twice, so that nothing is written if it is not whole: put it into a file first", "--in: %s is not a file", in)
	}
	sealed, err := transfer.Keys(file)
	if err != nil {
		return badBackup(in, err)
	}
	key, err := p.masterBeside(masterFile, text)
	if err != nil {
		return err
	}
	open, err := transfer.Opener(sealed, key)
	if err != nil {
		return keysError(in, err)
	}
	bar := p.bar()
	defer bar.end()
	// Before a directory is made for it.
	verified, err := transfer.Verify(file, open, bar.show)
	if err != nil {
		return badBackup(in, err)
	}
	to, err := p.openPlace(ctx, "store", text, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	r := transfer.Restoration{
		In: file, Verified: verified, To: to, Merge: merge, Keep: keep,
		Keys:  func(ctx context.Context) error { return to.PlaceKeys(ctx, sealed, key) },
		Apart: transfer.IsKeys, Report: bar.show,
	}
	n, err := r.Run(ctx)
	bar.end()
	var keys *transfer.KeysError
	switch {
	case errors.As(err, &keys) && ctx.Err() == nil:
		return keysError(to.Name, keys.Err)
	case ctx.Err() != nil && err != nil:
		fmt.Fprintln(p.Err, "afterlogin: stopped; the same command with --merge goes on")
		return context.Canceled
	case errors.Is(err, transfer.ErrBadBackup):
		return badBackup(in, err)
	case errors.Is(err, transfer.ErrNotEmpty):
		return fail(exitError, "name an empty store; or add --merge, if that is a restoration that was interrupted", "%s: %w", to.Name, err)
	case err != nil:
		return fail(exitError, "do the same once more with --merge", "%w", err)
	}
	fmt.Fprintf(p.Out, "restored %s records of %s\n", thousands(n.Records), verified.Header.Created.Format(time.RFC3339))
	if n.Expired > 0 {
		fmt.Fprintf(p.Out, "left out %s that have expired\n", thousands(n.Expired))
	}
	if n.Newer > 0 {
		fmt.Fprintf(p.Out, "left %s as they were, which are newer there\n", thousands(n.Newer))
	}
	switch keep {
	case transfer.KeepSessions:
		fmt.Fprintln(p.Out, "nothing was ended: what was ended after the backup is live again")
	case transfer.KeepKeys:
		fmt.Fprintf(p.Out, "ended %s of them: everybody has to sign in again; API keys live on, those taken back after the backup, too\n", thousands(n.Ended))
	default:
		fmt.Fprintf(p.Out, "ended %s of them: everybody has to sign in again, and API keys have to be made anew\n", thousands(n.Ended))
		fmt.Fprintln(p.Err, "afterlogin: the admin key is ended, too: start once with serve --new-admin-key")
	}
	if have, err := to.Master(); to.Dir != "" && have == nil && err == nil {
		fmt.Fprintf(p.Err, "afterlogin: serve it with the same master key: by --master-key-file, or in %s\n", filepath.Join(to.Dir, "master.key"))
	}
	return nil
}

// masterBeside returns the master key that was named, or the one in the data directory that a backup is restored to, which
// need not be a store yet.
func (p *program) masterBeside(file, text string) ([]byte, error) {
	_, dir, err := transfer.Named(text)
	if err != nil {
		return nil, err
	}
	return p.needMaster(file, &transfer.Place{Dir: dir})
}

func badBackup(in string, err error) error {
	if errors.Is(err, keyring.ErrWrongMaster) {
		return keysError(in, err)
	}
	return fail(exitError, "nothing was written; take another backup", "%s: %w", in, err)
}
