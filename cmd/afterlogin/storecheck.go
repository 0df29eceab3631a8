package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/transfer"
)

// storeVariable names the server's store, for the commands that work on one.
const storeVariable = config.Prefix + "STORE"

func (p *program) storeCheckCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "check --store <store>", Short: "Read everything and say whether it is in order", Args: cobra.NoArgs,
		Long: "Read every record of a store: it must decode, its columns must make sense, its root must be there, the lists must\n" +
			"find it, and, with the master key, its seal must open, which shows that nobody else has written it. Nothing is\n" +
			"changed.\n\n" +
			"Exit codes: 0 everything is in order, 1 something is not, or another error.",
		Example: "  afterlogin store check --store /var/lib/afterlogin\n  afterlogin store check --store-file database-url --master-key-file master.key --json",
	}
	at := p.placeFlags(c, "store", "what to check", storeVariable)
	master := p.masterFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		text, err := at.resolve()
		if err != nil {
			return err
		}
		return p.check(cmd.Context(), text, *master, asJSON)
	}
	return c
}

func (p *program) check(ctx context.Context, text, masterFile string, asJSON bool) (err error) {
	at, err := p.openPlace(ctx, "store", text, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	bar := p.bar()
	defer bar.end()
	c := transfer.Check{Store: at.Backend, Report: bar.show}
	master, err := p.master(masterFile, at)
	if err != nil {
		return err
	}
	sealed, err := at.SealedKeys(ctx)
	if err == nil && master != nil {
		c.Open, err = transfer.Opener(sealed, master)
	}
	if err != nil {
		return keysError(at.Name, err)
	}
	found, err := c.Run(ctx)
	bar.end()
	if err != nil {
		if ctx.Err() != nil {
			return context.Canceled
		}
		return fmt.Errorf("after %s records: %w", thousands(found.Records), err)
	}
	if asJSON {
		err = json.NewEncoder(p.Out).Encode(found)
	} else {
		err = p.printChecked(found)
	}
	if err != nil || found.Problems == 0 {
		return err
	}
	p.differences(found.Examples, found.Problems)
	return fail(exitError, "a record that was changed outside is refused when it is used; restore a backup if there are many", "%s problems", thousands(found.Problems))
}

func (p *program) printChecked(found transfer.Checked) error {
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tLIVE\tENDED\tEXPIRED")
	for _, name := range slices.Sorted(maps.Keys(found.Kinds)) {
		k := found.Kinds[name]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name, thousands(k.Live), thousands(k.Ended), thousands(k.Expired))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !found.Sealed {
		fmt.Fprintln(p.Err, "afterlogin: seals were not checked, for want of the master key: name it with --master-key-file")
	}
	if found.Problems == 0 {
		fmt.Fprintf(p.Out, "%s records, all in order\n", thousands(found.Records))
	}
	return nil
}
