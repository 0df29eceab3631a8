package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/backend"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/transfer"
	"github.com/afterlogin/afterlogin/keyring"
)

func (p *program) storeCommand() *cobra.Command {
	return group("store", "Move, check, back up and restore a store",
		"Move, check, back up and restore a whole store, without a server.\n\n"+
			"A store is named by the data directory of an embedded one (that of serve --data), or by the address of one that\n"+
			"servers share. An address with a password is better put into a file, or into the environment: other users of the\n"+
			"machine can see arguments.",
		p.storeMigrateCommand(), p.storeCheckCommand(), p.storeBackupCommand(), p.storeRestoreCommand())
}

// place is a store that a command line names: by a flag, or in a file that another flag names.
type place struct {
	p        *program
	name     string // of the flag
	variable string // of the environment, "" if there is none; with _FILE behind it, that of a file
	text     string
	file     string
}

func (p *program) placeFlags(c *cobra.Command, name, what, variable string) *place {
	f := &place{p: p, name: name, variable: variable}
	from := ""
	if variable != "" {
		from = " (environment " + variable + ", or " + variable + "_FILE)"
	}
	c.Flags().StringVar(&f.text, name, "", what+": a data directory, or redis://… or postgres://…"+from)
	c.Flags().StringVar(&f.file, name+"-file", "", "file with that, so that a password does not stand on the command line")
	c.MarkFlagDirname(name)
	c.MarkFlagFilename(name + "-file")
	return f
}

// maxAddress is the greatest size of a file with the address of a store.
const maxAddress = 8 << 10

// resolve returns what was named. It warns of a password that others can see.
func (f *place) resolve() (string, error) {
	text := f.text
	switch {
	case text != "" && f.file != "":
		return "", usage("keep one of them", "--%s and --%[1]s-file are both set", f.name)
	case text != "":
		if backend.HasPassword(text) {
			fmt.Fprintf(f.p.Err, "afterlogin: warning: other users of this machine can see the password in --%s: use --%[1]s-file\n", f.name)
		}
	case f.file != "":
		var err error
		if text, err = readAddress(f.file); err != nil {
			return "", usage(oneAddress, "--%s-file: %w", f.name, err)
		}
	case f.variable != "" && f.p.lookup(f.variable) != "":
		text = strings.TrimSpace(f.p.lookup(f.variable))
	case f.variable != "" && f.p.lookup(f.variable+"_FILE") != "":
		var err error
		if text, err = readAddress(f.p.lookup(f.variable + "_FILE")); err != nil {
			return "", usage(oneAddress, "%s_FILE: %w", f.variable, err)
		}
	}
	if text == "" {
		return "", usage("name the data directory, or an address: "+backend.Forms, "--%s is missing", f.name)
	}
	if _, _, err := transfer.Named(text); err != nil {
		return "", usage("the forms are "+backend.Forms, "--%s: %w", f.name, err)
	}
	return text, nil
}

const oneAddress = "it should hold the address alone, on one line"

// readAddress reads the address of a store from a file. The error does not repeat what is in it.
func readAddress(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxAddress+1))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if len(b) > maxAddress || text == "" || strings.ContainsAny(text, "\r\n") {
		return "", fmt.Errorf("%s does not hold the address of a store", path)
	}
	return text, nil
}

// openPlace opens what resolve returned.
func (p *program) openPlace(ctx context.Context, flag, text string, create bool) (*transfer.Place, error) {
	log := slog.New(slog.NewTextHandler(p.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	at, err := transfer.OpenPlace(ctx, text, create, log)
	var setup *backend.SetupError
	switch {
	case err == nil:
		return at, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, transfer.ErrInUse):
		return nil, fail(exitError, "stop that afterlogin first: an embedded store is one process's. A store that servers share need not be stopped for a check or a backup", "%w", err)
	case errors.Is(err, transfer.ErrNoStore):
		return nil, fail(exitError, "name the data directory of the server, which has keys.json in it", "--%s: %w", flag, err)
	case errors.As(err, &setup) && strings.Contains(text, "://"):
		return nil, fail(exitUnreachable, setup.Hint, "%w", err)
	case errors.As(err, &setup):
		return nil, fail(exitError, setup.Hint, "%w", err)
	}
	return nil, err
}

// masterFlag adds the flag that names the master key.
func (p *program) masterFlag(c *cobra.Command) *string {
	file := c.Flags().String("master-key-file", "", "file with the master key (environment AFTERLOGIN_MASTER_KEY_FILE, or AFTERLOGIN_MASTER_KEY with the key itself; default <data>/master.key)")
	c.MarkFlagFilename("master-key-file")
	return file
}

// master returns the master key: the one that was named, or that of the first place that has one; nil if there is none.
func (p *program) master(file string, places ...*transfer.Place) ([]byte, error) {
	named := config.Config{MasterKeyFile: file}
	if file == "" {
		named.MasterKey, named.MasterKeyFile = p.lookup(config.Prefix+"MASTER_KEY"), p.lookup(config.Prefix+"MASTER_KEY_FILE")
	}
	key, err := named.Master()
	if err != nil {
		return nil, usage("", "--master-key-file: %w", err)
	}
	for _, at := range places {
		if key != nil || at == nil {
			break
		}
		if key, err = at.Master(); err != nil {
			return nil, err
		}
	}
	return key, nil
}

var errNoMaster = errors.New("there is no master key")

// needMaster is master for a command that cannot do without.
func (p *program) needMaster(file string, places ...*transfer.Place) ([]byte, error) {
	key, err := p.master(file, places...)
	if err == nil && key == nil {
		err = fail(exitError, "name it with --master-key-file, AFTERLOGIN_MASTER_KEY_FILE or AFTERLOGIN_MASTER_KEY: the one that the server has", "%w", errNoMaster)
	}
	return key, err
}

// keysError says what to do about an error of the keys.
func keysError(at string, err error) error {
	switch {
	case errors.Is(err, keyring.ErrWrongMaster):
		return fail(exitError, "name the master key of the same installation with --master-key-file", "%s: %w", at, err)
	case errors.Is(err, keyring.ErrOtherRing):
		return fail(exitError, "the records of two installations cannot stand in one store: name another, or an empty one", "%s: %w", at, err)
	case errors.Is(err, keyring.ErrNoRing):
		return fail(exitError, "without the keys nothing in the store can be read: restore them first", "%s: %w", at, err)
	}
	return fmt.Errorf("%s: %w", at, err)
}

// fileError is about a file that a flag names.
func fileError(flag string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return usage("", "--%s: %w", flag, err)
	}
	return fmt.Errorf("--%s: %w", flag, err)
}

// bar shows how a long command comes on: a bar that moves on a terminal, otherwise a line now and then.
type bar struct {
	out      io.Writer
	terminal bool
	shown    time.Time
	step     string
	drawn    bool // the line of the terminal is ours
}

func (p *program) bar() *bar { return &bar{out: p.Err, terminal: isTerminal(p.Err)} }

// How often it is shown.
const (
	drawEvery = 100 * time.Millisecond
	lineEvery = 5 * time.Second
)

func (b *bar) show(p transfer.Progress) {
	now := time.Now()
	if b.step != p.Step {
		b.end()
		b.step, b.shown = p.Step, now
		if b.terminal {
			b.shown = time.Time{}
		}
	}
	every := lineEvery
	if b.terminal {
		every = drawEvery
	}
	last := p.Total > 0 && p.Done >= p.Total
	if now.Sub(b.shown) < every && !(b.terminal && last) {
		return
	}
	b.shown = now
	text := progressText(p, now)
	if !b.terminal {
		fmt.Fprintf(b.out, "afterlogin: %s %s\n", p.Step, text)
		return
	}
	const width = 30
	drawing := ""
	if p.Total > 0 {
		full := int(min(p.Done, p.Total) * width / p.Total)
		drawing = "[" + strings.Repeat("#", full) + strings.Repeat("-", width-full) + "] "
	}
	fmt.Fprintf(b.out, "\r\x1b[K%-10s %s%s", p.Step, drawing, text)
	b.drawn = true
}

// progressText says how many, how fast, and for how long yet.
func progressText(p transfer.Progress, now time.Time) string {
	text := thousands(p.Done)
	if p.Total > 0 {
		text += " of " + thousands(max(p.Total, p.Done)) + " records"
	} else {
		text += " records"
	}
	took := now.Sub(p.Begun).Seconds()
	if took < 0.2 || p.Fresh == 0 {
		return text
	}
	rate := float64(p.Fresh) / took
	text += fmt.Sprintf(", %s a second", thousands(int64(rate)))
	if left := p.Total - p.Done; left > 0 && rate > 0 {
		text += ", " + (time.Duration(float64(left)/rate+1) * time.Second).String() + " left"
	}
	return text
}

// end ends the line of a terminal.
func (b *bar) end() {
	if b.drawn {
		fmt.Fprintln(b.out)
	}
	b.drawn, b.step = false, ""
}

// thousands writes a number with commas.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// differences prints the first of what is wrong. Ids are no secret; what a record holds is not printed.
func (p *program) differences(list []transfer.Difference, of int64) {
	for _, d := range list {
		fmt.Fprintf(p.Err, "afterlogin: record %s: %s\n", d.ID, printable(d.What))
	}
	if more := of - int64(len(list)); more > 0 {
		fmt.Fprintf(p.Err, "afterlogin: and %s more\n", thousands(more))
	}
}
