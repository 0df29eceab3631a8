package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/afterlogin/afterlogin"
	"github.com/afterlogin/afterlogin/cmd/afterlogin/internal/demo"
)

// newDemoCommand returns "afterlogin demo", and below it the thief, the app and the partner.
func newDemoCommand(io streams) *cobra.Command {
	var c demo.Config
	var auto bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a shop on this machine: sign in, fill the cart, be robbed, see the thief thrown out",
		Long: `Run a small web shop on the loopback interface, with real sessions in the embedded
store: sign in, fill the cart, look where you are signed in, and in a second terminal
play the thief with "demo steal" and "demo replay", an app on a phone that lives on
refresh tokens with "demo app", and a partner's machine with an API key with
"demo partner".

Tokens are renewed after 20 seconds of use instead of 15 minutes, so that there is
something to see. Everything lies in a temporary directory that is removed at the end,
unless --data names one. It needs no other program and no internet.`,
		Example: `  afterlogin demo
  afterlogin demo --data ./demo-data --renewal 1m --grace 30s
  afterlogin demo --auto`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Command, c.StateDir = commandName(), demo.StateDir()
			c.AnyPort = !cmd.Flags().Changed("addr")
			c.Logger = slog.New(slog.NewTextHandler(io.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
			if !cmd.Flags().Changed("grace") {
				c.Grace = min(c.Grace, c.Renewal)
			}
			if err := checkTimes(c); err != nil {
				return err
			}
			if auto && (cmd.Flags().Changed("addr") || c.Data != "") {
				return usage("leave out --addr and --data", "--auto plays in a shop of its own")
			}
			if auto {
				return autoDemo(cmd.Context(), io.Out, c)
			}
			return runDemo(cmd.Context(), io.Out, c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Addr, "addr", demo.DefaultAddr, "loopback address and port of the shop; without this flag a free port is taken if that one is not")
	f.StringVar(&c.Data, "data", "", "keep sessions, keys and orders in this directory")
	f.DurationVar(&c.Renewal, "renewal", demo.DefaultRenewal, "after how much time of use a token is renewed")
	f.DurationVar(&c.Grace, "grace", demo.DefaultGrace, "for how long a renewed token's predecessor is still good")
	f.BoolVar(&auto, "auto", false, "play the whole story with nobody watching, check every step, and exit 0 only if all of them held")
	cmd.AddCommand(newStealCommand(io), newReplayCommand(io), newAppCommand(io), newPartnerCommand(io))
	return cmd
}

// checkTimes checks the two flags by the rules of the core, and says which of them is wrong.
func checkTimes(c demo.Config) error {
	if c.Renewal < time.Second || c.Grace < time.Second {
		return usage("durations are written 20s, 1m30s or 1h", "--renewal and --grace: want at least 1s each")
	}
	p := afterlogin.DefaultPolicies()[afterlogin.PolicyBrowser]
	if c.Renewal > p.Idle {
		return usage("take less than that", "--renewal: %v is longer than %v, after which an unused session ends", c.Renewal, p.Idle)
	}
	p.Renewal, p.Grace = c.Renewal, c.Grace
	if err := p.Check(false); err != nil {
		return usage("the grace is at most a minute, and at most the renewal", "--renewal, --grace: %w", err)
	}
	return nil
}

// runDemo serves the shop until it is interrupted.
func runDemo(ctx context.Context, out io.Writer, c demo.Config) error {
	d, err := demo.Start(c)
	switch {
	case errors.Is(err, demo.ErrNotLoopback):
		return usage("take "+demo.DefaultAddr+"; what is made to be reached is "+commandName()+" serve", "--addr: %w", err)
	case errors.Is(err, demo.ErrBadAddr):
		return usage("", "--addr: %w", err)
	case errors.Is(err, syscall.EADDRINUSE):
		return fail(exitError, "leave out --addr to have a free port taken, or stop the program that has this one", "%w", err)
	case err != nil:
		return err
	}
	link, err := d.ConsoleLink(ctx)
	if err != nil {
		return errors.Join(err, d.Close())
	}
	banner(out, d, c, link)
	err = d.Wait(ctx)
	err = errors.Join(err, d.Close())
	if err == nil && c.Data == "" {
		fmt.Fprintln(out, "\nStopped. Everything is gone.")
	} else if err == nil {
		fmt.Fprintf(out, "\nStopped. Everything is kept in %s.\n", c.Data)
	}
	return err
}

// banner says what there is, each line a thing to open or to run.
func banner(out io.Writer, d *demo.Demo, c demo.Config, console string) {
	fmt.Fprintf(out, "afterlogin demo: a shop on this machine, with real sessions in an embedded store\n\n")
	fmt.Fprintf(out, "  Shop     %s      sign in as mia or tom, password demo\n", d.URL())
	fmt.Fprintf(out, "  Console  %s\n           (good once: see who is signed in, and the thief being found)\n\n", console)
	fmt.Fprintf(out, "  1. Put something into the cart, then sign in. The cart comes along; the cookie is a new one.\n")
	fmt.Fprintf(out, "  2. In a second terminal:  %s demo steal     copies the cookie\n", c.Command)
	fmt.Fprintf(out, "     and then:              %s demo replay    uses the copy\n", c.Command)
	fmt.Fprintf(out, "  3. Go on shopping: a few pages, for half a minute. The token is renewed after %v; the copy is\n", c.Renewal)
	fmt.Fprintf(out, "     good for at most %v more, and using it after that ends the session. Sign in again:\n", c.Grace)
	fmt.Fprintf(out, "     the cart is still there, and \"Devices\" says why the other sign-in ended.\n")
	fmt.Fprintf(out, "  4. Other tokens:          %s demo app       an app on a phone, with refresh tokens\n", c.Command)
	fmt.Fprintf(out, "                            %s demo partner   a machine, with an API key\n\n", c.Command)
	if _, port, err := net.SplitHostPort(c.Addr); err == nil && port != "0" && port != strconv.Itoa(d.Port()) {
		fmt.Fprintf(out, "  note: port %s is taken by another program; this is port %d\n", port, d.Port())
	}
	if c.StateDir == "" {
		fmt.Fprintf(out, "  note: there is no thief: set XDG_RUNTIME_DIR or HOME, so that he can find the demo\n")
	}
	if c.Data == "" {
		fmt.Fprintf(out, "  Sessions lie in %s and are gone with Ctrl-C; --data DIR keeps them.\n", d.Data())
	} else {
		fmt.Fprintf(out, "  Sessions lie in %s and stay there after Ctrl-C.\n", d.Data())
	}
	fmt.Fprintf(out, "  Only here: cookies go without Secure, since this is plain HTTP on loopback; and the demo keeps\n")
	fmt.Fprintf(out, "  the last cookie of each session in memory, so that there is something to steal.\n")
}

// autoDemo plays the story.
func autoDemo(ctx context.Context, out io.Writer, c demo.Config) error {
	held, err := demo.Auto(ctx, out, c)
	if err != nil {
		return err
	}
	if !held {
		return &failure{code: exitError} // each step has said how it went
	}
	return nil
}

// newStealCommand returns "afterlogin demo steal".
func newStealCommand(io streams) *cobra.Command {
	return &cobra.Command{
		Use:   "steal",
		Short: "Copy the cookie of whoever is signed in to the running demo",
		Long: `Copy the session cookie of whoever used the running demo last and is signed in, as
malware on their machine could. The copy is kept in a file that only you can read,
until the demo ends. What is printed does not hold the token.

Exit codes: 0 stolen, 1 error, 3 nobody is signed in.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demoError(demo.Steal(cmd.Context(), demo.StateDir(), io.Out))
		},
	}
}

// newReplayCommand returns "afterlogin demo replay".
func newReplayCommand(io streams) *cobra.Command {
	p := demo.Replay{Out: io.Out}
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Use the stolen cookie until the thief is thrown out",
		Long: `Use the stolen copy against the running demo, from another address and as another
program, until it is refused. Go on shopping in the browser meanwhile: it is your
renewed token that gives the thief away.

The thief tries the copy once and then waits until your token has been renewed. With
--greedy he goes on without a pause, and so gets the renewed token before you do: then
your own next page ends it. With --shop nobody need be at a browser: mia's side is
played, too.

Exit codes: 0 the thief was thrown out, 1 error, 3 he was still in when the time was over.`,
		Example: `  afterlogin demo replay
  afterlogin demo replay --shop
  afterlogin demo replay --greedy --within 5m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.Within < time.Second || p.Every < 50*time.Millisecond {
				return usage("durations are written 500ms, 20s or 1m30s", "--within and --every: want at least 1s and 50ms")
			}
			p.StateDir = demo.StateDir()
			out, err := p.Run(cmd.Context())
			if err == nil && !out {
				return &failure{code: exitNo} // the timeline's last line says so
			}
			return demoError(err)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&p.Within, "within", 2*time.Minute, "how long to try")
	f.DurationVar(&p.Every, "every", time.Second, "how long the thief waits between two requests")
	f.BoolVar(&p.Greedy, "greedy", false, "use the copy without a pause, so that the thief gets the renewed token")
	f.BoolVar(&p.Shop, "shop", false, "play mia's side, too: no browser is needed, and nothing need be stolen before")
	return cmd
}

// newAppCommand returns "afterlogin demo app".
func newAppCommand(io streams) *cobra.Command {
	p := demo.App{Out: io.Out}
	cmd := &cobra.Command{
		Use:   "app",
		Short: "Play an app on a phone, which lives on refresh tokens",
		Long: `Play an app on mia's phone against the running demo, as an OAuth client: she signs in
on the shop's own page and allows it (authorization code with PKCE), and from then on
the app asks the shop for her cart, and renews its access token whenever that ends.
Its tokens are in its memory and nowhere else, and none is printed.

It lives until Ctrl-C, when it gives its tokens back, or until it is signed out: on the
page "Devices" of the shop, by its own button or with everything else. With --steal a
thief copies its first refresh token and uses the copy late, which ends the app's grant.

Exit codes: 0 it was signed out or has signed itself out, 1 error.`,
		Example: `  afterlogin demo app
  afterlogin demo app --lose-answer --refreshes 1
  afterlogin demo app --steal
  afterlogin demo app --browser`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.Within != 0 && p.Within < time.Second || p.Every < 50*time.Millisecond {
				return usage("durations are written 500ms, 20s or 1m30s", "--for and --every: want at least 1s and 50ms")
			}
			if p.Refreshes < 0 {
				return usage("0 is as long as you like", "--refreshes: want a whole number, at least 0")
			}
			p.StateDir = demo.StateDir()
			_, err := p.Run(cmd.Context())
			if errors.Is(err, demo.ErrNobodyKnown) {
				return usage("both have the password demo", "--as: %w", err)
			}
			if errors.Is(err, demo.ErrNotAllowed) {
				return fail(exitError, "open the address in a browser, and give yourself more time with --for", "%w", err)
			}
			return demoError(err)
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.As, "as", "mia", "who signs in: mia or tom")
	f.DurationVar(&p.Within, "for", 0, "how long the app lives; 0: until Ctrl-C")
	f.IntVar(&p.Refreshes, "refreshes", 0, "how often it renews its tokens before it signs out; 0: until Ctrl-C")
	f.DurationVar(&p.Every, "every", 2*time.Second, "how long it waits between two looks at the cart")
	f.BoolVar(&p.JWT, "jwt", false, "get JWTs as access tokens, not opaque ones")
	f.BoolVar(&p.Browser, "browser", false, "sign in yourself: print the address to open in your browser")
	f.BoolVar(&p.LoseAnswer, "lose-answer", false, "lose the answer to the first refresh on its way")
	f.BoolVar(&p.Steal, "steal", false, "have a thief copy the first refresh token and use it when it is out of date")
	return cmd
}

// newPartnerCommand returns "afterlogin demo partner".
func newPartnerCommand(io streams) *cobra.Command {
	return &cobra.Command{
		Use:   "partner",
		Short: "Play a partner's machine, which has an API key",
		Long: `Play a partner's machine against the running demo: it asks what is in stock, with the
API key that the demo made for it. Shown are what the key opens and what it does not,
what a copy is worth elsewhere, how the key is changed without a request that fails, and
what happens to a partner in a hurry.

Exit codes: 0 everything went as it must, 1 it did not, or another error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			held, err := demo.Partner{StateDir: demo.StateDir(), Out: io.Out}.Run(cmd.Context())
			if err == nil && !held {
				return &failure{code: exitError} // the timeline says what was not as it must
			}
			return demoError(err)
		},
	}
}

// demoError says what to do about an error of a command that needs a running demo.
func demoError(err error) error {
	me := commandName()
	switch {
	case errors.Is(err, demo.ErrNoDemo):
		return fail(exitError, "start one with "+me+" demo", "%w", err)
	case errors.Is(err, demo.ErrNobody):
		return fail(exitNo, "put something into the cart, sign in, and try again", "%w", err)
	case errors.Is(err, demo.ErrNothingStolen):
		return fail(exitError, "run "+me+" demo steal first, or play both sides with "+me+" demo replay --shop", "%w", err)
	}
	return err
}

// commandName is how this program was called, for texts that say what to run next.
func commandName() string {
	if strings.Contains(filepath.ToSlash(os.Args[0]), "/go-build") {
		return "go run ./cmd/afterlogin"
	}
	return os.Args[0]
}
