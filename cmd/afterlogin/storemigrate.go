package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/transfer"
)

func (p *program) storeMigrateCommand() *cobra.Command {
	var checkpoint string
	var merge bool
	c := &cobra.Command{
		Use: "migrate --from <store> --to <store>", Short: "Move everything to another store", Args: cobra.NoArgs,
		Long: "Copy every record and the keys of a store into another one, and then compare each record with its copy. All\n" +
			"tokens stay valid; the source is not changed. Events, of which a store keeps the last ones, stay behind.\n\n" +
			"Stop the servers first, and start them on the new store afterwards, with the same master key. What a server changes\n" +
			"meanwhile is found by the comparison; the command then exits with 1, and doing it once more mends it.\n\n" +
			"It can be interrupted at any moment, also by a power cut: the same command goes on where it was, with the file that\n" +
			"--checkpoint names; the comparison begins anew. That file holds no secret and is removed at the end.\n\n" +
			"A destination that holds records already is refused, unless --merge says that this is meant: records that are there\n" +
			"in the same version or a later one then stay.",
		Example: "  afterlogin store migrate --from /var/lib/afterlogin --to redis://127.0.0.1:6379\n" +
			"  afterlogin store migrate --from ./afterlogin-data --to-file /run/secrets/database-url\n" +
			"  afterlogin store migrate --from-file database-url --to ./afterlogin-data --master-key-file master.key",
	}
	from := p.placeFlags(c, "from", "where the records are", "")
	to := p.placeFlags(c, "to", "where they go", "")
	master := p.masterFlag(c)
	c.Flags().StringVar(&checkpoint, "checkpoint", "afterlogin-migrate.json", "file that remembers how far the migration is")
	c.Flags().BoolVar(&merge, "merge", false, "the destination may hold records already")
	c.MarkFlagFilename("checkpoint", "json")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		source, err := from.resolve()
		if err != nil {
			return err
		}
		destination, err := to.resolve()
		if err != nil {
			return err
		}
		if same(source, destination) {
			return usage("name two stores", "--from and --to are the same store")
		}
		if checkpoint == "" {
			return usage("leave it away for afterlogin-migrate.json", "--checkpoint is empty")
		}
		return p.migrate(cmd.Context(), source, destination, checkpoint, *master, merge)
	}
	return c
}

// same reports whether two places are one, as far as their names tell.
func same(a, b string) bool {
	nameA, dirA, _ := transfer.Named(a)
	nameB, dirB, _ := transfer.Named(b)
	if dirA == "" || dirB == "" {
		return nameA == nameB
	}
	infoA, errA := os.Stat(dirA)
	infoB, errB := os.Stat(dirB)
	return dirA == dirB || errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

func (p *program) migrate(ctx context.Context, source, destination, checkpoint, masterFile string, merge bool) (err error) {
	from, err := p.openPlace(ctx, "from", source, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	master, err := p.needMaster(masterFile, from)
	if err != nil {
		return err
	}
	sealed, err := from.SealedKeys(ctx)
	if err != nil {
		return keysError(from.Name, err)
	}
	if _, err := transfer.Opener(sealed, master); err != nil { // before the destination is made
		return keysError(from.Name, err)
	}
	to, err := p.openPlace(ctx, "to", destination, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	bar := p.bar()
	defer bar.end()
	path, err := filepath.Abs(checkpoint)
	if err != nil {
		return err
	}
	switch _, err := os.Stat(path); {
	case err == nil:
		fmt.Fprintf(p.Err, "afterlogin: going on with what %s remembers\n", path)
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(p.Err, "afterlogin: %s to %s; should it be interrupted, the same command goes on, by %s\n", from.Name, to.Name, path)
	}
	m := transfer.Migration{
		From: from, To: to, FromName: from.Name, ToName: to.Name, Checkpoint: path, Merge: merge,
		Keys:  func(ctx context.Context) error { return to.PlaceKeys(ctx, sealed, master) },
		Apart: transfer.IsKeys, Report: bar.show,
	}
	n, err := m.Run(ctx)
	bar.end()
	var keys *transfer.KeysError
	if errors.As(err, &keys) && ctx.Err() == nil {
		return keysError(to.Name, keys.Err)
	}
	if err != nil {
		return p.migrateError(ctx, err, n, path)
	}
	fmt.Fprintf(p.Out, "copied %s records and the keys, and found each of them there\n", thousands(n.Copied))
	if n.Expired > 0 {
		fmt.Fprintf(p.Out, "left behind %s that have expired\n", thousands(n.Expired))
	}
	if n.Newer > 0 {
		fmt.Fprintf(p.Out, "left %s as they were, which are newer there\n", thousands(n.Newer))
	}
	if at, err := to.Master(); to.Dir != "" && at == nil && err == nil {
		fmt.Fprintf(p.Err, "afterlogin: the master key was not copied: serve it with --master-key-file, or put the key into %s\n", filepath.Join(to.Dir, "master.key"))
	}
	return nil
}

func (p *program) migrateError(ctx context.Context, err error, n transfer.Counts, checkpoint string) error {
	switch {
	case ctx.Err() != nil:
		fmt.Fprintf(p.Err, "afterlogin: stopped; the same command goes on from here, by %s\n", checkpoint)
		return context.Canceled
	case errors.Is(err, transfer.ErrDifferent):
		p.differences(n.Examples, n.Different)
		return fail(exitError, "if a server was using one of the stores, stop it and do this once more: nothing is lost. If the new store is in use already, add --merge", "%w", err)
	case errors.Is(err, transfer.ErrNotEmpty):
		return fail(exitError, "if that is an interrupted migration, name its checkpoint with --checkpoint; if the records are to stay there, add --merge; otherwise name an empty store", "%w", err)
	case errors.Is(err, transfer.ErrOtherMigration):
		return fail(exitError, "name another file with --checkpoint; or remove this one, if that migration is not to be finished", "%w", err)
	}
	return fail(exitError, "nothing is lost: do the same once more, and it goes on", "%w", err)
}
