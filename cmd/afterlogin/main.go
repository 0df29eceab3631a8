// Command afterlogin is everything that happens after login, as one program: a server that issues, checks, renews, lists
// and ends session tokens, the commands that talk to it, and a demo.
//
// Start with "afterlogin demo", or with "afterlogin serve" and "afterlogin help".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/config"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/server"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/site"
)

func main() {
	os.Exit(run(os.Args[1:], os.Environ(), streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}

// streams are the standard streams of a command: results go to Out, and everything else to Err.
type streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Exit codes. "afterlogin help exit-codes" explains them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNo          = 3   // the answer is no
	exitDenied      = 4   // not authenticated, or not allowed
	exitUnreachable = 5   // the server could not be asked
	exitInterrupted = 130 // 128 + SIGINT, as shells have it
)

// failure is an error that knows its exit code, and what to do about it.
type failure struct {
	code  int
	err   error // nil: everything has been said already
	hint  string
	again bool // it may go better in a while
}

func (f *failure) Error() string {
	if f.err == nil {
		return fmt.Sprintf("exit %d", f.code)
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

func fail(code int, hint, format string, args ...any) error {
	return &failure{code: code, err: fmt.Errorf(format, args...), hint: hint}
}

func usage(hint, format string, args ...any) error { return fail(exitUsage, hint, format, args...) }

// program is what the commands share.
type program struct {
	streams
	environ []string
	started bool // whether the arguments were good enough for a command to begin
}

// lookup returns an environment variable. An empty one is not set.
func (p *program) lookup(name string) string {
	for _, e := range p.environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// run runs the program and returns its exit code.
func run(args, environ []string, io streams) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	p := &program{streams: io, environ: environ}
	root := p.root()
	root.SetArgs(idsLast(args))
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(io.Err, "afterlogin: interrupted")
		return exitInterrupted
	}
	return p.report(err)
}

// report prints an error and returns its exit code.
func (p *program) report(err error) int {
	code, hint := exitError, ""
	if !p.started {
		code, hint = exitUsage, "see afterlogin help"
	}
	var f *failure
	var faults config.Faults
	var setup *server.SetupError
	var coded interface{ ExitCode() int }
	switch {
	case errors.As(err, &f):
		code, hint = f.code, f.hint
		if f.err == nil {
			return code
		}
	case errors.As(err, &faults):
		p.reportFaults(faults)
		return exitUsage
	case errors.As(err, &setup):
		hint = setup.Hint
	case errors.As(err, &coded):
		code = coded.ExitCode()
	}
	fmt.Fprintf(p.Err, "afterlogin: %s\n", site.Lines(err.Error()))
	if hint != "" {
		fmt.Fprintf(p.Err, "hint: %s\n", hint)
	}
	return code
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "afterlogin",
		Short: "Everything that happens after login",
		Long: "afterlogin issues, checks, renews, lists and ends session tokens.\n\n" +
			"Start with \"afterlogin demo\" to see what that means, or with \"afterlogin serve\" to use it.",
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRun:  func(*cobra.Command, []string) { p.started = true },
		DisableAutoGenTag: true,
	}
	root.SetVersionTemplate("afterlogin {{.Version}}\n")
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.Err)
	asGroup(root)
	root.AddCommand(p.serveCommand(), p.overviewCommand(), p.rehearsalCommand(), p.searchCommand(), p.sessionsCommand(), p.revocationsCommand(), p.tokenCommand(), p.apiKeysCommand(), p.clientsCommand(), p.usersCommand(), p.eventsCommand(), p.auditCommand(), p.webhooksCommand(), p.keysCommand(), p.consoleCommand(), p.storeCommand(), p.configCommand(), p.doctorCommand(), p.gradeCommand(), p.snippetCommand(), p.versionCommand(), newDemoCommand(p.streams))
	root.AddCommand(topics()...)
	return root
}

// group makes a command that only holds others.
func group(use, short, long string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long}
	c.AddCommand(sub...)
	return asGroup(c)
}

// asGroup has the command complain about an unknown subcommand; cobra would print the help and say that all is well.
func asGroup(c *cobra.Command) *cobra.Command {
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			cmd.SetOut(cmd.ErrOrStderr())
			cmd.Help()
			return &failure{code: exitUsage}
		}
		hint := "see " + cmd.CommandPath() + " --help"
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = "did you mean " + strings.Join(near, " or ") + "?"
		}
		return usage(hint, "unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return c
}

// answer reads what the person at the terminal, or the pipe, has to say. It returns at once when ctx ends: a read of a
// terminal cannot be ended, so it is left alone, and ends with the program.
func answer[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		v, err := read()
		done <- outcome{v, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		var none T
		return none, context.Canceled
	}
}

// isTerminal reports whether a person is at the other end of the stream.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // a character device, too
	return err != nil || !os.SameFile(info, null)
}

// anID matches the id of a signing key or of a record without its prefix, which may begin with what flags begin with.
var anID = regexp.MustCompile(`^-[A-Za-z0-9_-]{42}$`)

// idsLast moves ids that begin with - behind everything else and a --, so that they are not read as flags: one key in 64
// has such an id, and whoever copies it into a command line has done nothing wrong.
func idsLast(args []string) []string {
	var rest, ids []string
	for i, a := range args {
		if a == "--" {
			return append(append(rest, "--"), append(ids, args[i+1:]...)...)
		}
		if anID.MatchString(a) {
			ids = append(ids, a)
		} else {
			rest = append(rest, a)
		}
	}
	if ids == nil {
		return args
	}
	return append(append(rest, "--"), ids...)
}
